// Forward: S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t, chunk by chunk of C tokens.
//
// DATA     A CTA owns `columns` columns of V of one kv head, for all of K and all tokens of its sequence. The state
//          lies transposed in the registers of its warps, fp32: warp (i, j) has rows 16 i .. 16 i + 15 of V and
//          channels j depth .. (j + 1) depth - 1 of K, as accumulators of mma.sync that serve as left operands too.
// CHUNK    G is log2 of the decays. R(t) = sum of G after t, P(t) = sum up to t, within the chunk. k~ = k 2^R is the
//          key into the outgoing state. Where every channel decays by less than 2^100 over the chunk (`weak`),
//          q~ = q 2^-R asks the state as it will have decayed by the chunk's end, and A = tril(q~ k~^T). Else
//          q~ = q 2^P asks the incoming state, and A comes block by block from raw q, k and g (exact_diagonal,
//          exact_below): there no exponent is positive, none is a difference of sums, and -inf is legal.
//              O^T = S^T q~^T + V^T A^T,   S^T = S^T Diag(decay) + V^T k~    (weak: S decays before O, else after)
// NUMBERS  Operands are bf16; where `parts` is 2 (io in fp32 or fp16) a sum of two of them, hi + lo, and three
//          products. The operands of A always have two parts: with one, o would err by more than its own rounding.
// SHARED   below. Raw tiles are filled in the background while the chunk before is computed.
constexpr int halves = channels >= 32 ? 2 : 1;  // of K, summed separately for A
constexpr int score_pitch = C + 8;
constexpr float weak_limit = -100;  // of a channel's sum of G over a chunk

struct __align__(16) Shared {
  Task task;                                                    // here, for registers are scarce
  Io q[staged ? C : 1][io_pitch], k[staged ? C : 1][io_pitch];  // raw
  Gate g[staged ? C : 1][gate_pitch];
  Io v[raw_values ? 2 : 1][C][raw_value_pitch];
  bf16 value[2][raw_values ? 1 : C][value_pitch];  // operands: hi, lo
  bf16 query[2][C][operand_pitch], key[2][C][operand_pitch];
  bf16 score[parts][C][score_pitch];
  union {  // one after the other
    float half[halves][C][score_pitch];
    float partial[ksplit > 1 ? ksplit - 1 : 1][value_groups][C / 8][4][32];  // of O
  };
  float total[blocks][channels];  // of G over a block of 16 tokens
  float decay[channels];          // 2^ of the sum of G over the chunk
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

// ---- the raw tokens of one chunk, as one query head sees them
struct Chunk {
  const Task& task;
  Shared& shared;
  u32 first;  ///< its first token
  int left;   ///< tokens of the sequence from there on
  int head;   ///< of the group

  template <class T>
  __device__ float2 pair(const Rows<const T>& rows, const T* staged_row, int n, int t, int d) const {
    if constexpr (staged) return load_pair(staged_row + d);
    const T* const global = rows.at(first + t, n);
    return {t < left and d < K ? widen(global[d]) : 0, t < left and d + 1 < K ? widen(global[d + 1]) : 0};
  }
  /// Channels d and d + 1 of token t; zeros past the ends.
  __device__ float2 query(int t, int d) const { return pair(task.q, shared.q[staged ? t : 0], head, t, d); }
  __device__ float2 key(int t, int d) const { return pair(task.k, shared.k[staged ? t : 0], 0, t, d); }
  __device__ float2 query_or_key(bool is_query, int t, int d) const {
    if constexpr (staged) return load_pair((is_query ? shared.q[t] : shared.k[t]) + d);
    return is_query ? query(t, d) : key(t, d);
  }
  __device__ float2 gate(int t, int d) const {
    const float2 raw = pair(task.g, shared.g[staged ? t : 0], 0, t, d);
    const float2 decay = {task.log2_decay(raw.x), task.log2_decay(raw.y)};
    if constexpr (not logit) return decay;
    return {t < left and d < K ? decay.x : 0, t < left and d + 1 < K ? decay.y : 0};
  }
};

/// Fills the raw tiles, in the background where rows are aligned.
struct Fetch {
  const Task& task;
  Shared& shared;

