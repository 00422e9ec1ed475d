// Pools, batches and snapshots through the C ABI, and the examples that use them.
#include "tests/runtime/allocations.hpp"
#include "tests/runtime/examples.hpp"
#include "tests/runtime/server.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("C ABI: a batch's plan must match its pool, and its arguments bring no states") {
  Server server(8);
  const api::Sequence a = server.pool->acquire();
  std::mt19937 random(1);
  Step step(1, random);
  const api::Workspace workspace(*server.device, 4096);
  const auto launch = [&](const api::PoolConfig& config, api::Args args, const api::Plan& plan) -> std::string {
    const api::Pool pool(*server.device, config);
    const api::Sequence s = pool.acquire();
    api::Batch batch(pool, api::Sequences(1), api::Tokens(16));
    batch.begin({{s, api::Tokens(1)}});
    try {
      batch.launch(plan, 0, args, workspace);
      return "launched";
    } catch (const api::Error& error) {
      CHECK((error.status() == GLAIVE_INVALID_ARGUMENT or error.status() == GLAIVE_UNSUPPORTED));
      batch.abort();
      batch.begin({{s, api::Tokens(1)}});  // nothing was lost
      return error.what();
    }
  };
  struct Row {
    void (*change)(api::PoolConfig&);
    const char* message;
  };
  const Row rows[] = {
      {[](auto&) {}, "launched"},
      {[](auto& c) { c.kv_heads = 1; }, "the plan is for Hkv 2, and the pool holds 1"},
      {[](auto& c) { c.key_dim = 16; }, "the plan is for K 8, and the pool holds 16"},
      {[](auto& c) { c.value_dim = 16; }, "the plan is for V 8, and the pool holds 16"},
      {[](auto& c) { c.dtype = GLAIVE_BF16; }, "the plan is for states of f32, and the pool holds bf16"},
      {[](auto& c) { c.layout = GLAIVE_STATE_VK; }, "the plan is for state layout kv, and the pool holds vk"},
  };
  for (const Row& row : rows) {
    api::PoolConfig config = server.config(2);
    row.change(config);
    CHECK(launch(config, step.args(), *server.plan) == row.message);
  }
  api::Args args = step.args();
  args.initial_state = step.q.data();
  CHECK(contains(launch(server.config(2), args, *server.plan), "args->initial_state is set"));
  for (const auto& [number, name] : {std::pair(&api::Args::slots, "slots"),
                                     std::pair(&api::Args::initial_state_slot_stride, "initial_state_slot_stride"),
                                     std::pair(&api::Args::initial_state_head_stride, "initial_state_head_stride"),
                                     std::pair(&api::Args::final_state_slot_stride, "final_state_slot_stride"),
                                     std::pair(&api::Args::final_state_head_stride, "final_state_head_stride")}) {
    args = step.args();
    args.*number = 5;
    CHECK(
        contains(launch(server.config(2), args, *server.plan), std::string("args->") + name + " is 5; a batch brings"));
  }
  args = step.args();
  args.q = nullptr;
  CHECK(contains(launch(server.config(2), args, *server.plan), "args->q is NULL"));

  // A kernel of before slots were known.
  PackEntry old = kernel_entry();
  std::erase_if(old.plan.stages[0].args, [](Arg arg) { return arg == Arg::read_slots; });
  Server before(2, 0, old);
  CHECK(contains(launch(server.config(2), step.args(), *before.plan), "takes no args->read_slots"));
}

TEST_CASE("C ABI: o and the workspace stand apart from the pool") {
  Server server(8);
  const api::Sequence a = server.pool->acquire();
  api::Batch batch = server.batch();
  batch.begin({{a, api::Tokens(1)}});
  std::mt19937 random(1);
  Step step(1, random);
  void* base = nullptr;
  std::size_t stride = 0;
  REQUIRE(glaive_pool_plane(server.pool->get(), 0, &base, &stride) == GLAIVE_OK);
  const api::Workspace workspace(*server.device, 4096);
  api::Args args = step.args();
  args.o = base;
  CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, workspace.data(), 4096) ==
        GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "args->o overlaps the pool's memory"));
  args = step.args();
  CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, base, 4096) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "workspace overlaps the pool"));
  CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, workspace.data(), 8) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "workspace_bytes is 8; this call needs"));
  CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, workspace.data(), 4096) == GLAIVE_OK);
}

