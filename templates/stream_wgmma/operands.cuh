// Gate warpgroups, first half: which tier a chunk takes, and its operands.
__device__ inline int gate_group() { return __shfl_sync(~0u, thread_again() / 128, 0) - state_groups; }

// Items, one behind the other, of which a thread makes operands of weak chunks at once, a run: all of its own where
// registers suffice, since two warps a scheduler hide little of one's latencies; then its decays are kept from the look
// at the chunk on. The logarithms of logits want registers for themselves.
constexpr int run_items = Gates::items <= 2 and not logit ? Gates::items : 1, tokens = 8 * run_items, runs = C / tokens;
constexpr bool decays_kept = run_items == Gates::items;

// An item is two channels of a block of 8 tokens.
struct Item {
  int block, pair;
  u32 at;  ///< of the first token in a tile

  /// The i-th of this thread in a crew.
  template <class Crew>
  __device__ static Item of(int i) {
    const int thread = Crew::index(), pair = thread % pairs, block = thread / pairs * Crew::items + i;
    return {block, pair, u32(pair / 32 * panel_bytes + block * 1024 + pair % 32 * 4)};
  }
  __device__ int run() const { return block / run_items; }
  /// Of token t, in a tile; of the blocks behind this one too.
  __device__ u32 word(int t) const { return (at ^ t % 8 << 4) + t * 128; }
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
template <int tokens>
struct Pairs {
  float2 at[tokens];
};

__device__ inline float2 raw_gate(const Stage& stage, const Item& item, int t) {
  if constexpr (gates_in_tile) return widen_pair<Gate>(*reinterpret_cast<const u32*>(stage.g + item.word(t)));
  return *reinterpret_cast<const float2*>(stage.g + (8 * item.block + t) * channels * 4 + item.pair * 8);
}
__device__ inline float2 log2_decay(const Task& task, const Item& item, int t, int left, float2 raw) {
  if (logit and 8 * item.block + t >= left) return {0, 0};
  return {task.log2_decay(raw.x), task.log2_decay(raw.y)};
}
template <int tokens = 8>
__device__ inline Pairs<tokens> raw_gates(const Stage& stage, const Item& item) {
  Pairs<tokens> raw;
#pragma unroll
  for (int t = 0; t < tokens; ++t) raw.at[t] = raw_gate(stage, item, t);
  return raw;
}
template <int tokens = 8>
__device__ inline Pairs<tokens> log2_decays(const Task& task, const Stage& stage, const Item& item, int left) {
  Pairs<tokens> g = raw_gates<tokens>(stage, item);
#pragma unroll
  for (int t = 0; t < tokens; ++t) g.at[t] = log2_decay(task, item, t, left, g.at[t]);
  return g;
}
template <int tokens = 8>
__device__ inline Pairs<tokens> decays(const Task& task, const Stage& stage, const Item& item, int left) {
  Pairs<tokens> e = log2_decays<tokens>(task, stage, item, left);
#pragma unroll
  for (int t = 0; t < tokens; ++t) e.at[t] = exp2_fast(e.at[t]);
  return e;
}

__device__ inline float2 total_of(const Shared& shared, int block, const Item& item) {
  return *reinterpret_cast<const float2*>(&shared.total[block][2 * item.pair]);
}

/// Whether magnitudes in fp16 are zero, or from 2^-12 on and finite: elsewhere it loses more than bf16.
__device__ inline bool suits_fp16(u32 pair) {
  const u32 larger = max(pair & 0xffffu, pair >> 16);
  return larger == 0 or (larger >= 0x0c00 and larger < 0x7c00);
}

/// Sums of G over the blocks of this thread's items, for all to see after the next barrier. Whether none is above
/// `spent`.
__device__ inline bool sum_gates(Shared& shared, const Stage& stage, int left) {
  bool all_spent = true;
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i) {
    const Item item = Item::of<Gates>(i);
    const Pairs<8> g = logit ? log2_decays(shared.task, stage, item, left) : raw_gates(stage, item);
    float2 part = {0, 0};
#pragma unroll
    for (int t = 0; t < 8; ++t) part = part + g.at[t];
    if (not logit) part = part * float2{log2_e, log2_e};
    *reinterpret_cast<float2*>(&shared.total[item.block][2 * item.pair]) = part;
    all_spent = all_spent and (2 * item.pair >= K or part.x < spent) and (2 * item.pair + 1 >= K or part.y < spent);
  }
  return all_spent;
}

