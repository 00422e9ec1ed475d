#pragma once
#include <vector>

#include "autotune/evaluator.hpp"

namespace glaive {

/// What a variant for `what` is verified on: all gates on all verification cases, or with brief scrutiny each of them
/// once or twice. The oracles make the most of the time; the pulse beats after each.
std::vector<Trial> make_trials(const Case& what, Scrutiny scrutiny, Pulse& pulse);

}  // namespace glaive
