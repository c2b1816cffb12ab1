#include "transports/base/write_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/base/buffer.h"
#include "transports/base/chunks.h"
#include "transports/base/state.h"

struct chunk {
    struct chunk *next;
    const char *data;    /* the first byte not sent yet */
    size_t size;         /* bytes not sent yet */
    tram_buffer *buffer; /* whose bytes they are; NULL: copied behind this header */
    uint32_t capacity;   /* of the bytes behind the header; 0 for a reference */
    uint32_t fd_count;   /* descriptors that go with the first byte; they are at the front of `bytes` */
    char bytes[];
};

static struct chunk *chunk_new(tram_loop *loop, size_t wanted) {
    size_t size = CHUNK_LARGE; /* the rest goes into more of them */
    if (wanted < CHUNK_LARGE - sizeof(struct chunk))
        size = sizeof(struct chunk) + wanted;
    struct chunk *chunk = tram__chunk_get(loop, &size);
    if (chunk)
        *chunk = (struct chunk){.data = chunk->bytes, .capacity = (uint32_t)(size - sizeof *chunk)};
    return chunk;
}

/* With room for `wanted` bytes, in all at least of `least`. */
static struct chunk *chunk_in_one_piece(tram_loop *loop, size_t wanted, size_t least) {
    size_t size = sizeof(struct chunk);
    if (wanted > UINT32_MAX - size)
        return NULL;
    size += wanted;
    size = MAX(size, least);
    struct chunk *chunk = tram__chunk_get(loop, &size);
    if (chunk)
        *chunk = (struct chunk){.data = chunk->bytes, .capacity = (uint32_t)(size - sizeof *chunk)};
    return chunk;
}

/* They were sent, or never will be. */
static void close_descriptors(tram_loop *loop, struct chunk *chunk) {
    const int *fds = (const int *)(void *)chunk->bytes;
    for (uint32_t i = 0; i < chunk->fd_count; i++)
        loop->sys->close(fds[i]);
    chunk->fd_count = 0;
}

/*
 * ---- Shared buffers that were sent, or never will be ----
 *
 * The release function of a buffer may call anything. So it does not run while a queue is worked on, by whichever call
 * of a transport's, but when no such call is on the stack any more.
 */

static void give_back(struct spent_chunks *spent) {
    tram_buffer *held = spent->held;
    size_t count = spent->held_count;
    spent->held = NULL;
    spent->held_count = 0;
    if (held)
        tram__buffer_release(held, count);
}

static void release_spent(tram_loop *loop) {
    struct spent_chunks *spent = &transport_state(loop)->spent;
    struct chunk *chunk = spent->first;
    spent->first = NULL;
    spent->due = false;
    spent->releasing = true;
    while (chunk) {
        struct chunk *next = chunk->next;
        if (chunk->buffer != spent->held)
            give_back(spent);
        spent->held = chunk->buffer;
        spent->held_count++;
        memory_put(&loop->allocator, chunk, sizeof *chunk);
        chunk = next;
    }
    give_back(spent);
    spent->releasing = false;
}

static void release_run(tram_loop *loop, struct ready *ready) {
    (void)ready;
    release_spent(loop);
}

static void release_deferred(tram_loop *loop, struct deferred_free *deferred) {
    (void)deferred;
    release_spent(loop);
}

/* What a release function adds waits for the next tick, so that a tick ends. */
static void release_later(tram_loop *loop, struct spent_chunks *spent) {
    if (spent->due)
        return;
    spent->due = true;
    if (loop->in_tick && !spent->releasing) {
        tram__loop_free_later(loop, &spent->deferred, release_deferred);
    } else {
        spent->ready.run = release_run;
        loop_ready(loop, &spent->ready);
    }
}

static void spend(tram_loop *loop, struct chunk *chunk) {
    struct spent_chunks *spent = &transport_state(loop)->spent;
    chunk->next = NULL;
    if (spent->first)
        spent->last->next = chunk;
    else
        spent->first = chunk;
    spent->last = chunk;
    release_later(loop, spent);
}

