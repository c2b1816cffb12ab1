/* Protocols that give the memory to receive into (docs/rules.md, group B). */
#include "support/support.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void test_B_1_B_2_each_read_is_get_buffer_of_any_size_then_buffer_updated(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->keep = true;
    struct wire wire = wire_new_made(world, recorder);
    static const char *const texts[] = {"hello", "world, once more"};
    for (int i = 0; i < 2; i++) {
        say(wire.peer, texts[i]);
        await_events(wire.fd, POLLIN);
        recorder->size_hint = 0;
        run_ticks(world, 1);
        assert_trace(world, i ? "get_buffer updated:16" : "get_buffer updated:5");
        assert_int_equal(recorder->size_hint, -1);
    }
    run_to_rest(world);
    assert_trace(world, "");
    assert_memory_equal(recorder->bytes, "helloworld, once more", 21);
    close(wire.peer);
}

/* A protocol that gives a piece of its memory of the size wanted, and a new one for each read. */
struct pieces {
    tram_protocol base;
    char memory[64][32];
    size_t sizes[64]; /* how much each read brought */
    unsigned given;
    unsigned read;
    size_t wanted;
    int fails_at; /* which get_buffer fails; 0: none */
    ptrdiff_t hints[64];
    bool lost;
};

static int pieces_get_buffer(tram_protocol *protocol, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size) {
    struct pieces *pieces = (struct pieces *)protocol;
    assert_true(pieces->given < 64);
    pieces->hints[pieces->given] = size_hint;
    *ret_memory = pieces->memory[pieces->given++];
    *ret_size = pieces->wanted;
    return pieces->fails_at && (int)pieces->given == pieces->fails_at ? TRAM_EUSER : 0;
}

static int pieces_updated(tram_protocol *protocol, size_t size) {
    struct pieces *pieces = (struct pieces *)protocol;
    assert_true(size > 0 && size <= pieces->wanted);
    pieces->sizes[pieces->given - 1] = size;
    pieces->read++;
    return 0;
}

static int pieces_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    ((struct pieces *)protocol)->lost = true;
    return 0;
}

static const tram_protocol_ops pieces_ops = {
    .get_buffer = pieces_get_buffer, .buffer_updated = pieces_updated, .connection_lost = pieces_lost};

static void test_B_3_B_5_any_size_will_do_and_each_read_asks_anew(void **state) {
    struct world *world = *state;
    for (size_t wanted = 1; wanted <= 8; wanted += 7) {
        struct pieces *pieces = calloc(1, sizeof *pieces);
        pieces->base.ops = &pieces_ops;
        pieces->wanted = wanted;
        int fds[2];
        tcp_pair(fds);
        tram_transport *transport;
        assert_int_equal(transport_try_new(world, fds[0], &pieces->base, NULL, &transport), 0);
        run_ticks(world, 1);
        static const char text[] = "twenty-two characters!";
        say(fds[1], text);
        await_events(fds[0], POLLIN);
        size_t received = 0;
        while (received < 22) {
            unsigned before = pieces->read;
            run_ticks(world, 1);
            /* One read in one tick, into the memory that was given for it and no further. */
            assert_int_equal(pieces->read, before + 1);
            assert_int_equal(pieces->given, pieces->read);
            size_t size = pieces->sizes[before];
            assert_memory_equal(pieces->memory[before], text + received, size);
            static const char zeros[32];
            assert_memory_equal(pieces->memory[before] + size, zeros, 32 - size);
            received += size;
        }
        for (unsigned i = 0; i < pieces->given; i++)
            assert_int_equal(pieces->hints[i], -1);
        assert_int_equal(tram_transport_abort(transport), 0);
        run_ticks(world, 1);
        assert_true(pieces->lost);
        free(pieces);
        close(fds[1]);
    }
}

static void test_B_5_no_pointer_is_kept_after_buffer_updated(void **state) {
    struct world *world = *state;
    /* Each read gets fresh heap memory, freed as soon as buffer_updated returned: a sanitizer would see a later use. */
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    for (int i = 0; i < 3; i++) {
        recorder->buffer_size = 5;
        say(wire.peer, "hello");
        await_events(wire.fd, POLLIN);
        run_to_rest(world);
        assert_trace(world, "get_buffer updated:5");
        memset(recorder->buffer, 0x55, sizeof recorder->buffer);
        run_ticks(world, 2);
        for (size_t at = 0; at < sizeof recorder->buffer; at++)
            assert_int_equal(recorder->buffer[at], 0x55);
    }
    close(wire.peer);
}

