#include "core/actors/kept.h"

#include "core/actors/actors.h"

static struct mail *next_of(const struct mail *mail) {
    return mail->entry.next ? mail_of(mail->entry.next) : NULL;
}

void tram__kept_address(const struct kept *kept, uint32_t slot, uint32_t generation) {
    for (struct mail *mail = kept->first; mail; mail = next_of(mail))
        mail_address(mail, slot, generation);
}

void tram__kept_run(tram_loop *loop, const struct kept *kept) {
    for (struct mail *mail = kept->first, *next; mail; mail = next) {
        next = next_of(mail);
        mail->kind->run(loop, mail);
    }
}

void tram__kept_discard(const struct kept *kept) {
    for (struct mail *mail = kept->first, *next; mail; mail = next) {
        next = next_of(mail);
        mail->kind->discard(mail);
    }
}

void tram__kept_forget(const struct kept *kept) {
    for (struct mail *mail = kept->first, *next; mail; mail = next) {
        next = next_of(mail);
        tram__mail_drop(mail);
    }
}

/* ---- Messages that are sent on ---- */

static uint32_t take_home_slot(struct mail *mail) {
    uint32_t slot = envelope_of(mail)->message.reserved;
    envelope_of(mail)->message.reserved = 0;
    return slot;
}

/* The counts of a home that has closed are nobody's. */
static void uncount(const struct mailbox *home, uint32_t slot) {
    uint32_t number = home->number;
    bool pinned;
    int status;
    struct addressees *there = route_enter(number, home->number_generation, &pinned, &status);
    if (!there)
        return;
    atomic_fetch_sub_explicit(&addressee_at(there, slot)->bounded, 1, memory_order_relaxed);
    route_leave(number, pinned);
}

/* False: it is kept. */
static bool receive(tram_loop *loop, struct mail *mail) {
    bool done = tram__message_run(loop, mail);
    if (done)
        tram__mail_drop(mail);
    return done;
}

static void message_run(tram_loop *loop, struct mail *mail) {
    take_home_slot(mail);
    receive(loop, mail);
}

static void message_discard(struct mail *mail) {
    take_home_slot(mail);
    message_drop(&envelope_of(mail)->message);
    tram__mail_drop(mail);
}

/* As one that was posted: before it is received, but after it has been kept. */
static void bounded_run(tram_loop *loop, struct mail *mail) {
    const struct mailbox *home = mail->owner_pool;
    uint32_t slot = take_home_slot(mail);
    if (addressee_at(actors_present(loop)->here, envelope_of(mail)->slot)->keeps) {
        if (receive(loop, mail))
            uncount(home, slot);
    } else {
        uncount(home, slot);
        receive(loop, mail);
    }
}

static void bounded_discard(struct mail *mail) {
    uncount(mail->owner_pool, envelope_of(mail)->message.reserved);
    message_discard(mail);
}

static const struct mail_kind message_sent_on = {.run = message_run, .discard = message_discard, .flags = MAIL_KEPT};
static const struct mail_kind bounded_sent_on = {.run = bounded_run, .discard = bounded_discard, .flags = MAIL_KEPT};

static struct mail *copy(tram_loop *loop, const struct mail *came) {
    struct mail *mail =
        tram__mail_new_own(loop->mailbox, tram__message_is_bounded(came) ? &bounded_sent_on : &message_sent_on);
    if (likely(mail != NULL))
        memcpy(mail->payload, came->payload, sizeof mail->payload);
    return mail;
}

struct mail *tram__kept_new(tram_loop *loop, tram_message *message, uint32_t home_slot) {
    if (message->reserved)
        return take_delivered(message);
    struct mail *mail = mail_of_message(message);
    if (mail->kind != &message_sent_on && mail->kind != &bounded_sent_on)
        mail = copy(loop, mail);
    if (likely(mail != NULL))
        envelope_of(mail)->message.reserved = home_slot;
    return mail;
}
