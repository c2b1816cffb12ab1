#include "core/loop/io.h"

#include <errno.h>
#include <string.h>

#include "core/loop/loop.h"
#include "core/system/sigpipe.h"

/* ---- Descriptors ---- */

/*
 * The table is cut into pages, made when their first descriptor comes, so that a high number neither moves nor clears
 * more than a page and the pointers to pages. Where none was made yet stands this one, in which no place is free.
 */
static uint32_t no_page[TRAM_DESCRIPTOR_PAGE] = {[0 ... TRAM_DESCRIPTOR_PAGE - 1] = UINT32_MAX};

static int grow_pages(tram_loop *loop, uint32_t needed) {
    uint32_t count = loop->descriptor_count / TRAM_DESCRIPTOR_PAGE, new_count = count ? count : 8;
    while (new_count < needed)
        new_count *= 2;
    uint32_t **pages = memory_get(&loop->allocator, new_count * sizeof *pages);
    if (!pages)
        return -ENOMEM;
    for (uint32_t i = 0; i < new_count; i++)
        pages[i] = i < count ? loop->descriptors[i] : no_page;
    memory_put(&loop->allocator, loop->descriptors, count * sizeof *pages);
    loop->descriptors = pages;
    loop->descriptor_count = new_count * TRAM_DESCRIPTOR_PAGE;
    return 0;
}

static int make_page(tram_loop *loop, int fd) {
    uint32_t page = (uint32_t)fd / TRAM_DESCRIPTOR_PAGE;
    int status = (uint32_t)fd >= loop->descriptor_count ? grow_pages(loop, page + 1) : 0;
    if (status || loop->descriptors[page] != no_page)
        return status;
    uint32_t *made = tram__memory_get_zero(&loop->allocator, sizeof no_page);
    if (!made)
        return -ENOMEM;
    loop->descriptors[page] = made;
    return 0;
}

void tram__loop_free_descriptors(tram_loop *loop) {
    uint32_t count = loop->descriptor_count / TRAM_DESCRIPTOR_PAGE;
    for (uint32_t i = 0; i < count; i++)
        if (loop->descriptors[i] != no_page)
            memory_put(&loop->allocator, loop->descriptors[i], sizeof no_page);
    memory_put(&loop->allocator, loop->descriptors, count * sizeof *loop->descriptors);
}

struct io *tram__io_of_descriptor(const tram_loop *loop, int fd) {
    if (fd < 0 || (uint32_t)fd >= loop->descriptor_count)
        return NULL;
    uint32_t slot = *io_entry(loop, fd);
    return slot && slot != UINT32_MAX ? io_of_slot(loop, slot) : NULL;
}

/* Sees to it that there is a place for the descriptor in the table, and that it is free. */
static int free_descriptor_entry(tram_loop *loop, int fd) {
    TRAM_DCHECK(fd >= -1);
    struct io *present = tram__io_of_descriptor(loop, fd);
    if (present) {
        if (!present->kind->yields)
            return TRAM_ESTATE;
        present->kind->ending(present, IO_SHUTDOWN_NOW);
    }
    return fd >= 0 ? make_page(loop, fd) : 0;
}

int tram__io_add(struct io *io, tram_loop *loop, const struct io_kind *kind, int fd) {
    int status = free_descriptor_entry(loop, fd);
    if (!status && !loop->io_slots.free)
        status = tram__slots_grow(&loop->io_slots, &io_slots_layout, &loop->allocator);
    if (status)
        return status;
    if (fd >= 0)
        *io_entry(loop, fd) = loop->io_slots.free;
    io_take_slot(io, loop, kind, fd);
    return 0;
}

void tram__io_remove(struct io *io) {
    tram_loop *loop = io->loop;
    if (!io_added(io))
        return;
    union io_slot *record = io_slot_at(loop, io->slot);
    TRAM_DCHECK(record->io == io);
    slots_put(&loop->io_slots, &io_slots_layout, record, (struct slot){io->generation, io->slot});
    if (io->fd >= 0)
        *io_entry(loop, io->fd) = 0;
    io->slot = 0;
    io->wanted = 0;
    if (likely(io->flags & IO_IN_KERNEL))
        loop->poller_ops->forget(loop->poller, io); /* last: a jump */
    else
        io->armed = 0;
}

/* What was collected before it was wanted is not for the owner: it is reported again in the next tick (L-2, L-5). */
static inline void begin_to_want(struct io *io, unsigned events) {
    if (unlikely(io->flags & IO_IN_KERNEL && events & ~io->wanted & (IO_READ | IO_WRITE) && io->loop->in_tick))
        io->loop->poller_ops->discard(io->loop->poller, io);
}

