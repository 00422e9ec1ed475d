// What serving costs beyond memory traffic, as ratios in one run: a decode step against an in-place stream over as many
// bytes, 16-bit tensors against fp32, a batch through the pool against its kernels alone, and snapshots against plain
// files.
//   serve my.pack [threads [layers [folder]]]      the pack has `step H4 K256 V512` in f32 and with bf16 tensors
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/glaive.hpp"

namespace api = glaive::api;

namespace {

constexpr std::int64_t heads = 4, key_dim = 256, value_dim = 512;

using Floats = std::unique_ptr<float, decltype(&std::free)>;
Floats floats(std::int64_t count, float value) {
  Floats memory(
      static_cast<float*>(std::aligned_alloc(4096, static_cast<std::size_t>((count * 4 + 4095) / 4096 * 4096))),
      &std::free);
  if (memory == nullptr) throw std::bad_alloc();
  std::fill_n(memory.get(), count, value);
  return memory;
}

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void stream(float* a, std::int64_t count,
                                                                                          float c, float b) {
  for (std::int64_t i = 0; i < count; ++i) a[i] = a[i] * c + b;
}

void stream_on_threads(float* a, std::int64_t count, int threads) {
  std::vector<std::thread> others;
  const std::int64_t share = count / threads;
  for (int t = 1; t < threads; ++t) others.emplace_back([=] { stream(a + t * share, share, 0.999f, 0.001f); });
  stream(a, share, 0.999f, 0.001f);
  for (std::thread& other : others) other.join();
}

/// Milliseconds of runs that take turns, by contender and round.
using Times = std::vector<std::vector<double>>;
Times race(int rounds, const std::vector<std::function<void()>>& contenders) {
  Times times(contenders.size());
  for (int round = -1; round < rounds; ++round)  // the first warms up
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      const auto begin = std::chrono::steady_clock::now();
      contenders[i]();
      const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
      if (round >= 0) times[i].push_back(time.count());
    }
  return times;
}

void print(const char* name, std::vector<double> values, const char* end = ", ") {
  std::sort(values.begin(), values.end());
  const auto quantile = [&](std::size_t quarters) { return values[quarters * (values.size() - 1) / 4]; };
  std::printf("\"%s\": {\"median\": %.4f, \"quartiles\": [%.4f, %.4f]}%s", name, quantile(2), quantile(1), quantile(3),
              end);
}
/// Of two that ran next to each other, round by round.
std::vector<double> ratio(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < above.size(); ++i) ratios.push_back(above[i] / below[i]);
  return ratios;
}

/// Tensors of one token for each of `sequences`, valid in any dtype.
struct Tokens {
  Floats q, k, v, g, o;
  explicit Tokens(std::int64_t sequences)
      : q(floats(sequences * heads * key_dim, 0)),
        k(floats(sequences * heads * key_dim, 0)),
        v(floats(sequences * heads * value_dim, 0)),
        g(floats(sequences * heads * key_dim, 0)),
        o(floats(sequences * heads * value_dim, 0)) {}
  api::Args args() const {
    api::Args args;
    args.q = q.get(), args.k = k.get(), args.v = v.get(), args.g = g.get(), args.o = o.get();
    return args;
  }
};

