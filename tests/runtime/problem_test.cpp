#include "runtime/problem.hpp"

#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

Problem problem_of(const char* text) {
  const auto problem = parse_problem(text);
  INFO(text);
  REQUIRE(problem.has_value());
  return *problem;
}

/// The word that a bad case's caret line is under, and the sentence.
struct Complaint {
  std::string word, sentence;
};
Complaint complaint(const std::string& text) {
  const auto parsed = parse_case(text);
  INFO(text);
  REQUIRE_FALSE(parsed.has_value());
  const ParseError& error = parsed.error();
  CHECK(error.length >= 1);
  CHECK(error.column <= text.size());
  return {error.column < text.size() ? text.substr(error.column, error.length) : "<end>", error.message};
}

}  // namespace

TEST_CASE("a case reads as documented") {
  const auto parsed = parse_case("forward H16 Hkv4 K128 V64 bf16 gate=f32 state=bf16 logit vk @ B8 T2048");
  REQUIRE(parsed.has_value());
  const Problem& p = parsed->problem;
  CHECK(p.op == Op::forward);
  CHECK(p.heads == Heads(16));
  CHECK(p.kv_heads == KvHeads(4));
  CHECK(p.k == KeyDim(128));
  CHECK(p.v == ValueDim(64));
  CHECK(p.io == DType::bf16);
  CHECK(p.gate == DType::f32);
  CHECK(p.state == DType::bf16);
  CHECK(p.gate_form == GateForm::logit);
  CHECK(p.layout == StateLayout::vk);
  CHECK(parsed->shape == Shape::uniform(Sequences(8), Tokens(2048)));
}

TEST_CASE("what a problem leaves out has its documented default") {
  const Problem p = problem_of("H4 K32 V16");
  CHECK(p.op == Op::forward);
  CHECK(p.kv_heads == KvHeads(4));
  CHECK(p.io == DType::f32);
  CHECK(p.state == DType::f32);
  CHECK(p.gate_form == GateForm::log);
  CHECK(p.layout == StateLayout::kv);
  CHECK(problem_of("H4 K32 V16 f16").gate == DType::f16);
  CHECK(parse_problem("H4 K32 V16", DType::bf16)->io == DType::bf16);
  CHECK(parse_problem("H4 K32 V16", DType::bf16)->gate == DType::bf16);
  CHECK(parse_problem("H4 K32 V16 f16", DType::bf16)->io == DType::f16);
}

TEST_CASE("words may come in any order on their side of the @") {
  const auto a = parse_case("vk V64 bf16 K128 logit Hkv4 gate=f32 H16 step @ T3 B2");
  const auto b = parse_case("step H16 Hkv4 K128 V64 bf16 gate=f32 logit vk @ B2 T3");
  REQUIRE(a.has_value());
  REQUIRE(b.has_value());
  CHECK(*a == *b);
}

TEST_CASE("the canonical text leaves out what is at its default") {
  CHECK(to_string(problem_of("forward H4 Hkv4 K32 V16 f32 gate=f32 state=f32")) == "forward H4 K32 V16 f32");
  CHECK(to_string(problem_of("H16 Hkv4 K128 V128 bf16 gate=f32 logit vk")) ==
        "forward H16 Hkv4 K128 V128 bf16 gate=f32 logit vk");
  CHECK(to_string(problem_of("step H1 K1 V1 bf16 state=bf16")) == "step H1 K1 V1 bf16 state=bf16");
  CHECK(to_string(Shape::ragged({Tokens(300), Tokens(0), Tokens(17)})) == "lens=300,0,17");
  CHECK(to_string(*parse_case("H1 K1 V1@B1 T0")) == "forward H1 K1 V1 f32 @ B1 T0");
}

TEST_CASE("parsing the text of any valid case gives the case back") {
  std::mt19937 random(20240607);
  for (int i = 0; i < 3000; ++i) {
    const Case c = random_case(random);
    REQUIRE(validate(c.problem).has_value());
    REQUIRE(validate(c.shape).has_value());
    const auto parsed = parse_case(to_string(c));
    INFO(to_string(c));
    REQUIRE(parsed.has_value());
    REQUIRE(*parsed == c);
    REQUIRE(parse_problem(to_string(c.problem)) == c.problem);
  }
}

