/*
 * Messages to protocols and actors that end and begin at random, on loops that do so too, from loops and from threads
 * without one: each that was accepted is received by the one whom it was for, or dropped, once. In checked builds every
 * thread is held up now and then between its atomic steps.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "core/base/steps.h"
#include "support/chance.h"
#include "support/support.h"

enum { LOOPS = 3, FOREIGN = 2, PLACES = 24, BURST = 32, IN_FLIGHT = 20000 };

/* ---- Who can be posted to ---- */

/* The address of whoever has the place now; each tenant has an identity that messages to it carry. */
struct place {
    pthread_mutex_t lock;
    tram_address address;
    uint64_t identity; /* 0: nobody yet */
};

static struct place places[LOOPS][PLACES];
static _Atomic uint64_t identities;

static struct place look(unsigned loop, unsigned number) {
    struct place *place = &places[loop][number];
    pthread_mutex_lock(&place->lock);
    struct place copy = {.address = place->address, .identity = place->identity};
    pthread_mutex_unlock(&place->lock);
    return copy;
}

/* ---- What becomes of messages ---- */

static _Atomic uint64_t accepted, received, dropped, refused, replied, strangers, budget;

static void count_dropped(tram_message *message) {
    (void)message;
    atomic_fetch_add(&dropped, 1);
}

static void count_received(tram_message *message) {
    (void)message;
    atomic_fetch_add(&received, 1);
}

static const tram_message_type stressed = {.name = "stressed", .destroy = count_received, .dropped = count_dropped};

static void crash_if(bool wrong) {
    if (wrong)
        abort();
}

/* One post to somebody; false: there is nothing left to send. */
static bool post_one(tram_loop *asker) {
    struct place to = look(dice(LOOPS), dice(PLACES));
    if (!to.identity)
        return true;
    tram_message message = {.type = &stressed, .words = {0, to.identity}};
    tram_message batch[3] = {message, message, message};
    tram_future *future;
    int status, count = 1;
    switch (dice(asker ? 8 : 5)) {
    case 0:
    case 1:
    case 2:
        status = tram_post(to.address, &message);
        break;
    case 3:
        status = tram_try_post(to.address, &message);
        break;
    case 4:
        status = tram_post_batch(to.address, batch, 3);
        count = 3;
        break;
    default:
        status = tram_ask(asker, to.address, &message, dice(2) ? TRAM_FOREVER : 100000, &future);
        if (!status && dice(2))
            tram_future_cancel(future);
        if (!status)
            tram_future_release(future);
        break;
    }
    crash_if(status && status != TRAM_ESTATE && status != -EAGAIN);
    atomic_fetch_add(status ? &refused : &accepted, (uint64_t)count);
    return true;
}

static bool send_burst(tram_loop *asker) {
    for (int i = 0; i < BURST; i++) {
        if (accepted >= budget)
            return false;
        if ((int64_t)(accepted + replied - received - dropped) < IN_FLIGHT)
            post_one(asker);
    }
    return true;
}

/* ---- Loops ---- */

/* A protocol, or an actor. */
struct tenant {
    union {
        tram_protocol protocol;
        tram_actor actor;
    };
    uint64_t identity;
    struct tenant **place; /* an actor's: where it stands until it has ended, or another stands there */
};

static int receive(const struct tenant *tenant, tram_message *message) {
    if (message->words[1] != tenant->identity)
        atomic_fetch_add(&strangers, 1);
    tram_request *request = dice(4) ? tram_message_take_request(message) : NULL;
    if (!request)
        return 0;
    tram_message reply = {.type = &stressed};
    atomic_fetch_add(&replied, 1);
    tram_reply(request, &reply);
    return 0;
}

static int protocol_received(tram_protocol *protocol, tram_message *message) {
    return receive((struct tenant *)protocol, message);
}

static void protocol_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops protocol_ops = {.message_received = protocol_received, .released = protocol_released};

/* Now and then one ends by what it receives. */
static int actor_received(tram_actor *actor, tram_message *message) {
    receive((struct tenant *)actor, message);
    return dice(256) ? 0 : tram_actor_stop(actor, 0);
}

static void actor_stopped(tram_actor *actor, int reason) {
    struct tenant *tenant = (struct tenant *)actor;
    (void)reason;
    if (*tenant->place == tenant)
        *tenant->place = NULL;
    free(tenant);
}

static const tram_actor_ops actor_ops = {.message_received = actor_received, .stopped = actor_stopped};

struct house {
    unsigned number;
    bool first;                         /* it goes on until all is sent, the others end and begin again */
    tram_transport *transports[PLACES]; /* NULL: an actor has the place, or had */
    struct tenant *actors[PLACES];
    unsigned ticks_left;
};

static _Atomic uint64_t actors_begun;

