#pragma once
#include "runtime/cpu.hpp"

namespace glaive {

/// fp32 FMA rate of the pool's threads in FLOP/s: independent accumulators in the widest vector registers of this
/// processor (AVX-512, AVX2 with FMA, or SSE2 multiplications and additions), the best of several runs within 30 ms.
double fma_peak(WorkerPool& pool);
/// Rate at which memory larger than the caches is copied with non-temporal stores (which spare the destination's read),
/// bytes read + written per second; the best of several runs.
double copy_rate(WorkerPool& pool);

}  // namespace glaive
