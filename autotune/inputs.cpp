#include "autotune/inputs.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "autotune/dtypes.hpp"
#include "autotune/parallel.hpp"

namespace glaive {
namespace {

constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;

// NOTES: log and exp by series, so that no machine's libm can change an input. Good to about 1e-16, and rounded to f32
// after.
double portable_log(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<double>(static_cast<int>(bits >> 52) - 1023);
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent += 1;
  }
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
#pragma GCC unroll 12
  for (int n = 23; n >= 1; n -= 2) sum = sum * s2 + 1.0 / n;
  return exponent * ln2_high + (exponent * ln2_low + 2 * s * sum);
}

double portable_exp(double x) {
  if (x < -700) return 0;
  const double n = std::floor(x / (ln2_high + ln2_low) + 0.5);
  const double r = (x - n * ln2_high) - n * ln2_low;
  double sum = 1;
#pragma GCC unroll 14
  for (int i = 14; i >= 1; --i) sum = 1 + sum * (r * (1.0 / i));
  return sum * std::bit_cast<double>(static_cast<std::uint64_t>(static_cast<std::int64_t>(n) + 1023) << 52);
}

double log_sigmoid(double x) { return std::min(x, 0.0) - portable_log(1 + portable_exp(-std::abs(x))); }

/// x with log_sigmoid(x) / tau = g.
float logit_of(float g) {
  const double y = -static_cast<double>(g) * Call::gate_tau;
  if (y == 0) return 100;
  if (y > 40) return static_cast<float>(-y);
  return static_cast<float>(-portable_log(portable_exp(y) - 1));
}

std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

enum Stream : std::uint64_t { of_q, of_k, of_v, of_g, of_state, of_resets, of_uniforms };

constexpr std::int64_t head_padding = 4, token_padding = 12, state_padding = 20;

Strides strides_of(std::int64_t heads, std::int64_t dim, bool padded) {
  const std::int64_t head = dim + (padded ? head_padding : 0);
  return {heads * head + (padded ? token_padding : 0), head};
}

/// Makes rows of `dim` elements, each of a token and head, on all threads.
template <class Row>
void fill(Guarded& tensor, std::int64_t tokens, std::int64_t heads, std::int64_t dim, const Strides& strides,
          const Row& make) {
  constexpr std::int64_t elements_of_a_block = 1 << 14;
  const std::int64_t rows = std::max<std::int64_t>(elements_of_a_block / (heads * dim), 1);
  parallel(tokens, rows, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> row(static_cast<std::size_t>(dim));
    for (std::int64_t t = first; t < last; ++t)
      for (std::int64_t h = 0; h < heads; ++h) {
        make(t, h, std::span(row));
        tensor.put(t * strides.token + h * strides.head, row);
      }
  });
}

/// One index per element, rows starting at even ones.
std::uint64_t row_index(std::int64_t row, std::int64_t dim) {
  return static_cast<std::uint64_t>(row * ((dim + 1) & ~1));
}

void fill_normals(Guarded& tensor, std::int64_t tokens, std::int64_t heads, std::int64_t dim, const Strides& strides,
                  const CounterRng& rng) {
  fill(tensor, tokens, heads, dim, strides,
       [&](std::int64_t t, std::int64_t h, std::span<float> row) { rng.normals(row_index(t * heads + h, dim), row); });
}

/// The gates of one call, any row alone.
class GateRows {
 public:
  GateRows(Gates gates, std::uint64_t seed, std::int64_t heads, std::span<const std::int32_t> cu_seqlens)
      : gates_(gates),
        heads_(heads),
        cu_seqlens_(cu_seqlens),
        normals_(seed, of_g),
        uniforms_(seed, of_uniforms),
        resets_(seed, of_resets) {}

