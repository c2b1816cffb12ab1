/*
 * Connections that move at random between three loops, while these and threads without a loop post numbered messages
 * and requests to their addresses: each is received or dropped once, those of a sender in their order. In one test
 * nobody ends, so that nothing may be dropped and all counts must match; in the other connections end at random, those
 * under way as well, and loops close and begin again. In checked builds every thread is held up now and then between
 * its atomic steps.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/steps.h"
#include "support/chance.h"
#include "support/support.h"

enum { LOOPS = 3, FOREIGN = 2, SENDERS = LOOPS + FOREIGN, PLACES = 9, BURST = 32, IN_FLIGHT = 1000 };

static void crash_if(bool wrong) {
    if (wrong)
        abort();
}

/* ---- Who travels ---- */

/* One connection, whatever protocol and loop it has: whoever has it now has this, too. */
struct traveller {
    uint64_t identity;
    unsigned place;
    int peer;
    uint64_t moves;
    _Atomic uint64_t last[SENDERS]; /* the number of the last message of each that it has received */
    struct traveller *next;         /* of those that wait for a loop */
    tram_detached *detached;
};

/* The address of whoever has the place now. */
struct place {
    pthread_mutex_t lock;
    tram_address address;
    struct traveller *traveller; /* to be followed where nobody ends */
    uint64_t identity;           /* 0: nobody */
};

static struct place places[PLACES];

static struct place look(unsigned number) {
    struct place *place = &places[number];
    pthread_mutex_lock(&place->lock);
    struct place copy = {.address = place->address, .traveller = place->traveller, .identity = place->identity};
    pthread_mutex_unlock(&place->lock);
    return copy;
}

static void set_place(unsigned number, struct traveller *traveller, tram_address address) {
    struct place *place = &places[number];
    pthread_mutex_lock(&place->lock);
    place->address = address;
    place->traveller = traveller;
    place->identity = traveller ? traveller->identity : 0;
    pthread_mutex_unlock(&place->lock);
}

/* Where a loop looks for connections that are to be its own. */
struct house {
    unsigned number;
    tram_loop *loop;
    unsigned ticks_left;
    pthread_mutex_t lock;
    struct traveller *waiting;
};

static struct house houses[LOOPS];

static void send_to(struct house *house, struct traveller *traveller) {
    pthread_mutex_lock(&house->lock);
    traveller->next = house->waiting;
    house->waiting = traveller;
    pthread_mutex_unlock(&house->lock);
}

static struct traveller *take_waiting(struct house *house) {
    pthread_mutex_lock(&house->lock);
    struct traveller *first = house->waiting;
    house->waiting = NULL;
    pthread_mutex_unlock(&house->lock);
    return first;
}

/* ---- What becomes of messages ---- */

static bool ends_happen;
static _Atomic uint64_t accepted, received, dropped, refused, replied, identities, moves, ended, closed, credits,
    awaited_credits;
static _Atomic uint64_t strangers, disorder;
static uint64_t budget;

static void count_dropped(tram_message *message) {
    (void)message;
    atomic_fetch_add(&dropped, 1);
}

static void count_received(tram_message *message) {
    (void)message;
    atomic_fetch_add(&received, 1);
}

static const tram_message_type stressed = {.name = "stressed", .destroy = count_received, .dropped = count_dropped};

struct sender {
    unsigned number;
    uint64_t next; /* the number of its next message, of all that it sends */
};

static tram_message make(struct sender *sender, const struct place *to) {
    return (tram_message){.type = &stressed, .tag = sender->number, .words = {++sender->next, to->identity}};
}

struct credit {
    struct traveller *traveller;
    unsigned sender;
    uint64_t number;
};

/* What was posted before has been received: nobody ends. */
static int credit_came(tram_future *future, void *arg) {
    struct credit *credit = arg;
    crash_if(tram_future_result(future, NULL));
    if (credit->traveller->last[credit->sender] < credit->number)
        atomic_fetch_add(&disorder, 1);
    atomic_fetch_add(&credits, 1);
    atomic_fetch_sub(&awaited_credits, 1);
    free(credit);
    tram_future_release(future);
    return 0;
}

