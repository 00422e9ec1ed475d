#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "compiler/compiler.hpp"

namespace glaive::test {

/// A module written as MLIR text. `entry` is the first entry.
MlirSource text_source(std::string text, std::vector<std::string> entries = {"entry"});

/// The body of an entry written as MLIR text; %words, %task and %scratch are its arguments, %w0 .. %w3 the first four
/// words, %p0 .. %p3 the same as pointers, and the return is added.
MlirSource body_source(const std::string& body);

/// A recipe that throws a runtime_error.
MlirSource throwing_source(std::string message);

/// y[i] += a * x[i] for i < n with words x, y, a (fp32 bits), n: the example for writers of families. `unroll` vectors
/// of `width` floats in each turn of the loop; a masked load and store for the rest.
MlirSource axpy_source(int width, int unroll);

/// c[rows][2 * width] = a^T b with words a [n][rows], b [n][2 * width], c, n: a register tile, `unroll` steps of n in
/// each turn of the loop.
MlirSource tile_source(int rows, int width, int unroll);

/// Undefined (`needed`) and exported symbols of a shared object.
struct DynamicSymbols {
  std::vector<std::string> needed, exported;
};
DynamicSymbols dynamic_symbols(std::span<const std::byte> shared_object);

/// What was written to standard error while this lived.
class ErrorOutput {
 public:
  ErrorOutput();
  ErrorOutput(const ErrorOutput&) = delete;
  ~ErrorOutput();
  std::string text() const;

 private:
  int saved_, file_;
};

}  // namespace glaive::test
