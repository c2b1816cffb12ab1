/* Rules D-7 to D-21 and P-17: what a datagram transport does with datagrams. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/datagram.h"

/* ---- Helpers ---- */

static int trace_word(struct world *world, const char *word) {
    return tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t)word, NULL, NULL);
}

/* Fills the peer of a Unix pair until the kernel refuses and `queued` datagrams of 10 bytes wait; how many were sent.
 */
static size_t fill_pair(struct endpoint *endpoint, size_t queued) {
    size_t sent = 0;
    while (tram_transport_get_write_buffer_size(endpoint->transport) < queued * 18) {
        assert_int_equal(send_pattern(endpoint, 10, sent * 10), 0);
        sent++;
    }
    return sent;
}

static bool queue_is_empty(void *arg) {
    return tram_transport_get_write_buffer_size(arg) == 0;
}

/* A port where nobody is. */
static tram_socket_address nobody(void) {
    tram_socket_address address;
    close(udp_socket(&address));
    return address;
}

/* ---- Receiving ---- */

static void test_D_7_one_call_per_datagram_with_its_sender(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    endpoint.recorder->keep = true;
    peer_sends(&endpoint, 3, 0);
    peer_sends(&endpoint, 1, 3);
    peer_sends(&endpoint, 1000, 4);
    run_until_traced(world, "datagram:1000");
    assert_trace(world, "datagram:3 datagram:1 datagram:1000");
    assert_pattern(endpoint.recorder->bytes, 1004, 0);
    assert_true(endpoint.recorder->has_peer);
    assert_int_equal(endpoint.recorder->peer.size, sizeof(struct sockaddr_in));
    assert_memory_equal(&endpoint.recorder->peer.address, &endpoint.peer_address.address, sizeof(struct sockaddr_in));
    endpoint_close(&endpoint);
}

static size_t full_size_seen;

static int look_at_full_size(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") == 0)
        full_size_seen = tram_transport_datagram_size(recorder->base.transport);
    return 0;
}

static void test_D_7_the_largest_of_udp_comes_whole(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    endpoint.recorder->on = look_at_full_size;
    endpoint.recorder->keep = true;
    peer_sends(&endpoint, 65507, 0);
    run_until_traced(endpoint.world, "datagram:65507");
    assert_pattern(endpoint.recorder->bytes, 65507, 0);
    assert_int_equal(full_size_seen, 65507);
    assert_int_equal(tram_transport_datagram_size(endpoint.transport), 0);
    endpoint_close(&endpoint);
}

static void test_D_7_more_than_256_KiB_is_cut_and_told(void **state) {
    struct endpoint endpoint = endpoint_open_unix(*state);
    int size = 1 << 20;
    setsockopt(endpoint.peer, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    setsockopt(endpoint.peer, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    static char bytes[300000];
    endpoint.recorder->on = look_at_full_size;
    if (send(endpoint.peer, bytes, sizeof bytes, 0) != sizeof bytes) {
        endpoint_close(&endpoint);
        skip();
    }
    run_until_traced(endpoint.world, "datagram:262144");
    assert_int_equal(full_size_seen, 300000);
    /* The next one is whole again. */
    assert_int_equal(send(endpoint.peer, bytes, 262144, 0), 262144);
    endpoint.world->trace[0] = '\0';
    run_until_traced(endpoint.world, "datagram:262144");
    assert_int_equal(full_size_seen, 262144);
    endpoint_close(&endpoint);
}

static int echo(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") != 0)
        return 0;
    return tram_transport_sendto(recorder->base.transport, "", 0, &recorder->peer);
}

static void test_D_8_empty_datagrams_come_and_go(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    char bytes[8];
    endpoint.recorder->on = echo;
    peer_sends(&endpoint, 0, 0);
    peer_sends(&endpoint, 2, 0);
    peer_sends(&endpoint, 0, 0);
    run_until_traced(endpoint.world, "datagram:2 datagram:0");
    run_to_rest(endpoint.world);
    assert_trace(endpoint.world, "datagram:0 datagram:2 datagram:0");
    for (int i = 0; i < 3; i++)
        assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, NULL, 0, &endpoint.peer_address), 0);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 0);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), -1);
    endpoint_close(&endpoint);
}

