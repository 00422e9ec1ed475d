// Pools, batches and snapshots: what each call does, and what it says of bad input.
#include <limits>

#include "runtime/batch.hpp"
#include "runtime/snapshot.hpp"
#include "tests/runtime/allocations.hpp"
#include "tests/runtime/server.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

PoolConfig small(std::int64_t slots = 4, std::int64_t max_sequences = 0) {
  PoolConfig config;
  config.layers = 2;
  config.kv_heads = KvHeads(2);
  config.k = KeyDim(8);
  config.v = ValueDim(4);
  config.slots = slots;
  config.max_sequences = max_sequences;
  config.planes = {40};
  return config;
}
std::shared_ptr<StatePool> make(const PoolConfig& config = small()) {
  auto pool = StatePool::create(config);
  REQUIRE(pool.has_value());
  return *pool;
}
std::unique_ptr<Batch> make_batch(const std::shared_ptr<StatePool>& pool, std::int64_t sequences = 4,
                                  std::int64_t tokens = 100, std::int64_t longest = 0) {
  auto batch = Batch::create(pool, {Sequences(sequences), Tokens(tokens), Tokens(longest)});
  REQUIRE(batch.has_value());
  return std::move(*batch);
}

template <class Value>
void refused(const Result<Value>& result, Status status, std::string_view part) {
  REQUIRE_FALSE(result.has_value());
  INFO(result.error().message);
  CHECK(result.error().status == status);
  CHECK(contains(result.error().message, part));
}

using Entries = std::vector<Batch::Entry>;

/// Writes a number into every byte of the slots that the batch writes, as a kernel would.
void step(StatePool& pool, Batch& batch, const Entries& entries, int value) {
  REQUIRE(batch.begin(entries).has_value());
  REQUIRE(batch.replay().has_value());
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (std::size_t plane = 0; plane < pool.layout().planes.size() and batch.write_slots()[i] >= 0; ++plane)
      std::memset(pool.at(plane, batch.write_slots()[i]), value,
                  static_cast<std::size_t>(pool.layout().planes[plane].bytes));
  REQUIRE(batch.commit().has_value());
}
int value_of(StatePool& pool, Sequence sequence, std::size_t plane = 0) {
  const auto slot = pool.slot(sequence);
  REQUIRE(slot.has_value());
  return *slot < 0 ? 0 : static_cast<int>(*(pool.at(plane, *slot) + pool.layout().planes[plane].bytes - 1));
}
std::int64_t position(StatePool& pool, Sequence sequence) { return pool.position(sequence)->count(); }

}  // namespace

// ---- pools ---------------------------------------------------------------------------------------------------------

TEST_CASE("pool: planes are contiguous over slots, bases aligned to 256 and slots to 64") {
  const auto layout = lay_out(small(3));
  REQUIRE(layout.has_value());
  REQUIRE(layout->planes.size() == 2);
  CHECK(layout->layer_bytes == 2 * 8 * 4 * 4);
  CHECK(layout->planes[0].bytes == 512);
  CHECK(layout->planes[0].stride == 512);
  CHECK(layout->planes[0].offset == 0);
  CHECK(layout->planes[1].bytes == 40);
  CHECK(layout->planes[1].stride == 64);
  CHECK(layout->planes[1].offset == 1536);
  CHECK(layout->bytes == 1792);
}

TEST_CASE("pool: in the caller's memory") {
  const auto bytes = static_cast<std::size_t>(lay_out(small())->bytes);
  alignas(256) static std::byte memory[1 << 14];
  REQUIRE(bytes + 1 <= sizeof memory);
  const auto pool = StatePool::create(small(), {memory, bytes});
  REQUIRE(pool.has_value());
  CHECK((*pool)->memory() == memory);
  refused(StatePool::create(small(), {memory, bytes - 1}), Status::invalid_argument,
          "memory has " + std::to_string(bytes - 1) + " bytes; the pool needs " + std::to_string(bytes));
  refused(StatePool::create(small(), {memory + 64, bytes}), Status::invalid_argument, "not aligned to 256");
}

