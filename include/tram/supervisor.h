/*
 * Supervisors: actors that start others and start them again when they fail.
 *
 * A supervisor has children in a fixed order, actors of its own loop, which its program describes by a function that
 * starts one. It starts them in that order; when one ends it starts that one again, or all of them; if that is needed
 * too often it gives up: it stops its children and itself, and leaves the matter to its own supervisor. So trees of
 * supervisors grow, since a child may be a supervisor, too. They behave as Erlang's do.
 *
 *     static int start_cache(tram_loop *loop, void *arg, tram_actor **ret_actor) {
 *         struct cache *cache = cache_new(arg);
 *         int status = tram_loop_start_actor(loop, &cache->actor);
 *         if (status)
 *             cache_free(cache);
 *         *ret_actor = &cache->actor;
 *         return status;
 *     }
 *
 *     tram_child children[] = {{.name = "cache", .start = start_cache, .arg = store}};
 *     tram_supervisor_options options = {.children = children, .child_count = 1};
 *     tram_actor *supervisor;
 *     int status = tram_supervisor_start(loop, &options, &supervisor);
 *
 * To watch over several loops, give each a supervisor, and let an actor monitor those (tram_actor_monitor()).
 */
#ifndef TRAM_SUPERVISOR_H
#define TRAM_SUPERVISOR_H

#include <tram/actor.h>

TRAM_BEGIN_DECLS

/*
 * When a child that has ended is started again. It failed if its reason was neither 0 nor TRAM_ECANCELLED, which is
 * that of an actor that its supervisor stopped, and of a supervisor that gave up.
 */
typedef enum tram_restart {
    TRAM_RESTART_PERMANENT = 0, /* always */
    TRAM_RESTART_TRANSIENT = 1, /* if it failed */
    TRAM_RESTART_TEMPORARY = 2, /* never, not even with all others */
} tram_restart;

typedef enum tram_supervisor_strategy {
    TRAM_ONE_FOR_ONE = 0, /* the child that ended is started again */
    TRAM_ONE_FOR_ALL = 1, /* all others are stopped, the last first, and then all are started again */
} tram_supervisor_strategy;

/*
 * Makes an actor and starts it on this loop, by tram_loop_start_actor() or tram_supervisor_start(); its `stopped` frees
 * it, as always. A negative code: it could not be started, and nothing of it is left; where something fails after that
 * (tram_actor_register(), say), tram_actor_stop() and the code, and its `stopped` frees it soon. Called for the first
 * start and for each that follows.
 */
typedef int (*tram_child_start)(tram_loop *loop, void *arg, tram_actor **ret_actor);

typedef struct tram_child {
    const char *name; /* for reports; a constant, or kept as long as the supervisor; NULL: none */
    tram_child_start start;
    void *arg;
    tram_restart restart;
    uintptr_t reserved[4]; /* must be 0 */
} tram_child;

typedef struct tram_supervisor_options {
    tram_supervisor_strategy strategy;
    /* In the order in which they start; stopped in the opposite one. The array is copied. */
    const tram_child *children;
    size_t child_count;
    /* How many restarts within `period_ns` are borne; one more, and it gives up. 0: one; negative: none; at most
     * 65,535. A restart of all counts once, one that fails is tried again and counts again. */
    int max_restarts;
    uint64_t period_ns;    /* 0: 5 s */
    uintptr_t reserved[4]; /* must be 0 */
} tram_supervisor_options;

/*
 * Starts a supervisor with all its children. Without any of them it is not started, and what had started is stopped:
 * the code is that of the child's start. Else -ENOMEM, TRAM_ESTATE (the loop is closed), TRAM_EVALUE (options, or a
 * child without `start`), TRAM_ETYPE (what a start gave is no actor of this loop, or has a supervisor). The loop's
 * thread.
 *
 * *ret_actor, which is the library's, is good until it has ended; of that tell monitors, links, and its own supervisor.
 * It has an address, can be named, and ends by tram_actor_stop(): its children are stopped with TRAM_ECANCELLED, the
 * last first, and their `stopped` comes before it is over itself. Once the loop or the runtime is about to end
 * (`closing`) it starts none again.
 */
TRAM_API int tram_supervisor_start(tram_loop *loop, const tram_supervisor_options *options, tram_actor **ret_actor);

/* The child of that number, in the order of the options; NULL: it does not run, there is no such child, or the actor is
 * no supervisor. The loop's thread. */
TRAM_API tram_actor *tram_supervisor_child(const tram_actor *supervisor, size_t number);

TRAM_END_DECLS

#endif
