/*
 * Rules Y-1 to Y-9: layers between a transport's carrier and its protocol, over each carrier, alone and stacked. What
 * does not depend on the layer of the tests is asked of TLS as well.
 *
 * tram-test: with TLS, where there is one
 */
#include "support/layers.h"
#include "support/stream.h"
#ifdef TRAM_TEST_TLS
#include "support/tls/overlay.h"
#endif
#include "transports/base/state.h"
#include "transports/base/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Alone and stacked twice, which a tunnel is already. */
#define EACH(scene)                                                                                                    \
    struct world *world = *state;                                                                                      \
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++)                                                 \
        for (unsigned depth = 1; depth <= (carrier == CARRIER_TUNNEL ? 1 : 2); depth++)                                \
    scene(world, carrier, depth)

static void await_end(struct channel *channel) {
    run_until(channel->world, &channel->a->was_released);
    run_until(channel->world, &channel->b->was_released);
}

static void await_clean_end(struct channel *channel) {
    await_end(channel);
    assert_int_equal(channel->a->lost_code, 0);
    assert_int_equal(channel->b->lost_code, 0);
}

/* ---- Beginning ---- */

static void held_back(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open(&channel, world, carrier, depth, &codec_kind);
    assert_int_equal(tram_transport_write(channel.first, "x", 1), TRAM_ESTATE);
    run_ticks(world, 1);
    assert_trace(world, "");
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    assert_int_equal(channel.first_codec->started, 1);
    assert_int_equal(channel.first_codec->started_code, 0);
    assert_true(channel.first_codec->hellos_seen == 3);
    assert_ptr_equal(tram_transport_get_extra_info(channel.first, "codec", NULL), channel.first_codec);
    channel_close(&channel);
}

static void test_Y_1_Y_6_connection_made_is_held_back_until_layers_are_ready(void **state) {
    EACH(held_back);
}

static int write_at_once(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_write(recorder->base.transport, "hello", 5) : 0;
}

static void first_bytes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_begin(&channel, world, carrier, depth);
    channel.a->on = channel.b->on = write_at_once;
    run_until_traced(world, "a.data:5");
    run_until_traced(world, "b.data:5");
    assert_memory_equal(channel.a->bytes, "hello", 5);
    channel_close(&channel);
}

static void test_Y_6_bytes_behind_the_last_flight_are_delivered(void **state) {
    EACH(first_bytes);
}

/* In a checked build the memory of one that is gone cannot be read. */
static int look_at_transport(struct recorder *recorder, const char *event) {
    assert_string_equal(event, "released");
    assert_true(tram_transport_is_closing(recorder->arg));
    return 0;
}

static int fail_released_only(struct world *world, enum carrier carrier, int (*spoil)(struct channel *channel)) {
    struct channel channel;
    channel_open(&channel, world, carrier, 1, &codec_kind);
    struct recorder *a = channel.a;
    a->on = look_at_transport;
    a->arg = channel.first;
    int code = spoil(&channel);
    run_until(world, &a->was_released);
    assert_false(a->made || a->lost);
    assert_int_equal(channel.live <= 1, 1);
    channel.a->was_released = true;
    channel_close(&channel);
    return code;
}

static int start_fails(struct channel *channel) {
    channel->first_codec->fail_start = 2;
    return 0;
}

static int is_closed(struct channel *channel) {
    run_ticks(channel->world, 1);
    return tram_transport_close(channel->first);
}

static int is_aborted(struct channel *channel) {
    run_ticks(channel->world, 1);
    return tram_transport_abort(channel->first);
}

static int is_closed_at_once(struct channel *channel) {
    return tram_transport_close(channel->first);
}

static void test_Y_6_X_9_who_is_not_ready_hears_released_only_and_is_there_until_then(void **state) {
    static int (*const spoilers[])(struct channel *) = {start_fails, is_closed, is_aborted, is_closed_at_once};
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++)
        for (size_t i = 0; i < sizeof spoilers / sizeof spoilers[0]; i++)
            fail_released_only(*state, carrier, spoilers[i]);
}

static tram_transport *told_of;

static void abort_when_made(void *arg, tram_log_level level, const char *line) {
    (void)arg, (void)level;
    if (told_of && strstr(line, "made on"))
        tram_transport_abort(told_of);
}

/* Debug mode tells it before connection_made, and the log function may call anything. */
static void test_Y_6_T_3_the_log_function_may_end_one_that_is_not_ready(void **state) {
    struct world *world = *state;
    world->options.debug = true;
    world->options.log = abort_when_made;
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++) {
        struct channel channel;
        world_reopen(world); /* a loop says the same so often only */
        channel_open(&channel, world, carrier, 1, &codec_kind);
        struct recorder *a = channel.a;
        told_of = channel.first;
        run_until(world, &a->was_released);
        told_of = NULL;
        assert_false(a->made || a->lost);
        run_to_rest(world);
        if (!channel.b->was_released && !channel.b->made)
            tram_transport_abort(channel.second);
        channel_close(&channel);
    }
}

/* A creator's future, and one end whose peer does what the test does. */
static void open_with_creator(struct world *world, struct channel *channel, tram_future **ret_future, int *ret_peer) {
    int fds[2];
    *channel = (struct channel){.world = world, .a = recorder_new(world, "a")};
    tcp_pair(fds);
    assert_int_equal(tram_loop_create_future(world->loop, ret_future), 0);
    assert_int_equal(transport_try_new(world, fds[0], &channel->a->base, *ret_future, &channel->first), 0);
    channel->first_codec = codec_new(world, &codec_kind, &channel->live);
    *ret_peer = fds[1];
}

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

static void test_Y_6_a_failure_is_the_creators_error(void **state) {
    struct world *world = *state;
    struct channel channel;
    tram_future *future;
    int peer;
    open_with_creator(world, &channel, &future, &peer);
    assert_int_equal(tram__transport_push_layer(channel.first, &channel.first_codec->layer, NULL, 0), 0);
    channel.first_codec->fail_start = 1;
    send_exactly(world, peer, "\1\0\0", 3);
    run_until_true(world, future_is_done, future);
    const tram_error *error = tram_future_error(future);
    assert_int_equal(error->code, -EPROTO);
    assert_string_equal(error->operation, "hello");
    assert_string_equal(error->detail, "the test wants it so");
    run_until(world, &channel.a->was_released);
    assert_trace(world, "a.released");
    run_to_rest(world);
    assert_int_equal(channel.live, 0);
    tram_future_release(future);
    close(peer);
}

static void test_Y_6_a_layer_has_a_time_to_be_ready(void **state) {
    struct world *world = *state;
    struct channel channel;
    tram_future *future;
    int peer;
    open_with_creator(world, &channel, &future, &peer);
    channel.first_codec->layer.start_timeout_ns = 20000000;
    assert_int_equal(tram__transport_push_layer(channel.first, &channel.first_codec->layer, NULL, 0), 0);
    run_until_true(world, future_is_done, future);
    assert_int_equal(tram_future_error(future)->code, -ECONNABORTED);
    run_until(world, &channel.a->was_released);
    assert_trace(world, "a.released");
    run_to_rest(world);
    tram_future_release(future);
    close(peer);
}

