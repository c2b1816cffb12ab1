/*
 * Batches of datagrams: what rules D-7, D-12 and D-15 say of them, and how the kernel is made to cut and join. The
 * peer's sockets are plain ones, so what arrives there tells whether the cuts were right.
 */
#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "support/datagram.h"

#define BATCH 32 /* messages of one receive */

/* ---- Helpers ---- */

/* The peer sends `count` datagrams of `size` bytes as one message, which the kernel joins again if it may. */
static void peer_sends_joined(struct endpoint *endpoint, size_t total, uint16_t size) {
    static char bytes[65536];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control = {.header = {.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof size)}};
    memcpy(CMSG_DATA(&control.header), &size, sizeof size);
    pattern(bytes, total, 0);
    struct iovec piece = {.iov_base = bytes, .iov_len = total};
    struct msghdr message = {
        .msg_name = &endpoint->address.address,
        .msg_namelen = endpoint->address.size,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    assert_int_equal(sendmsg(endpoint->peer, &message, 0), total);
}

static bool kernel_cuts(void) {
    int value;
    socklen_t size = sizeof value;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    bool cuts = getsockopt(fd, SOL_UDP, UDP_SEGMENT, &value, &size) == 0;
    close(fd);
    return cuts;
}

static struct endpoint endpoint_that_joins(struct world *world) {
    if (!kernel_cuts())
        skip();
    return endpoint_open(world);
}

/* Sends `count` datagrams of `size` bytes between cork and uncork. */
static void send_corked(struct endpoint *endpoint, size_t count, size_t size, size_t offset) {
    assert_int_equal(tram_transport_cork(endpoint->transport), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(send_pattern(endpoint, size, offset + i * size), 0);
    assert_int_equal(tram_transport_uncork(endpoint->transport), 0);
}

static void expect_many(struct endpoint *endpoint, size_t count, size_t size, size_t offset) {
    for (size_t i = 0; i < count; i++)
        expect_pattern(endpoint, size, offset + i * size);
}

static bool has_kept_350(void *arg) {
    return ((struct recorder *)arg)->kept >= 350;
}

static void peer_has_nothing(struct endpoint *endpoint) {
    char byte;
    assert_int_equal(peer_takes(endpoint, &byte, 1), -1);
}

/* ---- Receiving ---- */

static int note_first(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") == 0 && recorder->datagrams == 1)
        return tram_loop_call_soon(recorder->world->loop, trace_callback, "soon", NULL, NULL);
    return 0;
}

static void test_D_7_a_readiness_event_delivers_one_batch(void **state) {
    calls_uninterrupted();
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    endpoint.recorder->on = note_first;
    endpoint.recorder->quiet_data = true;
    endpoint.recorder->keep = true;
    for (size_t i = 0; i < BATCH + 8; i++)
        peer_sends(&endpoint, 10, i * 10);
    run_ticks(world, 1);
    assert_int_equal(endpoint.recorder->datagrams, BATCH);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "soon"); /* between the batches */
    assert_int_equal(endpoint.recorder->datagrams, BATCH + 8);
    assert_int_equal(faults.recv.calls, 2); /* and no look whether there is more */
    assert_pattern(endpoint.recorder->bytes, (BATCH + 8) * 10, 0);
    endpoint_close(&endpoint);
}

static int end_at_third(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") != 0 || recorder->datagrams != 3)
        return 0;
    return recorder->arg ? tram_transport_abort(recorder->base.transport)
                         : tram_transport_close(recorder->base.transport);
}

/* rules: D-7, D-19, T-1 */
static void test_nothing_of_a_batch_comes_after_the_end(void **state) {
    struct world *world = *state;
    for (int joined = 0; joined < 2; joined++)
        for (int how = 0; how < 2; how++) {
            struct endpoint endpoint = endpoint_that_joins(world);
            endpoint.recorder->on = end_at_third;
            endpoint.recorder->arg = how ? world : NULL;
            if (joined)
                peer_sends_joined(&endpoint, 100, 10);
            for (size_t i = 0; !joined && i < 10; i++)
                peer_sends(&endpoint, 10, i * 10);
            run_until(world, &endpoint.recorder->was_released);
            assert_trace(world, "datagram:10 datagram:10 datagram:10 lost:0 released");
            endpoint_close(&endpoint);
        }
}

