/* What programs ask of a transport beside moving bytes, and by which types futures are read. */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

/* ---- A pointer of the user's ---- */

static void test_X_10_a_user_pointer_lives_as_long_as_the_transport_is_held(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    tram_transport *transport = tram_transport_hold(wire.transport);
    int user;
    assert_null(tram_transport_user(transport));
    world->fail_after = 0;
    assert_int_equal(tram_transport_set_user(transport, NULL), 0); /* nothing to keep */
    assert_int_equal(tram_transport_set_user(transport, &user), -ENOMEM);
    assert_null(tram_transport_user(transport));
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_transport_set_user(transport, &user), 0);
    assert_ptr_equal(tram_transport_user(transport), &user);
    tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
    assert_ptr_equal(tram_transport_user(transport), &user);
    assert_int_equal(tram_transport_set_user(transport, NULL), 0);
    assert_null(tram_transport_user(transport));
    tram_transport_release(transport);
    close(wire.peer);
}

static void test_futures_and_servers_have_a_user_pointer(void **state) {
    struct world *world = *state;
    tram_future *future;
    int user;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_null(tram_future_user(future));
    assert_int_equal(tram_future_set_user(future, &user), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_ptr_equal(tram_future_user(future), &user);
    tram_server *server = tram_future_server(future);
    assert_null(tram_server_user(server));
    assert_int_equal(tram_server_set_user(server, &user), 0);
    tram_future_release(future);
    tram_server_close(server);
    assert_ptr_equal(tram_server_user(server), &user);
    assert_int_equal(tram_server_set_user(server, NULL), 0);
    assert_null(tram_server_user(server));
    tram_server_release(server);
}

/* ---- Futures by type ---- */

static void test_X_3_futures_are_read_by_their_type(void **state) {
    struct world *world = *state;
    tram_future *plain, *server, *transport, *drain;
    struct recorder *recorder;
    uint64_t count = 7;
    int pair[2];
    assert_int_equal(tram_loop_create_future(world->loop, &plain), 0);
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &server), 0);
    assert_null(tram_future_server(server)); /* pending */
    tcp_pair(pair);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, pair[0], &transport), 0);
    assert_null(tram_future_transport(transport));
    run_until_true(world, is_done, server);
    run_until_true(world, is_done, transport);
    recorder = world_last_recorder(world);
    assert_ptr_equal(tram_future_transport(transport), recorder->base.transport);
    assert_non_null(tram_future_server(server));
    assert_null(tram_future_server(transport));
    assert_null(tram_future_transport(server));
    assert_int_equal(tram_future_count(server, &count), TRAM_ETYPE);
    assert_int_equal(tram_future_set_result(plain, world), 0);
    assert_null(tram_future_transport(plain));
    assert_null(tram_future_server(plain));
    assert_int_equal(tram_future_count(plain, &count), TRAM_ETYPE);

    assert_int_equal(tram_server_drain(tram_future_server(server), TRAM_FOREVER, &drain), 0);
    assert_int_equal(tram_future_count(drain, &count), TRAM_ESTATE);
    assert_int_equal(count, 7);
    tram_server_close(tram_future_server(server));
    run_until_true(world, is_done, drain);
    assert_int_equal(tram_future_count(drain, &count), 0);
    assert_int_equal(count, 0);
    tram_future_release(drain);

    tram_server_release(tram_future_server(server));
    tram_transport_abort(recorder->base.transport);
    run_until(world, &recorder->was_released);
    tram_future_release(plain);
    tram_future_release(server);
    tram_future_release(transport);
    close(pair[1]);
}

static void test_O_1_counts_of_socket_operations(void **state) {
    struct world *world = *state;
    char bytes[8];
    int pair[2];
    uint64_t count;
    tram_future *future;
    tcp_pair(pair);
    assert_int_equal(tram_loop_sock_recv_into(world->loop, pair[0], bytes, sizeof bytes, &future), 0);
    send_exactly(NULL, pair[1], "abc", 3);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_count(future, &count), 0);
    assert_int_equal(count, 3);
    tram_future_release(future);
    assert_int_equal(tram_loop_sock_recv(world->loop, pair[0], 8, &future), 0);
    assert_int_equal(tram_future_count(future, &count), TRAM_ETYPE);
    tram_future_cancel(future);
    tram_future_release(future);
    close(pair[0]);
    close(pair[1]);
}

