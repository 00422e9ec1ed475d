#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "autotune/cli/command.hpp"
#include "autotune/evaluator.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::string variant, problem, target, dump;
  bool parameters = false;
};

constexpr std::string_view stages[] = {"mlir", "lowered", "llvm", "asm"};

Result<Problem> read_problem(const std::string& line) {
  if (line.contains('@')) {
    auto what = read_case(line);
    if (not what) return std::unexpected(what.error());
    return what->problem;
  }
  auto problem = parse_problem(line);
  if (not problem)
    return fail(Status::invalid_argument, "this is not a problem:\n" + problem.error().pointing_at(line));
  return *problem;
}

/// What the family of that name is looked at for when nothing is said: a CPU if there is such a family for one, and the
/// first of the usual problems that it covers. No device is needed.
Result<Instance> find_instance(const Options& asked) {
  constexpr std::string_view usual[] = {"forward H4 K128 V128", "step H16 K128 V128"};
  const auto name = asked.variant.substr(0, asked.variant.find('('));
  const auto* family = find_family(name, Target::Kind::cpu);
  const bool for_gpu = family == nullptr and (family = find_family(name, Target::Kind::cuda)) != nullptr;
  Instance instance{*parse_problem(usual[0]), for_gpu ? *parse_target("cuda:sm_90a") : host_cpu_target()};
  if (not asked.target.empty()) {
    auto target = parse_target(asked.target);
    if (not target) return fail(Status::invalid_argument, "--target: " + target.error().message);
    instance.target = std::move(*target);
    family = find_family(name, instance.target.kind);
  }
  if (not asked.problem.empty()) {
    auto problem = read_problem(asked.problem);
    if (not problem) return std::unexpected(problem.error());
    instance.problem = *problem;
    return instance;
  }
  for (const auto line : usual) {
    instance.problem = *parse_problem(line);
    if (family != nullptr and family->applicable(instance)) return instance;
  }
  instance.problem = *parse_problem(usual[0]);
  return instance;
}

void print_parameters(const Variant& variant, const Instance& instance) {
  const auto parameters = variant.family->parameters(instance);
  fmt::print("{}: {}\nfor `{}` on {}\n", named(*variant.family), variant.family->summary(), to_string(instance.problem),
             to_string(instance.target));
  for (std::size_t i = 0; i < parameters.size(); ++i)
    fmt::print("  {} = {}: {}; one of {}\n", parameters[i].name, variant.config[i], parameters[i].meaning,
               fmt::join(parameters[i].values, " "));
}

int run(const Options& asked) {
  if (not asked.dump.empty() and std::ranges::find(stages, asked.dump) == std::end(stages))
    return report_usage(fmt::format("--dump {}: it is mlir, lowered, llvm or asm", asked.dump));
  const auto found = find_instance(asked);
  if (not found) return report(found.error());
  const Instance& instance = *found;
  const auto variant = parse_variant(asked.variant, instance);
  if (not variant) return report_for(instance.problem, variant.error());
  if (asked.parameters) {
    print_parameters(*variant, instance);
    return success;
  }
  if (instance.target.kind != Target::Kind::cpu)
    return report({Status::unsupported, "inspect compiles for CPUs alone; of a variant for GPUs it shows --params"});
#ifdef GLAIVE_HAVE_MLIR
  MlirCompiler compiler;
  const CompileOptions options{.target = instance.target, .tune_cpu = host_cpu_name(), .effort = Optimise::full};
  const auto source = variant->family->instantiate(instance, variant->config);
  Dump dump;
  const auto code = compiler.compile(source, options, asked.dump.empty() ? nullptr : &dump);
  if (not asked.dump.empty()) {
    // What there is up to a failure is what one wants to look at.
    fmt::print("{}", asked.dump == "mlir"      ? dump.mlir
                     : asked.dump == "lowered" ? dump.lowered
                     : asked.dump == "llvm"    ? dump.llvm
                                               : dump.assembly);
    return code ? success : report(code.error());
  }
  if (not code) return report(code.error());
  print_parameters(*variant, instance);
  const auto key = compiler.content_key(source, options);
  fmt::print(
      "variant {}\nproblem {}\ntarget {}\ncompiler {}\nkey {}\ncode {} bytes, of these {} of machine code; stack {} "
      "bytes\n",
      to_string(*variant, instance), to_string(instance.problem), to_string(instance.target), compiler_build(),
      key ? *key : key.error().message, code->bytes.size(), code->text_bytes, code->stack_bytes);
  fmt::print("plan\n{}\n", to_string(variant->family->plan(instance, variant->config)));
  return success;
#else
  return report(make_local_evaluator("cpu", 1).error());
#endif
}

}  // namespace

void add_inspect(CLI::App& program, int& exit) {
  Command command(program, exit, "inspect", "Show a variant: parameters, facts of its code, text of each stage");
  auto options = std::make_shared<Options>();
  command.option("VARIANT", options->variant, "a family, or a variant such as 'chunk(C=16)'", {.required = true});
  command.option(
      "--problem", options->problem,
      "what to instantiate it for (default: forward H4 K128 V128, or step H16 K128 V128 where the family decodes)");
  command.option("--target", options->target, "e.g. cuda:sm_90a (default: this CPU, or that for what runs on GPUs)");
  command.option("--dump", options->dump, "print one stage: mlir, lowered, llvm or asm");
  command.flag("--params", options->parameters, "parameters only; compiles nothing");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
