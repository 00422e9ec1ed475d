// The loops of the gate warpgroups, and the kernel. What it computes, with which data and roles: data.cuh.

/// The part of this thread, one of the makers, in the operands of a strong chunk of which sums are there; whether they
/// suit fp16.
__device__ inline bool make_strong(Shared& shared, Stage& stage, int number, const Turn& turn, bool near) {
  bool suits = true;
#pragma unroll 1
  for (int i = 0; i < Makers::items; ++i)
    suits &= exact_operands<strong, 0, levels>(shared, stage, number, Item::of<Makers>(i),
                                               shared.task.length - turn.first, near);
  publish_to_products();
  return Makers::all(suits) or half_io;
}
/// What a gate warp says of a strong chunk: that it is for the other loop, where all say so, or not, or that nothing in
/// it outlives a block. Bits, of which those count that all have.
enum Vote : unsigned char { leave = 0, stay = 1, stay_near = 3 };
__device__ inline void put_vote(Shared& shared, bool leaves, bool spent_all) {
  const bool spent_all_of_warp = any_bits(not spent_all) == 0;
  const int index = Gates::index();
  if (index % 32 == 0) shared.votes[index / 32] = leaves ? leave : spent_all_of_warp ? stay_near : stay;
}
/// What they say together: by all makers, who meet here and again before the next vote.
__device__ inline Vote count_votes(const Shared& shared) {
  Makers::join();
  Makers::join();  // after one barrier alone racecheck takes what was written before it for unordered, at times
  const auto votes = reinterpret_cast<const volatile u32*>(shared.votes);
  u32 all = votes[0];
  if constexpr (gate_groups > 1) all &= votes[1];
  all = __shfl_sync(~0u, all, 0);
  return all == 0x01010101u * stay_near ? stay_near : all == 0 ? leave : stay;
}
/// By gate warpgroups alone, in bf16: rows of one level.
template <Mode mode>
__device__ inline void make_wide(Shared& shared, Stage& stage, int number, const Turn& turn, int level) {
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i)
    wide_operands<mode>(shared, stage, number, Item::of<Gates>(i), shared.task.length - turn.first, level);
  publish_to_products();
}

/// Operands of a weak chunk for scores of this tier; whether they suit it. `kept`: decays of this thread's run, if it
/// has one.
template <Mode mode>
__device__ inline bool make_runs(Shared& shared, Stage& stage, int number, int left, Tier tier, const Decays& kept) {
  char* const query = level_tile<mode>(shared, stage, levels - 1);
  char* const key = level_tile<mode>(shared, stage, 0);
  bool suits = true;
  Around around(shared, Item::of<Gates>(Gates::items - run_items));
#pragma unroll 1
  for (int i = Gates::items - run_items; i >= 0; i -= run_items) {
    const Item item = Item::of<Gates>(i);
    const Decays e = decays_kept ? kept : decays<tokens>(shared.task, stage, item, left);
    if (half_io)
      suits &= half_operands(shared, stage, number, key, item, around, e);
    else if (tier == halves)
      suits &= weak_operands<halves>(shared, stage, number, query, key, item, around, e);
    else
      weak_operands<split>(shared, stage, number, query, key, item, around, e);
    if (not decays_kept and i > 0) around.step_back(shared, item);
  }
  return suits;
}
/// Operands of a chunk whose decays are weak; the tier that suits it.
template <Mode mode>
__device__ inline Tier make_weak(Shared& shared, Stage& stage, int number, const Turn& turn, Tier tier, u64 resets,
                                 const Decays& kept) {
  const int left = shared.task.length - turn.first;
  while (true) {
    bool suits;
    if (decays_kept or half_io)
      suits = make_runs<mode>(shared, stage, number, left, tier, kept);
    else if (tier == halves)  // asked once, not for each run; where there is one alone ptxas wants it inside (C7511)
      suits = make_runs<mode>(shared, stage, number, left, halves, kept);
    else
      suits = make_runs<mode>(shared, stage, number, left, split, kept);
    publish_to_products();
    if (Gates::all(suits)) return tier;
    if (half_io) return exact;
    fetch_again<Gates>(stage, shared.task, turn);
    if (not decays_kept and resets != 0) clear_resets(stage, resets);
    tier = split;
  }
}
/// A of a weak chunk. Gate warpgroups but the first go ahead, up to the next vote. `meanwhile` runs beside products.
template <Mode mode, class Meanwhile>
__device__ inline void score_weak(Shared& shared, Stage& stage, Tier tier, u64 resets, Meanwhile meanwhile) {
  const char* const query = half_io ? stage.q : level_tile<mode>(shared, stage, levels - 1);
  const char* const key = level_tile<mode>(shared, stage, 0);
  if (gate_group() == 0) {
    if (half_io or tier == halves)
      weak_scores<halves>(stage, query, key, resets, meanwhile);
    else
      weak_scores<split>(stage, query, key, resets, meanwhile);
  } else if constexpr (gate_groups > 1) {
    meanwhile();
    sync<FirstGates::barrier + 1, gate_threads - 128>();  // racecheck takes warps to pass as many barriers each
  }
  if (resets == 0) return;
  Gates::join();
  end_at_resets(stage, resets);
}

