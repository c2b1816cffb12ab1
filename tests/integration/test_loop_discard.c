/* What a program gives to a loop comes back once: arguments of callbacks, users of errors, calls that are taken back.
 */
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "support/support.h"

static struct world *traced;

static void discard(void *arg) {
    trace(traced, "discard:%s", (const char *)arg);
}

static void *word(const char *text) {
    return (void *)(uintptr_t)text;
}

/* ---- Readers, writers, signal handlers ---- */

static int read_byte(tram_loop *loop, void *arg) {
    trace(world_of(loop), "%s", (const char *)arg);
    return 0;
}

static int fds[2];

static int remove_itself(tram_loop *loop, void *arg) {
    assert_int_equal(tram_loop_remove_reader(loop, fds[0]), 1);
    trace(world_of(loop), "%s", (const char *)arg);
    return 0;
}

static void test_X_12_a_readers_argument_comes_back_when_it_is_removed_replaced_or_the_loop_closes(void **state) {
    struct world *world = traced = *state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, fds[0], read_byte, word("a"), discard), 0);
    assert_trace(world, "");
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, fds[0], read_byte, word("b"), discard), 0);
    assert_trace(world, "discard:a");
    assert_int_equal(tram_loop_add_reader(world->loop, fds[0], read_byte, word("c")), 0);
    assert_trace(world, "discard:b");
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, fds[0], read_byte, word("d"), discard), 0);
    assert_int_equal(tram_loop_remove_reader(world->loop, fds[0]), 1);
    assert_int_equal(tram_loop_remove_reader(world->loop, fds[0]), 0);
    assert_trace(world, "discard:d");
    assert_int_equal(tram_loop_add_writer_with_discard(world->loop, fds[1], read_byte, word("e"), discard), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:e");
    close(fds[0]);
    close(fds[1]);
}

static void discard_and_remove(void *arg) {
    discard(arg);
    trace(traced, "removed:%d", tram_loop_remove_reader(traced->loop, fds[0]));
}

static void test_a_discard_may_remove_what_took_its_place(void **state) {
    struct world *world = traced = *state;
    tram_loop *loop = world->loop;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(tram_loop_add_reader_with_discard(loop, fds[0], read_byte, word("a"), discard_and_remove), 0);
    assert_int_equal(tram_loop_add_reader_with_discard(loop, fds[0], read_byte, word("b"), discard), 0);
    assert_trace(world, "discard:a discard:b removed:1");
    assert_int_equal(tram_loop_add_reader_with_discard(loop, fds[0], read_byte, word("c"), discard_and_remove), 0);
    assert_int_equal(tram_loop_remove_reader(loop, fds[0]), 1);
    assert_trace(world, "discard:c removed:0");
    close(fds[0]);
    close(fds[1]);
}

static void test_a_reader_that_removes_itself_has_its_argument_until_it_returned(void **state) {
    struct world *world = traced = *state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, fds[0], remove_itself, word("x"), discard), 0);
    assert_int_equal(write(fds[1], "y", 1), 1);
    run_ticks(world, 1);
    assert_trace(world, "x discard:x");
    close(fds[0]);
    close(fds[1]);
}

static void test_X_12_a_reader_that_was_refused_keeps_its_argument(void **state) {
    struct world *world = traced = *state;
    FILE *file = tmpfile();
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, fileno(file), read_byte, word("x"), discard),
                     -EPERM);
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, -1, read_byte, word("x"), discard), -EBADF);
    assert_int_equal(tram_loop_add_reader_with_discard(world->loop, 0, NULL, word("x"), discard), TRAM_EVALUE);
    assert_int_equal(pipe(fds), 0);
    int status = -ENOMEM;
    for (size_t n = 0; status; n++) {
        world->fail_after = n;
        status = tram_loop_add_reader_with_discard(world->loop, fds[0], read_byte, word("x"), discard);
        assert_true(!status || status == -ENOMEM);
        assert_trace(world, "");
    }
    assert_true(world->failures > 1);
    world->fail_after = SIZE_MAX;
    tram_loop_remove_reader(world->loop, fds[0]);
    assert_trace(world, "discard:x");
    fclose(file);
    close(fds[0]);
    close(fds[1]);
}

