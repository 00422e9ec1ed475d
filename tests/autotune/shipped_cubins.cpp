// Every shipped winner compiled for its GPU, without a GPU: none may spill, and none have ptxas run products of
// warpgroups one by one. Skipped where there is no NVRTC.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "autotune/compiled.hpp"
#include "autotune/shipped.hpp"
#include "compiler/cuda.hpp"
#include "tests/catch.hpp"
#include "tests/files.hpp"

using namespace glaive;
using namespace glaive::testing;

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
  std::vector<CudaReport> reports(jobs.size());
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].report = &reports[i];
  compile_all(*compiler, jobs, 2, std::chrono::minutes(5), {}, [&](std::size_t job, Result<CodeObject> code) {
    if (not code) return found.push_back(names[job] + ": " + code.error().message);
    if (reports[job].log.find("serialized") != std::string::npos)
      found.push_back(names[job] + ": ptxas runs products of warpgroups one by one");
    for (const KernelFacts& kernel : reports[job].kernels)
      if (kernel.spills > 0 or kernel.stack_bytes > 0)
        found.push_back(fmt::format("{}: {} has {} instructions that move spilled registers, and {} bytes of stack",
                                    names[job], kernel.entry, kernel.spills, kernel.stack_bytes));
  });
  return found;
}

}  // namespace

TEST_CASE("no shipped winner spills, or has its products run one by one") {
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

TEST_CASE("winners that were compiled once are found, and not compiled again") {
  const auto compiler = CudaCompiler::open().value();
  auto table = parse_winners(
                   "device: name=a test's\ntarget: cuda:sm_90a\n"
                   "step H16 K128 V128 bf16 @ B64 T1 | step(columns=64,threads=128,pass=2) | - | - | -\n"
                   "step H16 K64 V64 bf16 @ B64 T1 | step(columns=64,threads=128,pass=2) | - | - | -\n",
                   "test")
                   .value();
  auto entries = compile_winners(table, *compiler, 1, {}).value();
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].key.device == "name=a test's");
  CHECK(cubin_facts(entries[0].code.front().bytes).value().front().entry == "gla_step");

  std::swap(entries[0].code, entries[1].code);  // to be told from what would be compiled
  const Folder folder;
  REQUIRE(add_to_pack(folder / "test.pack", entries));
  const CompiledWinners have(folder.path());
  const auto again = compile_winners(table, *compiler, 1, have).value();
  for (int i : {0, 1}) CHECK(again[i].code.front().bytes == entries[i].code.front().bytes);
  for (auto& entry : entries) {
    const auto by = entry.evidence.find(compiler->build());
    entry.evidence.insert(by, "another ");
  }
  REQUIRE(add_to_pack(folder / "test.pack", entries));
  const auto of_another = compile_winners(table, *compiler, 1, CompiledWinners(folder.path())).value();
  CHECK(of_another[0].code.front().bytes == entries[1].code.front().bytes);

  auto bytes = read_bytes(folder / "test.pack");
  for (std::size_t i = bytes.size() / 4; i < bytes.size() / 2; ++i) bytes[i] = std::byte('!');
  write_bytes(folder / "test.pack", bytes);
  const auto anew = compile_winners(table, *compiler, 1, CompiledWinners(folder.path())).value();
  CHECK(anew[0].code.front().bytes == entries[1].code.front().bytes);

  table.winners[1].variant = "step(columns=3)";
  CHECK(compile_winners(table, *compiler, 1, have).error().message.starts_with("test.txt:4: step(columns=3): "));
}
