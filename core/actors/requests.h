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

/* What the future's value is: a message, or a pointer. */
extern const struct future_kind tram__request_of_message, tram__request_of_pointer;

/* Marks of its future. */
enum request_mark {
    REQUEST_OUT = 1,       /* the node has not come back */
    REQUEST_TIMED = 2,     /* the deadline runs */
    REQUEST_ABANDONED = 4, /* the node is out, and nobody waits for it any more */
};

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
    struct mail *nodes;            /* … its nodes, … */
    uint64_t unused;               /* … by bit what is left of it, … */
    uint32_t first;                /* … and the number of its first */
    struct list whole;             /* groups of which all have ended, and … */
    struct list parts;             /* … of which some have, those of which one did first come first */
};

void tram__requests_init(struct requests *requests, tram_loop *loop);
void tram__requests_fini(struct requests *requests);

/* The loop closes: all that are pending are cancelled. */
void tram__requests_abandon(struct requests *requests);

/* Makes a group current that has unused ones. False: out of memory. */
bool tram__requests_more(struct requests *requests);

/* The first of a group: what is left of a group is used in order. */
static inline bool request_is_first(uint32_t number) {
    return number % 64 == 0;
}

/* A request with one reference for the caller and one for what comes back, its node, to be posted, and its number:
 * the next of the current group, which has one. */
static ALWAYS_INLINE struct request *request_next(struct requests *requests, const struct future_kind *kind,
                                                  struct mail **ret_mail, uint32_t *ret_number) {
    unsigned i = (unsigned)__builtin_ctzll(requests->unused);
    struct request *request = &requests->current->requests[i];
    KEEP_POINTER(request);
    requests->unused &= requests->unused - 1;
    future_renew(&request->future, kind, 2, REQUEST_OUT);
    *ret_mail = &requests->nodes[i];
    *ret_number = requests->first + i; /* without a look at the request, which is to be written only */
    return request;
}

/* The same of any group. NULL: out of memory. */
static inline struct request *request_new(struct requests *requests, const struct future_kind *kind,
                                          struct mail **ret_mail, uint32_t *ret_number) {
    if (unlikely(!requests->unused) && !tram__requests_more(requests))
        return NULL;
    return request_next(requests, kind, ret_mail, ret_number);
}

/* 0 or -ENOMEM. */
int tram__request_start_deadline(struct request *request, uint64_t timeout_ns);

/* It was not sent: takes both references back, and the node. */
void tram__request_undo(struct request *request);

/* The node came back, with a reply or a negative status. */
void tram__request_answered(struct requests *requests, struct mail *mail);

#endif
