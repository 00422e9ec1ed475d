#include "templates/step/step.hpp"

#include "templates/cpu/forward.hpp"
#include "templates/cpu/knobs.hpp"

namespace glaive {
namespace {

using namespace cpu;

enum Knob : std::size_t { rows, cols, pass, splits };

constexpr std::int64_t most_tokens = 8;

struct Shapes {
  Panels panels;
  std::int64_t k_padded, v_padded, group;
  std::int64_t q, k, e, v, o, state, elements;  // offsets in scratch

  Shapes(const Instance& instance, const Config& config)
      : panels{vector_bits(instance.target) / 32, config[cols], instance.problem.v.count() / config[splits],
               config[splits]},
        k_padded(round_up(instance.problem.k.count(), panels.lanes)),
        v_padded(round_up(panels.columns, panels.lanes)),
        group(group_of(instance.problem)) {
    q = 0;
    k = q + most_tokens * group * k_padded;
    e = k + most_tokens * k_padded;
    v = e + most_tokens * k_padded;
    o = v + most_tokens * v_padded;
    state = o + most_tokens * group * v_padded;
    elements = state + instance.problem.k.count() * instance.problem.v.count();
  }
};

/// Streams the state once for T = 1, and once per `pass` tokens beyond: from where it is read to where it is written,
/// which may be the same place.
class Step {
 public:
  Step(Builder& builder, const Instance& instance, const Config& config)
      : b(builder),
        problem(instance.problem),
        knobs(config),
        at(instance, config),
        k_first(instance.problem.layout == StateLayout::kv) {}

  void emit(mlir::ModuleOp module) {
    task.emplace(b, problem, at.panels, module, "gla_step", most_tokens);
    // A state that nobody keeps is written to scratch; one that does not exist yet starts as zeros where it will be.
    const DType type = problem.state;
    Value room = b.at(task->scratch, at.state);
    const Place to = {b.select(b.is_null(task->state_out.pointer), room, task->state_out.pointer), type};
    Value fresh = b.is_null(task->state_in.pointer);
    const Place from = {b.select(fresh, to.pointer, task->state_in.pointer), type};
    b.when(fresh,
           [&] { each_line([&](Value offset, int count) { b.store_first(b.constant(0), b.at(to, offset), count); }); });
    b.when(
        b.equal(task->length, b.i64(0)),
        [&] { each_line([&](Value offset, int count) { b.copy_first(b.at(from, offset), b.at(to, offset), count); }); },
        [&] {
          load_tokens();
          int size = knobs[pass];
          b.loop(b.i64(0), b.mul(b.div(task->length, size), size), size, [&](Value t) { apply(from, to, t, size); });
          for (size /= 2; size >= 1; size /= 2) {
            Value rest = b.rem(task->length, b.i64(2 * size));
            b.when(b.less(b.i64(size - 1), rest), [&, size] { apply(from, to, b.sub(task->length, rest), size); });
          }
          store_outputs();
        });
    b.finish();
  }

 private:
  Value scratch(std::int64_t base, Value line, std::int64_t width) {
    return b.at(b.at(task->scratch, base), b.mul(line, width));
  }
  Value token_row(std::int64_t base, Value t) { return scratch(base, t, at.k_padded); }
  Value query_row(Value t, std::int64_t head) { return scratch(at.q, b.add(b.mul(t, at.group), head), at.k_padded); }
  Value output_row(Value t, std::int64_t head) { return scratch(at.o, b.add(b.mul(t, at.group), head), at.v_padded); }

  /// Visits the task's part of the state vector by vector.
  void each_line(const std::function<void(Value offset, int count)>& body) {
    const std::int64_t lines = k_first ? problem.k.count() : at.panels.columns;
    const std::int64_t width = k_first ? at.panels.columns : problem.k.count();
    const std::int64_t stride = k_first ? problem.v.count() : problem.k.count();
    b.loop(b.i64(0), b.i64(lines), 1, [&](Value line) {
      b.strips(width, b.lanes(), [&](Value i, int count) { body(b.add(b.mul(line, stride), i), count); });
    });
  }

