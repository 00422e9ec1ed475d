// What verifies and times kernels on a GPU, on a driver without one: kernel.c's forward and variants of it with one
// mistake each.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <span>

#include "autotune/gpu/fit.hpp"
#include "autotune/gpu/runner.hpp"
#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

const char* const line = "forward H4 Hkv2 K8 V8 f32 @ B2 T40";

float* o_of(const StubLaunch& launch) { return reinterpret_cast<float*>(launch.words[4]); }

struct Bench {
  Stub& stub = fresh_stub();
  Case what = parse_case(line).value();
  Built built{gpu_plan(), gpu_code()};
  Pulse pulse;
  GpuRunner runner{driver(), 0, pulse};

  explicit Bench(void (*after)(const StubLaunch&) = nullptr) {
    StubKernel kernel = forward_kernel();
    static void (*mistake)(const StubLaunch&) = nullptr;
    static void (*right)(const StubLaunch&) = nullptr;
    mistake = after, right = kernel.body;
    kernel.body = [](const StubLaunch& launch) {
      right(launch);
      if (mistake != nullptr) mistake(launch);
    };
    stub.set_kernel("forward", kernel);
  }
  Verdict verify(Scrutiny scrutiny = Scrutiny::full, Gates gates = Gates::weak) {
    return runner.verify(what, built, scrutiny, gates).value();
  }
  Evaluated<std::vector<Timing>> race(Gates gates = Gates::weak) {
    const Contender two[] = {{Contender::Kind::kernel, &built}, {Contender::Kind::kernel, &built}};
    const std::size_t keep[] = {0, 1};
    return runner.race(what, two, {.min_sample_seconds = 1e-6, .max_samples = 8, .budget_seconds = 1, .gates = gates},
                       keep);
  }
};

/// The GPU's step with a mistake in its source.
struct Broken final : Family {
  const Family& right = *find_family("step", Target::Kind::cuda);
  std::string_view name() const override { return "broken"; }
  std::string_view summary() const override { return "does not compile"; }
  Target::Kind kind() const override { return Target::Kind::cuda; }
  Result<void> applicable(const Instance& instance) const override { return right.applicable(instance); }
  std::vector<Parameter> parameters(const Instance& instance) const override { return right.parameters(instance); }
  std::optional<std::string> constraint(const Instance&, const Config&) const override { return std::nullopt; }
  Config default_config(const Instance& instance) const override { return right.default_config(instance); }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config&) const override { return 1; }
  Source instantiate(const Instance& instance, const Config& config) const override {
    auto source = std::get<CudaSource>(right.instantiate(instance, config));
    source.text += "\nint mistake = not_declared;\n";
    return source;
  }
  Plan plan(const Instance& instance, const Config& config) const override { return right.plan(instance, config); }
};

}  // namespace

TEST_CASE("gpu runner: a right kernel passes on all trials and at full size, and is timed in replays of a graph") {
  Bench bench;
  const Verdict verdict = bench.verify();
  CHECK(verdict.message == "");
  CHECK(verdict.drop == Drop::none);
  CHECK(verdict.error_o > 0);
  const auto times = bench.race();
  REQUIRE(times.has_value());
  REQUIRE(times->size() == 2);
  for (const Timing& timing : *times) {
    CHECK(timing.samples.size() >= 7);
    // The stub's clock: a microsecond for a launch, and nothing for the flush before it.
    CHECK(timing.median() == Approx(1e-6).epsilon(0.01));
  }
  CHECK(std::ranges::count(bench.stub.calls(), "GraphLaunch") > 10);
  CHECK_FALSE(bench.pulse.seen().running);
}

TEST_CASE("gpu runner: a graph's calls take images of the tensors in turn, whatever was placed before") {
  Bench bench;
  REQUIRE(bench.verify(Scrutiny::full).drop == Drop::none);  // runs on a single image
  const auto before = bench.stub.launches().size();
  REQUIRE(bench.race().has_value());
  std::set<std::uint64_t> outputs;
  for (const StubLaunch& launch : std::span(bench.stub.launches()).subspan(before)) outputs.insert(launch.words[4]);
  CHECK(outputs.size() > 100);  // what covers the L2 cache of the stub
}

TEST_CASE("gpu runner: the call at full size has the gates that are asked for, compared and timed") {
  static std::vector<float> first_gates;
  first_gates.clear();
  Bench bench([](const StubLaunch& launch) {
    if (launch.words[30] == 80) first_gates.push_back(*reinterpret_cast<const float*>(launch.words[3]));
  });
  REQUIRE(bench.verify(Scrutiny::full, Gates::minus5).drop == Drop::none);
  CHECK(first_gates == std::vector{-5.0f});
  REQUIRE(bench.race(Gates::minus5).has_value());
  CHECK(std::ranges::count(first_gates, -5.0f) == std::ssize(first_gates));
  first_gates.clear();
  REQUIRE(bench.race(Gates::zero).has_value());
  REQUIRE_FALSE(first_gates.empty());
  CHECK(std::ranges::count(first_gates, 0.0f) == std::ssize(first_gates));
}

