/* A kernel in the entry's C signature, for tests that need real code to load: the first `words[1]` floats of o become 1.
   What it does beyond that depends on the entry. */
#include <stdint.h>

static void ones(const uint64_t* words) {
  float* o = (float*)(uintptr_t)words[0];
  for (uint64_t i = 0; i < words[1]; ++i) o[i] = 1;
}

void stays_inside(const uint64_t* words, int64_t task, void* scratch) {
  (void)task;
  ((float*)scratch)[15] = 1;
  ones(words);
}

void leaves_scratch(const uint64_t* words, int64_t task, void* scratch) {
  (void)task;
  ((float*)scratch)[16] = 1;
  ones(words);
}

void trusts_scratch(const uint64_t* words, int64_t task, void* scratch) {
  (void)task;
  ones(words);
  ((float*)(uintptr_t)words[0])[0] = ((const float*)scratch)[3];
}
