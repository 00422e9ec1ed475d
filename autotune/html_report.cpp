#include "autotune/html_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "autotune/evidence.hpp"
#include "autotune/quantile.hpp"
#include "autotune/svg.hpp"

namespace glaive {

extern const std::string_view html_report_css, html_report_js;  // the files of those names

namespace {

using svg::Chart, svg::Scale;
using Json = nlohmann::ordered_json;
using Entry = Story::Entry;

constexpr double half = 520, height = 300, full = 1060;
constexpr std::size_t most_dots = 1500;  ///< of one chart; beyond it every n-th is drawn

std::string milliseconds(double seconds) { return short_number(seconds * 1e3) + " ms"; }
std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

/// A number of the evidence by its path, or nothing: evidence may be older than this report.
std::optional<double> number(const Json& json, const char* path) {
  const Json::json_pointer at(path);
  if (not json.is_object() or not json.contains(at) or not json.at(at).is_number()) return std::nullopt;
  return json.at(at).get<double>();
}

std::string_view kind(const Story& story, const Entry& entry) {
  return entry.variant == story.winner ? "winner" : entry.is_default ? "default" : "any";
}

std::string tip(const Entry& entry) {
  if (not entry.timed()) return fmt::format("{}\n{}", entry.variant, to_string(entry.drop));
  return fmt::format("{}\n{} [{}, {}]", entry.variant, milliseconds(entry.median), short_number(entry.low * 1e3),
                     short_number(entry.high * 1e3));
}

/// Timed entries to draw: those in colour last, so that they lie on top.
std::vector<const Entry*> drawn(const Story& story) {
  std::vector<const Entry*> all, coloured;
  for (const auto& entry : story.entries)
    if (entry.timed()) (kind(story, entry) == "any" ? all : coloured).push_back(&entry);
  std::vector<const Entry*> out;
  const std::size_t step = all.size() / most_dots + 1;
  for (std::size_t i = 0; i < all.size(); i += step) out.push_back(all[i]);
  out.insert(out.end(), coloured.begin(), coloured.end());
  return out;
}

/// A place within -1..1 that looks random and is always the same.
double jitter(std::size_t i) { return std::fmod(static_cast<double>(i) * 0.618034, 1.0) * 2 - 1; }

/// A variant's name, which may be broken behind its commas.
std::string breakable(std::string_view variant) {
  std::string text;
  for (const char c : escape(variant)) {
    text += c;
    if (c == ',') text += "<wbr>";
  }
  return text;
}

std::string card(std::string_view title, std::string_view note, const std::string& body, bool wide = false) {
  return fmt::format("<div class='card{}'><h3>{}</h3><p class='note'>{}</p>{}</div>\n", wide ? " wide" : "", title,
                     note, body);
}

constexpr std::string_view legend =
    "<span class='legend'><span class='key' style='background:var(--winner)'></span>winner"
    "<span class='key' style='background:var(--default)'></span>default"
    "<span class='key' style='background:var(--faint)'></span>other variants</span>";

/// A case without tokens computes nothing, and has no place on an axis of logarithms.
bool has_roof(const Story& story) { return story.useful_operations > 0 and story.minimal_bytes > 0; }

/// Every case at its arithmetic intensity, under what the machine can do.
std::string roofline(std::span<const Story> stories) {
  double fma = 0, copy = 0;
  std::vector<double> intensities, rates;
  for (const auto& story : stories) {
    const auto evidence = Json::parse(story.evidence, nullptr, false);
    fma = std::max(fma, number(evidence, "/machine/fma_gflops").value_or(0));
    copy = std::max(copy, number(evidence, "/machine/copy_gbps").value_or(0));
    if (not has_roof(story) or story.fastest() == nullptr) continue;
    intensities.push_back(story.useful_operations / story.minimal_bytes);
    for (const auto& entry : story.entries)
      if (entry.timed()) rates.push_back(story.useful_operations / entry.median / 1e9);
  }
  if (fma <= 0 or copy <= 0 or intensities.empty()) return {};
  const double knee = fma / copy;
  auto x = intensities;
  x.push_back(knee);
  auto scale_x = Scale::around(x, true, 0.25);
  scale_x.low = std::min(scale_x.low, 0.7 * std::ranges::min(intensities));
  scale_x.high = std::max(scale_x.high, 1.6 * std::ranges::max(x));
  rates.push_back(fma);
  const auto scale_y = Scale::around(rates, true, 0.1);
  Chart chart(full, 380, scale_x, scale_y, "useful operations per byte that must move, FLOP/B", "useful rate, GFLOP/s");
  const double from = std::max(scale_x.low, scale_y.low / copy);
  chart.line({{from, from * copy}, {knee, fma}, {scale_x.high, fma}}, "roof");
  chart.label(scale_x.high, fma, fmt::format("FMA peak, {} GFLOP/s", short_number(fma)), "name", -150, -7);
  chart.label(std::sqrt(from * knee), std::sqrt(from * knee) * copy, fmt::format("memory, {} GB/s", short_number(copy)),
              "name", 8, 14);
  for (const auto& story : stories) {
    if (not has_roof(story)) continue;
    const double intensity = story.useful_operations / story.minimal_bytes;
    std::size_t i = 0;
    for (const auto* entry : drawn(story)) {
      const bool any = kind(story, *entry) == "any";
      chart.dot(intensity * (any ? std::exp(0.03 * jitter(i++)) : 1), story.useful_operations / entry->median / 1e9,
                kind(story, *entry), any ? 2.5 : 5,
                fmt::format("{}\n{}\n{} GFLOP/s", story.line, tip(*entry),
                            short_number(story.useful_operations / entry->median / 1e9)));
    }
  }
  return card("On the roofline",
              fmt::format("Each column of dots is a case; all its variants do the same useful work, so that height is "
                          "speed. A case that fits into the caches may lie above the line of memory. {}",
                          legend),
              chart.text("Roofline of all cases"), true);
}

std::string progress_chart(const Story& story) {
  const auto* fastest = story.fastest();
  std::vector<double> times, numbers{1, static_cast<double>(story.entries.size())};
  for (const auto& entry : story.entries)
    if (entry.timed()) times.push_back(entry.median * 1e3);
  Chart chart(half, height, Scale::around(numbers, false, 0.03), Scale::around(times, true, 0.08),
              "evaluations, in the order taken up", "time, ms");
  std::vector<std::pair<double, double>> path;
  double best = std::numeric_limits<double>::infinity();
  std::size_t arrival = 0;
  const std::size_t step = story.entries.size() / most_dots + 1;
  for (std::size_t i = 0; i < story.entries.size(); ++i) {
    const auto& entry = story.entries[i];
    if (not entry.timed()) continue;
    const auto at = static_cast<double>(i + 1);
    if (entry.median < best) {
      if (not path.empty()) path.emplace_back(at, best * 1e3);
      best = entry.median;
      path.emplace_back(at, best * 1e3);
      if (arrival == 0 and best <= fastest->median * (1 + close_enough)) arrival = i + 1;
    }
    if (kind(story, entry) == "any" and i % step == 0) chart.dot(at, entry.median * 1e3, "any", 2.5, tip(entry));
  }
  if (path.empty()) return {};
  path.emplace_back(numbers.back(), best * 1e3);
  chart.line(path, "best");
  for (std::size_t i = 0; i < story.entries.size(); ++i)
    if (const auto& entry = story.entries[i]; entry.timed() and kind(story, entry) != "any")
      chart.dot(static_cast<double>(i + 1), entry.median * 1e3, kind(story, entry), 4.5, tip(entry));
  return card("Best so far",
              fmt::format("Within 2 % of the fastest after {} of {} evaluations. Times of the screen.", arrival,
                          story.entries.size()),
              chart.text("Best time so far against evaluations"));
}

std::string prior_chart(const Story& story) {
  std::vector<double> guessed, measured;
  for (const auto* entry : drawn(story)) {
    guessed.push_back(entry->prior * 1e3);
    measured.push_back(entry->median * 1e3);
  }
  const auto x = Scale::around(guessed, true), y = Scale::around(measured, true);
  Chart chart(half, height, x, y, "prior, ms", "measured, ms");
  if (const double low = std::max(x.low, y.low), high = std::min(x.high, y.high); low < high)
    chart.line({{low, low}, {high, high}}, "equal");
  for (const auto* entry : drawn(story)) {
    const bool any = kind(story, *entry) == "any";
    chart.dot(entry->prior * 1e3, entry->median * 1e3, kind(story, *entry), any ? 2.5 : 4.5,
              fmt::format("{}\nprior {}", tip(*entry), milliseconds(entry->prior)));
  }
  const auto quality = story.prior();
  return card("Prior against measured",
              fmt::format("Rank correlation {:.2f} of what was tried; the first by prior is {} from the fastest, the "
                          "best of the first eight {}.",
                          quality.rank_correlation, percent(quality.regret_1), percent(quality.regret_8)),
              chart.text("Prior against measured time"));
}

/// Horizontal bars with what they stand for to the left and right.
struct Bar {
  std::string name, value, kind;
  double length = 0, low = 0, high = 0;  ///< low and high: an interval; 0 for none
};
std::string bars(const std::vector<Bar>& rows, std::string_view title) {
  constexpr double left = 128, pitch = 30, digit = 6.7;  // a digit is as wide in the style sheet's 12 px
  double most = 0, right = 0;
  for (const auto& row : rows) {
    most = std::max({most, row.length, row.high});
    right = std::max(right, 12 + digit * static_cast<double>(row.value.size()));
  }
  const double unit = (half - left - right) / (most > 0 ? most : 1);
  std::string marks;
  auto to = std::back_inserter(marks);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& row = rows[i];
    const double y = 6 + pitch * static_cast<double>(i);
    fmt::format_to(to, "<text x='{:.0f}' y='{:.1f}' text-anchor='end'>{}</text>", left - 10, y + 14, escape(row.name));
    fmt::format_to(to, "<rect class='bar {}' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='18' rx='2'/>", row.kind, left,
                   y, std::max(row.length * unit, 1.5));
    if (row.high > 0)
      fmt::format_to(to, "<path class='whisker' d='M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v8M{1:.1f} {3:.1f}v8'/>",
                     left + row.low * unit, left + row.high * unit, y + 9, y + 5);
    fmt::format_to(to, "<text class='name' x='{:.1f}' y='{:.1f}'>{}</text>",
                   left + std::max(row.length, row.high) * unit + 8, y + 14, escape(row.value));
  }
  return fmt::format("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>{}</svg>", half,
                     pitch * static_cast<double>(rows.size()) + 8, escape(title), marks);
}

std::string evidence_chart(const Json& evidence) {
  const auto winner = number(evidence, "/median_ms");
  if (not winner) return {};
  std::vector<Bar> rows;
  const auto add = [&](std::string name, std::string_view kind, const Json& json) {
    const auto median = number(json, "/median_ms"), low = number(json, "/interval_ms/0"),
               high = number(json, "/interval_ms/1");
    if (not median) return;
    auto value = fmt::format("{} ms [{}, {}]", short_number(*median), short_number(low.value_or(*median)),
                             short_number(high.value_or(*median)));
    if (kind != "winner") value = fmt::format("{:.2f}×  ", *median / *winner) + value;
    rows.push_back({std::move(name), std::move(value), std::string(kind), *median, low.value_or(0), high.value_or(0)});
  };
  add("winner", "winner", evidence);
  for (const auto& entry : evidence.value("defaults", Json::array())) {
    const auto variant = entry.value("variant", std::string());
    add("default, " + variant.substr(0, variant.find('(')), "default", entry);
  }
  const auto loops = evidence.value("baselines", Json::object());
  for (const char* name : {"tiles", "rows"})
    if (loops.contains(name)) add(fmt::format("plain loop, {}", name), "", loops.at(name));
  return card("Evidence", "The last race: all of these interleaved in one run, medians with their 95 % intervals.",
              bars(rows, "Winner, defaults and plain loops"));
}

std::string drops_chart(const Story& story) {
  std::vector<Bar> rows;
  const auto timed = static_cast<double>(std::ranges::count_if(story.entries, &Entry::timed));
  rows.push_back({"timed", fmt::format("{:.0f}", timed), "", timed});
  for (const auto& [drop, count] : story.drops())
    rows.push_back({std::string(to_string(drop)), fmt::format("{}", count), "bad", static_cast<double>(count)});
  if (const auto left = std::ranges::count_if(
          story.entries, [](const Entry& entry) { return entry.drop == Drop::none and not entry.timed(); });
      left > 0)
    rows.push_back({"not timed yet", fmt::format("{}", left), "", static_cast<double>(left)});
  double spent = 0;
  for (const auto& entry : story.entries) spent += entry.spent;
  std::string messages;
  std::size_t told = 0;
  for (const auto& entry : story.entries)
    if (entry.drop != Drop::none and told++ < 3)
      messages +=
          fmt::format("<p class='note'><code>{}</code>: {}</p>", breakable(entry.variant), escape(entry.message));
  return card("What became of them",
              fmt::format("{} variants taken up{}; {} s of compiling, verifying and timing.", story.entries.size(),
                          story.drops().empty() ? ", none dropped" : "", short_number(spent)),
              bars(rows, "Variants by what became of them") + messages);
}

/// One panel per parameter, one strip per value: whether a value pays shows in where its dots end below.
std::string parameters_chart(const Story& story, const std::string& family) {
  std::vector<const Entry*> entries;
  for (const auto* entry : drawn(story))
    if (entry->family == family) entries.push_back(entry);
  std::vector<std::pair<std::string, std::vector<int>>> parameters;
  if (entries.size() < 8) return {};
  std::size_t columns = 0;
  for (std::size_t p = 0; p < entries.front()->parameters.size(); ++p) {
    std::vector<int> values;
    for (const auto* entry : entries)
      if (p < entry->parameters.size()) values.push_back(entry->parameters[p].second);
    std::ranges::sort(values);
    values.erase(std::ranges::unique(values).begin(), values.end());
    columns += values.size() > 1 ? values.size() : 0;
    parameters.emplace_back(entries.front()->parameters[p].first, std::move(values));
  }
  if (columns == 0) return {};
  std::vector<double> times;
  for (const auto* entry : entries) times.push_back(entry->median);
  const double fastest = std::ranges::min(times);
  for (double& time : times) time /= fastest;
  const auto scale = Scale::around(times, true, 0.05);

  constexpr double left = 52, top = 26, bottom = 226, gap = 26;
  const auto panels = static_cast<double>(
      std::ranges::count_if(parameters, [](const auto& parameter) { return parameter.second.size() > 1; }));
  const double pitch = std::min(64.0, (full - left - 10 - gap * (panels - 1)) / static_cast<double>(columns));
  const auto py = [&](double ratio) { return bottom - scale.share(ratio) * (bottom - top); };
  std::string marks;
  auto to = std::back_inserter(marks);
  double x = left;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const auto& [name, values] = parameters[p];
    if (values.size() < 2) continue;
    const double width = pitch * static_cast<double>(values.size());
    for (const double tick : scale.ticks()) {
      fmt::format_to(to, "<line class='grid' x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}'/>", x, x + width,
                     py(tick));
      if (x == left)
        fmt::format_to(to, "<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='end'>{}</text>", left - 7,
                       py(tick) + 3.5, short_number(tick));
    }
    fmt::format_to(to, "<text class='strong' x='{:.1f}' y='14' text-anchor='middle'>{}</text>", x + width / 2,
                   escape(name));
    std::vector<double> medians(values.size());
    for (std::size_t v = 0; v < values.size(); ++v) {
      const double center = x + pitch * (static_cast<double>(v) + 0.5);
      std::vector<double> ratios;
      for (std::size_t i = 0; i < entries.size(); ++i) {
        if (p >= entries[i]->parameters.size() or entries[i]->parameters[p].second != values[v]) continue;
        const double ratio = entries[i]->median / fastest;
        ratios.push_back(ratio);
        const bool any = kind(story, *entries[i]) == "any";
        fmt::format_to(to, "<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='{}'><title>{}</title></circle>",
                       kind(story, *entries[i]), center + (any ? 0.3 * pitch * jitter(i) : 0), py(ratio), any ? 1.8 : 4,
                       escape(tip(*entries[i])));
      }
      medians[v] = quantile(ratios, 0.5);
      fmt::format_to(to, "<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>", center, bottom + 17,
                     values[v]);
    }
    const auto top_value = std::ranges::min_element(medians) - medians.begin();
    for (std::size_t v = 0; v < values.size(); ++v) {
      const double center = x + pitch * (static_cast<double>(v) + 0.5);
      fmt::format_to(to, "<line class='median{}' x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}'/>",
                     static_cast<std::ptrdiff_t>(v) == top_value ? " top" : "", center - 0.32 * pitch,
                     center + 0.32 * pitch, py(medians[v]), py(medians[v]));
    }
    fmt::format_to(to, "<line class='axis' x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}'/>", x, x + width,
                   bottom);
    x += width + gap;
  }
  fmt::format_to(to,
                 "<text class='name' transform='translate(12 {:.1f}) rotate(-90)' text-anchor='middle'>time / fastest"
                 "</text>",
                 (top + bottom) / 2);
  return card(
      fmt::format("Effect of each parameter: {}", escape(family)),
      "Every dot a timed variant, bars the median of a value, the lowest in orange. A search tries good regions "
      "more often, so values that it avoided show few dots.",
      fmt::format("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='Time by value of each parameter of "
                  "{}'>{}</svg>",
                  full, bottom + 26, escape(family), marks),
      true);
}

