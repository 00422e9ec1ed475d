#include "runtime/cuda.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "runtime/tensor_map.hpp"
#include "runtime/text.hpp"

namespace glaive {
namespace {

using namespace cuda;

/// A primary context, retained.
class Retained {
 public:
  static Result<std::shared_ptr<const Retained>> retain(const Driver& driver, int ordinal) {
    DeviceNumber device = 0;
    if (const Outcome outcome = driver.api().DeviceGet(&device, ordinal); outcome != success)
      return driver.failure(outcome, "cannot get GPU " + std::to_string(ordinal));
    Context context = nullptr;
    if (const Outcome outcome = driver.api().DevicePrimaryCtxRetain(&context, device); outcome != success)
      return driver.failure(outcome, "cannot make a context on GPU " + std::to_string(ordinal));
    return std::shared_ptr<const Retained>(new Retained(driver, device, context));
  }
  Retained(const Retained&) = delete;
  ~Retained() { driver_.api().DevicePrimaryCtxRelease(device_); }

  const Driver& driver() const { return driver_; }
  const Api& api() const { return driver_.api(); }
  DeviceNumber device() const { return device_; }
  Context context() const { return context_; }
  int attribute(DeviceAttribute which) const {
    int value = 0;
    return api().DeviceGetAttribute(&value, which, device_) == success ? value : 0;
  }

 private:
  Retained(const Driver& driver, DeviceNumber device, Context context)
      : driver_(driver), device_(device), context_(context) {}
  const Driver& driver_;
  DeviceNumber device_;
  Context context_;
};
using Gpu = std::shared_ptr<const Retained>;

/// Makes the context current while it lives, and puts back what was. Where it is current already, as in a thread of a
/// framework that uses the same GPU, that is found out and nothing else done.
class Current {
 public:
  explicit Current(const Retained& gpu) : api_(gpu.api()) {
    Context now = nullptr;
    if (api_.CtxGetCurrent(&now) == success and now == gpu.context()) return;
    outcome_ = api_.CtxPushCurrent(gpu.context());
    pushed_ = outcome_ == success;
  }
  Current(const Current&) = delete;
  ~Current() {
    Context popped = nullptr;
    if (pushed_) api_.CtxPopCurrent(&popped);
  }
  Outcome outcome() const { return outcome_; }

 private:
  const Api& api_;
  Outcome outcome_ = success;
  bool pushed_ = false;
};

/// Runs calls of the driver in the GPU's context; the first that fails is told as `doing`.
template <class Body>
Result<void> in_context(const Retained& gpu, Body&& body, auto&& doing) {
  const Current current(gpu);
  const Outcome outcome = current.outcome() == success ? body(gpu.api()) : current.outcome();
  if (outcome == success) [[likely]]
    return {};
  return gpu.driver().failure(outcome, doing());
}

/// In the GPU's context.
std::string free_memory(const Retained& gpu) {
  std::size_t free = 0, total = 0;
  gpu.api().MemGetInfo(&free, &total);
  return std::to_string(free) + " of its " + std::to_string(total) + " are free";
}

Result<std::shared_ptr<std::byte>> allocate_on(const Gpu& gpu, std::size_t bytes) {
  const Current current(*gpu);
  Address address = nullptr;
  const Outcome outcome = current.outcome() == success ? gpu->api().MemAlloc(&address, bytes) : current.outcome();
  if (outcome == out_of_memory)
    return fail(Status::out_of_memory,
                "no memory on the GPU for " + std::to_string(bytes) + " bytes: " + free_memory(*gpu));
  if (outcome != success) return gpu->driver().failure(outcome, "cannot allocate " + std::to_string(bytes) + " bytes");
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(address), [gpu](std::byte* block) {
    const Current for_free(*gpu);
    gpu->api().MemFree(block);
  });
}

/// The block lies in the GPU's memory; what is posted goes there from one of several blocks of page-locked memory, by a
/// copy on the stream, so that the host may be some batches ahead of the GPU.
class GpuExchange final : public Exchange {
 public:
  static Result<std::unique_ptr<Exchange>> make(const Gpu& gpu, std::size_t bytes) {
    std::unique_ptr<GpuExchange> made(new GpuExchange(gpu, bytes));
    auto block = allocate_on(gpu, bytes);
    if (not block) return std::unexpected(std::move(block).error());
    made->block_ = std::move(*block);
    for (Post& post : made->posts_) {
      const auto pin = [&](const Api& api) {
        void* host = nullptr;
        Outcome outcome = api.MemHostAlloc(&host, bytes + answer_bytes, 0);
        if (outcome != success) return outcome;
        post.host = static_cast<std::byte*>(host);
        constexpr unsigned without_timing = 2;
        return api.EventCreate(&post.event, without_timing);
      };
      const auto doing = [&] {
        return "cannot page-lock " + std::to_string(bytes) + " bytes of the host's memory, which has " +
               std::to_string(sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE)) + " free";
      };
      if (auto pinned = in_context(*gpu, pin, doing); not pinned) return std::unexpected(std::move(pinned).error());
    }
    return made;
  }

