#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "autotune/space.hpp"

namespace glaive {

/// What an evaluation told of one candidate.
struct Evaluation {
  std::size_t candidate = 0;                               ///< index into Space::candidates
  double ratio = std::numeric_limits<double>::infinity();  ///< time relative to the reference; infinite: it is out
};

/// Decides what to evaluate next. It sees a space and what was learnt so far, never a compiler or a device, so that the
/// same object tunes a kernel and replays a recorded table.
class Strategy {
 public:
  virtual ~Strategy() = default;

  /// The next generation: candidates by index, none twice and none that is in `done`. Its members are evaluated
  /// without learning from each other, in this order as far as the budget goes. Empty when all were tried.
  virtual std::vector<std::size_t> propose(const Space& space, std::span<const Evaluation> done) = 0;
};

struct StrategyOptions {
  std::uint64_t seed = 0;
  std::size_t budget = 64;  ///< evaluations that the search may spend; asked for more, it goes on
  std::size_t lanes = 1;    ///< that compile at once: a smaller generation leaves some idle and takes as long
};

/// A row of the table of strategies: a new one is a file in this folder and a line in strategy.cpp.
struct StrategyInfo {
  std::string_view name, summary;
  std::unique_ptr<Strategy> (*make)(const StrategyOptions& options);
};
std::span<const StrategyInfo> strategies();

/// Fails with invalid_argument and the names there are.
Result<const StrategyInfo*> find_strategy(std::string_view name);

std::unique_ptr<Strategy> make_default_strategy(const StrategyOptions& options);
std::unique_ptr<Strategy> make_random_strategy(const StrategyOptions& options);

}  // namespace glaive
