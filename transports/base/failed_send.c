/*
 * What follows from a send that failed: for good (W-5, W-29), or because the kernel has no memory for it now.
 *
 * Only the sending side has failed then. What the peer said before is in the kernel still, an answer perhaps, behind
 * which the peer closed: it is delivered as long as there is some, then the connection is lost with the send's error.
 */
#include "transports/base/entering.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

#include <errno.h>

#define AGAIN_AFTER_NS 5000000u

/* ---- For good ---- */

/* Somebody would read what comes, now. */
static bool hears(const tram_transport *transport) {
    const struct io *io = &transport->io;
    bool layers_start = (transport->flags & (T_EXCLUSIVE | T_HAS_WRITER)) == T_EXCLUSIVE;
    return (transport->flags & (T_MADE | T_PAUSED | T_CLOSING | T_EOF)) == T_MADE && !layers_start && io->receiver &&
           io->fd >= 0 && !(io->flags & IO_NO_SOCKET);
}

/* Bytes that wait for the protocol. */
static bool has_something(const tram_transport *transport) {
    const struct io *io = &transport->io;
    char byte;
    ssize_t size;
    if (transport->more && !list_empty(&transport->more->ready.link))
        return true; /* held ones, or layers are at work */
    if (!(io->wanted & IO_READ))
        return false;
    do
        size = io->loop->sys->recv(io->fd, &byte, 1, MSG_PEEK);
    while (size < 0 && errno == EINTR);
    return size > 0;
}

/* Once a tick, before the poller is asked for what is there. */
static void hear_out(tram_loop *loop, struct ready *ready) {
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    if (hears(transport) && has_something(transport))
        loop_ready(loop, ready);
    else
        tram__transport_call_lost(transport);
}

void tram__transport_send_failed(tram_transport *transport, int code, const char *operation) {
    tram_loop *loop = loop_of(transport);
    if (unlikely(loop->debug)) /* the log function may call anything: it is called before a state is read */
        tram__log(loop, TRAM_LOG_DEBUG, "connection %p: %s failed: %s", (void *)transport, operation,
                  tram_error_text(code));
    if (transport->flags & (T_LOST_PENDING | T_WRITE_FAILED))
        return;
    transport->flags |= T_RESET; /* what it was to send is lost, whether it was queued or not (W-30) */
    if (!hears(transport)) {
        tram__transport_fatal(transport, code, operation, NULL);
        return;
    }
    transport->end = (struct transport_end){.code = code, .operation = operation};
    tram__transport_note_end(transport, END_BY_ERROR);
    transport->flags |= T_WRITE_FAILED | T_WRITING_ENDED;
    transport->dropped_writes++;
    struct exclusive_writer *writer = transport_take_writer(transport);
    transport->on.ready.run = hear_out; /* from here on it may end in whatever is called */
    list_init(&transport->on.ready.link);
    loop_ready(loop, &transport->on.ready);
    tram__io_send_stop(&transport->io);
    if (writer) {
        writer->lost(writer);
        tram__transport_start_reading(transport);
    }
    transport_kind_of(transport)->drop_queue(transport); /* see tram__transport_end_by() */
}

/* ---- No memory now ---- */

/* Those that waited ask for writability again. */
static void send_again(tram_loop *loop, struct deadline *deadline) {
    (void)deadline;
    for (uint32_t slot = 1; slot < slots_count(&loop->io_slots); slot++) {
        struct io *io = io_of_slot(loop, slot);
        tram_transport *transport = (tram_transport *)(void *)io;
        if (!io || !io->kind->transport || !(transport->flags & T_SEND_LATER))
            continue;
        transport->flags &= ~(uint32_t)T_SEND_LATER;
        int status = transport->flags & T_LOST_PENDING ? 0 : tram__io_send_start(io);
        if (status)
            tram__transport_fatal(transport, status, "epoll_ctl", NULL);
    }
}

void tram__transport_send_later(tram_transport *transport, int code) {
    tram_loop *loop = loop_of(transport);
    struct deadline *deadline = &transport_state(loop)->send_again;
    deadline->expire = send_again;
    if (deadline->timer.place == TIMER_IDLE && tram__deadline_start_after(loop, deadline, AGAIN_AFTER_NS)) {
        tram__transport_send_failed(transport, code, "send");
    } else {
        transport->flags |= T_SEND_LATER;
        tram__io_send_stop(&transport->io); /* else the poller would say at once that there is room */
    }
}
