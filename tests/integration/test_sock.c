/* Operations on plain sockets (docs/rules.md, O-1 to O-15). */
#include "support/faults.h"
#include "support/stream.h"
#include "support/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/loop/loop.h"

/* ---- Helpers ---- */

struct wait {
    struct world *world;
    const char *name;
    bool done;
    int status;
};

static int note_done(tram_future *future, void *arg) {
    struct wait *wait = arg;
    wait->done = true;
    wait->status = tram_future_result(future, NULL);
    trace(wait->world, "%s:%s", wait->name, wait->status ? tram_error_name(wait->status) : "ok");
    return 0;
}

static void await_callback(struct wait *wait, tram_future *future) {
    assert_int_equal(tram_future_add_done_callback(future, note_done, wait), 0);
}

/* Runs until the future is done; its status. */
static int outcome(struct world *world, tram_future *future, void **ret_value) {
    struct wait wait = {.world = world, .name = "outcome"};
    await_callback(&wait, future);
    run_until(world, &wait.done);
    size_t length = strlen(world->trace), word = strlen(strrchr(world->trace, ':')) + strlen("outcome");
    world->trace[length > word ? length - word - 1 : 0] = '\0';
    return tram_future_result(future, ret_value);
}

static const tram_sock_data *expect_data(struct world *world, tram_future *future) {
    void *value = NULL;
    assert_int_equal(outcome(world, future, &value), 0);
    const tram_sock_data *data = value;
    assert_non_null(data);
    assert_non_null(data->data); /* of nothing, too */
    return data;
}

static size_t expect_count(struct world *world, tram_future *future) {
    void *value = NULL;
    assert_int_equal(outcome(world, future, &value), 0);
    return (size_t)(uintptr_t)value;
}

static void expect_error(struct world *world, tram_future *future, int code, const char *operation) {
    assert_int_equal(outcome(world, future, NULL), code);
    assert_string_equal(tram_future_error(future)->operation, operation);
    tram_future_release(future);
}

static tram_future *recv_on(struct world *world, int fd, size_t size) {
    tram_future *future = NULL;
    assert_int_equal(tram_loop_sock_recv(world->loop, fd, size, &future), 0);
    return future;
}

static void udp_pair(int ret_fds[2], struct sockaddr_in ret_names[2]) {
    for (int i = 0; i < 2; i++) {
        ret_fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        ret_names[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        assert_int_equal(bind(ret_fds[i], (struct sockaddr *)&ret_names[i], sizeof ret_names[i]), 0);
        socklen_t size = sizeof ret_names[i];
        assert_int_equal(getsockname(ret_fds[i], (struct sockaddr *)&ret_names[i], &size), 0);
    }
}

static tram_socket_address address_of(const void *address, size_t size) {
    tram_socket_address result = {.size = (socklen_t)size};
    memcpy(&result.address, address, size);
    return result;
}

static void close_pair(int pair[2]) {
    close(pair[0]);
    close(pair[1]);
}

static bool nothing_registered(struct world *world, int fd) {
    return tram_loop_remove_reader(world->loop, fd) == 0 && tram_loop_remove_writer(world->loop, fd) == 0;
}

/* All nine on one descriptor; each must fail with `code` at once. */
static void assert_all_refuse(struct world *world, int fd, int code) {
    tram_loop *loop = world->loop;
    tram_future *future = NULL;
    char memory[8] = "1234567";
    struct sockaddr_in somebody = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = 1};
    tram_socket_address address = address_of(&somebody, sizeof somebody);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(tram_loop_sock_recv(loop, fd, 8, &future), code);
    assert_int_equal(tram_loop_sock_recv_into(loop, fd, memory, 8, &future), code);
    assert_int_equal(tram_loop_sock_recvfrom(loop, fd, 8, &future), code);
    assert_int_equal(tram_loop_sock_recvfrom_into(loop, fd, memory, 8, 0, &future), code);
    assert_int_equal(tram_loop_sock_sendall(loop, fd, memory, 8, &future), code);
    assert_int_equal(tram_loop_sock_sendto(loop, fd, memory, 8, &address, &future), code);
    assert_int_equal(tram_loop_sock_connect(loop, fd, "127.0.0.1", "1", &future), code);
    assert_int_equal(tram_loop_sock_connect_address(loop, fd, &address, &future), code);
    assert_int_equal(tram_loop_sock_accept(loop, fd, &future), code);
    assert_int_equal(tram_loop_sock_sendfile(loop, fd, file, 0, 8, NULL, &future), code);
    close(file);
    assert_null(future);
}

/* ---- The rules ---- */

