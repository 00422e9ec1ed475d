#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "autotune/gates.hpp"
#include "runtime/cpu.hpp"
#include "runtime/problem.hpp"

namespace glaive {

/// Random numbers that depend on nothing but (seed, stream, index): any element can be made alone, in any order, and is
/// the same on every machine, because only IEEE basic operations are used (no libm).
class CounterRng {
 public:
  CounterRng(std::uint64_t seed, std::uint64_t stream);
  std::uint64_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;  ///< [0,1), multiples of 2^-53
  /// Standard normals for indices first .. first + out.size() - 1; first must be even.
  void normals(std::uint64_t first, std::span<float> out) const;

 private:
  std::uint64_t key_;
};

/// A tensor of any dtype between two guard zones, 64-byte aligned. The guards hold NaN patterns of every dtype: a
/// kernel that reads past the end and uses what it finds gives NaN. Values are read and set as fp32 through data();
/// with a 16-bit dtype that is a copy, which pack() and unpack() move to and from the memory that a kernel sees. It
/// takes twice as much memory as the tensor: large ones do without, and are read and set by get() and put().
class Guarded {
 public:
  enum class Copy : std::uint8_t { kept, none };
  static constexpr std::int64_t guard_elements = 128;  ///< 32-bit words on each side
  static constexpr std::uint32_t poison_bits = 0x7fa0dead;

  explicit Guarded(std::int64_t elements, DType type = DType::f32, Copy copy = Copy::kept);  ///< poisoned
  /// Empty where there is no copy.
  std::span<float> data() { return {values_, static_cast<std::size_t>(values_ == nullptr ? 0 : elements_)}; }
  std::span<const float> data() const {
    return {values_, static_cast<std::size_t>(values_ == nullptr ? 0 : elements_)};
  }
  std::int64_t elements() const { return elements_; }
  /// Elements from `at` on, rounded to the dtype. Any threads may do so, each with elements of its own.
  void put(std::int64_t at, std::span<const float> values);
  void get(std::int64_t at, std::span<float> values) const;
  void* memory() { return memory_; }
  const void* memory() const { return memory_; }
  /// The tensor's memory and both guard zones.
  std::span<std::byte> with_guards() {
    return {memory_ - 4 * guard_elements, static_cast<std::size_t>(bytes_ + 8 * guard_elements)};
  }
  void pack();                        ///< rounds data() to the dtype and hands it to memory(), poison included
  void unpack();                      ///< data() becomes what is in memory()
  void poison();                      ///< fills the tensor with a signalling NaN pattern
  void assign(const Guarded& other);  ///< the values of one of equal dtype and size
  bool guards_intact() const;
  std::uint64_t checksum() const;  ///< of the memory's bits

 private:
  static constexpr std::uint16_t short_poison = 0x7fad;             // a NaN as bf16 and as f16
  void narrow_all(std::int64_t at, std::span<const float> values);  // of 16 bits, as are these two
  void widen_all(std::int64_t at, std::span<float> values) const;

  DType type_;
  std::int64_t elements_ = 0, bytes_ = 0;
  std::unique_ptr<std::byte[]> storage_;
  std::unique_ptr<float[]> copy_;  // of 16-bit elements
  std::byte* memory_ = nullptr;
  float* values_ = nullptr;
};

/// Whether the bits are those of poison, so that this element was never written.
bool is_poison(float value);

/// How a call hands its tensors over. A kernel must be right under all of them.
enum class Passing : std::uint8_t {
  stateless,   ///< no states: every sequence starts from zero, final states are discarded
  contiguous,  ///< sequence b reads and writes slot b
  strided,   ///< padding after every head, token and state; slot arrays that permute, start from zero (-1) and discard
             ///< (-1)
  in_place,  ///< state_in and state_out are the same memory
};
std::string_view to_string(Passing passing);

struct Strides {
  std::int64_t token = 0, head = 0;  ///< in elements
};

/// Every tensor of one call in the problem's dtypes: q [T,H,K], k,g [T,Hkv,K], v [T,Hkv,V], o [T,H,V] with the
/// sequences one after the other on T, states [slots,Hkv,K,V] (or [slots,Hkv,V,K]). Signed inputs; the same seed gives
/// the same numbers on any machine and under any Passing. q, k, v and the states are N(0,1), so that o is of order one.
/// With gate=logit, g holds the logits that the gate distribution comes from (tau 16; clamp -8 when strided, else
/// none). Padding holds poison.
struct Call {
  static constexpr float gate_tau = 16;

  Case what;
  Passing passing = Passing::contiguous;
  float scale = 1;  ///< K^-0.5
  float gate_clamp = 0;
  Strides q_strides, k_strides, v_strides, g_strides, o_strides;
  std::int64_t state_head = 0, state_slot = 0, slots = 0;
  std::vector<std::int32_t> cu_seqlens;               ///< [B+1], also for uniform shapes
  std::vector<std::int32_t> read_slots, write_slots;  ///< [B], -1 = none
  Guarded q, k, v, g, o, state_in, state_out;

  /// Made on all threads of the machine.
  Call(const Case& what, Gates gates, std::uint64_t seed, Passing passing = Passing::contiguous,
       Guarded::Copy copy = Guarded::Copy::kept);

  /// Pointers, strides, extents and scalars. Uniform shapes come without cu_seqlens; slot arrays come with `strided`
  /// only.
  Words words() const;
  /// Before each run: o and the final states become poison (with in_place, the final states become the initial ones).
  void poison_outputs();
  /// After each run: o and the final states can be read through data().
  void read_outputs() {
    o.unpack();
    state_out.unpack();
  }

  std::int64_t first_token(std::int64_t sequence) const { return cu_seqlens[static_cast<std::size_t>(sequence)]; }
  std::int64_t tokens(std::int64_t sequence) const { return first_token(sequence + 1) - first_token(sequence); }
  /// The [K,V] (or [V,K]) block that a kv head of a sequence starts from, or ends in: where it begins in state_in or
  /// state_out; nothing = zero state, or discarded.
  std::optional<std::int64_t> initial_place(std::int64_t sequence, std::int64_t kv_head) const;
  std::optional<std::int64_t> final_place(std::int64_t sequence, std::int64_t kv_head) const;
  /// The same in data(); null = zero state, or discarded.
  const float* initial_state(std::int64_t sequence, std::int64_t kv_head) const;
  float* final_state(std::int64_t sequence, std::int64_t kv_head);
};

}  // namespace glaive
