/* Messages to protocols: addresses, delivery, what is dropped, bounds, requests and work on other loops. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/actors/actors.h"
#include "support/memory.h"
#include "support/support.h"

/* ---- A protocol that notes its messages ---- */

struct receiver {
    tram_protocol base;
    struct world *world;
    const char *name;
    bool (*on)(struct receiver *receiver, tram_message *message); /* NULL, or instead of noting; false: note */
    void *arg;
    int status; /* what message_received returns */
    bool lost;
    unsigned messages;
    tram_request *request;
};

static int receive(tram_protocol *protocol, tram_message *message) {
    struct receiver *receiver = (struct receiver *)protocol;
    receiver->messages++;
    if (!receiver->on || !receiver->on(receiver, message))
        trace(receiver->world, "%s:%u:%u", receiver->name, message->tag, (unsigned)message->words[0]);
    return receiver->status;
}

static int note_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    ((struct receiver *)protocol)->lost = true;
    return 0;
}

static const tram_protocol_ops receiver_ops = {.message_received = receive, .connection_lost = note_lost};

/* Two receivers at the ends of a pair. */
struct ends {
    struct world *world;
    struct receiver a, b;
    tram_transport *first, *second;
    tram_address to_a, to_b;
};

static void receiver_init(struct receiver *receiver, struct world *world, const char *name) {
    *receiver = (struct receiver){.base.ops = &receiver_ops, .world = world, .name = name};
}

static void ends_open_on(struct ends *ends, struct world *world, tram_loop *loop) {
    ends->world = world;
    receiver_init(&ends->a, world, "a");
    receiver_init(&ends->b, world, "b");
    assert_int_equal(tram_loop_create_pair(loop, &ends->a.base, &ends->b.base, &ends->first, &ends->second), 0);
    assert_int_equal(tram_transport_address(ends->first, &ends->to_a), 0);
    assert_int_equal(tram_transport_address(ends->second, &ends->to_b), 0);
}

static void ends_open(struct ends *ends, struct world *world) {
    ends_open_on(ends, world, world->loop);
    run_ticks(world, 2);
}

static void ends_close(struct ends *ends) {
    tram_transport_abort(ends->first);
    run_to_rest(ends->world);
    assert_true(ends->a.lost && ends->b.lost);
}

static tram_message number(uint32_t tag, uint64_t value) {
    return (tram_message){.tag = tag, .words = {value}};
}

static int post(tram_address to, uint32_t tag, uint64_t value) {
    tram_message message = number(tag, value);
    return tram_post(to, &message);
}

/* ---- Messages that refer to something ---- */

static _Atomic int destroyed, dropped;
static tram_loop *dropped_on;

static void count_destroyed(tram_message *message) {
    (void)message;
    destroyed++;
}

static void count_dropped(tram_message *message) {
    (void)message;
    dropped_on = tram_loop_running();
    dropped++;
}

static const tram_message_type counted = {.name = "counted", .destroy = count_destroyed, .dropped = count_dropped};

static tram_message counted_message(uint32_t tag) {
    return (tram_message){.type = &counted, .tag = tag};
}

static void reset_counts(void) {
    destroyed = dropped = 0;
    dropped_on = NULL;
}

/* ---- Another thread ---- */

struct thread {
    pthread_t thread;
    void (*run)(void *arg);
    void *arg;
};

static void *thread_main(void *arg) {
    struct thread *thread = arg;
    thread->run(thread->arg);
    return NULL;
}

static void on_thread(void (*run)(void *arg), void *arg) {
    struct thread thread = {.run = run, .arg = arg};
    assert_int_equal(pthread_create(&thread.thread, NULL, thread_main, &thread), 0);
    pthread_join(thread.thread, NULL);
}

/* A second loop that runs on a thread of its own until it is stopped. */
struct second {
    tram_loop *loop;
    pthread_t thread;
};

static void *run_second(void *arg) {
    tram_loop_run_forever(arg);
    return NULL;
}

static void second_start(struct second *second) {
    assert_int_equal(pthread_create(&second->thread, NULL, run_second, second->loop), 0);
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void second_stop(struct second *second) {
    assert_int_equal(tram_loop_call_soon_threadsafe(second->loop, stop, NULL, NULL), 0);
    pthread_join(second->thread, NULL);
}

/* ---- Delivery ---- */

static void test_N_2_N_10_a_message_reaches_the_protocol_in_order(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    assert_false(tram_address_equal(ends.to_a, ends.to_b));
    assert_int_equal(post(ends.to_a, 1, 10), 0);
    assert_int_equal(post(ends.to_b, 2, 20), 0);
    assert_int_equal(post(ends.to_a, 3, 30), 0);
    assert_trace(world, ""); /* not within the post */
    run_to_rest(world);
    assert_trace(world, "a:1:10 b:2:20 a:3:30");
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.messages, 3);
    assert_int_equal(stats.dropped_messages, 0);
    ends_close(&ends);
}

static void post_from_thread(void *arg) {
    struct ends *ends = arg;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(post(ends->to_a, i, i * i), 0);
}

static void test_N_2_a_message_of_a_thread_without_a_loop(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    on_thread(post_from_thread, &ends);
    run_to_rest(world);
    assert_trace(world, "a:0:0 a:1:1 a:2:4 a:3:9 a:4:16");
    ends_close(&ends);
}

static int post_in_loop(tram_loop *loop, void *arg) {
    post_from_thread(arg);
    return tram_loop_stop(loop);
}

static void run_loop_that_posts(void *arg) {
    tram_loop *loop;
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    for (int i = 0; i < 3; i++) { /* the route outlives a run */
        assert_int_equal(tram_loop_call_soon(loop, post_in_loop, arg, NULL, NULL), 0);
        assert_int_equal(tram_loop_run_forever(loop), 0);
    }
    assert_int_equal(tram_loop_free(loop), 0);
}

static void test_N_2_messages_of_another_loop(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    on_thread(run_loop_that_posts, &ends);
    run_to_rest(world);
    assert_trace(world, "a:0:0 a:1:1 a:2:4 a:3:9 a:4:16 a:0:0 a:1:1 a:2:4 a:3:9 a:4:16 "
                        "a:0:0 a:1:1 a:2:4 a:3:9 a:4:16");
    ends_close(&ends);
}

static bool post_on(struct receiver *receiver, tram_message *message) {
    if (message->words[0] < 3)
        assert_int_equal(post(*(tram_address *)receiver->arg, message->tag, message->words[0] + 1), 0);
    return false;
}

static void test_N_2_a_protocol_may_post_within_message_received(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = ends.b.on = post_on;
    ends.a.arg = &ends.to_b;
    ends.b.arg = &ends.to_a;
    assert_int_equal(post(ends.to_a, 7, 0), 0);
    run_to_rest(world);
    assert_trace(world, "a:7:0 b:7:1 a:7:2 b:7:3");
    ends_close(&ends);
}

static void test_N_1_an_address_survives_set_protocol(void **state) {
    struct world *world = *state;
    struct ends ends;
    struct receiver other;
    tram_address again;
    ends_open(&ends, world);
    receiver_init(&other, world, "other");
    assert_int_equal(post(ends.to_a, 1, 1), 0);
    assert_int_equal(tram_transport_set_protocol(ends.first, &other.base), 0);
    assert_int_equal(post(ends.to_a, 2, 2), 0);
    run_to_rest(world);
    assert_trace(world, "other:1:1 other:2:2");
    assert_int_equal(tram_protocol_address(&other.base, &again), 0);
    assert_true(tram_address_equal(again, ends.to_a));
    assert_int_equal(tram_protocol_address(&ends.a.base, &again), TRAM_ESTATE);
    ends.a.lost = true;
    ends_close(&ends);
}

static void test_N_5_a_failing_message_received_is_reported_and_changes_nothing(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.status = TRAM_EUSER;
    assert_int_equal(post(ends.to_a, 1, 1), 0);
    run_to_rest(world);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_ptr_equal(world->exception_transport, ends.first);
    assert_false(ends.a.lost);
    world->trace[0] = '\0';
    world->exceptions = 0;
    ends_close(&ends);
}

static void test_N_1_addresses_as_text_and_in_order(void **state) {
    (void)state;
    char text[48];
    tram_address a = {2, 1, 17, 3}, b = {2, 1, 17, 4}, c = {2, 3, 1, 1};
    assert_string_equal(tram_address_text(a, text, sizeof text), "2.1/17.3");
    assert_true(tram_address_compare(a, b) < 0 && tram_address_compare(b, c) < 0 && tram_address_compare(c, a) > 0);
    assert_int_equal(tram_address_compare(a, a), 0);
    tram_address largest = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    assert_string_equal(tram_address_text(largest, text, sizeof text), "4294967295.4294967295/4294967295.4294967295");
}

/* ---- What is dropped ---- */

static void test_N_4_N_5_N_10_what_comes_after_connection_lost_is_dropped_by_name(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    reset_counts();
    tram_transport *held = tram_transport_hold(ends.first);
    tram_message message = counted_message(1);
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    run_to_rest(world);
    assert_int_equal(destroyed, 1);
    world->trace[0] = '\0';
    ends_close(&ends);
    assert_int_equal(tram_post(ends.to_a, &message), 0); /* the loop is there */
    assert_int_equal(dropped, 0);
    run_to_rest(world);
    assert_int_equal(dropped, 1);
    assert_int_equal(destroyed, 1);
    tram_transport_release(held);
    run_to_rest(world);
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    run_to_rest(world);
    assert_int_equal(dropped, 2);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.messages, 1);
    assert_int_equal(stats.dropped_messages, 2);
    assert_trace(world, "");
}

