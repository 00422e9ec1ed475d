#include <algorithm>
#include <fstream>
#include <iterator>

#include "autotune/dtypes.hpp"
#include "tests/autotune/numbers_support.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

std::vector<Trial> trials_for(const Case& what) {
  std::vector<Trial> trials;
  std::uint64_t seed = 1;
  for (const Case& small : verification_cases(what))
    for (const Gates gates : all_gates) trials.emplace_back(small, gates, seed++);
  return trials;
}

const Case usual = parse("forward H8 Hkv4 K12 V10 f32 @ B4 T4096");

Verdict verdict_on(Bug bug, const Case& what = usual) {
  auto trials = trials_for(what);
  return verify(kernel_of(what.problem, bug), "stub(C=16)", trials);
}

}  // namespace

TEST_CASE("a right kernel passes, and its error is reported") {
  for (const char* line : {"forward H8 Hkv4 K12 V10 f32 @ B4 T4096", "forward H4 K16 V16 f32 vk @ B1 T64",
                           "forward H1 K1 V1 f32 @ B1 T1", "forward H4 Hkv1 K8 V24 f32 @ lens=300,0,17",
                           "forward H2 K8 V8 f32 logit @ B1 T9", "step H4 K8 V8 f32 @ B64 T1"}) {
    const auto verdict = verdict_on(Bug::none, parse(line));
    INFO(line << "\n" << verdict.message);
    CHECK(verdict.drop == Drop::none);
    CHECK(verdict.message.empty());
    CHECK(verdict.error_o > 0);
    CHECK(verdict.error_o < 1e-7);
    CHECK(verdict.error_state < 1e-7);
  }
}

TEST_CASE("wrong arithmetic is a wrong result") {
  for (const Bug bug : {Bug::decays_late, Bug::reads_state_early, Bug::ignores_initial_state, Bug::wrong_head,
                        Bug::transposes_state, Bug::forgets_scale, Bug::clears_state_first}) {
    INFO(static_cast<int>(bug));
    CHECK(verdict_on(bug).drop == Drop::wrong_result);
  }
}

TEST_CASE("a skipped last token is a wrong result, also where it is the only one") {
  CHECK(verdict_on(Bug::skips_last_token).drop == Drop::wrong_result);
  for (const Case& small : verification_cases(usual)) {
    std::vector<Trial> one;
    one.emplace_back(small, Gates::weak, 1);
    CHECK(verify(kernel_of(usual.problem, Bug::skips_last_token), "stub", one).drop == Drop::wrong_result);
  }
}

TEST_CASE("what is wrong at the end of a large tensor is found") {
  std::vector<Trial> one;
  one.emplace_back(parse("forward H4 K8 V64 f32 @ B1 T600"), Gates::weak, 1);
  Guarded& o = one[0].call.o;
  const auto right = kernel_of(one[0].call.what.problem, Bug::none);
  const auto verdict_with_last = [&](std::optional<float> last) {
    const Runner run = [&](const Words& words, const Extents& extents) {
      right(words, extents);
      if (last) o.put(std::ssize(o.data()) - 1, std::span(&*last, 1));
    };
    return verify(run, "stub", one);
  };
  CHECK(verdict_with_last({}).drop == Drop::none);
  CHECK(verdict_with_last(100).drop == Drop::wrong_result);
  CHECK_THAT(verdict_with_last(100).message, Catch::Contains("token 599 head 3 channel 63"));
  CHECK(verdict_with_last(std::nanf("")).drop == Drop::nan_output);
}

TEST_CASE("a state that is not stored is an element never written") {
  const auto verdict = verdict_on(Bug::never_stores_state);
  CHECK(verdict.drop == Drop::nan_output);
  CHECK(verdict.message.find("state_out") != std::string::npos);
  CHECK(verdict.message.find("never written") != std::string::npos);
}

TEST_CASE("a state that is not stored in place is a wrong result") {
  std::vector<Trial> one;
  one.emplace_back(verification_cases(usual)[1], Gates::weak, 3);
  REQUIRE(one[0].call.passing == Passing::in_place);
  CHECK(verify(kernel_of(usual.problem, Bug::never_stores_state), "stub", one).drop == Drop::wrong_result);
}

