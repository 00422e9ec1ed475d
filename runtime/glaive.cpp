#include "runtime/glaive.h"

#include <algorithm>
#include <limits>

#include "runtime/call.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cuda.hpp"
#include "runtime/operator.hpp"
#include "runtime/text.hpp"

using namespace glaive;
using namespace glaive::c_abi;

struct glaive_memory {
  std::shared_ptr<Device> device;
  std::shared_ptr<std::byte> block;
  std::size_t bytes = 0;
};

struct glaive_launch {
  std::shared_ptr<Device> device;
  std::shared_ptr<const Kernel> kernel;
  Launch launch = {};
};

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

std::unexpected<Error> refuse_fallback(const glaive_plan& plan, const CallShape& shape, Bucket bucket) {
  const std::string at = shape.cu_seqlens == nullptr
                             ? " @ B" + std::to_string(shape.sequences) + " T" + std::to_string(shape.longest) + "'"
                             : " @ lens=..' with the lengths of the batch";
  return fail(Status::unsupported, "the plan at hand for " + to_string(bucket) + " is no better than a fallback: " +
                                       plan.kernel->plan().variant + ", tuned for " + to_string(plan.measured.bucket) +
                                       (plan.foreign_device    ? " on another device"
                                        : plan.foreign_threads ? " with another number of threads"
                                        : plan.demoted         ? ", in place of one that could not be loaded"
                                                               : "") +
                                       "; tune it with: glaive tune " +
                                       (plan.device->is_host() ? "'" : "--device gpu '") + to_string(plan.problem) +
                                       at);
}

Result<void> check_part(const glaive_memory* memory, std::size_t offset, std::size_t bytes) {
  if (auto there = need(memory, "memory"); not there) return there;
  if (offset > memory->bytes or bytes > memory->bytes - offset)
    return refuse(std::to_string(bytes) + " bytes at " + std::to_string(offset) + " pass the end of the " +
                  std::to_string(memory->bytes) + " bytes of the memory");
  return {};
}

/// "cpu", and each GPU that the driver shows: found out once.
const std::vector<std::string>& device_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {"cpu"};
    const auto driver = cuda::Driver::get();
    for (int i = 0; driver and i < (*driver)->devices(); ++i) all.push_back("cuda:" + std::to_string(i));
    return all;
  }();
  return names;
}

Result<std::shared_ptr<Device>> open_device(std::string_view name, int threads) {
  if (name == "cpu") {  // the driver of GPUs is left alone
    constexpr int most_threads = 1024;
    if (threads < 0 or threads > most_threads)
      return refuse("threads is " + std::to_string(threads) + "; it must be 0 (all) or from 1 to " +
                    std::to_string(most_threads));
    return open_cpu(threads == 0 ? std::min(host_cpu_device().units, most_threads) : threads);
  }
  const auto& names = device_names();
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    std::string message = "there is no device " + in_quotes(name) + "; there are";
    for (const std::string& known : names) message += " \"" + known + "\"";
    if (const auto driver = cuda::Driver::get(); not driver) message += "; no GPU: " + driver.error().message;
    return fail(Status::not_found, std::move(message));
  }
  if (threads != 0 and threads != 1)
    return refuse("threads is " + std::to_string(threads) + "; a GPU's calls are shared by no threads: 0");
  return open_gpu(**cuda::Driver::get(), static_cast<int>(found - names.begin()) - 1);
}

}  // namespace

extern "C" {

const char* glaive_last_error(void) { return last_error_text(); }
const char* glaive_version(void) { return GLAIVE_VERSION; }

int glaive_device_count(void) {
  int count = 0;
  guarded([&]() -> Result<void> {
    count = static_cast<int>(device_names().size());
    return {};
  });
  return count;
}
const char* glaive_device_name(int index) {
  return index >= 0 and index < glaive_device_count() ? device_names()[static_cast<std::size_t>(index)].c_str() : "";
}

glaive_status glaive_device_open(const char* name, int threads, glaive_device** device) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(name, "name"); not there) return there;
    if (auto there = need(device, "device"); not there) return there;
    auto opened = open_device(name, threads);
    if (not opened) return std::unexpected(std::move(opened).error());
    *device = new glaive_device{std::move(*opened)};
    return {};
  });
}

void glaive_device_close(glaive_device* device) { delete device; }
int glaive_device_threads(const glaive_device* device) { return device == nullptr ? 0 : device->shared->workers(); }
const char* glaive_device_target(const glaive_device* device) {
  return device == nullptr ? "" : device->shared->target().c_str();
}

glaive_status glaive_memory_create(glaive_device* device, size_t bytes, glaive_memory** memory) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(device, "device"); not there) return there;
    if (auto there = need(memory, "memory"); not there) return there;
    if (bytes == 0) return refuse("bytes is 0");
    auto block = device->shared->allocate(bytes);
    if (not block) return std::unexpected(std::move(block).error());
    *memory = new glaive_memory{device->shared, std::move(*block), bytes};
    return {};
  });
}