static void test_O_1_O_13_a_conversation_on_sockets_of_the_user(void **state) {
    struct world *world = *state;
    tram_loop *loop = world->loop;
    uint16_t port;
    int listener = tcp_listener(5, &port);
    set_blocking(listener, false);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char text[8];
    snprintf(text, sizeof text, "%u", port);

    tram_future *accepting, *connecting, *sending;
    assert_int_equal(tram_loop_sock_accept(loop, listener, &accepting), 0);
    assert_int_equal(tram_future_fd(accepting), TRAM_ESTATE);
    assert_int_equal(tram_loop_sock_connect(loop, client, "127.0.0.1", text, &connecting), 0);
    void *peer;
    assert_int_equal(outcome(world, accepting, &peer), 0);
    assert_int_equal(outcome(world, connecting, NULL), 0);
    int server = tram_future_fd(accepting);
    assert_true(server >= 0);
    assert_int_equal(tram_future_fd(accepting), TRAM_ESTATE);
    assert_int_equal(tram_future_fd(connecting), TRAM_ETYPE);
    assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    getsockname(client, (struct sockaddr *)&name, &size);
    assert_int_equal(((const tram_socket_address *)peer)->size, sizeof name);
    assert_memory_equal(&((const tram_socket_address *)peer)->address, &name, sizeof name);

    tram_future *receiving = recv_on(world, server, 100);
    assert_int_equal(tram_loop_sock_sendall(loop, client, "hello", 5, &sending), 0);
    const tram_sock_data *data = expect_data(world, receiving);
    assert_int_equal(data->size, 5);
    assert_memory_equal(data->data, "hello", 5);
    assert_int_equal(data->address.size, 0);
    assert_int_equal(outcome(world, sending, NULL), 0);
    tram_future_release(accepting);
    tram_future_release(connecting);
    tram_future_release(receiving);
    tram_future_release(sending);
    close(listener);
    close(client);
    close(server);
}

static void test_O_13_a_connection_that_nobody_took_is_closed_with_its_future(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    uint16_t port;
    int listener = tcp_listener(5, &port);
    set_blocking(listener, false);
    int client = tcp_connect(port);
    tram_future *future;
    assert_int_equal(tram_loop_sock_accept(world->loop, listener, &future), 0);
    assert_true(tram_future_done(future));
    tram_future_release(future);
    char byte;
    assert_int_equal(read(client, &byte, 1), 0);
    /* Nobody even waits for it. */
    assert_int_equal(tram_loop_sock_accept(world->loop, listener, NULL), 0);
    int second = tcp_connect(port);
    run_to_rest(world);
    assert_int_equal(read(second, &byte, 1), 0);
    close(client);
    close(second);
    close(listener);
}

/* The number 0 is free, and one of the first sockets that the library opens gets it: here they are all accepted. */
static void test_O_13_an_accepted_socket_may_be_descriptor_0(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    uint16_t port;
    int first = tcp_listener(5, &port), listener = fcntl(first, F_DUPFD_CLOEXEC, 3), accepted = -1;
    close(first);
    set_blocking(listener, false);
    for (int i = 0; i < 3 && accepted; i++) {
        int connected = tcp_connect(port), client = fcntl(connected, F_DUPFD_CLOEXEC, 3);
        tram_future *future;
        close(connected);
        assert_int_equal(tram_loop_sock_accept(world->loop, listener, &future), 0);
        assert_int_equal(outcome(world, future, NULL), 0);
        accepted = tram_future_fd(future);
        tram_future_release(future);
        assert_true(accepted >= 0);
        close(accepted);
        close(client);
    }
    assert_int_equal(accepted, 0);
    close(listener);
}

static void test_O_2_L_31_debug_mode_refuses_blocking_sockets(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    set_blocking(pair[0], true);
    assert_all_refuse(world, pair[0], TRAM_EVALUE);
    set_blocking(pair[0], false);
    tram_future *future = recv_on(world, pair[0], 10);
    tram_future_cancel(future);
    tram_future_release(future);
    close_pair(pair);
}

/* Without debug mode nobody looks: such a socket waits for its turn as any other. */
static void test_O_2_a_blocking_socket_does_not_hold_the_loop(void **state) {
    struct world *world = *state;
    static char much[1 << 20];
    tram_future *futures[4] = {0};
    int pair[2], datagrams[2];
    calls_uninterrupted();
    unix_pair(pair);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagrams), 0);
    set_blocking(pair[0], true);
    set_blocking(pair[1], true);
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[0], 10, &futures[0]), 0);
    assert_int_equal(tram_loop_sock_recvfrom(world->loop, datagrams[0], 10, &futures[1]), 0);
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], much, sizeof much, &futures[2]), 0);
    for (;;) { /* until the kernel is full */
        assert_int_equal(tram_loop_sock_sendto(world->loop, datagrams[0], much, 10000, NULL, &futures[3]), 0);
        if (!tram_future_done(futures[3]))
            break;
        tram_future_release(futures[3]);
    }
    run_to_rest(world);
    for (int i = 0; i < 4; i++) {
        assert_false(tram_future_done(futures[i]));
        tram_future_cancel(futures[i]);
        tram_future_release(futures[i]);
    }
    close_pair(pair);
    close_pair(datagrams);
}

