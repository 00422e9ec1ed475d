#include "runtime/target.hpp"

#include <sched.h>

#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("targets read and print") {
  for (const char* text :
       {"cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4+avx512bf16", "cpu:x86-64-v4+amx-bf16+avx512bf16+avx512fp16",
        "cuda:sm_80", "cuda:sm_90a", "cuda:sm_103f", "cuda:compute_90", "cuda:compute_120f"}) {
    const auto target = parse_target(text);
    INFO(text);
    REQUIRE(target.has_value());
    CHECK(to_string(*target) == text);
    CHECK((target->kind == Target::Kind::cuda) == contains(text, "cuda"));
  }
}

TEST_CASE("a target's features are a sorted set") {
  const auto target = parse_target("cpu:x86-64-v4+avx512fp16+avx512bf16+avx512fp16");
  REQUIRE(target.has_value());
  CHECK(to_string(*target) == "cpu:x86-64-v4+avx512bf16+avx512fp16");
}

TEST_CASE("a bad target is refused with what is allowed") {
  struct Row {
    const char *text, *part;
  };
  for (const Row& row :
       {Row{"", "cpu: or cuda:"}, Row{"x86-64-v3", "cpu: or cuda:"}, Row{"gpu:sm_90", "cpu: or cuda:"},
        Row{"cpu:x86-64-v5", "x86-64-v2, x86-64-v3"}, Row{"cpu:", "no level"}, Row{"cpu:x86-64-v4+sse9", "avx512bf16"},
        Row{"cpu:x86-64-v4+", "no feature"}, Row{"cpu:x86-64-v4++avx512bf16", "no feature"},
        Row{"cpu:x86-64-v4,avx512bf16", "no level"}, Row{"cuda:sm_9", "sm_NN"}, Row{"cuda:sm_90b", "sm_NN"},
        Row{"cuda:sm_090", "sm_NN"}, Row{"cuda:compute90", "compute_NN"}, Row{"cuda:sm_1200", "sm_NN"},
        Row{"cuda:sm_", "sm_NN"}, Row{"cuda:compute_9", "sm_NN"}, Row{"cuda:sm_90a+x", "no features"},
        Row{"CPU:x86-64-v3", "cpu:"}}) {
    const auto target = parse_target(row.text);
    INFO(row.text);
    REQUIRE_FALSE(target.has_value());
    CHECK(target.error().status == Status::invalid_argument);
    CHECK(contains(target.error().message, row.part));
  }
}

TEST_CASE("the host's own target runs here, and so do the levels below it") {
  const Target host = host_cpu_target();
  CHECK(check_runs_here(host).has_value());
  CHECK(check_runs_here(base_target()).has_value());
  CHECK(parse_target(to_string(host)) == host);
}

TEST_CASE("the host's features agree with the kernel's list of flags") {
  const auto bytes = read_bytes("/proc/cpuinfo");
  const std::string all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t at = all.find("flags\t");
  REQUIRE(at != std::string::npos);
  const std::string flags = all.substr(at, all.find('\n', at) - at) + " ";
  const Target host = host_cpu_target();
  CHECK((host.arch >= "x86-64-v3") ==
        (contains(flags, " avx2 ") and contains(flags, " fma ") and contains(flags, " bmi2 ")));
  CHECK((host.arch == "x86-64-v4") == (contains(flags, " avx512vl ") and contains(flags, " avx512bw ")));
  const auto has = [&](const char* feature) {
    return contains(to_string(host) + "+", std::string("+") + feature + "+");
  };
  CHECK(has("avx512bf16") == contains(flags, " avx512_bf16 "));
  CHECK(has("avx512fp16") == contains(flags, " avx512_fp16 "));
}

TEST_CASE("code for another device is refused, naming what is lacking") {
  const auto gpu = check_runs_here(*parse_target("cuda:sm_90a"));
  REQUIRE_FALSE(gpu.has_value());
  CHECK(gpu.error().status == Status::wrong_device);

  // No processor is known to have this one; a file may name what this build's parser would not.
  const auto strange = check_runs_here({Target::Kind::cpu, "x86-64-v2", {"avx1024"}});
  REQUIRE_FALSE(strange.has_value());
  CHECK(strange.error().status == Status::wrong_device);
  CHECK(contains(strange.error().message, "lacks avx1024"));
  CHECK_FALSE(check_runs_here({Target::Kind::cpu, "x86-64-v9", {}}).has_value());

  for (const char* feature : {"amx-bf16", "avx512bf16", "avx512fp16"}) {
    const Target wants = {Target::Kind::cpu, "x86-64-v2", {feature}};
    const Target host = host_cpu_target();
    const bool has = std::count(host.features.begin(), host.features.end(), feature) == 1;
    const auto result = check_runs_here(wants);
    CHECK(result.has_value() == has);
    if (not result) CHECK(contains(result.error().message, feature));
  }
}

