/* Reading: when it starts, stops and ends (docs/rules.md, group R). */
#include "support/support.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- A protocol that checks the bytes themselves ---- */

struct checker {
    tram_protocol base;
    size_t received;
    size_t largest;
    unsigned calls;
    bool wrong;
};

static char pattern(size_t offset) {
    return (char)(offset % 251);
}

static int checker_data(tram_protocol *protocol, const void *data, size_t size) {
    struct checker *checker = (struct checker *)protocol;
    for (size_t i = 0; i < size; i++)
        if (((const char *)data)[i] != pattern(checker->received + i))
            checker->wrong = true;
    checker->received += size;
    checker->calls++;
    if (size == 0)
        checker->wrong = true;
    if (size > checker->largest)
        checker->largest = size;
    return 0;
}

static const tram_protocol_ops checker_ops = {.data_received = checker_data};

/* Sends the pattern from `offset` on until the kernel takes no more or `limit` is reached; the new offset. */
static size_t send_pattern(int fd, size_t offset, size_t limit) {
    while (offset < limit) {
        char bytes[4096];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = pattern(offset + i);
        size_t size = limit - offset < sizeof bytes ? limit - offset : sizeof bytes;
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            break;
        offset += (size_t)sent;
    }
    return offset;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Ends a connection whose protocol lies on the stack. */
static void end(struct world *world, tram_transport *transport, int peer) {
    assert_int_equal(tram_transport_abort(transport), 0);
    run_to_rest(world);
    close(peer);
}

/* ---- Starting ---- */

static void test_R_1_P_4_waiting_bytes_come_in_a_later_tick_than_connection_made(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct wire wire = wire_new(world, recorder_new(world, NULL));
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "made");
    assert_int_equal(calls->receives, 0);
    /* It started in that tick: the very next one delivers. */
    run_ticks(world, 1);
    assert_trace(world, "data:5");
    close(wire.peer);
}

static int pause_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        assert_int_equal(tram_transport_pause_reading(recorder->base.transport), 0);
    return 0;
}

static void test_R_8_pausing_in_connection_made_keeps_reading_off(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = pause_when_made;
    struct wire wire = wire_new(world, recorder);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    run_to_rest(world);
    assert_trace(world, "made");
    assert_int_equal(calls->receives, 0);
    assert_false(tram_transport_is_reading(wire.transport));
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    run_until_traced(world, "data");
    assert_trace(world, "data:5");
    close(wire.peer);
}

static int pause_and_resume_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0) {
        assert_int_equal(tram_transport_pause_reading(recorder->base.transport), 0);
        assert_int_equal(tram_transport_resume_reading(recorder->base.transport), 0);
    }
    return 0;
}

static void test_R_1_resuming_in_connection_made_starts_nothing_early(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = pause_and_resume_when_made;
    struct wire wire = wire_new(world, recorder);
    /* Before connection_made, too, nothing may start by it. */
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "made");
    run_ticks(world, 1);
    assert_trace(world, "data:5");
    close(wire.peer);
}

/* ---- How much ---- */

/* rules: L-39 */
static void test_R_2_one_receive_of_at_most_256_KiB_per_event_and_bytes_in_order(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct checker checker = {.base.ops = &checker_ops};
    int fds[2];
    tcp_pair(fds);
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fds[0], &checker.base, NULL, &transport), 0);
    run_ticks(world, 1);

    const size_t total = 3u << 20;
    size_t sent = send_pattern(fds[1], 0, total);
    assert_true(sent > 0);
    for (unsigned events = 1; checker.received < total; events++) {
        await_events(fds[0], POLLIN);
        run_ticks(world, 1);
        assert_int_equal(calls->receives, events);
        assert_int_equal(checker.calls, events);
        sent = send_pattern(fds[1], sent, total);
    }
    assert_int_equal(checker.received, total);
    assert_false(checker.wrong);
    assert_int_equal(calls->largest_receive, 256 * 1024);
    assert_true(checker.largest <= 256 * 1024);
    end(world, transport, fds[1]);
}

/* ---- Pausing ---- */

/* rules */
static void test_R_3_R_4_R_5_a_paused_transport_hears_nothing_and_loses_nothing(void **state) {
    struct world *world = *state;
    struct recorder *recorders[] = {recorder_new(world, NULL), recorder_new_buffered(world, NULL)};
    const char *expected[] = {"data:5 eof lost:0 released", "get_buffer updated:5 get_buffer eof lost:0 released"};
    for (int i = 0; i < 2; i++) {
        struct wire wire = wire_new_made(world, recorders[i]);
        assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
        say(wire.peer, "hello");
        shutdown(wire.peer, SHUT_WR);
        await_events(wire.fd, POLLRDHUP);
        run_to_rest(world);
        assert_trace(world, "");

        assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
        assert_trace(world, ""); /* never inside the call */
        run_until_traced(world, "released");
        assert_trace(world, expected[i]);
        close(wire.peer);
    }
}

