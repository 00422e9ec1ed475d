#pragma once
#include <optional>
#include <vector>

#include "autotune/evaluator.hpp"
#include "autotune/pulse.hpp"
#include "autotune/trials.hpp"

namespace glaive {

/// Verifies and times built kernels on the host processor: an Evaluator without its compiler. `pulse` tells whose code
/// runs.
class CpuRunner {
 public:
  CpuRunner(int threads, Pulse& pulse) : pool_(threads), pulse_(pulse), trials_(pulse) {}
  int workers() const { return pool_.workers(); }

  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates);
  Result<Verdict> verify(std::span<Trial> trials, const Built& built);
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep);
  Rates rates();

 private:
  Result<void> compare_at_full_size(const Case& what, const CpuKernel& kernel, Gates gates, Verdict& verdict);
  Result<void> make_call(const Case& what, Gates gates);
  void forget();

  WorkerPool pool_;
  Pulse& pulse_;
  Trials trials_;
  std::optional<Call> call_;
  Gates gates_ = Gates::weak;                  // of call_
  std::vector<double> plain_o_, plain_state_;  // what the plain loop makes of call_
  Rates rates_;
};

}  // namespace glaive
