/* Rules M-1 and M-11: transports that a user wrote. */
#include <sys/mman.h>
#include <unistd.h>

#include "support/support.h"

/* A transport that keeps what is written until the test says how much of it went, and delivers what the test says. */
struct mine {
    struct world *world;
    tram_transport *transport;
    char sent[256];
    size_t size;
    int writelines_returns;
    int close_returns;
    bool at_once;       /* what is written is sent within the call */
    size_t close_sends; /* so much is sent within close */
    unsigned told_eof;
};

static struct world *the_world_of_this_test;

static int mine_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct mine *mine = state;
    assert_ptr_equal(transport, mine->transport);
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(mine->sent + mine->size + size, pieces[i].iov_base, pieces[i].iov_len);
        size += pieces[i].iov_len;
    }
    trace(mine->world, "writelines:%zu", size);
    mine->size += size;
    if (mine->at_once)
        tram_custom_sent(transport, size);
    return mine->writelines_returns;
}

static int mine_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    struct mine *mine = state;
    trace(mine->world, "write_eof");
    mine->told_eof++;
    return 0;
}

static int mine_pause(tram_transport *transport, void *state) {
    (void)transport;
    trace(((struct mine *)state)->world, "pause_reading");
    return 0;
}

static int mine_resume(tram_transport *transport, void *state) {
    (void)transport;
    trace(((struct mine *)state)->world, "resume_reading");
    return 0;
}

static int mine_close(tram_transport *transport, void *state) {
    struct mine *mine = state;
    assert_true(tram_transport_is_closing(transport));
    trace(mine->world, "close");
    tram_custom_sent(transport, mine->close_sends);
    return mine->close_returns;
}

static void mine_abort(tram_transport *transport, void *state) {
    (void)transport;
    trace(((struct mine *)state)->world, "abort");
}

static const void *mine_info(tram_transport *transport, void *state, const char *name) {
    (void)transport;
    return strcmp(name, "mine") == 0 ? state : NULL;
}

static void mine_ended(tram_transport *transport, void *state) {
    (void)transport;
    trace(((struct mine *)state)->world, "ended");
}

static const tram_custom_ops mine_ops = {
    .writelines = mine_writelines,
    .write_eof = mine_write_eof,
    .pause_reading = mine_pause,
    .resume_reading = mine_resume,
    .close = mine_close,
    .abort = mine_abort,
    .get_extra_info = mine_info,
    .ended = mine_ended,
};

static tram_transport *mine_new(struct mine *mine, struct world *world, struct recorder *recorder) {
    *mine = (struct mine){.world = world};
    assert_int_equal(tram_loop_create_custom(world->loop, &mine_ops, mine, &recorder->base, &mine->transport), 0);
    assert_trace(world, "");
    run_to_rest(world);
    assert_trace(world, "made resume_reading");
    return mine->transport;
}

/* rules: M-1, W-6, W-10, W-16, W-18, W-24, W-26 */
static void test_M_1_writing(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 8, 2), 0);
    struct iovec pieces[] = {{(void *)"four", 4}, {(void *)"five5", 5}};
    assert_int_equal(tram_transport_write(transport, "", 0), 0);
    assert_int_equal(tram_transport_write(transport, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_trace(world, "writelines:9 pause");
    assert_memory_equal(mine.sent, "fourfive5", 9);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 9);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), TRAM_ESTATE);
    tram_custom_sent(transport, 6);
    assert_trace(world, "");
    tram_custom_sent(transport, 1);
    assert_trace(world, "resume");
    tram_custom_sent(transport, 2);
    assert_trace(world, "write_eof");
    tram_transport_abort(transport);
    assert_trace(world, "abort");
    run_to_rest(world);
    assert_trace(world, "lost:0 ended released");
}

/* ---- What is called outside of a tick ---- */

static void try_to_close(const char *what) {
    struct world *world = the_world_of_this_test;
    trace(world, "%s:%s", what, tram_error_name(tram_loop_close(world->loop)));
}

