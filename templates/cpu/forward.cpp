#include "templates/cpu/forward.hpp"

#include <algorithm>
#include <tuple>

namespace glaive::cpu {

void Forward::emit(mlir::ModuleOp module, std::string_view name, const std::function<void(const Block&)>& per_block) {
  const auto entry = b_.begin_entry(module, name);
  scratch_ = entry.scratch;
  const auto args = forward_args();
  const auto index = [&](Arg arg) { return std::find(args.begin(), args.end(), arg) - args.begin(); };
  const auto word = [&](Arg arg) { return b_.word(entry.words, index(arg)); };
  const auto pointer = [&](Arg arg) { return b_.pointer_word(entry.words, index(arg)); };
  const auto& [p, l] = std::pair<const Panels&, const Layout&>(panels_, layout_);

  // The scalar is the low half of its word.
  scale_ = b_.load_splat(b_.at(entry.words, 2 * index(Arg::scale)));

  Value splits = b_.i64(p.splits), kv_heads = word(Arg::kv_heads);
  Value first_column = b_.mul(b_.rem(entry.task, splits), p.columns);
  Value sequence_head = b_.div(entry.task, p.splits);
  Value head = b_.rem(sequence_head, kv_heads);
  Value sequence = b_.create<mlir::arith::DivUIOp>(sequence_head, kv_heads);

  // Tokens of this sequence.
  Value start, length;
  {
    Value cu = pointer(Arg::cu_seqlens), longest = word(Arg::longest);
    auto i64 = b_.ops().getI64Type();
    auto bounds = b_.create<mlir::scf::IfOp>(mlir::TypeRange{i64, i64}, b_.is_null(cu), true);
    mlir::OpBuilder::InsertionGuard guard(b_.ops());
    b_.ops().setInsertionPointToStart(&bounds.getThenRegion().front());
    b_.create<mlir::scf::YieldOp>(mlir::ValueRange{b_.mul(sequence, longest), longest});
    b_.ops().setInsertionPointToStart(&bounds.getElseRegion().front());
    Value from = b_.load_index(b_.at(cu, sequence)), to = b_.load_index(b_.at(cu, b_.add(sequence, 1)));
    b_.create<mlir::scf::YieldOp>(mlir::ValueRange{from, b_.sub(to, from)});
    start = bounds.getResult(0);
    length = bounds.getResult(1);
  }

  // A state's address in its pool: null when there is none.
  const auto state_address = [&](Arg base, Arg slots, Arg slot_stride, Arg head_stride) {
    Value pool = pointer(base), table = pointer(slots);
    auto slot = b_.create<mlir::scf::IfOp>(mlir::TypeRange{b_.ops().getI64Type()}, b_.is_null(table), true);
    {
      mlir::OpBuilder::InsertionGuard guard(b_.ops());
      b_.ops().setInsertionPointToStart(&slot.getThenRegion().front());
      b_.create<mlir::scf::YieldOp>(mlir::ValueRange{sequence});
      b_.ops().setInsertionPointToStart(&slot.getElseRegion().front());
      b_.create<mlir::scf::YieldOp>(mlir::ValueRange{b_.load_index(b_.at(table, sequence))});
    }
    Value number = slot.getResult(0);
    Value offset = b_.add(b_.add(b_.mul(number, word(slot_stride)), b_.mul(head, word(head_stride))), first_column);
    Value absent = b_.create<mlir::arith::OrIOp>(b_.is_null(pool), b_.less(number, b_.i64(0)));
    Value null = b_.create<mlir::LLVM::ZeroOp>(mlir::LLVM::LLVMPointerType::get(b_.ops().getContext()));
    return b_.select(absent, null, b_.at(pool, offset));
  };
  move_state(state_address(Arg::state_in, Arg::read_slots, Arg::state_in_slot, Arg::state_in_head), true);

  const auto tensor = [&](Arg base, Arg token, Arg head_stride) {
    Value row = word(token);
    return std::pair(b_.at(pointer(base), b_.add(b_.mul(start, row), b_.mul(head, word(head_stride)))), row);
  };
  const auto [q, q_row] = tensor(Arg::q, Arg::q_token, Arg::q_head);
  const auto [k, k_row] = tensor(Arg::k, Arg::k_token, Arg::k_head);
  const auto [g, g_row] = tensor(Arg::g, Arg::g_token, Arg::g_head);
  auto [v, v_row] = tensor(Arg::v, Arg::v_token, Arg::v_head);
  auto [o, o_row] = tensor(Arg::o, Arg::o_token, Arg::o_head);
  v = b_.at(v, first_column);
  o = b_.at(o, first_column);

  Value tail_q = b_.at(scratch_, l.tail), tail_k = b_.at(tail_q, l.tokens * l.k_padded),
        tail_g = b_.at(tail_k, l.tokens * l.k_padded), tail_v = b_.at(tail_g, l.tokens * l.k_padded),
        tail_o = b_.at(tail_v, l.tokens * l.v_row);
  const auto copy_row = [&](Value from, Value to, std::int64_t count) {
    b_.strips(count, b_.lanes(),
              [&](Value i, int size) { b_.store_first(b_.load_first(b_.at(from, i), size), b_.at(to, i), size); });
  };

  b_.loop(b_.i64(0), length, l.tokens, [&](Value t) {
    Value left = b_.sub(length, t);
    Value ragged = b_.less(left, b_.i64(l.tokens));
    const auto row_of = [&](Value base, Value row) { return b_.at(base, b_.mul(t, row)); };
    b_.when(ragged, [&] {
      b_.loop(b_.i64(0), b_.i64(l.tail_elements / b_.lanes() * b_.lanes()), b_.lanes(),
              [&](Value i) { b_.store(b_.constant(0), b_.at(tail_q, i)); });
      b_.loop(b_.i64(0), left, 1, [&](Value i) {
        const auto copy = [&](Value base, Value row, Value to, std::int64_t to_row, std::int64_t count) {
          copy_row(b_.at(row_of(base, row), b_.mul(i, row)), b_.at(to, b_.mul(i, to_row)), count);
        };
        copy(q, q_row, tail_q, l.k_padded, problem_.k.count());
        copy(k, k_row, tail_k, l.k_padded, problem_.k.count());
        copy(g, g_row, tail_g, l.k_padded, problem_.k.count());
        copy(v, v_row, tail_v, l.v_row, panels_.columns);
      });
    });
    const auto choose = [&](Value tail, std::int64_t tail_row, Value base, Value row) {
      return std::pair(b_.select(ragged, tail, row_of(base, row)), b_.select(ragged, b_.i64(tail_row), row));
    };
    Block block;
    std::tie(block.q, block.q_row) = choose(tail_q, l.k_padded, q, q_row);
    std::tie(block.k, block.k_row) = choose(tail_k, l.k_padded, k, k_row);
    std::tie(block.g, block.g_row) = choose(tail_g, l.k_padded, g, g_row);
    std::tie(block.v, block.v_row) = choose(tail_v, l.v_row, v, v_row);
    std::tie(block.o, block.o_row) = choose(tail_o, l.v_row, o, o_row);
    per_block(block);
    b_.when(ragged, [&] {
      b_.loop(b_.i64(0), left, 1, [&](Value i) {
        copy_row(b_.at(tail_o, b_.mul(i, l.v_row)), b_.at(row_of(o, o_row), b_.mul(i, o_row)), panels_.columns);
      });
    });
  });

  move_state(state_address(Arg::state_out, Arg::write_slots, Arg::state_out_slot, Arg::state_out_head), false);
  b_.finish();
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
      Value from = b_.at(block.v, b_.add(b_.mul(t, block.v_row), column));
      Value row = b_.at(to, b_.mul(t, std::int64_t{panel.vectors} * b_.lanes()));
      for (int i = 0; i < panel.vectors; ++i)
        b_.store(b_.load_first(b_.at(from, i * b_.lanes()), real_lanes(panel, i)), b_.at(row, i * b_.lanes()));
    });
  });
}

