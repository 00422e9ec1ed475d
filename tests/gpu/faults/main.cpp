// Tuning runs on a GPU, over variants with one mistake each; what the tuner must make of them is in kinds.hpp. One
// program, tuner and workers, so that it can be carried:
//   gpu_faults [COUNT [SEED]]   COUNT 0, or none: each mistake once
// Ends with 77 where there is no GPU, or no NVRTC.
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>

#include "compiler/cuda.hpp"
#include "runtime/cuda_driver.hpp"
#include "tests/autotune/faults_runs.hpp"
#include "tests/gpu/faults/family.hpp"

namespace {

using namespace glaive;
using namespace glaive::test;

/// What a compiler refuses is told with the variant's name and the file that holds its source.
std::string examine(const FaultKind& kind, const std::string& message) {
  if (kind.drop != Drop::compile_error) return {};
  const int number = index_of_kind(gpu_fault_kinds, kind.name);
  if (not message.starts_with(fmt::format("faults(kind={})", number))) return "it should begin with the variant";
  constexpr std::string_view before = "its source: ";
  const auto at = message.find(before);
  if (at == message.npos) return "it should name the source";
  std::ifstream file(message.substr(at + before.size()));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  return text.contains(fmt::format("#define ENTRY {}\n", kind.name)) ? "" : "the source should be saved";
}

const Subject gpu{
    .kinds = gpu_fault_kinds,
    .line = "forward H2 K8 V8 f32 @ B1 T512",
    .family = [](std::vector<int> legal) -> std::unique_ptr<Family> {
      return std::make_unique<GpuFaultFamily>(std::move(legal));
    },
    .workers =
        {.threads = 2, .arguments = {"worker"}, .kernel_seconds = 2, .compile_seconds = 5, .trusted_seconds = 60},
    .judge = [](const PackEntry& entry) -> Result<Verdict> {
      auto workers = gpu.workers;
      workers.arguments.emplace_back("/tmp");
      auto evaluator = make_worker_evaluator(std::move(workers));
      if (not evaluator) return std::unexpected(evaluator.error());
      return (*evaluator)
          ->verify(parse_case(gpu.line).value(), {entry.plan, entry.code.front()}, Scrutiny::full, Gates::weak);
    },
    .examine = examine};

/// The stub that tests use instead of a GPU executes no cubins, so that it cannot refuse them.
bool lies_in_cubin(std::string_view kind) { return kind.starts_with("code_") or kind == "much_static"; }

int skip(const std::string& why) {
  fmt::print("skipped: {}\n", why);
  return 77;
}

}  // namespace

int main(int argc, char** argv) {
  const std::span words(argv, static_cast<std::size_t>(argc));
  const std::string_view role = argc > 1 ? argv[1] : "";
  if (role == "worker") {
    setenv("GLAIVE_CACHE", words.back(), 1);  // where sources are saved
    const GpuFaultFamily family;
    const Family* families[] = {&family};
    return serve_worker([](int, Pulse& pulse) { return make_faulty_gpu_evaluator(pulse); }, families);
  }
  if (role == "tune") return tune_words(gpu, words.subspan(2));
  if (const auto driver = cuda::Driver::get(); not driver) return skip(driver.error().message);
  if (const auto compiler = CudaCompiler::open(); not compiler) return skip(compiler.error().message);

  const bool on_stub = std::getenv("STUB_KERNELS") != nullptr;
  std::vector<int> faulty;
  for (int kind = gpu.right_kinds(); kind < static_cast<int>(std::size(gpu_fault_kinds)); ++kind)
    if (not on_stub or not lies_in_cubin(gpu_fault_kinds[kind].name)) faulty.push_back(kind);
  const auto number = [&](std::size_t at, std::uint64_t otherwise) {
    return words.size() > at ? std::strtoull(words[at], nullptr, 10) : otherwise;
  };
  constexpr Inject outside[] = {kill_a_worker, kill_the_tuner};
  const auto begin = std::chrono::steady_clock::now();
  const int failed = inject(gpu, faulty, outside, number(1, 0), number(2, 1));
  fmt::print("{:.1f} s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return failed;
}
