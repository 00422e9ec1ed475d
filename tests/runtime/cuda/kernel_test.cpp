#include "tests/runtime/allocations.hpp"
#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

Result<std::unique_ptr<const Kernel>> load(const Plan& plan, const CodeObject& code, int ordinal = 0) {
  return gpu(ordinal)->load(plan, {&code, 1});
}

/// Two stages with arguments in an order of their own.
Plan two_stages() {
  Plan plan;
  plan.variant = "two(C=1)";
  plan.target = *parse_target("cuda:sm_90a");
  Stage first, second;
  first.entry = "first";
  first.tasks = {2, {{Axis::sequences, 1}, {Axis::tokens, 4}}};
  first.args = {Arg::o, Arg::scale, Arg::workspace, Arg::q};
  first.block[0] = 32, first.block[1] = 4;
  first.shared_bytes = 1000;
  second.entry = "second";
  second.tasks = {1, {{Axis::kv_heads, 1}}};
  second.args = {Arg::tokens};
  second.block[0] = 256;
  second.cluster = 4;
  second.early = true;
  second.shared_bytes = 100000;
  plan.stages = {first, second};
  return plan;
}

Launch some_launch() {
  Launch launch;
  launch.extents = extents_of(*parse_problem("forward H8 K8 V8 f32"), Sequences(3), Tokens(10), Tokens(10), 1);
  launch.words.set_extents(launch.extents);
  launch.words[Arg::o] = 0x1111, launch.words[Arg::q] = 0x2222, launch.words[Arg::workspace] = 0x3333;
  launch.words.set_scalar(Arg::scale, 0.5f);
  static int stream = 0;
  launch.stream = &stream;
  return launch;
}

}  // namespace

TEST_CASE("gpu stub: stages go to the caller's stream in order, with their own arguments and geometry") {
  fresh_stub().set_kernel("first", {.words = 4});
  stub().set_kernel("second", {.words = 1, .shared_bytes = 1024});
  const auto kernel = load(two_stages(), gpu_code());
  if (not kernel) FAIL(kernel.error().message);
  const Launch launch = some_launch();
  REQUIRE((*kernel)->launch(launch).has_value());
  stub().run_all();
  REQUIRE(stub().launches().size() == 2);
  const StubLaunch &a = stub().launches()[0], &b = stub().launches()[1];
  CHECK(a.entry == "first");
  CHECK(std::vector(a.grid, a.grid + 3) == std::vector<unsigned>{2 * 3 * 3, 1, 1});
  CHECK(std::vector(a.block, a.block + 3) == std::vector<unsigned>{32, 4, 1});
  CHECK(a.shared_bytes == 1000);
  CHECK(a.cluster == 1);
  CHECK_FALSE(a.early);
  CHECK(a.words == std::vector<std::uint64_t>{0x1111, std::bit_cast<std::uint32_t>(0.5f), 0x3333, 0x2222});
  CHECK(a.stream == launch.stream);
  CHECK(b.entry == "second");
  CHECK(b.grid[0] == 8);
  CHECK(b.block[0] == 256);
  CHECK(b.cluster == 4);
  CHECK(b.early);
  CHECK(b.shared_bytes == 100000);
  CHECK(b.words == std::vector<std::uint64_t>{10});
}

