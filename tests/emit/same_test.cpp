// What was emitted decides and refuses as libglaive does with the same pack.
#include <fmt/format.h>

#include <functional>
#include <optional>
#include <thread>

#include "runtime/glaive.hpp"
#include "tests/emit/emitted.hpp"
#include "tests/runtime/bench.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

/// Entries of several devices, targets, numbers of threads and buckets, with evidence about each other.
std::vector<PackEntry> random_entries(std::mt19937& random) {
  const auto pick = [&](int most) { return std::uniform_int_distribution<int>(0, most)(random); };
  std::vector<PackEntry> entries;
  for (int i = 0; i < 12; ++i) {
    PackEntry entry = kernel_entry();
    entry.key.space = static_cast<std::uint64_t>(i);
    entry.key.bucket = {static_cast<std::uint8_t>(pick(14)), static_cast<std::uint8_t>(pick(8))};
    if (pick(3) == 0) entry.key.device = "name=another";
    if (pick(3) == 0) entry.key.target = "cpu:x86-64-v2";
    entry.key.policy = pick(1) == 0 ? "v1" : fmt::format("v2 effort=quick threads={}", 2 + pick(1));
    entry.plan.variant = fmt::format("test(C={})", pick(3));
    entry.plan.workspace = {{64 * (1 + pick(3)), {{Axis::longest, 64, 1}}}};
    entry.evidence = fmt::format(
        R"json({{"case": "forward H4 Hkv2 K8 V8 f32 @ B{} T{}", "roof_share": 0.{}, "final": [], "screened":
               [{{"variant": "test(C={})", "ratio": 1.{}}}, {{"variant": "test(C={})", "ratio": 0.9}}]}})json",
        1 + pick(9), pick(99), 1 + pick(8), pick(3), pick(9), pick(3));
    if (pick(7) == 0) entry.code[0].bytes.resize(64);  // which no loader takes
    entries.push_back(std::move(entry));
  }
  entries.push_back(kernel_entry());
  return entries;
}

/// What a refusal is about. libglaive names the extents of a shape by their letters.
std::string_view argument_of(std::string_view sentence) {
  return sentence.starts_with("shape") ? "shape" : sentence.substr(0, sentence.find(' '));
}

bool same(double a, double b) { return (std::isnan(a) and std::isnan(b)) or a == Approx(b); }

}  // namespace

TEST_CASE("a shape gets the plan that libglaive gives it, with the same fit and workspace") {
  std::mt19937 random(5);
  for (int round = 0; round < 6; ++round) {
    const Folder folder;
    emit_entries(folder, random_entries(random));
    const EmittedLibrary gla(folder);
    const api::Device device("cpu", 2);
    const api::Pack pack((folder / "p.pack").string());
    const api::Operator op(device, pack, api::Problem(kernel_problem));
    const EmittedOperator emitted(gla, "cpu", 2, kernel_problem);
    for (int i = 0; i < 400; ++i) {
      const auto below = [&](double most) {
        return static_cast<std::int64_t>(std::exp2(std::uniform_real_distribution<double>(0, most)(random)));
      };
      const api::Shape shape(api::Sequences(below(13)), api::Tokens(below(17.9) - 1));
      const gla_shape same_shape = emitted_shape(shape);
      const api::PlanView plan = op.plan(shape);
      const gla_plan* const other = emitted.plan(same_shape);
      INFO("B" << shape.sequences << " T" << shape.tokens << "\n" << plan.description());
      REQUIRE(gla.plan_variant(other) == plan.variant());
      const glaive_fit fit = plan.fit(shape);
      gla_fit other_fit;
      REQUIRE(gla.plan_fit(other, &same_shape, &other_fit) == GLA_OK);
      REQUIRE(static_cast<int>(other_fit.match) == plan.match());
      CHECK(fit.match == plan.match());
      CHECK(other_fit.distance == fit.distance);
      CHECK(std::array{other_fit.work_low, other_fit.work_high, other_fit.tokens_low, other_fit.tokens_high} ==
            std::array{fit.work_low, fit.work_high, fit.tokens_low, fit.tokens_high});
      CHECK(std::array{other_fit.timed_sequences, other_fit.timed_tokens, other_fit.timed_longest} ==
            std::array{fit.timed_sequences, fit.timed_tokens, fit.timed_longest});
      INFO(other_fit.regret << " and " << fit.regret << ", " << other_fit.headroom << " and " << fit.headroom);
      CHECK(same(other_fit.regret, fit.regret));
      CHECK(same(other_fit.headroom, fit.headroom));
      std::size_t bytes = 0;
      REQUIRE(gla.plan_workspace(other, &same_shape, &bytes) == GLA_OK);
      CHECK(bytes == plan.workspace_bytes(shape));
      REQUIRE(gla.operator_workspace(emitted.get(), &same_shape, &bytes) == GLA_OK);
      CHECK(bytes == op.workspace_bytes(shape));
      for (const int worst : {0, 1, 2}) {
        const glaive_plan* found = nullptr;
        const gla_plan* other_found = nullptr;
        CHECK(
            static_cast<int>(
                gla.operator_plan_within(emitted.get(), &same_shape, static_cast<gla_match>(worst), &other_found)) ==
            static_cast<int>(glaive_operator_plan_within(op.get(), &shape, static_cast<glaive_match>(worst), &found)));
      }
    }
  }
}

