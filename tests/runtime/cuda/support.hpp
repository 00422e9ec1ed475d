#pragma once
#include <dlfcn.h>

#include "tests/runtime/cuda/forward.hpp"
#include "tests/runtime/cuda/served.hpp"

namespace glaive::testing {

/// The stub that GLAIVE_LIBCUDA names, as it was loaded, less what a test before has set.
inline Stub& stub() {
  static Stub* const made = [] {
    void* const library = dlopen(LIBCUDA_STUB, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    auto* const make = reinterpret_cast<MakeStub*>(dlsym(library, "make_stub"));
    REQUIRE(make != nullptr);
    return make();
  }();
  return *made;
}
inline Stub& fresh_stub() {
  stub().reset();
  return stub();
}

inline std::shared_ptr<Device> gpu(int ordinal = 0) {
  auto device = open_gpu(driver(), ordinal);
  REQUIRE(device.has_value());
  return *device;
}

inline Plan gpu_plan() {
  Plan plan = gpu_entry_without_code(gpu()->info()).plan;
  plan.stages[0].block[0] = 128;
  return plan;
}
/// Code that only the stub takes.
inline CodeObject gpu_code(const char* target = "cuda:sm_90a") {
  CodeObject code;
  code.format = CodeObject::Format::cubin;
  code.target = *parse_target(target);
  code.bytes.assign(100, std::byte{7});
  return code;
}
inline PackEntry gpu_entry() {
  PackEntry entry = gpu_entry_without_code(gpu()->info());
  entry.plan = gpu_plan();
  entry.code = {gpu_code()};
  return entry;
}

template <class Value>
void refused_with(const Result<Value>& result, Status status, std::initializer_list<std::string_view> parts) {
  REQUIRE_FALSE(result.has_value());
  INFO(result.error().message);
  CHECK(result.error().status == status);
  for (const std::string_view part : parts) CHECK(contains(result.error().message, part));
}

}  // namespace glaive::testing
