#include "core/actors/requests.h"

#include <errno.h>
#include <string.h>

#include "core/actors/actors.h"
#include "core/actors/message.h"

static struct request *request_of(tram_future *future) {
    return (struct request *)(void *)future;
}

static void stop_deadline(struct request *request) {
    if (request->timed)
        deadline_cancel(request->future.loop, &request->deadline);
    request->timed = false;
}

/* ---- The future ---- */

/* Its number stays with the node that is out. */
static void cancel(tram_future *future) {
    stop_deadline(request_of(future));
    tram__future_finish_cancelled(future);
}

static void destroy(tram_future *future) {
    message_destroy(&request_of(future)->reply);
}

static void recycle(tram_future *future) {
    pool_put(&actors_present(future->loop)->requests.pool, request_of(future));
}

static const struct future_kind message_kind = {
    .name = "request", .cancel = cancel, .destroy = destroy, .recycle = recycle};
static const struct future_kind pointer_kind = {.name = "submitted work", .cancel = cancel, .recycle = recycle};

tram_message *tram_future_message(const tram_future *future) {
    void *value;
    if (!future || future->kind != &message_kind || future->state != FUTURE_RESULT ||
        tram_future_result(future, &value))
        return NULL;
    return value;
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
    requests->slots[number] = (struct request_slot){.next_free = requests->free};
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
    request->timed = false;
    if (timeout_ns == TRAM_FOREVER)
        return 0;
    request->deadline = (struct deadline){.expire = expire};
    int status = tram__deadline_start_after(request->future.loop, &request->deadline, timeout_ns);
    request->timed = status == 0;
    return status;
}

int tram__request_new(struct requests *requests, enum request_value value, uint64_t timeout_ns,
                      struct request **ret_request) {
    uint32_t number = number_new(requests);
    struct request *request = number ? pool_get(&requests->pool) : NULL;
    if (!request) {
        if (number)
            number_free(requests, number);
        return -ENOMEM;
    }
    tram__future_init(&request->future, requests->loop, value == REQUEST_MESSAGE ? &message_kind : &pointer_kind);
    request->number = number;
    message_clear(&request->reply); /* until there is one */
    int status = start_deadline(request, timeout_ns);
    if (status) {
        number_free(requests, number);
        pool_put(&requests->pool, request);
        return status;
    }
    request->future.references = 2;
    requests->slots[number].request = request;
    *ret_request = request;
    return 0;
}

void tram__request_undo(struct requests *requests, struct request *request) {
    stop_deadline(request);
    number_free(requests, request->number);
    pool_put(&requests->pool, request);
}

static void finish(struct request *request, int status, tram_message *message) {
    if (status < 0) {
        tram__future_fail_code(&request->future, status, request->future.kind->name);
        return;
    }
    bool whole = request->future.kind == &message_kind;
    request->reply = *message;
    request->reply.reserved = 0;
    message_clear(message);
    tram__future_finish(&request->future, whole ? (void *)&request->reply : request->reply.data);
}

void tram__request_answered(struct requests *requests, uint32_t number, int status, tram_message *message) {
    struct request *request = requests->slots[number].request;
    number_free(requests, number);
    stop_deadline(request);
    if (request->future.state == FUTURE_PENDING)
        finish(request, status, message);
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
