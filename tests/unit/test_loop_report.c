#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "support/support.h"

/* Back to the default handler, which logs. */
static int setup_default(void **state) {
    int status = world_setup(state);
    struct world *world = *state;
    return status ? status : tram_loop_set_exception_handler(world->loop, NULL, NULL);
}

static int setup_debug_default(void **state) {
    int status = world_setup_debug(state);
    struct world *world = *state;
    return status ? status : tram_loop_set_exception_handler(world->loop, NULL, NULL);
}

static void assert_log_has(const struct world *world, const char *text) {
    if (!strstr(world->log, text))
        fail_msg("'%s' is not in '%s'", text, world->log);
}

static int fail_with_detail(tram_loop *loop, void *arg) {
    return tram_loop_raise(loop, TRAM_EUSER, arg, "no such account");
}

static int fail_plainly(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return -EIO;
}

/* rules: L-42 */
static void test_L_42_a_site_logs_so_many_lines_a_second(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 1000; i++)
        tram__log(world->loop, TRAM_LOG_WARNING, "peer %d sent nonsense", i);
    if (world->warnings > 2 * TRAM_LOG_PER_SECOND + 1) /* a second may have ended meanwhile */
        fail_msg("%u lines", world->warnings);
    unsigned before = world->warnings;
    tram__log(world->loop, TRAM_LOG_WARNING, "another site"); /* has its own */
    assert_int_equal(world->warnings, before + 1);
    const char *told = "more lines within a second were left out, such as: peer ";
    bool was_told = strstr(world->log, told); /* where that second has ended */
    world->log[0] = '\0';
    for (int i = 0; i < 1000; i++)
        assert_int_equal(tram_loop_call_soon(world->loop, fail_plainly, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_in_range(world->errors, TRAM_LOG_PER_SECOND, 2 * TRAM_LOG_PER_SECOND + 1); /* the default handler's */
    was_told = was_told || strstr(world->log, told);
    world->log[0] = '\0';
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    if (!was_told)
        assert_log_has(world, told);
    world_reopen(world);
}

/* The count comes also where nothing more is logged. */
/* The last place is for all that find none of their own. */
static void test_L_42_more_sites_than_are_told_apart_share_a_place(void **state) {
    struct world *world = *state;
    char message[40];
    for (unsigned i = 0; i < TRAM_LOG_SITES + 20; i++) {
        snprintf(message, sizeof message, "complaint %u", i);
        const tram_exception exception = {.message = message, .fd = -1};
        assert_int_equal(tram_loop_call_exception_handler(world->loop, &exception), 0);
    }
    /* Unless that second ended meanwhile. */
    if (world->errors != TRAM_LOG_SITES - 1 + TRAM_LOG_PER_SECOND)
        assert_log_has(world, "lines within a second were left out");
}

static void test_L_42_what_was_left_out_is_counted_a_second_later(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 30; i++)
        tram__log(world->loop, TRAM_LOG_WARNING, "peer %d sent nonsense", i);
    unsigned before = world->warnings;
    while (!strstr(world->log, "lines within a second were left out"))
        run_ticks(world, 1);
    assert_int_equal(world->warnings, before + 1);
}

static void test_L_27_a_failing_callback_is_reported_and_the_batch_goes_on(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon(world->loop, fail_with_detail, world, NULL, NULL), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, "next", NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "next");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_ptr_equal(world->exception_user, world);
    assert_int_equal(world->errors, 0);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.exceptions, 1);
}

#define STRANGE_CALLS (3 * TRAM_LOG_PER_SECOND)

static void *call_as_a_stranger(void *loop) {
    for (int i = 0; i < STRANGE_CALLS; i++)
        if (tram_loop_call_soon(loop, fail_plainly, NULL, NULL, NULL) != TRAM_ESTATE)
            abort();
    return NULL;
}

static int let_a_stranger_call(tram_loop *loop, void *arg) {
    (void)arg;
    on_another_thread(call_as_a_stranger, loop);
    return 0;
}

