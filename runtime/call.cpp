#include "runtime/call.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

namespace glaive::c_abi {
namespace {

bool is_aligned(const void* pointer, std::size_t alignment) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & (alignment - 1)) == 0;
}

/// A tensor [outer, heads, inner] with an outer (token or slot) and a head stride, in elements; 0 = contiguous.
struct Tensor {
  const char* name;
  const void* base;
  std::int64_t outer, heads, inner;
  std::int64_t outer_stride, head_stride;
  DType dtype;
  bool written = false;
  std::int64_t bytes = 0;  ///< from the first element to the last, found by `check`

  Span span() const { return {name, base, bytes}; }
};

/// Fills in contiguous strides and the bytes; checks strides, the pointer and its alignment.
Result<void> check(Tensor& t) {
  const auto name = [&] { return std::string(t.name); };
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
  if (t.outer == 0) return {};

  if (t.base == nullptr) return refuse(name() + " is NULL");
  const std::int64_t size = size_of(t.dtype);
  if (not is_aligned(t.base, static_cast<std::size_t>(size)))
    return refuse(name() + " is not aligned to the " + std::to_string(size) + " bytes of a " +
                  std::string(to_string(t.dtype)));
  const std::int64_t heads_reach = (t.heads - 1) * t.head_stride + t.inner;
  std::int64_t outer_reach = 0, reach = 0;
  if (__builtin_mul_overflow(t.outer - 1, t.outer_stride, &outer_reach) or
      __builtin_add_overflow(outer_reach, heads_reach, &reach) or __builtin_mul_overflow(reach, size, &t.bytes) or
      reinterpret_cast<std::uintptr_t>(t.base) > UINTPTR_MAX - static_cast<std::uintptr_t>(t.bytes))
    return refuse(name() + " has strides that reach past the end of memory");
  if (t.written and t.outer_stride < heads_reach and t.head_stride < outer_reach + t.inner)
    return refuse(name() + " has strides under which its own elements overlap");
  return {};
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
    return refuse("args->slots is " + std::to_string(slots) + "; with slot arrays it is the number of places in the "
                  "state buffers, from 1 to " + std::to_string(most_slots));
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
  Extents extents;
  extents[Axis::sequences] = sequences;
  extents[Axis::tokens] = tokens;
  extents[Axis::longest] = longest;
  extents[Axis::heads] = problem.heads.count();
  extents[Axis::kv_heads] = problem.kv_heads.count();
  extents[Axis::k] = problem.k.count();
  extents[Axis::v] = problem.v.count();
  extents[Axis::workers] = workers;
  return extents;
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
    if (not in_bounds() or __builtin_mul_overflow(s.sequences, s.tokens, &shape.tokens) or shape.tokens > most_call_tokens)
      return refuse("shape: " + validate(Shape::uniform(Sequences(s.sequences), Tokens(s.tokens))).error().message);
    if (s.longest != 0 and s.longest != s.tokens)
      return refuse("shape->longest is " + std::to_string(s.longest) + " without cu_seqlens; leave it 0");
  } else {
    // The rules of a uniform shape with so many sequences, and of one sequence with so many tokens.
    for (const Shape& rule : {Shape::uniform(Sequences(s.sequences), Tokens(0)),
                              Shape::uniform(Sequences(1), Tokens(s.tokens))})
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

Result<void> check_lengths(const CallShape& shape) {
  const std::int32_t* const cu = shape.cu_seqlens;
  if (cu == nullptr) return {};
  if (cu[0] != 0) return refuse("shape->cu_seqlens[0] is " + std::to_string(cu[0]) + ", not 0");
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < shape.sequences; ++b) {
    const std::int64_t length = std::int64_t{cu[b + 1]} - cu[b];
    if (length < 0) return refuse("shape->cu_seqlens[" + std::to_string(b + 1) + "] is less than the number before it");
    longest = std::max(longest, length);
  }
  if (cu[shape.sequences] != shape.tokens)
    return refuse("shape->tokens is " + std::to_string(shape.tokens) + ", but the last of cu_seqlens is " +
                  std::to_string(cu[shape.sequences]));
  if (shape.longest != longest)
    return refuse("shape->longest is " + std::to_string(shape.longest) +
                  ", but the longest sequence of cu_seqlens has " + std::to_string(longest) + " tokens");
  return {};
}

