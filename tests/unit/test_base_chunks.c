/* Memory for what waits to be sent: what size one has, and which a loop keeps. */
#include "core/loop/loop.h"
#include "support/support.h"
#include "transports/base/chunks.h"
#include "transports/base/state.h"

/* Of a limit: one less, itself, and one more. */
static const struct {
    size_t wanted, size;
    bool kept;
} sizes[] = {
    {1, CHUNK_SMALL, true},
    {CHUNK_SMALL - 1, CHUNK_SMALL, true},
    {CHUNK_SMALL, CHUNK_SMALL, true},
    {CHUNK_SMALL + 1, CHUNK_LARGE, true},
    {CHUNK_LARGE - 1, CHUNK_LARGE, true},
    {CHUNK_LARGE, CHUNK_LARGE, true},
    {CHUNK_LARGE + 1, CHUNK_LARGE + 1, false},
};

static void test_one_that_is_put_back_is_what_comes_next(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i].wanted, again = sizes[i].wanted, before = world->live_bytes;
        void *chunk = tram__chunk_get(world->loop, &size);
        assert_int_equal(size, sizes[i].size);
        memset(chunk, 'x', size);
        tram__chunk_put(world->loop, chunk, size);
        size_t allocations = world->allocations;
        chunk = tram__chunk_get(world->loop, &again);
        assert_int_equal(again, sizes[i].size);
        if ((world->allocations == allocations) != sizes[i].kept)
            fail_msg("case %zu", i);
        memset(chunk, 'x', again);
        tram__chunk_put(world->loop, chunk, again);
        tram__chunks_free(world->loop, transport_state(world->loop));
        assert_int_equal(world->live_bytes, before);
    }
}

static void test_so_many_of_each_size_are_kept(void **state) {
    struct world *world = *state;
    static const size_t each[] = {CHUNK_SMALL, CHUNK_LARGE};
    void *chunks[2][TRAM_CHUNKS_KEPT + 2];
    size_t count = sizeof chunks[0] / sizeof *chunks[0], before = world->live_bytes;
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < count; j++) {
            size_t size = each[i];
            assert_non_null(chunks[i][j] = tram__chunk_get(world->loop, &size));
        }
    size_t kept = before;
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < count; j++)
            tram__chunk_put(world->loop, chunks[i][j], each[i]);
        kept += TRAM_CHUNKS_KEPT * each[i];
    }
    assert_int_equal(world->live_bytes, kept);
}

static int setup(void **state) {
    int status = world_setup(state);
    return status ? status : tram__transport_state_make(((struct world *)*state)->loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)
        CASE(test_one_that_is_put_back_is_what_comes_next),
        CASE(test_so_many_of_each_size_are_kept),
    };
    return cmocka_run_group_tests_name("base_chunks", tests, NULL, NULL);
}