  /// Every token's scale*q, k, exp(g) and v as fp32 in scratch.
  void load_tokens() {
    b.loop(b.i64(0), task->length, 1, [&](Value t) {
      b.strips(problem.k.count(), b.lanes(), [&](Value channel, int lanes) {
        const auto in = [&](const Rows& rows, std::int64_t head) {
          Value offset = b.add(b.mul(t, rows.row), channel);
          return b.load_first(b.at(rows.base, head == 0 ? offset : b.add(offset, b.mul(rows.head, head))), lanes);
        };
        for (std::int64_t n = 0; n < at.group; ++n)
          b.store(b.fmul(in(task->q, n), task->scale), b.at(query_row(t, n), channel));
        b.store(in(task->k, 0), b.at(token_row(at.k, t), channel));
        b.store(task->decay(in(task->g, 0)), b.at(token_row(at.e, t), channel));
      });
      b.strips(at.panels.columns, b.lanes(), [&](Value column, int lanes) {
        b.store(b.load_first(b.at(task->v.base, b.add(b.mul(t, task->v.row), column)), lanes),
                b.at(scratch(at.v, t, at.v_padded), column));
      });
    });
  }

  void store_outputs() {
    b.loop(b.i64(0), task->length, 1, [&](Value t) {
      for (std::int64_t n = 0; n < at.group; ++n)
        b.strips(at.panels.columns, b.lanes(), [&](Value column, int lanes) {
          const Rows& o = task->o;
          Value offset = b.add(b.add(b.mul(t, o.row), column), b.mul(o.head, n));
          b.store_first(b.load(b.at(output_row(t, n), column)), b.at(o.base, offset), lanes);
        });
    });
  }

  /// `count` tokens from t0 on: the state from `from` at the first pass and from `to` after it.
  void apply(const Place& from, const Place& to, Value t0, int count) {
    const Place source = {b.select(b.equal(t0, b.i64(0)), from.pointer, to.pointer), from.type};
    // The first query heads see the state as it is updated, the others read it after.
    const int together = at.group == 1 ? 1 : 4;
    for (std::int64_t n = 0; n < at.group; n += together) {
      const auto heads = static_cast<int>(std::min<std::int64_t>(together, at.group - n));
      if (k_first)
        by_rows_of_k(n == 0 ? source : to, to, t0, count, n, heads);
      else
        by_rows_of_v(n == 0 ? source : to, to, t0, count, n, heads);
    }
  }

  /// Gives `body` the lines of the state in groups that lie `apart`, so that each of `rows` equal shares is read from
  /// end to end: as many streams, far apart, for streams within one page of memory stall each other.
  void in_streams(std::int64_t lines, const std::function<void(Value first, int count, std::int64_t apart)>& body) {
    const std::int64_t apart = lines / knobs[rows];
    b.loop(b.i64(0), b.i64(apart), 1, [&](Value first) { body(first, knobs[rows], apart); });
    if (apart * knobs[rows] < lines)
      b.loop(b.i64(apart * knobs[rows]), b.i64(lines), 1, [&](Value line) { body(line, 1, apart); });
  }

