// Gate warpgroups, first half: which tier a chunk takes, and its operands.
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

/// The raw words of this thread's items once more, where operands have taken their place.
__device__ inline void fetch_again(Stage& stage, const Task& task, const Turn& turn) {
#pragma unroll 1
  for (int i = 0; i < 8 * items; ++i) {
    const Item item(i / 8);
    const u32 t = turn.first + 8 * item.block + i % 8;
    const auto pair = [&](const void* row) {
      const u16* const at = static_cast<const u16*>(row) + 2 * item.pair;
      const bool present = t < u32(task.length);
      return u32(present and 2 * item.pair < K ? at[0] : 0) | u32(present and 2 * item.pair + 1 < K ? at[1] : 0) << 16;
    };
    item.in(stage.q, i % 8) = pair(task.q.at(t, turn.head));
    item.in(stage.k, i % 8) = pair(task.k.at(t));
    if constexpr (gates_in_tile) item.in(stage.g, i % 8) = pair(task.g.at(t));
  }
}
