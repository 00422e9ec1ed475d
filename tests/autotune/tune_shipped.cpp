// Winners that come with the program: their tables, which one a case gets, and packs made of them.
#include <nlohmann/json.hpp>

#include "autotune/prepare.hpp"
#include "autotune/sets.hpp"
#include "runtime/dispatch.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

using Fit = ShippedChoice::Match;

DeviceInfo gpu(const std::string& name, const std::string& target, int units = 132) {
  return {.target = parse_target(target).value(),
          .name = name,
          .units = units,
          .l1_bytes = 233472,
          .l2_bytes = 52428800,
          .memory_rate = 3352320000000};
}

const DeviceInfo h100 = gpu("NVIDIA H100 80GB HBM3", "cuda:sm_90a");

/// A table of h100 with these winners, from line 6 on.
std::string table_text(const std::string& winners, const DeviceInfo& device = h100) {
  return fmt::format("# a test's\ndevice: {}\ntarget: {}\neffort: normal\n\n{}", identity(device),
                     to_string(device.target), winners);
}

WinnersTable table_of(const std::string& winners, const DeviceInfo& device = h100) {
  return parse_winners(table_text(winners, device), "test").value();
}

std::string why(const std::string& text) {
  const auto table = parse_winners(text, "test");
  REQUIRE_FALSE(table.has_value());
  CHECK(table.error().status == Status::invalid_argument);
  CHECK(std::ranges::count(table.error().message, '\n') == 0);
  return table.error().message;
}

std::string row(const std::string& line, const std::string& variant) {
  return line + " | " + variant + " | 1.0 us [1.0, 1.0] | 90 % | 1.10x FASTER\n";
}

const std::string narrow = "step(columns=8,threads=64,pass=1)", wide = "step(columns=64,threads=256,pass=2)";
const std::string gone = "step(columns=3,threads=64,pass=1)";

Case case_of(const std::string& line) { return parse_case(line).value(); }

/// On the GPU of a test, which nobody asks for anything but numbers.
struct ToyGpu : ToyEvaluator {
  DeviceInfo info = h100;
  const DeviceInfo& device() const override { return info; }
  int workers() const override { return 1; }
};

}  // namespace

TEST_CASE("shipped: a table is read as it is written", "[tune][shipped]") {
  auto table = table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide) + row("step H16 K128 V128 bf16 @ B1 T1", narrow));
  CHECK(table.device == identity(h100));
  CHECK(table.target == h100.target);
  REQUIRE(table.winners.size() == 2);
  CHECK(table.winners[1].line == 7);
  CHECK(table.winners[1].variant == narrow);
  CHECK(table.winners[1].against_default == "1.10x FASTER");
  table.driver = "580.1", table.date = "2026-01-02", table.commit = "abc";
  const auto text = to_string(table);
  const auto again = parse_winners(text, "test").value();
  CHECK(to_string(again) == text);
  CHECK(again.driver == "580.1");
  CHECK(again.winners[0].what == table.winners[0].what);
}

TEST_CASE("shipped: a bad line is one sentence with its number", "[tune][shipped]") {
  const auto good = row("step H16 K128 V128 bf16 @ B64 T1", wide);
  CHECK(why(table_text("step H16 K128 V128 bf16 @ B64 T1 | step\n")) ==
        "test.txt:6: a winner has 5 fields, `problem line | variant | median and interval | share of the roof | "
        "against the default`; here are 2");
  CHECK_THAT(why(table_text(row("step H16 K128 W128 bf16 @ B64 T1", wide))),
             Catch::StartsWith("test.txt:6: ") and Catch::Contains("W128"));
  CHECK(why(table_text(row("step H16 K128 V128 bf16 @ B64 T1", ""))) == "test.txt:6: the variant is missing");
  CHECK_THAT(why(table_text(good + "colour: green\n")),
             Catch::StartsWith("test.txt:7: `colour: green` is neither") and Catch::Contains("driver"));
  CHECK(why(table_text("effort: full\n")) == "test.txt:6: `effort` is said twice");
  CHECK_THAT(why(table_text(good + row("step H16 K128 V128 bf16 @ B65 T1", wide))),
             Catch::Contains("test.txt:7: ") and Catch::EndsWith("same problem and bucket as line 6"));
  CHECK_THAT(why("target: cuda:sm_90a\n"), Catch::EndsWith("the table does not say `device: ..`"));
  CHECK_THAT(why("device: name=x\ntarget: cuda:sm_x\n"), Catch::Contains("sm_x"));
  CHECK_THAT(why("device: name=x\ntarget: cpu:x86-64-v3\n"), Catch::EndsWith("is none of a GPU"));
}

