/*
 * What a transport has accepted and the kernel has not taken yet: a ring of chunks, held by its last one. Bytes of the
 * user's are copied into chunks of two sizes, small rests sharing one; shared buffers are linked, never copied. Owned
 * by one transport; chunks come from a small cache of its loop.
 */
#ifndef TRAM_TRANSPORTS_BASE_WRITE_QUEUE_H
#define TRAM_TRANSPORTS_BASE_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "core/base/memory.h"
#include <tram/buffer.h>
#include <tram/loop.h>

struct chunk;

struct write_queue {
    size_t size;        /* bytes in all */
    struct chunk *last; /* whose `next` is the first; NULL: no chunk */
};

static inline bool write_queue_empty(const struct write_queue *queue) {
    return queue->size == 0;
}

/*
 * The sum of the pieces' sizes; false: it is no size, or one that the queue cannot count, or a piece with bytes has no
 * address. The one place where pieces that come from outside are added up.
 */
static inline bool pieces_size(const struct write_queue *queue, const struct iovec *pieces, size_t count,
                               size_t *ret_size) {
    size_t total = queue->size;
    for (size_t i = 0; i < count; i++)
        if ((!pieces[i].iov_base && pieces[i].iov_len) || !size_add(&total, pieces[i].iov_len))
            return false;
    *ret_size = total - queue->size;
    return true;
}

/* Appends a copy. -ENOMEM: part of it may be queued; the connection is to end. */
int tram__write_queue_copy(tram_loop *loop, struct write_queue *queue, const void *data, size_t size);

/* Appends the bytes of `buffer` from `offset` on, by reference. False: no memory, and nothing was appended. */
bool tram__write_queue_refer(tram_loop *loop, struct write_queue *queue, tram_buffer *buffer, size_t offset);

/*
 * Appends a copy with duplicates of descriptors, at least one of each, which go with its first byte: they begin a
 * piece. 0 or -errno: nothing was appended.
 */
int tram__write_queue_copy_with(tram_loop *loop, struct write_queue *queue, const void *data, size_t size,
                                const int *fds, size_t count);

/*
 * New room for at least `size` bytes in one piece, behind the last byte; it counts as queued only when
 * tram__write_queue_filled() says how much of it is. NULL: out of memory.
 */
char *tram__write_queue_reserve(tram_loop *loop, struct write_queue *queue, size_t size, size_t *ret_room);
void tram__write_queue_filled(struct write_queue *queue, size_t size);

/* The room that is left in the last chunk; NULL: none. */
char *tram__write_queue_room(const struct write_queue *queue, size_t *ret_room);

/* Appends another queue of the same loop, which is empty afterwards. */
void tram__write_queue_join(struct write_queue *queue, struct write_queue *added);

/* Those that go with the first byte of the queue; how many. */
size_t tram__write_queue_descriptors(const struct write_queue *queue, const int **ret_fds);

/*
 * The oldest pieces, at most `count`; how many. They stay until consumed. Only the first one may have descriptors,
 * which are closed when a byte of it is consumed.
 */
size_t tram__write_queue_gather(const struct write_queue *queue, struct iovec *pieces, size_t count);

/*
 * Takes `size` bytes off the front. No code of the user's runs within: shared buffers are let go of at the end of the
 * tick, outside of a tick in the next one.
 */
void tram__write_queue_consume(tram_loop *loop, struct write_queue *queue, size_t size);

void tram__write_queue_clear(tram_loop *loop, struct write_queue *queue);

/* The sizes of the chunks are the size of the queue, and the ring closes. */
void tram__write_queue_validate(const struct write_queue *queue);

#endif
