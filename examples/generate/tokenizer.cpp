#include "examples/generate/tokenizer.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <queue>
#include <tuple>

#include "examples/generate/failure.hpp"
#include "examples/generate/json.hpp"

namespace generate {

namespace {

const std::string space = "\xE2\x96\x81";  // U+2581

bool is_set(const Json& json, const char* name) { return json.contains(name) && !json[name].is_null(); }
std::string type_of(const Json& json) { return json.is_object() ? json.value("type", "") : quoted(json); }

std::string byte_name(unsigned byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

/// Bytes of the UTF-8 character that begins here; of what is none, one.
std::size_t character_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t bytes = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 1;
  return std::min(bytes, text.size());
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string all;
  for (std::size_t at = 0; at < text.size();) {
    const bool here = text.substr(at, from.size()) == from;
    all += here ? to : text.substr(at, 1);
    at += here ? from.size() : 1;
  }
  return all;
}

}  // namespace

Tokenizer::Tokenizer(const std::filesystem::path& file) : file_(file.string()) {
  const Json json = read_object(file);
  try {
    read_model(json);
    read_added(json);
    read_normalizer(json);
    read_post_processor(json);
  } catch (const Json::exception& error) {
    fail(file_, " is not a tokenizer as the format has it: ", shortened(error.what()));
  }
}

Token Tokenizer::read_id(const std::string& piece, const Json& json) const {
  const auto id = integer(json, 0, std::numeric_limits<Token>::max());
  if (!id)
    fail(file_, ": the id of ", quoted(piece), " is ", quoted(json), "; allowed is an integer from 0 to 2147483647");
  return static_cast<Token>(*id);
}

void Tokenizer::read_model(const Json& json) {
  const Json& model = json.at("model");
  if (model.value("type", "BPE") != "BPE") fail(file_, ": the model is ", quoted(model["type"]), "; \"BPE\" is read");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (is_set(model, name) && quoted(model[name]) != R"("")")
      fail(file_, ": ", name, " is ", quoted(model[name]), ", not null");
  if (model.value("ignore_merges", false)) fail(file_, ": ignore_merges is true; false is read");
  for (const auto& [piece, json_id] : model.at("vocab").items()) {
    const Token id = read_id(piece, json_id);
    ids_[piece] = id;
    pieces_[id] = piece;
  }
  if (is_set(model, "unk_token")) unknown_ = id(model["unk_token"].get<std::string>());
  fuse_unknown_ = model.value("fuse_unk", false);
  if (model.value("byte_fallback", false))
    for (unsigned byte = 0; byte < 256; ++byte) bytes_.push_back(id(byte_name(byte)));

  std::int32_t rank = 0;
  for (const Json& merge : model.at("merges")) {  // "left right", or in newer files ["left", "right"]
    std::string left, right;
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const std::size_t gap = text.find(' ');
      if (gap == std::string::npos) fail(file_, ": the merge ", quoted(merge), " is not of two pieces");
      left = text.substr(0, gap), right = text.substr(gap + 1);
    } else {
      left = merge.at(0).get<std::string>(), right = merge.at(1).get<std::string>();
    }
    const auto key = static_cast<std::uint64_t>(id(left)) << 32 | static_cast<std::uint32_t>(id(right));
    merges_.emplace(key, Merge{rank++, id(left + right)});
  }
}

void Tokenizer::read_added(const Json& json) {
  for (const Json& token : json.value("added_tokens", Json::array())) {
    const auto content = token.at("content").get<std::string>();
    const Token id = read_id(content, token.at("id"));
    for (const char* name : {"single_word", "lstrip", "rstrip"})
      if (token.value(name, false))
        fail(file_, ": the added token ", shortened(content), " has ", name, "; it is not read");
    ids_[content] = id;
    pieces_[id] = content;
    if (!content.empty()) added_[id] = content;
    if (token.value("special", false)) special_.insert(id);
  }
}

void Tokenizer::read_normalizer(const Json& json) {
  const auto refuse = [&](const char* what, const Json& part) {
    fail(file_, ": the ", what, " is ", shortened(type_of(part)),
         "; read are Prepend and Replace of spaces by U+2581, or Metaspace");
  };
  const auto each = [](const Json& whole, const char* list, auto&& take) {
    if (whole.is_null()) return;
    if (type_of(whole) != "Sequence") return take(whole);
    for (const Json& part : whole.at(list)) take(part);
  };
  bool spaces = false;
  each(json.value("normalizer", Json()), "normalizers", [&](const Json& part) {
    if (type_of(part) == "Prepend" && part.at("prepend") == space) {
      prefix_ = Prefix::always;
    } else if (type_of(part) == "Replace" && part.at("pattern").value("String", "") == " " &&
               part.at("content") == space) {
      spaces = true;
    } else {
      refuse("normalizer", part);
    }
  });
  each(json.value("pre_tokenizer", Json()), "pretokenizers", [&](const Json& part) {
    if (type_of(part) != "Metaspace" || part.at("replacement") != space) refuse("pre_tokenizer", part);
    const auto scheme = part.value("prepend_scheme", part.value("add_prefix_space", true) ? "always" : "never");
    prefix_ = scheme == "always" ? Prefix::always : scheme == "first" ? Prefix::first : Prefix::never;
    prefix_unless_there_ = spaces = true;
    splits_words_ = part.value("split", true);
  });
  if (!spaces) fail(file_, ": nothing replaces spaces by U+2581; other kinds of tokenizers are not read");
}

