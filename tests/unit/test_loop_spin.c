/* A loop that spins before it sleeps, always (tram_loop_options.spin_ns) or after mail, on a clock of the test's own.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "core/backend/backend.h"
#include "core/loop/loop.h"
#include "support/support.h"

#define SPIN_NS 200000000u
#define LATE_NS 10000u /* what a loop that spins may take to see something */

static uint64_t clock_ns;
static uint64_t event_at; /* when something comes */
static void (*event)(void);
static uint64_t step_ns; /* what a reading takes */
static unsigned looks;   /* at the descriptors, without sleeping */
static bool slept;
static int64_t sleep_ns; /* how long it was to be */

static int own_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    clock_ns += step_ns;
    if (event && clock_ns >= event_at) {
        void (*happens)(void) = event;
        event = NULL;
        happens();
    }
    *ret_time = (struct timespec){.tv_sec = (time_t)(clock_ns / 1000000000), .tv_nsec = (long)(clock_ns % 1000000000)};
    return 0;
}

static int own_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    if (timeout_ms) {
        slept = true;
        sleep_ns = -1;
        timeout_ms = 1000;
    } else if (!slept) {
        looks++;
    }
    return tram__sys.epoll_wait(epoll, events, count, timeout_ms);
}

static int own_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    const struct timespec now = {0};
    slept = true;
    sleep_ns = timeout->tv_sec * 1000000000 + timeout->tv_nsec;
    clock_ns += (uint64_t)sleep_ns;
    return tram__sys.epoll_pwait2(epoll, events, count, &now);
}

static struct world *world;
static int pair[2];
static uint64_t seen_at;

static void set_up(void **state) {
    static struct sys sys;
    world = *state;
    sys = tram__sys;
    sys.clock_gettime = own_clock;
    sys.epoll_wait = own_wait;
    sys.epoll_pwait2 = own_pwait2;
    clock_ns = 1000000;
    step_ns = 100;
    looks = 0;
    event = NULL;
    slept = false;
    seen_at = 0;
    world->options.spin_ns = SPIN_NS;
    world_use_sys(world, &sys);
}

static int see(tram_loop *loop, void *arg) {
    char byte;
    seen_at = clock_ns;
    if (arg)
        assert_int_equal(read(*(int *)arg, &byte, 1), 1);
    return tram_loop_stop(loop);
}

static void in(uint64_t delay_ns, void (*happens)(void)) {
    event_at = clock_ns + delay_ns;
    event = happens;
}

static void assert_seen_in_time(void) {
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_true(seen_at >= event_at && seen_at - event_at <= LATE_NS);
    assert_false(slept);
}

static void write_byte(void) {
    assert_int_equal(write(pair[1], "x", 1), 1);
}

static void test_spinning_sees_a_descriptor_at_once(void **state) {
    set_up(state);
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], see, &pair[0]), 0);
    in(5000000, write_byte);
    assert_seen_in_time();
    tram_loop_remove_reader(world->loop, pair[0]);
    close(pair[0]);
    close(pair[1]);
}

static void nothing(void) {}

static void test_spinning_ends_with_the_next_timer(void **state) {
    set_up(state);
    in(1000000, nothing);
    assert_int_equal(tram_loop_call_at(world->loop, event_at, see, NULL, NULL, NULL), 0);
    assert_seen_in_time();
}

static void post(void) {
    struct mailbox *entered = tram__mailbox_entered;
    tram__mailbox_enter(NULL);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, see, NULL, NULL), 0);
    tram__mailbox_enter(entered);
}

static void test_spinning_sees_a_post_at_once(void **state) {
    set_up(state);
    in(3000000, post);
    assert_seen_in_time();
}

static void raise_signal(void) {
    raise(SIGUSR1);
}

static void test_spinning_sees_a_signal_at_once(void **state) {
    set_up(state);
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, see, NULL), 0);
    in(3000000, raise_signal);
    assert_seen_in_time();
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 1);
}

static void test_after_spinning_it_sleeps_for_the_rest(void **state) {
    skip_where_emulated("valgrind has no epoll_pwait2, and whole milliseconds are too long");
    set_up(state);
    uint64_t when = clock_ns + SPIN_NS + 50000000;
    assert_int_equal(tram_loop_call_at(world->loop, when, see, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_true(slept);
    assert_true(sleep_ns <= 50000000 && sleep_ns > 49000000);
    assert_true(seen_at >= when && seen_at - when <= LATE_NS);
}

/* When the time is over it looks no more: here that is so at the first reading after the beginning. */
static void test_spinning_is_over_to_the_nanosecond(void **state) {
    for (unsigned early = 0; early < 2; early++) {
        set_up(state);
        unix_pair(pair);
        assert_int_equal(tram_loop_add_reader(world->loop, pair[0], see, &pair[0]), 0);
        write_byte();
        step_ns = SPIN_NS - early;
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
        assert_int_equal(looks, early);
        assert_int_equal(slept, !early);
        tram_loop_remove_reader(world->loop, pair[0]);
        close(pair[0]);
        close(pair[1]);
    }
}

/* ---- After mail ---- */

#define SLEEPS 200

static unsigned sleeps;
static uint64_t spun_ns[SLEEPS + 1]; /* before this sleep */
static uint64_t awake_at;

static void post_from_outside(unsigned count, tram_callback callback) {
    struct mailbox *entered = tram__mailbox_entered;
    tram__mailbox_enter(NULL);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, callback, NULL, NULL), 0);
    tram__mailbox_enter(entered);
}