using Decays = Pairs<tokens>;  // of a run

/// Takes the resets out of a run's G, and notes them; whether those of the other channels are the same.
__device__ inline bool take_resets(Shared& shared, const Item& item, Pairs<tokens>& g) {
  u32 mine = 0;
#pragma unroll
  for (int t = 0; t < tokens; ++t) {
    const bool reset = g.at[t].x < forgotten and (g.at[t].y < forgotten or 2 * item.pair + 1 >= K);
    mine |= u32(reset) << t;
    g.at[t] = either(reset, float2{0, 0}, g.at[t]);
  }
  const bool counts = 2 * item.pair < K;
  const u32 any = any_bits(counts ? mine : 0), not_all = any_bits(counts ? ~mine & (~0u >> (32 - tokens)) : 0);
  if (item.pair % 32 == 0) {
    void* const resets = &shared.resets[item.pair / 32];
    if constexpr (tokens == 8)
      static_cast<unsigned char*>(resets)[item.run()] = any;
    else
      static_cast<u16*>(resets)[item.run()] = any;
  }
  return (any & not_all) == 0;
}

/// Products of the decays of this thread's runs, for all to see after the next barrier. Whether their product is no
/// less than this thread's share of what leaves a chunk weak. e: the decays, where they are kept. `resets`: without
/// those.
template <bool resets>
__device__ inline bool multiply_decays(Shared& shared, const Stage& stage, int left, Decays& e) {
  float2 product = {1, 1};
  bool agree = true;
#pragma unroll(resets or logit ? 1 : Gates::items)
  for (int i = 0; i < Gates::items; i += run_items) {
    const Item item = Item::of<Gates>(i);
    constexpr bool raw = not decays_kept and not resets and not logit;
    Pairs<tokens> g = raw ? raw_gates<tokens>(stage, item) : log2_decays<tokens>(shared.task, stage, item, left);
    if (resets) agree = take_resets(shared, item, g) and agree;
    float2 of_run = decays_kept ? float2{1, 1} : float2{0, 0};
#pragma unroll
    for (int t = 0; t < tokens; ++t)
      if constexpr (decays_kept)
        of_run = of_run * (e.at[t] = exp2_fast(g.at[t]));
      else
        of_run = of_run + g.at[t];
    if (raw) of_run = of_run * float2{log2_e, log2_e};
    if (not decays_kept) of_run = exp2_fast(of_run);
    *reinterpret_cast<float2*>(&shared.total[item.run()][2 * item.pair]) = of_run;
    product = product * of_run;
  }
  const float share = exp2_fast(weak_limit * Gates::items / blocks);
  return agree and product.x > share and product.y > share;
}
/// Gates that do not decay in place of this thread's resets.
__device__ inline void clear_resets(Stage& stage, u64 resets) {
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i) {
    const Item item = Item::of<Gates>(i);
#pragma unroll 1
    for (u32 mine = resets >> (8 * item.block) & 0xff; mine != 0; mine &= mine - 1) {
      const int t = __ffsll(mine) - 1;
      if constexpr (gates_in_tile)
        item.in(stage.g, t) = narrow_pair<Gate>(no_decay, no_decay);
      else
        *reinterpret_cast<float2*>(stage.g + (8 * item.block + t) * channels * 4 + item.pair * 8) = {no_decay,
                                                                                                     no_decay};
    }
  }
}
/// For chunks that look strong: whether it is resets that make them so. Then those are taken out.
__device__ inline bool find_resets(Shared& shared, Stage& stage, int left, u64& resets, Decays& e) {
  const bool is_weak = Gates::all(multiply_decays<true>(shared, stage, left, e));
  constexpr u64 all = ~u64(0) >> (64 - C);
  resets = shared.resets[0] & all;
  bool same = true;
#pragma unroll
  for (int p = 1; p < panels; ++p) same = same and (64 * p >= K or (shared.resets[p] & all) == resets);
  if (is_weak and same) {
    if constexpr (not decays_kept) clear_resets(stage, resets);
    return true;
  }
  resets = 0;
  return false;
}

