#pragma once
// The tensors of a GLAForCausalLM checkpoint by flash-linear-attention's names, with their shapes checked, as this
// program multiplies them: what is applied to the same input stands in one matrix.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "examples/generate/config.hpp"
#include "examples/generate/safetensors.hpp"

namespace generate {

/// [rows, columns], applied to a row x of `columns` numbers: W x.
struct HostMatrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<float> numbers;
};

struct HostLayer {
  std::vector<float> attn_norm;
  HostMatrix projections;        ///< q, k, v, the output gate, and the gate's low rank, from the top down
  HostMatrix gate;               ///< from the low rank to the gate's logits
  std::vector<float> gate_bias;  ///< of those
  HostMatrix output;
  std::vector<float> head_norm;  ///< of a head's output; ones where the checkpoint has none
  std::vector<float> mlp_norm;
  HostMatrix mlp_in;  ///< the MLP's gate, then what it gates
  HostMatrix mlp_out;
};

struct HostEnds {
  HostMatrix embeddings;
  std::vector<float> norm;
  std::optional<HostMatrix> lm_head;  ///< nothing where it is the embeddings
};

HostLayer read_layer(const Checkpoint& checkpoint, const Config& config, std::int64_t layer);
HostEnds read_ends(const Checkpoint& checkpoint, const Config& config);
/// Whether all that these two would read is there, in the shapes that the config makes; nothing is read.
void check_tensors(const Checkpoint& checkpoint, const Config& config);

/// What a checkpoint holds for this config.
struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
};
std::vector<TensorSpec> tensors_of(const Config& config);

}  // namespace generate
