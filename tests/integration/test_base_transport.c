/* What all transports have in common: ending, names, switching the protocol (docs/rules.md, group T). */
#include "support/faults.h"
#include "support/stream.h"
#include "support/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void soon(struct world *world, const char *word) {
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t)word, NULL, NULL), 0);
}

/* Bytes that the transport accepted so far. */
static size_t accepted(struct world *world, tram_transport *transport) {
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    return (size_t)stats.bytes_sent + tram_transport_get_write_buffer_size(transport);
}

/* Reads what comes until the end of the stream; how much it was. */
static size_t drain(struct world *world, int fd) {
    size_t total = 0;
    for (;;) {
        char bytes[65536];
        ssize_t received = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (received == 0)
            return total;
        if (received > 0) {
            total += (size_t)received;
            continue;
        }
        assert_int_equal(errno, EAGAIN);
        run_ticks(world, 1);
    }
}

static int closing_state(struct recorder *recorder, const char *event) {
    trace(recorder->world, tram_transport_is_closing(recorder->arg) ? "(%s:closing)" : "(%s:open)", event);
    return 0;
}

/* ---- Closing ---- */

static void test_T_1_close_stops_reading_sends_what_is_buffered_then_ends(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 0);
    size_t total = accepted(world, wire.transport);
    say(wire.peer, "before");
    await_events(wire.fd, POLLIN);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_ticks(world, 3);
    say(wire.peer, "after");
    run_ticks(world, 3);
    assert_trace(world, ""); /* it waits for the peer, deaf */
    char *bytes = malloc(total);
    receive_exactly(world, wire.peer, bytes, total);
    free(bytes);
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:0 released");
    assert_int_equal(recorder->received, 0);
    close(wire.peer);
}

static void test_T_1_close_sends_all_that_was_written(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 60000);
    size_t total = accepted(world, wire.transport);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    assert_int_equal(drain(world, wire.peer), total);
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:0 released");
    close(wire.peer);
}

static int fail_with_own_code(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_loop_raise(recorder->world->loop, TRAM_EUSER, NULL, NULL) : 0;
}

static void test_T_2_is_closing_is_true_from_the_end_s_beginning_for_ever(void **state) {
    struct world *world = *state;
    enum { CLOSE, FLUSH, ABORT, CALLBACK, SYSTEM, WAYS };
    for (int way = 0; way < WAYS; way++) {
        struct recorder *recorder = recorder_new(world, NULL);
        struct wire wire = wire_new_made(world, recorder);
        tram_transport *transport = tram_transport_hold(wire.transport);
        assert_false(tram_transport_is_closing(transport));
        recorder->arg = transport;
        recorder->on = closing_state;
        switch (way) {
        case FLUSH:
            fill(transport, 0);
            __attribute__((fallthrough));
        case CLOSE:
            assert_int_equal(tram_transport_close(transport), 0);
            break;
        case ABORT:
            assert_int_equal(tram_transport_abort(transport), 0);
            break;
        case CALLBACK:
            recorder->on = fail_with_own_code;
            say(wire.peer, "x");
            await_events(wire.fd, POLLIN);
            run_ticks(world, 1);
            recorder->on = closing_state;
            assert_trace(world, "data:1"); /* connection_lost comes in the next tick */
            break;
        default:
            close_with_reset(wire.peer);
            wire.peer = -1;
            await_events(wire.fd, POLLHUP);
            assert_int_equal(tram_transport_write(transport, "x", 1), 0);
            break;
        }
        assert_int_equal(tram_transport_is_closing(transport), way != SYSTEM); /* it is heard out (W-5) */
        if (wire.peer >= 0) {
            drain(world, wire.peer);
            close(wire.peer);
        }
        run_until(world, &recorder->was_released);
        assert_ptr_not_equal(strstr(world->trace, "(lost:closing) released (released:closing)"), NULL);
        world->trace[0] = '\0';
        assert_true(tram_transport_is_closing(transport));
        tram_transport_release(transport);
    }
}

static void close_or_abort(tram_transport *transport, unsigned what) {
    assert_int_equal(what & 1 ? tram_transport_abort(transport) : tram_transport_close(transport), 0);
}

static int end_again(struct recorder *recorder, const char *event) {
    (void)event;
    close_or_abort(recorder->arg, 0);
    close_or_abort(recorder->arg, 1);
    return 0;
}

static void test_T_3_any_mixture_of_closes_and_aborts_ends_once(void **state) {
    struct world *world = *state;
    for (unsigned calls = 0; calls < 8; calls++) {
        for (int flush = 0; flush < 2; flush++) {
            struct recorder *recorder = recorder_new(world, NULL);
            struct wire wire = wire_new_made(world, recorder);
            tram_transport *transport = tram_transport_hold(wire.transport);
            recorder->arg = transport;
            recorder->on = end_again; /* in connection_lost and in released, too */
            if (flush)
                fill(transport, 0);
            for (unsigned i = 0; i < 3; i++)
                close_or_abort(transport, calls >> i);
            assert_trace(world, "");
            drain(world, wire.peer);
            run_until(world, &recorder->was_released);
            close_or_abort(transport, calls);
            run_to_rest(world);
            assert_trace(world, "lost:0 released");
            tram_transport_release(transport);
            close(wire.peer);
        }
    }
}

static void test_T_4_abort_drops_what_is_unsent_and_does_not_wait(void **state) {
    struct world *world = *state;
    for (int after_close = 0; after_close < 2; after_close++) {
        struct recorder *recorder = recorder_new(world, NULL);
        struct wire wire = wire_new_made(world, recorder);
        fill(wire.transport, 60000);
        if (after_close) {
            assert_int_equal(tram_transport_close(wire.transport), 0);
            run_ticks(world, 3);
            assert_true(tram_transport_get_write_buffer_size(wire.transport) > 0);
        }
        assert_int_equal(tram_transport_abort(wire.transport), 0);
        assert_int_equal(tram_transport_get_write_buffer_size(wire.transport), 0);
        assert_trace(world, "");
        run_ticks(world, 1);
        assert_trace(world, "lost:0 released");
        close(wire.peer);
    }
}

static int end_inside(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    tram_transport *transport = recorder->base.transport;
    soon(recorder->world, "before");
    if (recorder->arg)
        assert_int_equal(tram_transport_abort(transport), 0);
    else
        assert_int_equal(tram_transport_close(transport), 0);
    soon(recorder->world, "after");
    trace(recorder->world, "returned");
    return 0;
}

