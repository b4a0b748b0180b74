// h_t = a_t h_{t-1} + b_t on a CPU: one pass over memory in each direction, on all cores.
//
// Arrays are those of lru/scan/methods.py, row-major, with any axes that vmap put in front:
//   a [..., Q, N] or [..., B, T, Q, N], b [..., B, T, P, N], h0 [..., B, P, N],
//   keep [..., B, T], or no elements where every step keeps the one before.
// Rows of the batch, and slices of N where there are fewer rows than cores, are independent tasks.

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "buffers.h"
#include "parallel.h"
#include "recurrence.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Tasks are no smaller than waking a core pays.
constexpr int64_t kElementsWorthAThread = 1 << 15;
// Gradients of a constant a are summed over so many steps before they join the total: the error
// of a sum grows with the number of its terms.
constexpr int64_t kPartialSum = 256;
// Steps for which a few columns stay in registers, before the next columns have their turn.
constexpr int64_t kTile = 16;
static_assert(kPartialSum % kTile == 0);

struct Sizes {
  int64_t rows;          // all axes in front of T
  int64_t rows_of_a;     // consecutive rows that share one constant a
  int64_t steps, width;  // T, N
  bool varying, reverse;

  int64_t Threads(int64_t parts) const {
    return rows * steps * parts * width / kElementsWorthAThread;
  }
  int64_t Direction() const { return reverse ? -1 : 1; }
  // Where the i-th step of a row's scan lies among the steps of all rows.
  int64_t Place(int64_t row, int64_t i) const {
    return row * steps + (reverse ? steps - 1 - i : i);
  }
};

template <typename T, int Q, int P, bool kVarying>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* b, const T* h0,
             const bool* keep, T* out) {
  OverSlices(pool, s.rows, s.width, s.Threads(P), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first;
    bool kept[kTile];
    std::vector<T> h(P * n);
    for (int p = 0; p < P; ++p)
      std::copy_n(h0 + (row * P + p) * s.width + first, n, h.data() + p * n);
    for (int64_t i = 0; i < s.steps; i += kTile) {
      const int64_t count = std::min(kTile, s.steps - i), at = s.Place(row, i);
      for (int64_t j = 0; j < count; ++j) kept[j] = !keep || keep[at + j * s.Direction()];
      Steps<T> steps{count, kept, s.width};
      steps.a = a + (kVarying ? at : row / s.rows_of_a) * Q * s.width + first;
      steps.stride_a = s.Direction() * Q * s.width;
      steps.b = b + at * P * s.width + first;
      steps.out = out + at * P * s.width + first;
      steps.stride = s.Direction() * P * s.width;
      steps.state = h.data();
      Advance<T, Q, P, kVarying, false>(steps, n);
    }
  });
}

// One loop against the scan: db_t = g_t + conj(a_next) db_next, and beside it da_t = db_t
// conj(h_previous), summed over the steps of a row where a is constant: da is [..., B, Q, N] then.
template <typename T, int Q, int P, bool kVarying>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* g, const T* h,
              const T* h0, const bool* keep, T* db, T* da) {
  OverSlices(pool, s.rows, s.width, s.Threads(P), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first, against = -s.Direction();
    // Whether the j-th step of a tile keeps its state before is kept[j + 1]; kept[0] is that of the
    // step that was handled before the tile, false for the first.
    bool kept[kTile + 1] = {};
    std::vector<T> state(P * n, T(0)), partial(Q * n, T(0)), total(Q * n, T(0));
    for (int64_t i = 0, count; i < s.steps; i += count) {
      // The first step of the scan, which comes last, has its state before in another array.
      const bool start = i == s.steps - 1;
      count = start ? 1 : std::min(kTile, s.steps - 1 - i);
      const int64_t at = s.Place(row, s.steps - 1 - i);
      for (int64_t j = 0; j < count; ++j) kept[j + 1] = !keep || keep[at + j * against];
      Steps<T> steps{count, kept, s.width};
      steps.a = a + (kVarying ? at : row / s.rows_of_a) * Q * s.width + first;
      steps.stride_a = against * Q * s.width;
      steps.b = g + at * P * s.width + first;
      steps.out = db + at * P * s.width + first;
      steps.stride = against * P * s.width;
      steps.state = state.data();
      steps.before = (start ? h0 + row * P * s.width : h + (at + against) * P * s.width) + first;
      steps.stride_before = steps.stride;
      steps.da = kVarying ? da + at * Q * s.width + first : partial.data();
      Advance<T, Q, P, kVarying, true>(steps, n);
      kept[0] = kept[count];
      if (!kVarying && (start || (i + count) % kPartialSum == 0)) {
        for (int64_t j = 0; j < Q * n; ++j) total[j] += partial[j];
        std::fill(partial.begin(), partial.end(), T(0));
      }
    }
    if (!kVarying)
      for (int q = 0; q < Q; ++q)
        std::copy_n(total.data() + q * n, n, da + (row * Q + q) * s.width + first);
  });
}