static int ask_for_address(struct recorder *recorder, const char *event) {
    tram_address address;
    if (strcmp(event, "lost") == 0)
        *(int *)recorder->arg = tram_transport_address(recorder->base.transport, &address);
    return 0;
}

static void test_N_1_what_is_lost_has_no_address_any_more(void **state) {
    struct world *world = *state;
    int answer = 0;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = ask_for_address;
    recorder->arg = &answer;
    struct wire wire = wire_new_made(world, recorder);
    tram_transport *transport = tram_transport_hold(wire.transport);
    tram_address address;
    assert_int_equal(tram_transport_address(transport, &address), 0);
    tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
    assert_int_equal(answer, TRAM_ESTATE);
    assert_int_equal(tram_transport_address(transport, &address), TRAM_ESTATE);
    tram_transport_release(transport);
    close(wire.peer);
}

static void test_N_1_who_reuses_a_slot_gets_nothing_of_its_predecessor(void **state) {
    struct world *world = *state;
    struct ends before, after;
    ends_open(&before, world);
    tram_address old = before.to_a;
    ends_close(&before);
    ends_open(&after, world);
    assert_true(after.to_a.slot == old.slot || after.to_b.slot == old.slot);
    assert_false(tram_address_equal(after.to_a, old) || tram_address_equal(after.to_b, old));
    assert_int_equal(post(old, 2, 2), 0);
    tram_message message = number(3, 3);
    assert_int_equal(tram_try_post(old, &message), 0);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(after.a.messages + after.b.messages, 0);
    ends_close(&after);
}

static void test_N_4_a_protocol_without_message_received_drops(void **state) {
    struct world *world = *state;
    struct recorder *a = recorder_new(world, NULL), *b = recorder_new(world, NULL);
    tram_transport *transport;
    tram_address address;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &transport, NULL), 0);
    assert_int_equal(tram_transport_address(transport, &address), 0);
    reset_counts();
    tram_message message = counted_message(1);
    assert_int_equal(tram_post(address, &message), 0);
    run_to_rest(world);
    assert_int_equal(dropped, 1);
    tram_transport_abort(transport);
    run_to_rest(world);
}