__device__ inline bool help(Shared& shared, int number, const Turn& turn, bool& near) {
  const Vote vote = count_votes(shared);
  if (vote == leave) return true;
  const bool made = make_strong(shared, stage_of(shared, number), number, turn, vote == stay_near);
  if (not made) Makers::join();
  near = made and vote == stay_near;
  return false;
}

/// A strong chunk where there is a tile for one level only: one after the other. False where fp16 does not suit.
template <int level>
__device__ inline bool make_level(Scores& scores, Shared& shared, Stage& stage, int number, int left) {
  bool suits = true;
#pragma unroll 1
  for (int i = 0; i < Gates::items; ++i)
    suits &= exact_operands<mixed, level, level + 1>(shared, stage, number, Item::of<Gates>(i), left,
                                                     level == 2 and scores.few);
  publish_to_products();
  if (not Gates::all(suits) and level == 0) return false;
  scores.take<f16, mixed>(shared, stage, level);
  if (level == 2 and scores.few) {
    if (gate_group() == gate_groups - 1) take_before<mixed>(scores.far, shared, stage);
    Gates::join();  // operands take the place of rows
    end_near(stage);
    return true;
  }
  Gates::join();  // the next level takes its place
  if constexpr (level + 1 < levels) make_level<level + 1>(scores, shared, stage, number, left);
  return true;
}

/// What a chunk is, for the state to know.
__device__ inline void put_fate(Shared& shared, int stage, Tier tier, bool leaves, u64 resets) {
  if (int(thread_again()) != state_threads) return;
  shared.fate[stage].tier = tier;
  shared.fate[stage].leave = leaves;
  shared.fate[stage].resets = resets;
}

/// To the stages of the other CTAs.
__device__ inline void send_operands(Shared& shared, int stage) {
  Gates::join();
  if (int(thread_again()) != state_threads) return;
  publish_to_products();
  const u32 here = cta_in_cluster<cluster>();
#pragma unroll 1
  for (u32 cta = 0; cta < cluster; ++cta) {
    if (cta == here) continue;
    Barrier& received = shared.received[stage];
    copy_to(cta, stage_of(shared, stage, cta).q, stage_of(shared, stage).q, sent_bytes, received);
    copy_to(cta, &shared.fate[stage], &shared.fate[stage], sizeof(Fate), received);
  }
}

/// The raw tensors of a chunk that this CTA makes later, into the stage of the one that it made before `turn`, once the
/// states of all CTAs have done with that.
struct Refill {
  Turn turn;
  int stage;
  u32 parity;
  bool pending;

  __device__ void try_now(Shared& shared, const Maps* maps) {
    if (not has(shared, maps) or not pending or not fetches_raw(shared, maps)) return;
    if (not has_ended(shared.clear[stage], parity)) return;
    fetch_raw(shared, maps, stage, turn);
    pending = false;
  }
  __device__ void finish(Shared& shared, const Maps* maps) {
    if (not pending or not fetches_raw(shared, maps)) return;
    wait(shared.clear[stage], parity);
    fetch_raw(shared, maps, stage, turn);
  }
};

/// Operands and scores of a strong chunk of a cluster, its tiles as they came.
__device__ inline void make_exact(Shared& shared, Stage& stage, int number, const Turn& turn, int left) {
  Scores scores;
  const bool spent_all = sum_gates(shared, stage, left);
  publish_to_products();
  scores.few = Gates::all(spent_all);
  if (gate_group() == 0) take_diagonal(scores.near, stage, [] {});
  Gates::join();  // the last level takes the place of q and k
  if (not make_level<0>(scores, shared, stage, number, left)) {
    scores.few = false;
#pragma unroll 1
    for (int level = 0; level < levels; ++level) {
      make_wide<mixed>(shared, stage, number, turn, level);
      Gates::join();
      scores.take<bf16, mixed>(shared, stage, level);
      Gates::join();
    }
  }
  put_fate(shared, number, exact, false, 0);
  scores.put(stage);
}

