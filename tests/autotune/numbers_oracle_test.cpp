#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "autotune/baselines.hpp"
#include "tests/autotune/numbers_support.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

/// o of one token and head as the explicit sum  scale * sum_s sum_i q_i exp(g_i(s+1) + .. + g_i(t)) k_i(s) v(s), plus
/// the initial state's part: no recurrence.
std::vector<double> closed_form(const Call& call, std::int64_t b, std::int64_t t, std::int64_t head) {
  const Problem& p = call.what.problem;
  const std::int64_t dim_k = p.k.count(), dim_v = p.v.count(), h = head / (p.heads.count() / p.kv_heads.count());
  const std::int64_t first = call.first_token(b);
  std::vector<double> o(static_cast<std::size_t>(dim_v));
  const auto get = [](const Guarded& x, const Strides& s, std::int64_t token, std::int64_t hh, std::int64_t i) {
    return static_cast<double>(x.data()[static_cast<std::size_t>(token * s.token + hh * s.head + i)]);
  };
  for (std::int64_t i = 0; i < dim_k; ++i) {
    const double q = call.scale * get(call.q, call.q_strides, t, head, i);
    for (std::int64_t s = first; s <= t; ++s) {
      double exponent = 0;
      for (std::int64_t r = s + 1; r <= t; ++r) exponent += get(call.g, call.g_strides, r, h, i);
      const double weight = q * std::exp(exponent) * get(call.k, call.k_strides, s, h, i);
      for (std::int64_t j = 0; j < dim_v; ++j)
        o[static_cast<std::size_t>(j)] += weight * get(call.v, call.v_strides, s, h, j);
    }
    double exponent = 0;
    for (std::int64_t r = first; r <= t; ++r) exponent += get(call.g, call.g_strides, r, h, i);
    const float* const initial = call.initial_state(b, h);
    for (std::int64_t j = 0; j < dim_v and initial != nullptr; ++j)
      o[static_cast<std::size_t>(j)] +=
          q * std::exp(exponent) * initial[p.layout == StateLayout::kv ? i * dim_v + j : j * dim_k + i];
  }
  return o;
}

void check_closed_form(const Call& call) {
  const auto rows = output_rows(call, oracle(call).o);
  const std::int64_t heads = call.what.problem.heads.count(), dim_v = call.what.problem.v.count();
  for (std::int64_t b = 0; b < call.what.shape.sequences().count(); ++b)
    for (std::int64_t t = call.first_token(b); t < call.first_token(b + 1); ++t)
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto want = closed_form(call, b, t, h);
        for (std::int64_t j = 0; j < dim_v; ++j)
          REQUIRE(rows[static_cast<std::size_t>((t * heads + h) * dim_v + j)] ==
                  Approx(want[static_cast<std::size_t>(j)]).epsilon(1e-10).margin(1e-10));
      }
}

}  // namespace

TEST_CASE("the oracle equals the explicit sum over the past") {
  for (const char* line : {"forward H2 K8 V6 f32 @ B2 T20", "forward H4 Hkv2 K5 V7 f32 vk @ lens=9,0,1,13"})
    for (const Gates gates : {Gates::weak, Gates::minus5, Gates::half200, Gates::infinite, Gates::zero})
      for (const Passing passing : {Passing::contiguous, Passing::strided, Passing::stateless, Passing::in_place}) {
        INFO(line << " " << to_string(gates) << " " << to_string(passing));
        check_closed_form(Call(parse(line), gates, 2, passing));
      }
}

TEST_CASE("two tokens by hand") {
  Call call(parse("forward H1 K1 V1 f32 @ B1 T2"), Gates::zero, 1);
  const auto set = [](Guarded& x, float a, float b) { x.data()[0] = a, x.data()[1] = b; };
  set(call.q, 2, 3), set(call.k, 5, 7), set(call.v, 11, 13), set(call.g, std::log(0.5f), std::log(0.25f));
  call.state_in.data()[0] = 4;
  const auto got = oracle(call);  // S: 4/2 + 55 = 57, 57/4 + 91 = 105.25
  CHECK(got.o[0] == Approx(114).epsilon(1e-6));
  CHECK(got.o[1] == Approx(315.75).epsilon(1e-6));
  CHECK(got.state[0] == Approx(105.25).epsilon(1e-6));
}

TEST_CASE("a run equals its two halves chained through the state") {
  const Call whole(parse("forward H2 K8 V6 f32 @ B1 T20"), Gates::weak, 2);
  const Case half = parse("forward H2 K8 V6 f32 @ B1 T10");
  const auto want = oracle(whole);
  Call a(half, Gates::weak, 2), b(half, Gates::weak, 2);
  const auto cut = [&](Guarded Call::* tensor, Call& into, std::size_t offset) {
    auto to = (into.*tensor).data();
    std::copy_n((whole.*tensor).data().begin() + static_cast<std::ptrdiff_t>(offset * to.size()), to.size(),
                to.begin());
  };
  for (const auto tensor : {&Call::q, &Call::k, &Call::v, &Call::g}) cut(tensor, a, 0), cut(tensor, b, 1);
  cut(&Call::state_in, a, 0);
  const auto first = oracle(a);
  std::ranges::transform(first.state, b.state_in.data().begin(), [](double x) { return static_cast<float>(x); });
  const auto second = oracle(b);
  auto chained = first.o;
  chained.insert(chained.end(), second.o.begin(), second.o.end());
  CHECK(distance(chained, want.o) < 1e-6);
  CHECK(distance(second.state, want.state) < 1e-6);
}

