/*
 * Children of fork(), wherever they were forked. A child may free its parent's loops and make its own; calls on the
 * parent's are -ECHILD; and nothing of the parent's comes alive in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "public_calls.h"
#include "support/support.h"

/* ---- What children do: they answer by their exit status, the line of what went wrong ---- */

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            _exit(__LINE__ % 255 + 1);                                                                                 \
    } while (0)

static int stop_loop(tram_loop *loop, void *arg) {
    ++*(int *)arg;
    return tram_loop_stop(loop);
}

static int post_again(tram_loop *loop, void *arg) {
    return tram_loop_call_soon_threadsafe(loop, stop_loop, arg, NULL);
}

/* A loop of its own, with mail and a signal. */
static void live(void) {
    tram_loop *loop;
    int count = 0;
    CHECK(tram_loop_running() == NULL);
    CHECK(tram_loop_new(NULL, &loop) == 0);
    CHECK(tram_loop_call_soon_threadsafe(loop, post_again, &count, NULL) == 0);
    CHECK(tram_loop_run_forever(loop) == 0);
    CHECK(count == 1);
    CHECK(tram_loop_add_signal_handler(loop, SIGUSR1, stop_loop, &count) == 0);
    CHECK(raise(SIGUSR1) == 0);
    CHECK(tram_loop_run_forever(loop) == 0);
    CHECK(count == 2);
    CHECK(tram_loop_free(loop) == 0);
}

/*
 * The thread sanitizer ends a child of a process with threads that begins one ("starting new threads after
 * multi-threaded fork is not supported"); told to go on (die_after_fork=0), it takes the new thread for one of the
 * parent's. A task is a thread to it.
 */
static void skip_where_a_child_may_begin_no_thread(void) {
#ifdef TRAM_TSAN
    print_message("the thread sanitizer lets no thread begin in a child of a process with threads\n");
    skip();
#endif
}

static void assert_child(pid_t child, int expected) {
    int status;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, expected);
}

static pid_t fork_timed(void) {
    pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL); /* a worker takes none */
        alarm(30);
    }
    return child;
}

/* ---- In a callback ---- */

static void count_discard(void *arg) {
    ++*(int *)arg;
}

static int count_call(tram_loop *loop, void *arg) {
    (void)loop;
    ++*(int *)arg;
    return 0;
}

static pid_t forked;

static int fork_here(tram_loop *loop, void *arg) {
    int *discarded = arg;
    forked = fork_timed();
    if (forked)
        return tram_loop_stop(loop);
    CHECK(tram_loop_stop(loop) == -ECHILD);
    CHECK(tram_loop_call_soon_threadsafe(loop, count_call, arg, NULL) == -ECHILD);
    CHECK(tram_loop_run_forever(loop) == -ECHILD);
    CHECK(tram_loop_free(loop) == 0);
    CHECK(*discarded == 0); /* the parent's */
    live();
    _exit(0);
}

static void test_L_41_forked_in_a_callback(void **state) {
    struct world *world = *state;
    int discarded = 0;
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, fork_here, &discarded, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_call, &discarded, count_discard), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_int_equal(discarded, 3); /* they ran */
    assert_child(forked, 0);
}

static int hear(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)loop, (void)exception, (void)arg;
    return 0;
}

/* The argument is the parent's; the memory is the child's own copy, which is given back. */
static void test_L_41_a_child_frees_a_loop_whose_handler_has_an_argument(void **state) {
    struct world *world = *state;
    int discarded = 0;
    assert_int_equal(tram_loop_set_exception_handler_with_discard(world->loop, hear, &discarded, count_discard), 0);
    pid_t child = fork_timed();
    if (child == 0) {
        CHECK(tram_loop_free(world->loop) == 0);
        CHECK(discarded == 0 && world->live_blocks == 0);
        _exit(0);
    }
    assert_child(child, 0);
    assert_int_equal(discarded, 0);
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    assert_int_equal(discarded, 1);
    world_reopen(world);
}

