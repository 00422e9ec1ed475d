#pragma once
#include <cstddef>
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
/// On a GPU a forward takes seconds to compile and its prior ranks well: quick tries half as many of them, and a third
/// for K above 128, whose states take long to verify besides.
std::size_t variant_budget(Effort effort, const Instance& instance);

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

/// Each rule keeps, of one family, the candidates with one value of one parameter: `chunk.unroll=2`. Fails with
/// invalid_argument and what there is when there is no such family, parameter or candidate, or with the rules that
/// exclude it.
Result<void> keep_only(Space& space, std::span<const std::string> rules);

/// The default that the prior expects to be fastest: what runs where nothing was tuned.
const RankedVariant& default_candidate(const Space& space);

}  // namespace glaive
