/* The mailbox under many posters: nothing lost, nothing doubled, order kept, no wake-up missed. */
#include "support/support.h"

#include <pthread.h>

#include "core/loop/loop.h"

#define POSTERS 4
#define POSTS   20000

struct poster {
    struct world *world;
    pthread_t thread;
    uint32_t next; /* what the loop expects from this poster */
    int number;
};

struct post {
    struct poster *poster;
    uint32_t sequence;
};

static uint32_t arrived;
static bool all_arrived;

static int arrive(tram_loop *loop, void *arg) {
    (void)loop;
    struct post *post = arg;
    if (post->sequence != post->poster->next)
        return TRAM_EUSER; /* out of order, lost or doubled */
    post->poster->next++;
    free(post);
    if (++arrived == POSTERS * POSTS)
        all_arrived = true;
    return 0;
}

static void *post_many(void *arg) {
    struct poster *poster = arg;
    for (uint32_t i = 0; i < POSTS; i++) {
        struct post *post = malloc(sizeof *post);
        *post = (struct post){poster, i};
        if (tram_loop_call_soon_threadsafe(poster->world->loop, arrive, post, free) != 0)
            abort();
    }
    return NULL;
}

static void test_L_11_L_12_posts_of_many_threads_all_arrive_in_order(void **state) {
    struct world *world = *state;
    struct poster posters[POSTERS] = {0};
    arrived = 0;
    all_arrived = false;
    for (int i = 0; i < POSTERS; i++) {
        posters[i].world = world;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    run_until(world, &all_arrived);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(arrived, POSTERS * POSTS);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.mails, POSTERS * POSTS);
}

struct ping {
    tram_loop *loop;
    struct ping *other;
    int left;
    bool *done;
};

static int ping_arrived(tram_loop *loop, void *arg) {
    struct ping *ping = arg;
    if (--ping->left <= 0) {
        tram_loop_stop(loop);
        if (ping->left < 0)
            return 0;
    }
    return tram_loop_call_soon_threadsafe(ping->other->loop, ping_arrived, ping->other, NULL);
}

static void *run_loop(void *arg) {
    tram_loop_run_forever(arg);
    return NULL;
}

/* Each side sleeps when the other posts: a lost wake-up would hang here. */
static void test_L_11_L_12_two_sleeping_loops_wake_each_other_every_time(void **state) {
    struct world *world = *state;
    tram_loop *second;
    assert_int_equal(tram_loop_new(NULL, &second), 0);
    struct ping a = {.loop = world->loop, .left = 5000}, b = {.loop = second, .left = 5000};
    a.other = &b;
    b.other = &a;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_loop, second), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, ping_arrived, &a, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    pthread_join(thread, NULL);
    assert_int_equal(tram_loop_free(second), 0);
}

/* One loop posts to another, which is slower; what is on the way when they end is discarded. */
struct flood {
    tram_loop *from, *to;
    uint32_t sent, next; /* sequence numbers: the sender's, the receiver's */
    uint32_t discarded;
    bool broken;
};

#define FLOOD 200000

static struct flood flood;

static int flood_arrive(tram_loop *loop, void *arg) {
    if ((uintptr_t)arg != flood.next)
        flood.broken = true;
    if (++flood.next == FLOOD)
        tram_loop_stop(loop);
    return 0;
}

static void flood_discard(void *arg) {
    (void)arg;
    flood.discarded++;
}

static int flood_send(tram_loop *loop, void *arg) {
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        if (tram_loop_call_soon_threadsafe(flood.to, flood_arrive, (void *)(uintptr_t)flood.sent, flood_discard))
            abort();
        flood.sent++;
    }
    if (flood.sent % FLOOD == 0)
        return tram_loop_stop(loop);
    return tram_loop_call_soon(loop, flood_send, NULL, NULL, NULL);
}

static void test_L_11_posts_of_one_loop_to_another_arrive_in_order_and_their_cells_go_home(void **state) {
    struct world *world = *state;
    flood = (struct flood){.from = world->loop};
    assert_int_equal(tram_loop_new(NULL, &flood.to), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_loop, flood.to), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, flood_send, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    pthread_join(thread, NULL);
    assert_false(flood.broken);
    assert_int_equal(flood.next, FLOOD);
    /* As many at a time as will be: 2,000 that nobody runs yet, and then all of them. */
    assert_int_equal(tram_loop_call_soon(world->loop, flood_send, NULL, NULL, NULL), 0);
    run_ticks(world, 2);
    while (flood.next < flood.sent) {
        tram_loop_stop(flood.to);
        assert_int_equal(tram_loop_run_forever(flood.to), 0);
    }
    /* Again: every node serves a second time. */
    size_t allocations = world->allocations;
    run_ticks(world, 2);
    assert_int_equal(world->allocations, allocations);
    assert_int_equal(tram_loop_free(flood.to), 0);
    assert_int_equal(flood.discarded, flood.sent - flood.next);
    assert_int_equal(flood.discarded, 2000);
}

