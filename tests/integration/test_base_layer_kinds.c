/*
 * Rules Y-1 to Y-9 of layers that are unlike the codec of support/layers.h: that leave out what they may leave out,
 * that read in small pieces, go away unread, fail in more than one way, or are called while they are called.
 */
#include "support/layers.h"
#include "support/stream.h"
#include "transports/base/transport.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/loop/loop.h"

/* What its functions do is what the fields say. */
struct odd {
    struct layer layer;
    struct world *world;
    size_t takes;       /* of the bytes below, before it goes */
    const char *leaves; /* behind its prefix when it goes */
    bool lacks_memory;  /* from then on */
    int shutdown_returns;
    bool reads_little; /* two bytes at a time */
    bool answers;      /* to what it reads */
};

static struct odd *odd_of(struct layer *layer) {
    return (struct odd *)(void *)layer;
}

static void odd_free(struct layer *layer) {
    free(layer);
}

static struct odd *odd_new(struct world *world, const struct layer_kind *kind) {
    struct odd *odd = calloc(1, sizeof *odd);
    assert_non_null(odd);
    odd->layer.kind = kind;
    odd->world = world;
    return odd;
}

static struct odd *odd_push(struct world *world, tram_transport *transport, const struct layer_kind *kind) {
    struct odd *odd = odd_new(world, kind);
    assert_int_equal(tram__transport_push_layer(transport, &odd->layer, NULL, 0), 0);
    return odd;
}

static const struct layer_kind plain_kind = {.name = "plain", .free = odd_free};

/* Ends the transport, if it has not ended. */
static void wire_close(struct world *world, struct wire *wire) {
    if (!wire->recorder->was_released && !wire->recorder->lost)
        tram_transport_abort(wire->transport);
    run_until(world, &wire->recorder->was_released);
    run_to_rest(world);
    close(wire->peer);
    world->trace[0] = '\0';
}

/* ---- Entries that may be NULL ---- */

static void test_Y_2_Y_4_a_layer_without_entries_changes_nothing(void **state) {
    struct world *world = *state;
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++) {
        struct channel channel;
        channel_open_bare(&channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
        channel.a->quiet_data = channel.b->quiet_data = true;
        tram_transport *transports[] = {channel.first, channel.second};
        for (int i = 0; i < 2; i++) {
            struct codec *codec = codec_new(world, &codec_kind, &channel.live);
            (void)odd_push(world, transports[i], &plain_kind);
            assert_int_equal(tram__transport_push_layer(transports[i], &codec->layer, NULL, 0), 0);
        }
        run_until(world, &channel.a->made);
        run_until(world, &channel.b->made);
        write_pattern(channel.first, 30000, 0);
        write_pattern(channel.second, 30000, 0);
        await_pattern(&channel, channel.a, 30000);
        await_pattern(&channel, channel.b, 30000);
        channel_close(&channel);
    }
}

static void await_bytes(struct world *world, struct recorder *recorder, const char *expected) {
    size_t size = strlen(expected);
    for (int i = 0; i < 10000 && recorder->received < size; i++)
        run_ticks(world, 1);
    run_to_rest(world);
    assert_int_equal(recorder->received, size);
    assert_memory_equal(recorder->bytes, expected, size);
}

/* ---- Layers that go ---- */

/* Has it got what it wants? Then it goes. */
static int take_and_go(struct layer *layer) {
    struct odd *odd = odd_of(layer);
    char bytes[8];
    while (odd->takes) {
        ssize_t got = tram__layer_read(layer, bytes, odd->takes);
        if (got <= 0)
            return (int)got;
        odd->takes -= (size_t)got;
    }
    if (odd->lacks_memory)
        odd->world->fail_after = 0;
    return tram__layer_remove(layer, odd->leaves, odd->leaves ? strlen(odd->leaves) : 0);
}

static ssize_t take_and_go_later(struct layer *layer, void *memory, size_t size) {
    (void)memory, (void)size;
    return take_and_go(layer);
}

static const struct layer_kind taster_kind = {.name = "taster", .start = take_and_go, .free = odd_free};
static const struct layer_kind late_taster_kind = {.name = "late", .read = take_and_go_later, .free = odd_free};

