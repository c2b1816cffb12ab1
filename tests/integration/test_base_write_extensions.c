/* What tram adds to asyncio's writing: shared buffers, corking, the hard limit; and bytes at the edges of chunks. */
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/steps.h"
#include "support/stream.h"

/* ---- Shared buffers ---- */

struct shared {
    char bytes[100000];
    unsigned released;
    tram_transport *transport; /* for what `on_release` does */
    void (*on_release)(struct shared *shared);
};

static void release_shared(const void *data, size_t size, void *arg) {
    struct shared *shared = arg;
    assert_ptr_equal(data, shared->bytes);
    assert_true(size <= sizeof shared->bytes);
    shared->released++;
    memset(shared->bytes, 0xee, size); /* whoever still reads it sends the wrong bytes */
    if (shared->on_release)
        shared->on_release(shared);
}

static tram_buffer *wrap(struct shared *shared, size_t size, size_t offset) {
    memset(shared, 0, sizeof *shared);
    pattern(shared->bytes, size, offset);
    return tram_buffer_wrap(shared->bytes, size, release_shared, shared);
}

static struct shared shared;

static void test_W_2_a_buffer_that_is_sent_at_once_is_not_held(void **state) {
    struct stream stream = stream_open(*state);
    tram_buffer *buffer = wrap(&shared, 1000, 0);
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    assert_int_equal(shared.released, 0);
    tram_buffer_release(buffer);
    assert_int_equal(shared.released, 1);
    read_pattern(&stream, 1000, 0);
    stream_close(&stream);
    assert_int_equal(shared.released, 1);
}

/* ---- How often its count is touched ---- */

#if TRAM_CHECKED
enum { QUEUES = 20 };

static unsigned steps;

static void count_step(void) {
    steps++;
}

struct fan_out {
    struct stream streams[QUEUES];
    tram_buffer *buffer;
};

static int write_to_all(tram_loop *loop, void *arg) {
    struct fan_out *fan_out = arg;
    (void)loop;
    tram__between_steps = count_step;
    for (int i = 0; i < QUEUES; i++)
        assert_int_equal(tram_transport_write_buffer(fan_out->streams[i].transport, fan_out->buffer), 0);
    tram__between_steps = NULL;
    return 0;
}

static void test_W_1_the_count_of_a_buffer_is_touched_once_for_a_tick(void **state) {
    struct fan_out fan_out;
    for (int i = 0; i < QUEUES; i++)
        fan_out.streams[i] = stream_open(*state);
    fan_out.buffer = wrap(&shared, 3000, 0);
    faults.send_budget = 0;
    steps = 0;
    assert_int_equal(tram_loop_call_soon(fan_out.streams[0].world->loop, write_to_all, &fan_out, NULL, NULL), 0);
    run_ticks(fan_out.streams[0].world, 1);
    assert_int_equal(steps, 1);
    tram_buffer_release(fan_out.buffer);
    assert_int_equal(shared.released, 0);
    faults.send_budget = SIZE_MAX;
    for (int i = 0; i < QUEUES; i++)
        read_pattern(&fan_out.streams[i], 3000, 0);
    assert_int_equal(shared.released, 1);
    for (int i = 0; i < QUEUES; i++)
        stream_close(&fan_out.streams[i]);
}
#endif

static void test_W_1_a_queued_buffer_is_sent_from_where_it_lies(void **state) {
    struct stream stream = stream_open(*state);
    struct world *world = stream.world;
    tram_buffer *buffer = wrap(&shared, sizeof shared.bytes, 100);
    faults.send_budget = 50;
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    size_t live = world->live_bytes;
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    tram_buffer_release(buffer);
    assert_true(world->live_bytes - live < 1000); /* not copied */
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 50 + sizeof shared.bytes);
    assert_int_equal(write_pattern(stream.transport, 100, 100 + sizeof shared.bytes), 0);
    /* All but its last byte: it is still in use. */
    size_t left = 50 + sizeof shared.bytes - 1, taken = 50;
    read_pattern(&stream, 50, 0);
    while (left) {
        size_t part = left < 7001 ? left : 7001;
        faults.send_budget = part;
        run_ticks(world, 1);
        read_pattern(&stream, part, taken);
        taken += part;
        left -= part;
        assert_int_equal(shared.released, 0);
    }
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 101);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 200 + sizeof shared.bytes - taken, taken);
    assert_int_equal(shared.released, 1);
    stream_close(&stream);
}