static int do_nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void post_nothing(void) {
    post_from_outside(1, do_nothing);
}

/* Whoever sleeps is woken by one mail. */
static int woken_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    if (timeout_ms) {
        assert_int_equal(timeout_ms, -1);
        spun_ns[sleeps++] = clock_ns - awake_at;
        post_from_outside(1, sleeps < SLEEPS ? do_nothing : see);
        awake_at = clock_ns;
    }
    return tram__sys.epoll_wait(epoll, events, count, timeout_ms ? 1000 : 0);
}

static void set_up_for_mail(void **state, int (*wait)(int, struct epoll_event *, int, int)) {
    static struct sys sys;
    world = *state;
    sys = tram__sys;
    sys.clock_gettime = own_clock;
    sys.epoll_wait = wait;
    clock_ns = 1000000;
    step_ns = 10;
    event = NULL;
    sleeps = 0;
    world->options.spin_ns = 0;
    world_use_sys(world, &sys);
    awake_at = clock_ns;
}

#define READINGS 40 /* the clock moves by what reading it takes */

static void assert_spun(unsigned sleep, uint64_t ns) {
    assert_in_range(spun_ns[sleep], ns, ns + READINGS);
}

/* 64 ns for each mail, 2 us at the least: one in 32 sleeps where each is for one mail. */
static void test_after_mail_it_spins_for_what_the_mail_has_earned(void **state) {
    set_up_for_mail(state, woken_wait);
    post_nothing();
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    for (unsigned i = 0; i < SLEEPS; i++)
        if (i % 32 == 31)
            assert_spun(i, 2048);
        else
            assert_int_equal(spun_ns[i], 0);
}

static void test_after_much_mail_it_spins_for_10_us(void **state) {
    static const unsigned counts[] = {156, 157, 250};
    for (unsigned i = 0; i < 3; i++) {
        set_up_for_mail(state, woken_wait);
        post_from_outside(counts[i], do_nothing);
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
        assert_spun(0, MIN(counts[i] * 64, 10000));
        for (unsigned sleep = 1; sleep < 31; sleep++)
            assert_int_equal(spun_ns[sleep], 0);
    }
}

/* No sleep comes before it, and what is left is kept. */
static void test_mail_that_follows_while_it_spins_needs_no_wakeup(void **state) {
    set_up_for_mail(state, woken_wait);
    post_from_outside(100, do_nothing);
    in(4000, post_nothing);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_int_equal(clock_ns > event_at, true);
    assert_in_range(spun_ns[0], 6464 - READINGS, 6464 + 3 * READINGS);
}

static void let_others_run(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
}

/* Those who could send more may wait for the lock that the host gives away around a sleep. */
static void test_with_functions_around_the_wait_it_does_not_spin(void **state) {
    for (unsigned i = 0; i < 2; i++) {
        struct world *of = *state;
        of->options.before_wait = i ? NULL : let_others_run;
        of->options.after_wait = i ? let_others_run : NULL;
        set_up_for_mail(state, woken_wait);
        post_from_outside(250, do_nothing);
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
        for (unsigned sleep = 0; sleep < SLEEPS; sleep++)
            assert_int_equal(spun_ns[sleep], 0);
    }
}

static void test_without_mail_it_does_not_spin(void **state) {
    set_up_for_mail(state, own_wait);
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], see, &pair[0]), 0);
    for (unsigned i = 0; i < 3; i++) {
        write_byte();
        uint64_t before = clock_ns;
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
        assert_int_equal(clock_ns, before);
    }
    tram_loop_remove_reader(world->loop, pair[0]);
    close(pair[0]);
    close(pair[1]);
}

static void test_a_loop_that_always_spins_does_so_for_as_long_whatever_came(void **state) {
    set_up_for_mail(state, woken_wait);
    world->options.spin_ns = 500;
    world_use_sys(world, world->loop->sys);
    awake_at = clock_ns;
    post_from_outside(200, do_nothing);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    for (unsigned i = 0; i < SLEEPS; i++)
        assert_spun(i, 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        CASE(test_spinning_sees_a_descriptor_at_once),
        CASE(test_spinning_ends_with_the_next_timer),
        CASE(test_spinning_sees_a_post_at_once),
        CASE(test_spinning_sees_a_signal_at_once),
        CASE(test_after_spinning_it_sleeps_for_the_rest),
        CASE(test_spinning_is_over_to_the_nanosecond),
        CASE(test_after_mail_it_spins_for_what_the_mail_has_earned),
        CASE(test_after_much_mail_it_spins_for_10_us),
        CASE(test_mail_that_follows_while_it_spins_needs_no_wakeup),
        CASE(test_with_functions_around_the_wait_it_does_not_spin),
        CASE(test_without_mail_it_does_not_spin),
        CASE(test_a_loop_that_always_spins_does_so_for_as_long_whatever_came),
    };
    return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
