// The seeds of segments (task.cuh). For every segment that another follows, what it alone leaves in the state,
//     sum over its tokens of (k_t 2^R(t)) v_t^T,    R(t) = sum of G after t, up to the segment's end,
// and 2^ of the sum of G over it; first of all the state that the call starts from, since the next stage may write its
// final state into the same memory.
//
// From a segment's end back to its beginning, in chunks of C tokens: nothing that is summed up ever decays again, no
// exponent is positive, and -inf is legal. Once every channel has faded the rest is left out.
constexpr int runs = C / 8;  // of 8 tokens
static_assert(segment % C == 0, "whole chunks");

struct __align__(16) Shared {
  Task task;
  Io k[2][C][io_pitch], v[2][C][raw_value_pitch];  // raw; one is filled while the other is used
  Gate g[2][C][gate_pitch];
  bf16 value[2][raw_values ? 1 : C][value_pitch];  // operands: hi, lo
  bf16 key[parts][C][operand_pitch];
  float total[runs][channels];  // of G over 8 tokens
  float after[2][channels];     // of G over the chunks behind this one, and with it
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

__device__ void fetch_chunk(Shared& shared, int buffer, int first) {
  const Task& task = shared.task;
  fetch<channels, gate_pitch>(shared.g[buffer][0], task.g.at(first), task.g.token, task.g.aligned(), C, K);
  fetch<channels, io_pitch>(shared.k[buffer][0], task.k.at(first), task.k.token, task.k.aligned(), C, K);
  fetch<columns, raw_value_pitch>(shared.v[buffer][0], task.v.at(first), task.v.token, task.v.aligned(), C,
                                  min(columns, V - task.column));
}

/// body(run, channel) for two channels of 8 tokens at a time.
template <class Body>
__device__ inline void each_item(Body body) {
  for (int i = threadIdx.x; i < channels / 2 * runs; i += threads) body(i / (channels / 2), 2 * (i % (channels / 2)));
}

__device__ inline float2 log2_decays(const Shared& shared, int buffer, int t, int d) {
  const float2 raw = load_pair(&shared.g[buffer][t][d]);
  return {shared.task.log2_decay(raw.x), shared.task.log2_decay(raw.y)};
}

__device__ void sum_gates(Shared& shared, int buffer) {
  each_item([&](int run, int d) {
    float2 sum = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 g = log2_decays(shared, buffer, 8 * run + i, d);
      sum.x += g.x, sum.y += g.y;
    }
    *reinterpret_cast<float2*>(&shared.total[run][d]) = sum;
  });
}

__device__ void make_keys(Shared& shared, int buffer) {
  each_item([&](int run, int d) {
    float2 after = load_pair(&shared.after[buffer][d]);
    for (int r = runs - 1; r > run; --r) after.x += shared.total[r][d], after.y += shared.total[r][d + 1];
    float2 k[8], g[8];  // first of all: the compiler moves no load over a store
#pragma unroll
    for (int i = 0; i < 8; ++i)
      k[i] = load_pair(&shared.k[buffer][8 * run + i][d]), g[i] = log2_decays(shared, buffer, 8 * run + i, d);
#pragma unroll
    for (int i = 7; i >= 0; --i) {
      const int t = 8 * run + i;
      const Split key = split(k[i].x * exp2_fast(after.x), k[i].y * exp2_fast(after.y));
      *reinterpret_cast<u32*>(&shared.key[0][t][d]) = key.hi;
      if constexpr (parts == 2) *reinterpret_cast<u32*>(&shared.key[parts - 1][t][d]) = key.lo;
      after.x += g[i].x, after.y += g[i].y;
    }
  });
}

/// Takes the chunk's G to that behind it; whether all channels of this thread have faded.
__device__ bool sum_after(Shared& shared, int buffer) {
  bool all = true;
  for (int d = threadIdx.x; d < channels; d += threads) {
    float sum = shared.after[buffer][d];
#pragma unroll
    for (int r = 0; r < runs; ++r) sum += shared.total[r][d];
    shared.after[1 - buffer][d] = sum;
    all = all and (d >= K or sum < log2_faded);
  }
  return all;
}

extern "C" __global__ void __launch_bounds__(threads, ctas) gla_summary(PARAMETERS) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  let_next_stage_begin();
  const Place place = find_place<columns, segment>(words);
  const u32 j = place.segment;
  if (threadIdx.x == 0)
    shared.task = find_task<columns, 0, segment>(words, {place.head, j == 0 ? 0 : j - 1, place.tile, place.segments});
  for (int d = threadIdx.x; d < channels; d += threads) shared.after[0][d] = 0;
  __syncthreads();
  const Task& task = shared.task;
  if (j > 0 and task.after == 0) return;
  State16 state;
  state.clear();
  bool alone = j == 0;
  int buffer = 0;
  if (j == 0) {
    if (task.state_in != nullptr) state.each(task, [&](float& x, i64 offset) { x = widen(task.state_in[offset]); });
  } else {
    fetch_chunk(shared, 0, segment - C);
#pragma unroll 1
    for (int first = segment - C; first >= 0 and not alone; first -= C, buffer = 1 - buffer) {
      wait_for_copies();
      __syncthreads();
      if (first > 0) fetch_chunk(shared, 1 - buffer, first - C);
      sum_gates(shared, buffer);
      make_values(shared, buffer);
      __syncthreads();
      make_keys(shared, buffer);
      alone = __syncthreads_and(sum_after(shared, buffer));
      absorb(state, shared, buffer);
    }
    wait_for_copies();
  }
  const Seeds seeds(words, place);
  state.tiles(task, [&](float* x, int value_tile, int key_tile) {
    if (Seeds::has(value_tile, key_tile)) *seeds.at(j, value_tile, key_tile) = {x[0], x[1], x[2], x[3]};
  });
  if (place.tile > 0) return;
  for (int d = threadIdx.x; d < Seeds::decay_pitch; d += threads)
    seeds.decay[i64(j) * Seeds::decay_pitch + d] = alone or d >= K ? 0 : exp2_fast(shared.after[buffer][d]);
}
