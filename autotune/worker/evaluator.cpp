#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>

#include "autotune/memory.hpp"
#include "autotune/worker/process.hpp"

namespace glaive {
namespace {

constexpr double generous = 20;          ///< times longer than known may something take
constexpr double slowest_rate = 1e9;     ///< FLOP/s of a kernel that nothing is known of
constexpr double slowest_making = 20e6;  ///< bytes/s at which our own code makes and compares tensors
constexpr std::uint64_t stack_bytes = std::uint64_t{8} << 20;

/// After these a worker is not fit to judge others: its memory, or its device, may be damaged.
bool leaves_damage(Drop drop) { return drop == Drop::out_of_bounds or drop == Drop::device_error; }
bool leaves_damage(const Failure& failure) {
  return leaves_damage(failure.drop) or failure.status == Status::device_lost;
}

class WorkerEvaluator final : public Evaluator {
 public:
  explicit WorkerEvaluator(WorkerOptions options) : options_(std::move(options)) {
    const auto spare = static_cast<std::uint64_t>(available_bytes());
    const auto within = [&](std::uint64_t asked) { return asked == 0 ? spare : std::min(asked, spare); };
    // The system counts a thread's whole stack, however little of it is used.
    const auto stacks = static_cast<std::uint64_t>(options_.threads) * stack_bytes;
    runner_ = make(options_.threads, within(options_.run_bytes) + stacks);
    for (int lane = 0; lane < options_.threads; ++lane) compilers_.push_back(make(1, within(options_.compile_bytes)));
  }

  Result<void> greet() {
    auto welcome = runner_->welcome();
    if (not welcome) return std::unexpected(welcome.error());
    welcome_ = std::move(*welcome);
    return {};
  }

  const DeviceInfo& device() const override { return welcome_.device; }
  int workers() const override { return welcome_.workers; }
  std::string compiler() const override { return welcome_.compiler; }

  Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                     int lane) override {
    return compiled<std::string>(wire::Ask::content_key, instance, variant, optimise, lane,
                                 [](ByteReader& in) { return in.text(); });
  }

  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                int lane) override {
    return compiled<CodeObject>(wire::Ask::compile, instance, variant, optimise, lane, wire::get_code);
  }

