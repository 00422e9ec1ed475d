#include "templates/stream_wgmma/stream_wgmma.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "templates/cuda/cuda.hpp"

namespace glaive {
namespace {

using namespace cuda;

enum Knob : std::size_t { C, columns, gates, stages };

/// The numbers of data.cuh for one variant.
struct Shapes {
  std::int64_t chunk, columns, gate_groups, stages, channels, levels, tiles, state_groups, threads;
  std::int64_t gate_registers, state_registers;  // of a thread

  Shapes(const Problem& problem, const Config& config)
      : chunk(config[C]),
        columns(config[Knob::columns]),
        gate_groups(config[gates]),
        stages(config[Knob::stages]),
        channels(static_cast<std::int64_t>(
            std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(problem.k.count(), 64))))),
        levels(chunk == 64 ? 6 : 5),
        tiles(ceil_div(problem.v.count(), columns)),
        state_groups(columns / 64),
        threads(128 * (state_groups + gate_groups)) {
    // What a launch with one CTA gives out evenly, the gate warpgroups give back in part.
    const std::int64_t launched = std::min<std::int64_t>(248, 65536 / threads / 8 * 8);
    gate_registers = std::min<std::int64_t>(state_groups == 1  ? 128
                                            : gate_groups == 2 ? 96
                                            : channels > 128   ? 112
                                                               : 120,
                                            launched);
    state_registers = std::min<std::int64_t>(
        248, (launched * threads - 128 * gate_groups * gate_registers) / (128 * state_groups) / 8 * 8);
  }

  std::int64_t tile_bytes() const { return chunk * channels * 2; }
  /// sizeof(Shared)
  std::int64_t shared_bytes(const Problem& problem) const {
    const bool in_tile = problem.gate != DType::f32;
    const std::int64_t stage = (in_tile ? 3 : 4) * tile_bytes() + chunk * columns * 2;
    constexpr std::int64_t barrier_bytes = 28;
    return round_up(stages * (stage + 4 * channels) + (levels - (in_tile ? 1 : 0)) * tile_bytes() +
                        chunk / 8 * channels * 4 + round_up(stages * barrier_bytes, 8) + task_bytes,
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
    if (problem.io != DType::bf16) return fail(Status::unsupported, "takes io in bf16 only");
    if (problem.k.count() > 256) return fail(Status::unsupported, "covers K up to 256");
    return {};
  }
  std::vector<Parameter> parameters(const Instance&) const override {
    return {
        {"C", "tokens of a chunk", {32, 64}},
        {"columns", "of V in a CTA", {64, 128}},
        {"gates", "warpgroups that make operands and scores", {1, 2}},
        {"stages", "chunks in flight", {2, 3, 4}},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    if (at.columns > 64 and at.columns / 2 >= instance.problem.v.count()) return "half the columns lie past V";
    if (at.channels / 2 * (at.chunk / 8) < 128 * at.gate_groups) return "a gate warpgroup has nothing to do";
    if (at.state_registers < at.channels / 2 + at.chunk / 2 + (at.channels > 128 ? 32 : at.channels / 4) + 24)
      return "the registers of a state warpgroup do not suffice";
    if (const std::int64_t bytes = at.shared_bytes(instance.problem); bytes > sm_of(instance.target).block_shared_bytes)
      return std::to_string(bytes) + " bytes of shared memory, " +
             std::to_string(sm_of(instance.target).block_shared_bytes) + " allowed";
    return {};
  }
  Config default_config(const Instance& instance) const override {
    for (const int chunk : {64, 32})
      for (const int wide : {128, 64})
        for (const int groups : {2, 1})
          for (const int ring : {2, 3})
            if (Config config = {chunk, wide, groups, ring}; not constraint(instance, config)) return config;
    return {32, 64, 1, 2};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    // Clocks of a chunk, by what was measured: barriers, then gates and operands by element, which the state's
    // products hide behind; then rounds of CTAs.
    const Shapes at(instance.problem, config);
    const auto chunk = static_cast<double>(at.chunk), width = static_cast<double>(at.channels);
    const double clocks = 1500 + chunk * width * (at.gate_groups == 2 ? 0.6 : 0.75) * (at.stages == 2 ? 1 : 1.02);
    const auto tasks = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count() * at.tiles);
    const double rounds = std::max(1.0, std::ceil(tasks / device.units));
    const double chunks = std::ceil(static_cast<double>(shape.longest().count()) / chunk) *
                          static_cast<double>(group_of(instance.problem));
    const double rate = device.memory_rate > 0 ? 0.95 * static_cast<double>(device.memory_rate) : 1e12;
    return 5e-6 + std::max(rounds * chunks * clocks / 1.6e9,
                           static_cast<double>(minimal_bytes(instance.problem, shape)) / rate);
  }

  std::vector<Kernel> kernels(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    Kernel kernel;
    kernel.entry = "gla_stream_wgmma";
    for (const char* part : {"data.cuh", "copies.cuh", "state.cuh", "operands.cuh", "scores.cuh", "stream_wgmma.cuh"})
      kernel.text += std::string(text_of(part)) + "\n";
    kernel.helpers =
        std::string(text_of("hopper.cuh")) + products_text({at.chunk, at.chunk / at.gate_groups, at.channels});
    kernel.constants = {{"C", at.chunk},
                        {"columns", at.columns},
                        {"gate_groups", at.gate_groups},
                        {"stages", at.stages},
                        {"channels", at.channels},
                        {"gate_registers", at.gate_registers},
                        {"state_registers", at.state_registers}};
    const auto map = [&](Arg tensor, std::int64_t element_bytes, bool swizzled, std::int64_t box) {
      kernel.maps.push_back({tensor, static_cast<std::uint8_t>(element_bytes), swizzled,
                             static_cast<std::uint16_t>(at.chunk), static_cast<std::uint16_t>(box)});
    };
    for (const Arg tensor : {Arg::q, Arg::k, Arg::v}) map(tensor, 2, true, 64);
    if (instance.problem.gate == DType::f32)
      map(Arg::g, 4, false, at.channels);
    else
      map(Arg::g, 2, true, 64);
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes(instance.problem);
    return {kernel};
  }
};

}  // namespace

const cuda::KernelFamily& stream_wgmma_family() {
  static const StreamWgmmaFamily family;
  return family;
}

}  // namespace glaive