TEST_CASE("pool: configurations that cannot be") {
  struct Row {
    void (*change)(PoolConfig&);
    const char* part;
  };
  const Row rows[] = {
      {[](auto& c) { c.layers = 0; }, "layers is 0"},
      {[](auto& c) { c.layers = INT64_MAX; }, "layers is"},
      {[](auto& c) { c.kv_heads = KvHeads(0); }, ""},
      {[](auto& c) { c.k = KeyDim(513); }, "K"},
      {[](auto& c) { c.v = ValueDim(-1); }, "V"},
      {[](auto& c) { c.dtype = DType::f16; }, "not f16"},
      {[](auto& c) { c.slots = 0; }, "slots is 0"},
      {[](auto& c) { c.slots = INT64_MAX; }, "slots is"},
      {[](auto& c) { c.max_sequences = -1; }, "max_sequences is -1"},
      {[](auto& c) { c.planes = {0}; }, "a plane's bytes is 0"},
      {[](auto& c) { c.planes = {INT64_MAX}; }, "a plane's bytes is"},
      {[](auto& c) { c.planes.assign(17, 1); }, "planes is 17"},
      {[](auto& c) { c.planes = {std::int64_t{1} << 46}; }, "2^46"},
  };
  for (const Row& row : rows) {
    PoolConfig config = small();
    row.change(config);
    refused(StatePool::create(config), Status::invalid_argument, row.part);
  }
}

#ifdef GLAIVE_NOT_SANITIZED
TEST_CASE("pool: out of memory") {
  PoolConfig config = small();
  config.planes = {(std::int64_t{1} << 43)};
  refused(StatePool::create(config), Status::out_of_memory, "no memory for a pool of");
}
#endif

TEST_CASE("pool: admission fails early, without slots and without sequences") {
  const auto pool = make(small(2, 3));
  const auto a = pool->acquire(), b = pool->acquire();
  REQUIRE(b.has_value());
  refused(pool->acquire(), Status::out_of_slots, "all of its 2 slots in use");
  REQUIRE(pool->fork(*a).has_value());
  refused(pool->fork(*a), Status::out_of_slots, "all of its 3 sequences");
  const auto s = pool->statistics();
  CHECK(s.slots == 2);
  CHECK(s.used == 2);
  CHECK(s.shared == 1);
  CHECK(s.peak == 2);
  CHECK(s.sequences == 3);
  CHECK(s.max_sequences == 3);
  REQUIRE(pool->release(*b).has_value());
  CHECK(pool->statistics().used == 1);
  REQUIRE(pool->fork(*a).has_value());
  refused(pool->acquire(), Status::out_of_slots, "sequences");  // a slot, but no sequence: the slot stays free
  CHECK(pool->statistics().used == 1);
}

TEST_CASE("pool: double release, stale and foreign handles") {
  const auto pool = make(), other = make();
  const Sequence a = *pool->acquire(), theirs = *other->acquire();
  REQUIRE(pool->release(a).has_value());
  refused(pool->release(a), Status::stale, "sequence is a sequence that was released");
  std::vector<Sequence> later;
  for (int i = 0; i < 4; ++i) later.push_back(*pool->acquire());
  refused(pool->position(a), Status::stale, "released, or never was");
  refused(pool->fork(a), Status::stale, "parent is");
  refused(pool->release({}), Status::stale, "is 0, which is no sequence");
  refused(pool->release({later[0].id + 1000}), Status::stale, "never was");
  refused(pool->release(theirs), Status::foreign, "sequence of another pool");
  refused(pool->release({~std::uint64_t{0}}), Status::foreign, "another pool");
  CHECK(pool->statistics().sequences == 4);
  CHECK(other->statistics().sequences == 1);
}

