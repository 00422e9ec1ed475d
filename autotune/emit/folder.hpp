#pragma once
#include "autotune/emit/selection.hpp"

namespace glaive::emission {

/// A folder that is written beside its place and then takes it in one step; gone if it is not placed.
class NewFolder {
 public:
  /// Fails where `place` holds anything, or, with `replace`, anything but what an earlier emit wrote.
  static Result<NewFolder> make(const std::filesystem::path& place, bool replace);
  NewFolder(NewFolder&& other) noexcept
      : place_(std::move(other.place_)),
        temporary_(std::exchange(other.temporary_, {})),
        replaces_(other.replaces_),
        files_(std::move(other.files_)) {}
  ~NewFolder();

  Result<void> write(const std::string& path, std::span<const std::byte> bytes, bool executable = false);
  Result<void> write(const std::string& path, std::string_view text, bool executable = false) {
    return write(path, std::as_bytes(std::span(text)), executable);
  }
  const std::vector<WrittenFile>& files() const { return files_; }
  Result<void> make_folder(const std::string& path);
  Result<void> put_in_place();

 private:
  NewFolder(std::filesystem::path place, std::filesystem::path temporary, bool replaces)
      : place_(std::move(place)), temporary_(std::move(temporary)), replaces_(replaces) {}
  std::filesystem::path place_, temporary_;
  bool replaces_ = false;  // what an earlier emit wrote
  std::vector<WrittenFile> files_;
};

}  // namespace glaive::emission
