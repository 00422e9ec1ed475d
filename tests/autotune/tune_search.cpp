#include <sys/file.h>

#include <nlohmann/json.hpp>

#include "autotune/bench.hpp"
#include "autotune/story.hpp"
#include "autotune/strategy/default.hpp"
#include "autotune/tournament.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;
using nlohmann::json;

namespace {

using State = TuneOutcome::State;

constexpr const char* fastest = "toy(size=4,mode=2)";
constexpr const char* preset = "toy(size=2,mode=1)";

/// Everything takes 1 ms but one variant.
std::function<double(const std::string&)> only(std::string variant, double seconds) {
  return [=](const std::string& name) { return name == variant ? seconds : 1e-3; };
}

std::size_t interval_violations(const json& evidence) {
  std::size_t count = 0;
  for (const auto& entry : evidence.at("defaults"))
    if (entry.at("interval_ms").at(1) < evidence.at("interval_ms").at(0)) ++count;
  return count;
}

}  // namespace

TEST_CASE("space: legal variants, the fastest by prior first, with the default marked", "[tune]") {
  const ToyFamily toy;
  const Family* families[] = {&toy};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  CHECK(space.candidates.size() == 11);
  CHECK(space.candidates.front().name == "toy(size=8,mode=0)");
  CHECK(std::ranges::is_sorted(space.candidates, {}, &RankedVariant::prior));
  CHECK(std::ranges::count(space.candidates, true, &RankedVariant::is_default) == 1);
  CHECK(default_candidate(space).name == preset);
}

TEST_CASE("space: a problem that no family covers says what each family said", "[tune]") {
  const ToyFamily one("one"), two("two");
  const Family* families[] = {&one, &two};
  const auto space = make_space(parse_case("step H1 K8 V8 @ B1 T1").value(), host_cpu_device(), families);
  REQUIRE_FALSE(space);
  CHECK(space.error().status == Status::unsupported);
  CHECK_THAT(space.error().message, Catch::Contains("one: forward only") and Catch::Contains("two: forward only"));
}

TEST_CASE("space: a small budget takes the best by prior, and always of every family default and best", "[tune]") {
  const ToyFamily toy, slow("slow", 100);
  const Family* families[] = {&toy, &slow};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  for (const std::size_t budget : {2u, 5u, 10u, 16u}) {
    const auto chosen = choose(space, budget);
    CHECK(chosen.size() == std::max<std::size_t>(budget, 4));
    for (const char* best : {"toy(size=8,mode=0)", "slow(size=8,mode=0)"})
      CHECK(std::ranges::count(chosen, best, [&](std::size_t i) { return space.candidates[i].name; }) == 1);
    CHECK(std::ranges::count_if(chosen, [&](std::size_t i) { return space.candidates[i].is_default; }) == 2);
  }
  CHECK(space.candidates[choose(space, 16).front()].name == "toy(size=8,mode=0)");
  const auto of_slow = [&](std::size_t i) { return space.candidates[i].variant.family->name() == "slow"; };
  CHECK(std::ranges::count_if(choose(space, 8), of_slow) == 2);
  CHECK(std::ranges::count_if(choose(space, 16), of_slow) == 5);  // 11 of toy leave five places
  CHECK(choose(space, 1000).size() == 22);
}

TEST_CASE("strategy: a generation keeps all lanes busy, and what is left is worth one", "[tune]") {
  const HillFamily hill;
  const Family* families[] = {&hill};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  const auto generations = [&](std::size_t budget, std::size_t lanes) {
    const auto strategy = make_default_strategy({.budget = budget, .lanes = lanes});
    std::vector<std::size_t> sizes;
    std::vector<Evaluation> done;
    while (done.size() < budget) {
      const auto next = strategy->propose(space, done);
      for (const std::size_t i : next) done.push_back({i, space.candidates[i].prior});
      sizes.push_back(next.size());
    }
    return sizes;
  };
  CHECK(generations(24, 1) == std::vector<std::size_t>{6, 4, 4, 4, 4, 4});
  CHECK(generations(24, 8) == std::vector<std::size_t>{8, 8, 8});
  CHECK(generations(24, 16) == std::vector<std::size_t>{24});
  CHECK(generations(48, 16) == std::vector<std::size_t>{16, 16, 16});
}