TEST_CASE("C ABI: a slot out of range on the device is skipped, reported and never written") {
  Server server(2);
  const api::Sequence a = server.pool->acquire();
  void *base = nullptr, *plane = nullptr;
  std::size_t stride = 0;
  REQUIRE(glaive_pool_plane(server.pool->get(), 0, &base, &stride) == GLAIVE_OK);
  REQUIRE(glaive_pool_plane(server.pool->get(), 1, &plane, &stride) == GLAIVE_OK);
  std::memset(plane, 0x5a, 2 * stride);  // lies where slot 2 of the states would
  api::Batch batch = server.batch(2);
  std::mt19937 random(1);
  for (const std::int32_t bad : {2, 1 << 30, -2}) {
    batch.begin({{a, api::Tokens(1)}});
    const std::int32_t* write = nullptr;
    REQUIRE(glaive_batch_rows(batch.get(), nullptr, nullptr, &write, nullptr) == GLAIVE_OK);
    const_cast<std::int32_t*>(write)[0] = bad;
    Step step(1, random);
    const api::Workspace workspace(*server.device, 4096);
    const api::Args args = step.args();
    CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 0, &args, workspace.data(), 4096) == GLAIVE_FAILED);
    CHECK(contains(glaive_last_error(), "a slot out of range"));
    CHECK(glaive_batch_launch(batch.get(), server.plan->get(), 1, &args, workspace.data(), 4096) ==
          GLAIVE_OUT_OF_ORDER);
    CHECK(glaive_batch_commit(batch.get()) == GLAIVE_OUT_OF_ORDER);
    CHECK(std::all_of(static_cast<unsigned char*>(plane), static_cast<unsigned char*>(plane) + 2 * stride,
                      [](unsigned char byte) { return byte == 0x5a; }));
    batch.abort();
    CHECK(a.position().count() == 0);
  }
}

TEST_CASE("C ABI: a step plan takes at most 8 tokens of a sequence") {
  PackEntry entry = kernel_entry();
  std::string step_problem = kernel_problem;
  step_problem.replace(0, 7, "step");
  entry.key.problem = step_problem;
  Server server(2);
  REQUIRE(add_to_pack(server.folder / "step.pack", {&entry, 1}).has_value());
  const api::Pack pack((server.folder / "step.pack").string());
  const api::Plan plan(*server.device, pack, api::Problem(step_problem), api::Shape(api::Sequences(1), api::Tokens(1)));
  const api::Sequence a = server.pool->acquire();
  api::Batch batch = server.batch(1);
  const api::Workspace workspace(*server.device, 4096);
  std::mt19937 random(1);
  for (const int tokens : {8, 9}) {
    Step step(tokens, random);
    const api::Args args = step.args();
    batch.begin({{a, api::Tokens(tokens)}});
    const auto status = glaive_batch_launch(batch.get(), plan.get(), 0, &args, workspace.data(), 4096);
    CHECK(status == (tokens == 8 ? GLAIVE_OK : GLAIVE_INVALID_ARGUMENT));
    batch.abort();
  }
  CHECK(contains(glaive_last_error(), "steps of at most 8 tokens"));
}

TEST_CASE("C ABI: a batch outlives its pool's handle, a sequence of the wrapper its pool") {
  Server server(2);
  api::Sequence a = server.pool->acquire();
  api::Batch batch = server.batch(1);
  server.pool.reset();
  batch.begin({{a, api::Tokens(1)}});
  Model model;
  std::mt19937 random(1);
  CHECK(launch_all(server, batch, {&model}, {1}, random));
  batch.commit();
  CHECK(a.position().count() == 1);
}

