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

#include "xla/ffi/api/ffi.h"

// Runs task(0..count-1). The caller takes tasks until none is left, so a pool whose threads all
// wait like this one cannot lock up.
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
  while (take_one())
    if (shared->helping.load() < helpers) pool.Schedule(std::function<void()>(help));
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == count; });
}

#endif  // LRU_SCAN_CPU_PARALLEL_H_
