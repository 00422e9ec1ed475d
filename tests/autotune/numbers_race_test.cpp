#include <cmath>

#include "autotune/measure.hpp"
#include "tests/autotune/noisy_machine.hpp"
#include "tests/catch.hpp"

// Races on a simulated machine: whatever the noise, how often a verdict is wrong, and how soon it is there.

using namespace glaive;
using namespace glaive::test;

namespace {

/// As in the final of a tournament: the second against the first, until the verdict is clear.
constexpr MeasurePolicy pair_policy{.max_samples = 120, .budget_seconds = 100, .until_clear = true};
constexpr std::size_t both[] = {0, 1};

struct Duel {
  Ratio ratio;
  double seconds = 0;
};

Duel duel(const Noise& noise, std::uint64_t seed, double second, const MeasurePolicy& policy = pair_policy) {
  NoisyMachine machine(noise, seed);
  const Sampler contenders[] = {machine.contender(1e-3), machine.contender(second * 1e-3)};
  const auto times = race(contenders, policy, both).value();
  return {ratio(times[1], times[0], policy.error), machine.now};
}

int count(const Noise& noise, int seeds, double second, Standing wanted) {
  int found = 0;
  for (int seed = 0; seed < seeds; ++seed)
    found += duel(noise, static_cast<std::uint64_t>(seed), second).ratio.standing() == wanted ? 1 : 0;
  return found;
}

}  // namespace

TEST_CASE("race: equals are told apart in at most 2.5 of 100 races on either side, whatever the noise") {
  constexpr int seeds = 400;
  constexpr int most = 10 + 9;  // 2.5 %, and three sigmas
  for (const Noise& noise : all_noises) {
    INFO(noise.name);
    CHECK(count(noise, seeds, 1, Standing::faster) <= most);
    CHECK(count(noise, seeds, 1, Standing::slower) <= most);
  }
}

TEST_CASE("race: one that is 3 % faster is found in at least 95 of 100 races, whatever the noise") {
  for (const Noise& noise : all_noises) {
    INFO(noise.name);
    CHECK(count(noise, 100, 0.97, Standing::faster) >= 95);
    CHECK(count(noise, 100, 1 / 0.97, Standing::slower) >= 95);
  }
}

TEST_CASE("race: equals on a quiet machine are the same, and so is what is not worth a change") {
  const Noise quiet{.name = "quiet", .spread = 0.002};
  CHECK(count(quiet, 100, 1, Standing::same) >= 95);
  CHECK(count(quiet, 100, 0.999, Standing::same) >= 95);
}

TEST_CASE("race: drift alone gives no verdict of faster or slower") {
  for (const double drift : {0.1, 1.0, 10.0, 100.0}) {
    const auto standing = duel({.name = "drift", .spread = 0, .drift = drift}, 1, 1).ratio.standing();
    INFO(drift);
    CHECK(standing != Standing::faster);
    CHECK(standing != Standing::slower);
  }
}

TEST_CASE("race: a clear verdict ends it early") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    CHECK(duel({.name = "some", .spread = 0.01}, seed, 0.9).ratio.pairs <= 8);
    CHECK(duel({.name = "none", .spread = 0.0005}, seed, 1).ratio.pairs <= 8);
  }
}

TEST_CASE("race: without a verdict it ends with its budget") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto undecided = duel({.name = "noisy", .spread = 0.05}, seed, 0.994,
                                {.max_samples = 1000, .budget_seconds = 0.05, .until_clear = true});
    CHECK(undecided.seconds < 2 * 0.05 * 1.2 + 0.01);
    CHECK(undecided.ratio.pairs <= 60);
  }
}

TEST_CASE("ratio: below eight pairs nothing is certain; then its interval is that of the sign test") {
  const auto of = [](int n) {
    Timing a, b;
    for (int i = 1; i <= n; ++i) a.samples.push_back(i), b.samples.push_back(1);
    return ratio(a, b);
  };
  CHECK(std::isinf(of(7).high));
  CHECK(of(7).low == 0);
  const auto check = [&](int n, double low, double high) {
    INFO(n);
    CHECK(of(n).low == low);
    CHECK(of(n).high == high);
    CHECK(of(n).median == (1 + n) / 2.0);
  };
  check(8, 1, 8);
  check(20, 4, 17);
  check(60, 19, 42);
  CHECK(ratio({}, {}).standing() == Standing::ambiguous);
}

