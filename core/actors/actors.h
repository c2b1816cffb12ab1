/* What a loop keeps for messages: who can be posted to, how it posts to others, and which requests it waits for. */
#ifndef TRAM_CORE_ACTORS_ACTORS_H
#define TRAM_CORE_ACTORS_ACTORS_H

#include "core/actors/addressees.h"
#include "core/actors/requests.h"
#include "core/actors/routes.h"

#define ACTORS_SLOT (LOOP_SLOT_CORE + 1)

struct actors {
    struct loop_state state;
    struct close_hook hook;
    tram_loop *loop;
    struct addressees *here; /* NULL: none had an address yet, and the loop no number */
    struct routes routes;
    uint64_t sampled_ns; /* of the message that is delivered, where it is sampled and kept: sample.h; else 0 */
    struct requests requests;
};

static inline struct actors *actors_present(const tram_loop *loop) {
    return loop_slot(loop, ACTORS_SLOT);
}

/* Made when it is first needed; NULL: out of memory. */
struct actors *tram__actors(tram_loop *loop);

/* The same, with `here`. 0, -ENOMEM or TRAM_ELIMIT; TRAM_ESTATE: the loop closes. */
int tram__actors_open(tram_loop *loop, struct actors **ret_actors);

/* The address that somebody has on this loop. */
static inline tram_address address_here(const struct actors *actors, uint32_t slot) {
    const struct addressees *here = actors->here;
    return (tram_address){here->number, here->generation, slot, addressee_at(here, slot)->slot.generation};
}

static inline int actors_open(tram_loop *loop, struct actors **ret_actors) {
    struct actors *actors = actors_present(loop);
    *ret_actors = actors;
    return likely(actors && actors->here) ? 0 : tram__actors_open(loop, ret_actors);
}

/* An address for a target, from the loop's thread. 0 and the slot, or as tram__actors_open(). */
int tram__address_open(tram_loop *loop, deliver_function deliver, void *target, uint32_t *ret_slot);
void tram__address_close(tram_loop *loop, uint32_t slot);

#endif
