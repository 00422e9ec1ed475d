#include "autotune/gpu/runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include "autotune/gpu/peak.hpp"
#include "autotune/gpu/timing.hpp"
#include "autotune/memory.hpp"
#include "runtime/cuda.hpp"

namespace glaive {
namespace {

/// The oracle takes about a second for so many multiplications.
constexpr double oracle_operations = 1.5e9;

/// The first and last head, and some between them, as many as the oracle has time for.
std::vector<Pick> picks_of(const Case& what) {
  const std::int64_t kv_heads = what.problem.kv_heads.count(), sequences = what.shape.sequences().count();
  const double head =
      static_cast<double>(what.shape.longest().count() * what.problem.k.count() * what.problem.v.count()) *
      (1 + static_cast<double>(what.problem.heads.count()) / static_cast<double>(kv_heads));
  const std::int64_t all = sequences * kv_heads;
  const auto count =
      std::clamp(static_cast<std::int64_t>(oracle_operations / head), std::int64_t{1}, std::min<std::int64_t>(all, 64));
  std::vector<Pick> picks;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = count == 1 ? all - 1 : i * (all - 1) / (count - 1);
    picks.push_back({at / kv_heads, at % kv_heads});
  }
  return picks;
}

/// A kernel that does not load is out, unless one before it has broken the context.
Failure refused_to_load(Error error) {
  const Drop drop = error.status == Status::device_lost     ? Drop::none
                    : error.status == Status::out_of_memory ? Drop::memory
                                                            : Drop::load_error;
  return {std::move(error), drop};
}
/// So is one whose launch is refused, or that does not end well.
Failure failed_to_run(const cuda::Driver& driver, Error error, std::size_t who = 0) {
  // A broken context keeps saying what has broken it.
  if (cuda::spares_kernel(driver.api().StreamSynchronize(nullptr))) return Error{Status::device_lost, error.message};
  const Drop drop = error.status == Status::device_lost     ? Drop::device_error
                    : error.status == Status::out_of_memory ? Drop::memory
                                                            : Drop::resources;
  return {std::move(error), drop, who};
}

/// Tensors at full size and the workspace beside them, which lies in the host's memory too.
std::optional<Verdict> too_large(const Case& what, const Plan& plan, double gpu_bytes) {
  const auto workspace = static_cast<double>(workspace_bytes(plan, extents_of(what.problem, what.shape, 1)));
  const double most = 0.9 * std::min(gpu_bytes - full_size_bytes(what), available_bytes());
  if (workspace <= std::max(most, 0.0)) return std::nullopt;
  return Verdict{Drop::memory, 0, 0,
                 fmt::format("needs a workspace of {:.3g} GB beside the tensors; there is room for {:.3g} GB",
                             workspace / 1e9, most / 1e9)};
}

}  // namespace

/// A call at its full size and its images, several where one is so small that it would stay in the L2 cache.
struct GpuRunner::FullSize {
  FullSize(const Case& what, Gates gates)
      : gates(gates),
        call(what, gates, 1, what.problem.op == Op::step ? Passing::in_place : Passing::contiguous,
             Guarded::Copy::none),
        workspace(0) {}

  Gates gates;
  Call call;
  Guarded workspace;
  std::int64_t workspace_size = -1;
  std::vector<GpuCall> images;
  std::vector<ExpectedHead> expected;  ///< a few heads
  bool used = false;                   ///< something ran on the images since their inputs were sent

  /// At least one image, with a workspace of that many bytes at least; more until they cover `bytes` together, as far
  /// as there is memory for them.
  Result<void> place(Device& device, std::int64_t workspace_bytes, std::int64_t bytes) {
    if (workspace_bytes > workspace_size) {
      images.clear();
      workspace = Guarded((workspace_bytes + 3) / 4);
      workspace_size = workspace_bytes;
    }
    while (images.empty() or
           (std::ssize(images) < most_images and std::ssize(images) * images.front().bytes() < bytes)) {
      auto image = GpuCall::make(device, call, workspace);
      if (not image and not images.empty() and image.error().status == Status::out_of_memory) return {};
      if (not image) return std::unexpected(image.error());
      if (auto sent = image->upload(); not sent) return sent;
      if (images.empty()) used = false;
      images.push_back(std::move(*image));
    }
    return {};
  }

