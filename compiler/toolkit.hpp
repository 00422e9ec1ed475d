#pragma once
// What the two compilers of a CUDA toolkit, NVRTC and nvJitLink, share. Internal to the compiler.
#include "compiler/cuda.hpp"
#include "runtime/library.hpp"

namespace glaive::backend {

/// `variable`: of the environment, names the file itself. Otherwise `soname`.13 and .12, as the loader finds them, in
/// $CUDA_HOME/lib64 and in /usr/local/cuda/lib64.
Result<Library> open_of_toolkit(std::string_view soname, const char* variable);

/// Reads the facts of a cubin and sets those that every code object has.
Result<std::vector<KernelFacts>> take_facts(CodeObject& cubin);

/// Without the zero and the newlines that a log ends in.
std::string trimmed(std::string log);

}  // namespace glaive::backend
