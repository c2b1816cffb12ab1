/*
 * A SOCKS5 proxy on all cores (RFC 1928): CONNECT to names and addresses, without authentication.
 *
 *     $ curl --proxy socks5h://127.0.0.1:1080 http://example.org/
 *
 * What a client says is parsed out of an input; then tram_bridge() couples it with the connection that it asked for. A
 * client that does not get that far within ten seconds is let go.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { VERSION = 5, NO_AUTHENTICATION = 0, NO_METHOD = 0xff, CONNECT = 1 };
enum { ADDRESS_IPV4 = 1, ADDRESS_NAME = 3, ADDRESS_IPV6 = 4 };
enum { GRANTED = 0, FAILURE = 1, UNREACHABLE = 4, REFUSED = 5, NO_SUCH_COMMAND = 7, NO_SUCH_ADDRESS = 8 };
enum { MESSAGE_MAX = 512 };

static const uint64_t handshake_ns = 10000000000;

/* A client and the connection that it asked for, until they are coupled. */
typedef struct link {
    tram_protocol client, target;
    tram_input input;
    bool greeted;
    tram_future *connecting;
    char host[256];
    char port[8];
    int users; /* the two protocols and the connecting; the last one frees */
} link;

static void link_drop(link *self) {
    if (--self->users > 0)
        return;
    tram_input_fini(&self->input);
    free(self);
}

/* ---- Answers ---- */

/* With the address from which the proxy connects; zeros where it does not. */
static int answer(link *self, int code) {
    tram_socket_address address = {.size = 0};
    if (self->target.transport)
        tram_transport_sockname(self->target.transport, &address);
    const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)(const void *)&address.address;
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)&address.address;
    bool is_ipv6 = address.address.ss_family == AF_INET6;
    tram_output output;
    tram_output_begin(&output, self->client.transport);
    tram_output_byte(&output, VERSION);
    tram_output_byte(&output, (unsigned char)code);
    tram_output_byte(&output, 0);
    tram_output_byte(&output, is_ipv6 ? ADDRESS_IPV6 : ADDRESS_IPV4);
    tram_output_bytes(&output, is_ipv6 ? (const void *)&ipv6->sin6_addr : &ipv4->sin_addr, is_ipv6 ? 16 : 4);
    tram_output_bytes(&output, is_ipv6 ? &ipv6->sin6_port : &ipv4->sin_port, 2);
    return tram_output_send(&output);
}

static int refuse(link *self, int code) {
    answer(self, code);
    return tram_transport_close(self->client.transport);
}

static int code_of(int status) {
    return status == -ECONNREFUSED                              ? REFUSED
           : status == TRAM_ERESOLVE || status == -EHOSTUNREACH ? UNREACHABLE
                                                                : FAILURE;
}

/* ---- The connection that was asked for ---- */

static void target_released(tram_protocol *protocol) {
    link_drop((link *)(void *)((char *)protocol - offsetof(link, target)));
}

static int target_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.released = target_released};
    (void)loop;
    link *self = (link *)arg;
    self->users++;
    self->target.ops = &ops;
    *ret_protocol = &self->target;
    return 0;
}

/* What the client has sent already goes first. */
static int couple(link *self) {
    tram_transport *client = self->client.transport, *target = self->target.transport;
    tram_bytes early;
    int status = answer(self, GRANTED);
    tram_transport_call_later(client, TRAM_FOREVER, NULL, NULL);
    tram_input_resume(&self->input);
    while (!status && !tram_input_some(&self->input, SIZE_MAX, &early))
        status = tram_transport_write(target, early.data, early.size);
    return status ? status : tram_bridge(client, target, NULL, NULL);
}

static int connected(tram_future *future, void *arg) {
    link *self = (link *)arg;
    tram_transport *client = self->client.transport, *target = self->target.transport; /* NULL: gone */
    int status = tram_future_result(future, NULL);
    if (client && target && !status)
        status = couple(self);
    else if (client)
        refuse(self, code_of(status ? status : -ECONNREFUSED));
    if (status && target)
        tram_transport_abort(target);
    tram_future_release(future);
    self->connecting = NULL;
    link_drop(self);
    return 0;
}

static int begin_connecting(link *self) {
    tram_loop *loop = tram_transport_get_loop(self->client.transport);
    int status =
        tram_loop_create_connection(loop, target_factory, self, self->host, self->port, NULL, &self->connecting);
    if (status)
        return refuse(self, FAILURE);
    self->users++;
    tram_input_pause(&self->input);
    return tram_future_add_done_callback(self->connecting, connected, self);
}

/* ---- What a client says ---- */

