// Checkpoints, good and bad.
#include "tests/files.hpp"

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "examples/generate/failure.hpp"
#include "examples/generate/make.hpp"
#include "examples/generate/safetensors.hpp"
#include "examples/generate/tokenizer.hpp"
#include "examples/generate/weights.hpp"

namespace glaive::testing {
namespace {

using generate::Checkpoint;
using generate::Dtype;
using generate::Failure;

template <class Body>
std::string refusal(Body&& body) {
  try {
    body();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "nothing was refused";
}

/// A file with this header and so many bytes of numbers.
void write_file(const fs::path& file, const std::string& header, std::size_t bytes) {
  const std::uint64_t size = header.size();
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&size), 8) << header << std::string(bytes, '\0');
}

generate::Recipe small() { return generate::Recipe::of(16, 1, 2); }

void read_all(const fs::path& folder) {
  generate::Tokenizer(folder / "tokenizer.json");
  const generate::Config config = generate::read_config(folder / "config.json");
  const Checkpoint checkpoint(folder);
  generate::check_tensors(checkpoint, config);
  generate::read_ends(checkpoint, config);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) generate::read_layer(checkpoint, config, layer);
}

}  // namespace

TEST_CASE("safetensors: numbers come back in each dtype") {
  const Folder folder;
  const std::vector<float> numbers = {0.F, -1.5F, 3.25F, 1e-3F, 65504.F, -7.F};
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    generate::write_safetensors(folder / "model.safetensors", {{"a", {2, 3}, numbers}, {"b", {0}, {}}}, dtype);
    const Checkpoint checkpoint(folder.path());
    const auto view = checkpoint.tensor("a");
    CHECK(view.shape == std::vector<std::int64_t>{2, 3});
    const auto back = view.numbers();
    for (std::size_t i = 0; i < numbers.size(); ++i)
      CHECK(back[i] == (dtype == Dtype::f32 ? numbers[i] : generate::from_bf16(generate::to_bf16(numbers[i]))));
    CHECK(checkpoint.tensor("b").numbers().empty());
  }
  // 1, -2, the largest, the smallest normal and subnormal number, and infinity.
  const std::uint16_t halves[] = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x7c00};
  write_file(folder / "model.safetensors", R"({"h":{"dtype":"F16","shape":[6],"data_offsets":[0,12]}})", 0);
  std::ofstream(folder / "model.safetensors", std::ios::binary | std::ios::app)
      .write(reinterpret_cast<const char*>(halves), sizeof halves);
  CHECK(Checkpoint(folder.path()).tensor("h").numbers() ==
        std::vector<float>{1.F, -2.F, 65504.F, 0x1p-14F, 0x1p-24F, INFINITY});
}

TEST_CASE("safetensors: what is wrong is named") {
  const Folder folder;
  const auto of = [&](const std::string& header, std::size_t bytes) {
    write_file(folder / "model.safetensors", header, bytes);
    return refusal([&] { Checkpoint(folder.path()).tensor("w"); });
  };
  CHECK(contains(refusal([&] { Checkpoint(folder.path()); }), "cannot be read: No such file"));
  CHECK(contains(of("[]", 0), "model.safetensors is not a JSON object"));
  CHECK(contains(of("{\"w\":", 0), "model.safetensors is not a JSON object"));
  CHECK(contains(of(R"({"w":{"dtype":"F32","shape":[4]}})", 16), "lacks a dtype, a shape or two data_offsets"));
  for (const char* entry : {R"("shape":[4.0],"data_offsets":[0,16])", R"("shape":[4],"data_offsets":[0.5,16])",
                            R"("shape":[4],"data_offsets":[0,18446744073709551615])",
                            R"("shape":[18446744073709551615],"data_offsets":[0,16])"})
    CHECK(contains(of(std::string(R"({"w":{"dtype":"F32",)") + entry + "}}", 16), "lacks a dtype, a shape or two"));
  CHECK(contains(of(R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 12),
                 "w is said to lie at bytes 0 to 16 of 12"));
  CHECK(contains(of(R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[8,4]}})", 16), "bytes 8 to 4"));
  CHECK(
      contains(of(R"({"w":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}})", 16), "its shape [5] of F32 takes 20"));
  CHECK(contains(of(R"({"w":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", 16), "the shape of w is [-4]"));
  CHECK(
      contains(of(R"({"w":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", 4), "the shape of w"));
  CHECK(contains(of(R"({"w":{"dtype":"Q4","shape":[4],"data_offsets":[0,16]}})", 16),
                 "Q4, which is none of the format's"));
  CHECK(contains(of(R"({"w":{"dtype":"I32","shape":[4],"data_offsets":[0,16]}})", 16),
                 "I32; F32, BF16 and F16 are read"));
  CHECK(contains(of(R"({"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 16), "has no tensor w"));
  write_file(folder / "model.safetensors", "{}", 0);
  fs::resize_file(folder / "model.safetensors", 5);
  CHECK(contains(refusal([&] { Checkpoint(folder.path()); }), "it has 5 bytes, and 8 are the least"));
}

