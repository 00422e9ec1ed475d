#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "autotune/parallel.hpp"
#include "tests/autotune/numbers_support.hpp"

using namespace glaive;
using test::parse;

namespace {

const Case small = parse("forward H4 Hkv2 K16 V8 f32 @ B3 T70");

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

std::span<const float> gate_row(const Call& call, std::int64_t t, std::int64_t h) {
  return call.g.data().subspan(static_cast<std::size_t>(t * call.g_strides.token + h * call.g_strides.head),
                               static_cast<std::size_t>(call.what.problem.k.count()));
}

/// Visits every gate: f(token in its sequence, channel, gate).
template <class F>
void each_gate(const Call& call, F f) {
  for (std::int64_t b = 0; b < call.what.shape.sequences().count(); ++b)
    for (std::int64_t t = 0; t < call.tokens(b); ++t)
      for (std::int64_t h = 0; h < call.what.problem.kv_heads.count(); ++h) {
        const auto row = gate_row(call, call.first_token(b) + t, h);
        for (std::size_t c = 0; c < row.size(); ++c) f(t, static_cast<std::int64_t>(c), row[c]);
      }
}

/// Tokens whose gates are all `value`, and whether any other gate has it.
std::pair<std::set<std::int64_t>, bool> whole_rows_of(const Call& call, float value) {
  std::set<std::int64_t> tokens;
  bool stray = false;
  for (std::int64_t t = 0; t < call.what.shape.total().count(); ++t) {
    std::int64_t hits = 0, all = 0;
    for (std::int64_t h = 0; h < call.what.problem.kv_heads.count(); ++h)
      for (const float g : gate_row(call, t, h)) ++all, hits += g == value;
    if (hits == all) tokens.insert(t);
    stray |= hits != all and hits != 0;
  }
  return {tokens, stray};
}

}  // namespace

TEST_CASE("random bits and normals are the same on every machine") {
  const CounterRng rng(1, 0);
  CHECK(rng.bits(0) == 0x26f21c114de32a44u);
  CHECK(rng.bits(1) == 0x3794f0fee3223923u);
  CHECK(CounterRng(2, 0).bits(0) == 0xdb5138ef21a9c66fu);
  CHECK(CounterRng(1, 1).bits(0) == 0x34e561b7c1dc405du);
  float n[5];
  rng.normals(0, n);
  CHECK(bits(n[0]) == 0x40030167u);
  CHECK(bits(n[1]) == 0x3f20125bu);
  CHECK(bits(n[4]) == 0xbfcab285u);
}

TEST_CASE("the inputs of a seed are the same on every machine") {
  std::uint64_t sums[9];
  for (std::size_t i = 0; i < 9; ++i) sums[i] = Call(small, all_gates[i], 7).g.checksum();
  const Call call(small, Gates::weak, 7);
  CHECK(call.q.checksum() == 0xed2a5f6e580d71eeu);
  CHECK(call.k.checksum() == 0x3a5ea10b5820c162u);
  CHECK(call.v.checksum() == 0x58553de330289575u);
  CHECK(call.state_in.checksum() == 0xfccc5b6f8d1889adu);
  const std::uint64_t golden[9] = {0xb067678a25ba9963u, 0xa5e4e8009364cdc6u, 0xb47e8159bbfaa5aeu,
                                   0xa52db621f54d1895u, 0xfe4cf9f44cdeffd7u, 0xc063fb4c2913bb49u,
                                   0x602ab843f18d8a3u,  0x5b01ff71b0c26fc4u, 0x425cc6788f436426u};
  for (std::size_t i = 0; i < 9; ++i) {
    INFO(to_string(all_gates[i]));
    CHECK(sums[i] == golden[i]);
  }
}