 private:
  static constexpr std::int64_t most_images = 256;
};

/// A trial's tensors in the GPU's memory, for as long as variants want a workspace of that size: a larger one would
/// hide writes behind it.
struct GpuRunner::TrialImage {
  explicit TrialImage(std::int64_t bytes) : bytes(bytes), workspace((bytes + 3) / 4) {}
  std::int64_t bytes;
  Guarded workspace;
  std::optional<GpuCall> call;
};

GpuRunner::GpuRunner(const cuda::Driver& driver, int ordinal, Pulse& pulse)
    : driver_(driver), ordinal_(ordinal), pulse_(pulse), trials_(pulse) {}
GpuRunner::~GpuRunner() = default;

Result<void> GpuRunner::open() {
  if (device_ != nullptr) return {};
  auto device = open_gpu(driver_, ordinal_);
  if (not device) return std::unexpected(std::move(device).error());
  auto timer = GpuTimer::make(driver_, ordinal_, (*device)->info().l2_bytes);
  if (not timer) return std::unexpected(std::move(timer).error());
  device_ = std::move(*device);
  timer_ = std::move(*timer);
  pulse_.beat();
  return {};
}

Result<void> GpuRunner::check_memory(const Case& what) {
  if (auto opened = open(); not opened) return opened;
  if (full_size_ and full_size_->call.what == what) return {};  // is there, hence fits
  full_size_.reset();                                           // makes room
  for (TrialImages& images : trial_images_) images.clear();
  if (auto fits = glaive::check_memory(what); not fits) return fits;
  const auto memory = device_memory();
  if (not memory) return std::unexpected(memory.error());
  const double need = full_size_bytes(what);  // with the host's copies in f32: rather too much
  if (need <= 0.9 * memory->free) return {};
  return fail(Status::out_of_memory, fmt::format("needs {:.1f} GB on the GPU, and {:.1f} of its {:.1f} GB are free",
                                                 need / 1e9, memory->free / 1e9, memory->total / 1e9));
}

Result<GpuRunner::Memory> GpuRunner::device_memory() const {
  std::size_t free = 0, total = 0;
  if (const auto outcome = driver_.api().MemGetInfo(&free, &total); outcome != cuda::success)
    return driver_.failure(outcome, "cannot ask for the GPU's memory");
  return Memory{static_cast<double>(free), static_cast<double>(total)};
}

Result<Verdict> GpuRunner::verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) {
  if (auto opened = open(); not opened) return std::unexpected(opened.error());
  const auto memory = device_memory();
  if (not memory) return std::unexpected(memory.error());
  if (auto verdict = too_large(what, built.plan, memory->total)) return std::move(*verdict);
  if (trials_imaged_ != what)
    for (TrialImages& images : trial_images_) images.clear();
  trials_imaged_ = what;
  auto verdict = verify(trials_.of(what, scrutiny), built, trial_images_[static_cast<std::size_t>(scrutiny)]);
  if (not verdict or verdict->drop != Drop::none or scrutiny == Scrutiny::brief) return verdict;
  const auto kernel = device_->load(built.plan, std::span(&built.code, 1));
  if (not kernel) return std::unexpected(kernel.error());
  auto at_full_size = compare_at_full_size(what, **kernel, gates);
  return at_full_size and at_full_size->drop == Drop::none ? verdict : at_full_size;
}

Result<Verdict> GpuRunner::verify(std::span<Trial> trials, const Built& built) {
  TrialImages images;
  return verify(trials, built, images);
}

