#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/slots.h"

enum { LINE = 64, PER_CHUNK = 4, MANY = 300 };

/* Gives memory at every place that malloc may give, sixteen bytes after the last one's; fails after `left` times. */
struct source {
    size_t left;
    size_t shift;
    size_t bytes; /* that are out */
};

static void *source_allocate(void *context, size_t size) {
    struct source *source = context;
    if (!source->left)
        return NULL;
    source->left--;
    char *memory = aligned_alloc(LINE, (size + 2 * LINE) / LINE * LINE);
    assert_non_null(memory);
    memset(memory, 0xa5, (size + 2 * LINE) / LINE * LINE);
    source->shift = (source->shift + 16) % LINE;
    source->bytes += size;
    return memory + source->shift;
}

static void source_release(void *context, void *memory, size_t size) {
    struct source *source = context;
    source->bytes -= size;
    free((char *)memory - (uintptr_t)memory % LINE);
}

/* Of whole lines, with something beside. */
struct record {
    uint64_t other[6];
    struct slot slot;
    _Atomic uint32_t shared;
};

static const struct slots_layout layout = {
    .size = sizeof(struct record), .slot = offsetof(struct record, slot), .per_chunk = PER_CHUNK, .beside = 8};

static struct source source;
static const tram_allocator allocator = {source_allocate, source_release, &source};
static struct slots slots;

static int begin(void **state) {
    (void)state;
    source = (struct source){.left = SIZE_MAX};
    slots = (struct slots){.free = 0};
    return 0;
}

static int end(void **state) {
    (void)state;
    tram__slots_validate(&slots, &layout);
    tram__slots_fini(&slots, &layout, &allocator);
    assert_int_equal(slots_count(&slots), 0);
    assert_int_equal(slots.free, 0);
    return source.bytes ? -1 : 0;
}

static struct record *take(void) {
    if (!slots.free)
        assert_int_equal(tram__slots_grow(&slots, &layout, &allocator), 0);
    return slots_take(&slots, &layout);
}

static void put(struct record *record) {
    slots_put(&slots, &layout, record, record->slot);
}

static struct record *find(struct slot name) {
    return slots_find(&slots, &layout, name.number, name.generation);
}

static void test_records_stay_where_they_are_while_the_table_grows(void **state) {
    (void)state;
    static struct record *records[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        records[i] = take();
        assert_int_equal((uintptr_t)records[i] % LINE, 0);
        assert_int_equal(records[i]->slot.number, i + 1); /* slot 0 is nobody's */
        assert_int_equal(records[i]->slot.generation, 2);
        for (size_t at = 0; at < 6; at++)
            assert_int_equal(records[i]->other[at], 0);
        uint64_t *beside = slots_beside(&slots, &layout, i + 1);
        assert_int_equal(*beside, 0);
        *beside = ~(uint64_t)i;
        memset(records[i]->other, (int)i & 0xff, sizeof records[i]->other);
        tram__slots_validate(&slots, &layout);
    }
    assert_int_equal(slots_count(&slots) % PER_CHUNK, 0);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_ptr_equal(slots_at(&slots, &layout, i + 1), records[i]);
        assert_ptr_equal(slots_at_shared(&slots, &layout, i + 1), records[i]);
        assert_ptr_equal(find(records[i]->slot), records[i]);
        assert_true(*(uint64_t *)slots_beside(&slots, &layout, i + 1) == ~(uint64_t)i);
        for (size_t at = 0; at < sizeof records[i]->other; at++)
            assert_int_equal(((unsigned char *)records[i]->other)[at], i & 0xff);
    }
}

static void test_the_slot_given_back_last_is_taken_first(void **state) {
    (void)state;
    struct record *records[6];
    for (size_t i = 0; i < 6; i++)
        records[i] = take();
    uint32_t count = slots_count(&slots);
    for (size_t i = 0; i < 6; i++) {
        put(records[i]);
        tram__slots_validate(&slots, &layout);
    }
    for (size_t i = 6; i-- > 0;)
        assert_ptr_equal(take(), records[i]);
    assert_int_equal(slots_count(&slots), count);
}

