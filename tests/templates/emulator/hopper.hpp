#pragma once
// Stands in for templates/cuda/hopper.cuh. Copies that a barrier waits for arrive when somebody waits there, or boxes
// at once; boxes are sent, and products happen, when they are begun or when they are waited for: by the order of the
// run.
#include <map>

#include "emulator.hpp"
#include "tensor_map.hpp"

using Barrier = u64;
using emulator::TensorMap;

namespace emulator {

struct Phases {
  int count = 0, pending = 0;
  u32 parity = 0;
  i64 bytes = 0;  // of boxes that are expected
  void arrive() {
    --pending;
    end_when_complete();
  }
  void end_when_complete() {
    if (pending > 0) return;  // until then bytes may come before they are expected
    if (bytes > 0) return;
    if (bytes < 0) fail("more bytes than a barrier expects");
    pending = count;
    parity ^= 1;
    ++phases_ended;
  }
};
struct Box {
  Barrier* barrier;
  char* to;
  const TensorMap* map;
  i64 first[3];

  u32 bytes() const { return map->box[0] * map->box[1] * map->box[2] * map->element_bytes; }
  /// From the tensor, or to it, which leaves what lies outside of it as it is.
  void copy(bool back = false) const {
    const u32 row_bytes = map->box[0] * map->element_bytes;
    for (u32 t = 0; t < map->box[2]; ++t)
      for (u32 c = 0; c < map->box[0]; ++c) {
        const i64 at[3] = {first[0] + c, first[1], first[2] + t};
        bool inside = true;
        for (int i = 0; i < 3; ++i) inside = inside and at[i] >= 0 and at[i] < static_cast<i64>(map->extents[i]);
        u64 place = to - shared_begin + t * row_bytes + c * map->element_bytes;
        if (map->swizzled) place ^= (place >> 7 & 7) << 4;
        char* const there = map->base + at[0] * map->element_bytes + at[1] * static_cast<i64>(map->strides[0]) +
                            at[2] * static_cast<i64>(map->strides[1]);
        if (inside and back)
          std::memcpy(there, shared_begin + place, map->element_bytes);
        else if (inside)
          std::memcpy(shared_begin + place, there, map->element_bytes);
        else if (not back)
          std::memset(shared_begin + place, 0, map->element_bytes);
      }
  }
};
struct Sent {  // to another CTA
  Barrier* barrier;
  char* to;
  const char* from;
  u32 bytes;
};
struct Gathering {
  int arrived = 0;
  unsigned generation = 0;
  int true_ones[2] = {0, 0};
};
inline std::map<Barrier*, Phases> phases;
inline std::vector<Box> boxes;
inline std::map<std::size_t, std::vector<Box>> boxes_sent;  // by thread
inline std::vector<Sent> sent;
inline std::map<std::pair<std::size_t, int>, Gathering> gatherings;  // by CTA and number
using Product = std::function<void()>;
inline std::map<std::size_t, std::vector<std::vector<Product>>> products;  // by thread and group; the last one is open

/// How many gave true.
inline int gather(int id, int count, bool value, std::size_t cta = cta_index) {
  Gathering& here = gatherings[{cta, id}];
  const unsigned generation = here.generation;
  int& true_ones = here.true_ones[generation % 2];
  if (here.arrived == 0) true_ones = 0;
  true_ones += value;
  if (++here.arrived == count) {
    here.arrived = 0;
    ++here.generation;
    ++phases_ended;
  }
  while (here.generation == generation) yield();
  return true_ones;
}

/// Element (i, k) of an operand: i along rows or columns of the result, k along the sum.
inline u16 element(u64 operand, bool columns, int i, int k) {
  const auto field = [&](int shift) { return static_cast<int>((operand >> shift & 0x3fff) << 4); };
  int at = field(0);
  if (columns)
    at += i / 64 * field(16) + k / 8 * field(32) + k % 8 * 128 + i % 64 * 2;
  else
    at += i / 8 * field(32) + i % 8 * 128 + k * 2;
  at ^= (at >> 7 & 7) << 4;
  u16 x;
  check_shared(shared_begin + at, 2, 2);
  std::memcpy(&x, shared_begin + at, 2);
  return x;
}

inline void later(Product product) {
  if (order == 0) return product();
  auto& groups = products[fiber_index];
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back(std::move(product));
}

template <class T, int n>
void add_product(float (&d)[n], const std::function<float(int, int)>& a, u64 b, bool b_columns, bool add) {
  const int lane = static_cast<int>(thread_index.x % 32);
  for (int i = 0; i < n; ++i) {
    const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    float sum = add ? d[i] : 0;
    for (int k = 0; k < 16; ++k) sum += a(i / 2 % 2, k) * widen(T{element(b, b_columns, column, k)});
    d[i] = sum;
  }
}

}  // namespace emulator