static void test_X_12_a_signal_handlers_argument_comes_back(void **state) {
    struct world *world = traced = *state;
    assert_int_equal(tram_loop_add_signal_handler_with_discard(world->loop, SIGKILL, read_byte, word("x"), discard),
                     TRAM_ESTATE);
    assert_int_equal(tram_loop_add_signal_handler_with_discard(world->loop, SIGUSR1, read_byte, word("a"), discard), 0);
    assert_int_equal(tram_loop_add_signal_handler_with_discard(world->loop, SIGUSR1, read_byte, word("b"), discard), 0);
    assert_trace(world, "discard:a");
    raise(SIGUSR1);
    run_until_traced(world, "b");
    assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR1), 1);
    assert_trace(world, "b discard:b");
    assert_int_equal(tram_loop_add_signal_handler_with_discard(world->loop, SIGUSR1, read_byte, word("c"), discard), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:c");
}

/* ---- Done callbacks ---- */

static int done(tram_future *future, void *arg) {
    trace(world_of(tram_future_get_loop(future)), "%s", (const char *)arg);
    return 0;
}

static tram_future *asked;

static void discard_and_remove_callback(void *arg) {
    discard(arg);
    tram_future_remove_done_callback(asked, done, word("b"));
}

static tram_future *future_new(struct world *world) {
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    return future;
}

static void test_X_12_a_done_callback_that_runs_has_no_discard(void **state) {
    struct world *world = traced = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback_with_discard(future, done, word("a"), discard), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_future_add_done_callback_with_discard(future, done, word("b"), discard), 0);
    tram_future_release(future);
    run_to_rest(world);
    assert_trace(world, "a b");
}

static void test_X_12_a_done_callback_that_never_runs_gives_its_argument_back(void **state) {
    struct world *world = traced = *state;
    char *a = word("a");
    asked = future_new(world);
    assert_int_equal(tram_future_add_done_callback_with_discard(asked, done, a, discard), 0);
    assert_int_equal(tram_future_add_done_callback_with_discard(asked, done, word("b"), discard), 0);
    assert_int_equal(tram_future_add_done_callback_with_discard(asked, done, a, discard_and_remove_callback), 0);
    assert_int_equal(tram_future_add_done_callback_with_discard(asked, done, word("c"), discard), 0);
    assert_int_equal(tram_future_remove_done_callback(asked, done, a), 2);
    assert_trace(world, "discard:a discard:a discard:b");
    tram_future_release(asked); /* while it is pending */
    assert_trace(world, "discard:c");
    tram_future *queued = future_new(world), *pending = future_new(world);
    assert_int_equal(tram_future_add_done_callback_with_discard(queued, done, word("d"), discard), 0);
    assert_int_equal(tram_future_add_done_callback_with_discard(pending, done, word("e"), discard), 0);
    assert_int_equal(tram_future_set_result(queued, NULL), 0);
    tram_future_release(queued);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:d");
    assert_int_equal(tram_future_add_done_callback_with_discard(pending, done, word("f"), discard), TRAM_ESTATE);
    tram_future_release(pending);
    assert_trace(world, "discard:e");
}

static void test_X_12_a_done_callback_that_was_refused_keeps_its_argument(void **state) {
    struct world *world = traced = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback_with_discard(future, NULL, word("x"), discard), TRAM_EVALUE);
    assert_int_equal(tram_future_add_done_callback(future, done, NULL), 0); /* the first needs no memory */
    world->fail_after = 0;
    assert_int_equal(tram_future_add_done_callback_with_discard(future, done, word("x"), discard), -ENOMEM);
    world->fail_after = SIZE_MAX;
    tram_future_release(future);
    assert_trace(world, "");
}

/* ---- The exception handler ---- */

static int see_message(tram_loop *loop, const tram_exception *exception, void *arg) {
    trace(world_of(loop), "%s:%s", (const char *)arg, exception->message);
    return 0;
}

static int replace_itself(tram_loop *loop, const tram_exception *exception, void *arg) {
    assert_int_equal(tram_loop_set_exception_handler_with_discard(loop, see_message, word("next"), discard), 0);
    return see_message(loop, exception, arg);
}

static void report(struct world *world, const char *message) {
    const tram_exception exception = {.message = message, .fd = -1};
    assert_int_equal(tram_loop_call_exception_handler(world->loop, &exception), 0);
}

