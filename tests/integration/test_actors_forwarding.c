/* Addresses of connections that move from loop to loop: order, requests, bounds, ends, and loops that close. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/actors/forwarding.h"
#include "support/memory.h"
#include "support/stream.h"
#include "support/support.h"

enum { LOOPS = 3, HOME = 0 };

/* ---- A connection that moves, and loops that one thread runs in turn ---- */

struct mover {
    tram_protocol base;
    struct scene *scene;
    unsigned loop;
    bool (*on)(struct mover *mover, tram_message *message); /* NULL, or instead of noting; false: note */
    tram_request *request;
    bool made, lost, released;
};

struct scene {
    struct world *world;
    tram_loop *loops[LOOPS]; /* NULL: freed, or not opened */
    struct mover movers[8];  /* one after the other */
    unsigned count;
    struct mover *now;
    tram_detached *detached;
    tram_address address;
    int peer;
};

/* Whatever the home knows of it by now, the address is the same. */
static int mover_made(tram_protocol *protocol, tram_transport *transport) {
    struct mover *mover = (struct mover *)protocol;
    const struct scene *scene = mover->scene;
    tram_address address;
    mover->made = true;
    if (scene->address.loop && scene->loops[HOME] && scene->now == mover) {
        assert_int_equal(tram_transport_address(transport, &address), 0);
        assert_true(tram_address_equal(address, scene->address));
    }
    return 0;
}

static int mover_received(tram_protocol *protocol, tram_message *message) {
    struct mover *mover = (struct mover *)protocol;
    assert_true(mover->made && !mover->lost);
    if (!mover->on || !mover->on(mover, message))
        trace(mover->scene->world, "%u:%u", mover->loop, message->tag);
    return 0;
}

static int mover_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    ((struct mover *)protocol)->lost = true;
    return 0;
}

static void mover_released(tram_protocol *protocol) {
    ((struct mover *)protocol)->released = true;
}

static const tram_protocol_ops mover_ops = {.connection_made = mover_made,
                                            .message_received = mover_received,
                                            .connection_lost = mover_lost,
                                            .released = mover_released};

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static struct mover *next_mover(struct scene *scene, unsigned loop) {
    struct mover *mover = &scene->movers[scene->count++];
    assert_true(scene->count <= sizeof scene->movers / sizeof scene->movers[0]);
    *mover = (struct mover){.base.ops = &mover_ops, .scene = scene, .loop = loop};
    return mover;
}

static void turn(struct scene *scene, unsigned loop) {
    if (scene->loops[loop])
        assert_true(tram_loop_dispatch(scene->loops[loop]) >= 0);
}

/* Until nothing is on its way between them any more. */
static void settle(struct scene *scene) {
    for (unsigned i = 0; i < 12; i++)
        for (unsigned loop = 0; loop < LOOPS; loop++)
            turn(scene, loop);
}

static void scene_open(struct scene *scene, struct world *world) {
    int fds[2];
    *scene = (struct scene){.world = world, .loops[0] = world->loop};
    for (unsigned i = 1; i < LOOPS; i++)
        assert_int_equal(tram_loop_new(NULL, &scene->loops[i]), 0);
    tcp_pair(fds);
    scene->peer = fds[1];
    scene->now = next_mover(scene, HOME);
    assert_int_equal(tram_loop_adopt(world->loop, factory, scene->now, fds[0], NULL, 0, NULL), 0);
    settle(scene);
    assert_int_equal(tram_transport_address(scene->now->base.transport, &scene->address), 0);
}

static void leave(struct scene *scene) {
    assert_int_equal(tram_transport_detach(scene->now->base.transport, &scene->detached), 0);
}

static void arrive(struct scene *scene, unsigned loop) {
    scene->now = next_mover(scene, loop);
    assert_int_equal(tram_loop_adopt_detached(scene->loops[loop], factory, scene->now, scene->detached, NULL), 0);
    tram_detached_free(scene->detached);
    scene->detached = NULL;
}

static void move(struct scene *scene, unsigned loop) {
    leave(scene);
    arrive(scene, loop);
}

/* A scene whose connection has moved there, with its address. */
static void scene_open_at(struct scene *scene, struct world *world, unsigned loop) {
    scene_open(scene, world);
    move(scene, loop);
    settle(scene);
}

static void assert_same_address(struct scene *scene) {
    tram_address address;
    assert_int_equal(tram_transport_address(scene->now->base.transport, &address), 0);
    assert_true(tram_address_equal(address, scene->address));
}

static void free_loop(struct scene *scene, unsigned loop) {
    if (loop == HOME)
        world_reopen(scene->world); /* another one, which the scene does not know */
    else
        assert_int_equal(tram_loop_free(scene->loops[loop]), 0);
    scene->loops[loop] = NULL;
}

static void scene_close(struct scene *scene) {
    tram_detached_free(scene->detached);
    if (scene->now->base.transport)
        tram_transport_abort(scene->now->base.transport);
    settle(scene);
    for (unsigned i = 1; i < LOOPS; i++)
        assert_int_equal(tram_loop_free(scene->loops[i]), 0);
    run_to_rest(scene->world);
    for (unsigned i = 0; i < scene->count; i++)
        assert_true(scene->movers[i].released);
    scene->world->trace[0] = '\0';
    close(scene->peer);
}

