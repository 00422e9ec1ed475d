#pragma once
// What the model must compute, on any device.
#include "examples/generate/make.hpp"
#include "examples/generate/scheduler.hpp"
#include "examples/generate/weights.hpp"
#include "tests/files.hpp"
#include "tests/generate/reference.hpp"

namespace glaive::testing {

using generate::Token;

/// Models that differ in what a checkpoint may differ in.
struct Kind {
  const char* name;
  std::int64_t heads, kv_heads;
  bool clamps, ties, affine, f32;
  float gate_logit_normalizer = 16;
  double norm_eps = 1e-6;
};
inline const Kind kinds[] = {{"as published", 2, 2, false, false, true, false},
                             {"grouped heads, clamped gates, tied embeddings", 4, 2, true, true, true, false},
                             {"weights in f32, heads normed without weights", 2, 2, false, false, false, true},
                             {"gates and norms of other constants", 2, 2, false, false, true, false, 4, 1e-2}};

inline generate::Recipe recipe(const Kind& kind, std::int64_t hidden_size = 128) {
  generate::Recipe recipe = generate::Recipe::of(hidden_size, 2, kind.heads);
  recipe.config.kv_heads = kind.kv_heads;
  if (kind.clamps) recipe.config.clamp_min = -0.05F;
  recipe.config.tie_word_embeddings = kind.ties;
  recipe.config.elementwise_affine = kind.affine;
  recipe.config.gate_logit_normalizer = kind.gate_logit_normalizer;
  recipe.config.norm_eps = kind.norm_eps;
  if (kind.f32) recipe.dtype = generate::Dtype::f32;
  return recipe;
}

/// A prompt of so many tokens, which any text has.
inline std::vector<Token> some_tokens(std::int64_t count, std::int64_t which, std::int64_t vocabulary) {
  std::vector<Token> tokens = {1};
  for (std::int64_t i = 1; i < count; ++i)
    tokens.push_back(static_cast<Token>(3 + (which * 7919 + i * i * 31 + i * 1009) % (vocabulary - 3)));
  return tokens;
}

/// |got - want| / |want|
inline double distance(std::span<const float> got, const Reference::Row& want) {
  double off = 0, all = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = static_cast<double>(got[i]) - want[i];
    off += error * error, all += want[i] * want[i];
  }
  return std::sqrt(off / all);
}

struct Served {
  generate::Device& device;
  const api::Pack& pack;
  fs::path folder;  ///< of the model
  double allowed;   ///< relative error of logits
};

/// Tokens that were generated after a prompt are the most likely ones: what float64 finds better, if anything, is
/// better by no more than the logits may err.
inline void check_greedy(const Served& served, const std::vector<Token>& prompt, const std::vector<Token>& generated) {
  std::vector<Token> all = prompt;
  all.insert(all.end(), generated.begin(), generated.end());
  const std::vector<Reference::Row> logits = Reference(served.folder).logits(all);
  for (std::size_t i = 0; i < generated.size(); ++i) {
    const Reference::Row& row = logits[prompt.size() + i - 1];
    double norm = 0;
    for (const double value : row) norm += value * value;
    const double best = *std::max_element(row.begin(), row.end());
    INFO("token " << i << " of " << generated.size() << ": " << generated[i]);
    CHECK(best - row[static_cast<std::size_t>(generated[i])] <= served.allowed * std::sqrt(norm));
  }
}

/// What each request is answered when at most `sequences` are served at a time.
inline std::vector<std::vector<Token>> answers(const Served& served, const std::vector<generate::Request>& requests,
                                               generate::Limits limits, std::int64_t chunk,
                                               std::int64_t* mixed_steps = nullptr) {
  generate::Model model(served.device, served.pack, served.folder, limits);
  std::vector<std::vector<Token>> tokens(requests.size());
  generate::Scheduler scheduler(model, chunk,
                                [&](std::size_t request, Token token) { tokens[request].push_back(token); });
  for (const generate::Request& request : requests) scheduler.submit(request);
  scheduler.run();
  if (mixed_steps != nullptr) *mixed_steps = scheduler.mixed_steps();
  return tokens;
}

