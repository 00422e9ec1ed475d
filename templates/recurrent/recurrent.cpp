#include "templates/recurrent/recurrent.hpp"

#include "templates/cpu/forward.hpp"
#include "templates/cpu/knobs.hpp"

namespace glaive {
namespace {

using namespace cpu;

enum Knob : std::size_t { tokens, pass, cols, unroll, splits };

struct Shapes {
  Panels panels;
  Layout layout;
  std::int64_t q, k, e, elements;  // offsets in scratch

  Shapes(const Instance& instance, const Config& config)
      : panels{vector_bits(instance.target) / 32, config[cols], instance.problem.v.count() / config[splits],
               config[splits]},
        layout(instance.problem, panels, config[tokens]) {
    const auto rows = layout.tokens * layout.k_padded;
    q = layout.own;
    k = q + layout.group * rows;
    e = k + rows;
    elements = e + rows;
  }
};

class Recurrent {
 public:
  Recurrent(Builder& builder, const Instance& instance, const Config& config)
      : b(builder),
        problem(instance.problem),
        knobs(config),
        at(instance, config),
        registers(vector_registers(instance.target)),
        forward(builder, instance.problem, at.panels, at.layout) {}

  void emit(mlir::ModuleOp module) {
    forward.emit(module, "gla_recurrent", [&](const Block& block) {
      gates(block);
      forward.pack_v(block, knobs[tokens]);
      forward.each_panel([&](const Panel& panel) { serial(block, panel); });
    });
  }

 private:
  Value row(std::int64_t base, Value token, Value channel) {
    return b.at(b.at(forward.scratch(), base), b.add(b.mul(token, at.layout.k_padded), channel));
  }

  /// scale*q of every query head, k and exp(g) of the block, once for all panels.
  void gates(const Block& block) {
    b.loop(b.i64(0), b.i64(knobs[tokens]), 1, [&](Value t) {
      forward.each_k([&](Value channel, int lanes) {
        const auto in = [&](const Rows& rows) {
          return b.load_first(b.at(rows.base, b.add(b.mul(t, rows.row), channel)), lanes);
        };
        for (std::int64_t n = 0; n < forward.group(); ++n)
          b.store(b.fmul(in(forward.of_head(block, b.i64(n)).q), forward.scale()), row(query(n), t, channel));
        b.store(in(block.k), row(at.k, t, channel));
        b.store(forward.decay(in(block.g)), row(at.e, t, channel));
      });
    });
  }
  std::int64_t query(std::int64_t head) const { return at.q + head * at.layout.tokens * at.layout.k_padded; }

  void serial(const Block& block, const Panel& panel) {
    if (forward.group() == 1)
      return b.strips(knobs[tokens], knobs[pass],
                      [&](Value t0, int count) { apply(block, panel, t0, count, 0, 1, true); });
    // The first query heads of a token see the state as they update it, the others read it after.
    const int together = std::max(1, (registers - 3 * panel.vectors - 3) / panel.vectors);
    b.loop(b.i64(0), b.i64(knobs[tokens]), 1, [&](Value t) {
      for (std::int64_t n = 0; n < forward.group(); n += together) {
        const auto heads = static_cast<int>(std::min<std::int64_t>(together, forward.group() - n));
        apply(block, panel, t, 1, n, heads, n == 0);
      }
    });
  }

