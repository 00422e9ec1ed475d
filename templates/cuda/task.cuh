// What a CTA works on. Every index that came from memory is checked against the extents of the call; what is out of
// range counts as none and raises a bit of the device status.
constexpr float log2_e = 1.4426950408889634f;
constexpr float log2_faded = -48, faded = 0x1p-48;  // a decay that leaves nothing after rounding

/// log2(1 + x) for x in [0, 1], good to 1.4e-6 of itself: lg2.approx is not, and 1 + x loses the digits of a small x,
/// of which thousands of tokens make a large error.
__device__ inline float log2_of_one_plus(float x) {
  float y = 0.020401182f;
  y = fmaf(y, x, -0.09579754f);
  y = fmaf(y, x, 0.21528453f);
  y = fmaf(y, x, -0.33908904f);
  y = fmaf(y, x, 0.47766837f);
  y = fmaf(y, x, -0.72115946f);
  return fmaf(y, x, 1.4426932f) * x;
}

__device__ inline float as_scalar(u64 word) { return __uint_as_float(u32(word)); }

/// Rows of one tensor: token t of query head n of the group is at base + t * token + n * head, in elements.
template <class T>
struct Rows {
  T* base;
  i64 token, head;

  __device__ T* at(i64 t, i64 n = 0) const { return base + t * token + n * head; }
  /// Whether every row can be read in pieces of 16 bytes.
  __device__ bool aligned() const {
    return (u64(base) % 16 | u64(token) * sizeof(T) % 16 | (group > 1 ? u64(head) * sizeof(T) % 16 : 0)) == 0;
  }
};

template <class T>
__device__ inline Rows<T> rows_of(u64 base, u64 token, u64 head, i64 first_token, i64 first_head, int column) {
  return {reinterpret_cast<T*>(base) + first_token * i64(token) + first_head * i64(head) + column, i64(token),
          i64(head)};
}

struct Task {
  int length;  ///< tokens of the sequence
  int column;  ///< of V, where this CTA's tile begins
  Rows<const Io> q, k;
  Rows<const Gate> g;
  Rows<const Io> v;  ///< v and o from the tile's first column
  Rows<Io> o;
  const State* state_in;  ///< of the head, from the tile's first column; null = zero
  State* state_out;       ///< null = discarded
  float scale;
  float inverse_tau, clamp;  ///< of raw logits; the clamp times log2 e
  int head;                  ///< of k and v
  int after;                 ///< tokens of the sequence behind these
  i64 first;                 ///< token of the call with which the sequence begins

  /// log2 of a channel's decay, from the gate as it lies in memory.
  __device__ float log2_decay(float gate) const {
    if constexpr (not logit) return gate * log2_e;
    // logsigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
    const float below = gate < 0 ? gate * log2_e : 0;
    const float log_sigmoid = below - log2_of_one_plus(exp2_fast(-fabsf(gate) * log2_e));
    const float decay = log_sigmoid * inverse_tau;
    return decay < clamp ? clamp : decay;
  }
};

__device__ inline void raise_fault(const Words& words, u32 bit) {
  if (words.device_status != 0 and threadIdx.x == 0) atomicOr(reinterpret_cast<u32*>(words.device_status), bit);
}

/// CTAs are numbered by sequence and kv head, segment of `segment` tokens (0: all), and tile of `columns` of V.
struct Place {
  u32 head, segment, tile;  ///< head: sequence * kv heads + kv head
  u32 segments;             ///< of the longest sequence, at least 1
};
template <int columns, int segment>
__device__ inline Place find_place(const Words& words) {
  constexpr int tiles = (V + columns - 1) / columns;
  const u32 tile = blockIdx.x % tiles, rest = blockIdx.x / tiles;
  if constexpr (segment == 0) return {rest, 0, tile, 1};
  const u32 segments = words.longest == 0 ? 1 : u32((words.longest - 1) / max(segment, 1)) + 1;
  return {rest / segments, rest % segments, tile, segments};
}

