#pragma once
// A GLA language model on a device: its layers, the states of its sequences, and one step of several of them.
#include "examples/generate/layer.hpp"

namespace generate {

/// The most of everything in one step.
struct Limits {
  std::int64_t sequences = 1;  ///< also the most that are alive
  std::int64_t tokens = 512;   ///< of all sequences together
};

/// What one sequence is given in a step. A token of -1 - i is what row i of the step before sampled.
struct Work {
  const api::Sequence* sequence;
  std::vector<Token> tokens;
};

/// A HostEnds on a device.
struct Ends {
  Matrix embeddings;
  api::Memory norm;
  std::optional<Matrix> lm_head;
  const Matrix& head() const { return lm_head ? *lm_head : embeddings; }
};

class Model {
 public:
  /// pack: has the model's problems, a forward and a step; see `problem`. folder: config.json and the weights.
  Model(Device& device, const api::Pack& pack, const std::filesystem::path& folder, const Limits& limits);

  /// What glaive is asked to compute, for example "step H4 K32 V64 f32 logit".
  static std::string problem(const char* op, const Config& config, std::int32_t dtype);

  const Config& config() const { return config_; }
  const Limits& limits() const { return limits_; }
  Device& device() const { return device_; }
  api::Sequence acquire() const { return pool_.acquire(); }

  /// Enqueues one step; row i is work[i]. Its last tokens' successors come from `device().collect()`.
  void enqueue(const std::vector<Work>& work);
  /// Of the last tokens of the last step's rows: [rows, vocab_size]. Waits.
  std::vector<float> logits(std::int64_t rows) const;

  /// Whether the decode graph, if the device has graphs, times its phases.
  void time_phases(bool on);

 private:
  Model(Device& device, const api::Pack& pack, const Checkpoint& checkpoint, const Config& config,
        const Limits& limits);
  void run(api::Batch& batch, std::int64_t tokens, std::int64_t rows);
  void record_decode();

  Device& device_;
  Limits limits_;
  Config config_;
  api::Operator forward_, step_;
  Ends ends_;
  std::vector<Layer> layers_;

  api::Pool pool_;
  api::Batch mixed_, decode_;  ///< chunks of prompts beside decoding; one token of each
  api::Workspace workspace_;
  Activations activations_;
  Tensor last_, logits_;  ///< of the last token of each sequence
  std::unique_ptr<Graph> graph_;
  std::int64_t rows_before_ = 0;
};

}  // namespace generate
