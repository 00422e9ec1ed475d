// Operators, several packs and devices, and what a launch costs the host.
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <optional>
#include <thread>

#include "runtime/c_abi.hpp"
#include "runtime/glaive.hpp"
#include "tests/runtime/allocations.hpp"
#include "tests/runtime/bench.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

/// A driver that counts what it is asked for, and launches nothing.
class StubDevice final : public Device {
 public:
  mutable std::atomic<int> loads = 0, launches = 0;
  mutable Launch last;
  bool fails = false;

  StubDevice() : Device(host_cpu_device(), 1) {}
  bool runs(const Target&) const override { return true; }
  Result<std::unique_ptr<const Kernel>> load(const Plan& plan, std::span<const CodeObject>) override {
    ++loads;
    return std::make_unique<const Stub>(plan, *this);
  }

 private:
  class Stub final : public Kernel {
   public:
    Stub(const Plan& plan, const StubDevice& device) : plan_(plan), device_(device) {}
    const Plan& plan() const override { return plan_; }
    Result<void> launch(const Launch& launch) const override {
      if (device_.fails) return fail(Status::failed, "the driver says no");
      if (launch.words[Arg::workspace] != reinterpret_cast<std::uintptr_t>(launch.workspace))
        return fail(Status::failed, "the words are not complete");
      ++device_.launches;
      device_.last = launch;
      return {};
    }

   private:
    Plan plan_;
    const StubDevice& device_;
  };
};

PackEntry entry_for(const char* variant, Bucket bucket, const char* policy = "v1") {
  PackEntry entry = kernel_entry();
  entry.plan.variant = variant;
  entry.key.bucket = bucket;
  entry.key.policy = policy;
  return entry;
}

glaive_pack* pack_of(const std::vector<PackEntry>& entries) {
  const auto bytes = encode_pack(entries);
  glaive_pack* pack = nullptr;
  REQUIRE(glaive_pack_open_memory(bytes.data(), bytes.size(), &pack) == GLAIVE_OK);
  return pack;
}

glaive_problem problem_of(const char* text = kernel_problem) {
  glaive_problem problem = {};
  problem.size = sizeof problem;
  REQUIRE(glaive_problem_parse(text, &problem) == GLAIVE_OK);
  return problem;
}

glaive_shape shape_of(std::int64_t sequences, std::int64_t tokens) {
  glaive_shape shape = {};
  shape.size = sizeof shape;
  shape.sequences = sequences;
  shape.tokens = tokens;
  return shape;
}

struct Served {
  std::string variant;
  glaive_match match = GLAIVE_MATCH_OTHER_DEVICE;
};

/// An operator on a device of the test's own, over packs in memory.
struct OperatorBench {
  std::shared_ptr<StubDevice> stub = std::make_shared<StubDevice>();
  glaive_device device = {stub};
  glaive_problem problem = problem_of();
  glaive_operator* op = nullptr;

  explicit OperatorBench(const std::vector<std::vector<PackEntry>>& packs) {
    std::vector<glaive_pack*> open;
    for (const auto& entries : packs) open.push_back(pack_of(entries));
    const auto status = glaive_operator_create(&device, open.data(), open.size(), &problem, &op);
    INFO(glaive_last_error());
    REQUIRE(status == GLAIVE_OK);
    for (glaive_pack* pack : open) glaive_pack_close(pack);
  }
  ~OperatorBench() { glaive_operator_close(op); }
  OperatorBench(const OperatorBench&) = delete;

  const glaive_plan* plan(std::int64_t sequences, std::int64_t tokens) const {
    const glaive_shape shape = shape_of(sequences, tokens);
    const glaive_plan* plan = nullptr;
    REQUIRE(glaive_operator_plan(op, &shape, &plan) == GLAIVE_OK);
    return plan;
  }
  Served served(std::int64_t sequences, std::int64_t tokens) const {
    const glaive_plan* const found = plan(sequences, tokens);
    Served served;
    served.variant = glaive_plan_variant(found);
    REQUIRE(glaive_plan_match(found, &served.match) == GLAIVE_OK);
    return served;
  }
};

}  // namespace

