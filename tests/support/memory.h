/*
 * The library's own allocations outside of loops (tram__memory_default), failing on order: what the objects of a test
 * program call malloc for. OpenSSL's are its own.
 */
#ifndef TRAM_TESTS_SUPPORT_MEMORY_H
#define TRAM_TESTS_SUPPORT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Of this thread: the `nth` call from now (1: the next) and the `count` - 1 after it give NULL; count 0: none. */
void memory_fail(uint64_t nth, uint64_t count);

/*
 * The same for all that comes from no world's allocator: what the library keeps beyond a loop (mailboxes, buffers,
 * executors, addressees), and the pages that it maps (stacks, what a child of fork() finds wiped).
 */
void memory_fail_others(uint64_t nth, uint64_t count);

/* How many have failed since then. */
uint64_t memory_failed(void);

/* What a world's allocator takes, which memory_fail_others() does not count. */
void *memory_of_world(size_t size);

/*
 * What is new, or let go of, has no value that anybody could rely on: nonsense at its beginning. The malloc of test
 * programs gives it so, and sanitizers do the like.
 */
void memory_spoil(void *memory, size_t size);

#endif
