#include <unistd.h>

#include <nlohmann/json.hpp>

#include "autotune/evidence.hpp"
#include "autotune/report.hpp"
#include "autotune/sets.hpp"
#include "runtime/fit.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

/// What a Progress prints, on a clock that a test moves.
struct Screen {
  explicit Screen(Progress::Mode mode) : progress(mode, file, [this] { return now; }) {}
  ~Screen() { std::fclose(file); }
  std::string text() {
    std::fflush(file);
    std::string all(static_cast<std::size_t>(std::ftell(file)), '\0');
    return pread(fileno(file), all.data(), all.size(), 0) < 0 ? "" : all;
  }
  void pass(int milliseconds) { now += std::chrono::milliseconds(milliseconds); }

  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
  std::FILE* file = std::tmpfile();
  Progress progress;
};

std::size_t lines(const std::string& text) { return static_cast<std::size_t>(std::ranges::count(text, '\n')); }

}  // namespace

TEST_CASE("progress: without a terminal, a line every few seconds", "[tune]") {
  Screen screen(Progress::Mode::plain);
  screen.progress.begin_case(1, 2, "LINE");
  screen.progress.begin_phase("compile", 100);
  for (int i = 0; i < 100; ++i) {
    screen.pass(100);
    screen.progress.step();
  }
  CHECK(lines(screen.text()) == 1 + 3);  // the case, then every 3 of 10 seconds
  CHECK_THAT(screen.text(), Catch::Contains("[1/2] LINE | compile 30/100, 7 s left"));
}

TEST_CASE("progress: tells the best so far against the default, and drops by reason", "[tune]") {
  Screen screen(Progress::Mode::plain);
  screen.progress.begin_case(1, 1, "LINE");
  screen.progress.dropped(Drop::wrong_result);
  screen.progress.dropped(Drop::compile_error);
  screen.progress.dropped(Drop::wrong_result);
  screen.progress.best("toy(size=4)", 0.5);
  screen.progress.begin_phase("screen", 10);
  screen.pass(5000);
  screen.progress.advance(5);
  CHECK_THAT(screen.text(), Catch::Contains("best 2.00x the default: toy(size=4)") and
                                Catch::Contains("compile_error 1, wrong_result 2"));
  CHECK(screen.progress.drops().at(Drop::wrong_result) == 2);
}

TEST_CASE("progress: on a terminal one line is redrawn, and cleared before a line that stays", "[tune]") {
  Screen screen(Progress::Mode::live);
  screen.progress.begin_case(1, 1, "LINE");
  screen.progress.begin_phase("compile", 1000);
  for (int i = 0; i < 1000; ++i) {
    screen.pass(1);
    screen.progress.step();
  }
  CHECK(lines(screen.text()) == 0);
  const auto redrawn = static_cast<std::size_t>(std::ranges::count(screen.text(), '\r'));
  CHECK(redrawn >= 10);
  CHECK(redrawn <= 13);
  screen.progress.end_case("done");
  CHECK_THAT(screen.text(), Catch::EndsWith("\r\033[2K[1/1] LINE: done; 1.0 s: compile 1.0\n"));
}

TEST_CASE("progress: quiet is silent", "[tune]") {
  Screen screen(Progress::Mode::quiet);
  screen.progress.begin_case(1, 1, "LINE");
  screen.progress.note("note");
  screen.progress.end_case("done");
  CHECK(screen.text().empty());
}

TEST_CASE("report: a table with speed-ups, then what was not tuned", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) { return name == "toy(size=4,mode=2)" ? 0.5e-3 : 1e-3; };
  const TuneOutcome outcomes[] = {run.tune(evaluator).value(), run.tune(evaluator, "step H1 K8 V8 @ B1 T1").value()};
  const auto table = tune_table(outcomes);
  // 1e11 FLOP/s and 1e10 B/s: this case is bound by memory, as its 8 bytes a channel say.
  const auto evidence = nlohmann::ordered_json::parse(outcomes[0].evidence);
  const double bytes = minimal_bytes(outcomes[0].what.problem, outcomes[0].what.shape);
  const double operations = useful_operations(outcomes[0].what.problem, outcomes[0].what.shape);
  const double share = std::max(bytes / 1e10, operations / 1e11) / (evidence.at("median_ms").get<double>() * 1e-3);
  CHECK(roof_share(evidence).value() == Approx(share));
  CHECK(evidence.at("roof_share").get<double>() == Approx(share));
  CHECK_THAT(table, Catch::Contains("of roof") and Catch::Contains(fmt::format(" {:.0f} % ", share * 100)));
  CHECK_FALSE(roof_share(nlohmann::ordered_json()));
  CHECK_FALSE(roof_share({{"case", 7}, {"median_ms", "x"}}));
  CHECK_THAT(table, Catch::Contains("2.00x") and Catch::Contains("10.00x") and Catch::Contains("18.0"));
  CHECK_THAT(table, Catch::Contains("toy(size=4,mode=2)") and Catch::Contains("step H1 K8 V8 f32 @ B1 T1: no kernel"));
  CHECK(lines(table) == 3);
}

