// The GPU families on a device: correctness by the project's own verification, then times. Kernels are compiled here by
// NVRTC, all at once. One line of JSON per result on standard output.
//   gpu_families verify FILE   lines `case` or `case | variant`: all gates; bad slots and lengths where there are
//   tables gpu_families time FILE     lines `case | gates | variant; variant; ...`: medians and quartiles, against the
//   copy rate
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "autotune/verify.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "templates/family.hpp"

namespace glaive {
namespace {

[[noreturn]] void stop(const std::string& message) {
  fmt::print(stderr, "gpu_families: {}\n", message);
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (not result) stop(result.error().message);
  if constexpr (not std::is_void_v<T>) return std::move(*result);
}

// ---- what the driver offers beyond what the runtime needs
struct Gpu {
  std::shared_ptr<Device> device;
  int (*StreamCreate)(void**, unsigned);
  int (*StreamSynchronize)(void*);
  int (*StreamBeginCapture_v2)(void*, int);
  int (*StreamEndCapture)(void*, void**);
  int (*GraphInstantiateWithFlags)(void**, void*, unsigned long long);
  int (*GraphLaunch)(void*, void*);
  int (*GraphDestroy)(void*);
  int (*GraphExecDestroy)(void*);
  int (*EventCreate)(void**, unsigned);
  int (*EventRecord)(void*, void*);
  int (*EventSynchronize)(void*);
  int (*EventElapsedTime_v2)(float*, void*, void*);
  int (*MemcpyDtoDAsync_v2)(std::uint64_t, std::uint64_t, std::size_t, void*);
  int (*CtxPushCurrent_v2)(void*);
  int (*DevicePrimaryCtxRetain)(void**, int);
  void* stream = nullptr;
  void* events[2] = {};

  static void check(int outcome, const char* what) {
    if (outcome != 0) stop(fmt::format("{}: CUDA error {}", what, outcome));
  }
  Gpu() {
    const auto found = cuda::Driver::get();
    if (not found or not CudaCompiler::open()) {
      fmt::print("skipped: {}\n", found ? "no NVRTC" : found.error().message);
      std::exit(77);
    }
    const auto* driver = *found;
    device = must(open_gpu(*driver, 0));
    void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) stop(fmt::format("libcuda has no {}", name));
    };
    get(StreamCreate, "cuStreamCreate");
    get(StreamSynchronize, "cuStreamSynchronize");
    get(StreamBeginCapture_v2, "cuStreamBeginCapture_v2");
    get(StreamEndCapture, "cuStreamEndCapture");
    get(GraphInstantiateWithFlags, "cuGraphInstantiateWithFlags");
    get(GraphLaunch, "cuGraphLaunch");
    get(GraphDestroy, "cuGraphDestroy");
    get(GraphExecDestroy, "cuGraphExecDestroy");
    get(EventCreate, "cuEventCreate");
    get(EventRecord, "cuEventRecord");
    get(EventSynchronize, "cuEventSynchronize");
    get(EventElapsedTime_v2, "cuEventElapsedTime");
    get(MemcpyDtoDAsync_v2, "cuMemcpyDtoDAsync_v2");
    get(CtxPushCurrent_v2, "cuCtxPushCurrent_v2");
    get(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    void* context = nullptr;
    check(DevicePrimaryCtxRetain(&context, 0), "context");
    check(CtxPushCurrent_v2(context), "context");
    check(StreamCreate(&stream, 1), "stream");
    for (void*& event : events) check(EventCreate(&event, 0), "event");
  }
  void wait() { check(StreamSynchronize(stream), "kernels"); }

  /// Seconds of one call, calls back to back, by sample.
  std::vector<double> time_eager(const std::function<void()>& body, int calls, int samples) {
    std::vector<double> seconds;
    for (int s = -2; s < samples; ++s) {
      check(EventRecord(events[0], stream), "event");
      for (int i = 0; i < calls; ++i) body();
      check(EventRecord(events[1], stream), "event");
      check(EventSynchronize(events[1]), "calls");
      float ms = 0;
      check(EventElapsedTime_v2(&ms, events[0], events[1]), "time");
      if (s >= 0) seconds.push_back(ms * 1e-3 / calls);
    }
    std::ranges::sort(seconds);
    return seconds;
  }

