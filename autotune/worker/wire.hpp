#pragma once
// What travels between the tuner and its workers: frames of magic, length and bytes, and the messages in them.
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autotune/evaluator.hpp"
#include "runtime/bytes.hpp"

namespace glaive::wire {

/// Both ends are the same program, so that a version that differs means a mistake in how the worker was started.
inline constexpr std::uint32_t version = 1;
inline constexpr std::uint32_t magic = 0x57564c47;                       ///< "GLVW"
inline constexpr std::size_t header_bytes = 8;                           ///< magic and length
inline constexpr std::size_t most_frame_bytes = std::size_t{1} << 29;    ///< of one message
inline constexpr std::size_t most_message_bytes = std::size_t{1} << 16;  ///< of a sentence; what is longer is cut

enum class Ask : std::uint8_t { hello = 1, content_key, compile, check_memory, verify, race, rates };

struct Hello {
  std::uint32_t version = wire::version;
  std::int32_t threads = 1;
  std::uint64_t memory_bytes = 0;  ///< that the worker may take; 0 = no limit
};
struct Welcome {
  std::uint32_t version = wire::version;
  DeviceInfo device;
  std::int32_t workers = 1;
  std::string compiler;
};

/// A variant of one of `families`, for one instance.
struct VariantOf {
  Instance instance;
  Variant variant;
  Optimise optimise = Optimise::light;
};

/// A race with its own copies of what races.
struct RaceAsked {
  Case what;
  std::vector<Contender::Kind> kinds;
  std::vector<Built> kernels;  ///< of the contenders that are kernels, in order
  MeasurePolicy policy;
  std::vector<std::size_t> keep;

  std::vector<Contender> contenders() const;
};

// Each reads what the function of the same name writes; a reader of bytes that make no sense is no longer good().
void put(ByteWriter& out, const Hello& hello);
void put(ByteWriter& out, const Welcome& welcome);
void put(ByteWriter& out, const Instance& instance, const Variant& variant, Optimise optimise);
void put(ByteWriter& out, const Case& what);
void put(ByteWriter& out, Gates gates);
void put(ByteWriter& out, const CodeObject& code);
void put(ByteWriter& out, const Built& built);
void put(ByteWriter& out, const Verdict& verdict);
void put(ByteWriter& out, const Case& what, std::span<const Contender> contenders, const MeasurePolicy& policy,
         std::span<const std::size_t> keep);
void put(ByteWriter& out, std::span<const Timing> timings);
void put(ByteWriter& out, const Rates& rates);
void put(ByteWriter& out, const Failure& failure);

Hello get_hello(ByteReader& in);
Welcome get_welcome(ByteReader& in);
VariantOf get_variant(ByteReader& in, std::span<const Family* const> families);
Case get_case(ByteReader& in);
Gates get_gates(ByteReader& in);
CodeObject get_code(ByteReader& in);
Built get_built(ByteReader& in);
Verdict get_verdict(ByteReader& in);
RaceAsked get_race(ByteReader& in);
std::vector<Timing> get_timings(ByteReader& in);
Rates get_rates(ByteReader& in);
Failure get_failure(ByteReader& in);

// What a payload begins with: what is asked, or whether an answer or a Failure follows.
ByteWriter begin(Ask ask);
ByteWriter begin_answer(bool answered);
bool get_answered(ByteReader& in);

/// Header and payload.
std::vector<std::byte> frame(std::span<const std::byte> payload);
/// The length in a header; nothing when it is none, or announces more than most_frame_bytes.
std::optional<std::size_t> payload_bytes(std::span<const std::byte, header_bytes> header);

}  // namespace glaive::wire
