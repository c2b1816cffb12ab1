#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/jobs/future.h"
#include "support/memory.h"
#include "support/support.h"
#include <tram/message.h>
#include <tram/sock.h>
#include <tram/streams.h>
#include <tram/task.h>
#include <tram/wait.h>

static int trace_done(tram_future *future, void *arg) {
    void *value = NULL;
    int status = tram_future_result(future, &value);
    trace(world_of(tram_future_get_loop(future)), "%s:%s", (const char *)arg, status ? tram_error_name(status) : "ok");
    return 0;
}

static int fail_done(tram_future *future, void *arg) {
    (void)future;
    return tram_loop_raise(tram_future_get_loop(future), -EIO, arg, "no disk");
}

static tram_future *future_new(struct world *world) {
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    return future;
}

static tram_future *failed_future;

static int note_failure(tram_loop *loop, const tram_exception *exception, void *arg) {
    assert_int_equal(exception->error->code, -EIO);
    assert_string_equal(exception->error->operation, "done callback");
    assert_string_equal(exception->error->detail, "no disk");
    assert_ptr_equal(exception->error->user, arg);
    assert_ptr_equal(exception->future, failed_future);
    assert_non_null(exception->callback);
    trace(world_of(loop), "reported");
    return 0;
}

static void test_X_5_a_failing_done_callback_is_reported_and_the_next_one_runs(void **state) {
    struct world *world = *state;
    int user;
    failed_future = future_new(world);
    tram_loop_set_exception_handler(world->loop, note_failure, &user);
    assert_int_equal(tram_future_add_done_callback(failed_future, fail_done, &user), 0);
    assert_int_equal(tram_future_add_done_callback(failed_future, trace_done, (void *)(uintptr_t) "next"), 0);
    assert_int_equal(tram_future_set_result(failed_future, NULL), 0);
    run_to_rest(world);
    assert_trace(world, "reported next:ok");
    tram_future_release(failed_future);
}

static void test_a_future_is_pending_first(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_ptr_equal(tram_future_get_loop(future), world->loop);
    assert_false(tram_future_done(future));
    assert_false(tram_future_cancelled(future));
    assert_int_equal(tram_future_result(future, NULL), TRAM_ESTATE);
    assert_null(tram_future_error(future));
    tram_future_release(future);
    tram_future_release(NULL);
}

