#include "autotune/tune.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <new>
#include <set>
#include <thread>

#include "autotune/evidence.hpp"
#include "runtime/dispatch.hpp"

namespace glaive {
struct Tuner::Attempt {
  std::size_t index = 0;  ///< of the candidate in its space
  RankedVariant candidate;
  std::string content{};
  Built built{};
  Drop drop = Drop::none;
  std::string message{};  ///< why it is out
  Verdict verdict{};
  double compile_seconds = 0, verify_seconds = 0;  ///< 0 where the journal knew
};

namespace {

/// Why a variant that did not compile is out: what its compiler says would be said again. Nothing for anything else,
/// such as a lack of descriptors, which may pass.
Drop drop_of(const Failure& failure) {
  if (failure.drop != Drop::none) return failure.drop;
  const bool lies_in_code = failure.status == Status::failed or failure.status == Status::invalid_argument or
                            failure.status == Status::unsupported;
  return lies_in_code ? Drop::compile_error : Drop::none;
}

/// The journal, the disk, a lock or the system failed: no other case would fare better.
bool ends_run(const Error& error) { return error.status == Status::io_error or error.status == Status::untrusted; }

constexpr std::size_t explained = 3;  ///< variants of a case whose failure is told in full

std::string milliseconds(const Timing& timing) {
  return fmt::format("{:.3f} ms [{:.3f}, {:.3f}]", timing.median() * 1e3, timing.low() * 1e3, timing.high() * 1e3);
}

}  // namespace

struct Tuner::Search {
  Case what;
  Space space;
  CaseKey key;
  WinnerKey winner;
  std::string incumbent;  ///< variant served so far for this problem and bucket, or shipped
  std::string shipped;    ///< variant that would be served if nobody had tuned
  std::vector<Attempt> attempts;
  std::set<std::size_t> seen;  ///< indices of the attempts
  std::unique_ptr<Strategy> strategy;
  std::size_t budget = 0;  ///< of attempts, without the defaults and who was served
  std::size_t compiled = 0, correct = 0, broken = 0;

  // What entered the race; the two lists run in parallel.
  std::vector<Entrant> entrants;
  std::vector<Attempt*> entered;
  bool lost_one = false;  ///< the last race ended with the loss of an entrant

  AttemptRecord record_of(const Attempt& attempt) const {
    return {&attempt - attempts.data() + 1, attempt.candidate.name, attempt.content, attempt.candidate.prior,
            attempt.candidate.is_default,   attempt.drop,           attempt.message, attempt.compile_seconds,
            attempt.verify_seconds};
  }
  void add(std::size_t index) {
    if (seen.insert(index).second) attempts.push_back({.index = index, .candidate = space.candidates[index]});
  }
  void add_if(const auto& wanted) {
    for (std::size_t i = 0; i < space.candidates.size(); ++i)
      if (wanted(space.candidates[i])) add(i);
  }

