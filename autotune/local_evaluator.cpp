#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <optional>

#include "autotune/baselines.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/memory.hpp"
#include "autotune/roofline.hpp"

namespace glaive {
namespace {

#ifdef GLAIVE_HAVE_MLIR

/// Both sides round in f32, over as many tokens as the case has.
constexpr double full_size_tolerance = 1e-4;

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

  Result<void> check_memory(const Case& what) override { return glaive::check_memory(what); }

  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny) override {
    auto& trials = trials_of(what, scrutiny);
    const auto kernel = CpuKernel::load(built.plan, std::span(&built.code, 1));
    if (not kernel and kernel.error().status == Status::io_error) return std::unexpected(kernel.error());
    if (not kernel) return Verdict{Drop::load_error, 0, 0, kernel.error().message};
    auto verdict = glaive::verify(*kernel, trials, pool_);
    if (verdict.drop == Drop::none and scrutiny == Scrutiny::full)
      if (auto done = compare_at_full_size(what, *kernel, verdict); not done) return std::unexpected(done.error());
    return verdict;
  }

  Result<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders, const MeasurePolicy& policy,
                                   std::span<const std::size_t> keep) override {
    if (auto made = make_call(what); not made) return std::unexpected(made.error());
    const auto extents = extents_of(what.problem, what.shape, pool_.workers());
    std::vector<CpuKernel> kernels;
    kernels.reserve(contenders.size());  // the closures below point into it
    std::int64_t bytes = 0;
    for (const auto& contender : contenders) {
      if (contender.kind != Contender::Kind::kernel) continue;
      auto kernel = CpuKernel::load(contender.built->plan, std::span(&contender.built->code, 1));
      if (not kernel) return std::unexpected(kernel.error());
      bytes = std::max(bytes, workspace_bytes(kernel->plan(), extents));
      kernels.push_back(std::move(*kernel));
    }
    const auto workspace = make_workspace(bytes);
    if (workspace == nullptr) return no_workspace(bytes);

    const auto words = call_->words();
    std::vector<Sampler> runs;
    std::vector<std::size_t> running, kept;  // a plain loop that does not cover the problem stays out
    for (std::size_t i = 0, loaded = 0; i < contenders.size(); ++i) {
      if (contenders[i].kind == Contender::Kind::kernel) {
        runs.push_back(
            by_clock([&, kernel = &kernels[loaded++]] { kernel->run(words, extents, workspace.get(), pool_); }));
      } else {
        const auto loop = contenders[i].kind == Contender::Kind::rows ? baseline_rows : baseline_tiles;
        if (not loop(*call_, pool_)) continue;
        runs.push_back(by_clock([&, loop] { static_cast<void>(loop(*call_, pool_)); }));
      }
      if (std::ranges::find(keep, i) != keep.end()) kept.push_back(running.size());
      running.push_back(i);
    }
    auto times = glaive::race(runs, policy, kept);
    if (not times) return times;
    std::vector<Timing> out(contenders.size());
    for (std::size_t i = 0; i < running.size(); ++i) out[running[i]] = std::move((*times)[i]);
    return out;
  }

  Rates rates() override {
    // Whatever else the machine does can only lower a rate, so the best of all measurements counts.
    rates_.fma = std::max(rates_.fma, fma_peak(pool_));
    rates_.copy = std::max(rates_.copy, copy_rate(pool_));
    return rates_;
  }

 private:
  MlirCompiler& compiler_of(int lane) {
    auto& compiler = compilers_[static_cast<std::size_t>(lane)];
    if (compiler == nullptr) compiler = std::make_unique<MlirCompiler>();
    return *compiler;
  }

  using Workspace = std::unique_ptr<void, decltype(&std::free)>;
  static Workspace make_workspace(std::int64_t bytes) {
    const auto rounded = (bytes / workspace_alignment + 1) * workspace_alignment;
    return {std::aligned_alloc(workspace_alignment, static_cast<std::size_t>(rounded)), &std::free};
  }

  static std::unexpected<Error> no_workspace(std::int64_t bytes) {
    return fail(Status::out_of_memory, fmt::format("no memory for a workspace of {} bytes", bytes));
  }

  /// The verification cases are small; at its full size a kernel is held against a plain loop, which shares no code
  /// with it.
  Result<void> compare_at_full_size(const Case& what, const CpuKernel& kernel, Verdict& verdict) {
    if (auto made = make_call(what); not made) return made;
    if (plain_o_.empty()) {
      call_->poison_outputs();
      if (const auto ran = baseline_tiles(*call_, pool_); not ran) {
        verdict.message = "not compared: " + ran.error().message;
        return {};
      }
      plain_o_.assign(call_->o.data().begin(), call_->o.data().end());
      plain_state_.assign(call_->state_out.data().begin(), call_->state_out.data().end());
    }
    const auto extents = extents_of(what.problem, what.shape, pool_.workers());
    const auto bytes = workspace_bytes(kernel.plan(), extents);
    const auto workspace = make_workspace(bytes);
    if (workspace == nullptr) return no_workspace(bytes);
    call_->poison_outputs();
    kernel.run(call_->words(), extents, workspace.get(), pool_);
    call_->read_outputs();
    const double o = relative_error(call_->o.data(), plain_o_),
                 state = relative_error(call_->state_out.data(), plain_state_);
    const auto allowed = tolerance(what.problem);
    if (o <= full_size_tolerance + allowed.o.tensor and state <= full_size_tolerance + allowed.state.tensor) return {};
    verdict.drop = Drop::wrong_result;
    verdict.message =
        fmt::format("at full size o is {:.2e} and the state {:.2e} from a plain loop ({:.0e} allowed)\n  {}", o, state,
                    full_size_tolerance, reproducer(what, kernel.plan().variant, Gates::weak, 1));
    return {};
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
    plain_o_.clear(), plain_state_.clear();
    if (auto fits = check_memory(what); not fits) return fits;
    try {
      // A step updates its states in place, which is a third less traffic than from one buffer to another.
      call_.emplace(what, Gates::weak, 1, what.problem.op == Op::step ? Passing::in_place : Passing::contiguous);
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
  std::vector<double> plain_o_, plain_state_;  // what the plain loop makes of call_
  Rates rates_;
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