/// Of a sequence longer than `most_tokens` only so many are seen (0: all).
template <int columns, int most_tokens, int segment>
__device__ Task find_task(const Words& words, const Place& place) {
  const u32 kv_heads = u32(words.kv_heads);
  const i64 sequence = place.head / kv_heads, head = place.head % kv_heads;
  Task task;
  task.column = int(place.tile) * columns;

  i64 first = sequence * i64(words.longest);
  i64 length = i64(words.longest);
  if (words.cu_seqlens != 0) {
    const int* const sums = reinterpret_cast<const int*>(words.cu_seqlens) + sequence;
    const i64 from = sums[0], to = sums[1], total = i64(words.tokens);
    first = min(max(from, 0ll), total);
    i64 last = min(max(to, first), total);
    if (most_tokens > 0) last = min(last, first + most_tokens);
    length = last - first;
    if (first != from or last != to) raise_fault(words, lengths_fault);
  }
  task.after = 0;
  bool ends = true;  // whether the sequence does with these tokens
  if constexpr (segment > 0) {
    if (length > i64(words.longest)) raise_fault(words, lengths_fault);  // there is no CTA for the rest
    const i64 from = i64(place.segment) * segment, left = min(length, i64(words.longest)) - from;
    ends = place.segment == 0 ? left <= segment : left > 0 and left <= segment;
    first += from;
    length = min(max(left, 0ll), i64(segment));
    task.after = int(max(left - segment, 0ll));
  }
  task.length = int(length);
  task.first = first;
  task.head = int(head);

  const auto state = [&](u64 base, u64 table, u64 slot_stride, u64 head_stride) -> State* {
    i64 slot = sequence;
    if (base != 0 and table != 0) {
      slot = reinterpret_cast<const int*>(table)[sequence];
      if (slot < -1 or slot >= i64(words.slots)) {
        raise_fault(words, slot_fault);
        slot = -1;
      }
    }
    if (base == 0 or slot < 0) return nullptr;
    return reinterpret_cast<State*>(base) + slot * i64(slot_stride) + head * i64(head_stride) +
           i64(task.column) * (k_first ? 1 : K);
  };
  task.state_in = state(words.state_in, words.read_slots, words.state_in_slot, words.state_in_head);
  task.state_out =
      ends ? state(words.state_out, words.write_slots, words.state_out_slot, words.state_out_head) : nullptr;

  task.q = rows_of<const Io>(words.q, words.q_token, words.q_head, first, head * group, 0);
  task.k = rows_of<const Io>(words.k, words.k_token, words.k_head, first, head, 0);
  task.g = rows_of<const Gate>(words.g, words.g_token, words.g_head, first, head, 0);
  task.v = rows_of<const Io>(words.v, words.v_token, words.v_head, first, head, task.column);
  task.o = rows_of<Io>(words.o, words.o_token, words.o_head, first, head * group, task.column);

  task.scale = as_scalar(words.scale);
  if constexpr (logit) {
    task.inverse_tau = 1 / as_scalar(words.gate_tau);
    task.clamp = as_scalar(words.gate_clamp) * log2_e;
  }
  return task;
}
template <int columns, int most_tokens, int segment = 0>
__device__ Task find_task(const Words& words) {
  return find_task<columns, most_tokens, segment>(words, find_place<columns, segment>(words));
}

/// What the segments of a head hand on, in the workspace. Seed 0 is the state that the call starts from, seed j + 1
/// what segment j alone leaves. Segment i starts from
///     (.. (seed_0 decay_1 + seed_1) decay_2 + ..) decay_i + seed_i,
/// decay_j of each channel over segment j - 1, 0 where nothing outlives that segment.
struct Seeds {
  static constexpr int value_tiles = (V + 15) / 16, key_tiles = (K + 7) / 8;
  static constexpr int seed_floats = value_tiles * key_tiles * 128;
  static constexpr int decay_pitch = (K + 127) / 128 * 128;  // zeros behind K

