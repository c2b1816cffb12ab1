/* The loop's contract: running, ticks, callbacks, timers, handles (docs/rules.md, group L). */
#include "support/support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "public_calls.h"

static int soon(struct world *world, const char *word) {
    return tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t)word, NULL, NULL);
}

static int later(struct world *world, uint64_t delay_ns, const char *word) {
    return tram_loop_call_later(world->loop, delay_ns, trace_callback, (void *)(uintptr_t)word, NULL, NULL);
}

static int finish_future(tram_loop *loop, void *arg) {
    (void)loop;
    return tram_future_set_result(arg, (void *)(uintptr_t)7);
}

static int fail_future(tram_loop *loop, void *arg) {
    (void)loop;
    tram_error error = {.code = -ECONNRESET, .operation = "test"};
    return tram_future_set_error(arg, &error);
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void test_L_1_run_until_complete_returns_the_result_or_the_error(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, finish_future, future, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *value;
    assert_int_equal(tram_future_result(future, &value), 0);
    assert_int_equal((uintptr_t)value, 7);
    tram_future_release(future);

    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_future, future, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ECONNRESET);
    tram_future_release(future);
}

static void test_L_1_run_until_complete_that_is_stopped_before_is_a_state_error(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, stop, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ESTATE);
    /* The future does not stop the loop any more. */
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    soon(world, "one");
    run_ticks(world, 1);
    assert_trace(world, "one");
    tram_future_release(future);
}

static int finish_and_stop(tram_loop *loop, void *arg) {
    assert_int_equal(tram_future_set_result(arg, NULL), 0);
    return tram_loop_stop(loop);
}

static void test_L_1_a_stop_in_the_tick_that_completes_the_future_is_used_up(void **state) {
    struct world *world = *state;
    tram_future *future, *second;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_loop_create_future(world->loop, &second), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, finish_and_stop, future, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    /* In the next run nothing is left of either: it goes on until its own future is done. */
    assert_int_equal(tram_loop_call_later(world->loop, 1000000, finish_future, second, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, second), 0);
    tram_future_release(future);
    tram_future_release(second);
}

static int readable(tram_loop *loop, void *arg) {
    char byte;
    assert_int_equal(read(*(int *)arg, &byte, 1), 1);
    trace(world_of(loop), "io");
    return 0;
}

static int post(struct world *world, const char *word) {
    return tram_loop_call_soon_threadsafe(world->loop, trace_callback, (void *)(uintptr_t)word, NULL);
}

static int at(struct world *world, uint64_t when_ns, const char *word) {
    return tram_loop_call_at(world->loop, when_ns, trace_callback, (void *)(uintptr_t)word, NULL, NULL);
}

/* As CPython's heap sorts them; there is no negative delay, but there are times in the past. */
static void test_L_13_timers_in_the_past_run_in_order_of_their_deadlines(void **state) {
    struct world *world = *state;
    uint64_t now = tram_loop_time(world->loop);
    at(world, now - 1000000, "1");
    at(world, now - 2000000, "2");
    at(world, now, "0");
    at(world, now - 3000000, "3");
    at(world, 0, "first");
    at(world, 0, "second");
    run_ticks(world, 1);
    assert_trace(world, "first second 3 2 1 0");
}

static void test_L_2_L_3_what_was_queued_then_io_then_timers(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], readable, &pair[0]), 0);
    assert_int_equal(write(pair[1], "x", 1), 1);
    later(world, 0, "timer");
    soon(world, "first");
    post(world, "mail");
    run_ticks(world, 1);
    assert_trace(world, "first mail io timer");
    tram_loop_remove_reader(world->loop, pair[0]);
    close(pair[0]);
    close(pair[1]);
}

/* rules: L-3, L-11 */
static void test_L_11_posts_and_call_soon_are_one_queue(void **state) {
    struct world *world = *state;
    post(world, "a");
    soon(world, "b");
    post(world, "c");
    post(world, "d");
    soon(world, "e");
    soon(world, "f");
    post(world, "g");
    run_ticks(world, 1);
    assert_trace(world, "a b c d e f g");
    run_ticks(world, 1);
    assert_trace(world, "");
}

/* What a done callback or connection_lost is queued by is call_soon, too. */
static int trace_future(tram_future *future, void *arg) {
    trace(world_of(tram_future_get_loop(future)), "%s", (const char *)arg);
    return 0;
}

