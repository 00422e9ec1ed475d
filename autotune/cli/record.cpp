#include <fmt/format.h>

#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/tune.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines, only;
  std::string device, out, threads = "0", lock = "wait";
  bool force = false, quiet = false;
};

int run(const Options& asked) {
  const auto cases = read_cases(asked.lines, {});
  if (not cases) return report(cases.error());
  if (cases->size() != 1) return report_usage("record takes one problem line");
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto device = read_device(asked.device);
  if (not device) return report(device.error());
  const auto patience = read_patience(asked.lock);
  if (not patience) return report(patience.error());
  const auto place = find_place(asked.out.empty() ? "/dev/stdout" : asked.out);
  if (not place) return report(place.error());
  auto space = make_space(cases->front(), device->info);
  if (not space) return report(space.error());
  if (const auto kept = keep_only(*space, asked.only); not kept) return report(kept.error());
  const auto cache = open_cache();
  if (not cache) return report(cache.error());
  auto evaluator = make_evaluator(device->name, *threads, false);
  if (not evaluator) return report(evaluator.error());
  auto journal = Journal::open(*cache / journal_name, command_line(), (*evaluator)->compiler());
  if (not journal) return report(journal.error());
  Progress progress(Progress::mode_for(stderr, asked.quiet), stderr);
  Tuner tuner(**evaluator, *journal, progress,
              {.effort = Effort::full,
               .threads = *threads,
               .pack = {},
               .patience_seconds = patience->seconds,
               .force = asked.force});
  tell_when_interrupted();
  progress.begin_case(1, 1, to_string(cases->front()));
  auto table = tuner.record(cases->front(), asked.only);
  progress.end_case(table ? counted(table->rows.size(), "variant", "variants") : "stopped");
  if (not table) return report(table.error());
  table->command = command_line();
  if (const auto written = write(*place, to_text(*table)); not written) return report(written.error());
  return success;
}

}  // namespace

void add_record(CLI::App& program, int& exit) {
  Command command(program, exit, "record", "Time every legal variant of a problem once, as a table for replay");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem line", {.required = true});
  command.option("--out", options->out, "file for the table (default: print it)");
  command.repeatable("--only", options->only, "keep a part of the space, as family.parameter=value");
  add_device(command, options->device);
  command.option("--threads", options->threads, "threads that compile, and that run a kernel (default: all CPUs)",
                 {.type = "INT"});
  command.flag("--force", options->force, "time again what the journal knows");
  add_lock(command, options->lock);
  command.flag("--quiet", options->quiet, "no progress");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
