#if GLA_CPU
/* ---- processors ------------------------------------------------------------------------------------------------- */

#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where cpuid reports a feature, and which bits of XCR0 the operating system must have set for it. */
enum { eax, ebx, ecx, edx };
struct feature {
  const char* name;
  unsigned leaf, subleaf;
  int where, bit;
  unsigned xcr0;
};
#define xcr0_ymm 0x6u
#define xcr0_zmm 0xe6u
#define xcr0_tiles 0x60000u
#define extended_leaf 0x80000001u

static const struct feature level_features[3][9] = {
    {{"sse3", 1, 0, ecx, 0, 0},
     {"ssse3", 1, 0, ecx, 9, 0},
     {"cx16", 1, 0, ecx, 13, 0},
     {"sse4.1", 1, 0, ecx, 19, 0},
     {"sse4.2", 1, 0, ecx, 20, 0},
     {"popcnt", 1, 0, ecx, 23, 0},
     {"sahf", extended_leaf, 0, ecx, 0, 0}},
    {{"fma", 1, 0, ecx, 12, xcr0_ymm},
     {"movbe", 1, 0, ecx, 22, 0},
     {"avx", 1, 0, ecx, 28, xcr0_ymm},
     {"f16c", 1, 0, ecx, 29, xcr0_ymm},
     {"bmi", 7, 0, ebx, 3, 0},
     {"avx2", 7, 0, ebx, 5, xcr0_ymm},
     {"bmi2", 7, 0, ebx, 8, 0},
     {"lzcnt", extended_leaf, 0, ecx, 5, 0}},
    {{"avx512f", 7, 0, ebx, 16, xcr0_zmm},
     {"avx512dq", 7, 0, ebx, 17, xcr0_zmm},
     {"avx512cd", 7, 0, ebx, 28, xcr0_zmm},
     {"avx512bw", 7, 0, ebx, 30, xcr0_zmm},
     {"avx512vl", 7, 0, ebx, 31, xcr0_zmm}}};
/* In the order of the bits of target.features. */
static const struct feature extra_features[] = {{"amx-bf16", 7, 0, edx, 22, xcr0_tiles},
                                                {"avx512bf16", 7, 1, eax, 5, xcr0_zmm},
                                                {"avx512fp16", 7, 0, edx, 23, xcr0_zmm}};
#define extras 3

