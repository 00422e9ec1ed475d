#include "autotune/verify.hpp"

#include <fmt/format.h>

#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/memory.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines;
  std::string device, variant, gates, seed = "1", threads = "0", lock = "wait";
};

int run(const Options& asked) {
  const auto cases = read_cases(asked.lines, {});
  if (not cases) return report(cases.error());
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto patience = read_patience(asked.lock);
  if (not patience) return report(patience.error());
  const auto seed = read_seed(asked.seed);
  if (not seed) return report(seed.error());
  std::vector<Gates> gates(std::begin(all_gates), std::end(all_gates));
  if (not asked.gates.empty()) {
    const auto named = parse_gates(asked.gates);
    if (not named) return report_usage(named.error().message);
    gates = {*named};
  }
  const auto named = read_device(asked.device);
  if (not named) return report(named.error());
  const DeviceInfo& device = named->info;
  std::vector<Variant> variants;
  for (const auto& what : *cases) {
    const auto variant = parse_variant(asked.variant, {what.problem, device.target});
    if (not variant) return report_for(what.problem, variant.error());
    if (const auto fits = check_memory(what); not fits)
      return report({fits.error().status, fmt::format("`{}` {}", to_string(what), fits.error().message)});
    variants.push_back(*variant);
  }
  auto evaluator = make_local_evaluator(named->name, *threads);
  if (not evaluator) return report(evaluator.error());
  const auto lock = DeviceLock::acquire(DeviceLock::For::work, lock_folder, identity(device), *patience);
  if (not lock) return report(lock.error());

  int exit = success;
  for (std::size_t i = 0; i < cases->size(); ++i) {
    const auto& what = (*cases)[i];
    const Instance instance{what.problem, device.target};
    const auto code = (*evaluator)->compile(instance, variants[i], Optimise::full, 0);
    if (not code) return report(code.error());
    auto plan = variants[i].family->plan(instance, variants[i].config);
    plan.variant = to_string(variants[i], instance);
    plan.target = instance.target;
    const Built built{plan, *code};
    for (const auto distribution : gates) {
      Trial trial(what, distribution, *seed);
      const auto tried = (*evaluator)->verify(std::span(&trial, 1), built);
      if (not tried) return report(tried.error());
      const Verdict& verdict = *tried;
      if (verdict.drop == Drop::none) {
        fmt::print("correct: {} on `{}`, gates {}, seed {}: error of o {:.2e}, of the state {:.2e}\n", plan.variant,
                   to_string(what), to_string(distribution), *seed, verdict.error_o, verdict.error_state);
      } else {
        fmt::print("{}: {}\n", to_string(verdict.drop), verdict.message);
        exit = failure;
      }
    }
  }
  return exit;
}

}  // namespace

void add_verify(CLI::App& program, int& exit) {
  Command command(program, exit, "verify", "Check one variant against the float64 recurrence");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines", {.required = true});
  command.option("--variant", options->variant, "variant, e.g. 'chunk(C=16)'", {.required = true});
  command.option("--gates", options->gates, "gate distribution (default: all of them)");
  command.option("--seed", options->seed, "seed of the inputs (default: 1)", {.type = "UINT"});
  add_device(command, options->device);
  command.option("--threads", options->threads, "threads that run the kernel (default: all CPUs)", {.type = "INT"});
  add_lock(command, options->lock);
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
