#pragma once
// A model for the examples: layers of GLA and nothing else. What a token brings to a layer is drawn at random from the
// token and the layer, so that equal tokens bring equal tensors, and a sequence can be computed again alone and
// compared. On any device, in f32 or bf16.
#include <cmath>
#include <cstdio>
#include <cstring>
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

/// o of some tokens, [tokens, H, V].
using Output = std::vector<float>;

/// Numbers in memory of a device, f32 or bf16 there, f32 here.
class Tensor {
 public:
  Tensor(const Device& device, std::int32_t dtype, std::int64_t count)
      : bytes_each_(dtype == GLAIVE_BF16 ? 2 : 4), memory_(device, static_cast<std::size_t>(count) * bytes_each_) {
    if (dtype == GLAIVE_F16)
      throw Error(GLAIVE_UNSUPPORTED, "the examples fill their tensors with f32 and bf16 only, not with f16");
  }
  void* at(std::int64_t index) const {
    return static_cast<std::byte*>(memory_.data()) + static_cast<std::size_t>(index) * bytes_each_;
  }
  void write(const std::vector<float>& values) {
    std::vector<std::uint16_t> narrow;
    for (std::size_t i = 0; bytes_each_ == 2 && i < values.size(); ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], sizeof bits);
      narrow.push_back(static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));  // to the nearest
    }
    const void* const from = narrow.empty() ? static_cast<const void*>(values.data()) : narrow.data();
    memory_.write(from, values.size() * bytes_each_);
  }
  /// The first `count`. On a GPU after what its default stream has to do.
  std::vector<float> read(std::int64_t count) const {
    std::vector<float> values(static_cast<std::size_t>(count));
    if (bytes_each_ == 4) {
      memory_.read(values.data(), values.size() * 4);
      return values;
    }
    std::vector<std::uint16_t> narrow(values.size());
    memory_.read(narrow.data(), narrow.size() * 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint32_t bits = std::uint32_t{narrow[i]} << 16;
      std::memcpy(&values[i], &bits, sizeof bits);
    }
    return values;
  }

 private:
  std::size_t bytes_each_;
  Memory memory_;
};

/// What one layer is called with, for at most so many tokens.
struct Tensors {
  Problem problem;
  std::int64_t q_row, k_row, v_row, o_row;  // numbers of a token; g has as many as k
  Tensor q, k, v, g, o;

  Tensors(const Device& device, const Problem& of, std::int64_t most)
      : problem(of),
        q_row(of.heads * of.key_dim),
        k_row(of.kv_heads * of.key_dim),
        v_row(of.kv_heads * of.value_dim),
        o_row(of.heads * of.value_dim),
        q(device, of.io_dtype, most * q_row),
        k(device, of.io_dtype, most * k_row),
        v(device, of.io_dtype, most * v_row),
        g(device, of.gate_dtype, most * k_row),
        o(device, of.io_dtype, most * o_row) {}

  void fill(std::int64_t layer, const std::vector<int>& tokens) {
    const auto draw = [&](std::int64_t row, unsigned what) {
      std::vector<float> values;
      for (const int token : tokens) {
        std::minstd_rand random(static_cast<unsigned>(token) * 31 + static_cast<unsigned>(layer) * 4 + what + 1);
        for (std::int64_t c = 0; c < row; ++c) values.push_back(std::uniform_real_distribution<float>(-1, 1)(random));
      }
      return values;
    };
    q.write(draw(q_row, 0)), k.write(draw(k_row, 1)), v.write(draw(v_row, 2));
    std::vector<float> gates = draw(k_row, 3);
    for (float& gate : gates)  // a logarithm of a decay, never above 0; or any number
      if (problem.gate_form == GLAIVE_GATE_LOG) gate = -0.05f * std::fabs(gate);
    g.write(gates);
  }
  Args args() const {
    Args args;
    args.q = q.at(0), args.k = k.at(0), args.v = v.at(0), args.g = g.at(0), args.o = o.at(0);
    return args;
  }
};

