#pragma once
#include "autotune/emit/selection.hpp"

namespace glaive::emission {

/// A folder that is written beside its place and then takes it in one step; gone, and the folders above it that it
/// needed, if it is not placed.
class NewFolder {
 public:
  /// Fails where `place` holds anything, or, with `replace`, anything but what an earlier emit wrote.
  static Result<NewFolder> at(const std::filesystem::path& place, bool replace);
  NewFolder(NewFolder&& other) noexcept
      : place_(std::move(other.place_)),
        temporary_(std::exchange(other.temporary_, {})),
        replaces_(other.replaces_),
        made_(std::exchange(other.made_, {})),
        files_(std::move(other.files_)) {}
  ~NewFolder();

  /// Makes it, beside its place; before there is nothing on the disk.
  Result<void> begin();
  Result<void> write(const std::string& path, std::span<const std::byte> bytes, bool executable = false);
  Result<void> write(const std::string& path, std::string_view text, bool executable = false) {
    return write(path, std::as_bytes(std::span(text)), executable);
  }
  const std::vector<WrittenFile>& files() const { return files_; }
  Result<void> make_folder(const std::string& path);
  /// Fails, and all is as it was, where what it replaces is no longer what the earlier emit wrote.
  Result<void> put_in_place();

 private:
  NewFolder(std::filesystem::path place, bool replaces) : place_(std::move(place)), replaces_(replaces) {}
  Result<void> exchange();
  std::filesystem::path place_, temporary_;
  bool replaces_ = false;                    // what an earlier emit wrote
  std::vector<std::filesystem::path> made_;  // above it
  std::vector<WrittenFile> files_;
};

}  // namespace glaive::emission
