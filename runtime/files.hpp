#pragma once
// Files as packs need them: trusted and mapped for reading, replaced whole for writing. Internal to the runtime.
#include <signal.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "runtime/status.hpp"

namespace glaive {

/// `<doing> <path>: <what the system says>`, as io_error.
std::unexpected<Error> io_failure(std::string_view doing, const std::filesystem::path& path, int error);

/// Whether another library's message ends in what the system says when it is short of something or forbids it: a
/// failure that may pass, unlike one that lies in what the library was given.
bool names_shortage(std::string_view message);

/// A write past the limit on file sizes raises SIGXFSZ, which by default ends the process. While this lives, the signal
/// is held back from the calling thread, so that the write fails with EFBIG like any other.
class FileSizeSignalHeld {
 public:
  FileSizeSignalHeld();
  FileSizeSignalHeld(const FileSizeSignalHeld&) = delete;
  ~FileSizeSignalHeld();

 private:
  sigset_t set_, before_;
  bool was_pending_ = false;
};

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int close();  ///< what close(2) returned

 private:
  int fd_;
};

/// What a file is to be, for the errors of one that is not.
struct FileKind {
  Status bad;        ///< not a regular file
  const char* rule;  ///< why it must be trusted
};
inline constexpr FileKind pack_file = {Status::bad_pack, "native code is loaded only from files"};
inline constexpr FileKind snapshot_file = {Status::bad_snapshot, "states are restored only from files"};

/// A file open for reading, with its size.
struct TrustedFile {
  Descriptor file;
  std::size_t size = 0;

  /// Fails with not_found, with untrusted when the file is not the caller's or root's, or group or others may write to
  /// it, and with io_error.
  static Result<TrustedFile> open(const std::filesystem::path& path, const FileKind& kind);
};

/// A file mapped read-only.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  /// As TrustedFile::open, of a pack.
  static Result<MappedFile> open_trusted(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

/// Holds an advisory lock on a file, which it makes and leaves behind (removing it would race with the next holder).
class FileLock {
 public:
  static Result<FileLock> take(const std::filesystem::path& path);

 private:
  explicit FileLock(Descriptor file) : file_(std::move(file)) {}
  Descriptor file_;
};

/// The file that a chain of symbolic links leads to, which need not exist; `path` itself when it is no link.
Result<std::filesystem::path> follow_links(const std::filesystem::path& path);

/// A file that takes the place of `path` in one step: temporary file, fsync, rename, fsync of the folder. Unless
/// placed, it vanishes, and the old file is as it was. A file system that cannot flush the folder is no error, as the
/// new file is in place by then.
class Replacement {
 public:
  /// The one temporary file of `path`: the caller holds the lock that guards it. It has the old file's mode less the
  /// right of others to write.
  static Result<Replacement> guarded(const std::filesystem::path& path);
  /// A temporary file of its own name, so that writers need no lock: the last to be placed stays.
  static Result<Replacement> unguarded(const std::filesystem::path& path);
  Replacement(Replacement&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)),
        file_(std::move(other.file_)),
        there_(std::exchange(other.there_, false)) {}
  ~Replacement();

  Result<void> write(std::span<const std::byte> bytes);
  int descriptor() const { return file_.get(); }
  Result<void> place();

 private:
  Replacement(std::filesystem::path path, std::string temporary)
      : path_(std::move(path)), temporary_(std::move(temporary)) {}
  Result<void> made(int descriptor);  // of the temporary file, or -1 and errno
  std::filesystem::path path_;
  std::string temporary_;
  Descriptor file_;
  bool there_ = false;  // the temporary file, not placed yet
};

/// Whether a file could be put in the place of `path`; leaves nothing behind.
Result<void> check_replaceable(const std::filesystem::path& path);

/// Puts `bytes` in the place of `path` by a guarded Replacement.
Result<void> replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace glaive
