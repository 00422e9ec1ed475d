#include <algorithm>
#include <bit>
#include <set>

#include "autotune/verify.hpp"
#include "compiler/compiler.hpp"
#include "templates/family.hpp"
#include "tests/catch.hpp"

namespace glaive {
namespace {

Instance instance_of(const char* problem) { return {parse_problem(problem).value(), host_cpu_target()}; }

MlirCompiler& compiler() {
  static MlirCompiler one;
  return one;
}

CpuKernel build(const Instance& instance, const Variant& variant) {
  const CompileOptions options{instance.target, host_cpu_name(), CompileOptions::Effort::light};
  auto code = compiler().compile(variant.family->instantiate(instance, variant.config), options);
  if (not code) FAIL(code.error().message);
  auto kernel = CpuKernel::load(variant.family->plan(instance, variant.config), {&*code, 1});
  if (not kernel) FAIL(kernel.error().message);
  return std::move(*kernel);
}

void check(const char* line, const Variant& variant) {
  const auto what = parse_case(line).value();
  const Instance instance{what.problem, host_cpu_target()};
  const auto kernel = build(instance, variant);
  WorkerPool pool(2);
  std::vector<Trial> trials;
  std::uint64_t seed = 1;
  for (const Gates gates : all_gates) trials.emplace_back(what, gates, seed++);
  const auto verdict = verify(kernel, trials, pool);
  INFO(to_string(variant, instance) << " on " << line);
  CHECK(verdict.message == "");
  CHECK(verdict.drop == Drop::none);
}

void check_default(const char* family, const char* line) {
  const auto what = parse_case(line).value();
  const Instance instance{what.problem, host_cpu_target()};
  check(line, {find_family(family), find_family(family)->default_config(instance)});
}

}  // namespace

TEST_CASE("defaults are right for every awkward K and V, ragged tokens and empty sequences") {
  const char* family = GENERATE("chunk", "recurrent");
  const char* line =
      GENERATE("forward H2 K1 V1 f32 @ B2 T5", "forward H1 K3 V5 f32 @ B1 T40", "forward H3 K8 V16 f32 @ B2 T33",
               "forward H2 K100 V60 f32 @ B2 T77", "forward H1 K33 V130 f32 @ lens=17,0,64,1",
               "forward H1 K512 V24 f32 @ B1 T20", "forward H1 K24 V512 f32 @ B1 T20");
  check_default(family, line);
}

TEST_CASE("defaults are right for every dtype, gate form, group and layout") {
  const char* family = GENERATE("chunk", "recurrent");
  const char* line =
      GENERATE("forward H2 K40 V24 bf16 @ B2 T37", "forward H2 K37 V21 f16 @ B2 T37",
               "forward H2 K16 V40 bf16 gate=f32 @ B1 T33", "forward H1 K24 V24 f32 gate=bf16 logit @ B2 T40",
               "forward H1 K19 V24 f16 gate=f32 logit @ lens=5,0,33", "forward H4 Hkv2 K24 V40 f32 @ B2 T35",
               "forward H9 Hkv1 K19 V11 bf16 logit @ lens=17,0,1", "forward H2 K24 V40 f32 vk @ B2 T20",
               "forward H6 Hkv2 K21 V13 f32 vk state=bf16 @ B2 T20",
               "forward H1 K33 V24 bf16 state=bf16 gate=f16 @ B2 T20", "forward H1 K3 V5 bf16 vk logit @ lens=1,1,18");
  check_default(family, line);
}

TEST_CASE("step is right for one to eight tokens, every dtype, gate form, group and layout") {
  const char* line =
      GENERATE("step H2 K40 V24 f32 @ B3 T1", "step H2 K40 V24 f32 @ B2 T8", "step H1 K1 V1 f32 @ B2 T3",
               "step H3 K100 V60 bf16 @ B2 T5", "step H1 K512 V9 f16 @ B1 T1", "step H1 K9 V512 bf16 gate=f32 @ B1 T2",
               "step H4 Hkv2 K24 V40 f32 @ B2 T7", "step H9 Hkv1 K19 V11 bf16 logit @ lens=7,0,1",
               "step H2 K24 V40 f32 vk @ B2 T4", "step H6 Hkv1 K21 V13 f32 vk state=bf16 @ B2 T3",
               "step H2 K33 V24 bf16 state=bf16 @ lens=8,0,1,2", "step H1 K3 V5 bf16 vk logit gate=f16 @ B2 T1");
  check_default("step", line);
}

TEST_CASE("prefill at once, in chunks and step by step end in the same state with the same outputs") {
  const std::string words = GENERATE("H2 K24 V40 f32", "H4 Hkv2 K21 V13 f32 vk", "H2 K16 V24 bf16 logit gate=f32",
                                     "H2 K24 V16 f16 vk", "H2 K24 V40 bf16 state=bf16");
  const char* family = GENERATE("chunk", "recurrent");
  constexpr std::int64_t tokens = 40;
  const auto kernel_of = [](const char* name, const std::string& problem) {
    const Instance instance{parse_problem(problem).value(), host_cpu_target()};
    return build(instance, {find_family(name), find_family(name)->default_config(instance)});
  };
  const auto forward = kernel_of(family, "forward " + words), step = kernel_of("step", "step " + words);
  const auto what = parse_case("forward " + words + " @ B1 T" + std::to_string(tokens)).value();
  WorkerPool pool(2);
  // Parts of the same call: the first from the initial state, the others in place on what the one before left.
  const auto run = [&](Call& call, std::initializer_list<std::int64_t> lengths) {
    std::int64_t from = 0;
    for (const std::int64_t length : lengths) {
      const CpuKernel& kernel = length <= 8 ? step : forward;
      const Extents extents = extents_of(what.problem, Sequences(1), Tokens(length), Tokens(length), 2);
      Guarded workspace(workspace_bytes(kernel.plan(), extents) / 4);
      Words part = call.words();
      const auto skip = [&](Arg base, Arg token, DType type) {
        part[base] += static_cast<std::uint64_t>(from * size_of(type)) * part[token];
      };
      skip(Arg::q, Arg::q_token, what.problem.io), skip(Arg::k, Arg::k_token, what.problem.io);
      skip(Arg::v, Arg::v_token, what.problem.io), skip(Arg::g, Arg::g_token, what.problem.gate);
      skip(Arg::o, Arg::o_token, what.problem.io);
      if (from > 0) part[Arg::state_in] = part[Arg::state_out];
      kernel.run(part, extents, workspace.memory(), pool);
      from += length;
    }
    REQUIRE(from == tokens);
    call.read_outputs();
  };
  const Call model(what, Gates::weak, 3);
  const Expected expected = oracle(model);
  const Tolerance allowed = tolerance(what);
  // A state in 16 bits is rounded once for every part that hands it on.
  const bool exact = what.problem.state == DType::f32;
  for (const auto& lengths : {std::initializer_list<std::int64_t>{40}, {17, 23}, {33, 1, 1, 5}, {8, 8, 8, 8, 8}}) {
    Call call(what, Gates::weak, 3);
    run(call, lengths);
    const double rounds = exact ? 1 : static_cast<double>(lengths.size());
    INFO(words << ", " << family << ", parts: " << lengths.size());
    CHECK(relative_error(call.o.data(), expected.o) <= (exact ? allowed.o.tensor : rounds * allowed.state.tensor));
    CHECK(relative_error(call.state_out.data(), expected.state) <= rounds * allowed.state.tensor);
  }
}

TEST_CASE("slots and lengths out of range are skipped and reported") {
  const char* family = GENERATE("chunk", "recurrent", "step");
  const std::string op = std::string_view(family) == "step" ? "step" : "forward";
  const auto what = parse_case(op + " H2 K8 V16 f32 @ lens=3,2,4").value();
  const auto kernel =
      build({what.problem, host_cpu_target()},
            {find_family(family), find_family(family)->default_config({what.problem, host_cpu_target()})});
  WorkerPool pool(2);
  const Extents extents = extents_of(what.problem, what.shape, 2);
  std::vector<std::byte> room(static_cast<std::size_t>(workspace_bytes(kernel.plan(), extents)) + 64);
  void* const workspace = room.data() + (64 - reinterpret_cast<std::uintptr_t>(room.data()) % 64);

  const auto run = [&](Call& call) {
    std::uint32_t status = 0;
    Words words = call.words();
    words.set_pointer(Arg::device_status, &status);
    kernel.run(words, extents, workspace, pool);
    CHECK(call.o.guards_intact());
    CHECK(call.state_out.guards_intact());
    return status;
  };
  Call good(what, Gates::weak, 1, Passing::strided);
  CHECK(run(good) == 0);

  Call bad(what, Gates::weak, 1, Passing::strided);
  bad.write_slots[1] = static_cast<std::int32_t>(bad.slots);
  bad.read_slots[1] = -2;
  CHECK(run(bad) == static_cast<std::uint32_t>(DeviceFault::slot));
  const auto slot = good.write_slots[1];
  CHECK(std::all_of(bad.state_out.data().begin() + slot * bad.state_slot,
                    bad.state_out.data().begin() + slot * bad.state_slot + 8 * 16, is_poison));
  CHECK(std::equal(bad.final_state(2, 1), bad.final_state(2, 1) + 8 * 16, good.final_state(2, 1)));

  Call long_one(what, Gates::weak, 1, Passing::strided);
  long_one.cu_seqlens[3] = 1000;
  CHECK(run(long_one) == static_cast<std::uint32_t>(DeviceFault::lengths));
  CHECK(std::ranges::equal(long_one.o.data(), good.o.data(), [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
  }));
}

TEST_CASE("every value of every parameter gives a right kernel and code of its own") {
  for (const Family* family : families()) {
    if (family->kind() != Target::Kind::cpu) continue;
    const char* line = family->name() == "step" ? "step H2 K40 V80 f32 @ B2 T7" : "forward H2 K40 V72 f32 @ B2 T70";
    const Instance instance{parse_case(line).value().problem, host_cpu_target()};
    const Config base = family->default_config(instance);
    const auto parameters = family->parameters(instance);
    const CompileOptions options{instance.target, "", CompileOptions::Effort::light};
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      std::set<std::string> keys;
      std::size_t legal = 0;
      for (const int value : parameters[i].values) {
        Config config = base;
        config[i] = value;
        if (family->constraint(instance, config)) continue;
        ++legal;
        keys.insert(compiler().content_key(family->instantiate(instance, config), options).value());
        if (config != base) check(line, {family, config});
      }
      INFO(family->name() << ": " << parameters[i].name);
      CHECK(keys.size() == legal);
    }
  }
}