static void test_L_11_a_done_callback_keeps_its_place_behind_posts(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_future, (void *)(uintptr_t) "done"), 0);
    post(world, "before");
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    post(world, "after");
    run_ticks(world, 1);
    assert_trace(world, "before done after");
    tram_future_release(future);
}

static int mixed(tram_loop *loop, void *arg) {
    struct world *world = world_of(loop);
    (void)arg;
    trace(world, "mixed");
    post(world, "a");
    soon(world, "b");
    assert_int_equal(tram_loop_try_call_soon_threadsafe(loop, trace_callback, (void *)(uintptr_t) "c", NULL), 0);
    soon(world, "d");
    return 0;
}

static void test_L_11_posts_of_a_callback_to_its_own_loop_are_call_soon(void **state) {
    struct world *world = *state;
    world->options.mailbox_limit = 1;
    world_reopen(world);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_call_soon(world->loop, mixed, NULL, NULL, NULL), 0);
        run_ticks(world, 1);
        assert_trace(world, "mixed");
        /* The one that may wait does. */
        assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, trace_callback, NULL, NULL), -EAGAIN);
        run_ticks(world, 1);
        assert_trace(world, "a b c d");
    }
}

static void trace_discard(void *arg) {
    trace(arg, "discarded");
}

static int post_to_be_discarded(tram_loop *loop, void *arg) {
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, trace_callback, arg, trace_discard), 0);
    return tram_loop_try_call_soon_threadsafe(loop, trace_callback, arg, trace_discard);
}

static void test_L_8_L_11_posts_of_a_callback_are_discarded_when_its_loop_closes(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon(world->loop, post_to_be_discarded, world, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discarded discarded");
}

/* What has a place in the queue already is discarded, too, and the place goes. */
static void test_L_8_L_11_posts_before_a_call_soon_are_discarded_when_the_loop_closes(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, trace_callback, world, trace_discard), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, world, trace_discard, NULL), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, trace_callback, world, trace_discard), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discarded discarded discarded");
}

static int trace_number(tram_loop *loop, void *arg) {
    trace(world_of(loop), "%u", (unsigned)(uintptr_t)arg);
    return 0;
}

static unsigned next_post;

static int post_number(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_call_soon_threadsafe(loop, trace_number, (void *)(uintptr_t)next_post++, NULL);
}

/* More posts wait than one tick runs, and a callback adds some: the calls of one thread keep their order all the same.
 */
static void test_L_11_posts_of_one_thread_keep_their_order_beyond_what_a_tick_runs(void **state) {
    struct world *world = *state;
    next_post = 0;
    for (int i = 0; i < 300; i++)
        assert_int_equal(post_number(world->loop, NULL), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, post_number, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_loop_call_soon(world->loop, post_number, NULL, NULL, NULL), 0);
    run_ticks(world, 3);
    char expected[8192] = "", *end = expected;
    for (unsigned i = 0; i < next_post; i++)
        end += sprintf(end, i ? " %u" : "%u", i);
    assert_int_equal(next_post, 302);
    assert_trace(world, expected);
}

static int queue_more(tram_loop *loop, void *arg) {
    struct world *world = world_of(loop);
    (void)arg;
    trace(world, "outer");
    soon(world, "inner");
    tram_loop_call_soon_threadsafe(loop, trace_callback, (void *)(uintptr_t) "mailed", NULL);
    later(world, 0, "timer");
    return 0;
}

static void test_L_4_L_5_callbacks_run_once_in_order_and_their_offspring_in_the_next_tick(void **state) {
    struct world *world = *state;
    soon(world, "a");
    assert_int_equal(tram_loop_call_soon(world->loop, queue_more, NULL, NULL, NULL), 0);
    soon(world, "b");
    run_ticks(world, 1);
    assert_trace(world, "a outer b");
    run_ticks(world, 1);
    assert_trace(world, "inner mailed timer");
    run_ticks(world, 2);
    assert_trace(world, "");
}

static int again(tram_loop *loop, void *arg) {
    trace(world_of(loop), "again");
    return tram_loop_call_soon(loop, again, arg, NULL, NULL);
}

