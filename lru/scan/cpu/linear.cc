// h_t = a_t h_{t-1} + b_t on a CPU: one pass over memory in each direction, on all cores.
//
// Arrays are those of lru/scan/methods.py, row-major, with any axes that vmap put in front:
//   a [..., Q, N] or [..., B, T, Q, N], b [..., B, T, P, N], h0 [..., B, P, N],
//   keep [..., B, T], or no elements where every step keeps the one before;
// or the same without the axes of parts, and then they may be complex; a real a too beside complex b.
// Rows of the batch, and slices of N where there are fewer rows than cores, are independent tasks.

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "buffers.h"
#include "loops.h"
#include "pages.h"
#include "parallel.h"
#include "recurrence.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Tasks are no smaller than waking a core pays.
constexpr int64_t kElementsWorthAThread = 1 << 15;
// Steps for which a few columns stay in registers, before the next columns have their turn.
constexpr int64_t kTile = 16;
static_assert(kPartialSum % kTile == 0);

struct Sizes {
  int64_t rows;          // all axes in front of T
  int64_t rows_of_a;     // consecutive rows that share one constant a
  int64_t steps, width;  // T, N
  bool varying, reverse;

  int64_t Threads(int64_t parts) const {
    return rows * steps * parts * width / kElementsWorthAThread;
  }
  int64_t Direction() const { return reverse ? -1 : 1; }
  // Where the i-th step of a row's scan lies among the steps of all rows.
  int64_t Place(int64_t row, int64_t i) const {
    return row * steps + (reverse ? steps - 1 - i : i);
  }
};

// Copies n columns of numbers with so many parts, of which so many lie beside each other.
template <int kParts, int kPerColumn, typename T>
void CopyColumns(const T* from, int64_t width_from, int64_t n, T* to, int64_t width_to) {
  for (int row = 0; row < kParts / kPerColumn; ++row)
    std::copy_n(from + row * width_from, n * kPerColumn, to + row * width_to);
}

template <typename T, typename Layout, bool kVarying>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* b, const T* h0,
             const bool* keep, T* out) {
  constexpr int Q = Layout::Q, P = Layout::P;
  OverSlices(pool, s.rows, s.width, s.Threads(P), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first;
    const int64_t of_a = first * Layout::kPerColumnOfA, of_b = first * Layout::kPerColumnOfB;
    bool kept[kTile];
    std::vector<T> h(P * n);
    CopyColumns<P, Layout::kPerColumnOfB>(h0 + row * P * s.width + of_b, s.width, n, h.data(), n);
    for (int64_t i = 0; i < s.steps; i += kTile) {
      const int64_t count = std::min(kTile, s.steps - i), at = s.Place(row, i);
      for (int64_t j = 0; j < count; ++j) kept[j] = !keep || keep[at + j * s.Direction()];
      Steps<T> steps{count, kept, s.width};
      steps.a = a + (kVarying ? at : row / s.rows_of_a) * Q * s.width + of_a;
      steps.stride_a = s.Direction() * Q * s.width;
      steps.b = b + at * P * s.width + of_b;
      steps.out = out + at * P * s.width + of_b;
      steps.stride = s.Direction() * P * s.width;
      steps.state = h.data();
      Advance<T, Layout, kVarying, false>(steps, n);
    }
  });
}

// One loop against the scan: db_t = g_t + conj(a_next) db_next, and beside it da_t = db_t
// conj(h_previous), summed over the steps of a row where a is constant: da is [..., B, Q, N] then.
template <typename T, typename Layout, bool kVarying>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* g, const T* h,
              const T* h0, const bool* keep, T* db, T* da) {
  constexpr int Q = Layout::Q, P = Layout::P;
  OverSlices(pool, s.rows, s.width, s.Threads(P), [&](int64_t row, int64_t first, int64_t last) {
    const int64_t n = last - first;
    const int64_t of_a = first * Layout::kPerColumnOfA, of_b = first * Layout::kPerColumnOfB;
    const int64_t against = -s.Direction();
    // Whether the j-th step of a tile keeps its state before is kept[j + 1]; kept[0] is that of the
    // step that was handled before the tile, false for the first.
    bool kept[kTile + 1] = {};
    std::vector<T> state(P * n, T(0)), partial(Q * n, T(0)), total(Q * n, T(0));
    for (int64_t i = 0, count; i < s.steps; i += count) {
      // The first step of the scan, which comes last, has its state before in another array.
      const bool start = i == s.steps - 1;
      count = start ? 1 : std::min(kTile, s.steps - 1 - i);
      const int64_t at = s.Place(row, s.steps - 1 - i);
      for (int64_t j = 0; j < count; ++j) kept[j + 1] = !keep || keep[at + j * against];
      Steps<T> steps{count, kept, s.width};
      steps.a = a + (kVarying ? at : row / s.rows_of_a) * Q * s.width + of_a;
      steps.stride_a = against * Q * s.width;
      steps.b = g + at * P * s.width + of_b;
      steps.out = db + at * P * s.width + of_b;
      steps.stride = against * P * s.width;
      steps.state = state.data();
      steps.before = (start ? h0 + row * P * s.width : h + (at + against) * P * s.width) + of_b;
      steps.stride_before = steps.stride;
      steps.da = kVarying ? da + at * Q * s.width + of_a : partial.data();
      Advance<T, Layout, kVarying, true>(steps, n);
      kept[0] = kept[count];
      if (!kVarying && (start || (i + count) % kPartialSum == 0)) {
        for (int64_t j = 0; j < Q * n; ++j) total[j] += partial[j];
        std::fill(partial.begin(), partial.end(), T(0));
      }
    }
    if (!kVarying)
      CopyColumns<Q, Layout::kPerColumnOfA>(total.data(), n, n, da + row * Q * s.width + of_a, s.width);
  });
}