TEST_CASE("pool: a place that is used again gives another handle") {
  const auto pool = make(small(1, 1));
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 100; ++i) {
    const Sequence s = *pool->acquire();
    CHECK(std::ranges::find(seen, s.id) == seen.end());
    seen.push_back(s.id);
    REQUIRE(pool->release(s).has_value());
  }
}

TEST_CASE("pool: a fork shares until one goes on, and then each has its own") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(3)}}, 1);
  const Sequence b = *pool->fork(a);
  CHECK(*pool->slot(a) == *pool->slot(b));
  CHECK(position(*pool, b) == 3);
  CHECK(pool->statistics().used == 1);
  const auto shared = *pool->slot(a);
  step(*pool, *batch, {{a, Tokens(2)}}, 2);
  CHECK(value_of(*pool, a) == 2);
  CHECK(value_of(*pool, b) == 1);
  CHECK(*pool->slot(b) == shared);
  CHECK(position(*pool, b) == 3);
  CHECK(position(*pool, a) == 5);
  step(*pool, *batch, {{b, Tokens(1)}}, 3);
  CHECK(*pool->slot(b) == shared);  // alone now: in place
  CHECK(pool->statistics().used == 2);
}

TEST_CASE("pool: forks of a sequence that has taken nothing yet") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire(), b = *pool->fork(a);
  CHECK(*pool->slot(b) == -1);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}, {b, Tokens(1)}}).has_value());
  CHECK(batch->read_slots()[0] == -1);
  CHECK(batch->read_slots()[1] == -1);
  CHECK(batch->write_slots()[0] != batch->write_slots()[1]);
  REQUIRE(batch->abort().has_value());
  CHECK(pool->statistics().used == 1);
}

TEST_CASE("pool: reorder takes all states at once, and repeats") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence s[] = {*pool->acquire(), *pool->acquire(), *pool->acquire()};
  for (int i = 0; i < 3; ++i) step(*pool, *batch, {{s[i], Tokens(i + 1)}}, i + 1);
  const Sequence parents[] = {s[1], s[0], s[0]};
  REQUIRE(pool->reorder(s, parents).has_value());
  CHECK(value_of(*pool, s[0]) == 2);
  CHECK(value_of(*pool, s[1]) == 1);
  CHECK(value_of(*pool, s[2]) == 1);
  CHECK(position(*pool, s[0]) == 2);
  CHECK(position(*pool, s[2]) == 1);
  CHECK(pool->statistics().used == 2);
  CHECK(pool->statistics().shared == 1);

  const Sequence twice[] = {s[0], s[0]};
  refused(pool->reorder(twice, {s, 2}), Status::invalid_argument, "sequences[1] stands in the list twice");
  refused(pool->reorder({s, 2}, {s, 1}), Status::invalid_argument, "2 sequences cannot take the states of 1 parents");
  const Sequence bad[] = {s[0], Sequence{}};
  refused(pool->reorder({s, 2}, bad), Status::stale, "parents[1] is 0");
  CHECK(value_of(*pool, s[0]) == 2);
  REQUIRE(pool->reorder(s, s).has_value());  // the failures above left no mark
  CHECK(pool->statistics().used == 2);
}

// ---- batches -------------------------------------------------------------------------------------------------------

