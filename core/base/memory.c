#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/compiler.h"
#include "core/base/invalid.h"
#include <tram/error.h>

/* A sanitizer must see every allocation, so its builds never ask jemalloc. */
#if !defined(TRAM_ASAN) && !defined(TRAM_TSAN)
#define MAYBE_JEMALLOC 1

/* jemalloc's sized calls: present only if the program linked it. */
extern void *mallocx(size_t size, int flags) __attribute__((weak));
extern void sdallocx(void *memory, size_t size, int flags) __attribute__((weak));
#endif

/* Neither mallocx(0) nor an unequal sdallocx() is defined, so both see the same size, never 0. */
static inline size_t at_least_one(size_t size) {
    return size ? size : 1;
}

static void *default_allocate(void *context, size_t size) {
    (void)context;
#ifdef MAYBE_JEMALLOC
    if (mallocx && sdallocx)
        return mallocx(at_least_one(size), 0);
#endif
    return malloc(at_least_one(size));
}

static void default_release(void *context, void *memory, size_t size) {
    (void)context;
#ifdef MAYBE_JEMALLOC
    if (mallocx && sdallocx) {
        sdallocx(memory, at_least_one(size), 0);
        return;
    }
#endif
    (void)size;
    free(memory);
}

const tram_allocator tram__memory_default = {
    .allocate = default_allocate,
    .release = default_release,
};

int tram__memory_choose(const tram_allocator *given, tram_allocator *ret_allocator) {
    if (!given) {
        *ret_allocator = tram__memory_default;
        return 0;
    }
    if (!given->allocate || !given->release)
        return tram__invalid("allocator");
    *ret_allocator = *given;
    return 0;
}

void *tram__memory_get_zero(const tram_allocator *allocator, size_t size) {
    void *memory = memory_get(allocator, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}