void Forward::store_o(const Block& block, Value row, const Panel& panel, int vector, Value value) {
  Value to = b_.at(block.o, b_.add(b_.mul(row, block.o_row), b_.mul(panel.index, panels_.width())));
  b_.store_first(value, b_.at(to, vector * b_.lanes()), real_lanes(panel, vector));
}

void Forward::move_state(Value state, bool load) {
  const std::int64_t v = problem_.v.count();
  const auto each_vector = [&](const std::function<void(Value outside, Value inside, int count)>& move) {
    each_panel([&](const Panel& panel) {
      Value column = b_.mul(panel.index, panels_.width()), base = state_panel(panel.index);
      b_.loop(b_.i64(0), b_.i64(problem_.k.count()), 1, [&](Value k) {
        Value outside = b_.at(state, b_.add(b_.mul(k, v), column));
        Value inside = b_.at(base, b_.mul(k, std::int64_t{panel.vectors} * b_.lanes()));
        for (int i = 0; i < panel.vectors; ++i)
          move(b_.at(outside, i * b_.lanes()), b_.at(inside, i * b_.lanes()), real_lanes(panel, i));
      });
    });
  };
  const auto zero = [&] { each_vector([&](Value, Value inside, int) { b_.store(b_.constant(0), inside); }); };
  const auto in = [&] {
    each_vector([&](Value outside, Value inside, int count) { b_.store(b_.load_first(outside, count), inside); });
  };
  const auto out = [&] {
    each_vector([&](Value outside, Value inside, int count) { b_.store_first(b_.load(inside), outside, count); });
  };
  if (load)
    b_.when(b_.is_null(state), zero, in);
  else
    b_.when(b_.is_null(state), [] {}, out);
}

}  // namespace glaive::cpu
