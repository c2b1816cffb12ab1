/* Rules M-2 to M-11: the in-memory pair. */
#include <pthread.h>

#include "support/memory.h"
#include "support/stream.h"
#include "support/support.h"

struct pair {
    struct world *world;
    struct recorder *a, *b;
    tram_transport *first, *second;
};

static struct pair pair_new_of(struct world *world, struct recorder *a, struct recorder *b) {
    struct pair pair = {.world = world, .a = a, .b = b};
    a->keep = b->keep = true;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &pair.first, &pair.second), 0);
    return pair;
}

/* connection_made of both is behind it. */
static struct pair pair_new(struct world *world) {
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), recorder_new(world, "b"));
    run_to_rest(world);
    assert_trace(world, "a.made b.made");
    return pair;
}

static void pair_end(struct pair *pair) {
    if (!pair->a->lost)
        tram_transport_abort(pair->first);
    run_to_rest(pair->world);
    assert_true(pair->a->lost && pair->b->lost && pair->a->was_released && pair->b->was_released);
    pair->world->trace[0] = '\0';
}

static int write_text(tram_transport *transport, const char *text) {
    return tram_transport_write(transport, text, strlen(text));
}

static void write_size(tram_transport *transport, size_t size) {
    assert_int_equal(write_pattern(transport, size, 0), 0);
}

/* ---- What the structure must stand ---- */

static int write_eof_on_resume(struct recorder *recorder, const char *event) {
    return strcmp(event, "resume") == 0 ? tram_transport_write_eof(recorder->base.transport) : 0;
}

static void test_M_6_W_27_write_eof_in_the_resume_of_the_last_byte(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    pair.a->on = write_eof_on_resume;
    assert_int_equal(tram_transport_set_write_buffer_limits(pair.first, 2, 0), 0);
    assert_int_equal(write_text(pair.first, "text"), 0);
    run_to_rest(world);
    assert_trace(world, "a.pause b.data:4 a.resume b.eof b.lost:0 b.released a.eof a.lost:0 a.released");
    pair_end(&pair);
}

/* A pair may be written to before its connection_made, which comes before all else. */
static void test_P_1_W_16_pause_writing_waits_for_connection_made(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), recorder_new(world, "b"));
    assert_int_equal(tram_transport_set_write_buffer_limits(pair.first, 2, 0), 0);
    assert_int_equal(write_text(pair.first, "text"), 0);
    assert_int_equal(tram_transport_set_write_buffer_limits(pair.first, 1, 0), 0);
    assert_trace(world, "");
    run_to_rest(world);
    assert_trace(world, "a.made a.pause b.made b.data:4 a.resume");
    pair_end(&pair);
}

static void test_M_4_W_24_sizes_that_cannot_be_added_are_refused(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    const struct iovec pieces[] = {{"x", SIZE_MAX - 9}, {"abcdefghijklmnopqrstuvwxyz", 26}};
    assert_int_equal(tram_transport_writelines(pair.first, pieces, 2), TRAM_EVALUE);
    assert_int_equal(tram_transport_get_write_buffer_size(pair.first), 0);
    assert_int_equal(tram_transport_writelines(pair.first, pieces, 1), -ENOMEM); /* with the segment around it */
    assert_true(tram_transport_is_closing(pair.first));
    pair_end(&pair);
}

/* ---- Beginning ---- */

static void test_M_2_connection_made_is_queued_for_both_the_first_one_first(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), recorder_new(world, "b"));
    assert_trace(world, "");
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)"later", NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "a.made b.made later");
    assert_ptr_equal(tram_transport_get_protocol(pair.first), &pair.a->base);
    assert_ptr_equal(tram_transport_get_protocol(pair.second), &pair.b->base);
    assert_true(tram_transport_is_reading(pair.first));
    pair_end(&pair);
}

