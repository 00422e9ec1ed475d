// What a folder holds, and on which evidence.
#include <nlohmann/json.hpp>

#include "autotune/emit/selection.hpp"
#include "autotune/evidence.hpp"

namespace glaive::emission {
namespace {

using Json = nlohmann::ordered_json;

std::string_view to_string(CodeObject::Format format) {
  return format == CodeObject::Format::cubin ? "cubin" : format == CodeObject::Format::ptx ? "ptx" : "shared object";
}

Json count(const Count& count) {
  Json factors = Json::array();
  for (const auto& factor : count.factors)
    factors.push_back({{"axis", glaive::to_string(factor.axis)}, {"divisor", factor.divisor}, {"least", factor.least}});
  return {{"multiplier", count.multiplier}, {"factors", factors}};
}

Json plan(const EmittedPlan& emitted, const Selection& selection) {
  Json stages = Json::array(), workspace = Json::array();
  for (const Stage& stage : emitted.plan.stages) {
    Json args = Json::array(), maps = Json::array();
    for (const Arg arg : stage.args) args.push_back(glaive::to_string(arg));
    for (const TensorMap& map : stage.maps)
      maps.push_back({{"tensor", glaive::to_string(map.tensor)},
                      {"element_bytes", map.element_bytes},
                      {"swizzled", map.swizzled},
                      {"tokens", map.tokens},
                      {"channels", map.channels}});
    stages.push_back({{"code", selection.codes[emitted.codes[stage.code]].file},
                      {"entry", stage.entry},
                      {"tasks", count(stage.tasks)},
                      {"arguments", args},
                      {"maps", maps},
                      {"scratch_bytes", stage.scratch_bytes},
                      {"block", stage.block},
                      {"cluster", stage.cluster},
                      {"shared_bytes", stage.shared_bytes},
                      {"early", stage.early}});
  }
  for (const Count& each : emitted.plan.workspace) workspace.push_back(count(each));
  return {{"variant", emitted.plan.variant},
          {"target", glaive::to_string(emitted.plan.target)},
          {"stages", stages},
          {"workspace", workspace}};
}

Json optional(std::optional<double> value) { return value ? Json(*value) : Json(); }

Json entry(const Entry& entry, const Selection& selection) {
  const auto evidence = Json::parse(entry.evidence, nullptr, false);
  return {{"problem", glaive::to_string(selection.problems[entry.problem])},
          {"bucket", glaive::to_string(entry.key.bucket)},
          {"device", entry.key.device},
          {"target", entry.key.target},
          {"policy", entry.key.policy},
          {"plan", entry.plan},
          {"variant", selection.plans[entry.plan].plan.variant},
          {"regret_per_step", optional(entry.regret_per_step)},
          {"headroom", optional(entry.measured.headroom)},
          {"evidence", evidence.is_discarded() ? Json(entry.evidence) : evidence}};
}

}  // namespace

std::string manifest(const Selection& selection, const EmitOptions& options, const std::filesystem::path& pack_file,
                     std::span<const WrittenFile> files) {
  Json json = {{"kind", manifest_kind},
               {"schema", 1},
               {"glaive", {{"version", glaive_version()}, {"commit", glaive_commit()}}},
               {"name", options.name},
               {"form", options.header_only ? "header" : "launcher"},
               {"pack", pack_file.filename().string()}};
  for (const char* list : {"problems", "code", "plans", "entries", "files"}) json[list] = Json::array();
  for (const Problem& problem : selection.problems) json["problems"].push_back(glaive::to_string(problem));
  for (const Code& code : selection.codes)
    json["code"].push_back({{"file", code.file},
                            {"target", glaive::to_string(code.object.target)},
                            {"format", to_string(code.object.format)},
                            {"bytes", code.object.bytes.size()},
                            {"text_bytes", code.object.text_bytes},
                            {"stack_bytes", code.object.stack_bytes},
                            {"xxh3_128", code.checksum}});
  for (const EmittedPlan& each : selection.plans) json["plans"].push_back(plan(each, selection));
  for (const Entry& each : selection.entries) json["entries"].push_back(entry(each, selection));
  for (const WrittenFile& file : files)
    json["files"].push_back({{"path", file.path}, {"bytes", file.bytes}, {"xxh3_128", file.checksum}});
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace glaive::emission
