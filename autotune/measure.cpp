#include "autotune/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>

namespace glaive {
namespace {

/// How many samples lie outside the interval on each side: the largest m with P(Binomial(n, 1/2) < m) <= 2.5 %, so that
/// the m-th smallest and m-th largest sample enclose the median with at least 95 %; 1-based, and 1 where there is none.
std::size_t order_of_bound(std::size_t n) {
  double log_term = -static_cast<double>(n) * std::log(2.0);  // of P(X = 0)
  double below = 0;
  std::size_t m = 0;
  while (m < n) {
    below += std::exp(log_term);
    if (below > 0.025) break;
    log_term += std::log(static_cast<double>(n - m)) - std::log(static_cast<double>(m + 1));
    ++m;
  }
  return std::max<std::size_t>(m, 1);
}

std::vector<double> sorted(std::vector<double> samples) {
  std::ranges::sort(samples);
  return samples;
}

constexpr double no_time = std::numeric_limits<double>::quiet_NaN();

struct Runner {
  const std::function<void()>* call = nullptr;
  std::int64_t batch = 1;
  double spent = 0;
  bool kept = false;
  Timing timing;

  double time(std::int64_t calls, const Clock& now) const {
    const double start = now();
    for (std::int64_t i = 0; i < calls; ++i) (*call)();
    return now() - start;
  }

  void prepare(const MeasurePolicy& policy, const Clock& now) {
    for (int i = 1; i < policy.warmup; ++i) (*call)();
    // The last warm-up calls size the batch.
    constexpr std::int64_t most = std::int64_t{1} << 24;
    for (;;) {
      const double seconds = time(batch, now);
      if (seconds >= policy.min_sample_seconds or batch >= most) return;
      const double wanted = seconds > 0 ? 1.1 * policy.min_sample_seconds / seconds : 10;
      batch = std::min(
          most, static_cast<std::int64_t>(std::ceil(static_cast<double>(batch) * std::clamp(wanted, 1.5, 10.0))));
    }
  }

  void sample(const Clock& now) {
    const double seconds = time(batch, now);
    spent += seconds;
    timing.samples.push_back(seconds / static_cast<double>(batch));
  }

  bool full(const MeasurePolicy& policy) const {
    const auto n = static_cast<int>(timing.samples.size());
    return n >= policy.max_samples or (n >= policy.min_samples and spent >= policy.budget_seconds);
  }
};

}  // namespace

double Timing::median() const {
  if (samples.empty()) return no_time;
  const auto order = sorted(samples);
  const std::size_t n = order.size();
  return n % 2 == 1 ? order[n / 2] : (order[n / 2 - 1] + order[n / 2]) / 2;
}

double Timing::low() const { return samples.empty() ? no_time : sorted(samples)[order_of_bound(samples.size()) - 1]; }

double Timing::high() const {
  return samples.empty() ? no_time : sorted(samples)[samples.size() - order_of_bound(samples.size())];
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<Timing> race(std::span<const std::function<void()>> contenders, const MeasurePolicy& policy,
                         std::span<const std::size_t> keep, const Clock& now) {
  std::vector<Runner> runners(contenders.size());
  for (std::size_t i = 0; i < contenders.size(); ++i) runners[i].call = &contenders[i];
  for (const std::size_t i : keep) runners.at(i).kept = true;
  for (Runner& runner : runners) runner.prepare(policy, now);

  for (;;) {
    bool ran = false;
    for (Runner& runner : runners) {
      if (runner.timing.dropped or runner.full(policy)) continue;
      runner.sample(now);
      ran = true;
    }
    if (not ran) break;

    const auto best = std::ranges::min_element(runners, [](const Runner& a, const Runner& b) {
      if (a.timing.dropped != b.timing.dropped) return b.timing.dropped;
      return a.timing.median() < b.timing.median();
    });
    const double best_median = best->timing.median(), best_high = best->timing.high();
    const auto best_samples = static_cast<int>(best->timing.samples.size());
    for (Runner& runner : runners) {
      if (runner.timing.dropped or runner.kept or &runner == &*best) continue;
      const auto n = static_cast<int>(runner.timing.samples.size());
      const bool beaten = std::min(n, best_samples) >= policy.min_samples and runner.timing.low() > best_high;
      const bool hopeless =
          std::min(n, best_samples) >= 2 and std::ranges::min(runner.timing.samples) > policy.hopeless * best_median;
      runner.timing.dropped = beaten or hopeless;
    }
    const auto left = std::ranges::count_if(runners, [](const Runner& runner) { return not runner.timing.dropped; });
    if (runners.size() > 1 and left == 1 and best_samples >= policy.min_samples) break;
  }

  std::vector<Timing> timings;
  for (Runner& runner : runners) timings.push_back(std::move(runner.timing));
  return timings;
}

}  // namespace glaive
