#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "autotune/measure.hpp"
#include "autotune/pulse.hpp"
#include "autotune/verify.hpp"
#include "compiler/compiler.hpp"
#include "templates/family.hpp"

namespace glaive {

/// A variant that can run: its plan and the code that the plan's stages name.
struct Built {
  Plan plan;
  CodeObject code;
};

/// What stands in a race: a built variant, or one of the plain loops.
struct Contender {
  enum class Kind : std::uint8_t { kernel, rows, tiles } kind = Kind::kernel;
  const Built* built = nullptr;  ///< of a kernel
};

/// Rates of the machine, measured in the same run as the kernels.
struct Rates {
  double fma = 0;   ///< FLOP/s
  double copy = 0;  ///< bytes/s, read + written
};

/// LLVM's O3 makes code that is 2 to 9 % faster than the short pass list and takes four times as long to make it:
/// screening compiles lightly, what can win and what is served is compiled in full.
using Optimise = CompileOptions::Effort;

/// How hard a variant is looked at: `brief` takes every gate distribution and every verification case once or twice,
/// `full` all of their combinations. Whatever is timed has passed the first, whatever can win the second.
enum class Scrutiny : std::uint8_t { brief, full };

/// Names what verify() does; verdicts of other rules are not reused.
std::string verification_rules(Scrutiny scrutiny, const Shape& shape);

/// Why there is no answer. With a `drop` it lies in the variant, or in that contender of a race, and would come again.
struct Failure : Error {
  Drop drop = Drop::none;
  std::size_t contender = 0;
  Failure(Error error, Drop drop = Drop::none, std::size_t contender = 0)  // NOLINT(google-explicit-constructor)
      : Error(std::move(error)), drop(drop), contender(contender) {}
};
template <class T>
using Evaluated = std::expected<T, Failure>;

/// Everything about a search that touches a compiler or a device. The search itself sees data only, so that this can
/// live in another process, or be invented by a test.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  virtual const DeviceInfo& device() const = 0;
  virtual int workers() const = 0;           ///< threads that run a kernel
  virtual std::string compiler() const = 0;  ///< build identity

  /// Called by several threads at once, each with a lane of its own in [0, threads).
  virtual Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                             int lane) = 0;
  virtual Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                        int lane) = 0;

  /// Fails with out_of_memory when `what` at its full size does not fit.
  virtual Result<void> check_memory(const Case& what) = 0;

  /// Correctness on verification_cases(what); with full scrutiny also against a plain loop on `what` itself. Where the
  /// loop does not cover `what`, the message of a verdict without fault says so. `gates` are those of that comparison.
  /// An error does not lie in the code and may pass: memory or descriptors run short.
  virtual Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) = 0;
  /// The same on trials of the caller's, for evaluators whose code runs in this process.
  virtual Result<Verdict> verify(std::span<Trial> trials, const Built& built);

  /// Times the contenders interleaved on `what` at its full size; `keep` as in glaive::race. A contender that crashes,
  /// hangs or writes outside its tensors ends the race with a failure that names it.
  virtual Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                              const MeasurePolicy& policy, std::span<const std::size_t> keep) = 0;
  virtual Rates rates() = 0;
};

/// `cpu`, `gpu`, or `gpu:N` as the driver counts. Fails with invalid_argument, not_found or the driver's words.
Result<DeviceInfo> find_device(const std::string& name);
/// The GPU where there is one that code can be compiled for, else the CPU.
std::string usual_device();

/// An evaluator for a device in this process, with `threads` compilers and, on a CPU, `threads` workers; `pulse` tells
/// whose code runs. Fails with `unsupported` when this build cannot compile for the device. Whatever a kernel or
/// compiler does, it does to this process: see make_worker_evaluator (autotune/worker/worker.hpp) for one that outlives
/// them.
Result<std::unique_ptr<Evaluator>> make_local_evaluator(const std::string& device, int threads, Pulse& pulse);
Result<std::unique_ptr<Evaluator>> make_local_evaluator(const std::string& device, int threads);

// By kind of device. `pulse` may be null.
Result<std::unique_ptr<Evaluator>> make_cpu_evaluator(int threads, Pulse* pulse);
Result<std::unique_ptr<Evaluator>> make_gpu_evaluator(int ordinal, Pulse* pulse);
bool have_compiler();

}  // namespace glaive
