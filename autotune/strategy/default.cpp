#include "autotune/strategy/default.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <tuple>

namespace glaive {
namespace {

constexpr std::size_t bases = 4;  ///< fastest so far whose neighbours are tried

/// A quarter of the budget goes to the best by prior, the rest an eighth at a time, so that each generation learns from
/// the last: one half to neighbours of the fastest so far, the other to the best by corrected prior, who may be several
/// steps away. With more lanes than that, generations are as large as the lanes.
class Default final : public Strategy {
 public:
  explicit Default(const StrategyOptions& options)
      : first_(std::max<std::size_t>({options.budget / 4, options.lanes, 1})),
        next_(std::max<std::size_t>({options.budget / 8, options.lanes, 4})) {
    // What is left when it is over must be worth another.
    if (first_ < options.budget and options.budget - first_ < options.lanes) first_ = options.budget;
  }

  std::vector<std::size_t> propose(const Space& space, std::span<const Evaluation> done) override {
    if (done.empty()) return choose(space, first_);
    std::vector<bool> seen(space.candidates.size(), false);
    for (const auto& trial : done) seen[trial.candidate] = true;

    std::vector<Evaluation> order(done.begin(), done.end());
    std::ranges::stable_sort(order, {}, &Evaluation::ratio);
    std::vector<std::size_t> best;
    for (const auto& trial : std::span(order).first(std::min(bases, order.size())))
      if (std::isfinite(trial.ratio)) best.push_back(trial.candidate);
    auto out = neighbours(space, best, seen, next_ / 2);
    for (const std::size_t i : out) seen[i] = true;
    const auto priors = corrected_priors(space, done);
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < seen.size(); ++i)
      if (not seen[i]) left.push_back(i);
    std::ranges::stable_sort(left, {}, [&](std::size_t i) { return priors[i]; });
    left.resize(std::min(left.size(), next_ - out.size()));
    out.insert(out.end(), left.begin(), left.end());
    return out;
  }

 private:
  std::size_t first_, next_;
};

}  // namespace

std::vector<std::size_t> choose(const Space& space, std::size_t count) {
  const auto& all = space.candidates;
  count = std::min(count, all.size());

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
  // Whichever family's prior is off: it is in the race by what it thinks best of itself.
  std::set<const Family*> seen;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (leads(i) and seen.insert(all[i].variant.family).second) take(i);
  for (const bool leaders : {true, false})
    for (std::size_t i = 0; i < all.size() and total < count; ++i)
      if (leads(i) == leaders and taken[all[i].variant.family] < count / 8) take(i);
  for (const bool leaders : {true, false})
    for (std::size_t i = 0; i < all.size() and total < count; ++i)
      if (leads(i) == leaders) take(i);

  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (chosen[i]) out.push_back(i);
  return out;
}

std::vector<std::size_t> neighbours(const Space& space, std::span<const std::size_t> best,
                                    const std::vector<bool>& seen, std::size_t count) {
  const auto& all = space.candidates;
  std::vector<std::size_t> out;
  std::vector<bool> taken = seen;
  for (const std::size_t base : best) {
    const auto& center = all[base].variant;
    const auto parameters = center.family->parameters(space.instance);
    const auto one_step = [&](const Variant& other) {
      if (other.family != center.family) return false;
      std::ptrdiff_t steps = 0;
      for (std::size_t p = 0; p < parameters.size() and steps < 2; ++p) {
        if (other.config[p] == center.config[p]) continue;
        const auto& values = parameters[p].values;
        steps += std::abs(std::ranges::find(values, other.config[p]) - std::ranges::find(values, center.config[p]));
      }
      return steps == 1;
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (out.size() == count) return out;
      if (taken[i] or not one_step(all[i].variant)) continue;
      taken[i] = true;
      out.push_back(i);
    }
  }
  return out;
}

std::vector<double> corrected_priors(const Space& space, std::span<const Evaluation> done) {
  const auto& all = space.candidates;
  // A term is a family's own (no parameter), or one of a value of one of its parameters.
  std::map<std::tuple<const Family*, std::size_t, int>, std::size_t> numbers;
  const auto terms_of = [&](const Variant& variant) {
    std::vector<std::size_t> terms;
    const auto number = [&](std::size_t parameter, int value) {
      terms.push_back(numbers.try_emplace({variant.family, parameter, value}, numbers.size()).first->second);
    };
    number(variant.config.size(), 0);
    for (std::size_t p = 0; p < variant.config.size(); ++p) number(p, variant.config[p]);
    return terms;
  };
  std::vector<std::vector<std::size_t>> terms;
  for (const auto& candidate : all) terms.push_back(terms_of(candidate.variant));

  std::vector<std::vector<std::size_t>> with(numbers.size());  // who has a term
  std::vector<double> rest(all.size());                        // what the terms so far leave of log(ratio / prior)
  double constant = 0, count = 0;
  for (const auto& [i, ratio] : done) {
    if (not std::isfinite(ratio)) continue;
    for (const std::size_t term : terms[i]) with[term].push_back(i);
    rest[i] = std::log(ratio / all[i].prior);
    constant += (rest[i] - constant) / ++count;
  }
  for (double& one : rest) one -= constant;

  constexpr double ridge = 3;  // as if each value had been tried three times more, to no effect
  constexpr int sweeps = 30;   // of Gauss and Seidel; a dozen would do
  std::vector<double> effects(numbers.size(), 0);
  for (int sweep = 0; sweep < sweeps; ++sweep)
    for (std::size_t term = 0; term < effects.size(); ++term) {
      double sum = 0;
      for (const std::size_t i : with[term]) sum += rest[i] + effects[term];
      const double effect = sum / (static_cast<double>(with[term].size()) + ridge);
      for (const std::size_t i : with[term]) rest[i] += effects[term] - effect;
      effects[term] = effect;
    }

  std::vector<double> priors;
  for (std::size_t i = 0; i < all.size(); ++i) {
    double logarithm = std::log(all[i].prior) + constant;
    for (const std::size_t term : terms[i]) logarithm += effects[term];
    priors.push_back(std::exp(logarithm));
  }
  return priors;
}

std::unique_ptr<Strategy> make_default_strategy(const StrategyOptions& options) {
  return std::make_unique<Default>(options);
}

}  // namespace glaive