/* It may learn of the end only later. */
static void test_Y_7_a_layer_of_a_lost_connection_changes_nothing(void **state) {
    struct world *world = *state;
    struct channel channel;
    uint64_t timeout_ns;
    channel_open_made(&channel, world, CARRIER_UNIX, 1);
    tram_transport *transport = tram_transport_hold(channel.first);
    tram_transport_abort(transport);
    run_until(world, &channel.a->was_released);
    run_to_rest(world);
    tram__layer_keep(&channel.first_codec->layer, 100);
    tram__layer_again(&channel.first_codec->layer);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_not_equal(timeout_ns, 0);
    tram_transport_release(transport);
    run_ticks(world, 1);
    channel_close(&channel);
}

static void test_Y_6_of_two_times_the_later_counts(void **state) {
    struct world *world = *state;
    for (int short_first = 0; short_first < 2; short_first++) {
        struct channel channel;
        tram_future *future;
        uint64_t timeout_ns;
        int peer;
        open_with_creator(world, &channel, &future, &peer);
        struct codec *second = codec_new(world, &codec_kind, &channel.live);
        channel.first_codec->layer.start_timeout_ns = short_first ? HOUR_NS : 2 * HOUR_NS;
        second->layer.start_timeout_ns = short_first ? 2 * HOUR_NS : HOUR_NS;
        assert_int_equal(tram__transport_push_layer(channel.first, &channel.first_codec->layer, NULL, 0), 0);
        assert_int_equal(tram__transport_push_layer(channel.first, &second->layer, NULL, 0), 0);
        run_to_rest(world);
        assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
        assert_true(timeout_ns > HOUR_NS);
        tram_transport_abort(channel.first);
        run_until(world, &channel.a->was_released);
        run_to_rest(world);
        assert_int_equal(channel.live, 0);
        world->trace[0] = '\0';
        tram_future_release(future);
        close(peer);
    }
}

static void test_Y_6_a_peer_that_leaves_or_talks_nonsense(void **state) {
    struct world *world = *state;
    for (int nonsense = 0; nonsense < 2; nonsense++) {
        struct channel channel;
        tram_future *future;
        int peer;
        open_with_creator(world, &channel, &future, &peer);
        assert_int_equal(tram__transport_push_layer(channel.first, &channel.first_codec->layer, NULL, 0), 0);
        if (nonsense)
            send_exactly(world, peer, "GET / HTTP/1.0\r\n", 16);
        else
            shutdown(peer, SHUT_WR);
        run_until_true(world, future_is_done, future);
        assert_int_equal(tram_future_error(future)->code, nonsense ? -EPROTO : -ECONNRESET);
        run_until(world, &channel.a->was_released);
        assert_trace(world, "a.released");
        run_to_rest(world);
        assert_int_equal(channel.live, 0);
        tram_future_release(future);
        close(peer);
    }
}

/* ---- Bytes ---- */

static void large_writes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.a->quiet_data = channel.b->quiet_data = true;
    size_t size = 300000;
    assert_int_equal(write_pattern(channel.first, size, 0), 0);
    assert_int_equal(write_pattern(channel.second, size, 0), 0);
    await_pattern(&channel, channel.b, size);
    await_pattern(&channel, channel.a, size);
    channel_close(&channel);
}

static void test_Y_2_Y_4_all_bytes_arrive_in_order_both_ways(void **state) {
    EACH(large_writes);
}

static void many_writes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->quiet_data = true;
    size_t size = 0;
    for (size_t part = 1; size + part < 60000; part = part * 3 % 2000 + 1) {
        assert_int_equal(write_pattern(channel.first, part, size), 0);
        size += part;
    }
    await_pattern(&channel, channel.b, size);
    channel_close(&channel);
}

static void test_Y_4_what_a_layer_keeps_goes_out_in_order(void **state) {
    EACH(many_writes);
}

static void buffered(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_bare(&channel, world, carrier, recorder_new(world, "a"), recorder_new_buffered(world, "b"));
    for (unsigned i = 0; i < depth; i++)
        channel_overlay(&channel);
    channel.b->takes_hints = true;
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    channel.b->quiet_data = true;
    channel.b->buffer_size = 333;
    write_pattern(channel.first, 50000, 0);
    struct recorder *b = channel.b;
    await_pattern(&channel, b, 50000);
    channel_close(&channel);
}

static void test_Y_2_B_7_a_buffered_protocol_gets_them_in_its_own_memory(void **state) {
    EACH(buffered);
}

static int pause_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

static void paused(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    struct recorder *b = channel.b;
    b->on = pause_on_data;
    b->quiet_data = true;
    write_pattern(channel.first, 10000, 0);
    write_pattern(channel.first, 30000, 10000);
    for (size_t before = 1; before != b->received;) {
        before = b->received;
        run_to_rest(world);
        size_t there = b->received;
        run_to_rest(world);
        assert_int_equal(b->received, there);
        assert_false(tram_transport_is_reading(channel.second));
        tram_transport_resume_reading(channel.second);
        assert_int_equal(b->received, there); /* not inside the call */
        run_to_rest(world);
    }
    await_pattern(&channel, b, 40000);
    channel_close(&channel);
}

static void test_Y_3_R_3_R_5_a_paused_transport_does_not_deliver_and_loses_nothing(void **state) {
    EACH(paused);
}

/* A layer that reads all that there is until the end, keeps it to itself, and goes. */
struct collector {
    struct layer layer;
    char bytes[100];
    size_t size;
    bool *seen_end;
};

static int collector_start(struct layer *layer) {
    struct collector *collector = (struct collector *)(void *)layer;
    for (;;) {
        ssize_t got = tram__layer_read(layer, collector->bytes + collector->size, sizeof collector->bytes);
        if (got < 0)
            return (int)got;
        if (!got) {
            *collector->seen_end = true;
            return tram__layer_remove(layer, collector->bytes, collector->size);
        }
        collector->size += (size_t)got;
    }
}

static void collector_free(struct layer *layer) {
    free(layer);
}

static const struct layer_kind collector_kind = {.name = "collector", .start = collector_start, .free = collector_free};

static void test_Y_3_Y_7_the_end_of_the_stream_is_held_behind_the_bytes(void **state) {
    struct world *world = *state;
    for (int run = 0; run < CARRIER_COUNT * 2; run++) {
        struct channel channel;
        bool seen_end = false, has_to_wait = run >= CARRIER_COUNT;
        channel_open_bare(&channel, world, run % CARRIER_COUNT, recorder_new(world, "a"), recorder_new(world, "b"));
        run_until(world, &channel.a->made);
        run_until(world, &channel.b->made);
        struct collector *collector = calloc(1, sizeof *collector);
        collector->layer.kind = &collector_kind;
        collector->seen_end = &seen_end;
        if (has_to_wait)
            tram_transport_pause_reading(channel.second);
        assert_int_equal(tram__transport_push_layer(channel.second, &collector->layer, NULL, 0), 0);
        assert_int_equal(tram_transport_write(channel.first, "before", 6), 0);
        assert_int_equal(tram_transport_write_eof(channel.first), 0);
        run_until(world, &seen_end);
        run_to_rest(world);
        assert_int_equal(channel.b->received, has_to_wait ? 0 : 6);
        if (has_to_wait)
            tram_transport_resume_reading(channel.second);
        run_until_traced(world, "b.data:6 b.eof b.lost:0");
        channel_close(&channel);
    }
}

