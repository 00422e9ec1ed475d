#include "autotune/winners.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <ctime>
#include <memory>
#include <set>

#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/compiled.hpp"
#include "autotune/shipped.hpp"
#include "runtime/nvml.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::string pack, device = "gpu", out = "-", compile, threads = "0";
};

/// The tables that are part of this program, each as a pack in `folder`; packs of others go.
int compile(const std::filesystem::path& folder, int threads) {
  const auto tables = shipped_winners();
  if (not tables) return report(tables.error());
  if (const auto addable = check_addable(folder / "any.pack"); not addable) return report(addable.error());
  const auto compiler = CudaCompiler::open();
  if (not compiler) return report(compiler.error());
  const CompiledWinners have(folder);
  std::set<std::filesystem::path> packs;
  for (const auto& table : *tables) {
    const auto entries = compile_winners(table, **compiler, threads, have);
    if (not entries) return report(entries.error());
    const auto file = folder / (table.name + ".pack"), fresh = folder / fmt::format("{}.{}.new", table.name, getpid());
    const auto added = add_to_pack(fresh, *entries);
    std::error_code error, ignored;
    if (added) std::filesystem::rename(fresh, file, error);
    std::filesystem::remove(fresh, ignored);
    std::filesystem::remove(fresh.string() + ".lock", ignored);
    if (not added) return report(added.error());
    if (error) return report({Status::io_error, fmt::format("{}: {}", file.string(), error.message())});
    fmt::print("{}: {}\n", file.string(), counted(entries->size(), "winner", "winners"));
    packs.insert(file);
  }
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored))
    if (file.path().extension() == ".pack" and not packs.contains(file.path()))
      std::filesystem::remove(file.path(), ignored);
  return success;
}

int run(const Options& asked) {
  const auto threads = read_threads(asked.threads);
  if (not threads) return report(threads.error());
  if (not asked.compile.empty() and (asked.device != "gpu" or asked.out != "-" or not asked.pack.empty()))
    return report_usage("--compile takes the winners that this program ships: no --device, --pack or --out");
  if (not asked.compile.empty()) return compile(asked.compile, *threads);
  const auto device = read_device(asked.device);
  if (not device) return report(device.error());
  if (device->info.target.kind != Target::Kind::cuda) return report_usage("winners are shipped for GPUs: --device gpu");
  const auto file = read_pack(asked.pack);
  if (not file) return report(file.error());
  const auto pack = open_pack(*file);
  if (not pack) return report(pack.error());
  auto table = winners_in(*pack, device->info);
  if (not table) return report(table.error());
  if (table->winners.empty())
    return report({Status::not_found, fmt::format("{}: nothing was tuned on {}", file->string(), device->info.name)});
  const auto nvml = Nvml::open();
  table->driver = nvml ? (*nvml)->driver_version() : "";
  table->date = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
  return write_file(asked.out, to_string(*table));
}

}  // namespace

void add_winners(CLI::App& program, int& exit) {
  Command command(program, exit, "winners",
                  "Write a GPU's tuned winners as a table to be shipped, or compile those that are shipped");
  auto options = std::make_shared<Options>();
  command.option("--out", options->out, "file for the table; - prints it (default)");
  command.option("--pack", options->pack, "pack to take winners from (default: winners.pack in the cache folder)");
  command.option("--device", options->device, "gpu or gpu:N (default: gpu)");
  command.option(
      "--compile", options->compile,
      "instead compile the winners that this program ships, into packs in this folder; needs NVRTC, but no GPU",
      {.type = "FOLDER"});
  command.option("--threads", options->threads, "threads that compile (default: all CPUs)", {.type = "INT"});
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
