#if GLA_CUDA
/* ---- GPUs ---------------------------------------------------------------------------------------------------------
 *
 * libcuda as far as it is used. The declarations are ours: the driver's ABI is frozen by the versions in its names. */

#include <pthread.h>

enum {
  cuda_success = 0,
  cuda_out_of_memory = 2,
  cuda_none = 100,
  attribute_max_grid_x = 5,
  attribute_multiprocessors = 16,
  attribute_memory_clock_khz = 36,
  attribute_memory_bus_bits = 37,
  attribute_l2_bytes = 38,
  attribute_compute_major = 75,
  attribute_compute_minor = 76,
  attribute_shared_bytes_per_sm = 81,
  attribute_shared_bytes_per_block_optin = 97,
  attribute_clusters = 120,
  function_max_threads = 0,
  function_shared_bytes = 1,
  function_max_dynamic_shared = 8,
  function_non_portable_cluster = 14,
  launch_cluster = 4,
  launch_early = 6,
  portable_cluster = 8
};

struct launch_attribute {
  int id, padding;
  union {
    char bytes[64];
    unsigned cluster[3];
    int early;
  } value;
};
struct launch_config {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  struct launch_attribute* attributes;
  unsigned attribute_count;
};
struct encoded_map {
  _Alignas(128) uint64_t words[16];
};

static struct {
  int (*Init)(unsigned);
  int (*DriverGetVersion)(int*);
  int (*GetErrorName)(int, const char**);
  int (*GetErrorString)(int, const char**);
  int (*DeviceGetCount)(int*);
  int (*DeviceGet)(int*, int);
  int (*DeviceGetName)(char*, int, int);
  int (*DeviceGetAttribute)(int*, int, int);
  int (*DevicePrimaryCtxRetain)(struct CUctx_st**, int);
  int (*DevicePrimaryCtxRelease)(int);
  int (*CtxGetCurrent)(struct CUctx_st**);
  int (*CtxPushCurrent)(struct CUctx_st*);
  int (*CtxPopCurrent)(struct CUctx_st**);
  int (*ModuleLoadDataEx)(void**, const void*, unsigned, int*, void**);
  int (*ModuleUnload)(void*);
  int (*ModuleGetFunction)(struct CUfunc_st**, void*, const char*);
  int (*FuncGetAttribute)(int*, int, struct CUfunc_st*);
  int (*FuncSetAttribute)(struct CUfunc_st*, int, int);
  int (*OccupancyMaxActiveClusters)(int*, struct CUfunc_st*, const struct launch_config*);
  int (*LaunchKernelEx)(const struct launch_config*, struct CUfunc_st*, void**, void**);
  int (*TensorMapEncodeTiled)(struct encoded_map*, int, unsigned, void*, const uint64_t*, const uint64_t*,
                              const uint32_t*, const uint32_t*, int, int, int, int);
  int (*FuncGetParamInfo)(struct CUfunc_st*, size_t, size_t*, size_t*); /* since 12.4, may be null */
} cu;

static struct {
  gla_status status;
  char message[512];
  int devices;
} driver;

static bool breaks_context(int outcome) {
  switch (outcome) {
    case 214: /* uncorrectable memory */
    case 220: /* NVLink */
    case 226: /* contained */
    case 700: /* illegal address */
    case 702: /* timeout */
    case 709: /* context is destroyed */
    case 710: /* assertion */
    case 714: /* stack */
    case 715: /* illegal instruction */
    case 716: /* misaligned address */
    case 717: /* invalid address space */
    case 718: /* invalid pc */
    case 719: /* launch failed */
    case 721: /* tensor memory */
    case 810: /* MPS client terminated */
    case 911: /* external device */
      return true;
    default:
      return false;
  }
}

/* `<doing>: CUDA_ERROR_... (text)`, with the status that fits. */
__attribute__((format(printf, 2, 3), cold)) static gla_status cuda_fail(int outcome, const char* format, ...) {
  char doing[512];
  va_list values;
  va_start(values, format);
  vsnprintf(doing, sizeof doing, format, values);
  va_end(values);
  const char *name = NULL, *text = NULL;
  if (cu.GetErrorName(outcome, &name) != cuda_success || name == NULL) name = "an unknown CUDA error";
  if (cu.GetErrorString(outcome, &text) != cuda_success || text == NULL) text = "no text";
  if (breaks_context(outcome))
    return fail(GLA_DEVICE_LOST, "%s: %s (%s); this process's use of the device is broken", doing, name, text);
  return fail(outcome == cuda_out_of_memory ? GLA_OUT_OF_MEMORY : GLA_FAILED, "%s: %s (%s)", doing, name, text);
}

