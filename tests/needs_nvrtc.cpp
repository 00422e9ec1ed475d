#include "compiler/cuda.hpp"
#include "tests/needs.hpp"

/// NVIDIA's libraries forget some of what they allocate when they refuse something.
extern "C" const char* __lsan_default_suppressions() { return "leak:libnvJitLink\nleak:libnvrtc\n"; }

std::string glaive::testing::missing() {
  const auto compiler = CudaCompiler::open();
  return compiler ? "" : compiler.error().message;
}
