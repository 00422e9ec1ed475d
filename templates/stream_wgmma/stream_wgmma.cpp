#include "templates/stream_wgmma/stream_wgmma.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "templates/cuda/cuda.hpp"

namespace glaive {
namespace {

using namespace cuda;

enum Knob : std::size_t { C, columns, gates, stages, cluster };

/// The numbers of data.cuh for one variant.
struct Shapes {
  std::int64_t chunk, columns, gate_groups, stages, cluster, channels, levels, tiles, state_groups, threads;
  bool gates_in_tile;
  std::int64_t gate_registers, state_registers;  // of a thread
  std::int64_t strong_stages;                    // 0 where there is no room for their loop
  bool helped;                                   // state warpgroups make operands of strong chunks too

  Shapes(const Problem& problem, const Config& config, std::int64_t most_bytes)
      : chunk(config[C]),
        columns(config[Knob::columns]),
        gate_groups(config[gates]),
        stages(config[Knob::stages]),
        cluster(config[Knob::cluster]),
        channels(static_cast<std::int64_t>(
            std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(problem.k.count(), 64))))),
        levels(chunk == 64 ? 6 : 5),
        tiles(ceil_div(problem.v.count(), columns)),
        state_groups(columns / 64),
        threads(128 * (state_groups + gate_groups)),
        gates_in_tile(problem.gate != DType::f32) {
    // What a launch with one CTA gives out evenly, the gate warpgroups give back in part.
    const std::int64_t launched = std::min<std::int64_t>(248, 65536 / threads / 8 * 8);
    gate_registers = std::min<std::int64_t>(state_groups == 1 ? 128 : gate_groups == 2 ? 96 : 120, launched);
    state_registers = std::min<std::int64_t>(
        248, (launched * threads - 128 * gate_groups * gate_registers) / (128 * state_groups) / 8 * 8);
    const std::int64_t items = channels / 2 * chunk / 8;
    helped = cluster == 1 and channels <= 128 and state_registers >= channels / 2 + 88 and items % threads == 0 and
             threads % (channels / 2) == 0;
    strong_stages = stages;
    while (cluster == 1 and strong_stages > 0 and shared_bytes() > most_bytes) --strong_stages;
  }

  std::int64_t tile_bytes() const { return chunk * channels * 2; }
  std::int64_t stage_bytes() const { return (gates_in_tile ? 3 : 4) * tile_bytes() + chunk * columns * 2; }
  /// Stages, and tiles beside them: for copies of operands of weak chunks, for levels of strong ones.
  std::int64_t memory_bytes() const {
    const std::int64_t received = stage_bytes() - (gates_in_tile ? 1 : 2) * tile_bytes() + 128 * chunk;
    const std::int64_t in_last_stage = gates_in_tile ? 1 : 0;
    const std::int64_t weak =
        stages / cluster * (stage_bytes() + (cluster - 1) * received) + (2 - in_last_stage) * tile_bytes();
    const std::int64_t strong = strong_stages * stage_bytes() + (levels - in_last_stage) * tile_bytes();
    return (cluster == 1 ? std::max(weak, strong) : weak) + std::max<std::int64_t>(0, behind_tile() - total_bytes());
  }
  std::int64_t total_bytes() const { return chunk / 8 * channels * 4; }
  /// What products of 64 rows read behind a tile of fewer.
  std::int64_t behind_tile() const { return (64 - chunk) * 128; }
  /// sizeof(Shared)
  std::int64_t shared_bytes() const {
    constexpr std::int64_t barrier_bytes = 5 * 8;
    return round_up(
        memory_bytes() + total_bytes() + stages * (4 * channels + 16 + barrier_bytes) + channels / 8 + 16 + task_bytes,
        1024);
  }
};

