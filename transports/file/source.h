/*
 * The part of a file that a sendfile sends: how far it got, where it ends, and reading it in blocks where the kernel
 * does not send it itself. Embedded in the operation.
 */
#ifndef TRAM_TRANSPORTS_FILE_SOURCE_H
#define TRAM_TRANSPORTS_FILE_SOURCE_H

#include "core/jobs/future.h"

struct file_source {
    tram_loop *loop;
    int file;
    uint64_t offset; /* where it begins */
    uint64_t count;  /* at most */
    uint64_t sent;
    uint64_t size;        /* of a regular file, when last asked */
    bool regular;         /* the kernel can send it */
    bool sequential;      /* it has no positions: a pipe, a terminal */
    tram_future *reading; /* a block that is being read, or was read last; NULL: none */
    tram_future_callback read_done;
    void *read_arg;
};

/* What a read came to; lives until the next read, or the end. */
struct file_block {
    const char *data;
    size_t size; /* 0: the end of the file */
};

/* 0; TRAM_EVALUE, -EBADF: see tram/sendfile.h. */
int tram__file_source_open(struct file_source *source, tram_loop *loop, int file, int64_t offset, int64_t count);

/* Is there nothing left to send? */
bool tram__file_source_done(struct file_source *source);

/* The next part, at most `limit` bytes. */
struct io_range tram__file_source_next(const struct file_source *source, size_t limit);

/* Reads the next part on the executor, then calls `done`, whose future has a const struct file_block *. 0 or a code. */
int tram__file_source_read(struct file_source *source, size_t limit, tram_future_callback done, void *arg);

/* It ends, however: takes a read back, and moves the file's position behind what was sent (F-4). Idempotent. */
void tram__file_source_close(struct file_source *source);

/* Does the code say that the kernel does not send such a file (F-8)? */
bool tram__file_source_refused(int code);

/* Is it the connection that a sendfile's error is about, and not the file? */
bool tram__connection_lost(int code);

/* What a sendfile fails with: the ends of connections become one (F-10). */
int tram__sendfile_code(int code);

#endif