static void test_X_12_an_exception_handlers_argument_comes_back(void **state) {
    struct world *world = traced = *state;
    tram_loop *loop = world->loop;
    assert_int_equal(tram_loop_set_exception_handler_with_discard(loop, see_message, word("a"), discard), 0);
    assert_int_equal(tram_loop_set_exception_handler_with_discard(loop, see_message, word("b"), discard), 0);
    assert_trace(world, "discard:a");
    assert_int_equal(tram_loop_set_exception_handler(loop, see_message, word("c")), 0);
    assert_trace(world, "discard:b");
    assert_int_equal(tram_loop_set_exception_handler_with_discard(loop, replace_itself, word("d"), discard), 0);
    report(world, "outside"); /* of any tick: the argument is the handler's until it has returned */
    assert_trace(world, "d:outside");
    run_ticks(world, 1);
    assert_trace(world, "discard:d");
    assert_int_equal(tram_loop_set_exception_handler(loop, NULL, NULL), 0);
    assert_trace(world, "discard:next");
    assert_int_equal(tram_loop_set_exception_handler_with_discard(loop, see_message, word("e"), discard), 0);
    assert_int_equal(tram_loop_close(loop), 0);
    report(world, "closed");
    assert_trace(world, "e:closed");
    world_reopen(world);
    assert_trace(world, "discard:e");
}

static void test_X_12_an_exception_handler_that_was_refused_keeps_its_argument(void **state) {
    struct world *world = traced = *state;
    assert_int_equal(tram_loop_set_exception_handler(world->loop, see_message, word("a")), 0);
    int status = -ENOMEM;
    for (size_t n = 0; status; n++) {
        world->fail_after = n;
        status = tram_loop_set_exception_handler_with_discard(world->loop, see_message, word("b"), discard);
        world->fail_after = SIZE_MAX;
        assert_true(!status || status == -ENOMEM);
        report(world, "x");
        assert_trace(world, status ? "a:x" : "b:x");
    }
    assert_true(world->failures > 1);
}

/* ---- Calls that are taken back ---- */

static void test_a_call_of_another_thread_is_cancelled_by_any(void **state) {
    struct world *world = traced = *state;
    tram_threadsafe_handle *runs, *cancelled, *discarded;
    assert_int_equal(tram_loop_call_soon_threadsafe_handle(world->loop, read_byte, word("a"), discard, &runs), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe_handle(world->loop, read_byte, word("b"), discard, &cancelled), 0);
    assert_int_equal(tram_threadsafe_handle_cancel(cancelled), 1);
    assert_int_equal(tram_threadsafe_handle_cancel(cancelled), 0);
    run_to_rest(world);
    assert_trace(world, "a");
    assert_int_equal(tram_threadsafe_handle_cancel(runs), 0);
    assert_false(tram_threadsafe_handle_cancelled(runs));
    assert_true(tram_threadsafe_handle_cancelled(cancelled));
    assert_int_equal(tram_loop_call_soon_threadsafe_handle(world->loop, read_byte, word("c"), discard, &discarded), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe_handle(world->loop, NULL, NULL, NULL, &discarded), TRAM_EVALUE);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:c");
    assert_int_equal(tram_threadsafe_handle_cancel(discarded), 0);
    tram_threadsafe_handle *late;
    assert_int_equal(tram_loop_call_soon_threadsafe_handle(world->loop, read_byte, word("d"), discard, &late),
                     TRAM_ESTATE);
    assert_trace(world, "");
    tram_threadsafe_handle_release(runs);
    tram_threadsafe_handle_release(cancelled);
    tram_threadsafe_handle_release(discarded);
    tram_threadsafe_handle_release(NULL);
}

static int slow_failure(tram_loop *loop, void *arg) {
    (void)arg;
    for (uint64_t until = tram_loop_time(loop) + 2000000; tram_loop_time(loop) < until;)
        continue;
    return TRAM_EUSER;
}

/* Within one tick, by mail and straight into the ready queue. rules: L-27, L-30 */
static int call_in_a_tick(tram_loop *loop, void *ret_handle) {
    return tram_loop_call_soon_threadsafe_handle(loop, slow_failure, NULL, NULL, ret_handle);
}