TEST_CASE("operator: the plan of a shape's bucket, or the nearest, visibly and counted") {
  // Hkv = 2, so that 1 sequence is work 2..3 (bucket 1) and 8 are work 16..31 (bucket 4).
  const OperatorBench b({{entry_for("decode", {4, 0}), entry_for("prefill", {1, 5})}});
  CHECK(glaive_operator_untuned(b.op) == 0);
  CHECK(b.served(8, 1).variant == "decode");
  CHECK(b.served(8, 1).match == GLAIVE_MATCH_EXACT);
  CHECK(b.served(1, 1024).variant == "prefill");
  CHECK(b.served(1, 4095).match == GLAIVE_MATCH_EXACT);
  CHECK(glaive_operator_untuned(b.op) == 0);
  CHECK(b.served(1, 4096).variant == "prefill");
  CHECK(b.served(1, 4096).match == GLAIVE_MATCH_NEAREST);
  CHECK(b.served(16, 2).variant == "decode");
  CHECK(b.served(1 << 24, 1).variant == "decode");
  CHECK(glaive_operator_untuned(b.op) == 4);
  CHECK(glaive_operator_untuned(nullptr) == 0);
}

TEST_CASE("operator: a ragged shape goes by its longest sequence") {
  const OperatorBench b({{entry_for("decode", {4, 0}), entry_for("prefill", {4, 5})}});
  glaive_shape shape = shape_of(8, 2000);
  const std::int32_t never_read = 0;
  shape.cu_seqlens = &never_read;  // on a GPU the host could not
  const glaive_plan* plan = nullptr;
  shape.longest = 2000;
  REQUIRE(glaive_operator_plan(b.op, &shape, &plan) == GLAIVE_OK);
  CHECK(std::string(glaive_plan_variant(plan)) == "prefill");
  shape.longest = 1;
  REQUIRE(glaive_operator_plan(b.op, &shape, &plan) == GLAIVE_OK);
  CHECK(std::string(glaive_plan_variant(plan)) == "decode");
}

TEST_CASE("operator: it agrees with glaive_plan_find in every bucket") {
  std::vector<PackEntry> entries;
  std::mt19937 random(5);
  for (int i = 0; i < 9; ++i)
    entries.push_back(entry_for(("v" + std::to_string(i)).c_str(), bucket_at(random() % bucket_count)));
  OperatorBench b({entries});
  glaive_pack* const pack = pack_of(entries);
  for (const std::int64_t sequences : {1, 2, 4, 8, 16, 32, 40, 48, 64, 96, 128, 256, 512, 1024, 2048, 5000})
    for (const std::int64_t tokens : {0, 1, 2, 15, 16, 64, 256, 1024, 4096, 16384, 65536, 400000}) {
      const glaive_shape shape = shape_of(sequences, tokens);
      if (sequences * tokens > INT32_MAX) continue;
      glaive_plan* found = nullptr;
      REQUIRE(glaive_plan_find(&b.device, pack, &b.problem, &shape, &found) == GLAIVE_OK);
      INFO(sequences << " x " << tokens);
      CHECK(std::string(glaive_plan_description(found)) == glaive_plan_description(b.plan(sequences, tokens)));
      glaive_plan_close(found);
    }
  glaive_pack_close(pack);
}

TEST_CASE("operator: a kernel is loaded once, and only if a shape can reach it") {
  PackEntry elsewhere = entry_for("elsewhere", {4, 0});
  elsewhere.key.device = "name=Other";
  PackEntry other_problem = entry_for("other problem", {4, 0});
  other_problem.key.problem = "forward H4 K8 V8 f32";
  const OperatorBench b({{entry_for("one", {4, 0}), elsewhere, other_problem}, {entry_for("two", {1, 5})}});
  CHECK(b.stub->loads == 2);
  const glaive_plan* const first = b.plan(8, 1);
  CHECK(b.plan(9, 1) == first);
  CHECK(b.stub->loads == 2);
}

