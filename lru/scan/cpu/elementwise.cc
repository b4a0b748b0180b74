// Nonlinear recurrences of units by themselves (lru/scan/elementwise.py) on a CPU: one pass over
// memory in each direction, on all cores.
//
// Arrays are row-major, with any axes that vmap put in front: the parts of a step side by side in x
// [..., B, T, G N]; the vector u [..., N]; h0 [..., B, N]; h [..., B, T, N]; keep and valid
// [..., B, T], or no elements where they are true everywhere. Where keep is false the previous state
// is dropped; where valid is false the state passes.
//
// With `reverse` time runs backwards, and the previous state is that of the step behind.

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "activations.h"
#include "buffers.h"
#include "loops.h"
#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Tasks are no smaller than waking a core pays.
constexpr int64_t kElementsWorthAThread = 1 << 14;

// A step takes in kParts numbers x. Both functions are of one unit:
//   Next: the state after.
//   Slopes: from the states before and after, the derivatives of that after in x and in s, which is
//   u times the state before, and returns that in the state before beside s.
struct Relu {
  static constexpr int kParts = 1;
  template <typename T>
  static T Next(const T* x, T u, T h) {
    T s = x[0] + u * h;
    return s > T(0) ? s : T(0);
  }
  template <typename T>
  static T Slopes(const T*, T, T, T after, T* in_x, T& in_s) {
    in_x[0] = in_s = after > T(0) ? T(1) : T(0);
    return T(0);
  }
};

struct TanhOf {
  static constexpr int kParts = 1;
  template <typename T>
  static T Next(const T* x, T u, T h) {
    return Tanh(x[0] + u * h);
  }
  template <typename T>
  static T Slopes(const T*, T, T, T after, T* in_x, T& in_s) {
    in_x[0] = in_s = T(1) - after * after;
    return T(0);
  }
};

struct Sru {
  static constexpr int kParts = 2;
  template <typename T>
  static T Next(const T* x, T u, T c) {
    T f = Sigmoid(x[1] + u * c);
    return f * c + (T(1) - f) * x[0];
  }
  template <typename T>
  static T Slopes(const T* x, T u, T before, T, T* in_x, T& in_s) {
    T f = Sigmoid(x[1] + u * before);
    in_x[0] = T(1) - f;
    in_x[1] = in_s = (before - x[0]) * f * (T(1) - f);
    return f;
  }
};

struct Sizes {
  int64_t rows;       // all axes in front of T
  int64_t rows_of_u;  // consecutive rows that share one u
  int64_t steps, width;  // T, N

  int64_t Threads() const { return rows * steps * width / kElementsWorthAThread; }
};

template <typename Cell, typename T>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* x, const T* u, const T* h0,
             const bool* keep, const bool* valid, bool reverse, T* h) {
  constexpr int kParts = Cell::kParts;
  OverSlices(pool, s.rows, s.width, s.Threads(), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first;
    const T* u_row = u + row / s.rows_of_u * s.width + first;
    std::vector<T> state(h0 + row * s.width + first, h0 + row * s.width + last);
    for (int64_t i = 0; i < s.steps; ++i) {
      const int64_t step = row * s.steps + (reverse ? s.steps - 1 - i : i);
      T *held = state.data(), *h_t = h + step * s.width + first;
      if (valid && !valid[step]) {
        std::copy_n(held, n, h_t);
        continue;
      }
      if (keep && !keep[step]) std::fill_n(held, n, T(0));
      const T* x_t = x + step * kParts * s.width + first;
#pragma GCC ivdep
      for (int64_t j = 0; j < n; ++j) {
        T taken[kParts];
        for (int p = 0; p < kParts; ++p) taken[p] = x_t[p * s.width + j];
        held[j] = h_t[j] = Cell::Next(taken, u_row[j], held[j]);
      }
    }
  });
}

// Beside dx and the gradient of h0: that of u by row [..., B, N].
template <typename Cell, typename T>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* x, const T* u, const T* h0,
              const bool* keep, const bool* valid, const T* h, const T* dh, bool reverse, T* dx,
              T* du, T* dh0) {
  constexpr int kParts = Cell::kParts;
  OverSlices(pool, s.rows, s.width, s.Threads(), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first, start = row * s.steps + (reverse ? s.steps - 1 : 0);
    const int64_t back = reverse ? 1 : -1;
    const T* u_row = u + row / s.rows_of_u * s.width + first;
    std::vector<T> state(n, T(0)), zeros(n, T(0)), sums(n, T(0)), totals(n, T(0));
    for (int64_t left = s.steps - 1; left >= 0; --left) {
      const int64_t step = start - back * left;
      const T *x_t = x + step * kParts * s.width + first, *dh_t = dh + step * s.width + first;
      T *dx_t = dx + step * kParts * s.width + first, *d = state.data(), *sum = sums.data();
      if (valid && !valid[step]) {
        for (int p = 0; p < kParts; ++p) std::fill_n(dx_t + p * s.width, n, T(0));
        for (int64_t j = 0; j < n; ++j) d[j] += dh_t[j];
      } else {
        const bool kept = !keep || keep[step];
        const T factor = kept ? T(1) : T(0);
        const T* before = !kept           ? zeros.data()
                          : step == start ? h0 + row * s.width + first
                                          : h + (step + back) * s.width + first;
        const T* after = h + step * s.width + first;
#pragma GCC ivdep
        for (int64_t j = 0; j < n; ++j) {
          T taken[kParts], in_x[kParts], in_s;
          for (int p = 0; p < kParts; ++p) taken[p] = x_t[p * s.width + j];
          T beside = Cell::Slopes(taken, u_row[j], before[j], after[j], in_x, in_s);
          T g = d[j] + dh_t[j];
          for (int p = 0; p < kParts; ++p) dx_t[p * s.width + j] = g * in_x[p];
          sum[j] += g * in_s * before[j];
          d[j] = factor * (g * (beside + in_s * u_row[j]));
        }
      }
      if (left % kPartialSum == 0) {
        for (int64_t j = 0; j < n; ++j) totals[j] += sum[j];
        std::fill(sums.begin(), sums.end(), T(0));
      }
    }
    std::copy(totals.begin(), totals.end(), du + row * s.width + first);
    std::copy(state.begin(), state.end(), dh0 + row * s.width + first);
  });
}

