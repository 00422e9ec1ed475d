#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "autotune/evaluator.hpp"

namespace glaive {

struct BenchOptions {
  int threads = 1;
  std::filesystem::path pack;
  std::vector<std::string> variants;  ///< instead of the pack's winner
  MeasurePolicy policy{};
};

/// One measured kernel, interleaved in one run with both plain loops and the other kernels of its case.
struct BenchRecord {
  Case what;
  std::string device, variant;
  std::string source;   ///< `pack, exact`, `pack, nearest`, `default` or `asked`
  std::string skipped;  ///< what of the pack was passed over, and why; empty when nothing was
  int threads = 1;
  Gates gates = Gates::weak;
  Timing timing, rows, tiles;
  Ratio to_fastest;  ///< of its case's kernels, that with the least median; no pairs where there is no other
  Rates rates;
  double error = 0;  ///< relative error of o against float64, worst over the verification cases

  const char* baseline() const;  ///< the faster loop, or `none` where neither covers the problem
  const Timing& baseline_timing() const;
  double gflops() const;
  double roof_seconds() const;  ///< minimal bytes at the copy rate or useful operations at the FMA peak
};

/// Measures the variants asked for, or the pack's winner for `what`, or the default variant where the pack has none.
Result<std::vector<BenchRecord>> bench(Evaluator& evaluator, const Case& what, const BenchOptions& options);

/// `{"command", "host", "commit", "records": [..]}`
std::string to_json(std::span<const BenchRecord> records, const std::string& command);

}  // namespace glaive