TEST_CASE("problems that differ have different texts") {
  std::mt19937 random(5);
  std::vector<Problem> seen;
  for (int i = 0; i < 300; ++i) {
    const Problem p = random_case(random).problem;
    for (const Problem& other : seen) REQUIRE((to_string(p) == to_string(other)) == (p == other));
    seen.push_back(p);
  }
}

TEST_CASE("an error points at the offending word") {
  struct Row {
    const char *text, *word, *part;
  };
  const Row rows[] = {
      {"forwards H4 K8 V8 @ B1 T1", "forwards", "unknown word"},
      {"forward H4 K8 V8 f64 @ B1 T1", "f64", "unknown word"},
      {"forward H0 K8 V8 @ B1 T1", "H0", "1 to 65536"},
      {"forward H-4 K8 V8 @ B1 T1", "H-4", "whole number"},
      {"forward H+4 K8 V8 @ B1 T1", "H+4", "whole number"},
      {"forward H K8 V8 @ B1 T1", "H", "whole number"},
      {"forward H4x K8 V8 @ B1 T1", "H4x", "whole number"},
      {"forward H4 K8.5 V8 @ B1 T1", "K8.5", "whole number"},
      {"forward H4 K513 V8 @ B1 T1", "K513", "1 to 512"},
      {"forward H4 K8 V99999999999999999999 @ B1 T1", "V99999999999999999999", "1 to 512"},
      {"forward H6 Hkv4 K8 V8 @ B1 T1", "Hkv4", "multiple"},
      {"forward H2 Hkv4 K8 V8 @ B1 T1", "Hkv4", "multiple"},
      {"forward H4 K8 K9 V8 @ B1 T1", "K9", "repeats"},
      {"forward step H4 K8 V8 @ B1 T1", "step", "repeats"},
      {"forward H4 K8 V8 f32 bf16 @ B1 T1", "bf16", "repeats"},
      {"forward H4 K8 V8 gate=f8 @ B1 T1", "gate=f8", "no dtype"},
      {"forward H4 K8 V8 state= @ B1 T1", "state=", "no dtype"},
      {"forward H4 K8 V8 T5 @ B1", "T5", "after the @"},
      {"forward H4 K8 V8 lens=1,2", "lens=1,2", "after the @"},
      {"forward H4 K8 V8 @ B1 T1 vk", "vk", "before the @"},
      {"forward H4 K8 V8 @ B1 T1 Hkv2", "Hkv2", "before the @"},
      {"forward H4 K8 V8 @ B1 T1 gate=f32", "gate=f32", "before the @"},
      {"forward H4 K8 V8 @ B0 T1", "B0", "from 1"},
      {"forward H4 K8 V8 @ B1 T-1", "T-1", "from 0"},
      {"forward H4 K8 V8 @ B1 T1 T2", "T2", "repeats"},
      {"forward H4 K8 V8 @ B65536 T65536", "T65536", "2147483647"},
      {"forward H4 K8 V8 @ B1 T1 x", "x", "unknown word"},
      {"forward H4 K8 V8 @ B1 T1 @ B1 T1", "@", "one @"},
      {"forward H4 K8 V8 @ lens=1,,2", ",", "lens="},
      {"forward H4 K8 V8 @ lens=1,two,2", "two", "lens="},
      {"forward H4 K8 V8 @ lens=1,-2", "-2", "lens="},
      {"forward H4 K8 V8 @ lens=2147483647,1", "1", "2147483647"},
      {"forward H4 K8 V8 @ lens=1 lens=2", "lens=2", "twice"},
      {"forward H4 K8 V8 @ B1 lens=1,2", "lens=1,2", "alone"},
      {"forward H4 V8 @ B1 T1", " ", "K<n>"},
      {"H4 K8 V8 @ B1", "<end>", "T<n>"},
      {"H4 K8 V8 @", "<end>", "B<n>"},
      {"H4 K8 V8 @ lens=", "<end>", "lens="},
      {"H4 K8 V8", "<end>", "shape is missing"},
      {"", "<end>", "H<n>"},
  };
  for (const Row& row : rows) {
    const Complaint got = complaint(row.text);
    INFO(row.text << " -> " << got.sentence);
    CHECK(got.word == row.word);
    CHECK(contains(got.sentence, row.part));
  }
}

