/* Connections that go from hand to hand: peek, adopt, detach, and other people's addresses. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "support/layers.h"
#include "support/memory.h"
#include "support/stream.h"
#include "support/support.h"
#include "transports/base/handover.h"

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &((struct recorder *)arg)->base;
    return 0;
}

static void adopt(struct world *world, struct recorder *recorder, int fd, const char *unread) {
    recorder->keep = true;
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fd, unread, strlen(unread), NULL), 0);
}

static void finish(struct world *world, struct recorder *recorder, int peer) {
    tram_transport_abort(recorder->base.transport);
    run_to_rest(world);
    assert_true(recorder->lost && recorder->was_released);
    world->trace[0] = '\0';
    close(peer);
}

/* ---- adopt ---- */

static void test_unread_bytes_come_before_those_of_the_socket(void **state) {
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        int fds[2];
        tcp_pair(fds);
        send_exactly(NULL, fds[1], "second", 6);
        adopt(world, recorder, fds[0], "first ");
        assert_trace(world, "");
        run_to_rest(world);
        assert_trace(world, buffered ? "made get_buffer updated:6 get_buffer updated:6" : "made data:6 data:6");
        if (!buffered)
            assert_memory_equal(recorder->bytes, "first second", 12);
        finish(world, recorder, fds[1]);
    }
}

static int note_creator(tram_future *future, void *arg) {
    assert_int_equal(tram_future_result(future, NULL), 0);
    trace(arg, "creator");
    return 0;
}

static void test_P_4_C_11_the_creator_goes_on_before_unread_bytes(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    int fds[2];
    tcp_pair(fds);
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], "x", 1, &future), 0);
    assert_int_equal(tram_future_add_done_callback(future, note_creator, world), 0);
    run_to_rest(world);
    assert_trace(world, "made creator data:1");
    void *transport;
    assert_int_equal(tram_future_result(future, &transport), 0);
    assert_ptr_equal(transport, recorder->base.transport);
    tram_future_release(future);
    finish(world, recorder, fds[1]);

    tcp_pair(fds);
    recorder = recorder_new(world, NULL);
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], "x", 1, &future), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    tram_future_release(future);
    run_to_rest(world);
    assert_trace(world, "released");
    assert_true(receive_eof(world, fds[1]));
    close(fds[1]);
}

static int pause_when_made(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

static void test_unread_bytes_wait_while_reading_is_paused(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    int fds[2];
    tcp_pair(fds);
    recorder->on = pause_when_made;
    adopt(world, recorder, fds[0], "first");
    send_exactly(NULL, fds[1], "second", 6);
    run_to_rest(world);
    assert_trace(world, "made");
    tram_transport_resume_reading(recorder->base.transport);
    tram_transport_pause_reading(recorder->base.transport);
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_resume_reading(recorder->base.transport);
    tram_transport_pause_reading(recorder->base.transport);
    tram_transport_resume_reading(recorder->base.transport);
    run_to_rest(world);
    assert_trace(world, "data:5 data:6");
    finish(world, recorder, fds[1]);
}

static int end_on_data(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    return recorder->arg ? TRAM_EUSER : tram_transport_close(recorder->base.transport);
}

static void test_a_protocol_may_end_on_unread_bytes(void **state) {
    struct world *world = *state;
    for (int failing = 0; failing < 2; failing++) {
        struct recorder *recorder = recorder_new(world, NULL);
        int fds[2];
        tcp_pair(fds);
        send_exactly(NULL, fds[1], "never read", 10);
        recorder->on = end_on_data;
        recorder->arg = failing ? world : NULL;
        adopt(world, recorder, fds[0], "x");
        run_until(world, &recorder->was_released);
        assert_int_equal(recorder->received, 1);
        assert_int_equal(recorder->lost_code, failing ? TRAM_EUSER : 0);
        close(fds[1]);
    }
}

static void test_what_cannot_be_adopted(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    int fds[2], pipes[2];
    tcp_pair(fds);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(tram_loop_adopt(world->loop, NULL, NULL, fds[0], "x", 1, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], NULL, 1, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, pipes[0], "x", 1, NULL), TRAM_EVALUE);
    world->fail_after = 0;
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], "x", 1, NULL), -ENOMEM);
    world->fail_after = 1;
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], "x", 1, NULL), -ENOMEM);
    world->fail_after = SIZE_MAX;
    run_to_rest(world);
    assert_trace(world, "");
    assert_true(fcntl(fds[0], F_GETFD) >= 0);
    close(fds[0]);
    close(fds[1]);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- detach ---- */

