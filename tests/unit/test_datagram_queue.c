/* The datagrams that wait to be sent: packed without a gap, and the same when they are taken out. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "core/loop/loop.h"
#include "support/support.h"
#include "transports/base/state.h"
#include "transports/datagram/queue.h"

static char pattern[CHUNK_LARGE + 64];

static struct io_datagram datagram_of(size_t size) {
    return (struct io_datagram){.data = pattern, .size = size};
}

/* Whether datagrams of these sizes share one chunk. */
static bool fit(struct world *world, const size_t *sizes, size_t count) {
    struct datagram_queue queue = {0};
    size_t before = world->live_bytes, sum = 0;
    for (size_t i = 0; i < count; i++) {
        struct io_datagram datagram = datagram_of(sizes[i]);
        assert_int_equal(tram__datagram_queue_add(world->loop, &queue, &datagram), 0);
        sum += sizes[i];
    }
    bool fits = queue.first == queue.last && world->live_bytes - before <= CHUNK_LARGE;
    assert_int_equal(tram__datagram_queue_drop(world->loop, &queue, count), sum);
    assert_true(!queue.first && !queue.last && !queue.count);
    return fits;
}

/* How much `count` datagrams hold in one chunk: all but the last have 8 bytes. */
static size_t most(struct world *world, size_t count) {
    size_t sizes[4], most = 0;
    for (size_t i = 0; i < count; i++)
        sizes[i] = 8;
    for (size_t last = 0; last <= CHUNK_LARGE; last += 8) {
        sizes[count - 1] = last;
        if (!fit(world, sizes, count))
            break;
        most = (count - 1) * 8 + last;
    }
    return most;
}

static void test_a_chunk_is_filled_to_its_last_byte(void **state) {
    struct world *world = *state;
    size_t alone = most(world, 1), two = most(world, 2), three = most(world, 3);
    assert_true(CHUNK_LARGE - alone < 64);
    assert_true(alone > two);
    assert_int_equal(alone - two, two - three); /* each costs the same, and none leaves a gap */
    /* A size that is no multiple of 8 takes what the next one takes. */
    size_t sizes[] = {8, two - 8 - 7};
    assert_true(fit(world, sizes, 2));
    sizes[1] = two - 8 + 1;
    assert_false(fit(world, sizes, 2));
}

static void check(const struct io_datagram *got, size_t size, const struct sockaddr_in *to, int ttl) {
    assert_int_equal(got->size, size);
    assert_memory_equal(got->data, pattern, size);
    assert_int_equal(got->address_size, to ? sizeof *to : 0);
    if (to)
        assert_memory_equal(got->address, to, sizeof *to);
    else
        assert_null(got->address);
    assert_true(!got->ancillary == !ttl);
    if (ttl)
        assert_int_equal(got->ancillary->ttl, ttl);
}

static void test_what_comes_out_went_in_over_many_chunks(void **state) {
    struct world *world = *state;
    struct datagram_queue queue = {0};
    const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(0x7f000001)};
    const struct io_ancillary beside = {.ttl = 9};
    static const size_t sizes[] = {0, 1, 7, 8, 9, 5000, 8000, 12000, CHUNK_LARGE, 3};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    for (unsigned i = 0; i < COUNT; i++) {
        struct io_datagram datagram = datagram_of(sizes[i]);
        if (i % 2) {
            datagram.address = (const struct sockaddr *)&to;
            datagram.address_size = sizeof to;
        }
        datagram.ancillary = i % 3 == 2 ? &beside : NULL;
        assert_int_equal(tram__datagram_queue_add(world->loop, &queue, &datagram), 0);
    }
    assert_int_equal(queue.count, COUNT);
    /* Ever fewer are there, and no more come than are asked for. */
    for (unsigned gone = 0; gone < COUNT; gone++) {
        struct io_datagram got[COUNT + 1];
        for (unsigned asked = 0; asked <= COUNT + 1; asked++) {
            unsigned there = COUNT - gone, expected = asked < there ? asked : there;
            memset(got, 0, sizeof got);
            assert_int_equal(tram__datagram_queue_gather(&queue, got, asked), expected);
            for (unsigned i = 0; i < expected; i++) {
                unsigned which = gone + i;
                check(&got[i], sizes[which], which % 2 ? &to : NULL, which % 3 == 2 ? 9 : 0);
            }
            if (expected <= COUNT)
                assert_null(got[expected].data); /* not touched */
        }
        assert_int_equal(tram__datagram_queue_drop(world->loop, &queue, 1), sizes[gone]);
    }
    assert_null(queue.first);
}

static void test_X_1_what_finds_no_memory_is_not_there(void **state) {
    struct world *world = *state;
    struct datagram_queue queue = {0};
    struct io_datagram small = datagram_of(10), large = datagram_of(CHUNK_LARGE), got[3];
    assert_int_equal(tram__datagram_queue_add(world->loop, &queue, &small), 0);
    world->fail_after = 0;
    assert_int_equal(tram__datagram_queue_add(world->loop, &queue, &large), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_int_equal(queue.count, 1);
    assert_int_equal(tram__datagram_queue_gather(&queue, got, 3), 1);
    assert_int_equal(tram__datagram_queue_add(world->loop, &queue, &small), 0); /* there is still room for it */
    assert_ptr_equal(queue.first, queue.last);
    assert_int_equal(tram__datagram_queue_drop(world->loop, &queue, 2), 20);
}

static int setup(void **state) {
    int status = world_setup(state);
    return status ? status : tram__transport_state_make(((struct world *)*state)->loop);
}

int main(void) {
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i * 7 + i / 256);
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)
        CASE(test_a_chunk_is_filled_to_its_last_byte),
        CASE(test_what_comes_out_went_in_over_many_chunks),
        CASE(test_X_1_what_finds_no_memory_is_not_there),
    };
    return cmocka_run_group_tests_name("datagram_queue", tests, NULL, NULL);
}