TEST_CASE("a d128 forward problem has at least 300 legal variants of at least four parameters") {
  const auto instance = instance_of("forward H16 K128 V128 f32");
  const auto variants = enumerate(instance);
  CHECK(variants.size() >= 300);
  const Family* chunk = find_family("chunk");
  std::vector<std::set<int>> values(chunk->parameters(instance).size());
  for (const auto& variant : variants)
    if (variant.family == chunk)
      for (std::size_t i = 0; i < values.size(); ++i) values[i].insert(variant.config[i]);
  CHECK(std::ranges::count_if(values, [](const auto& seen) { return seen.size() > 1; }) >= 4);
}

TEST_CASE("the default of every family is legal for every K and V") {
  for (const int k : {1, 7, 8, 64, 100, 512})
    for (const int v : {1, 7, 8, 9, 64, 100, 512}) {
      const auto instance =
          instance_of(("forward H1 K" + std::to_string(k) + " V" + std::to_string(v) + " f32").c_str());
      for (const Family* family : families()) {
        if (family->kind() != Target::Kind::cpu) continue;
        INFO(family->name() << " K" << k << " V" << v);
        CHECK_FALSE(family->constraint(instance, family->default_config(instance)));
      }
    }
}

TEST_CASE("variants print and parse back") {
  const auto instance = instance_of("forward H4 K128 V128 f32");
  const auto variants = enumerate(instance);
  for (std::size_t i = 0; i < variants.size(); i += 97)
    CHECK(parse_variant(to_string(variants[i], instance), instance).value() == variants[i]);
  CHECK(parse_variant("chunk", instance).value().config == find_family("chunk")->default_config(instance));
}

