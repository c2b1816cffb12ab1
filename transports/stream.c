/* The stream transport over a connected socket. */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#include "transports/stream.h"

/* ---- What the poller reports ---- */

static inline tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

/* EOF or an error; the rare ends of a read. */
static void ended(tram_transport *transport, ssize_t result) {
    if (result < 0) {
        tram__transport_fatal(transport, (int)result, "recv", NULL);
        return;
    }
    transport->flags |= T_EOF;
    tram__io_receive_stop(&transport->io);
    int keep_open = tram__protocol_eof(transport);
    if (unlikely(keep_open < 0))
        tram__transport_fail(transport, keep_open);
    else if (keep_open == 0)
        tram__transport_close(transport);
}

static void plain_received(struct io *io, void *data, ssize_t result) {
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_received(transport, data, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
}

static int buffered_buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    tram_transport *transport = transport_of(io);
    const tram_protocol *protocol = transport->protocol;
    int status = tram__protocol_get_buffer(transport, ret_memory, ret_size);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
    /*
     * get_buffer may have closed, paused or switched: then this read does not happen. The memory would be the old
     * protocol's, and buffer_updated the new one's.
     */
    if (status < 0 || !(io->wanted & IO_READ) || transport->protocol != protocol)
        return -ECANCELED;
    return 0;
}

