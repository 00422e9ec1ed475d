#pragma once
// What the files of the C ABI share: handles, errors, and the reading of a caller's structs. Internal to the runtime.
#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "runtime/cpu.hpp"
#include "runtime/dispatch.hpp"
#include "runtime/glaive.h"

namespace glaive::c_abi {

struct Device {
  DeviceInfo info;
  std::string target;
  WorkerPool pool;
  explicit Device(int threads) : info(host_cpu_device()), target(to_string(info.target)), pool(threads) {}
};

}  // namespace glaive::c_abi

struct glaive_device {
  std::shared_ptr<glaive::c_abi::Device> shared;
};

struct glaive_pack {
  glaive::Pack pack;
};

struct glaive_plan {
  std::shared_ptr<glaive::c_abi::Device> device;
  glaive::Problem problem;
  glaive::CpuKernel kernel;
  glaive::Match match;
  std::string description;
};

namespace glaive::c_abi {

/// Sets the sentence of glaive_last_error.
glaive_status report(Status status, std::string_view message);
glaive_status report(const Error& error);
const char* last_error_text();

/// Runs the body of an API function: nothing is thrown across the C boundary.
template <class Body>
glaive_status guarded(Body&& body) {
  try {
    const Result<void> result = body();
    return result ? GLAIVE_OK : report(result.error());
  } catch (const std::bad_alloc&) {
    return report(Status::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return report(Status::failed, error.what());
  } catch (...) {
    return report(Status::failed, "an unknown exception");
  }
}

std::unexpected<Error> refuse(std::string message);
Result<void> need(const void* pointer, const char* name);

/// A copy of a caller's struct, which may be of an older or a newer header than ours: missing fields are zero, and
/// fields that this build does not know must be zero.
template <class Struct>
Result<Struct> read_struct(const Struct* given, const char* name, std::size_t oldest) {
  if (auto there = need(given, name); not there) return std::unexpected(there.error());
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  constexpr std::size_t absurd = 4096;
  if (size < oldest or size > absurd)
    return refuse(std::string(name) + "->size is " + std::to_string(size) + "; set it to sizeof(" + name + "[0]), " +
                  std::to_string(oldest) + " bytes or more");
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i] != 0)
      return fail(Status::unsupported,
                  std::string(name) + " sets a field that this version (" + glaive_version() + ") does not know");
  Struct copy = {};
  std::memcpy(&copy, given, std::min(size, sizeof copy));
  return copy;
}

// The sizes of the structs in version 0.1; they only grow.
constexpr std::size_t problem_0_1 = 64, shape_0_1 = 40, args_0_1 = 192;
static_assert(sizeof(glaive_problem) >= problem_0_1 and sizeof(glaive_shape) >= shape_0_1);
static_assert(sizeof(glaive_args) >= args_0_1);

template <class Enum>
Result<Enum> choose(const char* name, std::int32_t given, std::initializer_list<Enum> allowed) {
  for (const Enum value : allowed)
    if (given == static_cast<std::int32_t>(value)) return value;
  std::string text = std::string(name) + " is " + std::to_string(given) + "; allowed are";
  for (const Enum value : allowed)
    text += " " + std::to_string(static_cast<int>(value)) + " (" + std::string(to_string(value)) + ")";
  return refuse(std::move(text));
}

/// A shape as the runtime needs it; the ragged form stays the caller's array.
struct CallShape {
  Shape uniform;
  std::int64_t sequences = 0, tokens = 0, longest = 0;
  const std::int32_t* cu_seqlens = nullptr;

  Extents extents(const Problem& problem, int workers) const {
    Extents extents = extents_of(problem, uniform, workers);
    extents[Axis::sequences] = sequences;
    extents[Axis::tokens] = tokens;
    extents[Axis::longest] = longest;
    return extents;
  }
};

/// The bytes that a tensor of a call spans.
struct Span {
  const char* name = "";
  std::uintptr_t begin = 0, end = 0;
  bool overlaps(const Span& other) const {
    return begin < end and other.begin < other.end and begin < other.end and other.begin < end;
  }
};

/// A tensor [outer, heads, inner] with an outer (token or sequence) and a head stride, in elements.
struct Tensor {
  const char* name;
  const void* base;
  std::int64_t outer, heads, inner;
  std::int64_t outer_stride, head_stride;
  DType dtype;
  bool written = false;
};

/// Fills in contiguous strides, checks them, the pointer and its alignment, and says which bytes the tensor spans.
Result<Span> check_tensor(Tensor& t);

Result<float> read_scalar(const char* name, float given, float fallback, float low, float high);

/// The words of a call, checked.
Result<Words> read_args(const glaive_args* given, const Problem& problem, const CallShape& shape,
                        const Span& workspace);

}  // namespace glaive::c_abi
