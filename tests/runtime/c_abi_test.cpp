#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "tests/runtime/bench.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

static_assert(GLAIVE_OK == int(Status::ok) and GLAIVE_INVALID_ARGUMENT == int(Status::invalid_argument) and
              GLAIVE_UNSUPPORTED == int(Status::unsupported) and GLAIVE_NOT_FOUND == int(Status::not_found) and
              GLAIVE_BAD_PACK == int(Status::bad_pack) and GLAIVE_UNTRUSTED == int(Status::untrusted) and
              GLAIVE_IO_ERROR == int(Status::io_error) and GLAIVE_OUT_OF_MEMORY == int(Status::out_of_memory) and
              GLAIVE_WRONG_DEVICE == int(Status::wrong_device) and GLAIVE_FAILED == int(Status::failed) and
              GLAIVE_OUT_OF_SLOTS == int(Status::out_of_slots) and GLAIVE_STALE == int(Status::stale) and
              GLAIVE_FOREIGN == int(Status::foreign) and GLAIVE_LOST == int(Status::lost) and
              GLAIVE_OUT_OF_ORDER == int(Status::out_of_order) and GLAIVE_BAD_SNAPSHOT == int(Status::bad_snapshot));

}  // namespace

TEST_CASE("C ABI: forward computes the recurrence") {
  Bench b;
  b.find();
  const auto want = expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), true);
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  CHECK(near(b.out, want.state));
}

TEST_CASE("C ABI: scale, absent states, and states in place") {
  Bench b;
  b.find();
  b.args.scale = not_a_number;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), true).o));
  b.args.scale = -2;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, expected(b, {0, T, 2 * T}, -2, true).o));
  b.args.scale = 0;
  b.args.initial_state = b.args.final_state = nullptr;
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), false).o));
  const auto want = expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), true);
  b.args.initial_state = b.args.final_state = b.in.data();
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  CHECK(near(b.in, want.state));
}

TEST_CASE("C ABI: sequences of different lengths") {
  Bench b;
  b.find();
  const std::int32_t cu[] = {0, 1, 1, 6};
  b.shape.sequences = 3;
  b.shape.tokens = 6;
  b.shape.longest = 5;
  b.shape.cu_seqlens = cu;
  b.in.assign(3 * Hkv * K * V, 0.5f);
  b.out.assign(b.in.size(), not_a_number);
  b.args.initial_state = b.in.data();
  b.args.final_state = b.out.data();
  const auto want = expected(b, {0, 1, 1, 6}, 1 / std::sqrt(8.0), true);
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(near(b.o, want.o));
  CHECK(near(b.out, want.state));
}

TEST_CASE("C ABI: no tokens at all: the states go through, tensors may be NULL") {
  Bench b;
  b.find();
  b.shape.tokens = 0;
  b.args.q = b.args.k = b.args.v = b.args.g = b.args.o = nullptr;
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  CHECK(b.out == b.in);
}

TEST_CASE("C ABI: slices of a fused projection through strides, heads first included") {
  Bench b;
  b.find();
  const auto want = expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), true);
  // One row a token: q [H,K], k, v, g [Hkv,8].
  constexpr std::int64_t row = H * K + 3 * Hkv * 8;
  std::vector<float> fused(static_cast<std::size_t>(B * T * row));
  for (std::int64_t t = 0; t < B * T; ++t) {
    float* at = fused.data() + t * row;
    at = std::copy_n(b.q.begin() + t * H * K, H * K, at);
    at = std::copy_n(b.k.begin() + t * Hkv * K, Hkv * K, at);
    at = std::copy_n(b.v.begin() + t * Hkv * V, Hkv * V, at);
    std::copy_n(b.g.begin() + t * Hkv * K, Hkv * K, at);
  }
  b.args.q = fused.data();
  b.args.k = fused.data() + H * K;
  b.args.v = fused.data() + H * K + Hkv * 8;
  b.args.g = fused.data() + H * K + 2 * Hkv * 8;
  b.args.q_token_stride = b.args.k_token_stride = b.args.v_token_stride = b.args.g_token_stride = row;
  // o as [H, B*T, V].
  b.args.o_token_stride = V;
  b.args.o_head_stride = B * T * V;
  INFO(glaive_last_error());
  REQUIRE(b.call() == GLAIVE_OK);
  std::vector<float> o(b.o.size());
  for (std::int64_t t = 0; t < B * T; ++t)
    for (std::int64_t h = 0; h < H; ++h) std::copy_n(b.o.begin() + (h * B * T + t) * V, V, o.begin() + (t * H + h) * V);
  CHECK(near(o, want.o));
}

