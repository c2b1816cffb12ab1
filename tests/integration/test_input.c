/* Inputs of connections: not now, reading slower, the ends. */
#include <sys/socket.h>

#include "support/support.h"

struct client {
    tram_protocol base;
    tram_input input;
    struct world *world;
    bool pauses; /* after each line */
    bool rests;  /* … and asks for no more then */
    bool closes; /* at "quit" */
    int lines;
    int fails; /* at "fail" */
    bool lost;
    int lost_code;
    bool released;
};

static bool is_line(tram_bytes line, const char *text) {
    return line.size == strlen(text) && !memcmp(line.data, text, line.size);
}

static int parse(tram_protocol *protocol, tram_input *input) {
    struct client *client = (struct client *)(void *)protocol;
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line))) {
        client->lines++;
        trace(client->world, "%.*s", (int)(line.size < 8 ? line.size : 8), line.data);
        if (is_line(line, "fail"))
            return client->fails;
        if (is_line(line, "quit"))
            tram_transport_close(protocol->transport);
        if (client->pauses)
            tram_input_pause(input);
        if (client->rests)
            return 0;
    }
    return status;
}

static int on_data(tram_protocol *protocol, const void *data, size_t size) {
    return tram_input_feed(&((struct client *)(void *)protocol)->input, data, size);
}

static int on_eof(tram_protocol *protocol) {
    return tram_input_feed_eof(&((struct client *)(void *)protocol)->input);
}

static int on_lost(tram_protocol *protocol, const tram_error *error) {
    struct client *client = (struct client *)(void *)protocol;
    client->lost = true;
    client->lost_code = error ? error->code : 0;
    return 0;
}

static void on_released(tram_protocol *protocol) {
    struct client *client = (struct client *)(void *)protocol;
    tram_input_fini(&client->input);
    client->released = true;
}

/* What waits for memory, or for another's answer, may be told late. */
static void on_released_resume(tram_protocol *protocol) {
    assert_int_equal(tram_input_resume(&((struct client *)(void *)protocol)->input), 0);
    on_released(protocol);
}

static const tram_protocol_ops client_ops = {
    .data_received = on_data,
    .eof_received = on_eof,
    .connection_lost = on_lost,
    .released = on_released,
};

struct session {
    struct world *world;
    struct client client;
    tram_transport *transport;
    int peer;
};

static void session_open_with(struct session *session, struct world *world, size_t limit,
                              const tram_protocol_ops *ops) {
    int fds[2];
    tcp_pair(fds);
    *session = (struct session){.world = world, .client = {.base.ops = ops, .world = world}, .peer = fds[1]};
    tram_input_options options = {
        .limit = limit, .loop = world->loop, .protocol = &session->client.base, .parse = parse};
    assert_int_equal(tram_input_init(&session->client.input, &options), 0);
    assert_int_equal(transport_try_new(world, fds[0], &session->client.base, NULL, &session->transport), 0);
    run_ticks(world, 2);
}

static void session_open(struct session *session, struct world *world, size_t limit) {
    session_open_with(session, world, limit, &client_ops);
}

static void session_close(struct session *session) {
    if (!session->client.lost)
        tram_transport_abort(session->transport);
    run_until(session->world, &session->client.released);
    close(session->peer);
}

static void say(struct session *session, const char *text) {
    send_exactly(session->world, session->peer, text, strlen(text));
}

static void test_lines_reach_the_parser_and_a_rest_is_kept_by_the_loops_allocator(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    say(&session, "one\n"); /* the loop's own first needs */
    run_until_traced(session.world, "one");
    size_t before = session.world->allocations;
    say(&session, "two\r\n2\n");
    run_until_traced(session.world, "2");
    assert_trace(session.world, "one two 2");
    assert_int_equal(session.world->allocations, before);
    say(&session, "th");
    run_to_rest(session.world);
    assert_int_equal(session.world->allocations, before + 1);
    say(&session, "ree\n");
    run_until_traced(session.world, "three");
    session_close(&session);
}

static void test_resume_parses_from_the_loop_and_not_within(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    session.client.pauses = true;
    say(&session, "a\nb\nc\n");
    run_until_traced(session.world, "a");
    run_to_rest(session.world);
    assert_trace(session.world, "a");
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    assert_trace(session.world, "");
    run_ticks(session.world, 1);
    assert_trace(session.world, "b");
    session.client.pauses = false;
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_ticks(session.world, 1);
    assert_trace(session.world, "c");
    session_close(&session);
}