/* ---- Addresses ---- */

static void test_T_10_addresses_as_copies(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    tram_socket_address peer, sock, other;
    assert_int_equal(tram_transport_peername(wire.transport, &peer), 0);
    assert_int_equal(tram_transport_sockname(wire.transport, &sock), 0);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    assert_int_equal(getsockname(wire.peer, (struct sockaddr *)&name, &size), 0);
    assert_int_equal(tram_socket_address_port(&peer), ntohs(name.sin_port));
    assert_int_equal(getpeername(wire.peer, (struct sockaddr *)&name, &size), 0);
    assert_int_equal(tram_socket_address_port(&sock), ntohs(name.sin_port));
    tram_transport_abort(wire.transport);
    run_until(world, &recorder->was_released);
    struct recorder *a = recorder_new(world, NULL), *b = recorder_new(world, NULL);
    tram_transport *first;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &first, NULL), 0);
    other = peer;
    assert_int_equal(tram_transport_peername(first, &other), -ENOTSUP);
    assert_int_equal(tram_transport_sockname(first, &other), -ENOTSUP);
    assert_memory_equal(&other, &peer, sizeof peer);
    tram_transport_abort(first);
    run_to_rest(world);
    close(wire.peer);
}

static void test_ports_are_those_of_internet_addresses(void **state) {
    (void)state;
    tram_socket_address address;
    assert_int_equal(tram_socket_address_inet("127.0.0.1", "80", &address), 0);
    assert_int_equal(tram_socket_address_port(&address), 80);
    assert_int_equal(tram_socket_address_inet("::1", "65535", &address), 0);
    assert_int_equal(tram_socket_address_port(&address), 65535);
    assert_int_equal(tram_socket_address_unix("/x", 2, &address), 0);
    assert_int_equal(tram_socket_address_port(&address), -EAFNOSUPPORT);
    address = (tram_socket_address){0};
    assert_int_equal(tram_socket_address_port(&address), -EAFNOSUPPORT);
}

/* ---- Ending with an error ---- */

static void test_T_8_an_abort_may_say_why(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    int user;
    tram_error error = {.code = -EPROTO, .operation = "parse", .user = &user};
    assert_int_equal(tram_transport_abort_with_error(wire.transport, NULL), TRAM_EVALUE);
    assert_int_equal(tram_transport_abort_with_error(wire.transport, &(tram_error){.code = 0}), TRAM_EVALUE);
    assert_false(tram_transport_is_closing(wire.transport));
    assert_int_equal(tram_transport_abort_with_error(wire.transport, &error), 0);
    assert_int_equal(tram_transport_abort_with_error(wire.transport, &(tram_error){.code = -EIO}), 0); /* too late */
    assert_trace(world, "");
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:EPROTO released");
    assert_ptr_equal(recorder->lost_user, &user);
    close(wire.peer);
}

static void test_T_8_an_abort_of_a_pair_may_say_why(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    tram_transport *first;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &first, NULL), 0);
    run_to_rest(world);
    assert_trace(world, "a.made b.made");
    assert_int_equal(tram_transport_abort_with_error(first, &(tram_error){.code = -EPROTO}), 0);
    run_to_rest(world);
    assert_trace(world, "a.lost:EPROTO a.released b.eof b.lost:0 b.released");
}

/* ---- Sockets that are lent ---- */

