#pragma once
#include "runtime/cpu.hpp"

namespace glaive {

/// fp32 FMA rate of `workers` threads in FLOP/s: independent accumulators in the widest vector registers of this processor.
double fma_peak(WorkerPool& pool);
/// Rate at which memory larger than the caches is copied, bytes read + written per second.
double copy_rate(WorkerPool& pool);

}  // namespace glaive