TEST_CASE("ratio: pairs see through drift that hits both, but not through noise or trifles") {
  Timing slow, fast, noisy, trifle;
  for (int i = 0; i < 20; ++i) {
    const double heat = 1 + 0.1 * i;
    slow.samples.push_back(heat);
    fast.samples.push_back(heat * 0.97);
    noisy.samples.push_back(heat * (i % 2 == 0 ? 0.8 : 1.1));
    trifle.samples.push_back(heat * 0.998);
  }
  CHECK(fast.high() > slow.low());
  CHECK(ratio(fast, slow).standing() == Standing::faster);
  CHECK(ratio(slow, fast).standing() == Standing::slower);
  CHECK(ratio(noisy, slow).standing() == Standing::ambiguous);
  CHECK(ratio(trifle, slow).standing() == Standing::same);
}

TEST_CASE("standing: what each verdict means") {
  const auto standing = [](double low, double median, double high) {
    return Ratio{.median = median, .low = low, .high = high, .pairs = 20}.standing();
  };
  CHECK(standing(0.996, 1.0, 1.004) == Standing::same);
  CHECK(standing(0.996, 0.998, 0.999) == Standing::same);  // certain, and not worth it
  CHECK(standing(0.99, 0.994, 0.999) == Standing::faster);
  CHECK(standing(0.99, 0.996, 0.999) == Standing::ambiguous);
  CHECK(standing(0.95, 0.98, 1.001) == Standing::ambiguous);
  CHECK(standing(1.001, 1.006, 1.01) == Standing::slower);
  CHECK(standing(0.999, 1.02, 1.05) == Standing::ambiguous);
  CHECK(to_string(Standing::same) == "SAME");
}

namespace {

/// 1 ms a call, and every so often a sample that must not count.
Sampler throttled_one_in(int n, int& samples, double wrong_seconds = 1) {
  return [n, &samples, wrong_seconds](std::int64_t calls) -> Result<Sample> {
    if (++samples % n == 0) return Sample{wrong_seconds, "the device was told to be slow"};
    return Sample{1e-3 * static_cast<double>(calls), {}};
  };
}

}  // namespace

TEST_CASE("race: a round with a sample that must not count is discarded whole, and told") {
  int first = 0, second = 0;
  const Sampler contenders[] = {throttled_one_in(1000, first), throttled_one_in(4, second, 1e-5)};
  const auto times = race(contenders, {.max_samples = 20, .budget_seconds = 100}, both).value();
  for (const Timing& timing : times) {
    CHECK(timing.samples == std::vector<double>(20, 1e-3));
    CHECK(timing.discarded >= 5);
    CHECK(timing.discarded <= 7);
  }
}

TEST_CASE("race: too many samples that must not count are an error that says why") {
  int first = 0, second = 0;
  const Sampler contenders[] = {throttled_one_in(1000, first), throttled_one_in(1, second)};
  const auto times = race(contenders, {.max_discarded = 12}, both);
  REQUIRE_FALSE(times);
  CHECK(times.error().status == Status::failed);
  CHECK(times.error().message == "12 of 12 rounds could not be used, the last because the device was told to be slow");
  CHECK(second < 20);
}

TEST_CASE("race: what was sampled before it became too much counts") {
  int samples = 0;
  const Sampler contenders[] = {
      [&](std::int64_t) -> Result<Sample> { return Sample{1e-3, ++samples < 15 ? "" : "hot"}; }};
  const auto times = race(contenders, {.budget_seconds = 100}).value();
  CHECK(times[0].samples.size() >= 10);
  CHECK(times[0].discarded == MeasurePolicy{}.max_discarded);
}

TEST_CASE("race: a clock that stands still gives no times of zero") {
  const Sampler contenders[] = {by_clock([] {}, [] { return 1.0; })};
  const auto times = race(contenders, {});
  REQUIRE_FALSE(times);
  CHECK_THAT(times.error().message, Catch::Contains("the clock stood still"));
}

TEST_CASE("race: a sampler's error is the race's") {
  const Sampler contenders[] = {[](std::int64_t) -> Result<Sample> { return fail(Status::wrong_device, "gone"); }};
  CHECK(race(contenders, {}).error().message == "gone");
}
