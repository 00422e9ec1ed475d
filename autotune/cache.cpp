#include "autotune/cache.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <thread>

#include "autotune/shell.hpp"

namespace glaive {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

/// A descriptor, or -1 and errno. In a folder that everybody may write to, the system may refuse to open another user's
/// file with O_CREAT, so a file that exists is opened without.
int open_lock_file(const char* file) {
  constexpr int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  for (;;) {
    int descriptor = open(file, flags);
    if (descriptor >= 0 or errno != ENOENT) return descriptor;
    descriptor = open(file, flags | O_CREAT | O_EXCL, 0444);
    if (descriptor >= 0) fchmod(descriptor, 0444);  // whatever the umask
    if (descriptor >= 0 or errno != EEXIST) return descriptor;
  }
}

/// `glaive tune 'forward H4 K64 V64 @ B1 T512'`, as another process was started; from /proc, so printable characters
/// only.
std::string command_of(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", process), std::ios::binary);
  std::string command;
  for (std::string word; std::getline(file, word, '\0');) command += (command.empty() ? "" : " ") + shell_quoted(word);
  constexpr std::size_t longest = 100;
  if (command.size() > longest) command.replace(longest, command.npos, "...");
  for (char& c : command)
    if (c < ' ' or c > '~') c = '?';
  return command;
}

struct flock record(short type, off_t start, off_t length) {
  struct flock record{};
  record.l_type = type;
  record.l_whence = SEEK_SET;
  record.l_start = start;
  record.l_len = length;
  return record;
}

/// flock() decides who holds the lock but does not tell. So its holder also has a record lock, on the one byte at the
/// offset of the time in seconds: the system tells others who has it, and where. It keeps nobody out.
void sign(int descriptor) {
  auto mine = record(F_RDLCK, std::time(nullptr), 1);
  fcntl(descriptor, F_SETLK, &mine);
}

std::string holder_of(int descriptor) {
  auto theirs = record(F_WRLCK, 0, 0);
  if (fcntl(descriptor, F_GETLK, &theirs) != 0 or theirs.l_type == F_UNLCK or theirs.l_pid <= 0)
    return "another process";  // of another container, or no glaive
  std::string text = fmt::format("process {}", theirs.l_pid);
  if (const auto command = command_of(theirs.l_pid); not command.empty()) text += fmt::format(" (`{}`)", command);
  const std::time_t since = theirs.l_start;
  if (std::tm local{}; since <= std::time(nullptr) and localtime_r(&since, &local) != nullptr) {
    char clock[] = "00:00:00";
    std::strftime(clock, sizeof clock, "%T", &local);
    text += fmt::format(", which has held the device since {}", clock);
  }
  return text;
}

/// Whether the lock was had within so many seconds; fails with errno's sentence.
std::expected<bool, int> wait_for(int descriptor, int kind, double seconds) {
  using Seconds = std::chrono::duration<double>;
  constexpr auto look_every = std::chrono::milliseconds(20);
  if (std::isinf(seconds)) {
    while (flock(descriptor, kind) != 0)
      if (errno != EINTR) return std::unexpected(errno);
    return true;
  }
  const auto begin = std::chrono::steady_clock::now();
  while (flock(descriptor, kind | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK and errno != EINTR) return std::unexpected(errno);
    if (Seconds(std::chrono::steady_clock::now() - begin).count() >= seconds) return false;
    std::this_thread::sleep_for(look_every);
  }
  return true;
}

}  // namespace

Result<std::filesystem::path> cache_location() {
  if (const auto own = environment("GLAIVE_CACHE"); not own.empty()) return std::filesystem::path(own);
  if (const auto xdg = environment("XDG_CACHE_HOME"); not xdg.empty()) return std::filesystem::path(xdg) / "glaive";
  if (const auto home = environment("HOME"); not home.empty()) return std::filesystem::path(home) / ".cache" / "glaive";
  return fail(Status::io_error, "no cache folder: none of GLAIVE_CACHE, XDG_CACHE_HOME and HOME is set");
}

Result<void> check_trusted(const std::filesystem::path& file) {
  struct stat facts{};
  if (stat(file.c_str(), &facts) != 0)
    return fail(Status::io_error, fmt::format("{}: {}", file.string(), std::strerror(errno)));
  if (facts.st_uid != geteuid() and facts.st_uid != 0)
    return fail(Status::untrusted, fmt::format("{} belongs to another user (uid {}), who could put native code into it",
                                               file.string(), facts.st_uid));
  if ((facts.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(Status::untrusted,
                fmt::format("{} can be written by other users (mode {:o}), and it holds native code: "
                            "run chmod go-w on it once you trust its content",
                            file.string(), facts.st_mode & 07777u));
  return {};
}

Result<std::filesystem::path> open_cache() {
  const auto folder = cache_location();
  if (not folder) return std::unexpected(folder.error());
  const auto refused = [&](const std::string& what) {
    return fail(Status::io_error, fmt::format("cache folder {}: {}; set GLAIVE_CACHE to a folder that can be written",
                                              folder->string(), what));
  };
  std::error_code error;
  if (folder->has_parent_path()) std::filesystem::create_directories(folder->parent_path(), error);
  if (error) return refused(fmt::format("cannot be created ({})", error.message()));
  if (mkdir(folder->c_str(), 0700) != 0 and errno != EEXIST)
    return refused(fmt::format("cannot be created ({})", std::strerror(errno)));
  if (not std::filesystem::is_directory(*folder, error)) return refused("a file of that name is in its place");
  if (access(folder->c_str(), R_OK | W_OK | X_OK) != 0) return refused(fmt::format("{}", std::strerror(errno)));
  if (auto trusted = check_trusted(*folder); not trusted) return std::unexpected(trusted.error());
  return *folder;
}

Result<DeviceLock> DeviceLock::acquire(For purpose, const std::filesystem::path& folder, std::string_view device,
                                       const Patience& patience) {
  const auto file = folder / fmt::format("glaive-device-{:016x}.lock", fnv1a(device));
  const auto refused = [&](const char* why) {
    return fail(Status::io_error, fmt::format("lock file {}: {}", file.string(), why));
  };
  const int descriptor = open_lock_file(file.c_str());
  if (descriptor < 0) return refused(std::strerror(errno));
  DeviceLock lock(descriptor);
  struct stat facts{};
  if (fstat(descriptor, &facts) != 0 or not S_ISREG(facts.st_mode)) return refused("it is no regular file");

  const int kind = purpose == For::timing ? LOCK_EX : LOCK_SH;
  auto had = wait_for(descriptor, kind, 0);
  if (had and not*had) {
    const auto holder = holder_of(descriptor);
    if (patience.seconds > 0) {
      if (patience.tell) patience.tell(holder);
      had = wait_for(descriptor, kind, patience.seconds);
    }
    if (had and not*had)
      return fail(Status::io_error,
                  fmt::format("the device is in use by {}; gave up {}", holder,
                              patience.seconds > 0 ? fmt::format("after {:g} s", patience.seconds) : "at once"));
  }
  if (not had) return refused(std::strerror(had.error()));
  sign(descriptor);
  return lock;
}

DeviceLock::~DeviceLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace glaive
