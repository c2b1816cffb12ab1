#include "core/actors/routes.h"

#include <errno.h>

#include "core/actors/actors.h"
#include "core/actors/directory.h"
#include "core/base/steps.h"

static void drop_closed(struct routes *routes) {
    for (uint32_t number = 0; number < routes->count; number++) {
        struct addressees *there = routes->to[number];
        if (!there || atomic_load_explicit(&there->mailbox->state, memory_order_relaxed) != MAILBOX_CLOSED)
            continue;
        routes->to[number] = NULL;
        tram__addressees_release(there);
    }
}

static bool reserve(tram_loop *loop, struct routes *routes, uint32_t number) {
    uint32_t count = routes->count ? routes->count : 8;
    while (count <= number)
        count *= 2;
    if (count == routes->count)
        return true;
    struct addressees **to = tram__memory_get_zero(&loop->allocator, count * sizeof *to);
    if (!to)
        return false;
    for (uint32_t i = 0; i < routes->count; i++)
        to[i] = routes->to[i];
    memory_put(&loop->allocator, routes->to, routes->count * sizeof *to);
    routes->to = to;
    routes->count = count;
    return true;
}

/* Makes a route to these addressees, which are pinned, for the loop that runs on this thread. */
static bool make_route(tram_loop *loop, struct addressees *there) {
    struct actors *actors = tram__actors(loop);
    if (!actors)
        return false;
    struct routes *routes = &actors->routes;
    mailbox_send_requests(loop->mailbox); /* they are kept by a route */
    drop_closed(routes);
    if (!reserve(loop, routes, there->number))
        return false;
    struct addressees *before = routes->to[there->number];
    routes->to[there->number] = addressees_hold(there);
    loop->mailbox->routes = routes;
    if (before) /* of an earlier loop of this number */
        tram__addressees_release(before);
    return true;
}

struct addressees *tram__route_find(uint32_t number, uint32_t generation, bool *ret_pinned, int *ret_status) {
    struct addressees *there = tram__directory_pin(number, generation);
    *ret_status = TRAM_ESTATE;
    if (!there)
        return NULL;
    tram_loop *loop = tram_loop_running();
    between_steps();
    if (addressees_forked(there)) {
        *ret_status = -ECHILD;
        there = NULL;
    } else {
        *ret_pinned = !loop || !make_route(loop, there);
    }
    if (!*ret_pinned)
        tram__directory_unpin(number);
    return there;
}

void tram__route_unpin(uint32_t number) {
    tram__directory_unpin(number);
}
