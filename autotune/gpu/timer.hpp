#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda_driver.hpp"
#include "runtime/nvml.hpp"

namespace glaive {

/// Times what is enqueued on a stream of its own, by events. Its GPU's primary context is current to the thread that
/// makes it until it is destroyed; no other thread may use it.
class GpuTimer {
 public:
  static Result<std::unique_ptr<GpuTimer>> make(const cuda::Driver& driver, int ordinal, std::int64_t l2_bytes);
  GpuTimer(const GpuTimer&) = delete;
  ~GpuTimer();

  void* stream() const { return stream_; }
  using Enqueue = std::function<Result<void>()>;  ///< gives work to stream()

  /// Seconds of so many calls, the L2 cache flushed before each.
  Result<double> cold(std::int64_t calls, const Enqueue& call);

  /// A graph of what `calls` enqueues.
  class Replay;
  Result<std::shared_ptr<Replay>> capture(const Enqueue& calls);
  Result<double> replay(std::int64_t times, const Replay& graph);

  /// What NVML said during the last cold() or replay().
  const std::optional<GpuCondition>& condition() const { return condition_; }
  Result<void> wait();
  /// Bytes read and written per second by a copy within the GPU's memory, the best of several.
  Result<double> copy_rate();

 private:
  explicit GpuTimer(const cuda::Driver& driver) : driver_(driver) {}
  Result<void> check(cuda::Outcome outcome, const char* doing) const;
  Result<double> finish(const cuda::Event& from, const cuda::Event& to);
  Result<cuda::Event> event(std::size_t i);

  const cuda::Driver& driver_;
  cuda::DeviceNumber device_ = 0;
  bool retained_ = false, current_ = false;
  cuda::Stream stream_ = nullptr;
  std::vector<cuda::Event> events_;
  cuda::Address flushed_ = nullptr;
  std::int64_t flush_bytes_ = 0;
  std::shared_ptr<const Nvml> nvml_;
  std::string bus_;
  std::optional<GpuCondition> condition_;
  void look();
};

}  // namespace glaive
