#pragma once

namespace generate::cuda {

extern const char* const kernels_text;  ///< kernels.cuh
constexpr unsigned kernel_threads = 256;

}  // namespace generate::cuda