TEST_CASE("which GPU runs which code") {
  struct Row {
    const char* code;
    std::vector<int> runs, not_on;
  };
  for (const Row& row :
       {Row{"sm_80", {80, 86, 89}, {75, 90, 100, 120}}, Row{"sm_86", {86, 89}, {80, 90}}, Row{"sm_90", {90}, {89, 100}},
        Row{"sm_90a", {90}, {89, 100, 120}}, Row{"sm_100", {100, 103}, {90, 110, 120}}, Row{"sm_100a", {100}, {103}},
        Row{"sm_100f", {100, 103}, {110, 120}}, Row{"sm_120", {120, 121}, {100, 103, 130}},
        Row{"compute_90", {90, 100, 103, 120, 130}, {80, 89}}, Row{"compute_90a", {90}, {89, 100}},
        Row{"compute_120", {120, 121, 130}, {100, 103}}, Row{"compute_100f", {100, 103}, {120}}}) {
    const auto target = parse_target(std::string("cuda:") + row.code);
    REQUIRE(target.has_value());
    INFO(row.code);
    for (const int gpu : row.runs) CHECK(cuda_arch(*target).runs_on(gpu / 10, gpu % 10));
    for (const int gpu : row.not_on) CHECK_FALSE(cuda_arch(*target).runs_on(gpu / 10, gpu % 10));
  }
  CHECK(cuda_arch(*parse_target("cuda:sm_103f")).number() == 103);
  CHECK(cuda_arch(*parse_target("cuda:compute_103f")).ptx);
}

TEST_CASE("a GPU has a target of its own") {
  CHECK(to_string(gpu_target(8, 0)) == "cuda:sm_80");
  CHECK(to_string(gpu_target(9, 0)) == "cuda:sm_90a");
  CHECK(to_string(gpu_target(12, 1)) == "cuda:sm_121");
}

TEST_CASE("vector registers by level") {
  CHECK(vector_bits(*parse_target("cpu:x86-64-v2")) == 128);
  CHECK(vector_bits(*parse_target("cpu:x86-64-v3")) == 256);
  CHECK(vector_bits(*parse_target("cpu:x86-64-v4+avx512bf16")) == 512);
}

TEST_CASE("the host device has a name, cores and caches") {
  const DeviceInfo device = host_cpu_device();
  CHECK_FALSE(device.name.empty());
  CHECK(device.name.find("  ") == std::string::npos);
  CHECK(device.target == host_cpu_target());
  CHECK(device.l1_bytes >= 8 << 10);
  CHECK(device.l2_bytes >= device.l1_bytes);
  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  CHECK(device.units == CPU_COUNT(&set));
}

TEST_CASE("units follow the process's affinity") {
  CHECK(in_child([] {
          cpu_set_t set;
          sched_getaffinity(0, sizeof set, &set);
          cpu_set_t one;
          CPU_ZERO(&one);
          for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &set) and CPU_COUNT(&one) == 0) CPU_SET(cpu, &one);
          sched_setaffinity(0, sizeof one, &one);
          return host_cpu_device().units;
        }) == 1);
}

TEST_CASE("every field but the target changes a device's identity") {
  const DeviceInfo base = {
      .target = base_target(), .name = "A", .units = 2, .l1_bytes = 1, .l2_bytes = 2, .l3_bytes = 3};
  const auto differs = [&](auto&& change) {
    DeviceInfo other = base;
    change(other);
    return identity(other) != identity(base);
  };
  CHECK(differs([](DeviceInfo& d) { d.name = "B"; }));
  CHECK(differs([](DeviceInfo& d) { d.units = 3; }));
  CHECK(differs([](DeviceInfo& d) { d.l1_bytes = 9; }));
  CHECK(differs([](DeviceInfo& d) { d.l2_bytes = 9; }));
  CHECK(differs([](DeviceInfo& d) { d.l3_bytes = 9; }));
  CHECK(differs([](DeviceInfo& d) { d.memory_rate = 9; }));
  CHECK(differs([](DeviceInfo& d) { d.target = *parse_target("cuda:sm_90a"); }));
  CHECK_FALSE(differs([](DeviceInfo& d) { d.target.arch = "x86-64-v3"; }));
}
