#pragma once
#include <span>
#include <string>

#include "autotune/bench.hpp"
#include "autotune/replay.hpp"
#include "autotune/story.hpp"
#include "autotune/tune.hpp"

namespace glaive {

/// One row per case with a winner: time with its interval, GFLOP/s, share of the FMA peak, speed-ups; then one line per
/// case without.
std::string tune_table(std::span<const TuneOutcome> outcomes);
std::string bench_table(std::span<const BenchRecord> records);

/// One row per case of the journal: what was tried, how well the prior ranked it, what was dropped and why.
/// What each bucket of shapes chose, and how the best of every other family stands to it; empty without winners.
std::string choice_table(std::span<const Story> stories);
std::string story_table(std::span<const Story> stories);

/// Per recorded table a row on the prior, then one per strategy: evaluations until arrival, regret after the budget.
std::string replay_table(std::span<const ReplayResult> results, const ReplayOptions& options);

}  // namespace glaive
