#include "runtime/plan.hpp"

#include <algorithm>

#include "runtime/bytes.hpp"

namespace glaive {
namespace {

constexpr std::uint32_t plan_version = 4;
constexpr std::int64_t most_bytes = std::int64_t{1} << 48;
constexpr std::uint32_t most_stages = 64, most_factors = 16, most_counts = 64;

/// Counts of non-negative factors saturate instead of wrapping: an absurd workspace is refused as too large, never as
/// too small.
std::int64_t times(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}
std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

void write(ByteWriter& out, const Count& count) {
  out.number(count.multiplier);
  out.number(static_cast<std::uint32_t>(count.factors.size()));
  for (const Count::Factor& factor : count.factors) {
    out.number(static_cast<std::uint8_t>(factor.axis));
    out.number(factor.divisor);
    out.number(factor.least);
  }
}

Count read_count(ByteReader& in) {
  Count count;
  count.multiplier = in.number_in<std::int64_t>(0, most_bytes);
  const auto factors = in.number_in<std::uint32_t>(0, most_factors);
  for (std::uint32_t i = 0; i < factors and in.good(); ++i) {
    const auto axis = in.number_in<std::uint8_t>(0, axis_count - 1);
    const auto divisor = in.number_in<std::int64_t>(1, most_bytes);
    const auto least = in.number_in<std::int64_t>(0, most_bytes);
    count.factors.push_back({static_cast<Axis>(axis), divisor, least});
  }
  return count;
}

void write(ByteWriter& out, const TensorMap& map) {
  out.number(static_cast<std::uint8_t>(map.tensor));
  out.number(map.element_bytes);
  out.number(static_cast<std::uint8_t>(map.swizzled));
  out.number(map.tokens);
  out.number(map.channels);
}

TensorMap read_map(ByteReader& in) {
  TensorMap map;
  map.tensor = static_cast<Arg>(in.number_in<std::uint8_t>(0, static_cast<std::uint8_t>(Arg::o)));
  map.element_bytes = in.number_in<std::uint8_t>(2, 4);
  map.swizzled = in.number_in<std::uint8_t>(0, 1) == 1;
  map.tokens = in.number_in<std::uint16_t>(1, 256);
  map.channels = in.number_in<std::uint16_t>(1, 256);
  const int row = map.element_bytes * map.channels;
  if (map.element_bytes == 3 or row % 16 != 0 or (map.swizzled and row > 128)) in.refuse();
  return map;
}

void write(ByteWriter& out, const Stage& stage) {
  out.number(stage.code);
  out.text(stage.entry);
  write(out, stage.tasks);
  out.number(static_cast<std::uint32_t>(stage.args.size()));
  for (const Arg arg : stage.args) out.number(static_cast<std::uint8_t>(arg));
  out.number(static_cast<std::uint32_t>(stage.maps.size()));
  for (const TensorMap& map : stage.maps) write(out, map);
  out.number(stage.scratch_bytes);
  for (const std::uint32_t threads : stage.block) out.number(threads);
  out.number(stage.cluster);
  out.number(stage.shared_bytes);
  out.number(std::uint8_t{stage.early});
}

Stage read_stage(ByteReader& in, std::size_t code_objects) {
  Stage stage;
  stage.code = in.number<std::uint32_t>();
  if (stage.code >= code_objects) in.refuse();
  stage.entry = in.text(4096);
  if (stage.entry.empty() or stage.entry.find('\0') != std::string::npos) in.refuse();
  stage.tasks = read_count(in);
  const auto args = in.number_in<std::uint32_t>(0, arg_count);
  for (std::uint32_t i = 0; i < args and in.good(); ++i)
    stage.args.push_back(static_cast<Arg>(in.number_in<std::uint8_t>(0, arg_count - 1)));
  const auto maps = in.number_in<std::uint32_t>(0, most_tensor_maps);
  for (std::uint32_t i = 0; i < maps and in.good(); ++i) stage.maps.push_back(read_map(in));
  stage.scratch_bytes = in.number_in<std::int64_t>(0, most_bytes);
  for (std::uint32_t& threads : stage.block) threads = in.number_in<std::uint32_t>(1, 1024);
  stage.cluster = in.number_in<std::uint32_t>(1, 64);
  stage.shared_bytes = in.number_in<std::uint32_t>(0, 1u << 24);
  stage.early = in.number_in<std::uint8_t>(0, 1) != 0;
  return stage;
}

std::string to_string(const TensorMap& map) {
  return std::string(to_string(map.tensor)) + "[" + std::to_string(map.tokens) + "x" + std::to_string(map.channels) +
         "x" + std::to_string(map.element_bytes) + (map.swizzled ? ",swizzled]" : "]");
}

std::string to_string(const Count& count) {
  std::string out;
  if (count.multiplier != 1 or count.factors.empty()) out = std::to_string(count.multiplier);
  for (const Count::Factor& factor : count.factors) {
    if (not out.empty()) out += "*";
    const std::string axis(to_string(factor.axis));
    const std::string pieces = factor.divisor == 1 ? axis : "ceil(" + axis + "/" + std::to_string(factor.divisor) + ")";
    out += factor.least == 0 ? pieces : "max(" + pieces + "," + std::to_string(factor.least) + ")";
  }
  return out;
}

}  // namespace

std::string_view to_string(Arg arg) {
  // clang-format off
  static constexpr std::string_view names[] = {
      "q", "k", "v", "g", "o", "state_in", "state_out", "read_slots", "write_slots", "cu_seqlens", "device_status",
      "q_token", "q_head", "k_token", "k_head", "v_token", "v_head", "g_token", "g_head", "o_token", "o_head",
      "state_in_slot", "state_in_head", "state_out_slot", "state_out_head",
      "sequences", "tokens", "longest", "heads", "kv_heads", "slots", "scale", "gate_tau", "gate_clamp", "workspace",
      "mapped"};
  // clang-format on
  static_assert(std::size(names) == arg_count);
  const auto index = static_cast<std::size_t>(arg);
  return index < arg_count ? names[index] : "?";
}

std::int64_t Count::at(const Extents& extents) const {
  std::int64_t value = multiplier;
  for (const Factor& factor : factors) {
    std::int64_t extent = extents[factor.axis];
    // Most divisors are 1, and a division is slow.
    if (factor.divisor != 1) extent = extent / factor.divisor + (extent % factor.divisor > 0);
    value = times(value, std::max(extent, factor.least));
  }
  return value;
}

std::int64_t shared_workspace_bytes(const Plan& plan, const Extents& extents) {
  std::int64_t shared = 0;
  for (const Count& count : plan.workspace) shared = plus(shared, count.at(extents));
  return plus(shared, workspace_alignment - 1) / workspace_alignment * workspace_alignment;
}

std::int64_t scratch_bytes_per_worker(const Plan& plan) {
  std::int64_t scratch = 0;
  for (const Stage& stage : plan.stages) scratch = std::max(scratch, stage.scratch_bytes);
  return plus(scratch, workspace_alignment - 1) / workspace_alignment * workspace_alignment;
}

std::int64_t workspace_bytes(const Plan& plan, const Extents& extents) {
  return plus(shared_workspace_bytes(plan, extents), times(extents[Axis::workers], scratch_bytes_per_worker(plan)));
}

std::string to_string(const Plan& plan) {
  std::string out = plan.variant + " for " + to_string(plan.target);
  for (const Stage& stage : plan.stages) {
    out += "\n  " + stage.entry + "[" + std::to_string(stage.code) + "] tasks=" + to_string(stage.tasks);
    if (plan.target.kind == Target::Kind::cuda) {
      out += " block=" + std::to_string(stage.block[0]) + "x" + std::to_string(stage.block[1]) + "x" +
             std::to_string(stage.block[2]) + " cluster=" + std::to_string(stage.cluster) +
             " shared=" + std::to_string(stage.shared_bytes) + (stage.early ? " early" : "");
    }
    out += " scratch=" + std::to_string(stage.scratch_bytes) + " (";
    for (std::size_t i = 0; i < stage.args.size(); ++i) out.append(i > 0 ? "," : "").append(to_string(stage.args[i]));
    out += ")";
    for (std::size_t i = 0; i < stage.maps.size(); ++i) out += (i > 0 ? "," : " maps=") + to_string(stage.maps[i]);
  }
  if (not plan.workspace.empty()) {
    out += "\n  workspace=";
    for (std::size_t i = 0; i < plan.workspace.size(); ++i) out += (i > 0 ? " + " : "") + to_string(plan.workspace[i]);
  }
  return out;
}

std::vector<std::byte> encode(const Plan& plan) {
  ByteWriter out;
  out.number(plan_version);
  out.text(plan.variant);
  out.text(to_string(plan.target));
  out.number(static_cast<std::uint32_t>(plan.stages.size()));
  for (const Stage& stage : plan.stages) write(out, stage);
  out.number(static_cast<std::uint32_t>(plan.workspace.size()));
  for (const Count& count : plan.workspace) write(out, count);
  return out.take();
}

Result<Plan> decode_plan(std::span<const std::byte> bytes, std::size_t code_objects) {
  ByteReader in(bytes);
  const auto version = in.number<std::uint32_t>();
  if (in.good() and version != plan_version)
    return fail(Status::bad_pack, "a plan of version " + std::to_string(version) + ", where this build reads version " +
                                      std::to_string(plan_version));
  Plan plan;
  plan.variant = in.text();
  const std::string target_text = in.text(256);
  const auto stages = in.number_in<std::uint32_t>(1, most_stages);
  for (std::uint32_t i = 0; i < stages and in.good(); ++i) plan.stages.push_back(read_stage(in, code_objects));
  const auto counts = in.number_in<std::uint32_t>(0, most_counts);
  for (std::uint32_t i = 0; i < counts and in.good(); ++i) plan.workspace.push_back(read_count(in));
  if (not in.at_end()) return fail(Status::bad_pack, "a plan that is cut short or has a number out of range");

  auto target = parse_target(target_text);
  if (not target) return fail(Status::bad_pack, "a plan for an unknown target: " + target.error().message);
  if (to_string(*target) != target_text)
    return fail(Status::bad_pack, "a plan whose target is not in its canonical form: " + target_text);
  plan.target = std::move(*target);
  return plan;
}

}  // namespace glaive
