#include "core/actors/actors.h"

#include "core/actors/directory.h"

#include <errno.h>

/* Nobody finds the loop any more, and it posts no more by its own routes. */
static void leave(struct actors *actors) {
    if (actors->here)
        tram__directory_remove(actors->here);
    routes_fini(actors->loop, &actors->routes);
}

/* The loop closes, and waits for no answer any more. */
static void actors_ending(struct close_hook *hook, enum shutdown_mode ending) {
    struct actors *actors = container_of(hook, struct actors, hook);
    if (ending != IO_SHUTDOWN_NOW)
        return;
    list_remove(&hook->link);
    leave(actors);
    tram__requests_abandon(&actors->requests);
}

static void free_actors(tram_loop *loop, struct loop_state *state) {
    struct actors *actors = container_of(state, struct actors, state);
    (void)loop;
    if (!list_empty(&actors->hook.link)) /* nobody closed the loop: this is a forked child, and other hooks are freed */
        leave(actors);
    tram__requests_fini(&actors->requests);
    if (actors->here)
        tram__addressees_release(actors->here);
}

static void validate(const struct loop_state *state) {
    const struct actors *actors = container_of(state, struct actors, state);
    if (actors->here)
        tram__addressees_validate(actors->here);
}

struct actors *tram__actors(tram_loop *loop) {
    struct actors *actors = actors_present(loop);
    if (likely(actors != NULL))
        return actors;
    actors = tram__loop_slot_open(loop, ACTORS_SLOT, sizeof *actors, free_actors);
    if (!actors)
        return NULL;
    actors->state.validate = validate;
    actors->loop = loop;
    tram__requests_init(&actors->requests, loop);
    loop_add_close_hook(loop, &actors->hook, actors_ending);
    return actors;
}

__attribute__((noinline)) static int open_here(struct actors *actors) {
    if (actors->loop->closed)
        return TRAM_ESTATE;
    struct addressees *here = tram__addressees_new(actors->loop->mailbox);
    if (!here)
        return -ENOMEM;
    int status = tram__directory_add(here);
    if (status) {
        tram__addressees_release(here);
        return status;
    }
    actors->here = here;
    here->mailbox->number = here->number;
    here->mailbox->number_generation = here->generation;
    return 0;
}

int tram__actors_open(tram_loop *loop, struct actors **ret_actors) {
    struct actors *actors = tram__actors(loop);
    *ret_actors = actors;
    if (unlikely(!actors))
        return -ENOMEM;
    return likely(actors->here != NULL) ? 0 : open_here(actors);
}

int tram__address_open(tram_loop *loop, deliver_function deliver, void *target, uint32_t *ret_slot) {
    struct actors *actors;
    int status = tram__actors_open(loop, &actors);
    if (status)
        return status;
    *ret_slot = tram__addressee_add(actors->here, deliver, target);
    return *ret_slot ? 0 : -ENOMEM;
}

void tram__address_close(tram_loop *loop, uint32_t slot) {
    tram__addressee_remove(actors_present(loop)->here, slot);
}
