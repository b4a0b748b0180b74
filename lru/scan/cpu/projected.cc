// y_t = C h_t with h_t = a h_{t-1} + B x_t on a CPU, for pairs with a constant a, complex (Q = 2) or
// real matrices (Q = 4): both products and the recurrence over a block of steps while it is in a cache.
//
// Arrays are row-major, with any axes that vmap put in front, of which arguments share those of 1:
//   a [..., Q, N], x [..., B, T, D], B [..., D, 2 N], C [..., 2 N, E], h0 [..., B, 2, N],
//   keep [..., B, T], or no elements where every step keeps the one before,
//   y [..., B, T, E], h [..., B, T, 2, N].
// With `reverse` time runs backwards. Rows of the batch are dealt out to tasks, or blocks of them where
// rows are fewer than threads: products need nothing of other blocks, and take nearly all the time.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "buffers.h"
#include "loops.h"
#include "pages.h"
#include "parallel.h"
#include "product.h"
#include "recurrence.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Steps of a block; four arrays of so many rows share the second-level cache with a panel.
constexpr int64_t kBlock = 64;
// Multiplications, forward, for which blocks of one row are dealt out to a further thread.
constexpr int64_t kProductsWorthDealing = 1 << 23;

struct Sizes {
  int64_t problems, rows, steps, inputs, width, outputs;  // all in front of B, then B, T, D, N, E

  int64_t Blocks() const { return (steps + kBlock - 1) / kBlock; }

  // Tasks of a problem: each has some rows, or some blocks where there are more tasks than rows.
  int64_t Tasks(ffi::ThreadPool& pool) const {
    int64_t share = (pool.num_threads() + problems - 1) / std::max<int64_t>(problems, 1);
    int64_t worth = rows * steps * 2 * width * (inputs + outputs) / kProductsWorthDealing;
    return std::min({share, rows * Blocks(), std::max(rows, worth)});
  }

  // Calls run(problem, task of the problem, row of the problem, k) for the k-th block of every row.
  // Calls of a task follow one another, and those of a row begin in the order of k.
  template <typename Run>
  void ForEachBlock(ffi::ThreadPool& pool, const Run& run) const {
    const int64_t tasks = Tasks(pool);
    const int64_t threads = std::min<int64_t>(problems * tasks, pool.num_threads());
    if (tasks <= rows) {
      InParallel(pool, problems * tasks, threads, [&](int64_t i) {
        for (int64_t row = i % tasks; row < rows; row += tasks)
          for (int64_t k = 0; k < Blocks(); ++k) run(i / tasks, i % tasks, row, k);
      });
      return;
    }
    Turns turns(problems * tasks);
    InParallel(pool, problems * rows * Blocks(), threads, [&](int64_t i) {
      int64_t problem = i % problems, among_own = i / problems, task = among_own % tasks;
      turns.Await(problem * tasks + task, among_own / tasks);
      run(problem, task, among_own % rows, among_own / rows);
      turns.End(problem * tasks + task);
    });
  }
};

// The state of every row, at which blocks have their turns.
template <typename T>
struct States {
  Turns turns;
  int64_t wide;
  std::vector<T> all;

  explicit States(const Sizes& s)
      : turns(s.problems * s.rows), wide(2 * s.width), all(s.problems * s.rows * wide, T(0)) {}

  T* Of(int64_t row_among_all) { return all.data() + row_among_all * wide; }
};

template <typename T, typename Layout>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const Operand<T>& a, const Operand<T>& x,
             const Operand<T>& B, const Operand<T>& C, const Operand<T>& h0,
             const std::optional<Operand<bool>>& keep, bool reverse, T* y, T* h) {
  const int64_t wide = 2 * s.width;
  const Panels<T> hidden(wide), out(s.outputs);
  std::vector<std::vector<T>> packed_B, packed_C;
  for (int64_t p = 0; p < s.problems; ++p) {
    packed_B.push_back(Packed(hidden, s.inputs, B[p], false));
    packed_C.push_back(Packed(out, wide, C[p], false));
  }
  States<T> states(s);
  for (int64_t p = 0; p < s.problems; ++p)
    std::copy_n(h0[p], s.rows * wide, states.Of(p * s.rows));
  s.ForEachBlock(pool, [&](int64_t problem, int64_t, int64_t row, int64_t k) {
    int64_t begin = kBlock * (reverse ? s.Blocks() - 1 - k : k);
    int64_t count = std::min(kBlock, s.steps - begin), at = row * s.steps + begin;
    int64_t row_among_all = problem * s.rows + row, among_all = row_among_all * s.steps + begin;
    Rows<const T> x_rows{x[problem] + at * s.inputs, s.inputs};
    Rows<T> h_rows{h + among_all * wide, wide}, y_rows{y + among_all * s.outputs, s.outputs};
    Product(hidden, packed_B[problem], s.inputs, count, x_rows, {}, h_rows);
    auto place = [&](int64_t i) { return reverse ? count - 1 - i : i; };
    bool kept[kBlock];
    for (int64_t i = 0; i < count; ++i) kept[i] = !keep || (*keep)[problem][at + place(i)];
    T* first = h_rows[place(0)];
    Steps<T> steps{count, kept, s.width, a[problem], 0, first, first, reverse ? -wide : wide};
    states.turns.Await(row_among_all, k);
    steps.state = states.Of(row_among_all);
    Advance<T, Layout, false, false>(steps, s.width);
    states.turns.End(row_among_all);
    Product(out, packed_C[problem], wide, count, h_rows, {}, y_rows);
  });
}