/// The tier of the chunk, its resets if it is weak, and the decays of this thread's last run. `resets`: at first those
/// of the chunk before: where there were some, more are expected.
__device__ inline Tier choose_tier(Shared& shared, Stage& stage, int left, u64& resets, Decays& e) {
  const bool expected = resets != 0;
#pragma unroll 1
  for (int look = expected ? 0 : 1; look < (expected ? 2 : 3); ++look) {
    if (look != 1) {
      if (find_resets(shared, stage, left, resets, e)) return halves;
      continue;
    }
    if (Gates::all(multiply_decays<false>(shared, stage, left, e))) return halves;
    if constexpr (half_io and cluster == 1) continue;
    float2 product = {1, 1};
    bool some_weak = false;  // a run
    const float least = exp2_fast(split_limit), weak_run = exp2_fast(weak_limit);
#pragma unroll
    for (int r = 0; r < runs; ++r) {
      const float2 of_run = total_of(shared, r, Item::of<Gates>(0));
      product = product * of_run;
      some_weak = some_weak or (of_run.x > weak_run and of_run.y > weak_run);
    }
    if (not half_io and Gates::all(product.x > least and product.y > least)) return split;
    // Where all runs decay, resets are hardly the reason. Without a cluster strong chunks have a loop that asks not.
    if (cluster > 1 and not Gates::all(some_weak)) break;
  }
  return exact;
}

/// Whether a chunk that was taken for strong decays no more than weak ones may.
__device__ inline bool is_tame(const Fate& fate) {
  const float* const decay = &fate.decay[2 * (Gates::index() % pairs)];
  const float least = exp2_fast(split_limit);
  return Gates::all(decay[0] > least and decay[1] > least);
}

/// Raw words of a run's tokens: of q from the first one on, of k from the last one back. Some are loaded before the
/// words before them are stored, since the compiler moves no load over a store.
struct RawWords {
  u32 q[tokens], k[tokens];

  __device__ RawWords(const Stage& stage, const Item& item) { load(stage, item, 0); }
  /// Before those of step i are stored.
  __device__ void advance(const Stage& stage, const Item& item, int i) {
    if (i % ahead == 0 and i + ahead < tokens) load(stage, item, i + ahead);
  }

 private:
  static constexpr int ahead = 2;
  __device__ void load(const Stage& stage, const Item& item, int begin) {
#pragma unroll
    for (int i = begin; i < begin + ahead; ++i) {
      q[i] = *reinterpret_cast<const u32*>(stage.q + item.word(i));
      k[i] = *reinterpret_cast<const u32*>(stage.k + item.word(tokens - 1 - i));
    }
  }
};

/// Products of decays before a run, in it and behind it.
struct Around {
  float2 before = {1, 1}, within, behind = {1, 1};

  __device__ Around(const Shared& shared, const Item& item) : within(total_of(shared, item.run(), item)) {
#pragma unroll
    for (int r = 1; r < runs; ++r) behind = behind * either(r > item.run(), total_of(shared, r, item), float2{1, 1});
    look_before(shared, item.run(), item);
  }
  /// To the run before that of `item`.
  __device__ void step_back(const Shared& shared, const Item& item) {
    behind = behind * within;
    within = total_of(shared, item.run() - 1, item);
    look_before(shared, item.run() - 1, item);
  }

 private:
  __device__ void look_before(const Shared& shared, int run, const Item& item) {
    if (not half_io) return;
    before = {1, 1};
#pragma unroll
    for (int r = 0; r + 1 < runs; ++r) before = before * either(r < run, total_of(shared, r, item), float2{1, 1});
  }
};
__device__ inline void put_decay(Shared& shared, int stage, const Item& item, float2 decay) {
  *reinterpret_cast<float2*>(&shared.fate[stage].decay[2 * item.pair]) = decay;
}