TEST_CASE("C ABI: NULL where a pool, a batch or a result belongs") {
  Server server(2);
  glaive_pool* const pool = server.pool->get();
  const api::Sequence a = server.pool->acquire();
  glaive_sequence s = 0;
  std::size_t bytes = 0;
  const auto no = [](glaive_status status, const char* part) {
    CHECK(status == GLAIVE_INVALID_ARGUMENT);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
  };
  const api::PoolConfig config = server.config(2);
  glaive_pool* made = nullptr;
  no(glaive_pool_create(nullptr, &config, nullptr, 0, &made), "device is NULL");
  no(glaive_pool_create(server.device->get(), nullptr, nullptr, 0, &made), "config is NULL");
  no(glaive_pool_create(server.device->get(), &config, nullptr, 0, nullptr), "pool is NULL");
  no(glaive_pool_create(server.device->get(), &config, nullptr, 8, &made), "memory is NULL");
  no(glaive_pool_bytes(&config, nullptr), "bytes is NULL");
  api::PoolConfig bad = config;
  bad.plane_bytes = nullptr;
  no(glaive_pool_bytes(&bad, &bytes), "config->plane_bytes is NULL");
  bad = config;
  bad.dtype = GLAIVE_F16;
  no(glaive_pool_bytes(&bad, &bytes), "config->dtype is 2");
  bad = config;
  bad.size = 8;
  no(glaive_pool_bytes(&bad, &bytes), "config->size is 8");
  no(glaive_sequence_acquire(nullptr, &s), "pool is NULL");
  no(glaive_sequence_acquire(pool, nullptr), "sequence is NULL");
  no(glaive_sequence_release(nullptr, s), "pool is NULL");
  no(glaive_sequence_fork(pool, a.id(), nullptr), "child is NULL");
  no(glaive_sequence_reorder(pool, nullptr, &s, 1), "sequences is NULL");
  no(glaive_sequence_reorder(pool, &s, nullptr, 1), "parents is NULL");
  no(glaive_sequence_reorder(pool, &s, &s, -1), "count is -1");
  no(glaive_sequence_position(pool, a.id(), nullptr), "tokens is NULL");
  no(glaive_snapshot_save(pool, a.id(), nullptr, 0, &bytes), "buffer is NULL");
  no(glaive_snapshot_restore(pool, nullptr, 0, &s), "snapshot is NULL");
  no(glaive_snapshot_write(pool, a.id(), nullptr), "path is NULL");
  no(glaive_snapshot_read(pool, nullptr, &s), "path is NULL");
  void* base = nullptr;
  no(glaive_pool_plane(pool, 2, &base, &bytes), "plane is 2; it must be from 0 to 1");
  no(glaive_pool_plane(pool, -1, &base, &bytes), "plane is -1");
  no(glaive_batch_begin(nullptr, nullptr, 0, 0), "batch is NULL");
  api::Batch batch = server.batch(1);
  no(glaive_batch_begin(batch.get(), nullptr, 1, 0), "entries is NULL");
  no(glaive_batch_begin(batch.get(), nullptr, -1, 0), "count is -1; it must be 0 or more");
  no(glaive_operator_workspace(nullptr, nullptr, &bytes), "op is NULL");
  no(glaive_batch_launch(batch.get(), nullptr, 0, nullptr, nullptr, 0), "plan is NULL");
  no(glaive_batch_commit(nullptr), "batch is NULL");
  glaive_statistics statistics = {};
  no(glaive_pool_statistics(pool, &statistics), "statistics->size is 0");
  glaive_pool_close(nullptr);
  glaive_batch_close(nullptr);
  CHECK(sizeof(glaive_pool_config) == 80);
  CHECK(sizeof(glaive_batch_config) == 32);
  CHECK(sizeof(glaive_statistics) == 56);
  CHECK(sizeof(glaive_entry) == 16);
}

TEST_CASE("C ABI: a padded batch computes what a plain one does, to the bit") {
  Server plain(4), padded(4);
  std::vector<api::Sequence> a, b;
  for (int i = 0; i < 3; ++i) a.push_back(plain.pool->acquire()), b.push_back(padded.pool->acquire());
  api::Batch first = plain.batch(5, 40), second = padded.batch(5, 40);
  std::mt19937 random(1);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{7, 1, 0}, {1, 1, 1}, {0, 0, 0}, {2, 5, 3}}) {
    std::vector<api::Entry> to_plain, to_padded;
    for (std::size_t i = 0; i < 3; ++i) {
      to_plain.emplace_back(a[i], api::Tokens(lengths[i]));
      to_padded.emplace_back(b[i], api::Tokens(lengths[i]));
    }
    first.begin(to_plain);
    second.begin(to_padded, GLAIVE_BATCH_PADDED);
    const api::Workspace workspace(*plain.device, plain.plan->workspace_bytes(second.shape()));
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
      Step step(40, random);
      const auto o = step.o;
      first.launch(*plain.plan, layer, step.args(), workspace);
      const std::vector<float> want = std::exchange(step.o, o);
      second.launch(*padded.plan, layer, step.args(), workspace);
      CHECK(std::memcmp(step.o.data(), want.data(), want.size() * sizeof want[0]) == 0);
    }
    first.commit();
    second.commit();
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(a[i].slot() == b[i].slot());
      if (a[i].slot() < 0) continue;
      const api::Plane x = plain.pool->plane(0), y = padded.pool->plane(0);
      const auto at = static_cast<std::size_t>(a[i].slot()) * x.slot_stride_bytes;
      CHECK(std::memcmp(static_cast<std::byte*>(x.base) + at, static_cast<std::byte*>(y.base) + at,
                        x.slot_stride_bytes) == 0);
    }
  }
}

