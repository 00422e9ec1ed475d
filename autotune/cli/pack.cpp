#include "runtime/pack.hpp"

#include <fmt/format.h>

#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/winners.hpp"

namespace glaive::cli {
namespace {

int run(const std::string& file) {
  const auto pack = open_pack(file);
  if (not pack) return report(pack.error());
  fmt::print("{}: {}\n", file, counted(pack->size(), "entry", "entries"));
  int exit = success;
  for (std::size_t i = 0; i < pack->size(); ++i) {
    const auto& key = pack->key(i);
    fmt::print("{}\n  {}\n", key.problem, to_string(key));
    const auto entry = pack->load(i);
    if (not entry) {
      exit = report(entry.error());
      continue;
    }
    std::size_t bytes = 0;
    for (const auto& code : entry->code) bytes += code.bytes.size();
    fmt::print("  winner {}\n  {} bytes of code, {} of evidence\n", entry->plan.variant, bytes, entry->evidence.size());
  }
  return exit;
}

}  // namespace

void add_pack(CLI::App& program, int& exit) {
  Command command(program, exit, "pack", "List the entries of a pack");
  auto file = std::make_shared<std::string>();
  command.option("FILE", *file, "pack", {.required = true});
  command.run([file] { return run(*file); });
}

}  // namespace glaive::cli