static void test_a_mailbox_outlives_its_loop_until_its_cells_are_home(void **state) {
    struct world *world = *state;
    flood = (struct flood){.to = world->loop};
    assert_int_equal(tram_loop_new(NULL, &flood.from), 0);
    assert_int_equal(tram_loop_call_soon(flood.from, flood_send, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_stop(flood.from), 0);
    assert_int_equal(tram_loop_run_forever(flood.from), 0);
    assert_int_equal(tram_loop_free(flood.from), 0);
    run_ticks(world, 1);
    assert_int_equal(flood.next, TRAM_MAIL_PER_TICK);
    assert_false(flood.broken);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(flood.discarded, 1000 - TRAM_MAIL_PER_TICK);
}

static int count_run(tram_loop *loop, void *arg) {
    (void)loop;
    ++*(int *)arg;
    return 0;
}

static void count_discard(void *arg) {
    *(int *)arg += 1000;
}

static void test_L_8_L_11_accepted_posts_are_discarded_at_close_and_later_ones_refused(void **state) {
    struct world *world = *state;
    int count = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, count_discard), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(count, 3000);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, count_discard), TRAM_ESTATE);
    assert_int_equal(count, 3000);
}

static void test_try_posts_are_bounded_and_others_are_not(void **state) {
    struct world *world = *state;
    world->options.mailbox_limit = 10;
    world_reopen(world);
    int count = 0;
    for (int i = 0; i < 10; i++)
        assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, count_run, &count, NULL), -EAGAIN);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(count, 11);
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(count, 12);
}

static void test_a_flood_of_mail_comes_in_portions_and_timers_run_between(void **state) {
    struct world *world = *state;
    int count = 0;
    for (int i = 0; i < TRAM_MAIL_PER_TICK + 10; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(count, TRAM_MAIL_PER_TICK);
    run_ticks(world, 1);
    assert_int_equal(count, TRAM_MAIL_PER_TICK + 10);
}

static void test_a_busy_loop_is_not_woken_by_a_system_call(void **state) {
    struct world *world = *state;
    int count = 0;
    for (int i = 0; i < 100; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    run_ticks(world, 2);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(count, 100);
    assert_int_equal(stats.wakeups, 0);
}

static void test_a_sleeping_loop_is_woken_once_for_many_posts(void **state) {
    struct world *world = *state;
    int count = 0;
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_true(timeout_ns == TRAM_FOREVER);
    for (int i = 0; i < 100; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    assert_int_equal(tram_loop_dispatch(world->loop), 0);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(count, 100);
    assert_int_equal(stats.wakeups, 1);
}

static void test_cells_are_used_again(void **state) {
    struct world *world = *state;
    int count = 0;
    tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL);
    run_ticks(world, 1);
    size_t before = world->allocations;
    for (int i = 0; i < 1000; i++) {
        tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL);
        run_ticks(world, 1);
    }
    assert_int_equal(world->allocations, before);
    assert_int_equal(count, 1001);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        CASE(test_L_11_L_12_posts_of_many_threads_all_arrive_in_order),
        CASE(test_L_11_L_12_two_sleeping_loops_wake_each_other_every_time),
        CASE(test_L_11_posts_of_one_loop_to_another_arrive_in_order_and_their_cells_go_home),
        CASE(test_a_mailbox_outlives_its_loop_until_its_cells_are_home),
        CASE(test_L_8_L_11_accepted_posts_are_discarded_at_close_and_later_ones_refused),
        CASE(test_try_posts_are_bounded_and_others_are_not),
        CASE(test_a_flood_of_mail_comes_in_portions_and_timers_run_between),
        CASE(test_a_busy_loop_is_not_woken_by_a_system_call),
        CASE(test_a_sleeping_loop_is_woken_once_for_many_posts),
        CASE(test_cells_are_used_again),
    };
    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
