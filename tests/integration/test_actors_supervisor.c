/* Supervisors: which children run after one has ended, in what order they start and stop, and who gives up when. */
#include <sched.h>

#include "core/actors/actors.h"
#include "support/support.h"

enum { NAMES = 8 };

/* What a test keeps of a child: each start makes a new actor. */
struct kept {
    struct world *world;
    const char *name;
    unsigned starts;
    unsigned fails_at; /* this start fails, and so do … */
    unsigned fails;    /* … as many */
    tram_actor *actor; /* NULL: does not run */
    tram_actor_ops ops;
};

struct worker {
    tram_actor base;
    struct kept *kept;
};

static void worker_stopped(tram_actor *actor, int reason) {
    struct kept *kept = ((struct worker *)actor)->kept;
    trace(kept->world, "%s.stopped:%s", kept->name, reason ? tram_error_name(reason) : "0");
    if (kept->actor == actor)
        kept->actor = NULL;
    free(actor);
}

static int worker_received(tram_actor *actor, tram_message *message) {
    (void)actor;
    return (int)(int64_t)message->words[0];
}

static int worker_closing(tram_actor *actor) {
    return tram_actor_stop(actor, 0);
}

static const tram_actor_ops worker_ops = {
    .message_received = worker_received, .closing = worker_closing, .stopped = worker_stopped};

static int start_worker(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    struct kept *kept = arg;
    kept->starts++;
    trace(kept->world, "%s", kept->name);
    if (kept->fails && kept->starts >= kept->fails_at) {
        kept->fails--;
        return -EIO;
    }
    struct worker *worker = calloc(1, sizeof *worker);
    worker->base.ops = &worker_ops;
    worker->kept = kept;
    int status = tram_loop_start_actor(loop, &worker->base);
    if (status)
        free(worker);
    else
        kept->actor = *ret_actor = &worker->base;
    return status;
}

static void keep(struct world *world, struct kept *kept, tram_child *children, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        kept[i] = (struct kept){.world = world, .name = names[i]};
        children[i] = (tram_child){.name = names[i], .start = start_worker, .arg = &kept[i]};
    }
}

static const char *const letters[NAMES] = {"a", "b", "c", "d", "e", "f", "g", "h"};

/* Three permanent children. */
struct three {
    struct kept kept[3];
    tram_child children[3];
    tram_supervisor_options options;
    tram_actor *supervisor;
};

static struct three *prepare(struct world *world, tram_supervisor_strategy strategy, int max_restarts) {
    static struct three three;
    three = (struct three){.options = {.strategy = strategy, .max_restarts = max_restarts, .child_count = 3}};
    keep(world, three.kept, three.children, letters, 3);
    three.options.children = three.children;
    return &three;
}

static void start(struct world *world, struct three *three) {
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), 0);
    for (size_t i = 0; i < 3; i++)
        assert_ptr_equal(tram_supervisor_child(three->supervisor, i), three->kept[i].actor);
    assert_trace(world, "a b c");
}

static void test_N_14_one_for_one_starts_who_ended_again(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 2);
    start(world, three);
    assert_null(tram_supervisor_child(three->supervisor, 3));
    assert_null(tram_supervisor_child(three->kept[0].actor, 0));
    tram_address address;
    assert_int_equal(tram_actor_address(three->kept[1].actor, &address), 0);
    tram_message message = {.words = {(uint64_t)-EPROTO}};
    assert_int_equal(tram_post(address, &message), 0); /* it fails by this */
    run_to_rest(world);
    assert_trace(world, "b.stopped:EPROTO b");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(tram_actor_stop(three->kept[2].actor, 0), 0);
    assert_null(tram_supervisor_child(three->supervisor, 2)); /* it does not run any more */
    run_to_rest(world);
    assert_trace(world, "c.stopped:0 c");
    assert_ptr_equal(tram_supervisor_child(three->supervisor, 2), three->kept[2].actor);
    world->exceptions = 0;
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "c.stopped:TRAM_ECANCELLED b.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
}

