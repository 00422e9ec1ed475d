#include "autotune/space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>

namespace glaive {
namespace {

/// Every legal configuration of one family, by counting through the parameters' values.
void append_variants(const Family& family, const Instance& instance, std::vector<Variant>& out) {
  const auto parameters = family.parameters(instance);
  std::vector<std::size_t> digit(parameters.size(), 0);
  for (const auto& parameter : parameters)
    if (parameter.values.empty()) return;
  for (;;) {
    Config config;
    for (std::size_t i = 0; i < parameters.size(); ++i) config.push_back(parameters[i].values[digit[i]]);
    if (not family.constraint(instance, config)) out.push_back({&family, std::move(config)});
    std::size_t i = parameters.size();
    while (i > 0 and ++digit[i - 1] == parameters[i - 1].values.size()) digit[--i] = 0;
    if (i == 0) return;
  }
}

}  // namespace

std::string_view to_string(Effort effort) {
  switch (effort) {
    case Effort::quick:
      return "quick";
    case Effort::normal:
      return "normal";
    case Effort::full:
      return "full";
  }
  return "?";
}

Result<Effort> parse_effort(std::string_view word) {
  for (const auto effort : {Effort::quick, Effort::normal, Effort::full})
    if (word == to_string(effort)) return effort;
  return fail(Status::invalid_argument, fmt::format("unknown effort `{}`: it is quick, normal or full", word));
}

std::size_t variant_budget(Effort effort) {
  switch (effort) {
    case Effort::quick:
      return 24;
    case Effort::normal:
      return 64;
    case Effort::full:
      return static_cast<std::size_t>(-1);
  }
  return 0;
}

Result<Space> make_space(const Case& what, const DeviceInfo& device) { return make_space(what, device, families()); }

Result<Space> make_space(const Case& what, const DeviceInfo& device, std::span<const Family* const> families) {
  Space space{.instance = {what.problem, device.target}, .candidates = {}};
  std::string refusals;
  for (const Family* family : families) {
    if (const auto applies = family->applicable(space.instance); not applies) {
      refusals += fmt::format("{}{}: {}", refusals.empty() ? "" : "; ", family->name(), applies.error().message);
      continue;
    }
    std::vector<Variant> variants;
    append_variants(*family, space.instance, variants);
    const auto preset = family->default_config(space.instance);
    for (auto& variant : variants) {
      RankedVariant candidate;
      candidate.name = to_string(variant, space.instance);
      candidate.prior = family->prior(space.instance, what.shape, device, variant.config);
      candidate.is_default = variant.config == preset;
      candidate.variant = std::move(variant);
      space.candidates.push_back(std::move(candidate));
    }
  }
  if (space.candidates.empty())
    return fail(Status::unsupported,
                fmt::format("no kernel family of this build covers `{}` ({})", to_string(what.problem),
                            refusals.empty() ? "no family is built in" : refusals));
  std::ranges::stable_sort(space.candidates, {}, &RankedVariant::prior);
  return space;
}

std::vector<RankedVariant> choose(const Space& space, std::size_t count) {
  const auto& all = space.candidates;
  if (count >= all.size()) return all;

  // Leaders: of each run of equal priors in one family, the candidate most like the family's default.
  std::map<const Family*, Config> preset;
  for (const auto& candidate : all)
    if (candidate.is_default) preset[candidate.variant.family] = candidate.variant.config;
  const auto unlikeness = [&](std::size_t i) {
    const auto& wanted = preset[all[i].variant.family];
    const auto& config = all[i].variant.config;
    std::size_t differ = 0;
    for (std::size_t p = 0; p < wanted.size(); ++p) differ += config[p] != wanted[p] ? 1 : 0;
    return differ;
  };
  std::map<std::pair<double, const Family*>, std::size_t> leader;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto [at, fresh] = leader.try_emplace({all[i].prior, all[i].variant.family}, i);
    if (not fresh and unlikeness(i) < unlikeness(at->second)) at->second = i;
  }
  const auto leads = [&](std::size_t i) { return leader.at({all[i].prior, all[i].variant.family}) == i; };

  std::map<const Family*, std::size_t> taken;
  std::vector<bool> chosen(all.size(), false);
  std::size_t total = 0;
  const auto take = [&](std::size_t i) {
    if (chosen[i]) return;
    chosen[i] = true;
    ++taken[all[i].variant.family];
    ++total;
  };
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].is_default) take(i);
  for (const bool leaders : {true, false})
    for (std::size_t i = 0; i < all.size() and total < count; ++i)
      if (leads(i) == leaders and taken[all[i].variant.family] < count / 8) take(i);
  for (const bool leaders : {true, false})
    for (std::size_t i = 0; i < all.size() and total < count; ++i)
      if (leads(i) == leaders) take(i);

  std::vector<RankedVariant> out;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (chosen[i]) out.push_back(all[i]);
  return out;
}

std::vector<RankedVariant> neighbours(const Space& space, std::span<const RankedVariant* const> best,
                                      const std::set<std::string>& seen, std::size_t count) {
  std::vector<RankedVariant> out;
  std::set<std::string> taken = seen;
  for (const RankedVariant* base : best) {
    const auto parameters = base->variant.family->parameters(space.instance);
    const auto one_step = [&](const RankedVariant& other) {
      if (other.variant.family != base->variant.family) return false;
      std::ptrdiff_t steps = 0;
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        const auto& values = parameters[p].values;
        steps += std::abs(std::ranges::find(values, other.variant.config[p]) -
                          std::ranges::find(values, base->variant.config[p]));
      }
      return steps == 1;
    };
    for (const auto& candidate : space.candidates) {
      if (out.size() == count) return out;
      if (one_step(candidate) and taken.insert(candidate.name).second) out.push_back(candidate);
    }
  }
  return out;
}

const RankedVariant& default_candidate(const Space& space) {
  const auto found = std::ranges::find_if(space.candidates, &RankedVariant::is_default);
  return found != space.candidates.end() ? *found : space.candidates.front();
}

}  // namespace glaive
