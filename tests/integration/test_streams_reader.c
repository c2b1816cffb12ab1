/* A stream's reader by itself: what each read gives, when it waits, and how it ends. */
#include "support/tasks.h"

static tram_stream_reader *reader_new(size_t limit) {
    tram_stream_reader *reader;
    assert_int_equal(tram_stream_reader_new(tasks_world->loop, limit, &reader), 0);
    return reader;
}

static void feed(tram_stream_reader *reader, const char *text) {
    assert_int_equal(tram_stream_reader_feed_data(reader, text, strlen(text)), 0);
}

/* A reader with these bytes, and perhaps the end behind them. */
static tram_stream_reader *reader_with(size_t limit, const char *text, bool eof) {
    tram_stream_reader *reader = reader_new(limit);
    feed(reader, text);
    if (eof)
        assert_int_equal(tram_stream_reader_feed_eof(reader), 0);
    return reader;
}

static void reader_end(tram_stream_reader *reader) {
    assert_int_equal(tram_stream_reader_free(reader), 0);
}

#define assert_bytes(bytes, text)                                                                                      \
    do {                                                                                                               \
        assert_int_equal((bytes).size, strlen(text));                                                                  \
        assert_memory_equal((bytes).data, text, (bytes).size);                                                         \
    } while (0)

/* What is left, with the end fed. */
static void assert_rest(tram_stream_reader *reader, const char *text) {
    tram_bytes rest;
    tram_stream_reader_feed_eof(reader);
    assert_int_equal(tram_stream_reader_readall(reader, &rest), 0);
    assert_bytes(rest, text);
    assert_true(tram_stream_reader_at_eof(reader));
    reader_end(reader);
}

static int until(tram_stream_reader *reader, const char *separator, tram_bytes *ret_bytes) {
    return tram_stream_reader_readuntil(reader, separator, strlen(separator), ret_bytes);
}

/* A task that reads, and says what it got. */
struct reading {
    tram_stream_reader *reader;
    const char *how;
    size_t size;
    char text[64];
};

static int do_read(struct reading *reading) {
    tram_stream_reader *reader = reading->reader;
    tram_bytes bytes = {reading->text, 0};
    int status = TRAM_EVALUE;
    if (!strcmp(reading->how, "read")) {
        ptrdiff_t count = tram_stream_reader_read(reader, reading->text, reading->size);
        status = count < 0 ? (int)count : 0;
        bytes.size = count < 0 ? 0 : (size_t)count;
    } else if (!strcmp(reading->how, "exactly")) {
        status = tram_stream_reader_readexactly(reader, reading->text, reading->size, &bytes.size);
    } else if (!strcmp(reading->how, "all")) {
        status = tram_stream_reader_readall(reader, &bytes);
    } else if (!strcmp(reading->how, "line")) {
        status = tram_stream_reader_readline(reader, &bytes);
    } else if (!strcmp(reading->how, "until")) {
        status = until(reader, "\r\n", &bytes);
    } else if (!strcmp(reading->how, "peek")) {
        status = tram_stream_reader_peek(reader, reading->size, &bytes);
    }
    trace(tasks_world, "%s:%.*s", status_name(status), (int)bytes.size, bytes.data);
    return status;
}

static int read_task(void *arg) {
    return do_read(arg);
}

static void read_now(tram_stream_reader *reader, const char *how, size_t size) {
    struct reading reading = {.reader = reader, .how = how, .size = size};
    (void)run_function(read_task, &reading);
}

/* ---- read ---- */

static void test_K_5_read_gives_what_is_there(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "abcdef", false);
    read_now(reader, "read", 0);
    read_now(reader, "read", 4);
    read_now(reader, "read", 10);
    assert_trace(tasks_world, "ok: ok:abcd ok:ef");
    read_now(reader, "read", 0); /* at once, although nothing is there */
    struct reading reading = {.reader = reader, .how = "read", .size = 10};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "ok:");
    feed(reader, "x");
    assert_trace(tasks_world, ""); /* not within the feed */
    run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "ok:x");
    run_task(task);
    tram_stream_reader_feed_eof(reader);
    read_now(reader, "read", 10);
    assert_trace(tasks_world, "ok:");
    reader_end(reader);
}

