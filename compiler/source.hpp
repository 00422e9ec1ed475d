#pragma once
#include <functional>
#include <string>
#include <variant>
#include <vector>

namespace mlir {
class OpBuilder;
class ModuleOp;
}  // namespace mlir

namespace glaive {

/// For a CPU: a recipe that fills an empty module. The builder's insertion point is the
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

/// For a GPU: CUDA C++ as NVRTC takes it, whole: it includes nothing, neither of the toolkit nor of ours, and every
/// constant is named in it. The same text compiles with `nvcc -cubin`.
///
/// An entry is `extern "C" __global__ void entry(unsigned long long a0, ...)`: one 64-bit parameter for each of its
/// Stage's arguments, in that order (scalars: fp32 bits in the low half). The grid is one-dimensional.
struct CudaSource {
  std::vector<std::string> entries;  ///< kernels that the host launches
  std::string text;
};

/// What a family hands to the compiler.
using Source = std::variant<MlirSource, CudaSource>;

}  // namespace glaive
