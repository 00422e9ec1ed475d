#pragma once
// Kernels that nobody has tuned, in a pack.
#include "runtime/pack.hpp"
#include "templates/family.hpp"

namespace glaive::testing {

/// A default variant, compiled, as an entry of a pack.
inline PackEntry entry_of(const DeviceInfo& device, const Instance& instance, const Family& family, CodeObject code) {
  PackEntry entry;
  entry.key.device = identity(device);
  entry.key.target = to_string(instance.target);
  entry.key.problem = to_string(instance.problem);
  entry.plan = family.plan(instance, family.default_config(instance));
  entry.code = {std::move(code)};
  entry.evidence = "{}";
  return entry;
}

}  // namespace glaive::testing
