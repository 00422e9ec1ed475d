#pragma once
// Files as packs need them: trusted and mapped for reading, replaced whole for writing. Internal to the runtime.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "runtime/status.hpp"

namespace glaive {

/// `<doing> <path>: <what the system says>`, as io_error.
std::unexpected<Error> io_failure(std::string_view doing, const std::filesystem::path& path, int error);

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

  /// Fails with not_found, with untrusted when the file is not the caller's or root's, or group or others may write to
  /// it, and with io_error.
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

/// Puts `bytes` in the place of `path` in one step (temporary file, fsync, rename, fsync of the folder). On any error
/// the old file is as it was and no temporary file is left. The caller holds the lock that guards `path`.
Result<void> replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace glaive
