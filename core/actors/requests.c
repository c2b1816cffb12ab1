#include "core/actors/requests.h"

#include <errno.h>
#include <string.h>

#include "core/actors/actors.h"

static struct request *request_of(tram_future *future) {
    return (struct request *)(void *)future;
}

static void stop_deadline(struct request *request) {
    if (likely(!request->timed))
        return;
    deadline_cancel(request->future.loop, &request->deadline);
    request->timed = false;
}

/* ---- The future ---- */

/* Its number stays with the node that is out. */
static void cancel(tram_future *future) {
    stop_deadline(request_of(future));
    tram__future_finish_cancelled(future);
}

static void recycle(tram_future *future) {
    pool_put(&actors_present(future->loop)->requests.pool, request_of(future));
}

static void recycle_with_reply(tram_future *future) {
    message_destroy(&request_of(future)->reply);
    recycle(future);
}

static const struct future_kind message_kind = {.name = "request", .cancel = cancel, .recycle = recycle_with_reply};
static const struct future_kind pointer_kind = {.name = "submitted work", .cancel = cancel, .recycle = recycle};

tram_message *tram_future_message(const tram_future *future) {
    if (!future || future->kind != &message_kind || future->state != FUTURE_RESULT || future_enter(future, __func__))
        return NULL;
    return future->value;
}

/* ---- Numbers ---- */

static bool grow(struct requests *requests) {
    uint32_t capacity = requests->capacity ? requests->capacity * 2 : 64;
    struct request_slot *slots = memory_get(&requests->loop->allocator, capacity * sizeof *slots);
    if (!slots)
        return false;
    if (requests->count)
        memcpy(slots, requests->slots, requests->count * sizeof *slots);
    else
        requests->count = 1; /* 0 is no request */
    memory_put(&requests->loop->allocator, requests->slots, requests->capacity * sizeof *slots);
    requests->slots = slots;
    requests->capacity = capacity;
    return true;
}

static uint32_t number_new(struct requests *requests) {
    uint32_t number = requests->free;
    if (likely(number)) {
        requests->free = requests->slots[number].next_free;
        return number;
    }
    if (requests->count == requests->capacity && !grow(requests))
        return 0;
    return requests->count++;
}

static void number_free(struct requests *requests, uint32_t number) {
    requests->slots[number].request = NULL;
    requests->slots[number].next_free = requests->free;
    requests->free = number;
}

/* ---- Requests ---- */

void tram__requests_init(struct requests *requests, tram_loop *loop) {
    requests->loop = loop;
    tram__pool_init(&requests->pool, &loop->allocator, sizeof(struct request));
}

void tram__requests_fini(struct requests *requests) {
    memory_put(&requests->loop->allocator, requests->slots, requests->capacity * sizeof *requests->slots);
    tram__pool_fini(&requests->pool);
}

static void expire(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct request *request = container_of(deadline, struct request, deadline);
    request->timed = false;
    tram__future_fail_code(&request->future, TRAM_ETIMEOUT, "request");
}

static int start_deadline(struct request *request, uint64_t timeout_ns) {
    request->deadline = (struct deadline){.expire = expire};
    int status = tram__deadline_start_after(request->future.loop, &request->deadline, timeout_ns);
    request->timed = status == 0;
    return status;
}

/* Without memory for the one the other is given back. */
static struct request *get(struct requests *requests) {
    uint32_t number = number_new(requests);
    if (unlikely(!number))
        return NULL;
    struct request *request = pool_get(&requests->pool);
    if (unlikely(!request)) {
        number_free(requests, number);
        return NULL;
    }
    requests->slots[number].request = request;
    request->number = number;
    return request;
}

static void put(struct requests *requests, struct request *request) {
    number_free(requests, request->number);
    pool_put(&requests->pool, request);
}

int tram__request_new(struct requests *requests, enum request_value value, uint64_t timeout_ns,
                      struct request **ret_request) {
    struct request *request = get(requests);
    if (unlikely(!request))
        return -ENOMEM;
    tram__future_init(&request->future, requests->loop, value == REQUEST_MESSAGE ? &message_kind : &pointer_kind);
    request->future.references = 2;
    request->timed = false;
    message_clear(&request->reply); /* until there is one */
    int status = timeout_ns == TRAM_FOREVER ? 0 : start_deadline(request, timeout_ns);
    if (unlikely(status)) {
        put(requests, request);
        return status;
    }
    *ret_request = request;
    return 0;
}

void tram__request_undo(struct requests *requests, struct request *request) {
    stop_deadline(request);
    put(requests, request);
}

static inline void finish(struct request *request, struct envelope *envelope) {
    int status = (int32_t)envelope->slot;
    if (unlikely(status < 0)) {
        tram__future_fail_code(&request->future, status, request->future.kind->name);
        return;
    }
    bool whole = request->future.kind == &message_kind;
    request->reply = envelope->message;
    request->reply.reserved = 0;
    tram__future_finish(&request->future, whole ? (void *)&request->reply : request->reply.data);
}

void tram__request_answered(struct requests *requests, struct envelope *envelope) {
    uint32_t number = envelope->message.reserved;
    struct request *request = requests->slots[number].request;
    number_free(requests, number);
    stop_deadline(request);
    if (likely(request->future.state == FUTURE_PENDING))
        finish(request, envelope);
    else
        message_drop(&envelope->message); /* nobody waits for it any more */
    tram__future_drop(&request->future);
}

void tram__requests_abandon(struct requests *requests) {
    for (uint32_t number = 1; number < requests->count; number++) {
        struct request *request = requests->slots[number].request;
        if (!request)
            continue;
        requests->slots[number].request = NULL;
        cancel(&request->future);
        tram__future_drop(&request->future);
    }
}