// Calls run(cell) for a name.
template <typename Run>
ffi::Error WithCell(std::string_view name, const Run& run) {
  if (name == "relu") return run(Relu());
  if (name == "tanh") return run(TanhOf());
  if (name == "sru") return run(Sru());
  return ffi::Error::InvalidArgument("there is no such cell");
}

struct Problem {
  Front front;
  Sizes sizes;
  int64_t rows;  // B

  // From h, [..., B, T, N], with three axes or more.
  explicit Problem(const ffi::AnyBuffer& h) : front(h, 3) {
    auto shape = h.dimensions();
    const size_t last = shape.size() - 1;
    rows = shape[last - 2];
    sizes = {front.count * rows, rows, shape[last - 1], shape[last]};
  }

  Check CheckedArguments(int parts, const ffi::AnyBuffer& x, const ffi::AnyBuffer& u,
                         const ffi::AnyBuffer& h0, const ffi::Buffer<ffi::PRED>& keep,
                         const ffi::Buffer<ffi::PRED>& valid, const ffi::AnyBuffer& h) const {
    Check check(x.element_type(), front);
    check.Has("x", x, {rows, sizes.steps, parts * sizes.width}).Has("u", u, {sizes.width});
    check.Has("h0", h0, {rows, sizes.width}).Has("h", h, {rows, sizes.steps, sizes.width});
    return check.HasMask("keep", keep, rows, sizes.steps).HasMask("valid", valid, rows, sizes.steps);
  }
};

ffi::Error ForwardCall(ffi::ThreadPool pool, std::string_view cell, bool reverse, ffi::AnyBuffer x,
                       ffi::AnyBuffer u, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Buffer<ffi::PRED> valid, ffi::Result<ffi::AnyBuffer> h) {
  if (h->dimensions().size() < 3) return TooFewAxes("h");
  Problem problem(*h);
  return WithCell(cell, [&](auto kind) {
    using Cell = decltype(kind);
    Check check = problem.CheckedArguments(Cell::kParts, x, u, h0, keep, valid, *h);
    if (check.Result().failure()) return check.Result();
    return WithType(x.element_type(), [&](auto zero) {
      using T = decltype(zero);
      Forward<Cell, T>(pool, problem.sizes, NumbersOf<T>(x), NumbersOf<T>(u), NumbersOf<T>(h0),
                       MaskOf(keep), MaskOf(valid), reverse, NumbersOf<T>(*h));
      return ffi::Error::Success();
    });
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, std::string_view cell, bool reverse, ffi::AnyBuffer x,
                        ffi::AnyBuffer u, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Buffer<ffi::PRED> valid, ffi::AnyBuffer h, ffi::AnyBuffer dh,
                        ffi::Result<ffi::AnyBuffer> dx, ffi::Result<ffi::AnyBuffer> du,
                        ffi::Result<ffi::AnyBuffer> dh0) {
  if (h.dimensions().size() < 3) return TooFewAxes("h");
  Problem problem(h);
  const Sizes& s = problem.sizes;
  return WithCell(cell, [&](auto kind) {
    using Cell = decltype(kind);
    Check check = problem.CheckedArguments(Cell::kParts, x, u, h0, keep, valid, h);
    check.Has("dh", dh, {problem.rows, s.steps, s.width});
    check.Has("dx", *dx, {problem.rows, s.steps, Cell::kParts * s.width});
    check.Has("du", *du, {problem.rows, s.width}).Has("dh0", *dh0, {problem.rows, s.width});
    if (check.Result().failure()) return check.Result();
    return WithType(x.element_type(), [&](auto zero) {
      using T = decltype(zero);
      Backward<Cell, T>(pool, s, NumbersOf<T>(x), NumbersOf<T>(u), NumbersOf<T>(h0), MaskOf(keep),
                        MaskOf(valid), NumbersOf<T>(h), NumbersOf<T>(dh), reverse,
                        NumbersOf<T>(*dx), NumbersOf<T>(*du), NumbersOf<T>(*dh0));
      return ffi::Error::Success();
    });
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_elementwise_forward, ForwardCall, "cell", "reverse")
LRU_DEFINE_LOOP(lru_elementwise_backward, BackwardCall, "cell", "reverse")