static void test_O_3_X_2_what_is_there_is_had_at_once_and_told_later(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    struct wait received = {.world = world, .name = "received"}, sent = {.world = world, .name = "sent"};
    faults.arm_read.calls = faults.arm_write.calls = 0;
    tram_future *receiving = recv_on(world, pair[0], 10), *sending;
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], "xyz", 3, &sending), 0);
    assert_true(tram_future_done(receiving));
    assert_true(tram_future_done(sending));
    await_callback(&received, receiving);
    await_callback(&sent, sending);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "received:ok sent:ok");
    assert_int_equal(faults.arm_read.calls + faults.arm_write.calls, 0);
    assert_true(nothing_registered(world, pair[0]));
    tram_future_release(receiving);
    tram_future_release(sending);
    close_pair(pair);
}

static void test_O_4_L_38_a_wakeup_with_nothing_to_do_keeps_waiting(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    tram_future *future = recv_on(world, pair[0], 10);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    faults.recvfrom.calls = 0;
    fail_next(&faults.recvfrom, EAGAIN, 1);
    run_ticks(world, 1);
    assert_int_equal(faults.recvfrom.calls, 1);
    assert_false(tram_future_done(future));
    fail_next(&faults.recvfrom, EINTR, 1);
    run_ticks(world, 1);
    assert_int_equal(faults.recvfrom.calls, 2);
    assert_false(tram_future_done(future));
    run_ticks(world, 1);
    assert_true(tram_future_done(future));
    assert_int_equal(expect_data(world, future)->size, 3);
    tram_future_release(future);
    close_pair(pair);
}

static void test_O_5_X_3_a_cancelled_operation_leaves_socket_and_data(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    struct wait wait = {.world = world, .name = "recv"};
    tram_future *future = recv_on(world, pair[0], 10);
    await_callback(&wait, future);
    run_ticks(world, 1);
    /* Its event is collected in the very tick in which it is cancelled. */
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(tram_future_cancel(future), 0);
    assert_true(nothing_registered(world, pair[0]));
    run_ticks(world, 2);
    assert_trace(world, "recv:TRAM_ECANCELLED");
    run_to_rest(world);
    tram_future_release(future);
    char bytes[10];
    assert_int_equal(read(pair[0], bytes, sizeof bytes), 3);
    close_pair(pair);
}

static int cancel_in_tick(tram_loop *loop, void *arg) {
    trace(world_of(loop), "cancel");
    return tram_future_cancel(arg) == 1 ? 0 : TRAM_EUSER;
}

static void test_O_5_an_event_that_was_collected_does_not_reach_a_cancelled_operation(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    struct wait wait = {.world = world, .name = "recv"};
    tram_future *future = recv_on(world, pair[0], 10);
    await_callback(&wait, future);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(tram_loop_call_soon(world->loop, cancel_in_tick, future, NULL, NULL), 0);
    run_ticks(world, 2);
    assert_trace(world, "cancel recv:TRAM_ECANCELLED");
    tram_future_release(future);
    future = recv_on(world, pair[0], 10);
    assert_int_equal(expect_data(world, future)->size, 3);
    tram_future_release(future);
    close_pair(pair);
}

static void test_O_6_a_newer_operation_replaces_the_registration_of_the_older(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    struct wait first = {.world = world, .name = "first"}, second = {.world = world, .name = "second"};
    tram_future *older = recv_on(world, pair[0], 10), *newer = recv_on(world, pair[0], 10);
    await_callback(&first, older);
    await_callback(&second, newer);
    tram_future_cancel(older);
    run_ticks(world, 1);
    assert_trace(world, "first:TRAM_ECANCELLED");
    assert_int_equal(write(pair[1], "abc", 3), 3);
    run_until(world, &second.done);
    assert_trace(world, "second:ok");
    tram_future_release(older);
    tram_future_release(newer);

    /* An older one that is not cancelled hears nothing. */
    older = recv_on(world, pair[0], 10);
    newer = recv_on(world, pair[0], 10);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(expect_data(world, newer)->size, 3);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    run_to_rest(world);
    assert_false(tram_future_done(older));
    tram_future_cancel(older);
    tram_future_release(older);
    tram_future_release(newer);
    close_pair(pair);
}

static void test_O_6_operations_and_readers_replace_each_other(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "reader"), 0);
    tram_future *future = recv_on(world, pair[0], 10);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(expect_data(world, future)->size, 3);
    tram_future_release(future);
    assert_trace(world, "");

    future = recv_on(world, pair[0], 10);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "reader"), 0);
    tram_future_cancel(future);
    tram_future_release(future);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    run_ticks(world, 2);
    assert_trace(world, "reader reader");
    assert_int_equal(tram_loop_remove_reader(world->loop, pair[0]), 1);
    close_pair(pair);
}

