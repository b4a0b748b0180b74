// h_t = A h_{t-1} + b_t on a CPU, at the rate of its multipliers.
//
// Arrays are those of lru/scan/methods.py, row-major, with any axes that vmap put in front:
//   A [..., N, N], b [..., B, T, N], h0 [..., B, N], keep [..., B, T], or no elements where every
//   step keeps the one before.
// A step of a few rows of the batch is a product of matrices whose small one fits registers: A is
// streamed from the second-level cache and used for all of them. Each group of rows is a task. The
// gradient of A is collected from a block of steps while these are still in a cache.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "groups.h"
#include "loops.h"
#include "pages.h"
#include "product.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Steps whose states and gradients wait in the cache for the gradient of A.
constexpr int64_t kBlock = 64;

template <typename T>
void Prefetch(const T* row, int64_t n) {
  for (int64_t i = 0; i < n; i += kLine<T>) __builtin_prefetch(row + i);
}

struct Sizes {
  int64_t problems, rows, steps, width;  // all axes in front of B, then B, T, N
  bool reverse;

  int64_t Products() const { return problems * rows * steps * width * width; }

  // The i-th step that the scan takes.
  int64_t Step(int64_t i) const { return reverse ? steps - 1 - i : i; }
};

template <typename T>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* A, const T* b, const T* h0,
             const bool* keep, T* h) {
  int64_t n = s.width, stride = s.steps * n;
  const Panels<T> panels(n);
  const Groups groups(pool, s.problems, s.rows, s.Products(), kTileRows);
  groups.ForEach(pool, [&](int64_t problem, int64_t, int64_t row, int64_t rows) {
    const std::vector<T> packed = Packed(panels, n, A + problem * n * n, true), zero(n, T(0));
    int64_t first = problem * s.rows + row;
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t t = s.Step(i);
      const T* x[kTileRows];
      for (int64_t r = 0; r < rows; ++r) {
        bool kept = !keep || keep[(first + r) * s.steps + t];
        const T* before = i == 0 ? h0 + (first + r) * n : h + (first + r) * stride + s.Step(i - 1) * n;
        x[r] = kept ? before : zero.data();
      }
      int64_t at = first * stride + t * n;
      Product(panels, packed, n, rows, x, {b + at, stride}, {h + at, stride});
    }
  });
}

// One loop against the scan: db_t = g_t + A^T db_next where the next step keeps this one, and after
// each block of steps da += db_t outer h_previous.
template <typename T>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* A, const T* g, const T* h,
              const T* h0, const bool* keep, T* db, T* dA) {
  int64_t n = s.width, stride = s.steps * n;
  const Panels<T> panels(n);
  int64_t padded = panels.padded;
  const Groups groups(pool, s.problems, s.rows, s.Products(), kTileRows);
  std::vector<std::vector<T>> totals(s.problems * groups.tasks);
  groups.ForEach(pool, [&](int64_t problem, int64_t task, int64_t row, int64_t rows) {
    std::vector<T>& total = totals[problem * groups.tasks + task];
    total.resize(n * padded, T(0));
    const std::vector<T> packed = Packed(panels, n, A + problem * n * n, false), zero(n, T(0));
    Pairs<T> pairs(n, panels, kTileRows * kBlock);
    int64_t first = problem * s.rows + row;
    auto kept = [&](int64_t r, int64_t t) { return !keep || keep[(first + r) * s.steps + t]; };
    for (int64_t end = s.steps; end > 0; end = std::max<int64_t>(end - kBlock, 0)) {
      int64_t begin = std::max<int64_t>(end - kBlock, 0);
      for (int64_t i = end - 1; i >= begin; --i) {
        const T* x[kTileRows];
        for (int64_t r = 0; r < rows; ++r) {
          bool drives = i + 1 < s.steps && kept(r, s.Step(i + 1));
          x[r] = drives ? db + (first + r) * stride + s.Step(i + 1) * n : zero.data();
          if (i == 0) continue;
          Prefetch(g + (first + r) * stride + s.Step(i - 1) * n, n);
          Prefetch(h + (first + r) * stride + s.Step(i - 1) * n, n);
        }
        int64_t at = first * stride + s.Step(i) * n;
        Product(panels, packed, n, rows, x, {g + at, stride}, {db + at, stride});
      }
      const T *db_first = db + first * stride, *h_first = h + first * stride;
      if (!keep && padded == n) {
        int64_t i = std::max<int64_t>(begin, 1), t = std::min(s.Step(i), s.Step(end - 1));
        const T* before = h_first + (s.reverse ? t + 1 : t - 1) * n;
        AddOuterProducts<T>(panels, rows, stride, end - i, n, {db_first + t * n, n}, {before, n},
                            total.data());
        if (begin == 0) {
          AddOuterProducts<T>(panels, 1, 0, rows, n, {db_first + s.Step(0) * n, stride},
                              {h0 + first * n, n}, total.data());
        }
        continue;
      }
      pairs.Clear();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = begin; i < end; ++i) {
          if (!kept(r, s.Step(i))) continue;
          pairs.Add(db_first + r * stride + s.Step(i) * n,
                    i == 0 ? h0 + (first + r) * n : h_first + r * stride + s.Step(i - 1) * n);
        }
      }
      pairs.AddTo(total.data());
    }
  });
  SumTasks(groups, totals, n, n, padded, dA);
}

