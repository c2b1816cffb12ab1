/*
 * What a descriptor reports and nobody asked for: errors, hang-ups, urgent data, error queues. After each the loop
 * rests, or somebody was told (docs/rules.md, L-43).
 */
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "support/datagram.h"

/* ---- How busy the loop is ---- */

static uint64_t ticks(struct world *world) {
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    return stats.ticks;
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

/* In 200 ms at most three ticks, of which one is that of the timer that ends it. */
static void assert_rests(struct world *world) {
    run_ticks(world, 4); /* what is to be told is told */
    uint64_t before = ticks(world);
    assert_int_equal(tram_loop_call_later(world->loop, 200000000, stop, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_in_range(ticks(world) - before, 1, 3);
}

/* ---- Troubles ---- */

/* Every segment sent leaves a record in the error queue, which nobody fetches. */
static void want_timestamps(int fd) {
    int flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags), 0);
}

static void await_error(int fd) {
    struct pollfd poll_fd = {.fd = fd};
    assert_int_equal(poll(&poll_fd, 1, 20000), 1);
    assert_true(poll_fd.revents & POLLERR);
}

/* Another process that has the socket. */
static void shut_down_elsewhere(int fd, int how) {
    int copy = dup(fd);
    shutdown(copy, how); /* -1 where nobody is connected any more */
    close(copy);
}

static int fd_of(tram_transport *transport) {
    const tram_socket *sock = tram_transport_get_extra_info(transport, "socket", NULL);
    return sock->fd;
}

/* ---- Streams ---- */

enum reading { READING, PAUSED, HALF_OPEN, BOTH_FINISHED, READINGS };

static struct stream stream_in(struct world *world, bool tcp, enum reading reading) {
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->eof_returns = 1;
    struct stream stream = stream_open_with(world, recorder, tcp);
    if (reading == PAUSED)
        assert_int_equal(tram_transport_pause_reading(stream.transport), 0);
    if (reading >= HALF_OPEN) {
        assert_int_equal(shutdown(stream.peer, SHUT_WR), 0);
        run_until_traced(world, "eof");
    }
    if (reading == BOTH_FINISHED)
        assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    run_to_rest(world);
    return stream;
}

static void test_L_43_streams_whose_socket_is_shut_down_elsewhere(void **state) {
    for (int tcp = 0; tcp < 2; tcp++)
        for (enum reading reading = READING; reading < READINGS; reading++)
            for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
                struct stream stream = stream_in(*state, tcp, reading);
                shut_down_elsewhere(fd_of(stream.transport), how);
                assert_rests(*state);
                stream_close(&stream);
            }
}

static void test_L_43_streams_whose_peer_resets(void **state) {
    struct world *world = *state;
    for (int tcp = 0; tcp < 2; tcp++)
        for (enum reading reading = READING; reading < READINGS; reading++) {
            struct stream stream = stream_in(world, tcp, reading);
            if (reading != BOTH_FINISHED)
                assert_int_equal(tram_transport_write(stream.transport, "unread", 6), 0);
            int peer = stream.peer;
            stream.peer = dup(STDIN_FILENO);
            if (tcp)
                close_with_reset(peer);
            else
                close(peer);
            assert_rests(world);
            stream_close(&stream);
        }
}

static void test_P_10_a_half_open_connection_hears_of_a_reset(void **state) {
    struct world *world = *state;
    struct stream stream = stream_in(world, true, HALF_OPEN);
    world->trace[0] = '\0';
    int peer = stream.peer;
    stream.peer = dup(STDIN_FILENO);
    close_with_reset(peer);
    run_until_traced(world, "lost:");
    assert_trace(world, "lost:EPIPE released"); /* so the kernel calls it in this state */
    stream_close(&stream);
}

