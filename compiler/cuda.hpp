#pragma once
// The GPU's compiler: NVRTC, opened when it is asked for; nothing of the toolkit is needed to build glaive. The CPU's
// is in compiler.hpp.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "compiler/source.hpp"
#include "runtime/pack.hpp"

namespace glaive {

struct CudaOptions {
  Target target;                   ///< `cuda:sm_NN[a|f]` gives a cubin, `cuda:compute_NN[a|f]` gives PTX
  std::vector<std::string> flags;  ///< more of NVRTC's options, such as `--maxrregcount=128`
};
std::string to_string(const CudaOptions& options);  ///< `cuda:sm_90a --maxrregcount=128`

/// What one kernel of a cubin takes of an SM, read from the cubin itself.
struct KernelFacts {
  std::string entry;
  std::int64_t registers = 0;     ///< of a thread
  std::int64_t stack_bytes = 0;   ///< of a thread: arrays and spills, calls included
  std::int64_t spills = 0;        ///< instructions that store or load a spilled register
  std::int64_t shared_bytes = 0;  ///< static, of a block
  std::int64_t parameter_bytes = 0;
  std::int64_t most_threads = 0;  ///< of a block, as __launch_bounds__ says; 0 = no bound
  std::int64_t text_bytes = 0;
};

/// In the order of the file. Never reads outside `cubin`, whatever it holds; fails with `failed` where that is none.
Result<std::vector<KernelFacts>> cubin_facts(std::span<const std::byte> cubin);

/// What a compilation said and found, beside its code.
struct CudaReport {
  std::string log;                   ///< NVRTC's and ptxas's, which says of each kernel what it takes
  std::vector<KernelFacts> kernels;  ///< empty for PTX
};

/// When to give up.
struct Until {
  using Time = std::chrono::steady_clock::time_point;
  static constexpr Time no_deadline = Time::max();
  std::stop_token stop;
  Time deadline = no_deadline;
  bool over() const { return stop.stop_requested() or std::chrono::steady_clock::now() > deadline; }
  bool never() const { return not stop.stop_possible() and deadline == no_deadline; }
};

/// Turns CUDA C++ into code for GPUs. Any number of threads may use one, and run in parallel.
class CudaCompiler {
 public:
  /// Opens NVRTC: `library`, a path or soname; when empty what GLAIVE_NVRTC names, else libnvrtc.so.13 or .12 as the
  /// loader finds them or in $CUDA_HOME or /usr/local/cuda. Fails with not_found, saying where it was looked for, or
  /// with unsupported for one older than 12.0.
  static Result<std::shared_ptr<const CudaCompiler>> open(const std::string& library = {});
  CudaCompiler(const CudaCompiler&) = delete;
  ~CudaCompiler();

  const std::string& library() const;  ///< where NVRTC was found
  std::string build() const;  ///< `glaive-cuda 1, NVRTC 13.0 (libnvrtc.so.13.0.88, N bytes)`; part of every key
  const std::vector<int>& architectures() const;  ///< that it makes code for: 90 is sm_90; ascending

  /// What to compile for a GPU: `gpu` itself, or, where this NVRTC is older than it, PTX for the highest architecture
  /// below, which the driver compiles.
  Target target_for(const Target& gpu) const;

  /// A failure holds NVRTC's log. Status::failed: the source is refused or `until` is over; unsupported: this NVRTC
  /// knows no such target; out_of_memory; io_error: no thread.
  ///
  /// Returns as soon as `until` is over. NVRTC cannot be interrupted: it asks between its passes whether to go on, some
  /// sixty times a compilation, but a pass of ptxas over a bad source can take minutes. It is left behind on a thread
  /// of its own, which ends when it next asks; whoever cannot have that compiles in a worker process.
  Result<CodeObject> compile(const Source& source, const CudaOptions& options, CudaReport* report = nullptr,
                             const Until& until = {}) const;
  /// 32 hex digits over the text, the entries, the options and build().
  Result<std::string> content_key(const Source& source, const CudaOptions& options) const;
  /// The same without the NVRTC of build(): what code was made from, whoever made it.
  static std::string source_key(const CudaSource& source, const CudaOptions& options);

 private:
  struct Impl;
  explicit CudaCompiler(std::shared_ptr<Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

struct CudaJob {
  CudaSource source;
  CudaOptions options;
  CudaReport* report = nullptr;  ///< where one is wanted
};
/// Compiles all on `threads` threads and returns when that is done. `done` gets each job's number and result as it is
/// ready, one at a time. A job that takes longer than `limit` fails; once `stop` is requested, all that are left fail.
void compile_all(const CudaCompiler& compiler, std::span<const CudaJob> jobs, int threads,
                 std::chrono::milliseconds limit, std::stop_token stop,
                 const std::function<void(std::size_t, Result<CodeObject>)>& done);

/// Saves the source of a variant that did not compile as `folder`/nvrtc-<digits of its content>.cu. Returns the error
/// with the variant's name before it and the file's after it.
Error with_source_saved(Error error, const std::string& variant, const CudaSource& source,
                        const std::filesystem::path& folder);

/// Makes a cubin of PTX, for a GPU newer than the PTX, without one: nvJitLink, opened when it is first asked for (what
/// GLAIVE_NVJITLINK names, else libnvJitLink.so.13 or .12 where NVRTC is looked for).
Result<CodeObject> assemble(const CodeObject& ptx, const Target& target);

}  // namespace glaive
