// Slots, the device status word, steps and prepared launches.
#include <functional>
#include <thread>

#include "runtime/c_abi.hpp"
#include "tests/runtime/bench.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

constexpr std::int64_t state_size = Hkv * K * V;
constexpr double plain_scale = 0.35355339059327373;  // 8^-0.5

/// A Bench whose states lie in `slots` places of one buffer.
struct SlotBench : Bench {
  std::vector<float> states;
  std::int32_t read[2] = {0, 1}, write[2] = {0, 1};
  std::uint32_t status = 0;

  explicit SlotBench(std::int64_t slots, std::vector<PackEntry> entries = {kernel_entry()})
      : Bench(std::move(entries)) {
    states.resize(static_cast<std::size_t>(slots * state_size));
    for (std::size_t i = 0; i < states.size(); ++i) states[i] = static_cast<float>(i % 97) / 97 - 0.5f;
    args.initial_state = args.final_state = states.data();
    args.slots = slots;
    args.read_slots = read;
    args.write_slots = write;
    args.device_status = &status;
    find();
  }
  std::vector<float> slot(std::int64_t number) const {
    return {states.begin() + number * state_size, states.begin() + (number + 1) * state_size};
  }
  /// What the two sequences should give, started from these slots; -1 = zero.
  Expected want(std::int64_t first, std::int64_t second) {
    for (const auto& [sequence, number] : {std::pair(0, first), std::pair(1, second)})
      for (std::int64_t i = 0; i < state_size; ++i)
        in[static_cast<std::size_t>(sequence * state_size + i)] =
            number < 0 ? 0 : states[static_cast<std::size_t>(number * state_size + i)];
    return expected(*this, {0, T, 2 * T}, plain_scale, true);
  }
};

std::vector<double> half(const Expected& e, int which) {
  return {e.state.begin() + which * state_size, e.state.begin() + (which + 1) * state_size};
}

PackEntry step_entry() {
  PackEntry entry = kernel_entry();
  entry.key.problem = "step H4 Hkv2 K8 V8 f32";
  return entry;
}

}  // namespace

TEST_CASE("call: states are read from and written to slots, and other slots stay") {
  SlotBench b(5);
  b.read[0] = 3, b.read[1] = -1;
  b.write[0] = 1, b.write[1] = 4;
  const auto before = b.states;
  const auto want = b.want(3, -1);
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  CHECK(near(b.slot(1), half(want, 0)));
  CHECK(near(b.slot(4), half(want, 1)));
  for (const std::int64_t kept : {0, 2, 3})
    CHECK(std::equal(before.begin() + kept * state_size, before.begin() + (kept + 1) * state_size,
                     b.states.begin() + kept * state_size));
  CHECK(b.status == 0);
}

TEST_CASE("call: two sequences read one slot, which forks it") {
  SlotBench b(3);
  b.read[0] = b.read[1] = 0;
  b.write[0] = 1, b.write[1] = 2;
  const auto want = b.want(0, 0);
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.slot(1), half(want, 0)));
  CHECK(near(b.slot(2), half(want, 1)));
}

TEST_CASE("call: -1 discards a state") {
  SlotBench b(2);
  b.write[0] = b.write[1] = -1;
  const auto before = b.states;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(b.states == before);
  CHECK(b.status == 0);
}

TEST_CASE("call: a slot array for reading alone, and for writing alone") {
  SlotBench b(3);
  b.args.write_slots = nullptr;
  b.read[0] = 2, b.read[1] = -1;
  auto want = b.want(2, -1);
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.slot(0), half(want, 0)));
  CHECK(near(b.slot(1), half(want, 1)));
  b.args.write_slots = b.write;
  b.args.read_slots = nullptr;
  b.write[0] = 2, b.write[1] = 1;
  want = b.want(0, 1);
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.slot(2), half(want, 0)));
  CHECK(near(b.slot(1), half(want, 1)));
}

TEST_CASE("call: a slot out of range is skipped, reported and never written") {
  SlotBench b(4);
  b.args.slots = 2;  // so that a kernel that trusts the numbers writes where it can be seen
  const auto before = b.states;
  for (const std::int32_t outside : {2, 3, -2, INT32_MAX, INT32_MIN}) {
    INFO(outside);
    b.states = before;
    b.args.initial_state = b.args.final_state = b.states.data();
    b.status = 0;
    b.read[0] = b.read[1] = -1;
    b.write[0] = -1, b.write[1] = outside;
    const auto want = b.want(-1, -1);
    REQUIRE(b.call() == GLAIVE_OK);
    CHECK(b.status == GLAIVE_FAULT_SLOT);
    CHECK(near(b.o, want.o));
    CHECK(b.states == before);

    b.status = 0;
    b.read[0] = outside;
    b.write[1] = -1;
    REQUIRE(b.call() == GLAIVE_OK);
    CHECK(b.status == GLAIVE_FAULT_SLOT);
    CHECK(near(b.o, want.o));
  }
  b.args.device_status = nullptr;
  REQUIRE(b.call() == GLAIVE_OK);
}

