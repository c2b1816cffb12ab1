/* The mailbox under many posters: nothing lost, nothing doubled, order kept, no wake-up missed. */
#include "support/support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "core/backend/backend.h"
#include "core/loop/loop.h"
#include "support/memory.h"

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
    const void *chunks = world->loop->mailbox->chunks;
    assert_non_null(chunks);
    run_ticks(world, 2);
    assert_ptr_equal(world->loop->mailbox->chunks, chunks);
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

/* ---- The close, while others post ---- */

#define CLOSERS_POSTERS 3

struct closing {
    tram_loop *loop;
    _Atomic int run, discarded, accepted, posting;
};

static int closing_run(tram_loop *loop, void *arg) {
    (void)loop;
    struct closing *closing = arg;
    atomic_fetch_add(&closing->run, 1);
    return 0;
}

static void closing_discard(void *arg) {
    struct closing *closing = arg;
    atomic_fetch_add(&closing->discarded, 1);
}

/* Until it is refused; some wait at a time. */
static void *post_until_closed(void *arg) {
    struct closing *closing = arg;
    atomic_fetch_add(&closing->posting, 1);
    while (tram_loop_call_soon_threadsafe(closing->loop, closing_run, closing, closing_discard) == 0) {
        atomic_fetch_add(&closing->accepted, 1);
        while (closing->accepted - closing->run - closing->discarded > 50)
            sched_yield();
    }
    return NULL;
}

static void test_L_11_what_was_accepted_while_the_loop_closed_is_run_or_discarded(void **state) {
    (void)state;
    int rounds = getenv("TRAM_TEST_FULL") ? 5000 : 200;
    for (int round = 0; round < rounds; round++) {
        struct closing closing = {0};
        pthread_t threads[CLOSERS_POSTERS];
        assert_int_equal(tram_loop_new(NULL, &closing.loop), 0);
        for (int i = 0; i < CLOSERS_POSTERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, post_until_closed, &closing), 0);
        while (closing.posting < CLOSERS_POSTERS || closing.accepted < round % 7)
            sched_yield();
        tram_loop_stop(closing.loop);
        assert_int_equal(tram_loop_run_forever(closing.loop), 0);
        assert_int_equal(tram_loop_close(closing.loop), 0);
        for (int i = 0; i < CLOSERS_POSTERS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(closing.run + closing.discarded, closing.accepted);
        assert_int_equal(tram_loop_free(closing.loop), 0);
    }
}

/* ---- The close, in the middle of a post that takes long ---- */

#define CHAIN 200000

struct chain {
    struct mailbox *mailbox;
    struct mail *first;
};

static _Atomic unsigned chain_discarded;

static void chain_discard(struct mail *mail) {
    (void)mail;
    chain_discarded++;
}

static const struct mail_kind chain_kind = {.discard = chain_discard};

static void *post_chain(void *arg) {
    const struct chain *chain = arg;
    return (void *)(intptr_t)tram__mailbox_post_all(chain->mailbox, chain->first);
}

/* What is pushed behind the close is the poster's to discard. */
static void test_L_11_a_close_in_the_middle_of_a_post_loses_nothing(void **state) {
    (void)state;
    for (int round = 0; round < 6; round++) {
        tram_loop *loop;
        pthread_t thread;
        void *status;
        assert_int_equal(tram_loop_new(NULL, &loop), 0);
        struct chain chain = {.mailbox = tram__mailbox_hold(loop->mailbox)};
        for (int i = 0; i < CHAIN; i++) {
            struct mail *mail = tram__mail_new(chain.mailbox, &chain_kind);
            assert_non_null(mail);
            mail->entry.next = chain.first ? &chain.first->entry : NULL;
            chain.first = mail;
        }
        chain_discarded = 0;
        assert_int_equal(pthread_create(&thread, NULL, post_chain, &chain), 0);
        while (mailbox_empty(chain.mailbox))
            ;
        assert_int_equal(tram_loop_close(loop), 0);
        pthread_join(thread, &status);
        assert_int_equal((intptr_t)status, 0);
        assert_int_equal(chain_discarded, CHAIN);
        tram__mailbox_release(chain.mailbox);
        assert_int_equal(tram_loop_free(loop), 0);
    }
}

static struct mailbox *refusing;
static bool was_discarded;

static void seen_discard(struct mail *mail) {
    (void)mail;
    was_discarded = true;
}

static const struct mail_kind seen_kind = {.discard = seen_discard};

static void test_L_11_a_refused_node_stays_the_posters(void **state) {
    struct world *world = *state;
    refusing = tram__mailbox_hold(world->loop->mailbox);
    struct mail *mail = tram__mail_new(refusing, &seen_kind);
    assert_int_equal(tram_loop_close(world->loop), 0);
    was_discarded = false;
    assert_int_equal(tram__mailbox_post(refusing, mail), TRAM_ESTATE);
    assert_false(was_discarded);
    tram__mail_free(refusing, mail);
    tram__mailbox_release(refusing);
}

/* ---- Chains ---- */

static unsigned ran[16], ran_count;

