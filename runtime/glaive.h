/*
 * glaive: tuned Gated Linear Attention kernels, called from host code.
 *
 *   S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = scale * S_t^T q_t       (Yang et al. 2024, section 3)
 *
 * Open a device and packs, make an operator for a problem, ask it for the plan of a shape, call that.
 *
 * Errors. Every function that can fail returns a glaive_status. On failure it writes none of its outputs, and
 * glaive_last_error() has one sentence: which argument, what was given, what is allowed.
 *
 * Threads. All functions may be called from any thread, closing apart: nothing else may use a handle that is being
 * closed. Calls on one CPU device of several threads queue up, as they share its workers; on a device of one thread
 * every caller runs its own call.
 *
 * The path of a launch (glaive_operator_plan, glaive_run, glaive_launch_run) allocates nothing, takes no lock and makes
 * no system call, except to write a message; waking the workers of a CPU device that have fallen asleep, and queueing
 * for them, are the operating system's.
 *
 * Ownership. A handle is the caller's until it is closed; closing NULL does nothing. Handles may be closed in any
 * order: a plan, an operator and a launch keep alive what they need of their device and packs. The caller owns every
 * buffer, and keeps it until the calls that name it are over.
 *
 * Trust. Packs are native code. A file that group or others may write to, or that belongs to someone other than root
 * and the caller, is refused with GLAIVE_UNTRUSTED. Open only packs that you would run as a program.
 *
 * Versions. Every struct starts with its size, as the caller was compiled: `glaive_args args = {sizeof args};`. Fields
 * left zero take their default, so that a program built against an older header keeps its meaning.
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
  GLAIVE_NOT_FOUND = 3,        /* no such file to read, or no such device */
  GLAIVE_BAD_PACK = 4,         /* truncated, altered, foreign or newer file */
  GLAIVE_UNTRUSTED = 5,        /* a file that others could have written */
  GLAIVE_IO_ERROR = 6,         /* the operating system refused to read, or to make or write a file */
  GLAIVE_OUT_OF_MEMORY = 7,
  GLAIVE_WRONG_DEVICE = 8,  /* code made for another target than this machine */
  GLAIVE_FAILED = 9,        /* the loader or a thread failed; the message says which */
  GLAIVE_OUT_OF_SLOTS = 10, /* a pool has no slot, or no sequence, left; nothing has changed */
  GLAIVE_STALE = 11,        /* a sequence that was released, or never was */
  GLAIVE_FOREIGN = 12,      /* a sequence of another pool, or a snapshot of another shape */
  GLAIVE_LOST = 13,         /* a sequence whose state was overwritten by a batch that was not committed */
  GLAIVE_OUT_OF_ORDER = 14, /* what the state of the batch or of the sequence does not allow now */
  GLAIVE_BAD_SNAPSHOT = 15, /* truncated, altered or newer, or no snapshot at all */
  GLAIVE_DEVICE_LOST = 16   /* a kernel broke the process's use of a GPU: nothing on it works until the process ends */
} glaive_status;

/* The sentence for the last call of this thread that did not return GLAIVE_OK; "" before the first. Valid until the
 * next failure on this thread. */
GLAIVE_API const char* glaive_last_error(void);

/* "0.1.0" */
GLAIVE_API const char* glaive_version(void);

/* ---- devices -------------------------------------------------------------------------------------------------------
 */

typedef struct glaive_device glaive_device;

/* The devices of this machine that this build can use, by index from 0: names for glaive_device_open. The list does not
 * change while the process runs. The first call starts the driver of GPUs; opening "cpu" does not. glaive_device_name
 * gives "" outside 0 .. count-1. */
GLAIVE_API int glaive_device_count(void);
GLAIVE_API const char* glaive_device_name(int index);

/* name: one of glaive_device_name's; "cpu" is always there, "cuda:0" is the driver's first GPU. threads: workers that
 * share a call, the calling thread included, 1 to 1024; 0 = as many as this process may use CPUs; 0 for a GPU. A device
 * may be opened several times, with different numbers of threads; each has workers of its own. Threads and GPUs do not
 * survive fork(): open devices in the child. A GPU's primary context is used, as frameworks do, and the thread's
 * current context is as it was when a call returns. GLAIVE_NOT_FOUND: no such device, or no driver. GLAIVE_FAILED: a
 * thread or a context cannot be had. */
