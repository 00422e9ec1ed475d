// The GPU families compiled for every target, without a GPU; skipped where there is no NVRTC.
#include <algorithm>
#include <chrono>

#include "compiler/cuda.hpp"
#include "templates/cuda/cuda.hpp"
#include "templates/family.hpp"
#include "tests/catch.hpp"

using namespace glaive;

TEST_CASE("defaults compile for every target, spill nothing and fit where the plan says they do") {
  const auto compiler = CudaCompiler::open().value();
  std::vector<CudaJob> jobs;
  std::vector<std::vector<Stage>> stages;
  std::vector<std::string> names;
  for (const char* arch : {"cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_90a", "cuda:sm_100", "cuda:sm_120"})
    for (const char* problem :
         {"step H16 K128 V128 bf16", "step H4 K256 V512 f32 vk", "step H8 Hkv2 K64 V64 bf16 state=bf16",
          "forward H16 K128 V128 bf16", "forward H8 Hkv4 K64 V64 bf16", "forward H4 K256 V512 bf16",
          "forward H16 K64 V64 f16 gate=f32 logit vk", "forward H2 K100 V60 f32"}) {
      const Instance instance{parse_problem(problem).value(), parse_target(arch).value()};
      for (const Family* const family : families()) {
        if (family->kind() != Target::Kind::cuda or not family->applicable(instance)) continue;
        const Config config = family->default_config(instance);
        jobs.push_back({std::get<CudaSource>(family->instantiate(instance, config)), {instance.target, {}}});
        stages.push_back(family->plan(instance, config).stages);
        names.push_back(to_string(Variant{family, config}, instance) + " of " + problem + " for " + arch);
      }
    }
  REQUIRE(jobs.size() >= 40);
  std::vector<Result<CodeObject>> codes(jobs.size());  // looked at when all is over: Catch2 asserts on one thread only
  compile_all(*compiler, jobs, 2, std::chrono::minutes(5), {},
              [&](std::size_t job, Result<CodeObject> code) { codes[job] = std::move(code); });
  for (std::size_t job = 0; job < jobs.size(); ++job) {
    INFO(names[job]);
    if (not codes[job]) FAIL(codes[job].error().message);
    const auto facts = cubin_facts(codes[job]->bytes).value();
    REQUIRE(facts.size() == stages[job].size());
    for (const Stage& stage : stages[job]) {
      INFO(stage.entry);
      const auto kernel = std::ranges::find(facts, stage.entry, &KernelFacts::entry);
      REQUIRE(kernel != facts.end());
      CHECK(kernel->spills == 0);
      CHECK(kernel->stack_bytes == 0);
      CHECK(kernel->most_threads == stage.block[0]);
      const auto words = static_cast<std::int64_t>(8 * stage.args.size());
      const auto maps = static_cast<std::int64_t>(128 * stage.maps.size());
      const std::int64_t padding = kernel->parameter_bytes - words - maps;  // for maps begin at multiples of 128
      CHECK((maps == 0 ? padding == 0 : padding >= 0 and padding < 128));
      CHECK(cuda::resident(cuda::sm_of(jobs[job].options.target), stage.block[0], kernel->registers,
                           stage.shared_bytes) >= 1);
    }
  }
}

TEST_CASE("products of warpgroups run one behind the other without waiting, as far as ptxas says") {
  const auto compiler = CudaCompiler::open().value();
  for (const char* problem : {"forward H16 K128 V128 bf16", "forward H16 K64 V64 bf16 logit",
                              "forward H4 K256 V512 bf16", "forward H16 K128 V128 f16"}) {
    const Instance instance{parse_problem(problem).value(), parse_target("cuda:sm_90a").value()};
    const Family& family = *find_family("stream_wgmma", Target::Kind::cuda);
    CudaReport report;
    const auto code =
        compiler->compile(std::get<CudaSource>(family.instantiate(instance, family.default_config(instance))),
                          {instance.target, {}}, &report, {});
    INFO(problem);
    if (not code) FAIL(code.error().message);
    CHECK(report.log.find("ptxas") != report.log.npos);
    CHECK(report.log.find("serialized") == report.log.npos);
  }
}
