#include "transports/write_queue.h"

#include <errno.h>
#include <string.h>

#include "core/loop.h"

struct chunk {
    struct chunk *next;
    const char *data;    /* the first byte not sent yet */
    size_t size;         /* bytes not sent yet */
    tram_buffer *buffer; /* whose bytes they are; NULL: copied behind this header */
    size_t capacity;     /* of the bytes behind the header; 0 for a reference */
    char bytes[];
};

/* A rest of a few bytes should not cost 16 KiB, nor a large one many chunks. */
static const size_t chunk_sizes[2] = {2048, 16384};

static unsigned chunk_class(const struct chunk *chunk) {
    return sizeof *chunk + chunk->capacity > chunk_sizes[0];
}

static void cache_ending(struct seat *seat, enum io_ending ending) {
    if (ending != IO_ENDING_DROP)
        return;
    tram_loop *loop = container_of(seat, tram_loop, chunk_seat);
    list_remove(&seat->link);
    for (unsigned class = 0; class < 2; class ++) {
        struct chunk_cache *cache = &loop->chunk_cache[class];
        while (cache->free) {
            struct chunk *chunk = cache->free;
            cache->free = chunk->next;
            memory_put(&loop->allocator, chunk, chunk_sizes[class]);
        }
        cache->count = 0;
    }
}

static struct chunk *chunk_new(tram_loop *loop, size_t wanted) {
    unsigned class = sizeof(struct chunk) + wanted > chunk_sizes[0];
    struct chunk_cache *cache = &loop->chunk_cache[class];
    struct chunk *chunk = cache->free;
    if (chunk) {
        cache->free = chunk->next;
        cache->count--;
    } else {
        chunk = memory_get(&loop->allocator, chunk_sizes[class]);
        if (!chunk)
            return NULL;
    }
    *chunk = (struct chunk){.data = chunk->bytes, .capacity = chunk_sizes[class] - sizeof *chunk};
    return chunk;
}

static void chunk_free(tram_loop *loop, struct chunk *chunk) {
    if (chunk->buffer) {
        tram_buffer_release(chunk->buffer);
        memory_put(&loop->allocator, chunk, sizeof *chunk);
        return;
    }
    unsigned class = chunk_class(chunk);
    struct chunk_cache *cache = &loop->chunk_cache[class];
    if (cache->count >= TRAM_CHUNKS_KEPT || loop->closing) {
        memory_put(&loop->allocator, chunk, chunk_sizes[class]);
        return;
    }
    if (!loop->chunk_seat.ending)
        loop_seat(loop, &loop->chunk_seat, cache_ending);
    chunk->next = cache->free;
    cache->free = chunk;
    cache->count++;
}

static void append(struct write_queue *queue, struct chunk *chunk) {
    if (queue->last)
        queue->last->next = chunk;
    else
        queue->first = chunk;
    queue->last = chunk;
}

/* How many bytes still fit behind those of the last chunk. */
static size_t room_in(const struct chunk *chunk) {
    return chunk->capacity ? (size_t)(chunk->bytes + chunk->capacity - (chunk->data + chunk->size)) : 0;
}

int tram__write_queue_copy(tram_loop *loop, struct write_queue *queue, const void *data, size_t size) {
    const char *from = data;
    while (size) {
        struct chunk *chunk = queue->last;
        if (!chunk || !room_in(chunk)) {
            chunk = chunk_new(loop, size);
            if (!chunk)
                return -ENOMEM;
            append(queue, chunk);
        }
        size_t part = room_in(chunk) < size ? room_in(chunk) : size;
        memcpy(chunk->bytes + (chunk->data + chunk->size - chunk->bytes), from, part);
        chunk->size += part;
        queue->size += part;
        from += part;
        size -= part;
    }
    return 0;
}

int tram__write_queue_refer(tram_loop *loop, struct write_queue *queue, tram_buffer *buffer, size_t offset) {
    struct chunk *chunk = memory_get(&loop->allocator, sizeof *chunk);
    if (!chunk)
        return -ENOMEM;
    *chunk = (struct chunk){
        .data = (const char *)tram_buffer_data(buffer) + offset,
        .size = tram_buffer_size(buffer) - offset,
        .buffer = tram_buffer_hold(buffer),
    };
    append(queue, chunk);
    queue->size += chunk->size;
    return 0;
}

size_t tram__write_queue_gather(const struct write_queue *queue, struct iovec *pieces, size_t count) {
    size_t filled = 0;
    for (const struct chunk *chunk = queue->first; chunk && filled < count; chunk = chunk->next)
        pieces[filled++] = (struct iovec){.iov_base = (void *)(uintptr_t)chunk->data, .iov_len = chunk->size};
    return filled;
}

void tram__write_queue_consume(tram_loop *loop, struct write_queue *queue, size_t size) {
    queue->size -= size;
    while (size) {
        struct chunk *chunk = queue->first;
        if (size < chunk->size) {
            chunk->data += size;
            chunk->size -= size;
            return;
        }
        size -= chunk->size;
        queue->first = chunk->next;
        if (!queue->first)
            queue->last = NULL;
        chunk_free(loop, chunk);
    }
}

void tram__write_queue_clear(tram_loop *loop, struct write_queue *queue) {
    tram__write_queue_consume(loop, queue, queue->size);
}
