#pragma once
// The C++17 face of glaive.h: handles that close themselves, and errors as exceptions. Everything is inline.
#if __cplusplus < 201703L
#error "glaive.hpp needs C++17: compile with -std=c++17 or newer"
#endif
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "glaive.h"

namespace glaive::api {

/// What a failed call says: one sentence, and the status to act on.
class Error : public std::runtime_error {
 public:
  Error(glaive_status status, const char* message) : std::runtime_error(message), status_(status) {}
  glaive_status status() const { return status_; }

 private:
  glaive_status status_;
};

inline void check(glaive_status status) {
  if (status != GLAIVE_OK) throw Error(status, glaive_last_error());
}

/// A count of one kind of thing: a number of heads does not pass for a number of tokens.
template <class Kind>
class Extent {
 public:
  template <class Integer, class = std::enable_if_t<std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>>>
  explicit constexpr Extent(Integer count) : count_(static_cast<std::int64_t>(count)) {}
  constexpr std::int64_t count() const { return count_; }

 private:
  std::int64_t count_;
};
using Sequences = Extent<struct SequencesKind>;
using Tokens = Extent<struct TokensKind>;
using Slots = Extent<struct SlotsKind>;
using Heads = Extent<struct HeadsKind>;

/// `forward H16 Hkv4 K128 V128 bf16 gate=f32`; see glaive.h for the fields.
class Problem : public glaive_problem {
 public:
  explicit Problem(const char* text) : glaive_problem() {
    size = sizeof(glaive_problem);
    check(glaive_problem_parse(text, this));
  }
  explicit Problem(const std::string& text) : Problem(text.c_str()) {}
};

class Shape : public glaive_shape {
 public:
  /// `sequences` of `each` tokens.
  Shape(Sequences sequences_of_it, Tokens each) : glaive_shape() {
    size = sizeof(glaive_shape);
    sequences = sequences_of_it.count();
    tokens = each.count();
  }
  /// Sequences one after the other on the token axis: cu_seqlens has sequences + 1 numbers and must outlive the shape.
  static Shape ragged(Sequences sequences, Tokens total, Tokens longest, const std::int32_t* cu_seqlens) {
    Shape shape(sequences, total);
    shape.longest = longest.count();
    shape.cu_seqlens = cu_seqlens;
    return shape;
  }
};

/// The tensors of a call: set q, k, v, g, o, and what else the call has; see glaive.h.
class Args : public glaive_args {
 public:
  Args() : glaive_args() { size = sizeof(glaive_args); }
  /// States updated in place in a buffer of `places` slots: sequence b reads slot read[b] and writes slot write[b], -1
  /// for none. The arrays have a number for each sequence and outlive the calls.
  void set_states(void* states, Slots places, const std::int32_t* read, const std::int32_t* write) {
    initial_state = final_state = states;
    slots = places.count();
    read_slots = read;
    write_slots = write;
  }
};

class Device {
 public:
  explicit Device(const char* name = "cpu", int threads = 0) {
    glaive_device* device = nullptr;
    check(glaive_device_open(name, threads, &device));
    handle_.reset(device);
  }
  int threads() const { return glaive_device_threads(handle_.get()); }
  std::string target() const { return glaive_device_target(handle_.get()); }
  glaive_device* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_device* device) const { glaive_device_close(device); }
  };
  std::unique_ptr<glaive_device, Close> handle_;
};

/// Memory that kernels of a device see, for programs without an allocator of their own. Copies are done when they
/// return.
class Memory {
 public:
  Memory(const Device& device, std::size_t bytes) : bytes_(bytes) {
    glaive_memory* memory = nullptr;
    check(glaive_memory_create(device.get(), bytes, &memory));
    handle_.reset(memory);
  }
  void* data() const { return glaive_memory_data(handle_.get()); }
  std::size_t size() const { return bytes_; }
  void write(const void* from, std::size_t bytes, std::size_t offset = 0) {
    check(glaive_memory_write(handle_.get(), offset, from, bytes));
  }
  void read(void* to, std::size_t bytes, std::size_t offset = 0) const {
    check(glaive_memory_read(handle_.get(), offset, to, bytes));
  }

 private:
  struct Close {
    void operator()(glaive_memory* memory) const { glaive_memory_close(memory); }
  };
  std::unique_ptr<glaive_memory, Close> handle_;
  std::size_t bytes_;
};

