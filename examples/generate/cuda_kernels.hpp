#pragma once

namespace generate::cuda {

/// CUDA C++ of the kernels between matrix products: a block of `threads` threads for each row.
extern const char* const kernels_text;
constexpr unsigned kernel_threads = 256;

}  // namespace generate::cuda
