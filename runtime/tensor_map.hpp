#pragma once
#include "runtime/cuda_driver.hpp"
#include "runtime/kernel.hpp"

namespace glaive::cuda {

/// The tensor maps of a stage for one call, by the driver's function. Whether they can be had: else `maps` is zeros.
bool map_tensors(const Stage& stage, const Words& words, const Extents& extents, EncodeTiled encode, EncodedMap* maps);

}  // namespace glaive::cuda
