#include <fmt/format.h>
#include <unistd.h>

#include "autotune/cache.hpp"
#include "autotune/cli/command.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/evidence.hpp"
#include "autotune/sets.hpp"
#include "autotune/winners.hpp"
#include "compiler/cuda.hpp"
#include "runtime/cuda.hpp"
#include "runtime/nvml.hpp"
#include "runtime/pack.hpp"

namespace glaive::cli {
namespace {

std::string size_text(std::int64_t bytes) {
  if (bytes <= 0) return "unknown";
  return bytes >= 1 << 20 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} KiB", bytes >> 10);
}

std::string pack_state(const std::filesystem::path& file) {
  const auto pack = open_pack(file);
  if (not pack and pack.error().status == Status::not_found) return "no winners yet";
  return pack ? fmt::format("{} in {}", counted(pack->size(), "winner", "winners"), file.string())
              : pack.error().message;
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

void print_gpus() {
  const auto driver = cuda::Driver::get();
  if (not driver) {
    fmt::print("CUDA      no GPU can be used: {}\n", driver.error().message);
    return;
  }
  const auto nvml = Nvml::open();
  const std::string version = nvml ? (*nvml)->driver_version() : "";
  fmt::print("CUDA      driver {}for {} ({})\n", version.empty() ? "" : version + " ", (*driver)->version_text(),
             (*driver)->path());
  for (int i = 0; i < (*driver)->devices(); ++i) {
    const auto gpu = describe_gpu(**driver, i);
    if (not gpu) {
      fmt::print("  cuda:{}  {}\n", i, gpu.error().message);
      continue;
    }
    fmt::print("  cuda:{}  {}: {}, {} SMs with {} of shared memory, L2 {}, memory {} GB/s\n", i, gpu->name,
               to_string(gpu->target), gpu->units, size_text(gpu->l1_bytes), size_text(gpu->l2_bytes),
               gpu->memory_rate / 1'000'000'000);
    const auto condition = nvml ? (*nvml)->condition(bus_id_of_gpu(**driver, i)) : std::unexpected(nvml.error());
    fmt::print("          {}\n", condition ? to_string(*condition) : condition.error().message);
  }
}

void print_nvrtc() {
  const auto compiler = CudaCompiler::open();
  if (not compiler) {
    fmt::print("NVRTC     no GPU kernel can be compiled: {}\n", compiler.error().message);
    return;
  }
  fmt::print("NVRTC     {} ({}) for sm_{}\n", (*compiler)->build(), (*compiler)->library(),
             fmt::join((*compiler)->architectures(), ", "));
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
  print_gpus();
  print_nvrtc();
  fmt::print("families ");
  for (const Family* family : families()) fmt::print(" {}", named(*family));
  fmt::print("{}\n", families().empty() ? " none" : "");
  fmt::print("cache     {}\n", cache_state());
  fmt::print("sets     ");
  for (const auto& set : builtin_sets()) fmt::print(" {}", set.name);
  fmt::print("\n");
  return success;
}

}  // namespace

void add_doctor(CLI::App& program, int& exit) {
  Command command(program, exit, "doctor", "Say what this machine has and what this build can do with it");
  command.run(run);
}

}  // namespace glaive::cli