static void test_D_8_empty_datagrams_are_queued_as_well(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    char bytes[8];
    faults.datagram_budget = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&endpoint, i == 1, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 25);
    faults.datagram_budget = SIZE_MAX;
    run_until_true(endpoint.world, queue_is_empty, endpoint.transport);
    for (int i = 0; i < 3; i++)
        assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), i == 1);
    endpoint_close(&endpoint);
}

/* ---- Whither ---- */

static void test_D_9_a_remote_address_is_the_only_one(void **state) {
    struct endpoint endpoint = endpoint_open_connected(*state);
    tram_socket_address other = nobody();
    char bytes[8];
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, NULL), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "bb", 2, &endpoint.peer_address), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "ccc", 3, &other), TRAM_EVALUE);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 1);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 2);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), -1);
    assert_trace(endpoint.world, "");
    endpoint_close(&endpoint);
}

static void test_D_10_without_one_an_address_is_needed(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    char bytes[8];
    tram_socket_address none = {0}, huge = {.size = sizeof huge.address + 1};
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, NULL), TRAM_EVALUE);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, &none), TRAM_EVALUE);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, &huge), TRAM_EVALUE);
    assert_int_equal(tram_transport_sendto(endpoint.transport, NULL, 1, &endpoint.peer_address), TRAM_EVALUE);
    assert_int_equal(faults.send.calls, 0);
    assert_false(tram_transport_is_closing(endpoint.transport));
    assert_int_equal(tram_transport_sendto(endpoint.transport, "ab", 2, &endpoint.peer_address), 0);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 2);
    assert_trace(endpoint.world, "");
    endpoint_close(&endpoint);
}

/* ---- Sending ---- */

static void test_D_12_sends_at_once_or_queues_a_private_copy(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    char bytes[64];
    assert_int_equal(send_pattern(&endpoint, 30, 0), 0);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 30); /* no tick has passed */
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    assert_int_equal(faults.arm_write.calls, 0);

    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 20, 0), 0); /* overwrites the caller's memory afterwards */
    assert_int_equal(faults.arm_write.calls, 1);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 28);
    /* Something is queued: no try, even if the kernel would take it. */
    faults.datagram_budget = SIZE_MAX;
    unsigned tries = faults.send.calls;
    assert_int_equal(send_pattern(&endpoint, 10, 20), 0);
    assert_int_equal(faults.send.calls, tries);
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), -1);
    expect_pattern(&endpoint, 20, 0);
    expect_pattern(&endpoint, 10, 20);
    /* With nothing left it does not wait for writability any more. */
    tries = faults.send.calls;
    run_to_rest(endpoint.world);
    assert_int_equal(faults.send.calls, tries);
    endpoint_close(&endpoint);
}

static void test_D_12_a_full_peer_does_not_block(void **state) {
    struct endpoint endpoint = endpoint_open_unix(*state);
    size_t sent = fill_pair(&endpoint, 5);
    run_to_rest(endpoint.world);
    for (size_t i = 0; i < sent; i++)
        expect_pattern(&endpoint, 10, i * 10);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    endpoint_close(&endpoint);
}

