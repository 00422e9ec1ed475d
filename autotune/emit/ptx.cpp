#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "autotune/emit/selection.hpp"
#include "autotune/evidence.hpp"
#include "templates/family.hpp"

namespace glaive::emission {
namespace {

/// A variant to be compiled to PTX.
struct Wanted {
  Instance instance;
  Variant variant;
};

/// The winner's own variant, for any GPU from its architecture on. Families that want what one architecture alone has
/// do not apply.
std::optional<Wanted> own_variant(const PackEntry& entry, const Problem& problem, const CudaArch& arch) {
  Wanted wanted{{problem, *parse_target(fmt::format("cuda:compute_{}", arch.number()))}, {}};
  const auto name = entry.plan.variant.substr(0, entry.plan.variant.find('('));
  const Family* const family = find_family(name, Target::Kind::cuda);
  if (family == nullptr or not family->applicable(wanted.instance)) return std::nullopt;
  auto variant = parse_variant(entry.plan.variant, wanted.instance);
  if (not variant) return std::nullopt;
  wanted.variant = std::move(*variant);
  return wanted;
}

/// The default of the first family that covers the problem on the oldest GPU with as little shared memory as any has,
/// so that it runs on whatever is newer.
std::optional<Wanted> portable_variant(const Problem& problem) {
  const Instance instance{problem, *parse_target("cuda:compute_86")};
  for (const Family* family : families())
    if (family->kind() == Target::Kind::cuda and family->applicable(instance))
      return Wanted{instance, {family, family->default_config(instance)}};
  return std::nullopt;
}

}  // namespace

std::vector<PackEntry> make_ptx(std::span<const PackEntry> entries, const CudaCompiler& compiler,
                                std::vector<std::string>& notes) {
  std::vector<PackEntry> made;
  std::map<std::string, std::optional<CodeObject>> compiled;  // by problem, target and variant
  const auto add = [&](const PackEntry& of, const Wanted& wanted) {
    const auto name = to_string(wanted.variant, wanted.instance), target = to_string(wanted.instance.target);
    const auto [place, is_new] = compiled.emplace(of.key.problem + target + name, std::nullopt);
    if (is_new) {
      auto code = compiler.compile(wanted.variant.family->instantiate(wanted.instance, wanted.variant.config),
                                   {wanted.instance.target, {}});
      if (code)
        place->second = std::move(*code);
      else
        notes.push_back(fmt::format("no PTX of {} for `{}`: {}", name, of.key.problem, code.error().message));
    }
    if (not place->second) return;
    PackEntry entry{of.key, wanted.variant.family->plan(wanted.instance, wanted.variant.config), {*place->second}, {}};
    entry.plan.variant = name;
    entry.plan.target = wanted.instance.target;
    entry.key.device.clear();  // it was tuned nowhere: whatever was tuned comes first
    entry.key.target = target;
    entry.key.policy = "ptx";
    const auto is_same = [&](const PackEntry& other) { return other.key == entry.key and other.plan == entry.plan; };
    if (std::ranges::any_of(made, is_same)) return;
    entry.evidence = nlohmann::ordered_json{{"schema", 1},
                                            {"variant", name},
                                            {"origin", "compiled by emit, not run"},
                                            {"winner", of.plan.variant},
                                            {"compiler", compiler.build()}}
                         .dump();
    made.push_back(std::move(entry));
  };
  const auto is_for_gpu = [](const PackEntry& entry) { return entry.plan.target.kind == Target::Kind::cuda; };
  for (const bool own : {false, true})  // of equally good entries the last serves
    for (const PackEntry& entry : entries) {
      const auto problem = parse_problem(entry.key.problem);
      if (not is_for_gpu(entry) or not problem) continue;
      const CudaArch arch = cuda_arch(entry.plan.target);
      if (arch.ptx and arch.suffix == 0) continue;  // is PTX already
      if (const auto wanted = own ? own_variant(entry, *problem, arch) : portable_variant(*problem))
        add(entry, *wanted);
    }
  return made;
}

}  // namespace glaive::emission
