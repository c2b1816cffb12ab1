/* What the connections of one worker share. Used on that worker's thread only. */
#ifndef TRAM_LOAD_SHARD_H
#define TRAM_LOAD_SHARD_H

#include <netdb.h>

#include <tram/tram.h>

#include "load/pattern.h"
#include "load/plan.h"
#include "load/schedule.h"
#include "load/tally.h"

struct load_connection;

/* A place waits this long after a failure, or a dead target would only heat the processor. */
#define LOAD_RETRY_NS UINT64_C(10000000)

typedef enum load_phase {
    LOAD_OPENING, /* connections are made, and each proves itself by a first request */
    LOAD_OPENED,  /* waits for the other workers */
    LOAD_RUNNING, /* requests are sent */
    LOAD_ENDING,  /* answers are awaited, connections closed */
} load_phase;

typedef struct load_shard {
    const load_plan *plan;
    const pattern *pattern;
    tram_loop *loop;
    load_phase phase;

    /* As the user said, until the first connection told what that means. */
    const char *host;
    char port[8];
    bool resolved;
    char address[NI_MAXHOST];

    /* Open loop. Request number n of the shard belongs to the connection whose turn is n % turns. */
    schedule schedule;
    uint64_t due; /* how many were due when the clock was last looked at */
    uint64_t turns;

    uint64_t measure_from_ns;
    uint64_t measure_until_ns;

    tram_buffer *session; /* of the last connection, for the next one; NULL: none */

    uint64_t busy;      /* connections that the library knows of */
    uint64_t in_flight; /* requests that wait for an answer */
    load_tally tally;
    histogram *interval; /* latencies since the last live line; NULL: none is shown */

    /* Called when a connection has proven itself, and when the library has let go of one. */
    void (*changed)(struct load_connection *connection);
} load_shard;

#endif