static void test_R_9_who_paused_reads_first_what_came_before_the_reset(void **state) {
    struct world *world = *state;
    struct stream stream = stream_in(world, true, PAUSED);
    world->trace[0] = '\0';
    int peer = stream.peer;
    stream.peer = dup(STDIN_FILENO);
    assert_int_equal(send(peer, "last words", 10, MSG_NOSIGNAL), 10);
    close_with_reset(peer);
    assert_rests(world);
    assert_trace(world, "");
    assert_int_equal(tram_transport_resume_reading(stream.transport), 0);
    run_until_traced(world, "lost:");
    assert_trace(world, "data:10 lost:ECONNRESET released");
    stream_close(&stream);
}

static void test_L_43_streams_with_an_error_queue(void **state) {
    struct world *world = *state;
    for (enum reading reading = READING; reading < BOTH_FINISHED; reading++) {
        struct stream stream = stream_in(world, true, reading);
        int fd = fd_of(stream.transport);
        want_timestamps(fd);
        for (int i = 0; i < 3; i++)
            assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
        await_error(fd);
        assert_rests(world);
        /* It goes on as before. */
        if (reading == READING) {
            world->trace[0] = '\0';
            assert_int_equal(send(stream.peer, "go on", 5, MSG_NOSIGNAL), 5);
            run_until_traced(world, "data:5");
        }
        stream_close(&stream);
    }
}

static void test_L_43_an_error_queue_while_the_peer_does_not_read(void **state) {
    struct world *world = *state;
    struct stream stream = stream_in(world, true, READING);
    int fd = fd_of(stream.transport);
    fill(stream.transport, 1);
    want_timestamps(fd);
    while (drain_peer(&stream) == 0)
        ;
    run_ticks(world, 3);
    fill(stream.transport, 1);
    assert_rests(world);
    stream_close(&stream);
}

static void test_L_43_urgent_data(void **state) {
    struct world *world = *state;
    struct stream stream = stream_in(world, true, READING);
    assert_int_equal(send(stream.peer, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    assert_rests(world);
    world->trace[0] = '\0';
    assert_int_equal(send(stream.peer, "go on", 5, MSG_NOSIGNAL), 5);
    run_until_traced(world, "data:5");
    stream_close(&stream);
}

static void test_L_43_peeks(void **state) {
    struct world *world = *state;
    int pair[2];
    tcp_pair(pair);
    tram_future *future;
    assert_int_equal(tram_loop_peek(world->loop, pair[0], 8, 0, &future), 0);
    want_timestamps(pair[0]);
    assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
    await_error(pair[0]);
    assert_int_equal(send(pair[1], "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    assert_rests(world);
    assert_false(tram_future_done(future));
    tram_future_cancel(future);
    run_to_rest(world);
    tram_future_release(future);
    close(pair[0]);
    close(pair[1]);
}

/* ---- Datagrams ---- */

static tram_socket_address nobody(void) {
    tram_socket_address address;
    close(udp_socket(&address));
    return address;
}

static void test_D_25_an_error_queue_is_told_and_emptied(void **state) {
    struct world *world = *state;
    struct endpoint endpoint = endpoint_open(world);
    int fd = fd_of(endpoint.transport), on = 1;
    assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
    tram_socket_address somewhere = nobody();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_transport_sendto(endpoint.transport, "x", 1, &somewhere), 0);
        await_error(fd);
        run_ticks(world, 2);
    }
    assert_rests(world);
    assert_trace(world, "error:ECONNREFUSED error:ECONNREFUSED error:ECONNREFUSED");
    assert_int_equal(recv(fd, (char[1]){0}, 1, MSG_ERRQUEUE), -1);
    assert_int_equal(errno, EAGAIN);
    peer_sends(&endpoint, 10, 0);
    run_until_traced(world, "datagram:10");
    endpoint_close(&endpoint);
}

/* Errors that came between two ticks: one word for each. */
static void test_D_25_each_error_of_the_queue_is_told(void **state) {
    struct world *world = *state;
    struct endpoint endpoint = endpoint_open(world);
    int fd = fd_of(endpoint.transport), on = 1;
    assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on), 0); /* stands in front of each */
    for (int i = 0; i < 3; i++) {
        tram_socket_address somewhere = nobody();
        sendto(fd, "x", 1, 0, (struct sockaddr *)&somewhere.address, somewhere.size);
        await_error(fd);
        int error;
        socklen_t size = sizeof error;
        if (i < 2)
            assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0); /* or the next send has it */
    }
    run_ticks(world, 8);
    assert_trace(world, "error:ECONNREFUSED error:ECONNREFUSED error:ECONNREFUSED");
    assert_rests(world);
    endpoint_close(&endpoint);
}

