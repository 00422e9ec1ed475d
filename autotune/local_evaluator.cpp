#include <fmt/format.h>

#include <charconv>

#include "autotune/evaluator.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"

namespace glaive {
namespace {

/// The number of a GPU; nothing for the CPU.
Result<std::optional<int>> ordinal_of(const std::string& device) {
  if (device == "cpu") return std::nullopt;
  if (device == "gpu") return 0;
  int ordinal = 0;
  const char *const first = device.data() + std::min<std::size_t>(device.size(), 4), *const last =
                                                                                         device.data() + device.size();
  if (device.starts_with("gpu:"))
    if (const auto [end, error] = std::from_chars(first, last, ordinal);
        error == std::errc() and end == last and ordinal >= 0)
      return ordinal;
  return fail(Status::invalid_argument, fmt::format("device `{}`: it is cpu, gpu or gpu:N", device));
}

}  // namespace

Result<DeviceInfo> find_device(const std::string& name) {
  const auto ordinal = ordinal_of(name);
  if (not ordinal) return std::unexpected(ordinal.error());
  if (not*ordinal) return host_cpu_device();
  const auto driver = cuda::Driver::get();
  if (not driver) return std::unexpected(driver.error());
  if (**ordinal >= (*driver)->devices())
    return fail(Status::not_found,
                fmt::format("device `{}`: the driver has {}, counted from 0", name, (*driver)->devices()));
  return describe_gpu(**driver, **ordinal);
}

std::string usual_device() { return cuda::Driver::get() and CudaCompiler::open() ? "gpu" : "cpu"; }

Result<Verdict> Evaluator::verify(std::span<Trial>, const Built&) {
  return fail(Status::unsupported, "trials do not travel to other processes");
}

Result<std::unique_ptr<Evaluator>> make_local_evaluator(const std::string& device, int threads, Pulse& pulse) {
  const auto ordinal = ordinal_of(device);
  if (not ordinal) return std::unexpected(ordinal.error());
  return *ordinal ? make_gpu_evaluator(**ordinal, &pulse) : make_cpu_evaluator(threads, &pulse);
}

Result<std::unique_ptr<Evaluator>> make_local_evaluator(const std::string& device, int threads) {
  const auto ordinal = ordinal_of(device);
  if (not ordinal) return std::unexpected(ordinal.error());
  return *ordinal ? make_gpu_evaluator(**ordinal, nullptr) : make_cpu_evaluator(threads, nullptr);
}

}  // namespace glaive
