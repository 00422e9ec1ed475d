/* ---- operators ---------------------------------------------------------------------------------------------------- */

struct gla_plan {
  const gla_device* device;
  const struct problem* problem;
  const struct entry* entry;
  const struct kernel* kernel;
  bool demoted; /* what fits better could not be loaded */
  uint64_t takes; /* a bit for each arg that a stage names */
};

struct gla_operator {
  gla_device* device;
  const struct problem* problem;
  int kernels, plans;
  struct kernel* kernel;
  struct gla_plan* plan;
  const struct gla_plan* by_bucket[buckets];
};

/* ---- the extents of a call ---------------------------------------------------------------------------------------- */

static int range_of(int64_t value, const int64_t* edges, int ranges) {
  int passed = 0;
  while (passed + 1 < ranges && value >= edges[passed + 1]) ++passed;
  return passed;
}
static const int64_t work_edges[work_buckets] = {1,   2,   4,   8,   16,   32,   64,  96,
                                                 128, 192, 256, 512, 1024, 2048, 4096};
static const int64_t token_edges[token_buckets] = {0, 2, 16, 64, 256, 1024, 4096, 16384, 65536};

static struct bucket bucket_of(const struct problem* problem, int64_t sequences, int64_t longest) {
  return (struct bucket){range_of(times(sequences, problem->hkv), work_edges, work_buckets),
                         range_of(longest, token_edges, token_buckets)};
}
static int distance_of(struct bucket a, struct bucket b) { return abs(a.work - b.work) + abs(a.tokens - b.tokens); }

#define most_sequences ((int64_t)1 << 24)
#define most_tokens 0x7fffffffll
#define most_step_tokens 8

struct call {
  int64_t sequences, tokens, longest;
  const int32_t* cu_seqlens;
};

static bool is_aligned(const void* pointer, uintptr_t alignment) { return ((uintptr_t)pointer & (alignment - 1)) == 0; }

/* Checks all but the numbers in cu_seqlens. */
static gla_status shape_from(const gla_shape* s, const struct problem* problem, struct call* shape) {
  *shape = (struct call){0, 0, 0, NULL};
  if (s == NULL) return refuse("shape is NULL");
  if (s->sequences < 1 || s->sequences > most_sequences)
    return refuse("shape->sequences is %lld; it must be from 1 to %lld", (long long)s->sequences,
                  (long long)most_sequences);
  if (s->tokens < 0) return refuse("shape->tokens is %lld; it must be 0 or more", (long long)s->tokens);
  *shape = (struct call){s->sequences, s->tokens, s->longest, s->cu_seqlens};
  if (s->cu_seqlens == NULL) {
    if (s->longest != 0 && s->longest != s->tokens)
      return refuse("shape->longest is %lld without cu_seqlens; leave it 0", (long long)s->longest);
    shape->tokens = times(s->sequences, s->tokens);
    shape->longest = s->tokens;
  } else {
    if (!is_aligned(s->cu_seqlens, 4)) return refuse("shape->cu_seqlens is not aligned to 4 bytes");
    if (s->longest < 0 || s->longest > s->tokens)
      return refuse("shape->longest is %lld; it must be from 0 to the %lld tokens of all sequences",
                    (long long)s->longest, (long long)s->tokens);
  }
  if (shape->tokens > most_tokens)
    return refuse("shape has %lld tokens in all; a call has at most %lld", (long long)shape->tokens, most_tokens);
  if (problem->step && shape->longest > most_step_tokens)
    return refuse("shape: a step takes at most %d tokens of each sequence, not %lld; a forward problem takes more",
                  most_step_tokens, (long long)shape->longest);
  return GLA_OK;
}

static void extents_of(const struct call* shape, const struct problem* problem, int workers, int64_t* extents) {
  extents[axis_sequences] = shape->sequences;
  extents[axis_tokens] = shape->tokens;
  extents[axis_longest] = shape->longest;
  extents[axis_heads] = problem->h;
  extents[axis_kv_heads] = problem->hkv;
  extents[axis_k] = problem->k;
  extents[axis_v] = problem->v;
  extents[axis_workers] = workers;
}