  __device__ void query(u32 t, int head) const {
    if constexpr (staged)
      fetch<channels, io_pitch>(shared.q[0], task.q.at(t, head), task.q.token, task.q.aligned(), task.length - t, K);
  }
  __device__ void chunk(u32 t) const {
    const int left = task.length - t;
    if constexpr (staged) {
      fetch<channels, io_pitch>(shared.k[0], task.k.at(t), task.k.token, task.k.aligned(), left, K);
      fetch<channels, gate_pitch>(shared.g[0], task.g.at(t), task.g.token, task.g.aligned(), left, K);
    }
    fetch<columns, raw_value_pitch>(shared.v[raw_values ? t / C % 2 : 0][0], task.v.at(t), task.v.token,
                                    task.v.aligned(), left, min(columns, V - task.column));
  }
};

// ---- sums of G and operands. Work items are two channels of 16 tokens.
template <class Body>
__device__ inline void each_item(Body body) {
  for (int i = threadIdx.x; i < channels / 2 * blocks; i += threads) body(i / (channels / 2), 2 * (i % (channels / 2)));
}

__device__ void sum_gates(const Chunk& chunk) {
  each_item([&](int block, int d) {
    float2 sum = {0, 0};
#pragma unroll 8
    for (int i = 0; i < 16; ++i) {
      const float2 g = chunk.gate(16 * block + i, d);
      sum.x += g.x, sum.y += g.y;
    }
    *reinterpret_cast<float2*>(&chunk.shared.total[block][d]) = sum;
  });
}

/// Writes every channel's decay over the chunk; whether all of this thread's are weak.
__device__ bool sum_blocks(Shared& shared) {
  bool weak = true;
  for (int d = threadIdx.x; d < channels; d += threads) {
    float sum = 0;
#pragma unroll
    for (int b = 0; b < blocks; ++b) sum += shared.total[b][d];
    shared.decay[d] = exp2_fast(sum);
    weak = weak and sum > weak_limit;
  }
  return weak;
}

__device__ inline void put_operand(bf16 (&tile)[2][C][operand_pitch], int t, int d, float2 x) {
  const Split pair = split(x.x, x.y);
  *reinterpret_cast<u32*>(&tile[0][t][d]) = pair.hi;
  *reinterpret_cast<u32*>(&tile[1][t][d]) = pair.lo;
}

/// Channels d and d + 1 of 8 tokens, loaded before what comes of them is stored: the compiler moves no load over a
/// store.
struct Pairs8 {
  float2 q[8], k[8], g[8];
  __device__ Pairs8(const Chunk& chunk, int t, int d, bool keys) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      q[i] = chunk.query(t + i, d), g[i] = chunk.gate(t + i, d);
      if (keys) k[i] = chunk.key(t + i, d);
    }
  }
};

__device__ void make_operands(const Chunk& chunk, bool weak, bool keys) {
  Shared& shared = chunk.shared;
  each_item([&](int block, int d) {
    float2 after = {0, 0}, upto = {0, 0};
    for (int b = blocks - 1; b > block; --b) after.x += shared.total[b][d], after.y += shared.total[b][d + 1];
#pragma unroll 1
    for (int half = 1; half >= 0; --half) {
      const int first = 16 * block + 8 * half;
      const Pairs8 raw(chunk, first, d, keys);
#pragma unroll
      for (int i = 7; i >= 0; --i) {
        const int t = first + i;
        if (weak) put_operand(shared.query, t, d, {raw.q[i].x * exp2_fast(-after.x), raw.q[i].y * exp2_fast(-after.y)});
        if (keys) put_operand(shared.key, t, d, {raw.k[i].x * exp2_fast(after.x), raw.k[i].y * exp2_fast(after.y)});
        after.x += raw.g[i].x, after.y += raw.g[i].y;
      }
    }
    if (weak) return;
    for (int b = 0; b < block; ++b) upto.x += shared.total[b][d], upto.y += shared.total[b][d + 1];
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const int first = 16 * block + 8 * half;
      const Pairs8 raw(chunk, first, d, false);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        upto.x += raw.g[i].x, upto.y += raw.g[i].y;
        put_operand(shared.query, first + i, d, {raw.q[i].x * exp2_fast(upto.x), raw.q[i].y * exp2_fast(upto.y)});
      }
    }
  });
}

// ---- A, in blocks of 16 x 16 [t, s] over channels from .. to - 1
using Block = float[2][4];

/// d += a b, by parts
__device__ inline void multiply_split(float (&d)[4], Split a0, Split a1, Split b) {
  multiply(d, a0.hi, a1.hi, b.hi);
  multiply(d, a0.lo, a1.lo, b.hi);
  multiply(d, a0.hi, a1.hi, b.lo);
}