  Result<void> check_memory(const Case& what) override {
    auto out = wire::begin(wire::Ask::check_memory);
    wire::put(out, what);
    const auto fits = ask<bool>(*runner_, out, limits(what), [](ByteReader&) { return true; });
    if (not fits) return std::unexpected<Error>(fits.error());
    return {};
  }

  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
    // A plan that cannot be served does not travel either.
    if (const auto travels = decode_plan(encode(built.plan), 1); not travels)
      return Verdict{Drop::load_error, 0, 0, fmt::format("{}: {}", built.plan.variant, travels.error().message)};
    auto out = wire::begin(wire::Ask::verify);
    wire::put(out, what);
    wire::put(out, built);
    out.number(static_cast<std::uint8_t>(scrutiny));
    wire::put(out, gates);
    auto verdict = ask<Verdict>(*runner_, out, limits(what), wire::get_verdict);
    if (verdict) {
      if (leaves_damage(verdict->drop)) runner_->retire();
      return std::move(*verdict);
    }
    if (verdict.error().drop == Drop::none) return std::unexpected<Error>(verdict.error());
    return Verdict{verdict.error().drop, 0, 0,
                   fmt::format("{}\n  {}", verdict.error().message, reproducer(what, built.plan.variant, gates, 1))};
  }

  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    auto out = wire::begin(wire::Ask::race);
    wire::put(out, what, contenders, policy, keep);
    auto times = ask<std::vector<Timing>>(*runner_, out, limits(what), wire::get_timings);
    if (not times) return times;
    if (times->size() != contenders.size()) return fail(Status::failed, "the worker timed something else");
    for (const auto& timing : *times)
      if (not timing.samples.empty()) best_seconds_ = std::min(best_seconds_, timing.median());
    return times;
  }

  Rates rates() override {
    auto out = wire::begin(wire::Ask::rates);
    const Limits limits{.running = options_.trusted_seconds, .trusted = options_.trusted_seconds};
    if (const auto measured = ask<Rates>(*runner_, out, limits, wire::get_rates)) {
      rates_.fma = std::max(rates_.fma, measured->fma);
      rates_.copy = std::max(rates_.copy, measured->copy);
    }
    return rates_;
  }

 private:
  std::unique_ptr<WorkerProcess> make(int threads, std::uint64_t memory_bytes) {
    return std::make_unique<WorkerProcess>(starter_, options_,
                                           wire::Hello{.threads = threads, .memory_bytes = memory_bytes});
  }

  /// Asks, and asks once more when the worker was killed from outside, or its device is lost and nobody is to blame.
  template <class T, class Read>
  Evaluated<T> ask(WorkerProcess& worker, ByteWriter& out, Limits limits, Read read) {
    const auto payload = out.take();
    for (bool killed = false, lost = false;;) {
      auto answer = worker.ask(payload, limits);
      if (not answer and std::holds_alternative<Error>(answer.error()))
        return std::unexpected<Failure>(std::get<Error>(answer.error()));
      if (not answer) {
        auto& death = std::get<Death>(answer.error());
        if (death.from_outside and not std::exchange(killed, true)) continue;
        // Nobody had run: there is none to blame.
        const auto drop = death.who ? death.drop : Drop::none;
        return std::unexpected(Failure({Status::failed, std::move(death.sentence)}, drop, death.who.value_or(0)));
      }
      ByteReader in(*answer);
      if (not wire::get_answered(in)) {
        auto failure = wire::get_failure(in);
        if (not in.at_end()) return fail(Status::failed, "the worker's answer makes no sense");
        if (leaves_damage(failure)) worker.retire();
        const bool for_nothing = failure.status == Status::device_lost and failure.drop == Drop::none;
        if (for_nothing and not std::exchange(lost, true)) continue;
        return std::unexpected(std::move(failure));
      }
      auto value = read(in);
      if (in.at_end()) return value;
      return fail(Status::failed, "the worker's answer makes no sense");
    }
  }

  template <class T, class Read>
  Evaluated<T> compiled(wire::Ask what, const Instance& instance, const Variant& variant, Optimise optimise, int lane,
                        Read read) {
    auto out = wire::begin(what);
    wire::put(out, instance, variant, optimise);
    const double limit = std::max(options_.compile_seconds, generous * longest_compile_);
    const double begin = steady_seconds();
    auto value = ask<T>(*compilers_[static_cast<std::size_t>(lane)], out,
                        {.running = limit, .trusted = options_.trusted_seconds}, read);
    if (value)
      if (const double seconds = steady_seconds() - begin; seconds > longest_compile_) longest_compile_ = seconds;
    return value;
  }

  Limits limits(const Case& what) {
    if (not timed_ or *timed_ != what) best_seconds_ = std::numeric_limits<double>::infinity();
    timed_ = what;
    const double likely = std::isinf(best_seconds_) ? useful_operations(what.problem, what.shape) / slowest_rate
                                                    : generous * best_seconds_;
    return {.running = std::max(options_.kernel_seconds, likely),
            .trusted = options_.trusted_seconds + full_size_bytes(what) / slowest_making};
  }

  WorkerOptions options_;
  Starter starter_;
  std::unique_ptr<WorkerProcess> runner_;
  std::vector<std::unique_ptr<WorkerProcess>> compilers_;
  wire::Welcome welcome_;
  std::atomic<double> longest_compile_ = 0;
  std::optional<Case> timed_;
  double best_seconds_ = std::numeric_limits<double>::infinity();  // of `timed_`
  Rates rates_;
};

}  // namespace

Result<std::unique_ptr<Evaluator>> make_worker_evaluator(WorkerOptions options) {
  auto evaluator = std::make_unique<WorkerEvaluator>(std::move(options));
  if (auto greeted = evaluator->greet(); not greeted) return std::unexpected(greeted.error());
  return evaluator;
}

}  // namespace glaive
