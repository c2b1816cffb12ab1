#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/memory.h"
#include <tram/buffer.h>

struct released {
    int count;
    const void *data;
    size_t size;
};

static void note_release(const void *data, size_t size, void *arg) {
    struct released *released = arg;
    released->count++;
    released->data = data;
    released->size = size;
}

static void test_a_copy_is_independent_of_its_source(void **state) {
    (void)state;
    char source[] = "bytes";
    tram_buffer *buffer = tram_buffer_copy(source, sizeof source);
    assert_non_null(buffer);
    memset(source, 'x', sizeof source);
    assert_int_equal(tram_buffer_size(buffer), sizeof source);
    assert_string_equal(tram_buffer_data(buffer), "bytes");
    tram_buffer_release(buffer);
}

static void test_a_buffer_may_be_empty(void **state) {
    (void)state;
    tram_buffer *buffer = tram_buffer_copy(NULL, 0);
    assert_non_null(buffer);
    assert_int_equal(tram_buffer_size(buffer), 0);
    tram_buffer_release(buffer);
    tram_buffer_release(NULL);
}

static void test_impossible_sizes_are_refused(void **state) {
    (void)state;
    assert_null(tram_buffer_copy("", SIZE_MAX));
    assert_null(tram_buffer_copy(NULL, 1));
}

static void test_the_last_release_gives_wrapped_memory_back_once(void **state) {
    (void)state;
    static const char constant[] = "constant";
    struct released released = {0};
    tram_buffer *buffer = tram_buffer_wrap(constant, sizeof constant, note_release, &released);
    assert_ptr_equal(tram_buffer_data(buffer), constant);
    assert_ptr_equal(tram_buffer_hold(buffer), buffer);
    tram_buffer_release(buffer);
    assert_int_equal(released.count, 0);
    tram_buffer_release(buffer);
    assert_int_equal(released.count, 1);
    assert_ptr_equal(released.data, constant);
    assert_int_equal(released.size, sizeof constant);
}

static void test_X_1_a_buffer_without_memory_is_none(void **state) {
    (void)state;
    struct released released = {0};
    memory_fail(1, 2);
    tram_buffer *copy = tram_buffer_copy("bytes", 5), *wrapped = tram_buffer_wrap("bytes", 5, note_release, &released);
    memory_fail(0, 0);
    assert_null(copy);
    assert_null(wrapped);
    assert_int_equal(released.count, 0); /* it is the caller's still */
}

static void test_a_wrapped_constant_needs_no_release(void **state) {
    (void)state;
    tram_buffer *buffer = tram_buffer_wrap("constant", 8, NULL, NULL);
    assert_non_null(buffer);
    tram_buffer_release(buffer);
}

#define THREADS 4
#define TURNS   20000

static void *hold_and_release(void *arg) {
    tram_buffer *buffer = arg;
    uintptr_t sum = 0;
    for (int i = 0; i < TURNS; i++) {
        tram_buffer_hold(buffer);
        sum += *(const unsigned char *)tram_buffer_data(buffer);
        tram_buffer_release(buffer);
    }
    tram_buffer_release(buffer);
    return (void *)sum;
}

static void test_any_thread_may_let_go_last(void **state) {
    (void)state;
    unsigned char byte[1] = {1};
    struct released released = {0};
    tram_buffer *buffer = tram_buffer_wrap(byte, 1, note_release, &released);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_release, tram_buffer_hold(buffer)), 0);
    tram_buffer_release(buffer);
    for (int i = 0; i < THREADS; i++) {
        void *sum;
        pthread_join(threads[i], &sum);
        assert_int_equal((uintptr_t)sum, TURNS);
    }
    assert_int_equal(released.count, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copy_is_independent_of_its_source),
        cmocka_unit_test(test_a_buffer_may_be_empty),
        cmocka_unit_test(test_impossible_sizes_are_refused),
        cmocka_unit_test(test_the_last_release_gives_wrapped_memory_back_once),
        cmocka_unit_test(test_X_1_a_buffer_without_memory_is_none),
        cmocka_unit_test(test_a_wrapped_constant_needs_no_release),
        cmocka_unit_test(test_any_thread_may_let_go_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