TEST_CASE("space: what the prior cannot tell apart is not tried before what it can", "[tune]") {
  const HillFamily hill;
  const Family* families[] = {&hill};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  const auto chosen = choose(space, 8);
  std::set<int> x;
  for (const std::size_t i : chosen) {
    x.insert(space.candidates[i].variant.config[0]);
    CHECK(space.candidates[i].variant.config[1] == 3);  // as the default has it
  }
  CHECK(x.size() == 8);
  const auto more = choose(space, 15);
  const auto best_by_prior = [&](std::size_t i) { return space.candidates[i].variant.config[0] == 4; };
  CHECK(std::ranges::count_if(more, best_by_prior) == 8);
}

TEST_CASE("space: neighbours are one step away, not seen before, around the best first", "[tune]") {
  const HillFamily hill;
  const Family* families[] = {&hill};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  const auto at = [&](const char* name) {
    return static_cast<std::size_t>(std::ranges::find(space.candidates, name, &RankedVariant::name) -
                                    space.candidates.begin());
  };
  const std::size_t best[] = {at("hill(x=0,y=4)"), at("hill(x=7,y=7)")};
  std::vector<bool> seen(space.candidates.size(), false);
  seen[at("hill(x=0,y=3)")] = seen[at("hill(x=0,y=4)")] = true;
  const auto names = [&](std::size_t count) {
    std::set<std::string> out;
    for (const std::size_t i : neighbours(space, best, seen, count)) out.insert(space.candidates[i].name);
    return out;
  };
  CHECK(names(2) == std::set<std::string>{"hill(x=0,y=5)", "hill(x=1,y=4)"});
  CHECK(names(100) == std::set<std::string>{"hill(x=0,y=5)", "hill(x=1,y=4)", "hill(x=6,y=7)", "hill(x=7,y=6)"});
}

TEST_CASE("space: priors are corrected by what parameters turned out to do", "[tune]") {
  const HillFamily hill;
  const Family* families[] = {&hill};
  const auto space = make_space(parse_case("forward H1 K8 V8 @ B1 T8").value(), host_cpu_device(), families).value();
  // The root of what the prior says, in other units, and y=2 ten times as fast: told of a fifth of the space.
  const auto truth = [&](std::size_t i) {
    const auto& candidate = space.candidates[i];
    return 7 * std::sqrt(candidate.prior) * (candidate.variant.config[1] == 2 ? 0.1 : 1);
  };
  std::vector<Evaluation> done;
  for (std::size_t i = 0; i < space.candidates.size(); ++i)
    if (i % 5 == 0) done.push_back({i, truth(i)});
  done.push_back({1});  // out
  const auto priors = corrected_priors(space, done);
  REQUIRE(priors.size() == space.candidates.size());
  std::vector<double> off;
  for (std::size_t i = 0; i < priors.size(); ++i) off.push_back(std::abs(std::log(priors[i] / truth(i))));
  std::ranges::sort(off);
  CHECK(off[off.size() / 2] < 0.35);
  const auto best = static_cast<std::size_t>(std::ranges::min_element(priors) - priors.begin());
  CHECK(space.candidates[best].name == "hill(x=4,y=2)");

  const auto unchanged = corrected_priors(space, std::span(done).last(1));
  for (std::size_t i = 0; i < unchanged.size(); ++i) CHECK(unchanged[i] == Approx(space.candidates[i].prior));
}

TEST_CASE("tune: the search walks from the best by prior to the fastest", "[tune]") {
  const Folder folder;
  ToyRun run(folder, Effort::quick);
  const HillFamily hill;
  const Family* families[] = {&hill};
  run.options.families = families;
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) {
    const int x = name[name.find("x=") + 2] - '0', y = name[name.find("y=") + 2] - '0';
    return 1e-3 * (1 + 0.1 * std::abs(x - 6) + 0.1 * std::abs(y - 5));
  };
  const auto evidence = json::parse(run.tune(evaluator).value().evidence);
  CHECK(evidence.at("variant") == "hill(x=6,y=5)");
  CHECK(evidence.at("counts").at("tried") == variant_budget(Effort::quick, toy_instance));
  CHECK(evaluator.compiled == static_cast<int>(variant_budget(Effort::quick, toy_instance)));
}

