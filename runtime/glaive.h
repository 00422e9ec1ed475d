/*
 * glaive: tuned Gated Linear Attention kernels, called from host code.
 *
 *   S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = scale * S_t^T q_t        (Yang et al. 2024, Gated Linear
 * Attention)
 *
 * Open a device and a pack, find the plan for a problem and a shape, ask how much workspace it needs, call it.
 *
 * Errors. Every function that can fail returns a glaive_status. On failure it writes none of its outputs, and
 * glaive_last_error() has one sentence: which argument, what was given, what is allowed.
 * Threads. All functions may be called from any thread; calls on one CPU device queue up, as they share its workers.
 * glaive_forward allocates nothing.
 * Ownership. A handle is the caller's until it is closed; closing NULL does nothing. A plan keeps alive what it needs
 * of its device and its pack, so handles may be closed in any order. The caller owns every buffer. Trust. Packs are
 * native code. A file that group or others may write to, or that belongs to someone other than root and the caller, is
 * refused with GLAIVE_UNTRUSTED. Open only packs that you would run as a program. Versions. Every struct starts with
 * its size, as the caller was compiled: `glaive_args args = {sizeof args};`. Fields left zero take their default, so
 * that a program built against an older header keeps its meaning.
 */
#ifndef GLAIVE_H
#define GLAIVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GLAIVE_API __attribute__((visibility("default")))
#else
#define GLAIVE_API
#endif

#define GLAIVE_VERSION_MAJOR 0
#define GLAIVE_VERSION_MINOR 1
#define GLAIVE_VERSION_PATCH 0

typedef enum glaive_status {
  GLAIVE_OK = 0,
  GLAIVE_INVALID_ARGUMENT = 1, /* outside the contract; the message names the argument */
  GLAIVE_UNSUPPORTED = 2,      /* legal, but the pack has no kernel for it that runs here */
  GLAIVE_NOT_FOUND = 3,        /* no such file or device */
  GLAIVE_BAD_PACK = 4,         /* truncated, altered, foreign or newer file */
  GLAIVE_UNTRUSTED = 5,        /* a file that others could have written */
  GLAIVE_IO_ERROR = 6,         /* the operating system refused a read */
  GLAIVE_OUT_OF_MEMORY = 7,
  GLAIVE_WRONG_DEVICE = 8, /* code made for another target than this machine */
  GLAIVE_FAILED = 9,       /* the loader or a thread failed; the message says which */
  GLAIVE_OUT_OF_SLOTS = 10, /* a pool has no slot, or no sequence, left; nothing has changed */
  GLAIVE_STALE = 11,        /* a sequence that was released, or never was */
  GLAIVE_FOREIGN = 12,      /* a sequence of another pool, or a snapshot of another shape */
  GLAIVE_LOST = 13,         /* a sequence whose state was overwritten by a batch that was not committed */
  GLAIVE_OUT_OF_ORDER = 14, /* what the state of the batch or of the sequence does not allow now */
  GLAIVE_BAD_SNAPSHOT = 15  /* truncated, altered or newer, or no snapshot at all */
} glaive_status;

/* The sentence for the last call of this thread that did not return GLAIVE_OK; "" before the first. Valid until the
 * next failure on this thread. */
GLAIVE_API const char* glaive_last_error(void);

/* "0.1.0" */
GLAIVE_API const char* glaive_version(void);

/* ---- devices -------------------------------------------------------------------------------------------------------
 */

typedef struct glaive_device glaive_device;

/* name: "cpu". threads: workers that share a call, the calling thread included; 0 = as many as this process may use
 * CPUs. Threads do not survive fork(): open devices in the child. */
GLAIVE_API glaive_status glaive_device_open(const char* name, int threads, glaive_device** device);
GLAIVE_API void glaive_device_close(glaive_device* device);
GLAIVE_API int glaive_device_threads(const glaive_device* device); /* 0 for NULL */
/* What code for this device is made for, for example "cpu:x86-64-v4+avx512bf16". Lives as long as the device. */
GLAIVE_API const char* glaive_device_target(const glaive_device* device);

/* ---- packs ---------------------------------------------------------------------------------------------------------
 */

typedef struct glaive_pack glaive_pack;

/* Reads the index only; an entry is checked when glaive_plan_find loads it. */
GLAIVE_API glaive_status glaive_pack_open(const char* path, glaive_pack** pack);
GLAIVE_API void glaive_pack_close(glaive_pack* pack);
GLAIVE_API size_t glaive_pack_size(const glaive_pack* pack); /* entries; 0 for NULL */

/* ---- problems and shapes
 * --------------------------------------------------------------------------------------------- */

typedef enum glaive_op { GLAIVE_FORWARD = 0, GLAIVE_STEP = 1 } glaive_op;
typedef enum glaive_dtype { GLAIVE_F32 = 0, GLAIVE_BF16 = 1, GLAIVE_F16 = 2 } glaive_dtype;
/* The gate is the natural logarithm of the decay, in [-inf, 0]; or the raw logit x, from which the kernel computes
 * g = max(logsigmoid(x) / gate_tau, gate_clamp). */
typedef enum glaive_gate_form { GLAIVE_GATE_LOG = 0, GLAIVE_GATE_LOGIT = 1 } glaive_gate_form;
/* The state of a head in memory: [K,V] or [V,K], the last axis contiguous. */
typedef enum glaive_layout { GLAIVE_STATE_KV = 0, GLAIVE_STATE_VK = 1 } glaive_layout;

