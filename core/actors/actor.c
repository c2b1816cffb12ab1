/*
 * Actors: how one starts, hears and stops. Stopping takes two steps: from the first on nobody reaches it; in the second
 * who is interested is told, and `stopped`, which comes from the ready queue, frees the record. The second follows at
 * once, but for an actor that waits for others: a task for its function, a supervisor for its children.
 */
#include "core/actors/actor.h"

#include <errno.h>

#include "core/actors/forwarding.h"
#include "core/actors/message.h"

#define ACTOR_LIST_SLOT (LOOP_SLOT_CORE + 2)

/* The actors of a loop. */
struct actor_list {
    struct loop_state state;
    struct close_hook hook;
    struct list all;
    bool closing; /* each is told, or will be once it has begun */
};

/* ---- Callbacks ---- */

static void report(tram_loop *loop, int code, const char *operation) {
    tram_exception exception = {.message = "an actor failed", .error = tram__raised(loop, code, operation), .fd = -1};
    tram__report(loop, &exception);
}

/* A callback that fails stops its actor. */
static void judge(struct actor_record *record, int status, const char *operation) {
    if (likely(status >= 0))
        return;
    report(record->actor->loop, status, operation);
    tram__actor_stop(record, status);
}

static void call(struct actor_record *record, int (*callback)(tram_actor *), const char *operation) {
    tram_loop *loop = record->actor->loop;
    if (!callback)
        return;
    uint64_t start = slow_begin(loop);
    int status = callback(record->actor);
    slow_end(loop, start, (const void *)(uintptr_t)callback, operation);
    judge(record, status, operation);
}

/* Where callbacks are timed. */
__attribute__((noinline)) static int receive_timed(tram_actor *actor, tram_message *message) {
    tram_loop *loop = actor->loop;
    int (*received)(tram_actor *, tram_message *) = actor->ops->message_received;
    uint64_t start = slow_begin(loop);
    int status = received(actor, message);
    slow_end(loop, start, (const void *)(uintptr_t)received, "message_received");
    return status;
}

static enum delivery deliver(tram_loop *loop, void *target, tram_message *message) {
    struct actor_record *record = target;
    tram_actor *actor = record->actor;
    if (unlikely(!actor->ops->message_received))
        return MESSAGE_UNWANTED;
    int status = likely(!loop->timed) ? actor->ops->message_received(actor, message) : receive_timed(actor, message);
    if (unlikely(status < 0))
        judge(record, status, "message_received");
    return MESSAGE_RECEIVED;
}

/* ---- Notices ---- */

enum notice_kind { NOTICE_LINK, NOTICE_UNLINK, NOTICE_MONITOR, NOTICE_DEMONITOR, NOTICE_LINK_ENDED, NOTICE_ENDED };

struct notice {
    tram_address to;
    tram_address from;
    int32_t reason;
    uint32_t kind; /* enum notice_kind */
};

_Static_assert(sizeof(struct notice) <= MAIL_PAYLOAD, "a notice fits a node");

static struct notice *notice_of(struct mail *mail) {
    return (struct notice *)(void *)mail->payload;
}

static int send_notice(tram_loop *loop, struct mail *mail, const struct notice *notice);
static struct mail *notice_new(tram_loop *loop);

/* Whoever wants to hear of somebody's end who is not there hears it at once. `loop` may be NULL: any thread. */
static void refuse(tram_loop *loop, const struct notice *notice) {
    if (notice->kind != NOTICE_LINK && notice->kind != NOTICE_MONITOR)
        return;
    struct notice answer = {notice->from, notice->to, -ESRCH,
                            notice->kind == NOTICE_LINK ? NOTICE_LINK_ENDED : NOTICE_ENDED};
    send_notice(loop, NULL, &answer);
}

static struct relation *find(const struct list *list, tram_address who) {
    for (struct list *link = list->next; link != list; link = link->next) {
        struct relation *relation = container_of(link, struct relation, link);
        if (tram_address_equal(relation->who, who))
            return relation;
    }
    return NULL;
}

static bool add(tram_loop *loop, struct list *list, tram_address who, bool needs_notice) {
    struct relation *relation = memory_get(&loop->allocator, sizeof *relation);
    struct mail *notice = relation && needs_notice ? notice_new(loop) : NULL;
    if (!relation || (needs_notice && !notice)) {
        memory_put(&loop->allocator, relation, sizeof *relation);
        return false;
    }
    relation->who = who;
    relation->notice = notice;
    list_append(list, &relation->link);
    return true;
}

