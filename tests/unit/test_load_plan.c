/* The schedule and the noise of tram-load: when requests are due, and how wrong answers are seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/load/pattern.h"
#include "tools/load/schedule.h"

/* ---- The schedule ---- */

static void count_and_time_agree(void **state) {
    (void)state;
    static const double rates[] = {0.5, 3, 1000, 33333, 1e6, 7e6};
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        for (unsigned part = 0; part < 4; part++) {
            schedule s = {.start_ns = 123456789012345, .period_ns = 1e9 / rates[i], .phase = part / 4.0};
            for (uint64_t number = 0; number < 100000; number = number * 3 / 2 + 1) {
                uint64_t due = schedule_time(&s, number);
                assert_true(schedule_count(&s, due) > number);
                assert_true(schedule_count(&s, due - 1) <= number);
            }
        }
    }
}

static void nothing_is_due_before_the_start(void **state) {
    (void)state;
    schedule s = {.start_ns = 1000, .period_ns = 10};
    assert_int_equal(schedule_count(&s, 0), 0);
    assert_int_equal(schedule_count(&s, 999), 0);
    assert_int_equal(schedule_count(&s, 1000), 1);
    assert_int_equal(schedule_count(&s, 1099), 10);
    assert_int_equal(schedule_count(&s, 1100), 11);
}

static void shares_are_dealt_in_turn(void **state) {
    (void)state;
    uint64_t dealt[7] = {0};
    for (uint64_t count = 0; count < 100; count++) {
        for (uint64_t turn = 0; turn < 7; turn++) {
            assert_int_equal(schedule_share(count, turn, 7), dealt[turn]);
        }
        dealt[count % 7]++;
    }
}

/* ---- The noise ---- */

static int make_pattern(void **state) {
    *state = malloc(sizeof(pattern));
    if (*state == NULL) {
        return -1;
    }
    pattern_fill(*state);
    return 0;
}

static int free_pattern(void **state) {
    free(*state);
    return 0;
}

/* What a connection gets back if all is well, for a while. */
static unsigned char *stream(const pattern *p, uint64_t connection, size_t size) {
    unsigned char *bytes = malloc(size);
    assert_non_null(bytes);
    uint32_t place = pattern_start(connection);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = p->bytes[place];
        place = pattern_advance(place, 1);
    }
    return bytes;
}

static void a_right_stream_matches_in_any_pieces(void **state) {
    enum { SIZE = 3 * PATTERN_SPAN + 17 };
    unsigned char *bytes = stream(*state, 5, SIZE);
    assert_int_equal(pattern_match(*state, pattern_start(5), bytes, SIZE), SIZE);
    uint32_t place = pattern_start(5);
    for (size_t done = 0, piece = 1; done < SIZE; done += piece, piece = piece * 2 + 1) {
        piece = piece < SIZE - done ? piece : SIZE - done;
        assert_int_equal(pattern_match(*state, place, bytes + done, piece), piece);
        place = pattern_advance(place, piece);
    }
    free(bytes);
}

static void a_wrong_byte_is_found_where_it_is(void **state) {
    enum { SIZE = PATTERN_SPAN + 1000 };
    static const size_t places[] = {0, 1, 63, PATTERN_PERIOD, PATTERN_SPAN - 1, PATTERN_SPAN, SIZE - 1};
    unsigned char *bytes = stream(*state, 9, SIZE);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        bytes[places[i]] ^= 1;
        assert_int_equal(pattern_match(*state, pattern_start(9), bytes, SIZE), places[i]);
        bytes[places[i]] ^= 1;
    }
    free(bytes);
}

static void doubled_lost_and_swapped_bytes_are_seen(void **state) {
    enum { SIZE = 64 };
    unsigned char *bytes = stream(*state, 1, 4 * SIZE);
    uint32_t second = pattern_advance(pattern_start(1), SIZE);
    assert_true(pattern_match(*state, second, bytes, SIZE) < SIZE);            /* the first again */
    assert_true(pattern_match(*state, second, bytes + 2 * SIZE, SIZE) < SIZE); /* the third too early */
    assert_true(pattern_match(*state, second, bytes + SIZE + 1, SIZE) < SIZE); /* a byte is missing */
    free(bytes);
}

static void the_bytes_of_another_connection_are_seen(void **state) {
    enum { SIZE = 16 };
    for (uint64_t other = 1; other < 2000; other++) {
        unsigned char *bytes = stream(*state, other, SIZE);
        assert_true(pattern_match(*state, pattern_start(0), bytes, SIZE) < SIZE);
        free(bytes);
    }
}

static void connections_begin_at_different_places(void **state) {
    (void)state;
    static unsigned char taken[PATTERN_PERIOD];
    for (uint64_t connection = 0; connection < PATTERN_PERIOD; connection++) {
        uint32_t start = pattern_start(connection);
        assert_true(start < PATTERN_PERIOD);
        assert_int_equal(taken[start], 0);
        taken[start] = 1;
    }
}

#define PATTERN_TEST(name) cmocka_unit_test_setup_teardown(name, make_pattern, free_pattern)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(count_and_time_agree),
        cmocka_unit_test(nothing_is_due_before_the_start),
        cmocka_unit_test(shares_are_dealt_in_turn),
        PATTERN_TEST(a_right_stream_matches_in_any_pieces),
        PATTERN_TEST(a_wrong_byte_is_found_where_it_is),
        PATTERN_TEST(doubled_lost_and_swapped_bytes_are_seen),
        PATTERN_TEST(the_bytes_of_another_connection_are_seen),
        cmocka_unit_test(connections_begin_at_different_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
