#pragma once
// A small pool, batches on it, and what its slots hold, for tests of pools, batches and snapshots.
#include <cstring>

#include "runtime/batch.hpp"
#include "tests/runtime/support.hpp"

namespace glaive::testing {

inline PoolConfig small(std::int64_t slots = 4, std::int64_t max_sequences = 0) {
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
inline std::shared_ptr<StatePool> make(const PoolConfig& config = small()) {
  auto pool = StatePool::create(config);
  REQUIRE(pool.has_value());
  return *pool;
}
inline std::unique_ptr<Batch> make_batch(const std::shared_ptr<StatePool>& pool, std::int64_t sequences = 4,
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
inline void step(StatePool& pool, Batch& batch, const Entries& entries, int value) {
  REQUIRE(batch.begin(entries).has_value());
  REQUIRE(batch.replay().has_value());
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (std::size_t plane = 0; plane < pool.layout().planes.size() and batch.write_slots()[i] >= 0; ++plane)
      std::memset(pool.at(plane, batch.write_slots()[i]), value,
                  static_cast<std::size_t>(pool.layout().planes[plane].bytes));
  REQUIRE(batch.commit().has_value());
}
inline int value_of(StatePool& pool, Sequence sequence, std::size_t plane = 0) {
  const auto slot = pool.slot(sequence);
  REQUIRE(slot.has_value());
  return *slot < 0 ? 0 : static_cast<int>(*(pool.at(plane, *slot) + pool.layout().planes[plane].bytes - 1));
}
inline std::int64_t position(StatePool& pool, Sequence sequence) { return pool.position(sequence)->count(); }

}  // namespace glaive::testing