void* glaive_memory_data(const glaive_memory* memory) { return memory == nullptr ? nullptr : memory->block.get(); }

glaive_status glaive_memory_write(glaive_memory* memory, size_t offset, const void* from, size_t bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(from, "from"); not there) return there;
    if (auto within = check_part(memory, offset, bytes); not within) return within;
    return memory->device->copy_to_device(memory->block.get() + offset, {static_cast<const std::byte*>(from), bytes});
  });
}

glaive_status glaive_memory_read(const glaive_memory* memory, size_t offset, void* to, size_t bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(to, "to"); not there) return there;
    if (auto within = check_part(memory, offset, bytes); not within) return within;
    return memory->device->copy_from_device({static_cast<std::byte*>(to), bytes}, memory->block.get() + offset);
  });
}

void glaive_memory_close(glaive_memory* memory) { delete memory; }

glaive_status glaive_pack_open(const char* path, glaive_pack** pack) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(path, "path"); not there) return there;
    if (auto there = need(pack, "pack"); not there) return there;
    auto opened = Pack::open(path);
    if (not opened) return std::unexpected(std::move(opened).error());
    *pack = new glaive_pack{{}, std::move(*opened)};
    return {};
  });
}

glaive_status glaive_pack_open_memory(const void* bytes, size_t size, glaive_pack** pack) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(bytes, "bytes"); not there) return there;
    if (auto there = need(pack, "pack"); not there) return there;
    const auto* begin = static_cast<const std::byte*>(bytes);
    std::vector<std::byte> copy(begin, begin + size);
    auto opened = Pack::from_memory(copy);
    if (not opened) return std::unexpected(std::move(opened).error());
    *pack = new glaive_pack{std::move(copy), std::move(*opened)};
    return {};
  });
}

void glaive_pack_close(glaive_pack* pack) { delete pack; }
size_t glaive_pack_size(const glaive_pack* pack) { return pack == nullptr ? 0 : pack->pack.size(); }

glaive_status glaive_problem_parse(const char* text, glaive_problem* problem) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(text, "text"); not there) return there;
    if (auto there = need(problem, "problem"); not there) return there;
    if (problem->size < problem_0_1 or problem->size > largest_struct)
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
    const auto extents = read_shape(shape, *what);
    if (not extents) return std::unexpected(extents.error());
    PlanMaker maker(device->shared, {&pack->pack}, *what);
    auto found = maker.make(bucket_of(extents->extents(*what, device->shared->workers())));
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
  return plan == nullptr ? "" : plan->kernel->plan().variant.c_str();
}
const char* glaive_plan_description(const glaive_plan* plan) {
  return plan == nullptr ? "" : plan->description.c_str();
}

glaive_status glaive_plan_fit(const glaive_plan* plan, const glaive_shape* shape, glaive_fit* fit) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    if (auto there = need(fit, "fit"); not there) return there;
    const std::size_t size = fit->size;
    if (size < fit_0_1 or size > largest_struct)
      return refuse("fit->size is " + std::to_string(size) + "; set it to sizeof(fit[0]), " +
                    std::to_string(sizeof *fit) + " bytes");
    const auto what = read_shape(shape, plan->problem);
    if (not what) return std::unexpected(what.error());
    const Bucket bucket = bucket_of(what->sequences * plan->problem.kv_heads.count(), what->longest);
    const Measured& tuned = plan->measured;
    const Match match = plan->match_of(bucket);
    const auto [work_low, work_high] = work_range(tuned.bucket);
    const auto [tokens_low, tokens_high] = token_range(tuned.bucket);
    const double unknown = std::numeric_limits<double>::quiet_NaN();
    glaive_fit filled = {.size = size,
                         .match = static_cast<std::int32_t>(match),
                         .distance = distance(tuned.bucket, bucket),
                         .work_low = work_low,
                         .work_high = work_high,
                         .tokens_low = tokens_low,
                         .tokens_high = tokens_high,
                         .timed_sequences = tuned.sequences,
                         .timed_tokens = tuned.tokens,
                         .timed_longest = tuned.longest,
                         .regret = match == Match::exact ? 0 : unknown,
                         .headroom = tuned.headroom.value_or(unknown)};
    const bool is_step_away = match == Match::nearest and filled.distance > 0;
    if (is_step_away and not plan->foreign_threads and not plan->demoted and plan->regret_per_step)
      filled.regret = filled.distance * *plan->regret_per_step;
    std::memcpy(fit, &filled, std::min(size, sizeof filled));
    return {};
  });
}