/* ---- Messages ---- */

static _Atomic int destroyed, dropped;

static void count_destroyed(tram_message *message) {
    (void)message;
    destroyed++;
}

static void count_dropped(tram_message *message) {
    (void)message;
    dropped++;
}

static const tram_message_type counted = {.name = "counted", .destroy = count_destroyed, .dropped = count_dropped};

static int setup(void **state) {
    destroyed = dropped = 0;
    return world_setup(state);
}

static void post(struct scene *scene, uint32_t tag) {
    tram_message message = {.type = &counted, .tag = tag};
    assert_int_equal(tram_post(scene->address, &message), 0);
}

static tram_future *ask_from(struct scene *scene, unsigned loop, uint32_t tag) {
    tram_message message = {.type = &counted, .tag = tag};
    tram_future *future;
    assert_int_equal(tram_ask(scene->loops[loop], scene->address, &message, TRAM_FOREVER, &future), 0);
    return future;
}

static void assert_answer(tram_future *future, int status) {
    assert_true(tram_future_done(future));
    assert_int_equal(tram_future_result(future, NULL), status);
    tram_future_release(future);
}

static tram_message_counts counts(struct scene *scene) {
    tram_message_counts counts;
    assert_int_equal(tram_address_message_counts(scene->loops[HOME], scene->address, &counts), 0);
    return counts;
}

/* How many slots of a loop have a target. */
static unsigned slots_in_use(struct scene *scene, unsigned loop) {
    const struct addressees *here = actors_present(scene->loops[loop])->here;
    unsigned count = 0;
    for (uint32_t slot = 1; here && addressee_exists(here, slot); slot++)
        count += addressee_at(here, slot)->deliver != NULL;
    return count;
}

static bool forwards(struct scene *scene) {
    const struct addressees *here = actors_present(scene->loops[HOME])->here;
    const struct addressee *addressee = addressee_of(here, scene->address.slot, scene->address.generation);
    assert_non_null(addressee);
    return tram__address_moved(addressee);
}

/* ---- Moving ---- */

static void test_N_17_an_address_goes_along_on_its_own_loop(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    post(&scene, 1);
    leave(&scene);
    post(&scene, 2);
    settle(&scene);
    assert_trace(scene.world, "");
    assert_true(forwards(&scene));
    post(&scene, 3);
    arrive(&scene, HOME);
    post(&scene, 4);
    settle(&scene);
    assert_trace(scene.world, "0:1 0:2 0:3 0:4");
    assert_false(forwards(&scene));
    assert_same_address(&scene);
    post(&scene, 5);
    turn(&scene, HOME);
    assert_trace(scene.world, "0:5");
    assert_int_equal(counts(&scene).delivered, 5);
    assert_int_equal(destroyed, 5);
    scene_close(&scene);
    assert_int_equal(dropped, 0);
}

static void test_N_17_an_address_goes_along_to_another_loop(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    post(&scene, 1);
    leave(&scene);
    post(&scene, 2);
    settle(&scene);
    assert_int_equal(counts(&scene).queued, 2);
    assert_int_equal(counts(&scene).delivered, 0);
    post(&scene, 3);
    arrive(&scene, 1);
    post(&scene, 4);
    settle(&scene);
    post(&scene, 5);
    settle(&scene);
    assert_same_address(&scene);
    assert_trace(scene.world, "1:1 1:2 1:3 1:4 1:5");
    assert_int_equal(counts(&scene).queued, 0);
    assert_int_equal(counts(&scene).delivered, 5);
    assert_int_equal(tram_address_message_counts(scene.loops[1], scene.address, &(tram_message_counts){0}), -ESRCH);
    tram_stats stats;
    tram_loop_stats(scene.loops[HOME], &stats);
    assert_int_equal(stats.messages, 0);
    tram_loop_stats(scene.loops[1], &stats);
    assert_int_equal(stats.messages, 5);
    assert_int_equal(destroyed, 5);
    scene_close(&scene);
    assert_int_equal(dropped, 0);
}

static void test_N_17_an_address_goes_along_to_further_loops_and_home(void **state) {
    static const unsigned ways[][4] = {{1, 2, 0, 1}, {1, 1, 2, 0}, {2, 0, 0, 2}, {0, 1, 0, 0}};
    struct world *world = *state;
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        struct scene scene;
        char expected[64] = "";
        scene_open(&scene, world);
        for (unsigned i = 0; i < 4; i++) {
            move(&scene, ways[way][i]);
            settle(&scene);
            assert_same_address(&scene);
            post(&scene, i);
            settle(&scene);
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%u:%u", i ? " " : "",
                     ways[way][i], i);
        }
        assert_int_equal(forwards(&scene), ways[way][3] != HOME);
        assert_trace(world, expected);
        scene_close(&scene);
    }
}