static void test_N_14_one_for_all_stops_the_others_first(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ALL, 3);
    three->children[0].restart = TRAM_RESTART_TEMPORARY;
    start(world, three);
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "b.stopped:EIO c.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED b c");
    assert_null(tram_supervisor_child(three->supervisor, 0)); /* a temporary one is not started again */
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0);
    assert_int_equal(tram_actor_stop(three->kept[2].actor, -EIO), 0); /* at the same time: one restart */
    run_to_rest(world);
    assert_trace(world, "b.stopped:EIO c.stopped:EIO b c");
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void test_N_14_who_is_started_again_depends_on_the_reason(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 9);
    three->children[1].restart = TRAM_RESTART_TRANSIENT;
    three->children[2].restart = TRAM_RESTART_TEMPORARY;
    start(world, three);
    static const int reasons[] = {-EIO, 0, TRAM_ECANCELLED};
    static const bool again[][3] = {{true, true, true}, {true, false, false}, {false, false, false}};
    for (size_t child = 0; child < 3; child++) {
        for (size_t i = 0; i < 3; i++) {
            unsigned before = three->kept[child].starts;
            if (!three->kept[child].actor) { /* another supervisor, whose child runs */
                assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
                run_to_rest(world);
                assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), 0);
                before = three->kept[child].starts;
            }
            assert_int_equal(tram_actor_stop(three->kept[child].actor, reasons[i]), 0);
            run_to_rest(world);
            assert_int_equal(three->kept[child].starts - before, again[child][i]);
        }
    }
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

/* ---- Giving up ---- */

static void test_N_14_too_many_restarts_end_the_supervisor(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 0); /* one is borne */
    start(world, three);
    assert_int_equal(tram_actor_stop(three->kept[0].actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "a.stopped:EIO a");
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "b.stopped:EIO c.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
    assert_string_equal(world->exception, "a supervisor gave up");
    assert_int_equal(world->exception_code, TRAM_ELIMIT);
    world->exceptions = 0;

    three = prepare(world, TRAM_ONE_FOR_ONE, -1); /* none is */
    start(world, three);
    assert_int_equal(tram_actor_stop(three->kept[2].actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "c.stopped:0 b.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
    world->exceptions = 0;

    three = prepare(world, TRAM_ONE_FOR_ONE, 1); /* what is longer ago than the period is forgotten */
    three->options.period_ns = 1;
    start(world, three);
    for (unsigned i = 0; i < 10; i++) {
        uint64_t now = tram_loop_time(world->loop);
        while (tram_loop_time(world->loop) <= now + 1)
            ;
        assert_int_equal(tram_actor_stop(three->kept[0].actor, -EIO), 0);
        run_to_rest(world);
    }
    assert_int_equal(three->kept[0].starts, 11);
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void test_N_14_a_start_that_fails_is_tried_again_and_counts(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 3);
    start(world, three);
    three->kept[1].fails_at = 2;
    three->kept[1].fails = 2;
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "b.stopped:EIO b b b");
    assert_string_equal(world->exception, "an actor could not be started again");
    assert_int_equal(world->exceptions, 2);
    three->kept[1].fails = 9;
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0); /* that is the fourth */
    run_to_rest(world);
    assert_trace(world, "b.stopped:EIO c.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
    world->exceptions = 0;

    three = prepare(world, TRAM_ONE_FOR_ALL, 3);
    start(world, three);
    three->kept[1].fails_at = 2;
    three->kept[1].fails = 1;
    assert_int_equal(tram_actor_stop(three->kept[2].actor, -EIO), 0);
    run_to_rest(world); /* what had started is stopped again, and all are */
    assert_trace(world, "c.stopped:EIO b.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED a b "
                        "a.stopped:TRAM_ECANCELLED a b c");
    world->exceptions = 0;
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static int give_nobody(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    (void)loop, (void)arg, (void)ret_actor;
    return 0;
}

static void test_N_14_a_supervisor_starts_with_all_its_children_or_not(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 3);
    three->kept[2].fails_at = three->kept[2].fails = 1;
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), -EIO);
    assert_null(three->supervisor);
    run_to_rest(world);
    assert_trace(world, "a b c b.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
    three = prepare(world, TRAM_ONE_FOR_ONE, 3);
    three->children[1].start = give_nobody;
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), TRAM_ETYPE);
    run_to_rest(world);
    assert_trace(world, "a a.stopped:TRAM_ECANCELLED");
    three->children[1].start = NULL;
    assert_wrong(tram_supervisor_start(world->loop, &three->options, &three->supervisor), "start");
    three->children[1].start = start_worker;
    three->children[1].restart = (tram_restart)3;
    assert_wrong(tram_supervisor_start(world->loop, &three->options, &three->supervisor), "restart");
    three->options.strategy = (tram_supervisor_strategy)2;
    assert_wrong(tram_supervisor_start(world->loop, &three->options, &three->supervisor), "strategy");
    three->options = (tram_supervisor_options){.child_count = 1};
    assert_wrong(tram_supervisor_start(world->loop, &three->options, &three->supervisor), "children");
    three->options = (tram_supervisor_options){.max_restarts = 65536};
    assert_wrong(tram_supervisor_start(world->loop, &three->options, &three->supervisor), "max_restarts");
    assert_wrong(tram_supervisor_start(world->loop, NULL, &three->supervisor), "options");
    assert_wrong(tram_supervisor_start(world->loop, &three->options, NULL), "ret_actor");
    three->options = (tram_supervisor_options){.max_restarts = 65535}; /* without children it is one, too */
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), 0);
    assert_int_equal(tram_actor_stop(three->supervisor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "");
}

