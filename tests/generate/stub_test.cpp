// The model on a GPU that is none (cuda_stub.cpp): what is enqueued, recorded and collected, and the kernels' texts.
#include "examples/generate/profile.hpp"
#include "runtime/cuda.hpp"
#include "runtime/cuda_driver.hpp"
#include "runtime/pack.hpp"
#include "tests/generate/checks.hpp"

namespace glaive::testing {
namespace {

PackEntry entry(const DeviceInfo& device, const std::string& problem) {
  PackEntry entry;
  entry.key.device = identity(device);
  entry.key.target = to_string(device.target);
  entry.key.problem = to_string(parse_problem(problem).value());
  entry.plan.variant = "stub()";
  entry.plan.target = device.target;
  Stage stage;
  stage.entry = "gla";
  stage.tasks = {1, {}};
  for (int arg = 0; arg <= static_cast<int>(Arg::gate_clamp); ++arg) stage.args.push_back(static_cast<Arg>(arg));
  entry.plan.stages = {stage};
  CodeObject code;
  code.format = CodeObject::Format::cubin;
  code.target = device.target;
  code.bytes.assign(100, std::byte{7});
  entry.code = {code};
  entry.evidence = "{}";
  return entry;
}

}  // namespace

TEST_CASE("logits are near float64's, and requests that come and go get the likeliest tokens") {
  const Kind& kind = kinds[GENERATE(0, 1, 2, 3)];
  INFO(kind.name);
  const auto opened = cuda::Driver::get();
  REQUIRE(opened.has_value());
  const auto gpu = open_gpu(**opened, 0);
  REQUIRE(gpu.has_value());
  const Folder folder;
  generate::make_model(folder / "model", recipe(kind, 32));
  const generate::Config config = generate::read_config(folder / "model" / "config.json");
  const PackEntry entries[] = {entry((*gpu)->info(), generate::Model::problem("forward", config, GLAIVE_BF16)),
                               entry((*gpu)->info(), generate::Model::problem("step", config, GLAIVE_BF16))};
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());

  const auto device = generate::Device::open("cuda:0", 0);
  const api::Pack pack((folder / "p.pack").string());
  check_on_gpu({*device, pack, folder / "model", bf16_allowed});

  // By the stub's clocks a kernel takes a microsecond.
  generate::Model model(*device, pack, folder / "model", {2, 16});
  for (const bool timed : {false, true}) {
    model.time_phases(timed);
    generate::Scheduler scheduler(model, 8, [](std::size_t, Token) {});
    for (int i = 0; i < 2; ++i) scheduler.submit({{1, 2, 3}, 10, false});
    while (not scheduler.decoding()) scheduler.step();
    device->start_profile();
    for (int i = 0; i < 5; ++i) scheduler.step();
    const generate::Profile profile = device->profile();
    scheduler.run();
    CHECK(profile.steps == 5);
    const double products = 1e6 * profile.phases[static_cast<std::size_t>(generate::Phase::products)];
    const double gla = 1e6 * profile.phases[static_cast<std::size_t>(generate::Phase::gla)];
    CHECK(products == Approx(timed ? 5 * (2 * 5 + 1) : 0).margin(0.1));
    CHECK(gla == Approx(timed ? 5 * 2 : 0).margin(0.1));
    if (not timed) CHECK(1e6 * profile.busy == Approx(5 * (2 * 11 + 4)).margin(0.1));
  }
  model.time_phases(false);
  for (int i = 0; i < 2; ++i)  // leaves nothing behind
    CHECK(contains(generate::profile_decode(model, {{1, 2}}, 8, 5).text, "decode of 2 sequences on cuda:0: 5 steps"));

  spoil(folder / "model");
  check_spoilt({*device, pack, folder / "model", bf16_allowed});
}

}  // namespace glaive::testing
