// Quasi-recurrent pooling with an output gate (lru/scan/pooling.py) on a CPU: activations,
// recurrence and gate in one pass over memory in each direction, on all cores.
//
//   a = sigma(f), c_t = a_t c_{t-1} + (1 - a_t) tanh(z_t), h_t = sigma(o_t) c_t
//
// Arrays are row-major, with any axes that vmap put in front: z, f and o side by side in x
// [..., B T, 3 N], before the bias [..., 3 N]; c0 [..., B, N]; keep and valid [..., B, T], or no
// elements where they are true everywhere. Where keep is false the previous state is dropped; where
// valid is false the state passes and h is zero.
//
// With `reverse` time runs backwards, and the previous state is that of the step behind.
//
// The forward call hands x through, in place and as it is, and the backward call writes the gradient
// over it: with the same array as an argument of both, the compiler would copy it for the second.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "buffers.h"
#include "loops.h"
#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Tasks are no smaller than waking a core pays.
constexpr int64_t kElementsWorthAThread = 1 << 13;

struct Sizes {
  int64_t rows;          // all axes in front of T
  int64_t rows_of_bias;  // consecutive rows that share one bias
  int64_t steps, width;  // T, N

  int64_t Threads() const { return rows * steps * width / kElementsWorthAThread; }
};

template <typename T>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* x, const T* bias, const T* c0,
             const bool* keep, const bool* valid, bool reverse, T* c, T* h) {
  OverSlices(pool, s.rows, s.width, s.Threads(), [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first;
    const T* bias_z = bias + row / s.rows_of_bias * 3 * s.width + first;
    const T *bias_f = bias_z + s.width, *bias_o = bias_f + s.width;
    std::vector<T> state(c0 + row * s.width + first, c0 + row * s.width + last);
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t step = row * s.steps + (reverse ? s.steps - 1 - i : i);
      T *held = state.data(), *c_t = c + step * s.width + first, *h_t = h + step * s.width + first;
      if (valid && !valid[step]) {
        std::copy_n(held, n, c_t);
        std::fill_n(h_t, n, T(0));
        continue;
      }
      if (keep && !keep[step]) std::fill_n(held, n, T(0));
      const T* z = x + step * 3 * s.width + first;
      const T *f = z + s.width, *o = f + s.width;
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        T a = Sigmoid(f[i] + bias_f[i]);
        T now = a * held[i] + (T(1) - a) * Tanh(z[i] + bias_z[i]);
        held[i] = c_t[i] = now;
        h_t[i] = Sigmoid(o[i] + bias_o[i]) * now;
      }
    }
  });
}

// Beside dx, which may be x, and the gradient of c0: that of the bias by row [..., B, 3 N].
template <typename T>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* x, const T* bias, const T* c0,
              const bool* keep, const bool* valid, const T* c, const T* dh, const T* dlast,
              bool reverse, T* dx, T* dbias, T* dc0) {
  OverSlices(pool, s.rows, s.width, s.Threads(), [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first, start = row * s.steps + (reverse ? s.steps - 1 : 0);
    const int64_t back = reverse ? 1 : -1;
    const T* bias_z = bias + row / s.rows_of_bias * 3 * s.width + first;
    const T *bias_f = bias_z + s.width, *bias_o = bias_f + s.width;
    std::vector<T> state(dlast + row * s.width + first, dlast + row * s.width + last);
    std::vector<T> zeros(n, T(0)), sums(3 * n, T(0)), totals(3 * n, T(0));
    for (int64_t left = s.steps - 1; left >= 0; --left) {
      int64_t step = start - back * left;
      const T* z = x + step * 3 * s.width + first;
      const T *f = z + s.width, *o = f + s.width;
      T* dz = dx + step * 3 * s.width + first;
      T *df = dz + s.width, *dgate = df + s.width;
      if (valid && !valid[step]) {
        for (T* d : {dz, df, dgate}) std::fill_n(d, n, T(0));
      } else {
        bool kept = !keep || keep[step];
        T factor = kept ? T(1) : T(0);
        const T* before = !kept           ? zeros.data()
                          : step == start ? c0 + row * s.width + first
                                          : c + (step + back) * s.width + first;
        const T *c_t = c + step * s.width + first, *dh_t = dh + step * s.width + first;
        T *dc = state.data(), *sum_z = sums.data(), *sum_f = sum_z + n, *sum_o = sum_f + n;
        // Where dx is x, each place is read before it is written.
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) {
          T candidate = Tanh(z[i] + bias_z[i]);
          T a = Sigmoid(f[i] + bias_f[i]);
          T gate = Sigmoid(o[i] + bias_o[i]);
          T g = dc[i] + dh_t[i] * gate;
          T to_z = g * (T(1) - a) * (T(1) - candidate * candidate);
          T to_f = g * (before[i] - candidate) * (a * (T(1) - a));
          T to_o = dh_t[i] * c_t[i] * (gate * (T(1) - gate));
          dc[i] = factor * (g * a);
          sum_z[i] += to_z;
          sum_f[i] += to_f;
          sum_o[i] += to_o;
          dz[i] = to_z;
          df[i] = to_f;
          dgate[i] = to_o;
        }
      }
      if (left % kPartialSum == 0) {
        for (int64_t i = 0; i < 3 * n; ++i) totals[i] += sums[i];
        std::fill(sums.begin(), sums.end(), T(0));
      }
    }
    for (int gate = 0; gate < 3; ++gate)
      std::copy_n(totals.data() + gate * n, n, dbias + (row * 3 + gate) * s.width + first);
    std::copy(state.begin(), state.end(), dc0 + row * s.width + first);
  });
}

