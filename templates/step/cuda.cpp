#include "templates/cuda/cuda.hpp"

#include <algorithm>
#include <cmath>

#include "templates/step/step.hpp"

namespace glaive {
namespace {

using namespace cuda;

enum Knob : std::size_t { columns, threads, pass };

/// The numbers of step.cuh for one variant.
struct Shapes {
  std::int64_t columns, threads, pass, width, across, down, rows, pieces, vector, heads, tiles;
  bool k_first;

  Shapes(const Problem& problem, const Config& config)
      : columns(config[Knob::columns]),
        threads(config[Knob::threads]),
        pass(config[Knob::pass]),
        width(16 / size_of(problem.state)),
        k_first(problem.layout == StateLayout::kv) {
    const std::int64_t k = problem.k.count();
    const std::int64_t along = ceil_div(k_first ? columns : k, width);
    across = k_first ? along : along <= 1 ? 1 : along <= 2 ? 2 : along <= 4 ? 4 : 8;
    down = threads / across;
    rows = ceil_div(k_first ? k : columns, down);
    pieces = k_first ? 1 : ceil_div(along, across);
    vector = k_first ? k : pieces * across * width;
    heads = std::clamp<std::int64_t>(most_query_floats / (pass * vector), 1, group_of(problem));
    tiles = ceil_div(problem.v.count(), columns);
  }

  /// sizeof(Shared)
  std::int64_t shared_bytes() const {
    const std::int64_t o = k_first ? 2 * heads * (threads / 32) * columns : columns;
    return 4 * (pass * (2 * vector + columns + heads * vector) + o);
  }
  std::int64_t state_registers() const { return rows * pieces * width; }
  /// Of a thread: the state, its addresses and sums; rather too many than too few.
  std::int64_t registers() const { return state_registers() + 48; }

 private:
  static constexpr std::int64_t most_query_floats = 4096;  // q of more heads is loaded in turns
};

class StepFamily final : public KernelFamily {
 public:
  std::string_view name() const override { return "step"; }
  std::string_view summary() const override {
    return "decode on GPUs, T = 1 to 8: the state streamed once through registers, in place by slot";
  }
  Result<void> applicable(const Instance& instance) const override { return cuda::applicable(instance, Op::step); }
  std::vector<Parameter> parameters(const Instance&) const override {
    return {
        {"columns", "of V in a CTA", {8, 16, 32, 64, 128}},
        {"threads", "of a CTA", {64, 128, 256, 512}},
        {"pass", "tokens whose q, k, v and g are loaded together", {1, 2, 4, 8}},
    };
  }
  std::optional<std::string> constraint(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    const Sm sm = sm_of(instance.target);
    if (at.columns > 8 and at.columns / 2 >= instance.problem.v.count()) return "half the columns lie past V";
    if (at.across > 32) return "a row is longer than a warp";
    if (at.threads > 64 and at.down > (at.k_first ? instance.problem.k.count() : at.columns)) return "idle threads";
    if (at.state_registers() > 64) return "the state does not fit into the registers";
    if (at.pass > 1 and at.heads < group_of(instance.problem)) return "many query heads take their tokens one by one";
    if (at.shared_bytes() > sm.block_shared_bytes) return "the shared memory of an SM does not suffice";
    return {};
  }
  Config default_config(const Instance& instance) const override {
    // 32 elements a thread, as far as K and V go; measured on an H100.
    const bool wide = instance.problem.state == DType::f32;
    Config best = {8, 64, 1};
    std::int64_t off_by = -1;
    for (const int tile : {8, 16, 32, 64, 128})
      for (const int block : {64, 128, 256, 512}) {
        const Config config = {tile, block, 1};
        if (constraint(instance, config)) continue;
        const std::int64_t elements = Shapes(instance.problem, config).state_registers();
        const std::int64_t distance =
            std::abs(elements - 32) + std::abs(tile - (wide ? 64 : 32)) / 2 + std::abs(block - (wide ? 256 : 128)) / 8;
        if (off_by >= 0 and distance >= off_by) continue;
        best = config;
        off_by = distance;
      }
    return best;
  }
  double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
               const Config& config) const override {
    // The state's traffic at the rate that the bytes in flight allow: an SM needs about 32 KiB of them. Rows shorter
    // than 128 bytes cost a part of it; a launch, its latencies and every pass over tokens come on top.
    const Shapes at(instance.problem, config);
    const double rate = device.memory_rate > 0 ? 0.92 * static_cast<double>(device.memory_rate) : 1e12;
    const auto bytes = minimal_bytes(instance.problem, shape);
    const double tile = 4.0 * static_cast<double>(at.threads * at.state_registers());
    const auto ctas = static_cast<double>(shape.sequences().count() * instance.problem.kv_heads.count() * at.tiles);
    const auto residents = static_cast<double>(
        std::max<std::int64_t>(1, resident(sm_of(instance.target), at.threads, at.registers(), at.shared_bytes())));
    const double in_flight = std::min(residents, std::ceil(ctas / device.units)) * tile;
    const double share = std::min(1.0, in_flight / 32768);
    const double row =
        static_cast<double>(size_of(instance.problem.state) * (at.k_first ? at.columns : instance.problem.k.count()));
    const double short_rows = row < 128 ? 1 + 0.1 * (128 / row - 1) : 1;
    const double tail = config[threads] > 256 ? 1.15 : 1;  // few CTAs on an SM
    const double passes = std::ceil(static_cast<double>(shape.longest().count()) / config[pass]);
    return 2.5e-6 + bytes / (rate * share) * short_rows * tail * (1 + 0.05 * (passes - 1)) + 1e-6 * passes;
  }

  std::vector<Kernel> kernels(const Instance& instance, const Config& config) const override {
    const Shapes at(instance.problem, config);
    Kernel kernel;
    kernel.entry = "gla_step";
    kernel.text = text_of("step.cuh");
    kernel.constants = {{"columns", at.columns}, {"pass", at.pass}, {"heads", at.heads}};
    kernel.tiles = at.tiles;
    kernel.threads = at.threads;
    kernel.shared_bytes = at.shared_bytes();
    kernel.ctas =
        std::max<std::int64_t>(1, resident(sm_of(instance.target), at.threads, at.registers(), kernel.shared_bytes));
    return {kernel};
  }
};

}  // namespace

const Family& cuda_step_family() {
  static const StepFamily family;
  return family;
}

}  // namespace glaive
