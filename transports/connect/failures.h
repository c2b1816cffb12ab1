/* What the attempts of one try to connect complained about, and the one error that it makes (C-9, C-10). */
#ifndef TRAM_TRANSPORTS_CONNECT_FAILURES_H
#define TRAM_TRANSPORTS_CONNECT_FAILURES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"
#include "transports/socket/address.h"
#include <tram/error.h>

struct failure;

/* Zero-initialised, but for the allocator. */
struct failures {
    const tram_allocator *allocator;
    struct failure *first; /* in order of attempt */
    bool out_of_memory;    /* one could not be kept */
};

/* The texts are those of the failures, or in a block of its own. */
struct combined_error {
    tram_error error;
    void *block; /* NULL: none */
    size_t block_size;
};

/* One attempt may complain more than once, where several local addresses were tried. */
void tram__failures_add(struct failures *failures, size_t attempt, int code, const char *operation, const char *format,
                        ...) TRAM_PRINTF(5, 6);

/* The same with the usual text: what was done, the address, the error. */
void tram__failures_add_address(struct failures *failures, size_t attempt, int code, const char *operation,
                                const tram_socket_address *address);

/* -ENOMEM where there is none, or memory is short. `all_errors`: each of them is a cause. */
void tram__failures_combine(const struct failures *failures, bool all_errors, struct combined_error *ret_combined);
void tram__failures_combined_free(const tram_allocator *allocator, struct combined_error *combined);

void tram__failures_clear(struct failures *failures);

#endif
