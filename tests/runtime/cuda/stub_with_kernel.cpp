// For programs that cannot reach the stub's controls, the examples: it has kernel.c's kernel when it is loaded.
#include "tests/runtime/cuda/forward.hpp"

extern "C" glaive::testing::MakeStub make_stub;

namespace {
const bool loaded = (make_stub()->set_kernel("forward", glaive::testing::forward_kernel()), true);
}