static void test_a_detached_socket_is_the_callers_and_nothing_was_lost(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    struct detached detached;
    tram_transport *transport = tram_transport_hold(wire.transport);
    assert_int_equal(detach(transport, &detached), 0);
    assert_int_equal(detached.fd, wire.fd);
    assert_null(detached.unread);
    assert_trace(world, "");
    assert_true(tram_transport_is_closing(transport));
    assert_int_equal(tram_transport_write(transport, "x", 1), 0); /* dropped, as after connection_lost */
    assert_int_equal(detach(transport, &detached), TRAM_ESTATE);
    assert_int_equal(detached.fd, -1);
    tram_transport_release(transport);
    send_exactly(NULL, wire.peer, "hello", 5);
    run_to_rest(world);
    assert_trace(world, "released");
    struct recorder *next = recorder_new(world, "next");
    adopt(world, next, wire.fd, "");
    run_to_rest(world);
    assert_trace(world, "next.made next.data:5");
    finish(world, next, wire.peer);
}

static int detach_without_memory(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    tram_detached *detached = NULL;
    unsigned failures = 0;
    int status;
    for (bool done = false; !done; failures += !done) {
        memory_fail(failures + 1, 1);
        status = tram_transport_detach(recorder->base.transport, &detached);
        done = !memory_failed();
        memory_fail(0, 0);
        assert_int_equal(status, done ? 0 : -ENOMEM);
        assert_true(done || !detached);
    }
    assert_in_range(failures, 1, 3);
    *(tram_detached **)recorder->arg = detached;
    return 0;
}

static void test_a_detach_without_memory_changes_nothing(void **state) {
    struct world *world = *state;
    tram_detached *detached = NULL;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    recorder->on = detach_without_memory;
    recorder->arg = &detached;
    send_exactly(NULL, wire.peer, "hello", 5);
    run_to_rest(world);
    assert_trace(world, "data:5 released");
    assert_int_equal(tram_detached_take_fd(detached), wire.fd);
    tram_detached_free(detached);
    close(wire.fd);
    close(wire.peer);
}

/* What was unread goes along, to a loop that knows nothing of the first one. */
static void test_a_connection_moves_to_another_loop(void **state) {
    struct world *world = *state;
    struct recorder *here = recorder_new(world, "here"), *there = recorder_new(world, "there");
    struct detached detached;
    tram_loop *other;
    int fds[2];
    tcp_pair(fds);
    here->on = pause_when_made;
    adopt(world, here, fds[0], "unread ");
    send_exactly(NULL, fds[1], "and unseen", 10);
    run_to_rest(world);
    assert_int_equal(detach(here->base.transport, &detached), 0);
    run_to_rest(world);
    assert_trace(world, "here.made here.released");
    there->keep = true;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_adopt(other, factory, there, detached.fd, tram_buffer_data(detached.unread),
                                     tram_buffer_size(detached.unread), NULL),
                     0);
    tram_buffer_release(detached.unread);
    while (there->received < 17)
        assert_int_equal(tram_loop_dispatch(other), 0);
    assert_memory_equal(there->bytes, "unread and unseen", 17);
    assert_int_equal(tram_loop_free(other), 0);
    assert_trace(world, "there.made there.data:7 there.data:10 there.lost:0 there.released");
    close(fds[1]);
}

static struct detached detached_inside;

static int detach_on(struct recorder *recorder, const char *event) {
    if (strcmp(event, recorder->arg) == 0)
        assert_int_equal(detach(recorder->base.transport, &detached_inside), 0);
    return 0;
}

