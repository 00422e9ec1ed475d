// The C ABI of states, batches and snapshots.
#include <cmath>

#include "runtime/batch.hpp"
#include "runtime/call.hpp"
#include "runtime/snapshot.hpp"
#include "runtime/text.hpp"

using namespace glaive;
using namespace glaive::c_abi;

struct glaive_pool {
  std::shared_ptr<StatePool> states;
};

struct glaive_batch {
  std::unique_ptr<Batch> batch;
};

namespace {

constexpr std::size_t pool_config_0_1 = 80, batch_config_0_1 = 32, statistics_0_1 = 56;
static_assert(sizeof(glaive_pool_config) >= pool_config_0_1 and sizeof(glaive_batch_config) >= batch_config_0_1);
static_assert(sizeof(glaive_statistics) >= statistics_0_1);
static_assert(sizeof(glaive_sequence) == sizeof(Sequence) and sizeof(glaive_entry) == sizeof(Batch::Entry));
static_assert(int{GLAIVE_BATCH_KEEP} == int{Batch::keep} and int{GLAIVE_BATCH_PADDED} == int{Batch::padded});

Result<PoolConfig> read_config(const glaive_pool_config* given) {
  const auto raw = read_struct(given, "config", pool_config_0_1);
  if (not raw) return std::unexpected(raw.error());
  const auto dtype = choose("config->dtype", raw->dtype, {DType::f32, DType::bf16});
  if (not dtype) return std::unexpected(dtype.error());
  const auto layout = choose("config->layout", raw->layout, {StateLayout::kv, StateLayout::vk});
  if (not layout) return std::unexpected(layout.error());
  if (auto ok = in_range("config->planes", raw->planes, 0, 16); not ok) return std::unexpected(std::move(ok).error());
  if (raw->planes > 0)
    if (auto there = need(raw->plane_bytes, "config->plane_bytes"); not there) return std::unexpected(there.error());
  PoolConfig config;
  config.layers = raw->layers;
  config.kv_heads = KvHeads(raw->kv_heads);
  config.k = KeyDim(raw->key_dim);
  config.v = ValueDim(raw->value_dim);
  config.dtype = *dtype;
  config.layout = *layout;
  config.slots = raw->slots;
  config.max_sequences = raw->max_sequences;
  config.planes.assign(raw->plane_bytes, raw->plane_bytes + raw->planes);
  return config;
}

Result<void> check_plan(const glaive_plan& plan, const StatePool& pool, Tokens longest) {
  const Problem& p = plan.problem;
  const PoolConfig& c = pool.config();
  const auto differs = [](const char* what, std::string_view plans, std::string_view pools) {
    return refuse(std::string("the plan is for ") + what + " " + std::string(plans) + ", and the pool holds " +
                  std::string(pools));
  };
  const auto number = [](std::int64_t n) { return std::to_string(n); };
  if (not pool.is_seen_by(*plan.device))
    return refuse("the plan belongs to another device than the pool, one that does not see the memory of the pool");
  if (p.kv_heads != c.kv_heads) return differs("Hkv", number(p.kv_heads.count()), number(c.kv_heads.count()));
  if (p.k != c.k) return differs("K", number(p.k.count()), number(c.k.count()));
  if (p.v != c.v) return differs("V", number(p.v.count()), number(c.v.count()));
  if (p.state != c.dtype) return differs("states of", to_string(p.state), to_string(c.dtype));
  if (p.layout != c.layout) return differs("state layout", to_string(p.layout), to_string(c.layout));
  if (p.op == Op::step and longest > Tokens(most_step_tokens))
    return refuse("the plan is for steps of at most " + number(most_step_tokens) +
                  " tokens a sequence, and the batch has one of " + number(longest.count()));
  return {};
}

Result<void> launch(Batch& batch, const glaive_plan& plan, std::int64_t layer, const glaive_args* args, void* workspace,
                    std::size_t bytes) {
  if (auto may = batch.may_launch(layer); not may) return may;
  const StatePool& pool = batch.pool();
  if (auto fits = check_plan(plan, pool, batch.longest()); not fits) return fits;
  const auto given = read_struct(args, "args", args_0_1);
  if (not given) return std::unexpected(given.error());
  const auto captured = plan.device->is_capturing(given->stream);
  if (not captured) return std::unexpected(captured.error());
  if (*captured and not batch.is_padded())
    return refuse(
        "args->stream is being captured, and the batch was begun without GLAIVE_BATCH_PADDED: the graph "
        "would leave out rows of a larger batch");
  if (given->stream != batch.stream() and not plan.device->is_host() and not captured.value())
    return refuse("args->stream is another than the one on which the batch was begun, which sent its numbers there");
  const std::pair<const void*, const char*> own[] = {{given->initial_state, "initial_state"},
                                                     {given->final_state, "final_state"},
                                                     {given->read_slots, "read_slots"},
                                                     {given->write_slots, "write_slots"},
                                                     {given->device_status, "device_status"}};
  for (const auto& [pointer, name] : own)
    if (pointer != nullptr) return refuse(std::string("args->") + name + " is set; a batch brings its own");

  const std::pair<std::int64_t, const char*> laid_out[] = {
      {given->slots, "slots"},
      {given->initial_state_slot_stride, "initial_state_slot_stride"},
      {given->initial_state_head_stride, "initial_state_head_stride"},
      {given->final_state_slot_stride, "final_state_slot_stride"},
      {given->final_state_head_stride, "final_state_head_stride"}};
  for (const auto& [number, name] : laid_out)
    if (number != 0)
      return refuse(std::string("args->") + name + " is " + std::to_string(number) +
                    "; a batch brings its own: leave it 0");

  const PoolConfig& config = pool.config();
  glaive_args call = *given;
  call.size = sizeof call;
  call.initial_state = call.final_state = pool.at(0, 0) + layer * pool.layout().layer_bytes;
  call.initial_state_slot_stride = call.final_state_slot_stride =
      pool.layout().planes[0].stride / size_of(config.dtype);
  call.initial_state_head_stride = call.final_state_head_stride = config.k.count() * config.v.count();
  call.read_slots = batch.read_slots();
  call.write_slots = batch.write_slots();
  call.slots = config.slots;
  call.device_status = batch.device_status();
  const CallShape shape = {batch.sequences().count(), batch.tokens().count(), batch.longest().count(),
                           batch.cu_seqlens()};
  const Span memory = {pool.memory(), static_cast<std::int64_t>(pool.layout().bytes)};
  Launch launch;
  if (auto read = read_launch(plan, shape, &call, workspace, bytes, memory, launch); not read) return read;

  if (*captured) return plan.kernel->launch(launch);  // recorded, not done
  batch.launched(layer);
  if (auto done = plan.kernel->launch(launch); not done) {
    const Status why = done.error().status;
    if (why == Status::unsupported or why == Status::bad_pack)
      batch.refused(layer);
    else
      batch.failed();
    return done;
  }
  if (const std::uint32_t faults = batch.faults()) {
    batch.failed();
    return fail(Status::failed, "layer " + std::to_string(layer) + ": a kernel reports " + to_string_of_faults(faults) +
                                    "; abort the batch");
  }
  return {};
}

/// The body of most functions: `pool` and what else must not be NULL, then `make`, whose value goes to `out`.
template <class Out, class Make>
glaive_status give(const glaive_pool* pool, Out* out, const char* out_name, Make&& make) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (auto there = need(out, out_name); not there) return there;
    auto made = make(*pool->states);
    if (not made) return std::unexpected(std::move(made).error());
    *out = static_cast<Out>(*made);
    return {};
  });
}

