#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "autotune/quantile.hpp"
#include "autotune/replay.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

/// A table over hill(x, y), 16 x 16, with a single optimum at (11, 6) and a prior that sees x alone. `out` variants
/// drop.
Table hill_table(std::size_t out = 0) {
  Table table;
  table.what = parse_case("forward H1 K8 V8 @ B1 T8").value();
  table.device = host_cpu_device();
  table.families = {{"hill", {"x", "y"}}};
  for (int x = 0; x < 16; ++x)
    for (int y = 0; y < 16; ++y) {
      Table::Row row;
      row.config = {x, y};
      row.is_default = x == 4 and y == 4;
      row.prior = 1e-3 * (1 + 0.1 * std::abs(x - 10.4));
      row.median = 1e-3 * (1 + 0.05 * std::abs(x - 11) + 0.05 * std::abs(y - 6));
      row.low = 0.999 * row.median;
      row.high = 1.001 * row.median;
      if (table.rows.size() < out) row = {.config = {x, y}, .drop = Drop::wrong_result, .prior = row.prior};
      table.rows.push_back(row);
    }
  return table;
}

ReplayOptions all_strategies(std::uint64_t seeds = 100) {
  ReplayOptions options;
  for (const auto& strategy : strategies()) options.strategies.push_back(&strategy);
  options.seeds = seeds;
  return options;
}

const StrategyScore& score_of(const ReplayResult& result, std::string_view name) {
  return *std::ranges::find(result.scores, name, &StrategyScore::strategy);
}

double mean(const std::vector<std::size_t>& values) {
  return static_cast<double>(std::reduce(values.begin(), values.end())) / static_cast<double>(values.size());
}

std::vector<std::filesystem::path> recorded_tables() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(GLAIVE_TABLES)) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

/// Everything that a strategy proposes over a space where candidate i takes 1 + i % 7.
std::vector<std::size_t> walk(const StrategyInfo& info, const Space& space, std::uint64_t seed) {
  const auto strategy = info.make({.seed = seed, .budget = 24});
  std::vector<Evaluation> done;
  std::vector<std::size_t> order;
  for (;;) {
    const auto generation = strategy->propose(space, done);
    if (generation.empty()) return order;
    for (const std::size_t i : generation) {
      order.push_back(i);
      done.push_back({i, i % 5 == 0 ? INFINITY : 1.0 + static_cast<double>(i % 7)});
    }
    if (order.size() > 10 * space.candidates.size()) return order;
  }
}

class Stuck final : public Strategy {
 public:
  std::vector<std::size_t> propose(const Space&, std::span<const Evaluation>) override { return {3}; }
};
class Lazy final : public Strategy {
 public:
  std::vector<std::size_t> propose(const Space&, std::span<const Evaluation>) override { return {}; }
};

}  // namespace

TEST_CASE("strategy: every candidate once, then nothing; the same walk for the same seed", "[tune]") {
  const auto recorded_from = hill_table();
  const auto recorded = make_recorded_space(recorded_from);
  for (const auto& info : strategies()) {
    CAPTURE(info.name);
    const auto order = walk(info, recorded.space, 1);
    CHECK(order.size() == recorded.space.candidates.size());
    CHECK(std::set<std::size_t>(order.begin(), order.end()).size() == order.size());
    CHECK(walk(info, recorded.space, 1) == order);
  }
  const auto& random = *find_strategy("random").value();
  CHECK(walk(random, recorded.space, 1) != walk(random, recorded.space, 2));
}

TEST_CASE("strategy: an unknown name is told with those there are", "[tune]") {
  const auto wrong = find_strategy("annealing");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().status == Status::invalid_argument);
  CHECK_THAT(wrong.error().message, Catch::Contains("annealing") and Catch::Contains("default, random"));
}

TEST_CASE("replay: what a table says is what the result says", "[tune]") {
  const auto table = hill_table(20);
  const auto result = replay(table, all_strategies(3)).value();
  CHECK(result.legal == 256);
  CHECK(result.correct == 236);
  CHECK(result.close == 1);
  CHECK(result.optimum == Approx(1e-3));
  CHECK(result.default_seconds == Approx(1.45e-3));
  CHECK_FALSE(result.fresh_prior);
  CHECK(result.prior.rank_correlation > 0.5);
  CHECK(result.prior.regret_1 == Approx(0.05 + 0.30));  // (10, 0), the first of 16 that tie
}

