/* How late a loop is, and which callbacks were slow: with a clock that moves when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "core/loop/lag.h"
#include "core/loop/loop.h"
#include "support/support.h"

#define MS 1000000u

/* ---- A clock ---- */

static uint64_t fake_now;
static unsigned clock_reads;
static struct sys fake_sys;

static int fake_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    clock_reads++;
    *ret_time =
        (struct timespec){.tv_sec = (time_t)(fake_now / 1000000000u), .tv_nsec = (long)(fake_now % 1000000000u)};
    return 0;
}

static struct world *reopen(void **state, bool measure_lag, bool time_callbacks, bool debug) {
    struct world *world = *state;
    fake_now = 1000000000u;
    fake_sys = tram__sys;
    fake_sys.clock_gettime = fake_clock;
    world->options.measure_lag = measure_lag;
    world->options.time_callbacks = time_callbacks;
    world->options.debug = debug;
    world->options.slow_callback_ns = 100 * MS;
    world_use_sys(world, &fake_sys);
    return world;
}

/* Takes as long as its argument says. */
static int take_time(tram_loop *loop, void *arg) {
    (void)loop;
    fake_now += *(const uint64_t *)arg;
    return 0;
}

static int take_time_elsewhere(tram_loop *loop, void *arg) {
    fake_now += 1;
    return take_time(loop, arg);
}

static void run_for(struct world *world, tram_callback callback, uint64_t duration_ns) {
    assert_int_equal(tram_loop_call_soon(world->loop, callback, &duration_ns, NULL, NULL), 0);
    run_ticks(world, 1);
}

/* ---- Buckets ---- */

static void test_every_lag_has_the_bucket_whose_bound_it_does_not_exceed(void **state) {
    (void)state;
    assert_int_equal(tram_lag_bound(0), 4000);
    assert_int_equal(tram_lag_bound(TRAM_LAG_BUCKETS - 2), 16777216000u);
    assert_true(tram_lag_bound(TRAM_LAG_BUCKETS - 1) == TRAM_FOREVER);
    assert_true(tram_lag_bound(UINT32_MAX) == TRAM_FOREVER);
    assert_int_equal(lag_bucket(0), 0);
    assert_int_equal(lag_bucket(1), 0);
    for (unsigned i = 0; i + 1 < TRAM_LAG_BUCKETS; i++) {
        assert_int_equal(lag_bucket(tram_lag_bound(i)), i);
        assert_int_equal(lag_bucket(tram_lag_bound(i) + 1), i + 1);
        assert_true(i == 0 || tram_lag_bound(i) == 2 * tram_lag_bound(i - 1));
    }
    assert_int_equal(lag_bucket(UINT64_MAX), TRAM_LAG_BUCKETS - 1);
}

static void test_a_tick_is_as_late_as_what_it_ran_took(void **state) {
    struct world *world = reopen(state, true, false, false);
    static const uint64_t durations[] = {0, 4000, 5 * MS, 5 * MS, 60000ull * MS};
    tram_lag lag;
    uint64_t sum = 0, buckets[TRAM_LAG_BUCKETS] = {0};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        run_for(world, take_time, durations[i]);
        fake_now += 3600ull * 1000 * MS; /* between ticks nobody waits */
        sum += durations[i];
        buckets[lag_bucket(durations[i])]++;
    }
    assert_true(tram_loop_lag(world->loop, &lag));
    assert_memory_equal(lag.buckets, buckets, sizeof buckets);
    assert_int_equal(lag.sum_ns, sum);
    assert_int_equal(lag.longest_ns, 60000ull * MS);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.slow_ticks, 1);
    assert_int_equal(stats.slow_callbacks, 0);
}