/* ---- Trees ---- */

static int start_below(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    return tram_supervisor_start(loop, arg, ret_actor);
}

static void test_N_14_a_supervisor_that_gives_up_is_started_again_by_its_own(void **state) {
    struct world *world = *state;
    struct kept kept[4];
    tram_child below[2], above[3];
    static const char *const names[] = {"x", "y"};
    keep(world, kept, above, letters, 2);
    keep(world, kept + 2, below, names, 2);
    tram_supervisor_options low = {.children = below, .child_count = 2, .max_restarts = -1};
    above[2] = above[1];
    above[1] = (tram_child){.start = start_below, .arg = &low};
    tram_supervisor_options high = {.children = above, .child_count = 3};
    tram_actor *root;
    assert_int_equal(tram_supervisor_start(world->loop, &high, &root), 0);
    assert_trace(world, "a x y b");
    assert_ptr_equal(tram_supervisor_child(tram_supervisor_child(root, 1), 1), kept[3].actor);
    assert_int_equal(tram_actor_stop(kept[2].actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "x.stopped:EIO y.stopped:TRAM_ECANCELLED x y");
    assert_int_equal(tram_actor_stop(root, -EIO), 0); /* from the last to the first, those below before their own */
    run_to_rest(world);
    assert_trace(world, "b.stopped:TRAM_ECANCELLED y.stopped:TRAM_ECANCELLED x.stopped:TRAM_ECANCELLED "
                        "a.stopped:TRAM_ECANCELLED");
    world->exceptions = 0;
    kept[3].fails_at = kept[3].fails = 1; /* what cannot start at the bottom cannot at the top */
    kept[3].starts = 0;
    assert_int_equal(tram_supervisor_start(world->loop, &high, &root), -EIO);
    run_to_rest(world);
    assert_trace(world, "a x y x.stopped:TRAM_ECANCELLED a.stopped:TRAM_ECANCELLED");
}

/* Ends its supervisor while that starts it. */
static tram_actor *doomed;

static int end_supervisor(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    struct kept *kept = arg;
    if (kept->starts)
        assert_int_equal(tram_actor_stop(doomed, -EPIPE), 0);
    return start_worker(loop, arg, ret_actor);
}

static void test_N_14_a_start_may_end_the_supervisor(void **state) {
    struct world *world = *state;
    for (tram_supervisor_strategy strategy = TRAM_ONE_FOR_ONE; strategy <= TRAM_ONE_FOR_ALL; strategy++) {
        struct three *three = prepare(world, strategy, 5);
        three->children[0].start = end_supervisor;
        start(world, three);
        doomed = three->supervisor;
        assert_int_equal(tram_actor_stop(three->kept[0].actor, -EIO), 0);
        run_to_rest(world);
        for (size_t i = 0; i < 3; i++)
            assert_null(three->kept[i].actor);
        world->trace[0] = '\0';
    }
}

/* … and fail: it is not tried again. */
static void test_N_14_a_start_may_end_the_supervisor_and_fail(void **state) {
    struct world *world = *state;
    for (tram_supervisor_strategy strategy = TRAM_ONE_FOR_ONE; strategy <= TRAM_ONE_FOR_ALL; strategy++) {
        struct three *three = prepare(world, strategy, 5);
        three->children[0].start = end_supervisor;
        three->kept[0].fails_at = 2;
        three->kept[0].fails = 1;
        start(world, three);
        doomed = three->supervisor;
        assert_int_equal(tram_actor_stop(three->kept[0].actor, -EIO), 0);
        run_to_rest(world);
        assert_int_equal(three->kept[0].starts, 2);
        for (size_t i = 0; i < 3; i++)
            assert_null(three->kept[i].actor);
        assert_int_equal(world->exceptions, 1);
        assert_int_equal(world->exception_code, -EIO);
        world->exceptions = 0;
        world->trace[0] = '\0';
    }
}

/* ---- The end of the loop ---- */

static int close_and_start(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    int status = tram_loop_close(loop);
    return status ? status : start_worker(loop, arg, ret_actor);
}

/* The call that starts the children goes on with the loop. */
static void test_N_14_no_start_closes_the_loop(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 3);
    three->children[1].start = close_and_start;
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &three->supervisor), TRAM_ESTATE);
    run_to_rest(world);
    assert_trace(world, "a a.stopped:TRAM_ECANCELLED");
}