TEST_CASE("replay: drawing at random takes as long as theory says", "[tune]") {
  auto table = hill_table();
  for (auto& row : table.rows)
    if (row.config[0] == 11) row.median = 1e-3;  // 16 of 256 are optimal
  const auto result = replay(table, all_strategies(2000)).value();
  CHECK(result.close == 16);
  CHECK(result.expected_at_random() == Approx(257.0 / 17));
  // The standard deviation of one is about its mean; five standard errors of 2000.
  CHECK(std::abs(mean(score_of(result, "random").evaluations) - result.expected_at_random()) <
        5 * result.expected_at_random() / std::sqrt(2000.0));
}

TEST_CASE("replay: the default strategy climbs where random search stumbles, whatever drops out", "[tune]") {
  for (const std::size_t out : {0u, 40u}) {
    const auto table = hill_table(out);
    const auto result = replay(table, all_strategies()).value();
    const auto &ours = score_of(result, "default").evaluations, &random = score_of(result, "random").evaluations;
    CHECK(quantile(ours, 1) < quantile(random, 0.5));
    CHECK(quantile(ours, 1) <= 64 + 32);
  }
}

TEST_CASE("replay: the same seeds give the same numbers", "[tune]") {
  const auto table = hill_table(5);
  const auto options = all_strategies(20);
  const auto first = replay(table, options).value(), second = replay(table, options).value();
  CHECK(to_json(std::span(&first, 1), options, "") == to_json(std::span(&second, 1), options, ""));
  CHECK(score_of(first, "random").evaluations.front() != score_of(first, "random").evaluations.back());
}

TEST_CASE("replay: a strategy that repeats itself or gives up is told off", "[tune]") {
  const auto table = hill_table();
  const StrategyInfo stuck{
      "stuck", "", [](const StrategyOptions&) -> std::unique_ptr<Strategy> { return std::make_unique<Stuck>(); }};
  const StrategyInfo lazy{"lazy", "",
                          [](const StrategyOptions&) -> std::unique_ptr<Strategy> { return std::make_unique<Lazy>(); }};
  ReplayOptions options;
  options.strategies = {&stuck};
  CHECK_THAT(replay(table, options).error().message, Catch::Contains("`stuck` proposed candidate 3 twice"));
  options.strategies = {&lazy};
  CHECK_THAT(replay(table, options).error().message, Catch::Contains("`lazy` stopped after 0 of 256"));
}

