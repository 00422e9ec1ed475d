#include "autotune/bench.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "autotune/evidence.hpp"
#include "autotune/tune.hpp"
#include "runtime/dispatch.hpp"

namespace glaive {
namespace {

struct Chosen {
  Built built;
  std::string source, skipped{};
};

Result<Chosen> compile_variant(Evaluator& evaluator, const Instance& instance, const Variant& variant,
                               std::string source) {
  auto code = evaluator.compile(instance, variant, Optimise::full, 0);
  if (not code) return std::unexpected<Error>(code.error());
  Chosen chosen{{variant.family->plan(instance, variant.config), std::move(*code)}, std::move(source)};
  chosen.built.plan.variant = to_string(variant, instance);
  chosen.built.plan.target = instance.target;
  return chosen;
}

Result<std::vector<Chosen>> compile_asked(Evaluator& evaluator, const Case& what, std::span<const std::string> names) {
  const Instance instance{what.problem, evaluator.device().target};
  std::vector<Chosen> chosen;
  for (const auto& name : names) {
    const auto variant = parse_variant(name, instance);
    if (not variant) return std::unexpected(variant.error());
    auto compiled = compile_variant(evaluator, instance, *variant, "asked");
    if (not compiled) return std::unexpected(compiled.error());
    chosen.push_back(std::move(*compiled));
  }
  return chosen;
}

Result<Chosen> choose_variant(Evaluator& evaluator, const Case& what, const BenchOptions& options) {
  const auto& device = evaluator.device();
  const Instance instance{what.problem, device.target};
  auto pack = open_pack_if_any(options.pack);
  if (not pack) return std::unexpected(pack.error());
  std::string skipped;  // what the runtime would pass over, too
  if (*pack) {
    const auto bucket = bucket_of(extents_of(what.problem, what.shape, options.threads));
    for (const auto& served : candidates(**pack, device, options.threads, what.problem, bucket)) {
      auto entry = (*pack)->load(served.index);
      if (entry and entry->code.size() == 1)
        return Chosen{{std::move(entry->plan), std::move(entry->code.front())},
                      fmt::format("pack, {}", to_string(served.match)),
                      skipped};
      skipped += (skipped.empty() ? "skipped " : "; skipped ") +
                 (entry ? fmt::format("entry {}: it has {} code objects", served.index, entry->code.size())
                        : entry.error().message);
    }
  }
  auto space = make_space(what, device);
  if (not space) return std::unexpected(space.error());
  auto preset = compile_variant(evaluator, instance, default_candidate(*space).variant, "default");
  if (preset) preset->skipped = std::move(skipped);
  return preset;
}

nlohmann::ordered_json to_json(const BenchRecord& record) {
  const double seconds = record.timing.median();
  nlohmann::ordered_json json = {
      {"problem", to_string(record.what)},
      {"device", record.device},
      {"variant", record.variant},
      {"source", record.source},
      {"threads", record.threads},
      {"gates", to_string(record.gates)},
      {"median_ms", seconds * 1e3},
      {"interval", {record.timing.low() * 1e3, record.timing.high() * 1e3}},
      {"runs", record.timing.samples.size()},
      {"gflops", record.gflops()},
      {"roof_ms", record.roof_seconds() * 1e3},
      {"roof_share", record.roof_seconds() / seconds},
      {"baseline", record.baseline()},
      {"baseline_ms", record.baseline_timing().median() * 1e3},
      {"speedup", record.baseline_timing().median() / seconds},
      {"error", record.error},
      {"baselines", {{"rows_ms", record.rows.median() * 1e3}, {"tiles_ms", record.tiles.median() * 1e3}}},
      {"fma_gflops", record.rates.fma / 1e9},
      {"copy_gbps", record.rates.copy / 1e9}};
  if (not record.skipped.empty()) json["skipped"] = record.skipped;
  if (record.to_fastest.pairs > 0) json["to_fastest"] = standing_json(record.to_fastest);
  return json;
}

}  // namespace

const Timing& BenchRecord::baseline_timing() const {
  // An absent loop has no samples, and NaN for a median.
  return rows.samples.empty() or tiles.median() < rows.median() ? tiles : rows;
}
const char* BenchRecord::baseline() const {
  const auto& faster = baseline_timing();
  return faster.samples.empty() ? "none" : &faster == &rows ? "rows" : "tiles";
}
double BenchRecord::gflops() const { return useful_operations(what.problem, what.shape) / timing.median() / 1e9; }
double BenchRecord::roof_seconds() const { return glaive::roof_seconds(what, rates); }

Result<std::vector<BenchRecord>> bench(Evaluator& evaluator, const Case& what, const BenchOptions& options) {
  if (auto fits = evaluator.check_memory(what); not fits) return std::unexpected(fits.error());
  auto chosen = compile_asked(evaluator, what, options.variants);
  if (not chosen) return std::unexpected(chosen.error());
  if (chosen->empty()) {
    auto one = choose_variant(evaluator, what, options);
    if (not one) return std::unexpected(one.error());
    chosen->push_back(std::move(*one));
  }

  std::vector<BenchRecord> records;
  std::vector<Contender> contenders;
  for (const auto& [built, source, skipped] : *chosen) {
    const auto& name = built.plan.variant;
    const auto verdict = evaluator.verify(what, built, Scrutiny::full, options.policy.gates);
    if (not verdict) return std::unexpected(verdict.error());
    if (verdict->drop != Drop::none)
      return fail(Status::failed, fmt::format("{} on `{}` is not correct ({}): {}", name, to_string(what),
                                              to_string(verdict->drop), verdict->message));
    records.push_back({.what = what,
                       .device = evaluator.device().name,
                       .variant = name,
                       .source = source,
                       .skipped = skipped,
                       .threads = evaluator.workers(),
                       .gates = options.policy.gates,
                       .timing = {},
                       .rows = {},
                       .tiles = {},
                       .to_fastest = {},
                       .rates = evaluator.rates(),
                       .error = verdict->error_o});
    contenders.push_back({Contender::Kind::kernel, &built});
  }
  contenders.push_back({Contender::Kind::rows, nullptr});
  contenders.push_back({Contender::Kind::tiles, nullptr});
  std::vector<std::size_t> keep(contenders.size());
  std::iota(keep.begin(), keep.end(), std::size_t{0});
  const auto times = evaluator.race(what, contenders, options.policy, keep);
  if (not times) return std::unexpected<Error>(times.error());

  const auto kernels = std::span(*times).first(records.size());
  const auto fastest = std::ranges::min_element(kernels, {}, &Timing::median);
  for (std::size_t i = 0; i < records.size(); ++i) {
    records[i].timing = kernels[i];
    records[i].rows = (*times)[records.size()];
    records[i].tiles = (*times)[records.size() + 1];
    if (records.size() > 1) records[i].to_fastest = ratio(kernels[i], *fastest);
  }
  return records;
}

std::string to_json(std::span<const BenchRecord> records, const std::string& command) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  nlohmann::ordered_json json = {{"command", command}, {"host", host}, {"commit", glaive_commit()}};
  json["records"] = nlohmann::ordered_json::array();
  for (const auto& record : records) json["records"].push_back(to_json(record));
  return json.dump(2) + "\n";
}

}  // namespace glaive