  ~GpuExchange() override {
    const Current current(*gpu_);
    for (const Post& post : posts_) {
      if (post.in_flight) gpu_->api().EventSynchronize(post.event);
      if (post.event != nullptr) gpu_->api().EventDestroy(post.event);
      if (post.host != nullptr) gpu_->api().MemFreeHost(post.host);
    }
  }

  std::byte* address() const override { return block_.get(); }

  Result<std::span<std::byte>> compose() override {
    const std::size_t next = (now_ + 1) % posts_.size();
    if (auto over = finish(posts_[next]); not over) return std::unexpected(std::move(over).error());
    now_ = next;
    return std::span(posts_[now_].host, bytes_);
  }

  Result<void> post(void* stream) override {
    Post& post = posts_[now_];
    const auto send = [&](const Api& api) {
      const Outcome outcome = api.MemcpyHtoDAsync(block_.get(), post.host, bytes_, static_cast<Stream>(stream));
      return outcome == success ? mark(api, post, stream) : outcome;
    };
    auto sent = in_context(*gpu_, send, [] { return "cannot send a batch's numbers to the GPU"; });
    post.in_flight = sent.has_value();
    return sent;
  }

  Result<void> ask(void* stream) override {
    Post& post = posts_[now_];
    const auto fetch = [&](const Api& api) {
      const Outcome outcome =
          api.MemcpyDtoHAsync(post.host + bytes_, block_.get(), sizeof(std::uint32_t), static_cast<Stream>(stream));
      return outcome == success ? mark(api, post, stream) : outcome;
    };
    auto asked = in_context(*gpu_, fetch, [] { return "cannot ask the GPU for its status word"; });
    if (asked) post.in_flight = post.asked = true;  // else what was posted may be in flight all the same
    return asked;
  }

  std::uint32_t answer() override { return std::exchange(answers_, 0); }

  Result<std::uint32_t> wait_for_answer() override {
    for (Post& post : posts_)
      if (auto over = finish(post); not over) return std::unexpected(std::move(over).error());
    return answer();
  }

 private:
  static constexpr std::size_t answer_bytes = 64;
  struct Post {
    std::byte* host = nullptr;  // the block, and the answer behind it
    Event event = nullptr;
    bool in_flight = false, asked = false;
  };
  GpuExchange(Gpu gpu, std::size_t bytes) : gpu_(std::move(gpu)), bytes_(bytes) {}

  /// Records that the GPU is done with a post when `stream` has come this far. Where that fails nothing would tell, and
  /// so it is waited for now.
  static Outcome mark(const Api& api, const Post& post, void* stream) {
    const Outcome outcome = api.EventRecord(post.event, static_cast<Stream>(stream));
    if (outcome != success) api.CtxSynchronize();
    return outcome;
  }

  /// Waits for what the GPU has yet to do with a post.
  Result<void> finish(Post& post) {
    if (not post.in_flight) return {};
    const auto wait = [&](const Api& api) { return api.EventSynchronize(post.event); };
    if (auto over = in_context(*gpu_, wait, [] { return "cannot wait for a batch"; }); not over) return over;
    std::uint32_t word = 0;
    if (post.asked) std::memcpy(&word, post.host + bytes_, sizeof word);
    answers_ |= word;
    post.in_flight = post.asked = false;
    return {};
  }

