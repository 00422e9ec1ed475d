#pragma once
// The arguments of a command, by CLI11, whose header takes longer to compile than any command: it is seen in
// arguments.cpp and main.cpp only.
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace glaive::cli {

/// What an option takes.
struct Takes {
  const char* type = "TEXT";  ///< as the help calls it
  bool required = false;
  char delimiter = 0;  ///< between several values in one word; 0 = none
};

/// A command of the program. What it binds must live until the program has parsed its arguments and run.
class Command {
 public:
  /// `exit` gets what the command ends with.
  Command(CLI::App& program, int& exit, const std::string& name, const std::string& meaning);

  /// Named `--name`, or `NAME` for one told by its place.
  void option(const std::string& name, std::string& value, const std::string& meaning, const Takes& takes = {});
  void option(const std::string& name, std::filesystem::path& value, const std::string& meaning,
              const Takes& takes = {});
  void option(const std::string& name, std::vector<std::string>& values, const std::string& meaning,
              const Takes& takes = {});
  /// One value each time it is given: what follows the value is no second one.
  void repeatable(const std::string& name, std::vector<std::string>& values, const std::string& meaning,
                  const Takes& takes = {});
  void flag(const std::string& name, bool& value, const std::string& meaning);
  void run(std::function<int()> what);
  /// Leaves it out of the help: nothing for people.
  void hide();

 private:
  CLI::App* app_;
  int* exit_;
};

}  // namespace glaive::cli