TEST_CASE("batch: rows, lengths and padding") {
  const auto pool = make();
  const auto batch = make_batch(pool, 4, 100, 50);
  const Sequence a = *pool->acquire(), b = *pool->acquire(), c = *pool->acquire();
  const std::int32_t *cu = batch->cu_seqlens(), *read = batch->read_slots(), *write = batch->write_slots();
  step(*pool, *batch, {{c, Tokens(1)}}, 1);
  REQUIRE(batch->begin(Entries{{a, Tokens(5)}, {b, Tokens(0)}, {c, Tokens(1)}}, Batch::padded).has_value());
  CHECK(std::vector(cu, cu + 5) == std::vector<std::int32_t>{0, 5, 5, 6, 6});
  CHECK(read[0] == -1);
  CHECK(write[0] >= 0);
  CHECK(read[1] == -1);
  CHECK(write[1] == -1);
  CHECK(read[2] == write[2]);
  CHECK(read[3] == -1);
  CHECK(write[3] == -1);
  CHECK(batch->sequences() == Sequences(4));
  CHECK(batch->tokens() == Tokens(100));
  CHECK(batch->longest() == Tokens(50));
  REQUIRE(batch->replay().has_value());
  REQUIRE(batch->commit().has_value());
  CHECK(position(*pool, a) == 5);
  CHECK(position(*pool, b) == 0);
  CHECK(position(*pool, c) == 2);
  REQUIRE(batch->begin(Entries{{b, Tokens(7)}}).has_value());
  CHECK(batch->sequences() == Sequences(1));
  CHECK(batch->tokens() == Tokens(7));
  CHECK(batch->longest() == Tokens(7));
  CHECK(std::vector(cu, cu + 5) == std::vector<std::int32_t>{0, 7, 7, 7, 7});
  CHECK(write[2] == -1);
  CHECK(batch->cu_seqlens() == cu);
  CHECK(batch->read_slots() == read);
}

TEST_CASE("batch: entries that are refused change nothing") {
  const auto pool = make(), other = make();
  const auto batch = make_batch(pool, 4, 100, 50);
  const Sequence a = *pool->acquire(), b = *pool->acquire(), gone = *pool->acquire(), theirs = *other->acquire();
  REQUIRE(pool->release(gone).has_value());
  const auto before = pool->statistics();
  const auto no = [&](const Entries& entries, Status status, std::string_view part, std::uint32_t flags = 0) {
    refused(batch->begin(entries, flags), status, part);
    CHECK(pool->statistics().used == before.used);
    CHECK_FALSE(batch->open());
  };
  no({}, Status::invalid_argument, "count is 0");
  no(Entries(5, {a, Tokens(1)}), Status::invalid_argument, "count is 5; it must be from 1 to 4");
  no({{a, Tokens(1)}, {b, Tokens(1)}, {a, Tokens(1)}}, Status::invalid_argument,
     "entries[2] has a sequence that stands in the batch twice");
  no({{a, Tokens(1)}, {a, Tokens(0)}}, Status::invalid_argument, "twice");
  no({{a, Tokens(1)}, {b, Tokens(-1)}}, Status::invalid_argument, "entries[1].tokens is -1");
  no({{a, Tokens(INT64_MAX)}}, Status::invalid_argument, "entries[0].tokens is 9223372036854775807");
  no({{a, Tokens(51)}}, Status::invalid_argument, "from 0 to 50");
  no({{a, Tokens(50)}, {b, Tokens(50)}, {gone, Tokens(1)}}, Status::invalid_argument,
     "the entries add 101 tokens; the batch holds 100");
  no({{a, Tokens(1)}, {gone, Tokens(1)}}, Status::stale, "entries[1] is a sequence that was released");
  no({{theirs, Tokens(1)}}, Status::foreign, "entries[0] is a sequence of another pool");
  no({{Sequence{}, Tokens(1)}}, Status::stale, "entries[0] is 0");
  no({{a, Tokens(1)}}, Status::invalid_argument, "flags is 4", 4);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}, {b, Tokens(1)}}).has_value());
}

TEST_CASE("batch: token counts past int32, and positions past int64") {
  const auto pool = make();
  refused(Batch::create(pool, {Sequences(4), Tokens(std::int64_t{1} << 31), {}}), Status::invalid_argument,
          "max_tokens is 2147483648");
  refused(Batch::create(pool, {Sequences(0), Tokens(1), {}}), Status::invalid_argument, "max_sequences is 0");
  refused(Batch::create(pool, {Sequences(9), Tokens(1), {}}), Status::invalid_argument, "from 1 to 8");
  refused(Batch::create(pool, {Sequences(1), Tokens(1), Tokens(2)}), Status::invalid_argument, "max_longest is 2");
  const auto batch = make_batch(pool, 4, INT32_MAX);
  const Sequence a = *pool->acquire(), b = *pool->acquire();
  refused(batch->begin(Entries{{a, Tokens(INT32_MAX)}, {b, Tokens(1)}}), Status::invalid_argument, "2147483648 tokens");
  const auto reserved = *pool->reserve();
  pool->settle(reserved, Tokens(INT64_MAX - 1), false);
  refused(batch->begin(Entries{{reserved.sequence, Tokens(2)}}), Status::invalid_argument,
          "adds 2 tokens at position 9223372036854775806");
  CHECK(batch->begin(Entries{{reserved.sequence, Tokens(1)}}).has_value());
}