TEST_CASE("gpu stub: a stage without tasks is left out, and grids pass 65,535") {
  fresh_stub().set_kernel("first", {.words = 4});
  stub().set_kernel("second", {.words = 1});
  const auto kernel = *load(two_stages(), gpu_code());
  Launch launch = some_launch();
  launch.extents = extents_of(*parse_problem("forward H8 K8 V8 f32"), Sequences(100000), Tokens(0), Tokens(0), 1);
  REQUIRE(kernel->launch(launch).has_value());
  launch.extents = extents_of(*parse_problem("forward H8 K8 V8 f32"), Sequences(100000), Tokens(4), Tokens(4), 1);
  REQUIRE(kernel->launch(launch).has_value());
  stub().run_all();
  REQUIRE(stub().launches().size() == 3);
  CHECK(stub().launches()[0].entry == "second");
  CHECK_FALSE(stub().launches()[0].early);  // before it is another call's kernel, for which it would not wait
  CHECK(stub().launches()[2].early);
  CHECK(stub().launches()[1].grid[0] == 200000);
  launch.extents =
      extents_of(*parse_problem("forward H8 K8 V8 f32"), Sequences(1 << 24), Tokens(1 << 20), Tokens(1), 1);
  refused_with(kernel->launch(launch), Status::unsupported, {"\"first\" of two(C=1)", "blocks", "2147483647"});
  launch.extents = extents_of(*parse_problem("forward H6 K8 V8 f32"), Sequences(1), Tokens(1), Tokens(1), 1);
  refused_with(kernel->launch(launch), Status::bad_pack, {"\"second\"", "6 blocks", "clusters of 4"});
  stub().run_all();
  CHECK(stub().launches().size() == 3);  // nor was any other stage given to the GPU
}

TEST_CASE("gpu stub: a launch makes one call of the driver for each stage, allocates nothing and takes no lock") {
  fresh_stub().set_kernel("first", {.words = 4});
  stub().set_kernel("second", {.words = 1});
  const auto kernel = *load(two_stages(), gpu_code());
  const Launch launch = some_launch();
  const std::size_t before = stub().calls().size();
  REQUIRE(kernel->launch(launch).has_value());
  const std::vector<std::string> calls(stub().calls().begin() + static_cast<std::ptrdiff_t>(before),
                                       stub().calls().end());
  CHECK(calls == std::vector<std::string>{"CtxGetCurrent", "CtxPushCurrent", "LaunchKernelEx", "LaunchKernelEx",
                                          "CtxPopCurrent"});
}

TEST_CASE("gpu stub: tensor maps are of the call's tensors, and come behind the words where all can be had") {
  fresh_stub().set_kernel("first", {.words = 5, .maps = 2});
  stub().set_kernel("second", {.words = 1});
  Plan plan = two_stages();
  plan.stages[0].args.push_back(Arg::mapped);
  plan.stages[0].maps = {{Arg::q, 2, true, 32, 64}, {Arg::g, 4, false, 16, 128}};
  const auto kernel = *load(plan, gpu_code());
  Launch launch = some_launch();
  launch.extents = extents_of(*parse_problem("forward H8 Hkv4 K40 V24 bf16"), Sequences(3), Tokens(30), Tokens(10), 1);
  const auto set = [&](Arg base, Arg token, Arg head, std::uint64_t address, std::uint64_t stride) {
    launch.words[base] = address, launch.words[token] = stride, launch.words[head] = stride / 8;
  };
  set(Arg::q, Arg::q_token, Arg::q_head, 0x2000, 640);
  set(Arg::g, Arg::g_token, Arg::g_head, 0x4000, 320);
  const auto run = [&] {
    const std::size_t before = stub().launches().size();
    REQUIRE(kernel->launch(launch).has_value());
    stub().run_all();
    REQUIRE(stub().launches().size() == before + 2);
    CHECK(stub().launches()[before + 1].maps.empty());
    return stub().launches()[before];
  };
  const StubLaunch mapped = run();
  CHECK(mapped.words == std::vector<std::uint64_t>{0x1111, launch.words[Arg::scale], 0x3333, 0x2000, 1});
  const auto check = [](const StubMap& map, std::uintptr_t base, std::vector<std::uint64_t> extents,
                        std::vector<std::uint64_t> strides, std::vector<std::uint32_t> box) {
    CHECK(reinterpret_cast<std::uintptr_t>(map.base) == base);
    CHECK(std::vector(map.extents, map.extents + 3) == extents);
    CHECK(std::vector(map.strides, map.strides + 2) == strides);
    CHECK(std::vector(map.box, map.box + 3) == box);
    CHECK(map.promotion == cuda::map_promotion_256_bytes);
  };
  check(mapped.maps[0], 0x2000, {40, 8, 30}, {160, 1280}, {64, 1, 32});
  CHECK(mapped.maps[0].elements == cuda::map_u16);
  CHECK(mapped.maps[0].swizzle == cuda::map_swizzle_128_bytes);
  check(mapped.maps[1], 0x4000, {40, 4, 30}, {160, 1280}, {128, 1, 16});
  CHECK(mapped.maps[1].elements == cuda::map_u32);
  CHECK(mapped.maps[1].swizzle == cuda::map_swizzle_none);

  const auto unmapped = [&](Arg arg, std::uint64_t word) {
    const std::uint64_t right = std::exchange(launch.words[arg], word);
    const StubLaunch launched = run();
    launch.words[arg] = right;
    return launched.words[4] == 0 and launched.maps[0].base == nullptr and launched.maps[1].base == nullptr;
  };
  CHECK(unmapped(Arg::q, 0x2008));
  CHECK(unmapped(Arg::g, 0));
  CHECK(unmapped(Arg::q_token, 644));
  CHECK(unmapped(Arg::g_head, 42));
  CHECK(unmapped(Arg::g_token, std::uint64_t{1} << 39));  // of 4 bytes: further than the driver takes
  CHECK_FALSE(unmapped(Arg::g_head, 44));
}

