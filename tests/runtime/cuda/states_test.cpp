#include "tests/runtime/cuda/served.hpp"
#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

PackEntry glaive::testing::served_entry() {
  fresh_stub().set_kernel("forward", forward_kernel());
  return gpu_entry();
}

TEST_CASE("gpu stub: devices of the C ABI") {
  fresh_stub();
  REQUIRE(glaive_device_count() == 3);
  CHECK(std::string(glaive_device_name(0)) == "cpu");
  CHECK(std::string(glaive_device_name(1)) == "cuda:0");
  CHECK(std::string(glaive_device_name(2)) == "cuda:1");
  CHECK(std::string(glaive_device_name(3)).empty());
  const api::Device device("cuda:1");
  CHECK(device.target() == "cuda:sm_86");
  CHECK(device.threads() == 1);
  glaive_device* none = nullptr;
  refuses(glaive_device_open("cuda:2", 0, &none), GLAIVE_NOT_FOUND,
          "\"cuda:2\"; there are \"cpu\" \"cuda:0\" \"cuda:1\"");
  refuses(glaive_device_open("cuda:0", 4, &none), GLAIVE_INVALID_ARGUMENT, "threads is 4");
  glaive_memory* memory = nullptr;
  stub().set_memory(1000);
  refuses(glaive_memory_create(device.get(), 2000, &memory), GLAIVE_OUT_OF_MEMORY, "of its 1000 are free");
  REQUIRE(glaive_memory_create(device.get(), 100, &memory) == GLAIVE_OK);
  char byte = 0;
  refuses(glaive_memory_read(memory, 100, &byte, 1), GLAIVE_INVALID_ARGUMENT, "1 bytes at 100");
  refuses(glaive_memory_write(memory, 50, &byte, 51), GLAIVE_INVALID_ARGUMENT, "51 bytes at 50");
  // A copy from pageable memory is done when the stream has done it, not when the driver returns.
  REQUIRE(glaive_memory_write(memory, 0, &byte, 1) == GLAIVE_OK);
  const auto& calls = stub().calls();
  const auto copied = std::ranges::find(calls, "MemcpyHtoD");
  CHECK(std::find(copied, calls.end(), "StreamSynchronize") != calls.end());
  glaive_memory_close(memory);
}

TEST_CASE("gpu stub: a batch that the GPU does not take leaves the pool as it was") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const glaive_entry entry = {a.id(), 2};
  stub().fail("MemcpyHtoDAsync", 1);
  refuses(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream), GLAIVE_FAILED,
          "cannot send a batch's numbers");
  CHECK(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream) == GLAIVE_OK);
  batch.abort();
  CHECK(a.position().count() == 0);

  stub().set_memory(1);
  glaive_pool* pool = nullptr;
  const api::PoolConfig config(server.problem, model_layers, 100);
  refuses(glaive_pool_create(server.device.get(), &config, nullptr, 0, &pool), GLAIVE_OUT_OF_MEMORY,
          "of its 1 are free");
}

TEST_CASE("gpu stub: a fault that a kernel reports is told when the GPU has come that far") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  // What could only be if somebody else wrote to the batch's numbers.
  stub().set_kernel("forward", {.words = gpu_plan().stages[0].args.size(), .body = [](const StubLaunch& launch) {
                                  const std::vector<Arg> args = kernel_plan().stages[0].args;
                                  const auto at = std::ranges::find(args, Arg::device_status) - args.begin();
                                  *reinterpret_cast<std::uint32_t*>(launch.words[static_cast<std::size_t>(at)]) |= 1;
                                }});
  server.plan.emplace(server.device, *server.pack, server.problem, api::Shape(api::Sequences(2), api::Tokens(3)));
  const auto run = [&] {
    batch.begin({{a, api::Tokens(1)}}, 0, server.stream);
    const Step step(1, server.random);
    const StepOnGpu tensors(server.device, step);
    for (std::int64_t layer = 0; layer < model_layers; ++layer)
      batch.launch(*server.plan, layer, tensors.args(server.stream), api::Workspace());
    batch.commit();
  };
  run();
  CHECK(batch.faults() == GLAIVE_FAULT_SLOT);
  CHECK(batch.faults() == 0);
  // Nobody asks: a later batch finds it out when it is begun, and neither it nor its sequence is harmed.
  run();
  stub().set_kernel("forward", forward_kernel());
  server.plan.emplace(server.device, *server.pack, server.problem, api::Shape(api::Sequences(2), api::Tokens(3)));
  for (int i = 0; i < 3; ++i) run();
  const glaive_entry entry = {a.id(), 1};
  refuses(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream), GLAIVE_FAILED,
          "an earlier batch reported a slot out of range; this one has not begun");
  CHECK(a.position().count() == 5);
  run();
  CHECK(a.position().count() == 6);
}

TEST_CASE("gpu stub: a shape that a kernel's grid cannot hold harms neither the batch nor its sequences") {
  GpuServer server(4);
  PackEntry huge = gpu_entry();
  huge.plan.stages[0].tasks.multiplier = std::int64_t{1} << 30;
  REQUIRE(add_to_pack(server.folder / "huge.pack", {&huge, 1}).has_value());
  const api::Pack pack((server.folder / "huge.pack").string());
  const api::Plan plan(server.device, pack, server.problem, api::Shape(api::Sequences(2), api::Tokens(3)));
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  Model model;
  REQUIRE(server.step(batch, {{&a, &model}}, {3}));
  const StepOnGpu tensors(server.device, Step(2, server.random));
  const glaive_entry entry = {a.id(), 2};
  REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream) == GLAIVE_OK);
  const auto args = tensors.args(server.stream);
  for (int i = 0; i < 2; ++i)
    refuses(glaive_batch_launch(batch.get(), plan.get(), 0, &args, nullptr, 0), GLAIVE_UNSUPPORTED, "a grid holds");
  batch.abort();
  CHECK(server.step(batch, {{&a, &model}}, {1}));
}

