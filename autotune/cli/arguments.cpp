#include "autotune/cli/arguments.hpp"

#include <CLI/CLI.hpp>
#include <utility>

namespace glaive::cli {
namespace {

template <class T>
CLI::Option* add(CLI::App& app, const std::string& name, T& value, const std::string& meaning, const Takes& takes) {
  auto* const option = app.add_option(name, value, meaning)->type_name(takes.type)->required(takes.required);
  if (takes.delimiter != 0) option->delimiter(takes.delimiter);
  return option;
}

}  // namespace

Command::Command(CLI::App& program, int& exit, const std::string& name, const std::string& meaning)
    : app_(program.add_subcommand(name, meaning)), exit_(&exit) {}

void Command::option(const std::string& name, std::string& value, const std::string& meaning, const Takes& takes) {
  add(*app_, name, value, meaning, takes);
}
void Command::option(const std::string& name, std::filesystem::path& value, const std::string& meaning,
                     const Takes& takes) {
  add(*app_, name, value, meaning, takes);
}
void Command::option(const std::string& name, std::vector<std::string>& values, const std::string& meaning,
                     const Takes& takes) {
  add(*app_, name, values, meaning, takes);
}
void Command::repeatable(const std::string& name, std::vector<std::string>& values, const std::string& meaning,
                         const Takes& takes) {
  add(*app_, name, values, meaning + "; may be repeated", takes)->allow_extra_args(false);
}
void Command::flag(const std::string& name, bool& value, const std::string& meaning) {
  app_->add_flag(name, value, meaning);
}
void Command::run(std::function<int()> what) {
  app_->callback([what = std::move(what), exit = exit_] { *exit = what(); });
}
void Command::hide() { app_->group(""); }

}  // namespace glaive::cli
