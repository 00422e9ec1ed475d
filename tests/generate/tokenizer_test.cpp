// Tokens of a text, and the text of tokens.
#include "examples/generate/tokenizer.hpp"

#include <nlohmann/json.hpp>

#include "examples/generate/failure.hpp"
#include "examples/generate/make.hpp"
#include "tests/files.hpp"

namespace glaive::testing {
namespace {

using generate::Token;
using generate::Tokenizer;
using Json = nlohmann::json;
using Tokens = std::vector<Token>;

/// "_" stands for U+2581.
std::string spaced(std::string text) {
  for (std::size_t at = 0; (at = text.find('_', at)) != std::string::npos;) text.replace(at, 1, "\xE2\x96\x81");
  return text;
}

/// A tokenizer of a few pieces; without bytes to fall back on.
Json few() {
  Json json = {{"added_tokens", Json::array({{{"id", 1}, {"content", "<s>"}, {"special", true}}})},
               {"normalizer", nullptr},
               {"pre_tokenizer",
                {{"type", "Metaspace"}, {"replacement", spaced("_")}, {"prepend_scheme", "first"}, {"split", false}}},
               {"model", {{"type", "BPE"}, {"unk_token", "<unk>"}, {"fuse_unk", true}, {"merges", Json::array()}}}};
  int id = 0;
  for (const char* piece : {"<unk>", "<s>", "_", "a", "b", "ab", "_a", "bab", "_ab", "b_"})
    json["model"]["vocab"][spaced(piece)] = id++;
  for (const char* merge : {"a b", "_ a", "b ab", "_ ab", "b _"}) json["model"]["merges"].push_back(spaced(merge));
  return json;
}

struct File {
  Folder folder;
  explicit File(const Json& json) { std::ofstream(folder / "t.json") << json.dump(); }
  Tokenizer read() const { return Tokenizer(folder / "t.json"); }
  std::string refusal() const {
    try {
      read();
    } catch (const generate::Failure& failure) {
      return failure.what();
    }
    return "nothing was refused";
  }
};

}  // namespace

TEST_CASE("tokenizer: pairs merge by rank, then from the left") {
  const Tokenizer tokenizer = File(few()).read();
  CHECK(tokenizer.encode("ab") == Tokens{8});       // _ a b: "a b" is before "_ a"
  CHECK(tokenizer.encode("abab") == Tokens{8, 5});  // "b ab" never stands: both b are merged before
  CHECK(tokenizer.encode("bab") == Tokens{2, 7});   // b ab
  CHECK(tokenizer.encode("aa") == Tokens{6, 3});
  CHECK(tokenizer.encode("b a") == Tokens{2, 4, 6});   // "_ a" is before "b _"
  CHECK(tokenizer.encode(" a") == Tokens{6});          // Metaspace adds no second space
  CHECK(tokenizer.encode("<s>ab") == Tokens{1, 5});    // nor one behind a special token, with "first"
  CHECK(tokenizer.encode("xyza") == Tokens{2, 0, 3});  // unknown ones are one
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode(Tokens{1, 8, 4, 6}) == "abb a");

