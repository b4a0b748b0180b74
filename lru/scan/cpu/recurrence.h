// Steps of an elementwise recurrence, and what they add to the gradient of its factor.

#ifndef LRU_SCAN_CPU_RECURRENCE_H_
#define LRU_SCAN_CPU_RECURRENCE_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "vectors.h"

// Numbers of P parts in rows of their own, [P, width], re above im: their factors have Q <= P parts,
// or are real matrices, Q = 4 parts column after column.
// Gradients are those of the pairs of real numbers, so the factor of a gradient is conj(a), or a
// transposed.
template <int kQ, int kP>
struct Parts {
  static constexpr int Q = kQ, P = kP, kPerColumnOfA = 1, kPerColumnOfB = 1, kNarrowest = 1;

  template <typename T, int kBytes>
  struct Block {
    using Lanes = Vector<T, kBytes>;
    using V = typename Lanes::Type;
    static constexpr int kColumns = Lanes::kLanes;
    struct Factor { V part[Q]; };
    struct Number { V part[P]; };
    struct Sum { V part[Q]; };

    static Number Load(const T* x, int64_t width) {
      Number h;
      for (int p = 0; p < P; ++p) h.part[p] = Lanes::Load(x + p * width);
      return h;
    }
    static void Store(const Number& h, T* x, int64_t width) {
      for (int p = 0; p < P; ++p) Lanes::Store(h.part[p], x + p * width);
    }
    static Factor LoadFactor(const T* x, int64_t width, bool gradient) {
      Factor a;
      for (int q = 0; q < Q; ++q) a.part[q] = Lanes::Load(x + q * width);
      if constexpr (Q == 2) a.part[1] = gradient ? -a.part[1] : a.part[1];
      if constexpr (Q == 4)
        if (gradient) std::swap(a.part[1], a.part[2]);
      return a;
    }
    static Number Next(const Factor& a, const Number& h, const Number& b) {
      Number next;
      for (int p = 0; p < P; ++p) next.part[p] = b.part[p] + a.part[0] * h.part[p];
      if constexpr (Q == 2) {
        next.part[0] -= a.part[1] * h.part[1];
        next.part[1] += a.part[1] * h.part[0];
      }
      if constexpr (Q == 4) {
        next.part[0] += a.part[2] * h.part[1];
        next.part[1] = b.part[1] + a.part[1] * h.part[0] + a.part[3] * h.part[1];
      }
      return next;
    }
    // sum += g conj(h), or g h^T
    static void Add(const Number& g, const Number& h, Sum& sum) {
      if constexpr (Q == 4) {
        for (int q = 0; q < Q; ++q) sum.part[q] += g.part[q % 2] * h.part[q / 2];
        return;
      }
      for (int p = 0; p < P; ++p) sum.part[0] += g.part[p] * h.part[p];
      if constexpr (Q == 2) sum.part[1] += g.part[1] * h.part[0] - g.part[0] * h.part[1];
    }
    template <bool kOnTop>
    static void StoreSum(const Sum& sum, T* x, int64_t width) {
      for (int q = 0; q < Q; ++q) {
        V total = sum.part[q];
        if constexpr (kOnTop) total += Lanes::Load(x + q * width);
        Lanes::Store(total, x + q * width);
      }
    }
  };
};

// Complex numbers as they are, re beside im. Gradients are JAX's of complex arrays, the conjugates of
// those of the pairs: nothing is conjugated on the way.
struct Complex {
  static constexpr int Q = 2, P = 2, kPerColumnOfA = 2, kPerColumnOfB = 2, kNarrowest = 2;

  template <typename T, int kBytes>
  struct Block {
    using Lanes = Vector<T, kBytes>;
    using V = typename Lanes::Type;
    static constexpr int kColumns = Lanes::kLanes / 2;
    struct Factor { V re, im; };  // each twice; im with a minus for the real part of a product
    struct Number { V z; };
    struct Sum { V straight, crossed; };

    static Number Load(const T* x, int64_t) { return {Lanes::Load(x)}; }
    static void Store(const Number& h, T* x, int64_t) { Lanes::Store(h.z, x); }
    static V Swap(const V& z) {
      return Lanes::Shuffle(z, z, [](int i) { return i ^ 1; });
    }
    // The even lanes of v and the odd ones of w.
    static V Blend(const V& v, const V& w) {
      return Lanes::Shuffle(v, w, [](int i) { return i % 2 * Lanes::kLanes + i; });
    }
    static Factor LoadFactor(const T* x, int64_t, bool) {
      V z = Lanes::Load(x), swapped = Swap(z);
      return {Blend(z, swapped), Blend(-swapped, z)};
    }
    static Number Next(const Factor& a, const Number& h, const Number& b) {
      return {b.z + a.re * h.z + a.im * Swap(h.z)};
    }
    // sum += g h, in terms that are put together when they are stored
    static void Add(const Number& g, const Number& h, Sum& sum) {
      sum.straight += g.z * h.z;
      sum.crossed += g.z * Swap(h.z);
    }
    template <bool kOnTop>
    static void StoreSum(const Sum& sum, T* x, int64_t) {
      V total = Blend(sum.straight - Swap(sum.straight), sum.crossed + Swap(sum.crossed));
      if constexpr (kOnTop) total += Lanes::Load(x);
      Lanes::Store(total, x);
    }
  };
};

// The same with real factors: two vectors of numbers beside each vector of factors.
struct ComplexWithRealFactor {
  static constexpr int Q = 1, P = 2, kPerColumnOfA = 1, kPerColumnOfB = 2, kNarrowest = 1;

