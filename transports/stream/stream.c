/* The stream transport over a connected socket. */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#include "transports/base/held.h"
#include "transports/base/receiver.h"
#include "transports/base/state.h"
#include "transports/socket/socket.h"
#include "transports/stream/bytes.h"
#include "transports/stream/descriptors.h"
#include "transports/stream/stream.h"
#include <tram/unix.h>

/* ---- Ends and addresses ---- */

/* The peer has finished; what to do about our side is the protocol's decision. */
static void eof(tram_transport *transport) {
    transport->flags |= T_EOF;
    tram__io_receive_stop(&transport->io);
    int keep_open = tram__protocol_eof(transport);
    if (unlikely(keep_open < 0))
        tram__transport_fail(transport, keep_open);
    else if (keep_open == 0)
        tram__transport_close(transport);
}

static struct exclusive_writer *writer_of(struct io *io) {
    return transport_writer((tram_transport *)(void *)io);
}

static void next_range(struct io *io, struct io_range *ret_range) {
    writer_of(io)->next_range(writer_of(io), ret_range);
}

static void range_sent(struct io *io, ssize_t result) {
    if (result > 0)
        transport_moved((tram_transport *)(void *)io, TRAFFIC_OUT);
    writer_of(io)->range_sent(writer_of(io), result);
}

/*
 * Where the peer has finished, and where a bridge waits for its other side, no read would ever find the error. Whoever
 * paused reading by himself reads first what came before it.
 */
static bool hears_errors(const struct io *io) {
    const tram_transport *transport = (const tram_transport *)(const void *)io;
    return !(transport->flags & T_LOST_PENDING) && transport->flags & (T_EOF | T_BRIDGED);
}

static int end_writing(tram_transport *transport) {
    return transport->io.loop->sys->shutdown(transport->io.fd, SHUT_WR) < 0 ? -errno : 0;
}

void tram__socket_keep_peer(tram_transport *transport, const tram_socket_address *peer) {
    struct transport_addresses *addresses = tram__transport_addresses(transport);
    if (addresses)
        addresses->peer = *peer;
}

/* An address that is asked for once and then kept. NULL: not to be had. */
static const tram_socket_address *fetch(tram_transport *transport, bool of_peer) {
    const struct sys *sys = transport->io.loop->sys;
    struct transport_addresses *addresses = tram__transport_addresses(transport);
    if (!addresses)
        return NULL;
    tram_socket_address *address = of_peer ? &addresses->peer : &addresses->sock;
    if (!address->size && transport->io.fd >= 0) {
        socklen_t size = sizeof address->address;
        int (*ask)(int, struct sockaddr *, socklen_t *) = of_peer ? sys->getpeername : sys->getsockname;
        if (ask(transport->io.fd, (struct sockaddr *)&address->address, &size) == 0)
            address->size = size;
    }
    return address->size ? address : NULL;
}

void tram__socket_end(tram_transport *transport) {
    tram_loop *loop = transport->io.loop;
    int fd = transport->io.fd;
    if (transport->holds > 1) { /* whoever holds it may ask later (T-10) */
        fetch(transport, false);
        if (!transport->peer.sin6_family)
            fetch(transport, true);
    }
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    if (transport->flags & T_NOT_OURS)
        return;
    if (unlikely(transport->flags & T_RESET)) {
        struct linger linger = {.l_onoff = 1};
        loop->sys->setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        loop->sys->close(fd);
        return;
    }
    /* Closing what has unread bytes resets the connection: the end of the stream goes first (V-42). */
    if ((transport->flags & (T_SERVER_CLOSE | T_EOF)) == T_SERVER_CLOSE)
        loop->sys->shutdown(fd, SHUT_WR);
    if (unlikely(transport->flags & T_FD_KNOWN))
        tram__socket_close(loop->sys, fd);
    else
        loop->sys->close(fd);
}

struct extra_values {
    struct loop_state state;
    tram_socket socket;
    tram_peer_credentials credentials;
    tram_socket_address peer;
};

static int socket_option(const tram_transport *transport, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    if (transport->io.fd >= 0)
        transport->io.loop->sys->getsockopt(transport->io.fd, SOL_SOCKET, name, &value, &size);
    return value;
}

/* One that is known otherwise, as from a header of the PROXY protocol, comes before the address of who connected. */
static bool keeps_other_peer(const tram_transport *transport) {
    return transport->more && transport->more->addresses && transport->more->addresses->peer.size;
}

