/* Channels: from tasks of any loop to tasks of one. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "support/memory.h"
#include "support/tasks.h"

static tram_channel *channel;
static _Atomic size_t discarded;

static void count_discard(void *item) {
    (void)item;
    atomic_fetch_add(&discarded, 1);
}

static void channel_new(size_t capacity) {
    discarded = 0;
    assert_int_equal(tram_channel_new(tasks_world->loop, capacity, count_discard, &channel), 0);
}

static int send_item(void *arg) {
    int status = tram_channel_send(channel, arg);
    trace(tasks_world, "sent%s:%s", (const char *)arg, status_name(status));
    return status;
}

static int receive(void *arg) {
    void *item = NULL;
    int status = tram_channel_receive(channel, &item);
    trace(tasks_world, "%s:%s", (const char *)arg, status ? tram_error_name(status) : (const char *)item);
    return status;
}

/* Two senders and the channel go; one item was never received. */
static void end_with_one_left(tram_task *const tasks[2]) {
    tram_task_release(tasks[0]);
    tram_task_release(tasks[1]);
    tram_channel_close(channel);
    tram_channel_release(channel);
    assert_int_equal(discarded, 1);
}

static int receive_elsewhere(void *arg) {
    void *item = arg;
    return tram_channel_receive(channel, &item);
}

static void test_A_39_only_tasks_of_its_loop_receive(void **state) {
    (void)state;
    tram_loop *other;
    tram_task *task;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "x"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_task_spawn(other, receive_elsewhere, NULL, NULL, &task), 0);
    (void)tram_loop_run_until_complete(other, tram_task_future(task));
    assert_int_equal(tram_task_result(task), TRAM_ESTATE);
    tram_task_release(task);
    assert_int_equal(tram_loop_free(other), 0);
    assert_int_equal(run_function(receive, "a"), 0);
    assert_trace(tasks_world, "a:x");
    tram_channel_close(channel);
    tram_channel_release(channel);
}

static void test_A_39_a_full_channel_makes_who_sends_wait(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_send(channel, "x"), TRAM_ESTATE);
    tram_task *tasks[] = {spawn(send_item, "1"), spawn(send_item, "2"), spawn(send_item, "3")};
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "sent1:ok");
    assert_int_equal(tram_channel_try_send(channel, "x"), -EAGAIN);
    assert_int_equal(run_function(receive, "a"), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:1 sent2:ok");
    tram_task_cancel(tasks[2]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "sent3:TRAM_ECANCELLED");
    assert_int_equal(run_function(receive, "b"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_try_send(channel, "4"), 0); /* the room of the cancelled one is there */
    assert_int_equal(run_function(receive, "c"), 0);
    assert_trace(tasks_world, "b:2 c:4");
    for (int i = 0; i < 3; i++)
        tram_task_release(tasks[i]);
    tram_channel_release(channel);
    tram_channel_release(NULL);
    assert_int_equal(discarded, 0);
}

static void test_A_39_a_cancel_that_races_the_credit_gives_it_back(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    tram_task *tasks[] = {spawn(send_item, "2"), spawn(send_item, "3")};
    run_to_rest(tasks_world);
    tram_task *receiver = spawn(receive, "a");
    run_ticks(tasks_world, 1); /* the credit is on its way to the first */
    tram_task_cancel(tasks[0]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:1 sent2:TRAM_ECANCELLED sent3:ok");
    assert_int_equal(run_task(receiver), 0);
    end_with_one_left(tasks);
}

static void test_A_39_a_send_that_is_cancelled_twice_ends_once(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    tram_task *tasks[] = {spawn(send_item, "2"), spawn(send_item, "3")};
    run_to_rest(tasks_world);
    tram_task_cancel(tasks[0]);
    tram_task_cancel(tasks[0]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "sent2:TRAM_ECANCELLED");
    tram_task *receiver = spawn(receive, "a");
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:1 sent3:ok");
    assert_int_equal(run_task(receiver), 0);
    end_with_one_left(tasks);
}

static void test_A_39_a_closed_channel_ends_both_sides(void **state) {
    (void)state;
    channel_new(1);
    tram_task *tasks[] = {spawn(send_item, "1"), spawn(send_item, "2")};
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_close(channel), 0);
    assert_int_equal(tram_channel_close(channel), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_try_send(channel, "x"), -ESHUTDOWN);
    assert_int_equal(run_function(receive, "a"), 0);
    assert_int_equal(run_function(receive, "b"), -ESHUTDOWN);
    assert_trace(tasks_world, "sent1:ok sent2:ESHUTDOWN a:1 b:ESHUTDOWN");
    for (int i = 0; i < 2; i++)
        tram_task_release(tasks[i]);
    tram_channel_release(channel);
    channel_new(1);
    tram_task *receiver = spawn(receive, "c");
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_close(channel), 0);
    assert_int_equal(run_task(receiver), -ESHUTDOWN);
    tram_channel_release(channel);
}