TEST_CASE("effort: names, budgets, and a word that is none", "[tune]") {
  CHECK(parse_effort("quick").value() == Effort::quick);
  CHECK(variant_budget(Effort::quick, toy_instance) < variant_budget(Effort::normal, toy_instance));
  CHECK(variant_budget(Effort::normal, toy_instance) < variant_budget(Effort::full, toy_instance));
  const Instance on_gpu{toy_instance.problem, parse_target("cuda:sm_90a").value()};
  CHECK(variant_budget(Effort::quick, on_gpu) < variant_budget(Effort::quick, toy_instance));
  const Instance large{parse_problem("forward H4 K256 V512 bf16").value(), on_gpu.target};
  CHECK(variant_budget(Effort::quick, large) < variant_budget(Effort::quick, on_gpu));
  CHECK(variant_budget(Effort::normal, on_gpu) == variant_budget(Effort::normal, toy_instance));
  const auto wrong = parse_effort("fast");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().status == Status::invalid_argument);
  CHECK_THAT(wrong.error().message, Catch::Contains("fast") and Catch::Contains("quick, normal or full"));
}

TEST_CASE("tune: the fastest variant wins and is published with its evidence", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  const auto outcome = run.tune(evaluator).value();
  REQUIRE(outcome.state == State::tuned);

  const auto pack = Pack::open(run.options.pack).value();
  REQUIRE(pack.size() == 1);
  const auto entry = pack.load(0).value();
  CHECK(entry.plan.variant == fastest);
  CHECK(entry.key == winner_key(outcome.what, evaluator.device(), Effort::full, 2));
  const auto evidence = json::parse(entry.evidence);
  CHECK(evidence.at("variant") == fastest);
  CHECK(evidence.at("median_ms").get<double>() == Approx(0.5).epsilon(0.002));
  CHECK(evidence.at("defaults").at(0).at("variant") == preset);
  CHECK(evidence.at("defaults").at(0).at("median_ms").get<double>() == Approx(1).epsilon(0.002));
  CHECK(evidence.at("baselines").at("rows").at("median_ms").get<double>() == Approx(9).epsilon(0.002));
  CHECK(evidence.at("baselines").at("tiles").at("median_ms").get<double>() == Approx(5).epsilon(0.002));
  CHECK(evidence.at("errors").at("o") == 1e-7);
  CHECK(evidence.at("counts").at("legal") == 11);
  CHECK(evidence.at("counts").at("tried") == 11);
  CHECK(evidence.at("counts").at("correct") == 11);
  CHECK(evidence.at("counts").at("drops").at("slower") == 10);
  CHECK(evidence.at("machine").at("device") == evaluator.device().name);
  CHECK(evidence.at("machine").at("fma_gflops").get<double>() == Approx(100));
  CHECK(evidence.at("compiler") == "toy compiler");
  CHECK(interval_violations(evidence) == 0);
}

TEST_CASE("tune: a tie keeps the default", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.spread = 0.05;
  evaluator.seconds = only(fastest, 0.99e-3);
  const auto outcome = run.tune(evaluator).value();
  CHECK(json::parse(outcome.evidence).at("variant") == preset);
}

TEST_CASE("tune: tuning again, a tie keeps the winner that is served", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  REQUIRE(ToyRun(folder).tune(evaluator));
  // Now all are alike; another variant is ahead by less than the noise.
  evaluator.spread = 0.05;
  evaluator.seconds = only("toy(size=8,mode=0)", 0.995e-3);
  const auto again = ToyRun(folder, Effort::full, true).tune(evaluator).value();
  REQUIRE(again.state == State::tuned);
  CHECK(json::parse(again.evidence).at("variant") == fastest);
}