static int switch_at_second(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") == 0 && recorder->datagrams == 2)
        return tram_transport_set_protocol(recorder->base.transport, recorder->arg);
    return 0;
}

/* rules: D-7, T-12 */
static void test_a_new_protocol_gets_the_rest_of_a_batch(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    struct recorder *second = recorder_new(world, "second");
    endpoint.recorder->on = switch_at_second;
    endpoint.recorder->arg = &second->base;
    for (size_t i = 0; i < 4; i++)
        peer_sends(&endpoint, i, 0);
    run_until_traced(world, "second.datagram:3");
    run_to_rest(world);
    assert_trace(world, "datagram:0 datagram:1 second.datagram:2 second.datagram:3 released");
    tram_transport_abort(endpoint.transport);
    run_until(world, &second->was_released);
    close(endpoint.peer);
}

static void test_D_7_what_the_kernel_joined_comes_one_by_one(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    struct world *world = endpoint.world;
    endpoint.recorder->keep = true;
    peer_sends_joined(&endpoint, 4500, 1200);
    peer_sends(&endpoint, 7, 4500);
    run_until_traced(world, "datagram:7");
    assert_trace(world, "datagram:1200 datagram:1200 datagram:1200 datagram:900 datagram:7");
    assert_pattern(endpoint.recorder->bytes, 4507, 0);
    assert_int_equal(faults.recv.calls, 1);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.bytes_received, 4507);
    assert_int_equal(stats.reads, 1);
    endpoint_close(&endpoint);
}

static void test_D_7_a_kernel_that_cannot_join_does_without(void **state) {
    struct world *world = *state;
    fail_next(&faults.setsockopt, ENOPROTOOPT, FAULT_ALWAYS);
    struct endpoint endpoint = endpoint_that_joins(world);
    peer_sends_joined(&endpoint, 30, 10);
    run_until_traced(world, "datagram:10 datagram:10 datagram:10");
    endpoint_close(&endpoint);
}

/* A socket of the user's is left as it is: others may read from it. */
static void test_D_7_a_given_socket_is_not_told_to_join(void **state) {
    if (!kernel_cuts())
        skip();
    struct world *world = *state;
    tram_socket_address address;
    int fd = udp_socket(&address), value = -1;
    socklen_t size = sizeof value;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.sock = &fd};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_int_equal(getsockopt(fd, SOL_UDP, UDP_GRO, &value, &size), 0);
    assert_int_equal(value, 0);
    tram_transport_close(transport);
    run_until(world, &recorder->was_released);
}

/* A socket is the user's to ask for more: what the kernel then says first must leave room for the rest. */
static void test_D_7_marks_of_time_do_not_cost_the_boundaries(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    const tram_socket *view = tram_transport_get_extra_info(endpoint.transport, "socket", NULL);
    int on = 1, marks = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    assert_int_equal(setsockopt(view->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on), 0);
    assert_int_equal(setsockopt(view->fd, SOL_SOCKET, SO_TIMESTAMPING, &marks, sizeof marks), 0);
    setsockopt(view->fd, SOL_SOCKET, 75 /* SO_RCVMARK, Linux 5.19 */, &on, sizeof on);
    endpoint.recorder->keep = true;
    peer_sends_joined(&endpoint, 350, 100);
    run_until_true(endpoint.world, has_kept_350, endpoint.recorder);
    assert_trace(endpoint.world, "datagram:100 datagram:100 datagram:100 datagram:50");
    assert_pattern(endpoint.recorder->bytes, 350, 0);
    endpoint_close(&endpoint);
}

static struct sys cutting;
static unsigned cuts;

static int cutting_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    int came = tram__sys.recvmmsg(fd, messages, count, flags, timeout);
    for (int i = 0; i < came && cuts; i++, cuts--) {
        messages[i].msg_hdr.msg_controllen = 0;
        messages[i].msg_hdr.msg_flags |= MSG_CTRUNC;
    }
    return came;
}

