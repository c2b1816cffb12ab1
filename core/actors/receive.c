/*
 * Tasks as actors. What comes is kept in a queue of nodes until the task takes it: a message in a node of the loop's
 * own, since its node goes back to who posted it; a request in its own node; the end of a monitored actor in one that
 * was made before, when there was somebody who could be told that memory is out.
 *
 * The actor ends with the task, and the task with the actor: stopping the one cancels the other and waits for its end.
 */
#include <tram/receive.h>

#include <errno.h>

#include "core/actors/actor.h"
#include "core/actors/message.h"
#include "core/actors/sample.h"
#include "core/base/invalid.h"
#include "core/tasks/task.h"

struct receiver {
    tram_actor actor; /* first */
    tram_task *task;  /* held */
    struct future_watch end;
    struct mail *first, *last;
    struct delivered current;   /* what the task has received last */
    struct task_wait *waiter;   /* NULL: the task does not wait in here */
    const struct mail *sampled; /* NULL: none of those that wait */
    uint64_t sampled_ns;
};

const tram_message_type tram_ended_message = {.name = "ended"};

/* Of a node that tells of an end: it is no message of anybody's, and never posted. */
static const struct mail_kind ended_kind = {0};

static struct receiver *receiver_of(tram_actor *actor) {
    return (struct receiver *)actor;
}

static tram_loop *loop_of(const struct receiver *receiver) {
    return receiver->task->future.loop;
}

/* ---- The queue ---- */

static void put(struct receiver *receiver, struct mail *mail) {
    mail->entry.next = NULL;
    if (receiver->first)
        receiver->last->entry.next = &mail->entry;
    else
        receiver->first = mail;
    receiver->last = mail;
    if (receiver->waiter)
        task_wake(receiver->waiter);
}

static struct mail *get(struct receiver *receiver) {
    struct mail *mail = receiver->first;
    receiver->first = mail->entry.next ? mail_of(mail->entry.next) : NULL;
    return mail;
}

/* Counts are those of an address, which is gone once the actor is stopped. */
static struct addressee *addressee_at_slot(const struct receiver *receiver, uint32_t slot) {
    return addressee_at(actors_present(loop_of(receiver))->here, slot);
}

/* A copy, but a request's own node; NULL: out of memory. */
static struct mail *keep(tram_loop *loop, tram_message *message) {
    if (message->reserved)
        return (struct mail *)(void *)tram_message_take_request(message);
    struct mail *came = mail_of_message(message), *kept = tram__mail_new_own(loop->mailbox, came->kind);
    if (likely(kept != NULL))
        memcpy(kept->payload, came->payload, sizeof kept->payload);
    return kept;
}

static enum delivery deliver(tram_loop *loop, void *target, tram_message *message) {
    struct actor_record *record = target;
    struct receiver *receiver = receiver_of(record->actor);
    struct mail *mail = keep(loop, message);
    if (unlikely(!mail)) {
        tram_error error = {.code = -ENOMEM, .operation = "receive", .detail = tram_task_name(receiver->task)};
        tram_exception exception = {.message = "a message to a task was dropped", .error = &error, .fd = -1};
        tram__report(loop, &exception);
        return MESSAGE_UNWANTED;
    }
    uint64_t sampled_ns = actors_present(loop)->sampled_ns;
    if (unlikely(sampled_ns && !receiver->sampled)) {
        receiver->sampled = mail;
        receiver->sampled_ns = sampled_ns;
    }
    addressee_at_slot(receiver, record->slot)->queued++;
    put(receiver, mail);
    return MESSAGE_KEPT;
}

static void ended(tram_actor *actor, struct mail *mail, tram_address who, int reason) {
    struct envelope *envelope = envelope_of(mail);
    *envelope = (struct envelope){.message = {.type = &tram_ended_message, .tag = (uint32_t)reason}};
    memcpy(envelope->message.bytes, &who, sizeof who);
    mail->kind = &ended_kind;
    put(receiver_of(actor), mail);
}

/* ---- Receiving ---- */

/* The task is done with what it received last. */
static void finish_current(struct receiver *receiver) {
    struct mail *request = receiver->current.mail;
    message_destroy(&receiver->current.message);
    receiver->current = (struct delivered){0};
    if (request)
        tram_reply_error((tram_request *)(void *)request, -ENOTSUP);
}

static tram_message *take(struct receiver *receiver) {
    tram_loop *loop = loop_of(receiver);
    struct mail *mail = get(receiver);
    const struct envelope *envelope = envelope_of(mail);
    bool is_request = envelope->message.reserved;
    receiver->current = (struct delivered){envelope->message, is_request ? mail : NULL};
    if (mail->kind != &ended_kind) {
        struct addressee *addressee = addressee_at_slot(receiver, envelope->slot);
        addressee->queued--;
        addressee->delivered++;
        if (unlikely(mail == receiver->sampled)) {
            receiver->sampled = NULL;
            sample_end(loop, addressee, receiver->sampled_ns);
        }
        stats_add(&loop->stats.messages, 1);
        tram__message_unkept(loop, mail, envelope->slot);
    }
    if (!is_request)
        tram__mail_free(loop->mailbox, mail);
    return &receiver->current.message;
}

struct receive_wait {
    struct task_wait wait;
    struct deadline deadline;
};

static void abandon(struct task_wait *wait) {
    deadline_cancel(wait->task->future.loop, &container_of(wait, struct receive_wait, wait)->deadline);
}

