#include "core/loop/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/base/compiler.h"
#include "core/base/limits.h"
#include "core/base/probes.h"
#include "core/base/steps.h"
#include "core/system/fault.h"

/*
 * How to read this file: posters use tram__mail_new, _post and _wake; the owner uses _sleep, _drain_wakeup and _plan.
 * Stacks that many pop from one by one are popped by ck_stack_pop_mpmc; the others are only ever emptied as a whole.
 * Each memory-ordering argument stands beside its fence.
 *
 * ThreadSanitizer cannot see into Concurrency Kit's assembly. Under it the stack operations are hidden, and what
 * they order (a node's content, from poster to owner and back) is told by hand.
 */
#ifdef TRAM_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define HIDDEN_BEGIN()         (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define HIDDEN_END()           (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#define ORDER_RELEASE(address) __tsan_release(address)
#define ORDER_ACQUIRE(address) __tsan_acquire(address)
#else
#define HIDDEN_BEGIN()         ((void)0)
#define HIDDEN_END()           ((void)0)
#define ORDER_RELEASE(address) ((void)(address))
#define ORDER_ACQUIRE(address) ((void)(address))
#endif

/*
 * The release fence: Concurrency Kit's push orders stores only, so on a weakly ordered machine the poster's earlier
 * loads might be satisfied after the node can be seen, and find what its receiver has changed. On x86 it costs nothing.
 */
static void push(ck_stack_t *stack, struct mail *mail) {
    ORDER_RELEASE(mail);
    ck_pr_fence_release();
    HIDDEN_BEGIN();
    ck_stack_push_mpmc(stack, &mail->entry);
    HIDDEN_END();
    between_steps();
}

static struct mail *pop(ck_stack_t *stack) {
    HIDDEN_BEGIN();
    ck_stack_entry_t *entry = ck_stack_pop_mpmc(stack);
    HIDDEN_END();
    if (entry)
        ORDER_ACQUIRE(entry);
    return entry ? mail_of(entry) : NULL;
}

/* The newest entry and, linked to it, all others. */
static ck_stack_entry_t *pop_all(ck_stack_t *stack) {
    between_steps();
    HIDDEN_BEGIN();
    ck_stack_entry_t *entry = ck_stack_batch_pop_upmc(stack);
    HIDDEN_END();
    ck_pr_fence_acquire();
    return entry;
}

/* ---- Chains ---- */

/*
 * On its way a chain is its first node, whose entry is the stack's: its kind says how many there are, it points to the
 * last one, and that to the second. What these fields were is in the last node, too. Who takes the first one from the
 * inbox acquires what was written before the push, so all of them.
 */
static const struct mail_kind chain_of[TRAM_MAIL_CHAIN + 1];

/* How many nodes this one stands for: 0 where it is no chain. */
static inline uint32_t chain_count(const struct mail *mail) {
    uintptr_t offset = (uintptr_t)mail->kind - (uintptr_t)chain_of;
    return unlikely(offset < sizeof chain_of) ? (uint32_t)(offset / sizeof *chain_of) : 0;
}

static struct mail *close_chain(const struct mail_chain *chain) {
    struct mail *first = chain->first, *last = chain->last;
    last->entry.next = first->entry.next;
    first->chain_last = last;
    first->kind = &chain_of[chain->count];
    return first;
}

/* The nodes again, with `behind` behind them; returns the last. */
static ck_stack_entry_t *open_chain(struct mail *first, ck_stack_entry_t *behind) {
    struct mail *last = first->chain_last;
    first->kind = last->kind;
    first->owner_pool = last->owner_pool;
    first->entry.next = last->entry.next;
    last->entry.next = behind;
    return &last->entry;
}

/* Nodes in order of arrival. */
struct arrivals {
    ck_stack_entry_t *first, *last;
    uint32_t count;
};

