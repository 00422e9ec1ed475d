#include "examples/generate/weights.hpp"

#include "examples/generate/failure.hpp"
#include "examples/generate/json.hpp"

namespace generate {
namespace {

using Shape = std::vector<std::int64_t>;

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

std::string prefix(std::int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

/// A checkpoint, of which tensors are read, or their names and shapes looked at alone.
struct Source {
  const Checkpoint& checkpoint;
  bool reads = true;
  bool has(const std::string& name) const { return checkpoint.has(name); }
};

std::vector<float> read(const Source& source, const std::string& name, const Shape& shape) {
  const TensorView view = source.checkpoint.tensor(name);
  if (view.shape != shape)
    fail(name, " has the shape ", shortened(to_string(view.shape)), "; config.json makes it ", to_string(shape));
  return source.reads ? view.numbers() : std::vector<float>();
}

class Stack {
 public:
  Stack(const Source& source, std::int64_t columns) : source_(source) { matrix_.columns = columns; }
  Stack& add(const std::string& name, std::int64_t rows) {
    const std::vector<float> numbers = read(source_, name, {rows, matrix_.columns});
    matrix_.rows += rows;
    matrix_.numbers.insert(matrix_.numbers.end(), numbers.begin(), numbers.end());
    return *this;
  }
  HostMatrix take() { return std::move(matrix_); }

 private:
  const Source& source_;
  HostMatrix matrix_;
};

HostMatrix one(const Source& source, const std::string& name, std::int64_t rows, std::int64_t columns) {
  return Stack(source, columns).add(name, rows).take();
}

HostLayer layer_of(const Source& source, const Config& c, std::int64_t index) {
  const std::string block = prefix(index), attn = block + "attn.", mlp = block + "mlp.";
  HostLayer layer;
  layer.attn_norm = read(source, block + "attn_norm.weight", {c.hidden_size});
  layer.projections = Stack(source, c.hidden_size)
                          .add(attn + "q_proj.weight", c.queries())
                          .add(attn + "k_proj.weight", c.keys())
                          .add(attn + "v_proj.weight", c.values())
                          .add(attn + "g_proj.weight", c.outputs())
                          .add(attn + "gk_proj.0.weight", c.gate_low_rank_dim)
                          .take();
  layer.gate = one(source, attn + "gk_proj.1.weight", c.keys(), c.gate_low_rank_dim);
  layer.gate_bias = read(source, attn + "gk_proj.1.bias", {c.keys()});
  layer.output = one(source, attn + "o_proj.weight", c.hidden_size, c.outputs());
  // The name says whether FLA ran norm and gate in one kernel; the numbers mean the same.
  const std::string fused = attn + "g_norm_swish_gate.weight";
  layer.head_norm = c.elementwise_affine
                        ? read(source, source.has(fused) ? fused : attn + "g_norm.weight", {c.value_dim})
                        : std::vector<float>(static_cast<std::size_t>(c.value_dim), 1.F);
  layer.mlp_norm = read(source, block + "mlp_norm.weight", {c.hidden_size});
  // Until February 2025, FLA kept both halves in gate_proj.
  layer.mlp_in = source.has(mlp + "up_proj.weight")
                     ? Stack(source, c.hidden_size)
                           .add(mlp + "gate_proj.weight", c.intermediate_size)
                           .add(mlp + "up_proj.weight", c.intermediate_size)
                           .take()
                     : one(source, mlp + "gate_proj.weight", 2 * c.intermediate_size, c.hidden_size);
  layer.mlp_out = one(source, mlp + "down_proj.weight", c.hidden_size, c.intermediate_size);
  return layer;
}

HostEnds ends_of(const Source& source, const Config& c) {
  HostEnds ends;
  ends.embeddings = one(source, "model.embeddings.weight", c.vocab_size, c.hidden_size);
  ends.norm = read(source, "model.norm.weight", {c.hidden_size});
  if (!c.tie_word_embeddings) ends.lm_head = one(source, "lm_head.weight", c.vocab_size, c.hidden_size);
  return ends;
}

}  // namespace

HostLayer read_layer(const Checkpoint& checkpoint, const Config& config, std::int64_t layer) {
  return layer_of({checkpoint}, config, layer);
}

HostEnds read_ends(const Checkpoint& checkpoint, const Config& config) { return ends_of({checkpoint}, config); }

void check_tensors(const Checkpoint& checkpoint, const Config& config) {
  const Source names_and_shapes = {checkpoint, false};
  ends_of(names_and_shapes, config);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) layer_of(names_and_shapes, config, layer);
}

std::vector<TensorSpec> tensors_of(const Config& c) {
  std::vector<TensorSpec> all = {{"model.embeddings.weight", {c.vocab_size, c.hidden_size}}};
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string block = prefix(layer), attn = block + "attn.", mlp = block + "mlp.";
    all.push_back({block + "attn_norm.weight", {c.hidden_size}});
    all.push_back({attn + "q_proj.weight", {c.queries(), c.hidden_size}});
    all.push_back({attn + "k_proj.weight", {c.keys(), c.hidden_size}});
    all.push_back({attn + "v_proj.weight", {c.values(), c.hidden_size}});
    all.push_back({attn + "g_proj.weight", {c.outputs(), c.hidden_size}});
    all.push_back({attn + "gk_proj.0.weight", {c.gate_low_rank_dim, c.hidden_size}});
    all.push_back({attn + "gk_proj.1.weight", {c.keys(), c.gate_low_rank_dim}});
    all.push_back({attn + "gk_proj.1.bias", {c.keys()}});
    all.push_back({attn + "o_proj.weight", {c.hidden_size, c.outputs()}});
    if (c.elementwise_affine) all.push_back({attn + "g_norm_swish_gate.weight", {c.value_dim}});
    all.push_back({block + "mlp_norm.weight", {c.hidden_size}});
    all.push_back({mlp + "gate_proj.weight", {c.intermediate_size, c.hidden_size}});
    all.push_back({mlp + "up_proj.weight", {c.intermediate_size, c.hidden_size}});
    all.push_back({mlp + "down_proj.weight", {c.hidden_size, c.intermediate_size}});
  }
  all.push_back({"model.norm.weight", {c.hidden_size}});
  if (!c.tie_word_embeddings) all.push_back({"lm_head.weight", {c.vocab_size, c.hidden_size}});
  return all;
}

}  // namespace generate