TEST_CASE("operator: of equally good entries the earlier pack's wins, of a better one its pack") {
  const OperatorBench b({{entry_for("first", {4, 0})},
                         {entry_for("second", {4, 0}), entry_for("only", {1, 5})},
                         {entry_for("third", {4, 0}), entry_for("third", {1, 5})}});
  CHECK(b.served(8, 1).variant == "first");
  CHECK(b.served(1, 1024).variant == "only");
  CHECK(b.served(1, 1024).match == GLAIVE_MATCH_EXACT);
}

TEST_CASE("operator: an entry that cannot be loaded is passed over in every bucket, visibly") {
  PackEntry bad = entry_for("bad", {4, 0});
  bad.plan.stages[0].entry = "missing";
  glaive_device* device = nullptr;
  REQUIRE(glaive_device_open("cpu", 1, &device) == GLAIVE_OK);
  glaive_pack* packs[] = {pack_of({bad}), pack_of({entry_for("good", {4, 0})})};
  const glaive_problem problem = problem_of();
  glaive_operator* op = nullptr;
  REQUIRE(glaive_operator_create(device, packs, 2, &problem, &op) == GLAIVE_OK);
  const glaive_shape shape = shape_of(8, 1);
  const glaive_plan* plan = nullptr;
  REQUIRE(glaive_operator_plan(op, &shape, &plan) == GLAIVE_OK);
  CHECK(std::string(glaive_plan_variant(plan)) == "good");
  CHECK(contains(glaive_plan_description(plan), "skipped: the code object has no entry \"missing\""));
  CHECK(glaive_operator_untuned(op) == 1);
  glaive_operator_close(op);

  op = nullptr;
  CHECK(glaive_operator_create(device, packs, 1, &problem, &op) == GLAIVE_FAILED);
  CHECK(contains(glaive_last_error(), "missing"));
  CHECK(op == nullptr);
  for (glaive_pack* pack : packs) glaive_pack_close(pack);
  glaive_device_close(device);
}

TEST_CASE("operator: what it cannot be made of, or be asked") {
  OperatorBench b({{entry_for("one", {4, 0})}});
  glaive_pack* packs[] = {pack_of({entry_for("one", {4, 0})}), nullptr};
  glaive_operator* op = nullptr;
  const auto refused = [&](glaive_status status, glaive_status want, const char* part) {
    CHECK(status == want);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
    CHECK(op == nullptr);
  };
  constexpr auto invalid = GLAIVE_INVALID_ARGUMENT;
  refused(glaive_operator_create(nullptr, packs, 1, &b.problem, &op), invalid, "device is NULL");
  refused(glaive_operator_create(&b.device, nullptr, 1, &b.problem, &op), invalid, "packs is NULL");
  refused(glaive_operator_create(&b.device, packs, 0, &b.problem, &op), invalid, "count is 0");
  refused(glaive_operator_create(&b.device, packs, 2, &b.problem, &op), invalid, "packs[1] is NULL");
  refused(glaive_operator_create(&b.device, packs, 1, nullptr, &op), invalid, "problem is NULL");
  refused(glaive_operator_create(&b.device, packs, 1, &b.problem, nullptr), invalid, "op is NULL");
  const glaive_problem uncovered = problem_of("forward H4 K8 V8 bf16");
  refused(glaive_operator_create(&b.device, packs, 1, &uncovered, &op), GLAIVE_UNSUPPORTED,
          "; tune it with: glaive tune 'forward");

  const glaive_plan* plan = nullptr;
  glaive_shape shape = shape_of(1, 1);
  refused(glaive_operator_plan(nullptr, &shape, &plan), invalid, "op is NULL");
  refused(glaive_operator_plan(b.op, nullptr, &plan), invalid, "shape is NULL");
  refused(glaive_operator_plan(b.op, &shape, nullptr), invalid, "plan is NULL");
  shape.sequences = 0;
  refused(glaive_operator_plan(b.op, &shape, &plan), invalid, "shape: B is");
  shape = shape_of(1, -1);
  refused(glaive_operator_plan(b.op, &shape, &plan), invalid, "shape: T is");
  shape = shape_of(3, INT64_MAX / 2);
  refused(glaive_operator_plan(b.op, &shape, &plan), invalid, "shape: ");
  shape.size = 8;
  refused(glaive_operator_plan(b.op, &shape, &plan), invalid, "shape->size is 8");
  CHECK(plan == nullptr);
  glaive_operator_close(nullptr);
  glaive_pack_close(packs[0]);
}

