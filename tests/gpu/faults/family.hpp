#pragma once
#include "autotune/evaluator.hpp"
#include "tests/autotune/faults_family.hpp"
#include "tests/gpu/faults/kinds.hpp"

namespace glaive::test {

/// Kernels of kernel.inc, compiled by NVRTC.
class GpuFaultFamily final : public FaultFamily {
 public:
  explicit GpuFaultFamily(std::vector<int> legal = {0}) : FaultFamily(gpu_fault_kinds, std::move(legal)) {}
  Target::Kind kind() const override { return Target::Kind::cuda; }
  Source instantiate(const Instance& instance, const Config& config) const override;
  Plan plan(const Instance& instance, const Config& config) const override;
};

/// A worker's evaluator: the GPU's, whose compiler may hand out code for another GPU, or none.
Result<std::unique_ptr<Evaluator>> make_faulty_gpu_evaluator(Pulse& pulse);

}  // namespace glaive::test
