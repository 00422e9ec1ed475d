#pragma once

#include "tests/sanitized.hpp"

namespace glaive::testing {

/// Calls of operator new so far; always 0 under a sanitizer, which brings its own.
int allocations();
/// The nth call of operator new from now on, by any thread, throws; 0: none does. Returns whether one did since the
/// last time. Never does anything under a sanitizer.
bool fail_allocation(int nth);
/// Calls of pthread_mutex_lock so far; always 0 under a sanitizer.
int locks();

}  // namespace glaive::testing
