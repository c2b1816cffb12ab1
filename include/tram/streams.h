/*
 * Streams: connections for tasks (asyncio.StreamReader, asyncio.StreamWriter).
 *
 *     static int echo(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
 *         tram_bytes line;
 *         int status;
 *         while (!(status = tram_stream_reader_readline(reader, &line)) && line.size) {
 *             tram_stream_writer_write(writer, line.data, line.size);
 *             status = tram_stream_writer_drain(writer);
 *             if (status)
 *                 break;
 *         }
 *         tram_stream_writer_close(writer);
 *         return status;
 *     }
 *
 * A stream is one object with two faces. It is counted: who made it has one hold, to be given back with
 * tram_stream_writer_release(); that of a handler belongs to the library, and goes when the handler returns. The reader
 * is valid as long as the writer is. A stream whose last hold goes before it was closed is closed by the library, and
 * debug mode reports it as unclosed.
 *
 * All calls are for the loop's thread. Those that may wait are for tasks: where they would have to wait and no task of
 * the loop runs, they return TRAM_ESTATE. Cancelling the task makes them return TRAM_ECANCELLED, and loses no data.
 */
#ifndef TRAM_STREAMS_H
#define TRAM_STREAMS_H

#include <tram/connection.h>
#include <tram/input.h>
#include <tram/server.h>
#include <tram/unix.h>

TRAM_BEGIN_DECLS

typedef struct tram_stream_reader tram_stream_reader;
typedef struct tram_stream_writer tram_stream_writer;

/* ---- Reading ---- */

/*
 * One read waits at a time: a second one that would have to wait is TRAM_ESTATE at once. When the connection was lost
 * with an error, every read returns its code (tram_stream_reader_exception() has the rest), even if bytes are left.
 *
 * A view points into the reader's buffer. It is valid until the next call here that takes a reader, or until the stream
 * goes; the task may wait for something else meanwhile.
 *
 * The buffer takes what comes while nobody reads. With more than twice the limit in it the transport stops reading; it
 * reads on at the limit, and whenever a read has to wait.
 */

/*
 * Copies what is there, at most `size` bytes, and waits for the first (StreamReader.read). How many, 0 only at the end
 * of the stream or for a size of 0; or a negative code.
 */
TRAM_API ptrdiff_t tram_stream_reader_read(tram_stream_reader *reader, void *buffer, size_t size);

/*
 * Copies exactly `size` bytes (StreamReader.readexactly); the limit does not matter. TRAM_EINCOMPLETE: the stream ended
 * before, what there was is in `buffer`, and *ret_partial says how much. `ret_partial` may be NULL.
 */
TRAM_API int tram_stream_reader_readexactly(tram_stream_reader *reader, void *buffer, size_t size, size_t *ret_partial);

/* Everything up to the end of the stream (StreamReader.read(-1)). */
TRAM_API int tram_stream_reader_readall(tram_stream_reader *reader, tram_bytes *ret_bytes);

/*
 * Everything through `separator` (StreamReader.readuntil).
 *
 * TRAM_EINCOMPLETE: the stream ended before; the view is what there was, and it is consumed. TRAM_ELIMIT: more bytes
 * than the limit come before the separator; the view is those of which that is known (LimitOverrunError.consumed), and
 * they stay: tram_stream_reader_consume() or another read takes them. TRAM_EVALUE: an empty separator. With all other
 * errors the view is empty.
 */
TRAM_API int tram_stream_reader_readuntil(tram_stream_reader *reader, const void *separator, size_t size,
                                          tram_bytes *ret_bytes);

/*
 * The same for whichever of `count` separators ends first; of those that end together the shortest. `ret_which`, its
 * number, may be NULL. TRAM_EVALUE: an empty separator, or none.
 */
TRAM_API int tram_stream_reader_readuntil_any(tram_stream_reader *reader, const tram_bytes *separators, size_t count,
                                              tram_bytes *ret_bytes, size_t *ret_which);

/*
 * A line with the LF that ends it; at the end of the stream what is left, and at last an empty one
 * (StreamReader.readline). TRAM_EVALUE: it is longer than the limit; it was dropped, or what there was of it.
 */
TRAM_API int tram_stream_reader_readline(tram_stream_reader *reader, tram_bytes *ret_line);

/*
 * A view of all that is there, at least `least` bytes, fewer only at the end of the stream; nothing is consumed. For
 * parsers, and to read without a copy.
 */
