#pragma once
// Parameters and constraints that CPU families share.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "templates/cost.hpp"
#include "templates/family.hpp"

namespace glaive::cpu {

inline int vector_registers(const Target& target) { return vector_bits(target) == 512 ? 32 : 16; }

/// Ways to share V among tasks: powers of two whose parts are whole vectors.
inline std::vector<int> split_values(const Instance& instance) {
  std::vector<int> values = {1};
  const int lanes = vector_bits(instance.target) / 32;
  for (int splits = 2; splits <= 4; splits *= 2)
    if (instance.problem.v.count() % (std::int64_t{splits} * lanes) == 0) values.push_back(splits);
  return values;
}

inline std::optional<std::string> split_constraint(const Instance& instance, int cols, int splits) {
  const std::int64_t lanes = vector_bits(instance.target) / 32;
  if (cols > 1 and instance.problem.v.count() / splits <= (cols - 1) * lanes) return "a panel is wider than a task's V";
  return {};
}

/// Fitted to the tables in bench/tables by least squares, where they leave 2 to 3 % of a forward's time unexplained; a
/// fit to two of the three forwards predicts the third as well. At 256 bits two operations go at a time.
inline UnitRates unit_rates(const Target& target) {
  return {.hertz = 3.5e9,
          .operation = vector_bits(target) == 512 ? 1.05 : 0.55,
          .access = 0.6,
          .reduction = 4,
          .wait = 28,
          .task = 1400,
          .byte = 0.03};
}

/// Seconds of a call whose average task costs `cost`: one task for each sequence, head and split.
inline double task_seconds(const Instance& instance, const Shape& shape, const DeviceInfo& device, int splits,
                           Cost cost) {
  const double tasks =
      static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count()) * std::max(splits, 1);
  cost.tasks = std::max(tasks, 1.0);
  return seconds(cost, unit_rates(instance.target), device.units);
}

/// Tokens of an average sequence, each padded to whole blocks.
inline double padded_tokens(const Shape& shape, int block) {
  const auto padded = [&](std::int64_t sequence) {
    return static_cast<double>((shape.length(sequence).count() + block - 1) / block * block);
  };
  const std::int64_t sequences = shape.sequences().count();
  if (sequences == 0) return 0;
  if (shape.is_uniform()) return padded(0);
  double sum = 0;
  for (std::int64_t i = 0; i < sequences; ++i) sum += padded(i);
  return sum / static_cast<double>(sequences);
}

/// Vectors of V in one task.
inline double task_vectors(const Instance& instance, int splits) {
  const std::int64_t lanes = vector_bits(instance.target) / 32, columns = instance.problem.v.count() / splits;
  return static_cast<double>((columns + lanes - 1) / lanes);
}

}  // namespace glaive::cpu
