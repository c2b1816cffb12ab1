/*
 * Connecting that is tried again, for tram_connection_options and tram_unix_connection_options.
 *
 * When no address could be connected to, or the name was not found, the operation waits and begins anew, names
 * included: they may mean other addresses by then. The future completes when a connection is made, or with the error of
 * the last try. `timeout_ns` of the options is for all of it, waits included, and then TRAM_ETIMEOUT has the text of
 * what failed last; cancelling the future, or the end of the loop, ends it at any time.
 *
 * Want of memory and what is wrong for good (an unknown port name) are not tried again, nor is what comes once a socket
 * is connected: the factory, TLS. Each wait is logged as a warning, with what had failed.
 */
#ifndef TRAM_RETRY_H
#define TRAM_RETRY_H

#include <stdint.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

#define TRAM_RETRY_FOREVER (~0u)

/* Zero-initialise; zero means the default. */
typedef struct tram_retry_options {
    unsigned limit; /* so many tries after the first; TRAM_RETRY_FOREVER; 0: none, and then the rest must be 0 */
    /* From one try's failure to the next: the first wait, and twice as long each time, up to the longest. At random, up
     * to half of each is left out, so that the clients of a server that comes back do not come all at once. */
    uint64_t delay_ns;     /* 0: 100 ms */
    uint64_t delay_max_ns; /* 0: 30 s, or delay_ns where that is longer */
    uintptr_t reserved[2]; /* must be 0 */
} tram_retry_options;

TRAM_END_DECLS

#endif
