#include "runtime/glaive.hpp"
#include "tests/runtime/cuda/support.hpp"
#include "tests/runtime/server.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

/// A copy on the GPU of a vector of the host.
class OnGpu {
 public:
  OnGpu(glaive_device* device, const std::vector<float>& values) : bytes_(std::max<std::size_t>(1, values.size() * 4)) {
    api::check(glaive_memory_create(device, bytes_, &memory_));
    if (not values.empty()) api::check(glaive_memory_write(memory_, 0, values.data(), values.size() * 4));
  }
  OnGpu(const OnGpu&) = delete;
  ~OnGpu() { glaive_memory_close(memory_); }
  void* data() const { return glaive_memory_data(memory_); }
  void write(const std::vector<float>& values) {
    api::check(glaive_memory_write(memory_, 0, values.data(), values.size() * 4));
  }
  std::vector<float> read(std::size_t count) const {
    std::vector<float> values(count);
    if (count > 0) api::check(glaive_memory_read(memory_, 0, values.data(), count * 4));
    return values;
  }

 private:
  std::size_t bytes_;
  glaive_memory* memory_ = nullptr;
};

/// The tensors of a step in memory of the GPU.
struct StepOnGpu {
  OnGpu q, k, v, g, o;
  StepOnGpu(glaive_device* device, const Step& step)
      : q(device, step.q), k(device, step.k), v(device, step.v), g(device, step.g), o(device, step.o) {}
  void write(const Step& step) { q.write(step.q), k.write(step.k), v.write(step.v), g.write(step.g), o.write(step.o); }
  api::Args args(void* stream) const {
    api::Args args;
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
    args.stream = stream;
    return args;
  }
};

int the_stream = 0;

struct GpuServer {
  api::Device device = api::Device("cuda:0");
  Folder folder;
  std::optional<api::Pack> pack;
  std::optional<api::Plan> plan;
  std::optional<api::Pool> pool;
  api::Problem problem = api::Problem(kernel_problem);
  std::mt19937 random{3};

  explicit GpuServer(std::int64_t slots) {
    fresh_stub().set_kernel("forward", forward_kernel());
    const PackEntry entry = gpu_entry();
    REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
    pack.emplace((folder / "p.pack").string());
    plan.emplace(device, *pack, problem, api::Shape(api::Sequences(2), api::Tokens(3)));
    pool.emplace(device, api::PoolConfig(problem, model_layers, slots));
  }

  void begin(const api::Batch& batch, const std::vector<api::Entry>& entries, std::uint32_t flags = 0) const {
    api::check(glaive_batch_begin_on(batch.get(), entries.data(), static_cast<std::int64_t>(entries.size()), flags,
                                     &the_stream));
  }
  /// Begins, launches every layer and commits; the models go along. False when o or a position is wrong.
  bool step(api::Batch& batch, const std::vector<std::pair<const api::Sequence*, Model*>>& rows,
            const std::vector<std::int64_t>& lengths) {
    std::vector<api::Entry> entries;
    std::int64_t total = 0;
    for (std::size_t i = 0; i < rows.size(); total += lengths[i++])
      entries.emplace_back(*rows[i].first, api::Tokens(lengths[i]));
    begin(batch, entries);
    bool good = true;
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
      Step step(total, random);
      std::int64_t at = 0;
      for (std::size_t i = 0; i < rows.size(); at += lengths[i++])
        step.advance(*rows[i].second, layer, at, at + lengths[i]);
      const StepOnGpu tensors(device.get(), step);
      batch.launch(*plan, layer, tensors.args(&the_stream), api::Workspace());
      good = good and near(tensors.o.read(step.want.size()).data(), step.want.data(), step.want.size());
    }
    batch.commit();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].second->position += lengths[i];
      good = good and rows[i].first->position().count() == rows[i].second->position;
    }
    return good;
  }
};

void refuses(glaive_status got, glaive_status wanted, std::string_view part) {
  INFO(glaive_last_error());
  CHECK(got == wanted);
  CHECK(contains(glaive_last_error(), part));
}

}  // namespace

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
  glaive_memory_close(memory);
}

TEST_CASE("gpu stub: prefill, decode, fork, rollback and beams on a GPU are each sequence alone") {
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
  std::uint32_t faults = 1;
  api::check(glaive_batch_faults(batch.get(), &faults));
  CHECK(faults == 0);
}