template <class Value, class To>
Result<To> as(Result<Value>&& value, To (*convert)(const Value&)) {
  if (not value) return std::unexpected(std::move(value).error());
  return convert(*value);
}
glaive_sequence to_c(const Sequence& s) { return s.id; }
std::int64_t to_count(const Tokens& t) { return t.count(); }

}  // namespace

extern "C" {

// ---- pools ---------------------------------------------------------------------------------------------------------

glaive_status glaive_pool_bytes(const glaive_pool_config* config, size_t* bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(bytes, "bytes"); not there) return there;
    const auto read = read_config(config);
    if (not read) return std::unexpected(read.error());
    const auto layout = lay_out(*read);
    if (not layout) return std::unexpected(layout.error());
    *bytes = static_cast<size_t>(layout->bytes);
    return {};
  });
}

glaive_status glaive_pool_create(glaive_device* device, const glaive_pool_config* config, void* memory, size_t bytes,
                                 glaive_pool** pool) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(device, "device"); not there) return there;
    if (auto there = need(pool, "pool"); not there) return there;
    if (memory == nullptr and bytes != 0) return refuse("memory is NULL, and bytes is " + std::to_string(bytes));
    const auto read = read_config(config);
    if (not read) return std::unexpected(read.error());
    auto states = StatePool::create(*read, {static_cast<std::byte*>(memory), bytes}, device->shared);
    if (not states) return std::unexpected(std::move(states).error());
    *pool = new glaive_pool{std::move(*states)};
    return {};
  });
}

