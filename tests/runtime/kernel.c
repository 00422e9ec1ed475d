/* A GLA forward in plain C with a Stage's signature, so that the runtime is tested without a compiler back end.
 * H = 2 * Hkv, K = V = WIDTH, f32. One task is one (sequence, kv head); scratch holds the state. */
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>

/* begin: what the tests on a GPU compile as CUDA, too. */
#ifndef WIDTH
#define WIDTH 8
#endif
enum { K = WIDTH, V = WIDTH };

/* The order of the arguments in support.hpp. */
enum {
  Q, K_, V_, G, O, IN, OUT, CU, QT, QH, KT, KH, VT, VH, GT, GH, OT, OH, INS, INH, OUTS, OUTH, LONGEST, HEADS, KV, SCALE,
  READS, WRITES, SLOTS, STATUS, TOKENS
};

static void report(const uint64_t* w, uint32_t fault) {
  if (w[STATUS]) __atomic_fetch_or((uint32_t*)w[STATUS], fault, __ATOMIC_RELAXED);
}

/* The slot of a sequence, -1 where there is none to be touched. */
static int64_t slot_of(const uint64_t* w, int array, int64_t b) {
  const int64_t slot = w[array] ? ((const int32_t*)w[array])[b] : b;
  if (slot >= -1 && slot < (int64_t)w[SLOTS]) return slot;
  report(w, 1);
  return -1;
}

void forward(const uint64_t* w, int64_t task, void* scratch) {
  const int64_t kv_heads = (int64_t)w[KV], group = (int64_t)w[HEADS] / kv_heads;
  const int64_t b = task / kv_heads, head = task % kv_heads;
  const int32_t* cu = (const int32_t*)w[CU];
  int64_t begin = cu ? cu[b] : b * (int64_t)w[LONGEST], end = cu ? cu[b + 1] : begin + (int64_t)w[LONGEST];
  if (begin < 0 || end < begin || end > (int64_t)w[TOKENS]) {
    report(w, 2);
    begin = end = 0;
  }
  float* s = (float*)scratch;
  float scale;
  memcpy(&scale, &w[SCALE], sizeof scale);
  const int64_t read = w[IN] ? slot_of(w, READS, b) : -1, write = w[OUT] ? slot_of(w, WRITES, b) : -1;
  if (read >= 0)
    memcpy(s, (const float*)w[IN] + read * (int64_t)w[INS] + head * (int64_t)w[INH], K * V * sizeof *s);
  else
    memset(s, 0, K * V * sizeof *s);
  for (int64_t t = begin; t < end; ++t) {
    const float* k = (const float*)w[K_] + t * (int64_t)w[KT] + head * (int64_t)w[KH];
    const float* v = (const float*)w[V_] + t * (int64_t)w[VT] + head * (int64_t)w[VH];
    const float* g = (const float*)w[G] + t * (int64_t)w[GT] + head * (int64_t)w[GH];
    for (int i = 0; i < K; ++i)
      for (int j = 0; j < V; ++j) s[i * V + j] = expf(g[i]) * s[i * V + j] + k[i] * v[j];
    for (int64_t h = head * group; h < (head + 1) * group; ++h) {
      const float* q = (const float*)w[Q] + t * (int64_t)w[QT] + h * (int64_t)w[QH];
      float* o = (float*)w[O] + t * (int64_t)w[OT] + h * (int64_t)w[OH];
      for (int j = 0; j < V; ++j) {
        float sum = 0;
        for (int i = 0; i < K; ++i) sum += q[i] * s[i * V + j];
        o[j] = scale * sum;
      }
    }
  }
  if (write >= 0) memcpy((float*)w[OUT] + write * (int64_t)w[OUTS] + head * (int64_t)w[OUTH], s, K * V * sizeof *s);
}

/* end */

/* For the order of stages: the first writes task numbers into the workspace, the second sums all of them into o. */
void write_numbers(const uint64_t* w, int64_t task, void* scratch) {
  (void)scratch;
  ((int64_t*)w[0])[task] = task + 1;
}
void sum_numbers(const uint64_t* w, int64_t task, void* scratch) {
  (void)task;
  *(int64_t*)scratch = 0; /* the scratch is ours alone */
  for (int64_t i = 0; i < (int64_t)w[2]; ++i) *(int64_t*)scratch += ((const int64_t*)w[0])[i];
  *(int64_t*)w[1] = *(int64_t*)scratch;
}

/* Notes where its scratch is, and stays until as many tasks as w[1] have come, so that each has a worker of its own. */
void note_scratch(const uint64_t* w, int64_t task, void* scratch) {
  int64_t* o = (int64_t*)w[0];
  o[1 + task] = (int64_t)scratch;
  __atomic_add_fetch(&o[0], 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&o[0], __ATOMIC_SEQ_CST) < (int64_t)w[1]) sched_yield();
}

/* Distinguishes one code object from another: built once with 1, once with 2. */
void which(const uint64_t* w, int64_t task, void* scratch) {
  (void)task;
  (void)scratch;
  *(int64_t*)w[0] = WHICH;
}