/* Digits that say which loops turn between the moves: whatever waits for what, messages come in their order. */
static void test_N_17_order_holds_however_late_each_loop_is(void **state) {
    static const unsigned way[] = {1, 2, 0, 1};
    struct world *world = *state;
    for (unsigned pattern = 0; pattern < 625; pattern++) {
        struct scene scene;
        unsigned rest = pattern, sent = 0, seen = 0;
        scene_open(&scene, world);
        for (unsigned i = 0; i < 4; i++, rest /= 5) {
            unsigned turns = rest % 5; /* loops 0 to 2, all, or none */
            post(&scene, sent++);
            leave(&scene);
            post(&scene, sent++);
            if (turns < 3)
                turn(&scene, turns);
            arrive(&scene, way[i]);
            post(&scene, sent++);
            for (unsigned loop = 0; turns == 3 && loop < LOOPS; loop++)
                turn(&scene, (loop + pattern) % LOOPS);
            turn(&scene, way[i]); /* made */
        }
        settle(&scene);
        for (const char *word = world->trace; *word; word += strcspn(word, " "), word += *word == ' ') {
            unsigned loop, tag;
            assert_int_equal(sscanf(word, "%u:%u", &loop, &tag), 2);
            assert_int_equal(tag, seen++);
        }
        assert_int_equal(seen, sent);
        assert_int_equal(counts(&scene).delivered, sent);
        assert_int_equal(counts(&scene).queued, 0);
        scene_close(&scene);
    }
}

static bool leave_at_once(struct mover *mover, tram_message *message) {
    if (message->tag == 2) {
        mover->on = NULL;
        trace(mover->scene->world, "leaves");
        leave(mover->scene);
    }
    return false;
}

/* What was kept is delivered, and the connection leaves in the midst of it. */
static void test_N_17_a_connection_may_leave_again_within_message_received(void **state) {
    struct world *world = *state;
    for (unsigned loop = 0; loop < 2; loop++) {
        struct scene scene;
        scene_open(&scene, world);
        leave(&scene);
        for (uint32_t tag = 1; tag < 5; tag++)
            post(&scene, tag);
        settle(&scene);
        arrive(&scene, loop);
        scene.now->on = leave_at_once;
        settle(&scene);
        assert_trace(world, loop ? "1:1 leaves 1:2" : "0:1 leaves 0:2");
        arrive(&scene, 2);
        settle(&scene);
        assert_trace(world, "2:3 2:4");
        assert_int_equal(counts(&scene).delivered, 4);
        scene_close(&scene);
    }
}

static void test_N_17_who_has_no_address_takes_none_along(void **state) {
    struct world *world = *state;
    struct scene scene;
    int fds[2];
    scene_open(&scene, world);
    struct mover *other = next_mover(&scene, HOME);
    tcp_pair(fds);
    assert_int_equal(tram_loop_adopt(world->loop, factory, other, fds[0], NULL, 0, NULL), 0);
    settle(&scene);
    tram_detached *detached;
    tram_address address;
    assert_int_equal(tram_transport_detach(other->base.transport, &detached), 0);
    struct mover *there = next_mover(&scene, 1);
    assert_int_equal(tram_loop_adopt_detached(scene.loops[1], factory, there, detached, NULL), 0);
    tram_detached_free(detached);
    settle(&scene);
    assert_int_equal(tram_transport_address(there->base.transport, &address), 0);
    assert_true(address.loop != scene.address.loop);
    tram_transport_abort(there->base.transport);
    close(fds[1]);
    scene_close(&scene);
}

/* ---- Requests ---- */

static bool answer(struct mover *mover, tram_message *message) {
    tram_request *request = tram_message_take_request(message);
    tram_message reply = {.words = {mover->loop}};
    if (request)
        tram_reply(request, &reply);
    return false;
}

static void test_N_17_requests_are_answered_to_the_asker_directly(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    move(&scene, 1);
    scene.now->on = answer;
    settle(&scene);
    tram_future *future = ask_from(&scene, 2, 1);
    turn(&scene, 2);
    turn(&scene, HOME);
    /* From here on the home is not needed. */
    turn(&scene, 1);
    turn(&scene, 2);
    assert_trace(scene.world, "1:1");
    assert_int_equal(tram_future_message(future)->words[0], 1);
    assert_answer(future, 0);
    scene.now->on = NULL;
    future = ask_from(&scene, 2, 2);
    settle(&scene);
    assert_answer(future, -ENOTSUP);
    scene_close(&scene);
}

static void test_N_17_requests_wait_for_who_is_under_way(void **state) {
    struct scene scene;
    tram_future *futures[3];
    scene_open(&scene, *state);
    leave(&scene);
    futures[0] = ask_from(&scene, 2, 1);
    turn(&scene, 2);
    post(&scene, 2);
    futures[1] = ask_from(&scene, HOME, 3);
    settle(&scene);
    assert_false(tram_future_done(futures[0]) || tram_future_done(futures[1]));
    assert_int_equal(counts(&scene).queued, 3);
    arrive(&scene, 1);
    scene.now->on = answer;
    futures[2] = ask_from(&scene, 1, 4);
    settle(&scene);
    assert_trace(scene.world, "1:1 1:2 1:3 1:4");
    for (unsigned i = 0; i < 3; i++)
        assert_answer(futures[i], 0);
    scene_close(&scene);
}

