#include "templates/segments/segments.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "templates/cuda/cuda.hpp"
#include "templates/stream/stream.hpp"
#include "templates/stream_wgmma/stream_wgmma.hpp"

namespace glaive {
namespace {

using namespace cuda;

/// The numbers of summary.cuh: a tile of 64 of V, so that few heads give many CTAs, and eight warps.
struct Shapes {
  std::int64_t chunk = 32, columns, ksplit, channels, tiles, threads, parts;

  Shapes(const Problem& problem, const Target& target)
      : columns(std::clamp<std::int64_t>(
            static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(problem.v.count()))), 16, 64)),
        ksplit(std::min<std::int64_t>(
            128 / columns,
            static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(ceil_div(problem.k.count(), 16)))))),
        channels(round_up(problem.k.count(), 16 * ksplit)),
        tiles(ceil_div(problem.v.count(), columns)),
        threads(2 * columns * ksplit),
        parts(problem.io == DType::bf16 ? 1 : 2) {
    if (shared_bytes(problem) > sm_of(target).block_shared_bytes) chunk = 16;
  }

  /// sizeof(Shared)
  std::int64_t shared_bytes(const Problem& problem) const {
    const std::int64_t io = size_of(problem.io), gate = size_of(problem.gate);
    return task_bytes + 2 * chunk * (channels * io + 16 + columns * io + 16 + channels * gate + 16) +
           2 * (parts == 1 ? 1 : chunk) * (columns + 8) * 2 + parts * chunk * (channels + 8) * 2 +
           (chunk / 8 + 2) * channels * 4;
  }
};

/// The numbers of summary_wgmma.cuh.
struct WgmmaShapes {
  std::int64_t channels, chunk, columns, tiles, threads, stages = 4;
  std::int64_t gate_bytes;

  explicit WgmmaShapes(const Problem& problem, std::int64_t most_bytes)
      : channels(static_cast<std::int64_t>(
            std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(problem.k.count(), 64))))),
        chunk(channels > 128 ? 32 : 64),
        columns(problem.v.count() > 64 ? 128 : 64),
        tiles(ceil_div(problem.v.count(), columns)),
        threads(2 * columns),
        gate_bytes(chunk * channels * (problem.gate == DType::f32 ? 4 : 2)) {
    while (stages > 2 and shared_bytes() > most_bytes) --stages;
  }
  std::int64_t run_tokens() const { return chunk * channels / 2 / threads; }
  /// sizeof(Shared)
  std::int64_t shared_bytes() const {
    return round_up(stages * (chunk * columns * 2 + chunk * channels * 2 + gate_bytes + 8) +
                        chunk / run_tokens() * channels * 4 + task_bytes,
                    1024);
  }
};

class SegmentsFamily final : public KernelFamily {
 public:
  /// `hopper`: summaries by summary_wgmma.cuh.
  SegmentsFamily(std::string_view name, std::string_view summary, const KernelFamily& forward, bool hopper)
      : name_(name), summary_(summary), forward_(forward), hopper_(hopper) {}

