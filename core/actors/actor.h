/*
 * Actors from the inside. What the library keeps of one is a record, made when it starts. What actors tell each other
 * of their ends are notices: mail to the address of an actor that is no message of the user's.
 */
#ifndef TRAM_CORE_ACTORS_ACTOR_H
#define TRAM_CORE_ACTORS_ACTOR_H

#include "core/actors/actors.h"
#include <tram/actor.h>

struct name;
struct actor_record;

/* What an actor is that the library itself has made: a supervisor, a task. Any entry may be NULL. */
struct actor_kind {
    /* Instead of message_received. */
    deliver_function deliver;
    /* Instead of actor_ended for one that it monitors: by this node, which is the actor's from now on. */
    void (*ended)(tram_actor *actor, struct mail *mail, tram_address who, int reason);
    /* The first step of its end. True: that is not all, and tram__actor_ended() follows. */
    bool (*stopping)(tram_actor *actor);
};

/* Who is told on the loop when an actor of his is over: a supervisor. */
struct actor_holder {
    tram_actor *actor; /* NULL: it is over, or about to call `stopped` */
    void (*ended)(struct actor_holder *holder, int reason);
};

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
    tram_address self;
    int reason;
    bool begun;         /* `started` was called */
    bool told;          /* `closing` was called */
    struct ready ready; /* first for `started`, then for `stopped` */
    struct deadline timer;
    struct list links;    /* struct relation */
    struct list watched;  /* whom it monitors */
    struct list watchers; /* who monitors it */
    struct name *names;
    const struct actor_kind *kind; /* NULL: a user's */
    struct actor_holder *holder;   /* NULL: none */
};

static inline bool actor_alive(const tram_actor *actor) {
    return actor->record && actor->record->slot;
}

/* tram_loop_start_actor() of one of this kind. */
int tram__actor_start(tram_loop *loop, tram_actor *actor, const struct actor_kind *kind);

/* The first step of its end; nothing if that was taken. */
void tram__actor_stop(struct actor_record *record, int reason);

/* … is done: those who are interested are told, and `stopped` comes. */
void tram__actor_ended(struct actor_record *record);

/* Was that called? */
static inline bool actor_is_ending(const struct actor_record *record) {
    return !record->slot && !list_empty(&record->ready.link);
}

/* Its names go when it stops: names.c. */
void tram__names_drop(struct name *names);

#endif
