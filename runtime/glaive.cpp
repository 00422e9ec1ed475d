#include "runtime/glaive.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "runtime/cpu.hpp"
#include "runtime/dispatch.hpp"
#include "runtime/text.hpp"

using namespace glaive;

namespace {

struct Device {
  DeviceInfo info;
  std::string target;
  WorkerPool pool;
  explicit Device(int threads) : info(host_cpu_device()), target(to_string(info.target)), pool(threads) {}
};

}  // namespace

struct glaive_device {
  std::shared_ptr<Device> shared;
};

struct glaive_pack {
  Pack pack;
};

struct glaive_plan {
  std::shared_ptr<Device> device;
  Problem problem;
  CpuKernel kernel;
  Match match;
  std::string description;
};

namespace {

// A plain array, so that a thread's end runs no code of a library that may be unloaded by then.
thread_local char last_error[1024] = "";

glaive_status report(Status status, std::string_view message) {
  const std::size_t size = std::min(message.size(), sizeof last_error - 1);
  std::memcpy(last_error, message.data(), size);
  last_error[size] = 0;
  return static_cast<glaive_status>(status);
}
glaive_status report(const Error& error) { return report(error.status, error.message); }

/// Runs the body of an API function: nothing is thrown across the C boundary.
template <class Body>
glaive_status guarded(Body&& body) {
  try {
    const Result<void> result = body();
    return result ? GLAIVE_OK : report(result.error());
  } catch (const std::bad_alloc&) {
    return report(Status::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return report(Status::failed, error.what());
  } catch (...) {
    return report(Status::failed, "an unknown exception");
  }
}

std::unexpected<Error> refuse(std::string message) { return fail(Status::invalid_argument, std::move(message)); }

Result<void> need(const void* pointer, const char* name) {
  if (pointer != nullptr) return {};
  return refuse(std::string(name) + " is NULL");
}

/// A copy of a caller's struct, which may be of an older or a newer header than ours: missing fields are zero, and
/// fields that this build does not know must be zero.
template <class Struct>
Result<Struct> read_struct(const Struct* given, const char* name, std::size_t oldest) {
  if (auto there = need(given, name); not there) return std::unexpected(there.error());
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  constexpr std::size_t absurd = 4096;
  if (size < oldest or size > absurd)
    return refuse(std::string(name) + "->size is " + std::to_string(size) + "; set it to sizeof(" + name + "[0]), " +
                  std::to_string(oldest) + " bytes or more");
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i] != 0)
      return fail(Status::unsupported,
                  std::string(name) + " sets a field that this version (" + glaive_version() + ") does not know");
  Struct copy = {};
  std::memcpy(&copy, given, std::min(size, sizeof copy));
  return copy;
}

// The sizes of the structs in version 0.1; they only grow.
constexpr std::size_t problem_0_1 = 64, shape_0_1 = 40, args_0_1 = 192;
static_assert(sizeof(glaive_problem) >= problem_0_1 and sizeof(glaive_shape) >= shape_0_1);
static_assert(sizeof(glaive_args) >= args_0_1);

template <class Enum>
Result<Enum> choose(const char* name, std::int32_t given, std::initializer_list<Enum> allowed) {
  for (const Enum value : allowed)
    if (given == static_cast<std::int32_t>(value)) return value;
  std::string text = std::string(name) + " is " + std::to_string(given) + "; allowed are";
  for (const Enum value : allowed)
    text += " " + std::to_string(static_cast<int>(value)) + " (" + std::string(to_string(value)) + ")";
  return refuse(std::move(text));
}