TEST_CASE("gpu runner: who writes into inputs at full size costs nobody else the place") {
  static bool writes = true;
  writes = true;
  Bench bench([](const StubLaunch& launch) {
    if (launch.words[30] == 80 and writes) *reinterpret_cast<float*>(launch.words[0]) += 100;
  });
  REQUIRE(bench.verify(Scrutiny::full).drop == Drop::none);  // after it has read them
  writes = false;
  CHECK(bench.verify(Scrutiny::full).drop == Drop::none);
  CHECK(bench.verify(Scrutiny::full).drop == Drop::none);
}

TEST_CASE("gpu runner: a mistake is told for what it is") {
  SECTION("a little off") {
    Bench bench([](const StubLaunch& launch) { o_of(launch)[3] *= 1.1f; });
    CHECK(bench.verify(Scrutiny::brief).drop == Drop::wrong_result);
  }
  SECTION("off at full size only") {
    Bench bench([](const StubLaunch& launch) {
      const auto tokens = launch.words[30];
      if (tokens == 80) o_of(launch)[0] += 100;
    });
    CHECK(bench.verify(Scrutiny::brief).drop == Drop::none);
    const Verdict verdict = bench.verify(Scrutiny::full);
    CHECK(verdict.drop == Drop::wrong_result);
    CHECK(contains(verdict.message, "at full size"));
  }
  SECTION("before the tensor") {
    Bench bench([](const StubLaunch& launch) { o_of(launch)[-1] = 0; });
    CHECK(bench.verify(Scrutiny::brief).drop == Drop::out_of_bounds);
    const auto times = bench.race();
    REQUIRE_FALSE(times.has_value());
    CHECK(times.error().drop == Drop::out_of_bounds);
    CHECK(times.error().contender == 0);
  }
  SECTION("into an input") {
    Bench bench([](const StubLaunch& launch) { *reinterpret_cast<float*>(launch.words[0]) += 1; });
    CHECK(bench.verify(Scrutiny::brief).drop == Drop::out_of_bounds);
  }
}

TEST_CASE("gpu runner: a kernel that breaks the context is out with a device error, in trials and in a race") {
  Bench bench;
  SECTION("in trials") {
    REQUIRE(bench.runner.check_memory(bench.what).has_value());
    bench.stub.fail("LaunchKernelEx", cuda::illegal_address);
    const Verdict verdict = bench.verify(Scrutiny::brief);
    CHECK(verdict.drop == Drop::device_error);
    CHECK(contains(verdict.message, "CUDA_ERROR_ILLEGAL_ADDRESS"));
    CHECK(contains(verdict.message, "glaive verify"));
  }
  SECTION("unless the hardware has") {
    REQUIRE(bench.runner.check_memory(bench.what).has_value());
    constexpr int ecc_uncorrectable = 214;
    SECTION("in trials") {
      bench.stub.fail("LaunchKernelEx", ecc_uncorrectable);
      const auto verdict = bench.runner.verify(bench.what, bench.built, Scrutiny::brief, Gates::weak);
      REQUIRE_FALSE(verdict.has_value());
      CHECK(verdict.error().status == Status::device_lost);
    }
    SECTION("in a race") {
      bench.stub.fail("LaunchKernelEx", ecc_uncorrectable, 2);
      const auto times = bench.race();
      REQUIRE_FALSE(times.has_value());
      CHECK(times.error().drop == Drop::none);
      CHECK(times.error().status == Status::device_lost);
    }
  }
  SECTION("in a race") {
    bench.stub.fail("LaunchKernelEx", cuda::illegal_address, 2);  // two of the first contender are right
    const auto times = bench.race();
    REQUIRE_FALSE(times.has_value());
    CHECK(times.error().drop == Drop::device_error);
  }
}

TEST_CASE("gpu runner: what a case before took is no lack of memory") {
  Bench bench;
  const Case large = parse_case("forward H4 Hkv2 K8 V8 f32 @ B2 T2000").value();
  REQUIRE(bench.runner.check_memory(bench.what).has_value());
  bench.what = large;
  REQUIRE(bench.verify(Scrutiny::full).drop == Drop::none);
  std::size_t free = 0, total = 0;
  REQUIRE(driver().api().MemGetInfo(&free, &total) == cuda::success);
  bench.stub.set_memory(total - free + 1);
  CHECK(bench.runner.check_memory(large).has_value());  // is there
  const auto next = bench.runner.check_memory(parse_case("forward H4 Hkv2 K8 V8 f32 @ B2 T500").value());
  CHECK(next.has_value());
  bench.stub.fail("MemGetInfo", cuda::illegal_address);
  const auto broken = bench.runner.check_memory(large);
  REQUIRE_FALSE(broken.has_value());
  CHECK(broken.error().status == Status::device_lost);
}