/* What is in the inbox: the stack has the newest first. */
static struct arrivals pop_inbox(struct mailbox *mailbox) {
    ck_stack_entry_t *entry = pop_all(&mailbox->inbox);
    struct arrivals came = {0};
    while (entry) {
        ORDER_ACQUIRE(entry);
        ck_stack_entry_t *next = entry->next, *last = entry;
        uint32_t count = chain_count(mail_of(entry));
        if (unlikely(count))
            last = open_chain(mail_of(entry), came.first);
        else
            entry->next = came.first;
        if (!came.first)
            came.last = last;
        came.first = entry;
        came.count += count ? count : 1;
        entry = next;
    }
    return came;
}

/* ---- Life ---- */

struct mail_chunk {
    struct mail_chunk *next;
};

#define CHUNK_BYTES ((MAIL_RUN + 1) * sizeof(struct mail)) /* with the header and the rest that aligns it 4 KiB */

/* More than nodes ever come back; see tram__mailbox_abandon(). */
#define OWNED (1ull << 62)

static void *aligned(void *memory) {
    return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

#define MAILBOX_BYTES (sizeof(struct mailbox) + 63)

int tram__mailbox_new(const tram_allocator *allocator, const struct sys *sys, uint32_t limit,
                      struct mailbox **ret_mailbox) {
    tram_allocator lasting = tram__faults_lasting(allocator);
    void *memory = tram__memory_get_zero(&lasting, MAILBOX_BYTES);
    if (!memory)
        return -ENOMEM;
    struct mailbox *mailbox = aligned(memory);
    mailbox->memory = memory;
    mailbox->allocator = lasting;
    mailbox->limit = limit;
    ck_stack_init(&mailbox->inbox);
    ck_stack_init(&mailbox->shared_free);
    ck_stack_init(&mailbox->returned);
    mailbox->shared_free.generation = (char *)1; /* pops count up this pointer, and nothing may be added to NULL */
    atomic_init(&mailbox->references, OWNED);
    mailbox->eventfd = sys->eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->eventfd < 0) {
        int status = -errno;
        memory_put(&lasting, memory, MAILBOX_BYTES);
        return status;
    }
    *ret_mailbox = mailbox;
    return 0;
}

struct mailbox *tram__mailbox_hold(struct mailbox *mailbox) {
    atomic_fetch_add_explicit(&mailbox->references, 1, memory_order_relaxed);
    return mailbox;
}

static void discard(struct mailbox *mailbox, struct mail_batch *used, struct mail *mail) {
    unsigned flags = mail->kind->flags;
    if (flags & MAIL_COUNTED)
        tram__mailbox_uncount(mailbox);
    mail->kind->discard(mail);
    if (!(flags & MAIL_KEPT))
        mail_put_back(mailbox, used, mail);
}

static void discard_all(struct mailbox *mailbox, ck_stack_entry_t *entry) {
    struct mail_batch used = {0};
    while (entry) {
        struct mail *mail = mail_of(entry);
        entry = entry->next;
        discard(mailbox, &used, mail);
    }
    tram__mail_batch_send(mailbox, &used);
}

/* Discards what is in the inbox. Any thread, once the mailbox is closed. */
static void discard_inbox(struct mailbox *mailbox) {
    discard_all(mailbox, pop_inbox(mailbox).first);
}

static void destroy(struct mailbox *mailbox) {
    tram_allocator allocator = mailbox->allocator;
    struct mail *mail;
    while ((mail = pop(&mailbox->shared_free)))
        memory_put(&allocator, mail, sizeof *mail);
    while (mailbox->chunks) {
        struct mail_chunk *chunk = mailbox->chunks;
        mailbox->chunks = chunk->next;
        memory_put(&allocator, chunk, CHUNK_BYTES);
    }
    tram__sys.close(mailbox->eventfd);
    memory_put(&allocator, mailbox->memory, MAILBOX_BYTES);
}

static void let_go(struct mailbox *mailbox, uint64_t references) {
    between_steps();
    if (atomic_fetch_sub_explicit(&mailbox->references, references, memory_order_acq_rel) == references)
        destroy(mailbox);
}

void tram__mailbox_release(struct mailbox *mailbox) {
    let_go(mailbox, 1);
}

