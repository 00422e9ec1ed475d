// Versions of a kernel beside each other: compiled by one build of glaive each, without a GPU, then carried to one and
// timed in turns within one process, each launch between flushes of the L2. For work on the templates: what
// docs/performance.md says of a version against the one before was measured so.
//   kernels compile PREFIX 'CASE | VARIANT'   writes PREFIX.cubin and PREFIX.plan; says what ptxas made of it
//   kernels time 'CASE' GATES PREFIX...       microseconds, median [quartiles], and checksums of o and of the states
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "autotune/gpu/call.hpp"
#include "autotune/gpu/timer.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "templates/family.hpp"

namespace glaive {
namespace {

constexpr int rounds = 6, launches = 8;  // of a version, one after the other, in a round

[[noreturn]] void stop(const std::string& message) {
  fmt::print(stderr, "kernels: {}\n", message);
  std::exit(1);
}
template <class T, class E>
T must(std::expected<T, E> result) {
  if (not result) stop(result.error().message);
  if constexpr (not std::is_void_v<T>) return std::move(*result);
}

std::vector<std::byte> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text.empty()) stop("cannot read " + path);
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
void write(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (not file.flush()) stop("cannot write " + path);
}

void compile(const std::string& prefix, const std::string& line) {
  const auto bar = line.find('|');
  if (bar == line.npos) stop("a line is 'CASE | VARIANT'");
  const Case what = must(parse_case(line.substr(0, bar)));
  const Instance instance{what.problem, must(parse_target("cuda:sm_90a"))};
  const auto [family, config] = must(parse_variant(line.substr(bar + 1), instance));
  CudaReport report;
  const CodeObject code =
      must(must(CudaCompiler::open())
               ->compile(family->instantiate(instance, config), CudaOptions{instance.target, {}}, &report));
  write(prefix + ".cubin", code.bytes);
  write(prefix + ".plan", encode(family->plan(instance, config)));
  for (const KernelFacts& kernel : report.kernels)
    fmt::print("{}: {} registers, {} spills, {} bytes of code\n", kernel.entry, kernel.registers, kernel.spills,
               kernel.text_bytes);
  if (report.log.find("serialized") != report.log.npos) fmt::print("ptxas runs products of warpgroups one by one\n");
}

struct Version {
  std::string name;
  std::unique_ptr<const Kernel> kernel;
  std::vector<double> us;
};

void time(const Case& what, Gates gates, std::span<const std::string> prefixes) {
  const cuda::Driver& driver = *must(cuda::Driver::get());
  const auto device = must(open_gpu(driver, 0));
  const Extents extents = extents_of(what.problem, what.shape, 1);
  std::vector<Version> versions;
  std::int64_t workspace_size = 0;
  for (const std::string& prefix : prefixes) {
    const Plan plan = must(decode_plan(read(prefix + ".plan"), 1));
    const CodeObject code{CodeObject::Format::cubin, plan.target, read(prefix + ".cubin")};
    versions.push_back({prefix, must(device->load(plan, {&code, 1})), {}});
    workspace_size = std::max(workspace_size, static_cast<std::int64_t>(workspace_bytes(plan, extents)));
  }
  Call call(what, gates, 1, Passing::contiguous, Guarded::Copy::none);
  Guarded workspace(workspace_size / 4 + 1);
  const auto image = must(GpuCall::make(*device, call, workspace));
  must(image.upload());
  const auto timer = must(GpuTimer::make(driver, 0, device->info().l2_bytes));
  Launch launch = image.launch();
  launch.stream = timer->stream();
  for (int round = -1; round < rounds; ++round)  // the first one warms up
    for (Version& version : versions)
      for (int i = 0; i < launches; ++i) {
        const double seconds = must(timer->cold(1, [&] { return version.kernel->launch(launch); }));
        if (round >= 0) version.us.push_back(seconds * 1e6);
      }
  for (Version& version : versions) {
    call.poison_outputs();
    must(image.upload());
    must(version.kernel->launch(image.launch()));
    must(device->wait());
    must(image.download());
    auto& us = version.us;
    std::ranges::sort(us);
    fmt::print("{:8.2f} [{:.2f}, {:.2f}]  {:016x} {:016x}  {}\n", us[us.size() / 2], us[us.size() / 4],
               us[3 * us.size() / 4], call.o.checksum(), call.state_out.checksum(), version.name);
  }
}

}  // namespace
}  // namespace glaive

int main(int argc, char** argv) {
  using namespace glaive;
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 3 and words[0] == "compile") {
    compile(words[1], words[2]);
  } else if (words.size() >= 4 and words[0] == "time") {
    time(must(parse_case(words[1])), must(parse_gates(words[2])), std::span(words).subspan(3));
  } else {
    stop("usage: kernels compile PREFIX 'CASE | VARIANT', or kernels time CASE GATES PREFIX...");
  }
}
