#include "tests/runtime/cuda/stub.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "runtime/cuda_driver.hpp"

using namespace glaive::cuda;

// Whatever a test finds in the driver's structures.
struct glaive::cuda::ContextOfCuda {
  int device = 0, users = 0;
};
struct glaive::cuda::FunctionOfCuda {
  std::string entry;
  glaive::testing::StubKernel kernel;
  int dynamic_shared = 0;
};
struct glaive::cuda::ModuleOfCuda {
  std::map<std::string, FunctionOfCuda> functions;  // one handle for each name
};
struct glaive::cuda::EventOfCuda {
  std::size_t at = 0;  // how much must have run
  double microseconds = 0;
  void* stream = nullptr;
  bool captured = false, recorded = false;
};
struct glaive::cuda::StreamOfCuda {
  int unused = 0;
};
using Recorded = std::vector<std::function<void()>>;
struct glaive::cuda::GraphOfCuda {
  Recorded work;
};
struct glaive::cuda::GraphExecOfCuda {
  Recorded work;
};

namespace glaive::testing {
namespace {

constexpr int gpus = 2;
constexpr Outcome capture_unsupported = static_cast<Outcome>(900), captured_event = static_cast<Outcome>(907);
constexpr std::size_t default_memory = std::size_t{1} << 28;

class TheStub final : public Stub {
 public:
  void reset() override {
    run_all();
    const std::lock_guard lock(mutex_);
    kernels_.clear(), failures_.clear(), launches_.clear(), calls_.clear(), captures_.clear();
    sticky_ = success;
    memory_ = default_memory;
    jit_log_.clear();
  }
  void set_kernel(const std::string& entry, const StubKernel& kernel) override { kernels_[entry] = kernel; }
  void fail(const std::string& function, int outcome, int calls) override { failures_[function] = {outcome, calls}; }
  void set_memory(std::size_t bytes) override { memory_ = bytes; }
  void set_jit_log(const std::string& text) override { jit_log_ = text; }
  const std::vector<StubLaunch>& launches() const override { return launches_; }
  const std::vector<std::string>& calls() const override { return calls_; }
  std::size_t allocations() const override { return device_blocks_.size() + host_blocks_.size() + objects_; }
  std::size_t contexts() const override { return static_cast<std::size_t>(contexts_[0].users + contexts_[1].users); }
  void run_all() override {
    const std::lock_guard lock(mutex_);
    run_where([](const Work&) { return true; });
  }
  enum class Needs : std::uint8_t { nothing, context, context_to_free };
  /// Every function of the driver comes through here; `body` makes its outcome.
  template <class Body>
  Outcome call(const char* name, Needs needs, Body&& body) {
    const bool needs_context = needs != Needs::nothing;
    const std::lock_guard lock(mutex_);
    calls_.emplace_back(name);
    if (const auto planned = failures_.find(name); planned != failures_.end() and planned->second.calls-- == 0) {
      const auto outcome = static_cast<Outcome>(planned->second.outcome);
      failures_.erase(planned);
      if (breaks(outcome)) sticky_ = outcome;
      return outcome;
    }
    if (sticky_ != success and needs_context) {
      if (needs == Needs::context_to_free) body();  // the driver keeps it until the process ends: a leak only here
      return sticky_;
    }
    if (needs_context and current().empty()) return invalid_context;
    const Outcome outcome = body();
    return sticky_ != success and needs_context ? sticky_ : outcome;  // of what ran meanwhile
  }

  /// What a test has set, or a library holds.
  const StubKernel* find_kernel(const std::string& entry) {
    if (const auto known = kernels_.find(entry); known != kernels_.end()) return &known->second;
    const char* const library = std::getenv("STUB_KERNELS");
    void* const opened = library == nullptr ? nullptr : dlopen(library, RTLD_NOW | RTLD_LOCAL);
    auto* const find =
        opened == nullptr ? nullptr : reinterpret_cast<FindStubKernel*>(dlsym(opened, "find_stub_kernel"));
    StubKernel found;
    return find != nullptr and find(entry.c_str(), &found) ? &(kernels_[entry] = found) : nullptr;
  }

