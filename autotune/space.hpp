#pragma once
#include <cstddef>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "templates/family.hpp"

namespace glaive {

/// How many variants of a case are tried.
enum class Effort : std::uint8_t { quick, normal, full };
std::string_view to_string(Effort effort);
Result<Effort> parse_effort(std::string_view word);
std::size_t variant_budget(Effort effort);

struct RankedVariant {
  Variant variant;
  std::string name;  ///< to_string(variant)
  double prior = 0;  ///< estimated seconds
  bool is_default = false;
};

/// The legal variants of one case, fastest by prior first.
struct Space {
  Instance instance;
  std::vector<RankedVariant> candidates;
};

/// Variants of every family of `families` that applies to `what` on `device`. Fails with `unsupported` and each
/// family's own sentence when none applies.
Result<Space> make_space(const Case& what, const DeviceInfo& device);
Result<Space> make_space(const Case& what, const DeviceInfo& device, std::span<const Family* const> families);

/// `count` candidates to begin with: the best by prior, and every default whatever its prior. Of candidates that the
/// prior cannot tell apart, the one most like the default goes first and the others come last, so that a budget is not
/// spent on variations of one. Each family gets at least an eighth, since priors of different structures compare less
/// well than priors within one.
std::vector<RankedVariant> choose(const Space& space, std::size_t count);

/// Up to `count` candidates that are one step from `best` (best first): same family, one parameter at its next lower or
/// higher value. Names in `seen` are left out.
std::vector<RankedVariant> neighbours(const Space& space, std::span<const RankedVariant* const> best,
                                      const std::set<std::string>& seen, std::size_t count);

/// The default that the prior expects to be fastest: what runs where nothing was tuned.
const RankedVariant& default_candidate(const Space& space);

}  // namespace glaive
