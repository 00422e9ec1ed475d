#include "autotune/gpu/timing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace glaive {
namespace {

constexpr double event_seconds = 3.5e-6;  // a pair of events and a launch, measured on an H100
constexpr double allowed_share = 0.02;
constexpr int most_calls = 200;
constexpr double clock_share = 0.97;

// Bits of nvmlClocksEventReason, from nvml.h.
constexpr std::uint64_t hw_slowdown = 0x08, sw_thermal = 0x20, hw_thermal = 0x40, hw_power_brake = 0x80;

}  // namespace

std::int64_t flush_bytes(std::int64_t l2_bytes) { return 2 * l2_bytes; }

int calls_per_replay(double seconds_per_call) {
  const double calls = std::ceil(event_seconds / (allowed_share * seconds_per_call));
  return calls < most_calls ? std::max(static_cast<int>(calls), 1) : most_calls;
}

std::string distortion(const GpuCondition& condition, std::int64_t usual_mhz) {
  if ((condition.slowed_by & (sw_thermal | hw_thermal)) != 0) return "the device was too hot";
  if ((condition.slowed_by & hw_power_brake) != 0) return "the device's power supply slowed it down";
  if ((condition.slowed_by & hw_slowdown) != 0) return "the hardware slowed the device down";
  if (condition.sm_mhz >= 0 and static_cast<double>(condition.sm_mhz) < clock_share * static_cast<double>(usual_mhz))
    return fmt::format("the SM clock fell to {} MHz from {} MHz", condition.sm_mhz, usual_mhz);
  return {};
}

}  // namespace glaive
