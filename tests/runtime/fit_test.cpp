// How a plan fits a shape, what that is expected to cost, and fallbacks refused.
#include "runtime/fit.hpp"

#include "runtime/glaive.hpp"
#include "runtime/json.hpp"
#include "tests/runtime/bench.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

PackEntry entry_for(const char* variant, Bucket bucket, const std::string& evidence, const char* policy = "v1") {
  PackEntry entry = kernel_entry();
  entry.plan.variant = variant;
  entry.key.bucket = bucket;
  entry.key.policy = policy;
  entry.evidence = evidence;
  return entry;
}

Measured measured(const char* variant, Bucket bucket, std::vector<std::pair<std::string, double>> rivals = {}) {
  return {.variant = variant, .bucket = bucket, .headroom = {}, .rivals = std::move(rivals)};
}

/// An operator over a pack of these.
struct Served {
  Folder folder;
  std::vector<PackEntry> entries;
  api::Device device = api::Device("cpu", 2);
  std::optional<api::Operator> op;

  explicit Served(std::vector<PackEntry> of) : entries(std::move(of)) {
    REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
    const api::Pack pack((folder / "p.pack").string());
    op.emplace(device, pack, api::Problem(kernel_problem));
  }
  glaive_fit fit(std::int64_t sequences, std::int64_t tokens) const {
    const api::Shape shape{api::Sequences(sequences), api::Tokens(tokens)};
    return op->plan(shape).fit(shape);
  }
};

}  // namespace

TEST_CASE("json: members, items, numbers and strings are found, and what is not there is absent") {
  const JsonView json(R"( {"a": -1.5e3 , "b":[1, "two" ,{"c":"}]"}], "d": {"e": "\"x"}, "a": 2, "n": null} )");
  CHECK(json["a"].number() == -1500.0);
  REQUIRE(json["b"].items().size() == 3);
  CHECK(json["b"].items()[1].text() == "two");
  CHECK(json["b"].items()[2]["c"].text() == "}]");
  CHECK(json["d"]["e"].text().empty());  // has an escape
  CHECK_FALSE(json["n"].number());
  CHECK_FALSE(json["z"]["y"].number());
  CHECK(json["a"].items().empty());
  CHECK(JsonView("[]").items().empty());
  CHECK(JsonView("[ [1,2], [] ]").items().size() == 2);
}

TEST_CASE("json: no text is read past its end") {
  const std::string whole = R"({"a": [1, {"b": "c\\"}, "d"], "e": 1.5})";
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string text = whole.substr(0, random() % (whole.size() + 1));
    if (not text.empty() and random() % 2 == 0) text[random() % text.size()] = R"({}[]",:\ 1)"[random() % 10];
    const std::vector<char> exact(text.begin(), text.end());  // whose end a sanitizer watches
    const JsonView json(std::string_view(exact.data(), exact.size()));
    json["e"].number();
    for (const JsonView& item : json["a"].items()) item["b"].text();
  }
}

TEST_CASE("fit: evidence tells the shape that was timed, the headroom and the rivals, the sharper ratio first") {
  const auto m = read_measured(entry_for("w", {2, 1}, R"({"case": "forward H4 Hkv2 K8 V8 f32 @ lens=3,0,7",
    "roof_share": 0.8, "final": [{"challenger": "a", "holder": "w", "ratio": 1.25},
    {"challenger": "w", "holder": "b", "ratio": 0.5}, {"challenger": "a", "holder": "b", "ratio": 3}],
    "defaults": [{"variant": "d", "winner": {"ratio": 0.8}}, {"variant": "w", "winner": {"ratio": 1}}],
    "screened": [{"variant": "a", "ratio": 9}, {"variant": "s", "ratio": 1.5}, {"variant": "z", "ratio": 0}]})"));
  CHECK(std::array{m.sequences, m.tokens, m.longest} == std::array<std::int64_t, 3>{3, 10, 7});
  CHECK(m.headroom == Approx(0.25));
  const std::vector<std::pair<std::string, double>> rivals = {{"a", 1.25}, {"b", 2.0}, {"d", 1.25}, {"s", 1.5}};
  CHECK(m.rivals == rivals);
  for (const char* nothing : {"", "{}", "no JSON", R"({"roof_share": 1.5, "case": 7, "final": 1})"}) {
    const auto none = read_measured(entry_for("w", {2, 1}, nothing));
    CHECK(none.sequences == 0);
    CHECK_FALSE(none.headroom);
    CHECK(none.rivals.empty());
  }
}

