#include "use.h"

#include <cstdio>
#include <glaive.hpp>

#include "reference.h"

static_assert(__cplusplus == 201703L, "the wrapper is for C++17");

int use(const char* pack_file, const char* text) try {
  using namespace glaive::api;
  const Device device("cpu", 2);
  const Pack pack(pack_file);
  const Problem problem(text);
  const Shape shape(Sequences(1), Tokens(5));
  const Plan plan(device, pack, problem, shape);
  const Workspace workspace(device, plan.workspace_bytes(shape));

  tensors t = tensors_of(shape.tokens, problem.heads, problem.kv_heads, problem.key_dim, problem.value_dim);
  Args args;
  args.q = t.q, args.k = t.k, args.v = t.v, args.g = t.g, args.o = t.o;
  plan(shape, args, workspace);
  const double error = error_of(&t);
  tensors_free(&t);
  std::printf("glaive %s from C++: %s, %s, error %.1e\n", glaive_version(), text, plan.variant().c_str(), error);
  return error < 1e-5 ? 0 : 1;
} catch (const glaive::api::Error& error) {
  std::fprintf(stderr, "glaive: %s\n", error.what());
  return 1;
}