static void test_W_2_the_rest_of_a_buffer_is_queued_by_reference(void **state) {
    struct stream stream = stream_open(*state);
    for (size_t budget = 1; budget <= 4096; budget *= 8) {
        tram_buffer *buffer = wrap(&shared, 5000, 0);
        faults.send_budget = budget;
        assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
        tram_buffer_release(buffer);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 5000 - budget);
        assert_int_equal(shared.released, 0);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 5000, 0);
        assert_int_equal(shared.released, 1);
    }
    stream_close(&stream);
}

static void test_W_1_one_buffer_may_be_queued_many_times(void **state) {
    struct stream first = stream_open(*state), second = stream_open(*state);
    tram_buffer *buffer = wrap(&shared, 3000, 0);
    faults.send_budget = 0;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tram_transport_write_buffer(first.transport, buffer), 0);
        assert_int_equal(tram_transport_write_buffer(second.transport, buffer), 0);
    }
    tram_buffer_release(buffer);
    faults.send_budget = SIZE_MAX;
    for (int i = 0; i < 5; i++)
        read_pattern(&first, 3000, 0);
    tram_transport_abort(second.transport);
    assert_int_equal(shared.released, 1);
    stream_close(&first);
    stream_close(&second);
}

static void test_W_6_dropped_buffers_are_released_once(void **state) {
    for (int way = 0; way < 5; way++) {
        struct stream stream = stream_open(*state);
        tram_transport *transport = tram_transport_hold(stream.transport);
        tram_buffer *buffer = wrap(&shared, 5000, 0);
        faults.send_budget = 100;
        assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
        tram_buffer_release(buffer);
        buffer = NULL;
        assert_int_equal(shared.released, 0);
        switch (way) {
        case 0:
            tram_transport_abort(transport);
            break;
        case 1:
            fail_next(&faults.send, EPIPE, 1);
            run_ticks(stream.world, 1);
            break;
        case 2:
            tram_transport_close(transport);
            tram_transport_abort(transport);
            break;
        case 3:
            tram_transport_set_write_hard_limit(transport, 10);
            break;
        case 4:
            assert_int_equal(tram_loop_close(stream.world->loop), 0);
            break;
        }
        if (way < 4)
            run_ticks(stream.world, 1);
        assert_int_equal(shared.released, 1);
        assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
        /* What is written now is dropped without a reference. */
        tram_buffer *late = tram_buffer_copy("late", 4);
        assert_int_equal(tram_transport_write_buffer(transport, late), 0);
        tram_buffer_release(late);
        if (way < 4)
            run_until(stream.world, &stream.recorder->was_released);
        assert_int_equal(shared.released, 1);
        tram_transport_release(transport);
        stream_close(&stream);
        faults.send_budget = SIZE_MAX;
    }
}

