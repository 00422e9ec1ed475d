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

/// Zeros where a reset lies between the tokens.
__device__ inline void cut_at_resets(float (&d)[C / 2], const Lane& lane, u64 resets) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = 16 * lane.warp + 8 * r + lane.row;
    const u64 so_far = resets & ~(~u64(1) << t);
    const int last = so_far == 0 ? 0 : 63 - __clzll(so_far);
#pragma unroll
    for (int n = 0; n < C / 8; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& x = d[4 * n + 2 * r + j];
        if (8 * n + lane.column + j < last) x = 0;
      }
  }
}

/// A of weak decays, by the first gate warpgroup: one product of 64 columns takes the tensor cores two thirds of the
/// time of two of 32. With io in fp16 `queries` are the operands themselves. `meanwhile` runs beside the products.
template <Tier tier, class Meanwhile>
__device__ inline void weak_scores(Stage& stage, const char* queries, const char* keys, u64 resets,
                                   Meanwhile meanwhile) {
  float d[C / 2];
  const u64 query = rows_operand(queries), key = rows_operand(keys);
  begin_products();
  if constexpr (tier == halves) {
    begin_score<f16>(d, query, key);
  } else {
    const u64 asking = rows_operand(stage.q), telling = rows_operand(stage.k);
    begin_score<Io>(d, asking, telling);
    begin_score<Io>(d, query, telling, true);
    begin_score<Io>(d, asking, key, true);
  }
  commit_products();
  meanwhile();
  wait_products<0>();
  hold(d);
  FirstGates::join();  // A takes the place of the copies of q~
  const Lane lane(thread_again());
  if (resets != 0) cut_at_resets(d, lane, resets);
  const int apart = 16 * lane.warp + lane.row - lane.column;  // of this lane's first row and column
  const auto pair = [&](int n, int r) {
    const float* const x = d + 4 * n + 2 * r;
    return narrow_pair<Io>(apart >= 8 * (n - r) ? x[0] : 0, apart > 8 * (n - r) ? x[1] : 0);
  };
  if constexpr (C == 64) {
    const u32 l = thread_again() % 32;
    char* const to = stage.g + (16 * lane.warp + l % 16) * 128;
#pragma unroll
    for (int n = 0; n < C / 8; n += 2)
      store_matrices(to + ((n + l / 16 ^ l % 8) << 4), pair(n, 0), pair(n, 1), pair(n + 1, 0), pair(n + 1, 1));
  } else {  // not all warps have rows
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int n = 0; n < C / 8; ++n) put_scores(stage.g, lane, r, n, pair(n, r));
  }
}

/// Scores between tokens of the same block of 8, of a warp's two blocks.
using Near = float[4];

/// Takes over what level b decides; b = 0: the diagonal.
__device__ inline void pick(Near& near, const float (&d)[C / 2], int b) {
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
__device__ inline void take_diagonal(Near& near, const Stage& stage, Meanwhile meanwhile) {
  float d[C / 2];
  begin_products();
  begin_score<Io>(d, rows_operand(stage.q), rows_operand(stage.k));
  commit_products();
  meanwhile();
  wait_products<0>();
  hold(d);
  pick(near, d, 0);
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

/// Rows of blocks against those of the block before.
template <Mode mode>
__device__ inline void take_before(Far& far, Shared& shared, Stage& stage) {
  float d[C / 2];
  begin_products();
  begin_score<f16>(d, rows_operand(near_tile<mode>(shared, stage, 0)), rows_operand(near_tile<mode>(shared, stage, 1)));
  commit_products();
  wait_products<0>();
  hold(d);
  const Lane lane(thread_again());
#pragma unroll
  for (int n = 0; n < C / 8; ++n)
#pragma unroll
    for (int r = 0; r < 2; ++r)
      far[n][r] = either(n + 1 == 2 * lane.warp + r, narrow_pair<Io>(d[4 * n + 2 * r], d[4 * n + 2 * r + 1]), u32(0));
}

/// A by halving, in pieces: the first warpgroup makes the blocks of 8 x 8 on the diagonal, the last one the others and,
/// where those are few, the diagonal's level 2, which has pairs of its own.
struct Scores {
  Near near;
  Far far;
  bool few = false;

  __device__ Scores() {
#pragma unroll
    for (int i = 0; i < 4; ++i) near[i] = 0;
  }
  /// One level, if it is this warpgroup's.
  template <class T, Mode mode>
  __device__ void take(Shared& shared, Stage& stage, int level) {
    const int group = gate_group();
    if (level < 3 and group == (few and level == 2 ? gate_groups - 1 : 0)) {
      float d[C / 2];
      multiply_level<T, mode>(d, shared, stage, level);
      pick(near, d, 1 << level);
    }
    if (level >= 3 and group == gate_groups - 1) {
      if (level == 3)
#pragma unroll
        for (int n = 0; n < C / 8; ++n) far[n][0] = far[n][1] = 0;
      float d[C / 2];
      multiply_level<T, mode>(d, shared, stage, level);
      pick_far(far, d, level);
    }
  }
  __device__ void put(Stage& stage) const {
    const int group = gate_group();
    const Lane lane(thread_again());
    const bool lasts = gate_groups > 1 and few and ((lane.row ^ lane.column) & 4) != 0;
    if (group == (lasts ? gate_groups - 1 : 0))
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

 private:
  template <class T, Mode mode>
  __device__ static void multiply_level(float (&d)[C / 2], Shared& shared, Stage& stage, int level) {
    const u64 x = rows_operand(level_tile<mode>(shared, stage, level));
    begin_products();
    begin_score<T>(d, x, x);
    commit_products();
    wait_products<0>();
    hold(d);
  }
};
