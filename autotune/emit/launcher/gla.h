/*
 * Kernels for Gated Linear Attention, tuned by glaive, and what launches them.
 *
 *   S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = scale * S_t^T q_t       (Yang et al. 2024, section 3)
 *
 * Open a device, make an operator for a problem, ask it for the plan of a shape, call that or prepare a launch of it.
 * One source file, gla.c, needs a C11 compiler, libc, libm, libdl and libpthread; the driver of GPUs is opened when a
 * GPU is asked for.
 *
 * Errors. Every function that can fail returns a gla_status. On failure it writes none of its outputs, and
 * gla_last_error() has one sentence: which argument, what was given, what is allowed.
 *
 * Threads. All functions may be called from any thread, closing apart. Nothing here starts a thread: a CPU's kernels
 * run where they are called, or task by task on threads of the caller's own (gla_launch_task).
 *
 * Ownership. A handle is the caller's until it is closed; closing NULL does nothing. A launch is closed before its
 * operator, an operator before its device. Buffers are the caller's, and stay until the calls that name them are over.
 */
#ifndef GLA_H
#define GLA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are those of glaive_status. */
typedef enum gla_status {
  GLA_OK = 0,
  GLA_INVALID_ARGUMENT = 1, /* outside the contract; the message names the argument */
  GLA_UNSUPPORTED = 2,      /* legal, but no kernel here covers it, or none that is tuned for it where that was asked */
  GLA_NOT_FOUND = 3,        /* no such device, or no driver */
  GLA_OUT_OF_MEMORY = 7,
  GLA_WRONG_DEVICE = 8, /* no code for this processor or GPU */
  GLA_FAILED = 9,       /* the loader or the driver failed; the message says how */
  GLA_DEVICE_LOST = 16  /* a kernel broke the process's use of a GPU: nothing on it works until the process ends */
} gla_status;

/* The sentence for the last call of this thread that did not return GLA_OK; "" before the first. */
const char* gla_last_error(void);

/* ---- what there is ---- */

/* The problems that these kernels solve, one line each as in `glaive tune`. */
typedef enum gla_problem {
  /* @problems@ */
} gla_problem;

const char* gla_problem_text(gla_problem problem); /* "forward H4 K64 V64 f32"; "" for none of them */
/* The problem of that text, which is canonical. GLA_UNSUPPORTED names those that there are. */
gla_status gla_problem_find(const char* text, gla_problem* problem);

/* ---- devices ---- */

typedef struct gla_device gla_device;

/* name: "cpu", or "cuda:0", "cuda:1" .. in the driver's order. workers: threads of the caller's that share a call by
 * gla_launch_task, 1 to 1024; 0 = 1; a GPU takes 0 or 1. Uses a GPU's primary context, as frameworks do; the thread's
 * current context is as it was when a call returns. GLA_NOT_FOUND: no such device, or no driver. */
gla_status gla_device_open(const char* name, int workers, gla_device** device);
void gla_device_close(gla_device* device);

/* ---- operators and plans ---- */

typedef struct gla_operator gla_operator;
typedef struct gla_plan gla_plan;

/* The extents of one call, as in glaive.h. Without cu_seqlens there are `sequences` of `tokens` tokens each; with it,
 * sequence b has the tokens cu_seqlens[b] .. cu_seqlens[b+1], `tokens` is their total and `longest` the most of one. */
typedef struct gla_shape {
  int64_t sequences;         /* B, 1 to 2^24 */
  int64_t tokens;            /* T, from 0; at most 2^31-1 in all; of a step at most 8 of each sequence */
  int64_t longest;           /* with cu_seqlens only */
  const int32_t* cu_seqlens; /* NULL, or B+1 numbers from 0 upwards, in memory of the device */
} gla_shape;

/* Loads every kernel that some shape of the problem can reach on this device, once. GLA_UNSUPPORTED: there is none;
 * GLA_FAILED: none of them can be loaded. */
gla_status gla_operator_create(gla_device* device, gla_problem problem, gla_operator** op);
void gla_operator_close(gla_operator* op);

typedef enum gla_match {
  GLA_MATCH_EXACT = 0,       /* tuned on this device for shapes like this one */
  GLA_MATCH_NEAREST = 1,     /* tuned on this device, for other shapes or another number of threads */
  GLA_MATCH_OTHER_DEVICE = 2 /* tuned on another device, or not at all; runs here */
} gla_match;

/* The plan for shapes like `shape`: a look-up in a table. It is lent: it lives as long as the operator. Every plan is
 * right for every shape of its problem. */
gla_status gla_operator_plan(const gla_operator* op, const gla_shape* shape, const gla_plan** plan);
/* The same, but GLA_UNSUPPORTED where the match is worse than `worst`. */
gla_status gla_operator_plan_within(const gla_operator* op, const gla_shape* shape, gla_match worst,
                                    const gla_plan** plan);

