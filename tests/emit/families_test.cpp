// The CPU's families as they are served, emitted and run from C.
#include "compiler/compiler.hpp"
#include "templates/family.hpp"
#include "tests/emit/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

PackEntry compiled(const char* family, const char* problem) {
  const Instance instance{parse_problem(problem).value(), host_cpu_target()};
  const Family& of = *find_family(family, Target::Kind::cpu);
  const Config config = of.default_config(instance);
  MlirCompiler compiler;
  auto code = compiler.compile(of.instantiate(instance, config),
                               {instance.target, host_cpu_name(), CompileOptions::Effort::light});
  if (not code) FAIL(code.error().message);
  PackEntry entry;
  entry.key = kernel_key();
  entry.key.target = to_string(instance.target);
  entry.key.problem = to_string(instance.problem);
  entry.plan = of.plan(instance, config);
  entry.plan.variant = to_string({&of, config}, instance);
  entry.code = {std::move(*code)};
  entry.evidence = "{}";
  return entry;
}

}  // namespace

TEST_CASE("forward and step of this processor run from C, alone and shared by workers") {
  const Folder folder;
  emit_entries(folder,
               {compiled("chunk", "forward H4 Hkv2 K32 V24 f32"), compiled("recurrent", "forward H2 K16 V16 bf16"),
                compiled("step", "step H6 Hkv2 K64 V64 f32")});
  const std::string program = build_consumer(folder);
  runs_right(program + " cpu 'forward H4 Hkv2 K32 V24 f32' 3 70");
  runs_right(program + " cpu 'forward H4 Hkv2 K32 V24 f32' 2 33 4");
  runs_right(program + " cpu 'forward H2 K16 V16 bf16' 2 19 2");
  runs_right(program + " cpu 'step H6 Hkv2 K64 V64 f32' 5 3 2");
}
