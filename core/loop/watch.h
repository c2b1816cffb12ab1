/*
 * Watched descriptors from the inside: add_reader and add_writer for operations of the library on descriptors that are
 * the user's. A watcher takes the place of whatever was registered for its direction, and its place may be taken in
 * turn: it then hears nothing more, and stopping it disturbs nobody.
 */
#ifndef TRAM_CORE_LOOP_WATCH_H
#define TRAM_CORE_LOOP_WATCH_H

#include "core/loop/io.h"

struct watch;

struct watcher {
    /* The descriptor is ready, or has an error. May stop the watcher, and free it. */
    void (*ready)(struct watcher *watcher);
    /* The descriptor was closed, or its number is another file's now. The watcher is stopped already. */
    void (*gone)(struct watcher *watcher);
    struct watch *watch; /* NULL: not watching */
    enum io_event direction;
};

/* 0, -ENOMEM, -errno of arming, or TRAM_ESTATE: a transport has the descriptor. */
int tram__watcher_start(struct watcher *watcher, tram_loop *loop, int fd);

/* Idempotent. */
void tram__watcher_stop(struct watcher *watcher);

/* Asks whether the descriptor is still the one that was watched; if not, calls `gone`. */
void tram__watcher_check(struct watcher *watcher);

/* Would tram__watcher_start() refuse the descriptor? */
bool tram__descriptor_owned(const tram_loop *loop, int fd);

#endif
