#include "compiler/toolkit.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace glaive::backend {

Result<Library> open_of_toolkit(std::string_view soname, const char* variable) {
  const auto value_of = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (const std::string named = value_of(variable); not named.empty())
    return Library::open("the library that " + std::string(variable) + " names", std::span(&named, 1));
  std::vector<std::string> folders = {""};
  if (const std::string home = value_of("CUDA_HOME"); not home.empty()) folders.push_back(home + "/lib64/");
  folders.emplace_back("/usr/local/cuda/lib64/");
  std::vector<std::string> names;
  for (const std::string& folder : folders)
    for (const char* version : {".13", ".12"}) names.push_back(folder + std::string(soname) + version);
  return Library::open(soname, names);
}

Result<std::vector<KernelFacts>> take_facts(CodeObject& cubin) {
  auto kernels = cubin_facts(cubin.bytes);
  if (not kernels) return kernels;
  for (const KernelFacts& kernel : *kernels) {
    cubin.text_bytes += kernel.text_bytes;
    cubin.stack_bytes = std::max(cubin.stack_bytes, kernel.stack_bytes);
  }
  return kernels;
}

std::string trimmed(std::string log) {
  std::ranges::replace(log, '\0', '\n');  // stands before what ptxas complains about
  while (not log.empty() and (log.back() == '\0' or log.back() == '\n')) log.pop_back();
  return log;
}

}  // namespace glaive::backend
