/*
 * What a loop has asked others and waits for. A request is a future with a mail node of its own, for as long as there
 * is the loop. Its number goes with the node, which comes back once, whatever becomes of it on the way; so a request is
 * used again when the node is back and the future has ended, which may be before: a deadline, a cancellation.
 */
#ifndef TRAM_CORE_ACTORS_REQUESTS_H
#define TRAM_CORE_ACTORS_REQUESTS_H

#include "core/actors/message.h"
#include "core/jobs/future.h"
#include "core/loop/loop.h"
#include <tram/message.h>

/* What the future's value is. */
enum request_value { REQUEST_MESSAGE, REQUEST_POINTER };

/*
 * What of it a request and its reply touch is two cache lines, and that of the node: the reply stays in there until the
 * future ends. Of the future `number` and `marks` are the request's; of one that is free, `value` is the node, and
 * `user` the next one that is free.
 */
struct request {
    _Alignas(64) tram_future future;
    struct mail *mail; /* NULL: it is out, and nobody waits for it any more */
    struct deadline deadline;
};

struct request_chunk;

struct requests {
    tram_loop *loop;
    struct request **by_number; /* from number 1 on */
    uint32_t count;
    uint32_t capacity;
    struct request_chunk *chunks;
    /* Used in the order in which they ended, so that memory is walked through and not jumped about in. */
    struct request *free;
    struct request *batches; /* more of them; linked by the first of each */
    struct request *ended, *ended_last;
    uint32_t ended_count;
};

void tram__requests_init(struct requests *requests, tram_loop *loop);
void tram__requests_fini(struct requests *requests);

/* The loop closes: all that are pending are cancelled. */
void tram__requests_abandon(struct requests *requests);

/* A request with one reference for the caller and one for what comes back, and its node, to be posted. 0 or -ENOMEM. */
int tram__request_new(struct requests *requests, enum request_value value, uint64_t timeout_ns,
                      struct request **ret_request, struct mail **ret_mail);

/* It was not sent: takes both references back, and the node. */
void tram__request_undo(struct requests *requests, struct request *request);

/* The node came back, with a reply or a negative status. */
void tram__request_answered(struct requests *requests, struct mail *mail);

#endif