/*
 * The owner gives nodes out without counting them in `references`; who brings some back from another thread takes
 * their number off. The two meet here: with what the owner counted for itself, what is left is exactly the holds and
 * the nodes that are out still. Until then OWNED keeps the sum above zero.
 */
void tram__mailbox_abandon(struct mailbox *mailbox) {
    /* There is something only in a forked child, where nobody closed the loop. */
    discard_inbox(mailbox);
    struct mail *forked_in = mailbox->running;
    if (forked_in && !(forked_in->kind->flags & MAIL_KEPT) && !forked_in->owner_pool)
        memory_put(&mailbox->allocator, forked_in, sizeof *forked_in);
    let_go(mailbox, OWNED - mailbox->nodes_out);
}

void tram__mailbox_close(struct mailbox *mailbox) {
    TRAM_DCHECK(!mailbox->send_requests && !mailbox->send_replies);
    mailbox->announced = false;
    atomic_store_explicit(&mailbox->state, MAILBOX_CLOSED, memory_order_relaxed);
    between_steps();
    /* As in tram__mailbox_sleep(): a poster that does not see the word has pushed what is found here. */
    ck_pr_fence_store_load();
    tram__mail_batch_send(mailbox, &mailbox->used);
    ck_stack_entry_t *taken = mailbox->taken;
    mailbox->taken = NULL;
    mailbox->unplanned = 0;
    discard_all(mailbox, taken);
    discard_inbox(mailbox);
}

/* ---- Nodes ---- */

_Thread_local __attribute__((tls_model("initial-exec"))) struct mailbox *tram__mailbox_entered;

void tram__mailbox_enter(struct mailbox *mailbox) {
    tram__mailbox_entered = mailbox;
}

/* More of the owner's own nodes; next to each other, which is how the other end will read them. */
static struct mail *new_nodes(struct mailbox *mailbox) {
    struct mail_chunk *chunk = memory_get(&mailbox->allocator, CHUNK_BYTES);
    if (!chunk)
        return NULL;
    chunk->next = mailbox->chunks;
    mailbox->chunks = chunk;
    struct mail *nodes = aligned(chunk + 1);
    for (size_t i = 0; i < MAIL_RUN; i++)
        nodes[i].owner_pool = mailbox;
    return nodes;
}

static bool grow_nodes(struct mailbox *mailbox) {
    struct mail *nodes = new_nodes(mailbox);
    if (!nodes)
        return false;
    for (size_t i = MAIL_RUN; i-- > 0;) {
        nodes[i].next_free = mailbox->nodes;
        mailbox->nodes = &nodes[i];
    }
    return true;
}

struct mail *tram__mail_new_run(struct mailbox *own) {
    struct mail *nodes = new_nodes(own);
    if (nodes)
        own->nodes_out += MAIL_RUN;
    return nodes;
}

/* No free node is at hand: the next batch that came home, or new ones. False: out of memory. */
static bool more_nodes(struct mailbox *mailbox) {
    if (!mailbox->batches)
        mailbox->batches = pop_all(&mailbox->returned);
    ck_stack_entry_t *entry = mailbox->batches;
    if (!entry)
        return grow_nodes(mailbox);
    ORDER_ACQUIRE(entry);
    mailbox->batches = entry->next;
    mailbox->nodes = mail_of(entry);
    return true;
}

static struct mail *take_free_node(struct mailbox *mailbox) {
    struct mail *mail = pop(&mailbox->shared_free);
    if (unlikely(!mail)) {
        mail = memory_get(&mailbox->allocator, sizeof *mail);
        if (mail)
            mail->owner_pool = NULL;
    }
    return mail;
}

struct mail *tram__mail_new(struct mailbox *mailbox, const struct mail_kind *kind) {
    _Static_assert(sizeof(struct mail) == 64, "a node is a cache line");
    struct mailbox *own = tram__mailbox_entered;
    if (own)
        return tram__mail_new_own(own, kind);
    struct mail *mail = take_free_node(mailbox);
    if (likely(mail))
        mail->kind = kind;
    return mail;
}

