#pragma once
#include <filesystem>

#include "runtime/states.hpp"

namespace glaive {

// A snapshot is one sequence on its own: its position, and what its slot holds in every plane. Little-endian:
//   header, a page with the pool's geometry and a checksum over itself
//   payload: the slot's bytes of each plane, one plane after the other; nothing for a zero state
//   checksum over those of the payload's blocks of 256 KiB, seeded with the header's
// Planes have no padding in it, so that a snapshot fits every pool of the same geometry, whatever its size.

/// What a header says.
struct SnapshotHeader {
  std::int64_t layers = 0;
  KvHeads kv_heads;
  KeyDim k;
  ValueDim v;
  DType dtype = DType::f32;
  StateLayout layout = StateLayout::kv;
  std::vector<std::int64_t> planes;  ///< bytes of each, the states' first
  Tokens position;
  bool zero_state = false;
  std::uint64_t checksum = 0;

  std::size_t payload_bytes() const;
  std::size_t total_bytes() const;
};

/// Never reads outside `bytes`, which may go on after the header, whatever they hold.
Result<SnapshotHeader> decode_snapshot_header(std::span<const std::byte> bytes);

/// Header, payload and checksum, against each other and the size: what `restore` checks, without a pool.
Result<SnapshotHeader> check_snapshot(std::span<const std::byte> bytes);

/// Bytes that `save` needs for the sequence as it is now.
Result<std::size_t> snapshot_bytes(StatePool& pool, Sequence sequence);
/// Returns the bytes written.
Result<std::size_t> save_snapshot(StatePool& pool, Sequence sequence, std::span<std::byte> buffer);
/// A new sequence. Fails with bad_snapshot, with foreign for a pool of another geometry, with out_of_slots.
Result<Sequence> restore_snapshot(StatePool& pool, std::span<const std::byte> bytes);

/// The same to and from a file, which is replaced whole, through symbolic links, and refused when others may write to
/// it. A writer that is killed leaves its temporary file, `path` and six letters, behind.
Result<void> write_snapshot(StatePool& pool, Sequence sequence, const std::filesystem::path& path);
Result<Sequence> read_snapshot(StatePool& pool, const std::filesystem::path& path);

}  // namespace glaive
