#pragma once
#include <cstdint>
#include <string_view>

#include "runtime/status.hpp"

namespace glaive {

/// The gate distributions that every variant must survive (U uniform on [0,1), N standard normal). `2 % of the tokens`
/// means at least one of every sequence that has any.
enum class Gates : std::uint8_t {
  weak,        ///< logsigmoid(N)/16, what GLA layers train with
  logsigmoid,  ///< logsigmoid(N)
  minus5,      ///< -5 everywhere
  uniform40,   ///< -40 U
  half200,     ///< every other channel -200, the rest weak
  resets,      ///< weak, 2 % of the tokens -1e4 in all channels
  infinite,    ///< weak, 2 % of the tokens -inf in all channels
  mixed,       ///< 64-token stretches of weak, -40 U, 0 and resets in turn
  zero,        ///< no decay at all
};
inline constexpr Gates all_gates[] = {Gates::weak,   Gates::logsigmoid, Gates::minus5, Gates::uniform40, Gates::half200,
                                      Gates::resets, Gates::infinite,   Gates::mixed,  Gates::zero};
std::string_view to_string(Gates gates);
Result<Gates> parse_gates(std::string_view name);

}  // namespace glaive
