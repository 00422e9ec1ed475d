#include "autotune/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>
#include <random>

#include "autotune/evidence.hpp"
#include "autotune/quantile.hpp"

namespace glaive {
namespace {

constexpr double out = std::numeric_limits<double>::infinity();

/// Ranks from 1; equal values share the mean of theirs.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> rank(values.size());
  for (std::size_t begin = 0, end; begin < order.size(); begin = end) {
    for (end = begin; end < order.size() and values[order[end]] == values[order[begin]];) ++end;
    for (std::size_t i = begin; i < end; ++i) rank[order[i]] = static_cast<double>(begin + end + 1) / 2;
  }
  return rank;
}

double correlation(std::span<const double> a, std::span<const double> b) {
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::reduce(a.begin(), a.end()) / n, mean_b = std::reduce(b.begin(), b.end()) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 and bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// What a search sees: medians, each scattered within its interval. Box and Muller's by hand, since the standard
/// library's distributions differ between implementations.
class Noise {
 public:
  explicit Noise(std::uint64_t seed) : random_(seed) {}
  double observe(const Table::Row& row) {
    if (row.drop != Drop::none) return out;
    const double sigma = row.low > 0 ? std::log(row.high / row.low) / (2 * 1.96) : 0;
    const double u = uniform(), v = uniform();
    return row.median * std::exp(sigma * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
  }

 private:
  double uniform() { return (static_cast<double>(random_() >> 11) + 0.5) * 0x1p-53; }
  std::mt19937_64 random_;
};

struct Arrival {
  std::size_t evaluations = 0;
  double regret = 0;  ///< after the budget
};

Result<Arrival> search(const RecordedSpace& recorded, std::span<const double> seconds, double optimum, double reference,
                       const StrategyInfo& info, std::uint64_t seed, std::size_t budget) {
  const auto strategy = info.make({.seed = seed, .budget = budget});
  Noise noise(seed);
  std::vector<Evaluation> done;
  std::vector<bool> seen(seconds.size(), false);
  Arrival arrival;
  double best = out;
  while (done.size() < seconds.size()) {
    const auto generation = strategy->propose(recorded.space, done);
    if (generation.empty())
      return fail(Status::failed, fmt::format("strategy `{}` stopped after {} of {} candidates", info.name, done.size(),
                                              seconds.size()));
    for (const std::size_t i : generation) {
      if (i >= seen.size() or seen[i])
        return fail(Status::failed, fmt::format("strategy `{}` proposed candidate {} {}", info.name, i,
                                                i < seen.size() ? "twice" : "of no space"));
      seen[i] = true;
      done.push_back({i, noise.observe(*recorded.rows[i]) / reference});
      best = std::min(best, seconds[i]);
      if (done.size() == std::min(budget, seconds.size())) arrival.regret = best / optimum - 1;
      if (arrival.evaluations == 0 and best <= optimum * (1 + close_enough)) arrival.evaluations = done.size();
      if (arrival.evaluations != 0 and done.size() >= budget) return arrival;
    }
  }
  return arrival;
}

}  // namespace

PriorQuality judge_prior(std::span<const double> prior, std::span<const double> seconds) {
  std::vector<double> guessed, measured;
  for (std::size_t i = 0; i < prior.size(); ++i) {
    if (not std::isfinite(seconds[i])) continue;
    guessed.push_back(prior[i]);
    measured.push_back(seconds[i]);
  }
  if (measured.empty()) return {};
  std::vector<std::size_t> order(prior.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return prior[i]; });
  const double optimum = std::ranges::min(measured);
  const auto regret = [&](std::size_t count) {
    double best = out;
    for (const std::size_t i : std::span(order).first(std::min(count, order.size()))) best = std::min(best, seconds[i]);
    return best / optimum - 1;
  };
  return {correlation(ranks(guessed), ranks(measured)), regret(1), regret(8)};
}

Result<ReplayResult> replay(const Table& table, const ReplayOptions& options) {
  const auto recorded = make_recorded_space(table);
  std::vector<double> prior, seconds;
  for (std::size_t i = 0; i < recorded.rows.size(); ++i) {
    const auto& row = *recorded.rows[i];
    prior.push_back(recorded.space.candidates[i].prior);
    seconds.push_back(row.drop == Drop::none ? row.median : out);
  }
  ReplayResult result;
  result.what = table.what;
  result.device = table.device.name;
  result.part = table.part;
  result.legal = seconds.size();
  result.correct = static_cast<std::size_t>(std::ranges::count_if(seconds, [](double s) { return std::isfinite(s); }));
  result.optimum = std::ranges::min(seconds);
  result.close = static_cast<std::size_t>(
      std::ranges::count_if(seconds, [&](double s) { return s <= result.optimum * (1 + close_enough); }));
  result.default_seconds = out;
  for (std::size_t i = 0; i < seconds.size(); ++i)
    if (recorded.rows[i]->is_default) result.default_seconds = std::min(result.default_seconds, seconds[i]);
  result.prior = judge_prior(prior, seconds);
  result.fresh_prior = recorded.fresh_prior;
  const double reference = std::isfinite(result.default_seconds) ? result.default_seconds : result.optimum;
  for (const auto* strategy : options.strategies) {
    StrategyScore score{std::string(strategy->name), {}, {}};
    for (std::uint64_t seed = 1; seed <= options.seeds; ++seed) {
      const auto arrival = search(recorded, seconds, result.optimum, reference, *strategy, seed, options.budget);
      if (not arrival) return std::unexpected(arrival.error());
      score.evaluations.push_back(arrival->evaluations);
      score.regrets.push_back(arrival->regret);
    }
    result.scores.push_back(std::move(score));
  }
  return result;
}

std::string to_json(std::span<const ReplayResult> results, const ReplayOptions& options, const std::string& command) {
  using Json = nlohmann::ordered_json;
  const auto summary = [](const auto& values) {
    return Json{{"quartile_1", quantile(values, 0.25)},
                {"median", quantile(values, 0.5)},
                {"quartile_3", quantile(values, 0.75)},
                {"worst", quantile(values, 1)}};
  };
  Json tables = Json::array();
  for (const auto& result : results) {
    Json scores = Json::object();
    for (const auto& score : result.scores)
      scores[score.strategy] = {{"evaluations", summary(score.evaluations)}, {"regret", summary(score.regrets)}};
    tables.push_back({{"case", to_string(result.what)},
                      {"device", result.device},
                      {"part", result.part.empty() ? "whole" : result.part},
                      {"legal", result.legal},
                      {"correct", result.correct},
                      {"close", result.close},
                      {"close_share", static_cast<double>(result.close) / static_cast<double>(result.legal)},
                      {"optimum_us", result.optimum * 1e6},
                      {"default_us", result.default_seconds * 1e6},
                      {"prior",
                       {{"of", result.fresh_prior ? "this build" : "the recording"},
                        {"rank_correlation", result.prior.rank_correlation},
                        {"regret_top_1", result.prior.regret_1},
                        {"regret_top_8", result.prior.regret_8}}},
                      {"expected_at_random", result.expected_at_random()},
                      {"strategies", std::move(scores)}});
  }
  const Json json{{"command", command},     {"commit", glaive_commit()}, {"within", close_enough},
                  {"seeds", options.seeds}, {"budget", options.budget},  {"tables", std::move(tables)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace glaive
