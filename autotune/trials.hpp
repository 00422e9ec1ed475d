#pragma once
#include <optional>
#include <span>
#include <vector>

#include "autotune/evaluator.hpp"

namespace glaive {

/// What the variants for a case are verified on: all gates on all verification cases, or with brief scrutiny each of
/// them once or twice. Most of the time goes into the oracles, which are computed once for all variants of a case.
class Trials {
 public:
  explicit Trials(Pulse& pulse) : pulse_(pulse) {}
  std::span<Trial> of(const Case& what, Scrutiny scrutiny);
  /// What somebody wrote into without leave is worth nothing to those who come after.
  void forget();

 private:
  Pulse& pulse_;
  std::optional<Case> what_;
  std::vector<Trial> brief_, full_;
};

}  // namespace glaive