/* rules: L-31, L-42 */
static void test_each_call_on_a_wrong_thread_is_logged(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon(world->loop, let_a_stranger_call, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(world->errors, STRANGE_CALLS);
    assert_log_has(world, "a call was made on the wrong thread");
}

static struct timespec frozen_time;

static int frozen_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time = frozen_time;
    return 0;
}

/* … and the log says exactly so. */
static void log_some(struct world *world, int count, const char *expected) {
    world->log[0] = '\0';
    for (int i = 0; i < count; i++)
        tram__log(world->loop, TRAM_LOG_WARNING, "peer %d", i);
    assert_string_equal(world->log, expected);
}

static void test_L_42_a_second_is_one_to_the_nanosecond(void **state) {
    struct world *world = *state;
    struct sys sys = tram__sys;
    char all[4096] = "", text[128], sample[TRAM_LOG_SAMPLE + 10];
    sys.clock_gettime = frozen_clock;
    frozen_time = (struct timespec){.tv_sec = 1000, .tv_nsec = 5};
    world_use_sys(world, &sys);
    for (int i = 0; i < TRAM_LOG_PER_SECOND; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%speer %d", i ? "\n" : "", i);
    log_some(world, TRAM_LOG_PER_SECOND + 7, all);
    frozen_time = (struct timespec){.tv_sec = 1001, .tv_nsec = 4};
    run_ticks(world, 1);
    log_some(world, 1, "");
    frozen_time.tv_nsec = 5;
    run_ticks(world, 1);
    snprintf(text, sizeof text, "8 more lines within a second were left out, such as: peer %d",
             TRAM_LOG_PER_SECOND - 1);
    assert_string_equal(world->log, text);
    run_ticks(world, 1);
    assert_string_equal(world->log, text); /* once */
    /* Whoever logs first in a new second tells of the old one; and nothing is told where nothing was left out. */
    log_some(world, TRAM_LOG_PER_SECOND + 1, all);
    frozen_time.tv_sec++;
    snprintf(text, sizeof text, "1 more lines within a second were left out, such as: peer %d\npeer 0",
             TRAM_LOG_PER_SECOND - 1);
    log_some(world, 1, text);
    /* That second has begun with the line: it is over exactly one later. */
    *strrchr(all, '\n') = '\0';
    log_some(world, TRAM_LOG_PER_SECOND, all);
    frozen_time.tv_sec++;
    snprintf(text, sizeof text, "1 more lines within a second were left out, such as: peer %d\npeer 0",
             TRAM_LOG_PER_SECOND - 2);
    log_some(world, 1, text);
    frozen_time.tv_sec++;
    run_ticks(world, 1);
    log_some(world, 1, "peer 0");
    /* A loop that closes does not keep it; of a long line a part is told. */
    frozen_time.tv_sec++;
    static char longest[1000];
    memset(longest, 'z', sizeof longest - 1);
    for (int i = 0; i <= TRAM_LOG_PER_SECOND; i++)
        tram__log(world->loop, TRAM_LOG_ERROR, "%s", longest);
    world->log[0] = '\0';
    assert_int_equal(tram_loop_close(world->loop), 0);
    memset(sample, 'z', TRAM_LOG_SAMPLE - 1);
    sample[TRAM_LOG_SAMPLE - 1] = '\0';
    snprintf(text, sizeof text, "1 more lines within a second were left out, such as: %.20s", sample);
    assert_memory_equal(world->log, text, strlen(text));
    assert_string_equal(world->log + strlen(text) - 20, sample);
    world_reopen(world);
}

static void test_L_28_the_default_handler_logs_one_entry_with_all_fields(void **state) {
    struct world *world = *state;
    tram_error cause = {.code = -ECONNREFUSED, .operation = "connect", .detail = "[::1]:9"};
    const tram_error *causes[] = {&cause};
    tram_error error = {.code = TRAM_EMULTIPLE,
                        .operation = "create_connection",
                        .detail = "both failed",
                        .user = (void *)0x77,
                        .causes = causes,
                        .cause_count = 1};
    tram_exception exception = {
        .message = "Something happened",
        .error = &error,
        .handle = {3, 4},
        .callback = "my_callback",
        .transport = (tram_transport *)0x11,
        .protocol = (tram_protocol *)0x22,
        .server = (tram_server *)0x33,
        .future = (tram_future *)0x44,
        .fd = 5,
    };
    assert_int_equal(tram_loop_call_exception_handler(world->loop, &exception), 0);
    assert_int_equal(world->errors, 1);
    assert_int_equal(world->warnings + world->debugs, 0);
    assert_string_equal(world->log, "Something happened; error: TRAM_EMULTIPLE (Several attempts failed) in "
                                    "create_connection: both failed; user: 0x77; cause: ECONNREFUSED (Connection "
                                    "refused) in connect: [::1]:9; callback: my_callback; handle: 3.4; transport: "
                                    "0x11; protocol: 0x22; server: 0x33; future: 0x44; fd: 5");
}

static void test_L_28_fields_that_do_not_apply_are_left_out(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_exception_handler(world->loop, &(tram_exception){.message = "bare", .fd = -1}), 0);
    assert_string_equal(world->log, "bare");
    world->log[0] = '\0';
    assert_int_equal(tram_loop_call_exception_handler(world->loop, &(tram_exception){.message = "in", .fd = 0}), 0);
    assert_string_equal(world->log, "in; fd: 0");
    assert_int_equal(tram_loop_call_exception_handler(world->loop, NULL), TRAM_EVALUE);
}