static int take(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int refuse(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    (void)ret_protocol;
    return -EIO;
}

/* The peer sees no end, and the socket works on. */
static void assert_usable(int fd, int peer) {
    char byte;
    assert_true(fcntl(fd, F_GETFD) >= 0);
    assert_int_equal(recv(peer, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    await_events(peer, POLLIN);
    assert_int_equal(recv(peer, &byte, 1, 0), 1);
}

static void test_T_6_a_lent_socket_is_given_back(void **state) {
    struct world *world = *state;
    const tram_adopt_options options = {.unread = "early", .unread_size = 5, .not_ours = true};
    int (*const ends[])(tram_transport *) = {tram_transport_close, tram_transport_abort};
    int pair[2];
    tcp_pair(pair);
    for (size_t i = 0; i < 2; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        assert_int_equal(tram_loop_adopt_socket(world->loop, take, recorder, pair[0], &options, NULL), 0);
        run_until_traced(world, "data:5");
        ends[i](recorder->base.transport);
        run_until(world, &recorder->was_released);
        run_ticks(world, 1);
        assert_trace(world, "made data:5 lost:0 released");
        assert_usable(pair[0], pair[1]);
    }
    tram_future *future;
    assert_int_equal(tram_loop_adopt_socket(world->loop, refuse, NULL, pair[0], &options, &future), 0);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, NULL), -EIO);
    tram_future_release(future);
    assert_usable(pair[0], pair[1]);

    struct recorder *recorder = recorder_new(world, NULL);
    const tram_connection_options sock = {.sock = &pair[0], .not_ours = true};
    assert_int_equal(tram_loop_create_connection(world->loop, take, recorder, NULL, NULL, &sock, NULL), 0);
    run_until(world, &recorder->made);
    assert_int_equal(tram_loop_close(world->loop), 0); /* also where the loop ends first */
    assert_usable(pair[0], pair[1]);
    close(pair[0]);
    close(pair[1]);
}

/* ---- Descriptors of other kinds that are lent ---- */

#define LENT(name)                                                                                                     \
    static int name(struct world *world, tram_protocol_factory factory, void *arg, int fd, tram_future **ret_future)

LENT(lend_datagram) {
    const tram_datagram_options options = {.sock = &fd, .not_ours = true};
    return tram_loop_create_datagram_endpoint(world->loop, factory, arg, &options, ret_future);
}

LENT(lend_read_pipe) {
    const tram_pipe_options options = {.not_ours = true};
    return tram_loop_connect_read_pipe_with_options(world->loop, factory, arg, fd, &options, ret_future);
}

LENT(lend_write_pipe) {
    const tram_pipe_options options = {.not_ours = true};
    return tram_loop_connect_write_pipe_with_options(world->loop, factory, arg, fd, &options, ret_future);
}

LENT(lend_unix_socket) {
    const tram_unix_connection_options options = {.sock = &fd, .not_ours = true};
    return tram_loop_create_unix_connection(world->loop, factory, arg, NULL, 0, &options, ret_future);
}

static int a_pipe(bool end) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[!end]);
    return fds[end];
}

static int a_read_pipe(void) {
    return a_pipe(false);
}

static int a_write_pipe(void) {
    return a_pipe(true);
}

static int a_datagram_socket(void) {
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int a_unix_socket(void) {
    int pair[2];
    unix_pair(pair);
    close(pair[1]);
    return pair[0];
}

static const struct {
    int (*lend)(struct world *world, tram_protocol_factory factory, void *arg, int fd, tram_future **ret_future);
    int (*open)(void);
} lent[] = {
    {lend_datagram, a_datagram_socket},
    {lend_read_pipe, a_read_pipe},
    {lend_write_pipe, a_write_pipe},
    {lend_unix_socket, a_unix_socket},
};

static void test_T_6_lent_descriptors_of_all_kinds_are_given_back(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof lent / sizeof *lent; i++) {
        int fd = lent[i].open();
        tram_future *future;
        assert_int_equal(lent[i].lend(world, refuse, NULL, fd, &future), 0);
        run_until_true(world, is_done, future);
        assert_int_equal(tram_future_result(future, NULL), -EIO);
        tram_future_release(future);
        assert_true(fcntl(fd, F_GETFD) >= 0);

        struct recorder *recorder = recorder_new(world, NULL);
        assert_int_equal(lent[i].lend(world, take, recorder, fd, NULL), 0);
        run_until(world, &recorder->made);
        tram_transport_abort(recorder->base.transport);
        run_until(world, &recorder->was_released);
        assert_true(fcntl(fd, F_GETFD) >= 0);

        recorder = recorder_new(world, NULL);
        assert_int_equal(lent[i].lend(world, take, recorder, fd, NULL), 0);
        run_until(world, &recorder->made);
        world_reopen(world); /* also where the loop ends first */
        assert_int_equal(close(fd), 0);
    }
}

