#include "runtime/target.hpp"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>

#include "runtime/text.hpp"

namespace glaive {
namespace {

enum class Register : std::uint8_t { eax, ebx, ecx, edx };

/// A processor feature: where cpuid reports it, and which of XCR0's bits the operating system must have set.
struct Feature {
  std::string_view name;  // LLVM's
  std::uint32_t leaf, subleaf;
  Register where;
  int bit;
  std::uint32_t xcr0;
};

constexpr std::uint32_t no_state = 0, ymm = 0x6, zmm = 0xe6, tiles = 0x60000;
constexpr std::uint32_t extended = 0x80000001;

constexpr Feature v2_features[] = {
    {"sse3", 1, 0, Register::ecx, 0, no_state},        {"ssse3", 1, 0, Register::ecx, 9, no_state},
    {"cx16", 1, 0, Register::ecx, 13, no_state},       {"sse4.1", 1, 0, Register::ecx, 19, no_state},
    {"sse4.2", 1, 0, Register::ecx, 20, no_state},     {"popcnt", 1, 0, Register::ecx, 23, no_state},
    {"sahf", extended, 0, Register::ecx, 0, no_state},
};
constexpr Feature v3_features[] = {
    {"fma", 1, 0, Register::ecx, 12, ymm},      {"movbe", 1, 0, Register::ecx, 22, no_state},
    {"avx", 1, 0, Register::ecx, 28, ymm},      {"f16c", 1, 0, Register::ecx, 29, ymm},
    {"bmi", 7, 0, Register::ebx, 3, no_state},  {"avx2", 7, 0, Register::ebx, 5, ymm},
    {"bmi2", 7, 0, Register::ebx, 8, no_state}, {"lzcnt", extended, 0, Register::ecx, 5, no_state},
};
constexpr Feature v4_features[] = {
    {"avx512f", 7, 0, Register::ebx, 16, zmm},  {"avx512dq", 7, 0, Register::ebx, 17, zmm},
    {"avx512cd", 7, 0, Register::ebx, 28, zmm}, {"avx512bw", 7, 0, Register::ebx, 30, zmm},
    {"avx512vl", 7, 0, Register::ebx, 31, zmm},
};
/// Those beyond the levels that a family can make use of.
constexpr Feature extra_features[] = {
    {"amx-bf16", 7, 0, Register::edx, 22, tiles},
    {"avx512bf16", 7, 1, Register::eax, 5, zmm},
    {"avx512fp16", 7, 0, Register::edx, 23, zmm},
};

struct Level {
  std::string_view name;
  std::span<const Feature> adds;
  int vector_bits;
};
constexpr Level levels[] = {
    {"x86-64-v2", v2_features, 128}, {"x86-64-v3", v3_features, 256}, {"x86-64-v4", v4_features, 512}};

std::uint64_t xcr0() {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr std::uint32_t osxsave = 1u << 27;
  if (not __get_cpuid(1, &eax, &ebx, &ecx, &edx) or not(ecx & osxsave)) return 0;
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

/// Linux hands out the tile registers on request only; this asks whether a request could succeed, and requests nothing.
bool kernel_offers_tiles() {
#ifdef SYS_arch_prctl
  constexpr int arch_get_xcomp_supp = 0x1021;
  std::uint64_t offered = 0;
  return syscall(SYS_arch_prctl, arch_get_xcomp_supp, &offered) == 0 and (offered & tiles) == tiles;
#else
  return false;
#endif
}

bool processor_has(const Feature& feature) {
  std::uint32_t r[4] = {};
  if (not __get_cpuid_count(feature.leaf, feature.subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
  if (not(r[static_cast<std::size_t>(feature.where)] >> feature.bit & 1u)) return false;
  if (feature.xcr0 != 0 and (xcr0() & feature.xcr0) != feature.xcr0) return false;
  return feature.xcr0 != tiles or kernel_offers_tiles();
}

const Level* find_level(std::string_view name) {
  const auto found = std::ranges::find(levels, name, &Level::name);
  return found == std::end(levels) ? nullptr : found;
}

std::optional<CudaArch> parse_cuda_arch(std::string_view arch) {
  CudaArch found;
  if (arch.starts_with("sm_")) {
    arch.remove_prefix(3);
  } else if (arch.starts_with("compute_")) {
    arch.remove_prefix(8);
    found.ptx = true;
  } else {
    return std::nullopt;
  }
  if (arch.ends_with('a') or arch.ends_with('f')) {
    found.suffix = arch.back();
    arch.remove_suffix(1);
  }
  if (arch.size() < 2 or arch.size() > 3 or arch.front() == '0') return std::nullopt;
  for (const char c : arch) {
    if (c < '0' or c > '9') return std::nullopt;
    found.major = found.major * 10 + found.minor;
    found.minor = c - '0';
  }
  return found;
}

std::string brand_of_processor() {
  std::array<std::uint32_t, 12> words = {};
  for (std::uint32_t i = 0; i < 3; ++i)
    if (not __get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]))
      return "x86-64 processor";
  char text[sizeof words + 1] = {};
  std::memcpy(text, words.data(), sizeof words);
  std::string name;
  for (const char* c = text; *c != 0; ++c) {
    if (*c < 0x20 or *c == 0x7f) continue;
    if (*c == ' ' and (name.empty() or name.back() == ' ')) continue;
    name += *c;
  }
  while (name.ends_with(' ')) name.pop_back();
  return name.empty() ? "x86-64 processor" : name;
}

struct Affinity {
  int first = 0, count = 1;
};

Affinity affinity() {
  for (int cpus = 1024; cpus <= 1 << 18; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(cpus));
    if (set == nullptr) break;
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpus));
    const bool known = sched_getaffinity(0, size, set) == 0;
    Affinity found;
    if (known) {
      found.count = std::max(1, CPU_COUNT_S(size, set));
      while (found.first < cpus - 1 and not CPU_ISSET_S(static_cast<std::size_t>(found.first), size, set))
        ++found.first;
    }
    CPU_FREE(set);
    if (known) return found;
  }
  return {};
}

