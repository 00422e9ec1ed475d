// What the GPU families hand to the compiler, and that their legal and illegal variants are told apart; no compiler.
// Goldens: rewrite with GLAIVE_UPDATE_GOLDENS=1.
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "templates/cuda/cuda.hpp"
#include "templates/family.hpp"
#include "tests/catch.hpp"

namespace glaive {
namespace {

const char* const targets[] = {"cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_90a", "cuda:sm_100", "cuda:sm_120"};

Instance instance_of(const char* problem, const char* target) {
  return {parse_problem(problem).value(), parse_target(target).value()};
}

CudaSource source_of(const Variant& variant, const Instance& instance) {
  return std::get<CudaSource>(variant.family->instantiate(instance, variant.config));
}

/// The constants of a text: all before the helpers.
std::string head_of(const CudaSource& source) {
  return source.text.substr(0, source.text.find("// What kernels need"));
}

std::string summary(const Variant& variant, const Instance& instance) {
  std::string text = to_string(variant, instance) + ":";
  for (const Stage& stage : variant.family->plan(instance, variant.config).stages)
    text += " " + std::to_string(stage.tasks.multiplier) + " tiles, " + std::to_string(stage.block[0]) + " threads, " +
            std::to_string(stage.shared_bytes) + " bytes" + (stage.early ? ", early" : "") + ";";
  text.back() = '\n';
  return text;
}

std::string description(const Family& family) {
  const char* problem = family.name() == "step" ? "step H4 Hkv2 K96 V80 bf16 gate=f32 logit vk"
                                                : "forward H4 Hkv2 K96 V80 bf16 gate=f32 logit vk";
  const Instance instance = instance_of(problem, "cuda:sm_90a");
  const Config base = family.default_config(instance);
  std::string text = head_of(source_of({&family, base}, instance)) + summary({&family, base}, instance);
  const auto parameters = family.parameters(instance);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    for (const int value : parameters[i].values) {
      Config config = base;
      config[i] = value;
      if (config == base) continue;
      const auto why = family.constraint(instance, config);
      text += why ? to_string(Variant{&family, config}, instance) + " is not legal: " + *why + "\n"
                  : summary({&family, config}, instance);
    }
  return text;
}

}  // namespace

TEST_CASE("the constants and plans of every parameter value are the golden ones") {
  for (const Family* family : families()) {
    if (family->kind() != Target::Kind::cuda) continue;
    const std::string path = std::string(GLAIVE_GOLDENS) + "/cuda-" + std::string(family->name()) + ".txt";
    const std::string now = description(*family);
    if (std::getenv("GLAIVE_UPDATE_GOLDENS")) std::ofstream(path) << now;
    std::ostringstream golden;
    golden << std::ifstream(path).rdbuf();
    INFO(path);
    CHECK(now == golden.str());
  }
}

TEST_CASE("every K and V has a legal default on every target, within what an SM has") {
  const char* dtypes = GENERATE("f32", "bf16", "f16", "f32 gate=bf16 state=bf16 vk", "bf16 gate=f32 state=bf16");
  for (const char* op : {"forward", "step"})
    for (const char* target : targets)
      for (const int k : {1, 7, 16, 33, 64, 100, 128, 129, 200, 256, 300, 384, 385, 511, 512})
        for (const int v : {1, 8, 17, 64, 128, 130, 511, 512}) {
          const std::string problem = std::string(op) + " H64 Hkv" + (v % 2 == 0 ? "64 K" : "1 K") + std::to_string(k) +
                                      " V" + std::to_string(v) + " " + dtypes;
          const Instance instance = instance_of(problem.c_str(), target);
          int covered = 0;
          for (const Family* const family : families()) {
            if (family->kind() != Target::Kind::cuda or not family->applicable(instance)) continue;
            ++covered;
            const Config config = family->default_config(instance);
            INFO(family->name() << ", " << problem << " on " << target);
            REQUIRE(family->constraint(instance, config).value_or("") == "");
            const Stage stage = family->plan(instance, config).stages[0];
            CHECK(stage.shared_bytes <= cuda::sm_of(instance.target).block_shared_bytes);
            CHECK(stage.tasks.multiplier >= 1);
          }
          CHECK(covered >= 1);
        }
}

TEST_CASE("a text includes nothing, and changes with every parameter, dtype and flag") {
  std::vector<std::string> texts;
  for (const char* problem :
       {"forward H4 K64 V64 bf16", "forward H4 K64 V64 f16", "forward H4 K64 V64 f32", "forward H4 Hkv2 K64 V64 bf16",
        "forward H4 K64 V32 bf16", "forward H4 K32 V64 bf16", "forward H4 K64 V64 bf16 gate=f32",
        "forward H4 K64 V64 bf16 state=bf16", "forward H4 K64 V64 bf16 logit", "forward H4 K64 V64 bf16 vk"}) {
    const Instance instance = instance_of(problem, "cuda:sm_90a");
    const Family* family = find_family("stream", Target::Kind::cuda);
    texts.push_back(source_of({family, family->default_config(instance)}, instance).text);
    CHECK(texts.back().find("#include") == std::string::npos);
  }
  std::ranges::sort(texts);
  CHECK(std::ranges::adjacent_find(texts) == texts.end());
}

TEST_CASE("what the GPU families do not cover is refused in words") {
  const Family& family = *find_family("stream", Target::Kind::cuda);
  CHECK(family.applicable(instance_of("forward H1 K8 V8 bf16", "cuda:sm_75")).error().message ==
        "needs sm_80 or later");
  CHECK(family.applicable(instance_of("step H1 K8 V8 bf16", "cuda:sm_90a")).error().message ==
        "covers op `forward` only");
  CHECK(family.applicable(instance_of("forward H1 K8 V8 bf16", "cpu:x86-64-v3")).error().message ==
        "runs on CUDA targets only");
  const Family& hopper = *find_family("stream_wgmma");
  const auto refused = [&](const char* problem, const char* target) {
    const auto covered = hopper.applicable(instance_of(problem, target));
    return covered ? "" : covered.error().message;
  };
  CHECK(refused("forward H2 K64 V64 bf16", "cuda:sm_90a") == "");
  CHECK(refused("forward H2 K64 V64 bf16", "cuda:sm_90") == "runs on sm_90a only");
  CHECK(refused("forward H2 K64 V64 bf16", "cuda:sm_100") == "runs on sm_90a only");
  CHECK(refused("forward H2 K64 V64 f16", "cuda:sm_90a") == "");
  CHECK(refused("forward H2 K64 V64 f32", "cuda:sm_90a") == "takes io in bf16 and f16 only");
  CHECK(refused("forward H2 K257 V64 bf16", "cuda:sm_90a") == "covers K up to 256");
  const Instance instance = instance_of("forward H1 K512 V64 f32", "cuda:sm_86");
  CHECK(parse_variant("stream(C=64)", instance).error().message.find("allowed") != std::string::npos);
  CHECK(parse_variant("step", instance_of("step H1 K8 V8 f32", "cuda:sm_80")).value().family->kind() ==
        Target::Kind::cuda);
}

}  // namespace glaive
