#include <nlohmann/json.hpp>

#include "autotune/html_report.hpp"
#include "autotune/report.hpp"
#include "autotune/svg.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

std::vector<Story> tuned_stories(const Folder& folder) {
  ToyRun run(folder, Effort::quick);
  const HillFamily hill;
  const Family* families[] = {&hill};
  run.options.families = families;
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) { return name.contains("y=5") ? 0.5e-3 : 1e-3; };
  evaluator.verdict = [](const std::string& name) { return name == "hill(x=4,y=3)" ? Drop::nan_output : Drop::none; };
  REQUIRE(run.tune(evaluator).value().state == TuneOutcome::State::tuned);
  auto journal = Journal::open_to_read(run.file).value();
  return read_stories(journal).value();
}

std::size_t count(std::string_view text, std::string_view word) {
  std::size_t found = 0;
  for (auto at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("story: the journal tells what was tried, in order, with times and reasons", "[tune]") {
  const Folder folder;
  const auto stories = tuned_stories(folder);
  REQUIRE(stories.size() == 1);
  const auto& story = stories.front();
  CHECK(story.line == "forward H4 K64 V64 f32 @ B1 T512");
  CHECK(story.entries.size() == variant_budget(Effort::quick, toy_instance));
  CHECK(std::ranges::count_if(story.entries, &Story::Entry::timed) ==
        static_cast<std::ptrdiff_t>(story.entries.size()) - 1);
  CHECK(story.drops() == std::vector<std::pair<Drop, std::size_t>>{{Drop::nan_output, 1}});
  CHECK(story.winner.contains("y=5"));
  CHECK(story.fastest()->variant.contains("y=5"));
  CHECK(std::abs(story.fastest()->median / 0.5e-3 - 1) < 0.01);
  CHECK(story.useful_operations > 0);

  const auto json = nlohmann::json::parse(to_json(stories));
  const auto& told = json.at("cases").at(0);
  CHECK(told.at("attempts").size() == story.entries.size());
  CHECK(told.at("drops").at("nan_output") == 1);
  CHECK(told.at("winner") == story.winner);
  CHECK(told.at("evidence").at("variant") == story.winner);
}

TEST_CASE("story: the choice of a bucket is told with the best of every other family", "[tune]") {
  const Folder folder;
  ToyRun run(folder);
  const ToyFamily second("second"), broken("broken");
  const Family* families[] = {&run.toy, &second, &broken};
  run.options.families = families;
  ToyEvaluator evaluator;
  evaluator.seconds = [](const std::string& name) {
    return name == "toy(size=4,mode=2)" ? 1e-3 : name == "second(size=1,mode=0)" ? 1.5e-3 : 4e-3;
  };
  evaluator.verdict = [](const std::string& name) {
    return name.starts_with("broken") ? Drop::wrong_result : Drop::none;
  };
  REQUIRE(run.tune(evaluator).value().state == TuneOutcome::State::tuned);
  auto journal = Journal::open_to_read(run.file).value();
  const auto stories = read_stories(journal).value();
  const auto& story = stories.front();
  REQUIRE(story.winner == "toy(size=4,mode=2)");
  CHECK(story.why() == "second 1.50x, broken: none of 11 was timed (wrong_result 11)");
  const auto found = story.by_family();
  REQUIRE(found.size() == 3);
  CHECK(found[0].best->variant == story.winner);
  CHECK(found[1].best->variant == "second(size=1,mode=0)");
  CHECK(found[2].best == nullptr);

  const auto table = choice_table(stories);
  CHECK_THAT(table, Catch::Contains("work 4..7, tokens 256..1023") and Catch::Contains(story.why()));
  CHECK_THAT(html_report(stories), Catch::Contains(story.why()) and Catch::Contains("work 4..7"));
  const auto told = nlohmann::json::parse(to_json(stories)).at("cases").at(0);
  CHECK(told.at("bucket") == "work 4..7, tokens 256..1023");
  CHECK(told.at("families").at(1).at("ratio_to_winner").get<double>() == Approx(1.5).epsilon(0.01));
}

TEST_CASE("html report: complete in itself, with every chart", "[tune]") {
  const Folder folder;
  const auto page = html_report(tuned_stories(folder));
  for (const char* outside : {"http:", "https:", "//", "src=", "url(", "@import", "<link", "<iframe", "fetch("}) {
    CAPTURE(outside);
    // The script's own comment begins with two slashes.
    CHECK(count(page, outside) == (std::string_view(outside) == "//" ? 1 : 0));
  }
  for (const char* chart : {"On the roofline", "Best so far", "Prior against measured", "Evidence",
                            "What became of them", "Effect of each parameter: hill", "The fastest by screening"})
    CHECK(page.contains(std::string("<h3>") + chart + "</h3>"));
  CHECK(count(page, "<svg") == count(page, "</svg>"));
  CHECK(count(page, "<svg") == 6);
  CHECK(count(page, "<div") == count(page, "</div>"));
  CHECK(page.contains("nan_output"));
  CHECK_FALSE(page.contains("='nan"));
  CHECK_FALSE(page.contains("='inf"));
}

TEST_CASE("html report: names cannot become markup", "[tune]") {
  const Folder folder;
  auto stories = tuned_stories(folder);
  auto& story = stories.front();
  const std::string hostile = "x<script>alert('1')</script>\"&";
  story.line = story.key.device = story.key.policy = story.winner = hostile;
  for (auto& entry : story.entries) {
    entry.variant = entry.family = entry.message = hostile;
    for (auto& [name, value] : entry.parameters) name = hostile;
    entry.drop = entry.timed() ? Drop::none : Drop::compile_error;
  }
  auto evidence = nlohmann::json::parse(story.evidence);
  for (auto& entry : evidence.at("defaults")) entry["variant"] = hostile;
  story.evidence = evidence.dump();
  const auto page = html_report(stories);
  CHECK(count(page, "<script>") == 1);  // ours
  CHECK_FALSE(page.contains("x<script"));
  CHECK_FALSE(page.contains("alert('1')"));
  CHECK(page.contains("x&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
}

TEST_CASE("html report: cases without times, winner or readable evidence", "[tune]") {
  Story story;
  story.line = "forward H4 K64 V64 f32 @ B1 T512";
  CHECK_THAT(html_report(std::span(&story, 1)), Catch::Contains("No winner"));
  story.entries.push_back(
      {.variant = "hill(x=1,y=2)", .family = "hill", .parameters = {}, .drop = Drop::load_error, .message = "no"});
  story.evidence = "not json";
  CHECK_THAT(html_report(std::span(&story, 1)), Catch::Contains("load_error"));
  story.evidence = R"({"median_ms": "fast", "defaults": [{}], "baselines": {"rows": {"median_ms": null}}})";
  CHECK(html_report(std::span(&story, 1)).ends_with("</html>\n"));
}

TEST_CASE("html report: a case without tokens is off the roofline, and the page ends", "[tune]") {
  const Folder folder;
  auto stories = tuned_stories(folder);
  stories.push_back(stories.front());
  stories.back().line = "forward H4 K64 V64 f32 @ lens=0,0";
  for (const double bytes : {0.0, 32768.0}) {
    stories.back().useful_operations = 0;
    stories.back().minimal_bytes = bytes;
    const auto page = html_report(stories);
    CHECK(page.contains("On the roofline"));
    CHECK(count(page, "lens=0,0\n") == 0);  // as the roofline's tips begin
    CHECK_FALSE(page.contains("='nan"));
    CHECK_FALSE(page.contains("='-nan"));
    CHECK_FALSE(page.contains("='inf"));
  }
  CHECK_FALSE(html_report(std::span(stories).last(1)).contains("On the roofline"));
}

TEST_CASE("svg: a scale without extent has no ticks, and no end of them is no scale", "[tune]") {
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  using svg::Scale;
  for (const bool logarithmic : {false, true})
    for (const auto& [low, high] : {std::pair(1.0, 1.0), {2.0, 1.0}, {1.0, infinity}, {nan, 1.0}, {1.0, nan}})
      CHECK(Scale{low, high, logarithmic}.ticks().empty());
  CHECK(Scale{0, 10, true}.ticks().empty());
  CHECK(Scale{-1, 10, true}.ticks().empty());
  CHECK(Scale{-1, 10, false}.ticks() == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(Scale{0.5, 500, true}.ticks().size() > 5);
  for (const double only : {0.0, 1.0, 1e9}) CHECK_FALSE(Scale::around({only}, false).ticks().empty());
}

TEST_CASE("report: a journal that is not there is told, and a page is written", "[tune]") {
  const Folder folder;
  const auto none = run(folder, {"report"});
  CHECK(none.exit == 1);
  CHECK_THAT(none.err, Catch::Contains("journal") and Catch::Contains("there is none"));

  const auto stories = tuned_stories(folder);
  const auto page = folder / "page.html", data = folder / "data.json";
  const auto told = run(folder, {"report", "--journal", folder / "journal.sqlite", "--html", page, "--json", data});
  CHECK(told.exit == 0);
  CHECK_THAT(told.out, Catch::Contains(stories.front().winner) and Catch::Contains("nan_output 1"));
  CHECK(read_text(page).starts_with("<!doctype html>"));
  CHECK(nlohmann::json::parse(read_text(data)).at("cases").size() == 1);
  const auto other = run(folder, {"report", "--journal", folder / "journal.sqlite", "forward H1 K8 V8 @ B1 T8"});
  CHECK(other.exit == 1);
  CHECK_THAT(other.err, Catch::Contains("none of these cases"));
}

TEST_CASE("numbers: three digits, no tail", "[tune]") {
  CHECK(short_number(0) == "0");
  CHECK(short_number(2.5) == "2.5");
  CHECK(short_number(1234.56) == "1235");
  CHECK(short_number(0.0656) == "0.0656");
  CHECK(short_number(100) == "100");
  CHECK(short_number(std::numeric_limits<double>::infinity()) == "-");
}