  void fill(std::int64_t t, std::int64_t h, std::span<float> row) const {
    const auto index = row_index(t * heads_ + h, static_cast<std::int64_t>(row.size()));
    Gates kind = gates_;
    if (kind == Gates::mixed) {
      constexpr Gates stretches[] = {Gates::weak, Gates::uniform40, Gates::zero, Gates::resets};
      kind = stretches[(t - *sequence_of(t)) / 64 % 4];
    }
    switch (kind) {
      case Gates::minus5:
        std::ranges::fill(row, -5.0f);
        return;
      case Gates::zero:
        std::ranges::fill(row, 0.0f);
        return;
      case Gates::uniform40:
        for (std::size_t c = 0; c < row.size(); ++c) row[c] = static_cast<float>(-40 * uniforms_.uniform(index + c));
        return;
      case Gates::resets:
      case Gates::infinite:
        if (is_reset(t)) {
          std::ranges::fill(row, kind == Gates::resets ? -1e4f : -std::numeric_limits<float>::infinity());
          return;
        }
        break;
      default:
        break;
    }
    normals_.normals(index, row);
    const double divisor = kind == Gates::logsigmoid ? 1 : 16;
    for (float& x : row) x = static_cast<float>(log_sigmoid(x) / divisor);
    if (kind == Gates::half200)
      for (std::size_t c = 1; c < row.size(); c += 2) row[c] = -200;
  }

 private:
  /// Its first token, with the next one's behind it.
  const std::int32_t* sequence_of(std::int64_t t) const { return &*std::ranges::upper_bound(cu_seqlens_, t) - 1; }

  bool is_reset(std::int64_t t) const {
    if (resets_.uniform(static_cast<std::uint64_t>(t)) < 0.02) return true;
    const auto* const sequence = sequence_of(t);  // one of its tokens is a reset whatever chance says
    const auto first = static_cast<std::uint64_t>(sequence[0]),
               length = static_cast<std::uint64_t>(sequence[1]) - first;
    return static_cast<std::uint64_t>(t) == first + resets_.bits(~first) % length;
  }

  Gates gates_;
  std::int64_t heads_;
  std::span<const std::int32_t> cu_seqlens_;
  CounterRng normals_, uniforms_, resets_;
};

std::vector<std::int32_t> cumulative_lengths(const Shape& shape) {
  std::vector<std::int32_t> sums = {0};
  for (std::int64_t b = 0; b < shape.sequences().count(); ++b)
    sums.push_back(sums.back() + static_cast<std::int32_t>(shape.length(b).count()));
  return sums;
}

}  // namespace

std::string_view to_string(Gates gates) {
  switch (gates) {
    case Gates::weak:
      return "weak";
    case Gates::logsigmoid:
      return "logsigmoid";
    case Gates::minus5:
      return "minus5";
    case Gates::uniform40:
      return "uniform40";
    case Gates::half200:
      return "half200";
    case Gates::resets:
      return "resets";
    case Gates::infinite:
      return "infinite";
    case Gates::mixed:
      return "mixed";
    case Gates::zero:
      return "zero";
  }
  return "unknown";
}

Result<Gates> parse_gates(std::string_view name) {
  std::string known;
  for (const Gates gates : all_gates) {
    if (name == to_string(gates)) return gates;
    known += (known.empty() ? "" : ", ") + std::string(to_string(gates));
  }
  return fail(Status::not_found, "there are no gates called `" + std::string(name) + "`; there are " + known);
}

std::string_view to_string(Passing passing) {
  switch (passing) {
    case Passing::stateless:
      return "stateless";
    case Passing::contiguous:
      return "contiguous";
    case Passing::strided:
      return "strided";
    case Passing::in_place:
      return "in_place";
  }
  return "unknown";
}

CounterRng::CounterRng(std::uint64_t seed, std::uint64_t stream)
    : key_(mix(mix(seed + 0x9e3779b97f4a7c15u) + (stream + 1) * 0xd1342543de82ef95u)) {}

std::uint64_t CounterRng::bits(std::uint64_t index) const { return mix(key_ + (index + 1) * 0x9e3779b97f4a7c15u); }

double CounterRng::uniform(std::uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1p-53; }

