/*
 * The datagram transport. Sending: a datagram goes to the kernel at once if it may, else into the queue, where it
 * waits for one of two things: the end of a batch or cork (it is held), or a kernel that has no room (waiting).
 */
#include "transports/datagram/datagram.h"

#include <errno.h>
#include <string.h>

#include "core/backend/datagrams.h"
#include "core/base/invalid.h"
#include "transports/base/protocol_adapter.h"
#include "transports/datagram/queue.h"
#include "transports/socket/address.h"
#include "transports/stream/stream.h"

#define HEADER_COST 8 /* what a queued datagram counts beside its bytes (D-13) */

struct datagram_transport {
    tram_transport base; /* queue.size counts what is in `queue` here, but for `held` */
    struct datagram_queue queue;
    size_t held; /* counts for what the end of the batch sends: to the user, as in CPython, that is sent already */
    struct deadline retry;
    size_t full_size; /* of the datagram that is being received */
    bool delivering;  /* a batch is being received */
    bool waiting;     /* the kernel has no room: the queue goes on when it has */
    bool connected;   /* the kernel has the destination */
    bool hears;       /* a datagram is being received, also after a close */
    bool told;        /* … and `ancillary` is what is known of it */
    struct io_ancillary ancillary;
    tram_socket_address remote; /* size 0: any */
    tram_socket_address peer;   /* whose datagram is being received */
};

static inline struct datagram_transport *of(tram_transport *transport) {
    return (struct datagram_transport *)(void *)transport;
}

static inline struct datagram_transport *of_io(struct io *io) {
    return (struct datagram_transport *)(void *)io;
}

static inline bool dead(const struct datagram_transport *self) {
    return self->base.flags & T_LOST_PENDING;
}

static void notify_error(struct datagram_transport *self, int code, const char *operation) {
    tram_error error = {.code = code, .operation = operation};
    tram__protocol_error_received(&self->base, &error);
}

/* ---- Sending what is queued ---- */

static void wait_for_room(struct datagram_transport *self) {
    self->waiting = true;
    int status = tram__io_send_start(&self->base.io);
    if (unlikely(status))
        tram__transport_fatal(&self->base, status, "epoll_ctl", NULL);
}

static void retry_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    wait_for_room(container_of(deadline, struct datagram_transport, retry));
}

/*
 * The kernel said that it had room, and then it had none. A Unix socket that is not connected says so as long as its
 * peer does not read; asking at once again would take all of the CPU.
 */
static void wait_and_retry(struct datagram_transport *self) {
    tram_loop *loop = self->base.io.loop;
    if (!tram__deadline_start_after(loop, &self->retry, TRAM_DATAGRAM_RETRY_NS))
        tram__io_send_stop(&self->base.io);
}

/* What was held until the end of the batch is queued like all else. */
static void count_held(struct datagram_transport *self) {
    self->base.queue.size += self->held;
    self->held = 0;
}

static void drop(struct datagram_transport *self, size_t count) {
    size_t bytes = tram__datagram_queue_drop(self->base.io.loop, &self->queue, count);
    self->base.queue.size -= bytes + count * HEADER_COST;
}

static void taken(struct datagram_transport *self, size_t count) {
    tram_loop *loop = self->base.io.loop;
    size_t before = self->base.queue.size;
    drop(self, count);
    stats_add(&loop->stats.writes, 1);
    stats_add(&loop->stats.bytes_sent, before - self->base.queue.size - count * HEADER_COST);
}

/* The queue shrank, but this is no place to call the protocol (W-19): the next writability does (sent()). */
static void resume_later(struct datagram_transport *self) {
    if (self->base.queue.size <= self->base.limits->low && !self->waiting && !dead(self))
        wait_for_room(self);
}

/* What was held goes out, as far as the kernel takes it. Not from the loop: nothing ends here. */
static void flush(struct datagram_transport *self) {
    struct io *io = &self->base.io;
    count_held(self);
    while (self->queue.count && !self->waiting && !dead(self)) {
        struct io_datagram *datagrams = io->loop->datagrams->gathered; /* which goes with the loop */
        size_t count = tram__datagram_queue_gather(&self->queue, datagrams, TRAM_DATAGRAMS_OUT);
        ssize_t sent = io_try_send_datagrams(io, datagrams, count);
        if (likely(sent > 0)) {
            taken(self, (size_t)sent);
            continue;
        }
        wait_for_room(self);
        if (sent == -EAGAIN || dead(self))
            break;
        drop(self, 1);
        notify_error(self, (int)sent, "sendto"); /* the others follow at the next writability (D-18) */
    }
    if (self->queue.count && !dead(self))
        tram__transport_queue_grew(&self->base);
    if (unlikely(self->base.flags & T_WRITING_PAUSED))
        resume_later(self);
}

