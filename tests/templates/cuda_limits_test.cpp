// The GPU families' kernels at the limits of their arguments, run by the emulator: numbers in memory that are out of
// range, offsets and lengths that need more bits than usual, and logits of channels that hardly decay.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/catch.hpp"
#include "tests/sanitized.hpp"
#include "tests/templates/emulator/emulated.hpp"

namespace glaive {
namespace {

const Target hopper = parse_target("cuda:sm_90a").value();

Emulated emulate(const Problem& problem, const std::string& variant, const Emulated::Edit& edit = {}) {
  const Instance instance{problem, hopper};
  return {instance, parse_variant(variant, instance).value(), edit};
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() and std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Three sequences with slots that permute, of which numbers can be spoilt.
class ThreeSequences {
 public:
  explicit ThreeSequences(const char* family)
      : what_(parse_case((std::string_view(family) == "step" ? "step" : "forward") +
                         std::string(" H2 K8 V16 f32 @ lens=3,2,4"))
                  .value()),
        kernel_(emulate(what_.problem, family)) {}

  struct Numbers : Call {
    explicit Numbers(const ThreeSequences& kernel, std::vector<std::int32_t> sums = {0, 3, 5, 9})
        : Call(kernel.what_, Gates::weak, 1, Passing::strided) {
      cu_seqlens = std::move(sums);
      write_slots = {2, 0, 1};
      REQUIRE(slots >= 3);
    }
  };
  /// The bits of the device status.
  std::uint32_t run(Call& call) {
    std::uint32_t status = 0;
    call.poison_outputs();
    Words words = call.words();
    words.set_pointer(Arg::device_status, &status);
    kernel_.run(words, extents_of(what_.problem, what_.shape, 1));
    call.read_outputs();
    for (const Guarded* tensor : {&call.q, &call.k, &call.v, &call.g, &call.o, &call.state_in, &call.state_out})
      CHECK(tensor->guards_intact());
    return status;
  }
  /// o of tokens first .. last - 1, padding included.
  static std::span<const float> o(const Call& call, std::int64_t first, std::int64_t last) {
    return call.o.data().subspan(static_cast<std::size_t>(first * call.o_strides.token),
                                 static_cast<std::size_t>((last - first) * call.o_strides.token));
  }
  /// The slot that a sequence of `good` ends in, padding included.
  static std::span<const float> state(const Call& call, const Call& good, std::size_t sequence) {
    return call.state_out.data().subspan(static_cast<std::size_t>(good.write_slots[sequence] * good.state_slot),
                                         static_cast<std::size_t>(good.state_slot));
  }

 private:
  Case what_;
  Emulated kernel_;
};

ThreeSequences& three_sequences(std::string_view family) {
  static ThreeSequences step("step"), stream("stream");
  return family == "step" ? step : stream;
}

constexpr auto slot_bit = static_cast<std::uint32_t>(DeviceFault::slot);
constexpr auto lengths_bit = static_cast<std::uint32_t>(DeviceFault::lengths);

/// Memory of a process that costs what is written of it.
class Sparse {
 public:
  explicit Sparse(std::size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(memory_ != MAP_FAILED);
  }
  Sparse(const Sparse&) = delete;
  ~Sparse() { munmap(memory_, bytes_); }
  float* data() const { return static_cast<float*>(memory_); }

 private:
  std::size_t bytes_;
  void* memory_;
};

}  // namespace

TEST_CASE("slots out of range count as none and are reported") {
  ThreeSequences& kernel = three_sequences(GENERATE("step", "stream"));
  ThreeSequences::Numbers good(kernel);
  CHECK(kernel.run(good) == 0);
  const std::int32_t below = GENERATE(-2, std::numeric_limits<std::int32_t>::min());

  const auto slots = static_cast<std::int32_t>(good.slots);
  const std::int32_t above = GENERATE_COPY(as<std::int32_t>{}, slots, std::numeric_limits<std::int32_t>::max());
  ThreeSequences::Numbers bad(kernel);
  bad.write_slots[1] = above;
  bad.read_slots[1] = below;
  CHECK(kernel.run(bad) == slot_bit);
  CHECK(std::ranges::all_of(ThreeSequences::state(bad, good, 1), is_poison));
  CHECK(same_bits(ThreeSequences::state(bad, good, 2), ThreeSequences::state(good, good, 2)));
  ThreeSequences::Numbers none(kernel);
  none.write_slots[1] = none.read_slots[1] = -1;
  CHECK(kernel.run(none) == 0);
  CHECK(same_bits(bad.o.data(), none.o.data()));
  CHECK(same_bits(bad.state_out.data(), none.state_out.data()));
}

TEST_CASE("lengths out of range are cut to what there is, and reported") {
  const char* family = GENERATE("step", "stream");
  ThreeSequences& kernel = three_sequences(family);
  const bool is_step = std::string_view(family) == "step";
  ThreeSequences::Numbers good(kernel);
  REQUIRE(kernel.run(good) == 0);
  constexpr auto most = std::numeric_limits<std::int32_t>::max(), least = std::numeric_limits<std::int32_t>::min();

  SECTION("beyond the last token: none there") {
    for (const std::int32_t last : {10, 1000, most}) {
      ThreeSequences::Numbers call(kernel, {0, 3, 5, last});
      CHECK(kernel.run(call) == lengths_bit);
      CHECK(same_bits(call.o.data(), good.o.data()));
      CHECK(same_bits(call.state_out.data(), good.state_out.data()));
    }
  }
  SECTION("all beyond: no tokens, and every state as it was") {
    ThreeSequences::Numbers call(kernel, {most, most, most, most});
    CHECK(kernel.run(call) == lengths_bit);
    CHECK(std::ranges::all_of(call.o.data(), is_poison));
    ThreeSequences::Numbers empty(kernel, {0, 0, 0, 0});
    CHECK(kernel.run(empty) == 0);
    CHECK(same_bits(call.state_out.data(), empty.state_out.data()));
  }
  SECTION("negative: from the first token on") {
    for (const std::int32_t first : {-1, -1000, least}) {
      ThreeSequences::Numbers call(kernel, {first, 3, 5, 9});
      CHECK(kernel.run(call) == lengths_bit);
      CHECK(same_bits(call.o.data(), good.o.data()));
      CHECK(same_bits(call.state_out.data(), good.state_out.data()));
    }
  }
  SECTION("decreasing: a sequence without tokens, its state as it was; those after it as ever") {
    for (const std::int32_t last : {4, 0, -7, least}) {
      ThreeSequences::Numbers call(kernel, {0, 5, last, 9}), empty(kernel, {0, 5, 5, 9});
      CHECK(kernel.run(call) == lengths_bit);
      CHECK(kernel.run(empty) == 0);
      CHECK(same_bits(ThreeSequences::state(call, good, 0), ThreeSequences::state(empty, good, 0)));
      CHECK(same_bits(ThreeSequences::state(call, good, 1), ThreeSequences::state(empty, good, 1)));
    }
    ThreeSequences::Numbers call(kernel, {0, 7, 5, 9});
    CHECK(kernel.run(call) == lengths_bit);
    CHECK(same_bits(ThreeSequences::state(call, good, 2), ThreeSequences::state(good, good, 2)));
    CHECK(same_bits(ThreeSequences::o(call, 7, 9), ThreeSequences::o(good, 7, 9)));
  }
  if (not is_step) return;
  SECTION("more than eight tokens of a step: the first eight") {
    ThreeSequences::Numbers call(kernel, {0, 9, 9, 9});
    CHECK(kernel.run(call) == lengths_bit);
    CHECK(std::ranges::all_of(ThreeSequences::o(call, 8, 9), is_poison));
    ThreeSequences::Numbers eight(kernel, {0, 8, 8, 8});
    CHECK(kernel.run(eight) == 0);
    CHECK(same_bits(call.o.data(), eight.o.data()));
    CHECK(same_bits(call.state_out.data(), eight.state_out.data()));
  }
}

TEST_CASE("offsets of more than 2^31 elements reach their tokens, heads and slots") {
  if (GLAIVE_SANITIZED) return;  // one of them shadows all that is mapped
  const char* line = GENERATE("step H2 Hkv1 K8 V16 f32 @ B2 T2", "step H4 Hkv2 K8 V16 f32 vk @ B2 T3",
                              "forward H2 Hkv1 K8 V16 f32 @ B2 T18", "forward H4 Hkv2 K8 V16 f32 vk @ B1 T20");
  const std::int64_t odd = GENERATE(0, 1);  // rows that pieces of 16 bytes can read, and others
  const Case what = parse_case(line).value();
  Emulated kernel = emulate(what.problem, what.problem.op == Op::step ? "step" : "stream");
  const Extents extents = extents_of(what.problem, what.shape, 1);
  Call call(what, Gates::weak, 1);
  kernel.run(call.words(), extents);
  call.read_outputs();

  // Neither a stride nor its product with 2 is the same modulo 2^32, and those of a head are below 2^31 but not twice.
  constexpr std::int64_t head = (std::int64_t{1} << 30) + 4096, token = (std::int64_t{1} << 32) + (1 << 20);
  Words words = call.words();
  struct Tensor {
    Arg base, token, head;
    Guarded& here;
    std::int64_t rows, heads, dim;
    Sparse there;
  };
  const auto& p = what.problem;
  const std::int64_t tokens = what.shape.total().count(), slots = call.slots, h = p.heads.count(),
                     hkv = p.kv_heads.count(), k = p.k.count(), v = p.v.count();
  const auto bytes = [&](std::int64_t rows) { return static_cast<std::size_t>(4 * (rows + 1) * (token + odd)); };
  Tensor tensors[] = {
      {Arg::q, Arg::q_token, Arg::q_head, call.q, tokens, h, k, Sparse(bytes(tokens))},
      {Arg::k, Arg::k_token, Arg::k_head, call.k, tokens, hkv, k, Sparse(bytes(tokens))},
      {Arg::v, Arg::v_token, Arg::v_head, call.v, tokens, hkv, v, Sparse(bytes(tokens))},
      {Arg::g, Arg::g_token, Arg::g_head, call.g, tokens, hkv, k, Sparse(bytes(tokens))},
      {Arg::o, Arg::o_token, Arg::o_head, call.o, tokens, h, v, Sparse(bytes(tokens))},
      {Arg::state_in, Arg::state_in_slot, Arg::state_in_head, call.state_in, slots, hkv, k * v, Sparse(bytes(slots))},
      {Arg::state_out, Arg::state_out_slot, Arg::state_out_head, call.state_out, slots, hkv, k * v,
       Sparse(bytes(slots))}};
  const auto each_row = [&](const Tensor& at, auto body) {
    for (std::int64_t row = 0; row < at.rows; ++row)
      for (std::int64_t n = 0; n < at.heads; ++n)
        body(at.here.data().data() + (row * at.heads + n) * at.dim, at.there.data() + row * (token + odd) + n * head,
             static_cast<std::size_t>(at.dim) * sizeof(float));
  };
  for (const Tensor& at : tensors) {
    words.set_pointer(at.base, at.there.data());
    words[at.token] = static_cast<std::uint64_t>(token + odd);
    words[at.head] = static_cast<std::uint64_t>(head);
    if (at.base != Arg::o and at.base != Arg::state_out)
      each_row(at, [](const float* here, float* there, std::size_t size) { std::memcpy(there, here, size); });
  }
  kernel.run(words, extents);
  for (const std::size_t output : {4, 6})
    each_row(tensors[output], [](const float* here, const float* there, std::size_t size) {
      CHECK(std::memcmp(here, there, size) == 0);
    });
}

// Boxes of the copy engine bring what lies behind a sequence's end, too.
TEST_CASE("stream_wgmma: parts of a fused projection, with NaN behind every head and behind the sequence") {
  const char* line = GENERATE("forward H2 K64 V64 bf16 @ lens=70,40", "forward H2 K72 V40 bf16 @ lens=33,64",
                              "forward H2 K64 V64 bf16 gate=f32 logit @ lens=70,5");
  const Case what = parse_case(line).value();
  Emulated kernel = emulate(what.problem, "stream_wgmma");
  const Extents extents = extents_of(what.problem, what.shape, 1);
  Call call(what, Gates::weak, 1);
  kernel.run(call.words(), extents);
  call.read_outputs();
  const std::vector<float> o(call.o.data().begin(), call.o.data().end());
  const std::vector<float> states(call.state_out.data().begin(), call.state_out.data().end());

  constexpr std::int64_t token_bytes = 4096, head_bytes = 512;
  const std::int64_t gate = size_of(what.problem.gate), k = what.problem.k.count(), v = what.problem.v.count();
  std::vector<std::byte> fused(static_cast<std::size_t>(what.shape.total().count() * token_bytes + 16),
                               std::byte{0xff});
  std::byte* part = fused.data() + (16 - reinterpret_cast<std::uintptr_t>(fused.data()) % 16) % 16;
  Words words = call.words();
  const auto move = [&](Arg base, Arg token, Arg head, const Guarded& tensor, std::int64_t dim, std::int64_t element) {
    for (std::int64_t row = 0; row < 2 * call.tokens(0); ++row)
      std::memcpy(part + row / 2 * token_bytes + row % 2 * head_bytes,
                  static_cast<const std::byte*>(tensor.memory()) + row * dim * element,
                  static_cast<std::size_t>(dim * element));
    words.set_pointer(base, part);
    words[token] = static_cast<std::uint64_t>(token_bytes / element);
    words[head] = static_cast<std::uint64_t>(head_bytes / element);
    part += 2 * head_bytes;
  };
  move(Arg::q, Arg::q_token, Arg::q_head, call.q, k, 2);
  move(Arg::k, Arg::k_token, Arg::k_head, call.k, k, 2);
  move(Arg::v, Arg::v_token, Arg::v_head, call.v, v, 2);
  move(Arg::g, Arg::g_token, Arg::g_head, call.g, k, gate);
  for (int run = 0; run < 3; ++run) {
    call.poison_outputs();
    kernel.run(words, extents);
    call.read_outputs();
    const auto of_first = static_cast<std::size_t>(call.tokens(0) * call.o_strides.token);
    CHECK(same_bits(call.o.data().first(of_first), std::span(o).first(of_first)));
    const auto state = static_cast<std::size_t>(call.state_slot);
    CHECK(same_bits(call.state_out.data().first(state), std::span(states).first(state)));
  }
}

// 2^31 tokens would take days here. With positions and lengths of 16 bits in the place of 32, the same arithmetic ends
// at 2^15 tokens.
TEST_CASE("stream: the longest sequence ends at its last token") {
  Trial trial(parse_case("forward H1 K1 V1 f32 @ B1 T32767").value(), Gates::logsigmoid, 1);
  const char* variant = GENERATE("stream(C=64)", "stream(C=16)");
  Emulated kernel = emulate(trial.call.what.problem, variant, [](std::string& text) {
    const std::size_t length = text.find("int length;");
    REQUIRE(length != text.npos);
    text.replace(length, 3, "short");
    const std::size_t loop = text.find("for (u32 ", text.find("gla_stream("));
    REQUIRE(loop != text.npos);
    text.replace(loop + 5, 3, "u16");
  });
  const Runner run = [&](const Words& words, const Extents& extents) { kernel.run(words, extents); };
  CHECK(verify(run, variant, std::span(&trial, 1), 1, Target::Kind::cuda).message == "");
}

// S = exp(sum of g) where k is 0. At logits about 10 a gate is some 1e-5, where 1 + exp(-x) has lost half its digits.
TEST_CASE("raw logits of channels that hardly decay are as good as fp32 over thousands of tokens") {
  const char* line = GENERATE("forward H1 K64 V8 f32 logit @ B1 T2000", "step H1 K64 V8 f32 logit @ B1 T8");
  const Case what = parse_case(line).value();
  const bool is_step = what.problem.op == Op::step;
  Emulated kernel = emulate(what.problem, is_step ? "step" : "stream");
  Call call(what, Gates::weak, 1, Passing::in_place);
  const auto logit = [](std::int64_t channel) { return -2 + 0.25F * static_cast<float>(channel); };
  for (std::int64_t i = 0; i < std::ssize(call.g.data()); ++i)
    call.g.data()[static_cast<std::size_t>(i)] = logit(i % 64);
  std::ranges::fill(call.k.data(), 0.0F);
  std::ranges::fill(call.state_out.data(), 1.0F);
  for (Guarded* tensor : {&call.g, &call.k, &call.state_out}) tensor->pack();
  Words words = call.words();
  words.set_scalar(Arg::gate_tau, 1);
  const int calls = is_step ? 250 : 1;
  for (int i = 0; i < calls; ++i) kernel.run(words, extents_of(what.problem, what.shape, 1));
  call.read_outputs();
  for (std::int64_t d = 0; d < 64; ++d) {
    const double x = logit(d), g = std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
    const double want = std::exp(2000 * g), got = call.final_state(0, 0)[8 * d];
    INFO(line << ", logit " << x);
    // A step rounds its decay and its state for every token.
    if (want > 1e-3) CHECK(std::abs(got - want) <= (is_step ? 2000 * 0x1p-23 : 1e-5) * want);
  }
}

}  // namespace glaive
