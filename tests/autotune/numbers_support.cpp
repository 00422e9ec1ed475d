#include "tests/autotune/numbers_support.hpp"

#include <bit>
#include <limits>

namespace glaive::test {
namespace {

/// The words of a call by name and type.
struct View {
  const Words& words;

  template <class T = float>
  T* pointer(Arg arg) const {
    return reinterpret_cast<T*>(words[arg]);
  }
  std::int64_t integer(Arg arg) const { return static_cast<std::int64_t>(words[arg]); }
  float scalar(Arg arg) const { return std::bit_cast<float>(static_cast<std::uint32_t>(words[arg])); }
  std::int64_t slot(Arg array, std::int64_t b) const {
    const auto* slots = pointer<const std::int32_t>(array);
    return slots == nullptr ? b : slots[b];
  }
};

}  // namespace

void run_kernel(const Problem& problem, const Words& words, Bug bug) {
  static int runs = 0;
  ++runs;
  const View view{words};
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count();
  const std::int64_t heads = view.integer(Arg::heads), kv_heads = view.integer(Arg::kv_heads);
  const std::int64_t longest = view.integer(Arg::longest);
  const auto* const lengths = view.pointer<const std::int32_t>(Arg::cu_seqlens);
  const bool contiguous = bug == Bug::assumes_contiguous;
  float *const states_in = view.pointer(Arg::state_in), *const states_out = view.pointer(Arg::state_out);
  float* const o = view.pointer(Arg::o);
  const auto at = [&](std::int64_t i, std::int64_t j) {
    return (problem.layout == StateLayout::kv) != (bug == Bug::transposes_state) ? i * dim_v + j : j * dim_k + i;
  };
  const auto state_of = [&](float* states, Arg slots, Arg slot_stride, Arg head_stride, std::int64_t b,
                            std::int64_t h) {
    std::int64_t slot = view.slot(slots, b);
    if (slot < 0 and bug == Bug::forgets_zero_slots and slots == Arg::read_slots) slot = 0;
    return states == nullptr or slot < 0 ? nullptr
                                         : states + slot * view.integer(slot_stride) + h * view.integer(head_stride);
  };

  for (std::int64_t b = 0; b < view.integer(Arg::sequences); ++b)
    for (std::int64_t h = 0; h < kv_heads; ++h) {
      const float* initial = state_of(states_in, Arg::read_slots, Arg::state_in_slot, Arg::state_in_head, b, h);
      float* const final_state = state_of(states_out, Arg::write_slots, Arg::state_out_slot, Arg::state_out_head, b, h);
      if (bug == Bug::ignores_initial_state) initial = nullptr;
      if (bug == Bug::clears_state_first and final_state != nullptr) std::fill_n(final_state, dim_k * dim_v, 0.0f);
      std::vector<double> s(static_cast<std::size_t>(dim_k * dim_v)), before;
      for (std::int64_t i = 0; i < dim_k and initial != nullptr; ++i)
        for (std::int64_t j = 0; j < dim_v; ++j) s[static_cast<std::size_t>(i * dim_v + j)] = initial[at(i, j)];

      const std::int64_t first = lengths == nullptr ? b * longest : lengths[b];
      const std::int64_t end = lengths == nullptr ? first + longest : lengths[b + 1];
      for (std::int64_t t = first; t < end; ++t) {
        const bool skip = bug == Bug::skips_last_token and t + 1 == end;
        const std::int64_t gate_token = bug == Bug::decays_late and t > first ? t - 1 : t;
        const auto row = [&](Arg tensor, Arg token, Arg head, std::int64_t token_index, std::int64_t h_index,
                             std::int64_t all_heads, std::int64_t dim) {
          const std::int64_t token_stride = contiguous ? all_heads * dim : view.integer(token);
          return view.pointer(tensor) + token_index * token_stride + h_index * view.integer(head);
        };
        float* const k = row(Arg::k, Arg::k_token, Arg::k_head, t, h, kv_heads, dim_k);
        const float* const g = row(Arg::g, Arg::g_token, Arg::g_head, gate_token, h, kv_heads, dim_k);
        const float* const v = row(Arg::v, Arg::v_token, Arg::v_head, t, h, kv_heads, dim_v);
        before = s;
        if (not skip)
          for (std::int64_t i = 0; i < dim_k; ++i) {
            double x = g[i];
            if (problem.gate_form == GateForm::logit)
              x = std::max((std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)))) / view.scalar(Arg::gate_tau),
                           static_cast<double>(view.scalar(Arg::gate_clamp)));
            const double decay = bug == Bug::multiplies_by_zero ? std::exp(2 * x) * std::exp(-x) : std::exp(x);
            for (std::int64_t j = 0; j < dim_v; ++j) {
              double& element = s[static_cast<std::size_t>(i * dim_v + j)];
              element = decay * element + static_cast<double>(k[i]) * v[j];
            }
          }
        if (bug == Bug::writes_input and t + 1 == end) k[0] += 1;

