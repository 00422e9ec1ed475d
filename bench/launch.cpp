// What a launch costs the host: calls of a kernel whose launch does nothing. Prints nanoseconds a call as JSON: the
// median of 11 batches of 100,000 calls, and the range of the batches.
//   launch
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/c_abi.hpp"

using namespace glaive;

namespace {

/// The device of this machine, but for its kernels.
class StubDevice final : public Device {
 public:
  StubDevice() : Device(host_cpu_device(), 1) {}
  bool runs(const Target&) const override { return true; }
  Result<std::unique_ptr<const Kernel>> load(const Plan& plan, std::span<const CodeObject>) override {
    return std::make_unique<const StubKernel>(plan);
  }

 private:
  class StubKernel final : public Kernel {
   public:
    explicit StubKernel(const Plan& plan) : plan_(plan) {}
    const Plan& plan() const override { return plan_; }
    Result<void> launch(const Launch&) const override { return {}; }

   private:
    Plan plan_;
  };
};

/// A pack as `glaive tune` writes it, of two shapes of one problem.
std::vector<std::byte> pack_for(const char* problem) {
  std::vector<PackEntry> entries;
  for (const Bucket bucket : {Bucket{8, 0}, Bucket{2, 5}}) {
    PackEntry entry;
    entry.key = {identity(host_cpu_device()), to_string(host_cpu_target()), problem, bucket, "v1", 0, 1};
    entry.plan.variant = "stub(C=64)";
    entry.plan.target = host_cpu_target();
    Stage stage;
    stage.entry = "stub";
    stage.tasks = {1, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
    for (std::size_t arg = 0; arg < arg_count; ++arg) stage.args.push_back(static_cast<Arg>(arg));
    stage.scratch_bytes = 4096;
    entry.plan.stages = {stage};
    entry.plan.workspace = {{4, {{Axis::sequences, 1}, {Axis::kv_heads, 1}, {Axis::longest, 64}}}};
    entry.code.resize(1);
    entry.code[0].target = host_cpu_target();
    entries.push_back(std::move(entry));
  }
  return encode_pack(entries);
}

void check(glaive_status status) {
  if (status == GLAIVE_OK) return;
  std::fprintf(stderr, "launch: %s\n", glaive_last_error());
  std::exit(1);
}

template <class Call>
void measure(const char* name, const Call& call, const char* after) {
  constexpr int calls = 100000, repeats = 11;
  double ns[repeats];
  for (double& one : ns) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) check(call());
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - begin;
    one = spent.count() / calls;
  }
  std::sort(ns, ns + repeats);
  std::printf("  \"%s_ns\": {\"median\": %.2f, \"best\": %.2f, \"worst\": %.2f}%s\n", name, ns[repeats / 2], ns[0],
              ns[repeats - 1], after);
}

}  // namespace

int main() {
  glaive_device device = {std::make_shared<StubDevice>()};
  constexpr const char* text = "step H4 K64 V64 f32";
  glaive_problem problem = {};
  problem.size = sizeof problem;
  check(glaive_problem_parse(text, &problem));
  const auto bytes = pack_for(text);
  glaive_pack* pack = nullptr;
  check(glaive_pack_open_memory(bytes.data(), bytes.size(), &pack));
  glaive_operator* op = nullptr;
  check(glaive_operator_create(&device, &pack, 1, &problem, &op));
  glaive_pack_close(pack);

  // A decode step: 32 sequences, one token each, states in place by slot.
  constexpr std::int64_t sequences = 32, slots = 40, row = 4 * 64;
  glaive_shape shape = {};
  shape.size = sizeof shape;
  shape.sequences = sequences;
  shape.tokens = 1;
  std::vector<float> q(sequences * row), k(q), v(q), g(q), o(q), states(slots * row * 64);
  std::vector<std::int32_t> numbers(sequences);
  std::uint32_t status = 0;
  glaive_args args = {};
  args.size = sizeof args;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
  args.initial_state = args.final_state = states.data();
  args.read_slots = args.write_slots = numbers.data();
  args.slots = slots;
  args.device_status = &status;
  const glaive_plan* plan = nullptr;
  check(glaive_operator_plan(op, &shape, &plan));
  std::size_t workspace_bytes = 0;
  check(glaive_plan_workspace(plan, &shape, &workspace_bytes));
  std::vector<std::byte> memory(workspace_bytes + 64);
  void* workspace = memory.data();
  std::size_t space = memory.size();
  if (std::align(64, workspace_bytes, workspace, space) == nullptr) return 1;
  glaive_launch* launch = nullptr;
  check(glaive_launch_prepare(plan, &shape, &args, workspace, workspace_bytes, &launch));

  std::printf("{\n");
  measure("look_up", [&] { return glaive_operator_plan(op, &shape, &plan); }, ",");
  measure(
      "by_shape",
      [&] {
        const glaive_plan* found = nullptr;
        if (const auto status = glaive_operator_plan(op, &shape, &found); status != GLAIVE_OK) return status;
        return glaive_run(found, &shape, &args, workspace, workspace_bytes);
      },
      ",");
  measure("prepared", [&] { return glaive_launch_run(launch); }, "");
  std::printf("}\n");

  glaive_launch_close(launch);
  glaive_operator_close(op);
}
