#pragma once
// What the emulator's copy engine knows of a tensor; as large as the driver's. Written by emulated.cpp, read by
// kernels.
#include <cstdint>

namespace emulator {

struct alignas(128) TensorMap {
  char* base;
  std::uint64_t extents[3], strides[2];  // channels, heads, tokens; bytes from head to head, from token to token
  std::uint32_t box[3], element_bytes, swizzled, unused[13];
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace emulator