  Gpu gpu_;
  std::size_t bytes_, now_ = 0;
  std::shared_ptr<std::byte> block_;
  std::array<Post, 4> posts_;
  std::uint32_t answers_ = 0;
};

/// A module, unloaded with its last owner.
Result<std::shared_ptr<ModuleOfCuda>> load_module(const Gpu& gpu, const CodeObject& code) {
  // The driver reads PTX up to a zero.
  std::vector<std::byte> image = code.bytes;
  image.push_back(std::byte{0});
  std::array<char, 2048> log = {};
  JitOption options[] = {error_log_buffer, error_log_bytes};
  void* values[] = {log.data(), std::bit_cast<void*>(log.size())};
  const Current current(*gpu);
  Module module = nullptr;
  const Outcome outcome = current.outcome() == success
                              ? gpu->api().ModuleLoadDataEx(&module, image.data(), 2, options, values)
                              : current.outcome();
  if (outcome == success)
    return std::shared_ptr<ModuleOfCuda>(module, [gpu](Module loaded) {
      const Current for_unload(*gpu);
      gpu->api().ModuleUnload(loaded);
    });
  const std::string what = "the driver (" + gpu->driver().version_text() + ") refuses code for " +
                           to_string(code.target) + " of " + std::to_string(code.bytes.size()) + " bytes";
  auto failure = gpu->driver().failure(outcome, what).error();
  log.back() = 0;
  if (log[0] != 0) failure.message += std::string(": ") + log.data();
  if (outcome == unsupported_ptx_version or outcome == invalid_image)
    failure.message += "; it may be older than the compiler that made the code: a newer driver reads it, or tune again";
  if (outcome == out_of_memory) failure.message += "; the GPU has no memory left for it: " + free_memory(*gpu);
  if (outcome == no_binary_for_gpu) failure.status = Status::wrong_device;
  return std::unexpected(std::move(failure));
}

class GpuKernel final : public Kernel {
 public:
  static Result<std::unique_ptr<const Kernel>> load(const Gpu& gpu, const Plan& plan,
                                                    std::span<const CodeObject> code) {
    std::unique_ptr<GpuKernel> kernel(new GpuKernel(gpu, plan));
    for (const CodeObject& object : code) {
      auto module = load_module(gpu, object);
      if (not module) return std::unexpected(std::move(module).error());
      kernel->modules_.push_back(std::move(*module));
    }
    for (const Stage& stage : plan.stages) {
      if (stage.code >= code.size())
        return fail(Status::bad_pack, "stage " + in_quotes(stage.entry) + " names code object " +
                                          std::to_string(stage.code) + " of " + std::to_string(code.size()));
      auto function = kernel->prepare(stage);
      if (not function) return std::unexpected(std::move(function).error());
      kernel->functions_.push_back(*function);
    }
    return kernel;
  }

  const Plan& plan() const override { return plan_; }

  Result<void> launch(const Launch& launch) const override {
    const Current current(*gpu_);
    if (current.outcome() != success) [[unlikely]]
      return gpu_->driver().failure(current.outcome(), "cannot use the GPU's context");
    for (const Stage& stage : plan_.stages)
      if (const std::int64_t tasks = stage.tasks.at(launch.extents); tasks > most_tasks_ or tasks % stage.cluster != 0)
          [[unlikely]]
        return refuse_tasks(stage, tasks);
    bool begun = false;  // a stage of this call
    for (std::size_t i = 0; i < functions_.size(); ++i) {
      const Stage& stage = plan_.stages[i];
      const std::int64_t tasks = stage.tasks.at(launch.extents);
      if (tasks == 0) continue;
      std::uint64_t words[arg_count];
      EncodedMap maps[most_tensor_maps];
      void* parameters[arg_count + 1];
      const bool mapped = not stage.maps.empty() and
                          map_tensors(stage, launch.words, launch.extents, gpu_->api().TensorMapEncodeTiled, maps);
      for (std::size_t a = 0; a < stage.args.size(); ++a) {
        words[a] = stage.args[a] == Arg::mapped ? mapped : launch.words[stage.args[a]];
        parameters[a] = &words[a];
      }
      parameters[stage.args.size()] = maps;
      LaunchConfig config = config_of(stage);
      config.grid[0] = static_cast<unsigned>(tasks);
      config.stream = static_cast<Stream>(launch.stream);
      LaunchAttribute attributes[2];
      config.attributes = attributes;
      if (stage.cluster > 1) attributes[config.attribute_count++] = cluster_of(stage);
      if (stage.early and begun) attributes[config.attribute_count++] = early_start();
      begun = true;
      if (const Outcome outcome = gpu_->api().LaunchKernelEx(&config, functions_[i], parameters, nullptr);
          outcome != success) [[unlikely]]
        return gpu_->driver().failure(outcome, "the GPU refuses the launch of " + in_quotes(stage.entry) + " of " +
                                                   plan_.variant + " with " + std::to_string(tasks) + " blocks");
    }
    return {};
  }

