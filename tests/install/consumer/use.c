#include "use.h"

#include <glaive.h>
#include <stdio.h>
#include <string.h>

#include "reference.h"

static int same_version(void) {
  char version[32];
  sprintf(version, "%d.%d.%d", GLAIVE_VERSION_MAJOR, GLAIVE_VERSION_MINOR, GLAIVE_VERSION_PATCH);
  if (strcmp(version, glaive_version()) == 0) return 1;
  fprintf(stderr, "headers of %s, a library of %s\n", version, glaive_version());
  return 0;
}

static glaive_status call(const glaive_plan* plan, const glaive_shape* shape, const tensors* t) {
  glaive_args args = {sizeof args};
  size_t bytes = 0;
  void* workspace = NULL;
  glaive_status status = glaive_plan_workspace(plan, shape, &bytes);
  if (status != GLAIVE_OK) return status;
  if (bytes > 0) workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  args.q = t->q, args.k = t->k, args.v = t->v, args.g = t->g, args.o = t->o;
  status = glaive_run(plan, shape, &args, workspace, bytes);
  free(workspace);
  return status;
}

int use(const char* pack_file, const char* text) {
  glaive_device* device = NULL;
  glaive_pack* pack = NULL;
  glaive_plan* plan = NULL;
  glaive_problem problem = {sizeof problem};
  glaive_shape shape = {sizeof shape};
  double error = 1;

  if (!same_version()) return 1;
  shape.sequences = 1;
  shape.tokens = 5;
  if (glaive_device_open("cpu", 2, &device) || glaive_pack_open(pack_file, &pack) ||
      glaive_problem_parse(text, &problem) || glaive_plan_find(device, pack, &problem, &shape, &plan)) {
    fprintf(stderr, "glaive: %s\n", glaive_last_error());
  } else {
    tensors t = tensors_of(shape.tokens, problem.heads, problem.kv_heads, problem.key_dim, problem.value_dim);
    if (call(plan, &shape, &t)) {
      fprintf(stderr, "glaive: %s\n", glaive_last_error());
    } else {
      error = error_of(&t);
      printf("glaive %s from C: %s, %s, error %.1e\n", glaive_version(), text, glaive_plan_variant(plan), error);
    }
    tensors_free(&t);
  }
  glaive_plan_close(plan);
  glaive_pack_close(pack);
  glaive_device_close(device);
  return error < 1e-5 ? 0 : 1;
}