static void test_detach_in_any_callback_hands_over_what_is_unread(void **state) {
    static const struct {
        const char *event, *trace, *left;
        bool buffered;
    } cases[] = {
        {"made", "made released", "abcdefgh", false},
        {"data", "made data:8 released", "", false},
        {"get_buffer", "made get_buffer released", "abcdefgh", true},
        {"updated", "made get_buffer updated:3 released", "defgh", true},
    };
    struct world *world = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recorder *recorder = cases[i].buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        tram_future *future;
        int fds[2];
        tcp_pair(fds);
        recorder->on = detach_on;
        recorder->arg = (void *)(uintptr_t)cases[i].event;
        recorder->buffer_size = 3;
        assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], "abcdefgh", 8, &future), 0);
        run_to_rest(world);
        assert_trace(world, cases[i].trace);
        assert_true(tram_future_done(future));
        assert_int_equal(tram_future_cancelled(future), i == 0);
        tram_future_release(future);
        assert_int_equal(detached_inside.fd, fds[0]);
        size_t left = strlen(cases[i].left);
        assert_int_equal(detached_inside.unread ? tram_buffer_size(detached_inside.unread) : 0, left);
        if (left)
            assert_memory_equal(tram_buffer_data(detached_inside.unread), cases[i].left, left);
        tram_buffer_release(detached_inside.unread);
        assert_int_equal(send(fds[0], "x", 1, 0), 1);
        close(fds[0]);
        close(fds[1]);
    }
}

static void test_a_server_does_not_wait_for_what_was_detached(void **state) {
    struct world *world = *state;
    tram_future *future;
    void *server;
    tram_socket_address address;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    int client = tcp_connect(ntohs(((struct sockaddr_in *)&address.address)->sin_port));
    run_until_traced(world, "made");
    struct detached detached;
    assert_int_equal(tram_server_connection_count(server), 1);
    assert_int_equal(detach(world_last_recorder(world)->base.transport, &detached), 0);
    assert_int_equal(tram_server_connection_count(server), 0);
    tram_server_close(server);
    assert_int_equal(tram_server_wait_closed(server, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
    tram_server_release(server);
    assert_int_equal(send(detached.fd, "still here", 10, 0), 10);
    close(detached.fd);
    close(client);
}

static void test_what_cannot_be_detached(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    struct detached detached;
    fill(stream.transport, 1);
    world->trace[0] = '\0';
    assert_int_equal(detach(stream.transport, &detached), -EAGAIN);
    assert_int_equal(detached.fd, -1);
    tram_transport_close(stream.transport);
    assert_int_equal(detach(stream.transport, &detached), TRAM_ESTATE);
    stream_close(&stream);
    struct recorder *a = recorder_new(world, NULL), *b = recorder_new(world, NULL);
    tram_transport *first;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &first, NULL), 0);
    assert_int_equal(detach(first, &detached), -ENOTSUP);
    tram_transport_abort(first);
    run_to_rest(world);
    int fds[2];
    tcp_pair(fds);
    tram_transport *unmade = transport_new(world, fds[0], recorder_new(world, NULL));
    assert_int_equal(detach(unmade, &detached), TRAM_ESTATE);
    tram_transport_abort(unmade);
    run_to_rest(world);
    close(fds[1]);
}

/* ---- adopt_detached: all of it goes along ---- */

/* Both ends have codecs; the second one's goes to another loop, of the same thread. */
struct move {
    struct channel channel;
    tram_loop *other;
    struct recorder *there;
    tram_detached *detached;
};

static void move_open(struct move *move, struct world *world, enum carrier carrier, unsigned depth) {
    *move = (struct move){.there = recorder_new(world, "there")};
    move->there->keep = move->there->quiet_data = true;
    channel_open_made(&move->channel, world, carrier, depth);
    move->channel.a->quiet_data = move->channel.b->quiet_data = true;
    assert_int_equal(tram_loop_new(NULL, &move->other), 0);
}

static void turn(struct move *move) {
    run_ticks(move->channel.world, 1);
    assert_true(tram_loop_dispatch(move->other) >= 0);
}

static void await(struct move *move, const bool *flag) {
    for (time_t start = time(NULL); !*flag; turn(move))
        assert_true(time(NULL) - start < 20);
}

static void await_bytes(struct move *move, const struct recorder *recorder, size_t size) {
    for (time_t start = time(NULL); recorder->received < size; turn(move))
        assert_true(time(NULL) - start < 20);
    assert_int_equal(recorder->received, size);
}

static void leave_now(struct move *move) {
    assert_int_equal(tram_transport_detach(move->channel.second, &move->detached), 0);
    run_until(move->channel.world, &move->channel.b->was_released);
}

static void arrive(struct move *move) {
    assert_int_equal(tram_loop_adopt_detached(move->other, factory, move->there, move->detached, NULL), 0);
    assert_int_equal(tram_detached_take_fd(move->detached), TRAM_ESTATE);
    assert_int_equal(tram_loop_adopt_detached(move->other, factory, move->there, move->detached, NULL), TRAM_ESTATE);
    tram_detached_free(move->detached);
}

