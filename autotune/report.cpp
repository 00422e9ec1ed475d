#include "autotune/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "autotune/evidence.hpp"

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
      {"problem", "median ms", "+-", "GFLOP/s", "of peak", "vs default", "vs tiles", "vs rows", "winner"}};
  std::string others;
  for (const auto& outcome : outcomes) {
    const auto json = nlohmann::json::parse(outcome.evidence, nullptr, false);
    if (outcome.evidence.empty() or not json.is_object()) {
      others += fmt::format("{}: {}\n", to_string(outcome.what), outcome.sentence);
      continue;
    }
    try {
      const double median = json.at("median_ms");
      const auto& defaults = json.at("defaults");
      const auto against = [&](const nlohmann::json& entry) {
        const auto& time = entry.at("median_ms");
        return time.is_null() ? "-" : fmt::format("{:.2f}x", time.get<double>() / median);
      };
      const auto verdict = [](const nlohmann::json& entry) {  // evidence of an older glaive has none
        return entry.contains("winner") ? " " + entry.at("winner").at("verdict").get<std::string>() : std::string();
      };
      const auto shape = measured_shape(outcome.evidence, outcome.what);
      rows.push_back(
          {to_string(outcome.what) + (shape.empty() ? "" : fmt::format(" (tuned as {})", shape)),
           fmt::format("{:.3f}", median), spread(json.at("interval_ms").at(0), median, json.at("interval_ms").at(1)),
           fmt::format("{:.1f}", json.at("gflops").get<double>()),
           fmt::format("{:.0f} %", json.at("peak_share").get<double>() * 100),
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

}  // namespace glaive