static void test_M_2_bytes_written_before_connection_made_wait_for_it(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), recorder_new(world, "b"));
    write_text(pair.second, "early");
    run_to_rest(world);
    assert_trace(world, "a.made b.made a.data:5");
    pair_end(&pair);
}

static void test_M_2_a_pair_that_cannot_be_made_leaves_the_protocols_alone(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    tram_protocol nothing = {0};
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &nothing, NULL, NULL), TRAM_ETYPE);
    assert_int_equal(tram_loop_create_pair(world->loop, NULL, &b->base, NULL, NULL), TRAM_ETYPE);
    int failures = 0;
    for (size_t allowed = 0; allowed < 40; allowed++) {
        world->fail_after = allowed;
        int status = tram_loop_create_pair(world->loop, &a->base, &b->base, NULL, NULL);
        world->fail_after = SIZE_MAX;
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
        failures++;
        run_to_rest(world);
        assert_trace(world, "");
    }
    assert_true(failures > 1);
    run_to_rest(world);
    tram_transport_abort(a->base.transport);
    run_to_rest(world);
    assert_trace(world, "a.made b.made a.lost:0 a.released b.eof b.lost:0 b.released");
}

/* ---- Data ---- */

static void test_M_3_data_comes_in_order_and_never_inside_the_write(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    write_text(pair.first, "one ");
    struct iovec pieces[] = {{(void *)"two ", 4}, {NULL, 0}, {(void *)"three ", 6}};
    assert_int_equal(tram_transport_writelines(pair.first, pieces, 3), 0);
    tram_buffer *buffer = tram_buffer_copy("four", 4);
    assert_int_equal(tram_transport_write_buffer(pair.first, buffer), 0);
    tram_buffer_release(buffer);
    assert_trace(world, "");
    run_to_rest(world);
    assert_int_equal(pair.b->kept, 18);
    assert_memory_equal(pair.b->bytes, "one two three four", 18);
    pair_end(&pair);
}

/* Answers as long as there is something to count down. */
static int count_down(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") == 0 && recorder->bytes[recorder->kept - 1] > '0') {
        char next = (char)(recorder->bytes[recorder->kept - 1] - 1);
        return tram_transport_write(recorder->base.transport, &next, 1);
    }
    return 0;
}

static void test_M_3_both_write_in_their_callbacks(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    pair.a->on = pair.b->on = count_down;
    write_text(pair.first, "4");
    run_to_rest(world);
    assert_trace(world, "b.data:1 a.data:1 b.data:1 a.data:1 b.data:1");
    pair_end(&pair);
}

static void test_M_3_a_buffered_protocol_receives_into_its_own_memory(void **state) {
    struct world *world = *state;
    struct recorder *b = recorder_new_buffered(world, "b");
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), b);
    b->buffer_size = 4;
    run_to_rest(world);
    assert_trace(world, "a.made b.made");
    write_text(pair.first, "sixsix");
    run_to_rest(world);
    assert_trace(world, "b.get_buffer b.updated:4 b.get_buffer b.updated:2");
    assert_memory_equal(b->bytes, "sixsix", 6);
    pair_end(&pair);
}

static int pause_after_4(struct recorder *recorder, const char *event) {
    if (strcmp(event, "updated") == 0)
        return tram_transport_pause_reading(recorder->base.transport);
    return 0;
}

/* rules: M-4, R-5 */
static void test_M_4_a_pause_half_way_through_keeps_the_rest(void **state) {
    struct world *world = *state;
    struct recorder *b = recorder_new_buffered(world, "b");
    struct pair pair = pair_new_of(world, recorder_new(world, "a"), b);
    b->buffer_size = 4;
    b->on = pause_after_4;
    run_to_rest(world);
    world->trace[0] = '\0';
    write_text(pair.first, "sixsix");
    tram_transport_write_eof(pair.first);
    run_to_rest(world);
    assert_trace(world, "b.get_buffer b.updated:4");
    assert_int_equal(tram_transport_get_write_buffer_size(pair.first), 6);
    b->on = NULL;
    tram_transport_resume_reading(pair.second);
    assert_trace(world, "");
    run_to_rest(world);
    assert_trace(world, "b.get_buffer b.updated:2 b.eof b.lost:0 b.released a.eof a.lost:0 a.released");
}