/* The numbers in cu_seqlens, which the host must be able to read: these very lengths, or any within them. */
static gla_status check_lengths(const struct call* shape, bool within) {
  const int32_t* const sums = shape->cu_seqlens;
  if (sums[0] != 0) return refuse("shape->cu_seqlens[0] is %d, not 0", (int)sums[0]);
  int64_t longest = 0;
  for (int64_t b = 0; b < shape->sequences; ++b) {
    const int64_t length = (int64_t)sums[b + 1] - sums[b];
    if (length < 0)
      return refuse("shape->cu_seqlens[%lld] is less than the number before it", (long long)b + 1);
    if (length > longest) longest = length;
  }
  const int64_t last = sums[shape->sequences];
  if (last > shape->tokens || (!within && last != shape->tokens))
    return refuse("shape->tokens is %lld, but the last of cu_seqlens is %lld", (long long)shape->tokens,
                  (long long)last);
  if (longest > shape->longest || (!within && longest != shape->longest))
    return refuse("shape->longest is %lld, but the longest sequence of cu_seqlens has %lld tokens",
                  (long long)shape->longest, (long long)longest);
  return GLA_OK;
}

/* ---- the tensors of a call ---------------------------------------------------------------------------------------- */

/* The bytes of a buffer. An absent one begins past where it ends, and so overlaps nothing. */
struct span {
  uintptr_t begin, end;
};
static struct span span_of(const void* base, int64_t bytes) {
  if (base == NULL || bytes == 0) return (struct span){UINTPTR_MAX, 0};
  return (struct span){(uintptr_t)base, (uintptr_t)base + (uintptr_t)bytes};
}
static bool overlap(struct span a, struct span b) { return a.begin < b.end && b.begin < a.end; }

/* The buffers of a call, those that are written first. */
enum buffer {
  buffer_workspace, buffer_o, buffer_out, buffer_flags, buffer_q, buffer_k, buffer_v, buffer_g, buffer_in,
  buffer_lengths, buffer_reads, buffer_writes, buffers
};
#define written_buffers buffer_q
static const char* const buffer_names[buffers] = {
    "workspace", "args->o", "args->final_state",   "args->device_status", "args->q",          "args->k",
    "args->v",   "args->g", "args->initial_state", "shape->cu_seqlens",   "args->read_slots", "args->write_slots"};

/* A tensor [outer, heads, inner] with strides in elements, 0 = contiguous. Sets its three words and its span. */
struct tensor {
  enum buffer buffer;
  enum arg base, outer_stride, head_stride;
  const void* at;
  int64_t outer, heads, inner, outer_step, head_step, size;
};

static gla_status check_tensor(const struct tensor* t, uint64_t* words, struct span* spans) {
  const char* const name = buffer_names[t->buffer];
  const char* const outer = t->buffer == buffer_in || t->buffer == buffer_out ? "slot" : "token";
  const int64_t head = t->head_step == 0 ? t->inner : t->head_step;
  if (head < t->inner)
    return refuse("%s_head_stride is %lld; it must be 0 (contiguous) or at least %lld, the elements of one head", name,
                  (long long)t->head_step, (long long)t->inner);
  if (t->outer_step >= 0 && (head | t->outer_step) >> 40 != 0)
    return refuse("%s has a stride of 2^40 elements or more", name);
  const int64_t step = t->outer_step == 0 ? t->heads * head : t->outer_step;
  if (step < t->inner)
    return refuse("%s_%s_stride is %lld; it must be 0 (contiguous) or at least %lld, the elements of one head", name,
                  outer, (long long)t->outer_step, (long long)t->inner);
  words[t->base] = (uintptr_t)t->at;
  words[t->outer_stride] = (uint64_t)step;
  words[t->head_stride] = (uint64_t)head;
  spans[t->buffer] = span_of(NULL, 0);
  if (t->outer == 0) return GLA_OK;

  if (t->at == NULL) return refuse("%s is NULL", name);
  if (!is_aligned(t->at, (uintptr_t)t->size))
    return refuse("%s is not aligned to the %lld bytes of an element", name, (long long)t->size);
  /* 65,536 heads reach 2^57 at most: with this bound on the rest nothing below overflows. */
  const int64_t heads_reach = (t->heads - 1) * head + t->inner;
  const int64_t outer_reach = times(t->outer - 1, step);
  const bool far = outer_reach >> 59 != 0;
  const int64_t bytes = far ? 0 : (outer_reach + heads_reach) * t->size;
  if (far || (uintptr_t)t->at + (uintptr_t)bytes < (uintptr_t)bytes)
    return refuse("%s has strides that reach past the end of memory", name);
  if (t->buffer < written_buffers && step < heads_reach && head < outer_reach + t->inner)
    return refuse("%s has strides under which its own elements overlap", name);
  spans[t->buffer] = span_of(t->at, bytes);
  return GLA_OK;
}