static void test_O_6_L_20_both_directions_wait_at_once_also_beside_a_writer(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    shrink_buffers(pair[0]);
    static char bytes[300000], back[300000];
    pattern(bytes, sizeof bytes, 0);
    struct wait sent = {.world = world, .name = "sent"};
    tram_future *sending, *receiving = recv_on(world, pair[0], 10);
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], bytes, sizeof bytes, &sending), 0);
    await_callback(&sent, sending);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(expect_data(world, receiving)->size, 3);
    assert_false(tram_future_done(sending));
    receive_exactly(world, pair[1], back, sizeof back);
    assert_pattern(back, sizeof back, 0);
    run_until(world, &sent.done);
    tram_future_release(receiving);
    tram_future_release(sending);
    world->trace[0] = '\0';

    /* A writer of the user's is told in every tick while an operation waits beside it. */
    assert_int_equal(tram_loop_add_writer(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "writer"), 0);
    receiving = recv_on(world, pair[0], 10);
    run_ticks(world, 3);
    assert_trace(world, "writer writer writer");
    assert_int_equal(tram_loop_remove_writer(world->loop, pair[0]), 1);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(expect_data(world, receiving)->size, 3);
    tram_future_release(receiving);
    close_pair(pair);
}

static void test_O_7_a_descriptor_of_a_transport_is_refused(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    const tram_socket *socket = tram_transport_get_extra_info(stream.transport, "socket", NULL);
    assert_all_refuse(world, socket->fd, TRAM_ESTATE);
    stream_close(&stream);
}

static void test_O_8_recv_brings_at_most_what_was_asked_and_nothing_at_the_end(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    assert_int_equal(write(pair[1], "abcdef", 6), 6);
    tram_future *future = recv_on(world, pair[0], 4);
    assert_int_equal(expect_data(world, future)->size, 4);
    tram_future_release(future);
    char memory[16] = "";
    assert_int_equal(tram_loop_sock_recv_into(world->loop, pair[0], memory, sizeof memory, &future), 0);
    assert_int_equal(expect_count(world, future), 2);
    assert_string_equal(memory, "ef");
    tram_future_release(future);

    /* A large room holds on to no more memory than what came needs. */
    size_t before = world->live_bytes;
    assert_int_equal(write(pair[1], "abcdef", 6), 6);
    future = recv_on(world, pair[0], 1u << 20);
    assert_int_equal(expect_data(world, future)->size, 6);
    assert_true(world->live_bytes - before < 4096);
    tram_future_release(future);

    future = recv_on(world, pair[0], 10);
    shutdown(pair[1], SHUT_WR);
    assert_int_equal(expect_data(world, future)->size, 0);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_recv_into(world->loop, pair[0], memory, sizeof memory, &future), 0);
    assert_int_equal(expect_count(world, future), 0);
    tram_future_release(future);
    close_pair(pair);
}

static void test_O_8_a_reset_is_an_error(void **state) {
    struct world *world = *state;
    int pair[2];
    tcp_pair(pair);
    tram_future *future = recv_on(world, pair[0], 10);
    close_with_reset(pair[1]);
    expect_error(world, future, -ECONNRESET, "sock_recv");
    close(pair[0]);
}

static void test_O_9_recvfrom_takes_one_datagram_and_cuts_it(void **state) {
    struct world *world = *state;
    int pair[2];
    struct sockaddr_in names[2];
    udp_pair(pair, names);
    tram_future *future;
    assert_int_equal(tram_loop_sock_recvfrom(world->loop, pair[0], 4, &future), 0);
    const struct sockaddr *to = (struct sockaddr *)&names[0];
    assert_int_equal(sendto(pair[1], "abcdef", 6, 0, to, sizeof names[0]), 6);
    assert_int_equal(sendto(pair[1], "", 0, 0, to, sizeof names[0]), 0);
    assert_int_equal(sendto(pair[1], "ghijkl", 6, 0, to, sizeof names[0]), 6);
    assert_int_equal(sendto(pair[1], "mnopqr", 6, 0, to, sizeof names[0]), 6);
    const tram_sock_data *data = expect_data(world, future);
    assert_int_equal(data->size, 4);
    assert_memory_equal(data->data, "abcd", 4);
    assert_int_equal(data->address.size, sizeof names[1]);
    assert_memory_equal(&data->address.address, &names[1], sizeof names[1]);
    tram_future_release(future);

    assert_int_equal(tram_loop_sock_recvfrom(world->loop, pair[0], 100, &future), 0);
    data = expect_data(world, future);
    assert_int_equal(data->size, 0); /* an empty datagram is no end: others follow */
    assert_int_equal(data->address.size, sizeof names[1]);
    tram_future_release(future);

    char memory[8] = "";
    assert_int_equal(tram_loop_sock_recvfrom_into(world->loop, pair[0], memory, sizeof memory, 0, &future), 0);
    data = expect_data(world, future);
    assert_int_equal(data->size, 6);
    assert_ptr_equal(data->data, memory);
    assert_string_equal(memory, "ghijkl");
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_recvfrom_into(world->loop, pair[0], memory, sizeof memory, 2, &future), 0);
    assert_int_equal(expect_data(world, future)->size, 2);
    assert_string_equal(memory, "mnijkl");
    tram_future_release(future);
    assert_int_equal(sendto(pair[1], "opqrstuvw", 9, 0, to, sizeof names[0]), 9);
    assert_int_equal(tram_loop_sock_recvfrom_into(world->loop, pair[0], memory, 8, 8, &future), 0);
    assert_int_equal(expect_data(world, future)->size, 8);
    assert_memory_equal(memory, "opqrstuv", 8);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_recvfrom_into(world->loop, pair[0], memory, 8, 9, &future), TRAM_EVALUE);
    close_pair(pair);
}

