#pragma once
// The CPU's compiler: MLIR and LLVM. The GPU's is in cuda.hpp.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/source.hpp"
#include "runtime/pack.hpp"

namespace glaive {

struct CompileOptions {
  Target target;
  std::string tune_cpu;  ///< LLVM's processor name for scheduling, e.g. `znver3`; empty = the level's generic model
  enum class Effort : std::uint8_t { light, full } effort = Effort::full;  ///< short pass list, or LLVM's O3
};
std::string to_string(const CompileOptions& options);  ///< `cpu:x86-64-v3 tune=znver3 effort=light`

/// LLVM's name of the processor this runs on (`znver3`).
std::string host_cpu_name();

/// Build identity of this compiler: glaive's schema and the LLVM version; part of every code key.
std::string compiler_build();

/// What each stage of one compilation made, as text, and took. After an error it holds the stages that were reached.
struct Dump {
  std::string mlir;      ///< the module as the recipe left it
  std::string lowered;   ///< in the llvm dialect
  std::string llvm;      ///< LLVM IR after its optimiser
  std::string assembly;  ///< AT&T syntax
  struct Stage {
    std::string_view name;  ///< build, verify, lower, translate, optimise, codegen, link
    std::chrono::nanoseconds time;
  };
  std::vector<Stage> times;  ///< the making of these texts not counted
};

/// Turns sources into loadable code for a CPU target. Owns an MLIR context: use one compiler per thread; it is cheap to
/// keep and takes 30-40 ms to make. Threads with a compiler each run in parallel; only the link step (about 2 ms) takes
/// turns.
class MlirCompiler {
 public:
  MlirCompiler();
  MlirCompiler(const MlirCompiler&) = delete;
  ~MlirCompiler();

  /// MLIR -> LLVM -> object -> shared object (in-process lld). The shared object needs nothing but memcpy, memmove and
  /// memset from whoever loads it, and only where the recipe asks for them. Errors begin with the stage (`target:`,
  /// `recipe:`, `verify:`, `lower:`, `translate:`, `codegen:`, `link:`) and carry its diagnostics; nothing is printed.
  /// An io_error (descriptors, memory or threads run short) may pass; the others lie in the source or the options.
  ///
  /// What no process survives: a recipe that dereferences a null Value or builds an operation of a wrong kind, and
  /// LLVM's own fatal errors (an operation that instruction selection cannot do). Compile untrusted recipes in a worker
  /// process.
  Result<CodeObject> compile(const Source& source, const CompileOptions& options, Dump* dump = nullptr);

  /// 32 hex digits over the instantiated module's text, the entries, the options and compiler_build().
  Result<std::string> content_key(const Source& source, const CompileOptions& options);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glaive
