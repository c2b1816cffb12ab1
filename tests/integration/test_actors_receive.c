/* Tasks as actors: receiving, timeouts, cancellation, their end, and who hears of it. */
#include "support/memory.h"
#include "support/tasks.h"

/* What a task under test gets, and what became of messages that had a type. */
static tram_actor *self;
static int dropped, destroyed;

static void count_dropped(tram_message *message) {
    (void)message;
    dropped++;
}

static void count_destroyed(tram_message *message) {
    (void)message;
    destroyed++;
}

static const tram_message_type counted = {.name = "counted", .destroy = count_destroyed, .dropped = count_dropped};

static int receive_setup(void **state) {
    dropped = destroyed = 0;
    return tasks_setup(state);
}

/* The task's own address, which makes it an actor. */
static tram_address address_of(tram_task *task) {
    tram_address address;
    assert_int_equal(tram_task_actor(task, &self), 0);
    assert_int_equal(tram_actor_address(self, &address), 0);
    return address;
}

static void post(tram_address to, uint32_t tag) {
    tram_message message = {.type = &counted, .tag = tag};
    assert_int_equal(tram_post(to, &message), 0);
}

static void trace_received(int status, const tram_message *message) {
    if (status)
        trace(tasks_world, "%s", tram_error_name(status));
    else if (message->type == &tram_ended_message)
        trace(tasks_world, "ended:%s", message->tag ? tram_error_name((int32_t)message->tag) : "0");
    else
        trace(tasks_world, "%u", message->tag);
}

static int receive_once(uint64_t timeout_ns) {
    tram_message *message = NULL;
    int status = tram_task_receive(timeout_ns, &message);
    trace_received(status, message);
    return status;
}

/* Until a message with tag 0, or an error. */
static int receive_all(void *arg) {
    tram_message *message;
    int status;
    (void)arg;
    do {
        message = NULL;
        status = tram_task_receive(TRAM_FOREVER, &message);
        trace_received(status, message);
    } while (!status && message->tag);
    return status;
}

/* ---- Receiving ---- */

static void test_N_15_a_task_receives_in_order(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(receive_all, NULL);
    tram_address to = address_of(task);
    post(to, 1); /* before it has begun */
    post(to, 2);
    run_to_rest(world);
    assert_trace(world, "1 2");
    assert_int_equal(destroyed, 2); /* by the receive that waits now */
    post(to, 3);
    run_to_rest(world);
    assert_trace(world, "3");
    assert_int_equal(destroyed, 3);
    post(to, 0);
    assert_int_equal(run_task(task), 0);
    run_to_rest(world);
    assert_trace(world, "0");
    assert_int_equal(destroyed, 4);
    post(to, 4); /* it has ended */
    run_to_rest(world);
    assert_int_equal(dropped, 1);
}

static int receive_in_time(void *arg) {
    tram_message *message;
    tram_address to;
    (void)arg;
    assert_int_equal(tram_task_actor(NULL, &self), 0);
    assert_int_equal(tram_actor_address(self, &to), 0);
    assert_int_equal(tram_task_receive(0, &message), TRAM_ETIMEOUT);
    assert_int_equal(tram_task_receive(1, &message), TRAM_ETIMEOUT);
    post(to, 1);
    assert_int_equal(tram_task_receive(0, &message), TRAM_ETIMEOUT); /* it is on its way */
    assert_int_equal(tram_yield(), 0);
    assert_int_equal(tram_yield(), 0); /* mail comes behind what is ready */
    assert_int_equal(tram_task_receive(0, &message), 0);
    assert_int_equal(message->tag, 1);
    post(to, 2);
    assert_int_equal(tram_task_receive(HOUR, &message), 0);
    assert_int_equal(message->tag, 2);
    assert_int_equal(tram_task_receive(HOUR, NULL), TRAM_EVALUE);
    return 0;
}

