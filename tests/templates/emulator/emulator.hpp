#pragma once
// Stands in for templates/cuda/ptx.cuh: a CTA, or a cluster, on one host thread, its threads as fibers, so that the
// text of a kernel can be run, and verified, where there is no GPU. What a warp does together is done when all 32 lanes
// have come; cp.async arrives when it is waited for. Two runs may take the threads in different orders: what differs is
// a race.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;
using std::max;
using std::min;

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

struct uint4 {
  u32 x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};

namespace emulator {

struct Index {
  u32 x = 0;
};
inline Index thread_index, block_index;

extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

struct Lane {
  u64 words[8];
};
struct Warp {
  int arrived = 0;
  unsigned generation = 0;
  Lane lanes[2][32];
};
struct Copy {
  void* to;
  const void* from;
  bool present;
};
struct Fiber {
  std::unique_ptr<char[]> stack;
  void* pointer = nullptr;
  bool done = false;
  std::vector<Copy> copies;
};

struct Cta {
  std::vector<char> storage;
  char* shared = nullptr;
  int arrived = 0;
  unsigned generation = 0;
  bool all[2] = {};
};

inline std::vector<Fiber> fibers;  // of all CTAs of a cluster
inline std::vector<Warp> warps;
inline std::vector<Cta> ctas;
inline std::size_t cta_index, fiber_index;  // of who runs
inline char* shared_begin;
inline std::size_t shared_size;
inline const std::function<void()>* body;
inline void* scheduler;
inline int order;
inline unsigned phases_ended;  // of other barriers

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s (block %u, thread %u)\n", what, block_index.x, thread_index.x);
  std::abort();
}

inline Fiber& current() { return fibers[fiber_index]; }
inline void yield() {
  Fiber& fiber = current();
  emulator_switch(&fiber.pointer, scheduler);
}
inline void enter() {
  (*body)();
  current().done = true;
  yield();
  std::abort();
}

/// What all lanes gave, once all have come.
inline const Lane* meet(const Lane& mine) {
  Warp& warp = warps[fiber_index / 32];
  const unsigned generation = warp.generation;
  Lane* const lanes = warp.lanes[generation % 2];
  lanes[thread_index.x % 32] = mine;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.generation;
  }
  while (warp.generation == generation) yield();
  return lanes;
}

inline bool barrier(bool value) {
  Cta& cta = ctas[cta_index];
  const unsigned generation = cta.generation;
  bool& all = cta.all[generation % 2];
  if (cta.arrived == 0) all = true;
  all = all and value;
  if (++cta.arrived == static_cast<int>(fibers.size() / ctas.size())) {
    cta.arrived = 0;
    ++cta.generation;
    ++phases_ended;
  }
  while (cta.generation == generation) yield();
  return all;
}

inline void check_shared(const void* at, std::size_t bytes, std::size_t alignment) {
  const char* const p = static_cast<const char*>(at);
  if (p < shared_begin or p + bytes > shared_begin + shared_size) fail("an address outside shared memory");
  if (reinterpret_cast<std::uintptr_t>(p) % alignment != 0) fail("a misaligned shared address");
}
inline void check_aligned(const void* at, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(at) % alignment != 0) fail("a misaligned address");
}