static void test_X_1_null_is_no_future(void **state) {
    struct world *world = *state;
    uint64_t count;
    const int codes[] = {
        tram_future_result(NULL, NULL),
        tram_future_count(NULL, &count),
        tram_future_fd(NULL),
        tram_future_set_user(NULL, NULL),
        tram_future_set_result(NULL, NULL),
        tram_future_set_error(NULL, &(tram_error){.code = -EIO}),
        tram_future_cancel(NULL),
        tram_future_add_done_callback(NULL, trace_done, NULL),
        tram_future_add_done_callback_with_discard(NULL, trace_done, NULL, NULL),
        tram_future_remove_done_callback(NULL, trace_done, NULL),
        tram_loop_run_until_complete(world->loop, NULL),
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        assert_int_equal(codes[i], TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "future");
    assert_false(tram_future_done(NULL));
    assert_false(tram_future_cancelled(NULL));
    assert_null(tram_future_hold(NULL));
    assert_null(tram_future_get_loop(NULL));
    assert_null(tram_future_transport(NULL));
    assert_null(tram_future_server(NULL));
    assert_null(tram_future_user(NULL));
    assert_null(tram_future_error(NULL));
    assert_null(tram_future_message(NULL));
    assert_null(tram_future_task(NULL));
}

static void test_a_result_is_set_once(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    int value;
    void *result;
    assert_int_equal(tram_future_set_result(future, &value), 0);
    assert_true(tram_future_done(future));
    assert_int_equal(tram_future_result(future, &result), 0);
    assert_ptr_equal(result, &value);
    assert_int_equal(tram_future_set_result(future, NULL), TRAM_ESTATE);
    assert_int_equal(tram_future_set_error(future, &(tram_error){.code = -EIO}), TRAM_ESTATE);
    assert_int_equal(tram_future_cancel(future), 0);
    assert_int_equal(tram_future_result(future, &result), 0);
    assert_ptr_equal(result, &value);
    assert_null(tram_future_error(future));
    tram_future_release(future);
}

static void test_X_5_an_error_is_kept_with_texts_and_causes(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    char operation[] = "connect", detail[] = "127.0.0.1:1", cause_detail[] = "::1";
    tram_error cause = {.code = -ECONNREFUSED, .operation = operation, .detail = cause_detail};
    tram_error other = {.code = -ENETUNREACH, .operation = operation};
    const tram_error *causes[] = {&cause, &other};
    tram_error error = {.code = TRAM_EMULTIPLE,
                        .operation = operation,
                        .detail = detail,
                        .user = &world,
                        .causes = causes,
                        .cause_count = 2};
    assert_int_equal(tram_future_set_error(future, &error), 0);
    memset(operation, 'x', sizeof operation - 1);
    memset(detail, 'x', sizeof detail - 1);
    memset(cause_detail, 'x', sizeof cause_detail - 1);
    memset(&cause, 0, sizeof cause);
    memset(causes, 0, sizeof causes);

    assert_int_equal(tram_future_result(future, NULL), TRAM_EMULTIPLE);
    const tram_error *kept = tram_future_error(future);
    assert_non_null(kept);
    assert_int_equal(kept->code, TRAM_EMULTIPLE);
    assert_string_equal(kept->operation, "connect");
    assert_string_equal(kept->detail, "127.0.0.1:1");
    assert_ptr_equal(kept->user, &world);
    assert_int_equal(kept->cause_count, 2);
    assert_int_equal(kept->causes[0]->code, -ECONNREFUSED);
    assert_string_equal(kept->causes[0]->operation, "connect");
    assert_string_equal(kept->causes[0]->detail, "::1");
    assert_int_equal(kept->causes[1]->code, -ENETUNREACH);
    assert_null(kept->causes[1]->detail);
    tram_future_release(future);
}

/* rules: X-11 */
static void test_X_11_an_error_that_nobody_read_is_reported(void **state) {
    struct world *world = *state;
    const tram_error error = {.code = -EPROTO, .operation = "greet", .detail = "nonsense"};
    tram_future *future;
    for (int read = 0; read < 3; read++) {
        world->exceptions = 0;
        assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
        assert_int_equal(tram_future_set_error(future, &error), 0);
        if (read == 1)
            assert_int_equal(tram_future_result(future, NULL), -EPROTO);
        if (read == 2)
            assert_non_null(tram_future_error(future));
        tram_future_release(future);
        assert_int_equal(world->exceptions, 0); /* not within the release */
        run_ticks(world, 1);
        assert_int_equal(world->exceptions, read == 0);
    }
    assert_int_equal(world->exception_code, -EPROTO);
    assert_string_equal(world->exception, "future exception was never retrieved");
    /* At the end of the loop, too. */
    world->exceptions = 0;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_future_set_error(future, &error), 0);
    tram_future_release(future);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(world->exceptions, 1);
    world->exceptions = 0;
}

/* rules: X-11 */
static void test_X_11_an_operation_without_a_future_that_fails_is_reported(void **state) {
    struct world *world = *state;
    int held;
    char port[8];
    snprintf(port, sizeof port, "%u", hold_port(&held));
    assert_int_equal(tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", port, NULL, NULL),
                     0);
    while (!world->exceptions)
        run_ticks(world, 1);
    assert_int_equal(world->exception_code, -ECONNREFUSED);
    close(held);
    world->exceptions = 0;
}

static void test_an_error_needs_a_code(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_set_error(future, NULL), TRAM_EVALUE);
    assert_int_equal(tram_future_set_error(future, &(tram_error){.code = 0}), TRAM_EVALUE);
    assert_int_equal(tram_future_set_error(future, &(tram_error){.code = -EIO, .cause_count = 1}), TRAM_EVALUE);
    assert_false(tram_future_done(future));
    assert_int_equal(tram_future_set_error(future, &(tram_error){.code = -EIO}), 0);
    assert_non_null(tram_future_error(future)->operation);
    tram_future_release(future);
}