static void test_T_5_connection_lost_is_never_called_inside_close_or_abort(void **state) {
    struct world *world = *state;
    for (int abort = 0; abort < 2; abort++) {
        struct wire wire = wire_new_made(world, recorder_new(world, NULL));
        soon(world, "before");
        close_or_abort(wire.transport, (unsigned)abort);
        soon(world, "after");
        assert_trace(world, "");
        run_ticks(world, 1);
        assert_trace(world, "before lost:0 released after");
        close(wire.peer);

        /* Neither does it come before the callback returned that ended it, nor in its tick. */
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = end_inside;
        recorder->arg = abort ? world : NULL;
        wire = wire_new_made(world, recorder);
        say(wire.peer, "x");
        await_events(wire.fd, POLLIN);
        run_ticks(world, 1);
        assert_trace(world, "data:1 returned");
        run_ticks(world, 1);
        assert_trace(world, "before lost:0 released after");
        close(wire.peer);
    }
}

static void test_T_5_connection_lost_is_never_called_inside_write(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    close_with_reset(wire.peer);
    await_events(wire.fd, POLLHUP);
    soon(world, "before");
    assert_int_equal(tram_transport_write(wire.transport, "x", 1), 0);
    soon(world, "after");
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_true(recorder->lost_code == -EPIPE || recorder->lost_code == -ECONNRESET);
    assert_memory_equal(world->trace, "before lost:E", strlen("before lost:E"));
    assert_ptr_not_equal(strstr(world->trace, " released after"), NULL);
}

/* ---- The descriptor ---- */

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static int look_at_the_descriptor(struct recorder *recorder, const char *event) {
    struct wire *wire = recorder->arg;
    if (strcmp(event, "lost") == 0) {
        assert_true(is_open(wire->fd));
        struct pollfd peer = {.fd = wire->peer, .events = POLLRDHUP};
        assert_int_equal(poll(&peer, 1, 0), 0);
        return TRAM_EUSER;
    }
    if (strcmp(event, "released") == 0)
        assert_false(is_open(wire->fd));
    return 0;
}

static void test_T_6_P_16_the_descriptor_is_closed_after_connection_lost_whatever_it_returned(void **state) {
    struct world *world = *state;
    enum { CLOSE, FLUSH, ABORT, ERROR, WAYS };
    for (int way = 0; way < WAYS; way++) {
        struct recorder *recorder = recorder_new(world, NULL);
        struct wire wire = wire_new_made(world, recorder);
        recorder->arg = &wire;
        recorder->on = look_at_the_descriptor;
        if (way == FLUSH)
            fill(wire.transport, 0);
        if (way == ABORT) {
            assert_int_equal(tram_transport_abort(wire.transport), 0);
        } else if (way == ERROR) {
            recorder->on = fail_with_own_code;
            say(wire.peer, "x");
            run_until_traced(world, "data");
            recorder->on = look_at_the_descriptor;
            world->exceptions = 0;
        } else {
            assert_int_equal(tram_transport_close(wire.transport), 0);
        }
        if (way == FLUSH)
            drain(world, wire.peer);
        run_until(world, &recorder->was_released);
        assert_int_equal(world->exceptions, 1);
        assert_int_equal(world->exception_code, TRAM_EUSER);
        assert_ptr_equal(world->exception_protocol, &recorder->base);
        assert_true(receive_eof(world, wire.peer));
        world->exceptions = 0;
        world->trace[0] = '\0';
        close(wire.peer);
    }
}

static void test_T_8_unread_input_at_a_close_is_left_to_the_kernel(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    say(wire.peer, "unread");
    await_events(wire.fd, POLLIN);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    await_events(wire.peer, POLLIN);
    char byte;
    assert_int_equal(recv(wire.peer, &byte, 1, 0), -1); /* Linux resets */
    assert_int_equal(errno, ECONNRESET);
    close(wire.peer);
}

/* ---- Names ---- */

static tram_socket_address name_of(int fd, bool peer) {
    tram_socket_address name = {.size = sizeof name.address};
    int status = peer ? getpeername(fd, (struct sockaddr *)&name.address, &name.size)
                      : getsockname(fd, (struct sockaddr *)&name.address, &name.size);
    assert_int_equal(status, 0);
    return name;
}

static void assert_same_name(const tram_socket_address *name, const tram_socket_address *expected) {
    assert_non_null(name);
    assert_int_equal(name->size, expected->size);
    assert_memory_equal(&name->address, &expected->address, expected->size);
}

struct names {
    tram_transport *transport;
    tram_socket_address sockname;
    tram_socket_address peername;
};

/* Who cannot ask later costs no system call. */
static void test_T_10_names_are_fetched_at_the_end_for_who_holds(void **state) {
    struct world *world = *state;
    for (unsigned held = 0; held < 2; held++) {
        struct wire wire = wire_new_made(world, recorder_new(world, NULL));
        if (held)
            tram_transport_hold(wire.transport);
        unsigned before = faults.getsockname.calls;
        tram_transport_abort(wire.transport);
        run_until_traced(world, "lost:0");
        run_to_rest(world);
        assert_int_equal(faults.getsockname.calls - before, held);
        if (held)
            tram_transport_release(wire.transport);
        world->trace[0] = '\0';
        close(wire.peer);
    }
}

static int look_at_names_when_lost(struct recorder *recorder, const char *event) {
    struct names *names = recorder->arg;
    if (strcmp(event, "lost") != 0)
        return 0;
    assert_same_name(tram_transport_get_extra_info(names->transport, "sockname", NULL), &names->sockname);
    assert_same_name(tram_transport_get_extra_info(names->transport, "peername", NULL), &names->peername);
    const tram_socket *view = tram_transport_get_extra_info(names->transport, "socket", NULL);
    assert_non_null(view);
    assert_true(is_open(view->fd));
    return 0;
}

static void test_T_7_T_10_names_are_there_in_connection_lost_and_after_it(void **state) {
    struct world *world = *state;
    enum { CLOSE, FLUSH, ABORT, RESET, END, WAYS };
    for (int way = 0; way < WAYS; way++) {
        for (int held = 0; held < 2; held++) {
            struct recorder *recorder = recorder_new(world, NULL);
            struct wire wire = wire_new_made(world, recorder);
            struct names names = {wire.transport, name_of(wire.fd, false), name_of(wire.fd, true)};
            recorder->arg = &names;
            if (held)
                tram_transport_hold(wire.transport);
            else
                recorder->on = look_at_names_when_lost; /* asked for the first time there */
            if (way == FLUSH)
                fill(wire.transport, 0);
            if (way == ABORT)
                assert_int_equal(tram_transport_abort(wire.transport), 0);
            else if (way == RESET)
                close_with_reset(wire.peer);
            else if (way == END)
                shutdown(wire.peer, SHUT_WR);
            else
                assert_int_equal(tram_transport_close(wire.transport), 0);
            if (way != RESET) {
                drain(world, wire.peer);
                close(wire.peer);
            }
            run_until(world, &recorder->was_released);
            if (held) {
                assert_same_name(tram_transport_get_extra_info(wire.transport, "sockname", NULL), &names.sockname);
                assert_same_name(tram_transport_get_extra_info(wire.transport, "peername", NULL), &names.peername);
                const tram_socket *view = tram_transport_get_extra_info(wire.transport, "socket", NULL);
                assert_non_null(view);
                assert_int_equal(view->fd, -1);
                tram_transport_release(wire.transport);
            }
        }
    }
}