TEST_CASE("C ABI: the plan says how it matches") {
  glaive_match match = GLAIVE_MATCH_OTHER_DEVICE;
  {
    Bench b;
    b.find();
    REQUIRE(glaive_plan_match(b.plan, &match) == GLAIVE_OK);
    CHECK(match == GLAIVE_MATCH_EXACT);
    CHECK(std::string(glaive_plan_variant(b.plan)) == "test(C=1)");
    CHECK(contains(glaive_plan_description(b.plan), "match=exact"));
  }
  {
    Bench b;
    b.shape.tokens = 5000;
    b.find();
    REQUIRE(glaive_plan_match(b.plan, &match) == GLAIVE_OK);
    CHECK(match == GLAIVE_MATCH_NEAREST);
    CHECK(contains(glaive_plan_description(b.plan), "tuned for work 4..7, tokens 2..15"));
  }
  PackEntry foreign = kernel_entry();
  foreign.key.device = "name=Other; cc=-";
  Bench b({foreign});
  b.find();
  REQUIRE(glaive_plan_match(b.plan, &match) == GLAIVE_OK);
  CHECK(match == GLAIVE_MATCH_OTHER_DEVICE);
  CHECK(contains(glaive_plan_description(b.plan), "name=Other"));
}

TEST_CASE("C ABI: an entry that cannot be loaded is passed over, visibly") {
  PackEntry unfit = kernel_entry();
  unfit.key.policy = "v1 threads=2";
  unfit.plan.stages[0].entry = "missing";
  Bench b({kernel_entry(), unfit});
  b.find();
  glaive_match match = GLAIVE_MATCH_EXACT;
  REQUIRE(glaive_plan_match(b.plan, &match) == GLAIVE_OK);
  CHECK(match == GLAIVE_MATCH_NEAREST);
  CHECK(contains(glaive_plan_description(b.plan), "skipped: the code object has no entry \"missing\""));
  CHECK(b.call() == GLAIVE_OK);

  Bench alone({unfit});
  glaive_plan* plan = nullptr;
  CHECK(glaive_plan_find(alone.device, alone.pack, &alone.problem, &alone.shape, &plan) == GLAIVE_FAILED);
  CHECK(contains(glaive_last_error(), "missing"));
  CHECK(plan == nullptr);
}

TEST_CASE("C ABI: a plan outlives its device's and its pack's handles") {
  Bench b;
  b.find();
  glaive_device_close(std::exchange(b.device, nullptr));
  glaive_pack_close(std::exchange(b.pack, nullptr));
  CHECK(b.call() == GLAIVE_OK);
}

TEST_CASE("C ABI: closing NULL, and asking NULL") {
  glaive_device_close(nullptr);
  glaive_pack_close(nullptr);
  glaive_plan_close(nullptr);
  CHECK(glaive_device_threads(nullptr) == 0);
  CHECK(glaive_pack_size(nullptr) == 0);
  CHECK(std::string(glaive_device_target(nullptr)).empty());
  CHECK(std::string(glaive_plan_variant(nullptr)).empty());
  CHECK(std::string(glaive_plan_description(nullptr)).empty());
  CHECK(std::string(glaive_version()) == std::to_string(GLAIVE_VERSION_MAJOR) + "." +
                                             std::to_string(GLAIVE_VERSION_MINOR) + "." +
                                             std::to_string(GLAIVE_VERSION_PATCH));
}

