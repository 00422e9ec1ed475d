#pragma once
#include <optional>
#include <vector>

#include "autotune/evaluator.hpp"
#include "autotune/gpu/call.hpp"
#include "autotune/gpu/timer.hpp"
#include "autotune/trials.hpp"

namespace glaive {

/// Verifies and times built kernels on one GPU: an Evaluator without its compiler. `pulse` tells whose code runs.
/// After a device_error the GPU is lost to this process.
class GpuRunner {
 public:
  /// The GPU is opened when it is first used.
  GpuRunner(const cuda::Driver& driver, int ordinal, Pulse& pulse);
  ~GpuRunner();

  /// Lets go of the tensors of another case.
  Result<void> check_memory(const Case& what);
  /// With full scrutiny also against the float64 recurrence of a few heads of `what` itself.
  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates);
  Result<Verdict> verify(std::span<Trial> trials, const Built& built);
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep);
  Result<double> copy_rate();
  Result<double> peak_rate(const CodeObject& code);  ///< FLOP/s of peak_source()

 private:
  struct FullSize;
  struct TrialImage;
  class Contestant;
  struct Memory {
    double free = 0, total = 0;  // bytes
  };
  Result<void> open();
  Result<Memory> device_memory() const;
  using TrialImages = std::vector<std::unique_ptr<TrialImage>>;
  Result<Verdict> verify(std::span<Trial> trials, const Built& built, TrialImages& images);
  Result<void> make_full_size(const Case& what, Gates gates);
  /// Launches and waits; what fails is the kernel's own fault.
  Evaluated<void> run(const Kernel& kernel, const GpuCall& image);
  Result<Verdict> compare_at_full_size(const Case& what, const Kernel& kernel, Gates gates);
  void forget();

  const cuda::Driver& driver_;
  int ordinal_;
  Pulse& pulse_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<GpuTimer> timer_;
  Trials trials_;
  TrialImages trial_images_[2];        // of trials_, by scrutiny
  std::optional<Case> trials_imaged_;  // whose they are
  std::shared_ptr<FullSize> full_size_;
};

}  // namespace glaive
