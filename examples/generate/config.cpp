#include "examples/generate/config.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "examples/generate/failure.hpp"

namespace generate {
namespace {

using Json = nlohmann::json;

/// The fields of one file; those that are absent or null take their default.
class Fields {
 public:
  explicit Fields(const std::filesystem::path& file) : file_(file.string()) {
    std::ifstream stream(file);
    if (!stream) fail(file_, " cannot be read");
    json_ = Json::parse(stream, nullptr, false);
    if (!json_.is_object()) fail(file_, " is not a JSON object");
  }
  bool has(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }
  template <class T>
  T get(const char* name, T otherwise) const {
    if (!has(name)) return otherwise;
    try {
      return json_[name].get<T>();
    } catch (const Json::exception&) {
      wrong(name, "a value of another type");
    }
  }
  std::int64_t count(const char* name, std::int64_t otherwise) const {
    const auto value = get<std::int64_t>(name, otherwise);
    if (value < 1 || value > 1 << 24) wrong(name, "a count from 1 to 16777216");
    return value;
  }
  [[noreturn]] void wrong(const char* name, const std::string& allowed) const {
    fail(file_, ": \"", name, "\" is ", json_.contains(name) ? json_[name].dump() : "absent", "; allowed is ", allowed);
  }

 private:
  std::string file_;
  Json json_;
};

/// A head's share of hidden_size * expand.
std::int64_t head_dim(const Fields& fields, const char* expand, double otherwise, const Config& config) {
  const double whole = static_cast<double>(config.hidden_size) * fields.get<double>(expand, otherwise);
  const auto all = static_cast<std::int64_t>(whole);
  if (!(whole >= 1) || whole > 1 << 24 || all % config.heads != 0)
    fields.wrong(expand, "what makes hidden_size * " + std::string(expand) + " a multiple of num_heads, " +
                             std::to_string(config.heads));
  return all / config.heads;
}

}  // namespace

Config read_config(const std::filesystem::path& file) {
  const Fields fields(file);
  if (fields.get<std::string>("model_type", "gla") != "gla") fields.wrong("model_type", "\"gla\"");
  if (fields.get<std::string>("hidden_act", "swish") != "swish") fields.wrong("hidden_act", "\"swish\"");
  if (fields.get("use_short_conv", false))
    fields.wrong("use_short_conv", "false: there are no short convolutions here");
  if (!fields.get("use_output_gate", true)) fields.wrong("use_output_gate", "true");
  if (fields.has("feature_map")) fields.wrong("feature_map", "null");
  if (fields.has("attn")) fields.wrong("attn", "null: every layer is GLA here, none softmax attention");

  Config config;
  config.vocab_size = fields.count("vocab_size", 32000);
  config.hidden_size = fields.count("hidden_size", 2048);
  config.layers = fields.count("num_hidden_layers", 24);
  config.heads = fields.count("num_heads", 4);
  config.kv_heads = fields.count("num_kv_heads", config.heads);
  if (config.heads % config.kv_heads != 0) fields.wrong("num_kv_heads", "a divisor of num_heads");
  config.key_dim = head_dim(fields, "expand_k", 0.5, config);
  config.value_dim = head_dim(fields, "expand_v", 1, config);
  if (fields.has("intermediate_size")) {
    config.intermediate_size = fields.count("intermediate_size", 0);
  } else {
    const std::int64_t ratio = fields.count("hidden_ratio", 4);
    const auto wide = static_cast<std::int64_t>(static_cast<double>(config.hidden_size * ratio) * 2 / 3);
    config.intermediate_size = (wide + 255) / 256 * 256;
  }
  config.gate_low_rank_dim = fields.count("gate_low_rank_dim", 16);
  config.gate_logit_normalizer = fields.get("gate_logit_normalizer", 16.F);
  if (!(config.gate_logit_normalizer > 0)) fields.wrong("gate_logit_normalizer", "a number above 0");
  if (fields.has("clamp_min")) {
    config.clamp_min = fields.get("clamp_min", 0.F);
    if (!(*config.clamp_min < 0)) fields.wrong("clamp_min", "a number below 0, or null");
  }
  config.norm_eps = fields.get("norm_eps", 1e-6);
  config.elementwise_affine = fields.get("elementwise_affine", true);
  config.tie_word_embeddings = fields.get("tie_word_embeddings", false);
  config.eos_token_id = fields.get<std::int64_t>("eos_token_id", -1);
  return config;
}

std::string to_json(const Config& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  Json json = {{"architectures", {"GLAForCausalLM"}},
               {"model_type", "gla"},
               {"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.layers},
               {"num_heads", config.heads},
               {"num_kv_heads", config.kv_heads},
               {"expand_k", static_cast<double>(config.queries()) / hidden},
               {"expand_v", static_cast<double>(config.outputs()) / hidden},
               {"hidden_act", "swish"},
               {"norm_eps", config.norm_eps},
               {"elementwise_affine", config.elementwise_affine},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"gate_low_rank_dim", config.gate_low_rank_dim},
               {"gate_logit_normalizer", config.gate_logit_normalizer},
               {"clamp_min", nullptr},
               {"eos_token_id", config.eos_token_id}};
  if (config.clamp_min) json["clamp_min"] = *config.clamp_min;
  return json.dump(2) + "\n";
}

}  // namespace generate