TEST_CASE("C ABI: one launch prepared over a padded batch's rows serves all later batches") {
  Server server(6);
  const api::Pool pool(*server.device, [&] {
    api::PoolConfig config = server.config(6);
    config.layers = 1;
    return config;
  }());
  api::Batch batch(pool, api::Sequences(5), api::Tokens(40), api::Tokens(9));
  std::vector<api::Sequence> sequences;
  for (int i = 0; i < 4; ++i) sequences.push_back(pool.acquire());
  std::vector<Model> models(4);
  std::mt19937 random(1);
  Step tensors(40, random);
  const api::Rows rows = batch.rows();
  const api::Plane states = pool.plane(0);
  api::Args args = tensors.args();
  args.set_states(states.base, api::Slots(6), rows.read_slots, rows.write_slots);
  args.initial_state_slot_stride = args.final_state_slot_stride =
      static_cast<std::int64_t>(states.slot_stride_bytes / sizeof(float));
  args.device_status = rows.device_status;
  std::unique_ptr<api::Launch> launch;
  std::unique_ptr<api::Workspace> workspace;
  int turn = 0;
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{5, 1}, {9, 0, 3, 9}, {1, 1, 1, 1}, {}, {0, 2, 9}}) {
    INFO("batch " << turn++);
    std::vector<api::Entry> entries;
    for (std::size_t i = 0; i < lengths.size(); ++i) entries.emplace_back(sequences[i], api::Tokens(lengths[i]));
    batch.begin(entries, GLAIVE_BATCH_PADDED);
    const api::Shape shape = batch.shape();
    if (not launch) {
      workspace = std::make_unique<api::Workspace>(*server.device, server.plan->workspace_bytes(shape));
      CHECK(glaive_run(server.plan->get(), &shape, &args, workspace->data(), workspace->size()) ==
            GLAIVE_INVALID_ARGUMENT);  // these are not its tokens
      launch = std::make_unique<api::Launch>(*server.plan, shape, args, *workspace);
    }
    Step step(40, random);
    std::int64_t end = 0;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      step.advance(models[i], 0, end, end + lengths[i]);
      end += lengths[i];
    }
    // What the launch was prepared for stays where it is.
    std::ranges::copy(step.q, tensors.q.begin()), std::ranges::copy(step.k, tensors.k.begin());
    std::ranges::copy(step.v, tensors.v.begin()), std::ranges::copy(step.g, tensors.g.begin());
    batch.replay();
    (*launch)();
    batch.commit();
    CHECK(near(tensors.o.data(), step.want.data(), static_cast<std::size_t>(end * model_h * model_v)));
    for (std::size_t i = 0; i < lengths.size(); ++i)
      if (sequences[i].slot() >= 0)
        CHECK(near(
            reinterpret_cast<const float*>(static_cast<std::byte*>(states.base) +
                                           static_cast<std::size_t>(sequences[i].slot()) * states.slot_stride_bytes),
            models[i].state.data(), model_hkv * model_k * model_v));
  }
}

TEST_CASE("C ABI: lengths that a launch cannot be prepared for") {
  Server server(2);
  Step step(6, *std::make_unique<std::mt19937>(1));
  const api::Args args = step.args();
  const api::Workspace workspace(*server.device, 4096);
  const auto prepare = [&](std::vector<std::int32_t> cu) -> std::string {
    const auto shape = api::Shape::ragged(api::Sequences(2), api::Tokens(6), api::Tokens(4), cu.data());
    try {
      const api::Launch launch(*server.plan, shape, args, workspace);
      return "prepared";
    } catch (const api::Error& error) {
      return error.what();
    }
  };
  CHECK(prepare({0, 2, 6}) == "prepared");
  CHECK(prepare({0, 1, 2}) == "prepared");
  CHECK(prepare({0, 0, 0}) == "prepared");
  CHECK(contains(prepare({0, 3, 7}), "shape->tokens is 6, but the last of cu_seqlens is 7"));
  CHECK(contains(prepare({0, 0, 5}), "shape->longest is 4, but the longest sequence of cu_seqlens has 5"));
  CHECK(contains(prepare({0, 3, 2}), "shape->cu_seqlens[2] is less"));
  CHECK(contains(prepare({1, 2, 3}), "shape->cu_seqlens[0] is 1, not 0"));
}

