#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/pack.hpp"

namespace mlir {
class OpBuilder;
class ModuleOp;
}  // namespace mlir

namespace glaive {

/// What a family hands to the compiler: a recipe that fills an empty module. The builder's insertion point is the
/// module's body. The recipe runs on the compiling thread; it must give the same module each time, for the module's
/// text is the key of the compiled code.
///
/// Functions are `llvm.func`. An entry has the signature of a Stage's entry, `void (!llvm.ptr, i64, !llvm.ptr)`; every
/// other definition becomes internal. Allowed in a body:
/// - `llvm`: load, store (state the alignment), getelementptr, alloca, intr.masked.load/store, intr.prefetch, call,
///   call_intrinsic, inline_asm and the rest of the dialect;
/// - `scf`: for (induction variable of type index or of a fixed width, iter_args), if, while, index_switch,
/// execute_region;
///   loops run while `lower < upper` as signed numbers and a step must be positive;
/// - `cf`: br, cond_br, switch;
/// - `arith` on scalars and 1-D vectors, also of type index (64 bits wide; index_cast to and from i64 is free);
/// - `vector` on 1-D fixed vectors: fma, broadcast, splat, shuffle, extract, insert, extract_strided_slice, reduction,
///   bitcast, create_mask, load, store; 2-D vectors, contract, outerproduct, transpose and transfers are lowered too,
///   by a slower path;
/// - `memref` with static strides; `math` for what the processor has as an instruction: fma, sqrt, absf, copysign,
/// floor,
///   ceil, trunc, roundeven. exp, log, tanh and the like become calls into libm, which the link step refuses: build
///   them from arith. Conversion between f32 and bf16 does not need bf16 instructions, but is slow without them: use
///   integers.
///
/// Arithmetic keeps IEEE semantics for infinities, NaN and signed zeros, and sums are never reordered, but `a * b + c`
/// written as two operations may become one fused operation. An operation's own fastmath flags are honoured.
/// Allocas belong in the function's first block, or they grow the stack at each iteration.
struct MlirSource {
  std::vector<std::string> entries;  ///< exported symbols
  std::function<void(mlir::OpBuilder&, mlir::ModuleOp)> build;
};

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
  Result<CodeObject> compile(const MlirSource& source, const CompileOptions& options, Dump* dump = nullptr);

  /// 32 hex digits over the instantiated module's text, the entries, the options and compiler_build().
  Result<std::string> content_key(const MlirSource& source, const CompileOptions& options);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glaive
