#include "transports/limits/expiry.h"

#include <errno.h>

#include "transports/base/receiver.h"

#define NEVER TRAM_FOREVER

struct expiry {
    struct transport_owner owner;
    struct deadline deadline;
    struct expiries *expiries;
    tram_transport *transport;
    uint64_t active_ns;     /* when a byte moved */
    uint64_t first_byte_ns; /* the end of waiting for it; NEVER: it came */
    uint64_t total_ns;
};

/* ---- Time is over ---- */

/* The next deadline; of equals the one that tells most. */
static enum limit next_deadline(const struct expiry *expiry, uint64_t *ret_when) {
    enum limit limit = LIMIT_TOTAL;
    *ret_when = expiry->total_ns;
    if (expiry->first_byte_ns <= *ret_when) {
        limit = LIMIT_FIRST_BYTE;
        *ret_when = expiry->first_byte_ns;
    }
    uint64_t idle_ns = time_after(expiry->active_ns, expiry->expiries->limits->bounds.idle_timeout_ns);
    if (idle_ns < *ret_when) {
        limit = LIMIT_IDLE;
        *ret_when = idle_ns;
    }
    return limit;
}

static void end(struct expiry *expiry, enum limit limit) {
    static const char *const operations[] = {
        [LIMIT_IDLE] = "idle", [LIMIT_FIRST_BYTE] = "first byte", [LIMIT_TOTAL] = "total"};
    tram_transport *transport = expiry->transport;
    if (transport->flags & T_LOST_PENDING)
        return; /* the end came first */
    if (transport->flags & T_LINGERING) {
        tram__transport_schedule_lost(transport); /* nothing is left to be cut */
        return;
    }
    tram__limits_count(expiry->expiries->tally, transport->io.loop, limit);
    tram__transport_end_by(transport, END_TIMEOUT, -ETIMEDOUT, operations[limit], NULL);
}

static void expired(tram_loop *loop, struct deadline *deadline) {
    struct expiry *expiry = container_of(deadline, struct expiry, deadline);
    uint64_t when;
    enum limit limit = next_deadline(expiry, &when);
    if (when <= tram__clock(loop)) {
        end(expiry, limit);
        return;
    }
    int status = tram__deadline_start(loop, deadline, when);
    if (status)
        tram__transport_fatal(expiry->transport, status, "timer", NULL);
}

/* ---- As the owner of a transport ---- */

static struct expiry *expiry_of(struct transport_owner *owner) {
    return container_of(owner, struct expiry, owner);
}

static void on_detach(struct transport_owner *owner, tram_transport *transport) {
    struct expiry *expiry = expiry_of(owner);
    struct transport_owner *server = owner->root;
    deadline_cancel(transport->io.loop, &expiry->deadline);
    pool_put(&expiry->expiries->pool, expiry);
    server->on_detach(server, transport);
}

/* With a timer running, the loop has read the clock for this turn. */
static uint64_t time_of_turn(const tram_loop *loop) {
    return likely(loop->timers.now) ? loop->timers.now : tram__clock(loop);
}

static void on_bytes(struct transport_owner *owner, enum traffic direction) {
    struct expiry *expiry = expiry_of(owner);
    if (direction == TRAFFIC_IN)
        expiry->first_byte_ns = NEVER;
    if (expiry->expiries->limits->bounds.idle_timeout_ns != NEVER)
        expiry->active_ns = time_of_turn(expiry->transport->io.loop);
}

/* ---- Life ---- */

void tram__expiries_init(struct expiries *expiries, const struct limits *limits, struct limit_tally *tally,
                         struct transport_owner *server, const tram_allocator *allocator) {
    *expiries = (struct expiries){.limits = limits, .tally = tally, .server = server};
    tram__pool_init(&expiries->pool, allocator, sizeof(struct expiry));
}

void tram__expiries_fini(struct expiries *expiries) {
    if (expiries->limits)
        tram__pool_fini(&expiries->pool);
}

static void meter(tram_transport *transport) {
    transport->flags |= T_METERED;
    tram__transport_choose_receiver(transport);
}

int tram__expiry_stream_new(struct expiries *expiries, tram_loop *loop, int fd, tram_protocol *protocol,
                            struct transport_options *options, tram_transport **ret_transport) {
    const tram_server_limits *bounds = &expiries->limits->bounds;
    struct expiry *expiry = pool_get(&expiries->pool);
    if (!expiry)
        return -ENOMEM;
    uint64_t now = tram__clock(loop), when;
    *expiry = (struct expiry){
        .owner = {.on_detach = on_detach, .on_bytes = on_bytes, .root = expiries->server},
        .deadline.expire = expired,
        .expiries = expiries,
        .active_ns = now,
        .first_byte_ns = time_after(now, bounds->first_byte_timeout_ns),
        .total_ns = time_after(now, bounds->total_timeout_ns),
    };
    next_deadline(expiry, &when);
    int status = tram__deadline_start(loop, &expiry->deadline, when);
    if (!status) {
        options->owner = &expiry->owner;
        status = tram__transport_new(loop, &tram__stream_kind, fd, protocol, options, &expiry->transport);
    }
    if (status) {
        deadline_cancel(loop, &expiry->deadline);
        pool_put(&expiries->pool, expiry);
        return status;
    }
    if (bounds->idle_timeout_ns != NEVER || bounds->first_byte_timeout_ns != NEVER)
        meter(expiry->transport);
    *ret_transport = expiry->transport;
    return 0;
}