static int pause_at_once(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") == 0 || strcmp(event, "updated") == 0)
        assert_int_equal(tram_transport_pause_reading(recorder->base.transport), 0);
    return 0;
}

static void test_R_3_pausing_inside_the_callback_holds_back_what_follows(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    calls->receive_limit = 4;
    struct recorder *recorders[] = {recorder_new(world, NULL), recorder_new_buffered(world, NULL)};
    for (int i = 0; i < 2; i++) {
        recorders[i]->on = pause_at_once;
        struct wire wire = wire_new_made(world, recorders[i]);
        say(wire.peer, "hello");
        shutdown(wire.peer, SHUT_WR);
        await_events(wire.fd, POLLRDHUP);
        run_to_rest(world);
        assert_trace(world, i ? "get_buffer updated:4" : "data:4");
        assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
        run_to_rest(world);
        assert_trace(world, i ? "get_buffer updated:1" : "data:1");
        assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
        run_to_rest(world);
        assert_trace(world, i ? "get_buffer eof lost:0 released" : "eof lost:0 released");
        close(wire.peer);
    }
}

static int pause_in_get_buffer(struct recorder *recorder, const char *event) {
    if (strcmp(event, "get_buffer") == 0)
        assert_int_equal(tram_transport_pause_reading(recorder->base.transport), 0);
    return 0;
}

static void test_R_3_pausing_inside_get_buffer_cancels_that_read(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->on = pause_in_get_buffer;
    struct wire wire = wire_new_made(world, recorder);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    run_to_rest(world);
    assert_trace(world, "get_buffer");
    recorder->on = NULL;
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    run_to_rest(world);
    assert_trace(world, "get_buffer updated:5");
    close(wire.peer);
}

/* Whoever of two comes first pauses the other, whose event was collected by the same poll. */
static int pause_the_other(struct recorder *recorder, const char *event) {
    struct recorder *other = recorder->arg;
    if ((strcmp(event, "data") == 0 || strcmp(event, "updated") == 0 || strcmp(event, "eof") == 0) &&
        other->base.transport)
        assert_int_equal(tram_transport_pause_reading(other->base.transport), 0);
    return 0;
}

static void pause_each_other(struct world *world, struct recorder *a, struct recorder *b, bool at_eof) {
    a->on = b->on = pause_the_other;
    a->arg = b;
    b->arg = a;
    a->eof_returns = b->eof_returns = 1;
    struct wire wires[2] = {wire_new_made(world, a), wire_new_made(world, b)};
    for (int i = 0; i < 2; i++) {
        if (at_eof)
            shutdown(wires[i].peer, SHUT_WR);
        else
            say(wires[i].peer, "x");
    }
    for (int i = 0; i < 2; i++)
        await_events(wires[i].fd, at_eof ? POLLRDHUP : POLLIN);
    run_ticks(world, 1);
    const char *said = a->buffer_size ? "get_buffer" : at_eof ? "eof" : "data:1";
    /* One of them was heard, once. */
    assert_ptr_not_equal(strstr(world->trace, said), NULL);
    assert_ptr_equal(strstr(strstr(world->trace, said) + 1, said), NULL);
    run_to_rest(world);
    assert_ptr_equal(strstr(strstr(world->trace, said) + 1, said), NULL);
    /* The other lost nothing. */
    a->on = b->on = NULL;
    for (int i = 0; i < 2; i++)
        assert_int_equal(tram_transport_resume_reading(wires[i].transport), 0);
    run_to_rest(world);
    assert_ptr_not_equal(strstr(strstr(world->trace, said) + 1, said), NULL);
    assert_int_equal(a->received + b->received, at_eof ? 0 : 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tram_transport_abort(wires[i].transport), 0);
        close(wires[i].peer);
    }
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void test_R_3_T_19_a_pause_stops_an_event_that_was_collected_already(void **state) {
    struct world *world = *state;
    pause_each_other(world, recorder_new(world, NULL), recorder_new(world, NULL), false);
    pause_each_other(world, recorder_new(world, NULL), recorder_new(world, NULL), true);
    pause_each_other(world, recorder_new_buffered(world, NULL), recorder_new_buffered(world, NULL), false);
}