static void test_L_5_a_callback_that_queues_itself_does_not_starve_io(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], readable, &pair[0]), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, again, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(write(pair[1], "x", 1), 1);
    run_ticks(world, 1);
    assert_trace(world, "again again io");
    tram_loop_remove_reader(world->loop, pair[0]);
    close(pair[0]);
    close(pair[1]);
}

static unsigned exact_waits, rounded_waits;
static int shortest_ms;
static int exact_error; /* errno of exact waits, which fail with it; 0 means: they find nothing, whatever errno says */

static int exact_wait(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    (void)epoll, (void)events, (void)count, (void)timeout;
    exact_waits++;
    errno = exact_error ? exact_error : ENOSYS;
    return exact_error ? -1 : 0;
}

static int rounded_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    if (timeout_ms > 0) {
        rounded_waits++;
        shortest_ms = timeout_ms < shortest_ms ? timeout_ms : shortest_ms;
    }
    return tram__sys.epoll_wait(epoll, events, count, timeout_ms);
}

static int stop_it(tram_loop *loop, void *arg) {
    *(bool *)arg = true;
    return tram_loop_stop(loop);
}

/* Where the kernel has no waits of nanoseconds, whole milliseconds are waited, and no moment is spent in spinning. */
static void test_L_6_a_kernel_without_exact_waits_is_asked_once(void **state) {
    struct world *world = *state;
    static struct sys sys;
    sys = tram__sys;
    sys.epoll_pwait2 = exact_wait;
    sys.epoll_wait = rounded_wait;
    exact_waits = rounded_waits = 0;
    shortest_ms = 1000;
    exact_error = ENOSYS;
    world_use_sys(world, &sys);
    for (unsigned i = 1; i <= 3; i++) {
        bool came = false;
        assert_int_equal(tram_loop_call_later(world->loop, 2500000, stop_it, &came, NULL, NULL), 0);
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
        assert_true(came);
        assert_int_equal(exact_waits, 1);
        assert_in_range(rounded_waits, 0, i); /* none where the machine stood still for so long */
    }
    assert_in_range(shortest_ms, 1, 1000);
    world_use_sys(world, &sys);
    exact_error = exact_waits = rounded_waits = 0; /* a wait that finds nothing has not failed */
    bool came = false;
    assert_int_equal(tram_loop_call_later(world->loop, 2500000, stop_it, &came, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_int_equal(rounded_waits, 0);
}

static void test_L_6_the_wait_is_as_long_as_nothing_is_to_be_done(void **state) {
    struct world *world = *state;
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_true(timeout_ns == TRAM_FOREVER);
    tram_loop_dispatch(world->loop);

    tram_handle handle;
    tram_loop_call_later(world->loop, 5000000000, trace_callback, (void *)(uintptr_t) "x", NULL, &handle);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_true(timeout_ns > 4000000000 && timeout_ns <= 5000000000);
    tram_loop_dispatch(world->loop);
    tram_handle_cancel(world->loop, handle);

    tram_loop_call_later(world->loop, 1000000000ll * 86400 * 3, trace_callback, (void *)(uintptr_t) "x", NULL, &handle);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 1000000000ll * 86400);
    tram_loop_dispatch(world->loop);
    tram_handle_cancel(world->loop, handle);

    soon(world, "x");
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 0);
    tram_loop_dispatch(world->loop);
    tram_loop_stop(world->loop);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 0);
    assert_int_equal(tram_loop_dispatch(world->loop), 1);
    assert_int_equal(tram_loop_dispatch(world->loop), 0);
}

static void test_L_7_stop_lets_the_batch_finish_and_keeps_its_offspring(void **state) {
    struct world *world = *state;
    tram_loop_call_soon(world->loop, stop, NULL, NULL, NULL);
    tram_loop_call_soon(world->loop, queue_more, NULL, NULL, NULL);
    soon(world, "same batch");
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_trace(world, "outer same batch");
    run_ticks(world, 1);
    assert_trace(world, "inner mailed timer");
}

static void test_L_7_stop_before_run_gives_exactly_one_tick(void **state) {
    struct world *world = *state;
    tram_stats before, after;
    tram_loop_call_soon(world->loop, queue_more, NULL, NULL, NULL);
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_loop_stop(world->loop), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.ticks - before.ticks, 1);
    assert_trace(world, "outer");
}

static void discard(void *arg) {
    trace(arg, "discarded");
}

