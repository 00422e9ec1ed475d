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
  constexpr std::size_t checksum_size = 8, header = 4096 - checksum_size, block = std::size_t{1} << 18;
  if (bytes.size() < header + 2 * checksum_size) return bytes;
  const std::uint64_t seed = XXH3_64bits(bytes.data(), header);
  std::memcpy(bytes.data() + header, &seed, checksum_size);
  const auto read = decode_snapshot_header(bytes);
  if (not read or read->total_bytes() != bytes.size()) return bytes;
  std::vector<std::uint64_t> sums;
  const std::byte* at = bytes.data() + header + checksum_size;
  for (const std::int64_t plane : read->planes)
    for (std::size_t left = read->zero_state ? 0 : static_cast<std::size_t>(plane), size; left > 0; left -= size) {
      size = std::min(left, block);
      sums.push_back(XXH3_64bits_withSeed(at, size, sums.size()));
      at += size;
    }
  const std::uint64_t all = XXH3_64bits_withSeed(sums.data(), sums.size() * checksum_size, seed);
  std::memcpy(bytes.data() + bytes.size() - checksum_size, &all, checksum_size);
  return bytes;
}

void restore(StatePool& pool, std::span<const std::byte> bytes) {
  const bool good = check_snapshot(bytes).has_value();
  const auto restored = restore_snapshot(pool, bytes);
  if (restored and (not good or not pool.release(*restored))) std::abort();
  const PoolStatistics s = pool.statistics();
  if (s.used != 0 or s.sequences != 0) std::abort();
}

/// Other states in a good snapshot are restored once it is sealed: else no altered payload would pass.
void check_sealing() {
  const auto pool = *StatePool::create(fuzz::pool_config());
  const auto reserved = *pool->reserve();
  pool->settle(reserved, Tokens(3), false);
  std::vector<std::byte> bytes(*snapshot_bytes(*pool, reserved.sequence));
  if (not save_snapshot(*pool, reserved.sequence, bytes)) std::abort();
  bytes[bytes.size() / 2 + 2048] ^= std::byte{1};
  if (restore_snapshot(*pool, bytes) or not restore_snapshot(*pool, sealed(bytes))) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  check_sealing();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::shared_ptr<StatePool> pool = *StatePool::create(fuzz::pool_config());
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  restore(*pool, bytes);
  restore(*pool, sealed(bytes));
  return 0;
}
