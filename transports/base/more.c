/* What few transports have: made when it is first wanted, freed with the transport. */
#include "transports/base/address.h"
#include "transports/base/entering.h"
#include "transports/base/held.h"
#include "transports/base/linger.h"
#include "transports/base/stack.h"

#include <errno.h>

struct transport_more *tram__transport_more_new(tram_loop *loop) {
    struct transport_more *more = tram__memory_get_zero(&loop->allocator, sizeof *more);
    if (!more)
        return NULL;
    transport_timer_init(&more->timer);
    list_init(&more->ready.link);
    return more;
}

int tram__transport_need_more(tram_transport *transport) {
    if (transport->more)
        return 0;
    struct transport_more *more = tram__transport_more_new(loop_of(transport));
    if (!more)
        return -ENOMEM;
    more->transport = transport;
    transport->more = more;
    return 0;
}

struct transport_addresses *tram__transport_addresses(tram_transport *transport) {
    if (tram__transport_need_more(transport))
        return NULL;
    struct transport_more *more = transport->more;
    if (!more->addresses)
        more->addresses = tram__memory_get_zero(&loop_of(transport)->allocator, sizeof *more->addresses);
    return more->addresses;
}

void tram__transport_free_more(tram_loop *loop, tram_transport *transport) {
    struct transport_more *more = transport->more;
    if (!more)
        return;
    transport_close_address(transport);
    if (more->stack)
        more->stack->calls->free(transport);
    memory_put(&loop->allocator, more->detail, TRAM_ERROR_TEXT);
    if (more->addresses)
        tram__held_free(loop, more->addresses->tlvs);
    memory_put(&loop->allocator, more->addresses, sizeof *more->addresses);
    memory_put(&loop->allocator, more->linger, sizeof *more->linger);
    memory_put(&loop->allocator, more->work, sizeof *more->work);
    if (transport->flags & T_OWN_LIMITS)
        memory_put(&loop->allocator, (void *)(uintptr_t)transport->limits, sizeof *transport->limits);
    memory_put(&loop->allocator, more->descriptors, sizeof *more->descriptors);
    memory_put(&loop->allocator, more, sizeof *more);
}
