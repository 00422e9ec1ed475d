#include "runtime/extents.hpp"

namespace glaive {

std::string_view to_string(Axis axis) {
  static constexpr std::string_view names[] = {"sequences", "tokens", "longest", "heads",
                                               "kv_heads",  "k",      "v",       "workers"};
  static_assert(std::size(names) == axis_count);
  const auto index = static_cast<std::size_t>(axis);
  return index < axis_count ? names[index] : "?";
}

}  // namespace glaive
