#pragma once
// config.json of a GLAForCausalLM checkpoint (flash-linear-attention), and the sizes that follow from it.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace generate {

struct Config {
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 2048;
  std::int64_t intermediate_size = 0;  ///< of the MLP
  std::int64_t layers = 24;
  std::int64_t heads = 4, kv_heads = 4;
  std::int64_t key_dim = 256, value_dim = 512;  ///< of a head
  std::int64_t gate_low_rank_dim = 16;
  float gate_logit_normalizer = 16;
  std::optional<float> clamp_min;
  double norm_eps = 1e-6;
  bool elementwise_affine = true;  ///< the norm of a head's output has weights
  bool tie_word_embeddings = false;
  std::vector<std::int64_t> eos_token_ids = {2};  ///< any of them ends a text

  std::int64_t queries() const { return heads * key_dim; }
  std::int64_t keys() const { return kv_heads * key_dim; }
  std::int64_t values() const { return kv_heads * value_dim; }
  std::int64_t outputs() const { return heads * value_dim; }
};

Config read_config(const std::filesystem::path& file);
std::string to_json(const Config& config);

}  // namespace generate