void CounterRng::normals(std::uint64_t first, std::span<float> out) const {
  // Marsaglia's polar method; a rejected point asks for another with the same index and a new attempt.
  for (std::size_t i = 0; i < out.size(); i += 2) {
    double x = 0, y = 0, r2 = 0;
    std::uint64_t word = bits(first + i);
    do {
      x = static_cast<double>(static_cast<std::int64_t>(word) >> 11) * 0x1p-52;
      word = mix(word + 0x9e3779b97f4a7c15u);
      y = static_cast<double>(static_cast<std::int64_t>(word) >> 11) * 0x1p-52;
      word = mix(word + 0x9e3779b97f4a7c15u);
      r2 = x * x + y * y;
    } while (r2 >= 1 or r2 == 0);
    const double factor = std::sqrt(-2 * portable_log(r2) / r2);
    out[i] = static_cast<float>(x * factor);
    if (i + 1 < out.size()) out[i + 1] = static_cast<float>(y * factor);
  }
}

namespace {

std::uint32_t guard_bits(std::int64_t i) { return 0x7fa07fa0u | static_cast<std::uint32_t>(i & 0x1f) * 0x10001u; }

void store(void* at, std::uint32_t bits) { std::memcpy(at, &bits, sizeof bits); }

std::uint32_t load(const void* at) {
  std::uint32_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

}  // namespace

Guarded::Guarded(std::int64_t elements, DType type, Copy copy)
    : type_(type),
      elements_(elements),
      bytes_(elements * size_of(type)),
      storage_(
          std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes_ + 8 * guard_elements + 64))) {
  const auto address = reinterpret_cast<std::uintptr_t>(storage_.get());
  memory_ = storage_.get() + (64 - address % 64) % 64 + 4 * guard_elements;
  if (type == DType::f32) {
    values_ = reinterpret_cast<float*>(memory_);
  } else if (copy == Copy::kept) {
    copy_ = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(elements));
    values_ = copy_.get();
  }
  for (std::int64_t i = 0; i < guard_elements; ++i) {
    store(memory_ - 4 - 4 * i, guard_bits(i));
    store(memory_ + bytes_ + 4 * i, guard_bits(~i));
  }
  poison();
}

namespace {

constexpr std::int64_t elements_at_once = 1 << 18;

}  // namespace

void Guarded::poison() {
  parallel(elements_, elements_at_once, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last and values_ != nullptr; ++i) store(values_ + i, poison_bits);
    for (std::int64_t i = first; i < last and type_ != DType::f32; ++i)
      std::memcpy(memory_ + 2 * i, &short_poison, sizeof short_poison);
  });
}

void Guarded::put(std::int64_t at, std::span<const float> values) {
  if (values_ != nullptr) std::ranges::copy(values, values_ + at);
  if (type_ != DType::f32) narrow_all(at, values);
}

void Guarded::get(std::int64_t at, std::span<float> values) const {
  if (values_ != nullptr)
    std::copy_n(values_ + at, values.size(), values.begin());
  else
    widen_all(at, values);
}

void Guarded::assign(const Guarded& other) {
  const auto bytes = static_cast<std::size_t>(size_of(type_));
  parallel(elements_, elements_at_once, [&](std::int64_t first, std::int64_t last) {
    const auto count = static_cast<std::size_t>(last - first), at = static_cast<std::size_t>(first);
    std::memcpy(memory_ + at * bytes, other.memory_ + at * bytes, count * bytes);
    if (copy_ != nullptr) std::copy_n(other.values_ + first, count, values_ + first);
  });
}

void Guarded::narrow_all(std::int64_t at, std::span<const float> values) {
  for (const float value : values) {
    const std::uint16_t bits = is_poison(value) ? short_poison : narrow(value, type_);
    std::memcpy(memory_ + 2 * at, &bits, sizeof bits);
    if (values_ != nullptr and not is_poison(value)) values_[at] = widen(bits, type_);
    ++at;
  }
}

void Guarded::widen_all(std::int64_t at, std::span<float> values) const {
  for (float& value : values) {
    std::uint16_t bits;
    std::memcpy(&bits, memory_ + 2 * at++, sizeof bits);
    const auto wide = std::bit_cast<std::uint32_t>(widen(bits, type_));
    store(&value, bits == short_poison ? poison_bits : wide);
  }
}

