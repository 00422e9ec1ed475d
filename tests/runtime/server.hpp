#pragma once
// A pool served by kernel.c, and what every sequence should be: the recurrence in float64, of each sequence alone.
#include <cmath>
#include <cstring>
#include <optional>

#include "runtime/glaive.hpp"
#include "tests/runtime/support.hpp"

namespace glaive::testing {

inline constexpr std::int64_t model_layers = 2, model_h = 4, model_hkv = 2, model_k = 8, model_v = 8;

/// A sequence on its own: state [layer, Hkv, K, V] and position.
struct Model {
  std::vector<double> state = std::vector<double>(model_layers * model_hkv * model_k * model_v, 0.0);
  std::int64_t position = 0;
};

/// The tensors of one layer of one step, and what o should be.
struct Step {
  std::vector<float> q, k, v, g, o;
  std::vector<double> want;

  Step(std::int64_t tokens, std::mt19937& random) {
    const auto fill = [&](std::vector<float>& x, std::int64_t heads) {
      std::normal_distribution<float> normal;
      x.resize(static_cast<std::size_t>(tokens * heads * 8));
      for (float& value : x) value = normal(random);
    };
    fill(q, model_h), fill(k, model_hkv), fill(v, model_hkv), fill(g, model_hkv);
    for (float& gate : g) gate = -std::fabs(gate);
    o.assign(static_cast<std::size_t>(tokens * model_h * model_v), std::nanf(""));
    want.resize(o.size());
  }

  /// Advances the model over tokens [begin, end) of this layer.
  void advance(Model& model, std::int64_t layer, std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int64_t h = 0; h < model_hkv; ++h) {
        double* s = model.state.data() + (layer * model_hkv + h) * model_k * model_v;
        const std::size_t row = static_cast<std::size_t>((t * model_hkv + h) * 8);
        for (std::size_t i = 0; i < 8; ++i)
          for (std::size_t j = 0; j < 8; ++j)
            s[i * 8 + j] = std::exp(static_cast<double>(g[row + i])) * s[i * 8 + j] +
                           static_cast<double>(k[row + i]) * static_cast<double>(v[row + j]);
        for (std::int64_t head = 2 * h; head < 2 * h + 2; ++head)
          for (std::size_t j = 0; j < 8; ++j) {
            double sum = 0;
            const std::size_t at = static_cast<std::size_t>((t * model_h + head) * 8);
            for (std::size_t i = 0; i < 8; ++i) sum += static_cast<double>(q[at + i]) * s[i * 8 + j];
            want[at + j] = sum / std::sqrt(8.0);
          }
      }
  }
  api::Args args() {
    api::Args args;
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
    return args;
  }
};

inline bool near(const float* got, const double* want, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    if (not(std::fabs(static_cast<double>(got[i]) - want[i]) <= 2e-5 * (1 + std::fabs(want[i])))) return false;
  return true;
}

struct Server {
  Folder folder;
  std::optional<api::Device> device;
  std::optional<api::Pack> pack;
  std::optional<api::Plan> plan;
  std::optional<api::Pool> pool;
  api::Problem problem = api::Problem(kernel_problem);

  explicit Server(std::int64_t slots, std::int64_t max_sequences = 0, PackEntry entry = kernel_entry()) {
    REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
    device.emplace("cpu", 2);
    pack.emplace((folder / "p.pack").string());
    plan.emplace(*device, *pack, problem, api::Shape(api::Sequences(2), api::Tokens(3)));
    pool.emplace(*device, config(slots, max_sequences));
  }
  api::PoolConfig config(std::int64_t slots, std::int64_t max_sequences = 0) const {
    api::PoolConfig config(problem, model_layers, slots);
    static constexpr std::int64_t planes[] = {40};
    config.max_sequences = max_sequences;
    config.plane_bytes = planes;
    config.planes = 1;
    return config;
  }
  api::Batch batch(std::int64_t sequences = 8, std::int64_t tokens = 64) const {
    return api::Batch(*pool, api::Sequences(sequences), api::Tokens(tokens));
  }
  /// The state in memory is the model's; a sequence that has none is at zero.
  bool holds(const api::Sequence& sequence, const Model& model) const {
    if (sequence.position().count() != model.position) return false;
    std::int32_t slot = -1;
    api::check(glaive_sequence_slot(pool->get(), sequence.id(), &slot));
    void* base = nullptr;
    std::size_t stride = 0;
    api::check(glaive_pool_plane(pool->get(), 0, &base, &stride));
    if (slot < 0) return std::ranges::all_of(model.state, [](double x) { return x == 0; });
    const auto* at =
        reinterpret_cast<const float*>(static_cast<std::byte*>(base) + static_cast<std::size_t>(slot) * stride);
    return near(at, model.state.data(), model.state.size());
  }
};

/// Launches every layer of a batch that was begun with these lengths; the models go along. False when o is wrong.
inline bool launch_all(const Server& server, api::Batch& batch, const std::vector<Model*>& models,
                       const std::vector<std::int64_t>& lengths, std::mt19937& random) {
  const api::Workspace workspace(*server.device, server.plan->workspace_bytes(batch.shape()));
  std::int64_t total = 0;
  for (const std::int64_t length : lengths) total += length;
  bool good = true;
  for (std::int64_t layer = 0; layer < model_layers; ++layer) {
    Step step(total, random);
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < models.size(); begin += lengths[i++])
      step.advance(*models[i], layer, begin, begin + lengths[i]);
    batch.launch(*server.plan, layer, step.args(), workspace);
    good = good and near(step.o.data(), step.want.data(), step.want.size());
  }
  for (std::size_t i = 0; i < models.size(); ++i) models[i]->position += lengths[i];
  return good;
}

}  // namespace glaive::testing