glaive_status glaive_plan_workspace(const glaive_plan* plan, const glaive_shape* shape, size_t* bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    if (auto there = need(bytes, "bytes"); not there) return there;
    const auto what = read_shape(shape, plan->problem);
    if (not what) return std::unexpected(what.error());
    const Extents extents = what->extents(plan->problem, plan->device->workers());
    *bytes = static_cast<size_t>(plan->workspace_bytes(extents));
    return {};
  });
}

glaive_status glaive_operator_create(glaive_device* device, const glaive_pack* const* packs, size_t count,
                                     const glaive_problem* problem, glaive_operator** op) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(device, "device"); not there) return there;
    if (auto there = need(packs, "packs"); not there) return there;
    if (auto there = need(op, "op"); not there) return there;
    if (count == 0) return refuse("count is 0; an operator needs a pack");
    std::vector<const Pack*> all;
    for (size_t i = 0; i < count; ++i) {
      if (packs[i] == nullptr) return refuse("packs[" + std::to_string(i) + "] is NULL");
      all.push_back(&packs[i]->pack);
    }
    const auto what = read_problem(problem);
    if (not what) return std::unexpected(what.error());
    auto created = glaive_operator::create(PlanMaker(device->shared, std::move(all), *what), *what);
    if (not created) return std::unexpected(std::move(created).error());
    *op = created->release();
    return {};
  });
}

void glaive_operator_close(glaive_operator* op) { delete op; }

glaive_status glaive_operator_plan(const glaive_operator* op, const glaive_shape* shape, const glaive_plan** plan) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(op, "op"); not there) return there;
    if (auto there = need(plan, "plan"); not there) return there;
    const auto what = read_shape(shape, op->problem);
    if (not what) return std::unexpected(what.error());
    const Bucket bucket = bucket_of(what->sequences * op->problem.kv_heads.count(), what->longest);
    const glaive_plan* const found = op->by_bucket[index_of(bucket)];
    if (found->match != Match::exact) op->untuned.fetch_add(1, std::memory_order_relaxed);
    *plan = found;
    return {};
  });
}

glaive_status glaive_operator_plan_within(const glaive_operator* op, const glaive_shape* shape, glaive_match worst,
                                          const glaive_plan** plan) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(op, "op"); not there) return there;
    if (auto there = need(plan, "plan"); not there) return there;
    const auto accepted = choose("worst", worst, {Match::exact, Match::nearest, Match::other_device});
    if (not accepted) return std::unexpected(accepted.error());
    const auto what = read_shape(shape, op->problem);
    if (not what) return std::unexpected(what.error());
    const Bucket bucket = bucket_of(what->sequences * op->problem.kv_heads.count(), what->longest);
    const glaive_plan* const found = op->by_bucket[index_of(bucket)];
    if (found->match > *accepted) return refuse_fallback(*found, *what, bucket);
    if (found->match != Match::exact) op->untuned.fetch_add(1, std::memory_order_relaxed);
    *plan = found;
    return {};
  });
}

glaive_status glaive_operator_workspace(const glaive_operator* op, const glaive_shape* largest, size_t* bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(op, "op"); not there) return there;
    if (auto there = need(bytes, "bytes"); not there) return there;
    const auto what = read_shape(largest, op->problem);
    if (not what) return std::unexpected(what.error());
    *bytes = static_cast<size_t>(op->workspace_bytes(*what));
    return {};
  });
}

uint64_t glaive_operator_untuned(const glaive_operator* op) {
  return op == nullptr ? 0 : op->untuned.load(std::memory_order_relaxed);
}

glaive_status glaive_run(const glaive_plan* plan, const glaive_shape* shape, const glaive_args* args, void* workspace,
                         size_t workspace_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    Launch launch{Words::Unset()};
    if (auto read = read_launch(*plan, shape, args, workspace, workspace_bytes, Lengths::exact, launch); not read)
      return read;
    return plan->kernel->launch(launch);
  });
}

glaive_status glaive_launch_prepare(const glaive_plan* plan, const glaive_shape* shape, const glaive_args* args,
                                    void* workspace, size_t workspace_bytes, glaive_launch** launch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(plan, "plan"); not there) return there;
    if (auto there = need(launch, "launch"); not there) return there;
    auto prepared = std::make_unique<glaive_launch>(plan->device, plan->kernel);
    if (auto read = read_launch(*plan, shape, args, workspace, workspace_bytes, Lengths::within, prepared->launch);
        not read)
      return read;
    *launch = prepared.release();
    return {};
  });
}

glaive_status glaive_launch_run(const glaive_launch* launch) {
  return guarded([&]() -> Result<void> {
    if (auto there = need(launch, "launch"); not there) return there;
    return launch->kernel->launch(launch->launch);
  });
}

void glaive_launch_close(glaive_launch* launch) { delete launch; }

}  // extern "C"
