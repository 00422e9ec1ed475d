// What a call costs the host where the kernel runs on a GPU: microseconds until the call returns, with the kernel
// enqueued, by shape and prepared, each beside an empty queue. The tensors are zeros of the smallest shape.
//   gpu_calls DEVICE PACK PROBLEM...      each problem is in the pack: gpu_calls cuda:0 my.pack 'step H4 K64 V64 bf16'
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "runtime/glaive.hpp"

namespace api = glaive::api;

namespace {

/// Calls in batches short enough for the queue of a stream; waits between them.
template <class Call>
void measure(const char* name, const api::Memory& wait_for, const Call& call, const char* after) {
  constexpr int calls = 100, repeats = 41;
  std::vector<double> us;
  for (int repeat = -3; repeat < repeats; ++repeat) {  // the first load and warm up
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - begin;
    if (repeat >= 0) us.push_back(spent.count() / calls);
    char word;
    wait_for.read(&word, 1);
  }
  std::sort(us.begin(), us.end());
  std::printf("\"%s_us\": {\"median\": %.3f, \"quartiles\": [%.3f, %.3f], \"worst\": %.3f}%s", name, us[repeats / 2],
              us[repeats / 4], us[3 * repeats / 4], us.back(), after);
}

void calls_of(const api::Device& device, const api::Pack& pack, const char* text, const char* after) {
  const api::Problem problem(text);
  const api::Operator op(device, pack, problem);
  const api::Shape shape(api::Sequences(1), api::Tokens(1));
  const api::PlanView plan = op.plan(shape);
  const auto row = static_cast<std::size_t>(problem.heads * std::max(problem.key_dim, problem.value_dim));
  const auto state = static_cast<std::size_t>(problem.kv_heads * problem.key_dim * problem.value_dim);
  const std::vector<float> zeros(std::max(row, state));
  const auto tensor = [&](std::size_t elements) {
    api::Memory memory(device, elements * sizeof(float));  // enough for any dtype
    memory.write(zeros.data(), memory.size());
    return memory;
  };
  const api::Memory q = tensor(row), k = tensor(row), v = tensor(row), g = tensor(row), o = tensor(row);
  const api::Memory states = tensor(state);
  const api::Memory workspace(device, std::max<std::size_t>(plan.workspace_bytes(shape), 64));
  api::Args args;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
  args.initial_state = args.final_state = states.data();
  glaive_launch* prepared = nullptr;
  api::check(glaive_launch_prepare(plan.get(), &shape, &args, workspace.data(), workspace.size(), &prepared));

  std::printf("  {\"problem\": \"%s\", \"variant\": \"%s\", ", text, plan.variant().c_str());
  measure(
      "by_shape", o,
      [&] {
        const api::PlanView found = op.plan(shape);
        api::check(glaive_run(found.get(), &shape, &args, workspace.data(), workspace.size()));
      },
      ", ");
  measure("prepared", o, [&] { api::check(glaive_launch_run(prepared)); }, "}");
  std::printf("%s\n", after);
  glaive_launch_close(prepared);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) return std::fprintf(stderr, "usage: %s DEVICE PACK PROBLEM...\n", argv[0]), 2;
  const api::Device device(argv[1]);
  const api::Pack pack(argv[2]);
  std::printf("[\n");
  for (int i = 3; i < argc; ++i) calls_of(device, pack, argv[i], i + 1 < argc ? "," : "");
  std::printf("]\n");
} catch (const api::Error& error) {
  std::fprintf(stderr, "gpu_calls: %s\n", error.what());
  return 1;
}
