#pragma once
#include "templates/family.hpp"

namespace glaive {

/// Forward on Hopper (sm_90a): one CTA per sequence, kv head and tile of V, some warpgroups copy and keep the state,
/// the others make operands and scores; products by wgmma. See data.cuh.
const Family& stream_wgmma_family();

}  // namespace glaive