static void test_N_3_N_4_what_is_queued_when_the_loop_closes_is_dropped_once(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    reset_counts();
    tram_message message = counted_message(1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(tram_post(ends.to_a, &message), 0);
    assert_int_equal(tram_try_post(ends.to_a, &message), 0);
    tram_address to = ends.to_a;
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    assert_int_equal(dropped, 11);
    assert_int_equal(destroyed, 0);
    assert_int_equal(tram_post(to, &message), TRAM_ESTATE);
    assert_int_equal(dropped, 11);
    world_reopen(world);
}

static void test_N_1_N_3_a_number_that_is_used_again_has_another_generation(void **state) {
    struct world *world = *state;
    tram_address before[20];
    for (int i = 0; i < 20; i++) {
        struct ends ends;
        tram_loop *loop;
        assert_int_equal(tram_loop_new(NULL, &loop), 0);
        ends_open_on(&ends, world, loop);
        before[i] = ends.to_a;
        for (int j = 0; j < i; j++) {
            assert_false(tram_address_equal(before[j], ends.to_a));
            assert_int_equal(before[j].loop, before[i].loop); /* the lowest that is free */
            assert_int_equal(post(before[j], 1, 1), TRAM_ESTATE);
        }
        assert_int_equal(tram_loop_free(loop), 0);
        assert_int_equal(ends.a.messages, 0);
    }
    tram_address nobody = {0};
    assert_int_equal(post(nobody, 1, 1), TRAM_ESTATE);
    nobody.loop = UINT32_MAX;
    assert_int_equal(post(nobody, 1, 1), TRAM_ESTATE);
    nobody = before[19];
    nobody.loop_generation++;
    assert_int_equal(post(nobody, 1, 1), TRAM_ESTATE);
}

static void test_N_3_a_slot_that_never_was_drops(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    reset_counts();
    tram_message message = counted_message(1);
    tram_address nobody = ends.to_a;
    nobody.slot = 4000000000u;
    assert_int_equal(tram_post(nobody, &message), 0);
    assert_int_equal(tram_try_post(nobody, &message), TRAM_ESTATE);
    nobody.slot = 0;
    assert_int_equal(tram_post(nobody, &message), 0);
    run_to_rest(world);
    assert_int_equal(dropped, 2);
    ends_close(&ends);
}

static void test_N_3_L_41_messages_of_a_forked_child_are_refused(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    pid_t child = fork();
    if (child == 0) {
        tram_message message = number(1, 1);
        bool good = tram_post(ends.to_a, &message) == -ECHILD && tram_try_post(ends.to_a, &message) == -ECHILD &&
                    tram_post_batch(ends.to_a, &message, 1) == -ECHILD;
        tram_loop *own;
        struct ends others;
        good = good && tram_loop_new(NULL, &own) == 0;
        if (good) {
            ends_open_on(&others, world, own);
            good = tram_post(others.to_a, &message) == 0 && tram_loop_free(own) == 0;
        }
        _exit(good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    run_to_rest(world);
    assert_trace(world, "");
    ends_close(&ends);
}

/* ---- What a message refers to ---- */

static bool take_it(struct receiver *receiver, tram_message *message) {
    *(tram_message *)receiver->arg = tram_message_take(message);
    return true;
}

static void test_N_4_what_a_message_refers_to_is_destroyed_unless_it_is_taken(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_message taken = {0};
    ends_open(&ends, world);
    reset_counts();
    tram_message message = counted_message(4);
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    run_to_rest(world);
    assert_int_equal(destroyed, 1);
    ends.a.on = take_it;
    ends.a.arg = &taken;
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    run_to_rest(world);
    assert_int_equal(destroyed, 1);
    assert_ptr_equal(taken.type, &counted);
    assert_int_equal(taken.tag, 4);
    world->trace[0] = '\0';
    ends_close(&ends);
    assert_int_equal(dropped, 0);
}

/* ---- Many at once ---- */

static void test_N_7_a_batch_arrives_in_order_or_not_at_all(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_message messages[300];
    ends_open(&ends, world);
    for (uint32_t i = 0; i < 300; i++)
        messages[i] = number(0, i);
    assert_int_equal(tram_post_batch(ends.to_a, messages, 0), 0);
    assert_int_equal(tram_post_batch(ends.to_a, messages, 4), 0);
    run_to_rest(world);
    assert_trace(world, "a:0:0 a:0:1 a:0:2 a:0:3");
    ends.a.name = "";
    assert_int_equal(tram_post_batch(ends.to_a, messages, 300), 0);
    run_to_rest(world);
    assert_int_equal(ends.a.messages, 304);
    world->trace[0] = '\0';
    ends_close(&ends);
}

static void test_N_7_a_broadcast_copies_references_only(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    tram_buffer *buffer = tram_buffer_copy("text", 4);
    tram_message message = {.type = &tram_buffer_message, .tag = 9, .data = buffer}, taken[2] = {{0}};
    ends.a.on = ends.b.on = take_it;
    ends.a.arg = &taken[0];
    ends.b.arg = &taken[1];
    tram_address gone = ends.to_a;
    gone.loop_generation += 2;
    tram_address to[] = {ends.to_a, gone, ends.to_b};
    assert_int_equal(tram_broadcast(to, 3, &message), 2);
    run_to_rest(world);
    assert_ptr_equal(taken[0].data, buffer);
    assert_ptr_equal(taken[1].data, buffer);
    for (int i = 0; i < 2; i++)
        tram_buffer_release(taken[i].data);
    tram_buffer_release(buffer); /* asan sees to the count */
    ends_close(&ends);
}

static int no_copy(tram_message *message) {
    (void)message;
    return -ENOMEM;
}

static void test_N_7_what_cannot_be_copied_is_not_posted(void **state) {
    static const tram_message_type type = {.name = "single", .destroy = count_destroyed, .copy = no_copy};
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    reset_counts();
    tram_message message = {.type = &type, .tag = 1};
    tram_address to[] = {ends.to_a, ends.to_b};
    assert_int_equal(tram_broadcast(to, 2, &message), 0);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(destroyed, 0);
    ends_close(&ends);
}

/* ---- Bounds ---- */

static void test_N_6_try_post_is_bounded_for_each_addressee(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    tram_message message = number(0, 0);
    assert_int_equal(tram_address_set_limit(world->loop, ends.to_a, 3), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_try_post(ends.to_a, &message), 0);
    assert_int_equal(tram_try_post(ends.to_a, &message), -EAGAIN);
    assert_int_equal(tram_try_post(ends.to_b, &message), 0); /* another bound */
    assert_int_equal(tram_post(ends.to_a, &message), 0);     /* no bound */
    run_to_rest(world);
    assert_int_equal(ends.a.messages, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_try_post(ends.to_a, &message), 0);
    assert_int_equal(tram_try_post(ends.to_a, &message), -EAGAIN);
    run_to_rest(world);
    assert_int_equal(tram_address_set_limit(world->loop, ends.to_a, 0), 0);
    for (int i = 0; i < 1024; i++)
        assert_int_equal(tram_try_post(ends.to_a, &message), 0);
    assert_int_equal(tram_try_post(ends.to_a, &message), -EAGAIN);
    run_to_rest(world);
    world->trace[0] = '\0';
    ends_close(&ends);
    assert_int_equal(tram_address_set_limit(world->loop, ends.to_a, 1), -ESRCH);
}

static void assert_counts(struct world *world, tram_address address, uint64_t delivered, uint64_t dropped_there,
                          uint64_t refused, uint32_t waiting, uint32_t limit) {
    tram_message_counts counts;
    assert_int_equal(tram_address_message_counts(world->loop, address, &counts), 0);
    assert_int_equal(counts.delivered, delivered);
    assert_int_equal(counts.dropped, dropped_there);
    assert_int_equal(counts.refused, refused);
    assert_int_equal(counts.waiting, waiting);
    assert_int_equal(counts.limit, limit);
}

static void test_N_10_each_address_has_counts(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    tram_message message = number(0, 0);
    tram_message_counts counts;
    assert_int_equal(tram_address_set_limit(world->loop, ends.to_a, 2), 0);
    assert_counts(world, ends.to_a, 0, 0, 0, 0, 2);
    for (int i = 0; i < 5; i++)
        assert_int_equal(tram_try_post(ends.to_a, &message), i < 2 ? 0 : -EAGAIN);
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    assert_counts(world, ends.to_a, 0, 0, 3, 2, 2);
    run_to_rest(world);
    assert_counts(world, ends.to_a, 3, 0, 3, 0, 2);
    assert_counts(world, ends.to_b, 0, 0, 0, 0, 1024);
    assert_wrong(tram_address_message_counts(world->loop, ends.to_a, NULL), "ret_counts");
    world->trace[0] = '\0';
    ends_close(&ends);
    assert_int_equal(tram_address_message_counts(world->loop, ends.to_a, &counts), -ESRCH);
    /* The slot's next one begins anew. */
    struct recorder *a = recorder_new(world, NULL), *b = recorder_new(world, NULL); /* which receive no messages */
    tram_transport *transport;
    tram_address address;
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &transport, NULL), 0);
    assert_int_equal(tram_transport_address(transport, &address), 0);
    assert_counts(world, address, 0, 0, 0, 0, 1024);
    assert_int_equal(tram_post(address, &message), 0);
    run_to_rest(world);
    assert_counts(world, address, 0, 1, 0, 0, 1024);
    tram_transport_abort(transport);
    run_to_rest(world);
}

static int note_done(tram_future *future, void *arg) {
    struct world *world = arg;
    int status = tram_future_result(future, NULL);
    trace(world, "done:%s", status ? tram_error_name(status) : "0");
    return 0;
}

static void test_N_6_credit_comes_behind_what_was_posted(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *credit;
    ends_open(&ends, world);
    assert_int_equal(tram_address_set_limit(world->loop, ends.to_a, 2), 0);
    tram_message message = number(1, 1);
    while (tram_try_post(ends.to_a, &message) == 0)
        continue;
    assert_int_equal(tram_post_credit(world->loop, ends.to_a, &credit), 0);
    assert_int_equal(tram_future_add_done_callback(credit, note_done, world), 0);
    run_to_rest(world);
    assert_trace(world, "a:1:1 a:1:1 done:0");
    assert_int_equal(tram_try_post(ends.to_a, &message), 0);
    tram_future_release(credit);
    ends_close(&ends);
    world->trace[0] = '\0';
}

/* ---- Requests ---- */

static bool answer(struct receiver *receiver, tram_message *message) {
    tram_request *request = tram_message_take_request(message);
    tram_message reply = number(message->tag + 1, message->words[0] * 2);
    assert_non_null(request);
    assert_null(tram_message_take_request(message)); /* once */
    tram_reply(request, &reply);
    return receiver->arg == NULL;
}

static bool answer_with_error(struct receiver *receiver, tram_message *message) {
    (void)receiver;
    tram_reply_error(tram_message_take_request(message), -EACCES);
    return true;
}

static bool keep_request(struct receiver *receiver, tram_message *message) {
    receiver->request = tram_message_take_request(message);
    return true;
}

static tram_future *ask(struct world *world, tram_address to, uint64_t timeout_ns) {
    tram_future *future;
    tram_message message = number(5, 21);
    assert_int_equal(tram_ask(world->loop, to, &message, timeout_ns, &future), 0);
    return future;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static int result_of(struct world *world, tram_future *future) {
    run_until_true(world, is_done, future);
    int status = tram_future_result(future, NULL);
    tram_future_release(future);
    return status;
}

static void test_N_8_a_request_is_answered_within_message_received(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = answer;
    tram_future *future = ask(world, ends.to_a, TRAM_FOREVER);
    assert_null(tram_future_message(future));
    run_until_true(world, is_done, future);
    const tram_message *reply = tram_future_message(future);
    assert_non_null(reply);
    assert_int_equal(reply->tag, 6);
    assert_int_equal(reply->words[0], 42);
    assert_int_equal(reply->reserved, 0);
    tram_future_release(future);
    ends.a.on = answer_with_error;
    assert_int_equal(result_of(world, ask(world, ends.to_a, TRAM_FOREVER)), -EACCES);
    ends_close(&ends);
}

static void test_N_8_an_ordinary_message_is_no_request(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = keep_request;
    tram_message message = number(1, 1);
    message.reserved = 77; /* what is the library's is ignored */
    assert_int_equal(tram_post(ends.to_a, &message), 0);
    run_to_rest(world);
    assert_int_equal(ends.a.messages, 1);
    assert_null(ends.a.request);
    ends_close(&ends);
}

static void test_N_8_a_request_that_nobody_takes_is_answered(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    assert_int_equal(result_of(world, ask(world, ends.to_a, TRAM_FOREVER)), -ENOTSUP);
    assert_trace(world, "a:5:21");
    tram_address to = ends.to_a;
    ends_close(&ends);
    assert_int_equal(result_of(world, ask(world, to, TRAM_FOREVER)), -ESRCH);
}

static void reply_from_thread(void *arg) {
    tram_message reply = number(8, 88);
    tram_reply(arg, &reply);
}

static void test_N_8_a_request_may_be_answered_later_and_on_any_thread(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = keep_request;
    tram_future *future = ask(world, ends.to_a, TRAM_FOREVER);
    run_to_rest(world);
    assert_false(tram_future_done(future));
    on_thread(reply_from_thread, ends.a.request);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_message(future)->words[0], 88);
    tram_future_release(future);
    ends_close(&ends);
}

static void test_N_8_a_late_reply_is_dropped(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = keep_request;
    reset_counts();
    tram_message reply = counted_message(1);
    assert_int_equal(result_of(world, ask(world, ends.to_a, 1000000)), TRAM_ETIMEOUT);
    tram_reply(ends.a.request, &reply);
    run_to_rest(world);
    assert_int_equal(dropped, 1);

    tram_future *future = ask(world, ends.to_a, 1000000000);
    run_to_rest(world);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ECANCELLED);
    tram_reply(ends.a.request, &reply);
    run_to_rest(world);
    assert_int_equal(dropped, 2);
    tram_future_release(future);
    ends_close(&ends);
}

static void test_N_8_a_reply_that_nobody_takes_is_destroyed_with_the_future(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = keep_request;
    reset_counts();
    tram_message reply = counted_message(1);
    tram_future *future = ask(world, ends.to_a, TRAM_FOREVER);
    run_to_rest(world);
    tram_reply(ends.a.request, &reply);
    run_until_true(world, is_done, future);
    assert_int_equal(destroyed, 0);
    tram_future_release(future);
    assert_int_equal(destroyed, 1);
    future = ask(world, ends.to_a, TRAM_FOREVER);
    run_to_rest(world);
    tram_reply(ends.a.request, &reply);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_message_take(tram_future_message(future)).tag, 1);
    tram_future_release(future);
    assert_int_equal(destroyed, 1);
    assert_int_equal(dropped, 0);
    ends_close(&ends);
}

static void test_N_8_a_loop_that_closes_answers_what_is_queued(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_loop *other;
    tram_future *future, *credit;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    ends_open_on(&ends, world, other);
    reset_counts();
    tram_message message = counted_message(1);
    assert_int_equal(tram_ask(world->loop, ends.to_a, &message, TRAM_FOREVER, &future), 0);
    assert_int_equal(tram_post_credit(world->loop, ends.to_a, &credit), 0);
    assert_int_equal(tram_loop_free(other), 0);
    assert_int_equal(result_of(world, future), TRAM_ESTATE);
    assert_int_equal(result_of(world, credit), TRAM_ESTATE);
    assert_int_equal(dropped, 1);
    assert_int_equal(tram_ask(world->loop, ends.to_a, &message, TRAM_FOREVER, &future), TRAM_ESTATE);
}

static void test_N_8_a_loop_that_closes_waits_for_no_answer(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_loop *other;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    ends_open(&ends, world);
    ends.a.on = keep_request;
    reset_counts();
    tram_future *future;
    tram_message message = number(1, 1), reply = counted_message(2);
    for (int i = 0; i < 2; i++) { /* one that is kept beyond the end of the loop, one that is on its way there */
        assert_int_equal(tram_ask(other, ends.to_a, &message, 1000000000, &future), 0);
        tram_future_release(future);
        if (i == 0)
            run_to_rest(world);
    }
    assert_int_equal(tram_loop_free(other), 0);
    tram_reply(ends.a.request, &reply);
    assert_int_equal(dropped, 1);
    ends.a.request = NULL;
    run_to_rest(world);
    tram_reply_error(ends.a.request, -EIO);
    assert_int_equal(dropped, 1);
    ends_close(&ends);
}

