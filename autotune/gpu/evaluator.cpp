#include "autotune/evaluator.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "autotune/cache.hpp"
#include "autotune/gpu/fit.hpp"
#include "autotune/gpu/peak.hpp"
#include "autotune/gpu/runner.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"

namespace glaive {
namespace {

/// NVRTC, and a runner on one GPU.
class GpuEvaluator final : public Evaluator {
 public:
  GpuEvaluator(const cuda::Driver& driver, int ordinal, DeviceInfo info, std::shared_ptr<const CudaCompiler> compiler,
               Pulse* pulse)
      : device_(std::move(info)),
        compiler_(std::move(compiler)),
        pulse_(pulse == nullptr ? own_pulse_ : *pulse),
        runner_(driver, ordinal, pulse_) {}

  const DeviceInfo& device() const override { return device_; }
  int workers() const override { return 1; }
  std::string compiler() const override { return compiler_->build() + ", " + to_string(options()); }

  Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise, int) override {
    auto key = compiler_->content_key(variant.family->instantiate(instance, variant.config), options());
    if (not key) return std::unexpected(key.error());
    return std::move(*key);
  }

  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise, int) override {
    const Source source = variant.family->instantiate(instance, variant.config);
    CudaReport report;
    auto code = compiler_->compile(source, options(), &report);
    if (code) {
      const Family& family = *variant.family;
      const auto reason = unfit(family.plan(instance, variant.config), report.kernels, device_.target,
                                variant.config == family.default_config(instance));
      if (reason.empty()) return std::move(*code);
      return std::unexpected(Failure({Status::unsupported, reason}, Drop::resources));
    }
    if (code.error().status == Status::out_of_memory) return std::unexpected(Failure(code.error(), Drop::memory));
    const auto folder = cache_location();
    const auto* const text = std::get_if<CudaSource>(&source);
    if (not folder or text == nullptr or code.error().status != Status::failed) return std::unexpected(code.error());
    return std::unexpected(with_source_saved(code.error(), to_string(variant, instance), *text, *folder));
  }

  Result<void> check_memory(const Case& what) override { return runner_.check_memory(what); }
  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
    return runner_.verify(what, built, scrutiny, gates);
  }
  Result<Verdict> verify(std::span<Trial> trials, const Built& built) override { return runner_.verify(trials, built); }
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    return runner_.race(what, contenders, policy, keep);
  }

  Rates rates() override {
    // Whatever else the machine does can only lower a rate, so the best of all measurements counts.
    if (const auto copy = runner_.copy_rate()) rates_.copy = std::max(rates_.copy, *copy);
    if (rates_.fma == 0)
      if (const auto code = compiler_->compile(peak_source(), options()))
        if (const auto peak = runner_.peak_rate(*code)) rates_.fma = *peak;
    return rates_;
  }

 private:
  CudaOptions options() const { return {compiler_->target_for(device_.target), {}}; }

  DeviceInfo device_;
  std::shared_ptr<const CudaCompiler> compiler_;
  Pulse own_pulse_;
  Pulse& pulse_;
  GpuRunner runner_;
  Rates rates_;
};

}  // namespace

Result<std::unique_ptr<Evaluator>> make_gpu_evaluator(int ordinal, Pulse* pulse) {
  const auto driver = cuda::Driver::get();
  if (not driver) return std::unexpected(driver.error());
  auto info = describe_gpu(**driver, ordinal);
  if (not info) return std::unexpected(std::move(info).error());
  auto compiler = CudaCompiler::open();
  if (not compiler) return std::unexpected(std::move(compiler).error());
  return std::make_unique<GpuEvaluator>(**driver, ordinal, std::move(*info), std::move(*compiler), pulse);
}

}  // namespace glaive