  /// o is in the first cache.
  void by_rows_of_k(const Place& from, const Place& to, Value t0, int count, std::int64_t head, int heads) {
    const auto output = [&](int t, int n, Value column, int i) {
      return b.at(b.at(output_row(b.add(t0, t), head + n), column), i * b.lanes());
    };
    b.strips(at.panels.columns, b.lanes(), [&](Value column, int) {
      for (int t = 0; t < count; ++t)
        for (int n = 0; n < heads; ++n) b.store(b.constant(0), output(t, n, column, 0));
    });
    in_streams(problem.k.count(), [&](Value k0, int channels, std::int64_t apart) {
      b.strips(at.panels.columns, at.panels.width(), [&](Value column, int columns) {
        const int width = static_cast<int>(ceil_div(columns, b.lanes()));
        const auto real = [&](int i) { return std::min(columns - i * b.lanes(), b.lanes()); };
        Values v(count * width), o(count * heads * width);
        for (int t = 0; t < count; ++t)
          for (int i = 0; i < width; ++i) {
            v[t * width + i] = b.load(b.at(b.at(scratch(at.v, b.add(t0, t), at.v_padded), column), i * b.lanes()));
            for (int n = 0; n < heads; ++n) o[(t * heads + n) * width + i] = b.load(output(t, n, column, i));
          }
        for (std::int64_t c = 0; c < channels * apart; c += apart) {
          Value offset = b.add(b.mul(b.add(k0, c), problem.v.count()), column);
          Values s(width);
          for (int i = 0; i < width; ++i) s[i] = b.load_first(b.at(b.at(from, offset), i * b.lanes()), real(i));
          for (int t = 0; t < count; ++t) {
            Value token = b.add(t0, t);
            const auto scalar = [&](Value row) { return b.load_splat(b.at(b.at(row, k0), c)); };
            if (head == 0) {
              Value e = scalar(token_row(at.e, token)), k = scalar(token_row(at.k, token));
              for (int i = 0; i < width; ++i) s[i] = b.fma(e, s[i], b.fmul(k, v[t * width + i]));
            }
            for (int n = 0; n < heads; ++n) {
              Value q = scalar(query_row(token, head + n));
              for (int i = 0; i < width; ++i) {
                Value& sum = o[(t * heads + n) * width + i];
                sum = b.fma(q, s[i], sum);
              }
            }
          }
          if (head == 0)
            for (int i = 0; i < width; ++i) b.store_first(s[i], b.at(b.at(to, offset), i * b.lanes()), real(i));
        }
        for (int t = 0; t < count; ++t)
          for (int n = 0; n < heads; ++n)
            for (int i = 0; i < width; ++i) b.store(o[(t * heads + n) * width + i], output(t, n, column, i));
      });
    });
  }

  void by_rows_of_v(const Place& from, const Place& to, Value t0, int count, std::int64_t head, int heads) {
    in_streams(at.panels.columns, [&](Value v0, int lines, std::int64_t apart) {
      Values v(count * lines), o(count * heads * lines, b.constant(0));
      for (int t = 0; t < count; ++t)
        for (int j = 0; j < lines; ++j)
          v[t * lines + j] = b.load_splat(b.at(b.at(scratch(at.v, b.add(t0, t), at.v_padded), v0), j * apart));
      o = b.strips(problem.k.count(), b.lanes(), o, [&](Value channel, int channels, const Values& carried) {
        Values next = carried, s(lines);
        const auto line = [&](const Place& state, int j) {
          return b.at(state, b.add(b.mul(b.add(v0, j * apart), problem.k.count()), channel));
        };
        for (int j = 0; j < lines; ++j) s[j] = b.load_first(line(from, j), channels);
        for (int t = 0; t < count; ++t) {
          Value token = b.add(t0, t);
          const auto vector = [&](Value row) { return b.load(b.at(row, channel)); };
          if (head == 0) {
            Value e = vector(token_row(at.e, token)), k = vector(token_row(at.k, token));
            for (int j = 0; j < lines; ++j) s[j] = b.fma(e, s[j], b.fmul(k, v[t * lines + j]));
          }
          for (int n = 0; n < heads; ++n) {
            Value q = vector(query_row(token, head + n));
            for (int j = 0; j < lines; ++j) {
              Value& sum = next[(t * heads + n) * lines + j];
              sum = b.fma(q, s[j], sum);
            }
          }
        }
        if (head == 0)
          for (int j = 0; j < lines; ++j) b.store_first(s[j], line(to, j), channels);
        return next;
      });
      const Values sums = b.sums(o);
      for (int t = 0; t < count; ++t)
        for (int n = 0; n < heads; ++n)
          for (int j = 0; j < lines; ++j)
            b.store_scalar(sums[(t * heads + n) * lines + j],
                           b.at(b.at(output_row(b.add(t0, t), head + n), v0), j * apart));
    });
  }

