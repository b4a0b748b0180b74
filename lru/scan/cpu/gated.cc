// Gated recurrent networks (lru/scan/gated.py) on a CPU: the product with the recurrent matrix, the
// gates and their gradient, step by step while a few rows of the batch are in a cache.
//
// Arrays are row-major, with any axes that vmap put in front: x [..., B, T, S], W [..., N, M], states
// before the first and after the last step [..., B, N], states and activations of all steps
// [..., B, T, N]; keep and valid [..., B, T], or no elements where they are true everywhere. Where
// keep is false the previous state is dropped; where valid is false the state passes, the inputs and
// gradients there are not used, and activations are zero.
//
// With `reverse` time runs backwards, and the previous state is that of the step behind.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "activations.h"
#include "buffers.h"
#include "groups.h"
#include "loops.h"
#include "product.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Rows of a group. A matrix that no core's cache holds is read once a step for all of them.
constexpr int kMostRows = 16;

// Rows of states and of gradients that wait in the cache for the gradient of W.
constexpr int64_t kPairs = 256;

template <typename P, size_t kCount>
using Pointers = std::array<P*, kCount>;

// A cell has kStates states, the first of which is h, takes in kTaken numbers and has kActivations
// that its gradient needs. Both of its functions run over n columns:
//   Forward: what is taken in and the states before, to the activations and the states after.
//   Backward: activations, states before and after, and the gradients of the states after in d, to
//   the gradients of what was taken in and, in d, of the states before.
struct Lstm {
  static constexpr int kStates = 2, kTaken = 4, kActivations = 4;

  template <typename T>
  static void Forward(int64_t n, const Pointers<const T, 4>& taken,
                      const Pointers<const T, 2>& before, const Pointers<T, 4>& active,
                      const Pointers<T, 2>& after) {
    const auto [to_i, to_f, to_g, to_o] = taken;
    const auto [i, f, g, o] = active;
    const auto [h, c] = after;
    const T* c_before = before[1];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      i[j] = Sigmoid(to_i[j]);
      f[j] = Sigmoid(to_f[j]);
      g[j] = Tanh(to_g[j]);
      o[j] = Sigmoid(to_o[j]);
      c[j] = f[j] * c_before[j] + i[j] * g[j];
      h[j] = o[j] * Tanh(c[j]);
    }
  }

  template <typename T>
  static void Backward(int64_t n, const Pointers<const T, 4>& active,
                       const Pointers<const T, 2>& before, const Pointers<const T, 2>& after,
                       const Pointers<T, 4>& dtaken, const Pointers<T, 2>& d) {
    const auto [i, f, g, o] = active;
    const auto [to_i, to_f, to_g, to_o] = dtaken;
    const auto [dh, dc] = d;
    const T *c_before = before[1], *c = after[1];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      T squashed = Tanh(c[j]);
      T to_c = dc[j] + dh[j] * o[j] * (T(1) - squashed * squashed);
      to_i[j] = to_c * g[j] * i[j] * (T(1) - i[j]);
      to_f[j] = to_c * c_before[j] * f[j] * (T(1) - f[j]);
      to_g[j] = to_c * i[j] * (T(1) - g[j] * g[j]);
      to_o[j] = dh[j] * squashed * o[j] * (T(1) - o[j]);
      dh[j] = T(0);
      dc[j] = to_c * f[j];
    }
  }
};

struct Gru {
  static constexpr int kStates = 1, kTaken = 4, kActivations = 4;

