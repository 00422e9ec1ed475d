#include "autotune/roofline.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "autotune/measure.hpp"

namespace glaive {
namespace {

using V4 = float __attribute__((vector_size(16)));
using V8 = float __attribute__((vector_size(32)));
using V16 = float __attribute__((vector_size(64)));

// NOTES: each function does `rounds` times `accumulators` multiply-adds and returns its floating-point operations. The
// accumulators are more than latency x pipes of any processor so far (4 x 2), and fit the registers. The empty asm
// makes each value opaque, so that nothing is folded, merged or dropped.
constexpr int accumulators = 12, accumulators_512 = 24;

__attribute__((target("avx512f"))) double work_avx512(std::int64_t rounds) {
  V16 sum[accumulators_512], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (auto& s : sum) s = b;
  asm volatile("" : "+v"(a), "+v"(b));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int n = 0; n < accumulators_512; ++n) sum[n] = _mm512_fmadd_ps(sum[n], a, b);
  }
#pragma GCC unroll 24
  for (int n = 0; n < accumulators_512; ++n) asm volatile("" : : "v"(sum[n]));
  return 2.0 * 16 * accumulators_512 * static_cast<double>(rounds);
}

__attribute__((target("avx2,fma"))) double work_avx2(std::int64_t rounds) {
  V8 sum[accumulators], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (auto& s : sum) s = b;
  asm volatile("" : "+x"(a), "+x"(b));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int n = 0; n < accumulators; ++n) sum[n] = _mm256_fmadd_ps(sum[n], a, b);
  }
#pragma GCC unroll 12
  for (int n = 0; n < accumulators; ++n) asm volatile("" : : "x"(sum[n]));
  return 2.0 * 8 * accumulators * static_cast<double>(rounds);
}

double work_sse2(std::int64_t rounds) {
  V4 sum[accumulators], a = _mm_set1_ps(0.999f), b = _mm_set1_ps(1e-3f);
  for (auto& s : sum) s = b;
  asm volatile("" : "+x"(a), "+x"(b));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int n = 0; n < accumulators; ++n) sum[n] = sum[n] * a + b;
  }
#pragma GCC unroll 12
  for (int n = 0; n < accumulators; ++n) asm volatile("" : : "x"(sum[n]));
  return 2.0 * 4 * accumulators * static_cast<double>(rounds);
}

using Work = double (*)(std::int64_t);

Work widest_work() {
  if (__builtin_cpu_supports("avx512f")) return work_avx512;
  if (__builtin_cpu_supports("avx2") and __builtin_cpu_supports("fma")) return work_avx2;
  return work_sse2;
}

struct Copy {
  std::byte* to;
  const std::byte* from;
  std::int64_t bytes, tasks;
};

/// A multiple of 64 bytes between 64-byte aligned places.
void copy_streaming(std::byte* to, const std::byte* from, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += 64)
    for (int n = 0; n < 64; n += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + n),
                       _mm_load_si128(reinterpret_cast<const __m128i*>(from + i + n)));
  _mm_sfence();
}

void copy_task(void* context, std::int64_t task, int) {
  const auto& copy = *static_cast<const Copy*>(context);
  const std::int64_t part = copy.bytes / copy.tasks / 64 * 64, first = part * task;
  copy_streaming(copy.to + first, copy.from + first, part);
}

void touch_task(void* context, std::int64_t task, int) {
  const auto& copy = *static_cast<const Copy*>(context);
  const std::int64_t part = copy.bytes / copy.tasks / 64 * 64, first = part * task;
  std::memset(copy.to + first, 1, static_cast<std::size_t>(part));
  std::memset(const_cast<std::byte*>(copy.from) + first, 2, static_cast<std::size_t>(part));
}

}  // namespace

double fma_peak(WorkerPool& pool) {
  struct Part {
    Work work;
    std::int64_t rounds;
  } part = {widest_work(), 2000};
  const auto body = [](void* context, std::int64_t, int) {
    const auto& p = *static_cast<const Part*>(context);
    p.work(p.rounds);
  };
  while (part.rounds < (std::int64_t{1} << 24)) {  // one run: at least a millisecond
    const double start = steady_seconds();
    body(&part, 0, 0);
    if (steady_seconds() - start > 1e-3) break;
    part.rounds *= 2;
  }
  const double operations = part.work(part.rounds) * pool.workers();
  double best = 0;
  const double start = steady_seconds();
  for (int runs = 0; runs < 5 or steady_seconds() - start < 0.03; ++runs) {
    const double began = steady_seconds();
    pool.run(pool.workers(), body, &part);
    best = std::max(best, operations / (steady_seconds() - began));
  }
  return best;
}

double copy_rate(WorkerPool& pool) {
  constexpr std::int64_t mebibyte = 1 << 20;
  const std::int64_t bytes = std::clamp(4 * host_cpu_device().l3_bytes, 64 * mebibyte, 512 * mebibyte);
  const auto size = static_cast<std::size_t>(bytes);
  const auto aligned = [&] {
    return std::unique_ptr<std::byte, decltype(&std::free)>(static_cast<std::byte*>(std::aligned_alloc(64, size)),
                                                            &std::free);
  };
  const auto to = aligned(), from = aligned();
  if (to == nullptr or from == nullptr) return 0;
  Copy copy = {to.get(), from.get(), bytes, pool.workers() * std::int64_t{8}};
  const std::int64_t task_bytes = bytes / copy.tasks / 64 * 64;
  const double copied = 2.0 * static_cast<double>(task_bytes * copy.tasks);
  pool.run(copy.tasks, touch_task, &copy);
  double best = 0;
  for (int runs = 0; runs < 5; ++runs) {
    const double began = steady_seconds();
    pool.run(copy.tasks, copy_task, &copy);
    best = std::max(best, copied / (steady_seconds() - began));
  }
  return best;
}

}  // namespace glaive
