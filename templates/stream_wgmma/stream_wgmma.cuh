// Forward on Hopper: S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t, chunk by chunk of C tokens.
//
// DATA     A CTA owns `columns` columns of V of one kv head, for all of K and all tokens of its sequence. Tiles of
//          tokens [C, channels] lie in shared memory as panels of 64 channels, rows of 128 bytes, swizzled for wgmma.
//          The state lies transposed in registers as accumulators of wgmma, fp32, which serve as left operands too:
//          state warpgroup w has columns 64 w .. 64 w + 63 of V.
// ROLES    The copy engine brings chunks as boxes into a ring of stages, asked by one thread of the state warpgroups;
// where
//          the tensors allow no maps, all threads of these copy. State warpgroups hold the state and make o. Gate
//          warpgroups turn q and k into operands, in place, and make the scores A. Three barriers a stage join them:
//              copies --full--> gates --ready--> state --empty--> copies
// CHUNK    G is log2 of the decays. R(t) = sum of G after t, P(t) = sum up to t, in the chunk. k~ = k 2^R is the key
//          into the outgoing state. Where decays are weak, q~ = q 2^-R asks the state as it will have decayed by the
//          chunk's end, and A = tril(q~ k~^T) from copies in fp16. Else q~ = q 2^P asks the incoming state, and A comes
//          by halving: for b = 1, 2, 4 .. C / 2 the second half of every 2 b tokens against the first, from one matrix
//          X in fp16 whose rows are q times the decay since the middle there and k times the decay up to the middle
//          here; X X^T has the scores. The diagonal is q . k itself. No factor exceeds 1, so that -inf is legal.
//              O^T = S^T q~^T + V^T A^T,   S^T = S^T Diag(decay) + V^T k~    (weak: S decays before O, else after)
// NUMBERS  S and k~ are kept at `balance` times their values and q~ at 1 / balance, the range of fp16 in mind.
constexpr int panels = channels / 64, panel_bytes = 128 * C, tile_bytes = panels * panel_bytes;
constexpr int state_groups = columns / 64, state_threads = 128 * state_groups, gate_threads = 128 * gate_groups;
constexpr int blocks = C / 8, levels = C == 64 ? 6 : 5;
constexpr bool gates_in_tile = sizeof(Gate) == 2;  // then the last level takes the place of the raw gates
constexpr int gate_bytes = gates_in_tile ? tile_bytes : 4 * C * channels;
constexpr int pairs = channels / 2;
constexpr int items = pairs * blocks / gate_threads;  // of a gate thread: 2 channels, 8 tokens each
constexpr float balance = 64, log2_balance = 6;
constexpr float weak_limit = -8 * log2_e, split_limit = -72 * log2_e;  // of a channel's sum of G over a chunk
static_assert(threads == state_threads + gate_threads, "a thread for every lane");
static_assert(items > 0 and gate_threads % pairs == 0 and pairs % 32 == 0, "a thread keeps to its channels");

struct Stage {  // raw, then operands
  char q[tile_bytes], k[tile_bytes];
  char g[gate_bytes];                  // then the last level, then A: C rows of 128 bytes
  char v[state_groups * panel_bytes];  // a panel for each state warpgroup; o leaves through it
};
struct __align__(1024) Shared {  // tiles first: of chunks shorter than 64, products read as much again behind them
  char level[levels - (gates_in_tile ? 1 : 0)][tile_bytes];
  Stage stage[stages];
  float total[blocks][channels];  // of G over 8 tokens
  float decay[stages][channels];  // 2^ of the sum of G over the chunk
  Barrier full[stages], ready[stages], empty[stages];
  u32 weak[stages];
  Task task;
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

/// A place in the ring of stages, and the parity of its barriers' phase.
struct Ring {
  int stage = 0;
  u32 parity = 0;

