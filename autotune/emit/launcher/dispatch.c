/* ---- what there is ------------------------------------------------------------------------------------------------ */

const char* gla_problem_text(gla_problem problem) {
  return (int)problem >= 0 && (int)problem < problem_count ? problems[problem].text : "";
}

gla_status gla_problem_find(const char* text, gla_problem* problem) {
  if (text == NULL) return refuse("text is NULL");
  if (problem == NULL) return refuse("problem is NULL");
  for (int i = 0; i < problem_count; ++i)
    if (strcmp(problems[i].text, text) == 0) {
      *problem = (gla_problem)i;
      return GLA_OK;
    }
  char known[768] = "";
  size_t length = 0;
  for (int i = 0; i < problem_count && length < sizeof known; ++i)
    length += (size_t)snprintf(known + length, sizeof known - length, "%s`%s`", i > 0 ? ", " : "", problems[i].text);
  return fail(GLA_UNSUPPORTED, "no kernels for the problem `%.128s`; there are %s", text, known);
}

/* ---- devices ------------------------------------------------------------------------------------------------------ */

static bool runs(const gla_device* device, const struct target* target) {
#if GLA_CUDA
  if (device->cuda) return cuda_runs(device, target);
#endif
#if GLA_CPU
  if (!device->cuda) return cpu_runs(target);
#endif
  (void)device, (void)target;
  return false;
}

static gla_status open_named(const char* name, gla_device* device) {
  if (strcmp(name, "cpu") == 0) {
#if GLA_CPU
    describe_cpu(device);
    return GLA_OK;
#else
    return fail(GLA_NOT_FOUND, "these kernels are for GPUs: \"cuda:0\", \"cuda:1\" ..; there is none for \"cpu\"");
#endif
  }
  char* end = NULL;
  const long ordinal = strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9' ? strtol(name + 5, &end, 10)
                                                                                           : -1;
  if (ordinal < 0 || *end != 0 || ordinal > 1023)
    return fail(GLA_NOT_FOUND, "there is no device \"%.64s\"; a device is \"cpu\", or \"cuda:0\", \"cuda:1\" ..", name);
  device->cuda = true;
#if GLA_CUDA
  if (device->workers != 1) return refuse("workers is %d; a GPU's calls are shared by no threads: 0", device->workers);
  return open_cuda((int)ordinal, device);
#else
  return fail(GLA_NOT_FOUND, "these kernels are for the \"cpu\"; there is none for \"%.64s\"", name);
#endif
}

gla_status gla_device_open(const char* name, int workers, gla_device** device) {
  if (name == NULL) return refuse("name is NULL");
  if (device == NULL) return refuse("device is NULL");
  if (workers < 0 || workers > 1024) return refuse("workers is %d; it must be 0 (one) or from 1 to 1024", workers);
  gla_device* const made = calloc(1, sizeof *made);
  if (made == NULL) return fail(GLA_OUT_OF_MEMORY, "out of memory");
  made->workers = workers == 0 ? 1 : workers;
  const gla_status status = open_named(name, made);
  if (status == GLA_OK)
    *device = made;
  else
    free(made);
  return status;
}

void gla_device_close(gla_device* device) {
#if GLA_CUDA
  if (device != NULL && device->cuda) cu.DevicePrimaryCtxRelease(device->number);
#endif
  free(device);
}

static gla_status load(const gla_device* device, struct kernel* kernel) {
#if GLA_CUDA
  if (device->cuda) return load_cuda(device, kernel);
#endif
#if GLA_CPU
  if (!device->cuda) return load_cpu(device, kernel);
#endif
  (void)device, (void)kernel;
  return GLA_FAILED;
}

static void unload(const gla_device* device, struct kernel* kernel) {
#if GLA_CUDA
  if (device->cuda) unload_cuda(device, kernel);
#endif
#if GLA_CPU
  if (!device->cuda) unload_cpu(kernel);
#endif
  (void)device, (void)kernel;
}

