#pragma once
#include <bit>
#include <cstdint>

#include "runtime/problem.hpp"

namespace glaive {

/// The 16 bits of `x` rounded to nearest even, as bf16 or f16.
inline std::uint16_t narrow(float x, DType type) {
  if (type == DType::f16) return std::bit_cast<std::uint16_t>(static_cast<_Float16>(x));
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float widen(std::uint16_t bits, DType type) {
  if (type == DType::f16) return static_cast<float>(std::bit_cast<_Float16>(bits));
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace glaive
