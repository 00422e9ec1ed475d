#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "runtime/problem.hpp"

namespace glaive {

/// A problem set that is part of the program (autotune/problems/NAME.txt).
struct BuiltinSet {
  std::string_view name;
  std::string_view text;
};
std::span<const BuiltinSet> builtin_sets();

/// The cases of a built-in set, or of a file. A word that is neither is named together with the built-in sets.
Result<std::vector<Case>> load_set(std::string_view name_or_file, DType default_io = DType::f32);

}  // namespace glaive
