/* The calls of users on a server that have no future: closing it, and what can be known of it. */
#include "core/base/invalid.h"
#include "transports/server/server.h"

/* A server may be held longer than its loop lives. */
static int enter(const tram_server *server, const char *function) {
    return server->loop ? loop_enter(server->loop, function) : TRAM_ESTATE;
}

int tram_server_close(tram_server *server) {
    int status = server->loop ? loop_enter(server->loop, __func__) : 0;
    if (!status)
        tram__server_shut(server, true);
    return status;
}

tram_server *tram_server_hold(tram_server *server) {
    if (!server->loop || loop_enter(server->loop, __func__) == 0)
        server->holds++;
    return server;
}

void tram_server_release(tram_server *server) {
    if (server && (!server->loop || loop_enter(server->loop, __func__) == 0))
        tram__server_put(server);
}

static void close_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram__transport_close_gracefully(transport);
}

static void abort_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram__transport_note_end(transport, END_STOP); /* lost(0) all the same: it is the user's call */
    tram_transport_abort(transport);
}

int tram_server_close_clients(tram_server *server) {
    int status = enter(server, __func__);
    if (!status)
        tram__transport_each(server->loop, &server->owner, close_client, NULL);
    return status;
}

int tram_server_abort_clients(tram_server *server) {
    int status = enter(server, __func__);
    if (!status)
        tram__transport_each(server->loop, &server->owner, abort_client, NULL);
    return status;
}

bool tram_server_is_serving(const tram_server *server) {
    return enter(server, __func__) == 0 && server->life == SERVER_SERVING;
}

tram_loop *tram_server_get_loop(const tram_server *server) {
    return server->loop;
}

size_t tram_server_connection_count(const tram_server *server) {
    return enter(server, __func__) == 0 ? server->connections : 0;
}

int tram_server_limit_counts(const tram_server *server, tram_limit_counts *ret_counts) {
    tram__limits_read(server->tally, ret_counts);
    return 0;
}

size_t tram_server_sockets(const tram_server *server, tram_socket *ret_sockets, size_t count) {
    if (enter(server, __func__) || !server->listeners)
        return 0;
    const struct listeners *listeners = server->listeners;
    for (size_t i = 0; i < listeners->count && i < count; i++) {
        const struct listener *listener = &listeners->items[i];
        int family = address_family(&listener->address);
        ret_sockets[i] = (tram_socket){
            .fd = listener->io.fd,
            .family = family,
            .type = SOCK_STREAM,
            .protocol = family == AF_INET || family == AF_INET6 ? IPPROTO_TCP : 0,
        };
    }
    return listeners->count;
}

int tram_server_sockname(const tram_server *server, size_t index, tram_socket_address *ret_address) {
    int status = enter(server, __func__);
    if (status)
        return status;
    if (!server->listeners || index >= server->listeners->count)
        return tram__invalid("index");
    *ret_address = server->listeners->items[index].address;
    return 0;
}

int tram_server_set_user(tram_server *server, void *user) {
    int status = server->loop ? loop_enter(server->loop, __func__) : 0;
    if (!status)
        server->user = user;
    return status;
}

void *tram_server_user(const tram_server *server) {
    return server->user;
}
