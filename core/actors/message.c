/*
 * Posting messages and delivering them. A post takes a node, writes whom it is for and what it says, and pushes it; the
 * loop of the addressee looks whether the slot still has the generation that was meant.
 */
#include "core/actors/message.h"

#include <errno.h>

#include "core/actors/actors.h"
#include "core/actors/sample.h"
#include "core/base/invalid.h"

/* ---- Delivering ---- */

static void drop(tram_loop *loop, tram_message *message) {
    stats_add(&loop->stats.dropped_messages, 1);
    message_drop(message);
}

/* False: it was kept. */
ALWAYS_INLINE static bool deliver(tram_loop *loop, struct envelope *envelope) {
    struct addressee *addressee = addressee_of(actors_present(loop)->here, envelope->slot, envelope->generation);
    enum delivery done = likely(addressee) ? deliver_to(loop, addressee, &envelope->message) : MESSAGE_UNWANTED;
    if (likely(done == MESSAGE_RECEIVED))
        message_destroy(&envelope->message);
    else if (done == MESSAGE_UNWANTED)
        drop(loop, &envelope->message);
    return done != MESSAGE_KEPT;
}

static void message_run(tram_loop *loop, struct mail *mail) {
    deliver(loop, envelope_of(mail));
}

bool tram__message_run(tram_loop *loop, struct mail *mail) {
    return deliver(loop, envelope_of(mail));
}

static void uncount(struct addressee *addressee) {
    atomic_fetch_sub_explicit(&addressee->bounded, 1, memory_order_relaxed);
}

/* Before it is received, so that the receiver may post another one to itself. */
static void bounded_run(tram_loop *loop, struct mail *mail) {
    struct envelope *envelope = envelope_of(mail);
    struct addressee *addressee = addressee_at(actors_present(loop)->here, envelope->slot);
    bool keeps = addressee->keeps;
    if (!keeps)
        uncount(addressee);
    if (deliver(loop, envelope) && keeps)
        uncount(addressee);
}

/* The loop has closed: nobody is left who could count. */
static void message_discard(struct mail *mail) {
    message_drop(&envelope_of(mail)->message);
}

static const struct mail_kind message_mail = {.run = message_run, .discard = message_discard};
static const struct mail_kind bounded_mail = {.run = bounded_run, .discard = message_discard};

/* The same of messages that are sampled. */

static void sampled_run(tram_loop *loop, struct mail *mail) {
    sample_deliver(loop, envelope_of(mail)->slot, envelope_of(mail)->generation);
    message_run(loop, mail);
    actors_present(loop)->sampled_ns = 0;
}

static void sampled_bounded_run(tram_loop *loop, struct mail *mail) {
    sample_deliver(loop, envelope_of(mail)->slot, envelope_of(mail)->generation);
    bounded_run(loop, mail);
    actors_present(loop)->sampled_ns = 0;
}

static const struct mail_kind sampled_mail = {.run = sampled_run, .discard = message_discard};
static const struct mail_kind sampled_bounded_mail = {.run = sampled_bounded_run, .discard = message_discard};

bool tram__message_is_bounded(const struct mail *mail) {
    return mail->kind == &bounded_mail || mail->kind == &sampled_bounded_mail;
}

void tram__message_unkept(tram_loop *loop, const struct mail *mail, uint32_t slot) {
    if (tram__message_is_bounded(mail))
        uncount(addressee_at(actors_present(loop)->here, slot));
}

/* ---- Posting ---- */

/* Counts what a thread posts that runs no loop. */
static _Thread_local __attribute__((tls_model("initial-exec"))) uint32_t until_sample;

static bool sample_is_due(struct mailbox *own) {
    uint32_t *until = own ? &own->until_sample : &until_sample;
    if (*until - 1 < SAMPLE_EVERY - 1) {
        --*until;
        return false;
    }
    *until = SAMPLE_EVERY - 1; /* it was 0, or is below after the fast way */
    return true;
}

/* Where no node is at hand, or it is time to sample one. */
__attribute__((noinline)) static int post_with_care(struct addressees *there, const struct mail_kind *kind,
                                                    tram_address to, const tram_message *message) {
    struct mail *mail = tram__mail_new(there->mailbox, kind);
    if (unlikely(!mail))
        return -ENOMEM;
    envelope_fill(mail, to, message, 0);
    if (sample_is_due(tram__mailbox_entered) && sample_begin(there->mailbox))
        mail->kind = kind == &bounded_mail ? &sampled_bounded_mail : &sampled_mail;
    return tram__mailbox_send(there->mailbox, mail);
}

/* The usual way: a node of the thread's own, not to be sampled. NULL: take care. */
static ALWAYS_INLINE struct mail *quick_node(struct mailbox *own, const struct mail_kind *kind) {
    if (unlikely(!own || !own->nodes || __builtin_sub_overflow(own->until_sample, 1u, &own->until_sample)))
        return NULL;
    return mail_new_own(own, kind);
}

__attribute__((noinline)) static int post_slowly(tram_address to, const tram_message *message) {
    bool pinned;
    int status;
    struct addressees *there = route_enter(to.loop, to.loop_generation, &pinned, &status);
    if (unlikely(!there))
        return status;
    status = post_with_care(there, &message_mail, to, message);
    route_leave(to.loop, pinned);
    return status;
}

int tram_post(tram_address to, const tram_message *message) {
    const struct addressees *there = route_present(to.loop, to.loop_generation);
    struct mail *mail =
        likely(there && !addressees_forked(there)) ? quick_node(tram__mailbox_entered, &message_mail) : NULL;
    if (unlikely(!mail))
        return post_slowly(to, message);
    envelope_fill(mail, to, message, 0);
    return tram__mailbox_send(there->mailbox, mail);
}