/* Nobody can tell then where one datagram ends: better none than one that nobody sent. */
static void test_D_7_boundaries_that_were_cut_off_are_an_error(void **state) {
    struct world *world = *state;
    cutting = *faults_sys();
    cutting.recvmmsg = cutting_recvmmsg;
    world_use_sys(world, &cutting);
    struct endpoint endpoint = endpoint_that_joins(world);
    cuts = 1;
    peer_sends_joined(&endpoint, 350, 100);
    peer_sends(&endpoint, 7, 0);
    run_until_traced(world, "datagram:7");
    assert_trace(world, "error:ENOBUFS datagram:7");
    endpoint_close(&endpoint);

    /* A socket that does not join has nothing to lose. */
    tram_socket_address address;
    int fd = udp_socket(&address);
    tram_datagram_options options = {.sock = &fd};
    struct endpoint given = endpoint_open_with(world, &options, udp_socket(&address));
    cuts = 1;
    peer_sends(&given, 9, 0);
    run_until_traced(world, "datagram:9");
    assert_trace(world, "datagram:9");
    endpoint_close(&given);
}

/* ---- Sending within a batch ---- */

static int echo(struct recorder *recorder, const char *event) {
    struct endpoint *endpoint = recorder->arg;
    if (strcmp(event, "datagram") != 0)
        return 0;
    assert_int_equal(send_pattern(endpoint, 10, recorder->datagrams * 10), 0);
    peer_has_nothing(endpoint);
    return 0;
}

static void test_D_12_what_a_batch_sends_goes_out_after_it_with_one_call(void **state) {
    faults.cannot_join = true;
    struct endpoint endpoint = endpoint_open(*state);
    endpoint.recorder->on = echo;
    endpoint.recorder->arg = &endpoint;
    for (size_t i = 0; i < 20; i++)
        peer_sends(&endpoint, 1, 0);
    run_ticks(endpoint.world, 1);
    assert_int_equal(endpoint.recorder->datagrams, 20);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(faults.messages, 20);
    expect_many(&endpoint, 20, 10, 10);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    endpoint_close(&endpoint);
}

static int echo_and_close(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") != 0 || recorder->datagrams < 3)
        return echo(recorder, event);
    return tram_transport_close(recorder->base.transport);
}

static void test_D_19_a_close_within_a_batch_sends_what_it_held(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    endpoint.recorder->on = echo_and_close;
    endpoint.recorder->arg = &endpoint;
    for (size_t i = 0; i < 5; i++)
        peer_sends(&endpoint, 1, 0);
    run_until(endpoint.world, &endpoint.recorder->was_released);
    assert_trace(endpoint.world, "datagram:1 datagram:1 datagram:1 lost:0 released");
    expect_many(&endpoint, 2, 10, 10);
    endpoint_close(&endpoint);
}

static int send_much(struct recorder *recorder, const char *event) {
    struct endpoint *endpoint = recorder->arg;
    for (size_t i = 0; strcmp(event, "datagram") == 0 && i < 200; i++)
        assert_int_equal(send_pattern(endpoint, 1, i), 0);
    return 0;
}

static void test_D_12_little_is_held_and_held_is_not_paused(void **state) {
    calls_uninterrupted();
    struct endpoint endpoint = endpoint_open(*state);
    char byte;
    assert_int_equal(tram_transport_set_write_buffer_limits(endpoint.transport, 0, 0), 0);
    endpoint.recorder->on = send_much;
    endpoint.recorder->arg = &endpoint;
    peer_sends(&endpoint, 1, 0);
    run_ticks(endpoint.world, 1);
    assert_int_equal(faults.send.calls, 2);
    for (int i = 0; i < 200; i++)
        assert_int_equal(peer_takes(&endpoint, &byte, 1), 1);
    assert_trace(endpoint.world, "datagram:1");

    /* But when the kernel refuses, what was held waits, and pauses. */
    faults.datagram_budget = 0;
    peer_sends(&endpoint, 1, 0);
    run_ticks(endpoint.world, 1);
    assert_trace(endpoint.world, "datagram:1 pause");
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 1800);
    faults.datagram_budget = SIZE_MAX;
    run_until_traced(endpoint.world, "resume");
    for (int i = 0; i < 200; i++)
        assert_int_equal(peer_takes(&endpoint, &byte, 1), 1);
    endpoint_close(&endpoint);
}

