/* Actors without a connection: life, messages, timers, monitors, links and names. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/actors/actors.h"
#include "core/actors/directory.h"
#include "core/base/limits.h"
#include "core/loop/types.h"
#include "public_calls.h"
#include "support/support.h"

struct tested {
    tram_actor actor;
    struct world *world;
    const char *name;
    int (*on)(struct tested *tested, const char *event); /* what a callback does, and returns */
    tram_address other;
    int reason;
    bool stopped;
};

static int happened(tram_actor *actor, const char *event) {
    struct tested *tested = (struct tested *)actor;
    trace(tested->world, "%s.%s", tested->name, event);
    return tested->on ? tested->on(tested, event) : 0;
}

static int started(tram_actor *actor) {
    return happened(actor, "started");
}

static int message_received(tram_actor *actor, tram_message *message) {
    char event[32];
    snprintf(event, sizeof event, "message:%u", message->tag);
    return happened(actor, event);
}

static int timed_out(tram_actor *actor) {
    return happened(actor, "timed_out");
}

static int actor_ended(tram_actor *actor, tram_address who, int reason) {
    char event[64];
    ((struct tested *)actor)->other = who;
    snprintf(event, sizeof event, "ended:%s", reason ? tram_error_name(reason) : "0");
    return happened(actor, event);
}

static int closing(tram_actor *actor) {
    return happened(actor, "closing");
}

static void stopped(tram_actor *actor, int reason) {
    struct tested *tested = (struct tested *)actor;
    tested->reason = reason;
    tested->stopped = true;
    assert_null(actor->loop);
    trace(tested->world, "%s.stopped:%s", tested->name, reason ? tram_error_name(reason) : "0");
}

static const tram_actor_ops whole_ops = {.started = started,
                                         .message_received = message_received,
                                         .timed_out = timed_out,
                                         .actor_ended = actor_ended,
                                         .closing = closing,
                                         .stopped = stopped};
static const tram_actor_ops simple_ops = {.message_received = message_received, .stopped = stopped};

static tram_address start(struct world *world, struct tested *tested, const char *name, const tram_actor_ops *ops) {
    tram_address address;
    *tested = (struct tested){.actor.ops = ops, .world = world, .name = name};
    assert_int_equal(tram_loop_start_actor(world->loop, &tested->actor), 0);
    assert_int_equal(tram_actor_address(&tested->actor, &address), 0);
    return address;
}

static int post(tram_address to, uint32_t tag) {
    tram_message message = {.tag = tag};
    return tram_post(to, &message);
}

static void test_N_11_an_actor_starts_hears_and_stops(void **state) {
    struct world *world = *state;
    struct tested a;
    tram_address address = start(world, &a, "a", &whole_ops), again;
    assert_int_equal(post(address, 1), 0);
    assert_int_equal(tram_loop_start_actor(world->loop, &a.actor), TRAM_ESTATE);
    assert_trace(world, "");
    run_to_rest(world);
    assert_trace(world, "a.started a.message:1");
    assert_int_equal(post(address, 2), 0);
    assert_int_equal(tram_actor_stop(&a.actor, -EIO), 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), TRAM_ESTATE);
    assert_int_equal(tram_actor_address(&a.actor, &again), TRAM_ESTATE);
    assert_int_equal(tram_actor_set_timer(&a.actor, 1), TRAM_ESTATE);
    assert_trace(world, "");
    run_to_rest(world);
    assert_trace(world, "a.stopped:EIO");
    assert_int_equal(tram_actor_stop(&a.actor, 0), TRAM_ESTATE);
    address = start(world, &a, "a", &whole_ops); /* it may start again */
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "a.stopped:0"); /* `started` was not called yet */
    struct tested none = {0};
    assert_int_equal(tram_loop_start_actor(world->loop, &none.actor), TRAM_ETYPE);
}

static int fail_at_message(struct tested *tested, const char *event) {
    (void)tested;
    return strncmp(event, "message", 7) == 0 ? -EPROTO : 0;
}

static void test_N_11_a_callback_that_fails_stops_the_actor(void **state) {
    struct world *world = *state;
    struct tested a;
    tram_address address = start(world, &a, "a", &whole_ops);
    a.on = fail_at_message;
    assert_int_equal(post(address, 1), 0);
    assert_int_equal(post(address, 2), 0);
    run_to_rest(world);
    assert_trace(world, "a.started a.message:1 a.stopped:EPROTO");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EPROTO);
    world->exceptions = 0;
}

static int stop_after_timer(struct tested *tested, const char *event) {
    return strcmp(event, "timed_out") == 0 ? tram_actor_stop(&tested->actor, 0) : 0;
}