// Sums over the steps of a task, and scratch arrays of a block.
template <typename T>
struct Task {
  std::vector<T> a, B, C, partial, gradient, padded;

  Task(const Sizes& s, int parts_of_a, const Panels<T>& hidden, const Panels<T>& out)
      : a(parts_of_a * s.width, T(0)),
        B(s.inputs * hidden.padded, T(0)),
        C(2 * s.width * out.padded, T(0)),
        partial(a),
        gradient(kBlock * hidden.padded, T(0)),
        padded(out.padded == s.outputs ? 0 : kBlock * out.padded, T(0)) {}

  // Adds these, whose rows of B and C are padded, to arrays whose rows are not.
  void AddTo(const Panels<T>& hidden, const Panels<T>& out, T* da, T* dB, T* dC) const {
    for (size_t i = 0; i < a.size(); ++i) da[i] += a[i];
    auto add = [](const std::vector<T>& total, const Panels<T>& panels, T* sum) {
      if (total.empty()) return;
      for (size_t i = 0; i < total.size() / panels.padded; ++i)
        for (int64_t j = 0; j < panels.n; ++j)
          sum[i * panels.n + j] += total[i * panels.padded + j];
    };
    add(B, hidden, dB);
    add(C, out, dC);
  }
};

// Blocks from the last to the first. With l the gradient of B x: l_t = C^T dy_t + conj(a) l_{t+1},
// and where the row's last state counts, its gradient is added at the step `last`.
template <typename T, typename Layout>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const Operand<T>& a, const Operand<T>& x,
              const Operand<T>& B, const Operand<T>& C, const Operand<T>& h0,
              const std::optional<Operand<bool>>& keep, const Operand<int32_t>& last, const Operand<T>& h,
              const Operand<T>& dy, const Operand<T>& dlast, bool reverse, T* da, T* dx, T* dB,
              T* dC, T* dh0) {
  using One = typename Layout::template Block<T, sizeof(T)>;
  const int64_t wide = 2 * s.width, wide_a = Layout::Q * s.width, tasks = s.Tasks(pool);
  const Panels<T> in(s.inputs), hidden(wide), out(s.outputs);
  std::vector<std::vector<T>> packed_B, packed_C;
  for (int64_t p = 0; p < s.problems; ++p) {
    packed_B.push_back(Packed(in, wide, B[p], true));
    packed_C.push_back(Packed(hidden, s.outputs, C[p], true));
  }
  std::vector<Task<T>> all_tasks(s.problems * tasks, Task<T>(s, Layout::Q, hidden, out));
  States<T> states(s);
  s.ForEachBlock(pool, [&](int64_t problem, int64_t task_of_problem, int64_t row, int64_t k) {
    Task<T>& task = all_tasks[problem * tasks + task_of_problem];
    const T *factor = a[problem], *start = h0[problem] + row * wide;
    const int64_t row_among_all = problem * s.rows + row, last_step = last[problem][row];
    const bool at_start = k == s.Blocks() - 1;
    int64_t begin = kBlock * (reverse ? k : s.Blocks() - 1 - k);
    int64_t count = std::min(kBlock, s.steps - begin), at = row * s.steps + begin;
    Rows<const T> dy_rows{dy[problem] + at * s.outputs, s.outputs};
    Rows<const T> h_rows{h[problem] + at * wide, wide};
    const T* x_at = x[problem] + at * s.inputs;
    Rows<T> l_rows{task.gradient.data(), hidden.padded};
    Product(hidden, packed_C[problem], s.outputs, count, dy_rows, {}, l_rows);
    if (begin <= last_step && last_step < begin + count) {
      T* l = l_rows[last_step - begin];
      for (int64_t j = 0; j < wide; ++j) l[j] += dlast[problem][row * wide + j];
    }
    // Places of the steps of the block, counted in the direction of the scan.
    auto place = [&](int64_t i) { return reverse ? count - 1 - i : i; };
    const int64_t back = reverse ? 1 : -1;
    // The other way, from the step behind the block on.
    bool kept[kBlock + 1];
    for (int64_t i = 0; i <= count; ++i)
      kept[count - i] = (i < count || k > 0) && (!keep || (*keep)[problem][at + place(i)]);
    std::fill(task.partial.begin(), task.partial.end(), T(0));
    states.turns.Await(row_among_all, k);
    T* state = states.Of(row_among_all);
    // n steps from step i back; `before` is the state before step i.
    auto advance = [&](int64_t i, int64_t n, const T* before) {
      Steps<T> steps{n, kept + (count - 1 - i), s.width, factor};
      steps.b = steps.out = l_rows[place(i)];
      steps.stride = back * l_rows.stride;
      steps.state = state;
      steps.before = before;
      steps.stride_before = back * wide;
      steps.da = task.partial.data();
      Advance<T, Layout, false, true>(steps, s.width);
    };
    const int64_t within = at_start ? count - 1 : count;
    if (within > 0) advance(count - 1, within, h_rows[place(count - 1) + back]);
    if (at_start) advance(0, 1, start);
    states.turns.End(row_among_all);
    for (int64_t j = 0; j < wide_a; ++j) task.a[j] += task.partial[j];
    Product<T>(in, packed_B[problem], wide, count, l_rows, {},
               {dx + (row_among_all * s.steps + begin) * s.inputs, s.inputs});
    AddOuterProducts<T>(hidden, 1, 0, count, s.inputs, {x_at, s.inputs},
                        {l_rows.first, l_rows.stride}, task.B.data());
    if (out.padded != s.outputs) {
      for (int64_t i = 0; i < count; ++i)
        std::copy_n(dy_rows[i], s.outputs, task.padded.data() + i * out.padded);
      dy_rows = {task.padded.data(), out.padded};
    }
    AddOuterProducts<T>(out, 1, 0, count, wide, h_rows, dy_rows, task.C.data());
    if (!at_start) return;
    for (int64_t j = 0; j < s.width; ++j) {
      typename One::Number through = {};
      if (kept[count])
        through = One::Next(One::LoadFactor(factor + j, s.width, true),
                            One::Load(state + j, s.width), through);
      One::Store(through, dh0 + row_among_all * wide + j, s.width);
    }
  });
  std::fill_n(da, s.problems * wide_a, T(0));
  std::fill_n(dB, s.problems * s.inputs * wide, T(0));
  std::fill_n(dC, s.problems * wide * s.outputs, T(0));
  for (int64_t i = 0; i < s.problems * tasks; ++i) {
    int64_t p = i / tasks;
    all_tasks[i].AddTo(hidden, out, da + p * wide_a, dB + p * s.inputs * wide,
                    dC + p * wide * s.outputs);
  }
}