static void paused_writer(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->quiet_data = true;
    tram_transport_pause_reading(channel.first);
    size_t size = 4 * CODEC_ASKS_AFTER;
    write_pattern(channel.first, size / 2, 0);
    write_pattern(channel.first, size / 2, size / 2);
    await_pattern(&channel, channel.b, size);
    /* Once something is held for the protocol, nothing more is read. */
    tram_transport_write(channel.second, "later", 5);
    run_to_rest(world);
    assert_int_equal(channel.a->received, 0);
    tram_transport_resume_reading(channel.first);
    run_until_traced(world, "a.data:5");
    channel_close(&channel);
}

static void test_Y_3_Y_4_a_layer_that_waits_for_the_peer_hears_it_while_reading_is_paused(void **state) {
    EACH(paused_writer);
}

/* ---- Water marks and limits ---- */

/* The kernel takes little out of sight. */
static void hide_little(const struct channel *channel) {
    int small = 1;
    if (carrier_is_socket(channel->carrier))
        assert_int_equal(setsockopt(channel->first->io.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
}

static int no_reading(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

static void water_marks(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_begin(&channel, world, carrier, depth);
    size_t high;
    channel.b->on = no_reading;
    channel.b->quiet_data = true;
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    run_to_rest(world);
    world->trace[0] = '\0';
    hide_little(&channel);
    assert_int_equal(tram_transport_get_write_buffer_limits(channel.first, &high, NULL), 0);
    size_t size = 0;
    /* A codec asks, its answer does not come: all that is written from then on is kept in it. */
    while (size < 3000000 && tram_transport_get_write_buffer_size(channel.first) <= high) {
        write_pattern(channel.first, 5000, size);
        size += 5000;
    }
    assert_trace(world, "a.pause");
    tram_transport_resume_reading(channel.second);
    await_pattern(&channel, channel.b, size);
    run_until_traced(world, "a.resume");
    assert_int_equal(tram_transport_get_write_buffer_size(channel.first), 0);
    channel_close(&channel);
}

static void test_Y_1_W_16_water_marks_count_what_layers_keep(void **state) {
    EACH(water_marks);
}

static void hard_limit(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_begin(&channel, world, carrier, depth);
    channel.b->on = no_reading;
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    hide_little(&channel);
    assert_int_equal(tram_transport_set_write_hard_limit(channel.first, 100000), 0);
    for (int i = 0; i < 1000 && !tram_transport_is_closing(channel.first); i++)
        write_pattern(channel.first, 5000, 0);
    run_until(world, &channel.a->lost);
    assert_int_equal(channel.a->lost_code, TRAM_ELIMIT);
    tram_transport_resume_reading(channel.second);
    channel_close(&channel);
}

static void test_Y_1_the_hard_limit_counts_them_too(void **state) {
    EACH(hard_limit);
}

/* ---- Ends ---- */

static void closes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->quiet_data = true;
    write_pattern(channel.first, 50000, 0);
    assert_int_equal(tram_transport_close(channel.first), 0);
    assert_true(tram_transport_is_closing(channel.first));
    await_end(&channel);
    assert_int_equal(channel.b->received, 50000);
    assert_pattern(channel.b->bytes, 50000, 0);
    assert_int_equal(channel.a->lost_code, 0);
    assert_int_equal(channel.b->lost_code, 0);
    assert_non_null(strstr(world->trace, "b.eof"));
    assert_null(strstr(world->trace, "a.eof"));
    channel_close(&channel);
}

static void test_Y_8_close_sends_all_and_says_goodbye_in_each_layer(void **state) {
    EACH(closes);
}

static void waits_for_goodbye(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->on = NULL;
    tram_transport_pause_reading(channel.second); /* it will not see ours */
    assert_int_equal(tram_transport_close(channel.first), 0);
    run_to_rest(world);
    assert_trace(world, "");
    write_pattern(channel.second, 100, 0); /* comes too late for the protocol */
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_resume_reading(channel.second);
    await_end(&channel);
    assert_int_equal(channel.a->received, 0);
    assert_int_equal(channel.a->lost_code, 0);
    channel_close(&channel);
}

static void test_Y_8_T_1_close_waits_for_the_peers_goodbye_and_delivers_nothing(void **state) {
    EACH(waits_for_goodbye);
}

static void shutdown_expires(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.first_codec->ignores_goodbyes = true;
    channel.first_codec->layer.shutdown_timeout_ns = 20000000;
    if (depth > 1)
        channel.first_codec->layer.below->shutdown_timeout_ns = 0;
    assert_int_equal(tram_transport_close(channel.first), 0);
    run_until(world, &channel.a->lost);
    assert_int_equal(channel.a->lost_code, TRAM_ETIMEOUT);
    channel_close(&channel);
}

static void test_Y_8_all_goodbyes_are_under_one_deadline(void **state) {
    EACH(shutdown_expires);
}

static void aborts(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    tram_transport_pause_reading(channel.second); /* no goodbye comes */
    for (int closing = 0; closing <= 1; closing++)
        if (closing)
            tram_transport_close(channel.first);
    tram_transport_abort(channel.first);
    assert_int_equal(tram_transport_get_write_buffer_size(channel.first), 0);
    run_ticks(world, 2);
    assert_true(channel.a->lost);
    assert_int_equal(channel.a->lost_code, 0);
    channel_close(&channel);
}

static void test_Y_8_abort_waits_for_no_layer(void **state) {
    EACH(aborts);
}

/* How servers and runtimes end what they have. */
static void by_close_clients(tram_transport *transport) {
    tram__transport_close_gracefully(transport);
}

static void by_drain(tram_transport *transport) {
    tram__transport_ending(transport, IO_SHUTDOWN_CLOSE);
}

static void ended_by_server(struct world *world, enum carrier carrier, unsigned depth) {
    static void (*const ways[])(tram_transport *) = {by_close_clients, by_drain};
    for (size_t way = 0; way < 2; way++) {
        struct channel channel;
        channel_open_made(&channel, world, carrier, depth);
        channel.b->quiet_data = true;
        write_pattern(channel.first, 50000, 0); /* most of it is kept until the peer answers */
        ways[way](channel.first);
        assert_true(tram_transport_is_closing(channel.first) || way == 1);
        await_end(&channel);
        assert_int_equal(channel.b->received, 50000);
        assert_pattern(channel.b->bytes, 50000, 0);
        assert_int_equal(channel.a->lost_code, 0);
        assert_non_null(strstr(world->trace, "b.eof"));
        channel_close(&channel);
    }
}

static void test_Y_1_V_19_G_2_close_clients_and_a_drain_say_goodbye(void **state) {
    EACH(ended_by_server);
}

/* A peer that does not read has until the end of the grace, and then a reset. */
static void end_of_grace(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    hide_little(&channel);
    tram_transport_pause_reading(channel.second);
    write_pattern(channel.first, 200000, 0);
    by_drain(channel.first);
    run_to_rest(world);
    assert_false(channel.a->lost);
    assert_true(tram_transport_get_write_buffer_size(channel.first) > 0);
    tram__transport_ending(channel.first, IO_SHUTDOWN_ABORT);
    run_until(world, &channel.a->lost);
    assert_int_equal(channel.a->lost_code, TRAM_ETIMEOUT);
    channel_close(&channel);
}

static void test_Y_1_G_1_the_end_of_a_grace_waits_for_no_layer(void **state) {
    EACH(end_of_grace);
}

static void half_closes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->eof_returns = 1;
    channel.a->quiet_data = channel.b->quiet_data = true;
    /* What has ended above is not read any more, so an answer to the layer below would not be seen. */
    if (channel.second_codec)
        for (struct layer *layer = &channel.second_codec->layer; layer; layer = layer->below)
            ((struct codec *)layer)->never_asks = true;
    assert_true(tram_transport_can_write_eof(channel.first));
    write_pattern(channel.first, 30000, 0);
    assert_int_equal(tram_transport_write_eof(channel.first), 0);
    assert_int_equal(tram_transport_write(channel.first, "x", 1), TRAM_ESTATE);
    run_until_traced(world, "b.eof");
    assert_int_equal(channel.b->received, 30000);
    write_pattern(channel.second, 30000, 0);
    await_pattern(&channel, channel.a, 30000);
    tram_transport_close(channel.second);
    await_clean_end(&channel);
    channel_close(&channel);
}

static void test_W_26_a_layer_may_end_its_own_stream_half(void **state) {
    EACH(half_closes);
}

static void test_W_27_a_layer_without_write_eof(void **state) {
    struct world *world = *state;
    struct channel channel;
    channel_open(&channel, world, CARRIER_TCP, 1, &codec_whole_kind);
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    channel.b->eof_returns = 1;
    assert_false(tram_transport_can_write_eof(channel.first));
    assert_int_equal(tram_transport_write_eof(channel.first), -ENOTSUP);
    unsigned warnings = world->warnings;
    tram_transport_close(channel.first);
    run_until(world, &channel.b->was_released); /* a true from eof_received is warned of (S-14) */
    assert_int_equal(world->warnings, warnings + 1);
    channel_close(&channel);
}

static void test_S_23_writes_after_close_are_dropped(void **state) {
    struct world *world = *state;
    struct channel channel;
    channel_open_made(&channel, world, CARRIER_TCP, 1);
    tram_transport_pause_reading(channel.second);
    tram_transport_close(channel.first);
    assert_int_equal(tram_transport_write(channel.first, "late", 4), 0);
    tram_transport_resume_reading(channel.second);
    run_until(world, &channel.b->was_released);
    assert_int_equal(channel.b->received, 0);
    channel_close(&channel);
}

static void peer_vanishes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    tram_transport_abort(channel.second);
    run_until(world, &channel.a->was_released);
    assert_true(channel.a->lost);
    channel_close(&channel);
}

