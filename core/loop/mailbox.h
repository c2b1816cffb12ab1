/*
 * The mailbox of a loop: how other threads reach it, and the only file with memory ordering between threads.
 *
 * Any thread pushes nodes; the owner takes them all at once. A node is 64 bytes: what to do with it, and a
 * payload inline. A node returns to the pool of its owner and is used again, so a post seldom allocates. A thread that
 * runs a loop takes nodes from its own mailbox, without atomics, and gets them back in batches; any other thread takes
 * them from the mailbox that it posts to.
 *
 * Sleeping. The word `state` is RUNNING, SLEEPING or NOTIFIED. The owner announces SLEEPING before it waits
 * and then looks once more into the box; a poster pushes first and then looks at the word: whichever comes
 * second sees the other. Only the poster that turns SLEEPING into NOTIFIED makes the system call that wakes.
 *
 * A mailbox is counted and outlives its loop while someone may still post or has nodes of it; after
 * tram__mailbox_close() posts fail with TRAM_ESTATE. What was accepted is run or discarded.
 */
#ifndef TRAM_CORE_LOOP_MAILBOX_H
#define TRAM_CORE_LOOP_MAILBOX_H

#include <ck_stack.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/memory.h"
#include "core/system/sys.h"
#include <tram/loop.h>

struct mail;

/* What a node does when it arrives. `run` is called on the owner's loop, or `discard` if the loop was closed
 * first; neither frees the node. */
struct mail_kind {
    void (*run)(tram_loop *loop, struct mail *mail);
    void (*discard)(struct mail *mail);
    bool counted; /* counts against the limit of try posts */
};

#define MAIL_PAYLOAD 40

struct mail {
    ck_stack_entry_t entry;
    const struct mail_kind *kind;
    struct mailbox *owner_pool; /* whose node it is; NULL: of the mailbox that it is posted to */
    union {
        _Alignas(8) unsigned char payload[MAIL_PAYLOAD];
        struct mail *next_free; /* of a list of free nodes */
    };
};

/* Nodes of one owner pool that are on their way back to it. */
struct mail_batch {
    struct mailbox *owner_pool;
    struct mail *first, *last;
    uint32_t count;
};

struct mail_chunk; /* memory of nodes */

struct mailbox {
    /* What a post touches, in one line. */
    _Alignas(64) ck_stack_t inbox;
    _Atomic uint32_t state;
    _Atomic bool closed;
    int eventfd;
    const struct sys *sys;

    _Alignas(64) ck_stack_t shared_free;           /* nodes of threads without a loop, to use again; popped by many */
    _Alignas(64) ck_stack_t returned;              /* batches of nodes that were returned, by their first */
    _Atomic uint64_t references;                   /* holds, and nodes out: see tram__mailbox_abandon() */
    _Alignas(64) _Atomic uint32_t bounded_pending; /* counted nodes on the way */
    uint32_t limit;
    _Atomic bool abandoned;
    _Atomic uint64_t signals; /* bit n - 1: signal n came */

    /* the owner's */
    _Alignas(64) ck_stack_entry_t *taken; /* nodes taken from the inbox in order, not run yet */
    struct mail_batch used;               /* nodes that were run and go back to their owner together */
    struct mail *nodes;                   /* its own, free */
    ck_stack_entry_t *batches;            /* more of them, by the first of each batch */
    uint64_t nodes_out;                   /* of its own, in all: those that came back through `back` included */
    struct mail_chunk *chunks;
    bool announced; /* sleep, and not ended it yet */
    tram_allocator allocator;
    void *memory; /* what was allocated: this struct is aligned in it */
};

int tram__mailbox_new(const tram_allocator *allocator, const struct sys *sys, uint32_t limit,
                      struct mailbox **ret_mailbox);
struct mailbox *tram__mailbox_hold(struct mailbox *mailbox);

/* The last release discards what is still inside and frees. Any thread. */
void tram__mailbox_release(struct mailbox *mailbox);

/* The owner's release, instead of tram__mailbox_release(): nobody runs its loop any more. */
void tram__mailbox_abandon(struct mailbox *mailbox);

/* The calling thread runs the loop of this mailbox from now on; NULL: none any more. */
void tram__mailbox_enter(struct mailbox *mailbox);

