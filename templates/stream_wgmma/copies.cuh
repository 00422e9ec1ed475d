// How chunks come into their stages: by the copy engine, as boxes; or by the threads that want them.
constexpr int value_bytes = state_groups * panel_bytes, raw_bytes = 2 * tile_bytes + gate_bytes;
constexpr int sent_bytes = 2 * tile_bytes + score_bytes;  // q~, k~ and A: one after the other

/// C rows of a tensor, those past the sequence's end too: gate warpgroups clear them. The share of the `warp`-th of
/// `warps` warps: a box takes the one that begins it 150 clocks.
template <int warps>
__device__ inline void begin_raw_boxes(Shared& shared, const Maps& maps, Stage& to, const Turn& turn, Barrier& full,
                                       int warp) {
  const int token = int(shared.task.first + turn.first), head = shared.task.head;
#pragma unroll
  for (int i = 0; i < panels; i += warps) {
    const int p = i + warp;
    if (p >= panels) break;
    if (gates_in_tile) copy_box(to.g + p * panel_bytes, maps.g, 64 * p, head, token, full);
    copy_box(to.q + p * panel_bytes, maps.q, 64 * p, head * group + turn.head, token, full);
    copy_box(to.k + p * panel_bytes, maps.k, 64 * p, head, token, full);
  }
  if (not gates_in_tile and warp == 0) copy_box(to.g, maps.g, 0, head, token, full);
}
/// The panel of a state warpgroup.
__device__ inline void begin_value_box(Shared& shared, const Maps& maps, Stage& to, const Turn& turn, Barrier& full,
                                       int state_group) {
  copy_box(to.v + state_group * panel_bytes, maps.v, shared.task.column + 64 * state_group, shared.task.head,
           int(shared.task.first + turn.first), full);
}

template <int count>
__device__ inline void copy_raw_rows(const Task& task, Stage& to, const Turn& turn, int thread) {
  const int left = task.length - turn.first;
  copy_rows<Gate, channels, gates_in_tile, count>(to.g, task.g, task.g.at(turn.first), left, K, thread);
  copy_rows<Io, channels, true, count>(to.q, task.q, task.q.at(turn.first, turn.head), left, K, thread);
  copy_rows<Io, channels, true, count>(to.k, task.k, task.k.at(turn.first), left, K, thread);
}
__device__ inline void copy_value_rows(const Task& task, Stage& to, const Turn& turn) {
  copy_rows<Io, columns, true, state_threads>(to.v, task.v, task.v.at(turn.first), task.length - turn.first,
                                              min(columns, V - task.column), thread_again());
}

/// Whether there are maps. `maps` is null where there are none, unless registers are scarce.
__device__ inline bool has(const Shared& shared, const Maps* maps) {
  if constexpr (scarce) return *static_cast<const volatile u64*>(&shared.mapped) != 0;
  return maps != nullptr;
}
/// Whether this state thread has a part in fetch_chunk().
__device__ inline bool fetches(const Shared& shared, const Maps* maps) {
  return not has(shared, maps) or (cluster == 1 ? thread_again() : thread_again() % 128) == 0;
}

/// By state warpgroups. In a cluster v alone, as boxes each warpgroup its own panel: the CTA that makes operands
/// fetches what it makes them of.
__device__ inline void fetch_chunk(Shared& shared, const Maps* maps, int stage, const Turn& turn) {
  Stage& to = stage_of(shared, stage);
  if constexpr (cluster == 1) {
    Barrier& full = shared.full[stage];
    if (has(shared, maps)) {
      arrive_expecting(full, raw_bytes + value_bytes);
      begin_raw_boxes<1>(shared, *maps, to, turn, full, 0);
#pragma unroll
      for (int w = 0; w < state_groups; ++w) begin_value_box(shared, *maps, to, turn, full, w);
    } else {
      copy_raw_rows<state_threads>(shared.task, to, turn, thread_again());
      copy_value_rows(shared.task, to, turn);
      arrive(full);
    }
  } else {
    Barrier& received = shared.received[stage];
    const int state_group = thread_again() / 128;
    const u32 sent = state_group > 0 or makes(stage) ? 0 : sent_bytes + sizeof(Fate);
    if (has(shared, maps)) {
      arrive_expecting(received, sent + panel_bytes);
      begin_value_box(shared, *maps, to, turn, received, state_group);
    } else {
      if (thread_again() % 128 == 0) arrive_expecting(received, sent);
      copy_value_rows(shared.task, to, turn);
      arrive(received);
    }
  }
}
/// Whether this gate thread has a part in fetch_raw(): one of each warp has.
__device__ inline bool fetches_raw(const Shared& shared, const Maps* maps) {
  return not has(shared, maps) or thread_again() % 32 == 0;
}
/// By gate warpgroups, in a cluster.
__device__ inline void fetch_raw(Shared& shared, const Maps* maps, int stage, const Turn& turn) {
  Stage& to = stage_of(shared, stage);
  Barrier& full = shared.full[stage];
  if (has(shared, maps)) {
    const int warp = Gates::index() / 32;
    if (warp == 0) arrive_expecting(full, raw_bytes);
    begin_raw_boxes<gate_threads / 32>(shared, *maps, to, turn, full, warp);
  } else {
    copy_raw_rows<gate_threads>(shared.task, to, turn, Gates::index());
    arrive(full);
  }
}
__device__ inline void init_barriers(Shared& shared, const Maps* maps) {
#pragma unroll 1
  for (int i = 0; i < stages; ++i) {
    init_barrier(shared.full[i], has(shared, maps) ? 1 : cluster > 1 ? gate_threads : state_threads);
    init_barrier(shared.ready[i], gate_threads);
    init_barrier(shared.empty[i], state_threads);
    init_barrier(shared.received[i], state_groups + (has(shared, maps) ? 0 : state_threads));
    init_barrier(shared.clear[i], cluster * state_threads / 32);
  }
  publish_barriers();
}

__device__ inline void drop_barriers(Shared& shared) {
#pragma unroll 1
  for (int i = 0; i < stages; ++i)
    for (Barrier* const barrier :
         {&shared.full[i], &shared.ready[i], &shared.empty[i], &shared.received[i], &shared.clear[i]})
      drop_barrier(*barrier);
}

/// Zeros in the rows past the sequence's end, where boxes bring what lies behind it; by `count` threads.
template <int count, int row_bytes>
__device__ inline void clear_rows(char* tile, int left, int thread) {
#pragma unroll 1
  for (int at = row_bytes * left + 16 * thread; at < row_bytes * C; at += 16 * count)
    *reinterpret_cast<uint4*>(tile + at) = uint4{0, 0, 0, 0};
}
__device__ inline void clear_raw_rows(Stage& stage, int left) {
#pragma unroll
  for (int p = 0; p < panels; ++p) {
    clear_rows<gate_threads, 128>(stage.q + p * panel_bytes, left, Gates::index());
    clear_rows<gate_threads, 128>(stage.k + p * panel_bytes, left, Gates::index());
    if (gates_in_tile) clear_rows<gate_threads, 128>(stage.g + p * panel_bytes, left, Gates::index());
  }
  if (not gates_in_tile) clear_rows<gate_threads, 4 * channels>(stage.g, left, Gates::index());
  publish_to_products();
  Gates::join();
}
