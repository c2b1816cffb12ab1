/*
 * Actors from the inside. What the library keeps of one is a record, made when it starts. What actors tell each other
 * of their ends are notices: mail to the address of an actor that is no message of the user's.
 */
#ifndef TRAM_CORE_ACTORS_ACTOR_H
#define TRAM_CORE_ACTORS_ACTOR_H

#include "core/actors/actors.h"
#include <tram/actor.h>

struct name;

/* Somebody whose end is of interest, or who is interested in this one's. */
struct relation {
    struct list link;
    tram_address who;
    struct mail *notice; /* by which it will be told of the end, so that this needs no memory; NULL: it is not */
};

struct actor_record {
    tram_actor *actor;
    struct list link; /* among those of its loop */
    uint32_t slot;    /* of its address; 0: it was stopped */
    int reason;
    bool begun;         /* `started` was called */
    bool told;          /* `closing` was called */
    struct ready ready; /* first for `started`, then for `stopped` */
    struct deadline timer;
    struct list links;    /* struct relation */
    struct list watched;  /* whom it monitors */
    struct list watchers; /* who monitors it */
    struct name *names;
    /* A supervisor's own, as an actor: it stops its children first. NULL: it is none. */
    void (*stopping)(tram_actor *actor);
    /* The supervisor's whose child it is: told on the loop, when `stopped` has returned. NULL: it has none. */
    void (*ended)(void *arg, tram_actor *actor, int reason);
    void *ended_arg;
};

static inline bool actor_alive(const tram_actor *actor) {
    return actor->record && actor->record->slot;
}

/* The first step of its end; nothing if that was taken. */
void tram__actor_stop(struct actor_record *record, int reason);

/* Its names go when it stops: names.c. */
void tram__names_drop(struct name *names);

#endif
