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
 * future ends. Of the future `number` and `marks` are the request's.
 */
struct request {
    _Alignas(64) tram_future future;
    struct deadline deadline;
};

#define REQUESTS_PER_GROUP MAIL_RUN

/*
 * Requests and their nodes, next to each other: request i has node i. Those that are used one after the other lie one
 * behind the other, which is what processors fetch ahead of time, from each other as well.
 */
struct request_group {
    struct request requests[REQUESTS_PER_GROUP];
    struct mail *nodes;
    uint64_t ended;   /* by bit: those that may be used again */
    struct list link; /* in one of the lists of struct requests, where there are any */
    uint32_t index;
    void *memory;
};

struct requests {
    tram_loop *loop;
    struct request_group **groups; /* from 1 on: that of a request is its number / 64 */
    uint32_t count;
    uint32_t capacity;
    struct request_group *current; /* the group that is used up now, … */
    uint64_t unused;               /* … and by bit what is left of it */
    struct list whole;             /* groups of which all have ended, and … */
    struct list parts;             /* … of which some have, those of which one did first come first */
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