static void test_Y_3_Y_7_what_is_left_of_a_prefix_is_for_the_next_reader(void **state) {
    struct world *world = *state;
    for (size_t takes = 0; takes <= 5; takes++) {
        char expected[] = "xyabcdefgh";
        memmove(expected + 2, expected + 2 + takes, sizeof expected - 2 - takes);
        struct wire wire = wire_new_made(world, recorder_new(world, NULL));
        struct odd *odd = odd_new(world, &taster_kind);
        odd->takes = takes;
        odd->leaves = "xy";
        wire.recorder->keep = wire.recorder->quiet_data = true;
        assert_int_equal(tram__transport_push_layer(wire.transport, &odd->layer, "abcde", 5), 0);
        send_exactly(world, wire.peer, "fgh", 3);
        await_bytes(world, wire.recorder, expected);
        assert_trace(world, "");
        wire_close(world, &wire);
    }
}

/* It takes one byte of a receive: on the carrier, or with another layer above. */
static void test_Y_3_Y_7_what_is_left_of_a_receive_is_for_the_next_reader(void **state) {
    static const struct layer_kind *const kinds[] = {&taster_kind, &late_taster_kind};
    struct world *world = *state;
    for (int run = 0; run < 4; run++) {
        struct wire wire = wire_new(world, recorder_new(world, NULL));
        wire.recorder->keep = wire.recorder->quiet_data = true;
        odd_push(world, wire.transport, kinds[run & 1])->takes = 1;
        if (run & 2)
            (void)odd_push(world, wire.transport, &plain_kind);
        run_to_rest(world);
        send_exactly(world, wire.peer, "!hello", 6);
        await_bytes(world, wire.recorder, "hello");
        send_exactly(world, wire.peer, ", world", 7);
        await_bytes(world, wire.recorder, "hello, world");
        assert_int_equal(tram_transport_write(wire.transport, "yes", 3), 0);
        receive_exactly(world, wire.peer, (char[3]){0}, 3);
        wire_close(world, &wire);
    }
}

static int send_more(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        send_exactly(NULL, *(int *)recorder->arg, ", world", 7);
    return 0;
}

/* The next ones are there before those that were left could be delivered. */
static void test_Y_3_Y_7_what_is_left_comes_before_what_comes_later(void **state) {
    struct world *world = *state;
    for (int leaves = 0; leaves < 2; leaves++) {
        struct wire wire = wire_new(world, recorder_new(world, NULL));
        wire.recorder->keep = wire.recorder->quiet_data = true;
        wire.recorder->on = send_more;
        wire.recorder->arg = &wire.peer;
        struct odd *odd = odd_push(world, wire.transport, &taster_kind);
        odd->takes = leaves ? 6 : 1;
        odd->leaves = leaves ? "hello" : NULL;
        run_to_rest(world);
        send_exactly(world, wire.peer, "!hello", 6);
        await_bytes(world, wire.recorder, "hello, world");
        wire_close(world, &wire);
    }
}

static void test_X_1_no_memory_for_what_is_left_of_a_receive(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    struct odd *odd = odd_push(world, wire.transport, &taster_kind);
    odd->takes = 1;
    odd->lacks_memory = true;
    run_to_rest(world);
    send_exactly(world, wire.peer, "!hello", 6);
    run_until(world, &wire.recorder->lost);
    world->fail_after = SIZE_MAX;
    assert_int_equal(wire.recorder->lost_code, -ENOMEM);
    assert_int_equal(wire.recorder->received, 0);
    wire_close(world, &wire);
}

/* ---- Failures ---- */

static int fail_twice(struct layer *layer) {
    tram__layer_fail(layer, -EPROTO, "first", NULL);
    tram__layer_fail(layer, -EIO, "second", "in detail");
    return -EBADMSG;
}

static void test_Y_6_of_several_failures_the_first_is_told(void **state) {
    static const struct layer_kind failing_kind = {.name = "failing", .start = fail_twice, .free = odd_free};
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport;
    tram_future *future;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(transport_try_new(world, fds[0], &recorder->base, future, &transport), 0);
    (void)odd_push(world, transport, &failing_kind);
    run_until(world, &recorder->was_released);
    const tram_error *error = tram_future_error(future);
    assert_non_null(error);
    assert_int_equal(error->code, -EPROTO);
    assert_string_equal(error->operation, "first");
    assert_null(error->detail);
    tram_future_release(future);
    close(fds[1]);
}

