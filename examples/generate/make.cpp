#include "examples/generate/make.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string_view>

#include "examples/generate/failure.hpp"
#include "examples/generate/tokenizer.hpp"
#include "examples/generate/weights.hpp"

namespace generate {
namespace {

using Json = nlohmann::json;
const std::string space = "\xE2\x96\x81";
constexpr std::string_view paragraph =
    "The river keeps a memory of the rain. When the rain is heavy the river is high, and when the sky is clear the "
    "river is low, for the river forgets a little of the rain with every hour. So does the state of the model. Every "
    "token adds a key and a value to the state, and a gate says how much of the state is kept. When the gate is open "
    "the state remembers, and when the gate is closed the state forgets. A query reads the state, and what it reads "
    "is the sum of the values whose keys are like the query, the old ones faded and the new ones clear. The memory "
    "does not grow with the text: a long story and a short one leave the same river, the same state, and the next "
    "word takes the same time. That is why the model can read all night, and never has to look back.";

constexpr int most_merges = 200;
constexpr std::int64_t widest_head = 512;  // of glaive's problems

/// The pairs that byte pair encoding merges, learnt from the paragraph: the commonest pair of neighbours within words,
/// again and again, until none occurs twice.
std::vector<std::pair<std::string, std::string>> learn_merges() {
  std::vector<std::vector<std::string>> words;
  for (const char c : " " + std::string(paragraph)) {
    if (c == ' ')
      words.push_back({space});
    else
      words.back().push_back(std::string(1, c));
  }
  std::vector<std::pair<std::string, std::string>> merges;
  while (merges.size() < most_merges) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const auto& word : words)
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    const auto commonest = std::max_element(counts.begin(), counts.end(),
                                            [](const auto& a, const auto& b) { return a.second < b.second; });
    if (commonest == counts.end() || commonest->second < 2) break;
    const auto [left, right] = merges.emplace_back(commonest->first);
    for (auto& word : words)
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] += right;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
  }
  return merges;
}

Json special(int id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

/// As SentencePiece's models become it: Llama's and Mistral's, and so the published GLA checkpoints'.
Json tokenizer() {
  Json vocab = Json::object(), merges = Json::array();
  const auto add = [&](const std::string& piece) {
    if (!vocab.contains(piece)) vocab[piece] = vocab.size();
  };
  for (const char* piece : {"<unk>", "<s>", "</s>"}) add(piece);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    add(name);
  }
  add(space);
  for (char c = '!'; c <= '~'; ++c) add(std::string(1, c));
  for (const auto& [left, right] : learn_merges()) {
    add(left + right);
    merges.push_back(left + " " + right);
  }
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}};
  const Json back = {{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")}},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", space}}, replace}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"pair", Json::array()},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {back,
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<unk>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", merges}}}};
}

void write(const std::filesystem::path& file, const std::string& text) {
  std::ofstream stream(file);
  if (!(stream << text).flush()) fail(file.string(), " cannot be written");
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// Of mean 0 and this deviation, uniform: the same on every machine, which normal_distribution is not.
  float draw(double deviation) {
    const double unit = static_cast<double>(engine_() >> 11) * 0x1p-53;
    return static_cast<float>((2 * unit - 1) * deviation * std::sqrt(3.0));
  }

 private:
  std::mt19937_64 engine_;
};

std::size_t count_of(const TensorSpec& spec) {
  std::size_t count = 1;
  for (const std::int64_t extent : spec.shape) count *= static_cast<std::size_t>(extent);
  return count;
}

/// Memory is promised before it is there: a model that is too large would be killed, not told.
void check_memory(const std::vector<TensorSpec>& specs) {
  std::size_t bytes = 0;
  for (const TensorSpec& spec : specs) bytes += count_of(spec) * sizeof(float);
  const auto memory =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (bytes > memory)
    fail("a model of ", bytes >> 20, " MiB in f32 does not fit into the ", memory >> 20, " MiB of this machine");
}

std::vector<float> numbers_of(const TensorSpec& spec, Random& random) {
  std::vector<float> numbers(count_of(spec));
  const bool bias = spec.name.ends_with(".bias"), norm = !bias && spec.shape.size() == 1;
  // Products keep the size of what they are applied to; what they add to the residual stream stays well below it.
  double deviation = 1 / std::sqrt(static_cast<double>(spec.shape.back()));
  if (spec.name == "model.embeddings.weight") deviation = 1;
  if (spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight")) deviation *= 0.25;
  if (bias) deviation = 2;
  if (norm) deviation = 0.1;
  for (float& number : numbers) number = (norm ? 1.F : 0.F) + random.draw(deviation);
  return numbers;
}

/// Row b of the lm head is the sum of the embeddings of what comes before b in the paragraph, and so answers to them.
void teach(const std::vector<Token>& text, const std::vector<float>& embeddings, std::vector<float>& lm_head,
           std::int64_t hidden) {
  std::map<Token, double> seen;
  for (const Token token : text) ++seen[token];
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const double weight = 10 / std::sqrt(seen[text[i]] * seen[text[i + 1]]) / static_cast<double>(hidden);
    const float* const before = &embeddings[static_cast<std::size_t>(text[i] * hidden)];
    float* const row = &lm_head[static_cast<std::size_t>(text[i + 1] * hidden)];
    for (std::int64_t c = 0; c < hidden; ++c) row[c] += static_cast<float>(weight) * before[c];
  }
}

}  // namespace

Recipe Recipe::of(std::int64_t hidden_size, std::int64_t layers, std::int64_t heads) {
  Recipe recipe;
  if (hidden_size < 2 * heads || hidden_size % (2 * heads) != 0)
    fail("a hidden size of ", hidden_size, " is not a multiple of twice the heads, ", 2 * heads);
  if (hidden_size / heads > widest_head)
    fail("a hidden size of ", hidden_size, " with ", heads, " heads makes heads of ", hidden_size / heads,
         " channels; allowed are ", widest_head, ", so ", (hidden_size + widest_head - 1) / widest_head,
         " heads or more");
  Config& c = recipe.config;
  c.hidden_size = hidden_size;
  c.layers = layers;
  c.heads = c.kv_heads = heads;
  c.key_dim = hidden_size / 2 / heads;
  c.value_dim = hidden_size / heads;
  c.intermediate_size = (hidden_size * 8 / 3 + 255) / 256 * 256;
  return recipe;
}

void make_model(const std::filesystem::path& folder, const Recipe& recipe) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(folder.string(), " cannot be made: ", error.message());
  write(folder / "tokenizer.json", tokenizer().dump(1) + "\n");
  const Tokenizer vocabulary(folder / "tokenizer.json");
  Config config = recipe.config;
  config.vocab_size = static_cast<std::int64_t>(vocabulary.size());
  config.eos_token_ids = {vocabulary.id("</s>")};
  check_memory(tensors_of(config));
  write(folder / "config.json", to_json(config));

  Random random(recipe.seed);
  std::vector<NamedTensor> tensors;
  for (const TensorSpec& spec : tensors_of(config))
    tensors.push_back({spec.name, spec.shape, numbers_of(spec, random)});
  if (tensors.back().name == "lm_head.weight") {
    std::vector<float>& lm_head = tensors.back().numbers;
    for (float& number : lm_head) number *= 0.5F;
    teach(vocabulary.encode(paragraph), tensors.front().numbers, lm_head, config.hidden_size);
  }
  write_safetensors(folder / "model.safetensors", tensors, recipe.dtype);
}

}  // namespace generate
