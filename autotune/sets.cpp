#include "autotune/sets.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace glaive {

Result<std::vector<Case>> load_set(std::string_view name_or_file, DType default_io) {
  const auto sets = builtin_sets();
  if (const auto set = std::ranges::find(sets, name_or_file, &BuiltinSet::name); set != sets.end())
    return parse_cases(set->text, fmt::format("{}.txt", set->name), default_io);

  const std::filesystem::path file(name_or_file);
  std::error_code error;
  if (not std::filesystem::exists(file, error)) {
    std::string names;
    for (const auto& set : sets) names += fmt::format("{}{}", names.empty() ? "" : ", ", set.name);
    return fail(Status::invalid_argument,
                fmt::format("no problem set or file `{}`: built-in sets are {}", name_or_file, names));
  }
  if (std::filesystem::is_directory(file, error))
    return fail(Status::invalid_argument, fmt::format("`{}` is a folder, not a problem file", name_or_file));
  std::ifstream in(file);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (not in)
    return fail(Status::invalid_argument, fmt::format("cannot read `{}`: {}", name_or_file, std::strerror(errno)));
  auto cases = parse_cases(text.str(), name_or_file, default_io);
  if (cases and cases->empty())
    return fail(Status::invalid_argument, fmt::format("`{}` holds no problem line", name_or_file));
  return cases;
}

}  // namespace glaive