  template <typename T>
  static void Forward(int64_t n, const Pointers<const T, 4>& taken,
                      const Pointers<const T, 1>& before, const Pointers<T, 4>& active,
                      const Pointers<T, 1>& after) {
    const auto [to_n, to_r, to_z, recurrent_in] = taken;
    const auto [r, z, candidate, recurrent] = active;
    const T* h_before = before[0];
    T* h = after[0];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      r[j] = Sigmoid(to_r[j]);
      z[j] = Sigmoid(to_z[j]);
      recurrent[j] = recurrent_in[j];
      candidate[j] = Tanh(to_n[j] + r[j] * recurrent_in[j]);
      h[j] = (T(1) - z[j]) * candidate[j] + z[j] * h_before[j];
    }
  }

  template <typename T>
  static void Backward(int64_t n, const Pointers<const T, 4>& active,
                       const Pointers<const T, 1>& before, const Pointers<const T, 1>&,
                       const Pointers<T, 4>& dtaken, const Pointers<T, 1>& d) {
    const auto [r, z, candidate, recurrent] = active;
    const auto [to_n, to_r, to_z, to_recurrent] = dtaken;
    const T* h_before = before[0];
    T* dh = d[0];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      T dn = dh[j] * (T(1) - z[j]) * (T(1) - candidate[j] * candidate[j]);
      to_n[j] = dn;
      to_r[j] = dn * recurrent[j] * r[j] * (T(1) - r[j]);
      to_z[j] = dh[j] * (h_before[j] - candidate[j]) * z[j] * (T(1) - z[j]);
      to_recurrent[j] = dn * r[j];
      dh[j] = dh[j] * z[j];
    }
  }
};

struct Elman {
  static constexpr int kStates = 1, kTaken = 1, kActivations = 0;

  template <typename T>
  static void Forward(int64_t n, const Pointers<const T, 1>& taken, const Pointers<const T, 1>&,
                      const Pointers<T, 0>&, const Pointers<T, 1>& after) {
    const T* to_h = taken[0];
    T* h = after[0];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) h[j] = Tanh(to_h[j]);
  }

  template <typename T>
  static void Backward(int64_t n, const Pointers<const T, 0>&, const Pointers<const T, 1>&,
                       const Pointers<const T, 1>& after, const Pointers<T, 1>& dtaken,
                       const Pointers<T, 1>& d) {
    const T* h = after[0];
    T *to_h = dtaken[0], *dh = d[0];
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      to_h[j] = dh[j] * (T(1) - h[j] * h[j]);
      dh[j] = T(0);
    }
  }
};

struct Sizes {
  int64_t problems, rows, steps, width, mixed;  // all axes in front of B, then B, T, N, M
  bool reverse;

  int64_t Products() const { return problems * rows * steps * width * mixed; }

  // The i-th step that the scan takes.
  int64_t Step(int64_t i) const { return reverse ? steps - 1 - i : i; }
};

// What a loop over time reads of each step. A step is row * steps + t.
struct Masks {
  const bool *keep, *valid;

  bool Kept(int64_t step) const { return !keep || keep[step]; }
  bool Valid(int64_t step) const { return !valid || valid[step]; }
};

// The arrays at a row of n numbers.
template <typename To, typename From, size_t kCount>
Pointers<To, kCount> At(const Pointers<From, kCount>& arrays, int64_t row, int64_t n) {
  Pointers<To, kCount> rows;
  for (size_t k = 0; k < kCount; ++k) rows[k] = arrays[k] + row * n;
  return rows;
}