/// q~ and k~ of a run, in place; to `query` and `key` their copies in fp16 or, where R is too large for that, what bf16
/// has left of them. Whether all suit their type.
template <Tier tier>
__device__ inline bool weak_operands(Shared& shared, Stage& stage, int number, char* query, char* key, const Item& item,
                                     const Around& around, const Decays& e) {
  const float2 from_run = around.within * around.behind;
  if (item.block == 0) put_decay(shared, number, item, from_run);
  // From token to token 2^-R decays, and 2^R backwards.
  float2 ask = inverse_fast(from_run) * float2{1 / balance, 1 / balance};
  float2 tell = around.behind * float2{balance, balance};
  u32 most_query = 0, most_key = 0;
  const auto put = [&](char* tile, char* copies, int t, float2 x, u32& most) {
    const u32 operand = narrow_pair<Io>(x.x, x.y);
    item.in(tile, t) = operand;
    if constexpr (tier == halves) {
      const u32 copy = narrow_pair<f16>(x.x, x.y);
      item.in(copies, t) = copy;
      most = larger_pair(most, copy);
    } else {
      const float2 there = widen_pair<Io>(operand);
      item.in(copies, t) = narrow_pair<Io>(x.x - there.x, x.y - there.y);
    }
  };
  RawWords raw(stage, item);
#pragma unroll
  for (int i = 0; i < tokens; ++i) {
    const int back = tokens - 1 - i;
    raw.advance(stage, item, i);
    ask = ask * e.at[i];
    put(stage.q, query, i, widen_pair<Io>(raw.q[i]) * ask, most_query);
    put(stage.k, key, back, widen_pair<Io>(raw.k[i]) * tell, most_key);
    tell = tell * e.at[back];
  }
  return suits_fp16(most_query) and suits_fp16(most_key);
}

/// The same with io in fp16: q~ and k~ in place, k^ to `key`. Whether k^ is finite.
__device__ inline bool half_operands(Shared& shared, Stage& stage, int number, char* key, const Item& item,
                                     const Around& around, const Decays& e) {
  const float2 from_run = around.within * around.behind;
  if (item.block == 0) put_decay(shared, number, item, from_run);
  const float2 undo = inverse_fast(around.before * from_run);  // k^ = k~ 2^-(R + P)
  float2 ask = around.before, tell = around.behind;
  u32 most = 0;
  RawWords raw(stage, item);
#pragma unroll
  for (int i = 0; i < tokens; ++i) {
    const int back = tokens - 1 - i;
    raw.advance(stage, item, i);
    ask = ask * e.at[i];
    const float2 x = widen_pair<Io>(raw.q[i]) * ask, y = widen_pair<Io>(raw.k[i]) * tell, z = y * undo;
    tell = tell * e.at[back];
    item.in(stage.q, i) = narrow_pair<Io>(x.x, x.y);
    item.in(stage.k, back) = narrow_pair<Io>(y.x, y.y);
    const u32 copy = narrow_pair<Io>(z.x, z.y);
    item.in(key, back) = copy;
    most = larger_pair(most, copy);
  }
  return (most & 0xffff) < 0x7c00 and most < 0x7c000000;
}

/// Once scores are made: behind the first reset no state is asked, before the last one none learns.
__device__ inline void end_at_resets(Stage& stage, u64 resets) {
  const int first = __ffsll(resets) - 1, last = 63 - __clzll(resets);
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i) {
    const Item item = Item::of<Gates>(i);
#pragma unroll 1
    for (int t = 0; t < 8; ++t) {
      if (8 * item.block + t >= first) item.in(stage.q, t) = 0;
      if (8 * item.block + t < last) item.in(stage.k, t) = 0;
    }
  }
}

