#pragma once
#include <fmt/format.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "templates/family.hpp"
#include "tests/autotune/faults_kinds.hpp"

namespace glaive::test {

/// Variants `faults(kind=N)`, N an index of `kinds`; legal are those that a run injects. The first is the default.
class FaultFamily : public Family {
 public:
  FaultFamily(std::span<const FaultKind> kinds, std::vector<int> legal) : kinds_(kinds), legal_(std::move(legal)) {}

  std::string_view name() const override { return "faults"; }
  std::string_view summary() const override { return "one mistake each"; }
  Result<void> applicable(const Instance&) const override { return {}; }
  std::vector<Parameter> parameters(const Instance&) const override {
    std::vector<int> all(kinds_.size());
    std::iota(all.begin(), all.end(), 0);
    return {{"kind", "index of the mistake", std::move(all)}};
  }
  std::optional<std::string> constraint(const Instance&, const Config& config) const override {
    if (std::ranges::find(legal_, config.front()) != legal_.end()) return std::nullopt;
    return "not in this run";
  }
  Config default_config(const Instance&) const override { return {legal_.front()}; }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config&) const override { return 1; }

 protected:
  std::string_view kind_of(const Config& config) const { return kinds_[static_cast<std::size_t>(config.front())].name; }
  /// A task for each head of each sequence, with all the words there are.
  Plan plan_of(const Instance& instance, const Config& config, std::string entry) const {
    Plan plan;
    plan.target = instance.target;
    plan.variant = fmt::format("faults(kind={})", config.front());
    Stage stage;
    stage.entry = std::move(entry);
    stage.tasks.factors = {{Axis::sequences, 1}, {Axis::kv_heads, 1}};
    for (std::size_t i = 0; i < arg_count; ++i) stage.args.push_back(static_cast<Arg>(i));
    plan.stages.push_back(std::move(stage));
    return plan;
  }

 private:
  std::span<const FaultKind> kinds_;
  std::vector<int> legal_;
};

/// Entries of faults_kernel.cpp, whose compiler is that of faults_worker.cpp.
class CpuFaultFamily final : public FaultFamily {
 public:
  explicit CpuFaultFamily(std::vector<int> legal = {0}) : FaultFamily(fault_kinds, std::move(legal)) {}
  Source instantiate(const Instance&, const Config&) const override { return MlirSource{}; }
  Plan plan(const Instance& instance, const Config& config) const override {
    // Names that C has already, or keywords, end in `_now`.
    std::string entry(kind_of(config));
    if (entry == "abort" or entry == "exit" or entry == "spin" or entry == "sleep" or entry == "nan") entry += "_now";
    if (entry.starts_with("compile") or entry.starts_with("load")) entry = "right_2";
    Plan plan = plan_of(instance, config, std::move(entry));
    plan.stages.front().scratch_bytes = 64;
    return plan;
  }
};

}  // namespace glaive::test