static void test_T_9_an_unknown_key_gives_the_default(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    int fallback;
    const char *unknown[] = {"sslcontext", "", "Peername", "peername ", "pipe"};
    tram_transport_hold(wire.transport);
    for (int ended = 0; ended < 2; ended++) {
        for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
            assert_ptr_equal(tram_transport_get_extra_info(wire.transport, unknown[i], &fallback), &fallback);
            assert_null(tram_transport_get_extra_info(wire.transport, unknown[i], NULL));
        }
        assert_ptr_equal(tram_transport_get_extra_info(wire.transport, NULL, &fallback), &fallback);
        tram_transport_abort(wire.transport);
        run_ticks(world, 1);
    }
    tram_transport_release(wire.transport);
    close(wire.peer);
}

static void test_T_9_without_memory_it_gives_the_default_too(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    int fallback;
    world->fail_after = 0;
    assert_ptr_equal(tram_transport_get_extra_info(wire.transport, "sockname", &fallback), &fallback);
    assert_ptr_equal(tram_transport_get_extra_info(wire.transport, "socket", &fallback), &fallback);
    world->fail_after = SIZE_MAX;
    assert_ptr_not_equal(tram_transport_get_extra_info(wire.transport, "sockname", &fallback), &fallback);
    close(wire.peer);
}

static void test_T_10_T_11_the_socket_is_a_view(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    const tram_socket *view = tram_transport_get_extra_info(wire.transport, "socket", NULL);
    assert_int_equal(view->fd, wire.fd);
    assert_int_equal(view->family, AF_INET);
    assert_int_equal(view->type, SOCK_STREAM);
    assert_int_equal(view->protocol, IPPROTO_TCP);
    tram_socket_address expected = name_of(wire.peer, true);
    assert_same_name(tram_transport_get_extra_info(wire.transport, "sockname", NULL), &expected);
    expected = name_of(wire.peer, false);
    assert_same_name(tram_transport_get_extra_info(wire.transport, "peername", NULL), &expected);
    close(wire.peer);

    int fds[2];
    unix_pair(fds);
    tram_transport *transport = transport_new(world, fds[0], recorder_new(world, NULL));
    view = tram_transport_get_extra_info(transport, "socket", NULL);
    assert_int_equal(view->fd, fds[0]);
    assert_int_equal(view->family, AF_UNIX);
    assert_int_equal(view->type, SOCK_STREAM);
    const tram_socket_address *name = tram_transport_get_extra_info(transport, "sockname", NULL);
    assert_non_null(name);
    assert_int_equal(name->address.ss_family, AF_UNIX);
    close(fds[1]);
}

static int no_delay(int fd) {
    int value = 0;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
    return value;
}

static void test_T_14_tcp_transports_do_not_delay_other_families_are_left_alone(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new(world, recorder_new(world, "tcp"));
    assert_true(no_delay(wire.fd));
    assert_false(no_delay(wire.peer));
    close(wire.peer);

    int fds[2];
    unix_pair(fds);
    struct recorder *recorder = recorder_new(world, "unix");
    transport_new(world, fds[0], recorder);
    close(fds[1]);
    run_until(world, &recorder->was_released);
    assert_non_null(strstr(world->trace, "unix.lost:0"));
}

/* ---- Switching the protocol ---- */

static int switch_at(struct recorder *recorder, const char *event) {
    struct recorder *next = recorder->arg;
    if (strcmp(event, recorder->bytes) == 0) { /* the event's name: nothing is kept by these */
        tram_transport *transport = recorder->base.transport;
        if (strcmp(event, "lost") == 0) { /* too late: nothing would ever tell the new one of the end */
            assert_int_equal(tram_transport_set_protocol(transport, &next->base), TRAM_ESTATE);
            assert_ptr_equal(tram_transport_get_protocol(transport), &recorder->base);
            return 0;
        }
        assert_int_equal(tram_transport_set_protocol(transport, &next->base), 0);
        assert_ptr_equal(tram_transport_get_protocol(transport), &next->base);
        assert_ptr_equal(next->base.transport, transport);
        assert_null(recorder->base.transport);
    }
    return strcmp(event, "eof") == 0;
}

static void test_T_12_set_protocol_switches_at_once_in_any_callback(void **state) {
    struct world *world = *state;
    static const struct {
        const char *event;
        const char *expected;
    } cases[] = {
        {"made", "a.made a.released b.data:1 b.pause b.resume b.eof b.lost:0 b.released"},
        {"data", "a.made a.data:1 b.pause a.released b.resume b.eof b.lost:0 b.released"},
        {"pause", "a.made a.data:1 a.pause a.released b.resume b.eof b.lost:0 b.released"},
        {"resume", "a.made a.data:1 a.pause a.resume a.released b.eof b.lost:0 b.released"},
        {"eof", "a.made a.data:1 a.pause a.resume a.eof a.released b.lost:0 b.released"},
        {"lost", "a.made a.data:1 a.pause a.resume a.eof a.lost:0 a.released"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
        b->eof_returns = 1;
        a->arg = b;
        a->on = switch_at;
        strcpy(a->bytes, cases[i].event);
        struct wire wire = wire_new(world, a);
        run_ticks(world, 1);
        say(wire.peer, "x");
        run_until_traced(world, "data");
        fill(wire.transport, 65536);
        char bytes[65536];
        for (size_t left = accepted(world, wire.transport); tram_transport_get_write_buffer_size(wire.transport);) {
            size_t part = left < sizeof bytes ? left : sizeof bytes;
            receive_exactly(world, wire.peer, bytes, part);
            left -= part;
            run_ticks(world, 1);
        }
        run_until_traced(world, "resume");
        shutdown(wire.peer, SHUT_WR);
        run_until_traced(world, "eof");
        run_ticks(world, 1);
        assert_int_equal(tram_transport_close(wire.transport), 0);
        run_to_rest(world);
        assert_trace(world, cases[i].expected);
        close(wire.peer);
        world_reopen(world); /* accepted() counts from the loop's beginning */
    }
}

static void test_T_12_outside_of_callbacks_too_and_a_failure_changes_nothing(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    struct wire wire = wire_new_made(world, a);
    assert_ptr_equal(tram_transport_get_protocol(wire.transport), &a->base);
    tram_protocol without_ops = {0};
    assert_int_equal(tram_transport_set_protocol(wire.transport, NULL), TRAM_ETYPE);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &without_ops), TRAM_ETYPE);
    assert_ptr_equal(tram_transport_get_protocol(wire.transport), &a->base);
    /* The one it has already. */
    assert_int_equal(tram_transport_set_protocol(wire.transport, &a->base), 0);
    assert_ptr_equal(a->base.transport, wire.transport);
    say(wire.peer, "x");
    run_until_traced(world, "data");
    run_to_rest(world);
    assert_trace(world, "a.data:1");

    tram_transport_hold(wire.transport);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &b->base), 0);
    assert_trace(world, ""); /* released is queued */
    assert_ptr_equal(tram_transport_get_protocol(wire.transport), &b->base);
    assert_null(a->base.transport);
    run_to_rest(world);
    assert_trace(world, "a.released");
    close(wire.peer);
    run_until(world, &b->was_released);
    assert_trace(world, "b.eof b.lost:0 b.released");
    assert_null(b->base.transport);

    /* An ended transport takes no protocol. */
    assert_null(tram_transport_get_protocol(wire.transport));
    struct recorder *c = recorder_new(world, "c");
    assert_int_equal(tram_transport_set_protocol(wire.transport, &c->base), TRAM_ESTATE);
    tram_transport_release(wire.transport);
    run_to_rest(world);
    assert_trace(world, "");
}

