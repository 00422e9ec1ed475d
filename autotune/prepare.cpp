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
  std::vector<ShippedChoice> choices{};
  std::size_t turn = 0;  ///< of a choice
  bool anew = false;     ///< compiled here, since what was compiled ahead failed
  bool ahead = false;    ///< whether its code was compiled ahead
  std::string compiler{};
  WinnerKey key{};
  std::string failures{};  ///< of the choices before, for people

  const ShippedChoice& choice() const { return choices[turn]; }
  const RankedVariant& variant() const { return *choice().variant; }
  bool same_code(const Job& other) const {
    return space.instance.problem == other.space.instance.problem and variant().name == other.variant().name and
           anew == other.anew;
  }
};

std::string evidence_of(const Case& what, const Job& job, const PrepareOptions& options, const Verdict& verdict) {
  nlohmann::ordered_json json = {
      {"schema", 1},
      {"case", to_string(what)},
      {"variant", job.variant().name},
      {"policy", job.key.policy},
      {"shipped", {{"match", to_string(job.choice().match)}, {"first", job.choices.front().variant->name}}},
      {"errors", {{"o", verdict.error_o}, {"state", verdict.error_state}}},
      {"compiler", job.compiler},
      {"glaive", {{"version", glaive_version()}, {"commit", glaive_commit()}}}};
  if (const auto* const winner = job.choice().winner)
    json["shipped"].update({{"table", options.table->name},
                            {"device", options.table->device},
                            {"line", winner->line},
                            {"case", to_string(winner->what)},
                            {"time", winner->time},
                            {"roof", winner->roof},
                            {"against_default", winner->against_default}});
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// The choice that an earlier call of this build, with this compiler or code compiled ahead, and the same first choice,
/// put into the pack.
const ShippedChoice* prepared_already(const std::optional<Pack>& pack, const Job& job, const std::string& compiler,
                                      const CompiledWinners* compiled) {
  const auto found = pack ? pack->find(job.key) : std::nullopt;
  const auto entry = found ? pack->load(*found) : fail(Status::not_found, "");
  if (not entry) return nullptr;
  const auto evidence = nlohmann::json::parse(entry->evidence, nullptr, false);
  const auto is = [&](const char* pointer, std::string_view text) {
    const nlohmann::json::json_pointer at(pointer);
    return evidence.contains(at) and evidence[at] == text;
  };
  const auto by = evidence.is_object() ? evidence.value("compiler", nlohmann::json()) : nlohmann::json();
  const bool ahead = compiled != nullptr and by.is_string() and compiled->any_of(by);
  if (not is("/shipped/first", job.choices.front().variant->name) or not(ahead or is("/compiler", compiler)) or
      not is("/glaive/version", glaive_version()) or not is("/glaive/commit", glaive_commit()))
    return nullptr;
  const auto choice =
      std::ranges::find(job.choices, entry->plan.variant, [](const ShippedChoice& one) { return one.variant->name; });
  return choice == job.choices.end() ? nullptr : &*choice;
}

std::optional<CompiledWinners::Found> compiled_ahead(const Job& job, const CompiledWinners* compiled) {
  if (compiled == nullptr or job.anew) return std::nullopt;
  const auto& variant = job.variant().variant;
  const auto source = variant.family->instantiate(job.space.instance, variant.config);
  const auto* const text = std::get_if<CudaSource>(&source);
  if (text == nullptr) return std::nullopt;
  return compiled->find(CudaCompiler::source_key(*text, {job.space.instance.target, {}}));
}

/// Code for each job, in their order: a variant of one problem is compiled once, however many shapes it is for. Tells
/// the jobs who made it.
std::vector<Evaluated<CodeObject>> compile(Evaluator& evaluator, std::span<Job* const> jobs,
                                           const PrepareOptions& options) {
  std::vector<const Job*> distinct;
  std::vector<std::size_t> which;  // of them, for each job
  for (const Job* const job : jobs) {
    const auto at = std::ranges::find_if(distinct, [&](const Job* other) { return job->same_code(*other); });
    which.push_back(static_cast<std::size_t>(at - distinct.begin()));
    if (at == distinct.end()) distinct.push_back(job);
  }
  std::vector<std::optional<Evaluated<CodeObject>>> code(distinct.size());
  std::vector<std::optional<std::string>> ahead(distinct.size());  // who compiled it
  std::atomic<std::size_t> next = 0;
  const auto work = [&](int lane) {
    for (std::size_t i; (i = next++) < distinct.size();) {
      if (auto found = compiled_ahead(*distinct[i], options.compiled)) {
        code[i] = std::move(found->code);
        ahead[i] = std::move(found->compiler);
      } else {
        code[i] = evaluator.compile(distinct[i]->space.instance, distinct[i]->variant().variant, Optimise::full, lane);
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    const auto lanes = std::min<std::size_t>(static_cast<std::size_t>(options.threads), distinct.size());
    for (std::size_t lane = 1; lane < lanes; ++lane) helpers.emplace_back(work, static_cast<int>(lane));
    work(0);
  }
  std::vector<Evaluated<CodeObject>> all;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    all.push_back(*code[which[i]]);
    jobs[i]->ahead = ahead[which[i]].has_value();
    jobs[i]->compiler = ahead[which[i]].value_or(evaluator.compiler());
  }
  return all;
}

std::string told(const Job& job, const WinnersTable* table) {
  const auto& choice = job.choice();
  std::string text = choice.winner != nullptr
                         ? fmt::format("{}, {}.txt:{}", to_string(choice.match), table->name, choice.winner->line)
                     : job.turn > 0 ? std::string("the default")
                                    : std::string("the default: nothing like it is shipped");
  for (const auto& skipped : choice.skipped) text += "; " + skipped;
  return text + job.failures;
}

/// The entry of a job whose variant compiled; nothing, with `why`, for one that is wrong here.
Result<std::optional<PackEntry>> entry_of(Evaluator& evaluator, const Case& what, const Job& job, CodeObject code,
                                          const PrepareOptions& options, std::string& why) {
  const Variant& variant = job.variant().variant;
  Built built{variant.family->plan(job.space.instance, variant.config), std::move(code)};
  built.plan.variant = job.variant().name;
  built.plan.target = job.space.instance.target;
  const auto verdict = evaluator.verify(what, built, Scrutiny::brief, Gates::weak);
  if (not verdict) return std::unexpected(verdict.error());
  why = verdict->message;
  if (verdict->drop != Drop::none) return std::nullopt;
  return PackEntry{job.key, std::move(built.plan), {std::move(built.code)}, evidence_of(what, job, options, *verdict)};
}

/// Tries each job's choices in turn until one is right; tells the outcomes what became of them.
Result<std::vector<PackEntry>> make_entries(Evaluator& evaluator, std::span<Job> jobs, std::span<Prepared> outcomes,
                                            const PrepareOptions& options) {
  std::vector<PackEntry> entries;
  std::vector<Job*> waiting;
  for (auto& job : jobs) waiting.push_back(&job);
  while (not waiting.empty()) {
    auto codes = compile(evaluator, waiting, options);
    std::vector<Job*> again;
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      auto& job = *waiting[i];
      auto& outcome = outcomes[job.at];
      outcome.variant = job.variant().name;
      std::string why;
      if (codes[i]) {
        auto entry = entry_of(evaluator, outcome.what, job, std::move(*codes[i]), options, why);
        if (not entry) return std::unexpected(entry.error());
        if (*entry) {
          entries.push_back(std::move(**entry));
          outcome.state = Prepared::State::ready;
          outcome.shipped = job.choice().winner != nullptr;
          outcome.sentence = told(job, options.table);
          continue;
        }
        if (job.ahead) {
          job.anew = true;
          again.push_back(&job);
          continue;
        }
      } else {
        why = codes[i].error().message;
      }
      outcome.sentence = why + job.failures;
      job.failures += fmt::format("; not {}: {}", outcome.variant, why);
      job.anew = false;
      if (++job.turn < job.choices.size()) again.push_back(&job);
    }
    waiting = std::move(again);
  }
  return entries;
}

}  // namespace