/// CTAs from `first_block` on, as many as there are.
inline void run_cluster(u32 first_block, std::size_t threads) {
  constexpr std::size_t stack_bytes = 128 << 10;
  const std::size_t all_threads = threads * ctas.size();
  if (fibers.size() != all_threads) {
    fibers.clear();
    fibers.resize(all_threads);
    for (Fiber& fiber : fibers) fiber.stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
    warps.assign(all_threads / 32, {});
  }
  for (Cta& cta : ctas) cta.arrived = 0;
  for (Fiber& fiber : fibers) {
    auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + stack_bytes) & ~std::uintptr_t{15};
    auto* slots = reinterpret_cast<void**>(top) - 8;  // six registers, the entry, and what makes the stack's alignment
    std::fill_n(slots, 8, nullptr);
    slots[6] = reinterpret_cast<void*>(&enter);
    fiber.pointer = slots;
    fiber.done = false;
    fiber.copies.clear();
  }
  std::size_t idle = 0;
  for (std::size_t left = all_threads; left > 0;) {
    const std::size_t before = left;
    unsigned generations = phases_ended;
    for (const Warp& warp : warps) generations += warp.generation;
    for (std::size_t w = 0; w < all_threads / 32; ++w) {
      // order 1 takes the warps, and their lanes, from the last to the first; order 2 lets a warp run as far as it can.
      for (int rounds = 0; rounds < (order == 2 ? 64 : 1); ++rounds)
        for (std::size_t l = 0; l < 32; ++l) {
          std::size_t i = 32 * w + l;
          if (order == 1) i = all_threads - 1 - i;
          if (fibers[i].done) continue;
          fiber_index = i;
          cta_index = i / threads;
          thread_index.x = static_cast<u32>(i % threads);
          block_index.x = first_block + static_cast<u32>(cta_index);
          shared_begin = ctas[cta_index].shared;
          emulator_switch(&scheduler, fibers[i].pointer);
          if (fibers[i].done) --left;
        }
    }
    unsigned now = phases_ended;
    for (const Warp& warp : warps) now += warp.generation;
    idle = left == before and now == generations ? idle + 1 : 0;
    if (idle > 4) fail("threads wait for each other forever");
  }
  for (const Fiber& fiber : fibers)
    if (not fiber.copies.empty()) fail("copies that nobody waited for");
}

/// Runs `kernel` for every thread of a grid.
inline void run(u32 grid, std::size_t cluster, std::size_t threads, std::size_t shared_bytes, int order_of_threads,
                const std::function<void()>& kernel) {
  order = order_of_threads;
  body = &kernel;
  shared_size = shared_bytes;
  ctas.clear();
  ctas.resize(cluster);
  for (Cta& cta : ctas) {
    cta.storage.resize(shared_bytes + 1024);
    cta.shared = cta.storage.data();
    while (reinterpret_cast<std::uintptr_t>(cta.shared) % 1024 != 0) ++cta.shared;
  }
  for (u32 block = 0; block < grid; block += static_cast<u32>(cluster)) {
    for (const Cta& cta : ctas) std::memset(cta.shared, 0xff, shared_bytes);  // NaN
    run_cluster(block, threads);
  }
}

inline float half_of(u32 pair, int which) {
  return std::bit_cast<float>((which == 0 ? pair << 16 : pair & 0xffff0000u));
}

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index