        const auto& seen = bug == Bug::reads_state_early ? before : s;
        const std::int64_t group = heads / kv_heads;
        for (std::int64_t n = 0; n < group; ++n) {
          const std::int64_t head = bug == Bug::wrong_head ? n * kv_heads + h : h * group + n;
          const float* const q = row(Arg::q, Arg::q_token, Arg::q_head, t, head, heads, dim_k);
          float* const out = row(Arg::o, Arg::o_token, Arg::o_head, t, head, heads, dim_v);
          for (std::int64_t j = 0; j < dim_v; ++j) {
            double sum = 0;
            for (std::int64_t i = 0; i < dim_k; ++i) sum += q[i] * seen[static_cast<std::size_t>(i * dim_v + j)];
            if (bug != Bug::forgets_scale) sum *= view.scalar(Arg::scale);
            if (bug == Bug::all_outputs_slightly_off) sum *= 1 + 1e-5;
            out[j] = static_cast<float>(sum);
          }
          if (bug == Bug::writes_padding and view.integer(Arg::o_head) > dim_v) out[dim_v] = 0;
        }
      }
      if (final_state == nullptr or bug == Bug::never_stores_state) continue;
      for (std::int64_t i = 0; i < dim_k; ++i)
        for (std::int64_t j = 0; j < dim_v; ++j)
          final_state[at(i, j)] = static_cast<float>(s[static_cast<std::size_t>(i * dim_v + j)]);
      const double factor = bug == Bug::all_states_slightly_off ? 1 + 1e-5 : 1;
      for (std::int64_t e = 0; e < dim_k * dim_v; ++e) final_state[e] = static_cast<float>(final_state[e] * factor);
      if (bug == Bug::one_state_off and b == 0 and h == 0) final_state[0] += 0.003f;
      if (bug == Bug::writes_after_state and h + 1 == kv_heads and b + 1 == view.integer(Arg::sequences))
        final_state[dim_k * dim_v + (view.integer(Arg::state_out_head) - dim_k * dim_v)] = 1;
    }

  if (view.integer(Arg::tokens) == 0) return;
  switch (bug) {
    case Bug::one_output_unwritten:
      o[1] = std::bit_cast<float>(Guarded::poison_bits);
      break;
    case Bug::one_nan:
      o[1] = std::numeric_limits<float>::quiet_NaN();
      break;
    case Bug::writes_before_o:
      o[-1] = 0;
      break;
    case Bug::one_element_off:
      o[1] += 0.01f;
      break;
    case Bug::one_element_a_bit_off:
      o[1] += 1e-4f;
      break;
    case Bug::differs_from_run_to_run:
      o[1] = std::nextafter(o[1], runs % 2 == 0 ? 100.0f : o[1]);
      break;
    default:
      break;
  }
}

}  // namespace glaive::test
