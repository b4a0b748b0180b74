// h_t = a_t h_{t-1} + b_t on a CPU: one pass over memory in each direction, on all cores.
//
// Arrays are those of lru/scan/methods.py, row-major, with any axes that vmap put in front:
//   a [..., Q, N] or [..., B, T, Q, N], b [..., B, T, P, N], h0 [..., B, P, N],
//   keep [..., B, T], or no elements where every step keeps the one before.
// Rows of the batch, and slices of N where there are fewer rows than cores, are independent tasks.

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "buffers.h"
#include "parallel.h"
#include "recurrence.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// A slice of N whose state and factors stay in the first-level cache.
constexpr int64_t kWidest = 1024;
// Slices are cut no finer than a few vector registers, tasks no smaller than waking a core pays.
constexpr int64_t kNarrowest = 32;
constexpr int64_t kElementsWorthAThread = 1 << 15;
// Gradients of a constant a are summed over so many steps before they join the total: the error
// of a sum grows with the number of its terms.
constexpr int64_t kPartialSum = 256;

struct Sizes {
  int64_t rows;          // all axes in front of T
  int64_t rows_of_a;     // consecutive rows that share one constant a
  int64_t steps, width;  // T, N
  bool varying, reverse;
};

// Calls run(row, first, last) for slices [first, last) of N of every row.
template <typename Run>
void OverSlices(ffi::ThreadPool& pool, const Sizes& sizes, int64_t parts, const Run& run) {
  int64_t elements = sizes.rows * sizes.steps * parts * sizes.width;
  int64_t threads = std::clamp<int64_t>(elements / kElementsWorthAThread, 1, pool.num_threads());
  int64_t slices = (sizes.width + kWidest - 1) / kWidest;
  if (sizes.rows * slices < threads) {
    slices = std::min((threads + sizes.rows - 1) / sizes.rows,
                      std::max<int64_t>(sizes.width / kNarrowest, 1));
  }
  InParallel(pool, sizes.rows * slices, threads, [&](int64_t task) {
    int64_t row = task / slices, slice = task % slices;
    run(row, sizes.width * slice / slices, sizes.width * (slice + 1) / slices);
  });
}

template <typename T, int Q, int P>
void Forward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* b, const T* h0,
             const bool* keep, T* out) {
  OverSlices(pool, s, P, [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first;
    std::vector<T> h(P * n), fixed(Q * n);
    for (int p = 0; p < P; ++p)
      std::copy_n(h0 + (row * P + p) * s.width + first, n, h.data() + p * n);
    if (!s.varying)
      Gather<T, Q>(a + row / s.rows_of_a * Q * s.width + first, s.width, n, false, fixed.data());
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t at = row * s.steps + (s.reverse ? s.steps - 1 - i : i);
      const T* a_t = s.varying ? a + at * Q * s.width + first : fixed.data();
      Step<T, Q, P>::Advance(n, s.width, !keep || keep[at], a_t, s.varying ? s.width : n, h.data(),
                             b + at * P * s.width + first, out + at * P * s.width + first);
    }
  });
}

// One loop against the scan: db_t = g_t + conj(a_next) db_next, and beside it da_t = db_t
// conj(h_previous), summed over the steps of a row where a is constant: da is [..., B, Q, N] then.
template <typename T, int Q, int P>
void Backward(ffi::ThreadPool& pool, const Sizes& s, const T* a, const T* g, const T* h,
              const T* h0, const bool* keep, T* db, T* da) {
  OverSlices(pool, s, P, [&](int64_t row, int64_t first, int64_t last) {
    int64_t n = last - first, width = s.width;
    std::vector<T> state(P * n, T(0)), conj(Q * n), partial(Q * n, T(0)), total(Q * n, T(0));
    if (!s.varying)
      Gather<T, Q>(a + row / s.rows_of_a * Q * width + first, width, n, true, conj.data());
    bool keep_next = false;
    for (int64_t i = 0; i < s.steps; ++i) {
      int64_t t = s.reverse ? i : s.steps - 1 - i;
      int64_t at = row * s.steps + t;
      Step<T, Q, P>::Advance(n, width, keep_next, conj.data(), n, state.data(),
                             g + at * P * width + first, db + at * P * width + first);
      keep_next = !keep || keep[at];
      bool start = i == s.steps - 1;
      const T* before = start ? h0 + row * P * width + first
                              : h + (at + (s.reverse ? 1 : -1)) * P * width + first;
      if (s.varying) {
        T* da_t = da + at * Q * width + first;
        if (keep_next) {
          Step<T, Q, P>::template Correlate<false>(n, state.data(), before, width, da_t, width);
        } else {
          for (int q = 0; q < Q; ++q) std::fill_n(da_t + q * width, n, T(0));
        }
        Gather<T, Q>(a + at * Q * width + first, width, n, true, conj.data());
      } else {
        if (keep_next)
          Step<T, Q, P>::template Correlate<true>(n, state.data(), before, width, partial.data(), n);
        if (start || i % kPartialSum == kPartialSum - 1) {
          for (int64_t j = 0; j < Q * n; ++j) total[j] += partial[j];
          std::fill(partial.begin(), partial.end(), T(0));
        }
      }
    }
    if (!s.varying)
      for (int q = 0; q < Q; ++q)
        std::copy_n(total.data() + q * n, n, da + (row * Q + q) * width + first);
  });
}

