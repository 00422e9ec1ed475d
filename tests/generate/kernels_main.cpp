// Compiles the example's kernels where there is NVRTC.
#include <cstdio>
#include <string_view>
#include <utility>

#include "examples/generate/cuda_api.hpp"
#include "examples/generate/cuda_kernels.hpp"
#include "examples/generate/failure.hpp"

int main() try {
  for (const auto& [major, minor] : {std::pair{8, 0}, {9, 0}, {12, 0}})
    if (generate::cuda::compile(generate::cuda::kernels_text, major, minor).empty()) return 1;
  return 0;
} catch (const generate::Failure& failure) {
  std::printf("%s\n", failure.what());
  return std::string_view(failure.what()).find("not found") != std::string_view::npos ? 77 : 1;
}