/* rules: D-12, L-38 */
static void test_a_full_peer_of_an_unconnected_socket_does_not_spin(void **state) {
    struct world *world = *state;
    char name[32] = "";
    int length = 1 + snprintf(name + 1, sizeof name - 1, "tram-full-%d", (int)getpid());
    struct endpoint endpoint = {.world = world, .recorder = recorder_new(world, NULL)};
    assert_int_equal(tram_socket_address_unix(name, (size_t)length, &endpoint.peer_address), 0);
    endpoint.peer = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    const struct sockaddr *address = (const struct sockaddr *)&endpoint.peer_address.address;
    assert_int_equal(bind(endpoint.peer, address, endpoint.peer_address.size), 0);
    tram_datagram_options options = {.family = AF_UNIX};
    endpoint.transport = endpoint_new(world, endpoint.recorder, &options);
    size_t sent = 0;
    for (; tram_transport_get_write_buffer_size(endpoint.transport) == 0; sent++)
        assert_int_equal(tram_transport_sendto(endpoint.transport, "x", 1, &endpoint.peer_address), 0);
    /* The kernel says for ever that it has room. The loop sleeps all the same, between looks. */
    unsigned tries = faults.send.calls;
    run_to_rest(world);
    assert_in_range(faults.send.calls - tries, 1, 3);
    char byte;
    for (size_t i = 0; i + 1 < sent; i++)
        assert_int_equal(peer_takes(&endpoint, &byte, 1), 1);
    run_until_true(world, queue_is_empty, endpoint.transport);
    assert_int_equal(peer_takes(&endpoint, &byte, 1), 1);

    /* Closing waits for it; aborting does not. */
    for (; tram_transport_get_write_buffer_size(endpoint.transport) == 0;)
        assert_int_equal(tram_transport_sendto(endpoint.transport, "x", 1, &endpoint.peer_address), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_close(endpoint.transport), 0);
    run_to_rest(world);
    assert_false(endpoint.recorder->lost);
    endpoint_close(&endpoint);
    assert_true(endpoint.recorder->lost);
}

static void test_D_13_counts_8_for_each(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    tram_transport *transport = endpoint.transport;
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 100, 0), 0);
    assert_int_equal(send_pattern(&endpoint, 0, 0), 0);
    assert_int_equal(send_pattern(&endpoint, 1000, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 1124);
    faults.datagram_budget = 1;
    run_ticks(endpoint.world, 1);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 1016);
    /* Dropped by an error: the same. */
    faults.datagram_budget = SIZE_MAX;
    fail_next(&faults.send, ENOBUFS, 1);
    run_until_traced(endpoint.world, "error:ENOBUFS");
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 1008);
    run_until_true(endpoint.world, queue_is_empty, transport);
    endpoint_close(&endpoint);
}

static void test_D_14_water_marks_work_with_this_size(void **state) {
    faults.cannot_join = true; /* so that the budget counts datagrams */
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    tram_transport *transport = endpoint.transport;
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 100, 30), 0);
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 42, 0), 0);
    assert_int_equal(send_pattern(&endpoint, 42, 42), 0);
    assert_trace(world, ""); /* equal is not more */
    assert_int_equal(send_pattern(&endpoint, 0, 0), 0);
    assert_trace(world, "pause"); /* within the call, once */
    assert_int_equal(send_pattern(&endpoint, 12, 84), 0);
    assert_trace(world, "");
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 128);
    faults.datagram_budget = 2;
    run_ticks(world, 1);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 28);
    assert_trace(world, "resume");
    /* A mark of 0: any that waits pauses. */
    faults.datagram_budget = SIZE_MAX;
    run_until_true(world, queue_is_empty, transport);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, TRAM_LIMIT_DEFAULT), 0);
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 0, 0), 0);
    assert_trace(world, "pause");
    /* No resume after an abort. */
    tram_transport_abort(transport);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "lost:0 released");
    endpoint_close(&endpoint);
}

static int send_on_resume(struct recorder *recorder, const char *event) {
    struct endpoint *endpoint = recorder->arg;
    if (strcmp(event, "resume") != 0)
        return 0;
    recorder->on = NULL;
    faults.datagram_budget = 0;
    for (int i = 0; i < 3; i++)
        send_pattern(endpoint, 42, (size_t)(100 + i * 42));
    return 0;
}