static void test_T_12_X_4_a_protocol_that_is_set_again_before_it_was_released_is_kept(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b"), *c = recorder_new(world, "c");
    struct wire wire = wire_new_made(world, a);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &b->base), 0);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &c->base), 0);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &a->base), 0);
    assert_ptr_equal(a->base.transport, wire.transport);
    run_to_rest(world);
    assert_trace(world, "b.released c.released");
    assert_ptr_equal(a->base.transport, wire.transport);
    close(wire.peer);
    run_until(world, &a->was_released);
    assert_trace(world, "a.eof a.lost:0 a.released");

    /* Each place in the queue. */
    struct recorder *d[5];
    for (int again = 0; again < 4; again++) {
        const char *expected[] = {"2.released 3.released 4.released", "1.released 3.released 4.released",
                                  "1.released 2.released 4.released", "1.released 2.released 3.released"};
        static const char *const names[] = {"1", "2", "3", "4"};
        for (int i = 0; i < 4; i++)
            d[i] = recorder_new(world, names[i]);
        d[4] = recorder_new(world, "last");
        wire = wire_new_made(world, d[0]);
        for (int i = 1; i < 5; i++)
            assert_int_equal(tram_transport_set_protocol(wire.transport, &d[i]->base), 0);
        assert_int_equal(tram_transport_set_protocol(wire.transport, &d[again]->base), 0);
        run_to_rest(world);
        char text[128];
        snprintf(text, sizeof text, "%s last.released", expected[again]);
        assert_trace(world, text);
        assert_int_equal(tram_transport_abort(wire.transport), 0);
        run_to_rest(world);
        snprintf(text, sizeof text, "%s.lost:0 %s.released", names[again], names[again]);
        assert_trace(world, text);
        close(wire.peer);
    }
}

static int set_again_when_released(struct recorder *recorder, const char *event) {
    struct recorder **pair = recorder->arg;
    if (strcmp(event, "released") == 0)
        assert_int_equal(tram_transport_set_protocol(pair[0]->base.transport, &pair[1]->base), 0);
    return 0;
}

static void test_T_12_X_4_released_may_set_a_protocol_that_waits_for_its_own(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b"), *c = recorder_new(world, "c"),
                    *d = recorder_new(world, "d");
    struct wire wire = wire_new_made(world, a);
    struct recorder *pair[] = {d, c};
    a->on = set_again_when_released;
    a->arg = pair;
    assert_int_equal(tram_transport_set_protocol(wire.transport, &b->base), 0);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &c->base), 0);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &d->base), 0);
    run_to_rest(world);
    assert_trace(world, "a.released b.released d.released");
    close(wire.peer);
    run_until(world, &c->was_released);
    assert_trace(world, "c.eof c.lost:0 c.released");
}

static int switch_at_data(struct recorder *recorder, const char *event) {
    struct recorder *next = recorder->arg;
    if (strcmp(event, "data") == 0 || strcmp(event, "updated") == 0)
        assert_int_equal(tram_transport_set_protocol(recorder->base.transport, &next->base), 0);
    return 0;
}

static void test_T_13_switching_to_a_buffered_protocol_and_back_counts_from_the_next_read_on(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    calls->receive_limit = 4;
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new_buffered(world, "b"),
                    *c = recorder_new(world, "c");
    a->on = b->on = switch_at_data;
    a->arg = b;
    b->arg = c;
    a->keep = b->keep = c->keep = true;
    struct wire wire = wire_new_made(world, a);
    say(wire.peer, "hello, world");
    await_events(wire.fd, POLLIN);
    run_to_rest(world);
    assert_trace(world, "a.data:4 a.released b.get_buffer b.updated:4 b.released c.data:4");
    assert_memory_equal(a->bytes, "hell", 4);
    assert_memory_equal(b->bytes, "o, w", 4);
    assert_memory_equal(c->bytes, "orld", 4);
    close(wire.peer);
}

static int switch_in_get_buffer(struct recorder *recorder, const char *event) {
    struct recorder *next = recorder->arg;
    if (strcmp(event, "get_buffer") == 0)
        assert_int_equal(tram_transport_set_protocol(recorder->base.transport, &next->base), 0);
    return 0;
}

static void test_T_13_T_12_switching_inside_get_buffer_gives_the_bytes_to_the_new_protocol(void **state) {
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *a = recorder_new_buffered(world, "a");
        struct recorder *b = buffered ? recorder_new_buffered(world, "b") : recorder_new(world, "b");
        a->on = switch_in_get_buffer;
        a->arg = b;
        b->keep = true;
        struct wire wire = wire_new_made(world, a);
        say(wire.peer, "hello");
        await_events(wire.fd, POLLIN);
        run_to_rest(world);
        assert_trace(world, buffered ? "a.get_buffer a.released b.get_buffer b.updated:5"
                                     : "a.get_buffer a.released b.data:5");
        assert_memory_equal(b->bytes, "hello", 5);
        close(wire.peer);
        run_until(world, &b->was_released);
        world->trace[0] = '\0';
    }
}

/* ---- Fatal errors ---- */

