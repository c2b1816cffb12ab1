#include "support/memory.h"

#include <stdlib.h>
#include <string.h>

#include "support/codes.h"

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static _Thread_local uint64_t calls, first, last, failed;

void memory_fail(uint64_t nth, uint64_t count) {
    calls = failed = 0;
    first = nth;
    last = count > UINT64_MAX - nth ? UINT64_MAX : nth + count - 1;
    if (count == 0)
        first = last = 0;
}

uint64_t memory_failed(void) {
    return failed;
}

void *__wrap_malloc(size_t size) {
    calls++;
    if (first == 0 || calls < first || calls > last) {
        void *memory = __real_malloc(size);
        memory_spoil(memory, size);
        return memory;
    }
    failed++;
    calls_lack_memory();
    return NULL;
}

void memory_spoil(void *memory, size_t size) {
#if !defined(TRAM_ASAN) && !defined(TRAM_TSAN) /* which do that themselves */
    if (memory)
        memset(memory, 0xa5, size < 1024 ? size : 1024);
#endif
    (void)memory;
    (void)size;
}