  template <typename T, int kBytes>
  struct Block {
    using Lanes = Vector<T, kBytes>;
    using V = typename Lanes::Type;
    static constexpr int kColumns = Lanes::kLanes;
    struct Pair { V first, second; };
    using Factor = Pair;
    using Number = Pair;
    using Sum = Pair;

    static Number Load(const T* x, int64_t) {
      return {Lanes::Load(x), Lanes::Load(x + Lanes::kLanes)};
    }
    static void Store(const Number& h, T* x, int64_t) {
      Lanes::Store(h.first, x);
      Lanes::Store(h.second, x + Lanes::kLanes);
    }
    static Factor LoadFactor(const T* x, int64_t, bool) {
      V a = Lanes::Load(x);
      return {Lanes::Shuffle(a, a, [](int i) { return i / 2; }),
              Lanes::Shuffle(a, a, [](int i) { return (Lanes::kLanes + i) / 2; })};
    }
    static Number Next(const Factor& a, const Number& h, const Number& b) {
      return {b.first + a.first * h.first, b.second + a.second * h.second};
    }
    static void Add(const Number& g, const Number& h, Sum& sum) {
      sum.first += g.first * h.first;
      sum.second += g.second * h.second;
    }
    template <bool kOnTop>
    static void StoreSum(const Sum& sum, T* x, int64_t) {
      V total = Lanes::Shuffle(sum.first, sum.second, [](int i) { return 2 * i; }) -
                Lanes::Shuffle(sum.first, sum.second, [](int i) { return 2 * i + 1; });
      if constexpr (kOnTop) total += Lanes::Load(x);
      Lanes::Store(total, x);
    }
  };
};

// Steps of one row in the order in which they follow one another. What belongs to a step lies `stride`
// numbers after that of the step before: negative against time.
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
  T* state = nullptr;  // of the columns alone, before the first step and then after the last
  // For gradients, whose state goes against the scan, there is kept[count] too: kept[i] belongs to the
  // state of the loop, and kept[i + 1] to that of the scan before the same step, which is here.
  const T* before = nullptr;
  int64_t stride_before = 0;
  T* da = nullptr;  // for a constant a a sum, of the columns alone
};

// kVectors vectors of columns, whose state, constant a and sums stay in registers:
//   state = a state + b, or b alone where the state before does not count, and out = state.
// For gradients the factor is that of the step before, and da = or += state times the state of the
// scan before.
template <typename T, typename Layout, bool kVarying, bool kGradient, int kBytes, int kVectors>
void AdvanceColumns(const Steps<T>& s, int64_t n, int64_t first) {
  using Block = typename Layout::template Block<T, kBytes>;
  constexpr bool kSum = kGradient && !kVarying;
  auto of_a = [&](int c) { return (first + c * Block::kColumns) * Layout::kPerColumnOfA; };
  auto of_b = [&](int c) { return (first + c * Block::kColumns) * Layout::kPerColumnOfB; };
  typename Block::Factor a[kVectors];
  typename Block::Number state[kVectors];
  typename Block::Sum sum[kVectors] = {};
  LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
    state[c] = Block::Load(s.state + of_b(c), n);
    if constexpr (!kVarying) a[c] = Block::LoadFactor(s.a + of_a(c), s.width, kGradient);
  }
  for (int64_t i = 0; i < s.count; ++i) {
    const T* b = s.b + i * s.stride;
    T* out = s.out + i * s.stride;
    if (s.kept[i]) {
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        if constexpr (kVarying) {
          const T* a_t = s.a + (kGradient ? i - 1 : i) * s.stride_a;
          a[c] = Block::LoadFactor(a_t + of_a(c), s.width, kGradient);
        }
        state[c] = Block::Next(a[c], state[c], Block::Load(b + of_b(c), s.width));
      }
    } else {
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) state[c] = Block::Load(b + of_b(c), s.width);
    }
    LRU_UNROLL for (int c = 0; c < kVectors; ++c) Block::Store(state[c], out + of_b(c), s.width);
    if constexpr (kGradient) {
      const T* before = s.before + i * s.stride_before;
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        if constexpr (kVarying) sum[c] = typename Block::Sum{};
        if (s.kept[i + 1]) Block::Add(state[c], Block::Load(before + of_b(c), s.width), sum[c]);
        if constexpr (kVarying)
          Block::template StoreSum<false>(sum[c], s.da + i * s.stride_a + of_a(c), s.width);
      }
    }
  }
  LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
    Block::Store(state[c], s.state + of_b(c), n);
    if constexpr (kSum) Block::template StoreSum<true>(sum[c], s.da + of_a(c), n);
  }
}

// All n columns from `first` on, in blocks that are the narrower the fewer are left. Complex a, state
// and sums of kVectors vectors take six registers each, and two are left for what passes through; with
// matrices they take ten.
template <typename T, typename Layout, bool kVarying, bool kGradient, int kBytes = kVectorBytes,
          int kVectors = kVectorRegisters / (Layout::Q == 4 ? 16 : 8)>
void Advance(const Steps<T>& s, int64_t n, int64_t first = 0) {
  constexpr int kColumns = kVectors * Layout::template Block<T, kBytes>::kColumns;
  for (; first + kColumns <= n; first += kColumns)
    AdvanceColumns<T, Layout, kVarying, kGradient, kBytes, kVectors>(s, n, first);
  if constexpr (kColumns > 1) {
    constexpr int kNarrower = std::max<int>(kBytes / 4, sizeof(T) * Layout::kNarrowest);
    if (first < n)
      Advance<T, Layout, kVarying, kGradient, kVectors == 1 ? kNarrower : kBytes, 1>(s, n, first);
  }
}

#endif  // LRU_SCAN_CPU_RECURRENCE_H_