static void test_W_3_an_empty_buffer_is_no_write(void **state) {
    struct stream stream = stream_open(*state);
    tram_buffer *buffer = tram_buffer_copy(NULL, 0);
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    assert_int_equal(faults.send.calls, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    tram_buffer_release(buffer);
    stream_close(&stream);
}

static void abort_in_release(struct shared *from) {
    assert_int_equal(tram_transport_abort(from->transport), 0);
}

static void close_in_release(struct shared *from) {
    assert_int_equal(tram_transport_close(from->transport), 0);
}

static void write_in_release(struct shared *from) {
    assert_int_equal(tram_transport_write(from->transport, "again", 5), 0);
}

/* P-18 holds for the release function of a buffer too: it may do anything to its transport. */
static void test_W_23_a_release_may_end_the_transport_that_lets_go(void **state) {
    void (*const actions[])(struct shared *) = {abort_in_release, close_in_release, write_in_release};
    for (size_t action = 0; action < 3; action++) {
        for (int way = 0; way < 4; way++) {
            struct stream stream = stream_open(*state);
            struct world *world = stream.world;
            tram_transport_set_write_buffer_limits(stream.transport, 4000, 1000);
            tram_buffer *buffer = wrap(&shared, 5000, 0);
            shared.transport = stream.transport;
            shared.on_release = actions[action];
            faults.send_budget = 0;
            assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
            assert_int_equal(write_pattern(stream.transport, 500, 5000), 0);
            tram_buffer_release(buffer);
            assert_trace(world, "pause");
            const char *expected = "lost:0 released";
            if (way == 0) {
                faults.send_budget = SIZE_MAX; /* the flush lets go */
                run_ticks(world, 3);
                expected = action == 2 ? "resume" : "resume lost:0 released";
            } else if (way == 1) {
                tram_transport_abort(stream.transport);
                run_ticks(world, 1);
            } else if (way == 2) {
                fail_next(&faults.send, EPIPE, 1);
                run_ticks(world, 1);
                expected = "lost:EPIPE released";
            } else {
                tram_loop_close(world->loop);
                expected = "lost:TRAM_ECANCELLED released"; /* it dropped what was accepted (W-30) */
            }
            assert_int_equal(shared.released, 1);
            if (way < 3)
                run_ticks(world, 3);
            assert_trace(world, expected);
            stream_close(&stream);
            world->trace[0] = '\0';
            faults.send_budget = SIZE_MAX;
            if (way == 3)
                world_use_sys(world, faults_sys());
        }
    }
}

/* ---- What a release function may do ---- */

static bool in_a_call; /* of the test's on the transport */

static void cork_write_and_uncork(struct shared *from) {
    char bytes[300];
    assert_false(in_a_call);
    pattern(bytes, sizeof bytes, 5500);
    assert_int_equal(tram_transport_cork(from->transport), 0);
    assert_int_equal(tram_transport_write(from->transport, bytes, 100), 0);
    assert_int_equal(tram_transport_write(from->transport, bytes + 100, 200), 0);
    assert_int_equal(tram_transport_uncork(from->transport), 0);
}

/* In the middle of the flush that lets go of it: by a write event, by an uncork, by a close, by a write_eof. */
static void test_W_1_W_24_a_release_may_cork_and_write_while_its_queue_is_flushed(void **state) {
    for (int way = 0; way < 4; way++) {
        struct stream stream = stream_open(*state);
        tram_transport *transport = stream.transport;
        tram_transport_set_write_buffer_limits(transport, 4000, 1000);
        tram_buffer *buffer = wrap(&shared, 5000, 0);
        shared.transport = transport;
        shared.on_release = cork_write_and_uncork;
        faults.send_budget = way ? SIZE_MAX : 0;
        if (way)
            assert_int_equal(tram_transport_cork(transport), 0);
        assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
        assert_int_equal(write_pattern(transport, 500, 5000), 0);
        tram_buffer_release(buffer);
        in_a_call = true;
        if (way == 1)
            assert_int_equal(tram_transport_uncork(transport), 0);
        else if (way == 2)
            assert_int_equal(tram_transport_close(transport), 0);
        else if (way == 3)
            assert_int_equal(tram_transport_write_eof(transport), 0);
        in_a_call = false;
        faults.send_budget = SIZE_MAX;
        if (way == 3)
            shared.on_release = NULL; /* writing after write_eof is misuse */
        run_ticks(stream.world, 2);
        assert_int_equal(shared.released, 1);
        read_pattern(&stream, way < 2 ? 5800 : 5500, 0);
        stream_close(&stream);
    }
}

static void detach_in_release(struct shared *from) {
    tram_detached *detached;
    assert_false(in_a_call);
    assert_int_equal(tram_transport_detach(from->transport, &detached), 0);
    close(tram_detached_take_fd(detached));
    tram_detached_free(detached);
}

/* Outside of a tick too the transport stays in place while a call on it is on the stack. */
static void test_X_9_a_release_may_detach_the_transport_that_was_uncorked(void **state) {
    struct stream stream = stream_open(*state);
    tram_buffer *buffer = wrap(&shared, 5000, 0);
    shared.transport = stream.transport;
    shared.on_release = detach_in_release;
    assert_int_equal(tram_transport_cork(stream.transport), 0);
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    tram_buffer_release(buffer);
    in_a_call = true;
    assert_int_equal(tram_transport_uncork(stream.transport), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    in_a_call = false;
    run_ticks(stream.world, 2);
    assert_int_equal(shared.released, 1);
    assert_trace(stream.world, "released");
    close(stream.peer);
}

static struct shared chain[3];

static void write_the_next(struct shared *from) {
    if (from == &chain[2])
        return;
    struct shared *next = from + 1;
    tram_buffer *buffer = wrap(next, 100, 0);
    next->transport = from->transport;
    next->on_release = write_the_next;
    tram_transport_cork(from->transport);
    tram_transport_write_buffer(from->transport, buffer);
    tram_buffer_release(buffer);
    tram_transport_uncork(from->transport);
}

/* A tick comes to its end though each release writes the next buffer; and so does the loop, which waits for none. */
static void test_L_5_releases_that_write_again_do_not_keep_a_tick_going(void **state) {
    struct stream stream = stream_open(*state);
    tram_buffer *buffer = wrap(&chain[0], 100, 0);
    chain[0].transport = stream.transport;
    chain[0].on_release = write_the_next;
    faults.send_budget = 0;
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    tram_buffer_release(buffer);
    faults.send_budget = SIZE_MAX;
    run_ticks(stream.world, 1); /* the write event, and what it let go of */
    assert_int_equal(chain[0].released + chain[1].released, 1);
    run_ticks(stream.world, 1);
    assert_int_equal(chain[1].released + chain[2].released, 1);
    run_to_rest(stream.world);
    assert_int_equal(chain[2].released, 1);
    stream_close(&stream);
}

/* Buffers over memory that nobody reads: their sum is no size. */
static void test_W_24_sizes_that_cannot_be_added_are_refused(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport *transport = stream.transport;
    tram_buffer *buffer = tram_buffer_wrap("x", SIZE_MAX - 9, NULL, NULL);
    const struct iovec pieces[] = {{"x", SIZE_MAX - 9}, {"abcdefghijklmnopqrstuvwxyz", 26}};
    tram_transport_cork(transport);
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), TRAM_EVALUE);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
    assert_true(tram_transport_get_write_buffer_size(transport) == SIZE_MAX - 9);
    assert_trace(stream.world, "pause");
    assert_int_equal(tram_transport_writelines(transport, pieces + 1, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), -ENOMEM);
    assert_true(tram_transport_is_closing(transport));
    tram_buffer_release(buffer);
    run_to_rest(stream.world);
    assert_trace(stream.world, "lost:ENOMEM released");
    close(stream.peer);
}

