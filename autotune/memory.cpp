#include "autotune/memory.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace glaive {
namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

double spare_bytes() {
  std::ifstream facts("/proc/meminfo");
  for (std::string word; facts >> word;)
    if (double kibibytes = 0; word == "MemAvailable:" and facts >> kibibytes) return kibibytes * 1024;
  return static_cast<double>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

/// The number in a file of the control group; no limit when there is no such file, or when it says `max`.
double limit_in(const char* file) {
  double bytes = 0;
  return std::ifstream(file) >> bytes ? bytes : unlimited;
}

double process_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 or limit.rlim_cur == RLIM_INFINITY) return unlimited;
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

double full_size_bytes(const Case& what) {
  constexpr double padding = 1.25;
  const auto& problem = what.problem;
  const auto number = [](auto quantity) { return static_cast<double>(quantity.count()); };
  // A tensor of 16 bits has a copy in f32.
  const auto bytes = [](DType type) { return type == DType::f32 ? 4.0 : 6.0; };
  const double heads = number(problem.heads), kv_heads = number(problem.kv_heads);
  const double k = number(problem.k), v = number(problem.v), tokens = number(what.shape.total());
  const double o = tokens * heads * v, state = (number(what.shape.sequences()) + 2) * kv_heads * k * v;
  const double tensors = bytes(problem.io) * (tokens * (heads * k + kv_heads * (k + v)) + o) +
                         bytes(problem.gate) * tokens * kv_heads * k + bytes(problem.state) * 2 * state;
  // Outputs are there twice more: those of an earlier run, and the expected ones in f64.
  return padding * (tensors + (4 + 8) * (o + state));
}

double available_bytes() {
  return std::min({spare_bytes(), limit_in("/sys/fs/cgroup/memory.max"),
                   limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"), process_limit()});
}

Result<void> check_memory(const Case& what, double available) {
  const double need = full_size_bytes(what);
  if (need <= 0.9 * available) return {};
  return fail(Status::out_of_memory,
              fmt::format("needs {:.1f} GB of memory, and {:.1f} GB are available", need / 1e9, available / 1e9));
}

}  // namespace glaive