static void test_W_5_Y_1_an_answer_through_layers_before_a_reset_is_not_lost(void **state) {
    struct world *world = *state;
    for (unsigned depth = 1; depth <= 2; depth++) {
        struct channel channel;
        channel_open_made(&channel, world, CARRIER_TCP, depth);
        tram_transport_pause_reading(channel.second);
        write_pattern(channel.first, 1000, 0);
        run_to_rest(world);
        tram_transport_pause_reading(channel.first);
        tram_transport_write(channel.second, "hello", 5);
        tram_transport_abort(channel.second); /* its kernel has bytes unread: a reset */
        run_until(world, &channel.b->was_released);
        tram_transport_resume_reading(channel.first);
        tram_transport_write(channel.first, "x", 1);
        assert_false(tram_transport_is_closing(channel.first));
        run_until_traced(world, "a.data:5");
        run_until(world, &channel.a->was_released);
        assert_int_equal(channel.a->lost_code, -ECONNRESET);
        channel_close(&channel);
    }
}

/* Also where the peer's stream just ends, and where what it sent comes byte by byte. */
static void test_W_5_Y_1_the_error_of_a_send_outlives_the_end_of_the_stream(void **state) {
    struct world *world = *state;
    for (size_t size = 0; size <= 5; size++) {
        struct channel channel;
        channel_open_made(&channel, world, CARRIER_UNIX, 1);
        tram_transport_write(channel.second, "hello", size);
        fail_next(&faults.send, EPIPE, 1);
        faults.recv_at_most = 1;
        tram_transport_write(channel.first, "x", 1);
        tram_transport_abort(channel.second);
        run_until(world, &channel.a->was_released);
        assert_int_equal(channel.a->received, size);
        assert_int_equal(channel.a->lost_code, -EPIPE);
        assert_null(strstr(world->trace, "a.eof"));
        channel_close(&channel);
    }
}

/* Memory that lacks for what is to be sent is no failure of the peer's: nobody is heard any more. */
static void test_W_5_Y_1_without_memory_for_what_layers_write_it_ends_at_once(void **state) {
    struct world *world = *state;
    for (int lacks = 0; lacks < 2; lacks++) {
        struct channel channel;
        char text[100] = "much";
        channel_open_made(&channel, world, CARRIER_UNIX, 1);
        tram_transport_write(channel.second, "hello", 5);
        faults.send_budget = 0;
        if (lacks)
            world->fail_after = 0;
        else
            fail_next(&faults.send, EPIPE, 1);
        tram_transport_write(channel.first, text, sizeof text);
        world->fail_after = faults.send_budget = SIZE_MAX;
        run_until(world, &channel.a->was_released);
        assert_int_equal(channel.a->lost_code, lacks ? -ENOMEM : -EPIPE);
        assert_int_equal(channel.a->received, lacks ? 0 : 5);
        channel_close(&channel);
    }
}

static void test_Y_8_a_peer_that_vanishes_ends_it(void **state) {
    EACH(peer_vanishes);
}

static void loop_closes(struct world *world, enum carrier carrier, bool made) {
    struct channel channel;
    if (made)
        channel_open_made(&channel, world, carrier, 2);
    else
        channel_begin(&channel, world, carrier, 2);
    run_ticks(world, 2);
    world_reopen(world);
    assert_int_equal(channel.live, 0);
    assert_true(channel.a->was_released && channel.b->was_released);
    assert_int_equal(channel.a->made, channel.a->lost);
    world->trace[0] = '\0';
}

static void test_Y_8_a_loop_that_closes_frees_all_layers(void **state) {
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++)
        for (int made = 0; made < 2; made++)
            loop_closes(*state, carrier, made);
}

/* ---- Pushing and removing ---- */

struct awaited_bytes {
    const struct recorder *recorder;
    size_t size;
};

static bool has_bytes(void *arg) {
    const struct awaited_bytes *awaited = arg;
    return awaited->recorder->received >= awaited->size;
}

