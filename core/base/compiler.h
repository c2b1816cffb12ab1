/* What the compilers offer beyond C11. */
#ifndef TRAM_CORE_BASE_COMPILER_H
#define TRAM_CORE_BASE_COMPILER_H

#include <assert.h>
#include <stddef.h>

#include "core/base/assert.h"

#define likely(condition)   __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* For what is compiled once for each constant that it is called with. */
#define ALWAYS_INLINE __attribute__((always_inline)) inline

/* Where a pointer is used often: the compiler keeps it, and does not compute it anew from what it came from. */
#define KEEP_POINTER(pointer) __asm__("" : "+r"(pointer))

/* As in <sys/param.h>: what is given may be evaluated twice. */
#ifndef MIN
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

/* The struct of which `pointer` is a member. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#if defined(__SANITIZE_THREAD__)
#define TRAM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRAM_TSAN 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TRAM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRAM_ASAN 1
#endif
#endif

#endif
