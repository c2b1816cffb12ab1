/* The table of sources: who is one, how many it lets in, and what it weighs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/un.h>

#include "support/support.h"
#include "transports/limits/siphash.h"
#include "transports/limits/sources.h"

static const struct sources_options two_of_each = {.most = 2, .bits_ipv4 = 32, .bits_ipv6 = 64};

static struct sources *sources_new(struct world *world, const struct sources_options *options) {
    struct sources *sources;
    assert_int_equal(tram__sources_new(&world->allocator, options, &sources), 0);
    return sources;
}

static struct sockaddr_in6 peer(const char *text) {
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(4711)};
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(4711)};
    if (inet_pton(AF_INET6, text, &ipv6.sin6_addr) != 1) {
        assert_int_equal(inet_pton(AF_INET, text, &ipv4.sin_addr), 1);
        memcpy(&ipv6, &ipv4, sizeof ipv4);
    }
    return ipv6;
}

static int enter(struct sources *sources, const char *text) {
    struct sockaddr_in6 address = peer(text);
    return tram__sources_enter(sources, &address);
}

static void leave(struct sources *sources, const char *text) {
    struct sockaddr_in6 address = peer(text);
    tram__sources_leave(sources, &address);
}

/* With key 0: PYTHONHASHSEED=0 python3 -c 'print(hex(hash(bytes(16)) & 2**64 - 1))', where Python has siphash13. */
static void test_known_answers_of_the_hash(void **state) {
    (void)state;
    static const uint64_t zero[2] = {0}, counted[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    static const struct {
        uint64_t first, second, with_zero, with_counted;
    } list[] = {
        {0, 0, 0x76be999e3e25b2a0, 0x403e4b0d4f19f787},
        {0x0706050403020100, 0x0f0e0d0c0b0a0908, 0x8972188433a5c5b7, 0xcc4fdd1a7d908b66},
        {0xc0000201, 2, 0xd3cee454c4493fb9, 0x9149713247f7a03a},
        {UINT64_MAX, UINT64_MAX, 0x35029a3b6274a39b, 0x04c3a2db341281ec},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        assert_true(siphash_1_3(zero, list[i].first, list[i].second) == list[i].with_zero);
        assert_true(siphash_1_3(counted, list[i].first, list[i].second) == list[i].with_counted);
    }
}

static void test_V_33_so_many_of_each_and_no_more(void **state) {
    struct sources *sources = sources_new(*state, &two_of_each);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(enter(sources, "192.0.2.1"), SOURCE_ENTERED);
        assert_int_equal(enter(sources, "192.0.2.2"), SOURCE_ENTERED);
    }
    assert_int_equal(enter(sources, "192.0.2.1"), SOURCE_FULL);
    leave(sources, "192.0.2.1");
    assert_int_equal(enter(sources, "192.0.2.2"), SOURCE_FULL);
    assert_int_equal(enter(sources, "192.0.2.1"), SOURCE_ENTERED);
    assert_int_equal(tram__sources_count(sources), 2);
    for (int i = 0; i < 2; i++) {
        leave(sources, "192.0.2.1");
        leave(sources, "192.0.2.2");
    }
    assert_int_equal(tram__sources_count(sources), 0);
    tram__sources_free(sources);
}

static void test_V_33_a_network_of_ipv6_is_one_source(void **state) {
    struct sources *sources = sources_new(*state, &two_of_each);
    assert_int_equal(enter(sources, "2001:db8:1:2::1"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "2001:db8:1:2:ffff::5"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "2001:db8:1:2:3:4:5:6"), SOURCE_FULL);
    assert_int_equal(enter(sources, "2001:db8:1:3::1"), SOURCE_ENTERED);
    leave(sources, "2001:db8:1:2::abcd");
    assert_int_equal(enter(sources, "2001:db8:1:2:3:4:5:6"), SOURCE_ENTERED);
    tram__sources_free(sources);
}

static void test_V_33_ipv4_through_ipv6_is_the_same_source(void **state) {
    struct sources *sources = sources_new(*state, &two_of_each);
    assert_int_equal(enter(sources, "::ffff:192.0.2.1"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "192.0.2.1"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "::ffff:192.0.2.1"), SOURCE_FULL);
    assert_int_equal(enter(sources, "::ffff:192.0.2.2"), SOURCE_ENTERED); /* no network of all of them */
    assert_int_equal(enter(sources, "::c000:201"), SOURCE_ENTERED);       /* another family */
    assert_int_equal(tram__sources_count(sources), 3);
    tram__sources_free(sources);
}

