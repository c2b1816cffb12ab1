/*
 * Memory that runs out at any place, in what only some connections use: each call says so or does its part, and what
 * has gone well before goes on.
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &((struct recorder *)arg)->base;
    return 0;
}

/* Runs until it is done: 0 or what was missing. */
static int outcome_of(struct world *world, int status, tram_future *future) {
    if (!had_memory(status))
        return status;
    while (!tram_future_done(future))
        run_ticks(world, 1);
    status = tram_future_result(future, NULL);
    tram_future_release(future);
    return status;
}

/* A transport over one end of a pair; NULL: none, for want of memory, and the pair is closed. */
static tram_transport *transport_between(struct world *world, void (*make)(int fds[2]), struct recorder *recorder,
                                         int *ret_peer) {
    tram_transport *transport;
    int fds[2];
    make(fds);
    if (had_memory(transport_try_new(world, fds[0], &recorder->base, NULL, &transport))) {
        run_ticks(world, 2);
        assert_true(recorder->made);
        *ret_peer = fds[1];
        return transport;
    }
    close(fds[0]);
    close(fds[1]);
    return NULL;
}

static void end(struct world *world, struct recorder *recorder, int peer) {
    if (!recorder->lost && recorder->base.transport)
        tram_transport_abort(recorder->base.transport);
    run_ticks(world, 3);
    assert_true(recorder->was_released);
    close(peer);
    world->trace[0] = '\0';
}

static int never(tram_transport *transport, void *arg) {
    (void)transport, (void)arg;
    fail();
    return 0;
}

static void use_settings(struct world *world) {
    struct recorder *recorder = recorder_new(world, NULL);
    int peer;
    tram_transport *transport = transport_between(world, unix_pair, recorder, &peer);
    if (!transport)
        return;
    if (had_memory(tram_transport_begin_work(transport)))
        assert_int_equal(tram_transport_end_work(transport), 0);
    (void)had_memory(tram_transport_receive_fds(transport, 2));
    (void)had_memory(tram_transport_set_write_buffer_limits(transport, 1000, 10));
    if (had_memory(tram_transport_call_later(transport, HOUR_NS, never, NULL)))
        assert_int_equal(tram_transport_call_later(transport, TRAM_FOREVER, NULL, NULL), 0);
    (void)had_memory(tram_transport_close_lingering(transport, HOUR_NS));
    end(world, recorder, peer);
}

static void test_X_1_what_is_set_of_a_connection(void **state) {
    run_out_of_memory(*state, false, use_settings);
    run_out_of_memory(*state, true, use_settings);
}

/* More than its block, and a buffer that it refers to. */
static void use_output(struct world *world) {
    static const char bytes[20000];
    struct recorder *recorder = recorder_new(world, NULL);
    int peer;
    tram_transport *transport = transport_between(world, unix_pair, recorder, &peer);
    if (!transport)
        return;
    tram_buffer *buffer = tram_buffer_copy(bytes, sizeof bytes);
    tram_output output;
    tram_output_begin(&output, transport);
    tram_output_text(&output, "so many");
    tram_output_bytes(&output, bytes, sizeof bytes);
    if (buffer)
        tram_output_buffer(&output, buffer);
    tram_output_text(&output, "and some more");
    void *reserved = tram_output_reserve(&output, 10000);
    if (reserved)
        memset(reserved, 'x', 10000);
    int status = tram_output_send(&output);
    if (!had_memory(status)) {
        run_ticks(world, 2);
        assert_int_equal(recorder->lost_code, -ENOMEM);
    }
    tram_buffer_release(buffer);
    end(world, recorder, peer);
}

static void test_X_1_what_is_written_by_an_output(void **state) {
    run_out_of_memory(*state, false, use_output);
    run_out_of_memory(*state, true, use_output);
}

static int parse_lines(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line)))
        ;
    return status;
}

/* In pieces that must be kept. */
static void use_input(struct world *world) {
    static char bytes[3000];
    tram_input input;
    tram_input_options options = {.loop = world->loop, .parse = parse_lines};
    assert_int_equal(tram_input_init(&input, &options), 0);
    memset(bytes, 'x', sizeof bytes);
    int status = 0;
    for (int i = 0; i < 8 && had_memory(status); i++)
        status = tram_input_feed(&input, bytes, sizeof bytes);
    if (status) {
        assert_int_equal(tram_input_feed(&input, "\n", 1), -ENOMEM);
        assert_int_equal(tram_input_feed_eof(&input), -ENOMEM);
    } else {
        assert_int_equal(tram_input_feed(&input, "\n", 1), 0);
        assert_int_equal(tram_input_feed_eof(&input), 0);
    }
    tram_input_fini(&input);
}

