#pragma once
// What the files of the C ABI share: handles, errors, and the reading of a caller's structs. Internal to the runtime.
#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/dispatch.hpp"
#include "runtime/fit.hpp"
#include "runtime/glaive.h"

struct glaive_device {
  std::shared_ptr<glaive::Device> shared;
};

struct glaive_pack {
  std::vector<std::byte> bytes;  // of a pack in memory
  glaive::Pack pack;
};

struct glaive_plan {
  std::shared_ptr<glaive::Device> device;
  std::shared_ptr<const glaive::Kernel> kernel;
  glaive::Problem problem;
  glaive::Match match = glaive::Match::exact;
  std::string description = {};

  // What every call asks, worked out once.
  std::uint64_t takes = 0;         // a bit for each Arg that a stage names
  std::int64_t scratch_bytes = 0;  // of all workers
  float default_scale = 1;         // K^-0.5

  // What it was tuned for.
  glaive::Measured measured = {};
  bool foreign_device = false, foreign_threads = false;
  bool demoted = false;  // what fits better could not be loaded
  std::optional<double> regret_per_step = {};

  glaive::Match match_of(glaive::Bucket bucket) const {
    if (foreign_device) return glaive::Match::other_device;
    return bucket == measured.bucket and not foreign_threads and not demoted ? glaive::Match::exact
                                                                             : glaive::Match::nearest;
  }

  std::int64_t workspace_bytes(const glaive::Extents& extents) const {
    std::int64_t bytes = glaive::shared_workspace_bytes(kernel->plan(), extents);
    return __builtin_add_overflow(bytes, scratch_bytes, &bytes) ? INT64_MAX : bytes;
  }
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
    if (result) [[likely]]
      return GLAIVE_OK;
    return report(result.error());
  } catch (const std::bad_alloc&) {
    return report(Status::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return report(Status::failed, error.what());
  } catch (...) {
    return report(Status::failed, "an unknown exception");
  }
}

[[gnu::cold]] std::unexpected<Error> refuse(std::string message);
[[gnu::cold]] std::unexpected<Error> refuse(const char* message);
inline Result<void> need(const void* pointer, const char* name) {
  if (pointer == nullptr) return refuse(std::string(name) + " is NULL");
  return {};
}

/// A size beyond this was never set.
inline constexpr std::size_t largest_struct = 4096;

/// A copy of a caller's struct, which may be of an older or a newer header than ours: missing fields are zero, and
/// fields that this build does not know must be zero.
template <class Struct>
Result<Struct> read_struct(const Struct* given, const char* name, std::size_t oldest) {
  if (auto there = need(given, name); not there) return std::unexpected(there.error());
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < oldest or size > largest_struct)
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

/// As read_struct, but without a copy where the caller's struct is of this header: every launch comes through here.
template <class Struct>
Result<const Struct*> view_struct(const Struct* given, const char* name, std::size_t oldest, Struct& copy) {
  if (given != nullptr and given->size == sizeof(Struct)) return given;
  auto read = read_struct(given, name, oldest);
  if (not read) return std::unexpected(std::move(read).error());
  copy = *read;
  return &copy;
}

// The sizes of the structs in version 0.1; they only grow.
constexpr std::size_t problem_0_1 = 64, shape_0_1 = 40, args_0_1 = 232, fit_0_1 = 88;
static_assert(sizeof(glaive_problem) >= problem_0_1 and sizeof(glaive_shape) >= shape_0_1);
static_assert(sizeof(glaive_args) >= args_0_1 and sizeof(glaive_fit) >= fit_0_1);

template <class Enum>
Result<Enum> choose(const char* name, std::int32_t given, std::initializer_list<Enum> allowed) {
  for (const Enum value : allowed)
    if (given == static_cast<std::int32_t>(value)) return value;
  std::string text = std::string(name) + " is " + std::to_string(given) + "; allowed are";
  for (const Enum value : allowed)
    text += " " + std::to_string(static_cast<int>(value)) + " (" + std::string(to_string(value)) + ")";
  return refuse(std::move(text));
}

}  // namespace glaive::c_abi