/* ---- Corking ---- */

static void test_W_10_corked_writes_leave_in_one_call(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport *transport = stream.transport;
    char bytes[100];
    assert_int_equal(tram_transport_cork(transport), 0);
    size_t offset = 0;
    for (size_t size = 1; size < 60; size += 3) {
        assert_int_equal(write_pattern(transport, size, offset), 0);
        offset += size;
    }
    tram_buffer *buffer = wrap(&shared, 3000, offset);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
    tram_buffer_release(buffer);
    offset += 3000;
    pattern(bytes, 100, offset);
    struct iovec pieces[2] = {{bytes, 50}, {bytes + 50, 50}};
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), 0);
    offset += 100;
    run_ticks(stream.world, 2);
    assert_int_equal(faults.send.calls, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), offset);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(faults.send.calls, 1); /* at once, without a tick */
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_int_equal(shared.released, 0);
    run_ticks(stream.world, 1);
    assert_int_equal(shared.released, 1);
    read_pattern(&stream, offset, 0);
    stream_close(&stream);
}

static void test_W_2_corks_nest(void **state) {
    calls_uninterrupted();
    struct stream stream = stream_open(*state);
    tram_transport *transport = stream.transport;
    tram_transport_cork(transport);
    tram_transport_cork(transport);
    assert_int_equal(write_pattern(transport, 10, 0), 0);
    tram_transport_uncork(transport);
    assert_int_equal(faults.send.calls, 0);
    assert_int_equal(write_pattern(transport, 10, 10), 0);
    tram_transport_uncork(transport);
    assert_int_equal(faults.send.calls, 1);
    /* One too many is harmless, and writing goes on uncorked. */
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(write_pattern(transport, 10, 20), 0);
    assert_int_equal(faults.send.calls, 2);
    tram_transport_cork(transport);
    tram_transport_uncork(transport); /* nothing was written: no call */
    assert_int_equal(faults.send.calls, 2);
    read_pattern(&stream, 30, 0);
    stream_close(&stream);
}

static void test_W_2_uncork_keeps_what_the_kernel_does_not_take(void **state) {
    struct stream stream = stream_open(*state);
    for (size_t budget = 0; budget <= 100; budget += 50) {
        faults.send_budget = budget;
        tram_transport_cork(stream.transport);
        assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
        tram_transport_uncork(stream.transport);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 200 - budget);
        /* Corking again while the rest waits changes nothing in the order. */
        tram_transport_cork(stream.transport);
        assert_int_equal(write_pattern(stream.transport, 100, 200), 0);
        tram_transport_uncork(stream.transport);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 300, 0);
    }
    stream_close(&stream);
}