static void pushed_open(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    struct codec *codecs[2];
    channel_open_bare(&channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    run_to_rest(world);
    tram_transport_pause_reading(channel.first); /* which does not keep a layer from getting ready */
    for (unsigned i = 0; i < depth; i++) {
        for (int side = 0; side < 2; side++) {
            codecs[side] = codec_new(world, &codec_kind, &channel.live);
            tram_transport *transport = side ? channel.second : channel.first;
            assert_int_equal(tram__transport_push_layer(transport, &codecs[side]->layer, NULL, 0), 0);
            assert_int_equal(tram_transport_write(transport, "x", 1), TRAM_ESTATE);
            struct codec *second = codec_new(world, &codec_kind, &channel.live);
            assert_int_equal(tram__transport_push_layer(transport, &second->layer, NULL, 0), TRAM_ESTATE);
            second->layer.kind->free(&second->layer);
        }
        run_to_rest(world);
        assert_int_equal(codecs[0]->started + codecs[1]->started, 2);
    }
    world->trace[0] = '\0';
    channel.a->quiet_data = channel.b->quiet_data = true;
    write_pattern(channel.first, 15000, 0); /* no question: the paused end would not see the answer */
    write_pattern(channel.second, 40000, 0);
    await_pattern(&channel, channel.b, 15000);
    run_to_rest(world);
    assert_int_equal(channel.a->received, 0);
    tram_transport_resume_reading(channel.first);
    await_pattern(&channel, channel.a, 40000);
    channel_close(&channel);
}

static void test_Y_7_a_layer_is_pushed_on_an_open_transport(void **state) {
    EACH(pushed_open);
}

/* "TLS" and what comes behind it, in one receive: the protocol has it all, and gives back what is not its own. */
static void pushed_with_bytes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_bare(&channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    for (unsigned i = 0; i < depth; i++) {
        struct codec *codecs[] = {codec_new(world, &codec_kind, &channel.live),
                                  codec_new(world, &codec_kind, &channel.live)};
        struct recorder *b = channel.b;
        size_t plain = b->received + 3;
        assert_int_equal(tram_transport_write(channel.first, "TLS", 3), 0);
        assert_int_equal(tram__transport_push_layer(channel.first, &codecs[0]->layer, NULL, 0), 0);
        /* The first hello of the layer comes right behind. A layer below frames it, which makes two receives of it. */
        struct awaited_bytes awaited = {b, plain + (i ? 0 : 3)};
        run_until_true(world, has_bytes, &awaited);
        size_t ahead = b->received - plain;
        assert_int_equal(tram__transport_push_layer(channel.second, &codecs[1]->layer, b->bytes + plain, ahead), 0);
        run_to_rest(world);
        assert_int_equal(codecs[0]->started + codecs[1]->started, 2);
        b->received = b->kept = 0;
    }
    channel.a->quiet_data = channel.b->quiet_data = true;
    write_pattern(channel.first, 30000, 0);
    write_pattern(channel.second, 30000, 0);
    await_pattern(&channel, channel.b, 30000);
    await_pattern(&channel, channel.a, 30000);
    channel_close(&channel);
}

static void test_Y_3_Y_7_bytes_that_the_protocol_has_got_are_given_back(void **state) {
    EACH(pushed_with_bytes);
}

static struct codec *peeked_codec;

static int push_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        assert_int_equal(tram__transport_push_layer(recorder->base.transport, &peeked_codec->layer, NULL, 0), 0);
    return 0;
}

static int hand_out(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

/* What a peek has read comes before what the socket has, and is the layer's. */
static void test_Y_3_what_was_peeked_is_for_the_layer(void **state) {
    struct world *world = *state;
    for (enum carrier carrier = CARRIER_TCP; carrier_is_socket(carrier); carrier++) {
        struct channel channel = {.world = world, .a = recorder_new(world, "a"), .b = recorder_new(world, "b")};
        tram_future *future;
        void *value;
        int fds[2];
        (carrier == CARRIER_TCP ? tcp_pair : unix_pair)(fds);
        channel.first = transport_new(world, fds[0], channel.a);
        struct codec *codec = codec_new(world, &codec_kind, &channel.live);
        assert_int_equal(tram__transport_push_layer(channel.first, &codec->layer, NULL, 0), 0);
        assert_int_equal(tram_loop_peek(world->loop, fds[1], 2, 0, &future), 0); /* of the three bytes of a hello */
        run_until_true(world, future_is_done, future);
        assert_int_equal(tram_future_result(future, &value), 0);
        const tram_peeked *peeked = value;
        assert_int_equal(peeked->size, 2);
        peeked_codec = codec_new(world, &codec_kind, &channel.live);
        channel.b->on = push_when_made;
        channel.a->keep = channel.b->keep = true;
        assert_int_equal(
            tram_loop_adopt(world->loop, hand_out, &channel.b->base, fds[1], peeked->data, peeked->size, NULL), 0);
        tram_future_release(future);
        run_until(world, &channel.a->made);
        run_until(world, &channel.b->made);
        channel.a->quiet_data = channel.b->quiet_data = true;
        write_pattern(channel.first, 15000, 0);
        await_pattern(&channel, channel.b, 15000);
        channel_close(&channel);
    }
}

/* The first hellos of the peer come together with the last plain bytes. */
static void test_Y_3_Y_7_bytes_read_ahead_become_its_prefix(void **state) {
    struct world *world = *state;
    struct channel channel;
    struct wire wire = wire_new_made(world, recorder_new(world, "a"));
    wire.recorder->keep = true;
    channel = (struct channel){.world = world, .a = wire.recorder, .first = wire.transport};
    send_exactly(world, wire.peer, "STARTTLS\1\0\0", 11);
    run_until_traced(world, "a.data:11");
    world->trace[0] = '\0';
    struct codec *codec = codec_new(world, &codec_kind, &channel.live);
    assert_int_equal(tram__transport_push_layer(wire.transport, &codec->layer, wire.recorder->bytes + 8, 3), 0);
    run_to_rest(world);
    assert_int_equal(codec->hellos_seen, 1);
    send_exactly(world, wire.peer, "\1\0\0\1\0\0\2\0\1\x3b", 10);
    run_until_traced(world, "a.data:1");
    assert_memory_equal(wire.recorder->bytes + 11, "a", 1);
    tram_transport_abort(wire.transport);
    run_until(world, &wire.recorder->was_released);
    run_to_rest(world);
    assert_int_equal(channel.live, 0);
    close(wire.peer);
}

static void removes_itself(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open(&channel, world, carrier, depth, &codec_kind);
    channel.first_codec->leaves = channel.second_codec->leaves = true;
    channel.a->on = channel.b->on = write_at_once;
    channel.a->quiet_data = channel.b->quiet_data = true;
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    run_to_rest(world);
    assert_int_equal(channel.live, 2 * (depth - 1));
    assert_null(tram_transport_get_extra_info(depth == 1 ? channel.first : channel.second, "nothing", NULL));
    assert_int_equal(channel.a->received, 5);
    assert_memory_equal(channel.b->bytes, "hello", 5);
    assert_int_equal(write_pattern(channel.first, 30000, 0), 0);
    for (int i = 0; i < 1000 && channel.b->received < 30005; i++)
        run_to_rest(world);
    assert_int_equal(channel.b->received, 30005);
    assert_pattern(channel.b->bytes + 5, 30000, 0);
    channel_close(&channel);
}

static void test_Y_7_a_layer_removes_itself_and_leaves_its_rest(void **state) {
    EACH(removes_itself);
}

static void test_Y_1_some_transports_have_no_layers(void **state) {
    struct world *world = *state;
    struct channel channel = {.world = world};
    struct codec *codec = codec_new(world, &codec_kind, &channel.live);
    struct wire wire = wire_new_made(world, recorder_new(world, "a"));
    tram_transport_write_eof(wire.transport);
    assert_int_equal(tram__transport_push_layer(wire.transport, &codec->layer, NULL, 0), TRAM_ESTATE);
    tram_transport_close(wire.transport);
    assert_int_equal(tram__transport_push_layer(wire.transport, &codec->layer, NULL, 0), TRAM_ESTATE);
    run_until(world, &wire.recorder->was_released);
    close(wire.peer);
    codec->layer.kind->free(&codec->layer);
    world->trace[0] = '\0';
}

/* ---- With what else works on transports ---- */

static void bridged(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel in, out;
    tram_future *future;
    channel_open_made(&in, world, carrier, depth);
    channel_open_made(&out, world, CARRIER_TCP, 1);
    /* One that paused for the other would not see the answer that the other waits for. */
    if (in.second_codec)
        in.second_codec->never_asks = out.first_codec->never_asks = true;
    assert_int_equal(tram_bridge(in.second, out.first, NULL, &future), 0);
    in.a->quiet_data = out.b->quiet_data = true;
    write_pattern(in.first, 200000, 0);
    write_pattern(out.second, 200000, 0);
    await_pattern(&out, out.b, 200000);
    await_pattern(&in, in.a, 200000);
    tram_transport_close(in.first);
    run_until(world, &in.a->was_released);
    run_until(world, &out.b->was_released);
    run_until_true(world, future_is_done, future);
    tram_future_release(future);
    channel_close(&in);
    channel_close(&out);
}

static void test_Y_1_a_bridge_couples_transports_with_layers(void **state) {
    EACH(bridged);
}

static void sends_file(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    tram_future *future;
    if (carrier == CARRIER_PAIR)
        return; /* it has no sendfile */
    channel_open_made(&channel, world, carrier, depth);
    char bytes[60000], name[] = "/tmp/tram-layers-XXXXXX";
    pattern(bytes, sizeof bytes, 0);
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, bytes, sizeof bytes), (ssize_t)sizeof bytes);
    channel.b->quiet_data = true;
    assert_int_equal(tram_transport_sendfile_mode(channel.first), TRAM_SENDFILE_FALLBACK);
    assert_int_equal(tram_loop_sendfile(world->loop, channel.first, file, 0, (int64_t)sizeof bytes, NULL, &future), 0);
    await_pattern(&channel, channel.b, sizeof bytes);
    run_until_true(world, future_is_done, future);
    tram_future_release(future);
    channel_close(&channel);
    close(file);
}