/* rules: D-14, W-20 */
static void test_resume_writing_may_send_even_until_it_is_paused(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    assert_int_equal(tram_transport_set_write_buffer_limits(endpoint.transport, 100, 0), 0);
    endpoint.recorder->on = send_on_resume;
    endpoint.recorder->arg = &endpoint;
    faults.datagram_budget = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&endpoint, 33, (size_t)i * 33), 0);
    faults.datagram_budget = SIZE_MAX;
    run_until_traced(world, "resume");
    assert_trace(world, "pause resume pause");
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 150);
    faults.datagram_budget = SIZE_MAX;
    run_until_traced(world, "resume");
    for (int i = 0; i < 3; i++)
        expect_pattern(&endpoint, 33, (size_t)i * 33);
    for (int i = 0; i < 3; i++)
        expect_pattern(&endpoint, 42, (size_t)(100 + i * 42));
    endpoint_close(&endpoint);
}

/* rules: D-14, W-18 */
static void test_the_hard_limit_ends_a_datagram_transport(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    assert_int_equal(tram_transport_set_write_hard_limit(endpoint.transport, 100), 0);
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 92, 0), 0);
    assert_false(tram_transport_is_closing(endpoint.transport));
    assert_int_equal(send_pattern(&endpoint, 0, 0), 0);
    assert_true(tram_transport_is_closing(endpoint.transport));
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "lost:TRAM_ELIMIT released");
    assert_int_equal(world->exceptions, 1);
    endpoint_close(&endpoint);
}

static void test_D_15_whole_in_order_and_until_the_kernel_refuses(void **state) {
    faults.cannot_join = true;
    struct endpoint endpoint = endpoint_open(*state);
    tram_transport *transport = endpoint.transport;
    size_t sizes[300], offset = 0;
    faults.datagram_budget = 0;
    for (size_t i = 0; i < 300; i++) {
        sizes[i] = (i * 37) % 300 + (i % 7 == 0 ? 400 : 0);
        assert_int_equal(send_pattern(&endpoint, sizes[i], offset), 0);
        offset += sizes[i];
    }
    /* All that the kernel takes go in one tick. */
    faults.datagram_budget = 150;
    faults.messages = 0;
    run_ticks(endpoint.world, 1);
    assert_int_equal(faults.messages, 150);
    offset = 0;
    for (size_t i = 0; i < 300; i++) {
        if (i == 150) {
            faults.datagram_budget = SIZE_MAX;
            run_until_true(endpoint.world, queue_is_empty, transport);
        }
        expect_pattern(&endpoint, sizes[i], offset);
        offset += sizes[i];
    }
    endpoint_close(&endpoint);
}

/* ---- Errors ---- */

static void test_D_16_D_17_what_is_too_large_is_told_within_sendto(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    static char bytes[70000];
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, 65508, &endpoint.peer_address), 0);
    assert_trace(endpoint.world, "error:EMSGSIZE");
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_trace(endpoint.world, "error:EMSGSIZE");
    assert_false(tram_transport_is_closing(endpoint.transport));
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    assert_int_equal(send_pattern(&endpoint, 65507, 0), 0);
    expect_pattern(&endpoint, 65507, 0);
    assert_trace(endpoint.world, "");
    assert_int_equal(endpoint.world->exceptions, 0);
    endpoint_close(&endpoint);
}

static void test_D_16_a_closed_port_is_told(void **state) {
    struct endpoint endpoint = endpoint_open_connected(*state);
    struct world *world = endpoint.world;
    /* Who is connected, here to itself, takes nothing from others; and nobody else gets the port so. */
    const tram_socket_address *peer = &endpoint.peer_address;
    assert_int_equal(connect(endpoint.peer, (const struct sockaddr *)&peer->address, peer->size), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, NULL), 0);
    run_until_traced(world, "error");
    run_to_rest(world);
    assert_trace(world, "error:ECONNREFUSED");
    assert_false(tram_transport_is_closing(endpoint.transport));
    /* Whoever sends again before it was received hears of it there. */
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, NULL), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, NULL), 0);
    assert_trace(world, "error:ECONNREFUSED");
    endpoint_close(&endpoint);
}

