// Products of matrices small enough for a cache, at the rate of the multipliers.

#ifndef LRU_SCAN_CPU_PRODUCT_H_
#define LRU_SCAN_CPU_PRODUCT_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "vectors.h"

// A tile is kTileRows rows and so many vectors wide: it keeps its sums, one row of the panel and one
// broadcast number in registers.
constexpr int kTileRows = kVectorRegisters < 32 ? 4 : 5;
constexpr int kTileVectors = (kVectorRegisters - 1) / (kTileRows + 1);
template <typename T>
constexpr int64_t kLine = 64 / sizeof(T);  // numbers in a cache line

// A compiler that folds a load into each of its uses loads the same vector once a row.
template <typename V>
inline void KeepInRegister(V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

// Operands of a tile: out[r][c] = start[r][c] + sum over k of panel[k][c] x[r][k stride_x], without
// a start if that is null. x has one pointer a row. The sum runs over `segments` ranges of k whose
// operands lie `stride_segment` numbers apart.
template <typename T>
struct Tile {
  int64_t segments, stride_segment;
  int64_t depth;
  const T* panel;
  int64_t stride_panel;
  const T* x[kTileRows];
  int64_t stride_x;
  const T* start;
  int64_t stride_start;
  T* out;
  int64_t stride_out;
};

// Not inlined: within a larger function the compiler runs out of registers for the sums.
template <typename T, int kRows, int kVectors>
__attribute__((noinline)) void Multiply(const Tile<T>& tile) {
  using V = typename Vector<T>::Type;
  constexpr int kLanes = Vector<T>::kLanes;
  const T* x[kRows];
  V sum[kRows][kVectors];
  LRU_UNROLL for (int r = 0; r < kRows; ++r) {
    LRU_UNROLL for (int c = 0; c < kVectors; ++c)
      sum[r][c] = tile.start ? Vector<T>::Load(tile.start + r * tile.stride_start + c * kLanes) : V{};
  }
  const int64_t stride_panel = tile.stride_panel, stride_x = tile.stride_x;
  for (int64_t s = 0; s < tile.segments; ++s) {
    const T* panel = tile.panel + s * tile.stride_segment;
    LRU_UNROLL for (int r = 0; r < kRows; ++r) x[r] = tile.x[r] + s * tile.stride_segment;
    for (int64_t k = tile.depth; k > 0; --k) {
      V row[kVectors];
      LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
        row[c] = Vector<T>::Load(panel + c * kLanes);
        KeepInRegister(row[c]);
      }
      LRU_UNROLL for (int r = 0; r < kRows; ++r) {
        T factor = *x[r];
        x[r] += stride_x;
        LRU_UNROLL for (int c = 0; c < kVectors; ++c) sum[r][c] += row[c] * factor;
      }
      panel += stride_panel;
    }
  }
  LRU_UNROLL for (int r = 0; r < kRows; ++r) {
    LRU_UNROLL for (int c = 0; c < kVectors; ++c) {
      Vector<T>::Store(sum[r][c], tile.out + r * tile.stride_out + c * kLanes);
    }
  }
}

// Multiply<T, rows, vectors> for numbers known at run time only.
template <typename T, int... kIndex>
void Dispatch(int64_t rows, int64_t vectors, const Tile<T>& tile,
              std::integer_sequence<int, kIndex...>) {
  using Function = void (*)(const Tile<T>&);
  static constexpr Function kFunctions[] = {
      Multiply<T, kIndex / kTileVectors + 1, kIndex % kTileVectors + 1>...};
  kFunctions[(rows - 1) * kTileVectors + vectors - 1](tile);
}

template <typename T>
void MultiplyTile(int64_t rows, int64_t vectors, const Tile<T>& tile) {
  Dispatch(rows, vectors, tile, std::make_integer_sequence<int, kTileRows * kTileVectors>());
}

// The columns of N in panels of at most kTileVectors vectors, about equally wide. Scratch arrays
// are padded to whole vectors, so that tiles need no masks.
template <typename T>
struct Panels {
  static constexpr int64_t kLanes = Vector<T>::kLanes;
  int64_t n, padded;
  std::vector<int64_t> bounds;  // in vectors