TEST_CASE("C ABI: devices") {
  glaive_device* device = nullptr;
  REQUIRE(glaive_device_open("cpu", 3, &device) == GLAIVE_OK);
  CHECK(glaive_device_threads(device) == 3);
  CHECK(std::string(glaive_device_target(device)) == to_string(host_cpu_target()));
  glaive_device_close(device);
  REQUIRE(glaive_device_open("cpu", 0, &device) == GLAIVE_OK);
  CHECK(glaive_device_threads(device) == host_cpu_device().units);
  glaive_device_close(device);

  device = nullptr;
  const auto refused = [&](const char* name, int threads, glaive_device** out, glaive_status status, const char* part) {
    CHECK(glaive_device_open(name, threads, out) == status);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
    CHECK(device == nullptr);
  };
  refused("cuda", 1, &device, GLAIVE_NOT_FOUND, "\"cuda\"");
  refused("", 1, &device, GLAIVE_NOT_FOUND, "\"cpu\"");
  refused(nullptr, 1, &device, GLAIVE_INVALID_ARGUMENT, "name is NULL");
  refused("cpu", -1, &device, GLAIVE_INVALID_ARGUMENT, "threads is -1");
  refused("cpu", 1025, &device, GLAIVE_INVALID_ARGUMENT, "1 to 1024");
  refused("cpu", 1, nullptr, GLAIVE_INVALID_ARGUMENT, "device is NULL");
}

TEST_CASE("C ABI: packs that cannot be opened") {
  Folder folder;
  glaive_pack* pack = nullptr;
  CHECK(glaive_pack_open((folder / "none").c_str(), &pack) == GLAIVE_NOT_FOUND);
  CHECK(contains(glaive_last_error(), (folder / "none").string()));
  const std::string text = "no pack";
  write_bytes(folder / "text", std::as_bytes(std::span(text)));
  CHECK(glaive_pack_open((folder / "text").c_str(), &pack) == GLAIVE_BAD_PACK);
  fs::permissions(folder / "text", fs::perms::all);
  CHECK(glaive_pack_open((folder / "text").c_str(), &pack) == GLAIVE_UNTRUSTED);
  CHECK(glaive_pack_open(nullptr, &pack) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_pack_open("x", nullptr) == GLAIVE_INVALID_ARGUMENT);
  CHECK(pack == nullptr);
}

TEST_CASE("C ABI: problems by text") {
  glaive_problem problem = {};
  problem.size = sizeof problem;
  REQUIRE(glaive_problem_parse("step H16 Hkv4 K128 V64 bf16 gate=f32 state=bf16 logit vk", &problem) == GLAIVE_OK);
  CHECK(problem.heads == 16);
  CHECK(problem.kv_heads == 4);
  CHECK(problem.key_dim == 128);
  CHECK(problem.value_dim == 64);
  CHECK(problem.op == GLAIVE_STEP);
  CHECK(problem.io_dtype == GLAIVE_BF16);
  CHECK(problem.gate_dtype == GLAIVE_F32);
  CHECK(problem.state_dtype == GLAIVE_BF16);
  CHECK(problem.gate_form == GLAIVE_GATE_LOGIT);
  CHECK(problem.state_layout == GLAIVE_STATE_VK);

  const glaive_problem before = problem;
  CHECK(glaive_problem_parse("forward H4 K8 W8", &problem) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "column 15: unknown word \"W8\""));
  CHECK(glaive_problem_parse(nullptr, &problem) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_problem_parse("forward H4 K8 V8", nullptr) == GLAIVE_INVALID_ARGUMENT);
  CHECK(std::memcmp(&before, &problem, sizeof problem) == 0);
  problem.size = 0;
  CHECK(glaive_problem_parse("forward H4 K8 V8", &problem) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "problem->size is 0"));
  CHECK(problem.heads == 16);
}

