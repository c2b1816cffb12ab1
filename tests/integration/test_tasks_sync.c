/* Locks, events, semaphores, conditions and barriers between tasks. */
#include "support/tasks.h"

static tram_lock lock;
static tram_event event;
static tram_semaphore semaphore;
static tram_condition condition;
static tram_barrier barrier;

static int setup(void **state) {
    lock = (tram_lock){.locked = false};
    event = (tram_event){.set = false};
    tram_semaphore_init(&semaphore, 2, false);
    tram_condition_init(&condition, &lock);
    assert_int_equal(tram_barrier_init(&barrier, 3), 0);
    return tasks_setup(state);
}

static void release_all(tram_task **tasks, size_t count) {
    for (size_t i = 0; i < count; i++)
        tram_task_release(tasks[i]);
}

/* ---- Lock ---- */

static int hold_lock(void *arg) {
    int status = tram_lock_acquire(&lock);
    trace(tasks_world, "%s:%s", (const char *)arg, status_name(status));
    if (status)
        return status;
    status = tram_yield();
    assert_int_equal(tram_lock_release(&lock), 0);
    return status;
}

static void test_A_29_a_lock_goes_to_those_that_wait_in_order(void **state) {
    (void)state;
    assert_int_equal(tram_lock_acquire(&lock), TRAM_ESTATE); /* no task */
    assert_int_equal(tram_lock_release(&lock), TRAM_ESTATE);
    tram_task *tasks[] = {spawn(hold_lock, "a"), spawn(hold_lock, "b"), spawn(hold_lock, "c")};
    run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "a:ok");
    assert_true(tram_lock_locked(&lock));
    run_ticks(tasks_world, 1);
    tram_task *late = spawn(hold_lock, "late"); /* may not overtake who was woken */
    run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "b:ok");
    run_until_traced(tasks_world, "late:ok");
    assert_trace(tasks_world, "c:ok late:ok");
    run_to_rest(tasks_world);
    assert_false(tram_lock_locked(&lock));
    release_all(tasks, 3);
    tram_task_release(late);
}

static void test_A_29_a_cancelled_waiter_passes_its_turn_on(void **state) {
    (void)state;
    tram_task *tasks[] = {spawn(hold_lock, "a"), spawn(hold_lock, "b"), spawn(hold_lock, "c")};
    run_ticks(tasks_world, 2); /* a has released it, and b was woken */
    tram_task_cancel(tasks[1]);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:ok b:TRAM_ECANCELLED c:ok");
    assert_false(tram_lock_locked(&lock));
    release_all(tasks, 3);
}

/* ---- Event ---- */

static int await_event(void *arg) {
    int status = tram_event_wait(&event);
    trace(tasks_world, "%s:%s", (const char *)arg, status_name(status));
    return status;
}

static void test_A_30_an_event_wakes_all_that_wait(void **state) {
    (void)state;
    tram_task *tasks[] = {spawn(await_event, "a"), spawn(await_event, "b"), spawn(await_event, "c")};
    run_ticks(tasks_world, 2);
    tram_task_cancel(tasks[1]);
    assert_trace(tasks_world, "");
    tram_event_set(&event);
    tram_event_clear(&event); /* who was woken is woken */
    run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "b:TRAM_ECANCELLED a:ok c:ok");
    tram_event_set(&event);
    assert_true(tram_event_is_set(&event));
    assert_int_equal(run_function(await_event, "d"), 0);
    assert_trace(tasks_world, "d:ok");
    release_all(tasks, 3);
}

/* ---- Semaphore ---- */

static int active, most_active;

static int use_semaphore(void *arg) {
    int status = tram_semaphore_acquire(&semaphore);
    trace(tasks_world, "%s:%s", (const char *)arg, status_name(status));
    if (status)
        return status;
    if (++active > most_active)
        most_active = active;
    status = tram_sleep(MS);
    active--;
    assert_int_equal(tram_semaphore_release(&semaphore), 0);
    return status;
}