/* The peer has finished; who waits with the last line may still answer it. */
static void test_a_paused_input_keeps_its_connection_behind_the_end(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    session.client.pauses = session.client.rests = true;
    say(&session, "a\nb\n");
    assert_int_equal(shutdown(session.peer, SHUT_WR), 0);
    run_until_traced(session.world, "a");
    run_to_rest(session.world);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_to_rest(session.world);
    assert_trace(session.world, "a b");
    assert_false(session.client.lost || tram_transport_is_closing(session.transport));
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_until(session.world, &session.client.lost);
    session_close(&session);
}

static void test_a_resume_with_nothing_to_parse_wakes_nobody(void **state) {
    struct session session;
    uint64_t timeout_ns;
    session_open(&session, *state, 0);
    run_to_rest(session.world);
    tram_input_pause(&session.client.input);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    assert_int_equal(tram_loop_prepare(session.world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, TRAM_FOREVER);
    tram_input_pause(&session.client.input);
    assert_int_equal(tram_input_end(&session.client.input), 0); /* which waits for this */
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    assert_int_equal(tram_loop_prepare(session.world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 0);
    run_until(session.world, &session.client.lost);
    session_close(&session);
}

static void test_nothing_is_taken_behind_a_close(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    say(&session, "a\nquit\nb\n");
    run_until(session.world, &session.client.lost);
    assert_trace(session.world, "a quit");
    assert_int_equal(session.client.lost_code, 0);
    session_close(&session);
}

static void test_a_paused_input_stops_reading_above_twice_the_limit_and_goes_on(void **state) {
    struct session session;
    char line[101];
    enum { LINES = 1000 };
    session_open(&session, *state, 200);
    tram_input_pause(&session.client.input);
    memset(line, 'x', 99);
    line[99] = '\n';
    line[100] = '\0';
    for (int i = 0; i < LINES; i++) {
        say(&session, line);
        run_to_rest(session.world);
    }
    assert_in_range(tram_input_size(&session.client.input), 401, 700);
    assert_false(tram_transport_is_reading(session.transport));
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    while (tram_input_size(&session.client.input) || !tram_transport_is_reading(session.transport))
        run_ticks(session.world, 1);
    run_to_rest(session.world);
    assert_int_equal(session.client.lines, LINES);
    session.world->trace[0] = '\0';
    session_close(&session);
}

/* To the byte: of more than twice the limit the rest stays in the kernel, until what waits is no more than the limit.
 */
static void test_reading_stops_above_twice_the_limit_and_goes_on_at_it(void **state) {
    struct session session;
    enum { LIMIT = 200 };
    char lines[2 * LIMIT + 1];
    session_open(&session, *state, LIMIT);
    tram_input_pause(&session.client.input);
    session.client.pauses = true; /* behind each line */
    memset(lines, 'x', sizeof lines);
    for (size_t end = 100; end < sizeof lines; end += 100)
        lines[end] = '\n';
    const struct {
        size_t sent; /* 0: the next line is parsed */
        size_t waits;
        bool reading;
    } steps[] = {{2 * LIMIT, 2 * LIMIT, true}, {1, 2 * LIMIT + 1, false}, {0, LIMIT + 100, false}, {0, LIMIT, true}};
    size_t sent = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i].sent)
            send_exactly(session.world, session.peer, lines + sent, steps[i].sent);
        else
            assert_int_equal(tram_input_resume(&session.client.input), 0);
        sent += steps[i].sent;
        run_to_rest(session.world);
        assert_int_equal(tram_input_size(&session.client.input), steps[i].waits);
        assert_int_equal(tram_transport_is_reading(session.transport), steps[i].reading);
    }
    session.world->trace[0] = '\0';
    session_close(&session);
}

static void test_an_end_while_paused_waits_for_the_parser(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    session.client.pauses = true;
    say(&session, "a\nb\n");
    shutdown(session.peer, SHUT_WR);
    run_until_traced(session.world, "a");
    run_to_rest(session.world);
    assert_false(tram_transport_is_closing(session.transport));
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_ticks(session.world, 1);
    assert_trace(session.world, "a b");
    assert_false(tram_transport_is_closing(session.transport)); /* b is not answered yet */
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_until(session.world, &session.client.lost);
    assert_int_equal(session.client.lost_code, 0);
    session_close(&session);
}

