/* Queues between tasks. */
#include "support/tasks.h"

static tram_queue *queue;

static tram_queue *queue_new(size_t max_size, tram_queue_order order, int (*compare)(const void *, const void *)) {
    tram_queue_options options = {.max_size = max_size, .order = order, .compare = compare};
    assert_int_equal(tram_queue_new(tasks_world->loop, &options, &queue), 0);
    return queue;
}

static int put(void *arg) {
    int status = tram_queue_put(queue, arg);
    trace(tasks_world, "put%s:%s", (const char *)arg, status_name(status));
    return status;
}

static int get(void *arg) {
    void *item = NULL;
    int status = tram_queue_get(queue, &item);
    trace(tasks_world, "%s:%s", (const char *)arg, status ? tram_error_name(status) : (const char *)item);
    return status;
}

static void test_A_34_items_come_in_order_and_who_waits_in_turn(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    tram_task *tasks[] = {spawn(get, "a"), spawn(get, "b"), spawn(get, "c")};
    run_ticks(tasks_world, 2);
    assert_int_equal(tram_queue_put_nowait(queue, "1"), 0);
    assert_int_equal(tram_queue_put_nowait(queue, "2"), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:1 b:2");
    assert_int_equal(tram_queue_put_nowait(queue, "3"), 0);
    tram_task_cancel(tasks[2]); /* after it was woken: the item stays */
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "c:TRAM_ECANCELLED");
    assert_int_equal(tram_queue_size(queue), 1);
    assert_int_equal(run_function(get, "d"), 0);
    assert_trace(tasks_world, "d:3");
    for (int i = 0; i < 3; i++)
        tram_task_release(tasks[i]);
    tram_queue_free(queue);
}

static void test_A_34_the_only_item_of_a_cancelled_getter_goes_to_the_next(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    tram_task *tasks[] = {spawn(get, "a"), spawn(get, "b")};
    run_ticks(tasks_world, 2);
    assert_int_equal(tram_queue_put_nowait(queue, "1"), 0);
    tram_task_cancel(tasks[0]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:TRAM_ECANCELLED b:1");
    for (int i = 0; i < 2; i++)
        tram_task_release(tasks[i]);
    tram_queue_free(queue);
}

/* Who is cancelled when his item has gone to somebody else wakes nobody in vain: the others keep their turn. */
static void test_A_34_a_cancelled_getter_without_an_item_leaves_the_others_in_turn(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    tram_task *tasks[] = {spawn(get, "a"), spawn(get, "b"), spawn(get, "c")};
    void *item;
    run_ticks(tasks_world, 2);
    assert_int_equal(tram_queue_put_nowait(queue, "1"), 0);
    assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
    tram_task_cancel(tasks[0]);
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_put_nowait(queue, "2"), 0);
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_put_nowait(queue, "3"), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:TRAM_ECANCELLED b:2 c:3");
    for (int i = 0; i < 3; i++)
        tram_task_release(tasks[i]);
    tram_queue_free(queue);
}

static void test_A_34_a_full_queue_makes_who_puts_wait(void **state) {
    (void)state;
    queue_new(1, TRAM_QUEUE_FIFO, NULL);
    tram_task *tasks[] = {spawn(put, "1"), spawn(put, "2"), spawn(put, "3")};
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "put1:ok");
    assert_true(tram_queue_full(queue));
    assert_int_equal(tram_queue_put_nowait(queue, "x"), -EAGAIN);
    void *item;
    assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
    assert_string_equal(item, "1");
    tram_task_cancel(tasks[1]); /* woken, and its room goes to the next */
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "put2:TRAM_ECANCELLED put3:ok");
    assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
    assert_int_equal(tram_queue_get_nowait(queue, &item), -EAGAIN);
    for (int i = 0; i < 3; i++)
        tram_task_release(tasks[i]);
    tram_queue_free(queue);
}

static int compare_numbers(const void *a, const void *b) {
    return (int)((intptr_t)a - (intptr_t)b);
}