static void number_run(tram_loop *loop, struct mail *mail) {
    (void)loop;
    assert_ptr_equal(mail->owner_pool, NULL);
    ran[ran_count++] = mail->payload[0];
}

static void number_discard(struct mail *mail) {
    ran[ran_count++] = 100u + mail->payload[0];
}

static const struct mail_kind number_kind = {.run = number_run, .discard = number_discard};

static struct mail *numbered(struct mailbox *mailbox, unsigned number) {
    struct mail *mail = tram__mail_new(mailbox, &number_kind);
    assert_non_null(mail);
    mail->payload[0] = (unsigned char)number;
    return mail;
}

static struct mail_chain chain_of_numbers(struct mailbox *mailbox, unsigned first, unsigned count) {
    struct mail_chain chain = {0};
    for (unsigned i = 0; i < count; i++)
        mail_chain_append(&chain, numbered(mailbox, first + i));
    return mail_chain_take(&chain);
}

/* 0 1 [2 3 4 5] 6 [7 8] [9] [10 11] */
static void post_numbers(struct mailbox *mailbox) {
    static const unsigned chains[][2] = {{2, 4}, {7, 2}, {9, 1}, {10, 2}};
    ran_count = 0;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tram__mailbox_post(mailbox, numbered(mailbox, i)), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct mail_chain chain = chain_of_numbers(mailbox, chains[i][0], chains[i][1]);
        assert_int_equal(tram__mailbox_post_chain(mailbox, &chain), 0);
        if (i == 0)
            assert_int_equal(tram__mailbox_post(mailbox, numbered(mailbox, 6)), 0);
    }
}

static void assert_numbers(unsigned count, unsigned offset) {
    assert_int_equal(ran_count, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(ran[i], offset + i);
}

/* The nodes of a chain run in its place, and each counts against the bound of a tick. */
static void test_L_11_a_chain_is_as_many_nodes(void **state) {
    struct world *world = *state;
    post_numbers(world->loop->mailbox);
    world->loop->mail_limit = 4;
    for (unsigned ticks = 1; ticks <= 3; ticks++) {
        run_ticks(world, 1);
        assert_numbers(4 * ticks, 0);
    }
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.mails, 12);
}

static void test_L_11_a_chain_is_discarded_or_refused_as_a_whole(void **state) {
    struct world *world = *state;
    struct mailbox *mailbox = tram__mailbox_hold(world->loop->mailbox);
    post_numbers(mailbox);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(ran_count, 12);
    unsigned seen = 0;
    for (unsigned i = 0; i < ran_count; i++)
        seen |= 1u << (ran[i] - 100);
    assert_int_equal(seen, 0xfff);
    struct mail_chain chain = chain_of_numbers(mailbox, 0, 3);
    assert_int_equal(tram__mailbox_post_chain(mailbox, &chain), TRAM_ESTATE);
    assert_int_equal(ran_count, 12);
    struct mail *mail = chain.first, *next;
    for (unsigned i = 0; i < 3; i++, mail = next) {
        next = mail->entry.next ? mail_of(mail->entry.next) : NULL;
        assert_int_equal(mail->payload[0], i);
        assert_ptr_equal(mail->kind, &number_kind);
        tram__mail_free(mailbox, mail);
    }
    assert_null(mail);
    tram__mailbox_release(mailbox);
}

/* ---- A mailbox that outlives its loop ---- */

/* All that a loop allocated goes with it, as a page does: what touches it later crashes. */
struct arena {
    char *memory;
    size_t size, used;
};

#define ARENA_BYTES ((size_t)64 << 20)

static void *arena_allocate(void *context, size_t size) {
    struct arena *arena = context;
    size_t begin = (arena->used + 63) & ~(size_t)63;
    if (begin + size > arena->size)
        return NULL;
    arena->used = begin + size;
    return arena->memory + begin;
}

static void arena_release(void *context, void *memory, size_t size) {
    struct arena *arena = context;
    assert_true((char *)memory >= arena->memory && (char *)memory + size <= arena->memory + arena->used);
}

static void arena_map(struct arena *arena) {
    *arena = (struct arena){.size = ARENA_BYTES};
    arena->memory = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(arena->memory, MAP_FAILED);
}

