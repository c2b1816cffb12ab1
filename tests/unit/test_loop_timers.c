/* The wheel and its heap against a plain sorted model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/time.h"
#include "core/loop/timers.h"

static struct timers timers;

static int setup(void **state) {
    (void)state;
    tram__timers_init(&timers, &tram__memory_default, 1000);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tram__timers_fini(&timers);
    return 0;
}

static void test_timers_fire_in_order_of_deadline_then_of_creation(void **state) {
    (void)state;
    struct timer timer[5] = {0};
    static const uint64_t deadline[5] = {5000, 3000, 5000, 2000, 3000};
    static const int order[5] = {3, 1, 4, 0, 2};
    for (int i = 0; i < 5; i++)
        assert_int_equal(tram__timers_start(&timers, &timer[i], deadline[i]), 0);
    tram__timers_begin(&timers, 1999);
    assert_null(timers_take(&timers));
    tram__timers_begin(&timers, 5000);
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(timers_take(&timers), &timer[order[i]]);
    assert_null(timers_take(&timers));
    assert_int_equal(timers.count, 0);
    assert_int_equal(tram__timers_next(&timers), UINT64_MAX);
}

static void test_a_timer_is_never_early_at_any_distance(void **state) {
    (void)state;
    for (unsigned bit = 0; bit < 62; bit++) {
        struct timers wheel;
        tram__timers_init(&wheel, &tram__memory_default, 0);
        struct timer timer = {0};
        uint64_t deadline = 1ull << bit;
        assert_int_equal(tram__timers_start(&wheel, &timer, deadline), 0);
        assert_int_equal(tram__timers_next(&wheel), deadline);
        tram__timers_begin(&wheel, deadline - 1);
        assert_null(timers_take(&wheel));
        struct timers plain;
        tram__timers_init(&plain, &tram__memory_default, deadline - 1);
        assert_true(wheel.tick <= plain.tick); /* it has not run ahead: what comes now has a slot */
        tram__timers_fini(&plain);
        tram__timers_begin(&wheel, deadline);
        assert_ptr_equal(timers_take(&wheel), &timer);
        assert_null(timers_take(&wheel));
        tram__timers_fini(&wheel);
    }
}

/* Where many are near each other, the next time to look is when the first of them may be due. */
static void test_the_nearest_of_many_is_not_looked_for(void **state) {
    (void)state;
    static struct timer many[TIMER_SCAN_LIMIT + 1];
    const uint64_t begins = UINT64_C(1) << 40;
    memset(many, 0, sizeof many);
    for (uint64_t i = 0; i <= TIMER_SCAN_LIMIT; i++) {
        assert_int_equal(tram__timers_start(&timers, &many[i], begins + 5000 - i), 0);
        assert_int_equal(tram__timers_next(&timers), i < TIMER_SCAN_LIMIT ? begins + 5000 - i : begins);
    }
    tram__timers_begin(&timers, begins);
    assert_null(timers_take(&timers));
    assert_int_equal(tram__timers_next(&timers), begins + 5000 - TIMER_SCAN_LIMIT);
}

static void test_a_cancelled_timer_does_not_fire_wherever_it_is(void **state) {
    (void)state;
    struct timer near = {0}, far = {0}, due_one = {0}, other = {0};
    tram__timers_start(&timers, &near, 1500);
    tram__timers_start(&timers, &far, 1ull << 40);
    tram__timers_start(&timers, &due_one, 1200);
    tram__timers_start(&timers, &other, 1300);
    tram__timers_begin(&timers, 1300);
    tram__timers_cancel(&timers, &due_one);
    tram__timers_cancel(&timers, &near);
    tram__timers_cancel(&timers, &far);
    tram__timers_cancel(&timers, &far);
    assert_ptr_equal(timers_take(&timers), &other);
    assert_null(timers_take(&timers));
    assert_int_equal(timers.count, 0);
    tram__timers_begin(&timers, 1ull << 41);
    assert_null(timers_take(&timers));
}

/* rules: L-2, L-3 */
static void test_a_timer_started_while_others_are_due_waits_for_the_next_time(void **state) {
    (void)state;
    struct timer first = {0}, second = {0}, early = {0}, dropped = {0}, later = {0};
    uint64_t second_ns = 3ull << 30, now = 1ull << 33;
    tram__timers_start(&timers, &first, 2000);
    tram__timers_start(&timers, &second, second_ns);
    tram__timers_begin(&timers, now);
    assert_ptr_equal(timers_take(&timers), &first);
    tram__timers_start(&timers, &early, 1);
    tram__timers_start(&timers, &dropped, second_ns);
    tram__timers_start(&timers, &later, now + 1);
    assert_ptr_equal(timers_take(&timers), &second);
    tram__timers_cancel(&timers, &dropped);
    assert_null(timers_take(&timers));
    assert_int_equal(tram__timers_next(&timers), 1);
    tram__timers_begin(&timers, now);
    assert_ptr_equal(timers_take(&timers), &early);
    assert_null(timers_take(&timers));
    assert_int_equal(timers.count, 1);
    assert_int_equal(tram__timers_next(&timers), now + 1);
    tram__timers_cancel(&timers, &later);
}