static void test_K_5_all_until_the_end(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(2, "more than", false);
    struct reading reading = {.reader = reader, .how = "all"};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "-twice-the");
    run_to_rest(tasks_world);
    feed(reader, "-limit");
    tram_stream_reader_feed_eof(reader);
    assert_int_equal(run_task(task), 0);
    read_now(reader, "all", 0);
    assert_trace(tasks_world, "ok:more than-twice-the-limit ok:");
    reader_end(reader);
}

/* ---- readexactly ---- */

static void test_K_6_readexactly(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(2, "abcdefgh", false);
    read_now(reader, "exactly", 0);
    read_now(reader, "exactly", 7); /* beyond the limit */
    struct reading reading = {.reader = reader, .how = "exactly", .size = 3};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "i");
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "ok: ok:abcdefg");
    feed(reader, "jkl");
    run_task(task);
    assert_trace(tasks_world, "ok:hij");
    assert_rest(reader, "kl");
}

static void test_K_6_the_end_within(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "abc", true);
    read_now(reader, "exactly", 4);
    assert_true(tram_stream_reader_at_eof(reader));
    read_now(reader, "exactly", 4);
    read_now(reader, "exactly", 0);
    assert_trace(tasks_world, "TRAM_EINCOMPLETE:abc TRAM_EINCOMPLETE: ok:");
    reader_end(reader);
}

/* ---- readuntil ---- */

static void test_K_7_readuntil(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "ab\r\nc\r\n\r\nde\r", false);
    for (int i = 0; i < 3; i++)
        read_now(reader, "until", 0);
    assert_trace(tasks_world, "ok:ab\r\n ok:c\r\n ok:\r\n");
    struct reading reading = {.reader = reader, .how = "until"};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "\nfg"); /* the separator came in two pieces */
    run_task(task);
    tram_stream_reader_feed_eof(reader);
    read_now(reader, "until", 0);
    read_now(reader, "until", 0);
    assert_trace(tasks_world, "ok:de\r\n TRAM_EINCOMPLETE:fg TRAM_EINCOMPLETE:");
    reader_end(reader);
}

static void test_K_8_a_separator_is_found_after_the_end(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "ab\r\ncd", true);
    read_now(reader, "until", 0);
    read_now(reader, "until", 0);
    assert_trace(tasks_world, "ok:ab\r\n TRAM_EINCOMPLETE:cd");
    reader_end(reader);
}

static void test_K_9_exactly_the_limit_is_fine(void **state) {
    (void)state;
    tram_bytes bytes;
    tram_stream_reader *reader = reader_with(4, "abcd\nx", false);
    assert_int_equal(until(reader, "\n", &bytes), 0);
    assert_bytes(bytes, "abcd\n");
    assert_rest(reader, "x");
}

static void test_K_10_a_separator_beyond_the_limit(void **state) {
    (void)state;
    tram_bytes bytes;
    tram_stream_reader *reader = reader_with(4, "abcde\nxy", false);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(until(reader, "\n", &bytes), TRAM_ELIMIT);
        assert_bytes(bytes, "abcde");
    }
    assert_int_equal(tram_stream_reader_consume(reader, bytes.size), 0);
    assert_int_equal(until(reader, "\n", &bytes), 0);
    assert_bytes(bytes, "\n");
    assert_rest(reader, "xy");
}

static void test_K_11_a_separator_that_is_not_there(void **state) {
    (void)state;
    tram_bytes bytes;
    tram_stream_reader *reader = reader_with(4, "abcde", false);
    assert_int_equal(until(reader, "\r\n", &bytes), TRAM_ESTATE); /* would wait: a byte above the limit */
    assert_bytes(bytes, "");
    feed(reader, "f");
    assert_int_equal(until(reader, "\r\n", &bytes), TRAM_ELIMIT);
    assert_bytes(bytes, "abcde");
    tram_stream_reader_feed_eof(reader); /* the limit comes before the end */
    assert_int_equal(until(reader, "\n", &bytes), TRAM_ELIMIT);
    assert_bytes(bytes, "abcdef");
    assert_rest(reader, "abcdef");
}