TEST_CASE("a bad variant is refused by name, with what is allowed") {
  const auto instance = instance_of("forward H4 K128 V128 f32");
  const auto message = [&](const char* text) {
    const auto parsed = parse_variant(text, instance);
    return parsed ? std::string("accepted") : parsed.error().message;
  };
  CHECK_THAT(message("chonk"),
             Catch::Contains("chonk") and Catch::Contains("chunk (cpu), recurrent (cpu), step (cpu)"));
  CHECK_THAT(message("chunk(D=3)"), Catch::Contains("`D`") and Catch::Contains("C, leaf"));
  CHECK_THAT(message("chunk(C=12)"), Catch::Contains("C=12") and Catch::Contains("8, 16, 32, 64"));
  CHECK_THAT(message("chunk(C=16"), Catch::Contains("`)`"));
  CHECK_THAT(message("chunk(C=8,C=16)"), Catch::Contains("C is given twice"));
}

TEST_CASE("families say what they do not cover") {
  const auto half = instance_of("forward H4 K128 V128 bf16 state=f16");
  CHECK(enumerate(half).empty());
  CHECK(parse_variant("chunk", half).error().status == Status::unsupported);
  CHECK_THAT(parse_variant("step", instance_of("forward H4 K128 V128 f32")).error().message, Catch::Contains("step"));
}

TEST_CASE("the space hash follows the space") {
  const auto a = instance_of("forward H4 K128 V128 f32"), b = instance_of("forward H4 K128 V127 f32");
  CHECK(space_hash(a) == space_hash(a));
  CHECK(space_hash(a) != space_hash(b));  // V127 cannot be split
}

TEST_CASE("the prior prefers no variant that is not finite and positive") {
  const auto instance = instance_of("forward H4 K128 V128 f32");
  const auto device = host_cpu_device();
  const auto shape = parse_case("forward H4 K128 V128 f32 @ B1 T2048").value().shape;
  for (const auto& variant : enumerate(instance)) {
    const double seconds = variant.family->prior(instance, shape, device, variant.config);
    REQUIRE(seconds > 0);
    REQUIRE(seconds < 10);
  }
}

}  // namespace glaive
