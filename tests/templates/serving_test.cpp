// A pool served by compiled kernels, for both layouts and both dtypes of state, against each sequence on its own.
#include <bit>

#include "compiler/compiler.hpp"
#include "templates/family.hpp"
#include "tests/runtime/server.hpp"

namespace glaive::testing {
namespace {

PackEntry compiled(const char* family, const std::string& words) {
  const Instance instance{parse_problem(words).value(), host_cpu_target()};
  const Family& of = *find_family(family);
  const Config config = of.default_config(instance);
  MlirCompiler compiler;
  auto code = compiler.compile(of.instantiate(instance, config),
                               {instance.target, host_cpu_name(), CompileOptions::Effort::light});
  if (not code) FAIL(code.error().message);
  PackEntry entry;
  entry.key = kernel_key();
  entry.key.problem = to_string(instance.problem);
  entry.plan = of.plan(instance, config);
  entry.code = {std::move(*code)};
  entry.evidence = "{}";
  return entry;
}

/// The state in memory as fp32 [layer, Hkv, K, V], whatever the pool's dtype and layout.
std::vector<double> read_state(const api::Pool& pool, const api::Sequence& sequence, bool bf16, bool vk) {
  std::int32_t slot = -1;
  api::check(glaive_sequence_slot(pool.get(), sequence.id(), &slot));
  std::vector<double> out(model_layers * model_hkv * model_k * model_v, 0.0);
  if (slot < 0) return out;
  void* base = nullptr;
  std::size_t stride = 0;
  api::check(glaive_pool_plane(pool.get(), 0, &base, &stride));
  const auto* memory = static_cast<const std::byte*>(base) + static_cast<std::size_t>(slot) * stride;
  constexpr std::size_t k = model_k, v = model_v;
  for (std::size_t head = 0; head < model_layers * model_hkv; ++head)
    for (std::size_t i = 0; i < k; ++i)
      for (std::size_t j = 0; j < v; ++j) {
        const std::size_t at = head * k * v + (vk ? j * k + i : i * v + j);
        std::uint32_t bits = 0;
        if (bf16) {
          std::uint16_t half = 0;
          std::memcpy(&half, memory + 2 * at, 2);
          bits = static_cast<std::uint32_t>(half) << 16;
        } else {
          std::memcpy(&bits, memory + 4 * at, 4);
        }
        out[head * k * v + i * v + j] = static_cast<double>(std::bit_cast<float>(bits));
      }
  return out;
}

/// Relative Frobenius distance.
template <class Got>
double distance(const Got& got, const std::vector<double>& want) {
  double error = 0, norm = 1e-30;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double off = static_cast<double>(got[i]) - want[i];
    error += off * off, norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace

TEST_CASE("a pool serves prefill, decode, forks, rollbacks and snapshots in every layout and dtype of state") {
  const std::string form = GENERATE("", " vk", " state=bf16", " vk state=bf16");
  const bool bf16 = form.find("bf16") != std::string::npos, vk = form.find("vk") != std::string::npos;
  const char* family = GENERATE("chunk", "recurrent");
  // A bf16 state is rounded at each step; gates of mean -0.8 forget the older roundings.
  const double allowed = bf16 ? 2e-2 : 5e-6;

  const Folder folder;
  const std::string path = (folder / "p.pack").string();
  const PackEntry entries[] = {compiled(family, "forward H4 Hkv2 K8 V8 f32" + form),
                               compiled("step", "step H4 Hkv2 K8 V8 f32" + form)};
  REQUIRE(add_to_pack(path, entries).has_value());
  const api::Device device("cpu", 2);
  const api::Pack pack(path);
  const api::Problem problem("forward H4 Hkv2 K8 V8 f32" + form);
  const api::Shape any(api::Sequences(2), api::Tokens(3));
  const api::Plan forward(device, pack, problem, any);
  const api::Plan step(device, pack, api::Problem("step H4 Hkv2 K8 V8 f32" + form), any);
  const api::Pool pool(device, api::PoolConfig(problem, model_layers, 12));

  struct Live {
    api::Sequence sequence;
    Model model;
  };
  std::mt19937 random(7);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  std::vector<Live> live;
  for (int i = 0; i < 4; ++i) live.push_back({pool.acquire(), {}});
  api::Batch batch(pool, api::Sequences(6), api::Tokens(128));
  int decodes = 0, prefills = 0;
  for (int round = 0; round < 120; ++round) {
    Live& one = live[static_cast<std::size_t>(pick(0, std::ssize(live) - 1))];
    const std::int64_t what = pick(0, 9);
    if (what == 0 and live.size() < 6) {
      Live child{one.sequence.fork(), one.model};
      live.push_back(std::move(child));
    } else if (what == 1 and live.size() > 2) {
      one = std::move(live.back());
      live.pop_back();
    } else if (what == 2) {
      const Live& checkpoint = live[static_cast<std::size_t>(pick(0, std::ssize(live) - 1))];
      one.sequence.rollback(checkpoint.sequence);
      one.model = Model(checkpoint.model);
    } else if (what == 3) {
      const auto bytes = one.sequence.save_snapshot();
      one.sequence = api::Sequence();
      one.sequence = pool.restore_snapshot(bytes.data(), bytes.size());
    }
    const bool decode = pick(0, 1) == 0;
    std::vector<api::Entry> rows;
    std::vector<std::int64_t> lengths;
    std::int64_t total = 0;
    for (Live& each : live) {
      lengths.push_back(decode ? pick(0, 3) : pick(0, 1) == 0 ? 1 : pick(0, 20));
      rows.emplace_back(each.sequence, api::Tokens(lengths.back()));
      total += lengths.back();
    }
    if (total == 0) continue;
    ++(decode ? decodes : prefills);
    const api::Plan& plan = decode ? step : forward;
    batch.begin(rows);
    const api::Workspace workspace(device, plan.workspace_bytes(batch.shape()));
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
      Step tensors(total, random);
      std::int64_t begin = 0;
      for (std::size_t i = 0; i < live.size(); begin += lengths[i++])
        tensors.advance(live[i].model, layer, begin, begin + lengths[i]);
      batch.launch(plan, layer, tensors.args(), workspace);
      REQUIRE(distance(tensors.o, tensors.want) <= allowed);
    }
    batch.commit();
    for (std::size_t i = 0; i < live.size(); ++i) {
      live[i].model.position += lengths[i];
      REQUIRE(live[i].sequence.position().count() == live[i].model.position);
      REQUIRE(distance(read_state(pool, live[i].sequence, bf16, vk), live[i].model.state) <= allowed);
    }
  }
  CHECK(decodes > 30);
  CHECK(prefills > 30);
}

}  // namespace glaive::testing
