#include "autotune/tournament.hpp"
#include "tests/autotune/noisy_machine.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

// Whole tournaments on a simulated machine: who wins, and how often wrongly.

using namespace glaive;
using namespace glaive::test;

namespace {

const CaseKey key{.device = "d", .problem = "p", .shape = "s", .policy = "x", .space = 1, .schema = 1};

/// Entrant i takes seconds[i]; the first is the default and the incumbent.
TournamentResult play(const Folder& folder, const Noise& noise, std::uint64_t seed,
                      const std::vector<double>& seconds) {
  NoisyMachine machine(noise, seed);
  const TimeEntrants time = [&](std::span<const std::size_t> running, bool plain, const MeasurePolicy& policy,
                                std::span<const std::size_t> keep) -> Result<std::vector<Timing>> {
    std::vector<Sampler> contenders;
    for (const std::size_t i : running) contenders.push_back(machine.contender(seconds[i]));
    for (int i = 0; i < (plain ? 2 : 0); ++i) contenders.push_back(machine.contender(5e-3));
    return race(contenders, policy, keep);
  };
  std::vector<Entrant> entrants;
  for (std::size_t i = 0; i < seconds.size(); ++i)
    entrants.push_back({.variant = fmt::format("v{}", i), .content = "c", .is_default = i == 0});
  auto journal = Journal::open(folder / fmt::format("{}.sqlite", seed), "test").value();
  const TournamentEvents silent{.round = [](auto, auto) {}, .advance = [](auto) {}, .best = [](auto&, auto) {}};
  Tournament tournament(time, journal, key, silent);
  REQUIRE(tournament.screen(entrants, 0));
  return tournament.decide(entrants, 0, 0).value();
}

}  // namespace

TEST_CASE("tournament: among equals the incumbent stays, though the luckiest of many challenge it", "[tune]") {
  const Folder folder;
  for (const Noise& noise : {all_noises[1], all_noises[4]}) {
    int lost = 0;
    for (std::uint64_t seed = 1; seed <= 100; ++seed)
      lost += play(folder, noise, seed, std::vector<double>(12, 1e-3)).winner != 0 ? 1 : 0;
    INFO(noise.name);
    CHECK(lost <= 2 + 4);  // 2.5 %, and three sigmas
  }
}

TEST_CASE("tournament: a group whose reference was held up is timed again", "[tune]") {
  for (const int slow_group : {1, 2, 3}) {
    const Folder folder;
    NoisyMachine machine(all_noises[0], 1);
    int groups = 0;
    const TimeEntrants time = [&](std::span<const std::size_t> running, bool, const MeasurePolicy& policy,
                                  std::span<const std::size_t> keep) -> Result<std::vector<Timing>> {
      ++groups;
      std::vector<Sampler> contenders;
      for (const std::size_t i : running)
        contenders.push_back(machine.contender((i == 5 ? 0.9e-3 : 1e-3) * (i == 0 and groups == slow_group ? 20 : 1)));
      return race(contenders, policy, keep);
    };
    std::vector<Entrant> entrants;
    for (std::size_t i = 0; i < 22; ++i) entrants.push_back({fmt::format("v{}", i), "c", i == 0});
    auto journal = Journal::open(folder / "j.sqlite", "test").value();
    const TournamentEvents silent{.round = [](auto, auto) {}, .advance = [](auto) {}, .best = [](auto&, auto) {}};
    Tournament tournament(time, journal, key, silent);
    REQUIRE(tournament.screen(entrants, 0));
    INFO(slow_group);
    CHECK(groups == 4);
    CHECK(tournament.best(1).front() == 5);
    for (std::size_t i = 1; i < entrants.size(); ++i)
      CHECK(tournament.screened(i).value() == Approx(i == 5 ? 0.9 : 1).epsilon(0.02));
    const auto records = journal.find_timings(key, Round::screen).value();
    for (const auto& record : records) CHECK(record.reference_median < 2e-3);
  }
}

