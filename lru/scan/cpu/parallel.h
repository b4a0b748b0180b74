// Tasks on the calling thread and on the free threads of XLA's pool.

#ifndef LRU_SCAN_CPU_PARALLEL_H_
#define LRU_SCAN_CPU_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

// A slice of the last axis is so narrow that its state and factors stay in the first-level cache, and
// no finer than a few vector registers.
constexpr int64_t kWidest = 1024, kNarrowest = 32;

// Runs task(0..count-1), on `threads` threads if so many are free. The caller takes tasks until none
// is left, so a pool whose threads all wait like this one cannot lock up.
inline void InParallel(xla::ffi::ThreadPool& pool, int64_t count, int64_t threads,
                       const std::function<void(int64_t)>& task) {
  struct Shared {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    std::atomic<int64_t> helping{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  // A helper that starts late finds no task left and does not touch `task`, which may be gone.
  auto take_one = [shared, count, &task] {
    int64_t i = shared->next.fetch_add(1);
    if (i >= count) return false;
    task(i);
    if (shared->done.fetch_add(1) + 1 == count) {
      std::lock_guard<std::mutex> lock(shared->mutex);
      shared->finished.notify_one();
    }
    return true;
  };
  std::function<void()> help = [shared, take_one] {
    shared->helping.fetch_add(1);
    while (take_one()) continue;
  };
  const int64_t helpers = std::min(threads, count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(help));
  // The system may have queued a thread that was woken behind this one, and leave it there although
  // another core has become free: ask again.
  while (take_one()) {
    if (shared->next.load() < count && shared->helping.load() < helpers)
      pool.Schedule(std::function<void()>(help));
  }
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == count; });
}

// The order in which tasks of `InParallel` have their turns at each of some things. Whoever waits does so
// for a task of a smaller number, which runs already: none waits for a thread that is not there.
class Turns {
 public:
  explicit Turns(int64_t things) : ended_(things) {}

  // Waits until so many turns have ended.
  void Await(int64_t thing, int64_t turns) const {
    // Longer than a turn, unless the system has stopped the other thread.
    constexpr int kLooks = 1 << 14;
    for (int looks = 0; ended_[thing].load(std::memory_order_acquire) < turns; ++looks)
      if (looks >= kLooks) std::this_thread::yield();
  }

  void End(int64_t thing) { ended_[thing].fetch_add(1, std::memory_order_release); }

 private:
  std::vector<std::atomic<int64_t>> ended_;
};

// Calls run(row, first, last) for slices [first, last) of `width` columns of every row.
template <typename Run>
void OverSlices(xla::ffi::ThreadPool& pool, int64_t rows, int64_t width, int64_t threads,
                const Run& run) {
  if (rows * width == 0) return;
  threads = std::clamp<int64_t>(threads, 1, pool.num_threads());
  int64_t slices = (width + kWidest - 1) / kWidest;
  if (rows * slices < threads) {
    slices = std::min((threads + rows - 1) / rows, std::max<int64_t>(width / kNarrowest, 1));
  }
  InParallel(pool, rows * slices, threads, [&](int64_t task) {
    int64_t row = task / slices, slice = task % slices;
    run(row, width * slice / slices, width * (slice + 1) / slices);
  });
}

#endif  // LRU_SCAN_CPU_PARALLEL_H_