/* ---- which plan a shape gets --------------------------------------------------------------------------------------
 *
 * The best entry by match, then what was tuned at all before PTX, then the device's own target, the number of threads,
 * the distance of buckets, and age. */

static bool untuned(const struct entry* e) { return e->device[0] == 0; }

static bool same_target(const struct target* a, const struct target* b) {
  return a->cuda == b->cuda && a->ptx == b->ptx && a->suffix == b->suffix && a->level == b->level &&
         a->major == b->major && a->minor == b->minor && a->features == b->features;
}

static bool foreign_threads(const gla_device* device, const struct entry* e) {
  return e->threads != 0 && e->threads != device->workers;
}

static gla_match match_of(const gla_device* device, const struct entry* e, struct bucket bucket) {
  if (strcmp(e->device, device->identity) != 0) return GLA_MATCH_OTHER_DEVICE;
  return distance_of(e->bucket, bucket) == 0 && !foreign_threads(device, e) ? GLA_MATCH_EXACT : GLA_MATCH_NEAREST;
}

/* Whether `a` is the better of two entries; of equals the one that comes later, the newer. */
static bool is_better(const gla_device* device, const struct entry* a, const struct entry* b, struct bucket bucket) {
  const int ranks[][2] = {
      {(int)match_of(device, a, bucket), (int)match_of(device, b, bucket)},
      {untuned(a), untuned(b)},
      {!same_target(&a->target, &device->target), !same_target(&b->target, &device->target)},
      {foreign_threads(device, a), foreign_threads(device, b)},
      {distance_of(a->bucket, bucket), distance_of(b->bucket, bucket)}};
  for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; ++i)
    if (ranks[i][0] != ranks[i][1]) return ranks[i][0] < ranks[i][1];
  return a > b;
}

/* The best that is not in `without`, or NULL. */
static const struct entry* find_entry(const gla_device* device, int problem, struct bucket bucket,
                                      const bool* without) {
  const struct entry* best = NULL;
  for (int i = 0; i < entry_count; ++i) {
    const struct entry* const e = &entries[i];
    if (e->problem != problem || without[i]) continue;
    if (best == NULL || is_better(device, e, best, bucket)) best = e;
  }
  return best;
}

/* The kernel of a plan, loaded once. */
static gla_status find_kernel(gla_operator* op, const struct plan* plan, const struct kernel** found) {
  for (int i = 0; i < op->kernels; ++i)
    if (op->kernel[i].plan == plan) return *found = &op->kernel[i], GLA_OK;
  struct kernel* const kernel = &op->kernel[op->kernels];
  memset(kernel, 0, sizeof *kernel);
  kernel->plan = plan;
  const gla_status status = load(op->device, kernel);
  if (status == GLA_OK) {
    *found = kernel;
    ++op->kernels;
  } else {
    unload(op->device, kernel);
  }
  return status;
}

static const struct gla_plan* plan_for(gla_operator* op, const struct entry* entry, const struct kernel* kernel,
                                       bool demoted) {
  for (int i = 0; i < op->plans; ++i)
    if (op->plan[i].entry == entry && op->plan[i].demoted == demoted) return &op->plan[i];
  struct gla_plan* const made = &op->plan[op->plans++];
  *made = (struct gla_plan){op->device, op->problem, entry, kernel, demoted, 0};
  for (int i = 0; i < kernel->plan->stages; ++i)
    for (int a = 0; a < kernel->plan->stage[i].args; ++a) made->takes |= UINT64_C(1) << kernel->plan->stage[i].arg[a];
  return made;
}

/* The plan of every bucket. An entry that cannot be loaded is a miss: the next best serves. Where none is left, the
 * first miss tells why. */
