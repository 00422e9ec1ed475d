#include "runtime/nvml.hpp"

#include <array>
#include <span>

namespace glaive {
namespace {

using Handle = struct DeviceOfNvml*;
enum Outcome : int { success = 0 };
enum Clock : int { sm_clock = 1, memory_clock = 2 };

}  // namespace

struct Nvml::Api {
  Library library;
  Outcome (*init)();
  Outcome (*shutdown)();
  const char* (*error_string)(Outcome);
  Outcome (*driver_version)(char*, unsigned);
  Outcome (*by_bus_id)(const char*, Handle*);
  Outcome (*clock)(Handle, Clock, unsigned*);
  Outcome (*most_clock)(Handle, Clock, unsigned*);
  Outcome (*power)(Handle, unsigned*);
  Outcome (*power_limit)(Handle, unsigned*);
  Outcome (*temperature)(Handle, int sensor, unsigned*);
  Outcome (*slowed_by)(Handle, unsigned long long*);
};

std::string to_string(const GpuCondition& c) {
  const auto or_unknown = [](std::int64_t n) { return n < 0 ? std::string("?") : std::to_string(n); };
  const auto watts = [&](std::int64_t milliwatts) { return or_unknown(milliwatts < 0 ? -1 : milliwatts / 1000); };
  std::string text = or_unknown(c.sm_mhz) + " of " + or_unknown(c.most_sm_mhz) + " MHz, memory " +
                     or_unknown(c.memory_mhz) + " MHz, " + watts(c.milliwatts) + " of " + watts(c.limit_milliwatts) +
                     " W, " + or_unknown(c.celsius) + " C";
  struct Reason {
    std::uint64_t bit;
    const char* name;
  };
  // NOTES: 1 is idleness, which slows nothing down that runs.
  constexpr Reason reasons[] = {
      {0x2, "clocks set by an application"}, {0x4, "power cap"},   {0x8, "hardware slowdown"}, {0x20, "temperature"},
      {0x40, "hardware temperature limit"},  {0x80, "power brake"}};
  for (const Reason& reason : reasons)
    if ((c.slowed_by & reason.bit) != 0) text += std::string(", slowed by: ") + reason.name;
  return text;
}

Result<std::shared_ptr<const Nvml>> Nvml::open(const std::string& library) {
  const std::string name = library.empty() ? "libnvidia-ml.so.1" : library;
  auto opened = Library::open("NVML", std::span(&name, 1));
  if (not opened) return std::unexpected(std::move(opened).error());
  auto api = std::make_unique<Api>();
  api->library = std::move(*opened);
  bool whole = true;
  const auto find = [&](auto& function, const char* symbol) {
    api->library.find(function, symbol);
    whole = whole and function != nullptr;
  };
  find(api->init, "nvmlInit_v2");
  find(api->shutdown, "nvmlShutdown");
  find(api->error_string, "nvmlErrorString");
  find(api->driver_version, "nvmlSystemGetDriverVersion");
  find(api->by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2");
  find(api->clock, "nvmlDeviceGetClockInfo");
  find(api->most_clock, "nvmlDeviceGetMaxClockInfo");
  find(api->power, "nvmlDeviceGetPowerUsage");
  find(api->power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  find(api->temperature, "nvmlDeviceGetTemperature");
  find(api->slowed_by, "nvmlDeviceGetCurrentClocksThrottleReasons");
  if (not whole) return fail(Status::unsupported, api->library.path() + " is no NVML of a driver for CUDA 12 or newer");
  if (const Outcome started = api->init(); started != success)
    return fail(Status::failed, std::string("NVML does not start: ") + api->error_string(started));
  std::shared_ptr<Nvml> nvml(new Nvml);
  nvml->api_ = std::move(api);
  return nvml;
}

Nvml::~Nvml() {
  if (api_ != nullptr) api_->shutdown();
}

std::string Nvml::driver_version() const {
  std::array<char, 96> text = {};
  return api_->driver_version(text.data(), text.size() - 1) == success ? text.data() : "";
}

Result<GpuCondition> Nvml::condition(const std::string& bus_id) const {
  Handle device = nullptr;
  if (const Outcome found = api_->by_bus_id(bus_id.c_str(), &device); found != success)
    return fail(Status::not_found, "NVML has no GPU at " + bus_id + ": " + api_->error_string(found));
  GpuCondition c;
  unsigned value = 0;
  if (api_->clock(device, sm_clock, &value) == success) c.sm_mhz = value;
  if (api_->clock(device, memory_clock, &value) == success) c.memory_mhz = value;
  if (api_->most_clock(device, sm_clock, &value) == success) c.most_sm_mhz = value;
  if (api_->power(device, &value) == success) c.milliwatts = value;
  if (api_->power_limit(device, &value) == success) c.limit_milliwatts = value;
  if (api_->temperature(device, 0, &value) == success) c.celsius = value;
  unsigned long long reasons = 0;
  if (api_->slowed_by(device, &reasons) == success) c.slowed_by = reasons;
  return c;
}

}  // namespace glaive