TEST_CASE("batch: too few slots for all of it changes nothing") {
  const auto pool = make(small(3));
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire(), b = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}, {b, Tokens(1)}}, 1);
  const Sequence entries[] = {a, *pool->fork(a), b, *pool->fork(b)};
  refused(batch->begin(Entries{{entries[0], Tokens(1)}, {entries[2], Tokens(1)}}), Status::out_of_slots,
          "needs 2 fresh slots, and of the pool's 3 only 1 are free");
  CHECK(pool->statistics().used == 2);
  step(*pool, *batch, {{entries[0], Tokens(1)}}, 2);
  refused(batch->begin(Entries{{entries[0], Tokens(1)}}, Batch::keep), Status::out_of_slots, "needs 1 fresh");
  step(*pool, *batch, {{entries[0], Tokens(1)}}, 2);
}

TEST_CASE("batch: calls out of order") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  refused(batch->commit(), Status::out_of_order, "has not begun");
  refused(batch->abort(), Status::out_of_order, "has not begun");
  refused(batch->replay(), Status::out_of_order, "has not begun");
  refused(batch->may_launch(0), Status::out_of_order, "has not begun");
  const Entries entries = {{a, Tokens(1)}};
  REQUIRE(batch->begin(entries).has_value());
  refused(batch->begin(entries), Status::out_of_order, "has begun already");
  refused(batch->commit(), Status::out_of_order, "only 0 of the pool's 2 layers were launched");
  refused(batch->may_launch(2), Status::invalid_argument, "layer is 2; it must be from 0 to 1");
  refused(batch->may_launch(-1), Status::invalid_argument, "layer is -1");
  REQUIRE(batch->may_launch(1).has_value());
  batch->launched(1);
  refused(batch->may_launch(1), Status::out_of_order, "layer 1 was launched already");
  refused(batch->replay(), Status::out_of_order, "launched or replayed already");
  refused(batch->commit(), Status::out_of_order, "only 1 of the pool's 2");
  CHECK(position(*pool, a) == 0);
  batch->launched(0);
  REQUIRE(batch->commit().has_value());
  CHECK(position(*pool, a) == 1);
  refused(batch->commit(), Status::out_of_order, "has not begun");
}

TEST_CASE("batch: launch and commit after a failure are refused, and only what was updated in place is lost") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence in_place = *pool->acquire(), shared = *pool->acquire(), fresh = *pool->acquire();
  step(*pool, *batch, {{in_place, Tokens(1)}, {shared, Tokens(1)}}, 1);
  const Sequence checkpoint = *pool->fork(shared);
  const Entries entries = {{in_place, Tokens(1)}, {shared, Tokens(1)}, {fresh, Tokens(1)}};
  REQUIRE(batch->begin(entries).has_value());
  batch->launched(0);
  batch->failed();
  refused(batch->may_launch(1), Status::out_of_order, "an earlier launch of this batch failed");
  refused(batch->replay(), Status::out_of_order, "failed");
  refused(batch->commit(), Status::out_of_order, "failed; only an abort remains");
  REQUIRE(batch->abort().has_value());
  CHECK(position(*pool, in_place) == 1);
  CHECK(value_of(*pool, shared) == 1);
  CHECK(*pool->slot(fresh) == -1);
  refused(batch->begin(Entries{{in_place, Tokens(1)}}), Status::lost, "entries[0]'s state was overwritten");
  refused(pool->fork(in_place), Status::lost, "roll it back");
  refused(pool->slot(in_place), Status::lost, "overwritten");
  refused(snapshot_bytes(*pool, in_place), Status::lost, "overwritten");
  const Sequence parents[] = {in_place};
  refused(pool->reorder({&shared, 1}, parents), Status::lost, "parents[0]");
  REQUIRE(pool->reorder({&in_place, 1}, {&checkpoint, 1}).has_value());
  CHECK(value_of(*pool, in_place) == 1);
  step(*pool, *batch, {{in_place, Tokens(1)}}, 2);
}