TEST_CASE("fit: the regret of a step is the mean loss of who would have stood in, by the steps between them") {
  CHECK_FALSE(regret_per_step({}));
  const Measured alone[] = {measured("a", {2, 1})};
  CHECK_FALSE(regret_per_step(alone));
  const Measured same[] = {measured("a", {2, 1}), measured("a", {4, 1})};
  CHECK(regret_per_step(same) == 0.0);
  const Measured unknown[] = {measured("a", {2, 1}), measured("b", {4, 1})};
  CHECK_FALSE(regret_per_step(unknown));
  const Measured one[] = {measured("a", {2, 1}, {{"b", 1.3}}), measured("b", {4, 1})};
  CHECK(regret_per_step(one) == Approx(0.15));  // 30 % two steps away
  const Measured both[] = {measured("a", {2, 1}, {{"b", 1.3}}), measured("b", {4, 1}, {{"a", 0.9}})};
  CHECK(regret_per_step(both) == Approx(0.075));  // who was faster in screening is no loss
  // The nearest stands in; of two as near the newer; never one of the same bucket.
  const Measured three[] = {measured("a", {2, 1}, {{"b", 2.0}, {"c", 1.1}}), measured("x", {2, 1}),
                            measured("b", {3, 1}), measured("c", {2, 2})};
  CHECK(regret_per_step({three, 1}).has_value() == false);
  const Measured around[] = {three[0], three[2], three[3]};
  CHECK(regret_per_step(around) == Approx(0.1));
}

TEST_CASE("fit: an engine learns whether a plan is its shape's own, how far it is off, and what it may cost") {
  // work 4..7 and 16..31, tokens 2..15
  const Served served({entry_for("near", {2, 1}, R"({"case": "forward H4 Hkv2 K8 V8 f32 @ B2 T8", "roof_share": 0.5,
                                                     "screened": [{"variant": "far", "ratio": 1.2}]})"),
                       entry_for("far", {4, 1}, "{}")});
  const auto own = served.fit(2, 3);
  CHECK(own.match == GLAIVE_MATCH_EXACT);
  CHECK(own.distance == 0);
  CHECK(std::array{own.work_low, own.work_high, own.tokens_low, own.tokens_high} ==
        std::array<std::int64_t, 4>{4, 7, 2, 15});
  CHECK(std::array{own.timed_sequences, own.timed_tokens, own.timed_longest} == std::array<std::int64_t, 3>{2, 16, 8});
  CHECK(own.regret == 0);
  CHECK(own.headroom == Approx(1));

  const auto fallback = served.fit(1, 20);  // work 2..3, tokens 16..63
  CHECK(fallback.match == GLAIVE_MATCH_NEAREST);
  CHECK(fallback.distance == 2);
  CHECK(fallback.work_low == 4);
  CHECK(fallback.regret == Approx(2 * 0.1));
  const auto last = served.fit(4000, 3);
  CHECK(last.work_low == 16);
  CHECK(std::isnan(last.headroom));
  CHECK(last.regret == Approx(0.1 * last.distance));

  // A plan may be asked about another shape than that it was looked up for.
  const api::Shape shape{api::Sequences(2), api::Tokens(3)}, other{api::Sequences(2), api::Tokens(70000)};
  const auto moved = served.op->plan(shape).fit(other);
  CHECK(moved.match == GLAIVE_MATCH_NEAREST);
  CHECK(moved.distance == 7);
  CHECK(served.op->plan(shape).match() == GLAIVE_MATCH_EXACT);
}

TEST_CASE("fit: the last ranges have no end, and what nobody measured is unknown") {
  const Served served({entry_for("last", {14, 8}, "{}")});
  const auto fit = served.fit(5000, 70000);
  CHECK(fit.match == GLAIVE_MATCH_EXACT);
  CHECK(fit.work_high == -1);
  CHECK(fit.tokens_high == -1);
  CHECK(fit.timed_sequences == 0);
  CHECK(std::isnan(served.fit(1, 3).regret));  // one winner tells nothing of others

  const char* evidence = R"({"screened": [{"variant": "b", "ratio": 1.2}]})";
  auto foreign = std::vector{entry_for("a", {2, 1}, evidence), entry_for("b", {4, 1}, "{}")};
  for (PackEntry& entry : foreign) entry.key.device = "name=another";
  CHECK(Served(foreign).fit(1, 3).match == GLAIVE_MATCH_OTHER_DEVICE);
  CHECK(std::isnan(Served(foreign).fit(1, 3).regret));
  const Served threads(
      {entry_for("a", {2, 1}, evidence, "v1 threads=7"), entry_for("b", {4, 1}, "{}", "v1 threads=7")});
  CHECK(threads.fit(2, 3).match == GLAIVE_MATCH_NEAREST);
  CHECK(threads.fit(2, 3).distance == 0);
  CHECK(std::isnan(threads.fit(2, 3).regret));
  CHECK(std::isnan(threads.fit(1, 30).regret));

  auto broken = entry_for("broken", {2, 1}, "{}");
  broken.code[0].bytes.resize(64);
  const Served demoted({entry_for("a", {2, 1}, evidence), entry_for("b", {4, 1}, "{}"), broken});
  CHECK(demoted.fit(2, 3).match == GLAIVE_MATCH_NEAREST);  // what is newer could not be loaded
  CHECK(std::isnan(demoted.fit(1, 30).regret));
}

