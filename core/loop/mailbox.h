/*
 * The mailbox of a loop: how other threads reach it, and the only file with memory ordering between threads.
 *
 * Any thread pushes nodes; the owner takes them all at once. A node is 64 bytes: what to do with it, and a
 * payload inline. A node returns to the pool of its owner and is used again, so a post seldom allocates. A thread that
 * runs a loop takes nodes from its own mailbox, without atomics, and gets them back in batches; any other thread takes
 * them from the mailbox that it posts to.
 *
 * Sleeping and closing. The word `state` says what the owner does. It announces SLEEPING before it waits and CLOSED
 * before it empties the box for the last time, and after either it looks into the box once more; a poster pushes first
 * and then looks at the word once more: whichever comes second sees the other. Only the poster that turns SLEEPING
 * into NOTIFIED makes the system call that wakes; a poster that finds CLOSED behind its push empties the box itself. So
 * what was accepted is run or discarded, by the owner or by a poster. tests/model/mailbox.pml is the proof.
 *
 * A mailbox is counted and outlives its loop while someone may still post or has nodes of it. So neither its memory nor
 * its eventfd are of the loop's allocator and table of system calls, which end with the loop.
 */
#ifndef TRAM_CORE_LOOP_MAILBOX_H
#define TRAM_CORE_LOOP_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/ck.h"
#include "core/base/compiler.h"
#include "core/base/memory.h"
#include "core/system/sys.h"
#include <tram/loop.h>

struct mail;

/* What a node does when it arrives. `run` is called on the owner's loop; or `discard` if the loop was closed first, on
 * the closing thread or, within a post, on that of a poster. Neither frees the node, but where it is kept. */
struct mail_kind {
    void (*run)(tram_loop *loop, struct mail *mail);
    void (*discard)(struct mail *mail);
    uint8_t flags; /* enum mail_flag */
};

enum mail_flag {
    MAIL_COUNTED = 1, /* counts against the limit of try posts */
    MAIL_KEPT = 2,    /* `run` and `discard` see to the node: it is posted again, or freed, by them or later */
    MAIL_PART = 4,    /* with MAIL_KEPT: a part of something else, of no pool; `discard` lets go of it */
};

#define MAIL_PAYLOAD 40
#define MAIL_RUN     63 /* nodes that are allocated together */

struct mail {
    ck_stack_entry_t entry;
    const struct mail_kind *kind;
    union {
        struct mailbox *owner_pool; /* whose node it is; NULL: of the mailbox that it is posted to */
        struct mail *chain_last;    /* of the first of a chain on its way: see tram__mailbox_post_chain() */
    };
    union {
        _Alignas(8) unsigned char payload[MAIL_PAYLOAD];
        struct mail *next_free; /* of a list of free nodes */
    };
};

/* Nodes of one owner pool that are on their way back to it, the newest first. */
struct mail_batch {
    struct mailbox *owner_pool;
    struct mail *first, *last;
    uint32_t count;
};

/* Nodes of one kind and one pool that are posted together: linked by their entries, the last to none. */
struct mail_chain {
    struct mail *first, *last;
    uint32_t count; /* at most TRAM_MAIL_CHAIN */
};

/* To one that has some. */
static inline void mail_chain_join(struct mail_chain *chain, struct mail *mail) {
    chain->last->entry.next = &mail->entry;
    chain->last = mail;
    chain->count++;
}

static inline void mail_chain_append(struct mail_chain *chain, struct mail *mail) {
    if (likely(chain->count)) {
        mail_chain_join(chain, mail);
        return;
    }
    chain->first = chain->last = mail;
    chain->count = 1;
}

/* Empties it, and ends what was in it. */
static inline struct mail_chain mail_chain_take(struct mail_chain *chain) {
    struct mail_chain taken = *chain;
    taken.last->entry.next = NULL;
    chain->count = 0;
    return taken;
}

struct addressees;
struct mail_chunk; /* memory of nodes */

/* What the owner does. A poster has nothing to do after its push while the word is less than SLEEPING. */
enum mailbox_state { MAILBOX_RUNNING = 0, MAILBOX_NOTIFIED = 1, MAILBOX_SLEEPING = 2, MAILBOX_CLOSED = 3 };

struct mailbox {
    /* What a post touches, in one line. */
    _Alignas(64) ck_stack_t inbox;
    _Atomic uint32_t state; /* enum mailbox_state */
    int eventfd;
    uint32_t number; /* of the loop, for those who answer: core/actors; 0: it has none */
    uint32_t number_generation;