static void relation_free(tram_loop *loop, struct relation *relation) {
    list_remove(&relation->link);
    if (relation->notice)
        tram__mail_free(loop->mailbox, relation->notice);
    memory_put(&loop->allocator, relation, sizeof *relation);
}

/* Ends of those that it monitors are kept for a task; the node is there before, so that this needs no memory. */
static bool tells_by_node(const struct actor_record *record) {
    return record->kind && record->kind->ended;
}

static bool drop(tram_loop *loop, const struct list *list, tram_address who) {
    struct relation *relation = find(list, who);
    if (relation)
        relation_free(loop, relation);
    return relation != NULL;
}

/* Another has ended, with whom this one is linked, or whom it monitors. */
static void on_end(struct actor_record *record, tram_address who, int reason, bool linked) {
    tram_actor *actor = record->actor;
    struct relation *relation = find(linked ? &record->links : &record->watched, who);
    if (!relation)
        return; /* not any more */
    struct mail *mail = NULL;
    if (tells_by_node(record) && !linked) {
        mail = relation->notice;
        relation->notice = NULL;
    }
    relation_free(actor->loop, relation);
    if (mail)
        record->kind->ended(actor, mail, who, reason);
    else if (actor->ops->actor_ended)
        judge(record, actor->ops->actor_ended(actor, who, reason), "actor_ended");
    else if (linked && reason)
        tram__actor_stop(record, reason);
}

static void on_notice(struct actor_record *record, const struct notice *notice) {
    tram_loop *loop = record->actor->loop;
    switch ((enum notice_kind)notice->kind) {
    case NOTICE_LINK:
        if (!find(&record->links, notice->from) && !add(loop, &record->links, notice->from, true))
            refuse(loop, notice); /* out of memory: better no link than half of one */
        break;
    case NOTICE_MONITOR:
        if (!add(loop, &record->watchers, notice->from, true))
            refuse(loop, notice);
        break;
    case NOTICE_UNLINK:
        drop(loop, &record->links, notice->from);
        break;
    case NOTICE_DEMONITOR:
        drop(loop, &record->watchers, notice->from);
        break;
    case NOTICE_LINK_ENDED:
        on_end(record, notice->from, notice->reason, true);
        break;
    case NOTICE_ENDED:
        on_end(record, notice->from, notice->reason, false);
        break;
    }
}

static void notice_run(tram_loop *loop, struct mail *mail) {
    const struct notice notice = *notice_of(mail);
    struct addressee *addressee = addressee_of(actors_present(loop)->here, notice.to.slot, notice.to.generation);
    if (addressee && (addressee->deliver == deliver || (addressee->keeps && !tram__address_moved(addressee))))
        on_notice(addressee->target, &notice);
    else
        refuse(loop, &notice);
}

static void notice_discard(struct mail *mail) {
    const struct notice notice = *notice_of(mail);
    refuse(NULL, &notice);
}

static const struct mail_kind notice_mail = {.run = notice_run, .discard = notice_discard};

static struct mail *notice_new(tram_loop *loop) {
    return tram__mail_new_own(loop->mailbox, &notice_mail);
}

/* Sends it by this node or, if that is NULL, by a new one. A node that cannot be sent is freed. */
static int send_notice(tram_loop *loop, struct mail *mail, const struct notice *notice) {
    bool pinned;
    int status;
    tram_address to = notice->to;
    struct addressees *there = route_enter(to.loop, to.loop_generation, &pinned, &status);
    if (there && !mail)
        mail = mail_new(there->mailbox, &notice_mail);
    if (there && mail) {
        *notice_of(mail) = *notice;
        status = tram__mailbox_send(there->mailbox, mail);
    } else if (there) {
        status = -ENOMEM;
    } else if (mail) {
        tram__mail_free(loop->mailbox, mail);
    }
    if (there)
        route_leave(to.loop, pinned);
    return status;
}

static tram_address self_of(const struct actor_record *record) {
    return address_here(actors_present(record->actor->loop), record->slot);
}

/* ---- Stopping ---- */

static void tell_all(struct actor_record *record, struct list *list, enum notice_kind kind) {
    while (!list_empty(list)) {
        struct relation *relation = container_of(list->next, struct relation, link);
        struct notice notice = {relation->who, record->self, record->reason, kind};
        struct mail *mail = relation->notice;
        relation->notice = NULL;
        if (mail)
            send_notice(record->actor->loop, mail, &notice);
        relation_free(record->actor->loop, relation);
    }
}

