#include "templates/chunk/chunk.hpp"

#include "templates/cpu/forward.hpp"
#include "templates/cpu/knobs.hpp"

namespace glaive {
namespace {

using namespace cpu;

enum Knob : std::size_t { C, leaf, rows, cols, krows, unroll, prefetch, splits };

struct Shapes {
  Panels panels;
  Layout layout;
  std::int64_t q, k, total, scores;  // offsets in scratch
  std::int64_t elements;

  Shapes(const Instance& instance, const Config& config)
      : panels{vector_bits(instance.target) / 32, config[cols], instance.problem.v.count() / config[splits],
               config[splits]},
        layout(instance.problem, panels, config[C]) {
    q = layout.own;
    k = q + layout.tokens * layout.k_padded;
    total = k + layout.tokens * layout.k_padded;
    scores = total + round_up(layout.tokens / config[leaf] * layout.k_padded, 16);
    elements = scores + layout.tokens * layout.tokens;
  }
};

/// One chunk, phase by phase. q~ (rows of q P), k~ (rows of k R), block totals and scores A live in scratch.
class Chunk {
 public:
  Chunk(Builder& builder, const Instance& instance, const Config& config)
      : b(builder),
        problem(instance.problem),
        knobs(config),
        at(instance, config),
        forward(builder, instance.problem, at.panels, at.layout) {}

  void emit(mlir::ModuleOp module) {
    forward.emit(module, "gla_chunk", [&](const Block& block) {
      const auto scan = [&](const Block& head) {
        leaves(head);
        for (int size = knobs[leaf]; size < knobs[C]; size *= 2) level(size);
      };
      if (forward.group() == 1) {
        scan(block);
        forward.pack_v(block, knobs[C]);
        forward.each_panel([&](const Panel& panel) {
          outputs(block, panel);
          update(block, panel);
        });
      } else {
        // Query heads one after the other on the same state; the key's half of the scan is made anew for each.
        forward.pack_v(block, knobs[C]);
        forward.each_head(block, [&](const Block& head) {
          scan(head);
          forward.each_panel([&](const Panel& panel) { outputs(head, panel); });
        });
        forward.each_panel([&](const Panel& panel) { update(block, panel); });
      }
    });
  }

 private:
  Value row(std::int64_t base, Value token, Value channel) {
    return b.at(b.at(forward.scratch(), base), b.add(b.mul(token, at.layout.k_padded), channel));
  }
  Value score(Value token, Value source) {
    return b.at(b.at(forward.scratch(), at.scores), b.add(b.mul(token, knobs[C]), source));
  }

  /// Groups of `leaf` tokens wholly in registers: gates, the triangle of scores, q~ and k~ of the group, its total.
  void leaves(const Block& block) {
    const int n = knobs[leaf];
    const int triangle = n * (n + 1) / 2;
    b.loop(b.i64(0), b.i64(knobs[C]), n, [&](Value first) {
      const auto group = [&](Value channel, int lanes, const Values& sums) {
        Values q(n), k(n), e(n), kr(n), next = sums;
        for (int t = 0; t < n; ++t) {
          Value token = b.add(first, t);
          const auto in = [&](const Rows& rows) {
            return b.load_first(b.at(rows.base, b.add(b.mul(token, rows.row), channel)), lanes);
          };
          q[t] = b.fmul(in(block.q), forward.scale());
          k[t] = kr[t] = in(block.k);
          e[t] = forward.decay(in(block.g));
        }
        const auto dot = [&](int t, int s, Value x, Value y) {
          auto& sum = next[t * (t + 1) / 2 + s];
          sum = b.fma(x, y, sum);
        };
        Values qp(n), block_total = e;
        for (int t = 0; t < n; ++t) {
          dot(t, t, q[t], k[t]);
          qp[t] = b.fmul(q[t], e[t]);
        }
        for (int half = 1; half < n; half *= 2)
          for (int base = 0; base < n; base += 2 * half) {
            for (int t = base + half; t < base + 2 * half; ++t)
              for (int s = base; s < base + half; ++s) dot(t, s, qp[t], kr[s]);
            Value left = block_total[base], right = block_total[base + half];
            for (int i = 0; i < half; ++i) {
              qp[base + half + i] = b.fmul(qp[base + half + i], left);
              kr[base + i] = b.fmul(kr[base + i], right);
            }
            block_total[base] = b.fmul(left, right);
          }
        for (int t = 0; t < n; ++t) {
          b.store(qp[t], row(at.q, b.add(first, t), channel));
          b.store(kr[t], row(at.k, b.add(first, t), channel));
        }
        b.store(block_total[0], row(at.total, b.div(first, n), channel));
        return next;
      };
      const Values zeros(triangle, b.constant(0));
      const Values sums = b.sums(b.strips(problem.k.count(), b.lanes(), zeros, group));
      for (int t = 0; t < n; ++t)
        for (int s = 0; s <= t; ++s) b.store_scalar(sums[t * (t + 1) / 2 + s], score(b.add(first, t), b.add(first, s)));
    });
  }

