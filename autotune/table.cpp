#include "autotune/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "autotune/evidence.hpp"
#include "autotune/quantile.hpp"

namespace glaive {
namespace {

constexpr std::string_view magic = "# glaive table 1";
constexpr std::string_view columns = "family,config,default,prior_us,low_us,median_us,high_us,drop";

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <class Number>
bool read(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() and end == text.data() + text.size();
}

/// Fails with the words that there are.
Result<Drop> parse_drop(std::string_view word) {
  std::string words;
  for (int i = 0; to_string(static_cast<Drop>(i)) != "unknown"; ++i) {
    const auto drop = static_cast<Drop>(i);
    if (to_string(drop) == word) return drop;
    words += fmt::format("{}{}", i > 0 ? ", " : "", to_string(drop));
  }
  return fail(Status::invalid_argument, fmt::format("`{}` is no reason to drop: it is one of {}", word, words));
}

/// A family as a table knows it: enough to search, not to compile.
class RecordedFamily final : public Family {
 public:
  RecordedFamily(const Table& table, std::size_t index) : column_(table.families[index]) {
    std::vector<std::set<int>> values(column_.parameters.size());
    for (const auto& row : table.rows) {
      if (row.family != index) continue;
      for (std::size_t p = 0; p < values.size(); ++p) values[p].insert(row.config[p]);
      prior_[row.config] = row.prior;
      if (row.is_default) default_ = row.config;
    }
    for (std::size_t p = 0; p < values.size(); ++p)
      parameters_.push_back({column_.parameters[p], "", {values[p].begin(), values[p].end()}});
  }
  std::string_view name() const override { return column_.name; }
  std::string_view summary() const override { return "recorded"; }
  Result<void> applicable(const Instance&) const override { return {}; }
  std::vector<Parameter> parameters(const Instance&) const override { return parameters_; }
  std::optional<std::string> constraint(const Instance&, const Config& config) const override {
    return prior_.contains(config) ? std::nullopt : std::optional<std::string>("not in the table");
  }
  Config default_config(const Instance&) const override { return default_; }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config& config) const override {
    return prior_.at(config);
  }
  Source instantiate(const Instance&, const Config&) const override { return {}; }
  Plan plan(const Instance&, const Config&) const override { return {}; }

 private:
  Table::FamilyColumn column_;
  std::vector<Parameter> parameters_;
  std::map<Config, double> prior_;
  Config default_;
};

/// The family of this build that a table's column names, where it still has the same parameters.
const Family* family_of_this_build(const Table::FamilyColumn& column, const Instance& instance) {
  const auto* family = find_family(column.name, instance.target.kind);
  if (family == nullptr or not family->applicable(instance)) return nullptr;
  return std::ranges::equal(family->parameters(instance), column.parameters, {}, &Parameter::name) ? family : nullptr;
}

/// Why `family` has no variant of that configuration; nothing when it has.
std::optional<std::string> why_not(const Family& family, const Instance& instance, const Config& config) {
  const auto parameters = family.parameters(instance);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (std::ranges::find(parameters[i].values, config[i]) == parameters[i].values.end())
      return fmt::format("{} is one of {}, not {}", parameters[i].name, fmt::join(parameters[i].values, ", "),
                         config[i]);
  return family.constraint(instance, config);
}

}  // namespace