static int keep_callback(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)loop;
    snprintf(arg, 128, "%s", exception->callback);
    return 0;
}

static void test_L_27_L_30_reports_name_the_callback_of_the_handle(void **state) {
    struct world *world = *state;
    char name[128], reported[128], expected[200];
    snprintf(expected, sizeof expected, "%s", tram_function_name((const void *)(uintptr_t)slow_failure, name, 128));
    tram_loop_set_exception_handler(world->loop, keep_callback, reported);
    tram_loop_set_debug(world->loop, true);
    tram_loop_set_slow_callback_duration(world->loop, 1000000);
    for (int in_a_tick = 0; in_a_tick < 2; in_a_tick++) {
        tram_threadsafe_handle *handle;
        reported[0] = world->log[0] = '\0';
        int status = in_a_tick ? tram_loop_call_soon(world->loop, call_in_a_tick, &handle, NULL, NULL)
                               : call_in_a_tick(world->loop, &handle);
        assert_int_equal(status, 0);
        run_to_rest(world);
        assert_string_equal(reported, expected);
        tram_slow_site sites[TRAM_SLOW_SITES + 1];
        size_t slow = tram_loop_slow_sites(world->loop, sites, TRAM_SLOW_SITES + 1), i = 0;
        while (i < slow && sites[i].function != (const void *)(uintptr_t)slow_failure)
            i++;
        assert_true(i < slow); /* on a slow machine others are, too */
        assert_non_null(strstr(world->log, expected));
        tram_threadsafe_handle_release(handle);
    }
}

#define CALLS 20000

struct race {
    tram_loop *loop;
    unsigned ran;       /* by the loop */
    unsigned cancelled; /* by the other thread */
};

static int count_run(tram_loop *loop, void *arg) {
    (void)loop;
    ((struct race *)arg)->ran++;
    return 0;
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void *post_and_cancel(void *arg) {
    struct race *race = arg;
    for (unsigned i = 0; i < CALLS; i++) {
        tram_threadsafe_handle *handle;
        if (tram_loop_call_soon_threadsafe_handle(race->loop, count_run, race, NULL, &handle))
            abort();
        race->cancelled += (unsigned)tram_threadsafe_handle_cancel(handle);
        tram_threadsafe_handle_release(handle);
    }
    tram_loop_call_soon_threadsafe(race->loop, stop, NULL, NULL);
    return NULL;
}

static void test_each_call_runs_or_was_cancelled_but_never_both(void **state) {
    struct world *world = *state;
    struct race race = {.loop = world->loop};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_and_cancel, &race), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    pthread_join(thread, NULL);
    run_to_rest(world);
    assert_int_equal(race.ran + race.cancelled, CALLS);
}

/* ---- Users of errors ---- */

static void release_user(void *user) {
    trace(traced, "release:%s", (const char *)user);
}

static int raise_user(tram_loop *loop, void *arg) {
    return tram_loop_raise_with_release(loop, -EIO, arg, release_user, "detail");
}

static int raise_in_vain(tram_loop *loop, void *arg) {
    raise_user(loop, arg);
    return 0;
}

static int see_user(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)arg;
    trace(world_of(loop), "seen:%s", (const char *)exception->error->user);
    return 0;
}

static void test_L_29_a_user_that_was_given_away_is_released_once_it_was_seen(void **state) {
    struct world *world = traced = *state;
    tram_loop_set_exception_handler(world->loop, see_user, NULL);
    tram_loop_call_soon(world->loop, raise_user, word("a"), NULL, NULL);
    tram_loop_call_soon(world->loop, raise_in_vain, word("b"), NULL, NULL);
    run_to_rest(world);
    assert_trace(world, "seen:a release:a release:b");
    raise_user(world->loop, word("outside"));
    run_to_rest(world);
    assert_trace(world, "release:outside");
    raise_user(world->loop, word("closed"));
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "release:closed");
    raise_user(world->loop, word("later"));
    assert_trace(world, "");
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    assert_trace(world, "release:later");
    world_reopen(world);
}

static int raise_without_memory(tram_loop *loop, void *arg) {
    struct world *world = world_of(loop);
    world->fail_after = 0;
    int status = raise_user(loop, arg);
    world->fail_after = SIZE_MAX;
    return status;
}