  __device__ void advance() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

/// A thread of a warpgroup. Of an accumulator tile, 16 rows a warp, it has rows `row` and `row + 8`, and of every 8
/// columns `column` and `column + 1`.
struct Lane {
  int warp, row, column;
  __device__ explicit Lane(u32 thread) : warp(thread / 32 % 4), row(thread % 32 / 4), column(thread % 4 * 2) {}
};

/// By value: of two places `?:` would make an address, and put the arrays into memory.
template <class T>
__device__ inline T either(bool first, T a, T b) {
  return first ? a : b;
}
__device__ inline float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
__device__ inline float2 operator*(float2 a, float2 b) { return {a.x * b.x, a.y * b.y}; }
__device__ inline float2 exp2_fast(float2 a) { return {exp2_fast(a.x), exp2_fast(a.y)}; }

struct Maps {  // in the order of the plan
  TensorMap q, k, v, g;
};

// ---- copies into a stage, by the threads of the state warpgroups
/// Rows first .. first + C - 1 of all tensors, those past the sequence's end too: gate warpgroups clear them.
__device__ inline void fetch_boxes(Shared& shared, const Maps& maps, int stage, u32 first) {
  const Task& task = shared.task;
  Stage& to = shared.stage[stage];
  Barrier& full = shared.full[stage];
  const int token = int(task.first + first), head = task.head;
  arrive_expecting(full, 2 * tile_bytes + gate_bytes + state_groups * panel_bytes);
#pragma unroll
  for (int p = 0; p < panels; ++p) {
    if (gates_in_tile) copy_box(to.g + p * panel_bytes, maps.g, 64 * p, head, token, full);
    copy_box(to.q + p * panel_bytes, maps.q, 64 * p, head * group, token, full);
    copy_box(to.k + p * panel_bytes, maps.k, 64 * p, head, token, full);
  }
  if (not gates_in_tile) copy_box(to.g, maps.g, 0, head, token, full);
#pragma unroll
  for (int w = 0; w < state_groups; ++w)
    copy_box(to.v + w * panel_bytes, maps.v, task.column + 64 * w, head, token, full);
}

/// Rows first .. first + C - 1 into a tile, zeros past the ends; whether they come in the background.
template <class T, int padded, bool swizzled>
__device__ inline bool fetch(char* tile, const Rows<const T>& rows, i64 first, int left, int width) {
  constexpr int piece = 16 / sizeof(T), pieces = padded / piece, step = state_threads / pieces;
  const int p = threadIdx.x % pieces, t0 = threadIdx.x / pieces;
  const i64 stride = rows.token;
  const T* const begin = rows.at(first);
  const auto place = [&](int t, int p) {
    return tile + (swizzled ? p / 8 * panel_bytes + t * 128 + ((p % 8 ^ t % 8) << 4) : (t * pieces + p) * 16);
  };
  if (rows.aligned() and width % piece == 0) {
    const T* from = begin + t0 * stride + p * piece;
#pragma unroll
    for (int i = 0; i < C / step; ++i, from += step * stride) {
      const int t = t0 + i * step;
      const bool present = t < left and p * piece < width;
      copy_async(place(t, p), present ? from : begin, present);
    }
    return true;
  }
#pragma unroll 1
  for (int t = t0; t < C; t += step)
#pragma unroll 1
    for (int i = 0; i < piece; ++i) {
      const int d = p * piece + i;
      reinterpret_cast<T*>(place(t, p))[i] = t < left and d < width ? begin[t * stride + d] : T();
    }
  return false;
}

__device__ inline void fetch_rows(Shared& shared, int stage, u32 first) {
  const Task& task = shared.task;
  Stage& to = shared.stage[stage];
  const int left = task.length - first;
  bool background = fetch<Gate, channels, gates_in_tile>(to.g, task.g, first, left, K);
  background &= fetch<Io, channels, true>(to.q, task.q, first, left, K);
  background &= fetch<Io, channels, true>(to.k, task.k, first, left, K);
  background &= fetch<Io, columns, true>(to.v, task.v, first, left, min(columns, V - task.column));
  if (background) return arrive_when_copied(shared.full[stage]);
  wait_for_copies();
  arrive(shared.full[stage]);
}

/// Whether this thread has a part in copies. `maps`: null where there are none.
__device__ inline bool fetches(const Maps* maps) { return maps == nullptr or thread_again() == 0; }

__device__ inline void fetch_chunk(Shared& shared, const Maps* maps, int stage, u32 first) {
  if (maps != nullptr)
    fetch_boxes(shared, *maps, stage, first);
  else
    fetch_rows(shared, stage, first);
}

// ---- state warpgroups
using StateTile = float[channels / 2];  // [64 of V, channels]

/// body(element, offset in the state) for all that lie in it.
template <class Body>
__device__ inline void each_of_state(StateTile& s, const Task& task, int group, Body body) {
  const Lane lane(threadIdx.x);
#pragma unroll
  for (int i = 0; i < channels / 2; ++i) {
    const int d = i / 4 * 8 + lane.column + i % 2, v = 64 * group + 16 * lane.warp + lane.row + i / 2 % 2 * 8;
    if ((channels == K or d < K) and (V % columns == 0 or v < V - task.column))
      body(s[i], k_first ? i64(d) * V + v : i64(v) * K + d);
  }
}

/// Channels from .. to - 1 of S decay.
template <int from, int to>
__device__ inline void decay_state(StateTile& s, const float* decay) {
#pragma unroll
  for (int n = from; n < to; n += 8) {
    const float2 x = *reinterpret_cast<const float2*>(decay + n + threadIdx.x % 4 * 2);
    float* const tile = s + n / 2;
    tile[0] *= x.x, tile[1] *= x.y, tile[2] *= x.x, tile[3] *= x.y;
  }
}

/// O^T += S^T q~^T over channels from .. to - 1; S decays before or after.
template <int from, int to>
__device__ inline void ask_state(float (&o)[C / 2], StateTile& s, const float* decay, bool weak, u64 query) {
  u32 a[(to - from) / 16][4];
  if constexpr (from > 0) {
    commit_products();
    wait_products<0>();
    hold(o);
  }
  if (weak) decay_state<from, to>(s, decay);
#pragma unroll
  for (int n = 0; n < (to - from) / 16; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* const x = s + (from + 16 * n) / 2 + 2 * i;
      a[n][i] = narrow_pair<Io>(x[0], x[1]);
    }
  if (not weak) decay_state<from, to>(s, decay);
  begin_products();
#pragma unroll
  for (int n = 0; n < (to - from) / 16; ++n) {
    const int d = from + 16 * n;
    multiply_registers<Io, 0>(o, a[n], query + d / 64 * (panel_bytes >> 4) + d % 64 / 8, d > 0);
  }
}

/// O^T [64 of V, C tokens] into this warpgroup's panel of v, as rows of tokens.
__device__ inline void put_out(const float (&o)[C / 2], float scale, char* panel) {
  const int lane = threadIdx.x % 32, w = threadIdx.x / 32 % 4;
  char* const to = panel + (lane % 8 + lane / 16 * 8) * 128 + ((2 * w + lane / 8 % 2) ^ lane % 8) * 16;
#pragma unroll
  for (int n = 0; n < C / 8; n += 2) {
    u32 pair[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) pair[i] = narrow_pair<Io>(o[4 * n + 2 * i] * scale, o[4 * n + 2 * i + 1] * scale);
    store_transposed(to + n * 1024, pair[0], pair[1], pair[2], pair[3]);
  }
}

/// From there to global memory.
__device__ inline void send_out(const Task& task, int group, u32 first, const char* panel) {
  const int left = task.length - first, end = min(64, V - task.column - 64 * group);
  const int t0 = threadIdx.x % 128 / 8, p = threadIdx.x % 8;
  const i64 stride = task.o.token;
  Io* out = task.o.at(i64(first) + t0) + 64 * group + 8 * p;
  const char* from = panel + t0 * 128 + ((p ^ t0 % 8) << 4);
  if ((u64(task.o.base) % 16 | u64(stride) % 8) == 0 and end % 8 == 0) {
    if (8 * p < end)
#pragma unroll
      for (int i = 0; i < C / 16; ++i)
        if (t0 + 16 * i < left)
          store_streaming(out + 16 * i * stride, *reinterpret_cast<const uint4*>(from + 16 * i * 128));
    return;
  }
#pragma unroll 1
  for (int t = t0; t < min(C, left); t += 16, out += 16 * stride, from += 16 * 128)
#pragma unroll 1
    for (int i = 0; i < min(8, end - 8 * p); ++i) out[i] = reinterpret_cast<const Io*>(from)[i];
}

__device__ inline void keep_state(Shared& shared, const Maps* maps) {
  const Task& task = shared.task;
  const int group = threadIdx.x / 128;
  StateTile s;
#pragma unroll
  for (int i = 0; i < channels / 2; ++i) s[i] = 0;
  if (task.state_in != nullptr)
    each_of_state(s, task, group, [&](float& x, i64 offset) { x = balance * widen(task.state_in[offset]); });
  Ring ring;
  u32 first = 0;  // u32: ends beyond a length that fills an int
#pragma unroll 1
  for (int i = 0; i < stages; ++i)
    if (fetches(maps) and u32(i * C) < u32(task.length)) fetch_chunk(shared, maps, i, i * C);
  if (task.length > 0) {
#pragma unroll 1
    do {
      Stage& stage = shared.stage[ring.stage];
      char* const panel = stage.v + group * panel_bytes;
      const float* const decay = shared.decay[ring.stage];
      wait(shared.full[ring.stage], ring.parity);
      wait(shared.ready[ring.stage], ring.parity);
      const bool weak = __shfl_sync(~0u, shared.weak[ring.stage], 0) != 0;
      const u64 query = rows_operand(stage.q), value = columns_operand(panel, panel_bytes);
      float o[C / 2];
      if constexpr (channels <= 128) {
        ask_state<0, channels>(o, s, decay, weak, query);
      } else {  // in parts: registers are scarce
        ask_state<0, 64>(o, s, decay, weak, query);
        ask_state<64, 128>(o, s, decay, weak, query);
        ask_state<128, 192>(o, s, decay, weak, query);
        ask_state<192, channels>(o, s, decay, weak, query);
      }
      const u64 score = rows_operand(stage.g), key = columns_operand(stage.k, panel_bytes);
#pragma unroll
      for (int n = 0; n < C / 16; ++n) multiply_shared<Io, 1, 0>(o, value + n * 128, score + n * 2, 1);
      commit_products();
      begin_products();
#pragma unroll
      for (int n = 0; n < C / 16; ++n) multiply_shared<Io, 1, 1>(s, value + n * 128, key + n * 128, 1);
      commit_products();
      wait_products<0>();
      hold(o);
      hold(s);
      put_out(o, task.scale, panel);
      sync<128>(2 + group);
      send_out(task, group, first, panel);
      publish_to_products();
      arrive(shared.empty[ring.stage]);
      const u32 later = first + stages * C;
      if (fetches(maps) and later < u32(task.length) and later > first) {
        wait(shared.empty[ring.stage], ring.parity);
        fetch_chunk(shared, maps, ring.stage, later);
      }
      ring.advance();
      first += C;
    } while (first < u32(task.length));
  }
  if (task.state_out != nullptr)
    each_of_state(s, task, group,
                  [&](float& x, i64 offset) { task.state_out[offset] = narrow<State>(x * (1 / balance)); });
}

// ---- gate warpgroups
__device__ inline int gate_group() { return __shfl_sync(~0u, thread_again() / 128, 0) - state_groups; }

// An item is two channels of a block of 8 tokens.
struct Item {
  int block, pair;
  u32 at;  ///< of the first token in a tile