    _Alignas(64) ck_stack_t shared_free;           /* nodes of threads without a loop, to use again; popped by many */
    _Alignas(64) ck_stack_t returned;              /* batches of nodes that were returned, by their first */
    _Atomic uint64_t references;                   /* holds, and nodes out: see tram__mailbox_abandon() */
    _Alignas(64) _Atomic uint32_t bounded_pending; /* counted nodes on the way */
    uint32_t limit;
    _Atomic uint64_t signals; /* bit n - 1: signal n came; MAILBOX_CONTROL */
    uint64_t sampled_ns;      /* when the message was posted that is sampled: core/actors/sample.h */
    _Atomic bool sampling;    /* … one is */

    /* the owner's */
    _Alignas(64) ck_stack_entry_t *taken; /* nodes taken from the inbox in order, not run yet */
    ck_stack_entry_t *taken_last;
    uint32_t unplanned;        /* how many of them no tick has on its list yet: see tram__mailbox_plan() */
    bool announced;            /* sleep, and not ended it yet */
    uint32_t until_sample;     /* messages that this thread posts before it samples one */
    struct mail *running;      /* NULL: none */
    struct mail_batch used;    /* nodes that were run and go back to their owner together */
    struct mail *nodes;        /* its own, free */
    ck_stack_entry_t *batches; /* more of them, by the first of each batch */
    uint64_t nodes_out;        /* of its own, in all: those that came back through `back` included */
    struct mail_chunk *chunks;
    /* What core/actors holds back, to post it together; `send_…` is NULL where that is nothing. */
    struct mail_chain requests;
    int (*send_requests)(struct mailbox *mailbox); /* 0 */
    struct addressees *requests_to;                /* kept by a route */
    struct mail_chain replies;
    void (*send_replies)(struct mailbox *mailbox);
    struct mailbox *replies_to; /* kept by its nodes */
    struct routes *routes;      /* how its loop reaches others by address: core/actors */
    tram_allocator allocator;   /* one that outlives loops */
    void *memory;               /* what was allocated: this struct is aligned in it */
};

/* `allocator` is the loop's, and `sys` its table of system calls; both are asked for the last time here, but for the
 * faults that they are to have: see tram__faults_lasting(). */
int tram__mailbox_new(const tram_allocator *allocator, const struct sys *sys, uint32_t limit,
                      struct mailbox **ret_mailbox);
struct mailbox *tram__mailbox_hold(struct mailbox *mailbox);

/* Any thread. The last one frees. */
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

/* A node of the owner's own, also where it does not run its loop. It comes back to it. */
struct mail *tram__mail_new_own(struct mailbox *own, const struct mail_kind *kind);

/* MAIL_RUN nodes of the owner's own that lie next to each other, or NULL. Each is given back for itself. */
struct mail *tram__mail_new_run(struct mailbox *own);

static inline struct mail *mail_new_own(struct mailbox *own, const struct mail_kind *kind) {
    struct mail *mail = own->nodes;
    if (!mail)
        return tram__mail_new_own(own, kind);
    own->nodes = mail->next_free;
    __builtin_prefetch(mail->next_free, 1); /* it is in the cache of who ran it, and will be written next */
    own->nodes_out++;
    mail->kind = kind;
    return mail;
}

/* As tram__mail_new(), where it is called often: a node of the owner's own, if one is at hand. */
static inline struct mail *mail_new(struct mailbox *mailbox, const struct mail_kind *kind) {
    struct mailbox *own = tram__mailbox_entered;
    return own && own->nodes ? mail_new_own(own, kind) : tram__mail_new(mailbox, kind);
}

/* Gives back a node that was not posted, or has been run. Any thread. */
void tram__mail_free(struct mailbox *mailbox, struct mail *mail);

/* The same where its mailbox may be gone: only the owner whose node it is waits for it. */
void tram__mail_drop(struct mail *mail);

/*
 * Posts a node of this mailbox. 0, or TRAM_ESTATE after close: the node stays the caller's. Any thread. The requests
 * that the thread's own mailbox holds back go first, whomever they are for: what one thread posts stays in order.
 */
int tram__mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* The same, but a node that is refused is given back. */
int tram__mailbox_send(struct mailbox *mailbox, struct mail *mail);

/*
 * Posts nodes that are linked by their entries, the last to none, with one look at the state: all or, after close,
 * none.
 */
int tram__mailbox_post_all(struct mailbox *mailbox, struct mail *first);

/* Posts a chain by one push, and runs each of its nodes as if it had been posted alone. TRAM_ESTATE: as it was. */
int tram__mailbox_post_chain(struct mailbox *mailbox, const struct mail_chain *chain);