/* The error comes without it. */
static void test_L_29_X_1_a_user_is_released_at_once_without_memory(void **state) {
    struct world *world = traced = *state;
    tram_loop_call_soon(world->loop, raise_without_memory, word("a"), NULL, NULL);
    run_to_rest(world);
    assert_trace(world, "release:a");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EIO);
    assert_null(world->exception_user);
}

static int fail_with_user(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0
               ? tram_loop_raise_with_release(recorder->world->loop, -EIO, word("u"), release_user, NULL)
               : 0;
}

static void test_P_15_connection_lost_sees_a_user_before_it_is_released(void **state) {
    struct world *world = traced = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    recorder->on = fail_with_user;
    send_exactly(NULL, wire.peer, "x", 1);
    run_until(world, &recorder->was_released);
    run_ticks(world, 2);
    assert_trace(world, "data:1 lost:EIO released release:u");
    close(wire.peer);
}

static int fail_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise_with_release(loop, -EIO, arg, release_user, NULL);
}

static void test_a_future_keeps_a_user_until_it_is_let_go(void **state) {
    struct world *world = traced = *state;
    tram_future *future;
    int pair[2];
    tcp_pair(pair);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, fail_factory, word("f"), pair[0], &future), 0);
    run_ticks(world, 3);
    assert_int_equal(tram_future_result(future, NULL), -EIO);
    assert_string_equal(tram_future_error(future)->user, "f");
    assert_trace(world, "");
    raise_user(world->loop, word("younger"));
    tram_future_release(future);
    assert_trace(world, "release:f");
    run_to_rest(world);
    assert_trace(world, "release:younger");
    close(pair[1]);
}

/* ---- Factories ---- */

static struct recorder *next;

static int take_next(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    trace(world_of(loop), "factory:%s", (const char *)arg);
    *ret_protocol = &next->base;
    return 0;
}

static void test_a_connections_factory_gives_its_argument_back(void **state) {
    struct world *world = traced = *state;
    tram_connection_options options = {.discard = discard};
    uint16_t port;
    int listener = tcp_listener(5, &port);
    char text[8];
    tram_future *future;
    snprintf(text, sizeof text, "%u", port);
    next = recorder_new(world, NULL);
    assert_int_equal(
        tram_loop_create_connection(world->loop, take_next, word("a"), "127.0.0.1", text, &options, &future), 0);
    run_until(world, &next->made);
    assert_trace(world, "factory:a discard:a made");
    tram_future_release(future);
    tram_transport_abort(next->base.transport);
    run_until(world, &next->was_released);
    world->trace[0] = '\0';
    assert_int_equal(
        tram_loop_create_connection(world->loop, take_next, word("b"), "127.0.0.1", text, &options, &future), 0);
    tram_future_cancel(future);
    tram_future_release(future);
    run_ticks(world, 2);
    assert_trace(world, "discard:b");
    options.interleave = -1;
    assert_int_equal(tram_loop_create_connection(world->loop, take_next, word("c"), "127.0.0.1", text, &options, NULL),
                     TRAM_EVALUE);
    assert_trace(world, "");
    close(listener);
}

static void test_a_servers_factory_gives_its_argument_back(void **state) {
    struct world *world = traced = *state;
    tram_server_options options = {.discard = discard};
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, take_next, word("s"), "127.0.0.1", "0", &options, &future),
                     0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_server *server = tram_future_server(future);
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    next = recorder_new(world, NULL);
    int client = tcp_connect((uint16_t)tram_socket_address_port(&address));
    run_until(world, &next->made);
    tram_future_release(future);
    tram_server_close(server);
    tram_server_release(server);
    run_ticks(world, 2);
    assert_trace(world, "factory:s made");
    close(client);
    run_until(world, &next->was_released);
    run_ticks(world, 2);
    assert_trace(world, "eof lost:0 discard:s released");
    assert_int_equal(tram_loop_create_server(world->loop, take_next, word("t"), "127.0.0.1", "0", &options, NULL), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:t");
}

static int fail_traced(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)ret_protocol;
    trace(traced, "factory:%s", (const char *)arg);
    return -EIO;
}

static int pair_fds[2];

#define CALL(name)                                                                                                     \
    static int name(struct world *world, tram_protocol_factory factory, void *arg, tram_future **ret_future)

