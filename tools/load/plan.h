/* What the user asked for. */
#ifndef TRAM_LOAD_PLAN_H
#define TRAM_LOAD_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "support/tls_setup.h"

typedef struct load_plan {
    const char *host;
    uint64_t port;
    uint64_t connections;
    uint64_t size;     /* bytes of a request and of its answer */
    uint64_t pipeline; /* requests in flight per connection, at most */
    double duration_s;
    double warmup_s;  /* load that is not measured, before the duration */
    uint64_t workers; /* 0: one per CPU */
    double rate;      /* requests per second of all; 0: closed loop */
    bool churn;       /* a connection per request */
    bool reconnect;   /* where the target ends a connection in good order, go on with another */
    bool json;
    tls_client_setup tls_setup;
    bool tls;
    bool resume;                 /* offer the session of an earlier connection */
    tram_tls_config *tls_config; /* NULL: no TLS */
    uint64_t timeout_ms;         /* to connect and get a first answer; in churn, of every request */
} load_plan;

static inline bool load_plan_is_open(const load_plan *plan) {
    return plan->rate > 0;
}

#endif
