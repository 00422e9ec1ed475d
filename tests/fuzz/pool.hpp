#pragma once
#include "runtime/states.hpp"

namespace glaive::fuzz {

/// The pool that the corpus of snapshots was taken from.
inline PoolConfig pool_config() {
  PoolConfig config;
  config.layers = 2;
  config.kv_heads = KvHeads(2);
  config.k = KeyDim(4);
  config.v = ValueDim(4);
  config.slots = 2;
  config.planes = {24};
  return config;
}

}  // namespace glaive::fuzz