static int odd_shutdown(struct layer *layer) {
    char bytes[16];
    ssize_t got;
    while ((got = tram__layer_read(layer, bytes, sizeof bytes)) > 0)
        if (odd_of(layer)->answers)
            tram__layer_write(layer, &(struct iovec){bytes, (size_t)got}, 1, false);
    return got == 0 ? 0 : odd_of(layer)->shutdown_returns;
}

static const struct layer_kind polite_kind = {.name = "polite", .shutdown = odd_shutdown, .free = odd_free};

static void test_Y_8_a_goodbye_that_fails_is_the_error_of_the_end(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    odd_push(world, wire.transport, &polite_kind)->shutdown_returns = -EPROTO;
    run_to_rest(world);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_until(world, &wire.recorder->lost);
    assert_int_equal(wire.recorder->lost_code, -EPROTO);
    wire_close(world, &wire);
}

static void test_X_1_a_goodbye_without_memory_for_its_deadline(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    struct odd *odd = odd_push(world, wire.transport, &polite_kind);
    odd->shutdown_returns = -EAGAIN;
    odd->layer.shutdown_timeout_ns = HOUR_NS;
    run_to_rest(world);
    world_lacks_timers(world);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_ticks(world, 3);
    world_has_timers(world);
    assert_true(wire.recorder->lost);
    assert_int_equal(wire.recorder->lost_code, -ENOMEM);
    wire_close(world, &wire);
}

/* All was said and the writing side has ended: what the peer still asks is not answered. */
static void test_Y_8_V_19_nothing_is_written_behind_the_last_goodbye(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    struct odd *odd = odd_push(world, wire.transport, &polite_kind);
    odd->shutdown_returns = -EAGAIN;
    odd->answers = true;
    run_to_rest(world);
    tram__transport_ending(wire.transport, IO_SHUTDOWN_CLOSE);
    assert_true(receive_eof(world, wire.peer));
    for (int i = 0; i < 3; i++) {
        send_exactly(world, wire.peer, "?", 1);
        run_to_rest(world);
        assert_false(wire.recorder->lost);
    }
    shutdown(wire.peer, SHUT_WR);
    run_until(world, &wire.recorder->lost);
    assert_int_equal(wire.recorder->lost_code, 0);
    wire_close(world, &wire);
}

/* ---- The time of those that are asked to end ---- */

static int never_ready(struct layer *layer) {
    (void)layer;
    return -EAGAIN;
}

static void test_G_2_layers_that_are_not_ready_are_asked_to_hurry(void **state) {
    static const struct layer_kind slow_kind = {.name = "slow", .start = never_ready, .free = odd_free};
    static const struct {
        uint64_t timeout_ns, least_ns, most_ns; /* of the layer; what is left of the time then */
    } cases[] = {
        {0, 1, 1000000000},
        {HOUR_NS, 1, 1000000000},
        {500000000, 1, 500000000},
    };
    struct world *world = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fds[2];
        uint64_t timeout_ns;
        struct recorder *recorder = recorder_new(world, NULL);
        struct odd *odd = odd_new(world, &slow_kind);
        unix_pair(fds);
        tram_transport *transport = transport_new(world, fds[0], recorder);
        odd->layer.start_timeout_ns = cases[i].timeout_ns;
        assert_int_equal(tram__transport_push_layer(transport, &odd->layer, NULL, 0), 0);
        run_to_rest(world);
        tram__transport_ending(transport, IO_SHUTDOWN_CLOSE);
        assert_int_equal(world->loop->timers.count, 1);
        assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
        assert_in_range(timeout_ns, cases[i].least_ns, cases[i].most_ns);
        assert_true(tram_loop_dispatch(world->loop) >= 0);
        tram_transport_abort(transport);
        run_until(world, &recorder->was_released);
        run_to_rest(world);
        assert_int_equal(world->loop->timers.count, 0);
        close(fds[1]);
    }
}