static void test_N_11_a_timer_comes_once_and_the_last_one_counts(void **state) {
    struct world *world = *state;
    struct tested a;
    start(world, &a, "a", &whole_ops);
    a.on = stop_after_timer;
    assert_int_equal(tram_actor_set_timer(&a.actor, 3600000000000u), 0);
    assert_int_equal(tram_actor_set_timer(&a.actor, 1000), 0);
    run_until(world, &a.stopped);
    assert_trace(world, "a.started a.timed_out a.stopped:0");
    start(world, &a, "a", &whole_ops);
    assert_int_equal(tram_actor_set_timer(&a.actor, 1000), 0);
    assert_int_equal(tram_actor_set_timer(&a.actor, TRAM_FOREVER), 0);
    world_lacks_timers(world);
    assert_int_equal(tram_actor_set_timer(&a.actor, TRAM_FOREVER), 0); /* it needs none */
    assert_int_equal(tram_actor_set_timer(&a.actor, HOUR_NS), -ENOMEM);
    world_has_timers(world);
    assert_int_equal(tram_actor_set_timer(&a.actor, 1), 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "a.stopped:0");
}

/* ---- Monitors and links ---- */

static void test_N_12_a_monitor_hears_of_the_end_once(void **state) {
    struct world *world = *state;
    struct tested a, b;
    tram_address to_b;
    start(world, &a, "a", &whole_ops);
    to_b = start(world, &b, "b", &whole_ops);
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    run_to_rest(world);
    assert_trace(world, "a.started b.started");
    assert_int_equal(tram_actor_stop(&b.actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "a.ended:EIO b.stopped:EIO"); /* outside of a tick mail comes first */
    assert_true(tram_address_equal(a.other, to_b));
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0); /* it has ended already */
    run_to_rest(world);
    assert_trace(world, "a.ended:ESRCH");
    to_b.loop_generation += 2; /* a loop that has ended */
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    run_to_rest(world);
    assert_trace(world, "a.ended:ESRCH");

    to_b = start(world, &b, "b", &whole_ops);
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    assert_int_equal(tram_actor_demonitor(&a.actor, to_b), 0);
    run_to_rest(world);
    assert_trace(world, "b.started");
    assert_int_equal(tram_actor_stop(&b.actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "a.ended:0 b.stopped:0");

    to_b = start(world, &b, "b", &whole_ops);
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(&b.actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "b.started a.stopped:0 b.stopped:0");
}

static void test_N_12_an_end_goes_along_links(void **state) {
    struct world *world = *state;
    struct tested a, b, c;
    start(world, &a, "a", &simple_ops);
    tram_address to_b = start(world, &b, "b", &simple_ops), to_c = start(world, &c, "c", &whole_ops);
    assert_int_equal(tram_actor_link(&a.actor, to_b), 0);
    assert_int_equal(tram_actor_link(&a.actor, to_b), 0); /* is one link */
    assert_int_equal(tram_actor_link(&b.actor, to_c), 0);
    run_to_rest(world);
    assert_trace(world, "c.started");
    assert_int_equal(tram_actor_stop(&a.actor, -EIO), 0);
    run_to_rest(world); /* b has no actor_ended and ends, c has and goes on */
    assert_trace(world, "a.stopped:EIO b.stopped:EIO c.ended:EIO");
    to_b = start(world, &b, "b", &simple_ops);
    assert_int_equal(tram_actor_link(&c.actor, to_b), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(&c.actor, 0), 0);
    run_to_rest(world); /* a normal end ends nobody */
    assert_trace(world, "c.stopped:0");
    assert_false(b.stopped);
    to_c = start(world, &c, "c", &simple_ops);
    assert_int_equal(tram_actor_link(&b.actor, to_c), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_unlink(&b.actor, to_c), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_stop(&c.actor, -EIO), 0);
    run_to_rest(world);
    assert_trace(world, "c.stopped:EIO");
    assert_int_equal(tram_actor_link(&b.actor, to_c), 0); /* to one that has ended */
    run_to_rest(world);
    assert_trace(world, "b.stopped:ESRCH");
}

static void test_N_12_a_loop_that_closes_ends_its_actors_and_tells_the_others(void **state) {
    struct world *world = *state;
    struct tested a, b;
    start(world, &a, "a", &whole_ops);
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    b = (struct tested){.actor.ops = &whole_ops, .world = world, .name = "b"};
    tram_address to_b;
    assert_int_equal(tram_loop_start_actor(other, &b.actor), 0);
    assert_int_equal(tram_actor_address(&b.actor, &to_b), 0);
    assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
    assert_int_equal(tram_loop_dispatch(other), 0);
    run_to_rest(world);
    assert_int_equal(tram_actor_link(&a.actor, to_b), 0); /* on its way when the loop closes */
    assert_int_equal(tram_loop_free(other), 0);
    run_to_rest(world);
    assert_int_equal(b.reason, TRAM_ECANCELLED);
    assert_non_null(strstr(world->trace, "b.stopped:TRAM_ECANCELLED"));
    assert_non_null(strstr(world->trace, "a.ended:TRAM_ECANCELLED"));
    assert_non_null(strstr(world->trace, "a.ended:ESRCH"));
    world->trace[0] = '\0';
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "a.stopped:TRAM_ECANCELLED");
    assert_int_equal(tram_loop_start_actor(world->loop, &b.actor), TRAM_ESTATE);
}

