// Injects faults, drawn from a seeded list, and looks after every one whether a wrong variant won, a run was lost, a
// load was corrupt or an entry disappeared:
//   faults [COUNT [SEED]]
#include <cstdlib>
#include <span>

#include "autotune/verify.hpp"
#include "tests/autotune/faults_family.hpp"
#include "tests/autotune/faults_runs.hpp"
#include "tests/sanitized.hpp"

namespace {

using namespace glaive;
using namespace glaive::test;

constexpr double patience = GLAIVE_SANITIZED ? 3 : 0.4;  // seconds until a hang is one

const Subject cpu{.kinds = fault_kinds,
                  .line = "forward H2 K8 V8 f32 @ B1 T512",
                  .family = [](std::vector<int> legal) -> std::unique_ptr<Family> {
                    return std::make_unique<CpuFaultFamily>(std::move(legal));
                  },
                  .workers = {.threads = 2,
                              .program = FAULTS_WORKER,
                              .arguments = {},
                              .kernel_seconds = patience,
                              .compile_seconds = patience,
                              .trusted_seconds = 60,
                              .compile_bytes = std::uint64_t{256} << 20,
                              .run_bytes = std::uint64_t{256} << 20},
                  .judge = [](const PackEntry& entry) -> Result<Verdict> {
                    const auto kernel = CpuKernel::load(entry.plan, entry.code);
                    if (not kernel) return std::unexpected(kernel.error());
                    WorkerPool pool(2);
                    Trial trial(parse_case(cpu.line).value(), Gates::mixed, 1);
                    return verify(*kernel, std::span(&trial, 1), pool);
                  },
                  .may_be_slow = true};

}  // namespace

int main(int argc, char** argv) {
  const std::span words(argv, static_cast<std::size_t>(argc));
  if (argc > 1 and std::string_view(argv[1]) == "tune") return tune_words(cpu, words.subspan(2));
  const auto number = [&](std::size_t at, std::uint64_t otherwise) {
    return words.size() > at ? std::strtoull(words[at], nullptr, 10) : otherwise;
  };
  std::vector<int> faulty;
  for (int kind = cpu.right_kinds(); kind < static_cast<int>(std::size(fault_kinds)); ++kind)
    if (not GLAIVE_SANITIZED or fault_kinds[kind].drop != Drop::memory) faulty.push_back(kind);  // no limit can be set
  constexpr Inject outside[] = {kill_a_worker, kill_the_tuner, fill_the_disk, write_one_pack};
  return inject(cpu, faulty, outside, number(1, 300), number(2, 1));
}