Result<Verdict> GpuRunner::verify(std::span<Trial> trials, const Built& built, TrialImages& images) {
  if (auto opened = open(); not opened) return std::unexpected(opened.error());
  const auto kernel = device_->load(built.plan, std::span(&built.code, 1));
  if (not kernel) {
    auto refused = refused_to_load(kernel.error());
    if (refused.drop == Drop::none) return std::unexpected<Error>(std::move(refused));
    return Verdict{refused.drop, 0, 0, std::move(refused.message)};
  }

  images.resize(trials.size());
  Verdict worst;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    Trial& trial = trials[i];
    const std::int64_t bytes =
        workspace_bytes(built.plan, extents_of(trial.call.what.problem, trial.call.what.shape, 1));
    auto& image = images[i];
    if (image == nullptr or image->bytes != bytes) {
      image = std::make_unique<TrialImage>(bytes);
      auto made = GpuCall::make(*device_, trial.call, image->workspace);
      if (not made) {
        image.reset();
        return std::unexpected(made.error());
      }
      image->call = std::move(*made);
    }
    const GpuCall& on_gpu = *image->call;
    Guarded& workspace = image->workspace;
    workspace.poison();  // a kernel may not expect zeros, or leave what the next run needs
    Evaluated<void> ran;
    // The inputs travel once there and, after the second run, once back.
    const Runner once = [&, first = true](const Words&, const Extents&) mutable {
      ran = first ? on_gpu.upload() : on_gpu.upload_outputs();
      if (ran) ran = run(**kernel, on_gpu);
      if (ran) ran = first ? on_gpu.download_outputs() : on_gpu.download();
      first = false;
    };
    auto verdict = glaive::verify(once, built.plan.variant, std::span(&trial, 1), 1, Target::Kind::cuda);
    if (not ran) {
      if (ran.error().drop == Drop::none) return std::unexpected<Error>(ran.error());
      verdict.drop = ran.error().drop;
      verdict.message = fmt::format("{}\n  {}", ran.error().message,
                                    reproducer(trial.call.what, built.plan.variant, trial.gates, trial.seed));
    } else if (verdict.drop == Drop::none and not workspace.guards_intact()) {
      verdict.drop = Drop::out_of_bounds;
      verdict.message = "memory just outside the workspace was written";
    }
    verdict.error_o = std::max(verdict.error_o, worst.error_o);
    verdict.error_state = std::max(verdict.error_state, worst.error_state);
    worst = std::move(verdict);
    if (worst.drop == Drop::out_of_bounds) forget();
    if (worst.drop != Drop::none) return worst;
  }
  return worst;
}

Evaluated<void> GpuRunner::run(const Kernel& kernel, const GpuCall& image) {
  const Running now(pulse_, 0);
  if (auto launched = kernel.launch(image.launch()); not launched)
    return std::unexpected(failed_to_run(driver_, launched.error()));
  const auto outcome = driver_.api().StreamSynchronize(nullptr);
  if (outcome == cuda::success) return {};
  return std::unexpected(failed_to_run(driver_, driver_.failure(outcome, kernel.plan().variant + " failed").error()));
}

Result<Verdict> GpuRunner::compare_at_full_size(const Case& what, const Kernel& kernel, Gates gates) {
  if (auto made = make_full_size(what, gates); not made) return std::unexpected(made.error());
  FullSize& full = *full_size_;
  if (full.expected.empty()) full.expected = oracle(full.call, picks_of(what)), pulse_.beat();
  if (auto placed = full.place(*device_, workspace_bytes(kernel.plan(), extents_of(what.problem, what.shape, 1)), 0);
      not placed)
    return std::unexpected(placed.error());
  const GpuCall& image = full.images.front();
  Verdict verdict;
  const auto with_reproducer = [&](Drop drop, std::string message) {
    verdict.drop = drop;
    verdict.message = "at full size: " + message + "\n  " + reproducer(what, kernel.plan().variant, gates, 1);
    return verdict;
  };
  const auto allowed = tolerance(what, Target::Kind::cuda);
  for (;;) {
    const bool fresh = not std::exchange(full.used, true);
    full.call.poison_outputs();
    if (auto sent = image.upload_outputs(); not sent) return std::unexpected(sent.error());
    if (auto ran = run(kernel, image); not ran) {
      if (ran.error().drop == Drop::none) return std::unexpected<Error>(std::move(ran).error());
      return with_reproducer(ran.error().drop, ran.error().message);
    }
    if (auto fetched = image.download_outputs(); not fetched) return std::unexpected(fetched.error());
    if (auto fault = overrun(full.call, full.workspace)) {
      auto told = with_reproducer(Drop::out_of_bounds, std::move(*fault));
      forget();
      return told;
    }
    pulse_.beat();
    const auto [o, state] = errors_of(full.call, full.expected);
    verdict.error_o = o, verdict.error_state = state;
    if (o <= allowed.o.tensor and state <= allowed.state.tensor) return verdict;
    if (fresh)
      return with_reproducer(Drop::wrong_result,
                             fmt::format("o is off by {:.2e} ({:.0e} allowed) and the state by {:.2e} ({:.0e} allowed)",
                                         o, allowed.o.tensor, state, allowed.state.tensor));
    // Whoever ran before may have written into the inputs: judged is what a call makes of the right ones.
    if (auto sent = image.upload(); not sent) return std::unexpected(sent.error());
    full.used = false;
  }
}

