// The rate of fused multiply-adds in registers, which no product of matrices exceeds.
//
// `python -m benchmarks.peak` compiles and runs it. For processors with AVX-512: 24
// independent sums of 16 numbers on each core; a line for each in GFLOP/s.

#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

typedef float Vector __attribute__((vector_size(64)));
constexpr int kSums = 24, kRounds = 20000000;

double GigaflopsOfOneThread() {
  Vector sums[kSums], factor, term;
  for (int i = 0; i < 16; ++i) {
    factor[i] = 0.99f;
    term[i] = 1.0f + i * 1e-7f;
  }
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) {
    sums[i] = term;
    // Or the compiler sees that all sums are the same, and keeps one.
    asm volatile("" : "+v"(sums[i]));
  }
  asm volatile("" : "+v"(factor), "+v"(term));
  auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + term;
  }
  // In front of the clock, or the compiler moves the loop behind it.
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return 2e-9 * 16 * kSums * kRounds / seconds.count();
}

int main() {
  std::vector<double> rates(std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (double& rate : rates) threads.emplace_back([&rate] { rate = GigaflopsOfOneThread(); });
  for (std::thread& thread : threads) thread.join();
  for (double rate : rates) std::printf("%.1f\n", rate);
}