  Json pairs = few();
  for (Json& merge : pairs["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  CHECK(File(pairs).read().encode("abab") == Tokens{8, 5});

  Json words = few();
  words["pre_tokenizer"]["split"] = true;
  CHECK(File(words).read().encode("b b") == Tokens{2, 4, 2, 4});  // "b _" is across words
  CHECK(tokenizer.encode("b b") == Tokens{2, 9, 4});
}

TEST_CASE("tokenizer: added tokens are found first, and special ones are no text") {
  Json json = few();
  json["added_tokens"].push_back({{"id", 10}, {"content", "<tool>"}, {"special", false}});
  const Tokenizer tokenizer = File(json).read();
  CHECK(tokenizer.encode("ab<tool>b<s>") == Tokens{8, 10, 4, 1});
  CHECK(tokenizer.decode(Tokens{8, 10, 4, 1}) == "ab<tool>b");
}

TEST_CASE("tokenizer: any text comes back") {
  const Folder folder;
  generate::make_model(folder.path(), generate::Recipe::of(16, 1, 2));
  const Tokenizer tokenizer(folder / "tokenizer.json");
  for (const std::string text : {"The river keeps a memory of the rain.", "a", " two  spaces ", "tabs\tand\nlines\r\n",
                                 "Grüße, Ελλάδα, 雨, 🌧️", "\xE2\x96\x81 itself is a space", "{}[]\"\\", ""}) {
    const Tokens tokens = tokenizer.encode(text);
    CHECK(tokens.at(0) == 1);
    INFO(text);
    if (text.find("\xE2\x96\x81") == std::string::npos) CHECK(tokenizer.decode(tokens) == text);
  }
  std::string bytes;
  for (int byte = 1; byte < 256; ++byte) bytes += static_cast<char>(byte);  // no UTF-8 at all
  CHECK(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
  CHECK(tokenizer.encode("The river").size() < 8);  // merges are used
  CHECK(tokenizer.encode("rain</s>").back() == tokenizer.id("</s>"));
}

TEST_CASE("tokenizer: a long text takes no longer than its length") {
  const Folder folder;
  generate::make_model(folder.path(), generate::Recipe::of(16, 1, 2));
  const Tokenizer tokenizer(folder / "tokenizer.json");
  std::string text;
  while (text.size() < 1 << 20) text += "The state of the river, ";
  CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
}

TEST_CASE("tokenizer: what is not read is named") {
  const auto with = [](const char* pointer, const Json& value) {
    Json json = few();
    json[Json::json_pointer(pointer)] = value;
    return File(json).refusal();
  };
  CHECK(contains(with("/model/type", "Unigram"), "the model is \"Unigram\"; \"BPE\" is read"));
  CHECK(contains(with("/model/ignore_merges", true), "ignore_merges"));
  CHECK(contains(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix"));
  CHECK(contains(with("/model/byte_fallback", true), "has no token \"<0x00>\""));
  CHECK(contains(with("/model/merges/0", "a c"), "has no token \"c\""));
  CHECK(contains(with("/model/merges/0", "ac"), "is not of two pieces"));
  for (const Json& id : {Json("x"), Json(2.5), Json(-1), Json(4294967299)})
    CHECK(contains(with("/model/vocab/a", id),
                   "the id of \"a\" is " + id.dump() + "; allowed is an integer from 0 to 2147483647"));
  CHECK(contains(with("/added_tokens/0/id", 4294967297), "the id of \"<s>\" is 4294967297"));
  CHECK(contains(with("/model/merges/0", Json::array({1, 2})), "is not a tokenizer as the format has it"));
  const std::string long_name = with("/pre_tokenizer", {{"type", std::string(1000, 'x')}});
  CHECK(contains(long_name, "the pre_tokenizer is xxx"));
  CHECK(long_name.size() < 400);
  CHECK(contains(with("/pre_tokenizer", {{"type", "ByteLevel"}}), "the pre_tokenizer is ByteLevel"));
  CHECK(contains(with("/pre_tokenizer", nullptr), "nothing replaces spaces"));
  CHECK(contains(with("/normalizer", {{"type", "NFKC"}}), "the normalizer is NFKC"));
  CHECK(contains(with("/post_processor", {{"type", "ByteLevel"}}), "the post_processor is ByteLevel"));
  CHECK(contains(with("/added_tokens/0/lstrip", true), "<s> has lstrip"));
  CHECK(contains(File(Json::array()).refusal(), "is not a JSON object"));
  Json without = few();
  without["model"].erase("unk_token");
  const Tokenizer tokenizer = File(without).read();
  CHECK_THROWS_WITH(tokenizer.encode("x"), Catch::Matchers::Contains("has no token for the character x"));
  CHECK_THROWS_WITH(tokenizer.piece(10), Catch::Matchers::Contains("token 10 is not in the vocabulary"));
}

}  // namespace glaive::testing
