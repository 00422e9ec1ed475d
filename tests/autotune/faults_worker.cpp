// A worker whose compiler hands out faults_kernel.cpp, or breaks down itself. What verifies and times is the real
// thing.
#include <fmt/format.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "autotune/cpu_runner.hpp"
#include "autotune/memory.hpp"
#include "autotune/worker/worker.hpp"
#include "tests/autotune/faults_family.hpp"

namespace glaive::test {
namespace {

class FaultyEvaluator final : public Evaluator {
 public:
  /// One of the right variants finds its device lost, once: what is in `folder` says whether it did.
  FaultyEvaluator(int threads, Pulse& pulse, const std::string& folder)
      : runner_(threads, pulse), lost_(folder + "/lost") {}
  const DeviceInfo& device() const override { return device_; }
  int workers() const override { return runner_.workers(); }
  std::string compiler() const override { return "faulty compiler"; }

  Evaluated<std::string> content_key(const Instance&, const Variant& variant, Optimise optimise, int) override {
    return fmt::format("faults(kind={}) {}", variant.config.front(), static_cast<int>(optimise));
  }

  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise, int) override {
    const auto name = fault_kinds[variant.config.front()].name;
    if (name == "compile_refused") return fail(Status::failed, "lower: told to fail");
    if (name == "compile_segv") std::raise(SIGSEGV);
    if (name == "compile_fatal") {
      std::fputs("LLVM ERROR: Cannot select: told to fail\n", stderr);
      std::abort();
    }
    if (name == "compile_forever")
      for (;;) asm volatile("" ::: "memory");
    if (name == "compile_hungry")
      for (;;) asm volatile("" : : "r"(new char[std::size_t{1} << 24]) : "memory");
    std::ifstream in(FAULTS_KERNEL, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    CodeObject code{.target = instance.target, .bytes = {}, .text_bytes = 1000, .stack_bytes = 100};
    const auto* const data = reinterpret_cast<const std::byte*>(bytes.data());
    code.bytes.assign(data, data + bytes.size());
    if (name == "load_garbage") code.bytes.front() = std::byte{0};
    return code;
  }

  Result<void> check_memory(const Case& what) override { return glaive::check_memory(what); }
  Result<Verdict> verify(const Case& what, const Built& built, Scrutiny scrutiny, Gates gates) override {
    if (built.plan.stages.front().entry == "right_3" and mkdir(lost_.c_str(), 0700) == 0)
      return fail(Status::device_lost, "told to be lost");
    return runner_.verify(what, built, scrutiny, gates);
  }
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    return runner_.race(what, contenders, policy, keep);
  }
  Rates rates() override { return {1e11, 1e10}; }

 private:
  DeviceInfo device_ = host_cpu_device();
  CpuRunner runner_;
  std::string lost_;
};

}  // namespace
}  // namespace glaive::test

int main(int argc, char** argv) {
  using namespace glaive;
  const test::CpuFaultFamily family;
  const Family* families[] = {&family};
  return serve_worker(
      [&](int threads, Pulse& pulse) -> Result<std::unique_ptr<Evaluator>> {
        return std::make_unique<test::FaultyEvaluator>(threads, pulse, argc > 1 ? argv[1] : "");
      },
      families);
}
