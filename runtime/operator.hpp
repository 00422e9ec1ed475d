#pragma once
// From packs to plans. Internal to the runtime.
#include <array>
#include <atomic>
#include <map>
#include <span>

#include "runtime/call.hpp"

namespace glaive::c_abi {

/// Makes plans of what some packs hold for one problem. An entry is loaded once, whatever buckets it serves.
class PlanMaker {
 public:
  PlanMaker(std::shared_ptr<Device> device, std::vector<const Pack*> packs, const Problem& problem);
  /// The best entry that can be loaded. One that cannot is a miss: the next best serves, and the description says so.
  Result<std::unique_ptr<glaive_plan>> make(Bucket bucket);

 private:
  using Loaded = Result<std::shared_ptr<const Kernel>>;
  struct Group {
    std::string device, target;
    int threads = 0;
    friend auto operator<=>(const Group&, const Group&) = default;
  };
  const Loaded& load(const Candidate& candidate);
  /// Regret a step away from their buckets, of winners that could stand in for each other.
  std::optional<double> regret_per_step(const WinnerKey& of);

  std::shared_ptr<Device> device_;
  std::vector<const Pack*> packs_;
  Problem problem_;
  Candidates candidates_;
  std::map<std::pair<std::size_t, std::size_t>, Loaded> loaded_;
  std::map<std::pair<std::size_t, std::size_t>, Measured> measured_;
  std::map<Group, std::optional<double>> regrets_;
};

}  // namespace glaive::c_abi

/// A problem on a device. The problem is bound, so what is left of a dispatch key is the bucket, an index.
struct glaive_operator {
  glaive::Problem problem;
  std::vector<std::unique_ptr<glaive_plan>> plans;
  std::array<const glaive_plan*, glaive::bucket_count> by_bucket = {};
  mutable std::atomic<std::uint64_t> untuned = 0;

  /// Enough for every call of at most these sequences, tokens, and tokens of one sequence.
  std::int64_t workspace_bytes(const glaive::c_abi::CallShape& largest) const;
  static glaive::Result<std::unique_ptr<glaive_operator>> create(glaive::c_abi::PlanMaker maker,
                                                                 const glaive::Problem& problem);
};