/* rules: M-4, W-13, W-16, W-17, W-18, W-23, W-24 */
static void test_M_4_what_the_peer_has_not_taken_is_the_write_buffer(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    tram_transport_pause_reading(pair.second);
    write_size(pair.first, 65536);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(tram_transport_get_write_buffer_size(pair.first), 65536);
    write_size(pair.first, 1);
    assert_trace(world, "a.pause");
    write_size(pair.first, 1);
    run_to_rest(world);
    assert_trace(world, "");
    pair.b->quiet_data = true;
    tram_transport_resume_reading(pair.second);
    assert_int_equal(pair.b->received, 0);
    run_to_rest(world);
    assert_trace(world, "a.resume");
    assert_int_equal(tram_transport_get_write_buffer_size(pair.first), 0);
    assert_int_equal(pair.b->received, 65538);
    pair_end(&pair);
}

/* rules: M-4, W-14, W-15 */
static void test_M_4_the_marks_can_be_set(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    assert_int_equal(tram_transport_set_write_buffer_limits(pair.first, 0, TRAM_LIMIT_DEFAULT), 0);
    write_size(pair.first, 1);
    assert_trace(world, "a.pause");
    run_to_rest(world);
    assert_trace(world, "b.data:1 a.resume");
    assert_int_equal(tram_transport_set_write_buffer_limits(pair.first, 1, 2), TRAM_EVALUE);
    assert_int_equal(tram_transport_set_write_hard_limit(pair.first, 10), 0);
    tram_transport_pause_reading(pair.second);
    write_size(pair.first, 11);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_ELIMIT);
    run_to_rest(world);
    assert_int_equal(pair.a->lost_code, TRAM_ELIMIT);
    tram_transport_resume_reading(pair.second); /* it has not seen the end yet */
    pair_end(&pair);
}

/* ---- Ending ---- */

/* rules: M-5, P-8 */
static void test_M_5_close_flushes_then_the_other_end_sees_the_end(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    write_text(pair.first, "last");
    tram_transport_close(pair.first);
    run_to_rest(world);
    assert_trace(world, "b.data:4 a.lost:0 a.released b.eof b.lost:0 b.released");
}

static void test_M_5_close_waits_for_a_peer_that_paused(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    tram_transport_pause_reading(pair.second);
    write_text(pair.first, "last");
    tram_transport_close(pair.first);
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_resume_reading(pair.second);
    run_to_rest(world);
    assert_trace(world, "b.data:4 a.lost:0 a.released b.eof b.lost:0 b.released");
}

/* Neither waits for what the other will never read. */
static void test_M_5_both_close_with_bytes_on_their_way(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    write_text(pair.first, "to b");
    write_text(pair.second, "to a");
    tram_transport_close(pair.first);
    tram_transport_close(pair.second);
    run_to_rest(world);
    assert_true(pair.a->lost && pair.b->lost);
    assert_int_equal(pair.a->received + pair.b->received, 0);
    assert_int_equal(pair.a->lost_code + pair.b->lost_code, 0);
}

static void test_M_5_writing_to_an_end_that_is_gone_is_a_broken_pipe(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    pair.b->eof_returns = 1;
    tram_transport_close(pair.first);
    run_to_rest(world);
    assert_trace(world, "a.lost:0 a.released b.eof");
    assert_int_equal(write_text(pair.second, "x"), 0);
    run_to_rest(world);
    assert_trace(world, "b.lost:EPIPE b.released");
}