Result<Problem> read_problem(const glaive_problem* given) {
  const auto raw = read_struct(given, "problem", problem_0_1);
  if (not raw) return std::unexpected(raw.error());
  const std::initializer_list<DType> dtypes = {DType::f32, DType::bf16, DType::f16};
  const auto op = choose("problem->op", raw->op, {Op::forward, Op::step});
  if (not op) return std::unexpected(op.error());
  const auto io = choose("problem->io_dtype", raw->io_dtype, dtypes);
  if (not io) return std::unexpected(io.error());
  const auto gate = choose("problem->gate_dtype", raw->gate_dtype, dtypes);
  if (not gate) return std::unexpected(gate.error());
  const auto state = choose("problem->state_dtype", raw->state_dtype, dtypes);
  if (not state) return std::unexpected(state.error());
  const auto form = choose("problem->gate_form", raw->gate_form, {GateForm::log, GateForm::logit});
  if (not form) return std::unexpected(form.error());
  const auto layout = choose("problem->state_layout", raw->state_layout, {StateLayout::kv, StateLayout::vk});
  if (not layout) return std::unexpected(layout.error());

  Problem problem;
  problem.op = *op;
  problem.heads = Heads(raw->heads);
  problem.kv_heads = KvHeads(raw->kv_heads == 0 ? raw->heads : raw->kv_heads);
  problem.k = KeyDim(raw->key_dim);
  problem.v = ValueDim(raw->value_dim);
  problem.io = *io;
  problem.gate = *gate;
  problem.state = *state;
  problem.gate_form = *form;
  problem.layout = *layout;
  if (auto valid = validate(problem); not valid) return refuse("problem: " + valid.error().message);
  return problem;
}

/// A shape as the runtime needs it; the ragged form stays the caller's array.
struct CallShape {
  Shape uniform;
  std::int64_t sequences = 0, tokens = 0, longest = 0;
  const std::int32_t* cu_seqlens = nullptr;

  Extents extents(const Problem& problem, int workers) const {
    Extents extents = extents_of(problem, uniform, workers);
    extents[Axis::sequences] = sequences;
    extents[Axis::tokens] = tokens;
    extents[Axis::longest] = longest;
    return extents;
  }
};

Result<CallShape> read_shape(const glaive_shape* given) {
  const auto raw = read_struct(given, "shape", shape_0_1);
  if (not raw) return std::unexpected(raw.error());
  CallShape shape;
  shape.sequences = raw->sequences;
  if (raw->cu_seqlens == nullptr) {
    shape.uniform = Shape::uniform(Sequences(raw->sequences), Tokens(raw->tokens));
    if (auto valid = validate(shape.uniform); not valid) return refuse("shape: " + valid.error().message);
    if (raw->longest != 0 and raw->longest != raw->tokens)
      return refuse("shape->longest is " + std::to_string(raw->longest) + " without cu_seqlens; leave it 0");
    shape.tokens = shape.uniform.total().count();
    shape.longest = raw->tokens;
    return shape;
  }
  // Bounds first, by the rules of a uniform shape with so many sequences, and of one sequence with so many tokens.
  if (auto valid = validate(Shape::uniform(Sequences(raw->sequences), Tokens(0))); not valid)
    return refuse("shape: " + valid.error().message);
  if (auto valid = validate(Shape::uniform(Sequences(1), Tokens(raw->tokens))); not valid)
    return refuse("shape: " + valid.error().message);
  if (reinterpret_cast<std::uintptr_t>(raw->cu_seqlens) % alignof(std::int32_t) != 0)
    return refuse("shape->cu_seqlens is not aligned to 4 bytes");
  if (raw->cu_seqlens[0] != 0)
    return refuse("shape->cu_seqlens[0] is " + std::to_string(raw->cu_seqlens[0]) + ", not 0");
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < raw->sequences; ++b) {
    const std::int64_t length = std::int64_t{raw->cu_seqlens[b + 1]} - raw->cu_seqlens[b];
    if (length < 0) return refuse("shape->cu_seqlens[" + std::to_string(b + 1) + "] is less than the number before it");
    longest = std::max(longest, length);
  }
  if (raw->cu_seqlens[raw->sequences] != raw->tokens)
    return refuse("shape->tokens is " + std::to_string(raw->tokens) + ", but the last of cu_seqlens is " +
                  std::to_string(raw->cu_seqlens[raw->sequences]));
  if (raw->longest != longest)
    return refuse("shape->longest is " + std::to_string(raw->longest) +
                  ", but the longest sequence of cu_seqlens has " + std::to_string(longest) + " tokens");
  shape.tokens = raw->tokens;
  shape.longest = longest;
  shape.cu_seqlens = raw->cu_seqlens;
  return shape;
}

