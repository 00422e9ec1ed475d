#include "autotune/tournament.hpp"

#include <algorithm>
#include <numeric>

namespace glaive {
namespace {

constexpr std::size_t group_size = 7;  // of the screen, without the reference
constexpr std::size_t challengers = 3;

constexpr MeasurePolicy semifinal_policy{
    .min_sample_seconds = 2e-4, .warmup = 2, .min_samples = 7, .max_samples = 200, .budget_seconds = 0.2};
/// An error of 5 % over all pairs.
constexpr MeasurePolicy pair_policy{
    .min_samples = 10, .max_samples = 250, .error = 0.05 / challengers, .until_clear = true};
constexpr MeasurePolicy last_policy{};

std::vector<std::size_t> fastest(const std::map<std::size_t, double>& ratio, std::size_t count) {
  std::vector<std::size_t> order;
  for (const auto& [index, value] : ratio) order.push_back(index);
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return ratio.at(i); });
  if (order.size() > count) order.resize(count);
  return order;
}

/// The reference's times are those of the rounds that both ran.
TimingRecord record_of(const Entrant& entrant, const Timing& timing, const Entrant& reference, Timing shared) {
  const bool slower = timing.dropped or ratio(timing, shared).standing() == Standing::slower;
  shared.samples.resize(std::min(shared.samples.size(), timing.samples.size()));
  return {.variant = entrant.variant,
          .content = entrant.content,
          .timing = timing,
          .reference = reference.variant,
          .reference_median = shared.median(),
          .drop = slower ? Drop::slower : Drop::none,
          .reference_samples = std::move(shared.samples)};
}

/// Who ran beside a reference that took half as long again as it usually does.
std::vector<std::size_t> held_up(const std::map<std::size_t, double>& reference_medians) {
  std::vector<double> order;
  for (const auto& [entrant, median] : reference_medians) order.push_back(median);
  std::ranges::sort(order);
  std::vector<std::size_t> out;
  for (const auto& [entrant, median] : reference_medians)
    if (median > 1.5 * order[(order.size() - 1) / 2]) out.push_back(entrant);
  return out;
}

}  // namespace

/// What the journal holds of `field` is not timed again, but where the reference was held up: its group would seem to
/// be the fastest of all.
Result<void> Tournament::run(Round round, std::span<const Entrant> entrants, std::size_t reference,
                             std::span<const std::size_t> field, Ratios& ratios) {
  const bool screening = round == Round::screen;
  const std::size_t group = screening ? group_size : semifinalists_;
  auto known = journal_.find_timings(key_, round);
  if (not known) return std::unexpected(known.error());
  ratios[reference] = 1;
  std::map<std::size_t, double> reference_medians;  // by who ran beside it
  std::vector<std::size_t> todo;
  for (const std::size_t i : field) {
    const auto row = std::ranges::find_if(*known, [&](const TimingRecord& record) {
      return record.variant == entrants[i].variant and record.content == entrants[i].content and
             record.reference == entrants[reference].variant;
    });
    if (row != known->end()) {
      ratios[i] = row->ratio();
      reference_medians[i] = row->reference_median;
    } else if (not ratios.contains(i)) {
      todo.push_back(i);
    }
  }
  events_.round(screening ? "screen" : "semifinal", todo.size());
  for (bool again = false; not todo.empty(); again = true) {
    for (std::size_t begin = 0; begin < todo.size(); begin += group) {
      std::vector<std::size_t> running{reference};
      const auto members = std::span(todo).subspan(begin, std::min(group, todo.size() - begin));
      running.insert(running.end(), members.begin(), members.end());
      const std::size_t keep[] = {0};
      const double began = steady_seconds();
      const auto times = time_(running, false, screening ? screening_ : semifinal_policy, keep);
      if (not times) return std::unexpected(times.error());
      const double seconds_each = (steady_seconds() - began) / static_cast<double>(running.size());
      std::vector<TimingRecord> records;
      for (std::size_t i = 1; i < running.size(); ++i) {
        records.push_back(record_of(entrants[running[i]], (*times)[i], entrants[reference], times->front()));
        records.back().seconds = seconds_each;
        ratios[running[i]] = records.back().ratio();
        reference_medians[running[i]] = times->front().median();
      }
      if (auto kept = journal_.put_timings(key_, round, records); not kept) return kept;
      if (not again) events_.advance(begin + members.size());
      const std::size_t best = fastest(ratios, 1).front();
      events_.best(entrants[best].variant, ratios.at(best));
    }
    todo = again ? std::vector<std::size_t>() : held_up(reference_medians);
  }
  return {};
}

Result<void> Tournament::screen(std::span<const Entrant> entrants, std::size_t reference) {
  std::vector<std::size_t> field;
  for (std::size_t i = 0; i < entrants.size(); ++i)
    if (not entrants[i].out) field.push_back(i);
  return run(Round::screen, entrants, reference, field, screened_);
}

std::vector<std::size_t> Tournament::best(std::size_t count) const { return fastest(screened_, count); }

Result<TournamentResult> Tournament::decide(std::span<const Entrant> entrants, std::size_t reference,
                                            std::size_t incumbent) {
  Ratios ratios;
  const auto field = fastest(screened_, semifinalists_);
  if (auto done = run(Round::semifinal, entrants, reference, field, ratios); not done)
    return std::unexpected(done.error());

  TournamentResult result;
  result.winner = incumbent;
  const auto top = fastest(ratios, challengers);
  events_.round("final", top.size() + 1);
  std::size_t done = 0;
  for (const std::size_t challenger : top) {
    if (challenger != result.winner) {
      const std::size_t pair[] = {result.winner, challenger}, keep[] = {0, 1};
      const auto times = time_(pair, false, pair_policy, keep);
      if (not times) return std::unexpected(times.error());
      const auto& holder = entrants[result.winner];
      const auto record = record_of(entrants[challenger], (*times)[1], holder, (*times)[0]);
      if (auto kept = journal_.put_timings(key_, Round::final, std::span(&record, 1)); not kept)
        return std::unexpected(kept.error());
      result.challenges.push_back({record.variant, holder.variant, ratio((*times)[1], (*times)[0], pair_policy.error)});
      if (result.challenges.back().ratio.standing() == Standing::faster) result.winner = challenger;
    }
    events_.advance(++done);
  }

  std::vector<std::size_t> last{result.winner};
  for (std::size_t i = 0; i < entrants.size(); ++i)
    if ((entrants[i].is_default or i == reference) and not entrants[i].out and i != result.winner) last.push_back(i);
  std::vector<std::size_t> keep(last.size() + 2);
  std::iota(keep.begin(), keep.end(), std::size_t{0});
  auto times = time_(last, true, last_policy, keep);
  if (not times) return std::unexpected(times.error());
  result.timing = times->front();
  for (std::size_t i = 0; i < last.size(); ++i) {
    const auto& entrant = entrants[last[i]];
    if (entrant.is_default or last[i] == reference) result.defaults.emplace_back(last[i], (*times)[i]);
    const bool ahead = (*times)[i].median() < result.timing.median();
    if ((ahead and result.winner != incumbent) or ratio((*times)[i], result.timing).standing() == Standing::faster) {
      result.winner = last[i];
      result.timing = (*times)[i];
    }
  }
  result.rows = (*times)[last.size()];
  result.tiles = (*times)[last.size() + 1];
  result.slower = screened_.size() - 1;
  events_.advance(done + 1);
  return result;
}

}  // namespace glaive