/* The version, and which methods of authentication it has. */
static int parse_greeting(link *self) {
    tram_bytes begin, methods;
    int status = tram_input_take(&self->input, 2, &begin);
    if (!status && begin.data[0] != VERSION)
        return -EPROTO;
    if (!status)
        status = tram_input_take(&self->input, (unsigned char)begin.data[1], &methods);
    if (status)
        return status;
    bool can = methods.size && memchr(methods.data, NO_AUTHENTICATION, methods.size);
    const unsigned char chosen[2] = {VERSION, can ? NO_AUTHENTICATION : NO_METHOD};
    self->greeted = true;
    status = tram_transport_write(self->client.transport, chosen, sizeof chosen);
    return status || can ? status : tram_transport_close(self->client.transport);
}

/* How many bytes an address has; a name says it itself. 0: there is no such kind. */
static size_t address_size(char kind, char first) {
    return kind == ADDRESS_IPV4 ? 4 : kind == ADDRESS_IPV6 ? 16 : kind == ADDRESS_NAME ? (unsigned char)first : 0;
}

static void copy_host(link *self, char kind, tram_bytes address) {
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    tram_socket_address text = {.size = sizeof ipv6};
    const unsigned char *byte = (const unsigned char *)address.data;
    if (kind == ADDRESS_IPV4) {
        snprintf(self->host, sizeof self->host, "%u.%u.%u.%u", byte[0], byte[1], byte[2], byte[3]);
    } else if (kind == ADDRESS_NAME) {
        memcpy(self->host, address.data, address.size);
        self->host[address.size] = '\0';
    } else {
        char bracketed[TRAM_ADDRESS_TEXT_SIZE]; /* "[::1]:0" */
        memcpy(&ipv6.sin6_addr, address.data, address.size);
        memcpy(&text.address, &ipv6, sizeof ipv6);
        tram_socket_address_text(&text, bracketed, sizeof bracketed);
        snprintf(self->host, sizeof self->host, "%.*s", (int)strcspn(bracketed + 1, "]"), bracketed + 1);
    }
}

/* The command, and where to. Parts of a message are taken back where a later one is not there yet. */
static int parse_request(link *self) {
    tram_bytes begin, address, port;
    int status = tram_input_take(&self->input, 5, &begin);
    if (status)
        return status;
    if (begin.data[0] != VERSION)
        return -EPROTO;
    char command = begin.data[1], kind = begin.data[3];
    size_t size = address_size(kind, begin.data[4]);
    if (!size)
        return refuse(self, NO_SUCH_ADDRESS);
    tram_input_rewind(&self->input); /* the fifth byte is the first of an address, unless that is a name */
    tram_input_consume(&self->input, kind == ADDRESS_NAME ? 5 : 4);
    status = tram_input_take(&self->input, size, &address);
    if (!status)
        status = tram_input_take(&self->input, 2, &port);
    if (status)
        return status;
    if (command != CONNECT)
        return refuse(self, NO_SUCH_COMMAND);
    copy_host(self, kind, address);
    snprintf(self->port, sizeof self->port, "%u", (unsigned char)port.data[0] << 8 | (unsigned char)port.data[1]);
    return begin_connecting(self);
}

static int parse(tram_protocol *protocol, tram_input *input) {
    link *self = (link *)protocol;
    int status = 0;
    while (!status) {
        tram_input_mark(input);
        status = self->greeted ? parse_request(self) : parse_greeting(self);
        if (status == -EAGAIN)
            tram_input_rewind(input);
    }
    return status;
}

/* ---- A client ---- */

static int client_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    return tram_transport_call_later(transport, handshake_ns, NULL, NULL);
}

static int client_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_input_feed(&((link *)protocol)->input, data, size);
}

/* A request that came is answered; what follows then ends by itself. */
static int client_closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)deadline_ns;
    return tram_input_end(&((link *)protocol)->input);
}

static int client_lost(tram_protocol *protocol, const tram_error *error) {
    link *self = (link *)protocol;
    (void)error;
    if (self->connecting)
        tram_future_cancel(self->connecting);
    return 0;
}

static void client_released(tram_protocol *protocol) {
    link_drop((link *)protocol);
}

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.connection_made = client_made,
                                          .data_received = client_received,
                                          .connection_lost = client_lost,
                                          .released = client_released,
                                          .closing = client_closing};
    (void)arg;
    link *self = (link *)calloc(1, sizeof *self);
    if (!self)
        return -ENOMEM;
    self->users = 1;
    self->client.ops = &ops;
    *ret_protocol = &self->client;
    tram_input_options options = {.limit = MESSAGE_MAX, .loop = loop, .protocol = &self->client, .parse = parse};
    return tram_input_init(&self->input, &options);
}

int main(int argc, char **argv) {
    tram_serve_options options = {
        .name = "socks5-proxy", .summary = "a SOCKS5 proxy (CONNECT, no authentication)", .port = "1080"};
    return tram_serve_main(argc, argv, client_factory, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
}
