// One step of an elementwise recurrence, and what it adds to the gradient of its factor.

#ifndef LRU_SCAN_CPU_RECURRENCE_H_
#define LRU_SCAN_CPU_RECURRENCE_H_

#include <cstdint>

// re + i im of [2, N] arrays at hand; for real ones the second pointer is not read.
template <typename T, int Q, int P>
struct Step {
  // out = a h + b, or b alone where the previous state is dropped.
  static void Advance(int64_t n, int64_t stride, bool kept, const T* __restrict a, int64_t stride_a,
                      T* __restrict h, const T* b, T* out) {
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (P == 1) {
        h[i] = kept ? a[i] * h[i] + b[i] : b[i];
        out[i] = h[i];
      } else {
        T re = b[i], im = b[stride + i];
        if (kept) {
          T h_re = h[i], h_im = h[n + i];
          if constexpr (Q == 1) {
            re += a[i] * h_re;
            im += a[i] * h_im;
          } else {
            T a_re = a[i], a_im = a[stride_a + i];
            re += a_re * h_re - a_im * h_im;
            im += a_re * h_im + a_im * h_re;
          }
        }
        h[i] = out[i] = re;
        h[n + i] = out[stride + i] = im;
      }
    }
  }

  // terms (+)= db conj(h), its real part alone for a real a.
  template <bool kAdd>
  static void Correlate(int64_t n, const T* __restrict db, const T* __restrict h, int64_t stride,
                        T* __restrict terms, int64_t stride_terms) {
    for (int64_t i = 0; i < n; ++i) {
      T re = db[i] * h[i];
      if constexpr (P == 2) re += db[n + i] * h[stride + i];
      terms[i] = kAdd ? terms[i] + re : re;
      if constexpr (Q == 2) {
        T im = db[n + i] * h[i] - db[i] * h[stride + i];
        terms[stride_terms + i] = kAdd ? terms[stride_terms + i] + im : im;
      }
    }
  }
};

// A slice of a constant a, or of its conjugate, side by side.
template <typename T, int Q>
void Gather(const T* a, int64_t width, int64_t n, bool conjugate, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = a[i];
    if constexpr (Q == 2) out[n + i] = conjugate ? -a[width + i] : a[width + i];
  }
}

#endif  // LRU_SCAN_CPU_RECURRENCE_H_