TEST_CASE("shipped: every table of this build can be read, and is of a GPU", "[tune][shipped]") {
  const auto tables = shipped_winners();
  if (not tables) FAIL(tables.error().message);
  CHECK(tables->size() == builtin_winners().size());
}

TEST_CASE("shipped: a case gets its own winner, else that of the nearest bucket or problem, else a default",
          "[tune][shipped]") {
  const auto table =
      table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide) + row("step H16 K128 V128 bf16 @ B1 T1", narrow) +
               row("step H4 K256 V512 bf16 @ B64 T1", gone));
  const auto choose = [&](const std::string& line) {
    const auto what = case_of(line);
    const auto space = make_space(what, h100).value();
    const auto choice = choose_shipped(what, space, &table);
    REQUIRE(choice.variant != nullptr);
    return std::tuple(choice.match, choice.variant->name, choice.winner == nullptr ? 0 : choice.winner->line,
                      choice.skipped);
  };
  using Told = std::vector<std::string>;
  CHECK(choose("step H16 K128 V128 bf16 @ B64 T1") == std::tuple(Fit::same, wide, 6, Told{}));
  CHECK(choose("step H16 K128 V128 bf16 @ B65 T1") == std::tuple(Fit::same, wide, 6, Told{}));
  CHECK(choose("step H16 K128 V128 bf16 @ B512 T1") == std::tuple(Fit::bucket, wide, 6, Told{}));
  CHECK(choose("step H16 K128 V128 bf16 @ B2 T1") == std::tuple(Fit::bucket, narrow, 7, Told{}));
  CHECK(choose("step H8 K128 V64 bf16 @ B2 T1") == std::tuple(Fit::problem, narrow, 7, Told{}));
  const auto [match, variant, line, skipped] = choose("step H4 K256 V512 bf16 @ B64 T1");
  CHECK(match == Fit::problem);
  CHECK(line == 6);
  CHECK(skipped == Told{"test.txt:8: `step H4 K256 V512 bf16` has no variant " + gone + " any more"});
  // Another dtype or gate form takes the nearest problem, one of its own dtype first.
  CHECK(choose("step H16 K128 V128 f32 @ B64 T1") == std::tuple(Fit::problem, wide, 6, Told{}));
  CHECK(choose("step H16 K128 V128 bf16 logit @ B1 T1") == std::tuple(Fit::problem, narrow, 7, Told{}));
  const auto both =
      table_of(row("step H16 K128 V128 f32 @ B64 T1", narrow) + row("step H4 K64 V64 bf16 @ B1 T1", wide));
  const auto bf16 = case_of("step H16 K128 V128 bf16 @ B64 T1");
  const auto space = make_space(bf16, h100).value();
  CHECK(choose_shipped(bf16, space, &both).winner->line == 7);
  const auto in_order = shipped_choices(bf16, space, &both);
  REQUIRE(in_order.size() >= 2);
  CHECK(in_order[1].winner->line == 6);
  CHECK((in_order.back().match == Fit::none or in_order.size() == 2));

  const auto other = case_of("forward H16 K128 V128 bf16 @ B1 T64");
  const auto forwards = make_space(other, h100).value();
  const auto preset = choose_shipped(other, forwards, &table);
  CHECK(preset.match == Fit::none);
  CHECK(preset.variant == &default_candidate(forwards));
  CHECK(choose_shipped(other, forwards, nullptr).variant == &default_candidate(forwards));
}

