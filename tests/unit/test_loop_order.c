/*
 * The order of a loop against a model of asyncio's one queue: random call_soon, call_soon_threadsafe (from callbacks,
 * from between the ticks and from other threads), timers, descriptors and cancels, on a clock of the test's own. What
 * the loop calls is what the model has next, always. At most 256 posts wait: what is more is a listed difference
 * (L-11).
 *
 * TRAM_TEST_STEPS: how many steps; TRAM_TEST_SEED: the seed.
 */
#include <errno.h>
#include <unistd.h>

#include "core/backend/backend.h"
#include "core/loop/loop.h"
#include "support/support.h"

#define QUEUE   4096 /* callbacks that wait at a time, at most; a power of two */
#define POSTS   200  /* of these, posts in one tick */
#define FILES   8
#define TIMERS  64
#define HANDLES 64

/* ---- Chance ---- */

static uint64_t seed;

static uint32_t chance(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 20) % below);
}

/* ---- The clock ---- */

static uint64_t clock_ns;

static int own_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time = (struct timespec){.tv_sec = (time_t)(clock_ns / 1000000000), .tv_nsec = (long)(clock_ns % 1000000000)};
    return 0;
}

/* ---- The model ---- */

struct queue {
    uint32_t ids[QUEUE];
    uint32_t first, end;
};

struct model_timer {
    uint64_t when, sequence;
    uint32_t id; /* 0: none */
    bool due;
    tram_handle handle;
};

struct file {
    int pair[2];
    bool registered;
    bool readable; /* has a byte */
    bool collected;
};

static struct {
    tram_loop *loop;
    struct queue ready; /* what asyncio has in its one queue */
    struct queue late;  /* posts of other threads within a tick: they come behind what this tick's callbacks queue */
    uint32_t left;      /* of `ready`: how many this tick still runs */
    unsigned posts;     /* that wait */
    struct file files[FILES];
    struct model_timer timers[TIMERS];
    uint64_t timer_sequence;
    struct {
        tram_handle handle;
        uint32_t id;
    } handles[HANDLES]; /* of call_soon, some of them */
    uint32_t next_id;
    uint64_t steps, limit;
    uint64_t called, timed, reads;
    bool in_tick;
} model;

static void put(struct queue *queue, uint32_t id) {
    queue->ids[queue->end++ % QUEUE] = id;
    assert_true(queue->end - queue->first <= QUEUE);
}

static uint32_t waiting(const struct queue *queue) {
    return queue->end - queue->first;
}

/* What other threads posted within the tick has its place before what comes now. */
static void settle(void) {
    while (waiting(&model.late))
        put(&model.ready, model.late.ids[model.late.first++ % QUEUE]);
}

/* Cancelled entries stay in the queue as 0. */
static void skip_cancelled(void) {
    while (model.left && !model.ready.ids[model.ready.first % QUEUE]) {
        model.ready.first++;
        model.left--;
    }
}

static bool files_left(void) {
    for (int i = 0; i < FILES; i++)
        if (model.files[i].collected)
            return true;
    return false;
}

static struct model_timer *next_due(void) {
    struct model_timer *best = NULL;
    for (int i = 0; i < TIMERS; i++) {
        struct model_timer *timer = &model.timers[i];
        if (timer->id && timer->due &&
            (!best || timer->when < best->when || (timer->when == best->when && timer->sequence < best->sequence)))
            best = timer;
    }
    return best;
}

static void model_begin_tick(void) {
    settle();
    model.left = waiting(&model.ready);
    model.posts = 0;
    model.in_tick = true;
    for (int i = 0; i < FILES; i++)
        model.files[i].collected = model.files[i].registered && model.files[i].readable;
    for (int i = 0; i < TIMERS; i++)
        model.timers[i].due = model.timers[i].id && model.timers[i].when <= clock_ns;
}

static void model_end_tick(void) {
    skip_cancelled();
    assert_int_equal(model.left, 0);
    assert_false(files_left());
    assert_null(next_due());
    model.in_tick = false;
}

/* ---- What the loop calls ---- */

static void some_steps(unsigned count);

static int called(tram_loop *loop, void *arg) {
    (void)loop;
    skip_cancelled();
    assert_true(model.left > 0);
    assert_int_equal((uintptr_t)arg, model.ready.ids[model.ready.first % QUEUE]);
    model.ready.first++;
    model.left--;
    model.called++;
    some_steps(chance(4));
    return 0;
}

static int expired(tram_loop *loop, void *arg) {
    (void)loop;
    skip_cancelled();
    assert_int_equal(model.left, 0);
    assert_false(files_left());
    struct model_timer *timer = next_due();
    assert_non_null(timer);
    assert_int_equal((uintptr_t)arg, timer->id);
    timer->id = 0;
    model.timed++;
    some_steps(chance(4));
    return 0;
}

static int readable(tram_loop *loop, void *arg) {
    (void)loop;
    struct file *file = arg;
    skip_cancelled();
    assert_int_equal(model.left, 0);
    assert_true(file->collected);
    file->collected = file->readable = false;
    char byte;
    assert_int_equal(read(file->pair[0], &byte, 1), 1);
    model.reads++;
    some_steps(chance(4));
    return 0;
}

/* ---- Steps ---- */

static bool room(void) {
    return waiting(&model.ready) + waiting(&model.late) < QUEUE / 2;
}

static uint32_t new_id(void) {
    if (!++model.next_id)
        ++model.next_id;
    return model.next_id;
}