static gla_status check_slots(const gla_args* a, int64_t slots, int64_t sequences) {
  if (a->read_slots != NULL && a->initial_state == NULL)
    return refuse("args->read_slots is given without args->initial_state");
  if (a->write_slots != NULL && a->final_state == NULL)
    return refuse("args->write_slots is given without args->final_state");
  if (!is_aligned(a->read_slots, 4)) return refuse("args->read_slots is not aligned to 4 bytes");
  if (!is_aligned(a->write_slots, 4)) return refuse("args->write_slots is not aligned to 4 bytes");
  if (slots < 1 || slots > 0x7fffffff)
    return refuse("args->slots is %lld; with slot arrays it is the number of places in the state buffers, from 1 to "
                  "2147483647",
                  (long long)slots);
  const bool by_number = (a->initial_state != NULL && a->read_slots == NULL) ||
                         (a->final_state != NULL && a->write_slots == NULL);
  if (by_number && slots < sequences)
    return refuse("args->slots is %lld, fewer than the %lld sequences, each of which uses the slot of its own number "
                  "where a slot array is NULL",
                  (long long)slots, (long long)sequences);
  return GLA_OK;
}

/* What the kernel must take for this call to mean what it says. */
static gla_status check_taken(const gla_plan* plan, const gla_args* a, const struct call* shape) {
  const char* lacks = NULL;
  if (shape->cu_seqlens != NULL && !(plan->takes >> arg_cu_seqlens & 1)) lacks = "shape->cu_seqlens";
  if (a->write_slots != NULL && !(plan->takes >> arg_write_slots & 1)) lacks = "args->write_slots";
  if (a->read_slots != NULL && !(plan->takes >> arg_read_slots & 1)) lacks = "args->read_slots";
  if (lacks != NULL) return fail(GLA_UNSUPPORTED, "the plan's kernel, %s, takes no %s",
                                 plan->kernel->plan->variant, lacks);
  return GLA_OK;
}

static uint64_t bits_of(float scalar) {
  uint32_t bits;
  memcpy(&bits, &scalar, sizeof bits);
  return bits;
}

static gla_status check_scalars(const gla_plan* plan, const gla_args* a, uint64_t* words) {
  const float scale = a->scale == 0 || isnan(a->scale) ? 1.0f / sqrtf((float)plan->problem->k) : a->scale;
  const float tau = a->gate_tau == 0 ? 1 : a->gate_tau;
  const float clamp = a->gate_clamp == 0 ? -INFINITY : a->gate_clamp;
  const struct {
    const char* name;
    float given, low, high;
  } scalars[] = {{"scale", scale, -FLT_MAX, FLT_MAX}, {"gate_tau", tau, FLT_MIN, FLT_MAX},
                 {"gate_clamp", clamp, -INFINITY, 0}};
  for (int i = 0; i < 3; ++i)
    if (!(scalars[i].given >= scalars[i].low && scalars[i].given <= scalars[i].high))
      return refuse("args->%s is %g; it must be 0 (default) or from %g to %g", scalars[i].name,
                    (double)scalars[i].given, (double)scalars[i].low, (double)scalars[i].high);
  words[arg_scale] = bits_of(scale);
  words[arg_gate_tau] = bits_of(tau);
  words[arg_gate_clamp] = bits_of(clamp);
  return GLA_OK;
}