/* As they come from another loop. */
static void test_G_2_layers_that_are_ready_are_not(void **state) {
    struct world *world = *state;
    int fds[2];
    struct recorder *recorder = recorder_new(world, NULL);
    unix_pair(fds);
    tram_transport *transport = transport_new(world, fds[0], recorder);
    struct odd *odd = odd_new(world, &plain_kind);
    odd->layer.transport = transport;
    odd->layer.state = LAYER_READY;
    assert_int_equal(tram__transport_take_layers(transport, &odd->layer), 0);
    tram__transport_ending(transport, IO_SHUTDOWN_CLOSE);
    assert_int_equal(world->loop->timers.count, 0);
    shutdown(fds[1], SHUT_WR);
    run_until(world, &recorder->was_released);
    assert_int_equal(recorder->lost_code, 0);
    close(fds[1]);
}

/* ---- A carrier of the user's, which calls back ---- */

struct mine {
    struct world *world;
    tram_transport *transport;
    char sent[64];
    size_t size;
    void (*on)(struct mine *mine); /* within the next of its calls */
    struct recorder *next;
};

static int mine_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct mine *mine = state;
    void (*on)(struct mine *) = mine->on;
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(mine->size + size + pieces[i].iov_len <= sizeof mine->sent);
        memcpy(mine->sent + mine->size + size, pieces[i].iov_base, pieces[i].iov_len);
        size += pieces[i].iov_len;
    }
    mine->size += size;
    mine->on = NULL;
    if (on)
        on(mine);
    tram_custom_sent(transport, size);
    return 0;
}

static const tram_custom_ops mine_ops = {.writelines = mine_writelines, .start_tls_compatible = true};

static void mine_open(struct mine *mine, struct world *world, struct recorder *recorder) {
    *mine = (struct mine){.world = world};
    assert_int_equal(tram_loop_create_custom(world->loop, &mine_ops, mine, &recorder->base, &mine->transport), 0);
    run_until(world, &recorder->made);
    recorder->keep = true;
}

static void mine_close(struct mine *mine, struct recorder *recorder) {
    tram_transport_abort(mine->transport);
    run_until(mine->world, &recorder->was_released);
    run_to_rest(mine->world);
    mine->world->trace[0] = '\0';
}

static void write_more(struct mine *mine) {
    assert_int_equal(tram_transport_write(mine->transport, "second", 6), 0);
}

static void test_Y_4_Y_5_what_is_written_while_a_carrier_writes_stands_behind(void **state) {
    struct world *world = *state;
    struct mine mine;
    struct recorder *recorder = recorder_new(world, NULL);
    mine_open(&mine, world, recorder);
    (void)odd_push(world, mine.transport, &plain_kind);
    run_to_rest(world);
    mine.on = write_more;
    assert_int_equal(tram_transport_write(mine.transport, "first", 5), 0);
    run_to_rest(world);
    assert_int_equal(mine.size, 11);
    assert_memory_equal(mine.sent, "firstsecond", 11);
    mine_close(&mine, recorder);
}

static ssize_t read_little(struct layer *layer, void *memory, size_t size) {
    return tram__layer_read(layer, memory, size < 2 ? size : 2);
}

static bool in_callback;

/* One receive within another, once. */
static int receive_more(struct recorder *recorder, const char *event) {
    struct mine *mine = recorder->arg;
    if (strcmp(event, "data") != 0)
        return 0;
    assert_false(in_callback);
    in_callback = true;
    recorder->on = NULL;
    assert_int_equal(tram_custom_received(mine->transport, "second", 6), 6);
    recorder->on = receive_more;
    recorder->arg = mine;
    in_callback = false;
    if (recorder->received > 2)
        recorder->on = NULL;
    return 0;
}

static void test_Y_3_Y_5_what_comes_while_layers_are_read_stands_behind(void **state) {
    static const struct layer_kind kinds[] = {{.name = "little", .read = read_little, .free = odd_free},
                                              {.name = "plain", .free = odd_free}};
    struct world *world = *state;
    for (int kind = 0; kind < 2; kind++) {
        struct mine mine;
        struct recorder *recorder = recorder_new(world, NULL);
        mine_open(&mine, world, recorder);
        (void)odd_push(world, mine.transport, &kinds[kind]);
        run_to_rest(world);
        recorder->on = receive_more;
        recorder->arg = &mine;
        assert_int_equal(tram_custom_received(mine.transport, "first", 5), 5);
        run_to_rest(world);
        recorder->on = NULL;
        size_t times = kind ? 1 : 2;
        assert_int_equal(recorder->received, 5 + 6 * times);
        assert_memory_equal(recorder->bytes, "firstsecondsecond", 5 + 6 * times);
        mine_close(&mine, recorder);
    }
}

