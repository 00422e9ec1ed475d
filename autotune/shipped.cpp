#include "autotune/shipped.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "autotune/evidence.hpp"

namespace glaive {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view blanks = " \t\r";

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(blanks);
  return first == text.npos ? std::string_view() : text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(by);
    parts.push_back(trimmed(text.substr(0, end)));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

constexpr std::string_view columns[] = {"problem line", "variant", "median and interval", "share of the roof",
                                        "against the default"};

/// The words of the header, with where each goes. The target is read from its text.
struct Header {
  WinnersTable& table;
  std::string target{};
  std::array<std::pair<std::string_view, std::string*>, 6> words() {
    return {{{"device", &table.device},
             {"target", &target},
             {"driver", &table.driver},
             {"date", &table.date},
             {"commit", &table.commit},
             {"effort", &table.effort}}};
  }
};

Bucket bucket_of(const Case& what) { return bucket_of(extents_of(what.problem, what.shape, 1)); }

double steps(std::int64_t a, std::int64_t b) {
  return std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
}

/// `effort=normal` of a policy.
std::string effort_of(const std::string& policy) {
  const auto at = policy.find("effort=");
  if (at == policy.npos) return {};
  const auto word = policy.substr(at + 7);
  return word.substr(0, word.find(' '));
}

}  // namespace

Result<WinnersTable> parse_winners(std::string_view text, std::string_view name) {
  WinnersTable table{.name = std::string(name)};
  Header header{table};
  int number = 0;
  const auto bad = [&](const std::string& sentence) {
    return fail(Status::invalid_argument, fmt::format("{}.txt:{}: {}", name, number, sentence));
  };
  for (const auto line : split(text, '\n')) {
    ++number;
    if (line.empty() or line.starts_with('#')) continue;
    const auto parts = split(line, '|');
    if (parts.size() == 1) {
      const auto colon = line.find(':');
      const auto word = trimmed(line.substr(0, colon));
      auto words = header.words();
      const auto known = std::ranges::find(words, word, &std::pair<std::string_view, std::string*>::first);
      if (colon == line.npos or known == words.end())
        return bad(fmt::format("`{}` is neither `{}` nor one of device, target, driver, date, commit and effort", line,
                               fmt::join(columns, " | ")));
      if (not known->second->empty()) return bad(fmt::format("`{}` is said twice", word));
      *known->second = trimmed(line.substr(colon + 1));
      continue;
    }
    if (parts.size() != std::size(columns))
      return bad(fmt::format("a winner has {} fields, `{}`; here are {}", std::size(columns), fmt::join(columns, " | "),
                             parts.size()));
    if (parts[1].empty()) return bad("the variant is missing");
    auto what = parse_case(parts[0]);
    if (not what) return bad(what.error().message);
    for (const auto& earlier : table.winners)
      if (earlier.what.problem == what->problem and bucket_of(earlier.what) == bucket_of(*what))
        return bad(fmt::format("`{}` is of the same problem and bucket as line {}", parts[0], earlier.line));
    table.winners.push_back({number, std::move(*what), std::string(parts[1]), std::string(parts[2]),
                             std::string(parts[3]), std::string(parts[4])});
  }
  for (const auto& [word, value] : header.words())
    if (value->empty() and (word == "device" or word == "target"))
      return bad(fmt::format("the table does not say `{}: ..`", word));
  auto target = parse_target(header.target);
  if (not target) return bad(target.error().message);
  if (target->kind != Target::Kind::cuda) return bad(fmt::format("target `{}` is none of a GPU", header.target));
  table.target = std::move(*target);
  return table;
}

std::string to_string(const WinnersTable& table) {
  WinnersTable copy = table;
  Header header{copy, to_string(table.target)};
  std::string text = fmt::format("# {}\n", fmt::join(columns, " | "));
  for (const auto& [word, value] : header.words()) text += fmt::format("{}: {}\n", word, *value);
  text += '\n';
  for (const auto& winner : table.winners)
    text += fmt::format("{} | {} | {} | {} | {}\n", to_string(winner.what), winner.variant, winner.time, winner.roof,
                        winner.against_default);
  return text;
}

Result<WinnersTable> winners_in(const Pack& pack, const DeviceInfo& device) {
  WinnersTable table{.device = identity(device), .target = device.target};
  for (const char c : device.name) table.name += c == ' ' ? '-' : c;
  using Place = std::pair<std::string, std::size_t>;  // problem and bucket
  std::map<Place, std::pair<Effort, std::size_t>> best;
  for (std::size_t i = 0; i < pack.size(); ++i) {
    const auto& key = pack.key(i);
    const auto effort = parse_effort(effort_of(key.policy));  // of one that was shipped there is none
    if (key.device != table.device or key.target != to_string(device.target) or not effort) continue;
    const auto [at, fresh] = best.try_emplace({key.problem, index_of(key.bucket)}, *effort, i);
    if (not fresh and *effort >= at->second.first) at->second = {*effort, i};
  }
  std::set<std::string> commits, efforts;
  for (const auto& [place, found] : best) {
    const auto entry = pack.load(found.second);
    if (not entry) return std::unexpected(entry.error());
    const auto json = Json::parse(entry->evidence, nullptr, false);
    try {
      const double median = json.at("median_ms"), low = json.at("interval_ms").at(0),
                   high = json.at("interval_ms").at(1);
      const auto what = parse_case(json.at("case").get<std::string>());
      if (not what) return fail(Status::bad_pack, fmt::format("entry {}: {}", found.second, what.error().message));
      const auto share = roof_share(json);
      std::string against = "-";
      if (const auto& defaults = json.at("defaults"); not defaults.empty())
        against = fmt::format("{:.2f}x {}", defaults.at(0).at("median_ms").get<double>() / median,
                              defaults.at(0).at("winner").at("verdict").get<std::string>());
      table.winners.push_back({0, *what, entry->plan.variant,
                               fmt::format("{:.1f} us [{:.1f}, {:.1f}]", median * 1e3, low * 1e3, high * 1e3),
                               share ? fmt::format("{:.0f} %", *share * 100) : "-", against});
      if (const auto commit = json.at("glaive").at("commit").get<std::string>(); not commit.empty())
        commits.insert(commit);
      efforts.emplace(to_string(found.first));
    } catch (const Json::exception&) {
      return fail(Status::bad_pack, fmt::format("the evidence of entry {} cannot be read", found.second));
    }
  }
  table.commit = fmt::format("{}", fmt::join(commits, ", "));
  table.effort = fmt::format("{}", fmt::join(efforts, ", "));
  return table;
}