TEST_CASE("gpu stub: a pack with code for other GPUs, and one whose code the driver does not read") {
  const api::Device device("cuda:0");
  fresh_stub().set_kernel("forward", forward_kernel());
  const Folder folder;
  PackEntry other = gpu_entry();
  other.plan.target = *parse_target("cuda:sm_80");
  other.code = {gpu_code("cuda:sm_80")};
  other.key.target = "cuda:sm_80";
  other.key.device = "Another GPU";
  REQUIRE(add_to_pack(folder / "p.pack", {&other, 1}).has_value());
  const api::Problem problem(kernel_problem);
  const api::Shape shape(api::Sequences(2), api::Tokens(3));
  const auto find = [&](auto&& then) {
    const api::Pack pack((folder / "p.pack").string());
    glaive_plan* plan = nullptr;
    const glaive_status got = glaive_plan_find(device.get(), pack.get(), &problem, &shape, &plan);
    then(got, plan);
    glaive_plan_close(plan);
  };
  find([](glaive_status got, const glaive_plan*) {
    refuses(
        got, GLAIVE_UNSUPPORTED,
        "the pack has no kernel for `forward H4 Hkv2 K8 V8 f32` that runs on cuda:sm_90a; tune it with: glaive tune "
        "--device gpu 'forward");
  });
  const PackEntry good = gpu_entry();
  REQUIRE(add_to_pack(folder / "p.pack", {&good, 1}).has_value());
  find([](glaive_status got, const glaive_plan* plan) {
    REQUIRE(got == GLAIVE_OK);
    CHECK(contains(glaive_plan_description(plan), "on " + identity(gpu()->info())));
    CHECK_FALSE(contains(glaive_plan_description(plan), "skipped"));
  });
  for (const cuda::Outcome outcome : {cuda::invalid_image, cuda::unsupported_ptx_version}) {
    stub().fail("ModuleLoadDataEx", outcome);
    find([](glaive_status got, const glaive_plan*) {
      refuses(got, GLAIVE_FAILED, "the driver (CUDA 13.0) refuses code for cuda:sm_90a");
      CHECK(contains(glaive_last_error(), "it may be older than the compiler that made the code"));
    });
  }
  // A second entry that it does read serves, and the plan says what was left out.
  PackEntry second = gpu_entry();
  second.key.device = "Another GPU";
  REQUIRE(add_to_pack(folder / "p.pack", {&second, 1}).has_value());
  stub().fail("ModuleLoadDataEx", cuda::unsupported_ptx_version);
  find([](glaive_status got, const glaive_plan* plan) {
    REQUIRE(got == GLAIVE_OK);
    CHECK(contains(glaive_plan_description(plan), "skipped: the driver (CUDA 13.0) refuses code"));
  });
}

TEST_CASE("gpu stub: a snapshot whose bytes cannot be copied changes nothing") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(4), api::Tokens(64));
  const api::Sequence a = server.pool->acquire();
  Model model;
  REQUIRE(server.step(batch, {{&a, &model}}, {9}));
  const auto saved = a.save_snapshot();
  stub().fail("MemcpyDtoH", 1);
  std::vector<std::byte> room(saved.size());
  std::size_t bytes = 0;
  refuses(glaive_snapshot_save(server.pool->get(), a.id(), room.data(), room.size(), &bytes), GLAIVE_FAILED,
          "from the GPU");
  const auto used = [&] { return server.pool->statistics().used; };
  const auto before = used();
  stub().fail("MemcpyHtoD", 1);
  glaive_sequence restored = 0;
  refuses(glaive_snapshot_restore(server.pool->get(), saved.data(), saved.size(), &restored), GLAIVE_FAILED,
          "to the GPU");
  CHECK(used() == before);
}

TEST_CASE("gpu stub: a snapshot is restored into a slot only when what its last owner enqueued is over") {
  GpuServer server(2);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  Model model_a, model_b;
  REQUIRE(server.step(batch, {{&a, &model_a}}, {3}));
  const auto saved = a.save_snapshot();
  model_b = model_a;
  std::optional<api::Sequence> last = server.pool->acquire();
  batch.begin({{*last, api::Tokens(2)}}, 0, server.stream);
  const StepOnGpu tensors(server.device, Step(2, server.random));
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    batch.launch(*server.plan, layer, tensors.args(server.stream), api::Workspace());
  batch.commit();
  last.reset();  // the stream has run none of it
  const api::Sequence b = server.pool->restore_snapshot(saved.data(), saved.size());
  stub().run_all();
  CHECK(server.step(batch, {{&b, &model_b}}, {1}));
}

TEST_CASE("gpu stub: a snapshot has what was enqueued before it") {
  GpuServer server(3);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const StepOnGpu tensors(server.device, Step(2, server.random));
  batch.begin({{a, api::Tokens(2)}}, 0, server.stream);
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    batch.launch(*server.plan, layer, tensors.args(server.stream), api::Workspace());
  batch.commit();
  const auto saved = a.save_snapshot();
  stub().run_all();
  CHECK(saved == a.save_snapshot());
}