static void test_N_11_N_12_nothing_is_lost_without_memory(void **state) {
    struct world *world = *state;
    unsigned began = 0, related = 0;
    for (size_t allowed = 0; allowed < 30; allowed++) {
        struct tested a, b;
        world_reopen(world);
        tram_address to_b = start(world, &b, "b", &simple_ops);
        a = (struct tested){.actor.ops = &whole_ops, .world = world, .name = "a"};
        run_ticks(world, 2);
        world->fail_after = allowed;
        if (tram_loop_start_actor(world->loop, &a.actor) == 0) {
            began++;
            int monitored = tram_actor_monitor(&a.actor, to_b), linked = tram_actor_link(&a.actor, to_b);
            run_ticks(world, 3);
            world->fail_after = SIZE_MAX;
            world->trace[0] = '\0';
            tram_actor_stop(&b.actor, -EIO);
            run_to_rest(world);
            unsigned told = 0;
            for (const char *at = world->trace; (at = strstr(at, "a.ended")); at++)
                told++;
            related += !monitored && !linked;
            assert_true(told <= 2);
            tram_actor_stop(&a.actor, 0);
        } else {
            world->fail_after = SIZE_MAX;
            tram_actor_stop(&b.actor, 0);
        }
        run_to_rest(world);
        world->trace[0] = '\0';
    }
    assert_true(began > 10 && related > 5);
}

/* ---- Names ---- */

static struct tested worker_actors[2];

static int start_named(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)state;
    struct tested *tested = &worker_actors[worker];
    *tested = (struct tested){.actor.ops = &simple_ops, .world = arg, .name = "w"};
    int status = tram_loop_start_actor(loop, &tested->actor);
    if (!status)
        status = tram_actor_register(&tested->actor, runtime, worker ? "one" : "zero");
    return status;
}

static void test_N_13_actors_are_found_by_name_from_any_thread(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2, .start = start_named, .arg = world};
    tram_runtime *runtime;
    tram_address zero, one, none;
    struct tested a, b;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_lookup(runtime, "zero", &none), -ENOENT);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_lookup(runtime, "zero", &zero), 0);
    assert_int_equal(tram_runtime_lookup(runtime, "one", &one), 0);
    assert_int_not_equal(zero.loop, one.loop);
    assert_int_equal(tram_runtime_lookup(runtime, "two", &none), -ENOENT);

    start(world, &a, "a", &simple_ops); /* of a loop that is none of the runtime's */
    start(world, &b, "b", &simple_ops);
    assert_int_equal(tram_actor_register(&a.actor, runtime, "zero"), -EEXIST);
    assert_int_equal(tram_actor_register(&a.actor, runtime, ""), TRAM_EVALUE);
    assert_int_equal(tram_actor_register(&a.actor, runtime, "a"), 0);
    assert_int_equal(tram_actor_register(&a.actor, runtime, "also a"), 0);
    assert_int_equal(tram_runtime_lookup(runtime, "also a", &none), 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    assert_int_equal(tram_runtime_lookup(runtime, "a", &none), -ENOENT); /* from the stop on */
    assert_int_equal(tram_runtime_lookup(runtime, "also a", &none), -ENOENT);
    assert_int_equal(tram_actor_register(&b.actor, runtime, "a"), 0);
    assert_int_equal(tram_actor_stop(&b.actor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
    tram_runtime_free(runtime);
    world->trace[0] = '\0';
}

/* A name may come first, and others serve beside it; at the end nothing is left of one that comes too late. */
static void test_N_13_names_before_a_runtime_starts_and_after_its_end(void **state) {
    struct world *world = *state;
    tram_faults *faults;
    tram_address found;
    struct tested a;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    start(world, &a, "a", &simple_ops);
    for (int early = 0; early < 2; early++) {
        const tram_runtime_options options = {.workers = 2, .loop = {.faults = faults}};
        tram_runtime *runtime;
        size_t blocks;
        assert_int_equal(tram_runtime_new(&options, &runtime), 0);
        if (early)
            assert_int_equal(tram_actor_register(&a.actor, runtime, "a"), 0);
        assert_int_equal(tram_runtime_start(runtime), 0);
        assert_int_equal(tram_runtime_lookup(runtime, "a", &found), early ? 0 : -ENOENT);
        assert_int_equal(tram_runtime_stop(runtime), 0);
        assert_int_equal(tram_runtime_join(runtime), 0);
        if (early)
            assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
        else
            assert_int_equal(tram_actor_register(&a.actor, runtime, "late"), TRAM_ESTATE);
        run_to_rest(world);
        tram_runtime_free(runtime);
        tram_faults_memory(faults, &blocks, NULL);
        assert_int_equal(blocks, 0);
    }
    tram_faults_free(faults);
    tram_faults_free(NULL);
    world->trace[0] = '\0';
}

/* ---- The end of a runtime ---- */

static _Atomic int told;

static int count_closing(tram_actor *actor) {
    told++;
    return tram_actor_stop(actor, 0);
}

static const tram_actor_ops closing_ops = {.closing = count_closing};

static int start_closing(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    static struct tested actors[2];
    (void)runtime;
    (void)state;
    (void)arg;
    actors[worker] = (struct tested){.actor.ops = &closing_ops};
    return tram_loop_start_actor(loop, &actors[worker].actor);
}

static void test_N_11_actors_hear_that_the_runtime_ends(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 2, .start = start_closing};
    tram_runtime *runtime;
    told = 0;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(told, 2);
    tram_runtime_free(runtime);
}

static struct tested twins[2];

static int stop_both(tram_actor *actor) {
    (void)actor;
    told++;
    for (size_t i = 0; i < 2; i++)
        tram_actor_stop(&twins[i].actor, 0);
    return 0;
}

static const tram_actor_ops twin_ops = {.closing = stop_both};

static int start_twins(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)state, (void)arg;
    int status = 0;
    for (size_t i = 0; i < 2 && !status; i++) {
        twins[i] = (struct tested){.actor.ops = &twin_ops};
        status = tram_loop_start_actor(loop, &twins[i].actor);
    }
    return status;
}