/* A cork holds so many back, or so much. */
static void test_D_12_a_cork_holds_back_up_to_either_limit(void **state) {
    static const struct {
        size_t size, held;
    } cases[] = {
        {1, TRAM_DATAGRAMS_OUT - 1},
        {60000, 4},
        {TRAM_DATAGRAMS_HELD / 8 - 8, 7}, /* the eighth fills it exactly, with what each costs */
        {TRAM_DATAGRAMS_HELD / 8 - 9, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint endpoint = endpoint_open(*state);
        faults.messages = 0;
        assert_int_equal(tram_transport_cork(endpoint.transport), 0);
        for (size_t sent = 0; sent < cases[i].held; sent++)
            assert_int_equal(send_pattern(&endpoint, cases[i].size, 0), 0);
        assert_int_equal(faults.messages, 0);
        assert_int_equal(send_pattern(&endpoint, cases[i].size, 0), 0);
        assert_true(faults.messages > 0);
        endpoint_close(&endpoint);
    }
}

static int answer_and_limit(struct recorder *recorder, const char *event) {
    struct endpoint *endpoint = recorder->arg;
    if (strcmp(event, "datagram") != 0)
        return 0;
    assert_int_equal(send_pattern(endpoint, 100, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint->transport), 0);
    assert_int_equal(tram_transport_set_write_buffer_limits(endpoint->transport, 0, 0), 0);
    assert_int_equal(tram_transport_set_write_hard_limit(endpoint->transport, 10), 0);
    return 0;
}

/* As in CPython, where it is sent at once. */
static void test_D_13_what_a_batch_holds_is_not_queued(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    endpoint.recorder->on = answer_and_limit;
    endpoint.recorder->arg = &endpoint;
    peer_sends(&endpoint, 1, 0);
    peer_sends(&endpoint, 1, 0);
    run_to_rest(endpoint.world);
    assert_trace(endpoint.world, "datagram:1 datagram:1");
    for (int i = 0; i < 2; i++)
        expect_pattern(&endpoint, 100, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    endpoint_close(&endpoint);
}

static void test_D_14_who_pauses_while_corked_is_resumed(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    assert_int_equal(send_pattern(&endpoint, 100, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 108);
    assert_int_equal(tram_transport_set_write_buffer_limits(endpoint.transport, 0, 0), 0);
    assert_trace(world, "pause");
    assert_int_equal(tram_transport_uncork(endpoint.transport), 0);
    assert_trace(world, ""); /* not within the call */
    run_until_traced(world, "resume");
    run_to_rest(world);
    assert_trace(world, "resume");
    expect_pattern(&endpoint, 100, 0);
    endpoint_close(&endpoint);
}

static int echo_and_abort(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") != 0 || recorder->datagrams < 3)
        return echo(recorder, event);
    echo(recorder, event);
    return tram_transport_abort(recorder->base.transport);
}

static void test_D_19_an_abort_within_a_batch_sends_what_it_held(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    endpoint.recorder->on = echo_and_abort;
    endpoint.recorder->arg = &endpoint;
    for (size_t i = 0; i < 5; i++)
        peer_sends(&endpoint, 1, 0);
    run_until(endpoint.world, &endpoint.recorder->was_released);
    assert_trace(endpoint.world, "datagram:1 datagram:1 datagram:1 lost:0 released");
    expect_many(&endpoint, 3, 10, 10);
    peer_has_nothing(&endpoint);
    endpoint_close(&endpoint);

    /* What the kernel refused is queued, and dropped. */
    struct endpoint full = endpoint_open(endpoint.world);
    full.recorder->on = echo_and_abort;
    full.recorder->arg = &full;
    faults.datagram_budget = 0;
    for (size_t i = 0; i < 3; i++)
        peer_sends(&full, 1, 0);
    run_until(full.world, &full.recorder->was_released);
    faults.datagram_budget = SIZE_MAX;
    peer_has_nothing(&full);
    endpoint_close(&full);
}

/* ---- Corks ---- */

static void test_D_12_a_cork_holds_back_and_joins(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    tram_transport *transport = endpoint.transport;
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_cork(transport), 0);
    for (size_t i = 0; i < 40; i++)
        assert_int_equal(send_pattern(&endpoint, 1200, i * 1200), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    peer_has_nothing(&endpoint);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 40 * 1208);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(faults.messages, 1);
    assert_int_equal(faults.joined, 1);
    expect_many(&endpoint, 40, 1200, 0);
    /* One too many is harmless; an empty cork sends nothing. */
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(faults.send.calls, 1);
    tram_stats stats;
    tram_loop_stats(endpoint.world->loop, &stats);
    assert_int_equal(stats.bytes_sent, 48000);
    assert_int_equal(stats.writes, 1);
    endpoint_close(&endpoint);
}

static void test_a_cork_too_many_is_refused(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    for (int i = 0; i < UINT16_MAX; i++)
        assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    assert_int_equal(tram_transport_cork(endpoint.transport), TRAM_ELIMIT);
    endpoint_close(&endpoint);
}

/* Nothing is held any more, and what the loop had for batches is gone with it: nobody looks there (ubsan). */
static void test_D_12_X_9_a_held_transport_may_be_uncorked_after_its_loop_closed(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    tram_transport *transport = tram_transport_hold(endpoint.transport);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(send_pattern(&endpoint, 100, 0), 0);
    assert_int_equal(tram_loop_close(endpoint.world->loop), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(tram_transport_close(transport), 0);
    peer_has_nothing(&endpoint);
    tram_transport_release(transport);
    close(endpoint.peer);
}

static void test_D_15_joining_changes_nothing_for_the_peer(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    tram_transport *transport = endpoint.transport;
    /* Equal ones, a shorter last one, a larger one, empty ones, and one that is alone. */
    const size_t sizes[] = {100, 100, 100, 60, 60, 200, 200, 0, 0, 200, 1, 3};
    const size_t count = sizeof sizes / sizeof *sizes;
    size_t offset = 0;
    assert_int_equal(tram_transport_cork(transport), 0);
    for (size_t i = 0; i < count; offset += sizes[i++])
        assert_int_equal(send_pattern(&endpoint, sizes[i], offset), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(faults.send.calls, 1);
    /* 100 100 100 60, 60, 200 200, empty, empty, 200 1, 3 */
    assert_int_equal(faults.messages, 7);
    assert_int_equal(faults.joined, 3);
    offset = 0;
    for (size_t i = 0; i < count; offset += sizes[i++])
        expect_pattern(&endpoint, sizes[i], offset);
    peer_has_nothing(&endpoint);
    endpoint_close(&endpoint);
}

static void test_D_15_different_peers_are_not_joined(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    tram_socket_address other_address;
    char bytes[16];
    int other = udp_socket(&other_address);
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    for (int i = 0; i < 6; i++) {
        const tram_socket_address *to = i % 3 == 2 ? &other_address : &endpoint.peer_address;
        assert_int_equal(tram_transport_sendto(endpoint.transport, "abcdefg", 7, to), 0);
    }
    assert_int_equal(tram_transport_uncork(endpoint.transport), 0);
    assert_int_equal(faults.messages, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 7);
    for (int i = 0; i < 2; i++)
        assert_int_equal(recv(other, bytes, sizeof bytes, 0), 7);
    assert_int_equal(recv(other, bytes, sizeof bytes, 0), -1);
    close(other);
    endpoint_close(&endpoint);
}

static void test_D_15_many_are_joined_in_several_messages(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    send_corked(&endpoint, 100, 10, 0); /* 64 at most */
    assert_int_equal(faults.messages, 2);
    expect_many(&endpoint, 100, 10, 0);
    send_corked(&endpoint, 8, 20000, 0); /* 64 KiB at most */
    assert_int_equal(faults.messages, 5);
    expect_many(&endpoint, 8, 20000, 0);
    assert_trace(endpoint.world, "");
    endpoint_close(&endpoint);
}

static void test_D_15_where_joining_fails_they_go_one_by_one(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    /* Such sizes are too large for this path: smaller ones are joined still. */
    faults.join_error = EMSGSIZE;
    send_corked(&endpoint, 5, 1000, 0);
    assert_int_equal(faults.messages, 5);
    faults.join_error = 0;
    expect_many(&endpoint, 5, 1000, 0);
    send_corked(&endpoint, 5, 1000, 0);
    assert_int_equal(faults.messages, 10);
    assert_int_equal(faults.joined, 0);
    send_corked(&endpoint, 5, 999, 0);
    assert_int_equal(faults.messages, 11);
    expect_many(&endpoint, 5, 1000, 0);
    expect_many(&endpoint, 5, 999, 0);
    /* The device cannot do it at all. */
    faults.join_error = EIO;
    send_corked(&endpoint, 5, 10, 0);
    faults.join_error = 0;
    send_corked(&endpoint, 5, 10, 50);
    assert_int_equal(faults.messages, 21);
    assert_int_equal(faults.joined, 1);
    expect_many(&endpoint, 10, 10, 0);
    assert_trace(endpoint.world, ""); /* none of this is an error */
    endpoint_close(&endpoint);
}

static void test_D_15_a_narrow_path_is_no_other_peers(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    int other = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    tram_socket_address far;
    char bytes[1000];
    assert_int_equal(tram_socket_address_inet("127.0.0.2", "0", &far), 0);
    assert_int_equal(bind(other, (struct sockaddr *)&far.address, far.size), 0);
    assert_int_equal(getsockname(other, (struct sockaddr *)&far.address, &far.size), 0);
    memset(bytes, 'x', sizeof bytes);
    faults.join_error = EMSGSIZE;
    send_corked(&endpoint, 3, 1000, 0);
    faults.join_error = 0;
    expect_many(&endpoint, 3, 1000, 0);
    faults.messages = 0;
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &far), 0);
    assert_int_equal(tram_transport_uncork(endpoint.transport), 0);
    assert_int_equal(faults.messages, 1); /* joined */
    for (int i = 0; i < 3; i++)
        assert_int_equal(recv(other, bytes, sizeof bytes, 0), sizeof bytes);
    send_corked(&endpoint, 3, 1000, 0); /* there it is as narrow as before */
    assert_int_equal(faults.messages, 4);
    expect_many(&endpoint, 3, 1000, 0);
    assert_trace(endpoint.world, "");
    close(other);
    endpoint_close(&endpoint);
}

/* Whoever forges the source of a question chooses where the answers go: to port 0, which the kernel refuses. */
static void test_D_15_an_answer_to_port_0_changes_nothing_for_others(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    tram_socket_address forged;
    assert_int_equal(tram_socket_address_inet("127.0.0.1", "0", &forged), 0);
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tram_transport_sendto(endpoint.transport, "abcdefg", 7, &forged), 0);
    assert_int_equal(tram_transport_uncork(endpoint.transport), 0);
    run_to_rest(endpoint.world);
    assert_trace(endpoint.world, "error:EINVAL error:EINVAL");
    faults.messages = 0;
    send_corked(&endpoint, 5, 1000, 0);
    assert_int_equal(faults.messages, 1);
    assert_int_equal(faults.joined, 1);
    expect_many(&endpoint, 5, 1000, 0);
    endpoint_close(&endpoint);
}

/* Only what one datagram alone does not meet is the fault of joining. */
static void test_D_15_each_error_of_joining_is_proved_by_a_single_one(void **state) {
    static const struct {
        int error;
        bool smaller_too; /* they are not joined any more either */
    } list[] = {{EMSGSIZE, false}, {EINVAL, false}, {EIO, true}, {EOPNOTSUPP, true}};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct endpoint endpoint = endpoint_that_joins(world);
        size_t size = 500 - 100 * i; /* the loop remembers paths: larger ones are known not to fit */
        /* Alone it fails as well: that is its own fault. */
        faults.joined = faults.messages = 0;
        fail_next(&faults.send, list[i].error, 2);
        send_corked(&endpoint, 3, size, 0);
        run_to_rest(world);
        expect_many(&endpoint, 2, size, size);
        assert_int_equal(faults.joined, 1);
        world->trace[0] = '\0';
        /* Alone it goes. */
        faults.join_error = list[i].error;
        send_corked(&endpoint, 3, size, 0);
        faults.join_error = 0;
        expect_many(&endpoint, 3, size, 0);
        faults.joined = faults.messages = 0;
        send_corked(&endpoint, 3, size, 0);
        assert_int_equal(faults.messages, 3);
        send_corked(&endpoint, 3, size - 1, 0);
        assert_int_equal(faults.joined, !list[i].smaller_too);
        expect_many(&endpoint, 3, size, 0);
        expect_many(&endpoint, 3, size - 1, 0);
        assert_trace(world, "");
        endpoint_close(&endpoint);
        world->trace[0] = '\0';
    }
}

