#include "runtime/c_abi.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

namespace glaive::c_abi {
namespace {

// A plain array, so that a thread's end runs no code of a library that may be unloaded by then.
thread_local char last_error[1024] = "";

}  // namespace

const char* last_error_text() { return last_error; }

glaive_status report(Status status, std::string_view message) {
  const std::size_t size = std::min(message.size(), sizeof last_error - 1);
  std::memcpy(last_error, message.data(), size);
  last_error[size] = 0;
  return static_cast<glaive_status>(status);
}
glaive_status report(const Error& error) { return report(error.status, error.message); }

std::unexpected<Error> refuse(std::string message) { return fail(Status::invalid_argument, std::move(message)); }

Result<void> need(const void* pointer, const char* name) {
  if (pointer != nullptr) return {};
  return refuse(std::string(name) + " is NULL");
}

Result<Span> check_tensor(Tensor& t) {
  const auto name = [&] { return std::string("args->") + t.name; };
  const bool contiguous_outer = t.outer_stride == 0;
  if (t.head_stride == 0) t.head_stride = t.inner;
  if (t.head_stride < t.inner)
    return refuse(name() + "_head_stride is " + std::to_string(t.head_stride) +
                  "; it must be 0 (contiguous) or at least " + std::to_string(t.inner) + ", the elements of one head");
  constexpr std::int64_t most_stride = std::int64_t{1} << 40;
  if (t.head_stride > most_stride or t.outer_stride > most_stride)
    return refuse(name() + " has a stride above 2^40 elements");
  if (contiguous_outer) t.outer_stride = t.heads * t.head_stride;
  if (t.outer_stride < t.inner)
    return refuse(name() + "'s outer stride is " + std::to_string(t.outer_stride) +
                  "; it must be 0 (contiguous) or at least " + std::to_string(t.inner) + ", the elements of one head");
  if (t.outer == 0) return Span{t.name, 0, 0};

  if (t.base == nullptr) return refuse(name() + " is NULL");
  const auto size = size_of(t.dtype);
  const auto begin = reinterpret_cast<std::uintptr_t>(t.base);
  if (begin % static_cast<std::uintptr_t>(size) != 0)
    return refuse(name() + " is not aligned to the " + std::to_string(size) + " bytes of a " +
                  std::string(to_string(t.dtype)));
  if (t.written) {
    const bool tokens_outside = t.outer_stride >= (t.heads - 1) * t.head_stride + t.inner;
    const bool heads_outside = t.head_stride >= (t.outer - 1) * t.outer_stride + t.inner;
    if (not tokens_outside and not heads_outside)
      return refuse(name() + " has strides under which its own elements overlap");
  }
  std::int64_t outer_reach = 0, reach = 0;
  if (__builtin_mul_overflow(t.outer - 1, t.outer_stride, &outer_reach) or
      __builtin_add_overflow(outer_reach, (t.heads - 1) * t.head_stride + t.inner, &reach) or
      __builtin_mul_overflow(reach, size, &reach) or begin + static_cast<std::uintptr_t>(reach) < begin)
    return refuse(name() + " has strides that reach past the end of memory");
  return Span{t.name, begin, begin + static_cast<std::uintptr_t>(reach)};
}

Result<float> read_scalar(const char* name, float given, float fallback, float low, float high) {
  if (given == 0) return fallback;
  if (given >= low and given <= high) return given;
  char text[160];
  std::snprintf(text, sizeof text, "args->%s is %g; it must be 0 (default) or from %g to %g", name,
                static_cast<double>(given), static_cast<double>(low), static_cast<double>(high));
  return refuse(text);
}

Result<Words> read_args(const glaive_args* given, const Problem& problem, const CallShape& shape,
                        const Span& workspace) {
  const auto raw = read_struct(given, "args", args_0_1);
  if (not raw) return std::unexpected(raw.error());
  const glaive_args& a = *raw;
  if (a.reserved != 0) return refuse("args->reserved is " + std::to_string(a.reserved) + "; it must be 0");
  const std::int64_t h = problem.heads.count(), hkv = problem.kv_heads.count();
  const std::int64_t k = problem.k.count(), v = problem.v.count();
  Tensor tensors[] = {
      {"q", a.q, shape.tokens, h, k, a.q_token_stride, a.q_head_stride, problem.io},
      {"k", a.k, shape.tokens, hkv, k, a.k_token_stride, a.k_head_stride, problem.io},
      {"v", a.v, shape.tokens, hkv, v, a.v_token_stride, a.v_head_stride, problem.io},
      {"g", a.g, shape.tokens, hkv, k, a.g_token_stride, a.g_head_stride, problem.gate},
      {"initial_state", a.initial_state, a.initial_state == nullptr ? 0 : shape.sequences, hkv, k * v,
       a.initial_state_sequence_stride, a.initial_state_head_stride, problem.state},
      {"final_state", a.final_state, a.final_state == nullptr ? 0 : shape.sequences, hkv, k * v,
       a.final_state_sequence_stride, a.final_state_head_stride, problem.state, true},
      {"o", a.o, shape.tokens, h, v, a.o_token_stride, a.o_head_stride, problem.io, true},
  };
  constexpr std::size_t initial_state = 4, final_state = 5, o = 6;
  constexpr std::size_t tensor_count = std::size(tensors);
  Span spans[tensor_count];
  for (std::size_t i = 0; i < tensor_count; ++i) {
    auto span = check_tensor(tensors[i]);
    if (not span) return std::unexpected(span.error());
    spans[i] = *span;
  }
  const Tensor &in = tensors[initial_state], &out = tensors[final_state];
  const bool in_place =
      in.base == out.base and in.outer_stride == out.outer_stride and in.head_stride == out.head_stride;
  const Span lengths = {"cu_seqlens", reinterpret_cast<std::uintptr_t>(shape.cu_seqlens),
                        reinterpret_cast<std::uintptr_t>(shape.cu_seqlens) +
                            (shape.cu_seqlens == nullptr ? 0 : static_cast<std::uintptr_t>(shape.sequences + 1) * 4)};
  for (const std::size_t written : {o, final_state}) {
    for (std::size_t other = 0; other < tensor_count; ++other) {
      if (other == written or not spans[written].overlaps(spans[other])) continue;
      if (written == final_state and other == initial_state and in_place) continue;
      return refuse(std::string("args->") + spans[written].name + " overlaps args->" + spans[other].name +
                    (written == final_state and other == initial_state
                         ? "; states may be updated in place only at the same address with the same strides"
                         : "; a buffer that is written must stand apart from all others"));
    }
    if (spans[written].overlaps(lengths))
      return refuse(std::string("args->") + spans[written].name + " overlaps shape->cu_seqlens");
  }
  for (const Span& span : spans)
    if (workspace.overlaps(span)) return refuse(std::string("workspace overlaps args->") + span.name);
  if (workspace.overlaps(lengths)) return refuse("workspace overlaps shape->cu_seqlens");

  const float largest = std::numeric_limits<float>::max();
  const float default_scale = 1.0f / std::sqrt(static_cast<float>(k));
  const auto scale = read_scalar("scale", std::isnan(a.scale) ? 0 : a.scale, default_scale, -largest, largest);
  if (not scale) return std::unexpected(scale.error());
  const float smallest = std::numeric_limits<float>::min();
  const auto tau = read_scalar("gate_tau", a.gate_tau, 1, smallest, largest);
  if (not tau) return std::unexpected(tau.error());
  const float infinity = std::numeric_limits<float>::infinity();
  const auto clamp = read_scalar("gate_clamp", a.gate_clamp, -infinity, -infinity, 0);
  if (not clamp) return std::unexpected(clamp.error());

  constexpr Arg pointer_args[] = {Arg::q, Arg::k, Arg::v, Arg::g, Arg::state_in, Arg::state_out, Arg::o};
  constexpr Arg outer_args[] = {Arg::q_token,       Arg::k_token,        Arg::v_token, Arg::g_token,
                                Arg::state_in_slot, Arg::state_out_slot, Arg::o_token};
  constexpr Arg head_args[] = {Arg::q_head,        Arg::k_head,         Arg::v_head, Arg::g_head,
                               Arg::state_in_head, Arg::state_out_head, Arg::o_head};
  Words words;
  for (std::size_t i = 0; i < tensor_count; ++i) {
    words.set_pointer(pointer_args[i], tensors[i].base);
    words[outer_args[i]] = static_cast<std::uint64_t>(tensors[i].outer_stride);
    words[head_args[i]] = static_cast<std::uint64_t>(tensors[i].head_stride);
  }
  words.set_pointer(Arg::cu_seqlens, shape.cu_seqlens);
  words.set_scalar(Arg::scale, *scale);
  words.set_scalar(Arg::gate_tau, *tau);
  words.set_scalar(Arg::gate_clamp, *clamp);
  return words;
}

}  // namespace glaive::c_abi