static void test_a_parser_is_not_called_after_the_end(void **state) {
    static const tram_protocol_ops ops = {
        .data_received = on_data, .connection_lost = on_lost, .released = on_released_resume};
    struct session session;
    session_open_with(&session, *state, 0, &ops);
    session.client.pauses = true;
    say(&session, "a\nb\n");
    run_until_traced(session.world, "a");
    session_close(&session);
    assert_trace(session.world, "a");
}

static void test_an_end_within_a_message_is_an_error(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    say(&session, "a\nb");
    shutdown(session.peer, SHUT_WR);
    run_until(session.world, &session.client.lost);
    assert_trace(session.world, "a");
    assert_int_equal(session.client.lost_code, TRAM_EINCOMPLETE);
    session_close(&session);
}

static void test_a_message_over_the_limit_ends_the_connection(void **state) {
    struct session session;
    session_open(&session, *state, 5);
    say(&session, "12345\n123456");
    run_until(session.world, &session.client.lost);
    assert_trace(session.world, "12345");
    assert_int_equal(session.client.lost_code, TRAM_ELIMIT);
    assert_int_equal(session.world->exceptions, 1);
    session_close(&session);
}

static void test_a_parser_that_fails_when_it_was_resumed_ends_the_connection(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    session.client.fails = TRAM_EUSER;
    tram_input_pause(&session.client.input);
    say(&session, "fail\nb\n");
    run_to_rest(session.world);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_until(session.world, &session.client.lost);
    assert_trace(session.world, "fail");
    assert_int_equal(session.client.lost_code, TRAM_EUSER);
    assert_int_equal(session.world->exceptions, 1);
    assert_int_equal(session.world->exception_code, TRAM_EUSER);
    session_close(&session);
}

/* The call of the parser is in the ready queue when the input is freed. */
static void test_an_input_that_is_freed_is_not_parsed_any_more(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    tram_input_pause(&session.client.input);
    say(&session, "a\n");
    run_to_rest(session.world);
    tram_transport_abort(session.transport);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_until(session.world, &session.client.lost);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    run_until(session.world, &session.client.released);
    assert_trace(session.world, "");
    close(session.peer);

    session_open(&session, *state, 0);
    tram_input_pause(&session.client.input);
    say(&session, "a\n");
    run_to_rest(session.world);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    tram_input_fini(&session.client.input);
    run_ticks(session.world, 2);
    assert_trace(session.world, "");
    session_close(&session);
}