/* What is asked in one callback: two requests and a credit. */
static struct {
    tram_address to;
    tram_future *futures[3];
} mixed;

static int ask_for_both(tram_loop *loop, void *arg) {
    (void)arg;
    tram_message message = number(1, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(i == 2 ? tram_post_credit(loop, mixed.to, &mixed.futures[i])
                                : tram_ask(loop, mixed.to, &message, TRAM_FOREVER, &mixed.futures[i]),
                         0);
    return 0;
}

static void test_N_7_N_8_a_credit_behind_requests_is_none(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(&ends, world);
    ends.a.on = answer;
    mixed.to = ends.to_a;
    assert_int_equal(tram_loop_call_soon(world->loop, ask_for_both, NULL, NULL, NULL), 0);
    run_to_rest(world);
    assert_int_equal(ends.a.messages, 2);
    for (int i = 0; i < 3; i++) {
        assert_true(tram_future_done(mixed.futures[i]));
        const tram_message *reply = tram_future_message(mixed.futures[i]);
        if (i == 2)
            assert_null(reply);
        else
            assert_int_equal(reply->tag, 2);
        tram_future_release(mixed.futures[i]);
    }
    ends_close(&ends);
}

/* ---- Between two running loops ---- */

#define ROUNDS 20000

struct asker {
    struct world *world;
    tram_address to;
    unsigned sent, done;
    bool finished;
};

static int asked(tram_future *future, void *arg);

static void ask_some(struct asker *asker) {
    while (asker->sent < ROUNDS && asker->sent - asker->done < 64) {
        tram_future *future;
        tram_message message = number(1, asker->sent++);
        assert_int_equal(tram_ask(asker->world->loop, asker->to, &message, TRAM_FOREVER, &future), 0);
        assert_int_equal(tram_future_add_done_callback(future, asked, asker), 0);
        tram_future_release(future);
    }
}

static int asked(tram_future *future, void *arg) {
    struct asker *asker = arg;
    assert_int_equal(tram_future_message(future)->words[0], asker->done * 2);
    if (++asker->done == ROUNDS)
        asker->finished = true;
    ask_some(asker);
    return 0;
}

static int begin_asking(tram_loop *loop, void *arg) {
    (void)loop;
    ask_some(arg);
    return 0;
}

static void test_N_8_replies_come_in_order_from_another_worker(void **state) {
    struct world *world = *state;
    struct ends ends;
    struct second second;
    assert_int_equal(tram_loop_new(NULL, &second.loop), 0);
    ends_open_on(&ends, world, second.loop);
    ends.a.on = answer;
    struct asker asker = {.world = world, .to = ends.to_a};
    second_start(&second);
    assert_int_equal(tram_loop_call_soon(world->loop, begin_asking, &asker, NULL, NULL), 0);
    run_until(world, &asker.finished);
    second_stop(&second);
    assert_int_equal(ends.a.messages, ROUNDS);
    assert_int_equal(tram_loop_free(second.loop), 0);
}

/* ---- Requests that go together ---- */

/* A loop that asks one that is not run meanwhile: it seems busy. */
struct together {
    struct world *world;
    tram_loop *other;
    struct ends far;
    tram_future *futures[300];
    unsigned count;
    pid_t forked;
    bool in_child;
};

static void together_open(struct together *together, struct world *world) {
    *together = (struct together){.world = world};
    assert_int_equal(tram_loop_new(NULL, &together->other), 0);
    ends_open_on(&together->far, world, together->other);
}

static void ask_far(struct together *together, const tram_message *message) {
    tram_future **future = &together->futures[together->count++];
    assert_int_equal(tram_ask(together->world->loop, together->far.to_a, message, TRAM_FOREVER, future), 0);
}

static void ask_number(struct together *together, uint32_t tag) {
    tram_message message = number(tag, 0);
    ask_far(together, &message);
}

static void in_a_tick(struct together *together, int (*function)(tram_loop *loop, void *arg)) {
    assert_int_equal(tram_loop_call_soon(together->world->loop, function, together, NULL, NULL), 0);
    run_ticks(together->world, 1);
}

static void run_other(tram_loop *other, int ticks) {
    for (int i = 0; i < ticks; i++) {
        assert_int_equal(tram_loop_stop(other), 0);
        assert_int_equal(tram_loop_run_forever(other), 0);
    }
}

/* Each request is answered, with this status. */
static void assert_answers(struct together *together, int status) {
    for (unsigned i = 0; i < together->count; i++) {
        assert_true(tram_future_done(together->futures[i]));
        assert_int_equal(tram_future_result(together->futures[i], NULL), status);
        tram_future_release(together->futures[i]);
    }
    together->count = 0;
}

static void together_close(struct together *together) {
    if (!tram_loop_is_closed(together->other))
        tram_transport_abort(together->far.first);
    assert_int_equal(tram_loop_free(together->other), 0);
    run_to_rest(together->world);
    together->world->trace[0] = '\0';
}

static int ask_and_post(tram_loop *loop, void *arg) {
    struct together *together = arg;
    tram_message messages[2] = {number(5, 0), number(6, 0)};
    tram_address to = together->far.to_a;
    tram_future **futures = together->futures;
    ask_number(together, 1);
    ask_number(together, 2);
    assert_int_equal(post(to, 3, 0), 0);
    ask_number(together, 4);
    assert_int_equal(tram_post_batch(to, messages, 2), 0);
    ask_number(together, 7);
    assert_int_equal(tram_try_post(to, &(tram_message){.tag = 8}), 0);
    ask_number(together, 9);
    assert_int_equal(tram_broadcast(&to, 1, &(tram_message){.tag = 10}), 1);
    ask_number(together, 11);
    assert_int_equal(tram_post_credit(loop, to, &futures[together->count++]), 0);
    ask_number(together, 12);
    return 0;
}

static void test_N_2_N_8_requests_and_posts_of_one_loop_arrive_in_order(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    in_a_tick(&together, ask_and_post);
    run_other(together.other, 1);
    assert_trace(world, "a:1:0 a:2:0 a:3:0 a:4:0 a:5:0 a:6:0 a:7:0 a:8:0 a:9:0 a:10:0 a:11:0 a:12:0");
    run_ticks(world, 2);
    tram_future *credit = together.futures[6];
    assert_int_equal(tram_future_result(credit, NULL), 0);
    tram_future_release(credit);
    together.futures[6] = together.futures[--together.count];
    assert_answers(&together, -ENOTSUP);
    together_close(&together);
}

static int submitted(tram_loop *loop, void *arg, void **ret_value) {
    struct together *together = arg;
    (void)loop, (void)ret_value;
    trace(together->world, "submitted");
    return 0;
}

static int called(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    trace(together->world, "called");
    return 0;
}

static int ask_and_call(tram_loop *loop, void *arg) {
    struct together *together = arg;
    tram_future *future;
    ask_number(together, 1);
    assert_int_equal(tram_loop_submit(loop, together->other, submitted, together, NULL, &future), 0);
    tram_future_release(future);
    ask_number(together, 2);
    assert_int_equal(tram_loop_call_soon_threadsafe(together->other, called, together, NULL), 0);
    ask_number(together, 3);
    return 0;
}

static void test_N_2_N_8_requests_and_calls_of_one_loop_arrive_in_order(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    in_a_tick(&together, ask_and_call);
    run_other(together.other, 1);
    assert_trace(world, "a:1:0 submitted a:2:0 called a:3:0");
    run_ticks(world, 2);
    assert_answers(&together, -ENOTSUP);
    together_close(&together);
}

static int ask_often(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    struct mailbox *mailbox = together->other->mailbox;
    assert_true(mailbox_inbox_empty(mailbox));
    atomic_store(&mailbox->sampling, true); /* else the first goes alone */
    for (unsigned i = 0; i < 200; i++) {
        tram_message message = number(1, i);
        ask_far(together, &message);
        if (i == 0)
            assert_true(mailbox_inbox_empty(mailbox));
    }
    assert_false(mailbox_inbox_empty(mailbox)); /* no chain is as long as that */
    return 0;
}

static bool answer_in_order(struct receiver *receiver, tram_message *message) {
    assert_int_equal(message->words[0], receiver->messages - 1);
    tram_message reply = number(2, message->words[0]);
    tram_reply(tram_message_take_request(message), &reply);
    return true;
}

/* Those that follow each other go together, and the last ones with the end of the tick. */
static void test_N_8_requests_of_one_tick_go_together(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    together.far.a.on = answer_in_order;
    in_a_tick(&together, ask_often);
    assert_null(world->loop->mailbox->send_requests);
    run_other(together.other, 1);
    assert_int_equal(together.far.a.messages, 200);
    run_ticks(world, 2);
    for (unsigned i = 0; i < together.count; i++)
        assert_int_equal(tram_future_message(together.futures[i])->words[0], i);
    assert_answers(&together, 0);
    together_close(&together);
}

static int ask_a_sleeper(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    ask_number(together, 1);
    assert_false(mailbox_inbox_empty(together->other->mailbox));
    return 0;
}

static void test_N_8_a_request_to_a_loop_that_sleeps_goes_at_once(void **state) {
    struct world *world = *state;
    struct together together;
    uint64_t timeout_ns;
    together_open(&together, world);
    run_other(together.other, 2);
    assert_int_equal(tram_loop_prepare(together.other, &timeout_ns), 0);
    assert_true(timeout_ns > 0);
    in_a_tick(&together, ask_a_sleeper);
    assert_int_equal(tram_loop_dispatch(together.other), 0);
    run_ticks(world, 2);
    assert_answers(&together, -ENOTSUP);
    ask_number(&together, 1); /* and so does one that is asked outside of a tick */
    assert_false(mailbox_inbox_empty(together.other->mailbox));
    run_other(together.other, 1);
    run_ticks(world, 2);
    assert_answers(&together, -ENOTSUP);
    together_close(&together);
}

/* One that is kept until they all are there. */
static tram_request *kept[200];

static bool answer_all_at_once(struct receiver *receiver, tram_message *message) {
    kept[receiver->messages - 1] = tram_message_take_request(message);
    for (unsigned i = 0; receiver->messages == 200 && i < 200; i++)
        tram_reply(kept[i], &(tram_message){.words = {i}});
    return true;
}

static void test_N_8_many_replies_of_one_callback_keep_their_order(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    together.far.a.on = answer_all_at_once;
    in_a_tick(&together, ask_often);
    run_other(together.other, 1);
    run_ticks(world, 2);
    for (unsigned i = 0; i < together.count; i++)
        assert_int_equal(tram_future_message(together.futures[i])->words[0], i);
    assert_answers(&together, 0);
    together_close(&together);
}

static struct {
    struct together *together;
    bool asker_takes;
} waiting;

/* 20 requests and 20 messages: a reply waits as long as the asker has not taken the one before. */
static bool answer_and_look(struct receiver *receiver, tram_message *message) {
    struct mailbox *own = waiting.together->other->mailbox, *asker = waiting.together->world->loop->mailbox;
    unsigned came = receiver->messages;
    if (came <= 20)
        tram_reply(tram_message_take_request(message), NULL);
    if (came == 1)
        assert_true(!own->send_replies && !mailbox_inbox_empty(asker)); /* nobody waits for anything else */
    else if (came <= 20)
        assert_int_equal(own->replies.count, came - 1);
    if (came == 20 && waiting.asker_takes)
        tram__mailbox_plan(asker, 0);
    if (came == 40)
        assert_int_equal(own->send_replies != NULL, !waiting.asker_takes);
    return true;
}

static int ask_and_post_20(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    atomic_store(&together->other->mailbox->sampling, true); /* none goes alone */
    for (unsigned i = 0; i < 20; i++)
        ask_number(together, i);
    for (unsigned i = 0; i < 20; i++) {
        tram_message message = number(i, 0);
        assert_int_equal(tram_post(together->far.to_a, &message), 0);
    }
    return 0;
}

static void test_N_8_replies_wait_while_the_asker_has_some(void **state) {
    struct world *world = *state;
    for (unsigned i = 0; i < 2; i++) {
        struct together together;
        together_open(&together, world);
        waiting.together = &together;
        waiting.asker_takes = i;
        together.far.a.on = answer_and_look;
        in_a_tick(&together, ask_and_post_20);
        run_other(together.other, 1);
        assert_int_equal(together.far.a.messages, 40);
        run_ticks(world, 2);
        assert_answers(&together, 0);
        together_close(&together);
    }
}

/* ---- Replies that are dropped, and what their `dropped` replies ---- */

/* Four loops on one thread, which take turns: X, Y and Z ask one actor of the first. */
static struct {
    struct world *world;
    tram_loop *loops[4];
    tram_actor actor;
    tram_address to;
    tram_request *kept[2];
    tram_future *futures[8];
    unsigned asked;
} chained;

enum { SERVER, X, Y, Z };
enum { AT_ONCE = 1, KEEP, CLOSE_X, ANSWER };

static void answer_kept(unsigned which, const tram_message *reply) {
    tram_request *request = chained.kept[which];
    chained.kept[which] = NULL;
    if (request)
        tram_reply(request, reply);
}

static void drop_and_answer_1(tram_message *message) {
    (void)message;
    answer_kept(1, &(tram_message){.tag = 71});
}

static const tram_message_type answers_1 = {.name = "answers 1", .dropped = drop_and_answer_1};

/* Closes Y as well where the reply to Y is to be dropped in turn. */
static void drop_and_answer_0(tram_message *message) {
    bool in_turn = message->words[0];
    answer_kept(0, &(tram_message){.type = in_turn ? &answers_1 : NULL, .tag = 70});
    if (in_turn)
        assert_int_equal(tram_loop_close(chained.loops[Y]), 0);
}

static const tram_message_type answers_0 = {.name = "answers 0", .dropped = drop_and_answer_0};

static int serve_chained(tram_actor *actor, tram_message *message) {
    tram_message reply = {.tag = message->tag};
    (void)actor;
    tram_request *request = tram_message_take_request(message);
    if (message->tag == KEEP) {
        chained.kept[message->words[0]] = request;
        return 0;
    }
    if (message->tag == CLOSE_X) {
        reply.type = &answers_0;
        reply.words[0] = message->words[0];
    }
    tram_reply(request, &reply);
    if (message->tag == CLOSE_X) /* with the reply held back */
        assert_int_equal(tram_loop_close(chained.loops[X]), 0);
    return 0;
}

static int trace_reply(tram_future *future, void *arg) {
    const tram_message *reply = tram_future_message(future);
    trace(chained.world, "%s:%d", (const char *)arg, reply ? (int)reply->tag : tram_future_result(future, NULL));
    return 0;
}

static void ask_chained(unsigned from, uint32_t tag, uint64_t word, const char *name) {
    tram_message message = {.tag = tag, .words = {word}};
    tram_future **future = &chained.futures[chained.asked++];
    assert_int_equal(tram_ask(chained.loops[from], chained.to, &message, TRAM_FOREVER, future), 0);
    assert_int_equal(tram_future_add_done_callback(*future, trace_reply, (void *)(uintptr_t)name), 0);
}

static void chained_open(struct world *world) {
    static const tram_actor_ops ops = {.message_received = serve_chained};
    memset(&chained, 0, sizeof chained);
    chained.world = world;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(tram_loop_new(NULL, &chained.loops[i]), 0);
    chained.actor.ops = &ops;
    assert_int_equal(tram_loop_start_actor(chained.loops[SERVER], &chained.actor), 0);
    assert_int_equal(tram_actor_address(&chained.actor, &chained.to), 0);
    assert_int_equal(tram_loop_dispatch(chained.loops[SERVER]), 0);
}

static void chained_turns(void) {
    for (unsigned turn = 0; turn < 3; turn++)
        for (unsigned i = 0; i < 4; i++)
            if (!tram_loop_is_closed(chained.loops[i]))
                assert_int_equal(tram_loop_dispatch(chained.loops[i]), 0);
}

static void chained_close(void) {
    for (unsigned i = 0; i < chained.asked; i++)
        tram_future_release(chained.futures[i]);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(tram_loop_free(chained.loops[i]), 0);
}

/* X has closed; what its reply's `dropped` answers is for Y, and must not go with what is for Z. */
static void test_N_3_N_8_a_dropped_reply_answers_another(void **state) {
    struct world *world = *state;
    chained_open(world);
    ask_chained(X, AT_ONCE, 0, "x");
    ask_chained(Y, AT_ONCE, 0, "y");
    ask_chained(Y, KEEP, 0, "kept");
    ask_chained(X, CLOSE_X, 0, "x");
    ask_chained(Z, ANSWER, 0, "z");
    chained_turns();
    assert_trace(world, "y:1 kept:70 z:4");
    chained_close();
}

/* The same at the end of the mail, and in turn: nothing is held back after it. */
static void test_N_3_N_8_dropped_replies_answer_others_in_turn(void **state) {
    struct world *world = *state;
    chained_open(world);
    ask_chained(X, AT_ONCE, 0, "x");
    ask_chained(Y, AT_ONCE, 0, "y");
    ask_chained(Z, AT_ONCE, 0, "z");
    ask_chained(Y, KEEP, 0, "kept 0");
    ask_chained(Z, KEEP, 1, "kept 1");
    ask_chained(X, CLOSE_X, 1, "x");
    chained_turns();
    assert_trace(world, "z:1 kept 1:71");
    chained_close();
}

/* Where the asker posts nothing meanwhile: on a thread of its own. */
static void close_other(void *arg) {
    assert_int_equal(tram_loop_close(arg), 0);
}

static void free_other(void *arg) {
    assert_int_equal(tram_loop_free(arg), 0);
}

static int ask_who_closes(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    tram_message message = counted_message(1);
    for (int i = 0; i < 3; i++)
        ask_far(together, &message);
    on_thread(close_other, together->other);
    assert_true(dropped < 3); /* the last one is held back */
    return 0;
}

static void test_N_3_N_8_what_is_held_back_for_a_loop_that_closes_is_dropped_once(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    reset_counts();
    in_a_tick(&together, ask_who_closes);
    assert_int_equal(dropped, 3);
    run_ticks(world, 2);
    assert_answers(&together, TRAM_ESTATE);
    assert_int_equal(destroyed, 0);
    assert_int_equal(dropped, 3);
    together_close(&together);
}

static struct together *asks_anew;
static struct ends *third;

static void ask_somebody_else(tram_message *message) {
    (void)message;
    dropped++;
    tram_message again = number(7, 7);
    tram_future **future = &asks_anew->futures[asks_anew->count++];
    assert_int_equal(tram_ask(asks_anew->world->loop, third->to_a, &again, TRAM_FOREVER, future), 0);
}

static const tram_message_type asking = {.name = "asking", .dropped = ask_somebody_else};

static int ask_three(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    tram_message message = {.type = &asking};
    ask_far(together, &message);
    on_thread(close_other, together->other);
    return 0;
}

/* What is dropped at the end of a tick may ask: that goes before the loop sleeps. */
static void test_N_8_what_is_dropped_may_ask_others(void **state) {
    struct world *world = *state;
    struct together together, else_where;
    together_open(&together, world);
    together_open(&else_where, world);
    asks_anew = &together;
    third = &else_where.far;
    reset_counts();
    in_a_tick(&together, ask_three);
    assert_int_equal(dropped, 1);
    assert_null(world->loop->mailbox->send_requests);
    run_other(else_where.other, 1);
    assert_trace(world, "a:7:7");
    run_ticks(world, 2);
    assert_int_equal(tram_future_result(together.futures[0], NULL), TRAM_ESTATE);
    assert_int_equal(tram_future_result(together.futures[1], NULL), -ENOTSUP);
    tram_future_release(together.futures[0]);
    tram_future_release(together.futures[1]);
    together_close(&together);
    together_close(&else_where);
}

static int ask_the_dead_and_others(tram_loop *loop, void *arg) {
    struct together *together = arg;
    tram_message message = counted_message(1);
    ask_far(together, &message);
    on_thread(free_other, together->other);
    /* The route to the other loop, which has ended, is given up for the one that is made now. */
    tram_future **future = &together->futures[together->count++];
    assert_int_equal(tram_ask(loop, third->to_a, &message, TRAM_FOREVER, future), 0);
    assert_int_equal(dropped, 1);
    return 0;
}

static void test_N_3_N_8_what_is_held_back_outlives_no_route(void **state) {
    struct world *world = *state;
    struct together together, else_where;
    together_open(&together, world);
    together_open(&else_where, world);
    third = &else_where.far;
    reset_counts();
    in_a_tick(&together, ask_the_dead_and_others);
    run_other(else_where.other, 1);
    assert_int_equal(destroyed, 1);
    run_ticks(world, 2);
    assert_int_equal(tram_future_result(together.futures[0], NULL), TRAM_ESTATE);
    assert_int_equal(tram_future_result(together.futures[1], NULL), -ENOTSUP);
    tram_future_release(together.futures[0]);
    tram_future_release(together.futures[1]);
    together_close(&else_where);
}

static int ask_and_fork(tram_loop *loop, void *arg) {
    struct together *together = arg;
    (void)loop;
    tram_message message = counted_message(1);
    for (int i = 0; i < 3; i++)
        ask_far(together, &message);
    together->forked = fork();
    together->in_child = together->forked == 0;
    return 0;
}

static void child_ends(struct together *together) {
    tram_message message = counted_message(1);
    tram_future *future;
    bool good = tram_ask(together->world->loop, together->far.to_a, &message, TRAM_FOREVER, &future) == -ECHILD &&
                tram_loop_free(together->world->loop) == 0 && tram_loop_free(together->other) == 0;
    _exit(good && destroyed == 0 && dropped == 0 ? 0 : 1);
}

static void await_child(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* What is held back in the callback that forks is the parent's to send. */
static void test_N_8_L_41_requests_held_back_are_not_a_forked_childs(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    reset_counts();
    assert_int_equal(tram_loop_call_soon(world->loop, ask_and_fork, &together, NULL, NULL), 0);
    tram_loop_stop(world->loop);
    int status = tram_loop_run_forever(world->loop);
    if (together.in_child)
        child_ends(&together);
    assert_int_equal(status, 0);
    await_child(together.forked);
    run_other(together.other, 1);
    assert_int_equal(destroyed, 3);
    run_ticks(world, 2);
    assert_answers(&together, -ENOTSUP);
    together_close(&together);
}

static bool answer_and_fork(struct receiver *receiver, tram_message *message) {
    struct together *together = receiver->arg;
    tram_message reply = counted_message(2);
    tram_reply(tram_message_take_request(message), &reply);
    if (receiver->messages == 3) {
        together->forked = fork();
        together->in_child = together->forked == 0;
    }
    return true;
}

/* … and so are replies, those that wait in an inbox as a chain included. */
static void test_N_8_L_41_replies_held_back_are_not_a_forked_childs(void **state) {
    struct world *world = *state;
    struct together together;
    together_open(&together, world);
    together.far.a.on = answer_and_fork;
    together.far.a.arg = &together;
    reset_counts();
    for (uint32_t i = 0; i < 6; i++)
        ask_number(&together, i);
    tram_loop_stop(together.other);
    int status = tram_loop_run_forever(together.other);
    if (together.in_child)
        child_ends(&together);
    assert_int_equal(status, 0);
    await_child(together.forked);
    pid_t child = fork();
    if (child == 0)
        child_ends(&together);
    await_child(child);
    run_ticks(world, 2);
    assert_int_equal(dropped + destroyed, 0);
    assert_answers(&together, 0);
    assert_int_equal(destroyed, 6);
    together_close(&together);
}

struct asking_task {
    tram_loop *loop;
    tram_address to;
    unsigned answers;
    bool done;
};

static int ask_in_turn(void *arg) {
    struct asking_task *self = arg;
    for (unsigned i = 0; i < 100; i++) {
        tram_message message = number(1, i);
        tram_future *futures[2];
        for (unsigned j = 0; j < 2; j++)
            assert_int_equal(tram_ask(self->loop, self->to, &message, TRAM_FOREVER, &futures[j]), 0);
        for (unsigned j = 0; j < 2; j++) {
            assert_int_equal(tram_await(futures[j], NULL), 0);
            self->answers += tram_future_message(futures[j])->words[0] == 2 * i;
            tram_future_release(futures[j]);
        }
    }
    self->done = true;
    return 0;
}

static void test_N_8_a_task_that_awaits_holds_no_request_back(void **state) {
    struct world *world = *state;
    struct ends ends;
    struct second second;
    assert_int_equal(tram_loop_new(NULL, &second.loop), 0);
    ends_open_on(&ends, world, second.loop);
    ends.a.on = answer;
    struct asking_task self = {.loop = world->loop, .to = ends.to_a};
    second_start(&second);
    assert_int_equal(tram_task_spawn(world->loop, ask_in_turn, &self, NULL, NULL), 0);
    run_until(world, &self.done);
    second_stop(&second);
    assert_int_equal(self.answers, 200);
    assert_int_equal(tram_loop_free(second.loop), 0);
}

/* ---- Work on another loop ---- */

static int twice(tram_loop *loop, void *arg, void **ret_value) {
    if (loop != tram_loop_running())
        return TRAM_ESTATE;
    *ret_value = (void *)((uintptr_t)arg * 2);
    return 0;
}

static int fail_with(tram_loop *loop, void *arg, void **ret_value) {
    (void)loop;
    (void)ret_value;
    return *(int *)arg;
}

static unsigned discarded;

static void count_discarded(void *arg) {
    (void)arg;
    discarded++;
}

static void test_N_9_submitted_work_runs_on_the_other_loop(void **state) {
    struct world *world = *state;
    struct second second;
    tram_future *future;
    void *value;
    int code = -EIO;
    assert_int_equal(tram_loop_new(NULL, &second.loop), 0);
    second_start(&second);
    assert_int_equal(tram_loop_submit(world->loop, second.loop, twice, (void *)21, NULL, &future), 0);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &value), 0);
    assert_int_equal((uintptr_t)value, 42);
    assert_null(tram_future_message(future));
    tram_future_release(future);
    assert_int_equal(tram_loop_submit(world->loop, second.loop, fail_with, &code, NULL, &future), 0);
    assert_int_equal(result_of(world, future), -EIO);
    assert_int_equal(tram_loop_submit(world->loop, world->loop, twice, (void *)4, NULL, &future), 0);
    assert_int_equal(result_of(world, future), 0);
    assert_int_equal(tram_loop_submit(world->loop, world->loop, NULL, NULL, NULL, &future), TRAM_EVALUE);
    second_stop(&second);
    discarded = 0;
    assert_int_equal(tram_loop_submit(world->loop, second.loop, twice, NULL, count_discarded, &future), 0);
    assert_int_equal(tram_loop_close(second.loop), 0);
    assert_int_equal(result_of(world, future), TRAM_ECANCELLED);
    assert_int_equal(discarded, 1);
    assert_int_equal(tram_loop_submit(world->loop, second.loop, twice, NULL, count_discarded, &future), TRAM_ESTATE);
    assert_int_equal(discarded, 1);
    assert_int_equal(tram_loop_free(second.loop), 0);
}