std::string foreign_table(const WinnersTable* table, const DeviceInfo& device, std::span<const Prepared> prepared) {
  if (table != nullptr and is_of(*table, device)) return {};
  std::size_t shipped = 0, defaults = 0;
  for (const auto& one : prepared) {
    if (one.shipped) ++(*one.shipped ? shipped : defaults);
  }
  if (shipped + defaults == 0) return {};
  if (shipped == 0)
    return fmt::format(
        "no winners are shipped for {}, nor any that it could take: these are defaults; `glaive tune` would do better",
        device.name);
  return fmt::format("no winners are shipped for {}: {} of {} cases took those of {}; `glaive tune` would do better",
                     device.name, shipped, shipped + defaults, table->name);
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
    Job job{.at = outcomes.size() - 1, .space = std::move(*space)};
    job.choices = shipped_choices(what, job.space, options.table);
    job.key = winner_key(what, device, Effort::quick, evaluator.workers());
    job.key.policy = shipped_policy(evaluator.workers());
    if (const auto* const choice = prepared_already(*pack, job, evaluator.compiler(), options.compiled))
      outcome = {already, what, choice->variant->name, "prepared already", choice->winner != nullptr};
    else
      jobs.push_back(std::move(job));
  }
  auto entries = make_entries(evaluator, jobs, outcomes, options);
  if (not entries) return std::unexpected(entries.error());
  if (entries->empty()) return outcomes;
  if (auto added = add_to_pack(options.pack, *entries); not added) return std::unexpected(added.error());
  return outcomes;
}

}  // namespace glaive