static void sends_file_and_closes(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    tram_future *future;
    if (carrier == CARRIER_PAIR)
        return; /* it has no sendfile */
    channel_open_made(&channel, world, carrier, depth);
    char bytes[60000], name[] = "/tmp/tram-layers-XXXXXX";
    pattern(bytes, sizeof bytes, 0);
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, bytes, sizeof bytes), (ssize_t)sizeof bytes);
    channel.b->quiet_data = true;
    tram_transport_write(channel.second, "not delivered any more", 22);
    assert_int_equal(tram_loop_sendfile(world->loop, channel.first, file, 0, (int64_t)sizeof bytes, NULL, &future), 0);
    tram_transport_close(channel.first);
    await_pattern(&channel, channel.b, sizeof bytes);
    run_until_true(world, future_is_done, future);
    assert_int_equal(tram_future_result(future, NULL), 0);
    tram_future_release(future);
    await_clean_end(&channel);
    assert_int_equal(channel.a->received, 0);
    channel_close(&channel);
    close(file);
}

static void test_Y_8_T_1_a_close_waits_for_a_file_before_the_goodbyes(void **state) {
    EACH(sends_file_and_closes);
}

/* The goodbye behind a file waits, over the high mark: the protocol hears that once. */
static void test_Y_8_W_16_a_goodbye_behind_a_file_pauses_once(void **state) {
    struct world *world = *state;
    struct channel channel;
    tram_future *future;
    char name[] = "/tmp/tram-layers-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, "a file", 6), 6);
    channel_open_made(&channel, world, CARRIER_UNIX, 1);
    assert_int_equal(tram_transport_set_write_buffer_limits(channel.first, 0, 0), 0);
    assert_int_equal(tram_loop_sendfile(world->loop, channel.first, file, 0, 6, NULL, &future), 0);
    assert_int_equal(tram_transport_close(channel.first), 0);
    faults.send_budget = 3 + 6; /* its frame, and no more */
    run_until_true(world, future_is_done, future);
    run_until_traced(world, "a.pause");
    faults.send_budget = SIZE_MAX;
    run_until(world, &channel.a->was_released);
    assert_null(strstr(strstr(world->trace, "a.pause") + 1, "a.pause"));
    tram_future_release(future);
    channel_close(&channel);
    close(file);
}

static void test_Y_1_F_9_files_are_sent_by_blocks_through_layers(void **state) {
    EACH(sends_file);
}

/* ---- No user code under a layer ---- */

static unsigned in_layer;

static int assert_no_layer(struct recorder *recorder, const char *event) {
    (void)recorder, (void)event;
    assert_int_equal(in_layer, 0);
    return 0;
}

static void probe_write(struct layer *layer, const struct iovec *pieces, size_t count) {
    in_layer++;
    tram__layer_write(layer, pieces, count, false);
    in_layer--;
}

static ssize_t probe_read(struct layer *layer, void *memory, size_t size) {
    in_layer++;
    ssize_t result = tram__layer_read(layer, memory, size);
    in_layer--;
    return result;
}

static void probe_free(struct layer *layer) {
    assert_int_equal(in_layer, 0);
    free(layer);
}

static const struct layer_kind probe_kind = {
    .name = "probe", .write = probe_write, .read = probe_read, .free = probe_free};

static void push_probe(tram_transport *transport) {
    struct layer *layer = calloc(1, sizeof *layer);
    layer->kind = &probe_kind;
    assert_int_equal(tram__transport_push_layer(transport, layer, NULL, 0), 0);
}

