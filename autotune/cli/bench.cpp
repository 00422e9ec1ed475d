#include "autotune/bench.hpp"

#include <fmt/format.h>

#include <fstream>
#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/report.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines, sets;
  std::string json, variant, pack;
  int threads = 0;
  bool peak = false;
};

int run(const Options& asked) {
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto cases = read_cases(asked.lines, asked.sets);
  if (not cases) return report(cases.error());
  if (cases->empty() and not asked.peak)
    return report_usage(
        "bench needs a problem line, a --set, or --peak; e.g. glaive bench 'forward H4 K128 V128 @ B1 T2048'");
  const auto cache = open_cache();
  if (not cache) return report(cache.error());
  const auto pack = read_pack(asked.pack);
  if (not pack) return report(pack.error());
  std::ofstream json;
  if (not asked.json.empty()) {
    json.open(asked.json);
    if (not json) return report({Status::io_error, fmt::format("cannot write {}", asked.json)});
  }
  auto evaluator = make_local_evaluator(*threads);
  if (not evaluator) return report(evaluator.error());
  const auto lock = DeviceLock::acquire(*cache, identity((*evaluator)->device()), [](void*) {
    fmt::print(stderr, "waiting for another glaive process that is timing on this device\n");
  });
  if (not lock) return report(lock.error());

  BenchOptions options{.threads = *threads, .pack = *pack, .variant = {}};
  if (not asked.variant.empty()) options.variant = asked.variant;
  if (asked.peak) {
    const auto rates = (*evaluator)->rates();
    fmt::print("{}: {} threads, {:.1f} GFLOP/s of f32 FMA, {:.1f} GB/s of memory copy\n", (*evaluator)->device().name,
               *threads, rates.fma / 1e9, rates.copy / 1e9);
  }
  std::vector<BenchRecord> records;
  int exit = success;
  for (const auto& what : *cases) {
    auto record = bench(**evaluator, what, options);
    if (not record) {
      fmt::print(stderr, "glaive: {}: {}\n", to_string(what), record.error().message);
      exit = record.error().status == Status::invalid_argument or record.error().status == Status::not_found ? usage
                                                                                                             : failure;
      if (exit == usage) return exit;
      continue;
    }
    records.push_back(std::move(*record));
  }
  fmt::print("{}", bench_table(records));
  if (not asked.json.empty()) {
    json << to_json(records, command_line());
    json.close();
    if (not json) return report({Status::io_error, fmt::format("cannot write {}", asked.json)});
  }
  return exit;
}

}  // namespace

void add_bench(CLI::App& program, int& exit) {
  auto* command = program.add_subcommand("bench", "Measure winners against plain C++ loops, interleaved in one run");
  auto options = std::make_shared<Options>();
  command->add_option("LINE", options->lines, "problem lines");
  command->add_option("--set", options->sets, "built-in problem set or file of problem lines");
  command->add_option("--json", options->json, "file for one record per case");
  command->add_option("--variant", options->variant,
                      "measure this variant, e.g. 'chunk(C=16)', instead of the pack's winner");
  command->add_option("--pack", options->pack, "pack to take winners from (default: winners.pack in the cache folder)");
  command->add_option("--threads", options->threads, "threads that run a kernel (default: all CPUs)");
  command->add_flag("--peak", options->peak, "also print the machine's FMA and copy rates");
  command->callback([options, &exit] { exit = run(*options); });
}

}  // namespace glaive::cli
