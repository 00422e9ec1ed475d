#include "runtime/plan.hpp"

#include <set>

#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

Plan full_plan() {
  Plan plan = kernel_plan();
  plan.target = *parse_target("cpu:x86-64-v4+avx512bf16");
  plan.workspace = {{16, {{Axis::sequences, 1}, {Axis::longest, 64}}}, {128, {}}};
  Stage second;
  second.code = 1;
  second.entry = "second";
  second.tasks = {3, {{Axis::tokens, 16}}};
  second.args = {Arg::workspace, Arg::scale};
  second.scratch_bytes = 1000;
  second.block[0] = 128;
  second.cluster = 2;
  second.shared_bytes = 4096;
  second.early = true;
  second.maps = {{Arg::k, 2, true, 64, 64}, {Arg::g, 4, false, 32, 128}};
  plan.stages.push_back(second);
  return plan;
}

Extents extents(std::int64_t sequences, std::int64_t longest, std::int64_t workers) {
  return extents_of(*parse_problem("H4 Hkv2 K8 V8"), Shape::uniform(Sequences(sequences), Tokens(longest)), workers);
}

}  // namespace

TEST_CASE("a count multiplies ceil-divisions of extents") {
  const Count count = {3, {{Axis::sequences, 1}, {Axis::longest, 64}}};
  CHECK(count.at(extents(2, 64, 1)) == 6);
  CHECK(count.at(extents(2, 65, 1)) == 12);
  CHECK(count.at(extents(2, 0, 1)) == 0);
  CHECK(Count{3, {{Axis::longest, 64, 1}}}.at(extents(2, 0, 1)) == 3);
  CHECK(Count{3, {{Axis::longest, 64, 1}}}.at(extents(2, 65, 1)) == 6);
  CHECK(Count{7, {}}.at(extents(1, 1, 1)) == 7);
  CHECK(Count{0, {{Axis::k, 1}}}.at(extents(1, 1, 1)) == 0);
}

TEST_CASE("a count past int64 saturates instead of wrapping") {
  Count count = {std::int64_t{1} << 40, {{Axis::tokens, 1}, {Axis::tokens, 1}}};
  CHECK(count.at(extents(1, 1 << 20, 1)) == INT64_MAX);
  Plan plan = full_plan();
  plan.workspace = {count};
  CHECK(workspace_bytes(plan, extents(1, 1 << 20, 1)) > INT64_MAX / 2);
}

TEST_CASE("workspace is the shared part and each worker's largest scratch, both rounded up to 64") {
  const Plan plan = full_plan();
  CHECK(shared_workspace_bytes(plan, extents(1, 64, 1)) == 192);  // 16 + 128
  CHECK(scratch_bytes_per_worker(plan) == 1024);
  CHECK(workspace_bytes(plan, extents(1, 64, 3)) == 192 + 3 * 1024);
  CHECK(workspace_bytes(Plan{}, extents(1, 64, 3)) == 0);
}

TEST_CASE("decoding gives back the plan that was encoded") {
  const Plan plan = full_plan();
  const auto decoded = decode_plan(encode(plan), 2);
  REQUIRE(decoded.has_value());
  CHECK(*decoded == plan);
  CHECK(encode(*decoded) == encode(plan));
}

TEST_CASE("every field of a plan is encoded") {
  const Plan plan = full_plan();
  const auto changes = [&](auto&& change) {
    Plan other = plan;
    change(other);
    const auto decoded = decode_plan(encode(other), 2);
    REQUIRE(decoded.has_value());
    CHECK(*decoded == other);
    return encode(other) != encode(plan);
  };
  CHECK(changes([](Plan& p) { p.variant += "x"; }));
  CHECK(changes([](Plan& p) { p.target = base_target(); }));
  CHECK(changes([](Plan& p) { p.stages.pop_back(); }));
  CHECK(changes([](Plan& p) { p.stages[0].code = 1; }));
  CHECK(changes([](Plan& p) { p.stages[0].entry = "other"; }));
  CHECK(changes([](Plan& p) { p.stages[0].tasks.multiplier = 2; }));
  CHECK(changes([](Plan& p) { p.stages[0].tasks.factors[0].axis = Axis::k; }));
  CHECK(changes([](Plan& p) { p.stages[0].tasks.factors[0].divisor = 2; }));
  CHECK(changes([](Plan& p) { p.stages[0].tasks.factors[0].least = 1; }));
  CHECK(changes([](Plan& p) { p.stages[1].early = false; }));
  CHECK(changes([](Plan& p) { std::swap(p.stages[0].args[0], p.stages[0].args[1]); }));
  CHECK(changes([](Plan& p) { p.stages[0].scratch_bytes += 1; }));
  CHECK(changes([](Plan& p) { p.stages[0].block[2] = 2; }));
  CHECK(changes([](Plan& p) { p.stages[0].cluster = 4; }));
  CHECK(changes([](Plan& p) { p.stages[0].shared_bytes = 1; }));
  CHECK(changes([](Plan& p) { p.stages[1].maps.pop_back(); }));
  CHECK(changes([](Plan& p) { p.stages[1].maps[0].tensor = Arg::o; }));
  CHECK(changes([](Plan& p) { p.stages[1].maps[1].element_bytes = 2; }));
  CHECK(changes([](Plan& p) { p.stages[1].maps[0].swizzled = false; }));
  CHECK(changes([](Plan& p) { p.stages[1].maps[0].tokens = 256; }));
  CHECK(changes([](Plan& p) { p.stages[1].maps[0].channels = 8; }));
  CHECK(changes([](Plan& p) { p.workspace.pop_back(); }));
}