static int close_and_fail(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    assert_int_equal(tram_transport_close(recorder->base.transport), 0);
    return tram_loop_raise(recorder->world->loop, TRAM_EUSER, recorder, "after the close");
}

static void test_T_16_a_fatal_error_drops_what_is_unsent_and_stops_reading(void **state) {
    struct world *world = *state;
    struct calls *calls = world_count_calls(world);
    calls->receive_limit = 1;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = fail_with_own_code;
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 60000);
    say(wire.peer, "xyz");
    await_events(wire.fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "data:1");
    assert_int_equal(tram_transport_get_write_buffer_size(wire.transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:TRAM_EUSER released");
    assert_int_equal(calls->receives, 1);
    close(wire.peer);
}

static void test_T_16_a_flush_after_a_close_can_end_in_an_error(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 0);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_ticks(world, 2);
    assert_trace(world, "");
    close_with_reset(wire.peer);
    run_until(world, &recorder->was_released);
    assert_true(recorder->lost_code == -EPIPE || recorder->lost_code == -ECONNRESET);
    assert_int_equal(world->exceptions, 0);
}

static void test_T_16_an_error_after_the_end_is_certain_is_reported_and_changes_nothing(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = close_and_fail;
    struct wire wire = wire_new_made(world, recorder);
    say(wire.peer, "x");
    run_until_traced(world, "released");
    assert_trace(world, "data:1 reported:TRAM_EUSER lost:0 released");
    assert_ptr_equal(world->exception_user, recorder);
    close(wire.peer);

    /* With something to flush nothing was certain. */
    recorder = recorder_new(world, NULL);
    recorder->on = close_and_fail;
    wire = wire_new_made(world, recorder);
    fill(wire.transport, 0);
    say(wire.peer, "x");
    run_until_traced(world, "released");
    assert_trace(world, "data:1 reported:TRAM_EUSER lost:TRAM_EUSER released");
    assert_ptr_equal(recorder->lost_user, recorder);
    close(wire.peer);
}

static int end_what_failed(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)loop;
    close_or_abort(exception->transport, *(const unsigned *)arg);
    return 0;
}

static void test_T_16_T_17_the_report_comes_first_and_its_handler_may_end_the_transport(void **state) {
    struct world *world = *state;
    for (unsigned abort = 0; abort < 2; abort++) {
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_with_own_code;
        struct wire wire = wire_new_made(world, recorder);
        assert_int_equal(tram_loop_set_exception_handler(world->loop, end_what_failed, &abort), 0);
        say(wire.peer, "x");
        run_until_traced(world, "released");
        assert_trace(world, "data:1 lost:0 released"); /* as in asyncio: the handler was first */
        close(wire.peer);
    }
}

static int fail_with_given_code(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? *(const int *)recorder->arg : 0;
}

static void test_T_17_errors_of_the_system_are_not_reported_others_are(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    static const struct {
        int code;
        const char *expected;
    } cases[] = {
        {-ECONNRESET, "data:1 lost:ECONNRESET released"},
        {-EPIPE, "data:1 lost:EPIPE released"},
        {-EIO, "data:1 lost:EIO released"},
        {TRAM_EUSER, "data:1 reported:TRAM_EUSER lost:TRAM_EUSER released"},
        {TRAM_EVALUE, "data:1 reported:TRAM_EVALUE lost:TRAM_EVALUE released"},
        {TRAM_ETIMEOUT, "data:1 reported:TRAM_ETIMEOUT lost:TRAM_ETIMEOUT released"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_with_given_code;
        recorder->arg = (void *)(uintptr_t)&cases[i].code;
        struct wire wire = wire_new_made(world, recorder);
        world->exception_transport = NULL;
        world->exception_protocol = NULL;
        say(wire.peer, "x");
        run_until_traced(world, "released");
        assert_trace(world, cases[i].expected);
        bool reported = cases[i].code < -4096;
        assert_ptr_equal(world->exception_transport, reported ? wire.transport : NULL);
        assert_ptr_equal(world->exception_protocol, reported ? &recorder->base : NULL);
        close(wire.peer);
    }
    assert_int_equal(world->debugs, 0);
    assert_int_equal(world->errors, 0);
}

static void test_T_17_a_hard_limit_that_was_exceeded_is_reported(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 5000);
    assert_int_equal(tram_transport_set_write_hard_limit(wire.transport, 5000), 0);
    run_ticks(world, 1);
    assert_trace(world, "reported:TRAM_ELIMIT lost:TRAM_ELIMIT released");
    assert_ptr_equal(world->exception_transport, wire.transport);
    assert_ptr_equal(world->exception_protocol, &recorder->base);
    close(wire.peer);
}

static void test_T_17_debug_mode_logs_errors_of_the_system(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    world->log[0] = '\0';
    close_with_reset(wire.peer);
    run_until_traced(world, "released");
    assert_trace(world, "lost:ECONNRESET released");
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(world->errors + world->warnings, 0);
    assert_ptr_not_equal(strstr(world->log, tram_error_text(-ECONNRESET)), NULL);
}

static int close_and_fail_like_the_system(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    assert_int_equal(tram_transport_close(recorder->base.transport), 0);
    return -EIO;
}

static void test_T_16_T_17_debug_mode_logs_them_after_the_end_is_certain_too(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = close_and_fail_like_the_system;
    struct wire wire = wire_new_made(world, recorder);
    say(wire.peer, "x");
    run_until_traced(world, "released");
    assert_trace(world, "data:1 lost:0 released");
    assert_int_equal(world->exceptions, 0);
    assert_ptr_not_equal(strstr(world->log, tram_error_text(-EIO)), NULL);
    close(wire.peer);
}

/* ---- One descriptor, one transport ---- */

static void test_T_18_a_descriptor_in_use_is_refused_and_left_alone(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, "a"), *second = recorder_new(world, "b");
    struct wire wire = wire_new_made(world, recorder);
    tram_transport *transport = NULL;
    assert_int_equal(transport_try_new(world, wire.fd, &second->base, NULL, &transport), TRAM_ESTATE);
    assert_null(transport);
    fill(wire.transport, 0);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    assert_int_equal(transport_try_new(world, wire.fd, &second->base, NULL, &transport), TRAM_ESTATE);
    assert_null(transport);
    run_ticks(world, 2);
    assert_trace(world, ""); /* the first goes on, the second's protocol hears nothing */
    drain(world, wire.peer);
    run_until(world, &recorder->was_released);
    assert_trace(world, "a.lost:0 a.released");
    close(wire.peer);

    /* Afterwards the number is free. */
    int fds[2];
    tcp_pair(fds);
    assert_int_equal(dup3(fds[0], wire.fd, O_CLOEXEC), wire.fd == fds[0] ? -1 : wire.fd);
    if (wire.fd != fds[0])
        close(fds[0]);
    assert_int_equal(transport_try_new(world, wire.fd, &second->base, NULL, &transport), 0);
    say(fds[1], "x");
    run_until_traced(world, "data");
    assert_trace(world, "b.made b.data:1");
    close(fds[1]);
}