static void move_close(struct move *move) {
    struct world *world = move->channel.world;
    if (move->there->base.transport)
        await(move, &move->there->was_released);
    await(move, &move->channel.a->was_released);
    run_to_rest(world);
    assert_int_equal(tram_loop_free(move->other), 0);
    assert_int_equal(move->channel.live, 0);
    world->trace[0] = '\0';
}

/* In the midst of a receive: the layers have read a part of it, the protocol has a part of that. */
static int leave_on_data(struct recorder *recorder, const char *event) {
    struct move *move = recorder->arg;
    if (strcmp(event, "data") != 0)
        return 0;
    assert_int_equal(tram_transport_detach(recorder->base.transport, &move->detached), 0);
    return 0;
}

static void moves_within(struct world *world, enum carrier carrier, unsigned depth) {
    struct move move;
    const size_t size = 120000;
    move_open(&move, world, carrier, depth);
    struct recorder *b = move.channel.b;
    b->on = leave_on_data;
    b->arg = &move;
    write_pattern(move.channel.first, size, 0);
    run_until(world, &b->was_released);
    struct codec *codec = move.channel.second_codec;
    assert_int_equal(codec->left, 1);
    assert_int_equal(codec->arrived, 0);
    assert_true(b->received > 0 && b->received < size);
    assert_int_equal(tram_detached_take_fd(move.detached), -ENOTSUP); /* without its layers it is of no use */
    arrive(&move);
    assert_int_equal(codec->arrived, 1);
    await_bytes(&move, move.there, size - b->received);
    assert_pattern(b->bytes, b->received, 0);
    assert_pattern(move.there->bytes, size - b->received < 60000 ? size - b->received : 60000, b->received);
    write_pattern(move.there->base.transport, size, 0);
    await_bytes(&move, move.channel.a, size);
    tram_transport_close(move.there->base.transport); /* each layer says goodbye from there */
    move_close(&move);
    assert_int_equal(move.there->lost_code, 0);
    assert_int_equal(move.channel.a->lost_code, 0);
}

#define EACH_SOCKET(scene)                                                                                             \
    for (enum carrier carrier = CARRIER_TCP; carrier <= CARRIER_UNIX; carrier++)                                       \
        for (unsigned depth = 1; depth <= 2; depth++)                                                                  \
    scene(*state, carrier, depth)

static void test_Y_1_Y_3_Y_7_a_connection_moves_with_its_layers(void **state) {
    EACH_SOCKET(moves_within);
}

/*
 * The second end is paused, and reads on for the answer to its layer's question; what the first one writes right behind
 * that answer comes with it, and is held: a frame for the protocol, the rest for the layer.
 */
static void hold_some(struct move *move, size_t size) {
    tram_transport_pause_reading(move->channel.second);
    write_pattern(move->channel.second, CODEC_ASKS_AFTER, 0);
    write_pattern(move->channel.second, 1000, CODEC_ASKS_AFTER);
    assert_int_equal(tram_transport_get_write_buffer_size(move->channel.second), 1000);
    await_bytes(move, move->channel.a, CODEC_ASKS_AFTER);
    write_pattern(move->channel.first, size, 0);
    await_bytes(move, move->channel.a, CODEC_ASKS_AFTER + 1000);
    run_to_rest(move->channel.world);
    assert_int_equal(move->channel.b->received, 0);
}

static void test_Y_1_Y_3_what_is_held_moves_along(void **state) {
    for (enum carrier carrier = CARRIER_TCP; carrier <= CARRIER_UNIX; carrier++) {
        struct move move;
        move_open(&move, *state, carrier, 1);
        hold_some(&move, 15000);
        leave_now(&move);
        assert_int_equal(move.channel.b->received, 0);
        assert_true(carrier == CARRIER_TCP || tram_detached_unread(move.detached));
        arrive(&move);
        await_bytes(&move, move.there, 15000);
        assert_pattern(move.there->bytes, 15000, 0);
        tram_transport_close(move.channel.first);
        move_close(&move);
    }
}

