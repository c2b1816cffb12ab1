/*
 * Requests and their answers, and work on other loops, which is a request that the library answers. The node that asks
 * is the asker's own and is posted back to it as the reply: that needs no memory, cannot be refused while the asker is
 * there, and keeps the asker's mailbox as long as the node is out.
 *
 * What goes to one loop goes together where it can: one push for a chain of nodes, to a line that two processors would
 * else pull to and fro. Requests to a loop that runs wait for those that follow them in the same tick; replies that are
 * given while the mailbox runs, for those to what comes next in there, as long as the asker has not taken what it was
 * sent before.
 */
#include <errno.h>

#include "core/actors/actors.h"
#include "core/actors/forwarding.h"
#include "core/actors/message.h"
#include "core/actors/sample.h"
#include "core/base/invalid.h"

static inline struct mail *next_in_chain(const struct mail *mail) {
    return mail->entry.next ? mail_of(mail->entry.next) : NULL;
}

/* Whom it is for has closed. */
static void discard_chain(const struct mail_chain *chain) {
    for (struct mail *mail = chain->first, *next; mail; mail = next) {
        next = next_in_chain(mail); /* the node itself may be gone after this */
        mail->kind->discard(mail);
    }
}

/* In a child of fork(): they are the parent's to send. */
static void forget_chain(const struct mail_chain *chain) {
    for (struct mail *mail = chain->first, *next; mail; mail = next) {
        next = next_in_chain(mail);
        tram__mail_drop(mail);
    }
}

/* ---- Back ---- */

static void reply_run(tram_loop *loop, struct mail *mail) {
    tram__request_answered(&actors_present(loop)->requests, mail);
}

/* The asker's loop closes: it waits for nothing any more. */
static void reply_discard(struct mail *mail) {
    message_drop(&envelope_of(mail)->message);
    tram__mail_drop(mail);
}

static const struct mail_kind reply_mail = {.run = reply_run, .discard = reply_discard, .flags = MAIL_KEPT};

/*
 * Posts nodes to the loop whose they are. Its memory is there as long as they are out, but within the post they may be
 * run already: so it takes a route, which is a hold, or, where the loop has ended, a hold for the moment.
 */
static void send_back(struct mailbox *asker, const struct mail_chain *chain) {
    uint32_t number = asker->number;
    bool pinned;
    int status = 0, refused;
    if (likely(route_enter(number, asker->number_generation, &pinned, &refused) != NULL)) {
        status = tram__mailbox_post_chain(asker, chain);
        route_leave(number, pinned);
    } else if (refused == -ECHILD) {
        forget_chain(chain);
    } else {
        tram__mailbox_hold(asker);
        status = tram__mailbox_post_chain(asker, chain);
        tram__mailbox_release(asker);
    }
    if (unlikely(status)) /* the asker's loop has closed: nobody waits */
        discard_chain(chain);
}

__attribute__((noinline)) static void send_alone(struct mail *mail) {
    struct mail_chain chain = {.first = mail, .last = mail, .count = 1};
    mail->kind = &reply_mail;
    mail->entry.next = NULL;
    send_back(mail->owner_pool, &chain);
}

__attribute__((noinline)) static void send_replies(struct mailbox *own) {
    struct mail_chain chain = mail_chain_take(&own->replies);
    own->send_replies = NULL;
    send_back(own->replies_to, &chain);
}

/* Its first, or to one whose inbox is empty, who has nothing else to run. */
__attribute__((noinline)) static void send_first(struct mail *mail) {
    struct mailbox *own = tram__mailbox_entered, *asker = mail->owner_pool;
    if (!own || !own->running || own == asker) {
        send_alone(mail);
        return;
    }
    while (own->send_replies && own->replies_to != asker) /* what is dropped meanwhile may reply anew */
        send_replies(own);
    mail->kind = &reply_mail;
    mail_chain_append(&own->replies, mail);
    own->replies_to = asker;
    own->send_replies = send_replies;
    if (mailbox_inbox_empty(asker) || own->replies.count == TRAM_MAIL_CHAIN)
        send_replies(own);
}

static ALWAYS_INLINE void send_reply(struct mail *mail, int status, const tram_message *reply) {
    static const tram_message nothing;
    struct envelope *envelope = envelope_of(mail);
    struct mailbox *own = tram__mailbox_entered;
    uint32_t number = envelope->message.reserved;
    envelope->slot = (uint32_t)status;
    envelope->message = *(reply ? reply : &nothing);
    envelope->message.reserved = number;
    if (unlikely(!own || !own->send_replies || mail->owner_pool != own->replies_to ||
                 own->replies.count == TRAM_MAIL_CHAIN - 1 || mailbox_inbox_empty(own->replies_to))) {
        send_first(mail);
        return;
    }
    mail->kind = &reply_mail;
    mail_chain_join(&own->replies, mail);
}

static struct mail *mail_of_request(tram_request *request) {
    return (struct mail *)(void *)request;
}

void tram_reply(tram_request *request, const tram_message *reply) {
    send_reply(mail_of_request(request), 0, reply);
}