static void test_an_error_without_memory_for_its_texts_is_still_one(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    tram_error error = {.code = -EIO, .operation = "read", .detail = "text", .user = world};
    world->fail_after = 0;
    assert_int_equal(tram_future_set_error(future, &error), 0);
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_future_error(future)->code, -EIO);
    assert_ptr_equal(tram_future_error(future)->user, world);
    assert_non_null(tram_future_error(future)->operation);
    tram_future_release(future);
}

static void test_X_2_L_40_callbacks_come_from_the_loop_in_order(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "b"), 0);
    run_ticks(world, 2);
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, "before", NULL, NULL), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "c"), 0);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "before a:ok b:ok c:ok");
    run_ticks(world, 2);
    assert_trace(world, "");
    tram_future_release(future);
}

static int add_another(tram_future *future, void *arg) {
    trace_done(future, arg);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "inner"), 0);
    return 0;
}

static void test_X_2_a_callback_added_in_a_callback_runs_in_the_next_tick(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_future_add_done_callback(future, add_another, "outer"), 0);
    run_ticks(world, 1);
    assert_trace(world, "outer:ok");
    run_ticks(world, 1);
    assert_trace(world, "inner:ok");
    tram_future_release(future);
}

static void test_X_2_the_loop_holds_a_done_future_for_its_callbacks(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    tram_future_release(future);
    run_ticks(world, 1);
    assert_trace(world, "a:ok");
}

static void test_a_pending_future_that_is_let_go_calls_nothing(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0);
    assert_ptr_equal(tram_future_hold(future), future);
    tram_future_release(future);
    tram_future_release(future);
    run_ticks(world, 2);
    assert_trace(world, "");
}

static int trace_only(tram_future *future, void *arg) {
    trace(world_of(tram_future_get_loop(future)), "only:%s", (const char *)arg);
    return 0;
}

static void test_removed_callbacks_do_not_run(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    char a[] = "a", b[] = "b";
    assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, b), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, a), 2);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, a), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, b), 0);
    run_ticks(world, 1);
    assert_trace(world, "b:ok");
    tram_future_release(future);
    /* It is both the function and its argument that name one. */
    future = future_new(world);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_only, a), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, b), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_only, b), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, a), 1);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "only:a b:ok");
    tram_future_release(future);
}

/* The first one has its own place; those that come when it is free again are behind the others all the same. */
static void test_X_2_the_order_stays_where_the_first_is_removed(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    char a[] = "a", b[] = "b", c[] = "c", d[] = "d";
    assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, b), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, b), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, a), 1);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, c), 0);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, b), 1);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, d), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
    run_ticks(world, 1);
    assert_trace(world, "c:ok d:ok a:ok");
    tram_future_release(future);
}

/* Also where others have waited, in whatever way, and do so no more. */
static void test_X_1_the_only_callback_needs_no_memory(void **state) {
    struct world *world = *state;
    for (unsigned way = 0; way < 4; way++) {
        char a[] = "a", b[] = "b", c[] = "c";
        struct future_watch watch;
        tram_future *future = future_new(world);
        if (way != 1)
            assert_int_equal(tram_future_add_done_callback(future, trace_done, a), 0);
        if (way == 1 || way == 2)
            tram__future_watch(future, &watch, NULL);
        if (way == 0 || way == 3)
            assert_int_equal(tram_future_add_done_callback(future, trace_done, b), 0);
        if (way == 3) /* the later one first, and the other way round */
            assert_int_equal(tram_future_remove_done_callback(future, trace_done, b), 1);
        if (way != 1)
            assert_int_equal(tram_future_remove_done_callback(future, trace_done, a), 1);
        if (way == 0)
            assert_int_equal(tram_future_remove_done_callback(future, trace_done, b), 1);
        if (way == 1 || way == 2)
            future_unwatch(&watch);
        world->fail_after = 0;
        assert_int_equal(tram_future_add_done_callback(future, trace_done, c), 0);
        world->fail_after = SIZE_MAX;
        assert_int_equal(tram_future_set_result(future, NULL), 0);
        run_ticks(world, 1);
        assert_trace(world, "c:ok");
        tram_future_release(future);
    }
}