static void test_Y_1_marks_limits_and_the_end_of_writing_move_along(void **state) {
    struct world *world = *state;
    for (unsigned depth = 0; depth <= 1; depth++) {
        struct move move;
        size_t high = 0, low = 0;
        move_open(&move, world, CARRIER_TCP, depth);
        tram_transport *transport = move.channel.second;
        move.channel.a->eof_returns = 1;
        assert_int_equal(tram_transport_set_write_buffer_limits(transport, 5000, 2000), 0);
        assert_int_equal(tram_transport_set_write_hard_limit(transport, 9000), 0);
        assert_int_equal(tram_transport_write(transport, "last", 4), 0);
        assert_int_equal(tram_transport_write_eof(transport), 0);
        await_bytes(&move, move.channel.a, 4);
        leave_now(&move);
        arrive(&move);
        await(&move, &move.there->made);
        transport = move.there->base.transport;
        assert_int_equal(tram_transport_get_write_buffer_limits(transport, &high, &low), 0);
        assert_int_equal(high, 5000);
        assert_int_equal(low, 2000);
        assert_int_equal(tram_transport_write(transport, "x", 1), TRAM_ESTATE);
        write_pattern(move.channel.first, 3000, 0);
        await_bytes(&move, move.there, 3000);
        tram_transport_close(move.channel.first);
        move_close(&move);
        assert_int_equal(move.there->lost_code, 0);
    }
}

static void test_Y_1_N_17_N_19_the_address_moves_along(void **state) {
    for (unsigned depth = 0; depth <= 2; depth++) {
        struct move move;
        tram_address before, after;
        move_open(&move, *state, CARRIER_TCP, depth);
        assert_int_equal(tram_transport_address(move.channel.second, &before), 0);
        leave_now(&move);
        arrive(&move);
        await(&move, &move.there->made);
        assert_int_equal(tram_transport_address(move.there->base.transport, &after), 0);
        assert_true(tram_address_equal(before, after));
        if (depth) {
            tram_message_counts counts;
            move.channel.second_codec->refuses = -EAGAIN;
            assert_int_equal(tram_transport_detach(move.there->base.transport, &move.detached), -EAGAIN);
            for (unsigned i = 0; i < 4; i++)
                turn(&move);
            assert_int_equal(tram_address_message_counts(move.channel.world->loop, before, &counts), 0);
        }
        tram_transport_close(move.channel.first);
        move_close(&move);
    }
}

static void test_Y_1_a_hard_limit_holds_where_the_connection_went(void **state) {
    struct move move;
    move_open(&move, *state, CARRIER_TCP, 1);
    assert_int_equal(tram_transport_set_write_hard_limit(move.channel.second, 100000), 0);
    leave_now(&move);
    arrive(&move);
    await(&move, &move.there->made);
    tram_transport_pause_reading(move.channel.first); /* and so the layer gets no answer, and keeps what is written */
    for (int i = 0; i < 1000 && !tram_transport_is_closing(move.there->base.transport); i++)
        write_pattern(move.there->base.transport, 5000, 0);
    await(&move, &move.there->lost);
    assert_int_equal(move.there->lost_code, TRAM_ELIMIT);
    tram_transport_resume_reading(move.channel.first);
    move_close(&move);
}

static void test_Y_7_N_19_what_layers_refuse_leaves_the_connection_as_it_was(void **state) {
    struct world *world = *state;
    struct move move;
    move_open(&move, world, CARRIER_TCP, 2);
    tram_transport *transport = move.channel.second;
    struct codec *top = move.channel.second_codec, *bottom = (struct codec *)top->layer.below;
    tram_address address;
    tram_message_counts counts;
    assert_int_equal(tram_transport_address(transport, &address), 0);
    top->refuses = -EAGAIN;
    assert_int_equal(tram_transport_detach(transport, &move.detached), -EAGAIN);
    assert_null(move.detached);
    run_ticks(world, 2);
    assert_int_equal(tram_address_message_counts(world->loop, address, &counts), 0);
    assert_int_equal(bottom->left, 1);
    assert_int_equal(bottom->arrived, 1);
    assert_int_equal(top->left + top->arrived, 0);
    top->refuses = 0;
    /* What the layers keep for writing is queued as well. */
    tram_transport_pause_reading(move.channel.first);
    while (tram_transport_get_write_buffer_size(transport) == 0)
        write_pattern(transport, 5000, 0);
    assert_int_equal(tram_transport_detach(transport, &move.detached), -EAGAIN);
    assert_null(move.detached);
    tram_transport_resume_reading(move.channel.first);
    while (tram_transport_get_write_buffer_size(transport) > 0)
        turn(&move);
    /* One that cannot even come back has failed. */
    top->refuses = -ENOTSUP;
    bottom->lands_with = -ENOMEM;
    assert_int_equal(tram_transport_detach(transport, &move.detached), -ENOTSUP);
    await(&move, &move.channel.b->lost);
    assert_int_equal(move.channel.b->lost_code, -ENOMEM);
    move_close(&move);

    struct channel channel;
    channel_open(&channel, world, CARRIER_TCP, 1, &codec_whole_kind);                    /* of a kind that stays */
    assert_int_equal(tram_transport_detach(channel.first, &move.detached), TRAM_ESTATE); /* not ready */
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    assert_int_equal(tram_transport_detach(channel.first, &move.detached), -ENOTSUP);
    assert_null(move.detached);
    tram_transport_write(channel.first, "hello", 5);
    run_until_traced(world, "b.data:5");
    channel_close(&channel);
}

