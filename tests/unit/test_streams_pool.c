/* Where inputs of streams get their blocks: small ones from a pool, larger ones from the loop's allocator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "protocols/streams/pool.h"

/* What the allocator gave last and got back last. */
static struct {
    void *given, *back;
    size_t given_size, back_size;
} seen;

static void *get(void *context, size_t size) {
    (void)context;
    seen.given_size = size;
    return seen.given = malloc(size);
}

static void put(void *context, void *memory, size_t size) {
    (void)context;
    seen.back = memory;
    seen.back_size = size;
    free(memory);
}

static void test_a_block_goes_back_to_where_it_came_from(void **state) {
    (void)state;
    const tram_allocator allocator = {get, put, NULL};
    const tram_loop_options options = {.allocator = &allocator};
    const struct {
        size_t size;
        bool pooled;
    } cases[] = {
        {1, true},
        {STREAM_BLOCK - 1, true},
        {STREAM_BLOCK, true},
        {STREAM_BLOCK + 1, false},
        {100 * (size_t)STREAM_BLOCK, false},
    };
    tram_loop *loop;
    assert_int_equal(tram_loop_new(&options, &loop), 0);
    struct stream_loop *streams = tram__streams_loop(loop);
    assert_non_null(streams);
    tram_allocator blocks = tram__streams_blocks(loop);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t live = streams->blocks.live, size = cases[i].size;
        void *block = blocks.allocate(blocks.context, size);
        assert_non_null(block);
        memset(block, 'x', size);
        assert_int_equal(streams->blocks.live, live + cases[i].pooled);
        assert_true(cases[i].pooled || (seen.given == block && seen.given_size == size));
        seen.back = NULL;
        seen.back_size = 0;
        blocks.release(blocks.context, block, size);
        assert_int_equal(streams->blocks.live, live);
        assert_int_equal(seen.back_size, cases[i].pooled ? 0 : size);
        assert_true(!seen.back == cases[i].pooled);
    }
    assert_int_equal(tram_loop_free(loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_goes_back_to_where_it_came_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
