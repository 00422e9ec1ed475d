#include "autotune/emit/emit.hpp"

#include <fmt/format.h>

#include <map>
#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/winners.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::string pack, ptx = "auto";
  EmitOptions emit;
};

int run(Options asked) {
  using Ptx = EmitOptions::Ptx;
  static const std::map<std::string, Ptx> known = {{"auto", Ptx::if_possible}, {"off", Ptx::off}, {"on", Ptx::on}};
  const auto ptx = known.find(asked.ptx);
  if (ptx == known.end()) return report_usage(fmt::format("--ptx {}: it is auto, on or off", asked.ptx));
  const auto file = read_pack(asked.pack);
  if (not file) return report(file.error());
  const auto pack = open_pack(*file);
  if (not pack) return report(pack.error());
  asked.emit.ptx = ptx->second;
  const auto emitted = emit(*pack, *file, asked.emit);
  if (not emitted) return report(emitted.error());

  fmt::print("{}: {}, {}, {} of {} bytes\n", asked.emit.out.string(), counted(emitted->problems, "problem", "problems"),
             counted(emitted->plans, "plan", "plans"), counted(emitted->codes, "code object", "code objects"),
             emitted->code_bytes);
  for (const auto& path : emitted->files) fmt::print("  {}\n", path);
  for (const auto& note : emitted->notes) fmt::print(stderr, "{}\n", note);
  return success;
}

}  // namespace

void add_emit(CLI::App& program, int& exit) {
  Command command(program, exit, "emit",
                  "Write a pack as files that an engine links: code objects, C source, a CMake package, pkg-config");
  auto options = std::make_shared<Options>();
  command.option("--pack", options->pack, "pack to emit (default: winners.pack in the cache folder)");
  command.option("--out", options->emit.out, "folder to make", {.required = true});
  command.option("--name", options->emit.name, "of the files and of what they declare, as in gla_run (default: gla)");
  command.repeatable("--targets", options->emit.targets,
                     "only code for these: targets as `glaive pack` prints them, cpu or cuda (default: all)",
                     {.delimiter = ','});
  command.repeatable("--problems", options->emit.problems,
                     "only these problems, as lines: 'forward H4 K64 V64 f32' (default: all)");
  command.option("--ptx", options->ptx,
                 "PTX for GPUs newer than the pack's: auto, where NVRTC is found (default), on or off");
  command.flag("--header-only", options->emit.header_only,
               "no C source: a header of names, geometry and argument order, for engines that launch themselves");
  command.flag("--replace", options->emit.replace, "put the files in the place of what an earlier emit wrote there");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
