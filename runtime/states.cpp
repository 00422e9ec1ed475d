#include "runtime/states.hpp"

#include <algorithm>
#include <bitset>
#include <utility>

#include "runtime/text.hpp"

namespace glaive {
namespace {

constexpr int index_bits = 24, generation_bits = 24;
constexpr std::uint32_t most_generations = (1u << generation_bits) - 1;
constexpr std::int64_t most_sequences = std::int64_t{1} << index_bits, most_slots = most_sequences / 2;
constexpr std::int64_t most_layers = 65536, most_planes = 16, most_bytes = std::int64_t{1} << 46;

std::int64_t round_up(std::int64_t bytes, std::int64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

std::uint32_t index_of(Sequence sequence) { return static_cast<std::uint32_t>(sequence.id & (most_sequences - 1)); }

std::mutex tags_mutex;
std::bitset<1 << 16> tags_in_use;

}  // namespace

Result<void> StatePool::Tag::take() {
  static std::uint16_t last = 0;
  const std::lock_guard lock(tags_mutex);
  for (std::size_t tried = 0; tried < tags_in_use.size(); ++tried) {
    ++last;
    if (last == 0 or tags_in_use[last]) continue;
    tags_in_use[last] = true;
    number_ = last;
    return {};
  }
  return fail(Status::out_of_memory, "the process has 65535 pools open, as many as there can be");
}

StatePool::Tag::~Tag() {
  const std::lock_guard lock(tags_mutex);
  tags_in_use[number_] = false;
}

Result<PoolLayout> lay_out(const PoolConfig& config) {
  if (config.dtype != DType::f32 and config.dtype != DType::bf16)
    return fail(Status::invalid_argument, "states are f32 or bf16, not " + std::string(to_string(config.dtype)));
  const struct {
    const char* name;
    std::int64_t given, low, high;
  } numbers[] = {{"config->layers", config.layers, 1, most_layers},
                 {"config->kv_heads", config.kv_heads.count(), 1, most_heads},
                 {"config->key_dim", config.k.count(), 1, most_channels},
                 {"config->value_dim", config.v.count(), 1, most_channels},
                 {"config->slots", config.slots, 1, most_slots},
                 {"config->max_sequences", config.max_sequences, 0, most_sequences},
                 {"config->planes", static_cast<std::int64_t>(config.planes.size()), 0, most_planes}};
  for (const auto& n : numbers)
    if (auto ok = in_range(n.name, n.given, n.low, n.high); not ok) return std::unexpected(std::move(ok).error());

  PoolLayout layout;
  // At most 2^16 heads x 2^18 x 4 bytes.
  layout.layer_bytes = config.kv_heads.count() * config.k.count() * config.v.count() * size_of(config.dtype);
  const auto add = [&](std::int64_t bytes) -> Result<void> {
    const Plane plane = {layout.bytes, round_up(bytes, slot_alignment), bytes};
    std::int64_t size = 0;
    if (__builtin_mul_overflow(plane.stride, config.slots, &size) or size > most_bytes or
        layout.bytes + size > most_bytes)
      return fail(Status::invalid_argument, "the pool takes more than 2^46 bytes");
    layout.planes.push_back(plane);
    layout.bytes = round_up(layout.bytes + size, pool_alignment);
    return {};
  };
  if (auto ok = add(layout.layer_bytes * config.layers); not ok) return std::unexpected(ok.error());
  for (std::size_t i = 0; i < config.planes.size(); ++i) {
    const std::string name = "config->plane_bytes[" + std::to_string(i) + "]";
    if (auto ok = in_range(name, config.planes[i], 1, most_bytes); not ok) return std::unexpected(ok.error());
    if (auto ok = add(config.planes[i]); not ok) return std::unexpected(ok.error());
  }
  return layout;
}

Result<std::shared_ptr<StatePool>> StatePool::create(const PoolConfig& config, std::span<std::byte> memory,
                                                     std::shared_ptr<Device> device) {
  auto layout = lay_out(config);
  if (not layout) return std::unexpected(std::move(layout).error());
  std::shared_ptr<StatePool> pool(new StatePool);
  pool->config_ = config;
  if (config.max_sequences == 0) pool->config_.max_sequences = 2 * config.slots;
  if (auto taken = pool->tag_.take(); not taken) return std::unexpected(std::move(taken).error());

  const auto bytes = static_cast<std::size_t>(layout->bytes);
  if (memory.data() != nullptr) {
    if (memory.size() < bytes)
      return fail(Status::invalid_argument,
                  "memory has " + std::to_string(memory.size()) + " bytes; the pool needs " + std::to_string(bytes));
    if (reinterpret_cast<std::uintptr_t>(memory.data()) % pool_alignment != 0)
      return fail(Status::invalid_argument, "memory is not aligned to " + std::to_string(pool_alignment) + " bytes");
    pool->memory_ = memory.data();
  } else {
    auto own = device == nullptr ? allocate_on_host(bytes) : device->allocate(bytes);
    if (not own)
      return fail(own.error().status,
                  "no memory for a pool of " + std::to_string(bytes) + " bytes: " + own.error().message);
    pool->own_memory_ = std::move(*own);
    pool->memory_ = pool->own_memory_.get();
  }
  pool->device_ = std::move(device);
  pool->layout_ = std::move(*layout);

  const auto slots = static_cast<std::size_t>(config.slots);
  const auto sequences = static_cast<std::size_t>(pool->config_.max_sequences);
  pool->records_.resize(sequences);
  pool->scratch_.resize(sequences);
  pool->free_records_.resize(sequences);
  for (std::size_t i = 0; i < sequences; ++i) pool->free_records_[i] = static_cast<std::uint32_t>(i);
  pool->holders_.resize(slots);
  pool->free_slots_.resize(slots);
  for (std::size_t i = 0; i < slots; ++i) pool->free_slots_[i] = static_cast<std::int32_t>(slots - 1 - i);
  return pool;
}

// ---- finding -------------------------------------------------------------------------------------------------------

std::string StatePool::Name::text() const {
  return index < 0 ? std::string(what) : std::string(what) + "[" + std::to_string(index) + "]";
}

Sequence StatePool::handle(std::uint32_t index) const {
  return {std::uint64_t{tag_.number()} << (index_bits + generation_bits) |
          std::uint64_t{records_[index].generation} << index_bits | index};
}

Result<std::uint32_t> StatePool::find(Sequence sequence, Name name) const {
  if (sequence.id == 0) return fail(Status::stale, name.text() + " is 0, which is no sequence");
  if (sequence.id >> (index_bits + generation_bits) != tag_.number())
    return fail(Status::foreign, name.text() + " belongs to another pool");
  const std::uint32_t index = index_of(sequence);
  if (index >= records_.size() or not records_[index].live or records_[index].released or handle(index) != sequence)
    return fail(Status::stale, name.text() + " is stale: it was released, or never was");
  return index;
}

Result<std::uint32_t> StatePool::settled(Sequence sequence, Name name) const {
  auto index = find(sequence, name);
  if (index and records_[*index].in_batch)
    return fail(Status::out_of_order, name.text() + " is in a batch that was begun; commit or abort that first");
  return index;
}

Result<std::uint32_t> StatePool::source(Sequence sequence, Name name) const {
  auto index = settled(sequence, name);
  if (index and records_[*index].lost)
    return fail(Status::lost, name.text() +
                                  "'s state was overwritten by a batch that was not committed; roll it back "
                                  "to a checkpoint, or release it");
  return index;
}

// ---- giving and taking back ----------------------------------------------------------------------------------------

Result<std::uint32_t> StatePool::new_record() {
  if (live_ == records_.size())
    return fail(Status::out_of_slots,
                "the pool has all of its " + std::to_string(records_.size()) + " sequences (max_sequences) live");
  const std::uint32_t index = free_records_[first_free_record_];
  first_free_record_ = (first_free_record_ + 1) % free_records_.size();
  ++live_;
  Record& record = records_[index];
  const std::uint32_t generation = record.generation % most_generations + 1;  // never 0
  record = Record();
  record.generation = generation;
  record.live = true;
  return index;
}

Result<std::int32_t> StatePool::new_slot() {
  if (free_slots_.empty())
    return fail(Status::out_of_slots, "the pool has all of its " + std::to_string(holders_.size()) + " slots in use");
  const std::int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  holders_[static_cast<std::size_t>(slot)] = 1;
  peak_ = std::max(peak_, static_cast<std::int64_t>(holders_.size() - free_slots_.size()));
  return slot;
}

void StatePool::hold_slot(std::int32_t slot) { shared_ += ++holders_[static_cast<std::size_t>(slot)] == 2; }

void StatePool::drop_slot(std::int32_t slot) {
  const std::uint32_t left = --holders_[static_cast<std::size_t>(slot)];
  shared_ -= left == 1;
  if (left == 0) free_slots_.push_back(slot);
}

void StatePool::drop_record(std::uint32_t index) {
  drop_slot(records_[index].slot);
  records_[index].live = false;
  free_records_[(first_free_record_ + free_records_.size() - live_) % free_records_.size()] = index;
  --live_;
}

Result<Sequence> StatePool::acquire() {
  auto reserved = reserve();
  if (not reserved) return std::unexpected(std::move(reserved).error());
  return reserved->sequence;
}

Result<StatePool::Reserved> StatePool::reserve() {
  const std::lock_guard lock(mutex_);
  if (free_slots_.empty()) return std::unexpected(new_slot().error());
  const auto index = new_record();
  if (not index) return std::unexpected(index.error());
  Record& record = records_[*index];
  record.slot = *new_slot();
  return Reserved{handle(*index), record.slot};
}

Result<void> StatePool::release(Sequence sequence) {
  const std::lock_guard lock(mutex_);
  const auto index = find(sequence, {"sequence"});
  if (not index) return std::unexpected(index.error());
  if (records_[*index].in_batch)
    records_[*index].released = true;
  else
    drop_record(*index);
  return {};
}

Result<Sequence> StatePool::fork(Sequence parent) {
  const std::lock_guard lock(mutex_);
  const auto from = source(parent, {"parent"});
  if (not from) return std::unexpected(from.error());
  const auto index = new_record();
  if (not index) return std::unexpected(index.error());
  Record& record = records_[*index];
  record.slot = records_[*from].slot;
  record.position = records_[*from].position;
  record.zero_state = records_[*from].zero_state;
  hold_slot(record.slot);
  return handle(*index);
}

void StatePool::unmark(std::span<const Sequence> sequences) {
  for (const Sequence s : sequences)
    if (const auto index = find(s, {""})) records_[*index].marked = false;
}

Result<void> StatePool::reorder(std::span<const Sequence> sequences, std::span<const Sequence> parents) {
  if (sequences.size() != parents.size())
    return fail(Status::invalid_argument, std::to_string(sequences.size()) + " sequences cannot take the states of " +
                                              std::to_string(parents.size()) + " parents");
  return take_states(sequences, {"sequences", 0}, parents, {"parents", 0});
}

Result<void> StatePool::rollback(Sequence sequence, Sequence checkpoint) {
  return take_states({&sequence, 1}, {"sequence"}, {&checkpoint, 1}, {"checkpoint"});
}

Result<void> StatePool::take_states(std::span<const Sequence> sequences, Name name, std::span<const Sequence> parents,
                                    Name parent) {
  const std::lock_guard lock(mutex_);
  const auto check = [&]() -> Result<void> {
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto index = settled(sequences[i], name.at(i));
      if (not index) return std::unexpected(index.error());
      if (std::exchange(records_[*index].marked, true))
        return fail(Status::invalid_argument, name.at(i).text() + " stands in the list twice; it can take one state");
      const auto from = source(parents[i], parent.at(i));
      if (not from) return std::unexpected(from.error());
      scratch_[i] = records_[*from];  // i is below the number of records, as the sequences are distinct
    }
    return {};
  };
  const auto checked = check();
  unmark(sequences);
  if (not checked) return checked;

