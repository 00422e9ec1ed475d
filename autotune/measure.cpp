#include "autotune/measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace glaive {
namespace {

/// log of P(Binomial(n, 1/2) = k), for k = 0, 1, ..
class LogBinomial {
 public:
  explicit LogBinomial(std::size_t n) : n_(n), log_(-static_cast<double>(n) * std::log(2.0)) {}
  double value() const { return log_; }
  void next() {
    log_ += std::log(static_cast<double>(n_ - k_)) - std::log(static_cast<double>(k_ + 1));
    ++k_;
  }

 private:
  std::size_t n_, k_ = 0;
  double log_;
};

/// The largest m with P(Binomial(n, 1/2) < m) <= 2.5 %, so that the m-th smallest and m-th largest of n samples enclose
/// the median with at least 95 %; 0 where there is none.
std::size_t order_of_bound(std::size_t n) {
  LogBinomial term(n);
  double below = 0;
  std::size_t m = 0;
  for (; m < n; ++m, term.next()) {
    below += std::exp(term.value());
    if (below > 0.025) break;
  }
  return m;
}

/// The same for an interval that holds at all n at once. Of n samples, k lie below the median. Were each below it with
/// probability p, a bet on p drawn evenly from [0, 1] would have multiplied its stake by 2^n k! (n-k)! / (n+1)!; as p
/// is 1/2, it ever reaches 1/error with a chance of at most `error` (Ville). The m smallest k at which it does are out.
std::size_t order_of_lasting_bound(std::size_t n, double error) {
  const double most = std::log(error) - std::log(static_cast<double>(n + 1));
  LogBinomial term(n);
  std::size_t m = 0;
  for (; 2 * m < n and term.value() <= most; ++m) term.next();
  return m;
}

std::vector<double> sorted(std::vector<double> samples) {
  std::ranges::sort(samples);
  return samples;
}

constexpr double no_time = std::numeric_limits<double>::quiet_NaN();

double median_of_sorted(std::span<const double> order) {
  if (order.empty()) return no_time;
  const std::size_t n = order.size();
  return n % 2 == 1 ? order[n / 2] : (order[n / 2 - 1] + order[n / 2]) / 2;
}

class Race {
 public:
  Race(std::span<const Sampler> contenders, const MeasurePolicy& policy, std::span<const std::size_t> keep)
      : policy_(policy), runners_(contenders.size()) {
    for (std::size_t i = 0; i < contenders.size(); ++i) runners_[i].sampler = &contenders[i];
    for (const std::size_t i : keep) runners_.at(i).kept = true;
  }

  Result<std::vector<Timing>> run() {
    for (Runner& runner : runners_)
      if (auto ready = prepare(runner); not ready) return std::unexpected(ready.error());
    for (int round = 0; not over(); ++round) {
      auto counts = take_round(round % 2 == 1);
      if (not counts) return std::unexpected(counts.error());
      if (*counts) drop_slower();
    }
    if (not runners_.empty() and discarded_ >= policy_.max_discarded and samples() < policy_.min_samples)
      return fail(Status::failed, fmt::format("{} of {} rounds could not be used, the last because {}", discarded_,
                                              discarded_ + samples(), why_));
    std::vector<Timing> timings;
    for (Runner& runner : runners_) {
      runner.timing.discarded = discarded_;
      timings.push_back(std::move(runner.timing));
    }
    return timings;
  }

 private:
  struct Runner {
    const Sampler* sampler = nullptr;
    std::int64_t batch = 1;
    double spent = 0, latest = 0;
    bool kept = false;
    Timing timing;
  };

  /// Warms up, then sizes the batch until two samples in a row are long enough: one may be cold, or have been held up,
  /// and a batch that is too short would be held against the contender for the whole race. Where even the warm-up takes
  /// long, a batch is one call.
  Result<void> prepare(Runner& runner) const {
    const auto warm = (*runner.sampler)(std::max(policy_.warmup, 1));
    if (not warm) return std::unexpected(warm.error());
    if (warm->seconds >= 50 * policy_.min_sample_seconds * std::max(policy_.warmup, 1)) return {};
    constexpr std::int64_t most = std::int64_t{1} << 24;
    for (bool long_enough = false;;) {
      const auto sample = (*runner.sampler)(runner.batch);
      if (not sample) return std::unexpected(sample.error());
      const double least = policy_.min_sample_seconds * (long_enough ? 0.5 : 1);  // the second may be a little shorter
      const bool enough = sample->seconds >= least or runner.batch >= most;
      if (enough and long_enough) return {};
      long_enough = enough;
      if (enough) continue;
      const double wanted = sample->seconds > 0 ? 1.1 * policy_.min_sample_seconds / sample->seconds : 10;
      runner.batch = std::min(most, static_cast<std::int64_t>(
                                        std::ceil(static_cast<double>(runner.batch) * std::clamp(wanted, 1.5, 10.0))));
    }
  }

  bool running(const Runner& runner) const {
    if (runner.timing.dropped) return false;
    const auto n = static_cast<int>(runner.timing.samples.size());
    return n < policy_.max_samples and (n < policy_.min_samples or runner.spent < policy_.budget_seconds);
  }

