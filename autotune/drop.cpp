#include "autotune/drop.hpp"

namespace glaive {

std::string_view to_string(Drop drop) {
  switch (drop) {
    case Drop::none:
      return "none";
    case Drop::constraint:
      return "constraint";
    case Drop::compile_error:
      return "compile_error";
    case Drop::resources:
      return "resources";
    case Drop::load_error:
      return "load_error";
    case Drop::nan_output:
      return "nan_output";
    case Drop::out_of_bounds:
      return "out_of_bounds";
    case Drop::wrong_result:
      return "wrong_result";
    case Drop::nondeterministic:
      return "nondeterministic";
    case Drop::slower:
      return "slower";
    case Drop::crash:
      return "crash";
    case Drop::hang:
      return "hang";
    case Drop::memory:
      return "memory";
    case Drop::device_error:
      return "device_error";
  }
  return "unknown";
}

}  // namespace glaive