TEST_CASE("the caret line stands under the word, whatever precedes it") {
  const std::string plain = "forward H4 K8 W8 @ B1 T1";
  CHECK(parse_case(plain).error().pointing_at(plain).starts_with(plain + "\n              ^^\nunknown word \"W8\""));
  const std::string tabbed = "\tH4\tW8 K8 V8 @ B1 T1";
  CHECK(contains(parse_case(tabbed).error().pointing_at(tabbed), "\n\t  \t^^\n"));
  const std::string accented = "h\xc3\xa9 H4 K8 V8 @ B1 T1";
  CHECK(contains(parse_case(accented).error().pointing_at(accented), "\n^^\n"));
}

TEST_CASE("a message never carries bytes that a terminal would act on") {
  const auto parsed = parse_problem("H4 \x1b[31m\xff K8 V8");
  REQUIRE_FALSE(parsed.has_value());
  for (const char c : parsed.error().message) REQUIRE((c >= 0x20 and c < 0x7f));
  CHECK(parse_problem(std::string(100000, 'x')).error().message.size() < 400);
}

TEST_CASE("no text makes the parser misbehave") {
  std::mt19937 random(99);
  const std::string seed =
      "forward H16 Hkv4 K128 V128 bf16 gate=f32 state=f16 logit vk @ B8 T2048 lens=1,2 \t\r\n#@=,-";
  for (int i = 0; i < 20000; ++i) {
    std::string text = to_string(random_case(random));
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = seed[random() % seed.size()];
          break;
        case 1:
          text.erase(at, 1 + random() % 3);
          break;
        default:
          text.insert(at, 1, static_cast<char>(random() % 256));
      }
      if (text.empty()) text = "H";
    }
    if (const auto parsed = parse_case(text)) {
      REQUIRE(validate(parsed->problem).has_value());
      REQUIRE(validate(parsed->shape).has_value());
      REQUIRE(parse_case(to_string(*parsed)) == *parsed);
    } else {
      REQUIRE(parsed.error().column <= text.size());
      REQUIRE_FALSE(parsed.error().message.empty());
      (void)parsed.error().pointing_at(text);
    }
  }
}

TEST_CASE("a problem set skips comments and blank lines") {
  const auto cases =
      parse_cases("# a set\n\n  \t\nforward H4 K8 V8 @ B1 T1  # one\r\nstep H4 K8 V8 @ lens=1,2", "set.txt");
  REQUIRE(cases.has_value());
  REQUIRE(cases->size() == 2);
  CHECK((*cases)[0].shape == Shape::uniform(Sequences(1), Tokens(1)));
  CHECK((*cases)[1].problem.op == Op::step);
  CHECK(parse_cases("", "set.txt")->empty());
  CHECK(parse_cases("H4 K8 V8 @ B1 T1", "set.txt", DType::bf16)->front().problem.io == DType::bf16);
}

TEST_CASE("an error in a problem set names file, line and column") {
  const auto cases = parse_cases("# a set\nforward H4 K8 V8 @ B1 T1\n\nforward H4 K8 V0 @ B1 T1 # no\n", "my set.txt");
  REQUIRE_FALSE(cases.has_value());
  CHECK(cases.error().status == Status::invalid_argument);
  CHECK(cases.error().message.starts_with("my set.txt:4:15: V is the number of value channels"));
  CHECK(cases.error().message.ends_with("\nforward H4 K8 V0 @ B1 T1 # no\n              ^^"));
}

TEST_CASE("a comment does not hide a missing shape") {
  CHECK(parse_cases("step H4 K8 V8 @ B2 T8\nstep H4 K8 V8 @ lens=1,9,0", "s")
            .error()
            .message.starts_with("s:2:17: a step takes at most 8 tokens of each sequence, not 9"));
  CHECK(parse_cases("forward H4 K8 V8 # @ B1 T1", "s").error().message.starts_with("s:1:17: the shape is missing"));
}

