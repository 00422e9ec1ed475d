#include "autotune/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace glaive {
namespace {

double decay_of(float gate, const Call& call) {
  double x = gate;
  if (call.what.problem.gate_form == GateForm::logit) {
    const double log_sigmoid = std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
    x = std::max<double>(log_sigmoid / Call::gate_tau, call.gate_clamp);
  }
  return std::exp(x);
}

/// row = decay * row + key * value
void update(double* __restrict row, const double* __restrict value, double decay, double key, std::int64_t size) {
  for (std::int64_t j = 0; j < size; ++j) row[j] = decay * row[j] + key * value[j];
}

/// out += query * row
void accumulate(double* __restrict out, const double* __restrict row, double query, std::int64_t size) {
  for (std::int64_t j = 0; j < size; ++j) out[j] += query * row[j];
}

}  // namespace

Expected oracle(const Call& call) {
  std::vector<Pick> all;
  for (std::int64_t b = 0; b < call.what.shape.sequences().count(); ++b)
    for (std::int64_t h = 0; h < call.what.problem.kv_heads.count(); ++h) all.push_back({b, h});
  return oracle(call, all);
}

Expected oracle(const Call& call, std::span<const Pick> picks) {
  constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
  const Problem& problem = call.what.problem;
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count();
  const std::int64_t kv_heads = problem.kv_heads.count(), group = problem.heads.count() / kv_heads;
  const bool k_first = problem.layout == StateLayout::kv;

  Expected expected;
  expected.o.assign(call.o.data().size(), nothing);
  expected.state.assign(call.state_out.data().size(), nothing);
  std::vector<double> state(static_cast<std::size_t>(dim_k * dim_v)), value(static_cast<std::size_t>(dim_v));

  const auto index_of = [&](std::int64_t i, std::int64_t j) { return k_first ? i * dim_v + j : j * dim_k + i; };
  for (const auto [b, h] : picks) {
    const float* const initial = call.initial_state(b, h);
    for (std::int64_t i = 0; i < dim_k; ++i)
      for (std::int64_t j = 0; j < dim_v; ++j)
        state[static_cast<std::size_t>(i * dim_v + j)] = initial == nullptr ? 0 : initial[index_of(i, j)];

    for (std::int64_t t = call.first_token(b); t < call.first_token(b + 1); ++t) {
      const float* const k = call.k.data().data() + t * call.k_strides.token + h * call.k_strides.head;
      const float* const g = call.g.data().data() + t * call.g_strides.token + h * call.g_strides.head;
      const float* const v = call.v.data().data() + t * call.v_strides.token + h * call.v_strides.head;
      const float* const q = call.q.data().data() + t * call.q_strides.token + h * group * call.q_strides.head;
      double* const o = expected.o.data() + t * call.o_strides.token + h * group * call.o_strides.head;
      std::copy_n(v, dim_v, value.begin());
      for (std::int64_t n = 0; n < group; ++n) std::fill_n(o + n * call.o_strides.head, dim_v, 0.0);
      for (std::int64_t i = 0; i < dim_k; ++i) {
        double* const row = state.data() + i * dim_v;
        update(row, value.data(), decay_of(g[i], call), k[i], dim_v);
        for (std::int64_t n = 0; n < group; ++n)
          accumulate(o + n * call.o_strides.head, row, call.scale * static_cast<double>(q[n * call.q_strides.head + i]),
                     dim_v);
      }
    }

    const std::int64_t slot = call.write_slots[static_cast<std::size_t>(b)];
    if (slot < 0) continue;
    double* const final_state = expected.state.data() + slot * call.state_slot + h * call.state_head;
    for (std::int64_t i = 0; i < dim_k; ++i)
      for (std::int64_t j = 0; j < dim_v; ++j)
        final_state[index_of(i, j)] = state[static_cast<std::size_t>(i * dim_v + j)];
  }
  return expected;
}

double relative_error(std::span<const float> got, std::span<const double> want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) continue;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (difference == 0) return 0;
  const double error = std::sqrt(difference) / std::sqrt(norm);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace glaive
