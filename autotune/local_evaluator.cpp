#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <optional>

#include "autotune/baselines.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/roofline.hpp"

namespace glaive {
namespace {

#ifdef GLAIVE_HAVE_MLIR

class LocalEvaluator final : public Evaluator {
 public:
  explicit LocalEvaluator(int threads) : device_(host_cpu_device()), pool_(threads), compilers_(threads) {
    options_.target = device_.target;
    options_.tune_cpu = host_cpu_name();
    options_.effort = Optimise::full;
  }

  const DeviceInfo& device() const override { return device_; }
  int workers() const override { return pool_.workers(); }
  std::string compiler() const override { return compiler_build() + ", " + to_string(options_); }

  Result<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                  int lane) override {
    return compiler_of(lane).content_key(variant.family->instantiate(instance, variant.config), options(optimise));
  }

  Result<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise, int lane) override {
    return compiler_of(lane).compile(variant.family->instantiate(instance, variant.config), options(optimise));
  }

  Verdict verify(const Case& what, const Built& built, Scrutiny scrutiny) override {
    auto& trials = trials_of(what, scrutiny);
    const auto kernel = CpuKernel::load(built.plan, std::span(&built.code, 1));
    if (not kernel) return {Drop::load_error, 0, 0, kernel.error().message};
    return glaive::verify(*kernel, trials, pool_);
  }

  Result<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders, const MeasurePolicy& policy,
                                   std::span<const std::size_t> keep) override {
    if (auto made = make_call(what); not made) return std::unexpected(made.error());
    const auto extents = extents_of(what.problem, what.shape, pool_.workers());
    std::vector<CpuKernel> kernels;
    kernels.reserve(contenders.size());  // the closures below point into it
    std::int64_t workspace_size = workspace_alignment;
    for (const auto& contender : contenders) {
      if (contender.kind != Contender::Kind::kernel) continue;
      auto kernel = CpuKernel::load(contender.built->plan, std::span(&contender.built->code, 1));
      if (not kernel) return std::unexpected(kernel.error());
      workspace_size = std::max(workspace_size, workspace_bytes(kernel->plan(), extents));
      kernels.push_back(std::move(*kernel));
    }
    const auto rounded = (workspace_size + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
    const std::unique_ptr<void, decltype(&std::free)> workspace(
        std::aligned_alloc(workspace_alignment, static_cast<std::size_t>(rounded)), &std::free);
    if (workspace == nullptr)
      return fail(Status::out_of_memory, fmt::format("no memory for a workspace of {} bytes", rounded));

    const auto words = call_->words();
    std::vector<std::function<void()>> runs;
    auto kernel = kernels.begin();
    for (const auto& contender : contenders) {
      switch (contender.kind) {
        case Contender::Kind::kernel:
          runs.emplace_back([&, kernel] { kernel->run(words, extents, workspace.get(), pool_); });
          ++kernel;
          break;
        case Contender::Kind::rows:
          runs.emplace_back([&] { baseline_rows(*call_, pool_); });
          break;
        case Contender::Kind::tiles:
          runs.emplace_back([&] { baseline_tiles(*call_, pool_); });
          break;
      }
    }
    return glaive::race(runs, policy, keep);
  }

  Rates rates() override {
    if (not rates_) rates_ = Rates{fma_peak(pool_), copy_rate(pool_)};
    return *rates_;
  }

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

  /// Oracles are computed once and shared by all variants of a case.
  std::vector<Trial>& trials_of(const Case& what, Scrutiny scrutiny) {
    if (not tried_ or *tried_ != what) brief_.clear(), full_.clear();
    tried_ = what;
    auto& trials = scrutiny == Scrutiny::brief ? brief_ : full_;
    if (not trials.empty()) return trials;
    const auto cases = verification_cases(what);
    for (std::size_t c = 0; c < cases.size(); ++c)
      for (std::size_t g = 0; g < std::size(all_gates); ++g)
        if (scrutiny == Scrutiny::full or g % cases.size() == c)
          trials.emplace_back(cases[c], all_gates[g], 1 + c * std::size(all_gates) + g);
    return trials;
  }

  Result<void> make_call(const Case& what) {
    if (call_ and call_->what == what) return {};
    call_.reset();
    const double need = minimal_bytes(what.problem, what.shape) * 1.1;
    const double have = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    if (need > 0.8 * have)
      return fail(Status::out_of_memory, fmt::format("`{}` needs {:.1f} GB of memory, and this machine has {:.1f} GB",
                                                     to_string(what), need / 1e9, have / 1e9));
    try {
      call_.emplace(what, Gates::weak, 1);
    } catch (const std::bad_alloc&) {
      call_.reset();
      return fail(Status::out_of_memory, fmt::format("no memory for the tensors of `{}`", to_string(what)));
    }
    return {};
  }

  DeviceInfo device_;
  CompileOptions options_;
  WorkerPool pool_;
  std::vector<std::unique_ptr<MlirCompiler>> compilers_;  // by lane, made by the thread that uses it
  std::optional<Case> tried_;
  std::vector<Trial> brief_, full_;
  std::optional<Call> call_;
  std::optional<Rates> rates_;
};

#endif

}  // namespace

#ifdef GLAIVE_HAVE_MLIR
bool have_compiler() { return true; }
Result<std::unique_ptr<Evaluator>> make_local_evaluator(int threads) {
  return std::make_unique<LocalEvaluator>(threads);
}
#else
bool have_compiler() { return false; }
Result<std::unique_ptr<Evaluator>> make_local_evaluator(int) {
  return fail(
      Status::unsupported,
      "this glaive was built without MLIR, so it cannot compile kernels: install libmlir-19-dev, llvm-19-dev and "
      "liblld-19-dev, and build again with -DGLAIVE_MLIR=ON");
}
#endif

}  // namespace glaive
