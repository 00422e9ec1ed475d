#include "examples/generate/model.hpp"

#include <algorithm>

#include "examples/generate/failure.hpp"

namespace generate {
namespace {

constexpr std::int64_t longest_step = 8;  // tokens of a sequence that glaive's step takes

/// The operator for one of the model's problems, or the command that makes the pack have it.
api::Operator open_operator(const char* op, const Device& device, const api::Pack& pack, const Config& config,
                            const Limits& limits) {
  const std::string problem = Model::problem(op, config, device.dtype());
  try {
    return {device.glaive(), pack, api::Problem(problem)};
  } catch (const api::Error& error) {
    if (error.status() != GLAIVE_UNSUPPORTED) throw;
    const std::string where = device.name() == "cpu" ? "" : "--device gpu ";
    const std::string_view why = error.what();  // it ends with a command for this problem alone
    fail(why.substr(0, why.find("; tune it")), "; tune what the model needs: glaive tune ", where, "'",
         Model::problem("forward", config, device.dtype()), " @ B1 T", limits.tokens, "' '",
         Model::problem("step", config, device.dtype()), " @ B", limits.sequences, " T1'");
  }
}

Ends ends_on(const Device& device, const HostEnds& host) {
  Ends ends = {device.matrix(host.embeddings), device.vector(host.norm), {}};
  if (host.lm_head) ends.lm_head = device.matrix(*host.lm_head);
  return ends;
}

/// A config that the checkpoint agrees with: until then its sizes are worth no allocation.
Config checked(const Config& config, const Checkpoint& checkpoint) {
  check_tensors(checkpoint, config);
  return config;
}

std::size_t workspace_bytes(const api::Operator& op, std::int64_t sequences, std::int64_t tokens, std::int64_t longest,
                            const api::Batch& batch) {
  return op.workspace_bytes(api::Shape::ragged(api::Sequences(sequences), api::Tokens(tokens), api::Tokens(longest),
                                               batch.rows().cu_seqlens));
}

}  // namespace

std::string Model::problem(const char* op, const Config& c, std::int32_t dtype) {
  const std::string kv = c.kv_heads == c.heads ? "" : " Hkv" + std::to_string(c.kv_heads);
  return std::string(op) + " H" + std::to_string(c.heads) + kv + " K" + std::to_string(c.key_dim) + " V" +
         std::to_string(c.value_dim) + (dtype == GLAIVE_BF16 ? " bf16" : " f32") + " logit";
}

Model::Model(Device& device, const api::Pack& pack, const std::filesystem::path& folder, const Limits& limits)
    : Model(device, pack, Checkpoint(folder), read_config(folder / "config.json"), limits) {}

Model::Model(Device& device, const api::Pack& pack, const Checkpoint& checkpoint, const Config& config,
             const Limits& limits)
    : device_(device),
      limits_{limits.sequences, std::max(limits.tokens, limits.sequences)},
      config_(checked(config, checkpoint)),
      forward_(open_operator("forward", device, pack, config, limits_)),
      step_(open_operator("step", device, pack, config, limits_)),
      ends_(ends_on(device, read_ends(checkpoint, config))),
      pool_(device.glaive(),
            api::PoolConfig(api::Problem(problem("step", config, device.dtype())), config.layers, limits_.sequences)),
      mixed_(pool_, api::Sequences(limits_.sequences), api::Tokens(limits_.tokens)),
      decode_(pool_, api::Sequences(limits_.sequences), api::Tokens(limits_.sequences), api::Tokens(1)),
      activations_(device, config, limits_.tokens),
      last_(device, limits_.sequences, config.hidden_size, device.dtype()),
      logits_(device, limits_.sequences, config.vocab_size, GLAIVE_F32) {
  for (std::int64_t i = 0; i < config.layers; ++i)
    layers_.push_back(to_device(device, read_layer(checkpoint, config, i)));
  device.reserve(limits_.tokens, limits_.sequences);
  const std::int64_t few = std::min(limits_.tokens, limits_.sequences * longest_step);
  workspace_ = api::Workspace(
      device.glaive(), std::max(workspace_bytes(forward_, limits_.sequences, limits_.tokens, limits_.tokens, mixed_),
                                workspace_bytes(step_, limits_.sequences, few, longest_step, mixed_)));
  record_decode();
}

void Model::record_decode() {
  if (!device_.has_graphs()) return;
  // Padded, a batch has the same extents whatever is in it; here it is nothing.
  const auto enqueue = [&] { run(decode_, limits_.sequences, limits_.sequences); };
  decode_.begin({}, GLAIVE_BATCH_PADDED, device_.stream());
  enqueue();  // so that the libraries have loaded what they need
  device_.wait();
  decode_.abort();
  decode_.begin({}, GLAIVE_BATCH_PADDED, device_.stream());
  graph_ = device_.record(enqueue);
  decode_.abort();  // nothing ran
}

void Model::time_phases(bool on) {
  device_.time_phases(on);
  record_decode();
}

void Model::enqueue(const std::vector<Work>& work) {
  std::vector<api::Entry> entries;
  std::vector<Token> tokens;
  for (const Work& w : work) {
    entries.emplace_back(*w.sequence, api::Tokens(w.tokens.size()));
    tokens.insert(tokens.end(), w.tokens.begin(), w.tokens.end());
  }
  for (const Token token : tokens)
    if (token >= config_.vocab_size || token < -rows_before_)
      fail("token ", token, " is outside the model's vocabulary of ", config_.vocab_size);
  const auto rows = static_cast<std::int64_t>(work.size());
  const bool decode = std::all_of(work.begin(), work.end(), [](const Work& w) { return w.tokens.size() == 1; });

  device_.send(tokens);
  api::Batch& batch = decode ? decode_ : mixed_;
  batch.begin(entries, decode && graph_ != nullptr ? GLAIVE_BATCH_PADDED : 0, device_.stream());
  device_.start_step();
  if (decode && graph_ != nullptr) {
    batch.replay();
    graph_->launch();
  } else {
    run(batch, static_cast<std::int64_t>(tokens.size()), rows);
  }
  device_.finish_step(rows);
  batch.commit();
  rows_before_ = rows;
}

void Model::run(api::Batch& batch, std::int64_t tokens, std::int64_t rows) {
  const api::Shape shape = batch.shape();
  const api::PlanView plan = (shape.longest <= longest_step ? step_ : forward_).plan(shape);
  device_.phase(Phase::elementwise);
  device_.embed(ends_.embeddings, activations_.x.from(), tokens);
  for (std::size_t layer = 0; layer < layers_.size(); ++layer)
    forward(device_, config_, layers_[layer], activations_, tokens,
            [&](const api::Args& args) { batch.launch(plan, static_cast<std::int64_t>(layer), args, workspace_); });
  device_.phase(Phase::elementwise);
  device_.rms_norm(activations_.x.from(), ends_.norm, config_.norm_eps, config_.hidden_size, last_.from(), rows,
                   batch.rows().cu_seqlens);
  device_.phase(Phase::products);
  device_.multiply(ends_.head(), last_.from(), logits_.from(), rows);
  device_.phase(Phase::elementwise);
  device_.sample(logits_.from(), config_.vocab_size, rows);
  device_.phase(Phase::host);
}

std::vector<float> Model::logits(std::int64_t rows) const {
  device_.wait();
  std::vector<float> all(static_cast<std::size_t>(rows * config_.vocab_size));
  logits_.memory().read(all.data(), all.size() * sizeof(float));
  return all;
}

}  // namespace generate