static int never(tram_loop *loop, void *arg) {
    (void)loop;
    trace(arg, "ran");
    return 0;
}

static void test_L_8_close_discards_what_is_queued_and_refuses_the_rest(void **state) {
    struct world *world = *state;
    tram_handle cancelled;
    tram_loop_call_soon(world->loop, never, world, discard, NULL);
    tram_loop_call_later(world->loop, 0, never, world, discard, NULL);
    tram_loop_call_later(world->loop, 3600000000000, never, world, discard, NULL);
    tram_loop_call_soon(world->loop, never, world, NULL, NULL);
    tram_loop_call_soon(world->loop, never, world, discard, &cancelled);
    tram_handle_cancel(world->loop, cancelled);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discarded discarded discarded");
    assert_true(tram_loop_is_closed(world->loop));
    assert_int_equal(tram_loop_close(world->loop), 0);

    uint64_t timeout_ns;
    tram_future *future;
    assert_int_equal(soon(world, "x"), TRAM_ESTATE);
    assert_int_equal(later(world, 0, "x"), TRAM_ESTATE);
    assert_int_equal(tram_loop_call_at(world->loop, 1, never, world, NULL, NULL), TRAM_ESTATE);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, never, world, NULL), TRAM_ESTATE);
    assert_int_equal(tram_loop_add_reader(world->loop, 0, never, world), TRAM_ESTATE);
    assert_int_equal(tram_loop_add_writer(world->loop, 0, never, world), TRAM_ESTATE);
    assert_int_equal(tram_loop_remove_reader(world->loop, 0), 0);
    assert_int_equal(tram_loop_remove_writer(world->loop, 0), 0);
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), TRAM_ESTATE);
    assert_int_equal(tram_loop_stop(world->loop), TRAM_ESTATE);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), TRAM_ESTATE);
    assert_int_equal(tram_loop_dispatch(world->loop), TRAM_ESTATE);
    assert_int_equal(tram_loop_create_future(world->loop, &future), TRAM_ESTATE);
    assert_trace(world, "");
}

/* Those but that end something, ask something or may come from anywhere. */
static void test_L_8_a_closed_loop_refuses_every_call(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_close(world->loop), 0);
    const char *others = " tram_loop_close tram_loop_free tram_handle_cancel tram_handle_cancelled tram_handle_when"
                         " tram_loop_call_soon_threadsafe tram_loop_try_call_soon_threadsafe"
                         " tram_loop_call_soon_threadsafe_handle tram_loop_remove_reader tram_loop_remove_writer"
                         " tram_loop_remove_signal_handler tram_loop_set_exception_handler"
                         " tram_loop_set_exception_handler_with_discard tram_loop_call_exception_handler"
                         " tram_loop_raise tram_loop_raise_with_release tram_loop_set_debug"
                         " tram_loop_set_slow_callback_duration tram_stream_factory tram_loop_each_task"
                         " tram_loop_dump_tasks";
    assert_true(all_answer(calls_of_tram_loop, world->loop, TRAM_ESTATE, others));
}

static int close_inside(tram_loop *loop, void *arg) {
    *(int *)arg = tram_loop_close(loop);
    return 0;
}

static void test_L_8_close_of_a_running_loop_is_a_state_error(void **state) {
    struct world *world = *state;
    int status = 0;
    tram_loop_call_soon(world->loop, close_inside, &status, NULL, NULL);
    run_ticks(world, 1);
    assert_int_equal(status, TRAM_ESTATE);
    assert_false(tram_loop_is_closed(world->loop));
}

static int run_inside(tram_loop *loop, void *arg) {
    struct world *world = world_of(loop);
    tram_loop *other = arg;
    assert_true(tram_loop_is_running(loop));
    assert_ptr_equal(tram_loop_running(), loop);
    trace(world, "%s", tram_error_name(tram_loop_run_forever(loop)));
    trace(world, "%s", tram_error_name(tram_loop_run_forever(other)));
    trace(world, "%s", tram_error_name(tram_loop_dispatch(other)));
    return 0;
}

