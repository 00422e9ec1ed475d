#pragma once

#include "tests/sanitized.hpp"

namespace glaive::testing {

/// Calls of operator new so far; always 0 under a sanitizer, which brings its own.
int allocations();
/// Calls of pthread_mutex_lock so far; always 0 under a sanitizer.
int locks();

}  // namespace glaive::testing