static void test_a_name_means_one_owner(void **state) {
    (void)state;
    struct record *record = take();
    struct slot first = record->slot;
    put(record);
    assert_null(find(first));
    assert_null(find((struct slot){first.generation + 1, first.number})); /* of a slot while it is free */
    assert_ptr_equal(take(), record);
    struct slot second = record->slot;
    assert_int_equal(second.number, first.number);
    assert_int_not_equal(second.generation, first.generation);
    assert_null(find(first));
    assert_ptr_equal(find(second), record);
}

static void test_what_never_was_is_not_found(void **state) {
    (void)state;
    assert_null(find((struct slot){0, 0})); /* there is no chunk at all */
    assert_null(find((struct slot){2, 1}));
    take();
    for (uint32_t number = 0; number <= 2 * PER_CHUNK; number++) {
        assert_null(find((struct slot){0, number}));
        assert_null(find((struct slot){1, number}));
        assert_null(find((struct slot){4, number}));
        assert_null(find((struct slot){UINT32_MAX, number}));
    }
    assert_null(find((struct slot){2, UINT32_MAX}));
}

static void test_a_slot_that_had_all_generations_retires(void **state) {
    (void)state;
    struct record *record = take();
    uint32_t number = record->slot.number;
    put(record);
    record->slot.generation = UINT32_MAX - 4; /* as if it had been taken two thousand million times */
    for (uint32_t left = 2; left > 0; left--) {
        uint32_t generation = UINT32_MAX - (2 * left - 1);
        assert_int_equal(slots.free, number);
        assert_ptr_equal(take(), record);
        assert_int_equal(record->slot.generation, generation);
        assert_ptr_equal(find((struct slot){generation, number}), record);
        put(record);
        tram__slots_validate(&slots, &layout);
    }
    for (int i = 0; i < 3 * PER_CHUNK; i++)
        assert_ptr_not_equal(take(), record);
    assert_null(find((struct slot){UINT32_MAX - 1, number}));
    assert_null(find((struct slot){UINT32_MAX, number}));
}

static void test_without_memory_it_is_as_it_was(void **state) {
    (void)state;
    while (slots_count(&slots) < 40 * PER_CHUNK) {
        uint32_t count = slots_count(&slots);
        size_t bytes = source.bytes;
        source.left = 0;
        assert_int_equal(tram__slots_grow(&slots, &layout, &allocator), -ENOMEM);
        assert_int_equal(source.bytes, bytes);
        source.left = 1; /* enough for a chunk, not for a directory as well */
        int status = tram__slots_grow(&slots, &layout, &allocator);
        if (status) {
            assert_int_equal(status, -ENOMEM);
            assert_int_equal(slots_count(&slots), count);
            tram__slots_validate(&slots, &layout);
            source.left = 1; /* the directory is there already */
            assert_int_equal(tram__slots_grow(&slots, &layout, &allocator), 0);
        }
        assert_int_equal(slots_count(&slots), count + PER_CHUNK);
        tram__slots_validate(&slots, &layout);
    }
}

static void test_numbers_end_where_they_no_longer_fit(void **state) {
    (void)state;
    atomic_store(&slots.count, UINT32_MAX - PER_CHUNK + 1);
    assert_int_equal(tram__slots_grow(&slots, &layout, &allocator), -ENOMEM);
    assert_int_equal(source.bytes, 0);
    atomic_store(&slots.count, 0);
}

/* ---- In one word ---- */

union word {
    struct slot slot;
    void *__attribute__((may_alias)) pointer;
};

/* What lies over its slot while somebody has it. */
static void test_who_has_a_slot_may_use_its_place(void **state) {
    (void)state;
    static const struct slots_layout words = {.size = sizeof(union word), .per_chunk = 64};
    struct slots table = {.free = 0};
    struct slot had[3];
    union word *taken[3];
    assert_int_equal(tram__slots_grow(&table, &words, &allocator), 0);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 3; i++) {
            taken[i] = slots_take(&table, &words);
            had[i] = taken[i]->slot;
            assert_int_equal(had[i].generation, 2 + 2 * round);
            taken[i]->pointer = &had[i];
            tram__slots_validate(&table, &words);
        }
        for (size_t i = 0; i < 3; i++) {
            assert_ptr_equal(taken[i]->pointer, &had[i]);
            slots_put(&table, &words, taken[i], had[i]);
            tram__slots_validate(&table, &words);
        }
    }
    tram__slots_fini(&table, &words, &allocator);
}