static void test_A_34_the_order_may_be_last_in_first_out_or_by_priority(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_LIFO, NULL);
    void *item;
    for (intptr_t i = 1; i <= 20; i++)
        assert_int_equal(tram_queue_put_nowait(queue, (void *)i), 0);
    for (intptr_t i = 20; i >= 1; i--) {
        assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
        assert_int_equal((intptr_t)item, i);
    }
    tram_queue_free(queue);

    queue_new(0, TRAM_QUEUE_PRIORITY, compare_numbers);
    for (intptr_t i = 0; i < 100; i++)
        assert_int_equal(tram_queue_put_nowait(queue, (void *)(i * 37 % 100 + 1)), 0);
    for (intptr_t i = 1; i <= 100; i++) {
        assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
        assert_int_equal((intptr_t)item, i);
    }
    tram_queue_free(queue);
    tram_queue_options options = {.order = TRAM_QUEUE_PRIORITY};
    assert_int_equal(tram_queue_new(tasks_world->loop, &options, &queue), TRAM_EVALUE);
}

static void test_A_34_a_queue_keeps_its_order_while_it_grows(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    intptr_t in = 0, out = 0;
    void *item;
    for (int round = 1; round < 40; round++) {
        for (int i = 0; i < round; i++)
            assert_int_equal(tram_queue_put_nowait(queue, (void *)in++), 0);
        for (int i = 0; i < round - 1; i++) {
            assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
            assert_int_equal((intptr_t)item, out++);
        }
    }
    tasks_world->fail_after = 0;
    int status;
    do
        status = tram_queue_put_nowait(queue, (void *)in++);
    while (!status);
    assert_int_equal(status, -ENOMEM);
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(tram_queue_get_nowait(queue, &item), 0);
    assert_int_equal((intptr_t)item, out);
    tram_queue_free(queue);
}

static int join(void *arg) {
    (void)arg;
    int status = tram_queue_join(queue);
    trace(tasks_world, "joined:%s", status_name(status));
    return status;
}

static void test_A_34_join_waits_until_all_was_dealt_with(void **state) {
    (void)state;
    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    assert_int_equal(run_function(join, NULL), 0);
    assert_int_equal(tram_queue_task_done(queue), TRAM_EVALUE);
    tram_queue_put_nowait(queue, "1");
    tram_queue_put_nowait(queue, "2");
    tram_task *task = spawn(join, NULL);
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_task_done(queue), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "joined:ok");
    assert_int_equal(tram_queue_task_done(queue), 0);
    assert_int_equal(run_task(task), 0);
    tram_queue_free(queue);
}

static void trace_discard(void *item) {
    trace(tasks_world, "discard:%s", (const char *)item);
}

static void test_A_35_a_queue_is_shut_down(void **state) {
    (void)state;
    queue_new(1, TRAM_QUEUE_FIFO, NULL);
    tram_task *putters[] = {spawn(put, "1"), spawn(put, "2")};
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_shutdown(queue, false, NULL), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "put1:ok put2:ESHUTDOWN");
    assert_int_equal(tram_queue_put_nowait(queue, "x"), -ESHUTDOWN);
    assert_int_equal(run_function(get, "a"), 0); /* what is in it is not lost */
    assert_int_equal(run_function(get, "b"), -ESHUTDOWN);
    void *item;
    assert_int_equal(tram_queue_get_nowait(queue, &item), -ESHUTDOWN);
    assert_trace(tasks_world, "a:1 b:ESHUTDOWN");
    tram_task_release(putters[0]);
    tram_task_release(putters[1]);
    tram_queue_free(queue);

    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    tram_queue_put_nowait(queue, "1");
    tram_task *joiner = spawn(join, NULL);
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_shutdown(queue, true, trace_discard), 0);
    assert_int_equal(run_task(joiner), 0);
    assert_trace(tasks_world, "discard:1 joined:ok");
    tram_queue_free(queue);

    queue_new(0, TRAM_QUEUE_FIFO, NULL);
    tram_task *getter = spawn(get, "c");
    run_to_rest(tasks_world);
    assert_int_equal(tram_queue_shutdown(queue, true, NULL), 0);
    assert_int_equal(run_task(getter), -ESHUTDOWN);
    tram_queue_free(queue);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_A_34_items_come_in_order_and_who_waits_in_turn),
        TASK_TEST(test_A_34_the_only_item_of_a_cancelled_getter_goes_to_the_next),
        TASK_TEST(test_A_34_a_cancelled_getter_without_an_item_leaves_the_others_in_turn),
        TASK_TEST(test_A_34_a_full_queue_makes_who_puts_wait),
        TASK_TEST(test_A_34_the_order_may_be_last_in_first_out_or_by_priority),
        TASK_TEST(test_A_34_a_queue_keeps_its_order_while_it_grows),
        TASK_TEST(test_A_34_join_waits_until_all_was_dealt_with),
        TASK_TEST(test_A_35_a_queue_is_shut_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
