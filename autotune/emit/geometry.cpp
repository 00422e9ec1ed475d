// The header for engines that launch by themselves: names, geometry and the order of arguments.
#include <fmt/format.h>

#include "autotune/emit/selection.hpp"

namespace glaive::emission {
namespace {

/// What a problem fixes is a number here; the rest are parameters.
std::string c_expression(const Count& count, const Problem& problem) {
  std::int64_t fixed = count.multiplier;
  std::string out;
  for (const auto& factor : count.factors) {
    Extents known;
    known[Axis::heads] = problem.heads.count();
    known[Axis::kv_heads] = problem.kv_heads.count();
    known[Axis::k] = problem.k.count();
    known[Axis::v] = problem.v.count();
    if (known[factor.axis] > 0) {
      fixed *= Count{1, {factor}}.at(known);
      continue;
    }
    const std::string axis(to_string(factor.axis));
    const auto pieces =
        factor.divisor == 1 ? axis : fmt::format("(({} + {}) / {})", axis, factor.divisor - 1, factor.divisor);
    out += " * " + (factor.least == 0 ? pieces : fmt::format("({0} > {1} ? {0} : {1})", pieces, factor.least));
  }
  return fmt::format("{}{}", fixed, out);
}

constexpr std::string_view extents = "int64_t sequences, int64_t tokens, int64_t longest, int64_t workers";
constexpr std::string_view unused = "(void)sequences, (void)tokens, (void)longest, (void)workers;";

std::string function(const std::string& name, const std::string& expression) {
  return fmt::format("static inline int64_t {}({}) {{\n  {}\n  return {};\n}}\n", name, extents, unused, expression);
}

std::string describe(const Stage& stage, const EmittedPlan& plan, const Selection& selection, const std::string& name,
                     const Problem& problem) {
  const auto macro = upper(name);
  std::string out = fmt::format("#define {}_CODE {}\n#define {}_ENTRY {}\n", macro,
                                c_string(selection.codes[plan.codes[stage.code]].file), macro, c_string(stage.entry));
  if (plan.plan.target.kind == Target::Kind::cuda) {
    out += fmt::format(
        "#define {0}_BLOCK_X {1}\n#define {0}_BLOCK_Y {2}\n#define {0}_BLOCK_Z {3}\n#define {0}_CLUSTER {4}\n"
        "#define {0}_SHARED_BYTES {5}\n#define {0}_EARLY {6}\n",
        macro, stage.block[0], stage.block[1], stage.block[2], stage.cluster, stage.shared_bytes, stage.early ? 1 : 0);
  } else {
    out += fmt::format("#define {}_SCRATCH_BYTES {}\n", macro, stage.scratch_bytes);
  }
  out += fmt::format("#define {}_ARGUMENTS(X)", macro);
  for (const Arg arg : stage.args) out += fmt::format(" X({})", to_string(arg));
  out += "\n";
  if (not stage.maps.empty()) {
    out += fmt::format("#define {}_MAPS(X)", macro);
    for (const TensorMap& map : stage.maps)
      out += fmt::format(" X({}, {}, {}, {}, {})", to_string(map.tensor), map.element_bytes, map.swizzled ? 1 : 0,
                         map.tokens, map.channels);
    out += "\n";
  }
  return out + function(name + (plan.plan.target.kind == Target::Kind::cuda ? "_grid" : "_tasks"),
                        c_expression(stage.tasks, problem));
}

std::string workspace(const EmittedPlan& plan, const Problem& problem) {
  std::string shared;
  for (const Count& count : plan.plan.workspace) shared += (shared.empty() ? "" : " + ") + c_expression(count, problem);
  const auto scratch = scratch_bytes_per_worker(plan.plan);
  std::string out = shared.empty() ? "" : fmt::format("({} + 63) / 64 * 64", shared);
  if (scratch > 0) out += fmt::format("{}workers * {}", out.empty() ? "" : " + ", scratch);
  return out.empty() ? "0" : out;
}

}  // namespace

std::string geometry_header(const Selection& selection, const std::string& name) {
  const auto macro = upper(name);
  std::string out = fmt::format(
      R"(/*
 * Kernels for Gated Linear Attention, tuned by glaive, for engines that launch them by themselves: names, geometry and
 * the order of arguments. The code is in the files that {1}_P*_S*_CODE name.
 *
 * A plan is {1}_P<n>: stages _S0, _S1 .. to be run one after the other.
 * On a GPU a stage is a kernel `ENTRY` of the module CODE, with grid(..) x 1 x 1 blocks of BLOCK_X x BLOCK_Y x BLOCK_Z
 * threads, SHARED_BYTES of dynamic shared memory, clusters of CLUSTER blocks, and, where EARLY is 1, programmatic
 * stream serialization allowed from the second stage on. Before the first launch, SHARED_BYTES above 48 KiB have to be
 * asked for by CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, and clusters of more than 8 blocks by
 * CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED. Each of ARGUMENTS is one 64-bit parameter; behind them comes,
 * where there are MAPS, one array of as many CUtensorMap.
 * On a CPU a stage is `void ENTRY(const uint64_t* arguments, int64_t task, void* scratch)` of the shared object CODE,
 * to be called for every task from 0 to tasks(..) - 1, in any order, with SCRATCH_BYTES aligned to 64 for each thread.
 * workspace(..) is bytes for all, aligned to 64; on a CPU its last `workers` pieces of SCRATCH_BYTES, each padded to
 * 64, may serve as scratch.
 *
 * sequences: of the call; tokens: of all of them; longest: of the longest; workers: threads that run tasks, 1 on a GPU.
 * ARGUMENTS(X) is X(q) X(k) ..: q k v g o, state_in state_out (0 = none), read_slots write_slots cu_seqlens
 * device_status (0 = none) and workspace are addresses; *_token *_head *_slot are strides in elements; sequences tokens
 * longest heads kv_heads slots are numbers; scale gate_tau gate_clamp are the bits of a float in the low half; mapped
 * is 1 where the tensor maps hold. MAPS(X) is X(tensor, bytes of an element, 128-byte swizzle, tokens and channels of a
 * box) ..: each map is of rank 3, (channels, heads, tokens), with strides in bytes of *_head and *_token, a box of
 * (channels, 1, tokens), element strides of 1, elements of type UINT16 or UINT32, no interleave, L2 promotion 256 bytes,
 * and zeros outside of the tensor. Where an address or a stride is no multiple of 16 bytes there is none: mapped is 0.
 */
#ifndef {1}_KERNELS_H
#define {1}_KERNELS_H

#include <stdint.h>

#define {1}_PLANS {2}
)",
      name, macro, selection.plans.size());
  for (std::size_t i = 0; i < selection.plans.size(); ++i) {
    const EmittedPlan& plan = selection.plans[i];
    const Entry* first = nullptr;
    out += fmt::format("\n/* {} for {}", c_comment(plan.plan.variant), to_string(plan.plan.target));
    for (const Entry& entry : selection.entries) {
      if (entry.plan != i) continue;
      if (first == nullptr) first = &entry;
      out += fmt::format("\n * `{}`, {}{}", to_string(selection.problems[entry.problem]), to_string(entry.key.bucket),
                         entry.key.device.empty() ? ", not tuned" : " on " + c_comment(entry.key.device));
    }
    out += fmt::format(" */\n#define {}_P{}_STAGES {}\n", macro, i, plan.plan.stages.size());
    const Problem& problem = selection.problems[first->problem];
    for (std::size_t s = 0; s < plan.plan.stages.size(); ++s)
      out += describe(plan.plan.stages[s], plan, selection, fmt::format("{}_p{}_s{}", name, i, s), problem);
    out += function(fmt::format("{}_p{}_workspace", name, i), workspace(plan, problem));
  }
  return out + "\n#endif\n";
}

}  // namespace glaive::emission
