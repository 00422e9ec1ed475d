#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "runtime/cpu.hpp"
#include "runtime/pack.hpp"
#include "runtime/problem.hpp"
#include "tests/catch.hpp"

namespace glaive::testing {

namespace fs = std::filesystem;

/// A folder of its own, gone at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "glaive-test-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path operator/(const char* name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(path_)) all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  fs::path path_;
};

inline std::vector<std::byte> read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

inline void write_bytes(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.flush().good());
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// What a child process running `body` exited with; a signal's number is negative.
template <class Body>
int in_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int state = 0;
  waitpid(child, &state, 0);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
}

struct Output {
  int exit = -1;
  std::string text;
};
inline Output run_command(const std::string& command) {
  Output output;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t n = 0; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.text.append(buffer, n);
  const int state = pclose(pipe);
  output.exit = WIFEXITED(state) ? WEXITSTATUS(state) : -1;
  return output;
}

inline Case random_case(std::mt19937& random) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto dtype = [&] { return static_cast<DType>(pick(0, 2)); };
  Case c;
  c.problem.op = static_cast<Op>(pick(0, 1));
  const std::int64_t kv_heads = pick(1, 64);
  c.problem.kv_heads = KvHeads(kv_heads);
  c.problem.heads = Heads(kv_heads * pick(1, 8));
  c.problem.k = KeyDim(pick(1, 512));
  c.problem.v = ValueDim(pick(1, 512));
  c.problem.io = dtype();
  c.problem.gate = dtype();
  c.problem.state = dtype();
  c.problem.gate_form = static_cast<GateForm>(pick(0, 1));
  c.problem.layout = static_cast<StateLayout>(pick(0, 1));
  if (pick(0, 1) == 0) {
    c.shape = Shape::uniform(Sequences(pick(1, 300)), Tokens(pick(0, 100000)));
  } else {
    std::vector<Tokens> lengths;
    for (std::int64_t n = pick(1, 9); n > 0; --n) lengths.push_back(Tokens(pick(0, 5000)));
    c.shape = Shape::ragged(std::move(lengths));
  }
  return c;
}

inline Target base_target() { return {Target::Kind::cpu, "x86-64-v2", {}}; }

inline CodeObject kernel_object(const char* file = TEST_KERNEL_1) {
  CodeObject code;
  code.target = base_target();
  code.bytes = read_bytes(file);
  return code;
}

/// The plan of kernel.c's `forward`.
inline Plan kernel_plan() {
  Plan plan;
  plan.variant = "test(C=1)";
  plan.target = base_target();
  Stage stage;
  stage.entry = "forward";
  stage.tasks = {1, {{Axis::sequences, 1}, {Axis::kv_heads, 1}}};
  stage.args = {Arg::q,
                Arg::k,
                Arg::v,
                Arg::g,
                Arg::o,
                Arg::state_in,
                Arg::state_out,
                Arg::cu_seqlens,
                Arg::q_token,
                Arg::q_head,
                Arg::k_token,
                Arg::k_head,
                Arg::v_token,
                Arg::v_head,
                Arg::g_token,
                Arg::g_head,
                Arg::o_token,
                Arg::o_head,
                Arg::state_in_slot,
                Arg::state_in_head,
                Arg::state_out_slot,
                Arg::state_out_head,
                Arg::longest,
                Arg::heads,
                Arg::kv_heads,
                Arg::scale,
                Arg::read_slots,
                Arg::write_slots,
                Arg::slots,
                Arg::device_status,
                Arg::tokens};
  stage.scratch_bytes = 8 * 8 * 4;
  plan.stages = {stage};
  return plan;
}

inline constexpr const char* kernel_problem = "forward H4 Hkv2 K8 V8 f32";

inline WinnerKey kernel_key() {
  WinnerKey key;
  key.device = identity(host_cpu_device());
  key.target = to_string(host_cpu_target());
  key.problem = kernel_problem;
  key.bucket = {2, 1};  // work 4..7, tokens 2..15
  key.policy = "v1 effort=normal";
  key.space = 17;
  return key;
}

inline PackEntry kernel_entry() { return {kernel_key(), kernel_plan(), {kernel_object()}, "{\"times\":[1.5]}"}; }

/// A small entry, of no use for running, that differs in its key by `number`.
inline PackEntry small_entry(int number) {
  PackEntry entry;
  entry.key = kernel_key();
  entry.key.space = static_cast<std::uint64_t>(number);
  entry.plan = kernel_plan();
  entry.plan.variant = "small(" + std::to_string(number) + ")";
  CodeObject code;
  code.target = base_target();
  code.bytes.assign(100 + static_cast<std::size_t>(number), static_cast<std::byte>(number));
  entry.code = {code};
  entry.evidence = "evidence " + std::to_string(number);
  return entry;
}

}  // namespace glaive::testing
