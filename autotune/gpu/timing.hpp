#pragma once
#include <cstdint>
#include <string>

#include "runtime/nvml.hpp"

namespace glaive {

/// The rules by which a sampler times a kernel on a GPU, as data: they need no driver, and no GPU to be tested.

/// Bytes to write before a call so that it finds nothing of its tensors in an L2 cache of `l2_bytes`, as the driver
/// tells it: twice as many, since its lines do not leave by age alone, and it may be two halves that copy each other.
std::int64_t flush_bytes(std::int64_t l2_bytes);

/// How many calls of that length lie between two events, so that what events and a launch cost is at most 2 % of it.
/// More than one are replayed as a graph: launched one by one, short kernels would wait for the host.
int calls_per_replay(double seconds_per_call);

/// Why a sample must not count; empty when it does. `usual_mhz` is the clock that this kernel ran at so far in this
/// race: kernels differ in it, since those that draw much power run at the power cap, and so does every sample of
/// theirs.
std::string distortion(const GpuCondition& condition, std::int64_t usual_mhz);

}  // namespace glaive