class Pack {
 public:
  explicit Pack(const char* path) {
    glaive_pack* pack = nullptr;
    check(glaive_pack_open(path, &pack));
    handle_.reset(pack);
  }
  explicit Pack(const std::string& path) : Pack(path.c_str()) {}
  /// The bytes of a pack, which are copied.
  static Pack from_memory(const void* bytes, std::size_t size) {
    glaive_pack* pack = nullptr;
    check(glaive_pack_open_memory(bytes, size, &pack));
    return Pack(pack);
  }
  std::size_t size() const { return glaive_pack_size(handle_.get()); }
  const glaive_pack* get() const { return handle_.get(); }

 private:
  explicit Pack(glaive_pack* pack) : handle_(pack) {}
  struct Close {
    void operator()(glaive_pack* pack) const { glaive_pack_close(pack); }
  };
  std::unique_ptr<glaive_pack, Close> handle_;
};

/// Memory of the device for what a plan's workspace_bytes says; of 0 bytes, none.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Device& device, std::size_t bytes) {
    if (bytes > 0) memory_.emplace(device, bytes);
  }
  void* data() const { return memory_ ? memory_->data() : nullptr; }
  std::size_t size() const { return memory_ ? memory_->size() : 0; }

 private:
  std::optional<Memory> memory_;
};

/// A plan that an operator lends: no longer than the operator lives.
class PlanView {
 public:
  explicit PlanView(const glaive_plan* plan) : plan_(plan) {}
  glaive_match match() const {
    glaive_match match = GLAIVE_MATCH_EXACT;
    check(glaive_plan_match(plan_, &match));
    return match;
  }
  /// How it fits a shape, which may be another than that it was looked up for; see glaive.h.
  glaive_fit fit(const Shape& shape) const {
    glaive_fit fit = {};
    fit.size = sizeof fit;
    check(glaive_plan_fit(plan_, &shape, &fit));
    return fit;
  }
  std::string variant() const { return glaive_plan_variant(plan_); }
  std::string description() const { return glaive_plan_description(plan_); }
  std::size_t workspace_bytes(const Shape& shape) const {
    std::size_t bytes = 0;
    check(glaive_plan_workspace(plan_, &shape, &bytes));
    return bytes;
  }
  /// Runs the kernel, or enqueues it on args.stream of a GPU. `workspace` may be kept from call to call, and must be
  /// until the call is over; it must not be used by two calls at once.
  void operator()(const Shape& shape, const Args& args, const Workspace& workspace) const {
    check(glaive_run(plan_, &shape, &args, workspace.data(), workspace.size()));
  }
  const glaive_plan* get() const { return plan_; }

 private:
  const glaive_plan* plan_;
};

/// A plan of the caller's own.
class Plan : public PlanView {
 public:
  Plan(const Device& device, const Pack& pack, const Problem& problem, const Shape& shape)
      : Plan(find(device, pack, problem, shape)) {}

 private:
  explicit Plan(glaive_plan* plan) : PlanView(plan), handle_(plan) {}
  static glaive_plan* find(const Device& device, const Pack& pack, const Problem& problem, const Shape& shape) {
    glaive_plan* plan = nullptr;
    check(glaive_plan_find(device.get(), pack.get(), &problem, &shape, &plan));
    return plan;
  }
  struct Close {
    void operator()(glaive_plan* plan) const { glaive_plan_close(plan); }
  };
  std::unique_ptr<glaive_plan, Close> handle_;
};

/// A problem on a device, served from one or several packs; the earlier ones win ties.
class Operator {
 public:
  Operator(const Device& device, std::initializer_list<const Pack*> packs, const Problem& problem) {
    std::vector<const glaive_pack*> handles;
    for (const Pack* pack : packs) handles.push_back(pack->get());
    glaive_operator* op = nullptr;
    check(glaive_operator_create(device.get(), handles.data(), handles.size(), &problem, &op));
    handle_.reset(op);
  }
  Operator(const Device& device, const Pack& pack, const Problem& problem) : Operator(device, {&pack}, problem) {}
  PlanView plan(const Shape& shape) const {
    const glaive_plan* plan = nullptr;
    check(glaive_operator_plan(handle_.get(), &shape, &plan));
    return PlanView(plan);
  }
  /// The same, refused where the match is worse than `worst`.
  PlanView plan(const Shape& shape, glaive_match worst) const {
    const glaive_plan* plan = nullptr;
    check(glaive_operator_plan_within(handle_.get(), &shape, worst, &plan));
    return PlanView(plan);
  }
  /// Enough for every call up to this shape.
  std::size_t workspace_bytes(const Shape& largest) const {
    std::size_t bytes = 0;
    check(glaive_operator_workspace(handle_.get(), &largest, &bytes));
    return bytes;
  }
  std::uint64_t untuned() const { return glaive_operator_untuned(handle_.get()); }
  const glaive_operator* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_operator* op) const { glaive_operator_close(op); }
  };
  std::unique_ptr<glaive_operator, Close> handle_;
};

