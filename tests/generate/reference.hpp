#pragma once
// A GLA language model in float64, one token after the other and nothing shared with the example but the reader of
// files: what flash-linear-attention's GLAForCausalLM computes, written from its definition.
#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "examples/generate/config.hpp"
#include "examples/generate/safetensors.hpp"

namespace glaive::testing {

class Reference {
 public:
  using Row = std::vector<double>;

  Reference(const std::filesystem::path& folder)
      : config_(generate::read_config(folder / "config.json")), checkpoint_(folder) {}

  /// The logits after each token: [tokens][vocab_size].
  std::vector<Row> logits(std::span<const std::int32_t> tokens) const {
    std::vector<Row> x;
    const Row embeddings = read("model.embeddings.weight");
    for (const std::int32_t token : tokens) {
      const auto begin = embeddings.begin() + token * config_.hidden_size;
      x.emplace_back(begin, begin + config_.hidden_size);
    }
    for (std::int64_t layer = 0; layer < config_.layers; ++layer) block("model.layers." + std::to_string(layer), x);
    const Row norm = read("model.norm.weight");
    const Row head = config_.tie_word_embeddings ? embeddings : read("lm_head.weight");
    std::vector<Row> all;
    for (const Row& row : x) all.push_back(product(head, rms_norm(row, norm)));
    return all;
  }

 private:
  Row read(const std::string& name) const {
    const std::vector<float> numbers = checkpoint_.tensor(name).numbers();
    return {numbers.begin(), numbers.end()};
  }
  static Row product(const Row& matrix, const Row& x) {
    Row y(matrix.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < y.size(); ++i)
      for (std::size_t j = 0; j < x.size(); ++j) y[i] += matrix[i * x.size() + j] * x[j];
    return y;
  }
  Row rms_norm(const Row& x, const Row& weight) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double rms = std::sqrt(squares / static_cast<double>(x.size()) + config_.norm_eps);
    Row y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] / rms * weight[i];
    return y;
  }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

  void block(const std::string& name, std::vector<Row>& x) const {
    const auto weight = [&](const char* of) { return read(name + "." + of + ".weight"); };
    const Row attn_norm = weight("attn_norm"), q_proj = weight("attn.q_proj"), k_proj = weight("attn.k_proj"),
              v_proj = weight("attn.v_proj"), g_proj = weight("attn.g_proj"), gate_down = weight("attn.gk_proj.0"),
              gate_up = weight("attn.gk_proj.1"), gate_bias = read(name + ".attn.gk_proj.1.bias"),
              o_proj = weight("attn.o_proj"), mlp_norm = weight("mlp_norm"), down_proj = weight("mlp.down_proj");
    Row gate_proj = weight("mlp.gate_proj");
    if (checkpoint_.has(name + ".mlp.up_proj.weight")) {
      const Row up_proj = weight("mlp.up_proj");
      gate_proj.insert(gate_proj.end(), up_proj.begin(), up_proj.end());
    }
    Row head_norm(static_cast<std::size_t>(config_.value_dim), 1.0);
    if (config_.elementwise_affine)
      head_norm =
          checkpoint_.has(name + ".attn.g_norm.weight") ? weight("attn.g_norm") : weight("attn.g_norm_swish_gate");

    const auto heads = static_cast<std::size_t>(config_.heads),
               group = heads / static_cast<std::size_t>(config_.kv_heads);
    const auto K = static_cast<std::size_t>(config_.key_dim), V = static_cast<std::size_t>(config_.value_dim);
    std::vector<Row> states(heads, Row(K * V, 0.0));
    for (Row& row : x) {
      const Row h = rms_norm(row, attn_norm);
      const Row q = product(q_proj, h), k = product(k_proj, h), v = product(v_proj, h), r = product(g_proj, h);
      Row logit = product(gate_up, product(gate_down, h));
      Row gated(heads * V);
      for (std::size_t head = 0; head < heads; ++head) {
        const std::size_t kv = head / group;
        Row& state = states[head];
        Row o(V, 0.0);
        for (std::size_t i = 0; i < K; ++i) {
          double g = std::log(sigmoid(logit[kv * K + i] + gate_bias[kv * K + i])) /
                     static_cast<double>(config_.gate_logit_normalizer);
          if (config_.clamp_min) g = std::max(g, static_cast<double>(*config_.clamp_min));
          for (std::size_t j = 0; j < V; ++j) {
            state[i * V + j] = std::exp(g) * state[i * V + j] + k[kv * K + i] * v[kv * V + j];
            o[j] += q[head * K + i] * state[i * V + j] / std::sqrt(static_cast<double>(K));
          }
        }
        const Row normed = rms_norm(o, head_norm);
        for (std::size_t j = 0; j < V; ++j)
          gated[head * V + j] = normed[j] * r[head * V + j] * sigmoid(r[head * V + j]);
      }
      add(row, product(o_proj, gated));
      const Row both = product(gate_proj, rms_norm(row, mlp_norm));
      Row hidden(both.size() / 2);
      for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = both[i] * sigmoid(both[i]) * both[hidden.size() + i];
      add(row, product(down_proj, hidden));
    }
  }
  static void add(Row& to, const Row& what) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
  }

  generate::Config config_;
  generate::Checkpoint checkpoint_;
};

}  // namespace glaive::testing