/* A Unix peer without a name has an address that is nothing but its family (U-7). */
static const void *peername(tram_transport *transport, struct extra_values *values) {
    tram_socket_address *peer = &values->peer;
    sa_family_t family = transport->peer.sin6_family;
    if (!family || keeps_other_peer(transport))
        return fetch(transport, true);
    memset(peer, 0, sizeof *peer);
    peer->size = family == AF_UNIX    ? sizeof(sa_family_t)
                 : family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                      : sizeof(struct sockaddr_in);
    memcpy(&peer->address, &transport->peer, peer->size);
    return peer;
}

/* Who connected, or listened, as the kernel saw it then. Other families do not tell. */
static const void *peer_credentials(const tram_transport *transport, struct extra_values *values) {
    struct ucred found;
    socklen_t size = sizeof found;
    if (socket_option(transport, SO_DOMAIN) != AF_UNIX ||
        transport->io.loop->sys->getsockopt(transport->io.fd, SOL_SOCKET, SO_PEERCRED, &found, &size) < 0)
        return NULL;
    values->credentials = (tram_peer_credentials){.pid = found.pid, .uid = found.uid, .gid = found.gid};
    return &values->credentials;
}

const void *tram__socket_extra_info(tram_transport *transport, const char *name) {
    struct extra_values *values =
        tram__loop_slot_open(transport->io.loop, TRANSPORT_SLOT_EXTRA_INFO, sizeof *values, NULL);
    if (!values)
        return NULL;
    if (strcmp(name, "peername") == 0)
        return peername(transport, values);
    if (strcmp(name, "sockname") == 0)
        return fetch(transport, false);
    if (strcmp(name, "peercred") == 0)
        return peer_credentials(transport, values);
    if (strcmp(name, "socket") != 0)
        return NULL;
    transport->flags |= T_FD_KNOWN;
    values->socket = (tram_socket){
        .fd = transport->io.fd,
        .family = socket_option(transport, SO_DOMAIN),
        .type = socket_option(transport, SO_TYPE),
        .protocol = socket_option(transport, SO_PROTOCOL),
    };
    return &values->socket;
}

static bool start_tls_compatible(const tram_transport *transport) {
    (void)transport;
    return true;
}

const struct transport_kind tram__stream_kind = {
    .io = {.name = "stream",
           .transport = true,
           .receiver = &tram__receiver_plain,
           .gather = tram__bytes_gather,
           .sent = tram__bytes_sent,
           .descriptors = &tram__stream_descriptors,
           .next_range = next_range,
           .range_sent = range_sent,
           .hears_errors = hears_errors,
           .ending = tram__bytes_ending},
    .can_write_eof = true,
    .lingers = true,
    .detachable = true,
    .sendfile = SENDFILE_NATIVE,
    .buffered = &tram__receiver_buffered,
    .eof = eof,
    .drop_queue = tram__bytes_drop_queue,
    .end_writing = end_writing,
    .end = tram__socket_end,
    .extra_info = tram__socket_extra_info,
    .start_tls_compatible = start_tls_compatible,
};

/* ---- Making one of a socket that nobody accepted here ---- */

static void ask_for_peer(tram_loop *loop, int fd, struct sockaddr_storage *peer,
                         struct transport_options *ret_options) {
    socklen_t size = sizeof *peer;
    if (loop->sys->getpeername(fd, (struct sockaddr *)peer, &size) < 0)
        return;
    ret_options->peer = peer;
    ret_options->peer_size = size;
}

static void set_no_delay(tram_transport *transport) {
    int family = transport->peer.sin6_family ? transport->peer.sin6_family : socket_option(transport, SO_DOMAIN);
    int on = 1;
    if (family == AF_INET || family == AF_INET6)
        transport->io.loop->sys->setsockopt(transport->io.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void give_held(tram_transport *transport, struct transport_more *more, struct held *held) {
    more->transport = transport;
    transport->more = more;
    tram__transport_give_held(transport, held, false);
}

int tram__stream_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct stream_options *options,
                     tram_transport **ret_transport) {
    struct sockaddr_storage peer = {0};
    struct transport_options how = {
        .peer = options->peer, .peer_size = options->peer_size, .creator = options->creator};
    struct transport_more *more = options->held ? tram__transport_more_new(loop) : NULL; /* a place for them */
    if (options->held && !more)
        return -ENOMEM;
    if (!how.peer)
        ask_for_peer(loop, fd, &peer, &how);
    int status = tram__transport_new(loop, &tram__stream_kind, fd, protocol, &how, ret_transport);
    if (status) {
        memory_put(&loop->allocator, more, sizeof *more);
        return status;
    }
    set_no_delay(*ret_transport);
    (*ret_transport)->flags |= T_FD_KNOWN; /* it may have been given */
    if (more)
        give_held(*ret_transport, more, options->held);
    return 0;
}
