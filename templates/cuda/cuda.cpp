#include "templates/cuda/cuda.hpp"

#include <algorithm>

namespace glaive::cuda {
namespace {

/// Of every kernel, in order.
const std::vector<Arg>& arguments() {
  static const std::vector<Arg> args = [] {
    std::vector<Arg> list = entry_args();
    list.insert(list.end(), {Arg::sequences, Arg::workspace, Arg::mapped});
    return list;
  }();
  return args;
}

std::string joined(std::string_view before) {
  std::string text;
  for (const Arg arg : arguments())
    text += (text.empty() ? "" : ", ") + std::string(before) + std::string(to_string(arg));
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
  const std::vector<Kernel> kernels = this->kernels(instance, config);
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
  constant("unsigned", "slot_fault", std::to_string(static_cast<unsigned>(DeviceFault::slot)));
  constant("unsigned", "lengths_fault", std::to_string(static_cast<unsigned>(DeviceFault::lengths)));
  CudaSource source;
  std::string helpers, texts;
  for (const Kernel& kernel : kernels) {
    const std::string begin = "\nnamespace " + kernel.entry + "_text {\n", end = "}\n";
    text += begin;
    for (const auto& [name, value] : kernel.constants) constant("int", name, std::to_string(value));
    constant("int", "cluster", std::to_string(kernel.cluster));
    constant("int", "segment", std::to_string(kernel.segment));
    constant("int", "threads", std::to_string(kernel.threads));
    constant("int", "ctas", std::to_string(kernel.ctas));
    constant("int", "shared_bytes", std::to_string(kernel.shared_bytes));
    text += end;
    if (not kernel.helpers.empty()) helpers += kernel.helpers + "\n";
    texts += begin + kernel.text + end;
    source.entries.push_back(kernel.entry);
  }
  text += "\nstruct Words {  // a call's arguments, in the order of the plan\n  unsigned long long " + joined("") +
          ";\n};\n#define PARAMETERS " + joined("unsigned long long ") + "\n#define WORDS {" + joined("") + "}\n\n";
  text += std::string(text_of("ptx.cuh")) + "\n" + helpers + std::string(text_of("task.cuh")) + texts;
  source.text = std::move(text);
  return source;
}

void Kernel::map_chunks(std::initializer_list<Arg> tensors, DType gate, std::int64_t tokens, std::int64_t channels) {
  const auto map = [&](Arg tensor, std::uint8_t element_bytes, bool swizzled, std::int64_t box) {
    maps.push_back(
        {tensor, element_bytes, swizzled, static_cast<std::uint16_t>(tokens), static_cast<std::uint16_t>(box)});
  };
  for (const Arg tensor : tensors) map(tensor, 2, true, 64);
  if (gate == DType::f32)
    map(Arg::g, 4, false, channels);
  else
    map(Arg::g, 2, true, 64);
}

Plan KernelFamily::plan(const Instance& instance, const Config& config) const {
  Plan plan;
  plan.variant = to_string(Variant{this, config}, instance);
  plan.target = instance.target;
  std::int64_t segment = 0;
  for (const Kernel& kernel : kernels(instance, config)) {
    Stage stage;
    stage.entry = kernel.entry;
    stage.tasks = {kernel.tiles, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
    if (kernel.segment > 0) stage.tasks.factors.push_back({Axis::longest, kernel.segment, 1});
    stage.args = arguments();
    stage.maps = kernel.maps;
    stage.block[0] = static_cast<std::uint32_t>(kernel.threads);
    stage.shared_bytes = static_cast<std::uint32_t>(kernel.shared_bytes);
    stage.cluster = static_cast<std::uint32_t>(kernel.cluster);
    stage.early = kernel.early;
    plan.stages.push_back(std::move(stage));
    segment = kernel.segment;
  }
  if (segment > 0) {
    const std::int64_t k = instance.problem.k.count(), v = instance.problem.v.count();
    const std::int64_t seed_floats = round_up(v, 16) * round_up(k, 8), decay_pitch = round_up(k, 128);
    plan.workspace = {
        {4 * (seed_floats + decay_pitch), {{Axis::sequences, 1}, {Axis::kv_heads, 1}, {Axis::longest, segment, 1}}}};
  }
  return plan;
}

}  // namespace glaive::cuda