static int fork_and_keep(tram_loop *loop, void *arg) {
    (void)arg;
    forked = fork_timed();
    if (forked)
        return tram_loop_stop(loop);
    live();
    CHECK(tram_loop_call_soon_threadsafe(loop, count_call, arg, NULL) == -ECHILD);
    CHECK(tram_loop_free(loop) == 0);
    live();
    _exit(0);
}

static void test_forked_in_a_callback_with_the_parents_loop_kept(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon(world->loop, fork_and_keep, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_child(forked, 0);
}

static int nobody(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    (void)ret_protocol;
    return TRAM_EUSER;
}

static int fork_worker(tram_loop *loop, void *arg) {
    (void)loop;
    tram_runtime *runtime = arg, *mine;
    forked = fork_timed();
    if (forked)
        return tram_runtime_stop(runtime);
    CHECK(tram_runtime_stop(runtime) == -ECHILD);
    tram_runtime_free(runtime);
    /* Not a worker of what may have the same address. */
    tram_runtime_options options = {.workers = 2};
    CHECK(tram_runtime_new(&options, &mine) == 0);
    CHECK(tram_runtime_start(mine) == 0);
    CHECK(tram_runtime_create_server(mine, nobody, NULL, "127.0.0.1", "0", NULL, NULL, NULL) == 0);
    tram_runtime_free(mine);
    live();
    _exit(0);
}

static void test_L_41_forked_on_a_worker(void **state) {
    (void)state;
    skip_where_a_child_may_begin_no_thread();
    tram_runtime_options options = {.workers = 2};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 1), fork_worker, runtime, NULL), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
    assert_child(forked, 0);
}

/* ---- A child that goes on as if it were the parent ---- */

static int fork_and_return(tram_loop *loop, void *arg) {
    (void)arg;
    forked = fork_timed();
    return forked ? tram_loop_stop(loop) : 0;
}

static int fork_and_sleep(void *arg) {
    (void)arg;
    forked = fork_timed();
    return forked ? 0 : tram_sleep(TRAM_FOREVER);
}

static int sleep_for_ever(void *arg) {
    (void)arg;
    return tram_sleep(TRAM_FOREVER);
}

struct waiting {
    tram_future *future;
    tram_task *task;
    tram_completions *completions;
    tram_group *group;
    tram_queue *queue;
    tram_channel *channel;
};

static bool checked;

static void check_waits(struct waiting *self) {
    tram_lock lock = {.locked = false};
    tram_event event = {.set = true};
    tram_semaphore semaphore;
    tram_condition condition;
    tram_barrier barrier;
    tram_completions *completions;
    tram_timeout *timeout;
    tram_group *group;
    tram_actor *actor;
    tram_message *message;
    void *item;
    tram_semaphore_init(&semaphore, 1, false);
    tram_condition_init(&condition, &lock);
    CHECK(tram_barrier_init(&barrier, 1) == 0);
    CHECK(tram_sleep(0) == -ECHILD && tram_sleep(TRAM_FOREVER) == -ECHILD && tram_yield() == -ECHILD);
    CHECK(tram_await(self->future, NULL) == -ECHILD && tram_task_join(self->task) == -ECHILD);
    CHECK(tram_wait_for(self->future, 0, NULL) == -ECHILD && tram_wait_for(self->future, 1, NULL) == -ECHILD);
    CHECK(tram_wait(&self->future, 1, TRAM_FOREVER, TRAM_ALL_COMPLETED) == -ECHILD);
    CHECK(tram_as_completed(&self->future, 1, TRAM_FOREVER, &completions) == -ECHILD);
    CHECK(tram_completions_next(self->completions, &self->future) == -ECHILD);
    CHECK(tram_timeout_begin(1, &timeout) == -ECHILD);
    CHECK(tram_group_begin(&group) == -ECHILD && tram_group_end(self->group, 0) == -ECHILD);
    CHECK(tram_group_spawn(self->group, sleep_for_ever, NULL, NULL, NULL) == -ECHILD);
    CHECK(tram_task_actor(NULL, &actor) == -ECHILD && tram_task_receive(0, &message) == -ECHILD);
    CHECK(tram_lock_acquire(&lock) == -ECHILD && tram_event_wait(&event) == -ECHILD);
    CHECK(tram_semaphore_acquire(&semaphore) == -ECHILD && tram_condition_wait(&condition) == -ECHILD);
    CHECK(tram_barrier_wait(&barrier) == -ECHILD);
    CHECK(tram_queue_put(self->queue, NULL) == -ECHILD && tram_queue_get(self->queue, &item) == -ECHILD);
    CHECK(tram_queue_join(self->queue) == -ECHILD);
    CHECK(tram_channel_send(self->channel, NULL) == -ECHILD && tram_channel_receive(self->channel, &item) == -ECHILD);
    checked = true;
}

