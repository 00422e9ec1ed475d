#pragma once
#include <random>
#include <string>
#include <vector>

#include "runtime/cpu.hpp"
#include "runtime/pack.hpp"
#include "runtime/problem.hpp"
#include "tests/files.hpp"

namespace glaive::testing {

inline Case random_case(std::mt19937& random) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto dtype = [&] { return static_cast<DType>(pick(0, 2)); };
  Case c;
  c.problem.op = static_cast<Op>(pick(0, 1));
  const std::int64_t kv_heads = pick(1, 64);
  c.problem.kv_heads = KvHeads(kv_heads);
  c.problem.heads = Heads(kv_heads * pick(1, 8));
  c.problem.k = KeyDim(pick(1, 512));
  c.problem.v = ValueDim(pick(1, 512));
  c.problem.io = dtype();
  c.problem.gate = dtype();
  c.problem.state = dtype();
  c.problem.gate_form = static_cast<GateForm>(pick(0, 1));
  c.problem.layout = static_cast<StateLayout>(pick(0, 1));
  const bool step = c.problem.op == Op::step;
  if (pick(0, 1) == 0) {
    c.shape = Shape::uniform(Sequences(pick(1, 300)), Tokens(pick(0, step ? most_step_tokens : 100000)));
  } else {
    std::vector<Tokens> lengths;
    for (std::int64_t n = pick(1, 9); n > 0; --n) lengths.push_back(Tokens(pick(0, step ? most_step_tokens : 5000)));
    c.shape = Shape::ragged(std::move(lengths));
  }
  return c;
}

inline Target base_target() { return {Target::Kind::cpu, "x86-64-v2", {}}; }

inline CodeObject kernel_object(const char* file = TEST_KERNEL_1) {
  CodeObject code;
  code.target = base_target();
  code.bytes = read_bytes(file);
  return code;
}

/// The plan of kernel.c's `forward`.
inline Plan kernel_plan() {
  Plan plan;
  plan.variant = "test(C=1)";
  plan.target = base_target();
  Stage stage;
  stage.entry = "forward";
  stage.tasks = {1, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
  stage.args = {Arg::q,
                Arg::k,
                Arg::v,
                Arg::g,
                Arg::o,
                Arg::state_in,
                Arg::state_out,
                Arg::cu_seqlens,
                Arg::q_token,
                Arg::q_head,
                Arg::k_token,
                Arg::k_head,
                Arg::v_token,
                Arg::v_head,
                Arg::g_token,
                Arg::g_head,
                Arg::o_token,
                Arg::o_head,
                Arg::state_in_slot,
                Arg::state_in_head,
                Arg::state_out_slot,
                Arg::state_out_head,
                Arg::longest,
                Arg::heads,
                Arg::kv_heads,
                Arg::scale,
                Arg::read_slots,
                Arg::write_slots,
                Arg::slots,
                Arg::device_status,
                Arg::tokens};
  stage.scratch_bytes = 8 * 8 * 4;
  plan.stages = {stage};
  return plan;
}

inline constexpr const char* kernel_problem = "forward H4 Hkv2 K8 V8 f32";

inline WinnerKey kernel_key() {
  WinnerKey key;
  key.device = identity(host_cpu_device());
  key.target = to_string(host_cpu_target());
  key.problem = kernel_problem;
  key.bucket = {2, 1};  // work 4..7, tokens 2..15
  key.policy = "v1 effort=normal";
  key.space = 17;
  return key;
}

inline PackEntry kernel_entry() { return {kernel_key(), kernel_plan(), {kernel_object()}, "{\"times\":[1.5]}"}; }

/// A small entry, of no use for running, that differs in its key by `number`.
inline PackEntry small_entry(int number) {
  PackEntry entry;
  entry.key = kernel_key();
  entry.key.space = static_cast<std::uint64_t>(number);
  entry.plan = kernel_plan();
  entry.plan.variant = "small(" + std::to_string(number) + ")";
  CodeObject code;
  code.target = base_target();
  code.bytes.assign(100 + static_cast<std::size_t>(number), static_cast<std::byte>(number));
  entry.code = {code};
  entry.evidence = "evidence " + std::to_string(number);
  return entry;
}

}  // namespace glaive::testing
