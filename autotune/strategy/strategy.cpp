#include "autotune/strategy/strategy.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace glaive {

std::span<const StrategyInfo> strategies() {
  static constexpr StrategyInfo table[] = {
      {"default", "the best by prior, then neighbours of the fastest so far", make_default_strategy},
      {"random", "uniformly at random, each candidate once", make_random_strategy},
  };
  return table;
}

Result<const StrategyInfo*> find_strategy(std::string_view name) {
  const auto all = strategies();
  const auto found = std::ranges::find(all, name, &StrategyInfo::name);
  if (found != all.end()) return &*found;
  std::string names;
  for (const auto& strategy : all) names += fmt::format("{}{}", names.empty() ? "" : ", ", strategy.name);
  return fail(Status::invalid_argument, fmt::format("unknown strategy `{}`: there are {}", name, names));
}

}  // namespace glaive
