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

/// The first program in docs/emit.md.
std::string documented_program() {
  std::ifstream page(CONSUMER_FOLDER "/../../docs/emit.md");
  std::string program;
  bool within = false;
  for (std::string line; std::getline(page, line);) {
    within = within or line == "    #include <gla.h>";
    if (within and not line.empty() and not line.starts_with("    ")) break;
    if (within) program += line.substr(std::min<std::size_t>(4, line.size())) + "\n";
  }
  return program;
}

}  // namespace

TEST_CASE("the program in the documentation builds and runs") {
  const Folder folder;
  emit_entries(folder, {compiled("chunk", "forward H4 K64 V64 f32")});
  const std::string text = documented_program();
  REQUIRE(contains(text, "int main"));
  write_bytes(folder / "app.c", std::as_bytes(std::span(text)));
  const auto out = (folder / "out").string(), app = (folder / "app").string();
  const Output ran = run_command(strict_c + ("-I" + out) + "/include " + app + ".c " + out + "/src/gla.c -o " + app +
                                 " -lpthread -ldl -lm && " + app);
  INFO(ran.text);
  CHECK(ran.exit == 0);
  CHECK(ran.text.starts_with("chunk("));
}

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
