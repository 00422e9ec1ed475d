#pragma once
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autotune/gates.hpp"

namespace glaive {

/// A sample of times in seconds with its median and a distribution-free 95 % confidence interval of the median
/// (binomial order statistics). Below six samples no such interval exists: low and high are then the extremes.
struct Timing {
  std::vector<double> samples;  ///< of one call, in the order taken: the n-th of all contenders are of one round
  bool dropped = false;         ///< lost the race before it was over
  int discarded = 0;            ///< rounds of its race that did not count

  double median() const;
  double low() const;
  double high() const;
};

/// How one contender's time stands to another's. Differences up to `worthwhile` are not worth a change.
enum class Standing : std::uint8_t {
  ambiguous,  ///< none of the following is certain
  same,       ///< the interval of the ratio lies within 1 +- worthwhile
  faster,     ///< the interval lies below 1, and its median by more than worthwhile
  slower,     ///< the interval lies above 1, and its median by more than worthwhile
};
std::string_view to_string(Standing standing);  ///< `SAME`, and so on
inline constexpr double worthwhile = 0.005;

/// Time of one contender over that of another, from the rounds that both ran: what slows a whole round, such as drift
/// of the machine, drops out. The interval of the median is that of a sign test that may be looked at after every round
/// (a mixture martingale): the chance that it ever misses is at most `error`, half of it on each side, as long as each
/// round is as likely to lie above the median as below whatever came before. Without enough pairs it is unbounded.
struct Ratio {
  double median = std::numeric_limits<double>::quiet_NaN();
  double low = 0, high = std::numeric_limits<double>::infinity();
  std::size_t pairs = 0;

  Standing standing() const;
};
Ratio ratio(const Timing& of, const Timing& to, double error = 0.05);

struct MeasurePolicy {
  double min_sample_seconds = 2e-4;  ///< calls are batched until one sample lasts this long
  int warmup = 2;                    ///< calls, at least 1
  int min_samples = 7;
  int max_samples = 60;
  int max_discarded = 30;       ///< rounds
  double budget_seconds = 0.5;  ///< per contender
  double hopeless = 3;          ///< from the second sample on, one this many times slower than the best is dropped
  double error = 0.05;          ///< of the intervals of ratios
  bool until_clear = false;     ///< ends once all that are left stand clearly to the first
  Gates gates = Gates::weak;    ///< of what the calls compute; kernels take another path where decay is strong
};

/// What a number of calls took together, and why that must not count: say, the device was throttled. Empty: it counts.
struct Sample {
  double seconds = 0;
  std::string invalid;
};

/// Makes so many calls. An error ends the race.
using Sampler = std::function<Result<Sample>(std::int64_t calls)>;

/// Seconds since some fixed moment.
using Clock = std::function<double()>;
double steady_seconds();

/// A contender on the host: calls in a row between two looks at the clock.
Sampler by_clock(std::function<void()> call, Clock now = steady_seconds);

/// Times `contenders` in rounds of one sample each, forwards and backwards by turns, so that drift hits all alike. A
/// round with a sample that must not count is discarded whole, since what throttles one contender throttles its
/// neighbours. A contender that stands slower to the best is dropped and no longer run (`keep` indices are never
/// dropped). The race ends when each has max_samples, or min_samples and its budget is spent; when one is left of
/// several; or as until_clear says.
///
/// Fails with a sampler's error, and with `failed` when max_discarded rounds were discarded before there were
/// min_samples.
Result<std::vector<Timing>> race(std::span<const Sampler> contenders, const MeasurePolicy& policy,
                                 std::span<const std::size_t> keep = {});

}  // namespace glaive