/// One kernel in a race: long calls are timed one by one, the L2 cache flushed before each; short ones as a graph of
/// many, on images of the tensors in turn, so that each finds its own no longer in the cache.
class GpuRunner::Contestant {
 public:
  Contestant(const Kernel& kernel, const FullSize& full, GpuTimer& timer)
      : kernel_(kernel), full_(full), timer_(timer) {}
  bool overran() const { return overran_; }

  Result<Sample> sample(std::int64_t calls) {
    if (calls_in_graph_ == 0)
      if (auto ready = prepare(); not ready) return std::unexpected(ready.error());
    auto seconds = take(calls);
    if (not seconds) return std::unexpected(seconds.error());
    Sample sample{.seconds = *seconds, .invalid = {}};
    if (const auto& condition = timer_.condition()) {
      usual_mhz_ = std::max(usual_mhz_, condition->sm_mhz);
      sample.invalid = distortion(*condition, usual_mhz_);
    }
    return sample;
  }

 private:
  Result<void> enqueue(std::size_t image) const {
    Launch launch = full_.images[image % full_.images.size()].launch();
    launch.stream = timer_.stream();
    return kernel_.launch(launch);
  }

  Result<double> take(std::int64_t calls) {
    if (graph_ == nullptr) return timer_.cold(calls, [&] { return enqueue(0); });
    const std::int64_t replays = (calls + calls_in_graph_ - 1) / calls_in_graph_;
    auto seconds = timer_.replay(replays, *graph_);
    if (seconds) *seconds *= static_cast<double>(calls) / static_cast<double>(replays * calls_in_graph_);
    return seconds;
  }

  Result<void> prepare() {
    const auto once = [&] { return timer_.cold(1, [&] { return enqueue(0); }); };
    auto seconds = once();
    if (seconds) seconds = once();  // the first loads the code
    if (not seconds) return std::unexpected(seconds.error());
    // Verification saw small shapes: before anybody else runs on this memory, look at the zones around it.
    if (auto fetched = full_.images.front().download_guards(); not fetched) return fetched;
    if (const auto fault = overrun(full_.call, full_.workspace)) {
      overran_ = true;
      return fail(Status::failed, "at full size " + *fault);
    }
    calls_in_graph_ = calls_per_replay(*seconds);
    if (calls_in_graph_ == 1) return {};
    calls_in_graph_ = std::max<std::int64_t>(calls_in_graph_, std::ssize(full_.images));
    auto captured = timer_.capture([&]() -> Result<void> {
      for (std::int64_t n = 0; n < calls_in_graph_; ++n)
        if (auto done = enqueue(static_cast<std::size_t>(n)); not done) return done;
      return {};
    });
    if (not captured) return std::unexpected(captured.error());
    graph_ = std::move(*captured);
    return {};
  }

  const Kernel& kernel_;
  const FullSize& full_;
  GpuTimer& timer_;
  std::int64_t calls_in_graph_ = 0, usual_mhz_ = 0;  // 0 = not prepared
  std::shared_ptr<GpuTimer::Replay> graph_;          // of short calls
  bool overran_ = false;
};