TEST_CASE("query heads that share a kv head see its state") {
  const Call grouped(parse("forward H6 Hkv2 K8 V6 f32 @ B1 T15"), Gates::weak, 2);
  Call full(parse("forward H6 K8 V6 f32 @ B1 T15"), Gates::weak, 2);
  std::ranges::copy(grouped.q.data(), full.q.data().begin());
  const auto repeat = [&](const Guarded& from, Guarded& to, std::size_t rows, std::size_t dim) {
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t h = 0; h < 6; ++h)
        std::copy_n(from.data().data() + (r * 2 + h / 3) * dim, dim, to.data().data() + (r * 6 + h) * dim);
  };
  repeat(grouped.k, full.k, 15, 8), repeat(grouped.g, full.g, 15, 8), repeat(grouped.v, full.v, 15, 6);
  repeat(grouped.state_in, full.state_in, 1, 48);
  CHECK(distance(oracle(grouped).o, oracle(full).o) < 1e-12);
}

TEST_CASE("layout vk holds the transposed state") {
  const Call kv(parse("forward H1 K8 V6 f32 @ B1 T15"), Gates::weak, 2);
  Call vk(parse("forward H1 K8 V6 f32 vk @ B1 T15"), Gates::weak, 2);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 6; ++j) vk.state_in.data()[j * 8 + i] = kv.state_in.data()[i * 6 + j];
  const auto a = oracle(kv), b = oracle(vk);
  CHECK(distance(a.o, b.o) == 0);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 6; ++j) CHECK(a.state[i * 6 + j] == b.state[j * 8 + i]);
}

TEST_CASE("an empty sequence ends in its initial state") {
  const Call call(parse("forward H2 K8 V6 f32 @ lens=3,0,4"), Gates::weak, 2);
  const auto got = state_rows(call, oracle(call).state);
  for (std::size_t i = 0; i < 2 * 48; ++i) CHECK(got[96 + i] == call.initial_state(1, 0)[i]);
  const Call nothing(parse("forward H2 K8 V6 f32 @ B2 T0"), Gates::weak, 2);
  CHECK(oracle(nothing).o.empty());
}

TEST_CASE("a gate of -inf forgets all before it, exactly, and gives no NaN") {
  const Case what = parse("forward H1 K8 V6 f32 @ B1 T12");
  Call a(what, Gates::weak, 2), b(what, Gates::weak, 2);
  for (Call* call : {&a, &b}) std::fill_n(call->g.data().begin() + 7 * 8, 8, -INFINITY);
  std::ranges::fill(b.state_in.data(), 1e30f);
  for (std::size_t i = 0; i < 7 * 8; ++i) b.k.data()[i] *= -1e10f;
  const auto x = oracle(a), y = oracle(b);
  for (std::size_t i = 7 * 6; i < 12 * 6; ++i) CHECK(x.o[i] == y.o[i]);
  CHECK(x.state == y.state);
  CHECK(std::ranges::all_of(x.o, [](double v) { return std::isfinite(v); }));
}

TEST_CASE("strided and contiguous calls expect the same numbers") {
  const Case what = parse("forward H4 Hkv2 K8 V6 f32 @ B3 T5");
  const Call plain(what, Gates::weak, 2), strided(what, Gates::weak, 2, Passing::strided);
  const auto a = oracle(plain), b = oracle(strided);
  const auto rows_a = output_rows(plain, a.o), rows_b = output_rows(strided, b.o);
  const std::size_t two = rows_a.size() / 3 * 2;  // the last sequence starts from zero when strided
  CHECK(std::equal(rows_a.begin(), rows_a.begin() + static_cast<std::ptrdiff_t>(two), rows_b.begin()));
  CHECK_FALSE(std::equal(rows_a.begin(), rows_a.end(), rows_b.begin()));
  CHECK(std::ranges::count_if(b.o, [](double x) { return std::isnan(x); }) ==
        static_cast<std::ptrdiff_t>(b.o.size() - rows_b.size()));
}

TEST_CASE("logits and log gates expect the same numbers") {
  for (const Gates gates : all_gates) {
    INFO(to_string(gates));
    const Call log(parse("forward H2 K8 V6 f32 @ B1 T40"), gates, 2);
    const Call logit(parse("forward H2 K8 V6 f32 logit @ B1 T40"), gates, 2);
    CHECK(distance(oracle(log).o, oracle(logit).o) < 1e-4);
  }
}

