#pragma once
// `glaive emit` as a command, and a C compiler for what it wrote.
#include "runtime/fit.hpp"
#include "tests/runtime/support.hpp"

namespace glaive::testing {

/// The command, with words as a shell reads them.
inline Output emit_command(const std::string& words) { return run_command(GLAIVE_BINARY " emit " + words); }

/// A pack of these entries, emitted into `folder`/out.
inline void emit_entries(const Folder& folder, const std::vector<PackEntry>& entries, const std::string& words = "") {
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
  const Output output =
      emit_command("--pack " + (folder / "p.pack").string() + " --out " + (folder / "out").string() + " " + words);
  INFO(output.text);
  REQUIRE(output.exit == 0);
}

inline constexpr const char* strict_c = C_COMPILER " -std=c11 -Wall -Wextra -Werror -O1 ";

/// consumer.c with what was emitted, by the C compiler alone.
inline std::string build_consumer(const Folder& folder) {
  const auto out = (folder / "out").string(), program = (folder / "consumer").string();
  const Output compiled =
      run_command(strict_c + ("-I" + out) + "/include " CONSUMER_FOLDER "/consumer.c " CONSUMER_FOLDER "/quiet.c " +
                  out + "/src/gla.c -o " + program + " -lpthread -ldl -lm");
  INFO(compiled.text);
  REQUIRE(compiled.exit == 0);
  CHECK(compiled.text.empty());
  return program;
}

inline void runs_right(const std::string& command) {
  const Output output = run_command(command);
  INFO(command << ":\n" << output.text);
  CHECK(output.exit == 0);
  CHECK(contains(output.text, "\nright\n"));
}

}  // namespace glaive::testing