/// A call that is checked once and run again and again. What it points to, `workspace` included, must outlive it.
class Launch {
 public:
  Launch(const PlanView& plan, const Shape& shape, const Args& args, const Workspace& workspace) {
    glaive_launch* launch = nullptr;
    check(glaive_launch_prepare(plan.get(), &shape, &args, workspace.data(), workspace.size(), &launch));
    handle_.reset(launch);
  }
  void operator()() const { check(glaive_launch_run(handle_.get())); }
  const glaive_launch* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_launch* launch) const { glaive_launch_close(launch); }
  };
  std::unique_ptr<glaive_launch, Close> handle_;
};

// ---- states and batches

class Pool;

/// A live sequence; released with the object. It keeps its pool alive.
class Sequence {
 public:
  Sequence() = default;
  Sequence(Sequence&& other) noexcept : pool_(std::move(other.pool_)), id_(std::exchange(other.id_, 0)) {}
  Sequence& operator=(Sequence&& other) noexcept {
    Sequence taken(std::move(other));  // what was held here goes with it
    std::swap(pool_, taken.pool_);
    std::swap(id_, taken.id_);
    return *this;
  }
  ~Sequence() {
    if (id_ != 0) glaive_sequence_release(pool_.get(), id_);
  }

  glaive_sequence id() const { return id_; }
  /// Tokens taken in batches that were committed.
  Tokens position() const {
    std::int64_t tokens = 0;
    check(glaive_sequence_position(pool_.get(), id_, &tokens));
    return Tokens(tokens);
  }
  /// The slot that holds the state; -1 while it is zero.
  std::int32_t slot() const {
    std::int32_t slot = -1;
    check(glaive_sequence_slot(pool_.get(), id_, &slot));
    return slot;
  }
  /// Shares the state: kept aside it is a checkpoint.
  Sequence fork() const {
    glaive_sequence child = 0;
    check(glaive_sequence_fork(pool_.get(), id_, &child));
    return Sequence(pool_, child);
  }
  void rollback(const Sequence& checkpoint) { check(glaive_sequence_rollback(pool_.get(), id_, checkpoint.id_)); }
  void write_snapshot(const std::string& path) const { check(glaive_snapshot_write(pool_.get(), id_, path.c_str())); }
  std::vector<std::byte> save_snapshot() const {
    std::size_t bytes = 0;
    check(glaive_snapshot_bytes(pool_.get(), id_, &bytes));
    std::vector<std::byte> snapshot(bytes);
    check(glaive_snapshot_save(pool_.get(), id_, snapshot.data(), bytes, &bytes));
    return snapshot;
  }

 private:
  friend class Pool;
  Sequence(std::shared_ptr<glaive_pool> pool, glaive_sequence id) : pool_(std::move(pool)), id_(id) {}
  std::shared_ptr<glaive_pool> pool_;
  glaive_sequence id_ = 0;
};

/// `config.kv_heads = 4` and so on; see glaive.h.
class PoolConfig : public glaive_pool_config {
 public:
  PoolConfig() : glaive_pool_config() { size = sizeof(glaive_pool_config); }
  /// For the states of a problem.
  PoolConfig(const Problem& problem, std::int64_t layers_of_it, std::int64_t slots_of_it) : PoolConfig() {
    layers = layers_of_it;
    kv_heads = problem.kv_heads;
    key_dim = problem.key_dim;
    value_dim = problem.value_dim;
    dtype = problem.state_dtype;
    layout = problem.state_layout;
    slots = slots_of_it;
  }
};

/// Slot s of a plane lies at base + s * slot_stride_bytes.
struct Plane {
  void* base;
  std::size_t slot_stride_bytes;
};