TEST_CASE("a call is refused where libglaive refuses it, for the same argument, and else gives the same numbers") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const EmittedLibrary gla(folder);
  Bench b;
  b.find();
  const EmittedOperator emitted(gla, "cpu", 2, kernel_problem);
  std::vector<std::int32_t> slots = {0, 1}, lengths = {0, 2, 6}, falling = {0, 4, 3};
  std::uint32_t status = 0;

  using Args = glaive_args&;
  using Shaped = glaive_shape&;
  const std::vector<std::function<void(Args, Shaped)>> changes = {
      [](Args, Shaped) {},
      [](Args a, Shaped) { a.q = nullptr; },
      [](Args a, Shaped) { a.o = nullptr; },
      [](Args a, Shaped) { a.k = static_cast<const char*>(a.k) + 2; },
      [](Args a, Shaped) { a.v_head_stride = 7; },
      [](Args a, Shaped) { a.v_head_stride = -8; },
      [](Args a, Shaped) { a.g_token_stride = 3; },
      [](Args a, Shaped) { a.g_token_stride = -16; },
      [](Args a, Shaped) { a.q_token_stride = std::int64_t{1} << 40; },
      [](Args a, Shaped) { a.q_head_stride = std::int64_t{1} << 41; },
      [](Args a, Shaped) { a.o_token_stride = 8, a.o_head_stride = 8; },
      [](Args a, Shaped) { a.q_token_stride = 8, a.q_head_stride = 8; },
      [](Args a, Shaped) { a.o = const_cast<void*>(a.v); },
      [](Args a, Shaped) { a.final_state = const_cast<void*>(a.initial_state); },
      [](Args a, Shaped) { a.final_state = static_cast<char*>(const_cast<void*>(a.initial_state)) + 64; },
      [](Args a, Shaped) { a.initial_state = nullptr; },
      [](Args a, Shaped) { a.final_state = nullptr; },
      [](Args a, Shaped) { a.initial_state_slot_stride = 5; },
      [](Args a, Shaped) { a.slots = -1; },
      [](Args a, Shaped) { a.slots = 1; },
      [&](Args a, Shaped) { a.read_slots = slots.data(); },
      [&](Args a, Shaped) { a.read_slots = slots.data(), a.slots = 2; },
      [&](Args a, Shaped) { a.read_slots = slots.data(), a.slots = 2, a.initial_state = nullptr; },
      [&](Args a, Shaped) { a.write_slots = slots.data(), a.slots = 2, a.final_state = nullptr; },
      [&](Args a, Shaped) { a.device_status = &status; },
      [&](Args a, Shaped) { a.device_status = reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(&status) + 1); },
      [](Args a, Shaped) { a.stream = &a; },
      [](Args a, Shaped) { a.scale = infinite; },
      [](Args a, Shaped) { a.scale = not_a_number; },
      [](Args a, Shaped) { a.scale = -2; },
      [](Args a, Shaped) { a.gate_tau = -1; },
      [](Args a, Shaped) { a.gate_clamp = 1; },
      [](Args, Shaped s) { s.sequences = 0; },
      [](Args, Shaped s) { s.sequences = (1 << 24) + 1; },
      [](Args, Shaped s) { s.tokens = -1; },
      [](Args, Shaped s) { s.tokens = std::int64_t{1} << 32; },
      [](Args, Shaped s) { s.longest = 2; },
      [&](Args, Shaped s) { s.cu_seqlens = lengths.data(), s.tokens = 6, s.longest = 4; },
      [&](Args, Shaped s) { s.cu_seqlens = lengths.data(), s.tokens = 6, s.longest = 3; },
      [&](Args, Shaped s) { s.cu_seqlens = lengths.data(), s.tokens = 5, s.longest = 4; },
      [&](Args, Shaped s) { s.cu_seqlens = lengths.data(), s.tokens = 6, s.longest = 7; },
      [&](Args, Shaped s) { s.cu_seqlens = falling.data(), s.tokens = 3, s.longest = 3; },
      [&](Args, Shaped s) { s.cu_seqlens = lengths.data() + 1, s.sequences = 1, s.tokens = 4, s.longest = 4; },
  };
  const auto in = b.in;
  int good = 0;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    glaive_args args = b.args;
    glaive_shape shape = b.shape;
    changes[i](args, shape);
    std::vector<float> results[2];
    int statuses[2];
    for (const bool through_c : {false, true}) {
      b.in = in;
      std::fill(b.o.begin(), b.o.end(), 7.0f);
      std::fill(b.out.begin(), b.out.end(), 7.0f);
      const gla_shape same_shape = emitted_shape(shape);
      const gla_args same_args = emitted_args(args);
      const gla_plan* const plan = emitted.plan(emitted_shape(b.shape));
      statuses[through_c] = through_c ? static_cast<int>(gla.run(plan, &same_shape, &same_args, b.workspace, b.bytes))
                                      : static_cast<int>(glaive_run(b.plan, &shape, &args, b.workspace, b.bytes));
      for (const auto* values : {&b.o, &b.out, &b.in})
        results[through_c].insert(results[through_c].end(), values->begin(), values->end());
    }
    INFO("change " << i << "\nlibglaive: " << glaive_last_error() << "\nemitted:   " << gla.last_error());
    CHECK(statuses[0] == statuses[1]);
    CHECK(results[0] == results[1]);
    good += statuses[1] == GLA_OK;
    if (statuses[0] == 0 or statuses[1] == 0) continue;
    const std::string_view ours = glaive_last_error(), theirs = gla.last_error();
    CHECK(argument_of(ours) == argument_of(theirs));
  }
  CHECK(good >= 9);
}

