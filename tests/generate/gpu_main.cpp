#define CATCH_CONFIG_RUNNER
#include "compiler/cuda.hpp"
#include "runtime/cuda_driver.hpp"
#include "tests/needs.hpp"

int main(int argc, char** argv) {
  const auto driver = glaive::cuda::Driver::get();
  return glaive::testing::run_or_skip(argc, argv, driver ? "" : driver.error().message);
}
