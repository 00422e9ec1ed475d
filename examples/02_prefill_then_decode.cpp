// Prefill, then decode: one forward over the prompts of three sequences, then a step for each further token, with the
// states in place in slots. Compares with one forward over everything.
//   02_prefill_then_decode my.pack 'forward H4 K64 V64 f32' cuda:0
// The pack has the problem as a step too: glaive tune 'forward H4 K64 V64 f32 @ B3 T40' 'step H4 K64 V64 f32 @ B3 T1'.
#include <algorithm>

#include "toy.hpp"

namespace {

constexpr std::int64_t sequences = 3, prompt = 40, total = 64;

/// The first tokens of every sequence, one sequence after the other.
std::vector<int> texts(std::int64_t tokens) {
  std::vector<int> all;
  for (int s = 0; s < sequences; ++s)
    for (const int token : toy::tokens_of(s, 0, tokens)) all.push_back(token);
  return all;
}

toy::Memory on_device(const toy::Device& device, const std::vector<std::int32_t>& numbers) {
  toy::Memory memory(device, numbers.size() * sizeof(std::int32_t));
  memory.write(numbers.data(), memory.size());
  return memory;
}

}  // namespace

int main(int argc, char** argv) {
  return toy::run(argc, argv, [](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    toy::Problem step_problem = problem;
    step_problem.op = GLAIVE_STEP;
    // An engine makes these once; asking one for the plan of a shape costs nanoseconds.
    const toy::Operator forward(device, pack, problem), step(device, pack, step_problem);
    const toy::Shape whole{toy::Sequences(sequences), toy::Tokens(total)};
    const toy::Shape prompts{toy::Sequences(sequences), toy::Tokens(prompt)};
    const toy::Shape one{toy::Sequences(sequences), toy::Tokens(1)};
    const toy::Workspace workspace(device, std::max(forward.workspace_bytes(whole), step.workspace_bytes(one)));

    // Everything at once, from zero states.
    toy::Tensors all(device, problem, sequences * total);
    all.fill(0, texts(total));
    forward.plan(whole)(whole, all.args(), workspace);
    const toy::Output want = all.o.read(sequences * total * all.o_row);

    // The prompts, into slots 4, 0 and 2 of five.
    constexpr std::int64_t slots = 5;
    const toy::Tensor states(device, problem.state_dtype,
                             slots * problem.kv_heads * problem.key_dim * problem.value_dim);
    const toy::Memory none = on_device(device, {-1, -1, -1}), place = on_device(device, {4, 0, 2});
    const auto* const from_zero = static_cast<const std::int32_t*>(none.data());
    const auto* const in_place = static_cast<const std::int32_t*>(place.data());
    toy::Tensors start(device, problem, sequences * prompt);
    start.fill(0, texts(prompt));
    toy::Args args = start.args();
    args.set_states(states.at(0), toy::Slots(slots), from_zero, in_place);
    forward.plan(prompts)(prompts, args, workspace);

    // One token of each sequence after the other. Sequence b of a call of one token is its row b: here they lie `total`
    // tokens apart.
    const toy::PlanView plan = step.plan(one);
    const toy::Tensor o(device, problem.io_dtype, sequences * total * all.o_row);
    for (std::int64_t t = prompt; t < total; ++t) {
      args = toy::Args();
      args.q = all.q.at(t * all.q_row), args.q_token_stride = total * all.q_row;
      args.k = all.k.at(t * all.k_row), args.k_token_stride = total * all.k_row;
      args.v = all.v.at(t * all.v_row), args.v_token_stride = total * all.v_row;
      args.g = all.g.at(t * all.k_row), args.g_token_stride = total * all.k_row;
      args.o = o.at(t * all.o_row), args.o_token_stride = total * all.o_row;
      args.set_states(states.at(0), toy::Slots(slots), in_place, in_place);
      plan(one, args, workspace);
    }

    toy::Output got = o.read(sequences * total * all.o_row);
    const toy::Output first = start.o.read(sequences * prompt * all.o_row);
    for (std::int64_t s = 0; s < sequences; ++s)
      std::copy_n(first.begin() + s * prompt * all.o_row, prompt * all.o_row, got.begin() + s * total * all.o_row);
    std::printf("%s, then %s\n", forward.plan(prompts).variant().c_str(), plan.variant().c_str());
    return toy::verdict(problem, "40 + 24 tokens against 64 at once", toy::difference(got, want));
  });
}