/* ---- Work on all workers ---- */

static int own_number(tram_loop *loop, void *arg, void **ret_value) {
    unsigned index;
    if (loop != tram_loop_running() || tram_loop_worker(loop, NULL, &index))
        return TRAM_EUSER;
    *ret_value = (void *)(uintptr_t)(index + 10);
    return arg && *(unsigned *)arg == index ? -EIO : 0;
}

static atomic_uint released_arguments;

static void release_argument(void *arg) {
    (void)arg;
    released_arguments++;
}

static tram_runtime *three_workers(bool start) {
    const tram_runtime_options options = {.workers = 3};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    if (start)
        assert_int_equal(tram_runtime_start(runtime), 0);
    return runtime;
}

static const tram_worker_result *results_of(struct world *world, tram_future *future) {
    void *results;
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &results), 0);
    return (const tram_worker_result *)results;
}

static void test_N_9_each_worker_runs_it_and_one_future_has_all_results(void **state) {
    struct world *world = *state;
    tram_runtime *runtime = three_workers(true);
    tram_future *future;
    unsigned fails = 1;
    released_arguments = 0;
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, &fails, release_argument, &future), 0);
    const tram_worker_result *results = results_of(world, future);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(results[i].status, i == 1 ? -EIO : 0);
        if (i != 1)
            assert_int_equal((uintptr_t)results[i].value, i + 10);
    }
    assert_int_equal(released_arguments, 1);
    tram_future_release(future);
    assert_wrong(tram_runtime_each(runtime, world->loop, NULL, NULL, release_argument, &future), "function");
    /* Workers that have ended have that as their result. */
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, NULL, release_argument, &future), 0);
    results = results_of(world, future);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(results[i].status, TRAM_ESTATE);
    assert_int_equal(released_arguments, 2);
    tram_future_release(future);
    tram_runtime_free(runtime);
    assert_int_equal(world->exceptions, 0);
}