TEST_CASE("operator: look-ups of several threads are all counted") {
  const OperatorBench b({{entry_for("one", {4, 0})}});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      const glaive_shape shape = shape_of(1, 5000);
      const glaive_plan* plan = nullptr;
      for (int i = 0; i < 1000; ++i) (void)glaive_operator_plan(b.op, &shape, &plan);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(glaive_operator_untuned(b.op) == 4000);
}

TEST_CASE("operator: what a driver refuses comes back to the caller") {
  const OperatorBench b({{entry_for("one", {4, 0})}});
  Bench tensors;
  tensors.find();
  const glaive_plan* const plan = b.plan(2, 3);
  const auto run = [&] {
    return glaive_run(plan, &tensors.shape, &tensors.args, tensors.workspace, sizeof tensors.workspace);
  };
  glaive_launch* launch = nullptr;
  REQUIRE(glaive_launch_prepare(plan, &tensors.shape, &tensors.args, tensors.workspace, sizeof tensors.workspace,
                                &launch) == GLAIVE_OK);
  CHECK(b.stub->launches == 0);
  CHECK(run() == GLAIVE_OK);
  CHECK(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(b.stub->launches == 2);
  b.stub->fails = true;
  CHECK(run() == GLAIVE_FAILED);
  CHECK(contains(glaive_last_error(), "the driver says no"));
  CHECK(glaive_launch_run(launch) == GLAIVE_FAILED);
  glaive_launch_close(launch);
}

TEST_CASE("operator: a launch keeps its device and its kernel alive, and nothing else does") {
  OperatorBench b({{entry_for("one", {4, 0})}});
  Bench tensors;
  glaive_launch* launch = nullptr;
  REQUIRE(glaive_launch_prepare(b.plan(2, 3), &tensors.shape, &tensors.args, tensors.workspace,
                                sizeof tensors.workspace, &launch) == GLAIVE_OK);
  const std::weak_ptr<StubDevice> stub = std::exchange(b.stub, nullptr);
  b.device.shared = nullptr;
  glaive_operator_close(std::exchange(b.op, nullptr));
  REQUIRE_FALSE(stub.expired());
  CHECK(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(stub.lock()->launches == 1);
  glaive_launch_close(launch);
  CHECK(stub.expired());
}

TEST_CASE("operator: a launch has every word, by name") {
  const OperatorBench b({{entry_for("one", {4, 0})}});
  Bench tensors;
  const std::int32_t read[] = {0, 1}, write[] = {2, 3}, cu[] = {0, 2, 6};
  std::vector<float> states(static_cast<std::size_t>(9 * Hkv * K * V));
  std::uint32_t status = 0;
  glaive_shape shape = tensors.shape;
  shape.tokens = 6, shape.longest = 4, shape.cu_seqlens = cu;
  glaive_args a = tensors.args;
  a.initial_state = a.final_state = states.data();
  a.read_slots = read, a.write_slots = write, a.slots = 9, a.device_status = &status;
  a.q_token_stride = 32, a.q_head_stride = 8;
  a.scale = 2, a.gate_tau = 16, a.gate_clamp = -3;
  REQUIRE(glaive_run(b.plan(2, 3), &shape, &a, tensors.workspace, sizeof tensors.workspace) == GLAIVE_OK);

  const auto pointer = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const auto scalar = [](float x) { return std::uint64_t{std::bit_cast<std::uint32_t>(x)}; };
  const std::pair<Arg, std::uint64_t> want[] = {
      {Arg::q, pointer(a.q)},
      {Arg::k, pointer(a.k)},
      {Arg::v, pointer(a.v)},
      {Arg::g, pointer(a.g)},
      {Arg::o, pointer(a.o)},
      {Arg::state_in, pointer(states.data())},
      {Arg::state_out, pointer(states.data())},
      {Arg::read_slots, pointer(read)},
      {Arg::write_slots, pointer(write)},
      {Arg::cu_seqlens, pointer(cu)},
      {Arg::device_status, pointer(&status)},
      {Arg::q_token, 32},
      {Arg::q_head, 8},
      {Arg::k_token, 16},
      {Arg::k_head, 8},
      {Arg::v_token, 16},
      {Arg::v_head, 8},
      {Arg::g_token, 16},
      {Arg::g_head, 8},
      {Arg::o_token, 32},
      {Arg::o_head, 8},
      {Arg::state_in_slot, 128},
      {Arg::state_in_head, 64},
      {Arg::state_out_slot, 128},
      {Arg::state_out_head, 64},
      {Arg::sequences, 2},
      {Arg::tokens, 6},
      {Arg::longest, 4},
      {Arg::heads, 4},
      {Arg::kv_heads, 2},
      {Arg::slots, 9},
      {Arg::scale, scalar(2)},
      {Arg::gate_tau, scalar(16)},
      {Arg::gate_clamp, scalar(-3)},
      {Arg::workspace, pointer(tensors.workspace)},
      {Arg::mapped, 0},
  };
  CHECK(std::size(want) == arg_count);
  for (const auto& [arg, word] : want) {
    INFO(to_string(arg));
    CHECK(b.stub->last.words[arg] == word);
  }
  CHECK(b.stub->last.workspace == tensors.workspace);
  CHECK(b.stub->last.extents[Axis::tokens] == 6);
  CHECK(b.stub->last.extents[Axis::workers] == 1);

  a.read_slots = a.write_slots = nullptr, a.slots = 0, a.device_status = nullptr;
  a.initial_state = a.final_state = nullptr;
  a.scale = a.gate_tau = a.gate_clamp = 0;
  REQUIRE(glaive_run(b.plan(2, 3), &tensors.shape, &a, tensors.workspace, sizeof tensors.workspace) == GLAIVE_OK);
  const Words& words = b.stub->last.words;
  for (const Arg absent :
       {Arg::state_in, Arg::state_out, Arg::read_slots, Arg::write_slots, Arg::cu_seqlens, Arg::device_status})
    CHECK(words[absent] == 0);
  CHECK(words[Arg::slots] == 2);
  CHECK(words[Arg::tokens] == 6);
  CHECK(words[Arg::longest] == 3);
  CHECK(words[Arg::scale] == scalar(1 / std::sqrt(8.0f)));
  CHECK(words[Arg::gate_tau] == scalar(1));
  CHECK(words[Arg::gate_clamp] == scalar(-infinite));
}

TEST_CASE("pack in memory: copied, of any alignment, and refused when damaged") {
  auto bytes = encode_pack(std::vector{entry_for("one", {2, 1})});
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
  glaive_pack* pack = nullptr;
  REQUIRE(glaive_pack_open_memory(shifted.data() + 1, bytes.size(), &pack) == GLAIVE_OK);
  std::fill(shifted.begin(), shifted.end(), std::byte{0xee});
  CHECK(glaive_pack_size(pack) == 1);
  glaive_device* device = nullptr;
  REQUIRE(glaive_device_open("cpu", 1, &device) == GLAIVE_OK);
  const glaive_problem problem = problem_of();
  const glaive_shape shape = shape_of(2, 3);
  glaive_plan* plan = nullptr;
  CHECK(glaive_plan_find(device, pack, &problem, &shape, &plan) == GLAIVE_OK);
  glaive_plan_close(plan);
  glaive_device_close(device);
  glaive_pack_close(pack);

  pack = nullptr;
  CHECK(glaive_pack_open_memory(bytes.data(), bytes.size() - 1, &pack) == GLAIVE_BAD_PACK);
  CHECK(contains(glaive_last_error(), "pack in memory"));
  CHECK(glaive_pack_open_memory(bytes.data(), 0, &pack) == GLAIVE_BAD_PACK);
  bytes[0] ^= std::byte{1};
  CHECK(glaive_pack_open_memory(bytes.data(), bytes.size(), &pack) == GLAIVE_BAD_PACK);
  CHECK(glaive_pack_open_memory(nullptr, 5, &pack) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "bytes is NULL"));
  CHECK(glaive_pack_open_memory(bytes.data(), bytes.size(), nullptr) == GLAIVE_INVALID_ARGUMENT);
  CHECK(pack == nullptr);
}

TEST_CASE("devices: they are listed by name, and each name opens") {
  REQUIRE(glaive_device_count() >= 1);
  CHECK(std::string(glaive_device_name(0)) == "cpu");
  for (int i = 0; i < glaive_device_count(); ++i) {
    glaive_device* device = nullptr;
    CHECK(glaive_device_open(glaive_device_name(i), 1, &device) == GLAIVE_OK);
    glaive_device_close(device);
  }
  CHECK(std::string(glaive_device_name(-1)).empty());
  CHECK(std::string(glaive_device_name(glaive_device_count())).empty());
}

TEST_CASE("devices: two in one process, each with plans of its own, at the same time") {
  const auto entries =
      std::vector{entry_for("one", {2, 1}, "v1 threads=1"), entry_for("three", {2, 1}, "v1 threads=3")};
  Bench tensors(entries, 1);
  glaive_device* wide = nullptr;
  REQUIRE(glaive_device_open("cpu", 3, &wide) == GLAIVE_OK);
  glaive_operator *narrow_op = nullptr, *wide_op = nullptr;
  REQUIRE(glaive_operator_create(tensors.device, &tensors.pack, 1, &tensors.problem, &narrow_op) == GLAIVE_OK);
  REQUIRE(glaive_operator_create(wide, &tensors.pack, 1, &tensors.problem, &wide_op) == GLAIVE_OK);
  const glaive_plan *narrow_plan = nullptr, *wide_plan = nullptr;
  REQUIRE(glaive_operator_plan(narrow_op, &tensors.shape, &narrow_plan) == GLAIVE_OK);
  REQUIRE(glaive_operator_plan(wide_op, &tensors.shape, &wide_plan) == GLAIVE_OK);
  CHECK(std::string(glaive_plan_variant(narrow_plan)) == "one");
  CHECK(std::string(glaive_plan_variant(wide_plan)) == "three");
  std::size_t narrow_bytes = 0, wide_bytes = 0;
  REQUIRE(glaive_plan_workspace(narrow_plan, &tensors.shape, &narrow_bytes) == GLAIVE_OK);
  REQUIRE(glaive_plan_workspace(wide_plan, &tensors.shape, &wide_bytes) == GLAIVE_OK);
  CHECK(wide_bytes == 3 * narrow_bytes);

  const auto want = expected(tensors, {0, T, 2 * T}, 1 / std::sqrt(8.0), true);
  std::atomic<int> wrong = 0;
  const auto use = [&](const glaive_plan* plan, std::size_t bytes) {
    void* memory = std::aligned_alloc(64, 4096);
    std::vector<float> o(tensors.o.size()), out(tensors.out.size());
    glaive_args args = tensors.args;
    args.o = o.data(), args.final_state = out.data();
    for (int i = 0; i < 300; ++i)
      if (glaive_run(plan, &tensors.shape, &args, memory, bytes) != GLAIVE_OK or not near(o, want.o)) ++wrong;
    std::free(memory);
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] { use(narrow_plan, narrow_bytes); });
    threads.emplace_back([&] { use(wide_plan, wide_bytes); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  glaive_operator_close(narrow_op);
  glaive_operator_close(wide_op);
  glaive_device_close(wide);
}

TEST_CASE("wrapper: operators, launches and packs in memory") {
  const auto bytes = encode_pack(std::vector{kernel_entry()});
  const api::Device device("cpu", 1);
  const api::Pack pack = api::Pack::from_memory(bytes.data(), bytes.size());
  const api::Problem problem(kernel_problem);
  const api::Operator op(device, {&pack, &pack}, problem);
  const api::Shape shape{api::Sequences(2), api::Tokens(3)};
  const api::PlanView plan = op.plan(shape);
  CHECK(plan.match() == GLAIVE_MATCH_EXACT);
  CHECK(plan.variant() == "test(C=1)");
  CHECK(op.untuned() == 0);
  const api::Workspace workspace(device, plan.workspace_bytes(shape));
  std::vector<float> in(2 * 3 * 4 * 8, 0.5f), o(in.size()), again(in.size()), states(3 * 2 * 8 * 8);
  const std::int32_t read[] = {-1, -1}, write[] = {2, -1};
  api::Args args;
  args.q = in.data(), args.k = in.data(), args.v = in.data(), args.g = in.data(), args.o = o.data();
  args.set_states(states.data(), api::Slots(3), read, write);
  plan(shape, args, workspace);
  CHECK(states[0] == 0);
  CHECK(states[2 * 2 * 8 * 8] > 0);
  args.o = again.data();
  const api::Launch launch(plan, shape, args, workspace);
  launch();
  CHECK(o == again);
  args.stream = &args;
  CHECK_THROWS_AS(api::Launch(plan, shape, args, workspace), api::Error);
  CHECK_THROWS_AS(api::Operator(device, {}, problem), api::Error);
}

namespace {
/// Both ways to launch, by shape and prepared, with all that they need.
struct Path {
  std::vector<std::byte> bytes = encode_pack(std::vector{kernel_entry()});
  api::Pack pack = api::Pack::from_memory(bytes.data(), bytes.size());
  api::Operator op;
  api::Shape shape{api::Sequences(2), api::Tokens(3)};
  api::Workspace workspace;
  std::vector<float> in = std::vector<float>(2 * 3 * 4 * 8, 0.5f), o = in;
  api::Args args;
  std::optional<api::Launch> launch;

  explicit Path(const api::Device& device)
      : op(device, pack, api::Problem(kernel_problem)), workspace(device, op.plan(shape).workspace_bytes(shape)) {
    args.q = in.data(), args.k = in.data(), args.v = in.data(), args.g = in.data(), args.o = o.data();
    launch.emplace(op.plan(shape), shape, args, workspace);
  }
  void call() const {
    op.plan(shape)(shape, args, workspace);
    (*launch)();
  }
};
}  // namespace

TEST_CASE("launch path: no allocation and no lock, on one thread and on several") {
  for (const int threads : {1, 3}) {
    const api::Device device("cpu", threads);
    const Path path(device);
    const int allocated = allocations(), locked = locks();
    for (int i = 0; i < 200; ++i) path.call();
    CHECK(allocations() == allocated);
    CHECK(locks() == locked);
  }
#if not GLAIVE_SANITIZED
  const int before = locks();
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  pthread_mutex_unlock(&mutex);
  CHECK(locks() == before + 1);  // the hook counts
#endif
}

#if not GLAIVE_SANITIZED
TEST_CASE("launch path: no system call on a device of one thread") {
  const api::Device device("cpu", 1);
  const Path path(device);
  // Strict: anything but read, write and this thread's exit kills.
  const auto in_strict_child = [](auto&& body) {
    return in_child([&] {
      if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) return 77;
      body();
      syscall(SYS_exit, 0);
      return 1;
    });
  };
  const int empty = in_strict_child([] {});
  if (empty == 77) {
    WARN("skipped: seccomp is not allowed here");
    return;
  }
  REQUIRE(empty == 0);
  CHECK(in_strict_child([&] {
          for (int i = 0; i < 100; ++i) path.call();
        }) == 0);
  CHECK(in_strict_child([] { (void)getppid(); }) == -SIGKILL);
}
#endif