static int closing_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport;
    (void)state;
    (void)pieces;
    (void)count;
    try_to_close("writelines");
    return 0;
}

static int closing_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    (void)state;
    try_to_close("write_eof");
    return 0;
}

static int closing_pause(tram_transport *transport, void *state) {
    (void)transport;
    (void)state;
    try_to_close("pause_reading");
    return 0;
}

static void closing_abort(tram_transport *transport, void *state) {
    (void)transport;
    (void)state;
    try_to_close("abort");
}

static int close_on_event(struct recorder *recorder, const char *event) {
    (void)recorder;
    try_to_close(event);
    return 0;
}

/* Who called them goes on with the loop. */
static void test_M_1_L_8_no_entry_closes_the_loop(void **state) {
    static const tram_custom_ops ops = {.writelines = closing_writelines,
                                        .write_eof = closing_write_eof,
                                        .pause_reading = closing_pause,
                                        .abort = closing_abort};
    struct world *world = the_world_of_this_test = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport;
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
    recorder->on = close_on_event;
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
    assert_int_equal(tram_transport_write(transport, "text", 4), 0);
    assert_trace(world, "writelines:TRAM_ESTATE pause pause:TRAM_ESTATE");
    tram_custom_sent(transport, 4);
    assert_int_equal(tram_transport_pause_reading(transport), 0);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    tram_transport_abort(transport);
    assert_trace(world, "resume resume:TRAM_ESTATE pause_reading:TRAM_ESTATE write_eof:TRAM_ESTATE abort:TRAM_ESTATE");
    recorder->on = NULL;
    run_to_rest(world);
}

static void test_M_1_what_is_sent_at_once_is_never_buffered(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.at_once = true;
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
    assert_int_equal(tram_transport_write(transport, "text", 4), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    tram_transport_close(transport);
    assert_trace(world, "writelines:4 close");
    run_to_rest(world);
    assert_trace(world, "lost:0 ended released");
}

static int write_eof_on_resume(struct recorder *recorder, const char *event) {
    return strcmp(event, "resume") == 0 ? tram_transport_write_eof(recorder->base.transport) : 0;
}

/* What the table sends within an entry is heard of from the loop: the protocol is at work by then. */
static void test_M_1_W_19_what_is_sent_within_an_entry_resumes_later(void **state) {
    struct world *world = *state;
    struct mine mine;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = mine_new(&mine, world, recorder);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 2, 0), 0);
    assert_int_equal(tram_transport_write(transport, "four", 4), 0);
    mine.at_once = true;
    assert_int_equal(tram_transport_write(transport, "five5", 5), 0);
    tram_custom_sent(transport, 4);
    assert_trace(world, "writelines:4 pause writelines:5 resume");
    mine.at_once = false;
    assert_int_equal(tram_transport_write(transport, "four", 4), 0);
    assert_trace(world, "writelines:4 pause");
    mine.close_sends = 4;
    assert_int_equal(tram_transport_close(transport), 0);
    assert_trace(world, "close");
    run_to_rest(world);
    assert_trace(world, "resume lost:0 ended released");
}

static int mine_writes_all(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    int status = mine_writelines(transport, state, pieces, count);
    tram_custom_sent(transport, tram_transport_get_write_buffer_size(transport));
    return status;
}

static void test_M_1_W_19_a_write_that_sends_all_resumes_from_the_loop(void **state) {
    struct world *world = *state;
    tram_custom_ops ops = mine_ops;
    struct mine mine = {.world = world};
    struct recorder *recorder = recorder_new(world, NULL);
    ops.writelines = mine_writelines;
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, &mine, &recorder->base, &mine.transport), 0);
    tram_transport_set_write_buffer_limits(mine.transport, 2, 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_write(mine.transport, "four", 4), 0);
    assert_trace(world, "made resume_reading writelines:4 pause");
    ops.writelines = mine_writes_all;
    assert_int_equal(tram_transport_write(mine.transport, "five5", 5), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(mine.transport), 0);
    assert_trace(world, "writelines:5");
    run_to_rest(world);
    assert_trace(world, "resume");
    tram_transport_abort(mine.transport);
    run_to_rest(world);
}