TEST_CASE("tune: the served winner gives way to one that is clearly faster", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  REQUIRE(ToyRun(folder).tune(evaluator));
  evaluator.seconds = only("toy(size=8,mode=0)", 0.4e-3);
  const auto again = ToyRun(folder, Effort::full, true).tune(evaluator).value();
  CHECK(json::parse(again.evidence).at("variant") == "toy(size=8,mode=0)");
  CHECK(Pack::open(folder / "winners.pack").value().size() == 1);
}

TEST_CASE("tune: what can win is compiled in full, the rest lightly", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  const auto evidence = json::parse(run.tune(evaluator).value().evidence);
  CHECK(evaluator.compiled == 11);
  CHECK(evaluator.optimised == 8);
  CHECK_THAT(evidence.at("content").get<std::string>(),
             Catch::EndsWith(fmt::format(" {}", static_cast<int>(Optimise::full))));
}

TEST_CASE("tune: a winner never loses to a default in the same run", "[tune]") {
  // The incumbent of an earlier run has become slow, and nothing but the default is fast.
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  REQUIRE(ToyRun(folder).tune(evaluator));
  evaluator.seconds = [](const std::string& name) { return name == preset ? 0.9e-3 : name == fastest ? 2e-3 : 1.5e-3; };
  const auto again = ToyRun(folder, Effort::full, true).tune(evaluator).value();
  const auto evidence = json::parse(again.evidence);
  CHECK(evidence.at("variant") == preset);
  CHECK(interval_violations(evidence) == 0);
}

TEST_CASE("tune: whatever the times are, the default never beats the winner", "[tune]") {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const Folder folder;
    ToyRun run(folder);
    ToyEvaluator evaluator;
    evaluator.spread = 0.002 * (seed % 7);
    evaluator.seconds = [&](const std::string& name) {
      return 1e-3 * (1 + static_cast<double>(std::hash<std::string>{}(name + std::to_string(seed)) % 1000) / 3000);
    };
    const auto evidence = json::parse(run.tune(evaluator).value().evidence);
    CHECK(interval_violations(evidence) == 0);
    CHECK(evidence.at("median_ms") <= evidence.at("defaults").at(0).at("median_ms"));
  }
}

TEST_CASE("tune: a machine that slows down does not change the ranking", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.drift = 0.2;                                   // the last group runs 40 % slower than the first
  evaluator.seconds = only("toy(size=1,mode=2)", 0.9e-3);  // the last of all by prior
  CHECK(json::parse(run.tune(evaluator).value().evidence).at("variant") == "toy(size=1,mode=2)");
}

TEST_CASE("tune: each variant that is out carries a reason", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.compile_result = [](const std::string& name) {
    if (name.contains("size=8,mode=0")) return Drop::compile_error;
    return name.contains("size=8,mode=1") ? Drop::resources : Drop::none;
  };
  evaluator.verdict = [](const std::string& name) {
    if (name.contains("size=4,mode=0")) return Drop::wrong_result;
    return name.contains("size=4,mode=1") ? Drop::nan_output : Drop::none;
  };
  evaluator.seconds = only(fastest, 0.5e-3);
  const auto counts = json::parse(run.tune(evaluator).value().evidence).at("counts");
  CHECK(counts.at("tried") == 11);
  CHECK(counts.at("compiled") == 9);
  CHECK(counts.at("correct") == 7);
  CHECK(counts.at("drops") ==
        json{{"compile_error", 1}, {"resources", 1}, {"wrong_result", 1}, {"nan_output", 1}, {"slower", 6}});
  CHECK(evaluator.verified == 9);
  CHECK(evaluator.timed.size() == 7);
  CHECK(evaluator.scrutinised == 7);
  CHECK(query(run.file, "SELECT reason, count(*) FROM verdict WHERE result<>0 GROUP BY reason") ==
        std::vector<std::string>{"nan_output|1", "wrong_result|1"});
  CHECK(query(run.file, "SELECT message FROM code WHERE result<>0 ORDER BY message").size() == 2);
}

