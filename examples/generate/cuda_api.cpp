#include "examples/generate/cuda_api.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "examples/generate/failure.hpp"

namespace generate::cuda {

Library::Library(const char* environment, std::initializer_list<const char*> names) {
  if (const char* const file = environment != nullptr ? std::getenv(environment) : nullptr) {
    name_ = file;
    handle_ = dlopen(file, RTLD_NOW);
    if (handle_ == nullptr) fail(environment, " is ", file, ", which cannot be opened: ", dlerror());
    return;
  }
  const char* const home = std::getenv("CUDA_HOME");
  for (const std::string& folder :
       {std::string(), (home != nullptr ? home : "/usr/local/cuda") + std::string("/lib64/")})
    for (const char* name : names) {
      name_ = folder + name;
      handle_ = dlopen(name_.c_str(), RTLD_NOW);
      if (handle_ != nullptr) return;
    }
  fail(*names.begin(), " was not found, which a GPU needs here",
       environment != nullptr ? std::string("; ") + environment + " may name the file" : std::string());
}

void* Library::symbol(const char* name) const {
  void* const found = dlsym(handle_, name);
  if (found == nullptr) fail(name_, " has no ", name, ": it is too old");
  return found;
}

void check(int outcome, const char* what) {
  if (outcome != 0) fail(what, " failed with error ", outcome);
}

Driver::Driver() {
  const Library library(nullptr, {"libcuda.so.1"});
  library.find(device_get, "cuDeviceGet");
  library.find(device_attribute, "cuDeviceGetAttribute");
  library.find(context_retain, "cuDevicePrimaryCtxRetain");
  library.find(context_release, "cuDevicePrimaryCtxRelease_v2");
  library.find(context_push, "cuCtxPushCurrent_v2");
  library.find(context_pop, "cuCtxPopCurrent_v2");
  library.find(stream_create, "cuStreamCreate");
  library.find(stream_destroy, "cuStreamDestroy_v2");
  library.find(stream_synchronize, "cuStreamSynchronize");
  library.find(capture_begin, "cuStreamBeginCapture_v2");
  library.find(capture_end, "cuStreamEndCapture");
  library.find(graph_instantiate, "cuGraphInstantiateWithFlags");
  library.find(graph_launch, "cuGraphLaunch");
  library.find(graph_destroy, "cuGraphDestroy");
  library.find(graph_executable_destroy, "cuGraphExecDestroy");
  library.find(event_create, "cuEventCreate");
  library.find(event_destroy, "cuEventDestroy_v2");
  library.find(event_record, "cuEventRecord");
  library.find(event_record_with, "cuEventRecordWithFlags");
  library.find(event_synchronize, "cuEventSynchronize");
  library.find(event_elapsed, "cuEventElapsedTime");
  library.find(host_allocate, "cuMemHostAlloc");
  library.find(host_free, "cuMemFreeHost");
  library.find(copy_to_device, "cuMemcpyHtoDAsync_v2");
  library.find(module_load, "cuModuleLoadData");
  library.find(module_unload, "cuModuleUnload");
  library.find(module_function, "cuModuleGetFunction");
  library.find(launch, "cuLaunchKernel");
}

CuBlas::CuBlas() {
  const Library library("GLAIVE_CUBLAS", {"libcublas.so.13", "libcublas.so.12"});
  library.find(create, "cublasCreate_v2");
  library.find(destroy, "cublasDestroy_v2");
  library.find(set_stream, "cublasSetStream_v2");
  library.find(set_workspace, "cublasSetWorkspace_v2");
  library.find(gemm, "cublasGemmEx");
}

std::string compile(const char* text, int compute_major, int compute_minor) {
  const Library library("GLAIVE_NVRTC", {"libnvrtc.so.13", "libnvrtc.so.12"});
  int (*create)(Program*, const char* text, const char* name, int headers, const char* const*, const char* const*);
  int (*compile_program)(Program, int options, const char* const*);
  int (*size)(Program, std::size_t*);
  int (*get)(Program, char*);
  int (*log_size)(Program, std::size_t*);
  int (*get_log)(Program, char*);
  int (*destroy)(Program*);
  library.find(create, "nvrtcCreateProgram");
  library.find(compile_program, "nvrtcCompileProgram");
  library.find(size, "nvrtcGetCUBINSize");
  library.find(get, "nvrtcGetCUBIN");
  library.find(log_size, "nvrtcGetProgramLogSize");
  library.find(get_log, "nvrtcGetProgramLog");
  library.find(destroy, "nvrtcDestroyProgram");

  Program program = nullptr;
  check(create(&program, text, "generate.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
  const std::string architecture =
      "--gpu-architecture=sm_" + std::to_string(compute_major) + std::to_string(compute_minor);
  const char* const options[] = {architecture.c_str(), "--std=c++17", "--use_fast_math"};
  std::size_t bytes = 0;
  if (compile_program(program, 3, options) != 0) {
    check(log_size(program, &bytes), "nvrtcGetProgramLogSize");
    std::string log(bytes, '\0');
    check(get_log(program, log.data()), "nvrtcGetProgramLog");
    destroy(&program);
    fail("NVRTC refuses the kernels: ", log);
  }
  check(size(program, &bytes), "nvrtcGetCUBINSize");
  std::string code(bytes, '\0');
  check(get(program, code.data()), "nvrtcGetCUBIN");
  destroy(&program);
  return code;
}

}  // namespace generate::cuda
