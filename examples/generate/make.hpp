#pragma once
// A small model made up on the spot: a checkpoint of flash-linear-attention's names and shapes with seeded weights, and
// a tokenizer learnt from one paragraph. Its layers are random; its lm head knows which token follows which in that
// paragraph, so that what it generates has words.
#include <filesystem>

#include "examples/generate/config.hpp"
#include "examples/generate/safetensors.hpp"

namespace generate {

struct Recipe {
  Config config;  ///< vocab_size and eos_token_ids are the tokenizer's
  Dtype dtype = Dtype::bf16;
  std::uint64_t seed = 8;

  /// config for a model of this width: heads as in FLA's models, keys half as wide as values.
  static Recipe of(std::int64_t hidden_size, std::int64_t layers, std::int64_t heads);
};

/// Writes config.json, tokenizer.json and model.safetensors; makes the folder.
void make_model(const std::filesystem::path& folder, const Recipe& recipe);

}  // namespace generate
