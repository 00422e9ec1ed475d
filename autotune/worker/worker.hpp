#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autotune/evaluator.hpp"

namespace glaive {

/// How workers are started and how long they may take. A worker is this program again; it compiles, verifies or times
/// what it is asked to, one thing at a time, and is killed when it stands still.
struct WorkerOptions {
  int threads = 1;                         ///< compiling workers, and threads of the one that runs kernels
  std::string program = "/proc/self/exe";  ///< whose main calls serve_worker
  std::vector<std::string> arguments = {"worker"};

  // Seconds. A limit grows with what is known: a kernel may take 20 times the best time of its case (a GFLOP/s before
  // there is one), a compilation 20 times the longest so far, our own code as long as its tensors take at 20 MB/s.
  double kernel_seconds = 5;
  double compile_seconds = 60;
  double trusted_seconds = 60;

  // Memory that a worker may take; 0 = what the machine can spare when it starts.
  std::uint64_t compile_bytes = std::uint64_t{4} << 30;
  std::uint64_t run_bytes = 0;
};

/// An evaluator whose work is done in other processes: one for each compiling thread, and one that verifies and times.
/// A crash, a hang or a lack of memory costs the variant that caused it, and the worker is started again. A worker that
/// was killed from outside (SIGKILL, SIGTERM..) is given the same work once more before it is held against the variant.
/// Workers die with this process. Fails when no worker can be started, or says that it can do nothing.
Result<std::unique_ptr<Evaluator>> make_worker_evaluator(WorkerOptions options);

/// A worker's main: answers on the socket that it was started with until that is closed, and returns an exit code.
using MakeEvaluator = std::function<Result<std::unique_ptr<Evaluator>>(int threads, Pulse& pulse)>;
int serve_worker(const MakeEvaluator& make, std::span<const Family* const> families = glaive::families());

}  // namespace glaive