/* 1 is answered by 2, and with 3 it is ready. */
static int shake_hands(struct layer *layer) {
    char byte;
    ssize_t got;
    while ((got = tram__layer_read(layer, &byte, 1)) > 0) {
        if (byte == '3')
            return 0;
        tram__layer_write(layer, &(struct iovec){"2", 1}, 1, false);
    }
    return (int)got;
}

static void receive_answer(struct mine *mine) {
    assert_int_equal(tram_custom_received(mine->transport, "3hello", 6), 6);
}

/* A carrier that has the peer's answer before it has returned. */
static void test_Y_5_Y_6_what_comes_within_a_handshake_goes_on_with_it(void **state) {
    static const struct layer_kind shaking_kind = {.name = "shaking", .start = shake_hands, .free = odd_free};
    struct world *world = *state;
    struct mine mine;
    struct recorder *recorder = recorder_new(world, NULL);
    mine_open(&mine, world, recorder);
    (void)odd_push(world, mine.transport, &shaking_kind);
    run_to_rest(world);
    mine.on = receive_answer;
    assert_int_equal(tram_custom_received(mine.transport, "1", 1), 1);
    run_to_rest(world);
    assert_int_equal(recorder->received, 5);
    assert_memory_equal(recorder->bytes, "hello", 5);
    mine_close(&mine, recorder);
}

/* ---- A protocol that is called while a layer is left ---- */

/* It answers what it reads, so that the carrier is called before the protocol gets it. */
static ssize_t read_and_answer(struct layer *layer, void *memory, size_t size) {
    ssize_t got = tram__layer_read(layer, memory, size);
    if (got > 0)
        tram__layer_write(layer, &(struct iovec){"!", 1}, 1, false);
    return got;
}

/* It answers the end of the stream, too. */
static ssize_t read_and_say_goodbye(struct layer *layer, void *memory, size_t size) {
    ssize_t got = tram__layer_read(layer, memory, size);
    if (got == 0)
        tram__layer_write(layer, &(struct iovec){"!", 1}, 1, false);
    return got;
}

static void test_W_5_Y_6_an_answer_to_the_end_that_cannot_be_sent(void **state) {
    static const struct layer_kind replying_kind = {.name = "replying", .read = read_and_say_goodbye, .free = odd_free};
    struct world *world = *state;
    for (int fails = 0; fails < 2; fails++) {
        struct wire wire = wire_new(world, recorder_new(world, NULL));
        (void)odd_push(world, wire.transport, &replying_kind);
        run_to_rest(world);
        if (fails)
            fail_next(&faults.send, EPIPE, 1);
        shutdown(wire.peer, SHUT_WR);
        run_until(world, &wire.recorder->was_released);
        assert_int_equal(wire.recorder->lost_code, fails ? -EPIPE : 0);
        wire_close(world, &wire);
    }
}

static void pause_reading(struct mine *mine) {
    assert_int_equal(tram_transport_pause_reading(mine->transport), 0);
}

static void pause_without_memory(struct mine *mine) {
    pause_reading(mine);
    mine->world->fail_after = 0;
}

static void set_next(struct mine *mine) {
    assert_int_equal(tram_transport_set_protocol(mine->transport, &mine->next->base), 0);
}

static void close_it(struct mine *mine) {
    assert_int_equal(tram_transport_close(mine->transport), 0);
}

