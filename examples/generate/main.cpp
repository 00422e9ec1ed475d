// Text from a GLA language model, through glaive. docs/generate.md says how to make a model, and what can be loaded.
//   generate make DIR
//   generate --model DIR --prompt "The river" --tokens 40
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>

#include "examples/generate/failure.hpp"
#include "examples/generate/make.hpp"
#include "examples/generate/profile.hpp"
#include "examples/generate/scheduler.hpp"

namespace generate {
namespace {

struct Options {
  std::string model, pack, device = "cpu", prompts_file;
  std::vector<std::string> prompts;
  std::int64_t tokens = 32, batch = 0, chunk = 256;
  int threads = 0;
  bool profile = false;
};

/// Where `glaive tune` puts winners.
std::string default_pack() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string() : value;
  };
  if (const std::string cache = variable("GLAIVE_CACHE"); !cache.empty()) return cache + "/winners.pack";
  const std::string xdg = variable("XDG_CACHE_HOME");
  return (xdg.empty() ? variable("HOME") + "/.cache" : xdg) + "/glaive/winners.pack";
}

std::vector<std::string> prompts_of(const Options& options) {
  std::vector<std::string> prompts = options.prompts;
  if (!options.prompts_file.empty()) {
    std::ifstream stream(options.prompts_file);
    if (!stream) fail(options.prompts_file, " cannot be read: ", std::strerror(errno));
    for (std::string line; std::getline(stream, line);)
      if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty()) fail("there is no prompt: give one with --prompt TEXT, or one a line with --prompts FILE");
  return prompts;
}

int run(Options options) {
  const std::vector<std::string> prompts = prompts_of(options);
  if (options.batch == 0) options.batch = std::ssize(prompts);
  const Tokenizer tokenizer(std::filesystem::path(options.model) / "tokenizer.json");
  const auto device = Device::open(options.device, options.threads);
  const api::Pack pack(options.pack.empty() ? default_pack() : options.pack);
  Model model(*device, pack, options.model, {options.batch, std::max(options.batch, 2 * options.chunk)});

  std::vector<std::vector<Token>> encoded;
  for (const std::string& prompt : prompts) encoded.push_back(tokenizer.encode(prompt));
  if (options.profile) {
    std::printf("%s", profile_decode(model, encoded, options.chunk, options.tokens).text.c_str());
    return 0;
  }
  // One text is printed as it comes, several when each is done.
  const bool streams = prompts.size() == 1;
  std::vector<std::string> texts(prompts);
  if (streams) std::printf("%s", prompts[0].c_str());
  Scheduler scheduler(model, options.chunk, [&](std::size_t request, Token token) {
    const std::string piece = tokenizer.piece(token);
    texts[request] += piece;
    if (streams) std::printf("%s", piece.c_str()), std::fflush(stdout);
  });
  for (const std::vector<Token>& prompt : encoded) scheduler.submit({prompt, options.tokens});
  scheduler.run();
  if (!streams)
    for (std::size_t i = 0; i < texts.size(); ++i) std::printf("%s%s\n", i == 0 ? "" : "\n", texts[i].c_str());
  std::printf("\n");
  return 0;
}

}  // namespace
}  // namespace generate

int main(int argc, char** argv) try {
  using namespace generate;
  CLI::App app("Generates text from a GLA language model of flash-linear-attention's format.");
  Options options;
  app.add_option("--model", options.model, "folder with config.json, tokenizer.json and model.safetensors");
  app.add_option("--prompt", options.prompts, "a text to go on from; may be given several times");
  app.add_option("--prompts", options.prompts_file, "a file with a prompt on each line");
  app.add_option("--tokens", options.tokens, "tokens to generate for each prompt")->check(CLI::Range(1, 1 << 20));
  app.add_option("--batch", options.batch, "sequences served at a time (as many as there are prompts)")
      ->check(CLI::Range(1, 1 << 16));
  app.add_option("--chunk", options.chunk, "tokens of a prompt read in one step")->check(CLI::Range(1, 1 << 16));
  app.add_option("--device", options.device, "cpu, cuda:0 ..");
  app.add_option("--threads", options.threads, "of a CPU; 0: all");
  app.add_option("--pack", options.pack, "kernels; those that `glaive tune` found, if not given");
  app.add_flag("--profile", options.profile, "decode --batch sequences and say where the time went");

  Recipe recipe;
  std::string folder;
  std::int64_t hidden = 256, layers = 4, heads = 4;
  std::uint64_t seed = 8;
  CLI::App* const make = app.add_subcommand("make", "makes a small model with seeded weights");
  make->add_option("folder", folder, "where to")->required();
  make->add_option("--hidden", hidden, "width of the model")->check(CLI::Range(8, 8192));
  make->add_option("--layers", layers)->check(CLI::Range(1, 256));
  make->add_option("--heads", heads)->check(CLI::Range(1, 256));
  make->add_option("--seed", seed);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "generate: %s; `generate --help` lists what there is\n", error.what());
    return 2;
  }

  if (make->parsed()) {
    recipe = Recipe::of(hidden, layers, heads);
    recipe.seed = seed;
    make_model(folder, recipe);
    std::printf("%s/: config.json, tokenizer.json, model.safetensors\n", folder.c_str());
    return 0;
  }
  if (options.model.empty())
    fail("there is no model: give its folder with --model DIR, or make one: generate make DIR");
  return run(options);
} catch (const std::bad_alloc&) {
  std::fprintf(stderr, "generate: this machine has too little memory for the model\n");
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "generate: %s\n", error.what());
  return 1;
}