static void find_driver(void) {
  const char* named = secure_getenv("GLAIVE_LIBCUDA");
  const char* const path = named != NULL && named[0] != 0 ? named : "libcuda.so.1";
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  driver.status = GLA_NOT_FOUND;
  if (library == NULL) {
    snprintf(driver.message, sizeof driver.message, "the driver of CUDA is not to be had: %s", dlerror());
    return;
  }
  const struct {
    void* function;
    const char* name;
  } wanted[] = {{&cu.Init, "cuInit"},
                {&cu.DriverGetVersion, "cuDriverGetVersion"},
                {&cu.GetErrorName, "cuGetErrorName"},
                {&cu.GetErrorString, "cuGetErrorString"},
                {&cu.DeviceGetCount, "cuDeviceGetCount"},
                {&cu.DeviceGet, "cuDeviceGet"},
                {&cu.DeviceGetName, "cuDeviceGetName"},
                {&cu.DeviceGetAttribute, "cuDeviceGetAttribute"},
                {&cu.DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain"},
                {&cu.DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2"},
                {&cu.CtxGetCurrent, "cuCtxGetCurrent"},
                {&cu.CtxPushCurrent, "cuCtxPushCurrent_v2"},
                {&cu.CtxPopCurrent, "cuCtxPopCurrent_v2"},
                {&cu.ModuleLoadDataEx, "cuModuleLoadDataEx"},
                {&cu.ModuleUnload, "cuModuleUnload"},
                {&cu.ModuleGetFunction, "cuModuleGetFunction"},
                {&cu.FuncGetAttribute, "cuFuncGetAttribute"},
                {&cu.FuncSetAttribute, "cuFuncSetAttribute"},
                {&cu.OccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters"},
                {&cu.LaunchKernelEx, "cuLaunchKernelEx"},
                {&cu.TensorMapEncodeTiled, "cuTensorMapEncodeTiled"}};
  driver.status = GLA_UNSUPPORTED;
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i) {
    void* const found = dlsym(library, wanted[i].name);
    if (found == NULL) {
      snprintf(driver.message, sizeof driver.message,
               "the driver (%s) lacks %s: one for CUDA 12.0 or newer is needed", path, wanted[i].name);
      return;
    }
    memcpy(wanted[i].function, &found, sizeof found);
  }
  void* const optional = dlsym(library, "cuFuncGetParamInfo");
  memcpy(&cu.FuncGetParamInfo, &optional, sizeof optional);
  int version = 0;
  cu.DriverGetVersion(&version);
  if (version < 12000) {
    snprintf(driver.message, sizeof driver.message,
             "the driver (%s) is for CUDA %d.%d; one for CUDA 12.0 or newer is needed", path, version / 1000,
             version % 1000 / 10);
    return;
  }
  const int started = cu.Init(0);
  if (started == cuda_none ||
      (started == cuda_success && (cu.DeviceGetCount(&driver.devices) != cuda_success || driver.devices == 0))) {
    driver.status = GLA_NOT_FOUND;
    snprintf(driver.message, sizeof driver.message, "the driver (%s) sees no GPU; CUDA_VISIBLE_DEVICES may hide them",
             path);
    return;
  }
  driver.status = GLA_OK;
  if (started != cuda_success) {
    driver.status = cuda_fail(started, "the driver (%s) does not start", path);
    snprintf(driver.message, sizeof driver.message, "%.500s", last_error);
  }
}

/* Makes the context current, unless it is; `leave` puts back what was. */
static int enter(const gla_device* device, bool* pushed) {
  struct CUctx_st* now = NULL;
  *pushed = false;
  if (cu.CtxGetCurrent(&now) == cuda_success && now == device->context) return cuda_success;
  const int outcome = cu.CtxPushCurrent(device->context);
  *pushed = outcome == cuda_success;
  return outcome;
}
static void leave(bool pushed) {
  struct CUctx_st* popped;
  if (pushed) cu.CtxPopCurrent(&popped);
}

static int attribute(const gla_device* device, int which) {
  int value = 0;
  return cu.DeviceGetAttribute(&value, which, device->number) == cuda_success ? value : 0;
}

static gla_status open_cuda(int ordinal, gla_device* device) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_driver);
  if (driver.status != GLA_OK) return fail(driver.status, "%s", driver.message);
  if (ordinal >= driver.devices)
    return fail(GLA_NOT_FOUND, "there is no GPU %d; the driver sees %d", ordinal, driver.devices);
  int outcome = cu.DeviceGet(&device->number, ordinal);
  if (outcome == cuda_success) outcome = cu.DeviceGetName(device->name, sizeof device->name - 1, device->number);
  if (outcome != cuda_success) return cuda_fail(outcome, "cannot get GPU %d", ordinal);
  struct target* const target = &device->target;
  target->cuda = true;
  target->major = attribute(device, attribute_compute_major);
  target->minor = attribute(device, attribute_compute_minor);
  target->suffix = target->major == 9 && target->minor == 0 ? 'a' : 0; /* what is best there */
  const long long rate = 2000ll * attribute(device, attribute_memory_clock_khz) *
                         (attribute(device, attribute_memory_bus_bits) / 8);
  snprintf(device->identity, sizeof device->identity, "name=%s; cc=sm_%d%s; units=%d; l1=%d; l2=%d; memory=%lld",
           device->name, target->major * 10 + target->minor, target->suffix == 'a' ? "a" : "",
           attribute(device, attribute_multiprocessors), attribute(device, attribute_shared_bytes_per_sm),
           attribute(device, attribute_l2_bytes), rate);
  device->most_tasks = attribute(device, attribute_max_grid_x);
  device->most_shared = attribute(device, attribute_shared_bytes_per_block_optin);
  device->most_cluster = attribute(device, attribute_clusters) == 0 ? 1 : 2 * portable_cluster;
  outcome = cu.DevicePrimaryCtxRetain(&device->context, device->number);
  if (outcome != cuda_success) return cuda_fail(outcome, "cannot make a context on GPU %d", ordinal);
  return GLA_OK;
}