static void test_W_16_W_18_corked_bytes_count_for_the_water_marks(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_set_write_buffer_limits(stream.transport, 100, 10);
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    assert_trace(stream.world, "");
    assert_int_equal(write_pattern(stream.transport, 1, 100), 0);
    assert_trace(stream.world, "pause");
    tram_transport_uncork(stream.transport);
    assert_trace(stream.world, "");
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "resume");
    read_pattern(&stream, 101, 0);
    stream_close(&stream);
}

static void test_W_7_a_close_while_corked_flushes(void **state) {
    for (size_t budget = 0; budget <= 300; budget += 100) {
        struct stream stream = stream_open(*state);
        tram_transport_cork(stream.transport);
        tram_transport_cork(stream.transport);
        assert_int_equal(write_pattern(stream.transport, 300, 0), 0);
        faults.send_budget = budget;
        assert_int_equal(tram_transport_close(stream.transport), 0);
        assert_trace(stream.world, ""); /* never inside the close */
        assert_int_equal(tram_transport_uncork(stream.transport), 0);
        assert_int_equal(tram_transport_uncork(stream.transport), 0);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 300, 0);
        assert_true(receive_eof(stream.world, stream.peer));
        assert_trace(stream.world, "lost:0 released");
        stream_close(&stream);
    }
}

static void test_W_26_write_eof_while_corked_flushes_first(void **state) {
    for (size_t budget = 0; budget <= 300; budget += 100) {
        struct stream stream = stream_open(*state);
        tram_transport_cork(stream.transport);
        assert_int_equal(write_pattern(stream.transport, 300, 0), 0);
        faults.send_budget = budget;
        assert_int_equal(tram_transport_write_eof(stream.transport), 0);
        assert_int_equal(tram_transport_uncork(stream.transport), 0);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 300, 0);
        assert_true(receive_eof(stream.world, stream.peer));
        assert_false(tram_transport_is_closing(stream.transport));
        assert_trace(stream.world, "");
        stream_close(&stream);
    }
}

static void test_W_5_W_6_ends_while_corked(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 300, 0), 0);
    tram_transport_abort(stream.transport);
    assert_int_equal(tram_transport_uncork(stream.transport), 0);
    assert_int_equal(faults.send.calls, 0);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "lost:0 released");
    stream_close(&stream);

    stream = stream_open(*state);
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 300, 0), 0);
    fail_next(&faults.send, EPIPE, 1);
    assert_int_equal(tram_transport_uncork(stream.transport), 0);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_trace(stream.world, "");
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "lost:EPIPE released");
    stream_close(&stream);

    /* The peer's end with something corked: P-13. */
    stream = stream_open(*state);
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 300, 0), 0);
    shutdown(stream.peer, SHUT_WR);
    read_pattern(&stream, 300, 0);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "eof lost:0 released");
    stream_close(&stream);
}

/* ---- Many pieces ---- */

static void test_W_10_writelines_goes_beyond_IOV_MAX(void **state) {
    static char bytes[3 * IOV_MAX * 5];
    static struct iovec pieces[3 * IOV_MAX + 1];
    const size_t counts[] = {IOV_MAX - 1, IOV_MAX, IOV_MAX + 1, 3 * IOV_MAX + 1};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct stream stream = stream_open(*state);
        size_t offset = 0;
        for (size_t piece = 0; piece < counts[i]; piece++) {
            size_t size = piece % 5;
            pattern(bytes + offset, size, offset);
            pieces[piece] = (struct iovec){.iov_base = size ? bytes + offset : NULL, .iov_len = size};
            offset += size;
        }
        assert_int_equal(tram_transport_writelines(stream.transport, pieces, counts[i]), 0);
        memset(bytes, 0xee, sizeof bytes);
        assert_true(faults.pieces_at_most <= IOV_MAX);
        read_pattern(&stream, offset, 0);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
        assert_trace(stream.world, "");
        stream_close(&stream);
    }
}

static void test_W_10_writelines_whose_first_pieces_are_all_empty(void **state) {
    static struct iovec pieces[IOV_MAX + 1];
    struct stream stream = stream_open(*state);
    char bytes[10];
    pattern(bytes, sizeof bytes, 0);
    memset(pieces, 0, sizeof pieces);
    pieces[IOV_MAX] = (struct iovec){bytes, sizeof bytes};
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, IOV_MAX + 1), 0);
    read_pattern(&stream, 10, 0);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