static const int sizes[] = {[f32] = 4, [bf16] = 2, [f16] = 2};

/* Checks everything that a call needs, and fills in every word of it. */
static gla_status read_call(const gla_plan* plan, const gla_shape* given, const gla_args* a, void* workspace,
                            size_t workspace_bytes, bool within, uint64_t* words, int64_t* extents) {
  if (plan == NULL) return refuse("plan is NULL");
  if (a == NULL) return refuse("args is NULL");
  const struct problem* const p = plan->problem;
  struct call shape;
  gla_status status = shape_from(given, p, &shape);
  if (status != GLA_OK) return status;
  const bool on_host = !plan->device->cuda;
  if (shape.cu_seqlens != NULL && on_host && (status = check_lengths(&shape, within)) != GLA_OK) return status;
  if (a->stream != NULL && on_host) return refuse("args->stream is set, but a CPU has no streams: leave it NULL");
  if (!is_aligned(a->device_status, 4)) return refuse("args->device_status is not aligned to 4 bytes");
  if ((status = check_taken(plan, a, &shape)) != GLA_OK) return status;
  const bool has_arrays = a->read_slots != NULL || a->write_slots != NULL;
  const int64_t slots = a->slots == 0 && !has_arrays ? shape.sequences : a->slots;
  if ((status = check_slots(a, slots, shape.sequences)) != GLA_OK) return status;

  const int64_t io = sizes[p->io], gate = sizes[p->gate], state = sizes[p->state], kv = p->k * p->v;
  const int64_t in = a->initial_state == NULL ? 0 : slots, out = a->final_state == NULL ? 0 : slots;
  const struct tensor tensors[] = {
      {buffer_q, arg_q, arg_q_token, arg_q_head, a->q, shape.tokens, p->h, p->k, a->q_token_stride, a->q_head_stride,
       io},
      {buffer_k, arg_k, arg_k_token, arg_k_head, a->k, shape.tokens, p->hkv, p->k, a->k_token_stride, a->k_head_stride,
       io},
      {buffer_v, arg_v, arg_v_token, arg_v_head, a->v, shape.tokens, p->hkv, p->v, a->v_token_stride, a->v_head_stride,
       io},
      {buffer_g, arg_g, arg_g_token, arg_g_head, a->g, shape.tokens, p->hkv, p->k, a->g_token_stride, a->g_head_stride,
       gate},
      {buffer_o, arg_o, arg_o_token, arg_o_head, a->o, shape.tokens, p->h, p->v, a->o_token_stride, a->o_head_stride,
       io},
      {buffer_in, arg_state_in, arg_state_in_slot, arg_state_in_head, a->initial_state, in, p->hkv, kv,
       a->initial_state_slot_stride, a->initial_state_head_stride, state},
      {buffer_out, arg_state_out, arg_state_out_slot, arg_state_out_head, a->final_state, out, p->hkv, kv,
       a->final_state_slot_stride, a->final_state_head_stride, state}};
  struct span spans[buffers];
  for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; ++i)
    if ((status = check_tensor(&tensors[i], words, spans)) != GLA_OK) return status;

  extents_of(&shape, p, plan->device->workers, extents);
  const int64_t needed = workspace_of(plan->kernel->plan, extents);
  if (workspace_bytes < (size_t)needed)
    return refuse("workspace_bytes is %zu; this call needs %lld", workspace_bytes, (long long)needed);
  if (needed > 0 && workspace == NULL) return refuse("workspace is NULL; this call needs %lld bytes", (long long)needed);
  if (!is_aligned(workspace, 64)) return refuse("workspace is not aligned to 64 bytes");

  spans[buffer_workspace] = span_of(workspace, needed);
  spans[buffer_flags] = span_of(a->device_status, 4);
  spans[buffer_lengths] = span_of(shape.cu_seqlens, (shape.sequences + 1) * 4);
  spans[buffer_reads] = span_of(a->read_slots, shape.sequences * 4);
  spans[buffer_writes] = span_of(a->write_slots, shape.sequences * 4);
  const bool in_place = a->initial_state == a->final_state && words[arg_state_in_slot] == words[arg_state_out_slot] &&
                        words[arg_state_in_head] == words[arg_state_out_head];
  if (in_place) spans[buffer_in] = span_of(NULL, 0);
  for (int i = 0; i < written_buffers; ++i)
    for (int j = i + 1; j < buffers; ++j)
      if (overlap(spans[i], spans[j]))
        return refuse("%s overlaps %s; %s", buffer_names[i], buffer_names[j],
                      i == buffer_out && j == buffer_in
                          ? "states may be updated in place only at the same address with the same strides"
                          : "a buffer that is written must stand apart from all others");
  if ((status = check_scalars(plan, a, words)) != GLA_OK) return status;

  words[arg_read_slots] = (uintptr_t)a->read_slots;
  words[arg_write_slots] = (uintptr_t)a->write_slots;
  words[arg_cu_seqlens] = (uintptr_t)shape.cu_seqlens;
  words[arg_device_status] = (uintptr_t)a->device_status;
  words[arg_workspace] = (uintptr_t)workspace;
  words[arg_mapped] = 0;
  words[arg_sequences] = (uint64_t)shape.sequences;
  words[arg_tokens] = (uint64_t)shape.tokens;
  words[arg_longest] = (uint64_t)shape.longest;
  words[arg_heads] = (uint64_t)p->h;
  words[arg_kv_heads] = (uint64_t)p->hkv;
  words[arg_slots] = (uint64_t)slots;
  return GLA_OK;
}