TEST_CASE("normals can be made in any order and are normal") {
  const CounterRng rng(3, 2);
  std::vector<float> all(200000);
  rng.normals(0, all);
  std::vector<float> part(100);
  rng.normals(5000, part);
  CHECK(std::equal(part.begin(), part.end(), all.begin() + 5000));

  double moments[5] = {};
  for (const float x : all)
    for (int m = 1; m <= 4; ++m) moments[m] += std::pow(x, m) / static_cast<double>(all.size());
  CHECK(std::abs(moments[1]) < 0.01);
  CHECK(moments[2] == Approx(1).margin(0.015));
  CHECK(std::abs(moments[3]) < 0.03);
  CHECK(moments[4] == Approx(3).margin(0.1));
  double neighbours = 0;
  for (std::size_t i = 1; i < all.size(); ++i) neighbours += all[i] * all[i - 1] / static_cast<double>(all.size());
  CHECK(std::abs(neighbours) < 0.01);
}

TEST_CASE("q, k, v and the states are different numbers, and another seed gives others") {
  const Call call(parse("forward H1 K16 V16 f32 @ B1 T16"), Gates::weak, 7);
  CHECK(call.q.data()[0] != call.k.data()[0]);
  CHECK(call.k.data()[0] != call.v.data()[0]);
  CHECK(call.v.data()[0] != call.state_in.data()[0]);
  CHECK(call.q.checksum() != Call(call.what, Gates::weak, 8).q.checksum());
}

TEST_CASE("weak and logsigmoid gates are logsigmoids of one normal") {
  const Call weak(small, Gates::weak, 5), strong(small, Gates::logsigmoid, 5);
  double mean = 0;
  for (std::size_t i = 0; i < weak.g.data().size(); ++i) {
    CHECK(weak.g.data()[i] < 0);
    CHECK(weak.g.data()[i] * 16 == Approx(strong.g.data()[i]).epsilon(1e-6));
    mean += strong.g.data()[i] / static_cast<double>(weak.g.data().size());
  }
  CHECK(mean == Approx(-0.806).margin(0.03));  // E log sigmoid(N)
}

TEST_CASE("every gate distribution is what its name says") {
  const auto call = [](Gates gates) { return Call(small, gates, 11); };
  each_gate(call(Gates::minus5), [](auto, auto, float g) { CHECK(g == -5); });
  each_gate(call(Gates::zero), [](auto, auto, float g) { CHECK(g == 0); });
  float lowest = 0;
  double mean = 0;
  each_gate(call(Gates::uniform40), [&](auto, auto, float g) {
    CHECK((g <= 0 and g > -40));
    lowest = std::min(lowest, g);
    mean += g / (210.0 * 2 * 16);
  });
  CHECK(lowest < -39);
  CHECK(mean == Approx(-20).margin(0.7));
  each_gate(call(Gates::half200), [](auto, std::int64_t c, float g) { CHECK((c % 2 == 1 ? g == -200 : g > -1)); });
}

TEST_CASE("resets hit whole tokens, about 2 % of them, and every sequence") {
  const Case what = parse("forward H2 K8 V8 f32 @ lens=1,0,7,2000,30");
  for (const auto& [gates, value] : {std::pair(Gates::resets, -1e4f), std::pair(Gates::infinite, -INFINITY)}) {
    const Call call(what, gates, 3);
    const auto [tokens, stray] = whole_rows_of(call, value);
    CHECK_FALSE(stray);
    CHECK(tokens.size() > 20);
    CHECK(tokens.size() < 80);
    for (const std::int64_t b : {0, 2, 3, 4})
      CHECK(std::ranges::any_of(
          tokens, [&](std::int64_t t) { return call.first_token(b) <= t and t < call.first_token(b + 1); }));
  }
}

TEST_CASE("mixed gates change every 64 tokens of a sequence") {
  const Call call(parse("forward H1 K32 V8 f32 @ B2 T256"), Gates::mixed, 3);
  bool reset = false;
  each_gate(call, [&](std::int64_t t, auto, float g) {
    if (t < 64) CHECK(g > -1);
    if (128 <= t and t < 192) CHECK(g == 0);
    if (t >= 192) reset |= g == -1e4f;
  });
  const auto row = gate_row(call, 256 + 64, 0);
  CHECK(std::ranges::min(row) < -20);
}

TEST_CASE("no gate is positive or NaN") {
  for (const Gates gates : all_gates) each_gate(Call(small, gates, 1), [](auto, auto, float g) { CHECK(g <= 0); });
}

