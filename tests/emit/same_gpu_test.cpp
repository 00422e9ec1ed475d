// On a GPU, what was emitted gives the driver the launches that libglaive gives it: on the driver without a GPU.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "compiler/cuda.hpp"
#include "tests/emit/emitted.hpp"
#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

constexpr const char* problem = "forward H8 Hkv4 K64 V128 bf16";

/// Three stages with every argument, tensor maps, clusters and an early start.
PackEntry staged_entry() {
  PackEntry entry = gpu_entry();
  entry.key.problem = problem;
  entry.key.bucket = {4, 3};
  Stage all;
  all.entry = "all";
  all.tasks = {2, {{Axis::sequences, 1}, {Axis::longest, 16, 1}}};
  for (std::size_t arg = 0; arg < arg_count; ++arg) all.args.push_back(static_cast<Arg>(arg));
  for (const Arg tensor : {Arg::q, Arg::k, Arg::v, Arg::g, Arg::o})
    all.maps.push_back({tensor, 2, tensor != Arg::g, static_cast<std::uint16_t>(tensor == Arg::v ? 32 : 16), 64});
  all.block[0] = 384;
  all.shared_bytes = 120000;
  Stage few;
  few.entry = "few";
  few.tasks = {4, {{Axis::kv_heads, 1}}};
  few.args = {Arg::scale, Arg::mapped, Arg::workspace};
  few.block[0] = 64, few.block[1] = 2;
  few.cluster = 4;
  few.early = true;
  Stage none = few;  // left out where there are no tokens
  none.tasks = {1, {{Axis::tokens, 8}}};
  none.cluster = 1;
  entry.plan.stages = {all, few, none};
  entry.plan.workspace = {{256, {{Axis::sequences, 1}}}, {1, {{Axis::tokens, 1}, {Axis::kv_heads, 1}}}};
  return entry;
}

struct Both {
  Folder folder;
  std::optional<EmittedLibrary> gla;
  api::Device device = api::Device("cuda:0");
  std::optional<api::Plan> plan;
  std::optional<EmittedOperator> emitted;
  std::optional<api::Memory> memory;

  Both() {
    fresh_stub().set_kernel("all", {.words = arg_count, .maps = 5});
    stub().set_kernel("few", {.words = 3});
    emit_entries(folder, {staged_entry()});
    gla.emplace(folder);
    const api::Pack pack((folder / "p.pack").string());
    plan.emplace(device, pack, api::Problem(problem), api::Shape(api::Sequences(4), api::Tokens(100)));
    emitted.emplace(*gla, "cuda:0", 0, problem);
    memory.emplace(device, std::size_t{1} << 24);
  }
  ~Both() {
    emitted.reset();
    gla.reset();
  }
  char* at(std::size_t offset) const { return static_cast<char*>(memory->data()) + offset; }
  glaive_args args() const {
    glaive_args args = {};
    args.size = sizeof args;
    args.q = at(0x100000), args.k = at(0x200000), args.v = at(0x300000), args.g = at(0x400000), args.o = at(0x500000);
    args.final_state = at(0x600000);
    args.device_status = reinterpret_cast<std::uint32_t*>(at(0x40));
    args.scale = 0.5f;
    return args;
  }
};

bool operator==(const StubMap& a, const StubMap& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

bool same(const StubLaunch& a, const StubLaunch& b) {
  return a.entry == b.entry and std::equal(a.grid, a.grid + 3, b.grid) and std::equal(a.block, a.block + 3, b.block) and
         a.shared_bytes == b.shared_bytes and a.cluster == b.cluster and a.early == b.early and a.stream == b.stream and
         a.words == b.words and
         std::equal(a.maps.begin(), a.maps.end(), b.maps.begin(), b.maps.end(),
                    [](const StubMap& x, const StubMap& y) { return x == y; });
}

}  // namespace