/*
 * A reference for a queue. The count is a line that processors pull to and fro, and one buffer may go to thousands of
 * queues in a tick: so the tick takes references for all of them at once, and gives back what is left, and what was
 * sent meanwhile, at its end. Never the last ones before that: who queues has one.
 */
#define MANY ((size_t)1 << 24)

static tram_buffer *hold(tram_loop *loop, tram_buffer *buffer) {
    struct spent_chunks *spent = &transport_state(loop)->spent;
    if (!loop->in_tick || spent->releasing)
        return tram_buffer_hold(buffer);
    if (spent->held == buffer && spent->held_count) {
        spent->held_count--;
        return buffer;
    }
    give_back(spent);
    tram__buffer_hold(buffer, MANY);
    spent->held = buffer;
    spent->held_count = MANY - 1;
    release_later(loop, spent);
    return buffer;
}

static void chunk_free(tram_loop *loop, struct chunk *chunk) {
    if (unlikely(chunk->buffer != NULL))
        spend(loop, chunk);
    else
        tram__chunk_put(loop, chunk, sizeof *chunk + chunk->capacity);
}

static inline struct chunk *first_of(const struct write_queue *queue) {
    return queue->last ? queue->last->next : NULL;
}

/* The one behind it; NULL: it is the last. */
static inline struct chunk *next_of(const struct write_queue *queue, const struct chunk *chunk) {
    return chunk != queue->last ? chunk->next : NULL;
}

/* Appends a ring, of which this is the last one. */
static void append_ring(struct write_queue *queue, struct chunk *last) {
    if (queue->last) {
        struct chunk *first = last->next;
        last->next = queue->last->next;
        queue->last->next = first;
    }
    queue->last = last;
}

static void append(struct write_queue *queue, struct chunk *chunk) {
    chunk->next = chunk;
    append_ring(queue, chunk);
}

static void free_first(tram_loop *loop, struct write_queue *queue) {
    struct chunk *first = queue->last->next;
    if (first == queue->last)
        queue->last = NULL;
    else
        queue->last->next = first->next;
    chunk_free(loop, first);
}

void tram__write_queue_join(struct write_queue *queue, struct write_queue *added) {
    if (added->last)
        append_ring(queue, added->last);
    queue->size += added->size;
    *added = (struct write_queue){0};
}

/* How many bytes still fit behind those of the last chunk. */
static size_t room_in(const struct chunk *chunk) {
    return chunk->capacity ? (size_t)(chunk->bytes + chunk->capacity - (chunk->data + chunk->size)) : 0;
}

int tram__write_queue_copy(tram_loop *loop, struct write_queue *queue, const void *data, size_t size) {
    const char *from = data;
    if (unlikely(size > SIZE_MAX - queue->size))
        return -ENOMEM;
    while (size) {
        struct chunk *chunk = queue->last;
        if (!chunk || !room_in(chunk)) {
            chunk = chunk_new(loop, size);
            if (!chunk)
                return -ENOMEM;
            append(queue, chunk);
        }
        size_t part = MIN(room_in(chunk), size);
        memcpy(chunk->bytes + (chunk->data + chunk->size - chunk->bytes), from, part);
        chunk->size += part;
        queue->size += part;
        from += part;
        size -= part;
    }
    return 0;
}

char *tram__write_queue_room(const struct write_queue *queue, size_t *ret_room) {
    struct chunk *chunk = queue->last;
    *ret_room = chunk ? room_in(chunk) : 0;
    return *ret_room ? chunk->bytes + (chunk->data + chunk->size - chunk->bytes) : NULL;
}

char *tram__write_queue_reserve(tram_loop *loop, struct write_queue *queue, size_t size, size_t *ret_room) {
    struct chunk *chunk = chunk_in_one_piece(loop, size, queue->last ? CHUNK_LARGE : 0);
    if (!chunk)
        return NULL;
    append(queue, chunk);
    return tram__write_queue_room(queue, ret_room);
}

void tram__write_queue_filled(struct write_queue *queue, size_t size) {
    if (!size)
        return;
    queue->last->size += size;
    queue->size += size;
}