TEST_CASE("the relative error is Frobenius's, with its limits spelt out") {
  using F = std::vector<float>;
  using D = std::vector<double>;
  CHECK(relative_error(F{3, 5}, D{3, 4}) == Approx(0.2));
  CHECK(relative_error(F{0, 0}, D{0, 0}) == 0);
  CHECK(relative_error(F{}, D{}) == 0);
  CHECK(relative_error(F{1e-30f}, D{0}) == INFINITY);
  CHECK(relative_error(F{NAN, 4}, D{3, 4}) == INFINITY);
  CHECK(relative_error(F{INFINITY, 4}, D{3, 4}) == INFINITY);
  CHECK(relative_error(F{7, 4}, D{NAN, 4}) == 0);  // nothing expected there
}

TEST_CASE("the plain loops compute what the oracle does") {
  WorkerPool pool(2);
  std::uint64_t seed = 1;
  for (const char* line : {"forward H3 K128 V128 f32 @ B1 T77", "forward H4 Hkv2 K24 V40 f32 vk @ B3 T9",
                           "forward H1 K1 V1 f32 @ B2 T3", "forward H2 K33 V70 f32 @ lens=65,0,1,130",
                           "forward H6 Hkv2 K16 V257 f32 @ B1 T5", "forward H2 K8 V8 f32 @ B1 T0"})
    for (const Gates gates : all_gates)
      for (auto* const loop : {baseline_rows, baseline_tiles}) {
        Trial trial(parse(line), gates, seed);
        if (loop == baseline_tiles) ++seed;
        const Runner run = [&](const Words&, const Extents&) {
          if (const auto ran = loop(trial.call, pool); not ran) WARN(ran.error().message);
        };
        const auto verdict = verify(run, loop == baseline_rows ? "rows" : "tiles", std::span(&trial, 1));
        INFO(verdict.message);
        CHECK(verdict.drop == Drop::none);
        CHECK(verdict.error_o < 1e-6);
      }
}

TEST_CASE("in place, the plain loops go on from where the last run ended") {
  WorkerPool pool(1);
  for (auto* const loop : {baseline_rows, baseline_tiles}) {
    Call call(parse("forward H1 K8 V8 f32 @ B1 T3"), Gates::weak, 1, Passing::in_place);
    REQUIRE(loop(call, pool));
    const std::vector<float> once(call.o.data().begin(), call.o.data().end());
    std::ranges::copy(call.state_out.data(), call.state_in.data().begin());
    const auto want = oracle(call);
    std::ranges::fill(call.state_in.data(), 1e9f);
    REQUIRE(loop(call, pool));
    CHECK(relative_error(call.o.data(), want.o) < 1e-6);
    CHECK_FALSE(std::ranges::equal(call.o.data(), once));
  }
}

TEST_CASE("the plain loops refuse logits") {
  WorkerPool pool(1);
  Call call(parse("forward H1 K8 V8 f32 logit @ B1 T3"), Gates::weak, 1);
  const auto ran = baseline_tiles(call, pool);
  REQUIRE_FALSE(ran);
  CHECK(ran.error().status == Status::unsupported);
}

TEST_CASE("oracle: a few heads alone are those of the whole, and their errors see every element", "[numbers]") {
  for (const char* line : {"forward H4 Hkv2 K24 V40 bf16 vk @ lens=7,0,33", "step H4 Hkv2 K8 V24 f32 @ B3 T2"}) {
    INFO(line);
    const Case what = parse_case(line).value();
    Call whole(what, Gates::weak, 3), bare(what, Gates::weak, 3, Passing::contiguous, Guarded::Copy::none);
    const Expected want = oracle(whole);
    const Pick picks[] = {{0, 1}, {2, 0}};
    const auto heads = oracle(bare, picks);
    REQUIRE(heads.size() == 2);
    const auto answer = [](Guarded& tensor, const std::vector<double>& values) {
      std::vector<float> row;
      for (const double value : values) row.push_back(static_cast<float>(value));
      tensor.put(0, row);
    };
    answer(bare.o, want.o);
    answer(bare.state_out, want.state);
    const auto right = errors_of(bare, heads);
    CHECK(right.o < 3e-3);
    CHECK(right.state < 1e-6);
    const auto first_o = bare.what.problem.v.count() * 2;  // of head 2, of kv head 1
    bare.o.put(first_o, std::array{100.0f});
    CHECK(errors_of(bare, heads).o > 0.1);
    bare.o.put(first_o, std::array{std::numeric_limits<float>::quiet_NaN()});
    CHECK(std::isinf(errors_of(bare, heads).o));
    bare.state_out.put(*bare.final_place(2, 0) + bare.what.problem.k.count() * bare.what.problem.v.count() - 1,
                       std::array{100.0f});
    CHECK(errors_of(bare, heads).state > 0.1);
  }
}