void glaive_pool_close(glaive_pool* pool) { delete pool; }

glaive_status glaive_pool_statistics(const glaive_pool* pool, glaive_statistics* statistics) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (auto there = need(statistics, "statistics"); not there) return there;
    if (statistics->size < statistics_0_1)
      return refuse("statistics->size is " + std::to_string(statistics->size) + "; set it to sizeof(statistics[0])");
    const PoolStatistics s = pool->states->statistics();
    statistics->slots = s.slots;
    statistics->used = s.used;
    statistics->shared = s.shared;
    statistics->peak = s.peak;
    statistics->sequences = s.sequences;
    statistics->max_sequences = s.max_sequences;
    return {};
  });
}

glaive_status glaive_pool_plane(const glaive_pool* pool, int64_t plane, void** base, size_t* slot_stride_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (auto there = need(base, "base"); not there) return there;
    if (auto there = need(slot_stride_bytes, "slot_stride_bytes"); not there) return there;
    const auto& planes = pool->states->layout().planes;
    if (auto ok = in_range("plane", plane, 0, static_cast<std::int64_t>(planes.size()) - 1); not ok) return ok;
    const auto index = static_cast<std::size_t>(plane);
    *base = pool->states->at(index, 0);
    *slot_stride_bytes = static_cast<size_t>(planes[index].stride);
    return {};
  });
}

// ---- sequences -----------------------------------------------------------------------------------------------------

glaive_status glaive_sequence_acquire(glaive_pool* pool, glaive_sequence* sequence) {
  return give(pool, sequence, "sequence", [](StatePool& states) { return as(states.acquire(), to_c); });
}

glaive_status glaive_sequence_release(glaive_pool* pool, glaive_sequence sequence) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    return pool->states->release({sequence});
  });
}

glaive_status glaive_sequence_fork(glaive_pool* pool, glaive_sequence parent, glaive_sequence* child) {
  return give(pool, child, "child", [&](StatePool& states) { return as(states.fork({parent}), to_c); });
}

glaive_status glaive_sequence_reorder(glaive_pool* pool, const glaive_sequence* sequences,
                                      const glaive_sequence* parents, int64_t count) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (count < 0) return refuse("count is " + std::to_string(count));
    if (count == 0) return {};
    if (auto there = need(sequences, "sequences"); not there) return there;
    if (auto there = need(parents, "parents"); not there) return there;
    const auto n = static_cast<std::size_t>(count);
    return pool->states->reorder({reinterpret_cast<const Sequence*>(sequences), n},
                                 {reinterpret_cast<const Sequence*>(parents), n});
  });
}

glaive_status glaive_sequence_rollback(glaive_pool* pool, glaive_sequence sequence, glaive_sequence checkpoint) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    return pool->states->rollback({sequence}, {checkpoint});
  });
}

glaive_status glaive_sequence_position(const glaive_pool* pool, glaive_sequence sequence, int64_t* tokens) {
  return give(pool, tokens, "tokens", [&](StatePool& states) { return as(states.position({sequence}), to_count); });
}

glaive_status glaive_sequence_slot(const glaive_pool* pool, glaive_sequence sequence, int32_t* slot) {
  return give(pool, slot, "slot", [&](StatePool& states) { return states.slot({sequence}); });
}

// ---- snapshots -----------------------------------------------------------------------------------------------------

glaive_status glaive_snapshot_bytes(glaive_pool* pool, glaive_sequence sequence, size_t* bytes) {
  return give(pool, bytes, "bytes", [&](StatePool& states) { return snapshot_bytes(states, {sequence}); });
}

glaive_status glaive_snapshot_save(glaive_pool* pool, glaive_sequence sequence, void* buffer, size_t bytes,
                                   size_t* written) {
  return give(pool, written, "written", [&](StatePool& states) -> Result<std::size_t> {
    if (auto there = need(buffer, "buffer"); not there) return std::unexpected(there.error());
    return save_snapshot(states, {sequence}, {static_cast<std::byte*>(buffer), bytes});
  });
}

glaive_status glaive_snapshot_restore(glaive_pool* pool, const void* snapshot, size_t bytes,
                                      glaive_sequence* sequence) {
  return give(pool, sequence, "sequence", [&](StatePool& states) -> Result<glaive_sequence> {
    if (auto there = need(snapshot, "snapshot"); not there) return std::unexpected(there.error());
    return as(restore_snapshot(states, {static_cast<const std::byte*>(snapshot), bytes}), to_c);
  });
}