TEST_CASE("shipped: an H200's table has something for every line of the built-in sets", "[tune][shipped]") {
  const auto tables = shipped_winners().value();
  const auto table = std::ranges::find(tables, "NVIDIA-H200", &WinnersTable::name);
  REQUIRE(table != tables.end());
  const auto h200 = gpu("NVIDIA H200", "cuda:sm_90a");
  for (const auto& set : builtin_sets())
    for (const auto io : {DType::bf16, DType::f32}) {
      const auto cases = load_set(set.name, io).value();
      for (const auto& what : cases) {
        INFO(to_string(what));
        CHECK(choose_shipped(what, make_space(what, h200).value(), &*table).match != Fit::none);
      }
    }
}

TEST_CASE("shipped: of a table of another architecture, a case gets what is legal on its own", "[tune][shipped]") {
  const auto table = table_of(
      row("forward H16 K128 V128 bf16 @ B8 T2048", "stream_wgmma(C=64,columns=128,gates=2,stages=3,cluster=1)") +
      row("forward H16 K128 V128 bf16 @ B1 T2048", "segments(segment=256,C=32,columns=64,ksplit=1,stage=1)") +
      row("step H16 K128 V128 bf16 @ B64 T1", wide));
  for (const auto& other : {gpu("NVIDIA A100", "cuda:sm_80", 108), gpu("NVIDIA B200", "cuda:sm_100", 148)}) {
    INFO(other.name);
    const auto forward = case_of("forward H16 K128 V128 bf16 @ B8 T2048"),
               step = case_of("step H16 K128 V128 bf16 @ B64 T1");
    const auto forwards = make_space(forward, other).value(), steps = make_space(step, other).value();
    const auto chosen = choose_shipped(forward, forwards, &table);
    CHECK(chosen.match == Fit::bucket);
    REQUIRE(chosen.winner != nullptr);
    CHECK(chosen.winner->line == 7);
    REQUIRE(chosen.skipped.size() == 1);
    CHECK_THAT(chosen.skipped[0], Catch::EndsWith(" on " + to_string(other.target)));
    CHECK(choose_shipped(step, steps, &table).match == Fit::same);
  }
}

TEST_CASE("shipped: a GPU takes its own table, else that of the nearest architecture", "[tune][shipped]") {
  const WinnersTable tables[] = {table_of("", gpu("NVIDIA A100", "cuda:sm_80", 108)), table_of("", h100),
                                 table_of("", gpu("NVIDIA H20", "cuda:sm_90a", 78))};
  CHECK(table_for(h100, tables) == &tables[1]);
  const auto prepared = [](std::optional<bool> shipped) {
    return Prepared{.state = Prepared::State::ready, .what = {}, .variant = {}, .sentence = {}, .shipped = shipped};
  };
  const Prepared taken[] = {prepared(true), prepared(false), prepared(true), prepared(std::nullopt)};
  const Prepared defaults[] = {prepared(false)}, tuned[] = {prepared(std::nullopt)};
  CHECK(foreign_table(&tables[1], h100, taken).empty());
  const auto h200 = gpu("NVIDIA H200", "cuda:sm_90a");
  CHECK(table_for(h200, tables) == &tables[1]);
  CHECK(foreign_table(&tables[1], h200, taken) ==
        "no winners are shipped for NVIDIA H200: 2 of 3 cases took those of test; `glaive tune` would do better");
  CHECK_THAT(foreign_table(&tables[1], h200, defaults), Catch::Contains("these are defaults"));
  CHECK(foreign_table(&tables[1], h200, tuned).empty());
  CHECK(table_for(gpu("NVIDIA H20", "cuda:sm_90a", 79), tables) == &tables[2]);
  CHECK(table_for(gpu("NVIDIA L4", "cuda:sm_89", 58), tables) == &tables[0]);
  CHECK(cuda_arch(table_for(gpu("NVIDIA B200", "cuda:sm_100", 148), tables)->target).number() == 90);
  CHECK(table_for(gpu("NVIDIA A100", "cuda:sm_80", 108), std::span(tables).subspan(1)) == &tables[1]);  // a newer one
  const WinnersTable around[] = {table_of("", gpu("NVIDIA Thor", "cuda:sm_110", 20)), table_of("", h100)};
  CHECK(table_for(gpu("NVIDIA B200", "cuda:sm_100", 148), around) == &around[1]);  // of two as near the older one
  CHECK(table_for(host_cpu_device(), tables) == nullptr);
  CHECK_THAT(foreign_table(nullptr, h200, defaults), Catch::Contains("these are defaults"));
}

