/* Whether connecting is tried again, and after how long: tram/retry.h, counted. */
#ifndef TRAM_TRANSPORTS_CONNECT_RETRY_H
#define TRAM_TRANSPORTS_CONNECT_RETRY_H

#include <stdbool.h>

#include <tram/error.h>
#include <tram/retry.h>

struct retry {
    unsigned left;     /* tries */
    uint64_t delay_ns; /* the next wait, before chance */
    uint64_t delay_max_ns;
};

/* The option that makes no sense, or NULL. */
const char *tram__retry_wrong_option(const tram_retry_options *options);

void tram__retry_init(struct retry *retry, const tram_retry_options *options);

/* Another try, after *ret_delay_ns? False: none is left, or none would help against this error. */
bool tram__retry_next(struct retry *retry, const tram_error *error, uint64_t *ret_delay_ns);

#endif