static void test_L_43_datagrams_with_timestamps(void **state) {
    struct world *world = *state;
    for (int connected = 0; connected < 2; connected++) {
        struct endpoint endpoint = connected ? endpoint_open_connected(world) : endpoint_open(world);
        int fd = fd_of(endpoint.transport);
        want_timestamps(fd);
        for (int i = 0; i < 3; i++)
            assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
        await_error(fd);
        assert_rests(world);
        assert_trace(world, "");
        peer_sends(&endpoint, 10, 0);
        run_until_traced(world, "datagram:10");
        endpoint_close(&endpoint);
        world->trace[0] = '\0';
    }
}

/* Datagrams that never stop coming leave the queue no room to grow. */
static void test_D_25_the_queue_is_emptied_under_traffic(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    struct endpoint endpoint = endpoint_open(world);
    int fd = fd_of(endpoint.transport);
    want_timestamps(fd);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
    await_error(fd);
    peer_sends(&endpoint, 10, 0);
    await_events(fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "datagram:10");
    struct pollfd poll_fd = {.fd = fd};
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    endpoint_close(&endpoint);
}

/* ---- Operations on sockets ---- */

static void end_operation(struct world *world, tram_future *future) {
    assert_false(tram_future_done(future));
    tram_future_cancel(future);
    run_to_rest(world);
    tram_future_release(future);
}

static void test_L_43_operations_on_sockets_with_an_error_queue(void **state) {
    struct world *world = *state;
    tram_socket_address address, peer;
    int fd = udp_socket(&address), other = udp_socket(&peer);
    tram_future *future;
    want_timestamps(fd);
    assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&peer.address, peer.size), 1);
    await_error(fd);
    assert_int_equal(tram_loop_sock_recvfrom(world->loop, fd, 100, &future), 0);
    assert_rests(world);
    end_operation(world, future);
    close(fd);
    close(other);

    int pair[2];
    tcp_pair(pair);
    want_timestamps(pair[0]);
    assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
    await_error(pair[0]);
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[0], 100, &future), 0);
    assert_rests(world);
    end_operation(world, future);
    static char much[16 << 20];
    assert_int_equal(tram_loop_sock_sendall(world->loop, pair[0], much, sizeof much, &future), 0);
    assert_rests(world);
    end_operation(world, future);
    close(pair[0]);
    close(pair[1]);
}

/* ---- Listeners ---- */

static struct sys refusing;
static int refusal;

static int refused_accept(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    if (!refusal)
        return tram__sys.accept4(fd, address, size, flags);
    errno = refusal;
    return -1;
}

static tram_server *server_on(struct world *world, int fd) {
    tram_server_options options = {.sockets = &fd, .socket_count = 1};
    tram_future *future;
    void *server;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, NULL, &options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    return server;
}

static void end_server(struct world *world, tram_server *server) {
    assert_int_equal(tram_server_close(server), 0);
    run_to_rest(world);
    tram_server_release(server);
}

static void test_V_12_a_listener_that_is_shut_down_elsewhere(void **state) {
    struct world *world = *state;
    uint16_t port;
    int fd = tcp_listener(8, &port);
    tram_server *server = server_on(world, fd);
    run_to_rest(world);
    shut_down_elsewhere(fd, SHUT_RDWR);
    assert_rests(world);
    assert_in_range(world->exceptions, 1, 2);
    assert_int_equal(world->exception_code, -EINVAL);
    assert_true(tram_server_is_serving(server));
    end_server(world, server);
}