TEST_CASE("stages, words, tensor maps, clusters and early starts reach the driver as libglaive's do") {
  Both both;
  int stream = 0;
  const auto compare = [&](const glaive_shape& shape, const glaive_args& args, std::size_t launches) {
    const std::size_t bytes = both.plan->workspace_bytes(static_cast<const api::Shape&>(shape));
    const gla_shape same_shape = emitted_shape(shape);
    const gla_args same_args = emitted_args(args);
    const gla_plan* const plan = both.emitted->plan(same_shape);
    std::size_t same_bytes = 0;
    REQUIRE(both.gla->plan_workspace(plan, &same_shape, &same_bytes) == GLA_OK);
    CHECK(same_bytes == bytes);
    void* const workspace = both.at(0x700000);
    stub().run_all();
    const std::size_t before = stub().launches().size();
    REQUIRE(glaive_run(both.plan->get(), &shape, &args, workspace, bytes) == GLAIVE_OK);
    const auto status = both.gla->run(plan, &same_shape, &same_args, workspace, bytes);
    INFO(both.gla->last_error());
    REQUIRE(status == GLA_OK);
    gla_launch* launch = nullptr;
    REQUIRE(both.gla->launch_prepare(plan, &same_shape, &same_args, workspace, bytes, &launch) == GLA_OK);
    REQUIRE(both.gla->launch_run(launch) == GLA_OK);
    both.gla->launch_close(launch);
    stub().run_all();
    REQUIRE(stub().launches().size() - before == 3 * launches);
    for (std::size_t i = 0; i < launches; ++i) {
      const StubLaunch* const first = &stub().launches()[before + i];
      INFO(first->entry);
      CHECK(same(first[0], first[launches]));
      CHECK(same(first[0], first[2 * launches]));
    }
  };
  api::Shape shape(api::Sequences(4), api::Tokens(100));
  glaive_args args = both.args();
  args.stream = &stream;
  compare(shape, args, 3);
  CHECK(stub().launches().back().early);
  args.q_token_stride = 8 * 64 + 4;  // no multiple of 16 bytes: no maps
  compare(shape, args, 3);
  CHECK(stub().launches()[stub().launches().size() - 3].words.back() == 0);
  compare(api::Shape(api::Sequences(4), api::Tokens(0)), both.args(), 2);
  std::vector<std::int32_t> nowhere(6);
  shape = api::Shape(api::Sequences(5), api::Tokens(33));
  shape.cu_seqlens = reinterpret_cast<std::int32_t*>(both.at(0x80));
  shape.longest = 20;
  compare(shape, both.args(), 3);
}

TEST_CASE("a prepared launch is one call of the driver for each stage, in the context that is current or its own") {
  Both both;
  const api::Shape shape(api::Sequences(4), api::Tokens(100));
  const gla_shape same_shape = emitted_shape(shape);
  const gla_args args = emitted_args(both.args());
  gla_launch* launch = nullptr;
  REQUIRE(both.gla->launch_prepare(both.emitted->plan(same_shape), &same_shape, &args, both.at(0x700000), 1 << 20,
                                   &launch) == GLA_OK);
  const auto calls_of_a_run = [&] {
    const auto before = static_cast<std::ptrdiff_t>(stub().calls().size());
    REQUIRE(both.gla->launch_run(launch) == GLA_OK);
    return std::vector<std::string>(stub().calls().begin() + before, stub().calls().end());
  };
  using Calls = std::vector<std::string>;
  CHECK(calls_of_a_run() == Calls{"CtxGetCurrent", "CtxPushCurrent", "LaunchKernelEx", "LaunchKernelEx",
                                  "LaunchKernelEx", "CtxPopCurrent"});
  {
    const Driving current;
    CHECK(calls_of_a_run() == Calls{"CtxGetCurrent", "LaunchKernelEx", "LaunchKernelEx", "LaunchKernelEx"});
  }
  stub().fail("LaunchKernelEx", cuda::illegal_address, 1);
  CHECK(both.gla->launch_run(launch) == GLA_DEVICE_LOST);
  CHECK(contains(both.gla->last_error(), "the GPU refuses the launch of stage 1 of "));
  CHECK(contains(both.gla->last_error(), "CUDA_ERROR_ILLEGAL_ADDRESS"));
  both.gla->launch_close(launch);
}

