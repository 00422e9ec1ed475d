// State warpgroups: the state in registers, and o.
/// O^T (+)= a q~^T for the first tokens, as many as O has.
template <int from, int n, int parts>
__device__ inline void multiply_queries(float (&o)[n], const u32 (&a)[parts][4], u64 query) {
  begin_products();
#pragma unroll
  for (int i = 0; i < parts; ++i) {
    const int d = from + 16 * i;
    multiply_registers<Io, 0>(o, a[i], query + d / 64 * (panel_bytes >> 4) + d % 64 / 8, d > 0);
  }
}
/// O^T += S^T q~^T over channels from .. to - 1; S decays before or after, or not at all. `near`: only the first block
/// asks.
template <int from, int to>
__device__ inline void ask_state(float (&o)[C / 2], StateTile& s, const float* decay, bool before, bool after,
                                 bool near, u64 query) {
  u32 a[(to - from) / 16][4];
  if constexpr (from > 0) commit_products();
  if (before) decay_state<from, to>(s, decay);
#pragma unroll
  for (int n = 0; n < (to - from) / 16; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* const x = s + (from + 16 * n) / 2 + 2 * i;
      a[n][i] = narrow_pair<Io>(x[0], x[1]);
    }
  if constexpr (from > 0) {
    wait_products<0>();
    hold(o);
  }
  if (after) decay_state<from, to>(s, decay);
  if (not near) return multiply_queries<from>(o, a, query);
  if (from == 0)
#pragma unroll
    for (int i = 4; i < C / 2; ++i) o[i] = 0;
  multiply_queries<from>(reinterpret_cast<float(&)[4]>(o), a, query);
}

/// S^T (+)= V^T k~ over tokens from 16 first on.
template <int first>
__device__ inline void learn(StateTile& s, u64 value, u64 key, bool add) {
  begin_products();
#pragma unroll
  for (int n = first; n < C / 16; ++n) multiply_shared<Io, 1, 1>(s, value + n * 128, key + n * 128, n > first or add);
  commit_products();
}