static void test_N_15_a_receive_takes_no_longer_than_its_timeout(void **state) {
    struct world *world = *state;
    tram_message *message;
    assert_int_equal(run_function(receive_in_time, NULL), 0);
    run_to_rest(world);
    assert_int_equal(destroyed, 2);
    assert_int_equal(tram_task_receive(0, &message), TRAM_ESTATE); /* no task */
    assert_int_equal(tram_task_actor(NULL, &self), TRAM_ESTATE);
}

static tram_address late_to;

/* In the tick in which the timer of the task is due, and before the task runs. */
static int post_late(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    post(late_to, 1);
    return 0;
}

static int receive_at_the_end(void *arg) {
    (void)arg;
    return receive_once(1);
}

static int spend_time(tram_loop *loop, void *arg) {
    (void)arg;
    for (uint64_t begin = tram_loop_time(loop); tram_loop_time(loop) <= begin + 10;)
        ;
    return 0;
}

static void test_N_15_a_message_in_the_tick_of_the_timeout_is_in_time(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(receive_at_the_end, NULL);
    late_to = address_of(task);
    run_ticks(world, 1); /* it waits, and its timer begins */
    spend_time(world->loop, NULL);
    post_late(world->loop, NULL); /* mail runs before timers: both wake it in this tick */
    assert_int_equal(run_task(task), 0);
    assert_trace(world, "1");
    task = spawn(receive_at_the_end, NULL);
    late_to = address_of(task);
    run_ticks(world, 1);
    spend_time(world->loop, NULL);
    run_ticks(world, 1); /* the timer has woken it, and it did not run yet */
    post_late(world->loop, NULL);
    run_to_rest(world);
    assert_true(tram_task_done(task));
    tram_task_release(task);
    run_to_rest(world);
    assert_int_equal(destroyed + dropped, 2); /* received or dropped: mail may come in the tick after */
    world->trace[0] = '\0';
}

static int receive_cancelled(void *arg) {
    tram_message *message;
    (void)arg;
    int status = tram_task_receive(TRAM_FOREVER, &message);
    trace_received(status, message);
    assert_int_equal(status, TRAM_ECANCELLED);
    assert_int_equal(tram_task_uncancel(tram_task_current()), 0);
    return receive_once(0);
}

static void test_N_15_a_cancellation_loses_no_message(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(receive_cancelled, NULL);
    tram_address to = address_of(task);
    run_ticks(world, 2);
    post(to, 1);
    run_ticks(world, 1); /* the message has woken it, but it did not run yet */
    assert_int_equal(tram_task_cancel(task), 1);
    assert_int_equal(run_task(task), 0);
    run_to_rest(world);
    assert_trace(world, "TRAM_ECANCELLED 1");
    assert_int_equal(destroyed, 1);
    assert_int_equal(dropped, 0);
}

static tram_message taken;

static int take_one(void *arg) {
    tram_message *message;
    (void)arg;
    assert_int_equal(tram_task_receive(TRAM_FOREVER, &message), 0);
    taken = tram_message_take(message);
    return 0;
}

static void test_N_15_what_was_taken_is_the_tasks(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(take_one, NULL);
    post(address_of(task), 7);
    assert_int_equal(run_task(task), 0);
    run_to_rest(world);
    assert_int_equal(taken.tag, 7);
    assert_ptr_equal(taken.type, &counted);
    assert_int_equal(destroyed + dropped, 0);
}