static void test_Y_7_a_layer_that_does_not_arrive_is_the_creators_error(void **state) {
    struct world *world = *state;
    for (unsigned which = 0; which < 2; which++) {
        struct move move;
        tram_future *future;
        move_open(&move, world, CARRIER_TCP, 2);
        struct codec *top = move.channel.second_codec;
        (which ? top : (struct codec *)top->layer.below)->lands_with = -ECONNREFUSED;
        leave_now(&move);
        assert_int_equal(tram_loop_adopt_detached(move.other, factory, move.there, move.detached, &future), 0);
        tram_detached_free(move.detached);
        while (!tram_future_done(future))
            turn(&move);
        assert_int_equal(tram_future_error(future)->code, -ECONNREFUSED);
        tram_future_release(future);
        await(&move, &move.there->was_released);
        assert_false(move.there->made || move.there->lost);
        move_close(&move); /* the peer sees the end, and all layers are gone */
    }
}

static void test_Y_7_whom_nobody_adopts_ends_with_its_layers(void **state) {
    struct world *world = *state;
    struct move move;
    move_open(&move, world, CARRIER_TCP, 2);
    leave_now(&move);
    assert_int_equal(tram_loop_adopt_detached(move.other, NULL, NULL, move.detached, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_adopt_detached(move.other, factory, move.there, NULL, NULL), TRAM_EVALUE);
    tram_detached_free(move.detached);
    move_close(&move);
    /* The same where the other loop closes, before connection_made. */
    move_open(&move, world, CARRIER_TCP, 2);
    leave_now(&move);
    arrive(&move);
    assert_int_equal(tram_loop_free(move.other), 0);
    assert_true(move.there->was_released && !move.there->made);
    channel_close(&move.channel);
}

/* As by the end of a worker's grace: nobody else has it yet. */
static void test_Y_6_Y_7_an_abort_before_connection_made_is_heard_as_released_alone(void **state) {
    struct world *world = *state;
    struct move move;
    move_open(&move, world, CARRIER_TCP, 2);
    leave_now(&move);
    int fd = tram__detached_fd(move.detached);
    arrive(&move);
    struct io *io = tram__io_of_descriptor(move.other, fd);
    assert_non_null(io);
    assert_int_equal(tram_transport_abort((tram_transport *)(void *)io), 0);
    await(&move, &move.there->was_released);
    assert_false(move.there->made || move.there->lost);
    move_close(&move);
}

/* As any descriptor, in a process that has closed its standard input. */
static void test_Y_1_a_connection_that_is_descriptor_0_moves(void **state) {
    struct world *world = *state;
    struct recorder *here = recorder_new(world, "here"), *there = recorder_new(world, "there");
    tram_detached *detached;
    int fds[2], zero = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(zero, 0);
    tcp_pair(fds);
    assert_int_equal(dup3(fds[0], zero, O_CLOEXEC), zero);
    close(fds[0]);
    adopt(world, here, zero, "");
    run_until_traced(world, "here.made");
    assert_int_equal(tram_transport_detach(here->base.transport, &detached), 0);
    run_until(world, &here->was_released);
    there->keep = true;
    assert_int_equal(tram__detached_fd(detached), zero);
    assert_int_equal(tram_loop_adopt_detached(world->loop, factory, there, detached, NULL), 0);
    tram_detached_free(detached);
    send_exactly(world, fds[1], "hello", 5);
    run_until_traced(world, "there.data:5");
    finish(world, there, fds[1]);
    assert_int_equal(fcntl(zero, F_GETFD), -1);
}

static unsigned moves_without_memory(struct world *world, uint64_t nth) {
    struct move move;
    move_open(&move, world, CARRIER_UNIX, 1);
    struct recorder *b = move.channel.b;
    hold_some(&move, 15000);
    memory_fail(nth, 1);
    int status = tram_transport_detach(move.channel.second, &move.detached);
    if (!status)
        status = tram_loop_adopt_detached(move.other, factory, move.there, move.detached, NULL);
    unsigned failed = (unsigned)memory_failed();
    memory_fail(0, 0);
    assert_int_equal(status, 0 == failed ? 0 : status);
    if (status) {
        assert_int_equal(status, -ENOMEM);
        if (!move.detached) { /* it was refused: all is as it was */
            tram_transport_resume_reading(move.channel.second);
            await_bytes(&move, b, 15000);
            assert_pattern(b->bytes, 15000, 0);
            tram_transport_close(move.channel.first);
            await(&move, &b->was_released);
        }
    }
    tram_detached_free(move.detached);
    if (!status && !failed) {
        await_bytes(&move, move.there, 15000);
        assert_pattern(move.there->bytes, 15000, 0);
        tram_transport_close(move.channel.first);
    }
    move_close(&move);
    return failed;
}

static void test_Y_1_a_move_without_memory_loses_nothing_it_had(void **state) {
    unsigned failures = 0;
    while (moves_without_memory(*state, failures + 1))
        assert_true(++failures < 40);
    assert_true(failures > 4);
}

/* ---- peek ---- */

static const tram_peeked *peek(struct world *world, int fd, size_t size, uint64_t timeout_ns, tram_future **future) {
    void *value;
    assert_int_equal(tram_loop_peek(world->loop, fd, size, timeout_ns, future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, *future), 0);
    assert_int_equal(tram_future_result(*future, &value), 0);
    return value;
}

static void test_peeked_bytes_decide_and_are_read_again(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    int fds[2];
    tcp_pair(fds);
    set_blocking(fds[0], true);
    send_exactly(NULL, fds[1], "GET / HTTP", 10);
    const tram_peeked *peeked = peek(world, fds[0], 4, 0, &future);
    assert_int_equal(peeked->size, 4);
    assert_memory_equal(peeked->data, "GET ", 4);
    assert_false(peeked->eof || peeked->timed_out);
    recorder->keep = true;
    assert_int_equal(tram_loop_adopt(world->loop, factory, recorder, fds[0], peeked->data, peeked->size, NULL), 0);
    tram_future_release(future);
    run_to_rest(world);
    assert_trace(world, "made data:4 data:6");
    assert_memory_equal(recorder->bytes, "GET / HTTP", 10);
    finish(world, recorder, fds[1]);
}

static void test_peeking_ends_with_the_deadline_or_the_stream(void **state) {
    struct world *world = *state;
    tram_future *future;
    int fds[2];
    tcp_pair(fds);
    send_exactly(NULL, fds[1], "ab", 2);
    uint64_t start = tram_loop_time(world->loop);
    const tram_peeked *peeked = peek(world, fds[0], 4, 20000000, &future);
    assert_true(peeked->timed_out && !peeked->eof && peeked->size == 2);
    assert_true(tram_loop_time(world->loop) - start >= 20000000);
    tram_future_release(future);
    send_exactly(NULL, fds[1], "c", 1);
    shutdown(fds[1], SHUT_WR);
    peeked = peek(world, fds[0], 4, 60000000000, &future);
    assert_true(peeked->eof && !peeked->timed_out && peeked->size == 1);
    tram_future_release(future);
    close(fds[0]);
    close(fds[1]);

    tcp_pair(fds);
    close_with_reset(fds[1]);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 0, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ECONNRESET);
    tram_future_release(future);
    close(fds[0]);
}