/* How a plan fits a shape, and what that may cost. */
typedef struct gla_fit {
  gla_match match;
  int32_t distance;                    /* steps, along both axes, from the shape's bucket to that it was tuned for */
  int64_t work_low, work_high;         /* that bucket: sequences x kv heads, both ends within; high -1 = no end */
  int64_t tokens_low, tokens_high;     /* tokens of the longest sequence */
  int64_t timed_sequences;             /* the shape it was timed with; 0 = unknown */
  int64_t timed_tokens, timed_longest; /* in all, and of the longest sequence */
  double regret;   /* expected time lost against a plan tuned for the shape, as a share of that plan's; NaN = unknown */
  double headroom; /* time above the machine's limit where it was timed, as a share of the limit; NaN = unknown */
} gla_fit;

gla_status gla_plan_fit(const gla_plan* plan, const gla_shape* shape, gla_fit* fit);
const char* gla_plan_variant(const gla_plan* plan); /* "stream(C=64,...)"; "" for NULL */
const char* gla_plan_target(const gla_plan* plan);  /* what its code is for, "cuda:sm_90a"; "" for NULL */

/* Bytes of workspace that a call needs for `shape`; may be 0. Enough for all workers of a CPU. */
gla_status gla_plan_workspace(const gla_plan* plan, const gla_shape* shape, size_t* bytes);
/* Enough for every call of at most these sequences, tokens in all, and tokens of one sequence. */
gla_status gla_operator_workspace(const gla_operator* op, const gla_shape* largest, size_t* bytes);

/* ---- calls ---- */

/* Bits that kernels OR into the device status word, as in glaive.h. */
typedef enum gla_fault { GLA_FAULT_SLOT = 1, GLA_FAULT_LENGTHS = 2 } gla_fault;

/* The tensors of a call, as in glaive.h: strides count elements, 0 = contiguous; pointers lie in memory of the device
 * and are aligned to their element. Sequence b starts from slot read_slots[b] of initial_state and leaves its last
 * state in slot write_slots[b] of final_state; -1 = zero, or discarded; a NULL array stands for 0, 1, .. B-1. */
typedef struct gla_args {
  const void* q;             /* [B,T,H,K] */
  const void* k;             /* [B,T,Hkv,K] */
  const void* v;             /* [B,T,Hkv,V] */
  const void* g;             /* [B,T,Hkv,K] */
  void* o;                   /* [B,T,H,V], written; overlaps no other buffer */
  const void* initial_state; /* [slots,Hkv,K,V] or [slots,Hkv,V,K]; NULL: every sequence starts from zero */
  void* final_state;         /* NULL: discarded; may be initial_state with the same strides */
  const int32_t* read_slots;
  const int32_t* write_slots;
  int64_t slots;           /* places in each of the two; may be 0 (= B) without slot arrays */
  uint32_t* device_status; /* one word, never cleared here; NULL = none */
  void* stream;            /* a GPU's CUstream; NULL = its default. A CPU has none */
  int64_t q_token_stride, q_head_stride;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  int64_t g_token_stride, g_head_stride;
  int64_t o_token_stride, o_head_stride;
  int64_t initial_state_slot_stride, initial_state_head_stride;
  int64_t final_state_slot_stride, final_state_head_stride;
  float scale;      /* 0 or NaN = K^-0.5 */
  float gate_tau;   /* logit gates only: above 0; 0 = 1 */
  float gate_clamp; /* logit gates only: below 0; 0 = none */
} gla_args;

/* Computes o and, where given, final_state. workspace: gla_plan_workspace() bytes or more, aligned to 64, in memory of
 * the device. On a CPU the call runs on this thread and is over when this returns; on a GPU it is then enqueued on
 * args->stream. Allocates nothing and takes no lock. */
gla_status gla_run(const gla_plan* plan, const gla_shape* shape, const gla_args* args, void* workspace,
                   size_t workspace_bytes);

typedef struct gla_launch gla_launch;

/* Checks a call as gla_run does and keeps it, to be run again and again. What `shape` and `args` point to stays where
 * it is; its contents, slot numbers and cu_seqlens within the prepared extents included, may change between runs. */
gla_status gla_launch_prepare(const gla_plan* plan, const gla_shape* shape, const gla_args* args, void* workspace,
                              size_t workspace_bytes, gla_launch** launch);
/* Runs it once: no check, no lock, nothing allocated or formatted. */
gla_status gla_launch_run(const gla_launch* launch);
void gla_launch_close(gla_launch* launch);

/* On a CPU, for engines with threads of their own: for each stage in order, every task from 0 once, on any thread, and
 * all of them before the next stage. Threads that run at the same time are different workers, from 0 to the device's
 * workers - 1: each has scratch memory of its own. A GPU has no such stages: 0. */
int gla_launch_stages(const gla_launch* launch);
int64_t gla_launch_tasks(const gla_launch* launch, int stage);
void gla_launch_task(const gla_launch* launch, int stage, int64_t task, int worker);

#ifdef __cplusplus
}
#endif

#endif