TEST_CASE("tune: a fast wrong variant does not win", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.01e-3);
  evaluator.verdict = [](const std::string& name) { return name == fastest ? Drop::wrong_result : Drop::none; };
  CHECK(json::parse(run.tune(evaluator).value().evidence).at("variant") == preset);
  CHECK_FALSE(evaluator.timed.contains(fastest));
}

TEST_CASE("tune: a variant that only full scrutiny finds wrong does not win, and the next ones move up", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  const std::string second = "toy(size=1,mode=0)";
  evaluator.seconds = [&](const std::string& name) {
    return name == fastest ? 0.1e-3 : name == second ? 0.2e-3 : 1e-3;
  };
  evaluator.full_verdict = [](const std::string& name) {
    return name == fastest ? Drop::nondeterministic : Drop::none;
  };
  const auto evidence = json::parse(run.tune(evaluator).value().evidence);
  CHECK(evidence.at("variant") == second);
  CHECK(evidence.at("counts").at("correct") == 10);
  CHECK(evidence.at("counts").at("drops") == json{{"nondeterministic", 1}, {"slower", 9}});
  CHECK(evaluator.verified == 11);
  CHECK(evaluator.scrutinised == 9);  // eight that can win, and the one that fell

  auto journal = Journal::open_to_read(run.file).value();
  const auto story = read_stories(journal).value().front();
  CHECK(story.drops() == std::vector<std::pair<Drop, std::size_t>>{{Drop::nondeterministic, 1}});
  CHECK(story.fastest()->variant == second);
  const auto fell = std::ranges::find(story.entries, fastest, &Story::Entry::variant);
  CHECK(fell->message == "told to fail");
}

TEST_CASE("tune: a default that full scrutiny finds wrong is not what others are compared with", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  evaluator.full_verdict = [](const std::string& name) { return name == preset ? Drop::wrong_result : Drop::none; };
  const auto outcome = run.tune(evaluator).value();
  REQUIRE(outcome.state == State::tuned);
  const auto evidence = json::parse(outcome.evidence);
  CHECK(evidence.at("variant") == fastest);
  for (const auto& entry : evidence.at("defaults")) CHECK(entry.at("variant") != preset);

  const Folder another;
  evaluator.full_verdict = [](const std::string&) { return Drop::wrong_result; };
  CHECK(ToyRun(another).tune(evaluator).value().state == State::failed);
}

TEST_CASE("tune: with a broken default the rest still race", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.verdict = [](const std::string& name) { return name == preset ? Drop::wrong_result : Drop::none; };
  evaluator.seconds = only(fastest, 0.5e-3);
  const auto outcome = run.tune(evaluator).value();
  REQUIRE(outcome.state == State::tuned);
  CHECK(json::parse(outcome.evidence).at("variant") == fastest);
}

TEST_CASE("tune: when nothing is usable the case fails with the reasons, and nothing is published", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.verdict = [](const std::string&) { return Drop::out_of_bounds; };
  const auto outcome = run.tune(evaluator).value();
  CHECK(outcome.state == State::failed);
  CHECK_THAT(outcome.sentence, Catch::Contains("out_of_bounds 11"));
  CHECK_FALSE(std::filesystem::exists(run.options.pack));
}

TEST_CASE("tune: an unsupported problem is an outcome, not an error", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  const auto outcome = run.tune(evaluator, "step H1 K8 V8 @ B1 T1").value();
  CHECK(outcome.state == State::unsupported);
  CHECK(evaluator.compiled == 0);
}

TEST_CASE("tune: what is tuned is not touched, unless forced", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  REQUIRE(ToyRun(folder).tune(evaluator));
  const int compiled = evaluator.compiled, verified = evaluator.verified, raced = evaluator.raced;
  const auto again = ToyRun(folder).tune(evaluator).value();
  CHECK(again.state == State::already);
  CHECK_THAT(again.sentence, Catch::Contains(fastest));
  CHECK(evaluator.raced == raced);
  REQUIRE(ToyRun(folder, Effort::full, true).tune(evaluator));
  CHECK(evaluator.raced > raced);
  CHECK(evaluator.compiled == compiled);  // code and verdicts are facts
  CHECK(evaluator.verified == verified);
}