/* ---- launches ----------------------------------------------------------------------------------------------------- */

/* One stage of a call with all that its launch takes. */
struct prepared {
  int64_t tasks;
  cpu_entry run;
  uint64_t words[args_];
#if GLA_CUDA
  struct CUfunc_st* function;
  struct encoded_map maps[most_maps];
  void* parameters[args_ + 1];
  struct launch_attribute attributes[2];
  struct launch_config config;
#endif
};

struct gla_launch {
  struct prepared stage[most_stages];
  const gla_device* device;
  const struct plan* plan;
  char* scratch; /* of worker 0 */
  int64_t scratch_bytes;
  int stages;
};

static gla_status prepare(const gla_plan* plan, const gla_shape* shape, const gla_args* args, void* workspace,
                          size_t workspace_bytes, bool within, struct gla_launch* launch) {
  uint64_t words[args_] = {0};
  int64_t extents[axes] = {0};
  const gla_status status = read_call(plan, shape, args, workspace, workspace_bytes, within, words, extents);
  if (status != GLA_OK) return status;
  const struct kernel* const kernel = plan->kernel;
  launch->device = plan->device;
  launch->plan = kernel->plan;
  launch->scratch = (char*)workspace + shared_workspace(kernel->plan, extents);
  launch->scratch_bytes = scratch_of_worker(kernel->plan);
  launch->stages = 0;
  for (int i = 0; i < kernel->plan->stages; ++i) {
    const struct stage* const stage = &kernel->plan->stage[i];
    const int64_t tasks = count_at(&stage->tasks, extents);
    if (tasks == 0) continue;
    struct prepared* const s = &launch->stage[launch->stages++];
    s->tasks = tasks;
    for (int a = 0; a < stage->args; ++a) s->words[a] = words[stage->arg[a]];
#if GLA_CPU
    if (!plan->device->cuda) s->run = kernel->entry[i].run;
#endif
#if GLA_CUDA
    if (!plan->device->cuda) continue;
    if (tasks > plan->device->most_tasks || tasks % stage->cluster != 0)
      return fail(GLA_UNSUPPORTED,
                  "\"%s\" of %s takes %lld blocks for this shape; a grid holds %d, in whole clusters of %u",
                  stage->entry, kernel->plan->variant, (long long)tasks, plan->device->most_tasks, stage->cluster);
    const bool mapped = map_tensors(stage, words, extents, s->maps);
    for (int a = 0; a < stage->args; ++a) {
      if (stage->arg[a] == arg_mapped) s->words[a] = mapped;
      s->parameters[a] = &s->words[a];
    }
    s->parameters[stage->args] = s->maps;
    s->function = kernel->entry[i].function;
    s->config = config_of(stage, s->attributes);
    s->config.grid[0] = (unsigned)tasks;
    s->config.stream = args->stream;
    if (stage->early && launch->stages > 1)
      s->attributes[s->config.attribute_count++] = (struct launch_attribute){.id = launch_early, .value.early = 1};
#endif
  }
  return GLA_OK;
}