static tram_address make_protocol(struct house *house, tram_loop *loop, struct tenant *tenant, unsigned number) {
    struct tenant *peer = calloc(1, sizeof *peer);
    tram_address address;
    tenant->protocol.ops = peer->protocol.ops = &protocol_ops;
    crash_if(tram_loop_create_pair(loop, &tenant->protocol, &peer->protocol, &house->transports[number], NULL));
    crash_if(tram_transport_address(house->transports[number], &address));
    return address;
}

static tram_address make_actor(struct house *house, tram_loop *loop, struct tenant *tenant, unsigned number) {
    tram_address address;
    tenant->actor.ops = &actor_ops;
    tenant->place = &house->actors[number];
    house->transports[number] = NULL;
    house->actors[number] = tenant;
    crash_if(tram_loop_start_actor(loop, &tenant->actor));
    crash_if(tram_actor_address(&tenant->actor, &address));
    atomic_fetch_add(&actors_begun, 1);
    return address;
}

static void move_in(struct house *house, tram_loop *loop, unsigned number) {
    struct tenant *tenant = calloc(1, sizeof *tenant);
    struct place *place = &places[house->number][number];
    tenant->identity = ++identities;
    tram_address address = (dice(2) ? make_actor : make_protocol)(house, loop, tenant, number);
    pthread_mutex_lock(&place->lock);
    place->address = address;
    place->identity = tenant->identity;
    pthread_mutex_unlock(&place->lock);
}

static void move_out(struct house *house, unsigned number) {
    if (house->transports[number])
        tram_transport_abort(house->transports[number]);
    else if (house->actors[number])
        tram_actor_stop(&house->actors[number]->actor, 0);
}

static int turn(tram_loop *loop, void *arg) {
    struct house *house = arg;
    bool more = send_burst(loop);
    for (int moves = (int)dice(3); moves > 0; moves--) {
        unsigned number = dice(PLACES);
        move_out(house, number);
        move_in(house, loop, number);
    }
    if (!more || (!house->first && house->ticks_left-- == 0))
        return tram_loop_stop(loop);
    if (dice(8) == 0) /* sleeps */
        return tram_loop_call_later(loop, dice(100000), turn, house, NULL, NULL);
    return tram_loop_call_soon(loop, turn, house, NULL, NULL);
}

static void *live(void *arg) {
    struct house *house = arg;
    dice_state = house->number + 1;
    do {
        tram_loop *loop;
        house->ticks_left = 50 + dice(200);
        crash_if(tram_loop_new(NULL, &loop));
        for (unsigned number = 0; number < PLACES; number++)
            move_in(house, loop, number);
        crash_if(tram_loop_call_soon(loop, turn, house, NULL, NULL));
        crash_if(tram_loop_run_forever(loop));
        crash_if(tram_loop_free(loop));
    } while (accepted < budget);
    return NULL;
}

static void *post_only(void *arg) {
    dice_state = (uintptr_t)arg;
    while (send_burst(NULL))
        sched_yield();
    return NULL;
}

static void test_N_1_N_3_each_message_is_received_by_its_addressee_or_dropped_once(void **state) {
    (void)state;
    struct house houses[LOOPS] = {{0}};
    pthread_t threads[LOOPS + FOREIGN];
    budget = getenv("TRAM_TEST_FULL") ? 10000000 : TRAM_CHECKED ? 60000 : 600000;
#if TRAM_CHECKED
    tram__between_steps = hold_up;
#endif
    for (unsigned i = 0; i < LOOPS; i++)
        for (unsigned j = 0; j < PLACES; j++)
            pthread_mutex_init(&places[i][j].lock, NULL);
    for (unsigned i = 0; i < LOOPS; i++) {
        houses[i] = (struct house){.number = i, .first = i == 0};
        assert_int_equal(pthread_create(&threads[i], NULL, live, &houses[i]), 0);
    }
    for (unsigned i = 0; i < FOREIGN; i++)
        assert_int_equal(pthread_create(&threads[LOOPS + i], NULL, post_only, (void *)(uintptr_t)(100 + i)), 0);
    for (unsigned i = 0; i < LOOPS + FOREIGN; i++)
        pthread_join(threads[i], NULL);
#if TRAM_CHECKED
    tram__between_steps = NULL;
#endif
    printf("accepted %lu and %lu replies, received %lu, dropped %lu, refused %lu; %lu protocols and %lu actors\n",
           (unsigned long)accepted, (unsigned long)replied, (unsigned long)received, (unsigned long)dropped,
           (unsigned long)refused, (unsigned long)(identities - actors_begun), (unsigned long)actors_begun);
    assert_int_equal(strangers, 0);
    assert_int_equal(accepted + replied, received + dropped);
    assert_true(received > accepted / 100 && dropped > accepted / 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_N_1_N_3_each_message_is_received_by_its_addressee_or_dropped_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
