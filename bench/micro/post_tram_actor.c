/*
 * post.h over tram by addresses: a party has an actor, and a post is a message to it. With ASK, a request, which the
 * actor answers; the reply is waited for by a callback of the asking loop.
 */
#include "post.h"

#include <string.h>

#include <tram/tram.h>

#include "micro.h"

const bool party_can_spin = true;

struct party {
    tram_actor actor;
    tram_loop *loop;
    tram_address address;
};

static int received(tram_actor *actor, tram_message *message) {
    post_function function;
    memcpy(&function, &message->words[0], sizeof function);
#ifdef ASK
    tram_request *request = tram_message_take_request(message);
    if (request)
        tram_reply(request, NULL);
#endif
    return function(actor->loop, message->pointers[1]);
}

static const tram_actor_ops ops = {.message_received = received};

struct party *party_new(uint64_t spin_ns) {
    tram_loop_options options = {.spin_ns = spin_ns};
    struct party *party = calloc(1, sizeof *party);
    MICRO_CHECK(party && tram_loop_new(&options, &party->loop) == 0);
    party->actor.ops = &ops;
    MICRO_CHECK(tram_loop_start_actor(party->loop, &party->actor) == 0);
    MICRO_CHECK(tram_actor_address(&party->actor, &party->address) == 0);
    return party;
}

void party_free(struct party *party) {
    tram_loop_free(party->loop);
    free(party);
}

void party_run(struct party *party) {
    MICRO_CHECK(tram_loop_run_forever(party->loop) == 0);
}

void party_stop(struct party *party) {
    tram_loop_stop(party->loop);
}

#ifdef ASK
static uint64_t answered;

uint64_t party_answered(void) {
    return answered;
}

static int replied(tram_future *future, void *arg) {
    (void)arg;
    answered++;
    return tram_future_message(future) ? 0 : TRAM_ESTATE;
}
#endif

void party_post(struct party *party, post_function function, void *arg) {
    tram_message message = {.pointers = {NULL, arg}};
    memcpy(&message.words[0], &function, sizeof function);
#ifdef ASK
    tram_loop *own = tram_loop_running();
    tram_future *future;
    if (own) {
        MICRO_CHECK(tram_ask(own, party->address, &message, TRAM_FOREVER, &future) == 0);
        MICRO_CHECK(tram_future_add_done_callback(future, replied, NULL) == 0);
        tram_future_release(future);
        return;
    }
#endif
    MICRO_CHECK(tram_post(party->address, &message) == 0);
}

void party_soon(struct party *party, post_function function, void *arg) {
    MICRO_CHECK(tram_loop_call_soon(party->loop, function, arg, NULL, NULL) == 0);
}