__device__ void weak_block(Block& score, const Shared& shared, int t, int s, int from, int to) {
#pragma unroll 2
  for (int d = from; d < to; d += 16) {
    Matrices q[2], k[2];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      q[part] = load_matrices(&shared.query[part][t + row_of_a()][d + column_of_a()]);
      k[part] = load_matrices(&shared.key[part][s + row_of_b()][d + column_of_b()]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      multiply(score[n], q[0], k[0].m[2 * n], k[0].m[2 * n + 1]);
      multiply(score[n], q[1], k[0].m[2 * n], k[0].m[2 * n + 1]);
      multiply(score[n], q[0], k[1].m[2 * n], k[1].m[2 * n + 1]);
    }
  }
}

__device__ inline float2 from_lane(float2 x, int distance) {
  return {__shfl_xor_sync(~0u, x.x, distance), __shfl_xor_sync(~0u, x.y, distance)};
}
/// By value: of two places `?:` would make an address, and put the arrays into memory.
template <class T>
__device__ inline T pick(bool first, T a, T b) {
  return first ? a : b;
}
__device__ inline void add(float2& x, float2 y) { x.x += y.x, x.y += y.y; }
__device__ inline Split decayed(float2 x, float2 exponent) {
  return split(x.x * exp2_fast(exponent.x), x.y * exp2_fast(exponent.y));
}

/// d += Diag(x0 x0^T, x1 x1^T) [16 x 8]: both halves of a block against themselves in one product
__device__ inline void square_split(float (&d)[4], Split x0, Split x1) {
  const Matrices hi = {{x0.hi, 0, 0, x1.hi}}, lo = {{x0.lo, 0, 0, x1.lo}};
  multiply(d, hi, x0.hi, x1.hi);
  multiply(d, lo, x0.hi, x1.hi);
  multiply(d, hi, x0.lo, x1.lo);
}

/// By halving: for b = 1, 2, 4, 8 the second half of every 2 b tokens against the first, from one matrix X whose rows
/// are q 2^P there and k 2^R here, P and R within b tokens; X X^T has the scores. The diagonal is q . k itself.
__device__ void exact_diagonal(Block& score, const Chunk& chunk, int t, int from, int to) {
  float level[4][4] = {}, diagonal[2] = {};
#pragma unroll 1
  for (int d = from + column(); d < to; d += 8) {
    float2 total[2], upto[2], after[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = t + row() + 8 * r;
      const float2 q = chunk.query(i, d), k = chunk.key(i, d);
      total[r] = upto[r] = chunk.gate(i, d);
      after[r] = {0, 0};
      diagonal[r] += q.x * k.x + q.y * k.y;
    }
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      Split x[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool second = l == 3 ? r == 1 : row() >> l & 1;
        x[r] = decayed(chunk.query_or_key(second, t + row() + 8 * r, d), pick(second, upto[r], after[r]));
        if (l == 3) continue;
        const float2 other = from_lane(total[r], 4 << l);
        if (second)
          add(upto[r], other);
        else
          add(after[r], other);
        add(total[r], other);
      }
      if (l < 3)
        square_split(level[l], x[0], x[1]);
      else
        multiply_split(level[l], x[0], x[1], x[0]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r)
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) diagonal[r] += __shfl_xor_sync(~0u, diagonal[r], distance);
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int r = c / 2, apart = row() ^ (column() + c % 2);
    score[r][c] =
        pick(apart == 0, diagonal[r], pick(apart < 2, level[0][c], pick(apart < 4, level[1][c], level[2][c])));
    score[1 - r][c] = level[3][c];  // above the diagonal for rows 0 - 7: masked later
  }
}

/// G of tokens t + row() + 8 r summed within the block of 16 tokens: up to each where `upto`, else after each.
__device__ inline void scan_block(float2 (&sum)[2], const Chunk& chunk, int t, int d, bool upto) {
  float2 total[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] = chunk.gate(t + row() + 8 * r, d);
    sum[r] = upto ? total[r] : float2{0, 0};
#pragma unroll
    for (int l = 0; l < 3; ++l) {
      const float2 other = from_lane(total[r], 4 << l);
      if ((row() >> l & 1) == upto) add(sum[r], other);
      add(total[r], other);
    }
  }
  if (upto)
    add(sum[1], total[0]);
  else
    add(sum[0], total[1]);
}