static size_t gather(struct io *io, struct io_datagram *datagrams, size_t count) {
    return tram__datagram_queue_gather(&of_io(io)->queue, datagrams, count);
}

static void sent(struct io *io, ssize_t result) {
    struct datagram_transport *self = of_io(io);
    if (unlikely(result < 0)) {
        if (result == -EAGAIN) {
            wait_and_retry(self);
            return;
        }
        drop(self, 1);
        notify_error(self, (int)result, "sendto");
        return;
    }
    if (result)
        taken(self, (size_t)result);
    tram__transport_maybe_resume(&self->base); /* may send, close, abort (W-20) */
    if (self->queue.count || dead(self))
        return;
    self->waiting = false;
    tram__transport_drained(&self->base, true);
}

/* ---- Sending ---- */

/* More than this is not held back, whoever holds it. */
static bool held_enough(const struct datagram_transport *self) {
    return self->queue.count >= TRAM_DATAGRAMS_OUT || self->base.queue.size + self->held >= TRAM_DATAGRAMS_HELD;
}

static int keep(struct datagram_transport *self, const struct io_datagram *datagram) {
    int status = tram__datagram_queue_add(self->base.io.loop, &self->queue, datagram);
    if (unlikely(status))
        return status;
    self->held += datagram->size + HEADER_COST;
    if (unlikely(self->waiting || self->base.corked))
        count_held(self);
    if (unlikely(self->waiting))
        tram__transport_queue_grew(&self->base);
    else if (held_enough(self))
        flush(self);
    return 0;
}

__attribute__((always_inline)) static inline int send_datagram(struct datagram_transport *self,
                                                               const struct io_datagram *datagram) {
    tram_loop *loop = self->base.io.loop;
    if (self->queue.count || self->delivering || self->base.corked)
        return keep(self, datagram);
    ssize_t result = io_try_send_datagrams(&self->base.io, datagram, 1);
    if (likely(result > 0)) {
        stats_add(&loop->stats.writes, 1);
        stats_add(&loop->stats.bytes_sent, datagram->size);
        return 0;
    }
    if (result != -EAGAIN) {
        notify_error(self, (int)result, "sendto");
        return 0;
    }
    wait_for_room(self);
    return dead(self) ? 0 : keep(self, datagram);
}

/* Where to: 0 or TRAM_EVALUE. */
__attribute__((always_inline)) static inline int find_destination(const struct datagram_transport *self,
                                                                  const tram_socket_address **address) {
    if (unlikely(*address && (*address)->size > sizeof(*address)->address))
        return tram__invalid("address");
    if (self->remote.size) {
        if (*address && !tram__address_equal(*address, &self->remote))
            return tram__invalid("address");
        *address = &self->remote;
        return 0;
    }
    return unlikely(!self->connected && (!*address || !(*address)->size)) ? tram__invalid("address") : 0;
}

/* An answer to the peer that is just being heard leaves from where it came in; of others the kernel decides. */
__attribute__((noinline)) static const struct io_ancillary *
answer_from(const struct datagram_transport *self, const tram_socket_address *to, struct io_ancillary *answer) {
    if (!self->ancillary.has_local || self->connected || !tram__address_equal(to, &self->peer))
        return NULL;
    *answer = self->ancillary;
    const struct in6_addr *address = &answer->local;
    /* The interface is the routes' choice, but for addresses that mean nothing without it. */
    if (!IN6_IS_ADDR_LINKLOCAL(address) && !IN6_IS_ADDR_MULTICAST(address))
        answer->interface = 0;
    if (IN6_IS_ADDR_MULTICAST(address))
        answer->local = in6addr_any; /* nothing leaves from there */
    return answer;
}

/* `source` is as in struct io_datagram. */
__attribute__((always_inline)) static inline int send_to(struct datagram_transport *self, const void *data, size_t size,
                                                         const tram_socket_address *address,
                                                         const struct io_ancillary *source) {
    if (unlikely(!data && size))
        return tram__invalid("data");
    if (unlikely(dead(self))) {
        tram__transport_drop_write(&self->base);
        return 0;
    }
    struct io_datagram datagram = {.data = (void *)(uintptr_t)data, .size = size, .ancillary = source};
    if (!self->connected) {
        datagram.address = (const struct sockaddr *)&address->address;
        datagram.address_size = address->size;
    }
    return send_datagram(self, &datagram);
}

static int datagram_sendto(tram_transport *transport, const void *data, size_t size,
                           const tram_socket_address *address) {
    struct datagram_transport *self = of(transport);
    struct io_ancillary answer;
    const struct io_ancillary *source = NULL;
    int status = find_destination(self, &address);
    if (unlikely(status))
        return status;
    if (unlikely(self->told))
        source = answer_from(self, address, &answer);
    return send_to(self, data, size, address, source);
}