class StreamWgmmaFamily final : public KernelFamily {
 public:
  std::string_view name() const override { return "stream_wgmma"; }
  std::string_view summary() const override {
    return "forward on Hopper: warpgroups for the state and for gates and scores, wgmma";
  }
  Result<void> applicable(const Instance& instance) const override {
    if (const auto covered = cuda::applicable(instance, Op::forward); not covered) return covered;
    const CudaArch arch = cuda_arch(instance.target);
    if (arch.number() != 90 or arch.suffix != 'a') return fail(Status::unsupported, "runs on sm_90a only");
    const Problem& problem = instance.problem;
    if (problem.io == DType::f32) return fail(Status::unsupported, "takes io in bf16 and f16 only");
    if (problem.k.count() > 256) return fail(Status::unsupported, "covers K up to 256");
    return {};
  }
  std::vector<Parameter> parameters(const Instance&) const override {
    return {
        {"C", "tokens of a chunk", {32, 64}},
        {"columns", "of V in a CTA", {64, 128}},
        {"gates", "warpgroups that make operands and scores", {1, 2}},
        {"stages", "chunks in flight", {2, 3, 4}},
        {"cluster", "CTAs of a head that share operands", {1, 2}},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    const Shapes at = shapes(instance, config);
    if (at.columns > 64 and at.columns / 2 >= instance.problem.v.count()) return "half the columns lie past V";
    if (at.channels / 2 * (at.chunk / 8) < 128 * at.gate_groups) return "a gate warpgroup has nothing to do";
    if (at.state_registers < at.channels / 2 + at.chunk / 2 + (at.channels > 128 ? 16 : at.channels / 4) + 24)
      return "the registers of a state warpgroup do not suffice";
    if (at.tiles % at.cluster != 0) return "clusters do not divide the tiles of V";
    if (at.cluster > 1 and at.stages < 2 * at.cluster) return "a CTA of a cluster wants two stages of its own";
    const std::int64_t bytes = at.shared_bytes(), most = most_bytes(instance);
    if (bytes <= most and (at.cluster > 1 or at.strong_stages >= 2)) return {};
    return std::to_string(bytes) + " bytes of shared memory, " + std::to_string(most) + " allowed";
  }
  Config default_config(const Instance& instance) const override {
    for (const int chunk : {64, 32})
      for (const int wide : {128, 64})
        for (const int together : {2, 1})
          for (const int groups : {2, 1})
            for (const int ring : {3, 4, 2})
              if (Config config = {chunk, wide, groups, ring, together};
                  (together == 1 or instance.problem.k.count() > 128) and not constraint(instance, config))
                return config;
    return {32, 64, 1, 2, 1};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    // Clocks of a chunk, by what was measured: barriers, then operands and products by element. The slower role sets
    // the pace; with few stages it waits for the other one. Then rounds of CTAs.
    const Shapes at = shapes(instance, config);
    const auto elements = static_cast<double>(at.chunk * at.channels), ring = static_cast<double>(at.stages);
    const double gates = (1000 + elements * (at.gate_groups == 2 ? 0.72 : 1.04)) / static_cast<double>(at.cluster);
    const double state = 900 + elements * 0.45;
    const double clocks =
        std::max({gates, state, (gates * static_cast<double>(at.cluster) + state + 1500) / (ring - 0.5)});
    const auto tasks = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count() * at.tiles);
    const double rounds = std::max(1.0, std::ceil(tasks / device.units));
    const double chunks = std::ceil(static_cast<double>(shape.longest().count()) / static_cast<double>(at.chunk)) *
                          static_cast<double>(group_of(instance.problem));
    const double rate = device.memory_rate > 0 ? 0.95 * static_cast<double>(device.memory_rate) : 1e12;
    return 5e-6 + std::max(rounds * chunks * clocks / 1.6e9,
                           static_cast<double>(minimal_bytes(instance.problem, shape)) / rate);
  }

  std::vector<Kernel> kernels(const Instance& instance, const Config& config) const override {
    const Shapes at = shapes(instance, config);
    Kernel kernel;
    kernel.entry = "gla_stream_wgmma";
    for (const char* part :
         {"tiles.cuh", "data.cuh", "copies.cuh", "state.cuh", "operands.cuh", "scores.cuh", "stream_wgmma.cuh"})
      kernel.text += std::string(text_of(part)) + "\n";
    kernel.helpers = std::string(text_of("hopper.cuh")) + products_text({8, at.chunk, at.channels});
    kernel.constants = {{"C", at.chunk},
                        {"columns", at.columns},
                        {"gate_groups", at.gate_groups},
                        {"stages", at.stages},
                        {"strong_stages", at.strong_stages},
                        {"helped", at.helped},
                        {"memory_bytes", at.memory_bytes()},
                        {"channels", at.channels},
                        {"gate_registers", at.gate_registers},
                        {"state_registers", at.state_registers}};
    kernel.map_chunks({Arg::q, Arg::k, Arg::v}, instance.problem.gate, at.chunk, at.channels);
    if (at.cluster > 1) kernel.maps.push_back({Arg::o, 2, true, static_cast<std::uint16_t>(at.chunk), 64});
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes();
    kernel.cluster = at.cluster;
    return {kernel};
  }

 private:
  static std::int64_t most_bytes(const Instance& instance) { return sm_of(instance.target).block_shared_bytes; }
  static Shapes shapes(const Instance& instance, const Config& config) {
    return {instance.problem, config, most_bytes(instance)};
  }
};

}  // namespace

const cuda::KernelFamily& stream_wgmma_family() {
  static const StreamWgmmaFamily family;
  return family;
}

}  // namespace glaive
