#include <random>

#include "autotune/strategy/strategy.hpp"

namespace glaive {
namespace {

constexpr std::size_t generation = 16;

/// The yardstick: what the prior and the neighbours of others are worth shows beside it.
class Random final : public Strategy {
 public:
  explicit Random(const StrategyOptions& options) : random_(options.seed) {}

  std::vector<std::size_t> propose(const Space& space, std::span<const Evaluation> done) override {
    std::vector<bool> seen(space.candidates.size(), false);
    for (const auto& trial : done) seen[trial.candidate] = true;
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < seen.size(); ++i)
      if (not seen[i]) left.push_back(i);
    // A shuffle's beginning, by hand: the standard library's differs between implementations.
    const std::size_t count = std::min(generation, left.size());
    for (std::size_t i = 0; i < count; ++i) std::swap(left[i], left[i + random_() % (left.size() - i)]);
    left.resize(count);
    return left;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<Strategy> make_random_strategy(const StrategyOptions& options) {
  return std::make_unique<Random>(options);
}

}  // namespace glaive