static int datagram_uncork(tram_transport *transport) {
    if (transport->corked && --transport->corked == 0 && !of(transport)->delivering)
        flush(of(transport));
    return 0;
}

/* ---- Receiving ---- */

static void received(struct io *io, const struct io_datagram *datagram) {
    struct datagram_transport *self = of_io(io);
    const tram_socket_address *peer = NULL;
    if (likely(datagram->address_size)) {
        self->peer.size = datagram->address_size;
        io_copy_address(&self->peer.address, datagram->address, datagram->address_size);
        peer = &self->peer;
    }
    self->delivering = self->hears = true;
    self->full_size = datagram->full_size;
    self->told = datagram->ancillary;
    if (unlikely(self->told))
        self->ancillary = *datagram->ancillary;
    tram__protocol_datagram_received(&self->base, datagram->data, datagram->size, peer);
}

static void received_all(struct io *io) {
    struct datagram_transport *self = of_io(io);
    self->delivering = self->hears = self->told = false;
    self->full_size = 0;
    if (self->queue.count && !self->base.corked)
        flush(self);
}

static void receive_failed(struct io *io, int code) {
    notify_error(of_io(io), code, "recvmsg");
}

/* ---- Ending ---- */

static int datagram_close(tram_transport *transport) {
    struct datagram_transport *self = of(transport);
    self->delivering = false;
    transport->corked = 0;
    flush(self); /* error_received may close, too */
    return tram__transport_close(transport);
}

/* What the batch alone holds back was sent, as far as anybody knows. */
static int datagram_abort(tram_transport *transport) {
    struct datagram_transport *self = of(transport);
    if (self->held && !dead(self))
        flush(self); /* error_received may abort, too */
    return tram__transport_abort(transport);
}

static void drop_queue(tram_transport *transport) {
    struct datagram_transport *self = of(transport);
    count_held(self);
    drop(self, self->queue.count);
    deadline_cancel(transport->io.loop, &self->retry);
}

static void dispose(tram_transport *transport) {
    memory_put(&transport->io.loop->allocator, transport, sizeof(struct datagram_transport));
}

static void ending(struct io *io, enum shutdown_mode how) {
    tram__transport_ending(&of_io(io)->base, how);
}

/* ---- Making one ---- */

static const struct io_datagram_kind datagrams = {
    .received = received,
    .received_all = received_all,
    .receive_failed = receive_failed,
    .gather = gather,
    .sent = sent,
};

static const struct transport_overrides calls = {
    .close = datagram_close,
    .abort = datagram_abort,
    .cork = tram__transport_cork,
    .uncork = datagram_uncork,
    .sendto = datagram_sendto,
};

static const struct transport_kind datagram_kind = {
    .io = {.name = "datagram", .transport = true, .datagrams = &datagrams, .ending = ending},
    .flags = T_HAS_OVERRIDES,
    .calls = &calls,
    .drop_queue = drop_queue,
    .end = tram__socket_end,
    .dispose = dispose,
    .extra_info = tram__socket_extra_info,
};

/* For "peername": it stays readable after the end (T-10). */
static void keep_peer(struct datagram_transport *self, const tram_socket_address *peer) {
    int family = peer ? address_family(peer) : AF_UNSPEC;
    if ((family == AF_INET || family == AF_INET6) && peer->size <= sizeof self->base.peer)
        memcpy(&self->base.peer, &peer->address, peer->size);
    else if (peer)
        tram__socket_keep_peer(&self->base, peer);
}

/* What the kernel is to say of each datagram: what was asked for, and which of all local addresses it came to. */
static int ask_for_details(struct io *io, const struct datagram_setup *setup) {
    tram_socket_address local = {.size = sizeof local.address};
    unsigned details = (setup->receive_ttl ? DATAGRAM_TTL : 0u) | (setup->receive_tos ? DATAGRAM_TOS : 0u);
    if (io->flags & IO_LARGE) /* no UDP */
        return details ? -ENOTSUP : 0;
    if (io->loop->sys->getsockname(io->fd, (struct sockaddr *)&local.address, &local.size) < 0)
        return -errno;
    if (!setup->connected && !tram__address_concrete(&local))
        details |= DATAGRAM_LOCAL;
    return tram__datagrams_ask(io, address_family(&local), details);
}