/// What one sequence is given in a batch.
struct Work {
  const Sequence* sequence;
  std::vector<int> tokens;
};
inline std::vector<Entry> entries_of(const std::vector<Work>& work) {
  std::vector<Entry> entries;
  for (const Work& w : work) entries.emplace_back(*w.sequence, Tokens(w.tokens.size()));
  return entries;
}
inline std::vector<int> tokens_of(const std::vector<Work>& work) {
  std::vector<int> tokens;
  for (const Work& w : work) tokens.insert(tokens.end(), w.tokens.begin(), w.tokens.end());
  return tokens;
}
/// The last layer's o of each.
inline std::vector<Output> outputs_of(const std::vector<Work>& work, const Tensors& last) {
  const Output all = last.o.read(static_cast<std::int64_t>(tokens_of(work).size()) * last.o_row);
  std::vector<Output> outputs;
  auto at = all.begin();
  for (const Work& w : work) {
    const auto end = at + static_cast<std::ptrdiff_t>(w.tokens.size()) * last.o_row;
    outputs.emplace_back(at, end);
    at = end;
  }
  return outputs;
}

class Model {
 public:
  Model(const Device& device, const Pack& pack, const Problem& problem, std::int64_t layers, std::int64_t slots)
      : device_(device),
        layers_(layers),
        plan_(device, pack, problem, Shape(Sequences(8), Tokens(16))),
        pool_(device, PoolConfig(problem, layers, slots)),
        batch_(pool_, Sequences(64), Tokens(most_tokens)),
        tensors_(device, problem, most_tokens) {}
  const Pool& pool() const { return pool_; }

  /// One step: begin, launch every layer, commit. The outputs are in the order of the work.
  std::vector<Output> step(const std::vector<Work>& work) {
    batch_.begin(entries_of(work));
    if (const std::size_t bytes = plan_.workspace_bytes(batch_.shape()); bytes > workspace_.size())
      workspace_ = Workspace(device_, bytes);
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      tensors_.fill(layer, tokens_of(work));  // on a GPU after the layer before, as both use the default stream
      batch_.launch(plan_, layer, tensors_.args(), workspace_);
    }
    batch_.commit();
    return outputs_of(work, tensors_);
  }

  /// The same tokens by a new sequence on its own.
  Output alone(const std::vector<int>& tokens) {
    const Sequence sequence = pool_.acquire();
    return step({{&sequence, tokens}})[0];
  }

 private:
  static constexpr std::int64_t most_tokens = 4096;
  const Device& device_;
  std::int64_t layers_;
  Plan plan_;
  Pool pool_;
  Batch batch_;
  Tensors tensors_;
  Workspace workspace_;
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

/// What two ways to compute the same may differ by. With bf16 in q, k, v or o, twice what a kernel may err: GPUs
/// multiply in bf16 and o is rounded to it. With bf16 states, which are rounded wherever a batch ends, more. Else two
/// orders of summation in f32; GPUs multiply pairs of bf16 there, which err up to 7e-6 (docs/numerics.md).
inline double tolerance(const Problem& problem) {
  if (problem.state_dtype != GLAIVE_F32) return 2e-2;
  return problem.io_dtype != GLAIVE_F32 ? 1e-2 : 2e-5;
}

/// The end of an example: says what was compared, and gives the exit status.
inline int verdict(const Problem& problem, const char* what, double worst) {
  const bool equal = worst <= tolerance(problem);
  std::printf("%s: relative difference %.1e, %s\n", what, worst, equal ? "equal" : "NOT EQUAL");
  return equal ? 0 : 1;
}

/// main() of an example: `body(device, pack, problem)`.
template <class Body>
int run(int argc, char** argv, Body&& body) try {
  if (argc < 2 || argc > 4)
    return std::fprintf(stderr, "usage: %s <pack> ['<problem>' [<device>]], default: 'forward H4 K64 V64 f32' cpu\n",
                        argv[0]),
           2;
  const Device device(argc > 3 ? argv[3] : "cpu");
  const Pack pack(argv[1]);
  const Problem problem(argc > 2 ? argv[2] : "forward H4 K64 V64 f32");
  return body(device, pack, problem);
} catch (const Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}

}  // namespace toy