TEST_CASE("batch: an abort before any launch, or of a batch that keeps, loses nothing") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}}).has_value());
  REQUIRE(batch->abort().has_value());
  CHECK(value_of(*pool, a) == 1);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}}, Batch::keep).has_value());
  CHECK(batch->read_slots()[0] != batch->write_slots()[0]);
  batch->launched(0);
  REQUIRE(batch->abort().has_value());
  CHECK(value_of(*pool, a) == 1);
  CHECK(pool->statistics().used == 1);
}

TEST_CASE("batch: a fault that the device reports refuses the commit, and positions stay") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}}).has_value());
  REQUIRE(batch->replay().has_value());
  *batch->device_status() = 1;
  refused(batch->commit(), Status::failed, "a kernel reports a slot out of range");
  CHECK(position(*pool, a) == 0);
  refused(batch->commit(), Status::out_of_order, "only an abort remains");
  REQUIRE(batch->abort().has_value());
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
}

TEST_CASE("batch: what is in an open batch can be released, and nothing else") {
  const auto pool = make();
  const auto batch = make_batch(pool), second = make_batch(pool);
  const Sequence a = *pool->acquire(), b = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}}).has_value());
  refused(pool->fork(a), Status::out_of_order, "parent is in a batch that was begun");
  refused(second->begin(Entries{{a, Tokens(1)}}), Status::out_of_order, "entries[0] is in a batch");
  refused(pool->reorder({&a, 1}, {&b, 1}), Status::out_of_order, "sequences[0]");
  refused(pool->reorder({&b, 1}, {&a, 1}), Status::out_of_order, "parents[0]");
  refused(snapshot_bytes(*pool, a), Status::out_of_order, "in a batch");
  CHECK(position(*pool, a) == 1);
  REQUIRE(pool->release(a).has_value());
  refused(pool->release(a), Status::stale, "released");
  refused(pool->position(a), Status::stale, "released");
  CHECK(pool->statistics().used == 2);  // the slot is still in use
  REQUIRE(batch->replay().has_value());
  REQUIRE(batch->commit().has_value());
  CHECK(pool->statistics().used == 1);
  CHECK(pool->statistics().sequences == 1);
}

TEST_CASE("batch: two batches open at once, and a batch that is dropped") {
  const auto pool = make();
  auto first = make_batch(pool);
  const auto second = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *first, {{a, Tokens(1)}}, 1);
  const Sequence b = *pool->fork(a);
  REQUIRE(first->begin(Entries{{a, Tokens(1)}}).has_value());
  REQUIRE(second->begin(Entries{{b, Tokens(1)}}).has_value());
  CHECK(first->write_slots()[0] != first->read_slots()[0]);
  CHECK(second->write_slots()[0] != second->read_slots()[0]);
  CHECK(second->write_slots()[0] != first->write_slots()[0]);
  first.reset();
  CHECK(value_of(*pool, a) == 1);
  REQUIRE(second->replay().has_value());
  REQUIRE(second->commit().has_value());
  CHECK(pool->statistics().used == 2);
}

// ---- snapshots -----------------------------------------------------------------------------------------------------