TEST_CASE("one element never written, or NaN, is told apart and placed") {
  const auto unwritten = verdict_on(Bug::one_output_unwritten), nan = verdict_on(Bug::one_nan);
  CHECK(unwritten.drop == Drop::nan_output);
  CHECK(unwritten.message.find("1 elements never written and 0 NaN") != std::string::npos);
  CHECK(unwritten.message.find("sequence 0 token 0 head 0 channel 1") != std::string::npos);
  CHECK(nan.drop == Drop::nan_output);
  CHECK(nan.message.find("0 elements never written and 1 NaN") != std::string::npos);
}

TEST_CASE("0 times inf through exp(-inf) is a NaN, found by the infinite gates") {
  const auto verdict = verdict_on(Bug::multiplies_by_zero);
  CHECK(verdict.drop == Drop::nan_output);
  CHECK((verdict.message.find("infinite") != std::string::npos or verdict.message.find("resets") != std::string::npos));
}

TEST_CASE("writes outside are found") {
  const std::pair<Bug, const char*> bugs[] = {{Bug::writes_before_o, "outside o"},
                                              {Bug::writes_after_state, "outside state_out"},
                                              {Bug::writes_padding, "o was written where nothing belongs"},
                                              {Bug::writes_input, "input k"}};
  for (const auto& [bug, words] : bugs) {
    const auto verdict = verdict_on(bug);
    INFO(verdict.message);
    CHECK(verdict.drop == Drop::out_of_bounds);
    CHECK(verdict.message.find(words) != std::string::npos);
  }
}

TEST_CASE("a write to a slot that no sequence writes is found") {
  std::vector<Trial> one;
  one.emplace_back(verification_cases(usual)[1], Gates::weak, 2);
  const auto run = [&](const Words& words, const Extents&) {
    run_kernel(usual.problem, words, Bug::none);
    reinterpret_cast<float*>(words[Arg::state_out])[0] = 1;
  };
  const auto verdict = verify(run, "stub", one);
  CHECK(verdict.drop == Drop::out_of_bounds);
  CHECK(verdict.message.find("slot 0") != std::string::npos);
}

TEST_CASE("ignored strides are found") { CHECK(verdict_on(Bug::assumes_contiguous).drop != Drop::none); }

TEST_CASE("a slot of -1 must start from zero") {
  const auto verdict = verdict_on(Bug::forgets_zero_slots);
  CHECK((verdict.drop == Drop::wrong_result or verdict.drop == Drop::nan_output));
  CHECK(verdict.message.find("strided") != std::string::npos);
}

TEST_CASE("two runs that differ in one bit are nondeterministic") {
  const auto verdict = verdict_on(Bug::differs_from_run_to_run);
  CHECK(verdict.drop == Drop::nondeterministic);
}

TEST_CASE("a single element off by 1 % is found where the Frobenius error is too small to show it") {
  std::vector<Trial> large;
  large.emplace_back(parse("forward H2 K8 V64 f32 @ B4 T4000"), Gates::weak, 1);
  const auto found = verify(kernel_of(large[0].call.what.problem, Bug::one_element_off), "stub", large);
  CHECK(found.drop == Drop::wrong_result);
  CHECK(found.error_o < 1.5e-5);
  // The stated blind spot: 1e-4 of the RMS in one element of a million.
  CHECK(verify(kernel_of(large[0].call.what.problem, Bug::one_element_a_bit_off), "stub", large).drop == Drop::none);
}

TEST_CASE("a small error everywhere is found though no element stands out") {
  const auto o = verdict_on(Bug::all_outputs_slightly_off), state = verdict_on(Bug::all_states_slightly_off);
  CHECK(o.drop == Drop::wrong_result);
  CHECK(o.error_o == Approx(1e-5).epsilon(0.1));
  CHECK(state.drop == Drop::wrong_result);
  CHECK(state.error_state == Approx(1e-5).epsilon(0.1));
  CHECK(state.message.starts_with("state_out"));
}

TEST_CASE("a single wrong element of a state is found") {
  std::vector<Trial> large;
  large.emplace_back(parse("forward H64 K128 V64 f32 @ B1 T1"), Gates::weak, 1);
  const auto verdict = verify(kernel_of(large[0].call.what.problem, Bug::one_state_off), "stub", large);
  CHECK(verdict.drop == Drop::wrong_result);
  CHECK(verdict.error_state < 5e-6);
  CHECK(verdict.message.find("slot 0 kv head 0 row 0 column 0") != std::string::npos);
}

