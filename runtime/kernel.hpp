#pragma once
// The seam between the runtime and the drivers of devices: the CPU pool (cpu.hpp) now, CUDA when it comes.
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

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
  /// Allocates nothing.
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