static int give_nothing(tram_protocol *protocol, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size) {
    (void)protocol;
    (void)size_hint;
    *ret_memory = NULL;
    *ret_size = 10;
    return 0;
}

static void test_B_3_an_empty_buffer_is_a_fatal_error(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    for (int null = 0; null < 2; null++) {
        struct recorder *recorder = recorder_new_buffered(world, NULL);
        tram_protocol_ops ops = *recorder->base.ops;
        if (null) {
            ops.get_buffer = give_nothing;
            recorder->base.ops = &ops;
        } else {
            recorder->buffer_size = 0;
        }
        struct wire wire = wire_new_made(world, recorder);
        fill(wire.transport, 0); /* dropped */
        say(wire.peer, "hello");
        run_until_traced(world, "released");
        assert_trace(world, null ? "reported:TRAM_ESTATE lost:TRAM_ESTATE released"
                                 : "get_buffer reported:TRAM_ESTATE lost:TRAM_ESTATE released");
        assert_ptr_equal(world->exception_transport, wire.transport);
        assert_ptr_equal(world->exception_protocol, &recorder->base);
        close(wire.peer);
    }
}

/* Takes away what the poll saw for the other. */
static int steal(struct recorder *recorder, const char *event) {
    const struct wire *wires = recorder->arg;
    const struct wire *other = &wires[wires[0].recorder == recorder];
    char byte;
    if (strcmp(event, "updated") == 0)
        recv(other->fd, &byte, 1, MSG_DONTWAIT);
    return 0;
}

static void test_B_4_get_buffer_without_buffer_updated_where_nothing_is_there_after_all(void **state) {
    struct world *world = *state;
    struct wire wires[2] = {wire_new_made(world, recorder_new_buffered(world, NULL)),
                            wire_new_made(world, recorder_new_buffered(world, NULL))};
    for (int i = 0; i < 2; i++) {
        wires[i].recorder->on = steal;
        wires[i].recorder->arg = wires;
        say(wires[i].peer, "x");
    }
    for (int i = 0; i < 2; i++)
        await_events(wires[i].fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "get_buffer updated:1 get_buffer");
    run_to_rest(world);
    assert_trace(world, "");
    for (int i = 0; i < 2; i++) {
        wires[i].recorder->on = NULL;
        say(wires[i].peer, "x");
        run_until_traced(world, "updated");
        assert_trace(world, "get_buffer updated:1");
    }
    close(wires[0].peer);
    close(wires[1].peer);
}

static void test_B_4_B_6_get_buffer_before_the_end_of_the_stream_and_nothing_after_it(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->eof_returns = 1;
    struct wire wire = wire_new_made(world, recorder);
    say(wire.peer, "hello");
    shutdown(wire.peer, SHUT_WR);
    run_until_traced(world, "eof");
    assert_trace(world, "get_buffer updated:5 get_buffer eof");
    run_to_rest(world);
    assert_int_equal(tram_transport_write(wire.transport, "answer", 6), 0);
    char bytes[6];
    receive_exactly(world, wire.peer, bytes, 6);
    tram_transport_pause_reading(wire.transport);
    tram_transport_resume_reading(wire.transport);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    close(wire.peer);

    wire = wire_new_made(world, recorder_new_buffered(world, NULL));
    shutdown(wire.peer, SHUT_WR);
    run_until_traced(world, "released");
    assert_trace(world, "get_buffer eof lost:0 released");
    close(wire.peer);
}

static int end_in_get_buffer(struct recorder *recorder, const char *event) {
    if (strcmp(event, "get_buffer") != 0)
        return 0;
    return recorder->arg ? tram_transport_abort(recorder->base.transport)
                         : tram_transport_close(recorder->base.transport);
}

static void test_B_4_R_12_an_end_inside_get_buffer_cancels_that_read(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    for (int abort = 0; abort < 2; abort++) {
        struct recorder *recorder = recorder_new_buffered(world, NULL);
        recorder->on = end_in_get_buffer;
        recorder->arg = abort ? world : NULL;
        struct wire wire = wire_new_made(world, recorder);
        say(wire.peer, "hello");
        run_until_traced(world, "released");
        assert_trace(world, "get_buffer lost:0 released");
        assert_int_equal(calls->receives, 0);
        close(wire.peer);
    }
}