Evaluated<std::vector<Timing>> GpuRunner::race(const Case& what, std::span<const Contender> contenders,
                                               const MeasurePolicy& policy, std::span<const std::size_t> keep) {
  if (auto made = make_full_size(what, policy.gates); not made) return std::unexpected(made.error());
  FullSize& full = *full_size_;
  std::vector<std::unique_ptr<const Kernel>> kernels;
  std::vector<std::size_t> running, kept;  // there are no plain loops on a GPU
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    if (contenders[i].kind != Contender::Kind::kernel) continue;
    auto kernel = device_->load(contenders[i].built->plan, std::span(&contenders[i].built->code, 1));
    if (not kernel) {
      auto refused = refused_to_load(kernel.error());
      refused.contender = i;
      return std::unexpected(std::move(refused));
    }
    bytes = std::max(bytes, workspace_bytes((*kernel)->plan(), extents_of(what.problem, what.shape, 1)));
    kernels.push_back(std::move(*kernel));
    if (std::ranges::find(keep, i) != keep.end()) kept.push_back(running.size());
    running.push_back(i);
  }
  if (auto placed = full.place(*device_, bytes, flush_bytes(device_->info().l2_bytes)); not placed)
    return std::unexpected(placed.error());

  full.used = true;

  std::optional<Failure> failure;  // that names the contender
  std::vector<Sampler> samplers;
  for (std::size_t i = 0; i < kernels.size(); ++i)
    samplers.push_back([&, who = running[i],
                        runner = Contestant(*kernels[i], full, *timer_)](std::int64_t calls) mutable -> Result<Sample> {
      const Running now(pulse_, who);
      auto sample = runner.sample(calls);
      // An error that the race ends with does not say whose it is.
      if (not sample)
        failure = runner.overran() ? Failure(sample.error(), Drop::out_of_bounds, who)
                                   : failed_to_run(driver_, sample.error(), who);
      return sample;
    });
  auto times = glaive::race(samplers, policy, kept);
  if (not times) {
    if (failure) forget();
    return std::unexpected(failure ? std::move(*failure) : Failure(times.error()));
  }
  std::vector<Timing> out(contenders.size());
  for (std::size_t i = 0; i < running.size(); ++i) out[running[i]] = std::move((*times)[i]);
  return out;
}

Result<double> GpuRunner::copy_rate() {
  if (auto opened = open(); not opened) return std::unexpected(opened.error());
  return timer_->copy_rate();
}

Result<double> GpuRunner::peak_rate(const CodeObject& code) {
  if (auto opened = open(); not opened) return std::unexpected(opened.error());
  constexpr std::int64_t blocks_per_unit = 4, rounds = 4000;
  Plan plan;
  plan.variant = "peak";
  plan.target = code.target;
  plan.stages.resize(1);
  Stage& stage = plan.stages.front();
  stage.entry = "mma_peak";
  stage.tasks.multiplier = blocks_per_unit * device_->info().units;
  stage.args = {Arg::workspace, Arg::tokens};
  stage.block[0] = peak_threads;
  const auto kernel = device_->load(plan, std::span(&code, 1));
  const auto word = device_->allocate(sizeof(float));
  if (not kernel or not word) return std::unexpected(kernel ? word.error() : kernel.error());
  Launch launch;
  launch.stream = timer_->stream();
  launch.words.set_pointer(Arg::workspace, word->get());
  launch.words[Arg::tokens] = rounds;
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto seconds = timer_->cold(1, [&] { return (*kernel)->launch(launch); });
    if (not seconds) return seconds;
    const double warps = static_cast<double>(stage.tasks.multiplier * peak_threads) / 32;
    best = std::max(best, warps * rounds * peak_flops_per_round / *seconds);
  }
  return best;
}

/// What somebody wrote into without leave is worth nothing to those who come after.
void GpuRunner::forget() {
  for (TrialImages& images : trial_images_) images.clear();
  trials_.forget();
  full_size_.reset();
}

Result<void> GpuRunner::make_full_size(const Case& what, Gates gates) {
  if (auto fits = check_memory(what); not fits) return fits;
  if (full_size_ and full_size_->gates == gates) return {};
  full_size_.reset();
  try {
    full_size_ = std::make_shared<FullSize>(what, gates);
  } catch (const std::bad_alloc&) {
    return fail(Status::out_of_memory, fmt::format("no memory for the tensors of `{}`", to_string(what)));
  }
  pulse_.beat();
  return {};
}

}  // namespace glaive
