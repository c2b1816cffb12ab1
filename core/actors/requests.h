/*
 * What a loop has asked others and waits for. A request is a future; its number goes with the mail node that asks, and
 * comes back with the same node, once, whatever becomes of it on the way. So a number is free again when the node is
 * back, and not when the future is done, which may be before: a deadline, a cancellation.
 */
#ifndef TRAM_CORE_ACTORS_REQUESTS_H
#define TRAM_CORE_ACTORS_REQUESTS_H

#include "core/actors/message.h"
#include "core/jobs/future.h"
#include "core/loop/loop.h"
#include <tram/message.h>

/* What the future's value is. */
enum request_value { REQUEST_MESSAGE, REQUEST_POINTER };

struct request {
    _Alignas(64) tram_future future;
    uint32_t number;
    bool timed; /* the deadline runs */
    tram_message reply;
    struct deadline deadline;
};

struct request_slot {
    struct request *request; /* NULL: free, or nobody waits for what comes back */
    uint32_t next_free;
};

struct requests {
    tram_loop *loop;
    struct pool pool;
    struct request_slot *slots; /* by number, from 1 on */
    uint32_t count;
    uint32_t capacity;
    uint32_t free;
};

void tram__requests_init(struct requests *requests, tram_loop *loop);
void tram__requests_fini(struct requests *requests);

/* The loop closes: all that are pending are cancelled. */
void tram__requests_abandon(struct requests *requests);

/* A request with one reference for the caller and one for what comes back. 0 or -ENOMEM. */
int tram__request_new(struct requests *requests, enum request_value value, uint64_t timeout_ns,
                      struct request **ret_request);

/* It was not sent: takes both references back. */
void tram__request_undo(struct requests *requests, struct request *request);

/* The node came back, with a reply or a negative status. */
void tram__request_answered(struct requests *requests, struct envelope *envelope);

#endif