static tram_future *completed_by_discard;

static void complete_and_add(void *arg) {
    trace(arg, "discarded");
    if (tram_future_done(completed_by_discard))
        return;
    assert_int_equal(tram_future_add_done_callback(completed_by_discard, trace_only, "added"), 0);
    assert_int_equal(tram_future_set_result(completed_by_discard, NULL), 0);
}

/* The discard of the first adds one and completes the future while others are being removed. */
static void test_X_2_a_discard_may_complete_the_future(void **state) {
    struct world *world = *state;
    completed_by_discard = future_new(world);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(
            tram_future_add_done_callback_with_discard(completed_by_discard, trace_done, world, complete_and_add), 0);
    assert_int_equal(tram_future_remove_done_callback(completed_by_discard, trace_done, world), 3);
    assert_trace(world, "discarded discarded discarded");
    run_ticks(world, 1);
    assert_trace(world, "only:added");
    run_ticks(world, 1);
    assert_trace(world, "");
    tram_future_release(completed_by_discard);
}

static void test_X_3_cancelling_completes_once(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_done(future));
    assert_true(tram_future_cancelled(future));
    assert_int_equal(tram_future_cancel(future), 0);
    assert_int_equal(tram_future_set_result(future, NULL), TRAM_ESTATE);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ECANCELLED);
    assert_null(tram_future_error(future));
    run_ticks(world, 2);
    assert_trace(world, "a:TRAM_ECANCELLED");
    tram_future_release(future);
}

struct operation {
    tram_future future;
    struct world *world;
};

static void operation_cancel(tram_future *future) {
    trace(((struct operation *)future)->world, "cancel");
}

static void operation_destroy(tram_future *future) {
    trace(((struct operation *)future)->world, "destroy");
}

static const struct future_kind operation_kind = {
    .name = "operation", .cancel = operation_cancel, .destroy = operation_destroy};

static struct operation *operation_new(struct world *world) {
    struct operation *operation;
    assert_int_equal(tram__future_new(world->loop, &operation_kind, sizeof *operation, &operation), 0);
    operation->world = world;
    return operation;
}

static void test_X_3_cancelling_an_operation_is_a_request(void **state) {
    struct world *world = *state;
    struct operation *operation = operation_new(world);
    assert_int_equal(tram_future_cancel(&operation->future), 1);
    assert_int_equal(tram_future_cancel(&operation->future), 1);
    assert_false(tram_future_done(&operation->future));
    assert_trace(world, "cancel");
    tram__future_finish_cancelled(&operation->future);
    tram__future_finish(&operation->future, NULL);
    assert_int_equal(tram_future_result(&operation->future, NULL), TRAM_ECANCELLED);
    tram_future_release(&operation->future);
    assert_trace(world, "destroy");
}

static void test_an_operations_future_is_not_the_users_to_complete(void **state) {
    struct world *world = *state;
    struct operation *operation = operation_new(world);
    assert_int_equal(tram_future_set_result(&operation->future, NULL), TRAM_ETYPE);
    assert_int_equal(tram_future_set_error(&operation->future, &(tram_error){.code = -EIO}), TRAM_ETYPE);
    tram__future_fail_code(&operation->future, -EPIPE, "send");
    assert_int_equal(tram_future_error(&operation->future)->code, -EPIPE);
    assert_string_equal(tram_future_error(&operation->future)->operation, "send");
    tram_future_release(&operation->future);
}