TEST_CASE("fit: fallbacks can be refused, with a sentence that says what is at hand and how to tune") {
  const Served served({entry_for("near", {2, 1}, "{}")});
  const glaive_plan* plan = nullptr;
  const api::Shape own{api::Sequences(2), api::Tokens(3)}, other{api::Sequences(3), api::Tokens(900)};
  const auto within = [&](const api::Shape& shape, int worst) {
    return glaive_operator_plan_within(served.op->get(), &shape, static_cast<glaive_match>(worst), &plan);
  };
  CHECK(within(own, GLAIVE_MATCH_EXACT) == GLAIVE_OK);
  REQUIRE(plan != nullptr);
  plan = nullptr;
  CHECK(within(other, GLAIVE_MATCH_EXACT) == GLAIVE_UNSUPPORTED);
  CHECK(plan == nullptr);
  CHECK(std::string(glaive_last_error()) ==
        "the plan at hand for work 4..7, tokens 256..1023 is no better than a fallback: near, tuned for work 4..7, "
        "tokens "
        "2..15; tune it with: glaive tune 'forward H4 Hkv2 K8 V8 f32 @ B3 T900'");
  CHECK(served.op->untuned() == 0);  // nobody was answered
  CHECK(within(other, GLAIVE_MATCH_NEAREST) == GLAIVE_OK);
  CHECK(within(other, GLAIVE_MATCH_OTHER_DEVICE) == GLAIVE_OK);
  CHECK(served.op->untuned() == 2);
  CHECK(within(own, 3) == GLAIVE_INVALID_ARGUMENT);
  CHECK(contains(glaive_last_error(), "worst is 3; allowed are 0 (exact) 1 (nearest) 2 (other device)"));
  CHECK(glaive_operator_plan_within(nullptr, &own, GLAIVE_MATCH_EXACT, &plan) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_operator_plan_within(served.op->get(), &own, GLAIVE_MATCH_EXACT, nullptr) == GLAIVE_INVALID_ARGUMENT);
  CHECK_THROWS_AS(served.op->plan(other, GLAIVE_MATCH_EXACT), api::Error);
  CHECK(served.op->plan(other, GLAIVE_MATCH_NEAREST).variant() == "near");

  auto foreign = entry_for("far", {2, 1}, "{}");
  foreign.key.device = "name=another";
  const Served elsewhere({foreign});
  CHECK(glaive_operator_plan_within(elsewhere.op->get(), &own, GLAIVE_MATCH_NEAREST, &plan) == GLAIVE_UNSUPPORTED);
  CHECK(contains(glaive_last_error(), "far, tuned for work 4..7, tokens 2..15 on another device; tune it"));
}

TEST_CASE("fit: the struct is filled for older callers and newer ones") {
  const Served served({entry_for("near", {2, 1}, "{}")});
  const api::Shape shape{api::Sequences(2), api::Tokens(3)};
  const api::PlanView plan = served.op->plan(shape);
  struct {
    glaive_fit fit;
    std::uint64_t newer[4];
  } later;
  std::memset(&later, 0x5a, sizeof later);
  later.fit.size = sizeof later;
  CHECK(glaive_plan_fit(plan.get(), &shape, &later.fit) == GLAIVE_OK);
  CHECK(later.fit.size == sizeof later);
  CHECK(later.fit.match == GLAIVE_MATCH_EXACT);
  CHECK(later.newer[0] == 0x5a5a5a5a5a5a5a5a);  // fields that this version does not know stay
  for (const std::size_t size : {std::size_t{0}, sizeof(glaive_fit) - 1, std::size_t{5000}}) {
    glaive_fit fit = {};
    fit.size = size;
    CHECK(glaive_plan_fit(plan.get(), &shape, &fit) == GLAIVE_INVALID_ARGUMENT);
    CHECK(
        contains(glaive_last_error(), "fit->size is " + std::to_string(size) + "; set it to sizeof(fit[0]), 88 bytes"));
  }
  CHECK(glaive_plan_fit(nullptr, &shape, &later.fit) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_fit(plan.get(), nullptr, &later.fit) == GLAIVE_INVALID_ARGUMENT);
  CHECK(glaive_plan_fit(plan.get(), &shape, nullptr) == GLAIVE_INVALID_ARGUMENT);
}