static void test_L_9_no_loop_runs_inside_another(void **state) {
    struct world *world = *state;
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    tram_loop_call_soon(world->loop, run_inside, other, NULL, NULL);
    run_ticks(world, 1);
    assert_trace(world, "TRAM_ESTATE TRAM_ESTATE TRAM_ESTATE");
    assert_null(tram_loop_running());
    assert_false(tram_loop_is_running(world->loop));
    tram_loop_free(other);
}

struct stranger {
    tram_loop *loop;
    int status;
    bool done;
};

static void *call_from_elsewhere(void *arg) {
    struct stranger *stranger = arg;
    stranger->status = tram_loop_call_soon(stranger->loop, trace_callback, (void *)(uintptr_t) "x", NULL, NULL);
    return NULL;
}

static int let_a_stranger_call(tram_loop *loop, void *arg) {
    (void)loop;
    on_another_thread(call_from_elsewhere, arg);
    return 0;
}

static void test_L_10_L_31_debug_mode_catches_a_call_on_the_wrong_thread(void **state) {
    struct world *world = *state;
    struct stranger stranger = {.loop = world->loop};
    tram_loop_call_soon(world->loop, let_a_stranger_call, &stranger, NULL, NULL);
    run_ticks(world, 2);
    assert_int_equal(stranger.status, TRAM_ESTATE);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_ESTATE);
    assert_trace(world, "");
}

struct strangers {
    struct world *world;
    tram_future *future;
    tram_transport *transport;
    tram_queue *queue;
    tram_stream_reader *reader;
    bool refused;
};

static void *call_all_from_elsewhere(void *arg) {
    struct strangers *strangers = arg;
    tram_loop *loop = strangers->world->loop;
    bool refused[] = {
        all_answer(calls_of_tram_loop, loop, TRAM_ESTATE,
                   " tram_loop_call_soon_threadsafe tram_loop_try_call_soon_threadsafe"
                   " tram_loop_call_soon_threadsafe_handle tram_stream_factory tram_loop_dump_tasks"),
        all_answer(calls_of_tram_future, strangers->future, TRAM_ESTATE, ""),
        all_answer(calls_of_tram_transport, strangers->transport, TRAM_ESTATE,
                   " tram_transport_datagram_ttl tram_transport_datagram_tos"),
        all_answer(calls_of_tram_queue, strangers->queue, TRAM_ESTATE, " tram_queue_task_done"),
        all_answer(calls_of_tram_stream_reader, strangers->reader, TRAM_ESTATE, ""),
    };
    strangers->refused = refused[0] && refused[1] && refused[2] && refused[3] && refused[4]; /* all were asked */
    return NULL;
}

static int let_strangers_call(tram_loop *loop, void *arg) {
    pthread_t thread;
    (void)loop;
    assert_int_equal(pthread_create(&thread, NULL, call_all_from_elsewhere, arg), 0);
    pthread_join(thread, NULL);
    return 0;
}

static void test_L_10_L_31_debug_mode_catches_every_call_on_the_wrong_thread(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    struct strangers strangers = {.world = world, .transport = wire.transport};
    assert_int_equal(tram_loop_create_future(world->loop, &strangers.future), 0);
    assert_int_equal(tram_queue_new(world->loop, NULL, &strangers.queue), 0);
    assert_int_equal(tram_stream_reader_new(world->loop, 0, &strangers.reader), 0);
    tram_loop_call_soon(world->loop, let_strangers_call, &strangers, NULL, NULL);
    run_ticks(world, 2);
    assert_true(strangers.refused);
    assert_true(world->exceptions > 100); /* each is reported, too */
    tram_stream_reader_free(strangers.reader);
    tram_queue_free(strangers.queue);
    tram_future_release(strangers.future);
    tram_transport_abort(wire.transport);
    run_to_rest(world);
    close(wire.peer);
}

static int note_time(tram_loop *loop, void *arg) {
    *(uint64_t *)arg = tram_loop_time(loop);
    return 0;
}

static bool is_set(void *arg) {
    return *(uint64_t *)arg != 0;
}

static void test_L_13_L_15_a_timer_reads_the_clock_afresh_and_is_never_early(void **state) {
    struct world *world = *state;
    static const uint64_t delays[] = {1, 100, 12345, 999999, 1000001, 3000000, 70000000};
    for (size_t i = 0; i < sizeof delays / sizeof *delays; i++) {
        uint64_t fired = 0, start = tram_loop_time(world->loop);
        assert_int_equal(tram_loop_call_later(world->loop, delays[i], note_time, &fired, NULL, NULL), 0);
        run_until_true(world, is_set, &fired);
        assert_true(fired >= start + delays[i]);
    }
}