static void test_V_33_sources_of_as_many_bits_as_was_asked(void **state) {
    const struct sources_options options = {.most = 1, .bits_ipv4 = 20, .bits_ipv6 = 1};
    struct sources *sources = sources_new(*state, &options);
    assert_int_equal(enter(sources, "10.0.16.0"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "10.0.31.255"), SOURCE_FULL);
    assert_int_equal(enter(sources, "10.0.32.0"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "1::"), SOURCE_ENTERED);
    assert_int_equal(enter(sources, "7fff::"), SOURCE_FULL);
    assert_int_equal(enter(sources, "8000::"), SOURCE_ENTERED);
    tram__sources_free(sources);
}

static void test_V_33_who_has_no_address_always_gets_in(void **state) {
    struct sources *sources = sources_new(*state, &two_of_each);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    for (int i = 0; i < 10; i++)
        assert_int_equal(tram__sources_enter(sources, &local), SOURCE_ENTERED);
    assert_int_equal(tram__sources_count(sources), 0);
    for (int i = 0; i < 10; i++)
        tram__sources_leave(sources, &local);
    tram__sources_free(sources);
}

static struct sockaddr_in numbered(uint32_t number) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(number)};
}

/* Comings and goings by chance, beside a plain array. */
static void test_V_33_counts_are_right_whoever_comes_and_goes(void **state) {
    enum { PEERS = 300, STEPS = 200000 };
    for (int shared = 0; shared < 2; shared++) {
        struct sources_options options = {.most = 3, .bits_ipv4 = 32, .bits_ipv6 = 64, .shared = shared};
        struct sources *sources = sources_new(*state, &options);
        unsigned counts[PEERS] = {0}, seed = 1;
        size_t present = 0;
        for (int i = 0; i < STEPS; i++) {
            seed = seed * 1103515245 + 12345;
            unsigned who = (seed >> 8) % PEERS;
            bool comes = seed >> 30 & 1;
            if (i / 20000 % 2) /* in some hours hardly anyone is there */
                comes = comes && who % 16 == 0;
            struct sockaddr_in address = numbered(who << 16);
            if (comes) {
                assert_int_equal(tram__sources_enter(sources, &address),
                                 counts[who] < 3 ? SOURCE_ENTERED : SOURCE_FULL);
                present += counts[who] == 0;
                counts[who] += counts[who] < 3;
            } else if (counts[who]) {
                tram__sources_leave(sources, &address);
                present -= --counts[who] == 0;
            }
            assert_int_equal(tram__sources_count(sources), present);
        }
        tram__sources_free(sources);
    }
}

static void test_V_33_the_table_is_as_large_as_its_sources_make_it(void **state) {
    enum { MANY = 100000 };
    struct world *world = *state;
    struct sources_options options = two_of_each;
    options.shared = true;
    struct sources *sources = sources_new(world, &options);
    size_t empty = world->live_bytes;
    for (uint32_t i = 0; i < MANY; i++) {
        struct sockaddr_in address = numbered(i);
        assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED);
    }
    assert_int_equal(tram__sources_count(sources), MANY);
    assert_true(tram__sources_room(sources) < 4 * MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        struct sockaddr_in address = numbered(i);
        tram__sources_leave(sources, &address);
    }
    assert_int_equal(tram__sources_count(sources), 0);
    assert_true(tram__sources_room(sources) <= 512);
    assert_true(world->live_bytes - empty <= 512 * 16);
    tram__sources_free(sources);
}

/* Between two sizes all are found, nobody is counted twice, and no call does much of the change. */
static void test_V_33_a_change_of_size_is_spread_over_many_calls(void **state) {
    enum { MANY = 200000 };
    struct sources *sources = sources_new(*state, &two_of_each);
    struct sockaddr_in address;
    for (uint32_t i = 0; i < MANY; i++) {
        address = numbered(i);
        assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED);
        address = numbered(i / 2);
        assert_int_equal(tram__sources_enter(sources, &address), i % 2 ? SOURCE_FULL : SOURCE_ENTERED);
        assert_int_equal(tram__sources_count(sources), i + 1);
    }
    assert_in_range(tram__sources_most_work(sources), 16, 300);
    for (uint32_t i = 0; i < MANY; i++) {
        address = numbered(i);
        if (i < MANY / 2) {
            assert_int_equal(tram__sources_enter(sources, &address), SOURCE_FULL);
            tram__sources_leave(sources, &address);
        }
        tram__sources_leave(sources, &address);
        assert_int_equal(tram__sources_count(sources), MANY - 1 - i);
    }
    assert_in_range(tram__sources_most_work(sources), 16, 300);
    assert_in_range(tram__sources_room(sources), 16, 32);
    tram__sources_free(sources);
}