  for (std::size_t i = 0; i < sequences.size(); ++i) hold_slot(scratch_[i].slot);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    Record& record = records_[*find(sequences[i], {"sequences"})];
    drop_slot(record.slot);
    record.slot = scratch_[i].slot;
    record.position = scratch_[i].position;
    record.zero_state = scratch_[i].zero_state;
    record.lost = false;
  }
  return {};
}

// ---- asking --------------------------------------------------------------------------------------------------------

Result<Tokens> StatePool::position(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  const auto index = find(sequence, {"sequence"});
  if (not index) return std::unexpected(index.error());
  return records_[*index].position;
}

Result<std::int32_t> StatePool::slot(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  const auto index = source(sequence, {"sequence"});
  if (not index) return std::unexpected(index.error());
  return records_[*index].zero_state ? -1 : records_[*index].slot;
}

PoolStatistics StatePool::statistics() const {
  const std::lock_guard lock(mutex_);
  PoolStatistics s;
  s.slots = static_cast<std::int64_t>(holders_.size());
  s.used = static_cast<std::int64_t>(holders_.size() - free_slots_.size());
  s.shared = shared_;
  s.peak = peak_;
  s.sequences = static_cast<std::int64_t>(live_);
  s.max_sequences = static_cast<std::int64_t>(records_.size());
  return s;
}