static void test_Y_5_no_user_code_runs_while_a_layer_is_on_the_stack(void **state) {
    struct world *world = *state;
    for (enum carrier carrier = 0; carrier < CARRIER_COUNT; carrier++) {
        struct channel channel;
        channel_open_bare(&channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
        push_probe(channel.first);
        push_probe(channel.second);
        channel.a->on = channel.b->on = assert_no_layer;
        channel.a->quiet_data = channel.b->quiet_data = true;
        run_until(world, &channel.a->made);
        run_until(world, &channel.b->made);
        tram_transport_set_write_buffer_limits(channel.first, 1, 0);
        size_t size = 0;
        tram_transport_pause_reading(channel.second);
        for (; tram_transport_get_write_buffer_size(channel.first) <= 1; size += 100000)
            assert_int_equal(write_pattern(channel.first, 100000, size), 0);
        tram_transport_resume_reading(channel.second);
        await_pattern(&channel, channel.b, size);
        run_until_traced(world, "a.resume");
        tram_transport_set_write_hard_limit(channel.first, 1000000);
        tram_transport_pause_reading(channel.second);
        while (!tram_transport_is_closing(channel.first))
            write_pattern(channel.first, 1000000, 0);
        run_until(world, &channel.a->lost);
        assert_int_equal(channel.a->lost_code, TRAM_ELIMIT);
        tram_transport_resume_reading(channel.second);
        channel_close(&channel);
    }
}

/* ---- Tunnels ---- */

/* All of these tests go through one; here each layer is there twice, above and below. */
static void test_Y_9_a_layer_over_a_custom_transport_over_a_layer(void **state) {
    struct world *world = *state;
    struct channel channel;
    channel_open_made(&channel, world, CARRIER_TUNNEL, 2);
    assert_int_equal(channel.below, 4); /* two transports, each with a layer */
    channel.a->quiet_data = channel.b->quiet_data = true;
    write_pattern(channel.first, 60000, 0);
    write_pattern(channel.second, 60000, 0);
    await_pattern(&channel, channel.b, 60000);
    await_pattern(&channel, channel.a, 60000);
    tram_transport_close(channel.first);
    await_clean_end(&channel);
    channel_close(&channel);
}

/* ---- A kernel that is full ---- */

/* What a layer writes in several pieces is sent when it returns. A kernel that takes nothing then, or a part, is none
 * that failed: the rest waits for its turn. */
static void full_kernel(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    if (!carrier_is_socket(carrier))
        return;
    channel_open_made(&channel, world, carrier, depth);
    channel.b->quiet_data = true;
    static const int errors[] = {EAGAIN, ENOBUFS, ENOMEM};
    for (size_t i = 0; i < 3; i++) {
        unsigned before = faults.send.calls;
        fail_next(&faults.send, errors[i], 1);
        write_pattern(channel.first, 5000, i * 5000);
        assert_true(faults.send.calls > before && !faults.send.fail); /* it was asked, and said no */
        assert_true(tram_transport_get_write_buffer_size(channel.first) > 5000);
        assert_false(tram_transport_is_closing(channel.first));
        await_pattern(&channel, channel.b, (i + 1) * 5000);
    }
    faults.send_budget = 1000;
    write_pattern(channel.first, 4000, 15000);
    run_ticks(world, 3);
    assert_true(channel.b->received < 19000);
    faults.send_budget = SIZE_MAX;
    await_pattern(&channel, channel.b, 19000);
    assert_trace(world, "");
    channel_close(&channel);
}

static void test_Y_4_W_2_a_full_kernel_takes_what_layers_write_later(void **state) {
    struct world *world = *state;
    for (enum carrier carrier = CARRIER_TCP; carrier_is_socket(carrier); carrier++)
        for (unsigned depth = 1; depth <= 2; depth++)
            full_kernel(world, carrier, depth);
}

/* One that waits for memory asks the kernel when its time has come, and not whenever its layers have run. */
static void starved(struct world *world, enum carrier carrier, unsigned depth) {
    struct channel channel;
    channel_open_made(&channel, world, carrier, depth);
    channel.a->quiet_data = channel.b->quiet_data = true;
    struct deadline *again = &transport_state(world->loop)->send_again;
    fail_next(&faults.send, ENOBUFS, FAULT_ALWAYS);
    write_pattern(channel.first, 5000, 0);
    while (again->timer.place == TIMER_IDLE)
        run_ticks(world, 1);
    deadline_cancel(world->loop, again); /* for longer than this takes */
    assert_int_equal(tram__deadline_start_after(world->loop, again, HOUR_NS), 0);
    faults.send.fail = 0;
    write_pattern(channel.second, 1, 0);
    unsigned before = faults.send.calls;
    await_pattern(&channel, channel.a, 1);
    run_ticks(world, 3);
    assert_int_equal(faults.send.calls, before);
    deadline_cancel(world->loop, again);
    assert_int_equal(tram__deadline_start_after(world->loop, again, 0), 0);
    await_pattern(&channel, channel.b, 5000);
    assert_trace(world, "");
    channel_close(&channel);
}

static void test_Y_4_W_2_who_waits_for_memory_is_not_hurried_by_what_comes(void **state) {
    struct world *world = *state;
    for (unsigned depth = 1; depth <= 2; depth++)
        starved(world, CARRIER_UNIX, depth);
}

/* ---- Behind the end of the stream ---- */

/* Its stream ends with the first byte from below. It counts all bytes as kept until the test says otherwise. */
struct ender {
    struct layer layer;
    bool ended;
};

static ssize_t ender_read(struct layer *layer, void *memory, size_t size) {
    struct ender *ender = (struct ender *)(void *)layer;
    assert_false(ender->ended); /* asked behind the end */
    ssize_t got = tram__layer_read(layer, memory, size);
    ender->ended = got > 0;
    return got > 0 ? 0 : got;
}

static void ender_write(struct layer *layer, const struct iovec *pieces, size_t count) {
    tram__layer_write(layer, pieces, count, false);
    tram__layer_keep(layer, 10);
}

static bool ender_write_eof(struct layer *layer) {
    (void)layer;
    return true;
}

static const struct layer_kind ender_kind = {
    .name = "ender", .read = ender_read, .write = ender_write, .write_eof = ender_write_eof, .free = collector_free};

/* A file is sent, and the layer keeps bytes: for the peer's answers it would be read, but its stream has ended. */
/* A carrier that breaks off while it is given the bytes of the layers. */
struct breaker {
    unsigned at;    /* in this call: */
    bool aborts;    /* it aborts */
    int code;       /* and answers */
    unsigned calls; /* that came */
};

static int breaking_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct breaker *breaker = state;
    assert_true(count && pieces[0].iov_len);
    assert_true(breaker->calls < breaker->at); /* nothing comes behind the end */
    if (++breaker->calls < breaker->at)
        return 0;
    if (breaker->aborts)
        tram_transport_abort(transport);
    return breaker->code;
}

static int answering_layer_start(struct layer *layer) {
    static char bytes[700];
    layer_write(layer, bytes, sizeof bytes);
    return 0;
}

static void plain_free(struct layer *layer) {
    free(layer);
}

static const struct layer_kind talker_kind = {.name = "talker", .start = answering_layer_start, .free = plain_free};

static void test_Y_9_T_2_a_carrier_that_ends_while_it_is_given_bytes(void **state) {
    static const tram_custom_ops ops = {.writelines = breaking_writelines, .start_tls_compatible = true};
    static char bytes[40000];
    struct world *world = *state;
    for (int run = 0; run < 6; run++) {
        struct breaker breaker = {.at = run < 3 ? 1 : 2, .aborts = run % 3 != 1, .code = run % 3 ? -EIO : 0};
        struct recorder *recorder = recorder_new(world, NULL);
        struct layer *layer = calloc(1, sizeof *layer);
        tram_transport *transport;
        layer->kind = &talker_kind;
        assert_int_equal(tram_loop_create_custom(world->loop, &ops, &breaker, &recorder->base, &transport), 0);
        assert_int_equal(tram__transport_push_layer(transport, layer, NULL, 0), 0);
        tram_transport_hold(transport);
        run_to_rest(world);
        if (breaker.at == 2) {
            assert_trace(world, "made");
            assert_int_equal(tram_transport_write(transport, bytes, sizeof bytes), 0);
            assert_true(tram_transport_is_closing(transport));
            assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
            run_to_rest(world);
        }
        if (breaker.at == 1)
            assert_trace(world, "released");
        else
            assert_trace(world, breaker.aborts ? "lost:0 released" : "lost:EIO released");
        assert_int_equal(breaker.calls, breaker.at);
        tram_transport_release(transport);
        run_to_rest(world);
    }
}

