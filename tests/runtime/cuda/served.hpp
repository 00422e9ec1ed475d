#pragma once
// A pool of a GPU's, served by kernel.c's kernel: through the stub, or on a real one.
#include "runtime/cuda.hpp"
#include "runtime/glaive.hpp"
#include "tests/runtime/server.hpp"

namespace glaive::testing {

/// kernel.c's plan as a GPU has it, its code left out.
inline PackEntry gpu_entry_without_code(const DeviceInfo& device) {
  PackEntry entry = kernel_entry();
  entry.plan.target = device.target;
  entry.plan.stages[0].scratch_bytes = 0;
  entry.code.clear();
  entry.key.target = to_string(device.target);
  entry.key.device = identity(device);
  entry.key.policy = "v1";
  return entry;
}

/// The entry that is served: the stub's, or one compiled for the GPU of this machine.
PackEntry served_entry();

inline const cuda::Driver& driver() {
  const auto opened = cuda::Driver::get();
  REQUIRE(opened.has_value());
  return **opened;
}

inline void refuses(glaive_status got, glaive_status wanted, std::string_view part) {
  INFO(glaive_last_error());
  CHECK(got == wanted);
  CHECK(contains(glaive_last_error(), part));
}

/// A copy on the GPU of a vector of the host.
class OnGpu {
 public:
  OnGpu(const api::Device& device, const std::vector<float>& values)
      : memory_(device, std::max<std::size_t>(1, values.size() * sizeof(float))) {
    write(values);
  }
  void* data() const { return memory_.data(); }
  void write(const std::vector<float>& values) { memory_.write(values.data(), values.size() * sizeof(float)); }
  std::vector<float> read(std::size_t count) const {
    std::vector<float> values(count);
    memory_.read(values.data(), count * sizeof(float));
    return values;
  }

 private:
  api::Memory memory_;
};

/// The tensors of a step in memory of the GPU.
struct StepOnGpu {
  OnGpu q, k, v, g, o;
  StepOnGpu(const api::Device& device, const Step& step)
      : q(device, step.q), k(device, step.k), v(device, step.v), g(device, step.g), o(device, step.o) {}
  void write(const Step& step) { q.write(step.q), k.write(step.k), v.write(step.v), g.write(step.g), o.write(step.o); }
  api::Args args(void* stream) const {
    api::Args args;
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
    args.stream = stream;
    return args;
  }
};

/// Streams and graphs of the driver itself, as an engine of its own has them.
class Driving {
 public:
  Driving() : api_(driver().api()) {
    REQUIRE(api_.DevicePrimaryCtxRetain(&context_, 0) == cuda::success);
    REQUIRE(api_.CtxPushCurrent(context_) == cuda::success);
  }
  Driving(const Driving&) = delete;
  ~Driving() {
    for (const cuda::GraphExec executable : executables_) api_.GraphExecDestroy(executable);
    for (const cuda::Stream stream : streams_) api_.StreamDestroy(stream);
    api_.CtxPopCurrent(&context_);
    api_.DevicePrimaryCtxRelease(0);
  }
  cuda::Stream stream() {
    constexpr unsigned non_blocking = 1;
    cuda::Stream made = nullptr;
    REQUIRE(api_.StreamCreate(&made, non_blocking) == cuda::success);
    streams_.push_back(made);
    return made;
  }
  void wait(cuda::Stream stream) const { REQUIRE(api_.StreamSynchronize(stream) == cuda::success); }
  void begin_capture(cuda::Stream stream) const {
    constexpr int relaxed = 2;
    REQUIRE(api_.StreamBeginCapture(stream, relaxed) == cuda::success);
  }
  cuda::GraphExec end_capture(cuda::Stream stream) {
    cuda::Graph graph = nullptr;
    cuda::GraphExec executable = nullptr;
    REQUIRE(api_.StreamEndCapture(stream, &graph) == cuda::success);
    REQUIRE(api_.GraphInstantiate(&executable, graph, 0) == cuda::success);
    api_.GraphDestroy(graph);
    executables_.push_back(executable);
    return executable;
  }
  void launch(cuda::GraphExec graph, cuda::Stream stream) const {
    REQUIRE(api_.GraphLaunch(graph, stream) == cuda::success);
  }

 private:
  const cuda::Api& api_;
  cuda::Context context_ = nullptr;
  std::vector<cuda::Stream> streams_;
  std::vector<cuda::GraphExec> executables_;
};

struct GpuServer {
  Driving driving;
  cuda::Stream stream = driving.stream();
  api::Device device = api::Device("cuda:0");
  Folder folder;
  std::optional<api::Pack> pack;
  std::optional<api::Plan> plan;
  std::optional<api::Pool> pool;
  api::Problem problem = api::Problem(kernel_problem);
  std::mt19937 random{3};

  explicit GpuServer(std::int64_t slots) {
    const PackEntry entry = served_entry();
    REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
    pack.emplace((folder / "p.pack").string());
    plan.emplace(device, *pack, problem, api::Shape(api::Sequences(2), api::Tokens(3)));
    pool.emplace(device, api::PoolConfig(problem, model_layers, slots));
  }

  /// Begins, launches every layer and commits; the models go along. False when o or a position is wrong.
  bool step(api::Batch& batch, const std::vector<std::pair<const api::Sequence*, Model*>>& rows,
            const std::vector<std::int64_t>& lengths) {
    std::vector<api::Entry> entries;
    std::int64_t total = 0;
    for (std::size_t i = 0; i < rows.size(); total += lengths[i++])
      entries.emplace_back(*rows[i].first, api::Tokens(lengths[i]));
    batch.begin(entries, 0, stream);
    bool good = true;
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
      Step step(total, random);
      std::int64_t at = 0;
      for (std::size_t i = 0; i < rows.size(); at += lengths[i++])
        step.advance(*rows[i].second, layer, at, at + lengths[i]);
      const StepOnGpu tensors(device, step);
      batch.launch(*plan, layer, tensors.args(stream), api::Workspace());
      driving.wait(stream);
      good = good and near(tensors.o.read(step.want.size()).data(), step.want.data(), step.want.size());
    }
    batch.commit();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].second->position += lengths[i];
      good = good and rows[i].first->position().count() == rows[i].second->position;
    }
    return good;
  }
};

}  // namespace glaive::testing
