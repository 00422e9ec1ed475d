#include "tests/runtime/cuda/served.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("served: prefill, decode, fork, rollback and beams on a GPU are each sequence alone") {
  GpuServer server(8);
  api::Batch batch(*server.pool, api::Sequences(4), api::Tokens(64));
  api::Sequence a = server.pool->acquire(), b = server.pool->acquire();
  Model model_a, model_b;
  CHECK(server.step(batch, {{&a, &model_a}, {&b, &model_b}}, {5, 3}));
  CHECK(server.step(batch, {{&b, &model_b}, {&a, &model_a}}, {1, 0}));
  const api::Sequence checkpoint = a.fork();
  const Model model_then = model_a;
  CHECK(server.step(batch, {{&a, &model_a}}, {4}));
  a.rollback(checkpoint);
  model_a = model_then;
  CHECK(server.step(batch, {{&a, &model_a}, {&b, &model_b}}, {2, 7}));
  std::vector<api::Sequence> beams;
  beams.push_back(std::move(a));
  beams.push_back(std::move(b));
  server.pool->reorder(beams, {1, 1});
  Model first = model_b, second = model_b;
  CHECK(server.step(batch, {{&beams[0], &first}, {&beams[1], &second}}, {1, 1}));
  CHECK(server.step(batch, {{&beams[1], &second}, {&beams[0], &first}}, {1, 1}));
  CHECK(batch.faults() == 0);
}

TEST_CASE("served: a snapshot goes from a GPU to the host and to another pool") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(4), api::Tokens(64));
  const api::Sequence a = server.pool->acquire();
  Model model;
  REQUIRE(server.step(batch, {{&a, &model}}, {9}));
  const auto saved = a.save_snapshot();

  // Into a pool of the CPU, whose memory the test may read.
  const api::Device cpu("cpu", 1);
  const api::Pool on_host(cpu, api::PoolConfig(server.problem, model_layers, 2));
  const api::Sequence copy = on_host.restore_snapshot(saved.data(), saved.size());
  void* base = nullptr;
  std::size_t stride = 0;
  std::int32_t slot = -1;
  api::check(glaive_sequence_slot(on_host.get(), copy.id(), &slot));
  api::check(glaive_pool_plane(on_host.get(), 0, &base, &stride));
  const auto* state =
      reinterpret_cast<const float*>(static_cast<std::byte*>(base) + static_cast<std::size_t>(slot) * stride);
  CHECK(near(state, model.state.data(), model.state.size()));
  CHECK(copy.position().count() == 9);

  // And back, through a file.
  copy.write_snapshot((server.folder / "s").string());
  const api::Sequence again = server.pool->read_snapshot((server.folder / "s").string());
  CHECK(server.step(batch, {{&again, &model}}, {3}));
}