#if GLA_CUDA
__attribute__((cold)) static gla_status refused(const struct gla_launch* launch, int stage, int outcome) {
  return cuda_fail(outcome, "the GPU refuses the launch of stage %d of %s with %lld blocks", stage,
                   launch->plan->variant, (long long)launch->stage[stage].tasks);
}

static gla_status run_cuda(const struct gla_launch* launch) {
  bool pushed;
  int outcome = enter(launch->device, &pushed), i = 0;
  if (outcome != cuda_success) return cuda_fail(outcome, "cannot use the GPU's context");
  for (; i < launch->stages; ++i) {
    const struct prepared* const s = &launch->stage[i];
    outcome = cu.LaunchKernelEx(&s->config, s->function, (void**)s->parameters, NULL);
    if (outcome != cuda_success) break;
  }
  leave(pushed);
  return outcome == cuda_success ? GLA_OK : refused(launch, i, outcome);
}
#endif

gla_status gla_launch_run(const gla_launch* launch) {
  if (launch == NULL) return refuse("launch is NULL");
#if GLA_CUDA
  if (launch->device->cuda) return run_cuda(launch);
#endif
  for (int i = 0; i < launch->stages; ++i) {
    const struct prepared* const s = &launch->stage[i];
    for (int64_t task = 0; task < s->tasks; ++task) s->run(s->words, task, launch->scratch);
  }
  return GLA_OK;
}

gla_status gla_run(const gla_plan* plan, const gla_shape* shape, const gla_args* args, void* workspace,
                   size_t workspace_bytes) {
  struct gla_launch launch;
  const gla_status status = prepare(plan, shape, args, workspace, workspace_bytes, false, &launch);
  return status == GLA_OK ? gla_launch_run(&launch) : status;
}

gla_status gla_launch_prepare(const gla_plan* plan, const gla_shape* shape, const gla_args* args, void* workspace,
                              size_t workspace_bytes, gla_launch** launch) {
  if (launch == NULL) return refuse("launch is NULL");
  struct gla_launch* const made = aligned_alloc(128, (sizeof *made + 127) / 128 * 128);
  if (made == NULL) return fail(GLA_OUT_OF_MEMORY, "out of memory");
  const gla_status status = prepare(plan, shape, args, workspace, workspace_bytes, true, made);
  if (status == GLA_OK)
    *launch = made;
  else
    free(made);
  return status;
}

void gla_launch_close(gla_launch* launch) { free(launch); }

int gla_launch_stages(const gla_launch* launch) {
  return launch == NULL || launch->device->cuda ? 0 : launch->stages;
}
int64_t gla_launch_tasks(const gla_launch* launch, int stage) {
  return stage >= 0 && stage < gla_launch_stages(launch) ? launch->stage[stage].tasks : 0;
}
void gla_launch_task(const gla_launch* launch, int stage, int64_t task, int worker) {
  const struct prepared* const s = &launch->stage[stage];
  s->run(s->words, task, launch->scratch + worker * launch->scratch_bytes);
}