TEST_CASE("what the GPU or the driver refuses is said, and nothing of it stays") {
  const Folder folder;
  emit_entries(folder, {staged_entry()}, "--ptx off");
  const EmittedLibrary gla(folder);
  gla_device* device = nullptr;
  REQUIRE(gla.device_open("cuda:0", 0, &device) == GLA_OK);
  const auto refused = [&](gla_status wanted, const char* part) {
    gla_operator* op = nullptr;
    const std::size_t before = stub().allocations();
    CHECK(gla.operator_create(device, static_cast<gla_problem>(0), &op) == wanted);
    INFO(gla.last_error());
    CHECK(contains(gla.last_error(), part));
    CHECK(stub().allocations() == before);
  };
  fresh_stub().set_kernel("few", {.words = 3});
  refused(GLA_FAILED, "cannot load \"all\"");
  stub().set_kernel("all", {.words = arg_count, .maps = 4});
  refused(GLA_FAILED, "takes other parameters than its stage gives");
  stub().set_kernel("all", {.words = arg_count, .maps = 5, .max_threads = 256});
  refused(GLA_UNSUPPORTED, "wants 384 threads in a block; it can have at most 256 here");
  stub().set_kernel("all", {.words = arg_count, .maps = 5, .shared_bytes = 200000});
  refused(GLA_UNSUPPORTED, "wants 320000 bytes of shared memory; it can have at most 232448 here");
  stub().set_jit_log("the log of a compiler");
  stub().fail("ModuleLoadDataEx", cuda::invalid_image);
  refused(GLA_FAILED, "the driver refuses code for cuda:sm_90a, saying the log of a compiler");
  gla.device_close(device);
  const auto contexts = stub().contexts();
  REQUIRE(gla.device_open("cuda:1", 0, &device) == GLA_OK);
  CHECK(stub().contexts() == contexts + 1);
  refused(GLA_UNSUPPORTED, "runs on Stub GPU 1");  // of another architecture
  gla.device_close(device);
  CHECK(stub().contexts() == contexts);
  CHECK(gla.device_open("cuda:2", 0, &device) == GLA_NOT_FOUND);
  CHECK(contains(gla.last_error(), "there is no GPU 2; the driver sees 2"));
  CHECK(gla.device_open("cpu", 0, &device) == GLA_NOT_FOUND);
  CHECK(gla.device_open("cuda:0", 4, &device) == GLA_INVALID_ARGUMENT);
}

TEST_CASE("a C program with nothing but the driver runs what was emitted for a GPU") {
  fresh_stub();
  const Folder folder;
  emit_entries(folder, {gpu_entry()});
  const std::string program = build_consumer(folder);
  runs_right("GLAIVE_LIBCUDA=" STUB_WITH_KERNEL " " + program + " cuda:0 '" + kernel_problem + "' 3 5");
  const Output none = run_command("GLAIVE_LIBCUDA=/nowhere " + program + " cuda:0 '" + kernel_problem + "' 3 5");
  CHECK(none.exit == 1);
}

TEST_CASE("a cubin that was tuned on another GPU, for any shape, comes before PTX") {
  fresh_stub();
  const Folder folder;
  PackEntry ptx = gpu_entry(), tuned = gpu_entry();
  ptx.key.device.clear();
  ptx.key.target = "cuda:compute_80";
  ptx.plan.variant = "ptx";
  ptx.plan.target = ptx.code[0].target = *parse_target(ptx.key.target);
  ptx.code[0].format = CodeObject::Format::ptx;
  ptx.code[0].bytes = gpu_code().bytes;
  tuned.key.device = "name=another";
  tuned.key.target = "cuda:sm_90";
  tuned.key.bucket = {14, 8};
  tuned.plan.variant = "tuned";
  tuned.plan.target = tuned.code[0].target = *parse_target(tuned.key.target);
  emit_entries(folder, {tuned, ptx}, "--ptx off");
  const EmittedLibrary gla(folder);
  stub().set_kernel("forward", {.words = tuned.plan.stages[0].args.size()});
  const EmittedOperator emitted(gla, "cuda:0", 0, kernel_problem);
  CHECK(gla.plan_variant(emitted.plan({2, 3, 0, nullptr})) == std::string_view("tuned"));
}

