#include "runtime/call.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

namespace glaive::c_abi {
namespace {

inline std::int64_t bytes_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

bool is_aligned(const void* pointer, std::size_t alignment) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & (alignment - 1)) == 0;
}

/// A tensor [outer, heads, inner] with an outer (token or slot) and a head stride, in elements; 0 = contiguous.
struct Tensor {
  const void* base;
  std::int64_t outer, heads, inner;
  std::int64_t outer_stride, head_stride;
  std::int64_t size;  ///< bytes of an element
  Span span = {};     ///< from the first element to the last
};

enum class Wrong { nothing, head_stride, far_stride, outer_stride, null, alignment, reach, overlap };
constexpr int stride_bits = 40;

/// Fills in contiguous strides and the span; checks strides, the pointer and its alignment.
[[gnu::always_inline]] inline Wrong check(Tensor& t, bool written) {
  if (t.head_stride == 0) t.head_stride = t.inner;
  if (t.head_stride < t.inner) return Wrong::head_stride;
  if ((t.head_stride | t.outer_stride) >> stride_bits != 0)
    return t.outer_stride < 0 ? Wrong::outer_stride : Wrong::far_stride;
  if (t.outer_stride == 0) t.outer_stride = t.heads * t.head_stride;
  if (t.outer_stride < t.inner) return Wrong::outer_stride;
  if (t.outer == 0) return Wrong::nothing;

  if (t.base == nullptr) return Wrong::null;
  if (not is_aligned(t.base, static_cast<std::size_t>(t.size))) return Wrong::alignment;
  // 65,536 heads reach 2^57 at most: with this bound on the rest nothing below overflows.
  const std::int64_t heads_reach = (t.heads - 1) * t.head_stride + t.inner;
  std::int64_t outer_reach = 0;
  if (__builtin_mul_overflow(t.outer - 1, t.outer_stride, &outer_reach) or outer_reach >> 59 != 0) return Wrong::reach;
  const std::int64_t bytes = (outer_reach + heads_reach) * t.size;
  if (reinterpret_cast<std::uintptr_t>(t.base) + static_cast<std::uintptr_t>(bytes) <
      static_cast<std::uintptr_t>(bytes))
    return Wrong::reach;
  if (written and t.outer_stride < heads_reach and t.head_stride < outer_reach + t.inner) return Wrong::overlap;
  t.span.begin = reinterpret_cast<std::uintptr_t>(t.base);
  t.span.end = t.span.begin + static_cast<std::uintptr_t>(bytes);
  return Wrong::nothing;
}

[[gnu::cold]] std::unexpected<Error> explain(Wrong wrong, Tensor t, const std::string& name, const char* outer) {
  const auto stride = [&](std::int64_t given) {
    return " is " + std::to_string(given) + "; it must be 0 (contiguous) or at least " + std::to_string(t.inner) +
           ", the elements of one head";
  };
  switch (wrong) {
    case Wrong::head_stride:
      return refuse(name + "_head_stride" + stride(t.head_stride));
    case Wrong::far_stride:
      return refuse(name + " has a stride of 2^40 elements or more");
    case Wrong::outer_stride:
      return refuse(name + outer + stride(t.outer_stride));
    case Wrong::null:
      return refuse(name + " is NULL");
    case Wrong::alignment:
      return refuse(name + " is not aligned to the " + std::to_string(t.size) + " bytes of an element");
    case Wrong::reach:
      return refuse(name + " has strides that reach past the end of memory");
    case Wrong::overlap:
    case Wrong::nothing:
      break;
  }
  return refuse(name + " has strides under which its own elements overlap");
}

// The buffers of a call, those that are written first.
enum Buffer : std::size_t { workspace_, o_, out_, status_, q_, k_, v_, g_, in_, lengths_, reads_, writes_, buffers_ };
constexpr std::size_t written_buffers = q_;
constexpr const char* buffer_names[buffers_] = {
    "workspace", "args->o", "args->final_state",   "args->device_status", "args->q",          "args->k",
    "args->v",   "args->g", "args->initial_state", "shape->cu_seqlens",   "args->read_slots", "args->write_slots"};

[[gnu::cold]] std::unexpected<Error> explain_overlap(std::size_t written, std::size_t other) {
  return refuse(std::string(buffer_names[written]) + " overlaps " + buffer_names[other] +
                (written == out_ and other == in_
                     ? "; states may be updated in place only at the same address with the same strides"
                     : "; a buffer that is written must stand apart from all others"));
}