static void test_O_10_W_12_sendall_sends_all_or_fails(void **state) {
    struct world *world = *state;
    int pair[2];
    tcp_pair(pair);
    shrink_buffers(pair[0]);
    static char bytes[4 << 20], back[4 << 20];
    pattern(bytes, sizeof bytes, 0);
    struct wait sent = {.world = world, .name = "sent"};
    tram_future *future;
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], bytes, sizeof bytes, &future), 0);
    await_callback(&sent, future);
    receive_exactly(world, pair[1], back, sizeof back);
    run_until(world, &sent.done);
    assert_trace(world, "sent:ok");
    assert_memory_equal(bytes, back, sizeof back);
    tram_future_release(future);

    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], NULL, 0, &future), 0);
    assert_true(tram_future_done(future));
    assert_int_equal(outcome(world, future, NULL), 0);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], NULL, 1, &future), TRAM_EVALUE);

    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], bytes, sizeof bytes, &future), 0);
    assert_false(tram_future_done(future));
    close_with_reset(pair[1]);
    assert_int_equal(outcome(world, future, NULL), -ECONNRESET);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], bytes, sizeof bytes, &future), 0);
    expect_error(world, future, -EPIPE, "sock_sendall");
    close(pair[0]);
}

static void test_O_11_sendto_sends_one_datagram(void **state) {
    struct world *world = *state;
    int pair[2];
    struct sockaddr_in names[2];
    udp_pair(pair, names);
    tram_socket_address to = address_of(&names[1], sizeof names[1]);
    static char bytes[65508];
    tram_future *future;
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], "abc", 3, &to, &future), 0);
    assert_int_equal(expect_count(world, future), 3);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], NULL, 0, &to, &future), 0);
    assert_int_equal(expect_count(world, future), 0);
    tram_future_release(future);
    to.size = sizeof to.address; /* as much as an address may have: the kernel looks at what it needs */
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], NULL, 0, &to, &future), 0);
    assert_int_equal(expect_count(world, future), 0);
    tram_future_release(future);
    to.size++;
    assert_wrong(tram_loop_sock_sendto(world->loop, pair[0], NULL, 0, &to, &future), "address");
    assert_wrong(tram_loop_sock_connect_address(world->loop, pair[0], &to, &future), "address");
    to.size = sizeof to.address;
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], bytes, sizeof bytes, &to, &future), 0);
    expect_error(world, future, -EMSGSIZE, "sock_sendto");
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], "abc", 3, NULL, &future), 0);
    expect_error(world, future, -EDESTADDRREQ, "sock_sendto");
    assert_int_equal(tram_loop_sock_connect_address(world->loop, pair[0], &to, &future), 0);
    assert_int_equal(outcome(world, future, NULL), 0);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], "def", 3, NULL, &future), 0);
    assert_int_equal(expect_count(world, future), 3);
    tram_future_release(future);
    assert_int_equal(recv(pair[1], bytes, sizeof bytes, 0), 3);
    assert_memory_equal(bytes, "abc", 3);
    assert_int_equal(recv(pair[1], bytes, sizeof bytes, 0), 0);
    assert_int_equal(recv(pair[1], bytes, sizeof bytes, 0), 0);
    assert_int_equal(recv(pair[1], bytes, sizeof bytes, 0), 3);
    assert_memory_equal(bytes, "def", 3);
    to.size = sizeof to.address + 1;
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], "abc", 3, &to, &future), TRAM_EVALUE);
    close_pair(pair);
}

static void test_O_11_sendto_waits_for_room(void **state) {
    struct world *world = *state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    while (send(pair[0], "abc", 3, 0) == 3)
        ;
    assert_int_equal(errno, EAGAIN);
    struct wait sent = {.world = world, .name = "sent"};
    tram_future *future;
    assert_int_equal(tram_loop_sock_sendto(world->loop, pair[0], "xyz", 3, NULL, &future), 0);
    await_callback(&sent, future);
    run_to_rest(world);
    assert_trace(world, "");
    char bytes[4] = "";
    while (recv(pair[1], bytes, 3, 0) == 3)
        ;
    run_until(world, &sent.done);
    assert_trace(world, "sent:ok");
    assert_int_equal(recv(pair[1], bytes, 3, 0), 3);
    assert_string_equal(bytes, "xyz");
    tram_future_release(future);
    close_pair(pair);
}

static int tcp_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