/* Many, so that some are sampled; their nodes come to several loops before they are received. */
static void test_N_17_requests_follow_over_several_moves(void **state) {
    enum { MANY = 200 };
    struct scene scene;
    static tram_future *futures[MANY];
    scene_open(&scene, *state);
    for (unsigned i = 0; i < MANY; i++) {
        futures[i] = ask_from(&scene, 2, i);
        if (i == 50)
            move(&scene, 1);
        if (i == 100 || i == 150) {
            turn(&scene, 2);
            turn(&scene, HOME);
            turn(&scene, 1);
            move(&scene, i == 100 ? 2 : HOME);
        }
        scene.now->on = answer;
    }
    for (unsigned i = 0; i < 40; i++)
        settle(&scene);
    for (unsigned i = 0; i < MANY; i++)
        assert_answer(futures[i], 0);
    assert_int_equal(counts(&scene).delivered, MANY);
    /* The time of one that is sent on is measured once, at home. */
    assert_true(counts(&scene).measured > 0);
    for (unsigned loop = 0; loop < LOOPS; loop++) {
        tram_stats stats;
        tram_loop_stats(scene.loops[loop], &stats);
        assert_int_equal(stats.measured_messages, loop == HOME ? counts(&scene).measured : 0);
        assert_int_equal(slots_in_use(&scene, loop), loop == HOME);
    }
    scene_close(&scene);
}

/* ---- Bounds and credit ---- */

static int try_post(struct scene *scene, uint32_t tag) {
    tram_message message = {.type = &counted, .tag = tag};
    return tram_try_post(scene->address, &message);
}

static void test_N_18_the_bound_holds_from_end_to_end(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    assert_int_equal(tram_address_set_limit(scene.loops[HOME], scene.address, 4), 0);
    assert_int_equal(try_post(&scene, 1), 0);
    leave(&scene);
    assert_int_equal(try_post(&scene, 2), 0);
    turn(&scene, HOME);
    assert_int_equal(counts(&scene).waiting, 2); /* kept */
    arrive(&scene, 1);
    turn(&scene, 1);
    turn(&scene, HOME); /* sent on */
    assert_int_equal(try_post(&scene, 3), 0);
    assert_int_equal(try_post(&scene, 4), 0);
    turn(&scene, HOME);
    assert_int_equal(counts(&scene).waiting, 4);
    assert_int_equal(try_post(&scene, 5), -EAGAIN);
    leave(&scene); /* and come there behind this, to be returned */
    settle(&scene);
    assert_int_equal(counts(&scene).waiting, 4);
    assert_int_equal(try_post(&scene, 5), -EAGAIN);
    arrive(&scene, 2);
    settle(&scene);
    assert_trace(scene.world, "2:1 2:2 2:3 2:4");
    assert_int_equal(counts(&scene).waiting, 0);
    assert_int_equal(counts(&scene).refused, 2);
    move(&scene, HOME);
    assert_int_equal(try_post(&scene, 6), 0);
    settle(&scene);
    assert_int_equal(counts(&scene).waiting, 0);
    assert_int_equal(counts(&scene).limit, 4);
    scene_close(&scene);
    assert_int_equal(dropped, 0);
}

static bool post_another(struct mover *mover, tram_message *message) {
    if (message->tag < 3)
        assert_int_equal(try_post(mover->scene, message->tag + 1), 0);
    return false;
}

/* As where it has not moved: a message counts until it is received, and not while. */
static void test_N_18_who_receives_may_post_another_one(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    assert_int_equal(tram_address_set_limit(scene.loops[HOME], scene.address, 1), 0);
    move(&scene, 1);
    scene.now->on = post_another;
    settle(&scene);
    assert_int_equal(try_post(&scene, 1), 0);
    settle(&scene);
    assert_trace(scene.world, "1:1 1:2 1:3");
    scene_close(&scene);
}

static void test_N_18_what_is_dropped_counts_no_more(void **state) {
    struct scene scene;
    struct addressee *addressee;
    scene_open(&scene, *state);
    addressee = addressee_at(actors_present(scene.loops[HOME])->here, scene.address.slot);
    move(&scene, 1);
    settle(&scene);
    assert_int_equal(try_post(&scene, 1), 0);
    turn(&scene, HOME);
    assert_int_equal(addressee->bounded, 1);
    free_loop(&scene, 1); /* discarded there, on its way to who ends there */
    assert_int_equal(addressee->bounded, 0);
    assert_int_equal(try_post(&scene, 2), 0);
    settle(&scene);
    assert_int_equal(addressee->bounded, 0);
    assert_int_equal(dropped, 2);
    scene.now->base.transport = NULL;
    scene_close(&scene);
}

static void test_N_18_credit_comes_behind_what_was_posted(void **state) {
    struct scene scene;
    tram_future *early, *late;
    scene_open(&scene, *state);
    leave(&scene);
    post(&scene, 1);
    assert_int_equal(tram_post_credit(scene.loops[2], scene.address, &early), 0);
    settle(&scene);
    assert_false(tram_future_done(early));
    assert_int_equal(counts(&scene).queued, 1);
    arrive(&scene, 1);
    turn(&scene, 1);
    turn(&scene, HOME);
    turn(&scene, 2);
    assert_false(tram_future_done(early));
    leave(&scene);
    settle(&scene);
    assert_false(tram_future_done(early));
    arrive(&scene, 2);
    settle(&scene);
    assert_trace(scene.world, "2:1");
    assert_answer(early, 0);
    post(&scene, 2);
    assert_int_equal(tram_post_credit(scene.loops[1], scene.address, &late), 0);
    turn(&scene, 1);
    turn(&scene, HOME);
    turn(&scene, 1);
    assert_false(tram_future_done(late));
    turn(&scene, 2);
    turn(&scene, 1);
    assert_trace(scene.world, "2:2");
    assert_answer(late, 0);
    assert_int_equal(counts(&scene).delivered, 2);
    scene_close(&scene);
}

