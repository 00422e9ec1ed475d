#include "autotune/story.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "autotune/evidence.hpp"
#include "autotune/quantile.hpp"
#include "runtime/problem.hpp"

namespace glaive {
namespace {

/// The parts of `chunk(C=16,rows=6)`; a name of another form has a family only.
void split_name(const std::string& name, Story::Entry& entry) {
  const auto open = name.find('(');
  entry.family = name.substr(0, open);
  if (open == name.npos or name.back() != ')') return;
  std::string_view rest(name);
  rest = rest.substr(open + 1, rest.size() - open - 2);
  while (not rest.empty()) {
    const auto comma = rest.find(',');
    const auto word = rest.substr(0, comma);
    const auto equals = word.find('=');
    int value = 0;
    if (equals != word.npos and
        std::from_chars(word.data() + equals + 1, word.data() + word.size(), value).ec == std::errc())
      entry.parameters.emplace_back(word.substr(0, equals), value);
    rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
  }
}

/// Times count relative to the reference, which every group ran anew: seconds are those of its typical run. Those of a
/// variant that fell later, as in full scrutiny, say nothing.
void add_times(Story& story, std::span<const TimingRecord> timings) {
  std::map<std::string_view, Story::Entry*> entry_of;
  for (auto& entry : story.entries) entry_of[entry.variant] = &entry;
  std::vector<double> references;
  for (const auto& record : timings) references.push_back(record.reference_median);
  const double reference = references.empty() ? 0 : quantile(references, 0.5);
  for (const auto& record : timings) {
    const auto at = entry_of.find(record.variant);
    if (at == entry_of.end() or record.timing.samples.empty() or not(record.reference_median > 0)) continue;
    at->second->spent += record.seconds;
    if (at->second->drop != Drop::none) continue;
    const double unit = reference / record.reference_median;
    at->second->low = record.timing.low() * unit;
    at->second->median = record.timing.median() * unit;
    at->second->high = record.timing.high() * unit;
  }
  if (timings.empty()) return;
  if (const auto at = entry_of.find(timings.front().reference);
      at != entry_of.end() and not at->second->timed() and at->second->drop == Drop::none)
    at->second->low = at->second->median = at->second->high = reference;
}

}  // namespace

PriorQuality Story::prior() const {
  std::vector<double> guessed, measured;
  for (const auto& entry : entries) {
    if (entry.drop == Drop::none and not entry.timed()) continue;  // not yet
    guessed.push_back(entry.prior);
    measured.push_back(entry.timed() ? entry.median : std::numeric_limits<double>::infinity());
  }
  return judge_prior(guessed, measured);
}

std::vector<std::pair<Drop, std::size_t>> Story::drops() const {
  std::map<Drop, std::size_t> count;
  for (const auto& entry : entries)
    if (entry.drop != Drop::none) ++count[entry.drop];
  std::vector<std::pair<Drop, std::size_t>> order(count.begin(), count.end());
  std::ranges::stable_sort(order, std::greater{}, &std::pair<Drop, std::size_t>::second);
  return order;
}

const Story::Entry* Story::fastest() const {
  const Entry* best = nullptr;
  for (const auto& entry : entries)
    if (entry.timed() and (best == nullptr or entry.median < best->median)) best = &entry;
  return best;
}

std::vector<Story::FamilyBest> Story::by_family() const {
  std::vector<FamilyBest> found;
  const Entry* won = nullptr;
  for (const auto& entry : entries) {
    auto at = std::ranges::find(found, entry.family, &FamilyBest::family);
    if (at == found.end()) at = found.insert(found.end(), FamilyBest{.family = entry.family});
    ++at->tried;
    if (entry.timed() and (at->best == nullptr or entry.median < at->best->median)) at->best = &entry;
    if (entry.variant == winner and entry.timed()) won = &entry;
  }
  for (auto& family : found) {
    if (won != nullptr and family.family == won->family) family.best = won;
    if (won != nullptr and family.best != nullptr) family.ratio = family.best->median / won->median;
  }
  std::ranges::stable_sort(found, {}, [&](const FamilyBest& family) {
    const bool is_winners = winner.starts_with(family.family + "(") or winner == family.family;
    return std::tuple(not is_winners, family.best == nullptr, family.best == nullptr ? 0 : family.best->median);
  });
  return found;
}

std::string Story::why() const {
  std::string text;
  const auto all = by_family();
  for (const auto& family : std::span(all).subspan(std::min<std::size_t>(all.size(), 1))) {
    text += text.empty() ? "" : ", ";
    if (family.ratio > 0) {
      text += fmt::format("{} {:.2f}x", family.family, family.ratio);
      continue;
    }
    std::map<Drop, std::size_t> reasons;
    for (const auto& entry : entries)
      if (entry.family == family.family and entry.drop != Drop::none) ++reasons[entry.drop];
    std::string told;
    for (const auto& [drop, count] : reasons)
      told += fmt::format("{}{} {}", told.empty() ? "" : ", ", to_string(drop), count);
    text += fmt::format("{}: none of {} was timed{}", family.family, family.tried,
                        told.empty() ? told : fmt::format(" ({})", told));
  }
  return text.empty() ? "no other family was tried" : text;
}

Result<std::vector<Story>> read_stories(Journal& journal, std::span<const std::string> lines) {
  const auto keys = journal.find_cases();
  if (not keys) return std::unexpected(keys.error());
  std::vector<Story> stories;
  for (const auto& key : *keys) {
    Story story;
    story.key = key;
    story.line = fmt::format("{} @ {}", key.problem, key.shape);
    if (not lines.empty() and std::ranges::find(lines, story.line) == lines.end() and
        std::ranges::find(lines, key.problem) == lines.end())
      continue;
    const auto attempts = journal.find_attempts(key);
    if (not attempts) return std::unexpected(attempts.error());
    for (const auto& attempt : *attempts) {
      Story::Entry entry;
      entry.variant = attempt.variant;
      entry.is_default = attempt.is_default;
      entry.prior = attempt.prior;
      entry.drop = attempt.drop;
      entry.message = attempt.message;
      entry.spent = attempt.compile_seconds + attempt.verify_seconds;
      split_name(attempt.variant, entry);
      story.entries.push_back(std::move(entry));
    }
    if (not attempts->empty()) {
      story.first = attempts->front().when;
      story.last = attempts->back().when;
    }
    const auto timings = journal.find_timings(key, Round::screen);
    if (not timings) return std::unexpected(timings.error());
    add_times(story, *timings);
    const auto winner = journal.find_winner(key);
    if (not winner) return std::unexpected(winner.error());
    if (*winner) {
      story.winner = (*winner)->variant;
      story.evidence = (*winner)->evidence;
    }
    if (const auto what = parse_case(story.line)) {
      story.useful_operations = useful_operations(what->problem, what->shape);
      story.minimal_bytes = minimal_bytes(what->problem, what->shape);
      story.bucket = bucket_of(extents_of(what->problem, what->shape, 1));
    }
    stories.push_back(std::move(story));
  }
  return stories;
}

std::string to_json(std::span<const Story> stories) {
  using Json = nlohmann::ordered_json;
  Json cases = Json::array();
  for (const auto& story : stories) {
    Json entries = Json::array();
    for (const auto& entry : story.entries) {
      Json row = {{"variant", entry.variant}, {"default", entry.is_default}, {"prior_ms", entry.prior * 1e3}};
      if (entry.timed()) {
        row["median_ms"] = entry.median * 1e3;
        row["interval_ms"] = {entry.low * 1e3, entry.high * 1e3};
      }
      if (entry.drop != Drop::none) {
        row["drop"] = to_string(entry.drop);
        row["message"] = entry.message;
      }
      row["spent_s"] = entry.spent;
      entries.push_back(std::move(row));
    }
    Json families = Json::array();
    for (const auto& family : story.by_family()) {
      families.push_back({{"family", family.family}, {"tried", family.tried}});
      if (family.best != nullptr)
        families.back().update({{"best", family.best->variant}, {"median_ms", family.best->median * 1e3}});
      if (family.ratio > 0) families.back()["ratio_to_winner"] = family.ratio;
    }
    const auto prior = story.prior();
    Json drops = Json::object();
    for (const auto& [drop, count] : story.drops()) drops[std::string(to_string(drop))] = count;
    const auto evidence = Json::parse(story.evidence, nullptr, false);
    cases.push_back({{"case", story.line},
                     {"device", story.key.device},
                     {"policy", story.key.policy},
                     {"first", story.first},
                     {"last", story.last},
                     {"useful_operations", story.useful_operations},
                     {"minimal_bytes", story.minimal_bytes},
                     {"prior", story.fastest() == nullptr ? Json()
                                                          : Json{{"rank_correlation", prior.rank_correlation},
                                                                 {"regret_top_1", prior.regret_1},
                                                                 {"regret_top_8", prior.regret_8}}},
                     {"drops", std::move(drops)},
                     {"bucket", story.bucket ? Json(to_string(*story.bucket)) : Json()},
                     {"families", std::move(families)},
                     {"winner", story.winner.empty() ? Json() : Json(story.winner)},
                     {"evidence", evidence.is_discarded() ? Json() : evidence},
                     {"attempts", std::move(entries)}});
  }
  const Json json = {{"glaive", {{"version", glaive_version()}, {"commit", glaive_commit()}}}, {"cases", cases}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace glaive
