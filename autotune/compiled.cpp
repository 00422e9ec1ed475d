#include "autotune/compiled.hpp"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "autotune/evidence.hpp"
#include "autotune/gpu/fit.hpp"
#include "autotune/winners.hpp"
#include "runtime/problem.hpp"

namespace glaive {

namespace fs = std::filesystem;

fs::path compiled_winners_folder() {
  std::error_code ignored;
  const auto folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& above : {folder, folder.parent_path()})
    if (const auto winners = above / "share/glaive/winners"; fs::is_directory(winners, ignored)) return winners;
  return {};
}

CompiledWinners::CompiledWinners(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    auto pack = file.path().extension() == ".pack" ? Pack::open(file.path()) : fail(Status::not_found, "");
    if (not pack) continue;
    for (std::size_t i = 0; i < pack->size(); ++i) {
      const auto entry = pack->load_without_code(i);
      const auto evidence = nlohmann::json::parse(entry ? entry->evidence : "", nullptr, false);
      const auto text = [&](const char* name) {
        const auto found = evidence.find(name);  // nothing where it is no object
        return found != evidence.end() and found->is_string() ? found->get<std::string>() : std::string();
      };
      if (text("source").empty()) continue;
      at_.try_emplace(text("source"), packs_.size(), i, text("compiler"));
      compilers_.insert(text("compiler"));
    }
    packs_.push_back(std::move(*pack));
  }
}

std::optional<CompiledWinners::Found> CompiledWinners::find(const std::string& source) const {
  const auto at = at_.find(source);
  if (at == at_.end()) return std::nullopt;
  auto entry = packs_[at->second.pack].load(at->second.entry);
  if (not entry or entry->code.size() != 1) return std::nullopt;
  return Found{std::move(entry->code.front()), at->second.compiler};
}

Result<std::vector<PackEntry>> compile_winners(const WinnersTable& table, const CudaCompiler& compiler, int threads,
                                               const CompiledWinners& have) {
  std::vector<PackEntry> entries;
  std::vector<CudaJob> jobs;
  std::map<std::string, Result<CodeObject>> code;  // by source
  std::vector<std::string> sources, waiting;
  const auto wrong = [&](const ShippedWinner& winner, std::string_view what) {
    return fail(Status::failed, fmt::format("{}.txt:{}: {}: {}", table.name, winner.line, winner.variant, what));
  };
  for (const auto& winner : table.winners) {
    const Instance instance{winner.what.problem, table.target};
    const auto variant = parse_variant(winner.variant, instance);
    if (not variant) return wrong(winner, variant.error().message);
    CudaJob job{std::get<CudaSource>(variant->family->instantiate(instance, variant->config)), {table.target, {}}};
    const auto& source = sources.emplace_back(CudaCompiler::source_key(job.source, job.options));
    PackEntry entry{.key = {.device = table.device,
                            .target = to_string(table.target),
                            .problem = to_string(winner.what.problem),
                            .bucket = bucket_of(extents_of(winner.what.problem, winner.what.shape, 1)),
                            .policy = shipped_policy(1),
                            .space = space_hash(instance)},
                    .plan = variant->family->plan(instance, variant->config),
                    .code = {},
                    .evidence = {}};
    entry.plan.variant = winner.variant;
    entry.plan.target = table.target;
    const nlohmann::ordered_json evidence = {{"schema", 1},
                                             {"case", to_string(winner.what)},
                                             {"variant", winner.variant},
                                             {"policy", entry.key.policy},
                                             {"shipped", {{"table", table.name}, {"line", winner.line}}},
                                             {"source", source},
                                             {"compiler", compiler.build()},
                                             {"glaive", {{"version", glaive_version()}, {"commit", glaive_commit()}}}};
    entry.evidence = evidence.dump();
    entries.push_back(std::move(entry));
    if (code.contains(source)) continue;
    if (auto there = have.find(source); there and there->compiler == compiler.build()) {
      code.emplace(source, std::move(there->code));
    } else {
      code.emplace(source, fail(Status::failed, "not compiled"));
      waiting.push_back(source);
      jobs.push_back(std::move(job));
    }
  }
  compile_all(compiler, jobs, threads, std::chrono::minutes(5), {},
              [&](std::size_t job, Result<CodeObject> made) { code.at(waiting[job]) = std::move(made); });
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto& made = code.at(sources[i]);
    if (not made) return wrong(table.winners[i], made.error().message);
    const auto facts = cubin_facts(made->bytes);
    if (not facts) return wrong(table.winners[i], facts.error().message);
    if (const auto reason = unfit(entries[i].plan, *facts, table.target, false); not reason.empty())
      return wrong(table.winners[i], reason);
    entries[i].code = {*made};
  }
  return entries;
}

}  // namespace glaive
