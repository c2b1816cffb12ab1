/*
 * One connection of the load: sends requests, checks and times the answers. In churn it is a place that many
 * connections fill, one after the other, each for one request.
 */
#ifndef TRAM_LOAD_CONNECTION_H
#define TRAM_LOAD_CONNECTION_H

#include "load/shard.h"

typedef struct load_connection {
    tram_protocol protocol; /* first: the library's pointer to it is ours */
    load_shard *shard;
    uint64_t number; /* names its noise; different for all connections of the run */
    bool opening;    /* the worker's: waits for the first answer */
    bool usable;     /* proved itself, and was not lost; in churn, its first connection did */
    uint64_t turn;   /* its place in the schedule */
    uint64_t issued; /* requests that it began, the one that proves it not counted */

    tram_future *attempt; /* to connect, under way */
    tram_handle deadline; /* for the first answer */
    bool held;            /* the library has the protocol and will call released */
    bool proving;         /* the request in flight is the one that proves the connection */
    bool answered;        /* churn: the answer is whole, only the end is missing */
    bool closing;         /* its end is our wish */
    bool failed;          /* its end is an error, which is counted already */
    bool ended;           /* by the target, in good order: another connection goes on */
    bool resting;         /* until `retry` connects anew */
    tram_handle retry;
    uint64_t ended_ns; /* when that was; what is not connected `timeout_ms` later has failed */
    bool paused;

    uint64_t unsent;      /* bytes of begun requests that wait for resume_writing */
    uint64_t outstanding; /* bytes that were sent and did not come back */
    uint64_t answer_left; /* bytes missing from the oldest request's answer */
    uint64_t received;
    uint32_t send_place;
    uint32_t receive_place;

    uint32_t in_flight;
    uint32_t oldest;   /* where in the ring the oldest request in flight is */
    uint64_t *sent_ns; /* ring: when the requests in flight were sent; `pipeline` entries */
} load_connection;

/* Connects, and sends one request. Not for a busy one. */
void load_connection_open(load_connection *connection);

/* Neither connecting nor connected, nor about to connect anew. */
bool load_connection_is_idle(const load_connection *connection);

/* Begins the requests that pipeline and schedule allow now. */
void load_connection_advance(load_connection *connection, uint64_t now_ns);

/* Begins no more; closes when all is answered. The shard is ending. */
void load_connection_finish(load_connection *connection);

/* Ends now; what is in flight counts as unanswered. */
void load_connection_cut(load_connection *connection);

#endif