TEST_CASE("call: the device status word is ORed into, never cleared") {
  SlotBench b(2);
  b.status = 0x80;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(b.status == 0x80);
  b.read[0] = 9;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(b.status == 0x81);
}

TEST_CASE("call: slots without slot arrays") {
  SlotBench b(3);
  b.args.read_slots = b.args.write_slots = nullptr;
  const auto want = b.want(0, 1);
  const auto last = b.slot(2);
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.slot(0), half(want, 0)));
  CHECK(near(b.slot(1), half(want, 1)));
  CHECK(b.slot(2) == last);
}

TEST_CASE("call: slot strides: states of one layer of several") {
  constexpr std::int64_t layers = 3, slots = 4, layer = 1;
  SlotBench b(layers * slots);
  float* const base = b.states.data() + layer * state_size;
  b.args.initial_state = b.args.final_state = base;
  b.args.slots = slots;
  b.args.initial_state_slot_stride = b.args.final_state_slot_stride = layers * state_size;
  b.read[0] = 2, b.read[1] = 0;
  b.write[0] = 3, b.write[1] = 1;
  const auto want = b.want(2 * layers + layer, 0 * layers + layer);
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.slot(3 * layers + layer), half(want, 0)));
  CHECK(near(b.slot(1 * layers + layer), half(want, 1)));
}

TEST_CASE("call: every bad slot, status and stream argument is named, and nothing is written") {
  SlotBench b(4);
  struct Row {
    std::function<void(glaive_args&)> change;
    const char* part;
  };
  const auto odd = [](const auto* p) {
    return reinterpret_cast<const std::int32_t*>(reinterpret_cast<const char*>(p) + 2);
  };
  const Row rows[] = {
      {[](auto& a) { a.initial_state = nullptr; }, "args->read_slots is given without args->initial_state"},
      {[](auto& a) { a.final_state = nullptr; }, "args->write_slots is given without args->final_state"},
      {[&](auto& a) { a.read_slots = odd(b.read); }, "args->read_slots is not aligned to 4"},
      {[&](auto& a) { a.write_slots = odd(b.write); }, "args->write_slots is not aligned to 4"},
      {[&](auto& a) { a.device_status = reinterpret_cast<std::uint32_t*>(const_cast<std::int32_t*>(odd(&b.status))); },
       "args->device_status is not aligned to 4"},
      {[](auto& a) { a.slots = 0; }, "args->slots is 0; with slot arrays it is the number of places"},
      {[](auto& a) { a.slots = -1; }, "args->slots is -1"},
      {[](auto& a) { a.slots = std::int64_t{1} << 31; }, "args->slots is 2147483648"},
      {[](auto& a) { a.slots = 1, a.read_slots = nullptr; }, "args->slots is 1, fewer than the 2 sequences"},
      {[](auto& a) { a.slots = 1, a.write_slots = nullptr; }, "args->slots is 1, fewer than the 2 sequences"},
      {[](auto& a) { a.slots = 1, a.read_slots = a.write_slots = nullptr; }, "args->slots is 1, fewer than"},
      {[](auto& a) { a.slots = -5, a.read_slots = a.write_slots = nullptr; }, "args->slots is -5"},
      {[](auto& a) { a.slots = INT32_MAX, a.initial_state_slot_stride = (std::int64_t{1} << 40) - 1; },
       "args->initial_state has strides that reach past the end of memory"},
      {[&](auto& a) { a.stream = &b; }, "args->stream is set, but a CPU has no streams"},
      {[&](auto& a) { a.read_slots = reinterpret_cast<std::int32_t*>(b.o.data()); },
       "args->o overlaps args->read_slots"},
      {[&](auto& a) { a.o = b.states.data() + 3 * state_size; }, "args->o overlaps args->final_state"},
      {[&](auto& a) { a.read_slots = reinterpret_cast<std::int32_t*>(b.states.data()); },
       "args->final_state overlaps args->read_slots"},
      {[&](auto& a) { a.write_slots = reinterpret_cast<std::int32_t*>(b.states.data() + 3 * state_size); },
       "args->final_state overlaps args->write_slots"},
      {[&](auto& a) { a.device_status = reinterpret_cast<std::uint32_t*>(b.q.data() + 5); },
       "args->device_status overlaps args->q"},
      {[&](auto& a) { a.device_status = reinterpret_cast<std::uint32_t*>(b.read); },
       "args->device_status overlaps args->read_slots"},
      {[&](auto& a) { a.write_slots = reinterpret_cast<std::int32_t*>(b.workspace); },
       "workspace overlaps args->write_slots"},
      {[&](auto& a) { a.device_status = reinterpret_cast<std::uint32_t*>(b.workspace); },
       "workspace overlaps args->device_status"},
  };
  const glaive_args good = b.args;
  const auto before = b.states;
  glaive_launch* launch = nullptr;
  for (const Row& row : rows) {
    b.args = good;
    b.check_refused(row.change, row.part);
    row.change(b.args);
    INFO(row.part);
    CHECK(b.states == before);
    CHECK(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, b.bytes, &launch) == GLAIVE_INVALID_ARGUMENT);
    CHECK(contains(glaive_last_error(), row.part));
    CHECK(launch == nullptr);
  }
  CHECK(b.status == 0);
}