/* rules: M-6, P-9, W-26, W-27 */
static void test_M_6_write_eof_leaves_the_other_direction_open(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    pair.b->eof_returns = 1;
    assert_true(tram_transport_can_write_eof(pair.first));
    write_text(pair.first, "question");
    assert_int_equal(tram_transport_write_eof(pair.first), 0);
    assert_int_equal(tram_transport_write_eof(pair.first), 0);
    assert_int_equal(write_text(pair.first, "more"), TRAM_ESTATE);
    run_to_rest(world);
    assert_trace(world, "b.data:8 b.eof");
    assert_false(tram_transport_is_closing(pair.first));
    assert_false(tram_transport_is_reading(pair.second));
    write_text(pair.second, "answer");
    tram_transport_close(pair.second);
    run_to_rest(world);
    assert_trace(world, "a.data:6 b.lost:0 b.released a.eof a.lost:0 a.released");
}

static void test_M_7_abort_drops_the_buffers_of_both_directions(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    write_text(pair.first, "to b");
    write_text(pair.second, "to a");
    tram_transport_abort(pair.first);
    run_to_rest(world);
    assert_trace(world, "a.lost:0 a.released b.eof b.lost:0 b.released");

    /* also what waits already for an end that paused, and frees a writer that waits */
    pair = pair_new(world);
    tram_transport_pause_reading(pair.first);
    tram_transport_pause_reading(pair.second);
    write_size(pair.first, 70000);
    write_size(pair.second, 70000);
    run_to_rest(world);
    assert_trace(world, "a.pause b.pause");
    tram_transport_abort(pair.first);
    tram_transport_resume_reading(pair.second);
    run_to_rest(world);
    assert_trace(world, "a.lost:0 a.released b.resume b.eof b.lost:0 b.released");
}

static int write_and_abort_the_other(tram_loop *loop, void *arg) {
    (void)loop;
    struct pair *pair = arg;
    assert_int_equal(write_text(pair->first, "to nobody"), 0);
    return tram_transport_abort(pair->second);
}

/* As in callbacks of protocols, and unlike above, the loop is running. */
static void test_M_7_an_end_that_is_gone_when_bytes_arrive(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    assert_int_equal(tram_loop_call_soon(world->loop, write_and_abort_the_other, &pair, NULL, NULL), 0);
    run_to_rest(world);
    assert_trace(world, "b.lost:0 b.released a.eof a.lost:0 a.released");
}

static void test_M_7_an_end_that_fails_is_the_end_of_the_stream_for_the_other(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    world->fail_after = 0;
    assert_int_equal(write_text(pair.first, "x"), -ENOMEM);
    world->fail_after = SIZE_MAX;
    run_to_rest(world);
    assert_trace(world, "a.lost:ENOMEM a.released b.eof b.lost:0 b.released");
}

/* rules: M-8, T-12 */
static void test_M_8_set_protocol_switches_at_once(void **state) {
    struct world *world = *state;
    struct pair pair = pair_new(world);
    struct recorder *c = recorder_new_buffered(world, "c");
    write_text(pair.first, "for c");
    assert_int_equal(tram_transport_set_protocol(pair.second, &c->base), 0);
    run_to_rest(world);
    assert_string_equal(strstr(world->trace, "c."), "c.get_buffer c.updated:5 b.released");
    assert_null(strstr(world->trace, "c.made"));
    assert_false(pair.b->lost);
    tram_transport_abort(pair.first);
    run_to_rest(world);
    assert_true(c->lost && c->was_released && !pair.b->lost);
}

static void test_M_10_extra_info_is_the_default(void **state) {
    struct pair pair = pair_new(*state);
    static const char *const names[] = {"peername", "socket", "sockname", "anything"};
    for (size_t i = 0; i < 4; i++) {
        assert_null(tram_transport_get_extra_info(pair.first, names[i], NULL));
        assert_ptr_equal(tram_transport_get_extra_info(pair.second, names[i], "none"), "none");
    }
    pair_end(&pair);
}

/* ---- Two loops ---- */

#define ROUNDS 2000

