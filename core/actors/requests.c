#include "core/actors/requests.h"

#include <errno.h>
#include <string.h>

#include "core/actors/actors.h"

static struct request *request_of(tram_future *future) {
    return (struct request *)(void *)future;
}

/* Marks of its future. */
#define OUT   1 /* the node has not come back */
#define TIMED 2 /* the deadline runs */

static void stop_deadline(struct request *request) {
    if (likely(!(request->future.marks & TIMED)))
        return;
    deadline_cancel(request->future.loop, &request->deadline);
    request->future.marks &= (uint8_t)~TIMED;
}

/* ---- Those that are free ---- */

#define BATCH     64
#define PER_CHUNK 10 /* 4 KiB */

struct request_chunk {
    _Alignas(64) struct request requests[PER_CHUNK];
    struct request_chunk *next;
    void *memory;
};

#define CHUNK_BYTES (sizeof(struct request_chunk) + 63)

static inline struct request *next_of(const struct request *request) {
    return request->future.user;
}

/* Of the first of a batch: the next batch. */
static inline struct request **next_batch(struct request *request) {
    return (struct request **)(void *)&request->future.callbacks.next;
}

static inline void put(struct requests *requests, struct request *request, struct mail *mail) {
    request->future.value = mail;
    request->future.user = NULL;
    if (requests->ended)
        requests->ended_last->future.user = request;
    else
        requests->ended = request;
    requests->ended_last = request;
    if (likely(++requests->ended_count < BATCH))
        return;
    *next_batch(requests->ended) = requests->batches;
    requests->batches = requests->ended;
    requests->ended = NULL;
    requests->ended_count = 0;
}

static bool grow_numbers(struct requests *requests) {
    const tram_allocator *allocator = &requests->loop->allocator;
    uint32_t capacity = requests->capacity ? requests->capacity * 2 : 64;
    struct request **by_number = memory_get(allocator, capacity * sizeof(struct request *));
    if (!by_number)
        return false;
    if (requests->count)
        memcpy(by_number, requests->by_number, requests->count * sizeof *by_number);
    else
        requests->count = 1; /* 0 is no request */
    memory_put(allocator, requests->by_number, requests->capacity * sizeof *by_number);
    requests->by_number = by_number;
    requests->capacity = capacity;
    return true;
}

/* A new one, with a number and a node. */
static bool add(struct requests *requests, struct request *request) {
    if (requests->count >= requests->capacity && !grow_numbers(requests))
        return false;
    struct mail *mail = tram__mail_new_own(requests->loop->mailbox, NULL);
    if (!mail)
        return false;
    request->mail = mail;
    request->future.marks = 0;
    request->future.number = requests->count;
    requests->by_number[requests->count++] = request;
    put(requests, request, mail);
    return true;
}