template <typename Cell, typename T>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* x, const T* W, const Masks& masks,
             const Pointers<const T, Cell::kStates>& first, const Pointers<T, Cell::kStates>& last,
             const Pointers<T, Cell::kStates>& states,
             const Pointers<T, Cell::kActivations>& activations) {
  constexpr int kStates = Cell::kStates, kTaken = Cell::kTaken;
  const int64_t n = s.width, inputs = kTaken * n, unmixed = inputs - s.mixed;
  const Panels<T> panels(s.mixed);
  const Groups groups(pool, s.problems, s.rows, s.Products(), kMostRows);
  std::vector<std::vector<T>> packed;
  for (int64_t p = 0; p < s.problems; ++p)
    packed.push_back(Packed(panels, n, W + p * n * s.mixed, false));
  groups.ForEach(pool, [&](int64_t problem, int64_t, int64_t row, int64_t rows) {
    const std::vector<T> zero(n, T(0));
    std::vector<T> mixed(rows * s.mixed);
    const int64_t begin = problem * s.rows + row;
    std::vector<Pointers<const T, kStates>> before(rows);
    for (int64_t r = 0; r < rows; ++r) before[r] = At<const T>(first, begin + r, n);
    for (int64_t i = 0; i < s.steps; ++i) {
      const int64_t at = begin * s.steps + s.Step(i);
      const T* h[kMostRows];
      for (int64_t r = 0; r < rows; ++r) {
        if (!masks.Kept(at + r * s.steps)) before[r].fill(zero.data());
        h[r] = before[r][0];
      }
      Product(panels, packed[problem], n, rows, h, {x + at * inputs + unmixed, s.steps * inputs},
              {mixed.data(), s.mixed});
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t step = at + r * s.steps;
        Pointers<T, kStates> after = At<T>(states, step, n);
        if (masks.Valid(step)) {
          Pointers<const T, kTaken> taken;
          for (int k = 0; k < kTaken; ++k) {
            taken[k] = k * n < unmixed ? x + step * inputs + k * n
                                       : mixed.data() + r * s.mixed + k * n - unmixed;
          }
          Cell::Forward(n, taken, before[r], At<T>(activations, step, n), after);
        } else {
          for (int k = 0; k < kStates; ++k) std::copy_n(before[r][k], n, after[k]);
          for (T* active : At<T>(activations, step, n)) std::fill_n(active, n, T(0));
        }
        for (int k = 0; k < kStates; ++k) before[r][k] = after[k];
      }
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int k = 0; k < kStates; ++k) std::copy_n(before[r][k], n, last[k] + (begin + r) * n);
  });
}

// Steps from the last to the first; the gradients of the states are in dfirst, which those of the
// last states enter, and the gradient of W is added up from kPairs rows at a time.
template <typename Cell, typename T>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* W, const Masks& masks,
              const Pointers<const T, Cell::kStates>& first,
              const Pointers<const T, Cell::kStates>& states,
              const Pointers<const T, Cell::kActivations>& activations, const T* dh,
              const Pointers<const T, Cell::kStates>& dlast, T* dx, T* dW,
              const Pointers<T, Cell::kStates>& dfirst) {
  constexpr int kStates = Cell::kStates, kTaken = Cell::kTaken;
  const int64_t n = s.width, inputs = kTaken * n, unmixed = inputs - s.mixed;
  const Panels<T> panels(n), outer(s.mixed);
  const Groups groups(pool, s.problems, s.rows, s.Products(), kMostRows);
  std::vector<std::vector<T>> packed, totals(s.problems * groups.tasks);
  for (int64_t p = 0; p < s.problems; ++p)
    packed.push_back(Packed(panels, s.mixed, W + p * n * s.mixed, true));
  groups.ForEach(pool, [&](int64_t problem, int64_t task, int64_t row, int64_t rows) {
    std::vector<T>& total = totals[problem * groups.tasks + task];
    total.resize(n * outer.padded, T(0));
    const std::vector<T> zero(n, T(0));
    Pairs<T> pairs(n, outer, kPairs);
    pairs.Clear();
    const int64_t begin = problem * s.rows + row;
    Pointers<T, kStates> d = At<T>(dfirst, begin, n);
    for (int k = 0; k < kStates; ++k) std::copy_n(dlast[k] + begin * n, rows * n, d[k]);
    for (int64_t i = s.steps - 1; i >= 0; --i) {
      const int64_t at = begin * s.steps + s.Step(i);
      const T* mixed[kMostRows];
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t step = at + r * s.steps;
        T* taken = dx + step * inputs;
        mixed[r] = taken + unmixed;
        if (!masks.Valid(step)) {
          std::fill_n(taken, inputs, T(0));
          continue;
        }
        Pointers<const T, kStates> before;
        if (!masks.Kept(step)) {
          before.fill(zero.data());
        } else if (i == 0) {
          before = At<const T>(first, begin + r, n);
        } else {
          before = At<const T>(states, (begin + r) * s.steps + s.Step(i - 1), n);
        }
        Pointers<T, kTaken> dtaken;
        for (int k = 0; k < kTaken; ++k) dtaken[k] = taken + k * n;
        const Pointers<T, kStates> d_row = At<T>(d, r, n);
        for (int64_t j = 0; j < n; ++j) d_row[0][j] += dh[step * n + j];
        Cell::Backward(n, At<const T>(activations, step, n), before, At<const T>(states, step, n),
                       dtaken, d_row);
        if (masks.Kept(step)) pairs.Add(before[0], mixed[r]);
        if (pairs.count == pairs.most) {
          pairs.AddTo(total.data());
          pairs.Clear();
        }
      }
      Product<T>(panels, packed[problem], s.mixed, rows, mixed, {d[0], n}, {d[0], n});
      for (int64_t r = 0; r < rows; ++r) {
        if (masks.Kept(at + r * s.steps)) continue;
        for (T* gradient : At<T>(d, r, n)) std::fill_n(gradient, n, T(0));
      }
    }
    pairs.AddTo(total.data());
  });
  SumTasks(groups, totals, n, s.mixed, outer.padded, dW);
}