static void ask_for_credit(struct sender *sender, tram_loop *asker, const struct place *to, uint64_t number) {
    struct credit *credit = malloc(sizeof *credit);
    tram_future *future;
    *credit = (struct credit){to->traveller, sender->number, number};
    crash_if(tram_post_credit(asker, to->address, &future));
    crash_if(tram_future_add_done_callback(future, credit_came, credit));
}

/* One post to somebody. */
static void post_one(struct sender *sender, tram_loop *asker) {
    struct place to = look(dice(PLACES));
    if (!to.identity)
        return;
    tram_message message = make(sender, &to), batch[3] = {message};
    tram_future *future;
    int status, count = 1;
    uint32_t way = dice(asker ? 9 : 5);
    bool with_credit = asker && !ends_happen && dice(16) == 0;
    atomic_fetch_add(&awaited_credits, with_credit); /* before the message counts as sent */
    switch (way) {
    case 0:
    case 1:
        status = tram_post(to.address, &message);
        break;
    case 2:
    case 3:
        status = tram_try_post(to.address, &message);
        break;
    case 4:
        batch[1] = make(sender, &to);
        batch[2] = make(sender, &to);
        status = tram_post_batch(to.address, batch, 3);
        count = 3;
        break;
    default:
        status = tram_ask(asker, to.address, &message, ends_happen && dice(2) ? 100000 : TRAM_FOREVER, &future);
        if (!status && ends_happen && dice(2))
            tram_future_cancel(future);
        if (!status)
            tram_future_release(future);
        break;
    }
    crash_if(status && status != TRAM_ESTATE && status != -EAGAIN);
    atomic_fetch_add(status ? &refused : &accepted, (uint64_t)count);
    if (with_credit && !status)
        ask_for_credit(sender, asker, &to, sender->next);
    else
        atomic_fetch_sub(&awaited_credits, with_credit);
}

static bool send_burst(struct sender *sender, tram_loop *asker) {
    for (int i = 0; i < BURST; i++) {
        if (accepted >= budget)
            return false;
        if ((int64_t)(accepted + replied - received - dropped) < IN_FLIGHT)
            post_one(sender, asker);
    }
    return true;
}

/* ---- Protocols ---- */

struct stay {
    tram_protocol base;
    struct traveller *traveller; /* NULL: it has left */
    struct house *house;
    bool first;
};

static void finish(struct traveller *traveller) {
    if (look(traveller->place).identity == traveller->identity)
        set_place(traveller->place, NULL, (tram_address){0});
    close(traveller->peer);
    atomic_fetch_add(&ended, 1);
    atomic_fetch_add(&moves, traveller->moves);
    free(traveller);
}

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static const tram_protocol_ops stay_ops;

static struct stay *stay_new(struct house *house, struct traveller *traveller, bool first) {
    struct stay *stay = calloc(1, sizeof *stay);
    *stay = (struct stay){.base.ops = &stay_ops, .traveller = traveller, .house = house, .first = first};
    return stay;
}

static void adopt(struct house *house, struct traveller *traveller) {
    struct stay *stay = stay_new(house, traveller, false);
    tram_detached *detached = traveller->detached;
    traveller->detached = NULL;
    crash_if(tram_loop_adopt_detached(house->loop, factory, stay, detached, NULL));
    tram_detached_free(detached);
}

static void depart(struct stay *stay) {
    struct traveller *traveller = stay->traveller;
    crash_if(tram_transport_detach(stay->base.transport, &traveller->detached));
    stay->traveller = NULL;
    traveller->moves++;
    if (ends_happen && dice(64) == 0) {
        tram_detached_free(traveller->detached);
        finish(traveller);
    } else if (dice(4) == 0) {
        adopt(stay->house, traveller);
    } else {
        send_to(&houses[dice(LOOPS)], traveller);
    }
}

