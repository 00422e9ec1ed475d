#pragma once
// libcuda as far as it is used, opened while the program runs. The declarations are ours: the driver's ABI is frozen by
// the versions in its names, and so the runtime is built without a CUDA toolkit. Internal to the runtime.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/library.hpp"
#include "runtime/status.hpp"

namespace glaive::cuda {

/// CUresult. Those that the runtime tells apart.
enum Outcome : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  no_device = 100,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  no_binary_for_gpu = 209,
  ecc_uncorrectable = 214,
  unsupported_limit = 215,
  invalid_ptx = 218,
  nvlink_uncorrectable = 220,
  no_jit_compiler = 221,
  unsupported_ptx_version = 222,
  contained = 226,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_out_of_resources = 701,
  launch_timeout = 702,
  context_is_destroyed = 709,
  assertion = 710,
  hardware_stack_error = 714,
  illegal_instruction = 715,
  misaligned_address = 716,
  invalid_address_space = 717,
  invalid_pc = 718,
  launch_failed = 719,
  tensor_memory_leak = 721,
  stub_library = 34,
  system_driver_mismatch = 803,
  mps_client_terminated = 810,
  capture_implicit = 906,
  external_device = 911,
};

using DeviceNumber = int;
using Address = void*;  // CUdeviceptr, which travels as a pointer does
using Context = struct ContextOfCuda*;
using Module = struct ModuleOfCuda*;
using Function = struct FunctionOfCuda*;
using Stream = struct StreamOfCuda*;
using Event = struct EventOfCuda*;
using Graph = struct GraphOfCuda*;
using GraphExec = struct GraphExecOfCuda*;

/// CUdevice_attribute.
enum DeviceAttribute : int {
  max_grid_x = 5,
  multiprocessors = 16,
  memory_clock_khz = 36,
  memory_bus_bits = 37,
  l2_bytes = 38,
  compute_major = 75,
  compute_minor = 76,
  shared_bytes_per_sm = 81,
  shared_bytes_per_block_optin = 97,
  cluster_launch = 120,
};
/// CUfunction_attribute.
enum FunctionAttribute : int {
  function_max_threads = 0,
  function_shared_bytes = 1,
  function_max_dynamic_shared = 8,
  function_non_portable_cluster = 14,
};

/// CUlaunchAttribute and CUlaunchConfig.
struct LaunchAttribute {
  enum Id : int { cluster_dimension = 4, programmatic_stream_serialization = 6 };
  Id id;
  char padding[8 - sizeof(Id)];
  union {
    char bytes[64];
    struct {
      unsigned x, y, z;
    } cluster;
    int programmatic_stream_serialization_allowed;
  };
};
static_assert(sizeof(LaunchAttribute) == 72);
struct LaunchConfig {
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};
static_assert(sizeof(LaunchConfig) == 56);

/// CUtensorMap.
struct alignas(128) EncodedMap {
  std::uint64_t words[16];
};
/// CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill.
enum MapElements : int { map_u16 = 1, map_u32 = 2 };
enum MapInterleave : int { map_interleave_none = 0 };
enum MapSwizzle : int { map_swizzle_none = 0, map_swizzle_128_bytes = 3 };
enum MapPromotion : int { map_promotion_256_bytes = 3 };
enum MapFill : int { map_fill_zeros = 0 };
using EncodeTiled = Outcome (*)(EncodedMap*, MapElements, std::uint32_t rank, Address, const std::uint64_t* extents,
                                const std::uint64_t* strides, const std::uint32_t* box, const std::uint32_t* steps,
                                MapInterleave, MapSwizzle, MapPromotion, MapFill);

/// CUjit_option.
enum JitOption : int { error_log_buffer = 5, error_log_bytes = 6 };

