#include "core/actors/requests.h"

#include <errno.h>
#include <string.h>

#include "core/actors/actors.h"

static struct request *request_of(tram_future *future) {
    return (struct request *)(void *)future;
}

static void stop_deadline(struct request *request) {
    if (likely(!(request->future.marks & REQUEST_TIMED)))
        return;
    deadline_cancel(request->future.loop, &request->deadline);
    request->future.marks &= (uint8_t)~REQUEST_TIMED;
}

/* ---- Groups ---- */

#define ALL_ENDED   ((UINT64_C(1) << REQUESTS_PER_GROUP) - 1)
#define GROUP_BYTES (sizeof(struct request_group) + 63)

static inline struct request_group *group_of(const struct requests *requests, uint32_t number) {
    return requests->groups[number / 64];
}

/* The first of it has ended, or the last. */
__attribute__((noinline)) static void file_group(struct requests *requests, struct request_group *group) {
    bool whole = group->ended == ALL_ENDED;
    if (whole)
        list_remove(&group->link);
    list_append(whole ? &requests->whole : &requests->parts, &group->link);
}

static inline void put(struct request *request) {
    uint32_t i = request->future.number % 64;
    struct request_group *group = container_of(request - i, struct request_group, requests);
    uint64_t before = group->ended;
    group->ended = before | UINT64_C(1) << i;
    if (unlikely(!before || group->ended == ALL_ENDED))
        file_group(&actors_present(request->future.loop)->requests, group);
}

static bool grow_groups(struct requests *requests) {
    const tram_allocator *allocator = &requests->loop->allocator;
    uint32_t capacity = requests->capacity ? requests->capacity * 2 : 8;
    struct request_group **groups = memory_get(allocator, capacity * sizeof(struct request_group *));
    if (!groups)
        return false;
    if (requests->count)
        memcpy(groups, requests->groups, requests->count * sizeof *groups);
    else
        requests->count = 1; /* number 0 is no request */
    memory_put(allocator, requests->groups, requests->capacity * sizeof *groups);
    requests->groups = groups;
    requests->capacity = capacity;
    return true;
}