/* Time passes in a wait, too, and only there. */
static int sleepy_wait(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    fake_now += (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec;
    return tram__sys.epoll_wait(epoll, events, count, 0);
}

static int stop_now(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void test_waiting_is_not_lag(void **state) {
    struct world *world = reopen(state, true, false, false);
    fake_sys.epoll_pwait2 = sleepy_wait;
    uint64_t before = fake_now;
    assert_int_equal(tram_loop_call_later(world->loop, 50 * MS, stop_now, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_true(fake_now - before >= 50 * MS);
    tram_lag lag;
    assert_true(tram_loop_lag(world->loop, &lag));
    assert_true(lag.buckets[0] > 0);
    assert_int_equal(lag.sum_ns, 0);
}

static void test_nothing_is_measured_unless_asked_for(void **state) {
    struct world *world = reopen(state, false, false, false);
    run_for(world, take_time, 500 * MS);
    tram_lag lag, none = {0};
    tram_stats stats;
    assert_false(tram_loop_lag(world->loop, &lag));
    assert_memory_equal(&lag, &none, sizeof none);
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.slow_ticks, 0);
    assert_int_equal(stats.slow_callbacks, 0);
    assert_int_equal(tram_loop_slow_sites(world->loop, NULL, 0), 0);
    clock_reads = 0;
    run_ticks(world, 10);
    assert_int_equal(clock_reads, 0);
}

/* ---- What it costs ---- */

static int count_down(tram_loop *loop, void *arg) {
    unsigned *left = arg;
    fake_now += 10;
    if (--*left == 0)
        return tram_loop_stop(loop);
    return tram_loop_call_at(loop, fake_now, count_down, arg, NULL, NULL);
}

/* Readings of the clock in `ticks` turns of a loop that has timers always. */
static unsigned reads_with_timers(struct world *world, unsigned ticks) {
    unsigned left = ticks;
    assert_int_equal(tram_loop_call_at(world->loop, fake_now, count_down, &left, NULL, NULL), 0);
    clock_reads = 0;
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    return clock_reads;
}

static void test_a_loop_with_timers_measures_at_no_cost(void **state) {
    unsigned without = reads_with_timers(reopen(state, false, false, false), 100);
    unsigned with = reads_with_timers(reopen(state, true, false, false), 100);
    assert_true(with <= without + 1); /* the last tick ends with one, too */
    assert_true(without >= 200);
}

static void test_a_loop_without_timers_reads_the_clock_twice_a_tick(void **state) {
    struct world *world = reopen(state, true, false, false);
    run_ticks(world, 1);
    clock_reads = 0;
    run_ticks(world, 10);
    assert_int_equal(clock_reads, 20);
}

/* ---- Slow callbacks ---- */

static void test_slow_callbacks_are_remembered_with_what_they_were(void **state) {
    struct world *world = reopen(state, false, true, false);
    tram_slow_site sites[TRAM_SLOW_SITES + 1];
    run_for(world, take_time, 99 * MS);
    assert_int_equal(tram_loop_slow_sites(world->loop, sites, 1), 0);
    run_for(world, take_time, 100 * MS);
    run_for(world, take_time_elsewhere, 300 * MS);
    run_for(world, take_time, 200 * MS);
    run_for(world, take_time, 150 * MS);
    memset(sites, 0, sizeof sites);
    assert_int_equal(tram_loop_slow_sites(world->loop, sites, 1), 2);
    assert_null(sites[1].kind);
    assert_int_equal(tram_loop_slow_sites(world->loop, sites, TRAM_SLOW_SITES + 1), 2);
    assert_string_equal(sites[0].kind, "callback");
    assert_ptr_equal(sites[0].function, (void *)(uintptr_t)take_time);
    assert_int_equal(sites[0].count, 3);
    assert_int_equal(sites[0].sum_ns, 450 * MS);
    assert_int_equal(sites[0].worst_ns, 200 * MS);
    assert_ptr_equal(sites[1].function, (void *)(uintptr_t)take_time_elsewhere);
    assert_int_equal(sites[1].count, 1);
    assert_int_equal(sites[1].worst_ns, 300 * MS + 1);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.slow_callbacks, 4);
    /* Only debug mode logs them. */
    assert_int_equal(world->warnings, 0);
    assert_int_equal(tram_loop_set_debug(world->loop, true), 0);
    run_for(world, take_time, 100 * MS);
    assert_int_equal(world->warnings, 1);
    assert_int_equal(tram_loop_set_debug(world->loop, false), 0);
    run_for(world, take_time, 100 * MS);
    assert_int_equal(tram_loop_slow_sites(world->loop, sites, 1), 2);
    assert_int_equal(sites[0].count, 5);
}

static void test_L_30_debug_mode_remembers_slow_callbacks(void **state) {
    struct world *world = reopen(state, false, false, true);
    tram_slow_site site;
    assert_int_equal(tram_loop_set_slow_callback_duration(world->loop, 5), 0);
    run_for(world, take_time, 4);
    run_for(world, take_time, 5);
    assert_int_equal(tram_loop_slow_sites(world->loop, &site, 1), 1);
    assert_int_equal(site.count, 1);
    assert_int_equal(tram_loop_set_debug(world->loop, false), 0);
    run_for(world, take_time, 5);
    assert_int_equal(tram_loop_slow_sites(world->loop, &site, 1), 1);
    assert_int_equal(site.count, 1);
}

static int slow_data(struct recorder *recorder, const char *event) {
    (void)recorder;
    fake_now += strcmp(event, "data") == 0 ? 200 * MS : 0;
    return 0;
}

static void test_a_protocol_is_named_by_its_callback(void **state) {
    struct world *world = reopen(state, false, true, false);
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    recorder->on = slow_data;
    send_exactly(world, wire.peer, "hello", 5);
    run_until_traced(world, "data:5");
    tram_slow_site site;
    assert_int_equal(tram_loop_slow_sites(world->loop, &site, 1), 1);
    assert_string_equal(site.kind, "data_received");
    assert_ptr_equal(site.function, (void *)(uintptr_t)recorder->base.ops->data_received);
    assert_int_equal(tram_transport_abort(wire.transport), 0);
    run_to_rest(world);
    close(wire.peer);
}

static void test_sites_that_find_no_place_share_the_last(void **state) {
    (void)state;
    static struct slow_sites table;
    static const char functions[TRAM_SLOW_SITES + 10];
    tram_slow_site sites[TRAM_SLOW_SITES + 2];
    for (int round = 1; round <= 2; round++)
        for (size_t i = 0; i < sizeof functions; i++)
            tram__slow_sites_add(&table, "callback", &functions[i], (uint64_t)(i + 1));
    assert_int_equal(tram__slow_sites_read(&table, sites, TRAM_SLOW_SITES + 2), TRAM_SLOW_SITES + 1);
    for (size_t i = 0; i < TRAM_SLOW_SITES; i++) {
        assert_ptr_equal(sites[i].function, &functions[i]);
        assert_int_equal(sites[i].count, 2);
    }
    assert_string_equal(sites[TRAM_SLOW_SITES].kind, "other");
    assert_null(sites[TRAM_SLOW_SITES].function);
    assert_int_equal(sites[TRAM_SLOW_SITES].count, 20);
    assert_int_equal(sites[TRAM_SLOW_SITES].worst_ns, TRAM_SLOW_SITES + 10);
}

static void test_one_function_of_two_kinds_is_two_sites(void **state) {
    (void)state;
    static struct slow_sites table;
    static const char function;
    static const char reader[] = "reader", writer[] = "writer";
    tram_slow_site sites[2];
    tram__slow_sites_add(&table, reader, &function, 1);
    tram__slow_sites_add(&table, writer, &function, 2);
    assert_int_equal(tram__slow_sites_read(&table, sites, 2), 2);
    assert_string_equal(sites[0].kind, "reader");
    assert_string_equal(sites[1].kind, "writer");
}

/* ---- From another thread ---- */

struct reading {
    const struct slow_sites *table;
    const tram_lag *lag;
    _Atomic bool end;
    size_t seen;
};

static const char many_functions[TRAM_SLOW_SITES];

/* A site has its name from the first moment on, and numbers never fall. */
static void *read_always(void *arg) {
    struct reading *reading = arg;
    tram_slow_site sites[TRAM_SLOW_SITES + 1];
    uint64_t before = 0;
    bool end;
    do {
        end = atomic_load(&reading->end);
        size_t known = tram__slow_sites_read(reading->table, sites, TRAM_SLOW_SITES + 1);
        for (size_t i = 0; i < known; i++)
            if (sites[i].function != &many_functions[i] || !sites[i].kind || !sites[i].count || !sites[i].sum_ns)
                return "a site is not what it should be";
        if (known < reading->seen)
            return "a site went";
        reading->seen = known;
        tram_lag lag;
        tram__lag_read(reading->lag, &lag);
        if (lag.sum_ns < before)
            return "the lag fell";
        before = lag.sum_ns;
    } while (!end);
    return NULL;
}

static void test_any_thread_reads_while_the_loop_writes(void **state) {
    (void)state;
    static struct slow_sites table;
    static tram_lag lag;
    struct reading reading = {.table = &table, .lag = &lag};
    pthread_t thread;
    void *complaint;
    assert_int_equal(pthread_create(&thread, NULL, read_always, &reading), 0);
    for (unsigned i = 0; i < 20000; i++) {
        tram__slow_sites_add(&table, "callback", &many_functions[i % (1 + i / 500) % TRAM_SLOW_SITES], 1);
        tram__lag_add(&lag, i);
    }
    atomic_store(&reading.end, true);
    assert_int_equal(pthread_join(thread, &complaint), 0);
    if (complaint)
        fail_msg("%s", (const char *)complaint);
    assert_int_equal(reading.seen, TRAM_SLOW_SITES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_lag_has_the_bucket_whose_bound_it_does_not_exceed),
        TEST(test_a_tick_is_as_late_as_what_it_ran_took),
        TEST(test_waiting_is_not_lag),
        TEST(test_nothing_is_measured_unless_asked_for),
        TEST(test_a_loop_with_timers_measures_at_no_cost),
        TEST(test_a_loop_without_timers_reads_the_clock_twice_a_tick),
        TEST(test_slow_callbacks_are_remembered_with_what_they_were),
        TEST(test_L_30_debug_mode_remembers_slow_callbacks),
        TEST(test_a_protocol_is_named_by_its_callback),
        cmocka_unit_test(test_sites_that_find_no_place_share_the_last),
        cmocka_unit_test(test_one_function_of_two_kinds_is_two_sites),
        cmocka_unit_test(test_any_thread_reads_while_the_loop_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