/* ---- Events that this tick's poll collected already ---- */

/*
 * Two transports, both with an event in the same poll; whichever comes first does something to the other. Their order
 * is the kernel's, so the traces are told from the view of the first.
 */
struct duel {
    struct world *world;
    struct wire wires[2];
    struct recorder *spare; /* for set_protocol */
    int (*action)(tram_transport *transport, struct duel *duel);
    const char *event;
    int first; /* who came first; -1: none yet */
};

static int duel_on(struct recorder *recorder, const char *event) {
    struct duel *duel = recorder->arg;
    if (duel->first >= 0 || strcmp(event, duel->event) != 0)
        return 0;
    duel->first = recorder == duel->wires[1].recorder;
    assert_int_equal(duel->action(duel->wires[!duel->first].transport, duel), 0);
    return 0;
}

static int duel_close(tram_transport *transport, struct duel *duel) {
    (void)duel;
    return tram_transport_close(transport);
}

static int duel_abort(tram_transport *transport, struct duel *duel) {
    (void)duel;
    return tram_transport_abort(transport);
}

static int duel_pause(tram_transport *transport, struct duel *duel) {
    (void)duel;
    return tram_transport_pause_reading(transport);
}

static int duel_switch(tram_transport *transport, struct duel *duel) {
    return tram_transport_set_protocol(transport, &duel->spare->base);
}

enum duel_event { DUEL_DATA, DUEL_EOF };

/* Fights it out and compares what the first said in that tick, then what the second did afterwards. */
static void fight(struct world *world, int (*action)(tram_transport *, struct duel *), bool buffered,
                  enum duel_event event, const char *expected[2][2]) {
    struct duel duel = {.world = world, .action = action, .first = -1};
    static const char *const names[] = {"0", "1"};
    duel.spare = action == duel_switch && !buffered ? recorder_new_buffered(world, "new") : recorder_new(world, "new");
    duel.event = event == DUEL_EOF ? "eof" : buffered ? "updated" : "data";
    for (int i = 0; i < 2; i++) {
        struct recorder *recorder = buffered ? recorder_new_buffered(world, names[i]) : recorder_new(world, names[i]);
        recorder->on = duel_on;
        recorder->arg = &duel;
        recorder->eof_returns = 1;
        duel.wires[i] = wire_new_made(world, recorder);
    }
    for (int i = 0; i < 2; i++) {
        if (event == DUEL_EOF)
            shutdown(duel.wires[i].peer, SHUT_WR);
        else
            say(duel.wires[i].peer, "x");
        await_events(duel.wires[i].fd, event == DUEL_EOF ? POLLRDHUP : POLLIN);
    }
    run_ticks(world, 1);
    assert_true(duel.first >= 0);
    assert_trace(world, expected[duel.first][0]);
    run_to_rest(world);
    assert_trace(world, expected[duel.first][1]);
    for (int i = 0; i < 2; i++) {
        close_with_reset(duel.wires[i].peer);
        duel.wires[i].recorder->on = NULL;
    }
    world_reopen(world);
    world->trace[0] = '\0';
}

#define FROM_BOTH(now, later)                                                                                          \
    (const char *[2][2]) {                                                                                             \
        {now("0", "1"), later("0", "1")}, {                                                                            \
            now("1", "0"), later("1", "0")                                                                             \
        }                                                                                                              \
    }
#define FIRST_HAS_DATA(a, b)     a ".data:1"
#define FIRST_HAS_EOF(a, b)      a ".eof"
#define FIRST_IS_UPDATED(a, b)   a ".get_buffer " a ".updated:1"
#define SECOND_IS_LOST(a, b)     b ".lost:0 " b ".released"
#define NOTHING(a, b)            ""
#define NEW_ONE_IS_UPDATED(a, b) a ".data:1 new.get_buffer new.updated:1"
#define NEW_ONE_HAS_DATA(a, b)   a ".get_buffer " a ".updated:1 new.data:1"
#define SECOND_IS_RELEASED(a, b) b ".released"

static void test_T_19_a_close_or_abort_by_another_transport_stops_a_collected_event(void **state) {
    struct world *world = *state;
    int (*const actions[])(tram_transport *, struct duel *) = {duel_close, duel_abort};
    for (int i = 0; i < 2; i++) {
        fight(world, actions[i], false, DUEL_DATA, FROM_BOTH(FIRST_HAS_DATA, SECOND_IS_LOST));
        fight(world, actions[i], true, DUEL_DATA, FROM_BOTH(FIRST_IS_UPDATED, SECOND_IS_LOST));
        fight(world, actions[i], false, DUEL_EOF, FROM_BOTH(FIRST_HAS_EOF, SECOND_IS_LOST));
    }
}

static void test_T_19_R_3_a_pause_by_another_transport_stops_a_collected_event(void **state) {
    struct world *world = *state;
    fight(world, duel_pause, false, DUEL_DATA, FROM_BOTH(FIRST_HAS_DATA, NOTHING));
    fight(world, duel_pause, true, DUEL_DATA, FROM_BOTH(FIRST_IS_UPDATED, NOTHING));
    fight(world, duel_pause, false, DUEL_EOF, FROM_BOTH(FIRST_HAS_EOF, NOTHING));
}

static void test_T_19_T_13_a_switch_by_another_transport_directs_a_collected_event(void **state) {
    struct world *world = *state;
    fight(world, duel_switch, false, DUEL_DATA, FROM_BOTH(NEW_ONE_IS_UPDATED, SECOND_IS_RELEASED));
    fight(world, duel_switch, true, DUEL_DATA, FROM_BOTH(NEW_ONE_HAS_DATA, SECOND_IS_RELEASED));
}

static int abort_at_once(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") == 0)
        assert_int_equal(tram_transport_abort(recorder->base.transport), 0);
    return 0;
}

static void test_T_19_an_abort_in_data_received_stops_the_write_event_that_came_with_it(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = abort_at_once;
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 65536);
    /* Both directions get ready without the loop. */
    char bytes[65536];
    struct pollfd poll_fd = {.fd = wire.fd, .events = POLLOUT};
    while (poll(&poll_fd, 1, 0) == 0)
        if (recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT) < 0)
            await_events(wire.peer, POLLIN);
    say(wire.peer, "x");
    await_events(wire.fd, POLLIN);
    run_ticks(world, 1);
    assert_trace(world, "pause data:1");
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    close(wire.peer);
}