TEST_CASE("C ABI: a plan cannot be found for bad or uncovered problems and shapes") {
  Bench b;
  struct Row {
    const char* name;
    std::function<void(glaive_problem&, glaive_shape&)> change;
    glaive_status status;
    const char* part;
  };
  static const std::int32_t good[] = {0, 1, 3};
  const Row rows[] = {
      {"heads 0", [](auto& p, auto&) { p.heads = p.kv_heads = 0; }, GLAIVE_INVALID_ARGUMENT, "H is the number"},
      {"heads -1", [](auto& p, auto&) { p.heads = -1; }, GLAIVE_INVALID_ARGUMENT, "not -1"},
      {"kv heads 3", [](auto& p, auto&) { p.kv_heads = 3; }, GLAIVE_INVALID_ARGUMENT, "H=4 with Hkv=3"},
      {"K 513", [](auto& p, auto&) { p.key_dim = 513; }, GLAIVE_INVALID_ARGUMENT, "1 to 512"},
      {"V 0", [](auto& p, auto&) { p.value_dim = 0; }, GLAIVE_INVALID_ARGUMENT, "1 to 512"},
      {"op", [](auto& p, auto&) { p.op = 2; }, GLAIVE_INVALID_ARGUMENT, "op is 2; allowed are 0 (forward) 1 (step)"},
      {"io", [](auto& p, auto&) { p.io_dtype = 3; }, GLAIVE_INVALID_ARGUMENT, "io_dtype is 3; allowed are 0 (f32)"},
      {"gate", [](auto& p, auto&) { p.gate_dtype = -1; }, GLAIVE_INVALID_ARGUMENT, "gate_dtype is -1"},
      {"state", [](auto& p, auto&) { p.state_dtype = 99; }, GLAIVE_INVALID_ARGUMENT, "state_dtype is 99"},
      {"form", [](auto& p, auto&) { p.gate_form = 2; }, GLAIVE_INVALID_ARGUMENT, "gate_form is 2"},
      {"layout", [](auto& p, auto&) { p.state_layout = 2; }, GLAIVE_INVALID_ARGUMENT, "state_layout is 2"},
      {"other dtype", [](auto& p, auto&) { p.io_dtype = GLAIVE_BF16; }, GLAIVE_UNSUPPORTED,
       "no kernel for `forward H4 Hkv2 K8 V8 bf16 gate=f32`"},
      {"other size", [](auto& p, auto&) { p.key_dim = 9; }, GLAIVE_UNSUPPORTED, "no kernel"},
      {"problem size", [](auto& p, auto&) { p.size = 8; }, GLAIVE_INVALID_ARGUMENT, "problem->size is 8"},
      {"shape size", [](auto&, auto& s) { s.size = 0; }, GLAIVE_INVALID_ARGUMENT, "shape->size is 0"},
      {"B 0", [](auto&, auto& s) { s.sequences = 0; }, GLAIVE_INVALID_ARGUMENT, "shape: B is"},
      {"T -1", [](auto&, auto& s) { s.tokens = -1; }, GLAIVE_INVALID_ARGUMENT, "not -1"},
      {"too many", [](auto&, auto& s) { s.tokens = 2000000000; }, GLAIVE_INVALID_ARGUMENT, "at most 2147483647"},
      {"longest alone", [](auto&, auto& s) { s.longest = 5; }, GLAIVE_INVALID_ARGUMENT, "longest is 5 without"},
      {"cu longest 4", [](auto&, auto& s) { s.cu_seqlens = good, s.longest = 4; }, GLAIVE_INVALID_ARGUMENT,
       "longest is 4; it must be from 0 to the 3 tokens"},
      {"cu longest -1", [](auto&, auto& s) { s.cu_seqlens = good, s.longest = -1; }, GLAIVE_INVALID_ARGUMENT,
       "longest is -1"},
      {"cu odd",
       [](auto&, auto& s) { s.cu_seqlens = reinterpret_cast<const int32_t*>(reinterpret_cast<const char*>(good) + 1); },
       GLAIVE_INVALID_ARGUMENT, "aligned"},
      {"cu B 0", [](auto&, auto& s) { s.cu_seqlens = good, s.sequences = 0; }, GLAIVE_INVALID_ARGUMENT, "B is"},
  };
  for (const Row& row : rows) {
    glaive_problem problem = b.problem;
    glaive_shape shape = b.shape;
    row.change(problem, shape);
    glaive_plan* plan = nullptr;
    INFO(row.name);
    CHECK(glaive_plan_find(b.device, b.pack, &problem, &shape, &plan) == row.status);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), row.part));
    CHECK(plan == nullptr);
  }
  glaive_plan* plan = nullptr;
  CHECK(glaive_plan_find(nullptr, b.pack, &b.problem, &b.shape, &plan) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_find(b.device, nullptr, &b.problem, &b.shape, &plan) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_find(b.device, b.pack, nullptr, &b.shape, &plan) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_find(b.device, b.pack, &b.problem, nullptr, &plan) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_find(b.device, b.pack, &b.problem, &b.shape, nullptr) == GLAIVE_INVALID_ARGUMENT);
  CHECK(plan == nullptr);
}