  std::string_view name() const override { return name_; }
  std::string_view summary() const override { return summary_; }
  Result<void> applicable(const Instance& instance) const override {
    if (auto covered = forward_.applicable(instance); not covered) return covered;
    const Shapes at(instance.problem, instance.target);
    if (hopper_) return {};
    if (at.channels / at.ksplit > 128 or at.shared_bytes(instance.problem) > sm_of(instance.target).block_shared_bytes)
      return fail(Status::unsupported, "has no room for the summary of so many channels");
    return {};
  }
  std::vector<Parameter> parameters(const Instance& instance) const override {
    std::vector<Parameter> all = {{"segment", "tokens of a segment", {128, 256, 512, 1024, 2048, 4096, 8192, 16384}}};
    for (Parameter& of_forward : forward_.parameters(instance)) all.push_back(std::move(of_forward));
    return all;
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    return forward_.constraint(instance, of_forward(config));
  }
  Config default_config(const Instance& instance) const override {
    // Twice the CTAs that `forward` would take for a segment, where it can have them; not of clusters, of which each
    // would make the same operands.
    const Config whole = forward_.default_config(instance);
    Config half = whole;
    bool clusters = false;
    const auto parameters = forward_.parameters(instance);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].name == "columns") half[i] /= 2;
      clusters = clusters or (parameters[i].name == "cluster" and whole[i] > 1);
    }
    const bool legal =
        half != whole and not clusters and parse_variant(to_string({&forward_, half}, instance), instance).has_value();
    Config config = legal ? half : whole;
    config.insert(config.begin(), 1024);
    return config;
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    // As many sequences as there are segments; before them the summaries: a state written for each, and tokens until
    // the usual decay has died, 32 of them in 2000 clocks.
    const std::int64_t segment = config[0], longest = shape.longest().count();
    const std::int64_t segments = std::max<std::int64_t>(1, ceil_div(longest, segment));
    const Shape pieces =
        Shape::uniform(Sequences(shape.sequences().count() * segments), Tokens(std::min(longest, segment)));
    const double forward = forward_.prior(instance, pieces, device, of_forward(config));
    const Shapes at(instance.problem, instance.target);
    const auto tasks = static_cast<double>(pieces.sequences().count() * instance.problem.kv_heads.count() * at.tiles);
    const double rounds = std::ceil(tasks / (2.0 * device.units));
    const double walked = static_cast<double>(std::min<std::int64_t>(segment, 700));
    const double clocks = 3000 + walked / 32 * 2000 * static_cast<double>(at.channels) / 128;
    return forward + 2e-6 + rounds * clocks / 1.6e9;
  }
  std::vector<Kernel> kernels(const Instance& instance, const Config& config) const override {
    std::vector<Kernel> stages = forward_.kernels(instance, of_forward(config));
    stages.insert(stages.begin(), hopper_ ? wgmma_summary_kernel(instance) : summary_kernel(instance));
    for (Kernel& stage : stages) stage.segment = config[0];
    stages.back().ctas = 1;  // there are few; the state's seeds take registers
    stages.back().early = cuda_arch(instance.target).number() >= 90;
    return stages;
  }

 private:
  static Config of_forward(const Config& config) { return {config.begin() + 1, config.end()}; }

  static Kernel summary_kernel(const Instance& instance) {
    const Shapes at(instance.problem, instance.target);
    Kernel kernel;
    kernel.entry = "gla_summary";
    kernel.text = std::string(text_of("warp.cuh")) + std::string(text_of("summary.cuh"));
    kernel.constants = {{"C", at.chunk},
                        {"columns", at.columns},
                        {"ksplit", at.ksplit},
                        {"channels", at.channels},
                        {"parts", at.parts}};
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes(instance.problem);
    kernel.ctas =
        std::clamp<std::int64_t>(resident(sm_of(instance.target), at.threads, 128, kernel.shared_bytes), 1, 2);
    return kernel;
  }

  static Kernel wgmma_summary_kernel(const Instance& instance) {
    const WgmmaShapes at(instance.problem, sm_of(instance.target).block_shared_bytes);
    Kernel kernel;
    kernel.entry = "gla_summary";
    kernel.text = std::string(text_of("tiles.cuh")) + std::string(text_of("summary_wgmma.cuh"));
    kernel.constants = {{"C", at.chunk},
                        {"columns", at.columns},
                        {"value_groups", at.columns / 64},
                        {"channels", at.channels},
                        {"stages", at.stages}};
    kernel.map_chunks({Arg::k, Arg::v}, instance.problem.gate, at.chunk, at.channels);
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes();
    return kernel;
  }

  std::string_view name_, summary_;
  const KernelFamily& forward_;
  bool hopper_;
};

}  // namespace

const Family& segments_family() {
  static const SegmentsFamily family(
      "segments", "forward on GPUs for few heads: segments of a sequence side by side, each by `stream`",
      stream_family(), false);
  return family;
}

const Family& segments_wgmma_family() {
  static const SegmentsFamily family("segments_wgmma",
                                     "forward on Hopper for few heads: segments of a sequence side by side, each by "
                                     "`stream_wgmma`",
                                     stream_wgmma_family(), true);
  return family;
}

}  // namespace glaive
