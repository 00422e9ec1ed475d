#include "autotune/gpu/timer.hpp"

#include <algorithm>

#include "autotune/gpu/timing.hpp"

namespace glaive {

using namespace cuda;

class GpuTimer::Replay {
 public:
  explicit Replay(const Api& api) : api_(api) {}
  Replay(const Replay&) = delete;
  ~Replay() {
    if (exec != nullptr) api_.GraphExecDestroy(exec);
  }
  GraphExec exec = nullptr;

 private:
  const Api& api_;
};

Result<void> GpuTimer::check(Outcome outcome, const char* doing) const {
  if (outcome == success) return {};
  return driver_.failure(outcome, doing);
}

Result<std::unique_ptr<GpuTimer>> GpuTimer::make(const Driver& driver, int ordinal, std::int64_t l2_bytes) {
  const Api& api = driver.api();
  std::unique_ptr<GpuTimer> timer(new GpuTimer(driver));
  timer->flush_bytes_ = flush_bytes(l2_bytes);
  Context context = nullptr;
  char bus[32] = {};
  const auto start = [&] {
    Outcome outcome = api.DeviceGet(&timer->device_, ordinal);
    if (outcome == success) outcome = api.DevicePrimaryCtxRetain(&context, timer->device_);
    timer->retained_ = outcome == success;
    if (outcome == success) outcome = api.CtxPushCurrent(context);
    timer->current_ = outcome == success;
    constexpr unsigned non_blocking = 1;
    if (outcome == success) outcome = api.StreamCreate(&timer->stream_, non_blocking);
    if (outcome == success) outcome = api.MemAlloc(&timer->flushed_, static_cast<std::size_t>(timer->flush_bytes_));
    if (outcome == success) outcome = api.DeviceGetPCIBusId(bus, sizeof bus, timer->device_);
    return outcome;
  };
  if (auto started = timer->check(start(), "cannot prepare to time on the GPU"); not started)
    return std::unexpected(std::move(started).error());
  timer->bus_ = bus;
  if (auto nvml = Nvml::open()) timer->nvml_ = std::move(*nvml);  // else clocks go unwatched
  return timer;
}

GpuTimer::~GpuTimer() {
  const Api& api = driver_.api();
  for (const Event event : events_) api.EventDestroy(event);
  if (flushed_ != nullptr) api.MemFree(flushed_);
  if (stream_ != nullptr) api.StreamDestroy(stream_);
  Context popped = nullptr;
  if (current_) api.CtxPopCurrent(&popped);
  if (retained_) api.DevicePrimaryCtxRelease(device_);
}

Result<Event> GpuTimer::event(std::size_t i) {
  while (events_.size() <= i) {
    Event made = nullptr;
    if (auto done = check(driver_.api().EventCreate(&made, 0), "cannot make an event"); not done)
      return std::unexpected(std::move(done).error());
    events_.push_back(made);
  }
  return events_[i];
}

void GpuTimer::look() {
  if (nvml_ == nullptr) return;
  if (auto condition = nvml_->condition(bus_)) condition_ = *condition;
}

Result<void> GpuTimer::wait() { return check(driver_.api().StreamSynchronize(stream_), "the GPU's work failed"); }

Result<double> GpuTimer::cold(std::int64_t calls, const Enqueue& call) {
  const Api& api = driver_.api();
  const auto pairs = static_cast<std::size_t>(calls);
  for (std::size_t i = 0; i < 2 * pairs; ++i)
    if (const auto made = event(i); not made) return std::unexpected(made.error());
  for (std::size_t i = 0; i < pairs; ++i) {
    Outcome outcome = api.MemsetD32Async(flushed_, 0, static_cast<std::size_t>(flush_bytes_ / 4), stream_);
    if (outcome == success) outcome = api.EventRecord(events_[2 * i], stream_);
    if (auto done = check(outcome, "cannot flush the L2 cache"); not done) return std::unexpected(done.error());
    if (auto done = call(); not done) return std::unexpected(done.error());
    if (auto done = check(api.EventRecord(events_[2 * i + 1], stream_), "cannot record an event"); not done)
      return std::unexpected(done.error());
  }
  look();
  if (auto done = wait(); not done) return std::unexpected(done.error());
  double seconds = 0;
  for (std::size_t i = 0; i < pairs; ++i) {
    const auto time = finish(events_[2 * i], events_[2 * i + 1]);
    if (not time) return time;
    seconds += *time;
  }
  return seconds;
}

Result<double> GpuTimer::finish(const Event& from, const Event& to) {
  float milliseconds = 0;
  if (auto done = check(driver_.api().EventElapsedTime(&milliseconds, from, to), "cannot read an event"); not done)
    return std::unexpected(done.error());
  return static_cast<double>(milliseconds) * 1e-3;
}

Result<std::shared_ptr<GpuTimer::Replay>> GpuTimer::capture(const Enqueue& calls) {
  const Api& api = driver_.api();
  constexpr int thread_local_mode = 1;
  if (auto begun = check(api.StreamBeginCapture(stream_, thread_local_mode), "cannot capture a graph"); not begun)
    return std::unexpected(begun.error());
  const auto enqueued = calls();
  Graph graph = nullptr;
  auto done = check(api.StreamEndCapture(stream_, &graph), "cannot capture a graph");
  auto replay = std::make_shared<Replay>(api);
  if (enqueued and done) done = check(api.GraphInstantiate(&replay->exec, graph, 0), "cannot instantiate a graph");
  if (graph != nullptr) api.GraphDestroy(graph);
  if (not enqueued) return std::unexpected(enqueued.error());
  if (not done) return std::unexpected(done.error());
  return replay;
}

Result<double> GpuTimer::replay(std::int64_t times, const Replay& graph) {
  const Api& api = driver_.api();
  const auto from = event(0), to = event(1);
  if (not from or not to) return std::unexpected(from ? to.error() : from.error());
  Outcome outcome = api.EventRecord(*from, stream_);
  for (std::int64_t i = 0; i < times and outcome == success; ++i) outcome = api.GraphLaunch(graph.exec, stream_);
  if (outcome == success) outcome = api.EventRecord(*to, stream_);
  if (auto done = check(outcome, "cannot replay a graph"); not done) return std::unexpected(done.error());
  look();
  if (auto done = wait(); not done) return std::unexpected(done.error());
  return finish(*from, *to);
}

Result<double> GpuTimer::copy_rate() {
  const Api& api = driver_.api();
  std::size_t free = 0, total = 0;
  if (auto done = check(api.MemGetInfo(&free, &total), "cannot ask for memory"); not done)
    return std::unexpected(done.error());
  const std::size_t bytes = std::min(free / 4, std::size_t{1} << 30) & ~std::size_t{511};
  Address block = nullptr;
  if (auto done = check(api.MemAlloc(&block, 2 * bytes), "no memory to copy in"); not done)
    return std::unexpected(done.error());
  double best = 0;
  Result<void> done;
  for (int round = 0; round < 8 and done; ++round) {
    const auto seconds = cold(1, [&] {
      return check(api.MemcpyDtoDAsync(static_cast<std::byte*>(block) + bytes, block, bytes, stream_), "cannot copy");
    });
    if (not seconds)
      done = std::unexpected(seconds.error());
    else if (round > 0)
      best = std::max(best, 2 * static_cast<double>(bytes) / *seconds);
  }
  api.MemFree(block);
  if (not done) return std::unexpected(done.error());
  return best;
}

}  // namespace glaive
