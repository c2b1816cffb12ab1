/* The life of a transport: what its table allows, and that a move which it does not have is caught. */
#include "support/support.h"
#include "transports/base/life.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Bits of a transport that got there, by whatever way is found first; 0: there is none. */
static uint32_t bits_of(enum life wanted) {
    uint32_t found[LIFE_COUNT] = {[LIFE_MAKING] = LIFE_BEGINS};
    for (int rounds = 0; rounds < LIFE_COUNT; rounds++)
        for (enum life life = LIFE_MAKING; life < LIFE_COUNT; life++)
            for (enum move move = 0; move < MOVE_COUNT; move++)
                if (found[life] && tram__life_next(life, move))
                    found[tram__life_next(life, move)] = life_after(found[life], move);
    return found[wanted];
}

static void test_Y_8_each_state_can_be_reached_and_is_known_by_its_bits(void **state) {
    (void)state;
    for (enum life life = LIFE_MAKING; life < LIFE_COUNT; life++) {
        assert_int_not_equal(bits_of(life), 0);
        assert_int_equal(tram__life_of(bits_of(life)), life);
        assert_int_equal(bits_of(life) & ~LIFE_FLAGS, 0);
    }
    assert_int_equal(tram__life_of(0), LIFE_NONE);
    assert_int_equal(tram__life_of(T_MADE | T_MADE_PENDING), LIFE_NONE);
    assert_int_equal(tram__life_of(T_MADE | T_LOST_PENDING), LIFE_NONE);
    assert_int_equal(tram__life_of(T_MADE | T_LINGERING), LIFE_NONE);
    assert_int_equal(tram__life_of(T_MADE | T_LOST), LIFE_NONE);
}

static void test_Y_8_a_move_leads_where_the_table_says(void **state) {
    (void)state;
    for (enum life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum move move = 0; move < MOVE_COUNT; move++) {
            enum life next = tram__life_next(life, move);
            if (next)
                assert_int_equal(tram__life_of(life_after(bits_of(life), move)), next);
        }
}

static void test_Y_8_a_life_never_goes_back(void **state) {
    (void)state;
    for (enum life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum move move = 0; move < MOVE_COUNT; move++) {
            enum life next = tram__life_next(life, move);
            assert_true(next == LIFE_NONE || next > life);
            assert_false(next && life == LIFE_LOST);
            assert_true(life != LIFE_ENDED || !next || move == MOVE_LOSE);
        }
}

/* True: the process is ended by an assertion. */
static bool is_caught(enum life life, enum move move) {
    pid_t child = fork();
    if (child == 0) {
        tram_transport transport = {.flags = bits_of(life)};
        prctl(PR_SET_DUMPABLE, 0);
        freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        life_move(&transport, move);
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
    for (enum life life = LIFE_MAKING; life < LIFE_COUNT; life++)
        for (enum move move = 0; move < MOVE_COUNT; move++)
            assert_int_equal(is_caught(life, move), tram__life_next(life, move) == LIFE_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Y_8_each_state_can_be_reached_and_is_known_by_its_bits),
        cmocka_unit_test(test_Y_8_a_move_leads_where_the_table_says),
        cmocka_unit_test(test_Y_8_a_life_never_goes_back),
        cmocka_unit_test(test_Y_8_a_forbidden_move_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
