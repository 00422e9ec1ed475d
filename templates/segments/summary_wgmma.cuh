// The seeds of segments (task.cuh) as summary.cuh has them, on Hopper: chunks come as boxes, and warpgroup w sums up
// S^T += V^T k~ for its columns 64 w .. 64 w + 63 of V as accumulators of wgmma. From the segment's end back: k~ = k
// times all decays behind it, so that nothing that is summed up ever decays again, and -inf is legal.
constexpr int tokens = C * pairs / threads, runs = C / tokens;  // a thread has two channels of a run of tokens
static_assert(segment % C == 0, "whole chunks");
static_assert(tokens % 8 == 0 and threads % pairs == 0, "a thread keeps to its channels");

struct Stage {
  char v[value_groups * panel_bytes];
  char k[tile_bytes];  // raw, then k~
  char g[gate_bytes];
};
struct __align__(1024) Shared {
  Stage stage[stages];
  float total[runs][channels];  // products of the decays of a run
  Barrier full[stages];
  Task task;
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

struct Maps {  // in the order of the plan
  TensorMap k, v, g;
};

/// A chunk, by its first token in the segment; by one thread of each warp where there are maps, else by all: a box
/// takes the warp that begins it 150 clocks.
__device__ inline void fetch_chunk(Shared& shared, const Maps* maps, int stage, int first) {
  const Task& task = shared.task;
  Stage& to = shared.stage[stage];
  Barrier& full = shared.full[stage];
  if (maps == nullptr) {
    copy_rows<Gate, channels, gates_in_tile, threads>(to.g, task.g, task.g.at(first), C, K, threadIdx.x);
    copy_rows<Io, channels, true, threads>(to.k, task.k, task.k.at(first), C, K, threadIdx.x);
    copy_rows<Io, columns, true, threads>(to.v, task.v, task.v.at(first), C, min(columns, V - task.column),
                                          threadIdx.x);
    return arrive(full);
  }
  if (threadIdx.x % 32 != 0) return;
  const int token = int(task.first) + first, warp = threadIdx.x / 32;
  if (warp == 0) arrive_expecting(full, sizeof(Stage));
#pragma unroll
  for (int i = 0; i < panels; i += threads / 32) {
    const int p = i + warp;
    if (p >= panels) break;
    copy_box(to.k + p * panel_bytes, maps->k, 64 * p, task.head, token, full);
    if (gates_in_tile) copy_box(to.g + p * panel_bytes, maps->g, 64 * p, task.head, token, full);
  }
  const int w = threads / 32 - 1 - warp;  // the warps that have begun least
  if (w < value_groups) copy_box(to.v + w * panel_bytes, maps->v, task.column + 64 * w, task.head, token, full);
  if (not gates_in_tile and w == value_groups) copy_box(to.g, maps->g, 0, task.head, token, full);
}

/// A thread's two channels and tokens.
struct Run {
  int pair, number;
  __device__ Run() : pair(threadIdx.x % pairs), number(threadIdx.x / pairs) {}
  __device__ u32& in(char* tile, int t) const {
    const int row = number * tokens + t;
    return *reinterpret_cast<u32*>(tile + pair / 32 * panel_bytes + row * 128 + ((pair % 32 / 4 ^ row % 8) << 4) +
                                   pair % 4 * 4);
  }
  __device__ float2 decay(const Task& task, Stage& stage, int t) const {
    float2 raw;
    if constexpr (gates_in_tile)
      raw = widen_pair<Gate>(in(stage.g, t));
    else
      raw = *reinterpret_cast<const float2*>(stage.g + ((number * tokens + t) * channels + 2 * pair) * 4);
    return {exp2_fast(task.log2_decay(raw.x)), exp2_fast(task.log2_decay(raw.y))};
  }
};

/// k~ of a chunk in place; `after`: the decays behind the chunk, then with it.
__device__ inline void make_keys(Shared& shared, Stage& stage, float2& after) {
  const Run run;
  float2 e[tokens];
  u32 k[tokens];
#pragma unroll
  for (int t = 0; t < tokens; ++t) e[t] = run.decay(shared.task, stage, t);
#pragma unroll
  for (int t = 0; t < tokens; ++t) k[t] = run.in(stage.k, t);
  float2 product = e[0];
#pragma unroll
  for (int t = 1; t < tokens; ++t) product = product * e[t];
  *reinterpret_cast<float2*>(&shared.total[run.number][2 * run.pair]) = product;
  __syncthreads();
  float2 tell = after;
#pragma unroll
  for (int r = 0; r < runs; ++r) {
    const float2 x = *reinterpret_cast<const float2*>(&shared.total[r][2 * run.pair]);
    tell = tell * either(r > run.number, x, float2{1, 1});
    after = after * x;
  }
#pragma unroll
  for (int t = tokens - 1; t >= 0; --t) {
    const float2 x = widen_pair<Io>(k[t]) * tell;
    run.in(stage.k, t) = narrow_pair<Io>(x.x, x.y);
    tell = tell * e[t];
  }
}

extern "C" __global__ void __launch_bounds__(threads, ctas)
    gla_summary(PARAMETERS, const __grid_constant__ Maps all_maps) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const Maps* const maps = words.mapped != 0 ? &all_maps : nullptr;
  let_next_stage_begin();
  const Place place = find_place<columns, segment>(words);
  const u32 j = place.segment;
  if (threadIdx.x == 0) {
    shared.task = find_task<columns, 0, segment>(words, {place.head, j == 0 ? 0 : j - 1, place.tile, place.segments});
    for (int i = 0; i < stages; ++i) init_barrier(shared.full[i], maps != nullptr ? 1 : threads);
    publish_barriers();
  }
  __syncthreads();
  const Task& task = shared.task;
  if (j > 0 and task.after == 0) return;
  StateTile s;
#pragma unroll
  for (int i = 0; i < channels / 2; ++i) s[i] = 0;
  StateElements elements = {s, int(threadIdx.x) / 128};
  const int channel = 2 * (threadIdx.x % pairs);
  float2 after = {1, 1};
  bool alone = j == 0;
  if (j == 0) {
    const State* const from = task.state_in;
    if (from != nullptr) elements.each(task, [&](float& x, i64 offset) { x = widen(from[offset]); });
  } else {
    constexpr int chunks = segment / C;
    for (int i = 0; i < min(stages, chunks); ++i) fetch_chunk(shared, maps, i, segment - C * (i + 1));
    int i = 0, stage = 0, fetched = min(stages, chunks);
    u32 parity = 0;
#pragma unroll 1
    do {
      Stage& here = shared.stage[stage];
      wait(shared.full[stage], parity);
      make_keys(shared, here, after);
      publish_to_products();
      wait_products<0>();  // of the chunk behind this one
      hold(s);
      alone = __syncthreads_and((channel >= K or after.x < faded) and (channel + 1 >= K or after.y < faded));
      const u64 value = columns_operand(here.v + threadIdx.x / 128 * panel_bytes, panel_bytes),
                key = columns_operand(here.k, panel_bytes);
      begin_products();
#pragma unroll
      for (int n = 0; n < C / 16; ++n) multiply_shared<Io, 1, 1>(s, value + n * 128, key + n * 128, 1);
      commit_products();
      if (i > 0 and fetched < chunks and not alone)
        fetch_chunk(shared, maps, (stage == 0 ? stages : stage) - 1, segment - C * ++fetched);
      if (++stage == stages) stage = 0, parity ^= 1;
      ++i;
    } while (i < chunks and not alone);
    wait_products<0>();
    hold(s);
    // What is under way comes before the CTA goes.
    for (; i < fetched; ++i) {
      wait(shared.full[stage], parity);
      if (++stage == stages) stage = 0, parity ^= 1;
    }
  }
  const Seeds seeds(words, place);
  elements.tiles(task, [&](float* x, int value_tile, int key_tile) {
    if (Seeds::has(value_tile, key_tile)) *seeds.at(j, value_tile, key_tile) = {x[0], x[1], x[2], x[3]};
  });
  if (place.tile > 0) return;
  float* const decay = seeds.decay + i64(j) * Seeds::decay_pitch;
  for (int d = channels + int(threadIdx.x); d < Seeds::decay_pitch; d += threads) decay[d] = 0;
  if (threadIdx.x < pairs) {
    if (channel < Seeds::decay_pitch) decay[channel] = alone or channel >= K ? 0 : after.x;
    if (channel + 1 < Seeds::decay_pitch) decay[channel + 1] = alone or channel + 1 >= K ? 0 : after.y;
  }
}