void tram_reply_error(tram_request *request, int code) {
    send_reply(mail_of_request(request), code < 0 ? code : TRAM_EUSER, NULL);
}

/* ---- There ---- */

tram_request *tram_message_take_request(tram_message *message) {
    return message->reserved ? (tram_request *)(void *)take_delivered(message) : NULL;
}

static void request_run(tram_loop *loop, struct mail *mail) {
    struct envelope *envelope = envelope_of(mail);
    struct delivered delivered = {envelope->message, mail};
    struct addressee *addressee = addressee_of(actors_present(loop)->here, envelope->slot, envelope->generation);
    enum delivery done = likely(addressee) ? deliver_to(loop, addressee, &delivered.message) : MESSAGE_UNWANTED;
    if (unlikely(done == MESSAGE_KEPT))
        return;
    if (unlikely(done == MESSAGE_UNWANTED)) {
        stats_add(&loop->stats.dropped_messages, 1);
        message_drop(&delivered.message);
        send_reply(mail, -ESRCH, NULL);
        return;
    }
    message_destroy(&delivered.message);
    if (unlikely(delivered.mail != NULL))
        send_reply(mail, -ENOTSUP, NULL);
}

static void request_discard(struct mail *mail) {
    message_drop(&envelope_of(mail)->message);
    send_reply(mail, TRAM_ESTATE, NULL);
}

static const struct mail_kind request_mail = {.run = request_run, .discard = request_discard, .flags = MAIL_KEPT};

static void sampled_run(tram_loop *loop, struct mail *mail) {
    sample_deliver(loop, envelope_of(mail)->slot, envelope_of(mail)->generation);
    mail->kind = &request_mail; /* it may be kept, or sent on */
    request_run(loop, mail);
    actors_present(loop)->sampled_ns = 0;
}

static const struct mail_kind sampled_mail = {.run = sampled_run, .discard = request_discard, .flags = MAIL_KEPT};

/* It has come behind all that this thread had posted before: that is the answer. */
static void credit_run(tram_loop *loop, struct mail *mail) {
    const struct envelope *envelope = envelope_of(mail);
    struct addressee *addressee = addressee_of(actors_present(loop)->here, envelope->slot, envelope->generation);
    if (likely(!addressee || !tram__forward_credit(addressee, mail)))
        send_reply(mail, 0, NULL);
}

static void credit_discard(struct mail *mail) {
    send_reply(mail, TRAM_ESTATE, NULL);
}

static const struct mail_kind credit_mail = {.run = credit_run, .discard = credit_discard, .flags = MAIL_KEPT};

/* ---- Asking ---- */

/* The future of what was posted, or, with its status, of what was not. */
static int end(struct request *request, int status, tram_future **ret_future) {
    if (unlikely(status)) {
        tram__request_undo(request);
        return status;
    }
    *ret_future = &request->future;
    return 0;
}

__attribute__((noinline)) static int send_requests(struct mailbox *own) {
    struct mail_chain chain = mail_chain_take(&own->requests);
    struct addressees *there = own->requests_to;
    own->send_requests = NULL;
    if (addressees_forked(there))
        forget_chain(&chain);
    else if (unlikely(tram__mailbox_post_chain(there->mailbox, &chain)))
        discard_chain(&chain);
    return 0;
}

/* The first of a chain. Whoever sleeps has nothing to do but this; for who runs it waits for those that follow. */
static int send_request(struct mailbox *own, struct addressees *there, struct mail *mail) {
    uint32_t state = atomic_load_explicit(&there->mailbox->state, memory_order_relaxed);
    if (unlikely(state == MAILBOX_CLOSED))
        return TRAM_ESTATE;
    if (own->requests_to != there)
        mailbox_send_requests(own);
    mail_chain_append(&own->requests, mail);
    own->requests_to = there;
    own->send_requests = send_requests;
    if (state == MAILBOX_SLEEPING || own->requests.count == TRAM_MAIL_CHAIN)
        send_requests(own);
    return 0;
}

static bool in_tick_here(const tram_loop *loop) {
    return likely(loop->in_tick && loop->mailbox == tram__mailbox_entered);
}

/* To whom a route leads, or a pin. `may_wait`: for those that follow in this tick. */
static int ask_there(struct actors *actors, struct addressees *there, bool may_wait, const struct mail_kind *kind,
                     tram_address to, const tram_message *message, uint64_t timeout_ns, tram_future **ret_future) {
    bool is_request = kind == &request_mail;
    struct mail *mail;
    uint32_t number;
    struct request *request = request_new(
        &actors->requests, is_request ? &tram__request_of_message : &tram__request_of_pointer, &mail, &number);
    if (unlikely(!request))
        return -ENOMEM;
    int status = timeout_ns == TRAM_FOREVER ? 0 : tram__request_start_deadline(request, timeout_ns);
    if (unlikely(status))
        return end(request, status, ret_future);
    mail->kind = kind;
    envelope_fill(mail, to, message, number);
    if (is_request && request_is_first(number) && sample_begin(there->mailbox)) {
        mail->kind = &sampled_mail; /* goes alone: a chain is of one kind */
        may_wait = false;
    }
    status = may_wait ? send_request(actors->loop->mailbox, there, mail) : tram__mailbox_post(there->mailbox, mail);
    return end(request, status, ret_future);
}