static void test_L_8_closing_drops_callbacks_without_a_leak(void **state) {
    struct world *world = *state;
    tram_future *queued = future_new(world), *pending = future_new(world);
    assert_int_equal(tram_future_add_done_callback(queued, trace_done, "queued"), 0);
    assert_int_equal(tram_future_add_done_callback(pending, trace_done, "pending"), 0);
    assert_int_equal(tram_future_set_result(queued, NULL), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    tram_future_release(queued);
    assert_int_equal(tram_future_add_done_callback(pending, trace_done, "late"), TRAM_ESTATE);
    assert_int_equal(tram_future_set_result(pending, NULL), TRAM_ESTATE);
    assert_int_equal(tram_future_cancel(pending), 1);
    assert_true(tram_future_cancelled(pending));
    tram_future_release(pending);
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), TRAM_ESTATE);
    assert_trace(world, "");
}

static void test_out_of_memory_changes_nothing(void **state) {
    struct world *world = *state;
    tram_future *future;
    world->fail_after = 0;
    assert_int_equal(tram_loop_create_future(world->loop, &future), -ENOMEM);
    world->fail_after = SIZE_MAX;
    future = future_new(world);
    world->fail_after = 0;
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0); /* the first needs none */
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "b"), -ENOMEM);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ENOMEM);
    assert_int_equal(tram_future_remove_done_callback(future, trace_done, "a"), 1);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "c"), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_future_add_done_callback(future, NULL, NULL), TRAM_EVALUE);
    run_ticks(world, 1);
    assert_trace(world, "c:ok");
    tram_future_release(future);
}

/* What is done stays what it is, whatever an operation that comes late makes of it. */
static void test_a_future_that_is_done_does_not_fail(void **state) {
    struct world *world = *state;
    const tram_error error = {.code = -EIO, .operation = "late", .detail = "too late"};
    for (int by_code = 0; by_code < 2; by_code++) {
        tram_future *future = future_new(world);
        assert_int_equal(tram_future_add_done_callback(future, trace_done, "a"), 0);
        assert_int_equal(tram_future_set_result(future, world), 0);
        if (by_code)
            tram__future_fail_code(future, -EIO, "late");
        else
            tram__future_fail(future, &error);
        void *value = NULL;
        assert_int_equal(tram_future_result(future, &value), 0);
        assert_ptr_equal(value, world);
        assert_null(tram_future_error(future));
        run_to_rest(world);
        assert_trace(world, "a:ok");
        tram_future_release(future);
    }
}

static void let_go_of(void *value) {
    trace(value, "let_go");
}

/* What it holds it gives back, though it failed since. */
static void test_a_future_that_fails_gives_back_what_it_held(void **state) {
    struct world *world = *state;
    const tram_error error = {.code = -EIO, .operation = "late", .detail = "no disk"};
    tram_future *future = future_new(world);
    tram__future_holds_value(future, let_go_of);
    future->value = world;
    tram__future_fail(future, &error);
    assert_int_equal(tram_future_result(future, NULL), -EIO);
    assert_string_equal(tram_future_error(future)->detail, "no disk");
    assert_trace(world, "");
    tram_future_release(future);
    assert_trace(world, "let_go");
}