inline void __syncwarp() { emulator::meet({}); }
inline u32 __shfl_sync(u32, u32 x, int lane) { return static_cast<u32>(emulator::meet({{x}})[lane].words[0]); }

inline float inverse_fast(float x) { return 1 / x; }
template <class T>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<bf16> = true;

inline u32 any_bits(u32 mine) {
  const emulator::Lane* const lanes = emulator::meet({{mine}});
  u32 any = 0;
  for (int i = 0; i < 32; ++i) any |= static_cast<u32>(lanes[i].words[0]);
  return any;
}
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<u64>(x)); }
inline u32 thread_again() { return emulator::thread_index.x; }
template <class T>
u32 multiply_pairs(u32 a, u32 b) {
  const float2 x = widen_pair<T>(a), y = widen_pair<T>(b);
  return narrow_pair<T>(x.x * y.x, x.y * y.y);
}
inline u32 larger_pair(u32 a, u32 b) {
  const float2 x = widen_pair<f16>(a), y = widen_pair<f16>(b);
  return narrow_pair<f16>(std::fmax(x.x, std::fabs(y.x)), std::fmax(x.y, std::fabs(y.y)));
}

inline void init_barrier(Barrier& barrier, int count) { emulator::phases[&barrier] = {count, count, 0}; }
inline void publish_barriers() {}
inline void drop_barrier(Barrier& barrier) {
  for (const auto& box : emulator::boxes)
    if (box.barrier == &barrier) emulator::fail("boxes under way to a barrier that is dropped");
  emulator::phases.erase(&barrier);
}
inline bool has_ended(const Barrier& barrier, u32 parity) {
  return emulator::phases[const_cast<Barrier*>(&barrier)].parity != parity;
}
inline void arrive(Barrier& barrier) { emulator::phases[&barrier].arrive(); }
inline void arrive_expecting(Barrier& barrier, u32 bytes) {
  emulator::Phases& phase = emulator::phases[&barrier];
  phase.bytes += bytes;
  phase.arrive();
}
inline void copy_box(void* shared, const TensorMap& map, int channel, int head, int token, Barrier& barrier) {
  const emulator::Box box{&barrier, static_cast<char*>(shared), &map, {channel, head, token}};
  emulator::check_shared(shared, box.bytes(), map.swizzled ? 1024 : 128);
  if (emulator::order == 2) box.copy();  // its bytes are told later
  emulator::boxes.push_back(box);
}
inline void send_box(const TensorMap& map, int channel, int head, int token, const void* shared) {
  const emulator::Box box{nullptr, static_cast<char*>(const_cast<void*>(shared)), &map, {channel, head, token}};
  emulator::check_shared(shared, box.bytes(), map.swizzled ? 1024 : 128);
  if (emulator::order == 2) return box.copy(true);
  emulator::boxes_sent[emulator::fiber_index].push_back(box);
}
inline void wait_sent() {
  auto& mine = emulator::boxes_sent[emulator::fiber_index];
  for (const emulator::Box& box : mine) box.copy(true);
  mine.clear();
}
inline void wait(Barrier& barrier, u32 parity) {
  emulator::Phases& phase = emulator::phases[&barrier];
  while (phase.parity == parity) {
    for (const emulator::Box& box : emulator::boxes)
      if (box.barrier == &barrier) {
        if (emulator::order != 2) box.copy();
        phase.bytes -= box.bytes();
        phase.end_when_complete();
      }
    std::erase_if(emulator::boxes, [&](const auto& box) { return box.barrier == &barrier; });
    for (const emulator::Sent& one : emulator::sent)
      if (one.barrier == &barrier) {
        if (emulator::order != 2) std::memcpy(one.to, one.from, one.bytes);
        phase.bytes -= one.bytes;
        phase.end_when_complete();
      }
    std::erase_if(emulator::sent, [&](const auto& one) { return one.barrier == &barrier; });
    if (phase.parity == parity) emulator::yield();
  }
}