/// The bytes that a tensor of a call spans.
struct Span {
  const char* name = "";
  std::uintptr_t begin = 0, end = 0;
  bool overlaps(const Span& other) const {
    return begin < end and other.begin < other.end and begin < other.end and other.begin < end;
  }
};

/// A tensor [outer, heads, inner] with an outer (token or sequence) and a head stride, in elements.
struct Tensor {
  const char* name;
  const void* base;
  std::int64_t outer, heads, inner;
  std::int64_t outer_stride, head_stride;
  DType dtype;
  bool written = false;
};

/// Fills in contiguous strides, checks them, the pointer and its alignment, and says which bytes the tensor spans.
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

Result<std::unique_ptr<glaive_plan>> find_plan(const std::shared_ptr<Device>& device, const Pack& pack,
                                               const Problem& problem, const CallShape& shape) {
  const int threads = device->pool.workers();
  const Bucket bucket = bucket_of(shape.extents(problem, threads));
  // A damaged entry is a miss: the next best serves, and the description says so.
  std::string skipped;
  std::optional<Error> first;
  for (const Candidate& candidate : candidates(pack, device->info, threads, problem, bucket)) {
    auto entry = pack.load(candidate.index);
    auto kernel = entry ? CpuKernel::load(entry->plan, entry->code) : Result<CpuKernel>(std::unexpected(entry.error()));
    if (not kernel) {
      skipped += "\n  skipped: " + kernel.error().message;
      if (not first) first = kernel.error();
      continue;
    }
    const WinnerKey& key = pack.key(candidate.index);
    std::string description = to_string(problem) + ", " + to_string(bucket) +
                              ": match=" + std::string(to_string(candidate.match)) + "\n  tuned for " +
                              to_string(key.bucket) + " on " + key.device + ", " + key.policy + skipped + "\n  " +
                              to_string(entry->plan);
    auto match = skipped.empty() ? candidate.match : std::max(candidate.match, Match::nearest);
    return std::make_unique<glaive_plan>(device, problem, std::move(*kernel), match, std::move(description));
  }
  if (first) return std::unexpected(std::move(*first));
  return fail(Status::unsupported, "the pack has no kernel for `" + to_string(problem) + "` that runs on " +
                                       device->target + "; tune it with: glaive tune");
}

}  // namespace

extern "C" {

const char* glaive_last_error(void) { return last_error; }
const char* glaive_version(void) { return GLAIVE_VERSION; }

glaive_status glaive_device_open(const char* name, int threads, glaive_device** device) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(name, "name"); not there) return there;
    if (auto there = need(device, "device"); not there) return there;
    if (std::string_view(name) != "cpu")
      return fail(Status::not_found, "there is no device " + in_quotes(name) + "; this build has \"cpu\"");
    constexpr int most_threads = 1024;
    if (threads < 0 or threads > most_threads)
      return refuse("threads is " + std::to_string(threads) + "; it must be 0 (all) or from 1 to " +
                    std::to_string(most_threads));
    if (threads == 0) threads = std::min(host_cpu_device().units, most_threads);
    try {
      *device = new glaive_device{std::make_shared<Device>(threads)};
    } catch (const std::system_error& error) {
      return fail(Status::failed, "cannot start " + std::to_string(threads) + " threads: " + error.what());
    }
    return {};
  });
}

void glaive_device_close(glaive_device* device) { delete device; }
int glaive_device_threads(const glaive_device* device) {
  return device == nullptr ? 0 : device->shared->pool.workers();
}
const char* glaive_device_target(const glaive_device* device) {
  return device == nullptr ? "" : device->shared->target.c_str();
}

glaive_status glaive_pack_open(const char* path, glaive_pack** pack) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(path, "path"); not there) return there;
    if (auto there = need(pack, "pack"); not there) return there;
    auto opened = Pack::open(path);
    if (not opened) return std::unexpected(std::move(opened).error());
    *pack = new glaive_pack{std::move(*opened)};
    return {};
  });
}

void glaive_pack_close(glaive_pack* pack) { delete pack; }
size_t glaive_pack_size(const glaive_pack* pack) { return pack == nullptr ? 0 : pack->pack.size(); }