static void test_V_12_a_policy_that_refuses_for_good(void **state) {
    struct world *world = *state;
    refusing = tram__sys;
    refusing.accept4 = refused_accept;
    world_use_sys(world, &refusing);
    uint16_t port;
    tram_server *server = server_on(world, tcp_listener(8, &port));
    refusal = EACCES;
    int client = tcp_connect(port);
    assert_rests(world);
    assert_int_equal(world->exceptions, 2);
    assert_int_equal(world->exception_code, -EACCES);
    /* Not for ever, after all. */
    refusal = 0;
    run_until_traced(world, "made");
    assert_int_equal(tram_server_connection_count(server), 1);
    close(client);
    end_server(world, server);
}

/* ---- Pipes ---- */

static int give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static tram_transport *pipe_of(struct recorder *recorder, int fd, bool reading) {
    tram_future *future;
    void *transport;
    tram_loop *loop = recorder->world->loop;
    assert_int_equal(
        (reading ? tram_loop_connect_read_pipe : tram_loop_connect_write_pipe)(loop, give, recorder, fd, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(loop, future), 0);
    assert_int_equal(tram_future_result(future, &transport), 0);
    tram_future_release(future);
    run_to_rest(recorder->world);
    recorder->world->trace[0] = '\0';
    return transport;
}

static void end_pipe(struct world *world, struct recorder *recorder, tram_transport *transport) {
    if (!recorder->lost)
        tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
    world->trace[0] = '\0';
}

static int resume_it(tram_loop *loop, void *arg) {
    (void)loop;
    struct wire *wire = arg;
    trace(wire->recorder->world, "resumes");
    return tram_transport_resume_reading(wire->transport);
}

static int take_byte(tram_loop *loop, void *arg) {
    char byte;
    assert_int_equal(read(*(int *)arg, &byte, 1), 1);
    return trace_callback(loop, (void *)(uintptr_t) "reads");
}

/* What was collected for others is still told in this tick; for the one that resumes it is not (L-5). */
static void test_L_2_L_5_who_resumes_in_a_tick_takes_nobodys_event(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    int first[2], second[2];
    unix_pair(first);
    unix_pair(second);
    assert_int_equal(tram_loop_add_reader(world->loop, first[0], resume_it, &wire), 0);
    assert_int_equal(tram_loop_add_reader(world->loop, second[0], take_byte, &second[0]), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    send_exactly(NULL, first[1], "x", 1);
    send_exactly(NULL, wire.peer, "abc", 3);
    await_events(wire.fd, POLLIN);
    send_exactly(NULL, second[1], "x", 1);
    run_ticks(world, 1);
    assert_trace(world, "resumes reads");
    assert_int_equal(tram_loop_remove_reader(world->loop, first[0]), 1);
    run_ticks(world, 1);
    assert_trace(world, "data:3");
    assert_int_equal(tram_loop_remove_reader(world->loop, second[0]), 1);
    tram_transport_abort(wire.transport);
    run_to_rest(world);
    world->trace[0] = '\0';
    close(wire.peer);
    for (int i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
}

static void test_L_43_pipes_whose_other_end_goes(void **state) {
    struct world *world = *state;
    for (int kind = 0; kind < 4; kind++)
        for (int paused = 0; paused < 2; paused++) {
            int fds[2];
            bool reading = kind != 1;
            if (kind == 2)
                assert_int_equal(openpty(&fds[0], &fds[1], NULL, NULL, NULL), 0);
            else if (kind == 3)
                unix_pair(fds);
            else
                assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
            struct recorder *recorder = recorder_new(world, NULL);
            tram_transport *transport = pipe_of(recorder, fds[!reading], reading);
            if (paused && reading)
                assert_int_equal(tram_transport_pause_reading(transport), 0);
            else if (paused)
                fill(transport, 1);
            close(fds[reading]);
            assert_rests(world);
            assert_int_equal(recorder->lost, !(paused && reading));
            end_pipe(world, recorder, transport);
        }
}

static void test_I_9_a_reader_that_only_finishes_gets_what_is_queued(void **state) {
    struct world *world = *state;
    for (int tcp = 0; tcp < 2; tcp++) {
        int fds[2];
        (tcp ? tcp_pair : unix_pair)(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport = pipe_of(recorder, fds[0], false);
        fill(transport, 300000);
        world->trace[0] = '\0';
        struct stream reader = {.world = world, .peer = fds[1]};
        size_t queued = tram_transport_get_write_buffer_size(transport);
        assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
        assert_rests(world);
        assert_int_equal(tram_transport_get_write_buffer_size(transport), queued);
        assert_trace(world, "");
        size_t got = 0;
        while (!recorder->lost) {
            got += drain_peer(&reader);
            run_ticks(world, 1);
        }
        got += drain_peer(&reader);
        assert_true(got >= queued);
        assert_int_equal(recorder->lost_code, 0);
        close(fds[1]);
        run_until(world, &recorder->was_released);
        world->trace[0] = '\0';
    }
}

static void test_I_9_a_reader_that_finishes_while_nothing_is_queued(void **state) {
    struct world *world = *state;
    int fds[2];
    unix_pair(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    pipe_of(recorder, fds[0], false);
    assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    run_until_traced(world, "released");
    assert_trace(world, "lost:0 released");
    close(fds[1]);
}

/* ---- The poller ---- */

static int never(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void test_L_44_a_poller_that_the_host_closed_ends_the_run(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    int poller = tram_loop_backend_fd(world->loop), stranger[2];
    close(poller);
    assert_int_equal(tram_loop_run_forever(world->loop), -EBADF);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EBADF);
    assert_non_null(strstr(world->exception, "cannot wait"));
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -EBADF);
    assert_int_equal(tram_loop_dispatch(world->loop), -EBADF);
    assert_int_equal(world->exceptions, 3);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    /* The number is a stranger's now, and stays so. */
    assert_int_equal(pipe2(stranger, O_CLOEXEC), 0);
    int number = fcntl(stranger[0], F_DUPFD_CLOEXEC, poller);
    assert_int_equal(tram_loop_call_later(world->loop, 1000000, never, NULL, NULL, NULL), 0);
    assert_int_not_equal(tram_loop_run_forever(world->loop), 0);
    tram_future_release(future);
    assert_int_equal(tram_loop_free(world->loop), 0);
    assert_true(fcntl(stranger[0], F_GETFD) >= 0);
    assert_true(fcntl(number, F_GETFD) >= 0);
    if (number != stranger[0])
        close(number);
    close(stranger[0]);
    close(stranger[1]);
    world->loop = NULL;
    world_reopen(world);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        TEST(L_43_streams_whose_socket_is_shut_down_elsewhere),
        TEST(L_43_streams_whose_peer_resets),
        TEST(P_10_a_half_open_connection_hears_of_a_reset),
        TEST(R_9_who_paused_reads_first_what_came_before_the_reset),
        TEST(L_43_streams_with_an_error_queue),
        TEST(L_43_an_error_queue_while_the_peer_does_not_read),
        TEST(L_43_urgent_data),
        TEST(L_2_L_5_who_resumes_in_a_tick_takes_nobodys_event),
        TEST(L_43_peeks),
        TEST(D_25_an_error_queue_is_told_and_emptied),
        TEST(D_25_each_error_of_the_queue_is_told),
        TEST(L_43_datagrams_with_timestamps),
        TEST(D_25_the_queue_is_emptied_under_traffic),
        TEST(L_43_operations_on_sockets_with_an_error_queue),
        TEST(V_12_a_listener_that_is_shut_down_elsewhere),
        TEST(V_12_a_policy_that_refuses_for_good),
        TEST(L_43_pipes_whose_other_end_goes),
        TEST(I_9_a_reader_that_only_finishes_gets_what_is_queued),
        TEST(I_9_a_reader_that_finishes_while_nothing_is_queued),
        TEST(L_44_a_poller_that_the_host_closed_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
