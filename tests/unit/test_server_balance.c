/* How shards share connections: counting, choosing, and what becomes of one that cannot be handed over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "support/support.h"
#include "transports/server/balance.h"

#define WORKERS 3

/* Places without servers, on loops that this thread turns. */
struct table {
    struct world *world;
    struct balance balance;
    tram_loop *loops[WORKERS];
    unsigned arrived[WORKERS];
    unsigned looks[WORKERS];
    int fd;
    struct sockaddr_storage peer;
};

static struct table *table_of(struct worker_load *load) {
    return container_of(load->balance, struct table, balance);
}

static void arrived(struct worker_load *load, const struct accepted_socket *accepted) {
    struct table *table = table_of(load);
    table->arrived[load - table->balance.workers]++;
    table->fd = accepted->fd;
    memcpy(&table->peer, accepted->peer, sizeof table->peer);
    assert_int_equal(accepted->peer_size, sizeof(struct sockaddr_in));
}

static void poll_accept_queue(struct worker_load *load) {
    struct table *table = table_of(load);
    table->looks[load - table->balance.workers]++;
}

static const struct balance_ops ops = {.arrived = arrived, .poll_accept_queue = poll_accept_queue};

static struct table *table_new(struct world *world, const tram_server_options *options) {
    may_close_twice = true; /* what is accepted here are numbers, not descriptors */
    struct table *table = calloc(1, sizeof *table);
    table->world = world;
    assert_int_equal(tram__balance_init(&table->balance, &world->allocator, WORKERS, options), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(tram_loop_new(&world->options, &table->loops[i]), 0);
        tram__balance_bind(&table->balance.workers[i], table->loops[i]);
        tram__balance_open(&table->balance.workers[i], (tram_server *)table, &ops);
    }
    return table;
}

static void table_free(struct table *table) {
    for (unsigned i = 0; i < WORKERS; i++)
        tram_loop_free(table->loops[i]);
    tram__balance_fini(&table->balance);
    free(table);
}

static void turn(tram_loop *loop) {
    tram_loop_stop(loop);
    tram_loop_run_forever(loop);
}

static struct sockaddr_storage address(void) {
    struct sockaddr_storage storage = {0};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons(4711), .sin_addr.s_addr = htonl(0x7f000001)};
    memcpy(&storage, &inet, sizeof inet);
    return storage;
}

/* What a worker does with a connection that it accepted. */
static bool accept_at(struct table *table, unsigned worker, int fd) {
    struct sockaddr_storage peer = address();
    struct accepted_socket accepted = {.fd = fd, .peer = &peer, .peer_size = sizeof(struct sockaddr_in)};
    struct worker_load *load = &table->balance.workers[worker];
    bool handed = balance_hand_over(load, &accepted);
    if (!handed)
        balance_count(load, 1);
    return handed;
}

static uint32_t load_of(const struct table *table, unsigned worker) {
    return balance_load(&table->balance.workers[worker]);
}

static void assert_loads(const struct table *table, uint32_t first, uint32_t second, uint32_t third) {
    assert_int_equal(load_of(table, 0), first);
    assert_int_equal(load_of(table, 1), second);
    assert_int_equal(load_of(table, 2), third);
}

static void test_V_26_level_ones_keep_what_they_accept(void **state) {
    const tram_server_options options = {0};
    struct table *table = table_new(*state, &options);
    for (int i = 0; i < 2; i++)
        for (unsigned worker = 0; worker < WORKERS; worker++)
            assert_false(accept_at(table, worker, 100));
    assert_false(accept_at(table, 0, 100));
    assert_loads(table, 3, 2, 2);
    assert_false(accept_at(table, 0, 100));
    assert_loads(table, 4, 2, 2);
    /* Two more than another is clearly more; those who are looked at take turns. */
    assert_true(accept_at(table, 0, 100));
    assert_true(accept_at(table, 0, 101));
    assert_loads(table, 4, 3, 3);
    assert_false(accept_at(table, 0, 100));
    assert_false(accept_at(table, 1, 100));
    assert_loads(table, 5, 4, 3);
    table_free(table);
}

static void test_V_26_many_must_differ_by_more(void **state) {
    const tram_server_options options = {0};
    struct table *table = table_new(*state, &options);
    for (unsigned worker = 0; worker < WORKERS; worker++)
        balance_count(&table->balance.workers[worker], 1600);
    for (int i = 0; i < 108; i++)
        assert_false(accept_at(table, 0, 100));
    assert_true(accept_at(table, 0, 100)); /* 1708: by 2 and a sixteenth, 106 */
    table_free(table);
}

