#pragma once
#include <cstdint>
#include <string_view>

namespace glaive {

/// Why a variant is out of the race. Every variant that does not win carries one; the names are stable (journal,
/// reports).
enum class Drop : std::uint8_t {
  none,
  constraint,  ///< refused before instantiation
  compile_error,
  resources,  ///< facts of the binary: stack or code too large
  load_error,
  nan_output,        ///< a NaN where the oracle has a number, or an output element never written
  out_of_bounds,     ///< a guard zone, an input, padding or a slot of nobody was written
  wrong_result,      ///< error above tolerance
  nondeterministic,  ///< two runs differ bitwise
  slower,            ///< lost the race
};
std::string_view to_string(Drop drop);

}  // namespace glaive