/* In the child it ends with a group open, which waits for a task that never ends there. */
static int fork_and_wait(void *arg) {
    struct waiting *self = arg;
    tram_loop *loop = tram_loop_running();
    int status = tram_loop_create_future(loop, &self->future);
    status = status ? status : tram_task_spawn(loop, sleep_for_ever, NULL, NULL, &self->task);
    status = status ? status : tram_as_completed(&self->future, 1, TRAM_FOREVER, &self->completions);
    status = status ? status : tram_queue_new(loop, NULL, &self->queue);
    status = status ? status : tram_channel_new(loop, 1, NULL, &self->channel);
    status = status ? status : tram_group_begin(&self->group);
    status = status ? status : tram_group_spawn(self->group, sleep_for_ever, NULL, NULL, NULL);
    if (status)
        return status;
    forked = fork_timed();
    if (forked == 0) {
        check_waits(self);
        return 0;
    }
    tram_completions_free(self->completions);
    tram_future_release(self->future);
    tram_task_cancel(self->task);
    tram_task_release(self->task);
    tram_queue_free(self->queue);
    tram_channel_release(self->channel);
    return tram_group_end(self->group, TRAM_ECANCELLED);
}

/* What its parent's poller would tell, it takes from its parent. */
static void assert_only_the_parent_runs(int status, pid_t parent) {
    if (getpid() != parent) {
        CHECK(status == -ECHILD);
        live();
        _exit(0);
    }
    assert_int_equal(status, 0);
    assert_child(forked, 0);
}

static void test_L_41_a_child_that_returns_from_its_callback_does_not_poll(void **state) {
    struct world *world = *state;
    pid_t parent = getpid();
    assert_int_equal(tram_loop_call_soon(world->loop, fork_and_return, NULL, NULL, NULL), 0);
    assert_only_the_parent_runs(tram_loop_run_forever(world->loop), parent);
}

static void test_L_41_a_child_that_waits_in_its_task_does_not_poll(void **state) {
    struct world *world = *state;
    skip_where_a_child_may_begin_no_thread();
    pid_t parent = getpid();
    tram_task *task;
    assert_int_equal(tram_task_spawn(world->loop, fork_and_sleep, NULL, NULL, &task), 0);
    assert_only_the_parent_runs(tram_loop_run_until_complete(world->loop, tram_task_future(task)), parent);
    tram_task_release(task);
}

static void test_L_41_whatever_waits_in_a_task_says_that_it_is_a_child(void **state) {
    struct world *world = *state;
    skip_where_a_child_may_begin_no_thread();
    pid_t parent = getpid();
    struct waiting waiting;
    tram_task *task;
    assert_int_equal(tram_task_spawn(world->loop, fork_and_wait, &waiting, NULL, &task), 0);
    int status = tram_loop_run_until_complete(world->loop, tram_task_future(task));
    if (getpid() == parent)
        assert_int_equal(tram_task_result(task), TRAM_ECANCELLED);
    else
        CHECK(checked); /* none of them left the task */
    assert_only_the_parent_runs(getpid() == parent ? 0 : status, parent);
    tram_task_release(task);
    run_ticks(world, 3);
}

