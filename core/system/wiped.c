#include "core/system/wiped.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t whole_pages(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

void *tram__wiped_new(size_t size) {
    void *memory = mmap(NULL, whole_pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, whole_pages(size), MADV_WIPEONFORK);
    return memory;
}

void tram__wiped_free(void *memory, size_t size) {
    if (memory)
        munmap(memory, whole_pages(size));
}
