// Decode, T = 0 .. 8: S = Diag(exp(g_t)) S + k_t v_t^T, o_t = scale * S^T q_t, token by token.
//
// DATA     A CTA owns `columns` columns of V of one head's state for all of K, so that no sums cross CTAs. The whole
//          tile lies in registers from the first token to the last: every thread reads its pieces of 16 bytes at once,
//          and writes them, which is all that costs time.
// THREADS  [K,V]: `across` threads side by side in a row of `columns`, `down` rows at a time; o sums over rows, that is
//          over lanes, then over warps through shared memory. [V,K]: `across` threads along K, `down` rows of V at a
//          time; o sums over neighbouring lanes alone.
// SHARED   of `pass` tokens: exp(g), k and scale*q of `heads` query heads over K, v over the tile; then two buffers of
//          o, [heads, warps, columns] each.
constexpr int width = 16 / sizeof(State);  // elements of a piece
constexpr int padded = (K + width - 1) / width * width;
constexpr int along = (k_first ? columns : padded) / width;  // pieces of a row
constexpr int across = k_first ? along : along <= 1 ? 1 : along <= 2 ? 2 : along <= 4 ? 4 : 8;
constexpr int down = threads / across;
constexpr int rows = ((k_first ? K : columns) + down - 1) / down;  // of a thread
constexpr int pieces = k_first ? 1 : (along + across - 1) / across;
constexpr int span = pieces * across * width;  // elements of a row that threads hold: `padded`, or more
constexpr int vector = k_first ? K : span;     // elements of q, k and exp(g) that are kept
constexpr int warps = threads / 32;

struct Tile {
  float s[rows][pieces][width];

  __device__ static int row(int r) { return threadIdx.x / across + r * down; }
  __device__ static int column(int p) { return (p * across + threadIdx.x % across) * width; }

  /// Visits the pieces that lie in the state: body(piece, offset in the state, elements).
  template <class Body>
  __device__ void each(const Task& task, Body body) {
    const int columns_left = k_first ? V - task.column : K;
    const int rows_left = k_first ? K : V - task.column;
#pragma unroll
    for (int r = 0; r < rows; ++r)
#pragma unroll
      for (int p = 0; p < pieces; ++p)
        if (row(r) < min(rows_left, k_first ? K : columns) and column(p) < columns_left)
          body(s[r][p], i64(row(r)) * (k_first ? V : K) + column(p), min(width, columns_left - column(p)));
  }
  __device__ static bool aligned(const State* state) { return (k_first ? V : K) % width == 0 and u64(state) % 16 == 0; }

  __device__ void load(const Task& task) {
#pragma unroll
    for (int r = 0; r < rows; ++r)
#pragma unroll
      for (int p = 0; p < pieces; ++p)
#pragma unroll
        for (int i = 0; i < width; ++i) s[r][p][i] = 0;
    const State* const from = task.state_in;
    if (from == nullptr) return;
    if (aligned(from))
      each(task, [&](float(&piece)[width], i64 offset, int) {
        const uint4 raw = load_streaming(from + offset);
        if constexpr (sizeof(State) == 4) {
          piece[0] = __uint_as_float(raw.x), piece[1] = __uint_as_float(raw.y);
          piece[2] = __uint_as_float(raw.z), piece[3] = __uint_as_float(raw.w);
        } else {
          const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 pair = widen_pair<State>(words[i]);
            piece[2 * i] = pair.x, piece[2 * i + 1] = pair.y;
          }
        }
      });
    else
      each(task, [&](float(&piece)[width], i64 offset, int count) {
#pragma unroll
        for (int i = 0; i < width; ++i)
          if (i < count) piece[i] = widen(from[offset + i]);
      });
  }

  __device__ void store(const Task& task) {
    State* const to = task.state_out;
    if (to == nullptr) return;
    if (aligned(to))
      each(task, [&](float(&piece)[width], i64 offset, int) {
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if constexpr (sizeof(State) == 4)
            words[i] = __float_as_uint(piece[i]);
          else
            words[i] = narrow_pair<State>(piece[2 * i], piece[2 * i + 1]);
        store_streaming(to + offset, {words[0], words[1], words[2], words[3]});
      });
    else
      each(task, [&](float(&piece)[width], i64 offset, int count) {
#pragma unroll
        for (int i = 0; i < width; ++i)
          if (i < count) to[offset + i] = narrow<State>(piece[i]);
      });
  }
};