/* ---- The end of the connection ---- */

static void *free_detached(void *arg) {
    tram_detached_free(arg);
    return NULL;
}

static void test_N_19_whom_nobody_adopts_drops_what_waits(void **state) {
    struct world *world = *state;
    enum { FREED, FREED_BY_A_THREAD, TAKEN, FAILED };
    for (int how = FREED; how <= FAILED; how++) {
        struct scene scene;
        scene_open(&scene, world);
        destroyed = dropped = 0;
        leave(&scene);
        post(&scene, 1);
        assert_int_equal(try_post(&scene, 2), 0);
        tram_future *future = ask_from(&scene, 1, 3), *credit;
        assert_int_equal(tram_post_credit(scene.loops[1], scene.address, &credit), 0);
        settle(&scene);
        assert_int_equal(dropped, 0);
        if (how == FREED_BY_A_THREAD) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, free_detached, scene.detached), 0);
            pthread_join(thread, NULL);
        } else if (how == TAKEN) {
            int fd = tram_detached_take_fd(scene.detached);
            assert_true(fd >= 0);
            close(fd);
        } else if (how == FREED) {
            tram_detached_free(scene.detached);
        } else {
            /* The factory's protocol has no ops. */
            tram_protocol nothing = {0};
            assert_int_equal(tram_loop_adopt_detached(scene.loops[1], factory, &nothing, scene.detached, NULL), 0);
            world->exceptions = 0;
        }
        settle(&scene);
        assert_int_equal(dropped, 3);
        assert_answer(future, -ESRCH);
        assert_answer(credit, 0);
        assert_int_equal(tram_address_message_counts(world->loop, scene.address, &(tram_message_counts){0}), -ESRCH);
        post(&scene, 4);
        future = ask_from(&scene, HOME, 5);
        settle(&scene);
        assert_int_equal(dropped, 5);
        assert_int_equal(destroyed, 0);
        assert_answer(future, -ESRCH);
        const struct addressees *here = actors_present(world->loop)->here;
        assert_int_equal(addressee_at(here, scene.address.slot)->bounded, 0);
        if (how == FREED || how == FREED_BY_A_THREAD)
            scene.detached = NULL;
        scene_close(&scene);
    }
}

static void test_N_19_an_address_ends_where_its_connection_ends(void **state) {
    struct world *world = *state;
    for (unsigned loop = 0; loop < LOOPS; loop++) {
        struct scene scene;
        scene_open(&scene, world);
        destroyed = dropped = 0;
        move(&scene, 1);
        turn(&scene, 1);
        move(&scene, loop);
        settle(&scene);
        tram_transport_abort(scene.now->base.transport);
        while (!scene.now->released)
            turn(&scene, loop);
        post(&scene, 1);
        assert_int_equal(try_post(&scene, 2), 0);
        tram_future *future = ask_from(&scene, 2, 3);
        settle(&scene);
        assert_int_equal(dropped, 3);
        assert_answer(future, -ESRCH);
        settle(&scene);
        assert_int_equal(tram_address_message_counts(world->loop, scene.address, &(tram_message_counts){0}), -ESRCH);
        assert_trace(world, "");
        scene_close(&scene);
    }
}

/* It ends at once, before the home knows that it has arrived, or that all has come back. */
static void test_N_19_an_end_may_come_before_what_it_ends(void **state) {
    struct world *world = *state;
    for (unsigned loop = 0; loop < LOOPS; loop++) {
        struct scene scene;
        scene_open_at(&scene, world, 1);
        destroyed = dropped = 0;
        post(&scene, 1);
        turn(&scene, HOME); /* sent on to loop 1, which has not looked yet */
        move(&scene, loop);
        turn(&scene, loop);
        tram_transport_abort(scene.now->base.transport);
        turn(&scene, loop);
        turn(&scene, loop);
        post(&scene, 2);
        settle(&scene);
        assert_int_equal(dropped, 2);
        assert_trace(world, "");
        scene_close(&scene);
    }
}

static void test_N_19_who_holds_a_lost_transport_keeps_no_address(void **state) {
    struct scene scene;
    scene_open_at(&scene, *state, 1);
    tram_transport *transport = tram_transport_hold(scene.now->base.transport);
    tram_transport_abort(transport);
    settle(&scene);
    post(&scene, 1);
    settle(&scene);
    assert_int_equal(dropped, 1);
    assert_int_equal(tram_transport_address(transport, &(tram_address){0}), TRAM_ESTATE);
    tram_transport_release(transport);
    settle(&scene);
    assert_int_equal(tram_address_message_counts(scene.loops[HOME], scene.address, &(tram_message_counts){0}), -ESRCH);
    scene_close(&scene);
}

