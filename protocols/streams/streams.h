/*
 * A stream: a protocol, its reader and its writer, in one piece from a pool of the loop. It lives while its transport
 * or anybody else has it. The loop's thread.
 */
#ifndef TRAM_PROTOCOLS_STREAMS_STREAMS_H
#define TRAM_PROTOCOLS_STREAMS_STREAMS_H

#include "core/tasks/task.h"
#include "protocols/streams/pool.h"
#include "protocols/streams/reader.h"

/* Waits of tasks that drain, or wait for the end: struct writer_wait. */
struct tram_stream_writer {
    tram_transport *transport; /* held from connection_made on; NULL before */
    struct list drainers;
    struct list closers;
    int lost_code; /* how the connection ended: 0 or a code */
    bool paused;   /* by pause_writing */
    bool lost;
};

struct stream {
    tram_protocol protocol; /* first */
    tram_stream_reader reader;
    tram_stream_writer writer;
    struct stream_owned owned;
    int (*serve)(struct stream *stream); /* a server's, once it is connected: handler.c; else NULL */
    tram_stream_handler handler;
    void *arg;
    size_t stack_size;
    uint32_t holds;
    bool attached; /* a transport has the protocol, and will call `released` */
    bool plain;
};

static inline struct stream *stream_of_writer(const tram_stream_writer *writer) {
    return container_of((tram_stream_writer *)(uintptr_t)writer, struct stream, writer);
}

/* The loop on which the running task may open something, or NULL. */
static inline tram_loop *opening_loop(void) {
    const tram_task *task = task_running(NULL);
    return task && !task->future.loop->closed ? task->future.loop : NULL;
}

/* With one hold, the caller's. -ENOMEM, TRAM_ESTATE. */
int tram__streams_new(tram_loop *loop, size_t limit, struct stream **ret_stream);
void tram__streams_drop(struct stream *stream);

/* Becomes the protocol of a transport that is connected already. */
void tram__streams_take_over(struct stream *stream, tram_transport *transport);

/* Waits for an operation, and releases it. Its text goes with the code, for a task that returns it. */
int tram__streams_await(tram_future *future, void **ret_value, const void *where);

/* The connection's end, and the water marks, for who waits: writer.c. */
void tram__writer_lost(tram_stream_writer *writer, int code);
void tram__writer_resumed(tram_stream_writer *writer);

#endif