TEST_CASE("tune: a winner of a higher effort stands for a lower one, not the other way round", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  REQUIRE(ToyRun(folder, Effort::normal).tune(evaluator));
  CHECK(ToyRun(folder, Effort::quick).tune(evaluator).value().state == State::already);
  CHECK(ToyRun(folder, Effort::full).tune(evaluator).value().state == State::tuned);
}

TEST_CASE("tune: shapes of one bucket share a winner within a run, also when forced", "[tune]") {
  const Folder folder;
  ToyRun run(folder, Effort::full, true);
  ToyEvaluator evaluator;
  auto journal = Journal::open(run.file, "test").value();
  Tuner tuner(evaluator, journal, run.progress, run.options);
  const auto line = [](const char* text) { return parse_case(text).value(); };
  CHECK(tuner.tune(line("forward H4 K64 V64 @ B1 T512")).value().state == State::tuned);
  CHECK(tuner.tune(line("forward H4 K64 V64 @ B1 T600")).value().state == State::already);
  CHECK(tuner.tune(line("forward H4 K64 V64 @ B1 T4096")).value().state == State::tuned);
}

TEST_CASE("tune: a lost pack is written again from the journal, without a race", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  REQUIRE(ToyRun(folder).tune(evaluator));
  std::filesystem::remove(folder / "winners.pack");
  const int compiled = evaluator.compiled, raced = evaluator.raced;
  CHECK(ToyRun(folder).tune(evaluator).value().state == State::tuned);
  CHECK(evaluator.compiled == compiled);
  CHECK(evaluator.raced == raced);
  CHECK(Pack::open(folder / "winners.pack").value().load(0).value().plan.variant == fastest);
}

TEST_CASE("tune: code that has changed is compiled, verified and timed anew", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  REQUIRE(ToyRun(folder).tune(evaluator));
  std::filesystem::remove(folder / "winners.pack");
  const int compiled = evaluator.compiled, verified = evaluator.verified, raced = evaluator.raced;
  evaluator.generation = "2";
  REQUIRE(ToyRun(folder).tune(evaluator));
  CHECK(evaluator.compiled == 2 * compiled);
  CHECK(evaluator.verified == 2 * verified);
  CHECK(evaluator.raced > raced + 3);  // two groups of the screen, the semifinal, the last
}

TEST_CASE("tune: a run that stops in the race resumes there", "[tune]") {
  const Folder folder;
  struct Stopping : ToyEvaluator {
    int races_left = 0;
    Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                        const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
      if (races_left-- == 0) return fail(Status::io_error, "stopped");
      return ToyEvaluator::race(what, contenders, policy, keep);
    }
  } evaluator;
  evaluator.seconds = only(fastest, 0.5e-3);
  // Two groups of the screen, the semifinal, then the final: stop before each in turn.
  evaluator.races_left = 1;
  CHECK_FALSE(ToyRun(folder).tune(evaluator));
  const auto after_one = query(folder / "journal.sqlite", "SELECT variant, round, run FROM trial ORDER BY 1, 2");
  CHECK(after_one.size() == 7);
  evaluator.races_left = 2;
  CHECK_FALSE(ToyRun(folder).tune(evaluator));
  evaluator.races_left = 100;
  REQUIRE(ToyRun(folder).tune(evaluator));
  CHECK(evaluator.compiled == 11);
  CHECK(evaluator.verified == 11);
  const auto rows = query(folder / "journal.sqlite", "SELECT variant, round, run FROM trial ORDER BY 1, 2");
  for (const auto& row : after_one) CHECK(std::ranges::find(rows, row) != rows.end());
  CHECK(query(folder / "journal.sqlite", "SELECT run, count(*) FROM trial WHERE round=1 GROUP BY run") ==
        std::vector<std::string>{"1|7", "2|3"});
  CHECK(query(folder / "journal.sqlite", "SELECT DISTINCT run FROM trial WHERE round=2") ==
        std::vector<std::string>{"2"});
}