Result<std::vector<WinnersTable>> shipped_winners() {
  std::vector<WinnersTable> tables;
  for (const auto& [name, text] : builtin_winners()) {
    auto table = parse_winners(text, name);
    if (not table) return std::unexpected(table.error());
    tables.push_back(std::move(*table));
  }
  return tables;
}

bool is_of(const WinnersTable& table, const DeviceInfo& device) { return table.device == identity(device); }

const WinnersTable* table_for(const DeviceInfo& device, std::span<const WinnersTable> tables) {
  if (device.target.kind != Target::Kind::cuda) return nullptr;
  const auto wanted = cuda_arch(device.target);
  const auto number_in = [](std::string_view text, std::string_view word) {
    const auto at = text.find(word);
    return at == text.npos ? 0 : std::atoi(text.data() + at + word.size());
  };
  const auto rank = [&](const WinnersTable& table) {
    const bool other_name = not table.device.starts_with(fmt::format("name={};", device.name));
    const auto arch = cuda_arch(table.target);
    return std::tuple(not is_of(table, device), other_name, std::abs(wanted.major - arch.major),
                      std::abs(wanted.number() - arch.number()), arch.number() > wanted.number(),
                      std::abs(number_in(table.device, "units=") - device.units));
  };
  const WinnersTable* best = nullptr;
  for (const auto& table : tables)
    if (best == nullptr or rank(table) < rank(*best)) best = &table;
  return best;
}

std::string_view to_string(ShippedChoice::Match match) {
  switch (match) {
    case ShippedChoice::Match::same:
      return "its problem and bucket";
    case ShippedChoice::Match::bucket:
      return "its problem, the nearest bucket";
    case ShippedChoice::Match::problem:
      return "the nearest problem";
    case ShippedChoice::Match::none:
      return "the default";
  }
  return "?";
}

std::vector<ShippedChoice> shipped_choices(const Case& what, const Space& space, const WinnersTable* table) {
  using enum ShippedChoice::Match;
  constexpr std::size_t most_shipped = 2;
  const Problem& wanted = what.problem;
  const auto alike = [&](const Problem& has) {
    return has.op == wanted.op and has.state == wanted.state and has.layout == wanted.layout;
  };
  const auto rank = [&](const ShippedWinner* winner) {
    const Problem& has = winner->what.problem;
    return std::tuple(
        not(has == wanted), has.io != wanted.io, has.gate_form != wanted.gate_form, has.gate != wanted.gate,
        steps(has.k.count(), wanted.k.count()) + steps(has.v.count(), wanted.v.count()),
        distance(bucket_of(winner->what), bucket_of(what)),
        steps(has.heads.count(), wanted.heads.count()) + steps(has.kv_heads.count(), wanted.kv_heads.count()),
        winner->line);
  };
  const auto find = [&](const std::string& text) -> const RankedVariant* {
    auto at = std::ranges::find(space.candidates, text, &RankedVariant::name);
    if (at == space.candidates.end())
      if (const auto parsed = parse_variant(text, space.instance))
        at = std::ranges::find(space.candidates, *parsed, &RankedVariant::variant);
    return at == space.candidates.end() ? nullptr : &*at;
  };
  const auto match_of = [&](const ShippedWinner& winner) {
    if (not(winner.what.problem == wanted)) return problem;
    return bucket_of(winner.what) == bucket_of(what) ? same : bucket;
  };

  std::vector<const ShippedWinner*> order;
  if (table != nullptr)
    for (const auto& winner : table->winners)
      if (alike(winner.what.problem)) order.push_back(&winner);
  std::ranges::sort(order, {}, rank);

  std::vector<ShippedChoice> choices;
  std::vector<std::string> skipped;
  const auto add = [&](ShippedChoice::Match match, const RankedVariant* variant, const ShippedWinner* winner) {
    if (std::ranges::find(choices, variant, &ShippedChoice::variant) == choices.end())
      choices.push_back({match, variant, winner, skipped});
  };
  for (const ShippedWinner* const winner : order) {
    if (choices.size() == most_shipped) break;
    if (const auto* const variant = find(winner->variant))
      add(match_of(*winner), variant, winner);
    else if (winner->what.problem == wanted)
      skipped.push_back(fmt::format(
          "{}.txt:{}: `{}` has no variant {} {}", table->name, winner->line, to_string(winner->what.problem),
          winner->variant,
          table->target == space.instance.target ? std::string("any more") : "on " + to_string(space.instance.target)));
  }
  add(none, &default_candidate(space), nullptr);
  return choices;
}

ShippedChoice choose_shipped(const Case& what, const Space& space, const WinnersTable* table) {
  return shipped_choices(what, space, table).front();
}

}  // namespace glaive
