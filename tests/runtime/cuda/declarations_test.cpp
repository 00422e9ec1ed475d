// Our declarations of libcuda against NVIDIA's own, where a toolkit is installed: this file compiles or it does not.
#include <cstddef>
#include <type_traits>

#include "runtime/cuda_driver.hpp"

#ifdef HAVE_CUDA_H
#include <cuda.h>

namespace {

namespace ours = glaive::cuda;

#define SAME(a, b) static_assert(static_cast<int>(a) == static_cast<int>(b))
SAME(ours::success, CUDA_SUCCESS);
SAME(ours::invalid_value, CUDA_ERROR_INVALID_VALUE);
SAME(ours::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(ours::no_device, CUDA_ERROR_NO_DEVICE);
SAME(ours::invalid_device, CUDA_ERROR_INVALID_DEVICE);
SAME(ours::invalid_image, CUDA_ERROR_INVALID_IMAGE);
SAME(ours::invalid_context, CUDA_ERROR_INVALID_CONTEXT);
SAME(ours::no_binary_for_gpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
SAME(ours::unsupported_ptx_version, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
SAME(ours::not_found, CUDA_ERROR_NOT_FOUND);
SAME(ours::not_ready, CUDA_ERROR_NOT_READY);
SAME(ours::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(ours::launch_out_of_resources, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
SAME(ours::launch_timeout, CUDA_ERROR_LAUNCH_TIMEOUT);
SAME(ours::context_is_destroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
SAME(ours::assertion, CUDA_ERROR_ASSERT);
SAME(ours::hardware_stack_error, CUDA_ERROR_HARDWARE_STACK_ERROR);
SAME(ours::illegal_instruction, CUDA_ERROR_ILLEGAL_INSTRUCTION);
SAME(ours::misaligned_address, CUDA_ERROR_MISALIGNED_ADDRESS);
SAME(ours::invalid_address_space, CUDA_ERROR_INVALID_ADDRESS_SPACE);
SAME(ours::invalid_pc, CUDA_ERROR_INVALID_PC);
SAME(ours::launch_failed, CUDA_ERROR_LAUNCH_FAILED);
SAME(ours::ecc_uncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE);
SAME(ours::nvlink_uncorrectable, CUDA_ERROR_NVLINK_UNCORRECTABLE);
SAME(ours::mps_client_terminated, CUDA_ERROR_MPS_CLIENT_TERMINATED);
SAME(ours::capture_implicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
SAME(ours::external_device, CUDA_ERROR_EXTERNAL_DEVICE);
#if CUDA_VERSION >= 13000
SAME(ours::contained, CUDA_ERROR_CONTAINED);
SAME(ours::tensor_memory_leak, CUDA_ERROR_TENSOR_MEMORY_LEAK);
#endif
SAME(ours::system_driver_mismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);

SAME(ours::max_grid_x, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X);
SAME(ours::multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(ours::memory_clock_khz, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
SAME(ours::memory_bus_bits, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
SAME(ours::l2_bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME(ours::compute_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(ours::compute_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(ours::shared_bytes_per_sm, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
SAME(ours::shared_bytes_per_block_optin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(ours::cluster_launch, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH);

SAME(ours::function_max_threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
SAME(ours::function_shared_bytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
SAME(ours::function_max_dynamic_shared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(ours::function_non_portable_cluster, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
SAME(ours::error_log_buffer, CU_JIT_ERROR_LOG_BUFFER);
SAME(ours::error_log_bytes, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
SAME(ours::LaunchAttribute::cluster_dimension, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
SAME(ours::LaunchAttribute::programmatic_stream_serialization, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);

SAME(ours::map_u16, CU_TENSOR_MAP_DATA_TYPE_UINT16);
SAME(ours::map_u32, CU_TENSOR_MAP_DATA_TYPE_UINT32);
SAME(ours::map_interleave_none, CU_TENSOR_MAP_INTERLEAVE_NONE);
SAME(ours::map_swizzle_none, CU_TENSOR_MAP_SWIZZLE_NONE);
SAME(ours::map_swizzle_128_bytes, CU_TENSOR_MAP_SWIZZLE_128B);
SAME(ours::map_promotion_256_bytes, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
SAME(ours::map_fill_zeros, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
static_assert(sizeof(ours::EncodedMap) == sizeof(CUtensorMap) and alignof(ours::EncodedMap) >= alignof(CUtensorMap));

static_assert(sizeof(ours::Address) == sizeof(CUdeviceptr) and sizeof(ours::DeviceNumber) == sizeof(CUdevice));
static_assert(sizeof(ours::LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(ours::LaunchAttribute, cluster) == offsetof(CUlaunchAttribute, value));
static_assert(sizeof(ours::LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(ours::LaunchConfig, block) == offsetof(CUlaunchConfig, blockDimX));
static_assert(offsetof(ours::LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(ours::LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(ours::LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(ours::LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs));

/// Whether two functions take as many arguments of the same sizes: all that an ABI sees of pointers and enumerators.
template <class A, class B>
struct Alike : std::false_type {};
template <class... A, class... B>
  requires(sizeof...(A) == sizeof...(B))
struct Alike<ours::Outcome (*)(A...), CUresult(B...)> : std::bool_constant<((sizeof(A) == sizeof(B)) and ...)> {};
#define ALIKE(ours_, theirs) static_assert(Alike<decltype(ours::Api::ours_), decltype(theirs)>::value)
ALIKE(Init, cuInit);
ALIKE(DriverGetVersion, cuDriverGetVersion);
ALIKE(GetErrorName, cuGetErrorName);
ALIKE(GetErrorString, cuGetErrorString);
ALIKE(DeviceGetCount, cuDeviceGetCount);
ALIKE(DeviceGet, cuDeviceGet);
ALIKE(DeviceGetName, cuDeviceGetName);
ALIKE(DeviceGetAttribute, cuDeviceGetAttribute);
ALIKE(DeviceGetPCIBusId, cuDeviceGetPCIBusId);
ALIKE(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain);
ALIKE(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2);
ALIKE(CtxGetCurrent, cuCtxGetCurrent);
ALIKE(CtxPushCurrent, cuCtxPushCurrent_v2);
ALIKE(CtxPopCurrent, cuCtxPopCurrent_v2);
ALIKE(CtxSynchronize, cuCtxSynchronize);
ALIKE(MemGetInfo, cuMemGetInfo_v2);
ALIKE(MemAlloc, cuMemAlloc_v2);
ALIKE(MemFree, cuMemFree_v2);
ALIKE(MemHostAlloc, cuMemHostAlloc);
ALIKE(MemFreeHost, cuMemFreeHost);
ALIKE(MemcpyHtoD, cuMemcpyHtoD_v2);
ALIKE(MemcpyDtoH, cuMemcpyDtoH_v2);
ALIKE(MemcpyHtoDAsync, cuMemcpyHtoDAsync_v2);
ALIKE(MemcpyDtoHAsync, cuMemcpyDtoHAsync_v2);
ALIKE(MemsetD32Async, cuMemsetD32Async);
ALIKE(MemcpyDtoDAsync, cuMemcpyDtoDAsync_v2);
ALIKE(EventCreate, cuEventCreate);
ALIKE(EventDestroy, cuEventDestroy_v2);
ALIKE(EventRecord, cuEventRecord);
ALIKE(EventSynchronize, cuEventSynchronize);
ALIKE(EventElapsedTime, cuEventElapsedTime);
ALIKE(StreamCreate, cuStreamCreate);
ALIKE(StreamDestroy, cuStreamDestroy_v2);
ALIKE(StreamSynchronize, cuStreamSynchronize);
ALIKE(StreamIsCapturing, cuStreamIsCapturing);
ALIKE(StreamBeginCapture, cuStreamBeginCapture_v2);
ALIKE(StreamEndCapture, cuStreamEndCapture);
ALIKE(GraphInstantiate, cuGraphInstantiateWithFlags);
ALIKE(GraphLaunch, cuGraphLaunch);
ALIKE(GraphDestroy, cuGraphDestroy);
ALIKE(GraphExecDestroy, cuGraphExecDestroy);
ALIKE(ModuleLoadDataEx, cuModuleLoadDataEx);
ALIKE(ModuleUnload, cuModuleUnload);
ALIKE(ModuleGetFunction, cuModuleGetFunction);
ALIKE(FuncGetAttribute, cuFuncGetAttribute);
ALIKE(FuncSetAttribute, cuFuncSetAttribute);
ALIKE(FuncGetParamInfo, cuFuncGetParamInfo);
ALIKE(OccupancyMaxActiveClusters, cuOccupancyMaxActiveClusters);
ALIKE(LaunchKernelEx, cuLaunchKernelEx);
ALIKE(TensorMapEncodeTiled, cuTensorMapEncodeTiled);

}  // namespace

#endif
