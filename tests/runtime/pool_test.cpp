#include <limits>

#include "tests/runtime/states_support.hpp"
#include "tests/sanitized.hpp"

using namespace glaive;
using namespace glaive::testing;

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
      {[](auto& c) { c.layers = 0; }, "config->layers is 0"},
      {[](auto& c) { c.layers = INT64_MAX; }, "layers is"},
      {[](auto& c) { c.kv_heads = KvHeads(0); }, "config->kv_heads is 0"},
      {[](auto& c) { c.k = KeyDim(513); }, "config->key_dim is 513; it must be from 1 to 512"},
      {[](auto& c) { c.v = ValueDim(-1); }, "config->value_dim is -1"},
      {[](auto& c) { c.dtype = DType::f16; }, "not f16"},
      {[](auto& c) { c.slots = 0; }, "config->slots is 0"},
      {[](auto& c) { c.slots = INT64_MAX; }, "slots is"},
      {[](auto& c) { c.max_sequences = -1; }, "config->max_sequences is -1"},
      {[](auto& c) { c.planes = {8, 0}; }, "config->plane_bytes[1] is 0"},
      {[](auto& c) { c.planes = {INT64_MAX}; }, "config->plane_bytes[0] is"},
      {[](auto& c) { c.planes.assign(17, 1); }, "config->planes is 17"},
      {[](auto& c) { c.planes = {std::int64_t{1} << 46}; }, "2^46"},
  };
  for (const Row& row : rows) {
    PoolConfig config = small();
    row.change(config);
    refused(StatePool::create(config), Status::invalid_argument, row.part);
  }
}

#if not GLAIVE_SANITIZED
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
  refused(pool->release(a), Status::stale, "sequence is stale: it was released");
  std::vector<Sequence> later;
  for (int i = 0; i < 4; ++i) later.push_back(*pool->acquire());
  refused(pool->position(a), Status::stale, "released, or never was");
  refused(pool->fork(a), Status::stale, "parent is");
  refused(pool->release({}), Status::stale, "is 0, which is no sequence");
  refused(pool->release({later[0].id + 1000}), Status::stale, "never was");
  refused(pool->release(theirs), Status::foreign, "sequence belongs to another pool");
  refused(pool->release({~std::uint64_t{0}}), Status::foreign, "another pool");
  CHECK(pool->statistics().sequences == 4);
  CHECK(other->statistics().sequences == 1);
}

TEST_CASE("pool: no two that live at once have the same handles, however many came between") {
  const auto old = make(small(1));
  const Sequence a = *old->acquire();
  PoolConfig tiny;
  tiny.kv_heads = KvHeads(1), tiny.k = KeyDim(1), tiny.v = ValueDim(1), tiny.slots = 1;
  alignas(256) static std::byte memory[256];
  bool same = false;
  for (int i = 0; i < 1 << 16; ++i) {
    const auto pool = StatePool::create(tiny, memory);
    REQUIRE(pool.has_value());
    same = same or (*pool)->acquire()->id == a.id;
  }
  CHECK_FALSE(same);
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

TEST_CASE("pool: a rollback names the checkpoint, and shared slots are counted as they come and go") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire(), gone = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  REQUIRE(pool->release(gone).has_value());
  refused(pool->rollback(a, gone), Status::stale, "checkpoint is stale");
  refused(pool->rollback(gone, a), Status::stale, "sequence is stale");
  const auto shared = [&] { return pool->statistics().shared; };
  const Sequence b = *pool->fork(a), c = *pool->fork(a);
  CHECK(shared() == 1);
  step(*pool, *batch, {{b, Tokens(1)}}, 2);
  CHECK(shared() == 1);
  REQUIRE(pool->rollback(b, a).has_value());
  REQUIRE(pool->release(a).has_value());
  CHECK(shared() == 1);
  REQUIRE(pool->release(c).has_value());
  CHECK(shared() == 0);
  const auto pinned = *pool->pin(b);
  CHECK(shared() == 1);
  pool->unpin(pinned);
  CHECK(shared() == 0);
  CHECK(value_of(*pool, b) == 1);
}
