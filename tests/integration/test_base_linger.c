/*
 * Rule W-31: a lingering close, on request and where a server makes the end: sent, then the sending side ended, then
 * what comes is dropped until the peer's end or a deadline.
 */
#include "core/loop/loop.h"
#include "support/faults.h"
#include "support/layers.h"
#include "support/stream.h"
#include "support/support.h"
#include "transports/base/transport.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS 1000000u

/* Both ends of a connection: a recorder with a transport, and a descriptor. */
static struct wire open_wire(struct world *world, bool tcp) {
    struct stream stream = stream_open_with(world, recorder_new(world, NULL), tcp);
    return (struct wire){.transport = stream.transport, .recorder = stream.recorder, .peer = stream.peer};
}

/* More than the kernels hold; how much. */
static size_t write_much(tram_transport *transport) {
    size_t size = 0;
    for (; tram_transport_get_write_buffer_size(transport) < 50000; size += 100000)
        assert_int_equal(write_pattern(transport, 100000, size), 0);
    return size;
}

/* A peer that sends on while it reads: it has all of the pattern, and then the end of the stream, or a reset. */
static bool reads_all(struct world *world, int peer, size_t size, bool sends_on) {
    static char bytes[65536];
    size_t offset = 0;
    for (int idle = 0; idle < 20000;) {
        if (sends_on)
            (void)!send(peer, "upload", 6, MSG_NOSIGNAL | MSG_DONTWAIT);
        ssize_t got = recv(peer, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0) {
            assert_pattern(bytes, (size_t)got, offset);
            offset += (size_t)got;
            continue;
        }
        if (got == 0 || errno != EAGAIN)
            return got == 0 && offset == size;
        idle++;
        run_ticks(world, 1);
        await_events(peer, POLLIN | POLLOUT);
    }
    return false;
}

static void end_peer(struct world *world, struct wire *wire) {
    close(wire->peer);
    run_until(world, &wire->recorder->was_released);
    assert_int_equal(wire->recorder->lost_code, 0);
    world->trace[0] = '\0';
}

/* ---- On request ---- */

static void test_W_31_a_peer_that_sends_on_has_all_of_the_answer(void **state) {
    struct world *world = *state;
    for (int tcp = 0; tcp < 2; tcp++) {
        struct wire wire = open_wire(world, tcp);
        size_t size = write_much(wire.transport);
        assert_int_equal(tram_transport_close_lingering(wire.transport, 0), 0);
        assert_true(tram_transport_is_closing(wire.transport));
        send_exactly(world, wire.peer, "upload", 6);
        assert_true(reads_all(world, wire.peer, size, true));
        assert_false(wire.recorder->lost);
        end_peer(world, &wire);
        assert_int_equal(wire.recorder->received, 0);
    }
}

/* What it is for: a close alone resets, and what the kernel held is lost. */
static void test_W_31_a_close_alone_loses_what_the_peer_has_not_read(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    send_exactly(NULL, wire.peer, "upload", 6);
    await_events(wire.transport->io.fd, POLLIN);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    run_until(world, &wire.recorder->lost);
    assert_false(receive_eof(world, wire.peer));
    end_peer(world, &wire);
}

static void test_W_31_it_ends_with_the_peers_stream(void **state) {
    struct world *world = *state;
    for (int how = 0; how < 2; how++) {
        struct wire wire = open_wire(world, true);
        assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
        send_exactly(NULL, wire.peer, "dropped", 7);
        assert_true(receive_eof(world, wire.peer));
        run_to_rest(world);
        assert_trace(world, "");
        if (how)
            close_with_reset(wire.peer);
        else
            close(wire.peer);
        run_until(world, &wire.recorder->was_released);
        assert_trace(world, "lost:0 released");
    }
}

static void test_W_31_it_has_a_deadline(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    uint64_t before = tram_loop_time(world->loop);
    assert_int_equal(tram_transport_close_lingering(wire.transport, 30 * MS), 0);
    run_until(world, &wire.recorder->lost);
    assert_true(tram_loop_time(world->loop) - before >= 30 * MS);
    assert_true(receive_eof(world, wire.peer));
    end_peer(world, &wire);
}

