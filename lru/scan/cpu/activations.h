// Activations of gates, in a form that compilers turn into vector instructions.

#ifndef LRU_SCAN_CPU_ACTIVATIONS_H_
#define LRU_SCAN_CPU_ACTIVATIONS_H_

#include <cmath>
#include <cstdint>
#include <cstring>

// e^x in single precision, infinite from 89 and 1.2e-38 below -87.3, as 2^n by its bits and
// the polynomial of Cephes' expf for the rest.
inline float Exp(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -87.3f ? -87.3f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: sums with it are whole numbers.
  float shifted = x * 1.44269504f + kRound;
  float n = shifted - kRound;
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int32_t>((static_cast<uint32_t>(bits) + 127u) << 23);
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

inline double Exp(double x) { return std::exp(x); }

template <typename T>
inline T Sigmoid(T x) {
  return T(1) / (T(1) + Exp(-x));
}

// Near zero, where 1 - 2 / (e^2x + 1) cancels, the polynomial of Cephes' tanhf.
inline float Tanh(float x) {
  float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  float small = x + x * s * p;
  float large = 1.0f - 2.0f / (Exp(2.0f * x) + 1.0f);
  return s < 0.390625f ? small : large;
}

inline double Tanh(double x) { return std::tanh(x); }

#endif  // LRU_SCAN_CPU_ACTIVATIONS_H_
