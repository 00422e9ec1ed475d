/* Counts what a launch must not do: allocate, lock, format. Linked with consumer.c, it stands before the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls;
int noisy_calls(void) { return calls; }

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t bytes) { return ++calls, __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return ++calls, __libc_calloc(count, bytes); }
void* realloc(void* block, size_t bytes) { return ++calls, __libc_realloc(block, bytes); }
void* aligned_alloc(size_t alignment, size_t bytes) { return ++calls, __libc_memalign(alignment, bytes); }

static void* next_of(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == NULL) abort();
  return found;
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static int (*next)(pthread_mutex_t*);
  ++calls;
  if (next == NULL) {
    void* const found = next_of("pthread_mutex_lock");
    memcpy(&next, &found, sizeof found);
  }
  return next(mutex);
}
int vsnprintf(char* text, size_t bytes, const char* format, va_list values) {
  static int (*next)(char*, size_t, const char*, va_list);
  ++calls;
  if (next == NULL) {
    void* const found = next_of("vsnprintf");
    memcpy(&next, &found, sizeof found);
  }
  return next(text, bytes, format, values);
}