static bool ended_seen;

static int monitor_ended(tram_actor *actor, tram_address who, int reason) {
    (void)actor;
    (void)who;
    assert_int_equal(reason, -ESRCH);
    ended_seen = true;
    return 0;
}

static const tram_actor_ops monitor_ops = {.actor_ended = monitor_ended};

static void test_N_12_N_17_a_connection_that_moves_is_no_actor(void **state) {
    struct scene scene;
    tram_actor actor = {.ops = &monitor_ops};
    scene_open(&scene, *state);
    assert_int_equal(tram_loop_start_actor(scene.loops[2], &actor), 0);
    for (unsigned i = 0; i < 2; i++) {
        ended_seen = false;
        if (i == 0)
            leave(&scene);
        else
            arrive(&scene, 1);
        assert_int_equal(tram_actor_monitor(&actor, scene.address), 0);
        settle(&scene);
        assert_true(ended_seen);
    }
    assert_int_equal(tram_actor_stop(&actor, 0), 0);
    scene_close(&scene);
}

/* ---- Memory ---- */

static unsigned moves_without_memory(struct world *world, uint64_t nth) {
    struct scene scene;
    int status;
    scene_open(&scene, world);
    destroyed = dropped = 0;
    post(&scene, 1);
    memory_fail(nth, 1);
    status = tram_transport_detach(scene.now->base.transport, &scene.detached);
    bool left = status == 0;
    tram_future *future = NULL;
    if (left) {
        scene.now = next_mover(&scene, 1);
        status = tram_loop_adopt_detached(scene.loops[1], factory, scene.now, scene.detached, &future);
    }
    unsigned failed = (unsigned)memory_failed();
    memory_fail(0, 0);
    post(&scene, 2);
    assert_true(status == 0 || (status == -ENOMEM && failed));
    if (left && status) { /* it can be tried again */
        assert_int_equal(tram_loop_adopt_detached(scene.loops[1], factory, scene.now, scene.detached, &future), 0);
    }
    settle(&scene);
    if (!left) {
        assert_trace(world, "0:1 0:2");
        assert_false(forwards(&scene));
    } else if (scene.now->made) {
        assert_trace(world, "1:1 1:2");
        assert_same_address(&scene);
    } else {
        assert_true(failed && scene.now->released);
        assert_int_equal(tram_future_error(future)->code, -ENOMEM);
        assert_int_equal(dropped, 2);
    }
    if (future)
        tram_future_release(future);
    scene_close(&scene);
    return failed;
}

static void test_N_19_a_move_without_memory_is_none_or_ends(void **state) {
    unsigned failures = 0;
    while (moves_without_memory(*state, failures + 1))
        assert_true(++failures < 40);
    assert_true(failures > 6);
}

/* Nodes of the home's own are used up: a message cannot be kept, a request and what follows can. */
static void test_N_19_without_memory_a_message_is_dropped_and_a_request_is_not(void **state) {
    enum { MANY = 200 };
    struct world *world = *state;
    struct scene scene;
    scene_open(&scene, world);
    leave(&scene);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(try_post(&scene, i), 0);
    tram_future *future = ask_from(&scene, 1, MANY);
    turn(&scene, 1);
    memory_fail(2, UINT64_MAX); /* one run of nodes there is */
    turn(&scene, HOME);
    turn(&scene, HOME);
    memory_fail(0, 0);
    tram_message_counts now = counts(&scene);
    assert_in_range(now.dropped, 1, MANY - 1);
    assert_int_equal(now.dropped, dropped);
    assert_int_equal(now.dropped + now.queued, MANY + 1);
    assert_int_equal(now.waiting, MANY - now.dropped);
    arrive(&scene, 1);
    scene.now->on = answer;
    settle(&scene);
    assert_answer(future, 0);
    assert_int_equal(counts(&scene).waiting, 0);
    assert_int_equal(destroyed + dropped, MANY + 1);
    scene_close(&scene);
}

/* ---- Loops that close ---- */

static void assert_no_home(struct scene *scene) {
    tram_message message = {.type = &counted};
    tram_future *future;
    assert_int_equal(tram_post(scene->address, &message), TRAM_ESTATE);
    assert_int_equal(tram_try_post(scene->address, &message), TRAM_ESTATE);
    assert_int_equal(tram_ask(scene->loops[1], scene->address, &message, TRAM_FOREVER, &future), TRAM_ESTATE);
}

/* There is a new address, of the loop where it is, and that is a good one. */
static void assert_new_address(struct scene *scene, unsigned loop) {
    tram_address old = scene->address;
    assert_int_equal(tram_transport_address(scene->now->base.transport, &scene->address), 0);
    assert_false(tram_address_equal(old, scene->address));
    assert_same_address(scene);
    post(scene, 77);
    settle(scene);
    char expected[16];
    snprintf(expected, sizeof expected, "%u:77", loop);
    assert_trace(scene->world, expected);
    move(scene, 3 - loop);
    settle(scene);
    assert_same_address(scene);
    post(scene, 78);
    settle(scene);
    snprintf(expected, sizeof expected, "%u:78", 3 - loop);
    assert_trace(scene->world, expected);
}