/* Echoes; ends with its peer. On a thread of its own. */
struct echo {
    tram_protocol base;
    tram_loop *loop;
    size_t received;
    bool wrong;
    bool lost;
};

static int echo_data(tram_protocol *protocol, const void *data, size_t size) {
    struct echo *echo = (struct echo *)protocol;
    assert_pattern(data, size, echo->received);
    echo->received += size;
    echo->wrong |= tram_loop_running() != echo->loop;
    return tram_transport_write(protocol->transport, data, size);
}

static int echo_pause(tram_protocol *protocol) {
    return tram_transport_pause_reading(protocol->transport);
}

static int echo_resume(tram_protocol *protocol) {
    return tram_transport_resume_reading(protocol->transport);
}

static int echo_lost(tram_protocol *protocol, const tram_error *error) {
    struct echo *echo = (struct echo *)protocol;
    echo->lost = !error;
    return tram_loop_stop(echo->loop);
}

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .data_received = echo_data,
        .pause_writing = echo_pause,
        .resume_writing = echo_resume,
        .connection_lost = echo_lost,
    };
    struct echo *echo = arg;
    echo->base.ops = &ops;
    echo->loop = loop;
    *ret_protocol = &echo->base;
    return 0;
}

static void *run_loop(void *arg) {
    tram_loop_run_forever(arg);
    return NULL;
}

/* The sender: pieces of all sizes, as many as the other end takes. */
struct sender {
    tram_protocol base;
    size_t sent, received, rounds;
    size_t most; /* ever in the write buffer */
    bool paused, lost;
};

static int sender_go_on(tram_protocol *protocol) {
    struct sender *sender = (struct sender *)protocol;
    sender->paused = false;
    while (!sender->paused && sender->rounds < ROUNDS) {
        size_t size = 1 + sender->rounds++ * 37 % 5000;
        int status = write_pattern(protocol->transport, size, sender->sent);
        if (status)
            return status;
        sender->sent += size;
        size_t queued = tram_transport_get_write_buffer_size(protocol->transport);
        sender->most = queued > sender->most ? queued : sender->most;
    }
    return sender->rounds == ROUNDS && !sender->paused ? tram_transport_write_eof(protocol->transport) : 0;
}

static int sender_made(tram_protocol *protocol, tram_transport *transport) {
    (void)transport;
    return sender_go_on(protocol);
}

static int sender_data(tram_protocol *protocol, const void *data, size_t size) {
    struct sender *sender = (struct sender *)protocol;
    assert_pattern(data, size, sender->received);
    sender->received += size;
    return 0;
}

static int sender_pause(tram_protocol *protocol) {
    ((struct sender *)protocol)->paused = true;
    return 0;
}

static int sender_lost(tram_protocol *protocol, const tram_error *error) {
    ((struct sender *)protocol)->lost = !error;
    return 0;
}

/* rules: M-4, M-9, L-11 */
static void test_M_9_ends_on_two_loops_keep_order_and_flow_control(void **state) {
    static const tram_protocol_ops ops = {
        .connection_made = sender_made,
        .data_received = sender_data,
        .pause_writing = sender_pause,
        .resume_writing = sender_go_on,
        .connection_lost = sender_lost,
    };
    struct world *world = *state;
    tram_loop *other;
    struct echo echo = {0};
    struct sender sender = {.base.ops = &ops};
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &sender.base, other, echo_factory, &echo, NULL), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_loop, other), 0);
    run_until(world, &sender.lost);
    pthread_join(thread, NULL);
    assert_true(echo.lost && !echo.wrong);
    assert_int_equal(echo.received, sender.sent);
    assert_int_equal(sender.received, sender.sent);
    assert_true(sender.most > 65536 && sender.most <= 65536 + 5000);
    assert_int_equal(tram_loop_free(other), 0);
}

