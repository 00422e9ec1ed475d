#include "autotune/inputs.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "autotune/dtypes.hpp"

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

template <class Fill>
void fill(Guarded& tensor, std::int64_t tokens, std::int64_t heads, std::int64_t dim, const Strides& strides,
          Fill row) {
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t h = 0; h < heads; ++h) {
      float* const at = tensor.data().data() + t * strides.token + h * strides.head;
      row(t, h, std::span(at, static_cast<std::size_t>(dim)));
    }
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

/// The gates of one call, row by row.
class GateRows {
 public:
  GateRows(Gates gates, std::uint64_t seed, std::int64_t heads)
      : gates_(gates), heads_(heads), normals_(seed, of_g), uniforms_(seed, of_uniforms), resets_(seed, of_resets) {}

  void sequence(std::int64_t first, std::int64_t length) {
    first_ = first;
    const CounterRng& r = resets_;
    forced_ = length == 0 ? -1
                          : first + static_cast<std::int64_t>(r.bits(~static_cast<std::uint64_t>(first)) %
                                                              static_cast<std::uint64_t>(length));
  }

  void fill(std::int64_t t, std::int64_t h, std::span<float> row) const {
    const auto index = row_index(t * heads_ + h, static_cast<std::int64_t>(row.size()));
    Gates kind = gates_;
    if (kind == Gates::mixed) {
      constexpr Gates stretches[] = {Gates::weak, Gates::uniform40, Gates::zero, Gates::resets};
      kind = stretches[(t - first_) / 64 % 4];
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
  bool is_reset(std::int64_t t) const { return t == forced_ or resets_.uniform(static_cast<std::uint64_t>(t)) < 0.02; }

  Gates gates_;
  std::int64_t heads_, first_ = 0, forced_ = -1;
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

Guarded::Guarded(std::int64_t elements, DType type)
    : type_(type),
      elements_(elements),
      bytes_(elements * size_of(type)),
      storage_(
          std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes_ + 8 * guard_elements + 64))) {
  const auto address = reinterpret_cast<std::uintptr_t>(storage_.get());
  memory_ = storage_.get() + (64 - address % 64) % 64 + 4 * guard_elements;
  if (type == DType::f32) {
    values_ = reinterpret_cast<float*>(memory_);
  } else {
    copy_ = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(elements));
    values_ = copy_.get();
  }
  for (std::int64_t i = 0; i < guard_elements; ++i) {
    store(memory_ - 4 - 4 * i, guard_bits(i));
    store(memory_ + bytes_ + 4 * i, guard_bits(~i));
  }
  poison();
}

void Guarded::poison() {
  for (std::int64_t i = 0; i < elements_; ++i) store(values_ + i, poison_bits);
  pack();
}

void Guarded::pack() {
  if (type_ == DType::f32) return;
  for (std::int64_t i = 0; i < elements_; ++i) {
    const std::uint16_t bits = is_poison(values_[i]) ? short_poison : narrow(values_[i], type_);
    std::memcpy(memory_ + 2 * i, &bits, sizeof bits);
  }
  unpack();
}

void Guarded::unpack() {
  if (type_ == DType::f32) return;
  for (std::int64_t i = 0; i < elements_; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, memory_ + 2 * i, sizeof bits);
    const float value = widen(bits, type_);
    store(values_ + i, bits == short_poison ? poison_bits : std::bit_cast<std::uint32_t>(value));
  }
}

bool Guarded::guards_intact() const {
  for (std::int64_t i = 0; i < guard_elements; ++i)
    if (load(memory_ - 4 - 4 * i) != guard_bits(i) or load(memory_ + bytes_ + 4 * i) != guard_bits(~i)) return false;
  return true;
}

std::uint64_t Guarded::checksum() const {
  const auto size = static_cast<std::size_t>(size_of(type_));
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < elements_; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, memory_ + i * static_cast<std::int64_t>(size), size);
    sum = (sum ^ bits) * 0x100000001b3u;
  }
  return sum;
}

bool is_poison(float value) { return load(&value) == Guarded::poison_bits; }

Call::Call(const Case& what_, Gates gates, std::uint64_t seed, Passing passing_)
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
      q(what.shape.total().count() * q_strides.token, what.problem.io),
      k(what.shape.total().count() * k_strides.token, what.problem.io),
      v(what.shape.total().count() * v_strides.token, what.problem.io),
      g(what.shape.total().count() * g_strides.token, what.problem.gate),
      o(what.shape.total().count() * o_strides.token, what.problem.io),
      state_in(slots * state_slot, what.problem.state),
      state_out(slots * state_slot, what.problem.state) {
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
  GateRows rows(gates, seed, kv_heads);
  for (std::int64_t b = 0; b < sequences; ++b) {
    rows.sequence(first_token(b), tokens(b));
    for (std::int64_t t = first_token(b); t < first_token(b + 1); ++t)
      for (std::int64_t h = 0; h < kv_heads; ++h) {
        const std::span row(g.data().data() + t * g_strides.token + h * g_strides.head,
                            static_cast<std::size_t>(dim_k));
        rows.fill(t, h, row);
        if (what.problem.gate_form == GateForm::logit) std::ranges::transform(row, row.begin(), logit_of);
      }
  }

  // By sequence, so that every Passing starts from the same states; slots that nobody reads hold poison.
  const CounterRng rng(seed, of_state);
  for (std::int64_t b = 0; b < sequences; ++b)
    for (std::int64_t h = 0; h < kv_heads; ++h) {
      auto* const at = const_cast<float*>(initial_state(b, h));
      if (at != nullptr)
        rng.normals(row_index(b * kv_heads + h, dim_k * dim_v), {at, static_cast<std::size_t>(dim_k * dim_v)});
    }
  for (Guarded* const tensor : {&q, &k, &v, &g, &state_in}) tensor->pack();
  poison_outputs();
}

const float* Call::initial_state(std::int64_t sequence, std::int64_t kv_head) const {
  const std::int64_t slot = read_slots[static_cast<std::size_t>(sequence)];
  return slot < 0 ? nullptr : state_in.data().data() + slot * state_slot + kv_head * state_head;
}

float* Call::final_state(std::int64_t sequence, std::int64_t kv_head) {
  const std::int64_t slot = write_slots[static_cast<std::size_t>(sequence)];
  return slot < 0 ? nullptr : state_out.data().data() + slot * state_slot + kv_head * state_head;
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
    std::ranges::copy(state_in.data(), state_out.data().begin());
    state_out.pack();
  } else {
    state_out.poison();
  }
}

}  // namespace glaive
