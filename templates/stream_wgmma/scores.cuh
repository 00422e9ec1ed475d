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

/// Of row t, the pair of columns `column` and the next in block `block` of 8.
__device__ inline void put_scores(char* tile, int t, int block, int column, u32 pair) {
  if (C == 64 or t < C) *reinterpret_cast<u32*>(tile + t * 128 + ((block ^ t % 8) << 4) + column * 2) = pair;
}

/// A of weak decays: this warpgroup's columns. With io in fp16 `queries` are the operands themselves. `meanwhile` runs
/// beside the products; whether it gave true to all gate warpgroups.
template <Tier tier, class Meanwhile>
__device__ inline bool weak_scores(Stage& stage, const char* queries, const char* keys, u64 resets,
                                   Meanwhile meanwhile) {
  const int group = gate_group();
  constexpr int width = C / gate_groups;
  float d[width / 2];
  const u64 query = rows_operand(queries), key = rows_operand(keys + group * width * 128);
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
  const bool mine = meanwhile();
  wait_products<0>();
  hold(d);
  const bool all = Gates::all(mine);  // A takes the place of the copies of q~
  const Lane lane(thread_again());
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = 16 * lane.warp + 8 * r + lane.row;
    const u64 so_far = resets & ~(~u64(1) << t);
    const u32 reach = so_far == 0 ? 64 : t - 63 + __clzll(so_far);  // tokens back to the last reset
#pragma unroll
    for (int n = 0; n < width / 8; ++n) {
      const int block = group * width / 8 + n;
      const u32 apart = t - 8 * block - lane.column;  // of a later token: past any reach
      put_scores(stage.g, t, block, lane.column,
                 narrow_pair<Io>(apart <= reach ? d[4 * n + 2 * r] : 0, apart - 1 <= reach ? d[4 * n + 2 * r + 1] : 0));
    }
  }
  return all;
}

// Scores of strong chunks come by mma.sync from tiles of 16 x 16, most of which no level has anything in: wgmma would
// multiply all of them for every level.

/// 16 rows of an operand, as fragments of mma.sync.
struct RowsOf16 {
  const char* at;  ///< of the first 16 bytes of this lane's row, as if it were not swizzled
  u32 piece;

  __device__ RowsOf16(const char* tile, int number) {
    const u32 lane = thread_again() % 32, row = 16 * number + lane % 16;
    at = tile + row * 128;
    piece = (lane / 16 ^ row % 8) * 16;
  }
  /// 16 channels from c on.
  __device__ Matrices operator[](int c) const {
    return load_matrices(at + c / 64 * panel_bytes + (piece ^ c % 64 / 16 * 32));
  }
};

/// x y^T of 16 rows and two blocks of 8, over all channels.
template <class T>
struct Product16 {
  float d[2][4] = {};

  __device__ explicit Product16(const RowsOf16& x) {
    sum([&](float(&to)[2][4], int c) {
      const Matrices rows = x[c];
      add(to, rows, rows);
    });
  }
  __device__ Product16(const RowsOf16& x, const RowsOf16& y) {
    sum([&](float(&to)[2][4], int c) { add(to, x[c], y[c]); });
  }

 private:
  template <class Step>
  __device__ void sum(Step step) {
    float odd[2][4] = {};  // two sums, that neither waits for the other
#pragma unroll
    for (int c = 0; c < channels; c += 32) step(d, c), step(odd, c + 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) d[i / 4][i % 4] += odd[i / 4][i % 4];
  }
  __device__ static void add(float (&to)[2][4], const Matrices& x, const Matrices& y) {
#pragma unroll
    for (int n = 0; n < 2; ++n) multiply_elements<T>(to[n], x, y.m[n], y.m[2 + n]);
  }
};

/// A by halving, in pieces of warps. Each has at most a tile of 16 tokens on the diagonal, of which it makes the blocks
/// of 8 on the diagonal (levels 0 .. 2, and q . k itself); one for the block below those (level 3); and one or two side
/// by side of a level above.
class Scores {
 public:
  __device__ Scores() : warp_(__shfl_sync(~0u, thread_again() / 32, 0) - state_threads / 32) {}