TEST_CASE("prior: judged by ranks, and by what its first would cost", "[tune]") {
  const std::vector<double> times{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, guess{10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  CHECK(judge_prior(guess, times).rank_correlation == Approx(1));
  CHECK(judge_prior(guess, times).regret_1 == 0);
  const std::vector<double> upside_down(guess.rbegin(), guess.rend());
  CHECK(judge_prior(upside_down, times).rank_correlation == Approx(-1));
  CHECK(judge_prior(upside_down, times).regret_1 == Approx(9));
  CHECK(judge_prior(upside_down, times).regret_8 == Approx(2));
  const std::vector<double> blind(10, 1.0);
  CHECK(judge_prior(blind, times).rank_correlation == 0);
  // By hand: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4.
  CHECK(judge_prior(std::vector<double>{1, 2, 2, 3}, std::vector<double>{1, 3, 2, 4}).rank_correlation ==
        Approx(4.5 / std::sqrt(4.5 * 5)));
  // What is out counts as chosen, but has no rank.
  const std::vector<double> broken{INFINITY, 2, 3, 4};
  const auto quality = judge_prior(std::vector<double>{1, 2, 3, 4}, broken);
  CHECK(quality.rank_correlation == Approx(1));
  CHECK(std::isinf(quality.regret_1));
  CHECK(quality.regret_8 == 0);
}

TEST_CASE("table: text and back again", "[tune]") {
  auto table = hill_table(2);
  table.part = "hill.z=1";
  table.command = "glaive record 'a: b'";
  const auto text = to_text(table);
  const auto again = parse_table(text).value();
  CHECK(to_text(again) == text);
  CHECK(again.rows.size() == 256);
  CHECK(again.rows[0].drop == Drop::wrong_result);
  CHECK(again.rows[100].config == table.rows[100].config);
  CHECK(again.rows[100].median == Approx(table.rows[100].median).epsilon(1e-4));
  CHECK(again.device.l2_bytes == table.device.l2_bytes);
  CHECK(again.command == table.command);
}

TEST_CASE("table: what is wrong is told with its line", "[tune]") {
  const auto text = to_text(hill_table());
  const auto replaced = [&](std::string_view from, std::string_view to) {
    auto changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return parse_table(changed);
  };
  CHECK_THAT(parse_table("").error().message, Catch::Contains("line 1"));
  CHECK_THAT(parse_table("hello\n").error().message, Catch::Contains("line 1"));
  CHECK_THAT(replaced("hill,0 0,", "hall,0 0,").error().message, Catch::Contains("`hall` is not declared"));
  CHECK_THAT(replaced("hill,0 0,", "hill,0,").error().message, Catch::Contains("1 values for the 2 parameters"));
  CHECK_THAT(replaced("hill,0 0,", "hill,0 zero,").error().message, Catch::Contains("`zero` is not a number"));
  CHECK_THAT(replaced(",none\n", ",bored\n").error().message, Catch::Contains("`bored` is no reason"));
  CHECK_THAT(replaced(",none\n", "\n").error().message, Catch::Contains("cells: 7 instead of 8"));
  CHECK_THAT(replaced("# case: forward", "# case: backward").error().message, Catch::Contains("not a problem line"));
  CHECK_THAT(replaced("# case", "# cose").error().message, Catch::Contains("is missing above"));
  CHECK_THAT(replaced("# rows", "# rouse").error().message, Catch::Contains("is missing above"));
  CHECK_THAT(replaced(",none\n", ",no\n").error().message, Catch::Contains("none, constraint, compile_error"));
  CHECK_THAT(replaced("hill,0 1,", "hill,0 0,").error().message, Catch::Contains("hill 0 0 was there before"));
  CHECK_THAT(replaced("# rows: 256", "# rows: 255").error().message, Catch::Contains("256 rows of the 255"));
  // Cut anywhere, it is no table.
  for (std::size_t length = 1; length < text.size(); length += 37) CHECK_FALSE(parse_table(text.substr(0, length)));
  const auto whole_rows = text.substr(0, text.rfind("\nhill") + 1);
  CHECK_THAT(parse_table(whole_rows).error().message, Catch::Contains("incomplete: 255 rows of the 256"));
  CHECK_THAT(parse_table(text.substr(0, text.size() - 1)).error().message, Catch::Contains("incomplete"));
  const auto absent = read_table("/nowhere/table.csv");
  REQUIRE_FALSE(absent);
  CHECK_THAT(absent.error().message,
             Catch::Contains("/nowhere/table.csv") and Catch::Contains("No such file or directory"));
  const Folder folder;
  CHECK_THAT(read_table(folder.path()).error().message, Catch::Contains("Is a directory"));
  write_text(folder / "empty", "");
  CHECK_THAT(read_table(folder / "empty").error().message, Catch::Contains("it is empty"));
}

TEST_CASE("table: a variant that the family of this build does not have is refused", "[tune]") {
  Table table;
  table.what = parse_case("forward H2 K64 V32 f32 @ B1 T64").value();
  table.device.target = parse_target("cuda:sm_90a").value();
  const Instance instance{table.what.problem, table.device.target};
  const auto* const family = find_family("stream", Target::Kind::cuda);
  REQUIRE(family != nullptr);
  table.families = {{std::string(family->name()), {}}};
  for (const auto& parameter : family->parameters(instance)) table.families[0].parameters.emplace_back(parameter.name);
  Table::Row row;
  row.config = family->default_config(instance);
  row.low = row.median = row.high = 1e-3;
  table.rows = {row};
  REQUIRE(parse_table(to_text(table)));
  table.rows[0].config[0] = 12345;
  CHECK_THAT(parse_table(to_text(table)).error().message,
             Catch::Contains("of this build has no variant `12345") and Catch::Contains("not 12345"));
  table.families[0].parameters[0] = "an_older_one";  // times of another space are what they are
  CHECK(parse_table(to_text(table)));
}

TEST_CASE("record: every variant timed once and resumed, nothing published", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) { return name.contains("size=4") ? 0.5e-3 : 1e-3; };
  evaluator.verdict = [](const std::string& name) {
    return name == "toy(size=1,mode=0)" ? Drop::wrong_result : Drop::none;
  };
  const auto what = parse_case("forward H4 K64 V64 f32 @ B1 T512").value();
  const auto record = [&](std::vector<std::string> rules = {}) {
    auto journal = Journal::open(run.file, "test").value();
    Tuner tuner(evaluator, journal, run.progress, run.options);
    auto table = tuner.record(what, rules);
    if (table) table->when.clear();
    return table;
  };
  const auto table = record().value();
  CHECK(table.rows.size() == 11);
  CHECK(std::ranges::count(table.rows, Drop::wrong_result, &Table::Row::drop) == 1);
  CHECK(std::ranges::count(table.rows, true, &Table::Row::is_default) == 1);
  for (const auto& row : table.rows)
    if (row.drop == Drop::none) CHECK(row.median == Approx(row.config[0] == 4 ? 0.5e-3 : 1e-3).epsilon(0.01));
  CHECK_FALSE(std::filesystem::exists(run.options.pack));

  const auto raced = evaluator.raced, compiled = evaluator.compiled.load();
  CHECK(to_text(record().value()) == to_text(table));
  CHECK(evaluator.raced == raced);
  CHECK(evaluator.compiled == compiled);

  const auto part = record({"toy.mode=1"}).value();
  CHECK(part.rows.size() == 4);
  CHECK(part.part == "toy.mode=1");
  for (const char* rule : {"mode=1", "tay.mode=1", "toy.mood=1", "toy.mode=9", "toy"}) {
    const auto wrong = record({rule});
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().status == Status::invalid_argument);
    CHECK_THAT(wrong.error().message, Catch::Contains(rule));
  }
  const auto why = [&](std::vector<std::string> rules) { return record(std::move(rules)).error().message; };
  CHECK_THAT(why({"tay.mode=1"}), Catch::Contains("which has toy;"));
  CHECK_THAT(why({"toy.mood=1"}), Catch::Contains("which has size, mode;"));
  CHECK_THAT(why({"toy.mode=9"}), Catch::Contains("but 0, 1, 2;"));
  CHECK(why({"toy.mode=1", "toy.mode=2"}) == "`toy.mode=2`: excluded by `toy.mode=1`");
  CHECK(why({"toy.mode=2", "toy.size=8"}) == "`toy.size=8`: excluded by `toy.mode=2`");
}