/* An `a` on its own architecture only, machine code and `f` on the same major and no lower a minor, PTX on anything no
 * lower. */
static bool cuda_runs(const gla_device* device, const struct target* target) {
  const int major = device->target.major, minor = device->target.minor;
  if (!target->cuda) return false;
  if (target->suffix == 'a') return major == target->major && minor == target->minor;
  if (target->ptx && target->suffix == 0)
    return major > target->major || (major == target->major && minor >= target->minor);
  return major == target->major && minor >= target->minor;
}

static gla_status load_module(const struct code* code, void** module) {
  char log[512] = "";
  int names[] = {5 /* CU_JIT_ERROR_LOG_BUFFER */, 6 /* its bytes */};
  void* values[] = {log, (void*)(uintptr_t)sizeof log};
  const int outcome = cu.ModuleLoadDataEx(module, code->words, 2, names, values);
  if (outcome == cuda_success) return GLA_OK;
  log[sizeof log - 1] = 0;
  return cuda_fail(outcome, "the driver refuses code for %s%s%s", code->target.text, log[0] != 0 ? ", saying " : "",
                   log);
}

/* The driver reads as many parameters as the kernel declares: no fewer may be given. Older drivers cannot be asked. */
static bool takes(struct CUfunc_st* function, const struct stage* stage) {
  if (cu.FuncGetParamInfo == NULL) return true;
  size_t offset, bytes, parameter = 0;
  for (; parameter < (size_t)stage->args; ++parameter)
    if (cu.FuncGetParamInfo(function, parameter, &offset, &bytes) != cuda_success || bytes != sizeof(uint64_t))
      return false;
  if (stage->maps > 0 && (cu.FuncGetParamInfo(function, parameter++, &offset, &bytes) != cuda_success ||
                          bytes != (size_t)stage->maps * sizeof(struct encoded_map)))
    return false;
  return cu.FuncGetParamInfo(function, parameter, &offset, &bytes) != cuda_success;
}

static struct launch_config config_of(const struct stage* stage, struct launch_attribute* attributes) {
  struct launch_config config = {.grid = {1, 1, 1}, .shared_bytes = stage->shared_bytes, .attributes = attributes};
  memcpy(config.block, stage->block, sizeof config.block);
  if (stage->cluster > 1)
    attributes[config.attribute_count++] =
        (struct launch_attribute){.id = launch_cluster, .value.cluster = {stage->cluster, 1, 1}};
  return config;
}