static void test_Y_3_Y_5_what_a_protocol_does_not_take_any_more_is_held(void **state) {
    static const struct layer_kind answering_kind = {.name = "answering", .read = read_and_answer, .free = odd_free};
    static void (*const ways[])(struct mine *) = {pause_reading, set_next, set_next, close_it, pause_without_memory};
    struct world *world = *state;
    for (int way = 0; way < 5; way++) {
        struct mine mine;
        struct recorder *recorder = recorder_new(world, NULL);
        mine_open(&mine, world, recorder);
        struct recorder *next = way == 2 ? recorder_new_buffered(world, "next") : recorder_new(world, "next");
        mine.next = next;
        next->keep = true;
        (void)odd_push(world, mine.transport, &answering_kind);
        run_to_rest(world);
        mine.on = ways[way];
        assert_int_equal(tram_custom_received(mine.transport, "hello", 5), 5);
        world->fail_after = SIZE_MAX;
        run_to_rest(world);
        assert_memory_equal(mine.sent, "!", 1);
        if (way == 0) {
            assert_int_equal(recorder->received, 0);
            assert_int_equal(tram_transport_resume_reading(mine.transport), 0);
            run_to_rest(world);
        }
        const struct recorder *hears = way == 1 || way == 2 ? next : recorder;
        assert_int_equal(hears->received, way < 3 ? 5 : 0);
        if (way < 3)
            assert_memory_equal(hears->bytes, "hello", 5);
        if (way == 4)
            assert_int_equal(recorder->lost_code, -ENOMEM);
        if (!hears->was_released)
            tram_transport_abort(mine.transport);
        run_to_rest(world);
        assert_true(hears->was_released);
        world->trace[0] = '\0';
    }
}

static int take_over(struct recorder *recorder, const char *event) {
    if (strcmp(event, "get_buffer") == 0)
        assert_int_equal(
            tram_transport_set_protocol(recorder->base.transport, &((struct recorder *)recorder->arg)->base), 0);
    return 0;
}

static const void *given_away;

static ssize_t read_elsewhere(struct layer *layer, void *memory, size_t size) {
    assert_ptr_not_equal(memory, given_away);
    return tram__layer_read(layer, memory, size);
}

static void test_Y_2_B_7_a_protocol_that_gives_its_place_away_when_asked_for_memory(void **state) {
    static const struct layer_kind looking_kind = {.name = "looking", .read = read_elsewhere, .free = odd_free};
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *next = buffered ? recorder_new_buffered(world, "next") : recorder_new(world, "next");
        struct wire wire = wire_new_made(world, recorder_new_buffered(world, NULL));
        (void)odd_push(world, wire.transport, &looking_kind);
        run_to_rest(world);
        given_away = wire.recorder->buffer;
        wire.recorder->on = take_over;
        wire.recorder->arg = next;
        next->keep = true;
        send_exactly(world, wire.peer, "hello", 5);
        for (int i = 0; i < 10; i++)
            run_to_rest(world);
        assert_int_equal(wire.recorder->received, 0);
        assert_int_equal(next->received, 5);
        assert_memory_equal(next->bytes, "hello", 5);
        wire_close(world, &wire);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_Y_2_Y_4_a_layer_without_entries_changes_nothing),
        TEST(test_Y_3_Y_7_what_is_left_of_a_prefix_is_for_the_next_reader),
        TEST(test_Y_3_Y_7_what_is_left_of_a_receive_is_for_the_next_reader),
        TEST(test_Y_3_Y_7_what_is_left_comes_before_what_comes_later),
        TEST(test_X_1_no_memory_for_what_is_left_of_a_receive),
        TEST(test_Y_6_of_several_failures_the_first_is_told),
        TEST(test_Y_8_a_goodbye_that_fails_is_the_error_of_the_end),
        TEST(test_X_1_a_goodbye_without_memory_for_its_deadline),
        TEST(test_Y_8_V_19_nothing_is_written_behind_the_last_goodbye),
        TEST(test_G_2_layers_that_are_not_ready_are_asked_to_hurry),
        TEST(test_G_2_layers_that_are_ready_are_not),
        TEST(test_Y_4_Y_5_what_is_written_while_a_carrier_writes_stands_behind),
        TEST(test_Y_3_Y_5_what_comes_while_layers_are_read_stands_behind),
        TEST(test_Y_5_Y_6_what_comes_within_a_handshake_goes_on_with_it),
        TEST(test_Y_3_Y_5_what_a_protocol_does_not_take_any_more_is_held),
        cmocka_unit_test_setup_teardown(test_W_5_Y_6_an_answer_to_the_end_that_cannot_be_sent, world_setup_faults,
                                        world_teardown),
        TEST(test_Y_2_B_7_a_protocol_that_gives_its_place_away_when_asked_for_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