TEST_CASE("tune: a pack that others can write to stops the run with the reason", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  REQUIRE(ToyRun(folder).tune(evaluator));
  std::filesystem::permissions(folder / "winners.pack", std::filesystem::perms(0666));
  const auto outcome = ToyRun(folder).tune(evaluator);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().status == Status::untrusted);
}

TEST_CASE("tune: a case that does not fit in memory fails by itself", "[tune]") {
  const Folder folder;
  struct Small : ToyEvaluator {
    Evaluated<std::vector<Timing>> race(const Case&, std::span<const Contender>, const MeasurePolicy&,
                                        std::span<const std::size_t>) override {
      return fail(Status::out_of_memory, "needs 3 TB");
    }
  } evaluator;
  const auto outcome = ToyRun(folder).tune(evaluator).value();
  CHECK(outcome.state == State::failed);
  CHECK(outcome.sentence == "needs 3 TB");
}

TEST_CASE("tune: a failure that does not lie in the code ends the run and is not remembered", "[tune]") {
  struct Short : ToyEvaluator {
    bool compiler_short = false, loader_short = false;
    Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                  int lane) override {
      if (compiler_short) return fail(Status::io_error, "link: no memory file or pipe: Too many open files");
      return ToyEvaluator::compile(instance, variant, optimise, lane);
    }
    Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
      if (loader_short) return fail(Status::io_error, "cannot make a file in memory: Too many open files");
      return ToyEvaluator::verify(what, built, scrutiny, gates);
    }
  } evaluator;
  const Folder folder;
  for (const char* table : {"code", "verdict"}) {
    evaluator.compiler_short = table == std::string("code");
    evaluator.loader_short = not evaluator.compiler_short;
    const auto stopped = ToyRun(folder).tune(evaluator);
    REQUIRE_FALSE(stopped);
    CHECK_THAT(stopped.error().message, Catch::Contains("Too many open files"));
    CHECK(query(folder / "journal.sqlite", fmt::format("SELECT count(*) FROM {}", table)) ==
          std::vector<std::string>{"0"});
  }
  evaluator.loader_short = false;
  CHECK(ToyRun(folder).tune(evaluator).value().state == State::tuned);
}

TEST_CASE("tune: no memory to compile fails the case with that reason and is not remembered", "[tune]") {
  struct Short : ToyEvaluator {
    Evaluated<CodeObject> compile(const Instance&, const Variant&, Optimise, int) override { throw std::bad_alloc(); }
  } evaluator;
  const Folder folder;
  const auto outcome = ToyRun(folder).tune(evaluator).value();
  CHECK(outcome.state == State::failed);
  CHECK_THAT(outcome.sentence, Catch::Contains("no memory to compile toy("));
  CHECK(query(folder / "journal.sqlite", "SELECT * FROM code").empty());
}

TEST_CASE("tune: when nothing is usable the first message is told, also by a later run", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  evaluator.compile_result = [](const std::string&) { return Drop::compile_error; };
  for (int i = 0; i < 2; ++i)
    CHECK_THAT(ToyRun(folder).tune(evaluator).value().sentence,
               Catch::Contains("(compile_error 11); toy(") and Catch::EndsWith(": lower: told to fail"));
}

TEST_CASE("tune: memory is asked for before anything is compiled", "[tune]") {
  struct Small : ToyEvaluator {
    Result<void> check_memory(const Case&) override { return fail(Status::out_of_memory, "needs 3 TB"); }
  } evaluator;
  const Folder folder;
  const auto outcome = ToyRun(folder).tune(evaluator).value();
  CHECK(outcome.state == State::failed);
  CHECK(outcome.sentence == "needs 3 TB");
  CHECK(evaluator.compiled == 0);
}

TEST_CASE("tune: the evidence says whether the winner was compared at full size", "[tune]") {
  const Folder folder, another;
  ToyEvaluator evaluator;
  CHECK(json::parse(ToyRun(folder).tune(evaluator).value().evidence).at("full_size") == "compared");
  evaluator.not_compared = "not compared: the plain loops take no logits";
  CHECK(json::parse(ToyRun(another).tune(evaluator).value().evidence).at("full_size") == evaluator.not_compared);
}

