#pragma once
#include <algorithm>
#include <cmath>

#include "autotune/inputs.hpp"
#include "autotune/measure.hpp"

namespace glaive::test {

/// What a machine does to the time of a call, at a moment or by chance.
struct Noise {
  const char* name;
  double spread = 0.01;  ///< of each call, relative, one sigma
  double drift = 0;      ///< slower by this much per second
  double tail = 0;       ///< chance of a call to take much longer, as 1/u
  double bursts = 0;     ///< share of time in which all takes half as long again, for 5 ms at a stretch
  double waves = 0;      ///< size of slow swings that a sample has in common with the next ones, relative
};

inline constexpr Noise all_noises[] = {
    {.name = "quiet", .spread = 0.001},
    {.name = "noisy", .spread = 0.03},
    {.name = "drifting", .drift = 2},
    {.name = "heavy tails", .tail = 0.2},
    {.name = "bursts", .bursts = 0.3},
    {.name = "waves", .spread = 0.003, .waves = 0.1},
    {.name = "all of it", .drift = 1, .tail = 0.1, .bursts = 0.2, .waves = 0.05},
};

/// A machine whose time passes only when its contenders run.
class NoisyMachine {
 public:
  NoisyMachine(const Noise& noise, std::uint64_t seed) : noise_(noise), random_(seed, 1), swings_(seed, 2) {}
  NoisyMachine(const NoisyMachine&) = delete;

  Sampler contender(double seconds) {
    return by_clock([this, seconds] { now += seconds * (1 + noise_.drift * now) * by_time() * by_chance(); },
                    [this] { return now; });
  }
  double now = 0;

 private:
  double by_time() const {
    const auto stretch = static_cast<std::uint64_t>(now / 5e-3);
    const double burst = swings_.uniform(2 * stretch) < noise_.bursts ? 1.5 : 1;
    // A line from one random height to the next.
    const double part = now / 5e-3 - static_cast<double>(stretch);
    const double height = (1 - part) * swings_.uniform(2 * stretch + 1) + part * swings_.uniform(2 * stretch + 3);
    return burst * (1 + noise_.waves * height);
  }
  double by_chance() {
    const double u = random_.uniform(next_), angle = 6.283185307179586 * random_.uniform(next_ + 1),
                 fate = random_.uniform(next_ + 2);
    next_ += 3;
    const double normal = std::sqrt(-2 * std::log(1 - u)) * std::cos(angle);
    const double late = fate < noise_.tail ? noise_.tail / std::max(fate, 1e-6) : 1;
    return std::max(1 + noise_.spread * normal, 0.1) * late;
  }

  const Noise noise_;
  const CounterRng random_, swings_;
  std::uint64_t next_ = 0;
};

}  // namespace glaive::test