inline float __uint_as_float(u32 x) { return std::bit_cast<float>(x); }
inline u32 __float_as_uint(float x) { return std::bit_cast<u32>(x); }
inline void __syncthreads() { emulator::barrier(true); }
inline int __syncthreads_and(int x) { return emulator::barrier(x != 0); }
inline bool __any_sync(u32, bool mine) {
  const emulator::Lane* const lanes = emulator::meet({{mine}});
  bool any = false;
  for (int i = 0; i < 32; ++i) any = any or lanes[i].words[0] != 0;
  return any;
}
inline bool __all_sync(u32 lanes, bool mine) { return not __any_sync(lanes, not mine); }
inline float __shfl_xor_sync(u32, float x, int distance) {
  const auto* lanes = emulator::meet({{__float_as_uint(x)}});
  return __uint_as_float(
      static_cast<u32>(lanes[(emulator::thread_index.x % 32) ^ static_cast<u32>(distance)].words[0]));
}
inline u32 atomicOr(u32* at, u32 bits) { return std::exchange(*at, *at | bits); }

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};
inline float widen(float x) { return x; }
inline float widen(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
inline float widen(f16 x) { return static_cast<float>(std::bit_cast<_Float16>(x.bits)); }
template <class T>
T narrow(float x);
template <>
inline float narrow<float>(float x) {
  return x;
}
template <>
inline bf16 narrow<bf16>(float x) {
  const u32 bits = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline f16 narrow<f16>(float x) {
  return {std::bit_cast<u16>(static_cast<_Float16>(x))};
}
template <class T>
inline float2 widen_pair(u32 pair) {
  return {widen(T{static_cast<u16>(pair)}), widen(T{static_cast<u16>(pair >> 16)})};
}
template <class T>
inline u32 narrow_pair(float first, float second) {
  return narrow<T>(first).bits | u32(narrow<T>(second).bits) << 16;
}
inline float exp2_fast(float x) {
  const float y = std::exp2f(x);
  return y < 0x1p-126f ? 0 : y;
}

inline void let_next_stage_begin() {}
inline void wait_for_stage_before() {}

inline uint4 load_streaming(const void* global) {
  emulator::check_aligned(global, 16);
  uint4 x;
  std::memcpy(&x, global, sizeof x);
  return x;
}
inline void store_streaming(void* global, uint4 x) {
  emulator::check_aligned(global, 16);
  std::memcpy(global, &x, sizeof x);
}
inline char* shared_memory() { return emulator::shared_begin; }
inline void copy_async(void* shared, const void* global, bool present) {
  emulator::check_shared(shared, 16, 16);
  emulator::check_aligned(global, 16);
  emulator::current().copies.push_back({shared, global, present});
}
inline void wait_for_copies() {
  for (const auto& [to, from, present] : emulator::current().copies)
    present ? (void)std::memcpy(to, from, 16) : (void)std::memset(to, 0, 16);
  emulator::current().copies.clear();
}

struct Matrices {
  u32 m[4];
};
inline Matrices load_matrices(const void* row) {
  emulator::check_shared(row, 16, 16);
  const auto* lanes = emulator::meet({{reinterpret_cast<u64>(row)}});
  const u32 lane = emulator::thread_index.x % 32;
  Matrices x;
  for (u32 i = 0; i < 4; ++i)
    std::memcpy(&x.m[i], reinterpret_cast<const char*>(lanes[8 * i + lane / 4].words[0]) + 4 * (lane % 4), 4);
  return x;
}
inline Matrices load_transposed(const void* row) {
  emulator::check_shared(row, 16, 16);
  const auto* lanes = emulator::meet({{reinterpret_cast<u64>(row)}});
  const u32 lane = emulator::thread_index.x % 32;
  Matrices x;
  for (u32 i = 0; i < 4; ++i) {
    u16 pair[2];
    for (u32 j = 0; j < 2; ++j)
      std::memcpy(&pair[j], reinterpret_cast<const char*>(lanes[8 * i + 2 * (lane % 4) + j].words[0]) + 2 * (lane / 4),
                  2);
    x.m[i] = pair[0] | u32(pair[1]) << 16;
  }
  return x;
}
inline u32 transpose(u32 matrix) {
  const auto* lanes = emulator::meet({{matrix}});
  const u32 lane = emulator::thread_index.x % 32, row = lane / 4;
  u32 x = 0;
  for (u32 j = 0; j < 2; ++j) {
    const u32 column = 2 * (lane % 4) + j;  // of the result: the row it comes from
    x |= (static_cast<u32>(lanes[4 * column + row / 2].words[0]) >> (16 * (row % 2)) & 0xffffu) << (16 * j);
  }
  return x;
}

namespace emulator {

/// d += a b with `depth` columns of a in tiles of 8.
inline void multiply(float (&d)[4], const Lane* lanes, int depth) {
  const int lane = static_cast<int>(thread_index.x % 32);
  for (int c = 0; c < 4; ++c) {
    const int row = lane / 4, side = c / 2, column = 2 * (lane % 4) + c % 2;
    for (int k = 0; k < 8 * depth; ++k) {
      const u32 a = static_cast<u32>(lanes[4 * row + k % 8 / 2].words[side + 2 * (k / 8)]);
      const u32 b = static_cast<u32>(lanes[4 * column + k % 8 / 2].words[4 + k / 8]);
      d[c] += half_of(a, k % 2) * half_of(b, k % 2);
    }
  }
}

}  // namespace emulator

inline void multiply(float (&d)[4], const Matrices& a, u32 b0, u32 b1) {
  emulator::multiply(d, emulator::meet({{a.m[0], a.m[1], a.m[2], a.m[3], b0, b1}}), 2);
}
inline void multiply(float (&d)[4], u32 a0, u32 a1, u32 b) {
  emulator::multiply(d, emulator::meet({{a0, a1, 0, 0, b}}), 1);
}
