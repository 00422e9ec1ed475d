#include "autotune/tune.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/report.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines, sets;
  std::string device, effort = "normal", strategy = "default", seed = "1", pack, threads = "0", lock = "wait";
  bool force = false, quiet = false, in_process = false;
};

/// The outcomes of cases that need no tuning, without waking a compiler; nothing as soon as one does need it.
Result<std::optional<std::vector<TuneOutcome>>> all_known(std::span<const Case> cases, const TuneOptions& options,
                                                          const NamedDevice& on) {
  auto pack = open_pack_if_any(options.pack);
  if (not pack) return std::unexpected(pack.error());
  if (options.force) return std::nullopt;
  const DeviceInfo& device = on.info;
  std::vector<TuneOutcome> outcomes;
  bool any = false;
  for (const auto& what : cases) {
    const auto found =
        *pack ? find_tuned(**pack, what, device, options.effort, on.workers(options.threads)) : std::nullopt;
    if (found) {
      auto entry = (*pack)->load(*found);
      if (not entry) return std::nullopt;
      outcomes.push_back(already_tuned(what, std::move(*entry)));
      any = true;
    } else if (const auto space = make_space(what, device); not space) {
      outcomes.push_back({TuneOutcome::State::unsupported, what, space.error().message, {}});
    } else {
      return std::nullopt;
    }
  }
  if (not any) return std::nullopt;
  return outcomes;
}

int finish(std::span<const TuneOutcome> outcomes, const TuneOptions& options) {
  fmt::print("{}", tune_table(outcomes));
  const auto count = [&](TuneOutcome::State state) {
    return static_cast<std::size_t>(std::ranges::count(outcomes, state, &TuneOutcome::state));
  };
  using enum TuneOutcome::State;
  if (count(already) > 0 and count(tuned) + count(failed) == 0)
    fmt::print("everything is tuned: {} in {} (--force tunes again)\n", counted(count(already), "winner", "winners"),
               options.pack.string());
  if (count(tuned) > 0)
    fmt::print("{} in {}\n", counted(count(tuned), "new winner", "new winners"), options.pack.string());
  return count(failed) > 0 or count(tuned) + count(already) == 0 ? failure : success;
}

int run(const Options& asked) {
  const auto effort = parse_effort(asked.effort);
  if (not effort) return report(effort.error());
  const auto strategy = find_strategy(asked.strategy);
  if (not strategy) return report(strategy.error());
  const auto seed = read_seed(asked.seed);
  if (not seed) return report(seed.error());
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto device = read_device(asked.device);
  if (not device) return report(device.error());
  const auto patience = read_patience(asked.lock);
  if (not patience) return report(patience.error());
  auto sets = asked.sets;
  if (asked.lines.empty() and sets.empty()) sets = {"smoke"};
  const auto cases = read_cases(asked.lines, sets, set_io_of(*device));
  if (not cases) return report(cases.error());
  const auto cache = open_cache();
  if (not cache) return report(cache.error());
  const auto pack = read_pack(asked.pack);
  if (not pack) return report(pack.error());
  const auto tables = shipped_winners();
  if (not tables) return report(tables.error());
  const TuneOptions options{.effort = *effort,
                            .threads = *threads,
                            .pack = *pack,
                            .patience_seconds = patience->seconds,
                            .force = asked.force,
                            .strategy = *strategy,
                            .seed = *seed,
                            .shipped = table_for(device->info, *tables)};

  auto known = all_known(*cases, options, *device);
  if (not known) return report(known.error());
  if (*known) return finish(**known, options);

  if (const auto addable = check_addable(*pack); not addable)
    return report(
        {addable.error().status, (asked.pack.empty() ? "" : "--pack " + asked.pack + ": ") + addable.error().message});
  auto evaluator = make_evaluator(device->name, *threads, asked.in_process);
  if (not evaluator) return report(evaluator.error());
  auto journal = Journal::open(*cache / journal_name, command_line(), (*evaluator)->compiler());
  if (not journal) return report(journal.error());
  Progress progress(Progress::mode_for(stderr, asked.quiet), stderr);
  Tuner tuner(**evaluator, *journal, progress, options);

  tell_when_interrupted();
  std::vector<TuneOutcome> outcomes;
  for (const auto& what : *cases) {
    progress.begin_case(outcomes.size() + 1, cases->size(), to_string(what));
    auto outcome = tuner.tune(what);
    if (not outcome) {
      progress.end_case("stopped");
      if (not outcomes.empty()) finish(outcomes, options);
      return report(outcome.error());
    }
    progress.end_case(outcome->sentence);
    outcomes.push_back(std::move(*outcome));
  }
  return finish(outcomes, options);
}

}  // namespace

void add_tune(CLI::App& program, int& exit) {
  Command command(program, exit, "tune", "Find the fastest correct kernels for this machine and keep them in a pack");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines, e.g. 'forward H4 K128 V128 @ B1 T2048'");
  command.repeatable("--set", options->sets, "built-in problem set or file of problem lines (default: smoke)");
  command.option(
      "--effort", options->effort,
      "quick (24 variants a case, 8 or 12 of a forward on a GPU), normal (64, the default) or full (all: hours "
      "where there are thousands)");
  command.option("--strategy", options->strategy, "what to try next: default or random");
  command.option("--seed", options->seed, "of a strategy that draws (default: 1)", {.type = "INT"});
  add_device(command, options->device);
  command.option("--threads", options->threads, "threads that compile, and that run a kernel (default: all CPUs)",
                 {.type = "INT"});
  command.option("--pack", options->pack, "file for the winners (default: winners.pack in the cache folder)");
  command.flag(
      "--force", options->force,
      "tune again what is tuned; code, verdicts and, until there is a new one, the winner are kept, times are not");
  command.flag("--in-process", options->in_process,
               "compile and run kernels in this process, for debugging: a crash or a hang ends the run");
  command.flag("--quiet", options->quiet, "no progress");
  add_lock(command, options->lock);
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
