// What a launch costs the host through what `glaive emit` writes, beside libglaive: kernels that do nothing, on a CPU
// and on a driver that does nothing. Prints nanoseconds a call as JSON: the median of 21 batches of 100,000 calls, the
// two by turns, and the range of the batches.
//   emitted_launch
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "autotune/emit/emit.hpp"
#include "autotune/emit/launcher/gla.h"
#include "runtime/cuda.hpp"
#include "runtime/glaive.h"
#include "runtime/kernel.hpp"

using namespace glaive;

namespace {

constexpr const char* problem_text = "step H4 K64 V64 f32";
constexpr std::int64_t sequences = 32, slots = 40, row = 4 * 64;

void check(int status, const char* said) {
  if (status == 0) return;
  std::fprintf(stderr, "emitted_launch: %s\n", said);
  std::exit(1);
}
template <class Value>
Value need(Result<Value> result) {
  if (result) return std::move(*result);
  check(1, result.error().message.c_str());
  std::abort();
}

PackEntry entry_for(const DeviceInfo& device, CodeObject::Format format) {
  PackEntry entry;
  entry.key = {identity(device), to_string(device.target), problem_text, {8, 0}, "v1", 0, 1};
  entry.plan.variant = "nothing";
  entry.plan.target = device.target;
  Stage stage;
  stage.entry = "nothing";
  for (std::size_t arg = 0; arg < static_cast<std::size_t>(Arg::mapped); ++arg)
    stage.args.push_back(static_cast<Arg>(arg));
  entry.plan.stages = {stage};
  entry.code.resize(1);
  entry.code[0].format = format;
  entry.code[0].target = device.target;
  std::ifstream file(NOTHING_KERNEL, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  entry.code[0].bytes.assign(begin, begin + bytes.size());
  return entry;
}

/// What is emitted of these, as a library in this process.
void* emitted_library(const std::vector<PackEntry>& entries, const std::filesystem::path& folder) {
  const auto bytes = encode_pack(entries);
  const auto pack = need(Pack::from_memory(bytes));
  EmitOptions options;
  options.out = folder / "out";
  need(emit(pack, "bench.pack", options));
  const auto library = (folder / "libgla.so").string();
  const auto command =
      std::string(C_COMPILER " -std=c11 -O2 -shared -fPIC ") + (folder / "out/src/gla.c").string() + " -o " + library;
  check(std::system(command.c_str()), "the C compiler fails");
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  check(opened == nullptr, "the emitted library cannot be opened");
  return opened;
}

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}
#define GLA(function) find<decltype(function)>(library, #function)

constexpr int calls = 100000, repeats = 21;
template <class Call>
double batch(const Call& call) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) check(call(), "a call fails");
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - begin;
  return spent.count() / calls;
}
template <class Ours, class Emitted>
void measure(const char* device, const char* path, const Ours& ours, const Emitted& emitted, const char* after) {
  std::vector<double> ns[2];
  for (int i = 0; i < repeats; ++i) ns[0].push_back(batch(ours)), ns[1].push_back(batch(emitted));
  std::printf("  \"%s %s\": {", device, path);
  for (int which = 0; which < 2; ++which) {
    std::sort(ns[which].begin(), ns[which].end());
    std::printf("%s\"%s_ns\": {\"median\": %.2f, \"best\": %.2f, \"worst\": %.2f}", which == 0 ? "" : ", ",
                which == 0 ? "libglaive" : "emitted", ns[which][repeats / 2], ns[which][0], ns[which][repeats - 1]);
  }
  std::printf("}%s\n", after);
}

