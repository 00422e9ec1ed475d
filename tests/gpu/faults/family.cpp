#include "tests/gpu/faults/family.hpp"

#include "compiler/cuda.hpp"

namespace glaive::test {

extern const std::string_view gpu_fault_kernel;  // kernel.inc

namespace {

/// What the compiler is to choke on.
std::string_view for_the_compiler(std::string_view kind) {
  if (kind == "compile_refused") return "#error told to fail\n";
  if (kind == "compile_too_much_shared")
    return "extern \"C\" __global__ void greedy() {\n  __shared__ volatile float much[1 << 20];\n"
           "  much[threadIdx.x] = 1;\n}\n";
  if (kind == "compile_forever")  // a minute or two
    return "constexpr int slow(int n, int of) { return n < 2 ? of : slow(n - 1, of) ^ slow(n - 2, of); }\n"
           "template <int n> struct Slow { static constexpr int value = slow(30, n) + Slow<n - 1>::value; };\n"
           "template <> struct Slow<0> { static constexpr int value = 0; };\n"
           "static __device__ int much = Slow<199>::value;\n";
  return {};
}

/// Compiles like the GPU's own, apart from two mistakes.
class FaultyGpuEvaluator final : public Evaluator {
 public:
  explicit FaultyGpuEvaluator(std::unique_ptr<Evaluator> right) : right_(std::move(right)) {}
  const DeviceInfo& device() const override { return right_->device(); }
  int workers() const override { return right_->workers(); }
  std::string compiler() const override { return right_->compiler(); }
  Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                     int lane) override {
    return right_->content_key(instance, variant, optimise, lane);
  }
  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                int lane) override {
    const auto kind = gpu_fault_kinds[variant.config.front()].name;
    if (kind == "code_elsewhere") {
      const auto compiler = CudaCompiler::open();
      if (not compiler) return std::unexpected(compiler.error());
      const char* const other = to_string(instance.target).contains("sm_80") ? "cuda:sm_90" : "cuda:sm_80";
      auto code = (*compiler)->compile(variant.family->instantiate(instance, variant.config),
                                       {parse_target(other).value(), {}});
      if (not code) return std::unexpected(code.error());
      code->target = instance.target;
      return std::move(*code);
    }
    auto code = right_->compile(instance, variant, optimise, lane);
    if (code and kind == "code_garbage") std::ranges::fill(std::span(code->bytes).subspan(16), std::byte{0x5a});
    return code;
  }
  Result<void> check_memory(const Case& what) override { return right_->check_memory(what); }
  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
    return right_->verify(what, built, scrutiny, gates);
  }
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    return right_->race(what, contenders, policy, keep);
  }
  Rates rates() override { return right_->rates(); }

 private:
  std::unique_ptr<Evaluator> right_;
};

}  // namespace

Source GpuFaultFamily::instantiate(const Instance&, const Config& config) const {
  const auto kind = kind_of(config);
  std::string args, parameters, words, kinds;
  for (std::size_t i = 0; i < arg_count; ++i) {
    const char* const comma = i == 0 ? "" : ", ";
    args += fmt::format("{}{}", comma, to_string(static_cast<Arg>(i)));
    parameters += fmt::format("{}u64 a{}", comma, i);
    words += fmt::format("{}a{}", comma, i);
  }
  for (const FaultKind& kind : gpu_fault_kinds) kinds += fmt::format("kind_{}, ", kind.name);
  return CudaSource{
      {std::string(kind)},
      fmt::format("typedef unsigned long long u64;\ntypedef long long i64;\nenum class Arg {{ {} }};\nenum {{ {}}};\n"
                  "#define ENTRY {}\n#define KIND kind_{}\n#define PARAMETERS {}\n#define WORDS {}\n"
                  "#define COUNTERS {}\n{}\n{}",
                  args, kinds, kind, kind, parameters, words, kind == "much_static" ? "(1ull << 38)" : "1",
                  for_the_compiler(kind), gpu_fault_kernel)};
}

Plan GpuFaultFamily::plan(const Instance& instance, const Config& config) const {
  const auto kind = kind_of(config);
  Plan plan = plan_of(instance, config, std::string(kind));
  Stage& stage = plan.stages.front();
  stage.block[0] = 8;
  plan.workspace = {{.multiplier = 64, .factors = stage.tasks.factors}};
  if (kind == "no_entry") stage.entry = "absent";
  if (kind == "plan_out_of_range") stage.block[0] = 2048;
  if (kind == "too_many_threads") stage.block[0] = 1024;  // __launch_bounds__ says 8
  if (kind == "too_much_shared") stage.shared_bytes = 1 << 20;
  if (kind == "too_many_blocks") stage.tasks.multiplier = std::int64_t{1} << 40;
  if (kind == "much_workspace") plan.workspace.front().multiplier = std::int64_t{1} << 42;
  if (kind == "illegal_afterwards") {
    Stage after = stage;
    after.entry = "afterwards";
    after.tasks = {};
    after.block[0] = 1;
    plan.stages.push_back(std::move(after));
  }
  return plan;
}

Result<std::unique_ptr<Evaluator>> make_faulty_gpu_evaluator(Pulse& pulse) {
  auto right = make_gpu_evaluator(0, &pulse);
  if (not right) return right;
  return std::make_unique<FaultyGpuEvaluator>(std::move(*right));
}

}  // namespace glaive::test
