// What an operation may assume of its arrays. It is told their addresses alone, so each array is
// checked before it is read.

#ifndef LRU_SCAN_CPU_BUFFERS_H_
#define LRU_SCAN_CPU_BUFFERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

// The axes that vmap put in front of the `own` axes of an array, and their product.
struct Front {
  std::vector<int64_t> axes;
  int64_t count = 1;

  Front(const xla::ffi::AnyBuffer& x, size_t own) {
    auto shape = x.dimensions();
    for (size_t i = 0; i + own < shape.size(); ++i) {
      axes.push_back(shape[i]);
      count *= shape[i];
    }
  }
};

// Collects the first array that is not as its neighbours say.
class Check {
 public:
  Check(xla::ffi::DataType type, const Front& front) : type_(type), front_(front) {}

  // Expects the common type, and these axes behind those in front.
  Check& Has(const char* name, const xla::ffi::AnyBuffer& x, const std::vector<int64_t>& own) {
    return x.element_type() == type_ ? HasShape(name, x, own) : Refuse(name, "another type");
  }

  // Expects the axes alone.
  template <typename Buffer>
  Check& HasShape(const char* name, const Buffer& x, const std::vector<int64_t>& own) {
    std::vector<int64_t> expected = front_.axes;
    expected.insert(expected.end(), own.begin(), own.end());
    auto shape = x.dimensions();
    bool same = std::vector<int64_t>(shape.begin(), shape.end()) == expected;
    return same ? *this : Refuse(name, "another shape");
  }

  // Expects a mask, which has no elements where it is true everywhere.
  Check& HasMask(const char* name, const xla::ffi::Buffer<xla::ffi::PRED>& mask, int64_t rows,
                 int64_t steps) {
    return mask.element_count() == 0 ? *this : HasShape(name, mask, {rows, steps});
  }

  Check& Refuse(const char* name, const char* what) {
    if (problem_.empty()) problem_ = std::string(name) + " has " + what + " than the other arrays";
    return *this;
  }

  // Says that an array was not given.
  Check& Miss(const char* name) { return Refuse(name, "fewer arrays"); }

  xla::ffi::Error Result() const {
    if (problem_.empty()) return xla::ffi::Error::Success();
    return xla::ffi::Error::InvalidArgument(problem_);
  }

 private:
  xla::ffi::DataType type_;
  const Front& front_;
  std::string problem_;
};

inline xla::ffi::Error TooFewAxes(const char* name) {
  return xla::ffi::Error::InvalidArgument(std::string(name) + " has too few axes");
}

// The mask at hand, or null where it is true everywhere.
inline const bool* MaskOf(const xla::ffi::Buffer<xla::ffi::PRED>& mask) {
  return mask.element_count() == 0 ? nullptr : mask.typed_data();
}

inline bool IsComplex(xla::ffi::DataType type) {
  return type == xla::ffi::C64 || type == xla::ffi::C128;
}

// The type of the parts of a number.
inline xla::ffi::DataType RealOf(xla::ffi::DataType type) {
  return type == xla::ffi::C64 ? xla::ffi::F32 : type == xla::ffi::C128 ? xla::ffi::F64 : type;
}

// The numbers of x, real or pairs.
template <typename T, typename Buffer>
T* NumbersOf(const Buffer& x) {
  return static_cast<T*>(x.untyped_data());
}

// Calls run(T()) for a real type.
template <typename Run>
xla::ffi::Error WithType(xla::ffi::DataType type, const Run& run) {
  if (type == xla::ffi::F32) return run(float());
  if (type == xla::ffi::F64) return run(double());
  return xla::ffi::Error::InvalidArgument("arrays are neither float32 nor float64");
}

#endif  // LRU_SCAN_CPU_BUFFERS_H_
