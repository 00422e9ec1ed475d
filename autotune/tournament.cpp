#include "autotune/tournament.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace glaive {
namespace {

constexpr std::size_t group_size = 7;  // of the screen, without the reference
constexpr std::size_t semifinalists = 8;
constexpr std::size_t challengers = 3;

constexpr MeasurePolicy screen_policy{
    .min_sample_seconds = 2e-4, .warmup = 1, .min_samples = 3, .max_samples = 9, .budget_seconds = 0.03};
constexpr MeasurePolicy semifinal_policy{
    .min_sample_seconds = 2e-4, .warmup = 2, .min_samples = 7, .max_samples = 25, .budget_seconds = 0.2};
constexpr MeasurePolicy final_policy{};

class Rounds {
 public:
  Rounds(std::span<const Entrant> entrants, std::size_t reference, const TimeEntrants& time, Journal& journal,
         const CaseKey& key, const TournamentEvents& events)
      : entrants_(entrants), reference_(reference), time_(time), journal_(journal), key_(key), events_(events) {}

  /// Ratio to the reference by entrant. What the journal holds is not timed again.
  Result<std::map<std::size_t, double>> run(Round round, std::string_view name, std::span<const std::size_t> field,
                                            std::size_t group, const MeasurePolicy& policy) {
    auto known = journal_.find_timings(key_, round);
    if (not known) return std::unexpected(known.error());
    std::map<std::size_t, double> ratio{{reference_, 1.0}};
    std::vector<std::size_t> todo;
    for (const std::size_t i : field) {
      if (i == reference_) continue;
      const auto row = std::ranges::find_if(*known, [&](const TimingRecord& record) {
        return record.variant == entrants_[i].variant and record.content == entrants_[i].content and
               record.reference == entrants_[reference_].variant;
      });
      if (row != known->end()) {
        ratio[i] = row->ratio();
      } else {
        todo.push_back(i);
      }
    }
    events_.round(name, todo.size());
    for (std::size_t begin = 0; begin < todo.size(); begin += group) {
      std::vector<std::size_t> running{reference_};
      running.insert(running.end(), todo.begin() + static_cast<std::ptrdiff_t>(begin),
                     todo.begin() + static_cast<std::ptrdiff_t>(std::min(begin + group, todo.size())));
      const std::size_t keep[] = {0};
      auto times = time_(running, false, policy, keep);
      if (not times) return std::unexpected(times.error());
      std::vector<TimingRecord> records;
      for (std::size_t i = 1; i < running.size(); ++i) {
        TimingRecord record{entrants_[running[i]].variant, entrants_[running[i]].content, (*times)[i],
                            entrants_[reference_].variant, times->front().median(),       Drop::none};
        if (clearly_faster(times->front(), (*times)[i])) record.drop = Drop::slower;
        ratio[running[i]] = record.ratio();
        records.push_back(std::move(record));
      }
      if (auto kept = journal_.put_timings(key_, round, records); not kept) return std::unexpected(kept.error());
      events_.advance(std::min(begin + group, todo.size()));
      const auto best = std::ranges::min_element(ratio, {}, [](const auto& pair) { return pair.second; });
      events_.best(entrants_[best->first].variant, best->second);
    }
    return ratio;
  }

 private:
  std::span<const Entrant> entrants_;
  std::size_t reference_;
  const TimeEntrants& time_;
  Journal& journal_;
  const CaseKey& key_;
  const TournamentEvents& events_;
};

std::vector<std::size_t> fastest(const std::map<std::size_t, double>& ratio, std::size_t count) {
  std::vector<std::size_t> order;
  for (const auto& [index, value] : ratio) order.push_back(index);
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return ratio.at(i); });
  if (order.size() > count) order.resize(count);
  return order;
}

}  // namespace

bool clearly_faster(const Timing& a, const Timing& b) { return a.high() < b.low(); }

Result<TournamentResult> tournament(std::span<const Entrant> entrants, std::size_t reference, std::size_t incumbent,
                                    const TimeEntrants& time, Journal& journal, const CaseKey& key,
                                    const TournamentEvents& events) {
  Rounds rounds(entrants, reference, time, journal, key, events);
  std::vector<std::size_t> field(entrants.size());
  std::iota(field.begin(), field.end(), std::size_t{0});

  auto ratio = rounds.run(Round::screen, "screen", field, group_size, screen_policy);
  if (not ratio) return std::unexpected(ratio.error());
  field = fastest(*ratio, semifinalists);
  ratio = rounds.run(Round::semifinal, "semifinal", field, semifinalists, semifinal_policy);
  if (not ratio) return std::unexpected(ratio.error());

  TournamentResult result;
  result.winner = incumbent;
  const auto top = fastest(*ratio, challengers);
  events.round("final", top.size() + 1);
  std::size_t done = 0;
  for (const std::size_t challenger : top) {
    if (challenger != result.winner) {
      const std::size_t pair[] = {result.winner, challenger}, keep[] = {0, 1};
      const auto times = time(pair, false, final_policy, keep);
      if (not times) return std::unexpected(times.error());
      if (clearly_faster((*times)[1], (*times)[0])) result.winner = challenger;
    }
    events.advance(++done);
  }

  std::vector<std::size_t> last{result.winner};
  for (std::size_t i = 0; i < entrants.size(); ++i)
    if ((entrants[i].is_default or i == reference) and i != result.winner) last.push_back(i);
  std::vector<std::size_t> keep(last.size() + 2);
  std::iota(keep.begin(), keep.end(), std::size_t{0});
  auto times = time(last, true, final_policy, keep);
  if (not times) return std::unexpected(times.error());
  result.timing = times->front();
  for (std::size_t i = 0; i < last.size(); ++i) {
    const auto& entrant = entrants[last[i]];
    if (entrant.is_default or last[i] == reference) result.defaults.emplace_back(last[i], (*times)[i]);
    if (i > 0 and clearly_faster((*times)[i], times->front()) and (*times)[i].median() < result.timing.median()) {
      result.winner = last[i];
      result.timing = (*times)[i];
    }
  }
  result.rows = (*times)[last.size()];
  result.tiles = (*times)[last.size() + 1];
  result.slower = entrants.size() - 1;
  events.advance(done + 1);
  return result;
}

}  // namespace glaive
