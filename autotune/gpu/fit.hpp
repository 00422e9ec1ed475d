#pragma once
#include <span>
#include <string>

#include "compiler/cuda.hpp"
#include "runtime/plan.hpp"

namespace glaive {

/// Why kernels with these facts are not worth a launch on `gpu`; empty where nothing speaks against them: a block that
/// does not fit onto an SM, or is larger than its kernel was compiled for, or, without `may_spill`, more than 64
/// instructions that move spilled registers.
std::string unfit(const Plan& plan, std::span<const KernelFacts> kernels, const Target& gpu, bool may_spill);

}  // namespace glaive