/// The functions, by libcuda's names without `cu`.
struct Api {
  Outcome (*Init)(unsigned flags);
  Outcome (*DriverGetVersion)(int*);
  Outcome (*GetErrorName)(Outcome, const char**);
  Outcome (*GetErrorString)(Outcome, const char**);
  Outcome (*DeviceGetCount)(int*);
  Outcome (*DeviceGet)(DeviceNumber*, int ordinal);
  Outcome (*DeviceGetName)(char*, int bytes, DeviceNumber);
  Outcome (*DeviceGetAttribute)(int*, DeviceAttribute, DeviceNumber);
  Outcome (*DeviceGetPCIBusId)(char*, int bytes, DeviceNumber);
  Outcome (*DevicePrimaryCtxRetain)(Context*, DeviceNumber);
  Outcome (*DevicePrimaryCtxRelease)(DeviceNumber);
  Outcome (*CtxGetCurrent)(Context*);
  Outcome (*CtxPushCurrent)(Context);
  Outcome (*CtxPopCurrent)(Context*);
  Outcome (*CtxSynchronize)();
  Outcome (*MemGetInfo)(std::size_t* free, std::size_t* total);
  Outcome (*MemAlloc)(Address*, std::size_t);
  Outcome (*MemFree)(Address);
  Outcome (*MemHostAlloc)(void**, std::size_t, unsigned flags);
  Outcome (*MemFreeHost)(void*);
  Outcome (*MemcpyHtoD)(Address, const void*, std::size_t);
  Outcome (*MemcpyDtoH)(void*, Address, std::size_t);
  Outcome (*MemcpyHtoDAsync)(Address, const void*, std::size_t, Stream);
  Outcome (*MemcpyDtoHAsync)(void*, Address, std::size_t, Stream);
  Outcome (*MemsetD32Async)(Address, unsigned value, std::size_t count, Stream);
  Outcome (*MemcpyDtoDAsync)(Address to, Address from, std::size_t, Stream);
  Outcome (*EventCreate)(Event*, unsigned flags);
  Outcome (*EventDestroy)(Event);
  Outcome (*EventRecord)(Event, Stream);
  Outcome (*EventSynchronize)(Event);
  Outcome (*EventElapsedTime)(float* milliseconds, Event from, Event to);
  Outcome (*StreamCreate)(Stream*, unsigned flags);
  Outcome (*StreamDestroy)(Stream);
  Outcome (*StreamSynchronize)(Stream);
  Outcome (*StreamIsCapturing)(Stream, int* status);
  Outcome (*StreamBeginCapture)(Stream, int mode);
  Outcome (*StreamEndCapture)(Stream, Graph*);
  Outcome (*GraphInstantiate)(GraphExec*, Graph, unsigned long long flags);
  Outcome (*GraphLaunch)(GraphExec, Stream);
  Outcome (*GraphDestroy)(Graph);
  Outcome (*GraphExecDestroy)(GraphExec);
  Outcome (*ModuleLoadDataEx)(Module*, const void* image, unsigned options, JitOption*, void** values);
  Outcome (*ModuleUnload)(Module);
  Outcome (*ModuleGetFunction)(Function*, Module, const char* name);
  Outcome (*FuncGetAttribute)(int*, FunctionAttribute, Function);
  Outcome (*FuncSetAttribute)(Function, FunctionAttribute, int);
  Outcome (*FuncGetParamInfo)(Function, std::size_t index, std::size_t* offset, std::size_t* bytes);  // may be null
  Outcome (*OccupancyMaxActiveClusters)(int*, Function, const LaunchConfig*);
  EncodeTiled TensorMapEncodeTiled;
  Outcome (*LaunchKernelEx)(const LaunchConfig*, Function, void** parameters, void** extra);
};

/// An initialised driver. One for the process; it is never closed.
class Driver {
 public:
  /// libcuda.so.1, or the file that GLAIVE_LIBCUDA names when it is first asked for. Fails with not_found where there
  /// is no driver or no device, with unsupported for a driver older than CUDA 12.0, with failed when it does not start.
  static Result<const Driver*> get();
  /// `library`: a path or soname.
  static Result<std::unique_ptr<const Driver>> open(const std::string& library);

  const Api& api() const { return api_; }
  const std::string& path() const { return library_.path(); }
  int version() const { return version_; }  ///< 13000 for CUDA 13.0
  std::string version_text() const;         ///< `CUDA 13.0`
  int devices() const { return devices_; }

  /// `<doing>: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)`, with the status that fits. One
  /// that has broken the context says so.
  std::unexpected<Error> failure(Outcome outcome, std::string doing) const;

 private:
  Library library_;
  Api api_ = {};
  int version_ = 0, devices_ = 0;
};

/// Whether nothing more can be done in the context, and hence in this process, on the device.
bool breaks_context(Outcome outcome);
/// Whether that is the hardware's doing or that of somebody else, whatever kernel ran.
bool spares_kernel(Outcome outcome);
/// What the message of such a failure has, to tell it from one that a kernel has caused.
inline constexpr const char* not_a_kernels_fault = "through no fault of a kernel's";

}  // namespace glaive::cuda
