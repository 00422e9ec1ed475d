#include "runtime/glaive.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <thread>

#include "runtime/c_abi.hpp"
#include "runtime/text.hpp"

using namespace glaive;
using namespace glaive::c_abi;

namespace {

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

const char* glaive_last_error(void) { return last_error_text(); }
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
