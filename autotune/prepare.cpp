#include "autotune/prepare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "autotune/evidence.hpp"
#include "autotune/winners.hpp"

namespace glaive {
namespace {

/// A case on its way into the pack.
struct Job {
  std::size_t at = 0;  ///< of its outcome
  Space space{};
  ShippedChoice choice{};
  WinnerKey key{};
  std::optional<Evaluated<CodeObject>> code{};
};

std::string evidence_of(const Case& what, const Job& job, const PrepareOptions& options, const Verdict& verdict,
                        const std::string& compiler) {
  nlohmann::ordered_json json = {{"schema", 1},
                                 {"case", to_string(what)},
                                 {"variant", job.choice.variant->name},
                                 {"policy", job.key.policy},
                                 {"shipped", {{"match", to_string(job.choice.match)}}},
                                 {"errors", {{"o", verdict.error_o}, {"state", verdict.error_state}}},
                                 {"compiler", compiler},
                                 {"glaive", {{"version", glaive_version()}, {"commit", glaive_commit()}}}};
  if (const auto* const winner = job.choice.winner)
    json["shipped"].update({{"table", options.table->name},
                            {"device", options.table->device},
                            {"line", winner->line},
                            {"case", to_string(winner->what)},
                            {"time", winner->time},
                            {"roof", winner->roof},
                            {"against_default", winner->against_default}});
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

std::string foreign_table(const WinnersTable* table, const DeviceInfo& device) {
  if (table == nullptr)
    return fmt::format(
        "no winners are shipped for {}, nor for anything like it: these are defaults; `glaive tune` would "
        "do better",
        device.name);
  if (is_of(*table, device)) return {};
  return fmt::format("no winners are shipped for {}: these are those of {}; `glaive tune` would do better", device.name,
                     table->name);
}

Result<std::vector<Prepared>> prepare(Evaluator& evaluator, std::span<const Case> cases,
                                      const PrepareOptions& options) {
  using enum Prepared::State;
  const auto& device = evaluator.device();
  auto pack = open_pack_if_any(options.pack);
  if (not pack) return std::unexpected(pack.error());

  std::vector<Prepared> outcomes;
  std::vector<Job> jobs;
  for (const auto& what : cases) {
    auto& outcome = outcomes.emplace_back(Prepared{.what = what, .variant = {}, .sentence = {}});
    const auto tuned = *pack ? find_tuned(**pack, what, device, Effort::quick, evaluator.workers()) : std::nullopt;
    if (auto entry = tuned ? (*pack)->load(*tuned) : fail(Status::not_found, ""); entry) {
      outcome = {already, what, entry->plan.variant, "tuned already"};
      continue;
    }
    auto space = make_space(what, device);
    if (not space) {
      outcome = {unsupported, what, {}, space.error().message};
      continue;
    }
    auto& job = jobs.emplace_back(Job{.at = outcomes.size() - 1, .space = std::move(*space)});
    job.key = winner_key(what, device, Effort::quick, evaluator.workers());
    job.key.policy = shipped_policy(evaluator.workers());
  }
  for (auto& job : jobs) job.choice = choose_shipped(outcomes[job.at].what, job.space, options.table);

  // A variant of one problem is compiled once, however many shapes it is for.
  const auto same_code = [](const Job& a, const Job& b) {
    return a.space.instance.problem == b.space.instance.problem and a.choice.variant->name == b.choice.variant->name;
  };
  std::vector<Job*> distinct;
  for (auto& job : jobs)
    if (std::ranges::none_of(distinct, [&](const Job* other) { return same_code(job, *other); }))
      distinct.push_back(&job);
  std::atomic<std::size_t> next = 0;
  const auto compile = [&](int lane) {
    for (std::size_t i; (i = next++) < distinct.size();)
      distinct[i]->code =
          evaluator.compile(distinct[i]->space.instance, distinct[i]->choice.variant->variant, Optimise::full, lane);
  };
  {
    std::vector<std::jthread> helpers;
    const auto lanes = std::min<std::size_t>(static_cast<std::size_t>(options.threads), distinct.size());
    for (std::size_t lane = 1; lane < lanes; ++lane) helpers.emplace_back(compile, static_cast<int>(lane));
    compile(0);
  }

  std::vector<PackEntry> entries;
  for (auto& job : jobs) {
    auto& outcome = outcomes[job.at];
    outcome.variant = job.choice.variant->name;
    const auto& code =
        *(*std::ranges::find_if(distinct, [&](const Job* other) { return same_code(job, *other); }))->code;
    if (not code) {
      outcome.sentence = code.error().message;
      continue;
    }
    const Variant& variant = job.choice.variant->variant;
    Built built{variant.family->plan(job.space.instance, variant.config), *code};
    built.plan.variant = outcome.variant;
    built.plan.target = job.space.instance.target;
    const auto verdict = evaluator.verify(outcome.what, built, Scrutiny::brief, Gates::weak);
    if (not verdict or verdict->drop != Drop::none) {
      outcome.sentence = verdict ? verdict->message : verdict.error().message;
      continue;
    }
    entries.push_back({job.key,
                       std::move(built.plan),
                       {std::move(built.code)},
                       evidence_of(outcome.what, job, options, *verdict, evaluator.compiler())});
    outcome.state = ready;
    outcome.sentence = job.choice.winner == nullptr ? std::string("the default: nothing like it is shipped")
                                                    : fmt::format("{}, {}.txt:{}", to_string(job.choice.match),
                                                                  options.table->name, job.choice.winner->line);
    for (const auto& skipped : job.choice.skipped) outcome.sentence += "; " + skipped;
  }
  if (entries.empty()) return outcomes;
  if (auto added = add_to_pack(options.pack, entries); not added) return std::unexpected(added.error());
  return outcomes;
}

}  // namespace glaive
