// Forward on Hopper: S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t, chunk by chunk of C tokens.
//
// DATA     A CTA owns `columns` columns of V of one kv head, for all of K and all tokens of its sequence. Tiles of
//          tokens [C, channels] lie in shared memory as panels of 64 channels, rows of 128 bytes, swizzled for wgmma.
//          The state lies transposed in registers as accumulators of wgmma, fp32, which serve as left operands too:
//          state warpgroup w has columns 64 w .. 64 w + 63 of V.
// ROLES    Chunks come as boxes into a ring of stages, asked for by one thread; where tensors allow no maps, all
//          threads of a role copy. State warpgroups hold the state and make o. Gate warpgroups turn q and k into
//          operands, in place, and make the scores A. Barriers of each stage join them:
//              copies --full--> gates --ready--> state --empty--> copies
// CHUNK    G is log2 of the decays. R(t) = sum of G after t, P(t) = sum up to t, in the chunk. k~ = k 2^R is the key
//          into the outgoing state. Where decays are weak, q~ = q 2^-R asks the state as it will have decayed by the
//          chunk's end, and A = tril(q~ k~^T) from copies in fp16. Else q~ = q 2^P asks the incoming state, and A comes
//          by halving: for b = 1, 2, 4 .. C / 2 the second half of every 2 b tokens against the first, from one matrix
//          X in fp16 whose rows are q times the decay since the middle there and k times the decay up to the middle
//          here; X X^T has the scores. The diagonal is q . k itself. No factor exceeds 1, so that -inf is legal.
//              O^T = S^T q~^T + V^T A^T,   S^T = S^T Diag(decay) + V^T k~    (weak: S decays before O, else after)
// MODES    Weak chunks want stages, the others tiles for the levels of halving, and neither shall pay for the other:
//          each has a loop of its own. Where a chunk does not suit the loop, all warpgroups leave it together and the
//          other one goes on from there. Operands of strong chunks take long: where registers suffice the state
//          warpgroups, which would wait for them, make their share (`helped`).
// NEAR     Where nothing outlives a block of 8 tokens, scores of a strong chunk reach no further than the block before:
//          levels 0 .. 2, and in place of those above one product of all q 2^P with all k 2^R, P and R within blocks.
//          The first block alone asks the state, which is forgotten then, and learns from the last block alone.
// RESETS   Tokens before which all channels are forgotten (decay 0) leave a chunk weak: they count as if they did not
//          decay, A ends at them, then q~ behind the first and k~ before the last are 0, and S is when k~ is added.
// CLUSTER  CTAs that have the tiles of V of one head may share operands: chunk i is made by CTA i % cluster, which
//          sends q~, k~, A and decays to the others' stages. There is one loop then; halving takes the levels in turns,
//          rows of near chunks the place of q and k, and the state is asked and told by zeros elsewhere.
//          Stages are few, and are given back in two steps: all but v once it has been multiplied, for the next raw
//          tensors; the panels of v, through which o leaves as boxes, a chunk later.
// GROUP    Query heads of one kv head take turns at a chunk, each with a stage of its own: the first has S decay if the
//          chunk is weak, the last has S decay if it is not, and adds to it.
// NUMBERS  S and k~ are kept at `balance` times their values and q~ at 1 / balance, the range of fp16 in mind.
// FP16     With io in fp16 all operands are. q~ = q 2^P in weak chunks too, where q 2^-R might pass the range, so that
//          S decays after O, and A = tril(q~ k^^T) from k^ = k 2^-P: whether that fits is up to k alone, hence the same
//          for all heads of a group.
constexpr int state_groups = columns / 64, state_threads = 128 * state_groups, gate_threads = 128 * gate_groups;
constexpr int blocks = C / 8, levels = C == 64 ? 6 : 5;
constexpr int score_bytes = 128 * C;
constexpr bool half_io = not is_bf16<Io>;
constexpr float balance = half_io ? 1 : 64;
constexpr int patience = 1;                                 // weak chunks that the loop for strong ones puts up with
constexpr float weak_limit = (half_io ? -6 : -8) * log2_e;  // of a channel's sum of G over a chunk
constexpr float split_limit = half_io ? weak_limit : -80 * log2_e;
constexpr float spent = -40;                   // log2 of decays of which scores keep nothing
constexpr float forgotten = -126;              // log2 of decays that are 0
constexpr float no_decay = logit ? 1e30f : 0;  // as a raw gate
static_assert(threads == state_threads + gate_threads, "a thread for every lane");

struct Stage {
  char v[state_groups * panel_bytes];  // a panel for each state warpgroup; o leaves through it
  char q[tile_bytes], k[tile_bytes];   // raw, then operands
  char g[gate_bytes];                  // then copies of q~ or the last level, then A: C rows of 128 bytes
};
/// Of a stage whose operands another CTA makes: there are no gates, but A.
constexpr int received_bytes = sizeof(Stage) - gate_bytes + score_bytes;
constexpr int ring_bytes = stages / cluster * (sizeof(Stage) + (cluster - 1) * received_bytes);