static void test_V_16_lent_listening_sockets_are_given_back(void **state) {
    struct world *world = *state;
    for (int round = 0; round < 2; round++) {
        uint16_t port;
        int fd = tcp_listener(5, &port);
        tram_future *future;
        const tram_server_options options = {.sockets = &fd, .socket_count = 1, .not_ours = true};
        assert_int_equal(tram_loop_create_server(world->loop, refuse, NULL, NULL, NULL, &options, &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        tram_server *server = tram_future_server(future);
        tram_server_close(server);
        tram_server_release(server);
        tram_future_release(future);
        run_ticks(world, 2);
        if (round)
            world_reopen(world);
        int client = tcp_connect(port), accepted;
        assert_true(client >= 0);
        await_events(fd, POLLIN);
        assert_true((accepted = accept(fd, NULL, NULL)) >= 0); /* it still listens */
        close(accepted);
        close(client);
        assert_int_equal(close(fd), 0);
    }
    tram_server_options wrong = {.not_ours = true};
    assert_int_equal(tram_loop_create_server(world->loop, refuse, NULL, NULL, "0", &wrong, NULL), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "not_ours");
}

static void test_T_6_what_is_not_lent_is_closed(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    int pair[2];
    tcp_pair(pair);
    assert_int_equal(tram_loop_adopt_socket(world->loop, take, recorder, pair[0], NULL, NULL), 0);
    run_until(world, &recorder->made);
    tram_transport_abort(recorder->base.transport);
    run_until(world, &recorder->was_released);
    assert_int_equal(fcntl(pair[0], F_GETFD), -1);
    const tram_adopt_options newer = {.reserved = {1}};
    assert_int_equal(tram_loop_adopt_socket(world->loop, take, recorder, pair[1], &newer, NULL), TRAM_EVALUE);
    close(pair[1]);
}

/* ---- Detached ---- */

static void test_a_detached_socket_that_nobody_took_is_closed(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    tram_detached *detached;
    assert_int_equal(tram_transport_detach(wire.transport, &detached), 0);
    run_ticks(world, 1);
    assert_true(fcntl(wire.fd, F_GETFD) >= 0);
    tram_detached_free(detached);
    assert_int_equal(fcntl(wire.fd, F_GETFD), -1);
    tram_detached_free(NULL);
    close(wire.peer);
}

/* ---- What a transport can do ---- */

struct sink {
    tram_transport *transport;
    char bytes[65536];
    size_t size;
    bool writes_itself; /* within: what is written then is refused while a file is being sent */
    int status;
};

static int sink_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct sink *sink = state;
    for (size_t i = 0; i < count; i++) {
        assert_true(sink->size + pieces[i].iov_len <= sizeof sink->bytes);
        memcpy(sink->bytes + sink->size, pieces[i].iov_base, pieces[i].iov_len);
        sink->size += pieces[i].iov_len;
        tram_custom_sent(transport, pieces[i].iov_len);
    }
    if (sink->writes_itself)
        sink->status = tram_transport_write(transport, "smuggled", 8);
    return 0;
}

static void test_M_1_a_custom_transport_says_what_it_can_do(void **state) {
    struct world *world = *state;
    static const tram_custom_ops plain = {.writelines = sink_writelines};
    static const tram_custom_ops able = {
        .writelines = sink_writelines, .sendfile_mode = TRAM_SENDFILE_FALLBACK, .start_tls_compatible = true};
    static const tram_custom_ops native = {.writelines = sink_writelines, .sendfile_mode = TRAM_SENDFILE_TRY_NATIVE};
    struct sink sink = {0};
    struct recorder *a = recorder_new(world, NULL), *b = recorder_new(world, NULL);
    tram_transport *transport;
    tram_future *future;
    char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    FILE *file = tmpfile();
    assert_int_equal(fwrite(text, 1, sizeof text, file), sizeof text);
    fflush(file);

    assert_int_equal(tram_loop_create_custom(world->loop, &native, &sink, &a->base, &transport), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_custom(world->loop, &plain, &sink, &a->base, &transport), 0);
    run_until(world, &a->made);
    assert_int_equal(tram_transport_sendfile_mode(transport), TRAM_SENDFILE_UNSUPPORTED);
    assert_false(tram_transport_start_tls_compatible(transport));
    assert_int_equal(tram_loop_sendfile(world->loop, transport, fileno(file), 0, 10, NULL, NULL), TRAM_ESTATE);
    tram_transport_abort(transport);

    assert_int_equal(tram_loop_create_custom(world->loop, &able, &sink, &b->base, &transport), 0);
    run_until(world, &b->made);
    assert_int_equal(tram_transport_sendfile_mode(transport), TRAM_SENDFILE_FALLBACK);
    assert_true(tram_transport_start_tls_compatible(transport));
    assert_int_equal(tram_loop_sendfile(world->loop, transport, fileno(file), 0, TRAM_SENDFILE_ALL, NULL, &future), 0);
    assert_int_equal(tram_transport_write(transport, "between", 7), TRAM_ESTATE);
    sink.writes_itself = true;
    run_until_true(world, is_done, future);
    sink.writes_itself = false;
    assert_int_equal(sink.status, TRAM_ESTATE); /* also by the half that carries a block (F-6) */
    uint64_t count;
    assert_int_equal(tram_future_count(future, &count), 0);
    assert_int_equal(count, sizeof text);
    assert_int_equal(sink.size, sizeof text);
    assert_memory_equal(sink.bytes, text, sizeof text);
    tram_future_release(future);
    const tram_sendfile_options strict = {.no_fallback = true};
    assert_int_equal(tram_loop_sendfile(world->loop, transport, fileno(file), 0, 10, &strict, &future), 0);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ENOSENDFILE);
    tram_future_release(future);
    assert_int_equal(tram_transport_write(transport, "after", 5), 0);
    assert_int_equal(sink.size, sizeof text + 5);
    tram_transport_abort(transport);
    run_to_rest(world);
    fclose(file);
}

