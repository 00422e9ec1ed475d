#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>

#include "autotune/cli/command.hpp"
#include "autotune/evidence.hpp"

namespace {

using namespace glaive::cli;

/// What is printed may wait in a buffer until the end: output that is lost must not look like success.
int with_output_written(int exit) {
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed and std::ferror(stdout) == 0 and std::cout.good()) return exit;
  fmt::print(stderr, "glaive: the output cannot be written{}{}\n", flushed ? "" : ": ",
             flushed ? "" : std::strerror(errno));
  return failure;
}

/// Names the word that nobody knows, though what it leaves missing may have failed first, and what there is instead.
std::string explain(const CLI::App& program, const CLI::Error& error) {
  const auto chosen = program.get_subcommands();
  const CLI::App& command = chosen.empty() ? program : *chosen.back();
  const auto name = chosen.empty() ? std::string("glaive") : "glaive " + command.get_name();
  std::string why = error.what();
  if (const auto unknown = command.remaining(); not unknown.empty()) {
    const auto& word = unknown.front();
    std::vector<std::string> known;
    if (word.starts_with('-')) {
      for (const auto* option : command.get_options())
        if (not option->get_positional()) known.push_back(option->get_name());
      why = fmt::format("`{}` has no option `{}`; it has {}", name, word, fmt::join(known, ", "));
    } else if (chosen.empty()) {
      for (const auto* each : program.get_subcommands([](const CLI::App*) { return true; }))
        if (not each->get_group().empty()) known.push_back(each->get_name());
      why = fmt::format("no command `{}`; there are {}", word, fmt::join(known, ", "));
    } else {
      why = fmt::format("`{}` does not know what to do with `{}`", name, word);
    }
  }
  return fmt::format("glaive: {}\nUsage: {} --help\n", why, name);
}

int run(int argc, char** argv) {
  // A file size limit is an error of the write that meets it, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  set_command_line(argc, argv);

  CLI::App program("Tunes, compiles and serves Gated Linear Attention kernels for this machine.", "glaive");
  const auto commit = glaive::glaive_commit();
  program.set_version_flag("--version",
                           fmt::format("glaive {}{}{}", glaive::glaive_version(), commit.empty() ? "" : " ", commit));
  program.require_subcommand(1);
  program.failure_message([](const CLI::App* app, const CLI::Error& error) { return explain(*app, error); });
  int exit = success;
  add_tune(program, exit);
  add_prepare(program, exit);
  add_bench(program, exit);
  add_verify(program, exit);
  add_inspect(program, exit);
  add_list(program, exit);
  add_pack(program, exit);
  add_winners(program, exit);
  add_emit(program, exit);
  add_report(program, exit);
  add_record(program, exit);
  add_replay(program, exit);
  add_doctor(program, exit);
  add_worker(program, exit);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? success : usage;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "glaive: out of memory\n");
    return failure;
  } catch (const std::exception& error) {
    fmt::print(stderr, "glaive: {}\n", error.what());
    return failure;
  }
  return exit;
}

}  // namespace

int main(int argc, char** argv) { return with_output_written(run(argc, argv)); }
