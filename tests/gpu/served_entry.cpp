// kernel.c's kernel for the GPU of this machine, compiled by NVRTC.
#include "compiler/cuda.hpp"
#include "tests/gpu/kernel_text.hpp"
#include "tests/runtime/cuda/served.hpp"

namespace glaive::testing {

PackEntry served_entry() {
  const auto device = open_gpu(driver(), 0);
  REQUIRE(device.has_value());
  PackEntry entry = gpu_entry_without_code((*device)->info());
  const auto compiler = CudaCompiler::open();
  REQUIRE(compiler.has_value());
  const CudaSource source = {{"forward"}, kernel_text(entry.plan.stages[0].args.size())};
  auto code = (*compiler)->compile(source, {entry.plan.target, {}});
  if (not code) FAIL(code.error().message);
  entry.code = {std::move(*code)};
  return entry;
}

}  // namespace glaive::testing