static void test_N_14_a_loop_that_closes_ends_trees(void **state) {
    struct world *world = *state;
    struct three *three = prepare(world, TRAM_ONE_FOR_ONE, 3);
    tram_child below = {.start = start_below, .arg = &three->options};
    tram_supervisor_options high = {.children = &below, .child_count = 1};
    tram_actor *root;
    assert_int_equal(tram_supervisor_start(world->loop, &high, &root), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0); /* its restart would be due */
    world->trace[0] = '\0';
    assert_int_equal(tram_loop_close(world->loop), 0);
    for (size_t i = 0; i < 3; i++)
        assert_null(three->kept[i].actor);
    assert_int_equal(three->kept[0].starts + three->kept[1].starts + three->kept[2].starts, 3);
    assert_int_equal(tram_supervisor_start(world->loop, &three->options, &root), TRAM_ESTATE);
    world->trace[0] = '\0';
}

static struct three *of_runtime;

static int start_in_runtime(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)state, (void)arg;
    return tram_supervisor_start(loop, &of_runtime->options, &of_runtime->supervisor);
}

static void test_N_14_who_stops_as_the_runtime_ends_is_not_started_again(void **state) {
    struct world *world = *state;
    of_runtime = prepare(world, TRAM_ONE_FOR_ALL, 3);
    tram_runtime_options options = {.workers = 1, .start = start_in_runtime};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
    assert_trace(world, "a b c a.stopped:0 b.stopped:0 c.stopped:0"); /* each at its `closing` */
}

static _Atomic bool heard, cancelled;

static int hear_closing(tram_actor *actor) {
    heard = true;
    return tram_actor_stop(actor, 0);
}

