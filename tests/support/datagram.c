#include "datagram.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

tram_socket_address address_of(int fd) {
    tram_socket_address address = {.size = sizeof address.address};
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address.address, &address.size), 0);
    return address;
}

int udp_socket(tram_socket_address *ret_address) {
    tram_socket_address any;
    assert_int_equal(tram_socket_address_inet("127.0.0.1", "0", &any), 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&any.address, any.size), 0);
    *ret_address = address_of(fd);
    return fd;
}

void unix_datagram_pair(int ret_fds[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ret_fds), 0);
}

static int give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

int endpoint_try(struct world *world, struct recorder *recorder, const tram_datagram_options *options,
                 tram_future **ret_future) {
    return tram_loop_create_datagram_endpoint(world->loop, give, &recorder->base, options, ret_future);
}

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

tram_transport *endpoint_new(struct world *world, struct recorder *recorder, const tram_datagram_options *options) {
    tram_future *future;
    void *transport = NULL;
    assert_int_equal(endpoint_try(world, recorder, options, &future), 0);
    run_until_true(world, future_is_done, future);
    int status = tram_future_result(future, &transport);
    if (status)
        fail_msg("no endpoint: %s: %s", tram_error_name(status), tram_future_error(future)->detail);
    tram_future_release(future);
    assert_true(recorder->made);
    assert_ptr_equal(tram_transport_get_protocol(transport), &recorder->base);
    return transport;
}

int endpoint_error(struct world *world, const tram_datagram_options *options) {
    tram_future *future;
    int status = tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, options, &future);
    assert_int_equal(status, 0);
    run_until_true(world, future_is_done, future);
    status = tram_future_result(future, NULL);
    tram_future_release(future);
    assert_trace(world, ""); /* the protocol heard nothing, if there was one */
    return status;
}

struct endpoint endpoint_open_with(struct world *world, const tram_datagram_options *options, int peer) {
    struct endpoint endpoint = {.world = world, .recorder = recorder_new(world, NULL), .peer = peer};
    endpoint.transport = endpoint_new(world, endpoint.recorder, options);
    const tram_socket *view = tram_transport_get_extra_info(endpoint.transport, "socket", NULL);
    endpoint.address = address_of(view->fd);
    endpoint.peer_address = address_of(peer);
    world->trace[0] = '\0';
    return endpoint;
}

struct endpoint endpoint_open(struct world *world) {
    tram_socket_address address;
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    return endpoint_open_with(world, &options, udp_socket(&address));
}

struct endpoint endpoint_open_connected(struct world *world) {
    tram_socket_address address;
    struct sockaddr_in inet;
    char port[8];
    int peer = udp_socket(&address);
    memcpy(&inet, &address.address, sizeof inet);
    snprintf(port, sizeof port, "%d", ntohs(inet.sin_port));
    tram_datagram_options options = {.remote_host = "127.0.0.1", .remote_port = port};
    return endpoint_open_with(world, &options, peer);
}

struct endpoint endpoint_open_unix(struct world *world) {
    int fds[2];
    unix_datagram_pair(fds);
    tram_datagram_options options = {.sock = &fds[0]};
    return endpoint_open_with(world, &options, fds[1]);
}

void endpoint_close(struct endpoint *endpoint) {
    tram_protocol *current = endpoint->recorder->base.transport ? &endpoint->recorder->base : NULL;
    if (current && !endpoint->recorder->lost) {
        tram_transport_abort(endpoint->transport);
        run_until(endpoint->world, &endpoint->recorder->was_released);
    }
    if (endpoint->peer >= 0)
        close(endpoint->peer);
    endpoint->peer = -1;
}

static bool has_name(const tram_socket_address *address) {
    return address->address.ss_family != AF_UNIX;
}

int send_pattern(struct endpoint *endpoint, size_t size, size_t offset) {
    char *bytes = calloc(1, size ? size : 1);
    pattern(bytes, size, offset);
    const tram_socket_address *peer = has_name(&endpoint->peer_address) ? &endpoint->peer_address : NULL;
    int status = tram_transport_sendto(endpoint->transport, bytes, size, peer);
    memset(bytes, 0xee, size); /* the caller's memory is free for reuse */
    free(bytes);
    return status;
}

static bool peer_has_some(void *arg) {
    struct pollfd poll_fd = {.fd = ((struct endpoint *)arg)->peer, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0;
}

void expect_pattern(struct endpoint *endpoint, size_t size, size_t offset) {
    static char bytes[1 << 20];
    if (!peer_has_some(endpoint))
        run_until_true(endpoint->world, peer_has_some, endpoint);
    assert_int_equal(peer_takes(endpoint, bytes, sizeof bytes), size);
    assert_pattern(bytes, size, offset);
}

void peer_sends(struct endpoint *endpoint, size_t size, size_t offset) {
    char *bytes = calloc(1, size ? size : 1);
    pattern(bytes, size, offset);
    const tram_socket_address *to = &endpoint->address;
    bool named = has_name(to);
    assert_int_equal(sendto(endpoint->peer, bytes, size, 0, named ? (const struct sockaddr *)&to->address : NULL,
                            named ? to->size : 0),
                     size);
    free(bytes);
}

ssize_t peer_takes(struct endpoint *endpoint, void *bytes, size_t size) {
    return recv(endpoint->peer, bytes, size, MSG_DONTWAIT);
}
