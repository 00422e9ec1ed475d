#include "runtime/cuda_driver.hpp"

#include <cstdlib>
#include <mutex>

namespace glaive::cuda {
namespace {

/// nothing, or the first function that the library lacks.
const char* find_all(const Library& library, Api& api) {
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    library.find(function, name);
    if (function == nullptr and missing == nullptr) missing = name;
  };
  find(api.Init, "cuInit");
  find(api.DriverGetVersion, "cuDriverGetVersion");
  find(api.GetErrorName, "cuGetErrorName");
  find(api.GetErrorString, "cuGetErrorString");
  find(api.DeviceGetCount, "cuDeviceGetCount");
  find(api.DeviceGet, "cuDeviceGet");
  find(api.DeviceGetName, "cuDeviceGetName");
  find(api.DeviceGetAttribute, "cuDeviceGetAttribute");
  find(api.DeviceGetPCIBusId, "cuDeviceGetPCIBusId");
  find(api.DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  find(api.DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
  find(api.CtxGetCurrent, "cuCtxGetCurrent");
  find(api.CtxPushCurrent, "cuCtxPushCurrent_v2");
  find(api.CtxPopCurrent, "cuCtxPopCurrent_v2");
  find(api.CtxSynchronize, "cuCtxSynchronize");
  find(api.MemGetInfo, "cuMemGetInfo_v2");
  find(api.MemAlloc, "cuMemAlloc_v2");
  find(api.MemFree, "cuMemFree_v2");
  find(api.MemHostAlloc, "cuMemHostAlloc");
  find(api.MemFreeHost, "cuMemFreeHost");
  find(api.MemcpyHtoD, "cuMemcpyHtoD_v2");
  find(api.MemcpyDtoH, "cuMemcpyDtoH_v2");
  find(api.MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2");
  find(api.MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2");
  find(api.MemsetD32Async, "cuMemsetD32Async");
  find(api.MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2");
  find(api.EventCreate, "cuEventCreate");
  find(api.EventDestroy, "cuEventDestroy_v2");
  find(api.EventRecord, "cuEventRecord");
  find(api.EventSynchronize, "cuEventSynchronize");
  find(api.EventElapsedTime, "cuEventElapsedTime");
  find(api.StreamCreate, "cuStreamCreate");
  find(api.StreamDestroy, "cuStreamDestroy_v2");
  find(api.StreamSynchronize, "cuStreamSynchronize");
  find(api.StreamIsCapturing, "cuStreamIsCapturing");
  find(api.StreamBeginCapture, "cuStreamBeginCapture_v2");
  find(api.StreamEndCapture, "cuStreamEndCapture");
  find(api.GraphInstantiate, "cuGraphInstantiateWithFlags");
  find(api.GraphLaunch, "cuGraphLaunch");
  find(api.GraphDestroy, "cuGraphDestroy");
  find(api.GraphExecDestroy, "cuGraphExecDestroy");
  find(api.ModuleLoadDataEx, "cuModuleLoadDataEx");
  find(api.ModuleUnload, "cuModuleUnload");
  find(api.ModuleGetFunction, "cuModuleGetFunction");
  find(api.FuncGetAttribute, "cuFuncGetAttribute");
  find(api.FuncSetAttribute, "cuFuncSetAttribute");
  find(api.OccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters");
  find(api.TensorMapEncodeTiled, "cuTensorMapEncodeTiled");
  find(api.LaunchKernelEx, "cuLaunchKernelEx");
  library.find(api.FuncGetParamInfo, "cuFuncGetParamInfo");  // since 12.4
  return missing;
}

std::string to_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

}  // namespace

std::string Driver::version_text() const { return "CUDA " + to_text(version_); }

bool spares_kernel(Outcome outcome) {
  switch (outcome) {
    case ecc_uncorrectable:
    case nvlink_uncorrectable:
    case contained:  // of a peer's memory or the hardware's: kernels here touch no peer
    case mps_client_terminated:
    case external_device:
      return true;
    default:
      return false;
  }
}

bool breaks_context(Outcome outcome) {
  switch (outcome) {
    case illegal_address:
    case launch_timeout:
    case context_is_destroyed:
    case assertion:
    case hardware_stack_error:
    case illegal_instruction:
    case misaligned_address:
    case invalid_address_space:
    case invalid_pc:
    case launch_failed:
    case tensor_memory_leak:
      return true;
    default:
      return spares_kernel(outcome);
  }
}

std::unexpected<Error> Driver::failure(Outcome outcome, std::string doing) const {
  const char *name = nullptr, *text = nullptr;
  if (api_.GetErrorName(outcome, &name) != success or name == nullptr) name = "an unknown CUDA error";
  if (api_.GetErrorString(outcome, &text) != success or text == nullptr) text = "no text";
  std::string message = std::move(doing) + ": " + name + " (" + text + ")";
  if (breaks_context(outcome)) {
    message += spares_kernel(outcome)
                   ? "; this process's use of the device is broken, " + std::string(not_a_kernels_fault)
                   : "; a kernel has broken this process's use of the device";
    return fail(Status::device_lost, message + ": nothing on it works any more");
  }
  return fail(outcome == out_of_memory ? Status::out_of_memory : Status::failed, std::move(message));
}

Result<std::unique_ptr<const Driver>> Driver::open(const std::string& library) {
  auto opened = Library::open("the driver of CUDA", std::span(&library, 1));
  if (not opened) return std::unexpected(std::move(opened).error());
  auto driver = std::make_unique<Driver>();
  driver->library_ = std::move(*opened);
  Api& api = driver->api_;
  const char* const missing = find_all(driver->library_, api);
  const std::string& path = driver->path();
  int version = 0;
  if (api.DriverGetVersion == nullptr or api.DriverGetVersion(&version) != success)
    return fail(Status::unsupported, path + " is no driver of CUDA: it does not tell its version");
  constexpr int oldest = 12000;
  if (version < oldest or missing != nullptr)
    return fail(Status::unsupported, "the driver (" + path + ") is for CUDA " + to_text(version) +
                                         "; one for CUDA 12.0 or newer is needed" +
                                         (missing == nullptr ? "" : std::string(" (it lacks ") + missing + ")"));
  driver->version_ = version;
  const Outcome started = api.Init(0);
  int devices = 0;
  if (started == no_device or (started == success and api.DeviceGetCount(&devices) == success and devices == 0))
    return fail(Status::not_found, "the driver (" + path + ", CUDA " + to_text(version) +
                                       ") sees no GPU; CUDA_VISIBLE_DEVICES may hide them");
  if (started != success) return driver->failure(started, "the driver (" + path + ") does not start");
  driver->devices_ = devices;
  return driver;
}

Result<const Driver*> Driver::get() {
  static const auto opened = [] {
    const char* const named = secure_getenv("GLAIVE_LIBCUDA");
    // On purpose never closed: handles of devices may be closed when static objects are gone.
    auto driver = open(named != nullptr and *named != 0 ? named : "libcuda.so.1");
    return driver ? Result<const Driver*>(driver->release()) : std::unexpected(driver.error());
  }();
  return opened;
}

}  // namespace glaive::cuda