  /// Seconds of one replay of what `body` enqueues, replays back to back, by sample.
  std::vector<double> time(const std::function<void()>& body, int replays, int samples) {
    void *graph = nullptr, *exec = nullptr;
    check(StreamBeginCapture_v2(stream, 0), "capture");
    body();
    check(StreamEndCapture(stream, &graph), "capture");
    check(GraphInstantiateWithFlags(&exec, graph, 0), "graph");
    auto seconds = time_eager([&] { check(GraphLaunch(exec, stream), "replay"); }, replays, samples);
    GraphExecDestroy(exec), GraphDestroy(graph);
    return seconds;
  }
};

struct Loaded {
  Plan plan;
  CodeObject code;
  std::unique_ptr<const Kernel> kernel;
};

/// A line's kernels, by `problem | variant`.
class Kernels {
 public:
  explicit Kernels(Gpu& gpu) : gpu_(gpu), target_(gpu.device->info().target), compiler_(must(CudaCompiler::open())) {}

  std::string want(const Problem& problem, const std::string& text) {
    const Instance instance{problem, target_};
    const auto variant = must(parse_variant(text, instance));
    const std::string key = to_string(problem) + " | " + to_string(variant, instance);
    if (loaded_.contains(key)) return key;
    jobs_.push_back({std::get<CudaSource>(variant.family->instantiate(instance, variant.config)), {target_, {}}});
    keys_.push_back(key);
    loaded_[key].plan = variant.family->plan(instance, variant.config);
    return key;
  }
  void compile() {
    compile_all(*compiler_, jobs_, static_cast<int>(std::thread::hardware_concurrency()), std::chrono::minutes(2), {},
                [&](std::size_t job, Result<CodeObject> code) {
                  if (not code) stop(keys_[job] + ": " + code.error().message);
                  loaded_[keys_[job]].code = std::move(*code);
                });
    for (auto& [key, loaded] : loaded_)
      if (not loaded.kernel) loaded.kernel = must(gpu_.device->load(loaded.plan, {&loaded.code, 1}));
  }
  const Loaded& operator[](const std::string& key) const { return loaded_.at(key); }

 private:
  Gpu& gpu_;
  Target target_;
  std::shared_ptr<const CudaCompiler> compiler_;
  std::vector<CudaJob> jobs_;
  std::vector<std::string> keys_;
  std::map<std::string, Loaded> loaded_;
};

// ---- verification
/// Runs a kernel on copies in the device's memory, guard zones included.
class Verifier {
 public:
  Verifier(Gpu& gpu, const Loaded& loaded, std::span<Trial> trials, bool bad)
      : gpu_(gpu), loaded_(loaded), trials_(trials), bad_(bad) {}
  std::uint32_t status = 0;

  void operator()(const Words& words, const Extents& extents) {
    const auto found = std::ranges::find_if(trials_, [&](const Trial& trial) {
      return words[Arg::q] == reinterpret_cast<std::uintptr_t>(trial.call.q.memory());
    });
    Call& call = found->call;
    Launch launch;
    launch.words = words;
    launch.extents = extents;
    launch.stream = gpu_.stream;
    std::vector<std::pair<std::span<std::byte>, std::shared_ptr<std::byte>>> tensors;
    for (Guarded* const tensor : {&call.q, &call.k, &call.v, &call.g, &call.o, &call.state_in, &call.state_out}) {
      const std::span<std::byte> all = tensor->with_guards();
      auto there = must(gpu_.device->allocate(all.size()));
      must(gpu_.device->copy_to_device(there.get(), all));
      for (const Arg arg : {Arg::q, Arg::k, Arg::v, Arg::g, Arg::o, Arg::state_in, Arg::state_out})
        if (words[arg] == reinterpret_cast<std::uintptr_t>(tensor->memory()))
          launch.words.set_pointer(arg, there.get() + (static_cast<std::byte*>(tensor->memory()) - all.data()));
      tensors.emplace_back(all, std::move(there));
    }
    std::vector<std::shared_ptr<std::byte>> tables;
    const auto table = [&](Arg arg, std::vector<std::int32_t> values) {
      if (words[arg] == 0) return;
      const auto bytes = std::as_bytes(std::span(values));
      tables.push_back(must(gpu_.device->allocate(bytes.size())));
      must(gpu_.device->copy_to_device(tables.back().get(), bytes));
      launch.words.set_pointer(arg, tables.back().get());
    };
    const auto spoilt = [&](std::vector<std::int32_t> slots, std::int32_t by) {
      if (bad_) std::ranges::replace(slots, -1, by);
      return slots;
    };
    table(Arg::read_slots, spoilt(call.read_slots, static_cast<std::int32_t>(call.slots)));
    table(Arg::write_slots, spoilt(call.write_slots, -2));
    auto sums = call.cu_seqlens;
    if (bad_) sums.back() += 5;
    table(Arg::cu_seqlens, sums);
    std::uint32_t word = 0;
    const auto word_bytes = std::as_writable_bytes(std::span(&word, 1));
    auto status_word = must(gpu_.device->allocate(sizeof word));
    must(gpu_.device->copy_to_device(status_word.get(), word_bytes));
    launch.words.set_pointer(Arg::device_status, status_word.get());
    must(loaded_.kernel->launch(launch));
    gpu_.wait();
    must(gpu_.device->copy_from_device(word_bytes, status_word.get()));
    status |= word;
    for (auto& [here, there] : tensors) must(gpu_.device->copy_from_device(here, there.get()));
  }

