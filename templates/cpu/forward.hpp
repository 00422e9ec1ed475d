#pragma once
// What every CPU kernel shares: a task's arguments (Task), and for forward kernels the state in scratch as panels of V
// and tokens handed over in blocks whose last, ragged one is padded (Forward).
#include <optional>

#include "templates/cpu/builder.hpp"
#include "templates/cpu/panels.hpp"

namespace glaive::cpu {

/// Rows of one tensor: row t of query head n of the group is at base + t * row + n * head, in elements.
struct Rows {
  Place base;
  Value row, head;  ///< head only where a group has several
};

/// What one call of the entry works on: a sequence, a kv head, and a range of V. Every index that came from memory is
/// checked against the extents of the call; what is out of range counts as none and raises a bit of the device status.
class Task {
 public:
  /// Begins the entry; the caller emits the body and calls Builder::finish(). Of a sequence longer than `most_tokens`
  /// only so many are seen (0: all).
  Task(Builder& builder, const Problem& problem, const Panels& panels, mlir::ModuleOp module, std::string_view name,
       std::int64_t most_tokens = 0);

  Value scratch;
  Value length;               ///< tokens of the sequence
  Rows q, k, v, g, o;         ///< from the sequence's first token; v and o from the task's first column
  Place state_in, state_out;  ///< of the head, from its first column; null = zero, or discarded
  Value scale;                ///< a vector

  /// exp(g) of a vector as loaded: the log gate itself, or g = max(logsigmoid(x) / tau, clamp).
  Value decay(Value gate) const;

 private:
  Builder& b_;
  Problem problem_;
  Value inverse_tau_, clamp_;
};

/// One block of tokens. Rows past the end of the sequence are q = k = v = 0 and exp(g) = 1, and what is stored to their
/// o rows is thrown away.
struct Block {
  Rows q, k, v, g, o;
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

  Value scratch() const { return task_->scratch; }
  Value scale() const { return task_->scale; }
  Value decay(Value gate) const { return task_->decay(gate); }
  std::int64_t group() const { return layout_.group; }
  /// The block as query head n of the group sees it.
  Block of_head(const Block& block, Value n);
  /// `body` for every query head of the group.
  void each_head(const Block& block, const std::function<void(const Block&)>& body);

  Value state_panel(Value index) {
    return b_.at(scratch(), b_.add(b_.mul(index, panels_.panel_elements(problem_)), layout_.state));
  }
  /// Rows of V into panels of this block, zeros behind V.
  void pack_v(const Block& block, std::int64_t tokens);
  /// Visits the panels of V; the last may be narrower.
  void each_panel(const std::function<void(const Panel&)>& body);
  Value packed_v(Value index) {
    return b_.at(scratch(), b_.add(b_.mul(index, layout_.tokens * panels_.width()), layout_.v));
  }
  /// Stores a vector of o; `vector` counts within the panel.
  void store_o(const Block& block, Value row, const Panel& panel, int vector, Value value);

  /// Channels of K in vectors: body gets the first channel and how many are real.
  void each_k(const std::function<void(Value channel, int count)>& body) {
    b_.strips(problem_.k.count(), b_.lanes(), body);
  }

 private:
  void move_state(Place state, bool load);
  int real_lanes(const Panel& panel, int vector) const {
    return vector == panel.vectors - 1 ? panel.last_lanes : panels_.lanes;
  }

  Builder& b_;
  Problem problem_;
  Panels panels_;
  Layout layout_;
  std::optional<Task> task_;
};

}  // namespace glaive::cpu