TEST_CASE("tune: a forced run that was stopped times anew, and keeps code and verdicts", "[tune]") {
  const Folder folder;
  struct Stopping : ToyEvaluator {
    int races_left = 100;
    Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                        const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
      if (races_left-- == 0) return fail(Status::io_error, "stopped");
      return ToyEvaluator::race(what, contenders, policy, keep);
    }
  } evaluator;
  REQUIRE(ToyRun(folder).tune(evaluator));
  const int compiled = evaluator.compiled, verified = evaluator.verified;
  evaluator.races_left = 1;
  CHECK_FALSE(ToyRun(folder, Effort::full, true).tune(evaluator));
  CHECK(query(folder / "journal.sqlite", "SELECT run FROM winner") == std::vector<std::string>{"1"});
  evaluator.races_left = 100;
  REQUIRE(ToyRun(folder, Effort::full, true).tune(evaluator));
  CHECK(query(folder / "journal.sqlite", "SELECT DISTINCT run FROM trial") == std::vector<std::string>{"3"});
  CHECK(query(folder / "journal.sqlite", "SELECT run FROM winner") == std::vector<std::string>{"3"});
  CHECK(evaluator.compiled == compiled);
  CHECK(evaluator.verified == verified);
}

TEST_CASE("tune: the device is shared while compiling and verifying, and taken alone while timing", "[tune]") {
  struct Watching : ToyEvaluator {
    std::filesystem::path folder;
    std::atomic<int> wrong = 0;
    /// Whether another process could take the device's lock this way.
    bool free_for(int kind) const {
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".lock" and entry.path().filename().string().starts_with("glaive-device-")) {
          const int file = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
          const bool taken = flock(file, kind | LOCK_NB) == 0;
          close(file);
          return taken;
        }
      return true;
    }
    void working() { wrong += free_for(LOCK_SH) and not free_for(LOCK_EX) ? 0 : 1; }
    Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise,
                                  int lane) override {
      static std::mutex one_look;  // two at a time would see each other
      const std::lock_guard lock(one_look);
      working();
      return ToyEvaluator::compile(instance, variant, optimise, lane);
    }
    Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
      working();
      return ToyEvaluator::verify(what, built, scrutiny, gates);
    }
    Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                        const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
      wrong += free_for(LOCK_SH) ? 1 : 0;
      return ToyEvaluator::race(what, contenders, policy, keep);
    }
  } evaluator;
  const Folder folder;
  evaluator.folder = folder.path();
  REQUIRE(ToyRun(folder).tune(evaluator));
  CHECK(evaluator.wrong == 0);
}

TEST_CASE("tune: a pack that cannot be looked at is not taken for none", "[tune]") {
  const Folder folder;
  CHECK_FALSE(open_pack_if_any(folder / "none.pack").value());
  write_text(folder / "file", "");
  const auto inside = open_pack_if_any(folder / "file/p.pack");
  REQUIRE_FALSE(inside);
  CHECK(inside.error().status == Status::io_error);
}

TEST_CASE("bench: a damaged entry is passed over as the runtime does, and named", "[tune]") {
  const Folder folder;
  ToyEvaluator evaluator;
  ToyRun run(folder);
  REQUIRE(run.tune(evaluator, "forward H4 K64 V64 f32 @ B1 T4096"));
  REQUIRE(run.tune(evaluator, "forward H4 K64 V64 f32 @ B1 T512"));  // the last in the file
  const auto what = parse_case("forward H4 K64 V64 f32 @ B1 T512").value();
  const BenchOptions options{.threads = 2, .pack = run.options.pack, .variants = {}};
  CHECK(bench(evaluator, what, options).value().at(0).source == "pack, exact");
  CHECK(bench(evaluator, what, options).value().at(0).skipped.empty());
  auto bytes = read_text(run.options.pack);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_text(run.options.pack, bytes);
  const auto record = bench(evaluator, what, options).value().at(0);
  CHECK(record.source == "pack, nearest");
  CHECK_THAT(record.skipped, Catch::StartsWith("skipped ") and Catch::Contains("entry 1: its checksum does not match"));
}