/* ---- Wherever a stream protocol works ---- */

static struct recorder *served; /* the server's last protocol */

static int make_buffered(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    served = recorder_new_buffered(arg, "server");
    *ret_protocol = &served->base;
    return 0;
}

static int make_buffered_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &recorder_new_buffered(arg, "client")->base;
    return 0;
}

static void test_B_7_a_buffered_protocol_serves_and_connects(void **state) {
    struct world *world = *state;
    tram_future *future;
    void *value;
    assert_int_equal(tram_loop_create_server(world->loop, make_buffered, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &value), 0);
    tram_server *server = value;
    tram_future_release(future);
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    char text[TRAM_ADDRESS_TEXT_SIZE];
    const char *port = strrchr(tram_socket_address_text(&address, text, sizeof text), ':') + 1;

    assert_int_equal(
        tram_loop_create_connection(world->loop, make_buffered_client, world, "127.0.0.1", port, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &value), 0);
    tram_transport *client = value;
    tram_future_release(future);
    run_until_traced(world, "server.made");
    world->trace[0] = '\0';
    tram_transport *accepted = served->base.transport;
    assert_non_null(accepted);

    assert_int_equal(tram_transport_write(client, "hello", 5), 0);
    run_until_traced(world, "server.updated:5");
    assert_trace(world, "server.get_buffer server.updated:5");
    assert_int_equal(tram_transport_write(accepted, "world!", 6), 0);
    run_until_traced(world, "client.updated:6");
    assert_trace(world, "client.get_buffer client.updated:6");
    assert_int_equal(tram_transport_close(client), 0);
    run_until_traced(world, "server.released");
    assert_trace(world, "client.lost:0 client.released server.get_buffer server.eof server.lost:0 server.released");
    assert_int_equal(tram_server_close(server), 0);
    tram_server_release(server);
}

static void test_B_7_a_buffered_protocol_has_flow_control_and_resets_like_any(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 65536);
    assert_trace(world, "pause");
    char bytes[65536];
    while (tram_transport_get_write_buffer_size(wire.transport)) {
        recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT);
        run_ticks(world, 1);
    }
    assert_trace(world, "resume");
    close_with_reset(wire.peer);
    run_until_traced(world, "released");
    assert_trace(world, "get_buffer lost:ECONNRESET released");
}

/* ---- Bytes from elsewhere ---- */

static void test_B_8_fed_bytes_ask_for_buffers_until_all_are_copied(void **state) {
    (void)state;
    static const char text[] = "twenty-two characters!";
    static const struct {
        size_t wanted;
        unsigned reads;
    } cases[] = {{32, 1}, {22, 1}, {21, 2}, {8, 3}, {1, 22}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pieces *pieces = calloc(1, sizeof *pieces);
        pieces->base.ops = &pieces_ops;
        pieces->wanted = cases[i].wanted;
        assert_int_equal(tram_protocol_feed(&pieces->base, text, 22), 0);
        assert_int_equal(pieces->read, cases[i].reads);
        assert_int_equal(pieces->given, cases[i].reads);
        size_t fed = 0;
        for (unsigned j = 0; j < pieces->read; j++) {
            assert_int_equal(pieces->hints[j], 22 - fed); /* what is left */
            assert_memory_equal(pieces->memory[j], text + fed, pieces->sizes[j]);
            fed += pieces->sizes[j];
        }
        assert_int_equal(fed, 22);
        /* Nothing is nothing. */
        assert_int_equal(tram_protocol_feed(&pieces->base, text, 0), 0);
        assert_int_equal(tram_protocol_feed(&pieces->base, NULL, 0), 0);
        assert_int_equal(pieces->given, cases[i].reads);
        free(pieces);
    }
}

static int fail_second_update(struct recorder *recorder, const char *event) {
    return strcmp(event, "updated") == 0 && recorder->received == 8 ? TRAM_EUSER : 0;
}

