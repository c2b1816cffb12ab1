#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "support/support.h"

static void (*action_of(int number))(int) {
    struct sigaction action;
    assert_int_equal(sigaction(number, NULL, &action), 0);
    return action.sa_handler;
}

static void add(tram_loop *loop, int number, const char *word) {
    assert_int_equal(tram_loop_add_signal_handler(loop, number, trace_callback, (void *)(uintptr_t)word), 0);
}

static void test_L_23_a_handler_runs_from_the_loop_only(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "usr1");
    add(world->loop, SIGUSR2, "usr2");
    raise(SIGUSR1);
    assert_trace(world, "");
    run_until_traced(world, "usr1");
    raise(SIGUSR2);
    raise(SIGUSR1);
    run_ticks(world, 3);
    assert_trace(world, "usr1 usr1 usr2");
}

/* Sends a signal to the process as soon as the loop sleeps. */
static void *signal_the_sleeper(void *arg) {
    struct world *world = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL); /* so that the loop's thread gets it */
    while (atomic_load(&world->loop->mailbox->state) == 0)
        poll(NULL, 0, 1);
    kill(getpid(), SIGUSR1);
    return NULL;
}

/* The same, but this thread gets it: nothing interrupts the poll of the loop. */
static void *signal_oneself(void *arg) {
    struct world *world = arg;
    while (atomic_load(&world->loop->mailbox->state) == 0)
        poll(NULL, 0, 1);
    pthread_kill(pthread_self(), SIGUSR1);
    return NULL;
}

static int stop(tram_loop *loop, void *arg) {
    trace(arg, "stop");
    return tram_loop_stop(loop);
}

static void check_wakeup(struct world *world, void *(*sender)(void *)) {
    pthread_t thread;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, stop, world), 0);
    assert_int_equal(pthread_create(&thread, NULL, sender, world), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    pthread_join(thread, NULL);
    assert_trace(world, "stop");
}

static void test_L_12_a_signal_wakes_a_sleeping_loop(void **state) {
    check_wakeup(*state, signal_the_sleeper);
    check_wakeup(*state, signal_oneself);
}

static void test_L_23_setting_again_replaces_even_what_is_queued(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "old");
    raise(SIGUSR1);
    run_ticks(world, 1); /* queued now */
    add(world->loop, SIGUSR1, "new");
    run_ticks(world, 2);
    assert_trace(world, "new");
}

static void test_L_23_removing_restores_the_default_action(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
    add(world->loop, SIGUSR1, "usr1");
    assert_true(action_of(SIGUSR1) != SIG_DFL);
    raise(SIGUSR1);
    run_ticks(world, 1);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 1);
    assert_true(action_of(SIGUSR1) == SIG_DFL);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
    run_ticks(world, 2);
    assert_trace(world, "");
}

static int remove_itself(tram_loop *loop, void *arg) {
    trace(arg, "once");
    assert_int_equal(tram_loop_remove_signal_handler(loop, SIGUSR1), 1);
    return 0;
}

static void test_L_23_a_handler_may_remove_itself(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, remove_itself, world), 0);
    raise(SIGUSR1);
    run_ticks(world, 3);
    assert_trace(world, "once");
    assert_true(action_of(SIGUSR1) == SIG_DFL);
}

static void ignore(int number) {
    (void)number;
}

static void test_L_24_numbers_that_cannot_be_handled(void **state) {
    struct world *world = *state;
    static const int bad[] = {-1, 0, 32, 33, 65, 1000};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tram_loop_add_signal_handler(world->loop, bad[i], trace_callback, "x"), TRAM_EVALUE);
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, NULL, NULL), TRAM_EVALUE);
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGKILL, trace_callback, "x"), TRAM_ESTATE);
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGSTOP, trace_callback, "x"), TRAM_ESTATE);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, 0), TRAM_EVALUE);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, 65), TRAM_EVALUE);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, 1), 0);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGKILL), 0);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, 64), 0);
    /* The last one is a signal like any other, where it is not valgrind's. */
    struct sigaction action = {.sa_handler = ignore};
    if (sigaction(SIGRTMAX, &action, NULL) == 0) {
        add(world->loop, SIGRTMAX, "last");
        raise(SIGRTMAX);
        run_until_traced(world, "last");
        assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGRTMAX), 1);
    }
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGRTMAX), 0);
    add(world->loop, SIGHUP, "first");
    raise(SIGHUP);
    run_until_traced(world, "first");
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGHUP), 1);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGHUP), 0);
}