TRAM_API int tram_stream_reader_peek(tram_stream_reader *reader, size_t least, tram_bytes *ret_bytes);

/* Drops `size` bytes that are there. TRAM_EVALUE: more than are. The view of a peek stays valid. */
TRAM_API int tram_stream_reader_consume(tram_stream_reader *reader, size_t size);

/* Nothing is left and nothing will come (StreamReader.at_eof). */
TRAM_API bool tram_stream_reader_at_eof(const tram_stream_reader *reader);

/* The error that reads fail with, or NULL (StreamReader.exception). Valid as long as the stream. */
TRAM_API const tram_error *tram_stream_reader_exception(const tram_stream_reader *reader);

/* ---- A reader by itself ---- */

/* A reader that gets its bytes from the caller: for tests, and for what is no transport. `limit` 0: 64 KiB. -ENOMEM. */
TRAM_API int tram_stream_reader_new(tram_loop *loop, size_t limit, tram_stream_reader **ret_reader);

/* Frees a reader that tram_stream_reader_new() made; NULL is allowed. TRAM_ESTATE: a task waits in it, or it is part of
 * a stream. */
TRAM_API int tram_stream_reader_free(tram_stream_reader *reader);

/* Bytes came; they are copied (StreamReader.feed_data). TRAM_ESTATE: after feed_eof; -ENOMEM: they are lost, and reads
 * fail with that from now on. */
TRAM_API int tram_stream_reader_feed_data(tram_stream_reader *reader, const void *data, size_t size);

/* No more will come (StreamReader.feed_eof). */
TRAM_API int tram_stream_reader_feed_eof(tram_stream_reader *reader);

/* Reads fail from now on, the one that waits too (StreamReader.set_exception). The error is copied, but for its causes.
 * TRAM_EVALUE: none, or a code that is not negative. */
TRAM_API int tram_stream_reader_set_exception(tram_stream_reader *reader, const tram_error *error);

/* ---- Writing ---- */

/* These go straight to the transport, as do their results: tram_transport_write() and so on. */
TRAM_API int tram_stream_writer_write(tram_stream_writer *writer, const void *data, size_t size);
TRAM_API int tram_stream_writer_writelines(tram_stream_writer *writer, const struct iovec *pieces, size_t count);
TRAM_API int tram_stream_writer_write_eof(tram_stream_writer *writer);
TRAM_API bool tram_stream_writer_can_write_eof(const tram_stream_writer *writer);
TRAM_API const void *tram_stream_writer_get_extra_info(tram_stream_writer *writer, const char *name,
                                                       const void *fallback);
/* Sends what is queued, then ends; does not wait for that (StreamWriter.close). */
TRAM_API int tram_stream_writer_close(tram_stream_writer *writer);
TRAM_API bool tram_stream_writer_is_closing(const tram_stream_writer *writer);

/* The reader of the same stream, for who was given the writer only. */
TRAM_API tram_stream_reader *tram_stream_writer_reader(tram_stream_writer *writer);

/* The transport itself (StreamWriter.transport), valid as long as the stream; after the connection it is inert. NULL:
 * connection_made has not come yet. */
TRAM_API tram_transport *tram_stream_writer_transport(const tram_stream_writer *writer);

/*
 * Waits while more is queued than the high-water mark, until it is the low-water mark or less (StreamWriter.drain). Any
 * number of tasks may drain one stream. The error of the reader, if there is one; -ECONNRESET: the connection is lost.
 */
TRAM_API int tram_stream_writer_drain(tram_stream_writer *writer);

/* Waits until the connection is lost; the code of its error, or 0 (StreamWriter.wait_closed). */
TRAM_API int tram_stream_writer_wait_closed(tram_stream_writer *writer);

/*
 * Drains, lays TLS over the connection, and waits until it is there (StreamWriter.start_tls): tram_loop_start_tls(),
 * which tells the errors, as the server if a server made the stream or `server_side` says so. Reader and writer stay as
 * they are, also for a read that waits meanwhile; views of the reader end. What the reader has buffered is the
 * beginning of TLS already, so read what was said before. A failed or cancelled call ends the connection; else nothing
 * has happened: TRAM_EVALUE also for options with `ahead`, TRAM_ESTATE also after the end of the stream.
 */
TRAM_API int tram_stream_writer_start_tls(tram_stream_writer *writer, const tram_start_tls_options *options);

/* One hold more of the whole stream, and one less; releasing NULL does nothing. */
TRAM_API tram_stream_writer *tram_stream_writer_hold(tram_stream_writer *writer);
TRAM_API void tram_stream_writer_release(tram_stream_writer *writer);

