#include "templates/cpu/panels.hpp"

#include "templates/family.hpp"

namespace glaive::cpu {

Result<void> cpu_applicable(const Problem& problem, const Target& target, Op op) {
  if (target.kind != Target::Kind::cpu) return fail(Status::unsupported, "runs on CPU targets only");
  if (problem.op != op) return fail(Status::unsupported, "covers op `" + std::string(to_string(op)) + "` only");
  if (problem.state == DType::f16) return fail(Status::unsupported, "keeps states in f32 or bf16 only");
  return {};
}

Plan cpu_plan(const Target& target, std::string variant, std::string entry, std::int64_t splits,
              std::int64_t scratch_elements) {
  Stage stage;
  stage.entry = std::move(entry);
  stage.tasks = {splits, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
  stage.args = entry_args();
  stage.scratch_bytes = round_up(scratch_elements * 4, workspace_alignment);
  Plan plan;
  plan.variant = std::move(variant);
  plan.target = target;
  plan.stages = {std::move(stage)};
  return plan;
}

}  // namespace glaive::cpu