std::string first_line(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// `32K`, `1M`, `512` as bytes; 0 when it is something else.
std::int64_t size_from_sysfs(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return 0;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  return unit.starts_with('K') ? value << 10 : unit.starts_with('M') ? value << 20 : value;
}

void read_caches(int cpu, DeviceInfo& device) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache/index" + std::to_string(index) + "/";
    const std::string level = first_line(folder + "level");
    if (level.empty()) break;
    if (first_line(folder + "type") == "Instruction") continue;
    const std::int64_t bytes = size_from_sysfs(first_line(folder + "size"));
    if (level == "1") device.l1_bytes = bytes;
    if (level == "2") device.l2_bytes = bytes;
    if (level == "3") device.l3_bytes = bytes;
  }
  const auto fallback = [](std::int64_t& bytes, int name) {
    if (bytes <= 0) bytes = std::max<std::int64_t>(0, sysconf(name));
  };
  fallback(device.l1_bytes, _SC_LEVEL1_DCACHE_SIZE);
  fallback(device.l2_bytes, _SC_LEVEL2_CACHE_SIZE);
  fallback(device.l3_bytes, _SC_LEVEL3_CACHE_SIZE);
}

}  // namespace

std::string to_string(const Target& target) {
  std::string out = (target.kind == Target::Kind::cpu ? "cpu:" : "cuda:") + target.arch;
  for (const std::string& feature : target.features) out += "+" + feature;
  return out;
}