  /// Scores between the halves of every block of 2*size tokens, then the halves' products move to the whole block.
  void level(int size) {
    const int high = std::min(size, knobs[rows]), wide = std::min(size, 4);
    b.loop(b.i64(0), b.i64(knobs[C]), 2 * size, [&](Value base) {
      Value middle = b.add(base, size);
      b.strips(size, high, [&](Value t0, int tokens) {
        b.strips(size, wide, [&](Value s0, int sources) {
          Values sums(tokens * sources, b.constant(0));
          sums =
              b.loop(b.i64(0), b.i64(at.layout.k_padded), b.lanes(), sums, [&](Value channel, const Values& carried) {
                Values next = carried, k(sources);
                for (int s = 0; s < sources; ++s) k[s] = b.load(row(at.k, b.add(b.add(base, s0), s), channel));
                for (int t = 0; t < tokens; ++t) {
                  Value q = b.load(row(at.q, b.add(b.add(middle, t0), t), channel));
                  for (int s = 0; s < sources; ++s) next[t * sources + s] = b.fma(q, k[s], next[t * sources + s]);
                }
                return next;
              });
          sums = b.sums(sums);
          for (int t = 0; t < tokens; ++t)
            for (int s = 0; s < sources; ++s)
              b.store_scalar(sums[t * sources + s], score(b.add(b.add(middle, t0), t), b.add(b.add(base, s0), s)));
        });
      });
      Value left = b.div(base, knobs[leaf]), right = b.div(middle, knobs[leaf]);
      b.loop(b.i64(0), b.i64(at.layout.k_padded), b.lanes(), [&](Value channel) {
        Value total_left = b.load(row(at.total, left, channel)), total_right = b.load(row(at.total, right, channel));
        b.strips(size, std::min(size, 8), [&](Value t0, int tokens) {
          for (int t = 0; t < tokens; ++t) {
            Value q = row(at.q, b.add(b.add(middle, t0), t), channel),
                  k = row(at.k, b.add(b.add(base, t0), t), channel);
            b.store(b.fmul(b.load(q), total_left), q);
            b.store(b.fmul(b.load(k), total_right), k);
          }
        });
        b.store(b.fmul(total_left, total_right), row(at.total, left, channel));
      });
    });
  }