TEST_CASE("call: a kernel that finds no states by slot, or takes no lengths, is not given them") {
  for (const auto& [arg, part] : {std::pair(Arg::read_slots, "takes no args->read_slots"),
                                  std::pair(Arg::write_slots, "takes no args->write_slots"),
                                  std::pair(Arg::cu_seqlens, "takes no shape->cu_seqlens")}) {
    PackEntry entry = kernel_entry();
    std::erase(entry.plan.stages[0].args, arg);
    SlotBench b(2, {entry});
    const std::int32_t cu[] = {0, 3, 6};
    b.shape.cu_seqlens = cu, b.shape.tokens = 6, b.shape.longest = 3;
    CHECK(b.call() == GLAIVE_UNSUPPORTED);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
    CHECK(contains(glaive_last_error(), "test(C=1)"));
    CHECK(b.nothing_written());
  }
}

TEST_CASE("call: a step takes at most 8 tokens of each sequence, however it is asked") {
  Bench b({step_entry()});
  REQUIRE(glaive_problem_parse("step H4 Hkv2 K8 V8", &b.problem) == GLAIVE_OK);
  b.find();
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, expected(b, {0, T, 2 * T}, plain_scale, true).o));
  b.shape.tokens = 8;
  CHECK(glaive_plan_workspace(b.plan, &b.shape, &b.bytes) == GLAIVE_OK);

  glaive_operator* op = nullptr;
  REQUIRE(glaive_operator_create(b.device, &b.pack, 1, &b.problem, &op) == GLAIVE_OK);
  const std::int32_t cu[] = {0, 9, 10};
  for (const bool ragged : {false, true}) {
    b.shape.tokens = ragged ? 10 : 9;
    b.shape.longest = ragged ? 9 : 0;
    b.shape.cu_seqlens = ragged ? cu : nullptr;
    const auto refused = [](glaive_status status) {
      CHECK(status == GLAIVE_INVALID_ARGUMENT);
      CHECK(contains(glaive_last_error(), "a step takes at most 8 tokens of each sequence, not 9"));
    };
    glaive_plan* plan = nullptr;
    const glaive_plan* lent = nullptr;
    refused(b.call());
    refused(glaive_plan_workspace(b.plan, &b.shape, &b.bytes));
    refused(glaive_plan_find(b.device, b.pack, &b.problem, &b.shape, &plan));
    refused(glaive_operator_plan(op, &b.shape, &lent));
  }
  glaive_operator_close(op);
}