TEST_CASE("C ABI: an operator's workspace is enough for every shape up to the largest") {
  PackEntry small = kernel_entry(), large = kernel_entry();
  small.key.bucket = bucket_of(2, 1);
  small.plan.workspace = {{1 << 20, {{Axis::sequences, 1}}}};
  large.key.bucket = bucket_of(64, 1024);
  large.key.space = 2;
  large.plan.workspace = {{64, {{Axis::longest, 1}}}};
  const PackEntry entries[] = {small, large};
  Server server(1);
  REQUIRE(add_to_pack(server.folder / "two.pack", entries).has_value());
  const api::Pack pack((server.folder / "two.pack").string());
  const api::Operator op(*server.device, pack, server.problem);
  const auto shape = [](std::int64_t sequences, std::int64_t tokens) {
    return api::Shape(api::Sequences(sequences), api::Tokens(tokens));
  };
  const api::Shape most = shape(40, 2000);
  const std::size_t enough = op.workspace_bytes(most);
  std::size_t needed = 0;
  for (const std::int64_t sequences : {1, 2, 7, 40})
    for (const std::int64_t tokens : {0, 1, 15, 300, 2000})
      needed = std::max(needed, op.plan(shape(sequences, tokens)).workspace_bytes(shape(sequences, tokens)));
  CHECK(needed > op.plan(most).workspace_bytes(most));  // the largest alone would be too little
  CHECK(enough >= needed);
  CHECK(op.workspace_bytes(shape(1, 1)) == op.plan(shape(1, 1)).workspace_bytes(shape(1, 1)));
}

TEST_CASE("C++: what a sequence held goes when another is moved into it") {
  Server server(2);
  api::Sequence a = server.pool->acquire(), b = server.pool->acquire();
  const glaive_sequence id = b.id();
  a = std::move(b);
  CHECK(a.id() == id);
  CHECK(server.pool->statistics().used == 1);
  api::Sequence& same = a;
  a = std::move(same);
  CHECK(a.id() == id);
  CHECK(a.slot() == -1);
  CHECK(server.pool->statistics().sequences == 1);
}

#if not GLAIVE_SANITIZED
TEST_CASE("C ABI: begin, launch, commit, fork, reorder and release allocate nothing") {
  Server server(8);
  const api::Sequence a = server.pool->acquire(), b = server.pool->acquire();
  api::Batch batch = server.batch(4);
  const glaive_entry entries[] = {{a.id(), 2}, {b.id(), 1}};
  std::mt19937 random(1);
  Step step(3, random);
  const api::Args args = step.args();
  const api::Workspace workspace(*server.device, 4096);
  const glaive_sequence to[] = {a.id(), b.id()}, from[] = {b.id(), a.id()};
  bool good = true;
  const int before = allocations();
  for (int i = 0; i < 10; ++i) {
    glaive_sequence child = 0;
    good = good and glaive_sequence_fork(server.pool->get(), a.id(), &child) == GLAIVE_OK;
    good = good and glaive_batch_begin(batch.get(), entries, 2, i % 2 ? GLAIVE_BATCH_KEEP : 0) == GLAIVE_OK;
    for (int layer = 0; layer < model_layers; ++layer)
      good = good and glaive_batch_launch(batch.get(), server.plan->get(), layer, &args, workspace.data(),
                                          workspace.size()) == GLAIVE_OK;
    good = good and glaive_batch_commit(batch.get()) == GLAIVE_OK;
    good = good and glaive_sequence_reorder(server.pool->get(), to, from, 2) == GLAIVE_OK;
    good = good and glaive_sequence_release(server.pool->get(), child) == GLAIVE_OK;
  }
  const int after = allocations();
  CHECK(good);
  CHECK(after == before);
}
#endif

TEST_CASE("examples: what is batched, rolled back, reordered or restored equals each sequence alone") {
  Server server(1);
  const auto pack = server.folder / "p.pack";
  examples_agree({"03_continuous_batching", "04_speculation", "05_beams", "06_prefix_cache"}, pack, kernel_problem,
                 "cpu");
  const Output graph = run_command(EXAMPLES "/07_cuda_graph " + pack.string() + " '" + kernel_problem + "'");
  CHECK(graph.exit == 1);
  CHECK(graph.text == "glaive: a CUDA graph needs a GPU as the third argument, such as cuda:0\n");
}