static void test_D_16_a_wrong_family_and_a_wrong_address_are_told(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    tram_socket_address address;
    assert_int_equal(tram_socket_address_inet("::1", "9", &address), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, &address), 0);
    assert_trace(endpoint.world, "error:EAFNOSUPPORT");
    assert_int_equal(tram_socket_address_inet("127.0.0.1", "0", &address), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, &address), 0);
    assert_trace(endpoint.world, "error:EINVAL");
    assert_int_equal(tram_socket_address_inet("255.255.255.255", "9", &address), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "a", 1, &address), 0);
    assert_trace(endpoint.world, "error:EACCES"); /* without allow_broadcast */
    assert_false(tram_transport_is_closing(endpoint.transport));
    endpoint_close(&endpoint);
}

static void test_D_16_errors_of_receiving_are_told(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    fail_next(&faults.recv, ENOBUFS, 1);
    peer_sends(&endpoint, 5, 0);
    run_until_traced(endpoint.world, "datagram");
    assert_trace(endpoint.world, "error:ENOBUFS datagram:5");
    endpoint_close(&endpoint);
}

static int close_on_error(struct recorder *recorder, const char *event) {
    if (strcmp(event, "error") == 0)
        tram_transport_abort(recorder->base.transport);
    return 0;
}

/* rules: D-17, P-18 */
static void test_error_received_may_abort(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    endpoint.recorder->on = close_on_error;
    static char bytes[65508];
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_true(tram_transport_is_closing(endpoint.transport));
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "error:EMSGSIZE lost:0 released");
    endpoint_close(&endpoint);

    struct endpoint second = endpoint_open(world);
    second.recorder->on = close_on_error;
    faults.datagram_budget = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&second, 10, 0), 0);
    faults.datagram_budget = SIZE_MAX;
    fail_next(&faults.send, ENOBUFS, 1);
    run_until(world, &second.recorder->was_released);
    assert_trace(world, "error:ENOBUFS lost:0 released");
    endpoint_close(&second);
}

static void test_D_18_an_error_while_flushing_drops_that_one(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    static char bytes[65508];
    char taken[64];
    assert_int_equal(tram_transport_set_write_buffer_limits(endpoint.transport, 100000, TRAM_LIMIT_DEFAULT), 0);
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_int_equal(send_pattern(&endpoint, 20, 10), 0);
    trace_word(world, "tick1");
    faults.datagram_budget = SIZE_MAX;
    run_ticks(world, 1);
    assert_trace(world, "tick1 error:EMSGSIZE");
    expect_pattern(&endpoint, 10, 0);
    assert_int_equal(peer_takes(&endpoint, taken, sizeof taken), -1); /* at the next writability */
    run_ticks(world, 1);
    expect_pattern(&endpoint, 20, 10);

    /* The last one fails: what waits for an empty queue comes with the next writability, too. */
    faults.datagram_budget = 0;
    assert_int_equal(send_pattern(&endpoint, 5, 0), 0);
    assert_int_equal(tram_transport_close(endpoint.transport), 0);
    faults.datagram_budget = SIZE_MAX;
    fail_next(&faults.send, ENOBUFS, 1);
    run_ticks(world, 1);
    assert_trace(world, "error:ENOBUFS");
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    endpoint_close(&endpoint);
}

static void test_T_16_a_loop_that_cannot_arm_writing_ends_it(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    faults.datagram_budget = 0;
    fail_next(&faults.arm_write, ENOSPC, FAULT_ALWAYS);
    assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
    assert_true(tram_transport_is_closing(endpoint.transport));
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "lost:ENOSPC released");
    fail_next(&faults.arm_write, 0, 0);
    faults.datagram_budget = SIZE_MAX;
    endpoint_close(&endpoint);
}

/* ---- Ending ---- */

static void test_D_19_closing_flushes(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    faults.datagram_budget = 0;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&endpoint, 10, i * 10), 0);
    assert_int_equal(tram_transport_close(endpoint.transport), 0);
    /* Nothing is received any more, what is sent now is flushed as well (W-7). */
    peer_sends(&endpoint, 7, 0);
    assert_int_equal(send_pattern(&endpoint, 10, 30), 0);
    run_to_rest(world);
    assert_trace(world, "");
    faults.datagram_budget = SIZE_MAX;
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "lost:0 released");
    for (size_t i = 0; i < 4; i++)
        expect_pattern(&endpoint, 10, i * 10);
    endpoint_close(&endpoint);
}

