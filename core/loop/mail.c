/* The mail of a loop: when what the mailbox holds runs, and where it stands among the callbacks of the loop. */
#include "core/loop/loop.h"

/* Takes its place off, or leaves the node to it. */
static inline void run_flagged(tram_loop *loop, struct mail *mail, unsigned flags) {
    if (flags & MAIL_COUNTED)
        tram__mailbox_uncount(loop->mailbox);
    mail->kind->run(loop, mail);
    if (!(flags & MAIL_KEPT))
        mail_put_back(loop->mailbox, &loop->mailbox->used, mail);
}

void tram__loop_run_mail(tram_loop *loop, uint32_t count) {
    struct mailbox *mailbox = loop->mailbox;
    uint32_t left = count;
    /* A signal, or a stop, waits for one portion, however much mail there is. */
    while (left) {
        struct mail *mail = mailbox_next(mailbox);
        unsigned flags = mail->kind->flags;
        mailbox->running = mail;
        if (likely(!flags)) {
            mail->kind->run(loop, mail);
            mail_put_back(mailbox, &mailbox->used, mail);
        } else {
            run_flagged(loop, mail, flags);
        }
        if (--left % TRAM_MAIL_PORTION)
            continue;
        mailbox_send_requests(mailbox);
        mailbox_send_replies_awaited(mailbox);
        if (atomic_load_explicit(&mailbox->signals, memory_order_relaxed))
            break;
    }
    mailbox_send_replies(mailbox);
    mailbox->running = NULL;
    mailbox->unplanned += left;
    if (!mailbox->taken || mailbox->used.count >= TRAM_MAIL_BATCH)
        tram__mail_batch_send(mailbox, &mailbox->used);
    stats_add(&loop->stats.mails, count - left);
    loop->spin.budget_ns += (uint64_t)(count - left) * loop->spin.per_mail_ns;
}

/* Stands in the ready queue for mail that came before what follows. */
struct mail_marker {
    struct ready ready;
    uint32_t count;
};

static void run_marker(tram_loop *loop, struct ready *ready) {
    struct mail_marker *marker = container_of(ready, struct mail_marker, ready);
    uint32_t count = marker->count;
    memory_put(&loop->allocator, marker, sizeof *marker);
    if (likely(!loop->closing)) /* else it was discarded */
        tram__loop_run_mail(loop, count);
}

/* Puts the mail that waits into the ready queue. */
static void place_mail(tram_loop *loop) {
    if (mailbox_empty(loop->mailbox) || loop->mail_placed >= loop->mail_limit)
        return;
    struct mail_marker *marker = memory_get(&loop->allocator, sizeof *marker);
    if (!marker)
        return; /* nothing is lost: it runs with what comes later */
    list_init(&marker->ready.link);
    marker->ready.run = run_marker;
    marker->count = tram__mailbox_plan(loop->mailbox, loop->mail_limit - loop->mail_placed);
    loop->mail_placed += marker->count;
    list_append(&loop->ready, &marker->ready.link);
}

void tram__loop_ready_outside(tram_loop *loop, struct ready *ready) {
    place_mail(loop);
    list_append(&loop->ready, &ready->link);
}

void tram__loop_ready_all_outside(tram_loop *loop, struct list *list) {
    place_mail(loop);
    list_move_all(list, &loop->ready);
}

uint32_t tram__loop_plan_mail(tram_loop *loop) {
    uint32_t placed = loop->mail_placed;
    loop->mail_placed = 0;
    return tram__mailbox_plan(loop->mailbox, loop->mail_limit - MIN(placed, loop->mail_limit));
}
