// The snapshot reader on any bytes: no crash, no read outside them, and a pool that is as it was.
#include "runtime/snapshot.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "tests/fuzz/pool.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace glaive;

namespace {

/// The same bytes with checksums that are right, so that what lies behind them is reached too.
std::vector<std::byte> sealed(std::span<const std::byte> given) {
  std::vector<std::byte> bytes(given.begin(), given.end());
  constexpr std::size_t checksum_size = 8, header = 4096 - checksum_size;
  if (bytes.size() < header + 2 * checksum_size) return bytes;
  const std::uint64_t sum = XXH3_64bits(bytes.data(), header);
  std::memcpy(bytes.data() + header, &sum, checksum_size);
  const std::size_t payload = header + checksum_size, end = bytes.size() - checksum_size;
  const std::uint64_t all = XXH3_64bits_withSeed(bytes.data() + payload, end - payload, sum);
  std::memcpy(bytes.data() + end, &all, checksum_size);
  return bytes;
}

void restore(StatePool& pool, std::span<const std::byte> bytes) {
  const bool good = check_snapshot(bytes).has_value();
  const auto restored = restore_snapshot(pool, bytes);
  if (restored and (not good or not pool.release(*restored))) std::abort();
  const PoolStatistics s = pool.statistics();
  if (s.used != 0 or s.sequences != 0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::shared_ptr<StatePool> pool = *StatePool::create(fuzz::pool_config());
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  restore(*pool, bytes);
  restore(*pool, sealed(bytes));
  return 0;
}
