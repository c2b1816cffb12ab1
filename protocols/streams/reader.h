/*
 * A stream's reader: an input without a parser, and the one task that may wait for it. The loop's thread.
 *
 * Bytes that come are copied once, into a block of the loop's pool; it goes back when all of it was read and no view
 * points into it, so that an idle reader has none.
 */
#ifndef TRAM_PROTOCOLS_STREAMS_READER_H
#define TRAM_PROTOCOLS_STREAMS_READER_H

#include <string.h>

#include "core/loop/loop.h"
#include "core/tasks/task.h"
#include "protocols/input/input.h"
#include <tram/streams.h>

/* A read that waits. */
struct read_wait {
    struct task_wait wait;
    tram_stream_reader *reader;
    size_t needed; /* bytes that must be there */
    int status;    /* the error that woke it */
    void *buffer;  /* of a read: nothing is there, and what comes goes here if it fits; else NULL */
    size_t size;
    size_t filled; /* how much came so */
};

struct tram_stream_reader {
    tram_input input;
    tram_loop *loop;
    tram_transport *transport; /* whose reading it pauses; NULL: nobody's */
    struct read_wait *waiter;
    tram_error error; /* what every read fails with; code 0: nothing */
    bool paused;      /* the transport, by us */
    bool in_request;  /* bytes were consumed, and nothing was written since */
    bool closing;     /* the connection is to end: no new request begins */
    bool alone;       /* of tram_stream_reader_new() */
};

/* `limit` 0: the default one. -ENOMEM. */
void tram__reader_init(tram_stream_reader *reader, tram_loop *loop, size_t limit);
void tram__reader_fini(tram_stream_reader *reader);

/*
 * Gives what came to a read that waits for just that. False: somebody else must take it. Who waits has seen neither an
 * end nor an error, for these would have woken it.
 */
static ALWAYS_INLINE bool reader_fill(tram_stream_reader *reader, const void *data, size_t size) {
    struct read_wait *waiter = reader->waiter;
    if (unlikely(!waiter || size > waiter->size || waiter->wait.state != WAIT_PENDING))
        return false;
    waiter->filled = size;
    reader->in_request = true;
    memcpy(waiter->buffer, data, size);
    task_wake_pending(&waiter->wait);
    return true;
}

/* As the public calls of these names, without their checks. */
int tram__reader_feed(tram_stream_reader *reader, const void *data, size_t size);
void tram__reader_feed_eof(tram_stream_reader *reader);
void tram__reader_fail(tram_stream_reader *reader, const tram_error *error);

/* A code for a task: if it is the stream's error, with the text of that, as by tram_loop_raise(). */
int tram__reader_tell(const tram_stream_reader *reader, int status);

/* All that is buffered, for who takes over; the transport reads on. It goes with the second call. */
tram_bytes tram__reader_rest(tram_stream_reader *reader);
void tram__reader_drop_rest(tram_stream_reader *reader);

/* However much comes, it is taken from now on. */
void tram__reader_unbound(tram_stream_reader *reader);

/* The connection is to end: a read that would wait for a new request ends as at the end of the stream. */
void tram__reader_closing(tram_stream_reader *reader);

#endif
