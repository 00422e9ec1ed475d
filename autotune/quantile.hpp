#pragma once
#include <algorithm>
#include <limits>
#include <vector>

namespace glaive {

/// The value below which `share` of `values` lie, interpolated linearly between neighbours; NaN of none.
template <class Value>
double quantile(std::vector<Value> values, double share) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::sort(values);
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at), above = std::min(below + 1, values.size() - 1);
  const auto low = static_cast<double>(values[below]), high = static_cast<double>(values[above]);
  return low == high ? low : low + (at - static_cast<double>(below)) * (high - low);
}

}  // namespace glaive