TEST_CASE("C ABI: every bad call names the argument and writes nothing") {
  Bench b;
  // Room behind them, so that a final state put there reaches no neighbour.
  b.v.resize(4 * b.out.size());
  b.in.resize(4 * b.out.size());
  b.args.v = b.v.data();
  b.args.initial_state = b.in.data();
  b.find();
  struct Row {
    std::function<void(glaive_args&)> change;
    const char* part;
  };
  const auto odd = [](const void* p) { return static_cast<const char*>(p) + 2; };
  const Row rows[] = {
      {[](auto& a) { a.size = 0; }, "args->size is 0"},
      {[](auto& a) { a.size = 1 << 20; }, "args->size is 1048576"},
      {[](auto& a) { a.reserved = 1; }, "args->reserved is 1"},
      {[](auto& a) { a.q = nullptr; }, "args->q is NULL"},
      {[](auto& a) { a.k = nullptr; }, "args->k is NULL"},
      {[](auto& a) { a.v = nullptr; }, "args->v is NULL"},
      {[](auto& a) { a.g = nullptr; }, "args->g is NULL"},
      {[](auto& a) { a.o = nullptr; }, "args->o is NULL"},
      {[&](auto& a) { a.q = odd(a.q); }, "args->q is not aligned to the 4 bytes of an element"},
      {[&](auto& a) { a.g = odd(a.g); }, "args->g is not aligned"},
      {[&](auto& a) { a.initial_state = odd(a.initial_state); }, "args->initial_state is not aligned"},
      {[&](auto& a) { a.o = const_cast<char*>(odd(a.o)); }, "args->o is not aligned"},
      {[](auto& a) { a.q_head_stride = 7; }, "args->q_head_stride is 7; it must be 0 (contiguous) or at least 8"},
      {[](auto& a) { a.k_head_stride = -8; }, "args->k_head_stride is -8"},
      {[](auto& a) { a.v_token_stride = -16; }, "args->v_token_stride is -16"},
      {[](auto& a) { a.g_token_stride = 1; }, "args->g_token_stride is 1"},
      {[](auto& a) { a.q_token_stride = INT64_MAX; }, "args->q has a stride of 2^40 elements or more"},
      {[](auto& a) { a.o_token_stride = 16; }, "args->o has strides under which its own elements overlap"},
      {[](auto& a) { a.final_state_slot_stride = 64; }, "args->final_state has strides under which"},
      {[](auto& a) { a.initial_state_head_stride = 63; }, "args->initial_state_head_stride is 63"},
      {[](auto& a) { a.o = const_cast<void*>(a.q); }, "args->o overlaps args->q"},
      {[](auto& a) { a.o = const_cast<void*>(a.initial_state); }, "args->o overlaps args->initial_state"},
      {[](auto& a) { a.v = a.final_state; }, "args->final_state overlaps args->v"},
      {[](auto& a) { a.final_state = a.o; }, "overlaps args->"},
      {[](auto& a) { a.final_state = const_cast<float*>(static_cast<const float*>(a.initial_state)) + 64; },
       "in place only at the same address"},
      {[](auto& a) { a.final_state = const_cast<void*>(a.initial_state), a.final_state_slot_stride = 256; },
       "in place only at the same address with the same strides"},
      {[](auto& a) { a.scale = infinite; }, "args->scale is inf"},
      {[](auto& a) { a.gate_tau = -1; }, "args->gate_tau is -1"},
      {[](auto& a) { a.gate_tau = not_a_number; }, "args->gate_tau is nan"},
      {[](auto& a) { a.gate_clamp = 1; }, "args->gate_clamp is 1"},
      {[&](auto& a) { a.o = b.workspace; }, "workspace overlaps args->o"},
      {[&](auto& a) { a.q = b.workspace; }, "workspace overlaps args->q"},
  };
  const glaive_args good = b.args;
  for (const Row& row : rows) b.check_refused(row.change, row.part);
  b.args = good;
  const auto refused = [&](glaive_status status, const char* part) {
    CHECK(status == GLAIVE_INVALID_ARGUMENT);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
    CHECK(b.nothing_written());
  };
  refused(glaive_run(nullptr, &b.shape, &b.args, b.workspace, b.bytes), "plan is NULL");
  refused(glaive_run(b.plan, nullptr, &b.args, b.workspace, b.bytes), "shape is NULL");
  refused(glaive_run(b.plan, &b.shape, nullptr, b.workspace, b.bytes), "args is NULL");
  refused(glaive_run(b.plan, &b.shape, &b.args, nullptr, b.bytes), "workspace is NULL");
  refused(glaive_run(b.plan, &b.shape, &b.args, b.workspace, b.bytes - 1),
          "workspace_bytes is 511; this call needs 512");
  refused(glaive_run(b.plan, &b.shape, &b.args, b.workspace + 32, b.bytes), "aligned to 64");
  b.shape.tokens = -1;
  refused(b.call(), "shape: T is");

  const std::int32_t down[] = {0, 4, 3}, late[] = {1, 2, 3}, right[] = {0, 1, 3};
  const auto ragged = [&](const std::int32_t* cu, std::int64_t tokens, std::int64_t longest, const char* part) {
    b.shape.cu_seqlens = cu, b.shape.tokens = tokens, b.shape.longest = longest;
    refused(b.call(), part);
  };
  ragged(down, 3, 3, "cu_seqlens[2] is less");
  ragged(late, 3, 1, "cu_seqlens[0] is 1");
  ragged(right, 4, 2, "shape->tokens is 4");
  ragged(right, 3, 1, "longest sequence of cu_seqlens has 2");
}