/* ---- Connecting ---- */

/*
 * Connects and waits for it (asyncio.open_connection): host, port and options as for tram_loop_create_connection().
 * `limit` bounds what comes before a separator; 0: 64 KiB. The caller has one hold. Errors are those of the call and of
 * its future, whose text goes with the code if the task returns it at once (tram_loop_raise()). TRAM_EVALUE also for
 * options with a discard. A task that is cancelled meanwhile leaves no connection.
 */
TRAM_API int tram_open_connection(const char *host, const char *port, size_t limit,
                                  const tram_connection_options *options, tram_stream_reader **ret_reader,
                                  tram_stream_writer **ret_writer);

/* The same for a Unix socket: tram_loop_create_unix_connection() (asyncio.open_unix_connection). */
TRAM_API int tram_open_unix_connection(const void *path, size_t path_size, size_t limit,
                                       const tram_unix_connection_options *options, tram_stream_reader **ret_reader,
                                       tram_stream_writer **ret_writer);

/*
 * A stream for a transport that the caller makes: the protocol goes to tram_loop_create_pair(), to a custom transport
 * and the like, which calls its connection_made. The caller has one hold. If no transport takes the protocol, call its
 * ops->released. -ENOMEM; TRAM_ESTATE: the loop is closed.
 */
TRAM_API int tram_stream_new(tram_loop *loop, size_t limit, tram_protocol **ret_protocol,
                             tram_stream_reader **ret_reader, tram_stream_writer **ret_writer);

/* ---- Serving ---- */

/*
 * What a server does with a connection, in a task of its own. A negative return is reported to the exception handler
 * and closes the connection; TRAM_ECANCELLED only closes it. tram_loop_raise() before it gives it a text. A task that
 * goes on with the stream after the return needs a hold.
 *
 * When its runtime stops or its server drains, a handler finishes the request that it has begun: a read that would wait
 * for a new one, with nothing buffered and nothing read since the last write, ends as at the end of the stream. Whoever
 * has not ended when the grace is over is cancelled, and its connection reset.
 */
typedef int (*tram_stream_handler)(tram_stream_reader *reader, tram_stream_writer *writer, void *arg);

/* Zero-initialise; zero means the default. */
typedef struct tram_stream_service {
    tram_stream_handler handler;
    void *arg;
    size_t limit;      /* of the readers; 0: 64 KiB */
    size_t stack_size; /* of the tasks; 0: as in tram_task_options */
    /* The handler is called within connection_made instead of a task, and must not wait; the stream's hold is its own
     * to give back. */
    bool plain;
    uintptr_t reserved[4]; /* must be 0 */
} tram_stream_service;

/*
 * A tram_protocol_factory whose `arg` is a const tram_stream_service *, which must live until the factory is called no
 * more: with it streams are served by whatever takes a factory, also outside of a task. tram_loop_create_server(),
 * tram_runtime_create_server(), tram_loop_connect_accepted_socket() …
 */
TRAM_API int tram_stream_factory(tram_loop *loop, void *service, tram_protocol **ret_protocol);

/*
 * Serves, and waits until it does (asyncio.start_server). The service is copied; the rest is as for
 * tram_loop_create_server(). The discard of the options gets the service's `arg` once no further handler will begin:
 * handlers that run may still use it.
 */
TRAM_API int tram_start_server(const tram_stream_service *service, const char *host, const char *port,
                               const tram_server_options *options, tram_server **ret_server);

/* The same at a Unix socket: tram_loop_create_unix_server() (asyncio.start_unix_server). */
TRAM_API int tram_start_unix_server(const tram_stream_service *service, const void *path, size_t path_size,
                                    const tram_unix_server_options *options, tram_server **ret_server);

/*
 * On all workers: tram_runtime_create_server() and its Unix form. Not for tasks: any thread that is no worker. A
 * handler runs on the worker that has its connection.
 */
TRAM_API int tram_runtime_start_server(tram_runtime *runtime, const tram_stream_service *service, const char *host,
                                       const char *port, const tram_server_options *options,
                                       tram_runtime_server **ret_server, tram_error *ret_error);
TRAM_API int tram_runtime_start_unix_server(tram_runtime *runtime, const tram_stream_service *service, const void *path,
                                            size_t path_size, const tram_unix_server_options *options,
                                            tram_runtime_server **ret_server, tram_error *ret_error);

TRAM_END_DECLS

#endif