TEST_CASE("o and the states have tolerances of their own") {
  std::vector<Trial> one;
  one.emplace_back(parse("forward H2 K8 V8 bf16 @ B1 T40"), Gates::weak, 1);
  Call& call = one[0].call;
  const auto scaled = [&](double o_factor, double state_factor) {
    const auto answer = [](Guarded& tensor, std::span<const double> want, double factor) {
      for (std::size_t i = 0; i < want.size(); ++i)
        if (not std::isnan(want[i])) tensor.data()[i] = static_cast<float>(want[i] * factor);
      tensor.pack();
    };
    return verify(
               [&](const Words&, const Extents&) {
                 answer(call.o, one[0].expected.o, o_factor);
                 answer(call.state_out, one[0].expected.state, state_factor);
               },
               "stub", one)
        .drop;
  };
  CHECK(scaled(1, 1) == Drop::none);
  CHECK(scaled(1.002, 1) == Drop::none);
  CHECK(scaled(1.004, 1) == Drop::wrong_result);
  CHECK(scaled(1, 1.0001) == Drop::wrong_result);
}

TEST_CASE("16-bit tensors hold what the dtype can, rounded to nearest even, and their guards work") {
  for (const DType type : {DType::bf16, DType::f16}) {
    Guarded tensor(3, type);
    CHECK(is_poison(tensor.data()[2]));
    tensor.data()[0] = 1 + 0x1p-9f;  // halfway or below in bf16, exact in f16
    tensor.data()[1] = -std::numeric_limits<float>::infinity();
    tensor.pack();
    CHECK(tensor.data()[0] == (type == DType::bf16 ? 1.0f : 1 + 0x1p-9f));
    CHECK(std::isinf(tensor.data()[1]));
    CHECK(is_poison(tensor.data()[2]));
    CHECK(tensor.guards_intact());
    static_cast<std::uint16_t*>(tensor.memory())[3] = 0;
    CHECK_FALSE(tensor.guards_intact());
  }
}

TEST_CASE("out of bounds comes before NaN, NaN before wrong, wrong before nondeterministic") {
  std::vector<Trial> one;
  one.emplace_back(verification_cases(usual)[1], Gates::weak, 1);
  int runs = 0;
  bool outside = true, nan = true, wrong = true;
  const Runner run = [&](const Words& words, const Extents&) {
    run_kernel(usual.problem, words, Bug::none);
    float* const o = reinterpret_cast<float*>(words[Arg::o]);
    if (outside) o[-2] = 0;
    if (nan) o[3] = NAN;
    if (wrong) o[4] += 1;
    o[5] *= 1 + 1e-7f * static_cast<float>(++runs % 2);
  };
  CHECK(verify(run, "stub", one).drop == Drop::out_of_bounds);
  outside = false;
  one.clear(), one.emplace_back(verification_cases(usual)[1], Gates::weak, 1);  // guards stay broken
  CHECK(verify(run, "stub", one).drop == Drop::nan_output);
  nan = false;
  CHECK(verify(run, "stub", one).drop == Drop::wrong_result);
  wrong = false;
  CHECK(verify(run, "stub", one).drop == Drop::nondeterministic);
}

TEST_CASE("a failure's command line reproduces it") {
  auto trials = trials_for(usual);
  const auto verdict = verify(kernel_of(usual.problem, Bug::skips_last_token), "stub(C=16,tile=32)", trials);
  const std::string& text = verdict.message;
  const auto between = [&](const std::string& from, const std::string& to) {
    const auto start = text.find(from) + from.size();
    return text.substr(start, text.find(to, start) - start);
  };
  REQUIRE(text.find("glaive verify '") != std::string::npos);
  const auto what = parse_case(between("glaive verify '", "'"));
  const auto gates = parse_gates(between("--gates ", " "));
  const auto seed = std::stoull(text.substr(text.find("--seed ") + 7));
  REQUIRE(what);
  REQUIRE(gates);
  CHECK(between("--variant '", "'") == "stub(C=16,tile=32)");
  CHECK(text.ends_with(reproducer(*what, "stub(C=16,tile=32)", *gates, seed)));

  std::vector<Trial> again;
  again.emplace_back(*what, *gates, seed);
  const auto repeated = verify(kernel_of(usual.problem, Bug::skips_last_token), "stub(C=16,tile=32)", again);
  CHECK(repeated.message == text);
}