static int spend_then_time(tram_loop *loop, void *arg) {
    /* The tick began long ago when this timer starts: it still waits its full time. */
    uint64_t *times = arg;
    uint64_t until = tram_loop_time(loop) + 5000000;
    while (tram_loop_time(loop) < until)
        continue;
    times[0] = tram_loop_time(loop);
    return tram_loop_call_later(loop, 2000000, note_time, &times[1], NULL, NULL);
}

static void test_L_13_L_15_a_timer_started_late_in_a_tick_waits_its_full_time(void **state) {
    struct world *world = *state;
    uint64_t times[2] = {0, 0};
    tram_loop_call_soon(world->loop, spend_then_time, times, NULL, NULL);
    run_until_true(world, is_set, &times[1]);
    assert_true(times[1] >= times[0] + 2000000);
}

static void test_L_13_what_is_due_at_once_runs_after_what_is_queued_and_by_deadline(void **state) {
    struct world *world = *state;
    uint64_t now = tram_loop_time(world->loop);
    later(world, 0, "zero");
    tram_loop_call_at(world->loop, now - 5, trace_callback, (void *)(uintptr_t) "past", NULL, NULL);
    tram_loop_call_at(world->loop, 0, trace_callback, (void *)(uintptr_t) "long ago", NULL, NULL);
    soon(world, "queued");
    run_ticks(world, 1);
    /* All were due when they were made; the one with the earlier deadline comes first. */
    assert_trace(world, "queued long ago past zero");
}

static void test_L_14_timers_run_by_deadline_and_equal_ones_in_order_of_creation(void **state) {
    struct world *world = *state;
    uint64_t now = tram_loop_time(world->loop);
    static const char *const words[] = {"a", "b", "c", "d", "e"};
    static const uint64_t offsets[] = {500, 300, 500, 300, 100};
    for (int i = 0; i < 5; i++)
        assert_int_equal(tram_loop_call_at(world->loop, now - 1000 + offsets[i], trace_callback,
                                           (void *)(uintptr_t)words[i], NULL, NULL),
                         0);
    run_ticks(world, 1);
    assert_trace(world, "e b d a c");
}

static tram_handle handle_to_cancel;

static int cancel_other(tram_loop *loop, void *arg) {
    (void)arg;
    trace(world_of(loop), "cancel:%d", tram_handle_cancel(loop, handle_to_cancel));
    return 0;
}

static void test_L_16_cancel_works_even_within_the_tick(void **state) {
    struct world *world = *state;
    tram_loop_call_soon(world->loop, cancel_other, NULL, NULL, NULL);
    tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "never", NULL, &handle_to_cancel);
    run_ticks(world, 2);
    assert_trace(world, "cancel:1");

    /* The same for two timers that are due together. */
    tram_loop_call_later(world->loop, 0, cancel_other, NULL, NULL, NULL);
    tram_loop_call_later(world->loop, 0, trace_callback, (void *)(uintptr_t) "never", NULL, &handle_to_cancel);
    run_ticks(world, 2);
    assert_trace(world, "cancel:1");
}

static void test_L_16_a_handle_is_safe_to_keep_for_ever(void **state) {
    struct world *world = *state;
    tram_handle kept, none = {0}, fresh;
    uint64_t when;
    tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "kept", NULL, &kept);
    assert_int_equal(tram_handle_cancelled(world->loop, kept), 0);
    assert_int_equal(tram_handle_when(world->loop, kept, &when), -ESRCH);
    run_ticks(world, 1);
    assert_int_equal(tram_handle_cancelled(world->loop, kept), 0);
    assert_int_equal(tram_handle_cancel(world->loop, kept), 0);
    for (int i = 0; i < 1000; i++) {
        tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "x", NULL, &fresh);
        assert_int_equal(tram_handle_cancel(world->loop, kept), 0);
        assert_int_equal(tram_handle_cancel(world->loop, none), 0);
        assert_int_equal(tram_handle_cancel(world->loop, fresh), 1);
        assert_int_equal(tram_handle_cancel(world->loop, fresh), 0);
        assert_int_equal(tram_handle_cancelled(world->loop, fresh), 1);
    }
    assert_int_equal(tram_handle_cancelled(world->loop, kept), -ESRCH);
    assert_int_equal(tram_handle_cancelled(world->loop, none), -ESRCH);
    run_ticks(world, 1);
    assert_trace(world, "kept");
}