glaive_status glaive_problem_parse(const char* text, glaive_problem* problem) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(text, "text"); not there) return there;
    if (auto there = need(problem, "problem"); not there) return there;
    if (problem->size < problem_0_1 or problem->size > sizeof *problem)
      return refuse("problem->size is " + std::to_string(problem->size) + "; set it to sizeof(problem[0]), " +
                    std::to_string(sizeof *problem) + " bytes");
    const auto parsed = parse_problem(text);
    if (not parsed)
      return refuse("problem " + in_quotes(text, 120) + ", column " + std::to_string(parsed.error().column + 1) + ": " +
                    parsed.error().message);
    problem->heads = parsed->heads.count();
    problem->kv_heads = parsed->kv_heads.count();
    problem->key_dim = parsed->k.count();
    problem->value_dim = parsed->v.count();
    problem->op = static_cast<std::int32_t>(parsed->op);
    problem->io_dtype = static_cast<std::int32_t>(parsed->io);
    problem->gate_dtype = static_cast<std::int32_t>(parsed->gate);
    problem->state_dtype = static_cast<std::int32_t>(parsed->state);
    problem->gate_form = static_cast<std::int32_t>(parsed->gate_form);
    problem->state_layout = static_cast<std::int32_t>(parsed->layout);
    return {};
  });
}

glaive_status glaive_plan_find(glaive_device* device, const glaive_pack* pack, const glaive_problem* problem,
                               const glaive_shape* shape, glaive_plan** plan) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(device, "device"); not there) return there;
    if (auto there = need(pack, "pack"); not there) return there;
    if (auto there = need(plan, "plan"); not there) return there;
    const auto what = read_problem(problem);
    if (not what) return std::unexpected(what.error());
    const auto extents = read_shape(shape);
    if (not extents) return std::unexpected(extents.error());
    auto found = find_plan(device->shared, pack->pack, *what, *extents);
    if (not found) return std::unexpected(std::move(found).error());
    *plan = found->release();
    return {};
  });
}

void glaive_plan_close(glaive_plan* plan) { delete plan; }

glaive_status glaive_plan_match(const glaive_plan* plan, glaive_match* match) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    if (auto there = need(match, "match"); not there) return there;
    *match = static_cast<glaive_match>(plan->match);
    return {};
  });
}

const char* glaive_plan_variant(const glaive_plan* plan) {
  return plan == nullptr ? "" : plan->kernel.plan().variant.c_str();
}
const char* glaive_plan_description(const glaive_plan* plan) {
  return plan == nullptr ? "" : plan->description.c_str();
}

glaive_status glaive_plan_workspace(const glaive_plan* plan, const glaive_shape* shape, size_t* bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    if (auto there = need(bytes, "bytes"); not there) return there;
    const auto what = read_shape(shape);
    if (not what) return std::unexpected(what.error());
    const Extents extents = what->extents(plan->problem, plan->device->pool.workers());
    *bytes = static_cast<size_t>(workspace_bytes(plan->kernel.plan(), extents));
    return {};
  });
}

glaive_status glaive_forward(const glaive_plan* plan, const glaive_shape* shape, const glaive_args* args,
                             void* workspace, size_t bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    const auto what = read_shape(shape);
    if (not what) return std::unexpected(what.error());
    WorkerPool& pool = plan->device->pool;
    const Extents extents = what->extents(plan->problem, pool.workers());
    const auto needed = static_cast<std::size_t>(workspace_bytes(plan->kernel.plan(), extents));
    if (bytes < needed)
      return refuse("workspace_bytes is " + std::to_string(bytes) + "; this call needs " + std::to_string(needed));
    if (needed > 0 and workspace == nullptr)
      return refuse("workspace is NULL; this call needs " + std::to_string(needed) + " bytes");
    const auto begin = reinterpret_cast<std::uintptr_t>(workspace);
    if (begin % workspace_alignment != 0)
      return refuse("workspace is not aligned to " + std::to_string(workspace_alignment) + " bytes");
    const auto words = read_args(args, plan->problem, *what, Span{"workspace", begin, begin + needed});
    if (not words) return std::unexpected(words.error());
    plan->kernel.run(*words, extents, workspace, pool);
    return {};
  });
}

}  // extern "C"