/// O^T [64 of V, C tokens] into this warpgroup's panel of v, as rows of tokens.
__device__ inline void put_out(const float (&o)[C / 2], float scale, char* panel) {
  const int lane = thread_again() % 32, w = thread_again() / 32 % 4;
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
__device__ inline void send_out(const Task& task, int state_group, const Turn& turn, const char* panel) {
  const int left = task.length - turn.first, end = min(64, V - task.column - 64 * state_group);
  const int t0 = thread_again() % 128 / 8, p = thread_again() % 8;
  const i64 stride = task.o.token;
  Io* out = task.o.at(i64(turn.first) + t0, turn.head) + 64 * state_group + 8 * p;
  const char* from = panel + t0 * 128 + ((p ^ t0 % 8) << 4);
  if (task.o.aligned() and end % 8 == 0) {
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

/// In a cluster: o of a chunk leaves as a box, if the chunk is whole, from this warpgroup's panel; v of a later chunk
/// comes to where o of the chunk before has been read by now. Two warps take turns: each does one of both.
template <class Boxes>
__device__ inline void exchange_boxes(const Boxes& maps, Shared& shared, int stage, const Turn& turn, char* panel,
                                      bool begun) {
  static_assert(cluster == 1 or stages % 2 == 0, "the warps' turns go by stages");
  const Task& task = shared.task;
  const int state_group = thread_again() / 128;
  const bool whole = u32(task.length) - turn.first >= u32(C);
  if (not whole) {
    sync<128>(2 + state_group);
    send_out(task, state_group, turn, panel);
  }
  publish_to_products();
  sync<128>(2 + state_group);
  const u32 thread = thread_again() % 128, mine = u32(stage) % 2 * 32;
  if (whole and thread == mine)
    send_box(maps.o, task.column + 64 * state_group, task.head * group + turn.head, int(task.first + turn.first),
             panel);
  const Turn later = turn.later(stages - 1);
  if (thread == 32 - mine and begun and later.first < u32(task.length)) {
    wait_sent();
    fetch_chunk(shared, &maps, (stage == 0 ? stages : stage) - 1, later);
  }
}

/// The part of state warpgroups in the operands of a strong chunk; true where it is for the other loop. `near`: whether
/// nothing outlives a block.
__device__ inline bool help(Shared& shared, int stage, const Turn& turn, bool& near);

/// The chunks that follow `turn`, those for the stages from .. to - 1.
__device__ inline void fill_ring(Shared& shared, const Maps* maps, const Turn& turn, int from, int to) {
  if (not fetches(shared, maps)) return;
#pragma unroll 1
  for (int i = from; i < to; ++i)
    if (const Turn soon = turn.later(i); soon.first < u32(shared.task.length)) fetch_chunk(shared, maps, i, soon);
}

/// From `turn` on, until the sequence is over or a chunk is for the other loop; whether it is over.
template <Mode mode>
__device__ inline bool keep_state(StateTile& s, Shared& shared, const Maps* maps, Turn& turn) {
  constexpr bool helps = helped and mode == strong;
  const Task& task = shared.task;
  const int state_group = threadIdx.x / 128;
  // Read where it is used: registers are scarce. u32: chunks end beyond a length that fills an int.
  const auto length = [&] { return u32(*static_cast<const volatile int*>(&task.length)); };
  Ring<mode> ring;
  bool leaves = false, begun = false, near = false;
#pragma unroll 1
  do {
    Stage& stage = stage_of(shared, ring.stage);
    const Fate& fate = shared.fate[ring.stage];
    char* const panel = stage.v + state_group * panel_bytes;
    wait(cluster == 1 ? shared.full[ring.stage] : shared.received[ring.stage], ring.parity);
    if (const int left = length() - turn.first; left < C) {
      clear_rows<128, 128>(panel, left, thread_again() % 128);
      publish_to_products();
      sync<128>(2 + state_group);
    }
    if constexpr (helps) {
      leaves = help(shared, ring.stage, turn, near);
      // All have met: the stage before this one is free.
      const Turn soon = turn.later(stages_of<mode> - 1);
      if (begun and not leaves and fetches(shared, maps) and soon.first < length())
        fetch_chunk(shared, maps, (ring.stage == 0 ? stages_of<mode> : ring.stage) - 1, soon);
    } else {
      if (makes(ring.stage)) wait(shared.ready[ring.stage], ring.parity);
      if constexpr (cluster == 1) leaves = __shfl_sync(~0u, fate.leave, 0) != 0;
      if constexpr (mode == strong) near = __shfl_sync(~0u, fate.tier, 0) == nearby;
    }
    if (leaves) break;
    const bool is_weak = mode == mixed ? __shfl_sync(~0u, fate.tier, 0) < exact : mode == weak;
    const bool at_first = is_weak and not half_io;
    const bool before = at_first and turn.is_first(), after = not at_first and turn.is_last() and not near;
    const bool forgets = mode != strong and __shfl_sync(~0u, u32(fate.resets != 0), 0) != 0;
    const u64 query = rows_operand(stage.q), value = columns_operand(panel, panel_bytes);
    float o[C / 2];
    const float* const decay = fate.decay + thread_again() % 4 * 2;
    if constexpr (channels <= 128) {
      ask_state<0, channels>(o, s, decay, before, after, near, query);
    } else {  // in parts: registers are scarce
      ask_state<0, 64>(o, s, decay, before, after, near, query);
      ask_state<64, 128>(o, s, decay, before, after, near, query);
      ask_state<128, 192>(o, s, decay, before, after, near, query);
      ask_state<192, channels>(o, s, decay, before, after, near, query);
    }
    if constexpr (helps) wait(shared.ready[ring.stage], ring.parity);
    if constexpr (mode == strong)
      begin_products();  // behind a branch ptxas wants to be told, or runs all by themselves
    // From the place of q~: to ask again whether it is the same for a warp takes as long as a load.
    const u64 score = query + (stage.g - stage.q >> 4);
    const u64 key = query + (stage.k - stage.q >> 4) + (u64((panel_bytes >> 4) - 1) << 16);
#pragma unroll
    for (int n = 0; n < C / 16; ++n) multiply_shared<Io, 1, 0>(o, value + n * 128, score + n * 2, 1);
    commit_products();
    if (turn.is_last()) {
      if (near)
        learn<C / 16 - 1>(s, value, key, false);
      else
        learn<0>(s, value, key, not forgets);
      wait_products<0>();
      hold(s);
    } else {
      wait_products<0>();
    }
    hold(o);
    if constexpr (cluster > 1) {  // all but v, whose place o takes
      __syncwarp();
      if (thread_again() % 32 == 0 and turn.later(stages_of<mode>).first < length())
        arrive_at(shared.clear[ring.stage], ring.stage % cluster);
    }
    put_out(o, task.scale, panel);
    if (cluster > 1 and has(shared, maps)) {
      if constexpr (cluster > 1) exchange_boxes(*maps, shared, ring.stage, turn, panel, begun);
    } else {
      sync<128>(2 + state_group);
      send_out(task, state_group, turn, panel);
      publish_to_products();
      if constexpr (not helps) {
        arrive(shared.empty[ring.stage]);
        const Turn later = turn.later(stages_of<mode>);
        if (fetches(shared, maps) and later.first < length()) {
          wait(shared.empty[ring.stage], ring.parity);
          fetch_chunk(shared, maps, ring.stage, later);
        }
      }
    }
    ring.advance();
    turn.advance(1);
    begun = true;
  } while (turn.first < length());
  if constexpr (cluster > 1) wait_sent();
  if (not leaves) return true;
  // What was fetched for this loop is awaited before its place is used otherwise.
  const int fetched = stages_of<mode> - (helps and begun ? 1 : 0);
#pragma unroll 1
  for (int i = 1; i < fetched; ++i) {
    ring.advance();
    if (turn.later(i).first < length()) wait(shared.full[ring.stage], ring.parity);
  }
  return false;
}