static void test_A_39_a_request_on_its_way_to_a_closed_channel_is_answered(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    run_to_rest(tasks_world);
    tram_task *task = spawn(send_item, "2");
    run_ticks(tasks_world, 1); /* it has asked for room */
    assert_int_equal(tram_channel_close(channel), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "sent2:ESHUTDOWN");
    tram_task_release(task);
    tram_channel_release(channel);
    assert_int_equal(discarded, 1);
}

static void test_A_39_a_loop_closes_with_senders_receivers_and_items(void **state) {
    (void)state;
    channel_new(1);
    tram_channel *empty;
    assert_int_equal(tram_channel_new(tasks_world->loop, 1, NULL, &empty), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_task_spawn(tasks_world->loop, send_item, "1", NULL, NULL), 0);
    run_to_rest(tasks_world);
    tram_channel *full = channel;
    channel = empty;
    assert_int_equal(tram_task_spawn(tasks_world->loop, receive, "a", NULL, NULL), 0);
    run_to_rest(tasks_world);
    tram_loop_close(tasks_world->loop);
    assert_int_equal(tasks_world->exceptions, 3);
    assert_int_equal(tram_channel_try_send(full, "x"), -ESHUTDOWN);
    tram_channel_release(full);
    tram_channel_release(empty);
    assert_int_equal(discarded, 1);
}

static void test_A_39_items_on_their_way_to_a_closed_channel_are_discarded(void **state) {
    (void)state;
    channel_new(2);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    assert_int_equal(tram_channel_try_send(channel, "2"), 0);
    assert_int_equal(tram_channel_close(channel), 0);
    assert_int_equal(discarded, 0);
    run_to_rest(tasks_world);
    assert_int_equal(discarded, 2);
    tram_channel_release(channel);
    assert_int_equal(discarded, 2);
}

/* Items, a request, its withdrawal and a credit, none of which has arrived. */
static void test_A_39_a_loop_closes_with_mail_of_a_channel(void **state) {
    (void)state;
    for (int ticks = 0; ticks < 5; ticks++) {
        channel_new(1);
        assert_int_equal(tram_channel_try_send(channel, "1"), 0);
        tram_task *tasks[] = {spawn(send_item, "2"), spawn(send_item, "3")};
        run_ticks(tasks_world, ticks);
        tram_task_cancel(tasks[0]);
        run_ticks(tasks_world, ticks % 2);
        assert_int_equal(tram_channel_try_send(channel, "x"), -EAGAIN);
        tram_task_release(tasks[0]);
        tram_task_release(tasks[1]);
        tram_loop_close(tasks_world->loop);
        tram_channel_release(channel);
        assert_int_equal(discarded, 1);
        world_reopen(tasks_world);
        tasks_world->trace[0] = '\0';
    }
}

