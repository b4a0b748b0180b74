// Rows of a batch that take a step together, so that a matrix is read once for all of them.

#ifndef LRU_SCAN_CPU_GROUPS_H_
#define LRU_SCAN_CPU_GROUPS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"
#include "xla/ffi/api/ffi.h"

constexpr int64_t kProductsWorthAThread = 1 << 18;

// Groups of at most `most` rows of each problem, dealt out to tasks: those of one task follow each
// other on one thread. `products` counts the multiplications of all problems.
struct Groups {
  int64_t problems, rows, threads, tasks, size;

  Groups(xla::ffi::ThreadPool& pool, int64_t problems, int64_t rows, int64_t products,
         int64_t most)
      : problems(problems), rows(rows) {
    threads = std::clamp<int64_t>(products / kProductsWorthAThread, 1, pool.num_threads());
    int64_t share = (threads + problems - 1) / std::max<int64_t>(problems, 1);
    size = std::clamp<int64_t>((rows + share - 1) / share, 1, most);
    tasks = std::min(share, (rows + size - 1) / size);
  }

  // Calls run(problem, task, row, rows of the group); there are `tasks` tasks a problem.
  template <typename Run>
  void ForEach(xla::ffi::ThreadPool& pool, const Run& run) const {
    InParallel(pool, problems * tasks, threads, [&](int64_t i) {
      int64_t problem = i / tasks, task = i % tasks;
      for (int64_t row = task * size; row < rows; row += tasks * size)
        run(problem, task, row, std::min(size, rows - row));
    });
  }
};

// Pairs of rows whose outer products are to be added up, packed as the tiles of a product read them:
// those on the left kTileRows columns at a time, those on the right panel after panel.
template <typename T>
struct Pairs {
  const Panels<T>& panels;
  int64_t height, most, count = 0;
  std::vector<T> left, right;

  Pairs(int64_t height, const Panels<T>& panels, int64_t most)
      : panels(panels), height(height), most(most) {}

  void Clear() {
    count = 0;
    left.resize((height + kTileRows - 1) / kTileRows * kTileRows * most);
    right.resize(most * panels.padded);
  }

  void Add(const T* l, const T* r) {
    for (int64_t i = 0; i < height; i += kTileRows) {
      std::copy_n(l + i, std::min<int64_t>(kTileRows, height - i),
                  left.data() + i * most + count * kTileRows);
    }
    panels.ForEach([&](int64_t first, int64_t vectors) {
      int64_t width = vectors * panels.kLanes;
      std::copy_n(r + first, std::min(width, panels.n - first),
                  right.data() + first * most + count * width);
    });
    ++count;
  }

  // total [height, padded] += the sum.
  void AddTo(T* total) const {
    panels.ForEach([&](int64_t first, int64_t vectors) {
      int64_t width = vectors * panels.kLanes;
      for (int64_t i = 0; i < height; i += kTileRows) {
        int64_t rows = std::min<int64_t>(kTileRows, height - i);
        T* out = total + i * panels.padded + first;
        Tile<T> tile{1, 0, count, right.data() + first * most, width, {}, kTileRows, out,
                     panels.padded, out, panels.padded};
        for (int64_t r = 0; r < rows; ++r) tile.x[r] = left.data() + i * most + r;
        MultiplyTile(rows, vectors, tile);
      }
    });
  }
};

// out [problems, height, width] = the sum of the totals of the tasks of each problem, whose rows are
// `padded` wide; tasks that had no rows have none.
template <typename T>
void SumTasks(const Groups& groups, const std::vector<std::vector<T>>& totals, int64_t height,
              int64_t width, int64_t padded, T* out) {
  std::fill_n(out, groups.problems * height * width, T(0));
  for (size_t i = 0; i < totals.size(); ++i) {
    if (totals[i].empty()) continue;
    T* sum = out + i / groups.tasks * height * width;
    for (int64_t j = 0; j < height; ++j)
      for (int64_t k = 0; k < width; ++k) sum[j * width + k] += totals[i][j * padded + k];
  }
}

#endif  // LRU_SCAN_CPU_GROUPS_H_
