/*
 * What a transport has accepted and the kernel has not taken yet: a chain of chunks. Bytes of the user's are copied
 * into chunks of two sizes, small rests sharing one; shared buffers are linked, never copied. Owned by one transport;
 * chunks come from a small cache of its loop.
 */
#ifndef TRAM_TRANSPORTS_BASE_WRITE_QUEUE_H
#define TRAM_TRANSPORTS_BASE_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include <tram/buffer.h>
#include <tram/loop.h>

struct chunk;

struct write_queue {
    size_t size; /* bytes in all */
    struct chunk *first;
    struct chunk *last;
};

static inline bool write_queue_empty(const struct write_queue *queue) {
    return queue->size == 0;
}

/* Appends a copy. -ENOMEM: part of it may be queued; the connection is to end. */
int tram__write_queue_copy(tram_loop *loop, struct write_queue *queue, const void *data, size_t size);

/* Appends the bytes of `buffer` from `offset` on, by reference. -ENOMEM: nothing was appended. */
int tram__write_queue_refer(tram_loop *loop, struct write_queue *queue, tram_buffer *buffer, size_t offset);

/*
 * Appends a copy with duplicates of descriptors, at least one of each, which go with its first byte: they begin a
 * piece. 0 or -errno: nothing was appended.
 */
int tram__write_queue_copy_with(tram_loop *loop, struct write_queue *queue, const void *data, size_t size,
                                const int *fds, size_t count);

/* Those that go with the first byte of the queue; how many. */
size_t tram__write_queue_descriptors(const struct write_queue *queue, const int **ret_fds);

/*
 * The oldest pieces, at most `count`; how many. They stay until consumed. Only the first one may have descriptors,
 * which are closed when a byte of it is consumed.
 */
size_t tram__write_queue_gather(const struct write_queue *queue, struct iovec *pieces, size_t count);

/* Takes `size` bytes off the front. */
void tram__write_queue_consume(tram_loop *loop, struct write_queue *queue, size_t size);

void tram__write_queue_clear(tram_loop *loop, struct write_queue *queue);

/* The sizes of the chunks are the size of the queue, and its last chunk is the last. */
void tram__write_queue_validate(const struct write_queue *queue);

#endif