static void test_peeking_can_be_cancelled_and_refused(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    tram_future *future = NULL;
    int fds[2], pipes[2];
    tcp_pair(fds);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 0, 0, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 0, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_peek(world->loop, pipes[0], 4, 0, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_peek(world->loop, wire.fd, 4, 0, &future), TRAM_ESTATE);
    world->fail_after = 0;
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 0, &future), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_null(future);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 1000000000, &future), 0);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 0, &(tram_future *){NULL}), TRAM_ESTATE);
    run_ticks(world, 2);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    /* and one that is left when the loop closes */
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 4, 1000000000, &future), 0);
    tram_future_release(future);
    run_ticks(world, 1);
    world_reopen(world);
    int all[] = {fds[0], fds[1], pipes[0], pipes[1], wire.peer};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(close(all[i]), 0);
}

/* ---- Other people's addresses ---- */

static void test_transparent_sockets_have_addresses_of_others(void **state) {
    struct world *world = *state;
    int probe = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    int status = setsockopt(probe, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on);
    close(probe);
    tram_server_options server_options = {.transparent = true};
    tram_connection_options options = {.transparent = true, .local_host = "198.51.100.1"};
    tram_future *future;
    assert_int_equal(
        tram_loop_create_server(world->loop, recorder_factory, world, "198.51.100.1", "0", &server_options, &future),
        0);
    int created = tram_loop_run_until_complete(world->loop, future);
    if (status < 0) {
        assert_int_equal(created, -EPERM);
    } else {
        void *server;
        assert_int_equal(created, 0);
        assert_int_equal(tram_future_result(future, &server), 0);
        tram_socket_address bound;
        assert_int_equal(tram_server_sockname(server, 0, &bound), 0);
        const struct sockaddr_in *inet = (const struct sockaddr_in *)(const void *)&bound.address;
        assert_int_equal(ntohl(inet->sin_addr.s_addr), 0xc6336401); /* 198.51.100.1 */
        tram_server_close(server);
        tram_server_release(server);
    }
    tram_future_release(future);
    uint16_t port;
    char text[8];
    int listener = tcp_listener(1, &port);
    snprintf(text, sizeof text, "%u", port);
    for (int transparent = 0; transparent < 2; transparent++) {
        options.transparent = transparent;
        assert_int_equal(
            tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", text, &options, &future), 0);
        if (transparent && status == 0) {
            /* It has that address; the answers do not find their way. */
            run_ticks(world, 3);
            int result = tram_future_result(future, NULL);
            assert_true(result == TRAM_ESTATE || result == -EINVAL);
            tram_future_cancel(future);
        } else {
            assert_int_equal(tram_loop_run_until_complete(world->loop, future), transparent ? -EPERM : -EADDRNOTAVAIL);
        }
        tram_future_release(future);
    }
    close(listener);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(unread_bytes_come_before_those_of_the_socket),
        TEST(P_4_C_11_the_creator_goes_on_before_unread_bytes),
        TEST(unread_bytes_wait_while_reading_is_paused),
        TEST(a_protocol_may_end_on_unread_bytes),
        TEST(what_cannot_be_adopted),
        TEST(a_detached_socket_is_the_callers_and_nothing_was_lost),
        TEST(a_detach_without_memory_changes_nothing),
        TEST(a_connection_moves_to_another_loop),
        TEST(detach_in_any_callback_hands_over_what_is_unread),
        TEST(a_server_does_not_wait_for_what_was_detached),
        TEST(what_cannot_be_detached),
        TEST(Y_1_Y_3_Y_7_a_connection_moves_with_its_layers),
        TEST(Y_1_Y_3_what_is_held_moves_along),
        TEST(Y_1_marks_limits_and_the_end_of_writing_move_along),
        TEST(Y_1_N_17_N_19_the_address_moves_along),
        TEST(Y_1_a_hard_limit_holds_where_the_connection_went),
        TEST(Y_7_N_19_what_layers_refuse_leaves_the_connection_as_it_was),
        TEST(Y_7_a_layer_that_does_not_arrive_is_the_creators_error),
        TEST(Y_7_whom_nobody_adopts_ends_with_its_layers),
        TEST(Y_6_Y_7_an_abort_before_connection_made_is_heard_as_released_alone),
        TEST(Y_1_a_connection_that_is_descriptor_0_moves),
        TEST(Y_1_a_move_without_memory_loses_nothing_it_had),
        TEST(peeked_bytes_decide_and_are_read_again),
        TEST(peeking_ends_with_the_deadline_or_the_stream),
        TEST(peeking_can_be_cancelled_and_refused),
        TEST(transparent_sockets_have_addresses_of_others),
    };
    return cmocka_run_group_tests_name("handover", tests, NULL, NULL);
}
