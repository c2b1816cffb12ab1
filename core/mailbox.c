#include "core/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/compiler.h"

/*
 * How to read this file: posters use tram__mail_new, _post and _wake; the owner uses _sleep, _drain_wakeup and _take.
 * Each memory-ordering argument stands beside its fence.
 *
 * ThreadSanitizer cannot see into Concurrency Kit's assembly. Under it the stack operations are hidden, and what
 * they order (a cell's content, from poster to owner and back) is told by hand.
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

enum { RUNNING, SLEEPING, NOTIFIED };

static void push(ck_stack_t *stack, struct mail *mail) {
    ORDER_RELEASE(mail);
    HIDDEN_BEGIN();
    ck_stack_push_mpmc(stack, &mail->entry);
    HIDDEN_END();
}

static struct mail *pop(ck_stack_t *stack) {
    HIDDEN_BEGIN();
    ck_stack_entry_t *entry = ck_stack_pop_mpmc(stack);
    HIDDEN_END();
    if (entry)
        ORDER_ACQUIRE(entry);
    return entry ? mail_of(entry) : NULL;
}

/* ---- Life ---- */

int tram__mailbox_new(const tram_allocator *allocator, const struct sys *sys, uint32_t limit,
                      struct mailbox **ret_mailbox) {
    struct mailbox *mailbox = tram__memory_get_zero(allocator, sizeof *mailbox);
    if (!mailbox)
        return -ENOMEM;
    mailbox->allocator = *allocator;
    mailbox->sys = sys;
    mailbox->limit = limit;
    ck_stack_init(&mailbox->inbox);
    ck_stack_init(&mailbox->spare);
    mailbox->spare.generation = (char *)1; /* pops count up this pointer, and nothing may be added to NULL */
    atomic_init(&mailbox->references, 1);
    mailbox->eventfd = sys->eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->eventfd < 0) {
        int status = -errno;
        memory_put(allocator, mailbox, sizeof *mailbox);
        return status;
    }
    *ret_mailbox = mailbox;
    return 0;
}

struct mailbox *tram__mailbox_hold(struct mailbox *mailbox) {
    atomic_fetch_add_explicit(&mailbox->references, 1, memory_order_relaxed);
    return mailbox;
}

static void discard_all(struct mailbox *mailbox) {
    for (;;) {
        ck_stack_entry_t *entry = tram__mailbox_take(mailbox, UINT32_MAX);
        if (!entry)
            return;
        while (entry) {
            struct mail *mail = mail_of(entry);
            entry = entry->next;
            if (mail->counted)
                tram__mailbox_uncount(mailbox);
            mail->kind->discard(mail);
            tram__mail_free(mailbox, mail);
        }
    }
}

void tram__mailbox_release(struct mailbox *mailbox) {
    if (atomic_fetch_sub_explicit(&mailbox->references, 1, memory_order_acq_rel) != 1)
        return;
    /* A poster that passed the check before the close may have pushed after it. */
    discard_all(mailbox);
    tram_allocator allocator = mailbox->allocator;
    struct mail *mail;
    while ((mail = pop(&mailbox->spare)))
        memory_put(&allocator, mail, sizeof *mail);
    mailbox->sys->close(mailbox->eventfd);
    memory_put(&allocator, mailbox, sizeof *mailbox);
}

void tram__mailbox_close(struct mailbox *mailbox) {
    atomic_store_explicit(&mailbox->closed, true, memory_order_release);
    discard_all(mailbox);
}

/* ---- Posting ---- */

struct mail *tram__mail_new(struct mailbox *mailbox, const struct mail_kind *kind) {
    _Static_assert(sizeof(struct mail) == 64, "a cell is a cache line");
    struct mail *mail = pop(&mailbox->spare);
    if (unlikely(!mail)) {
        mail = memory_get(&mailbox->allocator, sizeof *mail);
        if (!mail)
            return NULL;
    }
    mail->kind = kind;
    mail->counted = 0;
    return mail;
}

void tram__mail_free(struct mailbox *mailbox, struct mail *mail) {
    push(&mailbox->spare, mail);
}

int tram__mailbox_post(struct mailbox *mailbox, struct mail *mail) {
    if (unlikely(atomic_load_explicit(&mailbox->closed, memory_order_acquire)))
        return TRAM_ESTATE;
    push(&mailbox->inbox, mail);
    tram__mailbox_wake(mailbox);
    return 0;
}

int tram__mailbox_count(struct mailbox *mailbox) {
    uint32_t before = atomic_fetch_add_explicit(&mailbox->tries, 1, memory_order_relaxed);
    if (before < mailbox->limit)
        return 0;
    tram__mailbox_uncount(mailbox);
    return -EAGAIN;
}

void tram__mailbox_uncount(struct mailbox *mailbox) {
    atomic_fetch_sub_explicit(&mailbox->tries, 1, memory_order_relaxed);
}

void tram__mailbox_wake(struct mailbox *mailbox) {
    /*
     * What is to be seen was published by an atomic read-modify-write (the push, or a signal's bit); this keeps the
     * look at the word behind it. The owner does the same the other way round in tram__mailbox_sleep(), so one of
     * the two sees the other. On x86 it costs nothing.
     */
    ck_pr_fence_atomic_load();
    uint32_t state = atomic_load_explicit(&mailbox->state, memory_order_relaxed);
    if (likely(state != SLEEPING))
        return;
    if (!atomic_compare_exchange_strong_explicit(&mailbox->state, &state, NOTIFIED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return; /* someone else wakes it, or it woke */
    int saved = errno;
    uint64_t one = 1;
    while (mailbox->sys->write(mailbox->eventfd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
    errno = saved; /* signal handlers call this */
}

/* ---- Owning ---- */

bool tram__mailbox_sleep(struct mailbox *mailbox) {
    atomic_store_explicit(&mailbox->state, SLEEPING, memory_order_relaxed);
    ck_pr_fence_store_load();
    if (likely(mailbox_empty(mailbox) && !atomic_load_explicit(&mailbox->signals, memory_order_relaxed)))
        return true;
    mailbox_awake(mailbox);
    return false;
}

void tram__mailbox_drain_wakeup(struct mailbox *mailbox) {
    uint64_t count;
    while (mailbox->sys->read(mailbox->eventfd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
}

/* Takes all that is in the inbox and turns it round: the stack has the newest first. */
static ck_stack_entry_t *take_inbox(struct mailbox *mailbox) {
    HIDDEN_BEGIN();
    ck_stack_entry_t *entry = ck_stack_batch_pop_upmc(&mailbox->inbox);
    HIDDEN_END();
    ck_stack_entry_t *oldest = NULL;
    while (entry) {
        ORDER_ACQUIRE(entry);
        ck_stack_entry_t *next = entry->next;
        entry->next = oldest;
        oldest = entry;
        entry = next;
    }
    return oldest;
}

ck_stack_entry_t *tram__mailbox_take(struct mailbox *mailbox, unsigned limit) {
    /* What was left over is older than what is in the box; it is taken alone, to keep the order simple. */
    ck_stack_entry_t *first = mailbox->taken ? mailbox->taken : take_inbox(mailbox);
    mailbox->taken = NULL;
    ck_stack_entry_t *last = first;
    for (unsigned i = 1; last && i < limit; i++)
        last = last->next;
    if (last) {
        mailbox->taken = last->next;
        last->next = NULL;
    }
    return first;
}
