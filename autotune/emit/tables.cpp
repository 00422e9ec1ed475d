// The launcher's C, its names changed, and its tables.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "autotune/emit/launcher.hpp"
#include "autotune/emit/selection.hpp"
#include "autotune/evidence.hpp"

namespace glaive::emission {
namespace {

constexpr std::string_view template_name = "gla";

/// The words `gla`, `gla_x`, `GLA` and `GLA_X` with another name for gla.
std::string renamed(std::string_view text, const std::string& name) {
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 or c == '_'; };
  const std::string from(template_name), upper_from = upper(from), upper_name = upper(name);
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto rest = text.substr(i);
    const bool begins = i == 0 or not is_word(text[i - 1]);
    const bool ends = rest.size() <= from.size() or rest[from.size()] == '_' or not is_word(rest[from.size()]);
    const bool lower = rest.starts_with(from);
    if (begins and ends and (lower or rest.starts_with(upper_from))) {
      out += lower ? name : upper_name;
      i += from.size();
    } else {
      out += text[i++];
    }
  }
  return out;
}

std::string replaced(std::string text, std::string_view mark, const std::string& by) {
  const auto at = text.find(mark);
  return at == text.npos ? text : text.replace(at, mark.size(), by);
}

std::string_view part(std::string_view name) {
  const auto parts = launcher_parts();
  const auto found = std::ranges::find(parts, name, &LauncherPart::name);
  return found == parts.end() ? std::string_view() : found->text;
}

std::string number(std::optional<double> value) { return value ? fmt::format("{:.6g}", *value) : "NAN"; }

std::string c_target(const Target& target) {
  std::string out = fmt::format("{{.text = {}", c_string(to_string(target)));
  if (target.kind == Target::Kind::cuda) {
    const CudaArch arch = cuda_arch(target);
    out += fmt::format(", .cuda = true, .major = {}, .minor = {}", arch.major, arch.minor);
    if (arch.ptx) out += ", .ptx = true";
    if (arch.suffix != 0) out += fmt::format(", .suffix = '{}'", arch.suffix);
    return out + "}";
  }
  static constexpr std::string_view extras[] = {"amx-bf16", "avx512bf16", "avx512fp16"};  // in the order of cpu.c
  unsigned features = 0;
  for (const auto& feature : target.features)
    features |= 1u << (std::ranges::find(extras, feature) - std::begin(extras));
  return out + fmt::format(", .level = {}, .features = {}}}", target.arch.back(), features);
}

std::string c_count(const Count& count) {
  std::string out = fmt::format("{{{}, {}, ", count.multiplier, count.factors.size());
  if (count.factors.empty()) return out + "NULL}";
  out += "(const struct factor[]){";
  for (std::size_t i = 0; i < count.factors.size(); ++i)
    out += fmt::format("{}{{axis_{}, {}, {}}}", i > 0 ? ", " : "", to_string(count.factors[i].axis),
                       count.factors[i].divisor, count.factors[i].least);
  return out + "}}";
}

std::string c_stage(const Stage& stage, const EmittedPlan& plan) {
  std::string out = fmt::format("      {{.code = {}, .entry = {}, .tasks = {},\n       .args = {}",
                                plan.codes[stage.code], c_string(stage.entry), c_count(stage.tasks), stage.args.size());
  if (not stage.args.empty()) {
    out += ", .arg = (const uint8_t[]){";
    for (std::size_t i = 0; i < stage.args.size(); ++i)
      out += fmt::format("{}arg_{}", i > 0 ? ", " : "", to_string(stage.args[i]));
    out += "}";
  }
  if (not stage.maps.empty()) {
    out += fmt::format(",\n       .maps = {}, .map = (const struct map[]){{", stage.maps.size());
    for (std::size_t i = 0; i < stage.maps.size(); ++i) {
      const TensorMap& map = stage.maps[i];
      out += fmt::format("{}{{arg_{}, {}, {}, {}, {}}}", i > 0 ? ", " : "", to_string(map.tensor), map.element_bytes,
                         map.swizzled ? 1 : 0, map.tokens, map.channels);
    }
    out += "}";
  }
  out += fmt::format(
      ",\n       .scratch_bytes = {}, .block = {{{}, {}, {}}}, .cluster = {}, .shared_bytes = {}, .early = {}}}",
      stage.scratch_bytes, stage.block[0], stage.block[1], stage.block[2], stage.cluster, stage.shared_bytes,
      stage.early);
  return out;
}

std::string c_plan(const EmittedPlan& emitted) {
  const Plan& plan = emitted.plan;
  std::string out =
      fmt::format("    {{.variant = {}, .target = {},\n     .stages = {}, .stage = (const struct stage[]){{\n",
                  c_string(plan.variant), c_target(plan.target), plan.stages.size());
  for (std::size_t i = 0; i < plan.stages.size(); ++i)
    out += c_stage(plan.stages[i], emitted) + (i + 1 < plan.stages.size() ? ",\n" : "}");
  if (not plan.workspace.empty()) {
    out += fmt::format(",\n     .counts = {}, .workspace = (const struct count[]){{", plan.workspace.size());
    for (std::size_t i = 0; i < plan.workspace.size(); ++i) out += (i > 0 ? ", " : "") + c_count(plan.workspace[i]);
    out += "}";
  }
  return out + "}";
}