static void test_D_19_aborting_drops(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    char bytes[16];
    faults.datagram_budget = 0;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(send_pattern(&endpoint, 10, i * 10), 0);
    assert_int_equal(tram_transport_close(endpoint.transport), 0);
    assert_int_equal(tram_transport_abort(endpoint.transport), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 0);
    assert_trace(world, ""); /* queued, not inside */
    faults.datagram_budget = SIZE_MAX;
    run_until(world, &endpoint.recorder->was_released);
    assert_trace(world, "lost:0 released");
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), -1);
    endpoint_close(&endpoint);
}

static void test_D_20_after_the_end_it_is_dropped_and_counted(void **state) {
    struct world *world = *state;
    for (int connected = 0; connected < 2; connected++) {
        struct endpoint endpoint = connected ? endpoint_open_connected(world) : endpoint_open(world);
        tram_transport *transport = tram_transport_hold(endpoint.transport);
        char bytes[16];
        assert_int_equal(tram_transport_close(transport), 0);
        unsigned warnings = world->warnings;
        for (int i = 0; i < 4; i++)
            assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
        assert_int_equal(world->warnings, warnings);
        run_until(world, &endpoint.recorder->was_released);
        assert_int_equal(send_pattern(&endpoint, 10, 0), 0);
        assert_int_equal(send_pattern(&endpoint, 0, 0), 0); /* an empty one is one, too */
        assert_int_equal(world->warnings, warnings);
        assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), -1);
        if (!connected)
            assert_int_equal(tram_transport_sendto(transport, "a", 1, NULL), TRAM_EVALUE);
        tram_transport_release(transport);
        assert_int_equal(world->warnings, warnings + 1);
        assert_non_null(strstr(world->log, "6 writes to connection"));
        world->log[0] = '\0';
        endpoint_close(&endpoint);
    }
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.dropped_writes, 12);
}

static void test_D_21_what_datagrams_do_not_have(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    tram_transport *transport = endpoint.transport;
    struct iovec piece = {.iov_base = "a", .iov_len = 1};
    tram_buffer *buffer = tram_buffer_copy("a", 1);
    assert_int_equal(tram_transport_pause_reading(transport), -ENOTSUP);
    assert_int_equal(tram_transport_resume_reading(transport), -ENOTSUP);
    assert_int_equal(tram_transport_write_eof(transport), -ENOTSUP);
    assert_false(tram_transport_can_write_eof(transport));
    assert_int_equal(tram_transport_write(transport, "a", 1), -ENOTSUP);
    assert_int_equal(tram_transport_writelines(transport, &piece, 1), -ENOTSUP);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), -ENOTSUP);
    tram_buffer_release(buffer);
    peer_sends(&endpoint, 3, 0);
    run_until_traced(endpoint.world, "datagram:3");
    endpoint_close(&endpoint);
    /* Nor do streams have sendto. */
    struct wire wire = wire_new_made(endpoint.world, recorder_new(endpoint.world, NULL));
    assert_int_equal(tram_transport_sendto(wire.transport, "a", 1, &endpoint.peer_address), -ENOTSUP);
    assert_int_equal(tram_transport_datagram_size(wire.transport), 0);
    tram_transport_abort(wire.transport);
    run_until(endpoint.world, &wire.recorder->was_released);
    close(wire.peer);
}

/* ---- Failing callbacks ---- */

static int fail_always(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") == 0)
        return -EIO;
    if (strcmp(event, "error") == 0)
        return tram_loop_raise(tram_transport_get_loop(recorder->base.transport), TRAM_EUSER, recorder, NULL);
    return 0;
}

