/*
 * Channels. Everything but `credits`, `closed` and `references` belongs to the receiver's thread; senders reach it by
 * mail.
 *
 * A credit is room for one item. A sender takes one from `credits` and mails its item. Where there is none it mails a
 * request, which the receiver keeps in a list until it has a credit for it, and answers by mail to the sender's loop.
 * While senders wait, a credit that comes back goes to the first of them and not into `credits`, so nobody overtakes.
 *
 * A request belongs to the receiver from its posting to its answer. A sender that is cancelled asks for it back and
 * waits for the answer all the same, which may be the credit: that it then gives back. A sender whose loop closes is
 * gone without a word: its mailbox then refuses the answer, or discards it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/system/wiped.h"
#include "core/tasks/waiters.h"
#include <tram/channel.h>

struct tram_channel {
    _Atomic size_t credits;
    _Atomic size_t references;
    _Atomic bool closed;
    _Atomic unsigned char *wiped; /* 0: this is a child of fork(), and the receiver is its parent */
    struct mailbox *mailbox;      /* of the receiver's loop */
    tram_allocator allocator;
    tram_discard discard;

    tram_loop *loop;
    struct loop_owned owned; /* in its loop's list, with a reference, until it is closed */
    struct list requests;    /* that wait for a credit */
    tram_waiters receivers;
    void **items; /* a ring */
    size_t capacity, head, count;
};

enum answer { ANSWER_NONE, ANSWER_CREDIT, ANSWER_CANCELLED, ANSWER_CLOSED };

struct request {
    struct list link;
    tram_channel *channel;    /* counted */
    struct mailbox *mailbox;  /* of the sender's loop, counted */
    struct mail *reply;       /* for the answer, so that answering needs no memory */
    struct send_wait *sender; /* the sender's own: NULL once its loop has closed */
    enum answer answer;
};

struct send_wait {
    struct task_wait wait;
    struct request *request;
    enum answer answer;
    bool cancelled;
};

/* ---- References ---- */

static void free_channel(tram_channel *channel) {
    for (; channel->count > 0; channel->count--, channel->head++)
        if (channel->discard)
            channel->discard(channel->items[channel->head % channel->capacity]);
    tram__mailbox_release(channel->mailbox);
    tram__wiped_free((void *)(uintptr_t)channel->wiped, 1);
    tram_allocator allocator = channel->allocator;
    memory_put(&allocator, channel->items, channel->capacity * sizeof *channel->items);
    memory_put(&allocator, channel, sizeof *channel);
}

static void hold(tram_channel *channel) {
    atomic_fetch_add_explicit(&channel->references, 1, memory_order_relaxed);
}

static void drop(tram_channel *channel) {
    if (atomic_fetch_sub_explicit(&channel->references, 1, memory_order_acq_rel) == 1)
        free_channel(channel);
}

tram_channel *tram_channel_hold(tram_channel *channel) {
    hold(channel);
    return channel;
}

void tram_channel_release(tram_channel *channel) {
    if (channel)
        drop(channel);
}

/* ---- Credits ---- */