static void test_D_15_a_kernel_that_cannot_cut_is_not_asked_to(void **state) {
    faults.cannot_join = true;
    struct endpoint endpoint = endpoint_open(*state);
    send_corked(&endpoint, 50, 100, 0);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(faults.messages, 50);
    assert_int_equal(faults.joined, 0);
    expect_many(&endpoint, 50, 100, 0);
    endpoint_close(&endpoint);
}

/* rules: D-16, D-18 */
static void test_an_error_at_the_end_of_a_cork_drops_that_one(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    static char bytes[65508];
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_int_equal(send_pattern(&endpoint, 20, 10), 0);
    assert_trace(world, "");
    assert_int_equal(tram_transport_uncork(endpoint.transport), 0);
    assert_trace(world, "error:EMSGSIZE");
    expect_pattern(&endpoint, 10, 0);
    peer_has_nothing(&endpoint);
    expect_pattern(&endpoint, 20, 10);
    run_to_rest(world);
    assert_trace(world, "");
    endpoint_close(&endpoint);
}

/* rules: D-18, D-16 */
static void test_an_error_of_the_socket_costs_one_of_the_joined(void **state) {
    struct endpoint endpoint = endpoint_that_joins(*state);
    fail_next(&faults.send, ECONNREFUSED, 1);
    send_corked(&endpoint, 5, 100, 0);
    assert_trace(endpoint.world, "error:ECONNREFUSED");
    expect_many(&endpoint, 4, 100, 100);
    endpoint_close(&endpoint);
}