static void test_O_12_L_36_connect_resolves_names_and_believes_SO_ERROR(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = tcp_listener(5, &port), client = tcp_socket();
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_future *future;
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "127.0.0.1", text, &future), 0);
    assert_int_equal(outcome(world, future, NULL), 0);
    assert_null(world->loop->executor); /* nobody was asked */
    tram_future_release(future);
    close(client);

    client = tcp_socket();
    assert_int_equal(tram_loop_sock_connect(world->loop, client, loopback_name(), text, &future), 0);
    assert_false(tram_future_done(future));
    assert_int_equal(outcome(world, future, NULL), 0);
    tram_future_release(future);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    assert_int_equal(getpeername(client, (struct sockaddr *)&name, &size), 0);
    assert_int_equal(ntohs(name.sin_port), port);
    close(client);
    close(listener);

    /* Refused: writable, but not connected. */
    int held;
    snprintf(text, sizeof text, "%u", hold_port(&held));
    client = tcp_socket();
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "127.0.0.1", text, &future), 0);
    expect_error(world, future, -ECONNREFUSED, "sock_connect");
    assert_true(nothing_registered(world, client));
    int another = tcp_socket();
    assert_int_equal(tram_loop_sock_connect(world->loop, another, NULL, text, &future), 0); /* this machine */
    expect_error(world, future, -ECONNREFUSED, "sock_connect");
    close(another);
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "no.such.name.invalid", text, &future), 0);
    assert_int_equal(outcome(world, future, NULL), TRAM_ERESOLVE);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_connect(world->loop, client, NULL, NULL, &future), TRAM_EVALUE);
    close(client);
    close(held);
}

/* A connect that hangs: the listener's queue is full. */
static int full_listener(uint16_t *ret_port, int fillers[4]) {
    int listener = tcp_listener(0, ret_port);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(*ret_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < 4; i++) {
        fillers[i] = tcp_socket();
        connect(fillers[i], (struct sockaddr *)&name, sizeof name);
    }
    await_events(fillers[0], POLLOUT);
    return listener;
}

static void test_O_5_O_12_a_cancelled_connect_leaves_the_socket_open(void **state) {
    struct world *world = *state;
    uint16_t port;
    int fillers[4], listener = full_listener(&port, fillers), client = tcp_socket();
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_future *future;
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "127.0.0.1", text, &future), 0);
    /* The kernel tells when it has ended: it is not asked before. */
    assert_int_equal(tram_loop_call_later(world->loop, 20 * TRAM_SOCK_BACKOFF_NS, trace_callback, "later", NULL, NULL),
                     0);
    run_until_traced(world, "later");
    world->trace[0] = '\0';
    assert_false(tram_future_done(future));
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(outcome(world, future, NULL), TRAM_ECANCELLED);
    tram_future_release(future);
    assert_true(nothing_registered(world, client));
    assert_true(fcntl(client, F_GETFL) >= 0);
    /* A further call joins the connect that goes on in the kernel. */
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "127.0.0.1", text, &future), 0);
    run_ticks(world, 1);
    assert_false(tram_future_done(future));
    tram_future_cancel(future);
    tram_future_release(future);

    /* Also while a name is looked up. */
    int other = tcp_socket();
    assert_int_equal(tram_loop_sock_connect(world->loop, other, loopback_name(), text, &future), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(outcome(world, future, NULL), TRAM_ECANCELLED);
    tram_future_release(future);
    close(other);
    for (int i = 0; i < 4; i++)
        close(fillers[i]);
    close(client);
    close(listener);
}

static tram_socket_address abstract_name(const char *what) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "tram-test-%d-%s", getpid(), what);
    return address_of(&name, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static void test_O_14_addresses_of_other_families_are_passed_on(void **state) {
    struct world *world = *state;
    tram_socket_address name = abstract_name("other");
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&name.address, name.size), 0);
    tram_future *future, *accepting;
    assert_int_equal(tram_loop_sock_connect_address(world->loop, client, &name, &future), 0);
    expect_error(world, future, -ECONNREFUSED, "sock_connect");
    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(tram_loop_sock_accept(world->loop, listener, &accepting), 0);
    assert_int_equal(tram_loop_sock_connect_address(world->loop, client, &name, &future), 0);
    assert_int_equal(outcome(world, future, NULL), 0);
    assert_int_equal(outcome(world, accepting, NULL), 0);
    tram_future_release(future);
    tram_future_release(accepting);
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "localhost", "1", &future), TRAM_EVALUE);
    name.size = 0;
    assert_int_equal(tram_loop_sock_connect_address(world->loop, client, &name, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_sock_connect_address(world->loop, client, NULL, &future), TRAM_EVALUE);
    close(client);
    close(listener);
}

static void test_O_14_L_38_connecting_waits_for_a_full_unix_listener(void **state) {
    struct world *world = *state;
    tram_socket_address name = abstract_name("full");
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int first = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&name.address, name.size), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(connect(first, (struct sockaddr *)&name.address, name.size), 0);
    tram_future *future;
    struct wait connected = {.world = world, .name = "connected"};
    assert_int_equal(tram_loop_sock_connect_address(world->loop, client, &name, &future), 0);
    await_callback(&connected, future);
    run_to_rest(world);
    assert_trace(world, "");
    int accepted = accept(listener, NULL, NULL);
    assert_true(accepted >= 0);
    run_until(world, &connected.done);
    assert_trace(world, "connected:ok");
    tram_future_release(future);
    close(accepted);
    close(first);
    close(client);
    close(listener);
}