TEST_CASE("tournament: as many reach the semifinal as it is told", "[tune]") {
  const Folder folder;
  const TimeEntrants time = [](std::span<const std::size_t> running, bool plain, const MeasurePolicy& policy,
                               std::span<const std::size_t> keep) -> Result<std::vector<Timing>> {
    static NoisyMachine machine(all_noises[0], 1);
    std::vector<Sampler> contenders;
    for (const std::size_t i : running)
      contenders.push_back(machine.contender(1e-3 * (1 + 0.1 * static_cast<double>(i))));
    for (int i = 0; i < (plain ? 2 : 0); ++i) contenders.push_back(machine.contender(5e-3));
    return race(contenders, policy, keep);
  };
  std::vector<Entrant> entrants;
  for (std::size_t i = 0; i < 12; ++i) entrants.push_back({fmt::format("v{}", i), "c", i == 0});
  const TournamentEvents silent{.round = [](auto, auto) {}, .advance = [](auto) {}, .best = [](auto&, auto) {}};
  for (const std::size_t semifinalists : {4u, 8u}) {
    auto journal = Journal::open(folder / fmt::format("{}.sqlite", semifinalists), "test").value();
    Tournament tournament(time, journal, key, silent, semifinalists);
    REQUIRE(tournament.screen(entrants, 0));
    REQUIRE(tournament.decide(entrants, 0, 0));
    CHECK(journal.find_timings(key, Round::semifinal).value().size() == semifinalists - 1);  // beside the reference
  }
}

TEST_CASE("tournament: one that is 3 % faster is found and wins", "[tune]") {
  const Folder folder;
  for (const Noise& noise : {all_noises[0], all_noises[2], all_noises[3]}) {
    int won = 0;
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
      std::vector<double> seconds(12, 1e-3);
      seconds[3 + seed % 9] = 0.97e-3;
      won += play(folder, noise, seed, seconds).winner == 3 + seed % 9 ? 1 : 0;
    }
    INFO(noise.name);
    CHECK(won >= 47);
  }
}

TEST_CASE("tournament: the winner is not behind the default in the times that are published", "[tune]") {
  const Folder folder;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const auto& noise = all_noises[seed % std::size(all_noises)];
    std::vector<double> seconds;
    for (int i = 0; i < 12; ++i) seconds.push_back(1e-3 * (1 + 0.01 * CounterRng(seed, 9).uniform(i)));
    const auto result = play(folder, noise, seed, seconds);
    REQUIRE(result.defaults.size() == 1);
    if (not result.challenges.empty() and result.winner != 0)
      CHECK(result.timing.median() <= result.defaults[0].second.median());
    CHECK(ratio(result.timing, result.defaults[0].second).standing() != Standing::slower);
  }
}

TEST_CASE("tournament: pairs of the final are in the result and in the journal", "[tune]") {
  const Folder folder;
  std::vector<double> seconds(12, 1e-3);
  seconds[5] = 0.9e-3, seconds[7] = 0.95e-3;
  const auto result = play(folder, all_noises[0], 1, seconds);
  REQUIRE(result.challenges.size() == 3);
  CHECK(result.challenges[0].challenger == "v5");
  CHECK(result.challenges[0].holder == "v0");
  CHECK(result.challenges[0].ratio.standing() == Standing::faster);
  CHECK(result.challenges[0].ratio.median == Approx(0.9).epsilon(0.01));
  CHECK(result.challenges[1].challenger == "v7");
  CHECK(result.challenges[1].holder == "v5");
  CHECK(result.challenges[1].ratio.standing() == Standing::slower);
  CHECK(query(folder / "1.sqlite", "SELECT variant, reference, reason FROM trial WHERE round=3 LIMIT 2") ==
        std::vector<std::string>{"v5|v0|none", "v7|v5|slower"});

  // Whoever reads the journal can form each ratio again.
  auto journal = Journal::open_to_read(folder / "1.sqlite").value();
  for (const auto round : {Round::screen, Round::semifinal, Round::final}) {
    const auto records = journal.find_timings(key, round).value();
    CHECK_FALSE(records.empty());
    for (const auto& record : records) {
      CHECK(record.reference_samples.size() <= record.timing.samples.size());
      CHECK(Timing{record.reference_samples}.median() == record.reference_median);
    }
  }
}
