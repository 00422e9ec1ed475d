#pragma once
#include <functional>
#include <span>
#include <vector>

namespace glaive {

/// A sample of times in seconds with its median and a distribution-free 95 % confidence interval of the median
/// (binomial order statistics).
struct Timing {
  std::vector<double> samples;
  double median() const;
  double low() const;
  double high() const;
};

struct MeasurePolicy {
  double min_sample_seconds = 2e-4;  ///< calls are batched until one sample lasts this long
  int warmup = 2;
  int min_samples = 7;
  int max_samples = 60;
  double budget_seconds = 0.5;       ///< per contender
};

/// Times `contenders` interleaved, one sample of each in turn, so that drift of the machine hits all alike; a contender whose
/// interval lies above the best one's is dropped and no longer run (`keep` indices are never dropped).
std::vector<Timing> race(std::span<const std::function<void()>> contenders, const MeasurePolicy& policy,
                         std::span<const std::size_t> keep = {});

}  // namespace glaive