struct mail *tram__mail_new_own(struct mailbox *own, const struct mail_kind *kind) {
    return own->nodes || more_nodes(own) ? mail_new_own(own, kind) : NULL;
}

void tram__mail_batch_send(struct mailbox *mailbox, struct mail_batch *batch) {
    struct mailbox *owner_pool = batch->owner_pool;
    struct mail *mail = batch->first, *last = batch->last;
    uint32_t count = batch->count;
    *batch = (struct mail_batch){0};
    if (!mail)
        return;
    if (!owner_pool) {
        while (mail) {
            struct mail *next = mail->next_free;
            push(&mailbox->shared_free, mail);
            mail = next;
        }
    } else if (owner_pool == tram__mailbox_entered) {
        last->next_free = owner_pool->nodes;
        owner_pool->nodes = mail;
        owner_pool->nodes_out -= count;
    } else {
        push(&owner_pool->returned, mail);
        let_go(owner_pool, count);
    }
}

void tram__mail_free(struct mailbox *mailbox, struct mail *mail) {
    struct mail_batch batch = {0};
    mail_put_back(mailbox, &batch, mail);
    tram__mail_batch_send(mailbox, &batch);
}

void tram__mail_drop(struct mail *mail) {
    if (mail->owner_pool)
        tram__mail_free(mail->owner_pool, mail);
    else
        memory_put(&tram__memory_default, mail, sizeof *mail);
}

/* ---- Posting ---- */