static void test_N_20_a_home_that_closes_while_its_connection_is_elsewhere(void **state) {
    struct scene scene;
    scene_open_at(&scene, *state, 1);
    post(&scene, 1);
    assert_int_equal(try_post(&scene, 2), 0);
    turn(&scene, HOME); /* sent on */
    post(&scene, 3);
    tram_future *future = ask_from(&scene, 2, 4);
    turn(&scene, 2);
    free_loop(&scene, HOME);
    assert_int_equal(dropped, 2);
    assert_no_home(&scene);
    settle(&scene);
    assert_trace(scene.world, "1:1 1:2");
    assert_answer(future, TRAM_ESTATE);
    assert_new_address(&scene, 1);
    scene_close(&scene);
}

static void test_N_20_a_home_that_closes_while_its_connection_is_under_way(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    leave(&scene);
    post(&scene, 1);
    tram_future *future = ask_from(&scene, 2, 2);
    turn(&scene, 2);
    turn(&scene, HOME);
    post(&scene, 3);
    free_loop(&scene, HOME);
    assert_int_equal(dropped, 3);
    arrive(&scene, 1);
    settle(&scene);
    assert_answer(future, TRAM_ESTATE);
    assert_no_home(&scene);
    assert_trace(scene.world, "");
    assert_new_address(&scene, 1);
    scene_close(&scene);
}

/* Whatever of the move was on its way to the home, or back. */
static void test_N_20_a_home_that_closes_in_the_midst_of_a_move(void **state) {
    struct world *world = *state;
    for (unsigned pattern = 0; pattern < 32; pattern++) {
        struct scene scene;
        scene_open_at(&scene, world, 1);
        destroyed = dropped = 0;
        post(&scene, 1);
        turn(&scene, HOME); /* sent on to loop 1 … */
        leave(&scene);      /* … which has not looked */
        if (pattern & 1)
            turn(&scene, 1);
        if (pattern & 2)
            turn(&scene, HOME);
        if (pattern & 4)
            turn(&scene, 1);
        if (pattern & 8)
            arrive(&scene, 2);
        if (pattern & 16)
            turn(&scene, HOME);
        free_loop(&scene, HOME);
        if (!(pattern & 8))
            arrive(&scene, 2);
        settle(&scene);
        assert_int_equal(destroyed + dropped, 1);
        assert_no_home(&scene);
        world->trace[0] = '\0';
        assert_int_equal(slots_in_use(&scene, 1), 0);
        assert_new_address(&scene, 2);
        scene_close(&scene);
    }
}

static void test_N_20_a_detached_whose_home_has_closed_is_freed(void **state) {
    struct scene scene;
    scene_open_at(&scene, *state, 1);
    free_loop(&scene, HOME);
    leave(&scene);
    tram_detached_free(scene.detached);
    scene.detached = NULL;
    settle(&scene);
    scene_close(&scene);
}

/* The loop where it is closes, with what was sent on. */
static void test_N_20_a_place_that_closes_ends_its_connections(void **state) {
    struct scene scene;
    scene_open_at(&scene, *state, 1);
    post(&scene, 1);
    tram_future *future = ask_from(&scene, 2, 2);
    turn(&scene, 2);
    turn(&scene, HOME);
    free_loop(&scene, 1);
    post(&scene, 3);
    settle(&scene);
    assert_true(scene.now->lost);
    assert_int_equal(dropped, 3);
    assert_answer(future, TRAM_ESTATE);
    assert_int_equal(tram_address_message_counts(scene.loops[HOME], scene.address, &(tram_message_counts){0}), -ESRCH);
    scene_close(&scene);
}

/* The loop that it has left closes: what came by it is lost, but not the address. */
static void test_N_20_a_place_that_closes_after_a_connection_has_left_it(void **state) {
    struct world *world = *state;
    for (unsigned pattern = 0; pattern < 32; pattern++) {
        struct scene scene;
        scene_open_at(&scene, world, 1);
        destroyed = dropped = 0;
        assert_int_equal(try_post(&scene, 1), 0);
        tram_future *future = ask_from(&scene, HOME, 2);
        turn(&scene, HOME); /* sent on to loop 1 … */
        turn(&scene, HOME);
        leave(&scene); /* … which has not looked */
        if (pattern & 1)
            turn(&scene, 1);
        if (pattern & 2)
            turn(&scene, HOME);
        if (pattern & 4)
            arrive(&scene, 2);
        if (pattern & 8)
            turn(&scene, HOME);
        bool returned = pattern & 16;
        if (returned)
            settle(&scene);
        free_loop(&scene, 1);
        if (!(pattern & 4))
            arrive(&scene, 2);
        post(&scene, 3);
        settle(&scene);
        scene.now->on = answer;
        post(&scene, 4);
        settle(&scene);
        assert_trace(world, returned ? "2:1 2:2 2:3 2:4" : "2:3 2:4");
        assert_int_equal(destroyed, returned ? 4 : 2);
        assert_int_equal(dropped, returned ? 0 : 2);
        assert_answer(future, returned ? -ENOTSUP : TRAM_ESTATE);
        assert_int_equal(counts(&scene).waiting, 0);
        assert_int_equal(counts(&scene).queued, 0);
        assert_same_address(&scene);
        scene_close(&scene);
    }
}

