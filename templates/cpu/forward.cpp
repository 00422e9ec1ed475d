#include "templates/cpu/forward.hpp"

#include <algorithm>
#include <limits>

#include "templates/family.hpp"

namespace glaive::cpu {

Task::Task(Builder& builder, const Problem& problem, const Panels& panels, mlir::ModuleOp module, std::string_view name,
           std::int64_t most_tokens)
    : b_(builder), problem_(problem) {
  const auto entry = b_.begin_entry(module, name);
  scratch = entry.scratch;
  const auto& args = entry_args();
  const auto index = [&](Arg arg) { return std::find(args.begin(), args.end(), arg) - args.begin(); };
  const auto word = [&](Arg arg) { return b_.word(entry.words, index(arg)); };
  const auto pointer = [&](Arg arg) { return b_.pointer_word(entry.words, index(arg)); };
  const auto scalar = [&](Arg arg) { return b_.load_splat(b_.at(entry.words, 2 * index(arg))); };  // the low half

  scale = scalar(Arg::scale);
  if (problem.gate_form == GateForm::logit) {
    inverse_tau_ = b_.create<mlir::arith::DivFOp>(b_.constant(1), scalar(Arg::gate_tau));
    clamp_ = scalar(Arg::gate_clamp);
  }

  Value kv_heads = word(Arg::kv_heads), status = pointer(Arg::device_status);
  Value first_column = b_.mul(b_.rem(entry.task, b_.i64(panels.splits)), panels.columns);
  Value sequence_head = b_.div(entry.task, panels.splits);
  Value head = b_.rem(sequence_head, kv_heads);
  Value sequence = b_.div(sequence_head, kv_heads);
  Value zero = b_.i64(0);
  const auto raise_if = [&](Value condition, DeviceFault fault) {
    b_.when(condition,
            [&] { b_.when(b_.is_null(status), [] {}, [&] { b_.raise(status, static_cast<std::uint32_t>(fault)); }); });
  };

  Value cu = pointer(Arg::cu_seqlens), longest = word(Arg::longest), total = word(Arg::tokens);
  const auto bounds = b_.choose(
      b_.is_null(cu), [&]() -> Values { return {b_.mul(sequence, longest), longest}; },
      [&]() -> Values {
        Value from = b_.load_index(b_.at(cu, sequence)), to = b_.load_index(b_.at(cu, b_.add(sequence, 1)));
        Value first = b_.min(b_.max_index(from, zero), total), last = b_.min(b_.max_index(to, first), total);
        if (most_tokens > 0) last = b_.min(last, b_.add(first, most_tokens));
        raise_if(b_.either(b_.differ(from, first), b_.differ(to, last)), DeviceFault::lengths);
        return {first, b_.sub(last, first)};
      });
  Value start = bounds[0];
  length = bounds[1];

  const auto state = [&](Arg base, Arg slot_table, Arg slot_stride, Arg head_stride) -> Place {
    Value pool = pointer(base), table = pointer(slot_table), slots = word(Arg::slots);
    Value slot = b_.choose(
        b_.is_null(table), [&]() -> Values { return {sequence}; },
        [&]() -> Values {
          Value given = b_.load_index(b_.at(table, sequence));
          Value outside = b_.either(b_.less(given, b_.i64(-1)), b_.less(b_.sub(slots, b_.i64(1)), given));
          raise_if(outside, DeviceFault::slot);
          return {b_.select(outside, b_.i64(-1), given)};
        })[0];
    Value offset = b_.add(b_.mul(slot, word(slot_stride)), b_.mul(head, word(head_stride)));
    offset = b_.add(offset, problem.layout == StateLayout::kv ? first_column : b_.mul(first_column, problem.k.count()));
    Value absent = b_.either(b_.is_null(pool), b_.less(slot, zero));
    return {b_.select(absent, b_.null(), b_.at(Place{pool, problem.state}, offset).pointer), problem.state};
  };
  state_in = state(Arg::state_in, Arg::read_slots, Arg::state_in_slot, Arg::state_in_head);
  state_out = state(Arg::state_out, Arg::write_slots, Arg::state_out_slot, Arg::state_out_head);

  const auto rows = [&](Arg base, Arg token, Arg head_stride, DType type, Value first_head) -> Rows {
    Value row = word(token), stride = word(head_stride);
    return {b_.at(Place{pointer(base), type}, b_.add(b_.mul(start, row), b_.mul(first_head, stride))), row, stride};
  };
  Value first_query = b_.mul(head, group_of(problem));
  q = rows(Arg::q, Arg::q_token, Arg::q_head, problem.io, first_query);
  k = rows(Arg::k, Arg::k_token, Arg::k_head, problem.io, head);
  v = rows(Arg::v, Arg::v_token, Arg::v_head, problem.io, head);
  g = rows(Arg::g, Arg::g_token, Arg::g_head, problem.gate, head);
  o = rows(Arg::o, Arg::o_token, Arg::o_head, problem.io, first_query);
  v.base = b_.at(v.base, first_column);
  o.base = b_.at(o.base, first_column);
}

Value Task::decay(Value gate) const {
  if (problem_.gate_form == GateForm::log) return b_.exp(gate);
  // logsigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
  Value below = b_.min_float(gate, b_.constant(0));
  Value minus_size = b_.min_float(gate, b_.negate(gate));
  Value log_sigmoid = b_.fsub(below, b_.log1p(b_.exp(minus_size)));
  return b_.exp(b_.max(b_.fmul(log_sigmoid, inverse_tau_), clamp_));
}

void Forward::emit(mlir::ModuleOp module, std::string_view name, const std::function<void(const Block&)>& per_block) {
  task_.emplace(b_, problem_, panels_, module, name);
  const Task& task = *task_;
  const Layout& l = layout_;
  move_state(task.state_in, true);

  std::int64_t next = l.tail;
  const auto tail = [&](DType type, std::int64_t row, std::int64_t heads) -> Rows {
    Value base = b_.at(task.scratch, next);
    next += l.tokens * row * heads;
    return {{base, type}, b_.i64(row), b_.i64(l.tokens * row)};
  };
  const Rows tail_q = tail(problem_.io, l.k_padded, l.group), tail_k = tail(problem_.io, l.k_padded, 1),
             tail_g = tail(problem_.gate, l.k_padded, 1), tail_v = tail(problem_.io, l.v_row, 1),
             tail_o = tail(problem_.io, l.v_row, l.group);
  const std::int64_t k = problem_.k.count(), v = panels_.columns;

  b_.loop(b_.i64(0), task.length, l.tokens, [&](Value t) {
    Value left = b_.sub(task.length, t);
    Value ragged = b_.less(left, b_.i64(l.tokens));
    const auto from_here = [&](const Rows& rows) {
      return Rows{b_.at(rows.base, b_.mul(t, rows.row)), rows.row, rows.head};
    };
    const auto copy = [&](const Rows& from, const Rows& to, std::int64_t count, std::int64_t heads) {
      for (std::int64_t n = 0; n < heads; ++n)
        b_.loop(b_.i64(0), left, 1, [&](Value i) {
          const auto at = [&](const Rows& rows) {
            return b_.at(rows.base, b_.add(b_.mul(i, rows.row), b_.mul(rows.head, n)));
          };
          b_.strips(count, b_.lanes(), [&](Value channel, int size) {
            b_.copy_first(b_.at(at(from), channel), b_.at(at(to), channel), size);
          });
        });
    };
    b_.when(ragged, [&] {
      b_.loop(b_.i64(0), b_.i64(l.tail_elements / b_.lanes() * b_.lanes()), b_.lanes(),
              [&](Value i) { b_.store(b_.constant(0), b_.at(tail_q.base.pointer, i)); });
      if (problem_.gate_form == GateForm::logit)  // an infinite logit is no decay
        b_.loop(b_.i64(0), b_.i64(l.tokens * l.k_padded), b_.lanes(),
                [&](Value i) { b_.fill(b_.at(tail_g.base, i), std::numeric_limits<float>::infinity()); });
      copy(from_here(task.q), tail_q, k, l.group);
      copy(from_here(task.k), tail_k, k, 1);
      copy(from_here(task.g), tail_g, k, 1);
      copy(from_here(task.v), tail_v, v, 1);
    });
    const auto choose = [&](const Rows& padded, const Rows& tensor) -> Rows {
      const Rows here = from_here(tensor);
      return {{b_.select(ragged, padded.base.pointer, here.base.pointer), here.base.type},
              b_.select(ragged, padded.row, here.row),
              b_.select(ragged, padded.head, here.head)};
    };
    per_block({choose(tail_q, task.q), choose(tail_k, task.k), choose(tail_v, task.v), choose(tail_g, task.g),
               choose(tail_o, task.o)});
    b_.when(ragged, [&] { copy(tail_o, from_here(task.o), v, l.group); });
  });

  move_state(task.state_out, false);
  b_.finish();
}

Block Forward::of_head(const Block& block, Value n) {
  Block out = block;
  out.q.base = b_.at(block.q.base, b_.mul(n, block.q.head));
  out.o.base = b_.at(block.o.base, b_.mul(n, block.o.head));
  return out;
}

void Forward::each_head(const Block& block, const std::function<void(const Block&)>& body) {
  if (group() == 1) return body(block);
  b_.loop(b_.i64(0), b_.i64(group()), 1, [&](Value n) { body(of_head(block, n)); });
}

void Forward::each_panel(const std::function<void(const Panel&)>& body) {
  if (panels_.whole() > 0)
    b_.loop(b_.i64(0), b_.i64(panels_.whole()), 1, [&](Value i) { body({i, panels_.vectors, panels_.lanes}); });
  if (panels_.last_vectors() > 0) body({b_.i64(panels_.whole()), panels_.last_vectors(), panels_.last_lanes()});
}

void Forward::pack_v(const Block& block, std::int64_t tokens) {
  each_panel([&](const Panel& panel) {
    Value column = b_.mul(panel.index, panels_.width()), to = packed_v(panel.index);
    b_.loop(b_.i64(0), b_.i64(tokens), 1, [&](Value t) {
      const Place from = b_.at(block.v.base, b_.add(b_.mul(t, block.v.row), column));
      Value row = b_.at(to, b_.mul(t, std::int64_t{panel.vectors} * b_.lanes()));
      for (int i = 0; i < panel.vectors; ++i)
        b_.store(b_.load_first(b_.at(from, i * b_.lanes()), real_lanes(panel, i)), b_.at(row, i * b_.lanes()));
    });
  });
}

void Forward::store_o(const Block& block, Value row, const Panel& panel, int vector, Value value) {
  const Place to = b_.at(block.o.base, b_.add(b_.mul(row, block.o.row), b_.mul(panel.index, panels_.width())));
  b_.store_first(value, b_.at(to, vector * b_.lanes()), real_lanes(panel, vector));
}

void Forward::move_state(Place state, bool load) {
  const std::int64_t k_dim = problem_.k.count(), v_dim = problem_.v.count();
  const int lanes = b_.lanes();
  const auto inside_of = [&](Value base, const Panel& panel, Value k, int vector) {
    return b_.at(base, b_.add(b_.mul(k, std::int64_t{panel.vectors} * lanes), vector * lanes));
  };
  const auto each_panel_of_state = [&](const std::function<void(const Panel&, Value base, Value column)>& body) {
    each_panel(
        [&](const Panel& panel) { body(panel, state_panel(panel.index), b_.mul(panel.index, panels_.width())); });
  };
  // [K,V]: row by row. [V,K]: square by square, transposed in registers.
  const auto move_rows = [&] {
    each_panel_of_state([&](const Panel& panel, Value base, Value column) {
      b_.loop(b_.i64(0), b_.i64(k_dim), 1, [&](Value k) {
        const Place outside = b_.at(state, b_.add(b_.mul(k, v_dim), column));
        for (int i = 0; i < panel.vectors; ++i) {
          Value inside = inside_of(base, panel, k, i);
          const Place there = b_.at(outside, i * lanes);
          if (load)
            b_.store(b_.load_first(there, real_lanes(panel, i)), inside);
          else
            b_.store_first(b_.load(inside), there, real_lanes(panel, i));
        }
      });
    });
  };
  const auto move_squares = [&] {
    each_panel_of_state([&](const Panel& panel, Value base, Value column) {
      b_.strips(k_dim, lanes, [&](Value k, int channels) {
        for (int i = 0; i < panel.vectors; ++i) {
          const int columns = real_lanes(panel, i);
          const auto outside = [&](int j) {
            return b_.at(state, b_.add(b_.mul(b_.add(column, i * lanes + j), k_dim), k));
          };
          Values square(lanes, b_.constant(0));
          if (load) {
            for (int j = 0; j < columns; ++j) square[j] = b_.load_first(outside(j), channels);
            square = b_.transpose(square);
            for (int c = 0; c < channels; ++c) b_.store(square[c], inside_of(base, panel, b_.add(k, c), i));
          } else {
            for (int c = 0; c < channels; ++c) square[c] = b_.load(inside_of(base, panel, b_.add(k, c), i));
            square = b_.transpose(square);
            for (int j = 0; j < columns; ++j) b_.store_first(square[j], outside(j), channels);
          }
        }
      });
    });
  };
  const auto clear = [&] {
    each_panel_of_state([&](const Panel& panel, Value base, Value) {
      b_.loop(b_.i64(0), b_.i64(k_dim), 1, [&](Value k) {
        for (int i = 0; i < panel.vectors; ++i) b_.store(b_.constant(0), inside_of(base, panel, k, i));
      });
    });
  };
  const auto move = [&] { problem_.layout == StateLayout::kv ? move_rows() : move_squares(); };
  if (load)
    b_.when(b_.is_null(state.pointer), clear, move);
  else
    b_.when(b_.is_null(state.pointer), [] {}, move);
}

}  // namespace glaive::cpu