static bool take_credit(tram_channel *channel) {
    size_t credits = atomic_load_explicit(&channel->credits, memory_order_relaxed);
    while (credits > 0)
        if (atomic_compare_exchange_weak_explicit(&channel->credits, &credits, credits - 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void free_request(struct request *request) {
    tram__mailbox_release(request->mailbox);
    tram_channel *channel = request->channel;
    memory_put(&channel->allocator, request, sizeof *request);
    drop(channel);
}

/* True: the answer is on its way. False: the sender's loop is gone, and so is the request. */
static bool answer(struct request *request, enum answer what) {
    list_remove(&request->link);
    request->answer = what;
    /* Once posted the request may be gone, and the mailbox with it, before the post has ended. */
    struct mailbox *mailbox = tram__mailbox_hold(request->mailbox);
    bool posted = tram__mailbox_send(mailbox, request->reply) == 0;
    if (!posted)
        free_request(request);
    tram__mailbox_release(mailbox);
    return posted;
}

/* On the receiver's thread: a credit came back. */
static void return_credit(tram_channel *channel) {
    while (!list_empty(&channel->requests))
        if (answer(container_of(channel->requests.next, struct request, link), ANSWER_CREDIT))
            return;
    atomic_fetch_add_explicit(&channel->credits, 1, memory_order_relaxed);
}

/* ---- Mail to the receiver ---- */

struct channel_mail {
    tram_channel *channel; /* counted, except for requests, which count it themselves */
    void *what;            /* the item, or the request */
};

static struct channel_mail *contents(struct mail *mail) {
    return (struct channel_mail *)(void *)mail->payload;
}

static int post(tram_channel *channel, const struct mail_kind *kind, void *what) {
    _Static_assert(sizeof(struct channel_mail) <= MAIL_PAYLOAD, "fits");
    struct mail *mail = mail_new(channel->mailbox, kind);
    if (!mail)
        return -ENOMEM;
    *contents(mail) = (struct channel_mail){channel, what};
    return tram__mailbox_send(channel->mailbox, mail) ? -ESHUTDOWN : 0;
}

static void discard_item(tram_channel *channel, void *item) {
    if (channel->discard)
        channel->discard(item);
}

static void item_arrives(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct channel_mail item = *contents(mail);
    tram_channel *channel = item.channel;
    if (atomic_load_explicit(&channel->closed, memory_order_relaxed)) {
        discard_item(channel, item.what);
    } else {
        channel->items[(channel->head + channel->count++) % channel->capacity] = item.what;
        tram__waiters_wake(&channel->receivers);
    }
    drop(channel);
}

static void item_discarded(struct mail *mail) {
    struct channel_mail item = *contents(mail);
    discard_item(item.channel, item.what);
    drop(item.channel);
}

static const struct mail_kind item_kind = {.run = item_arrives, .discard = item_discarded};

static void request_arrives(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct request *request = contents(mail)->what;
    tram_channel *channel = request->channel;
    list_append(&channel->requests, &request->link);
    if (atomic_load_explicit(&channel->closed, memory_order_relaxed))
        answer(request, ANSWER_CLOSED);
    else if (take_credit(channel) && !answer(request, ANSWER_CREDIT))
        return_credit(channel);
}

static void request_discarded(struct mail *mail) {
    answer(contents(mail)->what, ANSWER_CLOSED);
}

static const struct mail_kind request_kind = {.run = request_arrives, .discard = request_discarded};

/* The sender wants it back. It comes behind the request, and may come behind its answer. */
static void cancel_arrives(tram_loop *loop, struct mail *mail) {
    (void)loop;
    tram_channel *channel = contents(mail)->channel;
    for (struct list *link = channel->requests.next; link != &channel->requests; link = link->next)
        if (link == contents(mail)->what) {
            answer(container_of(link, struct request, link), ANSWER_CANCELLED);
            break;
        }
    drop(channel);
}

static void cancel_discarded(struct mail *mail) {
    drop(contents(mail)->channel);
}

static const struct mail_kind cancel_kind = {.run = cancel_arrives, .discard = cancel_discarded};

static void credit_arrives(tram_loop *loop, struct mail *mail) {
    (void)loop;
    return_credit(contents(mail)->channel);
    drop(contents(mail)->channel);
}

static const struct mail_kind credit_kind = {.run = credit_arrives, .discard = cancel_discarded};

/* From a sender that does not use its credit. Without memory for the mail the credit is lost to who waits now. */
static void give_credit_back(tram_channel *channel) {
    hold(channel);
    if (post(channel, &credit_kind, NULL)) {
        atomic_fetch_add_explicit(&channel->credits, 1, memory_order_relaxed);
        drop(channel);
    }
}

/* ---- Mail to the sender ---- */

static struct request *answered(struct mail *mail) {
    struct request *request;
    memcpy(&request, mail->payload, sizeof request);
    return request;
}

static void answer_arrives(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct request *request = answered(mail);
    struct send_wait *sender = request->sender; /* it waits: only a loop that closes abandons it, and discards this */
    sender->answer = request->answer;
    sender->request = NULL;
    task_wake(&sender->wait);
    free_request(request);
}

static void answer_discarded(struct mail *mail) {
    struct request *request = answered(mail);
    if (request->answer == ANSWER_CREDIT)
        give_credit_back(request->channel);
    free_request(request);
}

static const struct mail_kind answer_kind = {.run = answer_arrives, .discard = answer_discarded};

/* ---- Sending ---- */

static bool cancel_send(struct task_wait *wait) {
    struct send_wait *self = container_of(wait, struct send_wait, wait);
    tram_channel *channel = self->request->channel;
    if (self->cancelled)
        return true;
    hold(channel);
    if (post(channel, &cancel_kind, &self->request->link) == 0)
        return self->cancelled = true;
    drop(channel);
    return false; /* without memory, or a receiver, the answer is waited for; the task is cancelled all the same */
}

static void abandon_send(struct task_wait *wait) {
    struct request *request = container_of(wait, struct send_wait, wait)->request;
    if (request)
        request->sender = NULL;
}

static const struct wait_kind send_kind = {.name = "channel send", .cancel = cancel_send, .abandon = abandon_send};

static int request_credit(tram_channel *channel, struct send_wait *sender) {
    tram_loop *loop = sender->wait.task->future.loop;
    struct request *request = memory_get(&channel->allocator, sizeof *request);
    struct mail *reply = request ? mail_new(loop->mailbox, &answer_kind) : NULL;
    if (!reply) {
        memory_put(&channel->allocator, request, sizeof *request);
        return -ENOMEM;
    }
    hold(channel);
    *request = (struct request){
        .channel = channel, .mailbox = tram__mailbox_hold(loop->mailbox), .reply = reply, .sender = sender};
    list_init(&request->link);
    memcpy(reply->payload, &request, sizeof request);
    sender->request = request;
    int status = post(channel, &request_kind, request);
    if (status) {
        tram__mail_free(loop->mailbox, reply);
        free_request(request);
    }
    return status;
}

/* 0 with a credit. */
static int wait_for_credit(tram_channel *channel, const void *where) {
    struct send_wait self = {.answer = ANSWER_NONE};
    wait_init(&self.wait, &send_kind, where);
    int status = request_credit(channel, &self);
    if (status)
        return status;
    status = tram__task_park(&self.wait);
    if (self.cancelled)
        status = TRAM_ECANCELLED;
    switch (self.answer) {
    case ANSWER_CREDIT:
        if (status)
            give_credit_back(channel);
        return status;
    case ANSWER_CLOSED:
        return status ? status : -ESHUTDOWN;
    case ANSWER_NONE:
    case ANSWER_CANCELLED:
        break;
    }
    return TRAM_ECANCELLED;
}

/* With a credit. */
static int send_item(tram_channel *channel, void *item) {
    hold(channel);
    int status = post(channel, &item_kind, item);
    if (status) {
        atomic_fetch_add_explicit(&channel->credits, 1, memory_order_relaxed);
        drop(channel);
    }
    return status;
}

int tram_channel_try_send(tram_channel *channel, void *item) {
    if (unlikely(!atomic_load_explicit(channel->wiped, memory_order_relaxed)))
        return -ECHILD;
    if (atomic_load_explicit(&channel->closed, memory_order_relaxed))
        return -ESHUTDOWN;
    return take_credit(channel) ? send_item(channel, item) : -EAGAIN;
}

int tram_channel_send(tram_channel *channel, void *item) {
    int status = task_check(NULL);
    if (status)
        return status;
    status = tram_channel_try_send(channel, item);
    if (status != -EAGAIN)
        return status;
    status = wait_for_credit(channel, __builtin_return_address(0));
    return status ? status : send_item(channel, item);
}

/* ---- Receiving ---- */

static const struct wait_kind receive_kind = WAIT_KIND("channel receive");

int tram_channel_receive(tram_channel *channel, void **ret_item) {
    int status = task_check(NULL);
    if (status)
        return status;
    if (tram__task_current->future.loop->mailbox != channel->mailbox)
        return TRAM_ESTATE;
    while (channel->count == 0) {
        if (atomic_load_explicit(&channel->closed, memory_order_relaxed))
            return -ESHUTDOWN;
        bool woken;
        status = tram__waiters_park(&channel->receivers, &receive_kind, __builtin_return_address(0), &woken);
        if (!status)
            continue;
        if (channel->count > 0 && woken)
            tram__waiters_wake(&channel->receivers);
        return status;
    }
    *ret_item = channel->items[channel->head++ % channel->capacity];
    channel->count--;
    return_credit(channel);
    return 0;
}

/* ---- Beginning and end ---- */

static void close_channel(tram_channel *channel) {
    atomic_store_explicit(&channel->closed, true, memory_order_relaxed);
    while (!list_empty(&channel->requests))
        answer(container_of(channel->requests.next, struct request, link), ANSWER_CLOSED);
    while (tram__waiters_wake(&channel->receivers))
        ;
    list_remove(&channel->owned.link);
    drop(channel);
}

static void loop_closes(struct loop_owned *owned) {
    close_channel(container_of(owned, tram_channel, owned));
}

int tram_channel_close(tram_channel *channel) {
    if (atomic_load_explicit(&channel->closed, memory_order_relaxed))
        return 0;
    int status = loop_enter(channel->loop, __func__);
    if (!status)
        close_channel(channel);
    return status;
}

int tram_channel_new(tram_loop *loop, size_t capacity, tram_discard discard, tram_channel **ret_channel) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (capacity == 0 || capacity > SIZE_MAX / 2 / sizeof(void *))
        return tram__invalid("capacity");
    struct task_loop *tasks = tram__task_loop(loop);
    tram_channel *channel = tasks ? tram__memory_get_zero(&loop->allocator, sizeof *channel) : NULL;
    if (!channel)
        return -ENOMEM;
    channel->items = memory_get(&loop->allocator, capacity * sizeof *channel->items);
    channel->wiped = channel->items ? tram__wiped_new(1) : NULL;
    if (!channel->wiped) {
        memory_put(&loop->allocator, channel->items, capacity * sizeof *channel->items);
        memory_put(&loop->allocator, channel, sizeof *channel);
        return -ENOMEM;
    }
    atomic_store_explicit(channel->wiped, 1, memory_order_relaxed);
    atomic_init(&channel->credits, capacity);
    atomic_init(&channel->references, 2); /* the caller's, and the loop's */
    channel->mailbox = tram__mailbox_hold(loop->mailbox);
    channel->allocator = loop->allocator;
    channel->discard = discard;
    channel->loop = loop;
    channel->capacity = capacity;
    list_init(&channel->requests);
    loop_own(tasks, &channel->owned, loop_closes);
    *ret_channel = channel;
    return 0;
}