static void test_F_1_sockets_can_send_files_and_carry_tls(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    assert_int_equal(tram_transport_sendfile_mode(wire.transport), TRAM_SENDFILE_TRY_NATIVE);
    assert_true(tram_transport_start_tls_compatible(wire.transport));
    tram_transport_abort(wire.transport);
    run_until(world, &recorder->was_released);
    close(wire.peer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_10_a_user_pointer_lives_as_long_as_the_transport_is_held),
        TEST(test_futures_and_servers_have_a_user_pointer),
        TEST(test_X_3_futures_are_read_by_their_type),
        TEST(test_O_1_counts_of_socket_operations),
        TEST(test_T_10_addresses_as_copies),
        TEST(test_ports_are_those_of_internet_addresses),
        TEST(test_T_8_an_abort_may_say_why),
        TEST(test_T_8_an_abort_of_a_pair_may_say_why),
        TEST(test_T_6_a_lent_socket_is_given_back),
        TEST(test_T_6_lent_descriptors_of_all_kinds_are_given_back),
        TEST(test_V_16_lent_listening_sockets_are_given_back),
        TEST(test_T_6_what_is_not_lent_is_closed),
        TEST(test_a_detached_socket_that_nobody_took_is_closed),
        TEST(test_M_1_a_custom_transport_says_what_it_can_do),
        TEST(test_F_1_sockets_can_send_files_and_carry_tls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
