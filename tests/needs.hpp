#pragma once
// A main for tests that need what a machine may lack. Define CATCH_CONFIG_RUNNER and include this in one file.
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/catch.hpp"

namespace glaive::testing {

inline constexpr int skipped = 77;  ///< ctest counts such a test as skipped

/// Runs the tests, or says why not where `missing` says what is lacking. Lists them in any case.
inline int run_or_skip(int argc, char** argv, const std::string& missing) {
  bool lists = false;
  for (int i = 1; i < argc; ++i) lists = lists or std::string_view(argv[i]).find("--list") == 0;
  if (missing.empty() or lists) return Catch::Session().run(argc, argv);
  std::printf("skipped: %s\n", missing.c_str());
  return skipped;
}

}  // namespace glaive::testing