std::string fastest_table(const Story& story) {
  std::vector<const Entry*> order;
  for (const auto& entry : story.entries)
    if (entry.timed()) order.push_back(&entry);
  std::ranges::stable_sort(order, {}, &Entry::median);
  const double fastest = order.empty() ? 1 : order.front()->median;
  if (order.size() > 8) order.resize(8);
  std::string rows;
  for (const auto* entry : order)
    rows += fmt::format(
        "<tr class='{}'><td class='mono'>{}</td><td>{}</td><td>{} – {}</td><td>{:.3f}</td><td>{}</td></tr>",
        kind(story, *entry), escape(entry->variant), short_number(entry->median * 1e3), short_number(entry->low * 1e3),
        short_number(entry->high * 1e3), entry->median / fastest, short_number(entry->prior * 1e3));
  return card("The fastest by screening",
              story.winner.empty() ? "Compiled lightly."
                                   : "Compiled lightly; the best of them were compiled in full "
                                     "and raced again.",
              "<div class='scroll'><table><tr><th>variant</th><th>ms</th><th>95 % interval</th><th>/ fastest</th>"
              "<th>prior, ms</th></tr>" +
                  rows + "</table></div>",
              true);
}

std::string figures(const Json& evidence) {
  std::string text;
  const auto figure = [&](const std::string& value, std::string_view meaning) {
    text += fmt::format("<div><b>{}</b><span>{}</span></div>", value, meaning);
  };
  const auto median = number(evidence, "/median_ms");
  if (not median) return {};
  figure(short_number(*median) + " ms", "median of the last race");
  if (const auto rate = number(evidence, "/gflops")) figure(short_number(*rate) + " GFLOP/s", "useful work");
  if (const auto share = roof_share(evidence)) figure(fmt::format("{:.0f} %", *share * 100), "of the roof");
  if (const auto preset = number(evidence, "/defaults/0/median_ms"))
    figure(fmt::format("{:.2f}×", *preset / *median), "as fast as the default");
  const auto tiles = number(evidence, "/baselines/tiles/median_ms"),
             rows = number(evidence, "/baselines/rows/median_ms");
  if (tiles or rows)
    figure(fmt::format("{:.2f}×", std::min(tiles.value_or(1e300), rows.value_or(1e300)) / *median),
           "as fast as the better plain loop");
  return "<div class='figures'>" + text + "</div>";
}

