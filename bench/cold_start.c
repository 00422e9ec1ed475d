/* What a fresh process pays for its first kernel: opens a device and a pack, finds a plan, runs one call of 64 tokens
 * (8 of a step).
 *
 *   cold_start my.pack 'forward H4 K128 V128 f32' [cuda:0]
 *
 * Prints milliseconds from the start of main, milliseconds from the opened device on, and how many foreign libraries
 * are in the memory map (none are expected). */
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
  if (argc != 3 && argc != 4) return fprintf(stderr, "usage: %s <pack> '<problem>' [<device>]\n", argv[0]), 2;
  glaive_device* device;
  glaive_pack* pack;
  glaive_plan* plan;
  glaive_memory* memory;
  glaive_problem problem = {.size = sizeof problem};
  glaive_shape shape = {.size = sizeof shape, .sequences = 1};
  size_t workspace;
  check(glaive_problem_parse(argv[2], &problem));
  shape.tokens = problem.op == GLAIVE_STEP ? 8 : 64;
  check(glaive_device_open(argc == 4 ? argv[3] : "cpu", argc == 4 ? 0 : 1, &device));
  /* Tensors of any dtype: a float holds an element of each. They are the caller's, so that making them does not count.
   */
  const size_t k = (size_t)(shape.tokens * problem.heads * problem.key_dim) * sizeof(float);
  const size_t v = (size_t)(shape.tokens * problem.heads * problem.value_dim) * sizeof(float);
  check(glaive_memory_create(device, 3 * k + 2 * v, &memory));
  char* tensors = glaive_memory_data(memory);
  char first;
  check(glaive_memory_read(memory, 0, &first, 1));

  const double opened = now_ms();
  check(glaive_pack_open(argv[1], &pack));
  check(glaive_plan_find(device, pack, &problem, &shape, &plan));
  check(glaive_plan_workspace(plan, &shape, &workspace));
  glaive_memory* scratch = NULL;
  if (workspace > 0) check(glaive_memory_create(device, workspace, &scratch));
  glaive_args args = {.size = sizeof args,
                      .q = tensors,
                      .k = tensors + k,
                      .g = tensors + 2 * k,
                      .v = tensors + 3 * k,
                      .o = tensors + 3 * k + v};
  check(glaive_run(plan, &shape, &args, glaive_memory_data(scratch), workspace));
  check(glaive_memory_read(memory, 3 * k + v, &first, 1)); /* the call is over */
  const double end = now_ms();

  int foreign = 0;
  char line[4096];
  FILE* maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps))
    foreign += strstr(line, "LLVM") || strstr(line, "MLIR") || strstr(line, "libstdc++");
  printf("%.3f %.3f %d\n", end - begin, end - opened, foreign);
  return 0;
}