Result<void> read_launch(const glaive_plan& plan, const glaive_shape* given_shape, const glaive_args* given_args,
                         void* workspace, std::size_t bytes, Launch& launch) {
  const auto shape = read_shape(given_shape, plan.problem);
  if (not shape) return std::unexpected(shape.error());
  if (shape->cu_seqlens != nullptr and plan.device->is_host())
    if (auto checked = check_lengths(*shape); not checked) return checked;
  return read_launch(plan, *shape, given_args, workspace, bytes, Span("", nullptr, 0), launch);
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
  const auto state_slots = [&](const void* base) { return base == nullptr ? 0 : slots; };
  Tensor tensors[] = {
      {"args->q", a.q, shape.tokens, h, k, a.q_token_stride, a.q_head_stride, problem.io},
      {"args->k", a.k, shape.tokens, hkv, k, a.k_token_stride, a.k_head_stride, problem.io},
      {"args->v", a.v, shape.tokens, hkv, v, a.v_token_stride, a.v_head_stride, problem.io},
      {"args->g", a.g, shape.tokens, hkv, k, a.g_token_stride, a.g_head_stride, problem.gate},
      {"args->o", a.o, shape.tokens, h, v, a.o_token_stride, a.o_head_stride, problem.io, true},
      {"args->initial_state", a.initial_state, state_slots(a.initial_state), hkv, k * v, a.initial_state_slot_stride,
       a.initial_state_head_stride, problem.state},
      {"args->final_state", a.final_state, state_slots(a.final_state), hkv, k * v, a.final_state_slot_stride,
       a.final_state_head_stride, problem.state, true},
  };
  for (Tensor& tensor : tensors)
    if (auto checked = check(tensor); not checked) return checked;
  const auto& [q, kk, vv, g, o, in, out] = tensors;

  launch.extents = shape.extents(problem, device.workers());
  const auto needed = static_cast<std::size_t>(workspace_bytes(plan.kernel->plan(), launch.extents));
  if (bytes < needed)
    return refuse("workspace_bytes is " + std::to_string(bytes) + "; this call needs " + std::to_string(needed));
  if (needed > 0 and workspace == nullptr)
    return refuse("workspace is NULL; this call needs " + std::to_string(needed) + " bytes");
  if (not is_aligned(workspace, workspace_alignment))
    return refuse("workspace is not aligned to " + std::to_string(workspace_alignment) + " bytes");

  const bool in_place =
      in.base == out.base and in.outer_stride == out.outer_stride and in.head_stride == out.head_stride;
  const Span written[] = {{"workspace", workspace, static_cast<std::int64_t>(needed)},
                          o.span(),
                          out.span(),
                          {"args->device_status", a.device_status, 4}};
  const Span others[] = {q.span(),
                         kk.span(),
                         vv.span(),
                         g.span(),
                         in_place ? Span(in.name, nullptr, 0) : in.span(),
                         {"shape->cu_seqlens", shape.cu_seqlens, (shape.sequences + 1) * 4},
                         {"args->read_slots", a.read_slots, shape.sequences * 4},
                         {"args->write_slots", a.write_slots, shape.sequences * 4}};
  for (const Span& span : {written[0], written[1]})
    if (span.overlaps(pool)) return refuse(std::string(span.name) + " overlaps " + pool.name);
  for (std::size_t i = 0; i < std::size(written); ++i) {
    const auto clash = [&](const Span& other) {
      return refuse(std::string(written[i].name) + " overlaps " + other.name +
                    (written[i].name == out.name and other.name == in.name
                         ? "; states may be updated in place only at the same address with the same strides"
                         : "; a buffer that is written must stand apart from all others"));
    };
    for (const Span& other : others)
      if (written[i].overlaps(other)) return clash(other);
    for (std::size_t j = i + 1; j < std::size(written); ++j)
      if (written[i].overlaps(written[j])) return clash(written[j]);
  }

  constexpr float largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::min();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float scale = a.scale == 0 or std::isnan(a.scale) ? plan.default_scale : a.scale;
  const float tau = a.gate_tau == 0 ? 1 : a.gate_tau;
  const float clamp = a.gate_clamp == 0 ? -infinity : a.gate_clamp;
  if (not(scale >= -largest and scale <= largest)) return refuse_scalar("scale", scale, -largest, largest);
  if (not(tau >= smallest and tau <= largest)) return refuse_scalar("gate_tau", tau, smallest, largest);
  if (not(clamp <= 0)) return refuse_scalar("gate_clamp", clamp, -infinity, 0);

  Words& words = launch.words;
  const auto set = [&](const Tensor& tensor, Arg base, Arg outer, Arg head) {
    words.set_pointer(base, tensor.base);
    words[outer] = static_cast<std::uint64_t>(tensor.outer_stride);
    words[head] = static_cast<std::uint64_t>(tensor.head_stride);
  };
  set(q, Arg::q, Arg::q_token, Arg::q_head);
  set(kk, Arg::k, Arg::k_token, Arg::k_head);
  set(vv, Arg::v, Arg::v_token, Arg::v_head);
  set(g, Arg::g, Arg::g_token, Arg::g_head);
  set(o, Arg::o, Arg::o_token, Arg::o_head);
  set(in, Arg::state_in, Arg::state_in_slot, Arg::state_in_head);
  set(out, Arg::state_out, Arg::state_out_slot, Arg::state_out_head);
  words.set_pointer(Arg::read_slots, a.read_slots);
  words.set_pointer(Arg::write_slots, a.write_slots);
  words.set_pointer(Arg::cu_seqlens, shape.cu_seqlens);
  words.set_pointer(Arg::device_status, a.device_status);
  words.set_pointer(Arg::workspace, workspace);
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