TEST_CASE("tune: with any strategy the default runs, and the budget holds", "[tune]") {
  for (const auto& strategy : strategies()) {
    const Folder folder;
    ToyRun run(folder, Effort::quick);
    const HillFamily hill;
    const Family* families[] = {&hill};
    run.options.families = families;
    run.options.strategy = &strategy;
    ToyEvaluator evaluator;
    const auto outcome = run.tune(evaluator).value();
    CHECK(outcome.state == TuneOutcome::State::tuned);
    CHECK(evaluator.timed.contains("hill(x=3,y=3)"));
    CHECK(evaluator.compiled <= static_cast<int>(variant_budget(Effort::quick, toy_instance)) + 1);
  }
}

TEST_CASE("recorded tables: they load, say where they are from, and are written as glaive writes", "[tune]") {
  const auto files = recorded_tables();
  CHECK(files.size() >= 4);
  for (const auto& file : files) {
    CAPTURE(file.string());
    const auto table = read_table(file).value();
    CHECK(to_text(table) == read_text(file));
    CHECK_FALSE(table.command.empty());
    CHECK_FALSE(table.when.empty());
    CHECK(std::ranges::count(table.rows, true, &Table::Row::is_default) >= 1);
  }
}

TEST_CASE("recorded tables: the default strategy is ahead of random search, and the prior ranks", "[tune]") {
  for (const auto& file : recorded_tables()) {
    CAPTURE(file.string());
    const auto table = read_table(file).value();
    const auto result = replay(table, all_strategies(30)).value();
    CHECK(quantile(score_of(result, "default").evaluations, 0.5) <
          quantile(score_of(result, "random").evaluations, 0.5));
    if (not result.fresh_prior) continue;  // this build has other families, or none
    CHECK(result.prior.rank_correlation > 0.5);
    CHECK(result.prior.regret_8 < 0.05);
  }
}