static int post_bounded(struct addressees *there, tram_address to, const tram_message *message) {
    struct mail *mail = quick_node(tram__mailbox_entered, &bounded_mail);
    if (unlikely(!mail))
        return post_with_care(there, &bounded_mail, to, message);
    envelope_fill(mail, to, message, 0);
    return tram__mailbox_send(there->mailbox, mail);
}

static int try_post_to(struct addressees *there, tram_address to, const tram_message *message) {
    if (!addressee_exists(there, to.slot))
        return TRAM_ESTATE;
    struct addressee *addressee = addressee_at(there, to.slot);
    uint32_t limit = atomic_load_explicit(&addressee->limit, memory_order_relaxed);
    int status = -EAGAIN;
    if (atomic_fetch_add_explicit(&addressee->bounded, 1, memory_order_relaxed) < limit)
        status = post_bounded(there, to, message);
    if (status == -EAGAIN)
        atomic_fetch_add_explicit(&addressee->refused, 1, memory_order_relaxed);
    if (status)
        atomic_fetch_sub_explicit(&addressee->bounded, 1, memory_order_relaxed);
    return status;
}

int tram_try_post(tram_address to, const tram_message *message) {
    bool pinned;
    int status;
    struct addressees *there = route_enter(to.loop, to.loop_generation, &pinned, &status);
    if (!there)
        return status;
    status = try_post_to(there, to, message);
    route_leave(to.loop, pinned);
    return status;
}

/* NULL: it is none of this loop, or has ended. */
static struct addressee *addressee_here(tram_loop *loop, tram_address address) {
    const struct actors *actors = actors_present(loop);
    const struct addressees *here = actors ? actors->here : NULL;
    bool ours = here && here->number == address.loop && here->generation == address.loop_generation;
    return ours ? addressee_of(here, address.slot, address.generation) : NULL;
}

int tram_address_message_counts(tram_loop *loop, tram_address address, tram_message_counts *ret_counts) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!ret_counts)
        return tram__invalid("ret_counts");
    const struct addressee *addressee = addressee_here(loop, address);
    if (!addressee)
        return -ESRCH;
    const struct waits *waits = waits_of(actors_present(loop)->here, addressee);
    *ret_counts = (tram_message_counts){
        .delivered = addressee->delivered,
        .dropped = addressee->dropped,
        .refused = atomic_load_explicit(&addressee->refused, memory_order_relaxed),
        .waiting = atomic_load_explicit(&addressee->bounded, memory_order_relaxed),
        .limit = atomic_load_explicit(&addressee->limit, memory_order_relaxed),
        .measured = waits->measured,
        .waited_ns = waits->waited_ns,
        .longest_wait_ns = waits->longest_wait_ns,
        .queued = addressee->queued,
    };
    return 0;
}

int tram_address_set_limit(tram_loop *loop, tram_address address, uint32_t limit) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    struct addressee *addressee = addressee_here(loop, address);
    if (!addressee)
        return -ESRCH;
    atomic_store_explicit(&addressee->limit, limit ? limit : TRAM_ADDRESSEE_LIMIT, memory_order_relaxed);
    return 0;
}

/* ---- Many ---- */

static inline struct mail *next_in_batch(const struct mail *mail) {
    return mail->entry.next ? mail_of(mail->entry.next) : NULL;
}

static void free_batch(struct mailbox *mailbox, struct mail *first) {
    for (struct mail *mail = first, *next; mail; mail = next) {
        next = next_in_batch(mail);
        tram__mail_free(mailbox, mail);
    }
}

/* Nodes for all of them, linked in order; NULL: out of memory. */
static struct mail *fill_batch(struct mailbox *mailbox, tram_address to, const tram_message *messages, size_t count) {
    struct mail *first = NULL;
    for (size_t i = count; i-- > 0;) {
        struct mail *mail = mail_new(mailbox, &message_mail);
        if (!mail) {
            free_batch(mailbox, first);
            return NULL;
        }
        mail->entry.next = first ? &first->entry : NULL;
        envelope_fill(mail, to, &messages[i], 0);
        first = mail;
    }
    return first;
}

int tram_post_batch(tram_address to, const tram_message *messages, size_t count) {
    bool pinned;
    int status = 0;
    if (!count)
        return 0;
    struct addressees *there = route_enter(to.loop, to.loop_generation, &pinned, &status);
    if (!there)
        return status;
    struct mail *first = fill_batch(there->mailbox, to, messages, count);
    status = first ? tram__mailbox_post_all(there->mailbox, first) : -ENOMEM;
    if (status)
        free_batch(there->mailbox, first);
    route_leave(to.loop, pinned);
    return status;
}

int tram_broadcast(const tram_address *to, size_t count, const tram_message *message) {
    const tram_message_type *type = message->type;
    int accepted = 0;
    for (size_t i = 0; i < count; i++) {
        tram_message copy = *message;
        if (type && type->copy && type->copy(&copy) < 0)
            continue;
        if (tram_post(to[i], &copy) == 0)
            accepted++;
        else
            message_destroy(&copy);
    }
    return accepted;
}

/* ---- Receiving ---- */

tram_message tram_message_take(tram_message *message) {
    tram_message taken = *message;
    taken.reserved = 0;
    message_clear(message);
    return taken;
}

static int hold_buffer(tram_message *message) {
    tram_buffer_hold(message->data);
    return 0;
}

static void release_buffer(tram_message *message) {
    tram_buffer_release(message->data);
}

const tram_message_type tram_buffer_message = {.name = "buffer", .destroy = release_buffer, .copy = hold_buffer};
