#include "autotune/emit/folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/files.hpp"

namespace glaive::emission {
namespace {

namespace fs = std::filesystem;

/// What `build` makes in lib/ is ours, too.
bool is_built(const fs::path& path, const std::string& name) {
  return path == fs::path("lib") / (name + ".o") or path == fs::path("lib") / ("lib" + name + ".a");
}

/// Whether `place` holds only what an earlier emit wrote, as its manifest tells.
Result<void> check_ours(const fs::path& place) {
  std::ifstream file(place / manifest_name);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto ours = json.is_object() and json.value("kind", nlohmann::json()) == std::string(manifest_kind) and
                    json.contains("files") and json["files"].is_array();
  if (not ours)
    return fail(
        Status::io_error,
        fmt::format("{} is no folder that emit wrote: it stays as it is; choose another --out", place.string()));
  std::set<fs::path> known = {manifest_name};
  for (const auto& written : json["files"])
    if (written.is_object() and written.contains("path") and written["path"].is_string())
      known.insert(written["path"].get<std::string>());
  const auto name = json.contains("name") and json["name"].is_string() ? json["name"].get<std::string>() : "";
  std::error_code error;
  for (fs::recursive_directory_iterator i(place, error), end; not error and i != end; i.increment(error)) {
    const auto path = i->path().lexically_relative(place);
    if (i->is_directory() and not i->is_symlink()) continue;
    if (not known.contains(path) and not is_built(path, name))
      return fail(Status::io_error,
                  fmt::format("{} holds {}, which emit did not write: move it away, or choose another --out",
                              place.string(), path.string()));
  }
  if (error) return io_failure("cannot list", place, error.value());
  return {};
}

}  // namespace

Result<NewFolder> NewFolder::make(const fs::path& given, bool replace) {
  auto place = given.lexically_normal();
  if (not place.has_filename()) place = place.parent_path();  // a path that ends in a slash
  auto followed = follow_links(place);
  if (not followed) return std::unexpected(std::move(followed).error());
  place = std::move(*followed);
  std::error_code error;
  const auto kind = fs::status(place, error);
  if (kind.type() != fs::file_type::not_found and error) return io_failure("cannot read", given, error.value());
  if (fs::exists(kind) and not fs::is_directory(kind))
    return fail(Status::io_error, fmt::format("{} is a file; --out is a folder that emit makes", given.string()));
  const bool is_full = fs::exists(kind) and fs::directory_iterator(place, error) != fs::directory_iterator();
  if (fs::exists(kind) and error) return io_failure("cannot read", given, error.value());
  if (is_full) {
    if (not replace)
      return fail(
          Status::io_error,
          fmt::format("{} is not empty; --replace puts the new files in the place of what an earlier emit wrote",
                      given.string()));
    if (auto ours = check_ours(place); not ours) return std::unexpected(std::move(ours).error());
  }
  error.clear();
  if (place.has_parent_path()) fs::create_directories(place.parent_path(), error);
  if (error) return io_failure("cannot make the folder", place.parent_path(), error.value());
  std::string temporary = place.string() + ".XXXXXX";
  if (mkdtemp(temporary.data()) == nullptr) return io_failure("cannot make the folder", temporary, errno);
  NewFolder made(place, temporary, is_full);
  if (chmod(temporary.c_str(), 0755) != 0) return io_failure("cannot set the mode of", temporary, errno);
  return made;
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (not temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Result<void> NewFolder::make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(temporary_ / path, error);
  if (error) return io_failure("cannot make the folder", temporary_ / path, error.value());
  return {};
}

Result<void> NewFolder::write(const std::string& path, std::span<const std::byte> bytes, bool executable) {
  const auto file = temporary_ / path;
  if (auto made = make_folder(fs::path(path).parent_path().string()); not made) return made;
  auto written = Replacement::guarded(file);
  if (not written) return std::unexpected(std::move(written).error());
  if (auto done = written->write(bytes); not done) return done;
  if (executable and fchmod(written->descriptor(), 0755) != 0) return io_failure("cannot set the mode of", file, errno);
  if (auto placed = written->place(); not placed) return placed;
  files_.push_back({path, bytes.size(), checksum_of(bytes)});
  return {};
}

Result<void> NewFolder::put_in_place() {
  // An empty folder gives way to rename(2), a full one changes places with the new one.
  if (rename(temporary_.c_str(), place_.c_str()) == 0) {
    temporary_.clear();
    return {};
  }
  if (not replaces_) return io_failure("cannot put in place", place_, errno);
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, place_.c_str(), RENAME_EXCHANGE) == 0)
    return {};  // what was there is now the temporary, and goes with it
  // Not every file system can: the old one goes aside, and comes back if the new one cannot be placed.
  const std::string aside = temporary_.string() + ".old";
  if (rename(place_.c_str(), aside.c_str()) != 0) return io_failure("cannot put in place", place_, errno);
  const bool placed = rename(temporary_.c_str(), place_.c_str()) == 0;
  const int why = errno;
  if (not placed) {
    static_cast<void>(rename(aside.c_str(), place_.c_str()));
    return io_failure("cannot put in place", place_, why);
  }
  temporary_ = aside;
  return {};
}

}  // namespace glaive::emission
