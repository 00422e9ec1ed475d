#include <algorithm>
#include <numeric>

#include "autotune/inputs.hpp"
#include "autotune/measure.hpp"
#include "autotune/roofline.hpp"
#include "tests/catch.hpp"

using namespace glaive;

namespace {

Timing one_to(int n) {
  Timing timing;
  for (int i = n; i >= 1; --i) timing.samples.push_back(i);
  return timing;
}

/// A machine whose time passes only when its contenders run.
struct Machine {
  double now = 0;
  std::vector<int> order;  ///< who ran, call by call
  std::vector<Sampler> contenders;
  Clock clock = [this] { return now; };

  Machine() = default;
  Machine(const Machine&) = delete;

  /// Takes `seconds`, times 1 + spread x noise in [0,1).
  void add(double seconds, double spread = 0) {
    const int id = static_cast<int>(contenders.size());
    add([this, id, seconds, spread, calls = std::uint64_t{0}]() mutable {
      now += seconds * (1 + spread * CounterRng(1, static_cast<std::uint64_t>(id)).uniform(calls++));
      order.push_back(id);
    });
  }
  void add(std::function<void()> call) {
    contenders.push_back(by_clock(std::move(call), [this] { return clock(); }));
  }
  std::vector<Timing> race(const MeasurePolicy& policy = {}, std::span<const std::size_t> keep = {}) {
    return glaive::race(contenders, policy, keep).value();
  }
  std::ptrdiff_t calls(int id) const { return std::ranges::count(order, id); }
};

}  // namespace

TEST_CASE("the median of odd and even samples") {
  CHECK(one_to(7).median() == 4);
  CHECK(one_to(8).median() == 4.5);
  CHECK(std::isnan(Timing{}.median()));
}

TEST_CASE("the interval is that of the binomial order statistics") {
  const auto check = [](int n, double low, double high) {
    INFO(n);
    CHECK(one_to(n).low() == low);
    CHECK(one_to(n).high() == high);
  };
  check(1, 1, 1);
  check(5, 1, 5);
  check(6, 1, 6);
  check(7, 1, 7);
  check(8, 1, 8);
  check(9, 2, 8);
  check(10, 2, 9);
  check(15, 4, 12);
  check(20, 6, 15);
  check(50, 18, 33);
  check(100, 40, 61);
}

TEST_CASE("the interval covers the median at least 95 times in 100, whatever the distribution") {
  for (const int n : {7, 15, 40})
    for (const bool skewed : {false, true}) {
      int covered = 0;
      constexpr int experiments = 4000;
      for (int e = 0; e < experiments; ++e) {
        const CounterRng rng(static_cast<std::uint64_t>(e), static_cast<std::uint64_t>(n));
        Timing timing;
        for (int i = 0; i < n; ++i) {
          const double u = rng.uniform(static_cast<std::uint64_t>(i));
          timing.samples.push_back(skewed ? 1 / (1 - u) : u);
        }
        const double median = skewed ? 2 : 0.5;
        covered += timing.low() <= median and median <= timing.high();
      }
      INFO(n);
      CHECK(covered >= 0.945 * experiments);
    }
}

TEST_CASE("a slower contender is dropped early and no longer run") {
  Machine machine;
  machine.add(1e-3, 0.05), machine.add(1.5e-3, 0.05);
  const auto timings = machine.race({});
  CHECK_FALSE(timings[0].dropped);
  CHECK(timings[1].dropped);
  CHECK(timings[1].samples.size() == 8);
  CHECK(timings[0].samples.size() == 8);  // decided
  CHECK(timings[0].median() == Approx(1.025e-3).epsilon(0.03));
}

TEST_CASE("who is kept is timed to the end, however slow") {
  Machine machine;
  machine.add(1e-3, 0.05), machine.add(9e-3, 0.05), machine.add(9e-3, 0.05);
  const std::size_t keep[] = {1};
  const auto timings = machine.race({.max_samples = 30, .budget_seconds = 100}, keep);
  CHECK(timings[0].samples.size() == 30);
  CHECK(timings[1].samples.size() == 30);
  CHECK_FALSE(timings[1].dropped);
  CHECK(timings[2].dropped);
}

TEST_CASE("a hopeless contender costs two samples") {
  Machine machine;
  machine.add(1e-3), machine.add(20e-3);
  const auto timings = machine.race({});
  CHECK(timings[1].dropped);
  CHECK(timings[1].samples.size() == 2);
  CHECK(timings[0].samples.size() >= 7);
}