static void test_N_6_N_15_what_a_task_has_not_received_counts_for_the_bound(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(receive_all, NULL);
    tram_address to = address_of(task);
    tram_message message = {.type = &counted, .tag = 1};
    tram_message_counts counts;
    assert_int_equal(tram_address_set_limit(world->loop, to, 2), 0);
    assert_int_equal(tram_try_post(to, &message), 0);
    assert_int_equal(tram_try_post(to, &message), 0);
    assert_int_equal(tram_try_post(to, &message), -EAGAIN);
    run_ticks(world, 1); /* the task has begun, and waits; then the mail came */
    assert_int_equal(tram_address_message_counts(world->loop, to, &counts), 0);
    assert_int_equal(counts.waiting, 2);
    assert_int_equal(counts.delivered, 0);
    assert_int_equal(tram_try_post(to, &message), -EAGAIN);
    run_ticks(world, 1);
    assert_trace(world, "1 1");
    assert_int_equal(tram_address_message_counts(world->loop, to, &counts), 0);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.delivered, 2);
    assert_int_equal(counts.refused, 2);
    assert_int_equal(tram_try_post(to, &message), 0);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    run_to_rest(world);
    world->trace[0] = '\0';
    assert_int_equal(destroyed + dropped, 3);
}

static tram_future *go_on;

static int receive_later(void *arg) {
    int status = tram_await(go_on, NULL);
    return status ? status : receive_all(arg);
}

static void test_N_10_N_15_the_time_in_the_queue_ends_when_the_task_receives(void **state) {
    struct world *world = *state;
    go_on = future_new();
    tram_task *task = spawn(receive_later, NULL);
    tram_address to = address_of(task);
    tram_message_counts counts;
    for (int i = 0; i < 130; i++)
        post(to, 1);
    run_to_rest(world);
    assert_int_equal(tram_address_message_counts(world->loop, to, &counts), 0);
    assert_int_equal(counts.queued, 130);
    assert_int_equal(counts.delivered + counts.measured, 0);
    for (uint64_t begin = tram_loop_time(world->loop); tram_loop_time(world->loop) - begin < 100000;)
        ;
    assert_int_equal(tram_future_set_result(go_on, NULL), 0);
    run_to_rest(world);
    assert_int_equal(tram_address_message_counts(world->loop, to, &counts), 0);
    assert_int_equal(counts.queued, 0);
    assert_int_equal(counts.delivered, 130);
    assert_int_equal(counts.measured, 1); /* no two at once */
    assert_true(counts.waited_ns >= 100000 && counts.longest_wait_ns == counts.waited_ns);
    post(to, 0);
    assert_int_equal(run_task(task), 0);
    tram_future_release(go_on);
    run_to_rest(world);
    world->trace[0] = '\0';
}

/* ---- Requests ---- */

static int serve_requests(void *arg) {
    tram_message *message;
    tram_request *later = NULL;
    int status;
    (void)arg;
    while ((status = tram_task_receive(TRAM_FOREVER, &message)) == 0 && message->tag) {
        if (message->tag == 1) /* the answer comes with that to the next one */
            later = tram_message_take_request(message);
        if (message->tag != 2)
            continue; /* 3: not answered */
        tram_request *request = tram_message_take_request(message);
        assert_null(tram_message_take_request(message));
        tram_reply(request, &(tram_message){.words = {22}});
        tram_reply(later, &(tram_message){.words = {11}});
    }
    return status;
}

static int ask_value(tram_address to, uint32_t tag) {
    tram_message message = {.type = &counted, .tag = tag};
    tram_future *future;
    assert_int_equal(tram_ask(tasks_world->loop, to, &message, TRAM_FOREVER, &future), 0);
    int status = tram_await(future, NULL);
    if (!status)
        status = (int)tram_future_message(future)->words[0];
    tram_future_release(future);
    return status;
}

static int ask_first(void *arg) {
    tram_address *to = arg;
    trace(tasks_world, "first:%d", ask_value(*to, 1));
    return 0;
}

static int ask_all(void *arg) {
    tram_address *to = arg;
    tram_task *first = spawn(ask_first, to);
    assert_int_equal(tram_yield(), 0);
    trace(tasks_world, "second:%d", ask_value(*to, 2));
    assert_int_equal(tram_task_join(first), 0);
    trace(tasks_world, "third:%s", tram_error_name(ask_value(*to, 3)));
    return 0;
}