struct Shared {
  float decay[pass][vector], k[pass][vector], v[pass][columns];
  float q[pass][heads][vector];
  float o[k_first ? 2 : 1][k_first ? heads : 1][k_first ? warps : 1][columns];
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

/// q of query heads from `head` on, for `count` tokens from t on.
__device__ void load_queries(Shared& shared, const Task& task, int t, int count, int head) {
  const int present = min(heads, group - head);
#pragma unroll 1
  for (int i = threadIdx.x; i < count * heads * vector; i += threads) {
    const int d = i % vector, n = i / vector % heads, j = i / vector / heads;
    shared.q[j][n][d] = d < K and n < present ? widen(task.q.at(t + j, head + n)[d]) * task.scale : 0;
  }
}

__device__ void load_tokens(Shared& shared, const Task& task, int t, int count) {
#pragma unroll 1
  for (int i = threadIdx.x; i < count * vector; i += threads) {
    const int d = i % vector, j = i / vector;
    shared.k[j][d] = d < K ? widen(task.k.at(t + j)[d]) : 0;
    shared.decay[j][d] = d < K ? exp2_fast(task.log2_decay(widen(task.g.at(t + j)[d]))) : 0;
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < count * columns; i += threads) {
    const int c = i % columns, j = i / columns;
    shared.v[j][c] = task.column + c < V ? widen(task.v.at(t + j)[c]) : 0;
  }
}

/// S = Diag(exp(g)) S + k v^T for token j of the pass.
__device__ inline void update(Tile& tile, const Shared& shared, int j) {
#pragma unroll
  for (int r = 0; r < rows; ++r)
#pragma unroll
    for (int p = 0; p < pieces; ++p) {
      const int row = Tile::row(r), column = Tile::column(p);
      if constexpr (k_first) {
        const bool real = row < K;  // rows past the last one stay zero
        const float decay = real ? shared.decay[j][row] : 0, k = real ? shared.k[j][row] : 0;
#pragma unroll
        for (int i = 0; i < width; ++i) tile.s[r][p][i] = fmaf(decay, tile.s[r][p][i], k * shared.v[j][column + i]);
      } else {
        const float v = row < columns ? shared.v[j][row] : 0;
#pragma unroll
        for (int i = 0; i < width; ++i)
          tile.s[r][p][i] = fmaf(shared.decay[j][column + i], tile.s[r][p][i], shared.k[j][column + i] * v);
      }
    }
}

/// o of token t for query heads from `head` on. `buffer` alternates, so that one barrier suffices.
__device__ inline void put_out(const Tile& tile, Shared& shared, const Task& task, int t, int j, int head, int buffer) {
  const int present = min(heads, group - head), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if constexpr (k_first) {
#pragma unroll 1
    for (int n = 0; n < present; ++n) {
      float sum[width] = {};
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const float q = Tile::row(r) < K ? shared.q[j][n][Tile::row(r)] : 0;
#pragma unroll
        for (int i = 0; i < width; ++i) sum[i] = fmaf(q, tile.s[r][0][i], sum[i]);
      }
#pragma unroll
      for (int step = across; step < 32; step *= 2)
#pragma unroll
        for (int i = 0; i < width; ++i) sum[i] += __shfl_xor_sync(~0u, sum[i], step);
      if (lane < across)
#pragma unroll
        for (int i = 0; i < width; ++i) shared.o[buffer][n][warp][lane * width + i] = sum[i];
    }
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < present * columns; i += threads) {
      const int c = i % columns, n = i / columns;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < warps; ++w) sum += shared.o[buffer][n][w][c];
      if (task.column + c < V) task.o.at(t, head + n)[c] = narrow<Io>(sum);
    }
  } else {
#pragma unroll 1
    for (int n = 0; n < present; ++n)
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        float sum = 0;
#pragma unroll
        for (int p = 0; p < pieces; ++p)
#pragma unroll
          for (int i = 0; i < width; ++i) sum = fmaf(shared.q[j][n][Tile::column(p) + i], tile.s[r][p][i], sum);
#pragma unroll
        for (int step = 1; step < across; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
        const int row = Tile::row(r);
        if (lane % across == 0 and row < columns and task.column + row < V)
          task.o.at(t, head + n)[row] = narrow<Io>(sum);
      }
  }
}

extern "C" __global__ void __launch_bounds__(threads, ctas) gla_step(PARAMETERS) {
  const Words words = WORDS;
  const Task task = find_task<columns, 8>(words);
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  Tile tile;
  tile.load(task);
  if (task.length == 0) tile.store(task);
  int buffer = 0;
#pragma unroll 1
  for (int t = 0; t < task.length; t += pass) {
    const int count = min(pass, task.length - t);
    load_tokens(shared, task, t, count);
    load_queries(shared, task, t, count, 0);
    __syncthreads();
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      update(tile, shared, j);
      if (t + j == task.length - 1) tile.store(task);  // on its way while o is summed
#pragma unroll 1
      for (int head = 0; head < group; head += heads) {
        if (head > 0) {
          load_queries(shared, task, t + j, 1, head);
          __syncthreads();
        }
        put_out(tile, shared, task, t + j, j, head, buffer);
        buffer ^= 1;
        if (group > heads) __syncthreads();
      }
    }
    __syncthreads();
  }
}
