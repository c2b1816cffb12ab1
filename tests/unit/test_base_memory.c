#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"
#include <tram/error.h>

/* What jemalloc would bring; the library finds it by name. */

static int calls;
static size_t last_size;

void *mallocx(size_t size, int flags);
void sdallocx(void *memory, size_t size, int flags);

void *mallocx(size_t size, int flags) {
    assert_int_equal(flags, 0);
    assert_true(size > 0);
    calls++;
    last_size = size;
    return malloc(size);
}

void sdallocx(void *memory, size_t size, int flags) {
    assert_int_equal(flags, 0);
    assert_true(size > 0);
    calls++;
    last_size = size;
    free(memory);
}

static void test_jemalloc_is_used_where_it_is_linked(void **state) {
    (void)state;
#if defined(TRAM_ASAN) || defined(TRAM_TSAN)
    int expected = 0; /* a sanitizer has to see the allocation */
#else
    int expected = 1;
#endif
    static const size_t sizes[] = {1, 100, 0};
    for (size_t i = 0; i < 3; i++) {
        calls = 0;
        void *memory = memory_get(&tram__memory_default, sizes[i]);
        assert_non_null(memory);
        assert_int_equal(calls, expected);
        size_t asked = last_size;
        memory_put(&tram__memory_default, memory, sizes[i]);
        assert_int_equal(calls, 2 * expected);
        assert_int_equal(last_size, asked);
    }
    calls = 0;
    memory_put(&tram__memory_default, NULL, 8);
    assert_int_equal(calls, 0);
}

static void *refuse(void *context, size_t size) {
    (void)size;
    return context;
}

static void ignore(void *context, void *memory, size_t size) {
    (void)context;
    (void)memory;
    (void)size;
}

static void test_an_allocator_has_both_functions(void **state) {
    (void)state;
    tram_allocator chosen;
    assert_int_equal(tram__memory_choose(NULL, &chosen), 0);
    assert_ptr_equal(chosen.allocate, tram__memory_default.allocate);
    assert_int_equal(tram__memory_choose(&(tram_allocator){.allocate = refuse}, &chosen), TRAM_EVALUE);
    assert_int_equal(tram__memory_choose(&(tram_allocator){.release = ignore}, &chosen), TRAM_EVALUE);
    assert_int_equal(tram__memory_choose(&(tram_allocator){refuse, ignore, state}, &chosen), 0);
    assert_ptr_equal(chosen.context, state);
}

static void test_zeroed_memory_is_zero_or_none(void **state) {
    (void)state;
    static const unsigned char zeros[256];
    void *memory = tram__memory_get_zero(&tram__memory_default, sizeof zeros);
    assert_memory_equal(memory, zeros, sizeof zeros);
    memory_put(&tram__memory_default, memory, sizeof zeros);
    assert_null(tram__memory_get_zero(&(tram_allocator){refuse, ignore, NULL}, 8));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jemalloc_is_used_where_it_is_linked),
        cmocka_unit_test(test_an_allocator_has_both_functions),
        cmocka_unit_test(test_zeroed_memory_is_zero_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
