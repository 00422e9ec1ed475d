// kernel.inc for the driver without a GPU.
#include <time.h>

#include <cmath>
#include <limits>

#include "runtime/plan.hpp"
#include "tests/gpu/faults/kinds.hpp"
#include "tests/runtime/cuda/stub.hpp"

namespace {

using glaive::Arg;
using glaive::testing::StubLaunch;
using u64 = std::uint64_t;
using i64 = std::int64_t;

const StubLaunch* now = nullptr;
unsigned runs = 0;

#define DEVICE
#define IS(name) \
  (kind == std::integral_constant<int, glaive::test::index_of_kind(glaive::test::gpu_fault_kinds, #name)>())
#define BREAK(error, how) now->breaks = error

unsigned count() { return runs++; }
float a_nan() { return std::numeric_limits<float>::quiet_NaN(); }
double seconds() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}
void rest() {
  const timespec pause{0, 100'000};
  nanosleep(&pause, nullptr);
}

#include "tests/gpu/faults/kernel.inc"

void forward(const StubLaunch& launch) {
  now = &launch;
  const int kind = glaive::test::index_of_kind(glaive::test::gpu_fault_kinds, launch.entry);
  for (unsigned block = 0; block < launch.grid[0]; ++block)
    for (unsigned thread = 0; thread < launch.block[0]; ++thread)
      right_or_wrong(kind, launch.words.data(), block, static_cast<int>(thread));
  mistake(kind, launch.words.data(), launch.grid[0]);
}

void afterwards(const StubLaunch& launch) { launch.breaks = 700; }

}  // namespace

/// What the stub knows no kernel for it finds here.
extern "C" bool find_stub_kernel(const char* entry, glaive::testing::StubKernel* kernel) {
  const std::string_view name = entry;
  const auto kinds = std::span(glaive::test::gpu_fault_kinds);
  if (name != "afterwards" and std::ranges::find(kinds, name, &glaive::test::FaultKind::name) == kinds.end())
    return false;
  *kernel = {.words = glaive::arg_count,
             .body = name == "afterwards" ? afterwards : forward,
             .max_threads = 8,
             .microseconds = 1000};
  return true;
}
