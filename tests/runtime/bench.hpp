#pragma once
// A device, a pack with kernel.c in it and the tensors of a call, for tests through the C ABI.
#include <cmath>
#include <limits>

#include "runtime/glaive.h"
#include "tests/runtime/support.hpp"

namespace glaive::testing {

inline constexpr std::int64_t B = 2, T = 3, H = 4, Hkv = 2, K = 8, V = 8;
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
inline constexpr float infinite = std::numeric_limits<float>::infinity();

/// A device, a pack with kernel.c in it, a plan, and the tensors of a call of [B,T] = [2,3].
struct Bench {
  Folder folder;
  glaive_device* device = nullptr;
  glaive_pack* pack = nullptr;
  glaive_plan* plan = nullptr;
  glaive_problem problem = {};
  glaive_shape shape = {};
  glaive_args args = {};
  std::vector<float> q, k, v, g, o, in, out;
  alignas(64) std::byte workspace[4096];
  std::size_t bytes = 0;

  explicit Bench(std::vector<PackEntry> entries = {kernel_entry()}, int threads = 2) {
    REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
    REQUIRE(glaive_device_open("cpu", threads, &device) == GLAIVE_OK);
    REQUIRE(glaive_pack_open((folder / "p.pack").c_str(), &pack) == GLAIVE_OK);
    problem.size = sizeof problem;
    REQUIRE(glaive_problem_parse(kernel_problem, &problem) == GLAIVE_OK);
    shape.size = sizeof shape;
    shape.sequences = B;
    shape.tokens = T;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, std::int64_t count) {
      values.resize(static_cast<std::size_t>(count));
      for (float& x : values) x = normal(random);
    };
    fill(q, B * T * H * K), fill(k, B * T * Hkv * K), fill(v, B * T * Hkv * V), fill(g, B * T * Hkv * K);
    fill(in, B * Hkv * K * V);
    for (float& x : g) x = -std::fabs(x);
    o.assign(static_cast<std::size_t>(B * T * H * V), not_a_number);
    out.assign(in.size(), not_a_number);
    args.size = sizeof args;
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.g = g.data(), args.o = o.data();
    args.initial_state = in.data(), args.final_state = out.data();
  }
  ~Bench() {
    glaive_plan_close(plan);
    glaive_pack_close(pack);
    glaive_device_close(device);
  }
  Bench(const Bench&) = delete;

  void find() {
    const auto status = glaive_plan_find(device, pack, &problem, &shape, &plan);
    INFO(glaive_last_error());
    REQUIRE(status == GLAIVE_OK);
    REQUIRE(glaive_plan_workspace(plan, &shape, &bytes) == GLAIVE_OK);
    REQUIRE(bytes <= sizeof workspace);
  }
  glaive_status call() { return glaive_run(plan, &shape, &args, workspace, bytes); }
  /// The call with `change` made to its arguments is refused with a sentence that holds `part`, and writes nothing.
  template <class Change>
  void check_refused(const Change& change, const char* part) {
    const glaive_args good = args;
    change(args);
    INFO(part);
    CHECK(call() == GLAIVE_INVALID_ARGUMENT);
    INFO(glaive_last_error());
    CHECK(contains(glaive_last_error(), part));
    CHECK(nothing_written());
    args = good;
  }
  bool nothing_written() const {
    const auto is_nan = [](float x) { return std::isnan(x); };
    return std::all_of(o.begin(), o.end(), is_nan) and std::all_of(out.begin(), out.end(), is_nan);
  }
};

struct Expected {
  std::vector<double> o, state;
};

/// The recurrence in float64 on tensors laid out [T,H,..] with sequence b at tokens begins[b] .. begins[b+1].
inline Expected expected(const Bench& b, const std::vector<std::int64_t>& begins, double scale, bool from_state) {
  Expected e;
  e.o.resize(b.o.size());
  for (std::size_t s = 0; s + 1 < begins.size(); ++s)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t hk = h / (H / Hkv);
      std::vector<double> state(K * V, 0.0);
      for (std::int64_t i = 0; from_state and i < K * V; ++i)
        state[static_cast<std::size_t>(i)] =
            b.in[static_cast<std::size_t>((static_cast<std::int64_t>(s) * Hkv + hk) * K * V + i)];
      for (std::int64_t t = begins[s]; t < begins[s + 1]; ++t) {
        const auto at = [&](const std::vector<float>& x, std::int64_t heads, std::int64_t head, std::int64_t c) {
          return static_cast<double>(x[static_cast<std::size_t>((t * heads + head) * 8 + c)]);
        };
        for (std::int64_t j = 0; j < V; ++j) {
          double sum = 0;
          for (std::int64_t i = 0; i < K; ++i) {
            double& x = state[static_cast<std::size_t>(i * V + j)];
            x = std::exp(at(b.g, Hkv, hk, i)) * x + at(b.k, Hkv, hk, i) * at(b.v, Hkv, hk, j);
            sum += at(b.q, H, h, i) * x;
          }
          e.o[static_cast<std::size_t>((t * H + h) * V + j)] = scale * sum;
        }
      }
      if (h % (H / Hkv) == 0) e.state.insert(e.state.end(), state.begin(), state.end());
    }
  return e;
}

inline bool near(const std::vector<float>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return false;
  for (std::size_t i = 0; i < got.size(); ++i)
    if (not(std::fabs(static_cast<double>(got[i]) - want[i]) <= 1e-5 * (1 + std::fabs(want[i])))) return false;
  return true;
}

}  // namespace glaive::testing
