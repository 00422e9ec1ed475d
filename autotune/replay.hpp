#pragma once
#include <span>
#include <string>
#include <vector>

#include "autotune/strategy/strategy.hpp"
#include "autotune/table.hpp"

namespace glaive {

/// How well an order guessed beforehand agrees with the times.
struct PriorQuality {
  double rank_correlation = 0;        ///< Spearman's, of the variants with a time; ties share their mean rank
  double regret_1 = 0, regret_8 = 0;  ///< of the fastest among its first 1 and 8: time / optimum - 1
};
/// `seconds` of the same variants; infinite where one is out.
PriorQuality judge_prior(std::span<const double> prior, std::span<const double> seconds);

struct ReplayOptions {
  std::vector<const StrategyInfo*> strategies;
  std::uint64_t seeds = 100;  ///< of strategy and noise: 1, 2, .. seeds
  std::size_t budget = 64;    ///< told to the strategies; regret is that of the best among so many
};

inline constexpr double close_enough = 0.02;  ///< a search has arrived this near the optimum, relative

struct StrategyScore {
  std::string strategy;
  std::vector<std::size_t> evaluations;  ///< until arrival, by seed
  std::vector<double> regrets;           ///< after the budget, by seed
};

struct ReplayResult {
  Case what;
  std::string device, part;
  std::size_t legal = 0, correct = 0;
  std::size_t close = 0;       ///< variants within close_enough of the optimum
  double optimum = 0;          ///< seconds
  double default_seconds = 0;  ///< of the fastest default
  PriorQuality prior;
  bool fresh_prior = false;  ///< of this build, else as recorded
  std::vector<StrategyScore> scores;

  /// Evaluations that drawing at random takes in the mean, without a simulation: (legal + 1) / (close + 1).
  double expected_at_random() const { return static_cast<double>(legal + 1) / static_cast<double>(close + 1); }
};

/// Runs every strategy over the table, once per seed. An evaluation answers with the recorded median, scattered as its
/// interval says; arrival is judged by the median itself. Fails with `failed` when a strategy proposes a candidate
/// twice, or stops before all were tried.
Result<ReplayResult> replay(const Table& table, const ReplayOptions& options);

/// `{"command", "commit", "seeds", "budget", "tables": [..]}`
std::string to_json(std::span<const ReplayResult> results, const ReplayOptions& options, const std::string& command);

}  // namespace glaive