  explicit Panels(int64_t n) : n(n) {
    int64_t vectors = (n + kLanes - 1) / kLanes, count = (vectors + kTileVectors - 1) / kTileVectors;
    padded = vectors * kLanes;
    for (int64_t i = 0; i <= count; ++i) bounds.push_back(i == 0 ? 0 : vectors * i / count);
  }

  // Calls run(first column, vectors).
  template <typename Run>
  void ForEach(const Run& run) const {
    for (size_t i = 0; i + 1 < bounds.size(); ++i)
      run(bounds[i] * kLanes, bounds[i + 1] - bounds[i]);
  }
};

// A matrix [depth, n], panel after panel, each with its columns side by side: A itself, row-major,
// or the transpose of A [n, depth].
template <typename T>
std::vector<T> Packed(const Panels<T>& panels, int64_t depth, const T* A, bool transpose) {
  std::vector<T> packed(depth * panels.padded, T(0));
  panels.ForEach([&](int64_t first, int64_t vectors) {
    int64_t width = vectors * panels.kLanes, valid = std::min(width, panels.n - first);
    T* out = packed.data() + first * depth;
    if (!transpose) {
      for (int64_t k = 0; k < depth; ++k)
        std::copy_n(A + k * panels.n + first, valid, out + k * width);
      return;
    }
    // A cache line of each row at a time.
    for (int64_t start = 0; start < depth; start += kLine<T>)
      for (int64_t c = 0; c < valid; ++c)
        for (int64_t k = start; k < std::min(start + kLine<T>, depth); ++k)
          out[k * width + c] = A[(first + c) * depth + k];
  });
  return packed;
}

// Rows of numbers, `stride` apart.
template <typename T>
struct Rows {
  T* first;
  int64_t stride;

  T* operator[](int64_t r) const { return first + r * stride; }
};

// out[r] = start[r] + x[r] packed for each of `rows` rows, without a start if it has no rows. x
// gives the pointer to a row.
template <typename T, typename X>
void Product(const Panels<T>& panels, const std::vector<T>& packed, int64_t depth, int64_t rows,
             const X& x, Rows<const T> start, Rows<T> out) {
  panels.ForEach([&](int64_t first, int64_t vectors) {
    int64_t width = vectors * panels.kLanes, valid = std::min(width, panels.n - first);
    // Tiles about equally high: a low one waits for its panel.
    int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    for (int64_t i = 0; i < tiles; ++i) {
      int64_t row = rows * i / tiles, count = rows * (i + 1) / tiles - row;
      Tile<T> tile{1, 0, depth, packed.data() + first * depth, width, {}, 1, nullptr, start.stride,
                   out[row] + first, out.stride};
      if (start.first) tile.start = start[row] + first;
      for (int64_t r = 0; r < count; ++r) tile.x[r] = x[row + r];
      if (valid == width) {
        MultiplyTile(count, vectors, tile);
        continue;
      }
      T edge[kTileRows * kTileVectors * Vector<T>::kLanes] = {};
      if (start.first) {
        for (int64_t r = 0; r < count; ++r)
          std::copy_n(start[row + r] + first, valid, edge + r * width);
        tile.start = edge;
      }
      tile.out = edge;
      tile.stride_start = tile.stride_out = width;
      MultiplyTile(count, vectors, tile);
      for (int64_t r = 0; r < count; ++r)
        std::copy_n(edge + r * width, valid, out[row + r] + first);
    }
  });
}

// total [height, padded n] += sum over segments and k of left[k] outer right[k]. Rows of `left` and
// of `right` lie a stride apart; those of `right` and of `total` reach to the padded width.
template <typename T>
void AddOuterProducts(const Panels<T>& panels, int64_t segments, int64_t stride_segment,
                      int64_t depth, int64_t height, Rows<const T> left, Rows<const T> right,
                      T* total) {
  panels.ForEach([&](int64_t first, int64_t vectors) {
    for (int64_t i = 0; i < height; i += kTileRows) {
      int64_t rows = std::min<int64_t>(kTileRows, height - i);
      T* out = total + i * panels.padded + first;
      Tile<T> tile{segments,     stride_segment, depth, right.first + first,
                   right.stride, {},             left.stride, out,
                   panels.padded, out,           panels.padded};
      for (int64_t r = 0; r < rows; ++r) tile.x[r] = left.first + i + r;
      MultiplyTile(rows, vectors, tile);
    }
  });
}

#endif  // LRU_SCAN_CPU_PRODUCT_H_
