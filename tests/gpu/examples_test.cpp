// The examples on the GPU of this machine, with the families' kernels as they are by default.
#include "tests/runtime/examples.hpp"

#include "compiler/cuda.hpp"
#include "templates/family.hpp"
#include "tests/runtime/cuda/served.hpp"

namespace glaive::testing {
namespace {

PackEntry compiled(const DeviceInfo& device, const char* family, const std::string& problem) {
  const Instance instance{parse_problem(problem).value(), device.target};
  const Family& of = *find_family(family, Target::Kind::cuda);
  const Config config = of.default_config(instance);
  const auto compiler = CudaCompiler::open();
  REQUIRE(compiler.has_value());
  auto code = (*compiler)->compile(std::get<CudaSource>(of.instantiate(instance, config)), {device.target, {}});
  if (not code) FAIL(code.error().message);
  PackEntry entry = gpu_entry_without_code(device);
  entry.key.problem = to_string(instance.problem);
  entry.plan = of.plan(instance, config);
  entry.code = {std::move(*code)};
  return entry;
}

}  // namespace

TEST_CASE("examples: all that they compute equals each sequence alone, in f32 and bf16") {
  const std::string words = GENERATE("H4 K64 V64 f32", "H4 Hkv2 K128 V128 bf16", "H4 Hkv2 K64 V64 bf16 gate=f32 vk",
                                     "H4 K64 V64 bf16 state=bf16");
  const auto device = open_gpu(driver(), 0);
  REQUIRE(device.has_value());
  const PackEntry entries[] = {compiled((*device)->info(), "stream", "forward " + words),
                               compiled((*device)->info(), "step", "step " + words)};
  const Folder folder;
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
  examples_agree({"02_prefill_then_decode", "03_continuous_batching", "04_speculation", "05_beams", "06_prefix_cache",
                  "07_cuda_graph"},
                 folder / "p.pack", "forward " + words, "cuda:0");
}

}  // namespace glaive::testing