  __device__ explicit Item(int i) {
    const int thread = thread_again() - state_threads;
    pair = thread % pairs;
    block = thread / pairs * items + i;
    at = pair / 32 * panel_bytes + block * 1024 + pair % 32 * 4;
  }
  /// Of token t, in a tile.
  __device__ u32 word(int t) const { return (at ^ t << 4) + t * 128; }
  __device__ u32& in(char* tile, int t) const { return *reinterpret_cast<u32*>(tile + word(t)); }
};

/// Pairs of 8 tokens.
struct Words8 {
  u32 at[8];
  __device__ Words8() {}
  __device__ Words8(const Item& item, const char* tile) {
#pragma unroll
    for (int t = 0; t < 8; ++t) at[t] = *reinterpret_cast<const u32*>(tile + item.word(t));
  }
};
struct Pairs8 {
  float2 at[8];
};

__device__ inline Pairs8 log2_decays(const Task& task, const Stage& stage, const Item& item, int left) {
  Pairs8 raw;
  if constexpr (gates_in_tile) {
    const Words8 words(item, stage.g);
#pragma unroll
    for (int t = 0; t < 8; ++t) raw.at[t] = widen_pair<Gate>(words.at[t]);
  } else {
#pragma unroll
    for (int t = 0; t < 8; ++t)
      raw.at[t] = *reinterpret_cast<const float2*>(stage.g + (8 * item.block + t) * channels * 4 + item.pair * 8);
  }
#pragma unroll
  for (int t = 0; t < 8; ++t) {
    raw.at[t] = {task.log2_decay(raw.at[t].x), task.log2_decay(raw.at[t].y)};
    if (logit and 8 * item.block + t >= left) raw.at[t] = {0, 0};
  }
  return raw;
}

__device__ inline float2 total_of(const Shared& shared, int block, const Item& item) {
  return *reinterpret_cast<const float2*>(&shared.total[block][2 * item.pair]);
}

/// How a chunk's scores are made. Weak decays: from fp16, or from two parts in bf16 where R or q or k pass the range of
/// fp16. Others by halving: from fp16 or, where q or k pass its range, from bf16.
enum Tier : int { halves, split, exact, wide };

/// Whether magnitudes in fp16 are zero, or from 2^-12 on and finite: elsewhere it loses more than bf16.
__device__ inline bool suits_fp16(u32 pair) {
  const u32 larger = max(pair & 0xffffu, pair >> 16);
  return larger == 0 or (larger >= 0x0c00 and larger < 0x7c00);
}

/// Sums of G over the blocks of this thread's items, and over all of them.
__device__ inline float2 sum_gates(Shared& shared, const Stage& stage, int left) {
  float2 sum = {0, 0};
#pragma unroll(items > 2 ? 1 : items)
  for (int i = 0; i < items; ++i) {
    const Item item(i);
    const Pairs8 g = log2_decays(shared.task, stage, item, left);
    float2 part = {0, 0};
#pragma unroll
    for (int t = 0; t < 8; ++t) part = part + g.at[t];
    *reinterpret_cast<float2*>(&shared.total[item.block][2 * item.pair]) = part;
    sum = sum + part;
  }
  return sum;
}

/// The tier of the chunk, from this thread's sums.
__device__ inline Tier choose_tier(const Shared& shared, float2 sum) {
  constexpr float share = weak_limit * items / blocks;
  if (sync_and<1, gate_threads>(sum.x > share and sum.y > share)) return halves;
  const Item item(0);
  sum = {0, 0};
#pragma unroll
  for (int b = 0; b < blocks; ++b) sum = sum + total_of(shared, b, item);
  return sync_and<1, gate_threads>(sum.x > split_limit and sum.y > split_limit) ? split : exact;
}

__device__ inline char* level_tile(Shared& shared, Stage& stage, int level) {
  return gates_in_tile and level == levels - 1 ? stage.g : shared.level[level];
}

__device__ inline void put_decay(Shared& shared, int stage, const Item& item) {
  float2 sum = {0, 0};
#pragma unroll
  for (int b = 0; b < blocks; ++b) sum = sum + total_of(shared, b, item);
  *reinterpret_cast<float2*>(&shared.decay[stage][2 * item.pair]) = exp2_fast(sum);
}

/// q~ and k~ of an item in place; to the last and the first level's tile their copies in fp16 or, where R is too large
/// for that, what bf16 has left of them. Whether all suit their type.
template <Tier tier>
__device__ inline bool weak_operands(Shared& shared, Stage& stage, const Item& item, int left) {
  const Pairs8 g = log2_decays(shared.task, stage, item, left);
  const Words8 q(item, stage.q), k(item, stage.k);
  float2 after = {-log2_balance, -log2_balance};  // minus the sum after t
#pragma unroll 1
  for (int b = blocks - 1; b > item.block; --b) {
    const float2 total = total_of(shared, b, item);
    after.x -= total.x, after.y -= total.y;
  }
  char* const query = level_tile(shared, stage, levels - 1);
  char* const key = level_tile(shared, stage, 0);
  u32 most_query = 0, most_key = 0;
#pragma unroll
  for (int t = 7; t >= 0; --t) {
    const float2 x = widen_pair<Io>(q.at[t]) * exp2_fast(after);
    const float2 y = widen_pair<Io>(k.at[t]) * exp2_fast(float2{-after.x, -after.y});
    const u32 ask = narrow_pair<Io>(x.x, x.y), tell = narrow_pair<Io>(y.x, y.y);
    item.in(stage.q, t) = ask;
    item.in(stage.k, t) = tell;
    if constexpr (tier == halves) {
      const u32 a = narrow_pair<f16>(x.x, x.y), b = narrow_pair<f16>(y.x, y.y);
      item.in(query, t) = a;
      item.in(key, t) = b;
      most_query = larger_pair(most_query, a);
      most_key = larger_pair(most_key, b);
    } else {
      const float2 a = widen_pair<Io>(ask), b = widen_pair<Io>(tell);
      item.in(query, t) = narrow_pair<Io>(x.x - a.x, x.y - a.y);
      item.in(key, t) = narrow_pair<Io>(y.x - b.x, y.y - b.y);
    }
    after.x -= g.at[t].x, after.y -= g.at[t].y;
  }
  return suits_fp16(most_query) and suits_fp16(most_key);
}

/// Rows of level b < 8: all of its 2 b tokens are the item's.
template <class T, int b>
__device__ inline void put_level(const Item& item, char* tile, const Words8& q, const Words8& k, const Words8& e) {
#pragma unroll
  for (int begin = 0; begin < 8; begin += 2 * b) {
    u32 after, since;
#pragma unroll
    for (int i = 0; i < b; ++i) {
      const int s = begin + b - 1 - i, t = begin + b + i;
      item.in(tile, s) = i == 0 ? k.at[s] : multiply_pairs<T>(k.at[s], after);
      after = i == 0 ? e.at[s] : multiply_pairs<T>(after, e.at[s]);
      since = i == 0 ? e.at[t] : multiply_pairs<T>(since, e.at[t]);
      item.in(tile, t) = multiply_pairs<T>(q.at[t], since);
    }
  }
}

/// q~ and k~ of an item in place, and its rows of all levels in T. Whether q and k suit T.
template <class T>
__device__ inline bool exact_operands(Shared& shared, Stage& stage, const Item& item, int left) {
  Words8 asking(item, stage.q), telling(item, stage.k);
  bool suits = true;
  if constexpr (not is_bf16<T>) {
    u32 most_query = 0, most_key = 0;
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float2 x = widen_pair<Io>(asking.at[t]), y = widen_pair<Io>(telling.at[t]);
      most_query = larger_pair(most_query, asking.at[t] = narrow_pair<T>(x.x, x.y));
      most_key = larger_pair(most_key, telling.at[t] = narrow_pair<T>(y.x, y.y));
    }
    suits = suits_fp16(most_query) and suits_fp16(most_key);
  }
  {
    const Pairs8 g = log2_decays(shared.task, stage, item, left);
    Words8 e;
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float2 x = exp2_fast(g.at[t]);
      e.at[t] = narrow_pair<T>(x.x, x.y);
    }
    put_level<T, 1>(item, level_tile(shared, stage, 0), asking, telling, e);
    put_level<T, 2>(item, level_tile(shared, stage, 1), asking, telling, e);
    put_level<T, 4>(item, level_tile(shared, stage, 2), asking, telling, e);
  }
  float2 before = {0, 0}, behind = {0, 0};  // sums over the blocks of a level's half that precede, that follow
  u32 factor[levels];                       // from a row within its block to the level's middle
#pragma unroll
  for (int level = 3; level < levels; ++level) {
    const int half = 1 << (level - 3), other = (item.block & ~(half - 1)) ^ half;  // blocks
    const bool second = (item.block & half) != 0;
    const float2 x = exp2_fast(either(second, before, behind));
    factor[level] = narrow_pair<T>(x.x, x.y);
    float2 sum = {0, 0};
#pragma unroll
    for (int i = 0; i < half; ++i) sum = sum + total_of(shared, other + i, item);
    before = before + either(second, sum, float2{0, 0});
    behind = behind + either(second, float2{0, 0}, sum);
  }
  const float2 ask = exp2_fast(before + float2{-log2_balance, -log2_balance});
  const float2 tell = exp2_fast(behind + float2{log2_balance, log2_balance});
  Pairs8 e = log2_decays(shared.task, stage, item, left);  // once more: registers are scarce
#pragma unroll
  for (int t = 0; t < 8; ++t) e.at[t] = exp2_fast(e.at[t]);
  float2 after = {1, 1}, since = {1, 1};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    since = since * e.at[i];
    float2 x = widen_pair<T>(asking.at[i]) * since, y = widen_pair<T>(telling.at[7 - i]) * after;
    after = after * e.at[7 - i];
    asking.at[i] = narrow_pair<T>(x.x, x.y);
    telling.at[7 - i] = narrow_pair<T>(y.x, y.y);
    x = x * ask, y = y * tell;
    item.in(stage.q, i) = narrow_pair<Io>(x.x, x.y);
    item.in(stage.k, 7 - i) = narrow_pair<Io>(y.x, y.y);
  }