/* All of them due at once, some cancelled by those that run, in every kind of place. */
static void test_a_due_timer_that_is_cancelled_by_another_does_not_fire(void **state) {
    (void)state;
    enum { COUNT = 3000 };
    struct timer *all = calloc(COUNT, sizeof *all);
    for (int i = 0; i < COUNT; i++)
        tram__timers_start(&timers, &all[i], 1000 + (uint64_t)i * 100000);
    tram__timers_begin(&timers, 1ull << 33);
    for (int i = 0; i < COUNT; i += 2) {
        assert_ptr_equal(timers_take(&timers), &all[i]);
        tram__timers_cancel(&timers, &all[i + 1]);
    }
    assert_null(timers_take(&timers));
    assert_int_equal(timers.count, 0);
    free(all);
}

#define MANY 20000

static int by_deadline(const void *a, const void *b) {
    const struct timer *x = *(struct timer *const *)a, *y = *(struct timer *const *)b;
    if (x->deadline != y->deadline)
        return x->deadline < y->deadline ? -1 : 1;
    return timer_sequence(x) < timer_sequence(y) ? -1 : 1;
}

/* Random deadlines over all levels, random cancels, time moving in random steps: exactly the model's order. */
static void test_random_timers_agree_with_a_sorted_model(void **state) {
    (void)state;
    srand(7);
    struct timer *all = calloc(MANY, sizeof *all);
    struct timer **model = calloc(MANY, sizeof *model);
    uint64_t now = 1000;
    size_t count = 0;
    for (int i = 0; i < MANY; i++) {
        uint64_t distance = ((uint64_t)rand() << 31 | (uint64_t)rand()) >> (20 + rand() % 40);
        tram__timers_start(&timers, &all[i], now + distance);
    }
    for (int i = 0; i < MANY; i++) {
        if (rand() % 3 == 0)
            tram__timers_cancel(&timers, &all[i]);
        else
            model[count++] = &all[i];
    }
    qsort(model, count, sizeof *model, by_deadline);
    size_t fired = 0;
    while (fired < count) {
        uint64_t next = tram__timers_next(&timers);
        assert_true(next <= model[fired]->deadline);
        now = rand() % 2 ? next : now + (uint64_t)rand() % (1u << (rand() % 31));
        tram__timers_begin(&timers, now);
        struct timer *timer;
        while ((timer = timers_take(&timers))) {
            assert_ptr_equal(timer, model[fired]);
            assert_true(timer->deadline <= now);
            fired++;
        }
        assert_true(fired == count || model[fired]->deadline > now);
    }
    assert_int_equal(timers.count, 0);
    free(model);
    free(all);
}

/* rules: L-17 */
static void test_a_million_cancelled_timers_leave_nothing_in_the_wheel(void **state) {
    (void)state;
    struct timer timer = {0};
    for (int i = 0; i < 1000000; i++) {
        assert_int_equal(tram__timers_start(&timers, &timer, 1000 + (uint64_t)i * 1000000), 0);
        tram__timers_cancel(&timers, &timer);
    }
    assert_int_equal(timers.count, 0);
    assert_int_equal(timers.heap_count, 0);
    assert_int_equal(timers.heap_capacity, 64);
    for (int level = 0; level < TIMER_LEVELS; level++)
        assert_int_equal(timers.occupied[level], 0);
}

static void test_a_time_is_its_seconds_and_nanoseconds(void **state) {
    (void)state;
    assert_int_equal(time_of(&(struct timespec){.tv_sec = 3, .tv_nsec = 5}), UINT64_C(3000000005));
    assert_int_equal(time_of(&(struct timespec){.tv_sec = 0, .tv_nsec = 999999999}), 999999999);
    uint64_t before = time_now();
    assert_true(time_now() >= before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_time_is_its_seconds_and_nanoseconds),
        cmocka_unit_test_setup_teardown(test_timers_fire_in_order_of_deadline_then_of_creation, setup, teardown),
        cmocka_unit_test(test_a_timer_is_never_early_at_any_distance),
        cmocka_unit_test_setup_teardown(test_the_nearest_of_many_is_not_looked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cancelled_timer_does_not_fire_wherever_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_timer_started_while_others_are_due_waits_for_the_next_time, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_due_timer_that_is_cancelled_by_another_does_not_fire, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_timers_agree_with_a_sorted_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_million_cancelled_timers_leave_nothing_in_the_wheel, setup, teardown),
    };
    return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