static void test_Y_2_Y_3_a_layer_is_not_read_behind_its_end(void **state) {
    struct world *world = *state;
    struct channel channel;
    tram_future *future;
    char name[] = "/tmp/tram-layers-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, "a file", 6), 6);
    channel_open_bare(&channel, world, CARRIER_UNIX, recorder_new(world, "a"), recorder_new(world, "b"));
    run_until(world, &channel.a->made);
    run_until(world, &channel.b->made);
    struct ender *ender = calloc(1, sizeof *ender);
    ender->layer.kind = &ender_kind;
    assert_int_equal(tram__transport_push_layer(channel.first, &ender->layer, NULL, 0), 0);
    channel.a->eof_returns = 1;
    tram_transport_write(channel.second, "E", 1);
    run_until_traced(world, "a.eof");
    tram_transport_write(channel.second, "nobody asks for this", 20);
    tram_transport_set_write_buffer_limits(channel.first, 5, 0); /* which holds the writer of the file back */
    assert_int_equal(tram_loop_sendfile(world->loop, channel.first, file, 0, 7, NULL, &future), 0);
    run_until_traced(world, "b.data:6");
    run_to_rest(world);
    assert_false(tram_future_done(future));
    tram__layer_keep(&ender->layer, 0);
    run_until_true(world, future_is_done, future);
    assert_int_equal(tram_future_result(future, NULL), 0);
    tram_future_release(future);
    run_to_rest(world);
    assert_int_equal(channel.a->received, 0);
    channel_close(&channel);
    close(file);
}

/* ---- Out of memory ---- */

static void test_Y_5_every_allocation_may_fail(void **state) {
    struct world *world = *state;
    for (size_t after = 0; after < 60; after++) {
        struct channel channel;
        channel_open_bare(&channel, world, CARRIER_UNIX, recorder_new(world, "a"), recorder_new(world, "b"));
        struct codec *codecs[] = {codec_new(world, &codec_kind, &channel.live),
                                  codec_new(world, &codec_kind, &channel.live)};
        world->fail_after = after;
        world->fail_once = true;
        for (int i = 0; i < 2; i++)
            if (tram__transport_push_layer(i ? channel.second : channel.first, &codecs[i]->layer, NULL, 0))
                codecs[i]->layer.kind->free(&codecs[i]->layer);
        for (int i = 0; i < 20; i++)
            run_to_rest(world);
        if (channel.a->made && !channel.a->lost)
            write_pattern(channel.first, 50000, 0);
        run_to_rest(world);
        world->fail_after = SIZE_MAX;
        tram_transport *open[] = {channel.first, channel.second};
        struct recorder *recorders[] = {channel.a, channel.b};
        for (int i = 0; i < 2; i++)
            if (!recorders[i]->was_released && !recorders[i]->made)
                tram_transport_abort(open[i]);
        channel_close(&channel);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

/* Of every layer. */
static const struct CMUnitTest of_layers[] = {
    TEST(test_Y_6_bytes_behind_the_last_flight_are_delivered),
    TEST(test_Y_2_Y_4_all_bytes_arrive_in_order_both_ways),
    TEST(test_Y_4_what_a_layer_keeps_goes_out_in_order),
    TEST(test_Y_2_B_7_a_buffered_protocol_gets_them_in_its_own_memory),
    TEST(test_Y_3_R_3_R_5_a_paused_transport_does_not_deliver_and_loses_nothing),
    TEST(test_Y_1_W_16_water_marks_count_what_layers_keep),
    TEST(test_Y_1_the_hard_limit_counts_them_too),
    TEST(test_Y_8_close_sends_all_and_says_goodbye_in_each_layer),
    TEST(test_Y_8_T_1_close_waits_for_the_peers_goodbye_and_delivers_nothing),
    TEST(test_Y_8_abort_waits_for_no_layer),
    TEST(test_Y_1_V_19_G_2_close_clients_and_a_drain_say_goodbye),
    TEST(test_Y_1_G_1_the_end_of_a_grace_waits_for_no_layer),
    TEST(test_W_26_a_layer_may_end_its_own_stream_half),
    TEST(test_S_23_writes_after_close_are_dropped),
    TEST(test_W_5_Y_1_an_answer_through_layers_before_a_reset_is_not_lost),
    TEST(test_Y_8_a_peer_that_vanishes_ends_it),
    TEST(test_Y_8_a_loop_that_closes_frees_all_layers),
    TEST(test_Y_1_a_bridge_couples_transports_with_layers),
    TEST(test_Y_8_T_1_a_close_waits_for_a_file_before_the_goodbyes),
    TEST(test_Y_1_F_9_files_are_sent_by_blocks_through_layers),
    cmocka_unit_test_setup_teardown(test_Y_4_W_2_a_full_kernel_takes_what_layers_write_later, world_setup_faults,
                                    world_teardown),
};

/* Again, over TLS. */
static int ask_tls(void) {
#ifdef TRAM_TEST_TLS
    return cmocka_run_group_tests_name("of TLS", of_layers, tls_overlay_setup, tls_overlay_teardown);
#else
    return 0;
#endif
}

int main(void) {
    const struct CMUnitTest of_codecs[] = {
        TEST(test_Y_1_Y_6_connection_made_is_held_back_until_layers_are_ready),
        TEST(test_Y_6_X_9_who_is_not_ready_hears_released_only_and_is_there_until_then),
        TEST(test_Y_6_T_3_the_log_function_may_end_one_that_is_not_ready),
        TEST(test_Y_6_a_failure_is_the_creators_error),
        TEST(test_Y_6_a_layer_has_a_time_to_be_ready),
        TEST(test_Y_7_a_layer_of_a_lost_connection_changes_nothing),
        TEST(test_Y_6_of_two_times_the_later_counts),
        TEST(test_Y_6_a_peer_that_leaves_or_talks_nonsense),
        TEST(test_Y_3_Y_7_the_end_of_the_stream_is_held_behind_the_bytes),
        TEST(test_Y_3_Y_4_a_layer_that_waits_for_the_peer_hears_it_while_reading_is_paused),
        TEST(test_Y_8_all_goodbyes_are_under_one_deadline),
        TEST(test_W_27_a_layer_without_write_eof),
        TEST(test_Y_7_a_layer_is_pushed_on_an_open_transport),
        TEST(test_Y_3_Y_7_bytes_read_ahead_become_its_prefix),
        TEST(test_Y_3_Y_7_bytes_that_the_protocol_has_got_are_given_back),
        TEST(test_Y_3_what_was_peeked_is_for_the_layer),
        TEST(test_Y_7_a_layer_removes_itself_and_leaves_its_rest),
        TEST(test_Y_1_some_transports_have_no_layers),
        cmocka_unit_test_setup_teardown(test_Y_4_W_2_who_waits_for_memory_is_not_hurried_by_what_comes,
                                        world_setup_faults, world_teardown),
        cmocka_unit_test_setup_teardown(test_Y_8_W_16_a_goodbye_behind_a_file_pauses_once, world_setup_faults,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_W_5_Y_1_the_error_of_a_send_outlives_the_end_of_the_stream,
                                        world_setup_faults, world_teardown),
        cmocka_unit_test_setup_teardown(test_W_5_Y_1_without_memory_for_what_layers_write_it_ends_at_once,
                                        world_setup_faults, world_teardown),
        TEST(test_Y_5_no_user_code_runs_while_a_layer_is_on_the_stack),
        TEST(test_Y_9_a_layer_over_a_custom_transport_over_a_layer),
        TEST(test_Y_9_T_2_a_carrier_that_ends_while_it_is_given_bytes),
        TEST(test_Y_2_Y_3_a_layer_is_not_read_behind_its_end),
        TEST(test_Y_5_every_allocation_may_fail),
    };
    int failed = cmocka_run_group_tests_name("of codecs", of_codecs, NULL, NULL);
    failed += cmocka_run_group_tests_name("of layers", of_layers, NULL, NULL);
    return failed + ask_tls();
}