CALL(call_connection) {
    const tram_connection_options options = {.discard = discard, .sock = &pair_fds[0]};
    return tram_loop_create_connection(world->loop, factory, arg, NULL, NULL, &options, ret_future);
}

CALL(call_unix_socket) {
    const tram_unix_connection_options options = {.discard = discard, .sock = &pair_fds[0]};
    return tram_loop_create_unix_connection(world->loop, factory, arg, NULL, 0, &options, ret_future);
}

CALL(call_adopt) {
    const tram_adopt_options options = {.discard = discard};
    return tram_loop_adopt_socket(world->loop, factory, arg, pair_fds[0], &options, ret_future);
}

CALL(call_datagram) {
    const tram_datagram_options options = {.discard = discard, .local_host = "127.0.0.1"};
    return tram_loop_create_datagram_endpoint(world->loop, factory, arg, &options, ret_future);
}

CALL(call_read_pipe) {
    const tram_pipe_options options = {.discard = discard};
    return tram_loop_connect_read_pipe_with_options(world->loop, factory, arg, pair_fds[0], &options, ret_future);
}

CALL(call_write_pipe) {
    const tram_pipe_options options = {.discard = discard};
    return tram_loop_connect_write_pipe_with_options(world->loop, factory, arg, pair_fds[0], &options, ret_future);
}

CALL(call_subprocess) {
    const tram_subprocess_options options = {.discard = discard};
    const char *const argv[] = {"true", NULL};
    return tram_loop_subprocess_exec(world->loop, factory, arg, argv, &options, ret_future);
}

CALL(call_pair_across) {
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->quiet_data = true;
    tram_loop_create_future(world->loop, ret_future);
    int status = tram_loop_create_pair_across_with_discard(world->loop, &recorder->base, world->loop, factory, arg,
                                                           discard, NULL);
    if (status)
        tram_future_release(*ret_future);
    return status;
}

CALL(call_server) {
    const tram_server_options options = {.discard = discard};
    return tram_loop_create_server(world->loop, factory, arg, "127.0.0.1", "0", &options, ret_future);
}

CALL(call_unix_server) {
    const tram_unix_server_options options = {.discard = discard};
    return tram_loop_create_unix_server(world->loop, factory, arg, "\0discard", 8, &options, ret_future);
}

/* Of a server the factory is called at a connection: here there is none. */
static const struct {
    const char *name;
    int (*call)(struct world *world, tram_protocol_factory factory, void *arg, tram_future **ret_future);
    bool takes_socket, serves;
} factory_calls[] = {
    {"connection", call_connection, true, false},
    {"unix socket", call_unix_socket, true, false},
    {"adopt", call_adopt, true, false},
    {"datagram", call_datagram, false, false},
    {"read pipe", call_read_pipe, true, false},
    {"write pipe", call_write_pipe, true, false},
    {"subprocess", call_subprocess, false, false},
    {"pair across", call_pair_across, false, false},
    {"server", call_server, false, true},
    {"unix server", call_unix_server, false, true},
};

static void test_X_12_every_call_gives_its_factorys_argument_back_once(void **state) {
    struct world *world = traced = *state;
    for (size_t i = 0; i < sizeof factory_calls / sizeof *factory_calls; i++) {
        tram_future *future;
        unix_pair(pair_fds);
        if (factory_calls[i].call(world, NULL, word("x"), &future) != TRAM_EVALUE)
            fail_msg("%s: took no factory", factory_calls[i].name);
        run_ticks(world, 2);
        assert_trace(world, "");
        assert_int_equal(factory_calls[i].call(world, fail_traced, word("x"), &future), 0);
        tram_future_release(future);
        if (factory_calls[i].serves) {
            run_ticks(world, 2);
            assert_trace(world, "");
            world_reopen(world);
            assert_trace(world, "discard:x");
        } else {
            run_until_traced(world, "discard:x");
            world_reopen(world); /* nor when what was created goes */
            if (!strstr(world->trace, "factory:x discard:x") ||
                strstr(strstr(world->trace, "discard:x") + 1, "discard"))
                fail_msg("%s: %s", factory_calls[i].name, world->trace);
            world->trace[0] = '\0';
        }
        close(pair_fds[1]);
        if (!factory_calls[i].takes_socket)
            close(pair_fds[0]);
    }
}

