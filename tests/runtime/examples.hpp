#pragma once
// The examples as programs. Each compares what it computes with each sequence alone.
#include "tests/files.hpp"

namespace glaive::testing {

/// Runs them on `device` with a pack that has `problem`, a forward, and the same as a step. `environment`: assignments
/// before the command.
inline void examples_agree(std::initializer_list<const char*> names, const fs::path& pack, const std::string& problem,
                           const std::string& device, const std::string& environment = "") {
  for (const char* name : names) {
    const Output output =
        run_command(environment + " " EXAMPLES "/" + name + " " + pack.string() + " '" + problem + "' " + device);
    INFO(name << " on " << device << ": " << output.text);
    CHECK(output.exit == 0);
    CHECK(contains(output.text, ", equal\n"));
  }
}

}  // namespace glaive::testing
