// Decode as a CUDA graph: the step of every layer is captured once, then replayed for batches of changing sequences.
// Compares with each sequence alone.
//   07_cuda_graph my.pack 'forward H4 K64 V64 f32' cuda:0
// The pack has the problem as a step too:
//   glaive tune --device gpu 'forward H4 K64 V64 f32 @ B3 T40' 'step H4 K64 V64 f32 @ lens=1,1,1,1'
#include <dlfcn.h>

#include <algorithm>
#include <string>

#include "toy.hpp"

namespace {

/// Graphs of libcuda, declared by hand so that this builds without the CUDA toolkit. A program that has the toolkit
/// includes cuda.h, and one that has a framework has a context and streams already.
class Cuda {
 public:
  using Graph = struct CUgraphExec_st*;

  explicit Cuda(int gpu) {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    const auto find = [&](auto& function, const char* name) {
      function =
          library == nullptr ? nullptr : reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) throw toy::Error(GLAIVE_NOT_FOUND, "libcuda.so.1 is missing, or too old");
    };
    find(get_, "cuDeviceGet"), find(retain_, "cuDevicePrimaryCtxRetain"),
        find(release_, "cuDevicePrimaryCtxRelease_v2");
    find(push_, "cuCtxPushCurrent_v2"), find(pop_, "cuCtxPopCurrent_v2");
    find(create_, "cuStreamCreate"), find(destroy_, "cuStreamDestroy_v2");
    find(begin_, "cuStreamBeginCapture_v2"), find(end_, "cuStreamEndCapture");
    find(instantiate_, "cuGraphInstantiateWithFlags"), find(launch_, "cuGraphLaunch");
    find(destroy_graph_, "cuGraphDestroy"), find(destroy_executable_, "cuGraphExecDestroy");
    check(get_(&device_, gpu), "cuDeviceGet");
    check(retain_(&context_, device_), "cuDevicePrimaryCtxRetain");  // the one that glaive uses
    check(push_(context_), "cuCtxPushCurrent");
    constexpr unsigned non_blocking = 1;
    check(create_(&stream_, non_blocking), "cuStreamCreate");
  }
  Cuda(const Cuda&) = delete;
  Cuda& operator=(const Cuda&) = delete;
  ~Cuda() {
    for (const Graph graph : graphs_) destroy_executable_(graph);
    destroy_(stream_);
    pop_(&context_);
    release_(device_);
  }

  /// What `enqueue(stream)` enqueues, which does not run.
  template <class Enqueue>
  Graph capture(Enqueue&& enqueue) {
    constexpr int relaxed = 2;
    check(begin_(stream_, relaxed), "cuStreamBeginCapture");
    enqueue(stream_);
    struct CUgraph_st* recorded = nullptr;
    check(end_(stream_, &recorded), "cuStreamEndCapture");
    Graph graph = nullptr;
    const int outcome = instantiate_(&graph, recorded, 0);
    destroy_graph_(recorded);
    check(outcome, "cuGraphInstantiate");
    graphs_.push_back(graph);
    return graph;
  }
  /// On the default stream, in order with batches that were begun there and with copies.
  void launch(Graph graph) const { check(launch_(graph, nullptr), "cuGraphLaunch"); }

 private:
  using Context = struct CUctx_st*;
  using Stream = struct CUstream_st*;
  static void check(int outcome, const char* what) {
    if (outcome == 0) return;
    throw toy::Error(GLAIVE_FAILED, (std::string(what) + " gives CUDA error " + std::to_string(outcome)).c_str());
  }

  int (*get_)(int* device, int ordinal);
  int (*retain_)(Context*, int device);
  int (*release_)(int device);
  int (*push_)(Context);
  int (*pop_)(Context*);
  int (*create_)(Stream*, unsigned flags);
  int (*destroy_)(Stream);
  int (*begin_)(Stream, int mode);
  int (*end_)(Stream, struct CUgraph_st**);
  int (*instantiate_)(Graph*, struct CUgraph_st*, unsigned long long flags);
  int (*launch_)(Graph, Stream);
  int (*destroy_graph_)(struct CUgraph_st*);
  int (*destroy_executable_)(Graph);
  int device_ = 0;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  std::vector<Graph> graphs_;
};