  /// Adds what the strategy proposes next, as far as the budget goes; false when nothing is left to try.
  bool extend(const Tournament* tournament) {
    std::vector<Evaluation> done;
    for (const auto& attempt : attempts) done.push_back({.candidate = attempt.index});
    for (std::size_t i = 0; i < entered.size(); ++i)
      if (const auto ratio = tournament->screened(i))
        done[static_cast<std::size_t>(entered[i] - attempts.data())].ratio = *ratio;
    const auto before = attempts.size();
    for (const std::size_t index : strategy->propose(space, done))
      if (attempts.size() < budget) add(index);
    return attempts.size() > before;
  }
};

std::string verification_rules(Scrutiny scrutiny, const Shape& shape) {
  return scrutiny == Scrutiny::brief ? "v3 brief" : fmt::format("v4 full @ {}", to_string(shape));
}

/// Names the verdict on a variant that could not stand being timed.
std::string timing_rules(const Shape& shape) { return fmt::format("v1 timed @ {}", to_string(shape)); }

TuneOutcome already_tuned(const Case& what, PackEntry entry) {
  const auto shape = measured_shape(entry.evidence, what);
  return {TuneOutcome::State::already, what,
          fmt::format("tuned already{}: {}", shape.empty() ? "" : " as " + shape, entry.plan.variant),
          std::move(entry.evidence)};
}

Tuner::Tuner(Evaluator& evaluator, Journal& journal, Progress& progress, TuneOptions options)
    : evaluator_(evaluator), journal_(journal), progress_(progress), options_(std::move(options)) {}

Result<TuneOutcome> Tuner::tune(const Case& what) {
  using enum TuneOutcome::State;
  const auto& device = evaluator_.device();
  auto space = make_space(what, used_device(), options_.families);
  if (not space) return TuneOutcome{unsupported, what, space.error().message, {}};

  Search search;
  search.what = what;
  search.space = std::move(*space);
  search.winner = winner_key(what, device, options_.effort, evaluator_.workers());
  search.key = {search.winner.device, search.winner.problem, to_string(what.shape),
                search.winner.policy, search.winner.space,   search.winner.schema};

  auto pack = open_pack_if_any(options_.pack);
  if (not pack) return std::unexpected(pack.error());
  if (*pack) {
    const bool again = options_.force and std::ranges::find(published_, search.winner) == published_.end();
    if (const auto found = find_tuned(**pack, what, device, options_.effort, evaluator_.workers());
        found and not again) {
      auto entry = (*pack)->load(*found);
      if (entry) return already_tuned(what, std::move(*entry));
      progress_.note(fmt::format("{}; tuning it again", entry.error().message));
    }
    const auto served = candidates(**pack, device, evaluator_.workers(), what.problem, search.winner.bucket);
    if (not served.empty() and served.front().match == Match::exact)
      if (auto entry = (*pack)->load(served.front().index)) search.incumbent = entry->plan.variant;
  }
  if (const auto choice = choose_shipped(what, search.space, options_.shipped); choice.winner != nullptr) {
    for (const auto& skipped : choice.skipped) progress_.note(skipped);
    search.shipped = choice.variant->name;
    if (search.incumbent.empty()) search.incumbent = search.shipped;
  }
  if (auto fits = evaluator_.check_memory(what); not fits) return TuneOutcome{failed, what, fits.error().message, {}};
  if (options_.force) {
    if (auto forgotten = journal_.forget(search.key); not forgotten) return std::unexpected(forgotten.error());
  } else {
    auto known = publish_known(search);
    if (not known) return std::unexpected(known.error());
    if (*known) return std::move(**known);
  }

  search.attempts.reserve(search.space.candidates.size());  // contenders keep pointers
  search.budget = variant_budget(options_.effort, search.space.instance);
  search.strategy = options_.strategy->make({options_.seed, search.budget, static_cast<std::size_t>(options_.threads)});
  search.extend(nullptr);
  // Whatever the strategy thinks of them: a winner beats the defaults, what is shipped and what was served so far.
  search.add_if([&](const auto& candidate) {
    return candidate.is_default or candidate.name == search.incumbent or candidate.name == search.shipped;
  });
  return race_and_publish(search);
}

/// A run that was killed between deciding and publishing left its winner in the journal.
Result<std::optional<TuneOutcome>> Tuner::publish_known(Search& search) {
  auto known = journal_.find_winner(search.key);
  if (not known) return std::unexpected(known.error());
  if (not*known) return std::nullopt;
  const auto candidate = std::ranges::find(search.space.candidates, (*known)->variant, &RankedVariant::name);
  if (candidate == search.space.candidates.end()) return std::nullopt;
  // The generator may have changed since: only the same code is the same winner.
  const auto content = evaluator_.content_key(search.space.instance, candidate->variant, Optimise::full, 0);
  if (not content or *content != (*known)->content) return std::nullopt;
  auto code = journal_.find_code(*content);
  if (not code) return std::unexpected(code.error());
  if (not*code or (*code)->drop != Drop::none) return std::nullopt;
  auto outcome = publish(search, *candidate, std::move((*code)->code), std::move((*known)->evidence));
  if (not outcome) return std::unexpected(outcome.error());
  return std::move(*outcome);
}

Result<void> Tuner::compile(std::span<Attempt* const> attempts, const Search& search, Optimise optimise) {
  const auto& instance = search.space.instance;
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::optional<Error> broken;

  const auto compile_one = [&](Attempt& attempt, int lane) -> Result<void> {
    const auto& variant = attempt.candidate.variant;
    CompileRecord record;
    auto content = evaluator_.content_key(instance, variant, optimise, lane);
    if (content) {
      attempt.content = *content;
      auto known = journal_.find_code(attempt.content);
      if (not known) return std::unexpected(known.error());
      if (*known) {
        attempt.built.code = std::move((*known)->code);
        attempt.drop = (*known)->drop;
        attempt.message = std::move((*known)->message);
        return {};
      }
      const auto begin = std::chrono::steady_clock::now();
      auto code = evaluator_.compile(instance, variant, optimise, lane);
      record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (not code) {
        record.drop = drop_of(code.error());
        if (record.drop == Drop::none) return std::unexpected(code.error());
        record.message = code.error().message;
      } else if (record.code = std::move(*code);
                 record.code.text_bytes > max_text_bytes or record.code.stack_bytes > max_stack_bytes) {
        record.drop = Drop::resources;
        record.message = fmt::format("{} bytes of code, {} of stack", record.code.text_bytes, record.code.stack_bytes);
      }
    } else {
      record.drop = drop_of(content.error());
      if (record.drop == Drop::none) return std::unexpected(content.error());
      // Not even a module: filed under the variant's name, so that the journal tells why it is missing.
      attempt.content = fmt::format("none {} {}", search.key.problem, attempt.candidate.name);
      record.message = content.error().message;
    }
    if (auto kept = journal_.put_code(attempt.content, record); not kept) return kept;
    attempt.built.code = std::move(record.code);
    attempt.drop = record.drop;
    attempt.message = std::move(record.message);
    attempt.compile_seconds += record.seconds;
    return {};
  };
  const auto compile_or_tell = [&](Attempt& attempt, int lane) -> Result<void> {
    try {
      return compile_one(attempt, lane);
    } catch (const std::bad_alloc&) {
      return fail(Status::out_of_memory, fmt::format("no memory to compile {}", attempt.candidate.name));
    }
  };
  const auto work = [&](int lane) {
    for (std::size_t i; (i = next++) < attempts.size();) {
      if (auto done = compile_or_tell(*attempts[i], lane); not done) {
        const std::lock_guard lock(mutex);
        if (not broken) broken = done.error();
        next = attempts.size();
        return;
      }
      if (attempts[i]->drop != Drop::none) progress_.dropped(attempts[i]->drop);
      progress_.step();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int lane = 1; lane < options_.threads; ++lane) helpers.emplace_back(work, lane);
    work(0);
  }
  if (broken) return std::unexpected(*broken);
  for (Attempt* attempt : attempts) {
    attempt->built.plan = attempt->candidate.variant.family->plan(instance, attempt->candidate.variant.config);
    attempt->built.plan.variant = attempt->candidate.name;
    attempt->built.plan.target = instance.target;
  }
  return {};
}

Result<void> Tuner::verify(Attempt& attempt, Search& search, Scrutiny scrutiny) {
  const auto& key = search.key;
  const auto& name = attempt.candidate.name;
  const auto rules = verification_rules(scrutiny, search.what.shape);
  auto known = journal_.find_verdict(key.device, key.problem, name, attempt.content, rules);
  if (not known) return std::unexpected(known.error());
  if (*known) {
    attempt.verdict = std::move(**known);
  } else {
    const double begin = steady_seconds();
    auto verdict = evaluator_.verify(search.what, attempt.built, scrutiny, Gates::weak);
    if (not verdict) return std::unexpected(verdict.error());
    attempt.verify_seconds += steady_seconds() - begin;
    attempt.verdict = std::move(*verdict);
    if (auto kept = journal_.put_verdict(key.device, key.problem, name, attempt.content, rules, attempt.verdict);
        not kept)
      return kept;
    // A wrong kernel is a bug in a family or in the compiler: say it at once, with the command that shows it.
    if (attempt.verdict.drop != Drop::none and search.broken < explained)
      progress_.note(fmt::format("{}: {}", name, attempt.verdict.message));
  }
  if (attempt.verdict.drop == Drop::none) {
    auto timed = journal_.find_verdict(key.device, key.problem, name, attempt.content, timing_rules(search.what.shape));
    if (not timed) return std::unexpected(timed.error());
    if (*timed) attempt.verdict = std::move(**timed);
  }
  attempt.drop = attempt.verdict.drop;
  attempt.message = attempt.verdict.message;
  if (attempt.drop != Drop::none) {
    ++search.broken;
    progress_.dropped(attempt.drop);
  }
  progress_.step();
  return {};
}

Result<void> Tuner::enter(Search& search, std::size_t first) {
  const auto lock = lock_device(search, DeviceLock::For::work);
  if (not lock) return std::unexpected(lock.error());
  std::vector<Attempt*> attempts;
  for (auto& attempt : std::span(search.attempts).subspan(first)) attempts.push_back(&attempt);
  progress_.begin_phase("compile", attempts.size());
  if (auto done = compile(attempts, search, Optimise::light); not done) return done;

  std::erase_if(attempts, [](const Attempt* attempt) { return attempt->drop != Drop::none; });
  search.compiled += attempts.size();
  progress_.begin_phase("verify", attempts.size());
  for (Attempt* attempt : attempts) {
    if (auto done = verify(*attempt, search, Scrutiny::brief); not done) return done;
    if (attempt->drop != Drop::none) continue;
    ++search.correct;
    search.entrants.push_back({attempt->candidate.name, attempt->content, attempt->candidate.is_default});
    search.entered.push_back(attempt);
  }

  std::vector<AttemptRecord> records;
  for (const auto& attempt : std::span(search.attempts).subspan(first)) records.push_back(search.record_of(attempt));
  return journal_.put_attempts(search.key, records);
}

/// An entrant that crashed, hung or overran while it was timed is out for good, also for a run that resumes this one.
Result<void> Tuner::lose(Search& search, std::size_t entrant, const Failure& failure) {
  auto& attempt = *search.entered[entrant];
  attempt.drop = failure.drop;
  attempt.message = failure.message;
  search.entrants[entrant].out = true;
  search.lost_one = true;
  --search.correct;
  progress_.dropped(failure.drop);
  if (search.broken++ < explained) progress_.note(fmt::format("{}: {}", attempt.candidate.name, failure.message));
  const auto record = search.record_of(attempt);
  if (auto kept = journal_.put_attempts(search.key, std::span(&record, 1)); not kept) return kept;
  return journal_.put_verdict(search.key.device, search.key.problem, attempt.candidate.name, attempt.content,
                              timing_rules(search.what.shape), {failure.drop, 0, 0, failure.message});
}

/// All that can win is compiled in full and passes full scrutiny: the semifinalists, whoever moves up when one of them
/// falls, the defaults and the incumbent.
Result<void> Tuner::prove_best(Search& search, Tournament& tournament) {
  const auto lock = lock_device(search, DeviceLock::For::work);
  if (not lock) return std::unexpected(lock.error());
  std::set<std::size_t> known;
  for (;;) {
    std::vector<std::size_t> fresh;
    const auto want = [&](std::size_t i) {
      if (known.insert(i).second) fresh.push_back(i);
    };
    for (std::size_t i = 0; i < search.entrants.size(); ++i)
      if (const auto& entrant = search.entrants[i];
          not entrant.out and
          (entrant.is_default or entrant.variant == search.incumbent or entrant.variant == search.shipped))
        want(i);
    for (const std::size_t i : tournament.best(tournament.semifinalists())) want(i);
    if (fresh.empty()) return {};

    std::vector<Attempt*> attempts;
    for (const std::size_t i : fresh) attempts.push_back(search.entered[i]);
    progress_.begin_phase("compile the best", fresh.size());
    if (auto done = compile(attempts, search, Optimise::full); not done) return done;
    progress_.begin_phase("verify the best", fresh.size());
    std::vector<AttemptRecord> fallen;
    for (const std::size_t i : fresh) {
      auto& attempt = *search.entered[i];
      if (attempt.drop == Drop::none)
        if (auto done = verify(attempt, search, Scrutiny::full); not done) return done;
      search.entrants[i].content = attempt.content;
      if (attempt.drop == Drop::none) continue;
      search.entrants[i].out = true;
      tournament.exclude(i);
      --search.correct;
      fallen.push_back(search.record_of(attempt));
    }
    if (auto kept = journal_.put_attempts(search.key, fallen); not kept) return kept;
  }
}

/// The prior is about the cores that will run the kernel.
DeviceInfo Tuner::used_device() const {
  auto device = evaluator_.device();
  if (device.target.kind == Target::Kind::cpu) device.units = evaluator_.workers();
  return device;
}

TimeEntrants Tuner::timing_of(Search& search) {
  return [this, &search](std::span<const std::size_t> running, bool plain, const MeasurePolicy& policy,
                         std::span<const std::size_t> keep) -> Result<std::vector<Timing>> {
    std::vector<Contender> contenders;
    for (const std::size_t i : running) contenders.push_back({Contender::Kind::kernel, &search.entered[i]->built});
    if (plain) {
      contenders.push_back({Contender::Kind::rows, nullptr});
      contenders.push_back({Contender::Kind::tiles, nullptr});
    }
    auto times = evaluator_.race(search.what, contenders, policy, keep);
    if (times) return std::move(*times);
    const auto& failure = times.error();
    if (failure.drop != Drop::none and failure.contender < running.size())
      if (auto kept = lose(search, running[failure.contender], failure); not kept) return std::unexpected(kept.error());
    return std::unexpected<Error>(failure);
  };
}

TournamentEvents Tuner::events() {
  return {.round = [this](std::string_view name, std::size_t total) { progress_.begin_phase(name, total); },
          .advance = [this](std::size_t done) { progress_.advance(done); },
          .best = [this](const std::string& variant, double ratio) { progress_.best(variant, ratio); }};
}

Result<TuneOutcome> Tuner::race_and_publish(Search& search) {
  using enum TuneOutcome::State;
  Tournament tournament(timing_of(search), journal_, search.key, events(),
                        std::min(Tournament::most_semifinalists, search.budget / 3));
  const auto failure = [&](const Error& error) -> Result<TuneOutcome> {
    if (ends_run(error)) return std::unexpected(error);
    return TuneOutcome{failed, search.what, error.message, {}};
  };

  const auto nothing_usable = [&] {
    std::string reasons;
    for (const auto& [drop, count] : progress_.drops())
      reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", to_string(drop), count);
    const auto first =
        std::ranges::find_if(search.attempts, [](const auto& attempt) { return attempt.drop != Drop::none; });
    return TuneOutcome{failed,
                       search.what,
                       fmt::format("none of {} variants is usable ({}); {}: {}", search.attempts.size(), reasons,
                                   first->candidate.name, first->message),
                       {}};
  };

  std::size_t first = 0, reference = 0;
  for (;;) {
    if (auto done = enter(search, first); not done) return failure(done.error());
    if (search.entrants.empty()) return nothing_usable();
    if (first == 0)
      if (const auto preset = std::ranges::find_if(search.entrants, &Entrant::is_default);
          preset != search.entrants.end())
        reference = static_cast<std::size_t>(preset - search.entrants.begin());
    {
      const auto lock = lock_device(search, DeviceLock::For::timing);
      if (not lock) return std::unexpected(lock.error());
      for (;;) {
        const auto done = tournament.screen(search.entrants, reference);
        if (done) break;
        if (not std::exchange(search.lost_one, false)) return failure(done.error());
        for (std::size_t i = 0; i < search.entrants.size(); ++i)
          if (search.entrants[i].out) tournament.exclude(i);
        if (not search.entrants[reference].out) continue;
        const auto next = std::ranges::find(search.entrants, false, &Entrant::out);
        if (next == search.entrants.end()) return nothing_usable();
        reference = static_cast<std::size_t>(next - search.entrants.begin());
        tournament.restart();
      }
    }
    first = search.attempts.size();
    if (not search.extend(&tournament)) break;
  }

  if (auto done = prove_best(search, tournament); not done) return failure(done.error());
  const auto lock = lock_device(search, DeviceLock::For::timing);
  if (not lock) return std::unexpected(lock.error());
  Result<TournamentResult> result;
  do {
    for (std::size_t i = 0; i < search.entrants.size(); ++i)
      if (search.entrants[i].out) tournament.exclude(i);
    if (search.correct == 0) return nothing_usable();
    if (search.entrants[reference].out) reference = tournament.best(1).front();
    const auto served = std::ranges::find(search.entrants, search.incumbent, &Entrant::variant);
    const std::size_t incumbent = served == search.entrants.end() or served->out
                                      ? reference
                                      : static_cast<std::size_t>(served - search.entrants.begin());
    result = tournament.decide(search.entrants, reference, incumbent);
    if (not result and not search.lost_one) return failure(result.error());
  } while (std::exchange(search.lost_one, false));

  const Attempt& winner = *search.entered[result->winner];
  Evidence evidence{.what = search.what,
                    .variant = winner.candidate.name,
                    .content = winner.content,
                    .policy = search.winner.policy,
                    .compiler = evaluator_.compiler(),
                    .device = evaluator_.device(),
                    .rates = evaluator_.rates(),
                    .timing = result->timing,
                    .defaults = {},
                    .rows = result->rows,
                    .tiles = result->tiles,
                    .challenges = result->challenges,
                    .screened = {},
                    .verdict = winner.verdict,
                    .text_bytes = winner.built.code.text_bytes,
                    .stack_bytes = winner.built.code.stack_bytes,
                    .legal = search.space.candidates.size(),
                    .tried = search.attempts.size(),
                    .compiled = search.compiled,
                    .correct = search.correct,
                    .drops = progress_.drops()};
  evidence.drops[Drop::slower] = result->slower;
  for (const auto& [index, timing] : result->defaults)
    evidence.defaults.emplace_back(search.entrants[index].variant, timing);
  // What the rest would have lost here tells what they lose where they stand in for a plan that was never tuned.
  constexpr std::size_t most_screened = 64;
  if (const auto own = tournament.screened(result->winner))
    for (const std::size_t i : tournament.best(most_screened))
      if (i != result->winner)
        evidence.screened.emplace_back(search.entrants[i].variant, *tournament.screened(i) / *own);

  WinnerRecord record{winner.candidate.name, winner.content, to_json(evidence)};
  if (auto kept = journal_.put_winner(search.key, record); not kept) return std::unexpected(kept.error());
  auto outcome = publish(search, winner.candidate, winner.built.code, std::move(record.evidence));
  if (outcome and outcome->state == tuned)
    outcome->sentence = fmt::format("{}, {}", winner.candidate.name, milliseconds(result->timing));
  return outcome;
}

Result<Table> Tuner::record(const Case& what, std::span<const std::string> rules) {
  constexpr MeasurePolicy thorough{.min_sample_seconds = 3e-4,
                                   .warmup = 1,
                                   .min_samples = 7,
                                   .max_samples = 25,
                                   .budget_seconds = 0.03,
                                   .hopeless = 8};
  auto space = make_space(what, used_device(), options_.families);
  if (not space) return std::unexpected(space.error());
  if (auto kept = keep_only(*space, rules); not kept) return std::unexpected(kept.error());
  if (auto fits = evaluator_.check_memory(what); not fits) return std::unexpected(fits.error());
  Search search;
  search.what = what;
  search.space = std::move(*space);
  search.winner = winner_key(what, evaluator_.device(), options_.effort, evaluator_.workers());
  search.key = {search.winner.device,  search.winner.problem,
                to_string(what.shape), fmt::format("v1 record threads={}", evaluator_.workers()),
                search.winner.space,   search.winner.schema};
  if (options_.force)
    if (auto forgotten = journal_.forget(search.key); not forgotten) return std::unexpected(forgotten.error());
  search.attempts.reserve(search.space.candidates.size());
  search.add_if([](const auto&) { return true; });
  if (auto done = enter(search, 0); not done) return std::unexpected(done.error());

  const auto preset = std::ranges::find_if(search.entrants, &Entrant::is_default);
  if (preset == search.entrants.end())
    return fail(Status::failed, fmt::format("`{}`: no default variant is usable as the reference", to_string(what)));
  const auto lock = lock_device(search, DeviceLock::For::timing);
  if (not lock) return std::unexpected(lock.error());
  Tournament tournament(timing_of(search), journal_, search.key, events(), Tournament::most_semifinalists, thorough);
  if (auto done = tournament.screen(search.entrants, static_cast<std::size_t>(preset - search.entrants.begin()));
      not done)
    return std::unexpected(done.error());
  auto table = make_table(search.space, what, used_device(), journal_, search.key);
  if (table) {
    table->compiler = evaluator_.compiler();
    for (const auto& rule : rules) table->part += (table->part.empty() ? "" : " ") + rule;
  }
  return table;
}

Result<DeviceLock> Tuner::lock_device(const Search& search, DeviceLock::For purpose) {
  const Patience patience{options_.patience_seconds,
                          [&](const std::string& holder) { progress_.note("waiting for " + holder); }};
  return DeviceLock::acquire(purpose, options_.locks, search.key.device, patience);
}

Result<TuneOutcome> Tuner::publish(Search& search, const RankedVariant& winner, CodeObject code, std::string evidence) {
  progress_.begin_phase("publish", 0);
  PackEntry entry{
      search.winner, winner.variant.family->plan(search.space.instance, winner.variant.config), {}, evidence};
  entry.plan.variant = winner.name;
  entry.plan.target = search.space.instance.target;
  entry.code.push_back(std::move(code));
  if (auto added = add_to_pack(options_.pack, std::span(&entry, 1)); not added) return std::unexpected(added.error());
  published_.push_back(search.winner);
  return TuneOutcome{TuneOutcome::State::tuned, search.what, winner.name, std::move(evidence)};
}

}  // namespace glaive