static void test_N_8_N_15_a_task_asks_a_task_which_answers_later(void **state) {
    struct world *world = *state;
    tram_task *server = spawn(serve_requests, NULL), *client;
    tram_address to = address_of(server);
    client = spawn(ask_all, &to);
    run_to_rest(world);
    assert_non_null(strstr(world->trace, "second:22"));
    assert_non_null(strstr(world->trace, "first:11"));
    assert_non_null(strstr(world->trace, "third:EOPNOTSUPP")); /* by the receive that follows */
    world->trace[0] = '\0';
    assert_int_equal(run_task(client), 0);
    post(to, 0);
    assert_int_equal(run_task(server), 0);
    run_to_rest(world);
    assert_int_equal(destroyed, 4);
}

static int ask_who_ends(void *arg) {
    tram_address *to = arg;
    trace(tasks_world, "%s", tram_error_name(ask_value(*to, 1)));
    return 0;
}

static int end_at_once(void *arg) {
    (void)arg;
    return tram_sleep(0);
}

static void test_N_8_N_16_what_a_task_does_not_receive_is_dropped_by_name(void **state) {
    struct world *world = *state;
    tram_task *server = spawn(end_at_once, NULL);
    tram_address to = address_of(server);
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    tram_task *client = spawn(ask_who_ends, &to);
    post(to, 1);
    post(to, 2);
    assert_int_equal(run_task(client), 0);
    assert_trace(world, "ESRCH");
    assert_int_equal(run_task(server), 0);
    run_to_rest(world);
    assert_int_equal(dropped, 3);
    assert_int_equal(destroyed, 0);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.dropped_messages - before.dropped_messages, 3);
    assert_int_equal(now.messages, before.messages);
}

/* ---- Ends ---- */

static int watch_others(void *arg) {
    tram_actor *actor;
    const tram_address *others = arg;
    assert_int_equal(tram_task_actor(NULL, &actor), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_actor_monitor(actor, others[i]), 0);
    int status = 0;
    for (int i = 0; i < 3 && !status; i++)
        status = receive_once(TRAM_FOREVER);
    return status;
}

static int break_off(void *arg) {
    (void)arg;
    int status = tram_sleep(0);
    return status ? status : -EPROTO;
}

static void test_N_12_N_16_a_monitor_hears_when_a_task_has_ended_and_why(void **state) {
    struct world *world = *state;
    tram_task *tasks[] = {spawn(end_at_once, NULL), spawn(break_off, NULL), spawn(receive_all, NULL)};
    tram_address others[3];
    for (int i = 0; i < 3; i++)
        others[i] = address_of(tasks[i]);
    tram_task *watcher = spawn(watch_others, others);
    run_to_rest(world);
    assert_trace(world, "ended:0 ended:EPROTO");
    assert_int_equal(tram_task_cancel(tasks[2]), 1);
    assert_int_equal(run_task(watcher), 0);
    assert_non_null(strstr(world->trace, "ended:TRAM_ECANCELLED"));
    world->trace[0] = '\0';
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_task_actor(tasks[i], &self), TRAM_ESTATE);
        tram_task_release(tasks[i]);
    }
    run_to_rest(world);
    assert_int_equal(world->exceptions, 1); /* of the one that failed: nobody looked at its error */
    assert_int_equal(world->exception_code, -EPROTO);
    world->exceptions = 0;
}

/* A cleanup that takes three turns. */
static int end_slowly(void *arg) {
    tram_message *message;
    int status = tram_task_receive(TRAM_FOREVER, &message);
    assert_int_equal(status, TRAM_ECANCELLED);
    assert_int_equal(tram_task_receive(TRAM_FOREVER, &message), arg ? TRAM_ECANCELLED : TRAM_ETIMEOUT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_sleep(0), 0);
    trace(tasks_world, "%s", (const char *)arg);
    return status;
}

