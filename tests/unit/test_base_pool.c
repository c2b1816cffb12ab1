#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/pool.h"

enum { LINE = 64, OBJECTS = 500 };

/* Gives memory at every place that malloc may give, sixteen bytes after the last one's; counts what is out. */
struct shifty {
    size_t shift;
    size_t bytes;
};

static void *shifty_allocate(void *context, size_t size) {
    struct shifty *shifty = context;
    char *memory = aligned_alloc(LINE, (size + 2 * LINE) / LINE * LINE);
    shifty->shift = (shifty->shift + 16) % LINE;
    shifty->bytes += size;
    return memory ? memory + shifty->shift : NULL;
}

static void shifty_release(void *context, void *memory, size_t size) {
    struct shifty *shifty = context;
    shifty->bytes -= size;
    free((char *)memory - (uintptr_t)memory % LINE);
}

static void check_alignment(size_t size, size_t alignment) {
    struct shifty shifty = {0};
    tram_allocator allocator = {shifty_allocate, shifty_release, &shifty};
    struct pool pool;
    tram__pool_init(&pool, &allocator, size);
    static unsigned char *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = pool_get(&pool);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % alignment, 0);
        memset(objects[i], i & 0xff, size); /* the address sanitizer knows where a chunk ends */
    }
    for (int i = 0; i < OBJECTS; i++)
        for (size_t at = 0; at < size; at++)
            assert_int_equal(objects[i][at], i & 0xff);
    assert_int_equal(pool.live, OBJECTS);
    for (int i = 0; i < OBJECTS; i++)
        pool_put(&pool, objects[i]);
    assert_int_equal(pool.live, 0);
    assert_ptr_equal(pool_get(&pool), objects[OBJECTS - 1]);
    tram__pool_fini(&pool);
    assert_int_equal(shifty.bytes, 0);
}

static void test_objects_of_whole_lines_begin_with_one(void **state) {
    (void)state;
    check_alignment(LINE, LINE);
    check_alignment(3 * LINE, LINE);
    check_alignment(20000, 16);
    check_alignment(320 * LINE, LINE); /* larger than a chunk is meant to be */
}

static void test_others_are_aligned_for_any_type(void **state) {
    (void)state;
    check_alignment(48, 16);
    check_alignment(200, 16);
    check_alignment(1, 16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_of_whole_lines_begin_with_one),
        cmocka_unit_test(test_others_are_aligned_for_any_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