/* ---- Lives ---- */

static void test_X_9_a_held_transport_is_inert_after_its_end(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    tram_transport *transport = tram_transport_hold(wire.transport);
    assert_ptr_equal(tram_transport_hold(transport), transport);
    assert_int_equal(tram_transport_abort(transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    assert_false(is_open(wire.fd));
    tram_transport_release(transport);

    struct iovec piece = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_writelines(transport, &piece, 1), 0);
    assert_int_equal(tram_transport_close(transport), 0);
    assert_int_equal(tram_transport_abort(transport), 0);
    assert_int_equal(tram_transport_pause_reading(transport), 0);
    assert_int_equal(tram_transport_resume_reading(transport), 0);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
    assert_int_equal(tram_transport_set_write_hard_limit(transport, 1), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_false(tram_transport_is_reading(transport));
    assert_null(tram_transport_get_protocol(transport));
    assert_ptr_equal(tram_transport_get_loop(transport), world->loop);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(world->exceptions, 0);
    tram_transport_release(transport);
    close(wire.peer);
}

static int hold_and_release(struct recorder *recorder, const char *event) {
    if (strcmp(event, "released") != 0) {
        tram_transport_hold(recorder->arg);
        tram_transport_release(recorder->arg);
    }
    return 0;
}

static void test_X_9_holds_that_are_given_back_leave_the_open_connection_alone(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new(world, recorder);
    recorder->arg = wire.transport;
    recorder->on = hold_and_release;
    tram_transport_hold(wire.transport);
    tram_transport_release(wire.transport);
    run_ticks(world, 1);
    say(wire.peer, "x");
    run_until_traced(world, "data");
    close(wire.peer);
    run_until_traced(world, "released");
    assert_trace(world, "made data:1 eof lost:0 released");
}

static void test_X_10_a_transport_that_is_released_while_open_is_closed_and_reported(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    fill(wire.transport, 60000);
    size_t total = accepted(world, wire.transport);
    tram_transport_release(wire.transport); /* the open connection's own hold */
    assert_true(tram_transport_is_closing(wire.transport));
    assert_int_equal(world->warnings, 1);
    assert_int_equal(drain(world, wire.peer), total);
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:0 released");
    close(wire.peer);
}

static void test_X_10_a_transport_open_when_its_loop_is_closed_is_closed_and_reported(void **state) {
    struct world *world = *state;
    struct recorder *made = recorder_new(world, "a"), *queued = recorder_new(world, "b");
    struct wire first = wire_new_made(world, made);
    fill(first.transport, 0);
    struct wire second = wire_new(world, queued);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(world->warnings, 1);
    if (strncmp(world->trace, "b.", 2) == 0)
        assert_trace(world, "b.released a.lost:TRAM_ECANCELLED a.released");
    else
        assert_trace(world, "a.lost:TRAM_ECANCELLED a.released b.released");
    assert_false(is_open(first.fd));
    assert_false(is_open(second.fd));
    close(first.peer);
    close(second.peer);
}

/* close(2) would wait for a peer that reads nothing, blocking or not. */
static void test_T_11_a_time_of_SO_LINGER_does_not_hold_the_loop(void **state) {
    struct world *world = *state;
    const struct linger linger = {.l_onoff = 1, .l_linger = 5};
    for (int given = 0; given < 2; given++) {
        int fds[2];
        tcp_pair(fds);
        if (given)
            assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport = transport_new(world, fds[0], recorder);
        run_ticks(world, 1);
        if (!given) {
            const tram_socket *sock = tram_transport_get_extra_info(transport, "socket", NULL);
            assert_int_equal(setsockopt(sock->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        }
        fill(transport, 1);
        uint64_t start = tram_loop_time(world->loop);
        tram_transport_abort(transport);
        run_until(world, &recorder->was_released);
        assert_true(tram_loop_time(world->loop) - start < 2500000000u);
        close(fds[1]);
        world->trace[0] = '\0';
    }
}

/* ---- The log function of debug mode may call anything ---- */

/* Calls `call` when a line with `word` comes, and counts these lines. */
struct logger {
    struct world *world;
    const char *word;
    void (*call)(void);
    tram_transport *transport;
    tram_future *creation;
    unsigned lines;
};

static struct logger logger; /* the loop has it until it is freed, after the test */

static void log_and_call(void *arg, tram_log_level level, const char *line) {
    (void)arg;
    (void)level;
    if (!strstr(line, logger.word))
        return;
    logger.lines++;
    logger.call();
}

static void abort_it(void) {
    assert_int_equal(tram_transport_abort(logger.transport), 0);
}

/* Its end is queued once: between two times the other would be lost. */
static void abort_it_and_make_another(void) {
    static const tram_custom_ops ops = {.writelines = NULL};
    struct recorder *other = recorder_new(logger.world, "other");
    abort_it();
    logger.word = "nothing else";
    assert_int_equal(tram_loop_create_custom(logger.world->loop, &ops, NULL, &other->base, NULL), 0);
}

static void close_it(void) {
    assert_int_equal(tram_transport_close(logger.transport), 0);
}

/* More than the high mark. */
static void write_much(void) {
    static const char bytes[300000];
    assert_int_equal(tram_transport_write(logger.transport, bytes, sizeof bytes), 0);
}

static void cancel_it(void) {
    assert_int_equal(tram_future_cancel(logger.creation), 1);
}

static void reopen_with_logger(struct world *world) {
    world->options.log = log_and_call;
    world->options.log_arg = NULL;
    world_reopen(world);
}

static int sink_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport, (void)state, (void)pieces, (void)count;
    return 0; /* all of it is queued for ever */
}

/* Of a custom transport its maker knows before connection_made. */
static void custom_new(struct world *world) {
    static const tram_custom_ops ops = {.writelines = sink_writelines};
    reopen_with_logger(world);
    struct recorder *recorder = recorder_new(world, NULL);
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &logger.transport), 0);
}

static void test_P_1_T_3_the_log_function_may_end_a_transport_that_is_being_made(void **state) {
    struct world *world = *state;
    void (*const calls[])(void) = {abort_it, close_it, abort_it_and_make_another};
    for (size_t i = 0; i < 3; i++) {
        logger = (struct logger){.world = world, .word = "made on", .call = calls[i]};
        custom_new(world);
        run_to_rest(world);
        assert_int_equal(logger.lines, 1);
        assert_trace(world, i < 2 ? "made lost:0 released" : "made other.made lost:0 released");
    }
}

static void test_W_5_T_3_the_log_function_may_end_one_whose_send_failed(void **state) {
    struct world *world = *state;
    void (*const calls[])(void) = {abort_it, close_it};
    for (size_t i = 0; i < 2; i++) {
        logger = (struct logger){.world = world, .word = "send failed", .call = calls[i]};
        reopen_with_logger(world);
        struct wire wire = wire_new_made(world, recorder_new(world, NULL));
        logger.transport = wire.transport;
        close_with_reset(wire.peer);
        await_events(wire.fd, POLLERR);
        write_much();
        write_much();
        run_until_traced(world, "released");
        assert_true(logger.lines >= 1);
        assert_null(strstr(world->trace, "lost:0 released lost"));
        world->trace[0] = '\0';
    }
}

static void test_P_1_what_the_log_function_writes_pauses_after_connection_made(void **state) {
    struct world *world = *state;
    logger = (struct logger){.word = "made on", .call = write_much};
    custom_new(world);
    run_to_rest(world);
    assert_int_equal(logger.lines, 1);
    assert_trace(world, "made pause");
    assert_int_equal(tram_transport_abort(logger.transport), 0);
    run_to_rest(world);
    assert_trace(world, "lost:0 released");
}

static void test_P_1_the_log_function_may_cancel_a_creation(void **state) {
    struct world *world = *state;
    logger = (struct logger){.word = "made on", .call = cancel_it};
    reopen_with_logger(world);
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &logger.creation),
                     0);
    run_to_rest(world);
    assert_int_equal(logger.lines, 1);
    assert_true(tram_future_cancelled(logger.creation));
    assert_trace(world, "released"); /* it was never made */
    assert_true(receive_eof(world, fds[1]));
    tram_future_release(logger.creation);
    close(fds[1]);
}