struct Problem {
  Front front;
  Sizes sizes;
  int64_t rows, parts_of_a, parts;  // B, Q, P

  // Of arrays with as many axes as `HasAxes` asks for.
  Problem(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, bool reverse) : front(b, 4) {
    auto shape = b.dimensions(), shape_of_a = a.dimensions();
    size_t last = shape.size() - 1;
    rows = shape[last - 3];
    parts = shape[last - 1];
    parts_of_a = shape_of_a[shape_of_a.size() - 2];
    sizes = {front.count * rows, rows,   shape[last - 2], shape[last],
             shape_of_a.size() == shape.size(), reverse};
  }

  static bool HasAxes(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b) {
    return a.dimensions().size() >= 2 && b.dimensions().size() >= 4;
  }

  Check CheckedArguments(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b, const ffi::AnyBuffer& h0,
                         const ffi::Buffer<ffi::PRED>& keep) const {
    Check check(b.element_type(), front);
    Sequence(check, "b", b).Has("h0", h0, {rows, parts, sizes.width});
    if (sizes.varying) check.Has("a", a, {rows, sizes.steps, parts_of_a, sizes.width});
    if (!sizes.varying) check.Has("a", a, {parts_of_a, sizes.width});
    return check.HasMask("keep", keep, rows, sizes.steps);
  }

  Check& Sequence(Check& check, const char* name, const ffi::AnyBuffer& x) const {
    return check.Has(name, x, {rows, sizes.steps, parts, sizes.width});
  }
};

// Calls run(T(), integral_constant Q, integral_constant P) for the type and the parts at hand.
template <typename Run>
ffi::Error WithTypeAndParts(const ffi::AnyBuffer& b, const Problem& problem, const Run& run) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  int64_t q = problem.parts_of_a, p = problem.parts;
  return WithType(b, [&](auto zero) {
    if (q == 1 && p == 1) return run(zero, One(), One());
    if (q == 1 && p == 2) return run(zero, One(), Two());
    if (q == 2 && p == 2) return run(zero, Two(), Two());
    return ffi::Error::InvalidArgument("a and b have parts that do not fit each other");
  });
}

ffi::Error ForwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer b,
                       ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                       ffi::Result<ffi::AnyBuffer> h) {
  if (!Problem::HasAxes(a, b)) return TooFewAxes("a or b");
  Problem problem(a, b, reverse);
  Check check = problem.CheckedArguments(a, b, h0, keep);
  problem.Sequence(check, "h", *h);
  if (check.Result().failure()) return check.Result();
  return WithTypeAndParts(b, problem, [&](auto zero, auto q, auto p) {
    using T = decltype(zero);
    Forward<T, decltype(q)::value, decltype(p)::value>(
        pool, problem.sizes, a.reinterpret_data<T>(), b.reinterpret_data<T>(),
        h0.reinterpret_data<T>(), MaskOf(keep), h->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error BackwardCall(ffi::ThreadPool pool, bool reverse, ffi::AnyBuffer a, ffi::AnyBuffer g,
                        ffi::AnyBuffer h, ffi::AnyBuffer h0, ffi::Buffer<ffi::PRED> keep,
                        ffi::Result<ffi::AnyBuffer> db, ffi::Result<ffi::AnyBuffer> da) {
  if (!Problem::HasAxes(a, g)) return TooFewAxes("a or g");
  Problem problem(a, g, reverse);
  const Sizes& s = problem.sizes;
  Check check = problem.CheckedArguments(a, g, h0, keep);
  problem.Sequence(check, "h", h);
  problem.Sequence(check, "db", *db);
  if (s.varying) check.Has("da", *da, {problem.rows, s.steps, problem.parts_of_a, s.width});
  if (!s.varying) check.Has("da", *da, {problem.rows, problem.parts_of_a, s.width});
  if (check.Result().failure()) return check.Result();
  return WithTypeAndParts(g, problem, [&](auto zero, auto q, auto p) {
    using T = decltype(zero);
    Backward<T, decltype(q)::value, decltype(p)::value>(
        pool, s, a.reinterpret_data<T>(), g.reinterpret_data<T>(), h.reinterpret_data<T>(),
        h0.reinterpret_data<T>(), MaskOf(keep), db->reinterpret_data<T>(),
        da->reinterpret_data<T>());
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lru_linear_forward, ForwardCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("reverse")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(lru_linear_backward, BackwardCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("reverse")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