TEST_CASE("C ABI: structs of other versions of the header") {
  Bench b;
  b.find();
  struct Newer {
    glaive_args args;
    std::uint64_t field = 0;
  } newer = {b.args};
  newer.args.size = sizeof newer;
  CHECK(glaive_run(b.plan, &b.shape, &newer.args, b.workspace, b.bytes) == GLAIVE_OK);
  newer.field = 1;
  b.o.assign(b.o.size(), not_a_number);
  b.out.assign(b.out.size(), not_a_number);
  CHECK(glaive_run(b.plan, &b.shape, &newer.args, b.workspace, b.bytes) == GLAIVE_UNSUPPORTED);
  CHECK(contains(glaive_last_error(), "does not know"));
  CHECK(b.nothing_written());
}

TEST_CASE("C ABI: the sizes of version 0.1's structs are fixed") {
  CHECK(sizeof(glaive_problem) == 64);
  CHECK(sizeof(glaive_shape) == 40);
  CHECK(sizeof(glaive_args) == 232);
}

TEST_CASE("C ABI: messages belong to their thread") {
  CHECK(glaive_pack_open(nullptr, nullptr) == GLAIVE_INVALID_ARGUMENT);
  const std::string mine = glaive_last_error();
  std::thread([] {
    CHECK(std::string(glaive_last_error()).empty());
    glaive_device* device = nullptr;
    (void)glaive_device_open("other", 0, &device);
  }).join();
  CHECK(glaive_last_error() == mine);
}

TEST_CASE("C ABI: a long message is cut, not overrun") {
  glaive_pack* pack = nullptr;
  CHECK(glaive_pack_open(std::string(3000, 'x').c_str(), &pack) == GLAIVE_IO_ERROR);
  CHECK(std::strlen(glaive_last_error()) == 1023);
}

TEST_CASE("C ABI: one plan may be called from several threads") {
  Bench b;
  b.find();
  const auto want = expected(b, {0, T, 2 * T}, 1 / std::sqrt(8.0), true);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      void* memory = std::aligned_alloc(64, 4096);
      std::vector<float> o(b.o.size()), out(b.out.size());
      glaive_args args = b.args;
      args.o = o.data();
      args.final_state = out.data();
      for (int i = 0; i < 200; ++i)
        if (glaive_run(b.plan, &b.shape, &args, memory, b.bytes) != GLAIVE_OK or not near(o, want.o)) ++wrong;
      std::free(memory);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