static void test_O_15_closing_the_descriptor_fails_the_operation(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    tram_future *future = recv_on(world, pair[0], 10);
    run_ticks(world, 1);
    close(pair[0]);
    expect_error(world, future, -EBADF, "sock_recv");
    close(pair[1]);
}

/* A copy lives on, so that the kernel keeps reporting what nobody can take back any more. */
static void test_O_15_a_copy_of_the_closed_descriptor_does_not_spin(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    int copy = dup(pair[0]), number = pair[0];
    tram_future *future = recv_on(world, pair[0], 10);
    run_ticks(world, 1);
    close(pair[0]);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    expect_error(world, future, -EBADF, "sock_recv");
    run_to_rest(world);

    /* The copy comes back to the number: it can be waited for as any other. */
    assert_int_equal(dup3(copy, number, O_CLOEXEC), number);
    close(copy);
    char bytes[3];
    assert_int_equal(read(number, bytes, 3), 3);
    future = recv_on(world, number, 10);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(expect_data(world, future)->size, 3);
    tram_future_release(future);
    close_pair(pair);
}

static void test_O_15_the_number_in_use_again_is_another_descriptor(void **state) {
    struct world *world = *state;
    int pair[2], fresh[2];
    unix_pair(pair);
    unix_pair(fresh);
    struct wait old = {.world = world, .name = "old"}, new = {.world = world, .name = "new"};
    tram_future *older = recv_on(world, pair[0], 10), *newer;
    await_callback(&old, older);
    run_ticks(world, 1);
    assert_int_equal(dup3(fresh[0], pair[0], O_CLOEXEC), pair[0]); /* closes what was there */
    close(fresh[0]);
    newer = recv_on(world, pair[0], 10);
    await_callback(&new, newer);
    assert_int_equal(write(fresh[1], "abc", 3), 3);
    run_until(world, &new.done);
    assert_trace(world, "old:EBADF new:ok");
    tram_future_release(older);
    tram_future_release(newer);

    /* The same where a transport takes the number, and where nobody does. */
    older = recv_on(world, pair[0], 10);
    await_callback(&old, older);
    close(pair[1]);
    pair[1] = fresh[1];
    unix_pair(fresh);
    assert_int_equal(dup3(fresh[0], pair[0], O_CLOEXEC), pair[0]);
    close(fresh[0]);
    transport_new(world, pair[0], recorder_new(world, NULL));
    close(fresh[1]);
    close(pair[1]);
    run_until_traced(world, "released");
    assert_trace(world, "old:EBADF made eof lost:0 released");
    tram_future_release(older);
}

static void test_O_15_a_number_that_was_reused_is_noticed_without_a_new_operation(void **state) {
    struct world *world = *state;
    int pair[2], fresh[2];
    unix_pair(pair);
    unix_pair(fresh);
    tram_future *future = recv_on(world, pair[0], 10);
    run_ticks(world, 1);
    assert_int_equal(dup3(fresh[0], pair[0], O_CLOEXEC), pair[0]);
    assert_int_equal(write(fresh[1], "abc", 3), 3);
    expect_error(world, future, -EBADF, "sock_recv");
    char bytes[3];
    assert_int_equal(read(pair[0], bytes, 3), 3); /* another's data was left alone */
    close_pair(pair);
    close_pair(fresh);
}

/* ---- Trouble ---- */

static void test_bad_arguments_are_refused_or_fail(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    tram_future *future = NULL;
    assert_all_refuse(world, -1, -EBADF);
    assert_int_equal(tram_loop_sock_recv_into(world->loop, 0, NULL, 1, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_sock_recvfrom_into(world->loop, 0, NULL, 1, 0, &future), TRAM_EVALUE);
    assert_null(future);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    expect_error(world, recv_on(world, file, 1), -ENOTSOCK, "sock_recv");
    assert_int_equal(tram_loop_sock_connect(world->loop, file, "127.0.0.1", "1", &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_sock_accept(world->loop, file, &future), 0);
    expect_error(world, future, -ENOTSOCK, "sock_accept");
    close(file);
    expect_error(world, recv_on(world, file, 1), -EBADF, "sock_recv");
    int pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_sock_accept(world->loop, pair[0], &future), 0);
    expect_error(world, future, -EINVAL, "sock_accept");
    close_pair(pair);
}

static void test_no_memory_at_any_point(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    tram_future *future;
    int status = -ENOMEM;
    for (size_t allowed = 0; status; allowed++) {
        assert_true(allowed < 20);
        world->fail_after = allowed;
        status = tram_loop_sock_recv(world->loop, pair[0], 10, &future);
        world->fail_after = SIZE_MAX;
        if (status) {
            assert_int_equal(status, -ENOMEM);
            continue;
        }
        status = tram_future_result(future, NULL);
        if (status == TRAM_ESTATE)
            status = 0; /* it waits */
        else
            assert_int_equal(status, -ENOMEM);
        tram_future_cancel(future);
        tram_future_release(future);
    }
    run_to_rest(world);
    assert_true(nothing_registered(world, pair[0]));
    close_pair(pair);
}

static void test_L_8_closing_the_loop_takes_waiting_operations_back(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    uint16_t port;
    int fillers[4], listener = full_listener(&port, fillers), client = tcp_socket();
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_future *kept = recv_on(world, pair[0], 10);
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[1], 10, NULL), 0);
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[1], 10, NULL), 0); /* the first is replaced */
    assert_int_equal(tram_loop_sock_connect(world->loop, client, "127.0.0.1", text, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(tram_future_result(kept, NULL), TRAM_ECANCELLED);
    tram_future_release(kept);
    tram_future *future;
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[0], 10, &future), TRAM_ESTATE);
    for (int i = 0; i < 4; i++)
        close(fillers[i]);
    close(client);
    close(listener);
    close_pair(pair);
}

