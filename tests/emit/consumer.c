/* An engine in C that links what `glaive emit` wrote, and nothing else:
 *   consumer DEVICE PROBLEM SEQUENCES TOKENS [WORKERS]
 * Runs the problem with states by slot, as a call, as a prepared launch, and on a CPU by tasks on threads of its own,
 * and holds each against the recurrence in float64. Prints the plan and its errors. Ends with 1 where one is too large.
 */
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gla.h"

/* ---- memory of the device: the host's, or the driver's ---- */

static int (*mem_alloc)(void**, size_t), (*copy_in)(void*, const void*, size_t), (*copy_out)(void*, void*, size_t),
    (*synchronize)(void);
static int on_gpu;

static void check(int good, const char* what) {
  if (good) return;
  fprintf(stderr, "consumer: %s: %s\n", what, gla_last_error());
  exit(1);
}

int noisy_calls(void) __attribute__((weak)); /* quiet.c */

static void find(void* library, const char* name, void* function) {
  void* const found = dlsym(library, name);
  check(found != NULL, name);
  memcpy(function, &found, sizeof found);
}

static void open_driver(void) {
  const char* const named = getenv("GLAIVE_LIBCUDA");
  void* const library = dlopen(named != NULL ? named : "libcuda.so.1", RTLD_NOW);
  int (*init)(unsigned), (*retain)(void**, int), (*push)(void*);
  void* context;
  check(library != NULL, "libcuda");
  find(library, "cuInit", &init);
  find(library, "cuDevicePrimaryCtxRetain", &retain);
  find(library, "cuCtxPushCurrent_v2", &push);
  find(library, "cuMemAlloc_v2", &mem_alloc);
  find(library, "cuMemcpyHtoD_v2", &copy_in);
  find(library, "cuMemcpyDtoH_v2", &copy_out);
  find(library, "cuCtxSynchronize", &synchronize);
  check(init(0) == 0 && retain(&context, 0) == 0 && push(context) == 0, "a context");
}

static void* device_memory(const void* from, size_t bytes) {
  void* memory = NULL;
  const size_t padded = (bytes + 63) / 64 * 64 + 64;
  if (on_gpu) {
    check(mem_alloc(&memory, padded) == 0, "memory on the GPU");
    check(from == NULL || copy_in(memory, from, bytes) == 0, "a copy to the GPU");
  } else {
    memory = aligned_alloc(64, padded);
    if (from != NULL) memcpy(memory, from, bytes);
  }
  return memory;
}
/* What a kernel does not write is NaN. */
static void poison(void* memory, size_t bytes) {
  void* const ones = malloc(bytes);
  memset(ones, 0xff, bytes);
  if (on_gpu)
    check(copy_in(memory, ones, bytes) == 0, "a copy to the GPU");
  else
    memcpy(memory, ones, bytes);
  free(ones);
}
static void read_back(void* to, void* from, size_t bytes) {
  if (on_gpu)
    check(synchronize() == 0 && copy_out(to, from, bytes) == 0, "a copy from the GPU");
  else
    memcpy(to, from, bytes);
}

/* ---- tensors in f32 or bf16 ---- */

static int is_bf16;

static float rounded(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  memcpy(&x, &bits, 4);
  return x;
}
static size_t element(void) { return is_bf16 ? 2 : 4; }

static uint64_t seed = 1;
static double uniform(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (double)(seed >> 40) / (1 << 24);
}
static float* made(int64_t count, int gate) {
  float* const values = malloc((size_t)count * sizeof *values);
  for (int64_t i = 0; i < count; ++i) {
    const double x = gate ? -0.5 * uniform() : 2 * uniform() - 1;
    values[i] = is_bf16 ? rounded((float)x) : (float)x;
  }
  return values;
}
static void* upload(const float* values, int64_t count) {
  if (!is_bf16) return device_memory(values, (size_t)count * 4);
  uint16_t* const halves = malloc((size_t)count * 2);
  for (int64_t i = 0; i < count; ++i) memcpy(&halves[i], (const char*)&values[i] + 2, 2);
  void* const memory = device_memory(halves, (size_t)count * 2);
  free(halves);
  return memory;
}
static void download(float* values, void* memory, int64_t count) {
  if (!is_bf16) {
    read_back(values, memory, (size_t)count * 4);
    return;
  }
  uint16_t* const halves = malloc((size_t)count * 2);
  read_back(halves, memory, (size_t)count * 2);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = (uint32_t)halves[i] << 16;
    memcpy(&values[i], &bits, 4);
  }
  free(halves);
}