struct Problem {
  size_t axes;  // of b, behind those in front
  Front front;
  Sizes sizes;
  int64_t rows, parts_of_a, parts;  // B, Q, P

  // Of arrays with as many axes as `HasAxes` asks for.
  Problem(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, bool paired, bool reverse)
      : axes(paired ? 4 : 3), front(b, axes) {
    auto shape = b.dimensions(), shape_of_a = a.dimensions();
    size_t at = front.axes.size();
    rows = shape[at];
    parts = paired ? shape[at + 2] : 1;
    parts_of_a = paired ? shape_of_a[shape_of_a.size() - 2] : 1;
    sizes = {front.count * rows, rows,   shape[at + 1], shape.back(),
             shape_of_a.size() == shape.size(), reverse};
  }

  static bool HasAxes(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, bool paired) {
    return a.dimensions().size() >= (paired ? 2 : 1) && b.dimensions().size() >= (paired ? 4 : 3);
  }

  // The axes of numbers of so many parts, behind others.
  std::vector<int64_t> Axes(std::vector<int64_t> axes_before, int64_t n_parts) const {
    if (axes == 4) axes_before.push_back(n_parts);
    axes_before.push_back(sizes.width);
    return axes_before;
  }

  Check CheckedArguments(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, const ffi::AnyBuffer& h0,
                         const ffi::Buffer<ffi::PRED>& keep) const {
    Check check(b.element_type(), front);
    Sequence(check, "b", b).Has("h0", h0, Axes({rows}, parts));
    check.HasShape("a", a, sizes.varying ? Axes({rows, sizes.steps}, parts_of_a) : Axes({}, parts_of_a));
    return check.HasMask("keep", keep, rows, sizes.steps);
  }

  Check& Sequence(Check& check, const char* name, const ffi::AnyBuffer& x) const {
    return check.Has(name, x, Axes({rows, sizes.steps}, parts));
  }
};

// Calls run(T(), layout, whether a varies) for what is at hand.
template <typename Run>
ffi::Error WithKind(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, const Problem& problem,
                    const Run& run) {
  const int64_t q = problem.parts_of_a, p = problem.parts;
  const bool like_b = a.element_type() == b.element_type();
  return WithType(RealOf(b.element_type()), [&](auto zero) {
    auto with_layout = [&](auto varying) {
      if (IsComplex(b.element_type())) {
        if (q == 1 && p == 1 && like_b) return run(zero, Complex(), varying);
        if (q == 1 && p == 1 && a.element_type() == RealOf(b.element_type()))
          return run(zero, ComplexWithRealFactor(), varying);
      } else if (like_b) {
        if (q == 1 && p == 1) return run(zero, Parts<1, 1>(), varying);
        if (q == 1 && p == 2) return run(zero, Parts<1, 2>(), varying);
        if (q == 2 && p == 2) return run(zero, Parts<2, 2>(), varying);
        if (q == 4 && p == 2) return run(zero, Parts<4, 2>(), varying);
      }
      return ffi::Error::InvalidArgument("a and b have types or parts that do not fit each other");
    };
    return problem.sizes.varying ? with_layout(std::true_type()) : with_layout(std::false_type());
  });
}

ffi::Error ForwardCall(ffi::ThreadPool pool, bool paired, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer b,
                       ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Result<ffi::AnyBuffer> h) {
  if (!Problem::HasAxes(a, b, paired)) return TooFewAxes("a or b");
  Problem problem(a, b, paired, reverse);
  Check check = problem.CheckedArguments(a, b, h0, keep);
  problem.Sequence(check, "h", *h);
  if (check.Result().failure()) return check.Result();
  WantLargePages(h);
  return WithKind(a, b, problem, [&](auto zero, auto layout, auto varying) {
    using T = decltype(zero);
    Forward<T, decltype(layout), varying.value>(pool, problem.sizes, NumbersOf<T>(a),
                                                NumbersOf<T>(b), NumbersOf<T>(h0), MaskOf(keep),
                                                NumbersOf<T>(*h));
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool paired, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer g,
                        ffi::AnyBuffer h, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Result<ffi::AnyBuffer> db, ffi::Result<ffi::AnyBuffer> da) {
  if (!Problem::HasAxes(a, g, paired)) return TooFewAxes("a or g");
  Problem problem(a, g, paired, reverse);
  const Sizes& s = problem.sizes;
  Check check = problem.CheckedArguments(a, g, h0, keep);
  problem.Sequence(check, "h", h);
  problem.Sequence(check, "db", *db);
  if (da->element_type() != a.element_type()) check.Refuse("da", "another type");
  std::vector<int64_t> before = {problem.rows};
  if (s.varying) before.push_back(s.steps);
  check.HasShape("da", *da, problem.Axes(before, problem.parts_of_a));
  if (check.Result().failure()) return check.Result();
  WantLargePages(db, da);
  return WithKind(a, g, problem, [&](auto zero, auto layout, auto varying) {
    using T = decltype(zero);
    Backward<T, decltype(layout), varying.value>(
        pool, s, NumbersOf<T>(a), NumbersOf<T>(g), NumbersOf<T>(h), NumbersOf<T>(h0), MaskOf(keep),
        NumbersOf<T>(*db), NumbersOf<T>(*da));
    return ffi::Error::Success();
  });
}

}  // namespace

LRU_DEFINE_LOOP(lru_linear_forward, ForwardCall, "paired", "reverse")
LRU_DEFINE_LOOP(lru_linear_backward, BackwardCall, "paired", "reverse")