static void test_K_12_of_several_separators_the_first_that_ends(void **state) {
    (void)state;
    const tram_bytes separators[] = {{"bcd", 3}, {"c", 1}, {"xyz", 3}, {"z", 1}};
    tram_stream_reader *reader = reader_with(0, "abcd-xyz", false);
    tram_bytes bytes;
    size_t which = 9;
    assert_int_equal(tram_stream_reader_readuntil_any(reader, separators, 4, &bytes, &which), 0);
    assert_bytes(bytes, "abc");
    assert_int_equal(which, 1);
    assert_int_equal(tram_stream_reader_readuntil_any(reader, separators, 4, &bytes, &which), 0);
    assert_bytes(bytes, "d-xyz"); /* both end there: the shortest */
    assert_int_equal(which, 3);
    feed(reader, "c");
    assert_int_equal(tram_stream_reader_readuntil_any(reader, separators, 2, &bytes, NULL), 0);
    assert_int_equal(tram_stream_reader_readuntil_any(reader, separators, 0, &bytes, NULL), TRAM_EVALUE);
    const tram_bytes empty[] = {{"a", 1}, {"", 0}};
    assert_int_equal(tram_stream_reader_readuntil_any(reader, empty, 2, &bytes, NULL), TRAM_EVALUE);
    assert_int_equal(until(reader, "", &bytes), TRAM_EVALUE);
    reader_end(reader);
}

/* ---- readline ---- */

static void test_K_13_K_14_lines(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "one\n\ntwo\r\nrest", true);
    for (int i = 0; i < 5; i++)
        read_now(reader, "line", 0);
    assert_trace(tasks_world, "ok:one\n ok:\n ok:two\r\n ok:rest ok:");
    reader_end(reader);
}

static void test_K_13_lines_that_are_too_long_are_dropped(void **state) {
    (void)state;
    tram_bytes line;
    tram_stream_reader *reader = reader_with(4, "abcde\nxy\nabcde", false);
    assert_int_equal(tram_stream_reader_readline(reader, &line), TRAM_EVALUE);
    assert_bytes(line, "");
    assert_int_equal(tram_stream_reader_readline(reader, &line), 0);
    assert_bytes(line, "xy\n");
    assert_int_equal(tram_stream_reader_readline(reader, &line), TRAM_EVALUE);
    feed(reader, "f\n");
    assert_int_equal(tram_stream_reader_readline(reader, &line), 0);
    assert_bytes(line, "f\n");
    reader_end(reader);
}

/* ---- The end ---- */

static void test_K_15_at_eof(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "a", false);
    char byte;
    assert_false(tram_stream_reader_at_eof(reader));
    tram_stream_reader_feed_eof(reader);
    assert_false(tram_stream_reader_at_eof(reader));
    assert_int_equal(tram_stream_reader_read(reader, &byte, 1), 1);
    assert_true(tram_stream_reader_at_eof(reader));
    reader_end(reader);
}

static void test_K_22_nothing_comes_after_the_end(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    assert_int_equal(tram_stream_reader_feed_data(reader, NULL, 0), 0);
    assert_int_equal(tram_stream_reader_feed_data(reader, NULL, 1), TRAM_EVALUE);
    tram_stream_reader_feed_eof(reader);
    assert_int_equal(tram_stream_reader_feed_data(reader, "a", 1), TRAM_ESTATE);
    assert_true(tram_stream_reader_at_eof(reader));
    reader_end(reader);
}

static void test_K_3_the_end_wakes_every_kind_of_read(void **state) {
    (void)state;
    const char *const kinds[] = {"read", "exactly", "all", "line", "until", "peek"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        tram_stream_reader *reader = reader_new(0);
        struct reading reading = {.reader = reader, .how = kinds[i], .size = 5};
        tram_task *task = spawn(read_task, &reading);
        run_to_rest(tasks_world);
        tram_stream_reader_feed_eof(reader);
        run_task(task);
        reader_end(reader);
    }
    assert_trace(tasks_world, "ok: TRAM_EINCOMPLETE: ok: ok: TRAM_EINCOMPLETE: ok:");
}

/* ---- Waiting ---- */

static void test_K_16_one_read_waits(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading first = {.reader = reader, .how = "exactly", .size = 3};
    struct reading second = {.reader = reader, .how = "read", .size = 2};
    tram_task *task = spawn(read_task, &first);
    run_to_rest(tasks_world);
    assert_int_equal(run_function(read_task, &second), TRAM_ESTATE);
    assert_int_equal(tram_stream_reader_free(reader), TRAM_ESTATE);
    feed(reader, "ab");
    assert_int_equal(run_function(read_task, &second), 0); /* it need not wait */
    feed(reader, "cde");
    run_task(task);
    assert_trace(tasks_world, "TRAM_ESTATE: ok:ab ok:cde");
    reader_end(reader);
}

