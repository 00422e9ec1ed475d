#pragma once
#include "tests/files.hpp"

namespace glaive::testing {

/// kernel.c's `forward` as CUDA C++: one block of one thread for each of its tasks.
inline std::string kernel_text(std::size_t words) {
  const auto bytes = read_bytes(KERNEL_C);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text = text.substr(text.find("/* begin"), text.find("/* end") - text.find("/* begin"));
  const auto replace = [&](const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
  };
  replace("static void report", "static __device__ void report");
  replace("static int64_t slot_of", "static __device__ int64_t slot_of");
  replace("void forward", "static __device__ void task_of_forward");
  replace("__atomic_fetch_or((uint32_t*)w[STATUS], fault, __ATOMIC_RELAXED)", "atomicOr((uint32_t*)w[STATUS], fault)");
  std::string parameters, names;
  for (std::size_t i = 0; i < words; ++i) {
    const std::string name = "a" + std::to_string(i);
    parameters += (i == 0 ? "" : ", ") + std::string("uint64_t ") + name;
    names += (i == 0 ? "" : ", ") + name;
  }
  return "typedef unsigned long long uint64_t;\ntypedef long long int64_t;\ntypedef unsigned uint32_t;\n"
         "typedef int int32_t;\n" +
         text + "extern \"C\" __global__ void forward(" + parameters + ") {\n  const uint64_t w[] = {" + names +
         "};\n  float scratch[64];\n  task_of_forward(w, blockIdx.x, scratch);\n}\n";
}

}  // namespace glaive::testing
