#include "templates/cuda/cuda.hpp"

#include <algorithm>

namespace glaive::cuda {
namespace {

std::vector<Arg> args_of(const Kernel& kernel) {
  std::vector<Arg> args = entry_args();
  if (not kernel.maps.empty()) args.push_back(Arg::mapped);
  return args;
}

std::string joined(const std::vector<Arg>& args, std::string_view before) {
  std::string text;
  for (const Arg arg : args) text += (text.empty() ? "" : ", ") + std::string(before) + std::string(to_string(arg));
  return text;
}

std::string boolean(bool value) { return value ? "true" : "false"; }

}  // namespace

Result<void> applicable(const Instance& instance, Op op) {
  if (instance.target.kind != Target::Kind::cuda) return fail(Status::unsupported, "runs on CUDA targets only");
  if (cuda_arch(instance.target).number() < 80) return fail(Status::unsupported, "needs sm_80 or later");
  if (instance.problem.op != op)
    return fail(Status::unsupported, "covers op `" + std::string(to_string(op)) + "` only");
  if (instance.problem.state == DType::f16) return fail(Status::unsupported, "keeps states in f32 or bf16 only");
  return {};
}

Sm sm_of(const Target& target) {
  switch (cuda_arch(target).number()) {
    case 80:
    case 87:
      return {164 << 10, 163 << 10, 2048};
    case 90:
    case 100:
    case 103:
    case 110:
      return {228 << 10, 227 << 10, 2048};
    default:  // sm_86, sm_89, sm_120, sm_121; and what is not known yet, with care
      return {100 << 10, 99 << 10, 1536, 65536, 16};
  }
}

std::int64_t resident(const Sm& sm, std::int64_t threads, std::int64_t registers, std::int64_t shared_bytes) {
  if (shared_bytes > sm.block_shared_bytes) return 0;
  return std::min({sm.blocks, sm.threads / threads, sm.registers / (threads * round_up(registers, 8)),
                   sm.shared_bytes / (shared_bytes + 1024)});
}

Source KernelFamily::instantiate(const Instance& instance, const Config& config) const {
  const Kernel kernel = this->kernel(instance, config);
  const Problem& problem = instance.problem;
  std::string text = "// " + to_string(Variant{this, config}, instance) + " of `" + to_string(problem) + "` for " +
                     to_string(instance.target) + "\n";
  const auto constant = [&](std::string_view type, std::string_view name, const std::string& value) {
    text += "constexpr " + std::string(type) + " " + std::string(name) + " = " + value + ";\n";
  };
  const auto type = [&](std::string_view name, DType dtype) {
    text +=
        "using " + std::string(name) + " = " + (dtype == DType::f32 ? "float" : std::string(to_string(dtype))) + ";\n";
  };
  constant("int", "K", std::to_string(problem.k.count()));
  constant("int", "V", std::to_string(problem.v.count()));
  constant("int", "group", std::to_string(group_of(problem)));
  text += "struct bf16;\nstruct f16;\n";
  type("Io", problem.io);
  type("Gate", problem.gate);
  type("State", problem.state);
  constant("bool", "logit", boolean(problem.gate_form == GateForm::logit));
  constant("bool", "k_first", boolean(problem.layout == StateLayout::kv));
  for (const auto& [name, value] : kernel.constants) constant("int", name, std::to_string(value));
  constant("int", "threads", std::to_string(kernel.threads));
  constant("int", "ctas", std::to_string(kernel.ctas));
  constant("int", "shared_bytes", std::to_string(kernel.shared_bytes));
  constant("unsigned", "slot_fault", std::to_string(static_cast<unsigned>(DeviceFault::slot)));
  constant("unsigned", "lengths_fault", std::to_string(static_cast<unsigned>(DeviceFault::lengths)));
  const std::vector<Arg> args = args_of(kernel);
  const std::string words = joined(args, "");
  text += "\nstruct Words {  // a call's arguments, in the order of the plan\n  unsigned long long " + words +
          ";\n};\n#define PARAMETERS " + joined(args, "unsigned long long ") +
          (kernel.maps.empty() ? "" : ", const __grid_constant__ Maps maps") + "\n#define WORDS {" + words + "}\n\n";
  for (const std::string_view part :
       {text_of("ptx.cuh"), std::string_view(kernel.helpers), text_of("task.cuh"), std::string_view(kernel.text)})
    if (not part.empty()) text += std::string(part) + "\n";
  return CudaSource{{kernel.entry}, std::move(text)};
}

Plan KernelFamily::plan(const Instance& instance, const Config& config) const {
  const Kernel kernel = this->kernel(instance, config);
  Stage stage;
  stage.entry = kernel.entry;
  stage.tasks = {kernel.tiles, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
  stage.args = args_of(kernel);
  stage.maps = kernel.maps;
  stage.block[0] = static_cast<std::uint32_t>(kernel.threads);
  stage.shared_bytes = static_cast<std::uint32_t>(kernel.shared_bytes);
  Plan plan;
  plan.variant = to_string(Variant{this, config}, instance);
  plan.target = instance.target;
  plan.stages = {std::move(stage)};
  return plan;
}

}  // namespace glaive::cuda