/* ---- The hard limit ---- */

static void test_T_17_W_16_above_the_hard_limit_the_connection_ends(void **state) {
    for (int way = 0; way < 3; way++) {
        struct stream stream = stream_open(*state);
        struct world *world = stream.world;
        tram_transport *transport = stream.transport;
        unsigned exceptions = world->exceptions;
        char bytes[20] = {0};
        struct iovec piece = {bytes, 2};
        tram_buffer *buffer = tram_buffer_copy("xy", 2);
        assert_int_equal(tram_transport_set_write_hard_limit(transport, 1000), 0);
        faults.send_budget = 0;
        assert_int_equal(write_pattern(transport, 999, 0), 0);
        assert_int_equal(write_pattern(transport, 1, 999), 0);
        assert_false(tram_transport_is_closing(transport)); /* at the limit, not above it */
        if (way == 0)
            assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        else if (way == 1)
            assert_int_equal(tram_transport_writelines(transport, &piece, 1), 0);
        else
            assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
        assert_true(tram_transport_is_closing(transport));
        assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
        assert_trace(world, "");
        /* No error of the system: reported, before connection_lost. */
        assert_int_equal(world->exceptions, exceptions + 1);
        assert_int_equal(world->exception_code, TRAM_ELIMIT);
        assert_ptr_equal(world->exception_transport, transport);
        assert_ptr_equal(world->exception_protocol, stream.recorder);
        run_ticks(world, 1);
        assert_trace(world, "lost:TRAM_ELIMIT released");
        tram_buffer_release(buffer);
        stream_close(&stream);
    }
}

static void test_W_16_the_hard_limit_comes_before_pause_writing(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_set_write_buffer_limits(stream.transport, 100, 10);
    tram_transport_set_write_hard_limit(stream.transport, 500);
    faults.send_budget = 0;
    assert_int_equal(write_pattern(stream.transport, 501, 0), 0);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "lost:TRAM_ELIMIT released"); /* nobody would hear of a resume */
    stream_close(&stream);
}

static void test_W_24_the_hard_limit_may_be_changed(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 0;
    assert_int_equal(tram_transport_set_write_hard_limit(stream.transport, 1000), 0);
    assert_int_equal(tram_transport_set_write_hard_limit(stream.transport, 0), 0); /* none */
    assert_int_equal(write_pattern(stream.transport, 5000, 0), 0);
    assert_int_equal(tram_transport_set_write_hard_limit(stream.transport, 5000), 0);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_int_equal(tram_transport_set_write_hard_limit(stream.transport, 4999), 0);
    assert_true(tram_transport_is_closing(stream.transport));
    assert_int_equal(stream.world->exceptions, 1);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "lost:TRAM_ELIMIT released");
    stream_close(&stream);
}

/* ---- Chunks ---- */

static uint32_t random_state = 12345;

static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % bound;
}

/* Sizes around those of the chunks, tiny ones, and any. */
static size_t random_size(void) {
    static const size_t edges[] = {1, 2, 2000, 2008, 2048, 4096, 16336, 16344, 16384, 32768};
    switch (random_below(3)) {
    case 0:
        return edges[random_below(10)] + random_below(5);
    case 1:
        return 1 + random_below(64);
    default:
        return 1 + random_below(40000);
    }
}

static void free_bytes(const void *data, size_t size, void *arg) {
    assert_ptr_equal(data, arg);
    memset(arg, 0xee, size);
    free(arg);
}

static void write_randomly(tram_transport *transport, size_t size, size_t offset) {
    char *bytes = malloc(size);
    pattern(bytes, size, offset);
    struct iovec pieces[4];
    switch (random_below(4)) {
    case 0: {
        size_t at = 0;
        for (int i = 0; i < 4; i++) {
            size_t part = i == 3 ? size - at : random_below((uint32_t)(size - at) + 1);
            pieces[i] = (struct iovec){bytes + at, part};
            at += part;
        }
        assert_int_equal(tram_transport_writelines(transport, pieces, 4), 0);
        break;
    }
    case 1: {
        tram_buffer *buffer = tram_buffer_wrap(bytes, size, free_bytes, bytes);
        assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
        tram_buffer_release(buffer);
        return;
    }
    case 2:
        tram_transport_cork(transport);
        assert_int_equal(tram_transport_write(transport, bytes, size / 2), 0);
        assert_int_equal(tram_transport_write(transport, bytes + size / 2, size - size / 2), 0);
        tram_transport_uncork(transport);
        break;
    default:
        assert_int_equal(tram_transport_write(transport, bytes, size), 0);
    }
    memset(bytes, 0xee, size);
    free(bytes);
}

