#pragma once
// Geometry of CPU kernels, free of MLIR: panels of V and the layout of scratch.
#include <algorithm>
#include <cstdint>

#include "runtime/plan.hpp"
#include "runtime/problem.hpp"

namespace glaive::cpu {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

/// A task's columns of V, cut into panels of `vectors` vectors so that a panel [K, width] of the state is contiguous.
struct Panels {
  int lanes;                ///< fp32 per vector
  int vectors;              ///< vectors per panel
  std::int64_t columns;     ///< of V in one task
  std::int64_t splits = 1;  ///< tasks per head

  std::int64_t width() const { return std::int64_t{lanes} * vectors; }
  std::int64_t count() const { return ceil_div(columns, width()); }
  std::int64_t whole() const { return columns / width(); }  ///< panels of full width, no mask
  int last_vectors() const { return static_cast<int>(ceil_div(columns % width(), lanes)); }
  int last_lanes() const { return columns % lanes == 0 ? lanes : static_cast<int>(columns % lanes); }
  std::int64_t panel_elements(const Problem& problem) const { return problem.k.count() * width(); }
};

inline std::int64_t group_of(const Problem& problem) { return problem.heads.count() / problem.kv_heads.count(); }

/// Where things lie in a worker's scratch, in elements.
struct Layout {
  std::int64_t tokens;    ///< of a block
  std::int64_t group;     ///< query heads of a kv head
  std::int64_t k_padded;  ///< K rounded up to whole vectors
  std::int64_t state = 0, v = 0, tail = 0, own = 0;
  std::int64_t v_row, tail_elements;

  /// `own` starts the family's part.
  Layout(const Problem& problem, const Panels& panels, std::int64_t block_tokens)
      : tokens(block_tokens), group(group_of(problem)), k_padded(round_up(problem.k.count(), panels.lanes)) {
    v_row = round_up(panels.columns, panels.lanes);
    v = round_up(panels.count() * panels.panel_elements(problem), 16);
    tail = v + round_up(panels.count() * tokens * panels.width(), 16);
    tail_elements = tokens * ((2 + group) * k_padded + (1 + group) * v_row);
    own = tail + round_up(tail_elements, 16);
  }
};

/// Whether the problem has this op, and the target is a CPU.
Result<void> cpu_applicable(const Problem& problem, const Target& target, Op op);

/// One stage: a task per sequence, head and V split.
Plan cpu_plan(const Target& target, std::string variant, std::string entry, std::int64_t splits,
              std::int64_t scratch_elements);

}  // namespace glaive::cpu
