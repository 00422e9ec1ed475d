/* What launches the kernels of gla.h. Written by `glaive emit`, like the two headers that hold the kernels: gla_plans.h
 * says how they are launched and for which shapes, gla_code.h has their code. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../include/gla.h"

#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- plans are data ----------------------------------------------------------------------------------------------
 *
 * A plan is a list of stages: code, entry, number of tasks, the 64-bit words that the entry takes. */

enum axis { axis_sequences, axis_tokens, axis_longest, axis_heads, axis_kv_heads, axis_k, axis_v, axis_workers, axes };

enum arg {
  arg_q, arg_k, arg_v, arg_g, arg_o,
  arg_state_in, arg_state_out, arg_read_slots, arg_write_slots, arg_cu_seqlens, arg_device_status,
  arg_q_token, arg_q_head, arg_k_token, arg_k_head, arg_v_token, arg_v_head, arg_g_token, arg_g_head,
  arg_o_token, arg_o_head, arg_state_in_slot, arg_state_in_head, arg_state_out_slot, arg_state_out_head,
  arg_sequences, arg_tokens, arg_longest, arg_heads, arg_kv_heads, arg_slots,
  arg_scale, arg_gate_tau, arg_gate_clamp, arg_workspace, arg_mapped, args_
};

/* multiplier * product of max(ceil(extent / divisor), least) */
struct factor {
  uint8_t axis;
  int64_t divisor, least;
};
struct count {
  int64_t multiplier;
  int factors;
  const struct factor* factor;
};

/* A tensor as a GPU's copy engine is told of it, and the box that it brings at once. */
struct map {
  uint8_t tensor, element_bytes, swizzled;
  uint16_t tokens, channels;
};
#define most_maps 8

struct stage {
  int code; /* index into codes */
  const char* entry;
  struct count tasks;
  int args;
  const uint8_t* arg;
  int maps;
  const struct map* map;
  int64_t scratch_bytes; /* of a worker */
  uint32_t block[3], cluster, shared_bytes;
  bool early; /* may begin while the stage before it ends */
};

/* What code is for. level 2, 3 or 4 with bits of extra_features for a CPU; a GPU's compute capability. */
struct target {
  const char* text;
  bool cuda, ptx;
  char suffix;
  int level, major, minor;
  unsigned features;
};

struct code {
  struct target target;
  const uint64_t* words;
  size_t bytes;
};

struct plan {
  const char* variant;
  struct target target;
  int stages;
  const struct stage* stage;
  int counts;
  const struct count* workspace;
};

enum dtype { f32, bf16, f16 };
struct problem {
  const char* text;
  bool step;
  int64_t h, hkv, k, v;
  enum dtype io, gate, state;
};

#define work_buckets 15
#define token_buckets 9
#define buckets (work_buckets * token_buckets)
struct bucket {
  int work, tokens;
};

/* For what a plan was chosen, the newest last. */
struct entry {
  int problem, plan;
  const char* device; /* "" = none */
  struct target target;
  struct bucket bucket;
  int threads; /* 0 = any number */
  int64_t timed_sequences, timed_tokens, timed_longest;
  double regret_per_step, headroom;
};

#include "gla_code.h"
#include "gla_plans.h"

/* ---- what went wrong -------------------------------------------------------------------------------------------- */

static _Thread_local char last_error[1024];

const char* gla_last_error(void) { return last_error; }

__attribute__((format(printf, 2, 3), cold)) static gla_status fail(gla_status status, const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return status;
}
#define refuse(...) fail(GLA_INVALID_ARGUMENT, __VA_ARGS__)

/* ---- counts: saturate, so that an absurd workspace is refused as too large, never as too small ------------------- */

static int64_t times(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}
static int64_t plus(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}
static int64_t padded(int64_t bytes) { return plus(bytes, 63) / 64 * 64; }

static int64_t count_at(const struct count* count, const int64_t* extents) {
  int64_t value = count->multiplier;
  for (int i = 0; i < count->factors; ++i) {
    const struct factor* f = &count->factor[i];
    int64_t extent = extents[f->axis];
    if (f->divisor != 1) extent = extent / f->divisor + (extent % f->divisor > 0);
    value = times(value, extent > f->least ? extent : f->least);
  }
  return value;
}

static int64_t shared_workspace(const struct plan* plan, const int64_t* extents) {
  int64_t bytes = 0;
  for (int i = 0; i < plan->counts; ++i) bytes = plus(bytes, count_at(&plan->workspace[i], extents));
  return padded(bytes);
}
static int64_t scratch_of_worker(const struct plan* plan) {
  int64_t bytes = 0;
  for (int i = 0; i < plan->stages; ++i)
    if (plan->stage[i].scratch_bytes > bytes) bytes = plan->stage[i].scratch_bytes;
  return padded(bytes);
}
static int64_t workspace_of(const struct plan* plan, const int64_t* extents) {
  return plus(shared_workspace(plan, extents), times(extents[axis_workers], scratch_of_worker(plan)));
}

/* ---- devices ------------------------------------------------------------------------------------------------------
 *
 * A device knows which code it runs, loads plans and launches them. */

struct gla_device {
  bool cuda;
  int workers;
  struct target target;
  char identity[512]; /* equal exactly where measurements carry over */
  char name[256];
#if GLA_CUDA
  int number, most_tasks, most_shared, most_cluster;
  struct CUctx_st* context;
#endif
};

typedef void (*cpu_entry)(const uint64_t* words, int64_t task, void* scratch);

/* A plan with its code loaded. */
struct kernel {
  const struct plan* plan;
  void* module[most_stages]; /* with the first stage that uses it */
  union {
    cpu_entry run;
    struct CUfunc_st* function;
  } entry[most_stages];
};
