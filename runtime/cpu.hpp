#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/kernel.hpp"

namespace glaive {

/// A shared object loaded from memory (memfd + dlopen), unloaded with its last owner.
class LoadedCode {
 public:
  using Entry = void (*)(const std::uint64_t* words, std::int64_t task, void* scratch);
  /// Fails with wrong_device when the processor lacks the target's features, failed when the loader refuses,
  /// io_error when memory, descriptors or a limit on file sizes do not allow it now.
  static Result<LoadedCode> load(const CodeObject& code);
  Result<Entry> entry(std::string_view name) const;

 private:
  std::shared_ptr<void> handle_;
};

/// Threads that run tasks. The calling thread is worker 0. `run` hands out task numbers 0..tasks-1 dynamically, calls
/// body(task, worker) and returns when all are done; one run at a time, callers queue. A pool of one starts no thread
/// and has no queue: every caller runs its own tasks. A body must not throw, nor run anything on its own pool. The
/// constructor throws std::system_error when no thread can be had.
class WorkerPool {
 public:
  explicit WorkerPool(int workers);
  WorkerPool(const WorkerPool&) = delete;
  ~WorkerPool();
  int workers() const;
  void run(std::int64_t tasks, void (*body)(void* context, std::int64_t task, int worker), void* context);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A plan with its code loaded, ready to run on the host.
class CpuKernel {
 public:
  static Result<CpuKernel> load(const Plan& plan, std::span<const CodeObject> code);
  const Plan& plan() const { return plan_; }
  /// Runs every stage in order; fills in the words of the extents and the workspace itself. `workspace` holds
  /// workspace_bytes(plan, extents), 64-byte aligned; extents[workers] must equal pool.workers(). Nothing is allocated.
  void run(const Words& words, const Extents& extents, void* workspace, WorkerPool& pool) const;
  void run(const Launch& launch, WorkerPool& pool) const;

 private:
  Plan plan_;
  std::vector<LoadedCode> code_;
  std::vector<LoadedCode::Entry> entries_;  // one per stage
};

/// The processor with a pool of `threads` workers. Fails with failed when a thread cannot be had.
Result<std::shared_ptr<Device>> open_cpu(int threads);

}  // namespace glaive