TEST_CASE("gpu timer: what fails leaves no graph and no context behind") {
  Stub& stub = fresh_stub();
  const auto current = [] {
    cuda::Context now = nullptr;
    driver().api().CtxGetCurrent(&now);
    return now != nullptr;
  };
  REQUIRE_FALSE(current());
  {
    const auto timer = GpuTimer::make(driver(), 0, 1 << 16).value();
    CHECK(current());
    const auto captured = timer->capture([] { return fail(Status::failed, "no launch"); });
    REQUIRE_FALSE(captured.has_value());
    CHECK(captured.error().message == "no launch");
    CHECK(timer->capture([] { return Result<void>(); }).has_value());
    CHECK(std::ranges::count(stub.calls(), "GraphDestroy") == 2);
  }
  CHECK_FALSE(current());
  stub.fail("StreamCreate", cuda::out_of_memory);
  CHECK_FALSE(GpuTimer::make(driver(), 0, 1 << 16).has_value());
  CHECK_FALSE(current());
}

TEST_CASE("gpu runner: a lack of memory is no fault of the variant") {
  Bench bench;
  bench.stub.set_memory(std::size_t{8} << 30);  // a test before may have left some, with its context broken
  REQUIRE(bench.runner.check_memory(bench.what).has_value());
  bench.stub.set_memory(1000);
  const auto fits = bench.runner.check_memory(bench.what);
  REQUIRE_FALSE(fits.has_value());
  CHECK(fits.error().status == Status::out_of_memory);
  CHECK(contains(fits.error().message, "on the GPU"));
  const auto verdict = bench.runner.verify(bench.what, bench.built, Scrutiny::brief, Gates::weak);
  REQUIRE_FALSE(verdict.has_value());
  CHECK(verdict.error().status == Status::out_of_memory);
}

TEST_CASE("gpu evaluator: kernels are judged by their facts before any launch") {
  Plan plan;
  plan.stages.resize(1);
  plan.stages[0].entry = "kernel";
  plan.stages[0].block[0] = 256;
  KernelFacts facts{.entry = "kernel", .registers = 255, .most_threads = 256};
  const auto told = [&](bool may_spill = false) {
    return unfit(plan, std::span(&facts, 1), *parse_target("cuda:sm_90a"), may_spill);
  };
  CHECK(told() == "");
  facts.spills = 65;
  CHECK(contains(told(), "spilled"));
  CHECK(told(true) == "");
  facts.spills = 0, plan.stages[0].shared_bytes = 300000;
  CHECK(contains(told(), "does not fit"));
  plan.stages[0].shared_bytes = 0, plan.stages[0].block[0] = 512, facts.most_threads = 512;
  CHECK(contains(told(true), "512 threads with 255 registers"));
  facts.registers = 32, facts.most_threads = 256;
  CHECK(contains(told(), "at most 256 threads"));
}

TEST_CASE("gpu evaluator: a GPU that NVRTC does not know gets PTX for one below it") {
  if (not CudaCompiler::open()) return;
  fresh_stub();
  setenv("STUB_COMPUTE", "99", 1);
  auto evaluator = make_gpu_evaluator(0, nullptr);
  unsetenv("STUB_COMPUTE");
  REQUIRE(evaluator.has_value());
  CHECK(to_string((*evaluator)->device().target) == "cuda:sm_99");
  const Instance instance{parse_problem("step H4 K64 V64 bf16").value(), (*evaluator)->device().target};
  const Family& family = *find_family("step", Target::Kind::cuda);
  const Variant variant{&family, family.default_config(instance)};
  const auto code = (*evaluator)->compile(instance, variant, Optimise::full, 0);
  if (not code) FAIL(code.error().message);
  CHECK(code->format == CodeObject::Format::ptx);
  CHECK(to_string(code->target) == "cuda:compute_90");
}

TEST_CASE("gpu evaluator: what NVRTC refuses is told with the variant's name, and its source is saved") {
  if (not CudaCompiler::open()) return;
  fresh_stub();
  const auto folder = std::filesystem::temp_directory_path() / ("glaive_gpu_evaluator." + std::to_string(getpid()));
  REQUIRE(std::filesystem::create_directory(folder));
  setenv("GLAIVE_CACHE", folder.c_str(), 1);
  const auto evaluator = make_gpu_evaluator(0, nullptr).value();
  const Instance instance{parse_problem("step H4 K64 V64 bf16").value(), evaluator->device().target};
  const Broken family;
  const Variant variant{&family, family.default_config(instance)};
  const auto code = evaluator->compile(instance, variant, Optimise::full, 0);
  unsetenv("GLAIVE_CACHE");
  REQUIRE_FALSE(code.has_value());
  const std::string& message = code.error().message;
  INFO(message);
  CHECK(message.starts_with(to_string(variant, instance) + ": NVRTC: "));
  CHECK(contains(message, "not_declared"));
  const std::string_view label = "its source: ";
  REQUIRE(contains(message, label));
  std::ifstream file(message.substr(message.find(label) + label.size()));
  const std::string saved{std::istreambuf_iterator<char>(file), {}};
  CHECK(saved == std::get<CudaSource>(family.instantiate(instance, variant.config)).text);
  std::filesystem::remove_all(folder);
}
