// What kernels for sm_90a need beyond ptx.cuh: barriers in shared memory, copies of boxes (TMA), barriers of some
// warps, and products of warpgroups (wgmma), whose instructions are generated for the widths in use. Nothing here
// compiles for other GPUs.

// ---- barriers in shared memory: `count` arrivals end a phase; phases have parity 0, 1, 0 ...
using Barrier = u64;
__device__ inline void init_barrier(Barrier& barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(count) : "memory");
}
__device__ inline void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
/// Arrives, and the phase does not end before `bytes` of boxes are there.
__device__ inline void arrive_expecting(Barrier& barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
/// Until the phase of this parity has ended.
__device__ inline void wait(Barrier& barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra done;\nbra "
      "again;\ndone:\n}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

/// Whether it has.
__device__ inline bool has_ended(Barrier& barrier, u32 parity) {
  u32 ended;
  asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(ended)
               : "r"(shared_address(&barrier)), "r"(parity)
               : "memory");
  return ended != 0;
}
/// Its place may be initialised again.
__device__ inline void drop_barrier(Barrier& barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

/// Of barriers initialised so far, to the copy engine.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// ---- boxes of a tensor, which the copy engine (TMA) brings
struct __align__(128) TensorMap {  // made by the host
  u64 opaque[16];
};
/// The box that begins with this channel, head and token, in the background; the barrier's phase is told its bytes.
/// Called by one thread.
__device__ inline void copy_box(void* shared, const TensorMap& map, int channel, int head, int token,
                                Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
          "r"(shared_address(shared)),
      "l"(&map), "r"(channel), "r"(head), "r"(token), "r"(shared_address(&barrier))
      : "memory");
}

/// The way back, in the background, of what has been published; what lies outside of the tensor is left out. Called by
/// one thread, which waits before the place is used for something else.
__device__ inline void send_box(const TensorMap& map, int channel, int head, int token, const void* shared) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(channel), "r"(head), "r"(token), "r"(shared_address(shared))
      : "memory");
}
/// Until all boxes that this thread has sent are read from shared memory.
__device__ inline void wait_sent() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// ---- CTAs of a cluster: the same variable of another one is at the same place in its shared memory
template <int cluster>
__device__ inline u32 cta_in_cluster() {
  u32 rank = 0;
  if constexpr (cluster > 1) asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// Joins all threads of the cluster.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
__device__ inline void arrive_at(Barrier& barrier, u32 cta) {
  asm volatile(
      "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there];}" ::
          "r"(shared_address(&barrier)),
      "r"(cta)
      : "memory");
}
/// `bytes`, a multiple of 16, to another CTA's shared memory in the background; its barrier is told of them. Called by
/// one thread.
__device__ inline void copy_to(u32 cta, void* to, const void* from, u32 bytes, Barrier& barrier) {
  asm volatile(
      "{.reg .b32 there, done; mapa.shared::cluster.u32 there, %0, %4; mapa.shared::cluster.u32 done, %3, %4;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [there], [%1], %2, [done];}" ::"r"(
          shared_address(to)),
      "r"(shared_address(from)), "r"(bytes), "r"(shared_address(&barrier)), "r"(cta)
      : "memory");
}

// ---- barriers of `count` threads, numbered from 1
template <int id, int count>
__device__ inline void sync() {
  asm volatile("barrier.cta.sync %0, %1;" ::"n"(id), "n"(count) : "memory");
}
template <int count>
__device__ inline void sync(int id) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "n"(count) : "memory");
}
/// Whether all of the threads give true.
template <int id, int count>
__device__ inline bool sync_and(bool mine) {
  u32 all;
  asm volatile("{.reg .pred a, b; setp.ne.u32 a, %1, 0; barrier.cta.red.and.pred b, %2, %3, a; selp.u32 %0, 1, 0, b;}"
               : "=r"(all)
               : "r"(u32(mine)), "n"(id), "n"(count)
               : "memory");
  // The same for a warp, and seen to be by the compiler. (Of logits ptxas takes a vote badly: C7511.)
  return logit ? __shfl_sync(~0u, all, 0) != 0 : __all_sync(~0u, all) != 0;
}

/// Bits that any lane of a warp has.
__device__ inline u32 any_bits(u32 mine) {
  u32 any;
  asm volatile("redux.sync.or.b32 %0, %1, 0xffffffff;" : "=r"(any) : "r"(mine));
  return any;
}

/// threadIdx.x, read again: what follows from it is computed where it is used, and not kept, and spilled, over a loop.
__device__ inline u32 thread_again() {
  u32 x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

/// 1 / x, good to about 2^-23.
__device__ inline float inverse_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <class T>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<bf16> = true;

/// Products of two pairs of 16-bit elements.
template <class T>
__device__ inline u32 multiply_pairs(u32 a, u32 b) {
  u32 x;
  if constexpr (is_bf16<T>)
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
  else
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(x) : "r"(a), "r"(b));
  return x;
}
/// The larger of two pairs' magnitudes in fp16, for each half.
__device__ inline u32 larger_pair(u32 a, u32 b) {
  u32 x;
  asm("{.reg .b32 t; abs.f16x2 t, %2; max.f16x2 %0, %1, t;}" : "=r"(x) : "r"(a), "r"(b));
  return x;
}

/// Registers of each thread of a warpgroup, from what the kernel was launched with.
template <int count>
__device__ inline void give_registers_back() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

/// Four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void store_matrices(void* row, u32 m0, u32 m1, u32 m2, u32 m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)), "r"(m0),
               "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}
/// The same, transposed.
__device__ inline void store_transposed(void* row, u32 m0, u32 m1, u32 m2, u32 m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
               "r"(m0), "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}

// ---- products of a warpgroup. Operands in shared memory are tiles of rows of 128 bytes, in panels of 64 elements, the
// pieces of 16 bytes of row r in the order piece ^ (r % 8) (SWIZZLE_128B); a tile begins at a multiple of 1024.
/// Ordinary stores to shared memory so far are seen by products and precede boxes that are begun after the next
/// barrier.
__device__ inline void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
/// The results of products, once they have been waited for: nothing reads them before this line.
template <int n>
__device__ inline void hold(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

/// Where a tile begins, without the CTA of a cluster that the upper bits of its address name. The same for a warp, and
/// seen to be by the compiler, which else moves every operand of every product into uniform registers by itself.
__device__ inline u64 place_of(const void* tile) { return __shfl_sync(~0u, (shared_address(tile) & 0x3ffff) >> 4, 0); }
/// An operand whose rows run along the sum (K-major): 16 elements on are 2 on, within a panel.
__device__ inline u64 rows_operand(const void* tile) {
  return place_of(tile) | u64(1) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}
/// An operand whose columns run along the sum (MN-major): 16 rows on are 128 on.
__device__ inline u64 columns_operand(const void* tile, int panel_bytes) {
  return place_of(tile) | u64(panel_bytes >> 4) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}