/// Rows of level b < 8: all of its 2 b tokens are the item's.
template <int b>
__device__ inline void put_level(const Item& item, char* tile, const Words8& q, const Words8& k, const Words8& e) {
#pragma unroll
  for (int begin = 0; begin < 8; begin += 2 * b) {
    u32 after, since;
#pragma unroll
    for (int i = 0; i < b; ++i) {
      const int s = begin + b - 1 - i, t = begin + b + i;
      item.in(tile, s) = i == 0 ? k.at[s] : multiply_pairs<f16>(k.at[s], after);
      after = i == 0 ? e.at[s] : multiply_pairs<f16>(after, e.at[s]);
      since = i == 0 ? e.at[t] : multiply_pairs<f16>(since, e.at[t]);
      item.in(tile, t) = multiply_pairs<f16>(q.at[t], since);
    }
  }
}

/// Where rows of q and of k for the block before lie, of a chunk in which nothing outlives a block: in place of levels
/// 3 and 4, or of q and k where there is a tile for one level only.
template <Mode mode>
__device__ inline char* near_tile(Shared& shared, Stage& stage, int which) {
  if (mode == mixed) return which == 0 ? stage.q : stage.k;
  return level_tile<mode>(shared, stage, 3 + which);
}
/// q~ and k~ from such rows: where a row's block ends or begins with the chunk it is an operand but for `balance`.
__device__ inline u32 balanced(u32 row, float by) {
  const float2 x = widen_pair<f16>(row) * float2{by, by};
  return narrow_pair<Io>(x.x, x.y);
}
__device__ inline u32 near_query(u32 row) { return balanced(row, 1 / balance); }
__device__ inline u32 near_key(u32 row) { return balanced(row, balance); }

/// Those rows, and q~ of the first block and k~ of the last one, since no other asks the state or tells it anything;
/// where the rows take the place of q and k operands are left to end_near(). q, k: rows, at last.
template <Mode mode>
__device__ inline void near_operands(Shared& shared, Stage& stage, int number, const Item& item, Words8& q, Words8& k,
                                     const Words8& e) {
  u32 since, after;
#pragma unroll
  for (int t = 0; t < 8; ++t) {
    const int s = 7 - t;
    since = t == 0 ? e.at[t] : multiply_pairs<f16>(since, e.at[t]);
    q.at[t] = multiply_pairs<f16>(q.at[t], since);
    if (t > 0) k.at[s] = multiply_pairs<f16>(k.at[s], after);
    after = t == 0 ? e.at[s] : multiply_pairs<f16>(after, e.at[s]);
  }
#pragma unroll
  for (int t = 0; t < 8; ++t) {
    item.in(near_tile<mode>(shared, stage, 0), t) = q.at[t];
    item.in(near_tile<mode>(shared, stage, 1), t) = k.at[t];
    if (mode == mixed) continue;
    if (item.block == 0) item.in(stage.q, t) = near_query(q.at[t]);
    if (item.block >= blocks - 2) item.in(stage.k, t) = item.block == blocks - 1 ? near_key(k.at[t]) : 0;
  }
  if (item.block == 0) put_decay(shared, number, item, {0, 0});
}

/// q~ and k~ in place of rows that have been multiplied: zeros but for a block each.
__device__ inline void end_near(Stage& stage) {
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i) {
    const Item item = Item::of<Gates>(i);
    if (item.block == 0)
#pragma unroll
      for (int t = 0; t < 8; ++t) item.in(stage.q, t) = near_query(item.in(stage.q, t));
    if (item.block == blocks - 1)
#pragma unroll
      for (int t = 0; t < 8; ++t) item.in(stage.k, t) = near_key(item.in(stage.k, t));
  }
#pragma unroll
  for (int p = 0; p < panels; ++p)
#pragma unroll 1
    for (int at = 16 * Gates::index(); at < 128 * (C - 8); at += 16 * gate_threads) {
      *reinterpret_cast<uint4*>(stage.q + p * panel_bytes + 8 * 128 + at) = uint4{0, 0, 0, 0};
      *reinterpret_cast<uint4*>(stage.k + p * panel_bytes + at) = uint4{0, 0, 0, 0};
    }
}