static int no_callback(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static int no_job(void *arg, void **ret_result) {
    (void)arg;
    (void)ret_result;
    return 0;
}

/* Makes every call of a loop's thread that is proved here; true if all fail with `code`. */
static bool all_calls_fail(tram_loop *loop, tram_future *future, int code) {
    tram_future *made;
    tram_error error = {.code = -EIO};
    tram_exception exception = {.message = "x", .fd = -1};
    bool fail = tram_future_set_result(future, NULL) == code && tram_future_set_error(future, &error) == code &&
                tram_future_cancel(future) == code && tram_future_result(future, NULL) == code &&
                tram_future_add_done_callback(future, trace_done, NULL) == code &&
                tram_future_remove_done_callback(future, trace_done, NULL) == code &&
                tram_loop_create_future(loop, &made) == code;
    fail = fail && tram_loop_run_in_executor(loop, NULL, no_job, NULL, NULL, &made) == code &&
           tram_loop_shutdown_default_executor(loop, 0, &made) == code &&
           tram_loop_getaddrinfo(loop, "127.0.0.1", "1", NULL, &made) == code &&
           tram_loop_add_signal_handler(loop, SIGUSR1, no_callback, NULL) == code &&
           tram_loop_remove_signal_handler(loop, SIGUSR1) == code;
    fail = fail && tram_loop_raise(loop, -EIO, NULL, NULL) == code &&
           tram_loop_set_exception_handler(loop, NULL, NULL) == code &&
           tram_loop_call_exception_handler(loop, &exception) == code;
    tram_future_hold(future);
    tram_future_release(future);
    return fail && !tram_future_done(future) && !tram_future_error(future) && !tram_future_cancelled(future);
}

static void test_a_loop_runs_until_a_future_of_its_own_is_done(void **state) {
    struct world *world = *state;
    tram_loop *other;
    tram_future *foreign, *future = future_new(world);
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_future(other, &foreign), 0);
    assert_int_equal(tram_future_set_result(foreign, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, foreign), TRAM_ESTATE);
    tram_future_release(foreign);
    assert_int_equal(tram_loop_free(other), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
}

/* What is made beside futures, with so much memory; a call that fails for want of it has left nothing behind. */
static int make_gathered(tram_loop *loop, tram_future *inner) {
    tram_future *const both[] = {inner, inner};
    tram_future *made;
    int status = tram_gather(loop, both, 2, 0, &made);
    if (!status) {
        tram_future_cancel(made);
        tram_future_release(made);
    }
    return status;
}

static int make_shield(tram_loop *loop, tram_future *inner) {
    (void)loop;
    tram_future *made;
    int status = tram_shield(inner, &made);
    if (!status) {
        tram_future_cancel(made);
        tram_future_release(made);
    }
    return status;
}

static int make_reader(tram_loop *loop, tram_future *inner) {
    (void)inner;
    tram_stream_reader *reader;
    int status = tram_stream_reader_new(loop, 0, &reader);
    return status ? status : tram_stream_reader_free(reader);
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

static int make_handle(tram_loop *loop, tram_future *inner) {
    (void)inner;
    tram_threadsafe_handle *handle;
    int status = tram_loop_call_soon_threadsafe_handle(loop, nothing, NULL, NULL, &handle);
    if (!status)
        tram_threadsafe_handle_release(handle);
    return status;
}

static int make_connection(tram_loop *loop, tram_future *inner) {
    (void)inner;
    tram_future *made;
    int status = tram_loop_create_connection(loop, recorder_factory, NULL, "127.0.0.1", "9", NULL, &made);
    if (!status) {
        tram_future_cancel(made);
        tram_future_release(made);
    }
    return status;
}

/* A job that is given up at once. */
static int make_name(tram_loop *loop, tram_future *inner) {
    (void)inner;
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct sockaddr *given = (const struct sockaddr *)(const void *)&address;
    tram_future *made;
    int status = tram_loop_getnameinfo(loop, given, sizeof address, NI_NUMERICHOST, &made);
    if (!status) {
        tram_future_cancel(made);
        tram_future_release(made);
    }
    return status;
}

static int make_default_executor(tram_loop *loop, tram_future *inner) {
    (void)inner;
    tram_executor *executor;
    int status = tram_executor_new(1, NULL, &executor);
    if (status)
        return status;
    status = tram_loop_set_default_executor(loop, executor);
    tram_executor_free(executor);
    return status;
}

static int make_shutdown(tram_loop *loop, tram_future *inner) {
    (void)inner;
    tram_future *made;
    int status = tram_loop_shutdown_default_executor(loop, 0, &made);
    if (!status)
        tram_future_release(made);
    return status;
}

static void test_X_1_making_something_without_memory_says_so(void **state) {
    struct world *world = *state;
    /* Whether what is not the loop's is to be missed. */
    static const struct {
        int (*make)(tram_loop *loop, tram_future *inner);
        bool plain;
    } makers[] = {
        {make_gathered, false},        {make_shield, false},   {make_reader, false},  {make_handle, true},
        {make_connection, false},      {make_name, false},     {make_name, true},     {make_default_executor, false},
        {make_default_executor, true}, {make_shutdown, false}, {make_shutdown, true},
    };
    for (size_t i = 0; i < 2 * sizeof makers / sizeof *makers; i++) {
        int status = -ENOMEM;
        bool once = i % 2; /* only one allocation fails, or all that follow as well */
        world_reopen(world);
        world->fail_once = once;
        for (unsigned n = 0; status && n < 100; n++) {
            tram_future *inner = future_new(world);
            if (makers[i / 2].plain)
                memory_fail(n + 1, once ? 1 : UINT64_MAX);
            else
                world->fail_after = n;
            status = makers[i / 2].make(world->loop, inner);
            memory_fail(0, 0);
            world->fail_after = SIZE_MAX;
            assert_true(status == -ENOMEM || (status == 0 && n > 0));
            tram_future_release(inner);
            run_to_rest(world);
        }
        assert_int_equal(status, 0);
    }
    world->fail_once = false;
}

static void test_after_fork_every_call_fails(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    pid_t child = fork();
    if (child == 0)
        _exit(all_calls_fail(world->loop, future, -ECHILD) ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    tram_future_release(future);
}

static void *call_from_elsewhere(void *arg) {
    tram_future *future = arg;
    return all_calls_fail(tram_future_get_loop(future), future, TRAM_ESTATE) ? arg : NULL;
}

static int start_elsewhere(tram_loop *loop, void *arg) {
    (void)loop;
    assert_ptr_equal(on_another_thread(call_from_elsewhere, arg), arg);
    return 0;
}

static void test_L_31_debug_mode_catches_calls_on_a_wrong_thread(void **state) {
    struct world *world = *state;
    tram_future *future = future_new(world);
    assert_int_equal(tram_loop_call_soon(world->loop, start_elsewhere, future, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_true(world->exceptions > 15);
    assert_int_equal(world->exception_code, TRAM_ESTATE);
    tram_future_release(future);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_X_11_an_error_that_nobody_read_is_reported, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_X_11_an_operation_without_a_future_that_fails_is_reported, world_setup,
                                        world_teardown),
        TEST(test_X_5_a_failing_done_callback_is_reported_and_the_next_one_runs),
        TEST(test_a_future_is_pending_first),
        TEST(test_X_1_null_is_no_future),
        TEST(test_a_result_is_set_once),
        TEST(test_X_5_an_error_is_kept_with_texts_and_causes),
        TEST(test_an_error_needs_a_code),
        TEST(test_an_error_without_memory_for_its_texts_is_still_one),
        TEST(test_X_2_L_40_callbacks_come_from_the_loop_in_order),
        TEST(test_X_2_a_callback_added_in_a_callback_runs_in_the_next_tick),
        TEST(test_X_2_the_loop_holds_a_done_future_for_its_callbacks),
        TEST(test_a_pending_future_that_is_let_go_calls_nothing),
        TEST(test_removed_callbacks_do_not_run),
        TEST(test_X_2_the_order_stays_where_the_first_is_removed),
        TEST(test_X_1_the_only_callback_needs_no_memory),
        TEST(test_X_2_a_discard_may_complete_the_future),
        TEST(test_X_3_cancelling_completes_once),
        TEST(test_X_3_cancelling_an_operation_is_a_request),
        TEST(test_an_operations_future_is_not_the_users_to_complete),
        TEST(test_L_8_closing_drops_callbacks_without_a_leak),
        TEST(test_out_of_memory_changes_nothing),
        TEST(test_a_future_that_is_done_does_not_fail),
        TEST(test_a_future_that_fails_gives_back_what_it_held),
        TEST(test_a_loop_runs_until_a_future_of_its_own_is_done),
        TEST(test_X_1_making_something_without_memory_says_so),
        TEST(test_after_fork_every_call_fails),
        cmocka_unit_test_setup_teardown(test_L_31_debug_mode_catches_calls_on_a_wrong_thread, world_setup_debug,
                                        world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