static int close_on_eof(struct recorder *recorder, const char *event) {
    return strcmp(event, "eof") == 0 ? tram_transport_close_lingering(recorder->base.transport, TRAM_FOREVER) : 0;
}

static void test_W_31_a_peer_that_has_ended_is_not_waited_for(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    wire.recorder->eof_returns = 1;
    wire.recorder->on = close_on_eof;
    shutdown(wire.peer, SHUT_WR);
    run_until(world, &wire.recorder->lost);
    assert_trace(world, "eof lost:0 released");
    close(wire.peer);
}

static void test_W_31_a_paused_transport_drops_what_comes(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    tram_transport_pause_reading(wire.transport);
    send_exactly(NULL, wire.peer, "unread", 6);
    assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
    shutdown(wire.peer, SHUT_WR);
    run_until(world, &wire.recorder->lost);
    assert_trace(world, "lost:0 released");
    assert_true(receive_eof(world, wire.peer));
    close(wire.peer);
}

static void test_W_31_W_5_after_a_send_that_failed_nothing_is_waited_for(void **state) {
    struct world *world = *state;
    world_use_sys(world, faults_sys());
    struct wire wire = open_wire(world, true);
    fail_next(&faults.send, EPIPE, 1);
    assert_int_equal(tram_transport_write(wire.transport, "answer", 6), 0);
    assert_int_equal(tram_transport_close_lingering(wire.transport, 0), 0);
    run_ticks(world, 2);
    assert_true(wire.recorder->lost);
    assert_int_equal(wire.recorder->lost_code, -EPIPE);
    assert_int_equal(faults.shutdown.calls, 0);
    close(wire.peer);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void test_W_31_W_6_writes_are_dropped_meanwhile(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    uint64_t dropped = world->loop->stats.dropped_writes;
    write_pattern(wire.transport, 10, 0);
    assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
    assert_int_equal(write_pattern(wire.transport, 10, 10), 0);
    assert_int_equal(world->loop->stats.dropped_writes, dropped + 1);
    assert_int_equal(tram_transport_get_write_buffer_size(wire.transport), 0);
    assert_int_equal(tram_transport_write_eof(wire.transport), 0);
    assert_true(reads_all(world, wire.peer, 10, false));
    end_peer(world, &wire);
}

static void test_W_31_W_6_descriptors_are_dropped_meanwhile(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, false);
    int fd = wire.transport->io.fd;
    uint64_t dropped = world->loop->stats.dropped_writes;
    assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
    assert_int_equal(tram_transport_send_fds(wire.transport, "x", 1, &fd, 1), 0);
    assert_int_equal(world->loop->stats.dropped_writes, dropped + 1);
    assert_true(receive_eof(world, wire.peer));
    end_peer(world, &wire);
}

/* As long as bytes are queued it is a close like any other (W-7). */
static void test_W_31_W_7_a_close_that_still_flushes_may_be_made_to_linger(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    size_t size = write_much(wire.transport);
    assert_int_equal(tram_transport_close(wire.transport), 0);
    assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
    write_pattern(wire.transport, 10, size);
    assert_true(reads_all(world, wire.peer, size + 10, true));
    end_peer(world, &wire);
}

static int use(struct recorder *recorder, const char *event) {
    fail_msg("%s of the old protocol (%s)", event, recorder->name);
    return 0;
}

static void test_W_31_whoever_changes_the_protocol_changes_nothing(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    struct recorder *next = recorder_new_buffered(world, "next");
    assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
    assert_int_equal(tram_transport_set_protocol(wire.transport, &next->base), 0);
    run_until(world, &wire.recorder->was_released);
    wire.recorder->on = use;
    send_exactly(world, wire.peer, "dropped", 7);
    close(wire.peer);
    run_until(world, &next->was_released);
    assert_trace(world, "released next.lost:0 next.released");
}

/* ---- Cut short ---- */

static void by_abort(struct world *world, struct wire *wire) {
    (void)world;
    tram_transport_abort(wire->transport);
}

static void by_end_of_grace(struct world *world, struct wire *wire) {
    (void)world;
    tram__transport_ending(wire->transport, IO_SHUTDOWN_ABORT);
}

static void by_loop_close(struct world *world, struct wire *wire) {
    (void)wire;
    world_reopen(world);
}