#pragma unroll
  for (int level = 3; level < levels; ++level) {
    const bool second = (item.block >> (level - 3) & 1) != 0;
    char* const tile = level_tile(shared, stage, level);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const u32 row = either(second, asking.at[t], telling.at[t]);
      item.in(tile, t) = level == 3 ? row : multiply_pairs<T>(row, factor[level]);
    }
  }
  return suits;
}

/// Zeros in the rows past the sequence's end, where boxes bring what lies behind it.
__device__ inline void clear_rows(Stage& stage, int left) {
  const auto clear = [](char* piece) { *reinterpret_cast<uint4*>(piece) = uint4{0, 0, 0, 0}; };
  const int thread = thread_again() - state_threads;
#pragma unroll 1
  for (int at = 128 * left + 16 * thread; at < panel_bytes; at += 16 * gate_threads) {
#pragma unroll
    for (int p = 0; p < panels; ++p) {
      clear(stage.q + p * panel_bytes + at);
      clear(stage.k + p * panel_bytes + at);
      if (gates_in_tile) clear(stage.g + p * panel_bytes + at);
    }
#pragma unroll
    for (int w = 0; w < state_groups; ++w) clear(stage.v + w * panel_bytes + at);
  }
  if (not gates_in_tile)
#pragma unroll 1
    for (int at = 4 * channels * left + 16 * thread; at < gate_bytes; at += 16 * gate_threads) clear(stage.g + at);
  publish_to_products();
  sync<1, gate_threads>();
}

