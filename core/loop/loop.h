/*
 * The loop's inside: what the files of core and the transports ask of it. The types are in loop/types.h; what every
 * public call does first, and reporting, in report.h.
 */
#ifndef TRAM_CORE_LOOP_LOOP_H
#define TRAM_CORE_LOOP_LOOP_H

#include "core/base/private.h"
#include "core/loop/report.h"
#include "core/loop/types.h"
#include <tram/loop.h>

/* How much of the mail this tick runs behind its ready queue. */
uint32_t tram__loop_plan_mail(tram_loop *loop);
/* Runs as many as were planned. */
void tram__loop_run_mail(tram_loop *loop, uint32_t count);

/* Outside of a tick nothing has been planned yet: the mail that is there came earlier, and has its place before (L-11).
 */
void tram__loop_ready_outside(tram_loop *loop, struct ready *ready);
void tram__loop_ready_all_outside(tram_loop *loop, struct list *list);

/* Runs in the next tick. */
static inline void loop_ready(tram_loop *loop, struct ready *ready) {
    if (likely(loop->in_tick))
        list_append(&loop->ready, &ready->link);
    else
        tram__loop_ready_outside(loop, ready);
}

/* The same for all of a list, which is empty then. */
static inline void loop_ready_all(tram_loop *loop, struct list *list) {
    if (likely(loop->in_tick))
        list_move_all(list, &loop->ready);
    else
        tram__loop_ready_all_outside(loop, list);
}

/* Around a callback: when it began if callbacks are timed, else 0; and what it was, should it have been slow (L-30). */
static inline uint64_t slow_begin(const tram_loop *loop) {
    return unlikely(loop->timed) ? tram__clock(loop) : 0;
}

static inline void slow_end(tram_loop *loop, uint64_t start_ns, const void *function, const char *what) {
    if (unlikely(start_ns))
        tram__slow_callback(loop, start_ns, function, what);
}

/*
 * Try to send now, with nothing of this io queued: bytes taken, or -errno; -EAGAIN if the kernel takes none now. The
 * kernel is not asked to tell when it will.
 */
static inline ssize_t io_try_send(struct io *io, const void *data, size_t size) {
    return io->loop->poller_ops->try_send(io, data, size);
}

static inline ssize_t io_try_send_pieces(struct io *io, const struct iovec *pieces, size_t count) {
    return io->loop->poller_ops->try_send_pieces(io, pieces, count);
}

/* The same for datagrams: how many were taken, or why the first one was not. `count` is at most TRAM_DATAGRAMS_OUT. */
static inline ssize_t io_try_send_datagrams(struct io *io, const struct io_datagram *datagrams, size_t count) {
    return io->loop->poller_ops->try_send_datagrams(io, datagrams, count);
}

/* The same of bytes with descriptors, at least one of each, which go with the first byte. */
static inline ssize_t io_try_send_descriptors(struct io *io, const void *data, size_t size, const int *fds,
                                              size_t count) {
    return io->loop->poller_ops->try_send_descriptors(io, data, size, fds, count);
}

static inline union io_slot *io_slot_at(const tram_loop *loop, uint32_t slot) {
    return slots_at(&loop->io_slots, &io_slots_layout, slot);
}

/* NULL: the slot is free. */
static inline struct io *io_of_slot(const tram_loop *loop, uint32_t slot) {
    const union io_slot *record = io_slot_at(loop, slot);
    return generation_is_free(record->slot.generation) ? NULL : record->io;
}

static inline const union io_slot *io_slot_of(const struct io *io) {
    return io_slot_at(io->loop, io->slot);
}

/* Is the io still there that had the slot? For whoever called its owner, which may have ended it. */
static inline bool io_still_there(const union io_slot *slot, uint32_t generation) {
    return likely(!generation_is_free(slot->slot.generation)) && likely(slot->io->generation == generation);
}

/* The slot of the io that has the descriptor, or 0; the descriptor must be below descriptor_count. */
static inline uint32_t *io_entry(const tram_loop *loop, int fd) {
    return &loop->descriptors[(uint32_t)fd / TRAM_DESCRIPTOR_PAGE][(uint32_t)fd % TRAM_DESCRIPTOR_PAGE];
}