TEST_CASE("call: a forward over a prompt and steps after it are one forward over everything") {
  Bench b({kernel_entry(), step_entry()});
  b.find();
  glaive_problem step = b.problem;
  step.op = GLAIVE_STEP;
  glaive_plan* stepping = nullptr;
  glaive_shape one = b.shape;
  one.tokens = 1;
  REQUIRE(glaive_plan_find(b.device, b.pack, &step, &one, &stepping) == GLAIVE_OK);
  const auto want = expected(b, {0, T, 2 * T}, plain_scale, true);

  // Tokens 0 of both sequences, then 1, then 2, with states in place; token t of sequence b lies at row b*T + t.
  for (std::int64_t t = 0; t < T; ++t) {
    glaive_args args = b.args;
    args.q = b.q.data() + t * H * K, args.k = b.k.data() + t * Hkv * K;
    args.v = b.v.data() + t * Hkv * V, args.g = b.g.data() + t * Hkv * K;
    args.o = b.o.data() + t * H * V;
    args.q_token_stride = T * H * K, args.k_token_stride = T * Hkv * K, args.v_token_stride = T * Hkv * V;
    args.g_token_stride = T * Hkv * K, args.o_token_stride = T * H * V;
    args.final_state = b.in.data();
    INFO(glaive_last_error());
    REQUIRE(glaive_run(t == 0 ? b.plan : stepping, &one, &args, b.workspace, b.bytes) == GLAIVE_OK);
  }
  CHECK(near(b.o, want.o));
  CHECK(near(b.in, want.state));
  glaive_plan_close(stepping);
}

TEST_CASE("launch: runs again and again, on what its buffers hold by then") {
  SlotBench b(4);
  glaive_launch* launch = nullptr;
  REQUIRE(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, b.bytes, &launch) == GLAIVE_OK);
  CHECK(b.nothing_written());
  for (int run = 0; run < 3; ++run) {
    const auto want = b.want(b.read[0], b.read[1]);
    REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
    CHECK(near(b.o, want.o));
    CHECK(near(b.slot(b.write[0]), half(want, 0)));
    CHECK(near(b.slot(b.write[1]), half(want, 1)));
    b.read[0] = b.write[0], b.read[1] = b.write[1];
    b.write[0] = run == 0 ? 2 : 0, b.write[1] = run == 0 ? 3 : 1;
  }
  b.read[0] = 77;
  REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(b.status == GLAIVE_FAULT_SLOT);
  glaive_launch_close(launch);
}

TEST_CASE("launch: cu_seqlens that change between runs, and a fault when they pass the tokens") {
  SlotBench b(2);
  std::int32_t cu[] = {0, 2, 6};
  b.shape.cu_seqlens = cu, b.shape.tokens = 6, b.shape.longest = 4;
  glaive_launch* launch = nullptr;
  REQUIRE(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, b.bytes, &launch) == GLAIVE_OK);
  REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
  cu[1] = 5;
  b.want(0, 1);
  const auto want = expected(b, {0, 5, 6}, plain_scale, true);
  REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  CHECK(b.status == 0);
  cu[2] = 7;
  REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(b.status == GLAIVE_FAULT_LENGTHS);
  glaive_launch_close(launch);
}

TEST_CASE("launch: it outlives the plan, the pack and the device that it came from") {
  Bench b;
  b.find();
  const auto want = expected(b, {0, T, 2 * T}, plain_scale, true);
  glaive_launch* launch = nullptr;
  REQUIRE(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, b.bytes, &launch) == GLAIVE_OK);
  glaive_plan_close(std::exchange(b.plan, nullptr));
  glaive_pack_close(std::exchange(b.pack, nullptr));
  glaive_device_close(std::exchange(b.device, nullptr));
  REQUIRE(glaive_launch_run(launch) == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  glaive_launch_close(launch);
}

TEST_CASE("launch: NULL where a plan, a launch or a result belongs") {
  Bench b;
  b.find();
  glaive_launch* launch = nullptr;
  const auto refused = [&](glaive_status status, const char* part) {
    CHECK(status == GLAIVE_INVALID_ARGUMENT);
    CHECK(contains(glaive_last_error(), part));
    CHECK(launch == nullptr);
  };
  refused(glaive_launch_prepare(nullptr, &b.shape, &b.args, b.workspace, b.bytes, &launch), "plan is NULL");
  refused(glaive_launch_prepare(b.plan, nullptr, &b.args, b.workspace, b.bytes, &launch), "shape is NULL");
  refused(glaive_launch_prepare(b.plan, &b.shape, nullptr, b.workspace, b.bytes, &launch), "args is NULL");
  refused(glaive_launch_prepare(b.plan, &b.shape, &b.args, nullptr, b.bytes, &launch), "workspace is NULL");
  refused(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, 0, &launch), "workspace_bytes is 0");
  refused(glaive_launch_prepare(b.plan, &b.shape, &b.args, b.workspace, b.bytes, nullptr), "launch is NULL");
  refused(glaive_launch_run(nullptr), "launch is NULL");
  glaive_launch_close(nullptr);
}
