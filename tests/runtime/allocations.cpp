#include "tests/runtime/allocations.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

static std::atomic<int> count = 0, locked = 0, until_failure = 0;
static std::atomic<bool> failed = false;

int glaive::testing::allocations() { return count; }
int glaive::testing::locks() { return locked; }
bool glaive::testing::fail_allocation(int nth) {
  until_failure = nth;
  return failed.exchange(false);
}

#if not GLAIVE_SANITIZED
static void* take(std::size_t size, std::size_t alignment) {
  ++count;
  if (until_failure > 0 and --until_failure == 0) {
    failed = true;
    throw std::bad_alloc();
  }
  if (void* const memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size) { return take(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return take(size, std::size_t(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

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