template <int cluster>
u32 cta_in_cluster() {
  return cluster == 1 ? 0 : static_cast<u32>(emulator::cta_index);
}
inline void sync_cluster() {
  emulator::gather(0, static_cast<int>(emulator::fibers.size()), true, emulator::ctas.size());
}
namespace emulator {
template <class T>
T* in_cta(u32 cta, T* here) {
  if (cta >= ctas.size()) fail("a CTA that is not in the cluster");
  return reinterpret_cast<T*>(ctas[cta].shared + (reinterpret_cast<char*>(here) - shared_begin));
}
}  // namespace emulator
inline void arrive_at(Barrier& barrier, u32 cta) { emulator::phases[emulator::in_cta(cta, &barrier)].arrive(); }
inline void copy_to(u32 cta, void* to, const void* from, u32 bytes, Barrier& barrier) {
  emulator::check_shared(to, bytes, 16);
  emulator::check_shared(from, bytes, 16);
  if (bytes % 16 != 0) emulator::fail("a copy of no multiple of 16 bytes");
  const emulator::Sent one{emulator::in_cta(cta, &barrier), emulator::in_cta(cta, static_cast<char*>(to)),
                           static_cast<const char*>(from), bytes};
  if (emulator::order == 2) std::memcpy(one.to, one.from, one.bytes);  // its bytes are told later
  emulator::sent.push_back(one);
}

template <int id, int count>
void sync() {
  emulator::gather(id, count, true);
}
template <int count>
void sync(int id) {
  emulator::gather(id, count, true);
}
template <int id, int count>
bool sync_and(bool mine) {
  return emulator::gather(id, count, mine) == count;
}
template <int>
void give_registers_back() {}
template <int>
void take_registers() {}

inline void store_matrices(void* row, u32 m0, u32 m1, u32 m2, u32 m3) {
  emulator::check_shared(row, 16, 16);
  const auto* lanes = emulator::meet({{reinterpret_cast<u64>(row)}});
  const u32 lane = emulator::thread_index.x % 32, matrices[4] = {m0, m1, m2, m3};
  for (u32 m = 0; m < 4; ++m)
    std::memcpy(reinterpret_cast<char*>(lanes[8 * m + lane / 4].words[0]) + lane % 4 * 4, &matrices[m], 4);
}
inline void store_transposed(void* row, u32 m0, u32 m1, u32 m2, u32 m3) {
  emulator::check_shared(row, 16, 16);
  const auto* lanes = emulator::meet({{reinterpret_cast<u64>(row)}});
  const u32 lane = emulator::thread_index.x % 32, matrices[4] = {m0, m1, m2, m3};
  for (u32 m = 0; m < 4; ++m)
    for (u32 j = 0; j < 2; ++j) {
      const u16 x = static_cast<u16>(matrices[m] >> (16 * j));
      std::memcpy(reinterpret_cast<char*>(lanes[8 * m + lane % 4 * 2 + j].words[0]) + lane / 4 * 2, &x, 2);
    }
}

inline void publish_to_products() {}
inline void begin_products() {}
inline void commit_products() {
  auto& groups = emulator::products[emulator::fiber_index];
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
template <std::size_t pending>
void wait_products() {
  auto& groups = emulator::products[emulator::fiber_index];
  for (; groups.size() > pending + 1; groups.erase(groups.begin()))
    for (const auto& product : groups.front()) product();
}
template <int n>
void hold(float (&)[n]) {}

inline u64 rows_operand(const void* tile) {
  emulator::check_shared(tile, 16, 1024);
  const u64 at = static_cast<const char*>(tile) - emulator::shared_begin;
  return at >> 4 | u64(1) << 16 | u64(1024 >> 4) << 32;
}
inline u64 columns_operand(const void* tile, int panel_bytes) {
  return (rows_operand(tile) & ~(u64(0x3fff) << 16)) | u64(panel_bytes >> 4) << 16;
}

template <class T, int a_columns, int b_columns, int n>
void multiply_shared(float (&d)[n], u64 a, u64 b, int add) {
  emulator::later([&d, a, b, add] {
    const int first = static_cast<int>(emulator::thread_index.x % 128 / 32 * 16 + emulator::thread_index.x % 32 / 4);
    emulator::add_product<T>(
        d, [&](int half, int k) { return widen(T{emulator::element(a, a_columns, first + 8 * half, k)}); }, b,
        b_columns, add != 0);
  });
}
template <class T, int b_columns, int n>
void multiply_registers(float (&d)[n], const u32 (&a)[4], u64 b, int add) {
  const auto* lanes = emulator::meet({{a[0], a[1], a[2], a[3]}});
  const u32 quad = emulator::thread_index.x % 32 / 4 * 4;
  std::vector<float> row(32);
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < 16; ++k) {
      const auto word = static_cast<u32>(lanes[quad + k % 8 / 2].words[half + k / 8 * 2]);
      row[16 * half + k] = widen(T{static_cast<u16>(word >> (k % 2 * 16))});
    }
  emulator::later([&d, row, b, add] {
    emulator::add_product<T>(d, [&](int half, int k) { return row[16 * half + k]; }, b, b_columns, add != 0);
  });
}