namespace {
std::vector<std::byte> saved(StatePool& pool, Sequence sequence) {
  std::vector<std::byte> bytes(*snapshot_bytes(pool, sequence));
  const auto written = save_snapshot(pool, sequence, bytes);
  REQUIRE(written.has_value());
  REQUIRE(*written == bytes.size());
  return bytes;
}
}  // namespace

TEST_CASE("snapshot: memory and file, states and planes, into a pool of another size") {
  const auto pool = make(), other = make(small(1));
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto bytes = saved(*pool, a);
  CHECK(check_snapshot(bytes).has_value());
  const auto back = restore_snapshot(*other, bytes);
  REQUIRE(back.has_value());
  CHECK(position(*other, *back) == 9);
  CHECK(value_of(*other, *back, 0) == 7);
  CHECK(value_of(*other, *back, 1) == 7);
  REQUIRE(other->release(*back).has_value());

  Folder folder;
  REQUIRE(write_snapshot(*pool, a, folder / "s").has_value());
  REQUIRE(write_snapshot(*pool, a, folder / "s").has_value());
  CHECK(folder.names() == std::vector<std::string>{"s"});
  CHECK(read_bytes(folder / "s") == bytes);
  const auto read = read_snapshot(*other, folder / "s");
  REQUIRE(read.has_value());
  CHECK(value_of(*other, *read, 1) == 7);
  refused(read_snapshot(*other, folder / "s"), Status::out_of_slots, "slots");
}

TEST_CASE("snapshot: of a zero state") {
  const auto pool = make();
  const Sequence a = *pool->acquire();
  const auto bytes = saved(*pool, a);
  CHECK(bytes.size() < 128);
  const auto back = restore_snapshot(*pool, bytes);
  REQUIRE(back.has_value());
  CHECK(*pool->slot(*back) == -1);
  CHECK(position(*pool, *back) == 0);
}

TEST_CASE("snapshot: truncated and altered ones are refused at every byte, and take no slot") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto good = saved(*pool, a);
  const auto used = pool->statistics();
  Folder folder;
  for (std::size_t i = 0; i < good.size(); ++i) {
    INFO("byte " << i);
    const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i));  // its own memory
    const auto from_cut = restore_snapshot(*pool, cut);
    REQUIRE_FALSE(from_cut.has_value());
    CHECK(from_cut.error().status == Status::bad_snapshot);
    auto altered = good;
    altered[i] ^= std::byte{0x10};
    const auto from_altered = restore_snapshot(*pool, altered);
    REQUIRE_FALSE(from_altered.has_value());
    CHECK(from_altered.error().status == Status::bad_snapshot);
    CHECK_FALSE(check_snapshot(altered).has_value());
  }
  auto longer = good;
  longer.push_back({});
  refused(restore_snapshot(*pool, longer), Status::bad_snapshot, "by its header it should have");
  CHECK(pool->statistics().used == used.used);
  CHECK(pool->statistics().sequences == used.sequences);
}

TEST_CASE("snapshot: no snapshot, a newer one, and a small buffer") {
  const auto pool = make();
  const Sequence a = *pool->acquire();
  auto bytes = saved(*pool, a);
  refused(save_snapshot(*pool, a, std::span(bytes).first(bytes.size() - 1)), Status::invalid_argument,
          "the buffer has");
  const std::string text = "a text of some length that is no snapshot";
  refused(restore_snapshot(*pool, std::as_bytes(std::span(text))), Status::bad_snapshot, "no snapshot");
  refused(restore_snapshot(*pool, {}), Status::bad_snapshot, "no snapshot");
  bytes[8] = std::byte{2};
  refused(restore_snapshot(*pool, bytes), Status::bad_snapshot, "version 2, where this build reads version 1");
}