/* The first free slot is the io's from now on. */
static inline void io_take_slot(struct io *io, tram_loop *loop, const struct io_kind *kind, int fd) {
    union io_slot *record = slots_take(&loop->io_slots, &io_slots_layout);
    struct slot slot = record->slot;
    record->io = io;
    *io = (struct io){.kind = kind,
                      .receiver = kind->receiver,
                      .loop = loop,
                      .slot = slot.number,
                      .generation = slot.generation,
                      .fd = fd};
}

/* tram__io_add(), which does what is not common: no slot is free, the descriptor has no page, or has an io. */
static inline int io_add(struct io *io, tram_loop *loop, const struct io_kind *kind, int fd) {
    uint32_t slot = loop->io_slots.free;
    if (unlikely(!slot || (uint32_t)fd >= loop->descriptor_count || *io_entry(loop, fd)))
        return tram__io_add(io, loop, kind, fd);
    *io_entry(loop, fd) = slot;
    io_take_slot(io, loop, kind, fd);
    return 0;
}

int tram__io_receive_again(struct io *io);

/* 0 or -errno of arming. Starting what is started is harmless. */
static inline int io_receive_start(struct io *io) {
    if (unlikely(io->flags & IO_IN_KERNEL || io->fd < 0))
        return tram__io_receive_again(io);
    io->wanted |= IO_READ;
    return io->loop->poller_ops->change(io->loop->poller, io);
}

/* The same of a file; 0 at its end. */
static inline ssize_t io_try_send_range(struct io *io, const struct io_range *range) {
    return io->loop->poller_ops->try_send_range(io, range);
}

/* 0 or -ENOMEM. The deadline must be idle; starting it again needs a cancel first. */
int tram__deadline_start(tram_loop *loop, struct deadline *deadline, uint64_t when_ns);
/* The same, `duration_ns` from now. */
TRAM_PRIVATE_API int tram__deadline_start_after(tram_loop *loop, struct deadline *deadline, uint64_t duration_ns);
static inline void deadline_cancel(tram_loop *loop, struct deadline *deadline) {
    tram__timers_cancel(&loop->timers, &deadline->timer);
}

/*
 * Frees by `dispose` when no call or callback on the stack can refer to it any more: at the end of the tick, outside of
 * one at the end of the next.
 */
void tram__loop_free_later(tram_loop *loop, struct deferred_free *deferred,
                           void (*dispose)(tram_loop *loop, struct deferred_free *deferred));

static inline void loop_add_close_hook(tram_loop *loop, struct close_hook *hook,
                                       void (*ending)(struct close_hook *, enum shutdown_mode)) {
    hook->ending = ending;
    list_append(&loop->close_hooks, &hook->link);
}

/*
 * What is in the slot, at first use `size` zeroed bytes that begin with a struct loop_state; NULL: out of memory. It
 * lives as long as the loop does. What must end earlier has a close hook in there.
 */
TRAM_PRIVATE_API void *tram__loop_slot_open(tram_loop *loop, unsigned slot, size_t size,
                                            void (*free)(tram_loop *loop, struct loop_state *state));

/* The same; NULL: it was not used yet. */
static inline void *loop_slot(const tram_loop *loop, unsigned slot) {
    return loop->slots[slot];
}

/*
 * Every structure of the loop, and of what is in its slots, is as it must be. Where no call into any of them is on the
 * stack; checked builds ask it between ticks.
 */
void tram__loop_validate(const tram_loop *loop);
void tram__loop_validate_ios(const tram_loop *loop);
void tram__loop_validate_calls(const tram_loop *loop);

/* The records of calls, at the end of the loop. */
void tram__calls_free(tram_loop *loop);

/* Asks every io and every hook of the loop to end; see enum shutdown_mode. */
void tram__loop_end_all(tram_loop *loop, enum shutdown_mode ending);

/* Makes a loop that waits by this backend; `sys` must outlive it. See core/backend/backend.h for who chooses. */
int tram__loop_create(const tram_loop_options *options, const struct sys *sys, const struct poller_ops *poller_ops,
                      tram_loop **ret_loop);

#endif