GLAIVE_API glaive_status glaive_device_open(const char* name, int threads, glaive_device** device);
GLAIVE_API void glaive_device_close(glaive_device* device);
GLAIVE_API int glaive_device_threads(const glaive_device* device); /* 0 for NULL */
/* What code for this device is made for, for example "cpu:x86-64-v4+avx512bf16". Lives as long as the device. */
GLAIVE_API const char* glaive_device_target(const glaive_device* device);

/* ---- memory of a device --------------------------------------------------------------------------------------------
 *
 * For programs that have no allocator of their own: tensors and workspace may lie in any memory that the device sees.
 */

typedef struct glaive_memory glaive_memory;

/* `bytes`, from 1, aligned to 256, contents undefined. GLAIVE_OUT_OF_MEMORY says what was free. */
GLAIVE_API glaive_status glaive_memory_create(glaive_device* device, size_t bytes, glaive_memory** memory);
GLAIVE_API void* glaive_memory_data(const glaive_memory* memory); /* as kernels see it; NULL for NULL */
/* Copies from and to the host's memory, done when they return. They follow what is enqueued on a GPU's default stream;
 * what other streams have yet to do with the memory must be over. */
GLAIVE_API glaive_status glaive_memory_write(glaive_memory* memory, size_t offset, const void* from, size_t bytes);
GLAIVE_API glaive_status glaive_memory_read(const glaive_memory* memory, size_t offset, void* to, size_t bytes);
GLAIVE_API void glaive_memory_close(glaive_memory* memory);

/* ---- packs ---------------------------------------------------------------------------------------------------------
 */

typedef struct glaive_pack glaive_pack;

/* Maps the file and reads its index; an entry is checked when a plan or an operator loads it. The file may be replaced
 * meanwhile, the pack stays as it was. GLAIVE_NOT_FOUND, GLAIVE_UNTRUSTED, GLAIVE_BAD_PACK, GLAIVE_IO_ERROR. */
GLAIVE_API glaive_status glaive_pack_open(const char* path, glaive_pack** pack);
/* The same for the `size` bytes of a pack that the caller has at hand, linked in or received. They are copied, need no
 * alignment, and may go once this returns. That they can be trusted is the caller's word. */
GLAIVE_API glaive_status glaive_pack_open_memory(const void* bytes, size_t size, glaive_pack** pack);
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
 * `longest` the most tokens of any one sequence, which the caller knows on the host. A sequence may be empty. A call
 * has at most 2^31-1 tokens in all; a step at most 8 of each sequence. */
