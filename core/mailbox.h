/*
 * The mailbox of a loop: how other threads reach it, and the only file with memory ordering between threads.
 *
 * Any thread pushes cells; the owner takes them all at once. A cell is 64 bytes: what to do with it, and a
 * payload inline. Cells are recycled through the mailbox they were posted to, so a post seldom allocates.
 *
 * Sleeping. The word `state` is RUNNING, SLEEPING or NOTIFIED. The owner announces SLEEPING before it waits
 * and then looks once more into the box; a poster pushes first and then looks at the word: whichever comes
 * second sees the other. Only the poster that turns SLEEPING into NOTIFIED makes the system call that wakes.
 *
 * A mailbox is counted and outlives its loop while someone may still post; after tram__mailbox_close() posts
 * fail with TRAM_ESTATE. What was accepted is run or discarded.
 */
#ifndef TRAM_CORE_MAILBOX_H
#define TRAM_CORE_MAILBOX_H

#include <ck_stack.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/memory.h"
#include "core/sys.h"
#include <tram/loop.h>

struct mail;

/* What a cell does when it arrives. `run` is called on the owner's loop, or `discard` if the loop was closed
 * first; neither frees the cell. */
struct mail_kind {
    void (*run)(tram_loop *loop, struct mail *mail);
    void (*discard)(struct mail *mail);
};

#define MAIL_PAYLOAD 40

struct mail {
    ck_stack_entry_t entry;
    const struct mail_kind *kind;
    uintptr_t counted; /* 1: counts against the limit of try posts */
    _Alignas(8) unsigned char payload[MAIL_PAYLOAD];
};

struct mailbox {
    /* written by posters */
    ck_stack_t inbox;
    _Alignas(64) ck_stack_t spare; /* cells to use again; popped by many */
    _Alignas(64) _Atomic uint32_t state;
    _Atomic uint32_t tries;   /* counted cells on the way */
    _Atomic uint64_t signals; /* bit n: signal n came */
    /* constant, or the owner's */
    _Alignas(64) _Atomic uint32_t references;
    _Atomic bool closed;
    int eventfd;
    uint32_t limit;
    tram_allocator allocator;
    const struct sys *sys;
    ck_stack_entry_t *taken; /* cells taken from the inbox in order, not run yet */
};

int tram__mailbox_new(const tram_allocator *allocator, const struct sys *sys, uint32_t limit,
                      struct mailbox **ret_mailbox);
struct mailbox *tram__mailbox_hold(struct mailbox *mailbox);

/* The last release discards what is still inside and frees. Any thread. */
void tram__mailbox_release(struct mailbox *mailbox);

/* A cell to fill and post, or NULL when out of memory. Any thread. */
struct mail *tram__mail_new(struct mailbox *mailbox, const struct mail_kind *kind);

/* Gives back a cell that was not posted, or has been run. Any thread. */
void tram__mail_free(struct mailbox *mailbox, struct mail *mail);

/* Posts a cell of this mailbox. 0, or TRAM_ESTATE after close: the cell stays the caller's. Any thread. */
int tram__mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* Takes a place for a counted cell: 0, or -EAGAIN at the limit. Give it back by uncount, or set
 * mail->counted. */
int tram__mailbox_count(struct mailbox *mailbox);
void tram__mailbox_uncount(struct mailbox *mailbox);

/* Wakes the owner if it sleeps. Any thread, and signal handlers. */
void tram__mailbox_wake(struct mailbox *mailbox);

/* ---- for the owner
 * -------------------------------------------------------------------------------------------- */

/* Announces sleep. False: there is something to do, do not sleep (and the announcement is taken back). */
bool tram__mailbox_sleep(struct mailbox *mailbox);

/* Ends the announcement. */
static inline void mailbox_awake(struct mailbox *mailbox) {
    atomic_store_explicit(&mailbox->state, 0, memory_order_relaxed);
}

/* Empties the eventfd, after it polled readable and before the mail is taken. */
void tram__mailbox_drain_wakeup(struct mailbox *mailbox);

/* Nothing to take and nothing taken. A hint: a poster may be just about to push. */
static inline bool mailbox_empty(const struct mailbox *mailbox) {
    return !mailbox->taken && !__atomic_load_n(&mailbox->inbox.head, __ATOMIC_RELAXED);
}

/* Takes what came, in order of arrival for each poster, and returns at most `limit` cells linked by
 * entry.next. */
ck_stack_entry_t *tram__mailbox_take(struct mailbox *mailbox, unsigned limit);

static inline struct mail *mail_of(ck_stack_entry_t *entry) {
    return (struct mail *)(void *)entry;
}

/* No post succeeds from now on; what was accepted is discarded. */
void tram__mailbox_close(struct mailbox *mailbox);

#endif