TEST_CASE("logits come from the same gates") {
  Case logit = small;
  logit.problem.gate_form = GateForm::logit;
  for (const Gates gates : all_gates) {
    INFO(to_string(gates));
    const Call a(small, gates, 9), b(logit, gates, 9);
    for (std::size_t i = 0; i < a.g.data().size(); ++i) {
      const double x = b.g.data()[i];
      const double g = (std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)))) / Call::gate_tau;
      if (a.g.data()[i] == -INFINITY)
        CHECK(g == -INFINITY);
      else
        CHECK(g == Approx(a.g.data()[i]).epsilon(1e-5).margin(1e-7));
    }
  }
}

TEST_CASE("a seed gives the same numbers under every passing") {
  const Call plain(small, Gates::weak, 4);
  for (const Passing passing : {Passing::stateless, Passing::strided, Passing::in_place}) {
    INFO(to_string(passing));
    const Call call(small, Gates::weak, 4, passing);
    for (std::int64_t t = 0; t < 210; ++t)
      for (std::int64_t h = 0; h < 2; ++h)
        for (std::int64_t i = 0; i < 16; ++i) {
          const auto at = [&](const Call& c) {
            return c.k.data()[static_cast<std::size_t>(t * c.k_strides.token + h * c.k_strides.head + i)];
          };
          REQUIRE(at(call) == at(plain));
        }
    if (passing == Passing::stateless) continue;
    CHECK(std::equal(call.initial_state(1, 1), call.initial_state(1, 1) + 16 * 8, plain.initial_state(1, 1)));
  }
}

TEST_CASE("the gates' names parse back, others are refused with the list") {
  for (const Gates gates : all_gates) CHECK(parse_gates(to_string(gates)) == gates);
  const auto unknown = parse_gates("strong");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().status == Status::not_found);
  CHECK(unknown.error().message.find("uniform40") != std::string::npos);
}

TEST_CASE("guard zones notice one changed element on either side") {
  for (const std::int64_t size : {0, 1, 15, 16, 1000}) {
    Guarded buffer(size);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data().data()) % 64 == 0);
    CHECK(buffer.guards_intact());
    for (float& x : buffer.data()) x = 3;
    CHECK(buffer.guards_intact());
    for (const std::int64_t at :
         {std::int64_t{-1}, -Guarded::guard_elements, size, size + Guarded::guard_elements - 1}) {
      Guarded other(size);
      other.data().data()[at] = 0;
      CHECK_FALSE(other.guards_intact());
    }
  }
}

TEST_CASE("a guard zone copied from elsewhere in it is noticed") {
  Guarded buffer(64);
  float* const end = buffer.data().data() + 64;
  std::memmove(end, end + 1, 4);
  CHECK_FALSE(buffer.guards_intact());
}

TEST_CASE("reading past the end gives NaN") {
  Guarded buffer(64);
  CHECK(std::isnan(buffer.data().data()[64] + 1));
  CHECK(std::isnan(buffer.data().data()[-1] + 1));
}

TEST_CASE("poison is told from any other NaN") {
  Guarded buffer(4);
  CHECK(is_poison(buffer.data()[2]));
  CHECK(std::isnan(buffer.data()[2]));
  CHECK_FALSE(is_poison(std::numeric_limits<float>::quiet_NaN()));
  CHECK_FALSE(is_poison(buffer.data()[2] + 1));  // quietened by the addition: somebody computed it
  buffer.data()[2] = 1;
  CHECK_FALSE(is_poison(buffer.data()[2]));
  buffer.poison();
  CHECK(is_poison(buffer.data()[2]));
}

