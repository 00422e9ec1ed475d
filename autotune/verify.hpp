#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "autotune/drop.hpp"
#include "autotune/oracle.hpp"

namespace glaive {

/// What a kernel may err, by dtype (docs/numerics.md).
struct Tolerance {
  struct Of {
    double tensor;   ///< relative Frobenius error
    double element;  ///< any one element, relative to the root mean square of its tensor or a fifth of itself
  };
  Of o, state;
};
/// On a CPU, and for a step on a GPU: f32 5e-6, bf16 3e-3, f16 4e-4, o by the io and states by the state dtype. A step
/// may round a 16-bit state after each token, so its tolerance grows with the root of their number. A forward on a GPU
/// has operands in 16 bits: for io in bf16 o 3e-3 and S 2e-3, in f16 5e-4 and 3e-4 (more where K V is small), in f32,
/// where they have two parts, 1e-4.
Tolerance tolerance(const Case& what, Target::Kind kind = Target::Kind::cpu);

/// One input set with its expected outputs; made once, used for every variant. The seed also picks the Passing, so that
/// (case, gates, seed) is all that a reproducer needs.
struct Trial {
  Gates gates;
  std::uint64_t seed;
  Call call;
  Expected expected;
  Trial(const Case& what, Gates gates, std::uint64_t seed);
};
Passing passing_of(std::uint64_t seed);  ///< 1 contiguous, 2 strided, 3 in_place, 4 stateless, and again

struct Verdict {
  Drop drop = Drop::none;
  double error_o = 0, error_state = 0;  ///< worst seen, relative Frobenius
  std::string message;                  ///< what failed, with the one-line command that reproduces it
};

/// Runs the kernel twice on every trial, outputs poisoned before each run, and checks in this order: guard zones,
/// inputs, padding and slots of nobody untouched; no NaN and no element left unwritten; the error against the oracle;
/// bitwise equality of the two runs. Stops at the first failure.
///
/// What it cannot see: single elements that are off by less than `element` x the RMS of their tensor, as long as all
/// of them together stay below the Frobenius tolerance; writes beyond the guard zones (512 bytes on each side); reads
/// out of bounds whose values are not used.
Verdict verify(const CpuKernel& kernel, std::span<Trial> trials, WorkerPool& pool);

/// The same for any function that does what a kernel does. `variant` is its name in reproducers.
using Runner = std::function<void(const Words&, const Extents&)>;
Verdict verify(const Runner& run, std::string_view variant, std::span<Trial> trials, int workers = 1,
               Target::Kind kind = Target::Kind::cpu);

/// `memory just outside q was written`, where a call or its workspace has lost a guard.
std::optional<std::string> overrun(const Call& call, const Guarded& workspace);

/// The cases on which a variant for `what` is verified: its problem at small shapes that cover one token, a ragged last
/// chunk, several sequences, a state carried over many chunks, and, where `what` is ragged, uneven lengths with an
/// empty sequence. Heads are reduced, their ratio H/Hkv kept: a kernel takes its numbers of heads at run time. With all
/// gates the float64 oracles of K=V=128 take about 0.1 s.
std::vector<Case> verification_cases(const Case& what);

/// `glaive verify '<case>' --variant '<variant>' --gates <name> --seed <n>`
std::string reproducer(const Case& what, std::string_view variant, Gates gates, std::uint64_t seed);

}  // namespace glaive
