#pragma once
// What baselines_native.cpp, compiled for the building machine's processor, shares with baselines.cpp. No standard
// header and no inline function may stand here or there: the linker could take such a function's copy from that file
// for all others, which then need the same processor.

namespace glaive::native {

using Index = long long;

/// The tokens of one sequence and kv head, with its `group` query heads. Strides in elements.
struct HeadTask {
  const float *q, *k, *v, *g;
  float* o;
  Index q_token, q_head, k_token, v_token, g_token, o_token, o_head;
  Index tokens, group, dim_k, dim_v;
  float scale;
  float* state;  ///< rows: [K,V]; tiles: [V/W][K][W], V padded with zeros; 64-byte aligned
  float* room;   ///< tiles: token_block * K floats; rows: K floats
};

/// W: four vectors. Measured on Zen 3 with AVX2, ms at B1 H4 T2048 K=V=128: 16 11.8, 32 9.2, 64 10.1, 128 12.0.
extern const Index tile_width;
constexpr Index token_block = 64;

void rows(const HeadTask& task);
void tiles(const HeadTask& task);

/// What the compiler was allowed to use, as bits.
enum Feature : unsigned {
  avx = 1,
  avx2 = 2,
  fma = 4,
  f16c = 8,
  bmi2 = 16,
  avx512f = 32,
  avx512dq = 64,
  avx512bw = 128,
  avx512vl = 256
};
extern const unsigned features;

}  // namespace glaive::native
