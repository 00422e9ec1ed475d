// The model on a CPU, with the families' kernels as they are by default.
#include <functional>

#include "compiler/compiler.hpp"
#include "examples/generate/failure.hpp"
#include "tests/generate/checks.hpp"
#include "tests/generate/packed.hpp"

namespace glaive::testing {
namespace {

PackEntry compiled(const char* family, const std::string& words) {
  const Instance instance{parse_problem(words).value(), host_cpu_target()};
  const Family& of = *find_family(family);
  MlirCompiler compiler;
  auto code = compiler.compile(of.instantiate(instance, of.default_config(instance)),
                               {instance.target, host_cpu_name(), CompileOptions::Effort::light});
  if (not code) FAIL(code.error().message);
  return entry_of(host_cpu_device(), instance, of, std::move(*code));
}

/// A model and a pack that has what it needs.
class Toy {
 public:
  explicit Toy(const Kind& kind) {
    generate::make_model(model(), recipe(kind));
    const generate::Config config = generate::read_config(model() / "config.json");
    const PackEntry entries[] = {compiled("chunk", generate::Model::problem("forward", config, GLAIVE_F32)),
                                 compiled("step", generate::Model::problem("step", config, GLAIVE_F32))};
    REQUIRE(add_to_pack(pack(), entries).has_value());
  }
  fs::path model() const { return folder_ / "model"; }
  fs::path pack() const { return folder_ / "p.pack"; }

 private:
  Folder folder_;
};

constexpr double allowed = 2e-5;  // f32, through two layers

void replace_in(const fs::path& file, const std::string& what, const std::string& by) {
  std::ifstream in(file);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  REQUIRE(text.find(what) != text.npos);
  text.replace(text.find(what), what.size(), by);
  std::ofstream(file) << text;
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was refused";
}

}  // namespace

TEST_CASE("logits equal float64's, token by token, in chunks, and beside others") {
  const Kind& kind = kinds[GENERATE(0, 1, 2, 3)];
  INFO(kind.name);
  const Toy toy(kind);
  const auto device = generate::Device::open("cpu", 2);
  check_logits({*device, api::Pack(toy.pack().string()), toy.model(), allowed});
}

TEST_CASE("requests that come and go are answered as each alone, and as float64 would") {
  const Toy toy(kinds[0]);
  const auto device = generate::Device::open("cpu", 2);
  const api::Pack pack(toy.pack().string());
  const Served served{*device, pack, toy.model(), allowed};
  const auto requests = mixed_requests(generate::read_config(toy.model() / "config.json").vocab_size);
  const auto together = check_requests(served, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO("request " << i);
    CHECK(together[i] == answers(served, {requests[i]}, {1, 64}, 64)[0]);
  }
}

TEST_CASE("a text ends where the model ends it") {
  const Toy toy(kinds[0]);
  const auto device = generate::Device::open("cpu", 1);
  const api::Pack pack(toy.pack().string());
  const Served served{*device, pack, toy.model(), allowed};
  std::vector<generate::Request> requests = {{{1, 5, 9}, 12, true}, {{1, 7}, 12, true}};
  const auto whole = answers(served, requests, {1, 16}, 16);
  // Whatever is sampled third becomes an end.
  const std::string third = std::to_string(whole[0][2]), ends = GENERATE(as<std::string>(), "_", "[400, _]");
  replace_in(toy.model() / "config.json", "\"eos_token_id\": 2",
             "\"eos_token_id\": " + std::string(ends).replace(ends.find('_'), 1, third));
  const auto ended = answers(served, requests, {1, 16}, 16);
  const auto first = std::find(whole[0].begin(), whole[0].end(), whole[0][2]);
  CHECK(ended[0] == std::vector<Token>(whole[0].begin(), first + 1));
  CHECK_FALSE(ended[1].empty());
}

TEST_CASE("what a model cannot be asked is said in a sentence") {
  const Toy toy(kinds[0]);
  const auto device = generate::Device::open("cpu", 1);
  const api::Pack pack(toy.pack().string());
  generate::Model model(*device, pack, toy.model(), {1, 16});
  generate::Scheduler scheduler(model, 16, [](std::size_t, Token) {});
  CHECK(contains(message_of([&] { scheduler.submit({{}, 1}); }), "a prompt has no tokens"));
  CHECK(contains(message_of([&] { scheduler.submit({{1, 449}, 1}); }), "token 449 of a prompt is outside"));
  // A model whose heads the pack does not have.
  generate::make_model(toy.model(), generate::Recipe::of(64, 1, 2));
  const std::string untuned = message_of([&] { generate::Model(*device, pack, toy.model(), {8, 16}); });
  INFO(untuned);
  CHECK(contains(untuned, "glaive tune 'forward H2 K16 V32 f32 logit @ B1 T16' 'step H2 K16 V32 f32 logit @ B8 T1'"));
}

TEST_CASE("sizes that the checkpoint does not have are named before anything is allocated for them") {
  const Toy toy(kinds[0]);
  const auto device = generate::Device::open("cpu", 1);
  const api::Pack pack(toy.pack().string());
  const auto refusal = [&] { return message_of([&] { generate::Model(*device, pack, toy.model(), {1, 16}); }); };
  replace_in(toy.model() / "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000");
  CHECK(contains(refusal(), "has no tensor model.layers.2.attn_norm.weight"));
  replace_in(toy.model() / "config.json", "\"intermediate_size\": 512", "\"intermediate_size\": 16777216");
  CHECK(contains(refusal(), "model.layers.0.mlp.gate_proj.weight has the shape [512, 128]"));
}

TEST_CASE("a model whose logits are no numbers fails") {
  const Toy toy(kinds[0]);
  const auto device = generate::Device::open("cpu", 1);
  const api::Pack pack(toy.pack().string());
  spoil(toy.model());
  check_spoilt({*device, pack, toy.model(), allowed});
}

TEST_CASE("the program makes a model, goes on with texts, and says where time goes") {
  const Toy toy(kinds[0]);
  const std::string program = GENERATE_PROGRAM, files = " --pack " + toy.pack().string() + " --threads 1 ";
  const std::string with = program + " --model " + toy.model().string() + files;
  const Output one = run_command(with + "--prompt 'The river' --tokens 12");
  INFO(one.text);
  CHECK(one.exit == 0);
  CHECK(one.text.starts_with("The river"));
  const Output two = run_command(with + "--prompt 'A query' --prompt 'The river' --tokens 12 --batch 1");
  INFO(two.text);
  CHECK(contains(two.text, one.text.substr(0, one.text.size() - 1)));
  const Output profile = run_command(with + "--prompt 'The river' --batch 8 --tokens 20 --profile");
  INFO(profile.text);
  CHECK(contains(profile.text, "decode of 8 sequences on cpu: 20 steps"));
  CHECK(contains(profile.text, "matrix products"));
  const Output none = run_command(program + " --prompt x");
  CHECK(none.exit == 1);
  CHECK(contains(none.text, "there is no model"));
}

}  // namespace glaive::testing