TEST_CASE("numbers out of range are refused") {
  const auto refused = [](auto&& change) {
    Plan plan = full_plan();
    change(plan);
    const auto decoded = decode_plan(encode(plan), 2);
    return not decoded and decoded.error().status == Status::bad_pack;
  };
  CHECK_FALSE(refused([](Plan&) {}));
  CHECK(refused([](Plan& p) { p.stages[0].code = 2; }));
  CHECK(refused([](Plan& p) { p.stages.clear(); }));
  CHECK(refused([](Plan& p) { p.stages[0].entry.clear(); }));
  CHECK(refused([](Plan& p) { p.stages[0].entry = std::string("a\0b", 3); }));
  CHECK(refused([](Plan& p) { p.stages[0].tasks.factors[0].divisor = 0; }));
  CHECK(refused([](Plan& p) { p.stages[0].tasks.factors[0].divisor = -1; }));
  CHECK(refused([](Plan& p) { p.stages[0].tasks.multiplier = -1; }));
  CHECK(refused([](Plan& p) { p.stages[0].tasks.factors[0].axis = static_cast<Axis>(axis_count); }));
  CHECK(refused([](Plan& p) { p.stages[0].args[0] = static_cast<Arg>(arg_count); }));
  CHECK(refused([](Plan& p) { p.stages[0].args.resize(arg_count + 1, Arg::q); }));
  CHECK(refused([](Plan& p) { p.stages[0].scratch_bytes = -64; }));
  CHECK(refused([](Plan& p) { p.stages[0].scratch_bytes = INT64_MAX; }));
  CHECK(refused([](Plan& p) { p.stages[0].block[1] = 0; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps.resize(most_tensor_maps + 1); }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].tensor = Arg::state_in; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].element_bytes = 3; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].element_bytes = 8; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].tokens = 0; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].tokens = 257; }));
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].channels = 12; }));   // rows of 24 bytes
  CHECK(refused([](Plan& p) { p.stages[1].maps[0].channels = 128; }));  // of 256, swizzled
  CHECK(refused([](Plan& p) { p.stages[1].maps[1].channels = 260; }));
  CHECK(refused([](Plan& p) { p.target.arch = "x86-64-v7"; }));
  CHECK(refused([](Plan& p) { p.target.features = {"avx512fp16", "avx512bf16"}; }));
}

TEST_CASE("a plan of another version is refused as such") {
  auto bytes = encode(full_plan());
  bytes[0] = std::byte{9};
  CHECK(contains(decode_plan(bytes, 2).error().message, "version 9"));
}

TEST_CASE("a plan cut short anywhere, or with bytes behind it, is refused") {
  auto bytes = encode(full_plan());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // A copy of that size, so that a sanitizer sees any read past it.
    const std::vector<std::byte> head(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    REQUIRE_FALSE(decode_plan(head, 2).has_value());
  }
  bytes.push_back(std::byte{0});
  CHECK_FALSE(decode_plan(bytes, 2).has_value());
}

TEST_CASE("a plan with any byte altered is refused or within range, never a crash") {
  const auto good = encode(full_plan());
  std::mt19937 random(3);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int flip = 0; flip < 12; ++flip) {
      auto bytes = good;
      bytes[i] = flip < 8 ? bytes[i] ^ std::byte(1 << flip) : static_cast<std::byte>(random());
      const auto plan = decode_plan(bytes, 2);
      if (not plan) continue;
      REQUIRE(encode(*plan) == bytes);
      for (const Stage& stage : plan->stages) {
        REQUIRE(stage.code < 2);
        REQUIRE(stage.tasks.at(extents(3, 100, 2)) >= 0);
      }
      REQUIRE(workspace_bytes(*plan, extents(3, 100, 2)) >= 0);
      REQUIRE_FALSE(to_string(*plan).empty());
    }
  }
}

TEST_CASE("random bytes are no plan") {
  std::mt19937 random(4);
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes(random() % 200);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (bytes.size() >= 4 and random() % 2) bytes[0] = std::byte{1}, bytes[1] = bytes[2] = bytes[3] = std::byte{0};
    REQUIRE_FALSE(decode_plan(bytes, 1).has_value());
  }
}

TEST_CASE("every argument has its own name") {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < arg_count; ++i) names.insert(to_string(static_cast<Arg>(i)));
  CHECK(names.size() == arg_count);
  CHECK(to_string(Arg::q) == "q");
  CHECK(to_string(Arg::state_out_head) == "state_out_head");
  CHECK(to_string(Arg::cu_seqlens) == "cu_seqlens");
  CHECK(to_string(Arg::workspace) == "workspace");
  CHECK(to_string(Arg::mapped) == "mapped");
}

TEST_CASE("a plan prints one line a stage") {
  CHECK(to_string(full_plan()) ==
        "test(C=1) for cpu:x86-64-v4+avx512bf16\n"
        "  forward[0] tasks=sequences*kv_heads scratch=256 "
        "(q,k,v,g,o,state_in,state_out,cu_seqlens,q_token,q_head,k_token,"
        "k_head,v_token,v_head,g_token,g_head,o_token,o_head,state_in_slot,state_in_head,state_out_slot,state_out_head,"
        "longest,heads,kv_heads,scale,read_slots,write_slots,slots,device_status,tokens)\n"
        "  second[1] tasks=3*ceil(tokens/16) scratch=1000 (workspace,scale) maps=k[64x64x2,swizzled],g[32x128x4]\n"
        "  workspace=16*sequences*ceil(longest/64) + 128");
}