TEST_CASE("prepare: what is shipped is compiled once, checked, packed, and less than any tuning", "[tune][shipped]") {
  const Folder folder;
  const auto table = table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide));
  ToyGpu evaluator;
  const Case cases[] = {case_of("step H16 K128 V128 bf16 @ B64 T1"), case_of("step H16 K128 V128 bf16 @ B512 T1"),
                        case_of("forward H4 K64 V64 bf16 state=f16 @ B1 T8"),
                        case_of("forward H4 K64 V64 bf16 @ B4 T64")};
  const PrepareOptions options{.threads = 2, .pack = folder / "p.pack", .table = &table};
  const auto prepared = prepare(evaluator, cases, options).value();
  using enum Prepared::State;
  REQUIRE(prepared.size() == 4);
  CHECK(prepared[0].state == ready);
  CHECK(prepared[0].sentence == "its problem and bucket, test.txt:6");
  CHECK(prepared[1].state == ready);
  CHECK(prepared[2].state == unsupported);
  CHECK(prepared[3].state == ready);
  CHECK_THAT(prepared[3].sentence, Catch::Contains("the default"));
  CHECK(prepared[0].shipped == true);
  CHECK(prepared[2].shipped == std::nullopt);
  CHECK(prepared[3].shipped == false);
  CHECK(evaluator.optimised == 2);  // one variant for two shapes, and a default
  CHECK(evaluator.verified == 3);
  CHECK(evaluator.raced == 0);

  const auto pack = Pack::open(options.pack).value();
  CHECK(pack.size() == 3);
  const auto bucket = bucket_of(extents_of(cases[0].problem, cases[0].shape, 1));
  const auto served = candidates(pack, h100, 1, cases[0].problem, bucket);
  REQUIRE_FALSE(served.empty());
  CHECK(served.front().match == Match::exact);
  const auto entry = pack.load(served.front().index).value();
  CHECK(entry.plan.variant == wide);
  const auto evidence = nlohmann::json::parse(entry.evidence);
  CHECK(evidence.at("shipped").at("line") == 6);
  CHECK(evidence.at("shipped").at("device") == identity(h100));
  CHECK_FALSE(find_tuned(pack, cases[0], h100, Effort::quick, 1));
  CHECK(winners_in(pack, h100).value().winners.empty());  // nothing to ship again
}