static const struct wait_kind receive_kind = {.name = "message", .abandon = abandon};

static void time_is_over(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    task_wake(&container_of(deadline, struct receive_wait, deadline)->wait);
}

/* Until something came. */
static int await_message(struct receiver *receiver, uint64_t timeout_ns, const void *where) {
    tram_loop *loop = loop_of(receiver);
    struct receive_wait self = {.deadline.expire = time_is_over, .deadline.timer.place = TIMER_IDLE};
    if (!actor_alive(&receiver->actor))
        return TRAM_ECANCELLED;
    if (timeout_ns == 0)
        return TRAM_ETIMEOUT;
    int status = timeout_ns == TRAM_FOREVER ? 0 : tram__deadline_start_after(loop, &self.deadline, timeout_ns);
    if (unlikely(status))
        return status;
    wait_init(&self.wait, &receive_kind, where);
    receiver->waiter = &self.wait;
    status = tram__task_park(&self.wait);
    receiver->waiter = NULL;
    abandon(&self.wait);
    if (status || receiver->first)
        return status;
    return actor_alive(&receiver->actor) ? TRAM_ETIMEOUT : TRAM_ECANCELLED;
}

/* ---- The end ---- */

static void drop_message(struct receiver *receiver, struct mail *mail) {
    tram_loop *loop = loop_of(receiver);
    struct envelope *envelope = envelope_of(mail);
    bool is_request = envelope->message.reserved;
    message_drop(&envelope->message);
    if (mail->kind != &ended_kind) {
        stats_add(&loop->stats.dropped_messages, 1);
        tram__message_unkept(loop, mail, envelope->slot);
    }
    if (is_request)
        tram_reply_error((tram_request *)(void *)mail, -ESRCH);
    else
        tram__mail_free(loop->mailbox, mail);
}

static bool task_is_done(const struct receiver *receiver) {
    return receiver->task->future.state != FUTURE_PENDING;
}

/* Nothing comes any more, and nobody receives what is there. */
static bool stopping(tram_actor *actor) {
    struct receiver *receiver = receiver_of(actor);
    while (receiver->first)
        drop_message(receiver, get(receiver));
    if (task_is_done(receiver))
        return false;
    tram__task_request(receiver->task);
    return true;
}

static int reason_of(const tram_future *future) {
    if (future->state == FUTURE_CANCELLED)
        return TRAM_ECANCELLED;
    return future->state == FUTURE_ERROR ? future->error.code : 0;
}

static void task_ended(tram_loop *loop, struct ready *ready) {
    struct receiver *receiver = container_of(ready, struct receiver, end.ready);
    struct actor_record *record = receiver->actor.record;
    (void)loop;
    if (actor_alive(&receiver->actor))
        tram__actor_stop(record, reason_of(&receiver->task->future));
    else if (!actor_is_ending(record))
        tram__actor_ended(record);
}

static void receiver_free(struct receiver *receiver) {
    tram_task *task = receiver->task;
    memory_put(&task->future.loop->allocator, receiver, sizeof *receiver);
    task->receiver = NULL;
    tram__future_drop(&task->future);
}

/* The loop may have closed, and the task not have ended. */
static void stopped(tram_actor *actor, int reason) {
    struct receiver *receiver = receiver_of(actor);
    (void)reason;
    finish_current(receiver);
    future_unwatch(&receiver->end);
    receiver_free(receiver);
}

static const tram_actor_ops receiver_ops = {.stopped = stopped};
static const struct actor_kind receiver_kind = {.deliver = deliver, .ended = ended, .stopping = stopping};

/* ---- The beginning ---- */

static int receiver_new(tram_task *task) {
    tram_loop *loop = task->future.loop;
    struct receiver *receiver = tram__memory_get_zero(&loop->allocator, sizeof *receiver);
    if (!receiver)
        return -ENOMEM;
    receiver->actor.ops = &receiver_ops;
    receiver->task = task;
    task->receiver = receiver;
    tram__future_hold(&task->future);
    int status = tram__actor_start(loop, &receiver->actor, &receiver_kind);
    if (status)
        receiver_free(receiver);
    else
        tram__future_watch(&task->future, &receiver->end, task_ended);
    return status;
}

int tram_task_actor(tram_task *task, tram_actor **ret_actor) {
    if (!task)
        task = tram__task_current;
    if (!task)
        return TRAM_ESTATE;
    int status = loop_enter_open(task->future.loop, __func__);
    if (status)
        return status;
    if (!ret_actor)
        return tram__invalid("ret_actor");
    if (task->future.state != FUTURE_PENDING || (task->receiver && !actor_alive(&task->receiver->actor)))
        return TRAM_ESTATE;
    status = task->receiver ? 0 : receiver_new(task);
    if (!status)
        *ret_actor = &task->receiver->actor;
    return status;
}

int tram_task_receive(uint64_t timeout_ns, tram_message **ret_message) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    if (unlikely(!ret_message))
        return tram__invalid("ret_message");
    tram_task *task = tram__task_current;
    status = likely(task->receiver != NULL) ? 0 : receiver_new(task);
    if (unlikely(status))
        return status;
    struct receiver *receiver = task->receiver;
    finish_current(receiver);
    status = receiver->first ? 0 : await_message(receiver, timeout_ns, __builtin_return_address(0));
    if (likely(!status))
        *ret_message = take(receiver);
    return status;
}