TEST_CASE("a shape knows its totals") {
  const Shape uniform = Shape::uniform(Sequences(3), Tokens(7));
  CHECK(uniform.is_uniform());
  CHECK(uniform.total() == Tokens(21));
  CHECK(uniform.longest() == Tokens(7));
  CHECK(uniform.length(2) == Tokens(7));
  const Shape ragged = Shape::ragged({Tokens(4), Tokens(0), Tokens(9)});
  CHECK_FALSE(ragged.is_uniform());
  CHECK(ragged.sequences() == Sequences(3));
  CHECK(ragged.total() == Tokens(13));
  CHECK(ragged.longest() == Tokens(9));
  CHECK(ragged.length(1) == Tokens(0));
}

TEST_CASE("validate refuses what is outside the contract") {
  const Problem good = problem_of("H4 Hkv2 K8 V8");
  CHECK(validate(good).has_value());
  const auto refuses = [&](auto&& change, const char* part) {
    Problem bad = good;
    change(bad);
    const auto result = validate(bad);
    REQUIRE_FALSE(result.has_value());
    CHECK(result.error().status == Status::invalid_argument);
    CHECK(contains(result.error().message, part));
  };
  refuses([](Problem& p) { p.heads = Heads(0); }, "query heads");
  refuses([](Problem& p) { p.kv_heads = KvHeads(-1); }, "kv heads");
  refuses([](Problem& p) { p.kv_heads = KvHeads(3); }, "multiple");
  refuses([](Problem& p) { p.k = KeyDim(513); }, "1 to 512");
  refuses([](Problem& p) { p.v = ValueDim(0); }, "1 to 512");

  CHECK(validate(Shape::uniform(Sequences(1), Tokens(0))).has_value());
  CHECK(validate(Shape::uniform(Sequences(1), Tokens(0x7fffffff))).has_value());
  CHECK_FALSE(validate(Shape::uniform(Sequences(0), Tokens(1))).has_value());
  CHECK_FALSE(validate(Shape::uniform(Sequences(1), Tokens(-1))).has_value());
  CHECK_FALSE(validate(Shape::uniform(Sequences(2), Tokens(0x40000000))).has_value());
  CHECK_FALSE(validate(Shape::uniform(Sequences(INT64_MAX), Tokens(INT64_MAX))).has_value());
  CHECK_FALSE(validate(Shape::ragged({})).has_value());
  CHECK_FALSE(validate(Shape::ragged({Tokens(5), Tokens(-1)})).has_value());
  CHECK_FALSE(validate(Shape::ragged({Tokens(0x7fffffff), Tokens(1)})).has_value());
}

TEST_CASE("a call's extents are those of its problem and shape") {
  const Extents e = extents_of(problem_of("H4 Hkv2 K8 V16"), Shape::ragged({Tokens(5), Tokens(3)}), 6);
  CHECK(e[Axis::sequences] == 2);
  CHECK(e[Axis::tokens] == 8);
  CHECK(e[Axis::longest] == 5);
  CHECK(e[Axis::heads] == 4);
  CHECK(e[Axis::kv_heads] == 2);
  CHECK(e[Axis::k] == 8);
  CHECK(e[Axis::v] == 16);
  CHECK(e[Axis::workers] == 6);
}

TEST_CASE("useful operations and minimal bytes") {
  const Shape shape = Shape::uniform(Sequences(2), Tokens(10));
  CHECK(useful_operations(problem_of("H4 K8 V16"), shape) == 4.0 * 8 * 16 * 4 * 20);
  CHECK(useful_operations(problem_of("H4 Hkv2 K8 V16"), shape) == (2.0 * 4 + 2.0 * 2) * 8 * 16 * 20);
  // q 32 + o 64 + k 16 + v 32 elements of 2 bytes and g 16 of 4 a token; two states of 2*8*16 fp32 a sequence.
  CHECK(minimal_bytes(problem_of("H4 Hkv2 K8 V16 bf16 gate=f32"), shape) ==
        20.0 * (2 * (32 + 64 + 16 + 32) + 4 * 16) + 2.0 * 2 * 2 * 8 * 16 * 4);
}