static double distance(const float* got, const double* want, int64_t count) {
  double error = 0, norm = 1e-30;
  for (int64_t i = 0; i < count; ++i) {
    const double off = (double)got[i] - want[i];
    error += off * off, norm += want[i] * want[i];
  }
  return sqrt(error / norm);
}

/* ---- a stage on threads of our own: worker w has the tasks w, w + workers .. ---- */

struct share {
  const gla_launch* launch;
  int stage, worker, workers;
};
static void* run_share(void* given) {
  const struct share* const s = given;
  for (int64_t task = s->worker; task < gla_launch_tasks(s->launch, s->stage); task += s->workers)
    gla_launch_task(s->launch, s->stage, task, s->worker);
  return NULL;
}
static void run_stage(const gla_launch* launch, int stage, int workers) {
  struct share shares[64];
  pthread_t threads[64];
  for (int w = 0; w < workers; ++w) {
    shares[w] = (struct share){launch, stage, w, workers};
    check(pthread_create(&threads[w], NULL, run_share, &shares[w]) == 0, "a thread");
  }
  for (int w = 0; w < workers; ++w) pthread_join(threads[w], NULL);
}

static long number_after(const char* text, const char* word, long absent) {
  for (const char* at = text; (at = strstr(at, word)) != NULL; ++at)
    if (at[-1] == ' ' && at[strlen(word)] >= '0' && at[strlen(word)] <= '9') return strtol(at + strlen(word), NULL, 10);
  return absent;
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const char* const text = argv[2];
  const int64_t B = atol(argv[3]), T = atol(argv[4]);
  const int workers = argc > 5 ? atoi(argv[5]) : 1;
  const int64_t H = number_after(text, "H", 0), Hkv = number_after(text, "Hkv", H), K = number_after(text, "K", 0),
                V = number_after(text, "V", 0), slots = B + 2;
  is_bf16 = strstr(text, "bf16") != NULL;
  on_gpu = strncmp(argv[1], "cuda", 4) == 0;
  if (on_gpu) open_driver();

  gla_device* device = NULL;
  gla_problem problem;
  gla_operator* op = NULL;
  const gla_plan* plan = NULL;
  check(gla_device_open(argv[1], on_gpu ? 0 : workers, &device) == GLA_OK, "device");
  check(gla_problem_find(text, &problem) == GLA_OK, "problem");
  check(gla_operator_create(device, problem, &op) == GLA_OK, "operator");
  const gla_shape shape = {B, T, 0, NULL};
  check(gla_operator_plan(op, &shape, &plan) == GLA_OK, "plan");
  gla_fit fit;
  check(gla_plan_fit(plan, &shape, &fit) == GLA_OK, "fit");
  printf("plan %s for %s, match %d, distance %d, regret %g\n", gla_plan_variant(plan), gla_plan_target(plan), fit.match,
         (int)fit.distance, fit.regret);

  float *const q = made(B * T * H * K, 0), *const k = made(B * T * Hkv * K, 0), *const v = made(B * T * Hkv * V, 0),
               *const g = made(B * T * Hkv * K, 1), *const o = malloc((size_t)(B * T * H * V) * sizeof(float));
  float* const states = malloc((size_t)(slots * Hkv * K * V) * sizeof(float));
  for (int64_t i = 0; i < slots * Hkv * K * V; ++i) states[i] = (float)(2 * uniform() - 1);

  /* Sequence b starts from slot b + 1, the first of them from zero, and ends in slot b + 2. */
  int32_t* const reads = malloc((size_t)B * 4);
  int32_t* const writes = malloc((size_t)B * 4);
  for (int64_t b = 0; b < B; ++b) reads[b] = b == 0 ? -1 : (int32_t)b, writes[b] = (int32_t)(b + 1);
  double* const want = calloc((size_t)(B * T * H * V), sizeof(double));
  double* const last = calloc((size_t)(B * Hkv * K * V), sizeof(double));
  for (int64_t b = 0; b < B; ++b)
    for (int64_t kv = 0; kv < Hkv; ++kv) {
      double* const s = last + (b * Hkv + kv) * K * V;
      if (b > 0)
        for (int64_t i = 0; i < K * V; ++i) s[i] = states[(b * Hkv + kv) * K * V + i];
      for (int64_t t = b * T; t < (b + 1) * T; ++t) {
        const int64_t row = t * Hkv + kv;
        for (int64_t i = 0; i < K; ++i)
          for (int64_t j = 0; j < V; ++j)
            s[i * V + j] = exp((double)g[row * K + i]) * s[i * V + j] + (double)k[row * K + i] * (double)v[row * V + j];
        for (int64_t h = kv * (H / Hkv); h < (kv + 1) * (H / Hkv); ++h)
          for (int64_t j = 0; j < V; ++j) {
            double sum = 0;
            for (int64_t i = 0; i < K; ++i) sum += (double)q[(t * H + h) * K + i] * s[i * V + j];
            want[(t * H + h) * V + j] = sum / sqrt((double)K);
          }
      }
    }

  const int64_t state_count = slots * Hkv * K * V;
  void* const out_states = device_memory(NULL, (size_t)state_count * 4);
  void* const out = device_memory(NULL, (size_t)(B * T * H * V) * element());
  uint32_t status = 0;
  uint32_t* const device_status = device_memory(&status, sizeof status);
  gla_args args = {.q = upload(q, B * T * H * K),
                   .k = upload(k, B * T * Hkv * K),
                   .v = upload(v, B * T * Hkv * V),
                   .g = upload(g, B * T * Hkv * K),
                   .o = out,
                   .initial_state = device_memory(states, (size_t)state_count * 4),
                   .final_state = out_states,
                   .read_slots = device_memory(reads, (size_t)B * 4),
                   .write_slots = device_memory(writes, (size_t)B * 4),
                   .slots = slots,
                   .device_status = device_status};
  size_t bytes = 0, most = 0;
  check(gla_plan_workspace(plan, &shape, &bytes) == GLA_OK, "workspace");
  check(gla_operator_workspace(op, &shape, &most) == GLA_OK && most >= bytes, "workspace of the operator");
  void* const workspace = device_memory(NULL, most);

  /* One clear sentence for each mistake, and nothing is written. */
  gla_args wrong = args;
  wrong.k = NULL;
  check(gla_run(plan, &shape, &wrong, workspace, bytes) == GLA_INVALID_ARGUMENT, "a missing tensor");
  check(strcmp(gla_last_error(), "args->k is NULL") == 0, "its sentence");
  wrong = args;
  wrong.o = (void*)(uintptr_t)args.q;
  check(gla_run(plan, &shape, &wrong, workspace, bytes) == GLA_INVALID_ARGUMENT, "an overlap");
  check(strstr(gla_last_error(), "args->o overlaps args->q; a buffer that is written") != NULL, "its sentence");
  if (bytes > 0) {
    check(gla_run(plan, &shape, &args, workspace, bytes - 1) == GLA_INVALID_ARGUMENT, "a small workspace");
    check(strstr(gla_last_error(), "; this call needs ") != NULL, "its sentence");
  }

  const double allowed_o = is_bf16 ? 1e-2 : on_gpu ? 1e-4 : 5e-6, allowed_s = is_bf16 ? 5e-3 : allowed_o;
  const char* const ways[] = {"call", "launch", "tasks"};
  float* const left = malloc((size_t)state_count * sizeof(float));
  int bad = 0;
  for (int way = 0; way < (on_gpu ? 2 : 3); ++way) {
    poison(out, (size_t)(B * T * H * V) * element());
    poison(out_states, (size_t)state_count * 4);
    gla_launch* launch = NULL;
    if (way == 0) {
      check(gla_run(plan, &shape, &args, workspace, bytes) == GLA_OK, "run");
    } else {
      check(gla_launch_prepare(plan, &shape, &args, workspace, bytes, &launch) == GLA_OK, "prepare");
      const int noisy = noisy_calls != NULL ? noisy_calls() : 0;
      if (way == 1) check(gla_launch_run(launch) == GLA_OK, "launch");
      if (noisy_calls != NULL && !on_gpu) check(noisy_calls() == noisy, "a launch that allocates, locks or formats");
      for (int stage = 0; way == 2 && stage < gla_launch_stages(launch); ++stage) run_stage(launch, stage, workers);
    }
    download(o, out, B * T * H * V);
    read_back(left, out_states, (size_t)state_count * 4);
    const double off_o = distance(o, want, B * T * H * V), off_s = distance(left + Hkv * K * V, last, B * Hkv * K * V);
    printf("%s: o %.1e, state %.1e\n", ways[way], off_o, off_s);
    bad |= !(off_o <= allowed_o && off_s <= allowed_s);
    gla_launch_close(launch);
  }
  read_back(&status, device_status, sizeof status);
  bad |= status != 0;
  gla_operator_close(op);
  gla_device_close(device);
  printf(bad ? "WRONG\n" : "right\n");
  return bad;
}