/* ---- Signals ---- */

static void test_L_41_a_signal_of_the_parents_takes_its_default_action(void **state) {
    struct world *world = *state;
    int count = 0;
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGTERM, count_call, &count), 0);
    pid_t child = fork_timed();
    if (child == 0) {
        raise(SIGTERM);
        _exit(1);
    }
    assert_child(child, SIGTERM);
    child = fork_timed();
    if (child == 0) {
        live(); /* has handlers of its own, for another signal */
        raise(SIGTERM);
        _exit(1);
    }
    assert_child(child, SIGTERM);
    run_ticks(world, 2);
    assert_int_equal(count, 0);
    raise(SIGTERM);
    run_ticks(world, 2);
    assert_int_equal(count, 1);
}

/* The descriptor that woke the parent's loop may be somebody else's in the child. */
static void test_a_signal_of_the_parents_writes_nowhere(void **state) {
    struct world *world = *state;
    int count = 0, ends[2];
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGWINCH, count_call, &count), 0);
    uint64_t timeout;
    assert_int_equal(tram_loop_prepare(world->loop, &timeout), 0); /* it sleeps: who signals writes */
    assert_true(timeout == TRAM_FOREVER);
    assert_int_equal(pipe(ends), 0);
    set_blocking(ends[0], false);
    pid_t child = fork_timed();
    if (child == 0) {
        for (int fd = 3; fd < 64; fd++)
            if (fd != ends[0] && fd != ends[1])
                dup2(ends[1], fd);
        tram_loop *loop;
        CHECK(tram_loop_new(NULL, &loop) == 0);
        CHECK(tram_loop_add_signal_handler(loop, SIGUSR1, stop_loop, &count) == 0);
        raise(SIGWINCH);
        char byte;
        CHECK(read(ends[0], &byte, 1) < 0 && errno == EAGAIN);
        _exit(0);
    }
    assert_child(child, 0);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(tram_loop_dispatch(world->loop), 0);
    assert_int_equal(count, 0);
}

static _Atomic bool storm_ends;

/* Takes the lock of the signals, and has handlers at work, as often as can be. */
static void *storm(void *arg) {
    (void)arg;
    tram_loop *loop;
    int count = 0;
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    while (!storm_ends) {
        assert_int_equal(tram_loop_add_signal_handler(loop, SIGUSR1, count_call, &count), 0);
        pthread_kill(pthread_self(), SIGUSR1);
        tram_loop_remove_signal_handler(loop, SIGUSR1);
    }
    assert_int_equal(tram_loop_free(loop), 0);
    return NULL;
}

static void test_L_41_no_lock_is_inherited(void **state) {
    (void)state;
    pthread_t thread;
    storm_ends = false;
    assert_int_equal(pthread_create(&thread, NULL, storm, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork_timed();
        if (child == 0) {
            live();
            raise(SIGKILL); /* valgrind finds what the other thread had lost, at every other end */
        }
        assert_child(child, SIGKILL);
    }
    storm_ends = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* ---- Every call ---- */

static void print_nothing(void *arg, const char *line) {
    (void)arg, (void)line;
}

struct parents {
    const struct public_call *calls;
    void *object;
    const char *but; /* what a child may do with it, or what needs no loop */
};

static void refused_in_children(const struct parents *all, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pid_t child = fork_timed();
        if (child == 0)
            _exit(!all_answer(all[i].calls, all[i].object, -ECHILD, all[i].but));
        assert_child(child, 0);
    }
}

static int submitted(tram_loop *loop, void *arg, void **ret_value) {
    (void)loop, (void)arg, (void)ret_value;
    return 0;
}

static int serve_nobody(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)reader, (void)writer, (void)arg;
    return -EPERM;
}

