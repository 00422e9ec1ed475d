#pragma once
#include "autotune/inputs.hpp"

namespace glaive {

/// GLA forward in plain C++, compiled with -O3 -march=native -ffast-math; what a user would write without glaive. One task is
/// one (sequence, head); `workers` as everywhere. Both read and write a Call's tensors.
void baseline_rows(Call& call, WorkerPool& pool);   ///< token-serial, one state row after another (as ggml does)
void baseline_tiles(Call& call, WorkerPool& pool);  ///< token-serial, tiles of V held in registers over the tokens' K loop

}  // namespace glaive