struct Problem {
  Front front;
  Sizes sizes;
  int64_t rows, parts_of_a, parts;  // B, Q, P

  // Of arrays with as many axes as `HasAxes` asks for.
  Problem(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, bool reverse) : front(b, 4) {
    auto shape = b.dimensions(), shape_of_a = a.dimensions();
    size_t last = shape.size() - 1;
    rows = shape[last - 3];
    parts = shape[last - 1];
    parts_of_a = shape_of_a[shape_of_a.size() - 2];
    sizes = {front.count * rows, rows,   shape[last - 2], shape[last],
             shape_of_a.size() == shape.size(), reverse};
  }

  static bool HasAxes(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b) {
    return a.dimensions().size() >= 2 && b.dimensions().size() >= 4;
  }

  Check CheckedArguments(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, const ffi::AnyBuffer& h0,
                         const ffi::Buffer<ffi::PRED>& keep) const {
    Check check(b.element_type(), front);
    Sequence(check, "b", b).Has("h0", h0, {rows, parts, sizes.width});
    if (sizes.varying) check.Has("a", a, {rows, sizes.steps, parts_of_a, sizes.width});
    if (!sizes.varying) check.Has("a", a, {parts_of_a, sizes.width});
    return check.HasMask("keep", keep, rows, sizes.steps);
  }

  Check& Sequence(Check& check, const char* name, const ffi::AnyBuffer& x) const {
    return check.Has(name, x, {rows, sizes.steps, parts, sizes.width});
  }
};

// Calls run(T(), Q, P, whether a varies), the last three as integral constants, for what is at hand.
template <typename Run>
ffi::Error WithKind(const ffi::AnyBuffer& b, const Problem& problem, const Run& run) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  int64_t q = problem.parts_of_a, p = problem.parts;
  return WithType(b, [&](auto zero) {
    auto with_parts = [&](auto varying) {
      if (q == 1 && p == 1) return run(zero, One(), One(), varying);
      if (q == 1 && p == 2) return run(zero, One(), Two(), varying);
      if (q == 2 && p == 2) return run(zero, Two(), Two(), varying);
      return ffi::Error::InvalidArgument("a and b have parts that do not fit each other");
    };
    return problem.sizes.varying ? with_parts(std::true_type()) : with_parts(std::false_type());
  });
}

ffi::Error ForwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer b,
                       ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Result<ffi::AnyBuffer> h) {
  if (!Problem::HasAxes(a, b)) return TooFewAxes("a or b");
  Problem problem(a, b, reverse);
  Check check = problem.CheckedArguments(a, b, h0, keep);
  problem.Sequence(check, "h", *h);
  if (check.Result().failure()) return check.Result();
  return WithKind(b, problem, [&](auto zero, auto q, auto p, auto varying) {
    using T = decltype(zero);
    Forward<T, q.value, p.value, varying.value>(
        pool, problem.sizes, a.reinterpret_data<T>(), b.reinterpret_data<T>(),
        h0.reinterpret_data<T>(), MaskOf(keep), h->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer g,
                        ffi::AnyBuffer h, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Result<ffi::AnyBuffer> db, ffi::Result<ffi::AnyBuffer> da) {
  if (!Problem::HasAxes(a, g)) return TooFewAxes("a or g");
  Problem problem(a, g, reverse);
  const Sizes& s = problem.sizes;
  Check check = problem.CheckedArguments(a, g, h0, keep);
  problem.Sequence(check, "h", h);
  problem.Sequence(check, "db", *db);
  if (s.varying) check.Has("da", *da, {problem.rows, s.steps, problem.parts_of_a, s.width});
  if (!s.varying) check.Has("da", *da, {problem.rows, problem.parts_of_a, s.width});
  if (check.Result().failure()) return check.Result();
  return WithKind(g, problem, [&](auto zero, auto q, auto p, auto varying) {
    using T = decltype(zero);
    Backward<T, q.value, p.value, varying.value>(
        pool, s, a.reinterpret_data<T>(), g.reinterpret_data<T>(), h.reinterpret_data<T>(),
        h0.reinterpret_data<T>(), MaskOf(keep), db->reinterpret_data<T>(),
        da->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lru_linear_forward, ForwardCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("reverse")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(lru_linear_backward, BackwardCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("reverse")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