  /// Whether the round counts. One that does not still costs budget.
  Result<bool> take_round(bool backwards) {
    std::vector<Runner*> field;
    for (Runner& runner : runners_)
      if (running(runner)) field.push_back(&runner);
    if (backwards) std::ranges::reverse(field);
    bool counts = true;
    for (Runner* runner : field) {
      auto sample = (*runner->sampler)(runner->batch);
      if (not sample) return std::unexpected(sample.error());
      runner->spent += sample->seconds;
      runner->latest = sample->seconds / static_cast<double>(runner->batch);
      if (sample->invalid.empty() and not(runner->latest > 0)) sample->invalid = "the clock stood still";
      if (sample->invalid.empty()) continue;
      counts = false;
      why_ = std::move(sample->invalid);
    }
    if (not counts) ++discarded_;
    if (counts)
      for (Runner* runner : field) runner->timing.samples.push_back(runner->latest);
    return counts;
  }

  void drop_slower() {
    const auto may_drop = [](const Runner& runner) { return not runner.kept and not runner.timing.dropped; };
    if (std::ranges::none_of(runners_, may_drop)) return;
    const auto best = std::ranges::min_element(runners_, [](const Runner& a, const Runner& b) {
      if (a.timing.dropped != b.timing.dropped) return b.timing.dropped;
      return a.timing.median() < b.timing.median();
    });
    const double best_median = best->timing.median();
    const auto best_samples = static_cast<int>(best->timing.samples.size());
    for (Runner& runner : runners_) {
      if (not may_drop(runner) or &runner == &*best) continue;
      const int pairs = std::min(static_cast<int>(runner.timing.samples.size()), best_samples);
      const bool beaten = pairs >= policy_.min_samples and
                          ratio(runner.timing, best->timing, policy_.error).standing() == Standing::slower;
      const bool hopeless = pairs >= 2 and std::ranges::min(runner.timing.samples) > policy_.hopeless * best_median;
      runner.timing.dropped = beaten or hopeless;
    }
  }

  int samples() const {
    std::size_t most = 0;
    for (const Runner& runner : runners_) most = std::max(most, runner.timing.samples.size());
    return static_cast<int>(most);
  }

  bool over() const {
    if (discarded_ >= policy_.max_discarded) return true;
    if (std::ranges::none_of(runners_, [&](const Runner& runner) { return running(runner); })) return true;
    if (runners_.size() < 2 or samples() < policy_.min_samples) return false;
    if (std::ranges::count_if(runners_, [](const Runner& runner) { return not runner.timing.dropped; }) == 1)
      return true;
    const Timing& first = runners_.front().timing;
    return policy_.until_clear and std::ranges::all_of(runners_.begin() + 1, runners_.end(), [&](const Runner& runner) {
             return runner.timing.dropped or
                    ratio(runner.timing, first, policy_.error).standing() != Standing::ambiguous;
           });
  }

  const MeasurePolicy& policy_;
  std::vector<Runner> runners_;
  int discarded_ = 0;
  std::string why_;
};

}  // namespace

double Timing::median() const { return median_of_sorted(sorted(samples)); }

double Timing::low() const {
  return samples.empty() ? no_time : sorted(samples)[std::max<std::size_t>(order_of_bound(samples.size()), 1) - 1];
}

double Timing::high() const {
  return samples.empty() ? no_time
                         : sorted(samples)[samples.size() - std::max<std::size_t>(order_of_bound(samples.size()), 1)];
}

std::string_view to_string(Standing standing) {
  switch (standing) {
    case Standing::ambiguous:
      return "AMBIGUOUS";
    case Standing::same:
      return "SAME";
    case Standing::faster:
      return "FASTER";
    case Standing::slower:
      return "SLOWER";
  }
  return "?";
}

Standing Ratio::standing() const {
  if (low >= 1 - worthwhile and high <= 1 + worthwhile) return Standing::same;
  if (high < 1 and median < 1 - worthwhile) return Standing::faster;
  if (low > 1 and median > 1 + worthwhile) return Standing::slower;
  return Standing::ambiguous;
}

Ratio ratio(const Timing& of, const Timing& to, double error) {
  std::vector<double> order(std::min(of.samples.size(), to.samples.size()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = of.samples[i] / to.samples[i];
  std::ranges::sort(order);
  Ratio ratio;
  ratio.pairs = order.size();
  ratio.median = median_of_sorted(order);
  if (const std::size_t m = order_of_lasting_bound(order.size(), error); m > 0) {
    ratio.low = order[m - 1];
    ratio.high = order[order.size() - m];
  }
  return ratio;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Sampler by_clock(std::function<void()> call, Clock now) {
  return [call = std::move(call), now = std::move(now)](std::int64_t calls) -> Result<Sample> {
    const double start = now();
    for (std::int64_t i = 0; i < calls; ++i) call();
    return Sample{now() - start, {}};
  };
}

Result<std::vector<Timing>> race(std::span<const Sampler> contenders, const MeasurePolicy& policy,
                                 std::span<const std::size_t> keep) {
  return Race(contenders, policy, keep).run();
}

}  // namespace glaive