/// Logits token by token and prompts in chunks, against float64 and so against each other.
inline void check_logits(const Served& served) {
  generate::Model model(served.device, served.pack, served.folder, {3, 64});
  const auto vocabulary = static_cast<std::size_t>(model.config().vocab_size);
  const std::vector<Token> text = some_tokens(40, 1, model.config().vocab_size);
  const std::vector<Reference::Row> want = Reference(served.folder).logits(text);
  const auto feed = [&](const api::Sequence& sequence, std::size_t begin, std::size_t end) {
    model.enqueue(
        {{&sequence,
          {text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end)}}});
    const std::vector<float> logits = model.logits(1);
    const std::vector<Token> sampled = served.device.collect();
    INFO("tokens " << begin << " to " << end);
    CHECK(distance(logits, want[end - 1]) <= served.allowed);
    CHECK(sampled ==
          std::vector<Token>{static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin())});
    CHECK(sequence.position().count() == static_cast<std::int64_t>(end));
  };
  {
    const api::Sequence sequence = model.acquire();
    for (std::size_t i = 0; i < text.size(); ++i) feed(sequence, i, i + 1);
  }
  for (const std::size_t prefix : {1, 5, 8, 9, 33, 40}) feed(model.acquire(), 0, prefix);
  {
    const api::Sequence sequence = model.acquire();
    for (std::size_t i = 0; i < text.size(); i += 17) feed(sequence, i, std::min(text.size(), i + 17));
  }
  // A prompt beside a decoding sequence, and one of more tokens than a step takes.
  const api::Sequence first = model.acquire(), second = model.acquire();
  feed(first, 0, 20);
  model.enqueue({{&first, {text[20]}}, {&second, {text.begin(), text.begin() + 30}}});
  const std::vector<float> logits = model.logits(2);
  served.device.collect();
  CHECK(distance(std::span(logits).first(vocabulary), want[20]) <= served.allowed);
  CHECK(distance(std::span(logits).last(vocabulary), want[29]) <= served.allowed);
}

/// Requests of all lengths, for few slots.
inline std::vector<generate::Request> mixed_requests(std::int64_t vocabulary) {
  std::vector<generate::Request> requests;
  for (std::int64_t i = 0; i < 12; ++i)
    requests.push_back({some_tokens(1 + 11 * i % 30, i, vocabulary), 3 + 7 * i % 20, false});
  return requests;
}

/// Such requests in a batch get all their tokens, each as likely as float64's likeliest; the answers.
inline std::vector<std::vector<Token>> check_requests(const Served& served,
                                                      const std::vector<generate::Request>& requests) {
  std::int64_t mixed_steps = 0;
  auto together = answers(served, requests, {4, 10}, 7, &mixed_steps);
  CHECK(mixed_steps > 5);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO("request " << i);
    CHECK(std::ssize(together[i]) == requests[i].most_tokens);
    check_greedy(served, requests[i].prompt, together[i]);
  }
  return together;
}

/// A model whose last norm has weights that are no numbers.
inline void spoil(const fs::path& folder) {
  std::vector<generate::NamedTensor> tensors;
  {
    const generate::Checkpoint checkpoint(folder);
    for (const auto& [name, shape] : generate::tensors_of(generate::read_config(folder / "config.json")))
      tensors.push_back({name, shape, checkpoint.tensor(name).numbers()});
  }
  for (generate::NamedTensor& tensor : tensors)
    if (tensor.name == "model.norm.weight") std::fill(tensor.numbers.begin(), tensor.numbers.end(), NAN);
  generate::write_safetensors(folder / "model.safetensors", tensors, generate::Dtype::f32);
}

/// A spoilt model fails, rather than to say one token for ever.
inline void check_spoilt(const Served& served) {
  CHECK_THROWS_WITH(answers(served, {{{1, 5, 9}, 12, false}}, {1, 16}, 16),
                    Catch::Matchers::Contains("logits for request 0 have no finite maximum"));
}

constexpr double bf16_allowed = 3e-2;  // activations, through two layers

/// Where everything is in bf16, two ways to compute the same may choose different tokens: each is held to float64.
inline void check_on_gpu(const Served& served) {
  check_logits(served);
  check_requests(served, mixed_requests(generate::read_config(served.folder / "config.json").vocab_size));
}

}  // namespace glaive::testing
