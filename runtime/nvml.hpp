#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/library.hpp"
#include "runtime/status.hpp"

namespace glaive {

/// What a GPU is doing, as NVML sees it from outside; -1 where it does not say.
struct GpuCondition {
  std::int64_t sm_mhz = -1, memory_mhz = -1;
  std::int64_t most_sm_mhz = -1;
  std::int64_t milliwatts = -1, limit_milliwatts = -1;
  std::int64_t celsius = -1;
  std::uint64_t slowed_by = 0;  ///< NVML's bits of why the clock is below its most; 0 = nothing
};
/// `1980 of 1980 MHz, memory 2619 MHz, 120 of 700 W, 35 C`, and what slows it down.
std::string to_string(const GpuCondition& condition);

/// libnvidia-ml.so.1, opened while the program runs; it belongs to the driver.
class Nvml {
 public:
  /// `library`: a path or soname; libnvidia-ml.so.1 when empty.
  static Result<std::shared_ptr<const Nvml>> open(const std::string& library = {});
  Nvml(const Nvml&) = delete;
  ~Nvml();

  std::string driver_version() const;  ///< `580.159.04`; "" where it is not told
  /// By the PCI bus id that CUDA gives: the two count GPUs in ways of their own.
  Result<GpuCondition> condition(const std::string& bus_id) const;

 private:
  Nvml() = default;
  struct Api;
  std::unique_ptr<Api> api_;
};

}  // namespace glaive