static void test_R_4_a_paused_transport_slows_its_peer_down(void **state) {
    struct world *world = *state;
    struct checker checker = {.base.ops = &checker_ops};
    int fds[2];
    tcp_pair(fds);
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fds[0], &checker.base, NULL, &transport), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_transport_pause_reading(transport), 0);
    const size_t total = 64u << 20; /* more than the kernel's buffers can hold */
    size_t sent = send_pattern(fds[1], 0, total);
    assert_true(sent < total);
    run_to_rest(world);
    assert_int_equal(checker.received, 0);
    assert_int_equal(tram_transport_resume_reading(transport), 0);
    while (checker.received < sent) {
        await_events(fds[0], POLLIN);
        run_ticks(world, 1);
    }
    assert_int_equal(checker.received, sent);
    assert_false(checker.wrong);
    /* There is room again. */
    await_events(fds[1], POLLOUT);
    end(world, transport, fds[1]);
}

static void test_R_6_both_calls_may_be_repeated(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    run_to_rest(world);
    assert_trace(world, "");
    /* They do not count: one resume is enough. */
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    run_to_rest(world);
    assert_trace(world, "data:5");
    close(wire.peer);
}

static void test_R_6_both_calls_do_nothing_on_a_closing_or_closed_transport(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    tram_transport_hold(wire.transport);
    fill(wire.transport, 0); /* the close has to flush */
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    run_ticks(world, 3);
    assert_trace(world, "");
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    run_ticks(world, 3);
    assert_trace(world, "");
    assert_true(receive_eof(world, wire.peer) || errno == ECONNRESET);
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:0 released");
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_release(wire.transport);
    close(wire.peer);
}

/* ---- is_reading ---- */

static int answer_with_is_reading(struct recorder *recorder, const char *event) {
    trace(recorder->world, tram_transport_is_reading(recorder->arg) ? "(%s:reading)" : "(%s:not)", event);
    return 0;
}