static atomic_uint slow_calls, slow_works;

static void count_slow(void *arg, tram_log_level level, const char *line) {
    char name[128], text[160];
    (void)arg;
    (void)level;
    tram_function_name((const void *)(uintptr_t)own_number, name, sizeof name);
    snprintf(text, sizeof text, " %s took", name);
    slow_calls += strstr(line, "slow ") != NULL;
    slow_works += strstr(line, text) != NULL;
}

static void test_N_9_L_30_a_slow_one_is_known_by_its_function(void **state) {
    struct world *world = *state;
    const tram_runtime_options options = {.workers = 2,
                                          .loop = {.debug = true, .slow_callback_ns = TRAM_NOW, .log = count_slow}};
    tram_runtime *runtime;
    tram_future *future;
    slow_calls = slow_works = 0;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, NULL, NULL, &future), 0);
    results_of(world, future);
    tram_future_release(future);
    tram_runtime_free(runtime);
    assert_int_equal(slow_works, 2);
    assert_true(slow_calls >= slow_works);
}

/* The workers do not run yet: what was asked of them waits. */
static void test_N_9_who_asks_all_and_goes_leaves_the_work_to_them(void **state) {
    struct world *world = *state;
    tram_runtime *runtime = three_workers(false);
    tram_future *cancelled, *let_go, *closed;
    released_arguments = 0;
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, NULL, release_argument, &cancelled), 0);
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, NULL, release_argument, &let_go), 0);
    assert_int_equal(tram_runtime_each(runtime, world->loop, own_number, NULL, release_argument, &closed), 0);
    assert_int_equal(tram_future_cancel(cancelled), 1);
    assert_true(tram_future_cancelled(cancelled));
    tram_future_release(cancelled);
    tram_future_release(let_go);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(closed));
    tram_future_release(closed);
    assert_int_equal(released_arguments, 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    while (released_arguments < 3)
        poll(NULL, 0, 1);
    tram_runtime_free(runtime);
    assert_int_equal(released_arguments, 3);
}