  /// o = q~ S + A v for one panel of V, in tiles of `rows` tokens.
  void outputs(const Block& block, const Panel& panel) {
    const int width = panel.vectors, stride = width * b.lanes();
    Value state = forward.state_panel(panel.index), v = forward.packed_v(panel.index);
    b.strips(knobs[C], knobs[rows], [&](Value t0, int tokens) {
      const auto accumulate = [&](const Values& sums, const std::function<Value(int)>& factor, Value from, int first) {
        Values next = sums, row(width);
        for (int i = 0; i < width; ++i) row[i] = b.load(b.at(from, i * b.lanes()));
        for (int t = first; t < tokens; ++t) {
          Value x = b.load_splat(factor(t));
          for (int i = 0; i < width; ++i) next[t * width + i] = b.fma(x, row[i], next[t * width + i]);
        }
        return next;
      };
      Values sums(tokens * width, b.constant(0));
      sums = b.strips(problem.k.count(), knobs[unroll], sums, [&](Value k0, int count, const Values& carried) {
        Values next = carried;
        Value from = b.at(state, b.mul(k0, stride)), q = row(at.q, t0, k0);
        for (int k = 0; k < count; ++k)
          next =
              accumulate(next, [&](int t) { return b.at(q, t * at.layout.k_padded + k); }, b.at(from, k * stride), 0);
        return next;
      });
      sums = b.loop(b.i64(0), t0, 1, sums, [&](Value s, const Values& carried) {
        Value a = score(t0, s);
        return accumulate(carried, [&](int t) { return b.at(a, t * knobs[C]); }, b.at(v, b.mul(s, stride)), 0);
      });
      Value a = score(t0, t0), own = b.at(v, b.mul(t0, stride));
      for (int s = 0; s < tokens; ++s)
        sums = accumulate(sums, [&](int t) { return b.at(a, t * knobs[C] + s); }, b.at(own, s * stride), s);
      for (int t = 0; t < tokens; ++t)
        for (int i = 0; i < width; ++i) forward.store_o(block, b.add(t0, t), panel, i, sums[t * width + i]);
    });
  }

  /// S = Diag(total) S + k~^T v for one panel, in tiles of `krows` rows. While S streams by, rows of the next chunk's
  /// inputs are prefetched: the token strides are too long for the hardware to follow.
  void update(const Block& block, const Panel& panel) {
    const int width = panel.vectors, stride = width * b.lanes();
    Value state = forward.state_panel(panel.index), v = forward.packed_v(panel.index);
    b.strips(problem.k.count(), knobs[krows], [&](Value k0, int count) {
      Values sums(count * width);
      for (int k = 0; k < count; ++k) {
        Value decay = b.load_splat(b.at(row(at.total, b.i64(0), k0), k));
        for (int i = 0; i < width; ++i)
          sums[k * width + i] = b.fmul(decay, b.load(b.at(state, b.add(b.mul(b.add(k0, k), stride), i * b.lanes()))));
      }
      sums =
          b.strips(knobs[C], std::min(knobs[C], knobs[unroll]), sums, [&](Value t0, int tokens, const Values& carried) {
            Values next = carried;
            Value from = b.at(v, b.mul(t0, stride)), k_row = row(at.k, t0, k0);
            for (int t = 0; t < tokens; ++t) {
              Values rows_of_v(width);
              for (int i = 0; i < width; ++i) rows_of_v[i] = b.load(b.at(from, t * stride + i * b.lanes()));
              for (int k = 0; k < count; ++k) {
                Value x = b.load_splat(b.at(k_row, t * at.layout.k_padded + k));
                for (int i = 0; i < width; ++i) next[k * width + i] = b.fma(x, rows_of_v[i], next[k * width + i]);
              }
            }
            return next;
          });
      for (int k = 0; k < count; ++k)
        for (int i = 0; i < width; ++i)
          b.store(sums[k * width + i], b.at(state, b.add(b.mul(b.add(k0, k), stride), i * b.lanes())));
      if (knobs[prefetch] >= 2)
        for (int e = 0; e < count * stride; e += 16)
          b.prefetch(b.at(b.at(state, b.mul(k0, stride)), at.panels.panel_elements(problem) + e), true,
                     Builder::Near::first_cache);
    });
    if (knobs[prefetch]) prefetch_next(block, panel);
  }

  /// This panel's share of the next chunk's q, k, g, v and o lines. Past the end of a tensor a prefetch does nothing.
  void prefetch_next(const Block& block, const Panel& panel) {
    const std::int64_t panels = at.panels.count(), share = ceil_div(knobs[C], panels);
    b.loop(b.i64(0), b.i64(share), 1, [&](Value i) {
      Value token = b.add(b.add(b.mul(panel.index, share), i), knobs[C]);
      const auto lines = [&](const Rows& rows, std::int64_t elements, bool write) {
        const Place place = b.at(rows.base, b.mul(token, rows.row));
        for (std::int64_t e = 0; e < elements; e += 64 / size_of(place.type))
          b.prefetch(b.at(place, e).pointer, write, Builder::Near::second_cache);
      };
      lines(block.q, problem.k.count(), false);
      lines(block.k, problem.k.count(), false);
      lines(block.g, problem.k.count(), false);
      lines(block.v, at.panels.columns, false);
      lines(block.o, at.panels.columns, true);
    });
  }