/* A loop whose memory and system calls end with it, while another has nodes of its mailbox. */
static void test_a_mailbox_that_outlives_its_loop_uses_nothing_of_it(void **state) {
    struct world *world = *state;
    struct arena arena;
    arena_map(&arena);
    tram_allocator allocator = {.allocate = arena_allocate, .release = arena_release, .context = &arena};
    tram_loop_options options = {.allocator = &allocator};
    flood = (struct flood){.to = world->loop};
    struct sys *sys = malloc(sizeof *sys);
    *sys = tram__sys;
    assert_int_equal(tram__loop_new(&options, sys, &flood.from), 0);
    assert_int_equal(tram_loop_call_soon(flood.from, flood_send, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_stop(flood.from), 0);
    assert_int_equal(tram_loop_run_forever(flood.from), 0);
    struct mailbox *mailbox = tram__mailbox_hold(flood.from->mailbox);
    uint64_t timeout_ns;
    tram_loop_prepare(flood.from, &timeout_ns); /* a loop that seems to sleep */
    assert_int_equal(tram_loop_free(flood.from), 0);
    memset(sys, 0, sizeof *sys);
    free(sys);
    assert_int_equal(mprotect(arena.memory, ARENA_BYTES, PROT_NONE), 0);

    tram__mailbox_wake(mailbox);
    assert_null(tram__mailbox_entered);
    struct mail *mail = tram__mail_new(mailbox, &seen_kind);
    assert_non_null(mail);
    assert_int_equal(tram__mailbox_send(mailbox, mail), TRAM_ESTATE);
    run_ticks(world, 4);
    assert_int_equal(flood.next, 1000);
    assert_false(flood.broken);
    tram__mailbox_release(mailbox);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(munmap(arena.memory, ARENA_BYTES), 0);
}

/* The same of a plan of faults, which is freed after its loops. */
static void test_a_mailbox_that_outlives_its_loop_asks_no_fault_plan(void **state) {
    (void)state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_loop_options options = {.faults = faults};
    tram_loop *loop;
    assert_int_equal(tram_loop_new(&options, &loop), 0);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, 1, 1, ENOMEM), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, flood_arrive, NULL, NULL), -ENOMEM);
    struct mailbox *mailbox = tram__mailbox_hold(loop->mailbox);
    assert_int_equal(tram_loop_free(loop), 0);
    tram_faults_free(faults);
    struct mail *mail = tram__mail_new(mailbox, &seen_kind);
    assert_non_null(mail);
    tram__mail_free(mailbox, mail);
    tram__mailbox_release(mailbox);
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

static int post_until_refused(tram_loop *loop, void *arg) {
    struct world *world = arg;
    int status = 0;
    world->fail_after = 0;
    memory_fail(1, UINT64_MAX);
    for (int i = 0; !status && i < 10000; i++)
        status = tram_loop_call_soon_threadsafe(loop, trace_callback, (void *)(uintptr_t) "", NULL);
    world->fail_after = SIZE_MAX;
    memory_fail(0, 0);
    trace(world, "%s", tram_error_name(status));
    return 0;
}

/* … and what it took is given back: the one place there is. */
static void test_X_1_a_post_without_memory_says_so(void **state) {
    struct world *world = *state;
    char word[] = "posted";
    world->options.mailbox_limit = 1;
    world_reopen(world);
    memory_fail(1, UINT64_MAX);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, trace_callback, word, NULL), -ENOMEM);
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, trace_callback, word, NULL), -ENOMEM);
    memory_fail(0, 0);
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, trace_callback, word, NULL), 0);
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, trace_callback, word, NULL), -EAGAIN);
    run_to_rest(world);
    assert_trace(world, "posted");
    assert_int_equal(tram_loop_call_soon(world->loop, post_until_refused, world, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "ENOMEM");
    /* The same where it would go behind mail that waits for its tick. */
    int count = 0;
    world_reopen(world);
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, post_until_refused, world, NULL), 0);
    for (int i = 0; i < 2 * TRAM_MAIL_PER_TICK; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "ENOMEM");
    run_to_rest(world);
    assert_int_equal(count, 2 * TRAM_MAIL_PER_TICK);
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
    for (int i = 0; i < 10; i++)
        assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, count_run, &count, NULL), 0);
    assert_int_equal(tram_loop_close(world->loop), 0); /* what it discards takes no place */
    assert_int_equal(tram_loop_try_call_soon_threadsafe(world->loop, count_run, &count, NULL), TRAM_ESTATE);
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
    const void *node = world->loop->mailbox->shared_free.head;
    assert_non_null(node);
    for (int i = 0; i < 1000; i++) {
        tram_loop_call_soon_threadsafe(world->loop, count_run, &count, NULL);
        run_ticks(world, 1);
    }
    assert_ptr_equal(world->loop->mailbox->shared_free.head, node);
    assert_null(world->loop->mailbox->shared_free.head->next);
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
        CASE(test_L_11_what_was_accepted_while_the_loop_closed_is_run_or_discarded),
        CASE(test_L_11_a_close_in_the_middle_of_a_post_loses_nothing),
        CASE(test_L_11_a_refused_node_stays_the_posters),
        CASE(test_L_11_a_chain_is_as_many_nodes),
        CASE(test_L_11_a_chain_is_discarded_or_refused_as_a_whole),
        CASE(test_a_mailbox_that_outlives_its_loop_uses_nothing_of_it),
        CASE(test_a_mailbox_that_outlives_its_loop_asks_no_fault_plan),
        CASE(test_X_1_a_post_without_memory_says_so),
        CASE(test_try_posts_are_bounded_and_others_are_not),
        CASE(test_a_flood_of_mail_comes_in_portions_and_timers_run_between),
        CASE(test_a_busy_loop_is_not_woken_by_a_system_call),
        CASE(test_a_sleeping_loop_is_woken_once_for_many_posts),
        CASE(test_cells_are_used_again),
    };
    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
