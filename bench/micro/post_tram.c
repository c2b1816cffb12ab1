/* post.h over tram. */
#include "post.h"

#include <tram/loop.h>

#include "micro.h"

const bool party_can_spin = true;

/* A party is its loop. */
static tram_loop *loop_of(struct party *party) {
    return (tram_loop *)(void *)party;
}

struct party *party_new(uint64_t spin_ns) {
    tram_loop_options options = {.spin_ns = spin_ns};
    tram_loop *loop;
    MICRO_CHECK(tram_loop_new(&options, &loop) == 0);
    return (struct party *)(void *)loop;
}

void party_free(struct party *party) {
    tram_loop_free(loop_of(party));
}

void party_run(struct party *party) {
    MICRO_CHECK(tram_loop_run_forever(loop_of(party)) == 0);
}

void party_stop(struct party *party) {
    tram_loop_stop(loop_of(party));
}

void party_post(struct party *party, post_function function, void *arg) {
    MICRO_CHECK(tram_loop_call_soon_threadsafe(loop_of(party), function, arg, NULL) == 0);
}

void party_soon(struct party *party, post_function function, void *arg) {
    MICRO_CHECK(tram_loop_call_soon(loop_of(party), function, arg, NULL, NULL) == 0);
}