static void test_L_24_a_burst_may_merge(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "usr1");
    for (int i = 0; i < 100; i++)
        raise(SIGUSR1);
    run_ticks(world, 3);
    assert_trace(world, "usr1");
}

static unsigned posts_run, posts_before_handler;

static int raise_at_the_first(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    if (posts_run++ == 0)
        raise(SIGUSR1);
    return 0;
}

static int note_posts(tram_loop *loop, void *arg) {
    posts_before_handler = posts_run;
    return trace_callback(loop, arg);
}

static void *post_200(void *arg) {
    for (int i = 0; i < 200; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(arg, raise_at_the_first, NULL, NULL), 0);
    return NULL;
}

/* Control does not wait behind data: of what is posted a portion runs before the handler's turn comes. */
static void test_L_23_a_signal_does_not_wait_behind_all_posts(void **state) {
    struct world *world = *state;
    pthread_t thread;
    posts_run = posts_before_handler = 0;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, note_posts, (void *)(uintptr_t) "usr1"), 0);
    assert_int_equal(pthread_create(&thread, NULL, post_200, world->loop), 0);
    pthread_join(thread, NULL);
    run_until_traced(world, "usr1");
    assert_in_range(posts_before_handler, 1, 64);
    run_to_rest(world);
    assert_int_equal(posts_run, 200);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.mails - before.mails, 200); /* each once, though a portion was interrupted */
}

static void test_L_25_the_last_registration_wins_over_all_loops(void **state) {
    struct world *world = *state;
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    add(world->loop, SIGUSR1, "first");
    add(other, SIGUSR1, "second");
    raise(SIGUSR1);
    run_ticks(world, 2);
    assert_trace(world, "");
    tram_loop_stop(other);
    tram_loop_run_forever(other);
    tram_loop_stop(other);
    tram_loop_run_forever(other);
    assert_trace(world, "second");

    /* It is no longer the first one's to remove, nor does it go when that loop closes. */
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
    assert_true(action_of(SIGUSR1) != SIG_DFL);
    add(world->loop, SIGUSR1, "first");
    add(other, SIGUSR1, "second");
    world_reopen(world);
    assert_true(action_of(SIGUSR1) != SIG_DFL);
    assert_int_equal(tram_loop_free(other), 0);
    assert_true(action_of(SIGUSR1) == SIG_DFL);
}

static void run_two_ticks(tram_loop *loop) {
    for (int i = 0; i < 2; i++) {
        tram_loop_stop(loop);
        tram_loop_run_forever(loop);
    }
}

static void test_L_25_a_signal_that_came_before_goes_to_the_new_loop(void **state) {
    struct world *world = *state;
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    add(world->loop, SIGUSR1, "first");
    raise(SIGUSR1); /* pending */
    add(other, SIGUSR1, "second");
    run_ticks(world, 2);
    run_two_ticks(other);
    assert_trace(world, "second");

    add(world->loop, SIGUSR1, "first");
    raise(SIGUSR1);
    run_ticks(world, 1); /* queued */
    add(other, SIGUSR1, "second");
    run_ticks(world, 1);
    run_two_ticks(other);
    assert_trace(world, "second");

    add(world->loop, SIGUSR1, "first");
    raise(SIGUSR1);
    run_ticks(world, 1);
    add(other, SIGUSR1, "second");
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
    run_two_ticks(other);
    assert_trace(world, "second");

    add(world->loop, SIGUSR1, "first");
    raise(SIGUSR1);
    run_ticks(world, 1);
    add(other, SIGUSR1, "second");
    tram_loop_close(world->loop);
    run_two_ticks(other);
    assert_trace(world, "second");
    assert_int_equal(tram_loop_free(other), 0);
}

/* Of two that came, the other one stays whatever becomes of the first. */
static void test_L_25_other_signals_that_came_stay(void **state) {
    struct world *world = *state;
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    add(world->loop, SIGUSR1, "usr1");
    add(world->loop, SIGUSR2, "usr2");
    raise(SIGUSR1);
    raise(SIGUSR2);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 1);
    run_ticks(world, 2);
    assert_trace(world, "usr2");
    add(world->loop, SIGUSR1, "usr1");
    raise(SIGUSR1);
    raise(SIGUSR2);
    add(other, SIGUSR1, "other");
    run_ticks(world, 2);
    assert_trace(world, "usr2");
    run_two_ticks(other);
    assert_trace(world, "other");
    assert_int_equal(tram_loop_free(other), 0);
}