/* 0 or -errno, and then nothing was kept. */
static int copy_descriptors(tram_loop *loop, struct chunk *chunk, const int *fds, size_t count) {
    int *copies = (int *)(void *)chunk->bytes;
    for (; chunk->fd_count < count; chunk->fd_count++) {
        copies[chunk->fd_count] = loop->sys->fcntl(fds[chunk->fd_count], F_DUPFD_CLOEXEC, 0);
        if (copies[chunk->fd_count] < 0) {
            int status = -errno;
            close_descriptors(loop, chunk);
            return status;
        }
    }
    chunk->data = chunk->bytes + count * sizeof *fds;
    return 0;
}

int tram__write_queue_copy_with(tram_loop *loop, struct write_queue *queue, const void *data, size_t size,
                                const int *fds, size_t count) {
    struct chunk *chunk = chunk_new(loop, count * sizeof *fds + size);
    if (!chunk)
        return -ENOMEM;
    int status = copy_descriptors(loop, chunk, fds, count);
    if (status) {
        chunk_free(loop, chunk);
        return status;
    }
    struct write_queue added = {0};
    append(&added, chunk);
    status = tram__write_queue_copy(loop, &added, data, size);
    if (status)
        tram__write_queue_clear(loop, &added);
    else
        tram__write_queue_join(queue, &added);
    return status;
}

bool tram__write_queue_refer(tram_loop *loop, struct write_queue *queue, tram_buffer *buffer, size_t offset) {
    if (unlikely(tram_buffer_size(buffer) - offset > SIZE_MAX - queue->size))
        return false;
    struct chunk *chunk = memory_get(&loop->allocator, sizeof *chunk);
    if (!chunk)
        return false;
    *chunk = (struct chunk){
        .data = (const char *)tram_buffer_data(buffer) + offset,
        .size = tram_buffer_size(buffer) - offset,
        .buffer = hold(loop, buffer),
    };
    append(queue, chunk);
    queue->size += chunk->size;
    return true;
}

size_t tram__write_queue_gather(const struct write_queue *queue, struct iovec *pieces, size_t count) {
    size_t filled = 0;
    for (const struct chunk *chunk = first_of(queue); chunk && filled < count; chunk = next_of(queue, chunk)) {
        if (unlikely(chunk->fd_count && filled))
            break; /* they go with the first byte of a send */
        pieces[filled++] = (struct iovec){.iov_base = (void *)(uintptr_t)chunk->data, .iov_len = chunk->size};
    }
    return filled;
}

size_t tram__write_queue_descriptors(const struct write_queue *queue, const int **ret_fds) {
    const struct chunk *chunk = first_of(queue);
    if (!chunk || !chunk->fd_count)
        return 0;
    *ret_fds = (const int *)(const void *)chunk->bytes;
    return chunk->fd_count;
}

void tram__write_queue_consume(tram_loop *loop, struct write_queue *queue, size_t size) {
    queue->size -= size;
    while (size) {
        struct chunk *chunk = queue->last->next;
        if (unlikely(chunk->fd_count))
            close_descriptors(loop, chunk);
        if (size < chunk->size) {
            chunk->data += size;
            chunk->size -= size;
            return;
        }
        size -= chunk->size;
        free_first(loop, queue);
    }
}

void tram__write_queue_clear(tram_loop *loop, struct write_queue *queue) {
    tram__write_queue_consume(loop, queue, queue->size);
    if (unlikely(queue->last != NULL)) /* room that was reserved, and nothing came */
        free_first(loop, queue);
}

static void chunk_validate(const struct chunk *chunk) {
    TRAM_ASSERT(!chunk->buffer == (chunk->capacity != 0));
    TRAM_ASSERT(chunk->buffer || (chunk->data >= chunk->bytes + chunk->fd_count * sizeof(int) &&
                                  chunk->data + chunk->size <= chunk->bytes + chunk->capacity));
}

void tram__write_queue_validate(const struct write_queue *queue) {
    size_t size = 0;
    for (const struct chunk *chunk = first_of(queue); chunk; chunk = next_of(queue, chunk)) {
        chunk_validate(chunk);
        size += chunk->size;
        TRAM_ASSERT(size <= queue->size);
    }
    TRAM_ASSERT(size == queue->size);
}
