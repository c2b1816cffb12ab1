/*
 * Corrupt structures are caught by an assertion that names what is wrong, not by a crash later. Each case runs in a
 * child: a loop with connections, timers, queued callbacks and free slots, one word of which is changed.
 */
#include "support/stream.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/actors/actor.h"
#include "core/actors/addressees.h"
#include "core/loop/handles.h"
#include "core/loop/loop.h"
#include "core/tasks/task.h"
#include "support/support.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

#define STREAMS 4
#define TIMERS  40
#define TASKS   3
#define ACTORS  3

struct scene {
    struct world *world;
    tram_loop *loop;
    struct stream streams[STREAMS]; /* each has bytes queued */
    tram_handle timers[TIMERS];
    tram_task *tasks[TASKS];
    tram_actor actors[ACTORS];
    unsigned seed;
};

/* One of `count`, by the seed. */
static unsigned pick(const struct scene *scene, unsigned count) {
    return scene->seed % count;
}

static tram_transport *some_transport(const struct scene *scene) {
    return scene->streams[pick(scene, STREAMS)].transport;
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static int sleep_long(void *arg) {
    (void)arg;
    return tram_sleep(3600000000000u);
}

static const tram_actor_ops actor_ops = {.started = NULL};

static void build_tasks_and_actors(struct scene *scene) {
    tram_task *ended;
    for (unsigned i = 0; i < TASKS; i++)
        assert_int_equal(tram_task_spawn(scene->loop, sleep_long, NULL, NULL, &scene->tasks[i]), 0);
    assert_int_equal(tram_task_spawn(scene->loop, sleep_long, NULL, NULL, &ended), 0);
    tram_task_cancel(ended);
    tram_task_release(ended);
    for (unsigned i = 0; i < ACTORS; i++) {
        scene->actors[i].ops = &actor_ops;
        assert_int_equal(tram_loop_start_actor(scene->loop, &scene->actors[i]), 0);
    }
    tram_address other;
    assert_int_equal(tram_actor_address(&scene->actors[1], &other), 0);
    assert_int_equal(tram_actor_link(&scene->actors[0], other), 0);
    run_to_rest(scene->world);
}

static void build(struct scene *scene, struct world *world, unsigned seed) {
    *scene = (struct scene){.world = world, .loop = world->loop, .seed = seed};
    static char bytes[4u << 20];
    for (unsigned i = 0; i < STREAMS; i++) {
        scene->streams[i] = stream_open(world);
        tram_transport_write(scene->streams[i].transport, bytes, sizeof bytes);
        assert_true(scene->streams[i].transport->queue.last);
    }
    struct stream gone = stream_open(world); /* leaves a free io slot and a free transport */
    stream_close(&gone);
    run_to_rest(world);
    build_tasks_and_actors(scene);
    uint64_t now = scene->loop->timers.tick << 20, far = 60000000000u;
    for (unsigned i = 0; i < TIMERS; i++) /* near ones in the heap, far ones in the wheel */
        assert_int_equal(tram_loop_call_at(scene->loop, i % 2 ? now + (i + 1) * far : now + i, nothing, NULL, NULL,
                                           &scene->timers[i]),
                         0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(tram_loop_call_soon(scene->loop, nothing, NULL, NULL, NULL), 0);
}

/* ---- What is corrupted ---- */

static void ready_link_skips(struct scene *scene) {
    struct list *node = scene->loop->ready.next;
    for (unsigned i = 0; i < pick(scene, 4); i++)
        node = node->next;
    node->next = node->next->next;
}

static void ready_link_is_null(struct scene *scene) {
    scene->loop->ready.next->previous = NULL;
}

static void hook_link_points_to_itself(struct scene *scene) {
    scene->loop->close_hooks.next->next = scene->loop->close_hooks.next;
}

static struct list *wheel_lane(struct scene *scene) {
    struct timers *timers = &scene->loop->timers;
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            for (unsigned lane = 0; lane < TIMER_LANES; lane++)
                if (!list_empty(&timers->slots[level][slot].lanes[lane]))
                    return &timers->slots[level][slot].lanes[lane];
    fail_msg("no timer is in the wheel");
    return NULL;
}

static void wheel_link_skips(struct scene *scene) {
    struct list *lane = wheel_lane(scene);
    lane->next = lane;
}

static void wheel_timer_says_heap(struct scene *scene) {
    ((struct timer *)(void *)wheel_lane(scene)->next)->place = TIMER_HEAP;
}

static void wheel_bit_is_lost(struct scene *scene) {
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        scene->loop->timers.occupied[level] = 0;
}

static void wheel_bit_is_set(struct scene *scene) {
    scene->loop->timers.occupied[7] |= 1ull << (8 + pick(scene, 8));
}

static void timer_count_is_wrong(struct scene *scene) {
    scene->loop->timers.count += scene->seed % 2 ? 1 : (uint64_t)-1;
}

static void heap_index_is_wrong(struct scene *scene) {
    struct timers *timers = &scene->loop->timers;
    timers->heap[pick(scene, timers->heap_count)].timer->heap_index++;
}

static void heap_deadline_is_wrong(struct scene *scene) {
    struct timers *timers = &scene->loop->timers;
    timers->heap[pick(scene, timers->heap_count)].timer->deadline++;
}

static void heap_is_out_of_order(struct scene *scene) {
    struct timers *timers = &scene->loop->timers;
    struct timer_heap_entry *last = &timers->heap[timers->heap_count - 1];
    last->deadline = last->timer->deadline = 0;
}

static void heap_count_is_wrong(struct scene *scene) {
    scene->loop->timers.heap_count--;
}

static union io_slot *io_slot(struct scene *scene, uint32_t slot) {
    return io_slot_at(scene->loop, slot);
}

static void io_slot_is_empty(struct scene *scene) {
    io_slot(scene, some_transport(scene)->io.slot)->io = NULL;
}

static void io_slot_says_free(struct scene *scene) {
    io_slot(scene, some_transport(scene)->io.slot)->slot = (struct slot){1, 0};
}

static void io_slot_is_anothers(struct scene *scene) {
    uint32_t slot = some_transport(scene)->io.slot;
    io_slot(scene, slot)->io = &scene->streams[(pick(scene, STREAMS) + 1) % STREAMS].transport->io;
}

static void io_says_another_slot(struct scene *scene) {
    some_transport(scene)->io.slot++;
}

static void io_has_the_generation_of_nobody(struct scene *scene) {
    some_transport(scene)->io.generation++;
}

static void io_free_list_has_a_circle(struct scene *scene) {
    uint32_t slot = scene->loop->io_slots.free;
    assert_true(slot);
    io_slot(scene, slot)->slot.number = slot;
}

static void io_free_list_is_cut(struct scene *scene) {
    scene->loop->io_slots.free = 0;
}

static void io_free_list_leads_to_a_used_one(struct scene *scene) {
    scene->loop->io_slots.free = some_transport(scene)->io.slot;
}

static void io_count_is_wrong(struct scene *scene) {
    uint32_t chunks = atomic_load(&scene->loop->io_slots.directory)->capacity + 1;
    atomic_store(&scene->loop->io_slots.count, chunks * io_slots_layout.per_chunk);
}

static void descriptor_leads_nowhere(struct scene *scene) {
    scene->loop->descriptors[0][some_transport(scene)->io.fd] = 0;
}

static void descriptor_leads_to_another(struct scene *scene) {
    scene->loop->descriptors[0][0] = some_transport(scene)->io.slot;
}

static void queue_size_is_wrong(struct scene *scene) {
    some_transport(scene)->queue.size += scene->seed % 2 ? 1 : (size_t)-1;
}

/* A link is what a chunk begins with. */
static void queue_link_skips(struct scene *scene) {
    void **last = (void *)some_transport(scene)->queue.last;
    *last = *(void **)*last;
}

static void queue_is_lost(struct scene *scene) {
    some_transport(scene)->queue.last = NULL;
}

static void flag_lost_is_set(struct scene *scene) {
    some_transport(scene)->flags |= T_LOST;
}

static void flag_lost_pending_without_closing(struct scene *scene) {
    some_transport(scene)->flags |= T_LOST_PENDING;
}

static void flag_made_twice(struct scene *scene) {
    some_transport(scene)->flags |= T_MADE_PENDING;
}

static void flag_exclusive_without_writer(struct scene *scene) {
    some_transport(scene)->flags |= T_EXCLUSIVE;
}

static void flag_without_a_name(struct scene *scene) {
    unsigned first = 32u - (unsigned)__builtin_clz((unsigned)T_FLAGS_END - 1u);
    some_transport(scene)->flags |= 1u << (first + pick(scene, 32 - first));
}

static void marks_are_crossed(struct scene *scene) {
    static const struct write_limits crossed = {.high = 1, .low = 2};
    some_transport(scene)->limits = &crossed;
}

static void holds_are_gone(struct scene *scene) {
    some_transport(scene)->holds = 0;
}

static void protocol_is_gone(struct scene *scene) {
    some_transport(scene)->protocol = NULL;
}

static void pool_counts_one_too_many(struct scene *scene) {
    transport_state(scene->loop)->pool.live++;
}

static void pool_has_freed_one_twice(struct scene *scene) {
    struct pool *pool = &transport_state(scene->loop)->pool;
    void *object = pool->free;
    *(void **)object = object;
}

static void pool_gives_a_live_one(struct scene *scene) {
    struct pool *pool = &transport_state(scene->loop)->pool;
    *(void **)pool->free = (char *)some_transport(scene) + 8;
}

static void pool_lost_its_free_ones(struct scene *scene) {
    transport_state(scene->loop)->pool.free = NULL;
}

static void chunk_count_is_wrong(struct scene *scene) {
    transport_state(scene->loop)->chunk_cache[pick(scene, 2)].count++;
}

static void released_list_has_no_end(struct scene *scene) {
    static tram_protocol protocol;
    protocol.reserved = 1;
    transport_state(scene->loop)->released = &protocol;
    transport_state(scene->loop)->released_last = NULL;
}

static struct slot *call_slot(struct scene *scene, uint32_t slot) {
    return &call_at(scene->loop, slot)->slot;
}

static void call_says_another_slot(struct scene *scene) {
    call_slot(scene, scene->timers[pick(scene, TIMERS)].slot)->number++;
}

static void call_free_list_has_a_circle(struct scene *scene) {
    uint32_t slot = scene->loop->calls.free;
    assert_true(slot);
    call_slot(scene, slot)->number = slot;
}

static void call_free_list_leads_to_a_used_one(struct scene *scene) {
    scene->loop->calls.free = scene->timers[pick(scene, TIMERS)].slot;
}

static void call_in_the_queue_is_unlinked(struct scene *scene) {
    struct list *link = scene->loop->ready.previous;
    link->previous->next = link->next; /* and the list is whole without it */
    link->next->previous = link->previous;
}

static struct addressees *addressees(struct scene *scene) {
    return actors_present(scene->loop)->here;
}

static uint32_t actor_slot(struct scene *scene) {
    return scene->actors[pick(scene, ACTORS)].record->slot;
}

static void addressee_is_free_but_in_no_list(struct scene *scene) {
    addressee_at(addressees(scene), actor_slot(scene))->deliver = NULL;
}

static void addressee_generation_is_lost(struct scene *scene) {
    addressee_at(addressees(scene), actor_slot(scene))->slot.generation++;
}

static void addressee_free_list_leads_to_a_used_one(struct scene *scene) {
    addressees(scene)->slots.free = actor_slot(scene);
}

static void addressee_free_list_has_a_circle(struct scene *scene) {
    uint32_t slot = addressees(scene)->slots.free;
    assert_true(slot);
    addressee_at(addressees(scene), slot)->slot.number = slot;
}

static void actor_has_anothers_record(struct scene *scene) {
    unsigned i = pick(scene, ACTORS);
    scene->actors[i].record = scene->actors[(i + 1) % ACTORS].record;
}

static void actor_link_is_cut(struct scene *scene) {
    struct list *link = &scene->actors[0].record->links;
    assert_false(list_empty(link));
    link->next = link;
}

static void task_link_skips(struct scene *scene) {
    struct list *link = &scene->tasks[pick(scene, TASKS)]->link;
    link->next = link->next->next;
}

static void task_scope_is_no_link(struct scene *scene) {
    scene->tasks[pick(scene, TASKS)]->scopes.previous = NULL;
}

static void task_pool_has_freed_one_twice(struct scene *scene) {
    struct pool *pool = &task_loop_present(scene->loop)->pool;
    void *object = pool->free;
    *(void **)object = object;
}

static void task_pool_counts_too_few(struct scene *scene) {
    task_loop_present(scene->loop)->pool.live--;
}

struct corruption {
    const char *name;
    void (*corrupt)(struct scene *scene);
};

#define CORRUPTION(function)                                                                                           \
    { #function, function }

static const struct corruption corruptions[] = {
    CORRUPTION(ready_link_skips),
    CORRUPTION(ready_link_is_null),
    CORRUPTION(hook_link_points_to_itself),
    CORRUPTION(wheel_link_skips),
    CORRUPTION(wheel_timer_says_heap),
    CORRUPTION(wheel_bit_is_lost),
    CORRUPTION(wheel_bit_is_set),
    CORRUPTION(timer_count_is_wrong),
    CORRUPTION(heap_index_is_wrong),
    CORRUPTION(heap_deadline_is_wrong),
    CORRUPTION(heap_is_out_of_order),
    CORRUPTION(heap_count_is_wrong),
    CORRUPTION(io_slot_is_empty),
    CORRUPTION(io_slot_says_free),
    CORRUPTION(io_slot_is_anothers),
    CORRUPTION(io_says_another_slot),
    CORRUPTION(io_has_the_generation_of_nobody),
    CORRUPTION(io_free_list_has_a_circle),
    CORRUPTION(io_free_list_is_cut),
    CORRUPTION(io_free_list_leads_to_a_used_one),
    CORRUPTION(io_count_is_wrong),
    CORRUPTION(descriptor_leads_nowhere),
    CORRUPTION(descriptor_leads_to_another),
    CORRUPTION(queue_size_is_wrong),
    CORRUPTION(queue_link_skips),
    CORRUPTION(queue_is_lost),
    CORRUPTION(flag_lost_is_set),
    CORRUPTION(flag_lost_pending_without_closing),
    CORRUPTION(flag_made_twice),
    CORRUPTION(flag_exclusive_without_writer),
    CORRUPTION(flag_without_a_name),
    CORRUPTION(marks_are_crossed),
    CORRUPTION(holds_are_gone),
    CORRUPTION(protocol_is_gone),
    CORRUPTION(pool_counts_one_too_many),
    CORRUPTION(pool_has_freed_one_twice),
    CORRUPTION(pool_gives_a_live_one),
    CORRUPTION(pool_lost_its_free_ones),
    CORRUPTION(chunk_count_is_wrong),
    CORRUPTION(released_list_has_no_end),
    CORRUPTION(call_says_another_slot),
    CORRUPTION(call_free_list_has_a_circle),
    CORRUPTION(call_free_list_leads_to_a_used_one),
    CORRUPTION(call_in_the_queue_is_unlinked),
    CORRUPTION(addressee_is_free_but_in_no_list),
    CORRUPTION(addressee_generation_is_lost),
    CORRUPTION(addressee_free_list_leads_to_a_used_one),
    CORRUPTION(addressee_free_list_has_a_circle),
    CORRUPTION(actor_has_anothers_record),
    CORRUPTION(actor_link_is_cut),
    CORRUPTION(task_link_skips),
    CORRUPTION(task_scope_is_no_link),
    CORRUPTION(task_pool_has_freed_one_twice),
    CORRUPTION(task_pool_counts_too_few),
};

/* ---- In a child ---- */

/* What the child said before it ended; its wait status. */
static int in_child(void (*run)(struct scene *scene), struct scene *scene, char *said, size_t size) {
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_fds[1], STDERR_FILENO);
        run(scene);
        tram__loop_validate(scene->loop);
        _exit(0);
    }
    close(pipe_fds[1]);
    size_t used = 0;
    ssize_t part;
    while (used < size - 1 && (part = read(pipe_fds[0], said + used, size - 1 - used)) > 0)
        used += (size_t)part;
    said[used] = '\0';
    close(pipe_fds[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void leave_alone(struct scene *scene) {
    (void)scene;
}

static void end(struct scene *scene) {
    for (unsigned i = 0; i < STREAMS; i++)
        stream_close(&scene->streams[i]);
    for (unsigned i = 0; i < TASKS; i++) {
        tram_task_cancel(scene->tasks[i]);
        tram_task_release(scene->tasks[i]);
    }
    for (unsigned i = 0; i < ACTORS; i++)
        tram_actor_stop(&scene->actors[i], 0);
    run_to_rest(scene->world);
}

static void test_a_sound_loop_passes(void **state) {
    struct scene scene;
    char said[1024];
    build(&scene, *state, 0);
    assert_int_equal(in_child(leave_alone, &scene, said, sizeof said), 0);
    assert_string_equal(said, "");
    tram__loop_validate(scene.loop);
    end(&scene);
}

static void test_every_corruption_is_caught_by_an_assertion(void **state) {
    struct scene scene;
    char said[1024];
    build(&scene, *state, 0);
    for (unsigned seed = 1; seed <= 3; seed++) {
        scene.seed = seed;
        for (size_t i = 0; i < sizeof corruptions / sizeof corruptions[0]; i++) {
            int status = in_child(corruptions[i].corrupt, &scene, said, sizeof said);
            if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, "tram: assertion failed"))
                fail_msg("%s with seed %u: status %d, said \"%s\"", corruptions[i].name, seed, status, said);
        }
    }
    end(&scene);
}

static void write_to_a_free_one(struct scene *scene) {
    struct pool *pool = &transport_state(scene->loop)->pool;
    ((char *)pool->free)[16 + scene->seed] ^= 1;
}

static void test_writing_to_a_freed_transport_is_caught_in_checked_builds(void **state) {
    if (!TRAM_CHECKED)
        skip();
    struct scene scene;
    char said[1024];
    build(&scene, *state, 0);
    for (scene.seed = 0; scene.seed < 3; scene.seed++) {
        int status = in_child(write_to_a_free_one, &scene, said, sizeof said);
#if defined(TRAM_ASAN)
        assert_int_not_equal(status, 0);
        assert_non_null(strstr(said, "use-after-poison"));
#else
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        assert_non_null(strstr(said, "FREE_BYTE"));
#endif
    }
    end(&scene);
}

static void test_flags_read_as_words(void **state) {
    struct scene scene;
    char text[160], cut[8];
    build(&scene, *state, 0);
    tram_transport *transport = scene.streams[0].transport;
    tram__transport_describe(transport, text, sizeof text);
    assert_non_null(strstr(text, "made"));
    assert_non_null(strstr(text, "writing-paused"));
    assert_null(strstr(text, "closing"));
    tram__transport_describe(transport, cut, sizeof cut);
    assert_true(strlen(cut) < sizeof cut);
    end(&scene);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_a_sound_loop_passes),
        TEST(test_every_corruption_is_caught_by_an_assertion),
        TEST(test_writing_to_a_freed_transport_is_caught_in_checked_builds),
        TEST(test_flags_read_as_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