 private:
  GpuKernel(Gpu gpu, const Plan& plan) : gpu_(std::move(gpu)), plan_(plan), most_tasks_(gpu_->attribute(max_grid_x)) {}

  static LaunchConfig config_of(const Stage& stage) {
    LaunchConfig config = {};
    std::ranges::fill(config.grid, 1u);
    std::ranges::copy(stage.block, config.block);
    config.shared_bytes = stage.shared_bytes;
    return config;
  }
  static LaunchAttribute cluster_of(const Stage& stage) {
    LaunchAttribute attribute = {};
    attribute.id = LaunchAttribute::cluster_dimension;
    attribute.cluster = {stage.cluster, 1, 1};
    return attribute;
  }
  static LaunchAttribute early_start() {
    LaunchAttribute attribute = {};
    attribute.id = LaunchAttribute::programmatic_stream_serialization;
    attribute.programmatic_stream_serialization_allowed = 1;
    return attribute;
  }

  [[gnu::cold]] std::unexpected<Error> refuse_tasks(const Stage& stage, std::int64_t tasks) const {
    const std::string of = in_quotes(stage.entry) + " of " + plan_.variant + " takes " + std::to_string(tasks);
    if (tasks > most_tasks_)
      return fail(Status::unsupported, of + " blocks for this shape; a grid holds " + std::to_string(most_tasks_));
    return fail(Status::bad_pack,
                of + " blocks, which clusters of " + std::to_string(stage.cluster) + " do not divide");
  }

  /// Finds the entry and holds what the stage asks for against what the kernel and the GPU allow.
  Result<Function> prepare(const Stage& stage) {
    const Current current(*gpu_);
    const Api& api = gpu_->api();
    const std::string named = in_quotes(stage.entry) + " of " + plan_.variant;
    Function function = nullptr;
    Outcome outcome = current.outcome();
    if (outcome == success) outcome = api.ModuleGetFunction(&function, modules_[stage.code].get(), stage.entry.c_str());
    if (outcome == not_found) return fail(Status::bad_pack, "the code object has no entry " + named);
    if (outcome != success) return gpu_->driver().failure(outcome, "cannot load " + named);
    if (auto taken = check_parameters(function, stage, named); not taken) return std::unexpected(taken.error());

    const auto limit = [&](const char* what, std::int64_t wanted, std::int64_t most) -> Result<void> {
      if (wanted <= most) return {};
      return fail(Status::unsupported, named + " wants " + std::to_string(wanted) + " " + what +
                                           "; it can have at most " + std::to_string(most) + " here");
    };
    const auto attribute = [&](FunctionAttribute which) {
      int value = 0;
      return api.FuncGetAttribute(&value, which, function) == success ? value : 0;
    };
    const std::int64_t threads = std::int64_t{stage.block[0]} * stage.block[1] * stage.block[2];
    const std::int64_t fixed = attribute(function_shared_bytes);
    const std::int64_t most_shared = gpu_->attribute(shared_bytes_per_block_optin);
    if (auto ok = limit("threads in a block", threads, attribute(function_max_threads)); not ok)
      return std::unexpected(ok.error());
    if (auto ok = limit("bytes of shared memory", fixed + stage.shared_bytes, most_shared); not ok)
      return std::unexpected(ok.error());
    constexpr std::uint32_t portable_cluster = 8;
    const std::int64_t most_cluster = gpu_->attribute(cluster_launch) == 0 ? 1 : 2 * portable_cluster;
    if (auto ok = limit("blocks in a cluster", stage.cluster, most_cluster); not ok) return std::unexpected(ok.error());

    // Stages may share a function: it gets what the most demanding one asks for.
    std::uint32_t dynamic_shared = stage.shared_bytes;
    for (std::size_t i = 0; i < functions_.size(); ++i)
      if (functions_[i] == function) dynamic_shared = std::max(dynamic_shared, plan_.stages[i].shared_bytes);
    outcome = api.FuncSetAttribute(function, function_max_dynamic_shared, static_cast<int>(dynamic_shared));
    if (outcome == success and stage.cluster > portable_cluster)
      outcome = api.FuncSetAttribute(function, function_non_portable_cluster, 1);
    if (outcome != success) return gpu_->driver().failure(outcome, "the driver refuses what " + named + " asks for");
    if (stage.cluster > 1) {
      LaunchConfig config = config_of(stage);
      config.grid[0] = stage.cluster;
      LaunchAttribute cluster = cluster_of(stage);
      config.attributes = &cluster;
      config.attribute_count = 1;
      int fit = 0;
      outcome = api.OccupancyMaxActiveClusters(&fit, function, &config);
      if (outcome != success) return gpu_->driver().failure(outcome, "the driver refuses the clusters of " + named);
      if (fit < 1)
        return fail(Status::unsupported, named + ": no cluster of " + std::to_string(stage.cluster) + " blocks with " +
                                             std::to_string(fixed + stage.shared_bytes) +
                                             " bytes of shared memory each fits the GPU");
    }
    return function;
  }