/* What cannot be asked is answered at once; the argument is given back all the same. */
static void test_N_9_all_workers_without_memory(void **state) {
    struct world *world = *state;
    tram_runtime *runtime = three_workers(true);
    unsigned refused = 0, answered = 0;
    for (size_t n = 0; answered < 3; n++) {
        tram_future *future;
        assert_true(n < 100);
        released_arguments = answered = 0;
        world_reopen(world);
        world->fail_after = n;
        int status = tram_runtime_each(runtime, world->loop, own_number, NULL, release_argument, &future);
        world->fail_after = SIZE_MAX;
        assert_true(ok_or_no_memory(status));
        if (!status) {
            const tram_worker_result *results = results_of(world, future);
            for (unsigned i = 0; i < 3; i++) {
                assert_true(ok_or_no_memory(results[i].status));
                answered += results[i].status == 0;
                refused += results[i].status != 0;
            }
            tram_future_release(future);
        }
        assert_int_equal(released_arguments, status == 0);
    }
    assert_true(refused > 0);
    tram_runtime_free(runtime);
}

/* ---- Without memory ---- */

static void test_N_3_nothing_is_lost_without_memory(void **state) {
    struct world *world = *state;
    reset_counts();
    unsigned asked_for = 0, given = 0;
    for (size_t allowed = 0; allowed < 40; allowed++) {
        struct ends ends;
        tram_future *future = NULL;
        tram_message message = counted_message(1);
        world_reopen(world);
        receiver_init(&ends.a, world, "a");
        receiver_init(&ends.b, world, "b");
        assert_int_equal(tram_loop_create_pair(world->loop, &ends.a.base, &ends.b.base, &ends.first, NULL), 0);
        run_ticks(world, 2);
        world->fail_after = allowed;
        if (tram_transport_address(ends.first, &ends.to_a) == 0) {
            given += tram_post(ends.to_a, &message) == 0;
            given += tram_try_post(ends.to_a, &message) == 0;
            given += tram_ask(world->loop, ends.to_a, &message, 1000000000, &future) == 0;
            asked_for++;
        }
        run_ticks(world, 3);
        world->fail_after = SIZE_MAX;
        tram_future_release(future);
        world->trace[0] = '\0';
        ends.world = world;
        ends_close(&ends);
        world->trace[0] = '\0';
    }
    assert_true(asked_for > 10 && asked_for < 40);
    assert_int_equal(destroyed + dropped, given);
}

struct poster {
    tram_actor actor;
    struct ends near, far; /* on its own loop, and on another one */
    tram_loop *other;
    tram_channel *channel;
    bool wants_memory;
    int answers[16];
    unsigned count;
};

static int do_nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

static int answer_nothing(tram_loop *loop, void *arg, void **ret_value) {
    (void)loop, (void)arg, (void)ret_value;
    return 0;
}

static int ask_nobody(tram_loop *loop, tram_address to) {
    tram_message message = number(1, 1);
    tram_future *future = NULL;
    int status = tram_ask(loop, to, &message, TRAM_FOREVER, &future);
    tram_future_release(future);
    return status;
}

static int submit_nothing(tram_loop *loop, tram_loop *target) {
    tram_future *future = NULL;
    int status = tram_loop_submit(loop, target, answer_nothing, NULL, NULL, &future);
    tram_future_release(future);
    return status;
}

static int credit_of(tram_loop *loop, tram_address to) {
    tram_future *future = NULL;
    int status = tram_post_credit(loop, to, &future);
    tram_future_release(future);
    return status;
}

static int handle_of_nothing(tram_loop *loop) {
    tram_threadsafe_handle *handle = NULL;
    int status = tram_loop_call_soon_threadsafe_handle(loop, do_nothing, NULL, NULL, &handle);
    if (handle)
        tram_threadsafe_handle_release(handle);
    return status;
}

/* Everything that posts, of this loop's supply of mail. */
static int post_all(tram_loop *loop, void *arg) {
    struct poster *poster = arg;
    struct world *world = poster->near.world;
    tram_message messages[2] = {number(1, 2), number(1, 3)};
    if (poster->wants_memory) {
        world->fail_after = 0;
        memory_fail(1, UINT64_MAX); /* a mailbox may outlive its loop's allocator */
        for (unsigned sent = 0; tram_loop_call_soon_threadsafe(poster->other, do_nothing, NULL, NULL) == 0; sent++)
            assert_true(sent < 10000);
        for (unsigned sent = 0; ask_nobody(loop, poster->far.to_a) == 0; sent++) /* a request has a node of its own */
            assert_true(sent < 10000);
    }
    const int answers[] = {
        post(poster->near.to_a, 1, 1),
        post(poster->far.to_a, 1, 1),
        tram_try_post(poster->far.to_a, &messages[0]),
        tram_post_batch(poster->far.to_a, messages, 2),
        tram_broadcast(&poster->far.to_a, 1, &messages[0]) == 1 ? 0 : -ENOMEM,
        ask_nobody(loop, poster->far.to_a),
        submit_nothing(loop, poster->other),
        credit_of(loop, poster->far.to_a),
        handle_of_nothing(poster->other),
        tram_actor_monitor(&poster->actor, poster->far.to_a),
        tram_channel_try_send(poster->channel, poster),
    };
    world->fail_after = SIZE_MAX;
    memory_fail(0, 0);
    poster->count = sizeof answers / sizeof *answers;
    memcpy(poster->answers, answers, sizeof answers);
    return 0;
}

