#pragma once
// What is used of CUDA's driver, NVRTC and cuBLAS, opened while the program runs and declared by hand, so that this
// builds without the CUDA toolkit. A program that has the toolkit includes its headers instead.
#include <cstddef>
#include <initializer_list>
#include <string>
#include <type_traits>

namespace generate::cuda {

using Context = struct CUctx_st*;
using Stream = struct CUstream_st*;
using Event = struct CUevent_st*;
using Module = struct CUmod_st*;
using Function = struct CUfunc_st*;
using RecordedGraph = struct CUgraph_st*;
using ExecutableGraph = struct CUgraphExec_st*;
using Program = struct _nvrtcProgram*;
using Blas = struct cublasContext*;

/// A shared library. It is never closed: CUDA's do not like it.
class Library {
 public:
  /// The first of `names` that opens, where the loader finds it or in the toolkit's folder; `environment`: a variable
  /// that names a file to open instead.
  Library(const char* environment, std::initializer_list<const char*> names);
  template <class Pointer>
  void find(Pointer& function, const char* name) const {
    function = reinterpret_cast<Pointer>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;
  std::string name_;
  void* handle_ = nullptr;
};

/// Throws unless a function of CUDA's returned 0.
void check(int outcome, const char* what);

struct Driver {
  Driver();
  int (*device_get)(int* device, int ordinal);
  int (*device_attribute)(int* value, int attribute, int device);
  int (*context_retain)(Context*, int device);
  int (*context_release)(int device);
  int (*context_push)(Context);
  int (*context_pop)(Context*);
  int (*stream_create)(Stream*, unsigned flags);
  int (*stream_destroy)(Stream);
  int (*stream_synchronize)(Stream);
  int (*capture_begin)(Stream, int mode);
  int (*capture_end)(Stream, RecordedGraph*);
  int (*graph_instantiate)(ExecutableGraph*, RecordedGraph, unsigned long long flags);
  int (*graph_launch)(ExecutableGraph, Stream);
  int (*graph_destroy)(RecordedGraph);
  int (*graph_executable_destroy)(ExecutableGraph);
  int (*event_create)(Event*, unsigned flags);
  int (*event_destroy)(Event);
  int (*event_record)(Event, Stream);
  int (*event_record_with)(Event, Stream, unsigned flags);
  int (*event_synchronize)(Event);
  int (*event_elapsed)(float* milliseconds, Event from, Event to);
  int (*host_allocate)(void**, std::size_t bytes, unsigned flags);
  int (*host_free)(void*);
  int (*copy_to_device)(void* to, const void* from, std::size_t bytes, Stream);
  int (*module_load)(Module*, const void* image);
  int (*module_unload)(Module);
  int (*module_function)(Function*, Module, const char* name);
  int (*launch)(Function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                unsigned block_z, unsigned shared_bytes, Stream, void** parameters, void** extra);
};
constexpr int attribute_compute_major = 75, attribute_compute_minor = 76;
constexpr unsigned stream_default = 0, event_record_external = 1;
constexpr int capture_relaxed = 2;

/// CUDA C++ to code for one architecture.
std::string compile(const char* text, int compute_major, int compute_minor);

struct CuBlas {
  CuBlas();
  int (*create)(Blas*);
  int (*destroy)(Blas);
  int (*set_stream)(Blas, Stream);
  int (*set_workspace)(Blas, void*, std::size_t bytes);
  int (*gemm)(Blas, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a, int a_type,
              int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc,
              int compute_type, int algorithm);
};
constexpr int blas_plain = 0, blas_transposed = 1, blas_compute_f32 = 68, blas_default_algorithm = -1;
constexpr int type_f32 = 0, type_bf16 = 14;

}  // namespace generate::cuda
