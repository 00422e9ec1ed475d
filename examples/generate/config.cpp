#include "examples/generate/config.hpp"

#include "examples/generate/failure.hpp"
#include "examples/generate/json.hpp"

namespace generate {
namespace {

constexpr std::int64_t most = 1 << 24;  // of anything that is counted

/// The fields of one file; those that are absent or null take their default.
class Fields {
 public:
  explicit Fields(const std::filesystem::path& file) : file_(file.string()), json_(read_object(file)) {}
  bool has(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }
  /// Also if it is null.
  bool contains(const char* name) const { return json_.contains(name); }
  const Json& of(const char* name) const { return json_[name]; }
  bool flag(const char* name, bool otherwise) const {
    if (!has(name)) return otherwise;
    if (!json_[name].is_boolean()) wrong(name, "true or false");
    return json_[name].get<bool>();
  }
  std::int64_t count(const char* name, std::int64_t otherwise) const {
    if (!has(name)) return otherwise;
    const auto value = integer(json_[name], 1, most);
    if (!value) wrong(name, "a count from 1 to " + std::to_string(most));
    return *value;
  }
  double number(const char* name, double otherwise, double low, double high, const char* allowed) const {
    if (!has(name)) return otherwise;
    const double value = json_[name].is_number() ? json_[name].get<double>() : high + 1;
    if (!(low <= value && value <= high)) wrong(name, allowed);
    return value;
  }
  /// Refuses whatever is not this text.
  void must_be(const char* name, const char* text) const {
    if (has(name) && json_[name] != text) wrong(name, quoted(text));
  }
  [[noreturn]] void wrong(const char* name, const std::string& allowed) const {
    fail(file_, ": \"", name, "\" is ", json_.contains(name) ? quoted(json_[name]) : "absent", "; allowed is ",
         allowed);
  }

 private:
  std::string file_;
  Json json_;
};

/// A head's share of hidden_size * expand.
std::int64_t head_dim(const Fields& fields, const char* expand, double otherwise, const Config& config) {
  const double factor = fields.number(expand, otherwise, 0, most, "a number from 0 to 16777216");
  const double whole = static_cast<double>(config.hidden_size) * factor;
  const auto all = static_cast<std::int64_t>(whole);
  if (all < 1 || all > most || all % config.heads != 0)
    fields.wrong(expand, "what makes hidden_size * " + std::string(expand) + " a multiple of num_heads, " +
                             std::to_string(config.heads));
  return all / config.heads;
}

/// One id, several, or null for none.
std::vector<std::int64_t> ends_of_text(const Fields& fields) {
  const char* const name = "eos_token_id";
  if (!fields.contains(name)) return Config().eos_token_ids;
  const Json& value = fields.of(name);
  std::vector<std::int64_t> ids;
  for (const Json& one : value.is_array() ? value : value.is_null() ? Json::array() : Json::array({value})) {
    const auto id = integer(one, -1, std::numeric_limits<std::int32_t>::max());
    if (!id) fields.wrong(name, "an integer from -1 to 2147483647, a list of such, or null");
    ids.push_back(*id);
  }
  return ids;
}

}  // namespace

Config read_config(const std::filesystem::path& file) {
  const Fields fields(file);
  fields.must_be("model_type", "gla");
  fields.must_be("hidden_act", "swish");
  if (fields.flag("use_short_conv", false))
    fields.wrong("use_short_conv", "false: there are no short convolutions here");
  if (!fields.flag("use_output_gate", true)) fields.wrong("use_output_gate", "true");
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
  config.gate_logit_normalizer =
      static_cast<float>(fields.number("gate_logit_normalizer", 16, 1e-6, 1e6, "a number above 0, from 1e-6 to 1e6"));
  if (fields.has("clamp_min"))
    config.clamp_min = static_cast<float>(
        fields.number("clamp_min", -1, -1e6, -1e-6, "a number below 0, from -1e6 to -1e-6, or null"));
  config.norm_eps = fields.number("norm_eps", 1e-6, 0, 1, "a number from 0 to 1");
  config.elementwise_affine = fields.flag("elementwise_affine", true);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", false);
  config.eos_token_ids = ends_of_text(fields);
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
               {"eos_token_id", nullptr}};
  if (config.eos_token_ids.size() == 1) json["eos_token_id"] = config.eos_token_ids[0];
  if (config.eos_token_ids.size() > 1) json["eos_token_id"] = config.eos_token_ids;
  if (config.clamp_min) json["clamp_min"] = *config.clamp_min;
  return json.dump(2) + "\n";
}

}  // namespace generate
