#include "support/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/codes.h"
#include "support/support.h"

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);

static _Thread_local uint64_t calls, first, last, failed;
static _Thread_local bool others;

void memory_fail(uint64_t nth, uint64_t count) {
    others = false;
    calls = failed = 0;
    first = nth;
    last = count > UINT64_MAX - nth ? UINT64_MAX : nth + count - 1;
    if (count == 0)
        first = last = 0;
}

void memory_fail_others(uint64_t nth, uint64_t count) {
    memory_fail(nth, count);
    others = true;
}

uint64_t memory_failed(void) {
    return failed;
}

static bool fails(void) {
    calls++;
    if (first == 0 || calls < first || calls > last)
        return false;
    failed++;
    calls_lack_memory();
    return true;
}

static void *spoilt(size_t size) {
    void *memory = __real_malloc(size);
    memory_spoil(memory, size);
    return memory;
}

void *__wrap_malloc(size_t size) {
    return fails() ? NULL : spoilt(size);
}

void *memory_of_world(size_t size) {
    return others ? spoilt(size) : __wrap_malloc(size);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (!others || !fails())
        return __real_mmap(at, size, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

/* Valgrind knows by itself what has no value, as long as nobody gives it one. */
static bool spoils;

__attribute__((constructor)) static void see_whether_it_spoils(void) {
    spoils = !is_emulated();
}

void memory_spoil(void *memory, size_t size) {
#if !defined(TRAM_ASAN) && !defined(TRAM_TSAN) /* which do that themselves */
    if (memory && spoils)
        memset(memory, 0xa5, size < 1024 ? size : 1024);
#endif
    (void)memory;
    (void)size;
}