/* The address is the same, unless the loop that gave it has closed. */
static int stay_made(tram_protocol *protocol, tram_transport *transport) {
    struct stay *stay = (struct stay *)protocol;
    tram_address before = look(stay->traveller->place).address, address;
    crash_if(tram_transport_address(transport, &address));
    crash_if(!stay->first && !ends_happen && !tram_address_equal(before, address));
    set_place(stay->traveller->place, stay->traveller, address);
    return 0;
}

static int stay_received(tram_protocol *protocol, tram_message *message) {
    struct stay *stay = (struct stay *)protocol;
    struct traveller *traveller = stay->traveller;
    uint64_t number = message->words[0];
    if (!traveller || message->words[1] != traveller->identity)
        atomic_fetch_add(&strangers, 1);
    else if (traveller->last[message->tag] >= number)
        atomic_fetch_add(&disorder, 1);
    else
        traveller->last[message->tag] = number;
    tram_request *request = dice(4) ? tram_message_take_request(message) : NULL;
    if (request) {
        tram_message reply = {.type = &stressed};
        atomic_fetch_add(&replied, 1);
        tram_reply(request, &reply);
    }
    if (!traveller || tram_transport_is_closing(protocol->transport))
        return 0;
    if (dice(32) == 0)
        depart(stay);
    else if (ends_happen && dice(4096) == 0)
        tram_transport_abort(protocol->transport);
    return 0;
}

static int stay_lost(tram_protocol *protocol, const tram_error *error) {
    struct stay *stay = (struct stay *)protocol;
    (void)error;
    finish(stay->traveller);
    stay->traveller = NULL;
    return 0;
}

/* It may have been adopted by a loop that closed before connection_made. */
static void stay_released(tram_protocol *protocol) {
    struct stay *stay = (struct stay *)protocol;
    if (stay->traveller)
        finish(stay->traveller);
    free(stay);
}

static const tram_protocol_ops stay_ops = {.connection_made = stay_made,
                                           .message_received = stay_received,
                                           .connection_lost = stay_lost,
                                           .released = stay_released};

/* ---- Loops ---- */

