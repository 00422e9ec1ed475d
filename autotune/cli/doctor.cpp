#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <initializer_list>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/evidence.hpp"
#include "autotune/sets.hpp"
#include "runtime/pack.hpp"

namespace glaive::cli {
namespace {

std::string_view found_library(std::initializer_list<const char*> names) {
  for (const char* name : names)
    // NODELETE: what a library allocates at its start must not look like a leak of ours
    if (void* handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE); handle != nullptr) {
      dlclose(handle);
      return name;
    }
  return {};
}

std::string size_text(std::int64_t bytes) {
  if (bytes <= 0) return "unknown";
  return bytes >= 1 << 20 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} KiB", bytes >> 10);
}

std::string pack_state(const std::filesystem::path& file) {
  const auto pack = Pack::open(file);
  if (not pack and pack.error().status == Status::not_found) return "no winners yet";
  return pack ? fmt::format("{} winners in {}", pack->size(), file.string()) : pack.error().message;
}

/// Looks without creating anything.
std::string cache_state() {
  const auto folder = cache_location();
  if (not folder) return folder.error().message;
  std::error_code error;
  if (not std::filesystem::exists(*folder, error)) return fmt::format("{} (not created yet)", folder->string());
  if (not std::filesystem::is_directory(*folder, error))
    return fmt::format("{} is a file, not a folder: set GLAIVE_CACHE to another place", folder->string());
  if (access(folder->c_str(), W_OK | X_OK) != 0) return fmt::format("{} cannot be written", folder->string());
  if (const auto trusted = check_trusted(*folder); not trusted) return trusted.error().message;
  return fmt::format("{}: {}", folder->string(), pack_state(*folder / pack_name));
}

int run() {
  const auto device = host_cpu_device();
  fmt::print("glaive    {} {}\n", glaive_version(), glaive_commit());
  fmt::print("processor {}\n", device.name);
  fmt::print("target    {} ({}-bit vectors)\n", to_string(device.target), vector_bits(device.target));
  fmt::print("CPUs      {} that this process may run on\n", device.units);
  fmt::print("caches    L1d {}, L2 {}, L3 {}\n", size_text(device.l1_bytes), size_text(device.l2_bytes),
             size_text(device.l3_bytes));
#ifdef GLAIVE_HAVE_MLIR
  fmt::print("MLIR      built in: {}; schedules for {}\n", compiler_build(), host_cpu_name());
#else
  fmt::print("MLIR      not built in, so no CPU kernel can be compiled or tuned: build with -DGLAIVE_MLIR=ON\n");
#endif
  const auto driver = found_library({"libcuda.so.1"});
  fmt::print("CUDA      {}\n", driver.empty() ? "no driver found (libcuda.so.1), so no GPU can be used"
                                              : fmt::format("driver found ({})", driver));
  const auto nvrtc = found_library({"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"});
  fmt::print("NVRTC     {}\n", nvrtc.empty() ? "not found (libnvrtc.so.13 or .12), so no GPU code can be compiled"
                                             : fmt::format("found ({})", nvrtc));
  fmt::print("families ");
  for (const Family* family : families()) fmt::print(" {}", family->name());
  fmt::print("{}\n", families().empty() ? " none" : "");
  fmt::print("cache     {}\n", cache_state());
  fmt::print("sets     ");
  for (const auto& set : builtin_sets()) fmt::print(" {}", set.name);
  fmt::print("\n");
  return success;
}

}  // namespace

void add_doctor(CLI::App& program, int& exit) {
  auto* command = program.add_subcommand("doctor", "Say what this machine has and what this build can do with it");
  command->callback([&exit] { exit = run(); });
}

}  // namespace glaive::cli