enum Mode : int { weak, strong, mixed };  // which chunks a loop is for
/// How a chunk's scores are made. Weak decays: from fp16, or from two parts in bf16 where R or q or k pass the range of
/// fp16. Others by halving: from fp16 or, where q or k pass its range, from bf16. With io in fp16 never from bf16.
/// Nearby: exact, where nothing outlives a block.
enum Tier : int { halves, split, exact, nearby };

template <Mode mode>
constexpr int stages_of = mode == strong ? strong_stages : stages;

/// What the state must know of a chunk beside its operands.
struct __align__(16) Fate {
  float decay[channels];  // 2^ of the sum of G over the chunk
  u32 tier, leave;        // leave: the chunk is for the other loop
  u64 resets;             // a bit for each token
};
/// Registers are so scarce that whether there are maps would be spilled: it is looked up.
constexpr bool scarce = cluster > 1 and segment > 0;
struct __align__(1024) Shared {
  char memory[memory_bytes];  // stages, then tiles; of chunks shorter than 64, products read as much again behind them
  float total[blocks][channels];  // weak chunks: products of the decays of a run; others: sums of G over 8 tokens
  Fate fate[stages];
  Barrier full[stages], ready[stages], empty[stages];
  Barrier received[stages];  // cluster: v is there, and operands that another CTA makes
  Barrier clear[stages];     // cluster: all CTAs are done with a stage that this one fills, but for v
  u64 resets[panels];        // of a chunk, as each panel has them
  unsigned char votes[8];    // of gate warps, on a strong chunk
  Task task;
  u64 mapped;  // whether there are maps, where `scarce`
};
static_assert(sizeof(Shared) == shared_bytes, "the plan's shared memory");

/// Whether this CTA makes the operands of a stage.
__device__ inline bool makes(int stage) { return cluster == 1 or u32(stage) % cluster == cta_in_cluster<cluster>(); }

/// Where a stage is in the memory of a CTA of the cluster.
__device__ inline Stage& stage_of(Shared& shared, int stage, u32 cta) {
  const int full_before = cluster == 1 ? stage : (stage + cluster - 1 - int(cta)) / cluster;
  return *reinterpret_cast<Stage*>(shared.memory + stage * received_bytes +
                                   full_before * int(sizeof(Stage) - received_bytes));
}
__device__ inline Stage& stage_of(Shared& shared, int stage) {
  return stage_of(shared, stage, cta_in_cluster<cluster>());
}

/// Where rows of a level of halving lie; of weak chunks the copies of q~ in the last one's place, of k~ in the first's.
template <Mode mode>
__device__ inline char* level_tile(Shared& shared, Stage& stage, int level) {
  if (gates_in_tile and level == levels - 1) return stage.g;
  if (mode == strong) return shared.memory + strong_stages * sizeof(Stage) + level * tile_bytes;
  return shared.memory + ring_bytes + (level == levels - 1 ? tile_bytes : 0);
}

/// A place in the ring of stages, and the parity of its barriers' phase.
template <Mode mode>
struct Ring {
  int stage = 0;
  u32 parity = 0;

  __device__ void advance(int by = 1) {
    stage += by;
    if (stage < stages_of<mode>) return;
    stage -= stages_of<mode>;
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
  __device__ Turn later(int turns) const {
    Turn turn = *this;
    turn.advance(turns);
    return turn;
  }
  __device__ bool is_first() const { return group == 1 or head == 0; }
  __device__ bool is_last() const { return group == 1 or head == group - 1; }
};

/// Threads that do something together, `count` of them from `first` on, joined by the barrier `id`.
template <int first, int count, int id>
struct Crew {
  static constexpr int threads = count, barrier = id;
  static constexpr int items = pairs * blocks / count;  // of a thread
  __device__ static int index() { return int(thread_again()) - first; }
  __device__ static void join() { sync<id, count>(); }
  __device__ static bool all(bool mine) { return sync_and<id, count>(mine); }
};
using Gates = Crew<state_threads, gate_threads, 1>;
using Everyone = Crew<0, threads, 2 + state_groups>;  // each state warpgroup has a barrier of its own before it
using FirstGates = Crew<state_threads, 128, Everyone::barrier + 1>;
/// Who makes operands of strong chunks.
using Makers =
    Crew<helped ? 0 : state_threads, helped ? threads : gate_threads, helped ? Everyone::barrier : Gates::barrier>;
static_assert(Gates::items > 0 and gate_threads % pairs == 0 and pairs % 32 == 0, "a thread keeps to its channels");
static_assert(Makers::items * Makers::threads == pairs * blocks, "all items are made");

template <bool with_o>
struct MapsOf {  // in the order of the plan
  TensorMap q, k, v, g;
};
template <>
struct MapsOf<true> {
  TensorMap q, k, v, g, o;
};
using Maps = MapsOf<(cluster > 1)>;
