#pragma once
#include <cstdint>
#include <string_view>

namespace glaive {

/// Why a variant is out of the race. Every variant that does not win carries one; names and numbers are stable
/// (journal, reports): add at the end.
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
  crash,             ///< ended the process that compiled or ran it
  hang,              ///< did not end in its time
  memory,            ///< took more memory than a worker may
  device_error,      ///< left the device unusable to its process
};
std::string_view to_string(Drop drop);

}  // namespace glaive