class Pool {
 public:
  Pool(const Device& device, const PoolConfig& config, void* memory = nullptr, std::size_t bytes = 0) {
    glaive_pool* pool = nullptr;
    check(glaive_pool_create(device.get(), &config, memory, bytes, &pool));
    handle_ = std::shared_ptr<glaive_pool>(pool, glaive_pool_close);
  }
  Sequence acquire() const {
    glaive_sequence id = 0;
    check(glaive_sequence_acquire(get(), &id));
    return Sequence(handle_, id);
  }
  /// sequences[i] takes the state and position of sequences[parents[i]], all at once.
  void reorder(const std::vector<Sequence>& sequences, const std::vector<std::size_t>& parents) const {
    std::vector<glaive_sequence> to, from;
    for (const Sequence& sequence : sequences) to.push_back(sequence.id());
    for (const std::size_t parent : parents) from.push_back(sequences.at(parent).id());
    if (to.size() != from.size()) throw Error(GLAIVE_INVALID_ARGUMENT, "as many parents as sequences are needed");
    check(glaive_sequence_reorder(get(), to.data(), from.data(), static_cast<std::int64_t>(to.size())));
  }
  Sequence restore_snapshot(const void* snapshot, std::size_t bytes) const {
    glaive_sequence id = 0;
    check(glaive_snapshot_restore(get(), snapshot, bytes, &id));
    return Sequence(handle_, id);
  }
  Sequence read_snapshot(const std::string& path) const {
    glaive_sequence id = 0;
    check(glaive_snapshot_read(get(), path.c_str(), &id));
    return Sequence(handle_, id);
  }
  /// 0: the states; 1: the first of plane_bytes.
  Plane plane(std::int64_t index) const {
    Plane plane = {};
    check(glaive_pool_plane(get(), index, &plane.base, &plane.slot_stride_bytes));
    return plane;
  }
  glaive_statistics statistics() const {
    glaive_statistics statistics = {};
    statistics.size = sizeof statistics;
    check(glaive_pool_statistics(get(), &statistics));
    return statistics;
  }
  glaive_pool* get() const { return handle_.get(); }

 private:
  std::shared_ptr<glaive_pool> handle_;
};

/// What the scheduler gives a sequence in one batch.
class Entry : public glaive_entry {
 public:
  Entry(const Sequence& of, Tokens added) : glaive_entry{of.id(), added.count()} {}
};
static_assert(sizeof(Entry) == sizeof(glaive_entry), "a list of them is handed on as it is");

/// What kernels read, in memory of the device, at addresses that a batch keeps for life.
struct Rows {
  const std::int32_t *cu_seqlens, *read_slots, *write_slots;
  std::uint32_t* device_status;
};

/// One step of several sequences: begin, launch every layer (or replay), commit.
class Batch {
 public:
  Batch(const Pool& pool, Sequences most, Tokens most_tokens) : Batch(pool, most, most_tokens, most_tokens) {}
  Batch(const Pool& pool, Sequences most, Tokens most_tokens, Tokens most_of_one) {
    glaive_batch_config config = {};
    config.size = sizeof config;
    config.max_sequences = most.count();
    config.max_tokens = most_tokens.count();
    config.max_longest = most_of_one.count();
    glaive_batch* batch = nullptr;
    check(glaive_batch_create(pool.get(), &config, &batch));
    handle_.reset(batch);
  }
  /// `stream`: of a GPU; see glaive_batch_begin_on.
  void begin(const std::vector<Entry>& entries, std::uint32_t flags = 0, void* stream = nullptr) {
    check(glaive_batch_begin_on(get(), entries.data(), static_cast<std::int64_t>(entries.size()), flags, stream));
  }
  void launch(const PlanView& plan, std::int64_t layer, const Args& args, const Workspace& workspace) {
    check(glaive_batch_launch(get(), plan.get(), layer, &args, workspace.data(), workspace.size()));
  }
  void replay() { check(glaive_batch_replay(get())); }
  void commit() { check(glaive_batch_commit(get())); }
  /// Bits of glaive_fault from batches that were committed; waits for them.
  std::uint32_t faults() {
    std::uint32_t bits = 0;
    check(glaive_batch_faults(get(), &bits));
    return bits;
  }
  void abort() { check(glaive_batch_abort(get())); }
  /// Of the batch that was begun: for a plan and its workspace.
  Shape shape() const {
    Shape shape(Sequences(0), Tokens(0));
    check(glaive_batch_shape(get(), &shape));
    return shape;
  }
  Rows rows() const {
    Rows rows = {};
    check(glaive_batch_rows(get(), &rows.cu_seqlens, &rows.read_slots, &rows.write_slots, &rows.device_status));
    return rows;
  }
  glaive_batch* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_batch* batch) const { glaive_batch_close(batch); }
  };
  std::unique_ptr<glaive_batch, Close> handle_;
};

}  // namespace glaive::api
