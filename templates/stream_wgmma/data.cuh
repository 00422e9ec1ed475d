// Forward on Hopper: S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t, chunk by chunk of C tokens.
//
// DATA     A CTA owns `columns` columns of V of one kv head, for all of K and all tokens of its sequence. Tiles of
//          tokens [C, channels] lie in shared memory as panels of 64 channels, rows of 128 bytes, swizzled for wgmma.
//          The state lies transposed in registers as accumulators of wgmma, fp32, which serve as left operands too:
//          state warpgroup w has columns 64 w .. 64 w + 63 of V.
// ROLES    Chunks come as boxes into a ring of stages, asked for by one thread of the state warpgroups; where tensors
//          allow no maps, all their threads copy. State warpgroups hold the state and make o. Gate warpgroups turn q
//          and k into operands, in place, and make the scores A. Three barriers a stage join them:
//              copies --full--> gates --ready--> state --empty--> copies
// CHUNK    G is log2 of the decays. R(t) = sum of G after t, P(t) = sum up to t, in the chunk. k~ = k 2^R is the key
//          into the outgoing state. Where decays are weak, q~ = q 2^-R asks the state as it will have decayed by the
//          chunk's end, and A = tril(q~ k~^T) from copies in fp16. Else q~ = q 2^P asks the incoming state, and A comes
//          by halving: for b = 1, 2, 4 .. C / 2 the second half of every 2 b tokens against the first, from one matrix
//          X in fp16 whose rows are q times the decay since the middle there and k times the decay up to the middle
//          here; X X^T has the scores. The diagonal is q . k itself. No factor exceeds 1, so that -inf is legal.
//              O^T = S^T q~^T + V^T A^T,   S^T = S^T Diag(decay) + V^T k~    (weak: S decays before O, else after)
// GROUP    Query heads of one kv head take turns at a chunk, each with a stage of its own: the first decides the tier
// and
//          has S decay if it is weak, the last has S decay if it is not, and adds to it.
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

/// A chunk, by its first token, and a query head of the group.
struct Turn {
  u32 first = 0;
  int head = 0;

  __device__ explicit Turn(int number = 0) { advance(number); }
  __device__ void advance(int turns) {
    first += (head + turns) / group * C;
    head = (head + turns) % group;
  }
  __device__ bool is_first() const { return group == 1 or head == 0; }
  __device__ bool is_last() const { return group == 1 or head == group - 1; }
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
using ::exp2_fast;
__device__ inline float2 exp2_fast(float2 a) { return {exp2_fast(a.x), exp2_fast(a.y)}; }

struct Maps {  // in the order of the plan
  TensorMap q, k, v, g;
};