/// Chunks of a cluster that this CTA makes.
__device__ inline void make_shared_operands(Shared& shared, const Maps* maps) {
  const u32 length = shared.task.length;
  const int first = cta_in_cluster<cluster>();
  Ring<mixed> ring, last;
  ring.advance(first);
#pragma unroll 1
  for (int i = first; i < stages; i += cluster)
    if (const Turn soon(i); fetches_raw(shared, maps) and soon.first < length) fetch_raw(shared, maps, i, soon);
  bool begun = false;
  u64 resets = 0;
  Turn turn(first);
#pragma unroll 1
  while (turn.first < length) {
    Refill refill;
    Tier tier;
    const auto finish = [&] {
      publish_to_products();
      arrive(shared.ready[ring.stage]);
      send_operands(shared, ring.stage);
    };
    const auto advance = [&] {
      begun = true;
      last = ring;
      ring.advance(cluster);
      turn.advance(cluster);
    };
    // What is seldom lies behind this loop: warps wait for the instructions that they jump to.
#pragma unroll 1
    do {
      Stage& stage = stage_of(shared, ring.stage);
      const int left = length - turn.first;
      refill = {turn.later(stages - cluster), last.stage, last.parity, begun};
      refill.pending = begun and refill.turn.first < length;
      wait(shared.full[ring.stage], ring.parity);
      if (left < C) clear_raw_rows(stage, left);
      Decays e;
      tier = choose_tier(shared, stage, left, resets, e);
      if (tier == exact) break;
      tier = make_weak<mixed>(shared, stage, ring.stage, turn, tier, resets, e);
      if (half_io and tier == exact) {
        fetch_again<Gates>(stage, shared.task, turn);
        Gates::join();
        resets = 0;
        break;
      }
      put_fate(shared, ring.stage, tier, false, resets);
      score_weak<mixed>(shared, stage, tier, resets, [&] { refill.try_now(shared, maps); });
      finish();
      if (not has(shared, maps)) break;
      refill.finish(shared, maps);
      advance();
    } while (turn.first < length);
    if (turn.first >= length) return;
    if (tier == exact) {
      refill.try_now(shared, maps);
      make_exact(shared, stage_of(shared, ring.stage), ring.stage, turn, length - turn.first);
      finish();
    }
    refill.finish(shared, maps);
    advance();
  }
}

/// From `turn` on, until the sequence is over or a chunk is for the other loop; whether it is over.
template <Mode mode>
__device__ inline bool make_operands(Shared& shared, Turn& turn) {
  const u32 length = shared.task.length;
  Ring<mode> ring;
  Tier tier = halves;
  u64 resets = 0;
  int calm = 0;            // chunks one after the other that the loop for weak ones would take
  bool spent_all = false;  // nothing of this thread's channels outlives a block
#pragma unroll 1
  for (; turn.first < length; turn.advance(1)) {
    Stage& stage = stage_of(shared, ring.stage);
    const int left = length - turn.first;
    wait(shared.full[ring.stage], ring.parity);
    if (left < C) clear_raw_rows(stage, left);
    if constexpr (mode == weak) {
      Decays e;
      if (turn.is_first()) {
        tier = choose_tier(shared, stage, left, resets, e);
      } else {
        Gates::join();  // scores of the head before are made
        if (resets != 0) clear_resets(stage, resets);
        if (decays_kept) e = decays<tokens>(shared.task, stage, Item::of<Gates>(0), left);
      }
      if (tier < exact) tier = make_weak<mode>(shared, stage, ring.stage, turn, tier, resets, e);
      const bool leaves = tier >= exact;
      if (not leaves) score_weak<mode>(shared, stage, tier, resets, [] {});
      put_fate(shared, ring.stage, tier, leaves, resets);
      publish_to_products();
      arrive(shared.ready[ring.stage]);
      if (leaves) return false;
    } else {
      Scores scores;
      if (gate_group() == 0)
        take_diagonal(scores.near, stage, [&] {
          if (turn.is_first()) spent_all = sum_gates(shared, stage, left);
        });
      else if (turn.is_first())
        spent_all = sum_gates(shared, stage, left);
      const bool leaves = calm > patience and turn.is_first();
      put_vote(shared, leaves, spent_all);
      const Vote vote = count_votes(shared);
      if (vote == leave) {
        if constexpr (not helped) {
          put_fate(shared, ring.stage, exact, true, 0);
          arrive(shared.ready[ring.stage]);
        }
        return false;
      }
      const bool made = make_strong(shared, stage, ring.stage, turn, vote == stay_near);
      const bool near = made and vote == stay_near;
      if constexpr (not helped) put_fate(shared, ring.stage, near ? nearby : exact, false, 0);
      if (made) {
        scores.few = near;
#pragma unroll
        for (int level = 0; level < 3; ++level) scores.take<f16, mode>(shared, stage, level);
        if (near) {
          if (gate_group() == gate_groups - 1) take_before<mode>(scores.far, shared, stage);
        } else {
#pragma unroll
          for (int level = 3; level < levels; ++level) scores.take<f16, mode>(shared, stage, level);
        }
      } else {
        fetch_again<Gates>(stage, shared.task, turn);
#pragma unroll 1
        for (int level = 0; level < levels; ++level) make_wide<mode>(shared, stage, ring.stage, turn, level);
        Makers::join();
#pragma unroll 1
        for (int level = 0; level < levels; ++level) scores.take<bf16, mode>(shared, stage, level);
      }
      const bool tame = is_tame(shared.fate[ring.stage]);  // all join: A takes the place of the last level
      if (turn.is_first()) calm = tame ? calm + 1 : 0;
      scores.put(stage);
      publish_to_products();
      arrive(shared.ready[ring.stage]);
    }
    ring.advance();
  }
  return true;
}

