/* libglaive from plain C99: runs a pack's kernel, then shows what the process has mapped. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/glaive.h"

static void check(glaive_status status) {
  if (status == GLAIVE_OK) return;
  fprintf(stderr, "%d: %s\n", (int)status, glaive_last_error());
  exit(1);
}

int main(int argc, char** argv) {
  glaive_device* device;
  glaive_pack* pack;
  glaive_plan* plan;
  glaive_problem problem = {sizeof problem};
  glaive_shape shape = {sizeof shape};
  glaive_args args = {sizeof args};
  size_t bytes;
  void* workspace;
  static float q[3 * 4 * 8], k[3 * 2 * 8], v[3 * 2 * 8], g[3 * 2 * 8], o[3 * 4 * 8];
  double sum = 0;
  int i, c;
  FILE* maps;

  if (argc != 3) return 2;
  check(glaive_device_open("cpu", 2, &device));
  check(glaive_pack_open(argv[1], &pack));
  check(glaive_problem_parse(argv[2], &problem));
  shape.sequences = 1;
  shape.tokens = 3;
  check(glaive_plan_find(device, pack, &problem, &shape, &plan));
  glaive_pack_close(pack);
  glaive_device_close(device);
  check(glaive_plan_workspace(plan, &shape, &bytes));
  workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  for (i = 0; i < 3 * 4 * 8; ++i) q[i] = 1;
  for (i = 0; i < 3 * 2 * 8; ++i) k[i] = v[i] = 1;
  args.q = q;
  args.k = k;
  args.v = v;
  args.g = g;
  args.o = o;
  args.scale = 1;
  check(glaive_run(plan, &shape, &args, workspace, bytes));
  for (i = 0; i < 3 * 4 * 8; ++i) sum += o[i];
  printf("sum %.1f\n", sum); /* tokens 1, 2, 3 give 8, 16, 24 in each of 32 places */
  maps = fopen("/proc/self/maps", "r");
  while ((c = fgetc(maps)) != EOF) putchar(c);
  fclose(maps);
  glaive_plan_close(plan);
  free(workspace);
  return 0;
}