struct Problem {
  Front front;
  Sizes sizes;
  int64_t rows;  // B

  // From c, [..., B, T, N], with three axes or more.
  explicit Problem(const ffi::AnyBuffer& c) : front(c, 3) {
    auto shape = c.dimensions();
    size_t last = shape.size() - 1;
    rows = shape[last - 2];
    sizes = {front.count * rows, rows, shape[last - 1], shape[last]};
  }

  Check CheckedArguments(const ffi::AnyBuffer& x, const ffi::AnyBuffer& bias,
                         const ffi::AnyBuffer& c0, const ffi::Buffer<ffi::PRED>& keep,
                         const ffi::Buffer<ffi::PRED>& valid) const {
    Check check(x.element_type(), front);
    Inputs(check, "x", x).Has("bias", bias, {3 * sizes.width});
    check.Has("c0", c0, {rows, sizes.width});
    return check.HasMask("keep", keep, rows, sizes.steps).HasMask("valid", valid, rows, sizes.steps);
  }

  Check& Inputs(Check& check, const char* name, const ffi::AnyBuffer& x) const {
    return check.Has(name, x, {rows * sizes.steps, 3 * sizes.width});
  }

  Check& Sequence(Check& check, const char* name, const ffi::AnyBuffer& h) const {
    return check.Has(name, h, {rows, sizes.steps, sizes.width});
  }
};

ffi::Error ForwardCall(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer bias,
                       ffi::AnyBuffer c0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Buffer<ffi::PRED> valid, bool reverse,
                       ffi::Result<ffi::AnyBuffer> same_x,
                       ffi::Result<ffi::AnyBuffer> c, ffi::Result<ffi::AnyBuffer> h) {
  if (c->dimensions().size() < 3) return TooFewAxes("c");
  Problem problem(*c);
  Check check = problem.CheckedArguments(x, bias, c0, keep, valid);
  problem.Inputs(check, "same_x", *same_x);
  problem.Sequence(problem.Sequence(check, "c", *c), "h", *h);
  if (check.Result().failure()) return check.Result();
  return WithType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Forward<T>(pool, problem.sizes, x.reinterpret_data<T>(), bias.reinterpret_data<T>(),
               c0.reinterpret_data<T>(), MaskOf(keep), MaskOf(valid), reverse,
               c->reinterpret_data<T>(), h->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer bias,
                        ffi::AnyBuffer c0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Buffer<ffi::PRED> valid, ffi::AnyBuffer c, ffi::AnyBuffer dh,
                        ffi::AnyBuffer dlast, bool reverse, ffi::Result<ffi::AnyBuffer> dx,
                        ffi::Result<ffi::AnyBuffer> dbias, ffi::Result<ffi::AnyBuffer> dc0) {
  if (c.dimensions().size() < 3) return TooFewAxes("c");
  Problem problem(c);
  int64_t rows = problem.rows, width = problem.sizes.width;
  Check check = problem.CheckedArguments(x, bias, c0, keep, valid);
  problem.Sequence(problem.Sequence(check, "c", c), "dh", dh).Has("dlast", dlast, {rows, width});
  problem.Inputs(check, "dx", *dx).Has("dbias", *dbias, {rows, 3 * width});
  check.Has("dc0", *dc0, {rows, width});
  if (check.Result().failure()) return check.Result();
  return WithType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Backward<T>(pool, problem.sizes, x.reinterpret_data<T>(), bias.reinterpret_data<T>(),
                c0.reinterpret_data<T>(), MaskOf(keep), MaskOf(valid), c.reinterpret_data<T>(),
                dh.reinterpret_data<T>(), dlast.reinterpret_data<T>(), reverse,
                dx->reinterpret_data<T>(), dbias->reinterpret_data<T>(), dc0->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_pooling_forward, ForwardCall, "reverse")
LRU_DEFINE_LOOP(lru_pooling_backward, BackwardCall, "reverse")