static void test_W_31_W_30_all_was_sent_so_nothing_cuts_it(void **state) {
    static void (*const ends[])(struct world *, struct wire *) = {by_abort, by_end_of_grace, by_loop_close};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct wire wire = open_wire(world, true);
        write_pattern(wire.transport, 100, 0);
        assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
        run_to_rest(world);
        ends[i](world, &wire);
        assert_int_equal(world->loop->stats.expired_grace, 0);
        run_until(world, &wire.recorder->was_released);
        assert_true(reads_all(world, wire.peer, 100, false));
        end_peer(world, &wire);
    }
}

static void test_W_31_without_memory_nothing_happens(void **state) {
    struct world *world = *state;
    for (size_t after = 0; after < 2; after++) {
        struct wire wire = open_wire(world, true);
        world->fail_after = after;
        assert_int_equal(tram_transport_close_lingering(wire.transport, 0), -ENOMEM);
        world->fail_after = SIZE_MAX;
        assert_false(tram_transport_is_closing(wire.transport));
        tram_transport_close(wire.transport);
        end_peer(world, &wire);
    }
}

/* What has ended needs none. */
static void test_W_31_behind_the_end_nothing_is_wanted(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    assert_int_equal(tram_transport_abort(wire.transport), 0);
    world->fail_after = 0;
    assert_int_equal(tram_transport_close_lingering(wire.transport, 0), 0);
    world->fail_after = SIZE_MAX;
    end_peer(world, &wire);
}

/* ---- Where a server makes the end ---- */

static void test_W_31_V_42_who_is_closed_by_a_server_has_all(void **state) {
    struct world *world = *state;
    for (int tcp = 0; tcp < 2; tcp++)
        for (int asked = 0; asked < 2; asked++) {
            struct wire wire = open_wire(world, tcp);
            tram_transport_pause_reading(wire.transport);
            size_t size = write_much(wire.transport);
            send_exactly(NULL, wire.peer, "unread", 6);
            if (asked)
                tram__transport_ending(wire.transport, IO_SHUTDOWN_CLOSE);
            else
                tram__transport_close_gracefully(wire.transport);
            assert_true(reads_all(world, wire.peer, size, true));
            end_peer(world, &wire);
        }
}

/* Nothing is queued here, and nothing came; but the peer's kernel has no room for the rest. */
static void test_W_31_V_42_what_is_not_acknowledged_is_under_way(void **state) {
    struct world *world = *state;
    struct wire wire = open_wire(world, true);
    int under_way = 0;
    size_t size = 0;
    for (; under_way < 5000; size += 1000) {
        assert_int_equal(write_pattern(wire.transport, 1000, size), 0);
        assert_int_equal(tram_transport_get_write_buffer_size(wire.transport), 0);
        run_to_rest(world);
        assert_int_equal(ioctl(wire.transport->io.fd, SIOCOUTQ, &under_way), 0);
    }
    tram__transport_close_gracefully(wire.transport);
    run_ticks(world, 3);
    assert_false(wire.recorder->lost);
    assert_true(reads_all(world, wire.peer, size, true));
    end_peer(world, &wire);
}

/* Nothing is under way: a peer that does not see the end holds up no server. */
static void test_W_31_V_42_an_idle_connection_is_closed_at_once(void **state) {
    struct world *world = *state;
    for (int tcp = 0; tcp < 2; tcp++) {
        struct wire wire = open_wire(world, tcp);
        tram__transport_close_gracefully(wire.transport);
        run_ticks(world, 2);
        assert_trace(world, "lost:0 released");
        assert_true(receive_eof(NULL, wire.peer));
        close(wire.peer);
    }
}

static void test_W_31_V_42_an_end_by_a_server_needs_no_memory(void **state) {
    struct world *world = *state;
    for (size_t after = 0; after < 2; after++) {
        struct wire wire = open_wire(world, true);
        tram_transport_pause_reading(wire.transport);
        send_exactly(NULL, wire.peer, "unread", 6);
        world->fail_after = after;
        tram__transport_close_gracefully(wire.transport);
        world->fail_after = SIZE_MAX;
        run_ticks(world, 2);
        assert_trace(world, "lost:0 released");
        assert_true(receive_eof(NULL, wire.peer));
        close(wire.peer);
    }
}

