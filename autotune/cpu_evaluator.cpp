#include "autotune/cpu_runner.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/memory.hpp"

namespace glaive {
namespace {

#ifdef GLAIVE_HAVE_MLIR

/// MLIR's compiler, one for each lane, and a runner.
class CpuEvaluator final : public Evaluator {
 public:
  CpuEvaluator(int threads, Pulse* pulse)
      : device_(host_cpu_device()),
        pulse_(pulse == nullptr ? own_pulse_ : *pulse),
        runner_(threads, pulse_),
        compilers_(static_cast<std::size_t>(threads)) {
    options_.target = device_.target;
    options_.tune_cpu = host_cpu_name();
    options_.effort = Optimise::full;
  }

  const DeviceInfo& device() const override { return device_; }
  int workers() const override { return runner_.workers(); }
  std::string compiler() const override {
    return compiler_build() + ", " + to_string(options_.target) + " tune=" + options_.tune_cpu;
  }

  Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                     int lane) override {
    auto key = compiler_of(lane).content_key(variant.family->instantiate(instance, variant.config), options(optimise));
    if (not key) return std::unexpected(key.error());
    return std::move(*key);
  }

  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                int lane) override {
    auto code = compiler_of(lane).compile(variant.family->instantiate(instance, variant.config), options(optimise));
    if (not code) return std::unexpected(code.error());
    return std::move(*code);
  }

  Result<void> check_memory(const Case& what) override { return glaive::check_memory(what); }
  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
    return runner_.verify(what, built, scrutiny, gates);
  }
  Result<Verdict> verify(std::span<Trial> trials, const Built& built) override { return runner_.verify(trials, built); }
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    return runner_.race(what, contenders, policy, keep);
  }
  Rates rates() override { return runner_.rates(); }

 private:
  MlirCompiler& compiler_of(int lane) {
    auto& compiler = compilers_[static_cast<std::size_t>(lane)];
    if (compiler == nullptr) compiler = std::make_unique<MlirCompiler>();
    return *compiler;
  }

  CompileOptions options(Optimise optimise) const {
    CompileOptions options = options_;
    options.effort = optimise;
    return options;
  }

  DeviceInfo device_;
  CompileOptions options_;
  Pulse own_pulse_;  // where nobody watches
  Pulse& pulse_;
  CpuRunner runner_;
  std::vector<std::unique_ptr<MlirCompiler>> compilers_;  // by lane, made by the thread that uses it
};

#endif

}  // namespace

#ifdef GLAIVE_HAVE_MLIR
bool have_compiler() { return true; }
Result<std::unique_ptr<Evaluator>> make_cpu_evaluator(int threads, Pulse* pulse) {
  return std::make_unique<CpuEvaluator>(threads, pulse);
}
#else
bool have_compiler() { return false; }
Result<std::unique_ptr<Evaluator>> make_cpu_evaluator(int, Pulse*) {
  return fail(
      Status::unsupported,
      "this glaive was built without MLIR, so it cannot compile kernels for a CPU: install libmlir-19-dev, llvm-19-dev "
      "and liblld-19-dev, and build again with -DGLAIVE_MLIR=ON");
}
#endif

}  // namespace glaive
