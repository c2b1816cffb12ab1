#include "transports/base/linger.h"

#include <errno.h>
#include <linux/sock_diag.h>

#include "transports/base/entering.h"
#include "transports/base/lifecycle.h"
#include "transports/base/receiver.h"

static void expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    tram__transport_schedule_lost(container_of(deadline, struct lingering, deadline)->transport);
}

/* NULL: out of memory. */
static struct lingering *linger_of(tram_transport *transport) {
    if (tram__transport_need_more(transport))
        return NULL;
    struct transport_more *more = transport->more;
    if (more->linger)
        return more->linger;
    struct lingering *linger = tram__memory_get_zero(&loop_of(transport)->allocator, sizeof *linger);
    if (linger)
        *linger = (struct lingering){.deadline.expire = expired, .transport = transport, .time_ns = TRAM_LINGER_NS};
    more->linger = linger;
    return linger;
}

/* Bytes that the peer's kernel has not acknowledged, or that came and were not read: a close now might lose some. */
static bool is_in_flight(const tram_transport *transport) {
    const struct sys *sys = loop_of(transport)->sys;
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    char byte;
    bool known = sys->getsockopt(transport->io.fd, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0;
    return (known && memory[SK_MEMINFO_WMEM_QUEUED]) || sys->recv(transport->io.fd, &byte, 1, MSG_PEEK) > 0;
}

/* After the end of the peer's stream nothing can come; a lent descriptor is not closed. */
static bool wants(const tram_transport *transport) {
    const uint32_t against = T_EOF | T_WRITE_FAILED | T_NOT_OURS | T_LOST_PENDING | T_LINGERING;
    return transport_kind_of(transport)->lingers && (transport->flags & (T_MADE | against)) == T_MADE &&
           (transport->flags & T_LINGER || is_in_flight(transport));
}

bool tram__transport_linger(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    struct lingering *linger = wants(transport) ? linger_of(transport) : NULL;
    if (!linger || tram__deadline_start_after(loop, &linger->deadline, linger->time_ns))
        return false;
    if (transport_kind_of(transport)->end_writing(transport))
        return false; /* nobody is connected any more */
    transport_move(transport, MOVE_LINGER);
    transport->flags |= T_WRITING_ENDED;
    list_remove(&transport->more->ready.link); /* layers have nothing to do any more */
    tram__transport_choose_receiver(transport);
    tram__io_send_stop(&transport->io);
    return io_receive_start(&transport->io) == 0;
}

int tram__transport_ask_linger(tram_transport *transport, uint64_t time_ns) {
    struct lingering *linger = transport_kind_of(transport)->lingers ? linger_of(transport) : NULL;
    if (!linger)
        return transport_kind_of(transport)->lingers ? -ENOMEM : 0;
    linger->time_ns = time_ns ? time_ns : TRAM_LINGER_NS;
    transport->flags |= T_LINGER;
    return 0;
}