static void test_L_16_a_timer_tells_when_it_is_due(void **state) {
    struct world *world = *state;
    tram_handle handle;
    uint64_t when = 0, wanted = tram_loop_time(world->loop) + 60000000000;
    tram_loop_call_at(world->loop, wanted, trace_callback, NULL, NULL, &handle);
    assert_int_equal(tram_handle_when(world->loop, handle, &when), 0);
    assert_int_equal(when, wanted);
    tram_handle_cancel(world->loop, handle);
    assert_int_equal(tram_handle_when(world->loop, handle, &when), -ESRCH);
}

static void test_L_17_cancelled_timers_give_their_memory_back_at_once(void **state) {
    struct world *world = *state;
    tram_handle handle;
    for (int i = 0; i < 200; i++) {
        tram_loop_call_later(world->loop, 3600000000000, trace_callback, NULL, NULL, &handle);
        tram_handle_cancel(world->loop, handle);
    }
    size_t before = world->live_blocks, allocations = world->allocations;
    for (int i = 0; i < 100000; i++) {
        tram_loop_call_later(world->loop, 3600000000000, trace_callback, NULL, NULL, &handle);
        tram_handle_cancel(world->loop, handle);
    }
    assert_int_equal(world->live_blocks, before);
    assert_int_equal(world->allocations, allocations);
}

static int fail_callback(tram_loop *loop, void *arg) {
    return tram_loop_raise(loop, TRAM_EUSER, arg, "on purpose");
}

static void test_L_27_a_failing_callback_is_reported_and_the_batch_goes_on(void **state) {
    struct world *world = *state;
    tram_loop_call_soon(world->loop, fail_callback, world, NULL, NULL);
    soon(world, "next");
    later(world, 0, "timer");
    run_ticks(world, 1);
    assert_trace(world, "next timer");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_ptr_equal(world->exception_user, world);
}

static int raise_in_vain(tram_loop *loop, void *arg) {
    tram_loop_raise(loop, TRAM_EUSER, arg, "swallowed");
    return 0;
}

static int fail_plainly(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return TRAM_EUSER;
}

static void test_L_27_what_was_raised_and_not_returned_is_forgotten(void **state) {
    struct world *world = *state;
    tram_loop_call_soon(world->loop, raise_in_vain, world, NULL, NULL);
    run_ticks(world, 1);
    tram_loop_call_soon(world->loop, fail_plainly, NULL, NULL, NULL);
    run_ticks(world, 1);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_null(world->exception_user);
}

static int slow(tram_loop *loop, void *arg) {
    uint64_t until = tram_loop_time(loop) + *(uint64_t *)arg;
    while (tram_loop_time(loop) < until)
        continue;
    return 0;
}

static void test_L_30_debug_mode_logs_a_slow_callback_with_its_time(void **state) {
    struct world *world = *state;
    uint64_t duration = 30000000;
    tram_loop_set_slow_callback_duration(world->loop, 20000000);
    tram_loop_call_soon(world->loop, slow, &duration, NULL, NULL);
    run_ticks(world, 1);
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "slow callback"));
    const char *took = strstr(world->log, "took ");
    assert_non_null(took);
    assert_true(strtod(took + 5, NULL) >= 0.03);
    tram_loop_set_debug(world->loop, false);
    tram_loop_call_soon(world->loop, slow, &duration, NULL, NULL);
    run_ticks(world, 1);
    assert_int_equal(world->warnings, 1);
}

