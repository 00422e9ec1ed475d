// Every shipped winner compiled for its GPU, without a GPU: none may spill. Skipped where there is no NVRTC.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "autotune/shipped.hpp"
#include "compiler/cuda.hpp"
#include "tests/catch.hpp"

using namespace glaive;

namespace {

/// What is wrong with the code of a table's winners, a sentence each.
std::vector<std::string> faults(const WinnersTable& table) {
  const auto compiler = CudaCompiler::open().value();
  std::vector<CudaJob> jobs;
  std::vector<std::string> names, found;
  for (const auto& winner : table.winners) {
    const Instance instance{winner.what.problem, table.target};
    const auto name =
        fmt::format("{}.txt:{}: {} of `{}`", table.name, winner.line, winner.variant, to_string(winner.what.problem));
    const auto variant = parse_variant(winner.variant, instance);
    if (not variant) {
      found.push_back(name + ": " + variant.error().message);
    } else if (std::ranges::find(names, name) == names.end()) {
      jobs.push_back(
          {std::get<CudaSource>(variant->family->instantiate(instance, variant->config)), {table.target, {}}});
      names.push_back(name);
    }
  }
  compile_all(*compiler, jobs, 2, std::chrono::minutes(5), {}, [&](std::size_t job, Result<CodeObject> code) {
    if (not code) return found.push_back(names[job] + ": " + code.error().message);
    const auto kernels = cubin_facts(code->bytes).value();
    for (const KernelFacts& kernel : kernels)
      if (kernel.spills > 0 or kernel.stack_bytes > 0)
        found.push_back(fmt::format("{}: {} has {} instructions that move spilled registers, and {} bytes of stack",
                                    names[job], kernel.entry, kernel.spills, kernel.stack_bytes));
  });
  return found;
}

}  // namespace

TEST_CASE("no shipped winner spills") {
  const auto tables = shipped_winners();
  if (not tables) FAIL(tables.error().message);
  for (const auto& table : *tables)
    for (const auto& fault : faults(table)) FAIL_CHECK(fault);
}

TEST_CASE("a winner that spills, is gone or does not compile would be told") {
  const auto table =
      parse_winners(
          "device: name=a test's\ntarget: cuda:sm_90a\n"
          "step H16 K128 V128 bf16 @ B64 T1 | step | - | - | -\n"
          "step H16 K128 V128 bf16 @ B1 T1 | step(columns=3) | - | - | -\n"
          "forward H4 K256 V512 bf16 @ B8 T2048 | stream(C=32,columns=128,ksplit=2,stage=0) | - | - | -\n",
          "test")
          .value();
  const auto found = faults(table);
  for (const auto& fault : found) UNSCOPED_INFO(fault);
  const auto tells = [&](const char* word) {
    return std::ranges::count_if(found, [&](const std::string& fault) { return fault.find(word) != fault.npos; });
  };
  CHECK(tells("test.txt:3:") == 0);
  CHECK(tells("test.txt:4:") == 1);
  CHECK(tells("columns=3 is not one of") == 1);
  CHECK(tells("instructions that move spilled registers") == 1);
}
