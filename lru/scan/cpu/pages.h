// Memory that the system has not given yet.

#ifndef LRU_SCAN_CPU_PAGES_H_
#define LRU_SCAN_CPU_PAGES_H_

#include <cstdint>

#include "xla/ffi/api/ffi.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

// Asks for large pages under results, whose memory is often new: the system stops a loop at each page
// of it. A result that is no such page long is left alone.
template <typename... Results>
void WantLargePages(Results&... results) {
#if defined(__linux__)
  constexpr uintptr_t kLargePage = 1 << 21;
  auto want = [](const xla::ffi::AnyBuffer& x) {
    uintptr_t first = reinterpret_cast<uintptr_t>(x.untyped_data()), last = first + x.size_bytes();
    first = (first + kLargePage - 1) / kLargePage * kLargePage;
    last = last / kLargePage * kLargePage;
    // Where it is refused, small pages do.
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  };
  (want(*results), ...);
#endif
}

#endif  // LRU_SCAN_CPU_PAGES_H_