std::string c_entry(const Entry& entry) {
  const Measured& m = entry.measured;
  return fmt::format(
      "    {{.problem = {}, .plan = {}, .device = {},\n     .target = {},\n     .bucket = {{{}, {}}}, .threads = {},"
      " .timed_sequences = {}, .timed_tokens = {}, .timed_longest = {},\n     .regret_per_step = {}, .headroom = {}}}",
      entry.problem, entry.plan, c_string(entry.key.device), c_target(entry.target), entry.key.bucket.work,
      entry.key.bucket.tokens, entry.threads, m.sequences, m.tokens, m.longest, number(entry.regret_per_step),
      number(m.headroom));
}

std::string c_problem(const Problem& problem) {
  return fmt::format("    {{{}, {}, {}, {}, {}, {}, {}, {}, {}}}", c_string(to_string(problem)), problem.op == Op::step,
                     problem.heads.count(), problem.kv_heads.count(), problem.k.count(), problem.v.count(),
                     to_string(problem.io), to_string(problem.gate), to_string(problem.state));
}

template <class Range, class Print>
std::string table(std::string_view declaration, const Range& range, Print print) {
  std::string out = fmt::format("static const struct {} = {{\n", declaration);
  for (const auto& each : range) out += print(each) + ",\n";
  return out + "};\n";
}

std::string launcher_header(const Selection& selection, const std::string& name) {
  std::string values;
  for (std::size_t i = 0; i < selection.problems.size(); ++i) {
    std::string word = upper(name + "_" + to_string(selection.problems[i]));
    std::ranges::replace_if(word, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    values += fmt::format("  {} = {}{}\n", word, i, i + 1 < selection.problems.size() ? "," : "");
  }
  return replaced(renamed(part("gla"), name), "  /* @problems@ */\n", values);
}

std::string launcher_source(const std::string& name) {
  std::string text;
  for (const auto* each : {"data", "cpu", "cuda", "call", "dispatch"}) text += std::string(part(each)) + "\n";
  text.pop_back();
  return renamed(text, name);
}

std::string cmake_package(const Selection& selection, const std::string& name) {
  std::string problems;
  for (const Problem& problem : selection.problems) problems += "#   " + to_string(problem) + "\n";
  return replaced(renamed(part("config"), name), "# @problems@\n", problems);
}

std::string plans_header(const Selection& selection, const std::string& name) {
  std::size_t stages = 1;
  for (const auto& plan : selection.plans) stages = std::max(stages, plan.plan.stages.size());
  std::string out = fmt::format(
      "/* How the kernels of {0}.h are launched, and for which shapes: part of {0}.c. */\n"
      "#define {1}_CPU {2}\n#define {1}_CUDA {3}\n#define most_stages {4}\n#define problem_count {5}\n"
      "#define plan_count {6}\n#define entry_count {7}\n\n",
      name, upper(name), selection.has(Target::Kind::cpu) ? 1 : 0, selection.has(Target::Kind::cuda) ? 1 : 0, stages,
      selection.problems.size(), selection.plans.size(), selection.entries.size());
  out += table("problem problems[problem_count]", selection.problems, c_problem) + "\n";
  std::size_t at = 0;
  out += table("code codes[]", selection.codes, [&](const Code& code) {
    return fmt::format("    {{{}, code_{}, {}}} /* {} */", c_target(code.object.target), at++, code.object.bytes.size(),
                       code.file);
  });
  out += "\n" + table("plan plans[plan_count]", selection.plans, c_plan);
  return out + "\n" + table("entry entries[entry_count]", selection.entries, c_entry);
}

std::string code_header(const Selection& selection, const std::string& name) {
  std::string out = fmt::format("/* The code of the kernels of {0}.h, little-endian words: part of {0}.c. */\n", name);
  for (std::size_t i = 0; i < selection.codes.size(); ++i) {
    const auto& bytes = selection.codes[i].object.bytes;
    out += fmt::format("\n/* {} */\nstatic const uint64_t code_{}[] = {{", selection.codes[i].file, i);
    // A zero behind it: drivers read PTX up to there.
    for (std::size_t at = 0, words = bytes.size() / 8 + 1; at < words; ++at) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + 8 * at, std::min<std::size_t>(8, bytes.size() - 8 * at));
      out += fmt::format("{}{:#x},", at % 8 == 0 ? "\n" : "", word);
    }
    out += "\n};\n";
  }
  return out;
}

}  // namespace

std::vector<Text> launcher_files(const Selection& selection, const std::string& name) {
  const std::string version(glaive_version()), package = "lib/cmake/" + name + "/" + name + "-config";
  const auto versioned = [&](std::string_view of) { return replaced(renamed(part(of), name), "@version@", version); };
  return {{"include/" + name + ".h", launcher_header(selection, name)},
          {"src/" + name + ".c", launcher_source(name)},
          {"src/" + name + "_plans.h", plans_header(selection, name)},
          {"src/" + name + "_code.h", code_header(selection, name)},
          {package + ".cmake", cmake_package(selection, name)},
          {package + "-version.cmake", versioned("version")},
          {"lib/pkgconfig/" + name + ".pc", versioned("pkgconfig")},
          {"build", renamed(part("build"), name), true}};
}

}  // namespace glaive::emission
