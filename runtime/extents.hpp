#pragma once
#include <array>
#include <compare>
#include <concepts>
#include <cstdint>
#include <string_view>

namespace glaive {

/// A count of one kind of thing. Kinds do not convert into each other, nor to or from plain integers without being
/// named: passing a number of heads where a number of tokens is wanted does not compile.
template <class Kind>
class Extent {
 public:
  constexpr Extent() = default;
  template <std::integral Integer>
    requires(not std::same_as<Integer, bool>)
  explicit constexpr Extent(Integer count) : count_(static_cast<std::int64_t>(count)) {}

  constexpr std::int64_t count() const { return count_; }

  friend constexpr auto operator<=>(Extent, Extent) = default;
  friend constexpr Extent operator+(Extent a, Extent b) { return Extent(a.count_ + b.count_); }
  friend constexpr Extent operator-(Extent a, Extent b) { return Extent(a.count_ - b.count_); }
  constexpr Extent& operator+=(Extent other) { return *this = *this + other; }

 private:
  std::int64_t count_ = 0;
};

using Sequences = Extent<struct SequencesKind>;  ///< B: sequences of one call
using Tokens = Extent<struct TokensKind>;        ///< T: tokens of one sequence, or of a whole call where said
using Heads = Extent<struct HeadsKind>;          ///< H: query heads
using KvHeads = Extent<struct KvHeadsKind>;      ///< Hkv: heads of k, v, g and of the state
using KeyDim = Extent<struct KeyDimKind>;        ///< K: channels of q, k and g in a head
using ValueDim = Extent<struct ValueDimKind>;    ///< V: channels of v and o in a head

/// The extents that a Plan may refer to.
enum class Axis : std::uint8_t { sequences, tokens, longest, heads, kv_heads, k, v, workers };
inline constexpr std::size_t axis_count = 8;
std::string_view to_string(Axis axis);

/// The numbers of one call, by axis: `tokens` is the total over all sequences, `longest` the most of any one sequence,
/// `workers` the threads that run tasks at the same time (1 on a GPU).
class Extents {
 public:
  constexpr std::int64_t operator[](Axis axis) const { return values_[static_cast<std::size_t>(axis)]; }
  constexpr std::int64_t& operator[](Axis axis) { return values_[static_cast<std::size_t>(axis)]; }
  friend constexpr bool operator==(const Extents&, const Extents&) = default;

 private:
  std::array<std::int64_t, axis_count> values_{};
};

}  // namespace glaive