static void test_M_9_the_other_loop_closes(void **state) {
    struct world *world = *state;
    for (int ticks = 0; ticks < 3; ticks++) { /* before the other end was made, and after */
        tram_loop *other;
        tram_transport *transport;
        struct echo echo = {0};
        struct recorder *a = recorder_new(world, "a");
        assert_int_equal(tram_loop_new(NULL, &other), 0);
        assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, echo_factory, &echo, &transport),
                         0);
        assert_int_equal(write_text(transport, "x"), 0);
        for (int i = 0; i < ticks; i++)
            assert_int_equal(tram_loop_dispatch(other), 0);
        assert_int_equal(tram_loop_close(other), 0);
        run_to_rest(world);
        assert_int_equal(tram_loop_free(other), 0);
        assert_trace(world, "a.made a.eof a.lost:0 a.released");
    }
}

static void test_M_9_this_loop_closes_first(void **state) {
    struct world *world = *state;
    tram_loop *other;
    struct echo echo = {0};
    struct recorder *a = recorder_new(world, "a");
    tram_transport *transport;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, echo_factory, &echo, &transport), 0);
    run_to_rest(world);
    assert_int_equal(write_text(transport, ""), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_dispatch(other), 0);
    world_reopen(world);
    for (int i = 0; i < 3 && !echo.lost; i++)
        tram_loop_dispatch(other);
    assert_true(echo.lost);
    assert_trace(world, "a.made a.lost:0 a.released");
    assert_int_equal(tram_loop_free(other), 0);
}

static int no_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, arg, "no");
}

/* Of the other loop's mail, of what lies between both, of the first end: whatever fails, the protocol stays ours. */
static void test_X_1_M_9_a_pair_across_needs_memory(void **state) {
    struct world *world = *state;
    for (int of_the_loop = 0; of_the_loop < 2; of_the_loop++) {
        struct recorder *a = recorder_new(world, "a");
        int status = -ENOMEM;
        for (unsigned n = 0; status; n++) {
            tram_loop *other; /* a fresh one: none of its mail was paid for */
            assert_true(n < 100);
            assert_int_equal(tram_loop_new(NULL, &other), 0);
            if (of_the_loop)
                world->fail_after = n;
            else
                memory_fail(n + 1, 1);
            status = tram_loop_create_pair_across(world->loop, &a->base, other, no_protocol, NULL, NULL);
            world->fail_after = SIZE_MAX;
            memory_fail(0, 0);
            assert_true(status == -ENOMEM || (status == 0 && n > 0));
            assert_int_equal(tram_loop_free(other), 0);
            run_to_rest(world);
            assert_trace(world, status ? "" : "a.made a.eof a.lost:0 a.released");
        }
    }
}

static void test_M_9_a_factory_that_fails_ends_the_first_end(void **state) {
    struct world *world = *state;
    tram_loop *other;
    struct recorder *a = recorder_new(world, "a");
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, no_protocol, NULL, NULL), 0);
    assert_int_equal(tram_loop_dispatch(other), 0);
    run_to_rest(world);
    assert_trace(world, "a.made a.eof a.lost:0 a.released");
    a = recorder_new(world, "a");
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, NULL, no_protocol, NULL, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, NULL, NULL, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_close(other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, no_protocol, NULL, NULL), TRAM_ESTATE);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(tram_loop_free(other), 0);
}

static void test_M_9_a_pair_across_needs_a_protocol(void **state) {
    struct world *world = *state;
    static tram_protocol no_ops;
    struct echo echo = {0};
    tram_loop *other;
    size_t blocks = world->live_blocks;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, NULL, other, echo_factory, &echo, NULL), TRAM_ETYPE);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &no_ops, other, echo_factory, &echo, NULL), TRAM_ETYPE);
    assert_int_equal(tram_loop_dispatch(other), 0); /* nothing was sent there */
    assert_int_equal(world->live_blocks, blocks);
    assert_int_equal(tram_loop_free(other), 0);
}

/* ---- The last reference ---- */