// ---- batches -------------------------------------------------------------------------------------------------------

Result<void> StatePool::check_row(const Row& row, std::int64_t at) {
  const auto index = find(row.sequence, {"entries", at});
  if (not index) return std::unexpected(index.error());
  if (records_[*index].marked)
    return fail(Status::invalid_argument,
                "entries[" + std::to_string(at) + "] has a sequence that stands in the batch twice");
  if (auto free = source(row.sequence, {"entries", at}); not free) return std::unexpected(free.error());
  Record& record = records_[*index];
  record.marked = true;
  std::int64_t sum = 0;
  if (row.tokens < Tokens(0) or __builtin_add_overflow(record.position.count(), row.tokens.count(), &sum))
    return fail(Status::invalid_argument, "entries[" + std::to_string(at) + "] adds " +
                                              std::to_string(row.tokens.count()) + " tokens at position " +
                                              std::to_string(record.position.count()));
  return {};
}

Result<void> StatePool::begin(std::span<Row> rows, bool keep) {
  const std::lock_guard lock(mutex_);
  Result<void> checked;
  std::size_t seen = 0, fresh = 0;
  const auto needs_fresh = [&](const Record& record) {
    return holders_[static_cast<std::size_t>(record.slot)] > 1 or (keep and not record.zero_state);
  };
  for (; seen < rows.size() and checked; ++seen) {
    checked = check_row(rows[seen], static_cast<std::int64_t>(seen));
    if (checked and rows[seen].tokens > Tokens(0)) fresh += needs_fresh(records_[*find(rows[seen].sequence, {""})]);
  }
  for (std::size_t i = 0; i < seen; ++i)
    if (const auto index = find(rows[i].sequence, {""})) records_[*index].marked = false;
  if (not checked) return checked;
  if (fresh > free_slots_.size())
    return fail(Status::out_of_slots, "the batch needs " + counted(fresh, "fresh slot") + "; the pool has " +
                                          std::to_string(free_slots_.size()) + " of its " +
                                          std::to_string(holders_.size()) + " free");
  for (Row& row : rows) {
    Record& record = records_[*find(row.sequence, {""})];
    record.in_batch = true;
    row.read = row.write = -1;
    if (row.tokens == Tokens(0)) continue;
    row.read = record.zero_state ? -1 : record.slot;
    row.write = needs_fresh(record) ? *new_slot() : record.slot;
  }
  return {};
}

