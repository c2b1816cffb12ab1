/*
 * The part of test_random_calls.c that knows messages and actors: each message has a record that is given back once,
 * whoever gets or drops it; requests are answered at some time, by then the loop may have gone.
 */
#ifndef TRAM_TESTS_STRESS_RANDOM_ACTORS_H
#define TRAM_TESTS_STRESS_RANDOM_ACTORS_H

#define MOST_ADDRESSES 16
#define MOST_REQUESTS  12

enum { PARCEL_TAG = 77 };

struct fuzz_actor {
    tram_actor base;
    unsigned number;
    bool started;
    bool stopping;
    struct fuzz_actor *next;
};

static struct {
    tram_address addresses[MOST_ADDRESSES];
    size_t address_count; /* that there ever were: the last are kept */
    tram_request *requests[MOST_REQUESTS];
    size_t request_count;
    struct fuzz_actor *actors;
    unsigned live_parcels, live_actors, live_work;
} a;

/* ---- Messages ---- */

static const tram_message_type parcel_type;

static tram_message parcel(void) {
    struct record *record = calloc(1, sizeof *record);
    record->number = ++g.numbers;
    a.live_parcels++;
    return (tram_message){.type = &parcel_type, .tag = PARCEL_TAG, .data = record};
}

static struct record *record_of(const tram_message *message) {
    struct record *record = message->data;
    CHECK(message->type == &parcel_type && message->tag == PARCEL_TAG && !record->used);
    return record;
}

static void parcel_end(tram_message *message, const char *how) {
    struct record *record = record_of(message);
    begin_callback(how, record->number, false);
    record->used = true;
    free(record);
    a.live_parcels--;
    some_calls(1);
    end_callback();
}

static void parcel_destroy(tram_message *message) {
    parcel_end(message, "destroy");
}

static void parcel_dropped(tram_message *message) {
    parcel_end(message, "dropped");
}

static int parcel_copy(tram_message *message) {
    record_of(message);
    if (one_in(10))
        return -ENOMEM;
    message->data = parcel().data;
    return 0;
}

static const tram_message_type parcel_type = {
    .name = "parcel", .destroy = parcel_destroy, .dropped = parcel_dropped, .copy = parcel_copy};

/* It was refused, and is ours again. */
static void parcel_undo(int status, const tram_message *message) {
    note("  = %s", status < 0 ? tram_error_name(status) : "0");
    if (status) {
        free(record_of(message));
        a.live_parcels--;
    }
}

static void answer(tram_request *request) {
    if (one_in(3)) {
        tram_reply_error(request, one_in(2) ? -EIO : 0);
        return;
    }
    tram_message reply = parcel();
    tram_reply(request, &reply);
}

static void keep_request(tram_request *request) {
    if (a.request_count == MOST_REQUESTS || one_in(3))
        answer(request);
    else
        a.requests[a.request_count++] = request;
}

/* Of a protocol or an actor: calls before it and behind it do not touch what was received. */
static void receive_parcel(tram_message *message) {
    struct record *record = record_of(message);
    unsigned number = record->number;
    some_calls(2);
    CHECK(record_of(message) == record && record->number == number);
    tram_request *request = one_in(4) ? NULL : tram_message_take_request(message);
    if (one_in(3)) {
        tram_message taken = tram_message_take(message);
        CHECK(!message->type);
        if (request)
            keep_request(request);
        some_calls(1);
        parcel_destroy(&taken);
    } else if (request) {
        keep_request(request);
        some_calls(1);
    }
}

static int on_message(tram_protocol *base, tram_message *message) {
    enter(base, "message_received", true);
    receive_parcel(message);
    end_callback();
    return callback_result();
}

/* ---- Actors ---- */

static struct fuzz_actor *enter_actor(tram_actor *base, const char *name) {
    struct fuzz_actor *actor = (struct fuzz_actor *)base;
    begin_callback(name, actor->number, true);
    CHECK(actor->started);
    CHECK(!actor->stopping);
    CHECK(base->loop == g.loop);
    return actor;
}

static int leave_actor(struct fuzz_actor *actor, unsigned most) {
    int result = leave(most);
    if (result < 0)
        actor->stopping = true;
    return result;
}

static int on_started(tram_actor *base) {
    struct fuzz_actor *actor = (struct fuzz_actor *)base;
    CHECK(!actor->started);
    actor->started = true;
    enter_actor(base, "started");
    return leave_actor(actor, 2);
}

static int on_actor_message(tram_actor *base, tram_message *message) {
    struct fuzz_actor *actor = enter_actor(base, "actor's message_received");
    receive_parcel(message);
    return leave_actor(actor, 1);
}

static int on_timed_out(tram_actor *base) {
    return leave_actor(enter_actor(base, "timed_out"), 2);
}

static int on_actor_ended(tram_actor *base, tram_address who, int reason) {
    CHECK(reason <= 0 && who.loop);
    return leave_actor(enter_actor(base, "actor_ended"), 2);
}

static int on_closing(tram_actor *base) {
    return leave_actor(enter_actor(base, "closing"), 2);
}

static void on_stopped(tram_actor *base, int reason) {
    struct fuzz_actor *actor = (struct fuzz_actor *)base, **place = &a.actors;
    begin_callback("stopped", actor->number, true);
    CHECK(reason <= 0);
    actor->stopping = true;
    some_calls(2);
    while (*place != actor)
        place = &(*place)->next;
    *place = actor->next;
    a.live_actors--;
    free(actor);
    end_callback();
}

