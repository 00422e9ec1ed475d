#pragma once
// The path of a call: a caller's shape and tensors, checked and turned into a Launch. Nothing here allocates, locks or
// enters the system, except to say what is wrong. Internal to the runtime.
#include "runtime/c_abi.hpp"

namespace glaive::c_abi {

/// The bytes of a buffer. An absent one begins past where it ends, and so overlaps nothing.
struct Span {
  std::uintptr_t begin = UINTPTR_MAX, end = 0;

  Span() = default;
  Span(const void* base, std::int64_t bytes) {
    if (base == nullptr or bytes == 0) return;
    begin = reinterpret_cast<std::uintptr_t>(base);
    end = begin + static_cast<std::uintptr_t>(bytes);
  }
  bool overlaps(const Span& other) const { return begin < other.end and other.begin < end; }
};

/// The extents of a call. `tokens` is the total; the ragged form stays the caller's array.
struct CallShape {
  std::int64_t sequences = 0, tokens = 0, longest = 0;
  const std::int32_t* cu_seqlens = nullptr;

  Extents extents(const Problem& problem, int workers) const;
};

/// Checks all but the numbers in cu_seqlens.
Result<CallShape> read_shape(const glaive_shape* given, const Problem& problem);

/// What the numbers in cu_seqlens must be to the extents of a call: these very lengths, or any within them, as for a
/// launch that is prepared for the largest of changing batches.
enum class Lengths { exact, within };
/// Checks the numbers in cu_seqlens, which the host must be able to read.
Result<void> check_lengths(const CallShape& shape, Lengths lengths);

/// Checks everything that a call of `plan` needs, and fills in `launch`, every word of it.
Result<void> read_launch(const glaive_plan& plan, const glaive_shape* shape, const glaive_args* args, void* workspace,
                         std::size_t workspace_bytes, Lengths lengths, Launch& launch);
/// The same for a shape that is known to be right, and for states that lie in `pool`, from which the workspace and o
/// stand apart.
Result<void> read_launch(const glaive_plan& plan, const CallShape& shape, const glaive_args* args, void* workspace,
                         std::size_t workspace_bytes, const Span& pool, Launch& launch);

}  // namespace glaive::c_abi