static void test_a_forked_child_may_not_use_the_loop(void **state) {
    struct world *world = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool right = tram_loop_call_soon(world->loop, trace_callback, NULL, NULL, NULL) == -ECHILD &&
                     tram_loop_run_forever(world->loop) == -ECHILD &&
                     tram_loop_call_soon_threadsafe(world->loop, trace_callback, NULL, NULL) == -ECHILD &&
                     tram_loop_close(world->loop) == -ECHILD && tram_loop_free(world->loop) == 0;
        _exit(right ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    soon(world, "parent");
    run_ticks(world, 1);
    assert_trace(world, "parent");
}

static void test_bad_options_are_refused(void **state) {
    (void)state;
    tram_loop *loop = NULL;
    tram_loop_options options = {.backend = (tram_backend)99};
    assert_int_equal(tram_loop_new(&options, &loop), TRAM_EVALUE);
    tram_allocator half = {0};
    options = (tram_loop_options){.allocator = &half};
    assert_int_equal(tram_loop_new(&options, &loop), TRAM_EVALUE);
    setenv("TRAM_BACKEND", "no such backend", 1);
    assert_int_equal(tram_loop_new(NULL, &loop), TRAM_EVALUE);
    unsetenv("TRAM_BACKEND");
    assert_null(loop);
    assert_int_equal(tram_loop_free(NULL), 0);
    setenv("TRAM_BACKEND", "epoll", 1);
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    unsetenv("TRAM_BACKEND");
    assert_string_equal(tram_loop_backend_name(loop), "epoll");
    assert_int_equal(tram_loop_free(loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name)  cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define DEBUG(name) cmocka_unit_test_setup_teardown(name, world_setup_debug, world_teardown)
        CASE(test_L_1_run_until_complete_returns_the_result_or_the_error),
        CASE(test_L_1_run_until_complete_that_is_stopped_before_is_a_state_error),
        CASE(test_L_2_L_3_what_was_queued_then_io_then_timers),
        CASE(test_L_11_posts_and_call_soon_are_one_queue),
        CASE(test_L_11_a_done_callback_keeps_its_place_behind_posts),
        CASE(test_L_11_posts_of_a_callback_to_its_own_loop_are_call_soon),
        CASE(test_L_8_L_11_posts_of_a_callback_are_discarded_when_its_loop_closes),
        CASE(test_L_8_L_11_posts_before_a_call_soon_are_discarded_when_the_loop_closes),
        CASE(test_L_11_posts_of_one_thread_keep_their_order_beyond_what_a_tick_runs),
        CASE(test_L_1_a_stop_in_the_tick_that_completes_the_future_is_used_up),
        CASE(test_L_13_timers_in_the_past_run_in_order_of_their_deadlines),
        CASE(test_L_4_L_5_callbacks_run_once_in_order_and_their_offspring_in_the_next_tick),
        CASE(test_L_5_a_callback_that_queues_itself_does_not_starve_io),
        CASE(test_L_6_a_kernel_without_exact_waits_is_asked_once),
        CASE(test_L_6_the_wait_is_as_long_as_nothing_is_to_be_done),
        CASE(test_L_7_stop_lets_the_batch_finish_and_keeps_its_offspring),
        CASE(test_L_7_stop_before_run_gives_exactly_one_tick),
        CASE(test_L_8_close_discards_what_is_queued_and_refuses_the_rest),
        CASE(test_L_8_a_closed_loop_refuses_every_call),
        DEBUG(test_L_10_L_31_debug_mode_catches_every_call_on_the_wrong_thread),
        CASE(test_L_8_close_of_a_running_loop_is_a_state_error),
        CASE(test_L_9_no_loop_runs_inside_another),
        DEBUG(test_L_10_L_31_debug_mode_catches_a_call_on_the_wrong_thread),
        CASE(test_L_13_L_15_a_timer_reads_the_clock_afresh_and_is_never_early),
        CASE(test_L_13_L_15_a_timer_started_late_in_a_tick_waits_its_full_time),
        CASE(test_L_13_what_is_due_at_once_runs_after_what_is_queued_and_by_deadline),
        CASE(test_L_14_timers_run_by_deadline_and_equal_ones_in_order_of_creation),
        CASE(test_L_16_cancel_works_even_within_the_tick),
        CASE(test_L_16_a_handle_is_safe_to_keep_for_ever),
        CASE(test_L_16_a_timer_tells_when_it_is_due),
        CASE(test_L_17_cancelled_timers_give_their_memory_back_at_once),
        CASE(test_L_27_a_failing_callback_is_reported_and_the_batch_goes_on),
        CASE(test_L_27_what_was_raised_and_not_returned_is_forgotten),
        DEBUG(test_L_30_debug_mode_logs_a_slow_callback_with_its_time),
        CASE(test_a_forked_child_may_not_use_the_loop),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