static const tram_actor_ops all_actor_ops = {.started = on_started,
                                             .message_received = on_actor_message,
                                             .timed_out = on_timed_out,
                                             .actor_ended = on_actor_ended,
                                             .closing = on_closing,
                                             .stopped = on_stopped};
static const tram_actor_ops few_actor_ops = {.started = on_started, .stopped = on_stopped};

static void keep_address(int status, tram_address address) {
    if (status == 0)
        a.addresses[a.address_count++ % MOST_ADDRESSES] = address;
}

static void make_actor(void) {
    struct fuzz_actor *actor = calloc(1, sizeof *actor);
    tram_address address = {0};
    actor->base.ops = one_in(4) ? &few_actor_ops : &all_actor_ops;
    actor->number = ++g.numbers;
    if (tram_loop_start_actor(g.loop, &actor->base)) {
        free(actor);
        return;
    }
    actor->next = a.actors;
    a.actors = actor;
    a.live_actors++;
    keep_address(tram_actor_address(&actor->base, &address), address);
}

static struct fuzz_actor *some_actor(void) {
    struct fuzz_actor *actor = a.actors;
    for (uint32_t skip = below(4); actor && actor->next && skip; skip--)
        actor = actor->next;
    return actor;
}

/* Whoever it was of may have ended; sometimes one that nobody has any more, or ever had. */
static tram_address some_address(void) {
    size_t count = a.address_count < MOST_ADDRESSES ? a.address_count : MOST_ADDRESSES;
    tram_address address = count ? a.addresses[below((uint32_t)count)] : (tram_address){0};
    if (one_in(12))
        address.slot += 1000000;
    else if (one_in(12))
        address.generation -= 2 * below(3);
    else if (one_in(20))
        address.loop += 1 + below(3);
    return address;
}

/* ---- Calls ---- */

static void call_transport_address(void) {
    struct link *link = some_link();
    tram_address address = {0};
    if (link)
        keep_address(tram_transport_address(link->transport, &address), address);
}

static void call_post(void) {
    tram_message message = parcel();
    parcel_undo(one_in(2) ? tram_post(some_address(), &message) : tram_try_post(some_address(), &message), &message);
}

static void call_post_batch(void) {
    tram_message messages[3] = {parcel(), parcel(), parcel()};
    int status = tram_post_batch(some_address(), messages, 3);
    for (size_t i = 0; i < 3; i++)
        parcel_undo(status, &messages[i]);
}

static void call_broadcast(void) {
    tram_address to[3] = {some_address(), some_address(), some_address()};
    tram_message message = parcel();
    int accepted = tram_broadcast(to, 3, &message);
    CHECK(accepted >= 0 && accepted <= 3);
    parcel_undo(TRAM_ESTATE, &message);
}

static void call_ask(void) {
    tram_message message = parcel();
    tram_future *future = NULL;
    int status = tram_ask(g.loop, some_address(), &message, one_in(3) ? below(2000000) : TRAM_FOREVER, &future);
    parcel_undo(status, &message);
    keep_future(status, &future);
}

static void call_credit(void) {
    tram_future *future = NULL;
    keep_future(tram_post_credit(g.loop, some_address(), &future), &future);
}

static void call_reply(void) {
    if (!a.request_count)
        return;
    size_t index = below((uint32_t)a.request_count);
    tram_request *request = a.requests[index];
    a.requests[index] = a.requests[--a.request_count];
    answer(request);
}

static void call_take_reply(void) {
    tram_message *reply = tram_future_message(some_future());
    if (!reply || !reply->type)
        return;
    record_of(reply);
    if (one_in(2))
        return;
    tram_message taken = tram_message_take(reply);
    parcel_destroy(&taken);
}

static int on_work(tram_loop *loop, void *arg, void **ret_value) {
    CHECK(loop == g.loop && arg == &a);
    begin_callback("submitted work", 0, true);
    a.live_work--;
    *ret_value = NULL;
    return leave(2);
}

static void on_work_discarded(void *arg) {
    CHECK(arg == &a);
    begin_callback("work discarded", 0, false);
    a.live_work--;
    some_calls(1);
    end_callback();
}

static void call_submit(void) {
    tram_future *future = NULL;
    a.live_work++;
    int status = tram_loop_submit(g.loop, g.loop, on_work, &a, on_work_discarded, &future);
    if (status)
        a.live_work--;
    keep_future(status, &future);
}

static void call_address_settings(void) {
    tram_message_counts counts;
    if (one_in(2))
        tram_address_set_limit(g.loop, some_address(), below(3));
    else
        tram_address_message_counts(g.loop, some_address(), &counts);
}

static void call_actor(void) {
    struct fuzz_actor *actor = some_actor();
    tram_address address = {0};
    switch (actor ? below(8) : 8) {
    case 0:
    case 1:
        if (tram_actor_stop(&actor->base, one_in(2) ? 0 : -EIO) == 0)
            actor->stopping = true;
        break;
    case 2:
        tram_actor_set_timer(&actor->base, one_in(4) ? TRAM_FOREVER : below(2000000));
        break;
    case 3:
        tram_actor_monitor(&actor->base, some_address());
        break;
    case 4:
        tram_actor_demonitor(&actor->base, some_address());
        break;
    case 5:
        tram_actor_link(&actor->base, some_address());
        break;
    case 6:
        tram_actor_unlink(&actor->base, some_address());
        break;
    case 7:
        keep_address(tram_actor_address(&actor->base, &address), address);
        break;
    default:
        break;
    }
}

/* ---- The end ---- */

static void answer_all(void) {
    while (a.request_count)
        answer(a.requests[--a.request_count]);
}

#endif