static void exchange_randomly(void **state, bool tcp, unsigned seed) {
    struct world *world = *state;
    struct stream stream = stream_open_with(world, recorder_new(world, NULL), tcp);
    random_state = seed;
    size_t written = 0, taken = 0;
    const size_t total = 3u << 20;
    bool closed = false;
    for (unsigned idle = 0; taken < total; idle++) {
        assert_true(idle < 1000000);
        while (written < total && tram_transport_get_write_buffer_size(stream.transport) < 200000) {
            size_t size = random_size();
            if (size > total - written)
                size = total - written;
            write_randomly(stream.transport, size, written);
            written += size;
        }
        if (written == total && !closed) {
            tram_transport_close(stream.transport);
            closed = true;
        }
        faults.send_at_most = random_below(4) ? random_size() : SIZE_MAX;
        /* A slow reader: little at a time, not every time. */
        char bytes[30000];
        ssize_t received = random_below(3) ? recv(stream.peer, bytes, 1 + random_below(sizeof bytes), MSG_DONTWAIT) : 0;
        if (received > 0) {
            assert_pattern(bytes, (size_t)received, taken);
            taken += (size_t)received;
        }
        if (!stream.recorder->lost)
            run_ticks(world, 1);
    }
    faults.send_at_most = SIZE_MAX;
    run_until(world, &stream.recorder->was_released);
    assert_true(receive_eof(world, stream.peer));
    assert_int_equal(stream.recorder->lost_code, 0);
    stream_close(&stream);
}

static void test_W_1_W_24_random_sizes_reach_a_slow_reader_byte_by_byte(void **state) {
    for (unsigned seed = 1; seed <= 3; seed++)
        exchange_randomly(state, false, seed);
}

static void test_W_1_W_24_random_sizes_reach_a_slow_reader_over_TCP(void **state) {
    for (unsigned seed = 11; seed <= 13; seed++)
        exchange_randomly(state, true, seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
#if TRAM_CHECKED
        TEST(test_W_1_the_count_of_a_buffer_is_touched_once_for_a_tick),
#endif
        TEST(test_W_2_a_buffer_that_is_sent_at_once_is_not_held),
        TEST(test_W_1_a_queued_buffer_is_sent_from_where_it_lies),
        TEST(test_W_2_the_rest_of_a_buffer_is_queued_by_reference),
        TEST(test_W_1_one_buffer_may_be_queued_many_times),
        TEST(test_W_6_dropped_buffers_are_released_once),
        TEST(test_W_3_an_empty_buffer_is_no_write),
        TEST(test_W_23_a_release_may_end_the_transport_that_lets_go),
        TEST(test_W_1_W_24_a_release_may_cork_and_write_while_its_queue_is_flushed),
        TEST(test_X_9_a_release_may_detach_the_transport_that_was_uncorked),
        TEST(test_L_5_releases_that_write_again_do_not_keep_a_tick_going),
        TEST(test_W_24_sizes_that_cannot_be_added_are_refused),
        TEST(test_W_10_corked_writes_leave_in_one_call),
        TEST(test_W_2_corks_nest),
        TEST(test_W_2_uncork_keeps_what_the_kernel_does_not_take),
        TEST(test_W_16_W_18_corked_bytes_count_for_the_water_marks),
        TEST(test_W_7_a_close_while_corked_flushes),
        TEST(test_W_26_write_eof_while_corked_flushes_first),
        TEST(test_W_5_W_6_ends_while_corked),
        TEST(test_W_10_writelines_goes_beyond_IOV_MAX),
        TEST(test_W_10_writelines_whose_first_pieces_are_all_empty),
        TEST(test_T_17_W_16_above_the_hard_limit_the_connection_ends),
        TEST(test_W_16_the_hard_limit_comes_before_pause_writing),
        TEST(test_W_24_the_hard_limit_may_be_changed),
        TEST(test_W_1_W_24_random_sizes_reach_a_slow_reader_byte_by_byte),
        TEST(test_W_1_W_24_random_sizes_reach_a_slow_reader_over_TCP),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
