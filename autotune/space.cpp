#include "autotune/space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

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

std::size_t variant_budget(Effort effort, const Instance& instance) {
  switch (effort) {
    case Effort::quick:
      if (instance.target.kind != Target::Kind::cuda or instance.problem.op != Op::forward) return 24;
      return instance.problem.k.count() > 128 ? 8 : 12;
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

Result<void> keep_only(Space& space, std::span<const std::string> rules) {
  const auto whole = space.candidates;
  std::vector<std::string_view> earlier;
  for (const std::string_view rule : rules) {
    const auto bad = [&](const std::string& why) {
      return fail(Status::invalid_argument, fmt::format("`{}`: {}; write family.parameter=value", rule, why));
    };
    const auto dot = rule.find('.'), equals = rule.find('=');
    if (dot == rule.npos or equals == rule.npos or dot > equals) return bad("not understood");
    const auto name = rule.substr(0, dot), key = rule.substr(dot + 1, equals - dot - 1);
    const auto value = rule.substr(equals + 1);
    const auto is_family = [&](const RankedVariant& candidate) { return candidate.variant.family->name() == name; };
    const auto one = std::ranges::find_if(whole, is_family);
    if (one == whole.end()) {
      std::set<std::string_view> names;
      for (const auto& candidate : whole) names.insert(candidate.variant.family->name());
      return bad(fmt::format("no such family here, which has {}", fmt::join(names, ", ")));
    }
    const auto parameters = one->variant.family->parameters(space.instance);
    const auto at = std::ranges::find(parameters, key, &Parameter::name);
    if (at == parameters.end()) {
      std::vector<std::string_view> names;
      for (const auto& parameter : parameters) names.push_back(parameter.name);
      return bad(fmt::format("no such parameter of {}, which has {}", name, fmt::join(names, ", ")));
    }
    const auto index = static_cast<std::size_t>(at - parameters.begin());
    const auto keeps = [&](const RankedVariant& candidate) {
      return is_family(candidate) and std::to_string(candidate.variant.config[index]) == value;
    };
    if (std::ranges::none_of(whole, keeps)) {
      std::set<int> values;
      for (const auto& candidate : whole)
        if (is_family(candidate)) values.insert(candidate.variant.config[index]);
      return bad(fmt::format("no legal variant has that value, but {}", fmt::join(values, ", ")));
    }
    if (std::ranges::none_of(space.candidates, keeps)) {
      const auto same = std::ranges::find_if(
          earlier, [&](std::string_view other) { return other.starts_with(rule.substr(0, equals + 1)); });
      return fail(Status::invalid_argument,
                  fmt::format("`{}`: excluded by `{}`", rule,
                              same != earlier.end() ? std::string(*same) : fmt::format("{}", fmt::join(earlier, " "))));
    }
    std::erase_if(space.candidates,
                  [&](const auto& candidate) { return is_family(candidate) and not keeps(candidate); });
    earlier.push_back(rule);
  }
  return {};
}

const RankedVariant& default_candidate(const Space& space) {
  const auto found = std::ranges::find_if(space.candidates, &RankedVariant::is_default);
  return found != space.candidates.end() ? *found : space.candidates.front();
}

}  // namespace glaive
