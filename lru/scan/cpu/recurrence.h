// Steps of an elementwise recurrence, and what they add to the gradient of its factor.

#ifndef LRU_SCAN_CPU_RECURRENCE_H_
#define LRU_SCAN_CPU_RECURRENCE_H_

#include <algorithm>
#include <cstdint>

#include "vectors.h"

// Steps of one row in the order in which they follow one another. What belongs to a step is [parts,
// width], re above im, and lies `stride` numbers after that of the step before: negative against time.
template <typename T>
struct Steps {
  int64_t count;
  const bool* kept;  // [count]: whether the state before a step counts
  int64_t width;
  const T* a = nullptr;
  int64_t stride_a = 0;  // of a and, where that varies, da; is not read for a constant a
  const T* b = nullptr;
  T* out = nullptr;  // may be b
  int64_t stride = 0;
  T* state = nullptr;  // [P, columns], before the first step and then after the last
  // For gradients, whose state goes against the scan, there is kept[count] too: kept[i] belongs to the
  // state of the loop, and kept[i + 1] to that of the scan before the same step, which is here.
  const T* before = nullptr;
  int64_t stride_before = 0;
  T* da = nullptr;  // for a constant a a sum [Q, columns]
};

// kVectors vectors of columns, whose state, constant a and sums stay in registers:
//   state = a state + b, or b alone where the state before does not count, and out = state.
// For gradients the factor is the conjugate of the a of the step before, and
//   da = or += state conj(before), the real part alone for a real a.
// Q and P are the parts of a and of b.
template <typename T, int Q, int P, bool kVarying, bool kGradient, int kBytes, int kVectors>
void AdvanceColumns(const Steps<T>& s, int64_t n, int64_t first) {
  using Part = Vector<T, kBytes>;
  using V = typename Part::Type;
  constexpr bool kSum = kGradient && !kVarying;
  V a[Q][kVectors], state[P][kVectors], sum[Q][kVectors];
  auto place = [&](int part, int c, int64_t width) {
    return part * width + first + c * Part::kLanes;
  };
  LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
    for (int p = 0; p < P; ++p) state[p][c] = Part::Load(s.state + place(p, c, n));
    for (int q = 0; q < Q; ++q) {
      if constexpr (!kVarying) a[q][c] = Part::Load(s.a + place(q, c, s.width));
      if constexpr (kSum) sum[q][c] = Part::Load(s.da + place(q, c, n));
    }
  }
  for (int64_t i = 0; i < s.count; ++i) {
    const T* b = s.b + i * s.stride;
    T* out = s.out + i * s.stride;
    if (s.kept[i]) {
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        if constexpr (kVarying) {
          const T* a_t = s.a + (kGradient ? i - 1 : i) * s.stride_a;
          for (int q = 0; q < Q; ++q) a[q][c] = Part::Load(a_t + place(q, c, s.width));
        }
        V re = Part::Load(b + place(0, c, s.width)) + a[0][c] * state[0][c];
        if constexpr (P == 2) {
          V im = Part::Load(b + place(1, c, s.width)) + a[0][c] * state[1][c];
          if constexpr (Q == 2) {
            V factor = kGradient ? -a[1][c] : a[1][c];
            re -= factor * state[1][c];
            im += factor * state[0][c];
          }
          state[1][c] = im;
        }
        state[0][c] = re;
      }
    } else {
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        for (int p = 0; p < P; ++p) state[p][c] = Part::Load(b + place(p, c, s.width));
      }
    }
    LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
      for (int p = 0; p < P; ++p) Part::Store(state[p][c], out + place(p, c, s.width));
    }
    if constexpr (kGradient) {
      const T* before = s.before + i * s.stride_before;
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        V terms[Q] = {};
        if (s.kept[i + 1]) {
          V re = Part::Load(before + place(0, c, s.width));
          terms[0] = state[0][c] * re;
          if constexpr (P == 2) {
            V im = Part::Load(before + place(1, c, s.width));
            terms[0] += state[1][c] * im;
            if constexpr (Q == 2) terms[1] = state[1][c] * re - state[0][c] * im;
          }
        }
        for (int q = 0; q < Q; ++q) {
          if constexpr (kSum) sum[q][c] += terms[q];
          if constexpr (kVarying) {
            Part::Store(terms[q], s.da + i * s.stride_a + place(q, c, s.width));
          }
        }
      }
    }
  }
  LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
    for (int p = 0; p < P; ++p) Part::Store(state[p][c], s.state + place(p, c, n));
    if constexpr (kSum) {
      for (int q = 0; q < Q; ++q) Part::Store(sum[q][c], s.da + place(q, c, n));
    }
  }
}

// All n columns from `first` on, in blocks that are the narrower the fewer are left. Complex a, state
// and sums of kVectors vectors take six registers each, and two are left for what passes through.
template <typename T, int Q, int P, bool kVarying, bool kGradient, int kBytes = kVectorBytes,
          int kVectors = kVectorRegisters / 8>
void Advance(const Steps<T>& s, int64_t n, int64_t first = 0) {
  constexpr int kColumns = kVectors * Vector<T, kBytes>::kLanes;
  for (; first + kColumns <= n; first += kColumns)
    AdvanceColumns<T, Q, P, kVarying, kGradient, kBytes, kVectors>(s, n, first);
  if constexpr (kColumns > 1) {
    constexpr int kNarrower = std::max<int>(kBytes / 4, sizeof(T));
    if (first < n)
      Advance<T, Q, P, kVarying, kGradient, kVectors == 1 ? kNarrower : kBytes, 1>(s, n, first);
  }
}

#endif  // LRU_SCAN_CPU_RECURRENCE_H_