static unsigned enabled_states(void) {
  unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/* Linux hands out the tile registers on request only. */
static bool system_offers_tiles(void) {
  uint64_t offered = 0;
  return syscall(SYS_arch_prctl, 0x1021 /* ARCH_GET_XCOMP_SUPP */, &offered) == 0 && (offered & xcr0_tiles) == xcr0_tiles;
}

static bool processor_has(const struct feature* feature) {
  unsigned r[4] = {0, 0, 0, 0};
  if (!__get_cpuid_count(feature->leaf, feature->subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
  if (!(r[feature->where] >> feature->bit & 1)) return false;
  if ((enabled_states() & feature->xcr0) != feature->xcr0) return false;
  return feature->xcr0 != xcr0_tiles || system_offers_tiles();
}

/* The first feature of `target` that this processor lacks, or NULL. */
static const char* lacking(const struct target* target) {
  for (int level = 2; level <= target->level; ++level)
    for (const struct feature* f = level_features[level - 2]; f->name != NULL; ++f)
      if (!processor_has(f)) return f->name;
  for (int i = 0; i < extras; ++i)
    if ((target->features >> i & 1) && !processor_has(&extra_features[i])) return extra_features[i].name;
  return NULL;
}

static bool cpu_runs(const struct target* target) { return !target->cuda && lacking(target) == NULL; }

static void read_brand(char* name) {
  unsigned words[13] = {0};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* w = words + 4 * i;
    if (!__get_cpuid(0x80000002u + i, &w[0], &w[1], &w[2], &w[3])) words[0] = 0;
  }
  size_t length = 0;
  for (const char* c = (const char*)words; *c != 0; ++c) {
    if (*c < 0x20 || *c == 0x7f || (*c == ' ' && (length == 0 || name[length - 1] == ' '))) continue;
    name[length++] = *c;
  }
  while (length > 0 && name[length - 1] == ' ') --length;
  name[length] = 0;
  if (length == 0) strcpy(name, "x86-64 processor");
}

/* How many processors this process may run on, and the first of them. */
static int processors(int* first) {
  *first = 0;
  for (int most = 1024; most <= 1 << 18; most *= 2) {
    cpu_set_t* set = CPU_ALLOC(most);
    if (set == NULL) break;
    const size_t size = CPU_ALLOC_SIZE(most);
    int count = 0;
    if (sched_getaffinity(0, size, set) == 0) {
      count = CPU_COUNT_S(size, set);
      while (*first < most - 1 && !CPU_ISSET_S(*first, size, set)) ++*first;
    }
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return 1;
}

static bool read_cache_line(int cpu, int index, const char* what, char* line, int bytes) {
  char path[128];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/%s", cpu, index, what);
  FILE* file = fopen(path, "re");
  line[0] = 0;
  if (file == NULL) return false;
  const bool read = fgets(line, bytes, file) != NULL;
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  return read && line[0] != 0;
}

static void read_caches(int cpu, int64_t bytes[3]) {
  for (int index = 0; index < 8; ++index) {
    char level[16], type[32], size[32];
    if (!read_cache_line(cpu, index, "level", level, sizeof level)) break;
    read_cache_line(cpu, index, "type", type, sizeof type);
    if (strcmp(type, "Instruction") == 0) continue;
    read_cache_line(cpu, index, "size", size, sizeof size);
    char* unit = NULL;
    const int64_t value = strtoll(size, &unit, 10);
    if (level[1] == 0 && level[0] >= '1' && level[0] <= '3')
      bytes[level[0] - '1'] = *unit == 'K' ? value << 10 : *unit == 'M' ? value << 20 : value;
  }
  const int names[3] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
  for (int i = 0; i < 3; ++i)
    if (bytes[i] <= 0) {
      const long known = sysconf(names[i]);
      bytes[i] = known > 0 ? known : 0;
    }
}

static void describe_cpu(gla_device* device) {
  for (int level = 2; level <= 4; ++level) {
    const struct target wanted = {.level = level};
    if (lacking(&wanted) == NULL) device->target.level = level;
  }
  for (int i = 0; i < extras; ++i)
    if (processor_has(&extra_features[i])) device->target.features |= 1u << i;
  read_brand(device->name);
  int first = 0;
  const int units = processors(&first);
  int64_t caches[3] = {0, 0, 0};
  read_caches(first, caches);
  snprintf(device->identity, sizeof device->identity,
           "name=%s; cc=-; units=%d; l1=%lld; l2=%lld; l3=%lld; memory=0", device->name, units, (long long)caches[0],
           (long long)caches[1], (long long)caches[2]);
}

static int memory_file(void) {
#ifdef MFD_EXEC
  const int fd = memfd_create("gla-code", MFD_CLOEXEC | MFD_EXEC);
  if (fd >= 0 || errno != EINVAL) return fd;
#endif
  return memfd_create("gla-code", MFD_CLOEXEC);
}

/* The loader takes a path it has seen for the object it already has, even when the descriptor behind it is another by
 * now. So every load in the process spells the path its own way: bits as `/.` or `/`, first those of an address that is
 * ours alone, then those of a count. */
static void spell_path(char* path, int fd) {
  static uint64_t loads = 0;
  path += sprintf(path, "/proc/self/./fd");
  const uintptr_t ours = (uintptr_t)&loads;
  for (int bit = 0; bit < 48; ++bit) path += sprintf(path, "%s", ours >> bit & 1 ? "/." : "/");
  for (uint64_t rest = __atomic_add_fetch(&loads, 1, __ATOMIC_RELAXED); rest > 1; rest >>= 1)
    path += sprintf(path, "%s", rest & 1 ? "/." : "/");
  sprintf(path, "/%d", fd);
}
#define longest_path 288 /* 15, 2 for each of 48 + 64 bits, and a descriptor */

static gla_status load_object(const struct code* code, void** module) {
  const char* const lacks = lacking(&code->target);
  if (lacks != NULL) return fail(GLA_WRONG_DEVICE, "code for %s: this processor lacks %s", code->target.text, lacks);
  if ((code->target.features & 1) != 0 && syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) != 0)
    return fail(GLA_WRONG_DEVICE, "the operating system refuses the use of AMX tiles");
  const int fd = memory_file();
  if (fd < 0) return fail(GLA_FAILED, "cannot make a file in memory: %s", strerror(errno));
  for (size_t done = 0; done < code->bytes;) {
    const ssize_t written = write(fd, (const char*)code->words + done, code->bytes - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = written < 0 ? errno : ENOSPC;
      close(fd);
      return fail(GLA_FAILED, "cannot write a file in memory: %s", strerror(error));
    }
    done += (size_t)written;
  }
  char path[longest_path];
  spell_path(path, fd);
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  close(fd);
  if (*module == NULL) return fail(GLA_FAILED, "the loader refuses code for %s: %s", code->target.text, dlerror());
  return GLA_OK;
}

static gla_status load_cpu(const gla_device* device, struct kernel* kernel) {
  (void)device;
  const struct plan* plan = kernel->plan;
  for (int i = 0; i < plan->stages; ++i) {
    const struct stage* stage = &plan->stage[i];
    int module = 0; /* stages share what they have in common */
    while (module < i && plan->stage[module].code != stage->code) ++module;
    if (module == i) {
      const gla_status loaded = load_object(&codes[stage->code], &kernel->module[i]);
      if (loaded != GLA_OK) return loaded;
    }
    void* const found = dlsym(kernel->module[module], stage->entry);
    if (found == NULL) return fail(GLA_FAILED, "the code of %s has no entry \"%s\"", plan->variant, stage->entry);
    memcpy(&kernel->entry[i].run, &found, sizeof found);
  }
  return GLA_OK;
}

static void unload_cpu(struct kernel* kernel) {
  for (int i = 0; i < kernel->plan->stages; ++i)
    if (kernel->module[i] != NULL) dlclose(kernel->module[i]);
}
#endif