static void wake_sleeper(struct mailbox *mailbox) {
    uint32_t state = MAILBOX_SLEEPING;
    if (!atomic_compare_exchange_strong_explicit(&mailbox->state, &state, MAILBOX_NOTIFIED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return; /* someone else wakes it, or it woke, or was closed */
    between_steps();
    PROBE1(mailbox_wakeup, mailbox);
    int saved = errno;
    uint64_t one = 1;
    ssize_t written;
    do
        written = tram__sys.write(mailbox->eventfd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
    errno = saved; /* signal handlers call this */
}

/*
 * The state, looked at after something was published by an atomic read-modify-write (the push, or a signal's bit); the
 * fence keeps the look behind it. The owner does the same the other way round, in tram__mailbox_sleep() and
 * tram__mailbox_close(), so one of the two sees the other. On x86 it costs nothing.
 */
static inline uint32_t state_after_publishing(const struct mailbox *mailbox) {
    ck_pr_fence_atomic_load();
    return atomic_load_explicit(&mailbox->state, memory_order_relaxed);
}

void tram__mailbox_wake(struct mailbox *mailbox) {
    if (state_after_publishing(mailbox) == MAILBOX_SLEEPING)
        wake_sleeper(mailbox);
}

/* The owner sleeps, and is to be woken, or has closed the mailbox, and may have emptied it before the push. 0. */
__attribute__((noinline)) static int finish_post(struct mailbox *mailbox) {
    wake_sleeper(mailbox);
    if (atomic_load_explicit(&mailbox->state, memory_order_relaxed) == MAILBOX_CLOSED)
        discard_inbox(mailbox);
    return 0;
}

static inline bool is_closed(const struct mailbox *mailbox) {
    return unlikely(atomic_load_explicit(&mailbox->state, memory_order_relaxed) == MAILBOX_CLOSED);
}

/* 0: it was not closed before. */
ALWAYS_INLINE static int post(struct mailbox *mailbox, struct mail *mail) {
    PROBE2(mailbox_post, mailbox, mail);
    between_steps();
    push(&mailbox->inbox, mail);
    return unlikely(state_after_publishing(mailbox) >= MAILBOX_SLEEPING) ? finish_post(mailbox) : 0;
}

/* What is held back was posted before. */
static inline bool requests_held(void) {
    const struct mailbox *own = tram__mailbox_entered;
    return unlikely(own && own->send_requests);
}

__attribute__((noinline)) static int post_behind(struct mailbox *mailbox, struct mail *mail) {
    mailbox_send_requests(tram__mailbox_entered);
    return tram__mailbox_post(mailbox, mail);
}

int tram__mailbox_post(struct mailbox *mailbox, struct mail *mail) {
    if (requests_held())
        return post_behind(mailbox, mail);
    return is_closed(mailbox) ? TRAM_ESTATE : post(mailbox, mail);
}

int tram__mailbox_post_chain(struct mailbox *mailbox, const struct mail_chain *chain) {
    if (is_closed(mailbox))
        return TRAM_ESTATE;
    return post(mailbox, chain->first == chain->last ? chain->first : close_chain(chain));
}

__attribute__((noinline)) static int send_behind(struct mailbox *mailbox, struct mail *mail) {
    mailbox_send_requests(tram__mailbox_entered);
    return tram__mailbox_send(mailbox, mail);
}

__attribute__((noinline)) static int refuse(struct mailbox *mailbox, struct mail *mail) {
    tram__mail_free(mailbox, mail);
    return TRAM_ESTATE;
}

/* The usual way through it calls nobody. */
int tram__mailbox_send(struct mailbox *mailbox, struct mail *mail) {
    if (requests_held())
        return send_behind(mailbox, mail);
    return is_closed(mailbox) ? refuse(mailbox, mail) : post(mailbox, mail);
}

int tram__mailbox_post_all(struct mailbox *mailbox, struct mail *first) {
    if (is_closed(mailbox))
        return TRAM_ESTATE;
    if (requests_held())
        mailbox_send_requests(tram__mailbox_entered);
    for (struct mail *mail = first, *next; mail; mail = next) {
        next = mail->entry.next ? mail_of(mail->entry.next) : NULL; /* once it is pushed it is the owner's */
        push(&mailbox->inbox, mail);
    }
    if (state_after_publishing(mailbox) >= MAILBOX_SLEEPING)
        finish_post(mailbox);
    return 0;
}

int tram__mailbox_count(struct mailbox *mailbox) {
    uint32_t before = atomic_fetch_add_explicit(&mailbox->bounded_pending, 1, memory_order_relaxed);
    if (before < mailbox->limit)
        return 0;
    tram__mailbox_uncount(mailbox);
    return -EAGAIN;
}

void tram__mailbox_uncount(struct mailbox *mailbox) {
    atomic_fetch_sub_explicit(&mailbox->bounded_pending, 1, memory_order_relaxed);
}

/* ---- Owning ---- */

bool tram__mailbox_sleep(struct mailbox *mailbox) {
    mailbox->announced = true;
    between_steps();
    atomic_store_explicit(&mailbox->state, MAILBOX_SLEEPING, memory_order_relaxed);
    ck_pr_fence_store_load();
    if (likely(mailbox_empty(mailbox) && !atomic_load_explicit(&mailbox->signals, memory_order_relaxed)))
        return true;
    mailbox_awake(mailbox);
    return false;
}

void tram__mailbox_drain_wakeup(struct mailbox *mailbox, const struct sys *sys) {
    uint64_t count;
    ssize_t size;
    do
        size = sys->read(mailbox->eventfd, &count, sizeof count);
    while (size < 0 && errno == EINTR);
}

static void take(struct mailbox *mailbox) {
    struct arrivals came = pop_inbox(mailbox);
    if (!came.first)
        return;
    if (mailbox->taken)
        mailbox->taken_last->next = came.first;
    else
        mailbox->taken = came.first;
    mailbox->taken_last = came.last;
    mailbox->unplanned = came.count;
}

uint32_t tram__mailbox_plan(struct mailbox *mailbox, uint32_t limit) {
    if (!mailbox->unplanned) /* else that is older than what is in the box */
        take(mailbox);
    uint32_t count = MIN(mailbox->unplanned, limit);
    mailbox->unplanned -= count;
    return count;
}

void tram__mailbox_append(struct mailbox *mailbox, struct mail *mail) {
    mail->entry.next = NULL;
    mailbox->taken_last->next = &mail->entry;
    mailbox->taken_last = &mail->entry;
    mailbox->unplanned++;
}