static void test_R_7_is_reading_tells_whether_reading_is_on(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = answer_with_is_reading;
    struct wire wire = wire_new(world, recorder);
    recorder->arg = wire.transport;
    run_ticks(world, 1);
    assert_trace(world, "made (made:reading)");
    assert_true(tram_transport_is_reading(wire.transport));
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_true(tram_transport_is_reading(wire.transport));
    say(wire.peer, "x");
    run_until_traced(world, "data");
    assert_trace(world, "data:1 (data:reading)");
    fill(wire.transport, 0);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    assert_int_equal(tram_transport_abort(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    run_ticks(world, 1);
    assert_trace(world, "lost:0 (lost:not) released (released:not)");
    close(wire.peer);
}

static void test_R_7_after_the_end_of_the_stream_pausing_and_resuming_do_nothing(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    recorder->on = answer_with_is_reading;
    recorder->arg = wire.transport;
    recorder->eof_returns = 1;
    shutdown(wire.peer, SHUT_WR);
    run_until_traced(world, "eof");
    assert_trace(world, "eof (eof:not)");
    assert_false(tram_transport_is_reading(wire.transport));
    unsigned receives = calls->receives;
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_false(tram_transport_is_reading(wire.transport));
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(calls->receives, receives);
    assert_false(tram_transport_is_closing(wire.transport));
    close(wire.peer);
}

/* ---- Trouble while paused ---- */

static void test_R_9_a_reset_while_paused_waits_for_the_next_read_without_spinning(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    say(wire.peer, "hello");
    close_with_reset(wire.peer);
    await_events(wire.fd, POLLHUP);
    run_to_rest(world);
    assert_trace(world, "");
    assert_false(tram_transport_is_closing(wire.transport));
    assert_int_equal(tram_transport_resume_reading(wire.transport), 0);
    assert_trace(world, "");
    run_until_traced(world, "released");
    /* What had arrived may come first: that is the kernel's choice. */
    if (strncmp(world->trace, "data:5 ", 7) == 0)
        memmove(world->trace, world->trace + 7, strlen(world->trace + 7) + 1);
    assert_trace(world, "lost:ECONNRESET released");
}

static void test_R_9_a_reset_while_paused_is_noticed_by_a_write(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    close_with_reset(wire.peer);
    await_events(wire.fd, POLLHUP);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(tram_transport_write(wire.transport, "x", 1), 0);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_true(recorder->lost_code == -ECONNRESET || recorder->lost_code == -EPIPE);
    assert_true(recorder->was_released);
}

static void test_R_9_a_hang_up_on_a_paused_transport_does_not_spin(void **state) {
    struct world *world = *state;
    for (int over_unix = 0; over_unix < 2; over_unix++) {
        for (int own_end_first = 0; own_end_first < 2; own_end_first++) {
            int fds[2];
            if (over_unix)
                unix_pair(fds);
            else
                tcp_pair(fds);
            tram_transport *transport = transport_new(world, fds[0], recorder_new(world, NULL));
            run_ticks(world, 1);
            assert_int_equal(tram_transport_pause_reading(transport), 0);
            if (own_end_first) /* with both directions ended, poll reports the hang-up for ever */
                assert_int_equal(tram_transport_write_eof(transport), 0);
            close(fds[1]);
            await_events(fds[0], POLLRDHUP);
            run_to_rest(world);
            assert_trace(world, "made");
            assert_int_equal(tram_transport_resume_reading(transport), 0);
            run_until_traced(world, "released");
            assert_trace(world, "eof lost:0 released");
        }
    }
}

static void test_R_9_P_10_a_hang_up_on_a_half_open_transport_does_not_spin(void **state) {
    struct world *world = *state;
    for (int own_end = 0; own_end < 2; own_end++) {
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->eof_returns = 1;
        struct wire wire = wire_new_made(world, recorder);
        shutdown(wire.peer, SHUT_WR);
        run_until_traced(world, "eof");
        run_to_rest(world);
        assert_trace(world, "eof");
        if (own_end) {
            assert_int_equal(tram_transport_write_eof(wire.transport), 0);
            await_events(wire.fd, 0); /* both directions ended: a hang-up */
            run_to_rest(world);
            assert_trace(world, "");
            assert_false(tram_transport_is_closing(wire.transport));
            close(wire.peer);
            assert_int_equal(tram_transport_close(wire.transport), 0);
            run_ticks(world, 1);
            assert_trace(world, "lost:0 released");
        } else {
            close_with_reset(wire.peer);
            await_events(wire.fd, POLLHUP);
            run_to_rest(world);
            assert_trace(world, "lost:EPIPE released");
        }
    }
}

static void test_R_9_a_paused_transport_that_still_writes_does_not_spin(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    fill(wire.transport, 0);
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    /* Readable and not writable: nobody is interested. */
    run_to_rest(world);
    assert_trace(world, "");
    /* With bytes to send, the next write is the loop's. */
    close_with_reset(wire.peer);
    run_until(world, &recorder->was_released);
    assert_true(recorder->lost_code == -EPIPE || recorder->lost_code == -ECONNRESET);
}

static void test_R_10_a_close_while_paused_ends_without_eof_received(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_pause_reading(wire.transport), 0);
    say(wire.peer, "hello");
    shutdown(wire.peer, SHUT_WR);
    await_events(wire.fd, POLLRDHUP);
    run_to_rest(world);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_to_rest(world);
    assert_trace(world, "lost:0 released");
    close(wire.peer);
}

/* ---- Ends ---- */

static void test_R_11_a_reset_gives_no_eof_received_but_the_error(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    close_with_reset(wire.peer);
    run_until_traced(world, "released");
    assert_trace(world, "lost:ECONNRESET released");
    assert_int_equal(world->exceptions, 0);

    wire = wire_new_made(world, recorder_new_buffered(world, NULL));
    close_with_reset(wire.peer);
    run_until_traced(world, "released");
    assert_trace(world, "get_buffer lost:ECONNRESET released");
    assert_int_equal(world->exceptions, 0);
}

static void test_R_11_any_errno_of_receiving_reaches_connection_lost(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    calls->receive_errno = ETIMEDOUT;
    say(wire.peer, "x");
    run_until_traced(world, "released");
    assert_trace(world, "lost:ETIMEDOUT released");
    close(wire.peer);
}

static void test_R_2_L_38_an_interrupted_or_empty_receive_is_no_event(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    for (int i = 0; i < 2; i++) {
        calls->receive_errno = i ? EAGAIN : EINTR;
        say(wire.peer, "x");
        run_until_traced(world, "data");
        assert_trace(world, "data:1");
    }
    close(wire.peer);
}

static int close_at_once(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") == 0 || strcmp(event, "updated") == 0) {
        assert_int_equal(tram_transport_close(recorder->base.transport), 0);
        trace(recorder->world, "closed");
    }
    return 0;
}

