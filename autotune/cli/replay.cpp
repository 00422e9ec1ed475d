#include "autotune/replay.hpp"

#include <fmt/format.h>

#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/report.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> tables, strategies;
  std::string seeds = "100", budget = "64", json;
};

int run(const Options& asked) {
  ReplayOptions options;
  const auto seeds = read_count("--seeds", asked.seeds), budget = read_count("--budget", asked.budget);
  if (not seeds) return report(seeds.error());
  if (not budget) return report(budget.error());
  options.seeds = *seeds;
  options.budget = *budget;
  for (const auto& name : asked.strategies) {
    const auto strategy = find_strategy(name);
    if (not strategy) return report(strategy.error());
    options.strategies.push_back(*strategy);
  }
  if (options.strategies.empty())
    for (const auto& strategy : strategies()) options.strategies.push_back(&strategy);

  std::vector<ReplayResult> results;
  for (const auto& file : asked.tables) {
    const auto table = read_table(file);
    if (not table) return report(table.error());
    auto result = replay(*table, options);
    if (not result) return report(result.error());
    results.push_back(std::move(*result));
  }
  if (not is_standard_output(asked.json)) fmt::print("{}", replay_table(results, options));
  return asked.json.empty() ? success : write_file(asked.json, to_json(results, options, command_line()));
}

}  // namespace

void add_replay(CLI::App& program, int& exit) {
  Command command(program, exit, "replay", "Judge prior and search strategies on recorded tables, with no device");
  auto options = std::make_shared<Options>();
  command.option("TABLE", options->tables, "files that `glaive record` wrote", {.required = true});
  command.repeatable("--strategy", options->strategies, "names, separated by commas (default: all there are)",
                     {.delimiter = ','});
  command.option("--seeds", options->seeds, "searches of each strategy (default: 100)", {.type = "INT"});
  command.option("--budget", options->budget, "evaluations that a search may spend (default: 64)", {.type = "INT"});
  command.option("--json", options->json, "file for the results; - prints them instead of the table");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