static int hear_of_end(tram_actor *actor, tram_address who, int reason) {
    (void)actor, (void)who;
    trace(tasks_world, "heard:%s", tram_error_name(reason));
    return 0;
}

static const tram_actor_ops watcher_ops = {.actor_ended = hear_of_end};

static void test_N_16_who_stops_a_task_waits_for_its_end(void **state) {
    struct world *world = *state;
    static tram_actor watcher;
    tram_address address;
    tram_actor *actor;
    watcher = (tram_actor){.ops = &watcher_ops};
    assert_int_equal(tram_loop_start_actor(world->loop, &watcher), 0);
    tram_task *task = spawn(end_slowly, "cleaned");
    tram_address to = address_of(task);
    assert_int_equal(tram_actor_monitor(&watcher, to), 0);
    run_ticks(world, 2);
    post(to, 1);
    actor = self;
    assert_int_equal(tram_actor_stop(actor, -EPIPE), 0);
    assert_int_equal(tram_actor_stop(actor, 0), TRAM_ESTATE);
    assert_int_equal(tram_actor_address(actor, &address), TRAM_ESTATE);
    assert_int_equal(tram_task_actor(task, &actor), TRAM_ESTATE);
    run_to_rest(world);
    assert_trace(world, "cleaned heard:EPIPE"); /* the first reason, after the task's end */
    assert_int_equal(dropped, 1);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_int_equal(tram_actor_stop(&watcher, 0), 0);
    run_to_rest(world);
}

static int stop_itself(void *arg) {
    (void)arg;
    assert_int_equal(tram_task_actor(NULL, &self), 0);
    assert_int_equal(tram_actor_stop(self, -ENODATA), 0);
    return receive_once(TRAM_FOREVER);
}