[[gnu::cold]] std::unexpected<Error> refuse_scalar(const char* name, float given, float low, float high) {
  char text[160];
  std::snprintf(text, sizeof text, "args->%s is %g; it must be 0 (default) or from %g to %g", name,
                static_cast<double>(given), static_cast<double>(low), static_cast<double>(high));
  return refuse(text);
}

/// What must be so for a slot array to make sense.
Result<void> check_slots(const glaive_args& a, std::int64_t slots, std::int64_t sequences) {
  if (a.read_slots != nullptr and a.initial_state == nullptr)
    return refuse("args->read_slots is given without args->initial_state");
  if (a.write_slots != nullptr and a.final_state == nullptr)
    return refuse("args->write_slots is given without args->final_state");
  if (not is_aligned(a.read_slots, 4)) return refuse("args->read_slots is not aligned to 4 bytes");
  if (not is_aligned(a.write_slots, 4)) return refuse("args->write_slots is not aligned to 4 bytes");
  constexpr std::int64_t most_slots = 0x7fffffff;
  if (slots < 1 or slots > most_slots)
    return refuse("args->slots is " + std::to_string(slots) +
                  "; with slot arrays it is the number of places in the "
                  "state buffers, from 1 to " +
                  std::to_string(most_slots));
  const bool by_number = (a.initial_state != nullptr and a.read_slots == nullptr) or
                         (a.final_state != nullptr and a.write_slots == nullptr);
  if (by_number and slots < sequences)
    return refuse("args->slots is " + std::to_string(slots) + ", fewer than the " + std::to_string(sequences) +
                  " sequences, each of which uses the slot of its own number where a slot array is NULL");
  return {};
}

/// What the kernel must take for this call to mean what it says.
Result<void> check_taken(const glaive_plan& plan, const glaive_args& a, const CallShape& shape) {
  const auto lacks = [&](Arg arg) { return (plan.takes >> static_cast<unsigned>(arg) & 1) == 0; };
  const auto unsupported = [&](const char* what) {
    return fail(Status::unsupported, "the plan's kernel, " + plan.kernel->plan().variant + ", takes no " + what);
  };
  if (a.read_slots != nullptr and lacks(Arg::read_slots)) return unsupported("args->read_slots");
  if (a.write_slots != nullptr and lacks(Arg::write_slots)) return unsupported("args->write_slots");
  if (shape.cu_seqlens != nullptr and lacks(Arg::cu_seqlens)) return unsupported("shape->cu_seqlens");
  return {};
}

}  // namespace

Extents CallShape::extents(const Problem& problem, int workers) const {
  return extents_of(problem, Sequences(sequences), Tokens(tokens), Tokens(longest), workers);
}

Result<CallShape> read_shape(const glaive_shape* given, const Problem& problem) {
  glaive_shape copy;
  const auto raw = view_struct(given, "shape", shape_0_1, copy);
  if (not raw) return std::unexpected(raw.error());
  const glaive_shape& s = **raw;
  const bool uniform = s.cu_seqlens == nullptr;
  CallShape shape = {s.sequences, s.tokens, s.longest, s.cu_seqlens};
  const auto in_bounds = [&] { return s.sequences >= 1 and s.sequences <= most_call_sequences and s.tokens >= 0; };
  if (uniform) {
    shape.longest = s.tokens;
    if (not in_bounds() or __builtin_mul_overflow(s.sequences, s.tokens, &shape.tokens) or
        shape.tokens > most_call_tokens)
      return refuse("shape: " + validate(Shape::uniform(Sequences(s.sequences), Tokens(s.tokens))).error().message);
    if (s.longest != 0 and s.longest != s.tokens)
      return refuse("shape->longest is " + std::to_string(s.longest) + " without cu_seqlens; leave it 0");
  } else {
    // The rules of a uniform shape with so many sequences, and of one sequence with so many tokens.
    for (const Shape& rule :
         {Shape::uniform(Sequences(s.sequences), Tokens(0)), Shape::uniform(Sequences(1), Tokens(s.tokens))})
      if (auto valid = validate(rule); not valid) return refuse("shape: " + valid.error().message);
    if (not is_aligned(s.cu_seqlens, 4)) return refuse("shape->cu_seqlens is not aligned to 4 bytes");
    if (s.longest < 0 or s.longest > s.tokens)
      return refuse("shape->longest is " + std::to_string(s.longest) + "; it must be from 0 to the " +
                    std::to_string(s.tokens) + " tokens of all sequences");
  }
  if (problem.op == Op::step and shape.longest > most_step_tokens)
    return refuse("shape: a step takes at most " + std::to_string(most_step_tokens) + " tokens of each sequence, not " +
                  std::to_string(shape.longest) + "; a forward problem takes more");
  return shape;
}

