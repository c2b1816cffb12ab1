/*
 * Where a task waits: whatever it waits in, that is in the function that called it. The one that calls all of
 * them is alone in a section of its own.
 */
#include <tram/channel.h>
#include <tram/group.h>
#include <tram/queue.h>
#include <tram/receive.h>
#include <tram/streams.h>
#include <tram/sync.h>
#include <tram/task.h>
#include <tram/wait.h>

#include "support/tasks.h"

extern const char __start_waits[], __stop_waits[];

enum wait {
    SLEEP,
    AWAIT,
    JOIN,
    WAIT_FOR,
    WAIT,
    NEXT,
    LOCK,
    EVENT,
    SEMAPHORE,
    CONDITION,
    BARRIER,
    PUT,
    GET,
    QUEUE_JOIN,
    SEND,
    RECEIVE,
    GROUP,
    MESSAGE,
    READ,
    READ_EXACTLY,
    READ_ALL,
    READ_UNTIL,
    READ_LINE,
    PEEK,
    WAITS,
};

/* What they wait for, which never comes. */
static struct {
    tram_future *future;
    tram_task *task;
    tram_completions *completions;
    tram_lock taken, own;
    tram_event event;
    tram_semaphore semaphore;
    tram_condition condition;
    tram_barrier barrier;
    tram_queue *full, *empty;
    tram_channel *full_channel, *empty_channel;
    tram_group *group;
    tram_stream_reader *reader;
} all;

static int sleep_for_ever(void *arg) {
    (void)arg;
    return tram_sleep(TRAM_FOREVER);
}

__attribute__((noinline, section("waits"))) static int wait_in(enum wait which) {
    void *value;
    tram_bytes bytes;
    tram_message *message;
    tram_future *next;
    char byte;
    int status = -ENOSYS;
    switch (which) {
    case SLEEP:
        status = tram_sleep(HOUR);
        break;
    case AWAIT:
        status = tram_await(all.future, &value);
        break;
    case JOIN:
        status = tram_task_join(all.task);
        break;
    case WAIT_FOR:
        status = tram_wait_for(all.future, HOUR, &value);
        break;
    case WAIT:
        status = tram_wait(&all.future, 1, HOUR, TRAM_ALL_COMPLETED);
        break;
    case NEXT:
        status = tram_completions_next(all.completions, &next);
        break;
    case LOCK:
        status = tram_lock_acquire(&all.taken);
        break;
    case EVENT:
        status = tram_event_wait(&all.event);
        break;
    case SEMAPHORE:
        status = tram_semaphore_acquire(&all.semaphore);
        break;
    case CONDITION:
        status = tram_condition_wait(&all.condition);
        break;
    case BARRIER:
        status = tram_barrier_wait(&all.barrier);
        break;
    case PUT:
        status = tram_queue_put(all.full, NULL);
        break;
    case GET:
        status = tram_queue_get(all.empty, &value);
        break;
    case QUEUE_JOIN:
        status = tram_queue_join(all.full);
        break;
    case SEND:
        status = tram_channel_send(all.full_channel, NULL);
        break;
    case RECEIVE:
        status = tram_channel_receive(all.empty_channel, &value);
        break;
    case GROUP:
        status = tram_group_end(all.group, 0);
        break;
    case MESSAGE:
        status = tram_task_receive(HOUR, &message);
        break;
    case READ:
        status = (int)tram_stream_reader_read(all.reader, &byte, 1);
        break;
    case READ_EXACTLY:
        status = tram_stream_reader_readexactly(all.reader, &byte, 1, NULL);
        break;
    case READ_ALL:
        status = tram_stream_reader_readall(all.reader, &bytes);
        break;
    case READ_UNTIL:
        status = tram_stream_reader_readuntil(all.reader, "x", 1, &bytes);
        break;
    case READ_LINE:
        status = tram_stream_reader_readline(all.reader, &bytes);
        break;
    case PEEK:
        status = tram_stream_reader_peek(all.reader, 1, &bytes);
        break;
    case WAITS:
        break;
    }
    return status;
}

/* What must be done in the task itself comes first. */
static int wait_for_nothing(void *arg) {
    enum wait which = *(enum wait *)arg;
    if (which == NEXT)
        assert_int_equal(tram_as_completed(&all.future, 1, HOUR, &all.completions), 0);
    if (which == CONDITION)
        assert_int_equal(tram_lock_acquire(&all.own), 0);
    if (which == GROUP) {
        assert_int_equal(tram_group_begin(&all.group), 0);
        assert_int_equal(tram_group_spawn(all.group, sleep_for_ever, NULL, NULL, NULL), 0);
    }
    int status = wait_in(which);
    if (which == NEXT)
        tram_completions_free(all.completions);
    if (which == CONDITION)
        assert_int_equal(tram_lock_release(&all.own), 0);
    return status;
}

struct found {
    const tram_task *task;
    const char *where;
    bool waits;
};

static void find(const tram_task_info *info, void *arg) {
    struct found *found = arg;
    if (info->task != found->task)
        return;
    found->where = info->where;
    found->waits = info->state == TRAM_TASK_WAITING;
}

static void test_A_14_where_a_task_waits_is_where_it_called(void **state) {
    (void)state;
    tram_loop *loop = tasks_world->loop;
    const tram_queue_options one = {.max_size = 1};
    memset(&all, 0, sizeof all);
    all.taken.locked = true;
    tram_semaphore_init(&all.semaphore, 0, false);
    tram_condition_init(&all.condition, &all.own);
    assert_int_equal(tram_barrier_init(&all.barrier, 2), 0);
    assert_int_equal(tram_queue_new(loop, &one, &all.full), 0);
    assert_int_equal(tram_queue_put_nowait(all.full, NULL), 0);
    assert_int_equal(tram_queue_new(loop, &one, &all.empty), 0);
    assert_int_equal(tram_channel_new(loop, 1, NULL, &all.full_channel), 0);
    assert_int_equal(tram_channel_try_send(all.full_channel, NULL), 0);
    assert_int_equal(tram_channel_new(loop, 1, NULL, &all.empty_channel), 0);
    assert_int_equal(tram_stream_reader_new(loop, 0, &all.reader), 0);
    for (enum wait which = 0; which < WAITS; which++) {
        all.future = future_new(); /* whoever is cancelled cancels what it waits for */
        all.task = spawn(sleep_for_ever, NULL);
        tram_task *task = spawn(wait_for_nothing, &which);
        run_to_rest(tasks_world);
        struct found found = {.task = task};
        assert_int_equal(tram_loop_each_task(loop, find, &found), 0);
        if (!found.waits || found.where < __start_waits || found.where > __stop_waits)
            fail_msg("the wait number %d is elsewhere", which);
        tram_task_cancel(task);
        assert_int_equal(run_task(task), TRAM_ECANCELLED);
        if (which != JOIN) { /* who joins gives it back */
            tram_task_cancel(all.task);
            run_task(all.task);
        }
        tram_future_release(all.future);
    }
    tram_queue_free(all.full);
    tram_queue_free(all.empty);
    tram_channel_release(all.full_channel);
    tram_channel_release(all.empty_channel);
    assert_int_equal(tram_stream_reader_free(all.reader), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {TASK_TEST(test_A_14_where_a_task_waits_is_where_it_called)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
