#pragma once
// A driver of CUDA without a GPU: device memory is the host's, a stream is a queue that runs when somebody waits for
// it, kernels are functions of the test. What a program may not do on a GPU fails here too: work without a context,
// waiting while a stream is captured, touching page-locked memory that a copy has yet to read.
//
// libcuda_stub.so is opened like libcuda; a test reaches its controls through stub().
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace glaive::testing {

/// A tensor map as the stub encodes it.
struct alignas(128) StubMap {
  void* base = nullptr;
  std::uint64_t extents[3] = {}, strides[2] = {};
  std::uint32_t box[3] = {};
  int elements = 0, swizzle = 0, promotion = 0;
};

struct StubLaunch {
  std::string entry;
  unsigned grid[3] = {}, block[3] = {}, shared_bytes = 0, cluster = 1;
  bool early = false;
  void* stream = nullptr;
  std::vector<std::uint64_t> words;
  std::vector<StubMap> maps;
  mutable int breaks = 0;  ///< the error with which a body breaks the context; 0 = it does not
};

/// A kernel: how many words it takes, and tensor maps behind them, what it needs, what it does.
struct StubKernel {
  std::size_t words = 0, maps = 0;
  void (*body)(const StubLaunch& launch) = nullptr;
  int max_threads = 1024, shared_bytes = 0;
  std::size_t word_bytes = 8;
  int microseconds = 1;  ///< by the stub's clock
};

/// `find_stub_kernel` of the library that STUB_KERNELS names: kernels that no test has set.
using FindStubKernel = bool(const char* entry, StubKernel* kernel);

class Stub {
 public:
  virtual ~Stub() = default;
  virtual void reset() = 0;  ///< as after loading, memory apart
  virtual void set_kernel(const std::string& entry, const StubKernel& kernel) = 0;
  /// The call after `calls` more of `function`, named without `cu` and `_v2`, fails.
  virtual void fail(const std::string& function, int outcome, int calls = 0) = 0;
  virtual void set_memory(std::size_t bytes) = 0;
  virtual void set_jit_log(const std::string& text) = 0;
  virtual const std::vector<StubLaunch>& launches() const = 0;  ///< that have run
  virtual const std::vector<std::string>& calls() const = 0;    ///< names, in order
  virtual std::size_t allocations() const = 0;                  ///< not freed: device, page-locked, events, modules
  virtual std::size_t contexts() const = 0;                     ///< retained and not released
  virtual void run_all() = 0;                                   ///< as if everybody had waited
};

using MakeStub = Stub*();

}  // namespace glaive::testing