  std::vector<Context>& current() {
    thread_local std::vector<Context> stack;
    return stack;
  }
  Context context(int device) { return &contexts_[device]; }

  void enqueue(void* stream, std::function<void()> work, int microseconds = 1) {
    if (const auto capture = captures_.find(stream); capture != captures_.end()) {
      capture->second.push_back(std::move(work));
    } else {
      queue_.push_back({enqueued_++, stream, std::move(work)});
      clock_ += microseconds;
    }
  }
  /// What a wait for `stream` waits for, of the first `count` pieces of work: the stream's own if it is non-blocking,
  /// else all that is not on such streams.
  void run_for(void* stream, std::size_t count) {
    const bool alone = non_blocking_.contains(stream);
    run_where([&](const Work& work) {
      return work.number < count and (alone ? work.stream == stream : not non_blocking_.contains(work.stream));
    });
  }
  void run_for(void* stream) { run_for(stream, enqueued_); }
  bool capturing() const { return not captures_.empty(); }
  bool capturing(void* stream) const { return captures_.contains(stream); }
  bool capturing_blocking() const {
    return std::ranges::any_of(captures_, [&](const auto& c) { return not non_blocking_.contains(c.first); });
  }

  Outcome allocate(Address* address, std::size_t bytes) {
    if (capturing()) return capture_unsupported;
    if (bytes > free_bytes()) return out_of_memory;
    void* const block = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (block == nullptr) return out_of_memory;
    std::memset(block, 0xa5, bytes);
    *address = block;
    device_blocks_[*address] = bytes;
    return success;
  }
  Outcome free(Address address) {
    if (device_blocks_.erase(address) == 0) return invalid_value;
    run_all();
    std::free(address);
    return success;
  }
  std::size_t free_bytes() const {
    std::size_t used = 0;
    for (const auto& [address, bytes] : device_blocks_) used += bytes;
    return used > memory_ ? 0 : memory_ - used;
  }
  /// Whether a range lies in a block of device memory.
  bool is_device(Address address, std::size_t bytes) const {
    const auto after = device_blocks_.upper_bound(address);
    if (after == device_blocks_.begin()) return false;
    const auto& [begin, size] = *std::prev(after);
    return static_cast<char*>(address) + bytes <= static_cast<char*>(begin) + size;
  }

  static bool breaks(Outcome outcome) {
    const bool hardware = outcome == ecc_uncorrectable or outcome == nvlink_uncorrectable or outcome == contained;
    return hardware or
           (outcome >= illegal_address and outcome <= tensor_memory_leak and outcome != launch_out_of_resources);
  }

  struct Failure {
    int outcome, calls;
  };
  struct Work {
    std::size_t number;
    void* stream;
    std::function<void()> run;
  };
  template <class Wanted>
  void run_where(Wanted wanted) {
    for (std::size_t i = 0; i < queue_.size();) {
      if (not wanted(queue_[i])) {
        ++i;
        continue;
      }
      const Work work = std::move(queue_[i]);
      queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(i));
      work.run();
      ++ran_;
    }
  }
  std::recursive_mutex mutex_;  // a kernel's body may ask the stub
  std::map<std::string, StubKernel> kernels_;
  std::map<std::string, Failure> failures_;
  std::map<Address, std::size_t> device_blocks_;
  std::map<void*, std::size_t> host_blocks_;
  std::map<void*, Recorded> captures_;
  std::set<void*> non_blocking_;
  std::vector<Work> queue_;
  std::size_t enqueued_ = 0, objects_ = 0, memory_ = default_memory;
  std::vector<StubLaunch> launches_;
  std::vector<std::string> calls_;
  std::string jit_log_;
  Outcome sticky_ = success;
  double clock_ = 0;  // microseconds of all that was enqueued
  double ran_ = 0;    // pieces of work that ran
  ContextOfCuda contexts_[gpus] = {{0, 0}, {1, 0}};
};

TheStub& the_stub() {
  static TheStub made;
  return made;
}

}  // namespace
}  // namespace glaive::testing

