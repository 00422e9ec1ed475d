// What was emitted for the GPU of this machine, run there by a program in C: kernels of one stage and of several, with
// tensor maps and without.
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "templates/family.hpp"
#include "tests/emit/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

/// The default of a family, for the machine's own architecture.
PackEntry compiled(const DeviceInfo& device, const CudaCompiler& compiler, const char* family, const char* problem) {
  const Instance instance{parse_problem(problem).value(), compiler.target_for(device.target)};
  const Family& of = *find_family(family, Target::Kind::cuda);
  if (auto applies = of.applicable(instance); not applies) FAIL(applies.error().message);
  const Config config = of.default_config(instance);
  auto code = compiler.compile(of.instantiate(instance, config), {instance.target, {}});
  if (not code) FAIL(code.error().message);
  PackEntry entry;
  entry.key = kernel_key();
  entry.key.device = identity(device);
  entry.key.target = to_string(instance.target);
  entry.key.problem = to_string(instance.problem);
  entry.plan = of.plan(instance, config);
  entry.plan.variant = to_string({&of, config}, instance);
  entry.plan.target = instance.target;
  entry.code = {std::move(*code)};
  entry.evidence = "{}";
  return entry;
}

struct Machine {
  DeviceInfo info;
  std::shared_ptr<const CudaCompiler> compiler;
  Machine() {
    const auto driver = cuda::Driver::get();
    REQUIRE(driver.has_value());
    info = *describe_gpu(**driver, 0);
    auto opened = CudaCompiler::open();
    if (not opened) FAIL(opened.error().message);
    compiler = *opened;
  }
  bool is_hopper() const { return to_string(info.target) == "cuda:sm_90a"; }
};

void runs_on_gpu(const Machine& machine, const char* family, const char* problem, const char* shape) {
  const Folder folder;
  emit_entries(folder, {compiled(machine.info, *machine.compiler, family, problem)}, "--ptx off");
  runs_right(build_consumer(folder) + " cuda:0 '" + problem + "' " + shape);
}

}  // namespace

TEST_CASE("forward, step and a forward of several stages run from C") {
  const Machine machine;
  runs_on_gpu(machine, "stream", "forward H4 Hkv2 K64 V64 bf16", "3 200");
  runs_on_gpu(machine, "segments", "forward H2 K64 V64 bf16", "1 3000");
  runs_on_gpu(machine, "step", "step H8 Hkv4 K64 V64 bf16", "40 2");
}

TEST_CASE("on Hopper, wgmma kernels with tensor maps run from C") {
  const Machine machine;
  if (not machine.is_hopper()) return;
  runs_on_gpu(machine, "stream_wgmma", "forward H4 K128 V128 bf16", "2 500");
  runs_on_gpu(machine, "segments_wgmma", "forward H2 K128 V128 bf16", "1 4000");
}

TEST_CASE("PTX runs where no cubin does") {
  const Machine machine;
  const Folder folder;
  PackEntry entry = compiled(machine.info, *machine.compiler, "stream", "forward H4 Hkv2 K64 V64 bf16");
  entry.key.target = "cuda:sm_80";
  entry.plan.target = entry.code[0].target = *parse_target("cuda:sm_80");
  emit_entries(folder, {entry}, "--ptx on");
  const std::string command = build_consumer(folder) + " cuda:0 'forward H4 Hkv2 K64 V64 bf16' 3 200";
  const Output output = run_command(command);
  INFO(output.text);
  CHECK(output.exit == 0);
  if (machine.info.target.arch != "sm_80" and not machine.info.target.arch.starts_with("sm_8"))
    CHECK(contains(output.text, "for cuda:compute_8"));
}