/* As many as memory is there for. */
static void grow(struct requests *requests) {
    void *memory = memory_get(&requests->loop->allocator, CHUNK_BYTES);
    if (!memory)
        return;
    struct request_chunk *chunk = (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    chunk->memory = memory;
    chunk->next = requests->chunks;
    requests->chunks = chunk;
    for (unsigned i = 0; i < PER_CHUNK && add(requests, &chunk->requests[i]); i++)
        ;
}

__attribute__((noinline)) static struct request *more(struct requests *requests) {
    if (!requests->batches && !requests->ended)
        grow(requests);
    struct request *first = requests->batches;
    if (first) {
        requests->batches = *next_batch(first);
    } else {
        first = requests->ended;
        requests->ended = NULL;
        requests->ended_count = 0;
    }
    return first;
}

static inline struct request *get(struct requests *requests) {
    struct request *request = likely(requests->free != NULL) ? requests->free : more(requests);
    if (likely(request != NULL))
        requests->free = next_of(request);
    return request;
}

/* ---- The future ---- */

/* Its node stays out. */
static void cancel(tram_future *future) {
    stop_deadline(request_of(future));
    tram__future_finish_cancelled(future);
}

static void recycle(tram_future *future) {
    struct request *request = request_of(future);
    if (likely(request->mail != NULL))
        put(&actors_present(future->loop)->requests, request, request->mail);
}

static void recycle_with_reply(tram_future *future) {
    tram_message *reply = future->value;
    if (unlikely(!reply)) {
        recycle(future);
        return;
    }
    message_destroy(reply);
    put(&actors_present(future->loop)->requests, request_of(future),
        mail_of_envelope(container_of(reply, struct envelope, message)));
}

static const struct future_kind message_kind = {.name = "request", .cancel = cancel, .recycle = recycle_with_reply};
static const struct future_kind pointer_kind = {.name = "submitted work", .cancel = cancel, .recycle = recycle};

tram_message *tram_future_message(const tram_future *future) {
    if (!future || future->kind != &message_kind || future->state != FUTURE_RESULT || future_enter(future, __func__))
        return NULL;
    return future->value;
}

/* ---- Requests ---- */

void tram__requests_init(struct requests *requests, tram_loop *loop) {
    requests->loop = loop;
}

void tram__requests_fini(struct requests *requests) {
    tram_loop *loop = requests->loop;
    for (uint32_t number = 1; number < requests->count; number++) {
        struct request *request = requests->by_number[number];
        if (request->mail && !(request->future.marks & OUT)) /* out in a forked child: the parent's */
            tram__mail_free(loop->mailbox, request->mail);
    }
    memory_put(&loop->allocator, requests->by_number, requests->capacity * sizeof(struct request *));
    for (struct request_chunk *chunk = requests->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        memory_put(&loop->allocator, chunk->memory, CHUNK_BYTES);
    }
}

static void expire(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct request *request = container_of(deadline, struct request, deadline);
    request->future.marks &= (uint8_t)~TIMED;
    tram__future_fail_code(&request->future, TRAM_ETIMEOUT, "request");
}

static int start_deadline(struct request *request, uint64_t timeout_ns) {
    request->deadline = (struct deadline){.expire = expire};
    int status = tram__deadline_start_after(request->future.loop, &request->deadline, timeout_ns);
    if (!status)
        request->future.marks |= TIMED;
    return status;
}

int tram__request_new(struct requests *requests, enum request_value value, uint64_t timeout_ns,
                      struct request **ret_request, struct mail **ret_mail) {
    struct request *request = get(requests);
    if (unlikely(!request))
        return -ENOMEM;
    struct mail *mail = request->future.value;
    tram__future_init(&request->future, requests->loop, value == REQUEST_MESSAGE ? &message_kind : &pointer_kind);
    request->future.references = 2;
    request->future.marks = OUT;
    int status = timeout_ns == TRAM_FOREVER ? 0 : start_deadline(request, timeout_ns);
    if (unlikely(status)) {
        tram__request_undo(requests, request);
        return status;
    }
    *ret_mail = mail;
    *ret_request = request;
    return 0;
}

void tram__request_undo(struct requests *requests, struct request *request) {
    stop_deadline(request);
    request->future.marks = 0;
    put(requests, request, request->mail);
}

static inline void finish(struct request *request, struct envelope *envelope) {
    int status = (int32_t)envelope->slot;
    if (unlikely(status < 0)) {
        tram__future_fail_code(&request->future, status, request->future.kind->name);
        return;
    }
    bool whole = likely(request->future.kind == &message_kind);
    envelope->message.reserved = 0;
    tram__future_finish(&request->future, whole ? (void *)&envelope->message : envelope->message.data);
}

void tram__request_answered(struct requests *requests, struct mail *mail) {
    struct envelope *envelope = envelope_of(mail);
    struct request *request = requests->by_number[envelope->message.reserved];
    stop_deadline(request);
    request->future.marks = 0;
    if (likely(request->future.state == FUTURE_PENDING))
        finish(request, envelope);
    else
        message_drop(&envelope->message); /* nobody waits for it any more */
    tram__future_drop(&request->future);
}

void tram__requests_abandon(struct requests *requests) {
    for (uint32_t number = 1; number < requests->count; number++) {
        struct request *request = requests->by_number[number];
        if (!(request->future.marks & OUT))
            continue;
        cancel(&request->future);
        request->future.marks = 0;
        request->mail = NULL;
        tram__future_drop(&request->future);
    }
}
