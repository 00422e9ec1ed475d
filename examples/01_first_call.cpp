// The first call: open a pack, find the kernel for a problem, run it.
//   01_first_call my.pack 'forward H4 K64 V64 f32' cuda:0
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "runtime/glaive.hpp"

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 4)
    return std::fprintf(stderr, "usage: %s <pack> ['<problem>' [<device>]], default: 'forward H4 K64 V64 f32' cpu\n",
                        argv[0]),
           2;

  const glaive::api::Device device(argc > 3 ? argv[3] : "cpu");
  const glaive::api::Pack pack(argv[1]);
  const glaive::api::Problem problem(argc > 2 ? argv[2] : "forward H4 K64 V64 f32");
  const glaive::api::Shape shape(glaive::api::Sequences(2), glaive::api::Tokens(512));
  const glaive::api::Plan plan(device, pack, problem, shape);
  std::printf("%s\n", plan.description().c_str());

  if (problem.io_dtype != GLAIVE_F32 || problem.gate_dtype != GLAIVE_F32)
    return std::fprintf(stderr, "this example fills its tensors with f32 only\n"), 2;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto numbers = [&](std::int64_t heads, std::int64_t channels) {
    std::vector<float> values(static_cast<std::size_t>(shape.sequences * shape.tokens * heads * channels));
    for (float& value : values) value = normal(random);
    return values;
  };
  // Memory that kernels of the device see; pointers of an allocator of your own do as well.
  const auto on_device = [&](const std::vector<float>& values) {
    glaive::api::Memory memory(device, values.size() * sizeof(float));
    memory.write(values.data(), memory.size());
    return memory;
  };
  const auto q = on_device(numbers(problem.heads, problem.key_dim));
  const auto k = on_device(numbers(problem.kv_heads, problem.key_dim));
  const auto v = on_device(numbers(problem.kv_heads, problem.value_dim));
  std::vector<float> gates = numbers(problem.kv_heads, problem.key_dim);
  for (float& gate : gates) gate = -0.05f * std::fabs(gate);  // logarithms of decays: never above 0
  const auto g = on_device(gates);
  std::vector<float> result(
      static_cast<std::size_t>(shape.sequences * shape.tokens * problem.heads * problem.value_dim));
  const auto o = on_device(result);

  const glaive::api::Workspace workspace(device, plan.workspace_bytes(shape));
  glaive::api::Args args;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
  plan(shape, args, workspace);
  o.read(result.data(), o.size());  // on a GPU after what was enqueued

  double sum = 0;
  for (const float value : result) sum += static_cast<double>(value) * static_cast<double>(value);
  std::printf("norm of o: %.6f over %zu numbers\n", std::sqrt(sum), result.size());
} catch (const glaive::api::Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}