TEST_CASE("contenders that cannot be told apart all stay") {
  Machine machine;
  for (int i = 0; i < 4; ++i) machine.add(1e-3, 0.2);
  const auto timings = machine.race({.max_samples = 25, .budget_seconds = 10});
  for (const Timing& timing : timings) {
    CHECK_FALSE(timing.dropped);
    CHECK(timing.samples.size() == 25);
  }
}

TEST_CASE("samples are interleaved, forwards and backwards by turns") {
  Machine machine;
  for (int i = 0; i < 3; ++i) machine.add(1e-3);
  machine.race({.warmup = 1, .min_samples = 4, .max_samples = 4});
  machine.order.erase(machine.order.begin(), machine.order.begin() + 9);  // a warm-up and two to size the batch
  CHECK(machine.order == std::vector<int>{0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0});
}

TEST_CASE("a batch is sized by what calls take once they are warm, and not by one that was held up") {
  for (const int slow_one : {1, 2, 3}) {
    Machine machine;
    int calls = 0;
    machine.add([&] { machine.now += ++calls == slow_one ? 5e-3 : 1e-6; });
    const auto timings = machine.race({.warmup = 1, .max_samples = 10});
    INFO("call " << slow_one);
    CHECK(machine.now > 5e-3 + 10 * 1e-4);  // samples of 0.1 ms and more
    CHECK(timings[0].median() == Approx(1e-6));
  }
}

TEST_CASE("a call that takes long is not repeated to be sure") {
  Machine machine;
  machine.add(1.0);
  machine.race({.warmup = 1, .min_samples = 3, .max_samples = 3});
  CHECK(machine.order.size() == 1 + 3);
}

TEST_CASE("drift hits all alike: the slower one loses though it ran early") {
  Machine machine;  // time per call grows steadily
  const auto drifting = [&](double seconds) {
    machine.add([&machine, seconds] { machine.now += seconds * (1 + machine.now); });
  };
  drifting(1.2e-3), drifting(1e-3);
  const auto timings = machine.race({.max_samples = 40, .budget_seconds = 10});
  CHECK(timings[1].median() < timings[0].median());
  CHECK(timings[0].dropped);
}

TEST_CASE("who was dropped on a faster machine is no measure for the others") {
  Machine machine;  // four times slower after 50 ms
  for (const double seconds : {1e-3, 1.5e-3, 1e-3})
    machine.add([&machine, seconds] { machine.now += seconds * (machine.now > 0.05 ? 4 : 1); });
  const auto timings = machine.race({.max_samples = 60, .budget_seconds = 10});
  CHECK(timings[1].dropped);
  CHECK_FALSE(timings[0].dropped);
  CHECK_FALSE(timings[2].dropped);
  CHECK(timings[2].samples.size() == 60);
}

TEST_CASE("short calls are batched, and samples are of one call") {
  Machine machine;
  machine.add(1e-6), machine.add(1e-6);
  const auto timings = machine.race({.min_samples = 7, .max_samples = 7});
  CHECK(timings[0].median() == Approx(1e-6));
  CHECK(machine.calls(0) >= 7 * 200);
  CHECK(machine.calls(0) < 7 * 600);
}

TEST_CASE("a clock that does not see one call gets more of them") {
  Machine machine;
  machine.add(1e-8);
  machine.clock = [&] { return std::floor(machine.now * 1e5) / 1e5; };  // ticks of 10 us
  const auto timings = machine.race({.min_samples = 7, .max_samples = 7});
  CHECK(timings[0].median() == Approx(1e-8).epsilon(0.1));
}

TEST_CASE("a race ends when its budget is spent, but not before the least number of samples") {
  Machine cheap, dear;
  cheap.add(1e-3), dear.add(1.0);
  CHECK(cheap.race({.max_samples = 1000, .budget_seconds = 0.05})[0].samples.size() == Approx(50).margin(1));
  CHECK(dear.race({.budget_seconds = 0.05})[0].samples.size() == 7);
}

TEST_CASE("one contender alone is timed in full, and none at all is no error") {
  Machine machine;
  machine.add(1e-3);
  CHECK(machine.race({.max_samples = 20})[0].samples.size() == 20);
  CHECK(race({}, {}).value().empty());
}

TEST_CASE("the same machine gives the same race") {
  const auto run = [] {
    Machine machine;
    machine.add(1e-3, 0.3), machine.add(1.05e-3, 0.3), machine.add(1.3e-3, 0.3);
    machine.race({});
    return machine.order;
  };
  CHECK(run() == run());
}

TEST_CASE("the machine's rates are measured") {
  WorkerPool pool(1);
  const double fma = fma_peak(pool), copy = copy_rate(pool);
  CHECK(fma > 1e8);
  CHECK(fma < 1e13);
  CHECK(copy > 1e7);
  CHECK(copy < 1e13);
}