#define ENDINGS 300

/* The far end goes at once, or once something came, or once the near end has gone. */
struct far {
    tram_protocol base;
    unsigned how;
};

static _Atomic unsigned far_released;

static int far_made(tram_protocol *protocol, tram_transport *transport) {
    struct far *far = (struct far *)protocol;
    if (far->how == 0)
        return tram_transport_abort(transport);
    return far->how == 1 ? tram_transport_write(transport, "far", 3) : 0;
}

static int far_data(tram_protocol *protocol, const void *data, size_t size) {
    (void)data, (void)size;
    return ((struct far *)protocol)->how == 2 ? tram_transport_close(protocol->transport) : 0;
}

static void far_free(tram_protocol *protocol) {
    free(protocol);
    far_released++;
}

static int far_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.connection_made = far_made, .data_received = far_data, .released = far_free};
    (void)loop;
    struct far *far = calloc(1, sizeof *far);
    *far = (struct far){.base.ops = &ops, .how = (unsigned)(uintptr_t)arg};
    *ret_protocol = &far->base;
    return 0;
}

static int stop_loop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static bool all_far_released(void *arg) {
    (void)arg;
    return far_released == ENDINGS;
}

/*
 * Both ends go at about the same time, each on its thread: whichever drops the last reference frees what they share,
 * with what is still on its way. Sanitizers see to the rest.
 */
static void test_M_9_either_of_two_running_loops_may_go_last(void **state) {
    struct world *world = *state;
    tram_loop *other;
    pthread_t thread;
    far_released = 0;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, other), 0);
    for (unsigned i = 0; i < ENDINGS; i++) {
        struct recorder *near = recorder_new(world, NULL);
        tram_transport *transport;
        assert_int_equal(tram_loop_create_pair_across(world->loop, &near->base, other, far_factory,
                                                      (void *)(uintptr_t)(i % 4), &transport),
                         0);
        assert_int_equal(tram_transport_write(transport, "near", 4), 0);
        for (unsigned ticks = i % 7; ticks && !near->lost; ticks--)
            run_ticks(world, 1);
        if (!near->lost)
            assert_int_equal(i % 3 ? tram_transport_abort(transport) : tram_transport_close(transport), 0);
        run_until(world, &near->was_released);
        world->trace[0] = '\0';
    }
    run_until_true(world, all_far_released, NULL);
    assert_int_equal(tram_loop_call_soon_threadsafe(other, stop_loop, NULL, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(tram_loop_free(other), 0);
}

/* ---- Without memory ---- */

static void use_pair(struct world *world) {
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    tram_transport *first = NULL, *second = NULL;
    if (!had_memory(tram_loop_create_pair(world->loop, &a->base, &b->base, &first, &second))) {
        run_ticks(world, 1);
        assert_true(!a->made && !b->made && !a->was_released && !b->was_released);
        return;
    }
    run_ticks(world, 2);
    assert_true(a->made && b->made);
    const struct iovec pieces[] = {{"abc", 3}, {"de", 2}};
    tram_buffer *buffer = tram_buffer_copy("fgh", 3);
    bool all = had_memory(tram_transport_write(first, "text", 4)) &&
               had_memory(tram_transport_writelines(first, pieces, 2)) &&
               had_memory(buffer ? tram_transport_write_buffer(first, buffer) : tram_transport_write(first, "fgh", 3));
    tram_buffer_release(buffer);
    run_ticks(world, 3);
    if (all)
        assert_int_equal(b->received, 12);
    else
        assert_int_equal(a->lost_code, -ENOMEM);
    if (!a->lost)
        tram_transport_close(first);
    run_ticks(world, 4);
    assert_true(a->lost && b->lost && a->was_released && b->was_released);
    assert_int_equal(a->lost_code, all ? 0 : -ENOMEM);
    world->trace[0] = '\0';
}

static unsigned across_discarded;

static void count_across(void *arg) {
    (void)arg;
    across_discarded++;
}

static int refuse_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)ret_protocol;
    count_across(arg);
    return -EACCES;
}

