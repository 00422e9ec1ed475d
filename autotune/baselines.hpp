#pragma once
#include "autotune/inputs.hpp"

namespace glaive {

/// GLA forward in plain C++, compiled with -O3 -march=native -ffast-math; what a user would write without glaive. One
/// task is one (sequence, kv head). Both read and write a Call's tensors, under any Passing. They fail with
/// wrong_device when this processor lacks what they were compiled for (build with -DGLAIVE_NATIVE_BASELINES=OFF to
/// carry them elsewhere), and with unsupported for gate=logit, which no plain loop of ours covers.
Result<void> baseline_rows(Call& call, WorkerPool& pool);  ///< token-serial, one state row after another (as ggml does)
Result<void> baseline_tiles(Call& call,
                            WorkerPool& pool);  ///< token-serial, tiles of V held in registers over the tokens' K loop

}  // namespace glaive