static void test_W_31_who_cannot_end_its_side_does_not_linger(void **state) {
    struct world *world = *state;
    for (int arming = 0; arming < 2; arming++) {
        struct wire wire = open_wire(world, true);
        tram_transport_pause_reading(wire.transport);
        send_exactly(NULL, wire.peer, "unread", 6);
        run_to_rest(world); /* the kernel is told that nobody wants to know */
        if (arming)
            fail_next(&faults.arm_read, ENOMEM, 1);
        else
            fail_next(&faults.shutdown, ENOTCONN, 1);
        assert_int_equal(tram_transport_close_lingering(wire.transport, TRAM_FOREVER), 0);
        run_until(world, &wire.recorder->lost);
        end_peer(world, &wire);
        faults_sys();
    }
}

/* ---- What has layers, and what has no such thing ---- */

static bool a_is_closing_alone(void *arg) {
    const struct channel *channel = arg;
    return channel->b->lost && !channel->a->lost;
}

static void test_W_31_Y_8_layers_say_goodbye_first(void **state) {
    struct world *world = *state;
    for (enum carrier carrier = CARRIER_TCP; carrier <= CARRIER_UNIX; carrier++) {
        struct channel channel;
        channel_open_made(&channel, world, carrier, 2);
        channel.b->quiet_data = true;
        write_pattern(channel.first, 50000, 0);
        int copy = dup(channel.second->io.fd); /* the end of its stream does not come */
        assert_int_equal(tram_transport_close_lingering(channel.first, TRAM_FOREVER), 0);
        run_until_true(world, a_is_closing_alone, &channel);
        assert_int_equal(channel.b->received, 50000);
        send_exactly(NULL, copy, "no frame at all", 15);
        run_to_rest(world);
        assert_false(channel.a->lost);
        close(copy);
        run_until(world, &channel.a->was_released);
        assert_int_equal(channel.a->lost_code, 0);
        channel_close(&channel);
    }
}

static void test_W_31_a_pair_is_closed(void **state) {
    struct world *world = *state;
    struct channel channel;
    channel_open_bare(&channel, world, CARRIER_PAIR, recorder_new(world, "a"), recorder_new(world, "b"));
    run_to_rest(world);
    world->trace[0] = '\0';
    assert_int_equal(tram_transport_close_lingering(channel.first, TRAM_FOREVER), 0);
    run_until(world, &channel.a->was_released);
    run_until(world, &channel.b->was_released);
    assert_int_equal(channel.a->lost_code, 0);
    world->trace[0] = '\0';
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name)   cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define FAULTY(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
        TEST(test_W_31_a_peer_that_sends_on_has_all_of_the_answer),
        TEST(test_W_31_a_close_alone_loses_what_the_peer_has_not_read),
        TEST(test_W_31_it_ends_with_the_peers_stream),
        TEST(test_W_31_it_has_a_deadline),
        TEST(test_W_31_a_peer_that_has_ended_is_not_waited_for),
        TEST(test_W_31_a_paused_transport_drops_what_comes),
        TEST(test_W_31_W_5_after_a_send_that_failed_nothing_is_waited_for),
        TEST(test_W_31_W_6_writes_are_dropped_meanwhile),
        TEST(test_W_31_W_6_descriptors_are_dropped_meanwhile),
        TEST(test_W_31_W_7_a_close_that_still_flushes_may_be_made_to_linger),
        TEST(test_W_31_whoever_changes_the_protocol_changes_nothing),
        TEST(test_W_31_W_30_all_was_sent_so_nothing_cuts_it),
        TEST(test_W_31_without_memory_nothing_happens),
        TEST(test_W_31_behind_the_end_nothing_is_wanted),
        TEST(test_W_31_V_42_who_is_closed_by_a_server_has_all),
        TEST(test_W_31_V_42_what_is_not_acknowledged_is_under_way),
        TEST(test_W_31_V_42_an_idle_connection_is_closed_at_once),
        TEST(test_W_31_V_42_an_end_by_a_server_needs_no_memory),
        FAULTY(test_W_31_who_cannot_end_its_side_does_not_linger),
        TEST(test_W_31_Y_8_layers_say_goodbye_first),
        TEST(test_W_31_a_pair_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
