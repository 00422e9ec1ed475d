#include "runtime/tensor_map.hpp"

#include <algorithm>

namespace glaive::cuda {
namespace {

bool encode_map(const TensorMap& map, const Words& words, const Extents& extents, EncodeTiled encode,
                EncodedMap& encoded) {
  // Tensors come in the order q, k, v, g, o, and their strides too.
  const auto stride_of = [&](Arg first) {
    return map.element_bytes * words[static_cast<Arg>(static_cast<int>(first) + 2 * static_cast<int>(map.tensor))];
  };
  static_assert(static_cast<int>(Arg::q) == 0 and static_cast<int>(Arg::o) == 4);
  static_assert(static_cast<int>(Arg::o_token) == static_cast<int>(Arg::q_token) + 8);
  const bool of_queries = map.tensor == Arg::q or map.tensor == Arg::o;
  const bool of_values = map.tensor == Arg::v or map.tensor == Arg::o;
  const auto extent = [&](Axis axis) { return static_cast<std::uint64_t>(extents[axis]); };
  const std::uint64_t sizes[] = {extent(of_values ? Axis::v : Axis::k),
                                 extent(of_queries ? Axis::heads : Axis::kv_heads), extent(Axis::tokens)};
  const std::uint64_t strides[] = {stride_of(Arg::q_head), stride_of(Arg::q_token)};
  const std::uint64_t base = words[map.tensor];
  if (base == 0 or (base | strides[0] | strides[1]) % 16 != 0) return false;
  const std::uint32_t box[] = {map.channels, 1, map.tokens}, steps[] = {1, 1, 1};
  const auto address = reinterpret_cast<Address>(base);  // NOLINT(performance-no-int-to-ptr): words are addresses
  return encode(&encoded, map.element_bytes == 2 ? map_u16 : map_u32, 3, address, sizes, strides, box, steps,
                map_interleave_none, map.swizzled ? map_swizzle_128_bytes : map_swizzle_none, map_promotion_256_bytes,
                map_fill_zeros) == success;
}

}  // namespace

bool map_tensors(const Stage& stage, const Words& words, const Extents& extents, EncodeTiled encode, EncodedMap* maps) {
  std::size_t made = 0;
  for (const TensorMap& map : stage.maps) {
    if (not encode_map(map, words, extents, encode, maps[made])) break;
    ++made;
  }
  if (made == stage.maps.size()) return true;
  std::fill_n(maps, stage.maps.size(), EncodedMap{});
  return false;
}

}  // namespace glaive::cuda