static void test_M_1_W_27_write_eof_in_the_resume_of_the_last_byte_is_told_once(void **state) {
    struct world *world = *state;
    struct mine mine;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = mine_new(&mine, world, recorder);
    recorder->on = write_eof_on_resume;
    tram_transport_set_write_buffer_limits(transport, 2, 0);
    assert_int_equal(tram_transport_write(transport, "four", 4), 0);
    tram_custom_sent(transport, 4);
    run_to_rest(world);
    assert_int_equal(mine.told_eof, 1);
    tram_transport_abort(transport);
    run_to_rest(world);
}

/* The queue empties within `close`, which then says that it has more to send: the end is still its own to tell. */
static void test_M_1_a_close_that_sends_the_rest_may_put_off_the_end(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.close_returns = 1;
    mine.close_sends = 1;
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    tram_transport_close(transport);
    run_to_rest(world);
    assert_trace(world, "writelines:1 close");
    tram_custom_lost(transport, NULL);
    run_to_rest(world);
    assert_trace(world, "abort lost:0 ended released");
}

static void test_M_1_W_24_sizes_that_cannot_be_added_are_refused(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    const struct iovec pieces[] = {{"x", SIZE_MAX - 9}, {"abcdefghijklmnopqrstuvwxyz", 26}};
    const struct iovec no_address[] = {{NULL, 0}, {NULL, 1}};
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), TRAM_EVALUE);
    assert_int_equal(tram_transport_writelines(transport, no_address, 2), TRAM_EVALUE);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_write(transport, "x", SIZE_MAX), TRAM_EVALUE);
    assert_trace(world, "writelines:1");
    tram_transport_abort(transport);
    run_to_rest(world);
}

static int pause_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "updated") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

/* rules: M-1, R-5, P-7, B-1 */
static void test_M_1_reading(void **state) {
    struct world *world = *state;
    struct mine mine;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->eof_returns = 1;
    tram_transport *transport = mine_new(&mine, world, recorder);
    assert_int_equal(tram_custom_received(transport, "text", 4), 4);
    tram_transport_pause_reading(transport);
    tram_transport_pause_reading(transport);
    assert_int_equal(tram_custom_received(transport, "text", 4), 0);
    assert_false(tram_custom_eof(transport));
    tram_transport_resume_reading(transport);
    assert_trace(world, "data:4 pause_reading resume_reading");

    struct recorder *buffered = recorder_new_buffered(world, "b");
    buffered->buffer_size = 3;
    buffered->on = pause_on_data;
    buffered->eof_returns = 1;
    assert_int_equal(tram_transport_set_protocol(transport, &buffered->base), 0);
    assert_int_equal(tram_custom_received(transport, "text", 4), 3);
    tram_transport_resume_reading(transport);
    assert_trace(world, "b.get_buffer b.updated:3 pause_reading resume_reading");
    assert_true(tram_custom_eof(transport));
    assert_false(tram_custom_eof(transport));
    assert_int_equal(tram_custom_received(transport, "text", 4), 0);
    assert_trace(world, "b.eof");
    tram_transport_close(transport);
    run_to_rest(world);
    assert_trace(world, "close released b.lost:0 ended b.released");
}

