// How chunks come into their stages: by the copy engine, as boxes; or by the threads of the state warpgroups.
/// C rows of all tensors, those past the sequence's end too: gate warpgroups clear them.
__device__ inline void fetch_boxes(Shared& shared, const Maps& maps, int stage, const Turn& turn) {
  const Task& task = shared.task;
  Stage& to = shared.stage[stage];
  Barrier& full = shared.full[stage];
  const int token = int(task.first + turn.first), head = task.head;
  arrive_expecting(full, 2 * tile_bytes + gate_bytes + state_groups * panel_bytes);
#pragma unroll
  for (int p = 0; p < panels; ++p) {
    if (gates_in_tile) copy_box(to.g + p * panel_bytes, maps.g, 64 * p, head, token, full);
    copy_box(to.q + p * panel_bytes, maps.q, 64 * p, head * group + turn.head, token, full);
    copy_box(to.k + p * panel_bytes, maps.k, 64 * p, head, token, full);
  }
  if (not gates_in_tile) copy_box(to.g, maps.g, 0, head, token, full);
#pragma unroll
  for (int w = 0; w < state_groups; ++w)
    copy_box(to.v + w * panel_bytes, maps.v, task.column + 64 * w, head, token, full);
}

/// C rows from `begin` on into a tile, zeros past the ends; whether they come in the background.
template <class T, int padded, bool swizzled>
__device__ inline bool fetch(char* tile, const Rows<const T>& rows, const T* begin, int left, int width) {
  constexpr int piece = 16 / sizeof(T), pieces = padded / piece, step = state_threads / pieces;
  const int p = threadIdx.x % pieces, t0 = threadIdx.x / pieces;
  const i64 stride = rows.token;
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

__device__ inline void fetch_rows(Shared& shared, int stage, const Turn& turn) {
  const Task& task = shared.task;
  Stage& to = shared.stage[stage];
  const int left = task.length - turn.first;
  bool background = fetch<Gate, channels, gates_in_tile>(to.g, task.g, task.g.at(turn.first), left, K);
  background &= fetch<Io, channels, true>(to.q, task.q, task.q.at(turn.first, turn.head), left, K);
  background &= fetch<Io, channels, true>(to.k, task.k, task.k.at(turn.first), left, K);
  background &= fetch<Io, columns, true>(to.v, task.v, task.v.at(turn.first), left, min(columns, V - task.column));
  if (background) return arrive_when_copied(shared.full[stage]);
  wait_for_copies();
  arrive(shared.full[stage]);
}

/// Whether this thread has a part in copies. `maps`: null where there are none.
__device__ inline bool fetches(const Maps* maps) { return maps == nullptr or thread_again() == 0; }

__device__ inline void fetch_chunk(Shared& shared, const Maps* maps, int stage, const Turn& turn) {
  if (maps != nullptr)
    fetch_boxes(shared, *maps, stage, turn);
  else
    fetch_rows(shared, stage, turn);
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