  Builder& b;
  Problem problem;
  Config knobs;
  Shapes at;
  Forward forward;
};

class ChunkFamily final : public Family {
 public:
  std::string_view name() const override { return "chunk"; }
  std::string_view summary() const override {
    return "multiplicative hierarchical scan: chunks of C tokens, matrix tiles in registers";
  }
  Result<void> applicable(const Instance& instance) const override {
    return cpu_applicable(instance.problem, instance.target, Op::forward);
  }
  std::vector<Parameter> parameters(const Instance& instance) const override {
    return {
        {"C", "tokens of a chunk", {8, 16, 32, 64}},
        {"leaf", "tokens whose scores are made in registers", {1, 2, 4}},
        {"rows", "tokens of an output tile", {2, 3, 4, 6, 8}},
        {"cols", "vectors of V in a panel", {1, 2, 3, 4}},
        {"krows", "rows of K of a state tile", {2, 4, 6, 8}},
        {"unroll", "steps of the inner product loops unrolled", {1, 2, 4}},
        {"prefetch", "0: nothing, 1: the next chunk's inputs, 2: the next panel of the state as well", {0, 1, 2}},
        {"splits", "tasks that share a head's V", split_values(instance)},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    const int registers = vector_registers(instance.target);
    if (config[leaf] * (config[leaf] + 1) / 2 > registers - 4) return "the leaf's scores do not fit the registers";
    if (config[rows] * config[cols] + config[cols] + 1 > registers) return "rows x cols does not fit the registers";
    if (config[krows] * config[cols] + config[cols] + 1 > registers) return "krows x cols does not fit the registers";
    if (config[rows] * config[cols] < 6) return "rows x cols is too small to hide the latency of an FMA";
    if (config[krows] * config[cols] < 6) return "krows x cols is too small to hide the latency of an FMA";
    return split_constraint(instance, config[cols], config[splits]);
  }
  Config default_config(const Instance& instance) const override {
    const bool wide = instance.problem.v.count() > vector_bits(instance.target) / 32;
    const int tile = wide ? 4 : 8, width = wide ? 2 : 1;
    return {16, 4, tile, width, tile, 2, 2, 1};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    const auto k = static_cast<double>(instance.problem.k.count());
    const double c = config[C], group = static_cast<double>(group_of(instance.problem));
    const double k_vectors = std::ceil(k * 32 / vector_bits(instance.target));
    const double v_vectors = task_vectors(instance, config[splits]), panels = std::ceil(v_vectors / config[cols]);
    // Per token; a query head has outputs, gates and scores of its own, the state is shared.
    const double outputs = (k + c / 2) * v_vectors;
    const double gates = k_vectors * (12 + 2 * std::log2(c / config[leaf])), scores = k_vectors * c / 2;
    const double update = k * v_vectors;
    const double tokens = padded_tokens(shape, config[C]);
    return task_seconds(instance, shape, device, config[splits],
                        {.operations = tokens * (group * (outputs + gates + scores) + update),
                         .accesses = tokens * k / c * (v_vectors + 3 * panels / config[krows]),
                         .reductions = tokens * group * c / 2,
                         .waits = tokens * group * panels / config[rows]});
  }
  Source instantiate(const Instance& instance, const Config& config) const override {
    return MlirSource{{"gla_chunk"}, [instance, config](mlir::OpBuilder& ops, mlir::ModuleOp module) {
                        Builder builder(ops, vector_bits(instance.target) / 32);
                        Chunk(builder, instance, config).emit(module);
                      }};
  }
  Plan plan(const Instance& instance, const Config& config) const override {
    return cpu_plan(instance.target, to_string(Variant{this, config}, instance), "gla_chunk", config[splits],
                    Shapes(instance, config).elements);
  }
};

}  // namespace

const Family& chunk_family() {
  static const ChunkFamily family;
  return family;
}

}  // namespace glaive