static void test_N_11_who_was_stopped_meanwhile_does_not_hear_it(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .start = start_twins};
    tram_runtime *runtime;
    told = 0;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(told, 1);
    tram_runtime_free(runtime);
}

/* Started with the first one, and by its `closing`: of both `started` comes first. */
static struct {
    struct tested first, late;
    struct world world;
} late_ones;

static int start_late_one(struct tested *tested, const char *event) {
    if (strcmp(event, "closing") == 0)
        assert_int_equal(tram_loop_start_actor(tested->actor.loop, &late_ones.late.actor), 0);
    return 0;
}

static int start_and_stop(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)worker, (void)state, (void)arg;
    struct world *world = &late_ones.world;
    late_ones.first = (struct tested){.actor.ops = &whole_ops, .world = world, .name = "first", .on = start_late_one};
    late_ones.late = (struct tested){.actor.ops = &whole_ops, .world = world, .name = "late"};
    int status = tram_loop_start_actor(loop, &late_ones.first.actor);
    return status ? status : tram_runtime_stop(runtime);
}

static void test_N_11_who_starts_while_the_runtime_ends_hears_it_after_started(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .start = start_and_stop};
    tram_runtime *runtime;
    memset(&late_ones, 0, sizeof late_ones);
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_string_equal(late_ones.world.trace,
                        "first.started first.closing late.started late.closing first.stopped:TRAM_ECANCELLED "
                        "late.stopped:TRAM_ECANCELLED");
    tram_runtime_free(runtime);
}

static int dropped_messages;

static void count_dropped(tram_message *message) {
    (void)message;
    dropped_messages++;
}

static void test_N_11_who_has_no_message_received_drops_what_comes(void **state) {
    static const tram_actor_ops deaf_ops = {.stopped = stopped};
    static const tram_message_type type = {.name = "counted", .dropped = count_dropped};
    struct world *world = *state;
    struct tested a;
    tram_stats before, now;
    tram_message_counts counts;
    tram_address address = start(world, &a, "a", &deaf_ops);
    tram_loop_stats(world->loop, &before);
    dropped_messages = 0;
    for (int i = 0; i < 2; i++)
        assert_int_equal(tram_post(address, &(tram_message){.type = &type}), 0);
    run_to_rest(world);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(dropped_messages, 2);
    assert_int_equal(now.dropped_messages - before.dropped_messages, 2);
    assert_int_equal(now.messages - before.messages, 0);
    assert_int_equal(tram_address_message_counts(world->loop, address, &counts), 0);
    assert_int_equal(counts.delivered, 0);
    assert_int_equal(counts.dropped, 2);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_trace(world, "a.stopped:0");
}

/* ---- The time in the queue ---- */

#define PAUSE_NS 20000

static void pause_for(const struct world *world, uint64_t duration_ns) {
    for (uint64_t begin = tram_loop_time(world->loop); tram_loop_time(world->loop) - begin < duration_ns;)
        ;
}

static tram_message_counts counts_of(const struct world *world, tram_address address) {
    tram_message_counts counts;
    assert_int_equal(tram_address_message_counts(world->loop, address, &counts), 0);
    return counts;
}