/// Tokens from t on against those from s on, an earlier block: q 2^(P + all between) . k 2^R, P and R within blocks.
__device__ void exact_below(Block& score, const Chunk& chunk, int t, int s, int from, int to) {
#pragma unroll 1
  for (int d = from + column(); d < to; d += 8) {
    float2 sum[2];
    Split q[2], k[2];
    scan_block(sum, chunk, t, d, true);
    for (int b = s / 16 + 1; b < t / 16; ++b)
#pragma unroll
      for (int r = 0; r < 2; ++r) add(sum[r], load_pair(&chunk.shared.total[b][d]));
#pragma unroll
    for (int r = 0; r < 2; ++r) q[r] = decayed(chunk.query(t + row() + 8 * r, d), sum[r]);
    scan_block(sum, chunk, s, d, false);
#pragma unroll
    for (int r = 0; r < 2; ++r) k[r] = decayed(chunk.key(s + row() + 8 * r, d), sum[r]);
#pragma unroll
    for (int n = 0; n < 2; ++n) multiply_split(score[n], q[0], q[1], k[n]);
  }
}

/// Block (t, s) of one half of A, in fp32.
__device__ inline void put_half(const Block& score, Shared& shared, int half, int t, int s) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int r = 0; r < 2; ++r)
      *reinterpret_cast<float2*>(&shared.half[half][t + row() + 8 * r][s + 8 * n + column()]) = {score[n][2 * r],
                                                                                                 score[n][2 * r + 1]};
}
__device__ inline int half_begin(int half) { return 16 * (channels / 16 * half / halves); }

/// Halves of A: blocks on and below the diagonal, shared among the warps. Loops apart: in one, registers run short.
__device__ void make_scores(const Chunk& chunk, bool weak) {
  constexpr int below = blocks * (blocks - 1) / 2 * halves, diagonals = blocks * halves;
  const int warp = warp_index();
#pragma unroll 1
  for (int item = warp; item < (weak ? below + diagonals : below); item += warps) {
    const int half = item % halves, strictly = weak ? 0 : 1;
    int s = item / halves, t = strictly;
    while (s > t - strictly) s -= ++t - strictly;
    Block score = {};
    if (weak)
      weak_block(score, chunk.shared, 16 * t, 16 * s, half_begin(half), half_begin(half + 1));
    else
      exact_below(score, chunk, 16 * t, 16 * s, half_begin(half), half_begin(half + 1));
    put_half(score, chunk.shared, half, 16 * t, 16 * s);
  }
  if (weak) return;
#pragma unroll 1
  for (int item = warp; item < diagonals; item += warps) {
    const int half = item % halves, t = 16 * (item / halves);
    Block score = {};
    exact_diagonal(score, chunk, t, half_begin(half), half_begin(half + 1));
    put_half(score, chunk.shared, half, t, t);
  }
}

/// A as an operand; selected, not multiplied, below the diagonal.
__device__ void finish_scores(Shared& shared) {
  for (int i = threadIdx.x; i < C * C / 2; i += threads) {
    const int t = i / (C / 2), s = 2 * (i % (C / 2));
    float2 sum = load_pair(&shared.half[0][t][s]);
    if constexpr (halves == 2) add(sum, load_pair(&shared.half[1][t][s]));
    const Split pair = split(s <= t ? sum.x : 0, s + 1 <= t ? sum.y : 0);
    *reinterpret_cast<u32*>(&shared.score[0][t][s]) = pair.hi;
    if constexpr (parts == 2) *reinterpret_cast<u32*>(&shared.score[1][t][s]) = pair.lo;
  }
}

/// O^T of 16 rows of V: tokens in tiles of 8.
using Output = float[C / 8][4];

__device__ inline void ask_state(Output& o, const State16& state, const Shared& shared) {
#pragma unroll
  for (int n = 0; n < depth / 16; ++n) {
    const Operand a = state.operand(n);
#pragma unroll
    for (int t = 0; t < blocks; ++t) {
      Operand b;
#pragma unroll
      for (int part = 0; part < parts; ++part)
        b.part[part] =
            load_matrices(&shared.query[part][16 * t + row_of_b()][State16::channel() + 16 * n + column_of_b()]);
#pragma unroll
      for (int half = 0; half < 2; ++half) multiply_parts(o[2 * t + half], a, b, half);
    }
  }
}

/// O^T += V^T A^T; warps of the same rows take turns over the tokens.
__device__ inline void ask_chunk(Output& o, const Shared& shared, int buffer) {
#pragma unroll
  for (int i = 0; i < (blocks + ksplit - 1) / ksplit; ++i) {
    const int s = i * ksplit + (ksplit > 1 ? warp_index() / value_groups : 0);
    if (ksplit > 1 and s >= blocks) continue;
    const Operand a = values(shared, buffer, 16 * s);
#pragma unroll
    for (int t = i * ksplit; t < blocks; ++t) {
      if (t < s) continue;
      Operand b;
#pragma unroll
      for (int part = 0; part < parts; ++part)
        b.part[part] = load_matrices(&shared.score[part][16 * t + row_of_b()][16 * s + column_of_b()]);
#pragma unroll
      for (int half = 0; half < 2; ++half) multiply_parts(o[2 * t + half], a, b, half);
    }
  }
}

