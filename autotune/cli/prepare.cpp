#include "autotune/prepare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines, sets;
  std::string device = "gpu", pack, threads = "0", lock = "wait";
  bool in_process = false;
};

int run(const Options& asked) {
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  const auto device = read_device(asked.device);
  if (not device) return report(device.error());
  if (device->info.target.kind != Target::Kind::cuda)
    return report_usage("winners are shipped for GPUs: --device gpu; on a CPU, `glaive tune` finds them");
  const auto patience = read_patience(asked.lock);
  if (not patience) return report(patience.error());
  auto cases = read_cases(asked.lines, asked.sets, set_io_of(*device));
  if (not cases) return report(cases.error());
  const auto tables = shipped_winners();
  if (not tables) return report(tables.error());
  const WinnersTable* const table = table_for(device->info, *tables);
  if (cases->empty() and table == nullptr)
    return report_usage(fmt::format("no winners are shipped for {}: name problem lines or a --set", device->info.name));
  if (cases->empty())
    for (const auto& winner : table->winners) cases->push_back(winner.what);
  const auto pack = read_pack(asked.pack);
  if (not pack) return report(pack.error());
  if (asked.pack.empty())
    if (const auto cache = open_cache(); not cache) return report(cache.error());
  if (const auto addable = check_addable(*pack); not addable) return report(addable.error());
  auto evaluator = make_evaluator(device->name, *threads, asked.in_process);
  if (not evaluator) return report(evaluator.error());
  const auto lock =
      DeviceLock::acquire(DeviceLock::For::work, lock_folder, identity((*evaluator)->device()), *patience);
  if (not lock) return report(lock.error());

  const CompiledWinners compiled(compiled_winners_folder());
  const auto prepared =
      prepare(**evaluator, *cases, {.threads = *threads, .pack = *pack, .table = table, .compiled = &compiled});
  if (not prepared) return report(prepared.error());
  using enum Prepared::State;
  for (const auto& one : *prepared)
    fmt::print("{}: {}{}{}\n", to_string(one.what), one.variant, one.variant.empty() ? "" : ", ", one.sentence);
  if (const auto sentence = foreign_table(table, device->info, *prepared); not sentence.empty())
    fmt::print(stderr, "{}\n", sentence);
  const auto count = [&](Prepared::State state) {
    return static_cast<std::size_t>(std::ranges::count(*prepared, state, &Prepared::state));
  };
  if (count(ready) > 0) {
    const auto is_default = [](const Prepared& one) { return one.state == ready and one.shipped == false; };
    const auto defaults = static_cast<std::size_t>(std::ranges::count_if(*prepared, is_default));
    fmt::print("{} and {} in {}\n", counted(count(ready) - defaults, "shipped winner", "shipped winners"),
               counted(defaults, "default", "defaults"), pack->string());
  }
  return count(failed) > 0 or count(ready) + count(already) == 0 ? failure : success;
}

}  // namespace

void add_prepare(CLI::App& program, int& exit) {
  Command command(program, exit, "prepare",
                  "Compile the winners that are shipped for this GPU into a pack, without a race");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines (default: all that are shipped for this GPU)");
  command.repeatable("--set", options->sets, "built-in problem set or file of problem lines");
  command.option("--device", options->device, "gpu or gpu:N (default: gpu)");
  command.option("--threads", options->threads, "threads that compile (default: all CPUs)", {.type = "INT"});
  command.option("--pack", options->pack, "file for the winners (default: winners.pack in the cache folder)");
  command.flag("--in-process", options->in_process, "compile and run kernels in this process, for debugging");
  add_lock(command, options->lock);
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
