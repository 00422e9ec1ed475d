#pragma once
#include <algorithm>
#include <span>
#include <string_view>

#include "autotune/drop.hpp"

namespace glaive::test {

/// A mistake that a variant of the family `faults` makes, and what a tuner must say of it.
struct FaultKind {
  std::string_view name;
  Drop drop;
  std::string_view says = {};  ///< is part of the message
  Drop or_else = Drop::none;   ///< will do too, as machines differ
};

// A variant without a mistake does its work two to five times, one with a mistake once: whoever slips through wins.
// Kinds whose name begins with `compile` or `load` happen in the compiler, the others in the entry of that name of
// faults_kernel.cpp.
inline constexpr FaultKind fault_kinds[] = {
    {"right_2", Drop::none},
    {"right_3", Drop::none},
    {"right_4", Drop::none},
    {"right_5", Drop::none},
    {"segv", Drop::crash},
    {"ill", Drop::crash},
    {"abort", Drop::crash},
    {"divide", Drop::crash},
    {"stack_overflow", Drop::crash},
    {"exit", Drop::crash},
    {"segv_when_large", Drop::crash},   // passes verification and dies while it is timed
    {"abort_in_the_end", Drop::crash},  // after a few calls of a race
    {"spin", Drop::hang},
    {"sleep", Drop::hang},
    {"spin_when_large", Drop::hang},
    {"hungry", Drop::memory},
    {"before_o", Drop::out_of_bounds},
    {"after_o", Drop::out_of_bounds},
    {"after_state", Drop::out_of_bounds},
    {"after_scratch", Drop::out_of_bounds},
    {"writes_input", Drop::out_of_bounds},
    {"after_o_when_large", Drop::out_of_bounds},
    {"nan", Drop::nan_output},
    {"unwritten", Drop::nan_output},
    {"wrong_much", Drop::wrong_result},
    {"wrong_little", Drop::wrong_result},
    {"wrong_once", Drop::wrong_result},
    {"wrong_when_large", Drop::wrong_result},
    {"wrong_state", Drop::wrong_result},
    {"wanders", Drop::nondeterministic},
    {"load_garbage", Drop::load_error},
    {"compile_refused", Drop::compile_error},
    {"compile_segv", Drop::crash},
    {"compile_fatal", Drop::crash},
    {"compile_forever", Drop::hang},
    {"compile_hungry", Drop::memory},
};

constexpr bool is_right(const FaultKind& kind) { return kind.name.starts_with("right_"); }
constexpr int index_of_kind(std::span<const FaultKind> kinds, std::string_view name) {
  return static_cast<int>(std::ranges::find(kinds, name, &FaultKind::name) - kinds.begin());
}

}  // namespace glaive::test