/* ---- Other threads ---- */

static _Atomic bool ended;

/* Looks at every slot that exists, again and again, and counts how often. */
static void *look(void *arg) {
    _Atomic uint32_t *times = arg;
    while (!atomic_load_explicit(&ended, memory_order_relaxed)) {
        uint32_t count = slots_count(&slots);
        for (uint32_t number = 1; number < count; number++) {
            struct record *record = slots_at_shared(&slots, &layout, number);
            uint32_t shared = atomic_load_explicit(&record->shared, memory_order_relaxed);
            if ((shared && shared != number) || record->other[0] != 0)
                return (void *)(uintptr_t) "this is no record of the slot's";
        }
        atomic_fetch_add_explicit(times, 1, memory_order_relaxed);
    }
    return NULL;
}

static void test_other_threads_look_while_the_table_grows(void **state) {
    (void)state;
    enum { THREADS = 2, SLOTS = 2000 };
    pthread_t threads[THREADS];
    _Atomic uint32_t times[THREADS] = {0};
    atomic_store(&ended, false);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, &times[i]), 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct record *record = take();
        atomic_store_explicit(&record->shared, record->slot.number, memory_order_relaxed);
        if (i % 3 == 0)
            put(record);
        while (atomic_load(&times[i % THREADS]) < i / 100) /* they keep up, so that they see it grow */
            sched_yield();
    }
    atomic_store(&ended, true);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        if (wrong)
            fail_msg("%s", (const char *)wrong);
    }
}

/* ---- Corrupt ---- */

static void free_list_has_a_circle(void) {
    ((struct record *)slots_at(&slots, &layout, slots.free))->slot.number = slots.free;
}

static void free_list_is_cut(void) {
    slots.free = 0;
}

static void free_list_leads_to_a_taken_one(void) {
    slots.free = 1;
}

static void free_list_leads_out_of_the_table(void) {
    slots.free = slots_count(&slots);
}

static void taken_one_says_free(void) {
    ((struct record *)slots_at(&slots, &layout, 1))->slot.generation++;
}

static void free_one_says_taken(void) {
    ((struct record *)slots_at(&slots, &layout, slots.free))->slot.generation++;
}

static void retired_one_is_listed(void) {
    ((struct record *)slots_at(&slots, &layout, slots.free))->slot.generation = UINT32_MAX;
}

static void count_is_no_whole_chunk(void) {
    atomic_store(&slots.count, slots_count(&slots) - 1);
}

static void count_is_beyond_the_directory(void) {
    atomic_store(&slots.count, (atomic_load(&slots.directory)->capacity + 1) * PER_CHUNK);
}

static void test_validating_sees_what_is_corrupt(void **state) {
    (void)state;
    static void (*const corruptions[])(void) = {
        free_list_has_a_circle,
        free_list_is_cut,
        free_list_leads_to_a_taken_one,
        free_list_leads_out_of_the_table,
        taken_one_says_free,
        free_one_says_taken,
        retired_one_is_listed,
        count_is_no_whole_chunk,
        count_is_beyond_the_directory,
    };
    take(); /* has slot 1, and the rest of the chunk is free */
    for (size_t i = 0; i < sizeof corruptions / sizeof corruptions[0]; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            prctl(PR_SET_DUMPABLE, 0);
            signal(SIGABRT, SIG_DFL);
            close(STDERR_FILENO);
            corruptions[i]();
            tram__slots_validate(&slots, &layout);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("corruption %zu: status %d", i, status);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_records_stay_where_they_are_while_the_table_grows),
        CASE(test_the_slot_given_back_last_is_taken_first),
        CASE(test_a_name_means_one_owner),
        CASE(test_what_never_was_is_not_found),
        CASE(test_a_slot_that_had_all_generations_retires),
        CASE(test_without_memory_it_is_as_it_was),
        CASE(test_numbers_end_where_they_no_longer_fit),
        CASE(test_who_has_a_slot_may_use_its_place),
        CASE(test_other_threads_look_while_the_table_grows),
        CASE(test_validating_sees_what_is_corrupt),
    };
    return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
