// For tests on the driver without a GPU (tests/runtime/cuda/stub.cpp), which is opened in place of the real one.
#include <cstdlib>

#include "tests/needs.hpp"

std::string glaive::testing::missing() {
  setenv("GLAIVE_LIBCUDA", LIBCUDA_STUB, 1);
  return "";
}