static void test_A_31_a_semaphore_lets_so_many_in(void **state) {
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    tram_task *tasks[5];
    active = most_active = 0;
    for (int i = 0; i < 5; i++)
        tasks[i] = spawn(use_semaphore, names[i]);
    run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "a:ok b:ok");
    assert_true(tram_semaphore_locked(&semaphore));
    run_until_traced(tasks_world, "e:ok");
    run_to_rest(tasks_world);
    while (active)
        run_ticks(tasks_world, 1);
    assert_trace(tasks_world, "c:ok d:ok e:ok");
    assert_int_equal(most_active, 2);
    assert_int_equal(semaphore.value, 2);
    release_all(tasks, 5);
}

static void test_A_31_a_cancelled_waiter_gives_back_what_it_was_given(void **state) {
    (void)state;
    tram_semaphore_init(&semaphore, 0, false);
    tram_task *tasks[] = {spawn(use_semaphore, "a"), spawn(use_semaphore, "b")};
    run_ticks(tasks_world, 1);
    assert_int_equal(tram_semaphore_release(&semaphore), 0); /* a has it, and is cancelled before it runs */
    tram_task_cancel(tasks[0]);
    run_until_traced(tasks_world, "b:ok");
    assert_trace(tasks_world, "a:TRAM_ECANCELLED b:ok");
    while (active)
        run_ticks(tasks_world, 1);
    assert_int_equal(semaphore.value, 1);
    release_all(tasks, 2);
}

static void test_A_31_a_bounded_semaphore_is_not_released_too_often(void **state) {
    (void)state;
    tram_semaphore_init(&semaphore, 1, true);
    assert_int_equal(tram_semaphore_release(&semaphore), TRAM_EVALUE);
    active = 0;
    assert_int_equal(run_function(use_semaphore, "a"), 0);
    assert_int_equal(tram_semaphore_release(&semaphore), TRAM_EVALUE);
}

/* ---- Condition ---- */

static bool ready;

static int await_condition(void *arg) {
    int status = tram_lock_acquire(&lock);
    assert_int_equal(status, 0);
    while (!ready && !status)
        status = tram_condition_wait(&condition);
    trace(tasks_world, "%s:%s", (const char *)arg, status_name(status));
    assert_true(tram_lock_locked(&lock)); /* also when cancelled */
    assert_int_equal(tram_lock_release(&lock), 0);
    return status;
}

static int notify(void *arg) {
    assert_int_equal(tram_lock_acquire(&lock), 0);
    ready = true;
    assert_int_equal(tram_condition_notify(&condition, *(size_t *)arg), 0);
    trace(tasks_world, "notified");
    return tram_lock_release(&lock);
}

static void test_A_32_a_condition_wakes_as_many_as_it_is_told(void **state) {
    (void)state;
    ready = false;
    assert_int_equal(tram_condition_wait(&condition), TRAM_ESTATE);
    assert_int_equal(tram_condition_notify(&condition, 1), TRAM_ESTATE); /* not locked */
    tram_task *tasks[] = {spawn(await_condition, "a"), spawn(await_condition, "b"), spawn(await_condition, "c")};
    run_ticks(tasks_world, 4);
    size_t count = 1;
    assert_int_equal(run_function(notify, &count), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "notified a:ok");
    count = SIZE_MAX;
    assert_int_equal(run_function(notify, &count), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "notified b:ok c:ok");
    release_all(tasks, 3);
}

static int notify_all(void *arg) {
    (void)arg;
    assert_int_equal(tram_condition_notify_all(&condition), TRAM_ESTATE); /* not locked */
    assert_int_equal(tram_lock_acquire(&lock), 0);
    ready = true;
    assert_int_equal(tram_condition_notify_all(&condition), 0);
    return tram_lock_release(&lock);
}