TEST_CASE("words say what the passing says") {
  const Case ragged = parse("forward H4 Hkv2 K16 V8 f32 @ lens=5,0,9");
  const Call plain(small, Gates::weak, 1), lens(ragged, Gates::weak, 1);
  CHECK(plain.words()[Arg::cu_seqlens] == 0);
  CHECK(plain.words()[Arg::read_slots] == 0);
  CHECK(plain.words()[Arg::q_token] == 4 * 16);
  CHECK(plain.words()[Arg::state_in_slot] == 2 * 16 * 8);
  CHECK(plain.words()[Arg::scale] == bits(0.25f));
  CHECK(plain.words()[Arg::tokens] == 210);
  CHECK(plain.words()[Arg::longest] == 70);
  REQUIRE(lens.words()[Arg::cu_seqlens] != 0);
  CHECK(std::memcmp(reinterpret_cast<const void*>(lens.words()[Arg::cu_seqlens]), "\0\0\0\0\5\0\0\0\5\0\0\0\16\0\0\0",
                    16) == 0);

  const Call none(small, Gates::weak, 1, Passing::stateless);
  CHECK(none.words()[Arg::state_in] == 0);
  CHECK(none.words()[Arg::state_out] == 0);
  const Call same(small, Gates::weak, 1, Passing::in_place);
  CHECK(same.words()[Arg::state_in] == same.words()[Arg::state_out]);
  const Call strided(small, Gates::weak, 1, Passing::strided);
  CHECK(strided.words()[Arg::q_head] > 16);
  CHECK(strided.words()[Arg::q_token] > 4 * strided.words()[Arg::q_head]);
  CHECK(strided.words()[Arg::write_slots] != 0);
  CHECK(std::ranges::count(strided.read_slots, -1) == 1);
  CHECK(std::ranges::count(strided.write_slots, -1) == 1);
  CHECK(strided.slots == 5);
}

TEST_CASE("outputs are poisoned again before each run, and states in place restored") {
  Call call(small, Gates::weak, 1), same(small, Gates::weak, 1, Passing::in_place);
  for (Call* c : {&call, &same}) {
    std::ranges::fill(c->o.data(), 1.0f);
    std::ranges::fill(c->state_out.data(), 1.0f);
    c->poison_outputs();
    CHECK(std::ranges::all_of(c->o.data(), is_poison));
  }
  CHECK(std::ranges::all_of(call.state_out.data(), is_poison));
  CHECK(std::ranges::equal(same.state_out.data(), same.state_in.data()));
}

TEST_CASE("inputs: a call without copies holds the same bytes, and its rows can be read", "[numbers]") {
  for (const char* line :
       {"forward H4 Hkv2 K24 V20 bf16 @ lens=70,0,33", "forward H2 K16 V16 f16 gate=f32 logit @ B3 T40",
        "step H2 K8 V24 f32 state=bf16 vk @ B5 T2"})
    for (const Passing passing : {Passing::contiguous, Passing::in_place}) {
      INFO(line);
      const Case what = parse_case(line).value();
      Call kept(what, Gates::mixed, 3, passing), bare(what, Gates::mixed, 3, passing, Guarded::Copy::none);
      const std::pair<const Guarded*, const Guarded*> tensors[] = {{&kept.q, &bare.q},
                                                                   {&kept.k, &bare.k},
                                                                   {&kept.v, &bare.v},
                                                                   {&kept.g, &bare.g},
                                                                   {&kept.o, &bare.o},
                                                                   {&kept.state_in, &bare.state_in},
                                                                   {&kept.state_out, &bare.state_out}};
      for (const auto& [with, without] : tensors) {
        CHECK(with->checksum() == without->checksum());
        std::vector<float> row(8), same(8);
        with->get(5, row);
        without->get(5, same);
        CHECK(std::memcmp(row.data(), same.data(), 8 * sizeof(float)) == 0);
        CHECK(std::memcmp(row.data(), with->data().data() + 5, 8 * sizeof(float)) == 0);
      }
      CHECK(bare.q.data().empty() == (what.problem.io != DType::f32));
    }
}

TEST_CASE("parallel: every element once, exceptions come through, and bodies may ask again", "[numbers]") {
  std::vector<int> times(1000, 0);
  parallel(1000, 7, [&](std::int64_t first, std::int64_t last) {
    parallel(last - first, 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) ++times[static_cast<std::size_t>(first + i)];
    });
  });
  CHECK(std::ranges::count(times, 1) == 1000);
  bool called = false;
  parallel(0, 5, [&](std::int64_t, std::int64_t) { called = true; });
  CHECK_FALSE(called);
  CHECK_THROWS_AS(parallel(100, 1,
                           [](std::int64_t first, std::int64_t) {
                             if (first == 60) throw std::bad_alloc();
                           }),
                  std::bad_alloc);
}
