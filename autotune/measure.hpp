#pragma once
#include <functional>
#include <span>
#include <vector>

namespace glaive {

/// A sample of times in seconds with its median and a distribution-free 95 % confidence interval of the median
/// (binomial order statistics). Below six samples no such interval exists: low and high are then the extremes.
struct Timing {
  std::vector<double> samples;  ///< of one call, in the order taken
  bool dropped = false;         ///< lost the race before it was over

  double median() const;
  double low() const;
  double high() const;
};

struct MeasurePolicy {
  double min_sample_seconds = 2e-4;  ///< calls are batched until one sample lasts this long
  int warmup = 2;
  int min_samples = 7;
  int max_samples = 60;
  double budget_seconds = 0.5;  ///< per contender
  double hopeless = 3;          ///< from the second sample on, one this many times slower than the best is dropped
};

/// Seconds since some fixed moment.
using Clock = std::function<double()>;
double steady_seconds();

/// Times `contenders` interleaved, one sample of each in turn, so that drift of the machine hits all alike; a contender
/// whose interval lies above the best one's is dropped and no longer run (`keep` indices are never dropped). Each is
/// timed until it has max_samples, or min_samples and its budget is spent; the race also ends when one contender is
/// left of several.
std::vector<Timing> race(std::span<const std::function<void()>> contenders, const MeasurePolicy& policy,
                         std::span<const std::size_t> keep = {}, const Clock& now = steady_seconds);

}  // namespace glaive
