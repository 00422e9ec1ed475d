#pragma once
#include "templates/cuda/cuda.hpp"

namespace glaive {

/// Forward on GPUs from sm_80 on: one CTA per sequence, kv head and tile of V, chunk by chunk, the state in registers
/// from the first token to the last. q, k, v, g are read once, o is written once; products by mma.sync. See stream.cuh.
const cuda::KernelFamily& stream_family();

}  // namespace glaive
