#pragma once
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "runtime/kernel.hpp"

namespace glaive {

/// A live sequence of one pool. The number names the pool, a place in its table and how often the place has been used,
/// so that a released or foreign one is known for what it is. 0 is no sequence.
struct Sequence {
  std::uint64_t id = 0;
  friend bool operator==(Sequence, Sequence) = default;
};

struct PoolConfig {
  std::int64_t layers = 1;
  KvHeads kv_heads;
  KeyDim k;
  ValueDim v;
  DType dtype = DType::f32;  ///< f32 or bf16
  StateLayout layout = StateLayout::kv;
  std::int64_t slots = 0;
  std::int64_t max_sequences = 0;    ///< 0 = twice the slots
  std::vector<std::int64_t> planes;  ///< bytes per slot of further planes, of the caller's own use
};

/// One kind of data, for every slot: slot s lies at offset + s * stride in the pool's memory.
struct Plane {
  std::int64_t offset = 0, stride = 0;
  std::int64_t bytes = 0;  ///< of one slot; the stride is this rounded up
};

/// Where everything is. Plane 0 holds the states, [layer, Hkv, K, V] or [layer, Hkv, V, K] in each slot.
struct PoolLayout {
  std::vector<Plane> planes;
  std::int64_t bytes = 0;        ///< of the pool's memory
  std::int64_t layer_bytes = 0;  ///< of one layer in one slot
};
inline constexpr std::int64_t pool_alignment = 256, slot_alignment = 64;
Result<PoolLayout> lay_out(const PoolConfig& config);

struct PoolStatistics {
  std::int64_t slots = 0, used = 0, shared = 0, peak = 0;  ///< shared: slots that several sequences hold
  std::int64_t sequences = 0, max_sequences = 0;
};

/// What a batch does to a sequence: reads one slot, writes another or the same, adds tokens. -1 is no slot.
struct Row {
  Sequence sequence;
  Tokens tokens;
  std::int32_t read = -1, write = -1;
};

/// The recurrent states of live sequences.
///
/// A slot is held by one sequence or by several: a fork shares its parent's slot, and the next batch of either reads
/// the shared slot and writes a fresh one. A slot that one sequence holds is updated in place. A new sequence takes its
/// slot at once, so that admission fails early, and reads none until it has been committed once. Every function locks
/// the bookkeeping; nothing is allocated after `create`. A failure changes nothing.
class StatePool {
 public:
  /// In `memory` of the caller's, which outlives the pool, or, when it is empty, in memory of its own; of the device,
  /// or of the host where that is null.
  static Result<std::shared_ptr<StatePool>> create(const PoolConfig& config, std::span<std::byte> memory = {},
                                                   std::shared_ptr<Device> device = nullptr);
  StatePool(const StatePool&) = delete;

  const PoolConfig& config() const { return config_; }
  const PoolLayout& layout() const { return layout_; }
  std::byte* memory() const { return memory_; }  ///< of the device
  Device* device() const { return device_.get(); }
  /// Whether kernels of `other` see the pool's memory.
  bool is_seen_by(const Device& other) const {
    return other.memory_space() == (device_ == nullptr ? nullptr : device_->memory_space());
  }
  bool in_host_memory() const { return device_ == nullptr or device_->memory_space() == nullptr; }
  std::byte* at(std::size_t plane, std::int64_t slot) const {
    return memory_ + layout_.planes[plane].offset + slot * layout_.planes[plane].stride;
  }

  Result<Sequence> acquire();
  /// The handle is stale at once; a slot in use by a batch comes back when the batch ends.
  Result<void> release(Sequence sequence);
  /// A new sequence with the parent's state and position. Takes no slot before its first batch.
  Result<Sequence> fork(Sequence parent);
  /// sequences[i] takes the state and position of parents[i], all at once. Sequences are distinct, parents need not be.
  /// Beams reorder; a rollback is the reorder of one onto its checkpoint, which is a fork taken earlier.
  Result<void> reorder(std::span<const Sequence> sequences, std::span<const Sequence> parents);
  Result<Tokens> position(Sequence sequence) const;
  /// The slot that holds the sequence's state; -1 while that is zero.
  Result<std::int32_t> slot(Sequence sequence) const;
  PoolStatistics statistics() const;

  // For batches.

  /// Fills in the slots of rows whose sequence and tokens are set, and holds the sequences until `commit` or `abort`.
  /// `keep`: every row writes a fresh slot, so that an abort loses nothing.
  Result<void> begin(std::span<Row> rows, bool keep);
  void commit(std::span<const Row> rows);
  /// `touched`: kernels may have written; sequences that were to be updated in place are lost.
  void abort(std::span<const Row> rows, bool touched);

  // For snapshots.

  /// Holds a sequence's slot while it is copied: the sequence may go on meanwhile, into a fresh slot.
  struct Pinned {
    std::int32_t slot = -1;  ///< -1: the state is zero
    Tokens position;
  };
  Result<Pinned> pin(Sequence sequence);
  void unpin(const Pinned& pinned);
  /// A new sequence and its slot, to be filled and then made the sequence's state by `settle`.
  struct Reserved {
    Sequence sequence;
    std::int32_t slot = -1;
  };
  Result<Reserved> reserve();
  void settle(const Reserved& reserved, Tokens position, bool zero_state);

 private:
  struct Record {
    Tokens position;
    std::int32_t slot = -1;
    std::uint32_t generation = 0;
    bool live = false;
    bool zero_state = true;  // the slot holds nothing yet
    bool in_batch = false, released = false, lost = false;
    bool marked = false;  // seen in the list being checked
  };
  /// How a message names a sequence: `what`, or `what[index]`.
  struct Name {
    const char* what;
    std::int64_t index = -1;
    std::string text() const;
  };

  StatePool() = default;
  Result<std::uint32_t> find(Sequence sequence, Name name) const;     // live
  Result<std::uint32_t> settled(Sequence sequence, Name name) const;  // live, in no batch
  Result<std::uint32_t> source(Sequence sequence, Name name) const;   // as settled, and not lost
  Result<std::uint32_t> new_record();
  Result<std::int32_t> new_slot();
  Sequence handle(std::uint32_t index) const;
  void drop_slot(std::int32_t slot);
  void drop_record(std::uint32_t index);
  void end_row(std::uint32_t index);
  void unmark(std::span<const Sequence> sequences);
  Result<void> check_row(const Row& row, std::int64_t index);

  PoolConfig config_;
  PoolLayout layout_;
  std::shared_ptr<Device> device_;
  std::shared_ptr<std::byte> own_memory_;
  std::byte* memory_ = nullptr;
  std::uint16_t tag_ = 0;

  mutable std::mutex mutex_;
  std::vector<Record> records_;
  std::vector<std::uint32_t> holders_;       // of each slot: sequences, batches and pins
  std::vector<std::int32_t> free_slots_;     // a stack: the warmest first
  std::vector<std::uint32_t> free_records_;  // a ring: the longest unused first, so that generations last
  std::size_t first_free_record_ = 0, live_ = 0;
  std::int64_t peak_ = 0;
  std::vector<Record> scratch_;  // of reorder
};

}  // namespace glaive
