#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tests/autotune/faults_runs.hpp"

namespace glaive::test {
namespace {

constexpr std::size_t variants_a_run = 4, outside_share = 12;

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
    fmt::print("{:<24}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}  {}\n", name, injected, wrong_winners, lost_runs, corrupt_loads,
               lost_entries, unexpected, words);
  }
  std::size_t failures() const { return wrong_winners + lost_runs + corrupt_loads + lost_entries + unexpected; }
};

}  // namespace

int inject(const Subject& subject, std::vector<int> faulty, std::span<const Inject> outside, std::size_t count,
           std::uint64_t seed) {
  Random random(seed);
  if (count == 0)
    for (count = faulty.size(); count - outside.size() * (count / outside_share) < faulty.size();) ++count;
  const std::size_t from_outside = count / outside_share;
  std::vector<int> kinds;
  for (std::size_t i = 0; kinds.size() + outside.size() * from_outside < count; ++i)
    kinds.push_back(faulty[i % faulty.size()]);
  std::ranges::shuffle(kinds, random);
  std::vector<Inject> tasks;  // null: the next variants
  for (const Inject inject : outside) tasks.insert(tasks.end(), from_outside, inject);
  tasks.insert(tasks.end(), (kinds.size() + variants_a_run - 1) / variants_a_run, nullptr);
  std::ranges::shuffle(tasks, random);

  std::map<std::string, Row> rows;
  Row all;
  const auto note = [&](const std::vector<Finding>& run, double begin) {
    std::string names;
    for (const auto& finding : run) {
      rows[finding.kind].add(finding);
      all.add(finding);
      names += ' ' + finding.kind;
      if (not finding.complaint.empty()) fmt::print("{}: {}\n", finding.kind, finding.complaint);
    }
    std::fflush(stdout);
    fmt::print(stderr, "{:5.1f} s:{}\n", steady_seconds() - begin, names);
  };
  for (const Inject inject : tasks) {
    const double begin = steady_seconds();
    if (inject != nullptr) {
      note({inject(subject, random)}, begin);
      continue;
    }
    std::vector<int> some;
    // No kind twice in a run: it would be the same variant.
    for (std::size_t i = kinds.size(); i-- > 0 and some.size() < variants_a_run;)
      if (std::ranges::find(some, kinds[i]) == some.end()) {
        some.push_back(kinds[i]);
        kinds.erase(kinds.begin() + static_cast<std::ptrdiff_t>(i));
      }
    note(inject_variants(subject, some, random), begin);
  }
  for (; not kinds.empty(); kinds.pop_back()) {  // doubles that were put off
    const double begin = steady_seconds();
    note(inject_variants(subject, {kinds.back()}, random), begin);
  }

  fmt::print("{:<24}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}  {}\n", "fault", "injected", "wrong", "lost", "corrupt", "lost",
             "unexpected", "the tuner said");
  fmt::print("{:<24}{:>9}{:>8}{:>6}{:>9}{:>9}{:>12}\n", "", "", "winners", "runs", "loads", "entries", "");
  for (const auto& [name, row] : rows) row.print(name);
  all.said.clear();
  all.print("all");
  return all.injected == count and all.failures() == 0 ? 0 : 1;
}

}  // namespace glaive::test