ALWAYS_INLINE static int want(struct io *io, unsigned events) {
    begin_to_want(io, events);
    io->wanted = (uint8_t)events;
    if (io->fd < 0)
        io->armed = io->wanted; /* nothing to ask of the kernel */
    if (io->wanted == io->armed)
        return 0;
    return io->loop->poller_ops->change(io->loop->poller, io);
}

int tram__io_receive_again(struct io *io) {
    if (!(io->armed & IO_READ) || io->armed & IO_EDGE)
        return want(io, io->wanted | IO_READ);
    begin_to_want(io, IO_READ); /* it is armed still: stopping is lazy */
    io->wanted |= IO_READ;
    return 0;
}

/* The kernel is told only if it reports something nobody wants: whoever pauses and resumes soon pays no system call. */
void tram__io_receive_stop(struct io *io) {
    io->wanted &= (uint8_t)~IO_READ;
}

int tram__io_send_start(struct io *io) {
    return want(io, io->wanted | IO_WRITE);
}

void tram__io_send_stop(struct io *io) {
    if (io->wanted & IO_WRITE)
        want(io, io->wanted & ~(unsigned)IO_WRITE);
}

int tram__io_hangup_start(struct io *io) {
    return want(io, io->wanted | IO_HANGUP);
}

void tram__io_hangup_stop(struct io *io) {
    want(io, io->wanted & ~(unsigned)IO_HANGUP);
}

int tram__io_accept_start(struct io *io) {
    return want(io, IO_READ);
}

void tram__io_accept_stop(struct io *io) {
    want(io, 0);
}

int tram__io_watch(struct io *io, unsigned events) {
    return want(io, events);
}

int tram__io_renew(struct io *io) {
    return io->loop->poller_ops->renew(io->loop->poller, io);
}

/* ---- Writing without SIGPIPE ---- */

#ifndef RWF_NOSIGNAL /* Linux 6.18 */
#define RWF_NOSIGNAL 0x00000100
#endif

static ssize_t write_masked(struct io *io, const struct iovec *pieces, size_t count) {
    struct sigpipe_guard guard;
    sigpipe_block(&guard);
    ssize_t written = io->loop->sys->writev(io->fd, pieces, (int)count);
    sigpipe_restore(&guard, written < 0 && errno == EPIPE);
    return written;
}

ssize_t tram__io_write(struct io *io, const struct iovec *pieces, size_t count) {
    if (likely(!(io->flags & IO_NO_QUIET))) {
        ssize_t written = io->loop->sys->pwritev2(io->fd, pieces, (int)count, -1, RWF_NOSIGNAL);
        if (likely(written >= 0) || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
            return written;
        io->flags |= IO_NO_QUIET; /* an older kernel, or a device that takes no flags */
    }
    return write_masked(io, pieces, count);
}

/* ---- Ending ---- */

void tram__loop_end_all(tram_loop *loop, enum shutdown_mode ending) {
    for (uint32_t slot = 1; slot < slots_count(&loop->io_slots); slot++) {
        struct io *io = io_of_slot(loop, slot);
        if (io && io->kind->ending)
            io->kind->ending(io, ending);
    }
    /* Each leaves the list of those to hear before it does: it may end itself, or others. */
    struct list pending;
    list_init(&pending);
    list_move_all(&loop->close_hooks, &pending);
    while (!list_empty(&pending)) {
        struct close_hook *hook = container_of(pending.next, struct close_hook, link);
        list_remove(&hook->link);
        list_append(&loop->close_hooks, &hook->link);
        hook->ending(hook, ending);
    }
}

/* ---- Checked builds ---- */

static void io_validate(const tram_loop *loop, const struct io *io, uint32_t slot) {
    TRAM_ASSERT(io->slot == slot && io->loop == loop && io->kind && !generation_is_free(io->generation));
    TRAM_ASSERT(io->fd < 0 || ((uint32_t)io->fd < loop->descriptor_count && *io_entry(loop, io->fd) == slot));
}

void tram__loop_validate_ios(const tram_loop *loop) {
    uint32_t count = slots_count(&loop->io_slots);
    tram__slots_validate(&loop->io_slots, &io_slots_layout);
    for (uint32_t slot = 1; slot < count; slot++) {
        TRAM_ASSERT(io_slot_at(loop, slot)->io);
        if (io_of_slot(loop, slot))
            io_validate(loop, io_of_slot(loop, slot), slot);
    }
    for (uint32_t fd = 0; fd < loop->descriptor_count; fd++) {
        uint32_t slot = *io_entry(loop, (int)fd);
        TRAM_ASSERT(!slot || slot == UINT32_MAX ||
                    (slot < count && io_of_slot(loop, slot) && io_of_slot(loop, slot)->fd == (int)fd));
    }
}
