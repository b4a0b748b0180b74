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

#include "parallel.h"
#include "recurrence.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// A slice of N whose state and factors stay in the first-level cache.
constexpr int64_t kWidest = 1024;
// Slices are cut no finer than a few vector registers, tasks no smaller than waking a core pays.
constexpr int64_t kNarrowest = 32;
constexpr int64_t kElementsWorthAThread = 1 << 15;
// Gradients of a constant a are summed over so many steps before they join the total: the error
// of a sum grows with the number of its terms.
constexpr int64_t kPartialSum = 256;

struct Sizes {
  int64_t rows;          // all axes in front of T
  int64_t rows_of_a;     // consecutive rows that share one constant a
  int64_t steps, width;  // T, N
  bool varying, reverse;
};

// Calls run(row, first, last) for slices [first, last) of N of every row.
template <typename Run>
void OverSlices(ffi::ThreadPool& pool, const Sizes& sizes, int64_t parts, const Run& run) {
  int64_t elements = sizes.rows * sizes.steps * parts * sizes.width;
  int64_t threads = std::clamp<int64_t>(elements / kElementsWorthAThread, 1, pool.num_threads());
  int64_t slices = (sizes.width + kWidest - 1) / kWidest;
  if (sizes.rows * slices < threads) {
    slices = std::min((threads + sizes.rows - 1) / sizes.rows,
                      std::max<int64_t>(sizes.width / kNarrowest, 1));
  }
  InParallel(pool, sizes.rows * slices, threads, [&](int64_t task) {
    int64_t row = task / slices, slice = task % slices;
    run(row, sizes.width * slice / slices, sizes.width * (slice + 1) / slices);
  });
}

template <typename T, int Q, int P>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* b, const T* h0,
             const bool* keep, T* out) {
  OverSlices(pool, s, P, [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first;
    std::vector<T> h(P * n), fixed(Q * n);
    for (int p = 0; p < P; ++p)
      std::copy_n(h0 + (row * P + p) * s.width + first, n, h.data() + p * n);
    if (!s.varying)
      Gather<T, Q>(a + row / s.rows_of_a * Q * s.width + first, s.width, n, false, fixed.data());
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t at = row * s.steps + (s.reverse ? s.steps - 1 - i : i);
      const T* a_t = s.varying ? a + at * Q * s.width + first : fixed.data();
      Step<T, Q, P>::Advance(n, s.width, !keep || keep[at], a_t, s.varying ? s.width : n, h.data(),
                             b + at * P * s.width + first, out + at * P * s.width + first);
    }
  });
}

// One loop against the scan: db_t = g_t + conj(a_next) db_next, and beside it da_t = db_t
// conj(h_previous), summed over the steps of a row where a is constant: da is [..., B, Q, N] then.
template <typename T, int Q, int P>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* g, const T* h,
              const T* h0, const bool* keep, T* db, T* da) {
  OverSlices(pool, s, P, [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first, width = s.width;
    std::vector<T> state(P * n, T(0)), conj(Q * n), partial(Q * n, T(0)), total(Q * n, T(0));
    if (!s.varying)
      Gather<T, Q>(a + row / s.rows_of_a * Q * width + first, width, n, true, conj.data());
    bool keep_next = false;
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t t = s.reverse ? i : s.steps - 1 - i;
      int64_t at = row * s.steps + t;
      Step<T, Q, P>::Advance(n, width, keep_next, conj.data(), n, state.data(),
                             g + at * P * width + first, db + at * P * width + first);
      keep_next = !keep || keep[at];
      bool start = i == s.steps - 1;
      const T* before = start ? h0 + row * P * width + first
                              : h + (at + (s.reverse ? 1 : -1)) * P * width + first;
      if (s.varying) {
        T* da_t = da + at * Q * width + first;
        if (keep_next) {
          Step<T, Q, P>::template Correlate<false>(n, state.data(), before, width, da_t, width);
        } else {
          for (int q = 0; q < Q; ++q) std::fill_n(da_t + q * width, n, T(0));
        }
        Gather<T, Q>(a + at * Q * width + first, width, n, true, conj.data());
      } else {
        if (keep_next)
          Step<T, Q, P>::template Correlate<true>(n, state.data(), before, width, partial.data(), n);
        if (start || i % kPartialSum == kPartialSum - 1) {
          for (int64_t j = 0; j < Q * n; ++j) total[j] += partial[j];
          std::fill(partial.begin(), partial.end(), T(0));
        }
      }
    }
    if (!s.varying)
      for (int q = 0; q < Q; ++q)
        std::copy_n(total.data() + q * n, n, da + (row * Q + q) * width + first);
  });
}

Sizes SizesOf(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, bool reverse) {
  auto shape = b.dimensions(), shape_of_a = a.dimensions();
  size_t last = shape.size() - 1;
  Sizes s;
  s.steps = shape[last - 2];
  s.width = shape[last];
  s.varying = shape_of_a.size() == shape.size();
  s.reverse = reverse;
  s.rows = 1;
  for (size_t i = 0; i + 3 < shape.size(); ++i) s.rows *= shape[i];
  s.rows_of_a = shape[last - 3];
  return s;
}

// Calls run(T(), integral_constant Q, integral_constant P) for the type and the parts at hand.
template <typename T, typename Run>
ffi::Error WithParts(int64_t q, int64_t p, const Run& run) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  if (q == 1 && p == 1) return run(T(), One(), One());
  if (q == 1 && p == 2) return run(T(), One(), Two());
  if (q == 2 && p == 2) return run(T(), Two(), Two());
  return ffi::Error::InvalidArgument("a has more parts than b");
}

template <typename Run>
ffi::Error Dispatch(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, const Run& run) {
  int64_t q = a.dimensions()[a.dimensions().size() - 2];
  int64_t p = b.dimensions()[b.dimensions().size() - 2];
  if (b.element_type() == ffi::F32) return WithParts<float>(q, p, run);
  if (b.element_type() == ffi::F64) return WithParts<double>(q, p, run);
  return ffi::Error::InvalidArgument("b is neither float32 nor float64");
}

const bool* MaskOf(const ffi::Buffer<ffi::PRED>& keep) {
  return keep.element_count() == 0 ? nullptr : keep.typed_data();
}

ffi::Error ForwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer b,
                       ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Result<ffi::AnyBuffer> h) {
  return Dispatch(a, b, [&](auto zero, auto q, auto p) {
    using T = decltype(zero);
    Forward<T, decltype(q)::value, decltype(p)::value>(
        pool, SizesOf(a, b, reverse), a.reinterpret_data<T>(), b.reinterpret_data<T>(),
        h0.reinterpret_data<T>(), MaskOf(keep), h->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer g,
                        ffi::AnyBuffer h, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Result<ffi::AnyBuffer> db, ffi::Result<ffi::AnyBuffer> da) {
  return Dispatch(a, g, [&](auto zero, auto q, auto p) {
    using T = decltype(zero);
    Backward<T, decltype(q)::value, decltype(p)::value>(
        pool, SizesOf(a, g, reverse), a.reinterpret_data<T>(), g.reinterpret_data<T>(),
        h.reinterpret_data<T>(), h0.reinterpret_data<T>(), MaskOf(keep),
        db->reinterpret_data<T>(), da->reinterpret_data<T>());
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