  Builder& b;
  Problem problem;
  Config knobs;
  Shapes at;
  bool k_first;
  std::optional<Task> task;
};

class StepFamily final : public Family {
 public:
  std::string_view name() const override { return "step"; }
  std::string_view summary() const override { return "decode, T = 1 to 8: the state streamed once, in place by slot"; }
  Result<void> applicable(const Instance& instance) const override {
    return cpu_applicable(instance.problem, instance.target, Op::step);
  }
  std::vector<Parameter> parameters(const Instance& instance) const override {
    return {
        {"rows", "rows of the state together, equally far apart", {1, 2, 4, 8}},
        {"cols", "vectors of a row of [K,V] together", {1, 2, 4, 8}},
        {"pass", "tokens applied while the state streams by", {1, 2, 4}},
        {"splits", "tasks that share a head's V", split_values(instance)},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    if (config[pass] > 1 and group_of(instance.problem) > 1) return "several query heads take their tokens one by one";
    if (instance.problem.layout == StateLayout::vk)
      return config[cols] > 1 ? std::optional<std::string>("cols says nothing about [V,K]") : std::nullopt;
    return split_constraint(instance, config[cols], config[splits]);
  }
  Config default_config(const Instance& instance) const override {
    const int pass_of_it = group_of(instance.problem) > 1 ? 1 : 2;
    if (instance.problem.layout == StateLayout::vk) return {4, 1, pass_of_it, 1};
    // As many streams as the prefetchers follow, in panels that leave registers for v and o.
    const std::int64_t vectors = ceil_div(instance.problem.v.count(), vector_bits(instance.target) / 32);
    return {instance.problem.k.count() >= 4 ? 4 : 1, vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1, pass_of_it, 1};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    const auto k = static_cast<double>(instance.problem.k.count());
    const double group = static_cast<double>(group_of(instance.problem));
    const double tokens = static_cast<double>(shape.longest().count());
    const double v_vectors = task_vectors(instance, config[splits]), vectors = k * v_vectors;
    // o and v are read and written again for every few rows of the state, scalars broadcast once a panel; [V,K] keeps o
    // in registers and reads three vectors for every few rows. Caches take parts of rows badly, and panels of more
    // lines down than across.
    const bool k_first = instance.problem.layout == StateLayout::kv;
    const double tall = k_first ? 1.5 * std::max(0.0, static_cast<double>(config[rows]) / config[cols] - 1)
                                : (config[rows] > 4 ? 1 : 0);
    const double accesses =
        vectors * (3.0 / config[rows] + (k_first ? 0.25 / config[cols] : 0) + tall + (config[splits] > 1 ? 0.3 : 0));
    // Read and written once a pass. In memory, other than in a cache, narrow panels cost, parts of rows, and any other
    // number of streams than four.
    const double passes = std::max(1.0, std::ceil(tokens / config[pass]));
    const double element = static_cast<double>(size_of(instance.problem.state)),
                 state = k * static_cast<double>(instance.problem.v.count()) * element;
    const double states = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count()) * state;
    const bool far = states > static_cast<double>(device.l3_bytes);
    const double broken =
        far ? 7 * config[splits] * (1 + 0.3 / config[cols] + 0.1 * std::abs(std::log2(config[rows]) - 2)) : 1;
    return task_seconds(instance, shape, device, config[splits],
                        {.operations = tokens * vectors * (2 + group),
                         .accesses = tokens * group * accesses,
                         .reductions = k_first ? 0 : tokens * group * v_vectors * vector_bits(instance.target) / 32,
                         .bytes = (far ? 1 + 0.2 * (passes - 1) : passes) * 2 * state / config[splits] * broken});
  }
  Source instantiate(const Instance& instance, const Config& config) const override {
    return MlirSource{{"gla_step"}, [instance, config](mlir::OpBuilder& ops, mlir::ModuleOp module) {
                        Builder builder(ops, vector_bits(instance.target) / 32);
                        Step(builder, instance, config).emit(module);
                      }};
  }
  Plan plan(const Instance& instance, const Config& config) const override {
    return cpu_plan(instance.target, to_string(Variant{this, config}, instance), "gla_step", config[splits],
                    Shapes(instance, config).elements);
  }
};

}  // namespace

const Family& step_family() {
  static const StepFamily family;
  return family;
}

}  // namespace glaive