/// Sums O over the warps of the same rows, in order, into the first of them.
__device__ inline void sum_partials(Output& o, Shared& shared) {
  if constexpr (ksplit > 1) {
    const int j = warp_index() / value_groups, i = warp_index() % value_groups, lane = lane_index();
    if (j > 0)
#pragma unroll
      for (int n = 0; n < C / 8; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) shared.partial[j - 1][i][n][c][lane] = o[n][c];
    __syncthreads();
    if (j == 0)
      for (int other = 0; other < ksplit - 1; ++other)
#pragma unroll
        for (int n = 0; n < C / 8; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c) o[n][c] += shared.partial[other][i][n][c][lane];
  }
}

__device__ inline void put_pair(Io* o, int v, int end, bool pairs, u32 pair) {
  if (pairs and v + 1 < end) {
    *reinterpret_cast<u32*>(o + v) = pair;
    return;
  }
  u16* const bits = reinterpret_cast<u16*>(o);
  if (v < end) bits[v] = u16(pair);
  if (v + 1 < end) bits[v + 1] = u16(pair >> 16);
}

__device__ void put_out(const Output& o, const Chunk& chunk) {
  if (warp_index() / value_groups > 0) return;
  const Task& task = chunk.task;
  const int end = V - task.column - State16::value();
  constexpr bool fp32 = sizeof(Io) == 4;
  const bool pairs = u64(task.o.base) % 4 == 0 and u64(task.o.token) % 2 == 0 and u64(task.o.head) % 2 == 0;
  // Of an fp32 tile a lane stores two tokens of one column, else, after a transposition, two columns of one token.
  int t = fp32 ? column() : row();
  const int v = fp32 ? row() : column();
  Io* to = task.o.at(chunk.first + t, chunk.head) + State16::value();
  const i64 token = task.o.token;
#pragma unroll
  for (int n = 0; n < C / 8; ++n, t += 8, to += 8 * token)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float first = o[n][2 * r] * task.scale, second = o[n][2 * r + 1] * task.scale;
      if constexpr (fp32) {
        if (v + 8 * r < end and t < chunk.left) to[v + 8 * r] = narrow<Io>(first);
        if (v + 8 * r < end and t + 1 < chunk.left) to[token + v + 8 * r] = narrow<Io>(second);
      } else {
        const u32 pair = transpose(narrow_pair<Io>(first, second));
        if (t < chunk.left) put_pair(to, v + 8 * r, end, pairs, pair);
      }
    }
}

extern "C" __global__ void __launch_bounds__(threads, ctas) gla_stream(PARAMETERS) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  if (threadIdx.x == 0) shared.task = find_task<columns, 0, segment>(words);
  __syncthreads();
  const Task& task = shared.task;
  const Fetch next = {task, shared};
  State16 state;
  state.clear();
  load_state<columns, segment>(words, task, 1, state);
  if (task.length > 0) {
    next.chunk(0);
    next.query(0, 0);
  }
  bool weak = true;
#pragma unroll 1
  for (u32 first = 0; first < u32(task.length); first += C) {  // u32: ends beyond a length that fills an int
#pragma unroll 1
    for (int head = 0; head < group; ++head) {
      const Chunk chunk = {task, shared, first, int(task.length - first), head};
      const bool last = head == group - 1;
      const auto fetch_next = [&] {
        if (not last) return next.query(first, head + 1);
        if (first + C >= u32(task.length)) return;
        next.chunk(first + C);
        next.query(first + C, 0);
      };
      wait_for_copies();
      __syncthreads();
      if (head == 0) {
        sum_gates(chunk);
        make_values(shared, 0);
        __syncthreads();
        weak = __syncthreads_and(sum_blocks(shared));
      }
      make_operands(chunk, weak, head == 0);
      __syncthreads();
      make_scores(chunk, weak);
      __syncthreads();
      fetch_next();
      finish_scores(shared);
      if (weak and head == 0) state.decay(shared.decay);
      Output o = {};
      ask_state(o, state, shared);
      if (not weak and last) state.decay(shared.decay);
      __syncthreads();
      const int buffer = raw_values ? first / C % 2 : 0;
      ask_chunk(o, shared, buffer);
      if (last) absorb(state, shared, buffer);
      sum_partials(o, shared);
      put_out(o, chunk);
    }
  }
  if (task.state_out != nullptr)
    state.each(task, [&](float& x, i64 offset) { task.state_out[offset] = narrow<State>(x); });
}