TEST_CASE("served: one captured graph serves batches of changing sequences and lengths") {
  GpuServer server(8);
  constexpr std::int64_t most_sequences = 3, most_tokens = 12;
  api::Batch batch(*server.pool, api::Sequences(most_sequences), api::Tokens(most_tokens));
  std::vector<api::Sequence> sequences;
  for (int i = 0; i < 5; ++i) sequences.push_back(server.pool->acquire());
  std::vector<Model> models(5);

  // Captured over the batch's maxima, with tensors at fixed addresses.
  std::vector<std::unique_ptr<StepOnGpu>> tensors;
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    tensors.push_back(std::make_unique<StepOnGpu>(server.device, Step(most_tokens, server.random)));
  const cuda::Stream capture_stream = server.driving.stream();
  batch.begin({{sequences[0], api::Tokens(1)}}, GLAIVE_BATCH_PADDED, server.stream);
  server.driving.begin_capture(capture_stream);
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    batch.launch(*server.plan, layer, tensors[static_cast<std::size_t>(layer)]->args(capture_stream), api::Workspace());
  const cuda::GraphExec graph = server.driving.end_capture(capture_stream);
  batch.abort();
  server.driving.wait(server.stream);
  CHECK(std::isnan(tensors[0]->o.read(1)[0]));  // nothing ran

  const std::vector<std::vector<std::pair<std::size_t, std::int64_t>>> rounds = {
      {{0, 4}, {1, 8}}, {{2, 1}}, {{1, 1}, {0, 1}, {3, 7}}, {{4, 0}, {2, 3}}, {{0, 1}, {1, 1}, {2, 1}}};
  for (const auto& round : rounds) {
    std::vector<api::Entry> entries;
    for (const auto& [which, tokens] : round) entries.emplace_back(sequences[which], api::Tokens(tokens));
    batch.begin(entries, GLAIVE_BATCH_PADDED, server.stream);
    std::vector<Step> steps;
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
      Step step(most_tokens, server.random);
      std::int64_t at = 0;
      for (const auto& [which, tokens] : round) {
        step.advance(models[which], layer, at, at + tokens);
        at += tokens;
      }
      tensors[static_cast<std::size_t>(layer)]->write(step);
      steps.push_back(std::move(step));
    }
    batch.replay();
    server.driving.launch(graph, server.stream);
    batch.commit();
    server.driving.wait(server.stream);
    std::int64_t total = 0;
    for (const auto& [which, tokens] : round) {
      total += tokens;
      models[which].position += tokens;
      CHECK(sequences[which].position().count() == models[which].position);
    }
    const auto count = static_cast<std::size_t>(total * model_h * model_v);
    for (std::size_t layer = 0; layer < steps.size(); ++layer)
      CHECK(near(tensors[layer]->o.read(count).data(), steps[layer].want.data(), count));
  }
  CHECK(batch.faults() == 0);
}

TEST_CASE("served: a batch is not begun on a stream that is captured, nor launched on another than its own") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const glaive_entry entry = {a.id(), 2};
  server.driving.begin_capture(server.stream);
  refuses(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream), GLAIVE_OUT_OF_ORDER, "being captured");
  server.driving.end_capture(server.stream);
  REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream) == GLAIVE_OK);
  const Step step(2, server.random);
  const StepOnGpu tensors(server.device, step);
  const cuda::Stream other = server.driving.stream();
  const auto launch = [&](void* stream) {
    const auto args = tensors.args(stream);
    return glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, nullptr, 0);
  };
  refuses(launch(other), GLAIVE_INVALID_ARGUMENT, "another than the one on which the batch was begun");
  CHECK(launch(server.stream) == GLAIVE_OK);
  batch.abort();

  // A CPU has no streams, and a pool of the host is not seen by a GPU.
  const api::Device cpu("cpu", 1);
  const api::Pool on_host(cpu, api::PoolConfig(server.problem, model_layers, 2));
  api::Batch host_batch(on_host, api::Sequences(2), api::Tokens(8));
  const api::Sequence b = on_host.acquire();
  const glaive_entry host_entry = {b.id(), 2};
  refuses(glaive_batch_begin_on(host_batch.get(), &host_entry, 1, 0, server.stream), GLAIVE_INVALID_ARGUMENT,
          "no streams");
  REQUIRE(glaive_batch_begin(host_batch.get(), &host_entry, 1, 0) == GLAIVE_OK);
  const auto args = tensors.args(nullptr);
  refuses(glaive_batch_launch(host_batch.get(), server.plan->get(), 0, &args, nullptr, 0), GLAIVE_INVALID_ARGUMENT,
          "does not see the memory");
}