TEST_CASE("a fallback is refused for what it is, and a plan that is found leaves the last error as it was") {
  const Folder folder;
  std::vector<PackEntry> entries;
  const auto add = [&](const char* problem, auto change) {
    PackEntry entry = kernel_entry();
    entry.key.problem = problem;
    change(entry);
    entries.push_back(std::move(entry));
  };
  const std::pair<const char*, const char*> cases[] = {
      {"forward H4 Hkv2 K8 V8 f32", ", in place of one that could not be loaded"},
      {"forward H4 Hkv2 K16 V8 f32", ", tuned with another number of threads"},
      {"forward H4 Hkv2 K24 V8 f32", ", tuned on another device"},
      {"forward H4 Hkv2 K32 V8 f32", ", tuned for other shapes"},
      {"forward H4 Hkv2 K40 V8 f32", ", which nobody has tuned"}};
  add(cases[0].first, [](PackEntry& e) { e.key.bucket = {3, 1}; });
  add(cases[0].first, [](PackEntry& e) { e.code[0].bytes.resize(64); });
  add(cases[1].first, [](PackEntry& e) { e.key.policy = "v2 effort=quick threads=2"; });
  add(cases[2].first, [](PackEntry& e) { e.key.device = "name=another"; });
  add(cases[3].first, [](PackEntry& e) { e.key.bucket = {3, 1}; });
  add(cases[4].first, [](PackEntry& e) { e.key.device.clear(); });
  emit_entries(folder, entries);
  const EmittedLibrary gla(folder);
  const gla_shape shape = {2, 3, 0, nullptr};
  for (const auto& [problem, sentence] : cases) {
    gla_device* none = nullptr;
    REQUIRE(gla.device_open("tpu", 1, &none) == GLA_NOT_FOUND);
    const EmittedOperator emitted(gla, "cpu", 1, problem);
    CHECK(contains(gla.last_error(), "there is no device \"tpu\""));
    const gla_plan* plan = nullptr;
    CHECK(gla.operator_plan_within(emitted.get(), &shape, GLA_MATCH_EXACT, &plan) == GLA_UNSUPPORTED);
    INFO(gla.last_error());
    CHECK(std::string_view(gla.last_error()).ends_with(sentence));
  }
}