static void test_A_32_a_condition_wakes_all(void **state) {
    (void)state;
    ready = false;
    tram_task *tasks[] = {spawn(await_condition, "a"), spawn(await_condition, "b"), spawn(await_condition, "c")};
    run_ticks(tasks_world, 4);
    assert_int_equal(run_function(notify_all, NULL), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:ok b:ok c:ok");
    release_all(tasks, 3);
}

static void test_A_32_a_cancelled_waiter_has_the_lock_and_notifies_another(void **state) {
    (void)state;
    ready = false;
    tram_task *tasks[] = {spawn(await_condition, "a"), spawn(await_condition, "b")};
    run_ticks(tasks_world, 4);
    size_t count = 1;
    tram_task *notifier = spawn(notify, &count);
    run_ticks(tasks_world, 1);
    tram_task_cancel(tasks[0]); /* it was notified */
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "notified a:TRAM_ECANCELLED b:ok");
    assert_int_equal(run_task(notifier), 0);
    release_all(tasks, 2);
}

static int wait_without_the_lock(void *arg) {
    tram_condition *with = arg;
    return tram_condition_wait(with);
}

static void test_A_32_who_waits_has_the_lock(void **state) {
    (void)state;
    tram_condition none;
    tram_condition_init(&none, NULL);
    assert_int_equal(run_function(wait_without_the_lock, &condition), TRAM_ESTATE);
    assert_int_equal(run_function(wait_without_the_lock, &none), TRAM_ESTATE);
    assert_int_equal(tram_condition_notify(&none, 1), TRAM_ESTATE);
}

static int keep_the_lock(void *arg) {
    assert_int_equal(tram_lock_acquire(&lock), 0);
    ready = true;
    assert_int_equal(tram_condition_notify_all(&condition), 0);
    assert_int_equal(tram_await(arg, NULL), 0);
    return tram_lock_release(&lock);
}

/* It was notified, and is cancelled while it waits for the lock, again and again. */
static void test_A_32_who_is_cancelled_while_it_waits_for_the_lock_gets_it_first(void **state) {
    struct world *world = *state;
    ready = false;
    tram_future *over = future_new();
    tram_task *waiter = spawn(await_condition, "a");
    run_to_rest(world);
    tram_task *keeper = spawn(keep_the_lock, over);
    run_to_rest(world);
    for (int i = 0; i < 3; i++) {
        tram_task_cancel(waiter);
        run_to_rest(world);
        assert_false(tram_task_done(waiter));
    }
    assert_int_equal(tram_future_set_result(over, NULL), 0);
    assert_int_equal(run_task(waiter), TRAM_ECANCELLED);
    assert_int_equal(run_task(keeper), 0);
    assert_trace(world, "a:TRAM_ECANCELLED");
    tram_future_release(over);
}

/* ---- Barrier ---- */

static int await_barrier(void *arg) {
    int status = tram_barrier_wait(&barrier);
    if (status >= 0)
        trace(tasks_world, "%s:%d", (const char *)arg, status);
    else
        trace(tasks_world, "%s:%s", (const char *)arg, tram_error_name(status));
    return status < 0 ? status : 0;
}

static void test_A_33_a_barrier_lets_all_go_when_all_are_there(void **state) {
    (void)state;
    assert_int_equal(tram_barrier_init(&barrier, 0), TRAM_EVALUE);
    tram_task *tasks[6];
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    for (int i = 0; i < 2; i++)
        tasks[i] = spawn(await_barrier, names[i]);
    run_to_rest(tasks_world);
    assert_int_equal(tram_barrier_waiting(&barrier), 2);
    assert_trace(tasks_world, "");
    for (int i = 2; i < 6; i++)
        tasks[i] = spawn(await_barrier, names[i]);
    run_to_rest(tasks_world);
    assert_non_null(strstr(tasks_world->trace, "a:0"));
    assert_non_null(strstr(tasks_world->trace, "b:1"));
    assert_non_null(strstr(tasks_world->trace, "c:2"));
    assert_non_null(strstr(tasks_world->trace, "f:2"));
    release_all(tasks, 6);
}

static int break_barrier(void *arg) {
    (void)arg;
    return tram_barrier_abort(&barrier);
}

static int reset_barrier(void *arg) {
    (void)arg;
    return tram_barrier_reset(&barrier);
}

