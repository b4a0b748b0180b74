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

// The numbers of an array by problem, of which those along an axis of 1 in front share theirs.
template <typename T>
class Operand {
 public:
  template <typename Buffer>
  Operand(const Buffer& x, const Front& front) : data_(static_cast<const T*>(x.untyped_data())) {
    auto shape = x.dimensions();
    int64_t problems = 1;
    places_ = {0};
    for (size_t i = 0; i < front.axes.size(); ++i) {
      const bool own = shape[i] == front.axes[i];
      std::vector<int64_t> finer;
      for (int64_t place : places_)
        for (int64_t j = 0; j < front.axes[i]; ++j) finer.push_back(place * shape[i] + (own ? j : 0));
      places_ = finer;
      problems *= shape[i];
    }
    size_ = problems ? static_cast<int64_t>(x.element_count()) / problems : 0;
  }

  const T* operator[](int64_t problem) const { return data_ + places_[problem] * size_; }

 private:
  const T* data_;
  std::vector<int64_t> places_;
  int64_t size_;
};

// Collects the first array that is not as its neighbours say.
class Check {
 public:
  // With `shared`, axes in front may be 1.
  Check(xla::ffi::DataType type, const Front& front, bool shared = false)
      : type_(type), front_(front), shared_(shared) {}

  // Expects the common type, and these axes behind those in front.
  Check& Has(const char* name, const xla::ffi::AnyBuffer& x, const std::vector<int64_t>& own) {
    return x.element_type() == type_ ? HasShape(name, x, own) : Refuse(name, "another type");
  }

  // Expects the axes alone.
  template <typename Buffer>
  Check& HasShape(const char* name, const Buffer& x, const std::vector<int64_t>& own) {
    auto shape = x.dimensions();
    const size_t before = front_.axes.size();
    bool same = shape.size() == before + own.size();
    for (size_t i = 0; same && i < shape.size(); ++i) {
      same = shape[i] == (i < before ? front_.axes[i] : own[i - before]);
      same = same || (shared_ && i < before && shape[i] == 1);
    }
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
  bool shared_;
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
