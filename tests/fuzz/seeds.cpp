// Writes the seeds of the corpora: `seeds FOLDER` makes FOLDER/snapshot and FOLDER/pack.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "runtime/batch.hpp"
#include "runtime/pack.hpp"
#include "runtime/snapshot.hpp"
#include "tests/fuzz/pool.hpp"

using namespace glaive;
namespace fs = std::filesystem;

namespace {

void put(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void snapshots(const fs::path& folder) {
  fs::create_directories(folder);
  PoolConfig config = fuzz::pool_config();
  const auto save = [&](const PoolConfig& of, bool zero_state, const char* name) {
    const auto pool = StatePool::create(of).value();
    const auto reserved = pool->reserve().value();
    pool->settle(reserved, Tokens(zero_state ? 0 : 77), zero_state);
    std::vector<std::byte> bytes(snapshot_bytes(*pool, reserved.sequence).value());
    (void)save_snapshot(*pool, reserved.sequence, bytes);
    put(folder / name, bytes);
    put(folder / (std::string(name) + "-cut"), std::span(bytes).first(bytes.size() * 2 / 3));
  };
  save(config, false, "states");
  save(config, true, "zero");
  config.planes = {};
  config.layout = StateLayout::vk;
  save(config, false, "other-shape");
}

void packs(const fs::path& folder) {
  fs::create_directories(folder);
  PackEntry entry;
  entry.key.device = "name=Seed; cc=-";
  entry.key.target = "cpu:x86-64-v2";
  entry.key.problem = "forward H4 Hkv2 K8 V8 f32";
  entry.key.policy = "v1";
  entry.plan.variant = "chunk(C=16)";
  entry.plan.target = {Target::Kind::cpu, "x86-64-v2", {}};
  Stage stage;
  stage.entry = "forward";
  stage.tasks = {1, {{Axis::sequences, 1}, {Axis::kv_heads, 2}}};
  stage.args = {Arg::q, Arg::k, Arg::o, Arg::read_slots, Arg::scale};
  stage.maps = {{Arg::q, 2, true, 64, 64}, {Arg::g, 4, false, 32, 128}};
  entry.plan.stages = {stage};
  entry.plan.workspace = {{16, {{Axis::longest, 64}}}};
  CodeObject code;
  code.target = entry.plan.target;
  code.bytes.assign(64, std::byte{0x90});
  entry.code = {code};
  entry.evidence = "{}";
  PackEntry second = entry;
  second.key.space = 2;
  put(folder / "one", encode_pack({&entry, 1}));
  const PackEntry both[] = {entry, second};
  const auto bytes = encode_pack(both);
  put(folder / "two", bytes);
  put(folder / "two-cut", std::span(bytes).first(bytes.size() / 2));
  put(folder / "plan", encode(entry.plan));
  put(folder / "empty", encode_pack({}));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 2;
  snapshots(fs::path(argv[1]) / "snapshot");
  packs(fs::path(argv[1]) / "pack");
}
