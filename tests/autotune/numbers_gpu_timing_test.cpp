#include "autotune/gpu/timing.hpp"
#include "autotune/measure.hpp"
#include "tests/catch.hpp"

using namespace glaive;

namespace {
GpuCondition at_clock(std::int64_t mhz, std::uint64_t slowed_by) {
  GpuCondition condition;
  condition.sm_mhz = mhz;
  condition.slowed_by = slowed_by;
  return condition;
}
}  // namespace

TEST_CASE("gpu timing: long kernels are timed one by one, short ones in replays of at most 2 % overhead") {
  CHECK(calls_per_replay(1e-3) == 1);
  CHECK(calls_per_replay(176e-6) == 1);
  CHECK(calls_per_replay(100e-6) == 2);
  CHECK(calls_per_replay(5e-6) == 35);
  CHECK(calls_per_replay(1e-9) == 200);
  CHECK(calls_per_replay(0) == 200);
}

TEST_CASE("gpu timing: a flush is larger than the cache it empties") { CHECK(flush_bytes(50 << 20) == 100 << 20); }

TEST_CASE("gpu timing: heat, brakes and a fallen clock distort a sample; a power cap alone and rising clocks do not") {
  constexpr std::uint64_t idle = 0x1, application_clocks = 0x2, power_cap = 0x4;
  for (const std::uint64_t harmless : {std::uint64_t{0}, idle, application_clocks, power_cap})
    CHECK(distortion(at_clock(1600, harmless), 1600).empty());
  CHECK(distortion(at_clock(1980, 0), 1600).empty());
  CHECK(distortion(at_clock(1580, power_cap), 1600).empty());
  CHECK(distortion(at_clock(1500, power_cap), 1600) == "the SM clock fell to 1500 MHz from 1600 MHz");
  CHECK(distortion(at_clock(1600, 0x8), 1600) == "the hardware slowed the device down");
  CHECK(distortion(at_clock(1600, power_cap | 0x20), 1600) == "the device was too hot");
  CHECK(distortion(at_clock(1600, 0x40), 1600) == "the device was too hot");
  CHECK(distortion(at_clock(1600, 0x80), 1600) == "the device's power supply slowed it down");
}

TEST_CASE("gpu timing: in a race, samples under a fallen clock are discarded and do not blur the verdict") {
  int samples = 0;
  const auto at = [&](double seconds) {
    return [&samples, seconds](std::int64_t calls) -> Result<Sample> {
      const bool hot = ++samples % 9 == 0;
      return Sample{seconds * static_cast<double>(calls) * (hot ? 1.4 : 1),
                    distortion(at_clock(hot ? 1400 : 1980, 0), 1980)};
    };
  };
  const Sampler contenders[] = {at(1e-3), at(0.98e-3)};
  const std::size_t keep[] = {0, 1};
  const auto times = race(contenders, {.max_samples = 40, .budget_seconds = 10}, keep).value();
  CHECK(times[0].discarded > 5);
  CHECK(times[0].high() == Approx(1e-3));
  CHECK(ratio(times[1], times[0]).standing() == Standing::faster);
}
