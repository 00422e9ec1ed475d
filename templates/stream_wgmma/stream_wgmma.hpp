#pragma once
#include "templates/cuda/cuda.hpp"

namespace glaive {

/// Forward on Hopper (sm_90a): one CTA per sequence, kv head and tile of V, some warpgroups copy and keep the state,
/// the others make operands and scores; products by wgmma. See data.cuh.
const cuda::KernelFamily& stream_wgmma_family();

}  // namespace glaive