struct Problem {
  Front front;
  int64_t parts_of_a;  // Q
  Sizes sizes;

  // Of arrays with as many axes as `HasAxes` asks for; of y or its gradient, a, x, B and C.
  Problem(const ffi::AnyBuffer& result, const ffi::AnyBuffer& a, const ffi::AnyBuffer& x,
          const ffi::AnyBuffer& B, const ffi::AnyBuffer& C)
      : front(result, 3) {
    auto shape = x.dimensions(), shape_of_a = a.dimensions();
    parts_of_a = shape_of_a[shape_of_a.size() - 2];
    size_t last = shape.size() - 1;
    sizes = {front.count,   shape[last - 2],           shape[last - 1],
             shape[last], B.dimensions().back() / 2, C.dimensions().back()};
  }

  static bool HasAxes(const ffi::AnyBuffer& result, const ffi::AnyBuffer& a, const ffi::AnyBuffer& x,
                      const ffi::AnyBuffer& B, const ffi::AnyBuffer& C) {
    auto has = [](const ffi::AnyBuffer& array, size_t axes) { return array.dimensions().size() >= axes; };
    return has(result, 3) && has(a, 2) && has(x, 3) && has(B, 2) && has(C, 2);
  }

  // Of the arguments, or of the gradients that have their shapes.
  void Expect(Check& check, const ffi::AnyBuffer& a, const ffi::AnyBuffer& x,
              const ffi::AnyBuffer& B, const ffi::AnyBuffer& C, const ffi::AnyBuffer& h0) const {
    const Sizes& s = sizes;
    check.Has("a", a, {parts_of_a, s.width}).Has("x", x, {s.rows, s.steps, s.inputs});
    check.Has("B", B, {s.inputs, 2 * s.width}).Has("C", C, {2 * s.width, s.outputs});
    check.Has("h0", h0, {s.rows, 2, s.width});
  }

