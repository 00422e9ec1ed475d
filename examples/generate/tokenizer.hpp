#pragma once
// tokenizer.json of Hugging Face, as far as published GLA checkpoints use it: byte pair encoding over characters with
// U+2581 in place of spaces, and a token for each byte to fall back on (what SentencePiece models of Llama and Mistral
// become). Another kind, such as GPT-2's with its regular expression, is refused by name.
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace generate {

using Token = std::int32_t;

class Tokenizer {
 public:
  explicit Tokenizer(const std::filesystem::path& file);

  /// What the file's post-processor puts around a text, such as <s>, included.
  std::vector<Token> encode(std::string_view text) const;
  /// The bytes of a token within a text: none for a special one. One character may take several tokens.
  std::string piece(Token token) const;
  std::string decode(std::span<const Token> tokens) const;
  Token id(const std::string& piece) const;
  std::size_t size() const { return pieces_.size(); }

 private:
  enum class Prefix { never, first, always };  ///< where a text, or a part after a special token, begins with a space
  struct Merge {
    std::int32_t rank;
    Token into;
  };
  Token read_id(const std::string& piece, const nlohmann::json& json) const;
  void read_model(const nlohmann::json& json);
  void read_added(const nlohmann::json& json);
  void read_normalizer(const nlohmann::json& json);
  void read_post_processor(const nlohmann::json& json);
  void encode_part(std::string_view text, bool first, std::vector<Token>& tokens) const;
  void encode_word(std::string_view word, std::vector<Token>& tokens) const;
  std::vector<Token> characters(std::string_view word) const;
  const Merge* merge(Token left, Token right) const;

  std::string file_;
  std::unordered_map<std::string, Token> ids_;
  std::map<Token, std::string> pieces_;
  std::map<Token, std::string> added_;  ///< found in a text before all else
  std::set<Token> special_;             ///< no text
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::vector<Token> bytes_;  ///< 256, or none
  std::vector<Token> before_, after_;
  Token unknown_ = -1;
  bool fuse_unknown_ = false, prefix_unless_there_ = false, splits_words_ = false;
  Prefix prefix_ = Prefix::never;
};

}  // namespace generate