/* Of a supply that is empty everyone hears -ENOMEM, and all of them go when there is memory again. */
static void test_X_1_N_3_whoever_posts_hears_that_memory_is_out(void **state) {
    static const tram_actor_ops ops = {0};
    struct world *world = *state;
    struct poster poster = {.actor.ops = &ops};
    assert_int_equal(tram_loop_new(NULL, &poster.other), 0);
    ends_open(&poster.near, world);
    ends_open_on(&poster.far, world, poster.other);
    assert_int_equal(tram_loop_start_actor(world->loop, &poster.actor), 0);
    assert_int_equal(tram_channel_new(poster.other, 16, NULL, &poster.channel), 0);
    run_ticks(world, 2);
    for (unsigned round = 0; round < 4; round++) { /* the first makes what lasts: routes, requests */
        poster.wants_memory = round % 2;
        assert_int_equal(tram_loop_call_soon(world->loop, post_all, &poster, NULL, NULL), 0);
        run_ticks(world, 2);
        for (unsigned i = 0; i < poster.count; i++)
            if (poster.answers[i] != (poster.wants_memory ? -ENOMEM : 0))
                fail_msg("round %u: %u: %s", round, i, tram_error_name(poster.answers[i]));
        tram_loop_stop(poster.other);
        tram_loop_run_forever(poster.other);
        run_ticks(world, 3);
    }
    tram_channel_release(poster.channel);
    tram_actor_stop(&poster.actor, 0);
    ends_close(&poster.near);
    tram_transport_abort(poster.far.first);
    assert_int_equal(tram_loop_free(poster.other), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static int post_one(tram_loop *loop, void *arg) {
    (void)loop;
    return post(*(tram_address *)arg, 1, 1);
}

static struct addressees *route_to(const struct world *world, tram_address to) {
    return tram__actors(world->loop)->routes.to[to.loop];
}

/* A loop that is gone is not kept by those that posted to it, as soon as they post to yet another. */
static void test_N_2_routes_to_loops_that_closed_are_given_up(void **state) {
    struct world *world = *state;
    tram_loop *loops[3];
    struct ends ends[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_new(NULL, &loops[i]), 0);
        ends_open_on(&ends[i], world, loops[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_call_soon(world->loop, post_one, &ends[i].to_a, NULL, NULL), 0);
        run_ticks(world, 1);
        assert_non_null(route_to(world, ends[i].to_a));
        if (i == 1) /* the first of two */
            assert_int_equal(tram_loop_free(loops[0]), 0);
    }
    assert_null(route_to(world, ends[0].to_a));
    assert_non_null(route_to(world, ends[1].to_a));
    for (int i = 1; i < 3; i++)
        assert_int_equal(tram_loop_free(loops[i]), 0);
    world->trace[0] = '\0';
}

struct first_post {
    struct world *world;
    tram_address to;
    size_t allowed;
    int answer;
};

static int post_with_little(tram_loop *loop, void *arg) {
    struct first_post *self = arg;
    (void)loop;
    self->world->fail_after = self->allowed;
    self->answer = post(self->to, 1, 1);
    self->world->fail_after = SIZE_MAX;
    return 0;
}

/* Without memory for a route a post goes all the same, or says that it does not. */
static void test_X_1_N_3_a_first_post_with_ever_more_memory(void **state) {
    struct world *world = *state;
    unsigned posted = 0;
    for (size_t allowed = 0; allowed < 6; allowed++) {
        struct first_post self = {.world = world, .allowed = allowed, .answer = TRAM_ESTATE};
        struct ends ends;
        tram_loop *other;
        world_reopen(world);
        assert_int_equal(tram_loop_new(NULL, &other), 0);
        ends_open_on(&ends, world, other);
        tram_loop_stop(other);
        tram_loop_run_forever(other);
        self.to = ends.to_a;
        assert_int_equal(tram_loop_call_soon(world->loop, post_with_little, &self, NULL, NULL), 0);
        run_ticks(world, 2);
        assert_true(had_memory(self.answer) || self.answer == -ENOMEM);
        unsigned before = ends.a.messages;
        tram_loop_stop(other);
        tram_loop_run_forever(other);
        assert_int_equal(ends.a.messages - before, self.answer == 0);
        posted += self.answer == 0;
        assert_int_equal(tram_loop_free(other), 0); /* nobody pins it any more */
        world->trace[0] = '\0';
    }
    assert_true(posted > 2);
}

/* Whichever of the allocations fails by which requests grow, the one that needs it is none. */
static void test_N_8_X_1_requests_grow_as_far_as_there_is_memory(void **state) {
    enum { MOST = 2000 };
    struct world *world = *state;
    static tram_future *futures[MOST];
    tram_message message = number(1, 1);
    unsigned before = 0;
    for (size_t allowed = 0; allowed < 12; allowed++) {
        struct ends ends;
        world_reopen(world);
        ends_open(&ends, world);
        assert_int_equal(ask_nobody(world->loop, ends.to_a), 0); /* makes what lasts */
        run_ticks(world, 3);
        unsigned count = 0;
        int status;
        world->fail_after = allowed;
        while ((status = tram_ask(world->loop, ends.to_a, &message, TRAM_FOREVER, &futures[count])) == 0)
            assert_true(++count < MOST);
        world->fail_after = SIZE_MAX;
        assert_int_equal(status, -ENOMEM);
        assert_true(count >= before);
        before = count;
        assert_int_equal(ask_nobody(world->loop, ends.to_a), 0);
        run_ticks(world, 20);
        for (unsigned i = 0; i < count; i++) {
            assert_true(tram_future_done(futures[i]));
            tram_future_release(futures[i]);
        }
        world->trace[0] = '\0';
        ends_close(&ends);
        world->trace[0] = '\0';
    }
    assert_true(before > 64);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_N_2_routes_to_loops_that_closed_are_given_up),
        CASE(test_N_2_N_10_a_message_reaches_the_protocol_in_order),
        CASE(test_N_2_a_message_of_a_thread_without_a_loop),
        CASE(test_N_2_messages_of_another_loop),
        CASE(test_N_2_a_protocol_may_post_within_message_received),
        CASE(test_N_1_an_address_survives_set_protocol),
        CASE(test_N_5_a_failing_message_received_is_reported_and_changes_nothing),
        CASE(test_N_1_addresses_as_text_and_in_order),
        CASE(test_N_4_N_5_N_10_what_comes_after_connection_lost_is_dropped_by_name),
        CASE(test_N_1_what_is_lost_has_no_address_any_more),
        CASE(test_N_1_who_reuses_a_slot_gets_nothing_of_its_predecessor),
        CASE(test_N_4_a_protocol_without_message_received_drops),
        CASE(test_N_3_N_4_what_is_queued_when_the_loop_closes_is_dropped_once),
        CASE(test_N_1_N_3_a_number_that_is_used_again_has_another_generation),
        CASE(test_N_3_a_slot_that_never_was_drops),
        CASE(test_N_3_L_41_messages_of_a_forked_child_are_refused),
        CASE(test_N_4_what_a_message_refers_to_is_destroyed_unless_it_is_taken),
        CASE(test_N_7_a_batch_arrives_in_order_or_not_at_all),
        CASE(test_N_7_a_broadcast_copies_references_only),
        CASE(test_N_7_what_cannot_be_copied_is_not_posted),
        CASE(test_N_6_try_post_is_bounded_for_each_addressee),
        CASE(test_N_10_each_address_has_counts),
        CASE(test_N_6_credit_comes_behind_what_was_posted),
        CASE(test_N_8_a_request_is_answered_within_message_received),
        CASE(test_N_8_an_ordinary_message_is_no_request),
        CASE(test_N_8_a_request_that_nobody_takes_is_answered),
        CASE(test_N_8_a_request_may_be_answered_later_and_on_any_thread),
        CASE(test_N_8_a_late_reply_is_dropped),
        CASE(test_N_8_a_reply_that_nobody_takes_is_destroyed_with_the_future),
        CASE(test_N_8_a_loop_that_closes_answers_what_is_queued),
        CASE(test_N_8_a_loop_that_closes_waits_for_no_answer),
        CASE(test_N_7_N_8_a_credit_behind_requests_is_none),
        CASE(test_N_8_replies_come_in_order_from_another_worker),
        CASE(test_N_2_N_8_requests_and_posts_of_one_loop_arrive_in_order),
        CASE(test_N_2_N_8_requests_and_calls_of_one_loop_arrive_in_order),
        CASE(test_N_8_requests_of_one_tick_go_together),
        CASE(test_N_8_a_request_to_a_loop_that_sleeps_goes_at_once),
        CASE(test_N_8_many_replies_of_one_callback_keep_their_order),
        CASE(test_N_8_replies_wait_while_the_asker_has_some),
        CASE(test_N_3_N_8_a_dropped_reply_answers_another),
        CASE(test_N_3_N_8_dropped_replies_answer_others_in_turn),
        CASE(test_N_3_N_8_what_is_held_back_for_a_loop_that_closes_is_dropped_once),
        CASE(test_N_8_what_is_dropped_may_ask_others),
        CASE(test_N_3_N_8_what_is_held_back_outlives_no_route),
        CASE(test_N_8_L_41_requests_held_back_are_not_a_forked_childs),
        CASE(test_N_8_L_41_replies_held_back_are_not_a_forked_childs),
        CASE(test_N_8_a_task_that_awaits_holds_no_request_back),
        CASE(test_N_9_submitted_work_runs_on_the_other_loop),
        CASE(test_N_9_each_worker_runs_it_and_one_future_has_all_results),
        CASE(test_N_9_L_30_a_slow_one_is_known_by_its_function),
        CASE(test_N_9_who_asks_all_and_goes_leaves_the_work_to_them),
        CASE(test_N_9_all_workers_without_memory),
        CASE(test_N_3_nothing_is_lost_without_memory),
        CASE(test_N_8_X_1_requests_grow_as_far_as_there_is_memory),
        CASE(test_X_1_N_3_whoever_posts_hears_that_memory_is_out),
        CASE(test_X_1_N_3_a_first_post_with_ever_more_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
