#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/status.hpp"

namespace glaive {

/// What code is made for: `cpu:x86-64-v3`, `cpu:x86-64-v4+avx512bf16`, `cuda:sm_90a`, `cuda:compute_120` (PTX).
struct Target {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  std::string arch;                   ///< psABI level (`x86-64-v2`..`x86-64-v4`), `sm_NN[a|f]` or `compute_NN[a|f]`
  std::vector<std::string> features;  ///< beyond the level, sorted; LLVM's names

  friend bool operator==(const Target&, const Target&) = default;
};

std::string to_string(const Target& target);
Result<Target> parse_target(std::string_view text);

/// The level and extra features of the processor this process runs on, from cpuid and the operating system's XCR0.
Target host_cpu_target();

/// fails with wrong_device, naming the features that this processor lacks.
Result<void> check_runs_here(const Target& target);

/// A cuda target's architecture, taken apart: `sm_103f` is 10, 3, 'f'; `compute_120` is 12, 0, 0 and PTX.
struct CudaArch {
  int major = 0, minor = 0;
  char suffix = 0;   ///< 'a' = with what only this architecture has, 'f' = with what its family has; 0 = neither
  bool ptx = false;  ///< compiled by the driver when it is loaded
  int number() const { return major * 10 + minor; }
  /// Whether such code runs on a GPU of this compute capability: an `a` on its own only, machine code and `f` on the
  /// same major and no lower a minor, PTX on anything no lower.
  bool runs_on(int gpu_major, int gpu_minor) const;
};
/// Of a cuda target that parse_target accepts.
CudaArch cuda_arch(const Target& cuda_target);
/// What code for a GPU is made for if it is to be at its best there: `cuda:sm_90a` for 9.0, else `cuda:sm_NN`.
Target gpu_target(int major, int minor);

/// Bits of one vector register of a CPU target: 128, 256 or 512.
int vector_bits(const Target& cpu_target);

/// The machine that a measurement belongs to. Identity (all but `target`) is part of a winner's key.
struct DeviceInfo {
  Target target;
  std::string name;              ///< "AMD EPYC-Milan Processor", "NVIDIA H100 80GB HBM3"
  int units = 1;                 ///< cores that tasks run on, or SMs
  std::int64_t l1_bytes = 0;     ///< data cache of one core; shared memory of one SM
  std::int64_t l2_bytes = 0;     ///< of one core on a CPU, of the chip on a GPU
  std::int64_t l3_bytes = 0;     ///< CPU only
  std::int64_t memory_rate = 0;  ///< memory clock x bus width in bytes/s; 0 where it cannot be asked (CPUs)
};

/// The host processor; `units` is the number of CPUs this process may run on.
DeviceInfo host_cpu_device();

/// `name=..; cc=..; units=..; l1=..; l2=..; l3=..; memory=..`: equal exactly when measurements carry over. cc is `-` on
/// a CPU (its target is a field of its own in a winner's key), l3 is left out on a GPU.
std::string identity(const DeviceInfo& device);

}  // namespace glaive