  void ExpectResults(Check& check, const ffi::AnyBuffer& y, const ffi::AnyBuffer& h) const {
    check.Has("y", y, {sizes.rows, sizes.steps, sizes.outputs});
    check.Has("h", h, {sizes.rows, sizes.steps, 2, sizes.width});
  }
};

// Calls run(T(), layout) for what is at hand.
template <typename Run>
ffi::Error WithKind(const ffi::AnyBuffer& x, const Problem& problem, const Run& run) {
  return WithType(x.element_type(), [&](auto zero) {
    if (problem.parts_of_a == 2) return run(zero, Parts<2, 2>());
    if (problem.parts_of_a == 4) return run(zero, Parts<4, 2>());
    return ffi::Error::InvalidArgument("a must have 2 or 4 parts");
  });
}

// The masks, if there are any.
std::optional<Operand<bool>> Masks(const ffi::Buffer<ffi::PRED>& keep, const Front& front) {
  if (!MaskOf(keep)) return std::nullopt;
  return Operand<bool>(keep, front);
}

ffi::Error ForwardCall(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer x, ffi::AnyBuffer B,
                       ffi::AnyBuffer C, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       bool reverse, ffi::Result<ffi::AnyBuffer> y, ffi::Result<ffi::AnyBuffer> h) {
  if (!Problem::HasAxes(*y, a, x, B, C)) return TooFewAxes("y, a, x, B or C");
  Problem problem(*y, a, x, B, C);
  const Sizes& s = problem.sizes;
  const Front& front = problem.front;
  Check check(x.element_type(), front, true), full(x.element_type(), front);
  problem.Expect(check.HasMask("keep", keep, s.rows, s.steps), a, x, B, C, h0);
  problem.ExpectResults(full, *y, *h);
  if (check.Result().failure()) return check.Result();
  if (full.Result().failure()) return full.Result();
  WantLargePages(y, h);
  return WithKind(x, problem, [&](auto zero, auto layout) {
    using T = decltype(zero);
    Forward<T, decltype(layout)>(pool, s, {a, front}, {x, front}, {B, front}, {C, front}, {h0, front},
               Masks(keep, front), reverse, NumbersOf<T>(*y), NumbersOf<T>(*h));
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer x, ffi::AnyBuffer B,
                        ffi::AnyBuffer C, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Buffer<ffi::S32> last, ffi::AnyBuffer h, ffi::AnyBuffer dy,
                        ffi::AnyBuffer dlast, bool reverse, ffi::Result<ffi::AnyBuffer> da,
                        ffi::Result<ffi::AnyBuffer> dx, ffi::Result<ffi::AnyBuffer> dB,
                        ffi::Result<ffi::AnyBuffer> dC, ffi::Result<ffi::AnyBuffer> dh0) {
  if (!Problem::HasAxes(*dx, a, x, B, C)) return TooFewAxes("dx, a, x, B or C");
  Problem problem(*dx, a, x, B, C);
  const Sizes& s = problem.sizes;
  const Front& front = problem.front;
  Check check(x.element_type(), front, true), full(x.element_type(), front);
  problem.Expect(check.HasMask("keep", keep, s.rows, s.steps), a, x, B, C, h0);
  problem.ExpectResults(check, dy, h);
  check.HasShape("last", last, {s.rows}).Has("dlast", dlast, {s.rows, 2, s.width});
  problem.Expect(full, *da, *dx, *dB, *dC, *dh0);
  if (check.Result().failure()) return check.Result();
  if (full.Result().failure()) return full.Result();
  WantLargePages(dx);
  return WithKind(x, problem, [&](auto zero, auto layout) {
    using T = decltype(zero);
    Backward<T, decltype(layout)>(pool, s, {a, front}, {x, front}, {B, front}, {C, front}, {h0, front},
                Masks(keep, front), {last, front}, {h, front}, {dy, front}, {dlast, front}, reverse,
                NumbersOf<T>(*da), NumbersOf<T>(*dx), NumbersOf<T>(*dB), NumbersOf<T>(*dC),
                NumbersOf<T>(*dh0));
    return ffi::Error::Success();
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_projected_forward, ForwardCall, "reverse")
LRU_DEFINE_LOOP(lru_projected_backward, BackwardCall, "reverse")