  float* seed;  ///< fp32, of the transposed state, by tiles [16 of V, 8 of K] in the order of a warp's accumulators
  float* decay;

  __device__ Seeds(const Words& words, const Place& place) {
    const i64 all = i64(words.sequences) * i64(words.kv_heads) * place.segments;
    const i64 first = i64(place.head) * place.segments;
    float* const base = reinterpret_cast<float*>(words.workspace);
    seed = base + first * seed_floats;
    decay = base + all * seed_floats + first * decay_pitch;
  }
  __device__ static bool has(int value_tile, int key_tile) { return value_tile < value_tiles and key_tile < key_tiles; }
  /// Where a lane has its four elements of a tile of seed j.
  __device__ float4* at(u32 j, int value_tile, int key_tile) const {
    return reinterpret_cast<float4*>(seed + i64(j) * seed_floats) + (value_tile * key_tiles + key_tile) * 32 +
           threadIdx.x % 32;
  }
  /// The first seed of which segment `end` feels anything; for whole warps.
  __device__ u32 first_felt(u32 end) const {
    constexpr int parts = decay_pitch / 128, batch = 8 / parts;  // of which loads are under way together
    const float4* const mine = reinterpret_cast<const float4*>(decay) + threadIdx.x % 32;
    float4 left[parts];
#pragma unroll
    for (int p = 0; p < parts; ++p) left[p] = {1, 1, 1, 1};
#pragma unroll 1
    for (u32 first = end; first > 0; first -= min(first, u32(batch))) {
      float4 found[batch][parts];
#pragma unroll
      for (int i = 0; i < batch; ++i)
#pragma unroll
        for (int p = 0; p < parts; ++p)
          found[i][p] = mine[(i64(max(first, u32(i) + 1)) - i) * (decay_pitch / 4) + 32 * p];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        bool felt = false;
#pragma unroll
        for (int p = 0; p < parts; ++p) {
          float4& x = left[p];
          const float4& e = found[i][p];
          x = {x.x * e.x, x.y * e.y, x.z * e.z, x.w * e.w};
          felt = felt or not(x.x < faded and x.y < faded and x.z < faded and x.w < faded);
        }
        if (first > i and not __any_sync(~0u, felt)) return first - i;
      }
    }
    return 0;
  }
};

/// The state that a CTA starts from, times `factor`, into `elements`, which are 0: each(task, body) calls body(element,
/// offset in a state) for all that a thread has; tiles(task, body) calls body(four elements, value tile, key tile);
/// decay(decays) multiplies them by what their channels have there.
template <int columns, int segment, class Elements>
__device__ inline void load_state(const Words& words, const Task& task, float factor, Elements& elements) {
  if constexpr (segment == 0) {
    const State* const from = task.state_in;  // read once: stores may change what lies in shared memory
    if (from != nullptr) elements.each(task, [&](float& x, i64 offset) { x = factor * widen(from[offset]); });
  } else {
    wait_for_stage_before();
    if (task.length == 0 and task.state_out == nullptr) return;
    const Place place = find_place<columns, segment>(words);
    const Seeds seeds(words, place);
#pragma unroll 1
    for (u32 first = seeds.first_felt(place.segment), j = first; j <= place.segment; ++j) {
      if (j > first) elements.decay(seeds.decay + i64(j) * Seeds::decay_pitch);
      // No branch, so that the loads of all tiles are under way at once.
      elements.tiles(task, [&](float* x, int value_tile, int key_tile) {
        const bool present = V % columns == 0 ? key_tile < Seeds::key_tiles : Seeds::has(value_tile, key_tile);
        const float4 y = *seeds.at(j, present ? value_tile : 0, present ? key_tile : 0);
        const float scale = present ? factor : 0;
        x[0] += scale * y.x, x[1] += scale * y.y, x[2] += scale * y.z, x[3] += scale * y.w;
      });
    }
  }
}
