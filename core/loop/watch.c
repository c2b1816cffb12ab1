/* add_reader and add_writer: descriptors of the user's that the loop watches, for the user or for operations. */
#include "core/loop/watch.h"

#include <errno.h>

#include "core/base/invalid.h"
#include "core/loop/discard.h"

/* Who is told of one direction: a callback of the user's, or a watcher; neither: nobody. */
struct registration {
    tram_callback callback;
    void *arg;
    struct watcher *watcher;
    struct discard *discard; /* of `arg`; NULL: none */
    uint64_t since; /* the tick of the registration: events that this tick collected are not for it (L-18, L-19) */
};

struct watch {
    struct io io;
    struct deferred_free deferred;
    struct registration registrations[2]; /* reader, writer */
};

static void watch_ready(struct io *io, unsigned events);
static void watch_ending(struct io *io, enum shutdown_mode ending);

static const struct io_kind watch_kind = {
    .name = "watch",
    .yields = true, /* a descriptor that was closed without being removed may come back as a connection */
    .ready = watch_ready,
    .ending = watch_ending,
};

static bool taken(const struct registration *registration) {
    return registration->callback || registration->watcher;
}

static bool has_watchers(const struct watch *watch) {
    return watch->registrations[0].watcher || watch->registrations[1].watcher;
}

static unsigned watch_events(const struct watch *watch) {
    return (taken(&watch->registrations[0]) ? (unsigned)IO_READ : 0) |
           (taken(&watch->registrations[1]) ? (unsigned)IO_WRITE : 0) | (has_watchers(watch) ? (unsigned)IO_ONCE : 0);
}

/* ---- Ending ---- */

/* What is left to do for what was registered: tram__discard_soon(), last of all. */
static struct discard *clear(struct watch *watch, int which) {
    struct registration registration = watch->registrations[which];
    watch->registrations[which] = (struct registration){0};
    if (registration.watcher)
        registration.watcher->watch = NULL;
    return registration.discard;
}

static void watch_dispose(tram_loop *loop, struct deferred_free *deferred) {
    struct watch *watch = container_of(deferred, struct watch, deferred);
    memory_put(&loop->allocator, watch, sizeof *watch);
}

static void watch_end(struct watch *watch) {
    tram__io_remove(&watch->io);
    tram__loop_free_later(watch->io.loop, &watch->deferred, watch_dispose);
}

/* The descriptor is not what it was. */
static void watch_gone(struct watch *watch) {
    struct watcher *reader = watch->registrations[0].watcher, *writer = watch->registrations[1].watcher;
    struct discard *discards[] = {clear(watch, 0), clear(watch, 1)};
    tram_loop *loop = watch->io.loop;
    watch_end(watch);
    if (reader)
        reader->gone(reader);
    if (writer)
        writer->gone(writer);
    tram__discard_soon(loop, discards[0]);
    tram__discard_soon(loop, discards[1]);
}

static void watch_ending(struct io *io, enum shutdown_mode ending) {
    if (ending == IO_SHUTDOWN_NOW)
        watch_gone((struct watch *)io);
}

/* ---- What the poller reports ---- */

static void watch_call(struct watch *watch, int which) {
    tram_loop *loop = watch->io.loop;
    struct registration *registration = &watch->registrations[which];
    if (registration->watcher) {
        registration->watcher->ready(registration->watcher);
        return;
    }
    tram_callback callback = registration->callback;
    uint64_t start = slow_begin(loop);
    int status = callback(loop, registration->arg);
    slow_end(loop, start, (const void *)(uintptr_t)callback, which ? "writer" : "reader");
    if (unlikely(status < 0))
        tram__report_callback(loop, status, (const void *)(uintptr_t)callback,
                              which ? "a writer callback failed" : "a reader callback failed", (tram_handle){0});
}

static bool is_for(const struct watch *watch, int which) {
    const struct registration *registration = &watch->registrations[which];
    return taken(registration) && registration->since != watch->io.loop->stats.ticks;
}

static void watch_ready(struct io *io, unsigned events) {
    struct watch *watch = (struct watch *)io;
    if (events & IO_READ && is_for(watch, 0))
        watch_call(watch, 0);
    /* The reader may have removed the writer: the watch itself stays until the end of the tick. */
    if (events & IO_WRITE && is_for(watch, 1))
        watch_call(watch, 1);
    if (io_added(io) && io->wanted & IO_ONCE && !io->armed && tram__io_renew(io) < 0)
        watch_gone(watch);
}

/* ---- Registering ---- */

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