void measure_on(const char* name, const std::vector<PackEntry>& entries, void* library, const char* after) {
  glaive_device* device = nullptr;
  check(glaive_device_open(name, name[1] == 'p' ? 1 : 0, &device), glaive_last_error());
  glaive_problem problem = {};
  problem.size = sizeof problem;
  check(glaive_problem_parse(problem_text, &problem), glaive_last_error());
  const auto bytes = encode_pack(entries);
  glaive_pack* pack = nullptr;
  check(glaive_pack_open_memory(bytes.data(), bytes.size(), &pack), glaive_last_error());
  glaive_operator* op = nullptr;
  check(glaive_operator_create(device, &pack, 1, &problem, &op), glaive_last_error());

  const auto said = GLA(gla_last_error);
  gla_device* gla_dev = nullptr;
  gla_operator* gla_op = nullptr;
  check(GLA(gla_device_open)(name, 0, &gla_dev), said());
  check(GLA(gla_operator_create)(gla_dev, static_cast<gla_problem>(0), &gla_op), said());

  // A decode step: 32 sequences, one token each, states in place by slot.
  std::vector<float> q(sequences * row), k(q), v(q), g(q), o(q), states(slots * row * 64);
  std::vector<std::int32_t> numbers(sequences);
  std::uint32_t status = 0;
  glaive_shape shape = {};
  shape.size = sizeof shape, shape.sequences = sequences, shape.tokens = 1;
  gla_shape gla_shape_ = {sequences, 1, 0, nullptr};
  glaive_args args = {};
  args.size = sizeof args;
  gla_args same = {};
  args.q = same.q = q.data(), args.k = same.k = k.data(), args.v = same.v = v.data(), args.g = same.g = g.data();
  args.o = same.o = o.data();
  args.initial_state = args.final_state = states.data();
  same.initial_state = same.final_state = states.data();
  args.read_slots = args.write_slots = same.read_slots = same.write_slots = numbers.data();
  args.slots = same.slots = slots;
  args.device_status = same.device_status = &status;

  const glaive_plan* plan = nullptr;
  const gla_plan* gla_plan_ = nullptr;
  const auto look_up = GLA(gla_operator_plan);
  const auto run = GLA(gla_run);
  const auto launch_run = GLA(gla_launch_run);
  check(glaive_operator_plan(op, &shape, &plan), glaive_last_error());
  check(look_up(gla_op, &gla_shape_, &gla_plan_), said());
  glaive_launch* launch = nullptr;
  gla_launch* gla_launch_ = nullptr;
  check(glaive_launch_prepare(plan, &shape, &args, nullptr, 0, &launch), glaive_last_error());
  check(GLA(gla_launch_prepare)(gla_plan_, &gla_shape_, &same, nullptr, 0, &gla_launch_), said());

  measure(
      name, "by_shape",
      [&]() -> int {
        const glaive_plan* found = nullptr;
        if (const auto bad = glaive_operator_plan(op, &shape, &found)) return bad;
        return glaive_run(found, &shape, &args, nullptr, 0);
      },
      [&]() -> int {
        const gla_plan* found = nullptr;
        if (const auto bad = look_up(gla_op, &gla_shape_, &found)) return bad;
        return run(found, &gla_shape_, &same, nullptr, 0);
      },
      ",");
  measure(
      name, "prepared", [&]() -> int { return glaive_launch_run(launch); },
      [&]() -> int { return launch_run(gla_launch_); }, after);

  glaive_launch_close(launch);
  GLA(gla_launch_close)(gla_launch_);
  GLA(gla_operator_close)(gla_op);
  GLA(gla_device_close)(gla_dev);
  glaive_operator_close(op);
  glaive_pack_close(pack);
  glaive_device_close(device);
}

}  // namespace

int main() {
  setenv("GLAIVE_LIBCUDA", NULL_DRIVER, 1);
  const auto gpu = need(describe_gpu(*need(cuda::Driver::get()), 0));
  const std::vector entries = {entry_for(host_cpu_device(), CodeObject::Format::shared_object),
                               entry_for(gpu, CodeObject::Format::cubin)};
  std::string folder = (std::filesystem::temp_directory_path() / "emitted-launch-XXXXXX").string();
  check(mkdtemp(folder.data()) == nullptr, "no temporary folder");
  void* const library = emitted_library(entries, folder);
  std::printf("{\n");
  measure_on("cpu", entries, library, ",");
  measure_on("cuda:0", entries, library, "");
  std::printf("}\n");
  std::filesystem::remove_all(folder);
}