TEST_CASE("gpu stub: stages of one entry share its function, which gets the most shared memory that any asks for") {
  fresh_stub().set_kernel("first", {.words = 4});
  Plan plan = two_stages();
  plan.stages[1] = plan.stages[0];
  for (const auto& [first, second] : {std::pair{100000u, 60000u}, std::pair{60000u, 100000u}}) {
    plan.stages[0].shared_bytes = first, plan.stages[1].shared_bytes = second;
    const auto kernel = *load(plan, gpu_code());
    CHECK(kernel->launch(some_launch()).has_value());
  }
}

TEST_CASE("gpu stub: what a GPU cannot do is refused when a plan is loaded") {
  fresh_stub().set_kernel("first", {.words = 4, .max_threads = 640, .shared_bytes = 512});
  stub().set_kernel("second", {.words = 1});
  const auto with = [](auto change) {
    Plan plan = two_stages();
    change(plan.stages[0]);
    return load(plan, gpu_code());
  };
  CHECK(with([](Stage& s) { s.block[1] = 20; }).has_value());
  refused_with(with([](Stage& s) { s.block[1] = 21; }), Status::unsupported,
               {"\"first\" of two(C=1)", "672 threads in a block", "at most 640"});
  CHECK(with([](Stage& s) { s.shared_bytes = 232448 - 512; }).has_value());
  refused_with(with([](Stage& s) { s.shared_bytes = 232448 - 511; }), Status::unsupported,
               {"232449 bytes of shared memory", "at most 232448"});
  refused_with(with([](Stage& s) { s.cluster = 17; }), Status::unsupported, {"17 blocks in a cluster", "at most 16"});
  refused_with(with([](Stage& s) { s.cluster = 16, s.shared_bytes = 210000; }), Status::unsupported,
               {"no cluster of 16 blocks", "210512 bytes"});
  refused_with(with([](Stage& s) { s.entry = "third"; }), Status::bad_pack, {"no entry \"third\""});
  refused_with(with([](Stage& s) { s.args.pop_back(); }), Status::bad_pack, {"other parameters than the 3 words"});
  refused_with(with([](Stage& s) { s.args.push_back(Arg::k); }), Status::bad_pack,
               {"other parameters than the 5 words"});
  refused_with(with([](Stage& s) { s.code = 1; }), Status::bad_pack, {"code object 1 of 1"});
  refused_with(with([](Stage& s) { s.maps.resize(1); }), Status::bad_pack,
               {"other parameters than the 4 words of 64 bits and 1 tensor maps"});
  refused_with(with([](Stage& s) { s.maps.resize(most_tensor_maps + 1); }), Status::bad_pack,
               {"9 tensor maps, more than the 8 allowed"});
  stub().set_kernel("first", {.words = 4, .maps = 2});
  CHECK(with([](Stage& s) { s.maps.resize(2); }).has_value());
  for (const std::size_t maps : {0, 1, 3})
    refused_with(with([&](Stage& s) { s.maps.resize(maps); }), Status::bad_pack, {"other parameters"});
  stub().set_kernel("first", {.words = 4, .word_bytes = 4});
  refused_with(with([](Stage&) {}), Status::bad_pack, {"other parameters"});
}

