/* The histogram of tram-load: what its figures rest on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/load/histogram.h"

static int make_histograms(void **state) {
    *state = calloc(3, sizeof(histogram));
    return *state == NULL ? -1 : 0;
}

static int free_histograms(void **state) {
    free(*state);
    return 0;
}

static void slots_cover_all_values_in_order(void **state) {
    (void)state;
    assert_int_equal(histogram_slot(0), 0);
    assert_int_equal(histogram_slot_top(0), 0);
    for (uint32_t slot = 1; slot < HISTOGRAM_SLOT_COUNT; slot++) {
        uint64_t bottom = histogram_slot_top(slot - 1) + 1;
        uint64_t top = histogram_slot_top(slot);
        assert_int_equal(histogram_slot(bottom), slot);
        assert_int_equal(histogram_slot(top), slot);
        /* Three significant digits. */
        assert_true((top - bottom) * HISTOGRAM_STEPS <= bottom);
    }
    assert_int_equal(histogram_slot_top(HISTOGRAM_SLOT_COUNT - 1), HISTOGRAM_LARGEST);
    assert_int_equal(histogram_slot(UINT64_MAX), HISTOGRAM_SLOT_COUNT - 1);
}

static void an_empty_histogram_tells_zero(void **state) {
    histogram *h = *state;
    assert_int_equal(histogram_percentile(h, 50), 0);
    assert_int_equal(histogram_percentile(h, 100), 0);
    assert_true(histogram_mean(h) == 0);
}

static void small_values_are_exact(void **state) {
    histogram *h = *state;
    for (uint64_t value = 1; value <= 1000; value++) {
        histogram_record(h, value);
    }
    assert_int_equal(h->count, 1000);
    assert_int_equal(h->maximum, 1000);
    assert_true(histogram_mean(h) == 500.5);
    assert_int_equal(histogram_percentile(h, 0), 1);
    assert_int_equal(histogram_percentile(h, 0.1), 1);
    assert_int_equal(histogram_percentile(h, 50), 500);
    assert_int_equal(histogram_percentile(h, 99), 990);
    assert_int_equal(histogram_percentile(h, 99.9), 999);
    assert_int_equal(histogram_percentile(h, 99.95), 1000);
    assert_int_equal(histogram_percentile(h, 100), 1000);
}

static int compare_values(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void percentiles_agree_with_sorted_values(void **state) {
    enum { COUNT = 100000 };
    static uint64_t values[COUNT];
    static const double percents[] = {1, 10, 50, 90, 99, 99.9, 99.99, 100};
    histogram *h = *state;
    uint64_t random = 1;
    for (size_t i = 0; i < COUNT; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        /* All magnitudes from nanoseconds to minutes. */
        values[i] = (random >> 22) >> (random % 40);
        histogram_record(h, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), compare_values);
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        size_t rank = (size_t)(percents[i] / 100 * COUNT + 0.5);
        uint64_t exact = values[rank - 1];
        uint64_t told = histogram_percentile(h, percents[i]);
        assert_true(told >= exact);
        assert_true(told - exact <= exact / HISTOGRAM_STEPS);
    }
}

static void values_beyond_the_range_keep_their_maximum(void **state) {
    histogram *h = *state;
    histogram_record(h, 5);
    histogram_record(h, HISTOGRAM_LARGEST + 1000);
    assert_int_equal(h->maximum, HISTOGRAM_LARGEST + 1000);
    assert_int_equal(histogram_percentile(h, 50), 5);
    assert_int_equal(histogram_percentile(h, 100), HISTOGRAM_LARGEST + 1000);
}

static void no_percentile_is_above_the_maximum(void **state) {
    histogram *h = *state;
    histogram_record(h, 1000001);
    assert_int_equal(histogram_percentile(h, 50), 1000001);
}

static void histograms_add_up_without_loss(void **state) {
    histogram *left = *state;
    histogram *right = left + 1;
    histogram *both = left + 2;
    for (uint64_t i = 0; i < 5000; i++) {
        uint64_t value = i * i * 37;
        histogram_record(i % 3 == 0 ? left : right, value);
        histogram_record(both, value);
    }
    histogram_add(left, right);
    assert_memory_equal(left, both, sizeof(*both));
    histogram_clear(left);
    assert_int_equal(left->count, 0);
    assert_int_equal(histogram_percentile(left, 100), 0);
}

#define HISTOGRAM_TEST(name) cmocka_unit_test_setup_teardown(name, make_histograms, free_histograms)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_cover_all_values_in_order),
        HISTOGRAM_TEST(an_empty_histogram_tells_zero),
        HISTOGRAM_TEST(small_values_are_exact),
        HISTOGRAM_TEST(percentiles_agree_with_sorted_values),
        HISTOGRAM_TEST(values_beyond_the_range_keep_their_maximum),
        HISTOGRAM_TEST(no_percentile_is_above_the_maximum),
        HISTOGRAM_TEST(histograms_add_up_without_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