  /// `count` tokens from t0 on, one row of the state after the other: the state is updated, or only read, and o made
  /// for `heads` query heads. Either count or heads is 1.
  void apply(const Block& block, const Panel& panel, Value t0, int count, std::int64_t first_head, int heads,
             bool update) {
    const int width = panel.vectors, stride = width * b.lanes();
    Value state = forward.state_panel(panel.index), packed = forward.packed_v(panel.index);
    Values v(count * width);
    if (update)
      for (int t = 0; t < count; ++t)
        for (int i = 0; i < width; ++i)
          v[t * width + i] = b.load(b.at(packed, b.add(b.mul(b.add(t0, t), stride), i * b.lanes())));
    Values o(count * heads * width, b.constant(0));
    o = b.strips(problem.k.count(), knobs[unroll], o, [&](Value k0, int channels, const Values& carried) {
      Values next = carried;
      Value base = b.at(state, b.mul(k0, stride));
      Value k = row(at.k, t0, k0), e = row(at.e, t0, k0);
      for (int c = 0; c < channels; ++c) {
        Values s(width);
        for (int i = 0; i < width; ++i) s[i] = b.load(b.at(base, c * stride + i * b.lanes()));
        for (int t = 0; t < count; ++t) {
          const auto scalar = [&](Value rows) { return b.load_splat(b.at(rows, t * at.layout.k_padded + c)); };
          if (update) {
            Value kt = scalar(k), et = scalar(e);
            for (int i = 0; i < width; ++i) s[i] = b.fma(et, s[i], b.fmul(kt, v[t * width + i]));
          }
          for (int n = 0; n < heads; ++n) {
            Value qt = scalar(row(query(first_head + n), t0, k0));
            for (int i = 0; i < width; ++i) {
              Value& sum = next[(t * heads + n) * width + i];
              sum = b.fma(qt, s[i], sum);
            }
          }
        }
        if (update)
          for (int i = 0; i < width; ++i) b.store(s[i], b.at(base, c * stride + i * b.lanes()));
      }
      return next;
    });
    for (int t = 0; t < count; ++t)
      for (int n = 0; n < heads; ++n) {
        const Block mine = first_head + n == 0 ? block : forward.of_head(block, b.i64(first_head + n));
        for (int i = 0; i < width; ++i) forward.store_o(mine, b.add(t0, t), panel, i, o[(t * heads + n) * width + i]);
      }
  }

  Builder& b;
  Problem problem;
  Config knobs;
  Shapes at;
  int registers;
  Forward forward;
};

class RecurrentFamily final : public Family {
 public:
  std::string_view name() const override { return "recurrent"; }
  std::string_view summary() const override { return "token-serial, panels of V with their outputs in registers"; }
  Result<void> applicable(const Instance& instance) const override {
    return cpu_applicable(instance.problem, instance.target, Op::forward);
  }
  std::vector<Parameter> parameters(const Instance& instance) const override {
    return {
        {"tokens", "tokens over which a panel of the state stays in the first cache", {4, 16, 64}},
        {"pass", "tokens applied to a row of the state while it is in registers", {1, 2, 4}},
        {"cols", "vectors of V in a panel", {1, 2, 3, 4, 8}},
        {"unroll", "rows of K unrolled", {1, 2, 4}},
        {"splits", "tasks that share a head's V", split_values(instance)},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    if ((2 * config[pass] + 1) * config[cols] + 3 > vector_registers(instance.target) + config[cols])
      return "pass x cols does not fit the registers";
    if (config[pass] > 1 and group_of(instance.problem) > 1) return "several query heads take their tokens one by one";
    return split_constraint(instance, config[cols], config[splits]);
  }
  Config default_config(const Instance& instance) const override {
    const int wide = instance.problem.v.count() > vector_bits(instance.target) / 32 ? 2 : 1;
    return {16, group_of(instance.problem) > 1 ? 1 : 2, wide, 1, 1};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    const auto k = static_cast<double>(instance.problem.k.count());
    const double group = static_cast<double>(group_of(instance.problem));
    const double k_vectors = std::ceil(k * 32 / vector_bits(instance.target));
    const double v_vectors = task_vectors(instance, config[splits]), panels = std::ceil(v_vectors / config[cols]);
    const double tokens = padded_tokens(shape, config[Knob::tokens]);
    return task_seconds(instance, shape, device, config[splits],
                        {.operations = tokens * (k * v_vectors * (2 + group) + k_vectors * (6 + group)),
                         .waits = tokens * (group * panels / config[pass] + 0.5)});
  }
  Source instantiate(const Instance& instance, const Config& config) const override {
    return MlirSource{{"gla_recurrent"}, [instance, config](mlir::OpBuilder& ops, mlir::ModuleOp module) {
                        Builder builder(ops, vector_bits(instance.target) / 32);
                        Recurrent(builder, instance, config).emit(module);
                      }};
  }
  Plan plan(const Instance& instance, const Config& config) const override {
    return cpu_plan(instance.target, to_string(Variant{this, config}, instance), "gla_recurrent", config[splits],
                    Shapes(instance, config).elements);
  }
};

}  // namespace

const Family& recurrent_family() {
  static const RecurrentFamily family;
  return family;
}

}  // namespace glaive