/// Rows of the levels from .. to - 1 of an item, in fp16; with the last level q~ and k~, in place. Whether q and k suit
/// fp16. `near`: those of near_operands() from level 3 on.
template <Mode mode, int from, int to>
__device__ inline bool exact_operands(Shared& shared, Stage& stage, int number, const Item& item, int left,
                                      bool near = false) {
  Words8 asking(item, stage.q), telling(item, stage.k);
  bool suits = true;
  if constexpr (not half_io) {
    u32 most_query = 0, most_key = 0;
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float2 x = widen_pair<Io>(asking.at[t]), y = widen_pair<Io>(telling.at[t]);
      most_query = larger_pair(most_query, asking.at[t] = narrow_pair<f16>(x.x, x.y));
      most_key = larger_pair(most_key, telling.at[t] = narrow_pair<f16>(y.x, y.y));
    }
    suits = suits_fp16(most_query) and suits_fp16(most_key);
  }
  if constexpr (from < 3) {
    const Pairs<8> e = decays(shared.task, stage, item, left);
    Words8 half;
#pragma unroll
    for (int t = 0; t < 8; ++t) half.at[t] = narrow_pair<f16>(e.at[t].x, e.at[t].y);
    if constexpr (from == 0) put_level<1>(item, level_tile<mode>(shared, stage, 0), asking, telling, half);
    if constexpr (from <= 1 and to > 1) put_level<2>(item, level_tile<mode>(shared, stage, 1), asking, telling, half);
    if constexpr (to > 2) put_level<4>(item, level_tile<mode>(shared, stage, 2), asking, telling, half);
    if constexpr (to > 2)
      if (near) {
        near_operands<mode>(shared, stage, number, item, asking, telling, half);
        return suits;
      }
  }
  if constexpr (to <= 3) return suits;
  float2 before = {0, 0}, behind = {0, 0};  // sums over the blocks of a level's half that precede, that follow
  u32 factor[levels];                       // from a row within its block to the level's middle
#pragma unroll
  for (int level = 3; level < levels; ++level) {
    const int half = 1 << (level - 3), other = (item.block & ~(half - 1)) ^ half;  // blocks
    const bool second = (item.block & half) != 0;
    const float2 x = exp2_fast(either(second, before, behind));
    factor[level] = narrow_pair<f16>(x.x, x.y);
    float2 sum = {0, 0};
#pragma unroll
    for (int i = 0; i < half; ++i) sum = sum + total_of(shared, other + i, item);
    before = before + either(second, sum, float2{0, 0});
    behind = behind + either(second, float2{0, 0}, sum);
  }
  if (to == levels and item.block == 0) put_decay(shared, number, item, exp2_fast(behind + total_of(shared, 0, item)));
  const float2 ask = exp2_fast(before) * float2{1 / balance, 1 / balance};
  const float2 tell = exp2_fast(behind) * float2{balance, balance};
  const Pairs<8> e = decays(shared.task, stage, item, left);  // once more: registers are scarce
  float2 after = {1, 1}, since = {1, 1};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    since = since * e.at[i];
    float2 x = widen_pair<f16>(asking.at[i]) * since, y = widen_pair<f16>(telling.at[7 - i]) * after;
    after = after * e.at[7 - i];
    asking.at[i] = narrow_pair<f16>(x.x, x.y);
    telling.at[7 - i] = narrow_pair<f16>(y.x, y.y);
    if constexpr (to == levels) {
      x = x * ask, y = y * tell;
      item.in(stage.q, i) = narrow_pair<Io>(x.x, x.y);
      item.in(stage.k, 7 - i) = narrow_pair<Io>(y.x, y.y);
    }
  }
#pragma unroll
  for (int level = from > 3 ? from : 3; level < to; ++level) {
    const bool second = (item.block >> (level - 3) & 1) != 0;
    char* const tile = level_tile<mode>(shared, stage, level);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const u32 row = either(second, asking.at[t], telling.at[t]);
      item.in(tile, t) = level == 3 ? row : multiply_pairs<f16>(row, factor[level]);
    }
  }
  return suits;
}