TEST_CASE("safetensors: several files by their index") {
  const Folder folder;
  generate::write_safetensors(folder / "model-1.safetensors", {{"a", {1}, {1.F}}}, Dtype::f32);
  generate::write_safetensors(folder / "model-2.safetensors", {{"b", {1}, {2.F}}}, Dtype::bf16);
  const fs::path index = folder / "model.safetensors.index.json";
  std::ofstream(index) << R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})";
  CHECK(Checkpoint(folder.path()).tensor("b").numbers() == std::vector<float>{2.F});
  std::ofstream(index) << R"({"weight_map":{"a":"../model-1.safetensors"}})";
  CHECK(contains(refusal([&] { Checkpoint(folder.path()); }), "not a name in the same folder"));
  std::ofstream(index) << "{}";
  CHECK(contains(refusal([&] { Checkpoint(folder.path()); }), "is not an index"));
  std::ofstream(index) << "{";
  CHECK(contains(refusal([&] { Checkpoint(folder.path()); }), "is not a JSON object"));
  std::ofstream(index) << R"({"weight_map":{"a":[")" << std::string(1000, 'x') << R"("]}})";
  const std::string of_long = refusal([&] { Checkpoint(folder.path()); });
  CHECK(contains(of_long, "xxx..., not a name in the same folder"));
  CHECK(of_long.size() < 300);
}

TEST_CASE("files: what is nested deeply is refused by name") {
  const Folder folder;
  generate::make_model(folder.path(), small());
  const std::string lists = std::string(1 << 20, '[') + std::string(1 << 20, ']'),
                    deep = "{\"model_type\":" + lists + "}";
  const auto refused = [&](const char* name) {
    const std::string sentence = refusal([&] { read_all(folder.path()); });
    INFO(sentence.substr(0, 200));
    CHECK(contains(sentence, std::string(name) + " is nested deeper than 32 levels"));
    fs::remove_all(folder.path());
    generate::make_model(folder.path(), small());
  };
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors.index.json"}) {
    std::ofstream(folder / name) << deep;
    refused(name);
  }
  write_file(folder / "model.safetensors", deep, 0);
  refused("model.safetensors");
}

TEST_CASE("files: JSON that is cut or altered anywhere is read or refused, and nothing else") {
  const Folder folder;
  generate::make_model(folder.path(), small());
  {
    nlohmann::json index;
    for (const auto& spec : generate::tensors_of(generate::read_config(folder / "config.json")))
      index["weight_map"][spec.name] = "model.safetensors";
    std::ofstream(folder / "model.safetensors.index.json") << index;
  }
  REQUIRE_NOTHROW(read_all(folder.path()));
  std::mt19937 random(5);
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors.index.json"}) {
    INFO(name);
    const auto whole = read_bytes(folder / name);
    const auto refused = [&](std::span<const std::byte> bytes) {
      write_bytes(folder / name, bytes);
      return refusal([&] { read_all(folder.path()); }) != "nothing was refused";
    };
    for (int i = 0; i < 30; ++i) CHECK(refused(std::span(whole).first(random() % (whole.size() - 2))));
    int count = 0;
    for (int i = 0; i < 200; ++i) {
      auto bytes = whole;
      bytes[random() % bytes.size()] ^= static_cast<std::byte>(1U << random() % 8);
      count += refused(bytes);
    }
    CHECK(count > 20);
    write_bytes(folder / name, whole);
  }
}

TEST_CASE("safetensors: a file that is cut or altered anywhere in its header is read or refused, and nothing else") {
  const Folder folder;
  generate::make_model(folder.path(), small());
  const fs::path file = folder / "model.safetensors";
  const auto whole = read_bytes(file);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  int refused = 0;
  for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 97) {
    write_bytes(file, std::span(whole).first(size));
    refused += refusal([&] { read_all(folder.path()); }) != "nothing was refused";
  }
  CHECK(refused == 97);
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) {
    auto bytes = whole;
    bytes[random() % (8 + header)] ^= static_cast<std::byte>(1U << random() % 8);
    write_bytes(file, bytes);
    refused += refusal([&] { read_all(folder.path()); }) != "nothing was refused";
  }
  CHECK(refused > 97 + 200);
}