int tram__datagram_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct datagram_setup *setup,
                       tram_transport **ret_transport) {
    struct datagram_transport *self = tram__memory_get_zero(&loop->allocator, sizeof *self);
    if (!self)
        return -ENOMEM;
    int status = tram__io_add(&self->base.io, loop, &datagram_kind.io, fd);
    if (!status)
        status = tram__datagrams_prepare(&self->base.io, setup->ours);
    if (!status)
        status = ask_for_details(&self->base.io, setup);
    if (status) {
        if (io_added(&self->base.io))
            tram__io_remove(&self->base.io);
        memory_put(&loop->allocator, self, sizeof *self);
        return status;
    }
    self->retry.expire = retry_expired;
    self->connected = setup->connected;
    if (setup->remote)
        self->remote = *setup->remote;
    keep_peer(self, setup->peer);
    tram__transport_begin(&self->base, protocol, setup->creator);
    self->base.flags |= T_HAS_OVERRIDES;
    if (ret_transport)
        *ret_transport = &self->base;
    return 0;
}

/* ---- The public calls ---- */

int tram_transport_sendto(tram_transport *transport, const void *data, size_t size,
                          const tram_socket_address *address) {
    int status = loop_enter(transport->io.loop, __func__);
    if (unlikely(status))
        return status;
    if (!(transport->flags & T_HAS_OVERRIDES) || !transport_kind_of(transport)->calls->sendto)
        return -ENOTSUP;
    return transport_kind_of(transport)->calls->sendto(transport, data, size, address);
}

/* False: no internet address. */
static bool source_of(const tram_socket_address *address, struct io_ancillary *ret_source) {
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    *ret_source = (struct io_ancillary){.interface = 0};
    switch (address_family(address)) {
    case AF_INET:
        memcpy(&ipv4, &address->address, sizeof ipv4);
        memset(&ret_source->local.s6_addr[10], 0xff, 2);
        memcpy(&ret_source->local.s6_addr[12], &ipv4.sin_addr, sizeof ipv4.sin_addr);
        return true;
    case AF_INET6:
        memcpy(&ipv6, &address->address, sizeof ipv6);
        *ret_source = (struct io_ancillary){.local = ipv6.sin6_addr, .interface = ipv6.sin6_scope_id};
        return true;
    default:
        return false;
    }
}

int tram_transport_sendto_from(tram_transport *transport, const void *data, size_t size,
                               const tram_socket_address *address, const tram_socket_address *source) {
    int status = loop_enter(transport->io.loop, __func__);
    if (status)
        return status;
    if (transport_kind_of(transport) != &datagram_kind)
        return -ENOTSUP;
    struct datagram_transport *self = of(transport);
    struct io_ancillary from;
    status = find_destination(self, &address);
    if (status)
        return status;
    if (source &&
        (!source_of(source, &from) || (!self->connected && address_family(source) != address_family(address))))
        return tram__invalid("source");
    return send_to(self, data, size, address, source ? &from : NULL);
}

/* The one whose datagram_received is running, or NULL. */
static const struct datagram_transport *hearing(const tram_transport *transport, const char *function) {
    const struct datagram_transport *self = (const struct datagram_transport *)(const void *)transport;
    if (loop_enter(transport->io.loop, function) || transport_kind_of(transport) != &datagram_kind)
        return NULL;
    return self->hears && !(transport->flags & T_LOST) ? self : NULL;
}

size_t tram_transport_datagram_size(const tram_transport *transport) {
    const struct datagram_transport *self = hearing(transport, __func__);
    return self ? self->full_size : 0;
}

int tram_transport_datagram_ttl(const tram_transport *transport) {
    const struct datagram_transport *self = hearing(transport, __func__);
    return self && self->told ? self->ancillary.ttl : -1;
}

int tram_transport_datagram_tos(const tram_transport *transport) {
    const struct datagram_transport *self = hearing(transport, __func__);
    return self && self->told ? self->ancillary.tos : -1;
}

static void set_host(tram_socket_address *address, const struct io_ancillary *told) {
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    if (address_family(address) == AF_INET) {
        memcpy(&ipv4, &address->address, sizeof ipv4);
        memcpy(&ipv4.sin_addr, &told->local.s6_addr[12], sizeof ipv4.sin_addr);
        memcpy(&address->address, &ipv4, sizeof ipv4);
        return;
    }
    memcpy(&ipv6, &address->address, sizeof ipv6);
    ipv6.sin6_addr = told->local;
    ipv6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&told->local) ? told->interface : 0;
    memcpy(&address->address, &ipv6, sizeof ipv6);
}

int tram_transport_datagram_local(tram_transport *transport, tram_socket_address *ret_address) {
    int status = loop_enter(transport->io.loop, __func__);
    if (status)
        return status;
    const struct datagram_transport *self = hearing(transport, __func__);
    if (!self)
        return transport_kind_of(transport) == &datagram_kind ? TRAM_ESTATE : -ENOTSUP;
    const tram_socket_address *name = tram__socket_extra_info(transport, "sockname");
    if (!name)
        return -ENOMEM;
    *ret_address = *name;
    if (self->told && self->ancillary.has_local)
        set_host(ret_address, &self->ancillary);
    return 0;
}
