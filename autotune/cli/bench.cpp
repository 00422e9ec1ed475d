#include "autotune/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/report.hpp"
#include "autotune/winners.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines, sets, variants;
  std::string device, gates = "weak", json, pack, seconds, threads = "0", lock = "wait";
  bool peak = false, in_process = false;
};

int run(const Options& asked) {
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto device = read_device(asked.device);
  if (not device) return report(device.error());
  const auto patience = read_patience(asked.lock);
  if (not patience) return report(patience.error());
  const auto seconds = read_seconds(asked.seconds);
  if (not seconds) return report(seconds.error());
  const auto gates = parse_gates(asked.gates);
  if (not gates) return report_usage(gates.error().message);
  const auto cases = read_cases(asked.lines, asked.sets, set_io_of(*device));
  if (not cases) return report(cases.error());
  if (cases->empty() and not asked.peak)
    return report_usage(
        "bench needs a problem line, a --set, or --peak; e.g. glaive bench 'forward H4 K128 V128 @ B1 T2048'");
  const auto pack = read_pack(asked.pack);
  if (not pack) return report(pack.error());
  if (not asked.pack.empty())
    if (const auto named = open_pack(*pack); not named) return report(named.error());
  std::optional<Place> json;
  if (not asked.json.empty()) {
    auto place = find_place(asked.json);
    if (not place) return report(place.error());
    json = std::move(*place);
  }
  auto evaluator = make_evaluator(device->name, *threads, asked.in_process);
  if (not evaluator) return report(evaluator.error());
  const auto lock =
      DeviceLock::acquire(DeviceLock::For::timing, lock_folder, identity((*evaluator)->device()), *patience);
  if (not lock) return report(lock.error());

  BenchOptions options{.threads = device->workers(*threads), .pack = *pack, .variants = asked.variants};
  if (*seconds) options.policy = {.max_samples = std::numeric_limits<int>::max(), .budget_seconds = **seconds};
  options.policy.gates = *gates;
  if (asked.peak) {
    const auto rates = (*evaluator)->rates();
    fmt::print("{}: {} threads, {:.1f} GFLOP/s of f32 FMA, {:.1f} GB/s of memory copy\n", (*evaluator)->device().name,
               *threads, rates.fma / 1e9, rates.copy / 1e9);
  }
  std::vector<BenchRecord> records;
  int exit = success;
  for (const auto& what : *cases) {
    auto measured = bench(**evaluator, what, options);
    if (not measured) {
      const auto& [status, message] = measured.error();
      fmt::print(stderr, "glaive: {}: {}\n", to_string(what), message);
      exit = status == Status::invalid_argument or status == Status::not_found ? usage : failure;
      if (exit == usage) return exit;
      continue;
    }
    for (const auto& record : *measured)
      if (not record.skipped.empty()) fmt::print(stderr, "glaive: {}: {}\n", to_string(what), record.skipped);
    std::ranges::move(*measured, std::back_inserter(records));
  }
  if (not json or not is_standard_output(asked.json)) fmt::print("{}", bench_table(records));
  if (json)
    if (const auto written = write(*json, to_json(records, command_line())); not written)
      return report(written.error());
  return exit;
}

}  // namespace

void add_bench(CLI::App& program, int& exit) {
  Command command(program, exit, "bench", "Measure winners against plain C++ loops, interleaved in one run");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines");
  command.repeatable("--set", options->sets, "built-in problem set or file of problem lines");
  command.option("--json", options->json, "file for one record per case; - prints them instead of the table");
  command.repeatable("--variant", options->variants,
                     "measure this variant, e.g. 'chunk(C=16)', instead of the pack's winner; several race each other");
  command.option("--seconds", options->seconds, "time each contender for so long (default: 60 samples, 0.5 s)",
                 {.type = "NUMBER"});
  command.option("--gates", options->gates, "gate distribution of the inputs, as verify names them (default: weak)");
  command.option("--pack", options->pack, "pack to take winners from (default: winners.pack in the cache folder)");
  add_device(command, options->device);
  command.option("--threads", options->threads, "threads that run a kernel (default: all CPUs)", {.type = "INT"});
  command.flag("--in-process", options->in_process, "compile and run kernels in this process, for debugging");
  command.flag("--peak", options->peak, "also print the machine's FMA and copy rates");
  add_lock(command, options->lock);
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