/* Those that it monitors need not tell it any more. */
static void leave_watched(struct actor_record *record) {
    tram_loop *loop = record->actor->loop;
    while (!list_empty(&record->watched)) {
        struct relation *relation = container_of(record->watched.next, struct relation, link);
        struct notice notice = {relation->who, record->self, 0, NOTICE_DEMONITOR};
        send_notice(loop, NULL, &notice);
        relation_free(loop, relation);
    }
}

static void stopped(struct actor_record *record) {
    tram_actor *actor = record->actor;
    tram_loop *loop = actor->loop;
    int reason = record->reason;
    struct actor_holder *holder = record->holder;
    list_remove(&record->link);
    list_remove(&record->ready.link);
    actor->record = NULL;
    memory_put(&loop->allocator, record, sizeof *record);
    actor->loop = NULL;
    if (holder)
        holder->actor = NULL;
    if (actor->ops->stopped)
        actor->ops->stopped(actor, reason);
    if (holder)
        holder->ended(holder, reason);
}

static void stopped_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    stopped(container_of(ready, struct actor_record, ready));
}

void tram__actor_stop(struct actor_record *record, int reason) {
    tram_loop *loop = record->actor->loop;
    if (!record->slot)
        return;
    record->self = self_of(record);
    record->reason = reason;
    tram__names_drop(record->names);
    record->names = NULL;
    tram__address_close(loop, record->slot);
    record->slot = 0;
    deadline_cancel(loop, &record->timer);
    list_remove(&record->ready.link); /* `started` may be queued still */
    if (!record->kind || !record->kind->stopping || !record->kind->stopping(record->actor))
        tram__actor_ended(record);
}

void tram__actor_ended(struct actor_record *record) {
    TRAM_DCHECK(!record->slot && list_empty(&record->ready.link));
    tell_all(record, &record->links, NOTICE_LINK_ENDED);
    tell_all(record, &record->watchers, NOTICE_ENDED);
    leave_watched(record);
    record->ready.run = stopped_run;
    loop_ready(record->actor->loop, &record->ready);
}

/* ---- Starting ---- */

/* Nobody hears it before `started`, or after it was stopped. */
static void tell_closing(struct actor_record *record) {
    if (!record->slot || !record->begun || record->told)
        return;
    record->told = true;
    call(record, record->actor->ops->closing, "closing");
}

static void tell_all_closing(struct actor_list *actors) {
    actors->closing = true;
    for (struct list *link = actors->all.next; link != &actors->all; link = link->next)
        tell_closing(container_of(link, struct actor_record, link));
}

static void started_run(tram_loop *loop, struct ready *ready) {
    const struct actor_list *actors = loop_slot(loop, ACTOR_LIST_SLOT);
    struct actor_record *record = container_of(ready, struct actor_record, ready);
    record->begun = true;
    call(record, record->actor->ops->started, "started");
    if (unlikely(actors->closing))
        tell_closing(record);
}

static void actors_ending(struct close_hook *hook, enum shutdown_mode ending) {
    struct actor_list *actors = container_of(hook, struct actor_list, hook);
    if (ending == IO_SHUTDOWN_CLOSE)
        tell_all_closing(actors);
    if (ending != IO_SHUTDOWN_NOW)
        return;
    while (!list_empty(&actors->all)) {
        struct actor_record *record = container_of(actors->all.next, struct actor_record, link);
        tram__actor_stop(record, TRAM_ECANCELLED);
        if (!actor_is_ending(record)) /* what it waits for never ends */
            tram__actor_ended(record);
        stopped(record);
    }
    list_remove(&hook->link);
}

static void validate(const struct loop_state *state) {
    const struct actor_list *actors = container_of(state, struct actor_list, state);
    list_validate(&actors->all);
    for (const struct list *link = actors->all.next; link != &actors->all; link = link->next) {
        const struct actor_record *record = container_of(link, struct actor_record, link);
        TRAM_ASSERT(!record->slot || record->actor->record == record);
        list_validate(&record->links);
        list_validate(&record->watched);
        list_validate(&record->watchers);
    }
}

static struct actor_list *actor_list(tram_loop *loop) {
    struct actor_list *actors = loop_slot(loop, ACTOR_LIST_SLOT);
    if (likely(actors != NULL))
        return actors;
    actors = tram__loop_slot_open(loop, ACTOR_LIST_SLOT, sizeof *actors, NULL);
    if (!actors)
        return NULL;
    actors->state.validate = validate;
    list_init(&actors->all);
    loop_add_close_hook(loop, &actors->hook, actors_ending);
    return actors;
}

