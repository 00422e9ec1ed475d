#include "autotune/baselines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "autotune/baselines_native.hpp"

namespace glaive {
namespace {

std::string missing_features() {
  unsigned have = 0;
  if (__builtin_cpu_supports("avx")) have |= native::avx;
  if (__builtin_cpu_supports("avx2")) have |= native::avx2;
  if (__builtin_cpu_supports("fma")) have |= native::fma;
  if (__builtin_cpu_supports("f16c")) have |= native::f16c;
  if (__builtin_cpu_supports("bmi2")) have |= native::bmi2;
  if (__builtin_cpu_supports("avx512f")) have |= native::avx512f;
  if (__builtin_cpu_supports("avx512dq")) have |= native::avx512dq;
  if (__builtin_cpu_supports("avx512bw")) have |= native::avx512bw;
  if (__builtin_cpu_supports("avx512vl")) have |= native::avx512vl;
  constexpr std::string_view names[] = {"avx",     "avx2",     "fma",      "f16c",    "bmi2",
                                        "avx512f", "avx512dq", "avx512bw", "avx512vl"};
  std::string missing;
  for (std::size_t bit = 0; bit < std::size(names); ++bit)
    if (native::features & ~have & (1u << bit)) missing += (missing.empty() ? "" : ", ") + std::string(names[bit]);
  return missing;
}

/// Memory of one thread, kept from call to call so that no timed run allocates.
float* thread_memory(std::int64_t floats) {
  thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
  thread_local std::int64_t size = 0;
  if (size < floats) {
    const auto bytes = static_cast<std::size_t>((floats * 4 + 63) / 64 * 64);
    memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    size = memory == nullptr ? 0 : floats;
  }
  return memory.get();
}

struct Job {
  Call& call;
  std::int64_t width;  ///< of a tile; V = one tile
  void (*head)(const native::HeadTask&);
};

/// The state moves between the call's layout and tiles of [K][width].
template <class Move>
void for_each_state_element(const Job& job, Move move) {
  const std::int64_t dim_k = job.call.what.problem.k.count(), dim_v = job.call.what.problem.v.count();
  const bool k_first = job.call.what.problem.layout == StateLayout::kv;
  std::int64_t mine = 0;
  for (std::int64_t column = 0; column < dim_v; column += job.width)
    for (std::int64_t i = 0; i < dim_k; ++i, mine += job.width)
      for (std::int64_t j = column; j < std::min(dim_v, column + job.width); ++j)
        move(mine + j - column, k_first ? i * dim_v + j : j * dim_k + i);
}

void run_head(void* context, std::int64_t task, int) {
  const Job& job = *static_cast<const Job*>(context);
  Call& call = job.call;
  const Problem& problem = call.what.problem;
  const std::int64_t kv_heads = problem.kv_heads.count(), b = task / kv_heads, h = task % kv_heads;
  const std::int64_t group = problem.heads.count() / kv_heads, first = call.first_token(b);
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count();
  const std::int64_t columns = (dim_v + job.width - 1) / job.width * job.width;

  float* const room = thread_memory(dim_k * columns + native::token_block * dim_k);
  if (room == nullptr) std::abort();
  float* const state = room;
  const float* initial = call.initial_state(b, h);
  if (initial != nullptr and call.passing == Passing::in_place) initial = call.final_state(b, h);
  for (std::int64_t i = 0; i < dim_k * columns; ++i) state[i] = 0;
  if (initial != nullptr) for_each_state_element(job, [&](auto mine, auto theirs) { state[mine] = initial[theirs]; });

  native::HeadTask head{};
  head.q = call.q.data().data() + first * call.q_strides.token + h * group * call.q_strides.head;
  head.k = call.k.data().data() + first * call.k_strides.token + h * call.k_strides.head;
  head.v = call.v.data().data() + first * call.v_strides.token + h * call.v_strides.head;
  head.g = call.g.data().data() + first * call.g_strides.token + h * call.g_strides.head;
  head.o = call.o.data().data() + first * call.o_strides.token + h * group * call.o_strides.head;
  head.q_token = call.q_strides.token, head.q_head = call.q_strides.head;
  head.k_token = call.k_strides.token, head.v_token = call.v_strides.token, head.g_token = call.g_strides.token;
  head.o_token = call.o_strides.token, head.o_head = call.o_strides.head;
  head.tokens = call.tokens(b), head.group = group, head.dim_k = dim_k, head.dim_v = dim_v;
  head.scale = call.scale;
  head.state = state, head.room = room + dim_k * columns;
  job.head(head);

  float* const final_state = call.final_state(b, h);
  if (final_state != nullptr)
    for_each_state_element(job, [&](auto mine, auto theirs) { final_state[theirs] = state[mine]; });
}

Result<void> run(Call& call, WorkerPool& pool, std::int64_t width, void (*head)(const native::HeadTask&)) {
  static const std::string missing = missing_features();
  if (not missing.empty())
    return fail(
        Status::wrong_device,
        fmt::format("the plain loops were compiled for another processor: this one lacks {}; build glaive here, or "
                    "with -DGLAIVE_NATIVE_BASELINES=OFF",
                    missing));
  if (call.what.problem.gate_form != GateForm::log)
    return fail(Status::unsupported, "the plain loops take natural-log gates, not gate=logit");
  Job job{call, width, head};
  pool.run(call.what.shape.sequences().count() * call.what.problem.kv_heads.count(), run_head, &job);
  return {};
}

}  // namespace

Result<void> baseline_rows(Call& call, WorkerPool& pool) {
  return run(call, pool, call.what.problem.v.count(), native::rows);
}

Result<void> baseline_tiles(Call& call, WorkerPool& pool) { return run(call, pool, native::tile_width, native::tiles); }

}  // namespace glaive