// Arrays whose number depends on the cell, taken one after another and checked.
class Others {
 public:
  Others(const ffi::RemainingArgs& arguments, const ffi::RemainingRets& results, Check& check)
      : arguments_(arguments), results_(results), check_(check) {}

  template <typename T, size_t kCount>
  Pointers<const T, kCount> Arguments(const char* name, std::initializer_list<int64_t> own) {
    Pointers<const T, kCount> pointers{};
    for (const T*& pointer : pointers) {
      auto x = arguments_.get<ffi::AnyBuffer>(argument_++);
      if (x.has_value()) pointer = Checked<T>(name, *x, own);
      else check_.Miss(name);
    }
    return pointers;
  }

  template <typename T, size_t kCount>
  Pointers<T, kCount> Results(const char* name, std::initializer_list<int64_t> own) {
    Pointers<T, kCount> pointers{};
    for (T*& pointer : pointers) {
      auto x = results_.get<ffi::AnyBuffer>(result_++);
      if (x.has_value()) pointer = Checked<T>(name, **x, own);
      else check_.Miss(name);
    }
    return pointers;
  }

 private:
  template <typename T>
  T* Checked(const char* name, const ffi::AnyBuffer& x, std::initializer_list<int64_t> own) {
    check_.Has(name, x, own);
    return static_cast<T*>(x.untyped_data());
  }

  const ffi::RemainingArgs& arguments_;
  const ffi::RemainingRets& results_;
  Check& check_;
  size_t argument_ = 0, result_ = 0;
};

struct Problem {
  Front front;
  Sizes sizes;

  // From dx or x and W, with three axes and two or more.
  Problem(const ffi::AnyBuffer& x, const ffi::AnyBuffer& W, bool reverse) : front(x, 3) {
    auto shape = x.dimensions(), matrix = W.dimensions();
    size_t last = shape.size() - 1;
    sizes = {front.count, shape[last - 2], shape[last - 1], matrix[matrix.size() - 2],
             matrix.back(), reverse};
  }

  static bool HasAxes(const ffi::AnyBuffer& x, const ffi::AnyBuffer& W) {
    return x.dimensions().size() >= 3 && W.dimensions().size() >= 2;
  }

  // A check of what all cells share. The mixed inputs are the last of those taken in.
  template <typename Cell>
  Check Checked(const char* name, const ffi::AnyBuffer& x, const ffi::AnyBuffer& W,
                const ffi::Buffer<ffi::PRED>& keep, const ffi::Buffer<ffi::PRED>& valid) const {
    Check check(x.element_type(), front);
    check.Has(name, x, {sizes.rows, sizes.steps, Cell::kTaken * sizes.width});
    check.Has("W", W, {sizes.width, std::min(sizes.mixed, Cell::kTaken * sizes.width)});
    check.HasMask("keep", keep, sizes.rows, sizes.steps);
    return check.HasMask("valid", valid, sizes.rows, sizes.steps);
  }
};