static void test_N_10_the_time_in_the_queue_of_one_message_in_64_is_measured(void **state) {
    struct world *world = *state;
    struct tested a;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    tram_address address = start(world, &a, "a", &simple_ops);
    uint64_t began = tram_loop_time(world->loop);
    for (int i = 0; i < 200; i++) {
        tram_message message = {0};
        assert_int_equal(i % 2 ? tram_try_post(address, &message) : post(address, 0), 0);
        pause_for(world, PAUSE_NS);
        run_ticks(world, 1);
        world->trace[0] = '\0';
    }
    uint64_t most = tram_loop_time(world->loop) - began;
    tram_message_counts counts = counts_of(world, address);
    assert_int_equal(counts.delivered, 200);
    assert_in_range(counts.measured, 3, 4);
    assert_in_range(counts.waited_ns, counts.measured * PAUSE_NS, most);
    assert_in_range(counts.longest_wait_ns, PAUSE_NS, counts.waited_ns - (counts.measured - 1) * PAUSE_NS);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.measured_messages - before.measured_messages, counts.measured);
    assert_int_equal(now.message_wait_ns - before.message_wait_ns, counts.waited_ns);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    address = start(world, &a, "a", &simple_ops); /* whoever has the slot next begins anew */
    assert_int_equal(counts_of(world, address).measured + counts_of(world, address).waited_ns, 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static unsigned own_posts;
static tram_address own_address;

static int post_to_itself(tram_actor *actor, tram_message *message) {
    (void)message;
    return --own_posts ? post(own_address, 0) : tram_actor_stop(actor, 0);
}

static void test_N_10_what_a_loop_posts_to_itself_is_measured_too(void **state) {
    static const tram_actor_ops posting_ops = {.message_received = post_to_itself};
    struct world *world = *state;
    struct tested a;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    own_posts = 200;
    own_address = start(world, &a, "a", &posting_ops);
    assert_int_equal(post(own_address, 0), 0);
    run_to_rest(world);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.messages - before.messages, 200);
    assert_in_range(now.measured_messages - before.measured_messages, 3, 5); /* the first one is another thread's */
}

static int answer_at_once(tram_actor *actor, tram_message *message) {
    (void)actor;
    tram_reply(tram_message_take_request(message), NULL);
    return 0;
}