struct Problem {
  Front front;
  Sizes sizes;

  // Of arrays with three axes or more.
  Problem(const ffi::AnyBuffer& b, bool reverse) : front(b, 3) {
    auto shape = b.dimensions();
    size_t last = shape.size() - 1;
    sizes = {front.count, shape[last - 2], shape[last - 1], shape[last], reverse};
  }

  Check CheckedArguments(const ffi::AnyBuffer& A, const ffi::AnyBuffer& b, const ffi::AnyBuffer& h0,
                         const ffi::Buffer<ffi::PRED>& keep) const {
    Check check(b.element_type(), front);
    Sequence(check, "b", b).Has("A", A, {sizes.width, sizes.width});
    return check.Has("h0", h0, {sizes.rows, sizes.width}).HasMask("keep", keep, sizes.rows, sizes.steps);
  }

  Check& Sequence(Check& check, const char* name, const ffi::AnyBuffer& x) const {
    return check.Has(name, x, {sizes.rows, sizes.steps, sizes.width});
  }
};

ffi::Error ForwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer A, ffi::AnyBuffer b,
                       ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Result<ffi::AnyBuffer> h) {
  if (b.dimensions().size() < 3) return TooFewAxes("b");
  Problem problem(b, reverse);
  Check check = problem.CheckedArguments(A, b, h0, keep);
  problem.Sequence(check, "h", *h);
  if (check.Result().failure()) return check.Result();
  WantLargePages(h);
  return WithType(b.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Forward(pool, problem.sizes, A.reinterpret_data<T>(), b.reinterpret_data<T>(),
            h0.reinterpret_data<T>(), MaskOf(keep), h->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer A, ffi::AnyBuffer g,
                        ffi::AnyBuffer h, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Result<ffi::AnyBuffer> db, ffi::Result<ffi::AnyBuffer> dA) {
  if (g.dimensions().size() < 3) return TooFewAxes("g");
  Problem problem(g, reverse);
  Check check = problem.CheckedArguments(A, g, h0, keep);
  problem.Sequence(check, "h", h);
  problem.Sequence(check, "db", *db);
  check.Has("dA", *dA, {problem.sizes.width, problem.sizes.width});
  if (check.Result().failure()) return check.Result();
  WantLargePages(db);
  return WithType(g.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Backward(pool, problem.sizes, A.reinterpret_data<T>(), g.reinterpret_data<T>(),
             h.reinterpret_data<T>(), h0.reinterpret_data<T>(), MaskOf(keep),
             db->reinterpret_data<T>(), dA->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_dense_forward, ForwardCall, "reverse")
LRU_DEFINE_LOOP(lru_dense_backward, BackwardCall, "reverse")
