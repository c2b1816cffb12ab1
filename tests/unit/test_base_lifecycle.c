/* The life of a transport: what its table allows, and that a move which it does not have is caught. */
#include "support/support.h"
#include "transports/base/lifecycle.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Bits of a transport that got there, by whatever way is found first; 0: there is none. */
static uint32_t bits_of(enum transport_life wanted) {
    uint32_t found[LIFE_COUNT] = {[LIFE_MAKING] = LIFE_BEGINS};
    for (int rounds = 0; rounds < LIFE_COUNT; rounds++)
        for (enum transport_life life = LIFE_MAKING; life < LIFE_COUNT; life++)
            for (enum transport_move move = 0; move < MOVE_COUNT; move++)
                if (found[life] && life_next(&tram__transport_life, life, move))
                    found[life_next(&tram__transport_life, life, move)] = transport_flags_after(found[life], move);
    return found[wanted];
}

static void test_Y_8_each_state_can_be_reached_and_is_known_by_its_bits(void **state) {
    (void)state;
    for (enum transport_life life = LIFE_MAKING; life < LIFE_COUNT; life++) {
        assert_int_not_equal(bits_of(life), 0);
        assert_int_equal(tram__transport_life_of(bits_of(life)), life);
        assert_int_equal(bits_of(life) & ~LIFE_FLAGS, 0);
    }
    assert_int_equal(tram__transport_life_of(0), LIFE_NONE);
    assert_int_equal(tram__transport_life_of(T_MADE | T_MADE_PENDING), LIFE_NONE);
    assert_int_equal(tram__transport_life_of(T_MADE | T_LOST_PENDING), LIFE_NONE);
    assert_int_equal(tram__transport_life_of(T_MADE | T_LINGERING), LIFE_NONE);
    assert_int_equal(tram__transport_life_of(T_MADE | T_LOST), LIFE_NONE);
}

static void test_Y_8_a_move_leads_where_the_table_says(void **state) {
    (void)state;
    for (enum transport_life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum transport_move move = 0; move < MOVE_COUNT; move++) {
            enum transport_life next = life_next(&tram__transport_life, life, move);
            if (next)
                assert_int_equal(tram__transport_life_of(transport_flags_after(bits_of(life), move)), next);
        }
}

static const uint32_t flags[] = {T_MADE_PENDING, T_MADE, T_CLOSING, T_LINGERING, T_LOST_PENDING, T_LOST};
#define FLAGS (sizeof flags / sizeof *flags)
#define SETS  (1u << FLAGS)

static uint32_t bits_of_set(uint32_t set) {
    uint32_t bits = 0;
    for (size_t i = 0; i < FLAGS; i++)
        bits |= set & 1u << i ? flags[i] : 0;
    return bits;
}

static uint32_t set_of_bits(uint32_t bits) {
    uint32_t set = 0;
    for (size_t i = 0; i < FLAGS; i++)
        set |= bits & flags[i] ? 1u << i : 0;
    return set;
}

/* All ways that the table has, from these bits on: which state each set of bits is. */
static void walk(uint32_t bits, enum transport_life life, enum transport_life lives[SETS]) {
    lives[set_of_bits(bits)] = life;
    for (enum transport_move move = 0; move < MOVE_COUNT; move++) {
        enum transport_life next = life_next(&tram__transport_life, life, move);
        if (next)
            walk(transport_flags_after(bits, move), next, lives);
    }
}

static void test_Y_8_a_set_of_bits_is_the_state_of_the_ways_that_lead_there_or_none(void **state) {
    (void)state;
    enum transport_life lives[SETS] = {LIFE_NONE};
    walk(LIFE_BEGINS, LIFE_MAKING, lives);
    for (uint32_t set = 0; set < SETS; set++) {
        assert_int_equal(tram__transport_life_of(bits_of_set(set)), lives[set]);
        assert_int_equal(tram__transport_life_of(bits_of_set(set) | ~LIFE_FLAGS), lives[set]);
    }
}

static void test_Y_8_a_life_never_goes_back(void **state) {
    (void)state;
    for (enum transport_life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum transport_move move = 0; move < MOVE_COUNT; move++) {
            enum transport_life next = life_next(&tram__transport_life, life, move);
            assert_true(next == LIFE_NONE || next > life);
            assert_false(next && life == LIFE_LOST);
            assert_true(life != LIFE_ENDED || !next || move == MOVE_LOSE);
        }
}

/* True: the process is ended by an assertion. */
static bool is_caught(enum transport_life life, enum transport_move move) {
    pid_t child = fork();
    if (child == 0) {
        tram_transport transport = {.flags = bits_of(life)};
        prctl(PR_SET_DUMPABLE, 0);
        freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        transport_move(&transport, move);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_Y_8_a_forbidden_move_is_caught(void **state) {
    (void)state;
    if (!TRAM_CHECKED)
        skip();
    for (enum transport_life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum transport_move move = 0; move < MOVE_COUNT; move++)
            assert_int_equal(is_caught(life, move), life_next(&tram__transport_life, life, move) == LIFE_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Y_8_each_state_can_be_reached_and_is_known_by_its_bits),
        cmocka_unit_test(test_Y_8_a_move_leads_where_the_table_says),
        cmocka_unit_test(test_Y_8_a_set_of_bits_is_the_state_of_the_ways_that_lead_there_or_none),
        cmocka_unit_test(test_Y_8_a_life_never_goes_back),
        cmocka_unit_test(test_Y_8_a_forbidden_move_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