static void test_V_26_arrival_changes_no_count(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    struct table *table = table_new(*state, &options);
    assert_true(accept_at(table, 0, 100));
    assert_true(accept_at(table, 0, 101));
    assert_false(accept_at(table, 0, 102)); /* its own turn */
    assert_loads(table, 1, 1, 1);
    turn(table->loops[1]);
    assert_int_equal(table->arrived[1], 1);
    assert_int_equal(table->fd, 100);
    struct sockaddr_storage peer = address();
    assert_memory_equal(&table->peer, &peer, sizeof peer);
    assert_loads(table, 1, 1, 1);
    balance_count(&table->balance.workers[1], -1); /* it ended */
    assert_loads(table, 1, 0, 1);
    assert_true(accept_at(table, 0, 103));
    assert_loads(table, 1, 1, 1);
    turn(table->loops[1]);
    turn(table->loops[2]);
    assert_int_equal(table->arrived[1], 2);
    assert_int_equal(table->arrived[2], 1);
    tram_stats stats;
    tram_loop_stats(table->loops[0], &stats);
    assert_int_equal(stats.handed_over, 3);
    tram_loop_stats(table->loops[1], &stats);
    assert_int_equal(stats.taken_over, 2);
    table_free(table);
}

static void test_V_26_off_where_it_was_switched_off(void **state) {
    const tram_server_options cases[] = {
        {.keep_where_accepted = true},
        {.shard = TRAM_SHARD_SHARED, .keep_where_accepted = true},
        {.shard = TRAM_SHARD_FIXED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct table *table = table_new(*state, &cases[i]);
        for (int j = 0; j < 100; j++)
            assert_false(accept_at(table, 0, 100));
        assert_loads(table, 100, 0, 0);
        table_free(table);
    }
}

static void test_V_27_without_memory_it_is_served_where_it_was_accepted(void **state) {
    struct world *world = *state;
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    world->options.allocator = NULL;
    world->options.faults = faults;
    struct table *table = table_new(world, &options);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, 1, 2, ENOMEM), 0);
    assert_false(accept_at(table, 0, 100));
    assert_false(accept_at(table, 0, 100));
    assert_int_equal(tram_faults_injected(faults), 2);
    assert_loads(table, 2, 0, 0);
    assert_true(accept_at(table, 0, 100));
    turn(table->loops[1]);
    turn(table->loops[2]);
    table_free(table);
    tram_faults_free(faults);
}

static void test_V_27_nothing_goes_to_a_closed_place(void **state) {
    const tram_server_options cases[] = {{0}, {.shard = TRAM_SHARD_HANDOFF}};
    for (size_t i = 0; i < 2; i++) {
        struct table *table = table_new(*state, &cases[i]);
        balance_close(&table->balance.workers[1]);
        balance_close(&table->balance.workers[2]);
        for (int j = 0; j < 10; j++)
            assert_false(accept_at(table, 0, 100));
        assert_loads(table, 10, 0, 0);
        assert_false(tram__balance_has_inbound(&table->balance.workers[1]));
        table_free(table);
    }
}

static void test_V_27_what_comes_after_the_close_arrives(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    struct table *table = table_new(*state, &options);
    assert_true(accept_at(table, 0, 100));
    balance_close(&table->balance.workers[1]);
    assert_true(tram__balance_has_inbound(&table->balance.workers[1])); /* so its worker does not leave */
    turn(table->loops[1]);
    assert_int_equal(table->arrived[1], 1);
    assert_true(tram__balance_has_inbound(&table->balance.workers[1])); /* it came just now, and is to be heard */
    assert_false(tram__balance_has_inbound(&table->balance.workers[1]));
    table_free(table);
}

static void test_V_27_a_loop_that_was_closed_takes_nothing_and_closes_what_it_had(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    struct table *table = table_new(*state, &options);
    int fd = dup(0);
    assert_true(accept_at(table, 0, fd));
    assert_int_equal(tram_loop_close(table->loops[1]), 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(table->arrived[1], 0);
    assert_loads(table, 0, 0, 0);
    assert_true(accept_at(table, 0, 100));  /* place 2 */
    assert_false(accept_at(table, 0, 100)); /* itself */
    assert_false(accept_at(table, 0, 100)); /* place 1 has the fewest, and no loop */
    assert_loads(table, 2, 0, 1);
    turn(table->loops[2]);
    table_free(table);
}

static void test_V_30_others_look_when_the_kernel_may_have_moved_clients(void **state) {
    const tram_server_options options = {0};
    struct table *table = table_new(*state, &options);
    balance_close(&table->balance.workers[0]);
    tram__balance_notify_peers(&table->balance.workers[0]);
    turn(table->loops[1]);
    assert_int_equal(table->looks[1], 0);
    table->balance.migrates = true;
    tram__balance_leave(&table->balance.workers[2]);
    tram__balance_notify_peers(&table->balance.workers[0]);
    for (unsigned i = 0; i < WORKERS; i++)
        turn(table->loops[i]);
    assert_int_equal(table->looks[0], 0);
    assert_int_equal(table->looks[1], 1);
    assert_int_equal(table->looks[2], 0);
    table_free(table);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(V_26_level_ones_keep_what_they_accept),
        TEST(V_26_many_must_differ_by_more),
        TEST(V_26_arrival_changes_no_count),
        TEST(V_26_off_where_it_was_switched_off),
        TEST(V_27_without_memory_it_is_served_where_it_was_accepted),
        TEST(V_27_nothing_goes_to_a_closed_place),
        TEST(V_27_what_comes_after_the_close_arrives),
        TEST(V_27_a_loop_that_was_closed_takes_nothing_and_closes_what_it_had),
        TEST(V_30_others_look_when_the_kernel_may_have_moved_clients),
    };
    return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
