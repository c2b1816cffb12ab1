/* One test body, the same protocols, on every stream transport there is: rules M-1, M-9, P-1, B-7. */
#include <pthread.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"

#define TOTAL ((size_t)3 * 1024 * 1024)

/* Writes TOTAL bytes as fast as it may, ends, and reads all of it back; or echoes. Plain or buffered. */
struct talker {
    tram_protocol base;
    bool sends, paused, made, eof, lost, wrong;
    size_t sent, received;
    char memory[5000];
    bool stops; /* its loop, when the connection is lost */
};

static struct talker *talker_of(tram_protocol *protocol) {
    return (struct talker *)protocol;
}

static int go_on(struct talker *talker) {
    static char bytes[50000];
    while (talker->sends && !talker->paused && talker->sent < TOTAL) {
        size_t size = 1 + talker->sent * 7 % sizeof bytes;
        if (size > TOTAL - talker->sent)
            size = TOTAL - talker->sent;
        pattern(bytes, size, talker->sent);
        talker->sent += size;
        int status = tram_transport_write(talker->base.transport, bytes, size);
        if (status)
            return status;
    }
    return talker->sends && talker->sent == TOTAL ? tram_transport_write_eof(talker->base.transport) : 0;
}

static int made(tram_protocol *protocol, tram_transport *transport) {
    struct talker *talker = talker_of(protocol);
    talker->wrong |= talker->made || protocol->transport != transport || !tram_transport_can_write_eof(transport);
    talker->made = true;
    return go_on(talker);
}

static int data(tram_protocol *protocol, const void *bytes, size_t size) {
    struct talker *talker = talker_of(protocol);
    talker->wrong |= !talker->made || talker->eof || talker->lost || !size;
    assert_pattern(bytes, size, talker->received);
    talker->received += size;
    return talker->sends ? 0 : tram_transport_write(protocol->transport, bytes, size);
}

static int get_buffer(tram_protocol *protocol, ptrdiff_t hint, void **ret_memory, size_t *ret_size) {
    (void)hint;
    *ret_memory = talker_of(protocol)->memory;
    *ret_size = sizeof talker_of(protocol)->memory;
    return 0;
}

static int updated(tram_protocol *protocol, size_t size) {
    return data(protocol, talker_of(protocol)->memory, size);
}

static int eof(tram_protocol *protocol) {
    talker_of(protocol)->wrong |= talker_of(protocol)->eof;
    talker_of(protocol)->eof = true;
    return 0;
}

static int pause_writing(tram_protocol *protocol) {
    talker_of(protocol)->wrong |= talker_of(protocol)->paused;
    talker_of(protocol)->paused = true;
    return talker_of(protocol)->sends ? 0 : tram_transport_pause_reading(protocol->transport);
}

static int resume_writing(tram_protocol *protocol) {
    talker_of(protocol)->wrong |= !talker_of(protocol)->paused;
    talker_of(protocol)->paused = false;
    return talker_of(protocol)->sends ? go_on(talker_of(protocol)) : tram_transport_resume_reading(protocol->transport);
}

static int lost(tram_protocol *protocol, const tram_error *error) {
    struct talker *talker = talker_of(protocol);
    talker->wrong |= talker->lost || error;
    talker->lost = true;
    return talker->stops ? tram_loop_stop(tram_transport_get_loop(protocol->transport)) : 0;
}

#define TALKER                                                                                                         \
    .connection_made = made, .eof_received = eof, .pause_writing = pause_writing, .resume_writing = resume_writing,    \
    .connection_lost = lost
static const tram_protocol_ops plain = {TALKER, .data_received = data};
static const tram_protocol_ops buffered = {TALKER, .get_buffer = get_buffer, .buffer_updated = updated};

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

/* ---- The transports ---- */

static void *run_loop(void *arg) {
    tram_loop_run_forever(arg);
    return NULL;
}

static void both_lost(struct world *world, struct talker *a, struct talker *b) {
    run_until(world, &a->lost);
    run_until(world, &b->lost);
}

static void over_descriptors(struct world *world, struct talker *a, struct talker *b, const int fds[2]) {
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, factory, a, fds[0], NULL), 0);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, factory, b, fds[1], NULL), 0);
    both_lost(world, a, b);
}

static void over_tcp(struct world *world, struct talker *a, struct talker *b) {
    int fds[2];
    tcp_pair(fds);
    over_descriptors(world, a, b, fds);
}

static void over_unix(struct world *world, struct talker *a, struct talker *b) {
    int fds[2];
    unix_pair(fds);
    over_descriptors(world, a, b, fds);
}

static void over_a_pair(struct world *world, struct talker *a, struct talker *b) {
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, NULL, NULL), 0);
    both_lost(world, a, b);
}

static void over_two_loops(struct world *world, struct talker *a, struct talker *b) {
    tram_loop *other;
    pthread_t thread;
    b->stops = true;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_pair_across(world->loop, &a->base, other, factory, b, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, other), 0);
    run_until(world, &a->lost);
    pthread_join(thread, NULL);
    assert_int_equal(tram_loop_free(other), 0);
}

static void talk(struct world *world, void (*over)(struct world *, struct talker *, struct talker *)) {
    static const tram_protocol_ops *const sorts[][2] = {{&plain, &plain}, {&plain, &buffered}, {&buffered, &plain}};
    for (size_t i = 0; i < 3; i++) {
        struct talker a = {.base.ops = sorts[i][0], .sends = true}, b = {.base.ops = sorts[i][1]};
        over(world, &a, &b);
        assert_true(a.made && b.made && a.lost && b.lost && b.eof && !a.wrong && !b.wrong);
        assert_int_equal(b.received, TOTAL);
        assert_int_equal(a.received, TOTAL);
        run_to_rest(world);
    }
}

static void test_P_1_B_7_on_tcp(void **state) {
    talk(*state, over_tcp);
}

static void test_P_1_B_7_on_unix_sockets(void **state) {
    talk(*state, over_unix);
}

static void test_M_1_P_1_B_7_on_a_pair(void **state) {
    talk(*state, over_a_pair);
}

static void test_M_1_M_9_P_1_B_7_on_a_pair_across_two_loops(void **state) {
    talk(*state, over_two_loops);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(P_1_B_7_on_tcp),
        TEST(P_1_B_7_on_unix_sockets),
        TEST(M_1_P_1_B_7_on_a_pair),
        TEST(M_1_M_9_P_1_B_7_on_a_pair_across_two_loops),
    };
    return cmocka_run_group_tests_name("everywhere", tests, NULL, NULL);
}