std::string section(const Story& story, std::size_t index) {
  const auto evidence = Json::parse(story.evidence, nullptr, false);
  std::string text = fmt::format("<h2 id='case-{}'>{}</h2>\n", index, escape(story.line));
  text +=
      fmt::format("<p class='note'>{}{}</p>\n", escape(story.key.policy),
                  story.first.empty() ? "" : fmt::format(" · {} to {} UTC", escape(story.first), escape(story.last)));
  if (story.winner.empty()) {
    text += "<p>No winner was published for this case.</p>\n";
  } else {
    text += fmt::format("<p>Winner <code>{}</code>{}</p>\n", breakable(story.winner),
                        story.bucket ? fmt::format(" for {} (sequences × kv heads, tokens of the longest)",
                                                   escape(to_string(*story.bucket)))
                                     : "");
    text += fmt::format("<p>The best of other families, time over the winner's: {}</p>\n", escape(story.why()));
  }
  text += figures(evidence);
  text += "<div class='cards'>\n";
  if (story.fastest() != nullptr) text += progress_chart(story) + prior_chart(story);
  text += evidence_chart(evidence) + drops_chart(story);
  std::vector<std::string> families;
  for (const auto& entry : story.entries)
    if (std::ranges::find(families, entry.family) == families.end()) families.push_back(entry.family);
  for (const auto& family : families) text += parameters_chart(story, family);
  if (story.fastest() != nullptr) text += fastest_table(story);
  return text + "</div>\n";
}