TEST_CASE("evidence: what every other variant took, from which the runtime tells the regret of fallbacks", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) { return name == "toy(size=4,mode=2)" ? 0.5e-3 : 1e-3; };
  PackEntry entry;
  entry.plan.variant = "toy(size=4,mode=2)";
  entry.evidence = run.tune(evaluator).value().evidence;
  const auto measured = read_measured(entry);
  CHECK(measured.tokens == 512);
  CHECK(measured.rivals.size() == 10);
  for (const auto& [variant, time] : measured.rivals) CHECK(time == Approx(2).epsilon(0.02));
}

TEST_CASE("report: times of another shape of the bucket are told as that shape's", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  ToyEvaluator evaluator;
  const auto tuned = run.tune(evaluator, "forward H4 K64 V64 f32 @ B1 T512").value();
  CHECK_THAT(tune_table({&tuned, 1}), Catch::Contains("@ B1 T512  ") and not Catch::Contains("tuned as"));
  const auto already = run.tune(evaluator, "forward H4 K64 V64 f32 @ B1 T600").value();
  REQUIRE(already.state == TuneOutcome::State::already);
  CHECK_THAT(already.sentence, Catch::StartsWith("tuned already as B1 T512: "));
  CHECK_THAT(tune_table({&already, 1}), Catch::Contains("@ B1 T600 (tuned as B1 T512)"));
}

TEST_CASE("report: evidence that cannot be read costs a row, not the table", "[tune]") {
  const auto what = parse_case("forward H1 K8 V8 @ B1 T8").value();
  for (const std::string evidence : {"", "{", "[]", "{}", R"({"median_ms":"x"})"}) {
    const TuneOutcome outcome{TuneOutcome::State::already, what, "a sentence", evidence};
    CHECK_THAT(tune_table({&outcome, 1}), Catch::Contains("a sentence"));
  }
}

TEST_CASE("report: a case without times has none, rather than zeros", "[tune]") {
  Story story;
  story.line = "LINE";
  story.entries.push_back({.variant = "toy", .family = "toy", .parameters = {}, .drop = Drop::crash, .message = "no"});
  const auto table = story_table(std::span(&story, 1));
  CHECK_FALSE(table.contains("0.00"));
  CHECK_FALSE(table.contains("inf"));
  CHECK(nlohmann::json::parse(to_json(std::span(&story, 1))).at("cases").at(0).at("prior").is_null());
}

TEST_CASE("sets: every built-in set parses, its lines are valid and unique", "[tune]") {
  REQUIRE(builtin_sets().size() == 6);
  for (const auto& set : builtin_sets()) {
    INFO(set.name);
    const auto cases = load_set(set.name);
    REQUIRE(cases);
    REQUIRE_FALSE(cases->empty());
    for (const auto& what : *cases) {
      CHECK(validate(what.problem));
      CHECK(validate(what.shape));
      CHECK(std::ranges::count(*cases, what) == 1);
    }
  }
}

TEST_CASE("sets: an unknown name lists what there is", "[tune]") {
  const auto set = load_set("smoek");
  REQUIRE_FALSE(set);
  CHECK_THAT(set.error().message,
             Catch::Contains("`smoek`") and Catch::Contains("smoke") and Catch::Contains("decode"));
}

TEST_CASE("sets: a file works like a set, and its errors carry line and column", "[tune]") {
  const Folder folder;
  const auto file = folder / "mine.txt";
  write_text(file, "# mine\n\nforward H1 K8 V8 @ B1 T8\nforward H2 K8 V8 f32 @ B1 T8\n");
  CHECK(load_set(file.string()).value().size() == 2);
  write_text(file, "forward H1 K8 V8 @ B1 T8\nforward H1 K8 W8 @ B1 T8\n");
  const auto wrong = load_set(file.string());
  REQUIRE_FALSE(wrong);
  CHECK_THAT(wrong.error().message, Catch::StartsWith(file.string() + ":2:"));
  write_text(file, "# nothing\n");
  CHECK_FALSE(load_set(file.string()));
  CHECK_FALSE(load_set(folder.path().string()));
}
