#pragma once
#include "compiler/cuda.hpp"

namespace glaive {

/// A kernel that does nothing but bf16 mma.sync from registers, to measure how fast that can be. Its arguments are
/// `workspace`, a word to write to, and `tokens`, the rounds of a warp; a warp does `peak_flops_per_round` in each.
CudaSource peak_source();
inline constexpr int peak_threads = 256;
inline constexpr double peak_flops_per_round = 8 * 2.0 * 16 * 8 * 16;

}  // namespace glaive
