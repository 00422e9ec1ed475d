#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/cpu.hpp"
#include "runtime/problem.hpp"

namespace glaive {

/// The gate distributions that every variant must survive (U uniform on [0,1), N standard normal).
enum class Gates : std::uint8_t {
  weak,         ///< logsigmoid(N)/16, what GLA layers train with
  logsigmoid,   ///< logsigmoid(N)
  minus5,       ///< -5 everywhere
  uniform40,    ///< -40 U
  half200,      ///< every other channel -200, the rest weak
  resets,       ///< weak, 2 % of the tokens -1e4 in all channels
  infinite,     ///< weak, 2 % of the tokens -inf in all channels
  mixed,        ///< 64-token stretches of weak, -40 U, 0 and resets in turn
  zero,         ///< no decay at all
};
inline constexpr Gates all_gates[] = {Gates::weak,   Gates::logsigmoid, Gates::minus5, Gates::uniform40, Gates::half200,
                                      Gates::resets, Gates::infinite,   Gates::mixed,  Gates::zero};
std::string_view to_string(Gates gates);
Result<Gates> parse_gates(std::string_view name);

/// An f32 buffer between two guard zones, 64-byte aligned.
class Guarded {
 public:
  explicit Guarded(std::int64_t elements);
  std::span<float> data() { return {data_, static_cast<std::size_t>(elements_)}; }
  std::span<const float> data() const { return {data_, static_cast<std::size_t>(elements_)}; }
  void poison();              ///< fills the data with a signalling NaN pattern
  bool guards_intact() const;

 private:
  std::unique_ptr<float[]> storage_;
  float* data_ = nullptr;
  std::int64_t elements_ = 0;
};

/// Every tensor of one call in f32, contiguous: q [T,H,K], k,g [T,Hkv,K], v [T,Hkv,V], o [T,H,V] with the sequences one after
/// the other on T, states [B,Hkv,K,V] (or [B,Hkv,V,K]). Signed normal inputs; the same seed gives the same numbers on any
/// machine. q and k are N(0,1)/sqrt(K) scaled so that o is of order one.
struct Call {
  Case what;
  float scale = 1;
  Guarded q, k, v, g, o, state_in, state_out;

  Call(const Case& what, Gates gates, std::uint64_t seed);
  Words words() const;          ///< contiguous strides, both states present, scale = K^-0.5
  void poison_outputs();
};

}  // namespace glaive
