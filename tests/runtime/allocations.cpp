#include "tests/runtime/allocations.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<int> count = 0;

int glaive::testing::allocations() { return count; }

#ifdef GLAIVE_NOT_SANITIZED
void* operator new(std::size_t size) {
  ++count;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif
