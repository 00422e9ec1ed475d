#define CATCH_CONFIG_RUNNER
#include <cstdlib>

#include "tests/catch.hpp"

int main(int argc, char** argv) {
  setenv("GLAIVE_LIBCUDA", LIBCUDA_STUB, 1);
  return Catch::Session().run(argc, argv);
}
