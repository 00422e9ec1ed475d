// The first call: open a pack, find the kernel for a problem, run it.
//   01_first_call my.pack 'forward H4 K64 V64 f32'
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "runtime/glaive.hpp"

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 3)
    return std::fprintf(stderr, "usage: %s <pack> ['<problem>', default: forward H4 K64 V64 f32]\n", argv[0]), 2;

  const glaive::api::Device device("cpu");
  const glaive::api::Pack pack(argv[1]);
  const glaive::api::Problem problem(argc == 3 ? argv[2] : "forward H4 K64 V64 f32");
  const glaive::api::Shape shape(glaive::api::Sequences(2), glaive::api::Tokens(512));
  const glaive::api::Plan plan(device, pack, problem, shape);
  std::printf("%s\n", plan.description().c_str());

  if (problem.io_dtype != GLAIVE_F32 || problem.gate_dtype != GLAIVE_F32 || problem.state_dtype != GLAIVE_F32)
    return std::fprintf(stderr, "this example fills its tensors with f32 only\n"), 2;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto tensor = [&](std::int64_t heads, std::int64_t channels) {
    std::vector<float> values(static_cast<std::size_t>(shape.sequences * shape.tokens * heads * channels));
    for (float& value : values) value = normal(random);
    return values;
  };
  const std::vector<float> q = tensor(problem.heads, problem.key_dim), k = tensor(problem.kv_heads, problem.key_dim);
  const std::vector<float> v = tensor(problem.kv_heads, problem.value_dim);
  std::vector<float> g = tensor(problem.kv_heads, problem.key_dim);
  for (float& gate : g) gate = -0.05f * std::fabs(gate);  // logarithms of decays: never above 0
  std::vector<float> o(static_cast<std::size_t>(shape.sequences * shape.tokens * problem.heads * problem.value_dim));

  const glaive::api::Workspace workspace(plan.workspace_bytes(shape));
  glaive::api::Args args;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
  plan(shape, args, workspace);

  double sum = 0;
  for (const float value : o) sum += static_cast<double>(value) * static_cast<double>(value);
  std::printf("norm of o: %.6f over %zu numbers\n", std::sqrt(sum), o.size());
} catch (const glaive::api::Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}