using namespace glaive::testing;

#define STUB(name, needs, ...) return the_stub().call(name, TheStub::Needs::needs, [&]() -> Outcome __VA_ARGS__)

extern "C" {

Stub* make_stub() { return &the_stub(); }

Outcome cuInit(unsigned) {
  STUB("Init", nothing, { return success; });
}
Outcome cuDriverGetVersion(int* version) {
  const char* const wanted = std::getenv("STUB_DRIVER_VERSION");
  *version = wanted == nullptr ? 13000 : std::atoi(wanted);
  return success;
}
Outcome cuGetErrorName(Outcome outcome, const char** name) {
  *name = outcome == out_of_memory        ? "CUDA_ERROR_OUT_OF_MEMORY"
          : outcome == illegal_address    ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : outcome == assertion          ? "CUDA_ERROR_ASSERT"
          : outcome == misaligned_address ? "CUDA_ERROR_MISALIGNED_ADDRESS"
          : outcome < 1000                ? "CUDA_ERROR_OF_THE_STUB"
                                          : nullptr;
  return *name == nullptr ? invalid_value : success;
}
Outcome cuGetErrorString(Outcome outcome, const char** text) {
  *text = outcome < 1000 ? "text of the stub" : nullptr;
  return *text == nullptr ? invalid_value : success;
}
Outcome cuDeviceGetCount(int* count) {
  const char* const wanted = std::getenv("STUB_GPUS");
  STUB("DeviceGetCount", nothing, {
    *count = wanted == nullptr ? gpus : std::atoi(wanted);
    return success;
  });
}
Outcome cuDeviceGet(DeviceNumber* device, int ordinal) {
  STUB("DeviceGet", nothing, {
    if (ordinal < 0 or ordinal >= gpus) return invalid_device;
    *device = ordinal;
    return success;
  });
}
Outcome cuDeviceGetName(char* name, int bytes, DeviceNumber device) {
  STUB("DeviceGetName", nothing, {
    std::snprintf(name, static_cast<std::size_t>(bytes), "Stub GPU %d", device);
    return success;
  });
}
Outcome cuDeviceGetAttribute(int* value, DeviceAttribute attribute, DeviceNumber device) {
  STUB("DeviceGetAttribute", nothing, {
    // An H100, and a GPU of compute capability 8.6.
    static const std::map<int, int> h100 = {
        {max_grid_x, 2147483647}, {multiprocessors, 132},        {memory_clock_khz, 2619000},
        {memory_bus_bits, 5120},  {l2_bytes, 52428800},          {compute_major, 9},
        {compute_minor, 0},       {shared_bytes_per_sm, 233472}, {shared_bytes_per_block_optin, 232448},
        {cluster_launch, 1}};
    const auto found = h100.find(attribute);
    if (found == h100.end()) return invalid_value;
    *value = found->second;
    // The less there is, the less has to be flushed.
    if (const char* const wanted = std::getenv("STUB_L2_BYTES"); wanted != nullptr and attribute == l2_bytes)
      *value = std::atoi(wanted);
    // A GPU of another generation: 99 is compute capability 9.9.
    if (const char* const wanted = std::getenv("STUB_COMPUTE"); wanted != nullptr and device == 0) {
      if (attribute == compute_major) *value = std::atoi(wanted) / 10;
      if (attribute == compute_minor) *value = std::atoi(wanted) % 10;
    }
    if (device == 1 and attribute == compute_major) *value = 8;
    if (device == 1 and attribute == compute_minor) *value = 6;
    if (device == 1 and attribute == cluster_launch) *value = 0;
    if (device == 1 and attribute == shared_bytes_per_block_optin) *value = 101376;
    return success;
  });
}
Outcome cuDeviceGetPCIBusId(char* text, int bytes, DeviceNumber device) {
  STUB("DeviceGetPCIBusId", nothing, {
    std::snprintf(text, static_cast<std::size_t>(bytes), "0000:0%d:00.0", device);
    return success;
  });
}
Outcome cuDevicePrimaryCtxRetain(Context* context, DeviceNumber device) {
  STUB("DevicePrimaryCtxRetain", nothing, {
    *context = the_stub().context(device);
    ++(*context)->users;
    return success;
  });
}
Outcome cuDevicePrimaryCtxRelease_v2(DeviceNumber device) {
  STUB("DevicePrimaryCtxRelease", nothing, {
    --the_stub().context(device)->users;
    return success;
  });
}
Outcome cuCtxGetCurrent(Context* context) {
  STUB("CtxGetCurrent", nothing, {
    const auto& stack = the_stub().current();
    *context = stack.empty() ? nullptr : stack.back();
    return success;
  });
}
Outcome cuCtxPushCurrent_v2(Context context) {
  STUB("CtxPushCurrent", nothing, {
    if (context == nullptr or context->users == 0) return invalid_context;
    the_stub().current().push_back(context);
    return success;
  });
}
Outcome cuCtxPopCurrent_v2(Context* context) {
  STUB("CtxPopCurrent", nothing, {
    auto& stack = the_stub().current();
    if (stack.empty()) return invalid_context;
    *context = stack.back();
    stack.pop_back();
    return success;
  });
}
Outcome cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  STUB("MemGetInfo", context, {
    *free = the_stub().free_bytes();
    *total = the_stub().memory_;
    return success;
  });
}
Outcome cuMemAlloc_v2(Address* address, std::size_t bytes) {
  STUB("MemAlloc", context, { return the_stub().allocate(address, bytes); });
}
Outcome cuMemFree_v2(Address address) {
  STUB("MemFree", context_to_free, { return the_stub().free(address); });
}
Outcome cuMemHostAlloc(void** block, std::size_t bytes, unsigned) {
  STUB("MemHostAlloc", context, {
    if (the_stub().capturing()) return capture_unsupported;
    *block = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    the_stub().host_blocks_[*block] = bytes;
    return success;
  });
}
Outcome cuMemFreeHost(void* block) {
  STUB("MemFreeHost", context_to_free, {
    if (the_stub().host_blocks_.erase(block) == 0) return invalid_value;
    the_stub().run_all();
    std::free(block);
    return success;
  });
}
Outcome cuMemcpyHtoD_v2(Address to, const void* from, std::size_t bytes) {
  STUB("MemcpyHtoD", context, {
    if (the_stub().capturing()) return capture_unsupported;
    if (not the_stub().is_device(to, bytes)) return invalid_value;
    the_stub().run_for(nullptr);
    std::memcpy(to, from, bytes);
    return success;
  });
}
Outcome cuMemcpyDtoH_v2(void* to, Address from, std::size_t bytes) {
  STUB("MemcpyDtoH", context, {
    if (the_stub().capturing()) return capture_unsupported;
    if (not the_stub().is_device(from, bytes)) return invalid_value;
    the_stub().run_for(nullptr);
    std::memcpy(to, from, bytes);
    return success;
  });
}
Outcome cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, Stream stream) {
  STUB("MemcpyHtoDAsync", context, {
    if (not the_stub().is_device(to, bytes)) return invalid_value;
    the_stub().enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    return success;
  });
}
Outcome cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, Stream stream) {
  STUB("MemcpyDtoHAsync", context, {
    if (not the_stub().is_device(from, bytes)) return invalid_value;
    the_stub().enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    return success;
  });
}
Outcome cuMemsetD32Async(Address to, unsigned value, std::size_t count, Stream stream) {
  STUB("MemsetD32Async", context, {
    if (not the_stub().is_device(to, 4 * count)) return invalid_value;
    the_stub().enqueue(stream, [=] { std::fill_n(reinterpret_cast<unsigned*>(to), count, value); });
    return success;
  });
}
Outcome cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, Stream stream) {
  STUB("MemcpyDtoDAsync", context, {
    if (not the_stub().is_device(to, bytes) or not the_stub().is_device(from, bytes)) return invalid_value;
    the_stub().enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    return success;
  });
}
Outcome cuEventCreate(Event* event, unsigned) {
  STUB("EventCreate", context, {
    *event = new EventOfCuda;
    ++the_stub().objects_;
    return success;
  });
}
Outcome cuEventDestroy_v2(Event event) {
  STUB("EventDestroy", context_to_free, {
    delete event;
    --the_stub().objects_;
    return success;
  });
}
Outcome cuEventRecord(Event event, Stream stream) {
  STUB("EventRecord", context, {
    event->at = the_stub().enqueued_;
    event->microseconds = the_stub().clock_;
    event->stream = stream;
    event->captured = the_stub().capturing(stream);
    event->recorded = true;
    return success;
  });
}
Outcome cuEventRecordWithFlags(Event event, Stream stream, unsigned flags) {
  constexpr unsigned external = 1;  // in a graph: recorded whenever that runs
  if (flags != external or not the_stub().capturing(stream)) return cuEventRecord(event, stream);
  STUB("EventRecordWithFlags", context, {
    the_stub().enqueue(stream, [=] {
      event->microseconds = the_stub().ran_--;  // itself takes no time
      event->recorded = true;
    });
    return success;
  });
}
Outcome cuEventSynchronize(Event event) {
  STUB("EventSynchronize", context, {
    if (the_stub().capturing()) return capture_unsupported;
    if (event->captured) return captured_event;
    the_stub().run_for(event->stream, event->at);
    return success;
  });
}
Outcome cuEventElapsedTime(float* milliseconds, Event from, Event to) {
  // A microsecond for each piece of work between them, and what kernels say.
  STUB("EventElapsedTime", context, {
    if (not from->recorded or not to->recorded) return static_cast<Outcome>(400);  // an invalid handle
    *milliseconds = static_cast<float>(1e-3 * (to->microseconds - from->microseconds));
    return success;
  });
}
Outcome cuStreamIsCapturing(Stream stream, int* status) {
  STUB("StreamIsCapturing", context, {
    *status = the_stub().capturing(stream) ? 1 : 0;
    const bool implied = stream == nullptr and * status == 0 and the_stub().capturing_blocking();
    return implied ? capture_implicit : success;
  });
}
Outcome cuStreamCreate(Stream* stream, unsigned flags) {
  STUB("StreamCreate", context, {
    *stream = new StreamOfCuda;
    if (flags == 1) the_stub().non_blocking_.insert(*stream);
    return success;
  });
}
Outcome cuStreamDestroy_v2(Stream stream) {
  STUB("StreamDestroy", context_to_free, {
    the_stub().run_for(stream);
    the_stub().non_blocking_.erase(stream);
    delete stream;
    return success;
  });
}
Outcome cuStreamSynchronize(Stream stream) {
  STUB("StreamSynchronize", context, {
    if (the_stub().capturing()) return capture_unsupported;
    the_stub().run_for(stream);
    return success;
  });
}
Outcome cuCtxSynchronize() {
  STUB("CtxSynchronize", context, {
    if (the_stub().capturing()) return capture_unsupported;
    the_stub().run_all();
    return success;
  });
}
Outcome cuStreamBeginCapture_v2(Stream stream, int) {
  STUB("StreamBeginCapture", context, {
    the_stub().captures_[stream];
    return success;
  });
}
Outcome cuStreamEndCapture(Stream stream, Graph* graph) {
  STUB("StreamEndCapture", context, {
    *graph = new GraphOfCuda{std::move(the_stub().captures_.at(stream))};
    the_stub().captures_.erase(stream);
    return success;
  });
}
Outcome cuGraphInstantiateWithFlags(GraphExec* executable, Graph graph, unsigned long long) {
  STUB("GraphInstantiate", context, {
    *executable = new GraphExecOfCuda{graph->work};
    return success;
  });
}
Outcome cuGraphLaunch(GraphExec executable, Stream stream) {
  STUB("GraphLaunch", context, {
    for (const auto& work : executable->work) the_stub().enqueue(stream, work);
    return success;
  });
}
Outcome cuGraphDestroy(Graph graph) {
  STUB("GraphDestroy", nothing, {
    delete graph;
    return success;
  });
}
Outcome cuGraphExecDestroy(GraphExec executable) {
  delete executable;
  return success;
}
Outcome cuModuleLoadDataEx(Module* module, const void*, unsigned options, JitOption* names, void** values) {
  const auto write_log = [&] {
    for (unsigned i = 0; i < options; ++i)
      if (names[i] == error_log_buffer) std::strcpy(static_cast<char*>(values[i]), the_stub().jit_log_.c_str());
  };
  write_log();
  STUB("ModuleLoadDataEx", context, {
    if (the_stub().capturing()) return capture_unsupported;
    *module = new ModuleOfCuda;
    ++the_stub().objects_;
    return success;
  });
}
Outcome cuModuleLoadData(Module* module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
Outcome cuModuleUnload(Module module) {
  STUB("ModuleUnload", context_to_free, {
    delete module;
    --the_stub().objects_;
    return success;
  });
}
Outcome cuModuleGetFunction(Function* function, Module module, const char* name) {
  STUB("ModuleGetFunction", context, {
    const StubKernel* const kernel = the_stub().find_kernel(name);
    if (kernel == nullptr) return not_found;
    *function = &module->functions.try_emplace(name, FunctionOfCuda{name, *kernel, 0}).first->second;
    return success;
  });
}
Outcome cuFuncGetAttribute(int* value, FunctionAttribute attribute, Function function) {
  STUB("FuncGetAttribute", context, {
    *value = attribute == function_max_threads    ? function->kernel.max_threads
             : attribute == function_shared_bytes ? function->kernel.shared_bytes
                                                  : 0;
    return success;
  });
}
Outcome cuFuncSetAttribute(Function function, FunctionAttribute attribute, int value) {
  STUB("FuncSetAttribute", context, {
    if (attribute == function_max_dynamic_shared) function->dynamic_shared = value;
    return success;
  });
}
Outcome cuFuncGetParamInfo(Function function, std::size_t index, std::size_t* offset, std::size_t* bytes) {
  STUB("FuncGetParamInfo", context, {
    const StubKernel& kernel = function->kernel;
    if (index >= kernel.words + (kernel.maps > 0 ? 1 : 0)) return invalid_value;
    *offset = index * 8;
    *bytes = index < kernel.words ? kernel.word_bytes : kernel.maps * sizeof(EncodedMap);
    return success;
  });
}
Outcome cuOccupancyMaxActiveClusters(int* clusters, Function, const LaunchConfig* config) {
  STUB("OccupancyMaxActiveClusters", context, {
    *clusters = config->shared_bytes > 200000 ? 0 : 8;
    return success;
  });
}
Outcome cuTensorMapEncodeTiled(EncodedMap* encoded, MapElements elements, std::uint32_t rank, Address base,
                               const std::uint64_t* extents, const std::uint64_t* strides, const std::uint32_t* box,
                               const std::uint32_t* steps, MapInterleave, MapSwizzle swizzle, MapPromotion promotion,
                               MapFill) {
  STUB("TensorMapEncodeTiled", nothing, {
    if (rank != 3 or std::bit_cast<std::uintptr_t>(base) % 16 != 0) return invalid_value;
    for (int i = 0; i < 3; ++i)
      if (extents[i] < 1 or extents[i] >> 32 != 0 or box[i] < 1 or box[i] > 256 or steps[i] != 1) return invalid_value;
    for (int i = 0; i < 2; ++i)
      if (strides[i] % 16 != 0 or strides[i] >> 40 != 0) return invalid_value;
    StubMap map;
    map.base = base;
    std::copy_n(extents, 3, map.extents);
    std::copy_n(strides, 2, map.strides);
    std::copy_n(box, 3, map.box);
    map.elements = elements, map.swizzle = swizzle, map.promotion = promotion;
    static_assert(sizeof map == sizeof *encoded);
    std::memcpy(encoded, &map, sizeof map);
    return success;
  });
}
Outcome cuLaunchKernelEx(const LaunchConfig* config, Function function, void** parameters, void**) {
  STUB("LaunchKernelEx", context, {
    const StubKernel& kernel = function->kernel;
    const unsigned threads = config->block[0] * config->block[1] * config->block[2];
    if (config->grid[0] == 0 or threads > static_cast<unsigned>(kernel.max_threads)) return invalid_value;
    if (config->shared_bytes > 48 * 1024 and config->shared_bytes > static_cast<unsigned>(function->dynamic_shared))
      return invalid_value;
    StubLaunch launch;
    launch.entry = function->entry;
    std::copy_n(config->grid, 3, launch.grid);
    std::copy_n(config->block, 3, launch.block);
    launch.shared_bytes = config->shared_bytes;
    for (unsigned i = 0; i < config->attribute_count; ++i)
      if (config->attributes[i].id == LaunchAttribute::cluster_dimension)
        launch.cluster = config->attributes[i].cluster.x;
      else if (config->attributes[i].id == LaunchAttribute::programmatic_stream_serialization)
        launch.early = config->attributes[i].programmatic_stream_serialization_allowed == 1;
    launch.stream = config->stream;
    for (std::size_t i = 0; i < kernel.words; ++i) launch.words.push_back(*static_cast<std::uint64_t*>(parameters[i]));
    launch.maps.resize(kernel.maps);
    for (std::size_t i = 0; i < kernel.maps; ++i)
      std::memcpy(static_cast<void*>(&launch.maps[i]), static_cast<EncodedMap*>(parameters[kernel.words]) + i,
                  sizeof(EncodedMap));
    const auto run = [launch, body = kernel.body] {
      if (body != nullptr) body(launch);
      if (launch.breaks != 0) the_stub().sticky_ = static_cast<Outcome>(launch.breaks);
      the_stub().launches_.push_back(launch);
    };
    the_stub().enqueue(config->stream, run, kernel.microseconds);
    return success;
  });
}
Outcome cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters,
                       void** extra) {
  const LaunchConfig config = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, nullptr, 0};
  return cuLaunchKernelEx(&config, function, parameters, extra);
}

// NVML, as far as it is asked.
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int) { return "text of the stub"; }
int nvmlSystemGetDriverVersion(char* text, unsigned bytes) {
  std::snprintf(text, bytes, "580.1");
  return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  *device = the_stub().context(0);
  return std::string(id) == "0000:00:00.0" ? 0 : 6;
}
int nvmlDeviceGetClockInfo(void*, int clock, unsigned* mhz) {
  *mhz = clock == 1 ? 1755 : 2619;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, int, unsigned* mhz) {
  *mhz = 1980;
  return 0;
}
int nvmlDeviceGetPowerUsage(void*, unsigned* milliwatts) {
  *milliwatts = 699'500;
  return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700'000;
  return 0;
}
int nvmlDeviceGetTemperature(void*, int, unsigned*) { return 3; }  // not supported
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  *reasons = 4;
  return 0;
}

}  // extern "C"