static void test_P_17_failures_are_reported_and_it_lives_on(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    static char bytes[65508];
    world->trace_reports = true;
    endpoint.recorder->on = fail_always;
    peer_sends(&endpoint, 3, 0);
    run_until_traced(world, "reported");
    assert_trace(world, "datagram:3 reported:EIO");
    assert_ptr_equal(world->exception_transport, endpoint.transport);
    assert_ptr_equal(world->exception_protocol, &endpoint.recorder->base);
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_trace(world, "error:EMSGSIZE reported:TRAM_EUSER");
    assert_ptr_equal(world->exception_user, endpoint.recorder);
    assert_false(tram_transport_is_closing(endpoint.transport));
    endpoint.recorder->on = NULL;
    peer_sends(&endpoint, 4, 0);
    run_until_traced(world, "datagram:4");
    endpoint_close(&endpoint);
}

/* A protocol that has none of the callbacks. */
static void test_D_7_missing_callbacks_do_nothing(void **state) {
    static const tram_protocol_ops no_ops = {0};
    struct endpoint endpoint = endpoint_open(*state);
    struct world *world = endpoint.world;
    tram_protocol plain = {.ops = &no_ops};
    static char bytes[65508];
    assert_int_equal(tram_transport_set_protocol(endpoint.transport, &plain), 0);
    peer_sends(&endpoint, 3, 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_sendto(endpoint.transport, bytes, sizeof bytes, &endpoint.peer_address), 0);
    assert_trace(world, "released");
    /* A buffered protocol is none for datagrams. */
    struct recorder *buffered = recorder_new_buffered(world, NULL);
    assert_int_equal(tram_transport_set_protocol(endpoint.transport, &buffered->base), 0);
    peer_sends(&endpoint, 3, 0);
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_abort(endpoint.transport);
    run_until(world, &buffered->was_released);
    close(endpoint.peer);
}

#define TEST(name)        cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define TEST_FAULTS(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_D_7_one_call_per_datagram_with_its_sender),
        TEST(test_D_7_the_largest_of_udp_comes_whole),
        TEST(test_D_7_more_than_256_KiB_is_cut_and_told),
        TEST(test_D_7_missing_callbacks_do_nothing),
        TEST(test_D_8_empty_datagrams_come_and_go),
        TEST_FAULTS(test_D_8_empty_datagrams_are_queued_as_well),
        TEST(test_D_9_a_remote_address_is_the_only_one),
        TEST_FAULTS(test_D_10_without_one_an_address_is_needed),
        TEST_FAULTS(test_D_12_sends_at_once_or_queues_a_private_copy),
        TEST(test_D_12_a_full_peer_does_not_block),
        TEST_FAULTS(test_a_full_peer_of_an_unconnected_socket_does_not_spin),
        TEST_FAULTS(test_D_13_counts_8_for_each),
        TEST_FAULTS(test_D_14_water_marks_work_with_this_size),
        TEST_FAULTS(test_resume_writing_may_send_even_until_it_is_paused),
        TEST_FAULTS(test_the_hard_limit_ends_a_datagram_transport),
        TEST_FAULTS(test_D_15_whole_in_order_and_until_the_kernel_refuses),
        TEST(test_D_16_D_17_what_is_too_large_is_told_within_sendto),
        TEST(test_D_16_a_closed_port_is_told),
        TEST(test_D_16_a_wrong_family_and_a_wrong_address_are_told),
        TEST_FAULTS(test_D_16_errors_of_receiving_are_told),
        TEST_FAULTS(test_error_received_may_abort),
        TEST_FAULTS(test_D_18_an_error_while_flushing_drops_that_one),
        TEST_FAULTS(test_T_16_a_loop_that_cannot_arm_writing_ends_it),
        TEST_FAULTS(test_D_19_closing_flushes),
        TEST_FAULTS(test_D_19_aborting_drops),
        TEST(test_D_20_after_the_end_it_is_dropped_and_counted),
        TEST(test_D_21_what_datagrams_do_not_have),
        TEST(test_P_17_failures_are_reported_and_it_lives_on),
    };
    return cmocka_run_group_tests_name("datagrams", tests, NULL, NULL);
}