static gla_status fill(gla_operator* op, int problem) {
  bool foreign[entry_count], missed[entry_count];
  for (int i = 0; i < entry_count; ++i) foreign[i] = missed[i] = !runs(op->device, &entries[i].target);
  gla_status first = GLA_OK;
  char why[sizeof last_error] = "";
  for (int i = 0; i < buckets; ++i) {
    const struct bucket bucket = {i / token_buckets, i % token_buckets};
    const struct entry* const best = find_entry(op->device, problem, bucket, foreign);
    while (op->by_bucket[i] == NULL) {
      const struct entry* const e = find_entry(op->device, problem, bucket, missed);
      if (e == NULL && first != GLA_OK) return fail(first, "%s", why);
      if (e == NULL) return fail(GLA_UNSUPPORTED, "no kernel for `%s` runs on %s", op->problem->text, op->device->name);
      const struct kernel* kernel;
      const gla_status status = find_kernel(op, &plans[e->plan], &kernel);
      if (status == GLA_OK) {
        op->by_bucket[i] = plan_for(op, e, kernel, e != best);
        continue;
      }
      for (int j = 0; j < entry_count; ++j) missed[j] = missed[j] || entries[j].plan == e->plan;
      if (first != GLA_OK) continue;
      first = status;
      memcpy(why, last_error, sizeof why);
    }
  }
  return GLA_OK;
}

gla_status gla_operator_create(gla_device* device, gla_problem problem, gla_operator** op) {
  if (device == NULL) return refuse("device is NULL");
  if (op == NULL) return refuse("op is NULL");
  if ((int)problem < 0 || (int)problem >= problem_count)
    return refuse("problem is %d; it must be from 0 to %d", (int)problem, problem_count - 1);
  gla_operator* const made = calloc(1, sizeof *made);
  if (made != NULL) {
    made->device = device;
    made->problem = &problems[problem];
    made->kernel = calloc(plan_count, sizeof *made->kernel);
    made->plan = calloc(2 * entry_count, sizeof *made->plan);
  }
  char before[sizeof last_error]; /* misses on the way to a plan are no failure of this call */
  memcpy(before, last_error, sizeof before);
  gla_status status = GLA_OUT_OF_MEMORY;
  if (made == NULL || made->kernel == NULL || made->plan == NULL)
    fail(status, "out of memory");
  else
    status = fill(made, (int)problem);
  if (status == GLA_OK) {
    memcpy(last_error, before, sizeof before);
    *op = made;
  } else {
    gla_operator_close(made);
  }
  return status;
}

void gla_operator_close(gla_operator* op) {
  if (op == NULL) return;
  for (int i = 0; i < op->kernels; ++i) unload(op->device, &op->kernel[i]);
  free(op->kernel);
  free(op->plan);
  free(op);
}

static gla_match match_with(const gla_plan* plan, struct bucket bucket) {
  const gla_match match = match_of(plan->device, plan->entry, bucket);
  return match == GLA_MATCH_EXACT && plan->demoted ? GLA_MATCH_NEAREST : match;
}

/* Why a plan is a fallback, in the order of what it costs. */
static const char* fallback_of(const gla_plan* plan) {
  const struct entry* const e = plan->entry;
  if (untuned(e)) return "which nobody has tuned";
  if (strcmp(e->device, plan->device->identity) != 0) return "tuned on another device";
  if (foreign_threads(plan->device, e)) return "tuned with another number of threads";
  if (plan->demoted) return "in place of one that could not be loaded";
  return "tuned for other shapes";
}

gla_status gla_operator_plan(const gla_operator* op, const gla_shape* shape, const gla_plan** plan) {
  return gla_operator_plan_within(op, shape, GLA_MATCH_OTHER_DEVICE, plan);
}