static int no_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg, (void)ret_protocol;
    return -EPERM;
}

static void test_L_41_every_call_on_what_the_parent_has_is_refused(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    tram_future *future, *plain;
    tram_threadsafe_handle *handle;
    tram_stream_reader *reader;
    int number = 0;
    tram_stream_reader *streams_reader;
    tram_stream_writer *writer;
    tram_protocol *protocol;
    tram_transport *transport;
    tram_queue *queue;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_stream_new(world->loop, 0, &protocol, &streams_reader, &writer), 0);
    assert_int_equal(transport_try_new(world, fds[0], protocol, NULL, &transport), 0);
    run_to_rest(world);
    assert_int_equal(tram_queue_new(world->loop, NULL, &queue), 0);
    assert_int_equal(tram_stream_reader_new(world->loop, 0, &reader), 0);
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_loop_create_future(world->loop, &plain), 0);
    tram_server *server = tram_future_server(future);
    const struct parents all[] = {
        {calls_of_tram_loop, world->loop,
         " tram_loop_free tram_loop_call_soon_threadsafe_handle tram_loop_worker tram_stream_factory"
         " tram_loop_dump_tasks"},
        {calls_of_tram_transport, wire.transport, " tram_transport_datagram_ttl tram_transport_datagram_tos"},
        {calls_of_tram_stream_reader, reader, ""},
        {calls_of_tram_stream_writer, writer, ""},
        {calls_of_tram_server, server, " tram_server_limit_counts"},
        {calls_of_tram_queue, queue, " tram_queue_put tram_queue_get tram_queue_task_done tram_queue_join"},
        {calls_of_tram_future, plain, " tram_wait_for"},
    };
    refused_in_children(all, sizeof all / sizeof *all);
    pid_t child = fork_timed();
    if (child == 0) {
        CHECK(tram_loop_call_soon_threadsafe_handle(world->loop, count_call, &number, NULL, &handle) == -ECHILD);
        CHECK(tram_loop_dump_tasks(world->loop, print_nothing, NULL) == -ECHILD);
        _exit(0);
    }
    assert_child(child, 0);
    tram_stream_writer_close(writer);
    tram_stream_writer_release(writer);
    close(fds[1]);
    tram_queue_free(queue);
    tram_stream_reader_free(reader);
    tram_future_release(plain);
    tram_future_release(future);
    tram_server_close(server);
    child = fork_timed();
    if (child == 0)
        _exit(tram_server_close(server) != -ECHILD); /* though there would be nothing to do */
    assert_child(child, 0);
    tram_server_release(server);
    tram_transport_abort(wire.transport);
    run_to_rest(world);
    close(wire.peer);
}

static void test_L_41_every_call_on_a_runtime_of_the_parents_is_refused(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 2};
    tram_datagram_options local = {.local_host = "127.0.0.1"};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_runtime_datagram_endpoint *endpoint;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_create_server(runtime, no_protocol, NULL, "127.0.0.1", "0", NULL, &server, NULL), 0);
    assert_int_equal(tram_runtime_create_datagram_endpoint(runtime, no_protocol, NULL, &local, &endpoint, NULL), 0);
    const struct parents all[] = {
        {calls_of_tram_runtime, runtime,
         " tram_runtime_run_task tram_runtime_each tram_runtime_stats tram_runtime_start_server"
         " tram_runtime_start_unix_server"},
        {calls_of_tram_runtime_server, server,
         " tram_runtime_server_sockname tram_runtime_server_limit_counts tram_runtime_server_sharding"},
        {calls_of_tram_runtime_datagram_endpoint, endpoint, " tram_runtime_datagram_endpoint_sockname"},
    };
    refused_in_children(all, sizeof all / sizeof *all);
    pid_t child = fork_timed();
    if (child == 0) {
        const tram_stream_service service = {.handler = serve_nobody};
        tram_future *future;
        tram_loop *own;
        CHECK(tram_loop_new(NULL, &own) == 0);
        CHECK(tram_runtime_run_task(runtime, sleep_for_ever, NULL) == -ECHILD);
        CHECK(tram_runtime_each(runtime, own, submitted, NULL, NULL, &future) == -ECHILD);
        CHECK(tram_runtime_start_server(runtime, &service, "127.0.0.1", "0", NULL, &server, NULL) == -ECHILD);
        CHECK(tram_runtime_start_unix_server(runtime, &service, "@x", 2, NULL, &server, NULL) == -ECHILD);
        CHECK(tram_loop_free(own) == 0);
        _exit(0);
    }
    assert_child(child, 0);
    assert_int_equal(tram_runtime_server_release(server), 0);
    assert_int_equal(tram_runtime_datagram_endpoint_release(endpoint), 0);
    tram_runtime_free(runtime);
}