/* A loop that closes first, before the names are known or the other loop has run. */
static void test_a_loop_that_closes_gives_the_arguments_back(void **state) {
    struct world *world = traced = *state;
    tram_datagram_options datagram = {.discard = discard, .local_host = loopback_name(), .local_port = "0"};
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, fail_traced, word("a"), &datagram, NULL), 0);
    if (strcmp(loopback_name(), "localhost") != 0) /* a number needs no tick */
        world->trace[0] = '\0';
    tram_loop *other;
    assert_int_equal(tram_loop_new(&world->options, &other), 0);
    struct recorder *recorder = recorder_new(world, NULL);
    assert_int_equal(tram_loop_create_pair_across_with_discard(world->loop, &recorder->base, other, fail_traced,
                                                               word("b"), discard, NULL),
                     0);
    assert_int_equal(tram_loop_free(other), 0);
    assert_non_null(strstr(world->trace, "discard:b"));
    assert_null(strstr(world->trace, "factory:b"));
    assert_int_equal(tram_loop_close(world->loop), 0);
    if (strcmp(loopback_name(), "localhost") == 0)
        assert_non_null(strstr(world->trace, "discard:a"));
}

static unsigned discards;

static void count_discard(void *arg) {
    (void)arg;
    discards++;
}

static void test_a_runtimes_server_gives_its_argument_back_once(void **state) {
    struct world *world = *state;
    tram_server_options options = {.discard = count_discard};
    tram_runtime_options runtime_options = {.workers = 2, .loop = world->options};
    tram_runtime *runtime;
    tram_error error;
    discards = 0;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    assert_int_equal(tram_runtime_create_server(runtime, take_next, NULL, "127.0.0.1", "0", &options, NULL, &error), 0);
    const tram_unix_server_options unix_options = {.discard = count_discard};
    const tram_datagram_options datagram = {.discard = count_discard, .local_host = "127.0.0.1"};
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, take_next, NULL, "\0discards", 9, &unix_options, NULL, &error), 0);
    assert_int_equal(tram_runtime_create_datagram_endpoint(runtime, fail_factory, NULL, &datagram, NULL, &error), 0);
    assert_int_equal(tram_runtime_create_datagram_endpoint(runtime, NULL, NULL, &datagram, NULL, &error), TRAM_EVALUE);
    options.shard_worker = 2;
    assert_int_equal(tram_runtime_create_server(runtime, take_next, NULL, "127.0.0.1", "0", &options, NULL, &error),
                     TRAM_EVALUE);
    assert_string_equal(error.option, "shard_worker");
    assert_int_equal(discards, 0);
    tram_runtime_free(runtime);
    assert_int_equal(discards, 3);
}

/* ---- Around the wait ---- */

struct lock {
    unsigned given, taken;
    bool held;
};

static void give_lock(tram_loop *loop, void *arg) {
    struct lock *lock = arg;
    assert_non_null(loop);
    assert_true(lock->held);
    lock->held = false;
    lock->given++;
}

static void take_lock(tram_loop *loop, void *arg) {
    struct lock *lock = arg;
    assert_non_null(loop);
    assert_false(lock->held);
    lock->held = true;
    lock->taken++;
}

static int stop_with_lock(tram_loop *loop, void *arg) {
    assert_true(((struct lock *)arg)->held);
    return tram_loop_stop(loop);
}

static void test_a_host_gives_its_lock_away_while_the_loop_waits(void **state) {
    struct world *world = *state;
    struct lock lock = {.held = true};
    world->options.before_wait = give_lock;
    world->options.after_wait = take_lock;
    world->options.wait_arg = &lock;
    world_reopen(world);
    tram_loop_call_soon(world->loop, stop_with_lock, &lock, NULL, NULL);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_int_equal(lock.given, 0); /* there was something to do at once */
    tram_loop_call_later(world->loop, 5000000, stop_with_lock, &lock, NULL, NULL);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_true(lock.held && lock.given > 0 && lock.given == lock.taken);
    unsigned given = lock.given;
    assert_int_equal(tram_loop_dispatch(world->loop), 0);
    assert_int_equal(lock.given, given);
}

/* ---- Which option, and what the resolver said ---- */