static void test_O_8_nothing_is_received_at_once_where_nothing_is_asked_for(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    for (int waiting = 0; waiting < 2; waiting++) {
        tram_future *future = recv_on(world, pair[0], 0);
        char memory;
        assert_true(tram_future_done(future));
        assert_int_equal(expect_data(world, future)->size, 0);
        tram_future_release(future);
        assert_int_equal(tram_loop_sock_recv_into(world->loop, pair[0], &memory, 0, &future), 0);
        assert_true(tram_future_done(future));
        assert_int_equal(expect_count(world, future), 0);
        tram_future_release(future);
        assert_int_equal(send(pair[1], "x", 1, 0), 1);
    }
    char bytes[4];
    assert_int_equal(recv(pair[0], bytes, sizeof bytes, 0), 2);
    /* Of datagrams it takes one. */
    int udp[2];
    struct sockaddr_in names[2];
    udp_pair(udp, names);
    tram_future *future;
    assert_int_equal(tram_loop_sock_recvfrom(world->loop, udp[0], 0, &future), 0);
    assert_false(tram_future_done(future));
    assert_int_equal(sendto(udp[1], "x", 1, 0, (struct sockaddr *)&names[0], sizeof names[0]), 1);
    assert_int_equal(expect_data(world, future)->size, 0);
    tram_future_release(future);
    close_pair(udp);
    close_pair(pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name)       cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define FAULT_CASE(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
        cmocka_unit_test_setup_teardown(test_O_8_nothing_is_received_at_once_where_nothing_is_asked_for, world_setup,
                                        world_teardown),
        CASE(test_O_1_O_13_a_conversation_on_sockets_of_the_user),
        CASE(test_O_13_a_connection_that_nobody_took_is_closed_with_its_future),
        CASE(test_O_13_an_accepted_socket_may_be_descriptor_0),
        cmocka_unit_test_setup_teardown(test_O_2_L_31_debug_mode_refuses_blocking_sockets, world_setup_debug,
                                        world_teardown),
        CASE(test_O_2_a_blocking_socket_does_not_hold_the_loop),
        FAULT_CASE(test_O_3_X_2_what_is_there_is_had_at_once_and_told_later),
        FAULT_CASE(test_O_4_L_38_a_wakeup_with_nothing_to_do_keeps_waiting),
        CASE(test_O_5_X_3_a_cancelled_operation_leaves_socket_and_data),
        CASE(test_O_5_an_event_that_was_collected_does_not_reach_a_cancelled_operation),
        CASE(test_O_6_a_newer_operation_replaces_the_registration_of_the_older),
        CASE(test_O_6_operations_and_readers_replace_each_other),
        CASE(test_O_6_L_20_both_directions_wait_at_once_also_beside_a_writer),
        CASE(test_O_7_a_descriptor_of_a_transport_is_refused),
        CASE(test_O_8_recv_brings_at_most_what_was_asked_and_nothing_at_the_end),
        CASE(test_O_8_a_reset_is_an_error),
        CASE(test_O_9_recvfrom_takes_one_datagram_and_cuts_it),
        CASE(test_O_10_W_12_sendall_sends_all_or_fails),
        CASE(test_O_11_sendto_sends_one_datagram),
        CASE(test_O_11_sendto_waits_for_room),
        CASE(test_O_12_L_36_connect_resolves_names_and_believes_SO_ERROR),
        CASE(test_O_5_O_12_a_cancelled_connect_leaves_the_socket_open),
        CASE(test_O_14_addresses_of_other_families_are_passed_on),
        CASE(test_O_14_L_38_connecting_waits_for_a_full_unix_listener),
        CASE(test_O_15_closing_the_descriptor_fails_the_operation),
        CASE(test_O_15_a_copy_of_the_closed_descriptor_does_not_spin),
        CASE(test_O_15_the_number_in_use_again_is_another_descriptor),
        CASE(test_O_15_a_number_that_was_reused_is_noticed_without_a_new_operation),
        CASE(test_bad_arguments_are_refused_or_fail),
        CASE(test_no_memory_at_any_point),
        CASE(test_L_8_closing_the_loop_takes_waiting_operations_back),
    };
    return cmocka_run_group_tests_name("sock", tests, NULL, NULL);
}
