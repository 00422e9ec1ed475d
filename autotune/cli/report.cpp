#include "autotune/report.hpp"

#include <fmt/format.h>

#include <memory>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/cli/place.hpp"
#include "autotune/html_report.hpp"
#include "autotune/story.hpp"

namespace glaive::cli {
namespace {

struct Options {
  std::vector<std::string> lines;
  std::string journal, html, json;
};

int run(const Options& asked) {
  std::vector<std::string> lines;
  if (not asked.lines.empty()) {
    const auto cases = read_cases(asked.lines, {});
    if (not cases) return report(cases.error());
    for (const auto& what : *cases) lines.push_back(to_string(what));
  }
  if (not asked.json.empty() and not asked.html.empty()) {
    const auto json = find_place(asked.json), html = find_place(asked.html);
    if (not json) return report(json.error());
    if (not html) return report(html.error());
    if (same_place(*json, *html))
      return report_usage(fmt::format("--json {} and --html {} are one file", asked.json, asked.html));
  }
  std::filesystem::path file = asked.journal;
  if (file.empty()) {
    const auto folder = cache_location();
    if (not folder) return report(folder.error());
    file = *folder / journal_name;
  }
  auto journal = Journal::open_to_read(file);
  if (not journal) return report(journal.error());
  const auto stories = read_stories(*journal, lines);
  if (not stories) return report(stories.error());
  if (stories->empty())
    return report({Status::not_found, fmt::format("journal {}: {}", file.string(),
                                                  lines.empty() ? "no case was tuned since it tells of attempts"
                                                                : "none of these cases was tuned")});
  if (not asked.json.empty())
    if (const int written = write_file(asked.json, to_json(*stories)); written != success) return written;
  if (not asked.html.empty())
    if (const int written = write_file(asked.html, html_report(*stories)); written != success) return written;
  if (not is_standard_output(asked.json) and not is_standard_output(asked.html)) {
    fmt::print("{}", story_table(*stories));
    if (const auto choices = choice_table(*stories); not choices.empty()) fmt::print("\n{}", choices);
  }
  return success;
}

}  // namespace

void add_report(CLI::App& program, int& exit) {
  Command command(program, exit, "report", "Show what tuning found, tried and dropped, from the journal");
  auto options = std::make_shared<Options>();
  command.option("LINE", options->lines, "problem lines (default: every case of the journal)");
  command.option("--html", options->html,
                 "file for a page with charts, complete in itself; - prints it instead of the table");
  command.option("--json", options->json, "file for all of it as data; - prints it instead of the table");
  command.option("--journal", options->journal, "journal (default: journal.sqlite in the cache folder)");
  command.run([options] { return run(*options); });
}

}  // namespace glaive::cli
