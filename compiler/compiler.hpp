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

/// What a family hands to the compiler: a recipe that fills an empty module. The builder's insertion point is the module's
/// body; the dialects arith, math, vector, scf, memref and llvm are loaded. Functions are `llvm.func` with the C signature of a
/// Stage's entry. The recipe runs on the compiling thread and must not throw.
struct MlirSource {
  std::vector<std::string> entries;  ///< exported symbols
  std::function<void(mlir::OpBuilder&, mlir::ModuleOp)> build;
};

struct CompileOptions {
  Target target;
  std::string tune_cpu;  ///< LLVM's processor name for scheduling, e.g. `znver3`; empty = the level's generic model
  enum class Effort : std::uint8_t { light, full } effort = Effort::full;  ///< short pass list, or LLVM's O3
};
std::string to_string(const CompileOptions& options);

/// LLVM's name of the processor this runs on (`znver3`).
std::string host_cpu_name();

/// Build identity of this compiler: glaive's schema and the LLVM version; part of every code key.
std::string compiler_build();

/// Text of each stage of one compilation.
struct Dump {
  std::string mlir, lowered, llvm, assembly;
};

/// Turns sources into loadable code for a CPU target. Owns an MLIR and an LLVM context: one per thread, cheap to keep,
/// 30-40 ms to make.
class MlirCompiler {
 public:
  MlirCompiler();
  MlirCompiler(const MlirCompiler&) = delete;
  ~MlirCompiler();

  /// MLIR -> LLVM -> object -> shared object (in-process lld). Errors carry the stage and its diagnostics.
  Result<CodeObject> compile(const MlirSource& source, const CompileOptions& options, Dump* dump = nullptr);

  /// 32 hex digits over the instantiated module's text, the options, compiler_build() and the schema.
  Result<std::string> content_key(const MlirSource& source, const CompileOptions& options);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glaive
