#include "autotune/cli/place.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "autotune/cli/command.hpp"
#include "runtime/files.hpp"

namespace glaive::cli {
namespace {

std::unexpected<Error> cannot_write(const std::string& asked, const std::string& why) {
  return fail(Status::io_error, fmt::format("cannot write {}: {}", asked, why));
}

}  // namespace

Result<Place> find_place(const std::string& asked) {
  if (is_standard_output(asked)) return Place{"/dev/stdout", false};
  struct stat facts{}, output{};
  if (stat(asked.c_str(), &facts) == 0) {
    const bool is_output =
        fstat(STDOUT_FILENO, &output) == 0 and facts.st_dev == output.st_dev and facts.st_ino == output.st_ino;
    if (S_ISDIR(facts.st_mode)) return cannot_write(asked, std::strerror(EISDIR));
    if (access(asked.c_str(), W_OK) != 0) return cannot_write(asked, std::strerror(errno));
    if (is_output or not S_ISREG(facts.st_mode)) return Place{asked, false};
  }
  const auto path = follow_links(asked);
  if (not path) return cannot_write(asked, path.error().message);
  if (const auto replaceable = check_replaceable(*path); not replaceable)
    return cannot_write(asked, replaceable.error().message);
  return Place{*path, true};
}

bool same_place(const Place& a, const Place& b) {
  std::error_code error;
  if (std::filesystem::equivalent(a.path, b.path, error)) return true;
  return std::filesystem::weakly_canonical(a.path, error) == std::filesystem::weakly_canonical(b.path, error);
}

Result<void> write(const Place& place, const std::string& text) {
  if (place.replaced) return replace_file(place.path, std::as_bytes(std::span(text)));
  std::fflush(stdout);  // which may be the same file
  std::FILE* const file = std::fopen(place.path.c_str(), "a");
  if (file == nullptr) return cannot_write(place.path, std::strerror(errno));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  if (not written or not closed) return cannot_write(place.path, std::strerror(errno));
  return {};
}

int write_file(const std::string& asked, const std::string& text) {
  const auto place = find_place(asked);
  if (not place) return report(place.error());
  if (const auto written = write(*place, text); not written) return report(written.error());
  return success;
}

}  // namespace glaive::cli
