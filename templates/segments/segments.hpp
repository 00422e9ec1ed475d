#pragma once
#include "templates/family.hpp"

namespace glaive {

/// Forward for few heads and long sequences, on GPUs: a sequence is cut into segments that are computed side by side.
/// One stage sums up what each segment alone leaves in the state, from its end back until the decay has died; the next
/// is `stream` on each segment, from a state that follows from the summaries before it. GLA's transition is diagonal,
/// so that nothing is approximated: S = Diag(decay of the segment) S_before + summary. See summary.cuh and Seeds in
/// task.cuh.
const Family& segments_family();

/// The same with `stream_wgmma`.
const Family& segments_wgmma_family();

}  // namespace glaive
