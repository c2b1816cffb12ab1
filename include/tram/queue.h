/*
 * Queues between tasks of one loop (asyncio.Queue, PriorityQueue, LifoQueue). Items are pointers of the user's.
 *
 * All calls are for the loop's thread; those that wait are for tasks (TRAM_ESTATE elsewhere). No wait allocates memory.
 */
#ifndef TRAM_QUEUE_H
#define TRAM_QUEUE_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

typedef struct tram_queue tram_queue;

typedef enum tram_queue_order {
    TRAM_QUEUE_FIFO = 0,
    TRAM_QUEUE_LIFO = 1,
    TRAM_QUEUE_PRIORITY = 2 /* the least one first, by `compare` */
} tram_queue_order;

/* Zero-initialise; zero means the default. */
typedef struct tram_queue_options {
    size_t max_size; /* items; 0: any number */
    tram_queue_order order;
    int (*compare)(const void *a, const void *b); /* negative: a comes first; for TRAM_QUEUE_PRIORITY */
    uintptr_t reserved[5];                        /* must be 0 */
} tram_queue_options;

/* `options` may be NULL. -ENOMEM, TRAM_EVALUE. Free it before the loop, when no task waits in it. Items that are left
 * are the caller's. */
TRAM_API int tram_queue_new(tram_loop *loop, const tram_queue_options *options, tram_queue **ret_queue);
TRAM_API void tram_queue_free(tram_queue *queue);

/* Waits for room. -ENOMEM, TRAM_ECANCELLED: the item stays the caller's; -ESHUTDOWN: the queue was shut down. */
TRAM_API int tram_queue_put(tram_queue *queue, void *item);

/* Waits for an item. -ESHUTDOWN: the queue was shut down and is empty. */
TRAM_API int tram_queue_get(tram_queue *queue, void **ret_item);

/* Without waiting: -EAGAIN where the others would (QueueFull, QueueEmpty). Also from callbacks. */
TRAM_API int tram_queue_put_nowait(tram_queue *queue, void *item);
TRAM_API int tram_queue_get_nowait(tram_queue *queue, void **ret_item);

/* Items in it; is it full, for one with a limit? */
TRAM_API size_t tram_queue_size(const tram_queue *queue);
TRAM_API bool tram_queue_full(const tram_queue *queue);

/* An item that was got has been dealt with (Queue.task_done). TRAM_EVALUE: more often than items were put. */
TRAM_API int tram_queue_task_done(tram_queue *queue);

/* Waits until that was said of every item that was put (Queue.join). */
TRAM_API int tram_queue_join(tram_queue *queue);

/* No more is put, and who waits to put gets -ESHUTDOWN. What is in it can still be got; `immediate` empties it, each
 * item going to `discard` (may be NULL) and counting as dealt with, and who waits to get gets -ESHUTDOWN
 * (Queue.shutdown). */
TRAM_API int tram_queue_shutdown(tram_queue *queue, bool immediate, tram_discard discard);

TRAM_END_DECLS

#endif
