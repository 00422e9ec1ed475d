#pragma once
#include <span>
#include <string>

#include "autotune/bench.hpp"
#include "autotune/tune.hpp"

namespace glaive {

/// One row per case with a winner: time with its interval, GFLOP/s, share of the FMA peak, speed-ups; then one line per
/// case without.
std::string tune_table(std::span<const TuneOutcome> outcomes);
std::string bench_table(std::span<const BenchRecord> records);

}  // namespace glaive