static void test_X_1_the_wrong_option_is_named(void **state) {
    struct world *world = *state;
    static const struct {
        tram_connection_options options;
        const char *host, *wrong;
    } cases[] = {
        {{.family = 12345}, "127.0.0.1", "family"},
        {{.interleave = -1}, "127.0.0.1", "interleave"},
        {{.server_hostname = "x"}, "127.0.0.1", "server_hostname"},
        {{.not_ours = true}, "127.0.0.1", "not_ours"},
        {{.reserved = {1}}, "127.0.0.1", "reserved"},
        {{.family = 0}, NULL, "host"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tram_loop_create_connection(world->loop, take_next, NULL, cases[i].host,
                                                     cases[i].host ? "1" : NULL, &cases[i].options, NULL),
                         TRAM_EVALUE);
        assert_string_equal(tram_wrong_option(), cases[i].wrong);
    }
    tram_server_options server = {.backlog = -1};
    assert_int_equal(tram_loop_create_server(world->loop, take_next, NULL, NULL, "0", &server, NULL), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "backlog");
    server = (tram_server_options){.shard = TRAM_SHARD_FIXED};
    assert_int_equal(tram_loop_create_server(world->loop, take_next, NULL, NULL, "0", &server, NULL), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "shard");
    tram_datagram_options datagram = {.local_host = "127.0.0.1", .local_path = "/x"};
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, take_next, NULL, &datagram, NULL), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "local_path");
}

static void test_X_1_the_resolvers_own_code(void **state) {
    struct world *world = *state;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST};
    tram_future *future;
    assert_int_equal(tram_loop_getaddrinfo(world->loop, "no number", "80", &hints, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ERESOLVE);
    assert_int_equal(tram_future_error(future)->resolver_code, EAI_NONAME);
    tram_future_release(future);
    assert_int_equal(tram_loop_getaddrinfo(world->loop, "127.0.0.1", "99999", &hints, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ERESOLVE);
    assert_int_equal(tram_future_error(future)->resolver_code, EAI_SERVICE);
    tram_future_release(future);
    tram_connection_options options = {.flags = AI_NUMERICHOST};
    assert_int_equal(tram_loop_create_connection(world->loop, take_next, NULL, "no number", "80", &options, &future),
                     0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ERESOLVE);
    assert_int_equal(tram_future_error(future)->resolver_code, EAI_NONAME);
    tram_future_release(future);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_12_a_readers_argument_comes_back_when_it_is_removed_replaced_or_the_loop_closes),
        TEST(test_a_discard_may_remove_what_took_its_place),
        TEST(test_a_reader_that_removes_itself_has_its_argument_until_it_returned),
        TEST(test_X_12_a_reader_that_was_refused_keeps_its_argument),
        TEST(test_X_12_a_signal_handlers_argument_comes_back),
        TEST(test_X_12_a_done_callback_that_runs_has_no_discard),
        TEST(test_X_12_a_done_callback_that_never_runs_gives_its_argument_back),
        TEST(test_X_12_a_done_callback_that_was_refused_keeps_its_argument),
        TEST(test_X_12_an_exception_handlers_argument_comes_back),
        TEST(test_X_12_an_exception_handler_that_was_refused_keeps_its_argument),
        TEST(test_a_call_of_another_thread_is_cancelled_by_any),
        TEST(test_L_27_L_30_reports_name_the_callback_of_the_handle),
        TEST(test_each_call_runs_or_was_cancelled_but_never_both),
        TEST(test_L_29_a_user_that_was_given_away_is_released_once_it_was_seen),
        TEST(test_L_29_X_1_a_user_is_released_at_once_without_memory),
        TEST(test_P_15_connection_lost_sees_a_user_before_it_is_released),
        TEST(test_a_future_keeps_a_user_until_it_is_let_go),
        TEST(test_X_12_every_call_gives_its_factorys_argument_back_once),
        TEST(test_a_loop_that_closes_gives_the_arguments_back),
        TEST(test_a_connections_factory_gives_its_argument_back),
        TEST(test_a_servers_factory_gives_its_argument_back),
        TEST(test_a_runtimes_server_gives_its_argument_back_once),
        TEST(test_a_host_gives_its_lock_away_while_the_loop_waits),
        TEST(test_X_1_the_wrong_option_is_named),
        TEST(test_X_1_the_resolvers_own_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