static void test_X_1_what_is_kept_by_an_input(void **state) {
    run_out_of_memory(*state, false, use_input);
    run_out_of_memory(*state, true, use_input);
}

/* From hand to hand, with addresses that the socket does not have, and bytes that nobody has read. */
static void use_detached(struct world *world) {
    struct recorder *recorder = recorder_new(world, NULL), *second = recorder_new(world, NULL);
    int peer;
    tram_transport *transport = transport_between(world, tcp_pair, recorder, &peer);
    tram_detached *detached = NULL;
    if (!transport)
        return;
    int status = tram_transport_detach(transport, &detached);
    if (had_memory(status)) {
        tram_future *future = NULL;
        run_ticks(world, 2);
        assert_true(recorder->was_released);
        status = tram_loop_adopt_detached(world->loop, factory, second, detached, &future);
        if (had_memory(status)) {
            if (had_memory(outcome_of(world, 0, future)))
                end(world, second, dup(peer));
        }
        tram_detached_free(detached);
        close(peer);
        run_ticks(world, 2);
        world->trace[0] = '\0';
    } else {
        end(world, recorder, peer);
    }
}

static void test_X_1_what_goes_from_hand_to_hand(void **state) {
    run_out_of_memory(*state, false, use_detached);
    run_out_of_memory(*state, true, use_detached);
}

static int ask_where_it_came(struct recorder *recorder, const char *event) {
    tram_socket_address local;
    if (strcmp(event, "datagram") == 0)
        (void)had_memory(tram_transport_datagram_local(recorder->base.transport, &local));
    return 0;
}

static void use_datagrams(struct world *world) {
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future = NULL;
    const tram_datagram_options options = {.local_host = "127.0.0.1", .local_port = "0"};
    recorder->on = ask_where_it_came;
    int status = tram_loop_create_datagram_endpoint(world->loop, factory, recorder, &options, &future);
    if (!had_memory(status))
        return;
    tram_future_hold(future);
    void *value = NULL;
    if (had_memory(outcome_of(world, 0, future))) {
        assert_int_equal(tram_future_result(future, &value), 0);
        tram_transport *transport = value;
        tram_socket_address own = {.size = sizeof own.address};
        const tram_socket *view = tram_transport_get_extra_info(transport, "socket", NULL);
        if (view) {
            assert_int_equal(getsockname(view->fd, (struct sockaddr *)&own.address, &own.size), 0);
            for (int i = 0; i < 3; i++)
                (void)had_memory(tram_transport_sendto(transport, "datagram", 8, &own));
        }
        run_ticks(world, 3);
        tram_transport_abort(transport);
    }
    tram_future_release(future);
    run_ticks(world, 2);
    world->trace[0] = '\0';
}

static void test_X_1_what_comes_and_goes_as_datagrams(void **state) {
    run_out_of_memory(*state, false, use_datagrams);
    run_out_of_memory(*state, true, use_datagrams);
    run_out_of_other_memory(*state, true, use_datagrams);
}

/* Names are looked up by another thread, which may lack memory of its own. */
static void use_names(struct world *world) {
    tram_future *future = NULL;
    int status = tram_loop_create_connection(world->loop, recorder_factory, world, loopback_name(), "1", NULL, &future);
    if (!had_memory(status))
        return;
    while (!tram_future_done(future))
        run_ticks(world, 1);
    status = tram_future_result(future, NULL);
    assert_true(status < 0 && (status != TRAM_ERESOLVE || strcmp(loopback_name(), "localhost") == 0));
    tram_future_release(future);
    run_ticks(world, 2);
}

static void test_X_1_what_is_looked_up(void **state) {
    int held;
    (void)hold_port(&held);
    run_out_of_memory(*state, false, use_names);
    run_out_of_memory(*state, true, use_names);
    close(held);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_what_is_set_of_a_connection),      TEST(test_X_1_what_is_written_by_an_output),
        TEST(test_X_1_what_is_kept_by_an_input),         TEST(test_X_1_what_goes_from_hand_to_hand),
        TEST(test_X_1_what_comes_and_goes_as_datagrams), TEST(test_X_1_what_is_looked_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