static void fill_places(struct house *house) {
    for (unsigned number = house->number; number < PLACES; number += LOOPS) {
        struct traveller *traveller;
        int fds[2];
        if (look(number).identity)
            continue;
        traveller = calloc(1, sizeof *traveller);
        traveller->identity = ++identities;
        traveller->place = number;
        crash_if(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
        traveller->peer = fds[1];
        struct stay *stay = stay_new(house, traveller, true);
        crash_if(tram_loop_adopt(house->loop, factory, stay, fds[0], NULL, 0, NULL));
        set_place(number, traveller, (tram_address){0}); /* until it is made */
    }
}

static void adopt_waiting(struct house *house) {
    for (struct traveller *traveller = take_waiting(house), *next; traveller; traveller = next) {
        next = traveller->next;
        adopt(house, traveller);
    }
}

static _Thread_local struct sender own_sender;

static bool all_is_over(void) {
    return accepted >= budget && (ends_happen || (accepted + replied == received + dropped && !awaited_credits));
}

static int turn(tram_loop *loop, void *arg) {
    struct house *house = arg;
    send_burst(&own_sender, loop);
    adopt_waiting(house);
    fill_places(house);
    if (all_is_over() || (ends_happen && house->number && house->ticks_left-- == 0))
        return tram_loop_stop(loop);
    if (dice(8) == 0) /* sleeps */
        return tram_loop_call_later(loop, dice(100000), turn, house, NULL, NULL);
    return tram_loop_call_soon(loop, turn, house, NULL, NULL);
}

/* Of those that began here. */
static _Atomic uint64_t delivered, left_over;

static void check_counts(struct house *house) {
    for (unsigned number = house->number; number < PLACES; number += LOOPS) {
        tram_message_counts counts;
        crash_if(tram_address_message_counts(house->loop, look(number).address, &counts));
        delivered += counts.delivered;
        left_over += counts.waiting + counts.queued + counts.dropped;
    }
}

static pthread_barrier_t all_stopped;

static void *live(void *arg) {
    struct house *house = arg;
    dice_state = house->number + 1;
    own_sender.number = house->number;
    do {
        house->ticks_left = 200 + dice(400);
        crash_if(tram_loop_new(NULL, &house->loop));
        fill_places(house);
        crash_if(tram_loop_call_soon(house->loop, turn, house, NULL, NULL));
        crash_if(tram_loop_run_forever(house->loop));
        if (!ends_happen) {
            check_counts(house);
            pthread_barrier_wait(&all_stopped); /* who closes first ends the addresses of the others' connections */
        }
        crash_if(tram_loop_free(house->loop));
        atomic_fetch_add(&closed, 1);
    } while (!all_is_over());
    return NULL;
}

static void *post_only(void *arg) {
    struct sender sender = {.number = (unsigned)(uintptr_t)arg};
    dice_state = 100 + sender.number;
    while (send_burst(&sender, NULL))
        sched_yield();
    return NULL;
}

static void stress(uint64_t messages) {
    pthread_t threads[SENDERS];
    accepted = received = dropped = refused = replied = moves = ended = closed = credits = awaited_credits = strangers =
        disorder = 0;
    delivered = left_over = 0;
    budget = messages;
    pthread_barrier_init(&all_stopped, NULL, LOOPS);
#if TRAM_CHECKED
    tram__between_steps = hold_up;
#endif
    for (unsigned i = 0; i < PLACES; i++)
        places[i] = (struct place){.lock = PTHREAD_MUTEX_INITIALIZER};
    for (unsigned i = 0; i < LOOPS; i++)
        houses[i] = (struct house){.number = i, .lock = PTHREAD_MUTEX_INITIALIZER};
    for (unsigned i = 0; i < LOOPS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, live, &houses[i]), 0);
    for (unsigned i = LOOPS; i < SENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_only, (void *)(uintptr_t)i), 0);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
#if TRAM_CHECKED
    tram__between_steps = NULL;
#endif
    for (unsigned i = 0; i < LOOPS; i++)
        for (struct traveller *traveller = take_waiting(&houses[i]), *next; traveller; traveller = next) {
            next = traveller->next;
            tram_detached_free(traveller->detached);
            finish(traveller);
        }
    pthread_barrier_destroy(&all_stopped);
    printf("accepted %lu and %lu replies, received %lu, dropped %lu, refused %lu; %lu moves of %lu connections, "
           "%lu credits, %lu loops\n",
           (unsigned long)accepted, (unsigned long)replied, (unsigned long)received, (unsigned long)dropped,
           (unsigned long)refused, (unsigned long)moves, (unsigned long)ended, (unsigned long)credits,
           (unsigned long)closed);
    assert_int_equal(strangers, 0);
    assert_int_equal(disorder, 0);
    assert_int_equal(accepted + replied, received + dropped);
    assert_true(moves > accepted / 1000);
}

static uint64_t messages_of(uint64_t checked, uint64_t release) {
    return getenv("TRAM_TEST_FULL") ? 20 * release : TRAM_CHECKED ? checked : release;
}

static void test_N_17_N_18_nothing_is_lost_by_connections_that_move(void **state) {
    (void)state;
    ends_happen = false;
    stress(messages_of(30000, 300000));
    assert_int_equal(dropped, 0);
    assert_int_equal(delivered, accepted);
    assert_int_equal(left_over, 0);
    assert_true(credits > 0);
}

static void test_N_17_N_19_N_20_connections_and_loops_end_while_they_move(void **state) {
    (void)state;
    ends_happen = true;
    stress(messages_of(30000, 300000));
    assert_true(received > accepted / 100 && dropped > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_N_17_N_18_nothing_is_lost_by_connections_that_move),
        cmocka_unit_test(test_N_17_N_19_N_20_connections_and_loops_end_while_they_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
