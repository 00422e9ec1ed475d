#pragma once
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "autotune/tune.hpp"

namespace glaive::test {

using Random = std::mt19937_64;

/// What became of one injected fault. Everything but `said` must stay empty or false.
struct Finding {
  std::string kind;
  std::string said{};  ///< the reason for which the variant was dropped, or how the run took it
  bool wrong_winner = false, lost_run = false, corrupt_load = false, lost_entry = false, unexpected = false;
  std::string complaint{};
};

/// Tunes one small case whose variants are `kinds` (indices of fault_kinds), all that it remembers in `cache`.
Result<TuneOutcome> tune_kinds(const std::filesystem::path& cache, const std::vector<int>& kinds);

// Each injects faults and looks at everything afterwards.
std::vector<Finding> inject_variants(const std::vector<int>& faulty, Random& random);  ///< one finding for each
Finding kill_a_worker(Random& random);
Finding kill_the_tuner(Random& random);
Finding fill_the_disk(Random& random);
Finding write_one_pack(Random& random);  ///< 32 writers, some of them killed

}  // namespace glaive::test