gla_status gla_operator_plan_within(const gla_operator* op, const gla_shape* given, gla_match worst,
                                    const gla_plan** plan) {
  if (op == NULL) return refuse("op is NULL");
  if (plan == NULL) return refuse("plan is NULL");
  if ((int)worst < GLA_MATCH_EXACT || worst > GLA_MATCH_OTHER_DEVICE)
    return refuse("worst is %d; allowed are 0 (exact) 1 (nearest) 2 (other device)", (int)worst);
  struct call shape;
  const gla_status status = shape_from(given, op->problem, &shape);
  if (status != GLA_OK) return status;
  const struct bucket bucket = bucket_of(op->problem, shape.sequences, shape.longest);
  const gla_plan* const found = op->by_bucket[bucket.work * token_buckets + bucket.tokens];
  if (worst < GLA_MATCH_OTHER_DEVICE && match_with(found, bucket) > worst)
    return fail(GLA_UNSUPPORTED,
                "the plan at hand of `%s` for %lld sequences of up to %lld tokens is no better than a fallback: %s, %s",
                op->problem->text, (long long)shape.sequences, (long long)shape.longest, found->kernel->plan->variant,
                fallback_of(found));
  *plan = found;
  return GLA_OK;
}

gla_status gla_plan_fit(const gla_plan* plan, const gla_shape* given, gla_fit* fit) {
  if (plan == NULL) return refuse("plan is NULL");
  if (fit == NULL) return refuse("fit is NULL");
  struct call shape;
  const gla_status status = shape_from(given, plan->problem, &shape);
  if (status != GLA_OK) return status;
  const struct entry* const e = plan->entry;
  const struct bucket bucket = bucket_of(plan->problem, shape.sequences, shape.longest);
  fit->match = match_with(plan, bucket);
  fit->distance = distance_of(e->bucket, bucket);
  fit->work_low = work_edges[e->bucket.work];
  fit->work_high = e->bucket.work + 1 < work_buckets ? work_edges[e->bucket.work + 1] - 1 : -1;
  fit->tokens_low = token_edges[e->bucket.tokens];
  fit->tokens_high = e->bucket.tokens + 1 < token_buckets ? token_edges[e->bucket.tokens + 1] - 1 : -1;
  fit->timed_sequences = e->timed_sequences;
  fit->timed_tokens = e->timed_tokens;
  fit->timed_longest = e->timed_longest;
  fit->headroom = e->headroom;
  fit->regret = fit->match == GLA_MATCH_EXACT ? 0
                : fit->match == GLA_MATCH_NEAREST && fit->distance > 0 && !plan->demoted &&
                        !foreign_threads(plan->device, e)
                    ? e->regret_per_step * fit->distance
                    : (double)NAN;
  return GLA_OK;
}

const char* gla_plan_variant(const gla_plan* plan) { return plan == NULL ? "" : plan->kernel->plan->variant; }
const char* gla_plan_target(const gla_plan* plan) { return plan == NULL ? "" : plan->kernel->plan->target.text; }

gla_status gla_plan_workspace(const gla_plan* plan, const gla_shape* given, size_t* bytes) {
  if (plan == NULL) return refuse("plan is NULL");
  if (bytes == NULL) return refuse("bytes is NULL");
  struct call shape;
  const gla_status status = shape_from(given, plan->problem, &shape);
  if (status != GLA_OK) return status;
  int64_t extents[axes];
  extents_of(&shape, plan->problem, plan->device->workers, extents);
  *bytes = (size_t)workspace_of(plan->kernel->plan, extents);
  return GLA_OK;
}

gla_status gla_operator_workspace(const gla_operator* op, const gla_shape* largest, size_t* bytes) {
  if (op == NULL) return refuse("op is NULL");
  if (bytes == NULL) return refuse("bytes is NULL");
  struct call shape;
  const gla_status status = shape_from(largest, op->problem, &shape);
  if (status != GLA_OK) return status;
  int64_t extents[axes], most = 0;
  extents_of(&shape, op->problem, op->device->workers, extents);
  /* Every plan that a smaller shape may find, at the largest: workspace never shrinks as extents grow. */
  const struct bucket last = bucket_of(op->problem, shape.sequences, shape.longest);
  for (int work = 0; work <= last.work; ++work)
    for (int tokens = 0; tokens <= last.tokens; ++tokens) {
      const int64_t needed = workspace_of(op->by_bucket[work * token_buckets + tokens]->kernel->plan, extents);
      if (needed > most) most = needed;
    }
  *bytes = (size_t)most;
  return GLA_OK;
}
