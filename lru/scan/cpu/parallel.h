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
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  // A helper that starts late finds no task left and does not touch `task`, which may be gone.
  auto take = [shared, count, &task] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      task(i);
      if (shared->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_one();
      }
    }
  };
  for (int64_t i = 1; i < std::min(threads, count); ++i) pool.Schedule(std::function<void()>(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == count; });
}

#endif  // LRU_SCAN_CPU_PARALLEL_H_
