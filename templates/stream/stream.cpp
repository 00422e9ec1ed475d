#include "templates/stream/stream.hpp"

#include <algorithm>
#include <cmath>

#include "templates/cuda/cuda.hpp"

namespace glaive {
namespace {

using namespace cuda;

enum Knob : std::size_t { C, columns, ksplit, stage };

/// The numbers of stream.cuh for one variant.
struct Shapes {
  std::int64_t chunk, columns, ksplit, channels, depth, tiles, warps, threads;
  int parts;
  bool staged;

  Shapes(const Problem& problem, const Config& config)
      : chunk(config[C]),
        columns(config[Knob::columns]),
        ksplit(config[Knob::ksplit]),
        channels(round_up(problem.k.count(), 16 * ksplit)),
        depth(channels / ksplit),
        tiles(ceil_div(problem.v.count(), columns)),
        warps(columns / 16 * ksplit),
        threads(32 * warps),
        parts(problem.io == DType::bf16 ? 1 : 2),
        staged(config[stage] == 1) {}

  /// sizeof(Shared)
  std::int64_t shared_bytes(const Problem& problem) const {
    const std::int64_t io = size_of(problem.io), gate = size_of(problem.gate), rows = staged ? chunk : 1;
    const bool raw_values = parts == 1;
    std::int64_t bytes = task_bytes + rows * (2 * (channels * io + 16) + channels * gate + 16);
    bytes += (raw_values ? 2 : 1) * chunk * (columns * io + 16);
    bytes += 2 * (raw_values ? 1 : chunk) * (columns + 8) * 2;
    bytes += 4 * chunk * (channels + 8) * 2;
    bytes += parts * chunk * (chunk + 8) * 2;
    bytes += std::max((channels >= 32 ? 2 : 1) * chunk * (chunk + 8) * 4,
                      std::max<std::int64_t>(ksplit - 1, 1) * (columns / 16) * (chunk / 8) * 512);
    bytes += (chunk / 16 + 1) * channels * 4;
    return bytes;
  }
  /// Of a thread: the state, O, fragments and addresses; rather too many than too few.
  std::int64_t registers(const Target& target) const {
    const std::int64_t more = cuda_arch(target).major >= 10 and depth == 128 ? 8 : 0;  // by what its compiler takes
    return more + std::max<std::int64_t>(128, depth / 2 + chunk / 2 + 16 + 32 * parts);
  }
};

class StreamFamily final : public KernelFamily {
 public:
  std::string_view name() const override { return "stream"; }
  std::string_view summary() const override {
    return "forward on GPUs: a CTA per head and tile of V, the state in registers, mma.sync";
  }
  Result<void> applicable(const Instance& instance) const override { return cuda::applicable(instance, Op::forward); }
  std::vector<Parameter> parameters(const Instance&) const override {
    return {
        {"C", "tokens of a chunk", {16, 32, 64}},
        {"columns", "of V in a CTA", {16, 32, 64, 128}},
        {"ksplit", "warps that share the channels of the state", {1, 2, 4}},
        {"stage", "1: the next chunk's q, k and g come in the background", {0, 1}},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    const Sm sm = sm_of(instance.target);
    if (at.columns > 16 and at.columns / 2 >= instance.problem.v.count()) return "half the columns lie past V";
    if (at.ksplit > 1 and at.channels - instance.problem.k.count() >= at.depth) return "a warp has no channels";
    if (at.depth > 128) return "the state does not fit into the registers";
    if (at.threads > 512) return "more than 512 threads";
    if (at.threads * at.registers(instance.target) > sm.registers) return "the registers of an SM do not suffice";
    const std::int64_t bytes = at.shared_bytes(instance.problem);
    if (bytes > sm.block_shared_bytes)
      return std::to_string(bytes) + " bytes of shared memory, " + std::to_string(sm.block_shared_bytes) + " allowed";
    return {};
  }
  Config default_config(const Instance& instance) const override {
    // Eight warps where V and K give them: fewer leave an SM waiting.
    for (const int chunk : {32, 16})
      for (const int staging : {1, 0})
        for (const int warps : {8, 4, 2, 1})
          for (const int wide : {128, 64, 32, 16})
            for (const int split : {1, 2, 4}) {
              Config config = {chunk, wide, split, staging};
              if (wide / 16 * split >= warps and not constraint(instance, config)) return config;
            }
    return {16, 16, 4, 0};
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    // Clocks of one chunk of one head in a CTA: gates and operands by element, products at half the rate of mma.sync,
    // six barriers; CTAs of an SM share its pipes but not their waiting. Then rounds of CTAs.
    const Shapes at(instance.problem, config);
    const Sm sm = sm_of(instance.target);
    const auto group = static_cast<double>(group_of(instance.problem));
    const auto chunk = static_cast<double>(at.chunk), channels = static_cast<double>(at.channels),
               wide = static_cast<double>(at.columns);
    const double elements = chunk * channels * (0.15 + 0.25 * group);
    const double products = at.parts == 2 ? 3 : 1;
    const double scores = 3 * chunk * chunk / 2 * channels * group;
    const double values = products * (chunk * channels * wide * (1 + group) + chunk * chunk / 2 * wide * group);
    const double work = elements + (scores + values) * 2 / 2048;
    const double waiting = (at.staged ? 1200 : 3500) * group + 4000.0 / static_cast<double>(at.warps);
    const auto ctas = static_cast<double>(std::max<std::int64_t>(
        1, resident(sm, at.threads, at.registers(instance.target), at.shared_bytes(instance.problem))));
    const auto tasks = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count() * at.tiles);
    const double together = std::min(ctas, std::ceil(tasks / device.units));
    const double rounds = std::max(1.0, std::ceil(tasks / (device.units * together)));
    const double chunks = std::ceil(static_cast<double>(shape.longest().count()) / chunk);
    return 5e-6 + rounds * chunks * std::max(work * together, work + waiting) / 1.6e9;
  }

  std::vector<Kernel> kernels(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    Kernel kernel;
    kernel.entry = "gla_stream";
    kernel.text = std::string(text_of("warp.cuh")) + std::string(text_of("stream.cuh"));
    kernel.constants = {{"C", at.chunk},       {"columns", at.columns},   {"ksplit", at.ksplit},
                        {"staged", at.staged}, {"channels", at.channels}, {"parts", at.parts}};
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes(instance.problem);
    kernel.ctas = std::max<std::int64_t>(
        1, resident(sm_of(instance.target), at.threads, at.registers(instance.target), kernel.shared_bytes));
    return {kernel};
  }
};

}  // namespace

const cuda::KernelFamily& stream_family() {
  static const StreamFamily family;
  return family;
}

}  // namespace glaive