/* Both ends on loops of this thread; what was accepted reaches the factory or the discard, what was refused neither. */
static void use_pair_across(struct world *world) {
    tram_loop *other = NULL;
    if (!had_memory(tram_loop_new(&world->options, &other)))
        return;
    struct recorder *a = recorder_new(world, "a");
    across_discarded = 0;
    bool made = had_memory(tram_loop_create_pair_across_with_discard(world->loop, &a->base, other, refuse_protocol,
                                                                     world, count_across, NULL));
    run_ticks(world, 2);
    assert_int_equal(a->made, made);
    if (made && world->failures % 2) { /* the factory is asked, or the loop closes before */
        assert_int_equal(tram_loop_stop(other), 0);
        assert_int_equal(tram_loop_run_forever(other), 0);
    }
    assert_int_equal(tram_loop_free(other), 0);
    run_ticks(world, 3);
    assert_int_equal(across_discarded, made);
    assert_int_equal(a->was_released, made);
    world->trace[0] = '\0';
}

static void test_X_1_pairs_without_memory(void **state) {
    run_out_of_other_memory(*state, false, use_pair);
    run_out_of_other_memory(*state, true, use_pair);
    run_out_of_other_memory(*state, false, use_pair_across);
    run_out_of_other_memory(*state, true, use_pair_across);
    run_out_of_memory(*state, false, use_pair);
    run_out_of_memory(*state, true, use_pair);
    run_out_of_memory(*state, false, use_pair_across);
    run_out_of_memory(*state, true, use_pair_across);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(M_6_W_27_write_eof_in_the_resume_of_the_last_byte),
        TEST(M_4_W_24_sizes_that_cannot_be_added_are_refused),
        TEST(P_1_W_16_pause_writing_waits_for_connection_made),
        TEST(M_2_connection_made_is_queued_for_both_the_first_one_first),
        TEST(M_2_bytes_written_before_connection_made_wait_for_it),
        TEST(M_2_a_pair_that_cannot_be_made_leaves_the_protocols_alone),
        TEST(M_3_data_comes_in_order_and_never_inside_the_write),
        TEST(M_3_both_write_in_their_callbacks),
        TEST(M_3_a_buffered_protocol_receives_into_its_own_memory),
        TEST(M_4_a_pause_half_way_through_keeps_the_rest),
        TEST(M_4_what_the_peer_has_not_taken_is_the_write_buffer),
        TEST(M_4_the_marks_can_be_set),
        TEST(M_5_close_flushes_then_the_other_end_sees_the_end),
        TEST(M_5_close_waits_for_a_peer_that_paused),
        TEST(M_5_both_close_with_bytes_on_their_way),
        TEST(M_5_writing_to_an_end_that_is_gone_is_a_broken_pipe),
        TEST(M_6_write_eof_leaves_the_other_direction_open),
        TEST(M_7_abort_drops_the_buffers_of_both_directions),
        TEST(M_7_an_end_that_is_gone_when_bytes_arrive),
        TEST(M_7_an_end_that_fails_is_the_end_of_the_stream_for_the_other),
        TEST(M_8_set_protocol_switches_at_once),
        TEST(M_9_ends_on_two_loops_keep_order_and_flow_control),
        TEST(M_9_the_other_loop_closes),
        TEST(M_9_this_loop_closes_first),
        TEST(X_1_M_9_a_pair_across_needs_memory),
        TEST(M_9_a_factory_that_fails_ends_the_first_end),
        TEST(M_9_a_pair_across_needs_a_protocol),
        TEST(M_9_either_of_two_running_loops_may_go_last),
        TEST(M_10_extra_info_is_the_default),
        TEST(X_1_pairs_without_memory),
    };
    return cmocka_run_group_tests_name("pair", tests, NULL, NULL);
}