/* rules: M-1, P-15, P-12 */
static void test_M_1_what_moves_is_counted(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_custom_received(transport, "text", 4), 4);
    tram_transport_pause_reading(transport);
    assert_int_equal(tram_custom_received(transport, "text", 4), 0); /* nothing moved */
    assert_int_equal(tram_transport_write(transport, "123456", 6), 0);
    tram_custom_sent(transport, 4);
    tram_custom_sent(transport, 0);
    tram_custom_sent(transport, 2);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.reads - before.reads, 1);
    assert_int_equal(now.bytes_received - before.bytes_received, 4);
    assert_int_equal(now.writes - before.writes, 2);
    assert_int_equal(now.bytes_sent - before.bytes_sent, 6);
    tram_transport_abort(transport);
    run_to_rest(world);
}

static void test_M_1_failures_end_the_connection(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    tram_error error = {.code = -ECONNRESET, .operation = "recv", .user = &mine};
    tram_custom_lost(transport, &error);
    tram_custom_lost(transport, NULL);
    run_to_rest(world);
    assert_trace(world, "abort lost:ECONNRESET ended released");

    transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.writelines_returns = -EIO;
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    run_to_rest(world);
    assert_trace(world, "writelines:1 abort lost:EIO ended released");

    transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.writelines_returns = -ENOMEM;
    assert_int_equal(tram_transport_write(transport, "x", 1), -ENOMEM);
    run_to_rest(world);
    assert_trace(world, "writelines:1 abort lost:ENOMEM ended released");
}

static int failing_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport, (void)pieces, (void)count;
    return *(int *)state;
}

static void test_M_1_F_8_a_file_that_cannot_be_written_ends_the_connection(void **state) {
    static const tram_custom_ops ops = {.writelines = failing_writelines, .sendfile_mode = TRAM_SENDFILE_FALLBACK};
    static int codes[] = {-EIO, -ENOMEM};
    struct world *world = *state;
    int file = memfd_create("tram-test", MFD_CLOEXEC);
    assert_int_equal(write(file, "a file", 6), 6);
    for (size_t i = 0; i < 2; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport;
        tram_future *future;
        assert_int_equal(tram_loop_create_custom(world->loop, &ops, &codes[i], &recorder->base, &transport), 0);
        run_until(world, &recorder->made);
        assert_int_equal(tram_loop_sendfile(world->loop, transport, file, 0, 6, NULL, &future), 0);
        run_until(world, &recorder->was_released);
        assert_int_equal(recorder->lost_code, codes[i]);
        assert_true(tram_future_done(future));
        assert_true(tram_future_result(future, NULL) < 0);
        tram_future_release(future);
    }
    close(file);
    world->trace[0] = '\0';
}

/* Whatever memory lacks for: the object, or the table of all that the loop has. */
static void test_X_1_no_memory_for_one_more(void **state) {
    static const tram_custom_ops ops = {.writelines = failing_writelines};
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = NULL;
    int status = tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport);
    assert_int_equal(status, 0); /* what the first one needs beside is there */
    while (!status) {            /* until the table is full */
        recorder = recorder_new(world, NULL);
        world->fail_after = 1;
        status = tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport);
        world->fail_after = SIZE_MAX;
    }
    assert_int_equal(status, -ENOMEM);
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport), 0);
    recorder = recorder_new(world, NULL);
    world->fail_after = 0;
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport), -ENOMEM);
    world->fail_after = SIZE_MAX;
    run_ticks(world, 2);
    world->trace[0] = '\0';
}

static void test_M_1_a_farewell_puts_off_the_end(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.close_returns = 1;
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    tram_transport_close(transport);
    tram_transport_close(transport);
    tram_custom_sent(transport, 1);
    run_to_rest(world);
    assert_trace(world, "writelines:1 close");
    tram_custom_lost(transport, NULL);
    run_to_rest(world);
    assert_trace(world, "abort lost:0 ended released");

    transport = mine_new(&mine, world, recorder_new(world, NULL));
    mine.close_returns = -EIO;
    tram_transport_close(transport);
    run_to_rest(world);
    assert_trace(world, "close abort lost:EIO ended released");
}

