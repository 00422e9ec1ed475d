// Gate warpgroups, second half: A from the operands.
/// Begins d = x y^T over all channels, or d += where `add`; y begins at its first row.
template <class T, int n>
__device__ inline void begin_score(float (&d)[n], u64 x, u64 y, bool add = false) {
#pragma unroll
  for (int c = 0; c < channels; c += 16) {
    const int at = c / 64 * (panel_bytes >> 4) + c % 64 / 8;
    multiply_shared<T, 0, 0>(d, x + at, y + at, add or c > 0);
  }
}

__device__ inline void put_scores(char* tile, const Lane& lane, int half, int block, u32 pair) {
  const int t = 16 * lane.warp + 8 * half + lane.row;
  if (C == 64 or t < C) *reinterpret_cast<u32*>(tile + t * 128 + ((block ^ lane.row) << 4) + lane.column * 2) = pair;
}

/// A of weak decays: this warpgroup's columns.
template <Tier tier>
__device__ inline void weak_scores(Shared& shared, Stage& stage) {
  const int group = gate_group();
  constexpr int width = C / gate_groups;
  float d[width / 2];
  const u64 query = rows_operand(level_tile(shared, stage, levels - 1));
  const u64 key = rows_operand(level_tile(shared, stage, 0) + group * width * 128);
  begin_products();
  if constexpr (tier == halves) {
    begin_score<f16>(d, query, key);
  } else {
    const u64 asking = rows_operand(stage.q), telling = rows_operand(stage.k + group * width * 128);
    begin_score<Io>(d, asking, telling);
    begin_score<Io>(d, query, telling, true);
    begin_score<Io>(d, asking, key, true);
  }
  commit_products();
  wait_products<0>();
  hold(d);
  sync<1, gate_threads>();  // A takes the place of q~
  const Lane lane(thread_again());
#pragma unroll
  for (int n = 0; n < width / 8; ++n)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int block = group * width / 8 + n, apart = 16 * lane.warp + 8 * r + lane.row - 8 * block - lane.column;
      put_scores(stage.g, lane, r, block,
                 narrow_pair<Io>(apart >= 0 ? d[4 * n + 2 * r] : 0, apart >= 1 ? d[4 * n + 2 * r + 1] : 0));
    }
}

/// Scores between tokens of the same block of 8, of a warp's two blocks.
using Near = float[4];

/// Takes over what level b decides; b = 0: the diagonal.
template <int b>
__device__ inline void pick(Near& near, const float (&d)[C / 2]) {
  const Lane lane(thread_again());
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int s = lane.column + i % 2, apart = lane.row ^ s;
    const bool mine = b == 0 ? apart == 0 : lane.row > s and apart >= b and apart < 2 * b;
    float x = d[4 * (i / 2) + i];
#pragma unroll
    for (int w = 1; w < C / 16; ++w) x = either(lane.warp == w, d[4 * (2 * w + i / 2) + i], x);
    near[i] = either(mine, x, near[i]);
  }
}

/// q . k from the raw tiles; `meanwhile` runs beside the products.
template <class Meanwhile>
__device__ inline void diagonal(Near& near, const Stage& stage, Meanwhile meanwhile) {
  float d[C / 2];
  begin_products();
  begin_score<Io>(d, rows_operand(stage.q), rows_operand(stage.k));
  commit_products();
  meanwhile();
  wait_products<0>();
  hold(d);
#pragma unroll
  for (int i = 0; i < 4; ++i) near[i] = 0;
  pick<0>(near, d);
}

template <class T>
__device__ inline void begin_level(float (&d)[C / 2], Shared& shared, Stage& stage, int level) {
  const u64 x = rows_operand(level_tile(shared, stage, level));
  begin_products();
  begin_score<T>(d, x, x);
  commit_products();
}

template <class T, int level>
__device__ inline void near_level(Near& near, Shared& shared, Stage& stage) {
  float d[C / 2];
  begin_level<T>(d, shared, stage, level);
  wait_products<0>();
  hold(d);
  pick<1 << level>(near, d);
}

/// Blocks of 8 x 8 below the diagonal: [columns][upper, lower 8 rows], as pairs.
using Far = u32[C / 8][2];

__device__ inline void pick_far(Far& far, const float (&d)[C / 2], int level) {
  const Lane lane(thread_again());
#pragma unroll
  for (int n = 0; n < C / 8; ++n)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int block = 2 * lane.warp + r;
      const u32 pair = narrow_pair<Io>(d[4 * n + 2 * r], d[4 * n + 2 * r + 1]);
      far[n][r] = either(n < block and (block ^ n) >> (level - 3) == 1, pair, far[n][r]);
    }
}

/// A by halving: the first warpgroup makes the blocks of 8 x 8 on the diagonal, the last one the others.
template <class T>
__device__ inline void exact_scores(Near& near, Shared& shared, Stage& stage) {
  const int group = gate_group();
  Far far;
  if (group == 0) {
    near_level<T, 0>(near, shared, stage);
    near_level<T, 1>(near, shared, stage);
    near_level<T, 2>(near, shared, stage);
  }
  if (group == gate_groups - 1) {
#pragma unroll
    for (int n = 0; n < C / 8; ++n) far[n][0] = far[n][1] = 0;
#pragma unroll
    for (int level = 3; level < levels; ++level) {
      float d[C / 2];
      begin_level<T>(d, shared, stage, level);
      wait_products<0>();
      hold(d);
      pick_far(far, d, level);
    }
  }
  sync<1, gate_threads>();  // A takes the place of the last level
  const Lane lane(thread_again());
  if (group == 0)
#pragma unroll
    for (int r = 0; r < 2; ++r)
      put_scores(stage.g, lane, r, 2 * lane.warp + r, narrow_pair<Io>(near[2 * r], near[2 * r + 1]));
  if (group == gate_groups - 1)
#pragma unroll
    for (int n = 0; n < C / 8; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        if (n != 2 * lane.warp + r) put_scores(stage.g, lane, r, n, far[n][r]);
}