/// Of all warpgroups, between two loops.
__device__ inline void change_loop(Shared& shared, const Maps* maps) {
  publish_to_products();
  Everyone::join();
  if (threadIdx.x == 0) {
    drop_barriers(shared);
    init_barriers(shared, maps);
  }
  Everyone::join();
}

__device__ inline void be_state(StateTile& s, Shared& shared, const Maps* maps) {
  Turn turn;
  if constexpr (cluster > 1) {
    keep_state<mixed>(s, shared, maps, turn);
  } else {
    bool strongly = false;
#pragma unroll 1
    while (not(strongly ? keep_state<strong>(s, shared, maps, turn) : keep_state<weak>(s, shared, maps, turn))) {
      strongly = not strongly;
      change_loop(shared, maps);
      fill_ring(shared, maps, turn, 0, strongly ? strong_stages : stages);
    }
  }
}
__device__ inline void be_gates(Shared& shared, const Maps* maps) {
  Turn turn;
  if constexpr (cluster > 1) {
    make_shared_operands(shared, maps);
  } else {
#pragma unroll 1
    while (not make_operands<weak>(shared, turn)) {
      change_loop(shared, maps);
      if (make_operands<strong>(shared, turn)) return;
      change_loop(shared, maps);
    }
  }
}

extern "C" __global__ void __launch_bounds__(threads, 1)
    gla_stream_wgmma(PARAMETERS, const __grid_constant__ Maps maps) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const Maps* const source = scarce or words.mapped != 0 ? &maps : nullptr;
  if (threadIdx.x == 0) {
    if (scarce) shared.mapped = words.mapped;
    shared.task = find_task<columns, 0, segment>(words);
    init_barriers(shared, source);
  }
  __syncthreads();
  if constexpr (cluster > 1) sync_cluster();  // the barriers of the others are there
  const Task& task = shared.task;
  // The state's branch comes first: with it last the compiler holds it to the registers of the launch (C7512).
  if (threadIdx.x < state_threads) {
    take_registers<state_registers>();
    // Of long chunks those from the third one on are wanted later than the state, and come after it.
    constexpr int first = C == 64 and cluster == 1 ? 2 : stages;
    fill_ring(shared, source, Turn(), 0, first);
    StateTile s;
#pragma unroll
    for (int i = 0; i < channels / 2; ++i) s[i] = 0;
    StateElements elements = {s, int(threadIdx.x) / 128};
    load_state<columns, segment>(words, task, balance, elements);
    if constexpr (first < stages) fill_ring(shared, source, Turn(), first, stages);
    if (task.length > 0) be_state(s, shared, source);
    State* const out = task.state_out;  // read once: stores may change what lies in shared memory
    if (out != nullptr)
      elements.each(task, [&](float& x, i64 offset) { out[offset] = narrow<State>(x * (1 / balance)); });
  } else {
    give_registers_back<gate_registers>();
    if (task.length > 0) be_gates(shared, source);
  }
  if constexpr (cluster > 1) sync_cluster();  // nobody sends to a CTA that is gone
}