static void buffered_received(struct io *io, void *data, ssize_t result) {
    (void)data;
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_buffer_updated(transport, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
}

static size_t gather(struct io *io, struct iovec *pieces, size_t count) {
    return tram__write_queue_gather(&transport_of(io)->queue, pieces, count);
}

static void sent(struct io *io, ssize_t result) {
    tram__transport_sent(transport_of(io), result);
}

static void ending(struct io *io, enum io_ending how) {
    tram__transport_ending(transport_of(io), how);
}

/* ---- Ends and addresses ---- */

static int end_writing(tram_transport *transport) {
    return transport->io.loop->sys->shutdown(transport->io.fd, SHUT_WR) < 0 ? -errno : 0;
}

/* The local address, asked for once and then kept. NULL: not to be had. */
static const tram_socket_address *sockname(tram_transport *transport) {
    tram_loop *loop = transport->io.loop;
    if (transport->sockname || transport->io.fd < 0)
        return transport->sockname;
    tram_socket_address *address = tram__memory_get_zero(&loop->allocator, sizeof *address);
    if (!address)
        return NULL;
    address->size = sizeof address->address;
    if (loop->sys->getsockname(transport->io.fd, (struct sockaddr *)&address->address, &address->size) < 0) {
        memory_put(&loop->allocator, address, sizeof *address);
        return NULL;
    }
    transport->sockname = address;
    return address;
}

void tram__socket_end(tram_transport *transport) {
    tram_loop *loop = transport->io.loop;
    int fd = transport->io.fd;
    if (transport->holds > 1)
        sockname(transport); /* whoever holds it may ask later (T-10) */
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    loop->sys->close(fd);
}

static void drop_queue(tram_transport *transport) {
    tram__write_queue_clear(transport->io.loop, &transport->queue);
}

struct extra_values {
    tram_socket socket;
    tram_socket_address peer;
};

static int socket_option(const tram_transport *transport, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    if (transport->io.fd >= 0)
        transport->io.loop->sys->getsockopt(transport->io.fd, SOL_SOCKET, name, &value, &size);
    return value;
}

static const void *peername(tram_transport *transport, struct extra_values *values) {
    tram_socket_address *peer = &values->peer;
    memset(peer, 0, sizeof *peer);
    if (transport->peer.sin6_family) {
        bool six = transport->peer.sin6_family == AF_INET6;
        peer->size = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        memcpy(&peer->address, &transport->peer, peer->size);
        return peer;
    }
    peer->size = sizeof peer->address;
    int fd = transport->io.fd;
    if (fd < 0 || transport->io.loop->sys->getpeername(fd, (struct sockaddr *)&peer->address, &peer->size) < 0)
        return NULL;
    return peer;
}

const void *tram__socket_extra_info(tram_transport *transport, const char *name) {
    tram_loop *loop = transport->io.loop;
    if (!loop->extra_info) {
        loop->extra_info = memory_get(&loop->allocator, sizeof(struct extra_values));
        loop->extra_info_size = sizeof(struct extra_values);
    }
    struct extra_values *values = loop->extra_info;
    if (!values)
        return NULL;
    if (strcmp(name, "peername") == 0)
        return peername(transport, values);
    if (strcmp(name, "sockname") == 0)
        return sockname(transport);
    if (strcmp(name, "socket") != 0)
        return NULL;
    values->socket = (tram_socket){
        .fileno = transport->io.fd,
        .family = socket_option(transport, SO_DOMAIN),
        .type = socket_option(transport, SO_TYPE),
        .protocol = socket_option(transport, SO_PROTOCOL),
    };
    return &values->socket;
}

static const struct transport_kind plain_kind, buffered_kind;

#define STREAM_KIND(how, buffer_function)                                                                              \
    {                                                                                                                  \
        .io = {.name = "stream",                                                                                       \
               .transport = true,                                                                                      \
               .buffer = buffer_function,                                                                              \
               .received = how##_received,                                                                             \
               .gather = gather,                                                                                       \
               .sent = sent,                                                                                           \
               .ending = ending},                                                                                      \
        .plain = &plain_kind, .buffered = &buffered_kind, .can_write_eof = true, .drop_queue = drop_queue,             \
        .end_writing = end_writing, .end = tram__socket_end, .extra_info = tram__socket_extra_info,                    \
    }

static const struct transport_kind plain_kind = STREAM_KIND(plain, NULL);
static const struct transport_kind buffered_kind = STREAM_KIND(buffered, buffered_buffer);

/* ---- Making one ---- */

/*
 * The peer's address, where it fits: later the kernel may have forgotten it, since after a reset nobody is connected
 * any more. Of other families it is asked when someone wants to know.
 */
static void keep_peer(tram_transport *transport, const struct stream_options *options) {
    struct sockaddr_storage asked = {0};
    const struct sockaddr_storage *peer = options->peer;
    socklen_t size = options->peer_size;
    if (!peer) {
        size = sizeof asked;
        if (transport->io.loop->sys->getpeername(transport->io.fd, (struct sockaddr *)&asked, &size) < 0)
            return;
        peer = &asked;
    }
    if ((peer->ss_family == AF_INET || peer->ss_family == AF_INET6) && size <= sizeof transport->peer)
        memcpy(&transport->peer, peer, size);
}

static void set_no_delay(tram_transport *transport, const struct stream_options *options) {
    if (options->no_delay_set)
        return;
    int family = transport->peer.sin6_family ? transport->peer.sin6_family : socket_option(transport, SO_DOMAIN);
    int on = 1;
    if (family == AF_INET || family == AF_INET6)
        transport->io.loop->sys->setsockopt(transport->io.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int tram__stream_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct stream_options *options,
                     tram_transport **ret_transport) {
    if (unlikely(!loop->transport_pool.allocator)) {
        tram__pool_init(&loop->transport_pool, &loop->allocator, sizeof(tram_transport));
    }
    tram_transport *transport = pool_get(&loop->transport_pool);
    if (!transport)
        return -ENOMEM;
    memset(transport, 0, sizeof *transport);
    int status = tram__io_add(&transport->io, loop, &plain_kind.io, fd);
    if (status) {
        pool_put(&loop->transport_pool, transport);
        return status;
    }
    keep_peer(transport, options);
    set_no_delay(transport, options);
    tram__transport_begin(transport, protocol, options->owner, options->creator);
    if (ret_transport)
        *ret_transport = transport;
    return 0;
}