static void test_L_26_closing_removes_the_handlers(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "usr1");
    add(world->loop, SIGUSR2, "usr2");
    raise(SIGUSR1);
    run_ticks(world, 1);
    raise(SIGUSR2);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(action_of(SIGUSR1) == SIG_DFL);
    assert_true(action_of(SIGUSR2) == SIG_DFL);
    assert_trace(world, "");
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, trace_callback, "x"), TRAM_ESTATE);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
}

static int fail_with_detail(tram_loop *loop, void *arg) {
    return tram_loop_raise(loop, -EIO, arg, "no luck");
}

static void test_L_27_a_failing_handler_is_reported(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, fail_with_detail, world), 0);
    add(world->loop, SIGUSR2, "next");
    raise(SIGUSR1);
    raise(SIGUSR2);
    run_until_traced(world, "next");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EIO);
    assert_ptr_equal(world->exception_user, world);
}

static void test_system_calls_are_restarted(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "usr1");
    struct sigaction action;
    assert_int_equal(sigaction(SIGUSR1, NULL, &action), 0);
    assert_true(action.sa_flags & SA_RESTART);
    assert_true(action.sa_flags & SA_ONSTACK); /* a task's stack is small */
    assert_true(sigismember(&action.sa_mask, SIGUSR2));
    errno = ENOENT;
    raise(SIGUSR1);
    assert_int_equal(errno, ENOENT);
}

static void test_without_memory_nothing_is_touched(void **state) {
    struct world *world = *state;
    world->fail_after = 0;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, trace_callback, "x"), -ENOMEM);
    assert_true(action_of(SIGUSR1) == SIG_DFL);
    world->fail_after = SIZE_MAX;
    add(world->loop, SIGUSR1, "usr1");
    raise(SIGUSR1);
    world->fail_after = 0;
    run_ticks(world, 2);
    world->fail_after = SIZE_MAX;
    assert_trace(world, "usr1");
}

static void test_a_signal_in_a_forked_child_is_not_the_parents(void **state) {
    struct world *world = *state;
    add(world->loop, SIGUSR1, "usr1");
    pid_t child = fork();
    if (child == 0) {
        raise(SIGUSR1);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, SIGUSR1); /* its default action */
    run_ticks(world, 2);
    assert_trace(world, "");
}

/* ---- Signals without end, while loops come and go. SIGURG, because its default is to do nothing. ---- */

static _Atomic bool storm_ends;

static void *storm(void *arg) {
    (void)arg;
    while (!storm_ends)
        pthread_kill(pthread_self(), SIGURG);
    return NULL;
}

static int count(tram_loop *loop, void *arg) {
    (void)loop;
    ++*(int *)arg;
    return 0;
}

static void test_handlers_come_and_go_under_a_storm(void **state) {
    struct world *world = *state;
    pthread_t threads[2];
    int calls = 0, other_calls = 0;
    storm_ends = false;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, NULL), 0);
    for (int turn = 0; turn < 100; turn++) {
        tram_loop *other;
        assert_int_equal(tram_loop_new(NULL, &other), 0);
        assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGURG, count, &calls), 0);
        run_ticks(world, 2);
        assert_int_equal(tram_loop_add_signal_handler(other, SIGURG, count, &other_calls), 0);
        run_two_ticks(other);
        if (turn % 3 == 0)
            assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGURG, count, &calls), 0);
        assert_int_equal(tram_loop_free(other), 0);
        if (turn % 5 == 0)
            world_reopen(world);
    }
    storm_ends = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    int before = calls;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGURG, count, &calls), 0);
    raise(SIGURG);
    run_ticks(world, 2);
    assert_true(calls > before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_L_23_a_handler_runs_from_the_loop_only),
        TEST(test_L_12_a_signal_wakes_a_sleeping_loop),
        TEST(test_L_23_a_signal_does_not_wait_behind_all_posts),
        TEST(test_L_23_setting_again_replaces_even_what_is_queued),
        TEST(test_L_23_removing_restores_the_default_action),
        TEST(test_L_23_a_handler_may_remove_itself),
        TEST(test_L_24_numbers_that_cannot_be_handled),
        TEST(test_L_24_a_burst_may_merge),
        TEST(test_L_25_the_last_registration_wins_over_all_loops),
        TEST(test_L_25_a_signal_that_came_before_goes_to_the_new_loop),
        TEST(test_L_25_other_signals_that_came_stay),
        TEST(test_L_26_closing_removes_the_handlers),
        TEST(test_L_27_a_failing_handler_is_reported),
        TEST(test_system_calls_are_restarted),
        TEST(test_without_memory_nothing_is_touched),
        TEST(test_a_signal_in_a_forked_child_is_not_the_parents),
        TEST(test_handlers_come_and_go_under_a_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
