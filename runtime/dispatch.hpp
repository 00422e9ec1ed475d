#pragma once
#include <vector>

#include "runtime/pack.hpp"

namespace glaive {

/// How well a pack's entry fits a call.
enum class Match : std::uint8_t {
  exact,         ///< tuned on this device, with this many threads, for this bucket of shapes
  nearest,       ///< tuned on this device, but for another bucket or another number of threads
  other_device,  ///< tuned elsewhere; its code runs here
};
std::string_view to_string(Match match);

struct Candidate {
  std::size_t index = 0;  ///< into the pack
  Match match = Match::exact;
};

/// The entries that can serve a problem on a device, the best first: by match, then the device's own target, the number
/// of threads, the distance of the buckets, and age (the newest). Empty when the pack has no kernel for the problem
/// that runs here.
std::vector<Candidate> candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem,
                                  Bucket bucket);

}  // namespace glaive
