#pragma once
// What every CPU forward kernel shares: the arguments, how a task finds its sequence, head and V range, the state in
// scratch as panels of V, and tokens handed over in blocks whose last, ragged one is padded.
#include "templates/cpu/builder.hpp"
#include "templates/cpu/panels.hpp"

namespace glaive::cpu {

/// One block of tokens: pointers to row 0 of each tensor and the distance between rows, in elements. Rows past the end
/// of the sequence are q = k = v = g = 0 (so that exp(g) = 1), and what is stored to their o rows is thrown away.
struct Block {
  Value q, k, v, g, o;
  Value q_row, k_row, v_row, g_row, o_row;
};

/// One panel of V: its number, how many vectors wide it is, and how many lanes of the last vector are real.
struct Panel {
  Value index;
  int vectors;
  int last_lanes;
};

class Forward {
 public:
  Forward(Builder& builder, const Problem& problem, const Panels& panels, const Layout& layout)
      : b_(builder), problem_(problem), panels_(panels), layout_(layout) {}

  /// Emits the whole entry: state in, `per_block` for every `block_tokens` tokens in order, state out.
  void emit(mlir::ModuleOp module, std::string_view name, const std::function<void(const Block&)>& per_block);

  Value scratch() const { return scratch_; }
  Value scale() const { return scale_; }  ///< a vector
  Value state_panel(Value index) {
    return b_.at(scratch_, b_.add(b_.mul(index, panels_.panel_elements(problem_)), layout_.state));
  }
  /// Rows of V into panels of this block, zeros behind V.
  void pack_v(const Block& block, std::int64_t tokens);
  /// Visits the panels of V; the last may be narrower.
  void each_panel(const std::function<void(const Panel&)>& body);
  Value packed_v(Value index) {
    return b_.at(scratch_, b_.add(b_.mul(index, layout_.tokens * panels_.width()), layout_.v));
  }
  /// Stores a vector of o; `vector` counts within the panel.
  void store_o(const Block& block, Value row, const Panel& panel, int vector, Value value);

  /// Channels of K in vectors: body gets the first channel and how many are real.
  void each_k(const std::function<void(Value channel, int count)>& body) {
    b_.strips(problem_.k.count(), b_.lanes(), body);
  }

 private:
  void move_state(Value state, bool load);
  int real_lanes(const Panel& panel, int vector) const {
    return vector == panel.vectors - 1 ? panel.last_lanes : panels_.lanes;
  }

  Builder& b_;
  Problem problem_;
  Panels panels_;
  Layout layout_;
  Value scratch_, scale_;
};

}  // namespace glaive::cpu