/* Its end takes until the runtime ends. */
static int end_with_the_runtime(void *arg) {
    (void)arg;
    int status = tram_sleep(HOUR_NS);
    cancelled = true;
    while (!heard)
        tram_yield();
    return status;
}

/* The loop runs until the others' ends are told. */
static int end_after_others(void *arg) {
    (void)arg;
    int status = tram_sleep(HOUR_NS);
    for (int i = 0; i < 20; i++)
        tram_yield();
    return status;
}

static int start_patient(tram_loop *loop, void *arg, tram_actor **ret_actor) {
    struct kept *kept = arg;
    tram_task *task;
    kept->starts++;
    int status = tram_task_spawn(loop, end_with_the_runtime, NULL, NULL, &task);
    if (status)
        return status;
    status = tram_task_actor(task, ret_actor);
    tram_task_release(task);
    return status;
}

static tram_address first_child;

static int start_with_a_witness(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    static const tram_actor_ops ops = {.closing = hear_closing};
    static tram_actor witness;
    witness = (tram_actor){.ops = &ops};
    int status = start_in_runtime(runtime, worker, loop, state, arg);
    if (!status)
        status = tram_actor_address(of_runtime->kept[0].actor, &first_child);
    if (!status)
        status = tram_task_spawn(loop, end_after_others, NULL, NULL, NULL);
    return status ? status : tram_loop_start_actor(loop, &witness);
}

/* All were stopped to be started again, and the last of them ends when the runtime does. */
static void test_N_14_a_restart_that_the_end_of_the_runtime_overtakes_is_none(void **state) {
    struct world *world = *state;
    heard = cancelled = false;
    of_runtime = prepare(world, TRAM_ONE_FOR_ALL, 3);
    of_runtime->children[1].start = start_patient;
    tram_runtime_options options = {.workers = 1, .start = start_with_a_witness};
    tram_message message = {.words = {(uint64_t)-EPROTO}};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_post(first_child, &message), 0); /* it fails by this */
    while (!cancelled)
        sched_yield();
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
    for (int i = 0; i < 3; i++)
        assert_int_equal(of_runtime->kept[i].starts, 1);
    world->trace[0] = '\0';
}

/* ---- Without memory ---- */

static void use_supervisor(struct world *world) {
    struct three *three = prepare(world, TRAM_ONE_FOR_ALL, 5);
    bool begun = had_memory(tram_supervisor_start(world->loop, &three->options, &three->supervisor));
    run_ticks(world, 4);
    if (begun && three->kept[1].actor)
        assert_int_equal(tram_actor_stop(three->kept[1].actor, -EIO), 0);
    run_ticks(world, 30);
    world->trace[0] = '\0';
}

static void test_X_1_supervisors_without_memory(void **state) {
    run_out_of_other_memory(*state, false, use_supervisor);
    run_out_of_other_memory(*state, true, use_supervisor);
    run_out_of_memory(*state, false, use_supervisor);
    run_out_of_memory(*state, true, use_supervisor);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_N_14_one_for_one_starts_who_ended_again),
        CASE(test_N_14_one_for_all_stops_the_others_first),
        CASE(test_N_14_who_is_started_again_depends_on_the_reason),
        CASE(test_N_14_too_many_restarts_end_the_supervisor),
        CASE(test_N_14_a_start_that_fails_is_tried_again_and_counts),
        CASE(test_N_14_a_supervisor_starts_with_all_its_children_or_not),
        CASE(test_N_14_a_supervisor_that_gives_up_is_started_again_by_its_own),
        CASE(test_N_14_a_start_may_end_the_supervisor),
        CASE(test_N_14_a_start_may_end_the_supervisor_and_fail),
        CASE(test_N_14_no_start_closes_the_loop),
        CASE(test_N_14_a_loop_that_closes_ends_trees),
        CASE(test_N_14_who_stops_as_the_runtime_ends_is_not_started_again),
        CASE(test_N_14_a_restart_that_the_end_of_the_runtime_overtakes_is_none),
        CASE(test_X_1_supervisors_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
