/* A part of a program, or a plugin, with kernels of its own: FUNCTION() is what the kernel of the set named SET writes
 * into o, or -1. HEADER is the set's. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include HEADER

#define JOINED(a, b) a##_##b
#define NAMED(set, name) JOINED(set, name)
#define OF_SET(name) NAMED(SET, name)

int64_t FUNCTION(void) {
  static float in[64];
  static int64_t o[16] = {-1};
  OF_SET(device)* device = NULL;
  OF_SET(operator)* op = NULL;
  const OF_SET(plan)* plan = NULL;
  const OF_SET(shape) shape = {.sequences = 1, .tokens = 1};
  const OF_SET(args) args = {.q = in, .k = in, .v = in, .g = in, .o = o};
  _Alignas(64) char workspace[4096];
  if (OF_SET(device_open)("cpu", 1, &device) || OF_SET(operator_create)(device, (OF_SET(problem))0, &op) ||
      OF_SET(operator_plan)(op, &shape, &plan) || OF_SET(run)(plan, &shape, &args, workspace, sizeof workspace))
    fprintf(stderr, "%s\n", OF_SET(last_error)());
  OF_SET(operator_close)(op);
  OF_SET(device_close)(device);
  return o[0];
}
