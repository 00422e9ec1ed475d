#include "autotune/evidence.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace glaive {
namespace {

using Json = nlohmann::ordered_json;

Json times(const Timing& timing) {
  return {{"median_ms", timing.median() * 1e3},
          {"interval_ms", {timing.low() * 1e3, timing.high() * 1e3}},
          {"runs", timing.samples.size()},
          {"discarded", timing.discarded}};
}

/// A loser, with how the winner stands to it.
Json loser(const Timing& timing, const Timing& winner) {
  Json json = times(timing);
  json["winner"] = standing_json(ratio(winner, timing));
  return json;
}

}  // namespace

nlohmann::ordered_json standing_json(const Ratio& ratio) {
  return {{"verdict", to_string(ratio.standing())},
          {"ratio", ratio.median},
          {"interval", {ratio.low, ratio.high}},
          {"pairs", ratio.pairs}};
}

std::string to_json(const Evidence& evidence) {
  const double operations = useful_operations(evidence.what.problem, evidence.what.shape);
  const double seconds = evidence.timing.median();
  Json json = {{"schema", 1},
               {"case", to_string(evidence.what)},
               {"variant", evidence.variant},
               {"content", evidence.content},
               {"policy", evidence.policy}};
  json.update(times(evidence.timing));
  json["gflops"] = operations / seconds / 1e9;
  json["roof_share"] = roof_seconds(evidence.what, evidence.rates) / seconds;
  Json defaults = Json::array();
  for (const auto& [variant, timing] : evidence.defaults) {
    Json entry = {{"variant", variant}};
    entry.update(loser(timing, evidence.timing));
    defaults.push_back(std::move(entry));
  }
  json["defaults"] = std::move(defaults);
  json["baselines"] = {{"rows", loser(evidence.rows, evidence.timing)},
                       {"tiles", loser(evidence.tiles, evidence.timing)}};
  json["final"] = Json::array();
  for (const auto& challenge : evidence.challenges) {
    json["final"].push_back({{"challenger", challenge.challenger}, {"holder", challenge.holder}});
    json["final"].back().update(standing_json(challenge.ratio));
  }
  json["screened"] = Json::array();
  for (const auto& [variant, time] : evidence.screened)
    json["screened"].push_back({{"variant", variant}, {"ratio", std::round(time * 1e4) / 1e4}});
  json["errors"] = {{"o", evidence.verdict.error_o}, {"state", evidence.verdict.error_state}};
  // The message of a verdict without fault is why the comparison was left out.
  json["full_size"] = evidence.verdict.message.empty() ? "compared" : evidence.verdict.message;
  json["code"] = {{"text_bytes", evidence.text_bytes}, {"stack_bytes", evidence.stack_bytes}};
  Json drops = Json::object();
  for (const auto& [drop, count] : evidence.drops) drops[std::string(to_string(drop))] = count;
  json["counts"] = {{"legal", evidence.legal},
                    {"tried", evidence.tried},
                    {"compiled", evidence.compiled},
                    {"correct", evidence.correct},
                    {"drops", std::move(drops)}};
  json["machine"] = {{"device", evidence.device.name},         {"target", to_string(evidence.device.target)},
                     {"units", evidence.device.units},         {"l1_bytes", evidence.device.l1_bytes},
                     {"l2_bytes", evidence.device.l2_bytes},   {"l3_bytes", evidence.device.l3_bytes},
                     {"fma_gflops", evidence.rates.fma / 1e9}, {"copy_gbps", evidence.rates.copy / 1e9}};
  json["compiler"] = evidence.compiler;
  json["glaive"] = {{"version", glaive_version()}, {"commit", glaive_commit()}};
  // A denormal or infinite number must not make the evidence unreadable.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double roof_seconds(const Case& what, const Rates& rates) {
  return std::max(minimal_bytes(what.problem, what.shape) / rates.copy,
                  useful_operations(what.problem, what.shape) / rates.fma);
}

std::optional<double> roof_share(const nlohmann::ordered_json& evidence) {
  const auto number = [&](const char* path) {
    const auto at = Json::json_pointer(path);
    return evidence.contains(at) and evidence.at(at).is_number() ? evidence.at(at).get<double>() : 0;
  };
  // Older evidence tells of the FMA peak alone, but has what the roof is made of.
  const auto line = evidence.is_object() ? evidence.value("case", Json()) : Json();
  const auto what = parse_case(line.is_string() ? line.get<std::string>() : std::string());
  const double ms = number("/median_ms"), fma = number("/machine/fma_gflops"), copy = number("/machine/copy_gbps");
  if (not what or not(ms > 0 and fma > 0 and copy > 0)) return std::nullopt;
  return roof_seconds(*what, {fma * 1e9, copy * 1e9}) / (ms * 1e-3);
}

std::string measured_shape(const std::string& evidence, const Case& what) {
  const auto json = Json::parse(evidence, nullptr, false);
  if (not json.is_object() or not json.contains("case") or not json["case"].is_string()) return {};
  const auto line = json["case"].get<std::string>();
  const auto at = line.find("@ ");
  return at == line.npos or line == to_string(what) ? std::string() : line.substr(at + 2);
}

}  // namespace glaive