TEST_CASE("prepare: a winner that is wrong, or does not compile, gives way to the next best and then to the default",
          "[tune][shipped]") {
  const auto table =
      table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide) + row("step H16 K128 V128 bf16 @ B1 T1", narrow));
  const Case cases[] = {case_of("step H16 K128 V128 bf16 @ B64 T1")};
  const auto space = make_space(cases[0], h100).value();
  const auto preset = default_candidate(space).name;
  REQUIRE(preset != wide);
  REQUIRE(preset != narrow);
  ToyGpu evaluator;
  std::set<std::string> wrong, unbuilt;
  evaluator.verdict = [&](const std::string& name) { return wrong.contains(name) ? Drop::wrong_result : Drop::none; };
  evaluator.compile_result = [&](const std::string& name) {
    return unbuilt.contains(name) ? Drop::compile_error : Drop::none;
  };
  const auto outcome = [&] {
    const Folder folder;
    const PrepareOptions options{.threads = 1, .pack = folder / "p.pack", .table = &table};
    auto one = prepare(evaluator, cases, options).value().front();
    CHECK(std::filesystem::exists(options.pack) == (one.state == Prepared::State::ready));
    return one;
  };
  wrong = {wide};
  auto next = outcome();
  CHECK(next.state == Prepared::State::ready);
  CHECK(next.variant == narrow);
  CHECK(next.sentence == "its problem, the nearest bucket, test.txt:7; not " + wide + ": told to fail");
  unbuilt = {narrow};
  auto last = outcome();
  CHECK(last.state == Prepared::State::ready);
  CHECK(last.variant == preset);
  CHECK(last.shipped == false);
  CHECK(last.sentence == "the default; not " + wide + ": told to fail; not " + narrow + ": lower: told to fail");
  wrong.insert(preset);
  auto none = outcome();
  CHECK(none.state == Prepared::State::failed);
  CHECK_THAT(none.sentence, Catch::StartsWith("told to fail; not " + wide));
}

TEST_CASE("prepare: code that was compiled ahead is taken, and compiled here where it fails", "[tune][shipped]") {
  const Folder ahead;
  const auto table = table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide));
  const Case cases[] = {case_of("step H16 K128 V128 bf16 @ B64 T1")};
  const Instance instance{cases[0].problem, h100.target};
  const auto variant = parse_variant(wide, instance).value();
  const auto source = std::get<CudaSource>(variant.family->instantiate(instance, variant.config));
  PackEntry entry{.key = winner_key(cases[0], h100, Effort::quick, 1),
                  .plan = variant.family->plan(instance, variant.config),
                  .code = {{.format = CodeObject::Format::cubin, .target = h100.target, .bytes = {std::byte(7)}}},
                  .evidence = R"({"compiler": "another NVRTC", "source": ")" +
                              CudaCompiler::source_key(source, {h100.target, {}}) + "\"}"};
  entry.plan.variant = wide;
  entry.plan.target = h100.target;
  REQUIRE(add_to_pack(ahead / "a.pack", {&entry, 1}));
  const CompiledWinners compiled(ahead.path());

  const Folder folder;
  PrepareOptions options{.threads = 1, .pack = folder / "p.pack", .table = &table, .compiled = &compiled};
  const auto packed = [&] { return Pack::open(options.pack).value().load(0).value(); };
  const auto by = [&] { return nlohmann::json::parse(packed().evidence).at("compiler").get<std::string>(); };
  ToyGpu evaluator;
  CHECK(prepare(evaluator, cases, options).value().front().sentence == "its problem and bucket, test.txt:6");
  CHECK(evaluator.optimised == 0);
  CHECK(evaluator.verified == 1);
  CHECK(packed().code.front().bytes == entry.code.front().bytes);
  CHECK(by() == "another NVRTC");
  CHECK(prepare(evaluator, cases, options).value().front().state == Prepared::State::already);

  options.pack = folder / "q.pack";
  evaluator.verdict = [first = true](const std::string&) mutable {
    return std::exchange(first, false) ? Drop::load_error : Drop::none;
  };
  const auto here = prepare(evaluator, cases, options).value().front();
  CHECK(here.variant == wide);
  CHECK(here.sentence == "its problem and bucket, test.txt:6");
  CHECK(evaluator.optimised == 1);
  CHECK(by() == evaluator.compiler());

  options.compiled = nullptr;  // as after an uninstall
  options.pack = folder / "p.pack";
  CHECK(prepare(evaluator, cases, options).value().front().state == Prepared::State::ready);
  CHECK(by() == evaluator.compiler());
}