static void test_R_12_after_a_close_inside_data_received_nothing_more_is_received(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    calls->receive_limit = 4;
    for (int i = 0; i < 2; i++) {
        for (int flush = 0; flush < 2; flush++) {
            struct recorder *recorder = i ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
            recorder->on = close_at_once;
            struct wire wire = wire_new_made(world, recorder);
            if (flush) /* the connection goes on for a while, but not for reading */
                fill(wire.transport, 0);
            say(wire.peer, "hello, world");
            shutdown(wire.peer, SHUT_WR);
            await_events(wire.fd, POLLRDHUP);
            run_ticks(world, 5);
            if (flush) {
                assert_trace(world, i ? "get_buffer updated:4 closed" : "data:4 closed");
                while (!recorder->was_released)
                    receive_eof(world, wire.peer);
                assert_trace(world, "lost:0 released");
            } else {
                assert_trace(world,
                             i ? "get_buffer updated:4 closed lost:0 released" : "data:4 closed lost:0 released");
            }
            close(wire.peer);
        }
    }
}

static int resume(tram_loop *loop, void *arg) {
    (void)loop;
    return tram_transport_resume_reading(arg);
}

static int resume_other(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_resume_reading(recorder->arg) : 0;
}

/* An event that was collected while nobody read is not for whoever resumes within the tick. */
static void test_L_2_L_5_reading_that_is_resumed_begins_with_the_next_tick(void **state) {
    struct world *world = *state;
    struct wire first = wire_new_made(world, recorder_new(world, "first"));
    struct wire second = wire_new_made(world, recorder_new(world, "second"));
    first.recorder->on = resume_other;
    first.recorder->arg = second.transport;
    assert_int_equal(tram_transport_pause_reading(second.transport), 0);
    assert_int_equal(send(first.peer, "x", 1, 0), 1);
    await_events(first.fd, POLLIN);
    assert_int_equal(send(second.peer, "y", 1, 0), 1);
    await_events(second.fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "first.data:1");
    run_ticks(world, 1);
    assert_trace(world, "second.data:1");

    /* The same where a callback that was queued before resumes. */
    assert_int_equal(tram_transport_pause_reading(second.transport), 0);
    assert_int_equal(send(second.peer, "y", 1, 0), 1);
    await_events(second.fd, POLLIN);
    assert_int_equal(tram_loop_call_soon(world->loop, resume, second.transport, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "second.data:1");
    for (int i = 0; i < 2; i++) {
        tram_transport_abort(i ? second.transport : first.transport);
        close(i ? second.peer : first.peer);
    }
    run_to_rest(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        cmocka_unit_test_setup_teardown(test_L_2_L_5_reading_that_is_resumed_begins_with_the_next_tick, world_setup,
                                        world_teardown),
        CASE(test_R_1_P_4_waiting_bytes_come_in_a_later_tick_than_connection_made),
        CASE(test_R_8_pausing_in_connection_made_keeps_reading_off),
        CASE(test_R_1_resuming_in_connection_made_starts_nothing_early),
        CASE(test_R_2_one_receive_of_at_most_256_KiB_per_event_and_bytes_in_order),
        CASE(test_R_3_R_4_R_5_a_paused_transport_hears_nothing_and_loses_nothing),
        CASE(test_R_3_pausing_inside_the_callback_holds_back_what_follows),
        CASE(test_R_3_pausing_inside_get_buffer_cancels_that_read),
        CASE(test_R_3_T_19_a_pause_stops_an_event_that_was_collected_already),
        CASE(test_R_4_a_paused_transport_slows_its_peer_down),
        CASE(test_R_6_both_calls_may_be_repeated),
        CASE(test_R_6_both_calls_do_nothing_on_a_closing_or_closed_transport),
        CASE(test_R_7_is_reading_tells_whether_reading_is_on),
        CASE(test_R_7_after_the_end_of_the_stream_pausing_and_resuming_do_nothing),
        CASE(test_R_9_a_reset_while_paused_waits_for_the_next_read_without_spinning),
        CASE(test_R_9_a_reset_while_paused_is_noticed_by_a_write),
        CASE(test_R_9_a_hang_up_on_a_paused_transport_does_not_spin),
        CASE(test_R_9_P_10_a_hang_up_on_a_half_open_transport_does_not_spin),
        CASE(test_R_9_a_paused_transport_that_still_writes_does_not_spin),
        CASE(test_R_10_a_close_while_paused_ends_without_eof_received),
        CASE(test_R_11_a_reset_gives_no_eof_received_but_the_error),
        CASE(test_R_11_any_errno_of_receiving_reaches_connection_lost),
        CASE(test_R_2_L_38_an_interrupted_or_empty_receive_is_no_event),
        CASE(test_R_12_after_a_close_inside_data_received_nothing_more_is_received),
    };
    return cmocka_run_group_tests_name("reading", tests, NULL, NULL);
}