TEST_CASE("the header for engines that launch by themselves has the geometry of a GPU's stages") {
  fresh_stub();
  const Folder folder;
  const PackEntry entry = staged_entry();
  emit_entries(folder, {entry}, "--header-only --ptx off");
  const auto program = (folder / "geometry").string();
  const Output compiled = run_command(strict_c + ("-I" + (folder / "out").string()) +
                                      "/include " CONSUMER_FOLDER "/geometry.c -o " + program);
  INFO(compiled.text);
  REQUIRE(compiled.exit == 0);
  const std::int64_t calls[][3] = {{4, 400, 100}, {5, 33, 20}, {1, 0, 0}, {300, 70001, 513}};
  for (const auto& [sequences, tokens, longest] : calls) {
    Extents extents;
    extents[Axis::sequences] = sequences, extents[Axis::tokens] = tokens, extents[Axis::longest] = longest;
    extents[Axis::heads] = 8, extents[Axis::kv_heads] = 4, extents[Axis::k] = 64, extents[Axis::v] = 128;
    extents[Axis::workers] = 1;
    const auto& stages = entry.plan.stages;
    CHECK(run_command(fmt::format("{} {} {} {}", program, sequences, tokens, longest)).text ==
          fmt::format("3 stages, grids {} {} {}, workspace {}\n"
                      "all: 384x1x1, 120000 bytes, clusters of 1, early 0\n"
                      "few: 64x2x1, 0 bytes, clusters of 4, early 1, scale mapped workspace \n"
                      "q 2 1 16 64\nk 2 1 16 64\nv 2 1 32 64\ng 2 0 16 64\no 2 1 16 64\n",
                      stages[0].tasks.at(extents), stages[1].tasks.at(extents), stages[2].tasks.at(extents),
                      workspace_bytes(entry.plan, extents)));
  }
}

TEST_CASE("PTX is insisted on where GPU code is chosen, and not spoken of where none is") {
  fresh_stub();
  const Folder folder;
  const PackEntry entries[] = {gpu_entry(), kernel_entry()};
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
  const auto emit = [&](const std::string& words) {
    return run_command("GLAIVE_NVRTC=/nowhere/libnvrtc.so " GLAIVE_BINARY " emit --replace --pack " +
                       (folder / "p.pack").string() + " --out " + (folder / "out").string() + " " + words);
  };
  const Output insisted = emit("--ptx on");
  CHECK(insisted.exit == 1);
  CHECK(insisted.text.starts_with("glaive: no PTX for newer GPUs: "));
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
  for (const char* words : {"--ptx on --targets cpu", "--targets cpu", "--ptx off"}) {
    const Output output = emit(words);
    CHECK(output.exit == 0);
    CHECK_FALSE(contains(output.text, "PTX"));
  }
  const Output noted = emit("");
  CHECK(noted.exit == 0);
  CHECK(contains(noted.text, "no PTX for newer GPUs: "));
}

TEST_CASE("PTX for newer GPUs comes with cubins, where there is NVRTC") {
  fresh_stub();
  const Folder folder;
  PackEntry entry = gpu_entry();
  entry.key.problem = "step H4 K64 V64 bf16";
  entry.plan.variant = "step";
  REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
  const auto out = (folder / "out").string();
  const Output output = emit_command("--pack " + (folder / "p.pack").string() + " --out " + out);
  INFO(output.text);
  REQUIRE(output.exit == 0);
  if (not CudaCompiler::open()) {
    CHECK(contains(output.text, "no PTX for newer GPUs: "));
    return;
  }
  const auto bytes = read_bytes(folder / "out/manifest.json");
  const auto manifest = nlohmann::json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  std::vector<std::string> targets;
  for (const auto& each : manifest["entries"]) targets.push_back(each["target"]);
  CHECK(targets == std::vector<std::string>{"cuda:compute_86", "cuda:compute_90", "cuda:sm_90a"});
  for (const auto& code : manifest["code"])
    if (code["format"] == "ptx") {
      const auto text = read_bytes(folder / "out" / code["file"].get<std::string>());
      CHECK(contains(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()), ".target "));
    }
  const Output without = emit_command("--replace --ptx off --pack " + (folder / "p.pack").string() + " --out " + out);
  CHECK(without.exit == 0);
  CHECK_FALSE(contains(without.text, "compute_"));
}
