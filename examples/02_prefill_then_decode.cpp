// Prefill, then decode: one forward over the prompts of three sequences, then a step for each further token, with the
// states in place in slots. Compares with one forward over everything.
//   02_prefill_then_decode my.pack 'forward H4 K64 V64 f32'
// The pack has the problem as a step too: glaive tune 'forward H4 K64 V64 f32 @ B3 T40' 'step H4 K64 V64 f32 @ B3 T1'.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "runtime/glaive.hpp"

namespace api = glaive::api;

namespace {

constexpr std::int64_t sequences = 3, prompt = 40, total = 64;

/// [sequences, tokens, row] in one piece.
struct Tensor {
  std::int64_t row;
  std::vector<float> values;

  Tensor(std::int64_t tokens, std::int64_t row_of_it)
      : row(row_of_it), values(static_cast<std::size_t>(sequences * tokens * row_of_it)) {}

  /// Tokens [0, end) of every sequence.
  Tensor first(std::int64_t end) const {
    Tensor part(end, row);
    for (std::int64_t s = 0; s < sequences; ++s)
      std::copy_n(values.begin() + s * total * row, end * row, part.values.begin() + s * end * row);
    return part;
  }
};

double difference(const Tensor& a, const Tensor& b) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    error += std::pow(static_cast<double>(a.values[i] - b.values[i]), 2);
    norm += std::pow(static_cast<double>(b.values[i]), 2);
  }
  return std::sqrt(error / norm);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 3)
    return std::fprintf(stderr, "usage: %s <pack> ['<problem>', default: forward H4 K64 V64 f32]\n", argv[0]), 2;
  const api::Device device("cpu");
  const api::Pack pack(argv[1]);
  const api::Problem problem(argc == 3 ? argv[2] : "forward H4 K64 V64 f32");
  api::Problem step_problem = problem;
  step_problem.op = GLAIVE_STEP;
  if (problem.io_dtype != GLAIVE_F32 || problem.gate_dtype != GLAIVE_F32 || problem.state_dtype != GLAIVE_F32)
    return std::fprintf(stderr, "this example fills its tensors with f32 only\n"), 2;
  // An engine makes these once; asking one for the plan of a shape costs nanoseconds.
  const api::Operator forward(device, pack, problem), step(device, pack, step_problem);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto fill = [&](std::int64_t heads, std::int64_t channels) {
    Tensor tensor(total, heads * channels);
    for (float& value : tensor.values) value = normal(random);
    return tensor;
  };
  const Tensor q = fill(problem.heads, problem.key_dim), k = fill(problem.kv_heads, problem.key_dim);
  const Tensor v = fill(problem.kv_heads, problem.value_dim);
  Tensor g = fill(problem.kv_heads, problem.key_dim);
  for (float& gate : g.values) gate = -0.05f * std::fabs(gate);
  const std::int64_t o_row = problem.heads * problem.value_dim;

  const auto run = [](const api::Operator& op, const api::Shape& shape, const api::Args& args) {
    const api::PlanView plan = op.plan(shape);
    plan(shape, args, api::Workspace(plan.workspace_bytes(shape)));
  };
  const auto tensors = [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, Tensor& o) {
    api::Args args;
    args.q = q.values.data(), args.k = k.values.data(), args.v = v.values.data(), args.g = g.values.data();
    args.o = o.values.data();
    return args;
  };

  // Everything at once, from zero states.
  Tensor want(total, o_row);
  run(forward, {api::Sequences(sequences), api::Tokens(total)}, tensors(q, k, v, g, want));

  // The prompts, into slots 4, 0 and 2 of five.
  constexpr std::int64_t slots = 5;
  std::vector<float> states(static_cast<std::size_t>(slots * problem.kv_heads * problem.key_dim * problem.value_dim));
  const std::int32_t none[sequences] = {-1, -1, -1}, place[sequences] = {4, 0, 2};
  Tensor got(total, o_row);
  {
    const Tensor pq = q.first(prompt), pk = k.first(prompt), pv = v.first(prompt), pg = g.first(prompt);
    Tensor po(prompt, o_row);
    api::Args args = tensors(pq, pk, pv, pg, po);
    args.set_states(states.data(), api::Slots(slots), none, place);
    run(forward, {api::Sequences(sequences), api::Tokens(prompt)}, args);
    for (std::int64_t s = 0; s < sequences; ++s)
      std::copy_n(po.values.begin() + s * prompt * o_row, prompt * o_row, got.values.begin() + s * total * o_row);
  }

  // One token of each sequence after the other. Sequence b of a call of one token is its row b: here they lie `total`
  // tokens apart.
  const api::Shape one(api::Sequences(sequences), api::Tokens(1));
  const api::PlanView plan = step.plan(one);
  const api::Workspace workspace(plan.workspace_bytes(one));
  for (std::int64_t t = prompt; t < total; ++t) {
    api::Args args;
    args.q = q.values.data() + t * q.row, args.q_token_stride = total * q.row;
    args.k = k.values.data() + t * k.row, args.k_token_stride = total * k.row;
    args.v = v.values.data() + t * v.row, args.v_token_stride = total * v.row;
    args.g = g.values.data() + t * g.row, args.g_token_stride = total * g.row;
    args.o = got.values.data() + t * o_row, args.o_token_stride = total * o_row;
    args.set_states(states.data(), api::Slots(slots), place, place);
    plan(one, args, workspace);
  }

  const double error = difference(got, want);
  std::printf("%s, then %s: %lld + %lld tokens differ by %.1e from %lld at once\n", forward.plan(one).variant().c_str(),
              plan.variant().c_str(), static_cast<long long>(prompt), static_cast<long long>(total - prompt), error,
              static_cast<long long>(total));
  return error < 1e-5 ? 0 : 1;
} catch (const api::Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}
