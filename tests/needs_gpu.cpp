#include "runtime/cuda_driver.hpp"
#include "tests/needs.hpp"

std::string glaive::testing::missing() {
  const auto driver = cuda::Driver::get();
  return driver ? "" : driver.error().message;
}