/* What is computed. The state belongs to a kv head; query head h reads the state of kv head h / (heads / kv_heads). */
typedef struct glaive_problem {
  size_t size;
  int64_t heads;        /* H, 1 to 65536 */
  int64_t kv_heads;     /* Hkv, a divisor of heads; 0 = heads */
  int64_t key_dim;      /* K, 1 to 512 */
  int64_t value_dim;    /* V, 1 to 512 */
  int32_t op;           /* glaive_op */
  int32_t io_dtype;     /* glaive_dtype of q, k, v, o */
  int32_t gate_dtype;   /* of g */
  int32_t state_dtype;  /* of the states */
  int32_t gate_form;    /* glaive_gate_form */
  int32_t state_layout; /* glaive_layout */
} glaive_problem;

/* Fills `problem`, whose size the caller has set, from one line: "forward H16 Hkv4 K128 V128 bf16 gate=f32 logit vk".
 * The io dtype defaults to f32, gate= to the io dtype, state= to f32. */
GLAIVE_API glaive_status glaive_problem_parse(const char* text, glaive_problem* problem);

/* The extents of one call. Without cu_seqlens there are `sequences` of `tokens` tokens each. With it, sequence b has
 * the tokens cu_seqlens[b] .. cu_seqlens[b+1] of the token axis: `tokens` is the total, cu_seqlens[sequences], and
 * `longest` the most tokens of any one sequence, which the caller knows on the host. A sequence may be empty. */
typedef struct glaive_shape {
  size_t size;
  int64_t sequences;         /* B, from 1 */
  int64_t tokens;            /* T, from 0 */
  int64_t longest;           /* with cu_seqlens only */
  const int32_t* cu_seqlens; /* NULL, or B+1 numbers from 0 upwards, in memory of the device */
} glaive_shape;

/* ---- plans ---------------------------------------------------------------------------------------------------------
 */

typedef struct glaive_plan glaive_plan;

typedef enum glaive_match {
  GLAIVE_MATCH_EXACT = 0,   /* tuned on this device for shapes like this one */
  GLAIVE_MATCH_NEAREST = 1, /* tuned on this device, for other shapes or another number of threads: tuning may gain */
  GLAIVE_MATCH_OTHER_DEVICE = 2 /* tuned on another device, runs here: tuning will likely gain */
} glaive_match;

/* The pack's best kernel for a problem and shapes like `shape`; correct for every shape of that problem. Never tunes.
 * Fails with GLAIVE_UNSUPPORTED when the pack has none that runs on this device. */
GLAIVE_API glaive_status glaive_plan_find(glaive_device* device, const glaive_pack* pack, const glaive_problem* problem,
                                          const glaive_shape* shape, glaive_plan** plan);
GLAIVE_API void glaive_plan_close(glaive_plan* plan);

GLAIVE_API glaive_status glaive_plan_match(const glaive_plan* plan, glaive_match* match);
/* The chosen variant, for example "chunk(C=16,rows=6)". Lives as long as the plan; "" for NULL. */
GLAIVE_API const char* glaive_plan_variant(const glaive_plan* plan);
/* A few lines for people: what it was tuned for, how it matches, its stages. Lives as long as the plan; "" for NULL. */
GLAIVE_API const char* glaive_plan_description(const glaive_plan* plan);

/* Bytes of workspace that glaive_forward needs for `shape`; may be 0. */
GLAIVE_API glaive_status glaive_plan_workspace(const glaive_plan* plan, const glaive_shape* shape, size_t* bytes);

/* ---- calls ---------------------------------------------------------------------------------------------------------
 */

/* The tensors of a call. All strides count elements; 0 = contiguous. The last axis of every tensor is contiguous, and a
 * stride is never smaller than the axis below it. Pointers are aligned to their element. Token strides run over the
 * token axis of all sequences, so that sequence b of a uniform shape starts at token b*T. */
typedef struct glaive_args {
  size_t size;
  const void* q; /* [B,T,H,K] */
  const void* k; /* [B,T,Hkv,K] */
  const void* v; /* [B,T,Hkv,V] */
  const void* g; /* [B,T,Hkv,K], the gate dtype */
  void* o;       /* [B,T,H,V], written; overlaps no other buffer */
  /* [B,Hkv,K,V] or [B,Hkv,V,K], the state dtype. NULL: every sequence starts from zero, and final states are discarded.
   * The two may be the same buffer with the same strides; otherwise final_state overlaps no other buffer. */
  const void* initial_state;
  void* final_state;
  int64_t q_token_stride, q_head_stride;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  int64_t g_token_stride, g_head_stride;
  int64_t o_token_stride, o_head_stride;
  int64_t initial_state_sequence_stride, initial_state_head_stride;
  int64_t final_state_sequence_stride, final_state_head_stride;
  float scale;       /* 0 or NaN = K^-0.5 */
  float gate_tau;    /* logit gates only: above 0; 0 = 1 */
  float gate_clamp;  /* logit gates only: below 0; 0 = none */
  uint32_t reserved; /* 0 */
} glaive_args;

/* Computes o and, where given, final_state. workspace: glaive_plan_workspace() bytes or more, aligned to 64,
 * overlapping no other buffer, free for other use once the call is over; NULL when 0 bytes are needed. */
GLAIVE_API glaive_status glaive_forward(const glaive_plan* plan, const glaive_shape* shape, const glaive_args* args,
                                        void* workspace, size_t workspace_bytes);

#ifdef __cplusplus
}
#endif

#endif