static void test_L_27_L_28_a_failing_callback_is_logged_with_its_detail(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_call_soon(world->loop, fail_with_detail, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(world->errors, 1);
    assert_log_has(world, "TRAM_EUSER");
    assert_log_has(world, "no such account");
    assert_log_has(world, "callback: ");
    assert_log_has(world, "handle: ");
    assert_null(strstr(world->log, "fd: "));
}

static int failing_handler(tram_loop *loop, const tram_exception *exception, void *arg) {
    trace(arg, "handler:%s", tram_error_name(exception->error->code));
    return tram_loop_raise(loop, TRAM_EVALUE, NULL, "handler is broken");
}

static void test_L_29_a_failing_handler_goes_to_the_log(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_set_exception_handler(world->loop, failing_handler, world), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_with_detail, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, "next", NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "handler:TRAM_EUSER next");
    assert_int_equal(world->errors, 1);
    assert_log_has(world, "Unhandled error in exception handler; error: TRAM_EVALUE");
    assert_log_has(world, "handler is broken");
    assert_log_has(world, "while handling: ");
    assert_log_has(world, "no such account");
}

static int recursive_handler(tram_loop *loop, const tram_exception *exception, void *arg) {
    trace(arg, "handler");
    return tram_loop_call_exception_handler(loop, exception);
}

static void test_L_29_a_report_inside_the_handler_does_not_recurse(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_set_exception_handler(world->loop, recursive_handler, world), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_plainly, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "handler");
    assert_int_equal(world->errors, 1);
    assert_log_has(world, "EIO");
}

static int raising_handler(tram_loop *loop, const tram_exception *exception, void *arg) {
    tram_loop_raise(loop, TRAM_EVALUE, NULL, "something else");
    trace(arg, "%s", exception->error->detail ? exception->error->detail : "nothing");
    return 0;
}

static void test_L_29_what_a_handler_raises_does_not_change_its_record(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_set_exception_handler(world->loop, raising_handler, world), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_with_detail, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_plainly, NULL, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "no such account nothing");
}

