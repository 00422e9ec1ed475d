#pragma once
// The GPU's compiler: NVRTC, opened when it is asked for; nothing of the toolkit is needed to build glaive. The CPU's
// is in compiler.hpp.
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "compiler/source.hpp"
#include "runtime/pack.hpp"

namespace glaive {

struct CudaOptions {
  Target target;                   ///< `cuda:sm_NN[a|f]` gives a cubin, `cuda:compute_NN` gives PTX
  std::vector<std::string> flags;  ///< more of NVRTC's options, such as `--maxrregcount=128`
};
std::string to_string(const CudaOptions& options);  ///< `cuda:sm_90a --maxrregcount=128`

/// What one kernel of a cubin takes of an SM, read from the cubin itself.
struct KernelFacts {
  std::string entry;
  std::int64_t registers = 0;     ///< of a thread
  std::int64_t stack_bytes = 0;   ///< of a thread: arrays and spills, calls included
  std::int64_t spill_bytes = 0;   ///< stores of spilled registers; needs the log of the compiler, else 0
  std::int64_t shared_bytes = 0;  ///< static, of a block
  std::int64_t parameter_bytes = 0;
  std::int64_t most_threads = 0;  ///< of a block, as __launch_bounds__ says; 0 = no bound
  std::int64_t text_bytes = 0;
};

/// In the order of the file. Never reads outside `cubin`, whatever it holds; fails with `failed` where that is no
/// cubin.
Result<std::vector<KernelFacts>> cubin_facts(std::span<const std::byte> cubin);

/// What one compilation said and found, beside its code.
struct CudaReport {
  std::string log;                   ///< NVRTC's and ptxas's, warnings included
  std::vector<KernelFacts> kernels;  ///< empty for PTX
};

/// Turns CUDA C++ into code for GPUs. Any number of threads may use one.
class CudaCompiler {
 public:
  /// Opens NVRTC: the file or soname `library`; when that is empty the one that GLAIVE_NVRTC names, else
  /// libnvrtc.so.13 or .12 as the loader finds them, else in $CUDA_HOME/lib64 and /usr/local/cuda/lib64. Fails with
  /// not_found, naming where it looked, and with unsupported for one that is older than 12.0.
  static Result<std::shared_ptr<const CudaCompiler>> open(const std::string& library = {});
  CudaCompiler(const CudaCompiler&) = delete;
  ~CudaCompiler();

  const std::string& library() const;      ///< where NVRTC was found
  std::string build() const;               ///< `glaive 1, NVRTC 13.0`; part of every key
  std::vector<int> architectures() const;  ///< compute capabilities that it makes code for, `90` for sm_90

  /// Errors hold NVRTC's log, whole. `stop` cancels: NVRTC asks it at its own pace.
  Result<CodeObject> compile(const Source& source, const CudaOptions& options, CudaReport* report = nullptr,
                             std::stop_token stop = {}) const;
  /// 32 hex digits over the text, the entries, the options and build().
  Result<std::string> content_key(const Source& source, const CudaOptions& options) const;

 private:
  struct Impl;
  explicit CudaCompiler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace glaive
