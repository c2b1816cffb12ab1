#include "transports/datagram/queue.h"

#include <errno.h>
#include <string.h>

/* A datagram in a block; its address, what goes beside it, and its data follow, each padded. */
struct record {
    size_t size;
    uint32_t address_size;
    uint16_t ancillary; /* where it is, from the record on; 0: there is none */
    uint16_t data;      /* where that is */
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
    return record->data + padded(record->size);
}

static void *part_of(const struct record *record, size_t offset) {
    return (char *)(uintptr_t)record + offset;
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
    size = MAX(size, CHUNK_LARGE); /* one rarely comes alone */
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

/* Between the address and the data, where there is room for it. */
__attribute__((noinline)) static void add_ancillary(struct record *record, const struct io_ancillary *ancillary) {
    record->ancillary = (uint16_t)(sizeof *record + padded(record->address_size));
    memcpy(part_of(record, record->ancillary), ancillary, sizeof *ancillary);
}

int tram__datagram_queue_add(tram_loop *loop, struct datagram_queue *queue, const struct io_datagram *datagram) {
    size_t data = sizeof(struct record) + padded(datagram->address_size);
    if (unlikely(datagram->ancillary != NULL))
        data += padded(sizeof *datagram->ancillary);
    struct datagram_block *block = block_with_room(loop, queue, data + padded(datagram->size));
    if (!block)
        return -ENOMEM;
    struct record *record = record_at(block, block->end);
    *record = (struct record){.size = datagram->size, .address_size = datagram->address_size, .data = (uint16_t)data};
    block->end += data + padded(datagram->size);
    queue->count++;
    if (datagram->address_size)
        io_copy_address(record + 1, datagram->address, datagram->address_size);
    if (unlikely(datagram->ancillary != NULL))
        add_ancillary(record, datagram->ancillary);
    if (datagram->size)
        memcpy(part_of(record, data), datagram->data, datagram->size);
    return 0;
}

size_t tram__datagram_queue_gather(const struct datagram_queue *queue, struct io_datagram *datagrams, size_t count) {
    size_t filled = 0;
    for (const struct datagram_block *block = queue->first; block; block = block->next)
        for (size_t at = block->begin; at < block->end && filled < count; filled++) {
            struct record *record = record_at(block, at);
            struct io_datagram *datagram = &datagrams[filled];
            datagram->data = part_of(record, record->data);
            datagram->size = record->size;
            datagram->address = record->address_size ? (const struct sockaddr *)(void *)(record + 1) : NULL;
            datagram->address_size = record->address_size;
            datagram->ancillary = unlikely(record->ancillary) ? part_of(record, record->ancillary) : NULL;
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