Result<void> check_lengths(const CallShape& shape, Lengths lengths) {
  const std::int32_t* const cu = shape.cu_seqlens;
  if (cu == nullptr) return {};
  if (cu[0] != 0) return refuse("shape->cu_seqlens[0] is " + std::to_string(cu[0]) + ", not 0");
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < shape.sequences; ++b) {
    const std::int64_t length = std::int64_t{cu[b + 1]} - cu[b];
    if (length < 0) return refuse("shape->cu_seqlens[" + std::to_string(b + 1) + "] is less than the number before it");
    longest = std::max(longest, length);
  }
  const auto fits = [&](std::int64_t given, std::int64_t extent) {
    return given == extent or (lengths == Lengths::within and given < extent);
  };
  if (not fits(cu[shape.sequences], shape.tokens))
    return refuse("shape->tokens is " + std::to_string(shape.tokens) + ", but the last of cu_seqlens is " +
                  std::to_string(cu[shape.sequences]));
  if (not fits(longest, shape.longest))
    return refuse("shape->longest is " + std::to_string(shape.longest) +
                  ", but the longest sequence of cu_seqlens has " + std::to_string(longest) + " tokens");
  return {};
}

Result<void> read_launch(const glaive_plan& plan, const glaive_shape* given_shape, const glaive_args* given_args,
                         void* workspace, std::size_t bytes, Lengths lengths, Launch& launch) {
  const auto shape = read_shape(given_shape, plan.problem);
  if (not shape) return std::unexpected(shape.error());
  if (shape->cu_seqlens != nullptr and plan.device->is_host())
    if (auto checked = check_lengths(*shape, lengths); not checked) return checked;
  return read_launch(plan, *shape, given_args, workspace, bytes, Span(), launch);
}