/* The watch that the descriptor has or gets. One with watchers may be that of a descriptor closed since (O-15). */
static int watch_get(tram_loop *loop, int fd, struct watch **ret_watch) {
    *ret_watch = watch_of(loop, fd);
    if (*ret_watch && has_watchers(*ret_watch) && tram__io_renew(&(*ret_watch)->io) < 0) {
        watch_gone(*ret_watch);
        *ret_watch = NULL;
    }
    return *ret_watch ? 0 : watch_new(loop, fd, ret_watch);
}

static void watch_take(struct watch *watch, int which) {
    tram_loop *loop = watch->io.loop;
    struct discard *discard = clear(watch, which);
    if (watch_events(watch))
        tram__io_watch(&watch->io, watch_events(watch));
    else
        watch_end(watch);
    tram__discard_soon(loop, discard);
}

static int watch_put(struct watch *watch, int which, struct registration registration) {
    tram_loop *loop = watch->io.loop;
    struct discard *replaced = clear(watch, which);
    registration.since = loop->stats.ticks;
    watch->registrations[which] = registration;
    if (registration.watcher)
        registration.watcher->watch = watch;
    int status = tram__io_watch(&watch->io, watch_events(watch));
    if (status) {
        clear(watch, which); /* the argument stays the caller's */
        watch_take(watch, which);
    }
    tram__discard_soon(loop, replaced);
    return status;
}

/* ---- For operations ---- */

static int which_of(const struct watcher *watcher) {
    return watcher->direction == IO_WRITE;
}

int tram__watcher_start(struct watcher *watcher, tram_loop *loop, int fd) {
    struct watch *watch;
    int status = watch_get(loop, fd, &watch);
    if (!status)
        status = watch_put(watch, which_of(watcher), (struct registration){.watcher = watcher});
    return status;
}

void tram__watcher_stop(struct watcher *watcher) {
    if (watcher->watch)
        watch_take(watcher->watch, which_of(watcher));
}

void tram__watcher_check(struct watcher *watcher) {
    if (watcher->watch && tram__io_renew(&watcher->watch->io) < 0)
        watch_gone(watcher->watch);
}

bool tram__descriptor_owned(const tram_loop *loop, int fd) {
    const struct io *io = tram__io_of_descriptor(loop, fd);
    return io && !io->kind->yields;
}

/* ---- The public calls ---- */

static int add(tram_loop *loop, int fd, int which, struct registration registration, tram_discard discard,
               const char *function) {
    int status = loop_enter_open(loop, function);
    if (unlikely(status))
        return status;
    if (fd < 0)
        return -EBADF;
    if (!registration.callback)
        return tram__invalid("callback");
    status = tram__discard_new(loop, discard, registration.arg, &registration.discard);
    if (status)
        return status;
    struct watch *watch;
    status = watch_get(loop, fd, &watch);
    if (!status)
        status = watch_put(watch, which, registration);
    if (status)
        tram__discard_forget(loop, registration.discard);
    return status;
}

static int take_off(tram_loop *loop, int fd, int which, const char *function) {
    int status = loop_enter(loop, function);
    if (unlikely(status))
        return status;
    if (tram__descriptor_owned(loop, fd))
        return TRAM_ESTATE;
    struct watch *watch = watch_of(loop, fd);
    if (!watch || !taken(&watch->registrations[which]))
        return 0;
    watch_take(watch, which);
    return 1;
}

int tram_loop_add_reader(tram_loop *loop, int fd, tram_callback callback, void *arg) {
    return add(loop, fd, 0, (struct registration){.callback = callback, .arg = arg}, NULL, __func__);
}

int tram_loop_add_writer(tram_loop *loop, int fd, tram_callback callback, void *arg) {
    return add(loop, fd, 1, (struct registration){.callback = callback, .arg = arg}, NULL, __func__);
}

int tram_loop_add_reader_with_discard(tram_loop *loop, int fd, tram_callback callback, void *arg,
                                      tram_discard discard) {
    return add(loop, fd, 0, (struct registration){.callback = callback, .arg = arg}, discard, __func__);
}

int tram_loop_add_writer_with_discard(tram_loop *loop, int fd, tram_callback callback, void *arg,
                                      tram_discard discard) {
    return add(loop, fd, 1, (struct registration){.callback = callback, .arg = arg}, discard, __func__);
}

int tram_loop_remove_reader(tram_loop *loop, int fd) {
    return take_off(loop, fd, 0, __func__);
}

int tram_loop_remove_writer(tram_loop *loop, int fd) {
    return take_off(loop, fd, 1, __func__);
}
