#include "transports/datagram/queue.h"

#include <errno.h>
#include <string.h>

/* A datagram in a block; its address and its data follow, each padded. */
struct record {
    size_t size;
    size_t address_size;
};

struct datagram_block {
    struct datagram_block *next;
    size_t size;  /* of all */
    size_t begin; /* of the first record that waits */
    size_t end;   /* of the last one */
    char bytes[];
};

static size_t padded(size_t size) {
    return (size + 7) & ~(size_t)7;
}

static size_t record_size(const struct record *record) {
    return sizeof *record + padded(record->address_size) + padded(record->size);
}

static struct record *record_at(const struct datagram_block *block, size_t offset) {
    return (struct record *)(void *)((char *)(uintptr_t)block->bytes + offset);
}

/* A block with room for `wanted` bytes behind what it has. */
static struct datagram_block *block_with_room(tram_loop *loop, struct datagram_queue *queue, size_t wanted) {
    struct datagram_block *block = queue->last;
    if (block && block->size - sizeof *block - block->end >= wanted)
        return block;
    size_t size = sizeof *block + wanted;
    if (size < CHUNK_LARGE)
        size = CHUNK_LARGE; /* one rarely comes alone */
    block = tram__chunk_get(loop, &size);
    if (!block)
        return NULL;
    *block = (struct datagram_block){.size = size};
    if (queue->last)
        queue->last->next = block;
    else
        queue->first = block;
    queue->last = block;
    return block;
}

int tram__datagram_queue_add(tram_loop *loop, struct datagram_queue *queue, const struct io_datagram *datagram) {
    struct record header = {.size = datagram->size, .address_size = datagram->address_size};
    struct datagram_block *block = block_with_room(loop, queue, record_size(&header));
    if (!block)
        return -ENOMEM;
    struct record *record = record_at(block, block->end);
    char *bytes = (char *)(record + 1);
    *record = header;
    if (header.address_size)
        memcpy(bytes, datagram->address, header.address_size);
    if (header.size)
        memcpy(bytes + padded(header.address_size), datagram->data, header.size);
    block->end += record_size(&header);
    queue->count++;
    return 0;
}

size_t tram__datagram_queue_gather(const struct datagram_queue *queue, struct io_datagram *datagrams, size_t count) {
    size_t filled = 0;
    for (const struct datagram_block *block = queue->first; block; block = block->next)
        for (size_t at = block->begin; at < block->end && filled < count; filled++) {
            struct record *record = record_at(block, at);
            char *bytes = (char *)(record + 1);
            datagrams[filled] = (struct io_datagram){
                .data = bytes + padded(record->address_size),
                .size = record->size,
                .address = record->address_size ? (const struct sockaddr *)(void *)bytes : NULL,
                .address_size = (socklen_t)record->address_size,
            };
            at += record_size(record);
        }
    return filled;
}

size_t tram__datagram_queue_drop(tram_loop *loop, struct datagram_queue *queue, size_t count) {
    size_t bytes = 0;
    queue->count -= count;
    for (; count; count--) {
        struct datagram_block *block = queue->first;
        struct record *record = record_at(block, block->begin);
        bytes += record->size;
        block->begin += record_size(record);
        if (block->begin < block->end)
            continue;
        queue->first = block->next;
        if (!queue->first)
            queue->last = NULL;
        tram__chunk_put(loop, block, block->size);
    }
    return bytes;
}
