// The model on the GPU of this machine: the families' kernels as they are by default, products by cuBLAS in bf16.
#include <cstdio>

#include "compiler/cuda.hpp"
#include "examples/generate/profile.hpp"
#include "runtime/cuda.hpp"
#include "runtime/cuda_driver.hpp"
#include "tests/generate/checks.hpp"
#include "tests/generate/packed.hpp"

namespace glaive::testing {
namespace {

PackEntry compiled(const DeviceInfo& device, const char* family, const std::string& problem) {
  const Instance instance{parse_problem(problem).value(), device.target};
  const Family& of = *find_family(family, Target::Kind::cuda);
  const auto compiler = CudaCompiler::open();
  if (not compiler) FAIL(compiler.error().message);
  auto code = (*compiler)->compile(std::get<CudaSource>(of.instantiate(instance, of.default_config(instance))),
                                   {device.target, {}});
  if (not code) FAIL(code.error().message);
  return entry_of(device, instance, of, std::move(*code));
}

/// A model, and a pack with what it needs.
class Toy {
 public:
  explicit Toy(const generate::Recipe& recipe) {
    const auto driver = cuda::Driver::get();
    REQUIRE(driver.has_value());
    const auto gpu = open_gpu(**driver, 0);
    REQUIRE(gpu.has_value());
    generate::make_model(model(), recipe);
    const generate::Config config = generate::read_config(model() / "config.json");
    const DeviceInfo& info = (*gpu)->info();
    const PackEntry entries[] = {compiled(info, "stream", generate::Model::problem("forward", config, GLAIVE_BF16)),
                                 compiled(info, "step", generate::Model::problem("step", config, GLAIVE_BF16))};
    REQUIRE(add_to_pack(pack(), entries).has_value());
  }
  fs::path model() const { return folder_ / "model"; }
  fs::path pack() const { return folder_ / "p.pack"; }

 private:
  Folder folder_;
};

}  // namespace

TEST_CASE("logits are near float64's, and requests that come and go get the likeliest tokens") {
  const Kind& kind = kinds[GENERATE(0, 1, 2, 3)];
  INFO(kind.name);
  const Toy toy(recipe(kind));
  const auto device = generate::Device::open("cuda:0", 0);
  const api::Pack pack(toy.pack().string());
  check_on_gpu({*device, pack, toy.model(), bf16_allowed});
}

TEST_CASE("a model whose logits are no numbers fails") {
  const Toy toy(recipe(kinds[0]));
  const auto device = generate::Device::open("cuda:0", 0);
  const api::Pack pack(toy.pack().string());
  spoil(toy.model());
  check_spoilt({*device, pack, toy.model(), bf16_allowed});
}

TEST_CASE("the profile of 64 sequences that decode has all of a step, and prints what outside of kernels it spends") {
  const Toy toy(generate::Recipe::of(512, 8, 4));
  const auto device = generate::Device::open("cuda:0", 0);
  const api::Pack pack(toy.pack().string());
  generate::Model model(*device, pack, toy.model(), {64, 512});
  const generate::DecodeProfile profile = generate::profile_decode(model, {{1, 5, 9, 13}}, 256, 300);
  std::printf("%s", profile.text.c_str());
  CHECK(profile.busy > 0);
  CHECK(profile.busy <= 1);
  CHECK(profile.text.find("decode of 64 sequences on cuda:0: 300 steps") != profile.text.npos);
}

}  // namespace glaive::testing
