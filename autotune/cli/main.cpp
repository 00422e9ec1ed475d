#include <fmt/format.h>

#include <csignal>
#include <exception>

#include "autotune/cli/command.hpp"
#include "autotune/evidence.hpp"

int main(int argc, char** argv) {
  using namespace glaive::cli;
  // A file size limit is an error of the write that meets it, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  set_command_line(argc, argv);

  CLI::App program("Tunes, compiles and serves Gated Linear Attention kernels for this machine.", "glaive");
  const auto commit = glaive::glaive_commit();
  program.set_version_flag("--version",
                           fmt::format("glaive {}{}{}", glaive::glaive_version(), commit.empty() ? "" : " ", commit));
  program.require_subcommand(1);
  program.failure_message([](const CLI::App* app, const CLI::Error& error) {
    return fmt::format("glaive: {}\nRun with --help for usage: {} --help\n", error.what(),
                       app->get_parent() == nullptr ? "glaive" : "glaive " + app->get_name());
  });
  int exit = success;
  add_tune(program, exit);
  add_bench(program, exit);
  add_verify(program, exit);
  add_inspect(program, exit);
  add_list(program, exit);
  add_pack(program, exit);
  add_doctor(program, exit);
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
