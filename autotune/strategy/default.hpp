#pragma once
// The parts of the default strategy. Candidates are indices into Space::candidates, which is sorted by prior.
#include "autotune/strategy/strategy.hpp"

namespace glaive {

/// `count` candidates to begin with: the best by prior, and every default whatever its prior. Of candidates that the
/// prior cannot tell apart, the one most like the default goes first and the others come last, so that a budget is not
/// spent on variations of one. Each family gets at least an eighth, since priors of different structures compare less
/// well than priors within one.
std::vector<std::size_t> choose(const Space& space, std::size_t count);

/// Up to `count` candidates that are one step from `best` (best first) and not `seen` (by candidate): same family, one
/// parameter at its next lower or higher value.
std::vector<std::size_t> neighbours(const Space& space, std::span<const std::size_t> best,
                                    const std::vector<bool>& seen, std::size_t count);

/// The priors of all candidates, corrected by what `done` tells of each parameter: log(ratio / prior) as a sum of a
/// constant, a term for the family and one for each value of each of its parameters, by ridge regression, so that a
/// value that was hardly tried is hardly corrected. In units of Evaluation::ratio; candidates that are out do not
/// count. Without a finite evaluation, the priors as they are.
std::vector<double> corrected_priors(const Space& space, std::span<const Evaluation> done);

}  // namespace glaive
