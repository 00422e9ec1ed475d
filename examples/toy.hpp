#pragma once
// A model for the examples: layers of GLA and nothing else. What a token brings to a layer is drawn at random from the
// token and the layer, so that equal tokens bring equal tensors, and a sequence can be computed again alone and
// compared.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "runtime/glaive.hpp"

namespace toy {

using namespace glaive::api;

/// Token `index` of a text; any function would do.
inline int token_of(int text, std::int64_t index) { return text * 1000003 + static_cast<int>(index) * 7919 + 17; }
inline std::vector<int> tokens_of(int text, std::int64_t begin, std::int64_t end) {
  std::vector<int> tokens;
  for (std::int64_t i = begin; i < end; ++i) tokens.push_back(token_of(text, i));
  return tokens;
}

/// What one sequence is given in a batch.
struct Work {
  const Sequence* sequence;
  std::vector<int> tokens;
};

/// The last layer's o, [tokens, H, V].
using Output = std::vector<float>;

class Model {
 public:
  Model(const Device& device, const Pack& pack, const Problem& problem, std::int64_t layers, std::int64_t slots)
      : problem_(problem),
        layers_(layers),
        plan_(device, pack, problem, Shape(Sequences(8), Tokens(16))),
        pool_(device, PoolConfig(problem, layers, slots)),
        batch_(pool_, Sequences(64), Tokens(4096)) {
    if (problem.io_dtype != GLAIVE_F32 || problem.gate_dtype != GLAIVE_F32)
      throw Error(GLAIVE_UNSUPPORTED, "the examples fill their tensors with f32 only");
  }
  const Pool& pool() const { return pool_; }

  /// One step: begin, launch every layer, commit. The outputs are in the order of the work.
  std::vector<Output> step(const std::vector<Work>& work) {
    std::vector<Entry> entries;
    std::vector<int> tokens;
    for (const Work& w : work) {
      entries.emplace_back(*w.sequence, Tokens(w.tokens.size()));
      tokens.insert(tokens.end(), w.tokens.begin(), w.tokens.end());
    }
    batch_.begin(entries);
    if (const std::size_t bytes = plan_.workspace_bytes(batch_.shape()); bytes > workspace_.size())
      workspace_ = Workspace(bytes);
    for (std::int64_t layer = 0; layer < layers_; ++layer) launch(layer, tokens);
    batch_.commit();

    std::vector<Output> outputs;
    auto at = o_.begin();
    for (const Work& w : work) {
      const auto size = static_cast<std::ptrdiff_t>(w.tokens.size()) * problem_.heads * problem_.value_dim;
      outputs.emplace_back(at, at + size);
      at += size;
    }
    return outputs;
  }

  /// The same tokens by a new sequence on its own.
  Output alone(const std::vector<int>& tokens) {
    const Sequence sequence = pool_.acquire();
    return step({{&sequence, tokens}})[0];
  }

 private:
  void launch(std::int64_t layer, const std::vector<int>& tokens) {
    const auto fill = [&](std::vector<float>& values, std::int64_t channels, unsigned what) {
      values.clear();
      for (const int token : tokens) {
        std::minstd_rand random(static_cast<unsigned>(token) * 31 + static_cast<unsigned>(layer) * 4 + what + 1);
        for (std::int64_t c = 0; c < channels; ++c)
          values.push_back(std::uniform_real_distribution<float>(-1, 1)(random));
      }
    };
    fill(q_, problem_.heads * problem_.key_dim, 0);
    fill(k_, problem_.kv_heads * problem_.key_dim, 1);
    fill(v_, problem_.kv_heads * problem_.value_dim, 2);
    fill(g_, problem_.kv_heads * problem_.key_dim, 3);
    for (float& gate : g_)  // a logarithm of a decay, never above 0; or any number
      if (problem_.gate_form == GLAIVE_GATE_LOG) gate = -0.05f * std::fabs(gate);
    o_.resize(tokens.size() * static_cast<std::size_t>(problem_.heads * problem_.value_dim));
    Args args;
    args.q = q_.data(), args.k = k_.data(), args.v = v_.data(), args.g = g_.data(), args.o = o_.data();
    batch_.launch(plan_, layer, args, workspace_);
  }

  Problem problem_;
  std::int64_t layers_;
  Plan plan_;
  Pool pool_;
  Batch batch_;
  Workspace workspace_;
  std::vector<float> q_, k_, v_, g_, o_;
};

/// |a - b| / |b|.
inline double difference(const Output& a, const Output& b) {
  if (a.size() != b.size()) return 1;
  double off = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    off += (x - y) * (x - y);
    all += y * y;
  }
  return std::sqrt(off / (all > 0 ? all : 1));
}
inline constexpr double tolerance = 2e-5;  // two orders of summation in f32

/// The end of an example: says what was compared, and gives the exit status.
inline int verdict(const char* what, double worst) {
  std::printf("%s: relative difference %.1e, %s\n", what, worst, worst <= tolerance ? "equal" : "NOT EQUAL");
  return worst <= tolerance ? 0 : 1;
}

/// main() of an example: `body(device, pack, problem)`.
template <class Body>
int run(int argc, char** argv, Body&& body) try {
  if (argc < 2 || argc > 3)
    return std::fprintf(stderr, "usage: %s <pack> ['<problem>', default: forward H4 K64 V64 f32]\n", argv[0]), 2;
  const Device device("cpu");
  const Pack pack(argv[1]);
  const Problem problem(argc == 3 ? argv[2] : "forward H4 K64 V64 f32");
  return body(device, pack, problem);
} catch (const Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}

}  // namespace toy