void StatePool::end_row(std::uint32_t index) {
  records_[index].in_batch = false;
  if (records_[index].released) drop_record(index);
}

void StatePool::commit(std::span<const Row> rows) {
  const std::lock_guard lock(mutex_);
  for (const Row& row : rows) {
    const std::uint32_t index = index_of(row.sequence);
    Record& record = records_[index];
    if (row.write >= 0) {
      if (row.write != record.slot) drop_slot(record.slot);
      record.slot = row.write;
      record.zero_state = false;
      record.position += row.tokens;
    }
    end_row(index);
  }
}

void StatePool::abort(std::span<const Row> rows, bool touched) {
  const std::lock_guard lock(mutex_);
  for (const Row& row : rows) {
    const std::uint32_t index = index_of(row.sequence);
    Record& record = records_[index];
    if (row.write >= 0) {
      if (row.write != record.slot)
        drop_slot(row.write);
      else if (touched and not record.zero_state)
        record.lost = true;
    }
    end_row(index);
  }
}

// ---- snapshots -----------------------------------------------------------------------------------------------------

Result<StatePool::Pinned> StatePool::pin(Sequence sequence) {
  const std::lock_guard lock(mutex_);
  const auto index = source(sequence, {"sequence"});
  if (not index) return std::unexpected(index.error());
  const Record& record = records_[*index];
  if (record.zero_state) return Pinned{-1, record.position};
  hold_slot(record.slot);
  return Pinned{record.slot, record.position};
}

void StatePool::unpin(const Pinned& pinned) {
  const std::lock_guard lock(mutex_);
  if (pinned.slot >= 0) drop_slot(pinned.slot);
}

void StatePool::settle(const Reserved& reserved, Tokens position, bool zero_state) {
  const std::lock_guard lock(mutex_);
  Record& record = records_[index_of(reserved.sequence)];
  record.position = position;
  record.zero_state = zero_state;
}

}  // namespace glaive
