/* What a fresh process pays for its first kernel: opens a pack, finds a plan, runs one call of 64 tokens.
 *   cold_start my.pack 'forward H4 K128 V128 f32'
 * Prints milliseconds from the start of main, and the foreign libraries in the memory map (none are expected). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/glaive.h"

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void check(glaive_status status) {
  if (status == GLAIVE_OK) return;
  fprintf(stderr, "cold_start: %s\n", glaive_last_error());
  exit(1);
}

int main(int argc, char** argv) {
  const double begin = now_ms();
  if (argc != 3) return fprintf(stderr, "usage: %s <pack> '<problem>'\n", argv[0]), 2;
  glaive_device* device;
  glaive_pack* pack;
  glaive_plan* plan;
  glaive_problem problem = {.size = sizeof problem};
  glaive_shape shape = {.size = sizeof shape, .sequences = 1, .tokens = 64};
  size_t bytes;
  check(glaive_device_open("cpu", 1, &device));
  check(glaive_pack_open(argv[1], &pack));
  check(glaive_problem_parse(argv[2], &problem));
  check(glaive_plan_find(device, pack, &problem, &shape, &plan));
  check(glaive_plan_workspace(plan, &shape, &bytes));
  const size_t k = (size_t)(64 * problem.heads * problem.key_dim), v = (size_t)(64 * problem.heads * problem.value_dim);
  float* memory = calloc(3 * k + 2 * v, sizeof *memory);
  void* workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory || !workspace) return fprintf(stderr, "cold_start: out of memory\n"), 1;
  glaive_args args = {.size = sizeof args,
                      .q = memory,
                      .k = memory + k,
                      .g = memory + 2 * k,
                      .v = memory + 3 * k,
                      .o = memory + 3 * k + v};
  check(glaive_run(plan, &shape, &args, workspace, bytes));
  const double end = now_ms();

  int foreign = 0;
  char line[4096];
  FILE* maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps))
    foreign += strstr(line, "LLVM") || strstr(line, "MLIR") || strstr(line, "libstdc++");
  printf("%.3f %d\n", end - begin, foreign);
  return 0;
}
