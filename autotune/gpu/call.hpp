#pragma once
#include <memory>
#include <span>
#include <vector>

#include "autotune/inputs.hpp"
#include "runtime/kernel.hpp"

namespace glaive {

/// A block of the host's memory and its image in a GPU's.
class Mirror {
 public:
  /// `host` outlives the mirror.
  static Result<Mirror> make(Device& device, std::span<std::byte> host);
  Result<void> upload() const { return device_->copy_to_device(image_.get(), host_); }
  Result<void> download() const { return device_->copy_from_device(host_, image_.get()); }
  /// Only the first and last `bytes` of the block.
  Result<void> download_ends(std::size_t bytes) const;
  /// The image of the byte at an address of the host's; null where the block does not hold it.
  void* image_of(std::uint64_t host) const;

 private:
  Device* device_ = nullptr;
  std::span<std::byte> host_;
  std::shared_ptr<std::byte> image_;
};

/// A call's tensors in a GPU's memory, with their guards, and a guarded workspace.
class GpuCall {
 public:
  /// Fails with out_of_memory. `call` and `workspace` outlive this.
  static Result<GpuCall> make(Device& device, Call& call, Guarded& workspace);

  /// The call's words, with the addresses of the images.
  const Launch& launch() const { return launch_; }
  std::int64_t bytes() const { return bytes_; }  ///< of all images
  Result<void> upload() const;
  Result<void> upload_outputs() const;  ///< o, the final states and the workspace alone
  Result<void> download() const;
  Result<void> download_outputs() const;  ///< o, the final states, and of all else the guards
  /// Fetches the guards, to be looked at on the host.
  Result<void> download_guards() const;

 private:
  std::vector<Mirror> tensors_, numbers_;
  Launch launch_;
  std::int64_t bytes_ = 0;
};

}  // namespace glaive