static void test_K_16_who_is_no_task_does_not_wait(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    char bytes[4];
    assert_int_equal(tram_stream_reader_read(reader, bytes, 4), TRAM_ESTATE);
    feed(reader, "ab");
    assert_int_equal(tram_stream_reader_read(reader, bytes, 4), 2);
    reader_end(reader);
}

static void test_K_17_cancelling_loses_nothing(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading reading = {.reader = reader, .how = "exactly", .size = 4};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "abc");
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "d"); /* it is woken … */
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED); /* … and cancelled before it runs */
    assert_trace(tasks_world, "TRAM_ECANCELLED: TRAM_ECANCELLED:");
    assert_rest(reader, "abcd");
}

/* What a read was woken with goes back in front of what came since. */
static void test_K_17_cancelling_a_read_that_was_woken_loses_nothing(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading reading = {.reader = reader, .how = "read", .size = 3};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "ab");
    tram_task_cancel(task);
    feed(reader, "cd");
    tram_stream_reader_feed_eof(reader);
    assert_false(tram_stream_reader_at_eof(reader));
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_trace(tasks_world, "TRAM_ECANCELLED:");
    assert_rest(reader, "abcd");

    reader = reader_new(0); /* nothing came since */
    reading.reader = reader;
    task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "abc");
    assert_false(tram_stream_reader_at_eof(reader));
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_rest(reader, "abc");

    reader = reader_new(0); /* and no memory for it */
    reading.reader = reader;
    task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "ab");
    tram_task_cancel(task);
    feed(reader, "cd");
    tasks_world->fail_after = 0;
    run_ticks(tasks_world, 2);
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_int_equal(tram_stream_reader_exception(reader)->code, -ENOMEM);
    reader_end(reader);
}

/* A read gets what fits straight away; what does not is kept. */
static void test_K_5_a_read_that_waits_gets_at_most_its_size(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading reading = {.reader = reader, .how = "read", .size = 3};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "abcd");
    feed(reader, "e");
    assert_int_equal(run_task(task), 0);
    task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    assert_int_equal(run_task(task), 0);
    task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "fgh");
    feed(reader, "i");
    assert_int_equal(run_task(task), 0);
    assert_trace(tasks_world, "ok:abc ok:de ok:fgh");
    assert_rest(reader, "i");
}

/* ---- Errors ---- */

static void test_K_18_an_error_is_what_every_read_gives(void **state) {
    (void)state;
    const char *const kinds[] = {"read", "exactly", "all", "line", "until", "peek"};
    tram_stream_reader *reader = reader_new(0);
    char text[] = "the cable";
    struct reading waiting = {.reader = reader, .how = "exactly", .size = 5};
    tram_task *task = spawn(read_task, &waiting);
    run_to_rest(tasks_world);
    feed(reader, "abc");
    assert_null(tram_stream_reader_exception(reader));
    assert_int_equal(tram_stream_reader_set_exception(reader, NULL), TRAM_EVALUE);
    assert_int_equal(tram_stream_reader_set_exception(reader, &(tram_error){.code = 0}), TRAM_EVALUE);
    tram_error error = {.code = -EPIPE, .operation = "dig", .detail = text};
    assert_int_equal(tram_stream_reader_set_exception(reader, &error), 0);
    memset(text, 'x', sizeof text - 1);
    assert_int_equal(run_task(task), -EPIPE);
    assert_trace(tasks_world, "EPIPE:");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t size = 0; size < 2; size++) {
            struct reading reading = {.reader = reader, .how = kinds[i], .size = size};
            assert_int_equal(run_function(read_task, &reading), -EPIPE);
        }
    assert_string_equal(tram_stream_reader_exception(reader)->detail, "the cable");
    reader_end(reader);
}

