// The code that each parameter's values generate, as counts of operations, against goldens/FAMILY.txt. A change of a
// template that moves code shows up as a diff to review: rewrite the files with GLAIVE_UPDATE_GOLDENS=1.
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "compiler/compiler.hpp"
#include "templates/family.hpp"
#include "tests/catch.hpp"

namespace glaive {
namespace {

std::string operations(MlirCompiler& compiler, const Instance& instance, const Family& family, const Config& config) {
  Dump dump;
  const CompileOptions options{instance.target, "", CompileOptions::Effort::light};
  const auto code = compiler.compile(family.instantiate(instance, config), options, &dump);
  if (not code) FAIL(code.error().message);
  static const std::regex name(R"(\b(?:arith|vector|llvm|scf)\.(?:intr\.)?[a-z_]+\b)");
  std::map<std::string, int> counts;
  for (std::sregex_iterator match(dump.mlir.begin(), dump.mlir.end(), name), end; match != end; ++match)
    ++counts[match->str()];
  std::string text;
  for (const char* kind : {"scf.for", "scf.if", "vector.fma", "arith.mulf", "arith.addf", "vector.broadcast",
                           "vector.shuffle", "llvm.load", "llvm.store", "llvm.intr.masked", "llvm.intr.prefetch"})
    text += " " + std::string(kind) + "=" + std::to_string(counts[kind]);
  return text;
}

std::string all_operations(const Family& family) {
  Instance instance{parse_problem("forward H2 K20 V64 f32").value(), parse_target("cpu:x86-64-v3").value()};
  if (not family.applicable(instance)) instance.problem.op = Op::step;
  MlirCompiler compiler;
  const Config base = family.default_config(instance);
  std::string text = "default:" + operations(compiler, instance, family, base) + "\n";
  const auto parameters = family.parameters(instance);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    for (const int value : parameters[i].values) {
      Config config = base;
      config[i] = value;
      if (config == base or family.constraint(instance, config)) continue;
      text += std::string(parameters[i].name) + "=" + std::to_string(value) + ":" +
              operations(compiler, instance, family, config) + "\n";
    }
  return text;
}

}  // namespace

TEST_CASE("the code of every parameter value is the golden one") {
  for (const Family* family : families()) {
    if (family->kind() != Target::Kind::cpu) continue;
    const std::string path = std::string(GLAIVE_GOLDENS) + "/" + std::string(family->name()) + ".txt";
    const std::string now = all_operations(*family);
    if (std::getenv("GLAIVE_UPDATE_GOLDENS")) std::ofstream(path) << now;
    std::ostringstream golden;
    golden << std::ifstream(path).rdbuf();
    INFO(path);
    CHECK(now == golden.str());
  }
}

}  // namespace glaive