TEST_CASE("weights: a missing one and a wrong shape are named") {
  const Folder folder;
  generate::make_model(folder.path(), small());
  CHECK_NOTHROW(read_all(folder.path()));
  generate::Config config = generate::read_config(folder / "config.json");
  const auto read = [&] {
    return refusal([&] { generate::read_layer(Checkpoint(folder.path()), config, config.layers - 1); });
  };
  config.layers = 2;
  CHECK(contains(read(), "has no tensor model.layers.1.attn_norm.weight"));
  config.layers = 1;
  config.gate_low_rank_dim = 8;
  CHECK(contains(read(), "model.layers.0.attn.gk_proj.0.weight has the shape [16, 16]; config.json makes it [8, 16]"));
}

TEST_CASE("weights: sizes that no tensor has are named without reading any") {
  const Folder folder;
  generate::make_model(folder.path(), small());
  const generate::Config made = generate::read_config(folder / "config.json");
  const Checkpoint checkpoint(folder.path());
  CHECK_NOTHROW(generate::check_tensors(checkpoint, made));
  const auto with = [&](std::int64_t generate::Config::* size, std::int64_t value) {
    generate::Config config = made;
    config.*size = value;
    return refusal([&] { generate::check_tensors(checkpoint, config); });
  };
  CHECK(contains(with(&generate::Config::layers, 1000000), "has no tensor model.layers.1.attn_norm.weight"));
  CHECK(contains(with(&generate::Config::intermediate_size, 1 << 24), "config.json makes it [16777216, 16]"));
  CHECK(contains(with(&generate::Config::vocab_size, 1 << 24), "model.embeddings.weight has the shape"));
}

TEST_CASE("weights: embeddings that are the lm head too are kept once") {
  const Folder folder;
  generate::Recipe recipe = small();
  for (const bool ties : {false, true}) {
    recipe.config.tie_word_embeddings = ties;
    generate::make_model(folder.path(), recipe);
    const auto ends = generate::read_ends(Checkpoint(folder.path()), generate::read_config(folder / "config.json"));
    CHECK(ends.lm_head.has_value() == not ties);
  }
}

TEST_CASE("make: what could not be loaded, or held in memory, is not made") {
  const Folder folder;
  CHECK(contains(refusal([] { generate::Recipe::of(8192, 4, 4); }),
                 "with 4 heads makes heads of 2048 channels; allowed are 512, so 16 heads or more"));
  CHECK_NOTHROW(generate::Recipe::of(8192, 4, 16));
  const generate::Recipe huge = generate::Recipe::of(1 << 20, 4, 2048);
  CHECK(contains(refusal([&] { generate::make_model(folder.path(), huge); }), "does not fit into the"));
}

TEST_CASE("weights: the names of older and unfused checkpoints") {
  const Folder folder;
  generate::Config config = small().config;
  config.vocab_size = 8;
  std::vector<generate::NamedTensor> tensors;
  float next = 0;
  for (auto spec : generate::tensors_of(config)) {
    std::int64_t count = 1;
    for (const std::int64_t extent : spec.shape) count *= extent;
    std::vector<float> numbers;
    for (std::int64_t i = 0; i < count; ++i) numbers.push_back(next += 1);
    tensors.push_back({spec.name, spec.shape, numbers});
  }
  generate::write_safetensors(folder / "model.safetensors", tensors, Dtype::f32);
  const generate::HostLayer now = generate::read_layer(Checkpoint(folder.path()), config, 0);

  std::vector<generate::NamedTensor> older;
  for (generate::NamedTensor tensor : tensors) {
    if (tensor.name.ends_with("g_norm_swish_gate.weight")) tensor.name = "model.layers.0.attn.g_norm.weight";
    if (tensor.name.ends_with("up_proj.weight")) {  // behind the gate, in one tensor
      older.back().numbers.insert(older.back().numbers.end(), tensor.numbers.begin(), tensor.numbers.end());
      older.back().shape[0] *= 2;
      continue;
    }
    older.push_back(tensor);
  }
  generate::write_safetensors(folder / "model.safetensors", older, Dtype::f32);
  const generate::HostLayer then = generate::read_layer(Checkpoint(folder.path()), config, 0);
  CHECK(then.mlp_in.rows == 2 * config.intermediate_size);
  CHECK(then.mlp_in.numbers == now.mlp_in.numbers);
  CHECK(then.head_norm == now.head_norm);
}