/// `name=..; units=2; l1=32768; ..` for people; what has another form stays as it is.
std::string device_text(const std::string& identity) {
  std::map<std::string, std::string> field;
  for (std::size_t begin = 0, end; begin < identity.size(); begin = end + 2) {
    end = std::min(identity.find("; ", begin), identity.size());
    const auto word = identity.substr(begin, end - begin);
    if (const auto equals = word.find('='); equals != word.npos)
      field[word.substr(0, equals)] = word.substr(equals + 1);
  }
  if (not field.contains("name")) return identity;
  std::string text = field["name"];
  if (field.contains("units")) text += fmt::format(" · {} units", field["units"]);
  for (const char* cache : {"l1", "l2", "l3"})
    if (const auto bytes = std::strtoll(field[cache].c_str(), nullptr, 10); bytes > 0)
      text += fmt::format(" · {} {}", static_cast<char>(std::toupper(cache[0])) + std::string(cache + 1),
                          bytes >= 1 << 20 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} KiB", bytes >> 10));
  return text;
}

std::string summary(std::span<const Story> stories) {
  std::string rows;
  for (std::size_t i = 0; i < stories.size(); ++i) {
    const auto& story = stories[i];
    const auto evidence = Json::parse(story.evidence, nullptr, false);
    const auto median = number(evidence, "/median_ms");
    const auto against = [&](const char* path) {
      const auto other = number(evidence, path);
      return median and other ? fmt::format("{:.2f}×", *other / *median) : "–";
    };
    const auto share = roof_share(evidence);
    const auto low = number(evidence, "/interval_ms/0"), high = number(evidence, "/interval_ms/1");
    rows += fmt::format(
        "<tr><td><a href='#case-{}'>{}</a><br><span "
        "class='soft'>{}</span></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td class='text mono'>{}</td></tr>\n",
        i, escape(story.line), escape(story.key.policy), median ? short_number(*median) : "–",
        median and low and high ? fmt::format("± {:.1f} %", (*high - *low) / 2 / *median * 100) : "–",
        share ? fmt::format("{:.0f} %", *share * 100) : "–", against("/defaults/0/median_ms"),
        against("/baselines/tiles/median_ms"), story.entries.size(),
        story.winner.empty() ? "–" : breakable(story.winner));
  }
  return "<div class='scroll'><table><tr><th>problem</th><th>median, ms</th><th>95 %</th><th>of roof</th>"
         "<th>vs default</th><th>vs tiles</th><th>tried</th><th class='text'>winner</th></tr>\n" +
         rows + "</table></div>\n";
}

}  // namespace

std::string html_report(std::span<const Story> stories) {
  std::string devices, named;
  for (const auto& story : stories) {
    if (story.key.device == named) continue;
    named = story.key.device;
    devices += fmt::format("<p class='soft'>{}</p>\n", escape(device_text(named)));
  }
  std::string body;
  for (std::size_t i = 0; i < stories.size(); ++i) body += section(stories[i], i);
  return fmt::format(
      "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
      "<meta name='viewport' content='width=device-width, initial-scale=1'>\n<meta name='color-scheme' content='light "
      "dark'>\n<title>glaive: tuning report</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n"
      "<h1>Tuning report</h1>\n{}<div class='cards'>\n<div class='card wide'>{}</div>\n{}</div>\n{}"
      "<footer>glaive {}{}{}. Times are medians with distribution-free 95 % intervals; how they are taken is told in "
      "docs/tuning.md.</footer>\n</main>\n<div id='tip'></div>\n<script>\n{}</script>\n</body>\n</html>\n",
      html_report_css, devices, summary(stories), roofline(stories), body, glaive_version(),
      glaive_commit().empty() ? "" : ", ", escape(glaive_commit()), html_report_js);
}

}  // namespace glaive
