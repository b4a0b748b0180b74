// Vector registers, in the form that GCC and Clang share.

#ifndef LRU_SCAN_CPU_VECTORS_H_
#define LRU_SCAN_CPU_VECTORS_H_

#include <cstdint>
#include <type_traits>

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kVectorRegisters = 32;
#else
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#endif

#define LRU_UNROLL _Pragma("GCC unroll 32")

template <typename T, int kBytes = kVectorBytes>
struct Vector {
  typedef T Type __attribute__((vector_size(kBytes)));
  typedef T Unaligned __attribute__((vector_size(kBytes), aligned(alignof(T))));
  static constexpr int kLanes = kBytes / sizeof(T);

  static Type Load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
  static void Store(const Type& v, T* to) { *reinterpret_cast<Unaligned*>(to) = v; }

  // The vector of the index(lane)-th elements of the lanes of v and, behind them, those of w.
  template <typename Index>
  static Type Shuffle(const Type& v, const Type& w, const Index& index) {
#if defined(__clang__)
    Type out;
    LRU_UNROLL for (int i = 0; i < kLanes; ++i) {
      out[i] = index(i) < kLanes ? v[index(i)] : w[index(i) - kLanes];
    }
    return out;
#else
    using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef Integer Indices __attribute__((vector_size(kBytes)));
    Indices indices;
    LRU_UNROLL for (int i = 0; i < kLanes; ++i) indices[i] = index(i);
    return __builtin_shuffle(v, w, indices);
#endif
  }
};

#endif  // LRU_SCAN_CPU_VECTORS_H_
