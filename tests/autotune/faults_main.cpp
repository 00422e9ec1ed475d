// Injects faults, drawn from a seeded list, and looks after every one whether a wrong variant won, a run was lost, a
// load was corrupt or an entry disappeared:
//   faults [COUNT [SEED]]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>

#include "tests/autotune/faults_kinds.hpp"
#include "tests/autotune/faults_runs.hpp"
#include "tests/sanitized.hpp"

namespace {

using namespace glaive;
using namespace glaive::test;

constexpr std::size_t variants_a_run = 4;

/// A run of the tuner to be killed from outside: the words are kinds.
int tune(int count, char** words) {
  std::vector<int> kinds;
  for (int i = 0; i < count; ++i) kinds.push_back(std::atoi(words[i]));
  const auto outcome = tune_kinds(std::getenv("GLAIVE_CACHE"), kinds);
  if (outcome and outcome->state != TuneOutcome::State::failed) return 0;
  fmt::print(stderr, "{}\n", outcome ? outcome->sentence : outcome.error().message);
  return 1;
}

struct Row {
  std::size_t injected = 0, wrong_winners = 0, lost_runs = 0, corrupt_loads = 0, lost_entries = 0, unexpected = 0;
  std::map<std::string, std::size_t> said;

  void add(const Finding& finding) {
    ++injected;
    ++said[finding.said];
    wrong_winners += finding.wrong_winner;
    lost_runs += finding.lost_run;
    corrupt_loads += finding.corrupt_load;
    lost_entries += finding.lost_entry;
    unexpected += finding.unexpected;
  }
  void print(const std::string& name) const {
    std::string words;
    for (const auto& [reason, count] : said) words += fmt::format("{}{} {}", words.empty() ? "" : ", ", reason, count);
    fmt::print("{:<20}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}  {}\n", name, injected, wrong_winners, lost_runs, corrupt_loads,
               lost_entries, unexpected, words);
  }
  std::size_t failures() const { return wrong_winners + lost_runs + corrupt_loads + lost_entries + unexpected; }
};

int inject(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  // One in twelve each for what happens from outside; the rest are variants, every kind as often as every other.
  const std::size_t from_outside = count / 12;
  std::vector<int> kinds;
  for (std::size_t i = 0; kinds.size() + 4 * from_outside < count; ++i) {
    const auto kind = static_cast<int>(right_kinds + i % (std::size(fault_kinds) - right_kinds));
    if (GLAIVE_SANITIZED and fault_kinds[kind].drop == Drop::memory) continue;  // no limit can be set there
    kinds.push_back(kind);
  }
  std::ranges::shuffle(kinds, random);
  using Inject = Finding (*)(Random&);
  std::vector<Inject> tasks;  // null: the next variants
  for (const Inject inject : {kill_a_worker, kill_the_tuner, fill_the_disk, write_one_pack})
    tasks.insert(tasks.end(), from_outside, inject);
  tasks.insert(tasks.end(), (kinds.size() + variants_a_run - 1) / variants_a_run, nullptr);
  std::ranges::shuffle(tasks, random);

  std::map<std::string, Row> rows;
  Row all;
  const auto note = [&](const Finding& finding) {
    rows[finding.kind].add(finding);
    all.add(finding);
    if (not finding.complaint.empty()) fmt::print("{}: {}\n", finding.kind, finding.complaint);
    std::fflush(stdout);
  };
  for (const Inject inject : tasks) {
    if (inject != nullptr) {
      note(inject(random));
      continue;
    }
    std::vector<int> some;
    // No kind twice in a run: it would be the same variant.
    for (std::size_t i = kinds.size(); i-- > 0 and some.size() < variants_a_run;)
      if (std::ranges::find(some, kinds[i]) == some.end()) {
        some.push_back(kinds[i]);
        kinds.erase(kinds.begin() + static_cast<std::ptrdiff_t>(i));
      }
    for (const auto& finding : inject_variants(some, random)) note(finding);
  }
  while (not kinds.empty()) {  // doubles that were put off
    for (const auto& finding : inject_variants({kinds.back()}, random)) note(finding);
    kinds.pop_back();
  }

  fmt::print("{:<20}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}  {}\n", "fault", "injected", "wrong", "lost", "corrupt", "lost",
             "unexpected", "the tuner said");
  fmt::print("{:<20}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}\n", "", "", "winners", "runs", "loads", "entries", "");
  for (const auto& [name, row] : rows) row.print(name);
  all.said.clear();
  all.print("all");
  return all.injected == count and all.failures() == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 and std::string_view(argv[1]) == "tune") return tune(argc - 2, argv + 2);
  const auto number = [&](int at, std::size_t otherwise) {
    return argc > at ? static_cast<std::size_t>(std::strtoull(argv[at], nullptr, 10)) : otherwise;
  };
  return inject(number(1, 300), number(2, 1));
}
