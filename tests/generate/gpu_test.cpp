// The model on the GPU of this machine: the families' kernels as they are by default, products by cuBLAS in bf16.
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "runtime/cuda_driver.hpp"
#include "runtime/pack.hpp"
#include "templates/family.hpp"
#include "tests/generate/checks.hpp"

namespace glaive::testing {
namespace {

PackEntry compiled(const DeviceInfo& device, const char* family, const std::string& problem) {
  const Instance instance{parse_problem(problem).value(), device.target};
  const Family& of = *find_family(family, Target::Kind::cuda);
  const Config config = of.default_config(instance);
  const auto compiler = CudaCompiler::open();
  if (not compiler) FAIL(compiler.error().message);
  auto code = (*compiler)->compile(std::get<CudaSource>(of.instantiate(instance, config)), {device.target, {}});
  if (not code) FAIL(code.error().message);
  PackEntry entry;
  entry.key.device = identity(device);
  entry.key.target = to_string(device.target);
  entry.key.problem = to_string(instance.problem);
  entry.plan = of.plan(instance, config);
  entry.code = {std::move(*code)};
  entry.evidence = "{}";
  return entry;
}

}  // namespace

TEST_CASE("logits are near float64's, and requests that come and go get the likeliest tokens") {
  const Kind& kind = kinds[GENERATE(0, 1, 2)];
  INFO(kind.name);
  const auto opened = cuda::Driver::get();
  REQUIRE(opened.has_value());
  const auto gpu = open_gpu(**opened, 0);
  REQUIRE(gpu.has_value());
  const Folder folder;
  generate::make_model(folder / "model", recipe(kind));
  const generate::Config config = generate::read_config(folder / "model" / "config.json");
  const DeviceInfo& info = (*gpu)->info();
  const PackEntry entries[] = {compiled(info, "stream", generate::Model::problem("forward", config, GLAIVE_BF16)),
                               compiled(info, "step", generate::Model::problem("step", config, GLAIVE_BF16))};
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());

  const auto device = generate::Device::open("cuda:0", 0);
  const api::Pack pack((folder / "p.pack").string());
  check_on_gpu({*device, pack, folder / "model", bf16_allowed});
}

}  // namespace glaive::testing
