#include "autotune/winners.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/shipped.hpp"
#include "runtime/nvml.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::string pack, device = "gpu", out = "-";
};

int run(const Options& asked) {
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
  Command command(program, exit, "winners", "Write a GPU's tuned winners as a table to be shipped");
  auto options = std::make_shared<Options>();
  command.option("--out", options->out, "file for the table; - prints it (default)");
  command.option("--pack", options->pack, "pack to take winners from (default: winners.pack in the cache folder)");
  command.option("--device", options->device, "gpu or gpu:N (default: gpu)");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
