/*
 * How a thread gets to whom it posts: by a route, where it runs a loop; else by a pin (directory.h). A route is a hold
 * of a loop's addressees, made at the first post to it, so that a post counts nothing. Routes to loops that have closed
 * are given up when the next one is made, and all of them with the loop that has them.
 */
#ifndef TRAM_CORE_ACTORS_ROUTES_H
#define TRAM_CORE_ACTORS_ROUTES_H

#include "core/actors/addressees.h"

/* By the number of the loop. */
struct routes {
    struct addressees **to;
    uint32_t count;
};

/* The loop of these routes closes. */
static inline void routes_fini(tram_loop *loop, struct routes *routes) {
    loop->mailbox->routes = NULL;
    for (uint32_t number = 0; number < routes->count; number++)
        if (routes->to[number])
            tram__addressees_release(routes->to[number]);
    memory_put(&loop->allocator, routes->to, routes->count * sizeof *routes->to);
    *routes = (struct routes){0};
}

/* The route, or NULL: there is none yet. */
static inline struct addressees *routes_find(const struct routes *routes, uint32_t number, uint32_t generation) {
    if (unlikely(number >= routes->count))
        return NULL;
    struct addressees *there = routes->to[number];
    return likely(there && there->generation == generation) ? there : NULL;
}

/* The route of the loop that this thread runs, or NULL: there is none, or no loop. */
static inline struct addressees *route_present(uint32_t number, uint32_t generation) {
    const struct mailbox *own = tram__mailbox_entered;
    return likely(own && own->routes) ? routes_find(own->routes, number, generation) : NULL;
}

/* The addressees, until route_leave(). NULL: nothing is pinned, and *ret_status says TRAM_ESTATE or -ECHILD. */
struct addressees *tram__route_find(uint32_t number, uint32_t generation, bool *ret_pinned, int *ret_status);

static inline bool addressees_forked(const struct addressees *addressees) {
    return unlikely(!atomic_load_explicit(addressees->wiped, memory_order_relaxed));
}

static inline struct addressees *route_enter(uint32_t number, uint32_t generation, bool *ret_pinned, int *ret_status) {
    struct addressees *there = route_present(number, generation);
    *ret_pinned = false;
    if (likely(there && !addressees_forked(there)))
        return there;
    return tram__route_find(number, generation, ret_pinned, ret_status);
}

void tram__route_unpin(uint32_t number);

static inline void route_leave(uint32_t number, bool pinned) {
    if (unlikely(pinned))
        tram__route_unpin(number);
}

#endif