static void test_M_1_calls_that_it_does_not_have(void **state) {
    static const tram_custom_ops none = {0};
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport;
    assert_int_equal(tram_loop_create_custom(world->loop, &none, NULL, &recorder->base, &transport), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_write(transport, "x", 1), -ENOTSUP);
    assert_int_equal(tram_transport_write_eof(transport), -ENOTSUP);
    assert_false(tram_transport_can_write_eof(transport));
    assert_null(tram_transport_get_extra_info(transport, "mine", NULL));
    assert_null(tram_custom_state(transport, &mine_ops));
    tram_transport_pause_reading(transport);
    tram_transport_resume_reading(transport);
    assert_int_equal(tram_custom_received(transport, "x", 1), 1);
    assert_true(tram_custom_eof(transport));
    run_to_rest(world);
    assert_trace(world, "made data:1 eof lost:0 released");
}

static void test_M_1_extra_info_and_state(void **state) {
    struct world *world = *state;
    struct mine mine;
    tram_transport *transport = mine_new(&mine, world, recorder_new(world, NULL));
    assert_ptr_equal(tram_transport_get_extra_info(transport, "mine", NULL), &mine);
    assert_ptr_equal(tram_transport_get_extra_info(transport, "peername", &mine), &mine);
    assert_ptr_equal(tram_custom_state(transport, &mine_ops), &mine);
    tram_transport_hold(transport);
    tram_transport_abort(transport);
    run_to_rest(world);
    assert_null(tram_transport_get_extra_info(transport, "mine", NULL));
    assert_null(tram_custom_state(transport, &mine_ops));
    tram_transport_release(transport);
}

/* The user makes protocol and transport, and nobody else: there is no future, no server and no connector about it. */
static void test_M_11_it_is_the_user_who_connects_them(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct mine mine;
    tram_protocol no_ops = {0};
    tram_custom_ops newer = mine_ops;
    newer.reserved[0] = 1;
    assert_int_equal(tram_loop_create_custom(world->loop, NULL, &mine, &recorder->base, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_custom(world->loop, &newer, &mine, &recorder->base, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_custom(world->loop, &mine_ops, &mine, NULL, NULL), TRAM_ETYPE);
    assert_int_equal(tram_loop_create_custom(world->loop, &mine_ops, &mine, &no_ops, NULL), TRAM_ETYPE);
    world->fail_after = 0;
    assert_int_equal(tram_loop_create_custom(world->loop, &mine_ops, &mine, &recorder->base, NULL), -ENOMEM);
    world->fail_after = SIZE_MAX;
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport *transport = mine_new(&mine, world, recorder);
    assert_ptr_equal(tram_transport_get_protocol(transport), &recorder->base);
    assert_ptr_equal(tram_transport_get_loop(transport), world->loop);
    tram_transport_abort(transport);
    run_to_rest(world);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(M_1_writing),
        TEST(M_1_what_is_sent_at_once_is_never_buffered),
        TEST(M_1_W_19_what_is_sent_within_an_entry_resumes_later),
        TEST(M_1_W_19_a_write_that_sends_all_resumes_from_the_loop),
        TEST(M_1_W_27_write_eof_in_the_resume_of_the_last_byte_is_told_once),
        TEST(M_1_a_close_that_sends_the_rest_may_put_off_the_end),
        TEST(M_1_W_24_sizes_that_cannot_be_added_are_refused),
        TEST(M_1_reading),
        TEST(M_1_what_moves_is_counted),
        TEST(M_1_failures_end_the_connection),
        TEST(M_1_F_8_a_file_that_cannot_be_written_ends_the_connection),
        TEST(X_1_no_memory_for_one_more),
        TEST(M_1_a_farewell_puts_off_the_end),
        TEST(M_1_L_8_no_entry_closes_the_loop),
        TEST(M_1_calls_that_it_does_not_have),
        TEST(M_1_extra_info_and_state),
        TEST(M_11_it_is_the_user_who_connects_them),
    };
    return cmocka_run_group_tests_name("custom", tests, NULL, NULL);
}