Result<Target> parse_target(std::string_view text) {
  const auto refuse = [&](const std::string& why) {
    return fail(Status::invalid_argument, "target " + in_quotes(text) + ": " + why);
  };
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (colon == std::string_view::npos or (kind != "cpu" and kind != "cuda"))
    return refuse("a target starts with cpu: or cuda:, for example cpu:x86-64-v3 or cuda:sm_90a");

  Target target;
  std::string_view rest = text.substr(colon + 1);
  const std::size_t plus = rest.find('+');
  target.arch = rest.substr(0, plus);
  if (kind == "cuda") {
    target.kind = Target::Kind::cuda;
    if (plus != std::string_view::npos) return refuse("a cuda target takes no features");
    if (not parse_cuda_arch(target.arch))
      return refuse("a cuda architecture reads sm_NN, sm_NNa or sm_NNf, and compute_NN for PTX");
    return target;
  }
  if (find_level(target.arch) == nullptr)
    return refuse(in_quotes(target.arch) + " is no level; levels are x86-64-v2, x86-64-v3, x86-64-v4");
  rest = plus == std::string_view::npos ? std::string_view() : rest.substr(plus);
  while (not rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view name = rest.substr(0, rest.find('+'));
    rest.remove_prefix(name.size());
    if (std::ranges::find(extra_features, name, &Feature::name) == std::end(extra_features))
      return refuse(in_quotes(name) + " is no feature; features are amx-bf16, avx512bf16, avx512fp16");
    target.features.emplace_back(name);
  }
  std::ranges::sort(target.features);
  const auto repeated = std::ranges::unique(target.features);
  target.features.erase(repeated.begin(), repeated.end());
  return target;
}

Target host_cpu_target() {
  Target target;
  target.arch = levels[0].name;
  for (const Level& level : levels) {
    if (not std::ranges::all_of(level.adds, processor_has)) break;
    target.arch = level.name;
  }
  for (const Feature& feature : extra_features)
    if (processor_has(feature)) target.features.emplace_back(feature.name);
  return target;
}

Result<void> check_runs_here(const Target& target) {
  if (target.kind != Target::Kind::cpu)
    return fail(Status::wrong_device, "code for " + to_string(target) + " does not run on a processor");
  std::string lacking;
  const auto need = [&](const Feature& feature) {
    if (processor_has(feature)) return;
    if (not lacking.empty()) lacking += ", ";
    lacking += feature.name;
  };
  const Level* wanted = find_level(target.arch);
  if (wanted == nullptr)
    return fail(Status::wrong_device,
                "code for " + to_string(target) + ": this runtime does not know " + in_quotes(target.arch));
  for (const Level& level : levels) {
    for (const Feature& feature : level.adds) need(feature);
    if (&level == wanted) break;
  }
  for (const std::string& name : target.features) {
    const auto known = std::ranges::find(extra_features, name, &Feature::name);
    if (known != std::end(extra_features)) {
      need(*known);
    } else {
      lacking += (lacking.empty() ? "" : ", ") + name;
    }
  }
  if (lacking.empty()) return {};
  return fail(Status::wrong_device, "code for " + to_string(target) + " does not run here: this processor (" +
                                        to_string(host_cpu_target()) + ") lacks " + lacking);
}

bool CudaArch::runs_on(int gpu_major, int gpu_minor) const {
  if (suffix == 'a') return gpu_major == major and gpu_minor == minor;
  if (ptx and suffix == 0) return gpu_major > major or (gpu_major == major and gpu_minor >= minor);
  return gpu_major == major and gpu_minor >= minor;
}

CudaArch cuda_arch(const Target& cuda_target) { return parse_cuda_arch(cuda_target.arch).value_or(CudaArch()); }

Target gpu_target(int major, int minor) {
  std::string arch = "sm_" + std::to_string(major * 10 + minor);
  if (major == 9 and minor == 0) arch += 'a';
  return {Target::Kind::cuda, std::move(arch), {}};
}

int vector_bits(const Target& cpu_target) {
  const Level* level = find_level(cpu_target.arch);
  return level == nullptr ? 128 : level->vector_bits;
}

DeviceInfo host_cpu_device() {
  DeviceInfo device;
  device.target = host_cpu_target();
  device.name = brand_of_processor();
  const Affinity cpus = affinity();
  device.units = cpus.count;
  read_caches(cpus.first, device);
  return device;
}

std::string identity(const DeviceInfo& device) {
  const bool gpu = device.target.kind == Target::Kind::cuda;
  std::string out = "name=" + device.name + "; cc=" + (gpu ? device.target.arch : "-");
  out += "; units=" + std::to_string(device.units) + "; l1=" + std::to_string(device.l1_bytes);
  out += "; l2=" + std::to_string(device.l2_bytes);
  if (not gpu) out += "; l3=" + std::to_string(device.l3_bytes);
  return out + "; memory=" + std::to_string(device.memory_rate);
}

}  // namespace glaive
