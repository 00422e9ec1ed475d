#include <limits>

#include "runtime/snapshot.hpp"
#include "tests/runtime/states_support.hpp"

using namespace glaive;
using namespace glaive::testing;

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
  no(Entries(5, {a, Tokens(1)}), Status::invalid_argument, "count is 5; it must be from 0 to 4");
  no({{a, Tokens(1)}, {b, Tokens(1)}, {a, Tokens(1)}}, Status::invalid_argument,
     "entries[2] has a sequence that stands in the batch twice");
  no({{a, Tokens(1)}, {a, Tokens(0)}}, Status::invalid_argument, "twice");
  no({{a, Tokens(1)}, {b, Tokens(-1)}}, Status::invalid_argument, "entries[1].tokens is -1");
  no({{a, Tokens(INT64_MAX)}}, Status::invalid_argument, "entries[0].tokens is 9223372036854775807");
  no({{a, Tokens(51)}}, Status::invalid_argument, "from 0 to 50");
  no({{a, Tokens(50)}, {b, Tokens(50)}, {gone, Tokens(1)}}, Status::invalid_argument,
     "the entries add 101 tokens; the batch holds 100");
  no({{a, Tokens(1)}, {gone, Tokens(1)}}, Status::stale, "entries[1] is stale: it was released");
  no({{theirs, Tokens(1)}}, Status::foreign, "entries[0] belongs to another pool");
  no({{Sequence{}, Tokens(1)}}, Status::stale, "entries[0] is 0");
  no({{a, Tokens(1)}}, Status::invalid_argument, "flags is 4", 4);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}, {b, Tokens(1)}}).has_value());
}

TEST_CASE("batch: token counts past int32, and positions past int64") {
  const auto pool = make();
  refused(Batch::create(pool, {Sequences(4), Tokens(std::int64_t{1} << 31), {}}), Status::invalid_argument,
          "config->max_tokens is 2147483648");
  refused(Batch::create(pool, {Sequences(0), Tokens(1), {}}), Status::invalid_argument, "config->max_sequences is 0");
  refused(Batch::create(pool, {Sequences((1 << 24) + 1), Tokens(1), {}}), Status::invalid_argument,
          "max_sequences is 16777217");
  refused(Batch::create(pool, {Sequences(1), Tokens(1), Tokens(2)}), Status::invalid_argument,
          "config->max_longest is 2");
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
          "the batch needs 2 fresh slots; the pool has 1 of its 3 free");
  CHECK(pool->statistics().used == 2);
  step(*pool, *batch, {{entries[0], Tokens(1)}}, 2);
  refused(batch->begin(Entries{{entries[0], Tokens(1)}}, Batch::keep), Status::out_of_slots,
          "needs 1 fresh slot; the pool has 0 of its 3 free");
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
  REQUIRE(batch->begin(entries).has_value());
  REQUIRE(batch->replay().has_value());
  refused(batch->may_launch(0), Status::out_of_order, "the batch was replayed: all of its layers are the caller's");
  REQUIRE(batch->abort().has_value());
  REQUIRE(batch->begin(Entries{}).has_value());
  REQUIRE(batch->may_launch(0).has_value());
}

TEST_CASE("batch: of no entries is one empty row") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(3)}}, 1);
  REQUIRE(batch->begin({}).has_value());
  CHECK(batch->sequences() == Sequences(1));
  CHECK(batch->tokens() == Tokens(0));
  CHECK(batch->cu_seqlens()[1] == 0);
  CHECK(batch->write_slots()[0] == -1);
  REQUIRE(batch->replay().has_value());
  REQUIRE(batch->commit().has_value());
  CHECK(position(*pool, a) == 3);
}

TEST_CASE("batch: one that keeps takes a slot for what has a state, and none for what has not") {
  const auto pool = make(small(3));
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire(), zero = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  REQUIRE(batch->begin(Entries{{a, Tokens(1)}, {zero, Tokens(1)}}, Batch::keep).has_value());
  CHECK(batch->read_slots()[0] != batch->write_slots()[0]);
  CHECK(batch->read_slots()[1] == -1);
  CHECK(pool->statistics().used == 3);
  batch->launched(0);
  REQUIRE(batch->abort().has_value());
  CHECK(value_of(*pool, a) == 1);
  CHECK(pool->statistics().used == 2);
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
