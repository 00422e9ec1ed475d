#pragma once
// How a plan fits a shape that it may not have been tuned for, and what that is expected to cost: from the evidence of
// the winners of a pack, which is all that is known.
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/pack.hpp"

namespace glaive {

/// What the evidence of a winner says that bears on shapes other than its own.
struct Measured {
  std::string variant;
  Bucket bucket;
  std::int64_t sequences = 0, tokens = 0, longest = 0;  ///< the shape it was timed with; 0 = unknown
  std::optional<double> headroom;  ///< its time above the least that the machine allows, as a share of that
  std::vector<std::pair<std::string, double>> rivals;  ///< other variants there, with their time over the winner's
};
Measured read_measured(const PackEntry& entry);

/// What a plan is expected to lose on shapes one step of a bucket away from those that it won on: the time lost, as a
/// share of the time of the plan that tuning there would have found.
///
/// From leaving out each winner in turn. Had its bucket not been tuned, the nearest other winner would have served it;
/// what that loses there is 0 where both are the same variant, and else what the left-out winner's evidence says of
/// the variant, if it was timed there at all. Each such loss, by the steps between the two buckets, is one sample; the
/// result is their mean, and nothing where there is no sample. All of `tuned` are of one problem, device, target and
/// number of threads, the newest last.
std::optional<double> regret_per_step(std::span<const Measured> tuned);

}  // namespace glaive
