/* libcuda that does nothing, at once: what is left of a launch is the host's. */
#include <stddef.h>
#include <string.h>

static int context;

int cuInit(unsigned flags) { return (void)flags, 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuGetErrorName(int outcome, const char** name) { return (void)outcome, *name = "NONE", 0; }
int cuGetErrorString(int outcome, const char** text) { return (void)outcome, *text = "none", 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char* name, int bytes, int device) {
  return (void)device, strncpy(name, "Nothing", (size_t)bytes), 0;
}
int cuDeviceGetAttribute(int* value, int which, int device) {
  (void)device;
  *value = which == 75 ? 9 : which == 76 ? 0 : which == 120 ? 1 : 1 << 20; /* compute capability 9.0, clusters */
  return 0;
}
int cuDevicePrimaryCtxRetain(void** made, int device) { return (void)device, *made = &context, 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, 0; }
int cuCtxGetCurrent(void** now) { return *now = &context, 0; }
int cuModuleLoadDataEx(void** module, const void* image, unsigned options, int* names, void** values) {
  return (void)image, (void)options, (void)names, (void)values, *module = &context, 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  return (void)module, (void)name, *function = &context, 0;
}
int cuFuncGetAttribute(int* value, int which, void* function) {
  return (void)function, *value = which == 0 ? 1024 : 0, 0;
}
int cuLaunchKernelEx(const void* config, void* function, void** parameters, void** extra) {
  return (void)config, (void)function, (void)parameters, (void)extra, 0;
}
#define NOTHING(name) \
  int name(void) { return 0; }
NOTHING(cuDeviceGetPCIBusId)
NOTHING(cuCtxPushCurrent_v2)
NOTHING(cuCtxPopCurrent_v2)
NOTHING(cuCtxSynchronize)
NOTHING(cuMemGetInfo_v2)
NOTHING(cuMemAlloc_v2)
NOTHING(cuMemFree_v2)
NOTHING(cuMemHostAlloc)
NOTHING(cuMemFreeHost)
NOTHING(cuMemcpyHtoD_v2)
NOTHING(cuMemcpyDtoH_v2)
NOTHING(cuMemcpyHtoDAsync_v2)
NOTHING(cuMemcpyDtoHAsync_v2)
NOTHING(cuMemsetD32Async)
NOTHING(cuMemcpyDtoDAsync_v2)
NOTHING(cuEventCreate)
NOTHING(cuEventDestroy_v2)
NOTHING(cuEventRecord)
NOTHING(cuEventSynchronize)
NOTHING(cuEventElapsedTime)
NOTHING(cuStreamCreate)
NOTHING(cuStreamDestroy_v2)
NOTHING(cuStreamSynchronize)
NOTHING(cuStreamIsCapturing)
NOTHING(cuStreamBeginCapture_v2)
NOTHING(cuStreamEndCapture)
NOTHING(cuGraphInstantiateWithFlags)
NOTHING(cuGraphLaunch)
NOTHING(cuGraphDestroy)
NOTHING(cuGraphExecDestroy)
NOTHING(cuModuleUnload)
NOTHING(cuFuncSetAttribute)
NOTHING(cuOccupancyMaxActiveClusters)
NOTHING(cuTensorMapEncodeTiled)
