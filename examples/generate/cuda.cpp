// A GPU: products by cuBLAS in bf16 with f32 sums, the rest by kernels that NVRTC compiles when the device is opened.
#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "examples/generate/cuda_api.hpp"
#include "examples/generate/cuda_kernels.hpp"
#include "examples/generate/device.hpp"
#include "examples/generate/failure.hpp"

namespace generate {
namespace {

using cuda::check;

constexpr std::size_t steps_ahead = 2;

int ordinal(const std::string& name) {
  if (!name.starts_with("cuda:") || name.find_first_not_of("0123456789", 5) != std::string::npos || name.size() < 6)
    fail("the device is \"", name, "\"; allowed are cpu, and cuda:0 and so on");
  return std::stoi(name.substr(5));
}

/// The context that glaive and cuBLAS use too, current in this thread, and one stream for everything.
class Gpu {
 public:
  explicit Gpu(int number) {
    check(driver.device_get(&device_, number), "cuDeviceGet");
    check(driver.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
    check(driver.context_push(context_), "cuCtxPushCurrent");
    // In order with the driver's default stream, on which memory is written and read.
    check(driver.stream_create(&stream, cuda::stream_default), "cuStreamCreate");
    int major = 0, minor = 0;
    check(driver.device_attribute(&major, cuda::attribute_compute_major, device_), "cuDeviceGetAttribute");
    check(driver.device_attribute(&minor, cuda::attribute_compute_minor, device_), "cuDeviceGetAttribute");
    const std::string code = cuda::compile(cuda::kernels_text, major, minor);
    check(driver.module_load(&module_, code.data()), "cuModuleLoadData");
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu() {
    driver.stream_synchronize(stream);
    driver.module_unload(module_);
    driver.stream_destroy(stream);
    driver.context_pop(&context_);
    driver.context_release(device_);
  }
  cuda::Function function(const char* name) const {
    cuda::Function found = nullptr;
    check(driver.module_function(&found, module_, name), name);
    return found;
  }
  template <class... Parameters>
  void launch(cuda::Function function, std::int64_t blocks, Parameters... parameters) const {
    void* addresses[] = {&parameters...};
    check(driver.launch(function, static_cast<unsigned>(blocks), 1, 1, cuda::kernel_threads, 1, 1, 0, stream, addresses,
                        nullptr),
          "cuLaunchKernel");
  }

  const cuda::Driver driver;
  cuda::Stream stream = nullptr;

 private:
  int device_ = 0;
  cuda::Context context_ = nullptr;
  cuda::Module module_ = nullptr;
};

class GpuEvent {
 public:
  explicit GpuEvent(const Gpu& gpu) : gpu_(&gpu) { check(gpu.driver.event_create(&event_, 0), "cuEventCreate"); }
  GpuEvent(GpuEvent&& other) noexcept : gpu_(other.gpu_), event_(std::exchange(other.event_, nullptr)) {}
  GpuEvent& operator=(GpuEvent&&) = delete;
  ~GpuEvent() {
    if (event_ != nullptr) gpu_->driver.event_destroy(event_);
  }
  void record() const { check(gpu_->driver.event_record(event_, gpu_->stream), "cuEventRecord"); }
  /// As a node of the graph that is being recorded.
  void record_in_graph() const {
    check(gpu_->driver.event_record_with(event_, gpu_->stream, cuda::event_record_external), "cuEventRecordWithFlags");
  }
  void wait() const { check(gpu_->driver.event_synchronize(event_), "cuEventSynchronize"); }
  double seconds_since(const GpuEvent& other) const {
    float milliseconds = 0;
    check(gpu_->driver.event_elapsed(&milliseconds, other.event_, event_), "cuEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  const Gpu* gpu_;
  cuda::Event event_ = nullptr;
};

/// Tokens in memory of the host that a GPU copies from, and writes to, while the host goes on.
class PinnedTokens {
 public:
  PinnedTokens(const Gpu& gpu, std::int64_t count) : gpu_(&gpu) {
    check(gpu.driver.host_allocate(&data_, static_cast<std::size_t>(count) * sizeof(Token), 0), "cuMemHostAlloc");
  }
  PinnedTokens(PinnedTokens&& other) noexcept : gpu_(other.gpu_), data_(std::exchange(other.data_, nullptr)) {}
  PinnedTokens& operator=(PinnedTokens&&) = delete;
  ~PinnedTokens() {
    if (data_ != nullptr) gpu_->driver.host_free(data_);
  }
  Token* data() const { return static_cast<Token*>(data_); }

 private:
  const Gpu* gpu_;
  void* data_ = nullptr;
};

/// What belongs to a step that is under way.
struct Step {
  PinnedTokens tokens, sampled;
  GpuEvent begin, end;  ///< of its kernels, which write what they sample to memory of the host
  std::int64_t rows = 0;
};

struct Mark {
  Phase phase;
  GpuEvent event;
};

/// A graph for each step that may be under way, since each writes to a place of its own.
class GpuGraph final : public Graph {
 public:
  GpuGraph(const Gpu& gpu, const std::int64_t& step, bool& launched) : gpu_(gpu), step_(step), launched_(launched) {}
  ~GpuGraph() override {
    for (const cuda::ExecutableGraph graph : graphs_) gpu_.driver.graph_executable_destroy(graph);
  }
  void add(cuda::RecordedGraph recorded) {
    cuda::ExecutableGraph graph = nullptr;
    const int outcome = gpu_.driver.graph_instantiate(&graph, recorded, 0);
    gpu_.driver.graph_destroy(recorded);
    check(outcome, "cuGraphInstantiate");
    graphs_.push_back(graph);
  }
  void launch() override {
    check(gpu_.driver.graph_launch(graphs_[static_cast<std::size_t>(step_) % graphs_.size()], gpu_.stream),
          "cuGraphLaunch");
    launched_ = true;
  }

 private:
  const Gpu& gpu_;
  const std::int64_t& step_;
  bool& launched_;
  std::vector<cuda::ExecutableGraph> graphs_;
};

class Cuda final : public Device {
 public:
  explicit Cuda(const std::string& name)
      : Device(name, 0, GLAIVE_BF16),
        gpu_(ordinal(name)),
        embed_(gpu_.function("embed")),
        repeat_(gpu_.function("repeat")),
        rms_norm_(gpu_.function("rms_norm")),
        gated_norm_(gpu_.function("gated_norm")),
        swiglu_(gpu_.function("swiglu")),
        sample_(gpu_.function("sample")),
        blas_workspace_(glaive(), std::size_t{32} << 20) {
    check(cublas_.create(&blas_), "cublasCreate");
    check(cublas_.set_stream(blas_, gpu_.stream), "cublasSetStream");
    // Of our own: what cuBLAS would allocate while a graph is recorded would become a part of the graph.
    check(cublas_.set_workspace(blas_, blas_workspace_.data(), blas_workspace_.size()), "cublasSetWorkspace");
  }
  ~Cuda() override {
    gpu_.driver.stream_synchronize(gpu_.stream);
    cublas_.destroy(blas_);
  }

  void* stream() const override { return gpu_.stream; }
  int ahead() const override { return steps_ahead; }

  void multiply(const Matrix& w, Rows x, Rows y, std::int64_t rows, bool add) override {
    // cuBLAS counts columns first: what it sees is y^T = w x^T.
    const float one = 1, beta = add ? 1 : 0;
    check(cublas_.gemm(blas_, cuda::blas_transposed, cuda::blas_plain, static_cast<int>(w.rows), static_cast<int>(rows),
                       static_cast<int>(w.columns), &one, w.numbers.data(), cuda::type_bf16,
                       static_cast<int>(w.columns), x.data, cuda::type_bf16, static_cast<int>(x.stride), &beta, y.data,
                       y.dtype == GLAIVE_F32 ? cuda::type_f32 : cuda::type_bf16, static_cast<int>(y.stride),
                       cuda::blas_compute_f32, cuda::blas_default_algorithm),
          "cublasGemmEx");
  }
  void repeat(const api::Memory& row, std::int64_t width, Rows y, std::int64_t rows) override {
    gpu_.launch(repeat_, rows, row.data(), width, y.data, y.stride);
  }
  void embed(const Matrix& table, Rows x, std::int64_t tokens) override {
    gpu_.launch(embed_, tokens, tokens_->data(), sampled_->data(), table.numbers.data(), table.columns, x.data,
                x.stride);
  }
  void rms_norm(Rows x, const api::Memory& weight, double eps, std::int64_t width, Rows y, std::int64_t rows,
                const std::int32_t* ends) override {
    gpu_.launch(rms_norm_, rows, x.data, x.stride, weight.data(), eps, width, y.data, y.stride, ends);
  }
  void gated_norm(Rows o, Rows gate, const api::Memory& weight, double eps, std::int64_t heads, std::int64_t width,
                  Rows y, std::int64_t rows) override {
    gpu_.launch(gated_norm_, rows * heads, o.data, o.stride, gate.data, gate.stride, weight.data(), eps, heads, width,
                y.data, y.stride);
  }
  void swiglu(Rows both, std::int64_t width, Rows y, std::int64_t rows) override {
    gpu_.launch(swiglu_, rows, both.data, both.stride, width, y.data, y.stride);
  }
  void sample(Rows logits, std::int64_t width, std::int64_t rows) override {
    const Step& step = recording_ ? steps_[recorded_] : step_of(open_);
    gpu_.launch(sample_, rows, logits.data, logits.stride, width, sampled_->data(), step.sampled.data());
  }

  void reserve(std::int64_t tokens, std::int64_t rows) override {
    tokens_.emplace(glaive(), static_cast<std::size_t>(tokens) * sizeof(Token));
    sampled_.emplace(glaive(), static_cast<std::size_t>(rows) * sizeof(Token));
    const std::vector<Token> zeros(static_cast<std::size_t>(tokens));
    tokens_->write(zeros.data(), tokens_->size());  // a padded step reads all of them
    sent_.clear();
    steps_.clear();
    for (std::size_t i = 0; i < steps_ahead; ++i)
      steps_.push_back({PinnedTokens(gpu_, tokens), PinnedTokens(gpu_, rows), GpuEvent(gpu_), GpuEvent(gpu_), 0});
  }
  void send(std::span<const Token> tokens) override {
    if (open_ - collected_ == static_cast<std::int64_t>(steps_ahead)) fail("a step was not collected");
    if (std::ranges::equal(tokens, sent_)) return;  // while the same rows decode, each goes on from its own
    sent_.assign(tokens.begin(), tokens.end());
    Step& step = step_of(open_);
    std::copy(tokens.begin(), tokens.end(), step.tokens.data());
    check(gpu_.driver.copy_to_device(tokens_->data(), step.tokens.data(), tokens.size() * sizeof(Token), gpu_.stream),
          "cuMemcpyHtoDAsync");
  }
  void start_step() override { step_of(open_).begin.record(); }
  void finish_step(std::int64_t rows) override {
    Step& step = step_of(open_);
    step.end.record();
    step.rows = rows;
    const std::vector<Mark>& marks = marks_[static_cast<std::size_t>(open_++) % steps_ahead];
    if (std::exchange(graph_launched_, false) && times_phases_) {  // a launch would record the same events
      wait();
      for (std::size_t i = 0; i + 1 < marks.size(); ++i)
        profile_.phases[static_cast<std::size_t>(marks[i].phase)] += marks[i + 1].event.seconds_since(marks[i].event);
    }
  }
  std::vector<Token> collect() override {
    Step& step = step_of(collected_);
    step.end.wait();
    count(collected_++);
    const Token* const begin = step.sampled.data();
    return {begin, begin + step.rows};
  }
  void wait() override { check(gpu_.driver.stream_synchronize(gpu_.stream), "cuStreamSynchronize"); }

  bool has_graphs() const override { return true; }
  std::unique_ptr<Graph> record(const std::function<void()>& enqueue) override {
    wait();
    auto graph = std::make_unique<GpuGraph>(gpu_, open_, graph_launched_);
    recording_ = true;
    for (recorded_ = 0; recorded_ < steps_ahead; ++recorded_) {
      marks_[recorded_].clear();
      check(gpu_.driver.capture_begin(gpu_.stream, cuda::capture_relaxed), "cuStreamBeginCapture");
      cuda::RecordedGraph recorded = nullptr;
      enqueue();
      check(gpu_.driver.capture_end(gpu_.stream, &recorded), "cuStreamEndCapture");
      graph->add(recorded);
    }
    recording_ = false;
    return graph;
  }

  void phase(Phase next) override {
    if (!recording_ || !times_phases_) return;
    std::vector<Mark>& marks = marks_[recorded_];
    marks.push_back({next, GpuEvent(gpu_)});
    marks.back().event.record_in_graph();
  }
  void time_phases(bool on) override { times_phases_ = on; }
  void start_profile() override {
    wait();
    profile_ = {};
    profiled_from_ = open_;
    since_ = Clock::now();
  }
  Profile profile() override {
    wait();
    profile_.wall = std::chrono::duration<double>(Clock::now() - since_).count();
    for (std::int64_t step = collected_; step < open_; ++step) count(step);
    profiled_from_ = std::numeric_limits<std::int64_t>::max();
    return profile_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void count(std::int64_t number) {
    if (number < profiled_from_) return;
    profile_.busy += step_of(number).end.seconds_since(step_of(number).begin);
    ++profile_.steps;
  }
  Step& step_of(std::int64_t number) { return steps_[static_cast<std::size_t>(number) % steps_.size()]; }

  Gpu gpu_;
  cuda::Function embed_, repeat_, rms_norm_, gated_norm_, swiglu_, sample_;
  api::Memory blas_workspace_;
  cuda::CuBlas cublas_;
  cuda::Blas blas_ = nullptr;
  std::optional<api::Memory> tokens_, sampled_;
  std::vector<Token> sent_;
  std::vector<Step> steps_;
  std::int64_t open_ = 0, collected_ = 0;
  std::vector<Mark> marks_[steps_ahead];
  std::size_t recorded_ = 0;  // while a graph is recorded: of which step
  bool recording_ = false, times_phases_ = false, graph_launched_ = false;
  Profile profile_;
  std::int64_t profiled_from_ = std::numeric_limits<std::int64_t>::max();
  Clock::time_point since_;
};

}  // namespace

std::unique_ptr<Device> open_cuda(const std::string& name) { return std::make_unique<Cuda>(name); }

}  // namespace generate