/* The mailbox of the loop that this thread runs, or NULL. Reached without a call also in the shared library, which
 * then takes its eight bytes from what the C library keeps ready for libraries that are loaded late. */
extern _Thread_local __attribute__((tls_model("initial-exec"))) struct mailbox *tram__mailbox_entered;

/* A node to fill and post to this mailbox, or NULL when out of memory. Any thread. */
struct mail *tram__mail_new(struct mailbox *mailbox, const struct mail_kind *kind);

/* The same, where it is called often: a node of the owner's own, if one is at hand. */
static inline struct mail *mail_new(struct mailbox *mailbox, const struct mail_kind *kind) {
    struct mailbox *own = tram__mailbox_entered;
    if (!own || !own->nodes)
        return tram__mail_new(mailbox, kind);
    struct mail *mail = own->nodes;
    own->nodes = mail->next_free;
    __builtin_prefetch(mail->next_free, 1); /* it is in the cache of who ran it, and will be written next */
    own->nodes_out++;
    mail->kind = kind;
    return mail;
}

/* Gives back a node that was not posted, or has been run. Any thread. */
void tram__mail_free(struct mailbox *mailbox, struct mail *mail);

/* Posts a node of this mailbox. 0, or TRAM_ESTATE after close: the node stays the caller's. Any thread. */
int tram__mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* The same, but a node that is refused is given back. */
int tram__mailbox_send(struct mailbox *mailbox, struct mail *mail);

/* Takes a place for a counted node: 0, or -EAGAIN at the limit. Give it back by uncount, or post a node of a
 * counted kind. */
int tram__mailbox_count(struct mailbox *mailbox);
void tram__mailbox_uncount(struct mailbox *mailbox);

/* Wakes the owner if it sleeps. Any thread, and signal handlers. */
void tram__mailbox_wake(struct mailbox *mailbox);

/* ---- for the owner ---- */

/* Announces sleep. False: there is something to do, do not sleep (and the announcement is withdrawn). */
bool tram__mailbox_sleep(struct mailbox *mailbox);

/* Ends the announcement. */
static inline void mailbox_awake(struct mailbox *mailbox) {
    if (!mailbox->announced)
        return; /* without a look at the posters' line */
    mailbox->announced = false;
    atomic_store_explicit(&mailbox->state, 0, memory_order_relaxed);
}

/* Empties the eventfd, after it polled readable and before the mail is taken. */
void tram__mailbox_drain_wakeup(struct mailbox *mailbox);

/* Nothing to take and nothing taken. A hint: a poster may be just about to push. */
static inline bool mailbox_empty(const struct mailbox *mailbox) {
    return !mailbox->taken && !__atomic_load_n(&mailbox->inbox.head, __ATOMIC_RELAXED);
}

/* Takes what came, unless something is left of what was taken before: what mailbox_next() gives. */
void tram__mailbox_take(struct mailbox *mailbox);

static inline struct mail *mail_of(ck_stack_entry_t *entry) {
    return (struct mail *)(void *)entry;
}

/* The next node of those taken, in order of arrival for each poster, or NULL. Free it with mail_put_back(). */
static inline struct mail *mailbox_next(struct mailbox *mailbox) {
    ck_stack_entry_t *entry = mailbox->taken;
    if (!entry)
        return NULL;
    mailbox->taken = entry->next;
    return mail_of(entry);
}

/* Sends a batch home. Any thread. */
void tram__mail_batch_send(struct mailbox *mailbox, struct mail_batch batch);

/* Puts a node of `mailbox` that was run into the batch, and sends what was in there if its home is another. */
static inline void mail_put_back(struct mailbox *mailbox, struct mail_batch *batch, struct mail *mail) {
    mail->next_free = NULL;
    if (batch->first && batch->owner_pool == mail->owner_pool) {
        batch->last->next_free = mail;
    } else {
        if (batch->first)
            tram__mail_batch_send(mailbox, *batch);
        *batch = (struct mail_batch){.owner_pool = mail->owner_pool, .first = mail};
    }
    batch->last = mail;
    batch->count++;
}

/* No post succeeds from now on; what was accepted is discarded. */
void tram__mailbox_close(struct mailbox *mailbox);

#endif