/* Finds the entry and holds what the stage asks for against what the kernel and the GPU allow. */
static gla_status prepare_stage(const gla_device* device, struct kernel* kernel, int i, void* module) {
  const struct plan* plan = kernel->plan;
  const struct stage* stage = &plan->stage[i];
  struct CUfunc_st* function = NULL;
  int outcome = cu.ModuleGetFunction(&function, module, stage->entry);
  if (outcome != cuda_success) return cuda_fail(outcome, "cannot load \"%s\" of %s", stage->entry, plan->variant);
  kernel->entry[i].function = function;
  if (!takes(function, stage))
    return fail(GLA_FAILED, "\"%s\" of %s takes other parameters than its stage gives", stage->entry, plan->variant);

  int most_threads = 0, fixed = 0;
  cu.FuncGetAttribute(&most_threads, function_max_threads, function);
  cu.FuncGetAttribute(&fixed, function_shared_bytes, function);
  const struct {
    const char* what;
    int64_t wanted, most;
  } limits[] = {{"threads in a block", (int64_t)stage->block[0] * stage->block[1] * stage->block[2], most_threads},
                {"bytes of shared memory", (int64_t)fixed + stage->shared_bytes, device->most_shared},
                {"blocks in a cluster", stage->cluster, device->most_cluster}};
  for (int l = 0; l < 3; ++l)
    if (limits[l].wanted > limits[l].most)
      return fail(GLA_UNSUPPORTED, "\"%s\" of %s wants %lld %s; it can have at most %lld here", stage->entry,
                  plan->variant, (long long)limits[l].wanted, limits[l].what, (long long)limits[l].most);

  uint32_t dynamic = stage->shared_bytes; /* stages may share a function: it gets what the most demanding one asks for */
  for (int j = 0; j < i; ++j)
    if (kernel->entry[j].function == function && plan->stage[j].shared_bytes > dynamic)
      dynamic = plan->stage[j].shared_bytes;
  outcome = cu.FuncSetAttribute(function, function_max_dynamic_shared, (int)dynamic);
  if (outcome == cuda_success && stage->cluster > portable_cluster)
    outcome = cu.FuncSetAttribute(function, function_non_portable_cluster, 1);
  if (outcome == cuda_success && stage->cluster > 1) {
    struct launch_attribute attributes[1];
    struct launch_config config = config_of(stage, attributes);
    config.grid[0] = stage->cluster;
    int fit = 0;
    outcome = cu.OccupancyMaxActiveClusters(&fit, function, &config);
    if (outcome == cuda_success && fit < 1)
      return fail(GLA_UNSUPPORTED, "\"%s\" of %s: no cluster of %u blocks fits the GPU", stage->entry, plan->variant,
                  stage->cluster);
  }
  if (outcome != cuda_success)
    return cuda_fail(outcome, "the driver refuses what \"%s\" of %s asks for", stage->entry, plan->variant);
  return GLA_OK;
}

static void unload_cuda(const gla_device* device, struct kernel* kernel) {
  bool pushed;
  enter(device, &pushed);
  for (int i = 0; i < kernel->plan->stages; ++i)
    if (kernel->module[i] != NULL) cu.ModuleUnload(kernel->module[i]);
  leave(pushed);
}

static gla_status load_cuda(const gla_device* device, struct kernel* kernel) {
  const struct plan* plan = kernel->plan;
  bool pushed;
  const int outcome = enter(device, &pushed);
  if (outcome != cuda_success) return cuda_fail(outcome, "cannot use the GPU's context");
  gla_status status = GLA_OK;
  for (int i = 0; i < plan->stages && status == GLA_OK; ++i) {
    int module = 0;
    while (module < i && plan->stage[module].code != plan->stage[i].code) ++module;
    if (module == i) status = load_module(&codes[plan->stage[i].code], &kernel->module[i]);
    if (status == GLA_OK) status = prepare_stage(device, kernel, i, kernel->module[module]);
  }
  leave(pushed);
  return status;
}

/* The tensor maps of a stage for a call. Whether they can be had: else they are zeros. */
static bool map_tensors(const struct stage* stage, const uint64_t* words, const int64_t* extents,
                        struct encoded_map* maps) {
  for (int i = 0; i < stage->maps; ++i) {
    const struct map* m = &stage->map[i];
    const bool of_queries = m->tensor == arg_q || m->tensor == arg_o;
    const bool of_values = m->tensor == arg_v || m->tensor == arg_o;
    /* Tensors come in the order q, k, v, g, o, and their strides too. */
    const uint64_t token = m->element_bytes * words[arg_q_token + 2 * m->tensor];
    const uint64_t head = m->element_bytes * words[arg_q_head + 2 * m->tensor];
    const uint64_t base = words[m->tensor];
    const uint64_t sizes[] = {(uint64_t)extents[of_values ? axis_v : axis_k],
                              (uint64_t)extents[of_queries ? axis_heads : axis_kv_heads],
                              (uint64_t)extents[axis_tokens]};
    const uint64_t strides[] = {head, token};
    const uint32_t box[] = {m->channels, 1, m->tokens}, steps[] = {1, 1, 1};
    if (base == 0 || (base | head | token) % 16 != 0 ||
        cu.TensorMapEncodeTiled(&maps[i], m->element_bytes == 2 ? 1 : 2, 3, (void*)(uintptr_t)base, sizes, strides,
                                box, steps, 0, m->swizzled ? 3 : 0, 3, 0) != cuda_success) {
      memset(maps, 0, (size_t)stage->maps * sizeof *maps);
      return false;
    }
  }
  return stage->maps > 0;
}
#endif