/* Both ends of a pair of loops that close, in either order, with everything still on its way. */
static void test_N_20_nothing_is_left_where_all_loops_close(void **state) {
    struct world *world = *state;
    for (unsigned pattern = 0; pattern < 64; pattern++) {
        struct scene scene;
        scene_open(&scene, world);
        destroyed = dropped = 0;
        move(&scene, 1);
        if (pattern & 1)
            settle(&scene);
        post(&scene, 1);
        if (pattern & 2)
            turn(&scene, HOME);
        if (scene.now->base.transport || pattern & 4)
            turn(&scene, 1);
        tram_detached *detached = NULL;
        if (scene.now->base.transport)
            assert_int_equal(tram_transport_detach(scene.now->base.transport, &detached), 0);
        if (pattern & 8)
            turn(&scene, HOME);
        unsigned first = pattern & 16 ? 1 : HOME;
        free_loop(&scene, first);
        if (pattern & 32)
            tram_detached_free(detached);
        free_loop(&scene, 1 - first);
        if (!(pattern & 32))
            tram_detached_free(detached);
        assert_int_equal(destroyed + dropped, 1);
        world->trace[0] = '\0';
        scene.loops[1] = NULL;
        settle(&scene);
        scene_close(&scene);
    }
}

/* ---- fork ---- */

static void in_a_child(void (*run)(struct scene *scene), struct scene *scene) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        run(scene);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void free_all(struct scene *scene) {
    tram_message message = {.type = &counted};
    bool good = tram_post(scene->address, &message) == -ECHILD;
    tram_detached_free(scene->detached);
    for (unsigned i = 0; i < LOOPS; i++)
        good = tram_loop_free(scene->loops[(i + 1) % LOOPS]) == 0 && good;
    if (!good || dropped || destroyed)
        _exit(1);
}

/* Whatever is on its way, a child may free the loops, and its parent's go on. */
static void test_N_17_L_41_a_forked_child_touches_nothing_that_moves(void **state) {
    struct scene scene;
    scene_open(&scene, *state);
    leave(&scene);
    post(&scene, 1);
    tram_future *future = ask_from(&scene, 2, 2);
    in_a_child(free_all, &scene);
    settle(&scene);
    in_a_child(free_all, &scene);
    arrive(&scene, 1);
    in_a_child(free_all, &scene);
    turn(&scene, 1);
    turn(&scene, HOME);
    in_a_child(free_all, &scene);
    leave(&scene);
    in_a_child(free_all, &scene);
    turn(&scene, 1);
    in_a_child(free_all, &scene);
    turn(&scene, HOME);
    in_a_child(free_all, &scene);
    turn(&scene, 1);
    in_a_child(free_all, &scene);
    arrive(&scene, 2);
    scene.now->on = answer;
    in_a_child(free_all, &scene);
    settle(&scene);
    assert_trace(scene.world, "2:1 2:2");
    assert_answer(future, 0);
    scene_close(&scene);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_N_17_an_address_goes_along_on_its_own_loop),
        CASE(test_N_17_an_address_goes_along_to_another_loop),
        CASE(test_N_17_an_address_goes_along_to_further_loops_and_home),
        CASE(test_N_17_order_holds_however_late_each_loop_is),
        CASE(test_N_17_a_connection_may_leave_again_within_message_received),
        CASE(test_N_17_who_has_no_address_takes_none_along),
        CASE(test_N_17_requests_are_answered_to_the_asker_directly),
        CASE(test_N_17_requests_wait_for_who_is_under_way),
        CASE(test_N_17_requests_follow_over_several_moves),
        CASE(test_N_18_the_bound_holds_from_end_to_end),
        CASE(test_N_18_who_receives_may_post_another_one),
        CASE(test_N_18_what_is_dropped_counts_no_more),
        CASE(test_N_18_credit_comes_behind_what_was_posted),
        CASE(test_N_19_whom_nobody_adopts_drops_what_waits),
        CASE(test_N_19_an_address_ends_where_its_connection_ends),
        CASE(test_N_19_an_end_may_come_before_what_it_ends),
        CASE(test_N_19_who_holds_a_lost_transport_keeps_no_address),
        CASE(test_N_12_N_17_a_connection_that_moves_is_no_actor),
        CASE(test_N_19_a_move_without_memory_is_none_or_ends),
        CASE(test_N_19_without_memory_a_message_is_dropped_and_a_request_is_not),
        CASE(test_N_20_a_home_that_closes_while_its_connection_is_elsewhere),
        CASE(test_N_20_a_home_that_closes_while_its_connection_is_under_way),
        CASE(test_N_20_a_home_that_closes_in_the_midst_of_a_move),
        CASE(test_N_20_a_detached_whose_home_has_closed_is_freed),
        CASE(test_N_20_a_place_that_closes_ends_its_connections),
        CASE(test_N_20_a_place_that_closes_after_a_connection_has_left_it),
        CASE(test_N_20_nothing_is_left_where_all_loops_close),
        CASE(test_N_17_L_41_a_forked_child_touches_nothing_that_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