typedef struct glaive_shape {
  size_t size;
  int64_t sequences;         /* B, 1 to 2^24 */
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
 * Reads no cu_seqlens. GLAIVE_UNSUPPORTED: the pack has none that runs on this device. To serve changing shapes, or
 * from several packs, see operators. */
GLAIVE_API glaive_status glaive_plan_find(glaive_device* device, const glaive_pack* pack, const glaive_problem* problem,
                                          const glaive_shape* shape, glaive_plan** plan);
/* Not for the plans that an operator lends. */
GLAIVE_API void glaive_plan_close(glaive_plan* plan);

GLAIVE_API glaive_status glaive_plan_match(const glaive_plan* plan, glaive_match* match);
/* The chosen variant, for example "chunk(C=16,rows=6)". Lives as long as the plan; "" for NULL. */
GLAIVE_API const char* glaive_plan_variant(const glaive_plan* plan);
/* A few lines for people: what it was tuned for, how it matches, its stages. Lives as long as the plan; "" for NULL. */
GLAIVE_API const char* glaive_plan_description(const glaive_plan* plan);

/* How a plan fits a shape, and what that is expected to cost. Filled whole, but for size, which the caller sets. */
typedef struct glaive_fit {
  size_t size;
  int32_t match;    /* glaive_match, of this shape */
  int32_t distance; /* steps, along both axes, from the shape's bucket to the one that the plan was tuned for; 0 = it */
  /* That bucket, both ends within; high -1 = no end. work: sequences x kv heads; tokens: of the longest sequence. */
  int64_t work_low, work_high, tokens_low, tokens_high;
  /* The shape that it was timed with there, tokens in all, and of the longest sequence; 0 = the pack does not say. */
  int64_t timed_sequences, timed_tokens, timed_longest;
  /* The time that is expected to be lost against the plan that tuning for this shape would find, as a share of that
   * plan's time. 0 for an exact match: what shapes of one bucket differ is not known. For a nearest one in another
   * bucket `distance` times what the pack's winners were measured to lose a step away from their own. NaN = unknown:
   * another device or number of threads, or nothing was measured. docs/runtime.md has the formula. */
  double regret;
  /* The plan's time above the least that the machine's copy and multiply-add rates allow, where it was timed, as a
   * share of that least: what no tuning can gain more than, there. NaN = unknown, or the caches held everything. */
  double headroom;
} glaive_fit;

/* Reads no cu_seqlens. The plan may be an operator's, and the shape another than that it was looked up for. */
GLAIVE_API glaive_status glaive_plan_fit(const glaive_plan* plan, const glaive_shape* shape, glaive_fit* fit);

/* Bytes of workspace that a call needs for `shape`; may be 0. Reads no cu_seqlens: the extents decide. */
GLAIVE_API glaive_status glaive_plan_workspace(const glaive_plan* plan, const glaive_shape* shape, size_t* bytes);

/* ---- operators -----------------------------------------------------------------------------------------------------
 */

typedef struct glaive_operator glaive_operator;

/* A problem on a device, served from one or several packs. Loads every kernel that some shape can reach, once; which
 * buckets of shapes there are is in docs/runtime.md. Where entries of several packs fit equally well, the earlier
 * pack's wins. packs: `count` handles, from 1; they may be closed afterwards. GLAIVE_UNSUPPORTED: no pack has a kernel
 * for the problem that runs on this device. */
GLAIVE_API glaive_status glaive_operator_create(glaive_device* device, const glaive_pack* const* packs, size_t count,
                                                const glaive_problem* problem, glaive_operator** op);
GLAIVE_API void glaive_operator_close(glaive_operator* op);

/* The plan for shapes like `shape`: a look-up in a table, some nanoseconds. It is lent: it lives as long as the
 * operator and is not closed. glaive_plan_match says how it fits. Reads no cu_seqlens. */
GLAIVE_API glaive_status glaive_operator_plan(const glaive_operator* op, const glaive_shape* shape,
                                              const glaive_plan** plan);
/* The same for those who rather do without: GLAIVE_UNSUPPORTED where the match is worse than `worst`, and the sentence
 * says what the plan at hand was tuned for, and how to tune. GLAIVE_MATCH_EXACT refuses every fallback,
 * GLAIVE_MATCH_NEAREST those from another device. */
GLAIVE_API glaive_status glaive_operator_plan_within(const glaive_operator* op, const glaive_shape* shape,
                                                     glaive_match worst, const glaive_plan** plan);
/* Bytes of workspace that are enough for any call up to `largest`: at most its sequences, its tokens in all, and its
 * longest, whichever plan they are given. Made once of these, a workspace serves them all. Reads no cu_seqlens, but
 * takes the extents as ragged where the pointer is not NULL: glaive_batch_shape of a GLAIVE_BATCH_PADDED batch will do.
 */
GLAIVE_API glaive_status glaive_operator_workspace(const glaive_operator* op, const glaive_shape* largest,
                                                   size_t* bytes);
/* How many look-ups so far gave a plan that was not GLAIVE_MATCH_EXACT: if this grows, tuning may gain. 0 for NULL. */
GLAIVE_API uint64_t glaive_operator_untuned(const glaive_operator* op);

/* ---- calls ---------------------------------------------------------------------------------------------------------
 */

/* Bits that kernels OR into the device status word. Nothing outside the tensors is read or written for them. */
typedef enum glaive_fault {
  GLAIVE_FAULT_SLOT = 1, /* a slot number below -1, or not below `slots`: treated as -1 */
  /* cu_seqlens that decrease, or pass `tokens`: clamped to the tokens of the call, a sequence of less than none being
   * empty, and one of a step's cut to 8. After a decrease two sequences may write the same rows of o. */
  GLAIVE_FAULT_LENGTHS = 2
} glaive_fault;

/* The tensors of a call. All strides count elements; 0 = contiguous. The last axis of every tensor is contiguous, and a
 * stride is never smaller than the axis below it. Pointers are aligned to their element and lie in memory of the
 * device. Token strides run over the token axis of all sequences, so that sequence b of a uniform shape starts at token
 * b*T.
 *
 * States lie in slots. Sequence b starts from slot read_slots[b] of initial_state and leaves its last state in slot
 * write_slots[b] of final_state; -1 = starts from zero, or is discarded. A NULL array stands for 0, 1, 2, .. B-1.
 * Reading one slot and writing another forks a sequence at no cost. Slot numbers are read by the kernel alone, so that
 * their contents may change between the runs of a prepared or captured launch; one out of range sets GLAIVE_FAULT_SLOT
 * and counts as -1. No two sequences of a call may write one slot, and none may write a slot that another one reads:
 * what then stands in that slot, and what its readers compute, is undefined (glaive_batch refuses it). */
typedef struct glaive_args {
  size_t size;
  const void* q; /* [B,T,H,K], the io dtype */
  const void* k; /* [B,T,Hkv,K], the io dtype */
  const void* v; /* [B,T,Hkv,V], the io dtype */
  const void* g; /* [B,T,Hkv,K], the gate dtype */
  void* o;       /* [B,T,H,V], the io dtype, written; overlaps no other buffer */
  /* [slots,Hkv,K,V] or [slots,Hkv,V,K], the state dtype. NULL: every sequence starts from zero, and final states are
   * discarded. The two may be the same buffer with the same strides; otherwise final_state overlaps no other buffer. */
  const void* initial_state;
  void* final_state;
  const int32_t* read_slots;  /* [B] or NULL; only with initial_state */
  const int32_t* write_slots; /* [B] or NULL; only with final_state */
  int64_t slots;              /* places in each of the two, 1 to 2^31-1; may be 0 (= B) without slot arrays */
  uint32_t* device_status;    /* one word into which kernels OR bits of glaive_fault, never cleared here; NULL = none */
  void* stream;               /* a GPU's CUstream, on which the call is enqueued; NULL = its default. A CPU has none */
  int64_t q_token_stride, q_head_stride;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  int64_t g_token_stride, g_head_stride;
  int64_t o_token_stride, o_head_stride;
  int64_t initial_state_slot_stride, initial_state_head_stride;
  int64_t final_state_slot_stride, final_state_head_stride;
  float scale;       /* 0 or NaN = K^-0.5 */
  float gate_tau;    /* logit gates only: above 0; 0 = 1 */
  float gate_clamp;  /* logit gates only: below 0; 0 = none */
  uint32_t reserved; /* 0 */
} glaive_args;

/* Computes o and, where given, final_state; forward or step, as the plan's problem says. workspace:
 * glaive_plan_workspace() bytes or more, aligned to 64, in memory of the device, overlapping no other buffer, free for
 * other use once the call is over; NULL when 0 bytes are needed. On a CPU the call is over when this returns. On
 * another device it is then enqueued on args->stream, in order with what else is there, and buffers are in use until
 * the stream has passed it; where that is captured, the graph needs the plan, or the operator that lent it, open for as
 * long as it may run. Everything is checked on the host but slot numbers and, where the host cannot read them,
 * cu_seqlens. GLAIVE_INVALID_ARGUMENT; GLAIVE_UNSUPPORTED: the kernel takes no slot arrays, or no cu_seqlens. */
GLAIVE_API glaive_status glaive_run(const glaive_plan* plan, const glaive_shape* shape, const glaive_args* args,
                                    void* workspace, size_t workspace_bytes);

/* ---- prepared launches ---------------------------------------------------------------------------------------------
 */

typedef struct glaive_launch glaive_launch;

/* Checks a call as glaive_run does, and keeps it, to be run again and again: the decode loop of an engine. What `shape`
 * and `args` point to must stay where it is until the launch is closed, and its contents may change between runs, slot
 * numbers and cu_seqlens included: kernels check those, stay within what was prepared, and report in device_status.
 * With cu_seqlens, shape->tokens and shape->longest are the most that any run will have, where glaive_run wants them to
 * be the very numbers: a launch prepared over glaive_batch_rows in the shape of a GLAIVE_BATCH_PADDED batch serves
 * all later ones. */
GLAIVE_API glaive_status glaive_launch_prepare(const glaive_plan* plan, const glaive_shape* shape,
                                               const glaive_args* args, void* workspace, size_t workspace_bytes,
                                               glaive_launch** launch);
/* Runs it once, without checks; else as glaive_run. One run at a time: they share their workspace. */
GLAIVE_API glaive_status glaive_launch_run(const glaive_launch* launch);
GLAIVE_API void glaive_launch_close(glaive_launch* launch);

/* ---- states --------------------------------------------------------------------------------------------------------
 *
 * A pool holds the recurrent states of live sequences, one slot each. Forks share a slot until one of them goes on, so
 * fork, reorder and rollback copy nothing. All functions may be called from any thread; they lock the pool's
 * bookkeeping for less than the time of a launch, and allocate nothing but messages. A failure changes nothing.
 */

typedef struct glaive_pool glaive_pool;

/* A live sequence. 0 is none. A handle is known again when it is stale (released) or foreign (another pool's). */
typedef uint64_t glaive_sequence;

typedef struct glaive_pool_config {
  size_t size;
  int64_t layers;        /* 1 to 65536 */
  int64_t kv_heads;      /* Hkv, 1 to 65536 */
  int64_t key_dim;       /* K, 1 to 512 */
  int64_t value_dim;     /* V, 1 to 512 */
  int32_t dtype;         /* glaive_dtype of the states: GLAIVE_F32 or GLAIVE_BF16 */
  int32_t layout;        /* glaive_layout of a head's state */
  int64_t slots;         /* 1 to 2^23 */
  int64_t max_sequences; /* 1 to 2^24; 0 = twice the slots */
  /* Further planes, of the caller's own use, that live with the states: bytes per slot of each. */
  const int64_t* plane_bytes;
  int64_t planes; /* numbers in plane_bytes, 0 to 16 */
} glaive_pool_config;

/* Bytes of memory that a pool takes. */
GLAIVE_API glaive_status glaive_pool_bytes(const glaive_pool_config* config, size_t* bytes);
/* memory: of the device, aligned to 256, glaive_pool_bytes() or more, and the caller's until the pool and its batches
 * are closed; NULL with bytes 0: the pool allocates its own (GLAIVE_OUT_OF_MEMORY). Contents need no initialisation. */
GLAIVE_API glaive_status glaive_pool_create(glaive_device* device, const glaive_pool_config* config, void* memory,
                                            size_t bytes, glaive_pool** pool);
/* Batches keep what they need of the pool. Handles of its sequences are void. */
GLAIVE_API void glaive_pool_close(glaive_pool* pool);

typedef struct glaive_statistics {
  size_t size;
  int64_t slots, used;              /* used: held by sequences, or about to be written by batches */
  int64_t shared;                   /* held by several at once: sequences, batches, snapshots being saved */
  int64_t peak;                     /* the most ever used */
  int64_t sequences, max_sequences; /* live, and the most there may be */
} glaive_statistics;

GLAIVE_API glaive_status glaive_pool_statistics(const glaive_pool* pool, glaive_statistics* statistics);
/* Slot s of a plane lies at base + s * slot_stride_bytes. Plane 0 holds the states, contiguous in a slot as
 * [layer,Hkv,K,V] or [layer,Hkv,V,K]; plane 1 is the first of plane_bytes. A base is aligned to 256, a slot to 64.
 *
 * Between slots, glaive never copies what is in a further plane: that is for the caller's kernel, which for row i of
 * every batch reads slot read_slots[i] and writes all of slot write_slots[i], as kernels do with states (see
 * glaive_batch_rows). To write in place, at glaive_sequence_slot, is to write into the forks that share the slot. Where
 * read_slots[i] is -1, before the first commit, a plane counts as zero: the slot holds what its last owner left. */
GLAIVE_API glaive_status glaive_pool_plane(const glaive_pool* pool, int64_t plane, void** base,
                                           size_t* slot_stride_bytes);

/* A new sequence, at position 0 with a zero state. Its slot is taken now: GLAIVE_OUT_OF_SLOTS when there is none. */
GLAIVE_API glaive_status glaive_sequence_acquire(glaive_pool* pool, glaive_sequence* sequence);
/* The handle is stale at once. A slot in use by a batch comes back when that ends. */
GLAIVE_API glaive_status glaive_sequence_release(glaive_pool* pool, glaive_sequence sequence);
/* A sequence with the parent's state and position. It shares the parent's slot, so a fork kept aside is a checkpoint.
 * Whichever of them goes on first takes a fresh slot then. */
GLAIVE_API glaive_status glaive_sequence_fork(glaive_pool* pool, glaive_sequence parent, glaive_sequence* child);
/* sequences[i] takes the state and position of parents[i] as they were before the call, for all i at once. Sequences
 * are distinct; parents may repeat, and may be any of the pool. A lost sequence may be among sequences, not parents. */
GLAIVE_API glaive_status glaive_sequence_reorder(glaive_pool* pool, const glaive_sequence* sequences,
                                                 const glaive_sequence* parents, int64_t count);
/* The reorder of one: `checkpoint` is a fork taken earlier, and stays. */
GLAIVE_API glaive_status glaive_sequence_rollback(glaive_pool* pool, glaive_sequence sequence,
                                                  glaive_sequence checkpoint);
/* Tokens that the sequence has taken in batches that were committed. */
GLAIVE_API glaive_status glaive_sequence_position(const glaive_pool* pool, glaive_sequence sequence, int64_t* tokens);
/* The slot that holds the state; -1 while it is zero. It may change with every batch. */
GLAIVE_API glaive_status glaive_sequence_slot(const glaive_pool* pool, glaive_sequence sequence, int32_t* slot);

/* A snapshot is a sequence's position and its slot's bytes of every plane, with checksums; of a zero state, of which no
 * plane counts, the position alone. It fits any pool of the same layers, Hkv, K, V, dtype, layout and planes, in any
 * process. The sequence may go on while it is saved, into a fresh slot, as the old one is held until the copy is done:
 * in a full pool its next batch is GLAIVE_OUT_OF_SLOTS till then. On a GPU, saving and restoring wait for all that is
 * enqueued on it. Sequences that cannot be saved: GLAIVE_STALE, GLAIVE_FOREIGN, GLAIVE_LOST, GLAIVE_OUT_OF_ORDER in a
 * batch. */
GLAIVE_API glaive_status glaive_snapshot_bytes(glaive_pool* pool, glaive_sequence sequence, size_t* bytes);
GLAIVE_API glaive_status glaive_snapshot_save(glaive_pool* pool, glaive_sequence sequence, void* buffer, size_t bytes,
                                              size_t* written);
/* A new sequence. GLAIVE_BAD_SNAPSHOT: truncated, altered, newer, or no snapshot; GLAIVE_FOREIGN: of another shape;
 * GLAIVE_OUT_OF_SLOTS. From 8 MiB on a second thread helps to copy and to check; it takes no signals, and has ended
 * when this returns. */
GLAIVE_API glaive_status glaive_snapshot_restore(glaive_pool* pool, const void* snapshot, size_t bytes,
                                                 glaive_sequence* sequence);
/* To a file, replaced whole by a temporary file beside it, fsync and rename, where a symbolic link leads. A process
 * that is killed meanwhile leaves the temporary file behind, the path and six letters. GLAIVE_IO_ERROR: it cannot be
 * made (a missing folder) or written; GLAIVE_NOT_FOUND: a path of nothing, "". And from a file, as
 * glaive_snapshot_restore: GLAIVE_NOT_FOUND; GLAIVE_UNTRUSTED when others may write to it; GLAIVE_IO_ERROR. */
GLAIVE_API glaive_status glaive_snapshot_write(glaive_pool* pool, glaive_sequence sequence, const char* path);
GLAIVE_API glaive_status glaive_snapshot_read(glaive_pool* pool, const char* path, glaive_sequence* sequence);

/* ---- batches -------------------------------------------------------------------------------------------------------
 *
 * One step of several sequences: begin -> launch every layer, or replay -> commit; abort at any point between. Prefill
 * chunks and decode rows may stand in one batch. Positions move in commit alone. A batch belongs to one thread at a
 * time; several batches of a pool may be open at once, with different sequences, if the device does their work in the
 * order in which they were begun (one stream). While a sequence is in an open batch it can be released, and nothing
 * else.
 */

typedef struct glaive_batch glaive_batch;

typedef struct glaive_batch_config {
  size_t size;
  int64_t max_sequences; /* 1 to 2^24 */
  int64_t max_tokens;    /* of all sequences together, up to 2^31-1 */
  int64_t max_longest;   /* of one sequence; 0 = max_tokens */
} glaive_batch_config;

/* Everything that a batch will need is allocated here. */
GLAIVE_API glaive_status glaive_batch_create(glaive_pool* pool, const glaive_batch_config* config,
                                             glaive_batch** batch);
GLAIVE_API void glaive_batch_close(glaive_batch* batch); /* aborts */

/* The scheduler's own count of new tokens, never a tensor's extent. 0 leaves the sequence as it is. */
typedef struct glaive_entry {
  glaive_sequence sequence;
  int64_t tokens;
} glaive_entry;

enum {
  GLAIVE_BATCH_KEEP = 1,   /* update no state in place, so that an abort loses nothing; takes a slot for each entry that
                            * has a state and tokens (a zero state is nothing to lose) */
  GLAIVE_BATCH_PADDED = 2, /* launches cover max_sequences, max_tokens, max_longest: for a graph captured once */
};

/* Row i of the batch is entries[i]: its tokens follow those of entries[i-1] on the token axis. A sequence whose slot is
 * shared gets a fresh one to write: GLAIVE_OUT_OF_SLOTS when there are too few. With count 0, entries may be NULL: the
 * batch is one empty row. */
GLAIVE_API glaive_status glaive_batch_begin(glaive_batch* batch, const glaive_entry* entries, int64_t count,
                                            uint32_t flags);
/* The same on a GPU's stream, NULL being its default: the rows' numbers are sent there, and what reads them must follow
 * on that stream. Enqueues one copy and waits for nothing, unless the GPU is four batches behind. Not while the stream
 * is captured: begin before, and a graph captured then serves later batches too. */
GLAIVE_API glaive_status glaive_batch_begin_on(glaive_batch* batch, const glaive_entry* entries, int64_t count,
                                               uint32_t flags, void* stream);
/* The extents of the batch's launches, for glaive_plan_find and glaive_plan_workspace: every field but size, which the
 * caller sets. */
GLAIVE_API glaive_status glaive_batch_shape(const glaive_batch* batch, glaive_shape* shape);
/* What kernels read, in memory of the device; any may be NULL. The addresses are the batch's for life; the contents are
 * for max_sequences rows from begin to commit, rows past the entries being empty sequences with slots -1. Kernels read
 * a state from read_slots[i] and write to write_slots[i]; -1 is a zero state, and no write. A kernel that meets a
 * number it cannot accept ORs a bit of glaive_fault into device_status, and does as is said there. */
GLAIVE_API glaive_status glaive_batch_rows(const glaive_batch* batch, const int32_t** cu_seqlens,
                                           const int32_t** read_slots, const int32_t** write_slots,
                                           uint32_t** device_status);
/* Computes o for one layer and updates its states. args: q, k, v, g, o over the batch's tokens; no states, slots or
 * state strides, which are the batch's. The plan is of a device that sees the pool's memory. Each layer once. A refused
 * argument or shape (GLAIVE_UNSUPPORTED) leaves the batch as it was; after GLAIVE_FAILED only an abort remains.
 * Allocates nothing.
 *
 * Where args->stream is being captured, which may be another stream than the batch's, nothing runs and the batch stays
 * as it was: the layer is launched when the graph is (glaive_batch_replay). GLAIVE_INVALID_ARGUMENT unless the batch
 * was begun with GLAIVE_BATCH_PADDED. The graph needs its batch too open for as long as it may run. */
GLAIVE_API glaive_status glaive_batch_launch(glaive_batch* batch, const glaive_plan* plan, int64_t layer,
                                             const glaive_args* args, void* workspace, size_t workspace_bytes);
/* In place of launches: says that the caller is about to enqueue all layers himself, as a captured graph or with
 * kernels of his own over the rows. */
GLAIVE_API glaive_status glaive_batch_replay(glaive_batch* batch);
/* Positions move and slots change hands. GLAIVE_OUT_OF_ORDER unless every layer was launched, and while the batch's
 * stream is captured; GLAIVE_FAILED when device_status is not 0. On a GPU nothing is waited for: the word is fetched
 * when the stream has come this far, and a fault is told by glaive_batch_faults, or else by a later begin of this
 * batch, which then fails with GLAIVE_FAILED, has begun nothing, and may be called again. */
GLAIVE_API glaive_status glaive_batch_commit(glaive_batch* batch);
/* Bits of glaive_fault that kernels reported in batches that were committed and not yet told of. Waits until the
 * device has done those. */
GLAIVE_API glaive_status glaive_batch_faults(glaive_batch* batch, uint32_t* faults);
/* Positions stay. Sequences that were to be updated in place are lost (GLAIVE_LOST) if a layer was launched: until they
 * are rolled back or reordered onto another state, they can be released, and nothing else. All others are untouched. */
GLAIVE_API glaive_status glaive_batch_abort(glaive_batch* batch);

#ifdef __cplusplus
}
#endif

#endif