static void test_X_5_raise_gives_its_code_back(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_raise(world->loop, -EIO, world, NULL), -EIO);
    const tram_error *error = tram__raised(world->loop, -EIO, "data_received");
    assert_int_equal(error->code, -EIO);
    assert_ptr_equal(error->user, world);
    assert_string_equal(error->operation, "data_received");
    assert_null(error->detail);
    /* It is remembered once, and for its own code only. */
    assert_null(tram__raised(world->loop, -EIO, "data_received")->user);
    tram_loop_raise(world->loop, -EIO, world, "text");
    assert_null(tram__raised(world->loop, -EPIPE, "data_received")->detail);
    /* Who raises fails, whatever the code. */
    assert_int_equal(tram_loop_raise(world->loop, 0, NULL, NULL), TRAM_EUSER);
}

static void test_long_texts_are_cut(void **state) {
    struct world *world = *state;
    char text[2 * TRAM_ERROR_TEXT];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    tram_loop_raise(world->loop, -EIO, NULL, text);
    assert_int_equal(strlen(tram__raised(world->loop, -EIO, "test")->detail), TRAM_ERROR_TEXT - 1);
    static char message[10000], whole[10020];
    for (size_t length = 2030; length <= sizeof message; length = length < 2050 ? length + 1 : 10 * length) {
        memset(message, 'y', length - 1);
        message[length - 1] = '\0';
        tram_exception exception = {.message = message, .fd = 1};
        world_reopen(world);
        assert_int_equal(tram_loop_set_exception_handler(world->loop, NULL, NULL), 0);
        world->log[0] = '\0';
        assert_int_equal(tram_loop_call_exception_handler(world->loop, &exception), 0);
        memcpy(whole, message, length - 1);
        strcpy(whole + length - 1, "; fd: 1");
        whole[2047] = '\0';
        assert_string_equal(world->log, whole);
    }
}

static void test_a_text_cannot_forge_a_line(void **state) {
    struct world *world = *state;
    tram_exception exception = {.message = "evil\nerror: \x1b[2Jall is well\r\x7f~", .fd = -1};
    assert_int_equal(tram_loop_call_exception_handler(world->loop, &exception), 0);
    assert_string_equal(world->log, "evil error:  [2Jall is well  ~");
}

static int exported_or_not(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void test_functions_are_named_or_placed(void **state) {
    (void)state;
    char text[128];
    /* A static function has no name at run time: never that of a neighbour. */
    const char *name = tram_function_name((const void *)(uintptr_t)exported_or_not, text, sizeof text);
    assert_non_null(strstr(name, "+0x"));
    name = tram_function_name((const void *)16, text, sizeof text);
    assert_string_equal(name, "0x10");
    name = tram_function_name(dlsym(RTLD_DEFAULT, "getppid"), text, sizeof text);
    assert_string_equal(name, "getppid");
    name =
        tram_function_name((const char *)dlsym(RTLD_DEFAULT, "getppid") + 1, text, sizeof text); /* none of its own */
    assert_non_null(strstr(name, "+0x"));
}

static void test_nothing_is_written_without_a_log_function(void **state) {
    struct world *world = *state;
    world->options.log = NULL;
    world_reopen(world);
    assert_int_equal(tram_loop_set_exception_handler(world->loop, NULL, NULL), 0);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    int saved_out = dup(STDOUT_FILENO), saved_error = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDOUT_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);
    tram_loop_call_soon(world->loop, fail_with_detail, NULL, NULL, NULL);
    run_ticks(world, 1);
    tram__log(world->loop, TRAM_LOG_ERROR, "nobody reads this");
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_error, STDERR_FILENO);
    close(saved_out);
    close(saved_error);
    char byte;
    assert_int_equal(read(pipe_fds[0], &byte, 1), 0);
    close(pipe_fds[0]);
}

