#include "autotune/emit/selection.hpp"

#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <map>

#include "runtime/dispatch.hpp"

namespace glaive::emission {
namespace {

template <class Range, class Name>
std::string listed(const Range& range, Name name) {
  std::vector<std::string> names;
  for (const auto& each : range)
    if (auto text = name(each); std::ranges::find(names, text) == names.end()) names.push_back(std::move(text));
  return fmt::format("{}", fmt::join(names, ", "));
}

/// A problem as it stands in keys.
Result<std::string> read_problem(const std::string& line) {
  const auto bad = [&](const ParseError& error) {
    return fail(Status::invalid_argument, "--problems: this is not a problem:\n" + error.pointing_at(line));
  };
  if (line.contains('@')) {
    const auto what = parse_case(line);
    return what ? Result<std::string>(to_string(what->problem)) : bad(what.error());
  }
  const auto problem = parse_problem(line);
  return problem ? Result<std::string>(to_string(*problem)) : bad(problem.error());
}

const char* extension_of(CodeObject::Format format) {
  switch (format) {
    case CodeObject::Format::cubin:
      return "cubin";
    case CodeObject::Format::ptx:
      return "ptx";
    case CodeObject::Format::shared_object:
      break;
  }
  return "so";
}

/// Of winners that could stand in for each other, what the pack tells of the regret.
void find_regrets(std::vector<Entry>& entries) {
  std::map<std::tuple<std::size_t, std::string, std::string, int>, std::vector<Entry*>> groups;
  for (Entry& entry : entries)
    groups[{entry.problem, entry.key.device, entry.key.target, entry.threads}].push_back(&entry);
  for (auto& [key, group] : groups) {
    std::vector<Measured> tuned;
    for (const Entry* entry : group) tuned.push_back(entry->measured);
    const auto regret = regret_per_step(tuned);
    for (Entry* entry : group) entry->regret_per_step = regret;
  }
}

}  // namespace

std::string checksum_of(std::span<const std::byte> bytes) {
  const auto hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}
std::string checksum_of(std::string_view text) { return checksum_of(std::as_bytes(std::span(text))); }

bool Selection::has(Target::Kind kind) const {
  return std::ranges::any_of(entries, [&](const Entry& entry) { return entry.target.kind == kind; });
}

Result<std::vector<PackEntry>> choose(const Pack& pack, const EmitOptions& options) {
  std::vector<const WinnerKey*> keys;
  for (std::size_t i = 0; i < pack.size(); ++i) keys.push_back(&pack.key(i));
  if (keys.empty()) return fail(Status::not_found, "the pack holds no winner: there is nothing to emit");

  const auto is_of = [](const WinnerKey& key, const std::string& target) {
    return key.target == target or key.target.starts_with(target + ":");
  };
  for (const std::string& target : options.targets)
    if (std::ranges::none_of(keys, [&](const WinnerKey* key) { return is_of(*key, target); }))
      return fail(Status::invalid_argument,
                  fmt::format("--targets {}: the pack has no code for that; it has code for {}", target,
                              listed(keys, [](const WinnerKey* key) { return key->target; })));
  std::vector<std::string> problems;
  for (const std::string& line : options.problems) {
    auto problem = read_problem(line);
    if (not problem) return std::unexpected(problem.error());
    if (std::ranges::none_of(keys, [&](const WinnerKey* key) { return key->problem == *problem; }))
      return fail(Status::invalid_argument,
                  fmt::format("--problems '{}': the pack has no winner for it; it has winners for {}", line,
                              listed(keys, [](const WinnerKey* key) { return "'" + key->problem + "'"; })));
    problems.push_back(std::move(*problem));
  }

  std::vector<PackEntry> chosen;
  for (std::size_t i = 0; i < pack.size(); ++i) {
    const WinnerKey& key = pack.key(i);
    const auto of_key = [&](const std::string& target) { return is_of(key, target); };
    if (not options.targets.empty() and std::ranges::none_of(options.targets, of_key)) continue;
    if (not problems.empty() and std::ranges::find(problems, key.problem) == problems.end()) continue;
    auto entry = pack.load(i);
    if (not entry) return std::unexpected(std::move(entry).error());
    chosen.push_back(std::move(*entry));
  }
  if (chosen.empty())
    return fail(Status::invalid_argument,
                fmt::format("the pack has no winner for these problems and targets together; it has {}",
                            listed(keys, [](const WinnerKey* k) { return "'" + k->problem + "' for " + k->target; })));
  return chosen;
}

Result<Selection> arrange(std::span<const PackEntry> entries) {
  Selection all;
  std::map<std::string, std::size_t> code_numbers, plan_numbers;
  std::map<std::string, std::size_t> problem_numbers;
  for (const PackEntry& from : entries) {
    const auto bad = [&](const std::string& why) {
      return fail(Status::bad_pack,
                  fmt::format("the entry for `{}` on {}: {}", from.key.problem, from.key.target, why));
    };
    const auto problem = parse_problem(from.key.problem);
    if (not problem) return bad("its problem cannot be read: " + problem.error().message);
    const auto target = parse_target(from.key.target);
    if (not target) return bad(target.error().message);

    EmittedPlan plan{from.plan, {}};
    auto family = from.plan.variant.substr(0, std::min<std::size_t>(from.plan.variant.find('('), 32));
    std::ranges::replace_if(family, [](unsigned char c) { return std::isalnum(c) == 0 and c != '_'; }, '_');
    std::string identity = from.key.problem + checksum_of(encode(from.plan));  // heads count in a plan, not in its code
    for (const CodeObject& object : from.code) {
      const auto sum = checksum_of(object.bytes);
      const auto key = to_string(object.target) + sum;
      const auto [place, is_new] = code_numbers.emplace(key, all.codes.size());
      if (is_new) {
        const auto same = std::ranges::find(all.codes, sum, &Code::checksum);
        const bool owns_file = same == all.codes.end();
        auto file = owns_file ? fmt::format("code/{}-{}-{}.{}", family, object.target.arch, sum.substr(0, 16),
                                            extension_of(object.format))
                              : same->file;
        all.codes.push_back({object, sum, std::move(file), owns_file});
      }
      plan.codes.push_back(place->second);
      identity += key;
    }
    const auto [plan_number, new_plan] = plan_numbers.emplace(identity, all.plans.size());
    if (new_plan) all.plans.push_back(std::move(plan));
    const auto [problem_number, new_problem] = problem_numbers.emplace(from.key.problem, all.problems.size());
    if (new_problem) all.problems.push_back(*problem);
    all.entries.push_back({problem_number->second,
                           plan_number->second,
                           from.key,
                           *target,
                           threads_of(from.key.policy),
                           from.evidence,
                           read_measured(from),
                           {}});
  }
  find_regrets(all.entries);
  return all;
}

}  // namespace glaive::emission
