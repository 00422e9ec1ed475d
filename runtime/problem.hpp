#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "runtime/extents.hpp"
#include "runtime/status.hpp"

namespace glaive {

enum class Op : std::uint8_t { forward, step };
enum class DType : std::uint8_t { f32, bf16, f16 };
enum class GateForm : std::uint8_t { log, logit };  ///< natural-log gate g <= 0, or the raw logit x
enum class StateLayout : std::uint8_t { kv, vk };   ///< [K,V] or [V,K] in memory, last axis contiguous

std::string_view to_string(Op op);
std::string_view to_string(DType dtype);
std::string_view to_string(GateForm form);
std::string_view to_string(StateLayout layout);
std::int64_t size_of(DType dtype);  ///< bytes of one element

/// What is computed, per head and token t:
///   S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = scale * S_t^T q_t      (Yang et al. 2024, Gated Linear
///   Attention)
/// with q [B,T,H,K], k and g [B,T,Hkv,K], v [B,T,Hkv,V], o [B,T,H,V], S [B,Hkv,K,V] in fp32 arithmetic.
/// Whether a sequence starts from a stored state, and whether its last state is stored, is decided per call at run time
/// (a null state, or slot -1), so it is no part of the problem.
struct Problem {
  Op op = Op::forward;
  Heads heads;
  KvHeads kv_heads;
  KeyDim k;
  ValueDim v;
  DType io = DType::f32;     ///< q, k, v, o
  DType gate = DType::f32;   ///< g
  DType state = DType::f32;  ///< S in memory
  GateForm gate_form = GateForm::log;
  StateLayout layout = StateLayout::kv;

  friend bool operator==(const Problem&, const Problem&) = default;
};

inline constexpr std::int64_t most_heads = 65536, most_channels = 512;
inline constexpr std::int64_t most_call_sequences = std::int64_t{1} << 24;
inline constexpr std::int64_t most_call_tokens = 0x7fffffff;  ///< of all sequences of a call
inline constexpr std::int64_t most_step_tokens = 8;           ///< of each sequence of a step

/// The extents of one call: how many sequences, and how many tokens each has. Uniform shapes are the usual [B,T];
/// ragged ones lay their sequences one after the other on the token axis.
class Shape {
 public:
  Shape() = default;
  static Shape uniform(Sequences sequences, Tokens each);
  static Shape ragged(std::vector<Tokens> lengths);

  bool is_uniform() const { return lengths_.empty(); }
  Sequences sequences() const { return sequences_; }
  Tokens length(std::int64_t sequence) const;
  Tokens longest() const { return longest_; }
  Tokens total() const { return total_; }

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  Sequences sequences_;
  Tokens longest_, total_;
  std::vector<Tokens> lengths_;  // empty when uniform
};

/// One line of a problem set: `Problem @ Shape`.
struct Case {
  Problem problem;
  Shape shape;
  friend bool operator==(const Case&, const Case&) = default;
};

/// Checks the contract: positive extents, H a multiple of Hkv, K and V from 1 to 512.
Result<void> validate(const Problem& problem);
/// Checks B >= 1, T >= 0 and that totals stay within 2^31-1 tokens.
Result<void> validate(const Shape& shape);

/// The numbers of a call for a Plan.
Extents extents_of(const Problem& problem, const Shape& shape, std::int64_t workers);
Extents extents_of(const Problem& problem, Sequences sequences, Tokens total, Tokens longest, std::int64_t workers);

/// Canonical one-line text, e.g. `forward H16 Hkv4 K128 V128 bf16 gate=f32 logit vk @ B8 T2048`; words at their default
/// are left out except the io dtype. parse_case(to_string(c)) == c for every valid c.
///   op:     forward | step
///   extents: H16 [Hkv4] K128 V128      (Hkv defaults to H)
///   dtypes: f32 | bf16 | f16 (io), [gate=DTYPE] (defaults to io), [state=DTYPE] (defaults to f32)
///   flags:  [logit] [vk]
///   shape:  @ B8 T2048   or   @ lens=300,0,17
std::string to_string(const Problem& problem);
std::string to_string(const Shape& shape);
std::string to_string(const Case& line);

/// Where a text went wrong: a column (from 0) and length to point at, and one sentence.
struct ParseError {
  std::size_t column = 0;
  std::size_t length = 1;
  std::string message;

  /// The line with a caret line under the offending word, then the sentence.
  std::string pointing_at(std::string_view line) const;
};

/// Words may come in any order on their side of the `@`. `default_io` fills in an absent io dtype.
std::expected<Problem, ParseError> parse_problem(std::string_view text, DType default_io = DType::f32);
std::expected<Case, ParseError> parse_case(std::string_view text, DType default_io = DType::f32);

/// A problem set: one case per line, `#` comments and blank lines ignored. Errors read `file:line:column: sentence`.
Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view file_name, DType default_io = DType::f32);

/// Floating-point operations that count as useful: 4 K V per token and kv head, whatever the algorithm (times H/Hkv for
/// the query side's half).
double useful_operations(const Problem& problem, const Shape& shape);
/// Bytes that must cross memory once: q, k, v, g, o and the initial and final state.
double minimal_bytes(const Problem& problem, const Shape& shape);

}  // namespace glaive
