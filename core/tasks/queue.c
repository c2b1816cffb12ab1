/* Queues: items in a ring or a heap, and who waits to put and to get. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/tasks/waiters.h"
#include <tram/queue.h>

#define FIRST_CAPACITY 8

struct tram_queue {
    tram_loop *loop;
    tram_queue_options options;
    void **items;
    size_t capacity; /* a power of two, or 0 */
    size_t head;     /* of the ring */
    size_t count;
    size_t unfinished; /* put, and not task_done() */
    bool shut;
    tram_waiters getters;
    tram_waiters putters;
    tram_event finished; /* for who waits while some are unfinished */
};

static const struct wait_kind get_kind = WAIT_KIND("queue get");
static const struct wait_kind put_kind = WAIT_KIND("queue put");
static const struct wait_kind join_kind = WAIT_KIND("queue join");

/* ---- Items ---- */

static void **item_at(const tram_queue *queue, size_t index) {
    return &queue->items[(queue->head + index) & (queue->capacity - 1)];
}

static int grow(tram_queue *queue) {
    size_t capacity = queue->capacity ? queue->capacity * 2 : FIRST_CAPACITY;
    void **items =
        capacity <= SIZE_MAX / sizeof *items ? memory_get(&queue->loop->allocator, capacity * sizeof *items) : NULL;
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < queue->count; i++)
        items[i] = *item_at(queue, i);
    memory_put(&queue->loop->allocator, queue->items, queue->capacity * sizeof *items);
    queue->items = items;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

static void swap(void **a, void **b) {
    void *item = *a;
    *a = *b;
    *b = item;
}

static bool before(const tram_queue *queue, size_t a, size_t b) {
    return queue->options.compare(queue->items[a], queue->items[b]) < 0;
}

static void sift_up(tram_queue *queue, size_t index) {
    for (; index > 0 && before(queue, index, (index - 1) / 2); index = (index - 1) / 2)
        swap(&queue->items[index], &queue->items[(index - 1) / 2]);
}

static void sift_down(tram_queue *queue) {
    for (size_t index = 0, child; (child = 2 * index + 1) < queue->count; index = child) {
        if (child + 1 < queue->count && before(queue, child + 1, child))
            child++;
        if (!before(queue, child, index))
            return;
        swap(&queue->items[child], &queue->items[index]);
    }
}

static int add(tram_queue *queue, void *item) {
    int status = queue->count == queue->capacity ? grow(queue) : 0;
    if (status)
        return status;
    *item_at(queue, queue->count++) = item;
    if (queue->options.order == TRAM_QUEUE_PRIORITY)
        sift_up(queue, queue->count - 1);
    return 0;
}

static void *take(tram_queue *queue) {
    queue->count--;
    if (queue->options.order == TRAM_QUEUE_LIFO)
        return *item_at(queue, queue->count);
    void *item = *item_at(queue, 0);
    if (queue->options.order == TRAM_QUEUE_PRIORITY) {
        queue->items[0] = queue->items[queue->count];
        sift_down(queue);
    } else {
        queue->head++;
    }
    return item;
}

/* ---- Putting and getting ---- */

bool tram_queue_full(const tram_queue *queue) {
    return queue->options.max_size && queue->count >= queue->options.max_size;
}

size_t tram_queue_size(const tram_queue *queue) {
    return queue->count;
}

static int put_now(tram_queue *queue, void *item) {
    int status = add(queue, item);
    if (status)
        return status;
    queue->unfinished++;
    tram_event_clear(&queue->finished);
    tram__waiters_wake(&queue->getters);
    return 0;
}

int tram_queue_put_nowait(tram_queue *queue, void *item) {
    int status = loop_enter(queue->loop, __func__);
    if (status)
        return status;
    if (queue->shut)
        return -ESHUTDOWN;
    return tram_queue_full(queue) ? -EAGAIN : put_now(queue, item);
}

static void *get_now(tram_queue *queue) {
    void *item = take(queue);
    tram__waiters_wake(&queue->putters);
    return item;
}

int tram_queue_get_nowait(tram_queue *queue, void **ret_item) {
    int status = loop_enter(queue->loop, __func__);
    if (status)
        return status;
    if (queue->count == 0)
        return queue->shut ? -ESHUTDOWN : -EAGAIN;
    *ret_item = get_now(queue);
    return 0;
}

int tram_queue_put(tram_queue *queue, void *item) {
    int status = task_check(queue->loop);
    if (status)
        return status;
    while (tram_queue_full(queue)) {
        if (queue->shut)
            return -ESHUTDOWN;
        bool woken;
        status = tram__waiters_park(&queue->putters, &put_kind, __builtin_return_address(0), &woken);
        if (!status)
            continue;
        if (!tram_queue_full(queue) && woken)
            tram__waiters_wake(&queue->putters); /* the room that this one does not take */
        return status;
    }
    return queue->shut ? -ESHUTDOWN : put_now(queue, item);
}

int tram_queue_get(tram_queue *queue, void **ret_item) {
    int status = task_check(queue->loop);
    if (status)
        return status;
    while (queue->count == 0) {
        if (queue->shut)
            return -ESHUTDOWN;
        bool woken;
        status = tram__waiters_park(&queue->getters, &get_kind, __builtin_return_address(0), &woken);
        if (!status)
            continue;
        if (queue->count > 0 && woken)
            tram__waiters_wake(&queue->getters);
        return status;
    }
    *ret_item = get_now(queue);
    return 0;
}

/* ---- The end of items, and of the queue ---- */

int tram_queue_task_done(tram_queue *queue) {
    if (queue->unfinished == 0)
        return tram__invalid("queue");
    if (--queue->unfinished == 0)
        tram_event_set(&queue->finished);
    return 0;
}

int tram_queue_join(tram_queue *queue) {
    int status = task_check(queue->loop);
    if (status || queue->unfinished == 0)
        return status;
    bool woken;
    return tram__waiters_park(&queue->finished.waiters, &join_kind, __builtin_return_address(0), &woken);
}

static void empty(tram_queue *queue, tram_discard discard) {
    while (queue->count > 0) {
        void *item = take(queue);
        if (discard)
            discard(item);
        (void)tram_queue_task_done(queue);
    }
}

int tram_queue_shutdown(tram_queue *queue, bool immediate, tram_discard discard) {
    int status = loop_enter(queue->loop, __func__);
    if (status)
        return status;
    queue->shut = true;
    if (immediate)
        empty(queue, discard);
    while (tram__waiters_wake(&queue->getters))
        ;
    while (tram__waiters_wake(&queue->putters))
        ;
    return 0;
}

int tram_queue_new(tram_loop *loop, const tram_queue_options *options, tram_queue **ret_queue) {
    static const tram_queue_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    if ((unsigned)options->order > TRAM_QUEUE_PRIORITY || (options->order == TRAM_QUEUE_PRIORITY && !options->compare))
        return tram__invalid((unsigned)options->order > TRAM_QUEUE_PRIORITY ? "order" : "compare");
    if (reserved_used(options))
        return tram__invalid("reserved");
    tram_queue *queue = tram__memory_get_zero(&loop->allocator, sizeof *queue);
    if (!queue)
        return -ENOMEM;
    queue->loop = loop;
    queue->options = *options;
    *ret_queue = queue;
    return 0;
}

void tram_queue_free(tram_queue *queue) {
    if (!queue || loop_enter(queue->loop, __func__))
        return;
    memory_put(&queue->loop->allocator, queue->items, queue->capacity * sizeof *queue->items);
    memory_put(&queue->loop->allocator, queue, sizeof *queue);
}