glaive_status glaive_snapshot_write(glaive_pool* pool, glaive_sequence sequence, const char* path) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (auto there = need(path, "path"); not there) return there;
    return write_snapshot(*pool->states, {sequence}, path);
  });
}

glaive_status glaive_snapshot_read(glaive_pool* pool, const char* path, glaive_sequence* sequence) {
  return give(pool, sequence, "sequence", [&](StatePool& states) -> Result<glaive_sequence> {
    if (auto there = need(path, "path"); not there) return std::unexpected(there.error());
    return as(read_snapshot(states, path), to_c);
  });
}

// ---- batches -------------------------------------------------------------------------------------------------------

glaive_status glaive_batch_create(glaive_pool* pool, const glaive_batch_config* config, glaive_batch** batch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(pool, "pool"); not there) return there;
    if (auto there = need(batch, "batch"); not there) return there;
    const auto raw = read_struct(config, "config", batch_config_0_1);
    if (not raw) return std::unexpected(raw.error());
    auto made =
        Batch::create(pool->states, {Sequences(raw->max_sequences), Tokens(raw->max_tokens), Tokens(raw->max_longest)});
    if (not made) return std::unexpected(std::move(made).error());
    *batch = new glaive_batch{std::move(*made)};
    return {};
  });
}

void glaive_batch_close(glaive_batch* batch) { delete batch; }

glaive_status glaive_batch_begin(glaive_batch* batch, const glaive_entry* entries, int64_t count, uint32_t flags) {
  return glaive_batch_begin_on(batch, entries, count, flags, nullptr);
}

glaive_status glaive_batch_begin_on(glaive_batch* batch, const glaive_entry* entries, int64_t count, uint32_t flags,
                                    void* stream) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    if (count < 0) return refuse("count is " + std::to_string(count) + "; it must be 0 or more");
    if (count > 0)
      if (auto there = need(entries, "entries"); not there) return there;
    if (stream != nullptr and batch->batch->pool().in_host_memory())
      return refuse("stream is set, but a CPU has no streams: leave it NULL");
    return batch->batch->begin({reinterpret_cast<const Batch::Entry*>(entries), static_cast<std::size_t>(count)}, flags,
                               stream);
  });
}

glaive_status glaive_batch_shape(const glaive_batch* batch, glaive_shape* shape) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    if (auto there = need(shape, "shape"); not there) return there;
    if (shape->size < shape_0_1)
      return refuse("shape->size is " + std::to_string(shape->size) + "; set it to sizeof(shape[0])");
    const Batch& b = *batch->batch;
    if (not b.open()) return fail(Status::out_of_order, "the batch has not begun");
    shape->sequences = b.sequences().count();
    shape->tokens = b.tokens().count();
    shape->longest = b.longest().count();
    shape->cu_seqlens = b.cu_seqlens();
    return {};
  });
}

glaive_status glaive_batch_rows(const glaive_batch* batch, const int32_t** cu_seqlens, const int32_t** read_slots,
                                const int32_t** write_slots, uint32_t** device_status) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    if (cu_seqlens != nullptr) *cu_seqlens = batch->batch->cu_seqlens();
    if (read_slots != nullptr) *read_slots = batch->batch->read_slots();
    if (write_slots != nullptr) *write_slots = batch->batch->write_slots();
    if (device_status != nullptr) *device_status = batch->batch->device_status();
    return {};
  });
}

glaive_status glaive_batch_launch(glaive_batch* batch, const glaive_plan* plan, int64_t layer, const glaive_args* args,
                                  void* workspace, size_t workspace_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    if (auto there = need(plan, "plan"); not there) return there;
    return launch(*batch->batch, *plan, layer, args, workspace, workspace_bytes);
  });
}

glaive_status glaive_batch_replay(glaive_batch* batch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    return batch->batch->replay();
  });
}

glaive_status glaive_batch_commit(glaive_batch* batch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    return batch->batch->commit();
  });
}

glaive_status glaive_batch_faults(glaive_batch* batch, uint32_t* faults) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    if (auto there = need(faults, "faults"); not there) return there;
    const auto known = batch->batch->wait_for_faults();
    if (not known) return std::unexpected(known.error());
    *faults = *known;
    return {};
  });
}

glaive_status glaive_batch_abort(glaive_batch* batch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(batch, "batch"); not there) return there;
    return batch->batch->abort();
  });
}

}  // extern "C"