/// The same of one level, in bf16: seldom, hence short.
template <Mode mode>
__device__ inline void wide_operands(Shared& shared, Stage& stage, int number, const Item& item, int left, int level) {
  char* const tile = level_tile<mode>(shared, stage, level);
  const auto decay = [&](int t) { return exp2_fast(log2_decay(shared.task, item, t, left, raw_gate(stage, item, t))); };
  const auto put = [&](char* to, int t, float2 x) { item.in(to, t) = narrow_pair<bf16>(x.x, x.y); };
  const auto sum = [&](int from, int to) {  // over blocks
    float2 sum = {0, 0};
#pragma unroll 1
    for (int b = from; b < to; ++b) sum = sum + total_of(shared, b, item);
    return sum;
  };
  if (level < 3) {
#pragma unroll 1
    for (int t = 0; t < 8; ++t) {
      const int b = 1 << level, begin = t & ~(b - 1);
      const bool second = (t & b) != 0;
      float2 x = widen_pair<Io>(item.in(second ? stage.q : stage.k, t));
#pragma unroll 1
      for (int i = second ? begin : t + 1; i < (second ? t + 1 : begin + b); ++i) x = x * decay(i);
      put(tile, t, x);
    }
    return;
  }
  const int half = 1 << (level - 3), middle = (item.block & ~(half - 1)) | half;  // blocks
  const bool second = (item.block & half) != 0;
  const float2 factor = exp2_fast(second ? sum(item.block & ~(half - 1), item.block) : sum(item.block + 1, middle));
  const float2 before = sum(0, item.block), behind = sum(item.block + 1, blocks);
  const bool last = level == levels - 1;
  if (last and item.block == 0) put_decay(shared, number, item, exp2_fast(behind + total_of(shared, 0, item)));
  // The rows of the last level may take the place of the gates: what has no rows comes first.
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    const bool asks = second == (pass == 1);
    const float balanced = asks ? 1 / balance : balance;
    const float2 outside = exp2_fast(asks ? before : behind) * float2{balanced, balanced};
    float2 inside = {1, 1};
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
      const int t = asks ? i : 7 - i;
      char* const raw = asks ? stage.q : stage.k;
      const float2 e = decay(t);
      if (asks) inside = inside * e;
      const float2 x = widen_pair<Io>(item.in(raw, t)) * inside;
      if (not asks) inside = inside * e;
      if (pass == 1) put(tile, t, x * factor);
      if (last) put(raw, t, x * outside);
    }
  }
}

/// The raw words of this thread's items once more, where others have taken their place.
template <class Crew>
__device__ inline void fetch_again(Stage& stage, const Task& task, const Turn& turn) {
#pragma unroll 1
  for (int i = 0; i < 8 * Crew::items; ++i) {
    const Item item = Item::of<Crew>(i / 8);
    const u32 t = turn.first + 8 * item.block + i % 8;
    const auto pair = [&](const void* row) {
      const u16* const at = static_cast<const u16*>(row) + 2 * item.pair;
      const bool present = t < u32(task.length);
      return u32(present and 2 * item.pair < K ? at[0] : 0) | u32(present and 2 * item.pair + 1 < K ? at[1] : 0) << 16;
    };
    item.in(stage.q, i % 8) = pair(task.q.at(t, turn.head));
    item.in(stage.k, i % 8) = pair(task.k.at(t));
    if constexpr (gates_in_tile) {
      item.in(stage.g, i % 8) = pair(task.g.at(t));
    } else if constexpr (half_io) {
      float* const g = reinterpret_cast<float*>(stage.g) + (8 * item.block + i % 8) * channels + 2 * item.pair;
      const auto raw = [&](int d) { return t < u32(task.length) and d < K ? widen(task.g.at(t)[d]) : 0; };
      g[0] = raw(2 * item.pair), g[1] = raw(2 * item.pair + 1);
    }
  }
}