/* The library's own entries for a table of callbacks. */
static void test_a_table_of_callbacks_feeds_and_pauses(void **state) {
    static const tram_protocol_ops ops = {
        .data_received = tram_input_data_received,
        .eof_received = tram_input_eof_received,
        .pause_writing = tram_input_pause_writing,
        .resume_writing = tram_input_resume_writing,
        .connection_lost = on_lost,
        .released = on_released,
    };
    struct session session;
    session_open_with(&session, *state, 0, &ops);
    say(&session, "one\n");
    run_until_traced(session.world, "one");
    fill(session.transport, 100000);
    assert_true(tram_input_is_paused(&session.client.input));
    say(&session, "two\n");
    run_to_rest(session.world);
    assert_trace(session.world, "one");
    char bytes[65536];
    while (tram_input_is_paused(&session.client.input)) { /* the peer reads */
        while (recv(session.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
            ;
        run_ticks(session.world, 1);
    }
    run_until_traced(session.world, "two");
    shutdown(session.peer, SHUT_WR);
    run_until(session.world, &session.client.lost);
    assert_int_equal(session.client.lost_code, 0);
    session_close(&session);
}

static void test_a_loop_that_closes_forgets_the_parser(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    tram_input_pause(&session.client.input);
    say(&session, "a\n");
    run_to_rest(session.world);
    assert_int_equal(tram_input_resume(&session.client.input), 0);
    world_reopen(session.world);
    assert_true(session.client.released);
    assert_trace(session.world, "");
    close(session.peer);
}

/* rules: G-2, G-3 */
static void test_an_input_that_is_to_end_parses_what_came_first(void **state) {
    static const char *const said[] = {"", "a\nb\n", "a\nb", "a\nquit\n"};
    for (size_t i = 0; i < 4; i++) {
        struct session session;
        session_open(&session, *state, 0);
        tram_input *input = &session.client.input;
        tram_input_pause(input); /* for an answer, and another for writing */
        tram_input_pause(input);
        say(&session, said[i]);
        run_to_rest(session.world);
        assert_int_equal(tram_input_end(input), 0);
        tram_input_resume(input);
        run_to_rest(session.world);
        assert_false(session.client.lost);
        assert_trace(session.world, "");
        tram_input_resume(input);
        if (i == 2) {
            run_until_traced(session.world, "a");
            run_to_rest(session.world);
            assert_false(session.client.lost); /* a message that is there in part */
            say(&session, "c\n");
        }
        run_until(session.world, &session.client.lost);
        assert_trace(session.world, i == 0 ? "" : i == 1 ? "a b" : i == 2 ? "a bc" : "a quit");
        assert_int_equal(session.client.lost_code, 0);
        session_close(&session);
    }
}

static void test_an_input_that_has_nothing_to_parse_ends_at_once(void **state) {
    struct session session;
    session_open(&session, *state, 0);
    say(&session, "a\n");
    run_until_traced(session.world, "a");
    assert_int_equal(tram_input_end(&session.client.input), 0);
    assert_true(tram_transport_is_closing(session.transport));
    run_until(session.world, &session.client.lost);
    session_close(&session);
    session_open(&session, *state, 0);
    tram_input alone;
    assert_int_equal(tram_input_init(&alone, NULL), 0);
    assert_int_equal(tram_input_end(&alone), 0); /* of no connection */
    tram_input_fini(&alone);
    session.client.pauses = true; /* by the line that it was called for */
    say(&session, "b\n");
    run_until_traced(session.world, "b");
    assert_int_equal(tram_input_end(&session.client.input), 0);
    run_to_rest(session.world);
    assert_false(tram_transport_is_closing(session.transport));
    tram_input_resume(&session.client.input);
    run_until(session.world, &session.client.lost);
    session_close(&session);
}

/* rules: G-2 */
static void test_a_table_of_callbacks_ends_behind_a_message(void **state) {
    static const tram_protocol_ops ops = {
        .data_received = on_data, .connection_lost = on_lost, .released = on_released, .closing = tram_input_closing};
    struct session session;
    session_open_with(&session, *state, 0, &ops);
    say(&session, "a\nb");
    run_until_traced(session.world, "a");
    assert_int_equal(ops.closing(&session.client.base, TRAM_FOREVER), 0);
    run_to_rest(session.world);
    assert_false(session.client.lost); /* there is a message in part */
    say(&session, "c\n");
    run_until(session.world, &session.client.lost);
    assert_trace(session.world, "a bc");
    session_close(&session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        TEST(test_lines_reach_the_parser_and_a_rest_is_kept_by_the_loops_allocator),
        TEST(test_resume_parses_from_the_loop_and_not_within),
        TEST(test_a_paused_input_keeps_its_connection_behind_the_end),
        TEST(test_a_resume_with_nothing_to_parse_wakes_nobody),
        TEST(test_nothing_is_taken_behind_a_close),
        TEST(test_a_paused_input_stops_reading_above_twice_the_limit_and_goes_on),
        TEST(test_reading_stops_above_twice_the_limit_and_goes_on_at_it),
        TEST(test_an_end_while_paused_waits_for_the_parser),
        TEST(test_a_parser_is_not_called_after_the_end),
        TEST(test_an_end_within_a_message_is_an_error),
        TEST(test_a_message_over_the_limit_ends_the_connection),
        TEST(test_a_parser_that_fails_when_it_was_resumed_ends_the_connection),
        TEST(test_an_input_that_is_freed_is_not_parsed_any_more),
        TEST(test_a_table_of_callbacks_feeds_and_pauses),
        TEST(test_a_table_of_callbacks_ends_behind_a_message),
        TEST(test_a_loop_that_closes_forgets_the_parser),
        TEST(test_an_input_that_is_to_end_parses_what_came_first),
        TEST(test_an_input_that_has_nothing_to_parse_ends_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