static void test_K_18_who_was_woken_gets_his_bytes_first(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading reading = {.reader = reader, .how = "read", .size = 5};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "abc");
    tram_stream_reader_set_exception(reader, &(tram_error){.code = -EPIPE, .operation = "dig"});
    assert_int_equal(run_task(task), 0);
    assert_int_equal(run_function(read_task, &reading), -EPIPE);
    assert_trace(tasks_world, "ok:abc EPIPE:");
    /* A read of more than that does not wait for ever. */
    reader_end(reader);
    reader = reader_new(0);
    struct reading line = {.reader = reader, .how = "line"};
    task = spawn(read_task, &line);
    run_to_rest(tasks_world);
    feed(reader, "abc");
    tram_stream_reader_set_exception(reader, &(tram_error){.code = -EPIPE, .operation = "dig"});
    assert_int_equal(run_task(task), -EPIPE);
    reader_end(reader);
}

/* ---- Views, memory ---- */

static void test_K_32_a_view_lives_until_the_next_read(void **state) {
    (void)state;
    static char big[100000];
    memset(big, 'x', sizeof big - 1);
    tram_stream_reader *reader = reader_with(0, "one\ntwo\n", false);
    tram_bytes line, all;
    assert_int_equal(tram_stream_reader_readline(reader, &line), 0);
    for (int i = 0; i < 10; i++)
        feed(reader, big);
    assert_bytes(line, "one\n");
    assert_int_equal(tram_stream_reader_readline(reader, &line), 0);
    assert_bytes(line, "two\n");
    assert_int_equal(tram_stream_reader_peek(reader, 1, &all), 0);
    assert_int_equal(all.size, 10 * (sizeof big - 1));
    assert_int_equal(tram_stream_reader_consume(reader, all.size + 1), TRAM_EVALUE);
    assert_int_equal(tram_stream_reader_consume(reader, all.size), 0);
    feed(reader, "after");
    assert_int_equal(all.data[all.size - 1], 'x');
    assert_rest(reader, "after");
}

