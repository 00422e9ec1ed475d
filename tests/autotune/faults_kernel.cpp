// GLA forward for K=V=8 in f32, layout kv, log gates, with the mistakes of faults_kinds.hpp: real machine code to load
// and suffer from.
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "runtime/plan.hpp"

namespace {

using glaive::Arg;

constexpr std::int64_t dim = 8;
constexpr std::int64_t large = 400;  // tokens: more than any verification case has

struct View {
  const std::uint64_t* words;
  template <class T = float>
  T* pointer(Arg arg) const {
    return reinterpret_cast<T*>(words[static_cast<std::size_t>(arg)]);
  }
  std::int64_t integer(Arg arg) const { return static_cast<std::int64_t>(words[static_cast<std::size_t>(arg)]); }
  float scalar(Arg arg) const {
    const auto bits = static_cast<std::uint32_t>(words[static_cast<std::size_t>(arg)]);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};

float* state_of(const View& view, Arg base, Arg slots, Arg slot_stride, Arg head_stride, std::int64_t b,
                std::int64_t h) {
  auto* const states = view.pointer(base);
  const auto* const numbers = view.pointer<const std::int32_t>(slots);
  const std::int64_t slot = numbers == nullptr ? b : numbers[b];
  return states == nullptr or slot < 0 ? nullptr
                                       : states + slot * view.integer(slot_stride) + h * view.integer(head_stride);
}

/// What the arithmetic does, done `times` times. `o` is multiplied with o_factor, the stored state with state_factor.
void right(const std::uint64_t* words, std::int64_t task, int times, double o_factor = 1, double state_factor = 1) {
  const View view{words};
  const std::int64_t kv_heads = view.integer(Arg::kv_heads), group = view.integer(Arg::heads) / kv_heads;
  const std::int64_t b = task / kv_heads, h = task % kv_heads, longest = view.integer(Arg::longest);
  const auto* const lengths = view.pointer<const std::int32_t>(Arg::cu_seqlens);
  const std::int64_t first = lengths == nullptr ? b * longest : lengths[b];
  const std::int64_t end = lengths == nullptr ? first + longest : lengths[b + 1];
  const float* const initial =
      state_of(view, Arg::state_in, Arg::read_slots, Arg::state_in_slot, Arg::state_in_head, b, h);
  float* const final_state =
      state_of(view, Arg::state_out, Arg::write_slots, Arg::state_out_slot, Arg::state_out_head, b, h);
  const auto row = [&](Arg tensor, Arg token, Arg head, std::int64_t t, std::int64_t n) {
    return view.pointer(tensor) + t * view.integer(token) + n * view.integer(head);
  };
  double s[dim][dim];
  for (int i = 0; i < times; ++i) {
    for (std::int64_t k = 0; k < dim; ++k)
      for (std::int64_t v = 0; v < dim; ++v) s[k][v] = initial == nullptr ? 0 : initial[k * dim + v];
    asm volatile("" : : "r"(&s) : "memory");  // so that the compiler does not see that the rounds are alike
    for (std::int64_t t = first; t < end; ++t) {
      const float* const k_row = row(Arg::k, Arg::k_token, Arg::k_head, t, h);
      const float* const v_row = row(Arg::v, Arg::v_token, Arg::v_head, t, h);
      const float* const g_row = row(Arg::g, Arg::g_token, Arg::g_head, t, h);
      for (std::int64_t k = 0; k < dim; ++k) {
        const double decay = std::exp(static_cast<double>(g_row[k]));
        for (std::int64_t v = 0; v < dim; ++v) s[k][v] = decay * s[k][v] + static_cast<double>(k_row[k]) * v_row[v];
      }
      for (std::int64_t n = h * group; n < (h + 1) * group; ++n) {
        const float* const q_row = row(Arg::q, Arg::q_token, Arg::q_head, t, n);
        float* const out = row(Arg::o, Arg::o_token, Arg::o_head, t, n);
        for (std::int64_t v = 0; v < dim; ++v) {
          double sum = 0;
          for (std::int64_t k = 0; k < dim; ++k) sum += q_row[k] * s[k][v];
          out[v] = static_cast<float>(sum * static_cast<double>(view.scalar(Arg::scale)) * o_factor);
        }
      }
    }
  }
  if (final_state == nullptr) return;
  for (std::int64_t k = 0; k < dim; ++k)
    for (std::int64_t v = 0; v < dim; ++v) final_state[k * dim + v] = static_cast<float>(s[k][v] * state_factor);
}

bool is_large(const std::uint64_t* words) { return View{words}.integer(Arg::longest) >= large; }
std::int64_t o_elements(const std::uint64_t* words) {  // contiguous
  const View view{words};
  return view.integer(Arg::tokens) * view.integer(Arg::o_token);
}

volatile int zero = 0;
void* volatile nowhere = nullptr;

[[gnu::noinline]] int recurse(volatile char* above) {
  volatile char frame[1 << 16];
  frame[0] = above[0];
  if (zero == 7) return 0;
  return recurse(frame) + frame[0];
}

[[noreturn]] void spin() {
  for (;;) asm volatile("" ::: "memory");
}

int runs = 0;

}  // namespace

#define ENTRY(name) extern "C" void name(const std::uint64_t* words, std::int64_t task, void* scratch)
#define UNUSED static_cast<void>(words), static_cast<void>(task), static_cast<void>(scratch)

ENTRY(right_2) { UNUSED, right(words, task, 2); }
ENTRY(right_3) { UNUSED, right(words, task, 3); }
ENTRY(right_4) { UNUSED, right(words, task, 4); }
ENTRY(right_5) { UNUSED, right(words, task, 5); }

ENTRY(segv) {
  UNUSED;
  *static_cast<volatile int*>(nowhere) = 1;
}
ENTRY(ill) { UNUSED, __builtin_trap(); }
ENTRY(abort_now) { UNUSED, std::abort(); }
ENTRY(divide) {
  UNUSED;
  zero = 10 / zero;
}
ENTRY(stack_overflow) {
  UNUSED;
  volatile char here = 1;
  zero = recurse(&here);
}
ENTRY(exit_now) { UNUSED, _exit(0); }
ENTRY(segv_when_large) {
  UNUSED, right(words, task, 1);
  if (is_large(words)) *static_cast<volatile int*>(nowhere) = 1;
}
ENTRY(abort_in_the_end) {
  UNUSED, right(words, task, 1);
  if (is_large(words) and ++runs > 12) std::abort();
}
ENTRY(spin_now) { UNUSED, spin(); }
ENTRY(sleep_now) {
  UNUSED;
  for (;;) pause();
}
ENTRY(spin_when_large) {
  UNUSED, right(words, task, 1);
  if (is_large(words)) spin();
}
ENTRY(hungry) {
  UNUSED;
  for (;;) asm volatile("" : : "r"(new char[std::size_t{1} << 24]) : "memory");
}
ENTRY(before_o) {
  UNUSED, right(words, task, 1);
  View{words}.pointer(Arg::o)[-1] = 0;
}
ENTRY(after_o) {
  UNUSED, right(words, task, 1);
  const View view{words};
  view.pointer(Arg::o)[o_elements(words) + 3] = 0;
}
ENTRY(after_state) {
  UNUSED, right(words, task, 1);
  const View view{words};
  if (auto* const states = view.pointer(Arg::state_out); states != nullptr)
    states[view.integer(Arg::slots) * view.integer(Arg::state_out_slot) + 7] = 0;
}
ENTRY(after_scratch) {
  UNUSED, right(words, task, 1);
  static_cast<float*>(scratch)[64] = 1;  // beyond the 16 of each of two workers
}
ENTRY(writes_input) {
  UNUSED, right(words, task, 1);
  if (View{words}.integer(Arg::tokens) > 0) View{words}.pointer(Arg::q)[0] += 1;
}
ENTRY(after_o_when_large) {
  UNUSED, right(words, task, 1);
  if (is_large(words)) View{words}.pointer(Arg::o)[o_elements(words) + 3] = 0;
}
ENTRY(nan_now) {
  UNUSED, right(words, task, 1);
  if (View{words}.integer(Arg::tokens) > 0) View{words}.pointer(Arg::o)[1] = std::numeric_limits<float>::quiet_NaN();
}
ENTRY(unwritten) { UNUSED; }
ENTRY(wrong_much) { UNUSED, right(words, task, 1, 2); }
ENTRY(wrong_little) { UNUSED, right(words, task, 1, 1 + 2e-5); }
ENTRY(wrong_once) {
  UNUSED, right(words, task, 1);
  if (View{words}.integer(Arg::longest) == 77 and task == 0) View{words}.pointer(Arg::o)[5] += 0.05f;
}
ENTRY(wrong_when_large) { UNUSED, right(words, task, 1, is_large(words) ? 1.01 : 1); }
ENTRY(wrong_state) { UNUSED, right(words, task, 1, 1, 1 + 2e-5); }
ENTRY(wanders) {
  UNUSED, right(words, task, 1);
  float* const o = View{words}.pointer(Arg::o);
  if (View{words}.integer(Arg::tokens) > 0 and task == 0 and ++runs % 2 == 0) o[1] = std::nextafter(o[1], 100.0f);
}