  /// The driver reads as many parameters as the kernel declares: no fewer may be given. Older drivers cannot be asked.
  Result<void> check_parameters(Function function, const Stage& stage, const std::string& named) const {
    if (stage.args.size() > arg_count)
      return fail(Status::bad_pack, named + " has " + std::to_string(stage.args.size()) + " arguments, more than the " +
                                        std::to_string(arg_count) + " there are");
    if (stage.maps.size() > most_tensor_maps)
      return fail(Status::bad_pack, named + " has " + std::to_string(stage.maps.size()) +
                                        " tensor maps, more than the " + std::to_string(most_tensor_maps) + " allowed");
    if (gpu_->api().FuncGetParamInfo == nullptr) return {};
    const auto is_of = [&](std::size_t index, std::size_t size) {
      std::size_t offset = 0, bytes = 0;
      return gpu_->api().FuncGetParamInfo(function, index, &offset, &bytes) == success and bytes == size;
    };
    std::size_t count = 0;
    while (count < stage.args.size() and is_of(count, sizeof(std::uint64_t))) ++count;
    bool same = count == stage.args.size();
    if (same and not stage.maps.empty()) same = is_of(count++, stage.maps.size() * sizeof(EncodedMap));
    std::size_t offset = 0, bytes = 0;
    if (same and gpu_->api().FuncGetParamInfo(function, count, &offset, &bytes) != success) return {};
    return fail(Status::bad_pack,
                named + " takes other parameters than the " + std::to_string(stage.args.size()) + " words of 64 bits" +
                    (stage.maps.empty() ? "" : " and " + std::to_string(stage.maps.size()) + " tensor maps") +
                    " that its stage gives");
  }

  Gpu gpu_;
  Plan plan_;
  std::int64_t most_tasks_;
  std::vector<std::shared_ptr<ModuleOfCuda>> modules_;
  std::vector<Function> functions_;  // one per stage
};

class GpuDevice final : public Device {
 public:
  GpuDevice(Gpu gpu, DeviceInfo info) : Device(std::move(info), 1), gpu_(std::move(gpu)) {
    major_ = gpu_->attribute(compute_major);
    minor_ = gpu_->attribute(compute_minor);
  }

  bool runs(const Target& target) const override {
    return target.kind == Target::Kind::cuda and cuda_arch(target).runs_on(major_, minor_);
  }

  Result<std::unique_ptr<const Kernel>> load(const Plan& plan, std::span<const CodeObject> code) override {
    for (const CodeObject& object : code) {
      const bool is_cuda = object.format != CodeObject::Format::shared_object;
      if (not is_cuda or not runs(object.target))
        return fail(Status::wrong_device, "code for " + to_string(object.target) + " does not run on " + info().name +
                                              ", which takes code for " + target());
    }
    if (not runs(plan.target))
      return fail(Status::wrong_device, "a plan for " + to_string(plan.target) + " does not run on " + info().name +
                                            ", which takes code for " + target());
    return GpuKernel::load(gpu_, plan, code);
  }