void write_plainly(const std::string& path, const void* bytes, std::size_t size) {
  const std::string temporary = path + ".tmp";
  const int file = ::open(temporary.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  for (std::size_t at = 0; at < size;) {
    const auto wrote = ::write(file, static_cast<const char*>(bytes) + at, std::min<std::size_t>(size - at, 1 << 20));
    if (wrote <= 0) throw std::runtime_error("cannot write " + temporary);
    at += static_cast<std::size_t>(wrote);
  }
  if (::fsync(file) != 0 || ::close(file) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0)
    throw std::runtime_error("cannot write " + path);
}

void read_plainly(const std::string& path, void* bytes, std::size_t size) {
  const int file = ::open(path.c_str(), O_RDONLY);
  for (std::size_t at = 0; at < size;) {
    const auto got = ::read(file, static_cast<char*>(bytes) + at, std::min<std::size_t>(size - at, 1 << 20));
    if (got <= 0) throw std::runtime_error("cannot read " + path);
    at += static_cast<std::size_t>(got);
  }
  ::close(file);
}

void steps(const api::Device& device, const api::Pack& pack) {
  constexpr std::int64_t sequences = 64, elements = sequences * heads * key_dim * value_dim;
  const Floats states = floats(elements, 1);
  const Tokens tokens(sequences);
  const api::Shape shape(api::Sequences(sequences), api::Tokens(1));
  const api::Plan f32(device, pack, api::Problem("step H4 K256 V512 f32"), shape);
  const api::Plan bf16(device, pack, api::Problem("step H4 K256 V512 bf16"), shape);
  api::Args args = tokens.args();
  args.initial_state = args.final_state = states.get();
  const api::Workspace workspace(device, std::max(f32.workspace_bytes(shape), bf16.workspace_bytes(shape)));
  const auto ms = race(15, {[&] { stream_on_threads(states.get(), elements, device.threads()); },
                            [&] { f32(shape, args, workspace); }, [&] { bf16(shape, args, workspace); }});
  std::printf("  \"step\": {\"states_mb\": %.0f, \"variant\": \"%s\", ", static_cast<double>(elements) * 4e-6,
              f32.variant().c_str());
  print("stream_ms", ms[0]), print("f32_ms", ms[1]), print("bf16_ms", ms[2]);
  print("share_of_stream", ratio(ms[0], ms[1])), print("f32_over_bf16", ratio(ms[1], ms[2]), "},\n");
}

void batches(const api::Device& device, const api::Pack& pack, std::int64_t layers) {
  constexpr std::int64_t rows = 256, layer = heads * key_dim * value_dim;
  const api::Problem problem("step H4 K256 V512 f32");
  const Floats states = floats(rows * layers * layer, 0);
  const Tokens tokens(rows);
  const api::PoolConfig config(problem, layers, rows);
  const api::Pool pool(device, config, states.get(), static_cast<std::size_t>(rows * layers * layer * 4));
  std::vector<api::Sequence> sequences;
  std::vector<api::Entry> entries;
  for (std::int64_t i = 0; i < rows; ++i) {
    sequences.push_back(pool.acquire());
    entries.emplace_back(sequences.back(), api::Tokens(1));
  }
  api::Batch batch(pool, api::Sequences(rows), api::Tokens(rows), api::Tokens(1));
  const api::Shape shape(api::Sequences(rows), api::Tokens(1));
  const api::Plan plan(device, pack, problem, shape);
  const api::Workspace workspace(device, plan.workspace_bytes(shape));
  const auto ms = race(9, {[&] {
                             for (std::int64_t l = 0; l < layers; ++l) {
                               api::Args args = tokens.args();
                               args.initial_state = args.final_state = states.get() + l * layer;
                               args.initial_state_slot_stride = args.final_state_slot_stride = layers * layer;
                               plan(shape, args, workspace);
                             }
                           },
                           [&] {
                             batch.begin(entries);
                             for (std::int64_t l = 0; l < layers; ++l) batch.launch(plan, l, tokens.args(), workspace);
                             batch.commit();
                           }});
  std::printf("  \"batch\": {\"rows\": %lld, \"layers\": %lld, ", static_cast<long long>(rows),
              static_cast<long long>(layers));
  print("kernels_ms", ms[0]), print("batch_ms", ms[1]);
  print("batch_over_kernels", ratio(ms[1], ms[0]), "},\n");
}

void snapshots(const api::Device& device, const std::string& folder) {
  constexpr std::int64_t layers = 24, elements = layers * heads * key_dim * value_dim;
  const api::Problem problem("step H4 K256 V512 f32");
  const Floats states = floats(2 * elements, 0.5f);
  const api::Pool pool(device, api::PoolConfig(problem, layers, 2), states.get(), 2 * elements * 4);
  const api::Sequence sequence = pool.acquire();
  api::Batch batch(pool, api::Sequences(1), api::Tokens(1));
  batch.begin({api::Entry(sequence, api::Tokens(1))});
  batch.replay();  // the states are there already
  batch.commit();
  const Floats copy = floats(elements, 0);
  const std::size_t bytes = elements * 4;
  const std::string plain = folder + "/glaive-plain.bin", snapshot = folder + "/glaive-snapshot.bin";
  const auto ms = race(9, {[&] { write_plainly(plain, states.get(), bytes); },
                           [&] { sequence.write_snapshot(snapshot); }, [&] { read_plainly(plain, copy.get(), bytes); },
                           [&] { const api::Sequence restored = pool.read_snapshot(snapshot); }});
  ::unlink(plain.c_str());
  ::unlink(snapshot.c_str());
  std::printf("  \"snapshot\": {\"mb\": %.0f, ", static_cast<double>(bytes) * 1e-6);
  print("plain_write_ms", ms[0]), print("write_ms", ms[1]), print("plain_read_ms", ms[2]), print("read_ms", ms[3]);
  print("write_share", ratio(ms[0], ms[1])), print("read_share", ratio(ms[2], ms[3]), "}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: serve PACK [THREADS [LAYERS [FOLDER]]]\n");
    return 2;
  }
  try {
    const api::Device device("cpu", argc > 2 ? std::atoi(argv[2]) : 0);
    const api::Pack pack(argv[1]);
    std::printf("{\n  \"threads\": %d,\n", device.threads());
    steps(device, pack);
    batches(device, pack, argc > 3 ? std::atoi(argv[3]) : 24);
    snapshots(device, argc > 4 ? argv[4] : ".");
    std::printf("}\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve: %s\n", error.what());
    return 1;
  }
}
