// The GPU families on a device, by the project's own verification. Kernels are compiled here by NVRTC, all at once. One
// line of JSON per result on standard output; exits with 0, with 1 where something is wrong, or with 77 and the reason
// where a GPU or NVRTC is missing.
//   gpu_families verify FILE   lines `case` or `case | variant`: all gates; bad slots and lengths where there are
//   tables
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "autotune/gpu/call.hpp"
#include "autotune/verify.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "templates/family.hpp"

namespace glaive {
namespace {

[[noreturn]] void stop(const std::string& message) {
  fmt::print(stderr, "gpu_families: {}\n", message);
  std::exit(1);
}
template <class T, class E>
T must(std::expected<T, E> result) {
  if (not result) stop(result.error().message);
  if constexpr (not std::is_void_v<T>) return std::move(*result);
}

struct Line {
  Case what;
  Variant variant;
  std::string name;  ///< `problem | variant`
};

Line parse_line(const std::string& text, const Target& target) {
  const auto bar = text.find('|');
  const Case what = must(parse_case(text.substr(0, bar)));
  const Instance instance{what.problem, target};
  const char* const family = what.problem.op == Op::step ? "step" : "stream";
  const Variant variant = must(parse_variant(bar == text.npos ? family : text.substr(bar + 1), instance));
  return {what, variant, to_string(what.problem) + " | " + to_string(variant, instance)};
}

std::map<std::string, std::unique_ptr<const Kernel>> compile(Device& device, std::span<const Line> lines) {
  std::map<std::string, const Line*> wanted;
  for (const Line& line : lines) wanted.emplace(line.name, &line);
  const Target& target = device.info().target;
  std::vector<const Line*> kernels;
  std::vector<CudaJob> jobs;
  for (const auto& [name, line] : wanted) {
    kernels.push_back(line);
    jobs.push_back(
        {std::get<CudaSource>(line->variant.family->instantiate({line->what.problem, target}, line->variant.config)),
         {target, {}}});
  }
  std::vector<CodeObject> code(jobs.size());
  compile_all(*must(CudaCompiler::open()), jobs, static_cast<int>(std::thread::hardware_concurrency()),
              std::chrono::minutes(2), {}, [&](std::size_t job, Result<CodeObject> made) {
                if (not made) stop(kernels[job]->name + ": " + made.error().message);
                code[job] = std::move(*made);
              });
  std::map<std::string, std::unique_ptr<const Kernel>> loaded;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const auto& [family, config] = kernels[i]->variant;
    const Plan plan = family->plan({kernels[i]->what.problem, target}, config);
    loaded[kernels[i]->name] = must(device.load(plan, {&code[i], 1}));
  }
  return loaded;
}

/// Runs the call that `words` are of, on images of its tensors; the bits of the device status. With `bad`, its tables
/// have numbers out of range where those of strided calls have -1, and a last sequence longer than it is.
std::uint32_t run(Device& device, const Kernel& kernel, Call& call, bool bad) {
  const Extents extents = extents_of(call.what.problem, call.what.shape, 1);
  Guarded workspace((workspace_bytes(kernel.plan(), extents) + 3) / 4);
  const auto images = must(GpuCall::make(device, call, workspace));
  const auto sums = call.cu_seqlens, read_slots = call.read_slots, write_slots = call.write_slots;
  if (bad) {
    std::ranges::replace(call.read_slots, -1, static_cast<std::int32_t>(call.slots));
    std::ranges::replace(call.write_slots, -1, -2);
    call.cu_seqlens.back() += 5;
  }
  must(images.upload());
  std::ranges::copy(sums, call.cu_seqlens.begin());  // where they are: the images know the addresses
  std::ranges::copy(read_slots, call.read_slots.begin());
  std::ranges::copy(write_slots, call.write_slots.begin());

  std::uint32_t status = 0;
  const auto word = must(Mirror::make(device, std::as_writable_bytes(std::span(&status, 1))));
  must(word.upload());
  Launch launch = images.launch();
  launch.words.set_pointer(Arg::device_status, word.image_of(reinterpret_cast<std::uintptr_t>(&status)));
  must(kernel.launch(launch));
  must(images.download());
  must(word.download());
  if (not workspace.guards_intact()) stop(kernel.plan().variant + " wrote outside its workspace");
  return status;
}

/// Trials with all gates, their oracles side by side.
std::vector<Trial> trials_of(const Case& what) {
  std::vector<std::future<Trial>> making;
  for (const Gates gates : all_gates)
    making.push_back(
        std::async(std::launch::async, [&what, gates, seed = making.size() + 1] { return Trial(what, gates, seed); }));
  std::vector<Trial> trials;
  for (auto& trial : making) trials.push_back(trial.get());
  return trials;
}

/// Whether all is right.
bool verify(Device& device, const Line& line, const Kernel& kernel, std::span<Trial> trials, bool bad) {
  const bool ragged = not line.what.shape.is_uniform(), slots = line.what.shape.sequences().count() > 1;
  if (bad and not ragged and not slots) return true;
  std::uint32_t status = 0;
  const Runner runner = [&](const Words& words, const Extents&) {
    const auto trial = std::ranges::find_if(trials, [&](const Trial& one) {
      return words[Arg::q] == reinterpret_cast<std::uintptr_t>(one.call.q.memory());
    });
    status |= run(device, kernel, trial->call, bad);
  };
  const auto verdict = verify(runner, line.name, trials, 1, Target::Kind::cuda);
  const auto bit = [](bool raised, DeviceFault fault) { return raised ? static_cast<std::uint32_t>(fault) : 0; };
  const std::uint32_t expected = bit(bad and ragged, DeviceFault::lengths) | bit(bad and slots, DeviceFault::slot);
  const bool right = verdict.drop == Drop::none and status == expected;
  fmt::print(
      "{{\"verify\": \"{}\", \"shape\": \"{}\", \"bad\": {}, \"ok\": {}, \"o\": {:.3e}, \"state\": {:.3e}, "
      "\"status\": {}}}\n",
      line.name, to_string(line.what.shape), bad, right, verdict.error_o, verdict.error_state, status);
  if (not right) fmt::print(stderr, "{}: status {} {}\n", line.name, status, verdict.message);
  return right;
}

int verify_file(Device& device, std::istream& file) {
  std::vector<Line> lines;
  for (std::string text; std::getline(file, text);)
    if (not text.empty() and text[0] != '#') lines.push_back(parse_line(text, device.info().target));
  const auto kernels = compile(device, lines);
  int failures = 0;
  for (const Line& line : lines) {
    std::vector<Trial> trials = trials_of(line.what);
    for (const bool bad : {false, true})
      if (not verify(device, line, *kernels.at(line.name), trials, bad)) ++failures;
  }
  fmt::print(stderr, "verified {} lines, {} failures\n", lines.size(), failures);
  return lines.empty() or failures > 0 ? 1 : 0;
}

}  // namespace
}  // namespace glaive

int main(int argc, char** argv) {
  using namespace glaive;
  if (argc != 3 or std::string_view(argv[1]) != "verify") stop("usage: gpu_families verify FILE");
  std::ifstream file(argv[2]);
  if (not file) stop(fmt::format("cannot read {}", argv[2]));
  const auto driver = cuda::Driver::get();
  const auto compiler = CudaCompiler::open();
  if (not driver or not compiler) {
    fmt::print("skipped: {}\n", driver ? compiler.error().message : driver.error().message);
    return 77;
  }
  return verify_file(*must(open_gpu(**driver, 0)), file);
}
