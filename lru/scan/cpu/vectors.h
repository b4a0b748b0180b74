// Vector registers, in the form that GCC and Clang share.

#ifndef LRU_SCAN_CPU_VECTORS_H_
#define LRU_SCAN_CPU_VECTORS_H_

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
};

#endif  // LRU_SCAN_CPU_VECTORS_H_