Result<void> read_launch(const glaive_plan& plan, const CallShape& shape, const glaive_args* given_args,
                         void* workspace, std::size_t bytes, const Span& pool, Launch& launch) {
  const Problem& problem = plan.problem;
  const Device& device = *plan.device;
  glaive_args copy;
  const auto raw = view_struct(given_args, "args", args_0_1, copy);
  if (not raw) return std::unexpected(raw.error());
  const glaive_args& a = **raw;
  if (a.reserved != 0) return refuse("args->reserved is " + std::to_string(a.reserved) + "; it must be 0");
  if (a.stream != nullptr and device.is_host())
    return refuse("args->stream is set, but a CPU has no streams: leave it NULL");
  if (not is_aligned(a.device_status, 4)) return refuse("args->device_status is not aligned to 4 bytes");
  if (auto taken = check_taken(plan, a, shape); not taken) return taken;
  const bool has_arrays = a.read_slots != nullptr or a.write_slots != nullptr;
  const std::int64_t slots = a.slots == 0 and not has_arrays ? shape.sequences : a.slots;
  if (auto fit = check_slots(a, slots, shape.sequences); not fit) return fit;

  const std::int64_t h = problem.heads.count(), hkv = problem.kv_heads.count();
  const std::int64_t k = problem.k.count(), v = problem.v.count();
  const std::int64_t io = bytes_of(problem.io), gate = bytes_of(problem.gate), state = bytes_of(problem.state);
  Words& words = launch.words;
  Span spans[buffers_];
  // One tensor after the other, so that each stays in registers; the words and spans are all that is kept.
  struct {
    Wrong wrong;
    Buffer buffer;
    Tensor tensor;
  } bad;
  const auto take = [&](Buffer buffer, Arg base, Arg outer, Arg head, Tensor t) __attribute__((always_inline)) {
    if (const Wrong wrong = check(t, buffer < written_buffers); wrong != Wrong::nothing) [[unlikely]] {
      bad = {wrong, buffer, t};
      return false;
    }
    words.set_pointer(base, t.base);
    words[outer] = static_cast<std::uint64_t>(t.outer_stride);
    words[head] = static_cast<std::uint64_t>(t.head_stride);
    spans[buffer] = t.span;
    return true;
  };
  const bool taken =
      take(q_, Arg::q, Arg::q_token, Arg::q_head, {a.q, shape.tokens, h, k, a.q_token_stride, a.q_head_stride, io}) and
      take(k_, Arg::k, Arg::k_token, Arg::k_head,
           {a.k, shape.tokens, hkv, k, a.k_token_stride, a.k_head_stride, io}) and
      take(v_, Arg::v, Arg::v_token, Arg::v_head,
           {a.v, shape.tokens, hkv, v, a.v_token_stride, a.v_head_stride, io}) and
      take(g_, Arg::g, Arg::g_token, Arg::g_head,
           {a.g, shape.tokens, hkv, k, a.g_token_stride, a.g_head_stride, gate}) and
      take(o_, Arg::o, Arg::o_token, Arg::o_head, {a.o, shape.tokens, h, v, a.o_token_stride, a.o_head_stride, io}) and
      take(in_, Arg::state_in, Arg::state_in_slot, Arg::state_in_head,
           {a.initial_state, a.initial_state == nullptr ? 0 : slots, hkv, k * v, a.initial_state_slot_stride,
            a.initial_state_head_stride, state}) and
      take(out_, Arg::state_out, Arg::state_out_slot, Arg::state_out_head,
           {a.final_state, a.final_state == nullptr ? 0 : slots, hkv, k * v, a.final_state_slot_stride,
            a.final_state_head_stride, state});
  if (not taken)
    return explain(bad.wrong, bad.tensor, buffer_names[bad.buffer],
                   bad.buffer == in_ or bad.buffer == out_ ? "_slot_stride" : "_token_stride");

  launch.extents = shape.extents(problem, device.workers());
  const auto needed = static_cast<std::size_t>(plan.workspace_bytes(launch.extents));
  if (bytes < needed)
    return refuse("workspace_bytes is " + std::to_string(bytes) + "; this call needs " + std::to_string(needed));
  if (needed > 0 and workspace == nullptr)
    return refuse("workspace is NULL; this call needs " + std::to_string(needed) + " bytes");
  if (not is_aligned(workspace, workspace_alignment))
    return refuse("workspace is not aligned to " + std::to_string(workspace_alignment) + " bytes");

  spans[workspace_] = {workspace, static_cast<std::int64_t>(needed)};
  spans[status_] = {a.device_status, 4};
  spans[lengths_] = {shape.cu_seqlens, (shape.sequences + 1) * 4};
  spans[reads_] = {a.read_slots, shape.sequences * 4};
  spans[writes_] = {a.write_slots, shape.sequences * 4};
  const bool in_place = a.initial_state == a.final_state and words[Arg::state_in_slot] == words[Arg::state_out_slot] and
                        words[Arg::state_in_head] == words[Arg::state_out_head];
  if (in_place) spans[in_] = {};
  if (spans[workspace_].overlaps(pool)) return refuse("workspace overlaps the pool's memory");
  if (spans[o_].overlaps(pool)) return refuse("args->o overlaps the pool's memory");
#pragma GCC unroll 4
  for (std::size_t i = 0; i < written_buffers; ++i)
#pragma GCC unroll 12
    for (std::size_t j = i + 1; j < buffers_; ++j)
      if (spans[i].overlaps(spans[j])) return explain_overlap(i, j);

  constexpr float largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::min();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float scale = a.scale == 0 or std::isnan(a.scale) ? plan.default_scale : a.scale;
  const float tau = a.gate_tau == 0 ? 1 : a.gate_tau;
  const float clamp = a.gate_clamp == 0 ? -infinity : a.gate_clamp;
  if (not(scale >= -largest and scale <= largest)) return refuse_scalar("scale", scale, -largest, largest);
  if (not(tau >= smallest and tau <= largest)) return refuse_scalar("gate_tau", tau, smallest, largest);
  if (not(clamp <= 0)) return refuse_scalar("gate_clamp", clamp, -infinity, 0);

  words.set_pointer(Arg::read_slots, a.read_slots);
  words.set_pointer(Arg::write_slots, a.write_slots);
  words.set_pointer(Arg::cu_seqlens, shape.cu_seqlens);
  words.set_pointer(Arg::device_status, a.device_status);
  words.set_pointer(Arg::workspace, workspace);
  words[Arg::mapped] = 0;
  words[Arg::slots] = static_cast<std::uint64_t>(slots);
  words.set_extents(launch.extents);
  words.set_scalar(Arg::scale, scale);
  words.set_scalar(Arg::gate_tau, tau);
  words.set_scalar(Arg::gate_clamp, clamp);
  launch.workspace = workspace;
  launch.stream = a.stream;
  return {};
}

}  // namespace glaive::c_abi
