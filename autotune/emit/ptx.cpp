#include <fmt/format.h>

#include <algorithm>
#include <chrono>
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

/// Whether it is code that newer GPUs do not run.
bool is_bound(const PackEntry& entry) {
  if (entry.plan.target.kind != Target::Kind::cuda) return false;
  const CudaArch arch = cuda_arch(entry.plan.target);
  return not arch.ptx or arch.suffix != 0;
}

/// A variant of a winner's problem, and all winners that it may stand in for.
struct Job {
  Wanted wanted;
  std::string problem, variant;
  std::vector<const PackEntry*> winners;
};

std::vector<Job> list_jobs(std::span<const PackEntry> entries) {
  std::vector<Job> jobs;
  for (const bool own : {false, true})  // of equally good entries the last serves
    for (const PackEntry& entry : entries) {
      const auto problem = parse_problem(entry.key.problem);
      if (not is_bound(entry) or not problem) continue;
      auto wanted = own ? own_variant(entry, *problem, cuda_arch(entry.plan.target)) : portable_variant(*problem);
      if (not wanted) continue;
      const auto is_same = [&](const Job& job) {
        return job.wanted.instance.target == wanted->instance.target and job.problem == entry.key.problem and
               job.wanted.variant == wanted->variant;
      };
      auto job = std::ranges::find_if(jobs, is_same);
      if (job == jobs.end()) {
        auto name = to_string(wanted->variant, wanted->instance);
        job = jobs.insert(job, {std::move(*wanted), entry.key.problem, std::move(name), {}});
      }
      job->winners.push_back(&entry);
    }
  return jobs;
}

void note_uncovered(std::span<const PackEntry> entries, std::span<const Job> jobs, std::vector<std::string>& notes) {
  for (const PackEntry& entry : entries) {
    if (not is_bound(entry) or std::ranges::find(jobs, entry.key.problem, &Job::problem) != jobs.end()) continue;
    auto note = fmt::format("no PTX for `{}`: no family has a kernel of it for every GPU", entry.key.problem);
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(std::move(note));
  }
}

}  // namespace

std::vector<PackEntry> make_ptx(std::span<const PackEntry> entries, const CudaCompiler& compiler,
                                std::vector<std::string>& notes) {
  const auto jobs = list_jobs(entries);
  note_uncovered(entries, jobs, notes);
  std::vector<CudaJob> sources;
  for (const auto& [wanted, problem, variant, winners] : jobs)
    sources.push_back({std::get<CudaSource>(wanted.variant.family->instantiate(wanted.instance, wanted.variant.config)),
                       {wanted.instance.target, {}}});
  std::vector<std::optional<CodeObject>> code(jobs.size());
  compile_all(compiler, sources, host_cpu_device().units, std::chrono::minutes(10), {},
              [&](std::size_t i, Result<CodeObject> compiled) {
                if (compiled)
                  code[i] = std::move(*compiled);
                else
                  notes.push_back(fmt::format("no PTX of {} for `{}`: {}", jobs[i].variant, jobs[i].problem,
                                              compiled.error().message));
              });

  std::vector<PackEntry> made;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const auto& [wanted, problem, variant, winners] = jobs[i];
    for (const PackEntry* const winner : winners) {
      if (not code[i]) break;
      PackEntry entry{winner->key, wanted.variant.family->plan(wanted.instance, wanted.variant.config), {*code[i]}, {}};
      entry.plan.variant = variant;
      entry.plan.target = wanted.instance.target;
      entry.key.device.clear();  // it was tuned nowhere: whatever was tuned comes first
      entry.key.target = to_string(wanted.instance.target);
      entry.key.policy = "ptx";
      const auto is_same = [&](const PackEntry& other) { return other.key == entry.key and other.plan == entry.plan; };
      if (std::ranges::any_of(made, is_same)) continue;
      entry.evidence = nlohmann::ordered_json{{"schema", 1},
                                              {"variant", variant},
                                              {"origin", "compiled by emit, not run"},
                                              {"winner", winner->plan.variant},
                                              {"compiler", compiler.build()}}
                           .dump();
      made.push_back(std::move(entry));
    }
  }
  return made;
}

}  // namespace glaive::emission
