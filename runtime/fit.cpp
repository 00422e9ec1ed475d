#include "runtime/fit.hpp"

#include <algorithm>

#include "runtime/json.hpp"
#include "runtime/problem.hpp"

namespace glaive {
namespace {

/// A winner's time over a rival's, or the other way round, must be one to be of use.
bool is_ratio(std::optional<double> ratio) { return ratio and * ratio > 1e-6 and * ratio < 1e6; }

/// Paired races come first, as they are the sharper ones.
std::vector<std::pair<std::string, double>> read_rivals(const JsonView& evidence, const std::string& winner) {
  std::vector<std::pair<std::string, double>> rivals;
  const auto add = [&](std::string variant, double time) {
    const auto known = std::ranges::find(rivals, variant, [](const auto& rival) { return rival.first; });
    if (known == rivals.end() and not variant.empty() and variant != winner) rivals.emplace_back(variant, time);
  };
  for (const JsonView& pair : evidence["final"].items()) {
    const auto challenger = pair["challenger"].text(), holder = pair["holder"].text();
    const auto ratio = pair["ratio"].number();  // the challenger's time over the holder's
    if (not is_ratio(ratio)) continue;
    if (holder == winner) add(challenger, *ratio);
    if (challenger == winner) add(holder, 1 / *ratio);
  }
  for (const JsonView& preset : evidence["defaults"].items())
    if (const auto ratio = preset["winner"]["ratio"].number(); is_ratio(ratio))
      add(preset["variant"].text(), 1 / *ratio);
  for (const JsonView& screened : evidence["screened"].items())
    if (const auto ratio = screened["ratio"].number(); is_ratio(ratio)) add(screened["variant"].text(), *ratio);
  return rivals;
}

std::optional<double> loss_of(const std::string& variant, const Measured& winner) {
  if (variant == winner.variant) return 0;
  const auto rival = std::ranges::find(winner.rivals, variant, [](const auto& rival) { return rival.first; });
  if (rival == winner.rivals.end()) return std::nullopt;
  return std::max(0.0, rival->second - 1);
}

}  // namespace

Measured read_measured(const PackEntry& entry) {
  Measured measured{.variant = entry.plan.variant, .bucket = entry.key.bucket, .headroom = {}, .rivals = {}};
  const JsonView evidence(entry.evidence);
  if (const auto what = parse_case(evidence["case"].text())) {
    measured.sequences = what->shape.sequences().count();
    measured.tokens = what->shape.total().count();
    measured.longest = what->shape.longest().count();
  }
  // More than the roof there is only where the caches hold everything: then it is none.
  if (const auto share = evidence["roof_share"].number(); share and *share > 0 and *share <= 1)
    measured.headroom = 1 / *share - 1;
  measured.rivals = read_rivals(evidence, measured.variant);
  return measured;
}

std::optional<double> regret_per_step(std::span<const Measured> tuned) {
  double sum = 0;
  int samples = 0;
  for (const Measured& left_out : tuned) {
    const Measured* nearest = nullptr;
    for (const Measured& other : tuned) {
      if (other.bucket == left_out.bucket) continue;
      if (nearest == nullptr or distance(other.bucket, left_out.bucket) <= distance(nearest->bucket, left_out.bucket))
        nearest = &other;
    }
    const auto loss = nearest == nullptr ? std::nullopt : loss_of(nearest->variant, left_out);
    if (not loss) continue;
    sum += *loss / distance(nearest->bucket, left_out.bucket);
    ++samples;
  }
  if (samples == 0) return std::nullopt;
  return sum / samples;
}

}  // namespace glaive