 private:
  Gpu& gpu_;
  const Loaded& loaded_;
  std::span<Trial> trials_;
  bool bad_;
};

int verify_file(Gpu& gpu, const std::vector<std::string>& lines) {
  struct Line {
    Case what;
    std::string key;
  };
  Kernels kernels(gpu);
  std::vector<Line> all;
  for (const std::string& line : lines) {
    const auto bar = line.find('|');
    const auto what = parse_case(line.substr(0, bar)).value();
    const std::string variant = bar != line.npos              ? line.substr(bar + 1)
                                : what.problem.op == Op::step ? "step"
                                                              : "stream";
    all.push_back({what, kernels.want(what.problem, variant)});
  }
  kernels.compile();
  int failures = 0;
  for (const Line& line : all) {
    std::vector<std::future<Trial>> making;
    std::uint64_t seed = 1;
    for (const Gates gates : all_gates)
      making.push_back(std::async(std::launch::async, [&line, gates, seed] { return Trial(line.what, gates, seed); })),
          ++seed;
    std::vector<Trial> trials;
    for (auto& trial : making) trials.push_back(trial.get());
    for (const bool bad : {false, true}) {
      // Bad numbers where the strided calls have -1: a kernel treats them as none, and says so.
      Verifier verifier(gpu, kernels[line.key], trials, bad);
      const bool ragged = not line.what.shape.is_uniform(), slots = line.what.shape.sequences().count() > 1;
      if (bad and not ragged and not slots) continue;
      const Runner run = [&](const Words& words, const Extents& extents) { verifier(words, extents); };
      const auto verdict = verify(run, line.key, trials, 1, Target::Kind::cuda);
      const std::uint32_t expected = bad ? (ragged ? 2u : 0u) | (slots ? 1u : 0u) : 0u;
      const bool right = verdict.drop == Drop::none and verifier.status == expected;
      failures += right ? 0 : 1;
      fmt::print(
          "{{\"verify\": \"{}\", \"shape\": \"{}\", \"bad\": {}, \"ok\": {}, \"o\": {:.3e}, \"state\": {:.3e}, "
          "\"status\": {}}}\n",
          line.key, to_string(line.what.shape), bad, right, verdict.error_o, verdict.error_state, verifier.status);
      if (not right) fmt::print(stderr, "{}: status {} {}\n", line.key, verifier.status, verdict.message);
    }
  }
  fmt::print(stderr, "verified {} lines, {} failures\n", all.size(), failures);
  return failures;
}

// ---- times
std::shared_ptr<std::byte> random_tensor(Gpu& gpu, std::int64_t elements, DType type, std::uint64_t seed,
                                         const std::function<float(double uniform, float normal)>& value) {
  constexpr std::int64_t period = 1 << 18;
  Guarded block(std::min(elements, period), type);
  const CounterRng rng(seed, 77);
  rng.normals(0, block.data());
  for (std::size_t i = 0; i < block.data().size(); ++i) block.data()[i] = value(rng.uniform(i), block.data()[i]);
  block.pack();
  const std::int64_t bytes = elements * size_of(type);
  auto there = must(gpu.device->allocate(static_cast<std::size_t>(bytes)));
  for (std::int64_t at = 0; at < bytes; at += period * size_of(type))
    must(gpu.device->copy_to_device(there.get() + at,
                                    {static_cast<const std::byte*>(block.memory()),
                                     static_cast<std::size_t>(std::min(bytes - at, period * size_of(type)))}));
  return there;
}

float gate_value(Gates gates, double uniform, float normal) {
  const float log_sigmoid = normal < 0 ? normal - std::log1p(std::exp(normal)) : -std::log1p(std::exp(-normal));
  switch (gates) {
    case Gates::uniform40:
      return static_cast<float>(-40 * uniform);
    case Gates::logsigmoid:
      return log_sigmoid;
    case Gates::minus5:
      return -5;
    default:
      return log_sigmoid / 16;
  }
}

/// One call's tensors: contiguous, states in place for a step, fresh and kept for a forward.
struct Timed {
  Launch launch;
  std::vector<std::shared_ptr<std::byte>> tensors;

