#include "autotune/cpu_runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "autotune/baselines.hpp"
#include "autotune/memory.hpp"
#include "autotune/roofline.hpp"

namespace glaive {
namespace {

/// Both sides round in f32, over as many tokens as the case has.
constexpr double full_size_tolerance = 1e-4;

Result<Guarded> make_workspace(std::int64_t bytes) {
  try {
    return Guarded((bytes + 3) / 4);
  } catch (const std::bad_alloc&) {
    return fail(Status::out_of_memory, fmt::format("no memory for a workspace of {} bytes", bytes));
  }
}

}  // namespace

Result<Verdict> CpuRunner::verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) {
  auto verdict = verify(trials_.of(what, scrutiny), built);
  if (not verdict or verdict->drop != Drop::none or scrutiny == Scrutiny::brief) return verdict;
  const auto kernel = CpuKernel::load(built.plan, std::span(&built.code, 1));
  if (not kernel) return std::unexpected(kernel.error());
  if (auto done = compare_at_full_size(what, *kernel, gates, *verdict); not done) return std::unexpected(done.error());
  return verdict;
}

Result<Verdict> CpuRunner::verify(std::span<Trial> trials, const Built& built) {
  const auto kernel = CpuKernel::load(built.plan, std::span(&built.code, 1));
  if (not kernel and kernel.error().status == Status::io_error) return std::unexpected(kernel.error());
  if (not kernel) return Verdict{Drop::load_error, 0, 0, kernel.error().message};
  Verdict worst;
  for (auto& trial : trials) {
    const Running running(pulse_, 0);
    auto verdict = glaive::verify(*kernel, std::span(&trial, 1), pool_);
    verdict.error_o = std::max(verdict.error_o, worst.error_o);
    verdict.error_state = std::max(verdict.error_state, worst.error_state);
    worst = std::move(verdict);
    if (worst.drop == Drop::out_of_bounds) forget();
    if (worst.drop != Drop::none) return worst;
  }
  return worst;
}

Evaluated<std::vector<Timing>> CpuRunner::race(const Case& what, std::span<const Contender> contenders,
                                               const MeasurePolicy& policy, std::span<const std::size_t> keep) {
  if (auto made = make_call(what, policy.gates); not made) return std::unexpected(made.error());
  const auto extents = extents_of(what.problem, what.shape, pool_.workers());
  std::vector<CpuKernel> kernels;
  kernels.reserve(contenders.size());  // the closures below point into it
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    if (contenders[i].kind != Contender::Kind::kernel) continue;
    auto kernel = CpuKernel::load(contenders[i].built->plan, std::span(&contenders[i].built->code, 1));
    if (not kernel and kernel.error().status == Status::io_error) return std::unexpected(kernel.error());
    if (not kernel) return std::unexpected(Failure(kernel.error(), Drop::load_error, i));
    bytes = std::max(bytes, workspace_bytes(kernel->plan(), extents));
    kernels.push_back(std::move(*kernel));
  }
  auto workspace = make_workspace(bytes);
  if (not workspace) return std::unexpected(workspace.error());

  const auto words = call_->words();
  std::optional<Failure> lost;
  std::vector<Sampler> runs;
  std::vector<std::size_t> running, kept;  // a plain loop that does not cover the problem stays out
  for (std::size_t i = 0, loaded = 0; i < contenders.size(); ++i) {
    if (contenders[i].kind == Contender::Kind::kernel) {
      const auto timed = by_clock([&, i, kernel = &kernels[loaded++]] {
        const Running now(pulse_, i);
        kernel->run(words, extents, workspace->memory(), pool_);
      });
      runs.emplace_back([&, i, timed, first = true](std::int64_t calls) mutable -> Result<Sample> {
        auto sample = timed(calls);
        // Verification saw small shapes: before anybody else runs on this memory, look at the zones around it.
        if (std::exchange(first, false))
          if (auto fault = overrun(*call_, *workspace)) {
            lost.emplace(Error{Status::failed, "at full size " + *fault}, Drop::out_of_bounds, i);
            return std::unexpected<Error>(*lost);
          }
        return sample;
      });
    } else {
      const auto loop = contenders[i].kind == Contender::Kind::rows ? baseline_rows : baseline_tiles;
      if (not loop(*call_, pool_)) continue;
      runs.push_back(by_clock([&, loop] {
        static_cast<void>(loop(*call_, pool_));
        pulse_.beat();
      }));
    }
    if (std::ranges::find(keep, i) != keep.end()) kept.push_back(running.size());
    running.push_back(i);
  }
  auto times = glaive::race(runs, policy, kept);
  if (lost) {
    forget();
    return std::unexpected(std::move(*lost));
  }
  if (not times) return std::unexpected(times.error());
  std::vector<Timing> out(contenders.size());
  for (std::size_t i = 0; i < running.size(); ++i) out[running[i]] = std::move((*times)[i]);
  return out;
}

Rates CpuRunner::rates() {
  // Whatever else the machine does can only lower a rate, so the best of all measurements counts.
  rates_.fma = std::max(rates_.fma, fma_peak(pool_));
  rates_.copy = std::max(rates_.copy, copy_rate(pool_));
  return rates_;
}

/// The verification cases are small; at its full size a kernel is held against a plain loop, which shares no code
/// with it.
Result<void> CpuRunner::compare_at_full_size(const Case& what, const CpuKernel& kernel, Gates gates, Verdict& verdict) {
  if (auto made = make_call(what, gates); not made) return made;
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
  auto workspace = make_workspace(workspace_bytes(kernel.plan(), extents));
  if (not workspace) return std::unexpected(workspace.error());
  call_->poison_outputs();
  {
    const Running now(pulse_, 0);
    kernel.run(call_->words(), extents, workspace->memory(), pool_);
  }
  const auto with_reproducer = [&](std::string message) {
    return message + "\n  " + reproducer(what, kernel.plan().variant, gates, 1);
  };
  if (auto fault = overrun(*call_, *workspace)) {
    verdict.drop = Drop::out_of_bounds;
    verdict.message = with_reproducer("at full size " + *fault);
    forget();
    return {};
  }
  call_->read_outputs();
  const double o = relative_error(call_->o.data(), plain_o_),
               state = relative_error(call_->state_out.data(), plain_state_);
  const auto allowed = tolerance(what);
  if (o <= full_size_tolerance + allowed.o.tensor and state <= full_size_tolerance + allowed.state.tensor) return {};
  verdict.drop = Drop::wrong_result;
  verdict.message =
      with_reproducer(fmt::format("at full size o is {:.2e} and the state {:.2e} from a plain loop "
                                  "({:.0e} allowed)",
                                  o, state, full_size_tolerance));
  return {};
}

/// What somebody wrote into without leave is worth nothing to those who come after.
void CpuRunner::forget() {
  trials_.forget();
  call_.reset(), plain_o_.clear(), plain_state_.clear();
}

Result<void> CpuRunner::make_call(const Case& what, Gates gates) {
  if (call_ and call_->what == what and gates_ == gates) return {};
  call_.reset();
  plain_o_.clear(), plain_state_.clear();
  if (auto fits = check_memory(what); not fits) return fits;
  try {
    // A step updates its states in place, which is a third less traffic than from one buffer to another.
    gates_ = gates;
    call_.emplace(what, gates, 1, what.problem.op == Op::step ? Passing::in_place : Passing::contiguous);
  } catch (const std::bad_alloc&) {
    call_.reset();
    return fail(Status::out_of_memory, fmt::format("no memory for the tensors of `{}`", to_string(what)));
  }
  return {};
}

}  // namespace glaive
