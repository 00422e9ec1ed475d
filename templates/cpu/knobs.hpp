#pragma once
// Parameters and constraints that CPU families share.
#include <cmath>
#include <optional>
#include <string>
#include <vector>

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

/// How much longer a call takes than its work shared evenly: the tasks of a device's last round leave some idle.
inline double waves(const Instance& instance, const Shape& shape, const DeviceInfo& device, int splits) {
  const auto tasks = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count() * splits);
  return std::ceil(tasks / device.units) * device.units / tasks;
}

}  // namespace glaive::cpu