TEST_CASE("threads that run a stage at the same time have scratch memory of their own, behind what they share") {
  const Folder folder;
  PackEntry entry = kernel_entry();
  Stage& stage = entry.plan.stages[0];
  stage.entry = "note_scratch";
  stage.tasks = {1, {{Axis::sequences, 1}}};
  stage.args = {Arg::o, Arg::sequences};  // tasks that wait for each other
  stage.scratch_bytes = 100;
  entry.plan.workspace = {{10, {{Axis::sequences, 1}}}};
  emit_entries(folder, {entry});
  const EmittedLibrary gla(folder);
  const EmittedOperator emitted(gla, "cpu", 3, kernel_problem);
  std::vector<std::int64_t> o(3 * H * V);
  std::vector<float> q(3 * H * K);
  const gla_shape shape = {3, 1, 0, nullptr};
  gla_args args = {};
  args.q = args.k = args.v = args.g = q.data(), args.o = o.data();
  const gla_plan* const plan = emitted.plan(shape);
  std::size_t bytes = 0;
  REQUIRE(gla.plan_workspace(plan, &shape, &bytes) == GLA_OK);
  REQUIRE(bytes == 64 + 3 * 128);
  alignas(64) char workspace[64 + 3 * 128];
  gla_launch* launch = nullptr;
  REQUIRE(gla.launch_prepare(plan, &shape, &args, workspace, bytes, &launch) == GLA_OK);
  REQUIRE(gla.launch_stages(launch) == 1);
  REQUIRE(gla.launch_tasks(launch, 0) == 3);
  CHECK(gla.launch_tasks(launch, 1) == 0);
  {
    std::vector<std::jthread> threads;
    for (int worker = 0; worker < 3; ++worker)
      threads.emplace_back([&, worker] { gla.launch_task(launch, 0, 2 - worker, worker); });
  }
  for (int worker = 0; worker < 3; ++worker)
    CHECK(o[static_cast<std::size_t>(1 + 2 - worker)] == reinterpret_cast<std::int64_t>(workspace + 64 + 128 * worker));
  gla.launch_close(launch);
}

TEST_CASE("what is not there is named, with what there is") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const EmittedLibrary gla(folder);
  gla_device* device = nullptr;
  const auto refused = [&](gla_status got, gla_status wanted, const char* part) {
    INFO(gla.last_error());
    CHECK(got == wanted);
    CHECK(contains(gla.last_error(), part));
  };
  refused(gla.device_open("cuda:0", 0, &device), GLA_NOT_FOUND, "these kernels are for the \"cpu\"");
  refused(gla.device_open("tpu", 0, &device), GLA_NOT_FOUND, "there is no device \"tpu\"; a device is \"cpu\"");
  refused(gla.device_open("cpu", 1025, &device), GLA_INVALID_ARGUMENT, "workers is 1025; it must be 0 (one) or from 1");
  gla_problem problem;
  refused(gla.problem_find("step H4", &problem), GLA_UNSUPPORTED, "there are `forward H4 Hkv2 K8 V8 f32`");
  REQUIRE(gla.device_open("cpu", 1, &device) == GLA_OK);
  gla_operator* op = nullptr;
  refused(gla.operator_create(device, static_cast<gla_problem>(1), &op), GLA_INVALID_ARGUMENT,
          "problem is 1; it must be from 0 to 0");
  gla.device_close(device);
}

TEST_CASE("code that this processor lacks a feature for is not loaded") {
  const Folder folder;
  PackEntry entry = kernel_entry();
  entry.key.target = entry.plan.variant = "cpu:x86-64-v4+amx-bf16+avx512fp16";
  entry.plan.target = entry.code[0].target = *parse_target(entry.key.target);
  emit_entries(folder, {entry});
  const EmittedLibrary gla(folder);
  gla_device* device = nullptr;
  gla_operator* op = nullptr;
  REQUIRE(gla.device_open("cpu", 1, &device) == GLA_OK);
  const bool runs = check_runs_here(entry.plan.target).has_value();
  CHECK(gla.operator_create(device, static_cast<gla_problem>(0), &op) == (runs ? GLA_OK : GLA_UNSUPPORTED));
  if (not runs) CHECK(contains(gla.last_error(), "no kernel for `forward H4 Hkv2 K8 V8 f32` runs on "));
  gla.operator_close(op);
  gla.device_close(device);
}
