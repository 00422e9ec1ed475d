#pragma once

/// Whether a sanitizer stands in for the allocator and the locks, and takes terabytes of address space.
#if defined(__SANITIZE_ADDRESS__) or defined(__SANITIZE_THREAD__)
#define GLAIVE_SANITIZED 1
#else
#define GLAIVE_SANITIZED 0
#endif