static void step_call_soon(void) {
    uint32_t id = new_id(), place = chance(HANDLES);
    if (!model.in_tick)
        settle();
    put(&model.ready, id);
    model.handles[place].id = id;
    assert_int_equal(tram_loop_call_soon(model.loop, called, (void *)(uintptr_t)id, NULL, &model.handles[place].handle),
                     0);
}

/* As a callback does it, or, between two ticks, whoever drives the loop. */
static void step_post(void) {
    uint32_t id = new_id();
    if (model.in_tick)
        put(&model.ready, id);
    else if (model.posts++ < POSTS)
        put(&model.late, id);
    else
        return;
    int (*post)(tram_loop *, tram_callback, void *, tram_discard) =
        chance(4) ? tram_loop_call_soon_threadsafe : tram_loop_try_call_soon_threadsafe;
    assert_int_equal(post(model.loop, called, (void *)(uintptr_t)id, NULL), 0);
}

/* As another thread does it: one that runs no loop. */
static void step_foreign_post(void) {
    if (model.posts++ >= POSTS)
        return;
    uint32_t id = new_id();
    put(&model.late, id);
    struct mailbox *entered = tram__mailbox_entered;
    tram__mailbox_enter(NULL);
    assert_int_equal(tram_loop_call_soon_threadsafe(model.loop, called, (void *)(uintptr_t)id, NULL), 0);
    tram__mailbox_enter(entered);
}

static void step_timer(void) {
    struct model_timer *timer = &model.timers[chance(TIMERS)];
    if (timer->id)
        return;
    *timer = (struct model_timer){.when = clock_ns + chance(50), .sequence = model.timer_sequence++, .id = new_id()};
    assert_int_equal(
        tram_loop_call_at(model.loop, timer->when, expired, (void *)(uintptr_t)timer->id, NULL, &timer->handle), 0);
}

static void step_cancel_timer(void) {
    struct model_timer *timer = &model.timers[chance(TIMERS)];
    assert_int_equal(tram_handle_cancel(model.loop, timer->handle), timer->id != 0);
    timer->id = 0;
}

static void step_cancel_call(void) {
    uint32_t place = chance(HANDLES), id = model.handles[place].id;
    bool found = false;
    for (uint32_t i = model.ready.first; id && !found && i != model.ready.end; i++) {
        if (model.ready.ids[i % QUEUE] != id)
            continue;
        model.ready.ids[i % QUEUE] = 0;
        found = true;
    }
    assert_int_equal(tram_handle_cancel(model.loop, model.handles[place].handle), found);
}

static void step_write(void) {
    struct file *file = &model.files[chance(FILES)];
    if (file->readable)
        return;
    file->readable = true;
    assert_int_equal(write(file->pair[1], "x", 1), 1);
}

static void step_register(void) {
    struct file *file = &model.files[chance(FILES)];
    if (file->registered)
        assert_int_equal(tram_loop_remove_reader(model.loop, file->pair[0]), 1);
    else
        assert_int_equal(tram_loop_add_reader(model.loop, file->pair[0], readable, file), 0);
    file->registered = !file->registered;
    file->collected = false;
}

static void one_step(void) {
    model.steps++;
    switch (chance(16)) {
    case 0 ... 3:
        if (room())
            step_call_soon();
        break;
    case 4 ... 6:
        if (room())
            step_post();
        break;
    case 7:
    case 8:
        if (room())
            step_foreign_post();
        break;
    case 9:
    case 10:
        step_timer();
        break;
    case 11:
        step_cancel_timer();
        break;
    case 12:
        step_cancel_call();
        break;
    case 13:
    case 14:
        step_write();
        break;
    default:
        step_register();
        break;
    }
}

static void some_steps(unsigned count) {
    while (count--)
        one_step();
}

/* ---- Driving ---- */

static void tick(void) {
    clock_ns += chance(20);
    if (chance(2)) {
        model_begin_tick();
        assert_int_equal(tram_loop_dispatch(model.loop), 0);
    } else {
        assert_int_equal(tram_loop_stop(model.loop), 0);
        model_begin_tick();
        assert_int_equal(tram_loop_run_forever(model.loop), 0);
    }
    model_end_tick();
}

static uint64_t number_of(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* rules: L-2, L-3, L-4, L-5, L-11, L-14, L-16, L-19 */
static void test_L_11_random_steps_agree_with_one_queue(void **state) {
    struct world *world = *state;
    static struct sys sys;
    sys = tram__sys;
    sys.clock_gettime = own_clock;
    clock_ns = 1000;
    world_use_sys(world, &sys);
    memset(&model, 0, sizeof model);
    model.loop = world->loop;
    model.limit = number_of("TRAM_TEST_STEPS", getenv("TRAM_TEST_FULL") ? 10000000 : 200000);
    seed = number_of("TRAM_TEST_SEED", 42) | 1;
    for (int i = 0; i < FILES; i++)
        unix_pair(model.files[i].pair);
    while (model.steps < model.limit) {
        some_steps(chance(6));
        tick();
    }
    print_message("%llu steps: %llu calls, %llu timers, %llu reads\n", (unsigned long long)model.steps,
                  (unsigned long long)model.called, (unsigned long long)model.timed, (unsigned long long)model.reads);
    assert_true(model.called > model.limit / 10 && model.timed > model.limit / 100 && model.reads > model.limit / 100);
    for (int i = 0; i < FILES; i++) {
        if (model.files[i].registered)
            tram_loop_remove_reader(model.loop, model.files[i].pair[0]);
        close(model.files[i].pair[0]);
        close(model.files[i].pair[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_L_11_random_steps_agree_with_one_queue, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("loop order", tests, NULL, NULL);
}