static int ask(tram_loop *loop, const struct mail_kind *kind, tram_address to, const tram_message *message,
               uint64_t timeout_ns, tram_future **ret_future) {
    struct actors *actors;
    int status = actors_open(loop, &actors);
    if (status)
        return status;
    bool pinned;
    struct addressees *there = route_enter(to.loop, to.loop_generation, &pinned, &status);
    if (!there)
        return status;
    bool may_wait = kind == &request_mail && in_tick_here(loop) && !pinned;
    status = ask_there(actors, there, may_wait, kind, to, message, timeout_ns, ret_future);
    route_leave(to.loop, pinned);
    return status;
}

__attribute__((noinline)) static int ask_first(tram_loop *loop, tram_address to, const tram_message *message,
                                               uint64_t timeout_ns, tram_future **ret_future) {
    int status = loop_enter_open(loop, "tram_ask");
    return status ? status : ask(loop, &request_mail, to, message, timeout_ns, ret_future);
}

/*
 * One that joins a chain, as all do but the first: there is one in ticks of this loop only, to whom it goes was found
 * before, and the first of a group, which may be sampled, comes when the group before it is used up.
 */
int tram_ask(tram_loop *loop, tram_address to, const tram_message *message, uint64_t timeout_ns,
             tram_future **ret_future) {
    struct mailbox *own = loop->mailbox;
    const struct addressees *there = own->requests_to;
    if (unlikely(!loop_is_plain(loop) || !own->send_requests || !addressees_are_of(there, to) ||
                 timeout_ns != TRAM_FOREVER))
        return ask_first(loop, to, message, timeout_ns, ret_future);
    struct requests *requests = &actors_present(loop)->requests;
    if (unlikely(!requests->unused ||
                 atomic_load_explicit(&there->mailbox->state, memory_order_relaxed) >= MAILBOX_SLEEPING))
        return ask_first(loop, to, message, timeout_ns, ret_future);
    struct mail *mail;
    uint32_t number;
    struct request *request = request_next(requests, &tram__request_of_message, &mail, &number);
    mail->kind = &request_mail;
    envelope_fill(mail, to, message, number);
    *ret_future = &request->future;
    mail_chain_join(&own->requests, mail);
    return unlikely(own->requests.count == TRAM_MAIL_CHAIN) ? send_requests(own) : 0;
}

int tram_post_credit(tram_loop *loop, tram_address to, tram_future **ret_future) {
    static const tram_message nothing;
    int status = loop_enter_open(loop, __func__);
    return status ? status : ask(loop, &credit_mail, to, &nothing, TRAM_FOREVER, ret_future);
}

/* ---- Work on another loop ---- */

struct work {
    tram_submit_function function;
    void *arg;
    tram_discard discard;
    uint32_t number; /* of the request */
};

static struct work work_of(struct mail *mail) {
    _Static_assert(sizeof(struct work) <= MAIL_PAYLOAD, "fits a node");
    struct work work;
    memcpy(&work, mail->payload, sizeof work);
    return work;
}

static void work_done(struct mail *mail, const struct work *work, int status, void *value) {
    struct envelope *envelope = envelope_of(mail);
    *envelope = (struct envelope){.slot = (uint32_t)(status < 0 ? status : 0)};
    envelope->message.data = value;
    envelope->message.reserved = work->number;
    send_alone(mail);
}

static void work_run(tram_loop *loop, struct mail *mail) {
    struct work work = work_of(mail);
    void *value = NULL;
    uint64_t start = slow_begin(loop);
    int status = work.function(loop, work.arg, &value);
    slow_end(loop, start, (const void *)(uintptr_t)work.function, "submitted work");
    work_done(mail, &work, status, value);
}

static void work_discard(struct mail *mail) {
    struct work work = work_of(mail);
    if (work.discard)
        work.discard(work.arg);
    work_done(mail, &work, TRAM_ECANCELLED, NULL);
}

static const struct mail_kind work_mail = {.run = work_run, .discard = work_discard, .flags = MAIL_KEPT};

int tram_loop_submit(tram_loop *loop, tram_loop *target, tram_submit_function function, void *arg, tram_discard discard,
                     tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!function)
        return tram__invalid("function");
    if (loop_guard(target) == GUARD_FORKED)
        return -ECHILD;
    struct actors *actors;
    status = actors_open(loop, &actors);
    if (status)
        return status;
    struct mail *mail;
    uint32_t number;
    struct request *request = request_new(&actors->requests, &tram__request_of_pointer, &mail, &number);
    if (!request)
        return -ENOMEM;
    struct work work = {function, arg, discard, number};
    mail->kind = &work_mail;
    memcpy(mail->payload, &work, sizeof work);
    return end(request, tram__mailbox_post(target->mailbox, mail), ret_future);
}
