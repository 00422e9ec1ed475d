/* A kernel of a CPU that does nothing. */
#include <stdint.h>
void nothing(const uint64_t* words, int64_t task, void* scratch) { (void)words, (void)task, (void)scratch; }