  /// q . k, from the raw tiles.
  __device__ void take_diagonal(const Stage& stage) {
    if (not is_near()) return;
    pick(Product16<Io>(RowsOf16(stage.q, warp_), RowsOf16(stage.k, warp_)), 0);
  }
  /// What this warp makes of one level.
  template <class T, Mode mode>
  __device__ void take(Shared& shared, Stage& stage, int level) {
    const char* const tile = level_tile<mode>(shared, stage, level);
    if (level < 3) {
      if (not is_near()) return;
      pick(Product16<T>(RowsOf16(tile, warp_)), 1 << level);
    } else if (level == 3) {
      if (not is_lower()) return;
      const Product16<T> product(RowsOf16(tile, lower()));
      lower_[0] = product.d[0][2], lower_[1] = product.d[0][3];
    } else {
      if (not is_far() or level != far_level()) return;
      const RowsOf16 x(tile, far_row());
#pragma unroll
      for (int n = 0; n < 2; ++n)
        if (n < far_columns()) {
          const Product16<T> product(x, RowsOf16(tile, far_column() + n));
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 2; ++j) far_[n][j][i] = product.d[j][i];
        }
    }
  }
  /// To the stage, once all have taken all levels; zeros above the diagonal.
  __device__ void put(Stage& stage) const {
    const Lane lane(thread_again());
    const auto put = [&](int tile, int half, int block, float first, float second) {
      put_scores(stage.g, 16 * tile + 8 * half + lane.row, block, lane.column, narrow_pair<Io>(first, second));
    };
    if (is_near()) {
#pragma unroll
      for (int r = 0; r < 2; ++r) put(warp_, r, 2 * warp_ + r, near_[2 * r], near_[2 * r + 1]);
#pragma unroll 1
      for (int block = 2 * warp_ + 1; block < C / 8; ++block)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          if (block > 2 * warp_ + r) put(warp_, r, block, 0, 0);
    }
    if (is_lower()) put(lower(), 1, 2 * lower(), lower_[0], lower_[1]);
    if (is_far())
#pragma unroll
      for (int n = 0; n < 2; ++n)
        if (n < far_columns())
#pragma unroll
          for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int r = 0; r < 2; ++r)
              put(far_row(), r, 2 * (far_column() + n) + j, far_[n][j][2 * r], far_[n][j][2 * r + 1]);
  }

 private:
  static constexpr int tiles = C / 16, rest = 4 * gate_groups - tiles, far_tiles = C == 64 ? 4 : 1;

  __device__ bool is_near() const { return warp_ < tiles; }
  // The last warps, which may be the first ones too.
  __device__ int lower() const { return warp_ - rest; }
  __device__ bool is_lower() const { return lower() >= 0; }
  __device__ bool is_far() const { return lower() >= 0 and lower() < far_tiles; }
  // Level 4: tile 0 of row 1, tile 2 of row 3. Level 5: tiles 0 and 1 of rows 2 and 3.
  __device__ int far_level() const { return lower() < 2 ? 4 : 5; }
  __device__ int far_row() const { return lower() < 2 ? 2 * lower() + 1 : lower(); }
  __device__ int far_column() const { return lower() < 2 ? 2 * lower() : 0; }
  __device__ int far_columns() const { return lower() < 2 ? 1 : 2; }

  /// Takes over what level b decides; b = 0: the diagonal.
  template <class T>
  __device__ void pick(const Product16<T>& product, int b) {
    const Lane lane(thread_again());
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int s = lane.column + i % 2, apart = lane.row ^ s;
      const bool mine = b == 0 ? apart == 0 : lane.row > s and apart >= b and apart < 2 * b;
      near_[i] = either(mine, product.d[i / 2][i], near_[i]);
    }
  }

  int warp_;  // of the gate warpgroups
  float near_[4] = {}, lower_[2], far_[2][2][4];
};