/// The raw words of this thread's items once more, where operands have taken their place.
__device__ inline void fetch_again(Stage& stage, const Task& task, u32 first) {
#pragma unroll 1
  for (int i = 0; i < 8 * items; ++i) {
    const Item item(i / 8);
    const u32 t = first + 8 * item.block + i % 8;
    const auto pair = [&](const void* row) {
      const u16* const at = static_cast<const u16*>(row) + 2 * item.pair;
      const bool present = t < u32(task.length);
      return u32(present and 2 * item.pair < K ? at[0] : 0) | u32(present and 2 * item.pair + 1 < K ? at[1] : 0) << 16;
    };
    item.in(stage.q, i % 8) = pair(task.q.at(t));
    item.in(stage.k, i % 8) = pair(task.k.at(t));
    if constexpr (gates_in_tile) item.in(stage.g, i % 8) = pair(task.g.at(t));
  }
}

// ---- scores
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

__device__ inline void make_operands(Shared& shared) {
  const u32 length = shared.task.length;
  Ring ring;
  Tier tier = halves;
#pragma unroll 1
  for (u32 first = 0; first < length; first += C) {
    Stage& stage = shared.stage[ring.stage];
    const int left = length - first;
    Near near;
    wait(shared.full[ring.stage], ring.parity);
    if (left < C) clear_rows(stage, left);
    publish_to_products();
    const bool guessed = tier >= exact;  // as the chunk before
    float2 sum;
    if (guessed and gate_group() == 0)
      diagonal(near, stage, [&] { sum = sum_gates(shared, stage, left); });
    else
      sum = sum_gates(shared, stage, left);
    tier = choose_tier(shared, sum);
    if (tier >= exact and not guessed) {
      if (gate_group() == 0) diagonal(near, stage, [] {});
      sync<1, gate_threads>();
    }
    while (true) {
      bool suits = true;
#pragma unroll 1
      for (int i = 0; i < items; ++i) {
        const Item item(i);
        if (tier == halves)
          suits &= weak_operands<halves>(shared, stage, item, left);
        else if (tier == split)
          weak_operands<split>(shared, stage, item, left);
        else if (tier == exact)
          suits &= exact_operands<f16>(shared, stage, item, left);
        else
          exact_operands<bf16>(shared, stage, item, left);
        if (item.block == 0) put_decay(shared, ring.stage, item);
      }
      publish_to_products();
      if (sync_and<1, gate_threads>(suits)) break;
      fetch_again(stage, shared.task, first);
      tier = tier == halves ? split : wide;
    }
    if (tier == halves)
      weak_scores<halves>(shared, stage);
    else if (tier == split)
      weak_scores<split>(shared, stage);
    else if (tier == exact)
      exact_scores<f16>(near, shared, stage);
    else
      exact_scores<bf16>(near, shared, stage);
    if (threadIdx.x == state_threads) shared.weak[ring.stage] = tier < exact;
    publish_to_products();
    arrive(shared.ready[ring.stage]);
    ring.advance();
  }
}

extern "C" __global__ void __launch_bounds__(threads, 1) gla_stream_wgmma(PARAMETERS) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const Maps* const source = words.mapped != 0 ? &maps : nullptr;
  if (threadIdx.x == 0) {
    shared.task = find_task<columns, 0>(words);
    for (int i = 0; i < stages; ++i) {
      init_barrier(shared.full[i], source != nullptr ? 1 : state_threads);
      init_barrier(shared.ready[i], gate_threads);
      init_barrier(shared.empty[i], state_threads);
    }
    publish_barriers();
  }
  __syncthreads();
  // The state's branch comes first: with it last the compiler holds it to the registers of the launch (C7512).
  if (threadIdx.x < state_threads) {
    take_registers<state_registers>();
    keep_state(shared, source);
  } else {
    give_registers_back<gate_registers>();
    make_operands(shared);
  }
}
