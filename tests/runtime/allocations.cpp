#include "tests/runtime/allocations.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<int> count = 0, locked = 0;

int glaive::testing::allocations() { return count; }
int glaive::testing::locks() { return locked; }

#if not GLAIVE_SANITIZED
void* operator new(std::size_t size) {
  ++count;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// The program's own definition comes before the C library's.
extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  using Lock = int (*)(pthread_mutex_t*);
  static std::atomic<Lock> next = nullptr;  // dlsym may itself come through here
  Lock lock = next.load(std::memory_order_relaxed);
  if (lock == nullptr) next = lock = reinterpret_cast<Lock>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  ++locked;
  return lock(mutex);
}
#endif