static void test_A_39_a_receiver_that_is_cancelled_passes_the_item_on(void **state) {
    (void)state;
    channel_new(2);
    tram_task *tasks[] = {spawn(receive, "a"), spawn(receive, "b")};
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    run_ticks(tasks_world, 1); /* it has arrived, and the first one was woken */
    tram_task_cancel(tasks[0]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:TRAM_ECANCELLED b:1");
    tram_task_release(tasks[0]);
    tram_task_release(tasks[1]);
    tram_channel_release(channel);
}

/* Who would have to wait needs memory for its request. */
static int send_without_memory(void *arg) {
    void *item = NULL;
    assert_int_equal(tram_channel_send(arg, "first"), 0);
    tasks_world->fail_after = 0;
    memory_fail(1, UINT64_MAX);
    int status = tram_channel_send(arg, "second");
    memory_fail(0, 0);
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(status, -ENOMEM);
    assert_int_equal(tram_channel_receive(arg, &item), 0);
    assert_string_equal(item, "first");
    return tram_channel_send(arg, "third");
}

static void test_a_channel_without_memory_says_so(void **state) {
    (void)state;
    tram_channel *made;
    assert_int_equal(tram_channel_new(tasks_world->loop, 1, NULL, &made), 0);
    assert_int_equal(run_function(send_without_memory, made), 0);
    tram_channel_release(made);
    assert_int_equal(tram_channel_new(tasks_world->loop, 0, NULL, &made), TRAM_EVALUE);
    for (size_t after = 0;; after++) {
        tasks_world->fail_after = after;
        int status = tram_channel_new(tasks_world->loop, 4, NULL, &made);
        tasks_world->fail_after = SIZE_MAX;
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
    }
    tram_channel_release(made);
}

/* Whatever fails, nobody waits for ever, and nothing is left. */
static void use_channel(struct world *world) {
    tram_task *tasks[5] = {NULL};
    if (!had_memory(tram_channel_new(world->loop, 1, count_discard, &channel)))
        return;
    for (size_t i = 0; i < 5; i++) {
        (void)had_memory(tram_task_spawn(world->loop, i < 3 ? send_item : receive, "1", NULL, &tasks[i]));
        run_ticks(world, 3);
    }
    if (tasks[2])
        tram_task_cancel(tasks[2]);
    assert_int_equal(tram_channel_close(channel), 0);
    run_to_rest(world);
    for (size_t i = 0; i < 5; i++) {
        assert_true(!tasks[i] || tram_future_done(tram_task_future(tasks[i])));
        (void)(tasks[i] && tram_task_result(tasks[i]));
        tram_task_release(tasks[i]);
    }
    tram_channel_release(channel);
}

static void test_X_1_channels_without_memory(void **state) {
    for (int once = 0; once < 2; once++) {
        run_out_of_other_memory(*state, once, use_channel);
        run_out_of_memory(*state, once, use_channel);
    }
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

/* Until memory_fail(0, 0) nothing can be posted to the loop, either. */
static void lack_mail(void) {
    memory_fail_others(1, UINT64_MAX);
    while (had_memory(tram_loop_call_soon_threadsafe(tasks_world->loop, nothing, NULL, NULL)))
        ;
}

/* Without memory to take it back the answer is waited for. */
static void test_A_39_a_cancel_without_memory_waits_for_the_credit(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    tram_task *task = spawn(send_item, "2");
    run_to_rest(tasks_world);
    lack_mail();
    tram_task_cancel(task);
    memory_fail(0, 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "");
    assert_int_equal(run_function(receive, "a"), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:1 sent2:TRAM_ECANCELLED");
    assert_int_equal(tram_channel_try_send(channel, "3"), 0);
    assert_int_equal(run_function(receive, "b"), 0);
    assert_trace(tasks_world, "b:3");
    tram_task_release(task);
    tram_channel_release(channel);
    assert_int_equal(discarded, 0);
}

/* ---- Loops of senders that close ---- */

/* It runs on this thread as well, and has one sender that waits for room. */
static tram_loop *other_loop_with_a_sender(void) {
    tram_loop *other;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_loop_new(&tasks_world->options, &other), 0);
    assert_int_equal(tram_task_spawn(other, send_item, "2", NULL, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_true(tram_loop_dispatch(other) >= 0);
    return other;
}

/* It could answer, but not ask. */
static void test_A_39_a_sender_of_another_loop_without_mail_says_so(void **state) {
    (void)state;
    tram_loop *other;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_loop_new(&tasks_world->options, &other), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(other, nothing, NULL, NULL), 0); /* which has some then */
    assert_true(tram_loop_dispatch(other) >= 0);
    assert_int_equal(tram_task_spawn(other, send_item, "2", NULL, NULL), 0);
    lack_mail();
    assert_true(tram_loop_dispatch(other) >= 0);
    memory_fail(0, 0);
    assert_trace(tasks_world, "sent2:ENOMEM");
    assert_int_equal(tram_loop_free(other), 0);
    tram_channel_close(channel);
    tram_channel_release(channel);
    run_to_rest(tasks_world);
}

/* The room that it did not take is there. */
static void assert_room_for_one(void) {
    run_to_rest(tasks_world);
    assert_int_equal(tram_channel_try_send(channel, "3"), 0);
    assert_int_equal(tram_channel_try_send(channel, "4"), -EAGAIN);
    assert_int_equal(run_function(receive, "b"), 0);
    assert_trace(tasks_world, "a:1 b:3");
    tram_channel_close(channel);
    tram_channel_release(channel);
    run_to_rest(tasks_world);
    assert_int_equal(discarded, 0);
}

static void test_A_39_a_sender_that_is_gone_takes_no_room(void **state) {
    (void)state;
    tram_loop *other = other_loop_with_a_sender();
    run_to_rest(tasks_world);
    assert_int_equal(tram_loop_free(other), 0);
    assert_int_equal(run_function(receive, "a"), 0);
    assert_room_for_one();
}

static void *ask_and_go(void *arg) {
    tram_loop *other;
    (void)arg;
    assert_int_equal(tram_loop_new(&tasks_world->options, &other), 0);
    assert_int_equal(tram_task_spawn(other, send_item, "2", NULL, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_true(tram_loop_dispatch(other) >= 0);
    assert_int_equal(tram_loop_free(other), 0);
    return NULL;
}

static int receive_behind_a_request(void *arg) {
    on_another_thread(ask_and_go, NULL);
    return receive(arg);
}

/* There is room when its request arrives, and nobody any more to take it. */
static void test_A_39_a_sender_that_goes_before_its_request_arrives_takes_no_room(void **state) {
    (void)state;
    channel_new(1);
    assert_int_equal(tram_channel_try_send(channel, "1"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(run_function(receive_behind_a_request, "a"), 0);
    assert_room_for_one();
}

static void test_A_39_a_loop_closes_before_the_request_of_another_arrives(void **state) {
    (void)state;
    tram_loop *other = other_loop_with_a_sender();
    assert_int_equal(tram_loop_close(tasks_world->loop), 0);
    for (int i = 0; i < 2; i++)
        assert_true(tram_loop_dispatch(other) >= 0);
    assert_trace(tasks_world, "sent2:ESHUTDOWN");
    assert_int_equal(tram_loop_free(other), 0);
    tram_channel_release(channel);
    assert_int_equal(discarded, 1);
}

static void test_A_39_a_sender_that_goes_before_its_credit_arrives_gives_it_back(void **state) {
    (void)state;
    for (int memory = 0; memory < 2; memory++) {
        tram_loop *other = other_loop_with_a_sender();
        run_to_rest(tasks_world);
        assert_int_equal(run_function(receive, "a"), 0);
        if (!memory)
            lack_mail();
        assert_int_equal(tram_loop_close(other), 0);
        memory_fail(0, 0);
        assert_int_equal(tram_loop_free(other), 0);
        assert_room_for_one();
    }
}

/* ---- Between threads ---- */

#define SENDERS 3
#define ITEMS   2000

static int send_many(void *arg) {
    uintptr_t sender = (uintptr_t)arg;
    for (uintptr_t i = 1; i <= ITEMS; i++) {
        if (i % 100 == 0) {
            tram_timeout *timeout; /* some sends are given up, and done again */
            assert_int_equal(tram_timeout_begin(0, &timeout), 0);
            int status = tram_channel_send(channel, (void *)(sender << 32 | i));
            status = tram_timeout_end(timeout, status);
            assert_true(status == 0 || status == TRAM_ETIMEOUT);
            if (!status)
                continue;
        }
        assert_int_equal(tram_channel_send(channel, (void *)(sender << 32 | i)), 0);
    }
    return 0;
}

static void *run_sender(void *arg) {
    assert_int_equal(tram_run(send_many, arg, NULL), 0);
    tram_channel_release(channel);
    return NULL;
}

static int receive_many(void *arg) {
    (void)arg;
    uintptr_t last[SENDERS] = {0};
    for (int i = 0; i < SENDERS * ITEMS; i++) {
        void *item;
        int status = tram_channel_receive(channel, &item);
        assert_int_equal(status, 0);
        uintptr_t sender = (uintptr_t)item >> 32, number = (uintptr_t)item & UINT32_MAX;
        assert_int_equal(number, last[sender] + 1); /* in order, each once */
        last[sender] = number;
    }
    return 0;
}

static void test_A_39_items_of_each_sender_arrive_once_and_in_order(void **state) {
    (void)state;
    channel_new(4);
    pthread_t threads[SENDERS];
    for (uintptr_t i = 0; i < SENDERS; i++) {
        tram_channel_hold(channel);
        assert_int_equal(pthread_create(&threads[i], NULL, run_sender, (void *)i), 0);
    }
    assert_int_equal(run_function(receive_many, NULL), 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    tram_channel_release(channel);
    run_to_rest(tasks_world);
    assert_int_equal(discarded, 0);
}

static int send_until_shut(void *arg) {
    for (;;) {
        int status = tram_channel_send(channel, arg);
        if (status)
            return status == -ESHUTDOWN ? 0 : status;
    }
}

static void *run_until_shut(void *arg) {
    assert_int_equal(tram_run(send_until_shut, arg, NULL), 0);
    tram_channel_release(channel);
    return NULL;
}

static int receive_some(void *arg) {
    (void)arg;
    void *item;
    for (int i = 0; i < 100; i++)
        assert_int_equal(tram_channel_receive(channel, &item), 0);
    return 0;
}

static void test_A_39_senders_of_other_loops_learn_of_the_end(void **state) {
    (void)state;
    channel_new(2);
    pthread_t threads[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        tram_channel_hold(channel);
        assert_int_equal(pthread_create(&threads[i], NULL, run_until_shut, tasks_world), 0);
    }
    assert_int_equal(run_function(receive_some, NULL), 0);
    tram_loop_close(tasks_world->loop);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    tram_channel_release(channel);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_A_39_only_tasks_of_its_loop_receive),
        TASK_TEST(test_A_39_a_full_channel_makes_who_sends_wait),
        TASK_TEST(test_A_39_a_send_that_is_cancelled_twice_ends_once),
        TASK_TEST(test_A_39_a_cancel_that_races_the_credit_gives_it_back),
        TASK_TEST(test_A_39_a_closed_channel_ends_both_sides),
        TASK_TEST(test_A_39_a_request_on_its_way_to_a_closed_channel_is_answered),
        TASK_TEST(test_A_39_a_loop_closes_with_senders_receivers_and_items),
        TASK_TEST(test_a_channel_without_memory_says_so),
        TASK_TEST(test_X_1_channels_without_memory),
        TASK_TEST(test_A_39_a_cancel_without_memory_waits_for_the_credit),
        TASK_TEST(test_A_39_a_sender_of_another_loop_without_mail_says_so),
        TASK_TEST(test_A_39_a_sender_that_is_gone_takes_no_room),
        TASK_TEST(test_A_39_a_sender_that_goes_before_its_request_arrives_takes_no_room),
        TASK_TEST(test_A_39_a_loop_closes_before_the_request_of_another_arrives),
        TASK_TEST(test_A_39_a_sender_that_goes_before_its_credit_arrives_gives_it_back),
        TASK_TEST(test_A_39_items_on_their_way_to_a_closed_channel_are_discarded),
        TASK_TEST(test_A_39_a_loop_closes_with_mail_of_a_channel),
        TASK_TEST(test_A_39_a_receiver_that_is_cancelled_passes_the_item_on),
        TASK_TEST(test_A_39_items_of_each_sender_arrive_once_and_in_order),
        TASK_TEST(test_A_39_senders_of_other_loops_learn_of_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
