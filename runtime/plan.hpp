#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/extents.hpp"
#include "runtime/status.hpp"
#include "runtime/target.hpp"

namespace glaive {

/// A count that depends on a call's extents: multiplier * product of max(ceil(extent / divisor), least).
struct Count {
  struct Factor {
    Axis axis = Axis::sequences;
    std::int64_t divisor = 1;
    std::int64_t least = 0;
    friend bool operator==(const Factor&, const Factor&) = default;
  };
  std::int64_t multiplier = 1;
  std::vector<Factor> factors;

  std::int64_t at(const Extents& extents) const;
  friend bool operator==(const Count&, const Count&) = default;
};

/// A kernel argument, out of a closed set, so that the runtime can execute any family without knowing it.
/// Every argument is passed as one 64-bit word.
// clang-format off
enum class Arg : std::uint8_t {
  // pointers (0 = absent where the contract allows it)
  q, k, v, g, o,
  state_in,     ///< base of the states to start from; 0 = every sequence starts from zero
  state_out,    ///< base of the states to write; 0 = final states are discarded
  read_slots,   ///< int32 per sequence, -1 = zero state; 0 = sequence b reads slot b
  write_slots,  ///< int32 per sequence, -1 = discard; 0 = sequence b writes slot b
  cu_seqlens,   ///< int32 [B+1]; 0 = uniform: sequence b has tokens [b*longest, (b+1)*longest)
  device_status,  ///< uint32 into which a kernel ORs what the host cannot see (bits of DeviceFault); 0 = nobody asks
  // strides, in elements; the last axis of every tensor is contiguous
  q_token, q_head, k_token, k_head, v_token, v_head, g_token, g_head, o_token, o_head,
  state_in_slot, state_in_head, state_out_slot, state_out_head,
  // extents
  sequences, tokens, longest, heads, kv_heads,
  slots,  ///< places in each of the state buffers: a slot number outside 0..slots-1 is treated as none
  // scalars: fp32 bits in the low half of the word
  scale, gate_tau, gate_clamp,
  workspace,  ///< base of the plan's workspace
  mapped,     ///< 1 where the stage's tensor maps hold, 0 where they do not and for a stage without
};
// clang-format on
std::string_view to_string(Arg arg);

/// Bits of the device status word. What is at fault is skipped, never read or written.
enum class DeviceFault : std::uint32_t {
  slot = 1,     ///< a slot number below -1 or not below `slots`
  lengths = 2,  ///< cu_seqlens that decrease, or pass `tokens`
};
inline constexpr std::size_t arg_count = static_cast<std::size_t>(Arg::mapped) + 1;

/// A tensor as the copy engine of a GPU (TMA, sm_90 and later) is told of it: channels, heads, tokens, of which it
/// brings boxes into shared memory, token after token, with zeros for what lies past an end of the tensor. It can be
/// had where the tensor's base and strides are multiples of 16 bytes: a kernel that takes maps does without where they
/// are not.
struct TensorMap {
  Arg tensor = Arg::q;             ///< q, k, v, g or o
  std::uint8_t element_bytes = 2;  ///< 2 or 4
  bool swizzled = false;  ///< rows of 128 bytes with pieces of 16 in the order piece ^ row % 8; else as they are
  std::uint16_t tokens = 1, channels = 8;  ///< of a box, each up to 256; of one head; a row is a multiple of 16 bytes
  friend bool operator==(const TensorMap&, const TensorMap&) = default;
};
inline constexpr std::size_t most_tensor_maps = 8;  ///< of a stage

/// One launch. On a GPU: grid, block, cluster, dynamic shared memory, and behind the words the tensor maps of the
/// stage, if it has any, as one parameter of 128 bytes each. On a CPU: `tasks` calls of the entry
///   void entry(const std::uint64_t* words, std::int64_t task, void* scratch);
/// spread over the workers, where `scratch` is the calling worker's `scratch_bytes` of workspace, 64-byte aligned.
struct Stage {
  std::uint32_t code = 0;  ///< index of the code object in the pack entry
  std::string entry;
  Count tasks;                     ///< grid size along x on a GPU
  std::vector<Arg> args;           ///< words in the entry's order
  std::vector<TensorMap> maps;     ///< GPU
  std::int64_t scratch_bytes = 0;  ///< CPU: per worker
  std::uint32_t block[3] = {1, 1, 1};
  std::uint32_t cluster = 1;
  std::uint32_t shared_bytes = 0;
  bool early = false;  ///< GPU: may begin while the stage before it ends; its kernel waits for that itself
  friend bool operator==(const Stage&, const Stage&) = default;
};

/// What the runtime executes, as data.
struct Plan {
  std::string variant;  ///< printed variant, e.g. `chunk(C=16,...)`, for people and evidence
  Target target;
  std::vector<Stage> stages;
  std::vector<Count> workspace;  ///< bytes shared by all workers: sum of these; scratch comes on top
  friend bool operator==(const Plan&, const Plan&) = default;
};

inline constexpr std::int64_t workspace_alignment = 64;

/// Bytes of workspace that a call needs: the shared part rounded up to 64, then `workers` times the largest scratch
/// rounded up to 64. Worker w's scratch starts at shared_workspace_bytes + w * scratch_bytes_per_worker. Sums past
/// int64 saturate.
std::int64_t workspace_bytes(const Plan& plan, const Extents& extents);
std::int64_t shared_workspace_bytes(const Plan& plan, const Extents& extents);
std::int64_t scratch_bytes_per_worker(const Plan& plan);

/// One line per stage, for people.
std::string to_string(const Plan& plan);

/// Little-endian, versioned. `decode_plan` never reads outside `bytes`, whatever they hold, and refuses a plan whose
/// numbers are out of range (no stage, a code index past `code_objects`, non-positive divisors, an unknown argument or
/// axis, more arguments than there are words, a box that no copy engine takes).
std::vector<std::byte> encode(const Plan& plan);
Result<Plan> decode_plan(std::span<const std::byte> bytes, std::size_t code_objects);

}  // namespace glaive
