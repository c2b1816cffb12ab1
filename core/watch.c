/* add_reader and add_writer: descriptors of the user's that the loop watches. */
#include <errno.h>

#include "core/loop.h"

struct watch {
    struct io io;
    struct grave grave;
    tram_callback callback[2]; /* reader, writer; NULL: not registered */
    void *arg[2];
    uint64_t since[2]; /* the tick of the registration: events that this tick collected are not for it (L-18, L-19) */
};

static void watch_ready(struct io *io, unsigned events);
static void watch_ending(struct io *io, enum io_ending ending);

static const struct io_kind watch_kind = {
    .name = "watch",
    .yields = true, /* a descriptor that was closed without being removed may come back as a connection */
    .ready = watch_ready,
    .ending = watch_ending,
};

static void watch_dispose(tram_loop *loop, struct grave *grave) {
    struct watch *watch = container_of(grave, struct watch, grave);
    memory_put(&loop->allocator, watch, sizeof *watch);
}

static void watch_end(struct watch *watch) {
    tram_loop *loop = watch->io.loop;
    tram__io_remove(&watch->io);
    watch->callback[0] = watch->callback[1] = NULL;
    tram__loop_bury(loop, &watch->grave, watch_dispose);
}

static void watch_ending(struct io *io, enum io_ending ending) {
    if (ending == IO_ENDING_DROP)
        watch_end((struct watch *)io);
}

static void watch_call(struct watch *watch, int which) {
    tram_loop *loop = watch->io.loop;
    tram_callback callback = watch->callback[which];
    uint64_t start = slow_begin(loop);
    int status = callback(loop, watch->arg[which]);
    slow_end(loop, start, (const void *)(uintptr_t)callback, which ? "writer" : "reader");
    if (unlikely(status < 0))
        tram__report_callback(loop, status, (const void *)(uintptr_t)callback,
                              which ? "a writer callback failed" : "a reader callback failed", (tram_handle){0});
}

static bool is_for(const struct watch *watch, int which) {
    return watch->callback[which] && watch->since[which] != watch->io.loop->stats.ticks;
}

static void watch_ready(struct io *io, unsigned events) {
    struct watch *watch = (struct watch *)io;
    if (events & IO_READ && is_for(watch, 0))
        watch_call(watch, 0);
    /* The reader may have removed the writer: the watch itself stays until the end of the tick. */
    if (events & IO_WRITE && is_for(watch, 1))
        watch_call(watch, 1);
}

static unsigned watch_events(const struct watch *watch) {
    return (watch->callback[0] ? (unsigned)IO_READ : 0) | (watch->callback[1] ? (unsigned)IO_WRITE : 0);
}

/* The watch of a descriptor, NULL if it has none. */
static struct watch *watch_of(tram_loop *loop, int fd) {
    struct io *io = tram__io_of_descriptor(loop, fd);
    return io && io->kind == &watch_kind ? (struct watch *)io : NULL;
}

static int watch_new(tram_loop *loop, int fd, struct watch **ret_watch) {
    struct watch *watch = tram__memory_get_zero(&loop->allocator, sizeof *watch);
    if (!watch)
        return -ENOMEM;
    int status = tram__io_add(&watch->io, loop, &watch_kind, fd);
    if (status)
        memory_put(&loop->allocator, watch, sizeof *watch);
    else
        *ret_watch = watch;
    return status;
}

static int watch_put(tram_loop *loop, int fd, int which, tram_callback callback, void *arg) {
    struct watch *watch = watch_of(loop, fd);
    int status = watch ? 0 : watch_new(loop, fd, &watch);
    if (status)
        return status;
    watch->callback[which] = callback;
    watch->arg[which] = arg;
    watch->since[which] = loop->stats.ticks;
    status = tram__io_watch(&watch->io, watch_events(watch));
    if (status)
        watch_end(watch);
    return status;
}

static int add(tram_loop *loop, int fd, int which, tram_callback callback, void *arg, const char *function) {
    int status = loop_enter_open(loop, function);
    if (unlikely(status))
        return status;
    if (fd < 0)
        return -EBADF;
    return callback ? watch_put(loop, fd, which, callback, arg) : TRAM_EVALUE;
}

static int take_off(tram_loop *loop, int fd, int which, const char *function) {
    int status = loop_enter_open(loop, function);
    if (unlikely(status))
        return status;
    struct io *io = tram__io_of_descriptor(loop, fd);
    if (io && io->kind != &watch_kind)
        return TRAM_ESTATE;
    struct watch *watch = (struct watch *)io;
    if (!watch || !watch->callback[which])
        return 0;
    watch->callback[which] = NULL;
    if (watch_events(watch))
        tram__io_watch(&watch->io, watch_events(watch));
    else
        watch_end(watch);
    return 1;
}

int tram_loop_add_reader(tram_loop *loop, int fd, tram_callback callback, void *arg) {
    return add(loop, fd, 0, callback, arg, __func__);
}

int tram_loop_add_writer(tram_loop *loop, int fd, tram_callback callback, void *arg) {
    return add(loop, fd, 1, callback, arg, __func__);
}

int tram_loop_remove_reader(tram_loop *loop, int fd) {
    return take_off(loop, fd, 0, __func__);
}

int tram_loop_remove_writer(tram_loop *loop, int fd) {
    return take_off(loop, fd, 1, __func__);
}