/* Takes a place for a counted node: 0, or -EAGAIN at the limit. Give it back by uncount, or post a node of a
 * counted kind. */
int tram__mailbox_count(struct mailbox *mailbox);
void tram__mailbox_uncount(struct mailbox *mailbox);

/* Wakes the owner if it sleeps. Any thread, and signal handlers. */
void tram__mailbox_wake(struct mailbox *mailbox);

/* A bit of `signals`: the loop's on_control is to be called. It cannot be a signal: the C library keeps 32 for itself.
 */
#define MAILBOX_CONTROL (UINT64_C(1) << 31)

/* Asks for that, ahead of all mail; what is to be done must be seen from elsewhere. Any thread, and signal handlers. */
static inline void mailbox_control(struct mailbox *mailbox) {
    atomic_fetch_or(&mailbox->signals, MAILBOX_CONTROL);
    tram__mailbox_wake(mailbox);
}

/* ---- for the owner ---- */

/* Announces sleep. False: there is something to do, do not sleep (and the announcement is withdrawn). */
bool tram__mailbox_sleep(struct mailbox *mailbox);

/* Ends the announcement. */
static inline void mailbox_awake(struct mailbox *mailbox) {
    if (!mailbox->announced)
        return; /* without a look at the posters' line */
    mailbox->announced = false;
    atomic_store_explicit(&mailbox->state, MAILBOX_RUNNING, memory_order_relaxed);
}

/* Empties the eventfd, after it polled readable. If that swallows a later call to wake, tram__mailbox_sleep() sees what
 * it was about. */
void tram__mailbox_drain_wakeup(struct mailbox *mailbox, const struct sys *sys);

/* A hint, for any thread: a poster may be just about to push, or the owner to take. */
static inline bool mailbox_inbox_empty(const struct mailbox *mailbox) {
    return !__atomic_load_n(&mailbox->inbox.head, __ATOMIC_RELAXED);
}

/* Nothing to take and nothing taken. A hint as well. */
static inline bool mailbox_empty(const struct mailbox *mailbox) {
    return !mailbox->taken && mailbox_inbox_empty(mailbox);
}

/*
 * Plans to run what came, at most `limit` nodes: their number, which is how often mailbox_next() may be called for
 * them. While nodes are left that were taken and not planned, the inbox is left alone.
 */
uint32_t tram__mailbox_plan(struct mailbox *mailbox, uint32_t limit);

/* Puts a node of the owner's own behind those that are taken, where some are not planned yet. */
void tram__mailbox_append(struct mailbox *mailbox, struct mail *mail);

static inline struct mail *mail_of(ck_stack_entry_t *entry) {
    return (struct mail *)(void *)entry;
}

/* The next node of those planned, in order of arrival for each poster. Free it with mail_put_back(). */
static inline struct mail *mailbox_next(struct mailbox *mailbox) {
    ck_stack_entry_t *entry = mailbox->taken;
    mailbox->taken = entry->next;
    __builtin_prefetch(entry->next, 1); /* of a chain: it was not looked at yet */
    return mail_of(entry);
}

/* The owner: no request is held back any more. What is dropped meanwhile may ask anew. */
static inline void mailbox_send_requests(struct mailbox *mailbox) {
    while (unlikely(mailbox->send_requests != NULL))
        mailbox->send_requests(mailbox);
}

static inline void mailbox_send_replies(struct mailbox *mailbox) {
    while (unlikely(mailbox->send_replies != NULL))
        mailbox->send_replies(mailbox);
}

/* Where who waits for them has nothing else to run. */
static inline void mailbox_send_replies_awaited(struct mailbox *mailbox) {
    if (mailbox->send_replies && mailbox_inbox_empty(mailbox->replies_to))
        mailbox->send_replies(mailbox);
}

/* Sends a batch home; it is empty then. Any thread. */
void tram__mail_batch_send(struct mailbox *mailbox, struct mail_batch *batch);

/* Puts a node of `mailbox` that was run into the batch, and sends what was in there if its home is another. */
static inline void mail_put_back(struct mailbox *mailbox, struct mail_batch *batch, struct mail *mail) {
    if (unlikely(batch->owner_pool != mail->owner_pool || !batch->count)) {
        tram__mail_batch_send(mailbox, batch);
        batch->owner_pool = mail->owner_pool;
        batch->last = mail;
    }
    mail->next_free = batch->first;
    batch->first = mail;
    batch->count++;
}

/* No post succeeds from now on; what was accepted is discarded. */
void tram__mailbox_close(struct mailbox *mailbox);

#endif
