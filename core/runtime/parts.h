/*
 * What runs on all workers of a runtime. Core knows a part by its table only; sharded servers are one kind
 * (transports/sharded/server.c).
 */
#ifndef TRAM_CORE_RUNTIME_PARTS_H
#define TRAM_CORE_RUNTIME_PARTS_H

#include <stdbool.h>

#include "core/base/list.h"
#include <tram/runtime.h>

struct runtime_part;

struct runtime_part_ops {
    /* On the worker's thread, before its loop runs: 0 or a negative code, which fails the start of the runtime. Not
     * called for a part that is late. */
    int (*start)(struct runtime_part *part, unsigned worker, tram_loop *loop);
    /* On the worker's thread, after its loop ended and before it is closed. */
    void (*stop)(struct runtime_part *part, unsigned worker);
    /*
     * On the worker's thread, after the servers are closed: is something on its way to it that must still be heard, or
     * came since this was asked last? It must be over soon: the worker does not sleep meanwhile. NULL: never.
     */
    bool (*expects)(struct runtime_part *part, unsigned worker);
    /* On the worker's thread: writes who still has a connection there, as far as it fits; NULL: nobody. */
    void (*describe)(struct runtime_part *part, unsigned worker, char *text, size_t size);
    /* When nobody holds it any more; or with the runtime, when no worker runs any more. */
    void (*free)(struct runtime_part *part);
};

/* Made zeroed, but for `ops`. Counted: it stays in the list until the last hold goes. */
struct runtime_part {
    struct list link;
    const struct runtime_part_ops *ops;
    unsigned holds; /* guarded by the runtime's lock */
    bool late;      /* the workers had begun to start: it is handed over by mail */
};

/*
 * Adds a part, with one hold, the caller's. 0: it is started with the workers, or, if it is late now, by mail that the
 * caller sends them; or TRAM_ESTATE: the runtime ends. Any thread.
 */
int tram__runtime_add_part(tram_runtime *runtime, struct runtime_part *part);

/* The part of this kind, of which there is one at most; NULL: none. Any thread. */
struct runtime_part *tram__runtime_find_part(tram_runtime *runtime, const struct runtime_part_ops *ops);

/* Adds such a part, as above; -EEXIST: there is one of its kind. */
int tram__runtime_add_only_part(tram_runtime *runtime, struct runtime_part *part);

/* Does it end, or has it ended, so that nothing can be added? Any thread. */
bool tram__runtime_ends(tram_runtime *runtime);

/* Any thread. Without any hold the part is freed. */
void tram__runtime_hold_part(tram_runtime *runtime, struct runtime_part *part);
void tram__runtime_release_part(tram_runtime *runtime, struct runtime_part *part);

/* A job on a thread that nobody joins needs the runtime until it lets go of it again. Any thread. */
void tram__runtime_pin(tram_runtime *runtime);
void tram__runtime_unpin(tram_runtime *runtime);
void tram__runtime_await_pins(tram_runtime *runtime);

/* The part after `part`, or the first after NULL, held; lets go of `part`. NULL: there is none. Any thread. */
struct runtime_part *tram__runtime_next_part(tram_runtime *runtime, struct runtime_part *part);

#endif
