#include "autotune/emit/folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/files.hpp"

namespace glaive::emission {
namespace {

namespace fs = std::filesystem;

/// What `build` makes in lib/ is ours, too.
bool is_built(const fs::path& path, const std::string& name) {
  return path == fs::path("lib") / (name + ".o") or path == fs::path("lib") / ("lib" + name + ".a");
}

/// What an earlier emit wrote, as its manifest tells.
struct Earlier {
  std::string name;
  std::map<fs::path, WrittenFile> files;
};

Result<Earlier> read_earlier(const fs::path& folder, const fs::path& place) {
  std::ifstream file(folder / manifest_name);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto json = nlohmann::json::parse(text, nullptr, false);
  try {
    Earlier earlier;
    if (json.at("kind") == std::string(manifest_kind)) {
      earlier.name = json.at("name").get<std::string>();
      for (const auto& each : json.at("files")) {
        const auto path = each.at("path").get<std::string>();
        earlier.files[path] = {path, each.at("bytes").get<std::size_t>(), each.at("xxh3_128").get<std::string>()};
      }
      return earlier;
    }
    // NOLINTNEXTLINE(bugprone-empty-catch): then it is no manifest of ours
  } catch (const nlohmann::json::exception&) {
  }
  return fail(Status::io_error,
              fmt::format("{} is no folder that emit wrote: it stays as it is; choose another --out", place.string()));
}

bool is_as_written(const fs::path& file, const WrittenFile& written) {
  std::error_code error;
  if (fs::file_size(file, error) != written.bytes or error) return false;
  std::ifstream in(file, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return in.good() and checksum_of(text) == written.checksum;
}

/// Whether `folder`, which is or was at `place`, holds only what an earlier emit wrote, as it wrote it.
Result<void> check_ours(const fs::path& folder, const fs::path& place) {
  const auto earlier = read_earlier(folder, place);
  if (not earlier) return std::unexpected(earlier.error());
  const auto refused = [&](const fs::path& path, const char* why) {
    return fail(Status::io_error, fmt::format("{} holds {}, which {}: move it away, or choose another --out",
                                              place.string(), path.string(), why));
  };
  std::error_code error;
  for (fs::recursive_directory_iterator i(folder, error), end; not error and i != end; i.increment(error)) {
    const auto path = i->path().lexically_relative(folder);
    const auto kind = i->symlink_status();
    if (fs::is_directory(kind) or path == manifest_name or is_built(path, earlier->name)) continue;
    const auto written = earlier->files.find(path);
    if (written == earlier->files.end() or not fs::is_regular_file(kind)) return refused(path, "emit did not write");
    if (not is_as_written(i->path(), written->second)) return refused(path, "was changed since emit wrote it");
  }
  if (error) return io_failure("cannot list", place, error.value());
  return {};
}

/// The folder that --out means: from the root, its links followed, without a slash at its end.
Result<fs::path> place_of(const fs::path& given) {
  if (given.empty()) return fail(Status::invalid_argument, "--out is empty; it is the folder that emit makes");
  std::error_code error;
  auto place = fs::absolute(given, error);
  if (not error) place = fs::weakly_canonical(place, error);
  if (error) return io_failure("cannot read", given, error.value());
  const auto followed = follow_links(place);  // one that leads to nothing yet
  if (not followed) return followed;
  place = fs::weakly_canonical(*followed, error);
  if (error) return io_failure("cannot read", given, error.value());
  return place.has_filename() ? place : place.parent_path();
}

/// Makes a folder and those above it that are missing, which it appends to `made`, the outermost first.
Result<void> make_folders(const fs::path& folder, std::vector<fs::path>& made) {
  std::error_code error;
  if (folder.empty() or fs::is_directory(folder, error)) return {};
  if (folder.has_relative_path())
    if (auto above = make_folders(folder.parent_path(), made); not above) return above;
  if (fs::create_directory(folder, error)) made.push_back(folder);
  if (error) return io_failure("cannot make the folder", folder, error.value());
  return {};
}

}  // namespace

Result<NewFolder> NewFolder::at(const fs::path& given, bool replace) {
  auto place = place_of(given);
  if (not place) return std::unexpected(std::move(place).error());
  std::error_code error;
  const auto kind = fs::status(*place, error);
  if (kind.type() != fs::file_type::not_found and error) return io_failure("cannot read", given, error.value());
  if (fs::exists(kind) and not fs::is_directory(kind))
    return fail(Status::io_error, fmt::format("{} is a file; --out is a folder that emit makes", given.string()));
  const bool is_full = fs::exists(kind) and fs::directory_iterator(*place, error) != fs::directory_iterator();
  if (fs::exists(kind) and error) return io_failure("cannot read", given, error.value());
  if (is_full and not replace)
    return fail(Status::io_error,
                fmt::format("{} is not empty; --replace puts the new files in the place of what an earlier emit wrote",
                            given.string()));
  if (is_full)
    if (auto ours = check_ours(*place, *place); not ours) return std::unexpected(std::move(ours).error());
  return NewFolder(std::move(*place), is_full);
}

Result<void> NewFolder::begin() {
  if (auto made = make_folders(place_.parent_path(), made_); not made) return made;
  std::string temporary = place_.string() + ".XXXXXX";
  if (mkdtemp(temporary.data()) == nullptr) return io_failure("cannot make the folder", temporary, errno);
  temporary_ = temporary;
  if (chmod(temporary.c_str(), 0755) != 0) return io_failure("cannot set the mode of", temporary, errno);
  return {};
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (not temporary_.empty()) fs::remove_all(temporary_, ignored);
  for (; not made_.empty(); made_.pop_back()) fs::remove(made_.back(), ignored);
}

Result<void> NewFolder::make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(temporary_ / path, error);
  if (error) return io_failure("cannot make the folder", temporary_ / path, error.value());
  return {};
}

Result<void> NewFolder::write(const std::string& path, std::span<const std::byte> bytes, bool executable) {
  const auto file = temporary_ / path;
  if (std::ranges::find(files_, path, &WrittenFile::path) != files_.end())
    return fail(Status::failed, fmt::format("two files would have the name {}", path));
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
    made_.clear();
    return {};
  }
  if (not replaces_) return io_failure("cannot put in place", place_, errno);
  if (auto swapped = exchange(); not swapped) return swapped;
  // Now the temporary is what was there, and goes, unless somebody has put something in there meanwhile.
  if (auto ours = check_ours(temporary_, place_); not ours) {
    if (auto back = exchange(); not back) {
      const auto left = std::exchange(temporary_, {});
      return fail(Status::io_error, fmt::format("{}; what was there is now {}", ours.error().message, left.string()));
    }
    return ours;
  }
  return {};
}

Result<void> NewFolder::exchange() {
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, place_.c_str(), RENAME_EXCHANGE) == 0) return {};
  // Not every file system can: the old one goes aside, and comes back if the new one cannot be placed.
  const std::string aside = temporary_.string() + ".old";
  if (rename(place_.c_str(), aside.c_str()) != 0) return io_failure("cannot put in place", place_, errno);
  if (rename(temporary_.c_str(), place_.c_str()) == 0) {
    temporary_ = aside;
    return {};
  }
  const int why = errno;
  static_cast<void>(rename(aside.c_str(), place_.c_str()));
  return io_failure("cannot put in place", place_, why);
}

}  // namespace glaive::emission