void Tokenizer::read_post_processor(const Json& json) {
  if (!is_set(json, "post_processor")) return;
  const Json& processor = json["post_processor"];
  if (type_of(processor) != "TemplateProcessing")
    fail(file_, ": the post_processor is ", shortened(type_of(processor)), "; TemplateProcessing is read");
  std::vector<Token>* side = &before_;
  for (const Json& part : processor.at("single")) {
    if (part.contains("Sequence")) {
      side = &after_;
    } else {
      side->push_back(id(part.at("SpecialToken").at("id").get<std::string>()));
    }
  }
}

Token Tokenizer::id(const std::string& piece) const {
  const auto found = ids_.find(piece);
  if (found == ids_.end()) fail(file_, " has no token ", quoted(piece));
  return found->second;
}

const Tokenizer::Merge* Tokenizer::merge(Token left, Token right) const {
  const auto found = merges_.find(static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Token> Tokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens = before_;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::pair<const Token, std::string>* longest = nullptr;
    for (const auto& entry : added_)
      if (text.substr(at, entry.second.size()) == entry.second &&
          (longest == nullptr || entry.second.size() > longest->second.size()))
        longest = &entry;
    if (longest == nullptr) {
      ++at;
      continue;
    }
    encode_part(text.substr(begin, at - begin), begin == 0, tokens);
    tokens.push_back(longest->first);
    begin = at += longest->second.size();
  }
  encode_part(text.substr(begin), begin == 0, tokens);
  tokens.insert(tokens.end(), after_.begin(), after_.end());
  return tokens;
}

void Tokenizer::encode_part(std::string_view text, bool first, std::vector<Token>& tokens) const {
  if (text.empty()) return;
  std::string normal = replaced(text, " ", space);
  const bool there = prefix_unless_there_ && normal.starts_with(space);
  if ((prefix_ == Prefix::always || (prefix_ == Prefix::first && first)) && !there) normal.insert(0, space);
  const std::string_view all = normal;
  std::size_t begin = 0;
  while (splits_words_ && begin < all.size()) {  // a word begins with its space
    const std::size_t end = all.find(space, begin + 1);
    if (end == std::string_view::npos) break;
    encode_word(all.substr(begin, end - begin), tokens);
    begin = end;
  }
  encode_word(all.substr(begin), tokens);
}

std::vector<Token> Tokenizer::characters(std::string_view word) const {
  std::vector<Token> tokens;
  for (std::size_t at = 0, bytes = 0; at < word.size(); at += bytes) {
    bytes = character_bytes(word.substr(at));
    const std::string character(word.substr(at, bytes));
    if (const auto found = ids_.find(character); found != ids_.end()) {
      tokens.push_back(found->second);
    } else if (!bytes_.empty()) {
      for (const char byte : character) tokens.push_back(bytes_[static_cast<unsigned char>(byte)]);
    } else if (unknown_ < 0) {
      fail(file_, " has no token for the character ", character, ", no tokens for bytes, and no unk_token");
    } else if (!fuse_unknown_ || tokens.empty() || tokens.back() != unknown_) {
      tokens.push_back(unknown_);
    }
  }
  return tokens;
}

// Of all pairs of neighbours that merge, the one of lowest rank does, the leftmost first, until none is left.
void Tokenizer::encode_word(std::string_view word, std::vector<Token>& tokens) const {
  const std::vector<Token> start = characters(word);
  const auto count = static_cast<std::ptrdiff_t>(start.size());
  struct Symbol {
    Token token;
    std::ptrdiff_t before, after;
  };
  std::vector<Symbol> symbols;
  for (std::ptrdiff_t i = 0; i < count; ++i) symbols.push_back({start[static_cast<std::size_t>(i)], i - 1, i + 1});
  const auto at = [&](std::ptrdiff_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };

  using Candidate = std::tuple<std::int32_t, std::ptrdiff_t, Token, Token>;  // rank, where, and the two as they were
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](std::ptrdiff_t left) {
    if (left < 0 || at(left).after >= count) return;
    const Token a = at(left).token, b = at(at(left).after).token;
    if (const Merge* const found = merge(a, b)) candidates.emplace(found->rank, left, a, b);
  };
  for (std::ptrdiff_t i = 0; i < count; ++i) consider(i);
  while (!candidates.empty()) {
    const auto [rank, left, a, b] = candidates.top();
    candidates.pop();
    const std::ptrdiff_t right = at(left).after;
    if (at(left).token != a || right >= count || at(right).token != b) continue;  // one of them merged meanwhile
    at(left).token = merge(a, b)->into;
    at(left).after = at(right).after;
    if (at(right).after < count) at(at(right).after).before = left;
    at(right).token = -1;
    consider(at(left).before);
    consider(left);
  }
  for (std::ptrdiff_t i = 0; i < count; i = at(i).after) tokens.push_back(at(i).token);
}

std::string Tokenizer::piece(Token token) const {
  if (special_.contains(token)) return "";
  const auto found = pieces_.find(token);
  if (found == pieces_.end())
    fail("token ", token, " is not in the vocabulary of ", file_, ", which has ", pieces_.size(), " tokens");
  const auto byte = std::find(bytes_.begin(), bytes_.end(), token);
  if (byte != bytes_.end()) return std::string(1, static_cast<char>(byte - bytes_.begin()));
  return replaced(found->second, space, " ");
}

std::string Tokenizer::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += piece(token);
  if (prefix_ != Prefix::never && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace generate