Result<Table> make_table(const Space& space, const Case& what, const DeviceInfo& device, Journal& journal,
                         const CaseKey& key) {
  const auto attempts = journal.find_attempts(key);
  if (not attempts) return std::unexpected(attempts.error());
  const auto timings = journal.find_timings(key, Round::screen);
  if (not timings) return std::unexpected(timings.error());
  std::map<std::string_view, const AttemptRecord*> attempt_of;
  std::map<std::string_view, const TimingRecord*> timing_of;
  std::vector<double> reference;
  for (const auto& record : *attempts) attempt_of[record.variant] = &record;
  for (const auto& record : *timings) {
    timing_of[record.variant] = &record;
    reference.push_back(record.reference_median);
  }
  const double scale = reference.empty() ? 0 : quantile(reference, 0.5);

  Table table;
  table.what = what;
  table.device = device;
  table.commit = glaive_commit();
  if (not attempts->empty()) table.when = attempts->back().when.substr(0, 10);
  std::map<const Family*, std::size_t> number;
  for (const auto& candidate : space.candidates) {
    const Family* family = candidate.variant.family;
    const auto [at, fresh] = number.try_emplace(family, table.families.size());
    if (fresh) {
      Table::FamilyColumn column{std::string(family->name()), {}};
      for (const auto& parameter : family->parameters(space.instance)) column.parameters.emplace_back(parameter.name);
      table.families.push_back(std::move(column));
    }
    Table::Row row{.family = at->second, .config = candidate.variant.config, .is_default = candidate.is_default};
    row.prior = candidate.prior;
    const auto attempt = attempt_of.find(candidate.name);
    const auto timing = timing_of.find(candidate.name);
    if (attempt != attempt_of.end() and attempt->second->drop != Drop::none) {
      row.drop = attempt->second->drop;
    } else if (timing != timing_of.end()) {
      const auto& record = *timing->second;
      const double unit = scale / record.reference_median;
      row.low = record.timing.low() * unit;
      row.median = record.timing.median() * unit;
      row.high = record.timing.high() * unit;
    } else if (not timings->empty() and timings->front().reference == candidate.name) {
      row.low = quantile(reference, 0.025);
      row.median = scale;
      row.high = quantile(reference, 0.975);
    } else {
      return fail(Status::not_found, fmt::format("{} was not timed yet", candidate.name));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string to_text(const Table& table) {
  const auto& device = table.device;
  std::string text(magic);
  const auto header = [&](std::string_view key, const auto& value) { text += fmt::format("\n# {}: {}", key, value); };
  header("case", to_string(table.what));
  header("part", table.part.empty() ? "whole" : table.part);
  header("device", device.name);
  header("target", to_string(device.target));
  header("units", device.units);
  header("caches", fmt::format("{} {} {}", device.l1_bytes, device.l2_bytes, device.l3_bytes));
  header("compiler", table.compiler);
  header("commit", table.commit);
  header("command", table.command);
  header("date", table.when);
  for (const auto& family : table.families)
    header("family", fmt::format("{} {}", family.name, fmt::join(family.parameters, " ")));
  header("rows", table.rows.size());
  text += fmt::format("\n{}\n", columns);
  for (const auto& row : table.rows)
    text += fmt::format("{},{},{},{:.4g},{:.5g},{:.5g},{:.5g},{}\n", table.families[row.family].name,
                        fmt::join(row.config, " "), row.is_default ? 1 : 0, row.prior * 1e6, row.low * 1e6,
                        row.median * 1e6, row.high * 1e6, to_string(row.drop));
  return text;
}

Result<Table> parse_table(std::string_view text) {
  Table table;
  std::size_t number = 0;
  bool have_case = false, in_rows = false;
  std::optional<std::size_t> rows;                    // that the table says it has
  std::vector<const Family*> current;                 // of this build, by column; null where it has none
  std::set<std::pair<std::size_t, Config>> variants;  // seen so far
  const auto bad = [&](std::string_view why) {
    return fail(Status::invalid_argument, fmt::format("line {}: {}", number, why));
  };
  for (auto line : split(text, '\n')) {
    ++number;
    if (number == 1) {
      if (line != magic) return bad(fmt::format("not a table of times: those begin with `{}`", magic));
      if (not text.ends_with('\n')) return fail(Status::invalid_argument, "incomplete: its last line does not end");
      continue;
    }
    if (line.starts_with("# ")) {
      const auto colon = line.find(": ");
      if (colon == line.npos) continue;
      const auto key = line.substr(2, colon - 2);
      const std::string value(line.substr(colon + 2));
      if (key == "case") {
        auto what = parse_case(value);
        if (not what) return bad(fmt::format("`{}` is not a problem line", value));
        table.what = std::move(*what);
        have_case = true;
      } else if (key == "part") {
        table.part = value == "whole" ? "" : value;
      } else if (key == "device") {
        table.device.name = value;
      } else if (key == "target") {
        auto target = parse_target(value);
        if (not target) return bad(target.error().message);
        table.device.target = std::move(*target);
      } else if (key == "units") {
        if (not read(value, table.device.units) or table.device.units < 1) return bad("units is a positive number");
      } else if (key == "caches") {
        const auto bytes = split(value, ' ');
        if (bytes.size() != 3 or not read(bytes[0], table.device.l1_bytes) or
            not read(bytes[1], table.device.l2_bytes) or not read(bytes[2], table.device.l3_bytes))
          return bad("caches are three numbers of bytes");
      } else if (key == "family") {
        const auto words = split(value, ' ');
        table.families.push_back({std::string(words.front()), {words.begin() + 1, words.end()}});
      } else if (key == "rows") {
        if (not read(value, rows.emplace())) return bad("rows is a number");
      } else if (key == "compiler") {
        table.compiler = value;
      } else if (key == "commit") {
        table.commit = value;
      } else if (key == "command") {
        table.command = value;
      } else if (key == "date") {
        table.when = value;
      }
      continue;
    }
    if (not in_rows) {
      if (line != columns) return bad(fmt::format("the columns are `{}`", columns));
      if (not have_case or table.families.empty() or not rows)
        return bad("`# case:`, `# family:` or `# rows:` is missing above");
      for (const auto& column : table.families)
        current.push_back(family_of_this_build(column, {table.what.problem, table.device.target}));
      in_rows = true;
      continue;
    }
    if (line.empty()) continue;
    const auto cells = split(line, ',');
    if (cells.size() != 8) return bad(fmt::format("cells: {} instead of 8", cells.size()));
    Table::Row row;
    const auto family = std::ranges::find(table.families, cells[0], &Table::FamilyColumn::name);
    if (family == table.families.end()) return bad(fmt::format("family `{}` is not declared above", cells[0]));
    row.family = static_cast<std::size_t>(family - table.families.begin());
    for (const auto value : split(cells[1], ' '))
      if (not read(value, row.config.emplace_back())) return bad(fmt::format("`{}` is not a number", value));
    if (row.config.size() != family->parameters.size())
      return bad(fmt::format("{} values for the {} parameters of {}", row.config.size(), family->parameters.size(),
                             family->name));
    row.is_default = cells[2] == "1";
    double* const times[] = {&row.prior, &row.low, &row.median, &row.high};
    for (std::size_t i = 0; i < 4; ++i) {
      if (not read(cells[3 + i], *times[i]) or not(*times[i] >= 0 and *times[i] < 1e15))
        return bad(fmt::format("`{}` is not a time", cells[3 + i]));
      *times[i] *= 1e-6;
    }
    const auto drop = parse_drop(cells[7]);
    if (not drop) return bad(drop.error().message);
    row.drop = *drop;
    if (row.drop == Drop::none and row.median <= 0) return bad("a variant that is not out has a time");
    if (not variants.emplace(row.family, row.config).second)
      return bad(fmt::format("{} {} was there before", family->name, cells[1]));
    if (const auto* here = current[row.family])
      if (const auto why = why_not(*here, {table.what.problem, table.device.target}, row.config))
        return bad(fmt::format("{} of this build has no variant `{}`: {}", family->name, cells[1], *why));
    table.rows.push_back(std::move(row));
  }
  if (table.rows.size() != rows.value_or(0))
    return fail(Status::invalid_argument, fmt::format("incomplete: {} rows of the {} that `# rows:` tells of",
                                                      table.rows.size(), rows.value_or(0)));
  if (std::ranges::none_of(table.rows, [](const auto& row) { return row.drop == Drop::none; }))
    return fail(Status::invalid_argument, "the table has no variant with a time");
  return table;
}

Result<Table> read_table(const std::filesystem::path& file) {
  const auto refused = [&](std::string_view why) {
    return fail(Status::io_error, fmt::format("table {}: {}", file.string(), why));
  };
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) return refused(std::strerror(EISDIR));
  std::ifstream in(file, std::ios::binary);
  if (not in) return refused(std::strerror(errno));
  const std::string text(std::istreambuf_iterator<char>(in), {});
  if (text.empty()) return refused("it is empty");
  auto table = parse_table(text);
  if (not table) return fail(table.error().status, fmt::format("table {}: {}", file.string(), table.error().message));
  return table;
}

RecordedSpace make_recorded_space(const Table& table) {
  RecordedSpace recorded;
  auto& space = recorded.space;
  space.instance = {table.what.problem, table.device.target};
  std::vector<const Family*> current;
  for (std::size_t f = 0; f < table.families.size(); ++f) {
    recorded.families.push_back(std::make_unique<RecordedFamily>(table, f));
    current.push_back(family_of_this_build(table.families[f], space.instance));
  }
  recorded.fresh_prior = std::ranges::all_of(current, [](const auto* family) { return family != nullptr; });

  std::vector<std::pair<double, const Table::Row*>> order;
  for (const auto& row : table.rows)
    order.emplace_back(recorded.fresh_prior
                           ? current[row.family]->prior(space.instance, table.what.shape, table.device, row.config)
                           : row.prior,
                       &row);
  std::ranges::stable_sort(order, {}, &std::pair<double, const Table::Row*>::first);
  for (const auto& [prior, row] : order) {
    const Variant variant{recorded.families[row->family].get(), row->config};
    space.candidates.push_back({variant, to_string(variant, space.instance), prior, row->is_default});
    recorded.rows.push_back(row);
  }
  return recorded;
}

}  // namespace glaive