/* However many tables of one: it is found wherever it stands, the first slot and the last. */
static void test_one_alone_is_a_run_of_one(void **state) {
    for (uint32_t i = 0; i < 400; i++) {
        struct sources *sources = sources_new(*state, &two_of_each);
        struct sockaddr_in address = numbered(i);
        assert_int_equal(tram__sources_longest_run(sources), 0);
        assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED);
        assert_int_equal(tram__sources_longest_run(sources), 1);
        tram__sources_free(sources);
    }
}

/*
 * Addresses with the same low bits, or the same high bits, or all in a row: whatever somebody chooses who does not know
 * the secret, they spread. The longest run of a table that is at most three quarters full is short; where all meet it
 * would be thousands.
 */
static void test_V_33_nobody_can_choose_addresses_that_meet(void **state) {
    enum { MANY = 20000 };
    const unsigned shifts[] = {0, 8, 12, 16};
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
        struct sources *sources = sources_new(*state, &two_of_each);
        for (uint32_t j = 0; j < MANY; j++) {
            struct sockaddr_in6 address = {.sin6_family = AF_INET6};
            uint64_t network = htobe64((uint64_t)j << (shifts[i] * 2));
            memcpy(&address.sin6_addr, &network, sizeof network);
            assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED);
        }
        assert_true(tram__sources_longest_run(sources) < 500);
        tram__sources_free(sources);
    }
}

static void test_X_1_without_memory_it_gets_crowded_and_then_refuses(void **state) {
    struct world *world = *state;
    struct sources *sources = sources_new(world, &two_of_each);
    struct sockaddr_in address = numbered(0);
    world->fail_after = 0;
    assert_int_equal(tram__sources_enter(sources, &address), -ENOMEM);
    assert_int_equal(tram__sources_count(sources), 0);
    world->fail_after = 1;
    uint32_t entered = 0;
    for (address = numbered(0); tram__sources_enter(sources, &address) == SOURCE_ENTERED; address = numbered(entered))
        entered++;
    assert_int_equal(entered, tram__sources_room(sources) - 1);
    assert_int_equal(tram__sources_count(sources), entered);
    address = numbered(3);
    assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED); /* it is there already */
    world->fail_after = SIZE_MAX;
    address = numbered(entered);
    assert_int_equal(tram__sources_enter(sources, &address), SOURCE_ENTERED);
    for (uint32_t i = 0; i < entered; i++) {
        address = numbered(i);
        tram__sources_leave(sources, &address);
    }
    tram__sources_free(sources);
}

/* ---- By several threads ---- */

struct crowd {
    struct sources *sources;
    _Atomic unsigned inside[8];
    _Atomic unsigned most;
};

static void *come_and_go(void *arg) {
    struct crowd *crowd = arg;
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t who = i % 8;
        struct sockaddr_in address = numbered(who);
        if (tram__sources_enter(crowd->sources, &address) != SOURCE_ENTERED)
            continue;
        unsigned now = ++crowd->inside[who];
        if (now > crowd->most)
            crowd->most = now;
        crowd->inside[who]--;
        tram__sources_leave(crowd->sources, &address);
    }
    return NULL;
}

static void test_V_32_V_33_several_workers_share_the_counts(void **state) {
    struct sources_options options = two_of_each;
    options.shared = true;
    struct crowd crowd = {.sources = sources_new(*state, &options)};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowd), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(crowd.most <= 2);
    assert_int_equal(tram__sources_count(crowd.sources), 0);
    tram__sources_free(crowd.sources);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers_of_the_hash),
        TEST(V_33_so_many_of_each_and_no_more),
        TEST(V_33_a_network_of_ipv6_is_one_source),
        TEST(V_33_ipv4_through_ipv6_is_the_same_source),
        TEST(V_33_sources_of_as_many_bits_as_was_asked),
        TEST(V_33_who_has_no_address_always_gets_in),
        TEST(V_33_counts_are_right_whoever_comes_and_goes),
        TEST(V_33_the_table_is_as_large_as_its_sources_make_it),
        TEST(V_33_a_change_of_size_is_spread_over_many_calls),
        TEST(one_alone_is_a_run_of_one),
        TEST(V_33_nobody_can_choose_addresses_that_meet),
        TEST(X_1_without_memory_it_gets_crowded_and_then_refuses),
        TEST(V_32_V_33_several_workers_share_the_counts),
    };
    return cmocka_run_group_tests_name("sources", tests, NULL, NULL);
}
