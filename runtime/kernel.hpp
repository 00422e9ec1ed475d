#pragma once
// The seam between the runtime and the drivers of devices: the CPU pool (cpu.hpp) and CUDA (cuda.hpp).
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "runtime/memory.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// The words of a call, by argument. A kernel gets those that its stage names.
class Words {
 public:
  Words() : values_{} {}
  struct Unset {};
  explicit Words(Unset) {}  ///< for who sets every one
  std::uint64_t& operator[](Arg arg) { return values_[static_cast<std::size_t>(arg)]; }
  std::uint64_t operator[](Arg arg) const { return values_[static_cast<std::size_t>(arg)]; }
  void set_pointer(Arg arg, const void* pointer) { (*this)[arg] = reinterpret_cast<std::uintptr_t>(pointer); }
  void set_scalar(Arg arg, float value) { (*this)[arg] = std::bit_cast<std::uint32_t>(value); }
  /// The words of the extents; `slots` too, where nobody has set it.
  void set_extents(const Extents& extents);

 private:
  std::uint64_t values_[arg_count];
};

/// One call, checked and complete: every word that a stage may name is set.
struct Launch {
  Words words;
  Extents extents;
  void* workspace = nullptr;  ///< workspace_bytes(plan, extents), aligned to workspace_alignment
  void* stream = nullptr;     ///< the driver's stream; none on a CPU

  Launch() = default;
  explicit Launch(Words::Unset unset) : words(unset) {}
};

/// A plan on one device, its code loaded. Lives no longer than the device.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual const Plan& plan() const = 0;
  /// Gives every stage to the device, in order; a CPU has run them all when it returns. Any thread may call it.
  /// Allocates nothing. Fails with unsupported or bad_pack before anything was given to the device, else maybe after.
  virtual Result<void> launch(const Launch& launch) const = 0;
};

/// A machine that runs plans.
class Device {
 public:
  virtual ~Device() = default;
  const DeviceInfo& info() const { return info_; }
  const std::string& target() const { return target_; }
  int workers() const { return workers_; }  ///< threads that share a call; 1 on a GPU
  /// Kernels read the host's memory, and run on its threads: the host may look at what they are given.
  bool is_host() const { return info_.target.kind == Target::Kind::cpu; }
  virtual bool runs(const Target& target) const = 0;
  virtual Result<std::unique_ptr<const Kernel>> load(const Plan& plan, std::span<const CodeObject> code) = 0;

  // Memory. Where a device has none of its own it is the host's.

  /// Equal for devices whose kernels see the same memory; null for the host's.
  virtual const void* memory_space() const { return nullptr; }
  /// Aligned to memory_alignment, contents undefined; freed with its last owner, which the device outlives.
  virtual Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes) { return allocate_on_host(bytes); }
  virtual Result<std::unique_ptr<Exchange>> make_exchange(std::size_t bytes) { return exchange_on_host(bytes); }
  /// Between the host's memory and the device's, done when it returns. What kernels have yet to do with the memory must
  /// be over.
  virtual Result<void> copy_to_device(std::byte* to, std::span<const std::byte> from) {
    std::memcpy(to, from.data(), from.size());
    return {};
  }
  virtual Result<void> copy_from_device(std::span<std::byte> to, const std::byte* from) {
    std::memcpy(to.data(), from, to.size());
    return {};
  }
  /// Waits for all that was given to the device until now, on any stream.
  virtual Result<void> wait() { return {}; }
  /// Whether work given to `stream` is recorded into a graph now, not done; or would spoil a graph that is recorded.
  virtual Result<bool> is_capturing(void* /*stream*/) const { return false; }

 protected:
  Device(DeviceInfo info, int workers) : info_(std::move(info)), target_(to_string(info_.target)), workers_(workers) {}

 private:
  DeviceInfo info_;
  std::string target_;
  int workers_;
};

inline void Words::set_extents(const Extents& extents) {
  const auto set = [&](Arg arg, Axis axis) { (*this)[arg] = static_cast<std::uint64_t>(extents[axis]); };
  set(Arg::sequences, Axis::sequences);
  set(Arg::tokens, Axis::tokens);
  set(Arg::longest, Axis::longest);
  set(Arg::heads, Axis::heads);
  set(Arg::kv_heads, Axis::kv_heads);
  if ((*this)[Arg::slots] == 0) set(Arg::slots, Axis::sequences);
}

}  // namespace glaive
