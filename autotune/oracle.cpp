#include "autotune/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autotune/parallel.hpp"

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

/// Of element (i, j) of a [K,V] or [V,K] block.
std::size_t state_index(const Problem& problem, std::int64_t i, std::int64_t j) {
  return static_cast<std::size_t>(problem.layout == StateLayout::kv ? i * problem.v.count() + j
                                                                    : j * problem.k.count() + i);
}

/// row = decay * row + key * value
void update(double* __restrict row, const double* __restrict value, double decay, double key, std::int64_t size) {
  for (std::int64_t j = 0; j < size; ++j) row[j] = decay * row[j] + key * value[j];
}

/// out += query * row
void accumulate(double* __restrict out, const double* __restrict row, double query, std::int64_t size) {
  for (std::int64_t j = 0; j < size; ++j) out[j] += query * row[j];
}

/// Columns of a head's state do not see each other: these, over all tokens.
void run_columns(const Call& call, ExpectedHead& head, std::int64_t first, std::int64_t last) {
  const Problem& problem = call.what.problem;
  const auto [b, h] = head.pick;
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count(), width = last - first;
  const std::int64_t group = problem.heads.count() / problem.kv_heads.count();
  const auto buffer = [](std::int64_t size) { return std::vector<float>(static_cast<std::size_t>(size)); };
  auto q = buffer(dim_k), k = buffer(dim_k), g = buffer(dim_k), v = buffer(width);
  std::vector<double> state(static_cast<std::size_t>(dim_k * width), 0.0), value(v.size());

  if (const auto at = call.initial_place(b, h)) {
    auto initial = buffer(dim_k * dim_v);
    call.state_in.get(*at, initial);
    for (std::int64_t i = 0; i < dim_k; ++i)
      for (std::int64_t j = 0; j < width; ++j)
        state[static_cast<std::size_t>(i * width + j)] = initial[state_index(problem, i, first + j)];
  }
  for (std::int64_t t = call.first_token(b); t < call.first_token(b + 1); ++t) {
    call.k.get(t * call.k_strides.token + h * call.k_strides.head, k);
    call.g.get(t * call.g_strides.token + h * call.g_strides.head, g);
    call.v.get(t * call.v_strides.token + h * call.v_strides.head + first, v);
    std::ranges::copy(v, value.begin());
    for (std::int64_t i = 0; i < dim_k; ++i)
      update(state.data() + i * width, value.data(), decay_of(g[static_cast<std::size_t>(i)], call),
             k[static_cast<std::size_t>(i)], width);
    for (std::int64_t n = 0; n < group; ++n) {
      call.q.get(t * call.q_strides.token + (h * group + n) * call.q_strides.head, q);
      double* const o = head.o.data() + ((t - call.first_token(b)) * group + n) * dim_v + first;
      for (std::int64_t i = 0; i < dim_k; ++i)
        accumulate(o, state.data() + i * width, call.scale * static_cast<double>(q[static_cast<std::size_t>(i)]),
                   width);
    }
  }
  for (std::int64_t i = 0; i < dim_k; ++i)
    std::copy_n(state.data() + i * width, width, head.state.data() + i * dim_v + first);
}

/// Calls f(where in o, where in head.o), of rows of V elements.
void for_each_output(const Call& call, const Pick& pick, const auto& f) {
  const auto [b, h] = pick;
  const std::int64_t dim_v = call.what.problem.v.count();
  const std::int64_t group = call.what.problem.heads.count() / call.what.problem.kv_heads.count();
  for (std::int64_t t = call.first_token(b), mine = 0; t < call.first_token(b + 1); ++t)
    for (std::int64_t n = 0; n < group; ++n, mine += dim_v)
      f(t * call.o_strides.token + (h * group + n) * call.o_strides.head, mine);
}

}  // namespace

