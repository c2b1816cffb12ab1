/* Lives as tables: a move leads where the table says, and one that it does not have ends the process. */
#include "core/base/life.h"
#include "support/support.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NONE, GROWN, OLD };
enum { AGE, DIE };

static const struct life_state states[] = {
    [GROWN] = {"grown", {[AGE] = OLD}},
    [OLD] = {.name = "old"},
};

static const void *validated;

static void validate(const void *object) {
    assert_int_equal(*(const uint8_t *)object, OLD); /* the move was made by then */
    validated = object;
}

static const struct life_table table = {.name = "test", .states = states, .validate = validate};

static void test_a_move_leads_where_the_table_says(void **state) {
    (void)state;
    uint8_t life = GROWN;
    validated = NULL;
    assert_int_equal(life_next(&table, GROWN, AGE), OLD);
    assert_int_equal(life_next(&table, GROWN, DIE), NONE);
    tram__life_move(&table, &life, AGE, &life);
    assert_int_equal(life, OLD);
    assert_ptr_equal(validated, TRAM_CHECKED ? &life : NULL);
}

/* In release builds, too: what a fault of the library says before the process ends. */
static void test_a_forbidden_move_ends_the_process_and_says_which(void **state) {
    (void)state;
    int fds[2], status;
    char text[256] = "";
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        uint8_t life = OLD;
        prctl(PR_SET_DUMPABLE, 0);
        dup2(fds[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        tram__life_move(&table, &life, DIE, &life);
        _exit(0);
    }
    close(fds[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    assert_non_null(strstr(text, "move 1 of a test that is old"));
    close(fds[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_move_leads_where_the_table_says),
        cmocka_unit_test(test_a_forbidden_move_ends_the_process_and_says_which),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