TEST_CASE("gpu stub: code for another GPU, and code that the driver refuses") {
  fresh_stub().set_kernel("forward", forward_kernel());
  refused_with(load(gpu_plan(), gpu_code("cuda:sm_80")), Status::wrong_device,
               {"code for cuda:sm_80", "Stub GPU 0", "cuda:sm_90a"});
  refused_with(load(gpu_plan(), gpu_code(), 1), Status::wrong_device, {"Stub GPU 1", "cuda:sm_86"});
  refused_with(load(kernel_plan(), gpu_code()), Status::wrong_device, {"a plan for cpu:"});
  refused_with(load(gpu_plan(), kernel_object()), Status::wrong_device, {"code for cpu:"});

  stub().fail("ModuleLoadDataEx", cuda::no_binary_for_gpu);
  refused_with(load(gpu_plan(), gpu_code()), Status::wrong_device, {"CUDA 13.0", "refuses code for cuda:sm_90a"});
  stub().fail("ModuleLoadDataEx", cuda::invalid_image);
  refused_with(load(gpu_plan(), gpu_code()), Status::failed, {"older than the compiler"});
  stub().set_jit_log("ptxas application ptx input, line 7; fatal: Unsupported .version 9.9");
  stub().fail("ModuleLoadDataEx", cuda::unsupported_ptx_version);
  refused_with(load(gpu_plan(), gpu_code()), Status::failed, {"line 7", "a newer driver"});
  stub().fail("ModuleLoadDataEx", cuda::out_of_memory);
  refused_with(load(gpu_plan(), gpu_code()), Status::out_of_memory, {"refuses code for", "of its 268435456 are free"});
  stub().fail("FuncSetAttribute", 1);
  refused_with(load(gpu_plan(), gpu_code()), Status::failed, {"what \"forward\" of test(C=1) asks for"});
}

TEST_CASE("gpu stub: a launch that is refused says which, and a broken context is told from it") {
  fresh_stub().set_kernel("forward", forward_kernel());
  const auto kernel = *load(gpu_plan(), gpu_code());
  Launch launch = some_launch();
  stub().fail("LaunchKernelEx", cuda::launch_out_of_resources);
  refused_with(kernel->launch(launch), Status::failed, {"refuses the launch of \"forward\" of test(C=1)", "24 blocks"});
  stub().fail("LaunchKernelEx", cuda::illegal_address);
  refused_with(kernel->launch(launch), Status::device_lost, {"CUDA_ERROR_ILLEGAL_ADDRESS", "nothing on it works"});
  refused_with(kernel->launch(launch), Status::device_lost, {"CUDA_ERROR_ILLEGAL_ADDRESS"});
  stub().reset();
  for (const cuda::Outcome outcome : {cuda::ecc_uncorrectable, cuda::nvlink_uncorrectable, cuda::contained,
                                      cuda::mps_client_terminated, cuda::external_device}) {
    stub().fail("LaunchKernelEx", outcome);
    refused_with(kernel->launch(launch), Status::device_lost, {"through no fault of a kernel's: nothing on it works"});
    CHECK(cuda::spares_kernel(outcome));
    stub().reset();
  }
  stub().fail("LaunchKernelEx", cuda::tensor_memory_leak);
  refused_with(kernel->launch(launch), Status::device_lost, {"a kernel has broken"});
  CHECK_FALSE(cuda::spares_kernel(cuda::tensor_memory_leak));
  stub().reset();
}
