#include "runtime/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>

namespace glaive {
namespace {

int write_all(int fd, std::span<const std::byte> bytes) {
  while (not bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 and errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

std::unexpected<Error> io_failure(std::string_view doing, const std::filesystem::path& path, int error) {
  const Status status = error == ENOENT ? Status::not_found : Status::io_error;
  return fail(status, std::string(doing) + " " + path.string() + ": " + std::generic_category().message(error));
}

bool names_shortage(std::string_view message) {
  for (const int error : {EMFILE, ENFILE, ENOMEM, EAGAIN, ENOSPC, EDQUOT, EFBIG, EIO, EACCES, EPERM})
    if (message.ends_with(std::generic_category().message(error))) return true;
  return false;
}

FileSizeSignalHeld::FileSizeSignalHeld() {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
  sigemptyset(&set_);
  sigaddset(&set_, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &set_, &before_);
}

FileSizeSignalHeld::~FileSizeSignalHeld() {
  const timespec now = {};
  while (not was_pending_ and sigtimedwait(&set_, nullptr, &now) < 0 and errno == EINTR) {
  }
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int Descriptor::close() {
  const int fd = std::exchange(fd_, -1);
  return fd < 0 ? 0 : ::close(fd);
}

MappedFile::~MappedFile() {
  if (not bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<TrustedFile> TrustedFile::open(const std::filesystem::path& path, const FileKind& kind) {
  // Not blocking: a pipe in the file's place must be refused below, not waited for.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (not file) return io_failure("cannot open", path, errno);
  struct stat facts = {};
  if (fstat(file.get(), &facts) != 0) return io_failure("cannot examine", path, errno);
  if (not S_ISREG(facts.st_mode)) return fail(kind.bad, path.string() + " is not a regular file");
  if (facts.st_uid != geteuid() and facts.st_uid != 0)
    return fail(Status::untrusted, path.string() + " belongs to user " + std::to_string(facts.st_uid) + ": " +
                                       kind.rule + " of root or of the user who runs it");
  if (facts.st_mode & (S_IWGRP | S_IWOTH)) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(facts.st_mode & 07777));
    return fail(Status::untrusted, path.string() + " can be written by others (mode " + mode + "): " + kind.rule +
                                       " that its owner alone can write; chmod go-w");
  }
  return TrustedFile{std::move(file), static_cast<std::size_t>(facts.st_size)};
}

Result<MappedFile> MappedFile::open_trusted(const std::filesystem::path& path) {
  const auto trusted = TrustedFile::open(path, pack_file);
  if (not trusted) return std::unexpected(trusted.error());
  MappedFile mapped;
  if (trusted->size == 0) return mapped;
  void* const base = mmap(nullptr, trusted->size, PROT_READ, MAP_PRIVATE, trusted->file.get(), 0);
  if (base == MAP_FAILED) return io_failure("cannot map", path, errno);
  mapped.bytes_ = {static_cast<const std::byte*>(base), trusted->size};
  return mapped;
}

Result<FileLock> FileLock::take(const std::filesystem::path& path) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (not file) return fail(Status::io_error, io_failure("cannot make the lock file", path, errno).error().message);
  while (flock(file.get(), LOCK_EX) != 0)
    if (errno != EINTR) return io_failure("cannot lock", path, errno);
  return FileLock(std::move(file));
}

Result<std::filesystem::path> follow_links(const std::filesystem::path& path) {
  constexpr int most_links = 40;  // as the kernel
  auto file = path;
  for (int links = 0;; ++links) {
    std::error_code error;
    if (not std::filesystem::is_symlink(file, error)) return file;
    const auto target = std::filesystem::read_symlink(file, error);
    if (error or links == most_links) return io_failure("cannot follow", path, error ? error.value() : ELOOP);
    file = file.parent_path() / target;
  }
}

Result<Replacement> Replacement::guarded(const std::filesystem::path& path) {
  struct stat old = {};
  const bool replaces = stat(path.c_str(), &old) == 0;
  const mode_t mode = replaces ? old.st_mode & 07777 & ~static_cast<mode_t>(S_IWGRP | S_IWOTH) : 0644;
  // What a killed writer left is taken away.
  const std::string temporary = path.string() + ".tmp";
  unlink(temporary.c_str());
  Replacement replacement(path, temporary);
  if (auto made =
          replacement.made(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
      not made)
    return std::unexpected(std::move(made).error());
  if (replaces and fchmod(replacement.descriptor(), mode) != 0)
    return io_failure("cannot set the mode of", temporary, errno);
  return replacement;
}

Result<Replacement> Replacement::unguarded(const std::filesystem::path& path) {
  Replacement replacement(path, path.string() + ".XXXXXX");
  if (auto made = replacement.made(mkostemp(replacement.temporary_.data(), O_CLOEXEC)); not made)  // the owner's alone
    return std::unexpected(std::move(made).error());
  return replacement;
}

Result<void> Replacement::made(int descriptor) {
  const int error = errno;
  file_ = Descriptor(descriptor);
  there_ = descriptor >= 0;
  if (there_) return {};
  return fail(Status::io_error, io_failure("cannot make", temporary_, error).error().message);
}

Replacement::~Replacement() {
  if (there_) unlink(temporary_.c_str());
}

Result<void> Replacement::write(std::span<const std::byte> bytes) {
  const FileSizeSignalHeld held;
  if (const int error = write_all(file_.get(), bytes)) return io_failure("cannot write", temporary_, error);
  return {};
}

Result<void> Replacement::place() {
  if (fsync(file_.get()) != 0) return io_failure("cannot flush to disk", temporary_, errno);
  if (file_.close() != 0) return io_failure("cannot close", temporary_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return io_failure("cannot put in place", path_, errno);
  there_ = false;

  const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  const Descriptor folder_file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder_file) static_cast<void>(fsync(folder_file.get()));
  return {};
}

Result<void> check_replaceable(const std::filesystem::path& path) {
  const auto replacement = Replacement::unguarded(path);
  if (not replacement) return std::unexpected(replacement.error());
  return {};
}

Result<void> replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  auto replacement = Replacement::guarded(path);
  if (not replacement) return std::unexpected(std::move(replacement).error());
  if (auto written = replacement->write(bytes); not written) return written;
  return replacement->place();
}

}  // namespace glaive
