#define CATCH_CONFIG_RUNNER
#include "compiler/cuda.hpp"
#include "tests/needs.hpp"

/// NVIDIA's libraries forget some of what they allocate when they refuse something.
extern "C" const char* __lsan_default_suppressions() { return "leak:libnvJitLink\nleak:libnvrtc\n"; }

int main(int argc, char** argv) {
  const auto compiler = glaive::CudaCompiler::open();
  return glaive::testing::run_or_skip(argc, argv, compiler ? "" : compiler.error().message);
}