static void test_L_41_a_channel_of_the_parents(void **state) {
    struct world *world = *state;
    tram_channel *channel;
    assert_int_equal(tram_channel_new(world->loop, 1, NULL, &channel), 0);
    pid_t child = fork_timed();
    if (child == 0)
        _exit(tram_channel_try_send(channel, "x") == -ECHILD && tram_channel_close(channel) == -ECHILD ? 0 : 1);
    assert_child(child, 0);
    assert_int_equal(tram_channel_try_send(channel, "x"), 0); /* the parent's has room still */
    assert_int_equal(tram_channel_close(channel), 0);
    tram_channel_release(channel);
}

/* ---- Executors ---- */

static int job(void *arg, void **ret_result) {
    *ret_result = arg;
    return 0;
}

static void test_L_41_an_executor_of_the_parents(void **state) {
    struct world *world = *state;
    skip_where_a_child_may_begin_no_thread();
    tram_executor *executor;
    tram_future *future;
    assert_int_equal(tram_executor_new(2, NULL, &executor), 0);
    assert_int_equal(tram_loop_run_in_executor(world->loop, executor, job, NULL, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
    pid_t child = fork_timed();
    if (child == 0) {
        tram_loop *loop;
        CHECK(tram_loop_new(NULL, &loop) == 0);
        CHECK(tram_loop_run_in_executor(loop, executor, job, NULL, NULL, &future) == -ECHILD);
        CHECK(tram_loop_set_default_executor(loop, executor) == -ECHILD);
        CHECK(tram_executor_set_limit(executor, 1) == -ECHILD);
        CHECK(tram_loop_submit(loop, world->loop, submitted, NULL, NULL, &future) == -ECHILD);
        tram_executor_free(executor);
        CHECK(tram_loop_run_in_executor(loop, NULL, job, NULL, NULL, &future) == 0);
        CHECK(tram_loop_run_until_complete(loop, future) == 0);
        tram_future_release(future);
        CHECK(tram_loop_free(loop) == 0);
        _exit(0);
    }
    assert_child(child, 0);
    tram_executor_free(executor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_L_41_forked_in_a_callback, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_forked_in_a_callback_with_the_parents_loop_kept, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_a_child_frees_a_loop_whose_handler_has_an_argument, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_forked_on_a_worker, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_a_child_that_returns_from_its_callback_does_not_poll, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_a_child_that_waits_in_its_task_does_not_poll, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_whatever_waits_in_a_task_says_that_it_is_a_child, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_a_signal_of_the_parents_takes_its_default_action, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_a_signal_of_the_parents_writes_nowhere, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_no_lock_is_inherited, world_setup, world_teardown),
        cmocka_unit_test(test_L_41_every_call_on_a_runtime_of_the_parents_is_refused),
        cmocka_unit_test_setup_teardown(test_L_41_every_call_on_what_the_parent_has_is_refused, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_a_channel_of_the_parents, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_41_an_executor_of_the_parents, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