std::vector<ExpectedHead> oracle(const Call& call, std::span<const Pick> picks) {
  constexpr std::int64_t columns = 16;  // a task's
  const Problem& problem = call.what.problem;
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count();
  const std::int64_t group = problem.heads.count() / problem.kv_heads.count();
  std::vector<ExpectedHead> heads;
  for (const Pick& pick : picks)
    heads.push_back({pick, std::vector<double>(static_cast<std::size_t>(call.tokens(pick.sequence) * group * dim_v)),
                     std::vector<double>(static_cast<std::size_t>(dim_k * dim_v))});
  const std::int64_t tasks = (dim_v + columns - 1) / columns;
  parallel(std::ssize(heads) * tasks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      run_columns(call, heads[static_cast<std::size_t>(i / tasks)], i % tasks * columns,
                  std::min(dim_v, (i % tasks + 1) * columns));
  });
  return heads;
}

Expected oracle(const Call& call) {
  constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
  const Problem& problem = call.what.problem;
  const std::int64_t dim_k = problem.k.count(), dim_v = problem.v.count();
  std::vector<Pick> all;
  for (std::int64_t b = 0; b < call.what.shape.sequences().count(); ++b)
    for (std::int64_t h = 0; h < problem.kv_heads.count(); ++h) all.push_back({b, h});

  Expected expected;
  expected.o.assign(static_cast<std::size_t>(call.o.elements()), nothing);
  expected.state.assign(static_cast<std::size_t>(call.state_out.elements()), nothing);
  for (const auto& head : oracle(call, all)) {
    for_each_output(call, head.pick, [&](std::int64_t at, std::int64_t mine) {
      std::copy_n(head.o.data() + mine, dim_v, expected.o.data() + at);
    });
    const auto at = call.final_place(head.pick.sequence, head.pick.kv_head);
    if (not at) continue;
    for (std::int64_t i = 0; i < dim_k; ++i)
      for (std::int64_t j = 0; j < dim_v; ++j)
        expected.state[static_cast<std::size_t>(*at) + state_index(problem, i, j)] =
            head.state[static_cast<std::size_t>(i * dim_v + j)];
  }
  return expected;
}

Errors errors_of(const Call& call, std::span<const ExpectedHead> heads) {
  struct Sums {
    double difference = 0, norm = 0;
    void add(double got, double want) { difference += (got - want) * (got - want), norm += want * want; }
  };
  const std::int64_t dim_k = call.what.problem.k.count(), dim_v = call.what.problem.v.count();
  std::vector<Sums> outputs(heads.size()), states(heads.size());
  parallel(std::ssize(heads), 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> row(static_cast<std::size_t>(dim_v)), state(static_cast<std::size_t>(dim_k * dim_v));
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
      const ExpectedHead& head = heads[i];
      for_each_output(call, head.pick, [&](std::int64_t at, std::int64_t mine) {
        call.o.get(at, row);
        for (std::size_t j = 0; j < row.size(); ++j) outputs[i].add(row[j], head.o[static_cast<std::size_t>(mine) + j]);
      });
      const auto at = call.final_place(head.pick.sequence, head.pick.kv_head);
      if (not at) continue;
      call.state_out.get(*at, state);
      for (std::int64_t k = 0; k < dim_k; ++k)
        for (std::int64_t j = 0; j < dim_v; ++j)
          states[i].add(state[state_index(call.what.problem, k, j)],
                        head.state[static_cast<std::size_t>(k * dim_v + j)]);
    }
  });
  const auto total = [](std::span<const Sums> parts) {
    Sums all;
    for (const Sums& part : parts) all.difference += part.difference, all.norm += part.norm;
    return relative_error(all.difference, all.norm);
  };
  return {total(outputs), total(states)};
}

double relative_error(double difference, double norm) {
  if (difference == 0) return 0;
  const double error = std::sqrt(difference) / std::sqrt(norm);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

double relative_error(std::span<const float> got, std::span<const double> want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) continue;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return relative_error(difference, norm);
}

}  // namespace glaive