/* NULL: out of memory. */
static struct request_group *new_group(struct requests *requests) {
    if (requests->count >= requests->capacity && !grow_groups(requests))
        return NULL;
    void *memory = memory_get(&requests->loop->allocator, GROUP_BYTES);
    if (!memory)
        return NULL;
    struct request_group *group = (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    group->nodes = tram__mail_new_run(requests->loop->mailbox);
    if (!group->nodes) {
        memory_put(&requests->loop->allocator, memory, GROUP_BYTES);
        return NULL;
    }
    group->memory = memory;
    group->index = requests->count++;
    requests->groups[group->index] = group;
    group->ended = ALL_ENDED;
    list_init(&group->link);
    for (uint32_t i = 0; i < REQUESTS_PER_GROUP; i++) {
        tram__future_init(&group->requests[i].future, requests->loop, &tram__request_of_message);
        group->requests[i].future.number = group->index * 64 + i;
    }
    return group;
}

/* A whole group if there is one, the last first, whose memory is in the cache; else what has ended of another. */
bool tram__requests_more(struct requests *requests) {
    struct request_group *group;
    if (!list_empty(&requests->whole))
        group = container_of(requests->whole.previous, struct request_group, link);
    else if (!list_empty(&requests->parts))
        group = container_of(requests->parts.next, struct request_group, link);
    else
        group = new_group(requests);
    if (!group)
        return false;
    list_remove(&group->link);
    requests->current = group;
    requests->nodes = group->nodes;
    requests->first = group->index * 64;
    requests->unused = group->ended;
    group->ended = 0;
    return true;
}

/* ---- The future ---- */

/* Its node stays out. */
static void cancel(tram_future *future) {
    stop_deadline(request_of(future));
    tram__future_finish_cancelled(future);
}

static inline void recycle(tram_future *future) {
    if (likely(!(future->marks & REQUEST_ABANDONED)))
        put(request_of(future));
}

static void recycle_with_reply(tram_future *future) {
    if (likely(future->state == FUTURE_RESULT))
        message_destroy(future->value);
    recycle(future);
}

const struct future_kind tram__request_of_message = {
    .name = "request", .cancel = cancel, .recycle = recycle_with_reply};
const struct future_kind tram__request_of_pointer = {.name = "submitted work", .cancel = cancel, .recycle = recycle};

__attribute__((noinline)) static tram_message *message_checked(const tram_future *future, const char *function) {
    return future_enter(future, function) ? NULL : future->value;
}

tram_message *tram_future_message(const tram_future *future) {
    if (unlikely(!future || future->kind != &tram__request_of_message || future->state != FUTURE_RESULT))
        return NULL;
    return loop_is_plain(future->loop) ? future->value : message_checked(future, __func__);
}

/* ---- Requests ---- */

void tram__requests_init(struct requests *requests, tram_loop *loop) {
    requests->loop = loop;
    list_init(&requests->whole);
    list_init(&requests->parts);
}

/* Nodes that are out in a forked child are the parent's. */
static void free_group(tram_loop *loop, struct request_group *group) {
    for (uint32_t i = 0; i < REQUESTS_PER_GROUP; i++)
        if (!(group->requests[i].future.marks & (REQUEST_OUT | REQUEST_ABANDONED)))
            tram__mail_free(loop->mailbox, &group->nodes[i]);
    memory_put(&loop->allocator, group->memory, GROUP_BYTES);
}

void tram__requests_fini(struct requests *requests) {
    tram_loop *loop = requests->loop;
    for (uint32_t index = 1; index < requests->count; index++)
        free_group(loop, requests->groups[index]);
    memory_put(&loop->allocator, requests->groups, requests->capacity * sizeof *requests->groups);
}

static void expire(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct request *request = container_of(deadline, struct request, deadline);
    request->future.marks &= (uint8_t)~REQUEST_TIMED;
    tram__future_fail_code(&request->future, TRAM_ETIMEOUT, "request");
}

int tram__request_start_deadline(struct request *request, uint64_t timeout_ns) {
    request->deadline = (struct deadline){.expire = expire};
    int status = tram__deadline_start_after(request->future.loop, &request->deadline, timeout_ns);
    if (!status)
        request->future.marks |= REQUEST_TIMED;
    return status;
}

void tram__request_undo(struct request *request) {
    stop_deadline(request);
    request->future.marks = 0;
    put(request);
}

/* It comes late, or failed, or its value is no message, or it is not one callback that waits for it. */
__attribute__((noinline)) static void answered(struct request *request, struct envelope *envelope) {
    int status = (int32_t)envelope->slot;
    stop_deadline(request);
    request->future.marks = 0;
    if (request->future.state != FUTURE_PENDING)
        message_drop(&envelope->message);
    else if (status < 0)
        tram__future_fail_code(&request->future, status, request->future.kind->name);
    else if (request->future.kind == &tram__request_of_message)
        tram__future_finish(&request->future, &envelope->message);
    else
        tram__future_finish(&request->future, envelope->message.data);
    tram__future_drop(&request->future);
}

void tram__request_answered(struct requests *requests, struct mail *mail) {
    struct envelope *envelope = envelope_of(mail);
    uint32_t number = envelope->message.reserved;
    struct request *request = &group_of(requests, number)->requests[number % 64];
    KEEP_POINTER(request);
    envelope->message.reserved = 0;
    if (likely(request->future.marks == REQUEST_OUT && future_waits_simply(&request->future) &&
               request->future.kind == &tram__request_of_message && (int32_t)envelope->slot >= 0)) {
        request->future.marks = 0;
        future_finish_simply(&request->future, &envelope->message);
    } else {
        answered(request, envelope);
    }
}

static void abandon(struct request *request) {
    if (!(request->future.marks & REQUEST_OUT))
        return;
    cancel(&request->future);
    request->future.marks = REQUEST_ABANDONED;
    tram__future_drop(&request->future);
}

void tram__requests_abandon(struct requests *requests) {
    for (uint32_t index = 1; index < requests->count; index++)
        for (uint32_t i = 0; i < REQUESTS_PER_GROUP; i++)
            abandon(&requests->groups[index]->requests[i]);
}
