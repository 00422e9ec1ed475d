#include "autotune/gpu/fit.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "templates/cuda/cuda.hpp"

namespace glaive {

std::string unfit(const Plan& plan, std::span<const KernelFacts> kernels, const Target& gpu, bool may_spill) {
  constexpr std::int64_t most_spills = 64;
  for (const Stage& stage : plan.stages) {
    const auto kernel = std::ranges::find(kernels, stage.entry, &KernelFacts::entry);
    if (kernel == kernels.end()) continue;  // PTX has no facts
    const std::int64_t threads = std::int64_t{stage.block[0]} * stage.block[1] * stage.block[2];
    const std::int64_t shared = kernel->shared_bytes + stage.shared_bytes;
    if (cuda::resident(cuda::sm_of(gpu), threads, kernel->registers, shared) < 1)
      return fmt::format(
          "{}: a block of {} threads with {} registers each and {} bytes of shared memory does not fit "
          "onto an SM",
          stage.entry, threads, kernel->registers, shared);
    if (kernel->most_threads != 0 and threads > kernel->most_threads)
      return fmt::format("{}: compiled for at most {} threads, launched with {}", stage.entry, kernel->most_threads,
                         threads);
    if (not may_spill and kernel->spills > most_spills)
      return fmt::format("{}: {} instructions move spilled registers; {} are allowed", stage.entry, kernel->spills,
                         most_spills);
  }
  return {};
}

}  // namespace glaive
