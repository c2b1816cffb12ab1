/*
 * Actors: what receives messages and has no connection.
 *
 * An actor is a struct of yours that begins with a tram_actor, as a protocol is one that begins with a tram_protocol.
 * It lives on one loop, whose thread calls its callbacks, one at a time, in the order
 *
 *     started, (message_received, timed_out, actor_ended, closing)*, stopped
 *
 * A NULL entry does nothing and returns 0. A callback that fails stops its actor, with that code as the reason: that is
 * how an actor crashes, and what monitors and links hear of.
 */
#ifndef TRAM_ACTOR_H
#define TRAM_ACTOR_H

#include <tram/message.h>
#include <tram/runtime.h>

TRAM_BEGIN_DECLS

typedef struct tram_actor tram_actor;

typedef struct tram_actor_ops {
    /* Once, first, from the loop. */
    int (*started)(tram_actor *actor);

    /* A message came (tram/message.h): what it refers to is destroyed afterwards unless it is taken. NULL: dropped. */
    int (*message_received)(tram_actor *actor, tram_message *message);

    /* The time of tram_actor_set_timer() has come. */
    int (*timed_out)(tram_actor *actor);

    /*
     * An actor has ended that this one monitors, or is linked with: `reason` is 0, or the code with which it stopped;
     * -ESRCH: it had ended before, or its loop. Where this is NULL, the end of a link with a reason other than 0 stops
     * this actor with the same reason; that of a monitored one is nothing.
     */
    int (*actor_ended)(tram_actor *actor, tram_address who, int reason);

    /* Its loop, or the runtime, is about to end; one that is started by then hears it after `started`. It may stop now,
     * or serve until then. */
    int (*closing)(tram_actor *actor);

    /*
     * Once, last, outside any other callback: free it here. `reason`: 0, what it was stopped with, the code of a
     * callback that failed, or TRAM_ECANCELLED: the loop was closed.
     */
    void (*stopped)(tram_actor *actor, int reason);

    uintptr_t reserved[8]; /* must be 0 */
} tram_actor_ops;

/* The first member of your struct. Set `ops`, zero the rest. */
struct tram_actor {
    const tram_actor_ops *ops;
    tram_loop *loop;             /* kept by the library: its loop, from the start on; NULL when `stopped` is called */
    struct actor_record *record; /* the library's */
    uintptr_t reserved[2];       /* must be 0 */
};

/*
 * Starts an actor on the loop; `started` comes soon, and it has an address from now on. On failure it stays the
 * caller's: -ENOMEM, TRAM_ESTATE (closed loop, or it is started), TRAM_ETYPE (no ops).
 */
TRAM_API int tram_loop_start_actor(tram_loop *loop, tram_actor *actor);

/*
 * Stops it: no callback but `stopped`, which comes soon, is called from now on, and messages to it are dropped. The
 * first reason counts. 0 is a normal end. The loop's thread.
 */
TRAM_API int tram_actor_stop(tram_actor *actor, int reason);

/* Its address. The loop's thread. TRAM_ESTATE: it is not started, or was stopped. */
TRAM_API int tram_actor_address(const tram_actor *actor, tram_address *ret_address);

/* Calls timed_out once, in `delay_ns`; a second call replaces the first; TRAM_FOREVER: not at all. */
TRAM_API int tram_actor_set_timer(tram_actor *actor, uint64_t delay_ns);

/* ---- The end of others ---- */

/*
 * This actor hears in actor_ended when the other one ends, on whatever loop it is; at once if it has, and so if the
 * address is no actor's: a connection says itself that it has ended, by a message from its connection_lost. -ENOMEM.
 * Each call is told of once.
 */
TRAM_API int tram_actor_monitor(tram_actor *actor, tram_address other);

/* Not any more. What is on its way may still come. -ENOMEM: not here any more, but the other one has not heard it. */
TRAM_API int tram_actor_demonitor(tram_actor *actor, tram_address other);

/* The same in both directions: each hears of the other's end, or ends with it. Linking twice is linking once. */
TRAM_API int tram_actor_link(tram_actor *actor, tram_address other);
TRAM_API int tram_actor_unlink(tram_actor *actor, tram_address other);

/* ---- Names ---- */

/*
 * Gives an actor a name in a runtime, until it stops: any thread finds its address by it. -EEXIST: another has it;
 * TRAM_EVALUE: an empty name; -ENOMEM. The loop's thread. An actor may have several names.
 */
TRAM_API int tram_actor_register(tram_actor *actor, tram_runtime *runtime, const char *name);

/* The address that has the name; -ENOENT. Any thread, while there is the runtime. */
TRAM_API int tram_runtime_lookup(tram_runtime *runtime, const char *name, tram_address *ret_address);

TRAM_END_DECLS

#endif
