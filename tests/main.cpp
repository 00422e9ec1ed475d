// The main of all test programs: compiling Catch2 takes longer than most tests.
#define CATCH_CONFIG_RUNNER
#include <cstdio>
#include <string_view>

#include "tests/catch.hpp"
#include "tests/needs.hpp"

/// Runs the tests, or says why not. Lists them in any case.
int main(int argc, char** argv) {
  constexpr int skipped = 77;  // ctest counts such a test as skipped
  const std::string missing = glaive::testing::missing();
  bool lists = false;
  for (int i = 1; i < argc; ++i) lists = lists or std::string_view(argv[i]).starts_with("--list");
  if (missing.empty() or lists) return Catch::Session().run(argc, argv);
  std::printf("skipped: %s\n", missing.c_str());
  return skipped;
}