static void test_N_16_a_link_ends_a_task_and_a_task_its_link(void **state) {
    struct world *world = *state;
    tram_task *tasks[] = {spawn(receive_all, NULL), spawn(receive_all, NULL), spawn(stop_itself, NULL)};
    tram_address to[3];
    tram_actor *actors[3];
    for (int i = 0; i < 3; i++) {
        to[i] = address_of(tasks[i]);
        actors[i] = self;
    }
    assert_int_equal(tram_actor_link(actors[0], to[1]), 0);
    assert_int_equal(tram_actor_link(actors[1], to[2]), 0);
    run_to_rest(world); /* the last one stops itself, and so the others */
    assert_trace(world, "TRAM_ECANCELLED TRAM_ECANCELLED TRAM_ECANCELLED");
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_task(tasks[i]), TRAM_ECANCELLED);
    run_to_rest(world);
    /* An end without an error is none of theirs. */
    tasks[0] = spawn(receive_all, NULL);
    to[0] = address_of(tasks[0]);
    tasks[1] = spawn(end_at_once, NULL);
    to[1] = address_of(tasks[1]);
    assert_int_equal(tram_actor_link(self, to[0]), 0);
    assert_int_equal(run_task(tasks[1]), 0);
    run_to_rest(world);
    assert_false(tram_task_done(tasks[0]));
    post(to[0], 0);
    assert_int_equal(run_task(tasks[0]), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void test_N_16_a_loop_that_closes_ends_tasks_that_receive(void **state) {
    struct world *world = *state;
    tram_task *task = spawn(receive_all, NULL), *other = spawn(end_at_once, NULL);
    tram_address to = address_of(task), to_other = address_of(other);
    run_ticks(world, 1);
    post(to, 1);
    run_ticks(world, 1);
    post(to, 2);
    post(to_other, 3);
    tram_task_release(task);
    tram_task_release(other);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(destroyed + dropped, 3);
    world->trace[0] = '\0';
    world->exceptions = 0; /* a task was destroyed that was pending */
}

/* … also where they wait still when its turn comes: those who watch it on other loops hear of it. */
static void test_N_12_N_16_a_loop_that_closes_ends_tasks_behind_other_actors(void **state) {
    struct world *world = *state;
    static tram_actor plain, watcher;
    tram_loop *other;
    plain = watcher = (tram_actor){.ops = &watcher_ops};
    assert_int_equal(tram_loop_start_actor(world->loop, &plain), 0);
    tram_task *task = spawn(receive_all, NULL);
    tram_address to = address_of(task);
    run_to_rest(world);
    assert_int_equal(tram_loop_new(&world->options, &other), 0);
    assert_int_equal(tram_loop_start_actor(other, &watcher), 0);
    assert_int_equal(tram_actor_monitor(&watcher, to), 0);
    for (int i = 0; i < 2; i++)
        assert_true(tram_loop_dispatch(other) >= 0);
    run_to_rest(world);
    tram_task_release(task);
    assert_int_equal(tram_loop_close(world->loop), 0);
    world->exceptions = 0; /* a task was destroyed that was pending */
    for (int i = 0; i < 2; i++)
        assert_true(tram_loop_dispatch(other) >= 0);
    assert_trace(world, "heard:TRAM_ECANCELLED");
    assert_int_equal(tram_loop_free(other), 0);
}

/* ---- Supervised, named, and the end of a runtime ---- */

static const char *const names[] = {"a", "b", "c"};
static tram_task *children[3];
static tram_actor *child_actors[3];

static int start_task(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    size_t number = (size_t)((const char *const *)arg - names);
    tram_task *task;
    trace(tasks_world, "start:%s", names[number]);
    int status =
        tram_task_spawn(loop, number == 0 ? receive_all : end_slowly, (void *)(uintptr_t)names[number], NULL, &task);
    if (status)
        return status;
    status = tram_task_actor(task, ret_actor);
    if (status)
        tram_task_cancel(task);
    children[number] = task; /* the loop holds it until it ends */
    child_actors[number] = status ? NULL : *ret_actor;
    tram_task_release(task);
    return status;
}

static void test_N_14_N_16_a_supervisor_awaits_the_ends_of_tasks(void **state) {
    struct world *world = *state;
    tram_child described[3];
    for (size_t i = 0; i < 3; i++)
        described[i] = (tram_child){.start = start_task, .arg = (void *)(uintptr_t)&names[i]};
    tram_supervisor_options options = {.strategy = TRAM_ONE_FOR_ALL, .children = described, .child_count = 3};
    tram_actor *supervisor;
    assert_int_equal(tram_supervisor_start(world->loop, &options, &supervisor), 0);
    run_to_rest(world);
    assert_trace(world, "start:a start:b start:c");
    tram_address to;
    assert_int_equal(tram_actor_address(child_actors[0], &to), 0);
    post(to, 0); /* its function returns: c, then b are stopped, and take their time */
    run_to_rest(world);
    assert_trace(world, "0 c b start:a start:b start:c");
    static tram_actor watcher;
    watcher = (tram_actor){.ops = &watcher_ops};
    assert_int_equal(tram_loop_start_actor(world->loop, &watcher), 0);
    assert_int_equal(tram_actor_address(supervisor, &to), 0);
    assert_int_equal(tram_actor_monitor(&watcher, to), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(supervisor, -EIO), 0);
    run_to_rest(world); /* it ends when the last child has */
    assert_trace(world, "c b TRAM_ECANCELLED heard:EIO");
    assert_int_equal(tram_actor_stop(&watcher, 0), 0);
    run_to_rest(world);
}

/* A child that stops its supervisor in its last callback. */
static tram_actor *doomed;

static void stop_supervisor(tram_actor *actor, int reason) {
    (void)reason;
    free(actor);
    trace(tasks_world, "stopped");
    if (doomed)
        assert_int_equal(tram_actor_stop(doomed, 0), 0);
    doomed = NULL;
}

static const tram_actor_ops stopping_ops = {.stopped = stop_supervisor};

static int start_stopping(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    tram_actor **kept = arg;
    *ret_actor = *kept = calloc(1, sizeof **ret_actor);
    (*ret_actor)->ops = &stopping_ops;
    return tram_loop_start_actor(loop, *ret_actor);
}

static void test_N_14_a_child_may_stop_its_supervisor_in_its_last_callback(void **state) {
    struct world *world = *state;
    tram_actor *kept[2];
    tram_child described[] = {{.start = start_stopping, .arg = &kept[0]}, {.start = start_stopping, .arg = &kept[1]}};
    tram_supervisor_options options = {.children = described, .child_count = 2};
    assert_int_equal(tram_supervisor_start(world->loop, &options, &doomed), 0);
    assert_int_equal(tram_actor_stop(kept[0], -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "stopped stopped"); /* and none is started again */
}

static _Atomic int cancelled, served;

/* At the end it receives what is there still. */
static int serve_until_cancelled(void *arg) {
    tram_runtime *runtime = arg;
    tram_actor *actor;
    tram_message *message;
    int status = tram_task_actor(NULL, &actor);
    if (!status)
        status = tram_actor_register(actor, runtime, "server");
    while (!status) {
        status = tram_task_receive(cancelled ? 0 : TRAM_FOREVER, &message);
        if (status == TRAM_ECANCELLED) {
            cancelled++;
            status = 0;
            continue;
        }
        tram_request *request = status ? NULL : tram_message_take_request(message);
        served += request != NULL;
        if (request)
            tram_reply(request, &(tram_message){.words = {message->words[0] + 1}});
    }
    return status;
}

static int start_server(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)worker, (void)state, (void)arg;
    return tram_task_spawn(loop, serve_until_cancelled, runtime, NULL, NULL);
}

static int ask_server(void *arg) {
    tram_runtime *runtime = arg;
    tram_address to;
    while (tram_runtime_lookup(runtime, "server", &to) == -ENOENT) /* its task may not have begun */
        assert_int_equal(tram_sleep(100000), 0);
    tram_message message = {.tag = 1, .words = {41}};
    tram_future *future;
    assert_int_equal(tram_ask(tasks_world->loop, to, &message, TRAM_FOREVER, &future), 0);
    assert_int_equal(tram_await(future, NULL), 0);
    int answer = (int)tram_future_message(future)->words[0];
    tram_future_release(future);
    return answer;
}

static void test_N_13_N_16_G_1_a_task_ends_with_its_runtime(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .start = start_server};
    tram_runtime *runtime;
    cancelled = served = 0;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(run_function(ask_server, runtime), 42);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(cancelled, 1);
    assert_int_equal(served, 1);
    tram_runtime_free(runtime);
}