void Guarded::pack() {
  if (copy_ == nullptr) return;
  parallel(elements_, elements_at_once, [&](std::int64_t first, std::int64_t last) {
    narrow_all(first, std::span(values_ + first, values_ + last));
  });
}

void Guarded::unpack() {
  if (copy_ == nullptr) return;
  parallel(elements_, elements_at_once, [&](std::int64_t first, std::int64_t last) {
    widen_all(first, std::span(values_ + first, values_ + last));
  });
}

bool Guarded::guards_intact() const {
  for (std::int64_t i = 0; i < guard_elements; ++i)
    if (load(memory_ - 4 - 4 * i) != guard_bits(i) or load(memory_ + bytes_ + 4 * i) != guard_bits(~i)) return false;
  return true;
}

std::uint64_t Guarded::checksum() const { return XXH3_64bits(memory_, static_cast<std::size_t>(bytes_)); }

bool is_poison(float value) { return load(&value) == Guarded::poison_bits; }

Call::Call(const Case& what_, Gates gates, std::uint64_t seed, Passing passing_, Guarded::Copy copy)
    : what(what_),
      passing(passing_),
      scale(static_cast<float>(1 / std::sqrt(static_cast<double>(what.problem.k.count())))),
      gate_clamp(passing == Passing::strided ? -8 : -std::numeric_limits<float>::infinity()),
      q_strides(strides_of(what.problem.heads.count(), what.problem.k.count(), passing == Passing::strided)),
      k_strides(strides_of(what.problem.kv_heads.count(), what.problem.k.count(), passing == Passing::strided)),
      v_strides(strides_of(what.problem.kv_heads.count(), what.problem.v.count(), passing == Passing::strided)),
      g_strides(k_strides),
      o_strides(strides_of(what.problem.heads.count(), what.problem.v.count(), passing == Passing::strided)),
      state_head(what.problem.k.count() * what.problem.v.count() + (passing == Passing::strided ? state_padding : 0)),
      state_slot(what.problem.kv_heads.count() * state_head + (passing == Passing::strided ? state_padding : 0)),
      slots(passing == Passing::stateless ? 0
            : passing == Passing::strided ? what.shape.sequences().count() + 2
                                          : what.shape.sequences().count()),
      cu_seqlens(cumulative_lengths(what.shape)),
      q(what.shape.total().count() * q_strides.token, what.problem.io, copy),
      k(what.shape.total().count() * k_strides.token, what.problem.io, copy),
      v(what.shape.total().count() * v_strides.token, what.problem.io, copy),
      g(what.shape.total().count() * g_strides.token, what.problem.gate, copy),
      o(what.shape.total().count() * o_strides.token, what.problem.io, copy),
      state_in(slots * state_slot, what.problem.state, copy),
      state_out(slots * state_slot, what.problem.state, copy) {
  const std::int64_t sequences = what.shape.sequences().count(), total = what.shape.total().count();
  const std::int64_t heads = what.problem.heads.count(), kv_heads = what.problem.kv_heads.count();
  const std::int64_t dim_k = what.problem.k.count(), dim_v = what.problem.v.count();

  for (std::int64_t b = 0; b < sequences; ++b) {
    std::int64_t read = b, write = b;
    if (passing == Passing::stateless) read = write = -1;
    if (passing == Passing::strided) {
      read = b + 1 == sequences and sequences > 1 ? -1 : slots - 1 - b;
      write = b == 0 and sequences > 1 ? -1 : (b + 1) % slots;
    }
    read_slots.push_back(static_cast<std::int32_t>(read));
    write_slots.push_back(static_cast<std::int32_t>(write));
  }

  fill_normals(q, total, heads, dim_k, q_strides, {seed, of_q});
  fill_normals(k, total, kv_heads, dim_k, k_strides, {seed, of_k});
  fill_normals(v, total, kv_heads, dim_v, v_strides, {seed, of_v});
  const GateRows gate_rows(gates, seed, kv_heads, cu_seqlens);
  fill(g, total, kv_heads, dim_k, g_strides, [&](std::int64_t t, std::int64_t h, std::span<float> row) {
    gate_rows.fill(t, h, row);
    if (what.problem.gate_form == GateForm::logit) std::ranges::transform(row, row.begin(), logit_of);
  });

  // By sequence, so that every Passing starts from the same states; slots that nobody reads hold poison.
  const CounterRng rng(seed, of_state);
  parallel(sequences * kv_heads, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> state(static_cast<std::size_t>(dim_k * dim_v));
    for (std::int64_t i = first; i < last; ++i)
      if (const auto at = initial_place(i / kv_heads, i % kv_heads)) {
        rng.normals(row_index(i, dim_k * dim_v), state);
        state_in.put(*at, state);
      }
  });
  poison_outputs();
}