static void test_T_3_the_log_function_may_call_an_end_that_is_there(void **state) {
    struct world *world = *state;
    void (*const calls[])(void) = {abort_it, close_it, write_much};
    for (size_t i = 0; i < 6; i++) {
        bool at_close = i % 2; /* of the loop, where it says that the connection is still open too */
        logger = (struct logger){.word = "lost:", .call = calls[i / 2]};
        custom_new(world);
        run_to_rest(world);
        assert_trace(world, "made");
        if (at_close)
            logger.word = "connection";
        else
            abort_it();
        run_ticks(world, at_close ? 0 : 2);
        assert_int_equal(tram_loop_close(world->loop), 0);
        assert_int_equal(logger.lines, at_close ? 2 : 1);
        assert_trace(world, "lost:0 released");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name)  cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define DEBUG(name) cmocka_unit_test_setup_teardown(name, world_setup_debug, world_teardown)
        cmocka_unit_test_setup_teardown(test_T_11_a_time_of_SO_LINGER_does_not_hold_the_loop, world_setup,
                                        world_teardown),
        CASE(test_T_1_close_stops_reading_sends_what_is_buffered_then_ends),
        CASE(test_T_1_close_sends_all_that_was_written),
        CASE(test_T_2_is_closing_is_true_from_the_end_s_beginning_for_ever),
        CASE(test_T_3_any_mixture_of_closes_and_aborts_ends_once),
        CASE(test_T_4_abort_drops_what_is_unsent_and_does_not_wait),
        CASE(test_T_5_connection_lost_is_never_called_inside_close_or_abort),
        CASE(test_T_5_connection_lost_is_never_called_inside_write),
        CASE(test_T_6_P_16_the_descriptor_is_closed_after_connection_lost_whatever_it_returned),
        CASE(test_T_7_T_10_names_are_there_in_connection_lost_and_after_it),
        cmocka_unit_test_setup_teardown(test_T_10_names_are_fetched_at_the_end_for_who_holds, world_setup_faults,
                                        world_teardown),
        CASE(test_T_8_unread_input_at_a_close_is_left_to_the_kernel),
        CASE(test_T_9_an_unknown_key_gives_the_default),
        CASE(test_T_9_without_memory_it_gives_the_default_too),
        CASE(test_T_10_T_11_the_socket_is_a_view),
        CASE(test_T_12_set_protocol_switches_at_once_in_any_callback),
        CASE(test_T_12_outside_of_callbacks_too_and_a_failure_changes_nothing),
        CASE(test_T_12_X_4_a_protocol_that_is_set_again_before_it_was_released_is_kept),
        CASE(test_T_12_X_4_released_may_set_a_protocol_that_waits_for_its_own),
        CASE(test_T_13_switching_to_a_buffered_protocol_and_back_counts_from_the_next_read_on),
        CASE(test_T_13_T_12_switching_inside_get_buffer_gives_the_bytes_to_the_new_protocol),
        CASE(test_T_14_tcp_transports_do_not_delay_other_families_are_left_alone),
        CASE(test_T_16_a_fatal_error_drops_what_is_unsent_and_stops_reading),
        CASE(test_T_16_a_flush_after_a_close_can_end_in_an_error),
        CASE(test_T_16_an_error_after_the_end_is_certain_is_reported_and_changes_nothing),
        CASE(test_T_16_T_17_the_report_comes_first_and_its_handler_may_end_the_transport),
        CASE(test_T_17_errors_of_the_system_are_not_reported_others_are),
        CASE(test_T_17_a_hard_limit_that_was_exceeded_is_reported),
        DEBUG(test_T_17_debug_mode_logs_errors_of_the_system),
        DEBUG(test_T_16_T_17_debug_mode_logs_them_after_the_end_is_certain_too),
        DEBUG(test_P_1_T_3_the_log_function_may_end_a_transport_that_is_being_made),
        DEBUG(test_W_5_T_3_the_log_function_may_end_one_whose_send_failed),
        DEBUG(test_P_1_what_the_log_function_writes_pauses_after_connection_made),
        DEBUG(test_P_1_the_log_function_may_cancel_a_creation),
        DEBUG(test_T_3_the_log_function_may_call_an_end_that_is_there),
        CASE(test_T_18_a_descriptor_in_use_is_refused_and_left_alone),
        CASE(test_T_19_a_close_or_abort_by_another_transport_stops_a_collected_event),
        CASE(test_T_19_R_3_a_pause_by_another_transport_stops_a_collected_event),
        CASE(test_T_19_T_13_a_switch_by_another_transport_directs_a_collected_event),
        CASE(test_T_19_an_abort_in_data_received_stops_the_write_event_that_came_with_it),
        CASE(test_X_9_a_held_transport_is_inert_after_its_end),
        CASE(test_X_9_holds_that_are_given_back_leave_the_open_connection_alone),
        DEBUG(test_X_10_a_transport_that_is_released_while_open_is_closed_and_reported),
        DEBUG(test_X_10_a_transport_open_when_its_loop_is_closed_is_closed_and_reported),
    };
    return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