static void test_B_8_feeding_ends_with_the_first_failure(void **state) {
    struct world *world = *state;
    struct pieces *pieces = calloc(1, sizeof *pieces);
    pieces->base.ops = &pieces_ops;
    pieces->wanted = 4;
    pieces->fails_at = 3;
    assert_int_equal(tram_protocol_feed(&pieces->base, "hello, world", 12), TRAM_EUSER);
    assert_int_equal(pieces->given, 3);
    assert_int_equal(pieces->read, 2);
    pieces->wanted = 0;
    assert_int_equal(tram_protocol_feed(&pieces->base, "hello, world", 12), TRAM_ESTATE);
    assert_int_equal(pieces->read, 2);
    assert_int_equal(tram_protocol_feed(&pieces->base, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_protocol_feed(NULL, "x", 1), TRAM_ETYPE);
    free(pieces);

    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->buffer_size = 4;
    recorder->on = fail_second_update;
    assert_int_equal(tram_protocol_feed(&recorder->base, "hello, world", 12), TRAM_EUSER);
    assert_trace(world, "get_buffer updated:4 get_buffer updated:4");
    assert_int_equal(world->exceptions, 0); /* whoever feeds decides what becomes of it */
}

static void test_B_8_a_plain_protocol_can_be_fed_too(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    assert_int_equal(tram_protocol_feed(&recorder->base, "hello", 5), 0);
    assert_int_equal(tram_protocol_feed(&recorder->base, "hello", 0), 0);
    assert_trace(world, "data:5");
}

/* Reads one line itself and hands the connection, with what it had read ahead, to a buffered protocol. */
static int upgrade(struct recorder *recorder, const char *event) {
    struct recorder *next = recorder->arg;
    if (strcmp(event, "data") != 0)
        return 0;
    assert_int_equal(tram_transport_set_protocol(recorder->base.transport, &next->base), 0);
    return tram_protocol_feed(&next->base, recorder->bytes + 8, recorder->kept - 8);
}

static int tolerant_get_buffer(tram_protocol *protocol, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size) {
    struct recorder *recorder = (struct recorder *)protocol;
    recorder->size_hint = size_hint;
    *ret_memory = recorder->buffer;
    *ret_size = 4;
    return 0;
}

static void test_B_8_T_12_an_upgrade_feeds_what_was_read_ahead(void **state) {
    struct world *world = *state;
    struct recorder *first = recorder_new(world, "first"), *second = recorder_new_buffered(world, "second");
    tram_protocol_ops ops = *second->base.ops;
    ops.get_buffer = tolerant_get_buffer;
    second->base.ops = &ops;
    second->keep = true;
    first->keep = true;
    first->on = upgrade;
    first->arg = second;
    struct wire wire = wire_new_made(world, first);
    say(wire.peer, "upgrade\nand go");
    run_until_traced(world, "second.updated");
    assert_trace(world, "first.data:14 second.updated:4 second.updated:2");
    assert_int_equal(second->size_hint, 2);
    say(wire.peer, " on");
    run_until_traced(world, "second.updated");
    assert_trace(world, "first.released second.updated:3");
    assert_int_equal(second->size_hint, -1);
    assert_memory_equal(second->bytes, "and go on", 9);
    assert_int_equal(tram_transport_abort(wire.transport), 0);
    run_ticks(world, 1); /* while its table of callbacks is there */
    close(wire.peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        CASE(test_B_1_B_2_each_read_is_get_buffer_of_any_size_then_buffer_updated),
        CASE(test_B_3_B_5_any_size_will_do_and_each_read_asks_anew),
        CASE(test_B_5_no_pointer_is_kept_after_buffer_updated),
        CASE(test_B_3_an_empty_buffer_is_a_fatal_error),
        CASE(test_B_4_get_buffer_without_buffer_updated_where_nothing_is_there_after_all),
        CASE(test_B_4_B_6_get_buffer_before_the_end_of_the_stream_and_nothing_after_it),
        CASE(test_B_4_R_12_an_end_inside_get_buffer_cancels_that_read),
        CASE(test_B_7_a_buffered_protocol_serves_and_connects),
        CASE(test_B_7_a_buffered_protocol_has_flow_control_and_resets_like_any),
        CASE(test_B_8_fed_bytes_ask_for_buffers_until_all_are_copied),
        CASE(test_B_8_feeding_ends_with_the_first_failure),
        CASE(test_B_8_a_plain_protocol_can_be_fed_too),
        CASE(test_B_8_T_12_an_upgrade_feeds_what_was_read_ahead),
    };
    return cmocka_run_group_tests_name("buffered", tests, NULL, NULL);
}