TEST_CASE("prepare: what verification could not answer is an error", "[tune][shipped]") {
  struct Short : ToyGpu {
    Result<Verdict> verify(const Case&, const Built&, Scrutiny, Gates) override {
      return fail(Status::io_error, "no descriptors are left");
    }
  } evaluator;
  const Folder folder;
  const auto table = table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide));
  const Case cases[] = {case_of("step H16 K128 V128 bf16 @ B64 T1")};
  const auto outcome = prepare(evaluator, cases, {.threads = 1, .pack = folder / "p.pack", .table = &table});
  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().message == "no descriptors are left");
}

TEST_CASE("prepare: what the same build has prepared stays as it is", "[tune][shipped]") {
  const Folder folder;
  const auto table = table_of(row("step H16 K128 V128 bf16 @ B64 T1", wide));
  const auto better = table_of(row("step H16 K128 V128 bf16 @ B64 T1", narrow));
  struct Dated : ToyGpu {
    std::string version = "1";
    std::string compiler() const override { return version; }
  } evaluator;
  evaluator.verdict = [&](const std::string& name) { return name == narrow ? Drop::wrong_result : Drop::none; };
  const Case cases[] = {case_of("step H16 K128 V128 bf16 @ B64 T1"), case_of("forward H4 K64 V64 bf16 @ B4 T64")};
  PrepareOptions options{.threads = 1, .pack = folder / "p.pack", .table = &table};
  const auto compiled = [&] {
    const int before = evaluator.optimised;
    const auto prepared = prepare(evaluator, cases, options).value();
    CHECK(prepared.size() == 2);
    CHECK(prepared[1].shipped == false);
    return evaluator.optimised - before;
  };
  CHECK(compiled() == 2);
  CHECK(compiled() == 0);
  const auto again = prepare(evaluator, cases, options).value();
  CHECK(again[0].state == Prepared::State::already);
  CHECK(again[0].variant == wide);
  CHECK(again[0].shipped == true);
  evaluator.version = "2";
  CHECK(compiled() == 2);
  options.table = &better;  // whose winner is wrong, so that the default takes its place
  CHECK(compiled() == 2);
  CHECK(compiled() == 0);
}

TEST_CASE("shipped: tuning begins with the shipped winner and keeps it on a tie; its winners make a table",
          "[tune][shipped]") {
  const Folder folder;
  // A variant that neither a small budget nor the defaults would have tried.
  const auto line = "step H16 K128 V128 bf16 @ B64 T1";
  const auto space = make_space(case_of(line), h100).value();
  const auto last = space.candidates.back().name;
  const auto table = table_of(row(line, last) + row("step H16 K128 V128 bf16 @ B1 T1", gone));
  ToyGpu evaluator;
  evaluator.seconds = [&](const std::string& name) { return name == last ? 1e-3 : 2e-3; };
  ToyRun run(folder, Effort::quick);
  run.options.families = families();
  const auto without = run.tune(evaluator, line).value();
  CHECK(without.state == TuneOutcome::State::tuned);
  CHECK_FALSE(evaluator.timed.contains(last));

  const Folder other;
  ToyRun again(other, Effort::quick);
  again.options.families = families();
  again.options.shipped = &table;
  const auto with = again.tune(evaluator, line).value();
  REQUIRE(with.state == TuneOutcome::State::tuned);
  CHECK_THAT(with.sentence, Catch::StartsWith(last));

  auto written = winners_in(Pack::open(again.options.pack).value(), h100).value();
  REQUIRE(written.winners.size() == 1);
  CHECK(written.name == "NVIDIA-H100-80GB-HBM3");
  CHECK(written.effort == "quick");
  CHECK(to_string(written.winners[0].what) == line);
  CHECK(written.winners[0].variant == last);
  CHECK_THAT(written.winners[0].time, Catch::StartsWith("1000.") and Catch::Contains(" us ["));
  CHECK_THAT(written.winners[0].against_default, Catch::StartsWith("2.00x FASTER"));
  CHECK(parse_winners(to_string(written), written.name).value().winners.size() == 1);
}
