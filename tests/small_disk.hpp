#pragma once
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

namespace glaive::testing {

/// A tmpfs of so many KiB on a folder, for tests of a full disk. Without root, or where none can be mounted, `mounted`
/// is false and a line says that the test is skipped.
class SmallDisk {
 public:
  SmallDisk(std::filesystem::path folder, int kibibytes) : folder_(std::move(folder)) {
    std::filesystem::create_directory(folder_);
    const std::string options = "mode=0700,size=" + std::to_string(kibibytes) + "k";
    mounted_ = geteuid() == 0 and mount("tmpfs", folder_.c_str(), "tmpfs", 0, options.c_str()) == 0;
    if (not mounted_) std::fputs("skipped: mounting a small tmpfs needs root and a system that lets it\n", stderr);
  }
  SmallDisk(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  bool resize(int kibibytes) const {
    const std::string options = "size=" + std::to_string(kibibytes) + "k";
    return mount(nullptr, folder_.c_str(), "tmpfs", MS_REMOUNT, options.c_str()) == 0;
  }

 private:
  std::filesystem::path folder_;
  bool mounted_ = false;
};

}  // namespace glaive::testing
