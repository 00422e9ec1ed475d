#include <fmt/format.h>

#include <map>
#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/space.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines;
  std::string device;
  bool all = false;
};

int run(const Options& asked) {
  const auto cases = read_cases(asked.lines, {});
  if (not cases) return report(cases.error());
  const auto named = read_device(asked.device);
  if (not named) return report(named.error());
  const DeviceInfo& device = named->info;
  for (const auto& what : *cases) {
    const auto space = make_space(what, device);
    if (not space) return report(space.error());
    std::map<std::string_view, std::size_t> count;
    for (const auto& candidate : space->candidates) ++count[candidate.variant.family->name()];
    fmt::print("{}: {}\n", to_string(what), counted(space->candidates.size(), "legal variant", "legal variants"));
    for (const auto& [family, variants] : count) fmt::print("  {} {}\n", family, variants);
    if (not asked.all) continue;
    for (const auto& candidate : space->candidates)
      fmt::print("  {}{} (prior {:.3f} ms)\n", candidate.name, candidate.is_default ? " default" : "",
                 candidate.prior * 1e3);
  }
  return success;
}

}  // namespace

void add_list(CLI::App& program, int& exit) {
  Command command(program, exit, "list", "Count the legal variants of a problem, by family");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines", {.required = true});
  add_device(command, options->device);
  command.flag("--all", options->all, "name them all, fastest by prior first");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
