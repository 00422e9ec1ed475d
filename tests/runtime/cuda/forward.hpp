#pragma once
// kernel.c's kernel for the stub.
#include "tests/runtime/cuda/stub.hpp"

extern "C" void forward(const std::uint64_t* words, std::int64_t task, void* scratch);  // kernel.c

namespace glaive::testing {

/// Block by block. It takes the words of kernel_plan(); a plan that gives another number is refused.
inline StubKernel forward_kernel() {
  return {.words = 31, .body = [](const StubLaunch& launch) {
            float scratch[64];
            for (unsigned block = 0; block < launch.grid[0]; ++block) forward(launch.words.data(), block, scratch);
          }};
}

}  // namespace glaive::testing