// Calls run(Cell()) for the cell of this name.
template <typename Run>
ffi::Error WithCell(std::string_view name, const Run& run) {
  if (name == "lstm") return run(Lstm());
  if (name == "gru") return run(Gru());
  if (name == "elman") return run(Elman());
  return ffi::Error::InvalidArgument("no such cell");
}

ffi::Error ForwardCall(ffi::ThreadPool pool, bool reverse, std::string_view cell, ffi::AnyBuffer x,
                       ffi::AnyBuffer W, ffi::Buffer<ffi::PRED> keep, ffi::Buffer<ffi::PRED> valid,
                       ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  if (!Problem::HasAxes(x, W)) return TooFewAxes("x or W");
  return WithCell(cell, [&](auto kind) {
    using Cell = decltype(kind);
    return WithType(x.element_type(), [&](auto zero) {
      using T = decltype(zero);
      const Problem problem(x, W, reverse);
      const Sizes& s = problem.sizes;
      Check check = problem.Checked<Cell>("x", x, W, keep, valid);
      Others others(arguments, results, check);
      const auto first = others.Arguments<T, Cell::kStates>("first", {s.rows, s.width});
      const auto last = others.Results<T, Cell::kStates>("last", {s.rows, s.width});
      const auto states = others.Results<T, Cell::kStates>("states", {s.rows, s.steps, s.width});
      const auto activations =
          others.Results<T, Cell::kActivations>("activations", {s.rows, s.steps, s.width});
      if (check.Result().failure()) return check.Result();
      Forward<Cell, T>(pool, s, x.reinterpret_data<T>(), W.reinterpret_data<T>(),
                       {MaskOf(keep), MaskOf(valid)}, first, last, states, activations);
      return ffi::Error::Success();
    });
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool reverse, std::string_view cell, ffi::AnyBuffer W,
                        ffi::Buffer<ffi::PRED> keep, ffi::Buffer<ffi::PRED> valid,
                        ffi::AnyBuffer dh, ffi::RemainingArgs arguments,
                        ffi::Result<ffi::AnyBuffer> dx, ffi::Result<ffi::AnyBuffer> dW,
                        ffi::RemainingRets results) {
  if (!Problem::HasAxes(*dx, W)) return TooFewAxes("dx or W");
  return WithCell(cell, [&](auto kind) {
    using Cell = decltype(kind);
    return WithType(dx->element_type(), [&](auto zero) {
      using T = decltype(zero);
      const Problem problem(*dx, W, reverse);
      const Sizes& s = problem.sizes;
      Check check = problem.Checked<Cell>("dx", *dx, W, keep, valid);
      check.Has("dW", *dW, {s.width, s.mixed}).Has("dh", dh, {s.rows, s.steps, s.width});
      Others others(arguments, results, check);
      const auto first = others.Arguments<T, Cell::kStates>("first", {s.rows, s.width});
      const auto states = others.Arguments<T, Cell::kStates>("states", {s.rows, s.steps, s.width});
      const auto activations =
          others.Arguments<T, Cell::kActivations>("activations", {s.rows, s.steps, s.width});
      const auto dlast = others.Arguments<T, Cell::kStates>("dlast", {s.rows, s.width});
      const auto dfirst = others.Results<T, Cell::kStates>("dfirst", {s.rows, s.width});
      if (check.Result().failure()) return check.Result();
      Backward<Cell, T>(pool, s, W.reinterpret_data<T>(), {MaskOf(keep), MaskOf(valid)}, first,
                        states, activations, dh.reinterpret_data<T>(), dlast,
                        dx->reinterpret_data<T>(), dW->reinterpret_data<T>(), dfirst);
      return ffi::Error::Success();
    });
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_gated_forward, ForwardCall, "reverse", "cell")
LRU_DEFINE_LOOP(lru_gated_backward, BackwardCall, "reverse", "cell")
