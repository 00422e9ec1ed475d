#pragma once
#include <span>
#include <string>

#include "autotune/drop.hpp"
#include "autotune/oracle.hpp"

namespace glaive {

struct Tolerance {
  double o, state;
};
/// Relative Frobenius error allowed, by io dtype (docs/numerics.md): f32 on a CPU 5e-6.
Tolerance tolerance(const Problem& problem);

/// One input set with its expected outputs; made once, used for every variant.
struct Trial {
  Gates gates;
  std::uint64_t seed;
  Call call;
  Expected expected;
  Trial(const Case& what, Gates gates, std::uint64_t seed);
};

struct Verdict {
  Drop drop = Drop::none;
  double error_o = 0, error_state = 0;  ///< worst seen
  std::string message;                  ///< what failed, with the one-line command that reproduces it
};

/// Runs the kernel twice on every trial, outputs poisoned before each run: checks guard zones, NaN and unwritten elements,
/// bitwise equality of the two runs, and the error against the oracle. Stops at the first failure.
Verdict verify(const CpuKernel& kernel, std::span<Trial> trials, WorkerPool& pool);

/// The cases on which a variant for `what` is verified: its problem at small shapes that cover one token, a ragged last chunk,
/// several sequences and an empty sequence where allowed, so that the float64 oracle stays cheap.
std::vector<Case> verification_cases(const Case& what);

/// `glaive verify '<case>' --variant '<variant>' --gates <name> --seed <n>`
std::string reproducer(const Case& what, std::string_view variant, Gates gates, std::uint64_t seed);

}  // namespace glaive
