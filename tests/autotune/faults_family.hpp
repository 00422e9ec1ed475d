#pragma once
#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "templates/family.hpp"
#include "tests/autotune/faults_kinds.hpp"

namespace glaive::test {

/// Variants `faults(kind=N)`, N an index of fault_kinds; legal are those that a run injects. The first is the default.
class FaultFamily final : public Family {
 public:
  FaultFamily() = default;
  explicit FaultFamily(std::vector<int> legal) : legal_(std::move(legal)) {}

  std::string_view name() const override { return "faults"; }
  std::string_view summary() const override { return "one mistake each"; }
  Result<void> applicable(const Instance&) const override { return {}; }
  std::vector<Parameter> parameters(const Instance&) const override {
    std::vector<int> all(std::size(fault_kinds));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    return {{"kind", "index of the mistake", std::move(all)}};
  }
  std::optional<std::string> constraint(const Instance&, const Config& config) const override {
    if (std::ranges::find(legal_, config.front()) != legal_.end()) return std::nullopt;
    return "not in this run";
  }
  Config default_config(const Instance&) const override { return {legal_.front()}; }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config&) const override { return 1; }
  Source instantiate(const Instance&, const Config&) const override { return MlirSource{}; }
  Plan plan(const Instance& instance, const Config& config) const override {
    Plan plan;
    plan.target = instance.target;
    plan.variant = fmt::format("faults(kind={})", config.front());
    // Names that C has already, or keywords, end in `_now`.
    std::string entry(fault_kinds[config.front()].name);
    if (entry == "abort" or entry == "exit" or entry == "spin" or entry == "sleep" or entry == "nan") entry += "_now";
    if (entry.starts_with("compile") or entry.starts_with("load")) entry = "right_2";
    Stage stage{.code = 0, .entry = std::move(entry), .tasks = {}, .args = {}, .scratch_bytes = 64};
    stage.tasks.factors = {{Axis::sequences, 1}, {Axis::kv_heads, 1}};
    for (std::size_t i = 0; i < arg_count; ++i) stage.args.push_back(static_cast<Arg>(i));
    plan.stages.push_back(std::move(stage));
    return plan;
  }

 private:
  std::vector<int> legal_{0};
};

}  // namespace glaive::test