/* ---- Without memory ---- */

static int receive_or_not(void *arg) {
    tram_message *message;
    tram_actor *actor;
    (void)arg;
    int status = tram_task_actor(NULL, &actor);
    if (!had_memory(status))
        return 0;
    tram_address own;
    assert_int_equal(tram_actor_address(actor, &own), 0);
    (void)had_memory(tram_actor_monitor(actor, own)); /* its own end: nobody hears it */
    for (int i = 0; i < 3; i++) {
        tram_message message_to_self = {.type = &counted, .tag = 1};
        if (tram_post(own, &message_to_self))
            dropped++;
        status = tram_task_receive(i * 1000u, &message);
        assert_true(!status || status == TRAM_ETIMEOUT || status == -ENOMEM);
    }
    return 0;
}

static void use_receivers(struct world *world) {
    tram_task *task;
    dropped = destroyed = 0;
    if (had_memory(tram_task_spawn(world->loop, receive_or_not, NULL, NULL, &task))) {
        (void)tram_loop_run_until_complete(world->loop, tram_task_future(task));
        bool done = tram_task_done(task);
        tram_task_release(task);
        run_ticks(world, 4);
        assert_true(!done || dropped + destroyed == 0 || dropped + destroyed == 3);
    }
    world->exceptions = 0; /* a message that found no memory is reported */
}

