#include "templates/cpu/panels.hpp"

namespace glaive::cpu {

Result<void> forward_applicable(const Problem& problem, const Target& target) {
  if (target.kind != Target::Kind::cpu) return fail(Status::unsupported, "runs on CPU targets only");
  if (problem.op != Op::forward) return fail(Status::unsupported, "covers op `forward` only");
  if (problem.io != DType::f32 or problem.gate != DType::f32 or problem.state != DType::f32)
    return fail(Status::unsupported, "covers f32 io, gate and state only");
  if (problem.gate_form != GateForm::log) return fail(Status::unsupported, "covers natural-log gates only");
  if (problem.layout != StateLayout::kv) return fail(Status::unsupported, "covers the kv state layout only");
  if (problem.heads.count() != problem.kv_heads.count()) return fail(Status::unsupported, "covers Hkv equal to H only");
  return {};
}

Plan forward_plan(const Problem&, const Target& target, std::string variant, std::string entry, std::int64_t splits,
                  std::int64_t scratch_elements) {
  Stage stage;
  stage.entry = std::move(entry);
  stage.tasks = {splits, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
  stage.args = forward_args();
  stage.scratch_bytes = round_up(scratch_elements * 4, workspace_alignment);
  Plan plan;
  plan.variant = std::move(variant);
  plan.target = target;
  plan.stages = {std::move(stage)};
  return plan;
}

}  // namespace glaive::cpu