int tram__actor_start(tram_loop *loop, tram_actor *actor, const struct actor_kind *kind) {
    struct actor_list *actors = actor_list(loop);
    struct actor_record *record = actors ? tram__memory_get_zero(&loop->allocator, sizeof *record) : NULL;
    if (!record)
        return -ENOMEM;
    bool keeps = kind && kind->deliver;
    int status = tram__address_open(loop, keeps ? kind->deliver : deliver, record, &record->slot);
    if (status) {
        memory_put(&loop->allocator, record, sizeof *record);
        return status;
    }
    addressee_at(actors_present(loop)->here, record->slot)->keeps = keeps;
    record->kind = kind;
    record->actor = actor;
    actor->record = record;
    actor->loop = loop;
    list_init(&record->links);
    list_init(&record->watched);
    list_init(&record->watchers);
    list_append(&actors->all, &record->link);
    record->ready.run = started_run;
    list_init(&record->ready.link);
    loop_ready(loop, &record->ready);
    return 0;
}

/* ---- The public calls ---- */

int tram_loop_start_actor(tram_loop *loop, tram_actor *actor) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!actor || !actor->ops)
        return TRAM_ETYPE;
    return actor->record ? TRAM_ESTATE : tram__actor_start(loop, actor, NULL);
}

/* The actor is there, and this is its loop's thread. */
static int enter_actor(const tram_actor *actor, const char *function) {
    if (!actor->loop)
        return TRAM_ESTATE;
    int status = loop_enter(actor->loop, function);
    return status ? status : actor_alive(actor) ? 0 : TRAM_ESTATE;
}

int tram_actor_stop(tram_actor *actor, int reason) {
    int status = enter_actor(actor, __func__);
    if (!status)
        tram__actor_stop(actor->record, reason);
    return status;
}

int tram_actor_address(const tram_actor *actor, tram_address *ret_address) {
    int status = enter_actor(actor, __func__);
    if (!status)
        *ret_address = self_of(actor->record);
    return status;
}

static void expire(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct actor_record *record = container_of(deadline, struct actor_record, timer);
    call(record, record->actor->ops->timed_out, "timed_out");
}

int tram_actor_set_timer(tram_actor *actor, uint64_t delay_ns) {
    int status = enter_actor(actor, __func__);
    if (status)
        return status;
    struct actor_record *record = actor->record;
    deadline_cancel(actor->loop, &record->timer);
    if (delay_ns == TRAM_FOREVER)
        return 0;
    record->timer.expire = expire;
    return tram__deadline_start_after(actor->loop, &record->timer, delay_ns);
}

/* Tells the other one, or, if it cannot be reached any more, this one that it has ended. */
static int relate(tram_actor *actor, struct list *list, tram_address other, enum notice_kind kind) {
    tram_address self = self_of(actor->record);
    if (!add(actor->loop, list, other, kind == NOTICE_LINK || tells_by_node(actor->record)))
        return -ENOMEM;
    struct notice notice = {other, self, 0, kind};
    int status = send_notice(actor->loop, NULL, &notice);
    if (status == TRAM_ESTATE) {
        struct notice ended = {self, other, -ESRCH, kind == NOTICE_LINK ? NOTICE_LINK_ENDED : NOTICE_ENDED};
        status = send_notice(actor->loop, NULL, &ended);
    }
    if (status)
        drop(actor->loop, list, other);
    return status;
}

static int unrelate(tram_actor *actor, struct list *list, tram_address other, enum notice_kind kind) {
    struct notice notice = {other, self_of(actor->record), 0, kind};
    if (!drop(actor->loop, list, other))
        return 0;
    int status = send_notice(actor->loop, NULL, &notice);
    return status == TRAM_ESTATE ? 0 : status;
}

int tram_actor_monitor(tram_actor *actor, tram_address other) {
    int status = enter_actor(actor, __func__);
    return status ? status : relate(actor, &actor->record->watched, other, NOTICE_MONITOR);
}

int tram_actor_demonitor(tram_actor *actor, tram_address other) {
    int status = enter_actor(actor, __func__);
    return status ? status : unrelate(actor, &actor->record->watched, other, NOTICE_DEMONITOR);
}

int tram_actor_link(tram_actor *actor, tram_address other) {
    int status = enter_actor(actor, __func__);
    if (status)
        return status;
    if (tram_address_equal(self_of(actor->record), other) || find(&actor->record->links, other))
        return 0;
    return relate(actor, &actor->record->links, other, NOTICE_LINK);
}

int tram_actor_unlink(tram_actor *actor, tram_address other) {
    int status = enter_actor(actor, __func__);
    return status ? status : unrelate(actor, &actor->record->links, other, NOTICE_UNLINK);
}