static void test_A_33_a_barrier_breaks_and_is_reset(void **state) {
    (void)state;
    tram_task *tasks[] = {spawn(await_barrier, "a"), spawn(await_barrier, "b")};
    run_to_rest(tasks_world);
    assert_int_equal(run_function(reset_barrier, NULL), 0);
    run_to_rest(tasks_world);
    assert_trace(tasks_world, "a:TRAM_ESTATE b:TRAM_ESTATE");
    assert_false(tram_barrier_broken(&barrier));
    assert_int_equal(run_function(break_barrier, NULL), 0);
    assert_true(tram_barrier_broken(&barrier));
    assert_int_equal(run_function(await_barrier, "c"), TRAM_ESTATE);
    assert_int_equal(run_function(reset_barrier, NULL), 0);
    assert_false(tram_barrier_broken(&barrier));
    for (int i = 0; i < 2; i++)
        tram_task_release(tasks[i]);
    for (int i = 0; i < 2; i++)
        tasks[i] = spawn(await_barrier, "d");
    assert_int_equal(run_function(await_barrier, "e"), 0);
    release_all(tasks, 2);
}

/* Who comes while those of the round before leave waits for that, and may be cancelled there: it counts for no round.
 */
static void test_A_33_who_is_cancelled_before_its_round_begins_is_not_in_it(void **state) {
    (void)state;
    assert_int_equal(tram_barrier_init(&barrier, 2), 0);
    tram_task *tasks[] = {spawn(await_barrier, "a"), spawn(await_barrier, "b"), spawn(await_barrier, "c")};
    run_ticks(tasks_world, 1);
    tram_task_cancel(tasks[2]);
    assert_int_equal(run_task(tasks[2]), TRAM_ECANCELLED);
    assert_int_equal(tram_barrier_waiting(&barrier), 0);
    assert_trace(tasks_world, "b:1 a:0 c:TRAM_ECANCELLED");
    tram_task_release(tasks[0]);
    tram_task_release(tasks[1]);
}

/* ---- All ---- */

static int wait_in_all(void *arg) {
    switch (*(int *)arg) {
    case 0:
        return tram_lock_acquire(&lock);
    case 1:
        return tram_event_wait(&event);
    case 2:
        return tram_semaphore_acquire(&semaphore);
    default:
        return tram_barrier_wait(&barrier);
    }
}

static void test_A_15_a_loop_closes_with_tasks_in_all_of_them(void **state) {
    (void)state;
    static int which[] = {0, 1, 2, 3};
    tram_semaphore_init(&semaphore, 0, false);
    lock.locked = true;
    for (int i = 0; i < 4; i++)
        assert_int_equal(tram_task_spawn(tasks_world->loop, wait_in_all, &which[i], NULL, NULL), 0);
    size_t before = tasks_world->allocations;
    run_to_rest(tasks_world);
    assert_int_equal(tasks_world->allocations, before); /* no wait allocates */
    tram_loop_close(tasks_world->loop);
    assert_int_equal(tasks_world->exceptions, 4);
    assert_null(lock.waiters.first);
    assert_null(event.waiters.first);
    assert_null(semaphore.waiters.first);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_A_29_a_lock_goes_to_those_that_wait_in_order),
        TEST(test_A_29_a_cancelled_waiter_passes_its_turn_on),
        TEST(test_A_30_an_event_wakes_all_that_wait),
        TEST(test_A_31_a_semaphore_lets_so_many_in),
        TEST(test_A_31_a_cancelled_waiter_gives_back_what_it_was_given),
        TEST(test_A_31_a_bounded_semaphore_is_not_released_too_often),
        TEST(test_A_32_a_condition_wakes_as_many_as_it_is_told),
        TEST(test_A_32_a_condition_wakes_all),
        TEST(test_A_32_who_waits_has_the_lock),
        TEST(test_A_32_who_is_cancelled_while_it_waits_for_the_lock_gets_it_first),
        TEST(test_A_32_a_cancelled_waiter_has_the_lock_and_notifies_another),
        TEST(test_A_33_a_barrier_lets_all_go_when_all_are_there),
        TEST(test_A_33_a_barrier_breaks_and_is_reset),
        TEST(test_A_33_who_is_cancelled_before_its_round_begins_is_not_in_it),
        TEST(test_A_15_a_loop_closes_with_tasks_in_all_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