/// One token for each of at most so many sequences: a graph of every layer, over a batch and tensors that stay where
/// they are.
class Decoder {
 public:
  Decoder(Cuda& cuda, const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem,
          const toy::Pool& pool, std::int64_t layers, std::int64_t most)
      : cuda_(cuda), batch_(pool, toy::Sequences(most), toy::Tokens(most), toy::Tokens(1)) {
    for (std::int64_t layer = 0; layer < layers; ++layer) layers_.emplace_back(device, problem, most);
    // Padded, a batch has the same extents whatever is in it; here it is nothing.
    batch_.begin({}, GLAIVE_BATCH_PADDED);
    plan_ = std::make_unique<toy::Plan>(device, pack, problem, batch_.shape());
    workspace_ = toy::Workspace(device, plan_->workspace_bytes(batch_.shape()));
    graph_ = cuda.capture([&](void* stream) {
      for (std::int64_t layer = 0; layer < layers; ++layer) {
        toy::Args args = layers_[static_cast<std::size_t>(layer)].args();
        args.stream = stream;
        batch_.launch(*plan_, layer, args, workspace_);
      }
    });
    batch_.abort();  // nothing ran
  }

  std::vector<toy::Output> step(const std::vector<toy::Work>& work) {
    batch_.begin(toy::entries_of(work), GLAIVE_BATCH_PADDED);
    for (std::size_t layer = 0; layer < layers_.size(); ++layer)
      layers_[layer].fill(static_cast<std::int64_t>(layer), toy::tokens_of(work));
    batch_.replay();
    cuda_.launch(graph_);
    batch_.commit();
    return toy::outputs_of(work, layers_.back());
  }

 private:
  Cuda& cuda_;
  toy::Batch batch_;
  std::vector<toy::Tensors> layers_;
  std::unique_ptr<toy::Plan> plan_;
  toy::Workspace workspace_;
  Cuda::Graph graph_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 3 ? argv[3] : "cpu";
  return toy::run(argc, argv, [&](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    if (name.rfind("cuda:", 0) != 0)
      throw toy::Error(GLAIVE_UNSUPPORTED, "a CUDA graph needs a GPU as the third argument, such as cuda:0");
    constexpr std::int64_t layers = 4, most = 4, texts = 7;
    toy::Model model(device, pack, problem, layers, texts + 1);  // one for the check at the end
    toy::Problem step_problem = problem;
    step_problem.op = GLAIVE_STEP;
    Cuda cuda(std::stoi(name.substr(5)));
    Decoder decoder(cuda, device, pack, step_problem, model.pool(), layers, most);

    std::vector<toy::Sequence> sequences;
    std::vector<toy::Output> outputs;
    std::vector<int> order;
    for (int text = 0; text < texts; ++text) {
      sequences.push_back(model.pool().acquire());
      outputs.push_back(model.step({{&sequences.back(), toy::tokens_of(text, 0, 5 + 9 * text)}})[0]);
      order.push_back(text);
    }
    std::minstd_rand random(1);
    constexpr int rounds = 60;
    for (int round = 0; round < rounds; ++round) {
      std::shuffle(order.begin(), order.end(), random);  // what a scheduler would choose
      const std::size_t count = 1 + random() % most;
      std::vector<toy::Work> work;
      for (std::size_t i = 0; i < count; ++i) {
        const auto text = static_cast<std::size_t>(order[i]);
        const std::int64_t at = sequences[text].position().count();
        work.push_back({&sequences[text], toy::tokens_of(order[i], at, at + 1)});
      }
      const std::vector<toy::Output> tokens = decoder.step(work);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        toy::Output& output = outputs[static_cast<std::size_t>(order[i])];
        output.insert(output.end(), tokens[i].begin(), tokens[i].end());
      }
    }
    double worst = 0;
    std::int64_t decoded = 0;
    for (int text = 0; text < texts; ++text) {
      const auto i = static_cast<std::size_t>(text);
      const std::int64_t length = sequences[i].position().count();
      decoded += length - (5 + 9 * text);
      worst = std::max(worst, toy::difference(outputs[i], model.alone(toy::tokens_of(text, 0, length))));
    }
    std::printf("one graph of %lld layers, replayed for %d batches of 1 to %lld sequences: %lld tokens\n",
                static_cast<long long>(layers), rounds, static_cast<long long>(most), static_cast<long long>(decoded));
    return toy::verdict(problem, "every sequence against itself alone", worst);
  });
}