static int receive_in_an_hour(void *arg) {
    (void)arg;
    int status = tram_sleep(HOUR);
    return status ? status : receive_once(0);
}

/* What arrives where the task cannot keep it is dropped as if it did not want it, and reported. */
static void test_N_5_X_1_a_message_that_a_task_cannot_keep_is_reported(void **state) {
    struct world *world = *state;
    const unsigned count = 300;
    tram_task *task = spawn(receive_in_an_hour, NULL);
    tram_address to = address_of(task);
    run_ticks(world, 1);
    for (unsigned i = 0; i < count; i++)
        post(to, i);
    memory_fail_others(1, UINT64_MAX);
    run_ticks(world, 3);
    memory_fail(0, 0);
    assert_in_range(dropped, 1, count); /* it may have had room for some */
    assert_int_equal(world->exceptions, dropped);
    assert_int_equal(world->exception_code, -ENOMEM);
    assert_string_equal(world->exception, "a message to a task was dropped");
    assert_int_equal(world->exception_fd, -1);
    world->exceptions = 0;
    assert_int_equal(tram_task_cancel(task), 1);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    run_to_rest(world);
    assert_int_equal(dropped, count);
    assert_int_equal(destroyed, 0);
}

static int receive_where_nothing_fits(void *arg) {
    tram_message *message;
    tram_actor *actor;
    (void)arg;
    assert_wrong(tram_task_actor(NULL, NULL), "ret_actor");
    assert_wrong(tram_task_receive(0, NULL), "ret_message");
    tasks_world->fail_after = 0;
    int statuses[] = {tram_task_receive(0, &message), tram_task_actor(NULL, &actor)};
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(statuses[0], -ENOMEM);
    assert_int_equal(statuses[1], -ENOMEM);
    return tram_task_receive(0, &message);
}

static void test_X_1_a_task_that_cannot_become_an_actor_says_so(void **state) {
    (void)state;
    assert_int_equal(run_function(receive_where_nothing_fits, NULL), TRAM_ETIMEOUT);
}

static void test_X_1_tasks_receive_without_memory(void **state) {
    run_out_of_memory(*state, false, use_receivers);
    run_out_of_memory(*state, true, use_receivers);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, receive_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_N_15_a_task_receives_in_order),
        CASE(test_N_15_a_receive_takes_no_longer_than_its_timeout),
        CASE(test_N_15_a_message_in_the_tick_of_the_timeout_is_in_time),
        CASE(test_N_15_a_cancellation_loses_no_message),
        CASE(test_N_15_what_was_taken_is_the_tasks),
        CASE(test_N_6_N_15_what_a_task_has_not_received_counts_for_the_bound),
        CASE(test_N_10_N_15_the_time_in_the_queue_ends_when_the_task_receives),
        CASE(test_N_8_N_15_a_task_asks_a_task_which_answers_later),
        CASE(test_N_8_N_16_what_a_task_does_not_receive_is_dropped_by_name),
        CASE(test_N_12_N_16_a_monitor_hears_when_a_task_has_ended_and_why),
        CASE(test_N_16_who_stops_a_task_waits_for_its_end),
        CASE(test_N_16_a_link_ends_a_task_and_a_task_its_link),
        CASE(test_N_16_a_loop_that_closes_ends_tasks_that_receive),
        CASE(test_N_12_N_16_a_loop_that_closes_ends_tasks_behind_other_actors),
        CASE(test_N_14_N_16_a_supervisor_awaits_the_ends_of_tasks),
        CASE(test_N_14_a_child_may_stop_its_supervisor_in_its_last_callback),
        CASE(test_N_13_N_16_G_1_a_task_ends_with_its_runtime),
        CASE(test_N_5_X_1_a_message_that_a_task_cannot_keep_is_reported),
        CASE(test_X_1_a_task_that_cannot_become_an_actor_says_so),
        CASE(test_X_1_tasks_receive_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