TEST_CASE("seeds visit every passing, contiguous first") {
  CHECK(passing_of(1) == Passing::contiguous);
  CHECK(passing_of(2) == Passing::strided);
  CHECK(passing_of(3) == Passing::in_place);
  CHECK(passing_of(4) == Passing::stateless);
  CHECK(passing_of(5) == Passing::contiguous);
}

TEST_CASE("tolerances by dtype, o and the states each by their own") {
  const auto of = [](const std::string& problem, const char* shape = "B1 T1") {
    return tolerance(parse(problem + " @ " + shape));
  };
  CHECK(of("forward H1 K8 V8 f32").o.tensor == 5e-6);
  CHECK(of("forward H1 K8 V8 f32").state.tensor == 5e-6);
  CHECK(of("forward H1 K8 V8 f32").o.element == 1e-3);
  CHECK(of("forward H1 K8 V8 bf16").o.tensor == 3e-3);
  CHECK(of("forward H1 K8 V8 bf16").state.tensor == 5e-6);
  CHECK(of("forward H1 K8 V8 bf16").state.element == 1e-3);
  CHECK(of("forward H1 K8 V8 f16").o.tensor == 4e-4);
  CHECK(of("forward H1 K8 V8 f32 state=bf16").state.tensor == 3e-3);
  CHECK(of("forward H1 K8 V8 f32 state=bf16").o.tensor == 5e-6);
  CHECK(of("step H1 K8 V8 f32 state=bf16").o.tensor == 3e-3);
  CHECK(of("step H1 K8 V8 bf16").state.tensor == 5e-6);
  CHECK(of("step H1 K8 V8 f32 state=bf16", "lens=1,4,0").state.tensor == 6e-3);  // rounded up to four times
  CHECK(of("step H1 K8 V8 f32 state=bf16", "lens=1,4,0").o.tensor == 6e-3);
  CHECK(of("step H1 K8 V8 bf16", "B1 T8").state.tensor == 5e-6);
}

TEST_CASE("on a GPU roundings of few elements and of few scores do not average out") {
  const auto of = [](const char* line) { return tolerance(parse(line), Target::Kind::cuda); };
  const double many = of("forward H16 K128 V128 bf16 @ B8 T2048").o.tensor;
  CHECK(many > 3e-3);
  CHECK(many < 3.06e-3);
  CHECK(of("forward H3 K128 V128 bf16 @ B2 T1").o.tensor > 4e-3);
  CHECK(of("forward H3 K128 V128 bf16 @ B2 T1").state.tensor ==
        of("forward H16 K128 V128 bf16 @ B8 T2048").state.tensor);
  CHECK(of("forward H3 K128 V128 f16 @ B2 T1").o.tensor > of("forward H16 K128 V128 f16 @ B8 T2048").o.tensor);
  CHECK(of("step H3 K128 V128 bf16 @ B2 T1").o.tensor == 3e-3);
}

TEST_CASE("an operator that rounds scores and o to bf16 passes, however few its tokens are") {
  constexpr std::size_t columns = 60;
  const auto rounded = [](double x) { return widen(narrow(static_cast<float>(x), DType::bf16), DType::bf16); };
  const auto errors_over = [&](const char* line, int draws, double limit) {
    const Case what = parse(line);
    const auto scores = static_cast<std::size_t>(what.shape.total().count() * what.problem.heads.count());
    int over = 0;
    for (int draw = 0; draw < draws; ++draw) {
      const CounterRng rng(static_cast<std::uint64_t>(draw), 1);
      std::vector<float> random(scores * (1 + columns)), got;
      std::vector<double> want;
      rng.normals(0, random);
      for (std::size_t i = 0; i < scores; ++i)
        for (std::size_t c = 0; c < columns; ++c) {
          const double score = random[i], v = rounded(random[scores + i * columns + c]);
          want.push_back(score * v);
          got.push_back(rounded(rounded(score) * v));
        }
      over += relative_error(got, want) > limit ? 1 : 0;
    }
    return over;
  };
  const char* few = "forward H3 K100 V60 bf16 @ B2 T1";
  const char* more = "forward H3 K100 V60 bf16 @ B1 T100";
  CHECK(errors_over(few, 1000, 3.1e-3) > 10);
  CHECK(errors_over(few, 1000, tolerance(parse(few), Target::Kind::cuda).o.tensor) == 0);
  CHECK(errors_over(more, 200, 2.7e-3) == 0);
}

