#pragma once
#include <span>
#include <vector>

#include "runtime/kernel.hpp"

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
  std::size_t pack = 0;
  bool foreign_threads = false;  ///< measured with another number of them
};

/// The number of threads that a policy says it was measured with; 0 = it fits any number.
int threads_of(std::string_view policy);

/// The entries of some packs that can serve a problem on a device, to be ranked for one bucket of shapes after another.
class Candidates {
 public:
  Candidates(std::span<const Pack* const> packs, const Device& device, const Problem& problem);
  Candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem);
  /// The best first: by match, then the device's own target, the number of threads, the distance of the buckets, the
  /// order of the packs, and age (the newest).
  std::vector<Candidate> for_bucket(Bucket bucket) const;

 private:
  struct Entry {
    std::size_t pack, index, age;
    Bucket bucket;
    bool foreign_device, foreign_target, foreign_threads;
  };
  template <class Runs>
  void add(std::size_t number, const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem,
           Runs runs);
  std::vector<Entry> entries_;
};

/// Those of one pack, on the processor of this machine, for one bucket. Empty when the pack has no kernel for the
/// problem that runs here.
std::vector<Candidate> candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem,
                                  Bucket bucket);

}  // namespace glaive