static void test_N_8_N_10_requests_count_for_their_address(void **state) {
    static const tram_actor_ops answering_ops = {.message_received = answer_at_once};
    struct world *world = *state;
    struct tested a, deaf;
    static const tram_actor_ops deaf_ops = {.stopped = stopped};
    tram_address address = start(world, &a, "a", &answering_ops), to_deaf = start(world, &deaf, "d", &deaf_ops);
    tram_message message = {0};
    tram_future *futures[200];
    for (int i = 0; i < 200; i++)
        assert_int_equal(tram_ask(world->loop, i ? address : to_deaf, &message, TRAM_FOREVER, &futures[i]), 0);
    pause_for(world, PAUSE_NS);
    run_to_rest(world);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(tram_future_result(futures[i], NULL), i ? 0 : -ESRCH);
        tram_future_release(futures[i]);
    }
    tram_message_counts counts = counts_of(world, address);
    assert_int_equal(counts.delivered, 199);
    assert_int_equal(counts.dropped, 0);
    assert_int_equal(counts_of(world, to_deaf).dropped, 1);
    assert_int_equal(counts_of(world, to_deaf).delivered, 0);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(tram_ask(world->loop, address, &message, TRAM_FOREVER, &futures[i]), 0);
        pause_for(world, 1000);
        run_to_rest(world);
        tram_future_release(futures[i]);
    }
    counts = counts_of(world, address);
    assert_int_equal(counts.delivered, 399);
    assert_in_range(counts.measured, 1, 399);
    assert_true(counts.longest_wait_ns >= 1000);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    assert_int_equal(tram_actor_stop(&deaf.actor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

/* ---- Links and monitors at the same time ---- */

/* Two actors, and from the first to the second one tie, then the other. */
static tram_address start_tied(struct world *world, struct tested *a, const tram_actor_ops *ops, struct tested *b,
                               int (*one)(tram_actor *, tram_address), int (*other)(tram_actor *, tram_address)) {
    start(world, a, "a", ops);
    tram_address to_b = start(world, b, "b", &simple_ops);
    assert_int_equal(one(&a->actor, to_b), 0);
    assert_int_equal(other(&a->actor, to_b), 0);
    run_ticks(world, 3);
    return to_b;
}

static void test_N_12_a_monitor_that_ends_leaves_the_link(void **state) {
    struct world *world = *state;
    struct tested a, b;
    tram_address to_b = start_tied(world, &a, &simple_ops, &b, tram_actor_link, tram_actor_monitor);
    assert_int_equal(tram_actor_demonitor(&a.actor, to_b), 0);
    run_ticks(world, 3);
    assert_int_equal(tram_actor_stop(&b.actor, -EIO), 0);
    run_ticks(world, 4);
    assert_true(b.stopped && a.stopped);
    assert_int_equal(a.reason, -EIO);
}

static void test_N_12_a_monitor_beside_a_link_leaves_it(void **state) {
    struct world *world = *state;
    struct tested a, b;
    tram_address to_b = start_tied(world, &a, &simple_ops, &b, tram_actor_link, tram_actor_monitor);
    (void)to_b;
    tram_actor_stop(&b.actor, -EIO);
    run_to_rest(world);
    assert_true(a.stopped); /* as one that is linked and has no actor_ended does */
    assert_int_equal(a.reason, -EIO);
    world->trace[0] = '\0';
}

static unsigned ends_heard;

static int hears_and_fails(tram_actor *actor, tram_address who, int reason) {
    (void)actor, (void)who, (void)reason;
    ends_heard++;
    return -EIO;
}

/* Who has been stopped by what it heard by its link does not hear it by its monitor. */
static void test_N_12_who_fails_as_it_hears_of_an_end_hears_no_more(void **state) {
    static const tram_actor_ops ops = {.actor_ended = hears_and_fails, .stopped = stopped};
    struct world *world = *state;
    struct tested a, b;
    start_tied(world, &a, &ops, &b, tram_actor_link, tram_actor_monitor);
    ends_heard = 0;
    assert_int_equal(tram_actor_stop(&b.actor, -EPROTO), 0);
    run_to_rest(world);
    assert_true(a.stopped);
    assert_int_equal(a.reason, -EIO);
    assert_int_equal(ends_heard, 1);
    assert_int_equal(world->exceptions, 1);
    world->exceptions = 0;
    world->trace[0] = '\0';
}

static void test_N_12_links_that_ended_take_no_memory(void **state) {
    struct world *world = *state;
    struct tested a, b;
    start(world, &a, "a", &whole_ops);
    tram_address to_b = start(world, &b, "b", &whole_ops);
    size_t before = 0;
    for (unsigned round = 0; round < 500; round++) {
        assert_int_equal(tram_actor_link(&a.actor, to_b), 0);
        assert_int_equal(tram_actor_monitor(&a.actor, to_b), 0);
        run_ticks(world, 3);
        assert_int_equal(tram_actor_unlink(&a.actor, to_b), 0);
        assert_int_equal(tram_actor_demonitor(&a.actor, to_b), 0);
        run_ticks(world, 3);
        if (round == 5)
            before = world->live_bytes;
    }
    assert_int_equal(world->live_bytes, before);
    tram_actor_stop(&a.actor, 0);
    tram_actor_stop(&b.actor, 0);
    run_to_rest(world);
    assert_true(a.stopped && b.stopped);
    world->trace[0] = '\0';
}

static void test_N_12_a_link_that_ends_leaves_the_monitor(void **state) {
    struct world *world = *state;
    struct tested a, b;
    tram_address to_b = start_tied(world, &a, &whole_ops, &b, tram_actor_monitor, tram_actor_link);
    assert_int_equal(tram_actor_unlink(&a.actor, to_b), 0);
    run_ticks(world, 3);
    world->trace[0] = '\0';
    assert_int_equal(tram_actor_stop(&b.actor, -EIO), 0);
    run_ticks(world, 4);
    assert_true(b.stopped && !a.stopped);
    const char *heard = strstr(world->trace, "a.ended:EIO");
    assert_non_null(heard);
    assert_null(strstr(heard + 1, "a.ended")); /* once */
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_ticks(world, 2);
}

/* ---- What is refused ---- */

static void test_N_11_every_call_on_an_actor_that_has_ended_is_refused(void **state) {
    struct world *world = *state;
    struct tested a, b;
    start(world, &a, "a", &simple_ops);
    tram_address to_b = start(world, &b, "b", &whole_ops);
    run_to_rest(world);
    world->trace[0] = '\0';
    assert_int_equal(tram_actor_demonitor(&a.actor, to_b), 0); /* whom it never monitored */
    assert_int_equal(tram_actor_unlink(&a.actor, to_b), 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    assert_non_null(a.actor.loop);
    assert_true(all_answer(calls_of_tram_actor, &a.actor, TRAM_ESTATE, ""));
    run_to_rest(world);
    assert_trace(world, "a.stopped:0");
    assert_null(a.actor.loop);
    assert_true(all_answer(calls_of_tram_actor, &a.actor, TRAM_ESTATE, ""));
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(!all_answer(calls_of_tram_actor, &b.actor, -ECHILD, ""));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(tram_actor_stop(&b.actor, 0), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void *call_from_elsewhere(void *arg) {
    return all_answer(calls_of_tram_actor, arg, TRAM_ESTATE, "") ? arg : NULL;
}

static int let_a_stranger_call(tram_loop *loop, void *arg) {
    (void)loop;
    assert_ptr_equal(on_another_thread(call_from_elsewhere, arg), arg);
    return 0;
}

static void test_L_10_L_31_debug_mode_catches_every_call_on_an_actor_of_another_thread(void **state) {
    struct world *world = *state;
    struct tested a;
    start(world, &a, "a", &simple_ops);
    assert_int_equal(tram_loop_call_soon(world->loop, let_a_stranger_call, &a.actor, NULL, NULL), 0);
    run_to_rest(world);
    assert_int_equal(world->exceptions, 8);
    assert_int_equal(world->exception_code, TRAM_ESTATE);
    assert_false(a.stopped);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
}

/* More than there are lists for them: names meet in some. */
static void test_N_13_many_names_are_each_found_and_dropped(void **state) {
    struct world *world = *state;
    enum { NAMES = 600 };
    const tram_runtime_options options = {.workers = 1};
    tram_runtime *runtime;
    struct tested actors[2];
    tram_address addresses[2], found;
    char name[32];
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    for (int i = 0; i < 2; i++)
        addresses[i] = start(world, &actors[i], "x", &simple_ops);
    for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "name %d", i);
        assert_int_equal(tram_actor_register(&actors[i % 2].actor, runtime, name), 0);
    }
    for (int ended = 0; ended <= 2; ended++) {
        for (int i = 0; i < NAMES; i++) {
            snprintf(name, sizeof name, "name %d", i);
            int status = tram_runtime_lookup(runtime, name, &found);
            assert_int_equal(status, i % 2 < ended ? -ENOENT : 0);
            if (!status)
                assert_true(tram_address_equal(found, addresses[i % 2]));
        }
        if (ended < 2)
            assert_int_equal(tram_actor_stop(&actors[ended].actor, 0), 0);
    }
    run_to_rest(world);
    tram_runtime_free(runtime);
}

static int post_to_all(tram_loop *loop, void *arg) {
    (void)loop;
    const tram_address *addresses = arg;
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(post(addresses[i], i), 0);
    return 0;
}

/* A loop that posts to others keeps how to reach each, of any number of them. */
static void test_N_2_a_loop_posts_to_many_others(void **state) {
    struct world *world = *state;
    struct tested actors[20];
    tram_address addresses[20];
    tram_loop *loops[20];
    for (int i = 0; i < 20; i++) {
        actors[i] = (struct tested){.actor.ops = &simple_ops, .world = world, .name = "x"};
        assert_int_equal(tram_loop_new(NULL, &loops[i]), 0);
        assert_int_equal(tram_loop_start_actor(loops[i], &actors[i].actor), 0);
        assert_int_equal(tram_actor_address(&actors[i].actor, &addresses[i]), 0);
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(tram_loop_call_soon(world->loop, post_to_all, addresses, NULL, NULL), 0);
        run_ticks(world, 1);
        for (int i = 0; i < 20; i++) {
            char expected[32];
            snprintf(expected, sizeof expected, "x.message:%d", i);
            assert_int_equal(tram_loop_dispatch(loops[i]), 0);
            assert_trace(world, expected);
        }
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(tram_loop_free(loops[i]), 0);
    world->trace[0] = '\0';
}

/* Of more loops than there are numbers, the last ones have no addresses, and have them once others end. */
static void test_N_1_loops_without_a_number_have_no_address(void **state) {
    struct world *world = *state;
    static struct addressees *taken[TRAM_LOOPS_MAX + 1];
    struct tested a = {.actor.ops = &simple_ops, .world = world, .name = "a"};
    size_t count = 0;
    int status = 0;
    while (!status) {
        assert_true(count <= TRAM_LOOPS_MAX);
        assert_non_null(taken[count] = tram__addressees_new(world->loop->mailbox));
        status = tram__directory_add(taken[count]);
        count++;
    }
    assert_int_equal(status, TRAM_ELIMIT);
    tram__addressees_release(taken[--count]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_start_actor(world->loop, &a.actor), TRAM_ELIMIT);
    while (count-- > 0) {
        tram__directory_remove(taken[count]);
        tram__addressees_release(taken[count]);
    }
    assert_int_equal(tram_loop_start_actor(world->loop, &a.actor), 0);
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_true(a.stopped);
}

/* ---- Without memory ---- */

static void use_actors(struct world *world) {
    struct tested actors[3];
    tram_address addresses[3];
    bool begun[3];
    for (int i = 0; i < 3; i++) {
        actors[i] = (struct tested){.actor.ops = i ? &whole_ops : &simple_ops, .world = world, .name = "x"};
        begun[i] = had_memory(tram_loop_start_actor(world->loop, &actors[i].actor));
        if (begun[i])
            assert_int_equal(tram_actor_address(&actors[i].actor, &addresses[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        int other = (i + 1) % 3;
        if (!begun[i] || !begun[other])
            continue;
        (void)had_memory(tram_actor_set_timer(&actors[i].actor, 1));
        if (had_memory(tram_actor_monitor(&actors[i].actor, addresses[other])) && i == 0)
            (void)had_memory(tram_actor_demonitor(&actors[i].actor, addresses[other]));
        (void)had_memory(tram_actor_link(&actors[i].actor, addresses[other]));
        (void)had_memory(post(addresses[other], 1));
    }
    run_ticks(world, 3);
    for (int i = 0; i < 3; i++)
        if (begun[i] && actors[i].actor.loop)
            assert_int_equal(tram_actor_stop(&actors[i].actor, i == 1 ? -EIO : 0), 0);
    run_ticks(world, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(actors[i].stopped, begun[i]);
}

static int work_of_none(tram_loop *loop, void *arg, void **ret_value) {
    (void)loop, (void)arg, (void)ret_value;
    return 0;
}

/* Names, and work for all of a runtime that does not run. */
static void use_a_runtime(struct world *world) {
    const tram_runtime_options options = {.workers = 2, .loop = world->options};
    struct tested named = {.actor.ops = &simple_ops, .world = world, .name = "x"};
    tram_runtime *runtime;
    tram_future *future;
    tram_address found;
    if (!had_memory(tram_runtime_new(&options, &runtime)))
        return;
    if (had_memory(tram_loop_start_actor(world->loop, &named.actor))) {
        for (int i = 0; i < 2; i++)
            if (had_memory(tram_actor_register(&named.actor, runtime, i ? "b" : "a")))
                assert_int_equal(tram_runtime_lookup(runtime, i ? "b" : "a", &found), 0);
        assert_int_equal(tram_runtime_lookup(runtime, "c", &found), -ENOENT);
        assert_int_equal(tram_actor_stop(&named.actor, 0), 0);
        assert_int_equal(tram_runtime_lookup(runtime, "a", &found), -ENOENT);
    }
    if (had_memory(tram_runtime_each(runtime, world->loop, work_of_none, NULL, NULL, &future)))
        tram_future_release(future);
    tram_runtime_free(runtime);
    run_ticks(world, 4);
    world->trace[0] = '\0';
}

/* Which touches nothing that it has freed before: a sanitizer looks. */
static void test_N_11_L_41_a_forked_child_frees_a_loop_with_actors(void **state) {
    struct world *world = *state;
    struct tested a;
    int status;
    start(world, &a, "a", &whole_ops);
    pid_t child = fork();
    if (child == 0)
        _exit(tram_loop_free(world->loop) == 0 && !a.stopped ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    run_to_rest(world);
    assert_trace(world, "a.started");
    assert_int_equal(tram_actor_stop(&a.actor, 0), 0);
    run_to_rest(world);
    assert_true(a.stopped);
}

static void test_X_1_runtimes_that_do_not_run_without_memory(void **state) {
    for (int once = 0; once < 2; once++) {
        run_out_of_other_memory(*state, once, use_a_runtime);
        run_out_of_memory(*state, once, use_a_runtime);
    }
}

static void test_X_1_actors_without_memory(void **state) {
    run_out_of_other_memory(*state, false, use_actors);
    run_out_of_other_memory(*state, true, use_actors);
    run_out_of_memory(*state, false, use_actors);
    run_out_of_memory(*state, true, use_actors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_N_11_an_actor_starts_hears_and_stops),
        CASE(test_N_11_a_callback_that_fails_stops_the_actor),
        CASE(test_N_11_a_timer_comes_once_and_the_last_one_counts),
        CASE(test_N_12_a_monitor_hears_of_the_end_once),
        CASE(test_N_12_an_end_goes_along_links),
        CASE(test_N_12_a_loop_that_closes_ends_its_actors_and_tells_the_others),
        CASE(test_N_11_N_12_nothing_is_lost_without_memory),
        CASE(test_N_12_who_fails_as_it_hears_of_an_end_hears_no_more),
        CASE(test_N_12_a_monitor_that_ends_leaves_the_link),
        CASE(test_N_11_who_was_stopped_meanwhile_does_not_hear_it),
        CASE(test_N_11_who_starts_while_the_runtime_ends_hears_it_after_started),
        CASE(test_N_11_who_has_no_message_received_drops_what_comes),
        CASE(test_N_10_the_time_in_the_queue_of_one_message_in_64_is_measured),
        CASE(test_N_10_what_a_loop_posts_to_itself_is_measured_too),
        CASE(test_N_8_N_10_requests_count_for_their_address),
        CASE(test_N_12_a_monitor_beside_a_link_leaves_it),
        CASE(test_N_12_links_that_ended_take_no_memory),
        CASE(test_N_12_a_link_that_ends_leaves_the_monitor),
        CASE(test_N_11_every_call_on_an_actor_that_has_ended_is_refused),
        cmocka_unit_test_setup_teardown(test_L_10_L_31_debug_mode_catches_every_call_on_an_actor_of_another_thread,
                                        world_setup_debug, world_teardown),
        CASE(test_N_13_many_names_are_each_found_and_dropped),
        CASE(test_N_2_a_loop_posts_to_many_others),
        CASE(test_N_1_loops_without_a_number_have_no_address),
        CASE(test_X_1_actors_without_memory),
        CASE(test_X_1_runtimes_that_do_not_run_without_memory),
        CASE(test_N_13_actors_are_found_by_name_from_any_thread),
        CASE(test_N_13_names_before_a_runtime_starts_and_after_its_end),
        CASE(test_N_11_actors_hear_that_the_runtime_ends),
        CASE(test_N_11_L_41_a_forked_child_frees_a_loop_with_actors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