TEST_CASE("verification cases keep the problem and stay small") {
  for (const char* line : {"forward H32 Hkv8 K128 V128 f32 @ B64 T100000", "forward H1 K128 V256 bf16 vk @ B1 T1",
                           "forward H7 K3 V5 f32 @ lens=9,0", "step H16 Hkv16 K64 V64 f32 @ B1000 T1"}) {
    const Case what = parse(line);
    double token_heads = 0;
    bool single = false, empty = false, many_chunks = false, several = false;
    for (const Case& small : verification_cases(what)) {
      INFO(to_string(small));
      CHECK(validate(small.problem));
      CHECK(validate(small.shape));
      Problem same = small.problem;
      same.heads = what.problem.heads, same.kv_heads = what.problem.kv_heads;
      CHECK(same == what.problem);
      CHECK(small.problem.heads.count() * what.problem.kv_heads.count() ==
            small.problem.kv_heads.count() * what.problem.heads.count());
      CHECK(small.problem.kv_heads <= what.problem.kv_heads);
      if (what.problem.op == Op::step) CHECK(small.shape.longest() <= Tokens(8));
      token_heads += static_cast<double>(small.shape.total().count() * small.problem.kv_heads.count());
      single |= small.shape.longest() == Tokens(1);
      several |= small.shape.sequences() > Sequences(1);
      many_chunks |= small.shape.longest() >= Tokens(256);
      for (std::int64_t b = 0; b < small.shape.sequences().count(); ++b) empty |= small.shape.length(b) == Tokens(0);
    }
    CHECK(token_heads < 1000);
    CHECK(single);
    CHECK(several);
    CHECK(many_chunks == (what.problem.op == Op::forward));
    CHECK(empty == not what.shape.is_uniform());
  }
}

namespace {

CpuKernel load(const char* entry) {
  std::ifstream file(NUMBERS_KERNEL, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  CodeObject code;
  code.target = *parse_target("cpu:x86-64-v2");
  code.bytes.assign(reinterpret_cast<const std::byte*>(bytes.data()),
                    reinterpret_cast<const std::byte*>(bytes.data() + bytes.size()));
  Plan plan;
  plan.variant = entry;
  plan.target = code.target;
  Stage stage;
  stage.entry = entry;
  stage.args = {Arg::o, Arg::tokens};
  stage.scratch_bytes = 64;
  plan.stages = {stage};
  auto kernel = CpuKernel::load(plan, std::span(&code, 1));
  if (not kernel) FAIL(kernel.error().message);
  return *kernel;
}

/// A trial whose answer is o = 1: one channel, q = k = v = scale = 1, forgetting at each token.
std::vector<Trial> ones() {
  std::vector<Trial> trials;
  trials.emplace_back(parse("forward H1 K1 V1 f32 @ B1 T30"), Gates::infinite, 4);
  Call& call = trials[0].call;
  for (Guarded* x : {&call.q, &call.k, &call.v}) std::ranges::fill(x->data(), 1.0f);
  std::ranges::fill(call.g.data(), -INFINITY);
  trials[0].expected = oracle(call);
  return trials;
}

}  // namespace

TEST_CASE("a loaded kernel is verified with its workspace guarded and poisoned") {
  WorkerPool pool(1);
  auto trials = ones();
  const auto good = verify(load("stays_inside"), trials, pool);
  INFO(good.message);
  CHECK(good.drop == Drop::none);
  const auto outside = verify(load("leaves_scratch"), trials, pool);
  CHECK(outside.drop == Drop::out_of_bounds);
  CHECK(outside.message.find("workspace of 64 bytes") != std::string::npos);
  CHECK(outside.message.find("--variant 'leaves_scratch'") != std::string::npos);
  CHECK(verify(load("trusts_scratch"), trials, pool).drop == Drop::nan_output);
}

TEST_CASE("drops have stable names") {
  CHECK(to_string(Drop::none) == "none");
  CHECK(to_string(Drop::constraint) == "constraint");
  CHECK(to_string(Drop::compile_error) == "compile_error");
  CHECK(to_string(Drop::resources) == "resources");
  CHECK(to_string(Drop::load_error) == "load_error");
  CHECK(to_string(Drop::nan_output) == "nan_output");
  CHECK(to_string(Drop::out_of_bounds) == "out_of_bounds");
  CHECK(to_string(Drop::wrong_result) == "wrong_result");
  CHECK(to_string(Drop::nondeterministic) == "nondeterministic");
  CHECK(to_string(Drop::slower) == "slower");
}