static void test_D_19_closing_ends_a_cork(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    assert_int_equal(tram_transport_cork(endpoint.transport), 0);
    assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
    assert_int_equal(tram_transport_close(endpoint.transport), 0);
    expect_pattern(&endpoint, 10, 0);
    run_until(endpoint.world, &endpoint.recorder->was_released);
    assert_trace(endpoint.world, "lost:0 released");
    endpoint_close(&endpoint);

    struct endpoint second = endpoint_open(endpoint.world);
    assert_int_equal(tram_transport_cork(second.transport), 0);
    assert_int_equal(send_pattern(&second, 10, 0), 0);
    assert_int_equal(tram_transport_abort(second.transport), 0);
    run_until(second.world, &second.recorder->was_released);
    peer_has_nothing(&second);
    endpoint_close(&second);
}

static void test_D_12_out_of_memory_harms_nothing(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    faults.datagram_budget = 0;
    world->fail_after = 0;
    assert_int_equal(send_pattern(&endpoint, 30000, 0), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    assert_int_equal(send_pattern(&endpoint, 30000, 0), 0);
    world->fail_after = 0;
    assert_int_equal(send_pattern(&endpoint, 40000, 0), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 30008);
    faults.datagram_budget = SIZE_MAX;
    expect_pattern(&endpoint, 30000, 0);
    run_to_rest(world);
    assert_trace(world, "");
    assert_false(tram_transport_is_closing(endpoint.transport));
    endpoint_close(&endpoint);
}

/* rules: D-15, D-7 */
static void test_a_flow_between_two_endpoints_arrives_whole(void **state) {
    struct world *world = *state;
    struct endpoint sink = endpoint_open(world), source = endpoint_open(world);
    close(source.peer);
    source.peer = sink.peer;
    source.peer_address = sink.address;
    sink.recorder->quiet_data = sink.recorder->keep = true;
    for (size_t round = 0; round < 1000; round++) {
        size_t size = 1 + round * 7 % 1400, count = 1 + round % 40, before = sink.recorder->datagrams;
        sink.recorder->kept = 0;
        send_corked(&source, count, size, 0);
        while (sink.recorder->datagrams < before + count)
            run_ticks(world, 1);
        assert_int_equal(sink.recorder->datagrams, before + count);
        assert_int_equal(sink.recorder->kept, count * size);
        assert_pattern(sink.recorder->bytes, count * size, 0);
    }
    source.peer = -1;
    endpoint_close(&source);
    endpoint_close(&sink);
}

#define TEST_FAULTS(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_FAULTS(test_D_7_a_readiness_event_delivers_one_batch),
        TEST_FAULTS(test_nothing_of_a_batch_comes_after_the_end),
        TEST_FAULTS(test_a_new_protocol_gets_the_rest_of_a_batch),
        TEST_FAULTS(test_D_7_what_the_kernel_joined_comes_one_by_one),
        TEST_FAULTS(test_D_7_a_kernel_that_cannot_join_does_without),
        TEST_FAULTS(test_D_7_a_given_socket_is_not_told_to_join),
        TEST_FAULTS(test_D_12_what_a_batch_sends_goes_out_after_it_with_one_call),
        TEST_FAULTS(test_D_19_a_close_within_a_batch_sends_what_it_held),
        TEST_FAULTS(test_D_12_a_cork_holds_back_up_to_either_limit),
        TEST_FAULTS(test_D_12_little_is_held_and_held_is_not_paused),
        TEST_FAULTS(test_D_12_a_cork_holds_back_and_joins),
        TEST_FAULTS(test_a_cork_too_many_is_refused),
        TEST_FAULTS(test_D_12_X_9_a_held_transport_may_be_uncorked_after_its_loop_closed),
        TEST_FAULTS(test_D_15_joining_changes_nothing_for_the_peer),
        TEST_FAULTS(test_D_15_different_peers_are_not_joined),
        TEST_FAULTS(test_D_15_many_are_joined_in_several_messages),
        TEST_FAULTS(test_D_15_where_joining_fails_they_go_one_by_one),
        TEST_FAULTS(test_D_15_a_narrow_path_is_no_other_peers),
        TEST_FAULTS(test_D_15_an_answer_to_port_0_changes_nothing_for_others),
        TEST_FAULTS(test_D_15_each_error_of_joining_is_proved_by_a_single_one),
        TEST_FAULTS(test_D_15_a_kernel_that_cannot_cut_is_not_asked_to),
        TEST_FAULTS(test_D_7_marks_of_time_do_not_cost_the_boundaries),
        TEST_FAULTS(test_D_7_boundaries_that_were_cut_off_are_an_error),
        TEST_FAULTS(test_D_13_what_a_batch_holds_is_not_queued),
        TEST_FAULTS(test_D_14_who_pauses_while_corked_is_resumed),
        TEST_FAULTS(test_D_19_an_abort_within_a_batch_sends_what_it_held),
        TEST_FAULTS(test_an_error_at_the_end_of_a_cork_drops_that_one),
        TEST_FAULTS(test_an_error_of_the_socket_costs_one_of_the_joined),
        TEST_FAULTS(test_D_19_closing_ends_a_cork),
        TEST_FAULTS(test_D_12_out_of_memory_harms_nothing),
        TEST_FAULTS(test_a_flow_between_two_endpoints_arrives_whole),
    };
    return cmocka_run_group_tests_name("batches of datagrams", tests, NULL, NULL);
}