TEST_CASE("gpu stub: a snapshot goes from a GPU to the host and to another pool") {
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

TEST_CASE("gpu stub: one captured graph serves batches of changing sequences and lengths") {
  GpuServer server(8);
  constexpr std::int64_t most_sequences = 3, most_tokens = 12;
  api::Batch batch(*server.pool, api::Sequences(most_sequences), api::Tokens(most_tokens));
  std::vector<api::Sequence> sequences;
  for (int i = 0; i < 5; ++i) sequences.push_back(server.pool->acquire());
  std::vector<Model> models(5);

  // Captured over the batch's maxima, with tensors at fixed addresses.
  std::vector<std::unique_ptr<StepOnGpu>> tensors;
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    tensors.push_back(std::make_unique<StepOnGpu>(server.device.get(), Step(most_tokens, server.random)));
  int capture_stream = 0;
  server.begin(batch, {{sequences[0], api::Tokens(1)}}, GLAIVE_BATCH_PADDED);
  stub().begin_capture(&capture_stream);
  for (std::int64_t layer = 0; layer < model_layers; ++layer)
    batch.launch(*server.plan, layer, tensors[static_cast<std::size_t>(layer)]->args(&capture_stream),
                 api::Workspace());
  const std::size_t graph = stub().end_capture(&capture_stream);
  batch.abort();
  // Launched in the eyes of the batch, though only captured: what it was to update in place is lost.
  sequences[0] = server.pool->acquire();
  stub().run_all();
  CHECK(stub().launches().empty());

  const std::vector<std::vector<std::pair<std::size_t, std::int64_t>>> rounds = {
      {{0, 4}, {1, 8}}, {{2, 1}}, {{1, 1}, {0, 1}, {3, 7}}, {{4, 0}, {2, 3}}, {{0, 1}, {1, 1}, {2, 1}}};
  for (const auto& round : rounds) {
    std::vector<api::Entry> entries;
    for (const auto& [which, tokens] : round) entries.emplace_back(sequences[which], api::Tokens(tokens));
    server.begin(batch, entries, GLAIVE_BATCH_PADDED);
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
    stub().launch_graph(graph, &the_stream);
    batch.commit();
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
  std::uint32_t faults = 1;
  api::check(glaive_batch_faults(batch.get(), &faults));
  CHECK(faults == 0);
}

TEST_CASE("gpu stub: a batch is not begun on a stream that is captured, nor launched on another than its own") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const glaive_entry entry = {a.id(), 2};
  stub().begin_capture(&the_stream);
  refuses(glaive_batch_begin_on(batch.get(), &entry, 1, 0, &the_stream), GLAIVE_OUT_OF_ORDER, "being captured");
  stub().end_capture(&the_stream);
  REQUIRE(glaive_batch_begin_on(batch.get(), &entry, 1, 0, &the_stream) == GLAIVE_OK);
  const Step step(2, server.random);
  const StepOnGpu tensors(server.device.get(), step);
  int other = 0;
  const auto launch = [&](void* stream) {
    const auto args = tensors.args(stream);
    return glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, nullptr, 0);
  };
  refuses(launch(&other), GLAIVE_INVALID_ARGUMENT, "another than the one on which the batch was begun");
  CHECK(launch(&the_stream) == GLAIVE_OK);
  batch.abort();

  // A CPU has no streams, and a pool of the host is not seen by a GPU.
  const api::Device cpu("cpu", 1);
  const api::Pool on_host(cpu, api::PoolConfig(server.problem, model_layers, 2));
  api::Batch host_batch(on_host, api::Sequences(2), api::Tokens(8));
  const api::Sequence b = on_host.acquire();
  const glaive_entry host_entry = {b.id(), 2};
  refuses(glaive_batch_begin_on(host_batch.get(), &host_entry, 1, 0, &the_stream), GLAIVE_INVALID_ARGUMENT,
          "no streams");
  REQUIRE(glaive_batch_begin(host_batch.get(), &host_entry, 1, 0) == GLAIVE_OK);
  const auto args = tensors.args(nullptr);
  refuses(glaive_batch_launch(host_batch.get(), server.plan->get(), 0, &args, nullptr, 0), GLAIVE_INVALID_ARGUMENT,
          "does not see the memory");
}

TEST_CASE("gpu stub: a batch that the GPU does not take leaves the pool as it was") {
  GpuServer server(4);
  api::Batch batch(*server.pool, api::Sequences(2), api::Tokens(8));
  const api::Sequence a = server.pool->acquire();
  const glaive_entry entry = {a.id(), 2};
  stub().fail("MemcpyHtoDAsync", 1);
  refuses(glaive_batch_begin_on(batch.get(), &entry, 1, 0, &the_stream), GLAIVE_FAILED,
          "cannot send a batch's numbers");
  CHECK(glaive_batch_begin_on(batch.get(), &entry, 1, 0, &the_stream) == GLAIVE_OK);
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
                                  const auto& args = gpu_plan().stages[0].args;
                                  const auto at = std::ranges::find(args, Arg::device_status) - args.begin();
                                  *reinterpret_cast<std::uint32_t*>(launch.words[static_cast<std::size_t>(at)]) |= 1;
                                }});
  server.plan.emplace(server.device, *server.pack, server.problem, api::Shape(api::Sequences(2), api::Tokens(3)));
  const auto run = [&] {
    server.begin(batch, {{a, api::Tokens(1)}});
    const Step step(1, server.random);
    const StepOnGpu tensors(server.device.get(), step);
    for (std::int64_t layer = 0; layer < model_layers; ++layer)
      batch.launch(*server.plan, layer, tensors.args(&the_stream), api::Workspace());
    batch.commit();
  };
  run();
  std::uint32_t faults = 0;
  api::check(glaive_batch_faults(batch.get(), &faults));
  CHECK(faults == GLAIVE_FAULT_SLOT);
  api::check(glaive_batch_faults(batch.get(), &faults));
  CHECK(faults == 0);
  // Nobody asks: a later batch finds it out.
  CHECK_THROWS_WITH(
      [&] {
        for (int i = 0; i < 6; ++i) run();
      }(),
      Catch::Contains("a slot out of range"));
}
