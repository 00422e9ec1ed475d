#define CATCH_CONFIG_RUNNER
#include "compiler/cuda.hpp"
#include "tests/needs.hpp"

int main(int argc, char** argv) {
  const auto compiler = glaive::CudaCompiler::open();
  return glaive::testing::run_or_skip(argc, argv, compiler ? "" : compiler.error().message);
}