  const void* memory_space() const override { return gpu_->context(); }
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes) override { return allocate_on(gpu_, bytes); }
  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t bytes) override { return GpuExchange::make(gpu_, bytes); }

  Result<void> copy_to_device(std::byte* to, std::span<const std::byte> from) override {
    const auto copy = [&](const Api& api) {
      // From pageable memory the driver may return while the bytes are on their way, which other streams do not await.
      const Outcome outcome = api.MemcpyHtoD(to, from.data(), from.size());
      return outcome == success ? api.StreamSynchronize(nullptr) : outcome;
    };
    return in_context(*gpu_, copy, [&] { return "cannot copy " + std::to_string(from.size()) + " bytes to the GPU"; });
  }
  Result<void> copy_from_device(std::span<std::byte> to, const std::byte* from) override {
    const auto copy = [&](const Api& api) {
      return api.MemcpyDtoH(to.data(), const_cast<std::byte*>(from), to.size());
    };
    return in_context(*gpu_, copy, [&] { return "cannot copy " + std::to_string(to.size()) + " bytes from the GPU"; });
  }
  Result<void> wait() override {
    const auto wait_for_all = [](const Api& api) { return api.CtxSynchronize(); };
    return in_context(*gpu_, wait_for_all, [] { return "cannot wait for the GPU"; });
  }
  Result<bool> is_capturing(void* stream) const override {
    const Current current(*gpu_);
    int status = 0;
    Outcome outcome = current.outcome();
    if (outcome == success) outcome = gpu_->api().StreamIsCapturing(static_cast<Stream>(stream), &status);
    if (outcome == capture_implicit) return true;  // the default stream, which waits for one that is captured
    if (outcome != success) return gpu_->driver().failure(outcome, "cannot ask whether the stream is being captured");
    return status != 0;
  }

 private:
  Gpu gpu_;
  int major_ = 0, minor_ = 0;
};

}  // namespace

Result<DeviceInfo> describe_gpu(const Driver& driver, int ordinal) {
  const Api& api = driver.api();
  DeviceNumber device = 0;
  if (const Outcome outcome = api.DeviceGet(&device, ordinal); outcome != success)
    return driver.failure(outcome,
                          "there is no GPU " + std::to_string(ordinal) + " of " + std::to_string(driver.devices()));
  const auto attribute = [&](DeviceAttribute which) {
    int value = 0;
    return api.DeviceGetAttribute(&value, which, device) == success ? value : 0;
  };
  std::array<char, 256> name = {};
  if (const Outcome outcome = api.DeviceGetName(name.data(), static_cast<int>(name.size()) - 1, device);
      outcome != success)
    return driver.failure(outcome, "cannot ask for the name of GPU " + std::to_string(ordinal));
  DeviceInfo info;
  info.name = name.data();
  info.target = gpu_target(attribute(compute_major), attribute(compute_minor));
  info.units = attribute(multiprocessors);
  info.l1_bytes = attribute(shared_bytes_per_sm);
  info.l2_bytes = attribute(l2_bytes);
  constexpr std::int64_t transfers_a_clock = 2;
  info.memory_rate = transfers_a_clock * 1000 * attribute(memory_clock_khz) * (attribute(memory_bus_bits) / 8);
  return info;
}

std::string bus_id_of_gpu(const Driver& driver, int ordinal) {
  DeviceNumber device = 0;
  std::array<char, 64> text = {};
  const bool known = driver.api().DeviceGet(&device, ordinal) == success and
                     driver.api().DeviceGetPCIBusId(text.data(), static_cast<int>(text.size()) - 1, device) == success;
  return known ? text.data() : "";
}

Result<std::shared_ptr<Device>> open_gpu(const Driver& driver, int ordinal) {
  auto info = describe_gpu(driver, ordinal);
  if (not info) return std::unexpected(std::move(info).error());
  auto gpu = Retained::retain(driver, ordinal);
  if (not gpu) return std::unexpected(std::move(gpu).error());
  return std::make_shared<GpuDevice>(std::move(*gpu), std::move(*info));
}

}  // namespace glaive
