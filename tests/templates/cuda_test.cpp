// The kernels of the GPU families, run by an emulator against the float64 oracle.
#include <algorithm>
#include <initializer_list>

#include "tests/catch.hpp"
#include "tests/templates/emulator/emulated.hpp"

namespace glaive {
namespace {

const Target hopper = parse_target("cuda:sm_90a").value();

void check(const char* line, const char* variant_text = nullptr, std::span<const Gates> gates = all_gates,
           const Emulated::Edit& edit = {}) {
  const auto what = parse_case(line).value();
  const Instance instance{what.problem, hopper};
  const char* family = what.problem.op == Op::step ? "step" : "stream";
  const auto variant = parse_variant(variant_text == nullptr ? family : variant_text, instance);
  if (not variant) FAIL(line << ": " << variant.error().message);
  Emulated kernel(instance, *variant, edit);
  std::vector<Trial> trials;
  std::uint64_t seed = 1;
  for (const Gates kind : gates) trials.emplace_back(what, kind, seed++);
  const Runner run = [&](const Words& words, const Extents& extents) { kernel.run(words, extents); };
  const auto verdict = verify(run, kernel.plan().variant, trials, 1, Target::Kind::cuda);
  INFO(kernel.plan().variant << " on " << line);
  CHECK(verdict.message == "");
}

/// The kernel's text with other words in the place of some that it must have.
Emulated::Edit replaced(std::string_view words, std::string_view by) {
  return [=](std::string& text) { text.replace(text.find(words), words.size(), by); };
}

/// The default with one parameter changed, for each of its legal values.
void every_value(const char* name, const char* line, std::initializer_list<Gates> gates) {
  const Instance instance{parse_case(line).value().problem, hopper};
  const Family* family = find_family(name, Target::Kind::cuda);
  const Config base = family->default_config(instance);
  const auto parameters = family->parameters(instance);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    for (const int value : parameters[i].values) {
      Config config = base;
      config[i] = value;
      if (config == base or family->constraint(instance, config)) continue;
      check(line, to_string(Variant{family, config}, instance).c_str(), std::span(gates.begin(), gates.size()));
    }
}

}  // namespace

TEST_CASE("step: awkward K and V, ragged tokens and empty sequences") {
  check(GENERATE("step H2 K1 V1 f32 @ B2 T1", "step H2 K3 V5 f32 @ lens=0,1,8,3", "step H1 K100 V60 f32 @ B2 T2",
                 "step H2 K33 V130 f32 @ lens=5,0", "step H1 K512 V24 f32 @ B1 T1", "step H1 K24 V512 f32 @ B1 T3",
                 "step H2 K128 V128 f32 @ B2 T1"));
}

TEST_CASE("step: every dtype, gate form, group and layout") {
  check(GENERATE("step H4 Hkv2 K64 V64 bf16 @ B2 T4", "step H2 K128 V128 bf16 @ B3 T1",
                 "step H2 K64 V32 f16 gate=f32 logit vk @ B2 T2",
                 "step H6 Hkv1 K40 V24 bf16 gate=f32 state=bf16 @ B2 T3",
                 "step H2 K64 V64 bf16 state=bf16 vk @ lens=1,8,0", "step H2 K512 V24 f32 vk @ B1 T2",
                 "step H2 K20 V36 f32 gate=bf16 vk @ B2 T2", "step H16 Hkv1 K512 V16 bf16 @ B1 T2",
                 "step H1 K1 V7 bf16 vk @ B2 T1", "step H2 K24 V40 f32 logit @ lens=8,0,3"));
}

TEST_CASE("step: every value of its parameters") {
  every_value("step",
              GENERATE("step H2 Hkv1 K64 V64 bf16 @ lens=3,8", "step H2 Hkv1 K64 V64 bf16 state=bf16 vk @ B1 T5"),
              {Gates::weak, Gates::infinite});
}

TEST_CASE("stream: awkward K and V, ragged tokens and empty sequences") {
  check(GENERATE("forward H2 K1 V1 bf16 @ B2 T5", "forward H1 K3 V5 f32 @ B1 T40", "forward H2 K8 V16 bf16 @ B2 T33",
                 "forward H1 K100 V60 bf16 @ B2 T77", "forward H1 K33 V130 bf16 @ lens=17,0,64,1",
                 "forward H1 K512 V24 bf16 @ B1 T40", "forward H1 K24 V200 f16 @ B1 T20"));
}

TEST_CASE("stream: every dtype, gate form, group and layout") {
  check(GENERATE("forward H2 K64 V64 bf16 @ B1 T200", "forward H1 K128 V128 bf16 @ B1 T100",
                 "forward H4 Hkv2 K64 V32 bf16 @ B1 T70", "forward H2 K32 V32 f32 @ B1 T100",
                 "forward H2 K48 V40 f16 gate=f32 logit vk @ lens=70,3",
                 "forward H6 Hkv2 K40 V24 bf16 gate=f32 state=bf16 @ B1 T50",
                 "forward H2 K64 V64 bf16 logit vk @ B1 T90", "forward H1 K256 V32 f32 @ B1 T40",
                 "forward H2 Hkv1 K64 V16 f32 gate=bf16 vk @ B1 T70", "forward H1 K24 V40 f32 logit @ lens=90,0,5"));
}

TEST_CASE("stream: every value of its parameters") {
  every_value("stream", GENERATE("forward H2 Hkv1 K64 V64 bf16 @ lens=150,30", "forward H1 K72 V40 f32 vk @ B1 T90"),
              {Gates::weak, Gates::mixed});
}

TEST_CASE("stream_wgmma: awkward K and V, ragged tokens and empty sequences") {
  check(GENERATE("forward H2 K1 V1 bf16 @ B2 T5", "forward H2 K64 V64 bf16 @ B1 T150",
                 "forward H1 K100 V60 bf16 @ B2 T77", "forward H1 K33 V130 bf16 @ lens=17,0,64,1",
                 "forward H1 K256 V24 bf16 @ B1 T70"),
        "stream_wgmma");
}

TEST_CASE("stream_wgmma: every dtype, gate form and layout") {
  check(GENERATE("forward H1 K128 V128 bf16 @ B1 T200", "forward H2 K64 V40 bf16 gate=f32 logit vk @ lens=70,3",
                 "forward H2 K64 V64 bf16 logit @ B1 T90", "forward H2 K40 V24 bf16 gate=f32 state=bf16 @ B1 T50",
                 "forward H2 K64 V64 bf16 gate=f16 vk @ B1 T70"),
        "stream_wgmma");
}

TEST_CASE("stream_wgmma: query heads that share a kv head") {
  check(GENERATE("forward H2 Hkv1 K64 V64 bf16 @ B1 T150", "forward H6 Hkv2 K40 V24 bf16 gate=f32 vk @ lens=70,0,30",
                 "forward H5 Hkv1 K64 V128 bf16 logit @ B1 T90"),
        "stream_wgmma");
}

TEST_CASE("stream_wgmma: what it does where q and k pass the range of fp16") {
  const auto never = replaced("return larger == 0 or", "return larger > 0xffff and");
  constexpr Gates some[] = {Gates::uniform40, Gates::resets, Gates::mixed};
  check("forward H2 K16 V16 bf16 @ B1 T150", "stream_wgmma", all_gates, never);
  check("forward H1 K128 V64 bf16 @ B1 T200", "stream_wgmma(C=64,columns=64,gates=2)", some, never);
  check("forward H1 K128 V128 bf16 logit @ B1 T150", "stream_wgmma(C=32,columns=64,gates=1,stages=4,cluster=2)", some,
        never);
}

TEST_CASE("stream_wgmma: from the loop for weak chunks to that for strong ones, and back") {
  const auto impatient = replaced("patience = 1", "patience = 0");
  constexpr Gates some[] = {Gates::mixed, Gates::infinite};
  check("forward H1 K64 V128 bf16 @ lens=500,300", "stream_wgmma(C=32,gates=1,stages=4)", some, impatient);
  check("forward H1 K128 V128 bf16 @ B1 T450", "stream_wgmma(C=64,columns=128,gates=2)", some, impatient);
  check("forward H3 Hkv1 K64 V64 bf16 @ B1 T300", "stream_wgmma(C=32,columns=64,gates=1,stages=4)", some, impatient);
}

TEST_CASE("stream_wgmma: CTAs of a cluster that share operands") {
  check("forward H2 K64 V128 bf16 @ lens=210,30,0,1", "stream_wgmma(C=32,columns=64,gates=1,stages=4,cluster=2)");
  constexpr Gates some[] = {Gates::weak, Gates::mixed, Gates::infinite};
  check("forward H1 K256 V256 bf16 @ B1 T140", "stream_wgmma(C=32,columns=128,gates=1,stages=4,cluster=2)", some);
  check("forward H1 K200 V190 bf16 gate=f32 vk @ B1 T90", "stream_wgmma(C=32,columns=64,gates=1,stages=2,cluster=1)",
        some);
  check("forward H3 Hkv1 K64 V200 bf16 logit vk @ lens=70,0,150",
        "stream_wgmma(C=64,columns=64,gates=2,stages=4,cluster=2)", some);
  constexpr Gates near[] = {Gates::uniform40};
  check("forward H2 Hkv1 K64 V128 bf16 @ B1 T200", "stream_wgmma(C=64,columns=64,gates=2,stages=4,cluster=2)", near);
}

TEST_CASE("stream_wgmma: chunks with resets where scores in fp16 do not suit") {
  const auto never = replaced("return suits_fp16(most_query) and suits_fp16(most_key);", "return tier != halves;");
  constexpr Gates some[] = {Gates::infinite, Gates::resets, Gates::mixed};
  check("forward H1 K64 V128 bf16 @ B1 T200", "stream_wgmma(columns=64)", some, never);
  check("forward H3 Hkv1 K64 V64 bf16 gate=f32 @ B1 T150", "stream_wgmma(C=32,gates=1)", some, never);
  check(GENERATE("forward H1 K64 V128 bf16 gate=f32 @ B1 T200", "forward H1 K256 V128 bf16 @ B1 T150"),
        "stream_wgmma(C=32,columns=64,gates=1,stages=4,cluster=2)", some, never);
}

TEST_CASE("stream_wgmma: io in fp16") {
  check(GENERATE("forward H2 K64 V128 f16 @ lens=150,3,0", "forward H3 Hkv1 K64 V64 f16 gate=f32 logit vk @ B1 T100",
                 "forward H1 K40 V24 f16 gate=bf16 state=bf16 @ B1 T90"),
        "stream_wgmma");
}

TEST_CASE("stream_wgmma: io in fp16, in a cluster") {
  constexpr Gates some[] = {Gates::mixed, Gates::infinite};
  check(GENERATE("forward H2 K64 V128 f16 @ lens=210,30", "forward H3 Hkv1 K64 V128 f16 gate=f32 @ B1 T100"),
        "stream_wgmma(C=32,columns=64,gates=1,stages=4,cluster=2)", some);
}

TEST_CASE("stream_wgmma: io in fp16 where k^ does not suit it") {
  const auto never = replaced("return (most & 0xffff) < 0x7c00 and", "return (most & 0xffff) > 0x7c00 and");
  constexpr Gates some[] = {Gates::weak, Gates::mixed, Gates::resets};
  check("forward H3 Hkv1 K64 V64 f16 @ B1 T150", "stream_wgmma(C=32,gates=1)", some, never);
  const char* const cluster = "stream_wgmma(C=32,columns=64,gates=1,stages=4,cluster=2)";
  check("forward H2 K64 V128 f16 @ B1 T150", cluster, some, never);
  check("forward H3 Hkv1 K64 V128 f16 gate=f32 @ B1 T150", cluster, some, never);
}

TEST_CASE("stream_wgmma: every value of its parameters") {
  every_value("stream_wgmma",
              GENERATE("forward H2 K64 V128 bf16 @ lens=210,30", "forward H1 K200 V70 bf16 vk @ B1 T90",
                       "forward H3 Hkv1 K64 V64 bf16 @ B1 T100"),
              {Gates::weak, Gates::mixed});
}

TEST_CASE("segments: awkward K and V, ragged tokens and empty sequences") {
  constexpr Gates some[] = {Gates::weak, Gates::infinite, Gates::zero};
  const char* forward = GENERATE("segments(segment=128)", "segments_wgmma(segment=128)");
  check(GENERATE("forward H2 K1 V1 bf16 @ B2 T5", "forward H1 K100 V60 bf16 @ B2 T300",
                 "forward H1 K33 V130 bf16 @ lens=257,0,64,1,128", "forward H2 K64 V64 bf16 @ lens=0,0"),
        forward, some);
}

TEST_CASE("segments: every dtype, gate form, group and layout") {
  constexpr Gates some[] = {Gates::logsigmoid, Gates::mixed};
  check(GENERATE("forward H4 Hkv2 K64 V32 bf16 @ B1 T270", "forward H2 K32 V32 f32 @ B1 T300",
                 "forward H2 K48 V40 f16 gate=f32 logit vk @ lens=270,3,140",
                 "forward H6 Hkv2 K40 V24 bf16 gate=f32 state=bf16 @ B1 T260", "forward H1 K256 V32 f32 @ B1 T140",
                 "forward H2 Hkv1 K64 V16 f32 gate=bf16 vk @ B1 T270"),
        "segments(segment=128)", some);
}

TEST_CASE("segments_wgmma: clusters, whose kernels look up whether there are tensor maps") {
  constexpr Gates some[] = {Gates::weak, Gates::mixed};
  const char* const mapped = "forward H1 K64 V128 bf16 @ lens=300,0,77";
  const char* const unmapped = "forward H1 K60 V100 bf16 @ B1 T200";  // rows of no multiple of 16 bytes
  check(GENERATE_COPY(mapped, unmapped), "segments_wgmma(segment=128,C=32,columns=64,gates=1,stages=4,cluster=2)",
        some);
}

TEST_CASE("segments_wgmma: every dtype, gate form and layout") {
  constexpr Gates some[] = {Gates::logsigmoid, Gates::mixed};
  check(GENERATE("forward H2 K128 V128 bf16 vk @ B1 T300", "forward H2 K64 V64 bf16 gate=f32 logit vk @ lens=270,3,140",
                 "forward H1 K256 V40 bf16 state=bf16 @ B1 T140", "forward H2 K64 V40 f16 vk @ B1 T270"),
        "segments_wgmma(segment=128)", some);
}

TEST_CASE("segments: states that are still there many segments later") {
  constexpr Gates some[] = {Gates::weak, Gates::zero, Gates::mixed};
  check("forward H1 K16 V16 f32 @ B1 T2600", GENERATE("segments(segment=128)", "segments(segment=512)"), some);
}

}  // namespace glaive