TEST_CASE("snapshot: of another shape") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto bytes = saved(*pool, a);
  void (*const changes[])(PoolConfig&) = {
      [](PoolConfig& c) { c.layers = 1; },
      [](PoolConfig& c) { c.kv_heads = KvHeads(4), c.layers = 1; },
      [](PoolConfig& c) { c.k = KeyDim(4), c.v = ValueDim(8); },
      [](PoolConfig& c) { c.dtype = DType::bf16, c.k = KeyDim(16); },
      [](PoolConfig& c) { c.layout = StateLayout::vk; },
      [](PoolConfig& c) { c.planes = {41}; },
      [](PoolConfig& c) { c.planes = {}; },
      [](PoolConfig& c) {
        c.planes = {40, 1};
      },
  };
  for (const auto change : changes) {
    PoolConfig config = small();
    change(config);
    const auto other = make(config);
    refused(restore_snapshot(*other, bytes), Status::foreign, "the snapshot is of 2 layers of Hkv2 K8 V4 f32");
    CHECK(other->statistics().sequences == 0);
  }
}

TEST_CASE("snapshot: files that are missing, cut short, altered, no files, or others' to write") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  Folder folder;
  const auto path = folder / "s";
  REQUIRE(write_snapshot(*pool, a, path).has_value());
  const auto good = read_bytes(path);
  refused(read_snapshot(*pool, folder / "none"), Status::not_found, "none");
  refused(read_snapshot(*pool, folder.path()), Status::bad_snapshot, "not a regular file");
  write_bytes(folder / "cut", std::span(good).first(good.size() - 1));
  refused(read_snapshot(*pool, folder / "cut"), Status::bad_snapshot, "cut: the snapshot has");
  write_bytes(folder / "empty", {});
  refused(read_snapshot(*pool, folder / "empty"), Status::bad_snapshot, "no snapshot");
  auto altered = good;
  altered[good.size() / 2] ^= std::byte{1};
  write_bytes(folder / "altered", altered);
  refused(read_snapshot(*pool, folder / "altered"), Status::bad_snapshot, "do not match their checksum");
  fs::permissions(path, fs::perms::others_write, fs::perm_options::add);
  refused(read_snapshot(*pool, path), Status::untrusted, "can be written by others");
  refused(write_snapshot(*pool, a, folder / "none/s"), Status::io_error, "cannot make");
  CHECK(pool->statistics().sequences == 1);
}

TEST_CASE("snapshot: a sequence may go on while it is saved") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  const auto pinned = *pool->pin(a);
  step(*pool, *batch, {{a, Tokens(1)}}, 2);
  CHECK(*pool->slot(a) != pinned.slot);
  CHECK(static_cast<int>(*pool->at(0, pinned.slot)) == 1);
  CHECK(pool->statistics().used == 2);
  pool->unpin(pinned);
  CHECK(pool->statistics().used == 1);
}

// ---- through the C ABI ---------------------------------------------------------------------------------------------

TEST_CASE("C ABI: a batch's plan must match its pool, and its arguments bring no states") {
  Server server(8);
  const api::Sequence a = server.pool->acquire();
  std::mt19937 random(1);
  Step step(1, random);
  const api::Workspace workspace(4096);
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
  const api::Workspace workspace(4096);
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
    const api::Workspace workspace(4096);
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
  const api::Workspace workspace(4096);
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
  no(glaive_pool_plane(pool, 2, &base, &bytes), "plane is 2; the pool has 2");
  no(glaive_pool_plane(pool, -1, &base, &bytes), "plane is -1");
  no(glaive_batch_begin(nullptr, nullptr, 0, 0), "batch is NULL");
  api::Batch batch = server.batch(1);
  no(glaive_batch_begin(batch.get(), nullptr, 1, 0), "entries is NULL");
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

#ifdef GLAIVE_NOT_SANITIZED
TEST_CASE("C ABI: begin, launch, commit, fork, reorder and release allocate nothing") {
  Server server(8);
  const api::Sequence a = server.pool->acquire(), b = server.pool->acquire();
  api::Batch batch = server.batch(4);
  const glaive_entry entries[] = {{a.id(), 2}, {b.id(), 1}};
  std::mt19937 random(1);
  Step step(3, random);
  const api::Args args = step.args();
  const api::Workspace workspace(4096);
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