TEST_CASE("config: flash-linear-attention's fields and defaults, and what is refused") {
  const Folder folder;
  const fs::path file = folder / "config.json";
  const auto read = [&](const std::string& text) {
    std::ofstream(file) << text;
    return generate::read_config(file);
  };
  const auto refused = [&](const std::string& text) { return refusal([&] { read(text); }); };
  // What gla-1.3B is.
  const generate::Config gla =
      read(R"({"model_type":"gla","clamp_min":null,"intermediate_size":null,"eos_token_id":2})");
  CHECK(gla.key_dim == 256);
  CHECK(gla.value_dim == 512);
  CHECK(gla.intermediate_size == 5632);
  CHECK_FALSE(gla.clamp_min.has_value());
  const generate::Config grouped = read(R"({"hidden_size":256,"num_heads":8,"num_kv_heads":2,"clamp_min":-3})");
  CHECK(grouped.keys() == 32);
  CHECK(grouped.outputs() == 256);
  CHECK(grouped.clamp_min == -3.F);
  CHECK(contains(refused(R"({"model_type":"retnet"})"), R"("model_type" is "retnet"; allowed is "gla")"));
  CHECK(contains(refused(R"({"use_short_conv":true})"), "use_short_conv"));
  CHECK(contains(refused(R"({"feature_map":"relu"})"), "feature_map"));
  CHECK(contains(refused(R"({"attn":{"layers":[1]}})"), "softmax attention"));
  CHECK(contains(refused(R"({"num_heads":4,"num_kv_heads":3})"), "a divisor of num_heads"));
  CHECK(contains(refused(R"({"num_heads":3})"), "multiple of num_heads, 3"));
  CHECK(contains(refused(R"({"hidden_act":"gelu"})"), R"("hidden_act" is "gelu"; allowed is "swish")"));
  CHECK(contains(refused(R"({"use_output_gate":false})"), R"("use_output_gate" is false; allowed is true)"));
  CHECK(contains(refused(R"({"use_output_gate":1})"), R"("use_output_gate" is 1; allowed is true or false)"));
  for (const char* size : {R"("wide")", "2048.5", "0", "-4", "16777217", "18446744073709551617", "4294967297"})
    CHECK(contains(refused(std::string(R"({"hidden_size":)") + size + "}"), "; allowed is a count from 1 to 16777216"));
  CHECK(contains(refused(R"({"expand_k":1e300})"), R"("expand_k" is 1e+300; allowed is a number from 0)"));
  CHECK(contains(refused(R"({"expand_v":"1"})"), R"("expand_v" is "1"; allowed is a number from 0)"));
  CHECK(contains(refused(R"({"norm_eps":-1e-6})"), R"("norm_eps" is -1e-06; allowed is a number from 0 to 1)"));
  CHECK(contains(refused(R"({"gate_logit_normalizer":0})"), "a number above 0"));
  CHECK(contains(refused(R"({"clamp_min":1})"), "a number below 0"));

  using Ids = std::vector<std::int64_t>;
  CHECK(read("{}").eos_token_ids == Ids{2});  // FLA's default
  CHECK(read(R"({"eos_token_id":null})").eos_token_ids.empty());
  CHECK(read(R"({"eos_token_id":7})").eos_token_ids == Ids{7});
  CHECK(read(R"({"eos_token_id":[2,32000]})").eos_token_ids == Ids{2, 32000});
  for (const char* ids : {"2.0", R"(["2"])", "4294967298", "[[2]]"})
    CHECK(contains(refused(std::string(R"({"eos_token_id":)") + ids + "}"), "a list of such, or null"));
  for (const Ids& ids : {Ids{}, Ids{7}, Ids{2, 32000}}) {
    generate::Config config;
    config.intermediate_size = 256;
    config.eos_token_ids = ids;
    CHECK(read(generate::to_json(config)).eos_token_ids == ids);
  }
  const std::string long_one = refused(R"({"hidden_act":")" + std::string(1000, 'x') + "\"}");
  CHECK(contains(long_one, "xxx...; allowed is"));
  CHECK(long_one.size() < 300);
  CHECK(contains(refused("[]"), "is not a JSON object"));
}

}  // namespace glaive::testing
