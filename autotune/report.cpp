#include "autotune/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "autotune/evidence.hpp"
#include "autotune/quantile.hpp"

namespace glaive {
namespace {

using Row = std::vector<std::string>;

/// The first column to the left, numbers to the right, the last (a variant) to the left.
std::string align(const std::vector<Row>& rows) {
  std::vector<std::size_t> width(rows.front().size(), 0);
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i == 0) {
        line += fmt::format("{:<{}}", row[i], width[i]);
      } else if (i + 1 == row.size()) {
        line += "  " + row[i];
      } else {
        line += fmt::format("  {:>{}}", row[i], width[i]);
      }
    }
    text += line + "\n";
  }
  return text;
}

std::string spread(double low, double median, double high) {
  return fmt::format("{:.1f} %", (high - low) / 2 / median * 100);
}

}  // namespace

std::string tune_table(std::span<const TuneOutcome> outcomes) {
  std::vector<Row> rows{
      {"problem", "median ms", "+-", "GFLOP/s", "of roof", "vs default", "vs tiles", "vs rows", "winner"}};
  std::string others;
  for (const auto& outcome : outcomes) {
    const auto json = nlohmann::ordered_json::parse(outcome.evidence, nullptr, false);
    if (outcome.evidence.empty() or not json.is_object()) {
      others += fmt::format("{}: {}\n", to_string(outcome.what), outcome.sentence);
      continue;
    }
    try {
      const double median = json.at("median_ms");
      const auto& defaults = json.at("defaults");
      const auto against = [&](const nlohmann::ordered_json& entry) {
        const auto& time = entry.at("median_ms");
        return time.is_null() ? "-" : fmt::format("{:.2f}x", time.get<double>() / median);
      };
      const auto verdict = [](const nlohmann::ordered_json& entry) {  // evidence of an older glaive has none
        return entry.contains("winner") ? " " + entry.at("winner").at("verdict").get<std::string>() : std::string();
      };
      const auto share = roof_share(json);
      const auto shape = measured_shape(outcome.evidence, outcome.what);
      rows.push_back(
          {to_string(outcome.what) + (shape.empty() ? "" : fmt::format(" (tuned as {})", shape)),
           fmt::format("{:.3f}", median), spread(json.at("interval_ms").at(0), median, json.at("interval_ms").at(1)),
           fmt::format("{:.1f}", json.at("gflops").get<double>()), share ? fmt::format("{:.0f} %", *share * 100) : "-",
           defaults.empty() ? "-" : against(defaults.at(0)) + verdict(defaults.at(0)),
           against(json.at("baselines").at("tiles")), against(json.at("baselines").at("rows")), json.at("variant")});
    } catch (const nlohmann::json::exception&) {
      others += fmt::format("{}: {} (its evidence cannot be read)\n", to_string(outcome.what), outcome.sentence);
    }
  }
  return (rows.size() > 1 ? align(rows) : std::string()) + others;
}

std::string bench_table(std::span<const BenchRecord> records) {
  std::vector<Row> rows{{"problem", "median ms", "+-", "runs", "GFLOP/s", "of roof", "vs tiles", "vs rows",
                         "to fastest", "error", "from", "variant"}};
  for (const auto& record : records) {
    const double median = record.timing.median();
    const auto against = [&](const Timing& loop) {
      return loop.samples.empty() ? "-" : fmt::format("{:.2f}x", loop.median() / median);
    };
    const auto to_fastest = [](const Ratio& ratio) {
      return ratio.pairs == 0 ? "-" : fmt::format("{:.3f} {}", ratio.median, to_string(ratio.standing()));
    };
    rows.push_back({to_string(record.what), fmt::format("{:.3f}", median * 1e3),
                    spread(record.timing.low(), median, record.timing.high()),
                    fmt::format("{}", record.timing.samples.size()), fmt::format("{:.1f}", record.gflops()),
                    fmt::format("{:.0f} %", record.roof_seconds() / median * 100), against(record.tiles),
                    against(record.rows), to_fastest(record.to_fastest), fmt::format("{:.1e}", record.error),
                    record.source, record.variant});
  }
  return rows.size() > 1 ? align(rows) : std::string();
}

std::string story_table(std::span<const Story> stories) {
  std::vector<Row> rows{{"problem", "policy", "tried", "timed", "screened ms", "rank corr.", "regret top 1", "top 8",
                         "dropped", "winner"}};
  for (const auto& story : stories) {
    const auto* fastest = story.fastest();
    const auto prior = story.prior();
    std::string drops;
    for (const auto& [drop, count] : story.drops())
      drops += fmt::format("{}{} {}", drops.empty() ? "" : ", ", to_string(drop), count);
    const auto timed = std::ranges::count_if(story.entries, &Story::Entry::timed);
    const auto if_timed = [&](std::string text) { return timed > 0 ? text : "-"; };
    rows.push_back({story.line, story.key.policy, fmt::format("{}", story.entries.size()), fmt::format("{}", timed),
                    fastest == nullptr ? "-" : fmt::format("{:.3f}", fastest->median * 1e3),
                    if_timed(fmt::format("{:.2f}", prior.rank_correlation)),
                    if_timed(fmt::format("{:.1f} %", prior.regret_1 * 100)),
                    if_timed(fmt::format("{:.1f} %", prior.regret_8 * 100)), drops.empty() ? "-" : drops,
                    story.winner.empty() ? "-" : story.winner});
  }
  return align(rows);
}

std::string choice_table(std::span<const Story> stories) {
  std::vector<Row> rows{{"bucket", "problem", "policy", "other families, time over the winner's", "chosen"}};
  for (const auto& story : stories)
    if (story.bucket and not story.winner.empty())
      rows.push_back({to_string(*story.bucket), story.key.problem, story.key.policy, story.why(), story.winner});
  return rows.size() > 1 ? align(rows) : std::string();
}

std::string replay_table(std::span<const ReplayResult> results, const ReplayOptions& options) {
  std::vector<Row> spaces{{"problem", "legal", "correct", "within 2 %", "optimum ms", "default", "rank corr.",
                           "regret top 1", "top 8", "prior"}};
  std::vector<Row> searches{
      {"problem", "quartile", "median", "quartile", "worst", fmt::format("regret at {}", options.budget), "strategy"}};
  for (const auto& result : results) {
    spaces.push_back(
        {to_string(result.what), fmt::format("{}", result.legal), fmt::format("{}", result.correct),
         fmt::format("{} = {:.1f} %", result.close,
                     100.0 * static_cast<double>(result.close) / static_cast<double>(result.legal)),
         fmt::format("{:.4f}", result.optimum * 1e3),
         fmt::format("+{:.1f} %", (result.default_seconds / result.optimum - 1) * 100),
         fmt::format("{:.2f}", result.prior.rank_correlation), fmt::format("{:.1f} %", result.prior.regret_1 * 100),
         fmt::format("{:.1f} %", result.prior.regret_8 * 100), result.fresh_prior ? "of this build" : "as recorded"});
    for (const auto& score : result.scores) {
      const auto at = [&](double share) { return fmt::format("{:.0f}", quantile(score.evaluations, share)); };
      searches.push_back({to_string(result.what), at(0.25), at(0.5), at(0.75), at(1),
                          fmt::format("{:.1f} %", quantile(score.regrets, 0.5) * 100), score.strategy});
    }
  }
  return align(spaces) +
         fmt::format("\nevaluations until within {:.0f} % of the optimum, {} seeds\n", close_enough * 100,
                     options.seeds) +
         align(searches);
}

}  // namespace glaive