  Timed(Gpu& gpu, const Case& what, Gates gates, std::uint64_t seed) {
    const Problem& p = what.problem;
    const auto tokens = what.shape.total().count();
    const auto h = p.heads.count(), hkv = p.kv_heads.count(), k = p.k.count(), v = p.v.count();
    const auto tensor = [&](Arg arg, Arg token, Arg head, std::int64_t heads, std::int64_t dim, DType type) {
      tensors.push_back(random_tensor(gpu, tokens * heads * dim, type, seed + static_cast<std::uint64_t>(arg),
                                      [&](double u, float n) { return arg == Arg::g ? gate_value(gates, u, n) : n; }));
      launch.words.set_pointer(arg, tensors.back().get());
      launch.words[token] = static_cast<std::uint64_t>(heads * dim);
      launch.words[head] = static_cast<std::uint64_t>(dim);
    };
    tensor(Arg::q, Arg::q_token, Arg::q_head, h, k, p.io);
    tensor(Arg::k, Arg::k_token, Arg::k_head, hkv, k, p.io);
    tensor(Arg::v, Arg::v_token, Arg::v_head, hkv, v, p.io);
    tensor(Arg::g, Arg::g_token, Arg::g_head, hkv, k, p.gate);
    tensor(Arg::o, Arg::o_token, Arg::o_head, h, v, p.io);
    tensors.push_back(random_tensor(gpu, what.shape.sequences().count() * hkv * k * v, p.state, seed + 99,
                                    [](double, float n) { return n; }));
    if (p.op == Op::step) launch.words.set_pointer(Arg::state_in, tensors.back().get());
    launch.words.set_pointer(Arg::state_out, tensors.back().get());
    for (const Arg arg : {Arg::state_in_slot, Arg::state_out_slot})
      launch.words[arg] = static_cast<std::uint64_t>(hkv * k * v);
    for (const Arg arg : {Arg::state_in_head, Arg::state_out_head})
      launch.words[arg] = static_cast<std::uint64_t>(k * v);
    launch.words.set_scalar(Arg::scale, 1 / std::sqrt(static_cast<float>(k)));
    launch.words.set_scalar(Arg::gate_tau, 16);
    launch.words.set_scalar(Arg::gate_clamp, -INFINITY);
    launch.extents = extents_of(p, what.shape, 1);
    launch.words.set_extents(launch.extents);
    launch.stream = gpu.stream;
  }
};

double quantile(const std::vector<double>& sorted, double q) {
  return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
}

int time_file(Gpu& gpu, const std::vector<std::string>& lines) {
  struct Line {
    Case what;
    Gates gates;
    std::vector<std::string> keys;
  };
  Kernels kernels(gpu);
  std::vector<Line> all;
  for (const std::string& line : lines) {
    const auto first = line.find('|'), second = line.find('|', first + 1);
    Line now{parse_case(line.substr(0, first)).value(), Gates::weak, {}};
    std::string gates = line.substr(first + 1, second - first - 1);
    std::erase(gates, ' ');
    now.gates = must(parse_gates(gates));
    std::string rest = line.substr(second + 1);
    for (std::size_t close; (close = rest.find(';')) != rest.npos; rest.erase(0, close + 1)) {
      const std::string text = rest.substr(0, close);
      const Instance instance{now.what.problem, gpu.device->info().target};
      if (const auto variant = parse_variant(text, instance); not variant)
        fmt::print(stderr, "left out: {}\n", variant.error().message);
      else
        now.keys.push_back(kernels.want(now.what.problem, text));
    }
    all.push_back(std::move(now));
  }
  kernels.compile();
  constexpr std::size_t copied = std::size_t{1} << 30;
  double copy_rate = 0;
  const auto measure_copy = [&] {
    auto from = must(gpu.device->allocate(copied)), to = must(gpu.device->allocate(copied));
    const auto copy = gpu.time_eager(
        [&] {
          Gpu::check(gpu.MemcpyDtoDAsync_v2(reinterpret_cast<std::uintptr_t>(to.get()),
                                            reinterpret_cast<std::uintptr_t>(from.get()), copied, gpu.stream),
                     "copy");
        },
        5, 9);
    copy_rate = 2 * static_cast<double>(copied) / quantile(copy, 0.5);
    fmt::print("{{\"device\": \"{}\", \"copy\": {:.4e}, \"copy_q1\": {:.4e}, \"copy_q3\": {:.4e}}}\n",
               gpu.device->info().name, copy_rate, 2 * static_cast<double>(copied) / quantile(copy, 0.75),
               2 * static_cast<double>(copied) / quantile(copy, 0.25));
  };
  measure_copy();
  for (const Line& line : all) {
    const double bytes = minimal_bytes(line.what.problem, line.what.shape);
    // A forward reads no state here.
    const double state = static_cast<double>(line.what.shape.sequences().count() * line.what.problem.kv_heads.count() *
                                             line.what.problem.k.count() * line.what.problem.v.count() *
                                             size_of(line.what.problem.state));
    const double needed = line.what.problem.op == Op::step ? bytes : bytes - 2 * state;
    const double floor = needed / copy_rate;
    const int cold_sets = bytes < 2e8 ? static_cast<int>(std::min(200.0, std::ceil(2e8 / bytes))) : 1;
    std::vector<std::unique_ptr<Timed>> sets;
    for (int i = 0; i < cold_sets; ++i) sets.push_back(std::make_unique<Timed>(gpu, line.what, line.gates, i));
    for (const std::string& key : line.keys) {
      const Kernel& kernel = *kernels[key].kernel;
      const auto cold = gpu.time(
          [&] {
            for (const auto& set : sets) must(kernel.launch(set->launch));
          },
          1, 15);
      const auto replay = gpu.time([&] { must(kernel.launch(sets[0]->launch)); }, bytes < 2e8 ? 50 : 3, 15);
      const auto one = static_cast<double>(cold_sets);
      fmt::print(
          "{{\"time\": \"{}\", \"shape\": \"{}\", \"gates\": \"{}\", \"sets\": {}, \"us\": {:.2f}, \"q1\": {:.2f}, "
          "\"q3\": {:.2f}, \"replay_us\": {:.2f}, \"replay_q1\": {:.2f}, \"replay_q3\": {:.2f}, "
          "\"roof_us\": {:.2f}, \"of_roof\": {:.3f}}}\n",
          key, to_string(line.what.shape), to_string(line.gates), cold_sets, quantile(cold, 0.5) / one * 1e6,
          quantile(cold, 0.25) / one * 1e6, quantile(cold, 0.75) / one * 1e6, quantile(replay, 0.5) * 1e6,
          quantile(replay, 0.25) * 1e6, quantile(replay, 0.75) * 1e6, floor * 1e6, floor / (quantile(cold, 0.5) / one));
      std::fflush(stdout);
    }
  }
  measure_copy();
  return 0;
}

}  // namespace
}  // namespace glaive

int main(int argc, char** argv) {
  using namespace glaive;
  if (argc != 3) stop("verify FILE, or time FILE");
  std::vector<std::string> lines;
  std::ifstream file(argv[2]);
  for (std::string line; std::getline(file, line);)
    if (not line.empty() and line[0] != '#') lines.push_back(line);
  Gpu gpu;
  return std::string(argv[1]) == "verify" ? std::min(verify_file(gpu, lines), 1) : time_file(gpu, lines);
}