TEST_CASE("served: a launch that is captured has not run, and is not counted") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  Model model;
  REQUIRE(server.step(batch, {{&a, &model}}, {3}));
  std::vector<Step> steps;
  std::vector<std::unique_ptr<StepOnGpu>> tensors;
  for (std::int64_t layer = 0; layer < model_layers; ++layer) {
    steps.emplace_back(8, server.random);
    steps.back().advance(model, layer, 0, 2);
    tensors.push_back(std::make_unique<StepOnGpu>(server.device, steps.back()));
  }
  const glaive_entry entry = {a.id(), 2};
  const auto launch = [&](std::size_t layer, void* stream) {
    const auto args = tensors[layer]->args(stream);
    return glaive_batch_launch(batch.get(), server.plan->get(), static_cast<std::int64_t>(layer), &args, nullptr, 0);
  };

  // Unpadded it would be a graph of this batch's rows alone.
  REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, 0, server.stream) == GLAIVE_OK);
  server.driving.begin_capture(server.stream);
  refuses(launch(0, server.stream), GLAIVE_INVALID_ARGUMENT, "without GLAIVE_BATCH_PADDED");
  server.driving.end_capture(server.stream);
  batch.abort();

  // In the order of docs/runtime.md, the capture on the batch's own stream.
  REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, GLAIVE_BATCH_PADDED, server.stream) == GLAIVE_OK);
  server.driving.begin_capture(server.stream);
  for (std::size_t layer = 0; layer < tensors.size(); ++layer) CHECK(launch(layer, server.stream) == GLAIVE_OK);
  server.driving.end_capture(server.stream);
  refuses(glaive_batch_commit(batch.get()), GLAIVE_OUT_OF_ORDER, "only 0 of the pool's 2 layers");
  server.driving.begin_capture(server.stream);
  for (std::size_t layer = 0; layer < tensors.size(); ++layer) CHECK(launch(layer, server.stream) == GLAIVE_OK);
  const cuda::GraphExec graph = server.driving.end_capture(server.stream);
  batch.abort();  // loses nothing
  CHECK(a.position().count() == 3);

  for (int i = 0; i < 5; ++i) {
    REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, GLAIVE_BATCH_PADDED, server.stream) == GLAIVE_OK);
    if (i < 4) {
      batch.abort();
      continue;
    }
    batch.replay();
    server.driving.launch(graph, server.stream);
    server.driving.begin_capture(server.stream);
    refuses(glaive_batch_commit(batch.get()), GLAIVE_OUT_OF_ORDER, "being captured");
    server.driving.end_capture(server.stream);
    CHECK(glaive_batch_commit(batch.get()) == GLAIVE_OK);
  }
  server.driving.wait(server.stream);
  model.position += 2;
  CHECK(a.position().count() == model.position);
  for (std::size_t layer = 0; layer < tensors.size(); ++layer) {
    const std::size_t count = 2 * model_h * model_v;
    CHECK(near(tensors[layer]->o.read(count).data(), steps[layer].want.data(), count));
  }
  CHECK(server.step(batch, {{&a, &model}}, {1}));
  CHECK(batch.faults() == 0);
}

TEST_CASE("served: a graph is captured in a batch, which then replays it") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  Model model;
  Step step(8, server.random);
  step.advance(model, 0, 0, 2);
  const StepOnGpu tensors(server.device, step);
  batch.begin({{a, api::Tokens(2)}}, GLAIVE_BATCH_PADDED, server.stream);
  server.driving.begin_capture(server.stream);
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    batch.launch(*server.plan, layer, tensors.args(server.stream), api::Workspace());
  const cuda::GraphExec graph = server.driving.end_capture(server.stream);
  batch.replay();
  server.driving.launch(graph, server.stream);
  batch.commit();
  server.driving.wait(server.stream);
  CHECK(a.position().count() == 2);
  const std::size_t count = 2 * model_h * model_v;
  CHECK(near(tensors.o.read(count).data(), step.want.data(), count));  // both layers from zero, on the same tensors
}

TEST_CASE("served: a batch is not begun on the default stream while one that it waits for is captured") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const glaive_entry entry = {a.id(), 2};
  cuda::Stream blocking = nullptr;
  REQUIRE(driver().api().StreamCreate(&blocking, 0) == cuda::success);
  server.driving.begin_capture(blocking);
  refuses(glaive_batch_begin(batch.get(), &entry, 1, 0), GLAIVE_OUT_OF_ORDER, "is the default one while another is");
  server.driving.end_capture(blocking);
  CHECK(glaive_batch_begin(batch.get(), &entry, 1, 0) == GLAIVE_OK);
  batch.abort();
  CHECK(driver().api().StreamDestroy(blocking) == cuda::success);
}