std::optional<std::int64_t> Call::initial_place(std::int64_t sequence, std::int64_t kv_head) const {
  const std::int64_t slot = read_slots[static_cast<std::size_t>(sequence)];
  return slot < 0 ? std::nullopt : std::optional(slot * state_slot + kv_head * state_head);
}

std::optional<std::int64_t> Call::final_place(std::int64_t sequence, std::int64_t kv_head) const {
  const std::int64_t slot = write_slots[static_cast<std::size_t>(sequence)];
  return slot < 0 ? std::nullopt : std::optional(slot * state_slot + kv_head * state_head);
}

const float* Call::initial_state(std::int64_t sequence, std::int64_t kv_head) const {
  const auto at = initial_place(sequence, kv_head);
  return at ? state_in.data().data() + *at : nullptr;
}

float* Call::final_state(std::int64_t sequence, std::int64_t kv_head) {
  const auto at = final_place(sequence, kv_head);
  return at ? state_out.data().data() + *at : nullptr;
}

Words Call::words() const {
  Words words;
  words.set_pointer(Arg::q, q.memory());
  words.set_pointer(Arg::k, k.memory());
  words.set_pointer(Arg::v, v.memory());
  words.set_pointer(Arg::g, g.memory());
  words.set_pointer(Arg::o, o.memory());
  if (passing != Passing::stateless) {
    words.set_pointer(Arg::state_in, (passing == Passing::in_place ? state_out : state_in).memory());
    words.set_pointer(Arg::state_out, state_out.memory());
  }
  if (passing == Passing::strided) {
    words.set_pointer(Arg::read_slots, read_slots.data());
    words.set_pointer(Arg::write_slots, write_slots.data());
  }
  if (not what.shape.is_uniform()) words.set_pointer(Arg::cu_seqlens, cu_seqlens.data());

  const auto set = [&](Arg arg, std::int64_t value) { words[arg] = static_cast<std::uint64_t>(value); };
  set(Arg::q_token, q_strides.token), set(Arg::q_head, q_strides.head);
  set(Arg::k_token, k_strides.token), set(Arg::k_head, k_strides.head);
  set(Arg::v_token, v_strides.token), set(Arg::v_head, v_strides.head);
  set(Arg::g_token, g_strides.token), set(Arg::g_head, g_strides.head);
  set(Arg::o_token, o_strides.token), set(Arg::o_head, o_strides.head);
  set(Arg::state_in_slot, state_slot), set(Arg::state_in_head, state_head);
  set(Arg::state_out_slot, state_slot), set(Arg::state_out_head, state_head);
  set(Arg::sequences, what.shape.sequences().count());
  set(Arg::tokens, what.shape.total().count());
  set(Arg::longest, what.shape.longest().count());
  set(Arg::heads, what.problem.heads.count());
  set(Arg::kv_heads, what.problem.kv_heads.count());
  set(Arg::slots, slots);
  words.set_scalar(Arg::scale, scale);
  words.set_scalar(Arg::gate_tau, gate_tau);
  words.set_scalar(Arg::gate_clamp, gate_clamp);
  return words;
}

void Call::poison_outputs() {
  o.poison();
  if (passing == Passing::in_place) {
    state_out.assign(state_in);
  } else {
    state_out.poison();
  }
}

}  // namespace glaive