static void test_the_log_may_go_to_standard_error(void **state) {
    (void)state;
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    int saved = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);
    tram_log_to_stderr(NULL, TRAM_LOG_WARNING, "a line");
    tram_log_to_stderr(NULL, TRAM_LOG_ERROR, "another");
    tram_log_to_stderr(NULL, TRAM_LOG_DEBUG, "a third");
    tram_log_to_stderr(NULL, (tram_log_level)(TRAM_LOG_ERROR + 1), "a fourth");
    dup2(saved, STDERR_FILENO);
    close(saved);
    char text[400] = "", thread[16];
    assert_true(read(pipe_fds[0], text, sizeof text - 1) > 0);
    close(pipe_fds[0]);
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    static const char *const wanted[] = {"warning: a line", "error: another", "debug: a third", "a fourth"};
    char *rest = text;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        int year, month, day, hour, minute, second, ms, end = 0;
        char *line = strsep(&rest, "\n"), expected[80];
        assert_int_equal(
            sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms, &end), 7);
        assert_int_equal(end, 24);
        struct tm parts = {.tm_year = year - 1900,
                           .tm_mon = month - 1,
                           .tm_mday = day,
                           .tm_hour = hour,
                           .tm_min = minute,
                           .tm_sec = second};
        assert_true(timegm(&parts) <= time(NULL) && timegm(&parts) > time(NULL) - 60);
        snprintf(expected, sizeof expected, " %s %s", thread, wanted[i]);
        assert_string_equal(line + end, expected);
    }
    assert_string_equal(rest, "");
}

struct two_loops {
    tram_loop *outer, *inner;
    int lines;
};

static void log_of_two(void *arg, tram_log_level level, const char *line) {
    struct two_loops *loops = arg;
    bool outer = strcmp(line, "outer") == 0;
    loops->lines++;
    assert_ptr_equal(tram_log_loop(), outer ? loops->outer : loops->inner);
    if (outer)
        tram__log(loops->inner, level, "inner");
    assert_ptr_equal(tram_log_loop(), outer ? loops->outer : loops->inner);
}

static void test_a_log_function_knows_the_loop(void **state) {
    struct world *world = *state;
    struct two_loops loops = {.lines = 0};
    tram_loop_options options = world->options;
    options.log = log_of_two;
    options.log_arg = &loops;
    assert_int_equal(tram_loop_new(&options, &loops.outer), 0);
    assert_int_equal(tram_loop_new(&options, &loops.inner), 0);
    tram__log(loops.outer, TRAM_LOG_WARNING, "outer");
    assert_int_equal(loops.lines, 2);
    assert_null(tram_log_loop());
    tram_loop_free(loops.inner);
    tram_loop_free(loops.outer);
}

#define TEST(name)         cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define TEST_DEFAULT(name) cmocka_unit_test_setup_teardown(name, setup_default, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_call_on_a_wrong_thread_is_logged, setup_debug_default,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_L_42_a_site_logs_so_many_lines_a_second, setup_default, world_teardown),
        TEST_DEFAULT(test_L_42_more_sites_than_are_told_apart_share_a_place),
        TEST_DEFAULT(test_L_42_a_second_is_one_to_the_nanosecond),
        cmocka_unit_test_setup_teardown(test_L_42_what_was_left_out_is_counted_a_second_later, setup_default,
                                        world_teardown),
        TEST(test_L_27_a_failing_callback_is_reported_and_the_batch_goes_on),
        TEST_DEFAULT(test_L_28_the_default_handler_logs_one_entry_with_all_fields),
        TEST_DEFAULT(test_L_28_fields_that_do_not_apply_are_left_out),
        TEST_DEFAULT(test_L_27_L_28_a_failing_callback_is_logged_with_its_detail),
        TEST(test_L_29_a_failing_handler_goes_to_the_log),
        TEST(test_L_29_a_report_inside_the_handler_does_not_recurse),
        TEST(test_L_29_what_a_handler_raises_does_not_change_its_record),
        TEST(test_X_5_raise_gives_its_code_back),
        TEST_DEFAULT(test_long_texts_are_cut),
        TEST_DEFAULT(test_a_text_cannot_forge_a_line),
        TEST(test_functions_are_named_or_placed),
        TEST(test_nothing_is_written_without_a_log_function),
        TEST(test_the_log_may_go_to_standard_error),
        TEST(test_a_log_function_knows_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
