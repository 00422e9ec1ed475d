#pragma once
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

#include "runtime/status.hpp"

namespace glaive {

/// Where the tuner keeps its journal and its default pack: $GLAIVE_CACHE, else $XDG_CACHE_HOME/glaive, else
/// $HOME/.cache/glaive. Nothing is created; fails with io_error when none of the three is set.
Result<std::filesystem::path> cache_location();

/// The same folder, created with mode 0700 if absent. Fails with io_error when it cannot be created or written, and
/// with untrusted when other users could put files into it: the journal holds native code.
Result<std::filesystem::path> open_cache();

inline constexpr std::string_view journal_name = "journal.sqlite";
inline constexpr std::string_view pack_name = "winners.pack";

/// Fails with untrusted when `file` is not owned by this user or root, or is writable by others.
Result<void> check_trusted(const std::filesystem::path& file);

/// Where the processes of all users of a machine find its locks.
inline constexpr const char* lock_folder = "/tmp";

/// How long to wait for a lock, and whom to tell, once, that one waits: `tell` gets who holds it.
struct Patience {
  double seconds = std::numeric_limits<double>::infinity();
  std::function<void(const std::string& holder)> tell;
};

/// An advisory lock on a file, held until destroyed. While a process times kernels on a device, no other one times,
/// compiles or verifies. Who holds it is asked of the system, never of the file's content, which anybody could have
/// written: the lock of a process that ended is gone, and so is its name.
class DeviceLock {
 public:
  enum class For { work, timing };  ///< compiling and verifying, by any number at once; timing, by one alone

  /// The file is made readable for everybody if absent; it is never written, and a link in its place is refused. Fails
  /// with io_error, naming the holder, when the lock is not to be had within `patience`.
  static Result<DeviceLock> acquire(For purpose, const std::filesystem::path& folder, std::string_view device,
                                    const Patience& patience = {});
  DeviceLock(DeviceLock&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  DeviceLock& operator=(DeviceLock&&) = delete;
  ~DeviceLock();

 private:
  explicit DeviceLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace glaive