static void test_K_32_a_reader_that_is_empty_has_no_memory(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    char bytes[3000];
    memset(bytes, 'a', sizeof bytes);
    size_t before = tasks_world->live_blocks;
    assert_int_equal(tram_stream_reader_feed_data(reader, bytes, sizeof bytes), 0);
    assert_true(tasks_world->live_blocks > before);
    assert_int_equal(tram_stream_reader_read(reader, bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(tasks_world->live_blocks, before);
    reader_end(reader);
}

static void test_K_32_refused_memory_is_an_error_of_the_reader(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "abc", false);
    char bytes[5000] = {0};
    tasks_world->fail_after = 0;
    assert_int_equal(tram_stream_reader_feed_data(reader, bytes, sizeof bytes), -ENOMEM);
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(tram_stream_reader_read(reader, bytes, 1), -ENOMEM);
    assert_int_equal(tram_stream_reader_exception(reader)->code, -ENOMEM);
    reader_end(reader);
}

/* What a read that waits has room for is not kept, so that it needs no memory. */
static void test_K_5_K_32_what_fits_a_read_that_waits_needs_no_memory(void **state) {
    (void)state;
    for (size_t room = 5; room < 8; room++) {
        struct reading reading = {.reader = reader_new(0), .how = "read", .size = room};
        tram_task *task = spawn(read_task, &reading);
        run_to_rest(tasks_world);
        tasks_world->fail_after = 0;
        int status = tram_stream_reader_feed_data(reading.reader, "abcdef", 6);
        tasks_world->fail_after = SIZE_MAX;
        assert_int_equal(status, room < 6 ? -ENOMEM : 0);
        assert_int_equal(run_task(task), status);
        assert_true(status || memcmp(reading.text, "abcdef", 6) == 0);
        reader_end(reading.reader);
    }
    tasks_world->trace[0] = '\0';
}

static void test_K_5_who_reads_says_where_to(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_with(0, "abc", false);
    assert_wrong((int)tram_stream_reader_read(reader, NULL, 1), "buffer");
    assert_wrong(tram_stream_reader_readexactly(reader, NULL, 1, NULL), "buffer");
    assert_int_equal(tram_stream_reader_free(NULL), 0);
    assert_rest(reader, "abc");
}

static void test_K_23_without_a_transport_to_pause_there_is_no_bound(void **state) {
    (void)state;
    static char bytes[100000];
    tram_stream_reader *reader = reader_new(1);
    tram_bytes all;
    for (int i = 0; i < 20; i++)
        assert_int_equal(tram_stream_reader_feed_data(reader, bytes, sizeof bytes), 0);
    tram_stream_reader_feed_eof(reader);
    assert_int_equal(tram_stream_reader_readall(reader, &all), 0);
    assert_int_equal(all.size, 20 * sizeof bytes);
    reader_end(reader);
}

/* Bytes in pieces of any size, read in any way, are the bytes that were fed. */
static void test_K_21_no_byte_is_lost_or_moved(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(100);
    unsigned fed = 0, read = 0, seed = 12345;
    for (int round = 0; round < 20000; round++) {
        unsigned char bytes[600];
        seed = seed * 1103515245u + 12345;
        size_t size = (seed >> 16) % sizeof bytes;
        if (fed - read < 3000) {
            for (size_t i = 0; i < size; i++)
                bytes[i] = (unsigned char)(fed++ * 7);
            assert_int_equal(tram_stream_reader_feed_data(reader, bytes, size), 0);
        }
        size_t want = (seed >> 8) % 500;
        tram_bytes view;
        if (want > fed - read)
            want = fed - read;
        if (seed & 1024) {
            assert_int_equal(tram_stream_reader_peek(reader, want, &view), 0);
            assert_int_equal(tram_stream_reader_consume(reader, want), 0);
        } else {
            assert_int_equal(tram_stream_reader_readexactly(reader, bytes, want, NULL), 0);
            view = (tram_bytes){(char *)bytes, want};
        }
        for (size_t i = 0; i < want; i++)
            assert_int_equal((unsigned char)view.data[i], (unsigned char)(read++ * 7));
    }
    reader_end(reader);
}

static void test_K_32_the_loop_closes_while_a_task_reads(void **state) {
    (void)state;
    tram_stream_reader *reader = reader_new(0);
    struct reading reading = {.reader = reader, .how = "line"};
    tram_task *task = spawn(read_task, &reading);
    run_to_rest(tasks_world);
    feed(reader, "half a line");
    run_to_rest(tasks_world);
    assert_int_equal(tram_loop_close(tasks_world->loop), 0);
    tram_task_release(task);
    assert_int_equal(tasks_world->exceptions, 1); /* the task was pending */
    reader_end(reader);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_K_5_read_gives_what_is_there),
        TASK_TEST(test_K_5_all_until_the_end),
        TASK_TEST(test_K_5_K_32_what_fits_a_read_that_waits_needs_no_memory),
        TASK_TEST(test_K_5_who_reads_says_where_to),
        TASK_TEST(test_K_6_readexactly),
        TASK_TEST(test_K_6_the_end_within),
        TASK_TEST(test_K_7_readuntil),
        TASK_TEST(test_K_8_a_separator_is_found_after_the_end),
        TASK_TEST(test_K_9_exactly_the_limit_is_fine),
        TASK_TEST(test_K_10_a_separator_beyond_the_limit),
        TASK_TEST(test_K_11_a_separator_that_is_not_there),
        TASK_TEST(test_K_12_of_several_separators_the_first_that_ends),
        TASK_TEST(test_K_13_K_14_lines),
        TASK_TEST(test_K_13_lines_that_are_too_long_are_dropped),
        TASK_TEST(test_K_15_at_eof),
        TASK_TEST(test_K_22_nothing_comes_after_the_end),
        TASK_TEST(test_K_3_the_end_wakes_every_kind_of_read),
        TASK_TEST(test_K_16_one_read_waits),
        TASK_TEST(test_K_16_who_is_no_task_does_not_wait),
        TASK_TEST(test_K_17_cancelling_loses_nothing),
        TASK_TEST(test_K_17_cancelling_a_read_that_was_woken_loses_nothing),
        TASK_TEST(test_K_5_a_read_that_waits_gets_at_most_its_size),
        TASK_TEST(test_K_18_an_error_is_what_every_read_gives),
        TASK_TEST(test_K_18_who_was_woken_gets_his_bytes_first),
        TASK_TEST(test_K_32_a_view_lives_until_the_next_read),
        TASK_TEST(test_K_32_a_reader_that_is_empty_has_no_memory),
        TASK_TEST(test_K_32_refused_memory_is_an_error_of_the_reader),
        TASK_TEST(test_K_23_without_a_transport_to_pause_there_is_no_bound),
        TASK_TEST(test_K_21_no_byte_is_lost_or_moved),
        TASK_TEST(test_K_32_the_loop_closes_while_a_task_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
